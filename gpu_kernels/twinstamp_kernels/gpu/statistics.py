# SPDX-License-Identifier: Apache-2.0
"""What a window executor has counted, in the form in which counts of several executors add up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from twinstamp_kernels import _cpu

BINS: int = _cpu.HISTOGRAM_BINS  # log-linear bins of cpu/histogram.h: 16 per octave
TYPES = 1 + len(_cpu.PROFILES)  # rows by type code; row 0 is not used
CLASSES = len(_cpu.CLASSES)
GUARDS = len(_cpu.GUARDS)

Counts = npt.NDArray[np.uint64]


@dataclass(slots=True, kw_only=True)
class RawStatistics:
    """Sums of a window since its start.

    frames, bytes: judged, captured bytes. limit_reached: frames whose time window the limit cut (0 where the
    count is the shorter bound). memory_bytes: held at the moment.

    By type code (PROFILES), u64[TYPES]: type_frames, type_bytes and negative_delays of the duplicates;
    distance_max; delay_max in ns, of delays that are not negative. u64[TYPES, BINS]: distance_bins,
    delay_bins in ns, again without negative delays. By class code (CLASSES), u64[CLASSES]: kept_frames and
    kept_bytes,
    matches that a class policy kept; they count nowhere else but in frames and bytes. By guard
    (verdicts.GUARDS,
    in their order), u64[GUARDS]: guarded_frames and guarded_bytes, matches that a guard let go on, likewise.
    """

    frames: int
    bytes: int
    limit_reached: int
    memory_bytes: int
    type_frames: Counts
    type_bytes: Counts
    negative_delays: Counts
    distance_bins: Counts
    distance_max: Counts
    delay_bins: Counts
    delay_max: Counts
    kept_frames: Counts
    kept_bytes: Counts
    guarded_frames: Counts
    guarded_bytes: Counts

    @classmethod
    def empty(cls) -> RawStatistics:
        """All zero, in arrays of its own."""

        def zeros(*shape: int) -> Counts:
            return np.zeros(shape, np.uint64)

        return cls(
            frames=0,
            bytes=0,
            limit_reached=0,
            memory_bytes=0,
            type_frames=zeros(TYPES),
            type_bytes=zeros(TYPES),
            negative_delays=zeros(TYPES),
            distance_bins=zeros(TYPES, BINS),
            distance_max=zeros(TYPES),
            delay_bins=zeros(TYPES, BINS),
            delay_max=zeros(TYPES),
            kept_frames=zeros(CLASSES),
            kept_bytes=zeros(CLASSES),
            guarded_frames=zeros(GUARDS),
            guarded_bytes=zeros(GUARDS),
        )

    def counts(self) -> _cpu.WindowStatistics:
        """The counts as the CPU executor adds them to its own (`_cpu.Window.add_statistics`).

        Raises ValueError where an array has another shape or another dtype than u64.
        """
        return _cpu.WindowStatistics(
            self.frames,
            self.bytes,
            self.limit_reached,
            self.type_frames,
            self.type_bytes,
            self.negative_delays,
            self.distance_bins.reshape(-1),
            self.distance_max,
            self.delay_bins.reshape(-1),
            self.delay_max,
            self.kept_frames,
            self.kept_bytes,
            self.guarded_frames,
            self.guarded_bytes,
        )

    def as_dict(self) -> dict[str, Any]:
        """The dictionary that twinstamp_kernels.window.Window.statistics() gives."""
        return self.counts().as_dict(self.memory_bytes)
