# SPDX-License-Identifier: Apache-2.0
"""A carrier that comes and goes faster than frames can: each frame keeps its stamp, all is counted.

An RX_DV that chatters (a bad cable, a wrong RGMII delay) may give a carrier event every other byte time.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from twinstamp.card.sim import PORTS, WIRE_MARKS, WIRE_NO_SFD, Frames, SimulatedCard
from twinstamp.errors import DeviceError

from tests.card.sending import assert_within, collect, item, send_one
from tests.card.test_receive import stamp_errors_ns
from tests.card.test_wire_fuzz import LONGEST, check
from tests.card.wire_model import listen

OFFSETS_PPB = (100_000, -100_000, 0, 41_000)
NO_CARRIER = 2  # a mark


def send_raw(simulated: SimulatedCard, port: int, values: bytes, marks: bytes) -> None:
    one = item(len(values), flags=WIRE_NO_SFD | WIRE_MARKS, preamble=0, gap=1)
    simulated.send(port, Frames(one, np.frombuffer(values + marks, dtype=np.uint8)))


def chatter(rng: random.Random, cycles: int) -> tuple[bytes, bytes]:
    """Carriers of 1 to 3 bytes, as many apart, of any bytes; some are SFDs with a few bytes behind."""
    values, marks = bytearray(), bytearray()
    style = rng.randrange(3)
    while len(values) < cycles:
        on, off = (1, 1) if style == 0 else (rng.randint(1, 3), rng.randint(1, 3))
        part = bytes(rng.choice((0x55, 0xD5, rng.randrange(256))) for _ in range(on))
        if style == 2 and rng.random() < 0.2:
            part = b"\xd5" + rng.randbytes(rng.randrange(8))
        values += part + bytes(off)
        marks += bytes(len(part)) + bytes([NO_CARRIER]) * off
    return bytes(values), bytes(marks)


def good_frame(rng: random.Random, number: int) -> bytes:
    return (
        b"\x02"
        + rng.randbytes(11)
        + b"\x88\xb5"
        + number.to_bytes(4, "big")
        + rng.randbytes(rng.choice((42, 43, 200)))
    )


def check_stamps(simulated: SimulatedCard, port: int, got, sent: list[bytes], constant: int) -> None:
    """Each frame's stamp against the time of its own SFD on the pins. sent: frames, noise is none of them."""
    truth = simulated.truth(port)
    stamps = dict(zip(got.frames, got.stamp_q32, strict=True))
    assert len(sent) == len(truth)
    here = [i for i, frame in enumerate(sent) if frame]
    errors = stamp_errors_ns([stamps[sent[i]] for i in here], truth[here]) - constant * 1e9 / 2**32
    assert_within(errors)


