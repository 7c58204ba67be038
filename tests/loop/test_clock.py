# SPDX-License-Identifier: Apache-2.0
"""The RTL's clock against the one that the servo's simulation has, and loads by the firmware."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from twinstamp.card import Card
from twinstamp.errors import DeviceError
from twinstamp_gps import _servo

from tests.loop.simulated_clock import FS, SimulatedClock
from tests.loop.world import World

NOMINAL_Q72 = 0x225C17D04DAD
OUT_LOAD, OUT_SLEW = 2, 4


class Both:
    """The same orders to both clocks; they are compared over spans of time."""

    def __init__(self, ppb: float) -> None:
        self.rtl = SimulatedClock(seed=1)
        self.rtl.set_period(ppb)
        self.card = Card(self.rtl)
        self.model = _servo.Card({"offset_ppb": ppb}, 1)
        self.begin_fs = self.rtl.counts.now_fs
        self.now_fs = 0
        self.increment_q72 = NOMINAL_Q72
        self.apart_s = self._apart_s()

    def _apart_s(self) -> Fraction:
        second, rest_fs = divmod(self.now_fs, FS)
        model = Fraction(self.model.now_q32(second, rest_fs / 1e6), 2**32)
        return self.rtl.card_time(self.begin_fs + self.now_fs) - model

    def run(self, seconds: float) -> None:
        """Advances both; they stay together to a nanosecond."""
        before = self.apart_s
        to_fs = self.now_fs + round(seconds * FS)
        self.rtl.run_until(self.begin_fs + to_fs)
        self.model.advance((to_fs - self.now_fs) / FS)
        self.now_fs = to_fs
        self.apart_s = self._apart_s()
        assert abs(self.apart_s - before) < 1e-9

    def rate(self, ppb: float) -> None:
        self.increment_q72 = round(NOMINAL_Q72 * (1 + ppb / 1e9))
        self.card.write("clock.increment", self.increment_q72)
        self.model.write(increment_q72=self.increment_q72)

    def slew(self, ns: float, ppm: float) -> None:
        self.card.slew_ns(ns, ppm=ppm)
        amount, step = self.rtl.read("clock.slew_amount"), self.rtl.read("clock.slew_step")
        self.model.write(
            increment_q72=self.increment_q72,
            slew_amount_q64=amount - (amount >> 63 << 64),
            slew_step_q64=step,
            flags=OUT_SLEW,
        )

    def load(self, seconds: int) -> None:
        self.card.load_time_q32((seconds << 32) + self.rtl.read("clock.now"))
        self.model.write(increment_q72=self.increment_q72, load_delta_q32=seconds << 32, flags=OUT_LOAD)
        # The host's way to the register: a few microseconds at most.
        before, self.apart_s = self.apart_s, self._apart_s()
        assert abs(self.apart_s - before) < 5e-6


@pytest.mark.parametrize("seed", range(3))
def test_the_model_of_the_clock_is_the_rtl(seed):
    """After a load the RTL went on with a slew that was meant for the old time, the model did not."""
    rng = random.Random(seed)
    both = Both(rng.uniform(-2000, 2000))
    both.run(0.1)
    for _ in range(12):
        both.slew(rng.choice((-1, 1)) * rng.uniform(1e3, 1e5), rng.choice((1, 5, 50)))
        both.run(0.05)
        kind = rng.choice(("load", "rate", "wait", "refused"))
        if kind == "load":
            both.load(rng.randrange(-3, 1000))
            assert both.rtl.read("clock.slew_left") == 0 and both.model.slew_left_q64 == 0
        elif kind == "rate":
            both.rate(rng.uniform(-50_000, 50_000))
        elif kind == "refused":
            both.card.write_fields("clock.control", locked=1)
            with pytest.raises(DeviceError, match="refused"):
                both.card.load_time_q32(1)
            both.card.write_fields("clock.control", locked=0)
        both.run(rng.uniform(0.01, 0.3))


def test_no_step_of_a_slew_outlives_a_load():
    """To the bit: behind a load, card time is what was loaded and whole increments."""
    clock = SimulatedClock()
    clock.write("clock.slew_step", (1 << 36) - 1)
    clock.write("clock.slew_amount", 1 << 62)
    clock.run(50)
    assert clock.field("clock.status.slewing")
    clock.write("clock.load_time", 77 << 32)
    clock.write("clock.control", 1)
    clock.run(10)
    assert clock.read("clock.slew_left") == 0
    counts = clock.counts
    since = clock.card_time(counts.now_fs) - 77
    assert since > 0 and (since * 2**72) % NOMINAL_Q72 == 0


@pytest.mark.parametrize(("ppb", "messages"), [(1500.0, "ubx"), (-9000.0, "ubx"), (12_000.0, "nmea")])
def test_a_load_lands_where_it_should(ppb, messages):
    """0.77 us beside it, and the pulse's age times the oscillator's error: up to 0.4 s x 12 ppm."""
    world = World(seed=61, ppb=ppb, messages=messages)
    if messages == "nmea":
        world.firmware.tell_utc_offset(37, 1 << 39)
    while not world.card.read("clock.epoch"):
        world.run(1)
        assert world.second < 10
    landed = np.array([error for error in world.errors_ns[-10:] if abs(error) < 1e9])
    assert len(landed) >= 3
    # The pulse is off by 8 ns, the rate by twice that in two seconds, half of which matters, and a cycle.
    assert np.abs(landed).max() < 8 + 8 / 2 + 8
