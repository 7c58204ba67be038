# SPDX-License-Identifier: Apache-2.0
"""Test packets out of frames: against scapy, and on hostile bytes."""

from __future__ import annotations

import ipaddress
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.stamp import STAMPSessionReflectorTestUnauthenticated as Reflected
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrHopByHop
from scapy.layers.l2 import CookedLinux, Dot1Q
from scapy.layers.l2 import Ether as AnyEther
from twinstamp import stamp
from twinstamp.frames import LINKTYPE_LINUX_SLL, LINKTYPE_RAW, FrameBatch
from twinstamp.owd.parse import FULL, REASONS, REFLECTED, SHORT, parse, reflection


def Ether(raw: bytes | None = None, **fields: int):
    """With its addresses: scapy would ask the network for them."""
    if raw is not None:
        return AnyEther(raw)
    return AnyEther(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", **fields)


def payload(sequence: int, size: int = 44, session: int = 7) -> bytes:
    return stamp.payloads(
        sequence=sequence, timestamp=(sequence << 32) + 99, error=0x8093, session=session, size=size
    ).tobytes()


def address(pair: np.ndarray, version: int) -> str:
    value = int(pair[0]) << 64 | int(pair[1])
    return str(ipaddress.IPv4Address(value) if version == 4 else ipaddress.IPv6Address(value))


L2 = [Ether(), Ether() / Dot1Q(vlan=5), Ether(type=0x88A8) / Dot1Q(vlan=5) / Dot1Q(vlan=6)]
L3 = [
    IP(src="10.1.2.3", dst="10.4.5.6", ttl=77, id=4711),
    IP(src="10.1.2.3", dst="10.4.5.6", ttl=77, id=4711, options=b"\x01" * 8),
    IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=77),
    IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=77) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt(),
]


GOOD = [bytes(Ether() / l3 / UDP(sport=862, dport=862) / payload(1, 100)) for l3 in L3]


def test_every_combination_is_read_as_scapy_wrote_it():
    frames, truth = [], []
    for l2 in L2:
        for l3 in L3:
            for size in (16, 18, 43, 44, 45, 200):
                packet = l2 / l3 / UDP(sport=1000 + size, dport=862) / payload(len(frames), size)
                frame = bytes(packet)
                frames.append(frame.ljust(60, b"\0"))
                truth.append(
                    (l3.version, size, len(bytes(packet[type(l3)])), getattr(packet[type(l3)], "id", 0))
                )
    refused: dict[str, int] = {}
    found = parse(FrameBatch.from_frames(frames), refused=refused)
    assert refused == dict.fromkeys(REASONS, 0)
    assert found.frame.tolist() == list(range(len(frames)))
    for i, (version, size, ip_bytes, ipid) in enumerate(truth):
        assert found.version[i] == version
        assert address(found.source[i], version) == ("10.1.2.3" if version == 4 else "2001:db8::1")
        assert address(found.destination[i], version) == ("10.4.5.6" if version == 4 else "2001:db8::2")
        assert (found.sport[i], found.dport[i], found.ttl[i], found.session[i]) == (1000 + size, 862, 77, 7)
        assert found.ipid[i] == ipid
        assert (found.sequence[i], found.timestamp[i], found.error[i]) == (i, (i << 32) + 99, 0x8093)
        assert found.form[i] == (SHORT if size < 44 else FULL)
        assert (found.ip_bytes[i], found.payload[i], found.size[i]) == (ip_bytes, size, len(frames[i]) + 4)


def test_other_link_types():
    ip = L3[0] / UDP(sport=5, dport=862) / payload(3)
    raw = FrameBatch.from_frames([bytes(ip)], linktype=LINKTYPE_RAW)
    cooked = FrameBatch.from_frames([bytes(CookedLinux(proto=0x800) / ip)], linktype=LINKTYPE_LINUX_SLL)
    for batch in (raw, cooked):
        found = parse(batch)
        assert (found.sequence.tolist(), found.session.tolist()) == ([3], [7])
    refused: dict[str, int] = {}
    assert len(parse(FrameBatch.from_frames([bytes(ip)], linktype=9), refused=refused)) == 0
    assert refused["link_type"] == 1


