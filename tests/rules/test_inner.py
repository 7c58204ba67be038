# SPDX-License-Identifier: Apache-2.0
"""What stands inside: Ethernet behind MPLS is no IP, VXLAN's reserved bits are nobody's business."""

from __future__ import annotations

import pytest
from scapy.contrib.erspan import ERSPAN_II
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import GRE, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from twinstamp.balance import Classifier, Secret, numbered_servers, same_servers
from twinstamp.dedup import Deduplicator
from twinstamp.frames import FrameBatch
from twinstamp.rules import Rule, RuleSet

MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
ALL = RuleSet((Rule(destination_port=(80, 80)), Rule()))


def judge(frames: list[bytes], rules: RuleSet = ALL):
    c = Classifier(
        rules,
        groups=same_servers(rules, numbered_servers("16")),
        secret=Secret(bytes(range(32))),
        layer="inner",
    )
    with FrameBatch.from_frames(frames) as batch:
        out = c.process(batch)
        return list(out.rule), list(out.hash), list(out.copy_server)


@pytest.mark.parametrize(
    "mac", ["6e:05:ca:11:00:02", "45:00:00:2c:00:02", "4f:ff:00:00:00:02", "60:00:00:00:00:20"]
)
@pytest.mark.parametrize("inner", [IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")])
def test_ethernet_behind_mpls_is_not_taken_for_ip(mac, inner):
    """A MAC that begins with 4 or 6 (akvorado #2489): packets stay apart, a pseudowire has one server."""
    payloads = [bytes([k]) * 60 for k in range(1, 20)]
    frames = [
        bytes(
            Ether(**MACS)
            / MPLS(label=9, s=1, ttl=9)
            / Ether(dst=mac, src=MACS["src"])
            / inner
            / UDP(sport=k)
            / data
        )
        for k, data in enumerate(payloads, 1000)
    ]
    with FrameBatch.from_frames(frames, timestamp_ns=list(range(len(frames)))) as batch, Deduplicator(
        profile="routing", layer="inner", window=100
    ) as deduplicator:  # fmt: skip
        assert all(deduplicator.judge(batch).keep)
    _, hashes, servers = judge(frames)
    assert len(set(servers)) == 1 and len(set(hashes)) == 1


@pytest.mark.parametrize("family", [4, 6])
def test_ip_behind_mpls_is_found(family):
    inner = IP(src="10.0.0.1", dst="10.0.0.2") if family == 4 else IPv6(src="fd00::1", dst="fd00::2")
    frame = bytes(
        Ether(**MACS) / MPLS(label=9, s=0, ttl=9) / MPLS(label=8, s=1, ttl=8) / inner / TCP(dport=80)
    )
    assert judge([frame])[0] == [0]


@pytest.mark.parametrize(
    "header", ["0800000000002a00", "ff00000000002a01", "0800000000002a01", "88000fff00002a00"]
)
def test_reserved_bits_of_vxlan_are_ignored(header):
    """RFC 7348 section 5: MUST be ignored on receipt."""
    inner = Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(dport=80)
    outer = Ether(**MACS) / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=5, dport=4789)
    assert judge([bytes(outer / (bytes.fromhex(header) + bytes(inner)))])[0] == [0]


def test_vxlan_without_a_network_identifier_is_none():
    outer = Ether(**MACS) / IP(src="192.0.2.1", dst="192.0.2.2") / UDP(sport=5, dport=4789)
    inner = Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / TCP(dport=80)
    assert judge([bytes(outer / (bytes.fromhex("f700000000002a00") + bytes(inner)))])[0] == [1]


def erspan(number: int, size: int, *, family: int = 4, sequence: int = 1) -> Ether:
    inside = Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=number, dport=80) / bytes(size)
    outer = (
        IP(src="192.0.2.1", dst="192.0.2.2", id=sequence)
        if family == 4
        else IPv6(src="fd00::1", dst="fd00::2")
    )
    gre = GRE(proto=0x88BE, seqnum_present=1, sequence_number=sequence) / ERSPAN_II(vlan=3) / inside
    return Ether(**MACS) / outer / gre


def pieces(packet: Ether, size: int = 512) -> list[bytes]:
    if packet.haslayer(IPv6):
        head = packet[IPv6]
        body = head.payload
        cut = (
            IPv6(src=head.src, dst=head.dst)
            / IPv6ExtHdrFragment(id=packet[GRE].sequence_number, nh=47)
            / body
        )
        return [bytes(Ether(**MACS) / part) for part in fragment6(cut, size)]
    return [bytes(part) for part in fragment(packet, fragsize=size)]


def through(frames: list[bytes], **options) -> list[tuple[int, int]]:
    """(rule, hash) of each frame, those that were held too."""
    c = Classifier(
        ALL,
        groups=same_servers(ALL, numbered_servers("64")),
        secret=Secret(bytes(range(32))),
        layer="inner",
        **options,
    )
    found: dict[int, tuple[int, int]] = {}
    with FrameBatch.from_frames(frames, timestamp_ns=list(range(len(frames)))) as batch:
        out = c.process(batch)
        held = set(out.held)
        found.update((i, (out.rule[i], out.hash[i])) for i in range(len(frames)) if i not in held)
    c.flush()
    while (released := c.take_released()) is not None:
        v = released.verdicts
        found.update((n, (v.rule[i], v.hash[i])) for i, n in enumerate(released.frame))
    assert c.counts()["fragments_conflicting"] == 0
    return [found[i] for i in range(len(frames))]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("workers", [1, 3])
def test_fragments_of_a_tunnel_go_where_the_flow_inside_goes(family, backwards, workers):
    """ovs-issues #9, fluxcap #2: a mirrored packet above the MTU comes in pieces; scapy cuts it."""
    frames, flow = [], []
    for number in range(1, 13):
        whole = bytes(erspan(number, 40, family=family, sequence=100 + number))
        cut = pieces(erspan(number, 1400, family=family, sequence=number))
        assert len(cut) >= 3
        frames += [whole, *(reversed(cut) if backwards else cut)]
        flow += [number] * (1 + len(cut))
    found = through(frames, workers=workers)
    assert {rule for rule, _ in found} == {0}  # port 80 stands inside the first piece only
    for number in range(1, 13):
        assert len({hash_of for (_, hash_of), n in zip(found, flow, strict=True) if n == number}) == 1
    assert len({hash_of for _, hash_of in found}) == 12


def test_a_cut_packet_in_a_cut_tunnel():
    """Each inner piece is cut again by the tunnel: all of it is one flow."""
    inner = IP(src="10.0.0.1", dst="10.0.0.2", id=77) / UDP(sport=9, dport=80) / bytes(3000)
    frames = [bytes(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=9, dport=80) / bytes(10))]
    for number, piece in enumerate(fragment(inner, fragsize=1400)):
        outer = (
            Ether(**MACS) / IP(src="192.0.2.1", dst="192.0.2.2", id=number + 1) / GRE(proto=0x0800) / piece
        )
        frames += pieces(outer, 800)
    found = through(frames)
    assert len(frames) == 6 and len(set(found)) == 1 and found[0][0] == 0


def test_fragments_of_what_is_no_tunnel_stay_with_their_own_headers():
    whole = Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2", id=5) / UDP(sport=9, dport=80) / bytes(1500)
    found = through(pieces(whole))
    assert len(set(found)) == 1 and found[0][0] == 0
    noise = Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2", id=6) / UDP(sport=9, dport=4789) / bytes(1500)
    assert len(set(through(pieces(noise)))) == 1
