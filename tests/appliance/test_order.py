# SPDX-License-Identifier: Apache-2.0
"""Verdicts do not depend on how frames were spread over queues nor on when each queue was read."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.appliance.config import SourceConfig
from twinstamp.appliance.sources import FileSource
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


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("shares", [(1, 7), (7, 1), (1, 1, 1)])
def test_captures_larger_than_the_reorder_buffer_are_merged_exactly(tmp_path, shares, newest_first):
    """20 MB through a buffer of 2 MiB: of each only as much is read as the others have come along."""
    rng = np.random.default_rng(sum(shares))
    n = 60_000
    stamps = 1_700_000_000_000_000_000 + np.cumsum(rng.integers(0, 2_000, n)).astype(np.int64)
    if newest_first:  # as rotated files come: each has a time of its own, the last one first
        owner = np.sort(rng.choice(len(shares), n, p=np.array(shares) / sum(shares)))[::-1]
    else:
        owner = rng.choice(len(shares), n, p=np.array(shares) / sum(shares))
    frames = [bytes(12) + b"\x88\xb5" + int(k).to_bytes(4, "big") + bytes(300) for k in range(n)]
    paths = []
    for source in range(len(shares)):
        paths.append(tmp_path / f"{source}.pcap")
        with paths[-1].open("wb") as file:
            file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
            for k in np.flatnonzero(owner == source):
                seconds, ns = divmod(int(stamps[k]), 10**9)
                file.write(struct.pack("<IIII", seconds, ns, len(frames[k]), len(frames[k])) + frames[k])
    sources = [FileSource(SourceConfig(file=str(path))) for path in paths]
    merge = Merge(sources, memory_mib=2, clock=None)
    numbers, when = [], []
    while not merge.ended:
        batch = merge.poll()
        if batch is not None:
            with batch:
                numbers += [int.from_bytes(batch.frame(i)[14:18], "big") for i in range(len(batch))]
                when.append(batch.timestamp_ns.copy())
    while (batch := merge.flush()) is not None:
        with batch:
            numbers += [int.from_bytes(batch.frame(i)[14:18], "big") for i in range(len(batch))]
            when.append(batch.timestamp_ns.copy())
    for source in sources:
        source.close()
    assert sorted(numbers) == list(range(n))
    assert np.concatenate(when).tolist() == stamps.tolist()
    told = merge.statistics()
    assert (told.frames, told.late, told.early) == (n, 0, 0)
