# SPDX-License-Identifier: Apache-2.0
"""Change in service: rules, groups and servers swapped under load, no frame lost, repeated, reordered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.appliance.control import ask
from twinstamp.errors import TwinstampError
from twinstamp.frames import FrameBatch
from twinstamp.io.live import LiveOutput, LiveSource

from tests.appliance.test_run_files import conversation, flow_of
from tests.appliance.test_run_live import collect, send, until
from tests.conftest import ROOT
from tests.io_live.conftest import ip, net, netns

__all__ = ["net", "netns"]
pytestmark = pytest.mark.root

UDP, TCP = 17, 6


@pytest.fixture
def readable():
    """A folder that other users may read, as pytest's are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


def write(folder: Path, servers: dict[str, str], *, rules: str = "", more: str = "", main: str = "") -> Path:
    """The appliance file with servers {name: TOML} in group dpi."""
    (folder / "rules.toml").write_text(rules)
    listed = "".join(f'[[group.server]]\nname = "{name}"\n{text}\n' for name, text in servers.items())
    path = folder / "a.toml"
    path.write_text(
        f'[appliance]\nreport = "report.json"\ncontrol = "c.sock"\n{main}\n[[source]]\ninterface = "vb"\n'
        '[duplicates]\nprofile = "exact"\nwindow = 1000\n'
        '[balance]\nsecret_file = "balance.key"\nrules = "rules.toml"\n'
        f'[[group]]\nname = "dpi"\n{listed}{more}'
    )
    return path


def interface(k: int, weight: int = 1) -> str:
    return f'interface = "oa{k}"\nweight = {weight}'


class Service:
    """An appliance of a file, in a thread."""

    def __init__(self, path: Path) -> None:
        self.socket = path.parent / "c.sock"
        self.appliance = Appliance(load_appliance(path))
        self.report: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        self.report = self.appliance.run()

    def reload(self) -> dict[str, Any]:
        return ask(self.socket, "reload")

    def received(self, count: int) -> None:
        until(lambda: self.appliance.pipeline.ledger.received.frames == count)

    def stop(self) -> dict[str, Any]:
        self.appliance.stop()
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.report


def drop(protocol: str) -> str:
    return f'[[rule]]\nprotocol = "{protocol}"\naction = "drop"\n'


def test_rules_are_swapped_between_two_batches(net, tmp_path):
    net.pair("oa0", "ob0")
    frames = [frame for _, frame in conversation(20, 1)]
    service = Service(write(tmp_path, {"s0": interface(0)}, rules=drop("udp")))
    with LiveSource("ob0", ring_mib=8, block_timeout_ms=20) as sink:
        send("va", frames)
        service.received(20)
        assert {frame[23] for frame in collect(sink)} == {TCP}
        write(tmp_path, {"s0": interface(0)}, rules=drop("tcp") + drop("sctp"))
        answer = service.reload()
        assert (answer["rules"], answer["groups"], answer["servers"]) == (2, ["dpi"], ["s0"])
        other = [frame[:-1] + b"!" for frame in frames]
        send("va", other)
        service.received(40)
        assert {frame[23] for frame in collect(sink)} == {UDP}
        send("va", other)  # the window has outlived the rules
        service.received(60)
        assert collect(sink) == []
    report = service.stop()
    assert report["ledger"]["duplicates_dropped"]["frames"] == 20
    assert report["ledger"]["rule_drops"]["frames"] == 20
    assert report["rules"] == {"count": 2, "no_match": 10, "hits": {"0": 10}}
    assert "reloaded: 2 rules, 1 servers" in report["events"]


def test_servers_come_and_go_and_only_their_flows_move(net, tmp_path):
    for k in range(3):
        net.pair(f"oa{k}", f"ob{k}")
    flows = [frame for _, frame in conversation(150, 1)]
    service = Service(write(tmp_path, {f"s{k}": interface(k) for k in range(2)}))
    turn = 0

    def places() -> dict[tuple, int]:
        nonlocal turn
        turn += 1
        sinks = [LiveSource(f"ob{k}", ring_mib=8, block_timeout_ms=20) for k in range(3)]
        send("va", [frame[:-1] + bytes([turn]) for frame in flows])
        service.received(turn * len(flows))
        found = {}
        for k, sink in enumerate(sinks):
            for frame in collect(sink):
                assert found.setdefault(flow_of(frame), k) == k
            sink.close()
        assert len(found) == len(flows)
        return found

    first = places()
    write(tmp_path, {f"s{k}": interface(k) for k in range(3)})
    assert service.reload()["servers"] == ["s0", "s1", "s2"]
    second = places()
    moved = {flow for flow in first if first[flow] != second[flow]}
    assert moved and {second[flow] for flow in moved} == {2}
    write(tmp_path, {"s0": interface(0), "s2": interface(2)})
    service.reload()
    third = places()
    assert {flow for flow in first if second[flow] != third[flow]} == {f for f in second if second[f] == 1}
    write(tmp_path, {f"s{k}": interface(k) for k in range(3)})
    service.reload()
    assert places() == second
    write(tmp_path, {"s0": interface(0, 0), "s1": interface(1), "s2": interface(2, 0)})
    service.reload()
    assert set(places().values()) == {1}
    # The same name on another interface.
    write(tmp_path, {"s0": interface(0, 0), "s1": interface(2)})
    service.reload()
    assert set(places().values()) == {2}
    report = service.stop()
    assert sum(server["frames"] for server in report["servers"].values()) == turn * len(flows)
    assert report["servers"]["s2"]["alive"] is False, "taken out"
    assert report["ledger"]["copies"]["send_errors"]["frames"] == 0


