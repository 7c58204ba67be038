# SPDX-License-Identifier: Apache-2.0
"""An NVIDIA GPU as a Device (device.py), by CuPy: the kernels of cuda/ compiled by NVRTC as they are."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import re
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from twinstamp_kernels.gpu.device import BLOCK, Bytes, DeviceFailure, PinnedRanges

PACKAGE = Path(__file__).resolve().parent.parent
SOURCES = PACKAGE / "cuda"
INCLUDE = PACKAGE / "include"

OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation: the only failure after which the device is as it was
NOT_READY = 600  # cudaErrorNotReady
MAX_BLOCKS = 2**31 - 1

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_BOUNDS = r"(?:__launch_bounds__\s*\([^)]*\)\s*)?"
_KERNEL = re.compile(rf"__global__\s+{_BOUNDS}void\s+{_BOUNDS}(\w+)\s*\(([^)]*)\)")


def kernels_of(source: str) -> dict[str, int]:
    """Names of the kernels that a .cu file's text defines, with their numbers of parameters."""
    return {
        name: parameters.count(",") + 1 if parameters.strip() else 0
        for name, parameters in _KERNEL.findall(_COMMENT.sub(" ", source))
    }


def compile_options(include: Path = INCLUDE) -> tuple[str, ...]:
    """Options for NVRTC. CuPy's cache of compiled kernels does not see headers, so a digest of them is in."""
    digest = hashlib.sha256()
    for path in sorted(include.rglob("*.h")):
        digest.update(path.relative_to(include).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return (
        "-std=c++17",
        "-lineinfo",  # profilers and checkers name the line; the code is the same
        f"-I{include}",
        f"-DTWINSTAMP_SOURCES=0x{digest.hexdigest()[:16]}",
    )


class _Handle:
    """A stream or an event (``ptr``), destroyed with the object, in silence: its context may be dead."""

    def __init__(self, ptr: int, destroy: Callable[[int], None]) -> None:
        self.ptr = ptr
        self._destroy = destroy

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._destroy(self.ptr)


class CudaDevice:
    """GPU `number` of this machine, usable from any thread (each call makes it the thread's device).

    Kernels are compiled when they are first launched, once per .cu file, and kept on disk by CuPy.
    time_limit: seconds that synchronize() waits. timing: events carry times, for elapsed(); slower.
    After a failure other than want of memory and a kernel that does not compile, nothing is touched any
    more: later calls raise at once, and what the device holds is left to the end of the process (freeing
    would wait for a kernel that hangs).

    Raises DeviceFailure where CuPy, the driver or the GPU is not there.
    """

    def __init__(
        self,
        number: int = 0,
        *,
        time_limit: float = 60.0,
        timing: bool = False,
        sources: Path = SOURCES,
        include: Path = INCLUDE,
    ) -> None:
        self.name = f"GPU {number}"
        self.number = number
        self.time_limit = time_limit
        self.timing = timing
        self.failure: str | None = None
        self._closed = False
        self._allocated: set[int] = set()
        self._functions: dict[str, tuple[Any, int]] = {}
        self._pinned = PinnedRanges()
        self._lock = threading.Lock()
        try:
            import cupy
            from cupy.cuda.compiler import CompileException
        except Exception as error:  # a broken installation raises whatever it likes
            raise DeviceFailure(f"CuPy cannot be imported (pip install 'twinstamp[gpu]'): {error}") from error
        self._cupy = cupy
        self._runtime = cupy.cuda.runtime
        self._compile_error: type[Exception] = CompileException
        self._errors: tuple[type[Exception], ...] = (RuntimeError, MemoryError, OSError, CompileException)
        try:
            count = self._runtime.getDeviceCount()
        except self._errors as error:
            raise DeviceFailure(f"no GPU: {error}") from error
        if not 0 <= number < count:
            raise DeviceFailure(f"no GPU {number}: this machine has {count}, counted from 0")
        try:
            self._properties = self._runtime.getDeviceProperties(number)
            self._runtime.setDevice(number)
        except self._errors as error:
            raise DeviceFailure(f"GPU {number} cannot be used: {error}") from error
        self.name = bytes(self._properties["name"]).decode(errors="replace")
        options = compile_options(include)
        self._modules: dict[str, tuple[Any, int]] = {}  # of each kernel: its module, not compiled yet
        for path in sorted(sources.glob("*.cu")):
            text = path.read_text()
            module = cupy.RawModule(code=text, options=options)
            for kernel, parameters in kernels_of(text).items():
                self._modules[kernel] = (module, parameters)

    def describe(self) -> dict[str, Any]:
        """What measurements want to know: name, capability, memory_bytes, versions (as 13000 for 13.0)."""
        p = self._properties
        return {
            "name": self.name,
            "capability": f"{p['major']}.{p['minor']}",
            "multiprocessors": int(p["multiProcessorCount"]),
            "memory_bytes": int(p["totalGlobalMem"]),
            "l2_bytes": int(p["l2CacheSize"]),
            "driver": int(self._runtime.driverGetVersion()),
            "cuda": int(self._runtime.runtimeGetVersion()),
            "cupy": str(self._cupy.__version__),
        }

    @property
    def kernels(self) -> list[str]:
        """Names of the kernels that can be launched."""
        return sorted(self._modules)

    def compile(self) -> None:
        """Compiles and loads every kernel now, instead of at its first launch."""
        for kernel in self._modules:
            self._function(kernel)

    def allocate(self, size: int) -> int:
        what = f"allocating {size:,} bytes"
        self._enter(what)
        try:
            address = int(self._runtime.malloc(size + 16))
        except self._errors as error:
            raise self._failed(what, error) from error
        self._allocated.add(address)
        return address

    def free(self, address: int) -> None:
        if address not in self._allocated:
            return
        self._allocated.discard(address)
        if self.failure is not None:
            return
        try:
            self._runtime.setDevice(self.number)
            self._runtime.free(address)
        except self._errors as error:
            self._failed("freeing memory", error)

    def pinned(self, size: int) -> Bytes:
        what = f"allocating {size:,} bytes of page-locked host memory"
        self._enter(what)
        if size == 0:
            return np.empty(0, np.uint8)
        try:
            address = int(self._runtime.hostAlloc(size, self._runtime.hostAllocPortable))
        except self._errors as error:
            raise self._failed(what, error) from error
        block = (ctypes.c_uint8 * size).from_address(address)
        weakref.finalize(block, self._free_pinned, address).atexit = False
        # Last, so that it ends first: the address may be given out again as soon as it is free.
        self._pinned.add(block, address, size)
        return np.frombuffer(memoryview(block), np.uint8)

    def is_pinned(self, array: npt.NDArray[Any]) -> bool:
        return self._pinned.contain(array)

    def _free_pinned(self, address: int) -> None:
        if self.failure is None:
            with contextlib.suppress(*self._errors):
                self._runtime.freeHost(address)

    def stream(self) -> Any:
        self._enter("making a stream")
        try:
            handle = self._runtime.streamCreateWithFlags(self._runtime.streamNonBlocking)
        except self._errors as error:
            raise self._failed("making a stream", error) from error
        return _Handle(handle, self._runtime.streamDestroy)

    def upload(self, address: int, source: npt.NDArray[Any], stream: Any) -> None:
        self._copy(address, _address(source), source.nbytes, self._runtime.memcpyHostToDevice, stream)

    def download(self, target: npt.NDArray[Any], address: int, stream: Any) -> None:
        if not target.flags.writeable:
            raise ValueError("the host array of a download is read-only")
        self._copy(_address(target), address, target.nbytes, self._runtime.memcpyDeviceToHost, stream)

    def copy(self, target: int, source: int, size: int, stream: Any) -> None:
        """Copies `size` bytes within the device."""
        self._copy(target, source, size, self._runtime.memcpyDeviceToDevice, stream)

    def _copy(self, target: int, source: int, size: int, kind: int, stream: Any) -> None:
        what = f"copying {size:,} bytes"
        self._enter(what)
        if size == 0:
            return
        try:
            self._runtime.memcpyAsync(target, source, size, kind, stream.ptr)
        except self._errors as error:
            raise self._failed(what, error) from error

    def fill(self, address: int, value: int, size: int, stream: Any) -> None:
        what = f"filling {size:,} bytes"
        self._enter(what)
        if size == 0:
            return
        try:
            self._runtime.memsetAsync(address, value, size, stream.ptr)
        except self._errors as error:
            raise self._failed(what, error) from error

    def launch(self, kernel: str, blocks: int, arguments: Sequence[int], stream: Any) -> None:
        what = f"launching {kernel} on {blocks:,} blocks"
        self._enter(what)
        if blocks == 0:
            return
        if not 0 < blocks <= MAX_BLOCKS:
            raise ValueError(f"{blocks} blocks of {kernel}: at most {MAX_BLOCKS}")
        function, parameters = self._functions.get(kernel) or self._function(kernel)
        if len(arguments) != parameters:
            raise ValueError(f"{kernel} takes {parameters} arguments, {len(arguments)} given")
        # CuPy hands NumPy scalars over by value, at their own width: 8 bytes, as the parameters are.
        packed = tuple(np.uint64(int(value) & 0xFFFF_FFFF_FFFF_FFFF) for value in arguments)
        try:
            function((blocks, 1, 1), (BLOCK, 1, 1), packed, stream=stream)
        except self._errors as error:
            raise self._failed(what, error) from error

    def _function(self, kernel: str) -> tuple[Any, int]:
        if kernel not in self._modules:
            raise ValueError(f"no kernel {kernel!r} in {SOURCES.name}/")
        what = f"compiling and loading {kernel}"
        self._enter(what)
        module, parameters = self._modules[kernel]
        with self._lock:
            try:
                function = module.get_function(kernel).kernel
            except self._errors as error:
                raise self._failed(what, error) from error
        self._functions[kernel] = (function, parameters)
        return function, parameters

    def record(self, stream: Any) -> Any:
        self._enter("recording an event")
        try:
            flags = 0 if self.timing else self._runtime.eventDisableTiming
            event = _Handle(self._runtime.eventCreateWithFlags(flags), self._runtime.eventDestroy)
            self._runtime.eventRecord(event.ptr, stream.ptr)
        except self._errors as error:
            raise self._failed("recording an event", error) from error
        return event

    def wait(self, stream: Any, event: Any) -> None:
        self._enter("waiting for an event")
        try:
            self._runtime.streamWaitEvent(stream.ptr, event.ptr)
        except self._errors as error:
            raise self._failed("waiting for an event", error) from error

    def synchronize(self, event: Any) -> None:
        self._enter("waiting for the device")
        start = time.perf_counter()
        while True:
            status = self._runtime.eventQuery(event.ptr)  # gives errors back instead of raising them
            if status == 0:
                return
            if status != NOT_READY:
                error = self._runtime.CUDARuntimeError(status)
                raise self._failed("waiting for the device", error) from error
            waited = time.perf_counter() - start
            if waited > self.time_limit:
                error = TimeoutError(f"not done after {waited:.1f} s")
                raise self._failed("waiting for the device", error)
            # A batch takes less than a millisecond as a rule: be there when it is done.
            time.sleep(0 if waited < 0.002 else 50e-6)

    def elapsed(self, start: Any, end: Any) -> float:
        """Seconds between two events that have come to pass (timing=True)."""
        self._enter("reading times")
        try:
            return float(self._runtime.eventElapsedTime(start.ptr, end.ptr)) / 1e3
        except self._errors as error:
            raise self._failed("reading times", error) from error

    def close(self) -> None:
        if self._closed:
            return
        for address in list(self._allocated):
            self.free(address)
        self._closed = True
        self._functions.clear()
        self._modules.clear()

    def _enter(self, what: str) -> None:
        """Before each call: the device is whole, and this thread's current one."""
        if self.failure is not None:
            raise DeviceFailure(f"{self.name}: {what}: failed before: {self.failure}")
        if self._closed:
            raise DeviceFailure(f"{self.name}: {what}: the device is closed")
        try:
            self._runtime.setDevice(self.number)
        except self._errors as error:
            raise self._failed(what, error) from error

    def _failed(self, what: str, error: Exception) -> DeviceFailure:
        text = f"{self.name}: {what} failed: {str(error)[:4000]}"
        harmless = getattr(error, "status", None) == OUT_OF_MEMORY or isinstance(error, self._compile_error)
        if not harmless and self.failure is None:
            self.failure = text
        return DeviceFailure(text)


def _address(array: npt.NDArray[Any]) -> int:
    if not array.flags.c_contiguous:
        raise ValueError("host arrays of copies must be contiguous")
    return int(array.__array_interface__["data"][0])
