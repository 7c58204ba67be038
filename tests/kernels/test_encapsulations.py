# SPDX-License-Identifier: Apache-2.0
"""GTP-U, TZSP, VN-Tag, FabricPath, PBB and link types beside Ethernet: scapy and the standards write the
frames, tshark says what is in them, the model what is a copy of what."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.tzsp import TZSP, TZSPTagEnd, TZSPTagPadding, TZSPTagRawRSSIByte
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1AD, Dot1Q, Ether
from scapy.packet import Raw
from twinstamp.balance import Classifier, Secret, numbered_servers, same_servers
from twinstamp.frames import FrameBatch
from twinstamp.rules import Prefix, Rule, RuleSet

from tests.kernels import profile_model as model
from tests.kernels.test_profiles import assert_same_classes, keys, kind

ROUTING, NEVER = 3, 5
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}


def packet(version: int, number: int) -> Any:
    ends = [f"10.9.{side}.{number}" if version == 4 else f"fd00::{side}:{number}" for side in (1, 2)]
    head = IP(src=ends[0], dst=ends[1], id=7) if version == 4 else IPv6(src=ends[0], dst=ends[1])
    return head / UDP(sport=4000 + number, dport=53) / Raw(b"payload of sixteen bytes and some %d" % number)


def inner_frame(version: int, number: int) -> Any:
    return Ether(src="02:00:00:00:01:01", dst="02:00:00:00:01:02") / packet(version, number)


def outer(number: int, port: int) -> Any:
    return Ether(**MACS) / IP(src="192.0.2.1", dst="192.0.2.2", id=number) / UDP(sport=2152, dport=port)


def gtp(version: int, number: int, mirror: int) -> bytes:
    return bytes(outer(mirror, 2152) / GTP_U_Header(teid=mirror) / packet(version, number))


def gtp_sequence(version: int, number: int, mirror: int) -> bytes:
    return bytes(outer(mirror, 2152) / GTP_U_Header(teid=5, S=1, seq=mirror) / packet(version, number))


def gtp_session(version: int, number: int, mirror: int) -> bytes:
    head = GTP_U_Header(teid=mirror, E=1, next_ex=0x85) / GTPPDUSessionContainer(type=0, QFI=mirror % 60)
    return bytes(outer(mirror, 2152) / head / packet(version, number))


def tzsp(version: int, number: int, mirror: int) -> bytes:
    tags = TZSPTagPadding() / TZSPTagRawRSSIByte(raw_rssi=mirror) / TZSPTagEnd()
    return bytes(outer(mirror, 37008) / TZSP() / tags / inner_frame(version, number))


def shim(kind_of: int, header: bytes, rest: bytes) -> bytes:
    return bytes(Ether(**MACS))[:12] + kind_of.to_bytes(2, "big") + header + rest


def vntag(version: int, number: int, mirror: int) -> bytes:
    frame = bytes(Ether(**MACS) / Dot1Q(vlan=mirror) / packet(version, number))
    return shim(0x8926, struct.pack(">HH", mirror << 16 & 0x3FFF, mirror & 0xFFF), frame[12:])


def fabricpath(version: int, number: int, mirror: int) -> bytes:
    return shim(0x8903, struct.pack(">H", 1 << 6 | mirror % 60 + 1), bytes(inner_frame(version, number)))


def pbb(version: int, number: int, mirror: int) -> bytes:
    inside = bytes(inner_frame(version, number))
    return bytes(
        Ether(**MACS) / Dot1AD(vlan=mirror, type=0x88E7) / Raw(struct.pack(">I", mirror << 4) + inside)
    )


def family(order: str) -> Any:
    def made(version: int, number: int, mirror: int) -> bytes:
        said = 2 if version == 4 else (24, 28, 30)[mirror % 3]
        return struct.pack(order + "I", said) + bytes(packet(version, number))

    return made


def cisco(version: int, number: int, mirror: int) -> bytes:
    address = b"\x0f" if mirror % 2 else b"\x8f"
    return address + b"\0" + (b"\x08\0" if version == 4 else b"\x86\xdd") + bytes(packet(version, number))


def nflog(order: str) -> Any:
    def made(version: int, number: int, mirror: int) -> bytes:
        def attribute(name: int, value: bytes) -> bytes:
            return struct.pack(order + "HH", 4 + len(value), name) + value + bytes(-len(value) % 4)

        frame = bytes([2 if version == 4 else 10, 0]) + mirror.to_bytes(2, "big")
        frame += attribute(10, b"mirror %d\0" % mirror) + attribute(9, bytes(packet(version, number)))
        return frame

    return made


# name: (link type, the same packet as mirror n has it, layers at which it is found, tshark's word for it)
CASES: dict[str, tuple[int, Any, tuple[str, ...], str]] = {
    "gtp": (1, gtp, ("inner",), "gtp"),
    "gtp-sequence": (1, gtp_sequence, ("inner",), "gtp"),
    "gtp-session": (1, gtp_session, ("inner",), "gtp"),
    "tzsp": (1, tzsp, ("inner",), "tzsp"),
    "vntag": (1, vntag, ("inner",), "vntag"),
    "fabricpath": (1, fabricpath, ("inner",), "cfp"),
    "pbb": (1, pbb, ("inner",), "ieee8021ad"),
    "null-little": (0, family("<"), ("outer", "inner"), "null"),
    "null-big": (0, family(">"), ("outer", "inner"), "null"),
    "loop": (108, family(">"), ("outer", "inner"), "null"),
    "cisco": (104, cisco, ("outer", "inner"), "chdlc"),
    "nflog-little": (239, nflog("<"), ("outer", "inner"), "nflog"),
    "nflog-big": (239, nflog(">"), ("outer", "inner"), "nflog"),
}


def write_pcap(path: Path, linktype: int, frames: list[bytes], order: str = "<") -> None:
    head = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, linktype)
    records = (struct.pack(order + "IIII", 0, i, len(f), len(f)) + f for i, f in enumerate(frames))
    path.write_bytes(head + b"".join(records))


@pytest.mark.parametrize(
    "linktype, order", [(1, "<"), (0, "<"), (0, ">"), (108, "<"), (104, "<"), (239, "<"), (239, ">")]
)
def test_the_frames_are_what_tshark_says(linktype: int, order: str, tmp_path: Path) -> None:
    tshark = shutil.which("tshark")
    if tshark is None:
        pytest.skip("tshark is not installed (Debian package tshark)")
    # NFLOG's and BSD's numbers have the byte order of the file.
    here = [
        (made, word)
        for name, (of, made, _, word) in CASES.items()
        if of == linktype and (of in (1, 104, 108) or name.endswith("big") is (order == ">"))
    ]
    write_pcap(tmp_path / "x.pcap", linktype, [made(v, 1, 3) for made, _ in here for v in (4, 6)], order)
    fields = ["frame.protocols", "udp.srcport", "ip.src", "ipv6.src"]
    command = [tshark, "-n", "-r", str(tmp_path / "x.pcap"), "-T", "fields"]
    said = subprocess.run(
        [*command, *(a for f in fields for a in ("-e", f))],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    ).stdout.splitlines()
    assert len(said) == 2 * len(here)
    for line, (version, word) in zip(said, ((v, word) for _, word in here for v in (4, 6)), strict=True):
        protocols, port, *sources = line.split("\t")
        assert word in protocols.split(":"), protocols
        assert port.split(",")[-1] == "4001", line
        assert sources[version == 6].split(",")[-1] == ("10.9.1.1" if version == 4 else "fd00::1:1"), line


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("version", [4, 6])
def test_copies_are_found(name: str, version: int) -> None:
    linktype, made, layers, _ = CASES[name]
    first, copy, other = made(version, 1, 1), made(version, 1, 2), made(version, 2, 1)
    for layer in ("outer", "inner"):
        found = keys([first, copy, other], linktype, ROUTING, layer)
        if first != copy:
            assert (kind(found[0], found[1], ROUTING) != NEVER) is (layer in layers), layer
        assert kind(found[0], found[2], ROUTING) == NEVER
    assert_same_classes([first, copy, other], [linktype] * 3)


@pytest.mark.parametrize("name", CASES)
def test_cut_and_damaged_anywhere(name: str) -> None:
    rng = random.Random(name)
    linktype, made, _, _ = CASES[name]
    frames = []
    for version in (4, 6):
        whole = made(version, 1, 1)
        frames += [whole[:n] for n in range(0, len(whole), 3)] + [whole, whole]
        for _ in range(60):
            fuzzed = bytearray(whole)
            for _ in range(rng.choice([1, 1, 2, 6])):
                fuzzed[rng.randrange(min(len(fuzzed), 90))] = rng.choice([0, 1, 0xFF, rng.randrange(256)])
            frames.append(bytes(fuzzed))
    assert_same_classes(frames, [linktype] * len(frames))


def judge(frames: list[bytes], linktype: int, layer: str = "inner") -> tuple[list[int], list[int]]:
    rules = RuleSet((Rule(source=Prefix(4, 10 << 24 | 9 << 16, 16)), Rule()))
    classifier = Classifier(
        rules, groups=same_servers(rules, numbered_servers("8")), secret=Secret(bytes(32)), layer=layer
    )
    with FrameBatch.from_frames(frames, linktype=linktype) as batch:
        out = classifier.process(batch)
        return list(out.rule), list(out.hash)


@pytest.mark.parametrize("name", CASES)
def test_flows_are_told_apart(name: str) -> None:
    linktype, made, layers, _ = CASES[name]
    for layer in layers:
        rule, hashes = judge([made(4, n, n) for n in range(1, 31)] * 2, linktype, layer)
        assert set(rule) == {0}
        assert len(set(hashes)) == 30 and hashes[:30] == hashes[30:]


def test_both_directions_of_a_subscriber_are_one_flow() -> None:
    """The outer packet is plain: its port alone keeps it from the classifier's fast path."""
    up = IP(src="10.9.0.1", dst="198.51.100.7") / TCP(sport=40000, dport=443)
    down = IP(src="198.51.100.7", dst="10.9.0.1") / TCP(sport=443, dport=40000)
    frames = [
        bytes(outer(1, 2152) / GTP_U_Header(teid=1) / up),
        bytes(
            Ether()
            / IP(src="192.0.2.2", dst="192.0.2.1")
            / UDP(sport=9, dport=2152)
            / GTP_U_Header(teid=2)
            / down
        ),
    ]
    _, hashes = judge(frames, 1)
    assert hashes[0] == hashes[1]


