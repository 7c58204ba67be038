# SPDX-License-Identifier: Apache-2.0
"""One copy of the clean frames for all who look at them beside the forwarding: readers, each at its own pace.

The forwarding thread adds a reference to a batch's lease and puts it into a bounded queue; it never waits.
The intake, a thread of its own, copies the frames once into bounded memory (blocks) and gives the lease back.
Each reader has a thread and a queue of blocks. When the memory is used up, the reader that is furthest behind
loses its oldest block, alone and counted. In step (captures as sources) a push runs the readers at once,
without copy, thread or loss.

Laws, checked: tapped = missed + taken, and for each reader offered = missed + done + lost + waiting, in
frames and bytes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from twinstamp import _native
from twinstamp.appliance.stages import U8, U32, Clean
from twinstamp.errors import LedgerError, OverloadError, TwinstampError
from twinstamp.frames import FrameBatch
from twinstamp.ledger import Account

_QUEUE_BATCHES = 256
_MOST_HELD = 0.25  # share of a ring that may wait for the intake
_MOST_BLOCKS = 32_768  # that wait for a reader: each costs 1 to 2 KiB beside its frames, which may be few
_IDLE_S = 1.0
MIB_PER_READER = 2  # at least: what it holds in its hand may pin two slabs of 512 KiB and a block
_END_S = 5.0  # how long the end of a run waits for a reader that gets no further
_LONGEST_END_S = 20.0  # and for all that do


class Sink(Protocol):
    """What a reader does with blocks; all of it in the reader's thread (in step: in the loop's)."""

    def take(self, clean: Clean, index: U32 | None) -> None:
        """The frames at index (ascending, may repeat); None: all."""

    def tick(self, now_ns: int) -> None:
        """At least once a second."""

    def finish(self) -> None:
        """The last call but counters()."""

    def counters(self) -> Mapping[str, int | float | str]:
        """Of what take() has done so far."""


class _Block:
    """Copied frames that several readers hold."""

    __slots__ = ("clean", "users")

    def __init__(self, clean: Clean) -> None:
        self.clean = clean
        self.users = 1  # the intake, until all readers have it


class _Portion(NamedTuple):
    """A reader's part of a block."""

    block: _Block
    chosen: U32 | None
    frames: int
    bytes: int
    order: int


class Reader:
    """A cursor over the blocks and the thread that follows it.

    name: for events and threads. whole: it takes all frames of a push, not a choice of them. Accounts, in
    frames and bytes: offered = missed (no room for the batch itself) + done + lost (no room any more, or the
    reader stopped) + waiting. error: what stopped it.
    """

    def __init__(self, name: str, sink: Sink, *, whole: bool = False) -> None:
        self.name = name
        self.whole = whole
        self.sink = sink
        self.offered = Account()
        self.missed = Account()
        self.done = Account()
        self.lost = Account()
        self.waiting = Account()
        self.counters: Mapping[str, int | float | str] = {}  # the sink's, as of done
        self.error: TwinstampError | None = None
        self.ended = False
        self.abandoned = False
        self.thread: threading.Thread | None = None
        self.queue: deque[_Portion] = deque()
        self.wake: threading.Condition | None = None

    def fail(self, error: Exception) -> None:
        if self.error is None:
            known = isinstance(error, TwinstampError)
            self.error = error if known else TwinstampError(f"{type(error).__name__}: {error}")  # type: ignore[assignment]

    def check(self, *, ended: bool = False) -> None:
        """Raises LedgerError where the accounts do not add up."""
        for unit in ("frames", "bytes"):
            parts = [getattr(a, unit) for a in (self.missed, self.done, self.lost, self.waiting)]
            offered = getattr(self.offered, unit)
            if offered != sum(parts) or min(parts) < 0 or (ended and parts[3]):
                raise LedgerError(
                    f"reader {self.name}: offered {offered} {unit}, "
                    "missed {} + done {} + lost {} + waiting {}".format(*parts)
                )

    def as_dict(self) -> dict[str, Any]:
        accounts = ("offered", "missed", "done", "lost", "waiting")
        return {
            **{name: getattr(self, name).as_dict() for name in accounts},
            "error": None if self.error is None else str(self.error),
        }


class _Push(NamedTuple):
    """A batch on its way to the intake."""

    batch: FrameBatch
    rows: U32 | None
    kind: U8 | None
    number: int
    picks: Sequence[tuple[Reader, U32]]
    whole: bool
    frames: int
    bytes: int


