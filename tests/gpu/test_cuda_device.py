# SPDX-License-Identifier: Apache-2.0
"""CudaDevice where there is no GPU: its own logic over a FAKE of CuPy (fake_cupy.py), the real CuPy's names
and parameters, and NVRTC, which compiles without a GPU. On a GPU: `make gpu-check`."""

from __future__ import annotations

import ast
import ctypes
import gc
import inspect
import re
import sys
import threading

import numpy as np
import pytest
from twinstamp_kernels.gpu import cuda
from twinstamp_kernels.gpu.cuda import CudaDevice, compile_options, kernels_of
from twinstamp_kernels.gpu.device import DeviceFailure

from tests.gpu import fake_cupy

SOURCE = """
// extern "C" __global__ void commented_out(int a)
#include "twinstamp/platform.h"
extern "C" __global__ void nothing() {}
extern "C" __global__ void __launch_bounds__(256) three(const unsigned char* a, /* , */
                                                        twinstamp::u64 n, twinstamp::i64 t) {}
"""
CU_FILES = sorted(cuda.SOURCES.glob("*.cu"))


@pytest.fixture
def sources(tmp_path):
    (tmp_path / "some.cu").write_text(SOURCE)
    (tmp_path / "other.cu").write_text('extern "C" __global__ void other(unsigned long long* p) { *p = 1; }')
    return tmp_path


@pytest.fixture
def fake(monkeypatch):
    module = fake_cupy.fake_cupy()
    for name, value in fake_cupy.modules(module).items():
        monkeypatch.setitem(sys.modules, name, value)
    return module


@pytest.fixture
def device(fake, sources):
    return CudaDevice(0, sources=sources, time_limit=0.2)


def test_kernels_are_found_in_the_text():
    assert kernels_of(SOURCE) == {"nothing": 0, "three": 3}


