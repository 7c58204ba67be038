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
    second u64[m, 2] and two u8[m]: with nat only, else None; tags u32[m, 4]: with all profiles but exact,
    else None; timestamp_ns i64[m]. As _cpu.Window.restore takes them.
    """

    index: int
    key: npt.NDArray[np.uint64]
    second: npt.NDArray[np.uint64] | None
    two: npt.NDArray[np.uint8] | None
    tags: npt.NDArray[np.uint32] | None
    timestamp_ns: npt.NDArray[np.int64]


class History:
    """The last `size` rows of several columns: rings that grow up to that size, written in place."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._rings: tuple[npt.NDArray[Any], ...] = ()
        self._rows = 0
        self._next = 0  # place of the next row

    def add(self, *columns: npt.NDArray[Any]) -> None:
        """Adds rows, which are copied."""
        columns = tuple(column[max(0, len(column) - self._size) :] for column in columns)
        n = len(columns[0])
        if n == 0:
            return
        room = len(self._rings[0]) if self._rings else 0
        if self._rows + n > room and room < self._size:
            self._grow(columns, min(self._size, max(2 * room, self._rows + n)))
        room = len(self._rings[0])
        first = min(n, room - self._next)
        for ring, column in zip(self._rings, columns, strict=True):
            ring[self._next : self._next + first] = column[:first]
            ring[: n - first] = column[first:]
        self._next = (self._next + n) % room
        self._rows = min(self._rows + n, room)

    def _grow(self, like: tuple[npt.NDArray[Any], ...], room: int) -> None:
        kept = self.columns()
        self._rings = tuple(np.empty((room, *column.shape[1:]), column.dtype) for column in like)
        for ring, column in zip(self._rings, kept, strict=False):
            ring[: self._rows] = column
        self._next = self._rows % room

    def columns(self) -> tuple[npt.NDArray[Any], ...]:
        """The rows kept, oldest first, per column, as copies; () before the first."""
        if not self._rings:
            return ()
        begin = (self._next - self._rows) % len(self._rings[0])
        return tuple(np.concatenate((ring[begin:], ring[:begin]))[: self._rows] for ring in self._rings)

    @property
    def bytes(self) -> int:
        return sum(ring.nbytes for ring in self._rings)


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
