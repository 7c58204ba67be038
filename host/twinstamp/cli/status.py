# SPDX-License-Identifier: Apache-2.0
"""`twinstamp status`: the counters of a running appliance."""

from __future__ import annotations

import argparse
import json
from typing import Any

from twinstamp.cli.service import TARGET, socket_of


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser(
        "status",
        help=text,
        description="Shows what a running appliance has done so far (docs/control.md).",
    )
    parser.add_argument("target", **TARGET)
    parser.add_argument("--json", action="store_true", help="the whole answer as JSON")
    parser.set_defaults(function=run)


def run(options: argparse.Namespace) -> int:
    from twinstamp.appliance.control import ask

    found = ask(socket_of(options.target), "status")
    if options.json:
        print(json.dumps(found, indent=2))
        return 0
    from twinstamp.appliance.view import print_report

    print_report(found)
    for name, stage in found["stages"].items():
        parts = [f"{stage['frames']:,} frames", f"{stage['lost']:,} lost"]
        parts += [f"{key} {value}" for key, value in stage["counters"].items()]
        if stage["error"] is not None:
            parts.append(f"stopped: {stage['error']}")
        print(f"stage {name}: {', '.join(parts)}")
    return 0
