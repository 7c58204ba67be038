# SPDX-License-Identifier: Apache-2.0
"""Scenarios that the short tests, the long ones and docs/clock.md share."""

from __future__ import annotations

from twinstamp_gps.faults import parse_fault
from twinstamp_gps.models import OSCILLATORS, RECEIVERS
from twinstamp_gps.simulation import Scenario, changed, simulate_many, summary

PAIRS = (("tcxo", "f9t"), ("xo-i225", "m8t"), ("xo-cm4", "f9t"), ("ocxo", "f9t"))
OUTAGES = tuple(f"outage@{start}+1000" for start in range(3600, 18000, 2000))

# name: (faults, the states that must be seen besides the usual ones). Each lies within the first two hours.
FAULTS = {
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
    "message lost": (["message-lost@4000+2000"], ()),
    "outage": (["outage@4000+300"], ("holdover",)),
}


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
