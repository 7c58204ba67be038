# SPDX-License-Identifier: Apache-2.0
"""The appliance on one screen, and its report as a person reads it."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from twinstamp.ledger import FATES
from twinstamp.not_understood import describe, describe_refused
from twinstamp.units import format_ns

_REFRESH_S = 0.5


def screen(
    now: dict[str, Any], before: dict[str, Any] | None = None, *, width: int = 120, height: int | None = None
) -> Group:
    """Ledger, delay, duplicates and servers; with rates since `before`, else since the start.

    width, height: the terminal's, in characters (height None: any number of lines). A small one gets tables
    without frames; servers that find no room are counted in the last line.
    """
    seconds = now["seconds"] - (before["seconds"] if before else 0.0) or 1.0
    kinds_found = {name: n for name, n in now["duplicates"]["by_type"].items() if n["frames"]}
    kept = now["duplicates"]["kept_by_class"]
    found = len(now["servers"])
    tagged = now["ledger"]["tagged"]
    kinds_rows = len(kinds_found) + len(kept)
    backends = _backends(now)
    rows = (
        bool(backends) + len(FATES) + 2 + bool(tagged["frames"]) + 1 + kinds_rows
    )  # all but servers: ledger, delay, kinds
    tables = 2 + bool(kinds_rows)
    small = width < 100 or (height is not None and rows + found + 5 * tables > height)
    # Around its rows a table has five lines (title, frame, names), a small one two or, names broken, three.
    rows += 3 * tables - 1 if small else 5 * tables

    def rate(pick: Callable[[dict[str, Any]], int]) -> float:
        return (pick(now) - (pick(before) if before else 0)) / seconds

    def table(title: str, *columns: str, left: tuple[str, ...]) -> Table:
        made = Table(title=title, title_justify="left", box=None if small else box.HEAVY_HEAD)
        for column in columns:
            head = column.replace(" ", "\n") if small else column
            made.add_column(head, justify="left" if column in left else "right")
        return made

    ledger = table("Ledger", "", "frames", "bytes", "frames/s", left=("",))
    for name in ("received", *FATES):
        account = now["ledger"][name]
        per_s = rate(lambda snapshot, name=name: snapshot["ledger"][name]["frames"])  # type: ignore[misc]
        label = name.replace("_", " ") if name == "received" else f"  {name.replace('_', ' ')}"
        ledger.add_row(label, f"{account['frames']:,}", f"{account['bytes']:,}", f"{per_s:,.0f}")
    if tagged["frames"]:
        ledger.add_row("tagged, of forwarded", f"{tagged['frames']:,}", f"{tagged['bytes']:,}", "")
    ledger.add_row(
        "dropped by kernel or card before", f"{now['ledger']['dropped_before_received']:,}", "", ""
    )
    parts: list[Any] = [ledger]

    delay = now["added_delay_ns"]
    if delay is not None:
        listed = ", ".join(f"{key} {format_ns(delay[key])}" for key in ("p50", "p99", "max"))
        parts.append(Text(f"Added delay: {listed}"))

    if backends:
        used = ", ".join(f"{stage} {backend['name'].upper()}" for stage, backend in backends.items())
        parts.append(Text(f"Judged on: {used}"))

    if kinds_rows:
        sizes = () if small else ("bytes",)  # of 80 columns, numbers need all others
        kinds = table(
            "Duplicates",
            *("type", "frames", *sizes, "distance p50", "p99", "max", "delay p50", "p99", "max"),
            left=("type",),
        )
        for name, count in kinds_found.items():
            spread, apart = count["distance"], count["delay_ns"]
            kinds.add_row(
                name,
                *(f"{count[key]:,}" for key in ("frames", *sizes)),
                *(f"{spread[key]:,}" for key in ("p50", "p99", "max")),
                *(format_ns(apart[key]) for key in ("p50", "p99", "max")),
            )
        for name, count in kept.items():
            kinds.add_row(f"kept: {name}", *(f"{count[key]:,}" for key in ("frames", *sizes)), *[""] * 6)
        parts.append(kinds)

    servers = table(
        "Servers",
        *("server", "state", "frames", "bytes", "flows", "frames/s", "Mbit/s", "send errors"),
        left=("server", "state"),
    )
    room = found if height is None else height - rows
    shown = found if room >= found else max(room - 1, 1)
    for name, server in list(now["servers"].items())[:shown]:
        per_s = rate(lambda snapshot, name=name: snapshot["servers"][name]["frames"])  # type: ignore[misc]
        bits = 8 * rate(lambda snapshot, name=name: snapshot["servers"][name]["bytes"])  # type: ignore[misc]
        servers.add_row(
            name,
            "up" if server["alive"] else "[red]down[/red]",
            *(f"{server[key]:,}" for key in ("frames", "bytes", "flows")),
            f"{per_s:,.0f}",
            f"{bits / 1e6:,.2f}",
            f"{server['send_errors']:,}",
        )
    parts.append(servers)
    if shown < found:
        down = sum(not server["alive"] for server in list(now["servers"].values())[shown:])
        parts.append(Text(f"and {found - shown} more servers, {down} of them down"))
    return Group(*parts)


def _backends(now: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Stages and where they run; none where nothing but the CPU was asked for."""
    stages = {stage: backend for stage, backend in now["backend"].items() if backend is not None}
    return stages if any(backend["reason"] != "asked for" for backend in stages.values()) else {}


class LiveView:
    """Draws the screen in a thread of its own until it is left. Nothing is shown off a terminal.

    snapshot: gives the counters to be shown, keys as in the report; it is called in that thread.
    """

    def __init__(self, snapshot: Callable[[], dict[str, Any]]) -> None:
        self._snapshot = snapshot
        self._done = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LiveView:
        if sys.stdout.isatty():
            # Rendering holds the interpreter; frames must not wait long for it.
            sys.setswitchinterval(0.0002)
            self._thread = threading.Thread(target=self._loop, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _loop(self) -> None:
        before = None
        console = Console()
        with Live(Text("starting"), console=console, auto_refresh=False, screen=True) as live:
            while not self._done.wait(_REFRESH_S):
                now = self._snapshot()
                width, height = console.size  # somebody may have changed it
                live.update(screen(now, before, width=width, height=height), refresh=True)
                before = now


def warm_up() -> None:
    """Draws once into nothing: rich imports some of its modules only when it draws."""
    table = Table("a", title="b")
    table.add_row("[red]c[/red] :d:")
    console = Console(file=io.StringIO(), force_terminal=True)
    with Live(Text("e"), console=console, auto_refresh=False) as live:
        live.update(Group(table), refresh=True)
    console.print("- f")


def print_report(report: dict[str, Any]) -> None:
    """The report at the end of a run, on standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)  # a file has room for whole numbers
    console.print(screen(report, width=console.width))
    for stage, backend in _backends(report).items():
        console.print(f"- {stage} on the {backend['name'].upper()}: {backend['reason']}", markup=False)
    if (line := describe_refused(report["duplicates"]["refused"])) is not None:
        console.print(f"- {line}", markup=False)
    if (line := describe(report["not_understood"])) is not None:
        console.print(f"- {line}", markup=False)
    for event in report["events"]:
        console.print(f"- {event}", markup=False)
