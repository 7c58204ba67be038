# SPDX-License-Identifier: Apache-2.0
"""One-way delay of trains, reported (docs/owd.md): typed results, and the versioned JSON made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp import stamp
from twinstamp.errors import ConfigError, InputError
from twinstamp.leap import leap_seconds
from twinstamp.owd import bandwidth, metrics
from twinstamp.owd.arrivals import BACK, COLUMNS, ONE_WAY, THERE, Arrivals, Sent, TrainKey, collect
from twinstamp.owd.metrics import Distribution, Judged

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy.typing as npt

FORMAT = "twinstamp-owd"
VERSION = 1


@dataclass(frozen=True)
class Options:
    """How delays are judged and shown; as in ``metrics.judge`` and ``metrics.series``.

    ttl_sent: TTL at departure. interval_ns: bin of the time series, None: fitting. pair_gap_ns: greatest gap
    of a packet pair, None: 1.1 times the smallest. unsynchronised: the user allowed clocks that do not follow
    a reference; shows in every output.
    """

    timeout_ns: int = 10_000_000_000
    least_ns: int = 0
    extra_bound_ns: int = 0
    ttl_sent: int = 255
    interval_ns: int | None = None
    pair_gap_ns: int | None = None
    unsynchronised: bool = False


@dataclass(frozen=True)
class ClockUse:
    """A clock's state and the packets stamped in it. bound_ns: -1 unknown. given: bound told by the user."""

    side: str
    source: str
    synchronised: bool
    bound_ns: int
    epoch: int
    given: bool
    packets: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True)
