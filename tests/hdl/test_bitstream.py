# SPDX-License-Identifier: Apache-2.0
"""The report of the Versa-5G's bit file that is checked in: what `make bitstream-check` relies on."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_checked_in_report_is_of_a_bit_file_that_meets_every_clock(monkeypatch):
    pytest.importorskip("systemrdl", reason="systemrdl-compiler is not installed: make hdl")
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools"), *sys.path])
    import bitstream

    report = json.loads(bitstream.REPORT.read_text())
    assert report["missed"] == []
    assert len(report["bit_sha256"]) == 64
    assert set(report["clocks"]) == set(bitstream.CLOCKS)
    for clock, asked_mhz in bitstream.CLOCKS.items():
        figure = report["clocks"][clock]
        assert figure["asked_mhz"] >= asked_mhz - 0.01, clock
        assert figure["reached_mhz"] >= figure["asked_mhz"], clock
    for name, of in bitstream.HAS.items():
        assert 0 < report["resources"][name]["used"] <= of, name


def test_a_clock_that_is_missed_free_or_unknown_is_told(monkeypatch):
    pytest.importorskip("systemrdl", reason="systemrdl-compiler is not installed: make hdl")
    monkeypatch.setattr(sys, "path", [str(ROOT / "tools"), *sys.path])
    import bitstream

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
