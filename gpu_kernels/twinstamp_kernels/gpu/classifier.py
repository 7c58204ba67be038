# SPDX-License-Identifier: Apache-2.0
"""Rules and balance on a device (cuda/rules.cu, cuda/compact.cu; docs/gpu.md)."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.compact import TileSums
from twinstamp_kernels.gpu.device import BLOCK, Bytes, Device, DeviceFailure
from twinstamp_kernels.gpu.staging import (
    ALIGNMENT,
    Chunk,
    DeviceBuffer,
    ResidentFrames,
    Staged,
    Staging,
    chunks,
    column,
)

Array = npt.NDArray[Any]
Views = tuple[memoryview, memoryview, memoryview, memoryview, memoryview, memoryview]

CHUNK = 1 << 16  # frames that the device takes at once
CHUNK_BYTES = 32 << 20  # of frames in a chunk, where it has more than one
_SHARED_SERVERS = 1024  # as in cuda/rules.cu, write_copies
_MOST_COPIES = 4096  # of a frame, or the sums of a block could overflow
_OUTPUTS = 4  # batches whose results may be in use before new memory is taken
# Values of fate.
_SKIPPED, _FORWARDED = 0, 1


@dataclass(frozen=True, slots=True)
class DeviceVerdicts:
    """Verdicts that stay on the device: addresses.

    rule i32[n], hash u64[n], fate u8[n], n being the frames; copy_frame u32[m], copy_server u16[m], copies in
    the order of frames; listed u32[k]: numbers, ascending, of the frames that only the host's fragment table
    can judge. totals u64[2]: k, m. counts u64[]: words that _cpu.Classifier.add_counts takes, of these frames
    alone, those listed being held.
    """

    rule: int
    hash: int
    fate: int
    copy_frame: int
    copy_server: int
    listed: int
    totals: int
    counts: int


class DeviceClassifier:
    """Drop-in for `cpu`, a _cpu.Classifier, that judges batches on a device, bit for bit as `cpu` does.

    The fragment table, held frames and counters stay those of `cpu`, as do actions and server tables: what
    is set there holds from the next batch on. Frames that need the table are marked by the device and judged
    by `cpu`. cache_hits and cache_misses count frames that `cpu` judged alone. chunk: frames and chunk_bytes:
    captured bytes that the device takes at once; verdicts do not depend on them.

    process() raises DeviceFailure where the device failed before the batch touched `cpu`: it counts as not
    judged, and `cpu` can judge it. Where the device fails later, `cpu` completes the batch, and the next
    process() raises. After a failure the object is of no further use; `cpu` is.
    """

    def __init__(
        self, device: Device, cpu: _cpu.Classifier, *, chunk: int = CHUNK, chunk_bytes: int = CHUNK_BYTES
    ) -> None:
        self._device = device
        self._cpu = cpu
        self._chunk = chunk
        self._chunk_bytes = chunk_bytes
        self._options = (1 if cpu.inner else 0) | (2 if cpu.by_ip else 0) | (4 if cpu.follow_icmp else 0)
        self._failure: DeviceFailure | None = None
        self._generation: int | None = None
        self._servers = 0
        self._most_copies = 1
        self._bits = 0
        self._address: dict[str, int] = {}
        self._outputs: list[_Output] = []
        self._resident: _Resident | None = None
        self._closed = False
        self._rules, self._balance, self._counts, self._columns, self._copies = self._buffers = tuple(
            DeviceBuffer(device) for _ in range(5)
        )
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._compute, self._copy_out = self._device.stream(), self._device.stream()
        self._staging = Staging(self._device, frames=self._chunk, size=0)
        self._tiles = TileSums(self._device)
        blob, tables = self._cpu.export_tables(0)
        key = np.frombuffer(self._cpu.flow_key_bytes(), np.uint8)
        places, size = _layout(
            {"tables": len(tables), "key": len(key), "blob": len(blob)},
        )
        base = self._rules.ensure(size)
        blob, tables = self._cpu.export_tables(base + places["blob"])
        sources = {"tables": np.frombuffer(tables, np.uint8), "key": key, "blob": column(blob, np.uint8)}
        for name, source in sources.items():
            if len(source):
                self._device.upload(base + places[name], source, self._compute)
            self._address[name] = base + places[name]
        self._device.synchronize(self._device.record(self._compute))

    # What `cpu` does

    def set_actions(self, action_of_rule: Any, action_first: Any, action_group: Any) -> None:
        """As _cpu.Classifier.set_actions: from the next batch on."""
        self._cpu.set_actions(action_of_rule, action_first, action_group)

    def set_servers(self, tables: Any, bucket_bits: int, servers: int) -> None:
        """As _cpu.Classifier.set_servers: from the next batch on."""
        self._cpu.set_servers(tables, bucket_bits, servers)

    def take_released(self) -> Any:
        return self._cpu.take_released()

    def release_due(self, now_ns: int) -> None:
        self._cpu.release_due(now_ns)

    def flush(self) -> None:
        self._cpu.flush()

    def oldest_held(self) -> int:
        return self._cpu.oldest_held()

    def held_now(self) -> int:
        return self._cpu.held_now()

    def counts(self) -> dict[str, Any]:
        return self._cpu.counts()

    @property
    def rules(self) -> int:
        return self._cpu.rules

    @property
    def table_bytes(self) -> int:
        return self._cpu.table_bytes

    # Judging

    @property
    def failure(self) -> DeviceFailure | None:
        """Why the device is of no further use; where it failed late, process() has not raised."""
        return self._failure

    def process(
        self,
        data: Any,
        offset: Any,
        caplen: Any,
        length: Any,
        timestamp_ns: Any,
        port: Any,
        flags: Any,
        linktypes: Any,
        keep: Any,
        first: int,
        *,
        frames: ResidentFrames | None = None,
    ) -> Views:
        """Judges the next n frames; columns, results and ValueError as for _cpu.Classifier.process: rule
        i32[n], hash u64[n], fate u8[n], copy_frame u32, copy_server u16, held u32.

        frames: the very same frames where a DeviceWindow put them (its `frames`); they are read there as long
        as they are there, on the same device. Per frame, its bytes and 14 more cross to the device, only 2
        where `frames` are read, with keep one more in both cases; and 13 back, with 6 per copy.
        """
        if self._failure is not None:
            raise self._failure
        if self._closed:  # its addresses are somebody else's now
            raise RuntimeError("the classifier was closed: it judges no more on the device")
        if len(caplen) == 0:
            return self._cpu.process(
                data, offset, caplen, length, timestamp_ns, port, flags, linktypes, keep, first
            )
        batch = _Batch(data, offset, caplen, length, timestamp_ns, port, flags, linktypes, keep, first)
        batch.check()
        try:
            self._update()
            with contextlib.nullcontext(()) if frames is None else frames.borrow(self._device) as there:
                out, listed, words = self._classify(batch, there)
        except DeviceFailure as failure:
            self._failure = failure
            raise
        # From here on the fragment table has seen the batch: it must be completed, whatever happens.
        rule, hash_, fate, held = (np.asarray(values) for values in self._cpu.finish(*batch.host, listed))
        out.rule[listed], out.hash[listed] = rule, hash_
        try:
            words = self._share(batch.n, out, (rule, hash_, fate))
        except DeviceFailure as failure:
            self._failure = failure
            fates = np.full(batch.n, _FORWARDED, np.uint8)
            if batch.keep is not None:
                fates[batch.keep == 0] = _SKIPPED
            fates[listed] = fate
            self._cpu.add_counts(words)
            return self._cpu.share(batch.caplen, out.rule, out.hash, fates)
        self._cpu.add_counts(words)
        return out.views(held)

    def enqueue_resident(
        self,
        *,
        data: int,
        base: int,
        offset: int,
        caplen: int,
        port: int,
        linktypes: int,
        count: int,
        stream: Any,
        keep: int = 0,
    ) -> DeviceVerdicts:
        """Judges `count` frames that lie on the device already, and leaves their verdicts there; everything
        is an address there. data: byte `base` of the buffer that offset counts in. Columns as for process(),
        valid and inside the buffer: nothing is checked. keep: u8[count], what a DeviceWindow wrote, say; 0:
        all are judged. `stream` does the work, in order, and the host waits for nothing.

        The fragment table is the host's, so frames that need it stay behind: their fate is held (4), they
        have no copies, their rule and hash are not valid, and they are in `listed`. counts() knows nothing of
        any of these frames, and process() may go on in between.

        Verdicts hold until the next call, which waits for this one where its stream is another. Device memory
        is taken for as many copies as there may be: 6 B per frame and group of the action with most groups.
        Raises ValueError where count is not 1 to 2^32 - 2, DeviceFailure where the device fails.
        """
        if self._failure is not None:
            raise self._failure
        if not 0 < count < 0xFFFFFFFF:
            raise ValueError(f"{count} frames: a batch has 1 to {0xFFFFFFFF - 1}")
        if self._resident is None:
            self._resident = _Resident(self._device)
        resident = self._resident
        self._update()
        most = count * self._most_copies
        places, size = _layout({
            "hash": 8 * count, "rule": 4 * count, "captured": 4 * count, "listed": 4 * count, "fate": count,
            "mark": count, "totals": 16, "counts": 8 * self._words, "frame": 4 * most, "server": 2 * most,
        })  # fmt: skip
        base_of_all = resident.reserve(size, count, stream)
        at = {name: base_of_all + place for name, place in places.items()}
        self._device.fill(at["counts"], 0, 8 * self._words, stream)
        frames = (data, base, offset, caplen, port, linktypes, keep)
        self._enqueue_rules(frames, count, at, 0, at["counts"], stream)
        resident.tiles.enqueue_marked(at["mark"], count, at["listed"], at["totals"], stream)
        sums = self._enqueue_count(resident.tiles, count, at, stream)
        resident.tiles.enqueue_scan(at["totals"] + 8, stream)
        copies = (at["frame"], at["server"])
        self._enqueue_copies(resident.tiles, count, at, sums, copies, at["counts"], stream)
        return DeviceVerdicts(
            at["rule"], at["hash"], at["fate"], *copies, at["listed"], at["totals"], at["counts"]
        )

    # Kernels. at: addresses of the batch's rule, hash, fate, mark and captured.

    def _launch(self, kernel: str, threads: int, arguments: tuple[int, ...], stream: Any) -> None:
        self._device.launch(kernel, -(-threads // BLOCK), arguments, stream)

    def _enqueue_rules(
        self, frames: tuple[int, ...], count: int, at: dict[str, int], low: int, counts: int, stream: Any
    ) -> None:
        """Judges frames low to low + count of a batch. frames: data, base, and addresses of offset, caplen,
        port, linktypes and keep."""
        verdicts = (
            at["rule"] + 4 * low, at["hash"] + 8 * low, at["fate"] + low, at["mark"] + low,
            at["captured"] + 4 * low,
        )  # fmt: skip
        tables = (self._address["tables"], self._address["key"], self._options)
        self._launch("classify_frames", count, (*frames, count, *tables, *verdicts, counts), stream)

    @property
    def _shares(self) -> tuple[int, ...]:
        names = ("action_of_rule", "action_first", "action_group", "servers")
        return (*(self._address[name] for name in names), self._bits)

    def _enqueue_count(self, tiles: TileSums, n: int, at: dict[str, int], stream: Any) -> int:
        """Copies of each tile of n frames: the address of these sums."""
        sums = tiles.start(n)
        tiles.launch("count_copies", (at["rule"], at["hash"], at["fate"], n, *self._shares, sums), stream)
        return sums

    def _enqueue_copies(
        self, tiles: TileSums, n: int, at: dict[str, int], sums: int, copies: tuple[int, int], counts: int,
        stream: Any,
    ) -> None:  # fmt: skip
        """Writes frame and server of each copy, and counts. sums: scanned."""
        shared = min(self._servers, _SHARED_SERVERS) if self._most_copies <= 32 else 0
        verdict = (at["rule"], at["hash"], at["fate"], at["captured"])
        arguments = (*verdict, n, *self._shares, sums, shared, *copies, counts)
        tiles.launch("write_copies", arguments, stream)

    def _update(self) -> None:
        """Actions and server tables as `cpu` has them now."""
        if self._generation == self._cpu.generation:
            return
        if self._resident is not None:
            self._resident.finish()  # it reads what is replaced here
        generation = self._cpu.generation
        exported = self._cpu.export_actions()
        arrays = {
            "action_of_rule": column(exported["action_of_rule"], np.uint32),
            "action_first": column(exported["action_first"], np.uint32),
            "action_group": column(exported["action_group"], np.uint16),
            "servers": column(exported["tables"], np.uint16),
        }
        most = int(np.diff(arrays["action_first"].astype(np.int64)).max(initial=1))
        if most > _MOST_COPIES:
            raise ValueError(f"an action has {most} groups; at most {_MOST_COPIES} on a device")
        places, size = _layout({name: array.nbytes for name, array in arrays.items()})
        base = self._balance.ensure(size)
        for name, array in arrays.items():
            if len(array):
                self._device.upload(base + places[name], array, self._compute)
            self._address[name] = base + places[name]
        if not len(arrays["servers"]):
            self._address["servers"] = 0
        self._most_copies = most
        self._bits = exported["bucket_bits"]
        self._servers = exported["servers"]
        self._words = _cpu.DEVICE_COUNTS + 2 * self._servers
        self._counts.ensure(8 * self._words)
        self._counts_host = self._device.pinned(8 * self._words).view(np.uint64)
        self._device.synchronize(self._device.record(self._compute))
        self._generation = generation

    def _classify(self, batch: _Batch, there: Sequence[tuple[Chunk, Staged]]) -> tuple[_Output, Array, Array]:
        """Rules and hashes of all frames that need no fragment table, on the device and on the host; numbers
        of the others, ascending; what the device has counted. there: chunks that are on the device."""
        device, n = self._device, batch.n
        places, size = _layout({"hash": 8 * n, "rule": 4 * n, "captured": 4 * n, "listed": 4 * n,
                                "fate": n, "mark": n})  # fmt: skip
        base = self._columns.ensure(size)
        self._at = at = {name: base + place for name, place in places.items()}
        out = self._output(n)
        device.fill(self._counts.address, 0, 8 * self._words, self._compute)
        cuts = batch.chunks(self._chunk, self._chunk_bytes)
        for chunk, lent in there or ((chunk, None) for chunk in cuts):
            part, count, low = slice(chunk.low, chunk.high), chunk.high - chunk.low, chunk.low
            columns = {"port": batch.port[part], "linktypes": batch.linktypes}
            if batch.keep is not None:
                columns["keep"] = batch.keep[part]
            if lent is None:
                staged = self._staging.upload(chunk, batch.data, batch.offset, batch.caplen, columns)
            else:
                staged = self._staging.upload_columns(columns)
            source, here = lent or staged, staged.address
            self._staging.wait(staged, self._compute)
            frames = (
                source.data, source.base, source.address["offset"], source.address["caplen"],
                here["port"], here["linktypes"], here.get("keep", 0),
            )  # fmt: skip
            self._enqueue_rules(frames, count, at, low, self._counts.address, self._compute)
            self._staging.done(staged, self._compute)
            device.wait(self._copy_out, device.record(self._compute))
            device.download(out.rule[part], at["rule"] + 4 * low, self._copy_out)
            device.download(out.hash[part], at["hash"] + 8 * low, self._copy_out)
        device.download(self._counts_host, self._counts.address, self._compute)
        listed = self._list_marked(n)
        device.synchronize(device.record(self._copy_out))
        self._staging.finish()
        return out, listed, self._counts_host.copy()

    def _list_marked(self, n: int) -> Array:
        if self._cpu.by_ip:
            self._device.synchronize(self._device.record(self._compute))
            return np.empty(0, np.uint32)
        marked = self._tiles.list_marked(self._at["mark"], n, self._at["listed"], self._compute)
        listed = np.empty(marked, np.uint32)
        if marked:
            # Not page-locked memory: the copy itself would wait, for ever where a kernel hangs.
            self._device.synchronize(self._device.record(self._compute))
            self._device.download(listed, self._at["listed"], self._compute)
            self._device.synchronize(self._device.record(self._compute))
        return listed

    def _share(self, n: int, out: _Output, verdicts: tuple[Array, Array, Array]) -> Array:
        """Servers of the whole batch, into `out`. verdicts: rule, hash and fate of the listed frames."""
        device, at = self._device, self._at
        listed = len(verdicts[0])
        if listed:
            uploaded = self._staging.upload_columns(
                dict(zip(("rule", "hash", "fate"), verdicts, strict=True))
            )
            self._staging.wait(uploaded, self._compute)
            here = uploaded.address
            arguments = (
                at["listed"], here["rule"], here["hash"], here["fate"], listed,
                at["rule"], at["hash"], at["fate"],
            )  # fmt: skip
            self._launch("put_verdicts", listed, arguments, self._compute)
            self._staging.done(uploaded, self._compute)
        sums = self._enqueue_count(self._tiles, n, at, self._compute)
        copies = self._tiles.scan(self._compute)
        places, size = _layout({"frame": 4 * copies, "server": 2 * copies})
        base = self._copies.ensure(size)
        out.expect_copies(copies)
        copied = (base + places["frame"], base + places["server"])
        self._enqueue_copies(self._tiles, n, at, sums, copied, self._counts.address, self._compute)
        device.download(out.fate, at["fate"], self._compute)
        if copies:
            device.download(out.copy_frame, base + places["frame"], self._compute)
            device.download(out.copy_server, base + places["server"], self._compute)
        device.download(self._counts_host, self._counts.address, self._compute)
        self._staging.finish()
        device.synchronize(device.record(self._compute))
        return self._counts_host

    def _output(self, n: int) -> _Output:
        for output in self._outputs:
            if not output.in_use:
                output.start(n)
                return output
        output = _Output(self._device)
        if len(self._outputs) < _OUTPUTS:
            self._outputs.append(output)
        output.start(n)
        return output

    @property
    def bytes(self) -> int:
        """Memory held on the device, and on the host for it."""
        host = sum(output.bytes for output in self._outputs)
        resident = 0 if self._resident is None else self._resident.bytes
        buffers = sum(buffer.size for buffer in self._buffers)
        return buffers + self._tiles.bytes + resident + host + self._staging.bytes

    def close(self) -> None:
        """Gives the device's memory back. Results stay valid. Further calls do nothing; never raises."""
        if self._closed:
            return
        self._closed = True
        # What was started uses the memory; a device that fails here has nothing left to wait for.
        with contextlib.suppress(DeviceFailure):
            if hasattr(self, "_copy_out"):
                for stream in (self._compute, self._copy_out):
                    self._device.synchronize(self._device.record(stream))
            if hasattr(self, "_staging"):
                self._staging.finish()
        self._outputs.clear()
        if self._resident is not None:
            self._resident.close()
        # What was started uses the memory, that of lent frames too; a failed device has nothing to wait for.
        with contextlib.suppress(DeviceFailure):
            if hasattr(self, "_copy_out"):
                for stream in (self._compute, self._copy_out):
                    self._device.synchronize(self._device.record(stream))
        for part in ("_staging", "_tiles"):
            if hasattr(self, part):
                getattr(self, part).close()
        for buffer in self._buffers:
            buffer.free()


