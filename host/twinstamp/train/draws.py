# SPDX-License-Identifier: Apache-2.0
"""Random numbers of trains, as the card makes them bit for bit (hdl/rtl/tx/train_gap.sv).

Philox2x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC11) is counter
based: packet n's numbers follow from the seed and n alone. The logarithm is the digit-by-digit one (squaring;
Turner: "A fast binary logarithm algorithm", IEEE Signal Processing Magazine, September 2010).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

_MULTIPLIER = np.uint64(0xD256D193)
_WEYL = 0x9E3779B9
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)

EXPONENTIAL_BITS = 24  # fraction bits of exponential()


def philox(
    counter: npt.ArrayLike, high: int, key: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Philox2x32-10 of the counters (counter[i], high) under ``key``: two words of 32 bits each, u64[n]."""
    x0 = np.asarray(counter, np.uint64) & _LOW
    x1 = np.full_like(x0, high)
    for _ in range(10):
        product = x0 * _MULTIPLIER
        x0 = (product >> _32) ^ np.uint64(key) ^ x1
        x1 = product & _LOW
        key = (key + _WEYL) & 0xFFFFFFFF
    return x0, x1


def exponential(word: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    """-log2((2 word + 1) / 2^33) of 32-bit words, 24 fraction bits, u64[n]; times ln 2 it is exponential.

    The digits of the logarithm are cut off and 2 word + 1 keeps 32 bits: the result is the exact one or up to
    3 units of 2^-24 more (tests/train/test_draws.py), so a gap is at most mean * 1.3e-7 too long.
    """
    odd = 2 * np.asarray(word, np.uint64) + np.uint64(1)  # 33 bits
    # Leading zeros in 33 bits: a 33-bit integer is exact as a float64.
    zeros = np.uint64(33) - np.frexp(odd.astype(np.float64))[1].astype(np.uint64)
    y = (odd << zeros) >> np.uint64(1)  # 1.31, the first bit set
    log2 = np.zeros_like(y)
    for _ in range(EXPONENTIAL_BITS):
        product = y * y  # 2.62
        bit = product >> np.uint64(63)
        log2 = log2 << np.uint64(1) | bit
        y = product >> (np.uint64(31) + bit)
    return ((zeros + np.uint64(1)) << np.uint64(EXPONENTIAL_BITS)) - log2
