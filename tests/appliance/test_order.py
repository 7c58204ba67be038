# SPDX-License-Identifier: Apache-2.0
"""Verdicts do not depend on how frames were spread over queues nor on when each queue was read."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.dedup import Deduplicator
from twinstamp.frames import FrameBatch
from twinstamp.io.merge import Merge

from tests.io_live.test_merge import DELAY_NS, START, Clock, Queue

# (payload, ns after the frame before, queue, arrival after the stamp)
frames = st.lists(
    st.tuples(st.integers(0, 4), st.integers(1, 300_000), st.integers(0, 1), st.integers(0, DELAY_NS // 2)),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(
    frames,
    st.integers(2, 20),
    st.integers(0, 3_000_000),
    st.lists(st.integers(20_000, 2_000_000), min_size=1),
)
def test_any_interleaving_within_the_reorder_bound(stream, count, time_ns, pauses):
    clock = Clock()
    queues: list[list[tuple[int, int, bytes]]] = [[], []]
    stamp = START
    arrivals = [START, START]
    whole = []
    for payload, step, queue, late in stream:
        stamp += step
        # A queue keeps its own order; what it holds arrives at most half the reorder delay later.
        arrivals[queue] = max(arrivals[queue], stamp + late)
        frame = bytes([payload]) * 20
        queues[queue].append((arrivals[queue], stamp, frame))
        whole.append((stamp, frame))

    def judge() -> Deduplicator:
        return Deduplicator(window=count, time_ns=time_ns)

    expected = []
    if whole:
        straight = FrameBatch.from_frames([f for _, f in whole], timestamp_ns=[t for t, _ in whole])
        expected = list(judge().judge(straight).keep)

    merge = Merge([Queue(clock, queue) for queue in queues], clock=clock)
    window = judge()
    got, seen = [], []
    turn = 0
    while not merge.ended and turn < 10_000:
        clock.now += pauses[turn % len(pauses)]
        turn += 1
        batch = merge.poll(0)
        if batch is not None:
            with batch:
                got += list(window.judge(batch).keep)
                seen += batch.timestamp_ns.tolist()
    while (batch := merge.flush()) is not None:
        with batch:
            got += list(window.judge(batch).keep)
            seen += batch.timestamp_ns.tolist()
    assert seen == [t for t, _ in whole]
    assert got == expected
    assert merge.statistics().late == 0
