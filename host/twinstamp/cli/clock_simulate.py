# SPDX-License-Identifier: Apache-2.0
"""`twinstamp clock simulate`: how well the servo keeps time, and how true its bound is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from twinstamp.cli.clock_common import add_json, verb
from twinstamp.cli.common import refuse_same, write_json
from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def add_simulate(verbs: Any) -> None:
    """The verb `simulate`."""
    parser = verb(verbs, "simulate", "run the firmware's servo against noise models", _simulate)
    parser.add_argument("--oscillator", default="tcxo", metavar="NAME", help="tcxo, xo-cm4, xo-i225 or ocxo")
    parser.add_argument("--receiver", default="f9t", metavar="NAME", help="f9t or m8t")
    parser.add_argument("--hours", type=float, default=5.5, metavar="H", help="of each run")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of the first run; the next ones count on")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="pooled")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND@START[+DURATION][:VALUE]",
        help="e.g. outage@3600+1000, step@4000:2us (docs/clock.md); may be given again",
    )
    parser.add_argument(
        "--accept-at", action="append", type=int, default=[], metavar="S", help="an operator accepts at this second"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, metavar="C", help="the room's slow changes, one sigma in degrees"
    )
    parser.add_argument(
        "--unknown", action="store_true", help="the servo is not told which oscillator and receiver it has"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a figure of the models or a setting of the servo, e.g. flicker_ppb=0.4",
    )
    parser.add_argument("--log", metavar="FILE", help="the first run, for twinstamp clock report")
    add_json(parser)


def _settings(words: list[str]) -> dict[str, float]:
    values = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            values[name] = float(value)
        except ValueError as error:
            raise ConfigError(f"--set {word}: write NAME=VALUE with a number") from error
    return values


def _simulate(options: argparse.Namespace) -> int:
    from twinstamp_gps.faults import parse_fault
    from twinstamp_gps.models import OSCILLATORS, RECEIVERS
    from twinstamp_gps.simulation import Scenario, changed, save, simulate_many, summary

    refuse_same(options.json, options.log)
    for kind, name, known in (
        ("--oscillator", options.oscillator, OSCILLATORS),
        ("--receiver", options.receiver, RECEIVERS),
    ):
        if name not in known:
            raise ConfigError(f"{kind} {name}: known are {', '.join(known)}")
    if not 0.01 <= options.hours <= 1000:
        raise ConfigError(f"--hours {options.hours:g}: give 0.01 to 1000")
    if not 1 <= options.runs <= 10_000:
        raise ConfigError(f"--runs {options.runs}: give 1 to 10000")
    if not 0 <= options.seed < 2**60:
        raise ConfigError(f"--seed {options.seed}: give 0 to 2^60")
    oscillator, receiver, settings = changed(
        OSCILLATORS[options.oscillator],
        RECEIVERS[options.receiver],
        {"temperature_c": options.temperature, **_settings(options.set)},
    )
    scenario = Scenario(
        oscillator=oscillator,
        receiver=receiver,
        seconds=options.hours * 3600,
        faults=[parse_fault(text) for text in options.fault],
        settings=settings,
        told=not options.unknown,
        accept_at_s=options.accept_at,
    )
    started = time.monotonic()
    with _Progress(options.runs) as progress:
        runs = simulate_many(
            scenario, range(options.seed, options.seed + options.runs), progress=lambda _: progress.step()
        )
    report = summary(scenario, runs)
    report = {
        "command": "clock simulate",
        "oscillator_name": options.oscillator,
        "receiver_name": options.receiver,
        "hours": options.hours,
        "runs": options.runs,
        **report,
    }
    if options.log is not None:
        about = {key: report[key] for key in ("command", "oscillator_name", "receiver_name", "hours", "faults")}
        save(runs[0], options.log, {**about, "seed": runs[0].seed})
    if options.json is not None:
        write_json(options.json, report)
    if options.json != "-":
        _table(report, time.monotonic() - started)
    return 0


class _Progress:
    """A bar on standard error, on a terminal."""

    def __init__(self, runs: int) -> None:
        self._runs = runs
        self._bar: Any = None

    def __enter__(self) -> _Progress:
        if self._runs > 1 and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("runs"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task("runs", total=self._runs)
        return self

    def step(self) -> None:
        if self._bar is not None:
            self._bar.advance(self._task)

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def _number(value: float | None, form: str = ",.1f") -> str:
    return "–" if value is None else format(value, form)


def _table(report: dict[str, Any], took_s: float) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(
        f"{report['oscillator_name']} + {report['receiver_name']}, {report['runs']} × {report['hours']:g} h, "
        f"seeds {report['seeds'][0]} to {report['seeds'][-1]}, {took_s:.1f} s",
        highlight=False,
    )
    console.print(
        f"locked, from 10 min on: {_number(report['rms_ns'], '.2f')} ns rms, "
        f"P99 {_number(report['p99_ns'])} ns, P99.9 {_number(report['p99_9_ns'])} ns, "
        f"median bound {_number(report['median_bound_ns'])} ns; locked after {_number(report['time_to_lock_s'])} s",
        highlight=False,
    )
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("state", "share %", "rms ns", "P99.9 ns", "median bound ns", "coverage %"):
        table.add_column(name, justify="left" if name == "state" else "right")
    for name, share in report["share"].items():
        values = report["by_state"].get(name)
        if share == 0:
            continue
        cells = ["–"] * 4
        if values is not None:
            coverage = values["coverage"]
            cells = [
                _number(values["rms_ns"]),
                _number(values["p99_9_ns"]),
                _number(values["median_bound_ns"]),
                _number(None if coverage is None else 100 * coverage, ".4f"),
            ]
        table.add_row(name, f"{100 * share:.3f}", *cells)
    console.print(table)
    if report["holdover"]:
        table = Table(box=box.SIMPLE_HEAD, title="after the beginning of an outage")
        for name in ("s", "outages", "rms ns", "median bound ns", "coverage %"):
            table.add_column(name, justify="right")
        for row in report["holdover"]:
            table.add_row(
                str(row["after_s"]),
                str(row["samples"]),
                _number(row["rms_ns"]),
                _number(row["median_bound_ns"]),
                _number(100 * row["coverage"], ".2f"),
            )
        console.print(table)
    if report["events_s"]:
        console.print(
            "seconds with: " + ", ".join(f"{name} {count}" for name, count in report["events_s"].items()),
            highlight=False,
        )