def test_a_changed_header_changes_the_options(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.h").write_text("1")
    before = compile_options(tmp_path)
    (tmp_path / "a" / "x.h").write_text("2")
    assert compile_options(tmp_path) != before
    assert re.fullmatch(r"-DTWINSTAMP_SOURCES=0x[0-9a-f]{16}", before[-1])


def test_bytes_go_there_and_back(device, fake):
    runtime = fake.cuda.runtime
    stream = device.stream()
    address = device.allocate(1000)
    assert ("malloc", 1016) in runtime.calls  # 16 readable bytes behind
    host = device.pinned(1000)
    host[:] = np.arange(1000) % 251
    device.upload(address, host, stream)
    device.fill(address + 10, 0xFF, 5, stream)
    back = np.zeros(1000, np.uint8)
    device.download(back, address, stream)
    device.synchronize(device.record(stream))
    expected = host.copy()
    expected[10:15] = 0xFF
    assert np.array_equal(back, expected)
    kinds = [call[4] for call in runtime.calls if call[0] == "memcpyAsync"]
    assert kinds == [runtime.memcpyHostToDevice, runtime.memcpyDeviceToHost]
    device.upload(address, host[:0], stream)  # nothing to do is nothing to the driver
    device.fill(address, 0, 0, stream)
    assert len(runtime.calls) == len([c for c in runtime.calls if c[0] != "memcpyAsync"]) + 2
    device.free(address)
    assert not runtime.memory


def test_pinned_memory_lives_as_long_as_a_view_of_it(device, fake):
    host = device.pinned(64)
    view = host[8:16].view(np.uint64)
    assert device.is_pinned(host) and device.is_pinned(view) and not device.is_pinned(view.copy())
    del host
    gc.collect()
    assert fake.cuda.runtime.host
    view[0] = 5
    del view
    gc.collect()
    assert not fake.cuda.runtime.host
    assert len(device.pinned(0)) == 0


def test_arguments_are_eight_bytes_each(device, fake):
    stream = device.stream()
    device.launch("three", 7, (2**64 - 1, np.int64(5), np.int64(-(2**63))), stream)
    device.launch("nothing", 1, (), stream)
    device.launch("three", 0, (1, 2, 3), stream)
    assert fake.launches == [
        ("three", (7, 1, 1), (256, 1, 1), [2**64 - 1, 5, 2**63]),
        ("nothing", (1, 1, 1), (256, 1, 1), []),
    ]
    with pytest.raises(ValueError, match="takes 3 arguments, 2 given"):
        device.launch("three", 1, (1, 2), stream)
    with pytest.raises(ValueError, match="no kernel 'four'"):
        device.launch("four", 1, (), stream)
    with pytest.raises(ValueError, match="2147483648 blocks"):
        device.launch("nothing", 2**31, (), stream)
    assert [name for name, _ in fake.compiled] == ["three", "nothing"]  # when first launched, and once
    assert device.failure is None


def test_every_thread_gets_the_device(device):
    stream = device.stream()
    failures = []

    def work():
        try:
            device.free(device.allocate(10))
            device.launch("nothing", 1, (), stream)
            device.synchronize(device.record(stream))
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failures


def test_other_device_is_chosen(fake, sources):
    fake.cuda.runtime.devices = 3
    device = CudaDevice(2, sources=sources)
    device.allocate(1)
    assert fake.cuda.runtime.current[threading.get_ident()] == 2
    with pytest.raises(DeviceFailure, match="no GPU 3: this machine has 3"):
        CudaDevice(3, sources=sources)


def test_streams_and_events_end_with_their_objects(device, fake):
    runtime = fake.cuda.runtime
    stream, second = device.stream(), device.stream()
    event = device.record(stream)
    device.wait(second, event)
    assert runtime.events[event.ptr] == runtime.eventDisableTiming
    del event, stream, second
    gc.collect()
    assert not runtime.events and not runtime.streams


def test_timing(fake, sources):
    device = CudaDevice(0, sources=sources, timing=True)
    stream = device.stream()
    assert device.elapsed(device.record(stream), device.record(stream)) == 0.002


def test_waits_until_done(device, fake):
    fake.cuda.runtime.pending = 50
    device.synchronize(device.record(device.stream()))
    assert fake.cuda.runtime.pending == 0


def test_a_device_that_hangs_is_left_alone(device, fake):
    runtime = fake.cuda.runtime
    address = device.allocate(10)
    pinned = device.pinned(10)
    event = device.record(device.stream())
    runtime.pending = 10**9
    with pytest.raises(DeviceFailure, match=r"waiting for the device failed: not done after 0\.2"):
        device.synchronize(event)
    runtime.calls.clear()
    del pinned
    device.free(address)
    device.close()
    # Freeing memory would wait for the kernel that hangs.
    assert not [call for call in runtime.calls if call[0] in ("free", "freeHost")]


@pytest.mark.parametrize(
    ("function", "call", "words"),
    [
        ("malloc", lambda d, s: d.allocate(12345), "allocating 12,345 bytes failed"),
        ("hostAlloc", lambda d, s: d.pinned(1024), "allocating 1,024 bytes of page-locked host memory"),
        ("streamCreateWithFlags", lambda d, s: d.stream(), "making a stream"),
        ("memcpyAsync", lambda d, s: d.upload(0, np.zeros(9), s), "copying 72 bytes"),
        ("memcpyAsync", lambda d, s: d.download(np.zeros(9), 0, s), "copying 72 bytes"),
        ("memsetAsync", lambda d, s: d.fill(0, 0, 7, s), "filling 7 bytes"),
        ("eventCreateWithFlags", lambda d, s: d.record(s), "recording an event"),
        ("eventRecord", lambda d, s: d.record(s), "recording an event"),
        ("eventQuery", lambda d, s: d.synchronize(d.record(s)), "waiting for the device"),
        ("streamWaitEvent", lambda d, s: d.wait(s, d.record(s)), "waiting for an event"),
    ],
)
def test_every_error_is_a_device_failure_that_says_what(device, fake, function, call, words):
    stream = device.stream()
    kept = device.allocate(10)
    fake.cuda.runtime.fail[function] = 700
    with pytest.raises(DeviceFailure, match=rf"^Fake: {words}.*cudaErrorIllegalAddress"):
        call(device, stream)
    fake.cuda.runtime.fail.clear()
    with pytest.raises(DeviceFailure, match=r"failed before: .*cudaErrorIllegalAddress"):
        device.allocate(1)
    device.free(kept)
    device.close()
    device.close()


def test_want_of_memory_leaves_the_device_usable(device, fake):
    fake.cuda.runtime.fail["malloc"] = 2
    with pytest.raises(DeviceFailure, match="cudaErrorMemoryAllocation"):
        device.allocate(1 << 50)
    fake.cuda.runtime.fail.clear()
    device.free(device.allocate(1))


@pytest.mark.parametrize(
    ("error", "usable"),
    [
        (fake_cupy.CompileException("x.cu(3): error: expected a ;"), True),
        (fake_cupy.CUDADriverError("CUDA_ERROR_NO_BINARY_FOR_GPU"), False),
        (OSError("libnvrtc.so.13: cannot open shared object file"), False),
    ],
)
def test_kernels_that_cannot_be_had(device, fake, error, usable):
    fake.fail_compiling = error
    stream = device.stream()
    with pytest.raises(
        DeviceFailure, match=rf"compiling and loading nothing failed: {re.escape(str(error))}"
    ):
        device.launch("nothing", 1, (), stream)
    assert (device.failure is None) == usable


def test_a_launch_that_fails(device, fake):
    fake.fail_launching = fake_cupy.CUDADriverError("CUDA_ERROR_LAUNCH_FAILED")
    with pytest.raises(DeviceFailure, match="launching nothing on 3 blocks failed: CUDA_ERROR_LAUNCH_FAILED"):
        device.launch("nothing", 3, (), device.stream())


def test_errors_while_freeing_do_not_raise(device, fake):
    runtime = fake.cuda.runtime
    first, second, event = device.allocate(1), device.allocate(1), device.record(device.stream())
    runtime.fail |= {"free": 700, "eventDestroy": 700, "freeHost": 700}
    pinned = device.pinned(5)
    del event, pinned
    device.free(first)
    device.free(second)
    device.close()
    assert "cudaErrorIllegalAddress" in device.failure


def test_close_gives_everything_back(device, fake):
    device.allocate(1)
    device.allocate(2)
    device.close()
    assert not fake.cuda.runtime.memory
    with pytest.raises(DeviceFailure, match="the device is closed"):
        device.allocate(1)


def test_host_arrays_are_checked(device):
    stream, address = device.stream(), device.allocate(100)
    with pytest.raises(ValueError, match="contiguous"):
        device.upload(address, np.zeros(20)[::2], stream)
    fixed = np.zeros(2)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        device.download(fixed, address, stream)


def test_no_gpu_no_cupy(fake, sources, monkeypatch):
    fake.cuda.runtime.devices = 0
    with pytest.raises(DeviceFailure, match="no GPU: cudaErrorNoDevice"):
        CudaDevice(0, sources=sources)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(DeviceFailure, match=r"CuPy cannot be imported \(pip install 'twinstamp\[gpu\]'\)"):
        CudaDevice(0, sources=sources)


# The real CuPy, as it is installed.


def used(name: str) -> list[tuple[str, int | None]]:
    """(attribute, number of arguments where it is called) of all uses of self.<name>.<attribute>."""
    found = []
    tree = ast.parse(inspect.getsource(cuda))
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Attribute)
            and node.value.attr == name
        ):
            call = calls.get(id(node))
            found.append((node.attr, None if call is None else len(call.args)))
    return found


