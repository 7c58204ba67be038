# SPDX-License-Identifier: Apache-2.0
"""LiveOutput against scapy's dissection, tshark and Linux's own vxlan device."""

from __future__ import annotations

import errno
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from scapy.all import GRE, IP, TCP, UDP, VXLAN, Dot1AD, Dot1Q, Ether, IPv6, Raw, in6_chksum, wrpcap
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.frames import LINKTYPE_RAW, FrameBatch
from twinstamp.io.live import Encap, Gre, LiveOutput, LiveSource, Vlan, Vxlan

from .conftest import Net, ip, make_netns
from .test_source import PAIR, collect, many, udp

pytestmark = pytest.mark.root
INNER = Ether(dst="02:11:11:11:11:11", src="02:22:22:22:22:22")


def received(source: LiveSource, n: int, timeout_s: float = 3.0) -> list[bytes]:
    return collect(source, n, timeout_s)[0]


def sent_over(encap: Encap | None, frames: list[bytes]) -> tuple[list[bytes], object]:
    """What the other end of va - vb gets."""
    with LiveSource("vb") as source, LiveOutput("va", encap=encap) as output:
        result = output.send(FrameBatch.from_frames(frames))
        assert result.attempted == len(frames)
        return received(source, result.sent), result


def test_frames_go_out_as_they_are_in_order(net: Net) -> None:
    frames = [many(range(i, i + 1), 4 + 4 * (i % 300))[0] for i in range(1200)]
    got, result = sent_over(None, frames)
    assert got == frames
    assert result == (
        1200,
        sum(map(len, frames)),
        sum(map(len, frames)),
        0,
        0,
        0,
        0,
        0,
        result.retries,
        result.waited_ns,
    )


def test_selection_by_index(net: Net) -> None:
    frames = many(range(1000), 20)
    index = np.array([5, 999, 0, 5, 17], dtype=np.uint32)
    with LiveSource("vb") as source, LiveOutput("va") as output:
        result = output.send(FrameBatch.from_frames(frames), index)
        assert (result.sent, result.bytes) == (5, sum(len(frames[i]) for i in index))
        assert received(source, 5) == [frames[i] for i in index]
        assert output.send(FrameBatch.from_frames(frames), memoryview(b"").cast("I")).attempted == 0
        assert output.send(FrameBatch.from_frames([])).attempted == 0
        with pytest.raises(ValueError, match="frame index 1000 of a batch of 1000"):
            output.send(FrameBatch.from_frames(frames), np.array([1, 1000], dtype=np.uint32))
        assert source.poll(0.05) is None  # nothing half sent


def test_live_batch_goes_on_without_a_copy(net: Net) -> None:
    net.pair("wa", "wb")
    frames = [udp(i) for i in range(200)]
    frames[3] = bytes(Ether(**PAIR) / Dot1Q(vlan=9) / IP() / UDP())
    inject, on = LiveOutput("va"), LiveOutput("wa")
    with LiveSource("vb") as first, LiveSource("wb") as second, inject, on:
        inject.send(FrameBatch.from_frames(frames))
        n = 0
        while n < len(frames):
            batch = first.poll(1)
            assert batch is not None
            with batch:
                n += on.send(batch).sent
        assert received(second, len(frames)) == frames


EDITS = [
    (Encap(mac_dst="02:aa:bb:cc:dd:ee"), lambda p: setattr(p, "dst", "02:aa:bb:cc:dd:ee")),
    (Encap(mac_src="02-00-00-00-00-77"), lambda p: setattr(p, "src", "02:00:00:00:00:77")),
    (
        Encap(mac_dst="02:aa:bb:cc:dd:ee", mac_src="02:00:00:00:00:77"),
        lambda p: (setattr(p, "dst", "02:aa:bb:cc:dd:ee"), setattr(p, "src", "02:00:00:00:00:77")),
    ),
    (Encap(add_vlan=Vlan(vid=4094, pcp=6, dei=True)), "add"),
    (Encap(add_vlan=Vlan(vid=5, tpid=0x88A8)), "add-ad"),
    (Encap(strip_vlan=True), "strip"),
    (Encap(strip_vlan=True, add_vlan=Vlan(vid=8)), "replace"),
    (Encap(strip_vlan=True, add_vlan=Vlan(vid=8), mac_dst="02:aa:bb:cc:dd:ee"), "replace-mac"),
]


