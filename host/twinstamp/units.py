# SPDX-License-Identifier: Apache-2.0
"""Times with units, as people type them."""

from __future__ import annotations

from twinstamp.errors import ConfigError

_NS_PER = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000}
MAX_TIME_NS = 2**62 - 1


def parse_time_ns(text: str, what: str = "time") -> int:
    """Nanoseconds of "50ms", "1.5 s", "600us", "10ns" or "2min"; exact, in integers.

    Raises ConfigError without a number, without a unit, or for a fraction of a nanosecond.
    """
    stripped = text.strip()
    number = stripped.rstrip("abcdefghijklmnopqrstuvwxyzµ ")
    unit = stripped[len(number) :].strip()
    whole, _, fraction = number.partition(".")
    if len(number) > 40:
        raise ConfigError(f"{what} {text[:40]!r}… has {len(number)} characters: give at most 40")
    if unit not in _NS_PER or not (whole + fraction).isascii() or not (whole + fraction).isdigit():
        raise ConfigError(
            f"{what} {text!r} is not understood: write a number and a unit, e.g. 50ms, 1.5s, 600us"
        )
    scale: int = 10 ** len(fraction)
    nanoseconds, rest = divmod(int(whole + fraction) * _NS_PER[unit], scale)
    if rest:
        raise ConfigError(f"{what} {text!r} has a fraction of a nanosecond: stamps are whole nanoseconds")
    if nanoseconds > MAX_TIME_NS:
        raise ConfigError(f"{what} {text!r} is longer than {MAX_TIME_NS} ns (146 years)")
    return nanoseconds


def format_ns(nanoseconds: int) -> str:
    """A time with three digits and the unit that fits: 53 µs, 1.25 ms, −2.1 s."""
    for unit, scale in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1_000)):
        if abs(nanoseconds) >= scale:
            return f"{nanoseconds / scale:.3g} {unit}"
    return f"{nanoseconds} ns"
