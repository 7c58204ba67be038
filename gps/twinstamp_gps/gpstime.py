# SPDX-License-Identifier: Apache-2.0
"""GPS weeks, TAI seconds and UTC, in integers. TAI seconds count from 1970-01-01 00:00:00 TAI."""

from __future__ import annotations

import datetime

TAI_MINUS_GPS_S = 19  # since GPS time began (IS-GPS-200, §3.3.4)
WEEK_S = 604_800
GPS_EPOCH_UNIX_S = 315_964_800  # 1980-01-06 00:00:00
GPS_EPOCH_TAI_S = GPS_EPOCH_UNIX_S + TAI_MINUS_GPS_S
WEEKS_OF_TEN_BITS = 1024
# No receiver is read before this week (it began on 2025-01-04 at 23:59:42 UTC): one that says an earlier
# week or date counts weeks with ten bits, or has firmware older than two rollovers. FIRST_WEEK of
# firmware/drivers/second.c is the same.
FIRST_WEEK = 2348
FIRST_UNIX_S = GPS_EPOCH_UNIX_S + FIRST_WEEK * WEEK_S - 18  # GPS - UTC since 2017


def gps_to_tai_s(week: int, second: int) -> int:
    """TAI second of a second of a full GPS week (not modulo 1024)."""
    return GPS_EPOCH_TAI_S + week * WEEK_S + second


def tai_to_gps(tai_s: int) -> tuple[int, int]:
    """(full week, second of the week) of a TAI second; before 1980-01-06 the week is negative."""
    return divmod(tai_s - GPS_EPOCH_TAI_S, WEEK_S)


def unroll_week(week: int, not_before: int = FIRST_WEEK) -> int:
    """``week``, moved on by whole periods of 1024 weeks until it is not before ``not_before``."""
    return week + max(0, not_before - week + WEEKS_OF_TEN_BITS - 1) // WEEKS_OF_TEN_BITS * WEEKS_OF_TEN_BITS


def unroll_unix_s(unix_s: int, not_before: int = FIRST_UNIX_S) -> int:
    """A Unix second, moved on by whole periods of 1024 weeks until it is not before ``not_before``."""
    period = WEEKS_OF_TEN_BITS * WEEK_S
    return unix_s + max(0, not_before - unix_s + period - 1) // period * period


def utc_to_unix_s(year: int, month: int, day: int, hour: int, minute: int, second: int) -> int:
    """Unix second of a UTC date; second 60, the leap second, is that of the next minute's 0.

    Raises ValueError for a date that is none.
    """
    if not 0 <= second <= 60:
        raise ValueError(f"second {second}")
    leap = second == 60
    moment = datetime.datetime(year, month, day, hour, minute, second - leap, tzinfo=datetime.UTC)
    return int(moment.timestamp()) + leap


def unix_to_utc(unix_s: int) -> tuple[int, int, int, int, int, int]:
    """(year, month, day, hour, minute, second) of a Unix second."""
    moment = datetime.datetime.fromtimestamp(unix_s, datetime.UTC)
    return moment.year, moment.month, moment.day, moment.hour, moment.minute, moment.second