def edited(frame: bytes, how: object) -> bytes:
    """The same edit by scapy."""
    packet = Ether(frame)
    if callable(how):
        how(packet)
        return bytes(packet)
    assert isinstance(how, str)
    payload, kind = packet.payload, packet.type
    if how in ("strip", "replace", "replace-mac") and isinstance(payload, (Dot1Q, Dot1AD)):
        kind, payload = payload.type, payload.payload
    addresses = {"dst": "02:aa:bb:cc:dd:ee" if how == "replace-mac" else packet.dst, "src": packet.src}
    body = bytes(payload)
    if how == "strip":
        return bytes(Ether(**addresses, type=kind)) + body
    if how == "add-ad":
        return bytes(Ether(**addresses, type=0x88A8)) + bytes(Dot1AD(vlan=5, type=kind)) + body
    tag = Dot1Q(vlan=4094, prio=6, dei=1, type=kind) if how == "add" else Dot1Q(vlan=8, type=kind)
    return bytes(Ether(**addresses, type=0x8100)) + bytes(tag) + body


@pytest.mark.parametrize(("encap", "how"), EDITS)
def test_mac_and_vlan_edits_equal_scapys(net: Net, encap: Encap, how: object) -> None:
    body = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=9) / Raw(b"payload" * 8)
    frames = [
        bytes(INNER / body),
        bytes(INNER / Dot1Q(vlan=7, prio=2) / body),
        bytes(INNER / Dot1AD(vlan=70) / Dot1Q(vlan=71) / body),
        bytes(INNER / IPv6() / TCP()),
        bytes(Ether(dst=INNER.dst, src=INNER.src, type=0x88CC)) + b"lldp" * 10,
    ]
    got, result = sent_over(encap, frames)
    assert result.sent == len(frames)
    assert got == [edited(frame, how) for frame in frames]
    assert (result.bytes, result.wire_bytes) == (sum(map(len, frames)), sum(map(len, got)))


def test_over_the_mtu_is_counted_never_sent(net: Net) -> None:
    def sized(n: int, tag: bool = False) -> bytes:
        head = bytes(Ether(**PAIR, type=0x0800))
        if tag:
            head = bytes(Ether(**PAIR, type=0x8100) / Dot1Q(vlan=5, type=0x0800))
        return head + bytes(n - len(head))

    frames = [sized(1514), sized(1515), sized(1518, True), sized(1519, True), sized(9000), sized(64)]
    with LiveSource("vb") as source, LiveOutput("va") as output:
        batch = FrameBatch.from_frames(frames)
        result = output.send(batch)
        assert (result.sent, result.too_big, result.errors, result.unsendable) == (3, 3, 0, 0)
        assert result.bytes == 1514 + 1518 + 64
        assert received(source, 3) == [frames[0], frames[2], frames[5]]
        ip("link", "set", "dev", "va", "mtu", "9000")
        ip("link", "set", "dev", "vb", "mtu", "9000")
        assert output.send(batch).too_big == 0  # the new MTU counts at once
        assert received_again(source, 6) == frames
        ip("link", "set", "dev", "va", "mtu", "1000")
        assert output.send(batch).too_big == 5
        assert output.mtu == 1000
    # A tag that the output adds comes on top, as long as it is 802.1Q (af_packet.c)
    ip("link", "set", "dev", "va", "mtu", "1500")
    got, result = sent_over(Encap(add_vlan=Vlan(vid=3)), [sized(1514), sized(1515)])
    assert (result.sent, result.too_big, len(got[0])) == (1, 1, 1518)


def received_again(source: LiveSource, n: int) -> list[bytes]:
    frames: list[bytes] = []
    limit = time.monotonic() + 3
    while len(frames) < n and time.monotonic() < limit:
        batch = source.poll(0.1)
        if batch is not None:
            with batch:
                frames += [batch.frame(i) for i in range(len(batch))]
    return frames


