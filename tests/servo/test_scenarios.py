# SPDX-License-Identifier: Apache-2.0
"""The servo against noise and faults: short runs. test_long.py has the full ones."""

from __future__ import annotations

import numpy as np
import pytest

from tests.servo.scenarios import FAULTS, OUTAGES, PAIRS, report

COLD, ACQUIRING, LOCKED, HOLDOVER, DISPUTED, FAILED = range(6)


@pytest.mark.parametrize(
    ("pair", "rms_ns", "p99_9_ns"),
    [(PAIRS[0], 5, 15), (PAIRS[1], 9.5, 30), (PAIRS[2], 5.5, 18), (PAIRS[3], 4, 13)],
    ids=["+".join(pair) for pair in PAIRS],
)
def test_locked(pair, rms_ns, p99_9_ns):
    found = report(range(6), *pair, hours=2)
    # As promised, and not better than the receiver's wander and a second of the oscillator allow.
    assert found["rms_ns"] <= rms_ns
    assert found["rms_ns"] >= 2
    assert found["p99_9_ns"] <= p99_9_ns
    assert found["median_bound_ns"] <= 2 * found["p99_9_ns"]
    assert all(share >= 0.999 for share in found["coverage"].values())
    assert found["ran_back"] == 0
    assert found["worst_rate_ppb"] <= 5000
    # Sixteen good pulses after the three that set time: none faster than that.
    assert all(18 <= seconds <= 60 for seconds in found["time_to_lock_each_s"])


def test_holdover():
    found = report(range(4), faults=OUTAGES)
    rms = {row["after_s"]: row["rms_ns"] for row in found["holdover"]}
    # docs/clock.md: with a flicker floor of 0.6 ppb no predictor is better than 52 ns and 0.91 us.
    assert 35 <= rms[60] <= 70
    assert 500 <= rms[1000] <= 1400
    assert all(row["coverage"] >= 0.96 for row in found["holdover"])
    assert all(share >= 0.999 for share in found["coverage"].values())


def test_holdover_never_holds_the_last_value():
    """The frequency of the last second is off by 2.5 ppb: 150 ns in a minute. The servo's is not."""
    found = report(range(8), hours=2, faults=OUTAGES[:2], flicker_ppb=0.0)
    rms = {row["after_s"]: row["rms_ns"] for row in found["holdover"]}
    assert rms[60] <= 40


def test_averages_as_long_as_the_oscillator_allows():
    """Told nothing, it learns that an OCXO may be averaged for long, and that an XO may not."""
    ocxo = report(range(3), "ocxo", "f9t", hours=3, told=False, faults=["outage@9000+300"])
    xo = report(range(3), "xo-i225", "m8t", hours=3, told=False, faults=["outage@9000+300"])
    assert next(row["rms_ns"] for row in ocxo["holdover"] if row["after_s"] == 300) <= 40
    assert next(row["rms_ns"] for row in xo["holdover"] if row["after_s"] == 30) <= 500
    assert xo["rms_ns"] <= 9.5
    assert all(share >= 0.999 for share in (*ocxo["coverage"].values(), *xo["coverage"].values()))


def test_temperature_is_covered():
    found = report(range(4), faults=OUTAGES, temperature_c=1.0)
    assert all(share >= 0.999 for share in found["coverage"].values())


def test_temperature_is_covered_where_long_octaves_were_never_seen():
    """Found while it was built: outages every half hour leave the long octaves without samples, and in these
    two of 32 runs the error passed a bound that rested on settings alone."""
    found = report([9, 25], "ocxo", "f9t", faults=OUTAGES, temperature_c=1.0)
    assert all(share >= 0.999 for share in found["coverage"].values())


def test_ageing_is_seen_and_used():
    values = {"ageing_ppb_day": 40.0, "hours": 12, "faults": ["outage@39000+3600"]}
    found = report(range(2), "ocxo", "f9t", **values)
    assert found["events_s"].get("ageing", 0) > 0
    # 40 ppb a day run up 3 us in an hour.
    assert next(row["rms_ns"] for row in found["holdover"] if row["after_s"] == 3600) <= 1500
    assert found["coverage"]["holdover"] >= 0.999


@pytest.mark.parametrize("pair", PAIRS[:2], ids=["+".join(pair) for pair in PAIRS[:2]])
@pytest.mark.parametrize("name", FAULTS)
def test_fault(name, pair):
    if name == "pull" and pair == PAIRS[1]:
        pytest.skip("20 ns/s is hidden in this oscillator's own wander (docs/clock.md)")
    trouble = FAULTS[name]
    found = report(range(2), *pair, hours=2, faults=trouble.faults)
    assert found["coverage"]["all"] >= 0.999
    assert all(share >= 0.999 for share in found["coverage"].values()), found["coverage"]
    for state in trouble.seen:
        assert found["share"][state] > 0
    assert found["share"]["failed"] == 0
    assert found["ran_back"] == 0
    # Its own time comes through: no load that is not wanted, and it ends locked, or waits for the operator.
    assert found["events_s"]["loaded"] == 2 * trouble.loads
    assert "disputed" in trouble.seen or all(run.state[-1] == LOCKED for run in found["runs"])


