# SPDX-License-Identifier: Apache-2.0
"""The loop closed over the simulated receiver of twinstamp_gps: its pulses and its bytes, with faults."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from twinstamp.card.clock_state import clock_state
from twinstamp.cli.clock_status import _rows
from twinstamp_gps.analysis import by_state
from twinstamp_gps.faults import parse_fault
from twinstamp_gps.log import LogWriter, read_log
from twinstamp_gps.simulated import SimulatedReceiver

from tests.loop.simulated_clock import FS
from tests.loop.test_loop import LOCKED, assert_same_trace
from tests.loop.world import START_TAI_S, World

SECONDS = 22
QERR_TAI = 1 << 4 | 1 << 5  # of a step: the second is named, and qErr is of its pulse


class Fed(World):
    """A World whose pulses and messages are a SimulatedReceiver's."""

    def play(self, receiver: SimulatedReceiver, seconds: int, log: LogWriter | None = None) -> None:
        """So many seconds of the receiver, up to 0.9 s after the last pulse. log: a sample after each."""
        for second in receiver.seconds(seconds):
            for edge in second.edges:
                self.card.pulse(self.start_fs + edge.rise_fs, edge.fall_fs - edge.rise_fs)
            for sent in second.transmissions:
                self.card.send(self.start_fs + sent.at_fs, sent.data, baud=sent.baud)
            for tenth in range(10):
                self.wander_ppb += self.rng.gauss(0, 0.01)
                self.card.set_period(self.ppb + self.wander_ppb + self.rng.gauss(0, 2.5))
                end = second.second * FS + tenth * FS // 10
                self.card.run_until(self.start_fs + end)
                truth = second.tai_s + Fraction(end - second.second * FS, FS)
                self.errors_ns.append(float(self.card.card_time(self.start_fs + end) - truth) * 1e9)
                self.bounds_ns.append(self.card.read("clock.bound"))
            self.fetch()
            if log is not None:
                state = clock_state(self.firmware._card)
                names = ("offset_ns", "bound_ns", "frequency_ppb", "qerr_ps")
                values = {name: state[name] for name in names}
                log.write(t_s=second.second, state=state["state_number"], **values)


@pytest.mark.parametrize("model", ["f9t", pytest.param("m8t", marks=pytest.mark.long)])
def test_locks_to_the_simulated_receiver(model: str, tmp_path: Path) -> None:
    world = Fed(seed=21, baud=115_200)
    with open(tmp_path / "clock.log", "w", encoding="utf-8") as file:
        log = LogWriter(file, {"receiver": model})
        world.play(SimulatedReceiver(model, seed=5, start_tai_s=START_TAI_S), SECONDS, log)
    played = list(SimulatedReceiver(model, seed=5, start_tai_s=START_TAI_S).seconds(SECONDS))
    assert world.log[-1].output["state"] == LOCKED
    counts = world.firmware.counts()
    assert (counts.pulses, counts.bad_checksum, counts.bad_value) == (SECONDS, 0, 0)
    # All that is sent is whole, NAV-SAT too, which the firmware does not read. The mailbox is written at each
    # step, which for the last second may come before its messages have ended.
    sent = [len(second.transmissions) for second in played]
    assert sum(sent[:-1]) < counts.ubx <= sum(sent)
    assert counts.skipped == 0 and not any(counts.refused.values())
    assert world.outside() == 0
    assert np.abs(world.errors_ns[-30:]).max() < (25 if model == "f9t" else 60)
    # qErr is taken for the pulse it belongs to: what the servo gets is the truth.
    truth = {second.tai_s: second.qerr_ps for second in played}
    told = {
        e.input["tai_s"]: e.input["qerr_ps"] for e in world.log if e.input["flags"] & QERR_TAI == QERR_TAI
    }
    assert len(told) >= SECONDS - 2
    assert all(truth[second] == qerr_ps for second, qerr_ps in told.items())
    assert_same_trace(world)
    # The log that `clock status --log` would have kept: what the servo said at its last step.
    kept = read_log(str(tmp_path / "clock.log"))
    steps = world.log[-len(kept) :]
    assert kept.columns["state"].tolist()[2:] == [step.output["state"] for step in steps[2:]]
    assert kept.columns["qerr_ps"].tolist()[2:] == [s.qerr_ps for s in played[2:]]
    locked = kept.columns["state"] == LOCKED
    offsets = [step.output["offset_ps"] / 1000 for step in steps]
    assert np.allclose(kept.columns["offset_ns"][2:], offsets[2:], atol=1e-3)
    assert np.abs(kept.columns["offset_ns"][locked]).max() < 60
    assert by_state(kept)["locked"].samples == locked.sum() > 0


