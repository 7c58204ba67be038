# SPDX-License-Identifier: Apache-2.0
"""The metrics of the IETF's IPPM documents on one train (docs/owd.md): exact, on whole arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp import _native
from twinstamp.errors import ConfigError
from twinstamp.leap import leap_seconds
from twinstamp.owd.arrivals import unwrapped

if TYPE_CHECKING:
    import numpy.typing as npt

    from twinstamp.owd.arrivals import Arrivals, Sent

    Int64 = npt.NDArray[np.int64]

# Bits of Judged.flags
NEGATIVE = 0x01  # the delay is below 0
OUTSIDE = 0x02  # delay + bound is below what is possible: the bound cannot be true
NO_BOUND = 0x04  # a clock's bound is not known
UNSYNCHRONISED = 0x08  # a clock does not follow a reference
LATE = 0x10  # took longer than the time-out: counts as lost
DUPLICATE = 0x20  # a further copy
REORDERED = 0x40  # RFC 4737
FLAGS = {
    "negative": NEGATIVE, "outside_bound": OUTSIDE, "no_bound": NO_BOUND, "unsynchronised": UNSYNCHRONISED,
    "late": LATE, "duplicate": DUPLICATE, "reordered": REORDERED,
}  # fmt: skip

# name → share of the sample, as a fraction of integers
PERCENTILES = {
    "p1": (1, 100), "p5": (5, 100), "p25": (25, 100), "p50": (50, 100), "p75": (75, 100), "p90": (90, 100),
    "p95": (95, 100), "p99": (99, 100), "p99.9": (999, 1000), "p99.99": (9999, 10_000),
}  # fmt: skip

# Both stamps are rounded to whole ns (0.5 ns each).
MOST_BOUND_NS = 1 << 60  # 36 years: three of them still fit 63 bits
_ROUNDING_NS = 1


@dataclass(frozen=True)
class Distribution:
    """A sample of integers. All exact but ``mean`` (nearest float).

    n: values. undefined: further ones without a value (lost packets). median: mean of the two middle ones
    where n is even (RFC 2330 section 11.3), so a half is possible. percentiles: the smallest value x such
    that at least the share p of the n values is <= x (the empirical distribution function of RFC 2330
    section 11.3); None where there is no value.
    """

    n: int
    undefined: int
    minimum: int | None
    maximum: int | None
    sum: int
    mean: float | None
    median: float | None
    percentiles: dict[str, int | None]


def distribution(values: Int64, *, undefined: int = 0, with_undefined: bool = False) -> Distribution:
    """Of i64[n]. with_undefined: the undefined ones count as infinitely large (RFC 7679 section 5.1)."""
    return distribution_of_sorted(np.sort(values), undefined=undefined, with_undefined=with_undefined)


def distribution_of_sorted(
    ordered: Int64, *, undefined: int = 0, with_undefined: bool = False
) -> Distribution:
    n = len(ordered)
    total = n + (undefined if with_undefined else 0)
    percentiles: dict[str, int | None] = {}
    for name, (numerator, denominator) in PERCENTILES.items():
        rank = -(-total * numerator // denominator)
        percentiles[name] = int(ordered[rank - 1]) if 0 < rank <= n else None
    if n == 0:
        return Distribution(0, undefined, None, None, 0, None, None, percentiles)
    total_sum = _sum(ordered)
    median: float | None
    if total % 2:
        median = int(ordered[total // 2]) if total // 2 < n else None
    else:
        low, high = total // 2 - 1, total // 2
        median = (int(ordered[low]) + int(ordered[high])) / 2 if high < n else None
    return Distribution(
        n, undefined, int(ordered[0]), int(ordered[-1]), total_sum, total_sum / n, median, percentiles
    )


def _sum(values: Int64) -> int:
    """Exact, whatever the values: in halves that cannot overflow."""
    if len(values) == 0:
        return 0
    low, high = int(values.min()), int(values.max())
    if max(-low, high) < (1 << 62) // len(values):
        return int(values.sum())
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


@dataclass(frozen=True)
class Judged:
    """The packets of a train, in the order of arrival, each judged.

    position      i64[n]  sequence number with its turns past 2^32 undone
    sent_ns       i64[n]  departure and arrival, ns: UTC as at the first arrival, counting on through any leap
    received_ns   i64[n]  second in between (``LeapSeconds.continuous``)
    delay_ns      i64[n]  one-way delay, received - sent
    bound_ns      i64[n]  error bound of the delay, both clocks', calibration and rounding; -1 unknown
    flags         u8[n]   bits above

    by_number: i64[m] or None, the first copies in the order of their numbers; None: the arrivals are in that
    order and have no duplicates. reordered: i64[k], the reordered packets; extent u32[k], late_ns i64[k] and
    degree u32[k] of each (``reordering``). timeout_ns, least_ns, extra_bound_ns: as given to ``judge``.
    """

    arrivals: Arrivals
    position: Int64
    sent_ns: Int64
    received_ns: Int64
    delay_ns: Int64
    bound_ns: Int64
    flags: npt.NDArray[np.uint8]
    by_number: Int64 | None
    reordered: Int64
    extent: npt.NDArray[np.uint32]
    late_ns: Int64
    degree: npt.NDArray[np.uint32]
    timeout_ns: int
    least_ns: int
    extra_bound_ns: int

    def __len__(self) -> int:
        return len(self.position)

    @property
    def counted(self) -> npt.NDArray[np.bool_]:
        """First copies within the time-out: the received packets of RFC 7679 and 7680, bool[n]."""
        counted: npt.NDArray[np.bool_] = (self.flags & (LATE | DUPLICATE)) == 0
        return counted


def judge(
    arrivals: Arrivals, *, timeout_ns: int = 10_000_000_000, least_ns: int = 0, extra_bound_ns: int = 0
) -> Judged:
    """Delays, bounds and flags of each packet of a train.

    Type-P-One-way-Delay, RFC 7679 section 3.4: received - sent of the first copy. Its error, section 3.7:
    the bounds of both clocks, ``extra_bound_ns`` (calibration, given) and 1 ns of rounding. A packet that
    took longer than ``timeout_ns`` is lost (RFC 7680 section 2.7.1). A clock's bound beyond MOST_BOUND_NS is
    none. least_ns: no true delay is smaller; 0,
    or what light needs. Reordering: see ``reordering``.

    ConfigError for a time-out below 1 ns, or a further bound below 0 or beyond MOST_BOUND_NS.
    """
    if timeout_ns < 1:
        raise ConfigError(f"a time-out of {timeout_ns} ns: give 1 ns or more")
    if not 0 <= extra_bound_ns <= MOST_BOUND_NS:
        raise ConfigError(f"a further bound of {extra_bound_ns} ns: give 0 to {MOST_BOUND_NS}")
    n = len(arrivals)
    position = unwrapped(arrivals.sequence)
    received, sent = leap_seconds().continuous(arrivals.received_ns, arrivals.sent_ns)
    delay = received - sent
    send, receive = arrivals.send_bound_ns(), arrivals.receive_bound_ns()
    unknown = (send < 0) | (receive < 0) | (send > MOST_BOUND_NS) | (receive > MOST_BOUND_NS)
    bound = np.where(unknown, -1, send + receive + (extra_bound_ns + _ROUNDING_NS))
    flags = np.zeros(n, np.uint8)
    flags[delay < 0] |= NEGATIVE
    flags[unknown] |= NO_BOUND
    flags[~unknown & (delay + bound < least_ns)] |= OUTSIDE
    locked = np.array([clock.locked for clock in arrivals.clocks], np.bool_)
    flags[((arrivals.error & 0x8000) == 0) | ~locked[arrivals.clock]] |= UNSYNCHRONISED
    flags[delay > timeout_ns] |= LATE
    del send, receive, unknown
    by_number = None
    found = reordering(position[:0], position[:0])
    if (position[1:] <= position[:-1]).any():
        by_number = np.argsort(position, kind="stable")
        ordered = position[by_number]
        copy = np.zeros(n, np.bool_)
        copy[1:] = ordered[1:] == ordered[:-1]
        if copy.any():
            flags[by_number[copy]] |= DUPLICATE
            by_number = by_number[~copy]
            at = np.flatnonzero((flags & DUPLICATE) == 0)
            found = reordering(position[at], received[at])
            found = (at[found[0]], *found[1:])
        else:
            found = reordering(position, received)
        flags[found[0]] |= REORDERED
    return Judged(
        arrivals,
        position,
        sent,
        received,
        delay,
        bound,
        flags,
        by_number,
        *found,
        timeout_ns,
        least_ns,
        extra_bound_ns,
    )


def reordering(
    position: Int64, received_ns: Int64
) -> tuple[Int64, npt.NDArray[np.uint32], Int64, npt.NDArray[np.uint32]]:
    """Reordered packets among some in the order of arrival, without duplicates: (index, extent, late time
    offset, degree), arrays of as many as are reordered.

    A packet is reordered when its number is below the greatest seen (RFC 4737 section 3.3). Extent
    (section 4.2): arrivals back to the first one with a greater number. Late time offset (4.3): the time
    since that arrival, ns. Degree (section 5): the greatest n for which the packet is n-reordered, that is
    all n arrivals right before it have greater numbers; a TCP sender with a duplicate threshold of n would
    take the packet for lost.
    """
    greatest = np.maximum.accumulate(position)
    late = np.flatnonzero(position < greatest)
    back_to = np.searchsorted(greatest, position[late], side="right")
    degree = np.zeros(len(position), np.uint32)
    if late.size:
        _native.greater_before(np.ascontiguousarray(position), degree)
    offset = received_ns[late] - received_ns[back_to]
    return late, (late - back_to).astype(np.uint32), offset, degree[late]


@dataclass(frozen=True)
class Loss:
    """Type-P-One-way-Packet-Loss with its time-out, RFC 7680 sections 2 and 4.

    sent: packets that count; known: the sender's own number of them, else first to last number seen.
    missing: never arrived. late: arrived after the time-out. lost: both. undecided: sent less than the
    time-out before the capture ended, not arrived, not in ``sent`` (only with the sender's account).
    ratio: lost / sent, None without any. ranges: numbers of the missing ones, i64[m, 2], first and last
    of each gap.
    """

    timeout_ns: int
    known: bool
    sent: int
    missing: int
    late: int
    lost: int
    undecided: int
    ratio: float | None
    ranges: Int64


def loss(judged: Judged, sent: Sent | None = None, *, until_ns: int | None = None) -> Loss:
    """Loss of a train, RFC 7680 section 4.1 (ratio).

    sent: the sender's account of the same run. until_ns: end of the capture; None: the last arrival.
    """
    first = (judged.flags & DUPLICATE) == 0
    late = int(np.count_nonzero(first & ((judged.flags & LATE) != 0)))
    if sent is None:
        seen = _numbers(judged)
        n = int(seen[-1] - seen[0]) + 1 if len(seen) else 0
        steps = np.diff(seen)
        gaps = np.flatnonzero(steps > 1)
        ranges = np.stack((seen[gaps] + 1, seen[gaps + 1] - 1), axis=1) if len(seen) else _no_ranges()
        missing, undecided = n - len(seen), 0
    else:
        seen = _numbers(judged) & 0xFFFFFFFF
        if (seen[1:] < seen[:-1]).any():
            seen = np.sort(seen)
        numbers, index = np.unique(sent.sequence.astype(np.int64), return_index=True)
        found = np.searchsorted(seen, numbers)
        arrived = found < len(seen)
        arrived[arrived] = seen[found[arrived]] == numbers[arrived]
        if until_ns is None:
            received = judged.arrivals.received_ns
            until_ns = int(received[-1]) if len(received) else 0
        waiting = ~arrived & (sent.sent_ns[index] > until_ns - judged.timeout_ns)
        undecided = int(np.count_nonzero(waiting))
        gone = numbers[~arrived & ~waiting]
        missing = len(gone)
        n = len(numbers) - undecided
        ranges = _no_ranges()
        if missing:
            cut = np.flatnonzero(np.diff(gone) > 1)
            ranges = np.stack((gone[np.append(0, cut + 1)], gone[np.append(cut, missing - 1)]), axis=1)
    lost = missing + late
    return Loss(
        judged.timeout_ns,
        sent is not None,
        n,
        missing,
        late,
        lost,
        undecided,
        lost / n if n else None,
        ranges,
    )


def _numbers(judged: Judged) -> Int64:
    """Numbers that arrived, ascending."""
    return judged.position if judged.by_number is None else judged.position[judged.by_number]


def _no_ranges() -> Int64:
    return np.empty((0, 2), np.int64)


@dataclass(frozen=True)
class Duplication:
    """RFC 5560. copies: additional arrivals. replicated: packets that came more than once. fraction: copies
    per packet that arrived (section 5.1); rate: share of packets that arrived more than once (section 5.2).
    conflicting: copies whose departure stamp differs from the first one's: no copies by the network.
    """

    arrived: int
    copies: int
    replicated: int
    conflicting: int
    fraction: float | None
    rate: float | None


def duplication(judged: Judged) -> Duplication:
    """Additional copies of packets (RFC 5560 sections 3 and 5)."""
    copy = np.flatnonzero(judged.flags & DUPLICATE)
    arrived = len(judged) - len(copy)
    if not copy.size:
        return Duplication(arrived, 0, 0, 0, 0.0 if arrived else None, 0.0 if arrived else None)
    replicated = len(np.unique(judged.position[copy]))
    ordered = judged.by_number
    assert ordered is not None  # there are copies
    original = ordered[np.searchsorted(judged.position[ordered], judged.position[copy])]
    sent = judged.sent_ns
    conflicting = int(np.count_nonzero(sent[copy] != sent[original]))
    return Duplication(arrived, len(copy), replicated, conflicting, len(copy) / arrived, replicated / arrived)


@dataclass(frozen=True)
class Reordering:
    """RFC 4737, over first copies. ratio: section 4.1. extent, late_ns: of the reordered ones (4.2, 4.3).
    runs: arrivals in order between reordered ones (reordering-free runs, section 4.6). n_reordered[n]:
    packets that are n-reordered, n from 1 on (section 5), up to the greatest degree or 1000.
    """

    reordered: int
    ratio: float | None
    extent: Distribution
    late_ns: Distribution
    runs: Distribution
    greatest_degree: int
    n_reordered: tuple[int, ...]


def reorder_summary(judged: Judged) -> Reordering:
    """Reordering of a train (RFC 4737 sections 4 and 5), among all first copies, those after the time-out
    included: they did arrive, and out of order.
    """
    late, degree = judged.reordered, judged.degree
    n = len(judged)
    if judged.by_number is not None and len(judged.by_number) < n:
        copy = (judged.flags & DUPLICATE) != 0
        late = late - np.cumsum(copy)[late]  # among the first copies
        n = len(judged.by_number)
    edges = np.concatenate(([-1], late, [n]))
    runs = np.diff(edges) - 1
    most = int(degree.max()) if late.size else 0
    # A packet of degree d is n-reordered for every n up to d.
    counts = np.bincount(np.minimum(degree, 1000), minlength=1)[1:] if late.size else np.zeros(0, np.int64)
    at_least = np.cumsum(counts[::-1])[::-1]
    return Reordering(
        len(late), len(late) / n if n else None, distribution(judged.extent.astype(np.int64)),
        distribution(judged.late_ns),
        distribution(runs[runs > 0]), most, tuple(at_least.tolist()),
    )  # fmt: skip


def ipdv(judged: Judged) -> Int64:
    """Type-P-One-way-ipdv, RFC 3393 section 2, i64[m] ns, in the order of the numbers.

    Selection function (section 2.5): consecutive numbers of which both packets arrived within the time-out,
    first copies; ddT = delay of the later less delay of the earlier.
    """
    delay, position = _by_number(judged)
    pairs = np.diff(position) == 1
    out: Int64 = np.diff(delay)[pairs]
    return out


def _by_number(judged: Judged) -> tuple[Int64, Int64]:
    order = counted_by_number(judged)
    return judged.delay_ns[order], judged.position[order]


def counted_by_number(judged: Judged) -> Any:
    """Index of the counted packets in the order of their numbers."""
    if judged.by_number is not None:
        return judged.by_number[(judged.flags[judged.by_number] & LATE) == 0]
    late = (judged.flags & LATE) != 0
    return np.flatnonzero(~late) if late.any() else slice(None)


def hops(judged: Judged, ttl_sent: int = 255) -> dict[int, int]:
    """Hops (TTL sent less TTL on arrival) and how many of the counted packets took so many.

    Negative keys: the TTL on arrival is above ``ttl_sent``, so that is not what was sent.
    """
    counts = np.bincount(judged.arrivals.ttl[judged.counted], minlength=256)
    return {ttl_sent - ttl: int(counts[ttl]) for ttl in range(255, -1, -1) if counts[ttl]}


@dataclass(frozen=True)
class Series:
    """A train over time, by bins of the time of arrival; arrays of as many bins, -2^63 where empty.

    from_ns: start of each bin, ns UTC. received: first copies in time. lost: missing packets, in the bin of
    the next number that arrived, and late ones. minimum, median (a value: the lower middle), p99, maximum: of
    the delay, ns. bound: greatest bound, ns; -1 where one is unknown.
    """

    width_ns: int
    from_ns: Int64
    received: Int64
    lost: Int64
    duplicates: Int64
    reordered: Int64
    minimum_ns: Int64
    median_ns: Int64
    p99_ns: Int64
    maximum_ns: Int64
    bound_ns: Int64


NONE_NS = -(1 << 63)
_MOST_BINS = 100_000


def series(judged: Judged, width_ns: int | None = None) -> Series:
    """Delay, loss, duplicates and reordering over time.

    width_ns: of a bin; None: a round one that makes 100 to 1000. ConfigError where it makes more than
    100,000.
    """
    received = judged.received_ns
    start, end = (int(received[0]), int(received[-1])) if len(received) else (0, 0)
    if width_ns is None:
        width_ns = 1000
        while (end - start) // width_ns >= 500:
            width_ns *= 5 if str(width_ns)[0] == "2" or width_ns == 1 else 2
            width_ns = int(str(width_ns)[0] + "0" * (len(str(width_ns)) - 1))
    if width_ns < 1 or (end - start) // width_ns >= _MOST_BINS:
        raise ConfigError(f"bins of {width_ns} ns over {end - start} ns: give at most {_MOST_BINS} bins")
    origin = start - start % width_ns
    n = (end - origin) // width_ns + 1 if len(received) else 0
    bins = (received - origin) // width_ns
    edges = np.searchsorted(bins, np.arange(n + 1))  # arrivals are in the order of time
    counted = judged.counted
    late = (judged.flags & (LATE | DUPLICATE)) == LATE

    def per_bin(which: Any) -> Int64:
        return np.bincount(bins[which], minlength=n).astype(np.int64)

    lost = per_bin(late)
    gaps = np.diff(_numbers(judged)) - 1
    after = np.flatnonzero(gaps) + 1
    np.add.at(lost, bins[after if judged.by_number is None else judged.by_number[after]], gaps[after - 1])
    out = np.full((5, n), NONE_NS, np.int64)
    for k in range(n):
        part = slice(int(edges[k]), int(edges[k + 1]))
        values = judged.delay_ns[part][counted[part]]
        if values.size:
            values.sort()
            m = values.size
            bounds = judged.bound_ns[part]
            bound = -1 if (bounds < 0).any() else int(bounds.max())
            out[:, k] = (values[0], values[(m - 1) // 2], values[-(-99 * m // 100) - 1], values[-1], bound)
    return Series(
        width_ns, origin + width_ns * np.arange(n), per_bin(counted), lost,
        per_bin((judged.flags & DUPLICATE) != 0), per_bin((judged.flags & REORDERED) != 0), *out,
    )  # fmt: skip


@dataclass(frozen=True)
class Asymmetry:
    """Difference between two directions: forward less backward, ns.

    minimum, median: of the delays of each. bound: how wrong it can be: both directions' bounds (a clock's
    error counts twice, with opposite signs), None where one is unknown. round_trip: sum of the minima,
    where constant clock errors cancel.
    """

    minimum_ns: int
    median_ns: float
    round_trip_ns: int
    bound_ns: int | None


def asymmetry(forward: Judged, backward: Judged) -> Asymmetry | None:
    """None where a direction has no packet. Delays by RFC 7679 sections 5.2 and 5.3, each of its own."""
    sides = []
    for side in (forward, backward):
        counted = side.counted
        if not counted.any():
            return None
        found = distribution(side.delay_ns[counted])
        bounds = side.bound_ns[counted]
        sides.append((found, None if (bounds < 0).any() else int(bounds.max())))
    (there, there_bound), (back, back_bound) = sides
    assert there.minimum is not None and back.minimum is not None
    assert there.median is not None and back.median is not None
    bound = None if there_bound is None or back_bound is None else there_bound + back_bound
    return Asymmetry(
        there.minimum - back.minimum, there.median - back.median, there.minimum + back.minimum, bound
    )
