# SPDX-License-Identifier: Apache-2.0
"""What the host keeps of a window on a device: keys to go on with elsewhere, stamps to bound the carry."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_MOST_PARTS = 1024  # before small parts are put together


@dataclass(frozen=True, slots=True)
class WindowState:
    """The last frames of a window, oldest first: all that later verdicts depend on.

    index: frames judged since the start; m = min(index, window − 1) of them are here. key u64[m, 2];
    second u64[m, 2] and two u8[m]: with nat only, else None; tags u32[m, 3]: with all profiles but exact,
    else None; timestamp_ns i64[m]. As _cpu.Window.restore takes them.
    """

    index: int
    key: npt.NDArray[np.uint64]
    second: npt.NDArray[np.uint64] | None
    two: npt.NDArray[np.uint8] | None
    tags: npt.NDArray[np.uint32] | None
    timestamp_ns: npt.NDArray[np.int64]


class History:
    """The last `size` rows of several columns, added part by part; parts are kept, not copied."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._parts: deque[tuple[npt.NDArray[Any], ...]] = deque()
        self._rows = 0

    def add(self, *columns: npt.NDArray[Any]) -> None:
        """Adds rows; the arrays are kept and must not change."""
        columns = tuple(column[max(0, len(column) - self._size) :] for column in columns)
        if len(columns[0]) == 0:
            return
        self._parts.append(columns)
        self._rows += len(columns[0])
        while self._rows - len(self._parts[0][0]) >= self._size:
            self._rows -= len(self._parts.popleft()[0])
        if len(self._parts) > _MOST_PARTS:
            self._parts = deque([self.columns()])
            self._rows = len(self._parts[0][0])

    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """The rows kept, per column; () before the first."""
        if not self._parts:
            return ()
        joined = [np.concatenate(parts) for parts in zip(*self._parts, strict=True)]
        return tuple(column[max(0, len(column) - self._size) :] for column in joined)

    @property
    def bytes(self) -> int:
        return sum(column.nbytes for part in self._parts for column in part)


class StampTail:
    """Stamps of the last frames of a time window: which of them the next ones can still reach.

    size: frames that the window reaches back at most, time_ns: how long.
    """

    def __init__(self, size: int, time_ns: int) -> None:
        self._size = size
        self._time_ns = time_ns
        self._parts: deque[npt.NDArray[np.int64]] = deque()
        self._rows = 0  # in parts: frames since the stamps last went back, `size` of them or a few more
        self._frames = 0
        self._last: int | None = None

    def reach(self, stamps: npt.NDArray[np.int64]) -> int:
        """How many of the frames so far those with `stamps`, which come next, can match."""
        most = min(self._frames, self._size)
        if self._last is None or not _ordered(stamps) or stamps[0] < self._last:
            return most
        limit = int(stamps[0]) - self._time_ns
        rows = 0
        for part in reversed(self._parts):
            if part[0] < limit:
                return min(most, rows + len(part) - int(np.searchsorted(part, limit)))
            rows += len(part)
        # All since the stamps went back: those before may be reached as well.
        return most

    def add(self, stamps: npt.NDArray[np.int64]) -> None:
        """Adds the next frames' stamps; the array is kept and must not change."""
        if len(stamps) == 0:
            return
        self._frames += len(stamps)
        if not _ordered(stamps):
            stamps = stamps[int(np.flatnonzero(stamps[1:] < stamps[:-1])[-1]) + 1 :]
            self._parts.clear()
            self._rows = 0
        elif self._last is not None and stamps[0] < self._last:
            self._parts.clear()
            self._rows = 0
        self._last = int(stamps[-1])
        self._parts.append(stamps)
        self._rows += len(stamps)
        while len(self._parts) > 1 and self._rows - len(self._parts[0]) >= self._size:
            self._rows -= len(self._parts.popleft())
        if len(self._parts) > _MOST_PARTS:
            self._parts = deque([np.concatenate(self._parts)[-max(1, self._size) :]])
            self._rows = len(self._parts[0])

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in self._parts)


def _ordered(stamps: npt.NDArray[np.int64]) -> bool:
    return bool((stamps[1:] >= stamps[:-1]).all())
