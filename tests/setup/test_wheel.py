# SPDX-License-Identifier: Apache-2.0
"""A wheel with the simulated card inside works from a plain virtual environment."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT

SIM = ROOT / "build" / "hdl" / "libtwinstamp_sim.so"
NEEDED = ("numpy", "numpy.libs", "rich", "pygments", "markdown_it", "mdurl", "pyroute2", "serial")


@pytest.mark.long
def test_a_wheel_carries_the_card(tmp_path: Path) -> None:
    if not SIM.is_file():
        pytest.skip("the simulated card is not built: make hdl")
    subprocess.run(
        ["bash", ROOT / "tools" / "wheel.sh", SIM, tmp_path],
        cwd=ROOT,
        env={
            "PYTHON": sys.executable,
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(tmp_path),
        },
        check=True,
        timeout=1800,
    )
    [wheel] = tmp_path.glob("twinstamp-*.whl")
    plain = tmp_path / "plain"
    subprocess.run([sys.executable, "-m", "venv", plain], check=True, timeout=300)
    pip = [plain / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, wheel], check=True, timeout=300)
    # What it needs comes from this environment: the test asks no network.
    [site] = (plain / "lib").glob("python3*/site-packages")
    for name in NEEDED:
        there = Path(sysconfig.get_path("purelib")) / name
        if there.exists():
            (site / name).symlink_to(there)
    told = subprocess.run(
        [plain / "bin" / "twinstamp", "card", "info"],
        cwd=tmp_path, env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("card sim: register map ")
