# SPDX-License-Identifier: Apache-2.0
"""What the tests of receivers share: noise that is known, streams, receivers on lines."""

from __future__ import annotations

from twinstamp_gps import encode
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
