# SPDX-License-Identifier: Apache-2.0
"""Trains from an ordinary interface over veth, and one-way delay between two of them (needs root)."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from scapy.all import IP, UDP, Dot1Q, Ether, IPv6
from twinstamp import stamp
from twinstamp.card.linux import LinuxCard
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.owd.experiment import load_experiment, run
from twinstamp.train import Constant, Fixed, Poisson, Train, Uniform, Vlan
from twinstamp.train.frames import frames

from tests.io_live.conftest import Net

ENDS: dict[str, Any] = {"source_mac": "02:00:00:00:00:01", "destination_mac": "02:00:00:00:00:02"}
FOUR: dict[str, Any] = {**ENDS, "source": "10.0.0.1", "destination": "10.0.0.2"}
SIX: dict[str, Any] = {**ENDS, "source": "fd00::1", "destination": "fd00::2"}


@pytest.mark.parametrize(
    "train",
    [
        Train(packets=40, gap=Constant("1us"), size=Fixed(64), source_ports=3, **FOUR),
        Train(packets=40, gap=Constant("20us"), size=Uniform(90, 1518), dscp=46, **FOUR),
        Train(packets=40, gap=Constant("20us"), size=Uniform(110, 400), flow_label=0x12345, **SIX),
        Train(packets=9, gap=Constant("20us"), size=Fixed(101), vlans=(Vlan(7), Vlan(9)), **SIX),
    ],
    ids=["short", "sizes", "ipv6", "vlans"],
)
def test_frames_are_what_scapy_reads(train: Train) -> None:
    schedule = train.schedule()
    error = stamp.error_estimate(1000, synchronised=True)
    made = frames(train, schedule, 2, train.total, error)
    for i, size in enumerate(schedule.size[2:].tolist()):
        raw = made.data[int(made.offset[i]) : int(made.offset[i]) + int(made.caplen[i])].tobytes()
        assert len(raw) == size - 4
        packet = Ether(raw)
        assert [tag.vlan for tag in packet.iterpayloads() if isinstance(tag, Dot1Q)] == [
            v.id for v in train.vlans
        ]
        ip = packet[IP] if train.ip_version == 4 else packet[IPv6]
        assert (ip.src, ip.dst) == (train.source, train.destination)
        udp = packet[UDP]
        assert udp.sport == train.source_port + (i + 2) % train.source_ports
        payload = bytes(udp.payload)
        assert udp.len == 8 + len(payload)
        assert int.from_bytes(payload[:4], "big") == i + 2
        assert (
            payload
            == stamp.payloads(
                sequence=i + 2, timestamp=0, error=error, session=train.session, size=len(payload)
            ).tobytes()
        )
        place = int(made.stamp_at[i])
        assert raw[place - 4 : place] == payload[:4]
        claimed = (udp.chksum, getattr(ip, "chksum", None), getattr(ip, "len", None))
        assert raw[int(made.checksum_at[i]) :][:2] == udp.chksum.to_bytes(2, "big")
        del udp.chksum
        if train.ip_version == 4:
            del ip.chksum, ip.len
        again = Ether(bytes(packet))
        ip = again[IP] if train.ip_version == 4 else again[IPv6]
        assert (again[UDP].chksum, getattr(ip, "chksum", None), getattr(ip, "len", None)) == claimed


def test_a_train_leaves_and_is_reported(net: Net) -> None:
    train = Train(
        packets=300, gap=Poisson(mean="1ms", minimum="50us"), size=Uniform(90, 600), timestamp="ntp", **FOUR
    )
    got: list[bytes] = []
    with LinuxCard(["va"]) as sender, LinuxCard(["vb"]) as receiver:
        receiver.start()
        sending = sender.port(0).send(train, after="200ms", report=True, allow_unsynchronised=True)
        with pytest.raises(ConfigError, match="under way"):
            sender.port(0).send(train, allow_unsynchronised=True)
        while sending.status().active:
            batch = receiver.poll(0.05)
            if batch is not None:
                with batch:
                    got += [batch.frame(i) for i in range(len(batch))]
        for batch in receiver.receive(0.1):
            got += [batch.frame(i) for i in range(len(batch))]
        report = sending.wait()
    got = [frame for frame in got if frame[12:14] == b"\x08\x00"]
    assert report.status.done and report.status.sent == len(got) == 300
    assert [int.from_bytes(frame[42:46], "big") for frame in got] == list(range(300))
    assert [len(frame) + 4 for frame in got] == train.schedule().size.tolist()
    told = report.departures
    assert told["sequence"].tolist() == list(range(300))
    assert int(told["late"].sum()) == report.status.late
    # The packet's own stamp lies before the kernel's departure; both in the packet's and TAI time.
    written = np.array([int.from_bytes(frame[46:54], "big") for frame in got], np.uint64)
    offset = np.uint64((2_208_988_800 - sender.utc_offset().s) << 32)
    assert (told["stamp_q32"] >= written - offset).all()
    planned = (np.uint64(int(report.start * 2**32)) + train.schedule().q32()).astype(np.int64)
    early = told["stamp_q32"].astype(np.int64) - planned
    assert early.min() > -(2**32) // 1000  # never a millisecond before its time
    assert not report.synchronised
    for frame in got:  # S = 0: the clock follows nothing
        assert not stamp.read_error_estimate(int.from_bytes(frame[54:56], "big")).synchronised


def test_stop_and_refusals(net: Net) -> None:
    slow = Train(packets=1000, gap=Constant("100ms"), size=Fixed(90), **FOUR)
    with LinuxCard(["va"]) as card:
        port = card.port(0)
        with pytest.raises(DeviceError, match="allow"):
            port.send(slow)
        with pytest.raises(ConfigError, match="MTU of 1500"):
            port.send(
                Train(packets=2, gap=Constant("1ms"), size=Fixed(1600), **FOUR), allow_unsynchronised=True
            )
        with pytest.raises(ConfigError, match="at least 1 ms"):
            port.send(slow, start=Fraction(time.time_ns(), 10**9), allow_unsynchronised=True)
        with pytest.raises(ConfigError, match="no port 1"):
            card.port(1)
        sending = port.send(slow, after="50ms", allow_unsynchronised=True)
        time.sleep(0.4)
        sending.stop()
        status = sending.status()
        assert not status.active and not status.done and 1 <= status.sent < 20


EXPERIMENT = """
drain = "300ms"
[sites.left]
card = "linux:va"
address = "10.0.0.1"
[sites.right]
card = "linux:vb"
address = "10.0.0.2"
"""


def test_owd_run_between_interfaces(net: Net, tmp_path: Any) -> None:
    """Both directions at once; one clock at both ends, so no delay may be negative."""
    text = EXPERIMENT
    for i, (a, b) in enumerate((("left", "right"), ("right", "left"))):
        address = {"left": "10.0.0.1", "right": "10.0.0.2"}
        mac = {"left": "02:00:00:00:00:01", "right": "02:00:00:00:00:02"}
        text += f"""
[[trains]]
from = "{a}"
to = "{b}"
[trains.train]
packets = 100
gap = {{ law = "constant", gap = "2ms" }}
size = {{ law = "constant", bytes = 90 }}
session = {i + 1}
source = "{address[a]}"
destination = "{address[b]}"
source_mac = "{mac[a]}"
destination_mac = "{mac[b]}"
"""
    path = tmp_path / "experiment.toml"
    path.write_text(text, encoding="utf-8")
    report = run(load_experiment(path), allow_unsynchronised=True)
    assert len(report.trains) == 2
    for train in report.trains:
        assert len(train.table()["delay_ns"]) == 100
        assert train.table()["delay_ns"].min() > 0
