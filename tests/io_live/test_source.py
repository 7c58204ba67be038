# SPDX-License-Identifier: Apache-2.0
"""LiveSource on veth pairs, against what was sent, tcpdump's capture and tcpdump's filter."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from scapy.all import IP, TCP, UDP, Dot1AD, Dot1Q, Ether, Raw, rdpcap
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.frames import (
    FLAG_CSUM_NOT_READY,
    FLAG_OUTGOING,
    FLAG_VLAN_RESTORED,
    LINKTYPE_ETHERNET,
    LINKTYPE_RAW,
    FrameBatch,
)
from twinstamp.io.live import LiveOutput, LiveSource
from twinstamp.io.merge import Merge

from .conftest import Net, ip

pytestmark = pytest.mark.root
PAIR = {"dst": "02:00:00:00:00:02", "src": "02:00:00:00:00:01"}


def udp(number: int, size: int = 20, dport: int = 9, **ether: str) -> bytes:
    frame = Ether(**(ether or PAIR)) / IP(src="10.0.0.1", dst="10.0.0.2", id=number & 0xFFFF)
    return bytes(frame / UDP(sport=1000, dport=dport) / Raw(number.to_bytes(4, "big") * (size // 4)))


def many(numbers: range, size: int) -> list[bytes]:
    """Like udp, but quick: only the number at the start of the payload differs."""
    template = udp(0, size)
    return [template[:42] + number.to_bytes(4, "big") + template[46:] for number in numbers]


def transmit(interface: str, frames: list[bytes]) -> None:
    """By the standard library's packet socket: nothing of ours."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        for frame in frames:
            sender.send(frame)


def collect(source: LiveSource, n: int, timeout_s: float = 3.0) -> tuple[list[bytes], list[int], list[int]]:
    """(frames, flags, stamps) until n have come or nothing more does."""
    frames: list[bytes] = []
    flags: list[int] = []
    stamps: list[int] = []
    limit = time.monotonic() + timeout_s
    while len(frames) < n and time.monotonic() < limit:
        batch = source.poll(0.1)
        if batch is None:
            continue
        with batch:
            assert batch.first == len(frames)
            frames += [batch.frame(i) for i in range(len(batch))]
            flags += batch.flags.tolist()
            stamps += batch.timestamp_ns.tolist()
    return frames, flags, stamps


def promiscuity(interface: str) -> int:
    line = ip("-d", "link", "show", "dev", interface)
    return int(line.split("promiscuity ")[1].split()[0])


def test_frames_are_those_tcpdump_captures(net: Net, tmp_path: Path) -> None:
    capture = tmp_path / "oracle.pcap"
    with subprocess.Popen(
        [
            "tcpdump",
            "-i",
            "vb",
            "-Q",
            "in",
            "--immediate-mode",
            "-U",
            "-B",
            "16384",
            "-s",
            "2048",
            "--nano",
            "-w",
            str(capture),
            "-Z",
            "root",
        ],
        stderr=subprocess.PIPE,
        text=True,
    ) as tcpdump:
        try:
            assert tcpdump.stderr is not None and "listening" in tcpdump.stderr.readline()
            sent = [udp(i, 4 * (i % 360)) for i in range(400)]
            sent[7] = bytes(Ether(**PAIR) / Dot1Q(vlan=77, prio=5) / IP(dst="10.0.0.2") / UDP())
            before = time.time_ns()
            with LiveSource("vb") as source:
                assert source.ports[0].linktype == LINKTYPE_ETHERNET
                transmit("va", sent)
                frames, _, stamps = collect(source, len(sent))
                after = time.time_ns()
                assert source.poll(0) is None
                assert source.held_blocks == 0
                assert source.statistics() == (len(sent), 0, 0)
            time.sleep(0.3)
        finally:
            tcpdump.terminate()
            tcpdump.wait(10)
    assert frames == sent
    assert stamps == sorted(stamps) and before <= stamps[0] and stamps[-1] <= after
    packets = rdpcap(str(capture))
    assert [bytes(p) for p in packets] == frames
    # Two sockets of one kernel stamp the same frame a few microseconds apart.
    worst = max(abs(int(p.time * 10**9) - t) for p, t in zip(packets, stamps, strict=True))
    assert worst < 50_000_000


