# SPDX-License-Identifier: Apache-2.0
"""`twinstamp train`: checks, shows and sends packet trains that files describe (docs/trains.md)."""

from __future__ import annotations

import argparse
import re
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from twinstamp.cli.common import refuse_same, write_json
from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from fractions import Fraction

    from twinstamp.card.card import Card, CardBatch
    from twinstamp.card.trains import TrainReport, TrainRun, TrainStatus
    from twinstamp.train import Train, TrainCheck

_LOOP_NS = 50.0  # --loop's cable
_UTC = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:\.(\d{1,19}))?Z")


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser(
        "train",
        help=text,
        description="Packet trains described by TOML or JSON files: checked, shown, sent. docs/trains.md.",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    check = _verb(verbs, "check", "say whether trains fit a wire", _check, several=True)
    check.add_argument(
        "--rate", default="1G", metavar="BITS", help="of the wire, bit/s: 1G, 100M (default: 1G)"
    )
    _add_json(check)
    show = _verb(verbs, "show", "list or draw a train's schedule", _show, several=False)
    show.add_argument("--first", type=int, default=20, metavar="N", help="packets to list (default: 20)")
    show.add_argument(
        "--csv", metavar="FILE", help="all packets: sequence, seconds, fraction in 2^-64 s, ns, bytes"
    )
    show.add_argument("--plot", metavar="FILE", help="a picture, .png, .svg or .pdf")
    show.add_argument("--start", default="0s", metavar="T", help="time of the first packet (default: 0s)")
    _add_json(show)
    send = _verb(verbs, "send", "send trains from a port of a card, several at once", _send, several=True)
    send.add_argument("--card", default="sim", metavar="NAME", help="which card (default: sim)")
    send.add_argument("--port", type=int, default=0, metavar="N", help="which of its ports (default: 0)")
    when = send.add_mutually_exclusive_group()
    when.add_argument("--start", metavar="UTC", help="first packet, as 2026-11-20T12:00:00.5Z")
    when.add_argument("--after", default="1ms", metavar="T", help="first packet from now (default: 1ms)")
    send.add_argument("--report", action="store_true", help="report every departure, not only late ones")
    send.add_argument(
        "--allow-unsynchronised", action="store_true", help="send although the clock follows no reference"
    )
    send.add_argument(
        "--allow-late", action="store_true", help="send although the train does not fit the wire"
    )
    send.add_argument(
        "--loop", type=int, metavar="N", help="simulated card: a cable of 50 ns from the port to port N"
    )
    send.add_argument(
        "--to", metavar="FILE", help="write what the card receives meanwhile to a capture (pcapng)"
    )
    send.add_argument("--quiet", action="store_true", help="no summary and no progress")
    _add_json(send)


def _verb(
    verbs: Any, name: str, text: str, function: Callable[[argparse.Namespace], int], *, several: bool
) -> Any:
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    if several:
        parser.add_argument("file", nargs="+", metavar="FILE", help="TOML, or JSON where it ends in .json")
    else:
        parser.add_argument("file", metavar="FILE", help="TOML, or JSON where it ends in .json")
    parser.set_defaults(function=function)
    return parser


def _add_json(parser: Any) -> None:
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="REPORT", help="as JSON, here or on standard output"
    )


# check


def _check(options: argparse.Namespace) -> int:
    from twinstamp.train import load_train

    rate = _rate(options.rate)
    for path in options.file:
        refuse_same(options.json, path)
    checked = []
    for path in options.file:
        train = load_train(path)
        checked.append((path, train, train.check(rate)))
    if options.json is not None:
        write_json(options.json, {"version": 1, "rate": rate, "trains": [_plain(*one) for one in checked]})
    if options.json != "-":
        for path, train, check in checked:
            print(_line(path, train, check))
    return 0


def _rate(text: str) -> int:
    match = re.fullmatch(r"(\d{1,12})([kMG]?)", text)
    if match is None:
        raise ConfigError(f"--rate {text}: write a number of bit/s, as 1G, 100M or 1000000")
    return int(match[1]) * {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}[match[2]]


def _plain(path: str, train: Train, check: TrainCheck) -> dict[str, Any]:
    return {
        "file": path,
        "train": train.name,
        "packets": check.packets,
        "octets": check.octets,
        "span_s": float(check.span),
        "load": check.load,
        "late": check.late,
        "worst_delay_s": float(check.worst_delay),
    }


def _line(path: str, train: Train, check: TrainCheck) -> str:
    from twinstamp.train.train import format_short

    late = (
        f"; {check.late:,} collide by chance, by {format_short(check.worst_delay)} at most"
        if check.late
        else ""
    )
    return (
        f"{path}: {train.name}: {check.packets:,} packets, {check.octets:,} octets over "
        f"{format_short(check.span)}, {check.load:.2%} of the wire{late}"
    )


# show


def _show(options: argparse.Namespace) -> int:
    from twinstamp.train import load_train

    train = load_train(options.file)
    for name in ("csv", "plot", "json"):
        refuse_same(getattr(options, name), options.file, what=f"--{name}")
    if options.first < 0:
        raise ConfigError(f"--first {options.first}: give 0 or more")
    schedule = train.schedule(options.start)
    if options.csv is not None:
        _write_csv(options.csv, schedule)
    if options.plot is not None:
        from twinstamp.train.plot import plot_train

        plot_train(train, options.plot)
    ns = schedule.ns().tolist()
    if options.json is not None:
        listed = zip(ns[: options.first], schedule.size[: options.first].tolist(), strict=True)
        report = {
            "version": 1,
            "train": train.name,
            "packets": len(schedule),
            "first": [{"sequence": i, "ns": at, "bytes": size} for i, (at, size) in enumerate(listed)],
        }
        write_json(options.json, report)
        return 0
    for i in range(min(options.first, len(schedule))):
        whole, rest = divmod(ns[i], 10**9)
        print(f"{i:10}  {whole}.{rest:09} s  {int(schedule.size[i]):5} bytes")
    if 0 < options.first < len(schedule):
        print(f"           … {len(schedule) - options.first:,} more")
    return 0


