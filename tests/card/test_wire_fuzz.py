# SPDX-License-Identifier: Apache-2.0
"""Whatever comes on the pins: counters and records are exactly what an independent model makes of it.

The model (wire_model.py) sees a recording of the pins, so what a link flap cut off is known to the byte.
"""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from twinstamp.card import Card
from twinstamp.card.sim import PORTS, WIRE_ADD_FCS, WIRE_MARKS, WIRE_NO_SFD, Frames, SimulatedCard

from tests.card.sending import collect, fcs, item, send_one
from tests.card.wire_model import BAD_FCS, DV, ER, GIANT, RUNT, RX_ER, Heard, listen

OFFSETS_PPB = (100_000, -100_000, 0, 41_000)
LONGEST = 1518
HEADS = (
    b"\xff" * 6 + bytes(6),
    b"\x01\x00\x5e" + bytes(9),
    b"\x02" + bytes(11),
    b"\x02" + bytes(11) + b"\x81\x00\x00\x07",
    b"\x02" + bytes(11) + b"\x88\xa8\x00\x07\x81\x00\x00\x08",
    b"\x02" + bytes(11) + b"\x81\x00" * 3 + b"\x81\x00",
    bytes.fromhex("0180c2000001") + bytes(6) + b"\x88\x08\x00\x01",
    bytes.fromhex("0180c2000001") + bytes(6) + b"\x88\x08\x00\x02",
)
SIZES = (0, 1, 3, 4, 5, 13, 16, 40, 59, 60, 61, 124, 252, 508, 1020, 1514, 1515, 1518, 1519, 1522, 1523, 1600)


def body(rng: random.Random, size: int) -> bytes:
    return (rng.choice(HEADS) + rng.randbytes(size))[:size]


def noise(rng: random.Random) -> tuple[bytes, bytes]:
    """Bytes and marks: carriers that come and go, RX_ER, preambles and SFDs at any place, whole frames."""
    values, marks = bytearray(), bytearray()
    for _ in range(rng.randrange(1, 12)):
        kind = rng.randrange(5)
        n = rng.choice((1, 1, 2, 3, 7, 12, 13, 14, 70))
        if kind == 0:
            part, mark = rng.randbytes(n), [rng.choice((2, 3))] * n  # no carrier; RX_ER in it: false carrier
        elif kind == 1:
            part, mark = bytes(rng.choice((0x55, 0xD5, 0x55, rng.randrange(256))) for _ in range(n)), [0] * n
        elif kind == 2:
            part = bytes(rng.choice((0x55, 0xD5)) for _ in range(n))
            mark = [rng.choice((0, 0, 0, 1, 2)) for _ in range(n)]
        elif kind == 3:
            part, mark = b"\x55" * n + b"\xd5", [0] * (n + 1)
        else:
            whole = body(rng, rng.choice((60, 61, 100)))
            part = b"\x55" * rng.randrange(8) + b"\xd5" + whole + fcs(whole)
            mark = [0] * len(part)
            if rng.random() < 0.3:
                mark[rng.randrange(len(mark))] = rng.choice((1, 2, 3))  # cut in two, or damaged
        values += part
        marks += bytes(mark)
    return bytes(values), bytes(marks)


def fuzz(simulated: SimulatedCard, port: int, rng: random.Random, n: int) -> None:
    for _ in range(n):
        kind = rng.randrange(8)
        gap, preamble = rng.choice((1, 1, 2, 12, 12, 40)), rng.choice((0, 1, 6, 7, 7, 7, 15))
        if kind == 0:
            values, marks = noise(rng)
            one = item(len(values), flags=WIRE_NO_SFD | WIRE_MARKS, preamble=rng.choice((0, 0, 3)), gap=gap)
            simulated.send(port, Frames(one, np.frombuffer(values + marks, dtype=np.uint8)))
            continue
        content = body(rng, rng.choice(SIZES))
        values: dict[str, int] = {}
        if kind == 1:
            values["damage"] = rng.randrange(1, 256)
        elif kind == 2:
            values["error_at"] = rng.randrange(len(content) + 4)
        elif kind == 3:  # cut in the middle, no FCS
            whole = content + fcs(content)
            content, values["flags"] = whole[: rng.randrange(len(whole))], 0
        elif kind == 4:  # the preamble damaged
            wrong = rng.choice((0x54, 0xD4, 0x5D, 0x00, 0xFF))
            content = bytes([0x55] * rng.randrange(3) + [wrong]) + b"\x55\xd5" + content
            values["flags"] = WIRE_NO_SFD | WIRE_ADD_FCS
        elif kind == 5 and content:
            values["flags"] = WIRE_NO_SFD
            content = b"\x55" * len(content[:20])
        send_one(simulated, port, content, gap=gap, preamble=preamble, **values)


def check(card: Card, port: int, heard: Heard, counters: dict[str, int], got, keep: bool) -> None:
    """Counters to the last one, records to the last byte."""
    sent = {name for name in counters if name.startswith("tx_")} | {
        "stored",
        "dropped",
        "discarded",
        "duplicates_dropped",
        "not_wanted",
    }
    expected = {name: heard.counters[name] for name in counters if name not in sent}
    assert {name: counters[name] for name in expected} == expected, f"port {port}"
    wanted = [f for f in heard.frames if keep or not f[1]]
    assert counters["stored"] == len(wanted) and counters["dropped"] == counters["discarded"] == 0
    assert counters["duplicates_dropped"] == 0
    assert counters["not_wanted"] == len(heard.frames) - len(wanted)
    assert got.frames == [content for content, _, _ in wanted]
    assert got.record_flags == [flags for _, flags, _ in wanted]
    assert got.length == [length for _, _, length in wanted]
    assert got.sequence == list(range(len(wanted)))
    assert (np.diff(np.array(got.stamp_q32, dtype=np.int64)) > 0).all()
    assert card.fields(f"port[{port}].rx_status")["overflow"] == 0


