# SPDX-License-Identifier: Apache-2.0
"""`twinstamp reflect`: a STAMP reflector."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from typing import Any, TextIO

from twinstamp.cli.common import write_json
from twinstamp.errors import ConfigError
from twinstamp.units import parse_time_ns


def register(commands: Any, text: str = "answer STAMP test packets (RFC 8762)") -> None:
    parser = commands.add_parser(
        "reflect",
        help=text,
        description="Answers STAMP test packets with the kernel's stamps until it is interrupted "
        "(docs/owd.md: Reflector).",
    )
    parser.add_argument("--address", default="", metavar="A", help="address to answer on; default: all IPv4")
    parser.add_argument("--ipv6", action="store_true", help="without --address: all IPv6 addresses")
    parser.add_argument("--port", type=int, default=862, metavar="N", help="UDP port (862; below 1024: root)")
    parser.add_argument("--interface", metavar="IF", help="answer only what comes through it")
    parser.add_argument("--stateful", action="store_true", help="own sequence numbers per session")
    parser.add_argument("--format", choices=("ntp", "ptp"), default="ntp", help="of our timestamps")
    parser.add_argument("--bound", metavar="T", help="bound of our clock; default: what adjtimex says")
    parser.add_argument("--rate", type=int, default=10_000, metavar="N", help="answers/s at most (10000)")
    parser.add_argument(
        "--source-rate", type=int, default=2_000, metavar="N", help="answers/s to one address (2000)"
    )
    parser.add_argument(
        "--allow", action="append", default=[], metavar="NET", help="answer only this network; repeated"
    )
    parser.add_argument("--low-ports", action="store_true", help="answer source ports below 1024, too")
    parser.add_argument(
        "--short", action="store_true", help="answer TWAMP-Light packets of 14 to 43 bytes, with 44"
    )
    parser.add_argument("--user", metavar="NAME", help="become this user once the port is open")
    parser.add_argument("--count", type=int, metavar="N", help="end after so many answers")
    parser.add_argument("--json", metavar="FILE", help='write the counts at the end; "-" = standard output')
    parser.set_defaults(function=run)


def run(options: argparse.Namespace) -> int:
    from twinstamp.owd.kernel import StampedSocket
    from twinstamp.owd.reflect import Reflector, Rules, networks

    rules = Rules(
        stateful=options.stateful,
        ptp=options.format == "ptp",
        bound_ns=None if options.bound is None else parse_time_ns(options.bound, "--bound"),
        rate=options.rate,
        source_rate=options.source_rate,
        allowed=networks(options.allow),
        low_ports=options.low_ports,
        short=options.short,
    )
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    signal.signal(signal.SIGINT, lambda number, _: stopped.append(number))
    version = 6 if options.ipv6 else 4
    with StampedSocket(options.address, options.port, version=version, interface=options.interface) as socket:
        reflector = Reflector(socket, rules)
        report = _opened(options.json)  # a user without rights could not open it at the end
        if options.user is not None:
            from twinstamp.privileges import drop_privileges

            reflector.prepare()
            drop_privileges(options.user, "--user")
        print(f"reflecting on {options.address or 'any address'}, UDP port {socket.port}", file=sys.stderr)
        reflector.serve(lambda: bool(stopped), count=options.count)
    refused = {name: n for name, n in reflector.counts.items() if n and name != "answered"}
    print(f"{reflector.counts['answered']:,} answered, not answered: {refused or 'none'}", file=sys.stderr)
    counts = {"counts": reflector.counts, "lateness_ns": reflector.lateness_ns}
    if report is not None:
        try:
            with report:
                report.write(json.dumps(counts, indent=2) + "\n")
        except OSError as error:
            raise ConfigError(
                f"{options.json}: cannot be written: {error.strerror}; give another place"
            ) from error
    elif options.json is not None:
        write_json(options.json, counts)
    return 0


def _opened(path: str | None) -> TextIO | None:
    """The report's file; None for none, and for standard output."""
    if path is None or path == "-":
        return None
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; give another place") from error
