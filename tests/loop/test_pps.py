# SPDX-License-Identifier: Apache-2.0
"""PPS capture and output against the simulation's truth."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.loop.simulated_clock import FS, PERIOD_FS, SimulatedClock

# What the line does in these tests happens in fractions of a second: the nominal period is shortened.
PERIOD = 50_000  # cycles
SHORT_FS = PERIOD * PERIOD_FS


@pytest.fixture
def clock():
    clock = SimulatedClock(seed=7)
    clock.write("pps.period", PERIOD)
    clock.write("pps.tolerance", 50)
    clock.write("pps.filter", 20)
    clock.write("pps.control", 1)
    clock.run(100)
    yield clock
    clock.close()


def edge_s(clock: SimulatedClock) -> float:
    """Time of the last edge, less the second it stands in, as integers allow: in units of 2^-64 s."""
    return clock.read("pps.edge_time") << 32 | clock.read("pps.edge_fraction")


def captured_errors(clock: SimulatedClock, rng: random.Random, n: int) -> np.ndarray:
    """Error of n captured edges in ns."""
    errors = []
    for _ in range(n):
        at = clock.counts.now_fs + 3_000 * PERIOD_FS + rng.randrange(PERIOD_FS)
        clock.pulse(at, 200 * PERIOD_FS)
        clock.run_until(at)
        truth = clock.card_time(at)
        edges = clock.read("pps.edges")
        clock.run(200)
        assert clock.read("pps.edges") == edges + 1
        errors.append(float((edge_s(clock) - truth * 2**64) * 10**9 / 2**64))
        clock.run(400)
    return np.array(errors)


def test_edges_are_stamped_within_half_a_nanosecond(clock):
    clock.set_period(1234.5)
    errors = captured_errors(clock, random.Random(1), 200)
    assert np.abs(errors).max() <= 0.5001
    assert abs(errors.mean()) < 0.08  # uniform over 1 ns: 0.29 / sqrt(200) = 0.02, four times that
    assert 0.25 < errors.std() < 0.33


def test_jitter_and_undecided_samples_move_an_edge_by_a_sample_at_most(clock):
    clock.set_sampler(jitter_fs=50_000, window_fs=100_000)
    errors = captured_errors(clock, random.Random(2), 200)
    assert np.abs(errors).max() <= 1.0
    assert abs(errors.mean()) < 0.1


def test_a_slow_sampler_word_order_would_be_noticed(clock):
    """Each place in the word is used, and goes with the edge's place within the cycle."""
    places = set()
    rng = random.Random(3)
    for _ in range(60):
        captured_errors(clock, rng, 1)
        places.add(clock.field("pps.edge_flags.position"))
    assert places == set(range(8))


def test_delays_are_subtracted(clock):
    rng = random.Random(4)
    clock.write("pps.antenna_delay", round(120e-9 * 2**48))
    clock.write("pps.cable_delay", (1 << 32) - round(20e-9 * 2**48))
    errors = captured_errors(clock, rng, 40)
    assert abs(errors.mean() + 100.0) < 0.2


def test_stamps_follow_a_slew_and_a_rate(clock):
    clock.write("clock.increment", 0x2300000000FF)
    clock.write("clock.slew_step", 1 << 35)  # 1.86 ns a cycle
    clock.write("clock.slew_amount", 1 << 62)
    clock.run(10)
    errors = captured_errors(clock, random.Random(5), 40)
    assert clock.field("clock.status.slewing")
    assert np.abs(errors).max() <= 0.66  # a sample is longer in card time: (8.15 + 1.86) / 8 / 2 ns


def test_glitches_are_counted_and_not_published(clock):
    now = clock.counts.now_fs
    clock.pulse(now + 1000 * PERIOD_FS, 15 * PERIOD_FS)
    clock.pulse(now + 1100 * PERIOD_FS, 700_000)
    clock.pulse(now + 1200 * PERIOD_FS, 100 * PERIOD_FS)
    clock.run(1500)
    assert (clock.read("pps.edges"), clock.read("pps.glitches")) == (1, 2)
    # A dip within a pulse is no second edge.
    clock.change(now + 2000 * PERIOD_FS)
    clock.pulse(now + 2050 * PERIOD_FS, 5 * PERIOD_FS)
    clock.change(now + 2200 * PERIOD_FS)
    clock.run(1500)
    assert clock.read("pps.edges") == 2


