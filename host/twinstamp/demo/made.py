# SPDX-License-Identifier: Apache-2.0
"""A mirror feed made up from nothing, for machines where the demo may not build a network.

The same every time: HTTP downloads, DNS look-ups, a bulk transfer and short connections, over IPv4 and
IPv6, with lost and retransmitted segments; each packet as SPAN and a router copy it (twice before the
router, twice after it with other MACs, one hop less and another checksum).
"""

from __future__ import annotations

import random
import struct
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from twinstamp.demo.flows import TCP, UDP, End, Flows, add

CLIENT_MAC, SERVER_MAC = bytes.fromhex("02770000000a"), bytes.fromhex("02770000000b")
LEFT_MAC, RIGHT_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
SYN, FIN, PSH, ACK = 0x02, 0x01, 0x08, 0x10
SEGMENT = 1400  # payload bytes of a full segment
START_US = 1_767_225_600_000_000  # 2026-01-01 00:00 UTC
PCAP_HEADER = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


class Packet(NamedTuple):
    """A packet at its sender: when, from whom, and whether the router loses it."""

    time_us: int
    source: End
    destination: End
    protocol: int
    segment: bytes  # TCP or UDP, with its checksum
    identification: int
    lost: bool


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def with_checksum(source: End, destination: End, protocol: int, segment: bytes, position: int) -> bytes:
    """A TCP or UDP segment with its checksum filled in at a position."""
    pseudo = ip_address(source.address).packed + ip_address(destination.address).packed
    value = checksum(pseudo + struct.pack("!II", len(segment), protocol) + segment)
    if protocol == UDP and value == 0:
        value = 0xFFFF  # 0 says "no checksum" in UDP (RFC 768); TCP has no such rule
    return segment[:position] + struct.pack("!H", value) + segment[position + 2 :]


def frame(packet: Packet, source_mac: bytes, destination_mac: bytes, hops_left: int) -> bytes:
    """The packet in an Ethernet frame."""
    source, destination = ip_address(packet.source.address), ip_address(packet.destination.address)
    ethernet = destination_mac + source_mac
    if source.version == 6:
        header = struct.pack("!IHBB", 6 << 28, len(packet.segment), packet.protocol, hops_left)
        return ethernet + b"\x86\xdd" + header + source.packed + destination.packed + packet.segment
    header = struct.pack(
        "!BBHHHBBH",
        0x45,
        0,
        20 + len(packet.segment),
        packet.identification,
        0x4000,
        hops_left,
        packet.protocol,
        0,
    )
    header += source.packed + destination.packed
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return ethernet + b"\x08\x00" + header + packet.segment


class Maker:
    """Makes conversations; packets holds what the endpoints sent."""

    def __init__(self) -> None:
        self.random = random.Random(77)  # noqa: S311 - the same feed every time
        self.packets: list[Packet] = []
        self.retransmissions = 0
        self._identification: dict[str, int] = {}

    def send(
        self,
        time_us: int,
        source: End,
        destination: End,
        protocol: int,
        segment: bytes,
        *,
        lost: bool = False,
    ) -> None:
        identification = self._identification.get(source.address, 1) % 65535 + 1
        self._identification[source.address] = identification
        segment = with_checksum(source, destination, protocol, segment, 16 if protocol == TCP else 6)
        self.packets.append(Packet(time_us, source, destination, protocol, segment, identification, lost))

    def look_up(self, time_us: int, client: End, server: End, name: str) -> None:
        """A DNS query for an A record, and its answer (RFC 1035)."""
        question = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
        question += b"\0\0\1\0\1"
        number = self.random.randrange(65536)
        answer = b"\xc0\x0c\0\1\0\1" + struct.pack("!IH", 60, 4) + b"\x0a\x4d\x02\x02"
        for source, destination, message in (
            (client, server, struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + question),
            (server, client, struct.pack("!HHHHHH", number, 0x8180, 1, 1, 0, 0) + question + answer),
        ):
            udp = struct.pack("!HHHH", source.port, destination.port, 8 + len(message), 0) + message
            self.send(time_us, source, destination, UDP, udp)
            time_us += 150

    def connect(self, time_us: int, client: End, server: End, request: bytes, reply: bytes) -> None:
        """A TCP connection: handshake, a request, its reply with now and then a loss, and the end."""
        following = {client: self.random.randrange(2**32), server: self.random.randrange(2**32)}

        def say(
            source: End, flags: int, payload: bytes = b"", *, again: int | None = None, lost: bool = False
        ) -> int:
            nonlocal time_us
            destination = server if source == client else client
            sequence = following[source] if again is None else again
            acknowledged = following[destination] if flags & ACK else 0
            tcp = struct.pack(
                "!HHIIBBHHH", source.port, destination.port, sequence, acknowledged, 0x50, flags, 65535, 0, 0
            )
            self.send(time_us, source, destination, TCP, tcp + payload, lost=lost)
            if again is None:
                following[source] = (sequence + len(payload) + bool(flags & (SYN | FIN))) % 2**32
            time_us += 120 + self.random.randrange(200)
            return sequence

        say(client, SYN)
        say(server, SYN | ACK)
        say(client, ACK)
        say(client, PSH | ACK, request)
        for start in range(0, len(reply), SEGMENT):
            payload = reply[start : start + SEGMENT]
            lost = len(reply) > SEGMENT and self.random.random() < 0.02
            sequence = say(server, ACK, payload, lost=lost)
            if lost:
                # Nothing moves until the sender's timer has run out.
                time_us += 210_000
                say(server, PSH | ACK, payload, again=sequence)
                self.retransmissions += 1
            if start // SEGMENT % 2 or start + SEGMENT >= len(reply):
                say(client, ACK)
        say(server, FIN | ACK)
        say(client, FIN | ACK)
        say(server, ACK)


