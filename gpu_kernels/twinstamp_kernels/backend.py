# SPDX-License-Identifier: Apache-2.0
"""Where a stage runs: the CPU or a GPU, by wish or by measurement, and the CPU from where the GPU fails.

docs/gpu.md has the rules. NumPy, CuPy and the driver are loaded only once a device is at hand.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinstamp_kernels import _cpu
    from twinstamp_kernels.gpu.device import Device
    from twinstamp_kernels.gpu.staging import ResidentFrames
    from twinstamp_kernels.gpu.statistics import RawStatistics

_Judge = Callable[[Any], tuple[Any, ...]]  # has frames judged by an executor

RUNS = 3  # timed ones, behind one that is not
# What the driver leaves in /dev: on a PC, under WSL 2, on Jetson boards.
_DEVICE_NODES = ("nvidiactl", "nvidia[0-9]*", "dxg", "nvhost-gpu", "nvgpu")
_DEV = Path("/dev")


class NoDevice(ValueError):  # noqa: N818
    """This machine has no usable GPU; the message says why, and what to do."""


def open_device() -> Device:
    """The first CUDA device. Raises NoDevice; without a device node it loads nothing to find out."""
    if not any(next(_DEV.glob(pattern), None) for pattern in _DEVICE_NODES):
        raise NoDevice("no GPU: no NVIDIA device on this machine (its driver would have made /dev/nvidia*)")
    if importlib.util.find_spec("cupy") is None:
        raise NoDevice("no GPU: CuPy is not installed: pip install 'twinstamp[gpu]'")
    from twinstamp_kernels.gpu.device import DeviceFailure

    try:
        return _cuda_device()
    except ImportError as error:
        raise NoDevice(f"no GPU: CuPy cannot be loaded: {error}") from error
    except DeviceFailure as error:
        why = str(error)
        raise NoDevice(why if why.startswith("no GPU") else f"no GPU: {why}") from error


def _cuda_device() -> Device:
    from twinstamp_kernels.gpu.cuda import CudaDevice

    device = CudaDevice()
    device.compile()  # now, and not while frames wait; a driver too old for it is found here
    return device


def device_window(device: Device, options: Mapping[str, Any]) -> Any:
    """A DeviceWindow. Raises DeviceFailure."""
    from twinstamp_kernels.gpu.window import DeviceWindow

    return DeviceWindow(device, **options)


def device_classifier(device: Device, cpu: _cpu.Classifier) -> Any:
    """A DeviceClassifier in front of `cpu`. Raises DeviceFailure."""
    from twinstamp_kernels.gpu.classifier import DeviceClassifier

    return DeviceClassifier(device, cpu)


class Switch:
    """Which executor a stage uses, and why. stage: what to call it where the device fails.

    name: "cpu", "gpu", or "auto" as long as nothing is measured. reason: in words. events: what a person
    should know, each told once, to `warn` too.

    Raises NoDevice for "gpu" on a machine without one.
    """

    def __init__(
        self, stage: str, backend: str, device: Device | None, warn: Callable[[str], None] | None
    ) -> None:
        self.events: list[str] = []
        self.stage = stage
        self._warn = warn
        self.name = backend
        self.reason = "not measured yet"
        self._opened = False  # by us: to be closed by us
        if device is None:
            try:
                device = open_device()
                self._opened = True
            except NoDevice as error:
                if backend == "gpu":
                    raise NoDevice(f"{error}; or use the backend cpu") from error
                self.name, self.reason = "cpu", str(error)
        self._device = device
        if self.name == "gpu":
            self.reason = f"asked for; {self.device_name}"

    @property
    def device(self) -> Device:
        assert self._device is not None, "asked for on the CPU"
        return self._device

    @property
    def device_name(self) -> str:
        return "none" if self._device is None else self._device.name

    def tell(self, event: str) -> None:
        self.events.append(event)
        if self._warn is not None:
            self._warn(event)

    def failed(self, error: Exception, after: str) -> None:
        """The device is of no use any more: notes why, and lets go of it."""
        self.name = "cpu"
        self.reason = f"the GPU ({self.device_name}) failed {after}: {error}"
        self.close()
        self.tell(f"{self.stage}: {self.reason}; the CPU goes on, with the same verdicts")

    def chosen(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        if name == "cpu":
            self.close()

    def close(self) -> None:
        """Gives the device back where it was opened here."""
        if self._opened and self._device is not None:
            self._device.close()
        self._opened = False
        self._device = None

    def __del__(self) -> None:
        if getattr(self, "_opened", False):
            self.close()


class _Switching:
    """What the executors that may change places have in common: their switch, to be looked at."""

    _switch: Switch
    _gpu: Any = None  # the executor on the device, as long as that is used

    @property
    def name(self) -> str:
        return self._switch.name

    @property
    def reason(self) -> str:
        return self._switch.reason

    @property
    def events(self) -> list[str]:
        return self._switch.events

    def close(self) -> None:
        """Gives back what lies on the device, and the device where it was opened here."""
        if self._gpu is not None:
            self._gpu.close()
        self._switch.close()

    def __del__(self) -> None:
        if "_switch" in self.__dict__:  # there was a device, or none was needed
            self.close()


def measure(
    switch: Switch,
    on_cpu: Callable[[], tuple[Any, float]],
    on_gpu: Callable[[], tuple[Any, float]],
    size: int,
) -> None:
    """Decides a switch that stands on "auto". Each callable does a run of its own and gives (what came of it,
    a sequence of arrays; seconds). size: frames of a run. A device that fails or differs loses."""
    from twinstamp_kernels.gpu.device import DeviceFailure

    try:
        (expected, _), (got, _) = on_cpu(), on_gpu()
        if not _equal(expected, got):
            reason = f"the GPU ({switch.device_name}) does not give the CPU's verdicts"
            switch.tell(f"{switch.stage}: {reason} and is not used: please report")
            switch.chosen("cpu", reason)
            return
        cpu_s, gpu_s = (sorted(run()[1] for _ in range(RUNS))[RUNS // 2] for run in (on_cpu, on_gpu))
    except DeviceFailure as error:
        switch.failed(error, "while it was measured")
        return
    switch.chosen(
        "gpu" if gpu_s < cpu_s else "cpu",
        f"measured on the first {size} frames: CPU {cpu_s * 1e3:.3g} ms, GPU {gpu_s * 1e3:.3g} ms "
        f"({switch.device_name})",
    )


def _timed(judge: _Judge, executor: Any) -> tuple[Any, float]:
    begin = time.perf_counter()
    verdicts = judge(executor)
    return verdicts, time.perf_counter() - begin


def _equal(left: Any, right: Any) -> bool:
    import numpy as np

    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(left, right, strict=True))


class SwitchingWindow(_Switching):
    """The executor behind Window for "gpu" and "auto": a DeviceWindow, or from some frame on a _cpu.Window.

    on_cpu: makes a fresh CPU executor. options: of the DeviceWindow.
    """

    def __init__(
        self,
        backend: str,
        device: Device | None,
        on_cpu: Callable[[], _cpu.Window],
        options: Mapping[str, Any],
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._switch = Switch("duplicates", backend, device, warn)
        self._on_cpu = on_cpu
        self._options = options
        self._cpu: _cpu.Window | None = None
        self._begin()

    def _begin(self) -> None:
        """Makes the executor, where it is decided which one."""
        if self.name == "gpu":
            from twinstamp_kernels.gpu.device import DeviceFailure

            try:
                self._gpu = device_window(self._switch.device, self._options)
            except DeviceFailure as error:
                self._switch.failed(error, "before the first frame")
        if self.name == "cpu":
            self._cpu = self._on_cpu()

    def process(
        self,
        data: Any,
        offset: Any,
        caplen: Any,
        timestamp_ns: Any,
        port: Any,
        linktypes: Any,
        details: bool,
    ) -> tuple[Any, ...]:
        columns = (data, offset, caplen, timestamp_ns, port, linktypes)
        return self._run(
            len(timestamp_ns),
            lambda cpu: cpu.process(*columns, details),
            lambda gpu: gpu.process(*columns, details=details),
        )

    def process_keys(
        self,
        key: Any,
        second: Any,
        two: Any,
        tags: Any,
        frame_class: Any,
        timestamp_ns: Any,
        caplen: Any,
        details: bool,
    ) -> tuple[Any, ...]:
        keys = (key, second, two, tags, frame_class, timestamp_ns, caplen)
        # Not looked at on the GPU, and a mistake there as well.
        profile = self._options["profile"]
        tagged, nat = profile != "exact", profile == "nat"
        for name, column, has in (("second", second, nat), ("two", two, nat), ("tags", tags, tagged)):
            if column is not None and not has:
                raise ValueError(f"{name} is given: keys of this window have none")
        return self._run(
            len(timestamp_ns),
            lambda cpu: cpu.process_keys(*keys, details),
            lambda gpu: gpu.process_keys(*keys, details=details),
        )

    def _run(self, frames: int, on_cpu: _Judge, on_gpu: _Judge) -> tuple[Any, ...]:
        if self.name == "auto" and frames:
            self._measure(frames, on_cpu, on_gpu)
            self._begin()
        if self._gpu is not None:
            from twinstamp_kernels.gpu.device import DeviceFailure

            try:
                return on_gpu(self._gpu)
            except DeviceFailure as error:
                self._fall_back(error)
        return on_cpu(self._on_cpu() if self._cpu is None else self._cpu)  # None: "auto", and no frame yet

    def _measure(self, frames: int, on_cpu: _Judge, on_gpu: _Judge) -> None:
        def run_gpu() -> tuple[Any, float]:
            executor = device_window(self._switch.device, self._options)
            try:
                return _timed(on_gpu, executor)
            finally:
                executor.close()

        measure(self._switch, lambda: _timed(on_cpu, self._on_cpu()), run_gpu, frames)

    def _fall_back(self, error: Exception) -> None:
        """The batch that failed was not judged: the CPU takes over where the one before it ended."""
        state, counts = self._gpu.state(), self._gpu.statistics()
        cpu = self._on_cpu()
        cpu.restore(state.index, state.key, state.second, state.two, state.tags, state.timestamp_ns)
        cpu.add_statistics(counts.counts())
        self._cpu = cpu
        self._gpu.close()
        self._gpu = None
        self._switch.failed(error, f"after {state.index} frames")

    @property
    def frames(self) -> ResidentFrames | None:
        """The frames of the last batch where they lie on the device."""
        return None if self._gpu is None else self._gpu.frames

    def statistics(self) -> dict[str, Any]:
        if self._gpu is not None:
            counts: RawStatistics = self._gpu.statistics()
            return counts.as_dict()
        return (self._on_cpu() if self._cpu is None else self._cpu).statistics()


class SwitchingClassifier(_Switching):
    """The executor behind twinstamp.balance.Classifier for "gpu" and "auto": `cpu`, a _cpu.Classifier, with
    or without a DeviceClassifier in front of it.

    Fragments, held frames, counters, actions and server tables are those of `cpu` either way, so that it can
    go on with any batch. another: makes one more classifier of the same rules, for measuring.
    """

    def __init__(
        self,
        backend: str,
        device: Device | None,
        cpu: _cpu.Classifier,
        another: Callable[[], _cpu.Classifier],
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self._switch = Switch("rules and balance", backend, device, warn)
        self._cpu = cpu
        self._another = another
        self._frames = 0
        self._actions: tuple[Any, ...] = ()
        self._servers: tuple[Any, ...] = ()
        self._begin()

    def _begin(self) -> None:
        if self.name == "gpu":
            from twinstamp_kernels.gpu.device import DeviceFailure

            try:
                self._gpu = device_classifier(self._switch.device, self._cpu)
            except DeviceFailure as error:
                self._switch.failed(error, "before the first frame")

    def process(self, *columns: Any, frames: ResidentFrames | None = None) -> tuple[memoryview, ...]:
        """frames: these, where they lie on a device already."""
        n = len(columns[2])
        if self.name == "auto" and n:
            self._measure(columns, frames)
            self._begin()
        verdicts = self._judge(columns, frames)
        self._frames += n
        late = None if self._gpu is None else self._gpu.failure
        if late is not None:
            self._give_up(late)
        return verdicts

    def _give_up(self, error: Exception) -> None:
        self._gpu.close()
        self._gpu = None
        self._switch.failed(error, f"after {self._frames} frames")

    def _judge(self, columns: tuple[Any, ...], frames: ResidentFrames | None) -> tuple[memoryview, ...]:
        if self._gpu is not None:
            from twinstamp_kernels.gpu.device import DeviceFailure

            try:
                verdicts: tuple[memoryview, ...] = self._gpu.process(*columns, frames=frames)
                return verdicts
            except DeviceFailure as error:
                self._give_up(error)
        return self._cpu.process(*columns)

    def _measure(self, columns: tuple[Any, ...], frames: ResidentFrames | None) -> None:
        """One classifier each for all runs: compiling rules takes long, and traffic repeats its flows."""
        from twinstamp_kernels.gpu.device import DeviceFailure

        def ready() -> _cpu.Classifier:
            made = self._another()
            if self._actions:
                made.set_actions(*self._actions)
            if self._servers:
                made.set_servers(*self._servers)
            return made

        try:
            gpu = device_classifier(self._switch.device, ready())
        except DeviceFailure as error:
            self._switch.failed(error, "while it was measured")
            return
        cpu = ready()
        try:
            measure(
                self._switch,
                lambda: _timed(lambda executor: executor.process(*columns), cpu),
                lambda: _timed(lambda executor: executor.process(*columns, frames=frames), gpu),
                len(columns[2]),
            )
        finally:
            gpu.close()

    def set_actions(self, *columns: Any) -> None:
        self._cpu.set_actions(*columns)
        self._actions = columns

    def set_servers(self, *columns: Any) -> None:
        self._cpu.set_servers(*columns)
        self._servers = columns

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cpu, name)
