# SPDX-License-Identifier: Apache-2.0
"""`twinstamp clock simulate`."""

from __future__ import annotations

import json

import pytest

from twinstamp.cli import main
from twinstamp_gps.log import read_log

KEYS = {"rms_ns", "p99_ns", "p99_9_ns", "coverage", "median_bound_ns", "time_to_lock_s", "holdover"}


def test_json(capsys):
    words = "clock simulate --oscillator tcxo --receiver f9t --hours 1.5 --seed 7 --runs 2"
    assert main([*words.split(), "--fault", "outage@3600+1000", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert KEYS <= report.keys()
    assert report["seeds"] == [7, 8]
    assert {"all", "acquiring", "locked", "holdover"} <= report["coverage"].keys()
    assert 2 < report["rms_ns"] < 6
    assert report["p99_ns"] < report["p99_9_ns"]
    assert [row["after_s"] for row in report["holdover"]] == [10, 30, 60, 300, 1000]
    assert all(row["samples"] == 2 for row in report["holdover"])


def test_table_says_the_same(capsys):
    assert main("clock simulate --hours 0.5".split()) == 0
    out = capsys.readouterr().out
    assert "ns rms" in out
    assert "locked" in out
    assert "coverage %" in out


def test_log_is_what_the_report_reads(tmp_path, capsys):
    path = str(tmp_path / "run.log")
    assert main(["clock", "simulate", "--hours", "0.5", "--log", path, "--json", str(tmp_path / "r.json")]) == 0
    log = read_log(path)
    assert len(log) == 18_000
    assert log.about["oscillator_name"] == "tcxo"
    assert main(["clock", "report", path]) == 0
    assert "locked" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("--oscillator quartz", "known are tcxo"),
        ("--receiver m10", "known are f9t"),
        ("--hours 0", "--hours"),
        ("--runs 0", "--runs"),
        ("--seed -1", "--seed"),
        ("--set pink=1", "no setting is called pink"),
        ("--set lock_pulses=few", "NAME=VALUE"),
        ("--set lock_pulses=1", "refuses"),
        ("--set walk_ppt=-1", "walk_ppt"),
        ("--fault eclipse@5", "eclipse"),
    ],
)
def test_bad_use(words, says, capsys):
    assert main(["clock", "simulate", "--hours", "0.1", *words.split()]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1
