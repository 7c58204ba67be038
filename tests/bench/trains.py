# SPDX-License-Identifier: Apache-2.0
"""A capture of a long train, made in bulk."""

from __future__ import annotations

import numpy as np
from twinstamp import stamp
from twinstamp.frames import LINKTYPE_ETHERNET, FrameBatch, Port
from twinstamp.io.files import create_capture

_CHUNK = 100_000
_START_NS = 1_790_000_000_000_000_000
_GAP_NS = 1000


def write_train(path: str, n: int, *, reorder: float = 0.0, seed: int = 1) -> int:
    """n packets of 90 bytes, 1 µs apart, about 500 µs of delay; a share ``reorder`` held back by 3 µs, and
    as many lost, none of them the first or the last. Returns how many are lost.
    """
    rng = np.random.default_rng(seed)
    head = bytes(12) + b"\x08\x00\x45\x00\x00\x48" + bytes(4) + b"\xfa\x11\x00\x00"
    head += bytes((10, 0, 0, 1, 10, 0, 0, 2)) + b"\x13\x88\x03\x5e\x00\x34\x00\x00"
    ports = (Port("port0", LINKTYPE_ETHERNET),)
    lost = 0
    with create_capture(path, format="pcapng") as writer:
        for start in range(0, n, _CHUNK):
            number = np.arange(start, min(n, start + _CHUNK))
            sent = _START_NS + number * _GAP_NS
            came = sent + 500_000 + rng.integers(0, 300, len(number))
            if reorder:
                inner = (number > start + 5) & (number < number[-1] - 5)
                came[inner & (rng.random(len(number)) < reorder)] += 3 * _GAP_NS
                kept = ~(inner & (rng.random(len(number)) < reorder))
                lost += len(number) - int(kept.sum())
                number, sent, came = number[kept], sent[kept], came[kept]
                order = np.argsort(came, kind="stable")
                number, sent, came = number[order], sent[order], came[order]
            rows = np.empty((len(number), 86), np.uint8)
            rows[:, :42] = np.frombuffer(head, np.uint8)
            rows[:, 42:] = stamp.payloads(
                sequence=number, timestamp=stamp.ntp_from_utc_ns(sent), error=0x8093, session=7, size=44
            )
            m = len(number)
            length = np.full(m, 86, np.uint32)
            columns = (
                rows.ravel(), 86 * np.arange(m, dtype=np.uint64), length, length, came,
                np.zeros(m, np.uint16), np.zeros(m, np.uint16),
            )  # fmt: skip
            writer.write(FrameBatch(columns, ports=ports))
    return lost
