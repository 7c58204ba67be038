# SPDX-License-Identifier: Apache-2.0
"""Rate of keys under each profile on one core, types included (docs/decisions/0030-profiles.md).

    python -m tests.bench.keys [--tiny] [--json FILE]

TCP over IPv4 in Ethernet frames of 60, 350 and 1514 captured bytes, 1,024 of them, again and again; the
portable build is checked to agree first. Median of the runs, in processor time, with their spread; the
columns of keys that the binding makes (56 B per frame) are a part of it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import numpy as np
from twinstamp_kernels import _cpu
from twinstamp_kernels.hashkey import hash_key

from tests.bench.traffic import set_checksums

FRAMES = 1024


def batch(size: int) -> tuple[np.ndarray, ...]:
    frames = np.random.default_rng(size).integers(0, 256, (FRAMES, size), np.uint8)
    total = (size - 14).to_bytes(2, "big")
    frames[:, 12:24] = np.frombuffer(b"\x08\0\x45\0" + total + b"\x11\x11\x40\0\x40\x06", np.uint8)
    frames[:, 46] = 0x50
    set_checksums(frames)
    offset = np.arange(FRAMES, dtype=np.uint64) * np.uint64(size)
    caplen = np.full(FRAMES, size, np.uint32)
    return frames.reshape(-1), offset, caplen, np.zeros(FRAMES, np.uint16), np.array([1], np.uint16)


def main() -> int:
    parser = argparse.ArgumentParser(description="Keys per second under each profile, one core.")
    parser.add_argument("--tiny", action="store_true", help="a look whether it runs, no measurement")
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    runs, rounds = (3, 5) if options.tiny else (9, 300)
    key = hash_key()
    rows = []
    for size in (60, 350, 1514):
        columns = batch(size)
        for name, code in _cpu.PROFILES.items():
            fast, slow = (_cpu.frame_keys(key, *columns, code, 0, portable=p) for p in (False, True))
            if any(bytes(a) != bytes(b) for a, b in zip(fast, slow, strict=True)):
                print(f"{name}, {size} B: the portable build disagrees", file=sys.stderr)
                return 1
            rates = []
            for _ in range(runs):
                start = time.thread_time()
                for _ in range(rounds):
                    _cpu.frame_keys(key, *columns, code, 0)
                rates.append(FRAMES * rounds / (time.thread_time() - start) / 1e6)
            rows.append(
                {
                    "bytes": size,
                    "profile": name,
                    "mpps": statistics.median(rates),
                    "low": min(rates),
                    "high": max(rates),
                }
            )
            row = rows[-1]
            print(f"{size:5} B  {name:8} {row['mpps']:6.1f} Mpps  ({row['low']:.1f} – {row['high']:.1f})")
    if options.json:
        with open(options.json, "w") as file:
            json.dump(rows, file, indent=2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
