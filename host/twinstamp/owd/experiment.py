# SPDX-License-Identifier: Apache-2.0
"""Experiments: sites, cards and trains in a TOML file, run and reported (docs/owd.md: Experiments)."""

from __future__ import annotations

import ipaddress
import time
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp import stamp
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.leap import leap_seconds
from twinstamp.owd.arrivals import ONE_WAY, Collector, Sent, TrainKey
from twinstamp.owd.report import Options, Report, report_of
from twinstamp.toml_table import Table, read_toml
from twinstamp.train import Train, load_train, train_from_dict
from twinstamp.units import format_ns, parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NS = 10**9
_LEAD_NS = 500_000  # a train, of a start that was not given: writing its registers takes simulated time
_LIVE_LEAD_NS = 2_000_000_000  # and real ones: all must be armed by then
_SLICE_S = 1e-3
_SHORTEST_LEAD_NS = 20_000


@dataclass(frozen=True)
class SimulatedClock:
    """The clock of a simulated card: it is set here, nobody disciplines it. ppb: offset of its oscillator,
    corrected by the card's rate as far as ``locked`` says that somebody did. offset_ns: its time's error.
    bound_ns: the bound it claims, -1 unknown.
    """

    ppb: int = 0
    offset_ns: int = 0
    locked: bool = True
    bound_ns: int = 0

    def __post_init__(self) -> None:
        if not -100_000 <= self.ppb <= 100_000:
            raise ConfigError(f"ppb is {self.ppb}: give -100000 to 100000")
        if not -1 <= self.bound_ns < 1 << 32 or not abs(self.offset_ns) < 1 << 30:
            raise ConfigError(f"bound {self.bound_ns} ns, offset {self.offset_ns} ns: at most 4.2 s and 1 s")


@dataclass(frozen=True)
class Site:
    """Where a card stands. card: as ``open_card`` takes it. port: of the card. address: of the port."""

    name: str
    card: str
    address: str
    port: int = 0
    clock: SimulatedClock | None = None

    @property
    def simulated(self) -> bool:
        """Whether its card is a simulated one."""
        return self.card.removeprefix("card:") == "sim"


@dataclass(frozen=True)
class NetPath:
    """A simulated network from one site to another (Cloud in docs/card.md). mtu: its largest IP packet."""

    source: str
    destination: str
    delay_ns: int
    jitter_ns: int = 0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_delay_ns: int = 10_000
    seed: int = 1
    mtu: int = 9000


@dataclass(frozen=True)
class Flight:
    """A train from one site to another."""

    source: str
    destination: str
    train: Train


@dataclass(frozen=True)
class Experiment:
    """What to run. duration_ns: all trains must have left within it. start: instant of the first packets, ns
    UTC, or None: as soon as all is armed. drain_ns: how long to receive after the last departure.
    """

    title: str
    sites: tuple[Site, ...]
    paths: tuple[NetPath, ...]
    flights: tuple[Flight, ...]
    duration_ns: int
    start_ns: int | None = None
    drain_ns: int = _NS
    seed: int = 1

    def site(self, name: str) -> Site:
        """The site of that name. ConfigError where there is none."""
        for site in self.sites:
            if site.name == name:
                return site
        raise ConfigError(f"no site {name!r}: there are {', '.join(s.name for s in self.sites)}")

    def check(self) -> None:
        """Refuses what cannot work, with the reason, before a card is opened: ConfigError.

        Trains that do not fit the wire or their period, sizes beyond the path's MTU, destinations that no
        path leads to or that are not the other site's, two trains that could not be told apart, trains
        longer than the experiment.
        """
        seen = set()
        for flight in self.flights:
            train, name = flight.train, f"train {flight.train.name!r}"
            source, destination = self.site(flight.source), self.site(flight.destination)
            if source.name == destination.name:
                raise ConfigError(f"{name}: from and to {source.name!r}: give two sites")
            for what, address, site in (
                ("source", train.source, source), ("destination", train.destination, destination)
            ):  # fmt: skip
                if ipaddress.ip_address(address) != ipaddress.ip_address(site.address):
                    raise ConfigError(
                        f"{name}: its {what} {address} is unreachable there: site {site.name!r} has "
                        f"{site.address}"
                    )
            if source.simulated != destination.simulated:
                raise ConfigError(f"{name}: no wire joins simulated and real cards")
            key = (train.source, train.destination, train.session)
            if key in seen:
                raise ConfigError(
                    f"{name}: another train has session {train.session} between the same addresses; give it "
                    "one of its own"
                )
            seen.add(key)
            found = train.check()
            span_ns = int(found.span * _NS)
            if span_ns > self.duration_ns:
                raise ConfigError(
                    f"{name} takes {format_ns(span_ns)}, the experiment {format_ns(self.duration_ns)}: send "
                    "fewer packets, or lengthen `duration`"
                )
            if source.simulated:
                path = self.path(source.name, destination.name)
                if path is None:
                    raise ConfigError(
                        f"{name}: {destination.name!r} is unreachable from {source.name!r}: no [[paths]] "
                        "leads there"
                    )
                size = train.size.limits[1] - 18 - 4 * len(train.vlans)
                if size > path.mtu:
                    raise ConfigError(
                        f"{name}: IP packets of {size} bytes, the MTU from {source.name!r} to "
                        f"{destination.name!r} is {path.mtu}"
                    )

    def path(self, source: str, destination: str) -> NetPath | None:
        """The simulated path between two sites, or None."""
        ends = (source, destination)
        return next((path for path in self.paths if (path.source, path.destination) == ends), None)