def test_what_cannot_be_sent_is_counted(net: Net) -> None:
    ok = udp(1)
    short_tag = ok[:12] + b"\x81\x00\x00"
    got, result = sent_over(Encap(strip_vlan=True), [b"", b"x" * 13, short_tag, ok])
    assert (result.sent, result.unsendable, result.errors) == (1, 3, 0)
    assert got == [ok]
    with LiveOutput("va") as output:
        raw = FrameBatch.from_frames([bytes(IP() / UDP())], linktype=LINKTYPE_RAW)
        assert output.send(raw).unsendable == 1
        cut = FrameBatch.from_frames([ok], length=[1500])
        result = output.send(cut)
        assert (result.sent, result.cut, result.bytes, result.wire_bytes) == (1, 1, len(ok), len(ok))


def test_raw_ip_gets_an_ethernet_header(net: Net) -> None:
    ipv4 = IP(src="10.0.0.1", dst="10.0.0.2") / UDP() / Raw(b"q")
    packets = [bytes(ipv4), bytes(IPv6() / UDP()), b"\x70" + bytes(30)]
    both = {"mac_dst": PAIR["dst"], "mac_src": PAIR["src"]}
    for tag in (None, Vlan(vid=9)):
        with LiveSource("vb") as source, LiveOutput("va", encap=Encap(**both, add_vlan=tag)) as output:
            result = output.send(FrameBatch.from_frames(packets, linktype=LINKTYPE_RAW))
            assert (result.sent, result.unsendable) == (2, 1)
            head = Ether(**PAIR) if tag is None else Ether(**PAIR) / Dot1Q(vlan=9)
            assert received(source, 2) == [bytes(head / IP(packets[0])), bytes(head / IPv6(packets[1]))]
    with LiveOutput("va", encap=Encap(mac_dst=PAIR["dst"])) as output:
        assert output.send(FrameBatch.from_frames(packets, linktype=LINKTYPE_RAW)).unsendable == 3


def test_nothing_blocks_for_ever(net: Net) -> None:
    """A peer that is down: the kernel refuses every frame with ENOBUFS; the retries are bounded."""
    with LiveOutput("va", retry_ms=20) as output:
        batch = FrameBatch.from_frames(many(range(2000), 20))
        ip("link", "set", "dev", "vb", "down")
        start = time.monotonic()
        result = output.send(batch)
        assert time.monotonic() - start < 1
        assert (result.sent, result.errors, result.attempted) == (0, 2000, 2000)
        assert result.retries > 0 and result.error in (errno.ENOBUFS, errno.ENETDOWN)
        ip("link", "set", "dev", "vb", "up")
        limit = time.monotonic() + 3  # the carrier's return is noticed by a work queue
        while output.send(FrameBatch.from_frames([udp(1)])).sent == 0 and time.monotonic() < limit:
            time.sleep(0.01)
        assert output.send(FrameBatch.from_frames([udp(1)])).sent == 1


def test_interface_down_and_deleted_under_us(net: Net) -> None:
    batch = FrameBatch.from_frames(many(range(1000), 20))
    with LiveOutput("va", retry_ms=5) as output:
        assert output.send(batch).sent == 1000
        ip("link", "set", "dev", "va", "down")
        result = output.send(batch)
        assert (result.sent, result.errors, result.down) == (0, 1000, True)
        ip("link", "del", "dev", "va")
        result = output.send(batch)
        assert (result.sent, result.errors, result.down) == (0, 1000, True)
        assert result.error in (errno.ENXIO, errno.ENODEV, errno.ENETDOWN)


def inner_frames() -> list[bytes]:
    """Flows in both directions, odd and even lengths, tags, fragments, not IP at all."""
    frames = []
    for flow in range(40):
        a, b = f"10.1.0.{flow}", "10.2.0.1"
        for k in range(3):
            frames.append(
                bytes(INNER / IP(src=a, dst=b) / TCP(sport=1000 + flow, dport=80) / Raw(b"z" * (flow + k)))
            )
            back = Ether(dst=INNER.src, src=INNER.dst)
            frames.append(bytes(back / IP(src=b, dst=a) / TCP(sport=80, dport=1000 + flow) / Raw(b"y" * k)))
    frames.append(
        bytes(INNER / Dot1Q(vlan=6) / IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP(sport=1, dport=2))
    )
    frames.append(bytes(INNER / IP(flags="MF") / Raw(b"f" * 64)))
    frames.append(bytes(Ether(dst=INNER.dst, src=INNER.src, type=0x88CC)) + b"odd" * 11)
    frames.append(bytes(INNER / IP() / UDP() / Raw(b"m" * 1300)))
    return frames


