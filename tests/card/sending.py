# SPDX-License-Identifier: Apache-2.0
"""What the tests of the card share: frames on a wire, and what comes out, side by side."""

from __future__ import annotations

import binascii
from dataclasses import dataclass, field

import numpy as np
from twinstamp.card import Card
from twinstamp.card.sim import NO_ERROR, WIRE_ADD_FCS, WIRE_ITEM, Frames, SimulatedCard


def stamp_limits_ns(window_ns: float = 0.05, apart_ppm: float = 100.0) -> tuple[float, float]:
    """Least and largest stamp - truth - constant, in ns (docs/card.md, Stamps).

    Half a core cycle each way; the flip-flop that catches the old value, which can only make a stamp later,
    by its undecided window; half of the stamp's unit of 2^-32 s, and what the rounding misses (0.4% of it)
    each way; and two sampling periods of a clock that is ``apart_ppm`` from card time.
    """
    each_way = 4 + (0.5 + 1 / 256) * 1e9 / 2**32 + 2 * 8 * apart_ppm * 1e-6
    return -each_way, each_way + window_ns


def assert_within(errors: np.ndarray, **options: float) -> None:
    """``errors``: stamp - truth - constant, ns; no more than what can be."""
    least, most = stamp_limits_ns(**options)
    assert least <= errors.min() and errors.max() <= most, (errors.min(), errors.max(), least, most)


def fcs(frame: bytes) -> bytes:
    """The frame check sequence, by zlib's CRC-32: not the harness's code."""
    return binascii.crc32(frame).to_bytes(4, "little")


@dataclass
class Received:
    """All that came from one port, in the order of the ring."""

    frames: list[bytes] = field(default_factory=list)
    stamp_q32: list[int] = field(default_factory=list)
    timestamp_ns: list[int] = field(default_factory=list)
    sequence: list[int] = field(default_factory=list)
    length: list[int] = field(default_factory=list)
    record_flags: list[int] = field(default_factory=list)
    epoch: list[int] = field(default_factory=list)


def collect(card: Card, timeout_s: float = 2e-3) -> list[Received]:
    """Everything until the card has been quiet for ``timeout_s``, per port."""
    out = [Received() for _ in card.ports]
    for batch in card.receive(timeout_s):
        columns = zip(
            batch.port.tolist(),
            batch.stamp_q32.tolist(),
            batch.timestamp_ns.tolist(),
            batch.sequence.tolist(),
            batch.length.tolist(),
            batch.record_flags.tolist(),
            strict=True,
        )
        for i, (port, stamp, ns, sequence, length, flags) in enumerate(columns):
            got = out[port]
            got.frames.append(batch.frame(i))
            got.stamp_q32.append(stamp)
            got.timestamp_ns.append(ns)
            got.sequence.append(sequence)
            got.length.append(length)
            got.record_flags.append(flags)
            got.epoch.append(batch.clock.epoch)
    return out


def stamp_errors_ns(stamp_q32: list[int], truth: np.ndarray, point: str = "sfd") -> np.ndarray:
    """Raw stamps minus C(t) of the reference point, ns; ``truth`` as SimulatedCard.truth gives it."""
    whole = np.array(stamp_q32, dtype=np.uint64).astype(np.int64) - truth[f"{point}_q32"].astype(np.int64)
    return (whole - truth[f"{point}_rest"] / 2**32) * (1e9 / 2**32)


def item(length: int = 0, **values: int) -> np.ndarray:
    """One WIRE_ITEM, well-formed but for ``values``."""
    one = np.zeros(1, dtype=WIRE_ITEM)
    one["length"] = length
    one["gap"] = 12
    one["preamble"] = 7
    one["flags"] = WIRE_ADD_FCS
    one["error_at"] = NO_ERROR
    for name, value in values.items():
        one[name] = value
    return one


def send_one(simulated: SimulatedCard, port: int, content: bytes, **values: int) -> None:
    """One carrier event."""
    simulated.send(port, Frames(item(len(content), **values), np.frombuffer(content, dtype=np.uint8)))
