# SPDX-License-Identifier: Apache-2.0
"""PPS, serial line and soft core in the whole card; the clock's state in blocks, batches and captures."""

from __future__ import annotations

from fractions import Fraction

from twinstamp.card.capture import clock_comment
from twinstamp.card.sim import frames

FRAME = bytes(60)
STAMP_NS = 5  # what a batch's bound has on top of the clock's: card.stamp_bound_ns


def clocks(simulated, card):
    found = []
    simulated.send(0, frames([FRAME] * 2))
    for batch in card.receive(timeout_s=2e-3):
        found.append((batch.clock, len(batch)))
    return [clock for clock, n in found if n]


def test_state_bound_and_offset_come_with_the_frames(make_card):
    simulated, card = make_card()
    card.start()
    (clock,) = clocks(simulated, card)
    assert clock[2:8] == (False, -1, card.clock().epoch, "", 37, False)

    card.write("clock.bound", 42)
    card.write("clock.utc_offset", 38 | 1 << 16)
    card.write_fields("clock.control", locked=1, state=2, disciplined=1)
    (clock,) = clocks(simulated, card)
    assert clock[2:8] == (True, 42 + STAMP_NS, card.clock().epoch, "locked", 38, True)
    assert clock_comment(clock).endswith("bound_ns=47 epoch=0 state=locked utc_offset_s=38 utc_known=yes")
    status = card.clock()
    assert (status.locked, status.bound_ns, status.state, status.utc_known) == (True, 42, "locked", True)

    card.write_fields("clock.control", locked=0, state=3, disciplined=1)
    card.write("clock.bound", 1000)
    (clock,) = clocks(simulated, card)
    assert clock[2:8] == (False, 1000 + STAMP_NS, 0, "holdover", 38, True)


def test_a_block_says_the_largest_bound_since_it_was_opened(make_card):
    simulated, card = make_card(timeout_s=1e-3)
    card.start()
    card.write("clock.bound", 500)
    simulated.send(0, frames([FRAME]))
    simulated.run_wires(10_000)
    simulated.run(200)
    card.write("clock.bound", 20)  # smaller, while the block is open
    assert [batch.clock.bound_ns for batch in card.receive(timeout_s=3e-3)] == [500 + STAMP_NS]
    simulated.send(0, frames([FRAME]))
    assert [batch.clock.bound_ns for batch in card.receive(timeout_s=3e-3)] == [20 + STAMP_NS]


def test_a_failed_core_takes_lock_and_bound_away(make_card):
    simulated, card = make_card()
    card.start()
    simulated.write32(0x10000, 0x0000006F)  # jal x0, 0: for ever
    card.write("cpu.watchdog", 700_000)
    card.write("clock.bound", 10)
    card.write_fields("clock.control", locked=1, state=2, disciplined=1)
    card.write("cpu.control", 1)
    (clock,) = clocks(simulated, card)
    assert (clock.locked, clock.bound_ns, clock.state) == (True, 10 + STAMP_NS, "locked")
    simulated.run(750_000)
    assert card.clock().failed and card.clock().state == "failed"
    assert (card.clock().locked, card.clock().bound_ns) == (False, -1)
    (clock,) = clocks(simulated, card)
    assert (clock.locked, clock.bound_ns, clock.state) == (False, -1, "failed")


def test_a_pulse_is_stamped_as_frames_are(make_card):
    """The same card time for a pulse and for a frame's SFD on the pins, by the simulation's truth."""
    simulated, card = make_card()
    card.write("pps.filter", 10)
    card.write("pps.control", 1)
    simulated.set_sampler(jitter_fs=20_000, window_fs=20_000)
    simulated.run(200)
    for k in range(5):
        rise = simulated.now_fs + 10_000_000_000 + 1_234_567 * k
        simulated.pulse(rise, rise + 1_000_000_000)
        simulated.run_until(rise + 2_000_000_000)
        assert card.read("pps.edges") == k + 1
        stamp = Fraction(card.read("pps.edge_time") << 32 | card.read("pps.edge_fraction"), 1 << 64)
        simulated.send(0, frames([FRAME]))
        simulated.run_wires(10_000)
        (frame,) = simulated.truth(0)
        at_sfd = Fraction(int(frame["sfd_q32"]) << 32 | int(frame["sfd_rest"]), 1 << 64)
        truth = at_sfd - Fraction(int(frame["sfd_fs"]) - rise, 10**15) * rate(card)
        assert abs(stamp - truth) < Fraction(7, 10**10), k


def rate(card):
    return Fraction(card.read("clock.increment"), 1 << 72) * 125_000_000


def test_the_card_hears_its_receiver(make_card):
    simulated, card = make_card()
    simulated.serial(b"$GPZDA,", baud=1_000_000)
    card.write("uart.divider", 125)
    simulated.serial(b"082710.00", baud=1_000_000)
    simulated.run(40_000)
    n = card.fields("uart.status")["received"]
    heard = bytes(card.read("uart.receive") & 0xFF for _ in range(n))
    assert heard.endswith(b"082710.00")
