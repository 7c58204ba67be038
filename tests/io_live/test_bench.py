# SPDX-License-Identifier: Apache-2.0
"""Keeps tests/bench/live_rate.py alive; its figures mean nothing at this size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Net

SCRIPT = Path(__file__).resolve().parents[1] / "bench" / "live_rate.py"


@pytest.mark.root
def test_tiny_run(net: Net, tmp_path: Path) -> None:
    report = tmp_path / "live.json"
    command = [sys.executable, str(SCRIPT), "--tiny", "--json", str(report)]
    subprocess.run(command, check=True, capture_output=True, timeout=90)
    results = json.loads(report.read_text())
    assert results["send_only_pps"]["median"] > 0
    assert set(results["lossless_pps"]) == {"tcpdump", "appliance"}
    slow = results["delay, appliance, 1 kpps"]
    assert slow["lost"] == 0 and slow["runs"][0]["received"] >= 100 and 0 < slow["p50_ms"] <= slow["p99_ms"]
