# SPDX-License-Identifier: Apache-2.0
"""Frames built by scapy from a description, and mutations of it whose kind is known beforehand."""

from __future__ import annotations

import copy
import random
from typing import Any

from scapy.contrib.erspan import ERSPAN, ERSPAN_II, ERSPAN_III, ERSPAN_PlatformSpecific
from scapy.contrib.geneve import GENEVE
from scapy.contrib.gtp import GTP_U_Header, GTPPDUSessionContainer
from scapy.contrib.mpls import MPLS
from scapy.contrib.tzsp import TZSP, TZSPTagEnd, TZSPTagPadding, TZSPTagRawRSSIByte
from scapy.layers.inet import GRE, ICMP, IP, TCP, UDP, IPOption_RR, IPOption_Timestamp
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.layers.l2 import ARP, LLC, STP, Dot1AD, Dot1Q, Dot3, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP, SCTPChunkData
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

LINKTYPES = {
    "eth": 1, "sll": 113, "sll2": 276, "raw": 101, "ppp": 9, "null": 0, "loop": 108, "cisco": 104,
    "nflog": 239,
}  # fmt: skip
EXACT, VLAN, ROUTING, NAT, NEVER = 1, 2, 3, 4, 5
ETHERNET_TUNNELS = (
    "vxlan",
    "gre-teb",
    "erspan1",
    "erspan2",
    "erspan3",
    "erspan3o",
    "geneve",
    "geneve-options",
    "tzsp",
)
IP_TUNNELS = ("gre", "gre-ksc", "ipip", "geneve-ip", "mpls-gre", "gtpu", "gtpu-extended")
TUNNELS = ETHERNET_TUNNELS + IP_TUNNELS


def mac(rng: random.Random) -> str:
    return ":".join(f"{b:02x}" for b in (rng.randrange(128) * 2, *rng.randbytes(5)))


def address(rng: random.Random, version: int) -> str:
    if version == 4:
        return f"10.{rng.randrange(256)}.{rng.randrange(256)}.{rng.randrange(1, 255)}"
    return f"2001:db8::{rng.randrange(1, 65536):x}:{rng.randrange(1, 65536):x}"


def make_ip(rng: random.Random) -> dict[str, Any]:
    version = rng.choice([4, 4, 6])
    return {
        "version": version,
        "src": address(rng, version),
        "dst": address(rng, version),
        "ttl": rng.randrange(2, 250),
        "tos": rng.randrange(256),
        "id": rng.choice([0, rng.randrange(1, 65536)]),
        "label": rng.randrange(1 << 20),
        "extra": rng.choice(["", "", "", "options", "long"]),
    }


def make_spec(rng: random.Random) -> dict[str, Any]:
    link = rng.choice(
        ["eth"] * 6 + ["sll", "sll2", "raw", "ppp", rng.choice(["null", "loop", "cisco", "nflog"])]
    )
    tunnels = rng.choices([0, 1, 2], [5, 4, 1])[0]
    return {
        "link": link,
        "shim": rng.choice(["", "", "", "pppoe", "mpls"]) if link == "eth" else "",
        "macs": (mac(rng), mac(rng)),
        "tags": make_tags(rng) if link in ("eth", "sll", "sll2") else [],
        "ips": [make_ip(rng) for _ in range(tunnels + 1)],
        "tunnels": [
            {
                "kind": rng.choice(TUNNELS),
                "vni": rng.randrange(1 << 24),
                "sequence": rng.randrange(1 << 32),
                "macs": (mac(rng), mac(rng)),
                "tags": make_tags(rng),
                "trailer": bytes(rng.choice([0, 0, 6])),
                "port": rng.randrange(1024, 65536),
            }
            for _ in range(tunnels)
        ],
        "l4": rng.choice(
            [
                "tcp",
                "tcp",
                "udp",
                "udp",
                "icmp",
                "icmp-reply",
                "error",
                "sctp",
                "esp",
                "later",
                "first",
                "arp",
                "stp",
            ]
        ),
        "ports": (rng.randrange(1024, 60000), rng.randrange(1024, 4000)),
        "sequence": rng.randrange(1 << 31),
        "payload": rng.randbytes(rng.choice([0, 3, 15, 16, 17, 60, 500, 1200])),
        "trailer": bytes(rng.choice([0, 0, 4, 18])),
    }


