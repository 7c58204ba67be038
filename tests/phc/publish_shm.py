# SPDX-License-Identifier: Apache-2.0
"""Run by test_refclock.py: a PHC that is exact TAI plus an error, handed on as `clock discipline` does.

python publish_shm.py ERROR_NS SECONDS [--sock PATH] [--shm UNIT]
"""

from __future__ import annotations

import argparse
import dataclasses
import time

from twinstamp.phc.record import ClockRecord
from twinstamp.phc.refclock import RefClocks, ShmClock, SockClock


class Exact:
    """The two calls that RefClocks makes of a PHC."""

    def __init__(self, error_ns: int) -> None:
        self._error_ns = error_ns

    def offsets(self, *, extended: bool) -> list[tuple[int, int, int]]:
        looks = []
        for _ in range(10):
            before, now, after = time.time_ns(), time.time_ns(), time.time_ns()
            looks.append((before, now + 37_000_000_000 + self._error_ns, after))
        return looks


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("error_ns", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("--sock")
    parser.add_argument("--shm", type=int)
    options = parser.parse_args()
    clocks: list[SockClock | ShmClock] = []
    if options.sock:
        clocks.append(SockClock(options.sock))
    if options.shm is not None:
        clocks.append(ShmClock(options.shm))
    reference = RefClocks(Exact(options.error_ns), clocks)  # type: ignore[arg-type]
    fields = (field.name for field in dataclasses.fields(ClockRecord))
    values = dict.fromkeys(fields, 0) | {"state": 2, "bound_ns": 44, "utc_offset_s": 37, "utc_source": 1}
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        reference.step(ClockRecord(**values))
        time.sleep(0.2)
    for clock in clocks:
        clock.close()


main()
