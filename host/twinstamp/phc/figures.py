# SPDX-License-Identifier: Apache-2.0
"""Runs of the discipline against the stand-in, with the truth: figures as `twinstamp clock simulate` has
them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from twinstamp_gps.analysis import statistics
from twinstamp_gps.models import OSCILLATORS, RECEIVERS, OscillatorModel, servo_settings
from twinstamp_gps.simulated import SimulatedReceiver
from twinstamp_gps.simulation import HOLDOVER_MARKS_S, SETTLED_S

from twinstamp.errors import ConfigError
from twinstamp.phc.discipline import Discipline, PinPulses, Step
from twinstamp.phc.record import STATES, ClockRecord
from twinstamp.phc.standin import NICS, StandIn

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt
    from twinstamp_gps.faults import Fault

_SAMPLES_PER_S = 10
_OFFSET_S = 0.05  # samples stand between the seconds' tenths


@dataclass(frozen=True, kw_only=True)
class Scene:
    """nic: of NICS. oscillator: of twinstamp_gps.models, or a model. receiver: f9t, m8t or nmea. told: the
    servo is told of oscillator and receiver. settings: of the servo, over those."""

    nic: str = "i226"
    oscillator: str | OscillatorModel = "tcxo"
    receiver: str = "f9t"
    seconds: float = 3600
    faults: Sequence[Fault] = ()
    told: bool = False
    settings: dict[str, int] | None = None

    def servo(self) -> dict[str, int]:
        """Settings of the servo that are not its defaults."""
        told = {}
        if self.told:
            model = self.oscillator
            told = servo_settings(
                OSCILLATORS[model] if isinstance(model, str) else model,
                RECEIVERS["m8t" if self.receiver == "nmea" else self.receiver],
            )
        return told | (self.settings or {})


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Samples of one run, 10 a second: t_s since the start, PHC - TAI, the published bound (nan where none
    held then), the published state and epoch."""

    t_s: npt.NDArray[np.float64]
    true_error_ns: npt.NDArray[np.float64]
    bound_ns: npt.NDArray[np.float64]
    state: npt.NDArray[np.int64]
    epoch: npt.NDArray[np.int64]


def parts(text: str) -> tuple[str, str, str]:
    """NIC, oscillator and receiver of "i226,tcxo,f9t". ConfigError for others."""
    words = text.split(",")
    receivers = (*RECEIVERS, "nmea")
    known: tuple[Collection[str], ...] = (NICS, OSCILLATORS, receivers)
    if len(words) != 3 or any(word not in names for word, names in zip(words, known, strict=True)):
        raise ConfigError(
            f"--simulate {text}: give NIC,OSCILLATOR,RECEIVER of {', '.join(NICS)}; "
            f"{', '.join(OSCILLATORS)}; {', '.join(receivers)}"
        )
    return words[0], words[1], words[2]


def run(
    scene: Scene,
    seed: int,
    *,
    on_step: Callable[[Step], None] = lambda step: None,
    prepare: Callable[[StandIn], None] = lambda standin: None,
) -> Figures:
    """The discipline on a stand-in. prepare: called with it before the start."""
    receiver = SimulatedReceiver(scene.receiver, seed=seed, faults=scene.faults)
    model = OSCILLATORS[scene.oscillator] if isinstance(scene.oscillator, str) else scene.oscillator
    standin = StandIn(model, receiver, nic=NICS[scene.nic], seed=seed)
    last: list[ClockRecord] = []
    discipline = Discipline(
        standin,
        standin,
        PinPulses(standin, pin=0, grid_ns=standin.nic.grid_ns),
        number=0,
        settings=scene.servo(),
        publish=lambda record: last.__setitem__(slice(0, 1), [record]),
        on_step=on_step,
    )
    rows: list[tuple[float, float, float, int, int]] = []

    def sample() -> None:
        if last:
            record = last[0]
            bound = record.bound_ns if record.valid(standin.boot_ns()) else np.nan
            rows.append((standin.now_fs / 1e15, standin.error_ns(), bound, record.state, record.epoch))

    standin.every(1 / _SAMPLES_PER_S, sample, start_s=1 + _OFFSET_S)
    prepare(standin)
    discipline.run(scene.seconds)
    table = np.array(rows)
    return Figures(
        t_s=table[:, 0],
        true_error_ns=table[:, 1],
        bound_ns=table[:, 2],
        state=table[:, 3].astype(np.int64),
        epoch=table[:, 4].astype(np.int64),
    )


def summary(scene: Scene, seeds: Sequence[int], runs: Sequence[Figures], took_s: float) -> dict[str, Any]:
    """All runs pooled, by the names that docs/clock.md has; None where there are no such samples.

    known: share of a state's samples at which a bound was published and held.
    """
    t_s = np.concatenate([run.t_s for run in runs])
    error = np.concatenate([run.true_error_ns for run in runs])
    bound = np.concatenate([run.bound_ns for run in runs])
    state = np.concatenate([run.state for run in runs])
    known = np.isfinite(bound)
    locked = known & (state == STATES.index("locked")) & (t_s >= SETTLED_S)
    settled = statistics(error[locked], bound[locked])
    by_state = {}
    for number, name in enumerate(STATES):
        of = state == number
        if of.any():
            values = asdict(statistics(error[known & of], bound[known & of]))
            by_state[name] = {**values, "known": float(known[of].mean())}
    every = statistics(error[known], bound[known])
    to_lock = []
    for one in runs:
        reached = np.flatnonzero(one.state == STATES.index("locked"))
        to_lock.append(float(one.t_s[reached[0]]) if len(reached) else None)
    return {
        "version": 1,
        "nic": scene.nic,
        "oscillator": scene.oscillator if isinstance(scene.oscillator, str) else asdict(scene.oscillator),
        "receiver": scene.receiver,
        "servo": scene.servo(),
        "seconds": scene.seconds,
        "faults": [str(fault) for fault in scene.faults],
        "seeds": list(seeds),
        "took_s": round(took_s, 3),
        "rms_ns": settled.rms_ns,
        "p99_ns": settled.p99_ns,
        "p99_9_ns": settled.p99_9_ns,
        "max_ns": settled.max_ns,
        "median_bound_ns": settled.median_bound_ns,
        "coverage": {"all": every.coverage, **{name: v["coverage"] for name, v in by_state.items()}},
        "by_state": by_state,
        "locked_at_s": to_lock,
        "holdover": _holdover(scene, runs),
    }


def _holdover(scene: Scene, runs: Sequence[Figures]) -> list[dict[str, Any]]:
    found = []
    for mark in HOLDOVER_MARKS_S:
        errors, bounds = [], []
        for fault in scene.faults:
            if fault.kind != "outage" or mark > (fault.duration_s or mark):
                continue
            for one in runs:
                at = int(np.searchsorted(one.t_s, fault.start_s + mark)) - 1
                if 0 <= at < len(one.t_s) and one.state[at] == STATES.index("holdover"):
                    errors.append(one.true_error_ns[at])
                    bounds.append(one.bound_ns[at])
        if errors:
            found.append({"after_s": mark, **asdict(statistics(np.array(errors), np.array(bounds)))})
    return found


def figures(
    scene: Scene, seeds: Sequence[int], *, progress: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """``summary`` of a run for each seed."""
    begin = time.monotonic()
    runs = []
    for seed in seeds:
        runs.append(run(scene, seed))
        progress()
    return summary(scene, seeds, runs, time.monotonic() - begin)
