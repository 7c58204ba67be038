# SPDX-License-Identifier: Apache-2.0
"""Scenarios that the short tests, the long ones and docs/clock.md share."""

from __future__ import annotations

from typing import NamedTuple

from twinstamp_gps.faults import parse_fault
from twinstamp_gps.models import OSCILLATORS, RECEIVERS
from twinstamp_gps.simulation import Scenario, changed, simulate_many, summary

PAIRS = (("tcxo", "f9t"), ("xo-i225", "m8t"), ("xo-cm4", "f9t"), ("ocxo", "f9t"))
OUTAGES = tuple(f"outage@{start}+1000" for start in range(3600, 18000, 2000))


class Trouble(NamedTuple):
    """faults, and the states that must be seen besides the usual ones. loads: of card time, in each run."""

    faults: list[str]
    seen: tuple[str, ...] = ()
    loads: int = 1


# Each lies within the first two hours.
_TROUBLES = {
    "outliers": ([f"outlier@{start}:2us" for start in range(3000, 6000, 50)], ()),
    "outliers, small": ([f"outlier@{start}:60ns" for start in range(3000, 6000, 50)], ()),
    "step": (["step@4000+600:1us"], ("disputed",)),
    "step, negative": (["step@4000+600:-3us"], ("disputed",)),
    "pull": (["pull@4000+300:20"], ("disputed",)),
    "missing": (["missing@3000+2000:0.3"], ()),
    "double": (["double@3000+2000"], ()),
    "early": ([f"early@{start}+2:10us" for start in range(3000, 5000, 100)], ()),
    "qerr sign": (["qerr-sign@0"], ()),
    "qerr sign, midway": (["qerr-sign@4000"], ()),
    "qerr late": (["qerr-late@0"], ()),
    "qerr lost": (["qerr-lost@4000+2000"], ()),
    "leap": (["leap@4000+5:1"], ()),
    "leap, for long": (["leap@4000+300:-1"], ("disputed",)),
    "message late": (["message-late@4000+3"], ()),
    "message corrupt": (["message-corrupt@4000+2000"], ()),
    "message lost": (["message-lost@4000+600"], ("holdover",)),
    "outage": (["outage@4000+300"], ("holdover",)),
    # Pulses that nobody vouches for, wherever they go.
    **{
        f"message lost, pulled {rate} ns/s": (
            ["message-lost@4000+600", f"pull@4000+600:{rate}"],
            ("holdover",),
        )
        for rate in (1, 3, 12, 50)
    },
    "message lost, step": (["message-lost@4000+600", "step@4000+600:1us"], ("holdover",)),
    "message lost, step later": (["message-lost@4000+600", "step@4300+300:-300ns"], ("holdover",)),
    "message lost again and again": ([f"message-lost@{at}+4" for at in range(3000, 6000, 60)], ()),
    "fix lost": (["fix-lost@4000+600"], ("holdover",)),
    "fix lost, pulled": (["fix-lost@4000+600", "pull@4000+600:3"], ("holdover",)),
    "fix lost, outlier": (["fix-lost@4000+600", "outlier@4000+600:5us"], ("holdover",)),
    # A receiver without its antenna reports a fix for another 20 s, and its own accuracy.
    **{
        f"antenna cut, {rate} ns/s": (
            [f"pull@4000+620:{rate}", f"accuracy@4000+20:{rate}", "fix-lost@4020+600"],
            ("holdover",),
        )
        for rate in (1, 3, 12, 50)
    },
    "host load": (["host-load@4000"], (), 2),
    "host load, small": (["host-load@4000:-10us"], (), 2),
    "host load in holdover": (["outage@4000+600", "host-load@4300:1s"], ("holdover",), 2),
    "wrong second after cold": (["host-load@4000", "leap@4000+12:1"], (), 3),
    "wrong second, other way": (["host-load@4000", "leap@4000+12:-1"], (), 3),
    # Of several edges in a second one is right.
    "early, always": (["early@3000+2000:10us"], ()),
    "late, always": (["double@3000+2000:10us"], ()),
    "early and late": (["early@3000+2000:10us", "double@3000+2000:3us"], ()),
    "early, far": (["early@3000+2000"], ()),
    "late, very far": (["double@3000+2000:700ms"], ()),
    "early, and an outage": (["early@3000+2000:10us", "outage@4000+300"], ("holdover",)),
}
FAULTS = {name: Trouble(*trouble) for name, trouble in _TROUBLES.items()}


def scenario(oscillator="tcxo", receiver="f9t", *, hours=5.5, faults=(), told=True, accept_at_s=(), **values):
    of_oscillator, of_receiver, settings = changed(OSCILLATORS[oscillator], RECEIVERS[receiver], values)
    return Scenario(
        oscillator=of_oscillator,
        receiver=of_receiver,
        seconds=hours * 3600,
        faults=[parse_fault(text) for text in faults],
        settings=settings,
        told=told,
        accept_at_s=accept_at_s,
    )


def report(seeds, *words, **values):
    """summary() of runs with these seeds; `runs` with it."""
    made = scenario(*words, **values)
    runs = simulate_many(made, seeds)
    return {**summary(made, runs), "runs": runs}
