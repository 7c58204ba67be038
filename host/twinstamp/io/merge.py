# SPDX-License-Identifier: Apache-2.0
"""Several sources as one, in the order of their stamps (docs/live.md; DESIGN: Order)."""

from __future__ import annotations

import math
import select
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from twinstamp.errors import ConfigError, DeviceError, InputError
from twinstamp.frames import ClockState, FrameBatch, GrowingU16, Port, PortTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_BATCHES_PER_ROUND = 4  # read from one source before the next gets its turn
_CHUNK_FRAMES = 1024  # taken in of a capture before its newest stamp is looked at again


class Source(Protocol):
    """What Merge needs of a source. ``fileno`` is optional, and so is ``ended`` (True: no more frames)."""

    @property
    def ports(self) -> Sequence[Port]: ...
    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None: ...


class MergeStatistics(NamedTuple):
    """Counters of a Merge since the start.

    frames: given out. late: came when a later one had already gone out; given out at once, behind it.
    early: given out before their turn because the reorder buffer was full. future: stamped later than the
    host's clock, ordered by arrival. clock_steps: times the host's clock was set back (all held frames went
    out). held_frames, held_bytes: waiting now; most_bytes: the most that ever waited. memory_bytes: the
    buffer's limit for bytes (descriptors, 40 bytes per held frame, come on top: at most 5/8 of it again).
    used_bytes: of it in use, frames that the consumer still holds included.
    """

    frames: int
    late: int
    early: int
    future: int
    clock_steps: int
    held_frames: int
    held_bytes: int
    most_bytes: int
    memory_bytes: int
    used_bytes: int


