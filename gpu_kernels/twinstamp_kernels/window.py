# SPDX-License-Identifier: Apache-2.0
"""The duplicate window on plain arrays (DESIGN: Duplicate; docs/duplicates.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from twinstamp_kernels import _cpu
from twinstamp_kernels.hashkey import SEED_BYTES, expand
from twinstamp_kernels.verdicts import (
    CLASSES,
    GUARDS,
    LAYERS,
    PROFILES,
    Digests,
    Verdicts,
    tunnel_ends,
)

__all__ = [
    "BACKENDS",
    "CLASSES",
    "GUARD_NAMES",
    "LAYERS",
    "MAX_WINDOW",
    "PROFILES",
    "Digests",
    "Verdicts",
    "Window",
]

MAX_WINDOW = 1_000_000
BACKENDS = ("cpu", "gpu", "auto")
GUARD_NAMES = ("none", "ttl")

TYPE_CHECKING = False  # as in twinstamp.dedup: typing costs start-up time
if TYPE_CHECKING:
    from typing import Any

    from twinstamp_kernels.gpu.device import Device
    from twinstamp_kernels.gpu.staging import ResidentFrames


class Window:
    """Judges a stream of frames, batch after batch; verdicts never depend on where batches are cut.

    profile: "exact", "vlan", "routing" or "nat"; layer: "outer" or "inner".
    count: N of the count window, the current frame included (0 and 1 find nothing, at most 1,000,000).
    time_ns: T of the time window in ns. With both, one earlier frame must meet both; one must be given.
    limit: frames a time window holds at most. ignore_bytes: first bytes left out of the key (exact only).
    keep: codes of frame classes that are never judged duplicates.
    guard: "ttl" lets a copy go on whose TTL or hop limit is greater than that of the frame it repeats.
    tunnels (layer inner): the ends of the tunnels that are opened (verdicts.tunnel_ends); where none is
    named all
    are, and a copy in fewer tunnels than the frame it repeats goes on.
    workers: threads, any number gives the
    same verdicts. seed: 32 secret bytes of the key hash, random by default.

    backend: "cpu"; "gpu"; or "auto", which measures on the first frames which of them is faster. Where the
    GPU fails, the CPU goes on: no verdict is lost, repeated or different (docs/gpu.md). device: the GPU,
    opened where None is given. warn: told of it at once, as `events` keeps it.

    Raises ValueError for options out of range, and for "gpu" on a machine that has none.
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
        guard: str = "none",
        tunnels: Iterable[str] = (),
        workers: int = 1,
        seed: bytes | None = None,
        backend: str = "cpu",
        device: Device | None = None,
        warn: Callable[[str], None] | None = None,
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
        if backend not in BACKENDS:
            raise ValueError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
        if guard not in GUARD_NAMES:
            raise ValueError(f"unknown guard {guard!r}: choose one of {', '.join(GUARD_NAMES)}")
        self._ends = ends = tunnel_ends(tunnels)
        if ends and layer != "inner":
            raise ValueError("tunnels are opened at the layer inner only, not at outer")
        guards = GUARDS["ttl"] if guard == "ttl" else 0
        if layer == "inner" and not ends:
            guards |= GUARDS["tunnel"]
        self._profile, self._layer, self._ignore_bytes = profile, layer, ignore_bytes
        self._workers = workers
        kept = tuple(sorted(set(keep)))
        self._classes = classes = sum(1 << code for code in kept)
        words = expand(os.urandom(SEED_BYTES) if seed is None else seed)
        self._hash_key = _cpu.HashKey(words)
        hash_key = self._hash_key
        # A count window of 0 finds nothing, as one of 1 does; the executor's 0 means "none".
        frames = None if count is None else max(1, count)

        def on_cpu() -> _cpu.Window:
            return _cpu.Window(
                hash_key,
                PROFILES[profile],
                LAYERS[layer],
                ignore_bytes,
                frames or 0,
                -1 if time_ns is None else time_ns,
                limit,
                classes,
                guards,
                ends,
                workers,
            )

        self._window: Any
        self._switch: Any = None
        if backend == "cpu":
            self._window = on_cpu()
        else:
            from twinstamp_kernels.backend import SwitchingWindow

            options = {
                "profile": profile,
                "layer": layer,
                "count": frames,
                "time_ns": time_ns,
                "limit": limit,
                "ignore_bytes": ignore_bytes,
                "keep": kept,
                "guard": guards,
                "ends": ends,
                "hash_key": words,
            }
            self._window = self._switch = SwitchingWindow(backend, device, on_cpu, options, warn)

    @property
    def backend(self) -> str:
        """Where frames are judged now: "cpu" or "gpu", "auto" before the first frames decide."""
        return "cpu" if self._switch is None else self._switch.name

    @property
    def backend_reason(self) -> str:
        """Why there, in words."""
        return "asked for" if self._switch is None else self._switch.reason

    @property
    def events(self) -> list[str]:
        """What a person should know of the GPU: that it failed, in one sentence."""
        return [] if self._switch is None else list(self._switch.events)

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

    def process_digests(
        self, digests: Digests, timestamp_ns: Any, caplen: Any = None, *, details: bool = True
    ) -> Verdicts:
        """As process(), for n frames whose keys were computed elsewhere: by digests() or by a card.

        timestamp_ns i64[n]; caplen u32[n], for byte counts only (None: these frames count no bytes).
        Frames and digests may alternate in one stream where the secret is the same. Raises ValueError where
        columns disagree, or are not those of the profile; nothing is judged then.
        """
        return Verdicts(*self._window.process_keys(*digests, timestamp_ns, caplen, details))

    def digests(self, data: Any, offset: Any, caplen: Any, port: Any, linktypes: Any) -> Digests:
        """Keys of n frames under this window's options and secret, on its workers. Nothing is judged.

        Columns as for process(). Raises ValueError where they disagree or a frame lies outside ``data``.
        """
        return Digests(
            *_cpu.frame_digests(
                self._hash_key,
                data,
                offset,
                caplen,
                port,
                linktypes,
                PROFILES[self._profile],
                LAYERS[self._layer],
                self._ignore_bytes,
                self._classes != 0,
                self._workers,
                self._ends,
            )
        )

    @property
    def frames(self) -> ResidentFrames | None:
        """The frames of the last process() where they lie on a GPU, until the next one; None: they do not."""
        return None if self._switch is None else self._switch.frames

    def close(self) -> None:
        """Gives back what the window holds of a GPU. It judges no more; statistics() still answers."""
        if self._switch is not None:
            self._switch.close()

    def statistics(self) -> dict[str, Any]:
        """Sums since the start: frames, bytes, by_type (distance, delay quantiles), kept, guarded (ttl,
        tunnel:
        frames and bytes that a guard let go on), limit, memory."""
        statistics: dict[str, Any] = self._window.statistics()
        return statistics
