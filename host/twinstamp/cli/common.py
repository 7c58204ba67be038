# SPDX-License-Identifier: Apache-2.0
"""What several commands share: window options, progress, JSON reports."""

from __future__ import annotations

import argparse
import sys
import time

from twinstamp.errors import DamagedCaptureError
from twinstamp.paths import refuse_same as refuse_same
from twinstamp.report_file import ReportFile
from twinstamp.units import parse_time_ns

TYPE_CHECKING = False  # as in twinstamp.dedup: typing costs start-up time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from twinstamp.io.files import CaptureReader


def add_window_options(parser: argparse.ArgumentParser) -> None:
    """--window, --time, --profile, --layer, --tunnel, --guard, --limit, --workers."""
    parser.add_argument(
        "--window", type=int, metavar="N", help="frames, the current one included (editcap -D)"
    )
    parser.add_argument("--time", metavar="T", help="time window, e.g. 50ms, 600us, 1.5s (editcap -w)")
    parser.add_argument(
        "--profile", choices=("exact", "vlan", "routing", "nat"), default="exact", help="what may differ"
    )
    parser.add_argument(
        "--layer", choices=("outer", "inner"), default="outer", help="inner: look into tunnels"
    )
    add_tunnel_option(parser)
    parser.add_argument(
        "--guard",
        choices=("none", "ttl"),
        default="none",
        help="ttl: a copy whose TTL or hop limit rises is no duplicate, as decoys are (docs/duplicates.md)",
    )
    parser.add_argument(
        "--limit", type=int, default=1_000_000, metavar="N", help="frames that a time window holds at most"
    )
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="threads (same verdicts with any)"
    )


def add_tunnel_option(parser: argparse.ArgumentParser) -> None:
    """--tunnel."""
    parser.add_argument(
        "--tunnel",
        action="append",
        default=[],
        metavar="END",
        help="with --layer inner: open only tunnels between these addresses or networks (give it for both "
        'ends), "mpls" for label stacks',
    )


def add_backend_option(parser: argparse.ArgumentParser) -> None:
    """--backend."""
    parser.add_argument(
        "--backend",
        choices=("cpu", "gpu", "auto"),
        default="cpu",
        help="where frames are judged (same result on both); auto: what is faster on the first frames",
    )


def warner(options: argparse.Namespace) -> Callable[[str], None]:
    """Says on standard error, at once and even with --quiet, what a person should know."""

    def warn(event: str) -> None:
        print(f"twinstamp {options.command}: {event}", file=sys.stderr)

    return warn


def tell_backend(options: argparse.Namespace, report: dict[str, Any]) -> None:
    """What --backend auto chose, and why, on standard error."""
    if options.backend == "auto" and not getattr(options, "quiet", False):
        backend = report["backend"]
        print(f"judged on the {backend['name'].upper()}: {backend['reason']}", file=sys.stderr)


def window_time_ns(options: argparse.Namespace) -> int | None:
    return None if options.time is None else parse_time_ns(options.time, "--time")


class Progress:
    """A progress bar on standard error for work that takes longer than a second, on a terminal only."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._start = time.monotonic()
        self._bar: Any = None
        self._task: Any = None
        self._shown = sys.stderr is not None and sys.stderr.isatty()

    def __call__(self, reader: CaptureReader) -> None:
        if not self._shown or time.monotonic() - self._start < 1.0:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %  {task.fields[frames]:,} frames"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=reader.size, frames=0)
        self._bar.update(self._task, completed=reader.bytes_read, frames=reader.frames)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def write_json(path: str, report: dict[str, Any]) -> None:
    """Writes a report as JSON, to standard output for "-"."""
    with ReportFile(path) as file:
        file.write(report)


def deliver(
    options: argparse.Namespace,
    title: str,
    work: Callable[..., dict[str, Any]],
    summary: Callable[[dict[str, Any]], None],
    *,
    also: Callable[[dict[str, Any]], None] | None = None,
) -> int:
    """A command over a capture: does the work, hands out its report and summary, says what was cut short.

    A capture that is damaged inside gets all that too, for the frames before the damage; then
    DamagedCaptureError is raised. title: of the progress bar. work: takes `progress`, gives the report.
    also: what else is made of the report.
    """
    damaged: DamagedCaptureError | None = None
    with ReportFile(options.json) as file:
        try:
            with Progress(title) as progress:
                report = work(progress=progress)
        except DamagedCaptureError as error:
            damaged, report = error, error.report
        if also is not None:
            also(report)
        file.write(report)
    if not getattr(options, "quiet", options.json == "-"):
        summary(report)
        from twinstamp.not_understood import describe, describe_refused

        refused = report.get("refused", report.get("duplicates", {}).get("refused", 0))
        if (line := describe_refused(refused)) is not None:
            print(line, file=sys.stderr)
        if (line := describe(report["not_understood"])) is not None:
            print(line, file=sys.stderr)
    if beyond := report["fractions_beyond"]:
        print(
            f"twinstamp {options.command}: {beyond} stamps have a fraction of a second or more, carried "
            "into the seconds: the writer may have put nanoseconds behind the magic number of microseconds, "
            "and then these times are wrong (rewrite it with the magic number a1b23c4d)",
            file=sys.stderr,
        )
    tell_backend(options, report)
    if report["truncated"] is not None:
        print(f"twinstamp {options.command}: {report['truncated']}", file=sys.stderr)
    if damaged is not None:
        raise damaged
    return 0
