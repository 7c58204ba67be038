# SPDX-License-Identifier: Apache-2.0
"""Plain writers and readers of pcap and pcapng, independent of the code under test (struct only)."""

from __future__ import annotations

import struct
from fractions import Fraction


def pcap(records, *, magic=0xA1B2C3D4, order="<", network=1, version=(2, 4), snaplen=262144) -> bytes:
    """records: (seconds, fraction, data, length on the wire)."""
    out = [struct.pack(order + "IHHiIII", magic, *version, 0, 0, snaplen, network)]
    for seconds, fraction, data, length in records:
        out.append(struct.pack(order + "IIII", seconds, fraction, len(data), length))
        if magic == 0xA1B2CD34:
            out.append(struct.pack(order + "IHBB", 3, 0x0800, 4 if seconds % 2 else 0, 0))
        out.append(data)
    return b"".join(out)


def read_pcap(data: bytes):
    """(network, ns?, [(seconds, fraction, data, length)]) of a little-endian pcap file."""
    magic, _, _, _, _, _, network = struct.unpack_from("<IHHiIII", data)
    assert magic in (0xA1B2C3D4, 0xA1B23C4D), hex(magic)
    at, records = 24, []
    while at < len(data):
        seconds, fraction, caplen, length = struct.unpack_from("<IIII", data, at)
        at += 16
        assert at + caplen <= len(data)
        records.append((seconds, fraction, data[at : at + caplen], length))
        at += caplen
    return network, magic == 0xA1B23C4D, records


def pad(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


class Pcapng:
    """Builds one file, section by section."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.order = "<"

    def block(
        self, kind: int, body: bytes, *, length: int | None = None, trailer: int | None = None
    ) -> Pcapng:
        body = pad(body)
        total = len(body) + 12 if length is None else length
        self.out += struct.pack(self.order + "II", kind, total) + body
        self.out += struct.pack(self.order + "I", total if trailer is None else trailer)
        return self

    def options(self, *options: tuple[int, bytes]) -> bytes:
        out = b"".join(struct.pack(self.order + "HH", code, len(v)) + pad(v) for code, v in options)
        return out + bytes(4) if options else b""

    def section(self, order: str = "<", *options: tuple[int, bytes], length: int = -1) -> Pcapng:
        self.order = order
        body = struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, length)
        return self.block(0x0A0D0D0A, body + self.options(*options))

    def interface(self, linktype=1, snaplen=0, *options, tsresol=None, tsoffset=None, name=None) -> Pcapng:
        options = list(options)
        if name is not None:
            options.append((2, name.encode()))
        if tsresol is not None:
            options.append((9, bytes([tsresol])))
        if tsoffset is not None:
            options.append((14, struct.pack(self.order + "q", tsoffset)))
        return self.block(1, struct.pack(self.order + "HHI", linktype, 0, snaplen) + self.options(*options))

    def enhanced(self, data: bytes, ticks: int, *options, interface=0, length=None) -> Pcapng:
        head = struct.pack(
            self.order + "IIIII",
            interface,
            ticks >> 32,
            ticks & 0xFFFFFFFF,
            len(data),
            len(data) if length is None else length,
        )
        return self.block(6, head + pad(data) + self.options(*options))

    def obsolete(self, data: bytes, ticks: int, *options, interface=0, drops=0xFFFF, length=None) -> Pcapng:
        head = struct.pack(
            self.order + "HHIIII",
            interface,
            drops,
            ticks >> 32,
            ticks & 0xFFFFFFFF,
            len(data),
            len(data) if length is None else length,
        )
        return self.block(2, head + pad(data) + self.options(*options))

    def simple(self, data: bytes, length=None) -> Pcapng:
        return self.block(3, struct.pack(self.order + "I", len(data) if length is None else length) + data)

    def bytes(self) -> bytes:
        return bytes(self.out)


def ticks_to_ns(ticks: int, tsresol: int, tsoffset: int) -> int:
    """The truncated nanoseconds, by rational arithmetic."""
    unit = Fraction(1, 2 ** (tsresol & 0x7F)) if tsresol & 0x80 else Fraction(1, 10 ** (tsresol & 0x7F))
    return int(ticks * unit * 10**9) + tsoffset * 10**9


def blocks(data: bytes):
    """(type, raw) of each block of a pcapng file, checking lengths."""
    at, order, out = 0, "<", []
    while at < len(data):
        if data[at : at + 4] == b"\x0a\x0d\x0d\x0a":
            order = "<" if data[at + 8 : at + 12] == b"\x4d\x3c\x2b\x1a" else ">"
        kind, total = struct.unpack_from(order + "II", data, at)
        assert total % 4 == 0 and struct.unpack_from(order + "I", data, at + total - 4)[0] == total
        out.append((kind, data[at : at + total]))
        at += total
    return out