# The file


def load_experiment(path: str | Path) -> Experiment:
    """An experiment out of its TOML file. ConfigError names the file, the table and the key."""
    path = Path(path)
    data = read_toml(path)
    try:
        experiment = experiment_from_dict(data, path.parent)
        experiment.check()
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return experiment


def experiment_from_dict(data: Mapping[str, Any], folder: Path) -> Experiment:
    """An experiment out of what TOML holds; files of trains are looked for in ``folder``."""
    top = Table("the experiment", data)
    title = top.take("title", str, "")
    start = top.take("start", object)
    start_ns = None
    if start is not None:
        if not isinstance(start, datetime) or start.tzinfo is None:
            raise ConfigError("start: give a TOML date and time with its offset, as 2026-11-20T20:00:00Z")
        start_ns = int(start.timestamp()) * _NS + start.microsecond * 1000
    sites = tuple(_site(name, value) for name, value in top.need("sites", dict).items())
    if len(sites) < 2:
        raise ConfigError("sites: an experiment has two or more, as [sites.madrid]")
    names = {site.name for site in sites}
    paths = tuple(_path(value, i, names) for i, value in enumerate(top.take("paths", list, [])))
    if len({(p.source, p.destination) for p in paths}) < len(paths):
        raise ConfigError("paths: two lead from one site to the same other")
    flights = tuple(_flight(value, i, folder) for i, value in enumerate(top.take("trains", list, [])))
    if not flights:
        raise ConfigError("trains: there is none; give [[trains]] with from, to and file or a table")
    out = Experiment(
        title, sites, paths, flights, top.time_ns("duration", "10s"), start_ns, top.time_ns("drain", "1s"),
        top.take("seed", int, 1),
    )  # fmt: skip
    top.end()
    return out


def _site(name: str, data: object) -> Site:
    table = Table(f"sites.{name}", data)
    card, address = table.take("card", str, "sim"), table.need("address", str)
    try:
        ipaddress.ip_address(address)
    except ValueError:
        raise ConfigError(f"sites.{name}.address {address!r} is no IP address") from None
    port = table.take("port", int, 0)
    clock_data = table.take("clock", dict)
    site = Site(name, card, address, port)
    table.end()
    if site.simulated:
        values = Table(f"sites.{name}.clock", clock_data or {})
        bound = values.take("bound", str, "0ns")
        clock = SimulatedClock(
            ppb=values.take("ppb", int, 0),
            offset_ns=values.take("offset_ns", int, 0),
            locked=values.take("locked", bool, True),
            bound_ns=-1 if bound == "unknown" else parse_time_ns(bound, f"sites.{name}.clock.bound"),
        )
        values.end()
        return replace(site, clock=clock)
    if clock_data is not None:
        raise ConfigError(f"sites.{name}.clock: only a simulated card's clock is set here")
    return site


