# SPDX-License-Identifier: Apache-2.0
"""What the tests of receivers share: noise that is known, streams, receivers on lines."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from twinstamp_gps import encode, gpstime
from twinstamp_gps.simulated import SimulatedReceiver

UTC = (2026, 11, 20, 12, 34, 56)


class KnownNoise:
    """Pulse n: error 1000·n fs, qErr 37·n ps modulo a sawtooth."""

    def pulse(self, second: int) -> tuple[int, int]:
        return 1000 * second, (second * 3701) % 15_720 - 7860


def receiver(model: str = "f9t", **options: object) -> SimulatedReceiver:
    return SimulatedReceiver(model, KnownNoise(), **options)


def every_message() -> list[bytes]:
    """One frame of each kind that is decoded, and some that are not."""
    return [
        encode.nav_pvt(
            tow_ms=1000, utc=UTC, time_valid=True, utc_resolved=True, fix_type=5, fix_ok=True, satellites=20
        ),
        encode.tim_tp(week=2445, tow_ms=2000, qerr_ps=-4321),
        encode.nav_timels(tow_ms=3000, leap_s=18),
        encode.nav_sat(tow_ms=4000, satellites=[(0, 3, 44, 30, 120, True), (2, 11, 33, -5, 20, False)]),
        encode.nav_svin(
            tow_ms=5000, duration_s=20, accuracy_mm=1500, observations=20, valid=False, active=True
        ),
        encode.tim_svin(duration_s=20, accuracy_mm=1500, observations=20, valid=False, active=True),
        encode.mon_ver("EXT CORE 1.00", "00190000", ["FWVER=TIM 2.20", "PROTVER=29.20", "MOD=ZED-F9T"]),
        encode.ack((0x06, 0x8A), accepted=True),
        encode.ack((0x06, 0x8A), accepted=False),
        encode.ubx((0x06, 0x8B), bytes.fromhex("01000000 07000510 01 02000540 40420F00")),
        encode.ubx((0x0A, 0x09), bytes(60)),
        encode.rmc(UTC, valid=True, latitude_e7=-472_851_234, longitude_e7=85_659_012),
        encode.zda(UTC),
        encode.gga(UTC, valid=True, satellites=12),
        encode.rmc(None, valid=False),
        encode.zda(None),
        encode.gga(None, valid=False, satellites=0),
        encode.nmea("PUBX,04,073731.00,091202,113851.00,1196,15D,1930035,-2660.664,43"),
    ]


def sentence(body: str, *, end: str = "\r\n", lower: bool = False) -> bytes:
    """`$`, the body, its checksum, the line's end."""
    total = 0
    for c in body.encode("latin-1"):
        total ^= c
    return f"${body}*{total:{'02x' if lower else '02X'}}{end}".encode("latin-1")


def crc24q(data: bytes) -> int:
    """By long division, bit by bit: RTCM 10403.3 section 4."""
    rest = 0
    for byte in data:
        for bit in range(7, -1, -1):
            top = rest >> 23 & 1 ^ byte >> bit & 1
            rest = (rest << 1 & 0xFFFFFF) ^ (0x864CFB if top else 0)
    return rest


def rtcm(payload: bytes) -> bytes:
    """An RTCM3 message."""
    head = b"\xd3" + len(payload).to_bytes(2, "big") + payload
    return head + crc24q(head).to_bytes(3, "big")


# What receivers send in a second, in the kinds of gpsd's logs. at: the second of UTC.


def _rmc(
    at: datetime.datetime, *, fraction: str = ".00", talker: str = "GP", mode: str = ",A", **how: Any
) -> bytes:
    where = "4717.1143,N,00833.9152,E,0.0,,"
    return sentence(f"{talker}RMC,{at:%H%M%S}{fraction},A,{where}{at:%d%m%y},,{mode}", **how)


