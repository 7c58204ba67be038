# SPDX-License-Identifier: Apache-2.0
"""`twinstamp balance`: a capture's flows shared among servers, one capture each."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinstamp.cli.common import add_backend_option, deliver, refuse_same, warner
from twinstamp.cli.rules import add_rules_options

if TYPE_CHECKING:
    from twinstamp.balance import Group


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser(
        "balance",
        help=text,
        description="Writes one capture per server. Both directions and all fragments of a flow "
        "go to one server.",
    )
    parser.add_argument("input", metavar="IN", help='pcap or pcapng; "-" = standard input')
    parser.add_argument(
        "--rules", required=True, metavar="FILE", help="rules, and in TOML the groups' servers"
    )
    parser.add_argument(
        "--out-dir", required=True, metavar="DIR", help="one capture per server is written here"
    )
    add_rules_options(parser)
    parser.add_argument(
        "--servers",
        metavar="N|NAMES",
        help="a number, or names with weights (a,b:3), for all groups; default: those in FILE, else 4",
    )
    parser.add_argument(
        "--hash", choices=("flow", "ip"), default="flow", help="ip: addresses only, stateless"
    )
    parser.add_argument(
        "--layer", choices=("outer", "inner"), default="outer", help="inner: look into tunnels"
    )
    parser.add_argument(
        "--secret-file", metavar="FILE", help="made where absent; default: in your state folder"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="threads (same result with any)")
    add_backend_option(parser)
    parser.add_argument("--json", metavar="REPORT", help='write the report; "-" = standard output')
    parser.add_argument("--quiet", action="store_true", help="no table on standard error")
    parser.set_defaults(function=run)


def run(options: argparse.Namespace) -> int:
    from twinstamp.balance import Secret, groups_from_table, numbered_servers
    from twinstamp.match import balance_capture
    from twinstamp.rules import read_rules
    from twinstamp.toml_table import read_toml

    secret = options.secret_file or Secret.default_path()
    refuse_same(options.json, options.input, options.rules, secret)
    rules = read_rules(options.rules, options.format)
    groups: tuple[Group, ...] = ()
    if options.servers is None and (
        options.format == "toml" or (options.format is None and options.rules.endswith(".toml"))
    ):
        table = read_toml(options.rules)
        groups = groups_from_table(table.get("group", {}), name=options.rules)
    servers = numbered_servers(options.servers or "4")
    for name in {server.name for server in (*servers, *(s for group in groups for s in group.servers))}:
        for ending in (".pcap", ".pcapng"):
            refuse_same(options.json, Path(options.out_dir, name + ending))
    work = partial(
        balance_capture,
        options.input,
        rules,
        options.out_dir,
        groups=groups,
        servers=servers,
        secret=Secret.load(secret),
        layer=options.layer,
        hash=options.hash,
        workers=options.workers,
        backend=options.backend,
        warn=warner(options),
    )
    return deliver(options, "balance", work, _summary)


def _summary(report: dict[str, Any]) -> None:
    ledger = report["ledger"]
    width = max(len(server["name"]) for server in report["servers"])
    print(f"{'server':<{width}}  {'frames':>12}  {'bytes':>15}  {'flows':>9}", file=sys.stderr)
    for server in report["servers"]:
        flows = "many" if server["flows"] is None else server["flows"]
        print(
            f"{server['name']:<{width}}  {server['frames']:>12}  {server['bytes']:>15}  {flows:>9}",
            file=sys.stderr,
        )
    fates = ", ".join(f"{fate.replace('_', ' ')} {ledger[fate]['frames']}" for fate in (
        "forwarded", "rule_drops", "no_live_server", "errors"
    ))  # fmt: skip
    print(f"{ledger['received']['frames']} frames received = {fates}", file=sys.stderr)
