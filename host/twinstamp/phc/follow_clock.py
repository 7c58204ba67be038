# SPDX-License-Identifier: Apache-2.0
"""A PHC without a pulse of its own: it takes one that the kernel stamps (/dev/ppsN), or follows
CLOCK_REALTIME or another PHC, by comparisons of the two.

What a comparison may be wrong by, half the window in which the hardware was read, is measured: at the start
for the servo, and at each comparison for the bound, as an error that no averaging takes away (a bus that is
slower one way is so each time).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

from twinstamp.card.nic import closest_offset
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.phc.discipline import Pulse

if TYPE_CHECKING:
    from collections.abc import Callable

    from twinstamp.leap import UtcOffset
    from twinstamp.phc.device import PhcCalls, PpsCalls
    from twinstamp.phc.follow import PublishedClock

_NS = 1_000_000_000
_LOOKS = 20  # at the start
_SLEWING_PPM = 500  # of CLOCK_REALTIME against anything, at most (adjtimex(2))


class Comparison(NamedTuple):
    """CLOCK_REALTIME and a PHC at one instant, to error_ns."""

    real_ns: int
    phc_ns: int
    error_ns: int


class Comparer:
    """Compares CLOCK_REALTIME with a PHC in the best way that its driver has: PTP_SYS_OFFSET_PRECISE, the
    closest of ten looks of PTP_SYS_OFFSET_EXTENDED, or of PTP_SYS_OFFSET. DeviceError where it has none."""

    def __init__(self, phc: PhcCalls) -> None:
        self._phc = phc
        ways = [self._extended, self._plain]
        if phc.capabilities().precise:
            ways.insert(0, self._precise)
        for way in ways:
            try:
                way()
            except OSError:
                continue
            self.compare = way
            return
        raise DeviceError(f"{phc.path} cannot be compared with the system's clock")

    def _precise(self) -> Comparison:
        real, phc = self._phc.precise()
        return Comparison(real, phc, 1)

    def _extended(self) -> Comparison:
        return self._closest(self._phc.offsets(extended=True))

    def _plain(self) -> Comparison:
        return self._closest(self._phc.offsets(extended=False))

    @staticmethod
    def _closest(looks: list[tuple[int, int, int]]) -> Comparison:
        best = closest_offset(looks)
        _, phc, _ = min(looks, key=lambda look: look[2] - look[0])
        return Comparison(phc + best.offset_ns, phc, best.uncertainty_ns)


class Reference(Protocol):
    """A clock to follow."""

    def at(self, real_ns: int) -> tuple[int, int, int] | None:
        """(its TAI when CLOCK_REALTIME read real_ns, to what error, its own bound or -1), in ns. None: it
        does not know the time now."""
        ...


class SystemReference:
    """CLOCK_REALTIME while its daemon keeps it. offset: TAI - UTC. state: (synchronised, its bound in ns)."""

    def __init__(self, offset: Callable[[], UtcOffset], state: Callable[[], tuple[bool, int]]) -> None:
        self._offset, self._state = offset, state

    def at(self, real_ns: int) -> tuple[int, int, int] | None:
        """As Reference has it."""
        synchronised, bound_ns = self._state()
        offset = self._offset()
        if not synchronised:
            return None
        return offset.tai_ns(real_ns), 0, bound_ns if offset.known else -1


class PhcReference:
    """Another PHC that runs in TAI. published: what is said of it; without it, its bound is unknown."""

    def __init__(self, phc: PhcCalls, published: PublishedClock) -> None:
        self._comparer, self._published = Comparer(phc), published

    def at(self, real_ns: int) -> tuple[int, int, int] | None:
        """As Reference has it."""
        one = self._comparer.compare()
        record = self._published.look()
        # From then to now by CLOCK_REALTIME, which may be slewing.
        passed_ns = real_ns - one.real_ns
        error_ns = one.error_ns + abs(passed_ns) * _SLEWING_PPM // 1_000_000 + 1
        return one.phc_ns + passed_ns, error_ns, -1 if record is None else record.bound_ns


class PpsPulses:
    """Pulses that the kernel stamps by CLOCK_REALTIME (/dev/ppsN), for a PHC: PulseSource of Discipline.

    Each is placed on the PHC between the comparisons before and behind it. An interrupt is late, by 0 to
    latency_ns: nobody can measure that from within, so whoever runs it says it (an oscilloscope, or a pin
    that is echoed). Its middle is taken off, and half of it is in the bound in full. cable_ns: as of
    PinPulses.
    """

    def __init__(
        self, phc: PhcCalls, pps: PpsCalls, *, latency_ns: float = 20_000, cable_ns: float = 0
    ) -> None:
        if not 0 <= latency_ns <= 500_000:
            raise ConfigError(f"an interrupt that is late by up to {latency_ns:g} ns: give 0 to 500000")
        self._comparer, self._pps = Comparer(phc), pps
        errors = sorted(self._comparer.compare().error_ns for _ in range(_LOOKS))
        self._error_ns = errors[_LOOKS * 9 // 10 - 1]
        self.quantum_ps = round(latency_ns * 1000) + 2000 * self._error_ns
        self._late_ns, self._cable_ns = latency_ns / 2, cable_ns
        self._before = self._comparer.compare()
        self._number = 0

    def start(self) -> None:
        """The last pulse is of before."""
        self._number = self._pps.fetch()[0]

    def take(self, cold: bool) -> list[Pulse]:
        """As PulseSource has it."""
        number, real_ns = self._pps.fetch()
        before, behind = self._before, self._comparer.compare()
        self._before = behind
        if number == self._number:
            return []
        self._number = number
        span_ns = behind.real_ns - before.real_ns
        if span_ns <= 0 or not before.real_ns <= real_ns <= behind.real_ns:
            return []  # CLOCK_REALTIME was set, or this program has slept: that pulse has no place
        passed_ps = (real_ns - before.real_ns) * (behind.phc_ns - before.phc_ns) * 1000 // span_ns
        late_ps = round((self._late_ns + self._cable_ns) * 1000)
        error_ns = max(before.error_ns, behind.error_ns)
        at_ps = before.phc_ns * 1000 + passed_ps - late_ps
        return [Pulse(at_ps, source_bound_ns=math.ceil(self._late_ns) + error_ns)]

    def close(self) -> None:
        """As PulseSource has it."""


class FollowPulses:
    """Pulses where a reference's seconds stand by the PHC: PulseSource of Discipline."""

    def __init__(self, phc: PhcCalls, reference: Reference) -> None:
        self._comparer, self._reference = Comparer(phc), reference
        errors = sorted(self._compared()[1] for _ in range(_LOOKS))
        # Nine in ten comparisons are at least as good: the span in which the second may stand.
        self.quantum_ps = 2000 * errors[_LOOKS * 9 // 10 - 1]
        self._last_s = 0

    def _compared(self) -> tuple[Comparison, int, tuple[int, int, int] | None]:
        one = self._comparer.compare()
        found = self._reference.at(one.real_ns)
        return one, one.error_ns + (found[1] if found is not None else 0), found

    def start(self) -> None:
        """As PulseSource has it."""
        self._last_s = 0

    def take(self, cold: bool) -> list[Pulse]:
        """The second that began last, once."""
        one, error_ns, found = self._compared()
        if found is None:
            return []
        tai_ns, _, bound_ns = found
        second = tai_ns // _NS
        if second == self._last_s:
            return []
        first, self._last_s = self._last_s == 0, second
        if first:
            return []  # somewhere within it
        at_ns = one.phc_ns - (tai_ns - second * _NS)
        return [
            Pulse(
                at_ns * 1000,
                tai_s=second,
                accuracy_ns=max(1, math.ceil(error_ns / 2)),
                source_bound_ns=-1 if bound_ns < 0 else bound_ns + error_ns,
            )
        ]

    def close(self) -> None:
        """As PulseSource has it."""
