# SPDX-License-Identifier: Apache-2.0
"""What the host keeps of a window on a device, against plain lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from twinstamp_kernels.gpu.history import History, StampTail


@given(size=st.integers(0, 40), parts=st.lists(st.integers(0, 60), max_size=12))
def test_the_last_rows_are_kept(size, parts):
    history, rows = History(size), []
    for n in parts:
        new = list(range(len(rows), len(rows) + n))
        key = np.array(new, np.uint64)
        history.add(np.stack([key, key + 1], axis=1), np.array(new, np.int64))
        rows += new
        kept = rows[max(0, len(rows) - size) :]
        columns = history.columns()
        assert [column.tolist() for column in columns] == (
            [[[row, row + 1] for row in kept], kept] if kept else []
        )


@given(
    size=st.integers(0, 30),
    time_ns=st.integers(0, 12),
    parts=st.lists(st.lists(st.integers(-3, 6), max_size=20), max_size=8),
)
def test_the_reach_covers_what_can_match(size, time_ns, parts):
    """All frames left out are beyond the stop rule for each of the next ones."""
    tail, stamps, now = StampTail(size, time_ns), [], 0
    for steps in parts:
        new = []
        for step in steps:
            now += step
            new.append(now)
        if new:
            column = np.array(new, np.int64)
            reach = tail.reach(column)
            assert 0 <= reach <= min(len(stamps), size)
            for i, stamp in enumerate(new):
                before = stamps + new[:i]
                stop = max((j for j, t in enumerate(before) if stamp - t > time_ns), default=-1)
                needed = len(stamps) - max(stop + 1, len(before) - size)
                assert reach >= min(needed, len(stamps), size)
            tail.add(column)
            stamps += new
