# SPDX-License-Identifier: Apache-2.0
"""A decoy first, the packet it is to hide 1 ms later: what an outsider can hide under each profile, and
what not.

The table that these tests hold is docs/duplicates.md, "What an outsider can hide". Which frames no host takes
is the RFCs' word: 791 and 1812 (header checksum), 1812 and 8200 (TTL, hop limit 0), 2516 (PPPoE), 1071
(sums).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import numpy as np
import pytest
from scapy.contrib.erspan import ERSPAN, ERSPAN_II
from scapy.contrib.geneve import GENEVE
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPOption_Router_Alert
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw
from twinstamp_kernels.window import Window

from tests.kernels.executors import EXECUTORS, each_executor

MS = 1_000_000
REQUEST = b"GET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n"
PROFILES = ("exact", "vlan", "routing", "nat")


@pytest.fixture(autouse=True, scope="module", params=EXECUTORS)
def executor(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from each_executor(sys.modules[__name__], request.param)


def judged(frames: list[bytes], **options: object) -> tuple[list[int], dict]:
    """(keep of each frame, the window's counts), the frames 1 ms apart."""
    window = Window(**({"time_ns": 50 * MS} | options))  # type: ignore[arg-type]
    caplen = np.array([len(f) for f in frames], np.uint32)
    offset = np.concatenate(([0], np.cumsum(caplen[:-1]))).astype(np.uint64)
    data = np.frombuffer(b"".join(frames), np.uint8)
    stamps = np.arange(len(frames), dtype=np.int64) * MS
    verdicts = window.process(
        data, offset, caplen, stamps, np.zeros(len(frames), np.uint16), np.array([1], np.uint16)
    )
    return np.asarray(verdicts.keep).tolist(), window.statistics()


def hides(decoy: bytes, real: bytes, **options: object) -> bool:
    return judged([decoy, real], **options)[0] == [1, 0]


def packet(version: int = 4, **changes: object) -> Packet:
    if version == 4:
        ip = IP(src="10.0.0.1", dst="192.0.2.9", id=7)
    else:
        ip = IPv6(src="2001:db8::1", dst="2001:db8::9")
    for name, value in changes.items():
        setattr(ip, name, value)
    return ip / TCP(sport=40000, dport=80, seq=1, ack=1, flags="PA") / REQUEST


def ether(inside: Packet, **fields: str) -> bytes:
    return bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **fields) / inside)


def pppoe(inside: Packet, *, version: int = 1, type: int = 1, code: int = 0, more: int = 0) -> bytes:
    body = bytes(PPP(proto=0x21 if inside.version == 4 else 0x57) / inside)
    head = PPPoE(version=version, type=type, code=code, sessionid=1, len=len(body) + more)
    return ether(head / Raw(body))


def tagged(tags: int, inside: Packet) -> bytes:
    for _ in range(tags):
        inside = Dot1Q(vlan=7) / inside
    return ether(inside)


def flipped(frame: bytes, at: int) -> bytes:
    return frame[:at] + bytes([frame[at] ^ 0x55]) + frame[at + 1 :]


REAL = ether(packet())
REAL6 = ether(packet(6))
# Frames that no host takes, and nothing else: each beside the frame it is made from.
REFUSED = {
    "IPv4 header checksum": (flipped(REAL, 24), REAL),
    "IPv4 header checksum 0": (REAL[:24] + b"\0\0" + REAL[26:], REAL),
    "TTL 0": (ether(packet(ttl=0)), REAL),
    "hop limit 0": (ether(packet(6, hlim=0)), REAL6),
    "PPPoE version 0": (pppoe(packet(), version=0), REAL),
    "PPPoE type 2": (pppoe(packet(), type=2), REAL),
    "PPPoE code A7": (pppoe(packet(), code=0xA7), REAL),
    "PPPoE code A7, IPv6": (pppoe(packet(6), code=0xA7), REAL6),
    "PPPoE too short for the packet": (pppoe(packet(), more=-1), REAL),
    "PPPoE longer than the frame": (pppoe(packet(), more=1), REAL),
    "PPPoE too short for the packet, IPv6": (pppoe(packet(6), more=-1), REAL6),
    "four tags": (tagged(4, packet()), REAL),
    "thirty tags": (tagged(30, packet()), REAL),
    "four tags, IPv6": (tagged(4, packet(6)), REAL6),
}
TUNNEL = IP(src="198.51.100.7", dst="203.0.113.1", ttl=1)


