# SPDX-License-Identifier: Apache-2.0
"""The real launcher on the emulated device, which fails at each of its operations in turn."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from twinstamp_kernels.gpu import window as gpu_window
from twinstamp_kernels.window import Window

from tests.emulation.device import EmulatedDevice
from tests.gpu.short_streams import batches
from tests.gpu.test_digests import SEED, name, same, without_memory

# A batch of one chunk and one of two. After either, what was carried over shows.
SIZES = [9, 0, 20]
CHUNK = 16
WINDOWS: list[dict[str, Any]] = [
    {"count": 30},
    {"count": 25, "time_ns": 500, "profile": "nat", "keep": (1, 5)},
    {"time_ns": 300, "limit": 28, "profile": "routing", "layer": "inner"},
]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_window, "LEAST_CHUNK", CHUNK)
    monkeypatch.setattr(gpu_window, "MOST_CHUNK", CHUNK)


def emulated(fail_at: int | None = None, seed: int = 1, **options: Any) -> EmulatedDevice:
    # What kernels do is checked elsewhere.
    return EmulatedDevice(seed, interval=0, fail_at=fail_at, racecheck=False, initcheck=False, **options)


def run(window: Window, stream: list[Any], digests: bool) -> Iterator[list[Any]]:
    for data, offset, caplen, stamps, port, linktypes in stream:
        if digests:
            found = window.digests(data, offset, caplen, port, linktypes)
            yield [np.array(c) for c in window.process_digests(found, stamps, caplen)]
        else:
            yield [np.array(c) for c in window.process(data, offset, caplen, stamps, port, linktypes)]


def judge(options: dict[str, Any], digests: bool, stride: int) -> None:
    """Every `stride`-th operation of the device fails, another first one for each kind of window."""
    stream = batches(31, SIZES)
    cpu = Window(**options, seed=SEED)
    expected = list(run(cpu, stream, False))
    device = emulated()
    window = Window(**options, seed=SEED, backend="gpu", device=device)
    assert all(same(a, b) for a, b in zip(run(window, stream, digests), expected, strict=True))
    assert without_memory(window.statistics()) == without_memory(cpu.statistics())
    assert window.backend == "gpu"
    operations = len(device.operations)  # those of closing behind them judge nothing
    window.close()
    device.close()
    told = set()
    for fail_at in range((WINDOWS.index(options) * 2 + digests) % stride, operations, stride):
        device = emulated(fail_at, seed=fail_at)
        window = Window(**options, seed=SEED, backend="gpu", device=device)
        got = list(run(window, stream, digests))
        assert all(same(a, b) for a, b in zip(got, expected, strict=True)), fail_at
        assert without_memory(window.statistics()) == without_memory(cpu.statistics()), fail_at
        assert window.backend == "cpu"
        assert len(window.events) == 1
        told.add(window.events[0].partition("failed ")[2].partition(":")[0])
        window.close()
        device.close()
    assert told == {"before the first frame", "after 0 frames", "after 9 frames"}


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("options", WINDOWS, ids=name)
def test_wherever_the_device_fails_verdicts_and_counts_are_the_cpus(options, digests):
    judge(options, digests, 14)


@pytest.mark.long
@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("options", WINDOWS, ids=name)
def test_at_every_single_operation(options, digests):
    judge(options, digests, 1)


def test_a_device_without_room_is_left_as_it_was():
    """At any allocation: the CPU goes on, nothing stays behind, and nothing that was started uses it."""
    options = {"count": 25, "profile": "nat"}
    stream = batches(31, [9, 40])
    cpu = Window(**options, seed=SEED)
    expected = list(run(cpu, stream, False))
    for no_room_at in itertools.count():
        device = emulated(seed=no_room_at, no_room_at=no_room_at)
        window = Window(**options, seed=SEED, backend="gpu", device=device)
        got = list(run(window, stream, False))
        assert all(same(a, b) for a, b in zip(got, expected, strict=True)), no_room_at
        assert without_memory(window.statistics()) == without_memory(cpu.statistics()), no_room_at
        window.close()
        device.drain()
        assert device.living == 0, no_room_at
        device.close()
        if not window.events:
            break
    assert no_room_at > 25


def test_what_was_closed_leaves_the_device_alone():
    device = emulated()
    window = Window(count=9, backend="gpu", device=device)
    (batch,) = batches(31, [9])
    data, offset, caplen, stamps, port, linktypes = batch
    digests = window.digests(data, offset, caplen, port, linktypes)
    window.process(*batch)
    window.close()
    operations = len(device.operations)
    for judge in (lambda: window.process(*batch), lambda: window.process_digests(digests, stamps)):
        with pytest.raises(RuntimeError, match="closed"):
            judge()
    assert len(device.operations) == operations
    assert window.statistics()["frames"] == 9
