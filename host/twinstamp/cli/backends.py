# SPDX-License-Identifier: Apache-2.0
"""`twinstamp backends`: where frames can be judged on this machine."""

from __future__ import annotations

import argparse
from typing import Any


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser(
        "backends",
        help=text,
        description="Names the backends that --backend takes, and for one that cannot be used says why.",
    )
    parser.add_argument("--json", metavar="REPORT", help='write it as JSON; "-" = standard output')
    parser.set_defaults(function=run)


def run(options: argparse.Namespace) -> int:
    from twinstamp_kernels import backend

    usable = False
    try:
        device = backend.open_device()
    except backend.NoDevice as error:
        gpu = f"not here: {str(error).removeprefix('no GPU: ')}"
    else:
        usable, gpu = True, device.name
        device.close()
    if options.json is not None:
        from twinstamp.cli.common import write_json

        report = {"cpu": {"usable": True, "text": "always"}, "gpu": {"usable": usable, "text": gpu}}
        write_json(options.json, {"version": 1, "backends": report})
    if options.json != "-":
        print("cpu   always")
        print(f"gpu   {gpu}")
    return 0
