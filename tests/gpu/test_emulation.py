# SPDX-License-Identifier: Apache-2.0
"""The emulated device itself: right kernels give what NumPy says, wrong kernels and launchers are found."""

from __future__ import annotations

import gc
import re
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from twinstamp_kernels.gpu.device import BLOCK, DeviceFailure

from tests.emulation.device import EmulatedDevice, EmulationError, kernels

Array = npt.NDArray[Any]
MODES = pytest.mark.parametrize(
    ("interval", "resident_blocks"), [(0, 1), (0, 3), (1, 3), (64, 4)], ids=lambda value: str(value)
)


class Bench:
    """One stream of a device, with copies that are waited for."""

    def __init__(self, seed: int = 0, interval: int = 64, resident_blocks: int = 4, **options: Any) -> None:
        self.device = EmulatedDevice(seed, interval, resident_blocks, **options)
        self.stream = self.device.stream()
        self._sent: list[Array] = []

    def put(self, array: Array) -> int:
        address = self.device.allocate(array.nbytes)
        self._sent.append(array)
        self.device.upload(address, array, self.stream)
        return address

    def room(self, size: int, value: int | None = 0) -> int:
        address = self.device.allocate(size)
        if value is not None:
            self.device.fill(address, value, size, self.stream)
        return address

    def run(self, kernel: str, blocks: int, *arguments: int) -> None:
        self.device.launch(kernel, blocks, arguments, self.stream)

    def get(self, address: int, count: int, dtype: Any = np.uint64) -> Array:
        target = np.empty(count, dtype)
        self.device.download(target, address, self.stream)
        self.device.synchronize(self.device.record(self.stream))
        return target


def offence(bench: Bench, kernel: str, blocks: int, *arguments: int) -> str:
    """The message of the error that a launch ends with."""
    with pytest.raises(EmulationError) as caught:
        bench.run(kernel, blocks, *arguments)
        bench.device.synchronize(bench.device.record(bench.stream))
    assert not isinstance(caught.value, DeviceFailure)
    with pytest.raises(EmulationError):  # nor is it forgotten
        bench.device.allocate(1)
    return str(caught.value)


def u32(n: int, seed: int = 1, high: int = 1 << 32) -> Array:
    return np.random.default_rng(seed).integers(0, high, n, np.uint32)


# Right kernels --------------------------------------------------------------------------------------------


@MODES
def test_block_sum(interval: int, resident_blocks: int) -> None:
    values = u32(9 * BLOCK - 7, high=1000)
    for seed in range(4):
        bench = Bench(seed, interval, resident_blocks)
        total = bench.room(8)
        bench.run("selftest_sum", 9, bench.put(values), len(values), total)
        assert bench.get(total, 1)[0] == values.sum()


def shuffled(values: Array, source: Array) -> Array:
    """Per lane the value of the lane `source` of its own warp."""
    warps = values.reshape(-1, 32)
    return np.take_along_axis(warps, np.broadcast_to(source, warps.shape), axis=1).reshape(-1)


