# SPDX-License-Identifier: Apache-2.0
"""`make gpu-check` itself, on the emulated device: that it runs, and that it sees what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.gpu import check


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict[str, Any]:
    target = tmp_path_factory.mktemp("check") / "report.json"
    status = check.main(["--device", "emulated", "--quick", "--json", str(target)])
    found = json.loads(target.read_text())
    assert status == (0 if found["passed"] else 1)
    return found


@pytest.mark.parametrize("section", check.SECTIONS)
def test_each_section_runs_and_finds_the_device_equal(report, section):
    found = report["sections"][section]
    assert not found["failed"] and not found["not_run"], found
    assert found["cases"] or found["skipped"]


class Broken:
    """An emulated device that leaves one kernel out."""

    def __init__(self, device: Any, kernel: str) -> None:
        self._device, self._kernel = device, kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def launch(self, kernel: str, *arguments: Any) -> None:
        if kernel != self._kernel:
            self._device.launch(kernel, *arguments)


@pytest.mark.parametrize(
    ("section", "kernel"),
    [("counts", "sort_scatter"), ("times", "time_reach"), ("digests", "store_keys")],
)
def test_a_device_that_computes_something_else_is_noticed(section, kernel, monkeypatch, tmp_path, capsys):
    whole = check.emulated_device
    monkeypatch.setattr(check, "emulated_device", lambda: Broken(whole(), kernel))
    target = tmp_path / "report.json"
    arguments = ["--device", "emulated", "--quick", "--only", section, "--json", str(target)]
    assert check.main(arguments) == 1
    assert json.loads(target.read_text())["sections"][section]["failed"]
    assert f"gpu-check: FAILED: {section}" in capsys.readouterr().out


def test_without_time_nothing_counts_as_checked(monkeypatch, capsys):
    monkeypatch.setattr(check, "TIME_LIMIT", -1.0)
    assert check.main(["--device", "emulated", "--quick", "--only", "counts"]) == 1
    assert "NOT RUN" in capsys.readouterr().out


def test_without_a_gpu_one_line_says_so():
    environment = {"CUDA_VISIBLE_DEVICES": "", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu.check"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stdout == "" and len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith("gpu-check: ")
