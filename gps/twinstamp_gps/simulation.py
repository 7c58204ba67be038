# SPDX-License-Identifier: Apache-2.0
"""Runs of the firmware's servo against noise models: what `twinstamp clock simulate` does.

Each run is compiled (`native/simulate.cpp`): oscillator and pulses by their models, the capture's 1 ns grid,
the servo of `firmware/servo` once a second, and the truth, card time minus true time, ten times a second. The
same seed gives the same run, to the last bit. Statistics by NumPy, over all runs pooled.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp_gps import _servo
from twinstamp_gps.analysis import statistics
from twinstamp_gps.errors import SettingError
from twinstamp_gps.log import STATES, write_log
from twinstamp_gps.models import OSCILLATORS, RECEIVERS, OscillatorModel, ReceiverModel, servo_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from twinstamp_gps.faults import Fault

# The order of FaultKind in native/simulate.h.
FAULT_KINDS = (
    "outage", "outlier", "step", "pull", "missing", "double", "early", "qerr-sign", "qerr-late", "qerr-lost",
    "leap", "message-late", "message-corrupt", "message-lost", "fix-lost", "accuracy", "host-load", "accept",
)  # fmt: skip
# The order of SERVO_EVENT_ in firmware/servo/servo.h.
EVENTS = (
    "missing", "outlier", "step", "pull", "message", "qerr_sign", "qerr_none", "late", "saturated", "ageing",
    "loaded", "input", "early", "qerr_late", "unvouched", "double", "moved",
)  # fmt: skip
SETTLED_S = 600.0  # statistics of the locked clock begin here
HOLDOVER_MARKS_S = (10, 30, 60, 300, 1000, 3600)
_LOCKED, _HOLDOVER = STATES.index("locked"), STATES.index("holdover")
_NEVER_S = 1e9


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What a run is made of.

    settings: of the servo, over those that the models suggest (`servo_config` in firmware/servo/servo.h).
    told: whether the servo is told which oscillator and receiver it has, or starts with its defaults.
    accept_at_s: when an operator accepts the receiver's time.
    """

    oscillator: OscillatorModel
    receiver: ReceiverModel
    seconds: float
    faults: Sequence[Fault] = ()
    settings: dict[str, int] = field(default_factory=dict)
    told: bool = True
    accept_at_s: Sequence[int] = ()
    samples_per_s: int = 10

    def servo(self) -> dict[str, int]:
        """All settings of the servo that are not its defaults."""
        return {**(servo_settings(self.oscillator, self.receiver) if self.told else {}), **self.settings}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: arrays over its samples. true_error_ns: inf before card time was set; bound_ns: if unknown.

    frequency_ppb: of the oscillator, as the servo estimates it; oscillator_ppb: as it is, its white part left
    out. increment_q72 (2^-72 s a cycle), slew_left_q64 (2^-64 s), slew_step_q64 (2^-64 s a cycle): registers.
    """

    seed: int
    t_s: npt.NDArray[np.float32]
    true_error_ns: npt.NDArray[np.float32]
    bound_ns: npt.NDArray[np.float32]
    offset_ns: npt.NDArray[np.float32]
    frequency_ppb: npt.NDArray[np.float32]
    oscillator_ppb: npt.NDArray[np.float32]
    increment_q72: npt.NDArray[np.uint64]
    slew_left_q64: npt.NDArray[np.int64]
    slew_step_q64: npt.NDArray[np.uint64]
    state: npt.NDArray[np.uint8]
    events: dict[str, int]
    first_valid_s: float
    worst_rate_ppb: float
    backward: int

    @property
    def time_to_lock_s(self) -> float | None:
        """From the first valid pulse and message until locked; None: never."""
        locked = self.state == _LOCKED
        return float(self.t_s[int(np.argmax(locked))] - self.first_valid_s) if locked.any() else None


def changed(
    oscillator: OscillatorModel, receiver: ReceiverModel, values: dict[str, float]
) -> tuple[OscillatorModel, ReceiverModel, dict[str, int]]:
    """Models with fields of these names changed, and what is left: settings of the servo.

    SettingError for names that are neither.
    """
    of_oscillator = {f.name for f in fields(OscillatorModel)}
    of_receiver = {f.name for f in fields(ReceiverModel)}
    of_servo = _servo.default_config()
    settings = {}
    for name, value in values.items():
        if name in of_oscillator:
            oscillator = replace(oscillator, **{name: value})
        elif name in of_receiver:
            receiver = replace(receiver, **{name: value})
        elif name in of_servo:
            if value != int(value) or not 0 <= value < 2**32:
                raise SettingError(
                    f"{name}: {value:g} is no whole number from 0 on; settings of the servo are"
                )
            settings[name] = int(value)
        else:
            known = ", ".join(sorted(of_oscillator | of_receiver | set(of_servo)))
            raise SettingError(f"no setting is called {name}: known are {known}")
    return oscillator, receiver, settings


def simulate(scenario: Scenario, seed: int) -> Run:
    """One run. SettingError where the scenario is out of range."""
    faults = [
        (
            FAULT_KINDS.index(fault.kind),
            float(fault.start_s),
            _NEVER_S if fault.duration_s is None else float(fault.duration_s),
            float(fault.value),
        )
        for fault in scenario.faults
    ]
    faults += [(FAULT_KINDS.index("accept"), float(at), 1.0, 0.0) for at in scenario.accept_at_s]
    try:
        result = _servo.simulate(
            oscillator=scenario.oscillator.settings(),
            receiver=scenario.receiver.settings(),
            config=scenario.servo(),
            faults=faults,
            seconds=scenario.seconds,
            seed=seed,
            samples_per_s=scenario.samples_per_s,
        )
    except (ValueError, TypeError) as error:
        raise SettingError(str(error)) from error
    events = result.pop("events")
    per_second = events[:: scenario.samples_per_s]
    counts = {
        name: int(np.count_nonzero(per_second & np.uint32(1 << bit))) for bit, name in enumerate(EVENTS)
    }
    return Run(seed=seed, events={name: n for name, n in counts.items() if n}, **result)


def simulate_many(
    scenario: Scenario,
    seeds: Sequence[int],
    *,
    workers: int | None = None,
    progress: Callable[[Run], None] | None = None,
) -> list[Run]:
    """A run for each seed, in their order; on as many threads as there are processors."""
    runs = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for run in pool.map(lambda seed: simulate(scenario, seed), seeds):
            runs.append(run)
            if progress is not None:
                progress(run)
    return runs


def summary(scenario: Scenario, runs: Sequence[Run]) -> dict[str, Any]:
    """Statistics of all runs pooled, as plain numbers (docs/clock.md names the keys).

    rms_ns, p99_ns, p99_9_ns, median_bound_ns: locked, from SETTLED_S on. coverage: share of the samples with
    a bound whose error is not above it. None: no such samples.
    """
    state = np.concatenate([run.state for run in runs])
    error = np.concatenate([run.true_error_ns for run in runs]).astype(np.float64)
    bound = np.concatenate([run.bound_ns for run in runs]).astype(np.float64)
    settled = np.concatenate([run.t_s >= SETTLED_S for run in runs])
    known = np.isfinite(bound) & np.isfinite(error)
    locked = statistics(
        error[known & settled & (state == _LOCKED)], bound[known & settled & (state == _LOCKED)]
    )
    states = {
        name: statistics(error[known & (state == number)], bound[known & (state == number)])
        for number, name in enumerate(STATES)
    }
    every = statistics(error[known], bound[known])
    to_lock = [run.time_to_lock_s for run in runs]
    events: dict[str, int] = {}
    for run in runs:
        for name, count in run.events.items():
            events[name] = events.get(name, 0) + count
    return {
        "version": 1,
        "oscillator": asdict(scenario.oscillator),
        "receiver": asdict(scenario.receiver),
        "servo": scenario.servo(),
        "seconds": scenario.seconds,
        "samples_per_s": scenario.samples_per_s,
        "faults": [str(fault) for fault in scenario.faults],
        "seeds": [run.seed for run in runs],
        "rms_ns": locked.rms_ns,
        "p99_ns": locked.p99_ns,
        "p99_9_ns": locked.p99_9_ns,
        "max_ns": locked.max_ns,
        "median_bound_ns": locked.median_bound_ns,
        "coverage": {"all": every.coverage, **{k: v.coverage for k, v in states.items() if v.samples}},
        "time_to_lock_s": None if None in to_lock else max(t for t in to_lock if t is not None),
        "time_to_lock_each_s": to_lock,
        "share": {name: float(np.mean(state == number)) for number, name in enumerate(STATES)},
        "by_state": {name: asdict(values) for name, values in states.items() if values.samples},
        "holdover": _holdover(scenario, runs),
        "events_s": events,
        "worst_rate_ppb": max(run.worst_rate_ppb for run in runs),
        "ran_back": sum(run.backward for run in runs),
    }


def _holdover(scenario: Scenario, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Errors at marks after the beginning of each outage, where the clock was in holdover then."""
    found = []
    for mark in HOLDOVER_MARKS_S:
        errors, bounds = [], []
        for run in runs:
            for fault in scenario.faults:
                at = round((fault.start_s + mark) * scenario.samples_per_s) - 1
                if fault.kind == "outage" and at < len(run.state) and run.state[at] == _HOLDOVER:
                    errors.append(float(run.true_error_ns[at]))
                    bounds.append(float(run.bound_ns[at]))
        if errors:
            found.append({"after_s": mark, **asdict(statistics(np.array(errors), np.array(bounds)))})
    return found


def save(run: Run, path: str, about: dict[str, Any]) -> None:
    """Writes a run as a clock log, which `twinstamp clock report` reads."""

    def finite(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        return np.where(np.isfinite(values), values, np.nan).astype(np.float64)

    write_log(
        path,
        about,
        {
            "t_s": np.round(run.t_s.astype(np.float64), 3),
            "state": run.state,
            "offset_ns": finite(run.offset_ns),
            "bound_ns": finite(run.bound_ns),
            "frequency_ppb": finite(run.frequency_ppb),
            "true_error_ns": finite(run.true_error_ns),
        },
    )


__all__ = [
    "OSCILLATORS", "RECEIVERS", "Run", "Scenario", "changed", "save", "simulate", "simulate_many", "summary",
]  # fmt: skip
