# SPDX-License-Identifier: Apache-2.0
"""The linux card over veth: order, times, departures, stamps in the payload, errors (needs root)."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from typing import Any

import numpy as np
import pytest
from scapy.all import IP, UDP, Ether, IPv6, Raw
from twinstamp.card.linux import KERNEL, LINUX_DEPARTURE, NOW, LinuxCard
from twinstamp.card.nic import closest_offset, stamping_info
from twinstamp.card.system_clock import StepWatch, system_clock
from twinstamp.cli import main
from twinstamp.errors import ConfigError, DeviceError

from tests.io_live.conftest import Net

NTP_MINUS_UNIX_S = 2_208_988_800
PLAIN = bytes.fromhex("0200000000020200000000010800")


def _columns(frames: list[bytes]) -> tuple[Any, Any, Any]:
    caplen = np.array([len(frame) for frame in frames], np.uint32)
    offset = np.concatenate([[0], np.cumsum(caplen[:-1], dtype=np.uint64)]).astype(np.uint64)
    return np.frombuffer(b"".join(frames), np.uint8), offset, caplen


class _Reader:
    """Reads a card in a thread of its own until nothing comes for a while."""

    def __init__(self, card: LinuxCard) -> None:
        self.frames: list[tuple[int, int, bytes]] = []
        self._card = card
        self._thread = threading.Thread(target=self._run)
        card.start()
        self._thread.start()

    def _run(self) -> None:
        for batch in self._card.receive(0.5):
            self.clock = batch.clock
            self.frames += [
                (int(batch.timestamp_ns[i]), int(batch.port[i]), batch.frame(i)) for i in range(len(batch))
            ]

    def join(self) -> list[tuple[int, int, bytes]]:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return [frame for frame in self.frames if frame[2][12:14] != b"\x88\xb5"]


def test_timed_frames(net: Net) -> None:
    n, gap = 400, 500_000
    with LinuxCard(["va"]) as sender, LinuxCard(["vb"]) as receiver:
        assert not sender.hardware and sender.txtime == [""]
        took = sender.calibration(0)
        assert 0 < took.p1_ns <= took.median_ns <= took.p99_ns
        reader = _Reader(receiver)
        frames = [PLAIN + i.to_bytes(4, "big") + bytes(46) for i in range(n)]
        launch = time.time_ns() + 20_000_000 + gap * np.arange(n)
        seen: list[int] = []
        sent = sender.send_timed(0, *_columns(frames), launch_ns=launch, progress=seen.append)
        departures = sender.departures(0.5)
        got = reader.join()
    assert seen[-1] == n and not sent.error.any()
    assert departures.dtype == LINUX_DEPARTURE
    assert departures["number"].tolist() == list(range(sent.first, sent.first + n))
    assert (departures["source"] == KERNEL).all()
    assert [frame for _, _, frame in got] == frames
    arrived = np.array([stamp for stamp, _, _ in got])
    # Sent no earlier than the lead before its time, stamped behind the call, received behind that.
    assert (sent.before_ns >= launch - took.median_ns).all()
    assert (departures["stamp_ns"] > sent.before_ns).all()
    assert (arrived >= departures["stamp_ns"]).all()


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("ptp", [False, True])
def test_stamp_in_the_payload(net: Net, version: int, ptp: bool) -> None:
    n = 60
    ip = IP(src="10.0.0.1", dst="10.0.0.2") if version == 4 else IPv6(src="fd00::1", dst="fd00::2")
    frames, places, sums = [], [], []
    rng = np.random.default_rng(7)
    for _ in range(n):
        packet = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01") / ip / UDP(sport=1, dport=862)
        payload = rng.bytes(4) + bytes(8) + rng.bytes(32)
        frames.append(bytes(packet / Raw(payload)))
        udp = 14 + (20 if version == 4 else 40)
        places.append(udp + 8 + 4)
        sums.append(udp + 6)
    with LinuxCard(["va"], utc_offset_s=37) as sender, LinuxCard(["vb"]) as receiver:
        reader = _Reader(receiver)
        sent = sender.send_timed(
            0, *_columns(frames), stamp_at=np.array(places), checksum_at=np.array(sums), ptp=ptp
        )
        got = reader.join()
    assert len(got) == n
    for i, (_, _, frame) in enumerate(got):
        stamp = int.from_bytes(frame[places[i] : places[i] + 8], "big")
        if ptp:
            ns = (stamp >> 32) * 10**9 + (stamp & 0xFFFFFFFF) - 37 * 10**9
            assert ns == sent.before_ns[i]
        else:
            ns = (((stamp >> 32) - NTP_MINUS_UNIX_S) * 10**9) + ((stamp & 0xFFFFFFFF) * 10**9 >> 32)
            assert abs(ns - sent.before_ns[i]) <= 1
        parsed = Ether(frame)
        claimed = parsed[UDP].chksum
        del parsed[UDP].chksum
        assert Ether(bytes(parsed))[UDP].chksum == claimed  # scapy's own sum


def test_several_ports_come_in_order(net: Net) -> None:
    net.pair("vc", "vd")
    with LinuxCard(["va", "vc"]) as sender, LinuxCard(["vb", "vd"]) as receiver:
        reader = _Reader(receiver)
        for i in range(40):
            sender.send(i % 2, PLAIN + i.to_bytes(4, "big") + bytes(46))
        got = reader.join()
        assert receiver.drops() == (0, 0)
    assert [port for _, port, _ in got] == [0, 1] * 20
    stamps = [stamp for stamp, _, _ in got]
    assert stamps == sorted(stamps)


def test_errors_leave_the_numbers_right(net: Net) -> None:
    with LinuxCard(["va"]) as card:
        good = PLAIN + bytes(46)
        frames = [good, good + bytes(5000), good, good + bytes(5000), good]
        sent = card.send_timed(0, *_columns(frames))
        assert [bool(code) for code in sent.error] == [False, True, False, True, False]
        departures = card.departures(0.2)
        assert (departures["number"] - sent.first).tolist() == [0, 2, 4]
        with pytest.raises(DeviceError, match="va"):
            card.send(0, good + bytes(5000))
        number = card.send(0, good)
        assert card.departures(0.2)["number"].tolist() == [number] == [6]


def test_stamps_of_queued_frames_stay_theirs_when_a_send_fails(net: Net) -> None:
    """Frames wait in the queue, 16 ms each, when a later one is refused: their stamps come after the numbers
    began anew. Each stamp that is told lies right before its own frame's arrival at the other end."""
    shaper = "tc qdisc add dev va root tbf rate 32kbit burst 130 limit 10000"
    done = subprocess.run(["sh", "-c", shaper], check=False, capture_output=True, text=True, timeout=20)
    if done.returncode:
        pytest.skip(f"no shaper here: {done.stderr}")
    good = [PLAIN + bytes([i]) + bytes(45) for i in range(13)]
    with LinuxCard(["va"]) as card, LinuxCard(["vb"]) as receiver:
        reader = _Reader(receiver)
        frames = [*good[:5], PLAIN + bytes(5000), *good[5:9], PLAIN + bytes(5000), *good[9:]]
        sent = card.send_timed(0, *_columns(frames))
        told = np.concatenate([card.departures(0.05) for _ in range(12)])
        arrivals = {frame[14]: stamp for stamp, _, frame in reader.join()}
    assert np.flatnonzero(sent.error).tolist() == [5, 10]
    numbers = (told["number"] - np.uint64(sent.first)).tolist()
    assert len(set(numbers)) == len(numbers) and {0, 1} <= set(numbers)
    index = [i for i in range(len(frames)) if i not in (5, 10)]
    for number, stamp in zip(numbers, told["stamp_ns"].tolist(), strict=True):
        after = arrivals[index.index(number)] - stamp
        assert 0 <= after < 8_000_000, (number, after)


