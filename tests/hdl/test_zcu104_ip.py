# SPDX-License-Identifier: Apache-2.0
"""The whole of what `make ip` gives Vivado, in a simulation (minutes: the card with all ports)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .bench import ROOT, run


@pytest.mark.long
def test_the_packaged_card_at_work(tmp_path: Path) -> None:
    pytest.importorskip("systemrdl", reason="systemrdl-compiler is not installed: make hdl")
    subprocess.run(
        [sys.executable, str(ROOT / "tools" / "package_ip.py"), str(tmp_path)], check=True, cwd=ROOT
    )
    text = (tmp_path / "package.tcl").read_text()
    names = text[text.index("set sources {") : text.index("\n}")].split()[3:]
    sources = [ROOT / "tests/hdl/ultrascale_models.sv", *(tmp_path / "src" / name for name in names)]
    run("zcu104_ip_bench", sources, "cocotb_zcu104_ip", large=True)
