# SPDX-License-Identifier: Apache-2.0
"""The duplicate window on plain arrays (DESIGN: Duplicate; docs/duplicates.md)."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable

from twinstamp_kernels import _cpu
from twinstamp_kernels.hashkey import hash_key

PROFILES: dict[str, int] = _cpu.PROFILES  # name → type code in verdicts
LAYERS: dict[str, int] = _cpu.LAYERS
CLASSES: dict[str, int] = _cpu.CLASSES  # frame classes, for ``keep``
MAX_WINDOW = 1_000_000

TYPE_CHECKING = False  # as in twinstamp.dedup: typing costs start-up time
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    class Verdicts(NamedTuple):
        keep: Any
        type: Any
        distance: Any
        delay_ns: Any
else:
    Verdicts = namedtuple("Verdicts", "keep type distance delay_ns")
    Verdicts.__doc__ = """Per frame, as buffers that NumPy takes without a copy:

    keep u8[n]: 0 where the frame is a duplicate, else 1. type u8[n]: of the match (PROFILES), 0: none; a
    frame that a class policy keeps has a type and keep = 1. distance u32[n]: frames back to the matched
    frame. delay_ns i64[n]: its stamp's distance, negative where stamps run backwards.
    """


class Window:
    """Judges a stream of frames, batch after batch; verdicts never depend on where batches are cut.

    profile: "exact", "vlan", "routing" or "nat"; layer: "outer" or "inner".
    count: N of the count window, the current frame included (0 and 1 find nothing, at most 1,000,000).
    time_ns: T of the time window in ns. With both, one earlier frame must meet both; one must be given.
    limit: frames a time window holds at most. ignore_bytes: first bytes left out of the key (exact only).
    keep: codes of frame classes that are never judged duplicates. workers: threads, any number gives the
    same verdicts. seed: 32 secret bytes of the key hash, random by default.

    Raises ValueError for options out of range.
    """

    def __init__(
        self,
        *,
        profile: str = "exact",
        layer: str = "outer",
        count: int | None = None,
        time_ns: int | None = None,
        limit: int = MAX_WINDOW,
        ignore_bytes: int = 0,
        keep: Iterable[int] = (),
        workers: int = 1,
        seed: bytes | None = None,
    ) -> None:
        if profile not in PROFILES:
            raise ValueError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
        if layer not in LAYERS:
            raise ValueError(f"unknown layer {layer!r}: choose outer or inner")
        if count is None and time_ns is None:
            raise ValueError("a duplicate window needs a count of frames, a time, or both")
        if count is not None and not 0 <= count <= MAX_WINDOW:
            raise ValueError(f"window of {count} frames: must be 0 to {MAX_WINDOW}")
        if time_ns is not None and not 0 <= time_ns < 2**62:
            raise ValueError(f"time window of {time_ns} ns: must be 0 to 2^62 - 1")
        if not 2 <= limit <= 1 << 28:
            raise ValueError(f"limit of {limit} frames: must be 2 to {1 << 28}")
        if not 0 <= ignore_bytes <= 262144:
            raise ValueError(f"ignoring {ignore_bytes} bytes: must be 0 to 262144")
        if ignore_bytes and profile != "exact":
            raise ValueError(f"ignore_bytes works with the profile exact only, not {profile}")
        if not 1 <= workers <= 256:
            raise ValueError(f"{workers} workers: must be 1 to 256")
        # A count window of 0 finds nothing, as one of 1 does; the executor's 0 means "none".
        self._window = _cpu.Window(
            hash_key(seed),
            PROFILES[profile],
            LAYERS[layer],
            ignore_bytes,
            0 if count is None else max(1, count),
            -1 if time_ns is None else time_ns,
            limit,
            sum(1 << code for code in set(keep)),
            workers,
        )

    def process(
        self,
        data: Any,
        offset: Any,
        caplen: Any,
        timestamp_ns: Any,
        port: Any,
        linktypes: Any,
        *,
        details: bool = True,
    ) -> Verdicts:
        """Judges the next n frames: columns as in FrameBatch, linktypes u16 per port.

        details: distance and delay_ns too, 12 more bytes per frame to write; without, they are empty.
        Raises ValueError where columns disagree or a frame lies outside ``data``; nothing is judged then.
        """
        return Verdicts(*self._window.process(data, offset, caplen, timestamp_ns, port, linktypes, details))

    def statistics(self) -> dict[str, Any]:
        """Sums since the start: frames, bytes, by_type (distance, delay quantiles), kept, limit, memory."""
        return self._window.statistics()
