# SPDX-License-Identifier: Apache-2.0
"""Laws of gaps (from one packet's start to the next one's, within a burst) and of sizes.

Gap j of a burst lies between its packets j and j+1. Lists and chirps begin anew with each burst; what is
random follows from the train's seed (64 bits) and the packet's number in the train, counted from 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp.errors import ConfigError
from twinstamp.train.draws import EXPONENTIAL_BITS, exponential, philox
from twinstamp.train.fixed import exact_ratio, format_exact, gap_seconds, scaled, to_q64

if TYPE_CHECKING:
    import numpy.typing as npt

    from twinstamp.train.fixed import Time

    Numbers = npt.NDArray[np.uint64]
    Q64 = tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]

SMALLEST = 64  # bytes with FCS
LARGEST = 9018
CHIRP_BITS = 31
# ln 2 to 64 digits (OEIS A002162)
_LN2 = Fraction(6931471805599453094172321214581765680755001343602552541206800094, 10**64)


def _set(record: object, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(record, name, value)


def check_int(value: object, least: int, most: int, what: str) -> int:
    """``value`` where it is an integer within the limits; ConfigError otherwise."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
        raise ConfigError(f"{what} is {value!r}: give a whole number from {least} to {most}")
    return int(value)


def _repeat(q64: int, n: int) -> Q64:
    return np.full(n, q64 >> 64, np.uint64), np.full(n, q64 & ((1 << 64) - 1), np.uint64)


def _arrays(q64: list[int]) -> Q64:
    low = (1 << 64) - 1
    return np.array([q >> 64 for q in q64], np.uint64), np.array([q & low for q in q64], np.uint64)


@dataclass(frozen=True)
class Constant:
    """The same gap always. gap: exact time."""

    gap: Time

    def __post_init__(self) -> None:
        _set(self, gap=gap_seconds(self.gap, "gap"))

    def within_burst(self, n: int) -> Q64:
        """The first n gaps of a burst."""
        return _repeat(to_q64(Fraction(self.gap)), n)


@dataclass(frozen=True)
class GapList:
    """Gaps in turn, from the first one again after the last and in each burst. 1 to 597 of them."""

    gaps: tuple[Time, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.gaps, tuple | list) or not 1 <= len(self.gaps) <= 597:
            raise ConfigError("a list of gaps has 1 to 597 entries")
        _set(self, gaps=tuple(gap_seconds(gap, f"gaps[{i}]") for i, gap in enumerate(self.gaps)))

    def within_burst(self, n: int) -> Q64:
        """The first n gaps of a burst."""
        whole, fraction = _arrays([to_q64(Fraction(gap)) for gap in self.gaps])
        at = np.arange(n) % len(self.gaps)
        return whole[at], fraction[at]


@dataclass(frozen=True)
class Poisson:
    """minimum + an exponential time; with minimum 0 a Poisson process of mean gap ``mean``.

    The exponential part is E * s / 2^24, rounded down, with E = exponential(first Philox word
    of the packet before the gap) and s = (mean - minimum) ln 2 to the nearest 2^-64 s. The longest is
    33 ln 2 = 22.9 times mean - minimum.
    """

    mean: Time
    minimum: Time = Fraction(0)

    def __post_init__(self) -> None:
        mean, minimum = gap_seconds(self.mean, "mean gap"), gap_seconds(self.minimum, "minimum gap")
        if mean * 34 >= 1 << 20:
            raise ConfigError(f"mean gap is {format_exact(mean)}: give less than 30840 s")
        if mean <= minimum:
            raise ConfigError(
                f"mean gap {format_exact(mean)} is not longer than the minimum {format_exact(minimum)}"
            )
        _set(self, mean=mean, minimum=minimum)

    @property
    def scale_q64(self) -> int:
        """s above."""
        return to_q64((Fraction(self.mean) - Fraction(self.minimum)) * _LN2)

    def drawn(self, number: npt.NDArray[np.uint64], seed: int) -> Q64:
        """The gaps after packets ``number``."""
        word, _ = philox(number, seed >> 32, seed & 0xFFFFFFFF)
        whole, fraction = scaled(exponential(word), self.scale_q64, EXPONENTIAL_BITS)
        least = to_q64(Fraction(self.minimum))
        low = fraction + np.uint64(least & ((1 << 64) - 1))
        return whole + np.uint64(least >> 64) + (low < fraction), low


