# SPDX-License-Identifier: Apache-2.0
"""The grid kernels under ThreadSanitizer, each CUDA thread a thread of the operating system."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from twinstamp_kernels.gpu.device import BLOCK

from tests.emulation.device import EmulatedDevice
from tests.emulation.threads import Replay, replay


def run(kernel: str, blocks: int, *arguments: Any, out: int = 8, **options: Any) -> Replay:
    """A launch on arrays, integers and, for None, `out` bytes of zeros, which are read back; then again."""
    device = EmulatedDevice(1, 0, racecheck=False, initcheck=False, lazy=False)
    device.log = []
    stream = device.stream()
    values, rooms = [], []
    for argument in arguments:
        if argument is None:
            values.append(device.allocate(out))
            device.fill(values[-1], 0, out, stream)
            rooms.append(values[-1])
        elif isinstance(argument, int):
            values.append(argument)
        else:
            values.append(device.allocate(argument.nbytes))
            device.upload(values[-1], argument, stream)
    device.launch(kernel, blocks, values, stream)
    for room in rooms:
        device.download(np.empty(out, np.uint8), room, stream)
    device.synchronize(device.record(stream))
    return replay(device.log, **options)


def u32(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 1000, n, np.uint32)


CLEAN = Replay([], [])


def test_right_kernels_race_for_nothing() -> None:
    assert run("selftest_sum", 5, u32(5 * BLOCK), 5 * BLOCK, None) == CLEAN
    values = np.random.default_rng(0).integers(0, 1 << 40, BLOCK, np.uint64)
    assert run("selftest_warp", 1, values, 0xFFFFFFFF, 3, None, out=16 * BLOCK * 8) == CLEAN
    assert run("selftest_warp", 1, values, 0x00FF00F1, 3, None, out=16 * BLOCK * 8) == CLEAN
    assert run("selftest_barriers", 2, u32(2 * BLOCK) % 2, None, out=3 * 2 * BLOCK * 8) == CLEAN
    assert run("selftest_reverse", 3, u32(3 * BLOCK), 0, None, out=3 * BLOCK * 4) == CLEAN
    assert run("selftest_reverse_warp", 3, u32(3 * BLOCK), 0, None, out=3 * BLOCK * 4) == CLEAN


def test_fences_and_atomics_order() -> None:
    assert run("selftest_last_block", 4, u32(4 * BLOCK), np.zeros(4, np.uint32), None, None) == CLEAN
    assert (
        run("selftest_atomics", 2, u32(2 * BLOCK), np.zeros(6, np.uint32), np.zeros(6, np.uint64)).races == []
    )


@pytest.mark.parametrize(
    ("kernel", "arguments"),
    [
        ("selftest_racing_blocks", (None,)),
        ("selftest_reverse", (u32(2 * BLOCK), 1, None)),
        ("selftest_reverse_warp", (u32(2 * BLOCK), 1, None)),
        ("selftest_reverse_warp", (u32(2 * BLOCK), 2, None)),
    ],
)
def test_a_race_is_found(kernel: str, arguments: tuple[Any, ...]) -> None:
    found = run(kernel, 2, *arguments, out=2 * BLOCK * 4)
    assert found.races
    assert kernel in found.races[0]


def test_a_race_between_blocks_is_found() -> None:
    """No two threads of one block touch the same word: only blocks race."""
    found = run("selftest_block_numbers", 2, None, out=BLOCK * 4)
    assert found.races


def test_other_contents_are_reported() -> None:
    device = EmulatedDevice(lazy=False)
    device.log = []
    at, stream = device.allocate(8), device.stream()
    device.fill(at, 1, 8, stream)
    for _ in range(2):
        device.download(np.empty(8, np.uint8), at, stream)
    assert replay(device.log) == CLEAN
    kind, address, content = device.log[-1]
    device.log[-1] = (kind, address, content[:-1] + b"\2")
    assert replay(device.log) == Replay([], [1])