def test_a_dead_server_stays_dead_through_a_reload(net, tmp_path):
    for k in range(2):
        net.pair(f"oa{k}", f"ob{k}")
    flows = [frame for _, frame in conversation(60, 1)]
    service = Service(write(tmp_path, {f"s{k}": interface(k) for k in range(2)}))
    pipeline = service.appliance.pipeline
    ip("link", "set", "dev", "ob1", "down")
    until(lambda: not pipeline.servers[1].alive)
    write(tmp_path, {f"s{k}": interface(k) for k in range(2)}, rules=drop("sctp"))
    service.reload()
    with LiveSource("ob0", ring_mib=8, block_timeout_ms=20) as sink:
        send("va", flows)
        service.received(60)
        assert sorted(collect(sink)) == sorted(flows)
    ip("link", "set", "dev", "ob1", "up")
    until(lambda: pipeline.servers[1].alive)
    assert service.stop()["servers"]["s0"]["frames"] == 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[balance]", "[balance]\nhsah = 1"), r"a\.toml: balance\.hsah: unknown key"),
        (('name = "s0"', "name = s0"), r"a\.toml:\d+: .*not TOML"),
        (("window = 1000", "window = 2000"), "needs a restart: duplicates; nothing is changed"),
        (('interface = "vb"', 'interface = "va"'), "needs a restart: source;"),
        (("[appliance]", "[appliance]\nworkers = 2"), r"needs a restart: appliance\.workers;"),
        (("balance.key", "other.key"), r"needs a restart: balance\.secret_file;"),
        (('interface = "oa0"', 'file = "x.pcapng"'), r"needs a restart: server s0 \(a file\);"),
        (('interface = "oa0"', 'interface = "vb"'), "interface vb is a source too"),
        (('rules = "rules.toml"', 'rules = "none.toml"'), r"none\.toml: cannot be read"),
    ],
)
def test_a_bad_file_changes_nothing_and_says_why(net, tmp_path, change, message):
    net.pair("oa0", "ob0")
    path = write(tmp_path, {"s0": interface(0)})
    service = Service(path)
    classifier = service.appliance.pipeline.classifier
    text = path.read_text()
    assert text.count(change[0]) == 1
    path.write_text(text.replace(*change))
    with pytest.raises(TwinstampError, match=message):
        service.reload()
    assert service.appliance.pipeline.classifier is classifier
    frames = [frame for _, frame in conversation(20, 1)]
    with LiveSource("ob0", ring_mib=8, block_timeout_ms=20) as sink:
        send("va", frames)
        service.received(20)
        assert collect(sink) == frames
    path.write_text(text)
    service.reload()
    events = service.stop()["events"]
    assert len(events) == 2 and events[0].startswith("not reloaded: ") and events[1].startswith("reloaded: ")


def test_mistakes_in_the_rules_name_their_line(net, tmp_path):
    net.pair("oa0", "ob0")
    service = Service(write(tmp_path, {"s0": interface(0)}))
    for rules, message in (
        (drop("udp") + '[[rule]]\nprotocol = "upd"\naction = "drop"\n', "rule 1"),
        ('[[rule]]\nprotocol = "udp"\naction = "ids"\n', "group ids has no servers"),
    ):
        write(tmp_path, {"s0": interface(0)}, rules=rules)
        with pytest.raises(TwinstampError, match=message):
            service.reload()
    service.stop()


