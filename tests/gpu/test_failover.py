# SPDX-License-Identifier: Apache-2.0
"""A window's way from the GPU to the CPU: wherever the device fails, nothing shows but an event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twinstamp_kernels import backend
from twinstamp_kernels.gpu.device import DeviceFailure
from twinstamp_kernels.window import Window

from tests.gpu.fakes import FakeDevice, FakeDeviceWindow
from tests.gpu.short_streams import WINDOWS, batches
from tests.gpu.test_digests import SEED, name, same, without_memory

SIZES = [40, 0, 1, 90, 30]
CONSTRUCTION, PER_BATCH = 3, 3  # steps of the fake


@pytest.fixture(autouse=True)
def fake_windows(monkeypatch):
    """Device windows made of the CPU's, in the order in which they are made."""
    made: list[FakeDeviceWindow] = []

    def make(device: Any, options: dict[str, Any]) -> FakeDeviceWindow:
        made.append(FakeDeviceWindow(device, **options))
        return made[-1]

    monkeypatch.setattr(backend, "device_window", make)
    return made


def run(window: Window, stream: list[Any], digests: bool = False) -> list[Any]:
    out = []
    for batch in stream:
        data, offset, caplen, stamps, port, linktypes = batch
        if digests:
            found = window.digests(data, offset, caplen, port, linktypes)
            verdicts = window.process_digests(found, stamps, caplen)
        else:
            verdicts = window.process(*batch)
        out.append([np.array(column) for column in verdicts])
    return out


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("options", WINDOWS, ids=name)
def test_a_device_that_fails_at_any_step_changes_no_verdict_and_no_count(options, digests):
    stream = batches(21, SIZES)
    cpu = Window(**options, seed=SEED)
    expected = run(cpu, stream)
    steps = CONSTRUCTION + PER_BATCH * len(stream)
    for fail_at in (None, *range(1, steps + 1)):
        device, events = FakeDevice(fail_at), []
        window = Window(**options, seed=SEED, backend="gpu", device=device, warn=events.append)
        got = run(window, stream, digests)
        assert all(same(a, b) for a, b in zip(got, expected, strict=True)), fail_at
        assert without_memory(window.statistics()) == without_memory(cpu.statistics()), fail_at
        if fail_at is None:
            assert (window.backend, window.backend_reason) == ("gpu", "asked for; a device of the tests")
            assert device.steps == steps
            assert events == []
            continue
        assert window.backend == "cpu"
        frames = sum(SIZES[: max(0, fail_at - 1 - CONSTRUCTION) // PER_BATCH])
        when = "before the first frame" if fail_at <= CONSTRUCTION else f"after {frames} frames"
        assert events == [
            f"duplicates: the GPU (a device of the tests) failed {when}: the tests wanted it; "
            "the CPU goes on, with the same verdicts"
        ]
        assert window.events == events
        assert f"duplicates: {window.backend_reason}" == events[0].partition("; the CPU")[0]
        assert device.steps == fail_at, "asked again after it failed"


def test_a_window_that_moved_goes_on_with_several_workers():
    stream = batches(22, [60, 60, 60])
    cpu = Window(count=50, profile="nat", seed=SEED)
    window = Window(
        count=50, profile="nat", seed=SEED, workers=3, backend="gpu", device=FakeDevice(CONSTRUCTION + 4)
    )
    assert all(same(a, b) for a, b in zip(run(window, stream), run(cpu, stream), strict=True))
    assert without_memory(window.statistics()) == without_memory(cpu.statistics())


def test_mistakes_in_a_batch_are_the_callers_and_no_failure(fake_windows):
    events: list[str] = []
    window = Window(count=9, backend="gpu", device=FakeDevice(), warn=events.append)
    data, offset, caplen, *rest = batches(21, SIZES)[0]
    with pytest.raises(ValueError, match="frame 0 of the batch"):
        window.process(data, offset + np.uint64(2**40), caplen, *rest)
    assert (window.backend, events) == ("gpu", [])


def test_a_device_given_is_not_closed_and_one_opened_is(monkeypatch, fake_windows):
    given = FakeDevice()
    Window(count=9, backend="gpu", device=given).close()
    assert given.closed == 0
    opened = FakeDevice()
    monkeypatch.setattr(backend, "open_device", lambda: opened)
    window = Window(count=9, backend="gpu")
    window.close()
    assert opened.closed == 1
    assert all(made.closed for made in fake_windows)
    forgotten = FakeDevice()
    monkeypatch.setattr(backend, "open_device", lambda: forgotten)
    Window(count=9, backend="gpu")
    assert forgotten.closed == 1
    failing = FakeDevice(fail_at=CONSTRUCTION + 1)
    monkeypatch.setattr(backend, "open_device", lambda: failing)
    window = Window(count=9, backend="gpu")
    run(window, batches(21, SIZES))
    assert failing.closed == 1
    Window(count=9, backend="gpu", device=given)
    assert len(fake_windows) == 5
    assert all(made.closed for made in fake_windows), "also where nobody closed them"
    assert given.closed == 0


class Clock:
    """Seconds that pass only where somebody works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **cost_s: float) -> None:
        self.now = 0.0
        self.cost_s = cost_s
        monkeypatch.setattr(backend.time, "perf_counter", lambda: self.now)
        process = FakeDeviceWindow.process

        def slow(*args: Any, **options: Any) -> Any:
            self.now += cost_s["gpu"]
            return process(*args, **options)

        monkeypatch.setattr(FakeDeviceWindow, "process", slow)
        clock = self

        class Slow:
            def __init__(self, executor: Any) -> None:
                self._executor = executor

            def process(self, *arguments: Any) -> Any:
                clock.now += cost_s["cpu"]
                return self._executor.process(*arguments)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._executor, name)

        init = backend.SwitchingWindow.__init__

        def begin(window: Any, name: str, device: Any, on_cpu: Any, *rest: Any) -> None:
            init(window, name, device, lambda: Slow(on_cpu()), *rest)

        monkeypatch.setattr(backend.SwitchingWindow, "__init__", begin)


@pytest.mark.parametrize(("cpu_s", "gpu_s", "chosen"), [(0.003, 0.002, "gpu"), (0.002, 0.003, "cpu")])
def test_auto_takes_what_is_faster_on_the_first_frames(monkeypatch, cpu_s, gpu_s, chosen):
    Clock(monkeypatch, cpu=cpu_s, gpu=gpu_s)
    stream = batches(21, [0, 40, 90])
    expected = run(Window(count=50, seed=SEED), stream)
    events: list[str] = []
    window = Window(count=50, seed=SEED, backend="auto", device=FakeDevice(), warn=events.append)
    assert (window.backend, window.backend_reason) == ("auto", "not measured yet")
    assert window.statistics()["frames"] == 0
    got = run(window, stream[:1])
    assert window.backend == "auto", "an empty batch decides nothing"
    got += run(window, stream[1:])
    assert window.backend == chosen
    assert window.backend_reason == (
        f"measured on the first 40 frames: CPU {cpu_s * 1e3:g} ms, GPU {gpu_s * 1e3:g} ms "
        "(a device of the tests)"
    )
    assert all(same(a, b) for a, b in zip(got, expected, strict=True))
    assert window.statistics()["frames"] == 130, "measuring counts nothing"
    assert events == []


def test_auto_takes_the_cpu_where_a_device_fails_while_measured_or_later(monkeypatch):
    Clock(monkeypatch, cpu=0.003, gpu=0.002)
    stream = batches(21, [40, 90])
    cpu = Window(count=50, seed=SEED)
    expected = run(cpu, stream)
    measured = (1 + backend.RUNS) * (CONSTRUCTION + PER_BATCH)
    for fail_at in range(1, measured + CONSTRUCTION + 2 * PER_BATCH + 1):
        events: list[str] = []
        window = Window(count=50, seed=SEED, backend="auto", device=FakeDevice(fail_at), warn=events.append)
        got = run(window, stream)
        assert all(same(a, b) for a, b in zip(got, expected, strict=True)), fail_at
        assert without_memory(window.statistics()) == without_memory(cpu.statistics())
        assert window.backend == "cpu"
        assert len(events) == 1
        assert ("while it was measured" in events[0]) == (fail_at <= measured)


def test_auto_does_not_take_a_device_with_other_verdicts(monkeypatch):
    Clock(monkeypatch, cpu=0.003, gpu=0.002)

    def make(device: Any, options: dict[str, Any]) -> FakeDeviceWindow:
        window = FakeDeviceWindow(device, **options)
        window.wrong = True
        return window

    monkeypatch.setattr(backend, "device_window", make)
    events: list[str] = []
    window = Window(count=50, backend="auto", device=FakeDevice(), warn=events.append)
    run(window, batches(21, [40]))
    assert window.backend == "cpu"
    assert events == [
        "duplicates: the GPU (a device of the tests) does not give the CPU's verdicts and is not used: "
        "please report"
    ]


def test_a_machine_without_a_gpu_says_so_and_loads_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(backend, "_DEV", tmp_path)
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: pytest.fail("looked for CuPy"))
    with pytest.raises(
        ValueError, match=r"no GPU: no NVIDIA device on this machine .*; or use the backend cpu"
    ):
        Window(count=5, backend="gpu")
    window = Window(count=5, backend="auto")
    assert window.backend == "cpu"
    assert window.backend_reason.startswith("no GPU: no NVIDIA device on this machine")
    assert list(window.process(*batches(21, SIZES)[0]).keep)


@pytest.mark.parametrize("node", ["nvidiactl", "nvidia0", "dxg"])
def test_a_machine_without_cupy_says_what_to_install(monkeypatch, tmp_path, node):
    (tmp_path / node).touch()
    monkeypatch.setattr(backend, "_DEV", Path(tmp_path))
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"CuPy is not installed: pip install 'twinstamp\[gpu\]'"):
        Window(count=5, backend="gpu")


def test_a_device_that_cannot_be_opened_is_none(monkeypatch, tmp_path):
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(backend, "_DEV", tmp_path)
    monkeypatch.setattr(backend.importlib.util, "find_spec", lambda name: object())

    def refuse() -> None:
        raise DeviceFailure("cudaErrorInsufficientDriver")

    monkeypatch.setattr(backend, "_cuda_device", refuse)
    with pytest.raises(backend.NoDevice, match="no GPU: cudaErrorInsufficientDriver"):
        backend.open_device()

    def absent() -> None:
        raise ImportError("libnvrtc.so.13")

    monkeypatch.setattr(backend, "_cuda_device", absent)
    with pytest.raises(backend.NoDevice, match=r"CuPy cannot be loaded: libnvrtc\.so\.13"):
        backend.open_device()


def test_unknown_backends_are_refused():
    with pytest.raises(ValueError, match="unknown backend 'tpu': choose one of cpu, gpu, auto"):
        Window(count=5, backend="tpu")
