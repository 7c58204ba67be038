# SPDX-License-Identifier: Apache-2.0
"""A plain linear search, and a generator of packets whose fields are known because it wrote them.

Nothing here uses the package's parser, rule reader or tables.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

import numpy as np

PORT_PROTOCOLS = (6, 17, 33, 132, 136)


@dataclass(frozen=True)
class PlainRule:
    family: int | None = None  # of its prefixes
    src: tuple[int, int] = (0, 0)  # address, bits
    dst: tuple[int, int] = (0, 0)
    sport: tuple[int, int] = (0, 65535)
    dport: tuple[int, int] = (0, 65535)
    proto: int | None = None
    vlan: int | None = None
    tcp: tuple[int, int] | None = None  # value, mask over the TCP header's bytes 12-13, low 12 bits
    icmp: tuple[int, int] | None = None  # value, mask over type << 8 | code
    either: bool = False


@dataclass(frozen=True)
class Packet:
    family: int = 4  # 4, 6 or 0 (ARP, LLDP)
    src: int = 0
    dst: int = 0
    proto: int = 17
    sport: int = 0
    dport: int = 0
    tcp: int = 0x10
    icmp: int = 0x0800
    vlan: int | None = None
    fragment: str = "none"  # none, first, later
    ident: int = 0
    # What a later fragment knows from its first one, if that came before.
    first: Packet | None = None

    def has_ports(self) -> bool:
        return self.family != 0 and self.proto in PORT_PROTOCOLS and self.fragment != "later"


def parse_plain(path) -> list[PlainRule]:
    """ClassBench: split on white space, nothing clever."""
    rules = []
    for line in path.read_text().splitlines():
        if not line.strip():
            continue
        w = line.strip().lstrip("@").replace(" : ", ":").split()

        def prefix(text):
            ip, bits = text.split("/")
            return int.from_bytes(bytes(int(x) for x in ip.split(".")), "big"), int(bits)

        sport, dport = (tuple(int(x) for x in w[i].split(":")) for i in (2, 3))
        proto, proto_mask = (int(x, 16) for x in w[4].split("/"))
        value, mask = (int(x, 16) for x in w[5].split("/"))
        tcp = icmp = None
        if mask:
            if proto == 6:
                assert not mask & 0xFF
                tcp = (value >> 8, mask >> 8)
            else:
                assert proto == 1
                icmp = (value, mask)
        rules.append(
            PlainRule(
                4, prefix(w[0]), prefix(w[1]), sport, dport, proto if proto_mask else None, None, tcp, icmp
            )
        )
    return rules


def columns(packets: list[Packet], family: int) -> dict[str, np.ndarray]:
    """What a rule may look at, per packet; all packets of one family. Unknown: -1."""
    n = len(packets)
    shift = 96 if family == 4 else 0
    out = {}
    for side in ("src", "dst"):
        wide = [getattr(p, side) << shift for p in packets]
        for word in range(4):
            out[f"{side}{word}"] = np.array([v >> (96 - 32 * word) & 0xFFFFFFFF for v in wide], np.uint32)
    vlan, proto, sport, dport, tcp, icmp = (np.full(n, -1, np.int32) for _ in range(6))
    for i, p in enumerate(packets):
        if p.vlan is not None:
            vlan[i] = p.vlan
        if family == 0:
            continue
        q = p.first if p.fragment == "later" and p.first is not None else p
        proto[i] = p.proto
        if q.has_ports():
            sport[i], dport[i] = q.sport, q.dport
        if q.fragment != "later":
            if p.proto == 6:
                tcp[i] = q.tcp
            if p.proto in (1, 58):
                icmp[i] = q.icmp
    return out | {"vlan": vlan, "proto": proto, "sport": sport, "dport": dport, "tcp": tcp, "icmp": icmp}


def _conditions(rule: PlainRule, a: str, b: str):
    """(column, test) for each thing that the rule asks, its source being side `a` of the packet."""
    for side, (address, bits) in ((a, rule.src), (b, rule.dst)):
        wide = address << 96 if rule.family == 4 else address
        full = ((1 << bits) - 1) << (128 - bits)
        for word in range(4):
            mask = full >> (96 - 32 * word) & 0xFFFFFFFF
            value = np.uint32(wide >> (96 - 32 * word) & mask)
            if mask:
                yield f"{side}{word}", lambda x, m=mask, v=value: (x & np.uint32(m)) == v
    for side, (low, high) in ((a, rule.sport), (b, rule.dport)):
        if (low, high) != (0, 65535):
            yield side[0] + "port", lambda x, lo=low, hi=high: (x >= lo) & (x <= hi)
    for name in ("proto", "vlan"):
        wanted = getattr(rule, name)
        if wanted is not None:
            yield name, lambda x, w=wanted: x == w
    for name in ("tcp", "icmp"):
        spec = getattr(rule, name)
        if spec is not None:
            yield name, lambda x, s=spec: (x >= 0) & ((x & s[1]) == s[0])


def _accepted(rule: PlainRule, c: dict[str, np.ndarray], a: str, b: str) -> np.ndarray:
    rows = None
    for name, test in _conditions(rule, a, b):
        rows = np.flatnonzero(test(c[name])) if rows is None else rows[test(c[name][rows])]
    return np.arange(len(c["proto"])) if rows is None else rows


def linear_search(rules: list[PlainRule], packets: list[Packet]) -> np.ndarray:
    """First matching rule per packet, -1 none: every rule in turn asks every packet still open."""
    answer = np.full(len(packets), -1, np.int32)
    for family in (4, 6, 0):
        where = np.array([i for i, p in enumerate(packets) if p.family == family], np.int64)
        c = columns([packets[i] for i in where], family)
        found = np.full(len(where), -1, np.int32)
        for number, rule in enumerate(rules):
            if rule.family not in (None, family):
                continue
            hit = _accepted(rule, c, "src", "dst")
            if rule.either:
                hit = np.union1d(hit, _accepted(rule, c, "dst", "src"))
            found[hit[found[hit] < 0]] = number
        answer[where] = found
    return answer


def _near(rng, prefix: tuple[int, int], width: int) -> int:
    """An address on, in or just outside a prefix."""
    address, bits = prefix
    size = 1 << (width - bits)
    address = address // size * size
    choice = rng.randrange(0, 10)
    if choice < 2:
        value = address
    elif choice < 4:
        value = address + size - 1
    elif choice == 4:
        value = address - 1
    elif choice == 5:
        value = address + size
    else:
        value = address + int.from_bytes(rng.randbytes(16), "big") % size
    return value % (1 << width)


def _near_port(rng, span: tuple[int, int]) -> int:
    low, high = span
    choice = rng.randrange(0, 8)
    if choice == 0:
        value = low - 1
    elif choice == 1:
        value = high + 1
    elif choice < 4:
        value = low
    elif choice < 6:
        value = high
    else:
        value = rng.randrange(low, high + 1)
    return value % 65536


def random_packet(rng) -> Packet:
    family = rng.choice([4, 4, 4, 6, 0])
    width = 128 if family == 6 else 32
    protocols = [6, 17, 1, 47, 50, 132, 2, 89, 136] if family == 4 else [6, 17, 58, 47, 132, 89]
    return Packet(
        family=family,
        src=int.from_bytes(rng.randbytes(width // 8), "big"),
        dst=int.from_bytes(rng.randbytes(width // 8), "big"),
        proto=(rng.choice(protocols)),
        sport=rng.randrange(0, 65536),
        dport=rng.randrange(0, 65536),
        tcp=rng.randrange(0, 4096),
        icmp=rng.randrange(0, 65536),
        vlan=None if rng.random() < 0.8 else rng.randrange(0, 4096),
        fragment=(rng.choice(["none"] * 18 + ["first", "later"])) if family else "none",
        ident=rng.randrange(0, 65536),
    )


def derived_packet(rng, rule: PlainRule) -> Packet:
    """A packet at the edges of a rule; it may match it, an earlier one, or none."""
    p = random_packet(rng)
    family = rule.family or (rng.choice([4, 6]))
    if rng.random() < 0.03:
        family = 10 - family
    width = 128 if family == 6 else 32
    same = rule.family in (None, family)
    src = _near(rng, rule.src, width) if same and rule.family else p.src % (1 << width)
    dst = _near(rng, rule.dst, width) if same and rule.family else p.dst % (1 << width)
    proto = rule.proto if rule.proto is not None and rng.random() < 0.95 else p.proto
    if proto in (0, 43, 44, 51, 60, 135, 139, 140, 59) and family == 6:
        proto = 17  # extension headers: not a transport protocol there
    tcp, icmp = p.tcp, p.icmp
    if rule.tcp is not None:
        tcp = (tcp & ~rule.tcp[1]) | rule.tcp[0]
        if rng.random() < 0.2:
            tcp ^= 1 << rng.randrange(0, 12)
    if rule.icmp is not None:
        icmp = (icmp & ~rule.icmp[1]) | rule.icmp[0]
        if rng.random() < 0.2:
            icmp ^= 1 << rng.randrange(0, 16)
    vlan = rule.vlan if rule.vlan is not None and rng.random() < 0.9 else p.vlan
    p = replace(
        p,
        family=family,
        src=src,
        dst=dst,
        proto=proto,
        sport=_near_port(rng, rule.sport),
        dport=_near_port(rng, rule.dport),
        tcp=tcp,
        icmp=icmp,
        vlan=vlan,
    )
    if rule.either and rng.random() < 0.5:
        p = replace(p, src=p.dst, dst=p.src, sport=p.dport, dport=p.sport)
    return p


def derive(rng, rules: list[PlainRule], count: int, random_share: float = 0.3) -> list[Packet]:
    """`count` packets; later fragments follow a first one that was sent before, where `first` says so."""
    packets: list[Packet] = []
    firsts: list[Packet] = []
    used: dict[tuple, Packet] = {}
    for _ in range(count):
        if firsts and rng.random() < 0.01:
            first = firsts[rng.randrange(0, len(firsts))]
            packets.append(replace(first, fragment="later", first=first, vlan=first.vlan))
            continue
        p = (
            random_packet(rng)
            if rng.random() < random_share
            else derived_packet(rng, rules[rng.randrange(len(rules))])
        )
        if p.fragment != "none":
            key = (p.family, p.src, p.dst, p.ident, p.proto if p.family == 4 else 0)
            if p.fragment == "first":
                if key in used:
                    continue
                used[key] = p
                firsts.append(p)
            elif key in used:
                p = replace(p, first=used[key], proto=used[key].proto)
        packets.append(p)
    return packets


def _l4(p: Packet) -> bytes:
    if p.proto == 6:
        return struct.pack("!HHIIHHHH", p.sport, p.dport, 1, 2, 0x5000 | p.tcp, 1024, 0, 0)
    if p.proto in (17, 136):
        return struct.pack("!HHHH", p.sport, p.dport, 16, 0) + b"payload!"
    if p.proto in (1, 58):
        return struct.pack("!HHI", p.icmp, 0, 7) + b"echo"  # too short to quote a packet
    if p.proto in (33, 132):
        return struct.pack("!HHII", p.sport, p.dport, 1, 2) + bytes(8)
    return bytes([0x55] * 16)


def build(p: Packet) -> bytes:
    """The frame, headers written by hand."""
    link = bytes.fromhex("020000000002020000000001")
    if p.vlan is not None:
        link += struct.pack("!HH", 0x8100, 0x6000 | p.vlan)
    if p.family == 0:
        if p.ident & 1:
            return link + struct.pack("!H", 0x88CC) + bytes(46)
        arp = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + bytes(6) + p.src.to_bytes(4, "big") + bytes(6)
        return link + struct.pack("!H", 0x0806) + arp + p.dst.to_bytes(4, "big") + bytes(18)
    body = _l4(p) if p.fragment != "later" else b"\xff" * 24
    if p.family == 4:
        bits = {"none": 0x4000, "first": 0x2000, "later": 0x0003}[p.fragment]
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), p.ident, bits, 64, p.proto, 0)
        return link + b"\x08\x00" + head + p.src.to_bytes(4, "big") + p.dst.to_bytes(4, "big") + body
    next_header = p.proto
    if p.fragment != "none":
        bits = 1 if p.fragment == "first" else 0x0018
        body = struct.pack("!BBHI", p.proto, 0, bits, p.ident) + body
        next_header = 44
    head = struct.pack("!IHBB", 0x60000000, len(body), next_header, 64)
    return link + b"\x86\xdd" + head + p.src.to_bytes(16, "big") + p.dst.to_bytes(16, "big") + body
