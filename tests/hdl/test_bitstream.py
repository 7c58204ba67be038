# SPDX-License-Identifier: Apache-2.0
"""The report of the Versa-5G's bit file that is checked in: what `make bitstream-check` relies on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT


@pytest.fixture
def bitstream(monkeypatch) -> Any:
    pytest.importorskip("systemrdl", reason="systemrdl-compiler is not installed: make hdl")
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools"), *sys.path])
    import bitstream

    return bitstream


def test_the_checked_in_report_is_of_a_bit_file_that_meets_every_clock(bitstream):
    report = json.loads(bitstream.REPORT.read_text())
    assert report["missed"] == []
    assert len(report["bit_sha256"]) == len(report["firmware_sha256"]) == 64
    assert set(report["clocks"]) == set(bitstream.CLOCKS)
    for clock, asked_mhz in bitstream.CLOCKS.items():
        figure = report["clocks"][clock]
        assert figure["asked_mhz"] >= asked_mhz - 0.01, clock
        assert figure["reached_mhz"] >= figure["asked_mhz"], clock
    for name, of in bitstream.HAS.items():
        assert 0 < report["resources"][name]["used"] <= of, name


def test_a_clock_that_is_missed_free_or_unknown_is_told(bitstream):
    good = {f"$glbnet${name}": {"constraint": mhz, "achieved": mhz} for name, mhz in bitstream.CLOCKS.items()}
    assert bitstream.timing({"fmax": good})[1] == []
    for change, text in (
        ({"$glbnet$clk": {"constraint": 125.0, "achieved": 124.9}}, "clk reaches 124.9 MHz, not 125"),
        ({"$glbnet$clk": {"constraint": 12.0, "achieved": 300.0}}, "clk has no constraint of 125.0 MHz"),
        ({"stray": {"constraint": 12.0, "achieved": 300.0}}, "stray is not one of clk"),
    ):
        (wrong,) = bitstream.timing({"fmax": {**good, **change}})[1]
        assert text in wrong
    del good["$glbnet$clk"]
    assert bitstream.timing({"fmax": good})[1] == ["clock net clk is not in nextpnr's report"]


REPORT = {
    "sources_sha256": "of sources",
    "tools": {"nextpnr": "1"},
    "seed": 3,
    "missed": [],
    "clocks": {"clk": {"asked_mhz": 125, "reached_mhz": 130.0}},
    "resources": {"TRELLIS_FF": {"used": 100, "of": 200, "share": 0.5}},
    "firmware_sha256": "def",
    "bit_sha256": "abc",
}
LATE = ["clock net clk reaches 124.0 MHz, not 125.00"]


@pytest.mark.parametrize(
    ("option", "old", "new", "code", "said"),
    [
        ("--check", {}, None, None, "are those of"),
        (
            "--check",
            {"missed": LATE},
            None,
            "misses its constraint",
            "missed: clock net clk reaches 124.0 MHz",
        ),
        ("--check", {"sources_sha256": "other"}, None, 3, "are not those of"),
        ("--check", {"tools": {"nextpnr": "2"}}, None, 3, "are not those of"),
        ("--compare", {}, {}, None, "byte for byte"),
        ("--compare", {}, {"bit_sha256": "abd"}, "another bit file", ""),
        ("--compare", {}, {"firmware_sha256": "0"}, "another compiler?", ""),
        ("--compare", {}, {"missed": LATE, "bit_sha256": None}, "misses its constraint", ""),
        ("--compare", {"sources_sha256": "other"}, {}, "run `make bitstream`", ""),
        (
            "--compare",
            {"sources_sha256": "other", "clocks": {"clk": {"asked_mhz": 125, "reached_mhz": 140.0}}},
            {},
            "run `make bitstream`",
            "worse: clock net clk: 140.0 MHz before, now 130.0",
        ),
    ],
)
def test_what_check_and_compare_refuse(
    bitstream, monkeypatch, tmp_path, capsys, option, old, new, code, said
):
    monkeypatch.setattr(bitstream, "REPORT", tmp_path / "report.json")
    bitstream.REPORT.write_text(json.dumps({**REPORT, **old}))
    monkeypatch.setattr(bitstream, "digest", lambda: REPORT["sources_sha256"])
    monkeypatch.setattr(bitstream, "versions", lambda: REPORT["tools"])
    monkeypatch.setattr(sys, "argv", ["bitstream.py", option])
    seeds = []

    def build(these: list[int], image: Path) -> Any:
        seeds.extend(these)
        return {name: value for name, value in {**REPORT, **new}.items() if value is not None}

    monkeypatch.setattr(bitstream, "build", build)
    if code is None:
        bitstream.main()
    else:
        with pytest.raises(SystemExit) as end:
            bitstream.main()
        assert end.value.code == code or code in str(end.value.code)
    assert said in capsys.readouterr().out
    if option == "--compare" and not old:
        assert seeds == [3]  # another seed gives other bytes


def test_compare_takes_no_seed(bitstream, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["bitstream.py", "--compare", "--seed", "2"])
    with pytest.raises(SystemExit):
        bitstream.main()
    assert "no --seed" in capsys.readouterr().err