@pytest.fixture
def cupy():
    return pytest.importorskip("cupy", reason="CuPy is not installed (extra gpu)")


def test_the_real_runtime_has_what_is_used(cupy):
    runtime = cupy.cuda.runtime
    uses = used("_runtime")
    assert len(uses) > 20
    for attribute, arguments in uses:
        real = getattr(runtime, attribute)
        signature = (getattr(real, "__doc__", None) or "").split("\n")[0]
        if arguments is None or not signature.startswith(f"{attribute}("):
            continue
        parameters = [p for p in signature.partition("(")[2].rpartition(")")[0].split(",") if p.strip()]
        needed = sum("=" not in p for p in parameters)
        assert needed <= arguments <= len(parameters), (attribute, signature, arguments)
    assert issubclass(runtime.CUDARuntimeError, RuntimeError)
    assert "cudaErrorIllegalAddress" in str(runtime.CUDARuntimeError(700))
    assert "cudaErrorNotReady" in str(runtime.CUDARuntimeError(cuda.NOT_READY))
    assert runtime.CUDARuntimeError(cuda.OUT_OF_MEMORY).status == 2
    assert "cudaErrorMemoryAllocation" in str(runtime.CUDARuntimeError(cuda.OUT_OF_MEMORY))


def test_the_fake_has_the_constants_of_the_real_one(cupy):
    for attribute, arguments in used("_runtime"):
        real = getattr(cupy.cuda.runtime, attribute)
        if arguments is None and isinstance(real, int):
            assert getattr(fake_cupy.Runtime, attribute) == real


