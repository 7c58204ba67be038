# SPDX-License-Identifier: Apache-2.0
"""GPS weeks, TAI seconds and UTC, in integers. TAI seconds count from 1970-01-01 00:00:00 TAI."""

from __future__ import annotations

import datetime

TAI_MINUS_GPS_S = 19  # since GPS time began (IS-GPS-200, §3.3.4)
WEEK_S = 604_800
GPS_EPOCH_UNIX_S = 315_964_800  # 1980-01-06 00:00:00
GPS_EPOCH_TAI_S = GPS_EPOCH_UNIX_S + TAI_MINUS_GPS_S
WEEKS_OF_TEN_BITS = 1024


def gps_to_tai_s(week: int, second: int) -> int:
    """TAI second of a second of a full GPS week (not modulo 1024)."""
    return GPS_EPOCH_TAI_S + week * WEEK_S + second


def tai_to_gps(tai_s: int) -> tuple[int, int]:
    """(full week, second of the week) of a TAI second; before 1980-01-06 the week is negative."""
    return divmod(tai_s - GPS_EPOCH_TAI_S, WEEK_S)


def unroll_week(week: int, not_before: int) -> int:
    """The first full week from ``not_before`` on that agrees with ``week`` modulo 1024."""
    return not_before + (week - not_before) % WEEKS_OF_TEN_BITS


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
