# SPDX-License-Identifier: Apache-2.0
"""The window's executors, for tests that hold for all: the CPU's, and an emulated GPU's."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import pytest
from twinstamp_kernels.gpu import window as gpu_window
from twinstamp_kernels.window import Window

from tests.emulation.device import EmulatedDevice

EXECUTORS = ("cpu", "emulated GPU")


def each_executor(module: ModuleType, executor: str) -> Iterator[str]:
    """Lets `Window` in a test module be one on the executor, and undoes it: body of a module's fixture."""
    open_now: list[tuple[Window, EmulatedDevice]] = []

    def close(most: int) -> None:
        while len(open_now) > most:
            window, device = open_now.pop(0)
            assert window.backend == "gpu", window.backend_reason
            window.close()
            device.close()

    def emulated(**options: object) -> Window:
        close(4)
        device = EmulatedDevice(interval=100)
        window = Window(backend="gpu", device=device, **options)  # type: ignore[arg-type]
        open_now.append((window, device))
        return window

    with pytest.MonkeyPatch.context() as patch:
        if executor != "cpu":
            patch.setattr(module, "Window", emulated)
            # Batches of several chunks, and less memory to fill for each window.
            patch.setattr(gpu_window, "LEAST_CHUNK", 2048)
            patch.setattr(gpu_window, "MOST_CHUNK", 2048)
        yield executor
        close(0)