def run(make_card, seed: int, n: int, keep: bool) -> Counter[str]:
    simulated, card = make_card(seed=seed, block_log2=17)
    simulated.set_memory_stall(0.1, latency=(1, 40))
    for port, ppb in enumerate(OFFSETS_PPB):
        simulated.set_clock(f"rx{port}", ppb=ppb)
        simulated.record_pins(port)
    card.start(keep_bad=keep, keep_runt=keep, keep_giant=keep, longest=LONGEST)
    rng = random.Random(seed)
    for port in range(PORTS):
        fuzz(simulated, port, rng, n)
    got = collect(card)
    counters = card.counters()
    all_kinds: Counter[str] = Counter()
    for port in range(PORTS):
        heard = listen(simulated.pins(port), LONGEST)
        all_kinds += heard.counters
        check(card, port, heard, counters[port], got[port], keep)
    return all_kinds


@pytest.mark.parametrize(("seed", "keep"), [(1, True), (2, False)])
def test_anything_on_the_wire(make_card, seed, keep):
    kinds = run(make_card, seed, 300, keep)
    every = ("good", "fcs_errors", "undersize", "fragments", "oversize", "jabbers", "no_sfd",
             "preamble_errors", "broadcast", "multicast", "tagged", "pause", "symbol_errors", "size_64",
             "size_127", "size_255", "size_511", "size_1023", "size_1518", "size_larger")  # fmt: skip
    assert min(kinds[name] for name in every) > 0, kinds


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 20))
def test_a_lot_of_anything_on_the_wire(make_card, seed):
    run(make_card, seed, 3000, seed % 2 == 0)


@pytest.mark.parametrize("seed", [3])
def test_links_flap_while_frames_run(make_card, seed):
    """Ports 0 and 3 hear wires, port 1 port 2's frames over a cable; links go at any byte."""
    simulated, card = make_card(seed=seed, block_log2=17)
    for port in range(PORTS):
        simulated.set_phy(port, (20, 90), negotiation_cycles=60)
        simulated.record_pins(port)
    simulated.connect(2, simulated, 1)
    card.start(keep_bad=True, keep_runt=True, keep_giant=True, longest=LONGEST)
    rng = random.Random(seed)
    for port in (0, 3):
        fuzz(simulated, port, rng, 400)
    sent = 0
    flaps = 0
    got = collect(card, 0)
    while simulated.pending(0) or simulated.pending(3):
        for _ in range(rng.randrange(3)):
            card.send(2, body(rng, rng.choice((60, 100, 500))))
            sent += 1
        simulated.run(rng.randrange(1, 700))
        port = rng.choice((0, 1, 2, 3))
        simulated.plug(port, rng.random() < 0.7)
        flaps += 1
        if rng.random() < 0.5:
            for again in range(PORTS):
                simulated.plug(again)
    for again in range(PORTS):
        simulated.plug(again)
    for port, more in enumerate(collect(card)):
        for name in ("frames", "record_flags", "length", "sequence", "stamp_q32"):
            getattr(got[port], name).extend(getattr(more, name))
    counters = card.counters()
    for port in range(PORTS):
        check(card, port, listen(simulated.pins(port), LONGEST), counters[port], got[port], True)
    assert counters[2]["tx_frames"] == sent  # a MAC does not know of the link
    assert flaps > 100 and 0 < counters[1]["good"] < sent and counters[1]["fragments"] > 0


def test_model_by_hand():
    """The model itself, against frames judged by hand."""
    frame = b"\x02" + bytes(59)
    good = frame + fcs(frame)

    def pins(*carriers: bytes, gap: int = 12) -> np.ndarray:
        out: list[int] = []
        for carrier in carriers:
            out += [0] * gap + [DV | value for value in carrier]
        return np.array([*out, 0], dtype=np.uint16)

    start = b"\x55" * 7 + b"\xd5"
    heard = listen(pins(start + good), 1518)
    assert +heard.counters == {"good": 1, "octets_good": 64, "size_64": 1}
    assert heard.frames == [(frame, 0, 60)]
    marked = pins(start + good)
    marked[30] |= ER
    assert listen(marked, 1518).frames == [(frame, RX_ER, 60)]
    assert listen(pins(start + good[:-1]), 1518).frames[0][1] == BAD_FCS | RUNT
    long = bytes(1515)
    assert listen(pins(start + long + fcs(long)), 1518).frames[0][1] == GIANT
    assert +listen(pins(b"\x55" * 9), 1518).counters == {"no_sfd": 1}
    assert +listen(pins(b"\x55\x5d" + good), 1518).counters == {"preamble_errors": 1}
    assert listen(pins(b"\xd5" + bytes(9), b"\xd5", gap=1), 1518).counters["preamble_errors"] == 1
    assert listen(pins(b"\xd5" + bytes(10), b"\xd5", gap=1), 1518).counters["fragments"] == 2