def make_tags(rng: random.Random) -> list[tuple[int, int]]:
    return [(rng.choice([0x8100, 0x88A8]), rng.randrange(1, 4095)) for _ in range(rng.choice([0, 0, 1, 2]))]


def with_tags(tags: list[tuple[int, int]], packet: Any) -> Any:
    for tpid, vid in reversed(tags):
        packet = (Dot1Q if tpid == 0x8100 else Dot1AD)(vlan=vid, prio=vid % 8) / packet
    return packet


def ip_of(ip: dict[str, Any], packet: Any, fragment: str = "") -> Any:
    if ip["version"] == 4:
        options = {
            "": [],
            "options": [IPOption_RR(routers=["1.2.3.4"])],
            "long": [IPOption_Timestamp(timestamp=1)] * 3,
        }
        head = IP(
            src=ip["src"],
            dst=ip["dst"],
            ttl=ip["ttl"],
            tos=ip["tos"],
            id=ip["id"],
            options=options[ip["extra"]],
        )
        head.flags, head.frag = ("MF", 0) if fragment == "first" else (0, 185 if fragment else 0)
        return head / packet
    head = IPv6(src=ip["src"], dst=ip["dst"], hlim=ip["ttl"], tc=ip["tos"], fl=ip["label"])
    if ip["extra"] == "options":
        head /= IPv6ExtHdrHopByHop(options=[PadN(optdata=b"\0" * 4)])
    if ip["extra"] == "long":
        head /= IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 60)]) / IPv6ExtHdrRouting(
            addresses=["2001:db8::9"]
        )
    if fragment:
        head /= IPv6ExtHdrFragment(m=fragment == "first", offset=0 if fragment == "first" else 185, id=7)
    return head / packet


def innermost(spec: dict[str, Any]) -> Any:
    """The innermost layer-3 packet."""
    ip, l4, data = spec["ips"][-1], spec["l4"], Raw(spec["payload"])
    sport, dport = spec["ports"]
    if l4 == "arp":
        return ARP(psrc=address(random.Random(sport), 4), pdst="10.0.0.1", hwsrc="02:00:00:00:00:01")
    if l4 == "stp":
        return LLC(dsap=0x42, ssap=0x42, ctrl=3) / STP(bridgeid=sport)
    if l4 == "tcp":
        return ip_of(ip, TCP(sport=sport, dport=dport, seq=spec["sequence"], options=[("MSS", 9)]) / data)
    if l4 == "udp":
        return ip_of(ip, UDP(sport=sport, dport=dport) / data)
    if l4 == "first":
        return ip_of(ip, UDP(sport=sport, dport=dport, chksum=7) / data, "first")
    if l4 == "later":
        return fix(ip_of(ip, data, "later"), 17)
    if l4 == "sctp":
        return ip_of(ip, SCTP(sport=sport, dport=dport) / SCTPChunkData(data=spec["payload"]))
    if l4 == "esp":
        return fix(ip_of(ip, data), 50)
    if l4 == "error":
        quoted = ip_of(dict(ip, extra=""), UDP(sport=sport, dport=dport) / data)
        return ip_of(ip, (ICMP(type=3, code=1) if ip["version"] == 4 else ICMPv6PacketTooBig()) / quoted)
    if ip["version"] == 4:
        return ip_of(
            ip, ICMP(type=8 if l4 == "icmp" else 0, id=sport if l4 == "icmp" else dport, seq=1) / data
        )
    echo = ICMPv6EchoRequest if l4 == "icmp" else ICMPv6EchoReply
    return ip_of(ip, echo(id=sport if l4 == "icmp" else dport, seq=1, data=spec["payload"]))


def fix(packet: Any, proto: int) -> Any:
    last = packet
    while last.payload and not isinstance(last.payload, Raw):
        last = last.payload
    if isinstance(last, IP):
        last.proto = proto
    else:
        last.nh = proto
    return packet


def ethernet(
    macs: tuple[str, str], tags: list[tuple[int, int]], packet: Any, trailer: bytes, dot3: bool
) -> bytes:
    if dot3:  # the last tag is followed by the length
        body = bytes(packet)
        head = bytes(Ether(src=macs[0], dst=macs[1]))[:12]
        head += b"".join(tpid.to_bytes(2, "big") + vid.to_bytes(2, "big") for tpid, vid in tags)
        frame = head + len(body).to_bytes(2, "big") + body
        assert tags or frame == bytes(Dot3(src=macs[0], dst=macs[1]) / packet)
        return frame + trailer
    return bytes(Ether(src=macs[0], dst=macs[1]) / with_tags(tags, packet)) + trailer