@pytest.mark.parametrize("pair", PAIRS, ids=["+".join(pair) for pair in PAIRS])
@pytest.mark.parametrize("step", ["1us", "-1us", "1ms", "100ms"])
def test_spoofed_step_is_refused_until_accepted(pair, step):
    found = report(range(2), *pair, hours=1.5, faults=[f"step@4000:{step}"], accept_at_s=[5000])
    for run in found["runs"]:
        time = run.t_s
        spoofed = (time > 4001) & (time < 5000)
        trusted = spoofed & np.isfinite(run.bound_ns)
        assert (np.abs(run.true_error_ns[trusted]) <= run.bound_ns[trusted]).all()
        assert (run.state[(time > 4020) & (time < 5000)] == DISPUTED).all()
        assert (run.state[time > 5100] == LOCKED).all()


def test_a_pull_too_slow_for_the_gate_is_seen():
    """12 ns/s: each pulse is within the gate of 16 ns, together they run away from the prediction."""
    found = report(range(4), hours=1.5, faults=["pull@4000+300:12"])
    assert found["events_s"]["pull"] > 0
    assert all(share >= 0.999 for share in found["coverage"].values())
    for run in found["runs"]:
        assert (run.state[(run.t_s > 4060) & (run.t_s < 4300)] > LOCKED).all()
        assert (run.state[run.t_s > 4400] == LOCKED).all()


@pytest.mark.parametrize("pair", PAIRS, ids=["+".join(pair) for pair in PAIRS])
def test_a_receiver_that_does_not_know_that_its_antenna_is_cut(pair):
    """20 s of a fix and of an accuracy as ever, while the pulses drift: no bound can know. When the fix goes,
    the clock goes back to before, and its bound is true again."""
    found = report(range(4), *pair, hours=1.6, faults=["pull@4000+620:3", "fix-lost@4020+600"])
    for run in found["runs"]:
        outside = (np.abs(run.true_error_ns) > run.bound_ns) & (run.t_s > 600)
        assert not outside[(run.t_s < 4000) | (run.t_s > 4025)].any()
        assert np.abs(run.true_error_ns[outside]).max(initial=0) < 3 * 20 + 60
        assert run.state[-1] == LOCKED
    assert found["coverage"]["holdover"] >= 0.999
    assert found["coverage"]["acquiring"] >= 0.999


def test_a_pull_that_the_receiver_itself_doubts_costs_nothing():
    """Found while it was built: pulses that ran away at 12 ns/s were weighted, not refused, as the receiver
    said; their frequency went into the mean that an OCXO was held by: 2 us off, bound 60 ns."""
    for name in ("antenna cut, 12 ns/s", "antenna cut, 50 ns/s"):
        found = report(range(4), "ocxo", "f9t", hours=1.6, faults=FAULTS[name].faults)
        assert all(share >= 0.999 for share in found["coverage"].values()), found["coverage"]
        assert max(np.abs(run.true_error_ns[run.t_s > 600]).max() for run in found["runs"]) < 30
        assert all(run.state[-1] == LOCKED for run in found["runs"])


def test_edges_that_are_none_cost_nothing():
    """10 us before each pulse ended in a dispute, the good edge being there."""
    right = report(range(2), hours=1.5)
    for fault in (
        "early@2000+2000:10us",
        "double@2000+2000:2us",
        "early@2000+2000:400ms",
        "double@2000+2000:999ms",
    ):
        found = report(range(2), hours=1.5, faults=[fault])
        assert found["events_s"]["double"] == 2 * 2000
        for run, plain in zip(found["runs"], right["runs"], strict=True):
            settled = run.t_s > 600
            assert np.abs(run.true_error_ns[settled] - plain.true_error_ns[settled]).max() < 0.01, fault


def test_edges_in_holdover_that_could_both_be_the_pulse_are_not_believed():
    """A microsecond apart, and a bound of several: the clock waits."""
    fault = ["outage@2000+1000", "early@2000+2000:1us"]
    found = report(range(3), hours=1.3, faults=fault)
    for run in found["runs"]:
        assert (run.state[(run.t_s > 3000) & (run.t_s < 3990)] == HOLDOVER).all()
        assert run.state[-1] == LOCKED
    assert found["coverage"]["all"] >= 0.999


