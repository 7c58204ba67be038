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
    target = bitstream.TARGETS["versa"]
    report = json.loads(target.report.read_text())
    assert report["missed"] == []
    assert len(report["seeds_mhz"]) >= 4 and report["clocks"]["clk"]["reached_mhz"] == max(
        reached["clk"] for reached in report["seeds_mhz"].values()
    )
    assert len(report["bit_sha256"]) == len(report["firmware_sha256"]) == 64
    assert set(report["clocks"]) == set(bitstream.CLOCKS)
    for clock, asked_mhz in bitstream.CLOCKS.items():
        figure = report["clocks"][clock]
        assert figure["asked_mhz"] >= asked_mhz - 0.01, clock
        assert figure["reached_mhz"] >= figure["asked_mhz"], clock
    for name, of in target.has.items():
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


def path(start: str, end: str, took: float) -> dict[str, Any]:
    return {"from": f"posedge {start}", "to": f"posedge {end}", "path": [{"delay": took / 2}] * 2}


@pytest.mark.parametrize(
    ("start", "end", "limit"),
    [
        ("$glbnet$clk", "$glbnet$u_clocks.fast_clk_o", 4.0),
        ("$glbnet$u_clocks.fast_clk_o", "$glbnet$clk", 4.0),
        ("$glbnet$clk", "$glbnet$rgmii_rxc_i[0]$TRELLIS_IO_IN", 8.0),
        ("$glbnet$rgmii_rxc_i[1]$TRELLIS_IO_IN", "$glbnet$clk", 8.0),
    ],
)
def test_a_path_between_clocks_that_is_too_long_is_told(bitstream, start, end, limit):
    good = {f"$glbnet${name}": {"constraint": mhz, "achieved": mhz} for name, mhz in bitstream.CLOCKS.items()}
    for took, told in ((limit, 0), (limit + 0.01, 1)):
        wrong = bitstream.timing({"fmax": good, "critical_paths": [path(start, end, took)]})[1]
        assert len(wrong) == told, (took, wrong)
    assert f"{limit + 0.01:.2f} ns, not {limit}" in wrong[0]
    for other in (path("<async>", end, 99.0), path(start, "<async>", 99.0), path(start, start, 99.0)):
        assert bitstream.timing({"fmax": good, "critical_paths": [other]})[1] == []  # pins; judged by fmax


def test_the_ends_of_paths_have_source_lines(bitstream, monkeypatch, tmp_path):
    monkeypatch.setattr(bitstream.Target, "build", property(lambda self: tmp_path))
    cells = {
        "a": {"attributes": {"src": "share/yosys/ecp5/cells_map.v:7.1-9.2|hdl/rtl/tx/gmii_tx.sv:57.3-57.40"}},
        "b": {"attributes": {}},
    }
    (tmp_path / "versa.json").write_text(json.dumps({"modules": {"twinstamp_versa": {"cells": cells}}}))
    lines = bitstream.source_lines(bitstream.TARGETS["versa"])
    steps = [
        {"from": {"cell": "a"}, "to": {"cell": "x"}, "type": "logic", "delay": 1.0},
        {"from": {"cell": "x"}, "to": {"cell": "b"}, "type": "routing", "delay": 2.0},
    ]
    found = bitstream.longest(
        {"critical_paths": [{"from": "posedge $glbnet$clk", "to": "posedge $glbnet$clk", "path": steps}]},
        lines,
    )
    assert found == {
        "clk": {"from": "hdl/rtl/tx/gmii_tx.sv:57 a", "to": "b", "logic_ns": 1.0, "wires_ns": 2.0}
    }


def test_the_best_of_the_seeds_is_kept(bitstream, monkeypatch, tmp_path):
    """Not the first that passes; none that fails where another passes."""
    monkeypatch.setattr(bitstream.Target, "build", property(lambda self: tmp_path))
    monkeypatch.setattr(bitstream, "digest", lambda target: "0" * 64)
    for name, value in (("registers", None), ("program", None), ("run", None), ("source_lines", {})):
        monkeypatch.setattr(bitstream, name, lambda *_, value=value: value)
    monkeypatch.setattr(bitstream, "synthesise", lambda *_: {})
    (tmp_path / "image").write_bytes(b"")
    (tmp_path / "twinstamp.bit").write_bytes(b"")

    def place(target: Any, seed: int) -> Any:
        core = {1: 126.0, 2: 131.0, 3: 140.0, 4: 131.0}[seed]
        rx = 124.0 if seed == 3 else 150.0
        reached = dict.fromkeys(bitstream.CLOCKS, rx) | {"clk": core, "u_clocks.fast_clk_o": 300.0}
        for name in bitstream.BIT_FILES:
            (tmp_path / name).write_bytes(b"")
        return {
            "fmax": {n: {"constraint": bitstream.CLOCKS[n], "achieved": mhz} for n, mhz in reached.items()},
            "critical_paths": [], "utilization": {name: {"used": 1} for name in target.has},
        }  # fmt: skip

    monkeypatch.setattr(bitstream, "place", place)
    out = bitstream.build(bitstream.TARGETS["versa"], (1, 2, 3, 4), tmp_path / "image")
    assert (out["seed"], out["margin"], out["missed"]) == (2, 0.048, [])
    assert {seed: mhz["clk"] for seed, mhz in out["seeds_mhz"].items()} == {
        "1": 126.0, "2": 131.0, "3": 140.0, "4": 131.0
    }  # fmt: skip


REPORT = {
    "margin": 0.04,
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
    monkeypatch.setattr(bitstream.Target, "report", property(lambda self: tmp_path / "report.json"))
    (tmp_path / "report.json").write_text(json.dumps({**REPORT, **old}))
    monkeypatch.setattr(bitstream, "digest", lambda target: REPORT["sources_sha256"])
    monkeypatch.setattr(bitstream, "versions", lambda: REPORT["tools"])
    monkeypatch.setattr(sys, "argv", ["bitstream.py", option])
    seeds = []

    def build(target: Any, these: list[int], image: Path) -> Any:
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
