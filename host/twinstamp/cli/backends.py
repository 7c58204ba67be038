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
    parser.set_defaults(function=run)


def run(options: argparse.Namespace) -> int:
    from twinstamp_kernels import backend

    try:
        device = backend.open_device()
    except backend.NoDevice as error:
        gpu = f"not here: {str(error).removeprefix('no GPU: ')}"
    else:
        gpu = device.name
        device.close()
    print("cpu   always")
    print(f"gpu   {gpu}")
    return 0