@dataclass(frozen=True)
class Chirp:
    """Geometric: gap j+1 = floor(gap j * r), r = ratio to the nearest 2^-31, above 0, below 2; in each burst.

    As pathChirp probes with (Ribeiro et al., PAM 2003: spread factor 1/ratio).
    """

    first: Time
    ratio: Fraction | str | float

    def __post_init__(self) -> None:
        ratio = exact_ratio(self.ratio, "chirp ratio")
        if not Fraction(1, 1 << CHIRP_BITS) <= ratio <= 2 - Fraction(1, 1 << CHIRP_BITS):
            raise ConfigError(f"chirp ratio is {float(ratio):g}: give more than 0 and less than 2")
        _set(self, first=gap_seconds(self.first, "first gap"), ratio=ratio)

    @property
    def ratio_q31(self) -> int:
        """r above, in 2^-31."""
        return round(Fraction(self.ratio) * (1 << CHIRP_BITS))

    def within_burst(self, n: int) -> Q64:
        """The first n gaps of a burst. ConfigError where one is 65536 s or longer."""
        gap, out = to_q64(Fraction(self.first)), []
        for j in range(n):
            out.append(gap)
            gap = gap * self.ratio_q31 >> CHIRP_BITS
            if gap >> 80:
                raise ConfigError(f"the chirp's gap {j + 1} is 65536 s or longer: take a smaller ratio")
        return _arrays(out)


@dataclass(frozen=True)
class Fixed:
    """One size. bytes: with FCS and tags."""

    bytes: int

    def __post_init__(self) -> None:
        _set(self, bytes=_check_size(self.bytes, "size"))

    def drawn(self, number: Numbers, place: Numbers, seed: int) -> npt.NDArray[np.uint16]:
        """Sizes of packets ``number`` of the train at ``place`` in their bursts."""
        return np.full(len(number), self.bytes, np.uint16)

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest size."""
        return self.bytes, self.bytes


@dataclass(frozen=True)
class SizeList:
    """Sizes in turn, from the first one again in each burst; 1 to 1792 of them."""

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        _set(self, sizes=_check_sizes(self.sizes))

    def drawn(self, number: Numbers, place: Numbers, seed: int) -> npt.NDArray[np.uint16]:
        """Sizes of packets ``number`` of the train at ``place`` in their bursts."""
        sizes: npt.NDArray[np.uint16] = np.array(self.sizes, np.uint16)
        return sizes.take((place % np.uint64(len(sizes))).astype(np.int64))

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest size."""
        return min(self.sizes), max(self.sizes)


@dataclass(frozen=True)
class Uniform:
    """Every size from least to most alike: least + floor(w * (most - least + 1) / 2^32).

    w: the second Philox word of the packet.
    """

    least: int
    most: int

    def __post_init__(self) -> None:
        least, most = _check_size(self.least, "smallest size"), _check_size(self.most, "largest size")
        if least > most:
            raise ConfigError(f"sizes from {least} to {most}: the smallest comes first")
        _set(self, least=least, most=most)

    def drawn(self, number: Numbers, place: Numbers, seed: int) -> npt.NDArray[np.uint16]:
        """Sizes of packets ``number`` of the train at ``place`` in their bursts."""
        return (self.least + _below(number, seed, self.most - self.least + 1)).astype(np.uint16)

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest size."""
        return self.least, self.most


@dataclass(frozen=True)
class Choice:
    """One of a list at random: sizes[floor(w * entries / 2^32)]; what is to come more often stands in it more
    often (IMIX: seven of 64, four of 594, one of 1518). w as in Uniform.
    """

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        _set(self, sizes=_check_sizes(self.sizes))

    def drawn(self, number: Numbers, place: Numbers, seed: int) -> npt.NDArray[np.uint16]:
        """Sizes of packets ``number`` of the train at ``place`` in their bursts."""
        return np.array(self.sizes, np.uint16)[_below(number, seed, len(self.sizes))]

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest size."""
        return min(self.sizes), max(self.sizes)


GapLaw = Constant | GapList | Poisson | Chirp
SizeLaw = Fixed | SizeList | Uniform | Choice


def _below(number: Numbers, seed: int, n: int) -> npt.NDArray[np.int64]:
    _, word = philox(number, seed >> 32, seed & 0xFFFFFFFF)
    return (word * np.uint64(n) >> np.uint64(32)).astype(np.int64)


def _check_size(size: object, what: str) -> int:
    # The upper limit grows with each tag: Train looks again.
    return check_int(size, SMALLEST, LARGEST + 8, f"{what} (bytes with FCS)")


def _check_sizes(sizes: object) -> tuple[int, ...]:
    if not isinstance(sizes, tuple | list) or not 1 <= len(sizes) <= 1792:
        raise ConfigError("a list of sizes has 1 to 1792 entries")
    return tuple(_check_size(size, f"sizes[{i}]") for i, size in enumerate(sizes))
