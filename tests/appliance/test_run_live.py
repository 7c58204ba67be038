# SPDX-License-Identifier: Apache-2.0
"""The appliance on interfaces, in namespaces of the tests' own: taps, death and return of a server, stop."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from twinstamp.appliance import Appliance, parse_appliance
from twinstamp.frames import FrameBatch
from twinstamp.io import open_capture
from twinstamp.io.live import LiveOutput, LiveSource

from tests.appliance.test_run_files import conversation, flow_of, routed, write_pcap
from tests.io_live.conftest import ip, net, netns

__all__ = ["net", "netns"]
pytestmark = pytest.mark.root
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")


class Running:
    """An appliance in a thread (a namespace belongs to a thread, so it is opened on the caller's)."""

    def __init__(
        self, document: dict[str, Any], folder: Any, *, fails: type[Exception] | None = None
    ) -> None:
        self._fails = fails
        self.appliance = Appliance(parse_appliance(document, folder))
        self.report: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        if self._fails is None:
            self.report = self.appliance.run()
        else:
            with pytest.raises(self._fails):
                self.appliance.run()

    def stop(self) -> dict[str, Any]:
        self.appliance.stop()
        self._thread.join(20)
        assert not self._thread.is_alive(), "the appliance did not stop"
        return self.report


def collect(source: LiveSource, seconds: float = 0.3) -> list[bytes]:
    found = []
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        batch = source.poll(0.05)
        if batch is not None:
            with batch:
                found += [batch.frame(i) for i in range(len(batch))]
    return found


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "did not happen in time"
        time.sleep(0.02)


def document(
    servers: dict[str, dict[str, Any]], sources: tuple[str, ...] = ("vb",), **duplicates: Any
) -> dict[str, Any]:
    return {
        "source": [{"interface": name} for name in sources],
        "duplicates": {"profile": "routing", "window": 10_000, **duplicates},
        "balance": {"secret_file": "balance.key"},
        "group": [{"name": "dpi", "server": [{"name": name, **entry} for name, entry in servers.items()]}],
    }


def send(interface: str, frames: list[bytes], pause_s: float = 0.0) -> None:
    with LiveOutput(interface) as output:
        batch = FrameBatch.from_frames(frames)
        for begin in range(0, len(frames), 64):
            index = np.arange(begin, min(begin + 64, len(frames)), dtype=np.uint32)
            assert output.send(batch, index).sent == len(index)
            if pause_s:
                time.sleep(pause_s)


def test_two_taps_with_exact_and_routed_copies(net, tmp_path):
    """The second tap sees each frame behind a router; servers get each frame once, flows whole."""
    for k in range(2):
        net.pair(f"oa{k}", f"ob{k}")
    net.pair("wa", "wb")
    original = [frame for _, frame in conversation(40, 10)]
    sinks = [LiveSource(f"ob{k}", ring_mib=8, block_timeout_ms=50) for k in range(2)]
    running = Running(
        document({"s0": {"interface": "oa0"}, "s1": {"interface": "oa1"}}, ("vb", "wb"), time="1s"), tmp_path
    )
    with LiveOutput("va") as first, LiveOutput("wa") as second:
        one, other = FrameBatch.from_frames(original), FrameBatch.from_frames([routed(f) for f in original])
        for i in range(len(original)):
            index = np.array([i], np.uint32)
            first.send(one, index)
            first.send(one, index)
            time.sleep(0.0001)
            second.send(other, index)
    until(lambda: running.appliance.pipeline.ledger.received.frames == 3 * len(original))
    report = running.stop()
    outputs = [collect(sink) for sink in sinks]
    for sink in sinks:
        sink.close()
    assert sorted(outputs[0] + outputs[1]) == sorted(original)
    assert not {flow_of(f) for f in outputs[0]} & {flow_of(f) for f in outputs[1]}
    by_type = {name: count["frames"] for name, count in report["duplicates"]["by_type"].items()}
    assert by_type["exact"] == len(original)
    assert by_type["routing"] == len(original)
    assert report["ledger"]["dropped_before_received"] == 0
    assert report["ledger"]["forwarded"]["frames"] == len(original)
    assert report["added_delay_ns"]["max"] > 0


def test_a_servers_death_and_return_move_only_its_own_flows(net, tmp_path):
    names = [f"oa{k}" for k in range(3)]
    for k in range(3):
        net.pair(f"oa{k}", f"ob{k}")
    flows = [frame for _, frame in conversation(120, 1)]
    running = Running(document({f"s{k}": {"interface": names[k]} for k in range(3)}, window=2), tmp_path)

    def places() -> dict[tuple, int]:
        sinks = {k: LiveSource(f"ob{k}", ring_mib=8, block_timeout_ms=50) for k in range(3) if k not in dead}
        before = running.appliance.pipeline.ledger.received.frames
        send("va", flows)
        until(lambda: running.appliance.pipeline.ledger.received.frames == before + len(flows))
        place = {}
        for k, sink in sinks.items():
            for frame in collect(sink):
                assert place.setdefault(flow_of(frame), k) == k
            sink.close()
        assert len(place) == len(flows)
        return place

    dead: set[int] = set()
    first = places()
    dead.add(1)
    ip("link", "set", "dev", "ob1", "down")
    until(lambda: not running.appliance.pipeline.servers[1].alive)
    second = places()
    assert {flow for flow in first if first[flow] != second[flow]} == {
        flow for flow in first if first[flow] == 1
    }
    dead.clear()
    ip("link", "set", "dev", "ob1", "up")
    until(lambda: running.appliance.pipeline.servers[1].alive)
    assert places() == first
    for k in range(3):
        ip("link", "set", "dev", f"ob{k}", "down")
    until(lambda: not any(server.alive for server in running.appliance.pipeline.servers))
    before = running.appliance.pipeline.ledger.received.frames
    send("va", flows)
    until(lambda: running.appliance.pipeline.ledger.received.frames == before + len(flows))
    report = running.stop()
    assert report["ledger"]["no_live_server"]["frames"] == len(flows)
    assert report["events"][:2] == ["server s1 went down", "server s1 came back"]


@pytest.mark.parametrize("action", ["drop", "tag"])
@pytest.mark.parametrize("sources", [("vb",), ("vb", "wb")], ids=len)
def test_files_of_a_live_run_hold_what_those_of_a_capture_hold(net, tmp_path, action, sources):
    """The same frames by interface, through the hub, and as a capture, written in step: flows, duplicates,
    fragments that come before their first one, tags. Comments are part of what is compared.
    """
    if len(sources) == 2:
        net.pair("wa", "wb")
    feed = [frame for _, frame in conversation(40, 6)]
    for flow in range(20):
        ports = UDP(sport=1000 + flow, dport=53)
        whole = IP(src="10.0.0.1", dst="10.9.9.9", id=flow + 1) / ports / bytes(3000)
        parts = [bytes(Ether(src=MACS[0], dst=MACS[1]) / part) for part in whole.fragment(1000)]
        feed += parts[1:] + parts[:1]
    feed = [frame for k, frame in enumerate(feed) for _ in range(1 + k % 2)]
    write_pcap(tmp_path / "feed.pcap", [(10**18 + 100_000 * k, frame) for k, frame in enumerate(feed)])
    servers = {f"s{k}": {"file": f"s{k}.pcapng"} for k in range(3)}

    def shares() -> list[list[list[str]]]:
        return [
            sorted(shown(tmp_path / f"s{k}.pcapng", "frame.comment", "frame.len", "ip.id", "udp.srcport"))
            for k in range(3)
        ]

    inputs = document(servers, sources, profile="exact", action=action)
    inputs["balance"]["fragment_hold"] = "10s"  # the sender may be held up between two of them
    running = Running(inputs, tmp_path)
    send("va", feed, 0.002)
    until(lambda: running.appliance.pipeline.ledger.received.frames == len(feed))
    live = running.stop()
    by_interface = shares()
    with Appliance(parse_appliance({**inputs, "source": [{"file": "feed.pcap"}]}, tmp_path)) as straight:
        report = straight.run()
    assert by_interface == shares()
    assert all(by_interface), "every server has its share"
    assert live["ledger"] == report["ledger"]
    assert live["fragments"] == report["fragments"] and report["fragments"]["fragments_held"] > 0
    assert live["hub"]["missed"]["frames"] == 0


def shown(path: Any, *fields: str) -> list[list[str]]:
    """What tshark reads of each frame."""
    options = [word for field in fields for word in ("-e", field)]
    told = subprocess.run(
        ["tshark", "-r", path, "-o", "ip.defragment:false", "-T", "fields", *options],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    return [line.split("\t") for line in told.split("\n")[:-1]]


def test_stop_delivers_what_the_kernel_holds(net, tmp_path):
    frames = [frame for _, frame in conversation(20, 100)]
    running = Running(document({"store": {"file": "store.pcapng"}}), tmp_path)
    time.sleep(0.1)
    send("va", frames)
    report = running.stop()
    assert report["ledger"]["received"]["frames"] == len(frames)
    with open_capture(tmp_path / "store.pcapng") as reader:
        assert sum(len(batch) for batch in reader) == len(frames)


def test_a_frame_over_the_outputs_mtu_is_a_counted_error(net, tmp_path):
    net.pair("oa0", "ob0")
    ip("link", "set", "dev", "oa0", "mtu", "1000")
    small, large = (frame for _, frame in conversation(2, 1))
    large = large[:16] + (1400).to_bytes(2, "big") + large[18:] + bytes(1414 - len(large))
    running = Running(document({"s0": {"interface": "oa0"}}), tmp_path)
    send("va", [small, large])
    until(lambda: running.appliance.pipeline.ledger.received.frames == 2)
    report = running.stop()
    assert report["ledger"]["forwarded"]["frames"] == 2
    assert report["ledger"]["copies"]["send_errors"] == {"frames": 1, "bytes": 1414}
    assert report["servers"]["s0"]["causes"]["too_big"] == 1


def test_tagged_duplicates_carry_a_vlan_tag(net, tmp_path):
    net.pair("oa0", "ob0")
    (frame, *_) = (frame for _, frame in conversation(1, 1))
    running = Running(document({"s0": {"interface": "oa0"}}, action="tag", tag_vlan=999), tmp_path)
    with LiveSource("ob0", ring_mib=8, block_timeout_ms=50) as sink:
        send("va", [frame, frame])
        until(lambda: running.appliance.pipeline.ledger.received.frames == 2)
        report = running.stop()
        got = collect(sink)
    assert got == [frame, frame[:12] + bytes.fromhex("810003e7") + frame[12:]]
    assert report["ledger"]["tagged"]["frames"] == 1