def take(clock) -> tuple[int, int] | None:
    """The oldest edge that waits: its time and its flags (first 1, early 2, doubled 4)."""
    flags = clock.read("pps.queue_flags")
    if not flags & 1:
        return None
    time = clock.read("pps.queue_time") << 1 | flags >> 1 & 1
    clock.write("pps.queue_next", 1)
    return time, flags >> 4


def test_edges_wait_for_a_firmware_that_is_late(clock):
    """As they would stand in the registers, in order; 16 of them, and what is lost is counted."""
    rng = random.Random(8)
    assert take(clock) is None
    for burst in (1, 3, 16, 19):
        expected = []
        for _ in range(burst):
            at = clock.counts.now_fs + rng.randrange(100, 5000) * PERIOD_FS + rng.randrange(PERIOD_FS)
            clock.pulse(at, 60 * PERIOD_FS)
            clock.run_until(at + 100 * PERIOD_FS)
            flags = [clock.field(f"pps.edge_flags.{name}") for name in ("first", "early", "doubled")]
            expected.append((edge_s(clock) >> 31, sum(value << place for place, value in enumerate(flags))))
        lost = clock.read("pps.queue_lost")
        found = [take(clock) for _ in range(min(16, burst))]
        assert found == expected[:16]
        assert take(clock) is None
        clock.write("pps.queue_next", 1)  # there is none: nothing happens
    assert lost == 3
    assert clock.read("pps.edges") == 39


@pytest.mark.parametrize(("cycles", "published"), [(4, 0), (8, 1), (30, 1)])
def test_a_glitch_does_not_take_the_pulse_behind_it_away(clock, cycles, published):
    """A quarter of the filter's 20 cycles (and two) is enough behind one; less may be ringing: refused."""
    at = clock.counts.now_fs + 1000 * PERIOD_FS
    clock.pulse(at - (12 + cycles) * PERIOD_FS, 12 * PERIOD_FS)
    clock.pulse(at, 100 * PERIOD_FS)
    clock.run_until(at + 500 * PERIOD_FS)
    assert (clock.read("pps.edges"), clock.read("pps.glitches")) == (published, 1)
    if published:
        assert abs(edge_s(clock) - clock.card_time(at) * 2**64) < 0.51e-9 * 2**64


def test_behind_a_pulse_the_line_must_be_low_for_all_of_the_filter(clock):
    at = clock.counts.now_fs + 1000 * PERIOD_FS
    clock.pulse(at, 100 * PERIOD_FS)
    clock.pulse(at + 115 * PERIOD_FS, 100 * PERIOD_FS)
    clock.run_until(at + 500 * PERIOD_FS)
    assert clock.read("pps.edges") == 1


def test_inverted_line(clock):
    clock.write("pps.control", 0)
    now = clock.counts.now_fs
    clock.change(now + 100 * PERIOD_FS)  # high, as such a line rests
    clock.run(200)
    clock.write("pps.control", 3)
    at = clock.counts.now_fs + 1000 * PERIOD_FS + 12345
    clock.pulse(at, 100 * PERIOD_FS)
    clock.run_until(at)
    truth = clock.card_time(at)
    clock.run(300)
    assert clock.read("pps.edges") == 1
    assert abs(edge_s(clock) - truth * 2**64) < 0.51e-9 * 2**64


def counts(clock):
    return tuple(clock.read(f"pps.{name}") for name in ("edges", "early", "doubled", "missing"))


