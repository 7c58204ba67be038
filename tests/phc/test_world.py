# SPDX-License-Identifier: Apache-2.0
"""The machine's side of the calls: a receiver's line that comes, goes and comes again, and waiting."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from twinstamp.phc.device import RealWorld
from twinstamp_gps.errors import ReceiverError, SettingError
from twinstamp_gps.serve import PtyLine


def _read(world: RealWorld, want: bytes, seconds: float = 10) -> bytes:
    data, end = b"", time.monotonic() + seconds
    while want not in data and time.monotonic() < end:
        world.wait(0.1)
        data += world.bytes()
    return data


def test_a_receiver_that_goes_and_comes_back(tmp_path: Path) -> None:
    link = str(tmp_path / "receiver")
    said: list[str] = []
    line = PtyLine(link)
    world = RealWorld([], link, say=said.append)
    line.write(b"\xb5b hello")
    assert b"\xb5b hello" in _read(world, b"hello")
    line.close()
    end = time.monotonic() + 5
    while not said and time.monotonic() < end:
        world.wait(0.05)
        assert world.bytes() == b""
    assert "gone" in said[0] and "tried again each second" in said[0]
    world.wait(0.01)  # it is away: nothing is raised
    again = PtyLine(link)
    end = time.monotonic() + 10
    while len(said) < 2 and time.monotonic() < end:
        world.wait(0.05)
        world.bytes()
    assert said[1].endswith("here again")
    again.write(b"more")
    assert b"more" in _read(world, b"more")
    world.close()
    again.close()


def test_waiting_ends_with_an_event() -> None:
    read, write = os.pipe()
    world = RealWorld([read], None)
    begin = time.monotonic()
    world.wait(0.2)
    assert time.monotonic() - begin >= 0.19
    os.write(write, b"x")
    begin = time.monotonic()
    world.wait(30)
    assert time.monotonic() - begin < 10
    assert world.bytes() == b""
    assert world.boot_ns() > 0 and world.raw_ns() > 0
    os.close(read)
    os.close(write)
    world.close()


def test_a_receiver_that_never_was(tmp_path: Path) -> None:
    with pytest.raises(ReceiverError, match="cannot be opened"):
        RealWorld([], str(tmp_path / "nothing"))
    with pytest.raises(SettingError, match="baud"):
        RealWorld([], "/dev/null", 1234)
