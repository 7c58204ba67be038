# SPDX-License-Identifier: Apache-2.0
"""Faults of a receiver, as people type them: outage@3600+1000, step@1000:2us. The only parser of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from twinstamp_gps.errors import SettingError


class _Kind(NamedTuple):
    """lasts: default duration, s; 0: to the end. value: default; unit: "ns", or what a bare number means."""

    lasts: int
    value: float
    unit: str
    text: str


KINDS = {
    "outage": _Kind(60, 0, "", "no satellites: no pulse, no fix"),
    "outlier": _Kind(1, 500, "ns", "pulses off by VALUE, sign at random"),
    "step": _Kind(0, 1000, "ns", "spoofed: all pulses off by VALUE"),
    "pull": _Kind(0, 1, "ns/s", "spoofed: pulses off by VALUE more each second"),
    "missing": _Kind(1, 1, "share", "a share VALUE of the pulses does not come"),
    "double": _Kind(1, 200_000_000, "ns", "another edge VALUE after each pulse"),
    "early": _Kind(1, 50_000_000, "ns", "another edge VALUE before each pulse"),
    "qerr-sign": _Kind(0, 0, "", "qErr comes with the opposite sign"),
    "qerr-late": _Kind(0, 0, "", "qErr is that of the next pulse"),
    "qerr-lost": _Kind(0, 0, "", "no qErr"),
    "leap": _Kind(
        1, 1, "s", "a leap second: START is second 23:59:60 (VALUE 1), or the one after 23:59:58 (-1)"
    ),
    "message-late": _Kind(1, 950_000_000, "ns", "messages come VALUE later than they should"),
    "message-corrupt": _Kind(1, 0, "", "messages arrive with flipped bits, or cut"),
    "message-lost": _Kind(1, 0, "", "no messages, pulses as ever"),
    "fix-lost": _Kind(60, 0, "", "messages say that there is no fix, pulses as ever"),
    "accuracy": _Kind(60, 1, "ns/s", "the receiver's own estimate (tAcc) grows by VALUE more each second"),
    "host-load": _Kind(1, 1_000_000_000, "ns", "somebody else moves card time by VALUE, by a load"),
}
_UNITS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 1_000_000, "s": 1_000_000_000}
_SPEC = re.compile(
    r"(?P<kind>[a-z-]+)@(?P<start>[0-9]{1,9})(?:\+(?P<lasts>[0-9]{1,9}))?"
    r"(?::(?P<value>[+-]?[0-9]{1,12}(?:\.[0-9]{1,9})?)(?P<unit>ns/s|[nuµm]?s)?)?"
)


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. start_s: first second that it touches. duration_s: how many; None to the end. value: in ns,
    for pull in ns/s, for leap in s.
    """

    kind: str
    start_s: int
    duration_s: int | None
    value: float

    def at(self, second: int) -> bool:
        """Whether it touches this second."""
        return self.start_s <= second and (self.duration_s is None or second < self.start_s + self.duration_s)

    def __str__(self) -> str:
        lasts = "" if self.duration_s is None else f"+{self.duration_s}"
        unit = KINDS[self.kind].unit
        tail = f":{self.value:.12g}{unit if unit.startswith('ns') else ''}" if unit else ""
        return f"{self.kind}@{self.start_s}{lasts}{tail}"


def parse_fault(text: str) -> Fault:
    """A fault from KIND@START[+DURATION][:VALUE]: seconds, and a value with ns, us, ms, s (pull: ns/s).

    Raises SettingError that says what is wrong.
    """
    found = _SPEC.fullmatch(text.strip())
    if found is None:
        raise SettingError(
            f"fault {text!r} is not understood: write KIND@START[+DURATION][:VALUE], e.g. outage@3600+1000 "
            "or step@1000:2us (seconds from the start)"
        )
    kind = KINDS.get(found["kind"])
    if kind is None:
        raise SettingError(f"no fault {found['kind']!r}: known are {', '.join(KINDS)}")
    lasts = int(found["lasts"]) if found["lasts"] else (kind.lasts or None)
    if lasts == 0:
        raise SettingError(f"fault {text!r} lasts 0 s: give at least 1")
    value = kind.value
    if found["value"] is not None:
        if not kind.unit:
            raise SettingError(f"fault {text!r}: {found['kind']} takes no value")
        value = float(found["value"])
        unit = found["unit"] or kind.unit
        if unit != kind.unit and (kind.unit != "ns" or unit not in _UNITS):
            raise SettingError(f"fault {text!r}: {found['kind']} takes {kind.unit}, not {unit}")
        if kind.unit == "ns":
            value *= _UNITS[unit]
    if found["kind"] == "leap" and value not in (1, -1):
        raise SettingError(f"fault {text!r}: a leap second is 1 or -1")
    if found["kind"] == "missing" and not 0 < value <= 1:
        raise SettingError(f"fault {text!r}: a share is more than 0 and at most 1")
    if found["kind"] in ("early", "double") and not 0 < value < 1e9:
        raise SettingError(f"fault {text!r}: {found['kind']} takes more than 0 and less than 1 s")
    if abs(value) >= 3e9 or (found["kind"] == "message-late" and value < 0):
        raise SettingError(f"fault {text!r}: {value:.0f} ns is out of range: less than 3 s")
    return Fault(kind=found["kind"], start_s=int(found["start"]), duration_s=lasts, value=value)
