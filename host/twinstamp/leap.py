# SPDX-License-Identifier: Apache-2.0
"""TAI - UTC: the system's table of leap seconds, when it expires, and times from one scale to the other.

UTC is counted as everywhere in computers: 86400 s a day since 1970. The offset changes when a leap second is
over (IERS Bulletin C, IEEE 1588), so 23:59:60 has the number of the 00:00:00 behind it; Linux steps when it
begins and gives it the number of the 23:59:59 before. Either way two seconds have one number. A 23:59:59 that
was left out has a number that no time has.

The table is in the format of leap-seconds.list of the IERS, which the tzdata packages of Debian and Ubuntu
bring.
"""

from __future__ import annotations

import functools
import hashlib
import os
from bisect import bisect_right
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twinstamp.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

NTP_UNIX_S = 2_208_988_800  # 1900-01-01 to 1970-01-01
VARIABLE = "TWINSTAMP_LEAP_SECONDS"  # names another table
SYSTEM_TABLES = ("/usr/share/zoneinfo/leap-seconds.list",)
_NS = 1_000_000_000
_MOST_BYTES = 1 << 20

# From each UTC second since 1970 on; IERS Bulletin C 72: none at the end of 2026.
_STARTS = (
    (63072000, 10), (78796800, 11), (94694400, 12), (126230400, 13), (157766400, 14), (189302400, 15),
    (220924800, 16), (252460800, 17), (283996800, 18), (315532800, 19), (362793600, 20), (394329600, 21),
    (425865600, 22), (489024000, 23), (567993600, 24), (631152000, 25), (662688000, 26), (709948800, 27),
    (741484800, 28), (773020800, 29), (820454400, 30), (867715200, 31), (915148800, 32), (1136073600, 33),
    (1230768000, 34), (1341100800, 35), (1435708800, 36), (1483228800, 37),
)  # fmt: skip
_EXPIRES_UTC_S = 1_814_140_800  # 2027-06-28


class Leap(NamedTuple):
    """A leap second. change_s: 1 inserted, -1 deleted. tai_s: the first second of TAI with the new offset."""

    change_s: int
    tai_s: int


