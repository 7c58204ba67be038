# SPDX-License-Identifier: Apache-2.0
"""The appliance on one screen, and its report as a person reads it."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from twinstamp.ledger import FATES
from twinstamp.units import format_ns

_REFRESH_S = 0.5


def screen(now: dict[str, Any], before: dict[str, Any] | None = None) -> Group:
    """Ledger, duplicates and servers; with rates since `before`, else since the start."""
    seconds = now["seconds"] - (before["seconds"] if before else 0.0) or 1.0

    def rate(pick: Callable[[dict[str, Any]], int]) -> float:
        return (pick(now) - (pick(before) if before else 0)) / seconds

    ledger = Table(title="Ledger", title_justify="left", expand=False)
    for column in ("", "frames", "bytes", "frames/s"):
        ledger.add_column(column, justify="left" if not column else "right")
    for name in ("received", *FATES):
        account = now["ledger"][name]
        per_s = rate(lambda snapshot, name=name: snapshot["ledger"][name]["frames"])  # type: ignore[misc]
        label = name.replace("_", " ") if name == "received" else f"  {name.replace('_', ' ')}"
        ledger.add_row(label, f"{account['frames']:,}", f"{account['bytes']:,}", f"{per_s:,.0f}")
    if now["ledger"]["tagged"]["frames"]:
        tagged = now["ledger"]["tagged"]
        ledger.add_row("tagged, of forwarded", f"{tagged['frames']:,}", f"{tagged['bytes']:,}", "")
    ledger.add_row("dropped by the kernel before", f"{now['ledger']['dropped_before_received']:,}", "", "")

    kinds = Table(title="Duplicates", title_justify="left")
    for column in ("type", "frames", "bytes", "distance p50", "p99", "max", "delay p50", "p99", "max"):
        kinds.add_column(column, justify="left" if column == "type" else "right")
    for name, count in now["duplicates"]["by_type"].items():
        if count["frames"]:
            distance, delay = count["distance"], count["delay_ns"]
            kinds.add_row(
                name,
                f"{count['frames']:,}",
                f"{count['bytes']:,}",
                *(f"{distance[key]:,}" for key in ("p50", "p99", "max")),
                *(format_ns(delay[key]) for key in ("p50", "p99", "max")),
            )
    for name, count in now["duplicates"]["kept_by_class"].items():
        kinds.add_row(f"kept: {name}", f"{count['frames']:,}", f"{count['bytes']:,}", *[""] * 6)

    servers = Table(title="Servers", title_justify="left")
    for column in ("server", "state", "frames", "bytes", "flows", "frames/s", "Mbit/s", "send errors"):
        servers.add_column(column, justify="left" if column in ("server", "state") else "right")
    for name, server in now["servers"].items():
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
    parts: list[Any] = [ledger, kinds, servers]
    delay = now["added_delay_ns"]
    if delay is not None:
        listed = ", ".join(f"{key} {format_ns(delay[key])}" for key in ("p50", "p99", "max"))
        parts.append(Text(f"Added delay: {listed}"))
    return Group(*parts)


class LiveView:
    """Refreshes the screen from a thread of its own until it is left. Nothing is shown off a terminal."""

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
        before = self._snapshot()
        with Live(Text("starting"), console=Console(), auto_refresh=False, screen=True) as live:
            while not self._done.wait(_REFRESH_S):
                now = self._snapshot()
                live.update(screen(now, before), refresh=True)
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
    console.print(screen(report))
    for event in report["events"]:
        console.print(f"- {event}")