class TrainReport:
    """What is known of one direction of one train. Times in ns, UTC.

    delay: of packets that arrived in time (RFC 7679 section 3); delay_with_lost: lost ones as infinitely
    large (RFC 7679 section 5.1). pdv: delay less the smallest delay (RFC 5481 section 4.2). ipdv: RFC 3393,
    of consecutive packets; undefined: pairs of which one is lost. bound: of the delays. hops: hops → packets.
    flagged: flag → packets. pairs, chirps: None where the train has none. schedule_ns: when each number was
    to leave, ns UTC by sequence number, where the sender told.
    """

    key: TrainKey
    judged: Judged
    sent: Sent | None
    delay: Distribution
    delay_with_lost: Distribution
    pdv: Distribution
    ipdv: Distribution
    bound: Distribution
    loss: metrics.Loss
    duplication: metrics.Duplication
    reordering: metrics.Reordering
    hops: dict[int, int]
    flagged: dict[str, int]
    clocks: tuple[ClockUse, ...]
    series: metrics.Series
    pairs: bandwidth.PacketPairs | None
    chirps: bandwidth.Chirps | None
    schedule_ns: npt.NDArray[np.int64] | None = None

    def edges_ns(self) -> list[int]:
        """First and last departures and arrivals, ns UTC; fewer where nothing arrived or none are known."""
        columns = [self.judged.arrivals.sent_ns, self.judged.arrivals.received_ns]
        if self.sent is not None:
            columns.append(self.sent.sent_ns)
        return [int(edge(column)) for column in columns if len(column) for edge in (np.min, np.max)]

    def table(self) -> dict[str, npt.NDArray[Any]]:
        """Every packet in the order of arrival, as columns (docs/owd.md: Packets)."""
        judged, arrivals = self.judged, self.judged.arrivals
        spread = {}
        for name in ("extent", "late_ns", "degree"):
            values = getattr(judged, name)
            spread[name] = np.zeros(len(judged), values.dtype)
            spread[name][judged.reordered] = values
        return {
            "sequence": arrivals.sequence,
            "sent_ns": arrivals.sent_ns,
            "received_ns": arrivals.received_ns,
            "delay_ns": judged.delay_ns,
            "bound_ns": judged.bound_ns,
            "flags": judged.flags,
            **spread,
            "ttl": arrivals.ttl,
            "ipid": arrivals.ipid,
            "ip_bytes": arrivals.ip_bytes,
            "size": arrivals.size,
            "error": arrivals.error,
            "clock": arrivals.clock,
        }

    def frame(self) -> Any:
        """``table()`` as a pandas DataFrame. ConfigError where pandas is not installed."""
        try:
            import pandas
        except ImportError as error:
            raise ConfigError("pandas is not installed: pip install pandas, or use table()") from error
        return pandas.DataFrame(self.table())

    def summary(self) -> dict[str, Any]:
        """The JSON object of this train (docs/owd.md: JSON)."""
        loss, reordering, series = self.loss, self.reordering, self.series
        return {
            "train": _key(self.key),
            "packets": len(self.judged),
            "first_sent_ns": _edge(self.judged.arrivals.sent_ns, np.min),
            "last_sent_ns": _edge(self.judged.arrivals.sent_ns, np.max),
            "first_received_ns": _edge(self.judged.arrivals.received_ns, np.min),
            "last_received_ns": _edge(self.judged.arrivals.received_ns, np.max),
            "arrival_stamps_backwards": self.judged.arrivals.backwards,
            "delay_ns": _distribution(self.delay),
            "delay_with_lost_ns": _distribution(self.delay_with_lost),
            "bound_ns": _distribution(self.bound),
            "ipdv_ns": {"selection": "consecutive numbers", **_distribution(self.ipdv)},
            "pdv_ns": {"reference": "minimum", **_distribution(self.pdv)},
            "loss": {
                "timeout_ns": loss.timeout_ns,
                "sent": loss.sent,
                "sent_known": loss.known,
                "lost": loss.lost,
                "missing": loss.missing,
                "late": loss.late,
                "undecided": loss.undecided,
                "ratio": loss.ratio,
                "longest": int((loss.ranges[:, 1] - loss.ranges[:, 0]).max()) + 1 if len(loss.ranges) else 0,
                "gaps": len(loss.ranges),
                "round_trip": self.key.way == THERE,
            },
            "duplicates": {
                "copies": self.duplication.copies,
                "replicated": self.duplication.replicated,
                "conflicting": self.duplication.conflicting,
                "fraction": self.duplication.fraction,
                "rate": self.duplication.rate,
            },
            "reordering": {
                "reordered": reordering.reordered,
                "ratio": reordering.ratio,
                "extent": _distribution(reordering.extent),
                "late_ns": _distribution(reordering.late_ns),
                "free_runs": _distribution(reordering.runs),
                "greatest_degree": reordering.greatest_degree,
                "n_reordered": list(reordering.n_reordered),
            },
            "hops": {str(hops): n for hops, n in self.hops.items()},
            "flagged": self.flagged,
            "clocks": [_clock(clock) for clock in self.clocks],
            "capacity": None if self.pairs is None else _pairs(self.pairs),
            "available": None if self.chirps is None else _chirps(self.chirps),
            "series": {
                "width_ns": series.width_ns,
                **{
                    name: [None if v == metrics.NONE_NS else v for v in getattr(series, name).tolist()]
                    for name in (
                        "from_ns", "received", "lost", "duplicates", "reordered", "minimum_ns", "median_ns",
                        "p99_ns", "maximum_ns", "bound_ns",
                    )
                },
            },
        }  # fmt: skip


@dataclass(frozen=True)
class DirectionPair:
    """Two directions between the same hosts: indices into Report.trains, and their asymmetry."""

    forward: int
    backward: int
    asymmetry: metrics.Asymmetry


