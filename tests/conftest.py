# SPDX-License-Identifier: Apache-2.0
"""What every room's tests share: the corpus, and loud skips."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CORPUS = Path(os.environ.get("TWINSTAMP_CORPUS") or ROOT.parent / "shared").resolve()


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Folder with captures/ and rules/; the test is skipped, loudly, where it is absent."""
    if not (CORPUS / "captures").is_dir():
        pytest.skip(f"CORPUS ABSENT: no captures/ in {CORPUS} (set TWINSTAMP_CORPUS)")
    return CORPUS


@pytest.fixture(scope="session")
def editcap() -> str:
    """Path of Wireshark's editcap, the oracle for exact duplicates."""
    path = shutil.which("editcap")
    if path is None:
        pytest.skip("editcap is not installed (Debian package wireshark-common)")
    return path


def pytest_configure() -> None:
    """Background jobs of a shell have SIGINT ignored, and so would what the tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _corpus_test_skipped(terminal: pytest.TerminalReporter) -> list[str]:
    return [report.nodeid for report in terminal.stats.get("skipped", []) if "corpus" in report.keywords]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI with the corpus at hand, a skipped corpus test is a failure: nothing was compared."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI", "").lower() not in ("true", "1") or not (CORPUS / "captures").is_dir():
        return
    skipped = _corpus_test_skipped(terminal) if terminal is not None else []
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    for nodeid in skipped:
        terminal.write_line(f"FAILED {nodeid} - a corpus test was skipped, with the corpus at hand")


def captures() -> list[Path]:
    """The corpus captures, for parametrisation at collection time (empty where absent)."""
    return sorted(p for p in (CORPUS / "captures").glob("*.pcap*"))
