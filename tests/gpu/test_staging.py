# SPDX-License-Identifier: Apache-2.0
"""Batches on their way to the emulated device: every byte and column arrives, whatever the layout."""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.staging import DeviceBuffer, Staging, chunks, column

from tests.emulation.device import EmulatedDevice


def batch(layout: str, n: int = 700) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """data, offset, caplen and port of n frames of 0 to 89 bytes, with gaps between them."""
    rng = np.random.default_rng(3)
    caplen = rng.integers(0, 1 if layout == "empty" else 90, n).astype(np.uint32)
    gap = 500 if layout == "sparse" else 3
    offset = (7 + np.concatenate(([0], np.cumsum(caplen[:-1] + gap)))).astype(np.uint64)
    if layout == "shuffled":
        order = rng.permutation(n)
        caplen, offset = caplen[order], offset[order]
    data = rng.integers(0, 256, int((offset + caplen).max()) + 5, np.uint8)
    return data, offset, caplen, rng.integers(0, 3, n).astype(np.uint16)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("pinned", ["nothing", "data", "columns", "all"])
@pytest.mark.parametrize("layout", ["dense", "sparse", "shuffled", "empty"])
def test_everything_arrives(layout, pinned, seed):
    device = EmulatedDevice(seed=seed)

    def place(values: np.ndarray, kind: str) -> np.ndarray:
        if pinned not in (kind, "all"):
            return values
        target = device.pinned(values.nbytes).view(values.dtype)
        target[:] = values
        return target

    data, offset, caplen, port = batch(layout)
    data = place(data, "data")
    offset, caplen, port = (place(values, "columns") for values in (offset, caplen, port))
    staging, stream = Staging(device, frames=10, size=10), device.stream()
    next_frame, arrived = 0, []
    for chunk in chunks(len(data), offset, caplen, port, 3, frames=60, size=2000):
        assert chunk.low == next_frame and chunk.high - chunk.low <= 60
        next_frame = chunk.high
        assert chunk.captured == caplen[chunk.low : chunk.high].sum() <= 2000
        part = slice(chunk.low, chunk.high)
        staged = staging.upload(chunk, data, offset, caplen, {"port": port[part], "five": np.arange(5)})
        staging.wait(staged, stream)
        got = {
            name: np.empty_like(values)
            for name, values in (("offset", offset[part]), ("caplen", caplen[part]), ("port", port[part]),
                                 ("five", np.arange(5)))
        }  # fmt: skip
        for name, target in got.items():
            device.download(target, staged.address[name], stream)
        # Frames' places are known once their offsets have arrived; what waits for them is not used again.
        event = device.record(stream)
        device.synchronize(event)
        frames = [np.empty(int(size), np.uint8) for size in got["caplen"]]
        for frame, start in zip(frames, got["offset"], strict=True):
            if len(frame):
                device.download(frame, staged.data + int(start) - staged.base, stream)
        staging.done(staged, stream)
        arrived.append((part, got, frames))
    assert next_frame == len(offset)
    staging.finish()
    device.synchronize(device.record(stream))
    for part, got, frames in arrived:
        np.testing.assert_array_equal(got["caplen"], caplen[part])
        np.testing.assert_array_equal(got["port"], port[part])
        np.testing.assert_array_equal(got["five"], np.arange(5))
        for frame, start in zip(frames, offset[part], strict=True):
            np.testing.assert_array_equal(frame, data[int(start) : int(start) + len(frame)])
    if layout in ("sparse", "shuffled"):
        assert staging.uploaded_bytes < 200_000
    staging.close()
    assert device.living == 0


def test_a_frame_larger_than_a_chunk_is_alone():
    caplen = np.array([10, 5000, 10, 10], np.uint32)
    offset = np.array([0, 10, 5010, 5020], np.uint64)
    cuts = list(chunks(5030, offset, caplen, np.zeros(4, np.uint16), 1, frames=100, size=100))
    assert [(cut.low, cut.high) for cut in cuts] == [(0, 1), (1, 2), (2, 4)]
    assert [(cut.start, cut.stop, cut.captured) for cut in cuts] == [
        (0, 10, 10),
        (10, 5010, 5000),
        (5010, 5030, 20),
    ]