def _gga(at: datetime.datetime, *, fraction: str = ".00", talker: str = "GP", **how: Any) -> bytes:
    where = "4717.1143,N,00833.9152,E,1,12,0.8,480.0,M,48.0,M,,"
    return sentence(f"{talker}GGA,{at:%H%M%S}{fraction},{where}", **how)


def _rtk(at: datetime.datetime) -> bytes:
    """Ten solutions a second, with as many digits as RTK receivers give."""
    where = "4717.11437182,N,00833.91522561,E"
    out = b""
    for tenth in range(10):
        time = f"{at:%H%M%S}.{tenth}0"
        out += sentence(f"GNGGA,{time},{where},4,10,0.9,278.161,M,-31.442,M,6.6,0133")
        out += sentence(f"GNRMC,{time},A,{where},0.004,139.060,{at:%d%m%y},11.5985,E,R")
    return out


def _solution(at: datetime.datetime, **fields: Any) -> bytes:
    tai_s = round((at - datetime.datetime(1970, 1, 1)).total_seconds()) + 37
    week, tow_s = gpstime.tai_to_gps(tai_s)
    utc = (at.year, at.month, at.day, at.hour, at.minute, at.second)
    given = {
        "time_valid": True,
        "utc_resolved": True,
        "fix_type": 3,
        "fix_ok": True,
        "satellites": 9,
    } | fields
    place = {"latitude_e7": 472_852_383, "longitude_e7": 85_652_533}
    return encode.nav_pvt(tow_ms=1000 * tow_s, utc=utc, **given, **place) + encode.nav_timegps(
        week=week, tow_ms=1000 * tow_s, leap_s=18, leap_valid=True
    )


def shapes() -> dict[str, Callable[[datetime.datetime], bytes]]:
    """What a receiver of each kind sends in the second that begins at a UTC."""
    pubx = sentence("PUBX,03,20" + ",5,U,120,45,38,064" * 22)
    between = rtcm(b"\x43\x50\xb5\x62\x01\x07\x5c\x00$GNRMC,\x00") + rtcm(b"\x40\x50" + bytes(range(256)) * 3)
    back = datetime.timedelta(weeks=1024)
    return {
        "NMEA": lambda at: _gga(at) + _rmc(at) + sentence("GPGSV,1,1,01,40,083,46,02"),
        "NMEA 2.1": lambda at: _gga(at, fraction="") + _rmc(at, fraction="", mode=""),
        "NMEA, LF": lambda at: _gga(at, end="\n") + _rmc(at, end="\n"),
        "NMEA, CR CR LF": lambda at: _gga(at, end="\r\r\n") + _rmc(at, end="\r\r\n"),
        "NMEA, lower case": lambda at: _gga(at, lower=True) + _rmc(at, lower=True),
        "NMEA, ZDA": lambda at: _gga(at) + sentence(f"GPZDA,{at:%H%M%S}.00,{at:%d,%m,%Y},00,00"),
        "NMEA, on 0.3 s": lambda at: _gga(at, fraction=".30") + _rmc(at, fraction=".30"),
        "NMEA, void": lambda at: sentence(f"GPRMC,{at:%H%M%S}.00,V,,,,,,,{at:%d%m%y},,,N"),
        "NMEA, 1024 weeks back": lambda at: _gga(at - back) + _rmc(at - back),
        "RTK": _rtk,
        "u-blox, PUBX": lambda at: pubx + _gga(at, talker="GN") + _rmc(at, talker="GN", mode=",A,V"),
        "u-blox, UBX": _solution,
        "u-blox, UBX and NMEA": lambda at: _rmc(at) + _solution(at),
        "u-blox, RTCM3 between": lambda at: _solution(at) + between,
        "u-blox, other UBX": lambda at: _solution(at) + encode.ubx((0x02, 0x15), bytes(16 + 32 * 40)),
        "u-blox, no fix": lambda at: _solution(at, utc_resolved=False, fix_type=0, fix_ok=False),
    }
