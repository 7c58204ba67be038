# SPDX-License-Identifier: Apache-2.0
"""A PHC without a pulse follows the kernel's clock; the truth is the stand-in's."""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.leap import UtcOffset
from twinstamp.phc.discipline import Discipline
from twinstamp.phc.follow_clock import Comparer, Comparison, FollowPulses, PpsPulses, SystemReference
from twinstamp.phc.record import ClockRecord
from twinstamp.phc.standin import NicModel, StandIn
from twinstamp_gps.models import OSCILLATORS
from twinstamp_gps.simulated import SimulatedReceiver

SYSTEM_NS = 700  # the kernel's clock is so far from UTC, and says 2000
PRECISE = NicModel(precise=True)
EXTENDED = NicModel()
PLAIN = NicModel(extended=False)


def _run(nic, *, seconds=600, known=True, synchronised=lambda s: True):
    standin = StandIn(OSCILLATORS["tcxo"], None, nic=nic, seed=1030, system_ns=SYSTEM_NS)
    reference = SystemReference(
        lambda: UtcOffset(37, known), lambda: (synchronised(standin.now_fs / 1e15), 2000)
    )
    last: list[ClockRecord] = []
    pulses = FollowPulses(standin, reference)
    discipline = Discipline(
        standin, standin, pulses, number=0, publish=lambda record: last.__setitem__(slice(0, 1), [record])
    )
    rows = []

    def sample():
        if last:
            bound = last[0].bound_ns if last[0].valid(standin.boot_ns()) else np.nan
            rows.append((standin.now_fs / 1e15, standin.error_ns(), bound, last[0].state))

    standin.every(0.1, sample, start_s=1.05)
    discipline.run(seconds)
    return np.array(rows), pulses.quantum_ps


@pytest.mark.parametrize(
    ("nic", "quantum_ns", "off_ns"),
    [(PRECISE, (1, 4), 40), (EXTENDED, (250, 700), 100), (PLAIN, (900, 2500), 300)],
)
def test_it_follows_the_kernels_clock_as_well_as_it_is_compared(nic, quantum_ns, off_ns):
    found, quantum_ps = _run(nic)
    assert quantum_ns[0] <= quantum_ps / 1000 <= quantum_ns[1]
    settled = found[found[:, 0] > 100]
    assert (settled[:, 3] == 2).all()
    # The kernel's own error stays in it, and in the bound.
    assert np.abs(settled[:, 1] - SYSTEM_NS).max() < off_ns
    assert (np.abs(settled[:, 1]) <= settled[:, 2]).all()
    assert (settled[:, 2] >= 2000).all()


class _Pps:
    """The kernel's pulse of a receiver: an interrupt is late by 2 to 12 us."""

    def __init__(self, standin, receiver, seconds):
        self._standin, self._last = standin, (0, 0)
        random = np.random.default_rng(1031)
        for one in receiver.seconds(seconds):
            for edge in one.edges:
                late_fs = round(2e9 + 1e10 * random.random())
                standin.at_fs(max(standin.now_fs, edge.rise_fs + late_fs), self._seen)

    def _seen(self):
        self._last = (self._last[0] + 1, self._standin.real_ns())

    def fetch(self):
        return self._last


def test_a_pulse_that_the_kernel_stamps():
    """Messages from the receiver, pulses from /dev/ppsN: the kernel's clock itself may be anywhere."""
    seconds = 900
    standin = StandIn(
        OSCILLATORS["tcxo"],
        SimulatedReceiver("f9t", seed=1031),
        seed=1031,
        nic=EXTENDED,
        system_ns=987_654_321,
    )
    pps = _Pps(standin, SimulatedReceiver("f9t", seed=1031), seconds)
    last: list[ClockRecord] = []
    discipline = Discipline(
        standin,
        standin,
        PpsPulses(standin, pps, latency_ns=14_000),
        number=0,
        publish=lambda record: last.__setitem__(slice(0, 1), [record]),
    )
    rows = []

    def sample():
        if last:
            bound = last[0].bound_ns if last[0].valid(standin.boot_ns()) else np.nan
            rows.append((standin.now_fs / 1e15, standin.error_ns(), bound, last[0].state))

    standin.every(0.1, sample, start_s=1.05)
    discipline.run(seconds - 5)
    found = np.array(rows)
    settled = found[found[:, 0] > 300]
    assert (settled[:, 3] == 2).mean() > 0.99
    assert np.sqrt((settled[:, 1] ** 2).mean()) < 3000
    known = np.isfinite(found[:, 2])
    assert (np.abs(found[known, 1]) <= found[known, 2]).all()
    assert settled[:, 2].min() >= 7000  # half of what the interrupt may be late by


def test_an_interrupt_that_cannot_be():
    with pytest.raises(ConfigError, match="give 0 to 500000"):
        PpsPulses(StandIn(OSCILLATORS["tcxo"], None), None, latency_ns=1e9)


def test_a_kernel_that_loses_its_daemon_is_holdover():
    found, _ = _run(EXTENDED, seconds=500, synchronised=lambda s: not 300 < s < 400)
    during = found[(found[:, 0] > 310) & (found[:, 0] < 399)]
    assert (during[:, 3] == 3).all()
    assert (np.abs(during[:, 1]) <= during[:, 2]).all()
    assert found[-1, 3] == 2


def test_without_a_known_offset_there_is_no_bound():
    found, _ = _run(EXTENDED, seconds=120, known=False)
    assert np.isnan(found[:, 2]).all()


def test_a_phc_that_cannot_be_compared():
    class Mute(StandIn):
        def offsets(self, *, extended):
            raise OSError(95, "Operation not supported")

    with pytest.raises(DeviceError, match="cannot be compared"):
        Comparer(Mute(OSCILLATORS["tcxo"], None, nic=EXTENDED))


def test_the_closest_look():
    assert Comparer._closest([(0, 500, 100), (1000, 1510, 1020)]) == Comparison(1010, 1510, 10)
