# SPDX-License-Identifier: Apache-2.0
"""Each of the likeliest mistakes gets the answer that mistakes.py has, in one line and without a trace."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from twinstamp.cli import COMMANDS, main

from tests.cli.mistakes import MISTAKES, prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mistakes")
    prepare(made)
    return made


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """A UDP port that somebody else has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        yield other.getsockname()[1]


def test_every_command_is_in_the_table():
    assert {typed.split()[0] for rows in MISTAKES.values() for typed, _ in rows} >= set(COMMANDS)


@pytest.mark.parametrize(("typed", "answer"), [row for rows in MISTAKES.values() for row in rows])
def test_a_mistake_gets_a_clear_answer(typed, answer, folder, taken, capsys, monkeypatch):
    monkeypatch.setenv("TWINSTAMP_SIM", "/nowhere.so")
    try:
        status = main(typed.format(d=folder, taken=taken).split())
    except SystemExit as end:  # argparse
        status = int(end.code or 0)
    assert status in (1, 2)
    told = capsys.readouterr().err.strip().splitlines()
    assert answer.replace("{d}", str(folder)).replace("{taken}", str(taken)) in told[-1]
    if not told[0].startswith("usage:"):
        assert len(told) == 1
