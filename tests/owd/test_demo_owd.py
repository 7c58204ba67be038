# SPDX-License-Identifier: Apache-2.0
"""`make demo-owd`, small: clock states out of the servo's run, delays beside the simulation's truth."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from scapy.all import IP, UDP, Ether
from twinstamp.demo_owd import show
from twinstamp.demo_owd.__main__ import START_NS, Plan, main, paths, run
from twinstamp.demo_owd.clocks import SETTLED_S, ClockAt, SiteClock, clock_states, instants
from twinstamp.demo_owd.compare import STAMP_RMS_NS, errors_of, figures
from twinstamp.demo_owd.namespaces import HOLD_NS, PACKETS, slow_train
from twinstamp.demo_owd.pair import Pair
from twinstamp.demo_owd.scene import trains
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.owd.exports import read_raw
from twinstamp.train.frames import frames
from twinstamp_gps.models import OSCILLATORS, RECEIVERS
from twinstamp_gps.simulation import Scenario, simulate

NOMINAL_Q72 = 2**72 / 125e6
SITES = ("Madrid", "Budapest")


def test_instants():
    at = instants(50, 60.0, seed=3)
    assert len(at) == 50 and at[0] >= SETTLED_S * 10
    assert (np.diff(at) > 0).all() and ((at - SETTLED_S * 10) // 600 == np.arange(50)).all()
    assert len(set((at % 10).tolist())) > 5  # all parts of a second
    with pytest.raises(ConfigError, match="at least one"):
        instants(0, 60.0, seed=1)
    with pytest.raises(ConfigError, match="no-such"):
        SiteClock("no-such", "f9t", 1)


def test_registers_and_frequency_make_the_clock_go():
    # An OCXO, whose white noise does not hide the sum; by the ms, as slews are short.
    found = simulate(
        Scenario(oscillator=OSCILLATORS["ocxo"], receiver=RECEIVERS["f9t"], seconds=120, samples_per_s=1000),
        4,
    )
    assert found.oscillator_ppb.std() < 1 and abs(found.oscillator_ppb.mean() - 50) < 5
    steer = (found.increment_q72.astype(np.float64) / NOMINAL_Q72 - 1) * 1e9
    with np.errstate(invalid="ignore"):  # inf before card time was set
        moved = np.diff(found.true_error_ns.astype(np.float64)) * 1000
    made = (found.oscillator_ppb + steer)[1:]
    slewing = found.slew_left_q64 != 0
    # Nothing is written between these two samples, and no slew is under way.
    same = np.isfinite(moved) & (found.increment_q72[1:] == found.increment_q72[:-1])
    quiet = same & ~slewing[1:] & ~slewing[:-1]
    assert quiet.sum() > 10_000 and np.abs(moved - made)[quiet].max() < 2
    # A slew moves at its step's rate.
    under = same & slewing[1:] & slewing[:-1] & (found.slew_step_q64[1:] == found.slew_step_q64[:-1])
    rate = found.slew_step_q64[1:].astype(np.float64) / (NOMINAL_Q72 / 256) * 1e9
    sign = np.sign(found.slew_left_q64[1:].astype(np.float64))
    assert under.sum() >= 10 and np.abs(moved - made - sign * rate)[under].max() < 2


def test_states_are_those_of_the_run():
    at = np.array([6003, 6500, 7777])
    states = clock_states(SiteClock("tcxo", "f9t", 5), at)
    found = simulate(Scenario(oscillator=OSCILLATORS["tcxo"], receiver=RECEIVERS["f9t"], seconds=779), 5)
    assert [s.at_ns for s in states] == [600_350_000_000, 650_050_000_000, 777_750_000_000]
    assert [s.error_ns for s in states] == found.true_error_ns[at].tolist()
    assert [s.bound_ns for s in states] == found.bound_ns[at].astype(int).tolist()
    assert [s.increment_q72 for s in states] == found.increment_q72[at].tolist()
    assert all(s.locked and abs(s.oscillator_ppb - 800) < 200 for s in states)


def state(at_s: int, error_ns: float, bound_ns: int, *, ppb: float = 0.0, locked: bool = True) -> ClockAt:
    return ClockAt(at_s * 10**9, error_ns, ppb, round(NOMINAL_Q72 / (1 + ppb * 1e-9)), 0, 0, bound_ns, locked)


def test_clocks_that_are_off_show_and_bounds_too_small_are_found():
    with Pair(SITES, trains(4), paths(), start_ns=START_NS, seed=3) as pair:
        pair.burst((state(700, 100.25, 120, ppb=900.0), state(700, -50.0, 60, ppb=-11_000.0)))
        pair.burst((state(9000, 100.25, 120), state(9000, -50.0, 60)))
        report = pair.report({"kind": "demo-owd", "title": "a test"})
        errors = [errors_of(report.trains[i], pair.truth(i), pair.epochs, i) for i in (0, 1)]
        for epoch in pair.epochs:
            assert np.allclose(epoch.realised_ns, epoch.wanted_ns, rtol=0, atol=0.15)
        told = [figures([found], pair.epochs) for found in errors]
        for found, sign in zip(errors, (-1, 1), strict=True):
            # Half a cycle of the stamp, 1 ns for rounding, 2^-32 s twice.
            assert np.abs(found.error_ns - sign * 150.25).max() < 5.5
            assert (found.bound_ns >= 180).all() and (found.bound_ns < 200).all()
            assert np.abs(found.rest_ns).max() < 5.5
        assert show.verdict([("a", "b")] * 2, told)[0]
        assert told[0].clocks_rms_ns == pytest.approx(150.25, abs=0.3)
        assert told[0].rss_ns == pytest.approx((100.25**2 + 50**2 + STAMP_RMS_NS**2) ** 0.5)
        # One epoch after the other: the report's times are those of the experiment.
        sent = report.trains[0].judged.arrivals.sent_ns
        assert (sent[0] - START_NS) // 10**9 == 700 and (sent[-1] - START_NS) // 10**9 == 9000

        pair.begin()
        pair.burst((state(100, 100.25, 20), state(100, -50.0, 20)))
        report = pair.report({"kind": "demo-owd", "title": "a test"})
        told = [
            figures([errors_of(report.trains[i], pair.truth(i), pair.epochs, i)], pair.epochs) for i in (0, 1)
        ]
        good, said = show.verdict([("a", "b")] * 2, told)
        assert not good and told[0].covered == 0 and "DO NOT HOLD" in said[1]
        assert not show.verdict([("tcxo", "f9t")] * 2, told)[0]

        with pytest.raises(DeviceError, match="follows no reference"):
            pair.burst((state(200, 0.0, -1, locked=False), state(200, 0.0, 20)))


def test_small(tmp_path, capsys):
    status = main(
        [
            "--folder",
            str(tmp_path),
            "--only",
            "simulated",
            "--bursts",
            "5",
            "--packets",
            "20",
            "--hours",
            "0.5",
        ]
    )
    said = capsys.readouterr().out
    assert status == 0, said
    page = (tmp_path / "page.html").read_text()
    for text in (page, said):
        assert "Idle time is skipped: only the bursts run in HDL" in text
    assert "Against the simulation" in page and page.count("data:image/png") == 14
    assert not re.search(r'src="(?!data:)|href=|<script|@import|url\(', page)
    out = json.loads((tmp_path / "truth.json").read_text())
    report = read_raw(str(tmp_path / "delays.txt"))
    for way, told in enumerate(out["directions"]):
        assert told["epochs"] == 5 and told["lost"] == told["truly_lost"] == 100 - told["packets"]
        assert told["covered"] == 1 and told["rms_ns"] < 25
        train = report.trains[way]
        assert len(train.judged) == told["packets"] and train.loss.lost == told["lost"]
    assert sum(told["lost"] for told in out["directions"]) > 0


def test_bad_options(tmp_path, capsys):
    for options in (["--madrid", "tcxo"], ["--budapest", "quartz+f9t"], ["--bursts", "0"], ["--pairs", "0"]):
        assert main(["--folder", str(tmp_path), "--only", "simulated", *options]) == 2
    assert capsys.readouterr().err.count("demo-owd: ") == 4


def test_frames_for_the_linux_card():
    train = slow_train(1)
    data, offset, caplen, *_ = frames(train, train.schedule(), 0, 7, 0x3FFF)
    for i in range(7):
        raw = data[int(offset[i]) : int(offset[i]) + int(caplen[i])].tobytes()
        frame = Ether(raw)
        assert len(raw) == 86 and (frame[IP].src, frame[IP].dst) == (train.source, train.destination)
        assert (
            frame[IP].ttl == 255 and frame[IP].len == 72 and frame[UDP].len == 52 and frame[UDP].dport == 862
        )
        assert raw[42:46] == i.to_bytes(4, "big") and raw[56:58] == b"\0\2"
        sums = frame[IP].chksum, frame[UDP].chksum
        del frame[IP].chksum, frame[UDP].chksum
        again = Ether(bytes(frame))
        assert (again[IP].chksum, again[UDP].chksum) == sums


@pytest.mark.root
def test_namespaces(tmp_path, capsys):
    status = main(["--folder", str(tmp_path), "--only", "namespaces"])
    said = capsys.readouterr()
    if status == 1 and "it needs root" in said.err:
        pytest.skip(said.err.strip())
    assert status == 0, said.out + said.err
    out = json.loads((tmp_path / "namespaces.json").read_text())
    assert out["passed"] and [d["packets"] for d in out["directions"]] == [PACKETS] * 2
    for way, told in enumerate(out["directions"]):
        assert told["delay_ns"]["min"] > HOLD_NS[way]
        assert told["departure_behind_stamp_ns"]["min"] > 0
    assert (tmp_path / "namespaces.html").read_text().count("<h2>") == 3


@pytest.mark.long
@pytest.mark.parametrize("clock", [("xo-i225", "m8t"), ("xo-cm4", "f9t")], ids="+".join)
def test_other_pairs(clock):
    _, errors, epochs = run(
        Plan((("tcxo", "f9t"), clock), hours=5.5, bursts=16, packets=2, pairs=32, seed=101)
    )
    for found in errors:
        told = figures(found, epochs)
        # Stamps cut to whole ns add a mean of 0.5 ns. 6 %: three sigma of 512 uniform values' rms.
        assert told.rest_rms_ns <= np.hypot(STAMP_RMS_NS, 0.6) * 1.06
        # Of the clocks as they were together in these bursts: those of so few experiments are not quite
        # uncorrelated. 5 %: four sigma of the product of 512 stamps' errors and clocks'.
        assert told.rms_ns <= np.hypot(told.clocks_rms_ns, STAMP_RMS_NS) * 1.05
        assert told.covered >= 0.999 and told.lost == told.truly_lost


@pytest.mark.long
def test_64_pairs_of_seeds():
    clocks = (("tcxo", "f9t"), ("tcxo", "f9t"))
    _, errors, epochs = run(Plan(clocks, hours=5.5, bursts=17, packets=2, pairs=64, seed=1))
    assert len(epochs) == 1088
    for found in errors:
        told = figures(found, epochs)
        assert told.rms_ns <= 7.5 and told.covered >= 0.999 and told.lost == told.truly_lost
