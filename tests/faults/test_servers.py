# SPDX-License-Identifier: Apache-2.0
"""Servers that are missing or made anew, and signals, on interfaces of the test's own namespace."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from twinstamp.appliance.config import OutputConfig
from twinstamp.appliance.outputs import InterfaceOutput, RetryBudget
from twinstamp.frames import FrameBatch
from twinstamp.io import open_capture
from twinstamp.io.live import LiveSource

from tests.appliance.test_run_files import conversation
from tests.appliance.test_run_live import Running, collect, document, send, until
from tests.conftest import ROOT
from tests.io_live.conftest import ip, net, netns

__all__ = ["net", "netns"]
pytestmark = pytest.mark.root


def servers(count: int) -> dict[str, dict[str, str]]:
    return {f"s{k}": {"interface": f"oa{k}"} for k in range(count)}


def test_an_interface_that_is_made_anew_gets_its_frames(net, tmp_path):
    """A virtual machine that restarts: the same name, another interface."""
    for k in range(2):
        net.pair(f"oa{k}", f"ob{k}")
    frames = [frame for _, frame in conversation(60, 1)]
    running = Running(document(servers(2), window=2), tmp_path)
    pipeline = running.appliance.pipeline
    ip("link", "del", "oa0")
    until(lambda: not pipeline.servers[0].alive)
    net.pair("oa0", "ob0")
    until(lambda: pipeline.servers[0].alive)
    sinks = [LiveSource(f"ob{k}", ring_mib=8, block_timeout_ms=50) for k in range(2)]
    send("va", frames)
    until(lambda: pipeline.ledger.received.frames == len(frames))
    report = running.stop()
    got = [collect(sink) for sink in sinks]
    for sink in sinks:
        sink.close()
    assert sorted(got[0] + got[1]) == sorted(frames) and got[0] and got[1]
    assert report["servers"]["s0"]["send_errors"] == 0
    assert "server s0 came back" in report["events"]


def test_made_anew_between_two_looks(net, tmp_path):
    """Deleted and there again before anybody looked: found by its number."""
    net.pair("oa0", "ob0")
    running = Running(document(servers(1), window=2), tmp_path)
    pipeline = running.appliance.pipeline
    ip("link", "del", "oa0")
    net.pair("oa0", "ob0")
    time.sleep(0.6)  # two looks
    frames = [frame for _, frame in conversation(20, 1)]
    with LiveSource("ob0", ring_mib=8, block_timeout_ms=50) as sink:
        send("va", frames)
        until(lambda: pipeline.ledger.received.frames == len(frames))
        report = running.stop()
        assert collect(sink) == frames
    assert report["ledger"]["copies"]["send_errors"]["frames"] == 0


@pytest.mark.parametrize("missing", [True, False])
def test_a_server_that_is_not_there_at_the_start_is_a_dead_one(net, tmp_path, missing):
    net.pair("oa0", "ob0")
    if not missing:
        net.pair("oa1", "ob1")
        ip("link", "set", "dev", "oa1", "down")
    frames = [frame for _, frame in conversation(60, 1)]
    running = Running(document(servers(2), window=2), tmp_path)
    pipeline = running.appliance.pipeline
    with LiveSource("ob0", ring_mib=8, block_timeout_ms=50) as sink:
        until(lambda: not pipeline.servers[1].alive)
        send("va", frames)
        until(lambda: pipeline.ledger.received.frames == len(frames))
        assert sorted(collect(sink)) == sorted(frames)
    if missing:
        net.pair("oa1", "ob1")
    else:
        ip("link", "set", "dev", "oa1", "up")
    until(lambda: pipeline.servers[1].alive)
    with LiveSource("ob1", ring_mib=8, block_timeout_ms=50) as sink:
        send("va", frames)
        until(lambda: pipeline.ledger.received.frames == 2 * len(frames))
        report = running.stop()
        assert collect(sink)
    assert report["events"][:2] == ["server s1 went down", "server s1 came back"]
    assert report["ledger"]["copies"]["send_errors"]["frames"] == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_leaves_report_and_captures(net, tmp_path, number):
    """A closed terminal sends SIGHUP: it ends the run as SIGTERM does."""
    text = (
        '[appliance]\nreport = "report.json"\n[[source]]\ninterface = "vb"\n'
        '[balance]\nsecret_file = "balance.key"\n'
        '[[group]]\nname = "dpi"\n[[group.server]]\nname = "s0"\nfile = "s0.pcapng"\n'
    )
    (tmp_path / "a.toml").write_text(text)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'host'}:{ROOT / 'gpu_kernels'}"}
    frames = [frame for _, frame in conversation(50, 1)]
    with subprocess.Popen(
        [sys.executable, "-m", "twinstamp.cli", "run", "--quiet", str(tmp_path / "a.toml")],
        env=environment,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # ignored under nohup
    ) as child:
        try:
            until(lambda: (tmp_path / "s0.pcapng").exists(), 20)
            time.sleep(0.5)
            send("va", frames)
            time.sleep(0.5)
            child.send_signal(number)
            assert child.wait(20) == 0
        finally:
            child.kill()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ledger"]["received"]["frames"] == len(frames)
    assert (tmp_path / "s0.pcapng").stat().st_size > 50 * 60


def file_run(tmp_path, *names: str, hub_mib: int = 64) -> subprocess.Popen[bytes]:
    """The command on interface vb, with file servers of these names."""
    text = (
        f'[appliance]\nreport = "report.json"\nhub_mib = {hub_mib}\n[[source]]\ninterface = "vb"\n'
        '[balance]\nsecret_file = "balance.key"\n[[group]]\nname = "dpi"\n'
    )
    text += "".join(f'[[group.server]]\nname = "s{k}"\nfile = "{name}"\n' for k, name in enumerate(names))
    (tmp_path / "a.toml").write_text(text)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'host'}:{ROOT / 'gpu_kernels'}"}
    command = [sys.executable, "-m", "twinstamp.cli", "run", "--quiet", str(tmp_path / "a.toml")]
    return subprocess.Popen(command, env=environment)


def test_a_fifo_whose_reader_stalls_costs_its_own_server_only(net, tmp_path):
    os.mkfifo(tmp_path / "s1.pcapng")
    frames = [frame + bytes(800) for _, frame in conversation(50, 20)]
    child = file_run(tmp_path, "s0.pcapng", "s1.pcapng")
    reader = os.open(tmp_path / "s1.pcapng", os.O_RDONLY)  # opened, and never read
    try:
        until(lambda: (tmp_path / "s0.pcapng").exists(), 20)
        time.sleep(1.0)
        for _ in range(4):
            send("va", frames, 0.02)
        time.sleep(1.5)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 1
    finally:
        child.kill()
        child.wait()
        os.close(reader)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ledger"]["received"]["frames"] == 4 * len(frames)
    assert report["ledger"]["dropped_before_received"] == 0
    assert any("does not read" in event for event in report["events"])
    # A fifth of the frames would have waited for the stall's end, 250 ms, if the forwarding had.
    assert report["added_delay_ns"]["p90"] < 100_000_000
    assert report["servers"]["s1"]["alive"] is False
    with open_capture(tmp_path / "s0.pcapng") as written:
        assert sum(len(batch) for batch in written) == report["servers"]["s0"]["frames"] > 2 * len(frames)


def test_a_fifo_that_is_read_slowly_loses_its_own_blocks_only(net, tmp_path):
    """4 KiB each 20 ms: it never stalls. Its memory is used up, and what it loses is counted to the frame."""
    os.mkfifo(tmp_path / "s1.pcapng")
    frames = [frame + bytes(1400 - len(frame)) for _, frame in conversation(50, 20)]
    child = file_run(tmp_path, "s0.pcapng", "s1.pcapng", hub_mib=4)
    got, hurry = bytearray(), threading.Event()

    def read_slowly():
        with (tmp_path / "s1.pcapng").open("rb", buffering=0) as fifo:
            while part := fifo.read(1 << 20 if hurry.is_set() else 4096):
                got.extend(part)
                hurry.wait(0.02)

    reader = threading.Thread(target=read_slowly)
    reader.start()
    try:
        until(lambda: (tmp_path / "s0.pcapng").exists(), 20)
        time.sleep(1.0)
        for _ in range(12):
            send("va", frames, 0.003)
        time.sleep(0.5)
        hurry.set()
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == 0
    finally:
        child.kill()
        child.wait()
        hurry.set()
        reader.join(10)
    report = json.loads((tmp_path / "report.json").read_text())
    ledger, slow = report["ledger"], report["servers"]["s1"]
    assert ledger["received"]["frames"] == ledger["forwarded"]["frames"] == 12 * len(frames)
    assert ledger["dropped_before_received"] == 0
    with open_capture(tmp_path / "s0.pcapng") as written:
        assert sum(len(batch) for batch in written) == report["servers"]["s0"]["frames"]
    assert report["servers"]["s0"]["send_errors"] == 0
    (tmp_path / "read.pcapng").write_bytes(got)
    with open_capture(tmp_path / "read.pcapng") as written:
        assert sum(len(batch) for batch in written) == slow["frames"]
    assert slow["send_errors"] == slow["causes"]["lost"] > 0 and slow["alive"] is True
    assert report["servers"]["s0"]["frames"] + slow["frames"] + slow["send_errors"] == 12 * len(frames)
    assert report["hub"]["missed"]["frames"] == 0


def test_a_full_disk_costs_its_own_server_only(net, tmp_path):
    """A file system of 1 MiB: its file ends with a whole record, the report has the rest as send errors."""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], check=True)
    try:
        frames = [frame + bytes(1400 - len(frame)) for _, frame in conversation(50, 20)]
        child = file_run(tmp_path, "s0.pcapng", "small/s1.pcapng")
        try:
            until(lambda: (small / "s1.pcapng").exists(), 20)
            time.sleep(1.0)
            for _ in range(6):
                send("va", frames, 0.02)
            time.sleep(0.5)
            child.send_signal(signal.SIGTERM)
            assert child.wait(20) == 1
        finally:
            child.kill()
            child.wait()
        report = json.loads((tmp_path / "report.json").read_text())
        full, other = report["servers"]["s1"], report["servers"]["s0"]
        with open_capture(small / "s1.pcapng") as written:
            assert sum(len(batch) for batch in written) == full["frames"] > 100
    finally:
        subprocess.run(["umount", small], check=True)
    assert full["alive"] is False and any("No space left" in event for event in report["events"])
    with open_capture(tmp_path / "s0.pcapng") as written:
        assert sum(len(batch) for batch in written) == other["frames"]
    assert other["send_errors"] == 0 and report["ledger"]["dropped_before_received"] == 0
    copies = report["ledger"]["copies"]
    assert copies["attempted"]["frames"] == report["ledger"]["forwarded"]["frames"] == 6 * len(frames)
    assert copies["send_errors"]["frames"] == full["send_errors"] > 0 == copies["waiting"]["frames"]
    # Its flows have moved: of the last of six rounds the other server has all.
    assert other["frames"] > 3.2 * len(frames)


def test_congested_interfaces_hold_a_batch_up_once(net):
    """Peers that are down refuse each frame with ENOBUFS: eight servers wait 2 ms, not 16."""
    for k in range(8):
        net.pair(f"oa{k}", f"ob{k}")
    budget, spent = RetryBudget(2.0), []
    spend = budget.spend
    budget.spend = lambda ns: (spent.append(ns), spend(ns))  # type: ignore[method-assign]
    outputs = [InterfaceOutput(OutputConfig(interface=f"oa{k}"), None, budget=budget) for k in range(8)]
    for k in range(8):
        ip("link", "set", "dev", f"ob{k}", "down")
    batch = FrameBatch.from_frames([frame for _, frame in conversation(20, 1)])
    took_s, waited_ns = [], []
    for _ in range(10):  # the machine has other things to do: the best of ten
        spent.clear()
        budget.refill()
        budget.turns(8)
        began = time.monotonic()
        sent = [output.send(batch, np.arange(20, dtype=np.uint32), None) for output in outputs]
        took_s.append(time.monotonic() - began)
        waited_ns.append(sum(spent))
        assert all(part.frames + part.failed_frames == 20 for part in sent)
        assert sum(part.failed_frames for part in sent) > 0
    for output in outputs:
        output.close()
    assert min(waited_ns) > 1_000_000
    assert min(waited_ns) < 4_000_000, "each sleep ends a little late"
    assert min(took_s) < 0.008


def test_a_fifo_without_a_reader_is_an_error_that_says_so(net, tmp_path, capfd):
    os.mkfifo(tmp_path / "s0.pcapng")
    child = file_run(tmp_path, "s0.pcapng")
    try:
        assert child.wait(20) == 2
    finally:
        child.kill()
        child.wait()
    assert "s0.pcapng: nobody reads this FIFO" in capfd.readouterr().err


def test_what_a_power_failure_leaves_can_be_read(net, tmp_path):
    """Killed a second and a half after the last frame: all of them are in the file, over an older one too."""
    (tmp_path / "s0.pcapng").write_bytes(b"an older capture" * 1000)
    frames = [frame for _, frame in conversation(50, 2)]
    child = file_run(tmp_path, "s0.pcapng")
    try:
        until(lambda: (tmp_path / "s0.pcapng").stat().st_size != 16_000, 20)
        time.sleep(0.5)
        send("va", frames)
        time.sleep(2.0)
    finally:
        child.kill()
        child.wait()
    with open_capture(tmp_path / "s0.pcapng") as written:
        assert sum(len(batch) for batch in written) == len(frames)


@pytest.mark.parametrize("sources", [("vb",), ("vb", "wb")], ids=len)
@pytest.mark.parametrize("anew", [False, True], ids=["down and up", "made anew"])
def test_a_source_that_comes_back_is_heard_again(net, tmp_path, sources, anew):
    """NetworkManager restarts an interface: the feed goes on, told by two events."""
    net.pair("oa0", "ob0")
    for name in sources[1:]:
        net.pair(name.replace("b", "a"), name)
    running = Running(document(servers(1), sources, window=2), tmp_path)
    ledger = running.appliance.pipeline.ledger
    frames = [frame for _, frame in conversation(30, 1)]
    last = sources[-1]
    sender = last.replace("b", "a")
    send(sender, frames)
    until(lambda: ledger.received.frames == 30)
    if anew:
        ip("link", "del", last)
        time.sleep(0.6)
        net.pair(sender, last)
    else:
        ip("link", "set", "dev", last, "down")
        time.sleep(0.6)
        ip("link", "set", "dev", last, "up")
    until(lambda: f"source {last} came back" in running.appliance.events)
    send(sender, frames)
    until(lambda: ledger.received.frames == 60)
    if len(sources) == 2:
        send("va", frames)
        until(lambda: ledger.received.frames == 90)
    report = running.stop()
    told = [event for event in report["events"] if event.startswith("source")]
    assert len(told) == 2 and told[1] == f"source {last} came back"
    assert report["sources"][last]["frames"] == 60
    assert report["ledger"]["received"]["frames"] == sum(s["frames"] for s in report["sources"].values())


def test_a_source_that_stays_down_is_an_error_at_the_end(net, tmp_path):
    net.pair("oa0", "ob0")
    child = file_run(tmp_path, "s0.pcapng")
    try:
        until(lambda: (tmp_path / "s0.pcapng").exists(), 20)
        time.sleep(0.5)
        ip("link", "set", "dev", "vb", "down")
        time.sleep(0.5)
        assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 1
    finally:
        child.kill()
        child.wait()
    report = json.loads((tmp_path / "report.json").read_text())
    assert any("source vb" in event for event in report["events"])
