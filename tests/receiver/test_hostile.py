# SPDX-License-Identifier: Apache-2.0
"""Hostile bytes on a real line, with the commands reading: no hang, no trace, no made-up time."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from twinstamp.cli import main
from twinstamp_gps.configure import TimingSettings, apply, find, plan
from twinstamp_gps.errors import ReceiverError
from twinstamp_gps.port import Receiver
from twinstamp_gps.serve import PtyLine, Runner

from tests.receiver.streams import every_message, receiver


def hostile(seed: int, size: int) -> bytes:
    """Frames whole, flipped, cut and nested, headers of any length, plain noise."""
    draw = random.Random(seed)
    frames = every_message()
    out = bytearray()
    while len(out) < size:
        frame = bytearray(draw.choice(frames))
        kind = draw.randrange(6)
        if kind == 0:
            out += frame
        elif kind == 1:
            frame[draw.randrange(len(frame))] ^= 1 << draw.randrange(8)
            out += frame
        elif kind == 2:
            out += frame[: draw.randrange(len(frame))]
        elif kind == 3:
            out += b"\xb5\x62" + draw.randbytes(4)
        elif kind == 4:
            out += b"$" + bytes(draw.randrange(32, 127) for _ in range(draw.randrange(200)))
        else:
            out += draw.randbytes(draw.randrange(80))
    return bytes(out)


@contextmanager
def shouting(data: bytes, rate: int = 92_160) -> Iterator[str]:
    """A line on which ``data`` comes over and over, at ``rate`` bytes a second."""
    line = PtyLine()
    stop = threading.Event()

    def shout() -> None:
        at, start, sent = 0, time.monotonic(), 0
        while not stop.is_set():
            due = int((time.monotonic() - start) * rate) - sent
            chunk = data[at : at + max(0, min(due, 2048))]
            if chunk:
                line.write(chunk)
            sent += len(chunk)
            at = (at + len(chunk)) % len(data)
            time.sleep(0.005)

    thread = threading.Thread(target=shout, daemon=True)
    thread.start()
    try:
        yield line.address
    finally:
        stop.set()
        thread.join(5)
        line.close()


def test_status_of_a_hostile_line(capsys: pytest.CaptureFixture[str]) -> None:
    """At the rate of the fastest line; it ends when told to, and knows only what whole frames said."""
    with shouting(hostile(1, 200_000)) as port:
        start = time.monotonic()
        assert main(["clock", "status", "--receiver", port, "--seconds", "2"]) == 0
        assert time.monotonic() - start < 6
        assert main(["clock", "status", "--receiver", port, "--json"]) == 0
    *lines, tail = capsys.readouterr().out.split("{", 1)
    assert lines[0].count("\n") == 2
    status = json.loads("{" + tail)["receiver"]
    assert status["damaged"] > 0
    assert status["utc"] in ("", "2026-11-20T12:34:56Z")
    assert status["qerr_ps"] in (None, -4321)


@pytest.mark.parametrize("data", [b"\xb5\x62\x01\x07\xff\x0f" * 2000, b"$" * 4000, bytes(4000)])
def test_configure_gives_up_on_noise(data: bytes) -> None:
    with shouting(data) as port, pytest.raises(ReceiverError, match="no answer"):
        find(port, [9600])


def test_configure_through_noise() -> None:
    """Noise between the answers of a true receiver, as of a bad cable."""
    simulated = receiver("f9t", configured=False)
    line = PtyLine()
    command = simulated.command
    draw = random.Random(4)
    simulated.command = lambda data: draw.randbytes(30) + command(data) + draw.randbytes(30)  # type: ignore[method-assign]
    with Runner(simulated, line):
        port, _ = find(line.address)
        with port:
            apply(port, plan("f9t", TimingSettings(mode="fixed")), baud=115_200)
            assert port.counts.damaged + port.counts.skipped_bytes > 0


@pytest.mark.long
@pytest.mark.parametrize("seed", range(20))
def test_a_megabyte_of_hostile_bytes(seed: int) -> None:
    """Through a pipe of any chunks: bounded buffer, every byte accounted for."""
    from twinstamp_gps.messages import decode
    from twinstamp_gps.stream import MAX_PAYLOAD, StreamSplitter

    draw = random.Random(seed)
    data = hostile(seed, 1_000_000)
    splitter = StreamSplitter()
    at = out = 0
    while at < len(data):
        size = draw.randrange(1, 5000)
        for frame in splitter.feed(data[at : at + size]):
            out += len(frame.data)
            decode(frame)
        at += size
        assert splitter.pending <= MAX_PAYLOAD + 8
    out += sum(len(frame.data) for frame in splitter.give_up())
    assert out + splitter.counts.skipped_bytes == len(data)


def test_reader_keeps_what_came_before_the_line_went() -> None:
    line = PtyLine()
    port = Receiver(line.address)
    line.write(b"".join(every_message()))
    time.sleep(0.1)
    seen = port.poll()
    assert len(seen) == len(every_message())
    line.close()
    with port, pytest.raises(ReceiverError, match="gone"):
        for _ in range(20):
            port.poll()
