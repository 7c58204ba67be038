# SPDX-License-Identifier: Apache-2.0
"""What stands inside: Ethernet behind MPLS is no IP, VXLAN's reserved bits are nobody's business."""

from __future__ import annotations

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
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
