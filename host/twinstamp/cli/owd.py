# SPDX-License-Identifier: Apache-2.0
"""`twinstamp owd`: one-way delay from captures, through a reflector, and as an experiment."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from twinstamp.cli.common import Progress, refuse_same, write_json
from twinstamp.errors import ConfigError
from twinstamp.units import parse_time_ns

if TYPE_CHECKING:
    from twinstamp.owd.report import Options, Report

OUTPUTS = ("csv", "parquet", "raw", "etomic", "html", "pcapng")


def register(commands: Any, text: str = "one-way delay of packet trains") -> None:
    parser = commands.add_parser("owd", help=text, description="One-way delay of trains (docs/owd.md).")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    report = actions.add_parser(
        "report",
        help="report on trains from captures",
        description="Reports on the trains in captures taken where they arrive. The departure stands in the "
        "packets; with --sent the loss before the first and after the last packet seen counts, too.",
    )
    report.add_argument("captures", nargs="+", metavar="RX", help="pcap or pcapng, or what --raw wrote")
    report.add_argument(
        "--train",
        action="append",
        default=[],
        metavar="FILE",
        help="a train's file: its packets count as sent",
    )
    report.add_argument("--sent", nargs="+", default=[], metavar="TX", help="captures taken at the sender")
    report.add_argument(
        "--port", action="append", metavar="N", help="UDP port of test packets (862); repeated; any = all"
    )
    report.add_argument(
        "--receive-bound", metavar="T", help="bound of the receiving clock where the capture names none"
    )
    report.add_argument(
        "--tai-utc",
        type=int,
        metavar="S",
        help="TAI - UTC for PTP stamps; default: by leap seconds",
    )
    add_judging(report)
    add_outputs(report)
    report.set_defaults(function=run_report)

    run = actions.add_parser(
        "run",
        help="run an experiment: sites, cards, trains",
        description="Runs and reports the experiment in a TOML file (docs/owd.md: Experiments).",
    )
    run.add_argument("experiment", metavar="FILE", help="the experiment's TOML file")
    run.add_argument("--site", metavar="NAME", help="only this site's part; needs a `start` in the file")
    run.add_argument("--check", action="store_true", help="only say whether it can be run")
    run.add_argument("--captures", metavar="FOLDER", help="write what each site receives there, as pcapng")
    add_judging(run)
    add_outputs(run, pcapng=False)
    run.set_defaults(function=run_experiment)

    probe = actions.add_parser(
        "stamp",
        help="measure both directions through a STAMP reflector",
        description="Sends STAMP packets to a reflector and reports both directions, by kernel stamps.",
    )
    probe.add_argument("host", metavar="HOST", help="name or address of the reflector")
    probe.add_argument("--port", type=int, default=862, metavar="N", help="its UDP port (862)")
    probe.add_argument("--count", type=int, default=100, metavar="N", help="packets (100)")
    probe.add_argument("--gap", default="20ms", metavar="T", help="mean gap (20ms)")
    probe.add_argument("--law", choices=("poisson", "constant"), default="poisson", help="of the gaps")
    probe.add_argument("--seed", type=int, default=1, metavar="N", help="of Poisson gaps (1)")
    probe.add_argument("--payload", type=int, default=64, metavar="N", help="bytes of UDP payload (64)")
    probe.add_argument("--session", type=int, default=1, metavar="N", help="session identifier (1)")
    probe.add_argument("--format", choices=("ntp", "ptp"), default="ntp", help="of our timestamps")
    probe.add_argument("--no-follow-up", action="store_true", help="do not ask for departure stamps")
    probe.add_argument("--bound", metavar="T", help="bound of this host's clock; default: what adjtimex says")
    probe.add_argument(
        "--wait",
        default="1s",
        metavar="T",
        help="for the last answers (1s); what left within --timeout of its end and is missing is undecided",
    )
    probe.add_argument("--source", default="", metavar="A", help="address to send from")
    probe.add_argument("--interface", metavar="IF", help="only through this interface")
    add_judging(probe)
    add_outputs(probe, pcapng=False)
    probe.set_defaults(function=run_stamp)


def add_judging(parser: argparse.ArgumentParser) -> None:
    """How delays are judged."""
    parser.add_argument("--timeout", default="10s", metavar="T", help="later packets count as lost (10s)")
    parser.add_argument("--least-delay", default="0ns", metavar="T", help="no true delay is smaller (0ns)")
    parser.add_argument(
        "--add-bound", default="0ns", metavar="T", help="added to every bound, e.g. for calibration (0ns)"
    )
    parser.add_argument("--ttl", type=int, default=255, metavar="N", help="TTL at departure (255)")
    parser.add_argument("--interval", metavar="T", help="bins of the time series; default: fitting")
    parser.add_argument("--pair-gap", metavar="T", help="greatest gap of a packet pair at departure")
    parser.add_argument(
        "--allow-unsynchronised",
        action="store_true",
        help="take clocks that do not follow a reference; shows in every output",
    )


def add_outputs(parser: argparse.ArgumentParser, *, pcapng: bool = True) -> None:
    """Where the results go."""
    parser.add_argument("--json", metavar="FILE", help='write the report; "-" = standard output')
    parser.add_argument("--csv", metavar="FILE", help="write every packet as a line")
    parser.add_argument("--parquet", metavar="FILE", help="write every packet, as Parquet (needs pyarrow)")
    parser.add_argument("--raw", metavar="FILE", help="write owping's raw lines")
    parser.add_argument("--etomic", metavar="FILE", help="write ETOMIC's columns")
    parser.add_argument("--html", metavar="FILE", help="write a page with plots (needs matplotlib)")
    parser.add_argument(
        "--pcapng", metavar="FILE", help="write the test packets alone, flagged ones commented"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no table")


def judging(options: argparse.Namespace) -> Options:
    """The library's options out of the command's."""
    from twinstamp.owd.report import Options

    if not 0 <= options.ttl <= 255:
        raise ConfigError(f"--ttl {options.ttl}: give 0 to 255")
    return Options(
        timeout_ns=parse_time_ns(options.timeout, "--timeout"),
        least_ns=parse_time_ns(options.least_delay, "--least-delay"),
        extra_bound_ns=parse_time_ns(options.add_bound, "--add-bound"),
        ttl_sent=options.ttl,
        interval_ns=None if options.interval is None else parse_time_ns(options.interval, "--interval"),
        pair_gap_ns=None if options.pair_gap is None else parse_time_ns(options.pair_gap, "--pair-gap"),
        unsynchronised=options.allow_unsynchronised,
    )


def check_outputs(options: argparse.Namespace, *inputs: str) -> None:
    """Refuses what cannot be written before anything is read."""
    names = [getattr(options, name) for name in ("json", *OUTPUTS)]
    for name, path in zip(("json", *OUTPUTS), names, strict=True):
        refuse_same(path, *inputs, what=f"--{name}")
        if path is not None and names.count(path) > 1:
            raise ConfigError(f"--{name} {path}: is given for two outputs; choose another name")
    if options.parquet is not None:
        from twinstamp.owd.exports import check_parquet

        check_parquet()
    if options.html is not None:
        from twinstamp.owd.page import check_matplotlib

        check_matplotlib()


def write_outputs(
    options: argparse.Namespace,
    report: Report,
    captures: list[str],
    ports: Any = None,
    notes: tuple[str, ...] = (),
) -> None:
    """Writes what was asked for, and the table."""
    from twinstamp.owd import exports

    if options.csv is not None:
        exports.write_csv(report, options.csv)
    if options.parquet is not None:
        exports.write_parquet(report, options.parquet)
    if options.raw is not None:
        exports.write_raw(report, options.raw)
    if options.etomic is not None:
        exports.write_etomic(report, options.etomic)
    if options.pcapng is not None:
        exports.write_pcapng(captures, report, options.pcapng, ports=ports)
    if options.html is not None:
        from twinstamp.owd.page import write_html

        write_html(report, options.html, notes=notes)
    if options.json is not None:
        write_json(options.json, report.json())
    if not options.quiet and options.json != "-":
        show(report)


def run_report(options: argparse.Namespace) -> int:
    check_outputs(options, *options.captures, *options.sent)
    ports = _ports(options.port)
    how = judging(options)
    bound = options.receive_bound
    from twinstamp.owd.exports import RAW_HEAD, read_parquet, read_raw
    from twinstamp.owd.report import report_captures

    kind = _kind(options.captures, RAW_HEAD)
    if kind != "capture":
        if len(options.captures) > 1 or options.sent or options.pcapng:
            raise ConfigError(
                f"{options.captures[0]}: an export is reported alone, without --sent and --pcapng"
            )
        report = (read_raw if kind == "raw" else read_parquet)(options.captures[0])
    else:
        with Progress("reading") as progress:
            report = report_captures(
                options.captures,
                sent=options.sent,
                ports=ports,
                receive_bound_ns=-1 if bound is None else parse_time_ns(bound, "--receive-bound"),
                tai_utc_s=options.tai_utc,
                options=how,
                schedules=_schedules(options.train),
                progress=progress,
            )
    write_outputs(options, report, options.captures, ports)
    for text in report.truncated:
        print(f"twinstamp owd: {text}", file=sys.stderr)
    return 0


def _schedules(files: list[str]) -> dict[tuple[str, str, int], Any] | None:
    """Schedules of trains' files, after their first packets."""
    if not files:
        return None
    from twinstamp.train import load_train

    trains = [load_train(file) for file in files]
    return {(t.source, t.destination, t.session): t.schedule().ns() for t in trains}


