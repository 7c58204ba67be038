# SPDX-License-Identifier: Apache-2.0
from typing import Any

import numpy as np
import numpy.typing as npt

class Servo:
    """The firmware's servo (firmware/servo/servo.h). ValueError for settings that it refuses."""

    def __init__(self, config: dict[str, int] = ...) -> None: ...
    def step(
        self,
        *,
        now_q32: int,
        pulse_q32: int = 0,
        slew_left_q64: int = 0,
        tai_s: int = 0,
        qerr_ps: int = 0,
        accuracy_ns: int = 0,
        flags: int = 0,
    ) -> dict[str, int]: ...
    def state(self) -> bytes: ...

class Oscillator:
    def __init__(self, model: dict[str, float], seed: int) -> None: ...
    def advance(self, dt_s: float) -> float: ...
    def phase_ns(self, dt_s: float, n: int) -> npt.NDArray[np.float64]: ...
    @property
    def frequency_ppb(self) -> float: ...
    @property
    def temperature_c(self) -> float: ...

class Receiver:
    def __init__(self, model: dict[str, float], seed: int) -> None: ...
    def next(self) -> tuple[float, int, float]: ...

def simulate(
    *,
    oscillator: dict[str, float],
    receiver: dict[str, float],
    config: dict[str, int],
    faults: list[tuple[int, float, float, float]],
    seconds: float,
    seed: int,
    samples_per_s: int = 10,
) -> dict[str, Any]: ...
def default_config() -> dict[str, int]: ...