@MODES
@pytest.mark.parametrize("argument", [0, 1, 5, 8, 31])
def test_warp_intrinsics_on_whole_warps(interval: int, resident_blocks: int, argument: int) -> None:
    values = np.random.default_rng(argument).integers(0, 1 << 63, BLOCK, np.uint64)
    values[::3] = values[0]
    narrow = values & 0xFFFFFFFF
    bench = Bench(argument, interval, resident_blocks)
    address = bench.room(16 * BLOCK * 8)
    bench.run("selftest_warp", 1, bench.put(values), 0xFFFFFFFF, argument, address)
    out = bench.get(address, 16 * BLOCK).reshape(16, BLOCK)
    lane, warps = np.arange(32), narrow.reshape(-1, 32)
    bits = 1 << lane.astype(np.uint64)

    def spread(per_warp: Array) -> Array:
        return np.repeat(per_warp, 32)

    def same(column: Array) -> Array:
        rows = column.reshape(-1, 32)
        return ((rows[:, :, None] == rows[:, None, :]) * bits).sum(axis=2).astype(np.uint64).reshape(-1)

    group, place = lane // 8 * 8, lane % 8
    xor8 = lane ^ argument
    expected = [
        spread(((warps & 1) * bits).sum(axis=1)),
        spread((warps & 2).any(axis=1)),
        spread((warps & 4).astype(bool).all(axis=1)),
        same(narrow % 5),
        same(values),
        shuffled(narrow, (warps % 32).astype(np.int64)),
        shuffled(values, np.full(32, argument)),
        shuffled(values, np.where(lane >= argument, lane - argument, lane)),
        shuffled(narrow, np.where(lane + argument < 32, lane + argument, lane)),
        shuffled(narrow, lane ^ argument),
        shuffled(narrow, group + argument % 8),
        shuffled(narrow, np.where(place >= argument, lane - argument, lane)),
        shuffled(narrow, np.where(place + argument < 8, lane + argument, lane)),
        shuffled(narrow, np.where(xor8 < group + 8, xor8, lane)),
    ]
    for row, column in enumerate(expected):
        np.testing.assert_array_equal(out[row], column, err_msg=f"row {row}")


@pytest.mark.parametrize("mask", [1, 0x80000000, 0x00FF00F0, 0x7FFFFFFF])
def test_warp_intrinsics_on_some_lanes(mask: int) -> None:
    values = np.random.default_rng(mask).integers(0, 1 << 40, BLOCK, np.uint64)
    bench = Bench(mask)
    address = bench.room(16 * BLOCK * 8)
    bench.run("selftest_warp", 1, bench.put(values), mask, 0, address)
    out = bench.get(address, 16 * BLOCK).reshape(16, -1, 32)
    inside = np.array([mask >> i & 1 for i in range(32)], bool)
    assert not out[:, :, ~inside].any()
    for warp, v in enumerate(values.reshape(-1, 32)):
        lanes = [i for i in range(32) if inside[i]]
        for i in lanes:
            assert out[0, warp, i] == sum(1 << k for k in lanes if v[k] & 1)
            assert out[1, warp, i] == any(v[k] & 2 for k in lanes)
            assert out[2, warp, i] == all(v[k] & 4 for k in lanes)
            low = v & 0xFFFFFFFF
            assert out[3, warp, i] == sum(1 << k for k in lanes if low[k] % 5 == low[i] % 5)


@MODES
def test_barriers_with_a_value(interval: int, resident_blocks: int) -> None:
    blocks = 6
    values = np.zeros((blocks, BLOCK), np.uint32)
    values[1, 200] = 7
    values[2] = 1
    values[3, ::2] = 1
    values[4, 1:] = 1
    bench = Bench(3, interval, resident_blocks)
    address = bench.room(3 * values.size * 8)
    bench.run("selftest_barriers", blocks, bench.put(values), address)
    any_of, count, all_of = bench.get(address, 3 * values.size).reshape(3, blocks, BLOCK)
    set_ = values != 0
    np.testing.assert_array_equal(any_of, np.broadcast_to(set_.any(axis=1)[:, None], set_.shape))
    np.testing.assert_array_equal(count, np.broadcast_to(set_.sum(axis=1)[:, None], set_.shape))
    np.testing.assert_array_equal(all_of, np.broadcast_to(set_.all(axis=1)[:, None], set_.shape))


