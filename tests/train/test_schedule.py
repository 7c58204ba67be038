# SPDX-License-Identifier: Apache-2.0
"""Schedules against a plain model, exact; what fits a wire; what is refused."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.errors import ConfigError
from twinstamp.train import Chirp, Constant, GapList, Poisson, SizeList, Uniform, Vlan

from tests.train.made import ADDRESSES6, Q64, make, model, times, trains


@settings(max_examples=60, deadline=None)
@given(trains(), st.integers(0, 2**31), times)
def test_the_schedule_is_the_model(train, second, fraction):
    start = second + fraction
    schedule = train.schedule(start)
    want = model(train, start)
    assert [(schedule.q64(i), int(schedule.size[i])) for i in range(len(schedule))] == want
    for ns, (time, _) in zip(schedule.ns().tolist(), want, strict=True):
        assert abs(ns - Fraction(time * 10**9, Q64)) <= Fraction(1, 2) + Fraction(1, 2**31)
    assert schedule.q32().tolist() == [t >> 32 for t, _ in want]


def test_no_error_accumulates():
    schedule = make(1_000_001, Constant("1000.3ns")).schedule(1_800_000_000)
    span = Fraction(schedule.q64(1_000_000) - schedule.q64(0), Q64)
    # Each gap is within half of 2^-64 s of 1000.3 ns.
    assert abs(span - Fraction("1.0003")) <= Fraction(10**6, 2 * Q64)
    assert len(set(np.diff(schedule.fraction).tolist())) == 1


def test_line_rate_fits_and_a_tenth_of_a_nanosecond_less_does_not():
    for size, gap in ((64, "672ns"), (90, "880ns"), (1518, "12304ns")):
        check = make(10_000, Constant(gap), size).check()
        assert (check.late, check.packets, check.octets) == (0, 10_000, 10_000 * size)
        assert check.load == pytest.approx(1, abs=1e-3)
        less = Constant(Fraction(gap[:-2]) / 10**9 - Fraction(1, 10**10))
        with pytest.raises(ConfigError, match=r"packet \d+ would leave .* late"):
            make(10_000, less, size).check()
    with pytest.raises(ConfigError, match="packet 1 would leave"):
        make(2, Constant("672ns")).check()
    make(10, Constant("6.72us"), 64).check(10**8)
    with pytest.raises(ConfigError, match="would leave"):
        make(10, Constant("6.6us"), 64).check(10**8)


def test_random_collisions_are_counted_and_overload_is_refused():
    check = make(10_000, Poisson("2us"), 90).check()
    # Of exponential gaps of mean 2 us, 1 - exp(-0.888/2) are over 8 ns too short for 90 bytes; queues add.
    assert 3500 < check.late < 6000 and check.worst_delay > Fraction(1, 10**6)
    with pytest.raises(ConfigError, match="late"):
        make(10_000, Poisson("0.8us"), 90).check()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"packets": 0}, "packets is 0"),
        ({"packets": 2**32}, "packets"),
        ({"packets": 2**20, "bursts": 2**13, "burst_gap": "1ms"}, "at most 2\\^32"),
        ({"packets": True}, "packets is True"),
        ({"gap": 5}, "gap: give"),
        ({"gap": "x"}, "gap: give"),
        ({"size": 63}, "64 to"),
        ({"size": 9019}, "sizes from 9019"),
        ({"size": 9022, "vlans": (Vlan(1),), "mtu": 8999}, "MTU is 8999"),
        ({"size": 64, "vlans": (Vlan(1),)}, "68 to 9022"),
        ({"size": 81} | ADDRESSES6, "82 to 9018"),
        ({"size": 1519, "mtu": 1500}, "carries an IP packet of 1501: the MTU is 1500"),
        ({"source": "10.0.0.256"}, "source is '10.0.0.256'"),
        ({"source": 5}, "source is 5"),
        ({"source": "2001:db8::1"}, "mixed"),
        ({"source_mac": "01:00:00:00:00:01"}, "group address"),
        ({"destination_mac": "02:00:00:00:00"}, "six bytes"),
        ({"flow_label": 5}, "IPv4 has none"),
        ({"bursts": 2}, "burst_gap: needed"),
        ({"burst_gap": "1ms"}, "burst_gap: needed"),
        ({"repeats": 2}, "period: needed"),
        ({"period": "1s"}, "period: needed"),
        ({"period": 0.5, "repeats": 2}, "so that it is exact"),
        ({"burst_gap": "-1ms", "bursts": 2}, "not understood"),
        ({"burst_gap": Fraction(-1), "bursts": 2}, "negative"),
        ({"burst_gap": "70000s", "bursts": 2}, "less than 65536 s"),
        ({"burst_gap": "1/0 s", "bursts": 2}, "not understood"),
        ({"source_port": 65000, "source_ports": 1000}, "beyond 65535"),
        ({"vlans": (Vlan(1), Vlan(2), Vlan(3))}, "at most 2"),
        ({"session": 0}, "session is 0"),
        ({"session": 32768}, "session is 32768"),
        ({"timestamp": "unix"}, "give ntp or ptp"),
        ({"dscp": 64}, "dscp is 64"),
        ({"name": "a\nb"}, "name"),
    ],
)
def test_bad_trains_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        make(**values)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (lambda: Constant(1e-6), "exact"),
        (lambda: Constant("5"), "not understood"),
        (lambda: GapList(()), "1 to 597"),
        (lambda: GapList(("1us", "x")), r"gaps\[1\]"),
        (lambda: Poisson("1us", "1us"), "not longer than the minimum"),
        (lambda: Poisson("40000s"), "mean gap"),
        (lambda: Chirp("1us", 2), "less than 2"),
        (lambda: Chirp("1us", 0), "more than 0"),
        (lambda: Chirp("1us", "x"), "chirp ratio"),
        (lambda: Chirp("1us", float("nan")), "chirp ratio"),
        (lambda: SizeList((64, 63)), r"sizes\[1\]"),
        (lambda: Uniform(100, 99), "smallest comes first"),
        (lambda: Vlan(4095), "VLAN id"),
        (lambda: Vlan(1, 8), "priority"),
        (lambda: Vlan(1, 0, 0x9100), "tpid"),
    ],
)
def test_bad_laws_are_refused(law, message):
    with pytest.raises(ConfigError, match=message):
        law()


def test_a_train_longer_than_its_period_is_refused():
    train = make(100, Constant("10us"), repeats=3, period="990.9us")
    assert train.check().packets == 300
    with pytest.raises(ConfigError, match=r"takes 990\.9 us, its period is 990 us"):
        make(100, Constant("10us"), repeats=3, period="990us").check()
    assert train.check().span == 2 * Fraction(round(Fraction("990.9e-6") * Q64), Q64) + 99 * Fraction(
        round(Fraction("10e-6") * Q64), Q64
    )


def test_what_is_too_long_is_refused():
    with pytest.raises(ConfigError, match="too many to list"):
        make(2**28).schedule()
    with pytest.raises(ConfigError, match="beyond 2\\^32 s"):
        make(3, Constant("1s")).schedule(2**32 - 3)
    with pytest.raises(ConfigError, match="65536 s or longer"):
        make(100, Chirp("1s", "1.9")).schedule()


def test_pictures(tmp_path):
    pytest.importorskip("matplotlib")
    from twinstamp.train.plot import plot_train

    train = make(50, Chirp("20us", "0.95"), SizeList((64, 128)), bursts=3, burst_gap="1ms")
    plot_train(train, tmp_path / "train.png")
    assert (tmp_path / "train.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ConfigError, match="cannot be written"):
        plot_train(train, tmp_path / "train.xyz")
    plot_train(make(1), tmp_path / "one.svg")


def test_a_long_train_is_checked():
    check = make(1_000_000, Constant("1000.3ns")).check()
    assert check.late == 0 and float(check.span) == pytest.approx(1.0002989997, abs=1e-9)
