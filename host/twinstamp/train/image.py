# SPDX-License-Identifier: Apache-2.0
"""What a train is in the card's train memory: template, descriptor, lists (hdl/rtl/tx/train_schedule.sv)."""

from __future__ import annotations

import ipaddress
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from twinstamp.errors import ConfigError
from twinstamp.train.fixed import to_q64, words
from twinstamp.train.laws import Chirp, Choice, Constant, Fixed, GapList, Poisson, SizeList, Uniform

if TYPE_CHECKING:
    from twinstamp.train.train import Train

SLOTS = 4  # trains of a port
TEMPLATE_WORDS = 32
DESCRIPTORS_AT = 128  # word of the memory
DESCRIPTOR_WORDS = 32
LISTS_AT = 256
MEMORY_WORDS = 2048
_GAP_LAWS = (Constant, GapList, Poisson, Chirp)
_SIZE_LAWS = (Fixed, SizeList, Uniform, Choice)


class Template(NamedTuple):
    """headers: bytes from the destination MAC to the session identifier, what changes left 0. ip_at: offset
    of the IP header. ip_sum, udp_sum: ones' complement sums of the constant 16-bit words of the IPv4 header,
    and of UDP with its pseudo header.
    """

    headers: bytes
    ip_at: int
    ip_sum: int
    udp_sum: int


def _folded(data: bytes) -> int:
    """Ones' complement sum of 16-bit words (RFC 1071)."""
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def template(train: Train) -> Template:
    """The headers of the train's packets; lengths, checksums, source port, sequence, stamp are the card's."""

    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, "big")

    out = bytes.fromhex((train.destination_mac + train.source_mac).replace(":", ""))
    for vlan in train.vlans:
        out += number(vlan.tpid, 2) + number(vlan.priority << 13 | vlan.id, 2)
    out += number(0x0800 if train.ip_version == 4 else 0x86DD, 2)
    addresses = b"".join(ipaddress.ip_address(a).packed for a in (train.source, train.destination))
    traffic_class = train.dscp << 2 | train.ecn
    if train.ip_version == 4:
        # RFC 791; don't fragment, identification 0 (RFC 6864)
        ip = number(0x45, 1) + number(traffic_class, 1) + bytes(4) + number(0x4000, 2)
        ip += number(train.ttl, 1) + number(17, 1) + bytes(2) + addresses
    else:
        # RFC 8200
        ip = number(6 << 28 | traffic_class << 20 | train.flow_label, 4) + bytes(2) + number(17, 1)
        ip += number(train.ttl, 1) + addresses
    port, session = number(train.destination_port, 2), number(train.session, 2)
    payload = bytes(14) + session
    return Template(
        out + ip + bytes(2) + port + bytes(4) + payload,
        len(out),
        _folded(ip) if train.ip_version == 4 else 0,
        _folded(addresses + number(17, 2) + port + session),
    )


def lists(train: Train) -> list[int]:
    """Words of the train's lists: gaps (three words each, lowest first), then sizes."""
    out: list[int] = []
    if isinstance(train.gap, GapList):
        for gap in train.gap.gaps:
            out += words(to_q64(Fraction(gap)))
    if isinstance(train.size, SizeList | Choice):
        out += train.size.sizes
    return out


def memory_words(train: Train) -> list[int]:
    """The template as memory words, first byte in the lowest."""
    headers = template(train).headers.ljust(4 * TEMPLATE_WORDS, b"\0")
    return [int.from_bytes(headers[i : i + 4], "little") for i in range(0, len(headers), 4)]


def descriptor(train: Train, *, start_q64: int, lists_at: int, report: bool) -> list[int]:
    """The train's 32 descriptor words.

    start_q64: 2^-64 s of card time. lists_at: memory word at which ``lists(train)`` stand. report: every
    departure, not only late ones. ConfigError where the lists do not fit.
    """
    if lists_at + len(lists(train)) > MEMORY_WORDS:
        raise ConfigError(
            f"{train.name}: its lists need {len(lists(train))} words, {MEMORY_WORDS - lists_at} are left for "
            "this port's trains (a gap takes three, a size one)"
        )
    gap, size = train.gap, train.size
    first, scale, ratio, gap_list = 0, 0, 0, 0
    if isinstance(gap, Constant):
        first = to_q64(Fraction(gap.gap))
    elif isinstance(gap, Chirp):
        first, ratio = to_q64(Fraction(gap.first)), gap.ratio_q31
    elif isinstance(gap, Poisson):
        first, scale = to_q64(Fraction(gap.minimum)), gap.scale_q64
    else:
        gap_list = 3 * (len(gap.gaps) - 1) << 16 | lists_at
    sizes_at = lists_at + (3 * len(gap.gaps) if isinstance(gap, GapList) else 0)
    if isinstance(size, Fixed):
        sizes = size.bytes
    elif isinstance(size, Uniform):
        sizes = (size.most - size.least + 1) << 16 | size.least
    else:
        sizes = len(size.sizes) << 16 | sizes_at
    made = template(train)
    law = _GAP_LAWS.index(type(gap)) | _SIZE_LAWS.index(type(size)) << 2
    law |= (train.ip_version == 6) << 4 | (train.timestamp == "ptp") << 5 | report << 6 | made.ip_at << 7
    out = [
        *words(start_q64),
        train.repeats - 1,
        train.bursts - 1,
        train.packets - 1,
        *words(first),
        gap_list,
        (train.source_port + train.source_ports - 1) << 16 | train.source_port,
        law,
        made.udp_sum << 16 | made.ip_sum,
        *words(to_q64(Fraction(train.period or 0))),
        *words(to_q64(Fraction(train.burst_gap))),
        *words(scale),
        ratio,
        sizes,
        train.seed & 0xFFFFFFFF,
        train.seed >> 32,
    ]
    return out + [0] * (DESCRIPTOR_WORDS - len(out))