def test_bit_operations() -> None:
    rng = np.random.default_rng(5)
    values = rng.integers(0, 1 << 64, 500, np.uint64) >> rng.integers(0, 64, 500).astype(np.uint64)
    values[:4] = [0, 1, 1 << 63, 0xFFFFFFFF00000000]
    n = len(values)
    bench = Bench()
    address = bench.room(9 * n * 8)
    bench.run("selftest_bits", 2, bench.put(values), n, address)
    out = bench.get(address, 9 * n).reshape(9, n)
    for i, v in enumerate(int(value) for value in values):
        low = v & 0xFFFFFFFF
        assert out[:, i].tolist() == [
            low.bit_count(),
            v.bit_count(),
            (low & -low).bit_length(),
            (v & -v).bit_length(),
            32 - low.bit_length(),
            64 - v.bit_length(),
            v * (v ^ 0x9E3779B97F4A7C15) >> 64,
            v >> i % 32 & 0xFFFFFFFF,
            v,
        ]


@MODES
def test_atomics(interval: int, resident_blocks: int) -> None:
    values = u32(3 * BLOCK, high=1 << 31)
    start = np.array([0, 0, 0xFFFFFFFF, 0, 0, 0], np.uint32)
    wide_start = np.array([0, 0, 0xFFFFFFFFFFFFFFFF, 0, 0, 0], np.uint64)
    bench = Bench(8, interval, resident_blocks)
    narrow, wide = bench.put(start), bench.put(wide_start)
    bench.run("selftest_atomics", 3, bench.put(values), narrow, wide)
    got, got_wide = bench.get(narrow, 6, np.uint32), bench.get(wide, 6)
    big = values.astype(np.uint64)
    assert got[[0, 1, 2]].tolist() == [big.sum() & 0xFFFFFFFF, big.max(), big.min()]
    assert got_wide[[0, 1, 2]].tolist() == [big.sum() << 20, big.max() << 20, big.min() << 20]
    assert got[3] == np.bitwise_or.reduce(1 << (big % 32))
    assert got_wide[3] == np.bitwise_or.reduce(np.uint64(1) << (big % 64))
    assert got[4] in values
    assert got_wide[4] in values
    assert got[5] == got_wide[5] == len(values)


def test_a_last_block_adds_up() -> None:
    for seed in range(6):
        values = u32(7 * BLOCK, seed, 1000)
        bench = Bench(seed, 8)
        count, total = bench.room(4), bench.room(8)
        bench.run("selftest_last_block", 7, bench.put(values), bench.room(4 * 7, None), count, total)
        assert bench.get(total, 1)[0] == values.sum()


def test_the_same_seed_does_the_same() -> None:
    def result(seed: int) -> tuple[Any, ...]:
        bench = Bench(seed)
        total = bench.room(8)
        bench.run("selftest_racing_blocks", 3, total)
        return bench.get(total, 1)[0], bench.device.launches

    assert result(5) == result(5)
    assert len({result(seed)[0] for seed in range(5)}) > 1


# Wrong kernels --------------------------------------------------------------------------------------------


def test_blocks_racing_for_memory_lose_counts() -> None:
    """Switches come at memory accesses, across blocks."""
    bench = Bench(1, 4)
    total = bench.room(8)
    bench.run("selftest_racing_blocks", 4, total)
    assert bench.get(total, 1)[0] < 4 * BLOCK


def reverse(seed: int, kernel: str, broken: int, racecheck: bool) -> Array:
    values = np.arange(2 * BLOCK, dtype=np.uint32)
    bench = Bench(seed, 64, racecheck=racecheck, initcheck=False)
    out = bench.room(values.nbytes)
    bench.run(kernel, 2, bench.put(values), broken, out)
    return bench.get(out, len(values), np.uint32)


@pytest.mark.parametrize(
    ("kernel", "reversed_in"), [("selftest_reverse", 256), ("selftest_reverse_warp", 32)]
)
def test_a_missing_barrier_gives_results_that_differ(kernel: str, reversed_in: int) -> None:
    expected = np.arange(2 * BLOCK).reshape(-1, reversed_in)[:, ::-1].reshape(-1)
    for seed in range(4):
        np.testing.assert_array_equal(reverse(seed, kernel, 0, True), expected)
    results = {reverse(seed, kernel, 1, False).tobytes() for seed in range(4)}
    assert len(results) == 4
    assert expected.astype(np.uint32).tobytes() not in results


