# SPDX-License-Identifier: Apache-2.0
"""The discipline against the stand-in: the program's own loop, the truth beside it. Seeds from 1000 on were
never used while it was built; test_long.py has 64 of them."""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.phc.discipline import Discipline, PinPulses, Step, servo_config
from twinstamp.phc.figures import Scene, figures, run
from twinstamp.phc.record import STATES, ClockRecord
from twinstamp.phc.standin import NICS, StandIn
from twinstamp_gps.faults import parse_fault
from twinstamp_gps.models import OSCILLATORS
from twinstamp_gps.simulated import SimulatedReceiver

COLD, ACQUIRING, LOCKED, HOLDOVER, DISPUTED, FAILED, STOPPED = range(7)


def covered(found):
    known = np.isfinite(found.bound_ns)
    return float((np.abs(found.true_error_ns) <= found.bound_ns)[known].mean())


def scene(*faults, **values):
    return Scene(faults=[parse_fault(fault) for fault in faults], **values)


# An XO and an M8T leave 9.5 ns on the card's 1 ns grid (tests/servo); a grid of 40 ns is 11.5 ns rms.
@pytest.mark.parametrize(
    ("nic", "oscillator", "receiver", "most_ns"),
    [
        ("i226", "tcxo", "f9t", 6),
        ("i226", "xo-i225", "f9t", 8),
        ("i210", "xo-cm4", "m8t", 12),
        ("i210-40", "xo-i225", "m8t", 20),
        ("i226", "tcxo", "nmea", 20),
    ],
)
def test_locked(nic, oscillator, receiver, most_ns):
    found = figures(scene(nic=nic, oscillator=oscillator, receiver=receiver, seconds=1500), [1000, 1001])
    assert 2 <= found["rms_ns"] <= most_ns
    assert found["median_bound_ns"] <= 150
    assert all(share is None or share >= 0.999 for share in found["coverage"].values())
    # As the card: 16 good pulses after those that set time.
    assert all(18 <= at <= 60 for at in found["locked_at_s"])


def test_a_stopped_pin_is_holdover_and_covered():
    found = run(scene("missing@900+600:1", oscillator="tcxo", seconds=2000), 1002)
    before, after = found.t_s < 899, (found.t_s > 910) & (found.t_s < 1499)
    assert (found.state[after] == HOLDOVER).all()
    assert np.isfinite(found.bound_ns[after]).all()
    assert found.bound_ns[after][-1] > 3 * found.bound_ns[before][-1]
    assert covered(found) >= 0.999
    assert found.state[-1] == LOCKED


def test_an_outage_is_holdover_and_covered():
    found = run(scene("outage@900+300", oscillator="xo-i225", seconds=1500), 1003)
    assert (found.state[(found.t_s > 910) & (found.t_s < 1199)] == HOLDOVER).all()
    assert covered(found) >= 0.999


def test_one_load_and_then_no_jump():
    steps: list[Step] = []
    found = run(scene(oscillator="xo-i225", seconds=600), 1004, on_step=steps.append)
    assert steps[-1].record.epoch == 1
    settled = found.true_error_ns[found.t_s > 60]
    assert np.abs(np.diff(settled)).max() < 30


@pytest.mark.parametrize("ns", [1_000_000_000, -37_000_000_000, 300_000, -123_456])
def test_a_phc_that_steps_is_seen_before_the_next_second(ns):
    found = run(
        scene(oscillator="tcxo", seconds=900),
        1005,
        prepare=lambda standin: standin.at(400.42, lambda: standin.step(ns)),
    )
    # Between two looks, 0.1 s, nobody can know; then the bound is gone until the clock is right again.
    known = np.isfinite(found.bound_ns)
    lying = known & (np.abs(found.true_error_ns) > found.bound_ns)
    assert lying.sum() <= 2
    assert found.t_s[lying].size == 0 or found.t_s[lying].max() < 400.55
    assert (~known[(found.t_s > 400.6) & (found.t_s < 402)]).all()
    assert (found.epoch[(found.t_s > 400.6) & (found.t_s < 402)] > found.epoch[found.t_s < 400][-1]).all()
    assert found.state[-1] == LOCKED
    assert abs(found.true_error_ns[-1]) < 100


def test_a_small_step_is_the_servos_to_see():
    """20 us are below what two clocks of a machine tell apart: the pulses say it, within seconds."""
    found = run(
        scene(oscillator="tcxo", seconds=900),
        1006,
        prepare=lambda standin: standin.at(400.42, lambda: standin.step(20_000)),
    )
    assert (found.state[(found.t_s > 405) & (found.t_s < 420)] != LOCKED).all()