def test_reflected_packets():
    inner = Reflected(seq=9, ssid=7, seq_sender=8, ttl_sender=250)
    raw = bytearray(bytes(inner))
    raw[4:12] = (111).to_bytes(8, "big")
    raw[16:24] = (222).to_bytes(8, "big")
    raw[28:36] = (333).to_bytes(8, "big")
    raw[36:38] = b"\x80\x05"
    batch = FrameBatch.from_frames(
        [bytes(Ether() / L3[0] / UDP(sport=862, dport=5000) / bytes(raw)),
         bytes(Ether() / L3[0] / UDP(sport=5000, dport=862) / bytes(raw)),
         bytes(Ether() / L3[0] / UDP(sport=862, dport=5000) / payload(1))]
    )  # fmt: skip
    found = parse(batch)
    # The second goes to a reflector, the third has no receive timestamp: both are a sender's.
    assert found.form.tolist() == [REFLECTED, FULL, FULL]
    said = reflection(batch, found.select(found.form == REFLECTED))
    assert [a.tolist() for a in (said.received, said.sequence, said.timestamp, said.error, said.ttl)] == [
        [222], [8], [333], [0x8005], [250],
    ]  # fmt: skip


@pytest.mark.parametrize("reason,change", [
    ("other_port", lambda p: setattr(p[UDP], "dport", 863)),
    ("bad_length", lambda p: setattr(p[UDP], "len", 60)),
    ("bad_length", lambda p: setattr(p[UDP], "len", 7)),
    ("bad_length", lambda p: setattr(p[UDP], "len", 23)),
    ("bad_length", lambda p: setattr(p[IP], "len", 1500)),
    ("fragment", lambda p: setattr(p[IP], "frag", 3)),
    ("fragment", lambda p: setattr(p[IP], "flags", "MF")),
    ("not_udp", lambda p: setattr(p[IP], "proto", 6)),
    ("not_udp", lambda p: setattr(p[IP], "version", 5)),
    ("not_udp", lambda p: setattr(p[IP], "ihl", 4)),
    ("other_port", lambda p: setattr(p[IP], "ihl", 6)),
])  # fmt: skip
def test_refused_and_counted(reason: str, change):
    packet = Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=862) / payload(1)
    packet = Ether(bytes(packet))
    change(packet)
    refused: dict[str, int] = {}
    assert len(parse(FrameBatch.from_frames([bytes(packet)]), refused=refused)) == 0
    assert {k: v for k, v in refused.items() if v} == {reason: 1}


def test_small_payload_without_the_mark():
    body = bytearray(payload(1, 18))
    for session in (b"\x00\x07", b"\x80\x00"):
        body[14:16] = session
        frame = bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=862) / bytes(body))
        refused: dict[str, int] = {}
        assert len(parse(FrameBatch.from_frames([frame]), refused=refused)) == 0
        assert refused["unmarked"] == 1


def test_cut_frames_serve_while_the_fields_are_there():
    frame = bytes(Ether() / L3[0] / UDP(sport=1, dport=862) / payload(6, 400))
    frames = [frame[:n] for n in range(len(frame))]
    batch = FrameBatch.from_frames(frames, length=[len(frame)] * len(frames))
    found = parse(batch)
    assert found.frame.tolist() == list(range(58, len(frame)))
    assert set(found.sequence.tolist()) == {6}


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 300))
def test_any_bytes(seed: int, n: int):
    """Random bytes and random damage: no exception, every frame has a fate, nothing read beyond its frame."""
    rng = random.Random(seed)
    good = rng.choice(GOOD)
    frames = []
    for _ in range(n):
        frame = bytearray(good if rng.random() < 0.8 else rng.randbytes(rng.randrange(120)))
        for _ in range(rng.randrange(4)):
            if frame:
                frame[rng.randrange(len(frame))] = rng.randrange(256)
        frames.append(bytes(frame[: rng.randrange(len(frame) + 1)] if rng.random() < 0.3 else frame))
    batch = FrameBatch.from_frames(frames)
    refused: dict[str, int] = {}
    found = parse(batch, refused=refused, ports=None if seed % 2 else (862,))
    assert len(found) + sum(refused.values()) == n
    end = batch.offset[found.frame].astype(int) + batch.caplen[found.frame]
    assert (found.body + 16 <= end).all()
    reflected = found.select(found.form == REFLECTED)
    reflection(batch, reflected)


@pytest.mark.parametrize("size", [18, 38, 41, 43, 44, 60, 1000])
@pytest.mark.parametrize("ports", [(862,), None])
def test_random_padding_is_no_session(size: int, ports):
    """OWAMP and TWAMP-Light: 14 bytes, then padding, random by default (RFC 4656 and 5357, section 4.1.2)."""
    rng = random.Random(size)
    frames = []
    for number in range(200):
        body = payload(number, 44)[:14] + rng.randbytes(size - 14)
        frames.append(bytes(Ether() / L3[0] / UDP(sport=8760, dport=862) / body))
    found = parse(FrameBatch.from_frames(frames), ports=ports)
    # Two random bytes are 0 once in 65,536 times; with these seeds never.
    assert found.sequence.tolist() == list(range(200))
    assert set(found.session.tolist()) == {0} and set(found.form.tolist()) == {FULL}