@pytest.mark.parametrize(
    ("kernel", "broken"),
    [("selftest_reverse", 1), ("selftest_reverse_warp", 1), ("selftest_reverse_warp", 2)],
)
@pytest.mark.parametrize("interval", [0, 64])
def test_a_race_for_shared_memory_is_found(kernel: str, broken: int, interval: int) -> None:
    bench = Bench(0, interval, 1, initcheck=False)
    values = bench.put(np.arange(BLOCK, dtype=np.uint32))
    text = offence(bench, kernel, 1, values, broken, bench.room(4 * BLOCK))
    assert f"kernel {kernel}, block 0, thread " in text
    assert "shared room" in text
    assert "with no barrier between them" in text


READ, WRITE, ATOMIC, BYTE = range(4)


@pytest.mark.parametrize(
    ("size", "offset", "what", "message"),
    [
        (400, 400, WRITE, "writes 4 bytes .* 0 bytes behind the end of the allocation of 400 bytes"),
        (400, 416, READ, "reads 4 bytes .* 16 bytes behind the end of the allocation of 400 bytes"),
        (401, 416, READ, "reads 4 bytes .* 15 bytes behind the end of the allocation of 401 bytes"),
        (400, 400, ATOMIC, "writes 4 bytes .* 0 bytes behind the end"),
        (402, 400, WRITE, "writes 4 bytes .* offset 400, across the end of the allocation of 402"),
        (256, 512, READ, "behind the end of the allocation of 256 bytes"),
        (400, -4, READ, "no device memory"),
        (400, 1 << 40, READ, "no device memory"),
        (400, 2, READ, "reads 4 bytes at an address 2 bytes off their alignment"),
        (400, 2, ATOMIC, "atomic at an address off its alignment"),
    ],
)
def test_an_access_outside_memory_is_found(size: int, offset: int, what: int, message: str) -> None:
    bench = Bench()
    out, at = bench.room(8), bench.room(size)
    if "no device memory" in message and offset < 0:
        at = 0x1000000000 - 0x1000
    text = offence(bench, "selftest_access", 1, at, offset, what, out)
    assert text.startswith("kernel selftest_access, block 0, thread 77: ")
    assert re.search(message, text), text
    assert "selftest.cu:" in text  # with the line of source


def test_words_at_the_end_may_be_read() -> None:
    bench = Bench()
    at, out = bench.room(401, 7), bench.room(8)
    for offset in (400, 404, 412):
        bench.run("selftest_access", 1, at, offset, READ, out)
    bench.run("selftest_access", 1, at, 410, BYTE, out)
    bench.get(out, 1)


def test_reading_what_nobody_wrote_is_found() -> None:
    bench = Bench()
    out, at = bench.room(8), bench.room(400, None)
    bench.device.fill(at, 0, 101, bench.stream)
    bench.run("selftest_access", 1, at, 100, READ, out)  # one byte of the word is there
    bench.run("selftest_access", 1, at, 200, WRITE, out)
    bench.run("selftest_access", 1, at, 200, READ, out)
    text = offence(bench, "selftest_access", 1, at, 104, READ, out)
    assert "offset 104 of the allocation of 400 bytes" in text
    assert "never written" in text


def test_reading_freed_memory_is_found() -> None:
    bench = Bench(lazy=False)
    out, at = bench.room(8), bench.room(400)
    bench.device.free(at)
    assert "freed before" in offence(bench, "selftest_access", 1, at, 0, READ, out)


def test_freed_memory_is_never_given_again() -> None:
    device = EmulatedDevice()
    addresses = []
    for _ in range(5):
        addresses.append(device.allocate(1 << 20))
        device.free(addresses[-1])
    assert len(set(addresses)) == 5
    assert device.living == device.living_bytes == 0
    with pytest.raises(EmulationError, match="second free"):
        device.free(addresses[0])


