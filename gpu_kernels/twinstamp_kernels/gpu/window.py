# SPDX-License-Identifier: Apache-2.0
"""The duplicate window on a device (cuda/keys.cu, cuda/window.cu; docs/gpu.md)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.device import BLOCK, Device, DeviceFailure
from twinstamp_kernels.gpu.history import History, StampTail, WindowState
from twinstamp_kernels.gpu.staging import Chunk, ResidentFrames, Staged, Staging, chunks, column
from twinstamp_kernels.gpu.statistics import BINS, CLASSES, GUARDS, TYPES, RawStatistics
from twinstamp_kernels.verdicts import PROFILES, TAGS, Verdicts

Array = npt.NDArray[Any]

_TILE = 2048  # elements that a block of the sort takes: TILE in cuda/window.cu
_DIGITS = 256
_FAN = 32
# Places of counters, as in cuda/window.cu.
_PER_TYPE = 5 + 2 * BINS
_KEPT = (TYPES - 1) * _PER_TYPE
_LIMITED = _KEPT + 2 * 16
_GUARDED = _LIMITED + 2
_COUNTERS = _GUARDED + 2 * GUARDS

SLOTS = 3  # chunks in flight: one copied in, one at work, one copied out
LEAST_CHUNK = 1 << 17
MOST_CHUNK = 1 << 20
CHUNK_BYTES = 64 << 20  # of frames in a chunk, where it has more than one


def _blocks(threads: int) -> int:
    return -(-threads // BLOCK)


@dataclass(frozen=True, slots=True)
class _Rings:
    """Addresses of the window's columns, rings of `slots` rows."""

    slots: int
    key: int
    time: int
    second: int
    two: int
    tags: int