def run_experiment(options: argparse.Namespace) -> int:
    check_outputs(options, options.experiment)
    how = judging(options)
    from pathlib import Path

    from twinstamp.owd.experiment import load_experiment, run

    experiment = load_experiment(options.experiment)
    if options.check:
        packets = sum(flight.train.total for flight in experiment.flights)
        print(f"{options.experiment}: {len(experiment.flights)} trains, {packets:,} packets: can be run")
        return 0
    folder = None
    if options.captures is not None:
        folder = Path(options.captures)
        if not folder.is_dir():
            raise ConfigError(f"--captures {folder}: is no folder")
    report = run(
        experiment,
        only=options.site,
        allow_unsynchronised=options.allow_unsynchronised,
        captures=folder,
        options=how,
        progress=_progress if sys.stderr.isatty() and not options.quiet else None,
    )
    write_outputs(options, report, [])
    return 0


def _progress(sent: int, total: int) -> None:
    sys.stderr.write(f"\r{sent:,} of {total:,} packets sent" + ("\n" if sent == total else ""))
    sys.stderr.flush()


def run_stamp(options: argparse.Namespace) -> int:
    check_outputs(options)
    how = judging(options)
    from twinstamp.owd.session import Plan, measure

    plan = Plan(
        count=options.count,
        gap_ns=parse_time_ns(options.gap, "--gap"),
        law=options.law,
        seed=options.seed,
        payload=options.payload,
        session=options.session,
        ptp=options.format == "ptp",
        follow_up=not options.no_follow_up,
    )
    report = measure(
        options.host,
        plan,
        port=options.port,
        source=options.source,
        interface=options.interface,
        bound_ns=None if options.bound is None else parse_time_ns(options.bound, "--bound"),
        wait_ns=parse_time_ns(options.wait, "--wait"),
        options=how,
    )
    write_outputs(options, report, [])
    if not any(len(train.judged) for train in report.trains):
        print(f"twinstamp owd: {options.host} answered nothing", file=sys.stderr)
        return 1
    return 0


