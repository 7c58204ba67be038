# SPDX-License-Identifier: Apache-2.0
"""`twinstamp clock`: GPS receivers, and the card time that follows them."""

from __future__ import annotations

from typing import Any

from twinstamp.cli import (
    clock_discipline,
    clock_receiver,
    clock_report,
    clock_simulate,
    clock_status,
    clock_verify,
)


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser(
        "clock",
        help=text,
        description="GPS receivers and clocks that follow them. docs/clock.md, nic-clock.md, receiver.md.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    clock_status.add_status(verbs)
    clock_discipline.add_discipline(verbs)
    clock_verify.add_verify(verbs)
    clock_simulate.add_simulate(verbs)
    clock_report.add_report(verbs)
    clock_receiver.add_receiver(verbs)
    clock_receiver.add_configure(verbs)
