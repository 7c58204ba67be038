# SPDX-License-Identifier: Apache-2.0
"""Flows as the demo compares them: by address pair, ports and protocol, packets and bytes per direction."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from twinstamp.errors import InputError

TCP, UDP = 6, 17


class End(NamedTuple):
    """One end of a flow."""

    address: str
    port: int


class FlowKey(NamedTuple):
    """A flow, whichever way its first packet went: a is the smaller end."""

    a: End
    b: End
    protocol: int

    def __str__(self) -> str:
        name = {TCP: "TCP", UDP: "UDP"}.get(self.protocol, f"protocol {self.protocol}")
        low, high = sorted((self.a, self.b), key=lambda end: end.port)
        return f"{name} {high.address} port {high.port} > {low.address} port {low.port}"

    @property
    def short(self) -> str:
        """Without addresses, for a table: "TCP/IPv6 41472 > 80"."""
        name = {TCP: "TCP", UDP: "UDP"}.get(self.protocol, f"protocol {self.protocol}")
        version = "6" if ":" in self.a.address else "4"
        low, high = sorted((self.a.port, self.b.port))
        return f"{name}/IPv{version} {high} > {low}"


class Count(NamedTuple):
    """packets and IP bytes (from the IP header on, no Ethernet header, no padding)."""

    packets: int = 0
    bytes: int = 0

    def plus(self, packets: int, octets: int) -> Count:
        return Count(self.packets + packets, self.bytes + octets)


class Flow(NamedTuple):
    """What somebody counted of a flow, sent by end a and sent by end b."""

    a: Count = Count()
    b: Count = Count()

    @property
    def total(self) -> Count:
        return self.a.plus(*self.b)


Flows = dict[FlowKey, Flow]


def add(flows: Flows, source: End, destination: End, protocol: int, packets: int, octets: int) -> FlowKey:
    """Adds packets and bytes that went from source to destination."""
    a, b = sorted((source, destination))
    key = FlowKey(a, b, protocol)
    flow = flows.get(key, Flow())
    if source == a:
        flows[key] = flow._replace(a=flow.a.plus(packets, octets))
    else:
        flows[key] = flow._replace(b=flow.b.plus(packets, octets))
    return key


def pcap_frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """(length on the wire, captured bytes) of each frame of a pcap file as tcpdump writes it here.

    A reader of its own, five lines long: the endpoints' truth must not come through the code under test.
    """
    data = path.read_bytes()
    if data[:4] not in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        raise InputError(f"{path}: byte 0: no little-endian pcap header; did tcpdump write it?")
    position = 24
    while position + 16 <= len(data):
        caplen, length = struct.unpack_from("<II", data, position + 8)
        position += 16
        yield length, data[position : position + caplen]
        position += caplen


def packet_ends(frame: bytes) -> tuple[End, End, int, int] | None:
    """(source, destination, protocol, IP bytes) of an untagged TCP or UDP frame; None for anything else."""
    ether_type = frame[12:14]
    if ether_type == b"\x08\x00" and len(frame) >= 34:
        start = 14 + 4 * (frame[14] & 15)
        protocol, octets = frame[23], int.from_bytes(frame[16:18])
        source, destination = frame[26:30], frame[30:34]
    elif ether_type == b"\x86\xdd" and len(frame) >= 54:
        start, protocol, octets = 54, frame[20], 40 + int.from_bytes(frame[18:20])
        source, destination = frame[22:38], frame[38:54]
    else:
        return None
    if protocol not in (TCP, UDP) or len(frame) < start + 4:
        return None
    source_port, destination_port = struct.unpack_from("!HH", frame, start)
    return (
        End(str(ip_address(source)), source_port),
        End(str(ip_address(destination)), destination_port),
        protocol,
        octets,
    )


def sent_flows(*captures: Path) -> tuple[Flows, int]:
    """(flows, frames) that endpoints sent, from captures of what left each endpoint's own interface."""
    flows: Flows = {}
    frames = 0
    for capture in captures:
        for _, frame in pcap_frames(capture):
            frames += 1
            if (ends := packet_ends(frame)) is not None:
                source, destination, protocol, octets = ends
                add(flows, source, destination, protocol, 1, octets)
    return flows, frames