@pytest.mark.long
def test_faults_of_the_line_and_the_pulse() -> None:
    """No wrong second, nothing outside its bound, whatever comes."""
    faults = [
        parse_fault(text)
        for text in ("message-corrupt@20+4", "double@25", "early@27", "message-lost@29+2", "outlier@32:900ns",
                     "missing@34", "message-late@36", "outage@38+3", "step@43+2:5us")
    ]  # fmt: skip
    world = Fed(seed=22, baud=115_200)
    world.play(SimulatedReceiver("f9t", seed=6, start_tai_s=START_TAI_S, faults=faults), 48)
    assert world.outside() == 0
    named = [e.input["tai_s"] - START_TAI_S for e in world.log if e.input["flags"] & 1 << 4]
    assert len(named) > 30
    for entry in world.log:
        if entry.input["flags"] & 1 << 4 and entry.output["state"] >= LOCKED:
            assert -0.1 < entry.input["now_q32"] / 2**32 - entry.input["tai_s"] < 1.1
    assert world.log[19].output["state"] == LOCKED
    assert_same_trace(world)


@pytest.mark.long
def test_leap_second() -> None:
    """TAI goes on without a jump; the offset is 38 from the leap second on, and 37 for times before it."""
    receiver = SimulatedReceiver("f9t", seed=7, faults=[parse_fault("leap@22")])
    world = Fed(seed=23, baud=115_200)
    world.play(receiver, 20)
    assert world.card.field("clock.utc_offset.s") == 37
    epoch = world.card.read("clock.epoch")
    world.play(receiver, 6)
    offset = world.firmware.counts().utc
    now_s = world.card.read("clock.now") >> 32
    assert offset.known and (offset.at(now_s - 6), offset.at(now_s)) == (37, 38)
    assert offset.leap_tai_s == world.card.read("clock.leap_second") == receiver._leap_tai_s + 1
    assert world.card.read("clock.epoch") == epoch
    assert world.outside() == 0
    assert world.log[-1].output["state"] == LOCKED


def test_receiver_that_is_1024_weeks_back() -> None:
    """Its second is named as it is, not 20 years ago; the host makes the same of its messages."""
    receiver = SimulatedReceiver("f9t", seed=8, start_tai_s=START_TAI_S, week_rollovers=1)
    world = Fed(seed=24, baud=115_200)
    world.play(receiver, 6)
    named = [entry.input["tai_s"] for entry in world.log if entry.input["flags"] & 1 << 4]
    assert named == [START_TAI_S + 1 + k for k in range(5)]
    assert clock_state(world.firmware._card)["messages"]["refused"] == world.firmware.counts().refused


def test_false_start_of_a_long_message() -> None:
    """A header of 4096 bytes before a second's messages: they wait for silence, and name it yet."""
    world = World(seed=25)
    world.run(4)
    at = world.fs(START_TAI_S + world.second)
    world.card.send(at + FS // 25, b"\xb5\x62\x02\x15\x00\x10", baud=world.baud)
    world.run(2)
    named = [entry.input["tai_s"] - START_TAI_S for entry in world.log if entry.input["flags"] & 1 << 4]
    assert named[-2:] == [4, 5]
    counts = world.firmware.counts()
    assert (counts.cut_short, counts.skipped, counts.no_room) == (1, 6, 0)
    rows = dict(_rows(clock_state(world.firmware._card), None))
    assert rows["card received"] == f"{counts.ubx} ubx, 6 skipped" and counts.ubx == 18
    assert rows["card refused"] == "1 cut_short"
