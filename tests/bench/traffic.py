# SPDX-License-Identifier: Apache-2.0
"""Traffic for benchmarks, made in NumPy: duplicates among random frames, and flows over rule sets."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from twinstamp.frames import FrameBatch, Port
from twinstamp.rules import RuleSet

# Simple IMIX, frame sizes without FCS: 7 : 4 : 1.
IMIX = ((60, 590, 1514), (7 / 12, 4 / 12, 1 / 12))


def sizes(kind: int | str, n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    if kind == "imix":
        return rng.choice(IMIX[0], n, p=IMIX[1]).astype(np.int64)
    return np.full(n, int(kind), np.int64)


def duplicated(
    kind: int | str, n: int, share: float, rng: np.random.Generator, *, reach: int = 400, header: int = 0
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """n random frames, `share` of them copies of one at most `reach` before: data, offset, caplen.

    header: bytes left free before each frame.
    """
    caplen = sizes(kind, n, rng)
    source = np.arange(n)
    if share >= 1:
        # Nothing but duplicates: drawn from a pool of frames that comes again within `reach`.
        source = rng.integers(0, min(n, reach), n)
        source[: min(n, reach)] = np.arange(min(n, reach))
    copies = np.flatnonzero(rng.random(n) < share) if share < 1 else np.empty(0, np.int64)
    source[copies] = np.maximum(0, copies - rng.integers(1, reach, len(copies)))
    # A copy of a copy is a copy of its original, of the same size.
    for _ in range(64):
        deeper = source[source]
        if np.array_equal(deeper, source):
            break
        source = deeper
    caplen = caplen[source]
    offset = np.concatenate(([0], np.cumsum(caplen + header)[:-1])) + header
    data = np.frombuffer(rng.bytes(int((caplen + header).sum())), np.uint8).copy()
    for size in np.unique(caplen):
        which = np.flatnonzero((caplen == size) & (source != np.arange(n)))
        span = np.arange(size)
        for part in np.array_split(which, max(1, len(which) // 20_000)):
            data[offset[part][:, None] + span] = data[offset[source[part]][:, None] + span]
    return data, offset, caplen


def write_capture(path: Path, kind: int | str, n: int, share: float = 0.5, seed: int = 1) -> None:
    """A microsecond pcap of `duplicated` frames, 1 µs apart."""
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
        step = 250_000
        for begin in range(0, n, step):
            count = min(step, n - begin)
            data, offset, caplen = duplicated(kind, count, share, rng, header=16)
            stamp = begin + np.arange(count, dtype=np.int64)
            header = np.empty((count, 4), "<u4")
            header[:, 0] = 1_700_000_000 + stamp // 1_000_000
            header[:, 1] = stamp % 1_000_000
            header[:, 2] = header[:, 3] = caplen
            data[(offset - 16)[:, None] + np.arange(16)] = header.view(np.uint8).reshape(count, 16)
            file.write(data.tobytes())


def batches(kind: int | str, n: int, count: int, share: float, seed: int = 1) -> list[FrameBatch]:
    """`count` batches of n frames in memory, 1 µs apart."""
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        data, offset, caplen = duplicated(kind, n, share, rng)
        made.append(_batch(data, offset, caplen, k * n))
    return made


def _batch(
    data: npt.NDArray[np.uint8], offset: npt.NDArray[np.int64], caplen: npt.NDArray[np.int64], first: int
) -> FrameBatch:
    n = len(offset)
    return FrameBatch(
        (
            data,
            offset.astype(np.uint64),
            caplen.astype(np.uint32),
            caplen.astype(np.uint32),
            (first + np.arange(n, dtype=np.int64)) * 1000,
            np.zeros(n, np.uint16),
            np.zeros(n, np.uint16),
        ),
        ports=_PORTS,
        first=first,
    )


_PORTS = (Port("bench", 1),)


def flows_over_rules(
    rules: RuleSet, *, flows: int | None, n: int, count: int, size: int = 64, seed: int = 1
) -> Iterator[FrameBatch]:
    """`count` batches of n TCP and UDP frames in flows derived from the rules (a random address and port
    within a random rule's ranges), Zipf-distributed over `flows` flows, or each packet its own flow (None).
    Half the frames are copies within 400."""
    rng = np.random.default_rng(seed)

    def tuples(k: int) -> npt.NDArray[np.uint8]:
        chosen = rng.integers(0, len(rules), k)
        head = np.zeros((k, 38), np.uint8)
        head[:, :12] = np.frombuffer(bytes.fromhex("020000000001020000000002"), np.uint8)
        head[:, 12:14] = (8, 0)
        head[:, 14] = 0x45
        head[:, 16:18] = np.frombuffer(struct.pack("!H", size - 14), np.uint8)
        head[:, 22] = 64
        table = [_ranges(rules.rules[r]) for r in range(len(rules))]
        ranges = np.array(table, np.int64)[chosen]
        for column, (low, high, at, width) in enumerate(
            ((0, 1, 26, 4), (2, 3, 30, 4), (4, 5, 34, 2), (6, 7, 36, 2))
        ):
            del column
            value = ranges[:, low] + (rng.random(k) * (ranges[:, high] - ranges[:, low] + 1)).astype(np.int64)
            for byte in range(width):
                head[:, at + byte] = (value >> (8 * (width - 1 - byte))) & 0xFF
        head[:, 23] = np.where(ranges[:, 8] == 256, np.where(rng.random(k) < 0.8, 6, 17), ranges[:, 8])
        return head

    pool = None if flows is None else tuples(flows)
    for k in range(count):
        data = np.frombuffer(rng.bytes(n * size), np.uint8).copy().reshape(n, size)
        heads = tuples(n) if pool is None else pool[np.minimum(rng.zipf(1.2, n) - 1, len(pool) - 1)]
        data[:, :18] = heads[:, :18]
        data[:, 20:24] = heads[:, 20:24]  # the IP-ID stays random: frames of a flow differ
        data[:, 26:38] = heads[:, 26:38]
        data[:, 20:22] = 0
        data[:, 46] = 0x50
        data[:, 47] = 0x10
        udp = data[:, 23] == 17
        data[udp, 38:40] = np.frombuffer(struct.pack("!H", size - 34), np.uint8)
        set_checksums(data)
        copies = np.flatnonzero(rng.random(n) < 0.5)
        data[copies] = data[np.maximum(0, copies - rng.integers(1, 400, len(copies)))]
        offset = np.arange(n, dtype=np.int64) * size
        yield _batch(data.reshape(-1), offset, np.full(n, size, np.int64), k * n)


def set_checksums(frames: npt.NDArray[np.uint8]) -> None:
    """Fills in the checksums (RFC 1071) of n Ethernet frames, u8[n, size], that hold IPv4 without options
    and behind
    it TCP, UDP, ICMP or what has none; the lengths are right already."""

    def ones(part: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint32]:
        if part.shape[1] % 2:
            part = np.pad(part, ((0, 0), (0, 1)))
        words = np.ascontiguousarray(part).view(">u2")
        return words.sum(axis=1, dtype=np.uint32)

    def put(which: npt.NDArray[np.intp], at: int, total: npt.NDArray[np.uint32]) -> None:
        for _ in range(2):
            total = (total & 0xFFFF) + (total >> 16)
        value = (total ^ 0xFFFF).astype(np.uint32)
        frames[which, at], frames[which, at + 1] = value >> 8, value & 0xFF

    frames[:, 24:26] = 0
    put(np.arange(len(frames)), 24, ones(frames[:, 14:34]))
    for protocol, at in ((6, 50), (17, 40), (1, 36)):
        which = np.flatnonzero(frames[:, 23] == protocol)
        frames[which, at : at + 2] = 0
        body = ones(frames[which, 34:])
        if protocol != 1:
            body = body + ones(frames[which, 26:34]) + np.uint32(protocol + frames.shape[1] - 34)
        put(which, at, body)


def _ranges(rule: object) -> tuple[int, ...]:
    """(source low, high, destination low, high, sport low, high, dport low, high, protocol or 256)."""
    spans: list[int] = []
    for name in ("source", "destination"):
        prefix = getattr(rule, name)
        if prefix is None or prefix.family != 4:
            spans += [0, 2**32 - 1]
        else:
            length = prefix.bits
            spans += [prefix.address, prefix.address | ((1 << (32 - length)) - 1)]
    for name in ("source_port", "destination_port"):
        spans += list(getattr(rule, name))
    protocol = getattr(rule, "protocol")  # noqa: B009
    return (*spans, 256 if protocol is None else protocol)
