# SPDX-License-Identifier: Apache-2.0
"""States of a site's clock at instants of a run of the firmware's servo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    import numpy.typing as npt

SAMPLES_PER_S = 10
SETTLED_S = 600  # bursts begin here: the servo has locked and learned


@dataclass(frozen=True)
class SiteClock:
    """What disciplines a site: oscillator and receiver of ``twinstamp_gps.models``. seed: of their noise.

    ConfigError for a name that is not known.
    """

    oscillator: str
    receiver: str
    seed: int

    def __post_init__(self) -> None:
        from twinstamp_gps.models import OSCILLATORS, RECEIVERS

        for name, known in ((self.oscillator, OSCILLATORS), (self.receiver, RECEIVERS)):
            if name not in known:
                raise ConfigError(f"{name!r} is not known: give one of {', '.join(known)}")


@dataclass(frozen=True)
class ClockAt:
    """A clock at ``at_ns``, ns of TAI since the run's start.

    error_ns: card time − TAI. oscillator_ppb: the oscillator's true frequency, its white part left out. The
    others as the card's registers have them; bound_ns -1: unknown.
    """

    at_ns: int
    error_ns: float
    oscillator_ppb: float
    increment_q72: int
    slew_left_q64: int
    slew_step_q64: int
    bound_ns: int
    locked: bool


def instants(epochs: int, every_s: float, *, seed: int) -> npt.NDArray[np.int64]:
    """Samples of the servo's run at which bursts leave, i64[epochs].

    One in each ``every_s`` after SETTLED_S, at a random moment of its first half. ConfigError where they
    would be too near.
    """
    random = np.random.default_rng(seed)
    step = round(every_s * SAMPLES_PER_S)
    if epochs < 1 or step < 2:
        raise ConfigError(f"{epochs} bursts, one each {every_s:g} s: give at least one, 0.2 s apart or more")
    first = SETTLED_S * SAMPLES_PER_S + step * np.arange(epochs, dtype=np.int64)
    return first + random.integers(0, max(1, step // 2), epochs)


def clock_states(clock: SiteClock, samples: npt.NDArray[np.int64]) -> tuple[ClockAt, ...]:
    """The clock at these samples of its run, which begins cold: firmware/servo, compiled for this machine."""
    from twinstamp_gps.log import STATES
    from twinstamp_gps.models import OSCILLATORS, RECEIVERS
    from twinstamp_gps.simulation import Scenario, simulate

    seconds = int(samples[-1]) // SAMPLES_PER_S + 2
    scenario = Scenario(
        oscillator=OSCILLATORS[clock.oscillator],
        receiver=RECEIVERS[clock.receiver],
        seconds=seconds,
        samples_per_s=SAMPLES_PER_S,
    )
    run = simulate(scenario, clock.seed)
    locked = STATES.index("locked")

    def state(i: int) -> ClockAt:
        bound: Any = run.bound_ns[i]
        return ClockAt(
            at_ns=round((i + 0.5) * 10**9 / SAMPLES_PER_S),
            error_ns=float(run.true_error_ns[i]),
            oscillator_ppb=float(run.oscillator_ppb[i]),
            increment_q72=int(run.increment_q72[i]),
            slew_left_q64=int(run.slew_left_q64[i]),
            slew_step_q64=int(run.slew_step_q64[i]),
            bound_ns=int(bound) if np.isfinite(bound) else -1,
            locked=bool(run.state[i] == locked),
        )

    return tuple(state(i) for i in samples.tolist())
