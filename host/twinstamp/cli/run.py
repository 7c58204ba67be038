# SPDX-License-Identifier: Apache-2.0
"""`twinstamp run`: the appliance that a file describes."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any

from twinstamp.cli.common import Progress, refuse_same
from twinstamp.report_file import ReportFile


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser(
        "run",
        help=text,
        description="Takes frames from interfaces or captures, removes duplicates, shares the flows among "
        "DPI servers, until the input ends or SIGINT or SIGTERM comes. docs/appliance.md describes the file.",
    )
    parser.add_argument("file", metavar="APPLIANCE.toml")
    parser.add_argument(
        "--check", action="store_true", help="read the file, say what is wrong with it, and stop"
    )
    parser.add_argument(
        "--json", metavar="REPORT", help='write the report here as well; "-" = standard output'
    )
    parser.add_argument("--quiet", action="store_true", help="neither live view nor tables")
    parser.set_defaults(function=run)


def run(options: argparse.Namespace) -> int:
    from twinstamp.appliance.config import check_appliance, load_appliance
    from twinstamp.appliance.run import Appliance

    config = load_appliance(options.file)
    refuse_same(options.json, *config.read, *config.written.values())
    if options.check:
        check_appliance(config)
        print(f"{options.file}: no mistakes found")
        return 0
    quiet = options.quiet or options.json == "-"
    if not quiet:
        # Now: frames wait for what takes time once all is open, and after `user` there may be no right to
        # read the interpreter's modules.
        import rich.progress  # noqa: F401

        from twinstamp.appliance.view import warm_up

        warm_up()
    # Opened first: with `user` there may be no right to open it later.
    with ReportFile(options.json) as json_report, Appliance(config) as appliance:
        stop = {
            number: signal.signal(number, lambda number, _: _hear(appliance, number))
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
            # What the caller ignores (nohup) stays so.
            if signal.getsignal(number) != signal.SIG_IGN or number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            report = _run(appliance, quiet)
        finally:
            for number, handler in stop.items():
                signal.signal(number, handler)
        json_report.write(report)
    return 0


def _hear(appliance: Any, number: int) -> None:
    """A signal: SIGHUP reloads a service, which a control socket makes of it; all others end the run."""
    if number == signal.SIGHUP and appliance.config.control is not None:
        appliance.reload_soon()
    else:
        appliance.stop()


def _run(appliance: Any, quiet: bool) -> dict[str, Any]:
    reader = appliance.reader
    report: dict[str, Any]
    if quiet:
        report = appliance.run()
        return report
    from twinstamp.appliance.view import LiveView, print_report

    if reader is not None:
        with Progress("appliance") as progress:
            report = appliance.run(progress=lambda: progress(reader))
    elif sys.stdout.isatty():
        with LiveView(lambda: appliance.snapshot.as_dict()):
            report = appliance.run()
    else:
        report = appliance.run()
    print_report(report)
    return report