class DeviceWindow:
    """The duplicate window with everything on a device but what is needed to go on without it.

    hash_key: bytes of a HashKey (hashkey.expand). profile, layer: names as for window.Window; count: N of
    the count window, None: none; time_ns: T of the time window, None: none; limit: frames a time window
    holds at most; keep: class codes never judged; guard: bits (verdicts.GUARDS); ends: tunnels opened
    (verdicts.tunnel_ends), none: all. chunk: frames the device takes at once; verdicts do not
    depend on it.

    Raises DeviceFailure where the device fails, at any point. A batch whose process() raised was not
    judged; state() and statistics() tell what went before it, and the window is of no further use.
    """

    def __init__(
        self,
        device: Device,
        *,
        hash_key: bytes,
        profile: str = "exact",
        layer: str = "outer",
        count: int | None = None,
        time_ns: int | None = None,
        limit: int = 1_000_000,
        ignore_bytes: int = 0,
        keep: tuple[int, ...] = (),
        guard: int = 0,
        ends: bytes = b"",
        chunk: int | None = None,
    ) -> None:
        self._device = device
        self._profile = PROFILES[profile]
        self._layer = _cpu.LAYERS[layer]
        self._ignore_bytes = ignore_bytes
        self._time_ns = -1 if time_ns is None else time_ns
        counted = None if count is None else max(1, count)
        bounds = [counted] if time_ns is None else [limit] if counted is None else [limit, counted]
        self._window: int = min(bound for bound in bounds if bound is not None)
        self._limit_counts = time_ns is not None and self._window == limit and counted != limit
        self._keep = sum(1 << code for code in set(keep))
        self._guard = guard if profile != "exact" else 0
        self._tagged = profile != "exact"
        self._nat = profile == "nat"
        if chunk is None:
            chunk = min(max(LEAST_CHUNK, self._window), MOST_CHUNK)
        self._chunk = chunk
        self._index = 0
        self._resident = False
        self._lent: ResidentFrames | None = None
        self._frames = 0
        self._bytes = 0
        self._snapshot = np.zeros(_COUNTERS, np.uint64)
        self._history = History(self._window - 1)
        self._tail = None if time_ns is None else StampTail(self._window - 1, time_ns)
        self._addresses: list[int] = []
        self._device_bytes = 0
        self._ends_host = np.frombuffer(ends, np.uint8)
        self._closed = False
        try:
            self._open(hash_key)
        except BaseException:
            self.close()
            raise

    def _allocate(self, size: int) -> int:
        address = self._device.allocate(max(1, size))
        self._addresses.append(address)
        self._device_bytes += max(1, size)
        return address

    def _open(self, hash_key: bytes) -> None:
        device, chunk = self._device, self._chunk
        self._compute, self._copy_out = device.stream(), device.stream()
        most = self._window - 1 + chunk
        slots = 1 << (most - 1).bit_length()
        self._rings = _Rings(
            slots,
            key=self._allocate(16 * slots),
            time=self._allocate(8 * slots),
            second=self._allocate(16 * slots) if self._nat else 0,
            two=self._allocate(slots) if self._nat else 0,
            tags=self._allocate(4 * TAGS * slots) if self._tagged else 0,
        )
        self._sorted = [self._allocate(8 * most) for _ in range(2)]
        tiles = -(-most // _TILE)
        self._counts = self._allocate(4 * _DIGITS * tiles)
        self._totals = self._allocate(4 * _DIGITS)
        self._class = self._allocate(chunk) if self._keep else 0
        if self._time_ns >= 0:
            self._reach = self._allocate(4 * chunk)
            self._tree = self._allocate(8 * (most + most // (_FAN - 1) + 64))
        self._flags = self._allocate(32)  # disordered u32, limited u64[2] from byte 8 on
        self._counters = self._allocate(8 * _COUNTERS)
        self._key = self._allocate(len(hash_key))
        self._key_host = np.frombuffer(hash_key, np.uint8)
        self._ends = self._allocate(len(self._ends_host)) if len(self._ends_host) else 0
        self._staging = Staging(device, frames=chunk, size=0)
        self._slots = [_Slot(device, chunk, self._allocate) for _ in range(SLOTS)]
        self._state_host = device.pinned(self._state_bytes(min(self._window - 1, 4096)))
        self._counters_host = device.pinned(8 * _COUNTERS).view(np.uint64)
        device.upload(self._key, self._key_host, self._compute)
        if self._ends:
            device.upload(self._ends, self._ends_host, self._compute)
        device.fill(self._counters, 0, 8 * _COUNTERS, self._compute)
        device.fill(self._flags, 0, 32, self._compute)

    # Judging

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
        """Judges the next n frames; columns, verdicts and ValueError as for window.Window.process."""
        self._check_open()
        self._end_loan()
        data = column(data, np.uint8)
        offset, caplen = column(offset, np.uint64), column(caplen, np.uint32)
        stamps, port = column(timestamp_ns, np.int64), column(port, np.uint16)
        linktypes = column(linktypes, np.uint16)
        n = len(offset)
        for name, values in (("caplen", caplen), ("timestamp_ns", stamps), ("port", port)):
            if len(values) != n:
                raise ValueError(f"{name} has {len(values)} entries, offset has {n}")
        cuts = self._cut(len(data), offset, caplen, port, len(linktypes))
        size = sum(chunk.captured for chunk in cuts)
        parsed = self._tagged or self._keep != 0
        out = _Outputs(n, details)
        uploaded: list[tuple[Chunk, Staged]] = []
        for number, chunk in enumerate(cuts):
            part = slice(chunk.low, chunk.high)
            slot = self._slots[number % SLOTS]
            out.collect(slot)
            columns = {"timestamp_ns": stamps[part]}
            if parsed:
                columns |= {"port": port[part], "linktypes": linktypes}
            staged = self._staging.upload(chunk, data, offset, caplen, columns)
            uploaded.append((chunk, staged))
            at = staged.address
            frames = _Chunk(
                chunk.high - chunk.low, at["timestamp_ns"], at["caplen"], slot,
                data=staged.data, base=staged.base, offset=at["offset"],
                port=at.get("port", 0), linktypes=at.get("linktypes", 0),
            )  # fmt: skip
            self._staging.wait(staged, self._compute)
            self._enqueue_keys(frames)
            self._enqueue_search(frames, stamps[part], details)
            self._staging.done(staged, self._compute)
            out.expect(slot, chunk.low, chunk.high, self._device.record(self._compute), self._copy_out)
        verdicts = self._finish(out, stamps, size)
        self._lent = self._staging.lend(uploaded)
        return verdicts

    @property
    def frames(self) -> ResidentFrames | None:
        """The frames of the last batch, still on the device: for the rules stage. None where it was of keys,
        or of more than two chunks."""
        return self._lent

    def _end_loan(self) -> None:
        if self._lent is not None:
            self._lent.end()
        self._lent = None

    def _check_open(self) -> None:
        if self._closed:  # its addresses are somebody else's now
            raise RuntimeError("the window was closed: it judges no more")

    def _cut(self, data_bytes: int, offset: Array, caplen: Array, port: Array, ports: int) -> list[Chunk]:
        """All chunks of a batch, checked before the first is judged."""
        places = (offset, caplen, port, ports)
        try:
            return list(chunks(data_bytes, *places, frames=self._chunk, size=CHUNK_BYTES, first=None))
        except ValueError:
            _cpu.frame_extent(data_bytes, *places)  # with the frame's number in the batch
            raise

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
        details: bool = True,
    ) -> Verdicts:
        """Judges the next n frames by their keys: 16 B of key, 8 B of time and, for all profiles but exact,
        16 B of tags per frame cross to the device; second and two with nat. As _cpu.Window.process_keys:
        u64[2n], u64[2n] or None, u8[n] or None, u32[4n] or None, u8[n] or None, i64[n], u32[n] or None.

        Raises ValueError where a column is missing or has another length.
        """
        self._check_open()
        self._end_loan()
        stamps = np.ascontiguousarray(timestamp_ns, np.int64)
        n = len(stamps)
        columns = {
            "key": _rows("key", key, np.uint64, n, 2),
            "second": _rows("second", second, np.uint64, n, 2) if self._nat else None,
            "two": _rows("two", two, np.uint8, n, 1) if self._nat else None,
            "tags": _rows("tags", tags, np.uint32, n, TAGS) if self._tagged else None,
            "frame_class": _rows("frame_class", frame_class, np.uint8, n, 1) if self._keep else None,
            "caplen": np.zeros(n, np.uint32) if caplen is None else _rows("caplen", caplen, np.uint32, n, 1),
        }
        if self._keep and n and int(columns["frame_class"].max()) >= CLASSES:  # type: ignore[union-attr]
            raise ValueError(f"frame_class: a code of {CLASSES} or more")
        out = _Outputs(n, details)
        for number, low in enumerate(range(0, n, self._chunk)):
            part = slice(low, min(n, low + self._chunk))
            slot = self._slots[number % SLOTS]
            out.collect(slot)
            here = {name: rows[part] for name, rows in columns.items() if rows is not None}
            staged = self._staging.upload_columns({"timestamp_ns": stamps[part], **here})
            at = staged.address
            frames = _Chunk(len(stamps[part]), at["timestamp_ns"], at["caplen"], slot)
            self._staging.wait(staged, self._compute)
            rings = self._rings
            self._launch(
                "store_keys", frames.count,
                at["key"], at.get("second", 0), at.get("two", 0), at.get("tags", 0), frames.count,
                rings.key, rings.second, rings.two, rings.tags, self._slot_of(self._index), rings.slots - 1,
            )  # fmt: skip
            self._enqueue_search(frames, stamps[part], details, frame_class=at.get("frame_class", 0))
            self._staging.done(staged, self._compute)
            out.expect(slot, low, low + frames.count, self._device.record(self._compute), self._copy_out)
        return self._finish(out, stamps, int(columns["caplen"].sum(dtype=np.int64)))  # type: ignore[union-attr]

    def enqueue_resident(
        self,
        *,
        data: int,
        base: int,
        offset: int,
        caplen: int,
        timestamp_ns: int,
        port: int,
        linktypes: int,
        count: int,
        keep: int,
        type: int,
        distance: int,
        delay_ns: int = 0,
    ) -> None:
        """Judges the next frames, at most `chunk`, that lie on the device already; everything is an
        address there. data: byte `base` of the buffer that offset counts in. Columns as for process(),
        valid and inside the buffer: nothing is checked. keep u8[count], type u8[count], distance
        u32[count] and, where not 0, delay_ns i64[count] are written by stream `compute`, in order.

        The host sees nothing of the stream: state() raises afterwards.
        """
        self._check_open()
        if not 0 < count <= self._chunk:
            raise ValueError(f"{count} frames: a chunk has 1 to {self._chunk}")
        self._resident = True
        frames = _Chunk(
            count, timestamp_ns, caplen, _Verdicts(keep, type, distance, delay_ns),
            data=data, base=base, offset=offset, port=port, linktypes=linktypes,
        )  # fmt: skip
        self._enqueue_keys(frames)
        self._enqueue_search(frames, None, delay_ns != 0)

    @property
    def compute(self) -> Any:
        """The stream that enqueue_resident() works on."""
        return self._compute

    @property
    def chunk(self) -> int:
        return self._chunk

    def _finish(self, out: _Outputs, stamps: npt.NDArray[np.int64], size: int) -> Verdicts:
        device = self._device
        n = len(stamps)
        kept = min(n, self._window - 1)
        device.download(self._counters_host, self._counters, self._compute)
        state = self._download_state(kept)
        done = device.record(self._compute)
        for slot in self._slots:
            out.collect(slot)
        device.synchronize(done)
        # Nothing can fail any more: from here on the batch counts.
        self._history.add(*state, stamps[n - kept :])
        self._snapshot = self._counters_host.copy()
        self._frames += n
        self._bytes += size
        return out.verdicts()

    # Kernels

    def _launch(self, kernel: str, threads: int, *arguments: int) -> None:
        self._device.launch(kernel, _blocks(threads), arguments, self._compute)

    def _slot_of(self, frame: int) -> int:
        return frame & (self._rings.slots - 1)

    def _enqueue_keys(self, frames: _Chunk) -> None:
        n, rings = frames.count, self._rings
        place = (self._slot_of(self._index), rings.slots - 1)
        if not self._tagged:
            self._launch(
                "exact_keys", n, frames.data, frames.offset, frames.caplen, frames.base, n, self._key,
                self._ignore_bytes, rings.key, *place,
            )  # fmt: skip
        else:
            self._launch(
                "profile_keys", n, frames.data, frames.offset, frames.caplen, frames.port, frames.linktypes,
                frames.base, n, self._key, self._profile, self._layer, self._ends,
                rings.key, rings.second, rings.two, rings.tags, *place,
            )  # fmt: skip
        if self._keep:
            self._launch(
                "frame_classes", n, frames.data, frames.offset, frames.caplen, frames.port,
                frames.linktypes, frames.base, n, self._layer, self._ends, self._class,
            )  # fmt: skip

    def _enqueue_search(
        self,
        frames: _Chunk,
        stamps: npt.NDArray[np.int64] | None,
        details: bool,
        *,
        frame_class: int | None = None,
    ) -> None:
        """Judges the `frames.count` frames whose keys are in the rings. stamps: theirs, None: not known."""
        n, rings = frames.count, self._rings
        mask = rings.slots - 1
        self._launch("store_stamps", n, frames.timestamp_ns, n, rings.time, self._slot_of(self._index), mask)
        carry = min(self._index, self._window - 1)
        if self._tail is not None and stamps is not None and not self._resident:
            carry = min(carry, self._tail.reach(stamps))
            self._tail.add(stamps.copy())
        total = carry + n
        first = self._slot_of(self._index - carry)
        where = (first, mask, carry, total)
        disordered, limited = self._flags, self._flags + 8
        if self._time_ns >= 0:
            self._device.fill(self._flags, 0, 32, self._compute)
            self._launch(
                "check_order", total, rings.time, *where, self._window, self._time_ns, self._index,
                disordered, limited,
            )  # fmt: skip
            self._grow_tree(0, first, mask, total)
            self._launch(
                "time_reach", n, self._tree, carry, total, self._window, self._time_ns, self._index,
                disordered, self._reach, limited + 8,
            )  # fmt: skip
            self._launch("settle_limited", 1, limited, disordered, self._counters)
        tables = [(rings.key, 0)] + ([(rings.second, rings.two)] if self._nat else [])
        for table, (key, present) in enumerate(tables):
            ordered, bits = self._sort(key, present, first, mask, total)
            self._launch(
                "find_copies", total, ordered, key, present, rings.time, *where, bits, self._window,
                self._time_ns, table, disordered, frames.out.distance,
            )  # fmt: skip
            if self._time_ns >= 0:
                self._grow_tree(ordered, first, mask, total)
                self._launch(
                    "find_copies_disordered", total, ordered, self._tree, key, present, *where, bits,
                    self._window, self._reach, table, disordered, frames.out.distance,
                )  # fmt: skip
        classes = self._class if frame_class is None else frame_class
        self._launch(
            "judge_frames", n, frames.out.distance, rings.tags, rings.time, frames.caplen,
            classes if self._keep else 0, self._keep, self._guard, self._profile, first, mask, carry, n,
            frames.out.keep, frames.out.type, frames.out.delay_ns if details else 0, self._counters,
        )  # fmt: skip
        self._index += n

    def _sort(self, key: int, present: int, first: int, mask: int, total: int) -> tuple[int, int]:
        """Sorts numbers 0 to total − 1 by bucket: (address of the elements, bits of a bucket)."""
        # Up to four frames to a bucket on average: another pass would cost more than they do.
        passes = max(1, -(-(total.bit_length() - 2) // 8))
        tiles = -(-total // _TILE)
        source, target = self._sorted
        for number in range(passes):
            common = (source, key, present, first, mask, total, number)
            self._device.launch("sort_count", tiles, (*common, self._counts, tiles), self._compute)
            self._device.launch(
                "sort_offsets", _blocks(32 * _DIGITS), (self._counts, self._totals, tiles), self._compute
            )
            self._device.launch(
                "sort_scatter", tiles, (*common, self._counts, self._totals, tiles, target), self._compute
            )
            source, target = target, source
        return source, 8 * passes

    def _grow_tree(self, ordered: int, first: int, mask: int, total: int) -> None:
        """Minima of stamps, in stream order or that of the elements at `ordered`."""
        self._launch(
            "gather_stamps", total, self._rings.time, first, mask, total, ordered, self._flags, self._tree
        )
        level, count = self._tree, total
        while count > 1:
            above = level + 8 * count
            fewer = -(-count // _FAN)
            self._launch("reduce_minima", fewer, level, count, self._flags, above)
            level, count = above, fewer

    # What the host keeps

    def _state_bytes(self, rows: int) -> int:
        return rows * (16 + (4 * TAGS if self._tagged else 0) + (17 if self._nat else 0)) + 64

    def _download_state(self, rows: int) -> list[Array]:
        """Asks for the last `rows` frames' columns: views of page-locked memory that fill in time."""
        if self._state_bytes(rows) > len(self._state_host):
            self._state_host = self._device.pinned(self._state_bytes(2 * rows))
        rings = self._rings
        wanted: list[tuple[int, np.dtype[Any], int]] = [(rings.key, np.dtype(np.uint64), 2)]
        if self._tagged:
            wanted.append((rings.tags, np.dtype(np.uint32), TAGS))
        if self._nat:
            wanted.insert(1, (rings.second, np.dtype(np.uint64), 2))
            wanted.append((rings.two, np.dtype(np.uint8), 1))
        columns, used = [], 0
        begin = self._slot_of(self._index - rows)
        for address, dtype, width in wanted:
            size = dtype.itemsize * width
            host = self._state_host[used : used + rows * size]
            used += rows * size
            before_end = min(rows, rings.slots - begin)
            for host_row, row, count in ((0, begin, before_end), (before_end, 0, rows - before_end)):
                if count:
                    part = host[host_row * size : (host_row + count) * size]
                    self._device.download(part, address + row * size, self._compute)
            column = host.view(dtype)
            columns.append(column.reshape(-1, width) if width > 1 else column)
        return columns

    def state(self) -> WindowState:
        """The window after the last batch that was judged; in host memory, so it outlives the device."""
        if self._resident:
            raise ValueError("frames judged where they lay on the device are not known to the host")
        columns = list(self._history.columns())
        stamps = columns.pop() if columns else np.empty(0, np.int64)
        key = columns.pop(0) if columns else np.empty((0, 2), np.uint64)
        second = two = tags = None
        if self._nat:
            second = columns.pop(0) if columns else np.empty((0, 2), np.uint64)
            two = columns.pop() if columns else np.empty(0, np.uint8)
        if self._tagged:
            tags = columns.pop() if columns else np.empty((0, TAGS), np.uint32)
        return WindowState(self._frames, key, second, two, tags, stamps)

    def statistics(self) -> RawStatistics:
        """Counts of the batches judged so far; of what enqueue_resident() judged, nothing."""
        raw = RawStatistics.empty()
        counts = self._snapshot
        raw.frames, raw.bytes = self._frames, self._bytes
        for code in range(1, TYPES):
            row = counts[(code - 1) * _PER_TYPE : code * _PER_TYPE]
            raw.type_frames[code], raw.type_bytes[code], raw.negative_delays[code] = row[:3]
            raw.distance_max[code], raw.delay_max[code] = row[3:5]
            raw.distance_bins[code], raw.delay_bins[code] = row[5 : 5 + BINS], row[5 + BINS :]
        kept = counts[_KEPT : _KEPT + 2 * CLASSES].reshape(CLASSES, 2)
        raw.kept_frames[:], raw.kept_bytes[:] = kept[:, 0], kept[:, 1]
        guarded = counts[_GUARDED : _GUARDED + 2 * GUARDS].reshape(GUARDS, 2)
        raw.guarded_frames[:], raw.guarded_bytes[:] = guarded[:, 0], guarded[:, 1]
        raw.limit_reached = int(counts[_LIMITED]) if self._limit_counts else 0
        raw.memory_bytes = self.bytes
        return raw

    @property
    def bytes(self) -> int:
        """Memory held, on the device and on the host for it."""
        host = self._history.bytes + (0 if self._tail is None else self._tail.bytes)
        host += len(self._state_host) + self._counters_host.nbytes + sum(slot.bytes for slot in self._slots)
        return self._device_bytes + host + self._staging.bytes

    def close(self) -> None:
        """Gives the device's memory back. Further calls do nothing; never raises."""
        if self._closed:
            return
        self._closed = True
        self._end_loan()
        # What was started uses the memory; a device that fails here has nothing left to wait for.
        with contextlib.suppress(DeviceFailure):
            if hasattr(self, "_copy_out"):
                for stream in (self._compute, self._copy_out):
                    self._device.synchronize(self._device.record(stream))
            if hasattr(self, "_staging"):
                self._staging.finish()
        if hasattr(self, "_staging"):
            self._staging.close()
        for address in self._addresses:
            self._device.free(address)


@dataclass(frozen=True, slots=True)
class _Verdicts:
    """Addresses of a chunk's verdicts: u8, u8, u32 and i64 per frame."""

    keep: int
    type: int
    distance: int
    delay_ns: int


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Addresses of a chunk's columns, and where its verdicts go; frames' bytes only where they are there."""

    count: int
    timestamp_ns: int
    caplen: int
    out: _Verdicts | _Slot
    data: int = 0
    base: int = 0
    offset: int = 0
    port: int = 0
    linktypes: int = 0


class _Slot:
    """Verdicts of one chunk on the device and, in page-locked memory, on the host."""

    def __init__(self, device: Device, chunk: int, allocate: Callable[[int], int]) -> None:
        self._device = device
        self.keep, self.type = allocate(chunk), allocate(chunk)
        self.distance, self.delay_ns = allocate(4 * chunk), allocate(8 * chunk)
        host = device.pinned(14 * chunk)
        self._delay_ns = host[: 8 * chunk].view(np.int64)
        self._distance = host[8 * chunk : 12 * chunk].view(np.uint32)
        self._keep, self._type = host[12 * chunk : 13 * chunk], host[13 * chunk :]
        self.bytes = len(host)

    def download(self, count: int, details: bool, stream: Any) -> Any:
        """Asks for the verdicts of `count` frames; gives the event of their arrival."""
        self._device.download(self._keep[:count], self.keep, stream)
        self._device.download(self._type[:count], self.type, stream)
        if details:
            self._device.download(self._distance[:count], self.distance, stream)
            self._device.download(self._delay_ns[:count], self.delay_ns, stream)
        return self._device.record(stream)

    def wait(self, arrival: Any) -> tuple[Array, Array, Array, Array]:
        """keep, type, distance and delay_ns, as they have arrived; valid until the next download."""
        self._device.synchronize(arrival)
        return self._keep, self._type, self._distance, self._delay_ns

    def follow(self, computed: Any, stream: Any) -> None:
        """Lets a stream wait until the verdicts are there."""
        self._device.wait(stream, computed)


class _Outputs:
    """Verdicts of one batch, filled chunk by chunk as they come back."""

    def __init__(self, n: int, details: bool) -> None:
        self._keep = np.empty(n, np.uint8)
        self._type = np.empty(n, np.uint8)
        self._distance = np.empty(n if details else 0, np.uint32)
        self._delay_ns = np.empty(n if details else 0, np.int64)
        self._details = details
        self._expected: dict[int, tuple[int, int, Any]] = {}

    def expect(self, slot: _Slot, low: int, high: int, computed: Any, stream: Any) -> None:
        """The slot's verdicts, there from event `computed` on, are those of frames low to high; they are
        copied to the host on `stream`."""
        slot.follow(computed, stream)
        self._expected[id(slot)] = (low, high, slot.download(high - low, self._details, stream))

    def collect(self, slot: _Slot) -> None:
        """Waits for the slot's verdicts, if any are due, and takes them."""
        expected = self._expected.pop(id(slot), None)
        if expected is None:
            return
        low, high, arrival = expected
        columns = slot.wait(arrival)
        mine: tuple[Array, ...] = (self._keep, self._type, self._distance, self._delay_ns)
        for target, source in zip(mine, columns, strict=True):
            if len(target):  # without details there is no distance and no delay
                target[low:high] = source[: high - low]

    def verdicts(self) -> Verdicts:
        return Verdicts(self._keep, self._type, self._distance, self._delay_ns)


def _rows(name: str, column: Any, dtype: Any, n: int, width: int) -> Array:
    if column is None:
        raise ValueError(f"{name} is missing: this profile needs it")
    array: Array = np.ascontiguousarray(column, dtype).reshape(-1)
    if len(array) != n * width:
        raise ValueError(f"{name} has {len(array)} entries, {n} frames need {n * width}")
    return array.reshape(n, width) if width > 1 else array
