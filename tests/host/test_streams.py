# SPDX-License-Identifier: Apache-2.0
"""Standard streams that are closed or full: nothing lands in a capture, and each failure is one line."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.test_cli import ENVIRONMENT, FRAMES, capture

APPLIANCE = """
[[source]]
file = "in.pcap"
[balance]
secret_file = "balance.key"
[[group]]
name = "dpi"
[[group.server]]
name = "one"
file = "one.pcap"
"""


def shell(text: str, folder: Path) -> subprocess.CompletedProcess[bytes]:
    command = text.replace("twinstamp", f'"{sys.executable}" -m twinstamp.cli')
    return subprocess.run(
        ["bash", "-c", command], env=ENVIRONMENT, cwd=folder, capture_output=True, timeout=60
    )


@pytest.fixture
def feed(tmp_path):
    capture(tmp_path / "in.pcap", FRAMES)
    (tmp_path / "files.toml").write_text(APPLIANCE)
    return tmp_path


@pytest.mark.parametrize("output", ["pcap", "pcapng"])
def test_a_closed_standard_error_puts_nothing_into_the_capture(feed, output):
    assert shell(f"twinstamp dedup in.pcap good.{output} --window 5", feed).returncode == 0
    done = shell(f"twinstamp dedup in.pcap - --window 5 --format {output} 2>&- > x.{output}", feed)
    assert done.returncode == 0
    assert (feed / f"x.{output}").read_bytes() == (feed / f"good.{output}").read_bytes()
    if shutil.which("capinfos"):
        subprocess.run(["capinfos", feed / f"x.{output}"], check=True, capture_output=True)


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("run files.toml", "one.pcap"),
        ("run files.toml --quiet", "one.pcap"),
        ("dedup in.pcap o.pcap --window 5", "o.pcap"),
        ("analyse in.pcap --json r.json", "r.json"),
    ],
)
def test_commands_that_need_no_standard_input_or_error_do_without(feed, closed, command, output):
    done = shell(f"twinstamp {command} {closed}", feed)
    assert (done.returncode, done.stderr) == (0, b"") or ("2>&-" not in closed and done.returncode == 0)
    assert (feed / output).stat().st_size > 0


@pytest.mark.parametrize(
    "command",
    ["dedup in.pcap -", "dedup in.pcap - --quiet", "dedup in.pcap o.pcap --json -"],
)
def test_a_closed_standard_output_is_named_and_no_other_file_is_written(feed, command):
    before = (feed / "in.pcap").read_bytes()
    done = shell(f"twinstamp {command} --window 5 >&-", feed)
    assert done.returncode in (1, 2)
    assert done.stderr.count(b"\n") <= 2
    last = done.stderr.splitlines()[-1]
    assert b"standard output" in last
    assert b"Bad file descriptor" in last
    assert b"input" not in last
    assert (feed / "in.pcap").read_bytes() == before


def test_a_closed_standard_input_is_named(feed):
    done = shell("twinstamp dedup - o.pcap --window 5 <&-", feed)
    assert done.returncode != 0
    assert b"standard input" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        "analyse in.pcap",
        "analyse in.pcap --json -",
        "run files.toml",
        "run files.toml --json -",
        "run files.toml --check",
        "dedup in.pcap - --window 5",
        "dedup in.pcap o.pcap --window 5 --json -",
        "rules check rules.toml --json -",
        "rules match in.pcap --rules rules.toml --out -",
        "backends",
    ],
)
def test_a_full_standard_output_is_one_line(feed, command):
    (feed / "rules.toml").write_text('default = "dpi"\n')
    done = shell(f"twinstamp {command} > /dev/full", feed)
    assert done.returncode in (1, 2)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    assert b"No space left on device" in done.stderr.splitlines()[-1]


def test_a_full_standard_error_is_no_traceback(feed):
    done = shell("twinstamp dedup in.pcap o.pcap --window 5 2> /dev/full; echo $?", feed)
    assert done.stdout == b"1\n"
    assert len((feed / "o.pcap").read_bytes()) == 24 + 3 * 76, "the capture is whole all the same"


@pytest.mark.parametrize("command", ["dedup in.pcap o.pcap --window 5 --json full/r.json", "run files.toml"])
def test_a_report_on_a_full_disk_is_one_line(feed, command):
    (feed / "full").mkdir()
    (feed / "full" / "r.json").symlink_to("/dev/full")
    with (feed / "files.toml").open("r+") as file:
        file.write('[appliance]\nreport = "full/r.json"\n' + APPLIANCE)
    done = shell(f"twinstamp {command}", feed)
    assert done.returncode in (1, 2)
    assert b"Traceback" not in done.stderr
    assert b"r.json" in done.stderr.splitlines()[-1]
    assert b"No space left on device" in done.stderr.splitlines()[-1]
