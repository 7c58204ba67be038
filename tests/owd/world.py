# SPDX-License-Identifier: Apache-2.0
"""Trains made for tests: frames built byte by byte, departures by every law of gaps, damage as asked for."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import numpy as np
from twinstamp.card.capture import clock_comment
from twinstamp.frames import LINKTYPE_ETHERNET, ClockState, FrameBatch, Port
from twinstamp.io.files import create_capture

T0_NS = 1_790_000_000_000_000_000  # 2026
NTP_UNIX = 2_208_988_800


def gaps(law: str, n: int, seed: int) -> np.ndarray:
    """n - 1 gaps in ns."""
    rng = np.random.default_rng(seed)
    if law == "constant":
        return np.full(n - 1, 1000)
    if law == "list":
        return np.resize([700, 1300, 5000, 900], n - 1)
    if law == "poisson":
        return np.maximum(1, rng.exponential(10_000, n - 1)).astype(np.int64)
    assert law == "chirp"
    chirp = (100_000 / 1.2 ** np.arange(19)).astype(np.int64)
    return np.resize(np.append(chirp, 2_000_000), n - 1)


def ipv4(source: str, destination: str, ttl: int, ipid: int, payload: bytes, ports=(5000, 862)) -> bytes:
    """Ethernet, IPv4, UDP. The IP checksum is right, UDP's is 0 (none)."""
    udp = struct.pack("!4H", *ports, 8 + len(payload), 0) + payload
    addresses = bytes(map(int, source.split("."))) + bytes(map(int, destination.split(".")))
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), ipid & 0xFFFF, 0, ttl, 17, 0) + addresses
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    checksum = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    return bytes(12) + b"\x08\x00" + head[:10] + struct.pack("!H", checksum) + head[12:] + udp


def stamp_bytes(sequence: int, sent_ns: int, error: int, session: int, size: int = 44) -> bytes:
    """A test packet's payload, with the NTP fraction rounded to nearest."""
    seconds, rest = divmod(sent_ns, 10**9)
    fraction = (rest * 2**32 * 2 + 10**9) // (2 * 10**9)
    mark = 0x8000 if size < 44 else 0
    ntp = (seconds + NTP_UNIX) % 2**32 << 32 | fraction
    return struct.pack("!IQHH", sequence % 2**32, ntp, error, session | mark).ljust(size, b"\0")


@dataclass
class World:
    """One train and what happened to it: (number, departure, arrival), in the order of arrival."""

    sent: list[tuple[int, int]]
    arrived: list[tuple[int, int, int]]
    lost: set[int] = field(default_factory=set)
    copies: int = 0


def world(
    law: str = "constant", n: int = 1000, *, seed: int = 1, loss: float = 0.0, duplicates: float = 0.0,
    reorder: float = 0.0, first: int = 0, base_ns: int = 500_000, jitter_ns: int = 300,
) -> World:  # fmt: skip
    """Packets that are lost, doubled, or held back by up to 30 packets' time."""
    rng = np.random.default_rng(seed)
    start = T0_NS + seed * 1_000_000_000
    departures = start + np.concatenate(([0], np.cumsum(gaps(law, n, seed))))
    sent = [(first + i, int(t)) for i, t in enumerate(departures)]
    arrivals: list[tuple[int, int, int]] = []
    lost, copies = set(), 0
    for number, left in sent:
        delay = base_ns + int(rng.integers(0, jitter_ns + 1))
        if rng.random() < reorder:
            delay += int(rng.integers(1000, 30_000))
        if rng.random() < loss:
            lost.add(number)
            continue
        arrivals.append((number, left, left + delay))
        if rng.random() < duplicates:
            for _ in range(int(rng.integers(1, 4))):
                arrivals.append((number, left, left + delay + int(rng.integers(0, 50_000))))
                copies += 1
    arrivals.sort(key=lambda a: a[2])
    return World(sent, arrivals, lost, copies)


def write(
    path, arrivals, *, session: int = 7, error: int = 0x8093, size: int = 44, ttl: int = 250,
    ends=("10.0.0.1", "10.0.0.2"), clocks=None, ports=(5000, 862),
) -> str:  # fmt: skip
    """A capture of arrivals. clocks: [(from arrival index, ClockState)] as a card's capture has them."""
    frames = [
        ipv4(*ends, ttl, i, stamp_bytes(number, left, error, session, size), ports)
        for i, (number, left, _) in enumerate(arrivals)
    ]
    batch = FrameBatch.from_frames(frames, timestamp_ns=[a[2] for a in arrivals])
    batch.ports = (Port("port0", LINKTYPE_ETHERNET),)
    texts, which = [""], np.zeros(len(frames), np.uint8)
    for i, clock in clocks if clocks is not None else [(0, ClockState("utc", "card", True, 20, 1))]:
        which[i] = len(texts)
        texts.append(clock_comment(clock))
    with create_capture(str(path), format="pcapng") as writer:
        if len(frames):
            writer.write(batch, None, (which, texts))
    return str(path)
