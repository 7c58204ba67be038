# SPDX-License-Identifier: Apache-2.0
"""What a clock makes of a receiver's messages: which second they name, or why none.

The firmware does the same in firmware/drivers/receiver.c and second.c; tests/receiver/test_agreement.py
drives both with the same streams.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twinstamp_gps import gpstime
from twinstamp_gps import messages as m
from twinstamp_gps.stream import REASONS

if TYPE_CHECKING:
    Utc = tuple[int, int, int, int, int, int]


class Judge:
    """Says of each message why it names nothing, and counts that by reason (twinstamp_gps.stream.REASONS)."""

    def __init__(self) -> None:
        self.refused = dict.fromkeys(REASONS, 0)
        self._no_fix = False  # as the last RMC or GGA said

    def judge(self, message: m.Message) -> str:
        """The reason, "" for none. ZDA does not say whether there is a fix: the last RMC or GGA does."""
        if isinstance(message, m.Rmc | m.Gga) and message.valid is not None:
            self._no_fix = not message.valid
        reason: str = getattr(message, "reason", "")
        if isinstance(message, m.Zda) and self._no_fix:
            reason = "not_valid"
        if reason:
            self.refused[reason] += 1
        return reason


def pulse_tai_s(tp: m.TimTp, leap_s: int | None) -> tuple[int, int] | None:
    """(TAI second that the pulse marks, periods of 1024 weeks that its week is back), or None.

    leap_s: GPS − UTC as the satellites say, for a pulse in UTC; None: not known.
    """
    if tp.reason or tp.second is None:
        return None
    week, second = tp.second
    full = gpstime.unroll_week(week)
    back = (full - week) // gpstime.WEEKS_OF_TEN_BITS
    if tp.gps_base:
        return gpstime.gps_to_tai_s(full, second), back
    return None if leap_s is None else (gpstime.gps_to_tai_s(full, second) + leap_s, back)


def unroll_utc(utc: Utc) -> tuple[Utc, int]:
    """(UTC, periods of 1024 weeks by which it was moved on); second 60 stays second 60."""
    leap = int(utc[5] == 60)
    said = gpstime.utc_to_unix_s(*utc) - leap
    # The leap second itself belongs to the day before the next second.
    full = gpstime.unroll_unix_s(said)
    moved = gpstime.unix_to_utc(full)
    return (*moved[:5], moved[5] + leap), (full - said) // (gpstime.WEEKS_OF_TEN_BITS * gpstime.WEEK_S)


def text(utc: Utc, nano_ns: int = 0) -> str:
    """ISO 8601 of a second of UTC and a fraction (−10⁹ to 10⁹ ns), which is left out where it is 0."""
    if nano_ns < 0:
        utc, nano_ns = gpstime.unix_to_utc(gpstime.utc_to_unix_s(*utc) - 1), nano_ns + 10**9
    fraction = f".{nano_ns:09d}".rstrip("0") if nano_ns else ""
    return "{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}".format(*utc) + fraction + "Z"