def test_vlan_tags_are_put_back(net: Net) -> None:
    inner = IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / Raw(b"x" * 30)
    sent = [
        bytes(Ether(**PAIR) / Dot1Q(vlan=100, prio=3, dei=1) / inner),
        bytes(Ether(**PAIR) / Dot1AD(vlan=200) / Dot1Q(vlan=300) / inner),
        bytes(Ether(**PAIR) / Dot1Q(vlan=0, prio=7) / inner),
        bytes(Ether(**PAIR) / Dot1Q(vlan=1) / Dot1Q(vlan=2) / Dot1Q(vlan=3) / inner),
        bytes(Ether(**PAIR) / inner),
    ]
    with LiveSource("vb") as source:
        transmit("va", sent)
        frames, flags, _ = collect(source, len(sent))
    assert frames == sent
    assert [bool(f & FLAG_VLAN_RESTORED) for f in flags] == [True, True, True, True, False]


def test_vlan_tag_counts_into_caplen_and_length_under_a_snaplen(net: Net) -> None:
    sent = bytes(Ether(**PAIR) / Dot1Q(vlan=100) / IP() / Raw(b"y" * 200))
    with LiveSource("vb", snaplen=60) as source:
        transmit("va", [sent])
        batch = source.poll(1)
        assert batch is not None
        assert (batch.caplen[0], batch.length[0]) == (64, len(sent))
        assert batch.frame(0) == sent[:64]


def test_promiscuous_mode_is_left_as_found(net: Net) -> None:
    for wanted, found in ((True, 0), (False, 0), (True, 1)):
        if found:
            ip("link", "set", "dev", "vb", "promisc", "on")
        assert promiscuity("vb") == found
        source = LiveSource("vb", promiscuous=wanted)
        assert promiscuity("vb") == found + wanted
        transmit("va", [udp(1)])
        batch = source.poll(1)
        source.close()
        assert promiscuity("vb") == found  # although a batch is still held
        assert batch is not None and batch.frame(0) == udp(1)


