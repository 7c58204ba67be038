# SPDX-License-Identifier: Apache-2.0
"""A Device on the CPU that does what a program may not rely on: late, in any allowed order, or never."""

from __future__ import annotations

import ctypes
import gc
import random
import re
import subprocess
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from twinstamp_kernels.gpu.device import DeviceFailure, PinnedRanges

from tests.emulation import _emulation
from tests.emulation._emulation import EmulationError

__all__ = ["EmulatedDevice", "EmulatedStream", "EmulationError", "Event"]

U64 = 1 << 64


class Event:
    """Comes to pass when its stream's queue gets there."""

    def __init__(self) -> None:
        self.done = False


class EmulatedStream:
    """Operations not run yet: (event to wait for, what to run, event that then has come to pass)."""

    def __init__(self) -> None:
        self.queue: deque[tuple[Event | None, Callable[[], None], Event | None]] = deque()

    @property
    def ready(self) -> bool:
        if not self.queue:
            return False
        event = self.queue[0][0]
        return event is None or event.done


class EmulatedDevice:
    """Device (twinstamp_kernels/gpu/device.py) on the CPU.

    seed: of everything random. interval: memory accesses between two switches of threads, on average; 0
    switches only at barriers, warp intrinsics and atomics, which is several times faster. resident_blocks:
    blocks that run at a time. lazy: operations run later than they are issued, in a random order that
    respects streams and events and nothing else; otherwise at once. fail_at: index in ``operations`` of the
    first that raises DeviceFailure; every later one does, too. no_room_at: which allocation, of those of
    either memory, raises it for want of memory; the device lives on.

    ``operations``: the kind of each operation so far, of allocate, pinned, upload, download, fill, launch,
    record, wait and synchronize. ``launches``: kernel, blocks, accesses and switches of each that ran.
    ``log``: None, or a list that gets what ran in order, for threads.py.

    EmulationError, which no launcher catches, is raised for what a program may not do: a kernel's wrong
    access, race or barrier, a copy outside an allocation, a host array given up before its copy. It is raised
    where the operation runs, hence often by a later call, and by every call from then on.
    """

    def __init__(
        self,
        seed: int = 0,
        interval: int = 64,
        resident_blocks: int = 4,
        lazy: bool = True,
        *,
        fail_at: int | None = None,
        no_room_at: int | None = None,
        racecheck: bool = True,
        initcheck: bool = True,
        time_limit_s: float = 120.0,
    ) -> None:
        self.name = f"emulated (seed {seed})"
        self._pinned = PinnedRanges()
        self.interval = interval
        self.resident_blocks = resident_blocks
        self.lazy = lazy
        self.fail_at = fail_at
        self.no_room_at = no_room_at
        self.racecheck = racecheck
        self.initcheck = initcheck
        self.time_limit_s = time_limit_s
        self.operations: list[str] = []
        self.launches: list[tuple[str, int, int, int]] = []
        self.log: list[tuple[Any, ...]] | None = None
        self.error: EmulationError | None = None
        self.failed = False
        self.closed = False
        self._random = random.Random(seed)
        self._memory: Any = _new_memory(self._random.getrandbits(32))
        self._streams: list[EmulatedStream] = []
        # How far the device is ahead of the host: from nothing before it must, to everything at once.
        self._eagerness = self._random.choice([0.0, 0.1, 0.5, 0.9])

    @property
    def living(self) -> int:
        """Allocations not freed."""
        return 0 if self.closed else int(self._memory.living)

    @property
    def living_bytes(self) -> int:
        """Bytes of allocations not freed."""
        return 0 if self.closed else int(self._memory.living_bytes)

    # The protocol -----------------------------------------------------------------------------------------

    def allocate(self, size: int) -> int:
        self._operation("allocate")
        address = int(self._run(self._memory.allocate, size))
        if self.log is not None:
            self.log.append(("allocate", address, size))
        return address

    def free(self, address: int) -> None:
        if self.closed or self.failed:
            return
        self._run(self._memory.free, address)
        if self.log is not None:
            self.log.append(("free", address))

    def pinned(self, size: int) -> npt.NDArray[np.uint8]:
        self._operation("pinned")
        # A plain owner behind the array, which NumPy arrays of all views keep alive: the range is its.
        owner = (ctypes.c_uint8 * size)()
        self._pinned.add(owner, ctypes.addressof(owner), size)
        array = np.frombuffer(owner, np.uint8)
        array.fill(self._random.getrandbits(8))
        return array

    def is_pinned(self, array: npt.NDArray[Any]) -> bool:
        return self._pinned.contain(array)

    def stream(self) -> EmulatedStream:
        self._alive()
        stream = EmulatedStream()
        self._streams.append(stream)
        return stream

    def upload(self, address: int, source: npt.NDArray[Any], stream: EmulatedStream) -> None:
        self._operation("upload")
        host = _HostArray(source)

        def run() -> None:
            self._memory.write(address, host.address("upload"), host.size)
            if self.log is not None and host.size:
                self.log.append(("write", address, host.content()))

        self._enqueue(stream, run)

    def download(self, target: npt.NDArray[Any], address: int, stream: EmulatedStream) -> None:
        self._operation("download")
        host = _HostArray(target)
        if not target.flags.writeable:
            self._fail(EmulationError("download to a host array that cannot be written"))
        # The host may not look at it before the copy is done.
        target.view(np.uint8).reshape(-1)[:] = self._random.getrandbits(8)

        def run() -> None:
            self._memory.read(host.address("download"), address, host.size)
            if self.log is not None and host.size:
                self.log.append(("read", address, host.content()))

        self._enqueue(stream, run)

    def fill(self, address: int, value: int, size: int, stream: EmulatedStream) -> None:
        self._operation("fill")

        def run() -> None:
            self._memory.fill(address, value, size)
            if self.log is not None and size:
                self.log.append(("fill", address, value, size))

        self._enqueue(stream, run)

    def launch(self, kernel: str, blocks: int, arguments: Sequence[int], stream: EmulatedStream) -> None:
        self._operation("launch")
        for value in arguments:
            if not -U64 // 2 <= value < U64:
                self._fail(EmulationError(f"launch of {kernel}: argument {value} does not fit into 8 bytes"))
        values = [int(value) % U64 for value in arguments]
        known = kernels()
        if kernel not in known:
            self._fail(EmulationError(f"launch: no kernel is called {kernel}"))
        if known[kernel] != len(values):
            self._fail(
                EmulationError(f"launch: {kernel} has {known[kernel]} parameters, {len(values)} were given")
            )
        if not 0 <= blocks < 1 << 31:
            self._fail(EmulationError(f"launch of {kernel}: {blocks} blocks"))
        if blocks == 0:
            return

        def run() -> None:
            if self.log is not None:
                self.log.append(("launch", kernel, blocks, values))
            counts = self._memory.launch(
                kernel,
                blocks,
                values,
                seed=self._random.getrandbits(63),
                interval=self.interval,
                resident_blocks=self.resident_blocks,
                racecheck=self.racecheck,
                initcheck=self.initcheck,
                time_limit_s=self.time_limit_s,
            )
            self.launches.append((kernel, blocks, *counts))

        self._enqueue(stream, run)

    def record(self, stream: EmulatedStream) -> Event:
        self._operation("record")
        event = Event()
        self._enqueue(stream, lambda: None, made=event)
        return event

    def wait(self, stream: EmulatedStream, event: Event) -> None:
        self._operation("wait")
        self._enqueue(stream, lambda: None, after=event)

    def synchronize(self, event: Event) -> None:
        self._operation("synchronize")
        # Either only what the event needs, or anything until it has come to pass.
        only_needed = self._random.random() < 0.5
        while not event.done:
            streams = self._needed(event) if only_needed else [s for s in self._streams if s.ready]
            if not streams:
                self._fail(EmulationError("synchronize: the event can never come to pass"))
            self._step(self._random.choice(streams))
        self._run_ahead()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._streams.clear()
            self._memory = None

    # ------------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Runs everything that was given so far."""
        while streams := [s for s in self._streams if s.ready]:
            self._step(self._random.choice(streams))

    def _needed(self, event: Event) -> list[EmulatedStream]:
        """Streams whose next operation can run and must, for the event to come to pass."""
        wanted, streams = {event}, []
        while True:
            more = [
                stream
                for stream in self._streams
                if stream not in streams and any(made in wanted for _, _, made in stream.queue)
            ]
            if not more:
                return [stream for stream in streams if stream.ready]
            for stream in more:
                streams.append(stream)
                for after, _, made in stream.queue:
                    if after is not None:
                        wanted.add(after)
                    if made in wanted:
                        break

    def _alive(self) -> None:
        if self.error is not None:
            raise self.error
        if self.closed:
            raise EmulationError("a call after close()")
        if self.failed:
            raise DeviceFailure("emulated failure: the device is gone")

    def _operation(self, kind: str) -> None:
        if self.error is None and not self.closed:
            self.operations.append(kind)
            if self.fail_at is not None and len(self.operations) > self.fail_at:
                self.failed = True
        self._alive()
        if kind in ("allocate", "pinned"):
            taken = self.operations.count("allocate") + self.operations.count("pinned")
            if taken - 1 == self.no_room_at:
                raise DeviceFailure("emulated failure: no room")

    def _enqueue(
        self,
        stream: EmulatedStream,
        run: Callable[[], None],
        after: Event | None = None,
        made: Event | None = None,
    ) -> None:
        stream.queue.append((after, run, made))
        if not self.lazy:
            self.drain()
        else:
            self._run_ahead()

    def _run_ahead(self) -> None:
        while self._random.random() < self._eagerness:
            streams = [s for s in self._streams if s.ready]
            if not streams:
                return
            self._step(self._random.choice(streams))

    def _step(self, stream: EmulatedStream) -> None:
        _, run, made = stream.queue.popleft()
        self._run(run)
        if made is not None:
            made.done = True

    def _run(self, run: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return run(*arguments)
        except EmulationError as error:
            self._fail(EmulationError(_with_source(str(error))))

    def _fail(self, error: EmulationError) -> NoReturn:
        self.error = error
        raise error


def kernels() -> dict[str, int]:
    """Name and number of parameters of each kernel that the emulation was built with."""
    return dict(_emulation.kernels())


def _new_memory(seed: int) -> Any:
    try:
        return _emulation.Memory(seed)
    except RuntimeError:  # two dozen devices fit: some are there only because Python has not looked yet
        gc.collect()
        return _emulation.Memory(seed)


class _HostArray:
    """A contiguous host array that is not kept alive: that is for the device's user to do."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        if not (array.flags.c_contiguous or array.flags.f_contiguous):
            raise EmulationError("copy of a host array that is not contiguous")
        self.size = array.nbytes
        self._address = array.ctypes.data
        owner: Any = array
        while True:
            if isinstance(owner, np.ndarray) and owner.base is not None:
                owner = owner.base
            elif isinstance(owner, memoryview):
                owner = owner.obj
            else:
                break
        try:
            self._owner: Callable[[], Any] = weakref.ref(owner)
        except TypeError:  # bytes, mmap: cannot be watched, so it is kept
            self._owner = lambda: owner

    def address(self, what: str) -> int:
        if self._owner() is None:
            raise EmulationError(f"{what}: the host array was given up before the copy was done")
        return self._address

    def content(self) -> bytes:
        return ctypes.string_at(self._address, self.size)


def _with_source(text: str) -> str:
    """The message with the line of source that its code address belongs to."""
    found = re.search(r" \[code \+(0x[0-9a-f]+)\]", text)
    if found is None:
        return text
    command = ["addr2line", "-s", "-i", "-e", str(_emulation.__file__), found[1]]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return text
    # From the innermost function out: the first that is no intrinsic.
    places = [place.split()[0] for place in lines.splitlines() if not place.startswith("cuda.h:")]
    return text[: found.start()] + f", {places[0]}" * bool(places) + text[found.end() :]