class Far:
    """A second namespace at the other end of ta - tb: 10.7.0.1/2 and fd07::1/2."""

    def __init__(self, net: Net, names: list[str], mtu: int = 1600) -> None:
        self.name = make_netns(names)
        net.pair("ta", "tb")
        ip("link", "set", "dev", "tb", "netns", self.name)
        ip("link", "set", "dev", "tb", "up", netns=self.name)
        ip("link", "set", "dev", "ta", "mtu", str(mtu))
        ip("link", "set", "dev", "tb", "mtu", str(mtu), netns=self.name)
        for where, device, last in ((None, "ta", 1), (self.name, "tb", 2)):
            command = ["ip", "netns", "exec", where] if where else []
            conf = f"/proc/sys/net/ipv6/conf/{device}"
            # Until duplicate address detection is over, no neighbour solicitation goes out.
            enable = f"echo 0 > {conf}/accept_dad; echo 0 > {conf}/disable_ipv6"
            subprocess.run([*command, "sh", "-c", enable], check=True, timeout=20)
            ip("addr", "add", f"10.7.0.{last}/24", "dev", device, netns=where)
            ip("addr", "add", f"fd07::{last}/64", "dev", device, "nodad", netns=where)


ENDS = {4: ("10.7.0.1", "10.7.0.2"), 6: ("fd07::1", "fd07::2")}


@pytest.fixture
def far(net: Net, netns: list[str]) -> Far:
    return Far(net, netns)


def checksum_ok(packet: bytes) -> bool:
    """Outer IPv4 header checksum and UDP checksum (where present), by scapy."""
    outer = Ether(packet)
    again = outer.copy()
    if IP in again:
        del again[IP].chksum
        if Ether(bytes(again))[IP].chksum != outer[IP].chksum:
            return False
    if outer.payload.payload.name == "UDP" and outer.payload.payload.chksum:
        udp_bytes = bytes(outer.payload.payload)
        if IPv6 in outer and outer.payload.name == "IPv6":
            return in6_chksum(17, outer.payload, udp_bytes) == 0
    return True


@pytest.mark.parametrize("version", [4, 6])
def test_vxlan_is_what_scapy_and_tshark_read(far: Far, tmp_path: Path, version: int) -> None:
    local, remote = ENDS[version]
    frames = inner_frames()
    tunnel = Vxlan(local=local, remote=remote, vni=0xABCDEF, ttl=17, dscp=46)
    with LiveSource("ta", ignore_outgoing=False, filter="udp port 4789") as source:
        with LiveOutput("ta", encap=Encap(tunnel=tunnel)) as output:
            assert output.resolve()
            result = output.send(FrameBatch.from_frames(frames))
        assert (result.sent, result.attempted) == (len(frames), len(frames))
        got = received(source, len(frames))
    assert len(got) == len(frames)
    ports: dict[frozenset[object], set[int]] = {}
    for frame, packet in zip(frames, got, strict=True):
        outer = Ether(packet)
        layer = outer[IP] if version == 4 else outer[IPv6]
        assert (layer.src, layer.dst) == (local, remote)
        if version == 4:
            assert (layer.ttl, layer.tos, layer.len, str(layer.flags)) == (
                17,
                46 << 2,
                len(packet) - 14,
                "DF",
            )
        else:
            assert (layer.hlim, layer.tc, layer.plen) == (17, 46 << 2, len(packet) - 54)
        datagram = layer.payload
        assert (datagram.dport, datagram.len) == (4789, len(frame) + 16)
        assert datagram.sport >= 49152
        assert bool(datagram.chksum) == (version == 6)
        assert checksum_ok(packet)
        assert (datagram[VXLAN].vni, int(datagram[VXLAN].flags)) == (0xABCDEF, 8)
        assert bytes(datagram[VXLAN].payload) == frame
        inner = Ether(frame)
        if TCP in inner:
            ends = frozenset([(inner[IP].src, inner[TCP].sport), (inner[IP].dst, inner[TCP].dport)])
            ports.setdefault(ends, set()).add(datagram.sport)
    assert all(len(seen) == 1 for seen in ports.values())  # both directions of a flow alike
    assert len({port for seen in ports.values() for port in seen}) > 30  # and flows apart
    assert result.wire_bytes == sum(len(packet) - 14 for packet in got)
    if shutil.which("tshark"):
        capture = tmp_path / "vxlan.pcap"
        wrpcap(str(capture), [Ether(packet) for packet in got])
        text = subprocess.run(
            ["tshark", "-r", str(capture), "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE",
             "-T", "fields", "-e", "vxlan.vni", "-e", "udp.checksum.status", "-e", "ip.checksum.status",
             "-Y", "vxlan"],
            check=True, capture_output=True, text=True, timeout=60,
        ).stdout.splitlines()  # fmt: skip
        rows = [line.split("\t") for line in text]
        assert len(rows) == len(frames)
        bad = "0"
        for vni, udp_status, ip_status in rows:
            assert vni == str(0xABCDEF)
            outer_status = udp_status.split(",")[0]
            assert outer_status != bad and (version == 4 or outer_status == "1")
            assert version == 6 or ip_status.split(",")[0] == "1"