def around(inside: Packet) -> dict[str, bytes]:
    """Tunnels to anybody with the packet inside."""
    frame = ether(inside)
    twenty_five: Packet = inside
    for _ in range(25):
        twenty_five = IP(src="198.51.100.7", dst="203.0.113.1", ttl=1) / twenty_five
    return {
        "VXLAN 4789": ether(TUNNEL / UDP(sport=5, dport=4789) / VXLAN(flags=8) / Raw(frame)),
        "VXLAN 8472": ether(TUNNEL / UDP(sport=5, dport=8472) / VXLAN(flags=8) / Raw(frame)),
        "GRE": ether(TUNNEL / GRE() / inside),
        "ERSPAN I": ether(TUNNEL / GRE(proto=0x88BE) / ERSPAN() / Raw(frame)),
        "ERSPAN II": ether(TUNNEL / GRE(proto=0x88BE, seqnum_present=1) / ERSPAN_II() / Raw(frame)),
        "Geneve": ether(TUNNEL / UDP(sport=5, dport=6081) / GENEVE(proto=0x6558) / Raw(frame)),
        "IP in IP": ether(TUNNEL / inside),
        "IP in IP, 25 times": ether(twenty_five),
        "MPLS": ether(MPLS(label=99, s=1, ttl=1) / inside, type=0x8847),
    }


REAL_OPTIONS = ether(IP(bytes(packet(options=[IPOption_Router_Alert()]))))
# What hosts do take, or routers carry: the decoy, the frame it hides, and the profiles under which it does.
# With the
# guard a row with a mark hides nothing.
MAY_HIDE = {
    "nothing": (REAL, REAL, "exact vlan routing nat", False),
    "padding": (REAL + bytes(9), REAL, "vlan routing nat", False),
    "a tag": (tagged(1, packet()), REAL, "vlan routing nat", False),
    "three tags": (tagged(3, packet()), REAL, "vlan routing nat", False),
    "MAC addresses": (flipped(flipped(REAL, 3), 9), REAL, "routing nat", False),
    "DSCP": (ether(packet(tos=0x28)), REAL, "routing nat", False),
    "traffic class": (ether(packet(6, tc=0x28)), REAL6, "routing nat", False),
    "TTL 1": (ether(packet(ttl=1)), REAL, "routing nat", True),
    "hop limit 1": (ether(packet(6, hlim=1)), REAL6, "routing nat", True),
    "TTL 255": (ether(packet(ttl=255)), REAL, "routing nat", False),
    "PPPoE": (pppoe(packet()), REAL, "routing nat", False),
    "source": (ether(packet(src="198.51.100.7")), REAL, "nat", False),
    "source and TTL 1": (ether(packet(src="198.51.100.7", ttl=1)), REAL, "nat", True),
    "source, with a wrong TCP checksum": (flipped(ether(packet(src="198.51.100.7")), 50), REAL, "", False),
    "both endpoints": (ether(packet(src="198.51.100.7", dst="198.51.100.8")), REAL, "", False),
    "identification": (ether(packet(id=8)), REAL, "", False),
    "reserved bit": (ether(packet(flags="evil")), REAL, "", False),
    "flow label": (ether(packet(6, fl=1)), REAL6, "", False),
    "IP options": (REAL_OPTIONS, REAL, "", False),
    "cut short": (REAL[:-1], REAL, "", False),
}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", MAY_HIDE)
def test_what_an_outsider_can_hide(name: str, profile: str) -> None:
    """The table of docs/duplicates.md, row by row."""
    decoy, real, under, guarded = MAY_HIDE[name]
    hidden = profile in under.split()
    for layer in ("outer", "inner"):
        assert hides(decoy, real, profile=profile, layer=layer) is hidden
        assert hides(decoy, real, profile=profile, layer=layer, guard="ttl") is (hidden and not guarded)


@pytest.mark.parametrize("layer", ["outer", "inner"])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_no_host_takes_hides_nothing(name: str, profile: str, layer: str) -> None:
    decoy, real = REFUSED[name]
    assert not hides(decoy, real, profile=profile, layer=layer), (decoy.hex(), real.hex())
    assert hides(decoy, decoy, profile=profile, layer=layer)  # its own copies are found all the same


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_host_takes_hides_nothing_in_a_tunnel(name: str) -> None:
    tunnel = IP(src="192.0.2.1", dst="192.0.2.2") / GRE(proto=0x6558)
    decoy, real = (ether(tunnel / Raw(frame)) for frame in REFUSED[name])
    assert not hides(decoy, real, profile="routing", layer="inner")