def test_late_frames_go_at_once_and_tell(net: Net) -> None:
    with LinuxCard(["va"]) as card:
        card.calibration(0)
        launch = np.full(3, time.time_ns() - 10**9)
        sent = card.send_timed(0, *_columns([PLAIN + bytes(46)] * 3), launch_ns=launch)
        departures = card.departures(0.2)
    assert len(departures) == 3
    assert (sent.before_ns - launch >= 10**9).all()


def test_bad_use(net: Net) -> None:
    frame = _columns([PLAIN + bytes(46)] * 2)
    with pytest.raises(DeviceError, match="no interface"):
        LinuxCard(["nothere"])
    with pytest.raises(ConfigError, match="each once"):
        LinuxCard(["va", "va"])
    with pytest.raises(DeviceError, match="hardware=False"):
        LinuxCard(["va"], hardware=True)  # a veth makes no stamps of its own
    with LinuxCard(["va"]) as card:
        with pytest.raises(ConfigError, match="no port 1"):
            card.send_timed(1, *frame)
        with pytest.raises(ConfigError, match="fall"):
            card.send_timed(0, *frame, launch_ns=np.array([5, 4]))
        with pytest.raises(ConfigError, match="differ in length"):
            card.send_timed(0, *frame, launch_ns=np.array([NOW]))
        with pytest.raises(ValueError, match="outside its frame"):
            card.send_timed(0, *frame, stamp_at=np.array([53, 53]))
        with pytest.raises(DeviceError, match="start"):
            card.poll()
    subprocess.run(["ip", "link", "set", "va", "down"], check=True, timeout=20)
    with LinuxCard(["va"]) as card, pytest.raises(DeviceError, match="down"):
        card.send(0, PLAIN + bytes(46))