def test_missing_early_and_double_pulses(clock):
    start = clock.counts.now_fs + 100 * PERIOD_FS

    def pulse(number, shift_cycles=0):
        at = start + number * SHORT_FS + shift_cycles * PERIOD_FS
        clock.pulse(at, 100 * PERIOD_FS)
        clock.run_until(at + 1000 * PERIOD_FS)

    pulse(0)
    assert counts(clock) == (1, 0, 0, 0) and clock.field("pps.edge_flags.first")
    assert clock.read("pps.interval") == 0xFFFFFFFF
    pulse(1, 49)
    assert counts(clock) == (2, 0, 0, 0) and not clock.field("pps.edge_flags.first")
    assert clock.read("pps.interval") == PERIOD + 49
    pulse(2, -2)  # 51 cycles too soon: early, and the window stays where it was and passes
    assert counts(clock) == (3, 1, 0, 1) and clock.field("pps.edge_flags.early")
    pulse(2, 5_000)
    assert counts(clock) == (4, 1, 0, 1) and clock.field("pps.edge_flags.first")
    pulse(2, 10_000)
    assert counts(clock) == (5, 1, 1, 1) and clock.field("pps.edge_flags.doubled")
    pulse(3, 5_000)
    assert counts(clock) == (6, 1, 1, 1)
    assert not clock.field("pps.edge_flags.early") and not clock.field("pps.edge_flags.doubled")
    clock.run_until(start + 6 * SHORT_FS + 5_100 * PERIOD_FS)
    assert counts(clock) == (6, 1, 1, 4)
    pulse(7)
    assert counts(clock) == (7, 1, 1, 4) and clock.field("pps.edge_flags.first")


def test_output_rises_with_the_seconds_of_card_time(clock):
    clock.write("pps.control", 4)
    clock.write("pps.output_width", 1000)
    errors = []
    rng = random.Random(6)
    for second in range(100, 140):
        clock.set_period(rng.uniform(-50_000, 50_000))
        clock.write("clock.load_time", (second << 32) - rng.randrange(1 << 14, 1 << 15))
        clock.write("clock.control", 1)
        clock.run(3000)
        rise, fall = clock.output()
        errors.append(float(clock.card_time(rise) - second) * 1e9)
        assert 999 * PERIOD_FS < fall - rise < 1002 * PERIOD_FS
    assert clock.read("pps.output_count") == 40
    assert np.abs(errors).max() <= 0.51
    assert np.std(errors) > 0.2  # the place within the cycle varies


def test_output_delay_makes_it_leave_earlier(clock):
    clock.write("pps.control", 4)
    clock.write("pps.output_delay", round(1e-6 * 2**48))
    clock.write("clock.load_time", (100 << 32) - (1 << 15))
    clock.write("clock.control", 1)
    clock.run(3000)
    assert abs(float(clock.card_time(clock.output()[0]) - 100) * 1e9 + 1000) < 0.51


def test_leaps_and_gated_clocks_change_nothing():
    """The same with every edge run, and with idle time skipped: equal to the bit."""
    states = []
    for leaping, gated in ((False, False), (False, True), (True, True)):
        clock = SimulatedClock(seed=3, leaping=leaping, gated=gated)
        clock.write("pps.period", PERIOD)
        clock.write("pps.tolerance", 50)
        clock.write("pps.control", 5)
        clock.write("clock.load_time", (9 << 32) - (3 << 20))  # 0.73 ms before a second
        clock.write("clock.control", 1)
        clock.write("pps.output_width", 100)
        clock.write(
            "clock.slew_amount", (1 << 64) - (1 << 47)
        )  # -7.6 us, 1 ppm: for 7.6 s; then one of 2.7 ms
        clock.run(40_000)
        clock.write("clock.slew_amount", 50_000_000_000)
        start = clock.counts.now_fs
        for number in range(5):
            clock.pulse(start + number * SHORT_FS + 16_123_456_789, 5000 * PERIOD_FS)
        clock.send(start + 2 * SHORT_FS, b"bytes", baud=38400)
        clock.run_until(start + 12 * SHORT_FS)
        found = {
            name: clock.read(name) for name in ("pps.edges", "pps.missing", "uart.status", "pps.output_count")
        }
        assert found == {"pps.edges": 5, "pps.missing": 7, "uart.status": 5 | 1 << 17, "pps.output_count": 1}
        states.append(
            (clock.read("clock.now"), clock.read("pps.edge_time"), clock.counts[:3], clock.output())
        )
        if leaping:
            assert clock.counts.leapt > 400_000
        clock.close()
    assert states[0] == states[1] == states[2]


def test_sampled_in_real_seconds():
    """With the nominal period: a second is a second."""
    clock = SimulatedClock()
    clock.write("pps.control", 1)
    clock.set_period(-3000)
    for second in range(1, 4):
        clock.pulse(second * FS)
    clock.run_until(3 * FS + FS // 2)
    assert counts(clock) == (3, 0, 0, 0)
    assert clock.read("pps.interval") in (124_999_624, 124_999_625, 124_999_626)
    clock.close()
