# SPDX-License-Identifier: Apache-2.0
"""What the appliance's hub costs: the forwarding thread per batch, and the process per frame."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from twinstamp.appliance.hub import Hub, Reader
from twinstamp.appliance.stages import U32, Clean
from twinstamp.frames import FrameBatch

BATCH = 1024


class Nothing:
    """A reader that only counts."""

    def __init__(self) -> None:
        self.frames = 0

    def take(self, clean: Clean, index: U32 | None) -> None:
        self.frames += len(clean.batch) if index is None else len(index)

    def tick(self, now_ns: int) -> None:
        pass

    def finish(self) -> None:
        pass

    def counters(self) -> Mapping[str, int]:
        return {"frames": self.frames}


def run(size: int, readers: int, batches: int) -> dict[str, float]:
    """Pushes batches of frames of `size` bytes, each read by all readers; waits where the queue is full."""
    batch = FrameBatch.from_frames([bytes(size)] * BATCH)
    sinks = [Nothing() for _ in range(readers)]
    found = [Reader(f"r{k}", sink, whole=True) for k, sink in enumerate(sinks)]
    hub = Hub(found, memory_mib=max(64, 4 * readers))
    hub.start()
    push_ns = []
    began, cpu = time.perf_counter(), time.process_time()
    for _ in range(batches):
        while len(hub._pushed) > 100 or any(reader.waiting.frames > 16 * BATCH for reader in found):
            time.sleep(0.0001)
        start = time.thread_time_ns()
        hub.push(batch, None)
        push_ns.append(time.thread_time_ns() - start)
    hub.finish()
    wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    hub.check(ended=True)
    frames = batches * BATCH
    if any(sink.frames != frames for sink in sinks):
        raise SystemExit("the hub lost frames that nobody was slow with")
    return {
        "push_us": statistics.median(push_ns) / 1e3,
        "cpu_ns": cpu_s * 1e9 / frames,
        "mpps": frames / wall_s / 1e6,
    }


def copy_ns(size: int, rounds: int) -> float:
    """FrameStore.put alone, ns a frame."""
    from twinstamp import _native

    batch = FrameBatch.from_frames([bytes(size)] * BATCH)
    store = _native.FrameStore(8 << 20)
    rows = np.arange(BATCH, dtype=np.uint32)
    times = []
    for _ in range(rounds):
        start = time.perf_counter_ns()
        got = store.put(*batch.raw, rows, 0, 1 << 30)
        times.append(time.perf_counter_ns() - start)
        assert got is not None
        got[1].release()
    return statistics.median(times) / BATCH


def measure(tiny: bool) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for size in (60, 300, 1400):
        for readers in (1, 4):
            runs = [run(size, readers, 50 if tiny else 3000) for _ in range(1 if tiny else 5)]
            results[f"{size} B, {readers} readers"] = {
                name: [one[name] for one in runs] for name in ("push_us", "cpu_ns", "mpps")
            }
        results[f"{size} B, copy alone"] = {"copy_ns": [copy_ns(size, 20 if tiny else 2000)]}
    return results