@dataclass(frozen=True)
class Report:
    """All trains of some captures. frames: read; refused: those that are no test packets, by reason.

    truncated: what is missing of captures that were cut short. sources, sent_sources: names of the captures.
    experiment: what ``twinstamp owd run`` adds, else None. until_ns: when watching ended, ns UTC: what
    is missing and left less than the time-out before is undecided; None where nothing arrived.
    """

    trains: tuple[TrainReport, ...]
    pairs: tuple[DirectionPair, ...]
    options: Options
    frames: int
    refused: dict[str, int]
    truncated: tuple[str, ...]
    sources: tuple[str, ...]
    sent_sources: tuple[str, ...]
    experiment: dict[str, Any] | None = None
    until_ns: int | None = None

    @property
    def unsynchronised(self) -> int:
        """Packets whose delay rests on a clock that does not follow a reference."""
        return sum(train.flagged["unsynchronised"] for train in self.trains)

    def json(self) -> dict[str, Any]:
        """The versioned JSON (docs/owd.md: JSON): only numbers, texts, lists and objects."""
        from twinstamp import __version__

        options = self.options
        return {
            "format": FORMAT,
            "version": VERSION,
            "twinstamp": __version__,
            "timescale": "utc",
            "options": {
                "timeout_ns": options.timeout_ns,
                "least_delay_ns": options.least_ns,
                "extra_bound_ns": options.extra_bound_ns,
                "ttl_sent": options.ttl_sent,
                "allow_unsynchronised": options.unsynchronised,
            },
            "unsynchronised_packets": self.unsynchronised,
            "captures": list(self.sources),
            "sent_captures": list(self.sent_sources),
            "truncated": list(self.truncated),
            "frames": self.frames,
            "refused": self.refused,
            "experiment": self.experiment,
            "trains": [train.summary() for train in self.trains],
            "directions": [
                {
                    "forward": pair.forward,
                    "backward": pair.backward,
                    "asymmetry_minimum_ns": pair.asymmetry.minimum_ns,
                    "asymmetry_median_ns": pair.asymmetry.median_ns,
                    "asymmetry_bound_ns": pair.asymmetry.bound_ns,
                    "round_trip_minimum_ns": pair.asymmetry.round_trip_ns,
                }
                for pair in self.pairs
            ],
        }


def _edge(values: npt.NDArray[np.int64], which: Any) -> int | None:
    return int(which(values)) if len(values) else None


def _key(key: TrainKey) -> dict[str, Any]:
    return {"name": key.name, **key._asdict()}


def _distribution(found: Distribution) -> dict[str, Any]:
    return {
        "n": found.n, "undefined": found.undefined, "min": found.minimum, "max": found.maximum,
        "sum": found.sum, "mean": found.mean, "median": found.median, **found.percentiles,
    }  # fmt: skip


def _clock(clock: ClockUse) -> dict[str, Any]:
    return {
        "side": clock.side, "source": clock.source, "synchronised": clock.synchronised,
        "bound_ns": None if clock.bound_ns < 0 else clock.bound_ns, "bound_given": clock.given,
        "epoch": clock.epoch, "packets": clock.packets, "first_ns": clock.first_ns, "last_ns": clock.last_ns,
    }  # fmt: skip


def _pairs(pairs: bandwidth.PacketPairs) -> dict[str, Any]:
    return {
        "method": "packet pairs, half-sample mode (Dovrolis et al. 2004; Bickel and Fruehwirth 2006)",
        "gap_ns": pairs.gap_ns, "pairs": pairs.pairs, "estimate_bps": pairs.mode_bps,
        "sent_bps": pairs.sent_bps, "limited_by_sender": pairs.limited_by_sender,
        "stamp_share": pairs.bound_share, "rate_bps": _distribution(pairs.rate_bps),
    }  # fmt: skip


def _chirps(chirps: bandwidth.Chirps) -> dict[str, Any]:
    return {
        "method": "chirps (Ribeiro et al., pathChirp, PAM 2003)",
        "chirps": chirps.chirps, "packets": chirps.packets, "low_bps": chirps.low_bps,
        "high_bps": chirps.high_bps, "estimate_bps": chirps.available_bps.median,
        "available_bps": _distribution(chirps.available_bps),
    }  # fmt: skip


def train_report(
    arrivals: Arrivals,
    *,
    sent: Sent | None = None,
    options: Options | None = None,
    schedule_ns: npt.NDArray[np.int64] | None = None,
    until_ns: int | None = None,
) -> TrainReport:
    """All metrics of one train. sent: the sender's account. until_ns: end of the capture."""
    options = options or Options()
    judged = metrics.judge(
        arrivals, timeout_ns=options.timeout_ns, least_ns=options.least_ns,
        extra_bound_ns=options.extra_bound_ns,
    )  # fmt: skip
    lost = metrics.loss(judged, sent, until_ns=until_ns)
    counted = judged.counted
    delays = judged.delay_ns[counted]
    delays.sort()
    delay = metrics.distribution_of_sorted(delays, undefined=lost.lost)
    with_lost = metrics.distribution_of_sorted(delays, undefined=lost.lost, with_undefined=True)
    delays -= delays[:1] if len(delays) else 0
    pdv = metrics.distribution_of_sorted(delays)
    variation = metrics.ipdv(judged)
    bounds = judged.bound_ns[counted]
    known = bounds[bounds >= 0]
    return TrainReport(
        key=arrivals.key,
        judged=judged,
        sent=sent,
        delay=delay,
        delay_with_lost=with_lost,
        pdv=pdv,
        ipdv=metrics.distribution(variation, undefined=max(0, lost.sent - 1 - len(variation))),
        bound=metrics.distribution(known, undefined=len(bounds) - len(known)),
        loss=lost,
        duplication=metrics.duplication(judged),
        reordering=metrics.reorder_summary(judged),
        hops=metrics.hops(judged, options.ttl_sent),
        flagged={name: int(np.count_nonzero(judged.flags & bit)) for name, bit in metrics.FLAGS.items()},
        clocks=_clock_uses(judged),
        series=metrics.series(judged, options.interval_ns),
        pairs=bandwidth.packet_pairs(judged, options.pair_gap_ns),
        chirps=bandwidth.chirps(judged),
        schedule_ns=schedule_ns,
    )


