# SPDX-License-Identifier: Apache-2.0
"""Generated mixes with duplicates of every kind: all of the profile's found, nothing else."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from twinstamp.dedup import Deduplicator
from twinstamp.frames import FrameBatch

KINDS = {"exact": 1, "vlan": 2, "routing": 3, "nat": 4}
WINDOW = 600


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f">{len(data) // 2 + len(data) % 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def frame(
    flow: dict, serial: int, size: int, *, ttl: int = 64, tags: tuple[int, ...] = (), mac: int = 1
) -> bytes:
    """One TCP, UDP or ICMP packet of a flow; the serial is in the sequence number or payload, as in life."""
    payload = (serial.to_bytes(8, "big") * (size // 8 + 1))[:size]
    src, dst = flow["src"], flow["dst"]
    pseudo = src + dst
    if flow["proto"] == 6:
        l4 = bytearray(
            struct.pack(">HHIIBBHHH", flow["sport"], flow["dport"], serial, 1, 0x50, 0x10, 999, 0, 0)
        )
        at = 16
    elif flow["proto"] == 17:
        l4 = bytearray(struct.pack(">HHHH", flow["sport"], flow["dport"], 8 + size, 0))
        at = 6
    else:
        l4 = bytearray(struct.pack(">BBHHH", 8, 0, 0, flow["sport"], serial & 0xFFFF))
        at, pseudo = 2, b""
    l4 += payload
    if pseudo:
        pseudo += struct.pack(
            ">HH" if flow["v"] == 4 else ">II",
            *((flow["proto"], len(l4)) if flow["v"] == 4 else (len(l4), flow["proto"])),
        )
    l4[at : at + 2] = checksum(pseudo + bytes(l4)).to_bytes(2, "big")
    if flow["v"] == 4:
        head = bytearray(
            struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(l4), serial % 65535 + 1, 0x4000, ttl, flow["proto"], 0)
        )
        head += src + dst
        head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
        kind = b"\x08\0"
    else:
        head = bytearray(struct.pack(">IHBB", 0x60000000, len(l4), flow["proto"], ttl) + src + dst)
        kind = b"\x86\xdd"
    tagged = b"".join(struct.pack(">HH", 0x8100, vid) for vid in tags)
    packet = bytes(5) + bytes([mac]) + bytes(5) + b"\x09" + tagged + kind + bytes(head) + bytes(l4)
    return packet + bytes(max(0, 60 - len(packet)))


def make_flow(rng: random.Random) -> dict:
    v = rng.choice([4, 4, 4, 6])
    size = 4 if v == 4 else 16
    return {
        "v": v,
        "proto": rng.choice([6, 6, 17] + ([1] if v == 4 else [])),
        "src": rng.randbytes(size),
        "dst": rng.randbytes(size),
        "sport": rng.randrange(1024, 65536),
        "dport": rng.randrange(1, 1024),
    }


def mix(flows: int, count: int, seed: int) -> tuple[list[bytes], list[int]]:
    """Frames, and of each the kind of duplicate it is (0: none), within the window of its first copy."""
    rng = random.Random(seed)
    table = [make_flow(rng) for _ in range(flows)]
    weights = np.cumsum([1 / (i + 1) for i in range(flows)]).tolist()  # Zipf: few flows carry most packets
    events: list[tuple[float, bytes, int]] = []
    for serial in range(count):
        flow = rng.choices(table, cum_weights=weights)[0]
        size = rng.choice([16, 18, 24, 46, 500, 1400])
        ttl, tags = rng.randrange(10, 200), rng.choice([(), (), (7,)])
        events.append((serial, frame(flow, serial, size, ttl=ttl, tags=tags), 0))
        kind = rng.choice([0, 0, 0, 1, 2, 3, 4])
        if kind == 0:
            continue
        other = dict(flow)
        if kind == 2:
            tags = rng.choice([t for t in ((), (7,), (9,), (9, 10)) if t != tags])
        if kind >= 3:
            ttl -= rng.randrange(1, 5)
            tags = rng.choice([(), (7,), (11,)])
        if kind == 4:
            side = rng.choice(["src", "dst"])
            other[side] = rng.randbytes(len(flow[side]))
            if flow["proto"] != 1 or side == "src":
                other["sport" if side == "src" else "dport"] = rng.randrange(1, 65536)
        copy = frame(other, serial, size, ttl=ttl, tags=tags, mac=2 if kind >= 3 else 1)
        events.append((serial + rng.choice([0.5, rng.uniform(0, 250)]), copy, kind))
    events.sort(key=lambda e: e[0])
    return [data for _, data, _ in events], [kind for *_, kind in events]


@pytest.mark.parametrize("flows", [20_000, 100])
def test_true_positives_all_false_positives_none(flows: int) -> None:
    frames, kinds = mix(flows, 9_000, seed=flows)
    want = np.array(kinds)
    batch = FrameBatch.from_frames(frames)
    for profile, code in KINDS.items():
        for workers in (1, 2):
            verdicts = Deduplicator(profile=profile, window=WINDOW, workers=workers).judge(batch)
            got = np.asarray(verdicts.type)
            expected = np.where(want <= code, want, 0)
            assert (got == expected).all(), (profile, workers, np.flatnonzero(got != expected)[:5])
            assert (np.asarray(verdicts.keep) == (expected == 0)).all()
    assert min(np.bincount(want)) > 900