class _Resident:
    """Room for verdicts that stay on the device, and the stream that works on them."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._buffer = DeviceBuffer(device)
        self._stream: Any = None
        self._frames = 0
        self.tiles = TileSums(device)

    def reserve(self, size: int, frames: int, stream: Any) -> int:
        """Address of `size` bytes, and sums for `frames` frames, for what `stream` is given from now on."""
        if size > self._buffer.size or frames > self._frames:
            self.finish()
            self._buffer.ensure(size)
            self._frames = max(self._frames, frames)
        elif self._stream is not None and self._stream is not stream:
            self._device.wait(stream, self._device.record(self._stream))
        self._stream = stream
        return self._buffer.address

    def finish(self) -> None:
        """Waits for all that was started."""
        if self._stream is not None:
            self._device.synchronize(self._device.record(self._stream))

    @property
    def bytes(self) -> int:
        return self._buffer.size + self.tiles.bytes

    def close(self) -> None:
        # A device that fails here has nothing left to wait for.
        with contextlib.suppress(DeviceFailure):
            self.finish()
        self._buffer.free()
        self.tiles.close()


def _layout(sizes: dict[str, int]) -> tuple[dict[str, int], int]:
    """Aligned places one behind the other, and the size of it all."""
    places, at = {}, 0
    for name, size in sizes.items():
        places[name] = at
        at += -(-size // ALIGNMENT) * ALIGNMENT
    return places, max(at, ALIGNMENT)


class _Batch:
    """A batch's columns as arrays."""

    def __init__(
        self, data: Any, offset: Any, caplen: Any, length: Any, timestamp_ns: Any, port: Any, flags: Any,
        linktypes: Any, keep: Any, first: int,
    ) -> None:  # fmt: skip
        self.data = column(data, np.uint8)
        self.offset, self.caplen = column(offset, np.uint64), column(caplen, np.uint32)
        self.port, self.linktypes = column(port, np.uint16), column(linktypes, np.uint16)
        self.keep = None if keep is None else column(keep, np.uint8)
        length, flags = column(length, np.uint32), column(flags, np.uint16)
        stamps = column(timestamp_ns, np.int64)
        self.n = len(self.caplen)
        self.first = first
        self.host = (
            self.data, self.offset, self.caplen, length, stamps, self.port, flags, self.linktypes, first,
        )  # fmt: skip

    def check(self) -> None:
        """Raises ValueError, in the CPU's words, where the batch is not fit to be judged."""
        columns = [*self.host[1:7], *([] if self.keep is None else [self.keep])]
        if any(len(values) != self.n for values in columns):
            raise ValueError("the columns of a batch differ in length")
        if self.n >= 0xFFFFFFFF:
            raise ValueError("a batch holds fewer than 2^32 - 1 frames")
        _cpu.frame_extent(
            len(self.data), self.offset, self.caplen, self.port, len(self.linktypes), self.first
        )

    def chunks(self, frames: int, size: int) -> Any:
        return chunks(
            len(self.data), self.offset, self.caplen, self.port, len(self.linktypes), frames=frames, size=size
        )


