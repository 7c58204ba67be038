# SPDX-License-Identifier: Apache-2.0
"""The metrics against a plain reading of the RFCs: loops over packets, fractions, no NumPy."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.errors import ConfigError
from twinstamp.owd import metrics, train_report
from twinstamp.owd.arrivals import (
    ONE_WAY,
    Arrivals,
    ReceiverClock,
    Sent,
    TrainKey,
    split_runs,
    unwrapped,
)
from twinstamp.owd.report import Options

from tests.owd.world import T0_NS, world

KEY = TrainKey("10.0.0.1", "10.0.0.2", 862, -1, 7, ONE_WAY)


CLOCK = ReceiverClock("card", True, 20, 1)


def arrivals(packets, *, error=0x8093, clock=CLOCK, ip_bytes=72) -> Arrivals:
    n = len(packets)
    columns = [
        np.array([p[0] % 2**32 for p in packets], np.int64), [p[1] for p in packets], [p[2] for p in packets],
        [error] * n, [0] * n, [250] * n, [0] * n, [ip_bytes] * n, [ip_bytes + 18] * n,
    ]  # fmt: skip
    return Arrivals.of(KEY, (clock,), columns)


class Oracle:
    """One train by the words of the RFCs."""

    def __init__(self, packets, timeout=10**10):
        first, self.copies, self.repeated = {}, 0, set()
        order = []
        for number, left, came in packets:
            if number in first:
                self.copies += 1
                self.repeated.add(number)
            else:
                first[number] = (left, came)
                order.append((number, came))
        self.order = order
        self.late = {k for k, (left, came) in first.items() if came - left > timeout}
        self.delay = {k: came - left for k, (left, came) in first.items() if k not in self.late}
        span = range(min(first), max(first) + 1) if first else ()
        self.missing = [k for k in span if k not in first]
        self.sent = len(span)

    def percentile(self, values, p: Fraction):
        """RFC 2330 11.3: the smallest x for which the share of values <= x is at least p."""
        for x in sorted(values):
            if Fraction(sum(v <= x for v in values), len(values)) >= p:
                return x
        return None

    def ipdv(self):
        return [self.delay[k + 1] - self.delay[k] for k in sorted(self.delay) if k + 1 in self.delay]

    def reordered(self):
        """[(number, extent, late time offset, n)] by RFC 4737 sections 3.3, 4.2.3, 4.3 and 5."""
        out, next_expected = [], -math.inf
        for i, (number, came) in enumerate(self.order):
            if number >= next_expected:
                next_expected = number + 1
                continue
            j = next(j for j in range(i) if self.order[j][0] > number)
            n = 0
            while n < i and self.order[i - n - 1][0] > number:
                n += 1
            out.append((number, i - j, came - self.order[j][1], n))
        return out


PACKETS = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 2000), st.integers(0, 40)), min_size=1, max_size=60
)


@settings(max_examples=150, deadline=None)
@given(PACKETS, st.sampled_from([0, 2**32 - 15]), st.integers(1, 3000))
def test_every_metric_on_small_trains(raw, base: int, timeout: int):
    """Any arrivals with any loss, duplicates, order, ties and negative delays, and past the wrap."""
    packets = []
    for number, delay, hold in raw:
        left = T0_NS + 100 * number
        packets.append((base + number, left, left + delay - 500 + 100 * hold))
    packets.sort(key=lambda p: p[2])
    oracle = Oracle(packets, timeout)
    found = train_report(arrivals(packets), options=Options(timeout_ns=timeout))
    values = list(oracle.delay.values())
    assert found.delay.n == len(values)
    assert found.delay.undefined == found.loss.lost == len(oracle.missing) + len(oracle.late)
    assert (found.loss.missing, found.loss.late, found.loss.sent) == (
        len(oracle.missing), len(oracle.late), oracle.sent,
    )  # fmt: skip
    gaps = {int(k) for a, b in found.loss.ranges for k in range(a, b + 1)}
    shift = min(n for n, _, _ in packets) - int(found.judged.position.min())
    assert gaps == {k - shift for k in oracle.missing}
    for name, (top, bottom) in metrics.PERCENTILES.items():
        p = Fraction(top, bottom)
        assert found.delay.percentiles[name] == (oracle.percentile(values, p) if values else None)
        infinite = [*values, *[math.inf] * found.loss.lost]
        want = oracle.percentile(infinite, p) if infinite else None
        assert found.delay_with_lost.percentiles[name] == (None if want == math.inf else want)
    if values:
        ordered = sorted(values)
        middle = (ordered[(len(values) - 1) // 2] + ordered[len(values) // 2]) / 2
        assert (found.delay.minimum, found.delay.maximum, found.delay.median) == (
            ordered[0],
            ordered[-1],
            middle,
        )
        assert found.delay.sum == sum(values)
        low = min(values)
        assert found.pdv.maximum == max(values) - low and found.pdv.minimum == 0
    assert sorted(metrics.ipdv(found.judged).tolist()) == sorted(oracle.ipdv())
    assert (found.duplication.copies, found.duplication.replicated) == (oracle.copies, len(oracle.repeated))
    want = oracle.reordered()
    judged = found.judged
    got = [
        (int(judged.position[i]) + shift, int(e), int(late), int(n))
        for i, e, late, n in zip(judged.reordered, judged.extent, judged.late_ns, judged.degree, strict=True)
    ]
    assert got == want
    degrees = [n for *_, n in want]
    assert found.reordering.n_reordered == tuple(
        sum(d >= n for d in degrees) for n in range(1, max(degrees, default=0) + 1)
    )
    assert found.reordering.reordered == len(want)
    assert found.flagged["negative"] == sum(came < left for _, left, came in packets)
    # The time series counts everything once.
    series = found.series
    assert series.received.sum() == len(values)
    assert series.lost.sum() == found.loss.lost
    assert (series.duplicates.sum(), series.reordered.sum()) == (oracle.copies, len(want))


@pytest.mark.parametrize("law", ["constant", "list", "poisson", "chirp"])
def test_losses_duplicates_and_reordering_as_injected(law: str):
    made = world(law, 3000, seed=5, loss=0.03, duplicates=0.02, reorder=0.05, first=2**32 - 1500)
    sent = Sent(
        KEY, np.array([n % 2**32 for n, _ in made.sent], np.uint32), np.array([t for _, t in made.sent])
    )
    found = train_report(arrivals(made.arrived), sent=sent, until_ns=made.arrived[-1][2] + 10**11)
    assert (found.loss.sent, found.loss.lost, found.loss.known) == (3000, len(made.lost), True)
    gone = {int(k) for a, b in found.loss.ranges for k in range(a, b + 1)}
    assert gone == {n % 2**32 for n in made.lost}
    assert found.duplication.copies == made.copies
    oracle = Oracle(made.arrived)
    assert found.reordering.reordered == len(oracle.reordered()) > 0
    assert Counter(found.judged.extent.tolist()) == Counter(e for _, e, _, _ in oracle.reordered())


def test_undecided_packets_are_not_lost():
    made = world("constant", 100, loss=0.0)
    sent = Sent(KEY, np.arange(100, dtype=np.uint32), np.array([t for _, t in made.sent]))
    until = made.sent[-1][1] + 10_000
    kept = [a for a in made.arrived if a[0] not in (3, 98)]
    found = train_report(arrivals(kept), sent=sent, options=Options(timeout_ns=50_000), until_ns=until)
    assert (found.loss.lost, found.loss.undecided, found.loss.sent) == (
        1 + len(kept),
        1,
        99,
    )  # 500 µs > 50 µs
    found = train_report(arrivals(kept), sent=sent, options=Options(timeout_ns=10**9), until_ns=until)
    assert (found.loss.lost, found.loss.undecided) == (0, 2)


@pytest.mark.parametrize("delay,flags", [
    (0, 0), (-1, metrics.NEGATIVE), (-56, metrics.NEGATIVE), (-57, metrics.NEGATIVE | metrics.OUTSIDE),
])  # fmt: skip
def test_negative_and_impossible_delays_are_flagged(delay: int, flags: int):
    """Bound: 34 ns of the sender (written as 35), 20 of the receiver, 1 of rounding: 56 ns."""
    judged = metrics.judge(arrivals([(0, T0_NS, T0_NS + delay)]))
    assert (judged.bound_ns.tolist(), judged.flags.tolist()) == ([56], [flags])


def test_a_known_least_delay_and_more_bound():
    packet = [(0, T0_NS, T0_NS + 900)]
    assert metrics.judge(arrivals(packet), least_ns=1000).flags.tolist() == [metrics.OUTSIDE]
    judged = metrics.judge(arrivals(packet), least_ns=1000, extra_bound_ns=44)
    assert (judged.bound_ns.tolist(), judged.flags.tolist()) == ([100], [0])


def test_unknown_and_unsynchronised_clocks():
    packet = [(0, T0_NS, T0_NS + 5)]
    loose = metrics.NO_BOUND | metrics.UNSYNCHRONISED
    assert metrics.judge(arrivals(packet, error=0x3FFF)).flags.tolist() == [loose]
    assert metrics.judge(arrivals(packet, error=0x0093)).flags.tolist() == [metrics.UNSYNCHRONISED]
    unlocked = ReceiverClock("card", False, -1, 1)
    judged = metrics.judge(arrivals(packet, clock=unlocked))
    assert (judged.flags.tolist(), judged.bound_ns.tolist()) == ([loose], [-1])


def test_a_sender_that_begins_anew():
    first, second = world("constant", 50), world("constant", 40, seed=2, reorder=0.2)
    runs = split_runs(arrivals(first.arrived + second.arrived))
    assert [(len(run), run.key.run) for run in runs] == [(50, 0), (40, 1)]
    assert all(train_report(run).duplication.copies == 0 for run in runs)


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=50), st.integers(0, 2**40))
def test_wrapped_numbers(steps, base: int):
    numbers = np.cumsum([base, *steps])
    got = unwrapped((numbers % 2**32).astype(np.uint32))
    assert (got - got[0]).tolist() == (numbers - numbers[0]).tolist()


def test_sums_do_not_overflow():
    values = np.array([2**62, 2**62, 2**62, -(2**61)])
    assert metrics.distribution(values).sum == 3 * 2**62 - 2**61


def test_asymmetry():
    there = metrics.judge(arrivals([(i, T0_NS + i, T0_NS + i + 1000 + i % 3) for i in range(9)]))
    back = metrics.judge(arrivals([(i, T0_NS + i, T0_NS + i + 400) for i in range(9)]))
    found = metrics.asymmetry(there, back)
    assert (found.minimum_ns, found.median_ns, found.round_trip_ns, found.bound_ns) == (600, 601, 1400, 112)


def test_bad_options():
    one = arrivals([(0, T0_NS, T0_NS), (1, T0_NS, T0_NS + 10**10)])
    for call in (
        lambda: metrics.judge(one, timeout_ns=0),
        lambda: metrics.judge(one, extra_bound_ns=-1),
        lambda: metrics.series(metrics.judge(one), 1),
    ):
        with pytest.raises(ConfigError):
            call()
