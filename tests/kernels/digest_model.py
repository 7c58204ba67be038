# SPDX-License-Identifier: Apache-2.0
"""The keyed digest as written in docs/decisions/0001-keyed-digest.md, on Python's integers."""

from __future__ import annotations

BLOCK, STREAMS = 1024, 4
NH_WORDS = BLOCK // 4 + 2 * (STREAMS - 1) + 2
BLOCKS = (262144 + 1024) // BLOCK
LIMBS = 2 + 2 * BLOCKS


def unpack_key(raw: bytes) -> tuple[list[int], list[list[int]]]:
    nh = [int.from_bytes(raw[4 * i : 4 * i + 4], "little") for i in range(NH_WORDS)]
    start = 4 * NH_WORDS
    limbs = [
        [
            int.from_bytes(raw[start + 16 * (h * LIMBS + i) : start + 16 * (h * LIMBS + i) + 16], "little")
            for i in range(LIMBS)
        ]
        for h in range(2)
    ]
    assert len(raw) == start + 32 * LIMBS
    return nh, limbs


def digest(key: tuple[list[int], list[list[int]]], domain: int, message: bytes) -> tuple[int, int]:
    nh, limbs = key
    coefficients: list[list[int]] = [[(domain << 32) | len(message)], [(domain << 32) | len(message)]]
    for start in range(0, len(message), BLOCK):
        block = message[start : start + BLOCK]
        block += bytes(-len(block) % 8)
        sums = [0] * STREAMS
        for i in range(len(block) // 8):
            low = int.from_bytes(block[8 * i : 8 * i + 4], "little")
            high = int.from_bytes(block[8 * i + 4 : 8 * i + 8], "little")
            for s in range(STREAMS):
                sums[s] += ((low + nh[2 * i + 2 * s]) % 2**32) * ((high + nh[2 * i + 2 * s + 1]) % 2**32)
        for h in range(2):
            coefficients[h] += [sums[2 * h] % 2**64, sums[2 * h + 1] % 2**64]
    return tuple(
        (limbs[h][0] + sum(m * c for m, c in zip(limbs[h][1:], coefficients[h], strict=False))) % 2**128 >> 64
        for h in range(2)
    )  # type: ignore[return-value]
