# SPDX-License-Identifier: Apache-2.0
"""The shipped firmware on the RTL, with receivers, hosts and lines that do what they should not."""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp_gps.simulation import EVENTS

from tests.loop.test_loop import LOCKED, assert_same_trace
from tests.loop.world import World

COLD, ACQUIRING, HOLDOVER = 0, 1, 3
IN_TAI, IN_QERR, IN_FIX, IN_FIX_BEFORE = 1 << 4, 1 << 5, 1 << 9, 1 << 10
UNKNOWN = 0xFFFFFFFF


def locked(seed: int, **options) -> World:
    """A world whose clock has just locked: five good pulses are enough here."""
    world = World(seed=seed, **options)
    world.firmware.set("lock_pulses", 5)
    if options.get("messages") == "nmea":
        world.firmware.tell_utc_offset(37, 1 << 39)
    for _ in range(20):
        world.run(1)
        if world.log[-1].output["state"] == LOCKED:
            return world
    raise AssertionError("not locked")


def events(world: World, steps: int) -> set[str]:
    """Of the last steps."""
    seen = 0
    for entry in world.log[-steps:]:
        seen |= entry.output["events"]
    return {name for bit, name in enumerate(EVENTS) if seen >> bit & 1}


def states(world: World, steps: int) -> list[int]:
    return [entry.output["state"] for entry in world.log[-steps:]]


@pytest.mark.parametrize(
    "how",
    [
        {"messages": False},
        {"fixed": False},
    ],
    ids=["no message", "no fix"],
)
def test_pulses_that_nobody_vouches_for_do_not_count(how):
    """The lock lasted for hours, and a pull of the pulses went into it."""
    world = locked(41)
    world.run(8)
    for second in range(12):
        world.run(1, shift_ns=30.0 * (second + 1), **how)
    # One message more than a second old is the last word: the pulse behind it counts, no other.
    assert [bool(entry.output["events"] >> 14 & 1) for entry in world.log[-12:]] == [False] + [True] * 11
    assert states(world, 12)[:3] == [LOCKED] * 3 and states(world, 12)[4:] == [HOLDOVER] * 8
    assert world.card.field("clock.control.locked") == 0
    assert np.abs(world.errors_ns[-10:]).max() < 150  # not the 360 ns of the pulses
    assert world.outside() == 0
    assert_same_trace(world)


def test_a_message_lost_costs_nothing():
    world = locked(42)
    for _ in range(3):
        world.run(1, messages=False)
        world.run(1)
    assert states(world, 6) == [LOCKED] * 6
    assert "unvouched" not in events(world, 6)
    flags = [entry.input["flags"] & (IN_FIX | IN_FIX_BEFORE) for entry in world.log[-6:]]
    assert flags == [IN_FIX_BEFORE, IN_FIX] * 3


def test_nmea_vouches_too():
    world = locked(43, messages="nmea")
    world.run(6, messages=False)
    assert states(world, 1) == [HOLDOVER]
    assert "unvouched" in events(world, 3)


def test_an_accuracy_that_grows_widens_the_bound():
    """A receiver that has lost its antenna says so by tAcc first."""
    world = locked(44)
    world.run(4)
    before = world.bounds_ns[-1]
    world.run(1, accuracy_ns=80)
    assert world.bounds_ns[-1] > max(before, 4 * 75)
    assert states(world, 1) == [LOCKED]
    world.run(2)
    assert world.bounds_ns[-1] < before + 5


def test_a_second_cold_start_is_as_careful_as_the_first():
    """The receiver named seconds 1 s wrong after the second one, and the clock stayed so, bound 49 ns."""
    world = locked(45)
    assert world.outside() == 0
    world.firmware._card.write_fields("clock.control", locked=0)
    world.firmware._card.load_time_q32(12345 << 32)
    world.run(1, name_off_s=1)
    assert states(world, 1) == [COLD]
    world.run(4, name_off_s=1)  # more would be believed: five pulses lock here
    world.run(22)
    assert "loaded" in events(world, 22)
    assert states(world, 1) == [LOCKED]
    assert abs(world.errors_ns[-1]) < 100
    assert world.outside() == 0
    assert_same_trace(world)


LOADS = [(COLD, 10), (LOCKED, 0.000_01), (HOLDOVER, -10)]
MORE_LOADS = [(state, s) for state in (COLD, LOCKED, HOLDOVER) for s in (10, -10, 0.000_01, -1e5, 1e6)]


