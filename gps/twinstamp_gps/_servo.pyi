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
        other_q32: int = 0,
        moves: int = 0,
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

class Card:
    """The card's clock as native/card.h has it. Card time begins at 12345 units of 2^-32 s."""

    def __init__(self, model: dict[str, float], seed: int) -> None: ...
    def advance(self, dt_s: float) -> None: ...
    def write(
        self,
        *,
        increment_q72: int,
        load_delta_q32: int = 0,
        slew_amount_q64: int = 0,
        slew_step_q64: int = 0,
        flags: int = 0,
    ) -> None: ...
    def now_q32(self, second: int, ns: float) -> int: ...
    @property
    def slew_left_q64(self) -> int: ...

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
def fixed_add(a: int, b: int) -> tuple[int, bool]: ...
def fixed_mul_div(a: int, b: int, c: int) -> tuple[int, bool]: ...
def fixed_mul_shift(a: int, b: int, shift: int) -> tuple[int, bool]: ...
def fixed_sqrt(a: int) -> int: ...