class UtcOffset(NamedTuple):
    """TAI - UTC with one leap second, come or to come. s: before it. known: not a guess. leap_s: what it
    adds, 0 for none. leap_tai_s: the first second of TAI behind it.
    """

    s: int = 37
    known: bool = False
    leap_s: int = 0
    leap_tai_s: int = 0

    def at(self, tai_s: int) -> int:
        """TAI - UTC in s at a second of TAI."""
        return self.s + (self.leap_s if tai_s >= self.leap_tai_s else 0)

    def utc_ns(self, tai_ns: Any) -> Any:
        """TAI in UTC, ns since 1970: int or i64[n] in, the same out; each by the offset of its own time."""
        if isinstance(tai_ns, int):
            return tai_ns - self.at(tai_ns // _NS) * _NS
        return tai_ns - (self.s + self.leap_s * (tai_ns >= self.leap_tai_s * _NS)) * _NS

    def tai_ns(self, utc_ns: int) -> int:
        """UTC in TAI, ns since 1970; of the two times in an inserted leap second and behind it, the later."""
        after = utc_ns // _NS + self.s + self.leap_s >= self.leap_tai_s
        return utc_ns + (self.s + (self.leap_s if after else 0)) * _NS


@dataclass(frozen=True)
class LeapSeconds:
    """A table of leap seconds.

    source: its file, or "built in". starts: (UTC second since 1970, TAI - UTC from there on), ascending;
    before the first one 10 s is assumed. expires_utc_s: from there on it may be wrong.
    """

    source: str
    starts: tuple[tuple[int, int], ...]
    expires_utc_s: int

    @functools.cached_property
    def _utc(self) -> list[int]:
        return [start for start, _ in self.starts]

    @functools.cached_property
    def _tai(self) -> list[int]:
        return [start + offset for start, offset in self.starts]

    @functools.cached_property
    def _offsets(self) -> list[int]:
        return [10, *(offset for _, offset in self.starts)]

    def at_utc(self, utc_s: int) -> int:
        """TAI - UTC in s at a UTC second; within an inserted leap second that of the second behind it."""
        return self._offsets[bisect_right(self._utc, utc_s)]

    def at_tai(self, tai_s: int) -> int:
        """TAI - UTC in s at a second of TAI."""
        return self._offsets[bisect_right(self._tai, tai_s)]

    def expired(self, utc_s: float) -> bool:
        """Whether the table says nothing of this time."""
        return utc_s >= self.expires_utc_s

    def next(self, tai_s: int) -> Leap | None:
        """The first leap second that ends after ``tai_s``, if one is announced."""
        at = bisect_right(self._tai, tai_s)
        if at == len(self._tai):
            return None
        return Leap(self._offsets[at + 1] - self._offsets[at], self._tai[at])

    def tai_ns(self, utc_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """UTC in TAI, i64[n] of ns since 1970; an inserted leap second comes out as the one behind it."""
        import numpy as np

        utc = np.asarray(utc_ns, np.int64)
        tai: npt.NDArray[np.int64] = utc + self._of(utc, self._utc)
        return tai

    def utc_ns(self, tai_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """TAI in UTC, i64[n] of ns since 1970."""
        import numpy as np

        tai = np.asarray(tai_ns, np.int64)
        utc: npt.NDArray[np.int64] = tai - self._of(tai, self._tai)
        return utc

    def _of(self, ns: npt.NDArray[np.int64], starts: list[int]) -> Any:
        """Offsets in ns, one for all where one does."""
        import numpy as np

        if not ns.size:
            return np.int64(0)
        low = bisect_right(starts, int(ns.min()) // _NS)
        if low == bisect_right(starts, int(ns.max()) // _NS):
            return np.int64(self._offsets[low] * _NS)
        place = np.searchsorted(np.array(starts, np.int64) * _NS, ns, side="right")
        return np.array(self._offsets, np.int64)[place] * _NS

    def _doubtful(self, utc_ns: npt.NDArray[np.int64]) -> list[tuple[int, npt.NDArray[np.bool_]]]:
        """Inserted leap seconds near these times: the number of the midnight behind each, ns, and which times
        are within a second of it, bool[n].
        """
        if not utc_ns.size:
            return []
        low, high = int(utc_ns.min()) // _NS, int(utc_ns.max()) // _NS
        found = []
        for at in range(bisect_right(self._utc, low - 1), bisect_right(self._utc, high + 1)):
            if at > 0 and self._offsets[at + 1] > self._offsets[at]:
                midnight_ns = self._utc[at] * _NS
                found.append((midnight_ns, (utc_ns >= midnight_ns - _NS) & (utc_ns < midnight_ns + _NS)))
        return found

    def offset(self, utc_s: int) -> UtcOffset:
        """TAI - UTC at a UTC second, with the leap second that comes next, as a card takes it."""
        s = self.at_utc(utc_s)
        leap = self.next(utc_s + s)
        known = not self.expired(utc_s)
        return UtcOffset(s, known) if leap is None else UtcOffset(s, known, leap.change_s, leap.tai_s)

    def continuous(
        self, received_ns: npt.NDArray[np.int64], sent_ns: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """UTC times of arrivals, and of their departures, as times that count on through leap seconds.

        received_ns: i64[n] in the order of arrival. sent_ns: i64[n], or none. Both come back with the offset
        that counts at the first arrival, unchanged where no leap second lies between their least and
        greatest. Of two times with one number: arrivals are before the inserted second's end until they run
        back by half a second or more; a departure is where it makes the smaller delay.
        """
        import numpy as np

        times = [each for each in (received_ns, sent_ns) if each.size]
        edges = [int(edge(each)) // _NS for each in times for edge in (np.min, np.max)]
        # Linux counts 23:59:60 in the second before midnight.
        if not edges or bisect_right(self._utc, min(edges)) == bisect_right(self._utc, max(edges) + 1):
            return received_ns, sent_ns
        base_ns = self.at_utc(int(received_ns[0]) // _NS) * _NS
        received = self.tai_ns(received_ns) - base_ns
        for midnight_ns, near in self._doubtful(received_ns):
            at = np.flatnonzero(near)
            back = np.flatnonzero(np.diff(received_ns[at]) <= -_NS // 2)
            if back.size:
                first, second = at[: back[0] + 1], at[back[0] + 1 :]
                received[first] -= _NS * (received_ns[first] >= midnight_ns)
                received[second] += _NS * (received_ns[second] < midnight_ns)
        sent = self.tai_ns(sent_ns) - base_ns
        for midnight_ns, near in self._doubtful(sent_ns):
            other = np.where(sent_ns[near] < midnight_ns, _NS, -_NS)
            delay = (received - sent)[near]
            sent[near] += np.where(np.abs(delay - other) < np.abs(delay), other, 0)
        return received, sent

    def arrivals(self, received_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The first of ``continuous``: of any times in their order."""
        return self.continuous(received_ns, received_ns[:0])[0]

    def departures(
        self, received_ns: npt.NDArray[np.int64], sent_ns: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        """The second of ``continuous``."""
        return self.continuous(received_ns, sent_ns)[1]


BUILT_IN = LeapSeconds("built in", _STARTS, _EXPIRES_UTC_S)


def read_leap_seconds(path: str | Path) -> LeapSeconds:
    """A table in the format of leap-seconds.list: `#@` expiry, lines of NTP seconds and TAI - UTC, `#h`
    SHA-1.

    InputError for a file that cannot be read, that says something impossible, or whose hash is wrong.
    """
    try:
        with open(path, "rb") as file:
            text = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"leap seconds {path}: {error.strerror}") from error
    if len(text) > _MOST_BYTES:
        raise InputError(f"leap seconds {path}: over {_MOST_BYTES} bytes: no leap-seconds.list is so long")
    return _parsed(text.decode("utf-8", "replace"), str(path))


def _parsed(text: str, name: str) -> LeapSeconds:
    def bad(number: int, why: str) -> InputError:
        return InputError(
            f"leap seconds {name}, line {number}: {why}; take leap-seconds.list as the IERS has it"
        )

    starts: list[tuple[int, int]] = []
    expires = updated = hashed = None
    summed = ""
    for number, line in enumerate(text.splitlines(), 1):
        body = line.split("#", 1)[0].split()
        mark, rest = line[:2], line[2:].split()
        if mark in ("#@", "#$"):
            if len(rest) != 1 or not _digits(rest[0]):
                raise bad(number, f"{mark} wants one number of seconds")
            if mark == "#@":
                expires = rest[0]
            else:
                updated = rest[0]
        elif mark == "#h":
            hashed = (number, [word.lower().lstrip("0") for word in rest])
        elif body:
            if len(body) != 2 or not all(map(_digits, body)):
                raise bad(number, "wants NTP seconds and TAI - UTC")
            start, offset = int(body[0]) - NTP_UNIX_S, int(body[1])
            if starts and (start <= starts[-1][0] or abs(offset - starts[-1][1]) != 1):
                raise bad(number, f"TAI - UTC of {offset} s does not follow the line before by one second")
            if start % 86400 or not 0 < start < 1 << 32 or not 0 < offset < 1000:
                raise bad(number, "no leap second ends there")
            starts.append((start, offset))
            summed += body[0] + body[1]
    if not starts or expires is None:
        raise InputError(f"leap seconds {name}: it has {'no expiry (#@)' if starts else 'no leap second'}")
    if hashed is not None:
        # As ntpd does: over the digits of #$, #@ and all lines; words of the hash may lack leading zeros.
        digest = hashlib.sha1(
            ((updated or "") + expires + summed).encode(), usedforsecurity=False
        ).hexdigest()
        if [digest[i : i + 8].lstrip("0") for i in range(0, 40, 8)] != hashed[1]:
            raise bad(hashed[0], "the SHA-1 is another one: the file is damaged or was edited")
    return LeapSeconds(name, tuple(starts), int(expires) - NTP_UNIX_S)


def _digits(word: str) -> bool:
    return word.isascii() and word.isdigit() and len(word) < 12


@functools.lru_cache(maxsize=8)
def _cached(path: str, _changed: tuple[int, int]) -> LeapSeconds | InputError:
    try:
        return read_leap_seconds(path)
    except InputError as error:
        return error


def _at(path: str) -> LeapSeconds | InputError:
    """The table at ``path`` as the file is now, read once."""
    try:
        state = Path(path).stat()
    except OSError as error:
        return InputError(f"leap seconds {path}: {error.strerror}")
    return _cached(path, (state.st_mtime_ns, state.st_size))


def leap_seconds() -> LeapSeconds:
    """The table that counts here: the one that TWINSTAMP_LEAP_SECONDS names; else the system's or the
    built-in one, whichever expires later.

    InputError where the named one is missing or damaged; a damaged one of the system's is left out.
    """
    named = os.environ.get(VARIABLE)
    if named:
        table = _at(named)
        if isinstance(table, InputError):
            raise table
        return table
    found = [table for table in map(_at, SYSTEM_TABLES) if isinstance(table, LeapSeconds)]
    return max([BUILT_IN, *found], key=lambda table: table.expires_utc_s)


def system_table_fault() -> str | None:
    """What is wrong with the system's table, None where nothing is (or there is none)."""
    for path in SYSTEM_TABLES:
        table = _at(path)
        if isinstance(table, InputError) and Path(path).exists():
            return str(table)
    return None


def expiry_warning(utc_s: float, *, ahead_s: float = 0.0) -> str | None:
    """One line where the table that counts here ends before ``utc_s`` + ``ahead_s``, else None."""
    import time

    table = leap_seconds()
    if not table.expired(utc_s + ahead_s):
        return None
    day = time.strftime("%Y-%m-%d", time.gmtime(table.expires_utc_s))
    verb = "expired" if table.expired(utc_s) else "expires"
    return (
        f"the table of leap seconds ({table.source}) {verb} on {day}: UTC may be a second off from then on; "
        f"update the system's tzdata, or name a newer leap-seconds.list in {VARIABLE}"
    )