@pytest.mark.parametrize(
    ("state", "seconds"), LOADS + [pytest.param(*load, marks=pytest.mark.long) for load in MORE_LOADS]
)
def test_a_load_by_the_host_is_seen(state, seconds):
    """In holdover the bound stayed; a load backwards let the watchdog bite."""
    world = World(seed=46) if state == COLD else locked(46)
    world.run(2, pulses=state != HOLDOVER, messages=state != HOLDOVER)
    if state == HOLDOVER:
        world.run(3, pulses=False, messages=False)
    assert states(world, 1) == [state]
    card = world.firmware._card
    card.write_fields("clock.control", locked=0)
    card.load_time_q32((card.clock().time_q32 + round(seconds * 2**32)) % 2**64)
    world.card.run(2_000_000)  # less than two ticks of 10 ms
    assert world.card.read("clock.bound") == UNKNOWN
    assert world.card.field("clock.control.state") == COLD
    world.run(2, pulses=False, messages=False)
    assert "moved" in events(world, 3)
    assert states(world, 2) == [COLD] * 2
    assert world.card.read("clock.bound") == UNKNOWN
    assert not world.card.field("cpu.status.failed")
    world.run(9)
    assert abs(world.errors_ns[-1]) < 1000
    assert world.outside() == 0
    assert_same_trace(world)


@pytest.mark.parametrize("what", ["rate", "slew"])
def test_another_hand_on_rate_and_slew_is_seen(what):
    world = locked(47)
    card = world.firmware._card
    if what == "rate":
        card.set_rate_ppb(300.0)
    else:
        card.slew_ns(100_000, ppm=1)
    world.run(1)
    assert states(world, 1) == [COLD] and "moved" in events(world, 1)
    world.run(12)
    assert states(world, 1) == [LOCKED]
    assert abs(world.errors_ns[-1]) < 100
    assert_same_trace(world)


US, MS = 1e3, 1e6
DISTURBANCES = [
    (-10 * US,), (-1 * US,), (-100 * US,), (-1 * MS,), (-50 * MS,), (10 * US,), (100 * US,), (1 * MS,),
    (50 * MS,), (200 * MS,), (800 * MS,), (-10 * US, 10 * US), (-3 * US, 3 * US),
    tuple(-4 * US * k for k in range(1, 13)), tuple(5 * US * k for k in range(-7, 8) if k),
]  # fmt: skip


def test_of_several_edges_the_one_at_the_right_time_counts():
    """The first one did."""
    world = locked(48)
    for disturbances in DISTURBANCES:
        world.run(2, disturbances_ns=disturbances)
        for entry in world.log[-2:]:
            assert entry.output["state"] == LOCKED, disturbances
            assert abs(entry.output["innovation_ps"]) < 30_000, disturbances
            assert entry.input["flags"] & 1, disturbances
    world.run(1)
    assert "double" in events(world, 30)
    assert world.card.read("pps.queue_lost") == 0
    assert world.outside() == 0
    assert np.abs(world.errors_ns[-300:]).max() < 30
    assert_same_trace(world)


def test_a_cold_clock_does_not_choose_between_edges():
    world = World(seed=49)
    world.run(8, disturbances_ns=(-10 * US,))
    assert states(world, 8) == [COLD] * 8
    assert "double" in events(world, 3)
    world.run(5)
    assert states(world, 1) == [ACQUIRING]
    assert abs(world.errors_ns[-1]) < 100


@pytest.mark.parametrize("disturbances", [(), (-20 * MS,), (200 * MS,)])
def test_a_missing_pulse_costs_its_own_second_only(disturbances):
    """The pulse behind it had no name and no qErr, nor had the one behind an edge that was none."""
    world = locked(50)
    if disturbances:
        world.run(1, disturbances_ns=disturbances)
    else:
        world.run(1, pulses=False)
    world.run(1)
    assert world.log[-1].input["flags"] & (IN_TAI | IN_QERR) == IN_TAI | IN_QERR
    assert world.log[-1].output["state"] == LOCKED
    assert abs(world.log[-1].output["innovation_ps"]) < 15_000
    assert_same_trace(world)


@pytest.mark.long
def test_back_to_the_receiver_when_it_has_a_fix_again():
    world = locked(51)
    world.run(40)
    world.run(60, fixed=False, shift_ns=5000)
    assert states(world, 1) == [HOLDOVER]
    assert np.abs(world.errors_ns[-10:]).max() < 1000
    world.run(60)
    assert states(world, 1) == [LOCKED]
    assert world.outside() == 0
    assert_same_trace(world)