@pytest.mark.parametrize("cycles", [10, 100, 1000, 10_000])
@pytest.mark.parametrize("seed", [1, 2])
def test_chatter_between_frames(make_card, seed, cycles):
    rng = random.Random(1000 * seed + cycles)
    simulated, card = make_card(seed=seed, block_log2=17)
    sent: list[list[bytes]] = [[] for _ in range(PORTS)]
    for port, ppb in enumerate(OFFSETS_PPB):
        simulated.set_clock(f"rx{port}", ppb=ppb)
        simulated.record_pins(port)
    card.start(keep_bad=True, keep_runt=True, keep_giant=True, longest=LONGEST)
    number = 0
    for port in range(PORTS):
        for _ in range(max(2, 3000 // cycles)):
            send_raw(simulated, port, *chatter(rng, rng.randint(cycles // 2, cycles)))
            sent[port].append(b"")
            for _ in range(rng.randint(1, 30)):
                number += 1
                frame = good_frame(rng, number)
                send_one(simulated, port, frame, gap=rng.choice((12, 12, 40)))
                sent[port].append(frame)
    got = collect(card)
    counters = card.counters()
    for port in range(PORTS):
        check(card, port, listen(simulated.pins(port), LONGEST), counters[port], got[port], True)
        check_stamps(simulated, port, got[port], sent[port], card.read(f"port[{port}].rx_constant"))


@pytest.mark.parametrize("seed", range(4))
def test_frames_behind_a_storm_have_their_own_stamps(make_card, seed):
    """200 carriers of a byte, fragments amid noise: it was here that stamps slipped by a frame, for good."""
    rng = random.Random(seed)
    simulated, card = make_card(seed=seed, block_log2=17)
    simulated.record_pins(0)
    card.start(keep_bad=True, keep_runt=True, keep_giant=True, longest=LONGEST)
    sent: list[bytes] = [b""]
    send_raw(simulated, 0, b"\x11\x00" * 200, bytes([0, NO_CARRIER]) * 200)
    for _ in range(30):
        toggles = rng.randint(25, 40)
        part = b"\xd5" + rng.randbytes(rng.randrange(8))
        idle = rng.randint(1, 3)
        values = part + bytes(idle) + b"\x11\x00" * toggles
        send_raw(
            simulated,
            0,
            values,
            bytes(len(part)) + bytes([NO_CARRIER]) * idle + bytes([0, NO_CARRIER]) * toggles,
        )
        sent.append(b"")
    for number in range(400):
        sent.append(good_frame(rng, number))
        send_one(simulated, 0, sent[-1])
    got = collect(card)
    check(card, 0, listen(simulated.pins(0), LONGEST), card.counters()[0], got[0], True)
    check_stamps(simulated, 0, got[0], sent, card.read("port[0].rx_constant"))


def set_period(simulated: SimulatedCard, clock: str, factor: float) -> None:
    """A receive clock far from what a link gives, which the harness's own call refuses."""
    period_fs = round(8_000_000 / factor)
    simulated._library.ts_set_clock(simulated._handle(), simulated._clock(clock), period_fs, 0, -1)


def test_a_clock_too_fast_is_an_error_and_the_port_comes_back(make_card):
    """At three times its rate the way into the core clock overflows: an error, silence, a fresh start."""
    rng = random.Random(5)
    simulated, card = make_card(seed=5, block_log2=16)
    card.start(keep_bad=True, keep_runt=True)
    for number in range(3000):
        for port in (0, 1):
            send_one(simulated, port, good_frame(rng, number)[:60])
    set_period(simulated, "rx0", 3.0)
    with pytest.raises(DeviceError, match=r"port 0: frames were lost on the way in.*stop\(\)"):
        for batch in card.receive(1e-4):
            assert len(batch)
    assert card.fields("port[0].rx_status")["overflow"] == 1
    with pytest.raises(DeviceError, match="port 0"):
        card.poll()
    while simulated.pending(0) or simulated.pending(1):
        simulated.run(10_000)
    card.stop()
    left = collect(card)
    assert len(left[1].frames) > 1000
    # What came before the fault is right, and nothing that came after it was handed out.
    for received in left:
        assert (np.diff(np.array(received.stamp_q32, dtype=np.int64)) > 0).all()
    simulated.set_clock("rx0")
    simulated.truth(0)
    card.start(keep_bad=True, keep_runt=True)
    simulated.run(3000)
    sent = [good_frame(rng, number) for number in range(200)]
    for frame in sent:
        send_one(simulated, 0, frame)
    got = collect(card)
    assert got[0].frames == sent
    assert card.read("ring.status") == 0
    check_stamps(simulated, 0, got[0], sent, card.read("port[0].rx_constant"))


@pytest.mark.parametrize(
    "factors", [(0.5, 0.9, 1.0, 1.1, 1.2), (0.01, 1.0), ()], ids=["jumps", "crawls", "stands"]
)
@pytest.mark.parametrize("seed", range(3))
def test_a_clock_that_jumps_costs_no_pairing(make_card, seed, factors):
    """Rates within what FIFOs bear, changed at any edge; then chatter, and a clock as it should be."""
    rng = random.Random(seed)
    simulated, card = make_card(seed=seed, block_log2=16)
    card.start(keep_bad=True, keep_runt=True)
    constant = card.read("port[0].rx_constant")
    sent = []
    for number in range(300):
        sent.append(good_frame(rng, number))
        send_one(simulated, 0, sent[-1], gap=rng.choice((12, 100)))
    while simulated.pending(0):
        simulated.run(rng.randrange(1, 900))
        if factors:
            set_period(simulated, "rx0", rng.choice(factors))
        else:  # for 0.1 to 5 us, whatever it was doing
            simulated.set_clock("rx0", phase_fs=rng.randrange(100_000_000, 5_000_000_000))
    simulated.set_clock("rx0")
    got = collect(card)[0]
    assert got.frames == sent
    truth = simulated.truth(0)
    errors = stamp_errors_ns(got.stamp_q32, truth) - constant * 1e9 / 2**32
    assert len(truth) == len(sent)
    # Two of its own periods lie before the toggle; the next frame is at least 672 ns of its clock away.
    if factors:
        assert errors.min() > -4.2 - 16 and errors.max() < 4.2 + 2 * 8 / min(factors)
    assert (np.diff(np.array(got.stamp_q32, dtype=np.int64)) > 0).all()
    assert card.fields("port[0].rx_status")["overflow"] == 0
    simulated.run(1000)
    sent = [b""]
    send_raw(simulated, 0, *chatter(rng, 500))
    for number in range(100):
        sent.append(good_frame(rng, number))
        send_one(simulated, 0, sent[-1])
    got = collect(card)[0]
    got.frames, got.stamp_q32 = (list(x) for x in zip(*[
        (frame, stamp) for frame, stamp in zip(got.frames, got.stamp_q32, strict=True) if frame in sent
    ], strict=True))  # fmt: skip
    check_stamps(simulated, 0, got, sent, constant)
