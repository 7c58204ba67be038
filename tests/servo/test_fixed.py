# SPDX-License-Identifier: Apache-2.0
"""The firmware's 64-bit arithmetic against Python's integers."""

from __future__ import annotations

from math import isqrt

from hypothesis import example, given
from hypothesis import strategies as st

from twinstamp_gps import _servo

MOST = 2**63 - 1
LEAST = -(2**63)
int64 = st.integers(LEAST, MOST) | st.sampled_from([LEAST, LEAST + 1, -1, 0, 1, MOST]) | st.integers(-9, 9)


def nearest(numerator, denominator):
    """Quotient rounded to nearest, halves away from zero, and whether it had to be held."""
    size, rest = divmod(abs(numerator), denominator)
    size += 2 * rest >= denominator
    sign = -1 if numerator < 0 else 1
    return sign * min(size, MOST), size > MOST


@given(int64, int64, st.integers(1, MOST))
@example(LEAST, LEAST, MOST)
@example(MOST, MOST, 1)
@example(MOST, 1, 2)
def test_mul_div(a, b, c):
    # The divisor's half is rounded down, so with an odd one there is no half.
    assert _servo.fixed_mul_div(a, b, c) == nearest(a * b, c)


@given(int64, int64, st.integers(1, 63))
@example(LEAST, LEAST, 63)
def test_mul_shift(a, b, shift):
    assert _servo.fixed_mul_shift(a, b, shift) == nearest(a * b, 2**shift)


@given(int64, int64)
def test_add(a, b):
    found, full = _servo.fixed_add(a, b)
    if full:
        assert found == (MOST if a + b > 0 else -MOST)
        assert not -MOST <= a + b <= MOST
    else:
        assert found == a + b


@given(st.integers(0, 2**64 - 1))
@example(2**64 - 1)
@example(0)
def test_sqrt(a):
    assert _servo.fixed_sqrt(a) == isqrt(a)