@pytest.mark.parametrize("start", [0, 5000])
@pytest.mark.parametrize("pair", PAIRS[:3], ids=["+".join(pair) for pair in PAIRS[:3]])
def test_a_wrong_second_after_an_outage_is_found_as_at_the_first_start(pair, start):
    """The receiver has not got its leap second yet: 1 s off with a bound of 49 ns until somebody came."""
    faults = ["outage@3000+2000"] * (start > 0) + [f"leap@{start}+8:1"]
    found = report(range(3), *pair, hours=2, faults=faults, holdover_bound_ns=2000)
    for run in found["runs"]:
        assert (run.state[(run.t_s > 4900) & (run.t_s < 5000)] == COLD).all() == (start > 0)
        assert not (np.abs(run.true_error_ns) > run.bound_ns).any()
        assert (run.state[run.t_s > start + 100] == LOCKED).mean() > (0.99 if start else 0.5)
        assert abs(run.true_error_ns[-1]) < 100
    assert found["events_s"]["loaded"] == 3 * (3 if start else 2)


def test_an_oscillator_that_has_changed_in_an_outage_gets_its_pulses_back():
    """Found while vouchers were built: one in six of these outages ended in a cold start, because pulses in a
    row were asked to keep to the frequency of 1000 s before."""
    found = report(range(16), "xo-i225", "m8t", hours=1.6, faults=["outage@3600+1000"])
    assert found["events_s"]["loaded"] == 16
    assert found["coverage"]["all"] >= 0.999


def test_spoofed_step_in_holdover_is_refused_outside_the_bound():
    found = report(range(3), hours=2, faults=["outage@4000+60", "step@4060:1us"])
    assert all((run.state[run.t_s > 4080] == DISPUTED).all() for run in found["runs"])


def test_a_dispute_does_not_end_because_the_bound_has_grown():
    """Found while it was built: after 200 s of dispute the bound took in the spoofed microsecond."""
    found = report(range(3), hours=2.5, faults=["step@4000:1us"])
    assert all((run.state[run.t_s > 4080] == DISPUTED).all() for run in found["runs"])


def test_an_xo_in_dispute_does_not_go_cold_and_then_follow():
    """Found while it was built: the bound passed its limit, and a cold start took over what was disputed."""
    found = report(range(2), "xo-i225", "m8t", hours=4, faults=["step@4000:1us"])
    assert all((run.state[run.t_s > 4080] == DISPUTED).all() for run in found["runs"])


def test_wrong_qerr_sign_is_found_and_reported():
    found = report(range(2), hours=1, faults=["qerr-sign@0"])
    right = report(range(2), hours=1)
    assert found["rms_ns"] == pytest.approx(right["rms_ns"], rel=0.03)
    assert found["events_s"]["qerr_sign"] > 0.95 * 2 * 3600
    assert "qerr_sign" not in right["events_s"]


def test_useless_qerr_is_found():
    """qErr of a receiver that sends something else in its place."""
    found = report(range(2), hours=1, sawtooth_ns=0.0, sawtooth_ps=7860)
    assert found["rms_ns"] <= 5


@pytest.mark.parametrize(
    "fault",
    ["message-corrupt@0+3000", "message-lost@0+3000", "fix-lost@0+3000", "missing@0+3000:0.9",
     "early@0+3000:10us", "double@0+3000:2us"],
)  # fmt: skip
def test_no_lock_without_a_receiver_to_believe(fault):
    found = report(range(3), hours=1.2, faults=[fault])
    for run in found["runs"]:
        assert (run.state[run.t_s < 3000] != LOCKED).all()
        assert (run.state[run.t_s > 3100] == LOCKED).all()
        assert not np.isfinite(run.bound_ns[run.t_s < 3000]).any()
        assert run.events["loaded"] == 1 or fault.startswith("missing")


def test_frequency_settles_after_a_load():
    """Found while it was built: offset and frequency stayed correlated over a load, the frequency was
    believed too early, and an OCXO ran away from its pulses by 1 ns/s."""
    found = report(range(6), "ocxo", "f9t", hours=0.3, faults=["step@600:1ms"], accept_at_s=[700])
    for run in found["runs"]:
        assert np.abs(run.frequency_ppb[run.t_s > 760] - 50).max() < 0.4
        assert (run.state[run.t_s > 760] == LOCKED).all()


def test_the_same_seed_is_the_same_run():
    one, same, other = (report([seed], hours=0.5)["runs"][0] for seed in (5, 5, 6))
    assert (one.true_error_ns == same.true_error_ns).all()
    assert (one.true_error_ns != other.true_error_ns).any()