def test_the_real_driver_and_compiler_errors_are_caught(cupy):
    from cupy.cuda.compiler import CompileException
    from cupy_backends.cuda.api.driver import CUDADriverError
    from cupy_backends.cuda.libs.nvrtc import NVRTCError

    assert issubclass(CompileException, Exception)
    assert issubclass(CUDADriverError, RuntimeError) and issubclass(NVRTCError, RuntimeError)
    assert issubclass(cupy.cuda.memory.OutOfMemoryError, MemoryError)


def test_the_real_raw_module_takes_text_and_options(cupy, sources):
    module = cupy.RawModule(code=SOURCE, options=compile_options())
    assert module.options == compile_options() and module.backend == "nvrtc"
    kernel = cupy.RawKernel(SOURCE, "three", compile_options())
    assert isinstance(type(kernel).kernel, type(type(kernel).num_regs))  # a property: compiled, loaded
    assert {"ptr", "module"} <= set(dir(cupy.cuda.Function)) and callable(cupy.cuda.Function.__call__)


@pytest.mark.parametrize("value", [0, 1, 2**32 + 5, 2**63, 2**64 - 1])
def test_the_real_cupy_hands_scalars_over_as_eight_bytes(cupy, value):
    """What CuPy makes of a NumPy scalar among a kernel's arguments: a pointer to its bytes."""
    from cupy._core._scalar import CScalar

    packed = CScalar(np.uint64(value))
    assert packed.get_numpy_type() is np.uint64 or np.dtype(packed.get_numpy_type()) == np.uint64
    assert int.from_bytes(ctypes.string_at(packed.ptr, 8), "little") == value


def nvrtc_compile(source: str, arch: str, options: tuple[str, ...]) -> tuple[bytes, str]:
    """(cubin, log) with the options CuPy 14 adds to ours."""
    from cupy_backends.cuda.libs import nvrtc

    program = nvrtc.createProgram(source, "kernel.cu", (), ())
    extra = ("-ftz=true", "--device-as-default-execution-space", f"-arch=sm_{arch}")
    try:
        nvrtc.compileProgram(program, (*options, *extra))
        return nvrtc.getCUBIN(program), nvrtc.getProgramLog(program)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


@pytest.mark.parametrize("arch", ["75", "90"])
@pytest.mark.parametrize("path", [None, *CU_FILES], ids=lambda p: p.name if p else "some.cu")
def test_nvrtc_compiles_with_these_very_options(cupy, path, arch):
    source = SOURCE if path is None else path.read_text()
    cubin, log = nvrtc_compile(source, arch, compile_options())
    assert "error" not in log
    named = {name.decode() for name in re.findall(rb"\.text\.(\w+)\0", cubin)}
    assert named == set(kernels_of(source))


def test_without_a_gpu_the_real_one_says_so(cupy):
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        with pytest.raises(DeviceFailure, match="no GPU: cudaError"):
            CudaDevice()
    else:
        assert CudaDevice().describe()["name"]