def _clock_uses(judged: Judged) -> tuple[ClockUse, ...]:
    arrivals = judged.arrivals
    out = []
    # Not np.unique: 16-bit values are counted faster than sorted.
    for side, column, at in (
        ("sender", arrivals.error & ~np.uint16(stamp.ERROR_PTP), arrivals.sent_ns),
        ("receiver", arrivals.clock, arrivals.received_ns),
    ):
        counts = np.bincount(column, minlength=1)
        values = np.flatnonzero(counts)
        if len(values) == 1:
            first, last = at.min(keepdims=True), at.max(keepdims=True)
        else:
            grouped = at[np.argsort(column, kind="stable")]  # 16 bits: a radix sort
            starts = np.cumsum(counts[values]) - counts[values]
            first, last = np.minimum.reduceat(grouped, starts), np.maximum.reduceat(grouped, starts)
        for k, value in enumerate(values.tolist()):
            if side == "sender":
                bound = int(stamp.bound_ns(np.array([value], np.uint16))[0])
                state = ("packet", bool(value & stamp.ERROR_SYNCHRONISED), bound, 0, False)
            else:
                clock = arrivals.clocks[value]
                state = (clock.source, clock.locked, clock.bound_ns, clock.epoch, clock.given)
            out.append(ClockUse(side, *state, int(counts[value]), int(first[k]), int(last[k])))
    return tuple(out)


def report_of(
    arrivals: Sequence[Arrivals],
    *,
    sent: Sequence[Sent] = (),
    options: Options | None = None,
    schedules: Mapping[tuple[str, str, int], npt.NDArray[np.int64]] | None = None,
    until_ns: int | None = None,
    **about: Any,
) -> Report:
    """A report of arrivals that are at hand. schedules: (source, destination, session) → when each number was
    to leave, ns UTC; or after the first, then the start is the one at which no packet left early. Without an
    account of the sender's it serves as that.

    A train that was sent and of which nothing arrived is reported, too: all of it lost.
    """
    options = options or Options()
    if not any(len(train) for train in arrivals) and not sent:
        raise InputError("no test packet was found: check the captures and --port")
    accounts = list(sent)
    trains = []
    ends = [int(train.received_ns[-1]) for train in arrivals if len(train)]
    end = until_ns if until_ns is not None else max(ends, default=None)
    for train in arrivals:
        account = _account_of(train, accounts)
        if account is not None:
            accounts.remove(account)
        schedule = _schedule(train, schedules)
        if account is None and schedule is not None and train.key.way == ONE_WAY:
            # What the train's file says is sent; its schedule stands in for departures of what is missing.
            account = Sent(train.key, np.arange(len(schedule), dtype=np.uint32), schedule)
        trains.append(train_report(train, sent=account, options=options, schedule_ns=schedule, until_ns=end))
    for account in accounts:
        trains.append(train_report(_nothing(account.key), sent=account, options=options, until_ns=end))
    trains.sort(key=lambda train: (train.key.session, train.key))
    return Report(
        trains=tuple(trains),
        pairs=tuple(_direction_pairs(trains)),
        options=options,
        frames=about.get("frames", sum(len(train) for train in arrivals)),
        refused=about.get("refused", {}),
        truncated=tuple(about.get("truncated", ())),
        sources=tuple(about.get("sources", ())),
        sent_sources=tuple(about.get("sent_sources", ())),
        experiment=about.get("experiment"),
        until_ns=end,
    )


