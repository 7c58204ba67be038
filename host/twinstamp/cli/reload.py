# SPDX-License-Identifier: Apache-2.0
"""`twinstamp reload`: a running appliance takes over its changed file."""

from __future__ import annotations

import argparse
import json
from typing import Any

from twinstamp.cli.service import TARGET, socket_of


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser(
        "reload",
        help=text,
        description="Lets a running appliance read its file again: rules, groups, weights and servers behind "
        "interfaces are taken over between two batches, all of it or nothing (docs/control.md).",
    )
    parser.add_argument("target", **TARGET)
    parser.add_argument("--json", action="store_true", help="the whole answer as JSON")
    parser.set_defaults(function=run)


def run(options: argparse.Namespace) -> int:
    from twinstamp.appliance.control import ask

    result = ask(socket_of(options.target), "reload")
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print(
            f"{options.target}: {result['rules']} rules, {len(result['groups'])} groups, "
            f"{len(result['servers'])} servers; the forwarding paused for {result['pause_ns'] / 1e6:.2f} ms"
        )
    return 0
