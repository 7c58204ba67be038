# SPDX-License-Identifier: Apache-2.0
"""A device that fails when it is told to, and a device window on it that is really the CPU's.

What stands between a window and its users can be tested with these at every point where a device may fail.
The kernels themselves run under tests/emulation.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.device import DeviceFailure
from twinstamp_kernels.gpu.statistics import RawStatistics
from twinstamp_kernels.window import LAYERS, PROFILES, Digests, Verdicts


class FakeDevice:
    """fail_at: number of the step, from 1, that fails, and all after it."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.name = "a device of the tests"
        self.steps = 0
        self.closed = 0
        self._fail_at = fail_at

    def step(self) -> None:
        self.steps += 1
        if self._fail_at is not None and self.steps >= self._fail_at:
            raise DeviceFailure("the tests wanted it")

    def close(self) -> None:
        self.closed += 1


def bin_of(value: int) -> int:
    """The bin of cpu/histogram.h, from its description: 16 to an octave."""
    if value < 16:
        return value
    octave = value.bit_length() - 5
    return (octave + 1) * 16 + ((value >> octave) & 15)


class FakeDeviceWindow:
    """As twinstamp_kernels.gpu.window.DeviceWindow. Three steps to make one, three for a batch."""

    def __init__(
        self,
        device: FakeDevice,
        *,
        profile: str,
        layer: str,
        count: int | None,
        time_ns: int | None,
        limit: int,
        ignore_bytes: int,
        keep: tuple[int, ...],
        guard: int,
        ends: bytes,
        hash_key: bytes,
    ) -> None:
        for _ in range(3):
            device.step()
        self._device = device
        self._key = _cpu.HashKey(hash_key)
        self._options = (PROFILES[profile], LAYERS[layer], ignore_bytes)
        self._keep, self._guard, self._ends = keep, guard, ends
        self._window = _cpu.Window(
            self._key,
            *self._options,
            count or 0,
            -1 if time_ns is None else time_ns,
            limit,
            sum(1 << code for code in keep),
            guard,
            ends,
            1,
        )
        self._size = min(limit, count or limit) if time_ns is not None else count or 0
        self._state: dict[str, Any] = {
            "index": 0, "key": None, "second": None, "two": None, "tags": None,
            "timestamp_ns": np.empty(0, np.int64),
        }  # fmt: skip
        self._state.update(self._columns(np.empty(0, np.uint8), *[np.empty(0, t) for t in ("u8", "u4", "u2")],
                                         np.array([1], np.uint16)))  # fmt: skip
        self._counts = RawStatistics.empty()
        self.frames = None
        self.wrong = False  # give wrong verdicts
        self.closed = False

    def _columns(self, data: Any, offset: Any, caplen: Any, port: Any, linktypes: Any) -> dict[str, Any]:
        found = _cpu.frame_digests(
            self._key, data, offset, caplen, port, linktypes, *self._options, bool(self._keep), 1, self._ends
        )
        names = Digests._fields
        return {n: None if c is None else np.asarray(c) for n, c in zip(names, found, strict=True)}

    def process(
        self,
        data: Any,
        offset: Any,
        caplen: Any,
        timestamp_ns: Any,
        port: Any,
        linktypes: Any,
        *,
        details: bool,
    ) -> Verdicts:
        self._device.step()
        verdicts = Verdicts(*self._window.process(data, offset, caplen, timestamp_ns, port, linktypes, True))
        columns = self._columns(data, offset, caplen, port, linktypes)
        return self._done(columns, np.asarray(timestamp_ns), np.asarray(caplen), verdicts, details)

    def process_keys(
        self,
        key: Any,
        second: Any,
        two: Any,
        tags: Any,
        frame_class: Any,
        timestamp_ns: Any,
        caplen: Any,
        *,
        details: bool,
    ) -> Verdicts:
        self._device.step()
        keys = Digests(key, second, two, tags, frame_class)
        verdicts = Verdicts(*self._window.process_keys(*keys, timestamp_ns, caplen, True))
        columns = {n: None if c is None else np.asarray(c) for n, c in keys._asdict().items()}
        stamps = np.asarray(timestamp_ns)
        sizes = np.zeros(len(stamps), np.uint32) if caplen is None else np.asarray(caplen)
        return self._done(columns, stamps, sizes, verdicts, details)

    def _done(
        self, columns: dict[str, Any], stamps: Any, caplen: Any, verdicts: Verdicts, details: bool
    ) -> Verdicts:
        self._device.step()
        n = len(stamps)
        old = self._state
        state: dict[str, Any] = {"index": old["index"] + n}
        held = min(state["index"], self._size - 1)
        for name, width in (("key", 2), ("second", 2), ("two", 1), ("tags", 4), ("timestamp_ns", 1)):
            new = stamps if name == "timestamp_ns" else columns[name]
            if new is None:
                state[name] = None
                continue
            both = np.concatenate([np.reshape(old[name], (-1, width)), np.reshape(new, (-1, width))])
            part = both[len(both) - held :]
            state[name] = part.reshape(-1) if width == 1 else part
        self._device.step()  # from here on the batch is judged
        self._state = state
        self._count(verdicts, caplen, columns["frame_class"], old["tags"], columns["tags"])
        keep, kind, distance, delay = (np.array(v) for v in verdicts)
        if self.wrong:
            keep[0] ^= 1
        nothing = np.empty(0)
        return Verdicts(keep, kind, distance if details else nothing, delay if details else nothing)

    def _count(self, verdicts: Verdicts, caplen: Any, classes: Any, before: Any, tags: Any) -> None:
        counts = self._counts
        counts.frames += len(caplen)
        counts.bytes += int(caplen.sum())
        counts.limit_reached = self._window.statistics()["limit_reached"]
        for i, (keep, kind, distance, delay) in enumerate(zip(*verdicts, strict=True)):
            if kind and keep and not (self._keep and classes[i] in self._keep):
                both = [*np.reshape(before, (-1, 4))[:, 3], *np.reshape(tags, (-1, 4))[:, 3]]
                mine, other = (int(both[len(both) - len(caplen) + i - back]) for back in (0, distance))
                assert (self._guard & 1 and mine & 0xFF > other & 0xFF) or (
                    self._guard & 2 and mine >> 8 < other >> 8
                )
                which = int(bool(self._guard & 2) and mine >> 8 < other >> 8)
                counts.guarded_frames[which] += np.uint64(1)
                counts.guarded_bytes[which] += np.uint64(caplen[i])
            elif kind and keep:
                counts.kept_frames[classes[i]] += np.uint64(1)
                counts.kept_bytes[classes[i]] += np.uint64(caplen[i])
            elif kind:
                counts.type_frames[kind] += np.uint64(1)
                counts.type_bytes[kind] += np.uint64(caplen[i])
                counts.distance_bins[kind, bin_of(distance)] += np.uint64(1)
                counts.distance_max[kind] = max(int(counts.distance_max[kind]), distance)
                if delay < 0:
                    counts.negative_delays[kind] += np.uint64(1)
                else:
                    counts.delay_bins[kind, bin_of(delay)] += np.uint64(1)
                    counts.delay_max[kind] = max(int(counts.delay_max[kind]), delay)

    def statistics(self) -> RawStatistics:
        return self._counts

    def state(self) -> SimpleNamespace:
        return SimpleNamespace(**self._state)

    def close(self) -> None:
        self.closed = True