class _HostBuffer:
    """Page-locked memory lent to one batch at a time: until nobody has a view of it any more."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._memory: Bytes = np.empty(0, np.uint8)
        self._lease: weakref.ref[Bytes] | None = None

    @property
    def in_use(self) -> bool:
        return self._lease is not None and self._lease() is not None

    def lend(self, size: int) -> Bytes:
        """At least `size` bytes. Views keep what this returns alive, and it the memory."""
        if len(self._memory) < size:
            self._memory = self._device.pinned(size + size // 8)
        lease: Bytes = np.frombuffer(self._memory.data, np.uint8)
        self._lease = weakref.ref(lease)
        return lease

    @property
    def bytes(self) -> int:
        return len(self._memory)


class _Output:
    """Results of one batch."""

    def __init__(self, device: Device) -> None:
        self._frames, self._copies = _HostBuffer(device), _HostBuffer(device)

    def start(self, n: int) -> None:
        self._n = n
        lease = self._frames.lend(max(1, 13 * n))
        self.hash = lease[: 8 * n].view(np.uint64)
        self.rule = lease[8 * n : 12 * n].view(np.int32)
        self.fate = lease[12 * n : 13 * n]

    def expect_copies(self, copies: int) -> None:
        lease = self._copies.lend(max(1, 6 * copies))
        self.copy_frame = lease[: 4 * copies].view(np.uint32)
        self.copy_server = lease[4 * copies : 6 * copies].view(np.uint16)

    def views(self, held: Array) -> Views:
        """As _cpu.Classifier.process gives them. They are the only ones: the memory is free when they are."""
        views = (
            self.rule.data, self.hash.data, self.fate.data, self.copy_frame.data, self.copy_server.data,
            held.data,
        )  # fmt: skip
        del self.rule, self.hash, self.fate, self.copy_frame, self.copy_server
        return views

    @property
    def in_use(self) -> bool:
        return self._frames.in_use or self._copies.in_use

    @property
    def bytes(self) -> int:
        return self._frames.bytes + self._copies.bytes