@pytest.mark.parametrize("version", [4, 6])
def test_linux_vxlan_device_unpacks_it(far: Far, version: int) -> None:
    local, remote = ENDS[version]
    ip("link", "add", "vx0", "type", "vxlan", "id", "42", "dstport", "4789", "local", remote, "dev", "tb",
       netns=far.name)  # fmt: skip
    ip("link", "set", "dev", "vx0", "up", netns=far.name)
    from pyroute2 import netns as namespaces

    namespaces.pushns(far.name)
    try:
        source = LiveSource("vx0")
    finally:
        namespaces.popns()
    frames = inner_frames()
    frames[3] = bytes(INNER / Dot1Q(vlan=12) / IP() / UDP())
    with source, LiveOutput("ta", encap=Encap(tunnel=Vxlan(local=local, remote=remote, vni=42))) as output:
        assert output.resolve()
        assert output.send(FrameBatch.from_frames(frames)).sent == len(frames)
        assert received(source, len(frames)) == frames


def test_vxlan_checksum_over_ipv4_is_right_when_asked_for(far: Far) -> None:
    local, remote = ENDS[4]
    tunnel = Vxlan(local=local, remote=remote, vni=1, port=8472, udp_checksum=True)
    frames = inner_frames()
    with LiveSource("ta", ignore_outgoing=False, filter="udp port 8472") as source:
        with LiveOutput("ta", encap=Encap(tunnel=tunnel, strip_vlan=True, add_vlan=Vlan(vid=2))) as output:
            assert output.send(FrameBatch.from_frames(frames)).sent == len(frames)
        got = received(source, len(frames))
    assert len(got) == len(frames)
    for packet in got:
        outer = Ether(packet)
        given = outer[UDP].chksum
        assert given != 0
        again = outer.copy()
        again[UDP].remove_payload()
        del again[IP].chksum, again[UDP].chksum, again[UDP].len, again[IP].len
        again = again / Raw(bytes(outer[UDP].payload))
        assert Ether(bytes(again))[UDP].chksum == given


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("key", [None, 0, 0xDEADBEEF])
def test_gre_is_what_scapy_reads(far: Far, version: int, key: int | None) -> None:
    local, remote = ENDS[version]
    frames = inner_frames()
    filter_text = "ip proto 47" if version == 4 else "ip6 proto 47"
    with LiveSource("ta", ignore_outgoing=False, filter=filter_text) as source:
        with LiveOutput("ta", encap=Encap(tunnel=Gre(local=local, remote=remote, key=key))) as output:
            assert output.resolve()
            result = output.send(FrameBatch.from_frames(frames))
        assert result.sent == len(frames)
        got = received(source, len(frames))
    for frame, packet in zip(frames, got, strict=True):
        outer = Ether(packet)
        layer = outer[IP] if version == 4 else outer[IPv6]
        assert (layer.src, layer.dst) == (local, remote)
        assert checksum_ok(packet)
        gre = outer[GRE]
        assert (gre.proto, gre.key_present, gre.version) == (0x6558, int(key is not None), 0)
        assert key is None or gre.key == key
        assert bytes(gre.payload) == frame