def carries_ip(spec: dict[str, Any]) -> bool:
    return spec["l4"] not in ("arp", "stp")


def build(spec: dict[str, Any]) -> bytes:
    packet: Any = innermost(spec)
    dot3 = spec["l4"] == "stp"
    for level in reversed(range(len(spec["tunnels"]))):
        t = spec["tunnels"][level]
        kind = t["kind"]
        if kind in ETHERNET_TUNNELS:
            inside: Any = Raw(ethernet(t["macs"], t["tags"], packet, t["trailer"], dot3))
        else:
            inside = packet
        dot3 = False
        version = packet.version if kind in IP_TUNNELS else 0
        ether = 0x0800 if version == 4 else 0x86DD
        udp = {"sport": t["port"], "chksum": 0}
        if kind == "vxlan":
            carried = UDP(dport=4789, **udp) / VXLAN(flags=8, vni=t["vni"]) / inside
        elif kind == "gre-teb":
            carried = GRE(proto=0x6558, key_present=1, key=t["vni"]) / inside
        elif kind == "erspan1":
            carried = GRE(proto=0x88BE) / ERSPAN() / inside
        elif kind == "erspan2":
            carried = (
                GRE(proto=0x88BE, seqnum_present=1, sequence_number=t["sequence"])
                / ERSPAN_II(vlan=3)
                / inside
            )
        elif kind in ("erspan3", "erspan3o"):
            o = kind == "erspan3o"
            carried = GRE(proto=0x22EB, seqnum_present=1, sequence_number=t["sequence"]) / ERSPAN_III(
                o=o, timestamp=9
            )
            carried = carried / (ERSPAN_PlatformSpecific() / inside if o else inside)
        elif kind == "geneve":
            carried = UDP(dport=6081, **udp) / GENEVE(vni=t["vni"], proto=0x6558) / inside
        elif kind == "geneve-options":
            options = b"\x01\x02\x80\x01abcd"
            head = bytes([len(options) // 4, 0, 0x65, 0x58]) + t["vni"].to_bytes(3, "big") + b"\0" + options
            carried = UDP(dport=6081, **udp) / Raw(head) / inside
        elif kind == "geneve-ip":
            carried = UDP(dport=6081, **udp) / GENEVE(vni=t["vni"], proto=ether) / inside
        elif kind == "tzsp":
            head = (
                TZSP(type=0, encapsulated_protocol=1)
                / TZSPTagRawRSSIByte(raw_rssi=7)
                / TZSPTagPadding()
                / TZSPTagEnd()
            )
            carried = UDP(dport=37008, **udp) / Raw(bytes(head)) / inside
        elif kind in ("gtpu", "gtpu-extended"):
            gtp = GTP_U_Header(teid=t["vni"], gtp_type=255)
            if kind == "gtpu-extended":  # with a sequence number and a PDU session container
                gtp = GTP_U_Header(
                    teid=t["vni"], gtp_type=255, E=1, S=1, seq=t["sequence"] & 0xFFFF, next_ex=0x85
                ) / GTPPDUSessionContainer(type=1, QFI=9)
            carried = UDP(dport=2152, **udp) / Raw(bytes(gtp / Raw(bytes(inside))))
        elif kind == "gre":
            carried = GRE(proto=ether) / inside
        elif kind == "gre-ksc":
            carried = GRE(
                proto=ether,
                key_present=1,
                key=t["vni"],
                seqnum_present=1,
                sequence_number=t["sequence"],
                chksum_present=1,
            ) / Raw(bytes(inside))
        elif kind == "mpls-gre":
            carried = GRE(proto=0x8847) / MPLS(label=t["vni"] >> 4, s=0) / MPLS(label=99, s=1) / inside
        else:
            carried = inside
        packet = ip_of(spec["ips"][level], carried)
        if kind == "ipip":
            packet = ip_of(spec["ips"][level], Raw(bytes(inside)))
            fix(packet, 4 if version == 4 else 41)
        elif carried.haslayer(UDP) and spec["ips"][level]["version"] == 6:
            pass
    link = spec["link"]
    if link == "eth":
        if spec["shim"] == "pppoe":
            body = PPPoE(sessionid=5) / PPP(proto=0x21 if packet.version == 4 else 0x57) / packet
            return ethernet(spec["macs"], spec["tags"], body, spec["trailer"], False)
        if spec["shim"] == "mpls":
            body = MPLS(label=7, s=0, ttl=9) / MPLS(label=100, s=1, ttl=spec["ips"][0]["ttl"]) / packet
            return ethernet(spec["macs"], spec["tags"], body, spec["trailer"], False)
        return ethernet(spec["macs"], spec["tags"], packet, spec["trailer"], dot3)
    body = bytes(packet) + spec["trailer"]
    if link == "raw":
        return body
    kind = 0x0806 if isinstance(packet, ARP) else 4 if dot3 else 0x0800 if packet.version == 4 else 0x86DD
    if link in ("null", "loop"):
        return (2 if kind == 0x0800 else 30).to_bytes(4, "little" if link == "null" else "big") + body
    if link == "cisco":
        return b"\x0f\0" + kind.to_bytes(2, "big") + body
    if link == "nflog":
        head = bytes([2 if kind == 0x0800 else 10, 0, 0, 0]) + b"\x08\0\x01\0\0\0\x01\0"
        return head + (len(body) + 4).to_bytes(2, "little") + b"\x09\0" + body
    if link == "ppp":
        return b"\xff\x03" + (b"\0\x21" if kind == 0x0800 else b"\0\x57") + body
    sender = bytes.fromhex(spec["macs"][0].replace(":", "")) + b"\0\0"
    chain = [tpid for tpid, _ in spec["tags"]] + [kind]
    tags = b"".join(
        vid.to_bytes(2, "big") + following.to_bytes(2, "big")
        for (_, vid), following in zip(spec["tags"], chain[1:], strict=True)
    )
    if link == "sll":
        return b"\0\0\0\x01\0\x06" + sender + chain[0].to_bytes(2, "big") + tags + body
    return chain[0].to_bytes(2, "big") + b"\0\0\0\0\0\x02\0\x01\0\x06" + sender + tags + body


def usable(spec: dict[str, Any]) -> bool:
    """Whether the parts go together: ARP and STP want a link layer, odd trailers a layer 3 with an end."""
    if spec["shim"] == "mpls" and len(spec["trailer"]) not in (0, 4):
        return False
    if spec["l4"] == "esp" and not spec["payload"] and spec["ips"][-1]["version"] == 6:
        return False  # a payload length of 0 does not say where the packet ends
    around = (
        spec["tunnels"][-1]["kind"] in ETHERNET_TUNNELS
        if spec["tunnels"]
        else spec["link"] in ("eth", "sll", "sll2")
    )
    if not carries_ip(spec):
        if not around or (not spec["tunnels"] and spec["shim"]):
            return False
        # Cooked 802.2 has no length of its own, and behind a tag no number for it.
        if (
            spec["l4"] == "stp"
            and not spec["tunnels"]
            and spec["link"] != "eth"
            and (spec["tags"] or spec["trailer"])
        ):
            return False
    return True


def fit_for_nat(spec: dict[str, Any]) -> bool:
    ip = spec["ips"][-1]
    if spec["l4"] in ("arp", "stp", "error", "later", "first"):
        return False
    if ip["version"] == 6 and ip["extra"] == "long" and spec["l4"] not in ("esp", "sctp"):
        return False  # a routing header: the checksum is over another destination
    payload = len(spec["payload"]) + (16 if spec["l4"] == "sctp" else 0)
    return spec["l4"] == "tcp" or (ip["version"] == 4 and ip["id"] != 0) or payload >= 16


def mutate(spec: dict[str, Any], rng: random.Random) -> tuple[dict[str, Any], str, int, int]:
    """(description of the copy, what was done, narrowest profile at layer outer, and at layer inner)."""
    new = copy.deepcopy(spec)
    tunnels = len(spec["tunnels"])
    inside = tunnels > 0
    mpls = spec["shim"] == "mpls"  # at layer outer not understood
    names = [
        "same",
        "payload",
        "length",
        "trailer",
        "macs",
        "tags",
        "route",
        "nat-src",
        "nat-dst",
        "nat-both",
        "flow",
    ]
    if inside:
        names += ["outer-route", "tunnel-sequence", "inner-link", "inner-trailer"]
    name = rng.choice(names)
    ip = new["ips"][-1]
    carries = carries_ip(spec)
    linked = spec["link"] in ("eth", "sll", "sll2")
    outer = inner = EXACT

    def below(narrow: int) -> tuple[int, int]:
        """A change below the innermost layer 3, which outer judges `narrow` and inner leaves out."""
        innermost_too = not inside and not mpls
        return (NEVER if mpls else narrow), (narrow if innermost_too else VLAN)

    if name == "payload":
        if not carries or not spec["payload"]:
            return mutate(spec, rng)
        at = rng.randrange(len(spec["payload"]))
        data = bytearray(spec["payload"])
        data[at] ^= 1 << rng.randrange(8)
        new["payload"] = bytes(data)
        outer = inner = NEVER
    elif name == "length":
        if not carries:
            return mutate(spec, rng)
        new["payload"] = spec["payload"] + b"\0"
        outer = inner = NEVER
    elif name == "flow":
        if spec["l4"] != "tcp":
            return mutate(spec, rng)
        new["sequence"] += 1
        outer = inner = NEVER
    elif name == "trailer":
        if not carries and spec["link"] != "eth" and not inside:
            return mutate(spec, rng)
        new["trailer"] = spec["trailer"] + b"\x55\xaa"
        if mpls:  # which does not say what it carries: an FCS at most
            new["trailer"] = b"" if spec["trailer"] else b"\x55\xaa\x55\xaa"
        outer, inner = below(VLAN)
    elif name == "macs":
        if not linked:
            return mutate(spec, rng)
        new["macs"] = (mac(rng), mac(rng))
        outer, inner = below(ROUTING if carries or inside else NEVER)
    elif name == "tags":
        if not linked or (spec["l4"] == "stp" and spec["link"] != "eth" and not inside):
            return mutate(spec, rng)
        new["tags"] = make_tags(rng)
        if new["tags"] == spec["tags"]:
            return mutate(spec, rng)
        outer, inner = below(VLAN)
    elif name == "route":
        if not carries:
            return mutate(spec, rng)
        ip["ttl"] -= 1
        if rng.random() < 0.5:
            ip["tos"] ^= rng.randrange(1, 256)
        outer, inner = (NEVER if inside or mpls else ROUTING), ROUTING
        if spec["l4"] == "error":  # the quoted packet has the same TTL here
            outer = inner = NEVER
        if not inside and linked and rng.random() < 0.5:
            new["macs"] = (mac(rng), mac(rng))
    elif name.startswith("nat"):
        if not carries:
            return mutate(spec, rng)
        sport, dport = spec["ports"]
        if name in ("nat-src", "nat-both"):
            ip["src"] = address(rng, ip["version"])
            sport = sport ^ 5
        if name in ("nat-dst", "nat-both"):
            ip["dst"] = address(rng, ip["version"])
            dport = dport ^ 5
        new["ports"] = (sport, dport)
        ip["ttl"] -= rng.choice([0, 1])
        inner = NAT if fit_for_nat(spec) and name != "nat-both" else NEVER
        outer = NEVER if inside or mpls else inner
        if not inside and linked and rng.random() < 0.5:
            new["macs"] = (mac(rng), mac(rng))
            new["tags"] = make_tags(rng)
    elif name == "outer-route":
        new["ips"][0]["ttl"] -= 1
        outer, inner = (NEVER if mpls else ROUTING), VLAN
    elif name == "tunnel-sequence":
        new["tunnels"][0]["sequence"] ^= 1
        new["tunnels"][0]["vni"] ^= 16
        outer, inner = NEVER, VLAN
        if build(new) == build(spec):
            return mutate(spec, rng)
    elif name in ("inner-link", "inner-trailer"):
        t = new["tunnels"][-1]
        if t["kind"] not in ETHERNET_TUNNELS:
            return mutate(spec, rng)
        outer = NEVER
        if name == "inner-link":
            t["macs"] = (mac(rng), mac(rng))
            inner = ROUTING if carries else NEVER
        else:
            t["trailer"] = spec["tunnels"][-1]["trailer"] + b"\x11\x22"
            inner = VLAN
    return new, name, outer, inner
