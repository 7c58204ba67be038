# SPDX-License-Identifier: Apache-2.0
"""UBX frames and NMEA sentences made of values: for commands to a receiver and for the simulated one.

Layouts as cited in messages.py; written out here with struct, apart from pyubx2, which reads them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from twinstamp_gps import messages as m
from twinstamp_gps.frame import nmea as nmea
from twinstamp_gps.frame import ubx

if TYPE_CHECKING:
    from collections.abc import Sequence


def nav_pvt(
    *,
    tow_ms: int,
    utc: tuple[int, int, int, int, int, int],
    nano_ns: int = 0,
    time_valid: bool,
    utc_resolved: bool,
    fix_type: int,
    fix_ok: bool,
    satellites: int,
    time_accuracy_ns: int = 5,
    longitude_e7: int = 0,
    latitude_e7: int = 0,
    height_mm: int = 0,
) -> bytes:
    """UBX-NAV-PVT. time_valid: date and time; utc_resolved: no second of doubt left (leap seconds known)."""
    valid = (3 if time_valid else 0) | (4 if utc_resolved else 0)
    confirmed = 0xE0 if time_valid and utc_resolved else 0x20
    accuracy = 1500 if fix_ok else 0xFFFFFFFF
    payload = struct.pack(
        "<IHBBBBBBIiBBBBiiiiIIiiiiiIIHHIihH",
        tow_ms, *utc, valid, time_accuracy_ns, nano_ns, fix_type, int(fix_ok), confirmed, satellites,
        longitude_e7, latitude_e7, height_mm, height_mm, accuracy, accuracy,
        0, 0, 0, 0, 0, 100, 18_000_000, 120 if fix_ok else 9999, 0, 0, 0, 0, 0,
    )  # fmt: skip
    return ubx(m.NAV_PVT, payload)


def tim_tp(
    *,
    week: int,
    tow_ms: int,
    qerr_ps: int,
    qerr_valid: bool = True,
    utc_base: bool = False,
    utc_available: bool = True,
    raim: int = 2,
    tow_sub_ms_q32: int = 0,
) -> bytes:
    """UBX-TIM-TP for the next pulse. raim: 0 not known, 1 not active, 2 active."""
    flags = utc_base | utc_available << 1 | raim << 2 | (not qerr_valid) << 4
    # UTC standard 3 is that of the US Naval Observatory.
    return ubx(
        m.TIM_TP,
        struct.pack("<IIiHBB", tow_ms, tow_sub_ms_q32, qerr_ps, week, flags, 0x30 if utc_base else 0),
    )


def nav_timegps(*, week: int, tow_ms: int, leap_s: int, leap_valid: bool) -> bytes:
    """UBX-NAV-TIMEGPS."""
    valid = 3 | leap_valid << 2
    return ubx(m.NAV_TIMEGPS, struct.pack("<IihbBI", tow_ms, 0, week, leap_s, valid, 5))


def nav_timels(
    *,
    tow_ms: int,
    leap_s: int,
    leap_valid: bool = True,
    change_s: int = 0,
    time_to_event_s: int = 0,
    event_week: int = 0,
    event_day: int = 0,
    event_valid: bool = False,
) -> bytes:
    """UBX-NAV-TIMELS; sources are GPS (2), or the firmware's default (0) where the value is not valid."""
    source = 2 if leap_valid else 0
    payload = struct.pack(
        "<IB3xBbBbiHH3xB",
        tow_ms, 0, source, leap_s, 2 if event_valid else 0, change_s, time_to_event_s, event_week, event_day,
        leap_valid | event_valid << 1,
    )  # fmt: skip
    return ubx(m.NAV_TIMELS, payload)


def nav_sat(*, tow_ms: int, satellites: Sequence[tuple[int, int, int, int, int, bool]]) -> bytes:
    """UBX-NAV-SAT. satellites: (gnss, number, C/N0 in dB·Hz, elevation in °, azimuth in °, used)."""
    body = b"".join(
        struct.pack("<BBBbhhI", gnss, number, cn0, elevation, azimuth, 0, 0x17 if not used else 0x1F)
        for gnss, number, cn0, elevation, azimuth, used in satellites
    )
    return ubx(m.NAV_SAT, struct.pack("<IBB2x", tow_ms, 1, len(satellites)) + body)