@pytest.mark.parametrize(
    ("what", "index", "message"),
    [
        (0, 3, "byte 12 of shared room, which nobody wrote"),
        (1, 8, "outside any array"),
        (1, 1 << 20, "writes 4 bytes"),
    ],
)
def test_wrong_uses_of_shared_memory_are_found(what: int, index: int, message: str) -> None:
    bench = Bench()
    assert message in offence(bench, "selftest_shared", 1, what, index, bench.room(4))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (1, "barrier of selftest.cu:"),
        (2, "while others of its block wait at that of selftest.cu:"),
        (3, "__shfl_sync of selftest.cu:"),
        (4, "with another mask"),
        (5, "meets lane"),
        (6, "which is not in the mask"),
        (7, "with a mask that lacks the thread itself"),
        (8, "deadlock"),
    ],
)
@MODES
def test_divergence_is_found(what: int, message: str, interval: int, resident_blocks: int) -> None:
    bench = Bench(what, interval, resident_blocks)
    text = offence(bench, "selftest_divergence", 2, what, bench.room(4 * BLOCK))
    assert text.startswith("kernel selftest_divergence")
    assert message in text
    good = Bench(what, interval, resident_blocks)  # what was given up leaves nothing behind
    good.run("selftest_divergence", 2, 0, out := good.room(4 * BLOCK))
    assert good.get(out, BLOCK, np.uint32).tolist() == list(range(BLOCK))


def test_waiting_for_a_block_that_does_not_run_is_found() -> None:
    bench = Bench(0, 64, 8)
    bench.run("selftest_chain", 8, done := bench.room(4))
    assert bench.get(done, 1, np.uint32)[0] == 8
    bench = Bench(0, 64, 1, time_limit_s=0.2)
    assert "takes too long" in offence(bench, "selftest_chain", 8, bench.room(4))


# Wrong launchers ------------------------------------------------------------------------------------------


def test_launches_are_checked() -> None:
    for kernel, arguments, message in (
        ("selftest_none", (), "no kernel is called selftest_none"),
        ("selftest_sum", (1, 2), "has 3 parameters, 2 were given"),
        ("selftest_sum", (1, 2, 1 << 64), "does not fit"),
        ("selftest_sum", (1, 2, -(1 << 63) - 1), "does not fit"),
    ):
        bench = Bench()
        with pytest.raises(EmulationError, match=message):
            bench.run(kernel, 1, *arguments)
    assert kernels()["selftest_sum"] == 3


def test_no_blocks_do_nothing() -> None:
    bench = Bench()
    bench.run("selftest_sum", 0, 0, 0, 0)
    bench.get(bench.room(8), 1)


def race_of_streams(seed: int, with_event: bool) -> int:
    """The sum of what one stream copies and another adds up."""
    device = EmulatedDevice(seed)
    copy, compute = device.stream(), device.stream()
    values = np.full(BLOCK, 3, np.uint32)
    at, total = device.allocate(values.nbytes), device.allocate(8)
    device.fill(at, 0, values.nbytes, compute)
    device.fill(total, 0, 8, compute)
    device.wait(copy, device.record(compute))
    device.upload(at, values, copy)
    if with_event:
        device.wait(compute, device.record(copy))
    device.launch("selftest_sum", 1, [at, BLOCK, total], compute)
    out = np.empty(1, np.uint64)
    device.download(out, total, compute)
    device.synchronize(device.record(compute))
    return int(out[0])


def test_a_missing_event_shows() -> None:
    assert {race_of_streams(seed, True) for seed in range(20)} == {3 * BLOCK}
    assert {race_of_streams(seed, False) for seed in range(20)} == {0, 3 * BLOCK}


