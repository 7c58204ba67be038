# SPDX-License-Identifier: Apache-2.0
"""Batches and captures in UTC: each frame has the offset of its own time, and what is not known is said."""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp.card.capture import CardCapture
from twinstamp.card.sim import frames
from twinstamp.io.files import create_capture, open_capture
from twinstamp.leap import UtcOffset

FRAME = bytes(60)
NS = 10**9
LEAP_TAI_S = 1_830_297_600 + 38  # 2028-01-01T00:00:00 UTC, were a leap second inserted before it


def across(simulated, card, offset: UtcOffset, at_tai_s: int):
    """Frames from 5 us before a second of TAI until 5 us behind it, in as few blocks as there can be."""
    card.set_utc_offset(offset)
    card.load_time_q32((at_tai_s << 32) - 5 * (2**32 // 10**6))
    simulated.send(0, frames([FRAME] * 14))
    simulated.run_wires(20_000)
    card.flush()
    found = []
    for batch in card.receive(timeout_s=2e-3):
        tai_q32 = [int(q) - card.constants_q32[0] for q in batch.stamp_q32]
        found.append((batch.clock, [(q * NS + 2**31) >> 32 for q in tai_q32], batch.timestamp_ns.tolist()))
    return found


@pytest.mark.parametrize("change", [1, -1])
def test_a_block_over_a_leap_second(make_card, change):
    """IERS: up to the first second behind it the old offset counts. One block holds frames of both sides."""
    simulated, card = make_card(utc=True)
    card.start(ports=[0])
    leap_tai_s = LEAP_TAI_S - 1 + change
    offset = UtcOffset(37, True, change, leap_tai_s)
    ((clock, tai, utc),) = across(simulated, card, offset, leap_tai_s)
    before = [ns for ns in tai if ns < leap_tai_s * NS]
    assert 3 < len(before) < 11
    assert utc == [ns - (37 + change * (ns >= leap_tai_s * NS)) * NS for ns in tai]
    assert (clock.utc_offset_s, clock.utc_known, clock.leap_s, clock.leap_tai_s) == (
        37,
        True,
        change,
        leap_tai_s,
    )
    # Before and behind it batches have one offset; what is over is not to come.
    for at, wanted in (
        (leap_tai_s - 3, (37, True, change, leap_tai_s)),
        (leap_tai_s + 3, (37 + change, True, 0, 0)),
    ):
        ((clock, tai, utc),) = across(simulated, card, offset, at)
        assert clock[6:] == wanted and {t - u for t, u in zip(tai, utc, strict=True)} == {wanted[0] * NS}
    status = card.clock()
    assert (status.utc_offset_s, status.leap_s) == (37 + change, 0)


def test_tai_is_as_it_is(make_card):
    simulated, card = make_card(utc=False)
    card.start(ports=[0])
    ((clock, tai, out),) = across(simulated, card, UtcOffset(37, True, 1, LEAP_TAI_S), LEAP_TAI_S)
    assert out == tai and clock.timescale == "tai" and clock.leap_tai_s == LEAP_TAI_S


def test_an_offset_that_is_not_known_leaves_utc_without_a_bound(make_card):
    """Whatever stands in the register: the bound is that of TAI."""
    for utc, known, bound in ((True, False, -1), (True, True, 47), (False, False, 47), (False, True, 47)):
        simulated, card = make_card(utc=utc)
        card.start(ports=[0])
        card.write("clock.bound", 42)
        card.write_fields("clock.control", locked=1, state=2, disciplined=1)
        card.set_utc_offset(UtcOffset(37, known))
        simulated.send(0, frames([FRAME]))
        (clock,) = [batch.clock for batch in card.receive(timeout_s=2e-3) if len(batch)]
        assert (clock.bound_ns, clock.utc_known) == (bound, known)


def test_a_capture_over_a_leap_second(make_card, tmp_path):
    simulated, card = make_card(utc=True)
    card.start(ports=[0])
    path = str(tmp_path / "leap.pcapng")
    with create_capture(path, format="pcapng") as writer:
        capture = CardCapture(writer, card)
        card.set_utc_offset(UtcOffset(37, True, 1, LEAP_TAI_S))
        card.load_time_q32((LEAP_TAI_S << 32) - 5 * (2**32 // 10**6))
        simulated.send(0, frames([FRAME] * 14))
        simulated.run_wires(20_000)
        card.flush()
        for batch in card.receive(timeout_s=2e-3):
            capture.write(batch)
        capture.finish(card)
    with open_capture(path) as reader:
        stamps = np.concatenate([batch.timestamp_ns.copy() for batch in reader])
    midnight = 1_830_297_600 * NS
    # 23:59:60.99999x is written with the number of the next second, which then comes once more.
    first = stamps[stamps > midnight + NS // 2]
    assert len(first) and len(first) < 14 and (stamps[: len(first)] == first).all()
    assert (first < midnight + NS).all() and (stamps[len(first) :] < midnight + NS // 2).all()
    text = open(path, "rb").read()  # noqa: SIM115
    assert f"utc_offset_s=37 utc_known=yes leap_s=1 leap_tai_s={LEAP_TAI_S}".encode() in text


def test_registers_of_the_offset(make_card):
    _, card = make_card()
    assert card.utc_offset() == UtcOffset(37, False, 0, 0)  # after reset: a guess
    for offset in (UtcOffset(38, True), UtcOffset(-5, True, -1, 2**32 - 1), UtcOffset(37, False, 1, 12345)):
        card.set_utc_offset(offset)
        assert card.utc_offset() == offset