def _path(data: object, i: int, names: set[str]) -> NetPath:
    table = Table(f"paths[{i}]", data)
    source, destination = table.need("from", str), table.need("to", str)
    for end in (source, destination):
        if end not in names:
            raise ConfigError(f"paths[{i}]: no site {end!r}")
    out = NetPath(
        source,
        destination,
        delay_ns=parse_time_ns(table.need("delay", str), f"paths[{i}].delay"),
        jitter_ns=table.time_ns("jitter", "0ns"),
        loss=table.take("loss", float, 0.0),
        duplicate=table.take("duplicate", float, 0.0),
        reorder=table.take("reorder", float, 0.0),
        reorder_delay_ns=table.time_ns("reorder_delay", "10us"),
        seed=table.take("seed", int, i + 1),
        mtu=table.take("mtu", int, 9000),
    )
    table.end()
    return out


def _flight(data: object, i: int, folder: Path) -> Flight:
    table = Table(f"trains[{i}]", data)
    source, destination = table.need("from", str), table.need("to", str)
    file, inline = table.take("file", str), table.take("train", dict)
    table.end()
    if (file is None) == (inline is None):
        raise ConfigError(f"trains[{i}]: give `file` or a table `train`, one of them")
    try:
        train = load_train(folder / file) if file is not None else train_from_dict(inline)
    except ConfigError as error:
        raise ConfigError(f"trains[{i}]: {error}") from error
    return Flight(source, destination, train)


# The run


class _Place:
    """A site that takes part: its card, what it sends and what it receives."""

    def __init__(self, site: Site, card: Any, captures: Path | None, stack: ExitStack) -> None:
        self.site = site
        self.card = card
        self.collector = Collector(ports=None)
        self.runs: list[tuple[Flight, Any]] = []
        self._capture: Any = None
        self.capture_path: Path | None = None
        if captures is not None:
            from twinstamp.card.capture import CardCapture
            from twinstamp.io.files import create_capture

            self.capture_path = captures / f"{site.name}.pcapng"
            writer = stack.enter_context(create_capture(str(self.capture_path), format="pcapng"))
            self._capture = CardCapture(writer, card)

    def take(self, batch: Any) -> None:
        if self._capture is not None:
            self._capture.write(batch)
        self.collector.add(batch)

    def poll(self, timeout_s: float) -> None:
        for batch in self.card.receive(timeout_s):
            with batch:
                self.take(batch)

    def finish(self) -> None:
        if self._capture is not None:
            self._capture.finish(self.card)

    def time_ns(self) -> int:
        """Card time, ns TAI."""
        return int(self.card.time_q32() * _NS >> 32)

    def utc_ns(self) -> int:
        """Card time, ns UTC."""
        return int(self.card.utc_offset().utc_ns(self.time_ns()))

    def tai_ns(self, utc_ns: int) -> int:
        """A time of UTC as the card's, ns TAI."""
        return int(self.card.utc_offset().tai_ns(utc_ns))