def storm(tmp_path: Path, reloads: int, pause_s: float) -> None:
    """Frames with a number each, in order, while the file is changed and read again."""
    variants = [
        {"rules": "", "servers": {"s0": interface(0), "s1": interface(1, 0)}},
        {"rules": drop("sctp"), "servers": {"s0": interface(0)}},
        {"rules": "".join(drop(p) for p in ("sctp", "gre", "ospf")), "servers": {"s0": interface(0, 7)}},
    ]
    service = Service(write(tmp_path, **variants[0]))
    base = conversation(1, 1)[0][1]
    done = threading.Event()
    sent = [0]

    def generate() -> None:
        with LiveOutput("va") as output:
            while not done.is_set():
                frames = [base[:38] + (sent[0] + i).to_bytes(4, "big") + bytes(18) for i in range(64)]
                batch = FrameBatch.from_frames(frames)
                assert output.send(batch, np.arange(64, dtype=np.uint32)).sent == 64
                sent[0] += 64
                time.sleep(0.002)

    got: list[bytes] = []
    pauses = []
    with LiveSource("ob0", ring_mib=64, block_timeout_ms=5) as sink:

        def take() -> None:
            while (batch := sink.poll(0)) is not None:
                with batch:
                    data, offset = batch.data, batch.offset
                    got.extend(bytes(data[at + 38 : at + 42]) for at in offset.astype(int))

        generator = threading.Thread(target=generate)
        generator.start()
        for k in range(1, reloads + 1):
            write(tmp_path, **variants[k % 3])
            pauses.append(service.reload()["pause_ns"])
            take()
            time.sleep(pause_s)
        done.set()
        generator.join()
        service.received(sent[0])
        report = service.stop()
        time.sleep(0.1)
        take()
    numbers = [int.from_bytes(raw, "big") for raw in got]
    assert len(numbers) == sent[0] == report["ledger"]["forwarded"]["frames"]
    assert numbers == list(range(sent[0])), "lost, repeated or out of order"
    assert report["ledger"]["dropped_before_received"] == 0
    assert report["ledger"]["copies"]["send_errors"]["frames"] == 0
    pauses.sort()
    print(
        f"{reloads} reloads over {sent[0]} frames: pause median {pauses[len(pauses) // 2] / 1e6:.2f} ms, "
        f"longest {pauses[-1] / 1e6:.2f} ms; added delay p99 {report['added_delay_ns']['p99'] / 1e6:.2f} ms"
    )
    assert pauses[len(pauses) * 9 // 10] < 5_000_000 and pauses[-1] < 20_000_000


def test_a_storm_of_reloads_under_load(net, tmp_path):
    for k in range(2):
        net.pair(f"oa{k}", f"ob{k}")
    storm(tmp_path, int(os.environ.get("TWINSTAMP_RELOADS", "60")), 0.005)


def test_sighup_reloads_a_service(net, tmp_path):
    net.pair("oa0", "ob0")
    path = write(tmp_path, {"s0": interface(0)})
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'host'}:{ROOT / 'gpu_kernels'}"}
    command = [sys.executable, "-m", "twinstamp.cli"]
    with subprocess.Popen(
        [*command, "run", "--quiet", str(path)],
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # ignored under nohup
    ) as child:
        try:
            until(lambda: (tmp_path / "c.sock").exists(), 20)
            until(lambda: ask(tmp_path / "c.sock", "status")["reloads"] == 0)
            time.sleep(0.3)
            write(tmp_path, {"s0": interface(0)}, rules=drop("udp"))
            child.send_signal(signal.SIGHUP)
            until(lambda: ask(tmp_path / "c.sock", "status")["reloads"] == 1)
            path.write_text("[")
            child.send_signal(signal.SIGHUP)
            until(lambda: "not reloaded" in str(ask(tmp_path / "c.sock", "status")["events"]))
            write(tmp_path, {"s0": interface(0)}, rules=drop("tcp"))
            told = subprocess.run(
                [*command, "reload", str(path)], env=environment, capture_output=True, text=True, check=True
            )
            assert "1 rules, 1 groups, 1 servers; the forwarding paused for" in told.stdout
            child.send_signal(signal.SIGTERM)
            assert child.wait(20) == 0
        finally:
            child.kill()
    assert not (tmp_path / "c.sock").exists()
    assert json.loads((tmp_path / "report.json").read_text())["rules"]["count"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: needs root")
def test_after_user_what_needs_rights_is_refused_and_nothing_is_changed(net, readable):
    tmp_path = readable
    for k in range(2):
        net.pair(f"oa{k}", f"ob{k}")
    path = write(tmp_path, {"s0": interface(0)}, main='user = "nobody"')
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'host'}:{ROOT / 'gpu_kernels'}"}
    command = [sys.executable, "-m", "twinstamp.cli", "run", "--quiet", str(path)]
    with subprocess.Popen(command, env=environment) as child:
        try:
            until(lambda: (tmp_path / "c.sock").exists(), 20)
            until(lambda: ask(tmp_path / "c.sock", "status")["pid"] == child.pid)
            write(tmp_path, {f"s{k}": interface(k) for k in range(2)}, main='user = "nobody"')
            with pytest.raises(TwinstampError, match="oa1"):
                ask(tmp_path / "c.sock", "reload")
            assert list(ask(tmp_path / "c.sock", "status")["servers"]) == ["s0"]
            write(tmp_path, {"s0": interface(0)}, rules=drop("udp"), main='user = "nobody"')
            assert ask(tmp_path / "c.sock", "reload")["rules"] == 1
            child.send_signal(signal.SIGTERM)
            assert child.wait(20) == 0
        finally:
            child.kill()
