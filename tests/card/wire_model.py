# SPDX-License-Identifier: Apache-2.0
"""What a receive MAC has to make of its pins, from IEEE 802.3 and RFC 2819; nothing of the card in it."""

from __future__ import annotations

import binascii
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

DV, ER = 0x100, 0x200
BAD_FCS, RX_ER, RUNT, GIANT = 1, 2, 4, 8
SFDS_APART = 12  # byte times: docs/card.md


@dataclass
class Heard:
    """counters: by the card's names, without what became of frames. frames: content, flags, length of each
    that had an SFD, in order; without FCS.
    """

    counters: Counter[str] = field(default_factory=Counter)
    frames: list[tuple[bytes, int, int]] = field(default_factory=list)


def tags(frame: bytes) -> int:
    """VLAN tags, two at most."""
    n = 0
    while n < 2 and frame[12 + 4 * n : 14 + 4 * n] in (b"\x81\x00", b"\x88\xa8"):
        n += 1
    return n


def judge(heard: Heard, frame: bytes, error: bool, longest: int) -> None:
    """One frame, FCS included; each goes into exactly one class of RFC 2819."""
    good_fcs = len(frame) >= 4 and binascii.crc32(frame[:-4]).to_bytes(4, "little") == frame[-4:]
    runt, giant = len(frame) < 64, len(frame) > longest + 4 * tags(frame)
    bad = error or not good_fcs
    if runt:
        kind = "fragments" if bad else "undersize"
    elif giant:
        kind = "jabbers" if bad else "oversize"
    else:
        kind = "fcs_errors" if bad else "good"
    count = heard.counters
    count[kind] += 1
    count["octets_good" if kind == "good" else "octets_bad"] += len(frame)
    if not runt:
        bounds = ((64, "64"), (127, "127"), (255, "255"), (511, "511"), (1023, "1023"), (1518, "1518"))
        count["size_" + next((name for most, name in bounds if len(frame) <= most), "larger")] += 1
        count["symbol_errors"] += error
    if kind == "good":
        if frame[:6] == b"\xff" * 6:
            count["broadcast"] += 1
        elif frame[0] & 1:
            count["multicast"] += 1
        count["tagged"] += tags(frame) > 0
        count["pause"] += frame[:6] == bytes.fromhex("0180c2000001") and frame[12:16] == b"\x88\x08\0\1"
    flags = (not good_fcs) * BAD_FCS | error * RX_ER | runt * RUNT | giant * GIANT
    heard.frames.append((frame[:-4] if len(frame) >= 4 else b"", flags, max(len(frame) - 4, 0)))


def listen(pins: np.ndarray, longest: int) -> Heard:
    """``pins``: u16 a byte time (data, DV, ER), beginning idle. A carrier is what DV encloses."""
    heard = Heard()
    present = np.concatenate(([False], (pins & DV) != 0, [False])).astype(np.int8)
    edges = np.flatnonzero(np.diff(present))
    last_sfd = -SFDS_APART
    for start, end in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        carrier = pins[start:end]
        data, error = carrier.astype(np.uint8).tobytes(), (carrier & ER) != 0
        at = 0
        while at < len(data) and data[at] == 0x55 and not error[at]:
            at += 1
        if at == len(data):
            heard.counters["no_sfd"] += 1
        elif data[at] == 0xD5 and not error[at] and start + at - last_sfd >= SFDS_APART:
            last_sfd = start + at
            judge(heard, data[at + 1 :], bool(error[at + 1 :].any()), longest)
        else:
            heard.counters["preamble_errors"] += 1
    return heard