def test_a_tunnel_no_host_takes_is_not_opened() -> None:
    inside = Raw(ether(packet()))
    sound, other = (
        ether(IP(src="192.0.2.1", dst=d) / GRE(proto=0x6558) / inside) for d in ("1.1.1.1", "2.2.2.2")
    )
    assert hides(sound, other, profile="routing", layer="inner")
    assert not hides(flipped(sound, 24), other, profile="routing", layer="inner")


@pytest.mark.parametrize("copy", ["pppoe", "tags", "cut"])
def test_sound_frames_are_still_copies(copy: str) -> None:
    """What is right of the same kind is found: PPPoE as RFC 2516 has it, three tags, a cut frame."""
    frame = {"pppoe": pppoe(packet()), "tags": tagged(3, packet()), "cut": REAL}[copy]
    if copy == "cut":
        assert hides(ether(packet(ttl=64))[:80], ether(packet(ttl=63))[:80], profile="routing")
        frame = pppoe(packet())[:80]
        assert hides(frame, pppoe(packet(ttl=63))[:80], profile="routing")
        return
    assert hides(frame, REAL, profile="routing")
    assert hides(REAL, frame, profile="routing")


def transports(version: int) -> dict[str, tuple[Packet, int]]:
    """Packets, and where in layer 4 their checksum stands."""
    ip = (
        IP(src="10.0.0.1", dst="192.0.2.9", id=7)
        if version == 4
        else IPv6(src="2001:db8::1", dst="2001:db8::9")
    )
    data = Raw(bytes(range(33)))
    echo = ICMP(type=8, id=9) if version == 4 else ICMPv6EchoRequest(id=9, data=bytes(range(33)))
    return {
        "TCP": (ip / TCP(sport=40000, dport=80) / data, 16),
        "UDP": (ip / UDP(sport=40000, dport=53) / data, 6),
        "SCTP": (ip / SCTP(sport=40000, dport=80) / SCTPChunkData(data=bytes(range(33))), 8),
        "ICMP": (ip / echo / data if version == 4 else ip / echo, 2),
    }


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", ["TCP", "UDP", "SCTP", "ICMP"])
def test_a_wrong_checksum_of_layer_4_hides_nothing_under_nat(name: str, version: int) -> None:
    inside, at = transports(version)[name]
    real = ether(inside)
    decoy = flipped(real, 14 + (20 if version == 4 else 40) + at)
    for profile in PROFILES:
        assert not hides(decoy, real, profile=profile)
        assert not hides(real, decoy, profile=profile)
    # What differs in TTL alone is still a copy, as under routing: a wider profile finds no less.
    inside.setfieldval("ttl" if version == 4 else "hlim", 9)
    again = flipped(ether(inside), 14 + (20 if version == 4 else 40) + at)
    assert hides(decoy, again, profile="routing")
    assert hides(decoy, again, profile="nat")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", ["TCP", "UDP", "SCTP", "ICMP"])
def test_translated_packets_are_still_copies_under_nat(name: str, version: int) -> None:
    inside, _ = transports(version)[name]
    before = ether(inside)
    inside.setfieldval("src", "192.0.2.77" if version == 4 else "2001:db8::77")
    if name != "ICMP":
        inside.getlayer(1).setfieldval("sport", 1025)
    else:
        inside.getlayer(1).setfieldval("id", 1025)
    after = ether(inside)
    assert hides(before, after, profile="nat")
    assert hides(before[:-10], after[:-10], profile="nat")  # cut: nobody can tell


def test_a_first_fragment_is_compared_as_under_routing() -> None:
    """Its checksum cannot be told; a decoy of it would keep the datagram from being put together."""
    first = (
        IP(src="10.0.0.1", dst="192.0.2.9", id=7, flags="MF") / UDP(sport=1, dport=2, chksum=7) / bytes(64)
    )
    real = ether(first)
    assert hides(real, ether(IP(bytes(first).replace(b"\x40\x11", b"\x3f\x11", 1))), profile="exact") is False
    first.src = "10.0.0.2"
    assert not hides(ether(first), real, profile="nat")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("tunnel", around(packet()))
