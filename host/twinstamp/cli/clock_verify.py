# SPDX-License-Identifier: Apache-2.0
"""`twinstamp clock verify`: a second receiver's pulse against the published bound of a PHC."""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from twinstamp.cli.clock_common import add_json, stopped_by_signals, verb
from twinstamp.cli.common import refuse_same, write_json
from twinstamp.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    import argparse


def add_verify(verbs: Any) -> None:
    """The verb `verify`."""
    parser = verb(verbs, "verify", "check a PHC's bound by a pulse that does not steer it", _verify)
    parser.add_argument("--phc", required=True, metavar="PHC", help="/dev/ptpN, or an interface that has one")
    parser.add_argument("--pin", type=int, metavar="N", help="pin of the second receiver's pulse")
    parser.add_argument(
        "--channel", type=int, default=1, metavar="N", help="not the steering one (default: 1)"
    )
    parser.add_argument("--grid", type=float, default=8.0, metavar="NS", help="of the stamps (default: 8 ns)")
    parser.add_argument("--cable", type=float, default=0.0, metavar="NS", help="its antenna and cable, in ns")
    parser.add_argument(
        "--reference",
        type=float,
        default=0.0,
        metavar="NS",
        help="what its pulses may be wrong by (default: 0)",
    )
    parser.add_argument("--seconds", type=int, default=3600, metavar="S", help="how long (default: 3600)")
    add_json(parser)


def own_queues(release: str) -> bool:
    """Whether a kernel gives each reader of a PHC events of its own (Linux 6.7, ptp_chardev.c); before that a
    second reader takes them away from the program that steers."""
    found = re.match(r"(\d+)\.(\d+)", release)
    return found is not None and (int(found[1]), int(found[2])) >= (6, 7)


def _verify(options: argparse.Namespace) -> int:
    from twinstamp.phc.device import Phc, RealWorld
    from twinstamp.phc.discipline import PinPulses
    from twinstamp.phc.follow import PublishedClock
    from twinstamp.phc.holders import phc_of
    from twinstamp.phc.verify import ENOUGH, Verifier

    if options.seconds < 1:
        raise ConfigError(f"--seconds {options.seconds}: give at least 1")
    if options.reference < 0:
        raise ConfigError(f"--reference {options.reference:g}: give 0 or more")
    refuse_same(options.json)
    path, number = phc_of(options.phc)
    if not own_queues(os.uname().release):
        raise DeviceError(
            f"Linux {os.uname().release} has one queue of pulses for all readers: verify would take "
            "those that steer the clock; it needs Linux 6.7"
        )
    with ExitStack() as stack:
        phc = Phc(path)
        stack.callback(phc.close)
        published = PublishedClock(number, phc)
        stack.callback(published.close)
        if published.look() is None:
            raise DeviceError(f"nobody publishes a bound of {path}: start twinstamp clock discipline first")
        verifier = Verifier(grid_ns=options.grid, cable_ns=options.cable, reference_ns=options.reference)
        pulses = PinPulses(phc, channel=options.channel, pin=options.pin, grid_ns=options.grid)
        pulses.start()
        stack.callback(pulses.close)
        world = RealWorld([phc.fd], None)
        going = [True]
        stack.enter_context(stopped_by_signals(going.clear))
        end = time.monotonic() + options.seconds
        while going and time.monotonic() < end:
            world.wait(0.2)
            record = published.look()
            for event in phc.events():
                if event.channel == options.channel:
                    verifier.take(event, record)
    report = verifier.report()
    if options.json is not None:
        write_json(options.json, report)
    if options.json != "-":
        for name, value in report.items():
            if name != "version":
                print(f"{name:16} {'none' if value is None else f'{value:g}'}")
    if report["covered"] is None:
        raise DeviceError(f"{path}: no pulse came on channel {options.channel} while a bound held")
    return 0 if report["covered"] >= ENOUGH else 1