def test_tunnel_over_the_mtu_is_counted_never_sent_in_pieces(far: Far) -> None:
    for version, overhead in ((4, 36), (6, 56)):
        local, remote = ENDS[version]
        fits = bytes(INNER) + bytes(1600 - overhead - 14)
        with LiveSource("ta", ignore_outgoing=False, filter="udp port 4789") as source:
            with LiveOutput("ta", encap=Encap(tunnel=Vxlan(local=local, remote=remote, vni=1))) as output:
                result = output.send(FrameBatch.from_frames([fits, fits + b"x", fits]))
            assert (result.sent, result.too_big) == (2, 1)
            got = received(source, 3, 0.3)
            assert [len(packet) for packet in got] == [1614, 1614]
            with LiveOutput(None, encap=Encap(tunnel=Vxlan(local=local, remote=remote, vni=1))) as output:
                result = output.send(FrameBatch.from_frames([fits, fits + b"x", fits]))
            assert (result.sent, result.too_big) == (2, 1)  # the route's MTU, by the kernel


def test_tunnel_without_next_hop_or_route(far: Far) -> None:
    tunnel = Vxlan(local="10.7.0.1", remote="10.7.0.99", vni=1)
    with LiveOutput("ta", encap=Encap(tunnel=tunnel)) as output:
        assert not output.resolve(0.2)
    tunnel = Vxlan(local="10.7.0.1", remote="192.0.2.1", vni=1)
    with LiveOutput(None, encap=Encap(tunnel=tunnel), retry_ms=5) as output:
        with pytest.raises(ConfigError, match=r"no route to tunnel end 192\.0\.2\.1"):
            output.resolve()
        result = output.send(FrameBatch.from_frames([udp(1), udp(2)]))
        assert (result.sent, result.errors, result.error) == (0, 2, errno.ENETUNREACH)


def test_clear_errors(net: Net) -> None:
    def tunnel(**options: object) -> Encap:
        return Encap(tunnel=Vxlan(**{"local": "10.0.0.1", "remote": "10.0.0.2", "vni": 1, **options}))  # type: ignore[arg-type]

    for encap, text in (
        (Encap(mac_dst="02:00:00:00:00"), "MAC address '02:00:00:00:00'"),
        (Encap(mac_src="zz:00:00:00:00:00"), "six bytes"),
        (Encap(add_vlan=Vlan(vid=4095)), "VLAN id is 4095"),
        (Encap(add_vlan=Vlan(vid=1, pcp=8)), "VLAN priority is 8"),
        (Encap(add_vlan=Vlan(vid=1, tpid=0x800)), "TPID is 0x0800"),
        (tunnel(vni=1 << 24), "vni is 16777216"),
        (tunnel(remote="fd00::1"), "different families"),
        (tunnel(remote="example"), "example"),
        (tunnel(port=0), "port is 0"),
        (tunnel(ttl=0), "ttl is 0"),
        (tunnel(dscp=64), "dscp is 64"),
        (Encap(tunnel=Gre(local="10.0.0.1", remote="10.0.0.2", key=1 << 32)), "key is 4294967296"),
    ):
        with pytest.raises(ConfigError, match=text):
            LiveOutput("va", encap=encap)
    with pytest.raises(DeviceError, match="no interface 'nope0'"):
        LiveOutput("nope0")
    with pytest.raises(ConfigError, match="needs an interface"):
        LiveOutput(None)
    with pytest.raises(ConfigError, match="retry_ms is -1 ms"):
        LiveOutput("va", retry_ms=-1)
    ip("link", "set", "dev", "va", "down")
    with pytest.raises(DeviceError, match="interface va is down"):
        LiveOutput("va")