def test_a_tunnel_hides_no_frame_without_one(tunnel: str, profile: str, version: int) -> None:
    real = ether(packet(version))
    decoy = around(packet(version))[tunnel]
    assert not hides(decoy, real, profile=profile, layer="inner")
    assert not hides(decoy, real, profile=profile, layer="outer")
    # Nor one in a tunnel, from within one more.
    mirror = IP(src="192.0.2.1", dst="192.0.2.2") / GRE(proto=0x88BE) / ERSPAN()
    decoy, real = (ether(mirror / Raw(frame)) for frame in (decoy, real))
    assert not hides(decoy, real, profile=profile, layer="inner")


def test_a_tunnel_guarded_against_is_counted() -> None:
    decoy = around(packet())["GRE"]
    keep, counts = judged([decoy, REAL, REAL], profile="routing", layer="inner")
    assert keep == [1, 1, 0]
    assert counts["guarded"] == {"ttl": (0, 0), "tunnel": (1, len(REAL))}
    assert sum(c["frames"] for c in counts["by_type"].values()) == 1


def test_named_tunnels_only() -> None:
    options = {"profile": "routing", "layer": "inner", "tunnels": ["198.51.100.0/24", "203.0.113.1"]}
    for name, decoy in around(packet()).items():
        assert hides(decoy, REAL, **options) is (name != "MPLS"), name
    for one_end in ("198.51.100.7", "203.0.113.1"):  # the other end is nobody's
        options["tunnels"] = [one_end, "192.0.2.200"]
        for name, decoy in around(packet()).items():
            assert not hides(decoy, REAL, **options), (one_end, name)
    assert hides(around(packet())["MPLS"], REAL, profile="routing", layer="inner", tunnels=["mpls"])
    v6 = ether(IPv6(src="2001:db8:1::1", dst="2001:db8:2::1") / packet())
    assert hides(v6, REAL, profile="routing", layer="inner", tunnels=["2001:db8::/32"])
    assert not hides(v6, REAL, profile="routing", layer="inner", tunnels=["2001:db8:1::/48", "0.0.0.0/0"])


def test_the_ends_must_be_addresses() -> None:
    for wrong in ("x", "192.0.2.1/33", "192.0.2.1/24"):
        with pytest.raises(ValueError, match="neither an address nor a network"):
            Window(count=5, profile="routing", layer="inner", tunnels=[wrong])
    with pytest.raises(ValueError, match="inner only"):
        Window(count=5, profile="routing", tunnels=["192.0.2.1"])
    with pytest.raises(ValueError, match="64 at most"):
        Window(count=5, profile="routing", layer="inner", tunnels=[f"192.0.2.{i}" for i in range(65)])


@pytest.mark.parametrize("profile", ["routing", "nat"])
@pytest.mark.parametrize("version", [4, 6])
def test_the_guard_lets_a_rising_ttl_go_on(version: int, profile: str) -> None:
    field = "ttl" if version == 4 else "hlim"
    frames = [ether(packet(version, **{field: ttl})) for ttl in (1, 64, 63, 63, 1, 64)]
    keep, counts = judged(frames, profile=profile, guard="ttl")
    # The decoy, the real one, its copies behind a router; the decoy again, which falls; the real one again.
    assert keep == [1, 1, 0, 0, 0, 1]
    assert counts["guarded"] == {"ttl": (2, 2 * len(frames[0])), "tunnel": (0, 0)}
    assert (
        counts["by_type"][3]["frames"] + counts["by_type"][2]["frames"] + counts["by_type"][1]["frames"] == 3
    )
    keep, counts = judged(frames, profile=profile, guard="none")
    assert keep == [1, 0, 0, 0, 0, 0]
    assert counts["guarded"]["ttl"] == (0, 0)


def test_the_guard_has_no_say_about_the_rest() -> None:
    """ARP has no TTL; a frame that is not understood, or compared whole, is a copy or is not."""
    arp = bytes(12) + b"\x08\x06" + b"\0\1\x08\0\6\4\0\1" + bytes(20)
    unknown = bytes(12) + b"\x88\xb5" + bytes(range(50))
    for frame in (arp, unknown, flipped(REAL, 24)):
        for profile in PROFILES:
            assert judged([frame, frame], profile=profile, guard="ttl")[0] == [1, 0]


def test_a_guard_has_a_name() -> None:
    with pytest.raises(ValueError, match="unknown guard"):
        Window(count=5, guard="hop")
