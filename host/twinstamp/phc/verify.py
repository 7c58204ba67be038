# SPDX-License-Identifier: Apache-2.0
"""Whether the published bound holds: pulses of a second receiver, on a channel that does not steer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from twinstamp.phc.device import Event
    from twinstamp.phc.record import ClockRecord

_NS = 1_000_000_000
_NEAR_NS = 50_000_000  # of a second: what is farther is a falling edge, or no pulse
ENOUGH = 0.999


class Verifier:
    """Takes pulses that stand at whole seconds by another receiver, and the record of that moment.

    grid_ns, cable_ns: as of PinPulses. reference_ns: what that receiver's pulses may be wrong by themselves;
    the PHC's error is judged against the record's bound and that.
    """

    def __init__(self, *, grid_ns: float = 8, cable_ns: float = 0, reference_ns: float = 0) -> None:
        self._shift_ns = grid_ns / 2 + 0.5 - cable_ns
        self._allowed_ns = grid_ns / 2 + reference_ns
        self.far = 0
        self._rows: list[tuple[float, float, int]] = []

    def take(self, event: Event, record: ClockRecord | None) -> None:
        """record: where it held when the pulse came; None: it did not."""
        off_ns = (event.ns + _NS // 2) % _NS - _NS // 2 + self._shift_ns
        if abs(off_ns) > _NEAR_NS:
            self.far += 1
            return
        bound = np.nan if record is None else float(record.bound_ns)
        self._rows.append((off_ns, bound, -1 if record is None else record.state))

    def report(self) -> dict[str, Any]:
        """pulses near a whole second, far: edges that were not; with_bound: those at which a bound held;
        covered: share of these whose error was not above it and what the pulses themselves may be wrong by;
        offset_ns: PHC - pulse, its mean, rms about 0 and largest size; median_bound_ns. None: no such
        pulse."""
        table = np.array(self._rows).reshape(-1, 3)
        off, bound = table[:, 0], table[:, 1]
        known = np.isfinite(bound)
        inside = np.abs(off[known]) <= bound[known] + self._allowed_ns
        return {
            "version": 1,
            "pulses": len(off),
            "far": self.far,
            "with_bound": int(known.sum()),
            "covered": float(inside.mean()) if known.any() else None,
            "mean_ns": float(off.mean()) if len(off) else None,
            "rms_ns": float(np.sqrt((off**2).mean())) if len(off) else None,
            "max_ns": float(np.abs(off).max()) if len(off) else None,
            "median_bound_ns": float(np.median(bound[known])) if known.any() else None,
            "allowed_ns": self._allowed_ns,
        }