def test_extent_of_a_batch_is_that_of_its_bytes():
    rng = np.random.default_rng(1)
    for n in (0, 1, 2, 31, 1000):
        offset = rng.integers(0, 1 << 40, n).astype(np.uint64)
        caplen = (rng.integers(0, 3, n) * rng.integers(0, 5000, n)).astype(np.uint32)
        port = rng.integers(0, 4, n).astype(np.uint16)
        some = caplen > 0
        want = (0, 0, 0)
        if some.any():
            want = (int(offset[some].min()), int((offset + caplen)[some].max()), int(caplen.sum()))
        assert _cpu.frame_extent(1 << 41, offset, caplen, port, 4) == want
        assert _cpu.frame_extent(1 << 41, offset, caplen, port, 4, 0) == want


@pytest.mark.parametrize("first", [None, 100])
@pytest.mark.parametrize("at", [0, 17, 299])
@pytest.mark.parametrize(
    "name,value,words",
    [
        ("offset", 3001, "offset 3001"),
        ("offset", 2**64 - 1, "18446744073709551615"),
        ("caplen", 3001, "3001"),
        ("caplen", 2**32 - 1, "4294967295"),
        ("port", 2, "port 2"),
    ],
)
def test_frames_that_are_not_there_are_named(name, value, words, at, first):
    columns = {
        "offset": np.zeros(300, np.uint64),
        "caplen": np.zeros(300, np.uint32),
        "port": np.zeros(300, np.uint16),
    }
    _cpu.frame_extent(3000, *columns.values(), 2, first)
    columns[name][at:] = value
    who = f"frame {at} of the batch" if first is None else f"frame {at + 101} "
    with pytest.raises(ValueError, match=f"{who}.*{words}"):
        _cpu.frame_extent(3000, *columns.values(), 2, first)


def test_the_window_has_a_limit_of_captured_bytes_the_classifier_none():
    size = _cpu.MAX_CAPLEN + 1
    columns = (np.zeros(1, np.uint64), np.array([size], np.uint32), np.zeros(1, np.uint16))
    assert _cpu.frame_extent(size, *columns, 1, 0) == (0, size, size)
    with pytest.raises(ValueError, match=f"limit of {_cpu.MAX_CAPLEN}"):
        _cpu.frame_extent(size, *columns, 1)


def test_gathered_frames_start_at_words_and_stay_in_their_room():
    data, offset, caplen, _ = batch("shuffled", 50)
    room = int(caplen.sum()) + 7 * 50
    out, places = np.zeros(room, np.uint8), np.zeros(50, np.uint64)
    used = _cpu.gather_frames(data, offset, caplen, out, places)
    assert used <= room and not (places % 8).any()
    for start, place, size in zip(offset, places, caplen, strict=True):
        assert bytes(out[int(place) : int(place + size)]) == bytes(data[int(start) : int(start + size)])
    for bad in (
        (data, offset, caplen, out[:100], places),
        (data[:100], offset, caplen, out, places),
        (data, offset + (1 << 63), caplen, out, places),
    ):
        with pytest.raises(ValueError, match="outside its data, or behind the room"):
            _cpu.gather_frames(*bad)


def test_columns_keep_their_type_and_memory():
    values = np.arange(5, dtype=np.uint32)
    assert column(values, np.uint32) is values
    assert np.shares_memory(column(memoryview(values), np.uint32), values)
    assert column(b"abc", np.uint8).tolist() == [97, 98, 99]
    assert column(b"", np.int64).dtype == np.int64
    # As the CPU's bindings: NumPy arrays are converted, other buffers are what they are.
    for other in (values.astype(np.int64), np.repeat(values, 2)[::2]):
        got = column(other, np.uint32)
        assert got.dtype == np.uint32 and got.flags.c_contiguous and got.tolist() == values.tolist()
    for bad in (values.reshape(1, 5), memoryview(values.astype(np.int64)), memoryview(values)[::2]):
        with pytest.raises(TypeError):
            column(bad, np.uint32)


def test_a_buffer_grows_and_gives_back():
    device = EmulatedDevice()
    buffer = DeviceBuffer(device)
    small = buffer.ensure(100)
    assert buffer.ensure(50) == small and device.living == 1
    buffer.ensure(100_000)
    assert device.living == 1 and buffer.size >= 100_000
    buffer.free()
    buffer.free()
    assert device.living == 0
