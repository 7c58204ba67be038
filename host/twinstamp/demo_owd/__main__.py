# SPDX-License-Identifier: Apache-2.0
"""python -m twinstamp.demo_owd: Madrid and Budapest, two simulated cards over hours (docs/demo-owd.md)."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from twinstamp.demo_owd.scene import SITES, trains
from twinstamp.errors import ConfigError, DeviceError, TwinstampError

START_NS = 1_795_212_000 * 10**9  # 2026-11-20T22:00:00Z


@dataclass(frozen=True)
class Plan:
    """What is run. clocks: oscillator and receiver of each site. bursts: in each of ``pairs`` experiments."""

    clocks: tuple[tuple[str, str], tuple[str, str]]
    hours: float
    bursts: int
    packets: int
    pairs: int
    seed: int


def paths() -> tuple[Any, Any]:
    """The cloud: 47 us there, 29 us back."""
    from twinstamp.owd.experiment import NetPath

    return (
        NetPath(SITES[0], SITES[1], 47_000, jitter_ns=800, loss=0.01, seed=11),
        NetPath(SITES[1], SITES[0], 29_000, jitter_ns=500, loss=0.005, seed=12),
    )


def run(plan: Plan, progress: Any = None) -> tuple[Any, list[list[Any]], list[Any]]:
    """Runs the plan: the last experiment's report, each direction's errors by experiment, all epochs.

    progress: called with the number of bursts done.
    """
    from twinstamp.demo_owd.clocks import SETTLED_S, SiteClock, clock_states, instants
    from twinstamp.demo_owd.compare import errors_of
    from twinstamp.demo_owd.pair import Pair

    if plan.pairs < 1 or plan.packets < 1:
        raise ConfigError(f"{plan.pairs} pairs of seeds, {plan.packets} packets: give one or more")
    every_s = (plan.hours * 3600 - SETTLED_S) / plan.bursts if plan.bursts > 0 else 0.0
    for clock in plan.clocks:
        SiteClock(*clock, seed=plan.seed)  # refuses unknown names before minutes have passed
    instants(plan.bursts, every_s, seed=plan.seed)
    sent, ways = trains(plan.packets), paths()
    errors: list[list[Any]] = [[], []]
    epochs: list[Any] = []
    report: Any = None
    with Pair(SITES, sent, ways, start_ns=START_NS, seed=plan.seed) as pair:
        for k in range(plan.pairs):
            at = instants(plan.bursts, every_s, seed=plan.seed + k)
            states = [
                clock_states(SiteClock(*plan.clocks[i], seed=2 * (plan.seed + k) + i), at) for i in (0, 1)
            ]
            pair.begin()
            for both in zip(*states, strict=True):
                pair.burst(both)
                if progress is not None:
                    progress(len(epochs) + len(pair.epochs))
            report = pair.report(
                {
                    "kind": "demo-owd",
                    "title": f"{SITES[0]} and {SITES[1]}: two simulated cards",
                    "start_ns": START_NS,
                    "duration_ns": round(plan.hours * 3600e9),
                    "simulated": True,
                    "plan": asdict(plan),
                    "paths": [asdict(path) for path in ways],
                    "bursts": [epoch._asdict() for epoch in pair.epochs],
                }
            )
            for i in (0, 1):
                errors[i].append(errors_of(_train(report, i), pair.truth(i), pair.epochs, i))
            epochs += pair.epochs
    return report, errors, epochs


def _train(report: Any, way: int) -> Any:
    return next(train for train in report.trains if train.key.session == way + 1)


def notes(plan: Plan) -> tuple[str, ...]:
    """What a reader of the page must know first."""
    named = [f"{site} {' + '.join(clock)}" for site, clock in zip(SITES, plan.clocks, strict=True)]
    return (
        "Simulated. Both cards are the RTL, run cycle by cycle; their clocks are those of "
        f"{plan.hours:g} hours of the firmware's servo, compiled for this machine, against models of "
        f"oscillator and receiver ({', '.join(named)}).",
        "Idle time is skipped: only the bursts run in HDL. At each one both cards are loaded with what the "
        "servo's run has at that instant: phase error, rate, slew and bound of card time; their oscillators "
        "get its true frequency. Between bursts only the servo's run goes on.",
        "The cloud takes tens of microseconds, not the milliseconds of the distance: simulated time costs.",
        "Each burst is armed anew and begins with packet 0; its numbers are counted on from the last "
        "burst's here.",
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make demo-owd", description=__doc__)
    parser.add_argument("--folder", default=".demo/owd", metavar="DIR", help="for page.html, report.json, …")
    parser.add_argument("--hours", type=float, default=6.0, metavar="H", help="of experiment time (6)")
    parser.add_argument("--bursts", type=int, default=180, metavar="N", help="over these hours (180)")
    parser.add_argument("--packets", type=int, default=16, metavar="N", help="of a burst (16)")
    parser.add_argument("--madrid", default="tcxo+f9t", metavar="OSC+RX", help="clock there (tcxo+f9t)")
    parser.add_argument(
        "--budapest", default="xo-i225+m8t", metavar="OSC+RX", help="clock there (xo-i225+m8t)"
    )
    parser.add_argument(
        "--pairs",
        type=int,
        default=1,
        metavar="N",
        help="the experiment with N pairs of seeds, errors pooled (1)",
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="first one (1)")
    parser.add_argument(
        "--only",
        choices=("simulated", "namespaces"),
        help="one part: the simulated cards, or the linux card in two network namespaces (needs root)",
    )
    return parser.parse_args(arguments)


def _clock(text: str) -> tuple[str, str]:
    oscillator, _, receiver = text.partition("+")
    if not receiver:
        raise ConfigError(f"{text!r}: give oscillator and receiver, as tcxo+f9t")
    return oscillator, receiver


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        folder = Path(options.folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--folder {folder}: cannot be made: {error.strerror}") from error
        clocks = (_clock(options.madrid), _clock(options.budapest))
        plan = Plan(clocks, options.hours, options.bursts, options.packets, options.pairs, options.seed)
        status = 0 if options.only == "namespaces" else _demo(plan, folder)
        if options.only == "namespaces" or (options.only is None and plan.pairs == 1):
            status = max(status, _namespaces(folder, needed=options.only is not None))
        return status
    except TwinstampError as error:
        print(f"demo-owd: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


def _namespaces(folder: Path, *, needed: bool) -> int:
    from twinstamp.demo_owd.namespaces import demo

    print("\nThe same two sites as network namespaces, a linux card in each:")
    try:
        return demo(folder)
    except DeviceError as error:
        if needed:
            raise
        print(f"not run: {error}")
        return 0


def _demo(plan: Plan, folder: Path) -> int:
    from twinstamp.cli.owd import show
    from twinstamp.demo_owd import show as shown
    from twinstamp.demo_owd.compare import figures
    from twinstamp.owd import exports

    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "150")  # Rich takes 80, and cuts the table's figures
    begin, spent = time.monotonic(), time.process_time()
    console = Console(highlight=False, soft_wrap=True)
    for text in notes(plan):
        console.print(text, markup=False)
    total = plan.pairs * plan.bursts
    last = 0.0

    def told(done: int) -> None:
        nonlocal last
        if sys.stderr.isatty() and (time.monotonic() - last > 0.2 or done == total):
            last = time.monotonic()
            print(
                f"\r{done} of {total} bursts", end="\n" if done == total else "", file=sys.stderr, flush=True
            )

    report, errors, epochs = run(plan, told)
    found = [figures(errors[i], epochs) for i in (0, 1)]
    if plan.pairs == 1:
        show(report)
        page = shown.page(report, notes(plan), [errors[i][0] for i in (0, 1)], found, SITES)
        (folder / "page.html").write_text(page, encoding="utf-8")
        (folder / "report.json").write_text(json.dumps(report.json(), indent=1), encoding="utf-8")
        exports.write_raw(report, str(folder / "delays.txt"))
    shown.table(console, [errors[0], errors[1]], found, SITES)
    judged = shown.verdict(plan.clocks, found)
    out = {"plan": asdict(plan), "directions": [f.json() for f in found], "passed": judged[0]}
    (folder / "truth.json").write_text(json.dumps(out, indent=1), encoding="utf-8")
    for text in judged[1]:
        console.print(text, markup=False)
    console.print(
        f"{time.monotonic() - begin:.0f} s, {time.process_time() - spent:.0f} s of CPU. "
        + (f"Page: {folder}/page.html" if plan.pairs == 1 else f"Figures: {folder}/truth.json"),
        markup=False,
    )
    return 0 if judged[0] else 1


if __name__ == "__main__":
    sys.exit(main())
