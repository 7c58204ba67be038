# SPDX-License-Identifier: Apache-2.0
"""`twinstamp rules`: check rule files, match a capture against them."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from twinstamp.cli.common import add_backend_option, deliver, refuse_same, warner, write_json

if TYPE_CHECKING:
    from twinstamp.balance import Group


def add_rules_options(parser: argparse.ArgumentParser) -> None:
    """--format, --layer, --workers."""
    parser.add_argument(
        "--format",
        choices=("toml", "classbench"),
        help="of the rules; default: toml where the name ends in .toml",
    )


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser("rules", help=text, description="Rules count from 0, frames from 1.")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    check = actions.add_parser(
        "check",
        help="read a rule file and say what is wrong with it",
        description="Reads and compiles a rule file; names rules that can never match.",
    )
    check.add_argument("file", metavar="FILE")
    add_rules_options(check)
    check.add_argument("--json", metavar="REPORT", help='write the report; "-" = standard output')
    check.set_defaults(function=run_check)

    match = actions.add_parser(
        "match",
        help="write the first matching rule of each frame of a capture",
        description='Writes a CSV with the header "frame,rule"; a frame that no rule matches has rule -1.',
    )
    match.add_argument("input", metavar="IN", help='pcap or pcapng; "-" = standard input')
    match.add_argument("--rules", required=True, metavar="FILE")
    match.add_argument("--out", required=True, metavar="FILE.csv", help='"-" = standard output')
    add_rules_options(match)
    match.add_argument(
        "--layer", choices=("outer", "inner"), default="outer", help="inner: look into tunnels"
    )
    match.add_argument("--workers", type=int, default=1, metavar="N", help="threads (same rules with any)")
    add_backend_option(match)
    match.add_argument("--json", metavar="REPORT", help="write the report")
    match.add_argument("--quiet", action="store_true", help="no summary on standard error")
    match.set_defaults(function=run_match)


def run_check(options: argparse.Namespace) -> int:
    refuse_same(options.json, options.file)
    from twinstamp.balance import Classifier, groups_from_table
    from twinstamp.rules import read_rules
    from twinstamp.toml_table import read_toml

    rules = read_rules(options.file, options.format)
    groups: tuple[Group, ...] = ()
    if options.format == "toml" or (options.format is None and options.file.endswith(".toml")):
        table = read_toml(options.file)
        groups = groups_from_table(table.get("group", {}), name=options.file)
    classifier = Classifier(rules, groups=groups)
    covered = rules.covered()
    impossible = rules.impossible()
    for index, why in impossible.items():
        print(f"{options.file}:{rules.rules[index].line}: rule {index} can never match: {why}")
    for index, by in covered.items():
        line, first = rules.rules[index].line, rules.rules[by].line
        print(
            f"{options.file}:{line}: rule {index} never matches: "
            f"rule {by} (line {first}) accepts all it accepts"
        )
    if options.json is not None:
        write_json(
            options.json,
            {
                "file": options.file,
                "rules": len(rules),
                "groups": list(rules.groups),
                "compiled_bytes": classifier.table_bytes,
                "covered": [{"rule": index, "by": by} for index, by in covered.items()],
                "impossible": [{"rule": index, "why": why} for index, why in impossible.items()],
            },
        )
    print(
        f"{options.file}: {len(rules)} rules, {len(rules.groups)} groups, "
        f"{len(covered) + len(impossible)} rules that never match; "
        f"compiled to {classifier.table_bytes / 1e6:.1f} MB",
        file=sys.stderr,
    )
    return 0


def run_match(options: argparse.Namespace) -> int:
    refuse_same(options.out, options.input, options.rules, what="--out")
    refuse_same(options.json, options.input, options.rules, options.out)
    from twinstamp.match import match_capture
    from twinstamp.rules import read_rules

    rules = read_rules(options.rules, options.format)
    work = partial(
        match_capture,
        options.input,
        rules,
        options.out,
        layer=options.layer,
        workers=options.workers,
        backend=options.backend,
        warn=warner(options),
    )
    return deliver(options, "rules", work, _matched)


def _matched(report: dict[str, Any]) -> None:
    print(
        f"{report['frames']} frames, {report['matched']} matched one of {report['rules']['count']} rules",
        file=sys.stderr,
    )
