# SPDX-License-Identifier: Apache-2.0
"""The whole appliance from capture to captures: fates, order, tags, several sources, damage, signals."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import ARP, Dot1Q, Ether
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.errors import ConfigError, DeviceError, InputError
from twinstamp.io import open_capture

from tests.conftest import ROOT

Record = tuple[int, bytes]


def write_pcap(path: Path, records: list[Record]) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for time_ns, frame in records:
            file.write(struct.pack("<IIII", *divmod(time_ns, 10**9), len(frame), len(frame)) + frame)


def read_all(path: Path) -> list[Record]:
    found = []
    with open_capture(path) as reader:
        for batch in reader:
            found += [(int(batch.timestamp_ns[i]), batch.frame(i)) for i in range(len(batch))]
    return found


def conversation(flows: int, packets: int) -> list[Record]:
    """Both directions of TCP and UDP flows, interleaved, 10 µs apart."""
    records = []
    now = 1_700_000_000_000_000_000
    for number in range(packets):
        for flow in range(flows):
            layer = TCP if flow % 2 else UDP
            a, b, port = f"10.0.{flow // 200}.{flow % 200 + 1}", "192.0.2.1", 40_000 + flow
            if number % 2:
                ip = IP(src=a, dst=b, id=number + 1) / layer(sport=port, dport=80)
            else:
                ip = IP(src=b, dst=a, id=number + 1) / layer(sport=80, dport=port)
            frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ip / (b"%06d" % number * 4)
            records.append((now, bytes(frame)))
            now += 10_000
    return records


def routed(frame: bytes) -> bytes:
    """The frame after a router: other MACs, TTL less one, checksum anew."""
    packet = Ether(frame)
    packet.src, packet.dst = "02:00:00:00:00:03", "02:00:00:00:00:04"
    packet[IP].ttl -= 1
    del packet[IP].chksum
    return bytes(packet)


APPLIANCE = """
[appliance]
report = "report.json"
workers = {workers}
{sources}
[duplicates]
profile = "{profile}"
window = 1000
time = "50ms"
action = "{action}"
[balance]
secret_file = "balance.key"
{balance}
[[group]]
name = "dpi"
{servers}
"""


def appliance(
    tmp_path: Path,
    *,
    files: list[str],
    profile: str = "routing",
    action: str = "drop",
    workers: int = 1,
    servers: int = 3,
    ending: str = "pcapng",
    balance: str = "",
    extra: str = "",
) -> Path:
    text = (
        APPLIANCE.format(
            sources="\n".join(f'[[source]]\nfile = "{name}"' for name in files),
            servers="\n".join(
                f'[[group.server]]\nname = "s{k}"\nfile = "s{k}.{ending}"' for k in range(servers)
            ),
            profile=profile,
            action=action,
            workers=workers,
            balance=balance,
        )
        + extra
    )
    path = tmp_path / "appliance.toml"
    path.write_text(text)
    return path


def run(path: Path) -> dict:
    with Appliance(load_appliance(path)) as running:
        report = running.run()
    assert json.loads((path.parent / "report.json").read_text()) == report
    return report


def flow_of(frame: bytes) -> tuple:
    packet = Ether(frame)
    layer = packet[TCP] if TCP in packet else packet[UDP]
    return (packet[IP].proto, *sorted([(packet[IP].src, layer.sport), (packet[IP].dst, layer.dport)]))


@pytest.mark.parametrize("workers", [1, 2])
def test_duplicates_of_two_kinds_go_and_flows_stay_whole(tmp_path, workers):
    original = conversation(60, 20)
    feed = []
    for i, (now, frame) in enumerate(original):
        feed.append((now, frame))
        if i % 2:
            feed.append((now + 1000, frame))
        if i % 3 == 0:
            feed.append((now + 2000, routed(frame)))
    write_pcap(tmp_path / "feed.pcap", feed)
    report = run(appliance(tmp_path, files=["feed.pcap"], workers=workers))

    outputs = [read_all(tmp_path / f"s{k}.pcapng") for k in range(3)]
    assert sorted(record for output in outputs for record in output) == sorted(original)
    place = {}
    for server, output in enumerate(outputs):
        assert output == sorted(output, key=lambda record: record[0]), "a server's order is the stream's"
        assert output, "every server has its share of 60 flows"
        for _, frame in output:
            assert place.setdefault(flow_of(frame), server) == server, "a flow is split"
    ledger = report["ledger"]
    assert ledger["received"]["frames"] == len(feed)
    assert ledger["forwarded"]["frames"] == len(original)
    assert ledger["duplicates_dropped"]["frames"] == len(feed) - len(original)
    assert ledger["received"]["bytes"] == sum(len(frame) for _, frame in feed)
    by_type = {name: count["frames"] for name, count in report["duplicates"]["by_type"].items()}
    assert by_type["exact"] == len(original) // 2
    assert by_type["routing"] == len(original) // 3
    assert sum(server["frames"] for server in report["servers"].values()) == len(original)
    assert sum(server["flows"] for server in report["servers"].values()) == 60
    assert [report["servers"][f"s{k}"]["frames"] for k in range(3)] == [len(output) for output in outputs]


def test_tagged_duplicates_are_forwarded_with_a_comment(tmp_path):
    original = conversation(4, 4)
    write_pcap(tmp_path / "feed.pcap", [record for record in original for _ in range(2)])
    report = run(appliance(tmp_path, files=["feed.pcap"], action="tag", servers=1))
    assert report["ledger"]["forwarded"]["frames"] == 2 * len(original)
    assert report["ledger"]["tagged"]["frames"] == len(original)
    shown = subprocess.run(
        ["tshark", "-r", tmp_path / "s0.pcapng", "-T", "fields", "-e", "frame.comment"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")[:-1]
    assert shown == ["", "twinstamp: duplicate (exact)"] * len(original)


def test_legitimate_arp_repeats_are_kept(tmp_path):
    arp = bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.0.0.1"))
    write_pcap(tmp_path / "feed.pcap", [(10**18 + i, arp) for i in range(10)])
    report = run(appliance(tmp_path, files=["feed.pcap"], servers=1))
    assert report["ledger"]["forwarded"]["frames"] == 10
    assert report["duplicates"]["kept_by_class"] == {"arp": {"frames": 9, "bytes": 9 * len(arp)}}


def test_two_captures_are_merged_by_stamp_before_one_window(tmp_path):
    original = conversation(10, 100)
    write_pcap(tmp_path / "a.pcap", original[::2])
    write_pcap(tmp_path / "b.pcap", [(now + 500, frame) for now, frame in original[::2]] + original[-1:])
    report = run(appliance(tmp_path, files=["a.pcap", "b.pcap"], servers=1))
    assert report["reorder"]["late"] == 0
    assert [frame for _, frame in read_all(tmp_path / "s0.pcapng")] == [
        f for _, f in [*original[::2], original[-1]]
    ]


def test_rules_choose_groups_copies_and_drops(tmp_path):
    original = conversation(10, 4)
    write_pcap(tmp_path / "feed.pcap", original)
    (tmp_path / "rules.toml").write_text(
        '[[rule]]\nprotocol = "udp"\naction = "drop"\n'
        '[[rule]]\nprotocol = "tcp"\nsource_port = 80\neither_direction = true\naction = ["dpi", "archive"]\n'
    )
    extra = '[[group]]\nname = "archive"\n[[group.server]]\nname = "store"\nfile = "store.pcapng"\n'
    report = run(appliance(tmp_path, files=["feed.pcap"], balance='rules = "rules.toml"', extra=extra))
    tcp = [record for record in original if TCP in Ether(record[1])]
    assert report["ledger"]["rule_drops"]["frames"] == len(original) - len(tcp)
    assert report["ledger"]["forwarded"]["frames"] == len(tcp)
    assert report["ledger"]["copies"]["attempted"]["frames"] == 2 * len(tcp)
    assert read_all(tmp_path / "store.pcapng") == tcp
    assert report["rules"]["hits"] == {"0": len(original) - len(tcp), "1": len(tcp)}


def test_a_capture_cut_short_is_processed_up_to_the_cut(tmp_path):
    original = conversation(5, 5)
    write_pcap(tmp_path / "feed.pcap", original)
    with (tmp_path / "feed.pcap").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 7)
    report = run(appliance(tmp_path, files=["feed.pcap"], servers=1))
    assert report["ledger"]["forwarded"]["frames"] == len(original) - 1
    (source,) = report["sources"].values()
    assert "feed.pcap" in source["truncated"]


def test_a_damaged_capture_is_delivered_up_to_the_damage_and_fails(tmp_path):
    original = conversation(5, 5)
    write_pcap(tmp_path / "feed.pcap", original)
    with (tmp_path / "feed.pcap").open("ab") as file:
        file.write(struct.pack("<IIII", 0, 0, 0x7FFFFFFF, 60) + bytes(100))
    with pytest.raises(InputError, match=r"feed\.pcap.*were delivered"):
        run(appliance(tmp_path, files=["feed.pcap"], servers=1))
    assert len(read_all(tmp_path / "s0.pcapng")) == len(original)
    assert json.loads((tmp_path / "report.json").read_text())["ledger"]["forwarded"]["frames"] == len(
        original
    )


def test_vlan_profile_counts_what_it_is_asked_to_count(tmp_path):
    original = conversation(4, 4)
    tagged = []
    for now, frame in original:
        packet = Ether(frame)
        inner = packet.payload
        tagged.append((now + 100, bytes(Ether(src=packet.src, dst=packet.dst) / Dot1Q(vlan=7) / inner)))
    write_pcap(tmp_path / "feed.pcap", sorted(original + tagged))
    report = run(appliance(tmp_path, files=["feed.pcap"], profile="vlan", action="count", servers=1))
    assert report["duplicates"]["by_type"]["vlan"]["frames"] == len(original)
    assert report["ledger"]["forwarded"]["frames"] == 2 * len(original)
    assert report["ledger"]["tagged"]["frames"] == 0


def test_a_missing_interface_is_found_before_an_output_is_written_over(tmp_path):
    path = appliance(tmp_path, files=["feed.pcap"], servers=1)
    path.write_text(path.read_text().replace('file = "feed.pcap"', 'interface = "tsnone0"'))
    (tmp_path / "s0.pcapng").write_bytes(b"yesterday's")
    with pytest.raises(DeviceError, match="no interface 'tsnone0'"):
        Appliance(load_appliance(path))
    assert (tmp_path / "s0.pcapng").read_bytes() == b"yesterday's"
    assert not (tmp_path / "report.json").exists()


def test_realtime_lasts_as_long_as_the_appliance(tmp_path):
    path = appliance(tmp_path, files=["feed.pcap"], servers=1)
    write_pcap(tmp_path / "feed.pcap", conversation(2, 2))
    path.write_text(path.read_text().replace("[appliance]", "[appliance]\nrealtime = true"))
    before = os.sched_getscheduler(0)
    with Appliance(load_appliance(path)) as running:
        allowed = not any("realtime" in event for event in running.events)
        assert os.sched_getscheduler(0) == (os.SCHED_FIFO if allowed else before)
        running.run()
    assert os.sched_getscheduler(0) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_cleanly(tmp_path, number):
    """From a pipe that stays open: what came before the signal is delivered and reported."""
    write_pcap(tmp_path / "whole.pcap", conversation(10, 10))
    path = appliance(tmp_path, files=["-"], servers=1)
    path.write_text(path.read_text().replace(str(tmp_path / "-"), "-"))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'host'}:{ROOT / 'gpu_kernels'}"}
    with subprocess.Popen(
        [sys.executable, "-m", "twinstamp.cli", "run", "--quiet", str(path)],
        stdin=subprocess.PIPE,
        env=environment,
    ) as child:
        assert child.stdin is not None
        child.stdin.write((tmp_path / "whole.pcap").read_bytes())
        child.stdin.flush()
        limit = time.monotonic() + 20
        while not (tmp_path / "s0.pcapng").exists() and time.monotonic() < limit:
            time.sleep(0.05)
        time.sleep(1.0)
        child.send_signal(number)
        timer = threading.Timer(20, child.kill)
        timer.start()
        code = child.wait()
        timer.cancel()
    assert code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["ledger"]["received"]["frames"] == 100
    assert len(read_all(tmp_path / "s0.pcapng")) == report["ledger"]["forwarded"]["frames"] == 100


def test_an_output_that_breaks_does_not_stop_the_others(tmp_path):
    """A FIFO whose reader leaves: its flows move, the ledger adds up, the report is written."""
    original = conversation(40, 200)
    write_pcap(tmp_path / "feed.pcap", original)
    os.mkfifo(tmp_path / "s1.pcapng")

    def read_a_little() -> None:
        with (tmp_path / "s1.pcapng").open("rb") as fifo:
            fifo.read(5000)

    reader = threading.Thread(target=read_a_little)
    reader.start()
    path = appliance(tmp_path, files=["feed.pcap"], servers=2)
    (tmp_path / "balance.key").write_bytes(bytes(range(32)))  # one by which both have a third of the flows
    (tmp_path / "balance.key").chmod(0o600)
    path.write_text(path.read_text().replace("workers = 1", "workers = 1\nbatch_frames = 256"))
    with pytest.raises(DeviceError, match=r"server s1 .*the report says"):
        run(path)
    reader.join(10)
    report = json.loads((tmp_path / "report.json").read_text())
    ledger = report["ledger"]
    assert ledger["received"]["frames"] == ledger["forwarded"]["frames"] == len(original)
    assert ledger["copies"]["send_errors"]["frames"] > 0
    assert ledger["copies"]["sent"]["frames"] + ledger["copies"]["send_errors"]["frames"] == len(original)
    assert report["servers"]["s1"]["alive"] is False
    assert any("s1 is out of the balance" in event for event in report["events"])
    assert report["servers"]["s0"]["frames"] == len(read_all(tmp_path / "s0.pcapng")) > len(original) / 3


def test_link_types_that_a_server_cannot_hold_are_found_at_the_start(tmp_path):
    write_pcap(tmp_path / "a.pcap", conversation(2, 2))
    write_pcap(tmp_path / "b.pcap", conversation(2, 2))
    raw = bytearray((tmp_path / "b.pcap").read_bytes())
    raw[20] = 101
    (tmp_path / "b.pcap").write_bytes(raw)
    with pytest.raises(ConfigError, match=r"server s0.*\.pcapng"):
        Appliance(load_appliance(appliance(tmp_path, files=["a.pcap", "b.pcap"], ending="pcap")))
    run(appliance(tmp_path, files=["a.pcap", "b.pcap"]))


@pytest.mark.parametrize("action", ["drop", "tag"])
def test_fragments_that_come_before_their_first_one(tmp_path, action):
    """Held until the first fragment or 10 ms: all of a datagram on one server, nothing lost, tags kept."""
    feed: list[Record] = []
    now = 1_700_000_000_000_000_000
    for flow in range(30):
        whole = (
            IP(src="10.0.0.1", dst="10.9.9.9", id=flow + 1) / UDP(sport=1000 + flow, dport=53) / bytes(3000)
        )
        parts = [
            bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / part)
            for part in whole.fragment(1000)
        ]
        for part in parts[1:] + parts[:1]:
            feed.append((now, part))
            feed.append((now + 1000, part))  # a copy: the duplicates of held fragments are held too
            now += 100_000
    # A last fragment whose first one never comes goes on alone, by its addresses.
    lonely = Ether(feed[0][1])
    lonely[IP].id = 999
    del lonely[IP].chksum
    feed.append((now, bytes(lonely)))
    write_pcap(tmp_path / "feed.pcap", feed)
    report = run(appliance(tmp_path, files=["feed.pcap"], action=action, profile="exact"))
    outputs = [read_all(tmp_path / f"s{k}.pcapng") for k in range(3)]
    copies = 1 if action == "drop" else 2
    want = [record for i, record in enumerate(feed) if copies == 2 or i % 2 == 0]
    assert sorted(record for output in outputs for record in output) == sorted(want)
    place: dict[int, int] = {}
    for server, output in enumerate(outputs):
        for _, frame in output:
            assert place.setdefault(Ether(frame)[IP].id, server) == server, "a datagram is split"
    assert len(set(place.values())) == 3
    assert report["ledger"]["forwarded"]["frames"] == len(want)
    assert report["ledger"]["tagged"]["frames"] == (len(want) // 2 if action == "tag" else 0)
    assert report["fragments"]["fragments_held"] > 0
    if action == "tag":
        comments = "".join(
            subprocess.run(
                ["tshark", "-r", tmp_path / f"s{k}.pcapng", "-T", "fields", "-e", "frame.comment"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            for k in range(3)
        )
        assert comments.count("twinstamp: duplicate (exact)") == len(want) // 2


def test_a_snap_cut_and_ipv6_and_other_frames_pass(tmp_path):
    from scapy.layers.inet6 import IPv6

    frames = [
        bytes(
            Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
            / IPv6(src="2001:db8::1", dst="2001:db8::2")
            / TCP()
        ),
        bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x88B5) / b"experimental"),
        bytes(Ether() / IP() / TCP())[:30],
        b"\x02",
        b"",
    ]
    feed = [(10**18 + i, frame) for i, frame in enumerate(frames)]
    write_pcap(tmp_path / "feed.pcap", feed)
    report = run(appliance(tmp_path, files=["feed.pcap"], profile="nat", action="drop", workers=2))
    got = sorted(record for k in range(3) for record in read_all(tmp_path / f"s{k}.pcapng"))
    assert got == sorted(feed)
    assert report["ledger"]["forwarded"]["frames"] == len(feed)


def test_what_is_not_understood_is_counted_and_told(tmp_path, capsys):
    from twinstamp.appliance.view import print_report

    unknown = bytes(12) + b"\x89\x27" + bytes(50)
    lldp = bytes(12) + b"\x88\xcc" + bytes(46)
    talk = conversation(2, 4)
    now = talk[-1][0]
    write_pcap(tmp_path / "feed.pcap", [*talk, (now, unknown), (now + 1, unknown), (now + 2, lldp)])
    report = run(appliance(tmp_path, files=["feed.pcap"]))
    assert report["duplicates"]["not_understood"]["ethertypes"] == {"0x8927": 2, "0x88cc": 1}
    # Rules see the one that is no duplicate.
    assert report["not_understood"] == {
        "frames": 2,
        "link_types": {},
        "ethertypes": {"0x88cc": 1, "0x8927": 1},
        "damaged": 0,
    }
    (source,) = report["sources"].values()
    assert source["fractions_beyond"] == 0
    print_report(report)
    assert "2 frames (ethertype 0x88cc 1, ethertype 0x8927 1)" in capsys.readouterr().out
