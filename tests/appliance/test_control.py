# SPDX-License-Identifier: Apache-2.0
"""The control socket: its protocol, its rights, clients that misbehave, and `twinstamp status`."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.appliance.control import Control, ask
from twinstamp.appliance.events import Events
from twinstamp.cli import main
from twinstamp.errors import ConfigError, DeviceError, TwinstampError

from tests.appliance.test_run_files import appliance, conversation, write_pcap


def refuses(request: Any) -> dict[str, Any]:
    raise ConfigError("line 3: no such group")


@pytest.fixture
def control(tmp_path):
    made = Control(
        tmp_path / "c.sock",
        {"status": lambda request: {"n": 1, "asked": dict(request)}, "reload": refuses, "big": big},
    )
    made.start()
    yield made
    made.close()


def big(request: Any) -> dict[str, Any]:
    return {"text": "x" * (4 << 20)}


def talk(path: Path, sent: bytes, *, lines: int) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.sendall(sent)
        got = b""
        while got.count(b"\n") < lines:
            part = client.recv(65536)
            if not part:
                break
            got += part
    return [json.loads(line) for line in got.splitlines()]


def test_one_object_a_line_in_and_out(control):
    asked = {"command": "status", "x": 1}
    assert talk(control.path, json.dumps(asked).encode() + b"\n", lines=1) == [
        {"ok": True, "result": {"n": 1, "asked": asked}}
    ]
    several = b'{"command": "reload"}\n\n  \n{"command": "status"}\n'
    first, second = talk(control.path, several, lines=2)
    assert first == {"ok": False, "error": "line 3: no such group"} and second["ok"]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"status", "not one JSON object"),
        (b"\xff\xfe", "not one JSON object"),
        (b"[" * 50_000, "not one JSON object"),
        (b'["status"]', "not a JSON object"),
        (b"{}", "unknown command 'None'; known are status, reload, big"),
        (b'{"command": "stop"}', "unknown command 'stop'"),
        (b'{"command": ["status"]}', "unknown command"),
        (b"x" * 70_000, "a line of over"),
    ],
)
def test_what_is_no_request_gets_an_answer_that_says_so(control, line, error):
    (answer,) = talk(control.path, line + b"\n", lines=1)
    assert answer["ok"] is False and error in answer["error"]
    assert ask(control.path, "status")["n"] == 1


def test_a_line_may_come_in_pieces(control):
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(control.path))
        for byte in b'{"command": "status"}\n':
            client.send(bytes([byte]))
        assert json.loads(client.recv(65536))["ok"]


def test_clients_that_misbehave_hold_nobody_up(control):
    """Who never reads, who goes in the middle, who opens more connections than there may be."""
    lazy = socket.socket(socket.AF_UNIX)
    lazy.connect(str(control.path))
    lazy.setblocking(False)
    try:
        for _ in range(40):
            lazy.send(b'{"command": "big"}\n')
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        pass
    assert ask(control.path, "status", timeout_s=5)["n"] == 1
    gone = socket.socket(socket.AF_UNIX)
    gone.connect(str(control.path))
    gone.send(b'{"command": "sta')
    gone.close()
    assert ask(control.path, "status", timeout_s=5)["n"] == 1
    many = [socket.socket(socket.AF_UNIX) for _ in range(100)]
    for client in many:
        client.connect(str(control.path))
    for client in many:
        client.close()
    time.sleep(0.2)
    assert ask(control.path, "status", timeout_s=5)["n"] == 1
    assert len(ask(control.path, "big")["text"]) == 4 << 20
    lazy.close()


def test_the_socket_is_its_owners_and_goes_with_the_appliance(control):
    assert stat.S_IMODE(control.path.stat().st_mode) == 0o600
    control.close()
    assert not control.path.exists()
    with pytest.raises(DeviceError, match="no appliance answers there"):
        ask(control.path, "status")


def test_what_is_in_the_sockets_place(tmp_path):
    path = tmp_path / "c.sock"
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(path))
    stale.close()  # as kill -9 leaves it
    first = Control(path, {})
    first.start()
    with pytest.raises(ConfigError, match="another appliance listens there"):
        Control(path, {})
    first.close()
    path.write_text("a file")
    with pytest.raises(ConfigError, match="is there and no socket"):
        Control(path, {})
    assert path.read_text() == "a file"
    with pytest.raises(ConfigError, match="107 bytes"):
        Control(tmp_path / ("x" * 108), {})
    with pytest.raises(ConfigError, match="cannot be made: No such file"):
        Control(tmp_path / "none" / "c.sock", {})


def test_a_socket_that_somebody_else_has_made_since_stays(tmp_path):
    path = tmp_path / "c.sock"
    first = Control(path, {})
    path.unlink()
    second = Control(path, {})
    first.close()
    assert path.exists()
    second.close()


def test_errors_of_the_appliance_are_the_callers(control):
    with pytest.raises(TwinstampError, match="line 3: no such group"):
        ask(control.path, "reload")


@pytest.fixture
def waiting(tmp_path):
    """An appliance that reads from a pipe that stays open, with 100 frames in it."""
    write_pcap(tmp_path / "whole.pcap", conversation(10, 10))
    os.mkfifo(tmp_path / "feed")
    path = appliance(tmp_path, files=["feed"], servers=2)
    path.write_text(path.read_text().replace("[appliance]", '[appliance]\ncontrol = "c.sock"'))
    feed = os.open(tmp_path / "feed", os.O_RDWR)
    os.write(feed, (tmp_path / "whole.pcap").read_bytes())
    running = Appliance(load_appliance(path))
    thread = threading.Thread(target=running.run)
    thread.start()
    limit = time.monotonic() + 10
    while running.pipeline.ledger.received.frames < 100 and time.monotonic() < limit:
        time.sleep(0.01)
    yield path
    running.stop()
    os.write(feed, (tmp_path / "whole.pcap").read_bytes()[24:])  # it waits for more
    thread.join(10)
    os.close(feed)
    assert not thread.is_alive()


def test_status_of_a_running_appliance(waiting, capsys):
    for target in (waiting, waiting.parent / "c.sock"):
        assert main(["status", "--json", str(target)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["pid"] == os.getpid() and found["file"] == str(waiting)
        # The counters of a look at most a quarter of a second old when the last batch came.
        assert set(found["servers"]) == {"s0", "s1"} and found["reloads"] == 0
        assert found["ledger"]["received"]["frames"] in (0, 100)
    assert main(["status", str(waiting)]) == 0
    assert "Ledger" in capsys.readouterr().out


def test_an_appliance_that_waits_for_its_input_says_so(waiting, capsys):
    """A reload is done between two batches; where none comes, nothing is changed."""
    from twinstamp.appliance import run as module

    before, module._REQUEST_S = module._REQUEST_S, 0.3
    try:
        assert main(["reload", str(waiting)]) == 1
    finally:
        module._REQUEST_S = before
    assert "nothing is changed" in capsys.readouterr().err


def test_status_without_an_appliance(tmp_path, capsys):
    write_pcap(tmp_path / "feed.pcap", conversation(1, 1))
    path = appliance(tmp_path, files=["feed.pcap"])
    assert main(["status", str(path)]) == 2
    assert 'add control = "twinstamp.sock"' in capsys.readouterr().err
    assert main(["status", str(tmp_path / "none.toml")]) == 2
    path.write_text(path.read_text().replace("[appliance]", '[appliance]\ncontrol = "c.sock"'))
    assert main(["status", str(path)]) == 1
    assert "no appliance answers there" in capsys.readouterr().err


def test_what_comes_when_the_run_has_ended_is_refused_at_once(tmp_path):
    write_pcap(tmp_path / "feed.pcap", conversation(2, 2))
    running = Appliance(load_appliance(appliance(tmp_path, files=["feed.pcap"])))
    outcome: list[str] = []

    def ask_it() -> None:
        try:
            running._in_loop(lambda: outcome.append("done"))
        except TwinstampError as error:
            outcome.append(str(error))

    running.run()
    began = time.monotonic()
    asking = threading.Thread(target=ask_it)
    asking.start()
    asking.join(10)
    assert outcome == ["the run has ended; nothing is changed"] and time.monotonic() - began < 1


def test_events_of_a_year_fit_into_memory():
    events = Events()
    for k in range(5000):
        events.append(str(k))
    assert len(events) == 2000 and events.left_out == 3000
    told = events.told()
    assert told[:1000] == [str(k) for k in range(1000)]
    assert told[1000] == "3000 events are left out here"
    assert told[1001:] == [str(k) for k in range(4000, 5000)]
    few = Events()
    few.append("one")
    assert few.told() == ["one"]
