# SPDX-License-Identifier: Apache-2.0
"""What captures say of each train: departures and arrivals as columns (docs/owd.md)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinstamp import stamp
from twinstamp.errors import ConfigError, InputError
from twinstamp.frames import FLAG_NO_TIMESTAMP
from twinstamp.leap import leap_seconds
from twinstamp.owd.parse import REFLECTED, TestPackets, parse, reflection

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    import numpy.typing as npt

    from twinstamp.frames import ClockState, FrameBatch

MOST_TRAINS = 4096  # a capture with more is no measurement, or was made to fill the memory
MOST_RUNS = 64  # of one train; more restarts than that are a sender without order

# How the two stamps came about
ONE_WAY = "one-way"  # departure in the packet, arrival stamped by the capture
THERE = "there"  # both in a reflected packet: the way to the reflector
BACK = "back"  # departure in a reflected packet, arrival stamped by the capture

_NS = 1_000_000_000


class TrainKey(NamedTuple):
    """What tells trains apart.

    source, destination: addresses as text. port: UDP port of the receiver (for ``back``: of the reflector).
    source_port: only where the packets have no session, else -1 (a train may sweep its source ports).
    session: 0 = none. way: ONE_WAY, THERE or BACK. run: 0, 1, … where a sender began anew.
    """

    source: str
    destination: str
    port: int
    source_port: int
    session: int
    way: str
    run: int = 0

    @property
    def name(self) -> str:
        """`10.0.0.1 > 10.0.0.2 #7`, with the way and the run where they say something."""
        text = f"{self.source} > {self.destination} #{self.session}"
        if self.session == 0:
            text = f"{self.source}:{self.source_port} > {self.destination}"
        return (
            text + ("" if self.way == ONE_WAY else f" {self.way}") + (f" run {self.run}" if self.run else "")
        )


class ReceiverClock(NamedTuple):
    """State of the clock behind arrivals. bound_ns: -1 unknown. given: the bound was told by the user."""

    source: str
    locked: bool
    bound_ns: int
    epoch: int
    given: bool = False


@dataclass(frozen=True)
class Arrivals:
    """Packets of one train, in the order of arrival.

    ============  ======  ===============================================================
    sequence      u32[n]  as in the packet
    sent_ns       i64[n]  departure, ns UTC
    received_ns   i64[n]  arrival, ns UTC
    error         u16[n]  the sender's error estimate (docs/stamp.md)
    clock         u16[n]  index into ``clocks``
    ttl           u8[n]   TTL or hop limit on arrival
    ipid          u16[n]  IPv4 identification
    ip_bytes      u32[n]  bytes of the IP packet
    size          u32[n]  bytes of the frame, FCS included
    ============  ======  ===============================================================

    clocks: the receiver's clock states. backwards: how often the arrival stamps ran back in the capture, but
    for a leap second. UTC as in ``twinstamp.leap``; ``metrics.Judged`` has times that count on through leap
    seconds.
    """

    key: TrainKey
    clocks: tuple[ReceiverClock, ...]
    sequence: npt.NDArray[np.uint32]
    sent_ns: npt.NDArray[np.int64]
    received_ns: npt.NDArray[np.int64]
    error: npt.NDArray[np.uint16]
    clock: npt.NDArray[np.uint16]
    ttl: npt.NDArray[np.uint8]
    ipid: npt.NDArray[np.uint16]
    ip_bytes: npt.NDArray[np.uint32]
    size: npt.NDArray[np.uint32]
    backwards: int = 0

    def __len__(self) -> int:
        return len(self.sequence)

    @classmethod
    def of(
        cls, key: TrainKey, clocks: Sequence[ReceiverClock], columns: Iterable[Any], *, backwards: int = 0
    ) -> Arrivals:
        """Of columns in the order of ``COLUMNS``, made of their types."""
        arrays = [np.asarray(c).astype(t, copy=False) for c, t in zip(columns, DTYPES, strict=True)]
        return cls(key, tuple(clocks), *arrays, backwards=backwards)  # type: ignore[misc, arg-type]

    def select(self, index: Any) -> Arrivals:
        """The packets at ``index``."""
        return replace(self, **{name: getattr(self, name)[index] for name in COLUMNS})

    def send_bound_ns(self) -> npt.NDArray[np.int64]:
        """The sender's bound per packet, i64[n]; -1 unknown."""
        return stamp.bound_ns(self.error)

    def receive_bound_ns(self) -> npt.NDArray[np.int64]:
        """The receiver's bound per packet, i64[n]; -1 unknown."""
        return np.array([clock.bound_ns for clock in self.clocks], np.int64)[self.clock]