class Merge:
    """One source made of several, its frames in global stamp order: by stamp, then by source's index.

    A frame goes out when every source has brought a later stamp, or when it is older than ``delay_ms`` by
    ``clock`` (ns, in the timescale of the stamps; None: by the newest stamp seen, for sources whose stamps
    are not of this moment). Whatever is older than ``delay_ms`` must therefore have arrived: the delay has
    to cover the sources' own, for LiveSource its block_timeout_ms. After a stall nothing is late, because
    age counts only for sources that are read empty. A frame that comes later than that goes out at once and
    is counted. Frames are copied once, into a buffer of ``memory_mib``; when it is full, held frames go
    out early (counted), and while the consumer holds all of it nothing is taken from the sources. With one
    source batches pass through untouched, without a copy. pcapng block options are not carried.

    ``ports`` holds all sources' ports, renumbered; it is only appended to.

    Errors: ConfigError for bad options or sources of different timescales; InputError for a frame over
    512 KiB. A source that fails with DeviceError holds nobody back; its error is raised once, after the
    frames that were ready, and further polls go on with the others.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        delay_ms: float = 2.0,
        memory_mib: int = 64,
        batch_frames: int = 16_384,
        clock: Callable[[], int] | None = time.time_ns,
    ) -> None:
        if not sources:
            raise ConfigError("a merge needs at least one source")
        if not 0 <= delay_ms <= 60_000:
            raise ConfigError(f"delay_ms is {delay_ms} ms: give 0 to 60000")
        if not 2 <= memory_mib <= 1_048_576:
            raise ConfigError(f"memory_mib is {memory_mib} MiB: give 2 to 1048576")
        if batch_frames < 1:
            raise ConfigError(f"batch_frames is {batch_frames}: give at least 1")
        if len(sources) > 1024:
            raise ConfigError(f"{len(sources)} sources: at most 1024 can be merged")
        self.sources = list(sources)
        self.ports: Sequence[Port] = PortTable()
        self._clock = clock
        self._batch_frames = batch_frames
        self._single = len(self.sources) == 1
        self._first = 0
        self._errors: list[DeviceError] = []
        self._live = dict(enumerate(self.sources))  # by index; without those that ended or failed
        if self._single:
            self.ports = self.sources[0].ports
            return
        from twinstamp import _native

        self._merger = _native.Merger(
            len(self.sources), delay_ns=round(delay_ms * 1e6), memory_bytes=memory_mib * 1024 * 1024
        )
        self._quantum_s = delay_ms * 1e-3 / 8
        self._maps = [GrowingU16() for _ in self.sources]  # port of the source -> port of the merge
        self._carry: dict[int, tuple[FrameBatch, int]] = {}  # batch half taken in, next frame
        # Of captures: the newest stamp that each has given; the bytes that may be taken in of one at a time.
        self._newest: list[float] = [-math.inf for _ in self.sources]
        self._chunk_bytes = memory_mib * 1024 * 1024 // (4 * len(self.sources))
        self._clocks: list[ClockState | None] = [None] * len(self.sources)
        self._merged_clock: ClockState | None = None
        for index, source in enumerate(self.sources):
            self._map_ports(index, source.ports)
        self._waitable: dict[int, Callable[[], int]] = {}  # source -> its file descriptor, -1: none now
        for index, source in enumerate(self.sources):
            fileno = getattr(source, "fileno", None)
            if fileno is not None:
                self._waitable[index] = fileno

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        """The next frames in order, or None after ``timeout_s`` seconds."""
        if self._single:
            batch = self.sources[0].poll(timeout_s)
            if batch is not None:
                self._first += len(batch)
            return batch
        limit = time.monotonic() + timeout_s
        while True:
            batch = self._round()
            if batch is not None:
                return batch
            if self._errors:
                raise self._errors.pop(0)
            if not self._live:
                return self.flush()
            left = limit - time.monotonic()
            if left <= 0:
                return None
            due = self._merger.due_ns()
            if due is not None and self._clock is not None:
                # A little past the oldest frame's time: with an idle source each wait would else let a
                # handful of frames go, and a batch costs more than they do.
                left = min(left, max(0.0, (due - self._clock()) * 1e-9) + self._quantum_s)
            self._wait(left)

    def flush(self) -> FrameBatch | None:
        """Held frames whatever their age, in order; call until it gives None. Takes nothing in."""
        if self._single:
            return None
        for index in list(self._carry):
            self._take_in(index, self._clock() if self._clock else None)
        return self._give_out(None, everything=True)

    @property
    def ended(self) -> bool:
        """Every source has ended or failed, and nothing is held."""
        if self._single:
            return bool(getattr(self.sources[0], "ended", False))
        return not self._live and not self._carry and self.statistics().held_frames == 0

    def statistics(self) -> MergeStatistics:
        if self._single:
            return MergeStatistics(self._first, 0, 0, 0, 0, 0, 0, 0, 0, 0)
        return MergeStatistics(*self._merger.statistics())

    @property
    def held(self) -> float:
        """Share of the memory that frames wait in (ring, or reorder buffer) that is in use, 0.0 to 1.0."""
        if self._single:
            return float(getattr(self.sources[0], "held", 0.0))
        now = self.statistics()
        return now.used_bytes / now.memory_bytes

    def fileno(self) -> int:
        """The only source's descriptor; with several there is none to give (poll with a timeout)."""
        if not self._single:
            raise OSError("a merge of several sources has no file descriptor: poll it with a timeout")
        return int(self.sources[0].fileno())  # type: ignore[attr-defined]

    def _round(self) -> FrameBatch | None:
        # The time before reading: what was stamped `delay` before it is readable now.
        if self._clock is None:
            return self._round_of_captures()
        now = self._clock()
        undrained = []
        full = False
        for index, source in list(self._live.items()):
            drained = False
            for _ in range(_BATCHES_PER_ROUND):
                if index not in self._carry:
                    try:
                        batch = source.poll(0)
                    except DeviceError as error:
                        self._errors.append(error)
                        self._drop(index)
                        drained = True
                        break
                    if batch is None:
                        drained = True
                        if getattr(source, "ended", False):
                            self._drop(index)
                        break
                    self._carry[index] = (batch, 0)
                # Stamped up to now, which is later than `now`: only a stamp in the real future counts.
                if not self._take_in(index, self._clock()):
                    full = True
                    break
            if not drained:
                undrained.append(index)
        out = self._give_out(now, undrained=undrained)
        if out is None and full:
            out = self._give_out(now, early=True, undrained=undrained)
        return out

    def _round_of_captures(self) -> FrameBatch | None:
        """Reads only the source whose newest stamp is lowest, a piece at a time: of the others nothing can go
        out before it has come as far, and they would fill the buffer.
        """
        full = False
        for _ in range(max(2 * len(self._live), self._batch_frames // _CHUNK_FRAMES)):
            if not self._live:
                break
            index = min(self._live, key=self._newest.__getitem__)
            if index not in self._carry:
                try:
                    batch = self.sources[index].poll(0)
                except DeviceError as error:
                    self._errors.append(error)
                    self._drop(index)
                    continue
                if batch is None:
                    if getattr(self.sources[index], "ended", False):
                        self._drop(index)
                        continue
                    break
                self._carry[index] = (batch, 0)
            if not self._take_in(index, None, chunked=True):
                full = True
                break
        out = self._give_out(None, undrained=list(self._live))
        if out is None and full:
            out = self._give_out(None, early=True, undrained=list(self._live))
        return out

    def _wait(self, seconds: float) -> None:
        """Until a source has something or the time is over."""
        if self._carry:
            time.sleep(min(seconds, 0.001))  # the consumer holds the buffer; sources stay readable meanwhile
            return
        descriptors = [fileno() for fileno in self._waitable.values()]
        if len(descriptors) < len(self._live) or max(descriptors) >= 1024:
            time.sleep(min(seconds, 0.001))  # some source cannot be waited for: look again soon
        else:
            # select(2), not poll(2): poll rounds the time up to milliseconds, half of our delay.
            select.select([descriptor for descriptor in descriptors if descriptor >= 0], (), (), seconds)

    def _drop(self, index: int) -> None:
        del self._live[index]
        self._merger.end(index)
        self._waitable.pop(index, None)

    def _take_in(self, index: int, now: int | None, *, chunked: bool = False) -> bool:
        """Copies the batch under way, or a piece of it, into the buffer; False where it did not fit."""
        batch, start = self._carry[index]
        end = len(batch)
        if len(self._maps[index]) != len(batch.ports):
            self._map_ports(index, batch.ports)
        if batch.clock is not self._clocks[index]:
            self._clocks[index] = batch.clock
            self._merge_clocks()
        try:
            data, offset, caplen, length, timestamp_ns, port, flags = batch.raw
            numbers = self._maps[index].view
            if chunked:
                end = min(end, start + _CHUNK_FRAMES)
                sizes = np.cumsum(batch.caplen[start:end], dtype=np.int64)
                end = start + max(1, int(np.searchsorted(sizes, self._chunk_bytes, "right")))
                piece = slice(start, end)
                columns: Any = [
                    np.asarray(column)[piece]
                    for column in (offset, caplen, length, timestamp_ns, port, flags)
                ]
                taken = self._merger.add(
                    index,
                    data,
                    columns[0],
                    columns[1],
                    columns[2],
                    columns[3],
                    columns[4],
                    columns[5],
                    numbers,
                    0,
                    now,
                )
                if taken:
                    newest = int(batch.timestamp_ns[start : start + taken].max())
                    self._newest[index] = max(self._newest[index], newest)
            else:
                taken = self._merger.add(
                    index, data, offset, caplen, length, timestamp_ns, port, flags, numbers, start, now
                )
        except ValueError as error:
            raise InputError(f"source {index} of the merge: {error}") from error
        if start + taken < len(batch):
            self._carry[index] = (batch, start + taken)
            return start + taken == end
        del self._carry[index]
        batch.release()
        return True

    def _give_out(
        self, now: int | None, *, everything: bool = False, early: bool = False, undrained: Sequence[int] = ()
    ) -> FrameBatch | None:
        got = self._merger.take(now, self._batch_frames, everything, early, undrained)
        if got is None:
            return None
        columns, lease = got
        assert self._merged_clock is not None
        batch = FrameBatch(
            columns, ports=self.ports, clock=self._merged_clock, first=self._first, lease=lease.release
        )
        self._first += len(batch)
        return batch

    def _map_ports(self, index: int, ports: Sequence[Port]) -> None:
        table = self.ports
        assert isinstance(table, list)
        known = self._maps[index]
        for number in range(len(known), len(ports)):
            if len(table) > 0xFFFF:
                raise ConfigError("the merged sources have more than 65536 ports")
            known.append(len(table))
            table.append(ports[number])

    def _merge_clocks(self) -> None:
        """The merged batches' clock: no better than the worst of the sources'."""
        clocks = [clock for clock in self._clocks if clock is not None]
        scales = {clock.timescale for clock in clocks}
        if len(scales) > 1:
            found = ", ".join(sorted(scales))
            raise ConfigError(f"sources of different timescales ({found}) cannot be merged by stamp")
        kinds = {clock.source for clock in clocks}
        ranked = [kind for kind in ("file", "kernel", "nic", "card") if kind in kinds]
        unknown = any(clock.bound_ns < 0 for clock in clocks)
        self._merged_clock = ClockState(
            clocks[0].timescale,
            ranked[0] if ranked else clocks[0].source,
            all(clock.locked for clock in clocks),
            -1 if unknown else max(clock.bound_ns for clock in clocks),
            max(clock.epoch for clock in clocks),
            clocks[0].state if len({clock.state for clock in clocks}) == 1 else "",
            clocks[0].utc_offset_s,
            all(clock.utc_known for clock in clocks) and len({clock.utc_offset_s for clock in clocks}) == 1,
            clocks[0].leap_s,
            clocks[0].leap_tai_s,
        )

    def close(self) -> None:
        """Releases what is half taken in and closes the sources that can be closed."""
        if not self._single:
            for batch, _ in self._carry.values():
                batch.release()
            self._carry.clear()
        for source in self.sources:
            close = getattr(source, "close", None)
            if close is not None:
                close()

    def __enter__(self) -> Merge:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