def run(
    experiment: Experiment,
    *,
    only: str | None = None,
    allow_unsynchronised: bool = False,
    captures: Path | None = None,
    options: Options | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Runs an experiment and reports it.

    only: this site's part of it, for sites in several places; needs ``start`` in the file, and the report
    covers what arrives here. captures: folder for a capture of each site. progress: called with packets sent
    and packets in all.

    Errors, before a packet leaves: ConfigError and DeviceError with the reason: as Experiment.check, a card
    whose clock is not locked (unless allow_unsynchronised), a link that is down, a start in the past.
    """
    experiment.check()
    options = replace(options or Options(), unsynchronised=allow_unsynchronised)
    if only is not None:
        experiment.site(only)
        if experiment.start_ns is None:
            raise ConfigError("one site's part needs a common `start` in the experiment's file")
    with ExitStack() as stack:
        places = _open(experiment, only, captures, stack)
        _check_clocks(places, allow_unsynchronised)
        start_ns = _start_ns(experiment, places)
        _arm(experiment, places, start_ns, allow_unsynchronised)
        _receive(experiment, places, start_ns, progress)
        return _report(experiment, places, start_ns, options, captures)


def _open(
    experiment: Experiment, only: str | None, captures: Path | None, stack: ExitStack
) -> dict[str, _Place]:
    from twinstamp.card import open_any_card

    places = {}
    for i, site in enumerate(experiment.sites):
        if only is not None and site.name != only:
            continue
        card: Any = stack.enter_context(open_any_card(site.card, seed=experiment.seed + i))
        card.port(site.port)  # refuses a port that it has not
        places[site.name] = _Place(site, card, captures, stack)
    if any(place.site.simulated for place in places.values()):
        if only is not None:
            raise ConfigError("simulated cards run together: leave --site out")
        _wire(experiment, places, stack)
    for place in places.values():
        place.card.start()
    return places


def _wire(experiment: Experiment, places: dict[str, _Place], stack: ExitStack) -> None:
    """Joins simulated cards by their paths and sets their clocks, at one moment of simulated time."""
    from twinstamp.card.sim import Cloud

    clouds = []
    for path in experiment.paths:
        there, back = places[path.destination], places[path.source]
        cloud = Cloud(
            there.card.transport, there.site.port, delay_ns=path.delay_ns, jitter_ns=path.jitter_ns,
            loss=path.loss, duplicate=path.duplicate, reorder=path.reorder,
            reorder_delay_ns=path.reorder_delay_ns, seed=path.seed,
        )  # fmt: skip
        cloud.connect(back.card.transport, back.site.port)
        clouds.append(cloud)
    stack.callback(clouds.clear)  # they must live as long as the cards, and go first
    now_s = time.time_ns() // _NS if experiment.start_ns is None else experiment.start_ns // _NS - 1
    offset = leap_seconds().offset(now_s)
    for place in places.values():
        clock, card = place.site.clock, place.card
        if clock is None:
            continue
        card.transport.set_clock("core", ppb=clock.ppb)
        if clock.locked:
            card.set_rate_ppb(float(-Fraction(clock.ppb) / (1 + Fraction(clock.ppb, 10**9))))
        card.set_utc_offset(offset)
    latest = max(place.card.transport.now_fs for place in places.values())
    for place in places.values():
        clock, card = place.site.clock, place.card
        if clock is None:
            continue
        # Reading and writing registers takes simulated time, another amount on each card.
        ahead_ns = Fraction(card.transport.now_fs - latest, 10**6) + clock.offset_ns + _NS
        card.load_time_q32(round(((now_s + offset.s) + ahead_ns / _NS) * 2**32))
        card.write("clock.bound", 0xFFFFFFFF if clock.bound_ns < 0 else clock.bound_ns)
        card.write_fields("clock.control", locked=int(clock.locked))


def _check_clocks(places: dict[str, _Place], allow: bool) -> None:
    for place in places.values():
        clock = place.card.clock()
        if not clock.locked and not allow:
            raise DeviceError(
                f"site {place.site.name!r}: the clock of card {place.site.card} follows no reference, so its "
                "delays would mean little; wait until it is locked, or give --allow-unsynchronised"
            )


def _start_ns(experiment: Experiment, places: dict[str, _Place]) -> int:
    """When the trains start, ns UTC; the same for all sites."""
    now = max(place.utc_ns() for place in places.values())
    if experiment.start_ns is None:
        live = not all(place.site.simulated for place in places.values())
        return now + (_LIVE_LEAD_NS if live else _LEAD_NS * len(experiment.flights))
    if experiment.start_ns - now < _SHORTEST_LEAD_NS:
        raise ConfigError(f"`start` is {format_ns(now - experiment.start_ns)} ago, by the cards' time")
    return experiment.start_ns


def _arm(experiment: Experiment, places: dict[str, _Place], start_ns: int, allow: bool) -> None:
    try:
        for flight in experiment.flights:
            place = places.get(flight.source)
            if place is not None:
                at = Fraction(place.tai_ns(start_ns), _NS)
                sent = place.card.port(place.site.port).send(
                    flight.train, start=at, report=True, allow_unsynchronised=allow
                )
                place.runs.append((flight, sent))
    except BaseException:
        # None of them leaves when one is refused.
        for place in places.values():
            for _, sent in place.runs:
                sent.stop()
        raise


def _receive(
    experiment: Experiment,
    places: dict[str, _Place],
    start_ns: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    total = sum(flight.train.total for place in places.values() for flight, _ in place.runs)
    last_ns = start_ns
    for flight in experiment.flights:
        last_ns = max(last_ns, start_ns + int(flight.train.check().span * _NS))
    end_ns = last_ns + experiment.drain_ns
    ends_ns = {name: place.tai_ns(start_ns) + end_ns - start_ns for name, place in places.items()}
    while any(place.time_ns() < ends_ns[name] for name, place in places.items()):
        for name, place in places.items():
            if place.time_ns() < ends_ns[name]:
                place.poll(_SLICE_S / max(1, len(places)))
        if progress is not None:
            progress(sum(sent.status().sent for place in places.values() for _, sent in place.runs), total)
    for place in places.values():
        place.card.flush()
        place.poll(1e-5)
    for place in places.values():
        for _, sent in place.runs:
            sent.stop()
        place.finish()


def _report(
    experiment: Experiment,
    places: dict[str, _Place],
    start_ns: int,
    options: Options,
    captures: Path | None,
) -> Report:
    arrivals, accounts, told = [], [], []
    schedules: dict[tuple[str, str, int], Any] = {}
    for flight in experiment.flights:
        train = flight.train
        key = (train.source, train.destination, train.session)
        schedules[key] = start_ns + train.schedule().ns()
    refused: dict[str, int] = {}
    for place in places.values():
        arrivals += place.collector.arrivals()
        for reason, n in place.collector.refused.items():
            refused[reason] = refused.get(reason, 0) + n
        for flight, sent in place.runs:
            account, about = _account(flight, sent, place, start_ns)
            accounts.append(account)
            told.append(about)
    here = set(places)
    accounts = [
        account
        for account, flight in zip(
            accounts, [flight for place in places.values() for flight, _ in place.runs], strict=True
        )
        if flight.destination in here
    ]
    return report_of(
        arrivals, sent=accounts, options=options, schedules=schedules,
        until_ns=max(place.utc_ns() for place in places.values()),
        frames=sum(place.collector.frames for place in places.values()), refused=refused,
        sources=[str(place.capture_path) for place in places.values() if place.capture_path is not None],
        experiment={
            "kind": "experiment",
            "title": experiment.title,
            "start_ns": start_ns,
            "duration_ns": experiment.duration_ns,
            "drain_ns": experiment.drain_ns,
            "sites": [_plain(site) for site in experiment.sites],
            "paths": [_plain(path) for path in experiment.paths],
            "simulated": any(place.site.simulated for place in places.values()),
            "sent": told,
        },
    )  # fmt: skip


def _plain(record: Any) -> dict[str, Any]:
    out = {field.name: getattr(record, field.name) for field in fields(record)}
    return {name: _plain(v) if isinstance(v, SimulatedClock) else v for name, v in out.items()}


def _account(flight: Flight, sent: Any, place: _Place, start_ns: int) -> tuple[Sent, dict[str, Any]]:
    """What the card says of a train it sent. Departures that found no room on their way to the host stand at
    their scheduled time, and are counted.
    """
    train = flight.train
    from twinstamp.card.linux_trains import LinuxTrainRun

    departures = sent.departures()
    status = sent.status()
    # A card sends in order; an interface may refuse packets between others.
    left = sent.taken() if isinstance(sent, LinuxTrainRun) else np.arange(int(status.sent), dtype=np.int64)
    at_ns = start_ns + train.schedule().ns()
    number = departures["sequence"].astype(np.int64)
    told = np.isin(number, left)
    number, stamps = number[told], departures["stamp_q32"][told]
    at_ns[number] = place.card.utc_offset().utc_ns(stamp.ns_from_q32(stamps))
    key = TrainKey(train.source, train.destination, train.destination_port, -1, train.session, ONE_WAY)
    about = {
        "train": key.name,
        "name": train.name,
        "from": flight.source,
        "to": flight.destination,
        "packets": train.total,
        "sent": len(left),
        "late": int(status.late),
        "worst_delay_ns": round(float(status.worst_delay * _NS), 3),
        "departures_told": len(number),
        "synchronised": bool(sent.synchronised),
    }
    return Sent(key, left.astype(np.uint32), at_ns[left]), about