def test_promiscuous_mode_is_left_as_found_when_killed(net: Net) -> None:
    code = (
        "import time; from twinstamp.io.live import LiveSource; s = LiveSource('vb')\n"
        "print('up', flush=True); time.sleep(30)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=_environment()) as child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        assert promiscuity("vb") == 1
        child.kill()
    assert promiscuity("vb") == 0


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def test_kernel_drops_are_counted_and_nothing_else_is_lost(net: Net) -> None:
    sent = many(range(2000), 1400)  # 2.9 MB into 1 MiB
    with LiveSource("vb", ring_mib=1, block_kib=128) as source:
        transmit("va", sent)
        frames, _, _ = collect(source, len(sent), 1.0)
        statistics = source.statistics()
        assert statistics.kernel_drops > 0
        assert statistics.freezes > 0
        assert statistics.frames == len(frames)
        assert statistics.frames + statistics.kernel_drops == len(sent)
        assert source.statistics() == statistics  # cumulative
        assert frames == sent[: len(frames)]
        transmit("va", sent[:10])  # and it goes on
        batch = source.poll(1)
        assert batch is not None and batch.frame(0) == sent[0]


def test_blocks_held_too_long_cost_drops_never_bytes(net: Net) -> None:
    with LiveSource("vb", ring_mib=1, block_kib=128) as source:
        first = many(range(80), 1400)
        transmit("va", first)
        held = source.poll(1)
        assert held is not None and source.held_blocks >= 1
        before = [held.frame(i) for i in range(len(held))]
        transmit("va", many(range(10_000, 13_000), 1400))
        assert [held.frame(i) for i in range(len(held))] == before == first[: len(before)]
        assert source.statistics().kernel_drops > 0
        rest = []
        while (batch := source.poll(0.05)) is not None:
            rest.append(batch)  # all of the ring is ours now
        start = time.process_time()
        assert source.poll(0.2) is None
        assert time.process_time() - start < 0.1  # it waits, it does not spin
        for batch in [held, *rest]:
            batch.release()
            batch.release()
        assert source.held_blocks == 0
        transmit("va", [udp(1)])
        batch = source.poll(1)
        assert batch is not None and batch.frame(len(batch) - 1) == udp(1)


def test_a_forgotten_batch_gives_its_blocks_back(net: Net) -> None:
    with LiveSource("vb") as source:
        transmit("va", [udp(1)])
        batch = source.poll(1)
        assert batch is not None and source.held_blocks == 1
        column = batch.data
        del batch
        assert source.held_blocks == 1  # somebody still reads
        del column
        assert source.held_blocks == 0


def test_out_of_order_release(net: Net) -> None:
    with LiveSource("vb", ring_mib=1, block_kib=128) as source:
        held: list[tuple[FrameBatch, bytes]] = []
        for number in range(60):
            transmit("va", [udp(number)])
            batch = source.poll(1)
            assert batch is not None and batch.frame(0) == udp(number)
            held.append((batch, udp(number)))
            if len(held) == 5:
                for k in (3, 0, 4, 2, 1):
                    assert held[k][0].frame(0) == held[k][1]
                    held[k][0].release()
                held.clear()
        assert source.statistics().kernel_drops == 0


FILTERS = [
    "udp port 53",
    "tcp",
    "vlan",
    "vlan 100",
    "vlan 100 and udp",
    "not vlan",
    "greater 400",
    "ether host 02:00:00:00:00:09",
    "ip[8] < 5",
    "vlan 200 and vlan 300",
    "icmp or (udp and dst port 9)",
]


@pytest.mark.parametrize("expression", FILTERS)
def test_filter_keeps_what_tcpdump_keeps(net: Net, tmp_path: Path, expression: str) -> None:
    ipv4 = IP(src="10.0.0.1", dst="10.0.0.2")
    sent = [
        udp(1),
        udp(2, dport=53),
        udp(3, 800),
        bytes(Ether(**PAIR) / ipv4 / TCP()),
        bytes(Ether(**PAIR) / Dot1Q(vlan=100) / ipv4 / UDP(dport=53)),
        bytes(Ether(**PAIR) / Dot1Q(vlan=100) / ipv4 / TCP()),
        bytes(Ether(**PAIR) / Dot1Q(vlan=101) / ipv4 / TCP()),
        bytes(Ether(**PAIR) / Dot1Q(vlan=200) / Dot1Q(vlan=300) / ipv4 / UDP()),
        bytes(Ether(dst="02:00:00:00:00:09", src=PAIR["src"]) / ipv4 / UDP()),
        bytes(Ether(**PAIR) / IP(ttl=4) / UDP()),
    ]
    capture = tmp_path / "oracle.pcap"
    with subprocess.Popen(
        [
            "tcpdump",
            "-i",
            "vb",
            "-Q",
            "in",
            "--immediate-mode",
            "-U",
            "-w",
            str(capture),
            "-Z",
            "root",
            expression,
        ],
        stderr=subprocess.PIPE,
        text=True,
    ) as tcpdump:
        try:
            assert tcpdump.stderr is not None and "listening" in tcpdump.stderr.readline()
            with LiveSource("vb", filter=expression) as source:
                transmit("va", sent)
                frames, _, _ = collect(source, len(sent), 0.25)
        finally:
            tcpdump.terminate()
            tcpdump.wait(10)
    assert frames == [bytes(p) for p in rdpcap(str(capture))]
    assert 0 < len(frames) < len(sent)


def test_nothing_from_before_the_filter_gets_through(net: Net) -> None:
    import threading

    stop = threading.Event()

    def noise() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:  # in this thread's namespace
            sender.bind(("va", 0))
            for _ in range(200_000):
                if stop.is_set():
                    return
                sender.send(udp_frame)

    udp_frame = udp(5)
    ready = threading.Thread(target=_in_namespace, args=(net.name, noise))
    ready.start()
    try:
        for _ in range(20):
            with LiveSource("vb", filter="tcp", ring_mib=1) as source:
                assert source.poll(0.02) is None
    finally:
        stop.set()
        ready.join(10)


def _in_namespace(name: str, work) -> None:
    from pyroute2 import netns

    netns.setns(name)
    work()


def test_outgoing_frames(net: Net) -> None:
    with LiveSource("va") as tap, LiveSource("va", ignore_outgoing=False) as both:
        transmit("va", [udp(1)])
        transmit("vb", [udp(2)])
        frames, flags, _ = collect(both, 2)
        assert frames == [udp(1), udp(2)]
        assert [bool(f & FLAG_OUTGOING) for f in flags] == [True, False]
        assert collect(tap, 2, 0.3)[0] == [udp(2)]


def test_loopback_shows_each_frame_once(net: Net) -> None:
    with LiveSource("lo", filter="udp port 4242") as source:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"once", ("127.0.0.1", 4242))
        frames, _, _ = collect(source, 2, 0.3)
    assert len(frames) == 1 and Ether(frames[0])[Raw].load == b"once"


def test_unfilled_checksums_are_flagged(net: Net) -> None:
    net.pair("oa", "ob", offloads=True)
    ip("addr", "add", "10.9.0.1/24", "dev", "oa")
    ip("neigh", "add", "10.9.0.2", "lladdr", "02:00:00:00:00:02", "dev", "oa", "nud", "permanent")
    with LiveSource("ob", filter="udp port 7") as source:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"unfilled", ("10.9.0.2", 7))
        _, flags, _ = collect(source, 1)
        assert flags and flags[0] & FLAG_CSUM_NOT_READY
        subprocess.run(["ethtool", "-K", "oa", "tx", "off"], check=True, capture_output=True, timeout=20)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"filled", ("10.9.0.2", 7))
        batch = source.poll(1)
        assert batch is not None and not batch.flags[0] & FLAG_CSUM_NOT_READY