class Hub:
    """Gives frames to readers (see the module).

    readers: all there will ever be. memory_mib: of the copies. in_step: a push runs the readers itself, and
    nothing is copied or lost. held: () → share of the sources' memory that batches hold, 0.0 to 1.0.

    push(), finish() and start() belong to one thread. No call raises for what a reader does: its error says.
    """

    def __init__(
        self,
        readers: Sequence[Reader],
        *,
        memory_mib: int = 64,
        in_step: bool = False,
        held: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.readers = list(readers)
        self.in_step = in_step
        self.tapped = Account()
        self.missed = Account()  # by the intake
        self.taken = Account()
        self._held = held
        self._whole = [reader for reader in readers if reader.whole]
        self._lock = threading.Lock()
        self._pushed: deque[_Push] = deque()
        self._to_intake = threading.Condition(self._lock)
        self._closing = False
        self._finished = False
        self._intake: threading.Thread | None = None
        self._number = 0  # of the next clean frame
        self._order = 0
        self._next_tick = 0.0
        self.memory_bytes = 0 if in_step else memory_mib << 20
        self._store = None if in_step else _native.FrameStore(self.memory_bytes)
        self._block_bytes = max(self.memory_bytes // (8 * max(len(self.readers), 2)), 1)
        for reader in readers:
            reader.wake = threading.Condition(self._lock)

    @property
    def wants_all(self) -> bool:
        """Whether some reader takes all clean frames."""
        return bool(self._whole)

    def start(self) -> None:
        """Starts the threads; before it pushes wait."""
        if self.in_step or self._intake is not None:
            return
        for reader in self.readers:
            reader.thread = threading.Thread(
                target=self._read, args=(reader,), name=f"reader {reader.name}", daemon=True
            )
            reader.thread.start()
        self._intake = threading.Thread(target=self._take_in, name="intake", daemon=True)
        self._intake.start()

    def push(
        self,
        batch: FrameBatch,
        rows: U32 | None,
        *,
        kind: U8 | None = None,
        picks: Sequence[tuple[Reader, U32]] = (),
        whole: bool = True,
    ) -> None:
        """Offers frames: those at rows (u32, ascending; None: all) to readers of all frames, unless whole is
        False, and to the others those at their index in picks (ascending, of the batch). Never waits, but
        in step. kind: as in Clean, for the whole batch. The batch may be released afterwards.
        """
        whole = whole and bool(self._whole)
        caplen = batch.caplen
        number = self._number
        if whole:
            size = int((caplen if rows is None else caplen[rows]).sum(dtype=np.int64))
            count = len(batch) if rows is None else len(rows)
            self._number += count
        else:
            rows = _union([index for _, index in picks])
            count, size = len(rows), int(caplen[rows].sum(dtype=np.int64))
        if count == 0:
            return
        shares = [(reader, len(index), int(caplen[index].sum(dtype=np.int64))) for reader, index in picks]
        if whole:
            shares += [(reader, count, size) for reader in self._whole]
        self.tapped.add(count, size)
        if self.in_step:
            self.taken.add(count, size)
            for reader, frames, length in shares:
                reader.offered.add(frames, length)
            self._run_in_step(batch, rows, kind, number, dict(picks), shares)
            return
        # With nothing in the queue there is room: what is held is then this batch itself.
        room = not self._pushed or (len(self._pushed) < _QUEUE_BATCHES and self._held() <= _MOST_HELD)
        with self._lock:
            for reader, frames, length in shares:
                reader.offered.add(frames, length)
                (reader.waiting if room else reader.missed).add(frames, length)
            if not room:
                self.missed.add(count, size)
                return
            self.taken.add(count, size)
            self._pushed.append(_Push(batch.share(), rows, kind, number, picks, whole, count, size))
            self._to_intake.notify()

    def _run_in_step(
        self,
        batch: FrameBatch,
        rows: U32 | None,
        kind: U8 | None,
        number: int,
        picks: Mapping[Reader, U32],
        shares: Sequence[tuple[Reader, int, int]],
    ) -> None:
        chosen = batch if rows is None else batch.select(rows)
        clean = Clean(chosen, None, kind if rows is None or kind is None else kind[rows], number)
        for reader, frames, size in shares:
            if reader.error is None:
                try:
                    reader.sink.take(clean, _within(rows, picks[reader]) if reader in picks else None)
                except Exception as error:
                    reader.fail(error)
            (reader.done if reader.error is None else reader.lost).add(frames, size)
            self._look(reader)
        if (now := time.monotonic()) >= self._next_tick:
            self._next_tick = now + _IDLE_S
            for reader in self.readers:
                self._call(reader, lambda reader=reader: reader.sink.tick(time.time_ns()))  # type: ignore[misc]

    def _finish(self, reader: Reader) -> None:
        try:
            reader.sink.finish()
        except Exception as error:
            reader.fail(error)
        self._look(reader)

    def _look(self, reader: Reader) -> None:
        """Publishes the sink's counters."""
        try:
            reader.counters = reader.sink.counters()
        except Exception as error:
            reader.fail(error)

    @staticmethod
    def _call(reader: Reader, what: Callable[[], None]) -> None:
        if reader.error is None:
            try:
                what()
            except Exception as error:
                reader.fail(error)

    # The intake's thread.

    def _take_in(self) -> None:
        while True:
            with self._lock:
                while not self._pushed and not self._closing:
                    self._to_intake.wait()
                if not self._pushed:
                    for reader in self.readers:
                        reader.ended = True
                        assert reader.wake is not None
                        reader.wake.notify()
                    return
                push = self._pushed.popleft()
            try:
                self._copy(push)
            except Exception as error:  # of no memory, say: nobody gets anything any more, and it is counted
                with self._lock:
                    for reader in self.readers:
                        reader.fail(error)
            finally:
                push.batch.release()

    def _copy(self, push: _Push) -> None:
        """Copies a batch, in as many blocks as it needs, and hands them out."""
        assert self._store is not None
        batch, start = push.batch, 0
        while start < push.frames:
            data, offset, caplen, length, stamp, port, flags = batch.raw
            got = self._store.put(
                data, offset, caplen, length, stamp, port, flags, push.rows, start, self._block_bytes
            )
            if got is None:
                if not self._make_room():
                    time.sleep(0.001)  # all that there is, is in somebody's hands
                continue
            columns, lease = got
            end = start + len(columns[1])
            rows = np.arange(start, end, dtype=np.uint32) if push.rows is None else push.rows[start:end]
            block = _Block(
                Clean(
                    FrameBatch(columns, ports=batch.ports, clock=batch.clock, lease=lease.release),
                    None,
                    None if push.kind is None else push.kind[rows],
                    push.number + start,
                )
            )
            self._hand_out(push, block, rows)
            start = end

    def _hand_out(self, push: _Push, block: _Block, rows: U32) -> None:
        caplen = block.clean.batch.caplen
        portions: list[tuple[Reader, U32 | None, int, int]] = []
        first, last = int(rows[0]), int(rows[-1])
        for reader, pick in push.picks:
            low, high = np.searchsorted(pick, first, "left"), np.searchsorted(pick, last, "right")
            if low < high:
                index = _within(rows, pick[low:high])
                portions.append((reader, index, len(index), int(caplen[index].sum(dtype=np.int64))))
        if push.whole:
            size = int(caplen.sum(dtype=np.int64))
            portions += [(reader, None, len(rows), size) for reader in self._whole]
        with self._lock:
            self._order += 1
            for reader, index_, frames, size in portions:
                if reader.error is not None or reader.abandoned:
                    reader.waiting.add(-frames, -size)
                    reader.lost.add(frames, size)
                    continue
                if len(reader.queue) >= _MOST_BLOCKS:
                    self._lose(reader, reader.queue.popleft())
                block.users += 1
                reader.queue.append(_Portion(block, index_, frames, size, self._order))
                assert reader.wake is not None
                reader.wake.notify()
            self._let_go(block)

    def _make_room(self) -> bool:
        """Takes the oldest block from the reader that is furthest behind. False: nobody has one to lose."""
        with self._lock:
            behind = min(
                (reader for reader in self.readers if reader.queue),
                key=lambda reader: reader.queue[0].order,
                default=None,
            )
            if behind is None:
                return False
            self._lose(behind, behind.queue.popleft())
            return True

    # With the lock held.

    def _lose(self, reader: Reader, portion: _Portion) -> None:
        reader.waiting.add(-portion.frames, -portion.bytes)
        reader.lost.add(portion.frames, portion.bytes)
        self._let_go(portion.block)

    @staticmethod
    def _let_go(block: _Block) -> None:
        block.users -= 1
        if block.users == 0:
            block.clean.batch.release()

    # A reader's thread.

    def _read(self, reader: Reader) -> None:
        become_ordinary()
        assert reader.wake is not None
        next_tick = time.monotonic() + _IDLE_S
        while True:
            portion = None
            with self._lock:
                wait_s = next_tick - time.monotonic()
                if not reader.queue and not reader.ended and wait_s > 0:
                    reader.wake.wait(wait_s)
                if reader.queue:
                    portion = reader.queue.popleft()
                elif reader.ended:
                    break
            if portion is not None:
                block, index = portion.block, portion.chosen
                self._call(reader, lambda: reader.sink.take(block.clean, index))  # noqa: B023
                counters = reader.counters
                with contextlib.suppress(Exception):  # it says so again at the next call
                    counters = reader.sink.counters()
                with self._lock:
                    if reader.abandoned:
                        return
                    reader.counters = counters
                    if reader.error is None:
                        reader.waiting.add(-portion.frames, -portion.bytes)
                        reader.done.add(portion.frames, portion.bytes)
                        self._let_go(block)
                    else:
                        self._lose(reader, portion)
                        while reader.queue:
                            self._lose(reader, reader.queue.popleft())
            if (now := time.monotonic()) >= next_tick:
                next_tick = now + _IDLE_S
                self._call(reader, lambda: reader.sink.tick(time.time_ns()))
        self._finish(reader)

    def finish(self) -> None:
        """The stream has ended: all that is queued is read, and the readers end. One that gets no further for
        five seconds, or is not done after twenty, is abandoned: what it has not taken is lost, and its error
        says so. Once.
        """
        if self._finished:
            return
        self._finished = True
        if self.in_step:
            for reader in self.readers:
                self._finish(reader)
            return
        self.start()
        with self._lock:
            self._closing = True
            self._to_intake.notify()
        longest = time.monotonic() + _LONGEST_END_S
        self._join(self._intake, longest)
        for reader in self.readers:
            ended = self._join(reader.thread, longest)
            if not ended or reader.error is not None:
                self._abandon(reader)

    def _join(self, thread: threading.Thread | None, longest: float) -> bool:
        """Waits for a thread's end, as long as some reader gets on. False: it has not ended."""
        assert thread is not None
        seen, limit = -1, time.monotonic() + _END_S
        while thread.is_alive() and time.monotonic() < min(limit, longest):
            thread.join(0.1)
            progress = sum(reader.done.frames + reader.lost.frames for reader in self.readers)
            if progress != seen:
                seen, limit = progress, time.monotonic() + _END_S
        return not thread.is_alive()

    def _abandon(self, reader: Reader) -> None:
        with self._lock:
            reader.abandoned = True
            reader.queue.clear()
            reader.lost.add(reader.waiting.frames, reader.waiting.bytes)
            reader.waiting = Account()
            if reader.error is None:
                reader.error = OverloadError(
                    f"it had not ended {_END_S:g} to {_LONGEST_END_S:g} s after the last frame: left behind"
                )

    def check(self, *, ended: bool = False) -> None:
        """Raises LedgerError where one of the laws is broken; ended: nothing may wait any more."""
        with self._lock:
            for unit in ("frames", "bytes"):
                tapped, missed, taken = (
                    getattr(account, unit) for account in (self.tapped, self.missed, self.taken)
                )
                if tapped != missed + taken:
                    raise LedgerError(f"the hub: tapped {tapped} {unit}, missed {missed} + taken {taken}")
            for reader in self.readers:
                reader.check(ended=ended)

    def now(self, reader: Reader) -> tuple[Mapping[str, int | float | str], Account, Account]:
        """A reader's counters, and what it was done with when they were true: done; missed or lost."""
        with self._lock:
            refused = Account(reader.missed.frames, reader.missed.bytes)
            refused.add(reader.lost.frames, reader.lost.bytes)
            return reader.counters, Account(reader.done.frames, reader.done.bytes), refused

    def as_dict(self) -> dict[str, Any]:
        """Counters of now."""
        with self._lock:
            return {
                "tapped": self.tapped.as_dict(),
                "missed": self.missed.as_dict(),
                "taken": self.taken.as_dict(),
                "memory_bytes": self.memory_bytes,
                "used_bytes": 0 if self._store is None else self._store.used_bytes,
                "readers": {reader.name: reader.as_dict() for reader in self.readers},
            }


def _union(indexes: Sequence[U32]) -> U32:
    """All frames that some index names, once and ascending."""
    if not indexes:
        return np.empty(0, np.uint32)
    found = np.sort(np.concatenate(indexes))
    return found[np.concatenate(([True], found[1:] != found[:-1]))] if len(found) else found


def _within(rows: U32 | None, index: U32) -> U32:
    """Where the frames at index stand among those at rows, of which they are a part."""
    return index if rows is None else np.searchsorted(rows, index).astype(np.uint32)


def become_ordinary() -> None:
    """For threads that are never more urgent than the forwarding, whose `realtime` they inherit."""
    if os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
