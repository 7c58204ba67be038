# SPDX-License-Identifier: Apache-2.0
"""`twinstamp train check|show|send`."""

from __future__ import annotations

import json

import pytest
from twinstamp.cli import main
from twinstamp.io.files import open_capture
from twinstamp.train import Constant, load_train, to_toml

from tests.train.made import make


@pytest.fixture
def line(tmp_path):
    path = tmp_path / "line.toml"
    path.write_text(to_toml(make(30, Constant("2us"), 64, name="line")))
    return path


def run(capsys, *words) -> tuple[int, str, str]:
    """Exit status, standard output, standard error."""
    try:
        status = main(["train", *map(str, words)])
    except SystemExit as end:
        status = end.code
    out = capsys.readouterr()
    return status, out.out, out.err


def test_check(capsys, line, tmp_path):
    status, out, _ = run(capsys, "check", line)
    assert status == 0 and "line: 30 packets, 1,920 octets over 58 us, 34.36% of the wire" in out
    status, out, _ = run(capsys, "check", line, "--json")
    assert status == 0 and json.loads(out)["trains"][0]["packets"] == 30
    status, _, err = run(capsys, "check", line, "--rate", "100M")
    assert status == 2 and "packet 1 would leave" in err
    for words in (("check", line, "--rate", "fast"), ("check", tmp_path / "none.toml"), ("check",)):
        assert run(capsys, *words)[0] == 2
    assert run(capsys, "check", line, "--json", line)[0] == 2


def test_show(capsys, line, tmp_path):
    status, out, _ = run(capsys, "show", line, "--first", 2, "--csv", tmp_path / "s.csv", "--start", "1.5s")
    assert status == 0 and "1.500002000 s     64 bytes" in out and "28 more" in out
    rows = (tmp_path / "s.csv").read_text().splitlines()
    schedule = load_train(line).schedule("1.5s")
    assert rows[0] == "sequence,seconds,fraction_q64,ns,bytes" and len(rows) == 31
    assert rows[30] == f"29,1,{int(schedule.fraction[29])},1500058000,64"
    assert run(capsys, "show", line, "--csv", line)[0] == 2
    assert run(capsys, "show", line, "--first", -1)[0] == 2
    assert run(capsys, "show", line, "--csv", tmp_path / "no" / "s.csv")[0] == 2


def test_send(capsys, line, tmp_path):
    to, report = tmp_path / "got.pcapng", tmp_path / "report.json"
    words = ("send", line, line, "--port", 2, "--loop", 1, "--after", "200us", "--to", to, "--json", report)
    status, _, err = run(capsys, *words)
    assert status == 1 and "follows no reference" in err
    status, out, _ = run(capsys, *words, "--allow-unsynchronised", "--report")
    assert status == 0 and "line: 30 of 30 packets from port 2; clock not synchronised" in out
    trains = json.loads(report.read_text())["trains"]
    assert [t["slot"] for t in trains] == [0, 1] and not trains[0]["synchronised"]
    # Both want each slot: the second one's packet waits for the first one's.
    assert [t["late"] for t in trains] == [0, 30]
    assert trains[1]["missed_slots"][29] == {"sequence": 29, "delay_ns": pytest.approx(672, abs=8.1)}
    with open_capture(to) as capture:
        assert sum(len(batch) for batch in capture) == 60
    for bad in (("--port", 4), ("--start", "tomorrow"), ("--start", "2020-01-01T00:00:00Z"), ("--card", "x")):
        assert run(capsys, "send", line, "--allow-unsynchronised", *bad)[0] in (1, 2), bad
