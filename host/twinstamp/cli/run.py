# SPDX-License-Identifier: Apache-2.0
"""`twinstamp run`: the appliance that a file describes."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import Any

from twinstamp.cli.common import Progress, refuse_same, write_json


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
    from twinstamp.appliance.config import load_appliance
    from twinstamp.appliance.run import Appliance

    config = load_appliance(options.file)
    rules_file = None if config.rules_file is None else str(config.rules_file)
    files = [*(s.file for s in config.sources), *(o.file for o in config.outputs.values())]
    if config.card is not None:
        files.append(config.card.play)
    for report in (options.json, None if config.report is None else str(config.report)):
        refuse_same(report, options.file, rules_file, *files, what="report")
    if options.check:
        from twinstamp.rules import read_rules

        if config.rules_file is not None:
            read_rules(config.rules_file, config.rules_format)
        print(f"{options.file}: no mistakes found")
        return 0
    quiet = options.quiet or options.json == "-"
    if not quiet:
        # Now: frames wait for what takes time once all is open, and after `user` there may be no right to
        # read the interpreter's modules.
        import rich.progress  # noqa: F401

        from twinstamp.appliance.view import warm_up

        warm_up()
    with Appliance(config) as appliance:
        stop = {
            number: signal.signal(number, lambda *_: appliance.stop())
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            report = _run(appliance, quiet)
        finally:
            for number, handler in stop.items():
                signal.signal(number, handler)
    if options.json is not None:
        write_json(options.json, report)
    return 0


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
        with LiveView(appliance.snapshot) as view:
            report = appliance.run(progress=view)
    else:
        report = appliance.run()
    print_report(report)
    return report
