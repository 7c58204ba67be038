# SPDX-License-Identifier: Apache-2.0
"""A PHC's published clock for whoever stamps by that PHC: the record while it holds, and only then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from twinstamp.phc.record import ClockRecord, Reader

if TYPE_CHECKING:
    from collections.abc import Callable


class PhcTime(Protocol):
    """A PHC that can be read."""

    def time_ns(self) -> int: ...


class PublishedClock:
    """The published clock of /dev/ptpN. phc: the open device, by which a step is seen that came after the
    record. raw_ns, boot_ns: CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME."""

    def __init__(
        self,
        number: int,
        phc: PhcTime,
        *,
        raw_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW),
        boot_ns: Callable[[], int] = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME),
    ) -> None:
        self._reader = Reader(number)
        self._phc, self._raw_ns, self._boot_ns = phc, raw_ns, boot_ns

    def look(self) -> ClockRecord | None:
        """The record where its state and bound hold now, None where nobody disciplines the PHC, its record
        has run out, has no bound, or is of before a step of the PHC. OSError where the PHC cannot be read."""
        record = self._reader.read()
        if record is None or not record.valid(self._boot_ns()):
            return None
        before = self._raw_ns()
        phc = self._phc.time_ns()
        after = self._raw_ns()
        return None if record.moved(phc, (before + after) // 2, after - before) else record

    def close(self) -> None:
        """Unmaps the record."""
        self._reader.close()