def _schedule(
    train: Arrivals, schedules: Mapping[tuple[str, str, int], npt.NDArray[np.int64]] | None
) -> npt.NDArray[np.int64] | None:
    key = train.key
    schedule = None if schedules is None else schedules.get((key.source, key.destination, key.session))
    if schedule is None or key.way == BACK or not len(schedule) or not len(train):
        return None
    known = train.sequence < len(schedule)
    if schedule[0] == 0 and known.any():
        sent_ns = leap_seconds().departures(train.received_ns, train.sent_ns)
        schedule = schedule + (sent_ns[known] - schedule[train.sequence[known]]).min()
    return schedule


def _account_of(train: Arrivals, accounts: Sequence[Sent]) -> Sent | None:
    """The sender's account of a train: of the same key, else the only one of its session (addresses may be
    translated on the way), of the same run.
    """
    if train.key.way == THERE:
        key = train.key._replace(way=ONE_WAY)
        found = [account for account in accounts if account.key == key]
        return found[0] if len(found) == 1 else None
    exact = [account for account in accounts if account.key == train.key]
    if exact:
        return exact[0]
    key = train.key
    alike = [
        account
        for account in accounts
        if key.session
        and (account.key.session, account.key.way, account.key.run) == (key.session, key.way, key.run)
    ]
    return alike[0] if len(alike) == 1 else None


def _nothing(key: TrainKey) -> Arrivals:
    return Arrivals.of(key, (), [[]] * len(COLUMNS))


def _direction_pairs(trains: Sequence[TrainReport]) -> list[DirectionPair]:
    """Trains between the same hosts in opposite directions: there and back of one session, or one each."""
    out = []
    by_ends: dict[tuple[str, str, str], list[int]] = {}
    for i, train in enumerate(trains):
        key = train.key
        by_ends.setdefault((key.source, key.destination, key.way), []).append(i)
    for (source, destination, way), here in by_ends.items():
        if way == BACK or (way == ONE_WAY and source >= destination):
            continue
        other = BACK if way == THERE else ONE_WAY
        there = list(by_ends.get((destination, source, other), ()))
        for i in here:
            # The session's own reflections; else the trains in the order of their sessions.
            same = [j for j in there if way == ONE_WAY or trains[j].key.session == trains[i].key.session]
            if not same:
                continue
            there.remove(same[0])
            found = metrics.asymmetry(trains[i].judged, trains[same[0]].judged)
            if found is not None:
                out.append(DirectionPair(i, same[0], found))
    return out


def report_captures(
    captures: Sequence[str],
    *,
    sent: Sequence[str] = (),
    ports: Collection[int] | None = (stamp.UDP_PORT,),
    receive_bound_ns: int = -1,
    tai_utc_s: int | None = None,
    options: Options | None = None,
    schedules: Mapping[tuple[str, str, int], npt.NDArray[np.int64]] | None = None,
    progress: Any = None,
) -> Report:
    """The report of captures taken where trains arrive; ``sent``: captures taken where they left.

    ports: UDP ports of test packets, None: any. receive_bound_ns: bound of the receiving clock where its
    capture names none. tai_utc_s: TAI - UTC for stamps in PTP format; None: by the table of leap seconds.

    Errors: InputError for a damaged capture or one without test packets, ConfigError for a bad option.
    """
    received = collect(
        captures, ports=ports, receive_bound_ns=receive_bound_ns, tai_utc_s=tai_utc_s, progress=progress
    )
    truncated = list(received.truncated)
    accounts: list[Sent] = []
    if sent:
        sender = collect(sent, ports=ports, tai_utc_s=tai_utc_s, outgoing=None, progress=progress)
        truncated += sender.truncated
        accounts = [account for account in sender.sent() if account.key.way == ONE_WAY]
    return report_of(
        received.arrivals(), sent=accounts, options=options, schedules=schedules, frames=received.frames,
        refused=received.refused, truncated=truncated, sources=captures, sent_sources=sent,
    )  # fmt: skip


def with_experiment(found: Report, experiment: dict[str, Any]) -> Report:
    """The same report with what ``twinstamp owd run`` says of its experiment."""
    return replace(found, experiment=experiment)
