# SPDX-License-Identifier: Apache-2.0
"""`twinstamp dedup`: duplicates of a capture."""

from __future__ import annotations

import argparse
import sys
from functools import partial

from twinstamp.cli.common import (
    add_backend_option,
    add_window_options,
    deliver,
    refuse_same,
    warner,
    window_time_ns,
)
from twinstamp.errors import ConfigError

TYPE_CHECKING = False  # as in twinstamp.dedup: typing costs start-up time
if TYPE_CHECKING:
    from typing import Any


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser(
        "dedup",
        help=text,
        description="Removes, tags or counts the duplicates of a capture. With the profile exact and one "
        "window, the output holds exactly the records that editcap -D N or -w T leaves.",
    )
    parser.add_argument("input", metavar="IN", help='pcap or pcapng; "-" = standard input')
    parser.add_argument("output", metavar="OUT", nargs="?", help='capture to write; "-" = standard output')
    add_window_options(parser)
    add_backend_option(parser)
    parser.add_argument(
        "--action",
        choices=("drop", "tag", "count"),
        default=None,
        help="tag: write duplicates with a comment (pcapng); count: write all, only report; "
        "default: drop, for --profile nat tag (docs/duplicates.md says why)",
    )
    parser.add_argument(
        "--ignore-bytes", type=int, default=0, metavar="N", help="leave out the first N bytes (editcap -I)"
    )
    parser.add_argument(
        "--keep",
        default="",
        metavar="CLASSES",
        help="never judge these: arp,nd,llc,… (see docs/duplicates.md)",
    )
    parser.add_argument(
        "--format", choices=("pcap", "pcap-ns", "pcapng"), help="of OUT; default: by its ending"
    )
    parser.add_argument("--json", metavar="REPORT", help='write the report; "-" = standard output')
    parser.add_argument("--quiet", action="store_true", help="no summary on standard error")
    parser.set_defaults(function=run)


def run(options: argparse.Namespace) -> int:
    from twinstamp.dedup import dedup_capture

    if options.window is None and options.time is None:
        raise ConfigError("say how far back to look: --window N (frames), --time T (e.g. 50ms), or both")
    action = options.action or ("tag" if options.profile == "nat" else "drop")
    if options.output is None and action != "count":
        raise ConfigError("OUT is missing (only --action count works without it)")
    refuse_same(options.json, options.input, options.output)
    work = partial(
        dedup_capture,
        options.input,
        options.output,
        window=options.window,
        time_ns=window_time_ns(options),
        profile=options.profile,
        layer=options.layer,
        ignore_bytes=options.ignore_bytes,
        keep=[name.strip() for name in options.keep.split(",") if name.strip()],
        guard=options.guard,
        tunnels=options.tunnel,
        limit=options.limit,
        action=action,
        format=options.format,
        workers=options.workers,
        backend=options.backend,
        warn=warner(options),
    )
    return deliver(options, "duplicates", work, _summary)


def _summary(report: dict[str, Any]) -> None:
    received = report["ledger"]["received"]["frames"]
    by_type = {name: count["frames"] for name, count in report["duplicates"]["by_type"].items()}
    total = sum(by_type.values())
    share = f" ({100 * total / received:.1f} %)" if received else ""
    kinds = ", ".join(f"{name} {frames}" for name, frames in by_type.items() if frames)
    print(f"{received} frames, {total} duplicates{share}{': ' + kinds if kinds else ''}", file=sys.stderr)
    kept = report["duplicates"]["kept_by_class"]
    if kept:
        listed = ", ".join(f"{name} {count['frames']}" for name, count in kept.items())
        print(f"repeats kept by class: {listed}", file=sys.stderr)
    guarded = report["duplicates"]["guarded"]
    if guarded:
        why = {"ttl": "their TTL or hop limit rises", "tunnel": "the frame they repeat is in more tunnels"}
        listed = ", ".join(f"{count['frames']} ({why[name]})" for name, count in guarded.items())
        print(f"copies that may be what a decoy was to hide, let go on: {listed}", file=sys.stderr)
    if report["duplicates"]["limit_reached"]:
        print(
            f"for {report['duplicates']['limit_reached']} frames the time window was cut short by its limit "
            "of frames; raise --limit",
            file=sys.stderr,
        )