def nav_svin(
    *, tow_ms: int, duration_s: int, accuracy_mm: int, observations: int, valid: bool, active: bool
) -> bytes:
    """UBX-NAV-SVIN (F9T), without the mean position."""
    return ubx(
        m.NAV_SVIN,
        struct.pack("<B3xII16xIIBB2x", 0, tow_ms, duration_s, accuracy_mm * 10, observations, valid, active),
    )


def tim_svin(*, duration_s: int, accuracy_mm: int, observations: int, valid: bool, active: bool) -> bytes:
    """UBX-TIM-SVIN (M8T), without the mean position."""
    return ubx(
        m.TIM_SVIN, struct.pack("<I12xIIBB2x", duration_s, accuracy_mm**2, observations, valid, active)
    )


def mon_ver(software: str, hardware: str, extensions: Sequence[str]) -> bytes:
    """UBX-MON-VER."""
    fields = [(software, 30), (hardware, 10), *((extension, 30) for extension in extensions)]
    return ubx(m.MON_VER, b"".join(text.encode("ascii").ljust(size, b"\0") for text, size in fields))


def ack(kind: tuple[int, int], *, accepted: bool) -> bytes:
    """UBX-ACK-ACK or UBX-ACK-NAK for a message."""
    return ubx(m.ACK_ACK if accepted else m.ACK_NAK, bytes(kind))


def _angle(value_e7: int, positive: str, negative: str, digits: int) -> str:
    degrees, rest = divmod(abs(value_e7), 10_000_000)
    minutes_e5 = (rest * 60 + 50) // 100
    if minutes_e5 == 6_000_000:
        degrees, minutes_e5 = degrees + 1, 0
    letter = negative if value_e7 < 0 else positive
    return f"{degrees:0{digits}d}{minutes_e5 // 100_000:02d}.{minutes_e5 % 100_000:05d},{letter}"


def rmc(
    utc: tuple[int, int, int, int, int, int] | None,
    *,
    valid: bool,
    latitude_e7: int = 0,
    longitude_e7: int = 0,
    talker: str = "GN",
) -> bytes:
    """NMEA RMC, version 4.10."""
    time, date = ("", "") if utc is None else (_hms(utc), f"{utc[2]:02d}{utc[1]:02d}{utc[0] % 100:02d}")
    place = (
        f"{_angle(latitude_e7, 'N', 'S', 2)},{_angle(longitude_e7, 'E', 'W', 3)},0.000,,"
        if valid
        else ",,,,,,"
    )
    return nmea(f"{talker}RMC,{time},{'A' if valid else 'V'},{place}{date},,,{'A' if valid else 'N'},V")


def zda(utc: tuple[int, int, int, int, int, int] | None, *, talker: str = "GN") -> bytes:
    """NMEA ZDA."""
    if utc is None:
        return nmea(f"{talker}ZDA,,,,,00,00")
    return nmea(f"{talker}ZDA,{_hms(utc)},{utc[2]:02d},{utc[1]:02d},{utc[0]:04d},00,00")


def gga(
    utc: tuple[int, int, int, int, int, int] | None,
    *,
    valid: bool,
    satellites: int,
    latitude_e7: int = 0,
    longitude_e7: int = 0,
    height_mm: int = 0,
    talker: str = "GN",
) -> bytes:
    """NMEA GGA."""
    time = "" if utc is None else _hms(utc)
    if not valid:
        return nmea(f"{talker}GGA,{time},,,,,0,00,99.99,,,,,,")
    return nmea(
        f"{talker}GGA,{time},{_angle(latitude_e7, 'N', 'S', 2)},{_angle(longitude_e7, 'E', 'W', 3)},1,"
        f"{satellites:02d},0.80,{height_mm / 1000:.1f},M,0.0,M,,"
    )


def _hms(utc: tuple[int, int, int, int, int, int]) -> str:
    return f"{utc[3]:02d}{utc[4]:02d}{utc[5]:02d}.00"