COLUMNS = tuple(field.name for field in fields(Arrivals) if field.name not in ("key", "clocks", "backwards"))
DTYPES = ("u4", "i8", "i8", "u2", "u2", "u1", "u2", "u4", "u4")


@dataclass(frozen=True)
class Sent:
    """What a train's sender says: sequence u32[n] and departures i64[n] ns UTC, in the order of sending."""

    key: TrainKey
    sequence: npt.NDArray[np.uint32]
    sent_ns: npt.NDArray[np.int64]


class _Columns:
    """Arrays that grow by chunks."""

    def __init__(self) -> None:
        self.chunks: list[tuple[npt.NDArray[Any], ...]] = []

    def add(self, *arrays: npt.NDArray[Any]) -> None:
        self.chunks.append(tuple(np.ascontiguousarray(a, t) for a, t in zip(arrays, DTYPES, strict=True)))

    def take(self) -> list[npt.NDArray[Any]]:
        """The whole columns; the chunks are given up one by one, so that memory is not held twice."""
        columns: list[npt.NDArray[Any]] = []
        chunks = [list(chunk) for chunk in self.chunks]
        self.chunks = []
        for k in range(len(DTYPES)):
            columns.append(np.concatenate([chunk[k] for chunk in chunks]))
            for chunk in chunks:
                chunk[k] = columns[-1][:0]
        return columns


