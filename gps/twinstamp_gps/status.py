# SPDX-License-Identifier: Apache-2.0
"""What a receiver says of itself, put together from its messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from twinstamp_gps import messages as m
from twinstamp_gps import naming

if TYPE_CHECKING:
    from twinstamp_gps.port import Arrival, Receiver

T = TypeVar("T")

# By the quality of GGA: none, autonomous, differential, PPS, RTK fixed and float; not a fix of satellites are
# 6 dead reckoning, 7 set by hand, 8 simulated.
_GGA_FIX = ("none", "3D", "3D", "3D", "3D", "3D", "dead reckoning", "by hand", "simulated")


@dataclass(frozen=True, kw_only=True)
class ReceiverStatus:
    """None, or an empty text, is what no message has said yet.

    address: of the port. age_s: since the last message that was understood. utc: of the last solution that
    says itself that it is valid, second 60 in a leap second, with its fraction where it has one; utc_sure:
    there is a fix, and the receiver knows the leap seconds. rollovers: how often 1024 weeks were added to utc
    and pulse_tai_s, because the receiver's date cannot be (docs/receiver.md). fix: none, 2D, 3D, time only.
    satellites: used. time_accuracy_ns: its own estimate. leap_s: GPS − UTC; leap_change_s, leap_in_s: the
    next leap second. qerr_ps: of the next pulse, which marks pulse_tai_s. survey: of its survey-in.
    messages: whole ones. refused: counts by reason (twinstamp_gps.stream.REASONS); damaged: those of them
    that cannot be what was sent. skipped_bytes: of no message.
    """

    address: str
    age_s: float | None
    utc: str
    utc_sure: bool | None
    rollovers: int
    fix: str
    fix_ok: bool | None
    satellites: int | None
    in_view: int | None
    strongest_dbhz: int | None
    time_accuracy_ns: int | None
    leap_s: int | None
    leap_change_s: int | None
    leap_in_s: int | None
    qerr_ps: int | None
    pulse_tai_s: int | None
    utc_pulses: bool | None
    survey: str
    messages: int
    damaged: int
    refused: dict[str, int]
    skipped_bytes: int


class ReceiverWatch:
    """Takes a receiver's messages and says how it stands."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._last: dict[type, m.Message] = {}
        self._last_ns: int | None = None
        self._sentence: m.Rmc | m.Zda | None = None  # the last that gave a UTC; None: it is not valid

    def take(self, arrival: Arrival) -> None:
        """A message that came."""
        message = arrival.message
        if isinstance(message, m.Damaged):
            return
        self._last[type(message)] = message
        self._last_ns = arrival.monotonic_ns
        if isinstance(message, m.Rmc | m.Zda):
            self._sentence = message if arrival.reason in ("", "fraction") else None

    def complete(self) -> bool:
        """Whether a solution with a date and, from a u-blox receiver, qErr have come."""
        return m.TimTp in self._last and m.NavPvt in self._last

    def _get(self, kind: type[T]) -> T | None:
        found = self._last.get(kind)
        return found if isinstance(found, kind) else None

    def status(self, monotonic_ns: int) -> ReceiverStatus:
        """How it stands at a time of time.monotonic_ns()."""
        pvt, tp, leap = self._get(m.NavPvt), self._get(m.TimTp), self._get(m.NavTimeLs)
        sat, survey = self._get(m.NavSat), self._get(m.Survey)
        utc, back = self._utc(pvt)
        leap_s = self._leap_s()
        pulse = naming.pulse_tai_s(tp, leap_s) if tp is not None else None
        event = leap if leap is not None and leap.event_valid and leap.change_s else None
        counts, refused = self._receiver.counts, self._receiver.refused
        if pvt is not None:
            fix = m.FIX_TYPES[pvt.fix_type] if pvt.fix_type < len(m.FIX_TYPES) else str(pvt.fix_type)
            fix_ok: bool | None = pvt.fix_ok
            used: int | None = pvt.satellites
        else:
            fix, fix_ok, used = self._sentence_fix()
        return ReceiverStatus(
            address=self._receiver.address,
            age_s=None if self._last_ns is None else (monotonic_ns - self._last_ns) / 1e9,
            utc=utc,
            utc_sure=None if pvt is None else pvt.fully_resolved and pvt.fixed,
            rollovers=max(back, pulse[1] if pulse is not None else 0),
            fix=fix,
            fix_ok=fix_ok,
            satellites=used,
            in_view=sat.in_view if sat is not None else None,
            strongest_dbhz=sat.cn0_dbhz[0] if sat is not None and sat.cn0_dbhz else None,
            time_accuracy_ns=pvt.time_accuracy_ns if pvt is not None else None,
            leap_s=leap_s,
            leap_change_s=event.change_s if event is not None else None,
            leap_in_s=event.time_to_event_s if event is not None else None,
            qerr_ps=tp.qerr_ps if tp is not None and tp.qerr_valid else None,
            pulse_tai_s=pulse[0] if pulse is not None else None,
            utc_pulses=tp.utc_base if tp is not None else None,
            survey=_survey(survey) if survey is not None else "",
            messages=counts.ubx + counts.nmea + counts.rtcm,
            damaged=self._receiver.damaged,
            refused=refused,
            skipped_bytes=counts.skipped_bytes,
        )

    def _utc(self, pvt: m.NavPvt | None) -> tuple[str, int]:
        """(UTC as text, periods of 1024 weeks added to it) of the last solution."""
        if pvt is not None:
            if not (pvt.valid_date and pvt.valid_time):
                return "", 0
            said, nano_ns = pvt.utc, pvt.nano_ns if pvt.off_second else 0
        else:
            if self._sentence is None or self._sentence.utc is None:
                return "", 0
            said, nano_ns = self._sentence.utc, self._sentence.nano_ns
        utc, back = naming.unroll_utc(said)
        return naming.text(utc, nano_ns), back

    def _leap_s(self) -> int | None:
        """GPS − UTC as the satellites say: NAV-TIMELS says where it has it from, NAV-TIMEGPS only that."""
        leap, week = self._get(m.NavTimeLs), self._get(m.NavTimeGps)
        if leap is not None:
            return leap.leap_s if leap.known else None
        return week.leap_s if week is not None and week.leap_valid else None

    def _sentence_fix(self) -> tuple[str, bool | None, int | None]:
        """(fix, whether it is one, satellites) of RMC and GGA."""
        rmc, gga = self._get(m.Rmc), self._get(m.Gga)
        valid = rmc.valid if rmc is not None else None
        if gga is None or gga.quality is None:
            return "", valid, gga.satellites if gga is not None else None
        fix = _GGA_FIX[gga.quality] if gga.quality < len(_GGA_FIX) else f"quality {gga.quality}"
        return fix, gga.valid if valid is None else valid, gga.satellites


def _survey(survey: m.Survey) -> str:
    if survey.active:
        return f"under way: {survey.duration_s} s, {survey.accuracy_mm / 1000:.2f} m"
    return "position held" if survey.valid else "off"