def test_a_host_array_used_again_too_early_shows() -> None:
    def result(seed: int, early: bool) -> int:
        bench = Bench(seed)
        values = np.full(BLOCK, 3, np.uint32)
        at = bench.put(values)
        if not early:
            bench.device.synchronize(bench.device.record(bench.stream))
        values[:] = 5
        bench.run("selftest_sum", 1, at, BLOCK, total := bench.room(8))
        return int(bench.get(total, 1)[0])

    assert {result(seed, False) for seed in range(20)} == {3 * BLOCK}
    assert {result(seed, True) for seed in range(20)} == {3 * BLOCK, 5 * BLOCK}


@pytest.mark.parametrize("pinned", [False, True])
def test_a_host_array_given_up_too_early_shows(pinned: bool) -> None:
    found = 0
    for seed in range(10):
        bench = Bench(seed)
        at = bench.room(64)
        source = bench.device.pinned(64) if pinned else np.zeros(64, np.uint8)
        source[:] = 1
        try:
            bench.device.upload(at, source[8:40], bench.stream)
            del source
            gc.collect()
            bench.get(at, 64, np.uint8)
        except EmulationError as error:
            assert "given up before the copy" in str(error)
            found += 1
    assert 0 < found < 10


def test_a_target_read_too_early_shows() -> None:
    """A download's target does not hold what it held before."""
    bench = Bench(2)
    target = np.zeros(8, np.uint8)
    seen = set()
    for seed in range(10):
        bench = Bench(seed)
        at = bench.room(8, 1)
        bench.device.download(target, at, bench.stream)
        seen.add(int(target[0]))
        target[:] = 0
    assert len(seen - {0, 1}) > 1


def test_copies_outside_an_allocation_are_found() -> None:
    for copy in ("upload", "download", "fill"):
        bench = Bench(lazy=False)
        at, room = bench.room(60), np.zeros(61, np.uint8)
        with pytest.raises(EmulationError, match=f"{copy} .*across the end of the allocation of 60 bytes"):
            if copy == "fill":
                bench.device.fill(at, 0, 61, bench.stream)
            else:
                getattr(bench.device, copy)(*((at, room) if copy == "upload" else (room, at)), bench.stream)


def test_waiting_for_what_never_comes_is_found() -> None:
    """An event of a stream that waits for an event recorded behind it."""
    bench, other = Bench(), Bench()
    event = other.device.record(other.stream)  # of another device: nobody runs it
    event.done = False
    bench.device.wait(bench.stream, event)
    with pytest.raises(EmulationError, match="never come to pass"):
        bench.get(bench.room(8), 1)


# Failures -------------------------------------------------------------------------------------------------


def work(device: EmulatedDevice) -> int:
    stream = device.stream()
    values = device.pinned(4 * BLOCK).view(np.uint32)
    values[:] = 2
    at, total = device.allocate(values.nbytes), device.allocate(8)
    device.upload(at, values, stream)
    device.fill(total, 0, 8, stream)
    device.wait(stream, device.record(stream))
    device.launch("selftest_sum", 1, [at, BLOCK, total], stream)
    out = np.zeros(1, np.uint64)
    device.download(out, total, stream)
    device.synchronize(device.record(stream))
    device.free(at)
    return int(out[0])


def test_each_operation_can_fail() -> None:
    device = EmulatedDevice()
    assert work(device) == 2 * BLOCK
    whole = device.operations
    assert set(whole) == {
        "pinned",
        "allocate",
        "upload",
        "fill",
        "record",
        "wait",
        "launch",
        "download",
        "synchronize",
    }
    for k in range(len(whole)):
        device = EmulatedDevice(k, fail_at=k)
        with pytest.raises(DeviceFailure):
            work(device)
        assert device.operations == whole[: k + 1]
        with pytest.raises(DeviceFailure):  # for good
            device.allocate(1)
        device.free(1)
        device.close()
        device.close()
    assert work(EmulatedDevice(fail_at=len(whole))) == 2 * BLOCK
