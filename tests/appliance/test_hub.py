# SPDX-License-Identifier: Apache-2.0
"""The hub: each reader gets its frames in order, or is told how many it lost, whatever the others do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.appliance import hub as hub_module
from twinstamp.appliance.hub import Hub, Reader
from twinstamp.appliance.outputs import RetryBudget
from twinstamp.errors import LedgerError
from twinstamp.frames import FrameBatch


class Collector:
    """A sink that keeps what it is given; before: called first, with the frames."""

    def __init__(self, before: Callable[[list[bytes]], None] = lambda frames: None) -> None:
        self.got: list[bytes] = []
        self.kinds: list[int] = []
        self.numbers: list[tuple[int, int]] = []
        self.finished = 0
        self.ticks = 0
        self._before = before

    def take(self, clean, index):
        chosen = range(len(clean.batch)) if index is None else index.tolist()
        frames = [clean.batch.frame(i) for i in chosen]
        self._before(frames)
        self.got += frames
        self.kinds += [0 if clean.kind is None else int(clean.kind[i]) for i in chosen]
        self.numbers.append((clean.number, len(frames)))

    def tick(self, now_ns):
        self.ticks += 1

    def finish(self):
        self.finished += 1

    def counters(self):
        return {"frames": len(self.got)}


def batch_of(numbers: range, size: int = 60) -> tuple[list[bytes], FrameBatch, list[int]]:
    frames = [n.to_bytes(4, "big") + bytes(max(size, 0)) for n in numbers]
    released: list[int] = []
    made = FrameBatch.from_frames(frames, timestamp_ns=list(numbers))
    batch = FrameBatch(made.raw, ports=made.ports, lease=lambda: released.append(1))
    return frames, batch, released


def until(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit, "did not happen in time"
        time.sleep(0.005)


def u32(values) -> np.ndarray:
    return np.array(values, np.uint32)


def test_a_shared_batch_goes_back_when_the_last_one_is_released():
    frames, batch, released = batch_of(range(3))
    second = batch.share()
    third = second.share()
    batch.release()
    batch.release()
    assert len(batch) == 0 and not released
    third.release()
    assert [second.frame(i) for i in range(3)] == frames and not released
    second.release()
    assert released == [1]


def test_a_batch_may_be_shared_and_released_by_many_threads():
    _, batch, released = batch_of(range(3))

    def work():
        for _ in range(2000):
            batch.share().release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not released
    batch.release()
    assert released == [1]


pushes = st.lists(
    st.tuples(
        st.integers(1, 40),  # frames
        st.integers(0, 3),  # how the choices are made
        st.sampled_from([0, 60, 1500, 9000]),
        st.booleans(),  # clean frames, or what was held and comes later
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(pushes, st.booleans(), st.randoms(use_true_random=False))
def test_readers_get_what_is_meant_for_them_in_order(stream, in_step, random):
    """With room for all, nothing is lost, whatever is pushed; in step likewise."""
    sinks = [Collector() for _ in range(3)]
    whole = Reader("all", sinks[0], whole=True)
    servers = [Reader(f"s{k}", sinks[1 + k]) for k in range(2)]
    hub = Hub([whole, *servers], memory_mib=64, in_step=in_step)
    hub.start()
    expected: list[list[bytes]] = [[], [], []]
    kinds, leases, start = [], [], 0
    for count, way, size, clean in stream:
        frames, batch, released = batch_of(range(start, start + count), size)
        leases.append(released)
        start += count
        rows = None if way == 0 else u32(sorted(random.sample(range(count), random.randint(0, count))))
        kept = list(range(count)) if rows is None else rows.tolist()
        picks = []
        for k, reader in enumerate(servers):
            index = sorted(random.choices(kept, k=random.randint(0, 2 * len(kept)))) if kept else []
            if index:
                picks.append((reader, u32(index)))
                expected[1 + k] += [frames[i] for i in index]
        kind = np.arange(count, dtype=np.uint8) if way == 2 else None
        if clean:
            expected[0] += [frames[i] for i in kept]
            kinds += [0 if kind is None else i for i in kept]
        hub.push(batch, rows, kind=kind, picks=picks, whole=clean)
        batch.release()
        while not in_step and len(hub._pushed) > 100:
            time.sleep(0.001)
    hub.finish()
    hub.check(ended=True)
    assert [sink.got for sink in sinks] == expected
    assert sinks[0].kinds == kinds
    assert [sink.finished for sink in sinks] == [1, 1, 1]
    assert all(released == [1] for released in leases), "a lease was kept"
    assert sum(count for _, count in sinks[0].numbers) == len(expected[0])
    at = 0
    for number, count in sinks[0].numbers:
        assert number == at
        at += count
    for reader, want in zip([whole, *servers], expected, strict=True):
        assert reader.done.frames == reader.offered.frames == len(want)
        assert reader.done.bytes == sum(map(len, want))


def test_a_reader_that_stands_still_loses_its_own_frames_only():
    """The oldest first, but for what it has in its hands; the other reader and the intake lose none."""
    gate = threading.Event()
    stuck, quick = Collector(lambda frames: gate.wait(20) and None), Collector()
    readers = [Reader("stuck", stuck, whole=True), Reader("quick", quick, whole=True)]
    hub = Hub(readers, memory_mib=4)
    hub.start()
    everything: list[bytes] = []
    for k in range(300):
        frames, batch, _ = batch_of(range(100 * k, 100 * k + 100), 1000)
        everything += frames
        hub.push(batch, None)
        batch.release()
        until(lambda: readers[1].waiting.frames == 0)
    assert quick.got == everything
    assert hub.missed.frames == readers[1].lost.frames == 0
    assert readers[0].lost.frames > 20_000
    gate.set()
    hub.finish()
    hub.check(ended=True)
    lost = readers[0].lost.frames
    assert len(stuck.got) == readers[0].done.frames == len(everything) - lost
    first = stuck.numbers[0][1]
    assert stuck.got == everything[:first] + everything[first + lost :]
    # Where frames are missing the numbers jump by so many.
    assert stuck.numbers[1][0] == first + lost


def test_blocks_of_one_frame_are_bounded_too(monkeypatch):
    """On a quiet interface a reader that stands still would gather a million before 64 MiB are full."""
    monkeypatch.setattr(hub_module, "_MOST_BLOCKS", 10)
    gate = threading.Event()
    stuck, quick = Collector(lambda frames: gate.wait(20) and None), Collector()
    readers = [Reader("stuck", stuck, whole=True), Reader("quick", quick, whole=True)]
    hub = Hub(readers, memory_mib=64)
    hub.start()
    for k in range(50):
        _, batch, _ = batch_of(range(k, k + 1))
        hub.push(batch, None)
        batch.release()
        until(lambda: readers[1].waiting.frames == 0 and (k or not readers[0].queue))  # noqa: B023
    gate.set()
    hub.finish()
    hub.check(ended=True)
    assert readers[0].lost.frames == 39 and readers[1].done.frames == 50
    assert [int.from_bytes(frame[:4], "big") for frame in stuck.got] == [0, *range(40, 50)]


def test_a_full_ring_is_missed_and_counted():
    """More than a quarter of it held, and something in the queue already."""
    sink = Collector()
    reader = Reader("all", sink, whole=True)
    held = [0.0]
    hub = Hub([reader], memory_mib=4, held=lambda: held[0])
    for k in range(10):
        held[0] = 0.3 if k in (0, 3, 4) else 0.1
        _, batch, _ = batch_of(range(10 * k, 10 * k + 10))
        hub.push(batch, None)
        batch.release()
    hub.finish()
    hub.check(ended=True)
    assert (hub.tapped.frames, hub.missed.frames, hub.taken.frames) == (100, 20, 80)
    assert (reader.offered.frames, reader.missed.frames, reader.done.frames) == (100, 20, 80)
    assert [int.from_bytes(f[:4], "big") for f in sink.got] == [*range(30), *range(50, 100)]


def test_a_forwarding_thread_that_is_faster_than_the_intake_never_waits():
    sink = Collector()
    reader = Reader("all", sink, whole=True)
    hub = Hub([reader], memory_mib=4)
    leases = []
    for k in range(1000):  # before any thread runs
        _, batch, released = batch_of(range(k, k + 1))
        leases.append(released)
        hub.push(batch, None)
        batch.release()
    hub.finish()
    hub.check(ended=True)
    assert reader.missed.frames + reader.done.frames == 1000 and reader.missed.frames > 500
    assert all(released == [1] for released in leases)


@pytest.mark.parametrize("in_step", [False, True])
def test_a_reader_that_raises_stops_alone(in_step):
    def breaks(frames):
        if len(frames) == 7:
            raise RuntimeError("seven")

    sinks = [Collector(breaks), Collector()]
    readers = [Reader("breaks", sinks[0], whole=True), Reader("other", sinks[1], whole=True)]
    hub = Hub(readers, memory_mib=4, in_step=in_step)
    hub.start()
    start = 0
    for count in (5, 7, 9):
        _, batch, _ = batch_of(range(start, start + count))
        start += count
        hub.push(batch, None)
        batch.release()
    hub.finish()
    hub.check(ended=True)
    assert str(readers[0].error) == "RuntimeError: seven"
    assert (readers[0].done.frames, readers[0].lost.frames) == (5, 16)
    assert readers[1].error is None and len(sinks[1].got) == 21


def test_a_reader_that_never_comes_back_is_left_behind(monkeypatch):
    monkeypatch.setattr(hub_module, "_END_S", 0.3)
    gate = threading.Event()
    sinks = [Collector(lambda frames: gate.wait(20) and None), Collector()]
    readers = [Reader(f"r{k}", sink, whole=True) for k, sink in enumerate(sinks)]
    hub = Hub(readers, memory_mib=4)
    hub.start()
    for k in range(5):
        _, batch, _ = batch_of(range(k, k + 1))
        hub.push(batch, None)
        batch.release()
    began = time.monotonic()
    hub.finish()
    assert time.monotonic() - began < 5
    hub.check(ended=True)
    assert "left behind" in str(readers[0].error) and readers[0].lost.frames == 5
    assert readers[1].done.frames == 5 and sinks[1].finished == 1
    gate.set()


def test_frames_that_a_copy_forgets_break_the_law():
    class Forgets:
        """A store that says it has copied all, with one frame less in the last batch."""

        def __init__(self, store):
            self._store = store
            self.memory_bytes = self.used_bytes = 0

        def put(self, data, *columns):
            got = self._store.put(data, *columns)
            caplen = np.array(got[0][2])
            caplen[0] -= 1
            return (*got[0][:2], caplen, *got[0][3:]), got[1]

    reader = Reader("all", Collector(), whole=True)
    hub = Hub([reader], memory_mib=4)
    hub._store = Forgets(hub._store)
    hub.start()
    _, batch, _ = batch_of(range(5))
    hub.push(batch, None)
    hub.finish()
    with pytest.raises(LedgerError, match="reader all"):
        hub.check(ended=True)


def test_a_reader_is_called_each_second_without_frames():
    sink = Collector()
    hub = Hub([Reader("all", sink, whole=True)], memory_mib=4)
    hub.start()
    until(lambda: sink.ticks >= 2)
    hub.finish()
    assert sink.finished == 1


def test_one_budget_for_all_interfaces_of_a_batch():
    budget = RetryBudget(2.0)
    spent = []
    for _ in range(2):
        budget.refill()
        budget.turns(3)
        for _ in range(3):
            may_wait = budget.take()
            spent.append(may_wait)
            budget.spend(may_wait)  # a queue that stays full
    assert spent == [1_000_000, 500_000, 500_000] * 2
    budget.refill()
    budget.turns(2)
    budget.take()
    assert budget.take() == 2_000_000, "the last one has all that nobody used"
