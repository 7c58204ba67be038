# SPDX-License-Identifier: Apache-2.0
"""Times with 64 fraction bits of a second: exact fractions in, unsigned 32.64 in integers and arrays out."""

from __future__ import annotations

import re
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt

ONE = 1 << 64  # a second
_PER_S = {"ps": 10**12, "ns": 10**9, "us": 10**6, "µs": 10**6, "ms": 10**3, "s": 1}
_TIME = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)(?:/([0-9]{1,30}))?\s*(ps|ns|us|µs|ms|s)")
LONGEST_S = 1 << 16  # of a gap or period: so that no sum in the card can overflow

Time = Fraction | int | str


def exact_seconds(value: Time, what: str) -> Fraction:
    """Seconds of "1000.3ns", "1/3 us", a Fraction or an int (s); exact.

    ConfigError for a float (it is not exact), a negative time and what is not understood.
    """
    if isinstance(value, bool) or not isinstance(value, Fraction | int | str):
        raise ConfigError(
            f'{what} is {value!r}: give text with a unit, as "1000.3ns" or "1/3 us", so that it is exact'
        )
    if isinstance(value, str):
        match = _TIME.fullmatch(value.strip())
        if match is None or (match[2] is not None and int(match[2]) == 0):
            raise ConfigError(
                f"{what} {value[:60]!r} is not understood: write a number (or a quotient) and a unit, "
                "as 1000.3ns or 1/3 us"
            )
        value = Fraction(match[1]) / int(match[2] or 1) / _PER_S[match[3]]
    if value < 0:
        raise ConfigError(f"{what} is negative: {format_exact(Fraction(value))}")
    return Fraction(value)


def gap_seconds(value: Time, what: str) -> Fraction:
    """As exact_seconds, below 65536 s."""
    out = exact_seconds(value, what)
    if out >= LONGEST_S:
        raise ConfigError(f"{what} is {format_exact(out)}: give less than {LONGEST_S} s")
    return out


def exact_ratio(value: Fraction | int | str | float, what: str) -> Fraction:
    """A plain number: 0.9, "0.9", "5/6". A float is taken as it is printed."""
    try:
        if isinstance(value, bool) or len(str(value)) > 60:
            raise ValueError
        if isinstance(value, float):
            return Fraction(Decimal(repr(value)))
        return Fraction(value)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        raise ConfigError(f'{what} is {str(value)[:60]!r}: give a number, as 0.9 or "5/6"') from None


def format_exact(seconds: Fraction) -> str:
    """Text that exact_seconds reads back to the same number: "1000.3ns", "1/3s"."""
    sign, seconds = ("-", -seconds) if seconds < 0 else ("", seconds)
    for unit in ("s", "ms", "us", "ns", "ps"):
        scaled = seconds * _PER_S[unit]
        if scaled >= 1 or unit == "ps" or scaled == 0:
            break
    denominator, places = scaled.denominator, 0
    for prime in (2, 5):
        count = 0
        while denominator % prime == 0:
            denominator //= prime
            count += 1
        places = max(places, count)
    if denominator != 1 or places > 30:
        return f"{sign}{seconds.numerator}/{seconds.denominator}s"
    digits = str(scaled.numerator * 10**places // scaled.denominator).rjust(places + 1, "0")
    text = f"{digits[:-places]}.{digits[-places:]}" if places else digits
    return f"{sign}{text}{unit}"


def to_q64(seconds: Fraction) -> int:
    """2^-64 s, rounded to nearest, ties to even: at most 2.7e-20 s off."""
    return round(seconds * ONE)


def words(q64: int) -> tuple[int, int, int]:
    """The three 32-bit words of an unsigned 32.64 time, lowest first."""
    return q64 & 0xFFFFFFFF, (q64 >> 32) & 0xFFFFFFFF, q64 >> 64


def sum_up(
    whole: npt.NDArray[np.uint64], fraction: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Running sums of times (seconds u64[n], 2^-64 s u64[n]), the same out; exact."""
    low = np.cumsum(fraction, dtype=np.uint64)
    carry = np.cumsum(low < fraction, dtype=np.uint64)
    return np.cumsum(whole, dtype=np.uint64) + carry, low


def scaled(
    factor: npt.NDArray[np.uint64], q64: int, shift: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """floor(factor * q64 / 2^shift) as (seconds, 2^-64 s), factor below 2^32, shift 0 to 32."""
    low, middle, high = (np.uint64(word) for word in words(q64))
    mask, up = np.uint64(0xFFFFFFFF), np.uint64(32)
    p0 = factor * low
    p1 = factor * middle + (p0 >> up)
    p2 = factor * high + (p1 >> up)
    # The product in words of 32 bits, then down by shift.
    parts = [p0 & mask, p1 & mask, p2 & mask, p2 >> up]
    down, over = np.uint64(shift), np.uint64(32 - shift)
    parts = [(parts[i] >> down | (parts[i + 1] << over if i < 3 else np.uint64(0))) & mask for i in range(4)]
    return parts[2] | parts[3] << up, parts[0] | parts[1] << up