class Collector:
    """Takes batches of received frames and keeps the test packets' columns.

    ports: UDP ports of test packets, None for any. receive_bound_ns: bound of the receiver's clock where
    the capture names none, which then counts as synchronised; -1: unknown. tai_utc_s: TAI - UTC for PTP
    stamps; None: by the table of leap seconds. outgoing: as in ``parse``.

    ``refused``: frames that are no test packets, by reason; besides parse's: no_timestamp (of arrival),
    bad_timestamp (of departure), no_error_estimate (Multiplier 0, RFC 4656 section 4.1.2), too_many_trains.
    """

    def __init__(
        self,
        *,
        ports: Collection[int] | None = (stamp.UDP_PORT,),
        receive_bound_ns: int = -1,
        tai_utc_s: int | None = None,
        outgoing: bool | None = False,
    ) -> None:
        if receive_bound_ns < -1:
            raise ConfigError(f"a bound of {receive_bound_ns} ns: give 0 or more")
        if ports is not None and any(not 0 < port < 1 << 16 for port in ports):
            raise ConfigError(f"UDP ports {sorted(ports)}: give 1 to 65535")
        self._ports = ports
        self._given = receive_bound_ns
        self._tai_utc_s = tai_utc_s
        self._leaps = leap_seconds()
        self._outgoing = outgoing
        self.refused: dict[str, int] = {}
        for reason in ("no_timestamp", "bad_timestamp", "no_error_estimate", "too_many_trains"):
            self.refused[reason] = 0
        self.frames = 0
        self.truncated: list[str] = []
        self._trains: dict[TrainKey, _Columns] = {}
        self._clocks: dict[ReceiverClock, int] = {}
        self._state = self._clock(
            ReceiverClock("file", receive_bound_ns >= 0, receive_bound_ns, 0, receive_bound_ns >= 0)
        )
        self._start = self._state
        self._comments: dict[bytes, int | None] = {}
        self._keys: dict[bytes, TrainKey] = {}

    def new_source(self) -> None:
        """A new capture begins: nothing is known of its clock yet."""
        self._state = self._start

    def add(self, batch: FrameBatch) -> None:
        """Takes a batch; it may be released afterwards. Live batches bring the state of their clock along.

        InputError where the capture says that its stamps are TAI.
        """
        self.frames += len(batch)
        if batch.clock.source != "file":
            self._state = self._of(batch.clock)
        state, changes = self.clock_states(batch)
        packets = parse(batch, ports=self._ports, outgoing=self._outgoing, refused=self.refused)
        if not len(packets):
            return
        packets = self._without(
            packets, (batch.flags[packets.frame] & FLAG_NO_TIMESTAMP) != 0, "no_timestamp"
        )
        packets = self._without(packets, (packets.error & 0xFF) == 0, "no_error_estimate")
        packets = self._without(
            packets, ~stamp.valid_timestamps(packets.timestamp, packets.error), "bad_timestamp"
        )
        received = batch.timestamp_ns[packets.frame]
        if batch.clock.timescale == "tai":
            received = self._leaps.utc_ns(received)
        sent = self.departure_ns(packets.timestamp, packets.error, received)
        if changes is None:
            clock = np.full(len(packets), state, np.uint16)
        else:
            clock = changes[1][np.searchsorted(changes[0], packets.frame, side="right") - 1]
        reflected = packets.form == REFLECTED
        if not reflected.any():
            self._store(packets, ONE_WAY, packets.sequence, sent, received, packets.error, clock, packets.ttl)
            return
        self._reflected(batch, packets, sent, received, clock, reflected)

    def _reflected(
        self,
        batch: FrameBatch,
        packets: TestPackets,
        sent: npt.NDArray[np.int64],
        received: npt.NDArray[np.int64],
        clock: npt.NDArray[np.uint16],
        reflected: npt.NDArray[np.bool_],
    ) -> None:
        plain = packets.select(~reflected)
        if len(plain):
            rest = ~reflected
            self._store(
                plain,
                ONE_WAY,
                plain.sequence,
                sent[rest],
                received[rest],
                plain.error,
                clock[rest],
                plain.ttl,
            )
        back = packets.select(reflected)
        said = reflection(batch, back)
        arrival = received[reflected]
        good = stamp.valid_timestamps(said.timestamp, said.error)
        good &= stamp.valid_timestamps(said.received, back.error) & ((said.error & 0xFF) != 0)
        self.refused["bad_timestamp"] += int(np.count_nonzero(~good))
        self._store(
            back.select(good), BACK, back.sequence[good], sent[reflected][good], arrival[good],
            back.error[good], clock[reflected][good], back.ttl[good],
        )  # fmt: skip
        there = back.select(good)
        at = self.departure_ns(said.received[good], there.error, arrival[good])
        left = self.departure_ns(said.timestamp[good], said.error[good], arrival[good])
        # The reflector's error estimate speaks for its receive timestamp, too (RFC 8762 section 4.3.1).
        errors, which = np.unique(there.error, return_inverse=True)
        synchronised = (errors & stamp.ERROR_SYNCHRONISED) != 0
        known = zip(synchronised.tolist(), stamp.bound_ns(errors).tolist(), strict=True)
        numbers = [self._clock(ReceiverClock("stamp", locked, bound, 0)) for locked, bound in known]
        states = np.array(numbers, np.uint16)[which]
        self._store(there, THERE, said.sequence[good], left, at, said.error[good], states, said.ttl[good])

    def _without(self, packets: TestPackets, bad: npt.NDArray[np.bool_], reason: str) -> TestPackets:
        n = int(np.count_nonzero(bad))
        if n == 0:
            return packets
        self.refused[reason] += n
        return packets.select(~bad)

    def departure_ns(
        self,
        timestamp: npt.NDArray[np.uint64],
        error: npt.NDArray[np.uint16],
        near_utc_ns: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.int64]:
        """Timestamps of packets in ns UTC, i64[n], of the era nearest to ``near_utc_ns``."""
        ptp = (error & stamp.ERROR_PTP) != 0
        if not ptp.any():
            return stamp.utc_ns_from_ntp(timestamp, near_utc_ns)
        # The era is found within 68 years: any offset does.
        tai = stamp.tai_ns_from_ptp(timestamp, near_utc_ns)
        utc = self._leaps.utc_ns(tai) if self._tai_utc_s is None else tai - self._tai_utc_s * _NS
        return np.where(ptp, utc, stamp.utc_ns_from_ntp(timestamp, near_utc_ns))

    # Clock states

    def _clock(self, clock: ReceiverClock) -> int:
        if len(self._clocks) >= 0xFFFF and clock not in self._clocks:
            raise InputError(f"more than {0xFFFF} clock states: this capture was not made by a card")
        return self._clocks.setdefault(clock, len(self._clocks))

    def _of(self, clock: ClockState) -> int:
        bound, given = (clock.bound_ns, False) if clock.bound_ns >= 0 else (self._given, self._given >= 0)
        return self._clock(ReceiverClock(clock.source, clock.locked, bound, clock.epoch, given))

    @property
    def clocks(self) -> tuple[ReceiverClock, ...]:
        """Receiver's clock states seen so far."""
        return tuple(self._clocks)

    def clock_states(
        self, batch: FrameBatch
    ) -> tuple[int, tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]] | None]:
        """The clock's state at the end of the batch, and where it changes in it, if so: (frames, states),
        from frame 0 on; states are indices into ``clocks``.
        """
        if batch.options is None:
            return self._state, None
        offset = np.frombuffer(batch.options[0], "u8").astype(np.int64)
        length = np.frombuffer(batch.options[1], "u4").astype(np.int64)
        starts, states = [0], [self._state]
        for i in np.flatnonzero(length > 12).tolist():
            raw = batch.data[offset[i] : offset[i] + length[i]].tobytes()
            if b"clock=" not in raw:
                continue
            if raw not in self._comments:
                if len(self._comments) > 0xFFFF:
                    self._comments.clear()
                self._comments[raw] = self._read_comment(raw, batch.options_big_endian)
            state = self._comments[raw]
            if state is not None:
                self._state = state
                starts.append(i)
                states.append(state)
        if len(starts) == 1:
            return self._state, None
        return self._state, (np.array(starts, np.int64), np.array(states, np.uint16))

    def _read_comment(self, raw: bytes, big_endian: bool) -> int | None:
        order = "big" if big_endian else "little"
        at = 0
        while at + 4 <= len(raw):
            code = int.from_bytes(raw[at : at + 2], order)  # type: ignore[arg-type]
            size = int.from_bytes(raw[at + 2 : at + 4], order)  # type: ignore[arg-type]
            if code == 1:
                clock = read_clock_comment(raw[at + 4 : at + 4 + size].decode("utf-8", "replace"))
                if clock is not None:
                    return self._of(clock)
            at += 4 + (size + 3 & ~3)
        return None

    # Trains

    def _store(
        self,
        packets: TestPackets,
        way: str,
        sequence: npt.NDArray[np.uint32],
        sent: npt.NDArray[np.int64],
        received: npt.NDArray[np.int64],
        error: npt.NDArray[np.uint16],
        clock: npt.NDArray[np.uint16],
        ttl: npt.NDArray[np.uint8],
    ) -> None:
        if not len(packets):
            return
        columns = (sequence, sent, received, error, clock, ttl, packets.ipid, packets.ip_bytes, packets.size)
        rows = _key_rows(packets, way)
        if (rows == rows[0]).all():
            groups: Iterable[tuple[bytes, Any, int]] = [(rows[0].tobytes(), slice(None), 0)]
        else:
            names, first, inverse = np.unique(
                rows.view(f"V{rows.shape[1]}").ravel(), return_index=True, return_inverse=True
            )
            order = np.argsort(inverse, kind="stable")
            ends = np.cumsum(np.bincount(inverse, minlength=len(names)))
            parts = np.split(order, ends[:-1])
            groups = ((rows[f].tobytes(), part, int(f)) for part, f in zip(parts, first, strict=True))
        for raw, part, f in groups:
            key = self._keys.get(raw)
            if key is None:
                if len(self._keys) >= MOST_TRAINS:
                    self.refused["too_many_trains"] += len(sequence[part])
                    continue
                key = self._keys[raw] = _key(packets, f, way)
            self._trains.setdefault(key, _Columns()).add(*(column[part] for column in columns))

    def arrivals(self) -> list[Arrivals]:
        """What was collected, per train and run, in the order of arrival; empties the collector."""
        clocks = tuple(self._clocks)
        out: list[Arrivals] = []
        for key in list(self._trains):
            columns = self._trains.pop(key).take()
            arrivals = _in_order(Arrivals.of(key, clocks, columns))
            out += split_runs(arrivals)
        return out

    def sent(self) -> list[Sent]:
        """What was collected, as the sender's account, in the order of departure."""
        out = []
        for arrivals in self.arrivals():
            sent_ns = self._leaps.departures(arrivals.received_ns, arrivals.sent_ns)
            order = np.argsort(sent_ns, kind="stable")
            out.append(Sent(arrivals.key, arrivals.sequence[order], arrivals.sent_ns[order]))
        return out


