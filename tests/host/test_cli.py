# SPDX-License-Identifier: Apache-2.0
"""The `twinstamp` command as people and scripts use it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from twinstamp.cli import COMMANDS, build_parser, main

from tests.conftest import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'host'}:{ROOT / 'gpu_kernels'}"}


def twinstamp(*arguments: object, **options: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "twinstamp.cli", *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60, **options)


def capture(path: Path, payloads: list[bytes], cut: int = 0) -> Path:
    raw = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    for i, payload in enumerate(payloads):
        raw += struct.pack("<IIII", 1, i, len(payload), len(payload)) + payload
    path.write_bytes(raw[: len(raw) - cut])
    return path


FRAMES = [bytes([value]) * 60 for value in (1, 2, 1, 3, 3)]


def test_a_report_adds_up_and_the_output_follows_its_name(tmp_path):
    source = capture(tmp_path / "in.pcap", FRAMES)
    done = twinstamp("dedup", source, tmp_path / "out.pcapng", "--window", 5, "--json", "-")
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["ledger"]["received"] == {"frames": 5, "bytes": 300}
    assert report["ledger"]["forwarded"] == {"frames": 3, "bytes": 180}
    assert report["ledger"]["duplicates_dropped"] == {"frames": 2, "bytes": 120}
    assert report["duplicates"]["by_type"]["exact"]["distance"]["max"] == 2
    assert report["truncated"] is None
    assert b"5 frames, 2 duplicates (40.0 %): exact 2" in done.stderr
    assert (tmp_path / "out.pcapng").read_bytes()[:4] == bytes.fromhex("0a0d0d0a")


def test_standard_input_and_output(tmp_path):
    source = capture(tmp_path / "in.pcap", FRAMES)
    done = twinstamp("dedup", "-", "-", "--window", 5, "--quiet", input=source.read_bytes())
    assert done.returncode == 0
    assert done.stdout == capture(tmp_path / "want.pcap", FRAMES[:2] + FRAMES[3:4]).read_bytes().replace(
        struct.pack("<II", 1, 2), struct.pack("<II", 1, 3)
    )


def test_tags_are_comments(tmp_path):
    source = capture(tmp_path / "in.pcap", FRAMES)
    assert (
        main(
            ["dedup", "--quiet", "--window", "5", "--action", "tag", str(source), str(tmp_path / "o.pcapng")]
        )
        == 0
    )
    shown = subprocess.run(
        ["tshark", "-r", tmp_path / "o.pcapng", "-T", "fields", "-e", "frame.comment"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")[:-1]
    tag = "twinstamp: duplicate (exact)"
    assert shown == ["", "", tag, "", tag]


def test_counting_leaves_all_frames_and_needs_no_output(tmp_path, capsys):
    source = capture(tmp_path / "in.pcap", FRAMES)
    assert main(["dedup", "--window", "5", "--action", "count", str(source)]) == 0
    assert "2 duplicates" in capsys.readouterr().err
    assert (
        main(
            ["dedup", "--quiet", "--window", "5", "--action", "count", str(source), str(tmp_path / "o.pcap")]
        )
        == 0
    )
    assert (tmp_path / "o.pcap").read_bytes() == source.read_bytes()


def test_a_capture_cut_short_says_so(tmp_path, capsys):
    source = capture(tmp_path / "in.pcap", FRAMES, cut=10)
    assert main(["dedup", "--window", "5", str(source), str(tmp_path / "o.pcap")]) == 0
    text = capsys.readouterr().err
    assert "4 frames, 1 duplicates" in text
    assert "in.pcap" in text.splitlines()[-1]


def test_damage_in_the_middle_keeps_what_came_before(tmp_path, capsys):
    source = capture(tmp_path / "in.pcap", FRAMES)
    with source.open("ab") as file:
        file.write(struct.pack("<IIII", 1, 9, 0x70000000, 60) + bytes(64))
    assert main(["dedup", "--window", "5", str(source), str(tmp_path / "o.pcap")]) == 1
    assert "the 5 frames before it were processed" in capsys.readouterr().err
    assert len((tmp_path / "o.pcap").read_bytes()) == 24 + 3 * 76


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dedup", "IN", "OUT"], "--window"),
        (["dedup", "IN", "--window", "5"], "OUT is missing"),
        (["dedup", "IN", "IN", "--window", "5"], "IN"),
        (["dedup", "IN", "OUT", "--window", "1000001"], "1000000"),
        (["dedup", "IN", "OUT", "--time", "5 ells"], "--time"),
        (["dedup", "IN", "OUT", "--window", "5", "--keep", "apr"], "apr"),
        (["dedup", "IN", "OUT", "--window", "5", "--ignore-bytes", "-1"], "-1"),
        (["dedup", "IN", "OUT", "--window", "5", "--profile", "nat", "--ignore-bytes", "4"], "exact"),
        (["dedup", "IN", "OUT", "--window", "5", "--action", "tag"], "pcapng"),
        (["dedup", "IN", "OUT", "--window", "5", "--profile", "nat"], "pcapng"),
        (["dedup", "IN", "OUT", "--window", "5", "--workers", "0"], "workers"),
        (["dedup", "nowhere.pcap", "OUT", "--window", "5"], "nowhere.pcap"),
        (["run", "nowhere.toml"], "nowhere.toml"),
    ],
)
def test_bad_use_is_one_line_and_exit_2(arguments, words, tmp_path, capsys):
    names = {"IN": str(capture(tmp_path / "in.pcap", FRAMES)), "OUT": str(tmp_path / "out.pcap")}
    code = main([names.get(argument, argument) for argument in arguments])
    text = capsys.readouterr().err
    assert code in (1, 2)
    assert code == 2 or "nowhere.pcap" in text
    assert len(text.splitlines()) == 1, text
    assert names.get(words, words) in text


def test_not_a_capture(tmp_path, capsys):
    (tmp_path / "in.pcap").write_text("hello, world, this is text")
    assert main(["dedup", "--window", "5", str(tmp_path / "in.pcap"), str(tmp_path / "o.pcap")]) == 1
    assert "in.pcap" in capsys.readouterr().err


def test_debug_shows_the_trace(tmp_path):
    done = twinstamp("--debug", "dedup", tmp_path / "none.pcap", tmp_path / "o.pcap", "--window", 5)
    assert done.returncode != 0
    assert b"Traceback" in done.stderr


def test_a_reader_that_goes_away_is_no_traceback(tmp_path):
    source = capture(tmp_path / "in.pcap", [os.urandom(1400) for _ in range(3000)])
    command = (
        f'"{sys.executable}" -m twinstamp.cli dedup "{source}" - --window 5 --quiet | head -c 100 > /dev/null'
    )
    done = subprocess.run(["bash", "-c", command], env=ENVIRONMENT, capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command):
    done = twinstamp(command, "--help")
    assert done.returncode == 0
    assert f"usage: twinstamp {command}".encode() in done.stdout


def test_the_list_of_commands():
    parser = build_parser()
    text = parser.format_help()
    for name, (_, line) in COMMANDS.items():
        assert name in text
        assert line in " ".join(text.split())


def test_no_command_and_an_unknown_one():
    assert twinstamp().returncode == 2
    done = twinstamp("dedupe")
    assert done.returncode == 2
    assert b"dedup" in done.stderr


@pytest.mark.parametrize("victim", ["in.pcap", "out.pcap"])
def test_a_report_never_overwrites_a_capture(tmp_path, capsys, victim):
    source = capture(tmp_path / "in.pcap", FRAMES)
    before = source.read_bytes()
    arguments = ["dedup", str(source), str(tmp_path / "out.pcap"), "--window", "5", "--json"]
    assert main([*arguments, str(tmp_path / "." / victim)]) == 2
    assert "same file" in capsys.readouterr().err
    assert source.read_bytes() == before


@pytest.mark.parametrize("number", [2, 15])
def test_a_signal_leaves_a_valid_output(tmp_path, number):
    """From a pipe that stays open: what was written is whole records."""
    source = capture(tmp_path / "in.pcap", [os.urandom(100) for _ in range(50)])
    command = [sys.executable, "-m", "twinstamp.cli", "dedup", "-", tmp_path / "o.pcap", "--window", "5"]
    with subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        child.stdin.write(source.read_bytes())
        child.stdin.flush()
        time.sleep(1.5)
        child.send_signal(number)
        _, text = child.communicate(timeout=20)
    assert child.returncode != 0
    assert b"Traceback" not in text
    if number == 2:
        assert child.returncode == 130
    shown = subprocess.run(["capinfos", "-c", "-M", tmp_path / "o.pcap"], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
