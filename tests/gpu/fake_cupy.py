# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N815, N818 - the names are CuPy's
"""A FAKE of the part of CuPy that gpu/cuda.py uses, in plain memory: no GPU, no CUDA, no kernels of ours.

It runs CudaDevice's own logic (order of calls, packing, translation of errors) where there is no GPU. That
the real CuPy has these functions with these parameters is checked beside it (test_cuda_device.py); that
they do on a GPU what the fake does, only `make gpu-check` shows.
"""

from __future__ import annotations

import ctypes
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

SYMBOLS = {2: "cudaErrorMemoryAllocation", 700: "cudaErrorIllegalAddress", 100: "cudaErrorNoDevice"}


class CUDARuntimeError(RuntimeError):
    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"{SYMBOLS.get(status, status)}: words of the driver")


class CUDADriverError(RuntimeError):
    status = 500


class CompileException(Exception):
    pass


class Runtime:
    """cupy.cuda.runtime. fail: status that the named function raises (eventQuery: gives back)."""

    hostAllocPortable = 1
    streamNonBlocking = 1
    eventDisableTiming = 2
    memcpyHostToDevice, memcpyDeviceToHost, memcpyDeviceToDevice = 1, 2, 3
    CUDARuntimeError = CUDARuntimeError

    def __init__(self, devices: int) -> None:
        self.devices = devices
        self.fail: dict[str, int] = {}
        self.memory: dict[int, Any] = {}  # device allocations
        self.host: dict[int, Any] = {}
        self.events: dict[int, Any] = {}
        self.streams: set[int] = set()
        self.current: dict[int, int] = {}  # thread → device
        self.calls: list[tuple[Any, ...]] = []
        self.pending = 0  # how often eventQuery says "not ready" first
        self._next = 1

    def _call(self, name: str, *arguments: Any) -> None:
        self.calls.append((name, *arguments))
        if name in self.fail:
            raise CUDARuntimeError(self.fail[name])

    def _handle(self) -> int:
        self._next += 1
        return self._next

    def on_device(self) -> None:
        assert self.current.get(threading.get_ident()) is not None, "no device chosen in this thread"

    def getDeviceCount(self) -> int:
        self._call("getDeviceCount")
        if not self.devices:
            raise CUDARuntimeError(100)
        return self.devices

    def getDeviceProperties(self, device: int) -> dict[str, Any]:
        self._call("getDeviceProperties", device)
        return {
            "name": b"Fake",
            "major": 9,
            "minor": 0,
            "multiProcessorCount": 1,
            "totalGlobalMem": 1,
            "l2CacheSize": 1,
        }

    def driverGetVersion(self) -> int:
        return 13000

    def runtimeGetVersion(self) -> int:
        return 13000

    def setDevice(self, device: int) -> None:
        self.current[threading.get_ident()] = device

    def malloc(self, size: int) -> int:
        self._call("malloc", size)
        self.on_device()
        block = (ctypes.c_uint8 * size)()
        self.memory[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def free(self, ptr: int) -> None:
        self._call("free", ptr)
        del self.memory[ptr]

    def hostAlloc(self, size: int, flags: int) -> int:
        self._call("hostAlloc", size, flags)
        block = (ctypes.c_uint8 * size)()
        self.host[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def freeHost(self, ptr: int) -> None:
        self._call("freeHost", ptr)
        del self.host[ptr]

    def streamCreateWithFlags(self, flags: int) -> int:
        self._call("streamCreateWithFlags", flags)
        self.on_device()
        handle = self._handle()
        self.streams.add(handle)
        return handle

    def streamDestroy(self, stream: int) -> None:
        self._call("streamDestroy", stream)
        self.streams.discard(stream)

    def streamWaitEvent(self, stream: int, event: int) -> None:
        assert stream in self.streams and event in self.events
        self._call("streamWaitEvent", stream, event)

    def eventCreateWithFlags(self, flags: int) -> int:
        self._call("eventCreateWithFlags", flags)
        self.on_device()
        handle = self._handle()
        self.events[handle] = flags
        return handle

    def eventRecord(self, event: int, stream: int) -> None:
        assert stream in self.streams and event in self.events
        self._call("eventRecord", event, stream)

    def eventDestroy(self, event: int) -> None:
        self._call("eventDestroy", event)
        del self.events[event]

    def eventQuery(self, event: int) -> int:
        assert event in self.events
        if self.pending:
            self.pending -= 1
            return 600
        return self.fail.get("eventQuery", 0)

    def eventElapsedTime(self, start: int, end: int) -> float:
        assert self.events[start] == self.events[end] == 0, "events without times"
        return 2.0

    def memcpyAsync(self, dst: int, src: int, size: int, kind: int, stream: int) -> None:
        assert stream in self.streams
        self._call("memcpyAsync", dst, src, size, kind, stream)
        ctypes.memmove(dst, src, size)

    def memsetAsync(self, ptr: int, value: int, size: int, stream: int) -> None:
        assert stream in self.streams
        self._call("memsetAsync", ptr, value, size, stream)
        ctypes.memset(ptr, value, size)


def fake_cupy(devices: int = 1) -> ModuleType:
    """A module to stand in sys.modules["cupy"]. launches: (kernel, grid, block, words) of all launches."""
    cupy: Any = ModuleType("cupy")
    runtime = Runtime(devices)
    cupy.__version__ = "fake"
    cupy.launches = []
    cupy.compiled = []
    cupy.fail_compiling = None
    cupy.fail_launching = None

    class RawModule:
        def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
            self.code, self.options = code, options

        def get_function(self, name: str) -> Any:
            if cupy.fail_compiling is not None:
                raise cupy.fail_compiling
            assert f"{name}(" in self.code
            cupy.compiled.append((name, self.options))

            def function(grid: tuple, block: tuple, args: tuple, shared_mem: int = 0, stream: Any = None):
                assert shared_mem == 0 and stream.ptr in runtime.streams
                runtime.on_device()
                if cupy.fail_launching is not None:
                    raise cupy.fail_launching
                assert all(type(value) is np.uint64 for value in args)
                cupy.launches.append((name, grid, block, [int(value) for value in args]))

            return SimpleNamespace(kernel=function)

    cupy.RawModule = RawModule
    cupy.cuda = ModuleType("cupy.cuda")
    cupy.cuda.runtime = runtime
    cupy.cuda.compiler = ModuleType("cupy.cuda.compiler")
    cupy.cuda.compiler.CompileException = CompileException
    return cupy  # type: ignore[no-any-return]


def modules(cupy: Any) -> dict[str, Any]:
    """What sys.modules must hold for `import cupy` and `from cupy.cuda.compiler import ...`."""
    return {"cupy": cupy, "cupy.cuda": cupy.cuda, "cupy.cuda.compiler": cupy.cuda.compiler}