def clock_comment(clock: ClockState) -> str:
    """The clock's state as a card's captures carry it."""
    from twinstamp.card.capture import clock_comment as comment

    return comment(clock)


_CLOCK = re.compile(
    r"(?:^|\s)clock=(\S+) timescale=(utc|tai) locked=(yes|no) bound_ns=(unknown|\d{1,18}) epoch=(\d{1,18})\b"
)


def read_clock_comment(text: str) -> ClockState | None:
    """The clock's state out of a card's comment (``twinstamp.card.capture.clock_comment``), or None."""
    from twinstamp.frames import ClockState

    found = _CLOCK.search(text)
    if found is None:
        return None
    source, timescale, locked, bound, epoch = found.groups()
    if timescale != "utc":
        raise InputError(f"a frame's comment says {timescale}: stamps in a capture file are UTC")
    return ClockState(
        timescale, source, locked == "yes", -1 if bound == "unknown" else int(bound), int(epoch)
    )


def _key_rows(packets: TestPackets, way: str) -> npt.NDArray[np.uint8]:
    """What tells trains apart, as bytes: u8[n, 42]."""
    n = len(packets)
    rows = np.zeros((n, 42), np.uint8)
    rows[:, 0:16] = packets.source.view(np.uint8).reshape(n, 16)
    rows[:, 16:32] = packets.destination.view(np.uint8).reshape(n, 16)
    here, there = (packets.sport, packets.dport) if way == ONE_WAY else (packets.dport, packets.sport)
    rows[:, 32:34] = there.view(np.uint8).reshape(n, 2)
    rows[:, 34:36] = packets.session.view(np.uint8).reshape(n, 2)
    port = np.where(packets.session == 0, here, 0).astype(np.uint16)
    rows[:, 36:38] = port.view(np.uint8).reshape(n, 2)
    rows[:, 38] = packets.version
    rows[:, 39] = (ONE_WAY, THERE, BACK).index(way)
    return rows


