# SPDX-License-Identifier: Apache-2.0
"""`twinstamp clock report`: time error, histogram, Allan deviation and MTIE of a clock log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from twinstamp.cli.clock_common import add_json, verb
from twinstamp.cli.common import refuse_same, write_json
from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    import argparse


def add_report(verbs: Any) -> None:
    """The verb `report`."""
    parser = verb(verbs, "report", "analyse and plot a clock log", _report)
    parser.add_argument("log", metavar="LOG", help="of clock simulate --log or clock status --log")
    parser.add_argument("--to", metavar="PLACE", help="NAME.html, or a folder for PNG files, text and JSON")
    add_json(parser, "the statistics as JSON, here or on standard output")


def _report(options: argparse.Namespace) -> int:
    from twinstamp_gps import analysis, report
    from twinstamp_gps.log import read_log

    refuse_same(options.json, options.log)
    refuse_same(options.to, options.log, what="--to")
    if options.to is not None and options.to in ("", "-"):
        raise ConfigError("--to: give NAME.html or a folder")
    log = read_log(options.log)
    if options.to is None:
        found = analysis.summary(log)
    else:
        found = report.write(log, options.to, f"Clock report: {options.log}")
    if options.json is not None:
        write_json(options.json, found)
    if options.json != "-":
        print(report.text(found), end="")
    if options.to is not None:
        print(f"written: {options.to}", file=sys.stderr)
    return 0
