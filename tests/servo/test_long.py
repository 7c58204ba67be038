# SPDX-License-Identifier: Apache-2.0
"""The figures of docs/clock.md: 64 runs of 5.5 h each, pooled (make test-long)."""

from __future__ import annotations

import pytest

from tests.servo.scenarios import FAULTS, OUTAGES, PAIRS, report

pytestmark = pytest.mark.long
SEEDS = range(64)
IDS = ["+".join(pair) for pair in PAIRS]


def covered(found):
    assert all(share >= 0.999 for share in found["coverage"].values()), found["coverage"]
    assert found["ran_back"] == 0
    assert found["worst_rate_ppb"] <= 5000


@pytest.mark.parametrize(
    ("pair", "rms_ns", "p99_9_ns"),
    [(PAIRS[0], 5, 15), (PAIRS[1], 9.5, 30), (PAIRS[2], 5.5, 18), (PAIRS[3], 4, 13)],
    ids=IDS,
)
def test_locked(pair, rms_ns, p99_9_ns):
    found = report(SEEDS, *pair)
    assert found["rms_ns"] <= rms_ns
    assert found["p99_9_ns"] <= p99_9_ns
    assert found["median_bound_ns"] <= 2 * found["p99_9_ns"]
    assert all(seconds <= 60 for seconds in found["time_to_lock_each_s"])
    covered(found)


@pytest.mark.parametrize(
    # The best of any predictor is 52 ns and 0.91 us with the published floor of 0.6 ppb (docs/clock.md); the
    # aim of 50 ns and 0.8 us is met at 0.4 ppb.
    ("flicker_ppb", "minute_ns", "thousand_ns"),
    [(0.6, 57, 1000), (0.4, 50, 800)],
)
def test_holdover(flicker_ppb, minute_ns, thousand_ns):
    found = report(SEEDS, faults=OUTAGES, flicker_ppb=flicker_ppb)
    rows = {row["after_s"]: row for row in found["holdover"]}
    assert rows[60]["samples"] == rows[1000]["samples"] == 512
    assert rows[60]["rms_ns"] <= minute_ns
    assert rows[1000]["rms_ns"] <= thousand_ns
    covered(found)


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
@pytest.mark.parametrize("told", [True, False], ids=["told", "unknown"])
def test_outages_with_temperature_are_covered(pair, told):
    covered(report(range(32), *pair, faults=OUTAGES, temperature_c=1.0, told=told))


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_covered(name, pair):
    if name == "pull" and pair[0].startswith("xo"):
        pytest.skip("20 ns/s is hidden in this oscillator's own wander (docs/clock.md)")
    covered(report(range(16), *pair, faults=FAULTS[name].faults))