def make(feed: Path, *, quick: bool) -> tuple[Flows, int, int]:
    """Writes the feed; (what the endpoints sent per flow, their frames, their retransmissions)."""
    maker = Maker()
    server, server6 = "10.77.2.2", "fd77:2::2"
    client, client6 = "10.77.1.2", "fd77:1::2"
    rounds = 1 if quick else 3
    port = 40000

    def web(time_us: int, name: str, size: int, *, six: bool) -> None:
        request = f"GET /{name} HTTP/1.1\r\nHost: www.demo.test\r\nUser-Agent: demo\r\nAccept: */*\r\n\r\n"
        body = maker.random.randbytes(size)
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
        near, far = (client6, server6) if six else (client, server)
        maker.connect(time_us, End(near, port), End(far, 80), request.encode(), head.encode() + body)

    for i in range(6 * rounds):
        port += 1
        web(i * 300_000, f"file{i}.bin", 250_000, six=i % 3 == 2)
    for i in range(100 * rounds):
        port += 1
        web(i * 20_000, f"hello{i}.html", 600, six=i % 4 == 3)
    for i in range(60 * rounds):
        port += 1
        maker.look_up(i * 33_000, End(client, port), End(server, 53), f"host{i}.demo.test")
    maker.connect(
        100_000,
        End(client, port + 1),
        End(server, 5201),
        b"send\n",
        maker.random.randbytes(1_000_000 * rounds),
    )

    flows: Flows = {}
    records: list[tuple[int, bytes]] = []
    for packet in maker.packets:
        add(
            flows,
            packet.source,
            packet.destination,
            packet.protocol,
            1,
            (40 if ":" in packet.source.address else 20) + len(packet.segment),
        )
        outward = packet.source.address in (client, client6)
        near = (CLIENT_MAC, LEFT_MAC) if outward else (SERVER_MAC, RIGHT_MAC)
        far = (RIGHT_MAC, SERVER_MAC) if outward else (LEFT_MAC, CLIENT_MAC)
        time_us = START_US + packet.time_us
        before, after = frame(packet, *near, 64), frame(packet, *far, 63)
        for copy in (before, before) if packet.lost else (before, before, after, after):
            records.append((time_us, copy))
            time_us += 3 + maker.random.randrange(12)
    records.sort(key=lambda record: record[0])
    with feed.open("wb") as out:
        out.write(PCAP_HEADER)
        for time_us, data in records:
            seconds, micros = divmod(time_us, 1_000_000)
            out.write(struct.pack("<IIII", seconds, micros, len(data), len(data)) + data)
    return flows, len(maker.packets), maker.retransmissions
