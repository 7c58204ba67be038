# SPDX-License-Identifier: Apache-2.0
"""What a receiver says of itself, put together from its messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from twinstamp_gps import messages as m
from twinstamp_gps.gpstime import GPS_EPOCH_TAI_S

if TYPE_CHECKING:
    from twinstamp_gps.port import Arrival, Receiver

T = TypeVar("T")

_GGA_FIX = ("none", "3D", "3D")  # 0 none, 1 autonomous, 2 differential; others are seldom


@dataclass(frozen=True, kw_only=True)
class ReceiverStatus:
    """None, or an empty text, is what no message has said yet.

    address: of the port. age_s: since the last message that was understood. utc: of the last solution, second
    60 in a leap second; utc_sure: the receiver knows the leap seconds. fix: none, 2D, 3D, time only.
    satellites: used. time_accuracy_ns: its own estimate. leap_s: GPS − UTC; leap_change_s, leap_in_s: the
    next leap second. qerr_ps: of the next pulse, which marks pulse_tai_s. survey: of its survey-in.
    messages, damaged: counts.
    """

    address: str
    age_s: float | None
    utc: str
    utc_sure: bool | None
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


class ReceiverWatch:
    """Takes a receiver's messages and says how it stands."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._last: dict[type, m.Message] = {}
        self._last_ns: int | None = None

    def take(self, arrival: Arrival) -> None:
        """A message that came."""
        if isinstance(arrival.message, m.Damaged):
            return
        self._last[type(arrival.message)] = arrival.message
        self._last_ns = arrival.monotonic_ns

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
        utc, sure, fix, fix_ok, used, accuracy = self._nmea()
        if pvt is not None:
            utc = pvt.utc if pvt.valid_date and pvt.valid_time else None
            sure, fix_ok, used, accuracy = (
                pvt.fully_resolved,
                pvt.fix_ok,
                pvt.satellites,
                pvt.time_accuracy_ns,
            )
            fix = m.FIX_TYPES[pvt.fix_type] if pvt.fix_type < len(m.FIX_TYPES) else str(pvt.fix_type)
        event = leap if leap is not None and leap.event_valid and leap.change_s else None
        counts = self._receiver.counts
        return ReceiverStatus(
            address=self._receiver.address,
            age_s=None if self._last_ns is None else (monotonic_ns - self._last_ns) / 1e9,
            utc="" if utc is None else "{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}Z".format(*utc),
            utc_sure=sure,
            fix=fix,
            fix_ok=fix_ok,
            satellites=used,
            in_view=sat.in_view if sat is not None else None,
            strongest_dbhz=sat.cn0_dbhz[0] if sat is not None and sat.cn0_dbhz else None,
            time_accuracy_ns=accuracy,
            leap_s=leap.leap_s if leap is not None and leap.leap_valid else None,
            leap_change_s=event.change_s if event is not None else None,
            leap_in_s=event.time_to_event_s if event is not None else None,
            qerr_ps=tp.qerr_ps if tp is not None and tp.qerr_valid else None,
            pulse_tai_s=_tai_s(tp) if tp is not None else None,
            utc_pulses=tp.utc_base if tp is not None else None,
            survey=_survey(survey) if survey is not None else "",
            messages=counts.ubx + counts.nmea,
            damaged=counts.damaged + self._receiver.damaged_messages,
        )

    def _nmea(
        self,
    ) -> tuple[
        tuple[int, int, int, int, int, int] | None, bool | None, str, bool | None, int | None, int | None
    ]:
        rmc, zda, gga = self._get(m.Rmc), self._get(m.Zda), self._get(m.Gga)
        utc = rmc.utc if rmc is not None else zda.utc if zda is not None else None
        valid = rmc.valid if rmc is not None else None
        if gga is None:
            return utc, None, "", valid, None, None
        fix = _GGA_FIX[gga.quality] if gga.quality < len(_GGA_FIX) else f"quality {gga.quality}"
        return utc, None, fix, gga.quality > 0 if valid is None else valid, gga.satellites, None


def _tai_s(tp: m.TimTp) -> int | None:
    second = tp.tai_s
    return second if second is not None and second >= GPS_EPOCH_TAI_S else None


def _survey(survey: m.Survey) -> str:
    if survey.active:
        return f"under way: {survey.duration_s} s, {survey.accuracy_mm / 1000:.2f} m"
    return "position held" if survey.valid else "off"
