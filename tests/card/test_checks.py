# SPDX-License-Identifier: Apache-2.0
"""The fuzzers with hdl/sim/checks.sv bound to the card: nothing that must not happen does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
CHECKED = ROOT / "build" / "hdl" / "libtwinstamp_sim_trace.so"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    if not CHECKED.exists():
        pytest.skip("no library with checks: make hdl TRACE=1")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "not long", "-p", "no:cacheprovider", *arguments]
    environment = {**os.environ, "TWINSTAMP_SIM": str(CHECKED)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1500)


@pytest.mark.parametrize(
    "tests",
    [
        ("tests/card/test_wire_fuzz.py",),
        ("tests/card/test_chatter.py", "-k", "not too_fast"),
        ("tests/card/test_overload.py",),
        ("tests/card/test_dedup.py", "-k", "traffic or ports"),
    ],
    ids=lambda tests: Path(tests[0]).stem,
)
def test_nothing_that_must_not_happen(tests: tuple[str, ...]) -> None:
    done = run(*tests)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]


def test_checks_are_there() -> None:
    """The one test that makes the way in overflow is ended by them."""
    done = run("tests/card/test_chatter.py", "-k", "too_fast")
    assert done.returncode not in (0, 1) and "an entry was lost" in done.stdout + done.stderr
