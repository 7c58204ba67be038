# SPDX-License-Identifier: Apache-2.0
"""A card's port as a sender of packet trains (docs/trains.md)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinstamp.card.regmap import MEMORIES
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.train.fixed import ONE, Time, exact_seconds, to_q64
from twinstamp.train.image import (
    DESCRIPTOR_WORDS,
    DESCRIPTORS_AT,
    LISTS_AT,
    MEMORY_WORDS,
    SLOTS,
    TEMPLATE_WORDS,
    descriptor,
    lists,
    memory_words,
)
from twinstamp.train.train import Train, format_short

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from twinstamp.card.card import Card, CardBatch

# A packet that left, as the card reports it. sequence: of its train. stamp_q32: card time of its SFD on the
# pins. delay_q32: departure less schedule, 2^-32 s, where late.
TRAIN_DEPARTURE = np.dtype(
    [
        ("stamp_q32", "u8"),
        ("delay_q32", "u8"),
        ("sequence", "u4"),
        ("port", "u1"),
        ("slot", "u1"),
        ("late", "u1"),
        ("reserved", "u1"),
    ]
)
_POLL_S = 1e-3
_LINK_S = 3e-4  # from a PHY's first answer to all it says of a link
_SHORTEST_LEAD = Fraction(20, 10**6)  # from arming to the start


class TrainStatus(NamedTuple):
    """One look at a train. active: armed or under way; done: all packets have left; refused: its start was
    in the past. sent: packets that have left. late: of those, the ones that the wire could not take at their
    time; worst_delay: the longest of their delays, s (1 s: at least that). unreported: departures that found
    no room on their way to the host.
    """

    active: bool
    done: bool
    refused: bool
    sent: int
    late: int
    worst_delay: Fraction
    unreported: int


@dataclass(frozen=True)
class TrainReport:
    """What became of a train. start: card time of the first packet, s since 1970 TAI. synchronised: the clock
    was locked when it was armed. departures: TRAIN_DEPARTURE[n], of the late packets, or of all where that
    was asked for, as far as the ring's batches were read meanwhile; status.unreported and those not read are
    missing.
    """

    train: Train
    port: int
    slot: int
    start: Fraction
    synchronised: bool
    status: TrainStatus
    departures: npt.NDArray[np.void]

    def summary(self) -> dict[str, Any]:
        """The same as plain types, for JSON."""
        return {
            "train": self.train.name,
            "port": self.port,
            "slot": self.slot,
            "start_tai_s": f"{float(self.start):.9f}",
            "synchronised": self.synchronised,
            "packets": self.train.total,
            "sent": self.status.sent,
            "late": self.status.late,
            "worst_delay_ns": round(float(self.status.worst_delay * 10**9), 3),
            "unreported": self.status.unreported,
            "complete": self.status.done,
            "missed_slots": [
                {"sequence": int(d["sequence"]), "delay_ns": round(int(d["delay_q32"]) * 1e9 / 2**32, 3)}
                for d in self.departures[self.departures["late"] != 0][:1000]
            ],
        }


class CardPort:
    """Port ``number`` of a card; made by ``Card.port``."""

    def __init__(self, card: Card, number: int) -> None:
        self.card = card
        self.number = number
        self._runs: list[TrainRun | None] = [None] * SLOTS

    def send(
        self,
        train: Train,
        *,
        start: Time | None = None,
        after: Time = "1ms",
        slot: int | None = None,
        report: bool = False,
        allow_unsynchronised: bool = False,
        allow_late: bool = False,
    ) -> TrainRun:
        """Arms ``train``; its first packet leaves at card time ``start`` (exact seconds since 1970 TAI), or
        ``after`` from now. Returns at once.

        slot: which of the port's four (default: the first that is free); trains of several slots interleave.
        report: every departure comes back, not only late ones. allow_unsynchronised: also with a clock that
        follows no reference; the report then says so. allow_late: also a train that does not fit the wire.

        Errors, before a packet leaves: ConfigError where the train does not fit (as Train.check), the start
        is not at least 20 us ahead, or no slot or memory is free; DeviceError where the link is down, the
        clock is not locked, or the card refused.
        """
        card, name = self.card, f"port {self.number}"
        if "trains" not in card.identity.features:
            raise ConfigError(f"this build of card {card.transport.name} sends no trains")
        if not allow_late:
            train.check()
        synchronised = bool(card.fields("clock.control")["locked"])
        if not synchronised and not allow_unsynchronised:
            raise DeviceError(
                f"{name}: the card's clock follows no reference, so stamps and times would mean little; wait "
                "until it is locked, or allow it (allow_unsynchronised, --allow-unsynchronised)"
            )
        self._check_link()
        chosen = self._free_slot(slot)
        if start is None:
            first = to_q64(exact_seconds(after, "after")) + (card.time_q32() << 32)
        else:
            first = to_q64(exact_seconds(start, "start"))
        if first >> 96:
            raise ConfigError(f"start is {float(Fraction(first, ONE)):.3f} s: beyond 2^32 s of card time")
        at = self._room(train)
        words = descriptor(train, start_q64=first, lists_at=at, report=report)
        self._write(chosen * TEMPLATE_WORDS, memory_words(train))
        self._write(at, lists(train))
        self._write(DESCRIPTORS_AT + chosen * DESCRIPTOR_WORDS, words)
        run = TrainRun(self, train, chosen, Fraction(first, ONE), synchronised, (at, at + len(lists(train))))
        ahead = Fraction(first, ONE) - Fraction(card.time_q32(), 1 << 32)
        if ahead < _SHORTEST_LEAD:
            how = f"{format_short(-ahead)} ago" if ahead < 0 else f"in {format_short(ahead)}"
            raise ConfigError(
                f"{name}: the start is {how}, by card time: give one at least 20 us ahead, after set-up"
            )
        card.train_departures(self.number, chosen)  # those of an earlier run
        card.write_fields(f"{run.registers}.control", arm=1)
        card.transport.wait(1e-6)
        self._runs[chosen] = run
        if run.status().refused:
            raise DeviceError(f"{name}: the card refused the start, it was in the past when it was armed")
        return run

    def _check_link(self) -> None:
        """DeviceError where the PHY says that nothing would leave; one that nobody polls says nothing."""
        waited = 0.0
        while True:
            link = self.card.links()[self.number]
            if not link.answers or (link.up and link.speed == 10**9):
                return
            if waited > _LINK_S:
                raise DeviceError(
                    f"port {self.number}: the link is down or not 1000 Mb/s: nothing would leave"
                )
            waited += self.card.transport.wait(_LINK_S)

    def _free_slot(self, slot: int | None) -> int:
        if slot is not None and not 0 <= slot < SLOTS:
            raise ConfigError(f"slot {slot}: a port has 0 to {SLOTS - 1}")
        for i in range(SLOTS) if slot is None else (slot,):
            if not self.card.fields(f"port[{self.number}].train[{i}].status")["active"]:
                self._runs[i] = None
                return i
        raise ConfigError(
            f"port {self.number}: "
            + (f"slot {slot} is" if slot is not None else f"all {SLOTS} slots are")
            + " taken by trains under way: wait for one, or stop it"
        )

    def _room(self, train: Train) -> int:
        """First word of list memory for the train, beside those of active ones."""
        size = len(lists(train))
        used = sorted(
            run.memory
            for run in self._runs
            if run is not None and run.memory[1] > run.memory[0] and run.status().active
        )
        at = LISTS_AT
        for begin, end in used:
            if begin - at >= size:
                break
            at = max(at, end)
        # descriptor() refuses what does not fit.
        return min(at, MEMORY_WORDS)

    def _write(self, word: int, values: list[int]) -> None:
        base = MEMORIES["train_memory"][0] + 4 * (self.number * MEMORY_WORDS + word)
        for i, value in enumerate(values):
            self.card.transport.write32(base + 4 * i, value)


class TrainRun:
    """A train that was armed; made by ``CardPort.send``."""

    def __init__(
        self,
        port: CardPort,
        train: Train,
        slot: int,
        start: Fraction,
        synchronised: bool,
        memory: tuple[int, int],
    ) -> None:
        self.port = port
        self.train = train
        self.slot = slot
        self.start = start
        self.synchronised = synchronised
        self.memory = memory
        self.registers = f"port[{port.number}].train[{slot}]"
        self._departures: list[npt.NDArray[np.void]] = []

    def status(self) -> TrainStatus:
        """How far it is."""
        card = self.port.card
        # The state first: once it is not active, the counts stand still.
        state = card.fields(f"{self.registers}.status")
        return TrainStatus(
            bool(state["active"]),
            bool(state["done"]),
            bool(state["refused"]),
            card.read(f"{self.registers}.sent"),
            card.read(f"{self.registers}.late"),
            Fraction(card.read(f"{self.registers}.worst"), 1 << 32),
            card.read(f"{self.registers}.unreported"),
        )

    def stop(self) -> None:
        """Sends no more of it; a packet that has begun still goes."""
        self.port.card.write_fields(f"{self.registers}.control", stop=1)
        self.port.card.transport.wait(1e-6)

    def wait(
        self,
        *,
        timeout_s: float | None = None,
        progress: Callable[[TrainStatus], None] | None = None,
        on_batch: Callable[[CardBatch], None] | None = None,
    ) -> TrainReport:
        """Waits until it has left, at most ``timeout_s`` of card time, and tells what became of it.

        progress: called about every millisecond of card time (a simulated card: every 4096 cycles). on_batch:
        is given each batch that the card's ring hands over meanwhile, and must not keep it; needs
        ``card.start()``. Without it nothing is read from the ring: poll the card in between, or departures
        and received frames that find no room there are dropped, and counted.
        """
        card = self.port.card
        left = timeout_s
        while True:
            status = self.status()
            if progress is not None:
                progress(status)
            if not status.active or (left is not None and left <= 0):
                break
            waited = card.transport.wait(_POLL_S if left is None else min(left, _POLL_S))
            if left is not None:
                left -= waited
            self._drain(on_batch, 0.0)
        if not status.active and on_batch is not None:
            card.transport.wait(2e-7)
            card.flush()
            self._drain(on_batch, 1e-5)
        return TrainReport(
            self.train,
            self.port.number,
            self.slot,
            self.start,
            self.synchronised,
            self.status(),
            self.departures(),
        )

    def _drain(self, on_batch: Callable[[CardBatch], None] | None, timeout_s: float) -> None:
        if on_batch is None:
            return
        for batch in self.port.card.receive(timeout_s):
            on_batch(batch)

    def departures(self) -> npt.NDArray[np.void]:
        """TRAIN_DEPARTURE of this run that batches have brought so far, in the order of leaving."""
        self._departures.append(self.port.card.train_departures(self.port.number, self.slot))
        self._departures = [np.concatenate(self._departures)]
        return self._departures[0]
