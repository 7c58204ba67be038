# SPDX-License-Identifier: Apache-2.0
"""Merge against a plain sort, with a clock of our own: no root, no interface."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.errors import ConfigError, DeviceError, InputError
from twinstamp.frames import KERNEL_CLOCK, ClockState, FrameBatch, Port
from twinstamp.io.merge import Merge

DELAY_NS = 2_000_000
START = 1_700_000_000_000_000_000


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> int:
        return self.now


class Queue:
    """A source whose frames become readable at given times. Frame = 8 bytes number + filling."""

    def __init__(
        self, clock: Clock, frames: list[tuple[int, int, bytes]], most: int = 1000, name: str = "q"
    ) -> None:
        self.clock = clock
        self.frames = frames  # (arrival, stamp, bytes)
        self.at = 0
        self.most = most
        self.ports = (Port(name, 1),)
        self.clock_state = KERNEL_CLOCK
        self.released = 0
        self.given = 0

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        end = self.at
        while end < len(self.frames) and end - self.at < self.most and self.frames[end][0] <= self.clock.now:
            end += 1
        if end == self.at:
            return None
        part, self.at = self.frames[self.at : end], end
        plain = FrameBatch.from_frames([f[2] for f in part], timestamp_ns=[f[1] for f in part])
        self.given += 1

        def lease() -> None:
            self.released += 1

        return FrameBatch(plain.raw, ports=self.ports, clock=self.clock_state, lease=lease)

    @property
    def ended(self) -> bool:
        return self.at == len(self.frames)


class Endless(Queue):
    ended = False  # type: ignore[assignment]


def frame(source: int, number: int, size: int = 60) -> bytes:
    return source.to_bytes(2, "big") + number.to_bytes(6, "big") + bytes([number & 0xFF]) * max(0, size - 8)


def drain(merge: Merge, out: list[tuple[int, bytes, str]]) -> None:
    while (batch := merge.poll(0)) is not None:
        with batch:
            assert batch.first == len(out)
            for i in range(len(batch)):
                out.append((int(batch.timestamp_ns[i]), batch.frame(i), batch.ports[batch.port[i]].name))


@st.composite
def traffic(draw: st.DrawFn) -> tuple[list[list[tuple[int, int, bytes]]], list[int]]:
    """Sources with ordered stamps; every frame readable within the bound; and the times of our polls."""
    sources = []
    for s in range(draw(st.integers(2, 4))):
        stamps, arrivals = [], []
        t = START
        for gap in draw(st.lists(st.integers(0, 3_000_000) | st.integers(0, 3), max_size=30)):
            t += gap
            stamps.append(t)
            arrivals.append(max(t + draw(st.integers(0, DELAY_NS)), arrivals[-1] if arrivals else 0))
        # FIFO: an arrival is never before the previous one, and still within the bound of its own stamp
        arrivals = [min(a, stamps[i] + DELAY_NS) for i, a in enumerate(arrivals)]
        sources.append(
            [
                (a, stamp, frame(s, i, 8 + i % 90))
                for i, (a, stamp) in enumerate(zip(arrivals, stamps, strict=True))
            ]
        )
    end = max([START, *(f[0] for frames in sources for f in frames)])
    polls = draw(st.lists(st.integers(START, end), max_size=40))
    return sources, [*sorted(polls), end + DELAY_NS + 1]


@settings(max_examples=300, deadline=None)
@given(traffic(), st.sampled_from([1, 2, 3, 1000]), st.sampled_from([1, 5, 1000]))
def test_any_interleaving_within_the_bound_is_one_order(
    given_traffic: tuple[list[list[tuple[int, int, bytes]]], list[int]], most: int, batch_frames: int
) -> None:
    frames, polls = given_traffic
    clock = Clock()
    merge = Merge(
        [Endless(clock, f, most, f"q{s}") for s, f in enumerate(frames)],
        clock=clock,
        batch_frames=batch_frames,
    )
    out: list[tuple[int, bytes, str]] = []
    for clock.now in polls:
        drain(merge, out)
    for _ in range(200):  # queues that give one frame per poll still have some
        drain(merge, out)
    expected = sorted((f[1], s, i) for s, queue in enumerate(frames) for i, f in enumerate(queue))
    assert [(t, b) for t, b, _ in out] == [(t, frames[s][i][2]) for t, s, i in expected]
    assert [name for _, _, name in out] == [f"q{s}" for _, s, _ in expected]
    statistics = merge.statistics()
    assert (statistics.late, statistics.early, statistics.future) == (0, 0, 0)
    assert statistics.held_frames == statistics.held_bytes == 0
    assert all(source.given == source.released for source in merge.sources)


def test_an_idle_source_costs_the_delay_and_no_more() -> None:
    clock = Clock()
    merge = Merge([Endless(clock, [(START, START, frame(0, 0))]), Endless(clock, [])], clock=clock)
    assert merge.poll(0) is None
    clock.now = START + DELAY_NS
    assert merge.poll(0) is None  # a frame with this very stamp may still arrive in time
    clock.now = START + DELAY_NS + 1
    batch = merge.poll(0)
    assert batch is not None and len(batch) == 1


def test_a_frame_that_every_source_has_passed_does_not_wait() -> None:
    clock = Clock()
    clock.now = START + 10
    merge = Merge(
        [
            Endless(clock, [(START, START + 1, frame(0, 0)), (START, START + 5, frame(0, 1))]),
            Endless(clock, [(START, START + 3, frame(1, 0)), (START, START + 5, frame(1, 1))]),
        ],
        clock=clock,
    )
    batch = merge.poll(0)
    assert batch is not None
    # source 1's frame at +5 waits: source 0 might bring another +5, which goes before it
    assert list(batch.timestamp_ns - START) == [1, 3, 5]
    assert list(batch.port) == [0, 1, 0]


def test_late_frames_go_out_at_once_and_are_counted() -> None:
    clock = Clock()
    slow = [
        (START + 5_000_000, START + 1_000, frame(1, 0)),
        (START + 5_000_000, START + 4_900_000, frame(1, 1)),
    ]
    merge = Merge([Endless(clock, [(START, START + 2_000, frame(0, 0))]), Endless(clock, slow)], clock=clock)
    out: list[tuple[int, bytes, str]] = []
    clock.now = START + 2_500_000
    drain(merge, out)
    assert len(out) == 1
    clock.now = START + 5_000_000
    drain(merge, out)
    assert [t - START for t, _, _ in out] == [2_000, 1_000]
    assert merge.statistics().late == 1
    clock.now = START + 7_000_000
    drain(merge, out)
    assert [t - START for t, _, _ in out] == [2_000, 1_000, 4_900_000]


def test_after_a_stall_nothing_is_late() -> None:
    """Full queues read in turn, long after the stamps: by age alone the first would run ahead."""
    clock = Clock()
    rng = random.Random(7)
    queues = [
        [
            (s, s, frame(q, i))
            for i, s in enumerate(sorted(rng.sample(range(START, START + 50_000_000), 3000)))
        ]
        for q in range(2)
    ]
    merge = Merge([Endless(clock, q, 100) for q in queues], clock=clock)
    clock.now = START + 1_000_000_000
    out: list[tuple[int, bytes, str]] = []
    drain(merge, out)
    assert len(out) == 6000
    assert [t for t, _, _ in out] == sorted(t for t, _, _ in out)
    assert merge.statistics().late == 0


def test_disorder_inside_one_source_is_sorted() -> None:
    """Stamps of one interface run backwards by microseconds where several cores receive for it."""
    clock = Clock()
    rng = random.Random(3)
    queues = []
    for q in range(2):
        stamps = [START + i * 1000 + rng.randrange(5000) for i in range(1500)]
        queues.append([(START, s, frame(q, i)) for i, s in enumerate(stamps)])
    clock.now = START + 1_600_000
    merge = Merge([Endless(clock, q, 5000) for q in queues], clock=clock)
    out: list[tuple[int, bytes, str]] = []
    drain(merge, out)  # all of it is read here
    clock.now += 10_000_000
    drain(merge, out)
    expected = sorted((f[1], q, i) for q, queue in enumerate(queues) for i, f in enumerate(queue))
    assert [b for _, b, _ in out] == [queues[q][i][2] for _, q, i in expected]


def test_full_buffer_releases_early_and_counts() -> None:
    clock = Clock()
    big = [(START, START + i, frame(0, i, 60_000)) for i in range(100)]  # 6 MB into 2 MiB
    merge = Merge([Endless(clock, big), Endless(clock, [])], clock=clock, memory_mib=2)
    clock.now = START + 1000  # nothing is due
    out: list[tuple[int, bytes, str]] = []
    drain(merge, out)
    clock.now = START + 10_000_000
    drain(merge, out)
    assert [b for _, b, _ in out] == [f[2] for f in big]
    statistics = merge.statistics()
    assert statistics.early > 0
    assert statistics.most_bytes <= statistics.memory_bytes == 2 * 1024 * 1024


def test_consumer_that_holds_everything_stops_the_intake_and_loses_nothing() -> None:
    clock = Clock()
    big = [(START, START + i, frame(0, i, 60_000)) for i in range(100)]
    source = Endless(clock, big)
    merge = Merge([source, Endless(clock, [])], clock=clock, memory_mib=2)
    clock.now = START + 1_000_000_000
    held = []
    for _ in range(50):
        batch = merge.poll(0)
        if batch is not None:
            held.append(batch)
    assert merge.poll(0.01) is None
    n = sum(len(batch) for batch in held)
    assert 0 < n < 100
    assert [held_batch.frame(i) for held_batch in held for i in range(len(held_batch))] == [
        f[2] for f in big[:n]
    ]
    for batch in held:
        batch.release()
    out: list[bytes] = []
    while (batch := merge.poll(0)) is not None:
        with batch:
            out += [batch.frame(i) for i in range(len(batch))]
    assert out == [f[2] for f in big[n:]]
    assert merge.statistics().used_bytes <= 512 * 1024  # the slab being filled


def test_clock_set_back_lets_held_frames_go() -> None:
    clock = Clock()
    merge = Merge([Endless(clock, [(START, START, frame(0, 0))]), Endless(clock, [])], clock=clock)
    assert merge.poll(0) is None
    clock.now = START - 3_600_000_000_000
    batch = merge.poll(0)
    assert batch is not None and len(batch) == 1
    assert merge.statistics().clock_steps == 1


def test_stamp_from_the_future_does_not_block() -> None:
    clock = Clock()
    far = START + 10**15
    merge = Merge([Endless(clock, [(START, far, frame(0, 0))]), Endless(clock, [])], clock=clock)
    assert merge.poll(0) is None
    clock.now = START + DELAY_NS + 1
    batch = merge.poll(0)
    assert batch is not None and int(batch.timestamp_ns[0]) == far
    assert merge.statistics().future == 1


def test_flush_gives_everything_in_order() -> None:
    clock = Clock()
    merge = Merge(
        [
            Endless(clock, [(START, START + 30, frame(0, 0))]),
            Endless(clock, [(START, START + 10, frame(1, 0)), (START, START + 20, frame(1, 1))]),
        ],
        clock=clock,
    )
    clock.now = START + 40
    first = merge.poll(0)
    assert first is not None and list(first.timestamp_ns - START) == [10, 20]
    last = merge.flush()
    assert last is not None and list(last.timestamp_ns - START) == [30]
    assert merge.flush() is None


def test_sources_that_end_hold_nobody_back_and_files_need_no_clock() -> None:
    clock = Clock()
    clock.now = START * 2
    a = Queue(clock, [(0, 1, frame(0, 0)), (0, 3, frame(0, 1))], 1)
    b = Queue(clock, [(0, 2, frame(1, 0)), (0, 10**12, frame(1, 1)), (0, 10**12 + 1, frame(1, 2))], 1)
    merge = Merge([a, b], clock=None)
    out: list[tuple[int, bytes, str]] = []
    drain(merge, out)
    assert [t for t, _, _ in out] == [1, 2, 3, 10**12, 10**12 + 1]
    assert merge.ended


def test_one_source_passes_through_without_a_copy() -> None:
    clock = Clock()
    source = Endless(clock, [(START, START, frame(0, 0))])
    merge = Merge([source], clock=clock)
    batch = merge.poll(0)
    assert batch is not None and source.released == 0
    batch.release()
    assert source.released == 1
    assert merge.poll(0) is None and merge.flush() is None


class Failing(Endless):
    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        batch = super().poll(timeout_s)
        if batch is None:
            raise DeviceError("interface q is gone")
        return batch


def test_a_failed_source_is_reported_once_after_its_frames_and_the_others_go_on() -> None:
    clock = Clock()
    other = Endless(clock, [(START, START + 5, frame(1, 0)), (START + 10**9, START + 10**9, frame(1, 1))])
    merge = Merge([Failing(clock, [(START, START + 1, frame(0, 0))]), other], clock=clock)
    clock.now = START + 100
    batch = merge.poll(0)
    assert batch is not None and list(batch.timestamp_ns - START) == [1, 5]
    with pytest.raises(DeviceError, match="q is gone"):
        merge.poll(0)
    clock.now = START + 10**9
    batch = merge.poll(0)
    assert batch is not None and len(batch) == 1


def test_clear_errors() -> None:
    clock = Clock()
    with pytest.raises(ConfigError, match="at least one source"):
        Merge([])
    with pytest.raises(ConfigError, match="delay_ms is -1 ms"):
        Merge([Endless(clock, [])], delay_ms=-1)
    with pytest.raises(ConfigError, match="memory_mib is 1 MiB"):
        Merge([Endless(clock, [])] * 2, memory_mib=1)
    tai = Endless(clock, [(START, START, frame(0, 0))])
    tai.clock_state = ClockState("tai", "card", True, 10, 0)
    with pytest.raises(ConfigError, match="timescales"):
        Merge([tai, Endless(clock, [(START, START, frame(0, 0))])], clock=clock).poll(0)
    with pytest.raises(InputError, match="600000 bytes"):
        huge = [(START, START, bytes(600_000))]
        Merge([Endless(clock, huge), Endless(clock, [])], clock=clock).poll(0)
