# SPDX-License-Identifier: Apache-2.0
"""Capacity and available bandwidth from the dispersion of trains (docs/owd.md).

Bits are those of the IP packet: IP-layer capacity (RFC 5136 section 2.3.2) and IP-layer available capacity
(section 2.3.4) of the path at the time of the train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from twinstamp.owd.metrics import Distribution, counted_by_number, distribution

if TYPE_CHECKING:
    import numpy.typing as npt

    from twinstamp.owd.metrics import Judged

    Int64 = npt.NDArray[np.int64]

_NS = 1_000_000_000
_LEAST_PAIRS = 10
_LEAST_CHIRP = 6
_EXCURSION_F = 1.5  # decrease factor and least length of an excursion: the values of pathChirp's paper
_EXCURSION_L = 5


@dataclass(frozen=True)
class PacketPairs:
    """Capacity from packet pairs, bit/s.

    gap_ns: pairs left at most that far apart. pairs: such pairs of one size that arrived apart. rate_bps: the
    distribution of 8 * bytes / gap on arrival, rounded down. mode_bps: where the rates are densest (the
    half-sample mode), the estimate; None with fewer than 10 pairs. sent_bps: the greatest rate at which they
    left: an estimate near it is a lower limit, as the path did not spread the pairs.
    limited_by_sender: mode is above 0.9 of sent_bps. bound_share: by how much the rounding of the four
    stamps to ns can move one pair's rate at the mode, relative.
    """

    gap_ns: int
    pairs: int
    rate_bps: Distribution
    mode_bps: int | None
    sent_bps: int | None
    limited_by_sender: bool
    bound_share: float | None


def packet_pairs(judged: Judged, gap_ns: int | None = None) -> PacketPairs | None:
    """Capacity by packet pairs: C. Dovrolis, P. Ramanathan, D. Moore, "Packet-dispersion techniques and a
    capacity-estimation methodology", IEEE/ACM Trans. Networking 12(6), 2004, sections II and IV.

    A pair: consecutive numbers, equal sizes, both counted and in order, that left at most ``gap_ns`` apart;
    None: 1.1 times the smallest gap of the train. None is returned where there is no pair.
    """
    ip_bits, left, came = _neighbours(judged)
    usable = (left > 0) & (came > 0)
    if not usable.any():
        return None
    if gap_ns is None:
        gap_ns = int(left[usable].min()) * 11 // 10
    chosen = usable & (left <= gap_ns)
    if not chosen.any():
        return None
    bits, gaps, before = ip_bits[chosen], came[chosen], left[chosen]
    rates = bits * _NS // gaps
    sent = int((bits * _NS // before).max())
    mode = half_sample_mode(np.sort(rates)) if len(rates) >= _LEAST_PAIRS else None
    share = None
    if mode:
        share = float(1 / max(1.0, float(np.median(bits)) * _NS / mode))
    return PacketPairs(
        gap_ns, len(rates), distribution(rates), mode, sent, mode is not None and 10 * mode > 9 * sent, share
    )


def half_sample_mode(ordered: Int64) -> int:
    """Mode of a sorted sample: the middle of the half that is shortest, again and again.

    D. R. Bickel, R. Fruehwirth, "On a fast, robust estimator of the mode", Computational Statistics & Data
    Analysis 50(12), 2006.
    """
    while len(ordered) > 2:
        half = (len(ordered) + 1) // 2
        widths = ordered[half - 1 :] - ordered[: len(ordered) - half + 1]
        at = int(widths.argmin())
        ordered = ordered[at : at + half]
        if ordered[0] == ordered[-1]:
            break
    return int(ordered[0] + (ordered[-1] - ordered[0]) // 2)


def _neighbours(judged: Judged) -> tuple[Int64, Int64, Int64]:
    """Of consecutive numbers of equal size, both counted: bits of the second, gap at departure and on
    arrival in ns.
    """
    order = counted_by_number(judged)
    size = judged.arrivals.ip_bytes[order]
    same = (np.diff(judged.position[order]) == 1) & (size[1:] == size[:-1]) & (size[1:] > 0)
    left = np.diff(judged.sent_ns[order])[same]
    came = np.diff(judged.received_ns[order])[same]
    return size[1:][same].astype(np.int64) * 8, left, came


@dataclass(frozen=True)
class Chirps:
    """Available bandwidth from chirps, bit/s.

    chirps: complete ones that were used. packets: per chirp. low_bps, high_bps: the rates that a chirp
    spans; outside them nothing can be said. available_bps: distribution of the estimates, one a chirp.
    estimates_bps, at_ns: i64[chirps], the estimate and the departure of each chirp's first packet, ns UTC.
    """

    chirps: int
    packets: int
    low_bps: int
    high_bps: int
    available_bps: Distribution
    estimates_bps: Int64
    at_ns: Int64


def chirps(judged: Judged) -> Chirps | None:
    """Available bandwidth by chirps: V. Ribeiro, R. Riedi, R. Baraniuk, J. Navratil, L. Cottrell, "pathChirp:
    Efficient available bandwidth estimation for network paths", PAM 2003, sections 3 and 4.

    A chirp: consecutive packets whose gaps shrink, at least 6 of them, all of one size; those that are
    complete (as many packets as most have) are used. Needs no synchronised clocks. None where the train has
    no chirps.
    """
    order = counted_by_number(judged)
    position = judged.position[order]
    if len(position) < _LEAST_CHIRP:
        return None
    sent = judged.sent_ns[order]
    gaps = np.diff(sent)
    size = judged.arrivals.ip_bytes[order].astype(np.int64)
    joined = (np.diff(position) == 1) & (np.diff(size) == 0) & (gaps > 0)
    shrinks = np.zeros(len(gaps) + 1, np.bool_)
    shrinks[1:-1] = joined[1:] & joined[:-1] & (gaps[1:] < gaps[:-1] - gaps[:-1] // 100)
    # Runs of shrinking gaps, each with the longer gap before it, which is the chirp's own where the rate
    # goes on growing by the same factor, and the pause between two chirps otherwise.
    change = np.diff(np.concatenate(([False], shrinks)).astype(np.int8))
    first, last = np.flatnonzero(change == 1) - 1, np.flatnonzero(change == -1) - 1
    long_enough = last - first + 2 >= _LEAST_CHIRP
    first, last = first[long_enough], last[long_enough]
    three = gaps[first[:, None] + np.arange(3)].astype(np.float64)
    pause = np.abs(three[:, 0] * three[:, 2] / three[:, 1] ** 2 - 1) > 0.2
    start = first + pause
    length = last - start + 2
    # Gaps drawn at random shrink several times in a row now and then.
    start, length = start[length >= _LEAST_CHIRP], length[length >= _LEAST_CHIRP]
    if 2 * int(length.sum()) < len(position):
        return None
    if not len(start):
        return None
    packets = int(np.bincount(length).argmax())
    start = start[length == packets]
    at = start[:, None] + np.arange(packets)
    left = sent[at]
    delay = judged.delay_ns[order][at]
    bits = size[start] * 8
    gap = np.diff(left, axis=1)
    rate = bits[:, None] * _NS // gap
    queue = delay - delay.min(axis=1, keepdims=True)
    estimates = _excursions(queue[:, :-1], rate, gap)
    return Chirps(
        len(start), packets, int(rate[:, 0].min()), int(rate[:, -1].max()), distribution(estimates),
        estimates, left[:, 0],
    )  # fmt: skip


def _excursions(queue: Int64, rate: Int64, gap: Int64) -> Int64:
    """pathChirp's estimate of each chirp (section 4.2 of the paper). Arrays are i64[chirps, packets-1].

    Step by step along the chirp, all chirps at once.
    """
    n, packets = queue.shape
    # End of the excursion that starts at i: the first j with q(j) - q(i) < (greatest so far - q(i)) / F.
    estimate = np.zeros((n, packets), np.int64)
    i = np.zeros(n, np.int64)
    rows = np.arange(n)
    last_start = np.full(n, packets - 1, np.int64)
    increasing = np.zeros((n, packets), np.bool_)
    increasing[:, :-1] = np.diff(queue, axis=1) > 0
    while True:
        active = rows[i < packets - 1]
        if not active.size:
            break
        begin = i[active]
        rises = increasing[active, begin]
        # Where the delay does not rise no excursion starts.
        i[active[~rises]] += 1
        active, begin = active[rises], begin[rises]
        if not active.size:
            continue
        base = queue[active, begin]
        greatest = np.zeros(len(active), np.int64)
        end = np.full(len(active), packets, np.int64)
        for j in range(1, packets):
            place = begin + j
            inside = (place < packets) & (end == packets)
            if not inside.any():
                break
            above = queue[active, np.minimum(place, packets - 1)] - base
            greatest = np.where(inside, np.maximum(greatest, above), greatest)
            stops = inside & (above * _EXCURSION_F < greatest)
            end[stops] = place[stops]
        for row, b, e in zip(active.tolist(), begin.tolist(), end.tolist(), strict=True):
            if e == packets:
                # Case (b): it lasts to the end of the chirp; from its start on the path is full.
                last_start[row] = b
                i[row] = packets
            else:
                if e - b >= _EXCURSION_L:
                    # Case (a): while the delay rises, the rate is more than what is available.
                    part = slice(b, e)
                    estimate[row, part] = np.where(increasing[row, part], rate[row, part], 0)
                i[row] = e
    fill = rate[rows, last_start]
    estimate = np.where(estimate == 0, fill[:, None], estimate)
    weighted = (estimate.astype(np.float64) * gap).sum(axis=1) / gap.sum(axis=1)
    out: Int64 = weighted.astype(np.int64)
    return out
