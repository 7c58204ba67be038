# SPDX-License-Identifier: Apache-2.0
"""What every room's tests share: the corpus, and loud skips."""

from __future__ import annotations

import os
import shutil
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


def captures() -> list[Path]:
    """The corpus captures, for parametrisation at collection time (empty where absent)."""
    return sorted(p for p in (CORPUS / "captures").glob("*.pcap*"))
