# SPDX-License-Identifier: Apache-2.0
"""What the profiles mean, written down a second time in plain Python: the oracle of the kernels.

Nothing here knows the C++ headers. It follows docs/duplicates.md and the formats' documents, on slices of
bytes that raise nothing and lose their end where a capture is cut.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

TAG_TYPES = {0x8100, 0x88A8, 0x9100}
EXACT, VLAN, ROUTING, NAT = 1, 2, 3, 4


@dataclass(frozen=True)
class View:
    """What is known of a frame at the layer asked for. l3: the layer-3 packet, up to its own end; sound: no
    header up to here is one that every host refuses."""

    link: tuple | None  # (what, bytes before the tags, final type, bytes between it and layer 3)
    kind: str
    l3: bytes
    proto: int = -1
    l4: int | None = None
    fragment: str = "whole"
    sound: bool = True


def ones_sum(b: bytes) -> int:
    """RFC 1071's sum, 0 to 0xFFFF; 0xFFFF where a checksum in b is right."""
    total = sum(int.from_bytes(b[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(b), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def u16(b: bytes, at: int) -> int:
    return int.from_bytes(b[at : at + 2], "big")


def view_ipv4(b: bytes, link) -> View | None:
    if len(b) < 20 or b[0] >> 4 != 4:
        return None
    ihl = 4 * (b[0] & 15)
    total = u16(b, 2) or len(b)
    if ihl < 20 or len(b) < ihl or total < ihl:
        return None
    b = b[:total]
    bits = u16(b, 6)
    sound = b[8] > 0 and ones_sum(b[:ihl]) == 0xFFFF
    if bits & 0x1FFF:
        return View(link, "ipv4", b, b[9], None, "later", sound)
    return View(link, "ipv4", b, b[9], ihl, "first" if bits & 0x2000 else "whole", sound)


def view_ipv6(b: bytes, link) -> View | None:
    view = view_ipv6_chain(b, link)
    return None if view is None else replace(view, sound=b[7] > 0)


def view_ipv6_chain(b: bytes, link) -> View | None:
    if len(b) < 40 or b[0] >> 4 != 6:
        return None
    size = u16(b, 4)
    if size or b[6] == 59:
        b = b[: 40 + size]
    at, proto, fragment = 40, b[6], "whole"
    while proto in (0, 43, 44, 51, 60, 135, 139, 140):
        if len(b) - at < 8:
            return View(link, "ipv6", b, proto, None, fragment)
        size = 8 if proto == 44 else 4 * (b[at + 1] + 2) if proto == 51 else 8 * (b[at + 1] + 1)
        if len(b) - at < size:
            return View(link, "ipv6", b, proto, None, fragment)
        if proto == 44:
            bits = u16(b, at + 2)
            if bits >> 3:
                return View(link, "ipv6", b, b[at], None, "later")
            if bits & 1:
                fragment = "first"
        proto, at = b[at], at + size
    return View(link, "ipv6", b, proto, None if proto == 59 else at, fragment)


def view_ip(b: bytes, link) -> View | None:
    return view_ipv4(b, link) or view_ipv6(b, link)


def view_type(b: bytes, kind: int, before, layer: str) -> View | None:
    """b: what follows type `kind`; before: (name, link bytes), None where there is no link layer."""
    tags, many = 0, False
    while True:
        if kind in TAG_TYPES:
            if len(b) < 4:
                return None
            kind, b, tags = u16(b, 2), b[4:], tags + 1
        elif kind == 0x8926 and layer == "inner":  # VN-Tag
            if len(b) < 6:
                return None
            kind, b, tags = u16(b, 4), b[6:], tags + 1
        elif kind in (0x88E7, 0x8903) and layer == "inner":  # MAC in MAC: PBB, FabricPath
            b = b[4 if kind == 0x88E7 else 2 :]
            if len(b) < 14:
                return None
            many, tags = many or tags > 3, 0
            kind, before, b = u16(b, 12), ("ethernet", b[:12]), b[14:]
        else:
            break
    view = view_untagged(b, kind, before, layer)
    return replace(view, sound=False) if view is not None and (tags > 3 or many) else view


def pppoe_fits(b: bytes, view: View) -> bool:
    """RFC 2516: version 1, type 1, code 0 for data; room for the packet, and no more than the frame has."""
    size = u16(b, 2 + 2) - 2
    claimed = u16(b, 10) if view.kind == "ipv4" else 40 + u16(b, 12) if u16(b, 12) or b[14] == 59 else 0
    return b[:2] == b"\x11\0" and size >= claimed and (size <= len(b) - 8 or claimed > len(b) - 8)


def view_untagged(b: bytes, kind: int, before, layer: str) -> View | None:
    link = None if before is None else (*before, kind, b"")
    if kind < 0x600:
        if kind < 3 or len(b) < 3:
            return None
        return View(link, "llc", b[:kind])
    if kind == 0x0800:
        return view_ipv4(b, link)
    if kind == 0x86DD:
        return view_ipv6(b, link)
    if kind == 0x0806:
        if len(b) < 8 or len(b) < 8 + 2 * (b[4] + b[5]):
            return None
        return View(link, "arp", b[: 8 + 2 * (b[4] + b[5])])
    if kind == 0x8864:
        if len(b) < 8:
            return None
        inside = {0x21: view_ipv4, 0x57: view_ipv6}.get(u16(b, 6))
        view = inside(b[8:], (*before, kind, b[:8])) if inside else None
        return replace(view, sound=view.sound and pppoe_fits(b, view)) if view else None
    if kind in (0x8847, 0x8848) and layer == "inner":
        while True:
            if len(b) < 4:
                return None
            label, b = b[:4], b[4:]
            if label[2] & 1:
                return view_ip(b, None) if carries_ip(b) else None
    return None


def carries_ip(b: bytes) -> bool:
    """MPLS does not say what it carries: IPv4 where its header's sum is right, IPv6 where it is whole."""
    if len(b) >= 20 and b[0] >> 4 == 4:
        size = (b[0] & 15) * 4
        return 20 <= size <= len(b) and sum(u16(b, i) for i in range(0, size, 2)) % 0xFFFF == 0
    if len(b) < 40 or b[0] >> 4 != 6:
        return False
    more = len(b) - u16(b, 4) - 40  # nothing, an FCS, or the padding of a shortest frame
    return more in (0, 4) or (len(b) <= 46 and more > 0)


def view_ethernet(b: bytes, layer: str) -> View | None:
    return view_type(b[14:], u16(b, 12), ("ethernet", b[:12]), layer) if len(b) >= 14 else None


def view_cooked(b: bytes, what: str, before: bytes, hardware: int, kind: int, layer: str) -> View | None:
    if hardware in (770, 803, 824):
        return None
    if kind == 4:
        return View((what, before, 4, b""), "llc", b) if len(b) >= 3 else None
    return view_type(b, kind, (what, before), layer) if kind >= 0x600 else None


def view_family(b: bytes, family: int) -> View | None:
    if not b:
        return None
    return view_ipv4(b, None) if family == 2 else view_ipv6(b, None) if family in (10, 24, 28, 30) else None


def view_nflog(b: bytes) -> View | None:
    if len(b) < 4 or b[1]:
        return None
    family, b = b[0], b[4:]
    while len(b) >= 4:
        little = b[3] == 0
        size, kind = (int.from_bytes(b[i : i + 2], "little" if little else "big") for i in (0, 2))
        if size < 4 or (size > len(b) and kind & 0xFF != 9):
            return None
        if kind & 0xFF == 9:
            return view_family(b[4:size], family)
        b = b[(size + 3) & ~3 :]
    return None


def view_link(b: bytes, linktype: int, layer: str) -> View | None:
    if linktype == 1:
        return view_ethernet(b, layer)
    if linktype == 113 and len(b) >= 16:
        return view_cooked(b[16:], "sll", b[:14], u16(b, 2), u16(b, 14), layer)
    if linktype == 276 and len(b) >= 20:
        return view_cooked(b[20:], "sll2", b[2:20], u16(b, 8), u16(b, 0), layer)
    if linktype in (0, 108):
        return (
            view_family(b[4:], min(int.from_bytes(b[:4], e) for e in ("big", "little")))
            if len(b) >= 4
            else None
        )
    if linktype == 239:
        return view_nflog(b)
    if linktype == 104 or (linktype == 50 and b[:1] in (b"\x0f", b"\x8f")):
        return view_type(b[4:], u16(b, 2), None, layer) if len(b) >= 4 and u16(b, 2) >= 0x600 else None
    if linktype in (101, 12, 14, 228, 229):
        return view_ip(b, None)
    if linktype in (9, 50):
        b = b.removeprefix(b"\xff\x03")
        kind, b = (u16(b, 0), b[2:]) if len(b) >= 2 else (0, b"")
        if kind == 0x21:
            return view_ipv4(b, None)
        if kind == 0x57:
            return view_ipv6(b, None)
        if kind in (0x281, 0x283):
            return view_type(b, 0x8847, None, layer)
    return None


def gtp_packet(b: bytes) -> bytes:
    """The packet in a GTP-U message, empty where there is none."""
    if b[0] & 0xF0 != 0x30 or b[1] != 0xFF:
        return b""
    size = 8
    if b[0] & 7:
        size = 12
        if len(b) < size:
            return b""
        following = b[11] if b[0] & 4 else 0
        while following:
            if len(b) <= size or b[size] == 0 or len(b) < size + 4 * b[size]:
                return b""
            size += 4 * b[size]
            following = b[size - 1]
    left, b = 8 + u16(b, 2) - size, b[size:]
    if len(b) >= 20 and b[0] >> 4 == 4:
        head = 4 * (b[0] & 15)
        return b if u16(b, 2) == left and 20 <= head <= len(b) and ones_sum(b[:head]) == 0xFFFF else b""
    return b if len(b) >= 40 and b[0] >> 4 == 6 and 40 + u16(b, 4) == left else b""


def tzsp_frame(b: bytes) -> int:
    """Where the Ethernet frame in a TZSP message begins, 0: there is none."""
    if b[0] != 1 or b[1] > 1 or u16(b, 2) != 1:
        return 0
    at = 4
    while at < len(b):
        tag, at = b[at], at + 1
        if tag == 1:
            return at
        if tag:
            if at >= len(b):
                return 0
            at += 1 + b[at]
    return 0


def step_into(view: View) -> tuple[bool, View | None]:
    """(whether the view's packet is a tunnel, what is inside)."""
    if view.l4 is None or view.fragment != "whole":
        return False, None
    b = view.l3[view.l4 :]
    if view.proto in (4, 41):
        return True, view_ip(b, None)
    if view.proto == 47:
        if len(b) < 4 or b[0] & 0x40 or b[1] & 7:
            return False, None
        size = 4 + 4 * sum(bool(b[0] & bit) for bit in (0x80, 0x20, 0x10))
        if len(b) < size:
            return False, None
        kind, inside = u16(b, 2), b[size:]
        if kind == 0x6558:
            return True, view_ethernet(inside, "inner")
        if kind == 0x88BE:
            return True, view_ethernet(inside[8 if b[0] & 0x10 else 0 :], "inner")
        if kind == 0x22EB and len(inside) >= 12 and not inside[10] & 0x7C:
            return True, view_ethernet(inside[20 if inside[11] & 1 else 12 :], "inner")
        if kind in (0x0800, 0x86DD, 0x8847, 0x8848):
            return True, view_type(inside, kind, None, "inner")
        return False, None
    if view.proto == 17 and len(b) >= 16:
        port, inside = u16(b, 2), b[8:]
        if port == 2152:
            packet = gtp_packet(inside)
            return (True, view_ip(packet, None)) if packet else (False, None)
        if port == 37008:
            at = tzsp_frame(inside)
            return (True, view_ethernet(inside[at:], "inner")) if at else (False, None)
        if port in (4789, 8472) and inside[0] & 8:
            return True, view_ethernet(inside[8:], "inner")
        if port == 6081 and inside[0] >> 6 == 0 and len(inside) >= 8 + 4 * (inside[0] & 63):
            kind, inside = u16(inside, 2), inside[8 + 4 * (inside[0] & 63) :]
            if kind == 0x6558:
                return True, view_ethernet(inside, "inner")
            if kind in (0x0800, 0x86DD):
                return True, view_type(inside, kind, None, "inner")
    return False, None


def view_of(frame: bytes, linktype: int, layer: str) -> View | None:
    """None: not understood, or behind a header that no host takes."""
    view = view_link(frame, linktype, layer)
    while view is not None and view.sound and layer == "inner":
        tunnel, inside = step_into(view)
        if not tunnel:
            break
        view = inside
    return view if view is not None and view.sound else None


def crc32c(b: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in b:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def transport_sums_up(view: View) -> bool:
    """Whether layer 4's checksum is right, as far as the captured packet tells."""
    if view.fragment != "whole":
        return False
    b, l3 = view.l3[view.l4 :], view.l3
    v4 = view.kind == "ipv4"
    claimed = u16(l3, 2) if v4 else 40 + u16(l3, 4) if u16(l3, 4) or l3[6] == 59 else 0
    if claimed == 0 or claimed > len(l3):
        return True
    size = covered = len(b)
    if view.proto == 17:
        size = covered = u16(b, 4)
        if not 8 <= size <= len(b):
            return False
        if not u16(b, 6):
            return v4
    elif view.proto == 136:
        covered = u16(b, 4) or len(b)
        if not 8 <= covered <= len(b):
            return False
    elif view.proto == 33:
        covered = 4 * (b[4] + (b[5] & 15) - 1) if b[5] & 15 else len(b)
        if not 12 <= covered <= len(b):
            return False
    elif view.proto == 132:
        return crc32c(b[:8] + bytes(4) + b[12:]).to_bytes(4, "little") == b[8:12]
    elif view.proto == 1:
        return ones_sum(b) == 0xFFFF
    elif view.proto not in (6, 58):
        return True
    pseudo = (l3[12:20] if v4 else l3[8:40]) + size.to_bytes(4, "big") + bytes([0, view.proto])
    return ones_sum(pseudo + b[:covered]) == 0xFFFF


def routed(view: View) -> bytes:
    b = bytearray(view.l3)
    if view.kind == "ipv4":
        b[1] = b[8] = b[10] = b[11] = 0
    else:
        b[0], b[1], b[7] = b[0] & 0xF0, b[1] & 0x0F, 0
    return bytes(b)


def nat_plan(view: View):
    """(source port, destination port, checksum slice) in layer 4, or None: not fit for nat."""
    if view.l4 is None or view.l4 > 512:
        return None
    b = view.l3[view.l4 :]
    v4 = view.kind == "ipv4"
    if view.proto == 6:
        return (0, 2, (16, 18)) if len(b) >= 20 and transport_sums_up(view) else None
    size, plan = {
        17: (8, (0, 2, (6, 8))),
        136: (8, (0, 2, (6, 8))),
        33: (12, (0, 2, (6, 8))),
        132: (12, (0, 2, (8, 12))),
        1: (8, None),
        58: (8, None),
    }.get(view.proto, (0, (None, None, (0, 0))))
    if len(b) < size:
        return None
    if plan is None:
        if view.proto != (1 if v4 else 58):
            return None
        asks, answers = ({8, 13, 15, 17}, {0, 14, 16, 18}) if v4 else ({128}, {129})
        if b[0] not in asks | answers:
            return None
        plan = (4 if b[0] in asks else None, 4 if b[0] in answers else None, (2, 4))
    if not (v4 and u16(view.l3, 4)) and len(b) - size < 16:
        return None
    return plan if transport_sums_up(view) else None


def keys_of(frame: bytes, linktype: int, profile: int, layer: str) -> frozenset:
    """What a frame is looked up under: frames are copies where these sets meet."""
    whole = ("whole", len(frame), frame)
    if profile == EXACT:
        return frozenset([whole])
    view = view_of(frame, linktype, layer)
    if view is None:
        return frozenset([whole])
    if profile == VLAN or view.kind in ("arp", "llc"):
        return frozenset([("vlan", view.link, view.kind, view.l3)])
    if profile == NAT and (plan := nat_plan(view)) is not None:
        both = []
        for side in (0, 1):
            b = bytearray(routed(view))
            at, size = ((12, 16)[side], 4) if view.kind == "ipv4" else ((8, 24)[side], 16)
            b[at : at + size] = bytes(size)
            low, high = plan[2]
            b[view.l4 + low : view.l4 + high] = bytes(high - low)
            if plan[side] is not None:
                b[view.l4 + plan[side] : view.l4 + plan[side] + 2] = b"\0\0"
            both.append((f"nat {side}", view.kind, bytes(b)))
        return frozenset(both)
    return frozenset([("routing", view.kind, routed(view))])


def narrowest(a: bytes, b: bytes, linktype: int, layer: str) -> int:
    """The narrowest profile under which two frames are copies, 5: none."""
    for profile in (EXACT, VLAN, ROUTING, NAT):
        if keys_of(a, linktype, profile, layer) & keys_of(b, linktype, profile, layer):
            return profile
    return 5


def class_of(frame: bytes, linktype: int) -> str:
    kind = None
    at, size = {1: (12, 14), 113: (14, 16), 276: (0, 20)}.get(linktype, (0, 1 << 32))
    if len(frame) >= size:
        kind, rest = u16(frame, at), frame[size:]
        while kind in TAG_TYPES and len(rest) >= 4:
            kind, rest = u16(rest, 2), rest[4:]
    names = {
        0x0806: "arp", 0x88CC: "lldp", 0x8809: "slow", 0x888E: "eapol", 0x8808: "pause", 0x8902: "cfm",
        0x9000: "loop",
    }  # fmt: skip
    if kind in names:
        return names[kind]
    view = view_link(frame, linktype, "outer")
    if view is None:
        return "other"
    if view.kind == "llc":
        return "llc"
    if view.proto == 112:
        return "vrrp"
    if view.kind == "ipv4" and view.proto == 2:
        return "igmp"
    if view.kind == "ipv6" and view.proto == 58 and view.l4 is not None and view.l4 < len(view.l3):
        kind = view.l3[view.l4]
        if 133 <= kind <= 137:
            return "nd"
        if kind in (130, 131, 132, 143):
            return "mld"
    return "other"
