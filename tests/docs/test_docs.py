# SPDX-License-Identifier: Apache-2.0
"""The pages tell the truth about paths and commands, and the script that checks them can fail."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "check_docs.py"


def check(*pages: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, SCRIPT, *pages], capture_output=True, text=True, timeout=60)


def test_pages_name_what_is_there():
    result = check()
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("See `host/twinstamp/nowhere.py`.", "host/twinstamp/nowhere.py is not in the repository"),
        ("See [this](nowhere.md).", "link to nowhere.md leads nowhere"),
        ("```sh\nmake nothing\n```", "no target nothing"),
        ("Run `make nothing`.", "no target nothing"),
        ("```sh\nmake test-nowhere\n```", "no target test-nowhere"),
    ],
)
def test_a_wrong_page_is_found_out(tmp_path: Path, text: str, complaint: str):
    page = tmp_path / "page.md"
    page.write_text(text + "\n")
    result = check(page)
    assert result.returncode == 1
    assert complaint in result.stdout
    assert ":1:" in result.stdout or ":2:" in result.stdout


def test_a_right_page_passes(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text("`host/twinstamp/frames.py`, `make test-docs`\n```sh\nmake test ARGS=-x  # all\n```\n")
    assert check(page).returncode == 0
    page.write_text("`hdl/rtl/later.sv` <!-- not built -->\n")
    assert check(page).returncode == 0


@pytest.fixture
def check_command():
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import check_docs
    finally:
        sys.path.pop(0)
    return check_docs.check_command


def test_commands_and_options_are_asked_of_the_parser(check_command):
    parser = argparse.ArgumentParser(prog="twinstamp")
    rules = parser.add_subparsers().add_parser("rules").add_subparsers().add_parser("match")
    rules.add_argument("--out")
    assert check_command(["rules", "match", "in.pcap", "--out", "x"], parser) is None
    assert check_command(["--help"], parser) is None
    assert "no command march" in check_command(["rules", "march"], parser)
    assert "no option --in" in check_command(["rules", "match", "--in=x"], parser)
