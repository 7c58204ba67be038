# SPDX-License-Identifier: Apache-2.0
"""The closed loop: clock_card with the firmware, a GPS receiver's pulses and messages, an oscillator."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass, field
from fractions import Fraction

from pyubx2 import GET, UBXMessage
from twinstamp.card import Card
from twinstamp.card.firmware import Firmware, Step

from tests.loop.simulated_clock import FS, ROOT, SimulatedClock

FIRMWARE = ROOT / "build" / "firmware" / "twinstamp.bin"
GPS_EPOCH_S = 315_964_800  # 1980-01-06 in seconds of UTC since 1970
START_TAI_S = 1_820_000_000  # 2027-09-02, a moment after the leap seconds that the firmware knows
LEAP_S = 37


def civil(tai_s: int) -> tuple[int, int, int, int, int, int]:
    """UTC of a second of TAI, no leap second near."""
    import datetime

    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=tai_s - LEAP_S)
    return at.year, at.month, at.day, at.hour, at.minute, at.second


def gps(tai_s: int) -> tuple[int, int]:
    """Week and second of week of GPS."""
    return divmod(tai_s - 19 - GPS_EPOCH_S, 604_800)


def nav_pvt(tai_s: int, *, fixed: bool = True, accuracy_ns: int = 5) -> bytes:
    year, month, day, hour, minute, second = civil(tai_s)
    message = UBXMessage(
        "NAV", "NAV-PVT", GET, iTOW=gps(tai_s)[1] * 1000, year=year, month=month, day=day, hour=hour,
        min=minute, second=second, validDate=1, validTime=1, fullyResolved=1, tAcc=accuracy_ns, nano=0,
        fixType=5 if fixed else 0, gnssFixOk=int(fixed), numSV=20,
    )  # fmt: skip
    return bytes(message.serialize())


def tim_tp(tai_s: int, qerr_ps: int) -> bytes:
    week, tow_s = gps(tai_s)
    message = UBXMessage(
        "TIM", "TIM-TP", GET, towMS=tow_s * 1000, towSubMS=0, qErr=qerr_ps, week=week, timeBase=0, utc=1,
        timeRefGnss=0,
    )  # fmt: skip
    return bytes(message.serialize())


def nav_timels(tai_s: int) -> bytes:
    message = UBXMessage(
        "NAV", "NAV-TIMELS", GET, iTOW=gps(tai_s)[1] * 1000, srcOfCurrLs=2, currLs=LEAP_S - 19,
        srcOfLsChange=2, lsChange=0, timeToLsEvent=0, validCurrLs=1, validTimeToLsEvent=1,
    )  # fmt: skip
    return bytes(message.serialize())


def _checked(body: str) -> bytes:
    total = 0
    for c in body.encode():
        total ^= c
    return f"${body}*{total:02X}\r\n".encode()


def nmea_rmc(tai_s: int) -> bytes:
    year, month, day, hour, minute, second = civil(tai_s)
    date = f"{day:02}{month:02}{year % 100:02}"
    return _checked(f"GNRMC,{hour:02}{minute:02}{second:02}.00,A,4717.11,N,00833.91,E,0.0,,{date},,,A,V")


def nmea_zda(tai_s: int) -> bytes:
    year, month, day, hour, minute, second = civil(tai_s)
    return _checked(f"GNZDA,{hour:02}{minute:02}{second:02}.00,{day:02},{month:02},{year:04},00,00")


@dataclass
class World:
    """Runs the loop second by second. Errors of the receiver are white and quantised; the oscillator is off
    by ppb and wanders a little, ten times a second."""

    seed: int = 1
    ppb: float = 1500.0
    sawtooth_ns: float = 8.0
    messages: str = "ubx"  # or "nmea"
    leaping: bool = True
    baud: int = 460_800
    card: SimulatedClock = field(init=False)
    log: list[Step] = field(default_factory=list)
    errors_ns: list[float] = field(default_factory=list)
    bounds_ns: list[int] = field(default_factory=list)  # as the card said at the time

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.card = SimulatedClock(seed=self.seed, leaping=self.leaping)
        self.card.set_sampler(jitter_fs=20_000, window_fs=30_000)
        self.card.write("uart.divider", 125_000_000 // self.baud)
        self.firmware = Firmware(Card(self.card))
        self.firmware.load(FIRMWARE)
        self.second = 0
        self.start_fs = self.card.counts.now_fs + FS // 2
        self.wander_ppb = 0.0
        self.qerr_ps = self._qerr()

    def _qerr(self) -> int:
        return round(self.rng.uniform(-1000, 1000) * self.sawtooth_ns)

    def fs(self, tai_s: int) -> int:
        """Simulated time of a second of TAI."""
        return self.start_fs + (tai_s - START_TAI_S) * FS

    def run(
        self,
        seconds: int,
        *,
        pulses: bool = True,
        messages: bool = True,
        fixed: bool = True,
        accuracy_ns: int = 5,
        shift_ns: float = 0.0,
        name_off_s: int = 0,
        disturbances_ns: tuple[float, ...] = (),
    ) -> None:
        """So many seconds more, up to 0.9 s after the last pulse. shift_ns: of the pulses; name_off_s: of the
        seconds that messages name; fixed, accuracy_ns: what they say of the fix; disturbances_ns: other
        edges, counted from each pulse.
        """
        for _ in range(seconds):
            tai_s = START_TAI_S + self.second
            at = self.fs(tai_s)
            noise_fs = round(self.rng.gauss(0, 200_000))
            pulse_fs = at - self.qerr_ps * 1000 + noise_fs + round(shift_ns * 1e6)
            rises = [pulse_fs + round(ns * 1e6) for ns in disturbances_ns] + [pulse_fs] * pulses
            rises.sort()
            for rise, after in itertools.pairwise([*rises, rises[-1] + FS] if rises else []):
                self.card.pulse(rise, min(FS // 10, (after - rise) // 2))
            self.qerr_ps = self._qerr()
            named_s = tai_s + name_off_s
            if messages and self.messages == "ubx":
                pvt = nav_pvt(named_s, fixed=fixed, accuracy_ns=accuracy_ns)
                data = pvt + nav_timels(named_s) + tim_tp(named_s + 1, self.qerr_ps)
                self.card.send(at + FS // 20, data, baud=self.baud)
            elif messages:
                self.card.send(at + FS // 20, nmea_rmc(named_s) + nmea_zda(named_s), baud=self.baud)
            for tenth in range(10):
                self.wander_ppb += self.rng.gauss(0, 0.01)
                self.card.set_period(self.ppb + self.wander_ppb + self.rng.gauss(0, 2.5))
                end = at + tenth * FS // 10
                self.card.run_until(end)
                truth = self.card.card_time(end)
                self.errors_ns.append(
                    float(truth - (START_TAI_S * FS + end - self.start_fs) / Fraction(FS)) * 1e9
                )
                self.bounds_ns.append(self.card.read("clock.bound"))
            self.second += 1
            self.fetch()

    def outside(self) -> int:
        """Samples whose error is above the bound that the card said at the time."""
        unknown = 0xFFFFFFFF
        return sum(
            bound != unknown and abs(error) > bound
            for error, bound in zip(self.errors_ns, self.bounds_ns, strict=True)
        )

    def fetch(self) -> None:
        """Adds the steps since the last call to the log."""
        if self.card.read("cpu.mailbox"):
            self.log += self.firmware.steps(len(self.log))