def _write_csv(path: str, schedule: Any) -> None:
    rows = zip(
        schedule.seconds.tolist(),
        schedule.fraction.tolist(),
        schedule.ns().tolist(),
        schedule.size.tolist(),
        strict=True,
    )
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write("sequence,seconds,fraction_q64,ns,bytes\n")
            file.writelines(f"{i},{s},{f},{ns},{size}\n" for i, (s, f, ns, size) in enumerate(rows))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}; give another place") from error


# send


def _send(options: argparse.Namespace) -> int:
    from twinstamp.card import Card, open_any_card
    from twinstamp.card.capture import CardCapture
    from twinstamp.card.sim import SimulatedCard
    from twinstamp.io.files import create_capture
    from twinstamp.leap import leap_seconds
    from twinstamp.train import load_train

    for path in options.file:
        refuse_same(options.json, path)
        refuse_same(options.to, path, what="--to")
    refuse_same(options.json, options.to)
    trains = [load_train(path) for path in options.file]
    for train in trains:
        if not options.allow_late:
            train.check()
    with ExitStack() as stack:
        card: Any = stack.enter_context(open_any_card(options.card))
        simulated = card.transport if isinstance(card, Card) else None
        if isinstance(simulated, SimulatedCard):
            # It has no receiver to learn the time from.
            card.set_utc_offset(leap_seconds().offset(int(time.time())))
            card.load_time_q32((card.utc_offset().tai_ns(time.time_ns()) // 10**9) << 32)
            if options.loop is not None:
                simulated.connect(options.port, simulated, options.loop, delay_ns=_LOOP_NS)
        elif options.loop is not None:
            raise ConfigError("--loop: only the simulated card's cables can be plugged here")
        writer = None
        if options.to is not None:
            writer = CardCapture(stack.enter_context(create_capture(options.to, format="pcapng")), card)
        card.start()
        runs = _arm(options, card, trains)

        def on_batch(batch: CardBatch) -> None:
            if writer is not None:
                writer.write(batch)

        reports = _await(runs, on_batch, quiet=options.quiet or options.json == "-")
        if writer is not None:
            writer.finish(card)
    if options.json is not None:
        write_json(options.json, {"version": 1, "trains": [report.summary() for report in reports]})
    if not options.quiet and options.json != "-":
        for report in reports:
            _say(report)
    return 0 if all(report.status.done for report in reports) else 1


def _arm(options: argparse.Namespace, card: Card, trains: list[Train]) -> list[TrainRun]:
    from fractions import Fraction

    from twinstamp.train.fixed import exact_seconds

    start: Fraction
    if options.start is not None:
        start = _utc(options.start)
        start += card.utc_offset().tai_ns(int(start) * 10**9) // 10**9 - int(start)
    else:
        start = Fraction(card.time_q32(), 1 << 32) + exact_seconds(options.after, "--after")
    port = card.port(options.port)
    runs: list[TrainRun] = []
    try:
        for train in trains:
            runs.append(
                port.send(
                    train,
                    start=start,
                    report=options.report,
                    allow_unsynchronised=options.allow_unsynchronised,
                    allow_late=options.allow_late,
                )
            )
    except BaseException:
        for run in runs:
            run.stop()
        raise
    return runs


def _utc(text: str) -> Fraction:
    """Seconds since 1970 UTC."""
    from datetime import datetime
    from fractions import Fraction

    match = _UTC.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        whole = datetime.fromisoformat(f"{match[1]}T{match[2]}+00:00").timestamp()
    except ValueError:
        raise ConfigError(f"--start {text}: write a time in UTC as 2026-11-20T12:00:00.5Z") from None
    return int(whole) + Fraction(f"0.{match[3] or 0}")


def _await(runs: list[TrainRun], on_batch: Callable[[CardBatch], None], *, quiet: bool) -> list[TrainReport]:
    shown = not quiet and sys.stderr is not None and sys.stderr.isatty()
    last = [0.0]

    def progress(status: TrainStatus) -> None:
        if shown and time.monotonic() - last[0] > 0.2:
            last[0] = time.monotonic()
            sent = sum(run.status().sent for run in runs)
            total = sum(run.train.total for run in runs)
            print(f"\r{sent:,} of {total:,} packets", end="", file=sys.stderr, flush=True)

    try:
        for run in runs:
            run.wait(progress=progress, on_batch=on_batch)
    except KeyboardInterrupt:
        for run in runs:
            run.stop()
    finally:
        if shown:
            print("\r\033[K", end="", file=sys.stderr)
    return [run.wait(on_batch=on_batch) for run in runs]


def _say(report: TrainReport) -> None:
    from twinstamp.train.train import format_short

    status = report.status
    late = f", {status.late:,} late by {format_short(status.worst_delay)} at most" if status.late else ""
    clock = "" if report.synchronised else "; clock not synchronised"
    print(
        f"{report.train.name}: {status.sent:,} of {report.train.total:,} packets from port {report.port}"
        f"{late}{clock}"
    )
    missed = report.departures[report.departures["late"] != 0]
    for one in missed[:10]:
        print(f"  packet {int(one['sequence'])}: {int(one['delay_q32']) * 1e9 / 2**32:.1f} ns late")
    if len(missed) > 10:
        print(f"  … {len(missed) - 10:,} more (--json has 1000)")
    if status.unreported:
        print(f"  {status.unreported:,} departures were not reported for want of room")
