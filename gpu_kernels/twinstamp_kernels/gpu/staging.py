# SPDX-License-Identifier: Apache-2.0
"""Host columns to the device: cut into chunks, through pinned memory, while the chunk before computes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.device import Bytes, Device

ALIGNMENT = 256  # bytes, of every column on the device
SPARSE = 2  # bytes are gathered where they lie in a stretch of more than this times their sum

Column = npt.NDArray[Any]


def column(values: Any, dtype: npt.DTypeLike) -> Column:
    """A column as a one-dimensional contiguous array. values: whatever has the buffer protocol, without a
    copy where it is contiguous and of `dtype`; NumPy arrays of other types are converted, as the CPU's
    bindings do. Raises TypeError where anything else has another type."""
    wanted = np.dtype(dtype)
    array = np.asarray(values) if not isinstance(values, bytes) else np.frombuffer(values, np.uint8)
    if array.size == 0:
        return np.empty(0, wanted)
    if isinstance(values, np.ndarray) and array.ndim == 1:
        return np.ascontiguousarray(array.astype(wanted, copy=False))
    if array.dtype.kind != wanted.kind or array.dtype.itemsize != wanted.itemsize or array.ndim != 1:
        raise TypeError(f"a column of {wanted} was expected, not {array.ndim} dimensions of {array.dtype}")
    if not array.flags.c_contiguous:
        raise TypeError("a column must be contiguous")
    return array


class DeviceBuffer:
    """Device memory that grows when more is asked for. It loses its contents when it grows."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self.address = 0
        self.size = 0

    def ensure(self, size: int) -> int:
        """Address of at least `size` bytes. Nothing may be using the buffer where it is too small."""
        if size > self.size:
            self.free()
            wanted = -(-(size + size // 8) // ALIGNMENT) * ALIGNMENT
            self.address = self._device.allocate(wanted)
            self.size = wanted
        return self.address

    def free(self) -> None:
        """Gives the memory back."""
        if self.size:
            self.size = 0
            self._device.free(self.address)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Frames low to high of a batch, and where their bytes lie in its data: in start to stop; `captured`
    is their sum."""

    low: int
    high: int
    start: int
    stop: int
    captured: int

    @property
    def sparse(self) -> bool:
        """Whether the bytes are worth being gathered."""
        return self.stop - self.start > SPARSE * self.captured + 4096


@dataclass(frozen=True, slots=True)
class Staged:
    """A chunk on the device. Frame i of it lies at data + (offset[i] - base); address: of each column.
    Valid until Staging.done() and two more uploads."""

    data: int
    base: int
    address: Mapping[str, int]
    ready: Any  # event: the copies are there
    slot: int


class ResidentFrames:
    """The frames of a batch on a device, lent by the stage that copied them there to one behind it.

    For each chunk of the batch, in order, where its bytes, "offset" and "caplen" lie. They are there until
    their owner calls end(), which waits for whoever has borrowed them, in another thread, say.
    """

    def __init__(self, device: Device, chunks: Sequence[tuple[Chunk, Staged]]) -> None:
        self._device = device
        self._chunks = chunks
        self._lock = threading.RLock()

    @contextmanager
    def borrow(self, device: Device) -> Iterator[Sequence[tuple[Chunk, Staged]]]:
        """The chunks; none where they are gone, or not on this very device. When the block is left, nothing
        that reads them may be under way."""
        with self._lock:
            yield self._chunks if device is self._device else ()

    def end(self) -> None:
        """The memory is about to be used for something else."""
        with self._lock:
            self._chunks = ()


class _Slot:
    def __init__(self, device: Device) -> None:
        self.memory = DeviceBuffer(device)
        self.pinned: Bytes = np.empty(0, np.uint8)
        self.uploaded: Any = None  # the pinned memory may be written again
        self.consumed: Any = None  # the device memory may be written again


def chunks(
    data_bytes: int,
    offset: Column,
    caplen: Column,
    port: Column,
    ports: int,
    *,
    frames: int,
    size: int,
    first: int | None = 0,
) -> Iterator[Chunk]:
    """Cuts a batch into chunks of at most `frames` frames and `size` captured bytes (a frame that has more
    is alone), each checked as _cpu.frame_extent does with `first`: raises its ValueError."""
    low = 0
    while low < len(offset):
        high = min(low + frames, len(offset))
        while True:
            part = slice(low, high)
            start, stop, captured = _cpu.frame_extent(
                data_bytes, offset[part], caplen[part], port[part], ports, first
            )
            if captured <= size or high - low == 1:
                break
            high = low + max(1, (high - low) // 2)
        yield Chunk(low, high, start, stop, captured)
        low = high


class Staging:
    """Uploads chunk after chunk on a stream of its own, through two sets of buffers in turn.

    A chunk goes in one copy: its frames' bytes and its columns are put one behind the other into pinned
    memory. An array that lies in memory of Device.pinned() is copied to the device from there.

        for chunk in chunks(...):
            staged = staging.upload(chunk, data, offset, caplen, {"port": port[low:high], ...})
            staging.wait(staged, stream)
            device.launch(..., stream)
            staging.done(staged, stream)
        staging.finish()

    Buffers grow with what they get; frames and size are what they start with, in frames and bytes.
    Every method raises DeviceFailure where the device does, and is of no use afterwards.
    """

    def __init__(self, device: Device, *, frames: int, size: int) -> None:
        self._device = device
        self._stream = device.stream()
        self._slots = [_Slot(device), _Slot(device)]
        self._next = 0
        self.uploaded_bytes = 0
        try:
            for slot in self._slots:
                self._reserve(slot, size + 32 * frames)
        except BaseException:
            self.close()
            raise

    def _reserve(self, slot: _Slot, size: int) -> None:
        if len(slot.pinned) < size:
            slot.pinned = self._device.pinned(size + size // 8)
        if slot.memory.size < size:
            if slot.consumed is not None:
                self._device.synchronize(slot.consumed)
            slot.memory.ensure(size)

    def upload(
        self, chunk: Chunk, data: Column, offset: Column, caplen: Column, columns: Mapping[str, Column]
    ) -> Staged:
        """Starts the copies of a chunk. data: of the whole batch, u8; offset u64 and caplen u32: of the
        whole batch; columns: any arrays, of the chunk's frames only. The address of "offset" is always
        given, that of "caplen" too."""
        offset = offset[chunk.low : chunk.high]
        caplen = caplen[chunk.low : chunk.high]
        arrays: dict[str, Column] = {"offset": offset, "caplen": caplen, **columns}
        if not chunk.sparse:
            # Offsets keep their alignment.
            base = chunk.start // ALIGNMENT * ALIGNMENT
            return self._upload(data[base : chunk.stop], base, arrays)
        moved = np.empty(len(offset), np.uint64)
        arrays["offset"] = moved
        room = chunk.captured + 7 * len(offset)

        def gather(target: Bytes) -> int:
            return _cpu.gather_frames(data, offset, caplen, target, moved)

        return self._upload(None, 0, arrays, room, gather)

    def upload_columns(self, columns: Mapping[str, Column]) -> Staged:
        """Starts the copies of columns without frames' bytes."""
        return self._upload(None, 0, columns)

    def _upload(
        self,
        data: Column | None,
        base: int,
        arrays: Mapping[str, Column],
        room: int = 0,
        gather: Callable[[Bytes], int] | None = None,
    ) -> Staged:
        """Copies `data`, or what `gather` puts into `room` bytes, and behind it the arrays."""
        slot = self._slots[self._next]
        if data is not None:
            room = len(data)
        places: dict[str, int] = {}
        at = -(-(room + 16) // ALIGNMENT) * ALIGNMENT
        for name, array in arrays.items():
            places[name] = at
            at += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        if slot.uploaded is not None:
            self._device.synchronize(slot.uploaded)
        self._reserve(slot, at)
        address, pinned = slot.memory.address, slot.pinned
        staged = 0  # what stands in pinned memory from here on has not been sent
        end = 0 if gather is None else gather(pinned[:room])
        pieces = [] if data is None or not room else [(0, data)]
        pieces += [(places[name], array) for name, array in arrays.items() if array.nbytes]
        if slot.consumed is not None:
            self._device.wait(self._stream, slot.consumed)
        for place, array in pieces:
            if self._device.is_pinned(array):
                self._send(address + staged, pinned[staged:end])
                self._send(address + place, array)
                staged = end = place + array.nbytes
            else:
                end = place + array.nbytes
                pinned[place:end] = array.reshape(-1).view(np.uint8)
        self._send(address + staged, pinned[staged:end])
        slot.uploaded = self._device.record(self._stream)
        number, self._next = self._next, 1 - self._next
        addresses = {name: address + place for name, place in places.items()}
        return Staged(address, base, addresses, slot.uploaded, number)

    def _send(self, address: int, source: Column) -> None:
        if source.nbytes:
            self._device.upload(address, source, self._stream)
            self.uploaded_bytes += source.nbytes

    def wait(self, staged: Staged, stream: Any) -> None:
        """Lets a stream wait until a chunk is there."""
        self._device.wait(stream, staged.ready)

    def done(self, staged: Staged, stream: Any) -> None:
        """The stream has been given all that reads this chunk."""
        self._slots[staged.slot].consumed = self._device.record(stream)

    def lend(self, chunks: Sequence[tuple[Chunk, Staged]]) -> ResidentFrames | None:
        """The chunks of a whole batch, all uploaded since it began, for other stages: None where they are
        more than the buffers hold. To be ended before the next upload."""
        return ResidentFrames(self._device, chunks) if 0 < len(chunks) <= len(self._slots) else None

    def finish(self) -> None:
        """Waits until no copy reads host memory any more."""
        for slot in self._slots:
            if slot.uploaded is not None:
                self._device.synchronize(slot.uploaded)

    @property
    def bytes(self) -> int:
        """Memory held, on the host and on the device."""
        return sum(slot.memory.size + len(slot.pinned) for slot in self._slots)

    def close(self) -> None:
        """Gives the device memory back; nothing may be using it."""
        for slot in self._slots:
            slot.memory.free()
