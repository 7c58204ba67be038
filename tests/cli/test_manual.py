# SPDX-License-Identifier: Apache-2.0
"""Man pages and completion say what the parsers know; --json, NO_COLOR and COLUMNS are honoured."""

from __future__ import annotations

import argparse
import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import twinstamp
from twinstamp.cli import COMMANDS, main
from twinstamp.cli.manual import completion, man_pages, parsers
from twinstamp.demo.made import make
from twinstamp.train import to_toml

from tests.examples.test_examples import EXAMPLES


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("feed") / "feed.pcap"
    make(path, quick=True)
    return path


def test_a_page_for_each_command(tmp_path):
    assert main(["manual", "--man", str(tmp_path / "man1")]) == 0
    assert {path.name for path in (tmp_path / "man1").iterdir()} == {
        "twinstamp.1",
        *(f"twinstamp-{name}.1" for name in COMMANDS),
    }


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["manual", "--man", str(tmp_path / "file" / "man1")]) == 2
    assert "cannot be written: Not a directory; give another folder" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(man_pages()))
def test_groff_sets_the_page_and_every_option_is_in_it(name, tmp_path):
    if shutil.which("groff") is None:
        pytest.skip("groff is not installed (Debian package groff)")
    page = tmp_path / name
    page.write_text(man_pages()[name])
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", page], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout).replace("\N{MINUS SIGN}", "-")
    words = " ".join(shown.split())
    command = tuple(name.removesuffix(".1").split("-"))
    for found in parsers():
        if found.path[:2] == command or found.path == command:
            for action in found.parser._actions:
                if action.help == argparse.SUPPRESS:  # what Wireshark asks for, not people
                    continue
                assert all(option in words for option in action.option_strings)
                if action.help and "%" not in action.help:
                    assert " ".join(action.help.replace("\N{MINUS SIGN}", "-").split()) in words


def complete(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = completion("bash") + (
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _twinstamp; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script, "bash", *words], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("twinstamp", ""), list(COMMANDS)),
        (("twinstamp", "tr"), ["train"]),
        (("twinstamp", "train", ""), ["check", "show", "send"]),
        (("twinstamp", "train", "send", "--allow"), ["--allow-unsynchronised", "--allow-late"]),
        (("twinstamp", "dedup", "feed.pcap", "--profile", ""), ["exact", "vlan", "routing", "nat"]),
        (("twinstamp", "dedup", "train"), []),  # a file, which bash itself completes
        (("twinstamp", "rules", "match", "dedup", "--form"), ["--format"]),
        (("twinstamp", "--de"), ["--debug"]),
    ],
)
def test_bash_completes(words, offered):
    assert complete(*words) == offered


def test_zsh_completes():
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed: its completion was not tried")
    script = "autoload -U +X compinit && compinit -u -D; " + completion("zsh") + "print $_comps[twinstamp]"
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True, check=True)
    assert "_bash_complete" in done.stdout


# Tables


def test_json_of_backends_and_of_a_schedule(tmp_path, capsys):
    assert main(["backends", "--json", "-"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["backends"]["cpu"]["usable"] is True
    train = tmp_path / "train.toml"
    made = twinstamp.Train(
        packets=3, gap=twinstamp.Constant("10us"), size=twinstamp.Fixed(90), source="10.0.0.1",
        destination="10.0.0.2", source_mac="02:00:00:00:00:01", destination_mac="02:00:00:00:00:02",
    )  # fmt: skip
    train.write_text(to_toml(made))
    assert main(["train", "show", str(train), "--first", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["packets"] == 3
    assert told["first"] == [
        {"sequence": 0, "ns": 0, "bytes": 90},
        {"sequence": 1, "ns": 10_000, "bytes": 90},
    ]


def on_a_terminal(*arguments: str | Path, **environment: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    # NO_COLOR and COLUMNS of whoever runs the tests must not leak in.
    base = {
        key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR")
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "twinstamp.cli", *arguments],
        env={**base, "TERM": "xterm-256color", **environment},
        stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(theirs)
    text = b""
    try:
        while piece := os.read(ours, 65536):
            text += piece
    except OSError:  # EIO: nobody writes any more
        pass
    os.close(ours)
    assert process.wait(60) == 0, text.decode()
    return text.decode().replace("\r\n", "\n")


COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;0-9]*m")


@pytest.fixture(scope="module")
def tables(feed: Path) -> dict[str, list[str | Path]]:
    folder = feed.parent
    (folder / "appliance.toml").write_text(
        '[[source]]\nfile = "feed.pcap"\n[duplicates]\nprofile = "routing"\nwindow = 100\n'
        '[balance]\ndefault_group = "dpi"\nsecret_file = "key"\n'
        '[[group]]\nname = "dpi"\n[[group.server]]\nname = "dpi0"\nfile = "dpi0.pcapng"\n'
    )
    code = f"import sys; sys.path.insert(0, {str(EXAMPLES)!r}); import made; print(*made.two_captures())"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(folder)}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    sent, received = done.stdout.split()
    return {
        "analyse": ["analyse", feed, "--profile", "routing"],
        "run": ["run", folder / "appliance.toml"],
        "owd": ["owd", "report", received, "--sent", sent],
    }


@pytest.mark.parametrize("command", ["analyse", "run", "owd"])
def test_tables_honour_no_color_and_width(command, tables):
    plain = on_a_terminal(*tables[command], NO_COLOR="1", COLUMNS="100")
    assert COLOUR.search(plain) is None
    drawn = [
        re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line)
        for line in plain.splitlines()
        if any(mark in line for mark in "┃│━─")
    ]
    assert drawn
    assert max(map(len, drawn)) <= 100


def test_help_honours_width():
    narrow = on_a_terminal("dedup", "--help", COLUMNS="60")
    assert max(map(len, narrow.splitlines())) <= 60
    assert len(narrow.splitlines()) > len(on_a_terminal("dedup", "--help", COLUMNS="160").splitlines())
