# SPDX-License-Identifier: Apache-2.0
"""What the kernel knows of its own clock: adjtimex(2), and steps of CLOCK_REALTIME."""

from __future__ import annotations

import ctypes
import time
from typing import NamedTuple

from twinstamp.errors import DeviceError
from twinstamp.timex import Timex

_STA_UNSYNC = 0x0040
_TIME_ERROR = 5
_STEP_NS = 2_000_000  # beyond any slew between two looks: adjtimex slews by 500 ppm, so 4 s of it


class SystemClock(NamedTuple):
    """The kernel's clock as its daemon (chronyd, ntpd, ptp4l with phc2sys) has set it.

    synchronised: to a reference. max_error_ns: the daemon's bound, growing by 500 ppm between its updates.
    estimated_error_ns: its estimate. utc_offset_s: TAI - UTC, 0 where nobody has told the kernel.
    rate_ppb: correction of the tick.
    """

    synchronised: bool
    max_error_ns: int
    estimated_error_ns: int
    utc_offset_s: int
    rate_ppb: float


def system_clock() -> SystemClock:
    """adjtimex(2), changing nothing. DeviceError where the call is refused (a seccomp filter, say)."""
    libc = ctypes.CDLL(None, use_errno=True)
    timex = Timex()
    state = libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        import os

        raise DeviceError(f"the kernel's clock cannot be read: {os.strerror(ctypes.get_errno())}")
    return SystemClock(
        state != _TIME_ERROR and not timex.status & _STA_UNSYNC,
        timex.maxerror * 1000,
        timex.esterror * 1000,
        timex.tai,
        timex.freq * 1000 / 65536,
    )


class StepWatch:
    """Counts steps of CLOCK_REALTIME against CLOCK_MONOTONIC: the time-epoch of stamps made by it."""

    def __init__(self) -> None:
        self.epoch = 0
        self._offset_ns = self._measure()

    @staticmethod
    def _measure() -> int:
        """CLOCK_REALTIME - CLOCK_MONOTONIC in ns, from the closest of three looks."""
        best, offset = 1 << 62, 0
        for _ in range(3):
            before = time.monotonic_ns()
            real = time.time_ns()
            after = time.monotonic_ns()
            if after - before < best:
                best, offset = after - before, real - (before + after) // 2
        return offset

    def look(self) -> int:
        """The epoch now."""
        offset = self._measure()
        if abs(offset - self._offset_ns) > _STEP_NS:
            self.epoch += 1
        self._offset_ns = offset
        return self.epoch