def _address(pair: npt.NDArray[np.uint64], version: int) -> str:
    value = int(pair[0]) << 64 | int(pair[1])
    return str(ipaddress.IPv4Address(value) if version == 4 else ipaddress.IPv6Address(value))


def _key(packets: TestPackets, i: int, way: str) -> TrainKey:
    version = int(packets.version[i])
    source, destination = _address(packets.source[i], version), _address(packets.destination[i], version)
    here, there = int(packets.sport[i]), int(packets.dport[i])
    if way != ONE_WAY:
        here, there = there, here
    if way == THERE:
        source, destination = destination, source
    session = int(packets.session[i])
    return TrainKey(source, destination, there, -1 if session else here, session, way)


def _in_order(arrivals: Arrivals) -> Arrivals:
    """By arrival; the capture's order where stamps are equal. Counts how often the stamps ran back."""
    received = leap_seconds().arrivals(arrivals.received_ns)
    back = int(np.count_nonzero(received[1:] < received[:-1]))
    if back == 0:
        return arrivals
    return replace(arrivals.select(np.argsort(received, kind="stable")), backwards=back)


def unwrapped(sequence: npt.NDArray[np.uint32]) -> npt.NDArray[np.int64]:
    """Sequence numbers in order of arrival, with the turns past 2^32 undone: i64[n].

    Each is the one nearest to its predecessor, so up to 2^31 packets may be lost or late between two.
    The first keeps its value.
    """
    wide = sequence.astype(np.int64)
    steps = wide[1:] - wide[:-1]
    steps = (steps + (1 << 31) & 0xFFFFFFFF) - (1 << 31)
    out = np.empty(len(sequence), np.int64)
    out[:1] = sequence[:1]
    np.cumsum(steps, out=out[1:])
    out[1:] += out[:1]
    return out


def split_runs(arrivals: Arrivals) -> list[Arrivals]:
    """The runs of a sender that began anew with the same session.

    A packet that left later has a greater number; where numbers fall in the order of departure, a new run
    begins. Above MOST_RUNS the departures have no order, and the arrivals stay as they are.
    """
    sequence = unwrapped(arrivals.sequence)
    order: Any = slice(None)
    sent_ns = leap_seconds().departures(arrivals.received_ns, arrivals.sent_ns)
    if (np.diff(sent_ns) < 0).any():
        order = np.argsort(sent_ns, kind="stable")
        sequence = sequence[order]
    falls = np.diff(sequence) < 0
    # Equal stamps leave no order among their packets.
    falls &= np.diff(sent_ns[order]) > 0
    n = int(np.count_nonzero(falls))
    if n == 0 or n >= MOST_RUNS:
        return [arrivals]
    run = np.zeros(len(arrivals), np.int64)
    run[1:] = np.cumsum(falls)
    if not isinstance(order, slice):
        unsorted = np.empty_like(run)
        unsorted[order] = run
        run = unsorted
    return [replace(arrivals.select(run == k), key=arrivals.key._replace(run=k)) for k in range(n + 1)]


def collect(
    captures: Sequence[str],
    *,
    ports: Collection[int] | None = (stamp.UDP_PORT,),
    receive_bound_ns: int = -1,
    tai_utc_s: int | None = None,
    outgoing: bool | None = False,
    progress: Any = None,
) -> Collector:
    """A Collector that has read the captures, one after the other (docs/owd.md)."""
    from twinstamp.io.files import open_capture

    collector = Collector(
        ports=ports, receive_bound_ns=receive_bound_ns, tai_utc_s=tai_utc_s, outgoing=outgoing
    )
    for path in captures:
        collector.new_source()
        with open_capture(path) as reader:
            for batch in reader:
                with batch:
                    collector.add(batch)
                if progress is not None:
                    progress(reader)
            if reader.truncated is not None:
                collector.truncated.append(reader.truncated)
    return collector
