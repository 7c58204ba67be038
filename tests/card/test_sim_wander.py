# SPDX-License-Identifier: Apache-2.0
"""Oscillator wander: its statistics, its repeatability, and stamps of a wandering card against C(t)."""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp.card.sim import frames
from twinstamp.errors import ConfigError

from tests.card.sending import collect, stamp_errors_ns

INTERVAL = 1024


def periods(simulated, n: int) -> np.ndarray:
    """Fractional frequency of the core clock, one value per interval."""
    out = []
    for _ in range(n):
        simulated.run(INTERVAL)
        out.append(float(8_000_000 / simulated.clock_truth("core").period_fs - 1))
    return np.array(out)


def test_white_and_walk_have_the_size_asked_for(make_card):
    n = 400
    root = (INTERVAL * 8e-9) ** 0.5
    simulated, _ = make_card()
    simulated.set_wander("core", white_ppb=0.5, seed=3)
    y = periods(simulated, n)
    assert y.std() * root * 1e9 == pytest.approx(0.5, rel=5 / (2 * n) ** 0.5)
    assert abs(y.mean()) < 5 * y.std() / n**0.5
    simulated.set_wander("core", walk_ppb=2000, seed=3)
    y = periods(simulated, n)
    assert np.diff(y).std() / root * 1e9 == pytest.approx(2000, rel=5 / (2 * n) ** 0.5)
    simulated.set_wander("core")
    assert set(periods(simulated, 3)) == {0.0}


def test_same_seed_same_edges(make_card):
    truths = []
    for seed in (5, 5, 6):
        simulated, _ = make_card()
        simulated.set_clock("rx0", ppb=30_000)
        for clock in ("core", "rx0"):
            simulated.set_wander(clock, white_ppb=1, walk_ppb=500, seed=seed)
        simulated.run(20_000)
        truths.append([simulated.clock_truth(clock) for clock in ("core", "rx0", "rx1")])
    assert truths[0] == truths[1]
    assert truths[0][:2] != truths[2][:2]


def test_stamps_of_wandering_clocks(make_card):
    simulated, card = make_card(block_log2=20)
    simulated.set_wander("core", white_ppb=5, walk_ppb=10_000, seed=1)
    for port, ppb in enumerate((100_000, -100_000, 1_000, 0)):
        simulated.set_clock(f"rx{port}", ppb=ppb)
        simulated.set_wander(f"rx{port}", white_ppb=5, walk_ppb=10_000, seed=10 + port)
    card.start()
    n = 1500
    for port in range(4):
        simulated.send(port, frames([bytes(range(60))] * n))
    got = collect(card)
    for port in range(4):
        errors = stamp_errors_ns(got[port].stamp_q32, simulated.truth(port))
        constant = card.read(f"port[{port}].rx_constant") * 1e9 / 2**32
        assert len(errors) == n
        assert np.abs(errors - constant).max() < 4 + 0.05 + 0.24  # the flip-flop's window, the stamp's unit
    assert card.drops() == (0, 0, 0, 0)


def test_a_cable_takes_the_wander_along(make_card):
    left, sender = make_card(seed=1)
    right, receiver = make_card(seed=2)
    left.connect(0, right, 1, delay_ns=100)
    left.set_wander("core", white_ppb=5, walk_ppb=5000, seed=9)
    receiver.start()
    sender.start()
    sent = [bytes([i]) * 60 for i in range(40)]
    for frame in sent:
        sender.send(0, frame)
    assert collect(receiver)[1].frames == sent
    left.run_until(right.now_fs)
    ahead = left.clock_truth("core").last_fs + 100_000_000 - right.clock_truth("rx1").last_fs
    whole = round(ahead / 8e6)
    assert abs(ahead - whole * 8e6) < whole * 100


def test_impossible_wander_is_refused(make_card):
    simulated, _ = make_card()
    with pytest.raises(ConfigError, match="wander"):
        simulated.set_wander("core", white_ppb=-1)
    with pytest.raises(ConfigError, match="no clock"):
        simulated.set_wander("rx4", white_ppb=1)
