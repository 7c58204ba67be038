# SPDX-License-Identifier: Apache-2.0
"""Streams for comparing a device with the CPU: plain columns, made without scapy or the corpus."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from twinstamp.frames import FrameBatch, Port
from twinstamp.io.files import open_capture
from twinstamp.rules import RuleSet, parse_classbench

from tests.bench import traffic

# Ethernet, cooked, cooked 2, raw IP, PPP, BSD loopback, OpenBSD's, Cisco HDLC, NFLOG
LINKTYPES = (1, 113, 276, 101, 9, 0, 108, 104, 239)


@dataclass(frozen=True)
class Stream:
    """n frames: data u8, offset u64[n], caplen u32[n], timestamp_ns i64[n], port u16[n]; linktypes u16."""

    name: str
    data: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.uint64]
    caplen: npt.NDArray[np.uint32]
    timestamp_ns: npt.NDArray[np.int64]
    port: npt.NDArray[np.uint16]
    linktypes: npt.NDArray[np.uint16]

    def __len__(self) -> int:
        return len(self.offset)

    @property
    def columns(self) -> tuple[npt.NDArray[np.generic], ...]:
        return self.data, self.offset, self.caplen, self.timestamp_ns, self.port, self.linktypes

    def part(self, low: int, high: int) -> Stream:
        """Frames low to high, over the same bytes."""
        cut = slice(low, high)
        return Stream(
            self.name, self.data, self.offset[cut], self.caplen[cut], self.timestamp_ns[cut],
            self.port[cut], self.linktypes,
        )  # fmt: skip

    def at(self, stamps: npt.NDArray[np.int64], name: str) -> Stream:
        """The same frames at other times."""
        return Stream(
            f"{self.name}, {name}", self.data, self.offset, self.caplen, stamps, self.port, self.linktypes
        )

    def batch(self, first: int = 0) -> FrameBatch:
        flags = np.zeros(len(self), np.uint16)
        raw = (self.data, self.offset, self.caplen, self.caplen, self.timestamp_ns, self.port, flags)
        return FrameBatch(raw, ports=[Port("", int(kind)) for kind in self.linktypes], first=first)


def from_frames(
    name: str, frames: Sequence[bytes], ports: Sequence[int] | None = None, gap: int = 1000
) -> Stream:
    """Frames one behind the other, `gap` ns apart. ports: index into LINKTYPES, default Ethernet."""
    caplen = np.array([len(frame) for frame in frames], np.uint32)
    offset = np.zeros(len(frames), np.uint64)
    offset[1:] = np.cumsum(caplen[:-1], dtype=np.uint64)
    return Stream(
        name,
        np.frombuffer(b"".join(frames) or b"\0", np.uint8),
        offset,
        caplen,
        np.arange(len(frames), dtype=np.int64) * gap,
        np.zeros(len(frames), np.uint16) if ports is None else np.array(ports, np.uint16),
        np.array(LINKTYPES, np.uint16),
    )


def duplicated(kind: int | str, n: int, share: float, *, reach: int = 400, seed: int = 1) -> Stream:
    """Random bytes, `share` of the frames copies of one within `reach`, 1 µs apart (tests/bench/traffic)."""
    rng = np.random.default_rng(seed)
    data, offset, caplen = traffic.duplicated(kind, n, share, rng, reach=max(2, min(reach, n)))
    return Stream(
        f"{kind} B, {share:.0%} duplicates" if kind != "imix" else f"IMIX, {share:.0%} duplicates",
        data,
        offset.astype(np.uint64),
        caplen.astype(np.uint32),
        np.arange(n, dtype=np.int64) * 1000,
        np.zeros(n, np.uint16),
        np.array([1], np.uint16),
    )


def at_the_edge(n: int, window: int, seed: int = 1) -> Stream:
    """16-byte frames that come again after window − 2 to window + 1 frames, and at once."""
    rng = np.random.default_rng(seed)
    source = np.arange(n)
    back = rng.choice([1, 2, window - 2, window - 1, window, window + 1], n)
    copies = np.flatnonzero((rng.random(n) < 0.6) & (back > 0) & (back <= source))
    source[copies] = copies - back[copies]
    for i in copies.tolist():  # in stream order: a copy of a copy is a copy of its original
        source[i] = source[source[i]]
    data = np.zeros((n, 2), np.uint64)
    data[:, 0], data[:, 1] = source, 0x5EED
    return Stream(
        f"copies {window} frames back and around",
        data.view(np.uint8).reshape(-1),
        np.arange(n, dtype=np.uint64) * np.uint64(16),
        np.full(n, 16, np.uint32),
        np.arange(n, dtype=np.int64) * 10,
        np.zeros(n, np.uint16),
        np.array([1], np.uint16),
    )


def stamps(kind: str, n: int, gap: int = 1000, seed: int = 1) -> npt.NDArray[np.int64]:
    """i64[n]: "steady", "equal" (runs of equal stamps), "jumps" (back, now and then), "random", "ends"
    (of the range of i64, where differences overflow)."""
    rng = np.random.default_rng(seed)
    steady = np.arange(n, dtype=np.int64) * gap
    if kind == "equal":
        return steady // (16 * gap) * (16 * gap)
    if kind == "jumps":
        back = np.cumsum(np.where(rng.random(n) < 20 / max(n, 400), rng.integers(-300, 100, n), 0))
        return steady + back * gap
    if kind == "random":
        return rng.integers(0, max(1, n), n) * gap
    if kind == "ends":
        return np.where(rng.random(n) < 0.1, rng.choice([-(2**63), 2**63 - 1, -1, 0], n), steady)
    return steady


# Frames with headers, written by hand.


def _checksum(head: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(head) // 2}H", head))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", total ^ 0xFFFF)


def _l4(rng: random.Random) -> tuple[int, bytes]:
    payload = rng.randbytes(rng.choice([0, 1, 8, 15, 16, 17, 40, 200, 1000]))
    ports = struct.pack("!HH", rng.choice([53, 80, 443, rng.randrange(65536)]), rng.randrange(65536))
    kind = rng.choice(["tcp", "tcp", "udp", "icmp", "icmp-error", "sctp", "other"])
    if kind == "tcp":
        head = struct.pack("!IIHHHH", rng.randrange(1 << 32), 1, 0x5000 | rng.choice([2, 16, 24]), 512, 0, 0)
        return 6, ports + head + payload
    if kind == "udp":
        return 17, ports + struct.pack("!HH", 8 + len(payload), 0) + payload
    if kind == "icmp":
        return 1, struct.pack("!BBHHH", rng.choice([0, 8]), 0, 0, rng.randrange(9), 1) + payload
    if kind == "icmp-error":
        return 1, struct.pack("!BBHI", 3, 3, 0, 0) + _ipv4(rng, 17, ports + b"\0\x10\0\0" + b"quoted..")
    if kind == "sctp":
        return 132, ports + struct.pack("!II", 1, 2) + payload
    return rng.choice([4, 47, 50, 89, 255]), payload


def _ipv4(rng: random.Random, protocol: int, body: bytes) -> bytes:
    options = b"\x01" * (4 * rng.choice([0, 0, 0, 1, 10]))
    bits = rng.choice([0x4000, 0x4000, 0, 0x2000, 0x2003, 0x0007])
    head = struct.pack(
        "!BBHHHBBH", 0x45 + len(options) // 4, rng.choice([0, 0xB8]), 20 + len(options) + len(body),
        rng.choice([0, rng.randrange(65536)]), bits, rng.choice([1, 64]), protocol, 0,
    )  # fmt: skip
    head += b"\x0a\0\0" + rng.randbytes(1) + b"\x0a\0\1" + rng.randbytes(1) + options
    return head[:10] + _checksum(head) + head[12:] + body


def _ipv6(rng: random.Random, protocol: int, body: bytes) -> bytes:
    protocol = 58 if protocol == 1 else protocol
    for kind in rng.choice([(), (), (), (0,), (60,), (43,), (44,), (0, 44), (60, 60)]):
        if kind == 44:
            bits = rng.choice([0, 1, 8, 9])
            body = struct.pack("!BBHI", protocol, 0, bits, rng.randrange(9)) + body
        else:
            extra = rng.choice([0, 1])
            body = bytes([protocol, extra]) + bytes(6 + 8 * extra) + body
        protocol = kind
    head = struct.pack("!IHBB", 0x60000000 | rng.choice([0, 0x0B800000]), len(body), protocol, 64)
    address = bytes.fromhex("20010db8") + bytes(11)
    return head + address + rng.randbytes(1) + address + rng.randbytes(1) + body


def _ip(rng: random.Random, depth: int) -> tuple[int, bytes]:
    """(EtherType, packet), with tunnels inside to `depth`."""
    protocol, body = _l4(rng)
    if depth and rng.random() < 0.5:
        kind = rng.choice(["vxlan", "gre", "gre-teb", "erspan2", "ipip", "geneve"])
        if kind == "ipip":
            inner, body = _ip(rng, depth - 1)
            protocol = 4 if inner == 0x0800 else 41
        elif kind == "gre":
            inner, body = _ip(rng, depth - 1)
            flags = rng.choice([(0, b""), (0x2000, bytes(4)), (0x1000, b"\0\0\0\7"), (0x3000, bytes(8))])
            protocol, body = 47, struct.pack("!HH", flags[0], inner) + flags[1] + body
        elif kind == "gre-teb":
            protocol, body = 47, b"\0\0\x65\x58" + _ethernet(rng, depth - 1)
        elif kind == "erspan2":
            sequence = struct.pack("!I", rng.randrange(1 << 32))
            protocol, body = 47, b"\x10\0\x88\xbe" + sequence + b"\x10\x05" + bytes(6)
            body += _ethernet(rng, depth - 1)
        else:
            port, head = (
                (4789, b"\x08\0\0\0\0\0\x09\0") if kind == "vxlan" else (6081, b"\0\0\x65\x58\0\0\x07\0")
            )
            inside = head + _ethernet(rng, depth - 1)
            protocol, body = 17, struct.pack("!HHHH", 50000, port, 8 + len(inside), 0) + inside
    if rng.random() < 0.6:
        return 0x0800, _ipv4(rng, protocol, body)
    return 0x86DD, _ipv6(rng, protocol, body)


def _ethernet(rng: random.Random, depth: int) -> bytes:
    ether, body = _ip(rng, depth)
    link = bytes.fromhex("0200000000") + rng.randbytes(1) + bytes.fromhex("0200000001") + rng.randbytes(1)
    for tpid in rng.choice([(), (), (0x8100,), (0x88A8, 0x8100), (0x9100, 0x8100, 0x8100)]):
        link += struct.pack("!HH", tpid, rng.randrange(1, 4095))
    kind = rng.random()
    if kind < 0.05:
        return link + b"\x08\x06" + bytes.fromhex("0001080006040001") + rng.randbytes(20)
    if kind < 0.1:
        return link + b"\x88\x47" + bytes.fromhex("0001904000064140") + body
    if kind < 0.15:
        return link + b"\x00\x26\x42\x42\x03" + bytes(35)
    return link + struct.pack("!H", ether) + body + rng.choice([b"", b"", bytes(6), rng.randbytes(4)])


def _frame(rng: random.Random) -> tuple[bytes, int]:
    """(frame, index into LINKTYPES)."""
    kind = rng.choice([0, 0, 0, 0, 1, 2, 3, 4])
    if kind == 0:
        return _ethernet(rng, rng.choice([0, 0, 1, 2, 3])), 0
    ether, body = _ip(rng, rng.choice([0, 1]))
    protocol = struct.pack("!H", ether)
    if kind == 1:
        return b"\0\0\0\1\0\6" + rng.randbytes(6) + b"\0\0" + protocol + body, 1
    if kind == 2:
        return protocol + b"\0\0\0\0\0\2\0\1\0\6" + rng.randbytes(6) + b"\0\0" + body, 2
    if kind == 3:
        return body, 3
    return b"\xff\x03" + (b"\0\x21" if ether == 0x0800 else b"\0\x57") + body, 4


def _changed(rng: random.Random, frame: bytes) -> bytes:
    """A copy as monitoring ports make them, or a damaged one."""
    new = bytearray(frame)
    kind = rng.choice(["same", "same", "same", "link", "byte", "bit", "cut", "longer", "ttl", "anywhere"])
    if kind == "link":
        new[:12] = rng.randbytes(min(12, len(new)))
    elif kind == "byte" and new:
        new[rng.randrange(len(new))] = rng.randrange(256)
    elif kind == "bit" and new:
        new[rng.randrange(len(new))] ^= 1 << rng.randrange(8)
    elif kind == "cut":
        del new[rng.randrange(len(new) + 1) :]
    elif kind == "longer":
        new += rng.randbytes(rng.randrange(8))
    elif kind == "ttl" and len(new) > 34:
        new[22] = max(1, new[22] - 1)
        new[24:26] = rng.randbytes(2)
    elif kind == "anywhere" and len(new) > 40:
        new[26:30] = rng.randbytes(4)
    return bytes(new)


def fuzzed(n: int, seed: int = 1) -> Stream:
    """Frames of many protocols on all link types, half of them changed copies of one within 50."""
    rng = random.Random(seed)
    frames: list[tuple[bytes, int]] = []
    for _ in range(n):
        if frames and rng.random() < 0.5:
            frame, port = frames[-rng.randrange(1, min(50, len(frames)) + 1)]
            frames.append((_changed(rng, frame), port))
        else:
            frames.append(_frame(rng))
    return from_frames("fuzzed headers", [f for f, _ in frames], [p for _, p in frames])


def described(n: int, seed: int = 1) -> Stream | None:
    """Frames that scapy builds and copies of known kind (tests/kernels/traffic), or None without scapy."""
    try:
        from tests.kernels import traffic as scapy_traffic
    except ImportError:
        return None
    rng = random.Random(seed)
    frames: list[tuple[bytes, int]] = []
    kinds = list(LINKTYPES)
    while len(frames) < n:
        spec = scapy_traffic.make_spec(rng)
        if not scapy_traffic.usable(spec):
            continue
        port = kinds.index(scapy_traffic.LINKTYPES[spec["link"]])
        new, _, _, _ = scapy_traffic.mutate(spec, rng)
        frames += [(scapy_traffic.build(spec), port), (scapy_traffic.build(new), port)]
    return from_frames("scapy's headers", [f for f, _ in frames[:n]], [p for _, p in frames[:n]])


def captures(folder: Path, most: int) -> Iterator[Stream]:
    """Each capture of a folder as a stream of at most `most` frames, unless it is empty or damaged."""
    for path in sorted(folder.glob("*.pcap*")):
        with open_capture(str(path), batch_frames=most, batch_bytes=64 << 20) as reader:
            batch = reader.read()
            if batch is None or not len(batch):
                continue
            with batch:
                yield Stream(
                    path.name, batch.data.copy(), batch.offset.copy(), batch.caplen.copy(),
                    batch.timestamp_ns.copy(), batch.port.copy(), batch.linktypes.copy(),
                )  # fmt: skip


def classbench_rules(n: int, seed: int = 1) -> RuleSet:
    """n rules as ClassBench makes them: long prefixes within few networks, exact, open and high ports."""
    rng = random.Random(seed)
    networks = [rng.randrange(1, 224) << 24 | rng.randrange(1 << 16) << 8 for _ in range(64)]

    def prefix() -> str:
        if rng.random() < 0.05:
            return "0.0.0.0/0"
        length = rng.choices([32, 31, 30, 29, 28, 24, 23, 22, 16], [44, 20, 5, 3, 3, 8, 8, 4, 5])[0]
        value = rng.choice(networks) | rng.randrange(256)
        value &= ~((1 << (32 - length)) - 1) & 0xFFFFFFFF
        return ".".join(str(value >> shift & 255) for shift in (24, 16, 8, 0)) + f"/{length}"

    def ports(open_share: float) -> str:
        if rng.random() < open_share:
            return "0 : 65535"
        low = rng.choice([0, 1024, 53, 80, 443, rng.randrange(65536)])
        high = rng.choice([low, low, low, 65535])
        return f"{low} : {high}"

    lines = []
    for _ in range(n - 1):
        protocol = rng.choice(["0x06/0xFF", "0x06/0xFF", "0x11/0xFF", "0x01/0xFF", "0x00/0x00"])
        flags = rng.choice(["0x0000/0x0000", "0x0000/0x0200", "0x1000/0x1000"])
        spans = ("0 : 65535", "0 : 65535") if protocol[3] in "01" and protocol[2] == "0" else None
        source, destination = spans or (ports(0.9), ports(0.3))
        if protocol == "0x11/0xFF":
            flags = "0x0000/0x0000"
        lines.append(f"@{prefix()}\t{prefix()}\t{source}\t{destination}\t{protocol}\t{flags}\t")
    lines.append("@0.0.0.0/0\t0.0.0.0/0\t0 : 65535\t0 : 65535\t0x00/0x00\t0x0000/0x0000\t")
    return parse_classbench(lines[-n:], name=f"generated {n}")
