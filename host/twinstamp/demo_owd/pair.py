# SPDX-License-Identifier: Apache-2.0
"""Two simulated cards with a cloud between them, brought from one epoch of the experiment to the next."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinstamp import stamp
from twinstamp.card import open_card
from twinstamp.card.sim import CLOUD_COPY, CLOUD_LOST, Cloud, frames
from twinstamp.errors import DeviceError
from twinstamp.leap import leap_seconds
from twinstamp.owd.arrivals import COLUMNS, ONE_WAY, Arrivals, Collector, Sent, TrainKey
from twinstamp.owd.report import Report, report_of

if TYPE_CHECKING:
    import numpy.typing as npt

    from twinstamp.card.card import Card
    from twinstamp.demo_owd.clocks import ClockAt
    from twinstamp.owd.experiment import NetPath
    from twinstamp.train import Train

_NS, _FS = 10**9, 10**15
_PORT = 0
_PROBE_PORT = 3  # frames on its wire tell card time; nothing else uses it
_LEAD_FS = 60 * 10**9  # from setting both clocks to the first packet: writing the trains' registers
_DRAIN_FS = 10 * 10**9
_AFTER_NS = 3600 * _NS  # nobody waits for packets any more
_NEAR_NS = 0.3  # card time is set so near to what the servo's run says; one unit of 2^-32 s is 0.23 ns


class Epoch(NamedTuple):
    """What was set at a burst, per site: clock error wanted and realised, ns; the bound."""

    at_ns: int
    wanted_ns: tuple[float, float]
    realised_ns: tuple[float, float]
    bound_ns: tuple[int, int]


class Truth(NamedTuple):
    """Per packet, by number: delay on the wire in fs (SFD to SFD; -1: lost), departure in ns since the
    experiment's start.
    """

    delay_fs: npt.NDArray[np.int64]
    departure_ns: npt.NDArray[np.int64]


@dataclass
class _Side:
    name: str
    card: Card
    train: Train
    collector: Collector
    cloud: Cloud
    latency: int = 0  # core clock cycles from the beginning of a load to its effect


class Pair:
    """Two sites, each with a card; use it in a ``with`` block.

    trains: from the first site to the second, and back. paths: the same ways. start_ns: beginning of the
    experiment, ns UTC. Errors as of open_card and Cloud.
    """

    def __init__(
        self,
        names: tuple[str, str],
        trains: tuple[Train, Train],
        paths: tuple[NetPath, NetPath],
        *,
        start_ns: int,
        seed: int = 1,
    ) -> None:
        self._random = np.random.default_rng(seed)
        self._offset = leap_seconds().offset(start_ns // _NS)
        self._offset_s = self._offset.s
        self._start_ns = start_ns
        for train in trains:
            train.check()
        # The constants of a real card's calibration have nothing to say about a simulated one.
        cards = [open_card("sim", utc=True, seed=2 * seed + i, calibrated=False) for i in (0, 1)]
        self._sides = []
        for i in (0, 1):
            path, to, source = paths[i], cards[1 - i].transport, cards[i].transport
            cloud = Cloud(
                to, _PORT, delay_ns=path.delay_ns, jitter_ns=path.jitter_ns, loss=path.loss,  # type: ignore[arg-type]
                seed=path.seed,
            )  # fmt: skip
            cloud.connect(source, _PORT)  # type: ignore[arg-type]
            self._sides.append(_Side(names[i], cards[i], trains[i], Collector(ports=None), cloud))
        self._longest_fs = max(path.delay_ns + 20 * path.jitter_ns for path in paths) * 10**6
        for side in self._sides:
            side.card.set_utc_offset(self._offset)
            side.card.start(ports=[_PORT])
        self._await_links()
        self._zero_fs = self._zero_ns = 0
        self.begin()

    def begin(self) -> None:
        """Forgets all bursts: another experiment begins, with the same cards and cloud."""
        self.epochs: list[Epoch] = []
        self._starts_ns: list[int] = []
        self._arrivals: tuple[list[Arrivals], list[Arrivals]] = ([], [])
        self._left: tuple[list[Any], list[Any]] = ([], [])
        self._truth: tuple[list[Truth], list[Truth]] = ([], [])

    def _await_links(self) -> None:
        for _ in range(100):
            if all(side.card.links()[_PORT].up for side in self._sides):
                return
            for side in self._sides:
                side.card.transport.wait(1e-4)
        raise DeviceError("the simulated links do not come up")

    def close(self) -> None:
        for side in self._sides:
            side.cloud = None  # type: ignore[assignment]  # goes before the cards
        for side in self._sides:
            side.card.close()

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # One epoch

    def burst(self, states: tuple[ClockAt, ClockAt]) -> None:
        """Sets both clocks to the states and lets a burst of each train go and arrive.

        The states must be of one instant, later than the last burst's. DeviceError where a clock cannot be
        set or a train does not leave.
        """
        worlds: list[Any] = [side.card.transport for side in self._sides]
        # Time between epochs is skipped here: simulated time goes on, and from now on means the new instant.
        self._zero_fs = self._together()
        self._zero_ns = self._start_ns + self._offset_s * _NS + states[0].at_ns
        # After hours the phases of free oscillators have nothing to do with one another.
        realised_ns = []
        for side, state in zip(self._sides, states, strict=True):
            world: Any = side.card.transport
            side.card.write_fields("clock.control", locked=0)
            for clock, ppb in (
                ("core", state.oscillator_ppb),
                (f"rx{_PORT}", float(self._random.uniform(-50_000, 50_000))),
            ):
                world.set_clock(clock, ppb=ppb, phase_fs=int(self._random.integers(1, 8_000_000)))
            side.card.write("clock.increment", state.increment_q72)
            realised = self._set_time(side, state.error_ns)
            if state.slew_left_q64:
                side.card.write("clock.slew_step", state.slew_step_q64)
                side.card.write("clock.slew_amount", state.slew_left_q64)
            side.card.write("clock.bound", 0xFFFFFFFF if state.bound_ns < 0 else state.bound_ns)
            side.card.write_fields("clock.control", locked=int(state.locked))
            if abs(realised - state.error_ns) > _NEAR_NS:
                raise DeviceError(
                    f"{side.name}: card time is {realised:.3f} ns off, {state.error_ns:.3f} wanted"
                )
            realised_ns.append(realised)
        self.epochs.append(
            Epoch(
                states[0].at_ns,
                (states[0].error_ns, states[1].error_ns),
                (realised_ns[0], realised_ns[1]),
                (states[0].bound_ns, states[1].bound_ns),
            )
        )
        # A whole ns of TAI.
        start_ns = (self._tai_fs(max(world.now_fs for world in worlds)) + _LEAD_FS) // 10**6
        runs = [
            side.card.port(_PORT).send(side.train, start=Fraction(start_ns, _NS), report=True)
            for side in self._sides
        ]
        span_fs = max(int(side.train.check().span * _FS) for side in self._sides)
        end_fs = (
            self._zero_fs + start_ns * 10**6 - self._zero_ns * 10**6 + span_fs + self._longest_fs + _DRAIN_FS
        )
        for world in worlds:
            world.run_until(end_fs)
        for side in self._sides:
            side.card.flush()
            for batch in side.card.receive(2e-5):
                side.collector.add(batch)
        self._starts_ns.append(self._offset.utc_ns(start_ns))
        for i, (side, run) in enumerate(zip(self._sides, runs, strict=True)):
            status = run.status()
            if not status.done:
                raise DeviceError(f"{side.name}: {status.sent} of {side.train.total} packets left")
            self._account(i, run)

    def _together(self) -> int:
        """Brings both cards to one moment of simulated time: now, fs."""
        worlds: list[Any] = [side.card.transport for side in self._sides]
        now = max(world.now_fs for world in worlds)
        for world in worlds:
            world.run_until(now)
        return int(now)

    def _tai_fs(self, fs: int) -> int:
        """True TAI, fs since 1970, at simulated time ``fs``."""
        return self._zero_ns * 10**6 + fs - self._zero_fs

    def _error_ns(self, side: _Side) -> float:
        """Card time − TAI, by the simulation's truth: of a frame on an idle wire, whose SFD has both."""
        world: Any = side.card.transport
        world.truth(_PROBE_PORT)
        world.send(_PROBE_PORT, frames([bytes(60)]))
        for _ in range(100):
            world.run(64)
            seen = world.truth(_PROBE_PORT)
            if len(seen):
                time_q64 = int(seen["sfd_q32"][0]) << 32 | int(seen["sfd_rest"][0])
                return float(
                    (Fraction(time_q64, 1 << 64) - Fraction(self._tai_fs(int(seen["sfd_fs"][0])), _FS)) * _NS
                )
        raise DeviceError(f"{side.name}: a frame does not get through the simulated wire")

    def _set_time(self, side: _Side, error_ns: float) -> float:
        """Loads card time so that it is ``error_ns`` ahead of TAI; returns what came of it, ns.

        Writing registers takes cycles. They are counted by how far off a load that allowed for none of them
        is, and again where that changes.
        """
        world: Any = side.card.transport
        for _ in range(4):
            world.run(4)  # the clock's new phase is behind it
            edge = world.clock_truth("core")
            effect_fs = edge.last_fs + side.latency * edge.period_fs
            tai_s = Fraction(self._tai_fs(0) + effect_fs, _FS)
            side.card.load_time_q32(round((tai_s + Fraction(error_ns) / _NS) * 2**32))
            realised = self._error_ns(side)
            missed = round((error_ns - realised) * 10**6 / edge.period_fs)
            if missed == 0:
                break
            side.latency += missed
        return realised

    def _account(self, i: int, run: Any) -> None:
        """Arrivals, departures and truth of side i's burst, its numbers after those of earlier bursts."""
        side, other = self._sides[i], self._sides[1 - i]
        n = side.train.total
        base = n * (len(self.epochs) - 1)
        for arrivals in other.collector.arrivals():
            shifted = {name: getattr(arrivals, name) for name in COLUMNS}
            shifted["sequence"] = arrivals.sequence + np.uint32(base)
            self._arrivals[i].append(Arrivals.of(arrivals.key, arrivals.clocks, shifted.values()))
        left = run.departures()
        if len(left) != n:
            raise DeviceError(f"{side.name}: {len(left)} of {n} departures were reported")
        at = np.empty(n, np.int64)
        at[left["sequence"]] = stamp.ns_from_q32(left["stamp_q32"])
        self._left[i].append(self._offset.utc_ns(at))
        rows = side.cloud.truth()
        rows = rows[(rows["fate"] & CLOUD_COPY) == 0]
        if len(rows) != n:
            raise DeviceError(f"{side.name}: the cloud saw {len(rows)} of {n} packets leave")
        lost = (rows["fate"] & CLOUD_LOST) != 0
        self._truth[i].append(
            Truth(
                np.where(lost, -1, rows["arrival_fs"] - rows["departure_fs"]),
                self.epochs[-1].at_ns + (rows["departure_fs"] - self._zero_fs) // 10**6,
            )
        )

    # All of them

    def truth(self, i: int) -> Truth:
        """Of all packets that side i sent, by number."""
        return Truth(*(np.concatenate(column) for column in zip(*self._truth[i], strict=True)))

    def report(self, about: dict[str, Any]) -> Report:
        """The report of all bursts: one train for each direction. about: the experiment, for the JSON."""
        whole, sent, schedules = [], [], {}
        for i, side in enumerate(self._sides):
            train = side.train
            key = TrainKey(
                train.source, train.destination, train.destination_port, -1, train.session, ONE_WAY
            )
            if self._arrivals[i]:
                # The collector's clock states only grow: the last list has all.
                last = self._arrivals[i][-1]
                columns = [np.concatenate([getattr(a, name) for a in self._arrivals[i]]) for name in COLUMNS]
                whole.append(Arrivals.of(last.key, last.clocks, columns))
            left = np.concatenate(self._left[i])
            sent.append(Sent(key, np.arange(len(left), dtype=np.uint32), left))
            plan = train.schedule().ns()
            schedules[train.source, train.destination, train.session] = np.concatenate(
                [start + plan for start in self._starts_ns]
            )
        refused: dict[str, int] = {}
        for side in self._sides:
            for reason, n in side.collector.refused.items():
                refused[reason] = refused.get(reason, 0) + n
        return report_of(
            whole, sent=sent, schedules=schedules, until_ns=self._starts_ns[-1] + _AFTER_NS,
            frames=sum(side.collector.frames for side in self._sides), refused=refused, experiment=about,
        )  # fmt: skip