def test_clock_of_this_machine(net: Net) -> None:
    kernel = system_clock()
    with LinuxCard(["va"], stamp_bound_ns=1000) as card:
        clock = card.clock()
        assert clock.locked == kernel.synchronised
        assert (clock.bound_ns >= 1000) == kernel.synchronised
        assert clock.timescale == "utc" and clock.source == "kernel"
        tai_ns = card.time_q32() * 10**9 >> 32
        assert abs(tai_ns - card.utc_offset().s * 10**9 - time.time_ns()) < 10**9
        assert abs(card.to_utc_ns(card.time_q32()) - time.time_ns()) < 10**9


def test_a_step_of_the_clock_is_a_new_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = StepWatch()
    assert watch.look() == 0
    real = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real() + 10_000_000)
    assert watch.look() == 1
    assert watch.look() == 1


def test_what_a_veth_claims(net: Net) -> None:
    claim = stamping_info("va")
    said = subprocess.run(
        ["ethtool", "-T", "va"], capture_output=True, text=True, check=True, timeout=20
    ).stdout
    assert claim.software_departures == ("software-transmit" in said)
    assert claim.hardware == ("hardware-transmit" in said)
    assert claim.phc == -1


def test_closest_look_at_a_phc() -> None:
    assert closest_offset([(0, 1000, 500), (600, 1600, 700), (800, 1900, 1200)]) == (-950, 50)


def test_info_and_capture(net: Net, tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """As a user: capture two interfaces, read the file with tshark."""
    net.pair("vc", "vd")
    out = tmp_path / "out.pcapng"
    assert main(["card", "info", "--card", "linux:vb,vd", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [port["name"] for port in report["ports"]] == ["vb", "vd"] and report["stamps"] == "kernel"
    command = ["card", "capture", "--card", "linux:vb,vd", "--to", str(out), "--count", "6", "--json"]
    results: list[int] = []
    sender = threading.Timer(1.0, _send_some)
    sender.start()
    try:
        results.append(main(command))
    finally:
        sender.join()
    assert results == [0]
    assert json.loads(capsys.readouterr().out)["written"] == 6
    fields = ["-Tfields", "-eframe.interface_name", "-eframe.comment"]
    read = subprocess.run(
        ["tshark", "-r", out, *fields], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert [line.split("\t")[0] for line in read] == ["vb", "vd"] * 3
    assert "clock=kernel timescale=utc" in read[0]


def _send_some() -> None:
    with LinuxCard(["va", "vc"]) as card:
        for i in range(10):
            card.send(i % 2, PLAIN + bytes(46))