def test_what_only_looks_like_gtp_is_no_tunnel() -> None:
    """Echo requests, GTP', a PDU that is no IP or has another length: judged by the outer packet."""
    good = GTP_U_Header(teid=1) / packet(4, 1)
    bodies = [bytearray(bytes(good)) for _ in range(5)]
    bodies[0][1] = 1  # echo request
    bodies[1][0] = 0x20  # GTP'
    bodies[2][8] = 0x6E  # a MAC address, say
    bodies[3][8 + 3] += 1  # an IP length beside the message's
    bodies[4][8 + 10] ^= 1  # a wrong checksum
    for body in bodies:
        frame = bytes(outer(1, 2152) / Raw(bytes(body)))
        assert model.step_into(model.view_of(frame, 1, "outer"))[0] is False
        assert judge([frame], 1)[0] == [1], bytes(body).hex()
    assert judge([bytes(outer(1, 2152) / good)], 1)[0] == [0]


def test_ethernet_in_ethernet_is_opened_by_name() -> None:
    """Ends that are named open what has addresses; mac-in-mac among them, what has none."""
    from twinstamp.dedup import Deduplicator

    for made in (fabricpath, pbb):
        frames = [made(4, 1, 1), made(4, 1, 2)]
        for tunnels, copies in (
            ((), 1),
            (("192.0.2.1",), 0),
            (("mpls",), 0),
            (("192.0.2.1", "mac-in-mac"), 1),
        ):
            with FrameBatch.from_frames(frames, timestamp_ns=[0, 1]) as batch, Deduplicator(
                profile="routing", layer="inner", window=9, tunnels=tunnels
            ) as dedup:  # fmt: skip
                assert list(dedup.judge(batch).keep) == [1, 1 - copies]