def test_tun_gives_raw_ip(net: Net) -> None:
    import fcntl

    tun = os.open("/dev/net/tun", os.O_RDWR)
    try:
        iff_tun, iff_no_pi, tunsetiff = 0x0001, 0x1000, 0x400454CA
        fcntl.ioctl(tun, tunsetiff, struct.pack("16sH22x", b"ts0", iff_tun | iff_no_pi))
        ip("link", "set", "dev", "ts0", "up")
        packet = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000, dport=53) / Raw(b"q"))
        other = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1000, dport=54) / Raw(b"q"))
        with LiveSource("ts0", filter="udp port 53") as source:
            assert source.ports[0].linktype == LINKTYPE_RAW
            os.write(tun, other)
            os.write(tun, packet)
            assert collect(source, 2, 0.3)[0] == [packet]
    finally:
        os.close(tun)


def test_interface_goes_down_and_comes_back(net: Net) -> None:
    with LiveSource("vb") as source:
        transmit("va", [udp(1)])
        ip("link", "set", "dev", "vb", "down")
        assert collect_one(source) == [udp(1)]  # received before: delivered
        with pytest.raises(DeviceError, match="interface vb is down: 'ip link set vb up'"):
            source.poll(1)
        ip("link", "set", "dev", "vb", "up")
        # The kernel takes its time to tell the other end; until then it drops what is sent there.
        deadline = time.monotonic() + 10
        while " state UP " not in ip("link", "show", "dev", "va") and time.monotonic() < deadline:
            time.sleep(0.01)
        transmit("va", [udp(2)])
        assert collect_one(source) == [udp(2)]


def collect_one(source: LiveSource) -> list[bytes]:
    batch = source.poll(1)
    assert batch is not None
    with batch:
        return [batch.frame(i) for i in range(len(batch))]


def test_interface_deleted_under_us(net: Net) -> None:
    with LiveSource("vb") as source:
        transmit("va", [udp(1)])
        ip("link", "del", "dev", "va")
        assert collect_one(source) == [udp(1)]
        start = time.monotonic()
        with pytest.raises(DeviceError, match="interface vb is gone"):
            source.poll(5)
        assert time.monotonic() - start < 2


def test_interface_deleted_while_waiting(net: Net) -> None:
    import threading

    with LiveSource("vb") as source:
        timer = threading.Timer(0.2, lambda: ip("link", "del", "dev", "vb", netns=net.name))
        timer.start()
        with pytest.raises(DeviceError, match="gone"):
            source.poll(5)
        timer.join()


def test_fileno_serves_select(net: Net) -> None:
    with LiveSource("vb") as source:
        assert select.select([source], [], [], 0.05)[0] == []
        transmit("va", [udp(1)])
        assert select.select([source], [], [], 1)[0] == [source]
        assert collect_one(source) == [udp(1)]
        assert select.select([source], [], [], 0.05)[0] == []


def test_fanout_shares_and_merge_puts_together(net: Net) -> None:
    sent = []
    for i in range(600):
        flow = IP(src=f"10.0.{i % 50}.1", dst="10.0.0.2") / UDP(sport=i % 50 + 1)
        sent.append(bytes(Ether(**PAIR) / flow / Raw(i.to_bytes(4, "big"))))
    sources = [LiveSource("vb", fanout_group=7) for _ in range(2)]
    with Merge(sources) as merge:
        transmit("va", sent)
        got: list[bytes] = []
        limit = time.monotonic() + 3
        while len(got) < len(sent) and time.monotonic() < limit:
            batch = merge.poll(0.1)
            if batch is not None:
                with batch:
                    got += [batch.frame(i) for i in range(len(batch))]
        assert got == sent
        assert all(source.statistics().frames > 0 for source in sources)
        assert merge.statistics().late == 0