def _ports(given: list[str] | None) -> tuple[int, ...] | None:
    if given is None:
        return (862,)
    if "any" in given:
        return None
    if any(not text.isdigit() or not 0 < int(text) < 1 << 16 for text in given):
        raise ConfigError(f"--port {' '.join(given)}: give 1 to 65535, or any")
    return tuple(int(text) for text in given)


def _kind(captures: list[str], raw_head: str) -> str:
    """Whether the first input is a capture or one of our own exports."""
    if captures[0] == "-":
        return "capture"
    try:
        with open(captures[0], "rb") as file:
            head = file.read(len(raw_head))
    except OSError:
        return "capture"  # whose reader says what is wrong
    if head[:4] == b"PAR1":
        return "parquet"
    return "raw" if head == raw_head.encode() or head[:1].isdigit() else "capture"


def show(report: Report) -> None:
    """The report for a person, on standard output."""
    from rich.console import Console
    from rich.table import Table

    from twinstamp.owd.page import overview_rows, warnings_of

    console = Console(highlight=False, soft_wrap=True)
    head, rows = overview_rows(report)
    table = Table(*head)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for pair in report.pairs:
        bound = pair.asymmetry.bound_ns
        console.print(
            f"{report.trains[pair.forward].key.name} less {report.trains[pair.backward].key.name}: minima "
            f"{pair.asymmetry.minimum_ns:,} ns, medians {pair.asymmetry.median_ns:,} ns, bound "
            f"{'unknown' if bound is None else f'{bound:,} ns'}",
            markup=False,
        )
    for train in report.trains:
        loss = train.loss
        told = "told by the sender" if loss.known else "first to last seen"
        console.print(
            f"{train.key.name}: {loss.sent:,} sent ({told}), time-out {loss.timeout_ns / 1e9:g} s",
            markup=False,
        )
    for text in warnings_of(report):
        console.print(f"warning: {text}", markup=False)