def test_another_program_that_dials_ends_it():
    states: list[ClockRecord] = []

    def prepare(standin):
        standin.at(300.3, lambda: standin.set_frequency(standin.frequency() + 1))

    with pytest.raises(
        DeviceError, match=r"stand-in is steered by another program \(phc2sys, pid 7\).*end it"
    ):
        _run_with(prepare, states.append, holders="phc2sys, pid 7")
    failed = next(record for record in states if record.state == FAILED)
    assert failed.bound_ns == -1
    assert states[-1].state == STOPPED
    assert not states[-1].valid(states[-1].boot_ns)


def test_another_program_that_steers_already_is_not_fought():
    def prepare(standin):
        standin.every(1.0, lambda: standin.set_frequency(standin.frequency() + 7), start_s=0.9)

    states: list[ClockRecord] = []
    with pytest.raises(DeviceError, match="steered by another program"):
        _run_with(prepare, states.append)
    assert all(record.bound_ns == -1 for record in states)


def _run_with(prepare, publish, holders="", seconds=400):
    standin = StandIn(OSCILLATORS["tcxo"], SimulatedReceiver("f9t", seed=1007), seed=1007)
    discipline = Discipline(
        standin, standin, PinPulses(standin), number=3, publish=publish, holders=lambda: holders
    )
    prepare(standin)
    discipline.run(seconds)
    return standin, discipline


@pytest.mark.parametrize(
    "fault",
    ["step@600+200:2us", "pull@600+200:300", "leap@600+200:1", "fix-lost@600+200", "outlier@600+200:1us"],
)
def test_a_receiver_that_lies_is_covered(fault):
    found = run(scene(fault, oscillator="tcxo", seconds=1000), 1008)
    during = (found.t_s > 610) & (found.t_s < 795)
    if fault.startswith("pull"):  # 300 ns more each second is refused at once
        assert (found.state[during] != LOCKED).all()
    if not fault.startswith("leap"):
        assert (found.state[during] != LOCKED).any()
    assert covered(found) >= 0.999


def test_a_program_that_is_stopped_for_a_while():
    """Two seconds without a turn, in the middle of a slew: the record runs out, the servo is told, nothing
    lies."""

    def prepare(standin):
        wait = standin.wait

        def stopped(seconds):
            wait(seconds)
            if standin.now_fs / 1e15 > 500 and not stalled:
                stalled.append(True)
                wait(2.0)
                for _ in range(200):
                    standin._until(standin.now_fs + 10**13)

        stalled: list[bool] = []
        standin.wait = stopped

    found = run(scene(oscillator="xo-i225", seconds=700), 1009, prepare=prepare)
    during = (found.t_s > 501) & (found.t_s < 502)
    assert np.isnan(found.bound_ns[during]).all()
    assert covered(found) >= 0.999
    assert found.state[-1] == LOCKED


def test_what_is_left_when_it_ends():
    states: list[ClockRecord] = []
    standin, discipline = _run_with(lambda standin: None, states.append, seconds=120.3)
    assert states[-2].state == LOCKED
    assert states[-1].state == STOPPED
    assert states[-1].bound_ns == -1
    assert standin._channels[0] == 0  # stamps are off
    # The PHC runs on at its rate, without the slew: 100 s cost what the oscillator does.
    before = standin.error_ns()
    standin.wait(100)
    assert abs(standin.error_ns() - before) < 3000
    assert discipline.counts()["ubx"] > 200


def test_pins_and_channels():
    standin = StandIn(OSCILLATORS["tcxo"], None, nic=NICS["i210"], channel=1)
    PinPulses(standin, pin=2, channel=1).start()
    assert standin.pins == {2: (1, 1)}
    with pytest.raises(DeviceError, match="channel 1 on pin 9 takes no pulses: Invalid argument"):
        PinPulses(standin, pin=9, channel=1).start()
    with pytest.raises(DeviceError, match="no channel 7 for pulses: it has channels 0 to 2"):
        PinPulses(standin, channel=7).start()


def test_limits_by_what_the_driver_takes():
    assert servo_config({}, 62_499_999, 8000)["frequency_limit_ppb"] == 100_000
    assert servo_config({}, 50_000, 8000)["frequency_limit_ppb"] == 40_000
    with pytest.raises(ConfigError, match="at most 500 ppb"):
        servo_config({}, 500, 8000)


def test_names_by_states():
    assert STATES[LOCKED] == "locked"
    assert STATES[STOPPED] == "stopped"
