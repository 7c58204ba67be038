# SPDX-License-Identifier: Apache-2.0
"""The benchmarks stay alive: each section once, tiny. Speed itself is proved by `make bench`."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.corpus
def test_each_section_runs(corpus, editcap, tmp_path):
    report = tmp_path / "bench.json"
    sections = ["startup", "dedup", "window", "cores", "pipeline", "card", "owd", "hub"]
    environment = {**os.environ, "TWINSTAMP_CORPUS": str(corpus)}
    subprocess.run(
        [sys.executable, "-m", "tests.bench", "--tiny", "--only", *sections, "--json", report],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
        timeout=120,
    )
    results = json.loads(report.read_text())
    assert set(sections) <= set(results)
    assert all(case["ratio"] > 0 for case in results["dedup"].values())
    assert results["window"]["64 B, window 600, half duplicates"]["median"] > 0
    assert results["card"]["records"]["median"] > 0
    assert results["card"]["sent_60"]["median"] > 0
    assert results["hub"]["60 B, 4 readers"]["mpps"]["median"] > 0
    assert "acl1_1k, every packet a new flow, all" in results["pipeline"]