def test_two_interfaces_merge_in_order(net: Net) -> None:
    net.pair("wa", "wb")
    outputs = [LiveOutput("va"), LiveOutput("wa")]
    sources = [LiveSource("vb"), LiveSource("wb")]
    sent = many(range(1000), 20)
    batches = [FrameBatch.from_frames([frame]) for frame in sent]
    with Merge(sources, delay_ms=20) as merge:
        for i, batch in enumerate(batches):
            assert outputs[i * 7 % 3 % 2].send(batch).sent == 1
        got: list[bytes] = []
        names: set[str] = set()
        stamps = np.empty(0, np.int64)
        limit = time.monotonic() + 3
        while len(got) < len(sent) and time.monotonic() < limit:
            batch = merge.poll(0.1)
            if batch is not None:
                with batch:
                    got += [batch.frame(i) for i in range(len(batch))]
                    names |= {batch.ports[p].name for p in batch.port}
                    stamps = np.concatenate([stamps, batch.timestamp_ns])
        assert got == sent
        assert names == {"vb", "wb"}
        assert (np.diff(stamps) >= 0).all()
        assert merge.statistics().late == 0
        assert all(source.held_blocks == 0 for source in sources)
        ip("link", "del", "dev", "wa")
        with pytest.raises(DeviceError, match="wb is gone"):
            while True:
                merge.poll(1)
        transmit("va", [udp(5)])
        batch = merge.poll(1)
        assert batch is not None and batch.frame(0) == udp(5)


def test_clear_errors(net: Net) -> None:
    with pytest.raises(DeviceError, match="no interface 'nope0' here; there are: lo, va, vb"):
        LiveSource("nope0")
    with pytest.raises(ConfigError, match="1 to 15 bytes"):
        LiveSource("a-name-that-is-too-long")
    with pytest.raises(ConfigError, match="syntax error"):
        LiveSource("vb", filter="udp port port")
    with pytest.raises(ConfigError, match="block_kib is 3 KiB"):
        LiveSource("vb", block_kib=3)
    with pytest.raises(ConfigError, match="ring_mib is 0 MiB"):
        LiveSource("vb", ring_mib=0)
    with pytest.raises(ConfigError, match="snaplen is 0 bytes"):
        LiveSource("vb", snaplen=0)
    with pytest.raises(ConfigError, match="fanout_mode is 'flow'"):
        LiveSource("vb", fanout_group=1, fanout_mode="flow")
    source = LiveSource("vb")
    source.close()
    source.close()
    with pytest.raises(DeviceError, match="closed"):
        source.poll(0)
    ip("link", "set", "dev", "vb", "down")
    with pytest.raises(DeviceError, match="interface vb is down"):
        LiveSource("vb")


def test_no_permission_names_the_capability_and_the_other_way(net: Net) -> None:
    code = (
        "import os; os.setgid(65534); os.setuid(65534)\n"
        "from twinstamp.io.live import LiveSource, LiveOutput\n"
        "for cls in (LiveSource, LiveOutput):\n"
        "    try: cls('vb')\n"
        "    except Exception as e: print(type(e).__name__, e)\n"
    )
    # Imported before the rights go: the tree may not be readable for everybody.
    code = "import twinstamp.io.live, twinstamp._native, fcntl, socket\n" + code
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=_environment(), timeout=30
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 2, done.stderr
    for line in lines:
        assert (
            line.startswith("DeviceError no permission") and "CAP_NET_RAW" in line and "capture files" in line
        )


def test_release_from_another_thread_while_the_ring_goes_round(net: Net) -> None:
    """20 MB through a ring of 1 MiB; a second thread looks at each batch late and gives it back."""
    import queue
    import threading

    handed: queue.Queue[FrameBatch | None] = queue.Queue(maxsize=3)
    seen: list[int] = []

    def consume() -> None:
        while (batch := handed.get()) is not None:
            at = batch.offset[:, None] + np.arange(42, 46, dtype=np.uint64)
            time.sleep(0.0005)
            numbers = np.ascontiguousarray(batch.data[at]).view(">u4")[:, 0]
            seen.extend(numbers.tolist())
            batch.release()

    template = np.frombuffer(udp(0, 1000), np.uint8)
    chunk = 20
    consumer = threading.Thread(target=consume)
    with LiveSource("vb", ring_mib=1, block_kib=68) as source, LiveOutput("va") as output:
        consumer.start()
        try:
            for start in range(0, 20_000, chunk):
                frames = np.tile(template, (chunk, 1))
                frames[:, 42:46] = np.arange(start, start + chunk, dtype=">u4")[:, None].view(np.uint8)
                assert output.send(FrameBatch.from_frames([f.tobytes() for f in frames])).sent == chunk
                while (batch := source.poll(0)) is not None:
                    handed.put(batch, timeout=10)
            while (batch := source.poll(0.3)) is not None:
                handed.put(batch, timeout=10)
        finally:
            handed.put(None, timeout=10)
            consumer.join(10)
        statistics = source.statistics()
        assert source.held_blocks == 0
    assert seen == sorted(set(seen))  # each once, in order, none overwritten
    assert len(seen) == statistics.frames == 20_000 - statistics.kernel_drops
