# SPDX-License-Identifier: Apache-2.0
"""Real seconds of 125,000,000 cycles, each of them run."""

from __future__ import annotations

import pytest

from tests.loop.test_loop import assert_same_trace, assert_within_bound
from tests.loop.world import World

pytestmark = pytest.mark.long


def test_ten_seconds_edge_by_edge_are_those_that_leap():
    """The same world once with every edge run and once with idle time skipped: the same to the bit."""
    worlds = []
    for leaping in (False, True):
        world = World(seed=31, leaping=leaping, baud=38_400)
        world.run(11)
        assert_same_trace(world)
        worlds.append(world)
    plain, leapt = worlds
    assert plain.card.counts.leapt == 0 and plain.card.counts.cycles > 11 * 125_000_000
    assert plain.log == leapt.log
    assert plain.errors_ns == leapt.errors_ns
    assert plain.card.counts[:3] == leapt.card.counts[:3]
    assert plain.card.counts.awake == leapt.card.counts.awake


def test_ten_minutes():
    """Idle time skipped: lock, an outage, back, a step refused; the host build agrees throughout."""
    world = World(seed=32)
    world.run(120)
    assert world.log[-1].output["state"] == 2
    assert_within_bound(world, 15)
    world.run(60, pulses=False)
    assert_within_bound(world, 1000)
    world.run(120)
    assert world.log[-1].output["state"] == 2
    assert_within_bound(world, 15)
    world.run(60, shift_ns=5000)
    assert max(abs(error) for error in world.errors_ns[-600:]) < 1000
    world.run(240)
    assert_same_trace(world)
    assert world.firmware.counts().late_outputs == 0
