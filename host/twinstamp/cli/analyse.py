# SPDX-License-Identifier: Apache-2.0
"""`twinstamp analyse`: a feed's duplicates, and the window that removes them."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from twinstamp.cli.common import (
    add_backend_option,
    add_tunnel_option,
    deliver,
    refuse_same,
    warner,
)


def register(commands: Any, text: str = "show a feed's duplicates and the window that removes them") -> None:
    parser = commands.add_parser(
        "analyse",
        help=text,
        description="Tells duplicates that the network made from legitimate repeats, shows both by distance "
        "and delay, and recommends a window (docs/duplicates.md has the rule).",
    )
    parser.add_argument("input", metavar="IN", help='pcap or pcapng; "-" = standard input')
    parser.add_argument(
        "--profile", choices=("exact", "vlan", "routing", "nat"), default="nat", help="what may differ"
    )
    parser.add_argument(
        "--layer", choices=("outer", "inner"), default="outer", help="inner: look into tunnels"
    )
    add_tunnel_option(parser)
    parser.add_argument(
        "--recall",
        type=float,
        default=0.999,
        metavar="R",
        help="share of the duplicates to remove, e.g. 0.999",
    )
    parser.add_argument(
        "--reach", type=int, default=1_000_000, metavar="N", help="frames to look back, at most 1,000,000"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="threads (same result with any)")
    add_backend_option(parser)
    parser.add_argument("--plot", metavar="FILE", help="draw the histograms: .png, .svg or .pdf")
    parser.add_argument("--json", metavar="REPORT", help='write the report; "-" = standard output')
    parser.set_defaults(function=run)


def run(options: argparse.Namespace) -> int:
    refuse_same(options.json, options.input, options.plot)
    refuse_same(options.plot, options.input, what="--plot")
    from twinstamp.analyse import analyse, plot

    if options.plot is not None:
        import importlib.util

        from twinstamp.errors import ConfigError

        # Before minutes of reading, not after.
        if importlib.util.find_spec("matplotlib") is None:
            raise ConfigError(
                "--plot needs matplotlib, which is not installed: "
                "pip install 'twinstamp[plots]', or leave it out"
            )
    work = partial(
        analyse,
        options.input,
        profile=options.profile,
        layer=options.layer,
        tunnels=options.tunnel,
        recall=options.recall,
        reach=options.reach,
        workers=options.workers,
        backend=options.backend,
        warn=warner(options),
    )
    draw = None if options.plot is None else partial(plot, path=options.plot)
    return deliver(options, "analysing", work, show, also=draw)


def show(report: dict[str, Any]) -> None:
    """The report for a person, on standard output."""
    from rich.console import Console
    from rich.table import Table

    from twinstamp.units import format_ns

    console = Console(highlight=False, soft_wrap=True)
    frames = report["frames"]

    def share(n: int) -> str:
        return f"{n:,} ({100 * n / frames:.2f} %)" if frames else "0"

    options = report["options"]
    console.print(
        f"{frames:,} frames; under {options['profile']}, layer {options['layer']}: "
        f"[bold]{share(report['network']['frames'])} duplicates by the network[/], "
        f"{share(report['legitimate']['frames'])} legitimate repeats"
    )
    table = Table(
        "type", "frames", "distance p50", "p99", "max", "delay p50", "p99", "max", title="Duplicates"
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name, found in report["network"]["by_type"].items():
        if found["frames"]:
            distance, delay = found["distance"], found["delay_ns"]
            table.add_row(
                name,
                f"{found['frames']:,}",
                *(f"{distance[q]:,}" for q in ("p50", "p99", "max")),
                *(format_ns(delay[q]) for q in ("p50", "p99", "max")),
            )
    if table.row_count:
        console.print(table, soft_wrap=False)
    legitimate = report["legitimate"]
    if legitimate["frames"]:
        reasons = ", ".join(f"{name} {n:,}" for name, n in legitimate["by_reason"].items() if n)
        classes = ", ".join(f"{name} {n:,}" for name, n in legitimate["by_class"].items())
        console.print(f"Legitimate repeats by reason: {reasons}; by class: {classes}")
    _bars(console, "Distance (frames back to the copy)", report["histograms"]["distance"], str)
    _bars(console, "Delay (after the copy)", report["histograms"]["delay_ns"], format_ns)
    window = report["window"]
    if window is None:
        console.print("No window is recommended: the network made no duplicates here.")
        return
    cost = window["cost"]
    console.print(
        f"Recommended window: [bold]--window {window['count']} --time {_option(window['time_ns'])}[/] "
        f"removes {window['caught']:,} of {report['network']['frames']:,} duplicates "
        f"(recall {window['recall']:.4f}, wanted {window['recall_wanted']:g})."
    )
    console.print(
        f"It costs {cost['frames']:,} legitimate repeats, {cost['with_default_keep']:,} where the appliance "
        f"keeps ARP, ND, STP and such. With the count alone: {window['count_only_cost']:,}; "
        f"with the time alone: {window['time_only_cost']:,}."
    )
    console.print(_guard(window["guarded"], window["caught"], options["layer"] == "inner"))


def _guard(guarded: int, caught: int, inner: bool) -> str:
    """Whether the feed obeys the appliance's guard against decoys, and what it costs."""
    rises = "TTL or hop limit rises" + (", or that is in fewer tunnels than the first," if inner else "")
    if not guarded:
        return f"The guard against decoys costs nothing here: there is no copy whose {rises}."
    return (
        f"The guard against decoys would let go on {guarded:,} of these duplicates "
        f"({100 * guarded / caught:.2f} %): "
        f"copies whose {rises}. If the feed's mirrors make them (behind a router first), turn it off: "
        'guard = "none".'
    )


def _option(time_ns: int) -> str:
    """The time as --time takes it back, exactly."""
    for unit, scale in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000)):
        if time_ns % scale == 0:
            return f"{time_ns // scale}{unit}"
    return f"{time_ns}ns"


def _bars(console: Any, title: str, data: dict[str, Any], label: Any) -> None:
    """A histogram in text: # by the network, · legitimate; at least one character for a bin with any."""
    from rich.markup import escape

    edges = data["from"]
    network = [
        sum(data[name][i] for name in data if name not in ("from", "legitimate")) for i in range(len(edges))
    ]
    legitimate = data["legitimate"]
    used = [i for i in range(len(edges)) if network[i] or legitimate[i]]
    if not used:
        return
    widest = max(network[i] + legitimate[i] for i in used)
    console.print(f"\n[bold]{title}[/]   █ by the network   ░ legitimate")
    for i in range(used[0], used[-1] + 1):
        solid, light = (-(-40 * n // widest) for n in (network[i], legitimate[i]))
        counts = f"{network[i]:,} + {legitimate[i]:,}" if network[i] or legitimate[i] else ""
        console.print(escape(f"  from {label(edges[i]):>9}  {'█' * solid}{'░' * light} {counts}"))
    console.print()
