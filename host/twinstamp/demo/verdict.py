# SPDX-License-Identifier: Apache-2.0
"""Puts side by side what the endpoints sent, what nDPI saw without the appliance, and with it."""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from twinstamp.demo.dpi import Seen
from twinstamp.demo.flows import TCP, UDP, Count, Flow, FlowKey, Flows
from twinstamp.ledger import FATES
from twinstamp.units import format_ns

FATE_NAMES = {
    "forwarded": "forwarded to a DPI server",
    "duplicates_dropped": "duplicates dropped",
    "rule_drops": "dropped by a rule",
    "no_live_server": "no live server",
    "overload": "overload",
    "errors": "errors",
    "in_flight": "in flight",
}


class Evidence(NamedTuple):
    """Everything the verdict rests on.

    truth, truth_frames: what the endpoints sent. without: nDPI on the raw feed. servers: nDPI on each DPI
    server behind the appliance. report: the appliance's own. retransmissions: (the endpoints' kernels or
    the maker of the feed, tshark on the raw feed, tshark on the cleaned feed), None where unknown.
    """

    truth: Flows
    truth_frames: int
    without: Seen
    servers: dict[str, Seen]
    report: dict[str, Any]
    retransmissions: tuple[int | None, int | None, int | None]
    live: bool


class Verdict(NamedTuple):
    """What came out. faults: what makes the demo fail."""

    flows: int
    exact_without: int
    exact_with: int
    packets: tuple[int, int, int]
    bytes: tuple[int, int, int]
    both_directions: int
    two_way_flows: int
    split: list[FlowKey]
    faults: list[str]


def ledger_faults(report: dict[str, Any]) -> list[str]:
    """Where the ledger of a report does not add up: recomputed here, from the report alone."""
    ledger = report["ledger"]
    faults = []
    for unit in ("frames", "bytes"):
        received = ledger["received"][unit]
        fates = sum(ledger[fate][unit] for fate in FATES)
        if received != fates:
            faults.append(f"the ledger does not add up: {received} {unit} received, {fates} accounted for")
        copies = ledger["copies"]
        attempted = copies["attempted"][unit]
        sent = copies["sent"][unit] + copies["send_errors"][unit]
        if attempted != sent:
            faults.append(f"the ledger does not add up: {attempted} {unit} of copies attempted, {sent} sent")
    if ledger["in_flight"]["frames"]:
        faults.append(f"{ledger['in_flight']['frames']} frames were left in flight")
    servers = sum(server["frames"] for server in report["servers"].values())
    if servers != ledger["copies"]["sent"]["frames"]:
        faults.append(
            f"the servers' {servers} frames are not the ledger's {ledger['copies']['sent']['frames']}"
        )
    return faults


def judge(evidence: Evidence) -> Verdict:
    """Compares; see Verdict."""
    together: Flows = {}
    where: dict[FlowKey, list[str]] = {}
    for name, seen in evidence.servers.items():
        for key, flow in seen.flows.items():
            if key.protocol not in (TCP, UDP):
                continue  # neighbour discovery and such: no flow with two ends
            where.setdefault(key, []).append(name)
            had = together.get(key, Flow())
            together[key] = Flow(had.a.plus(*flow.a), had.b.plus(*flow.b))
    truth, without = evidence.truth, evidence.without.flows
    split = [key for key, names in where.items() if len(names) > 1]
    two_way = [key for key, flow in truth.items() if flow.a.packets and flow.b.packets]
    both = [
        key
        for key in two_way
        if len(where.get(key, ())) == 1 and together[key].a.packets and together[key].b.packets
    ]
    faults = ledger_faults(evidence.report)
    faults += [f"flow {key} was split over {', '.join(where[key])}" for key in split]
    faults += [
        f"flow {key} did not reach one server in both directions"
        for key in two_way
        if key not in both and key not in split
    ]

    def total(flows: Flows) -> Count:
        result = Count()
        for flow in flows.values():
            result = result.plus(*flow.total)
        return result

    transport = {key: flow for key, flow in without.items() if key.protocol in (TCP, UDP)}
    totals = total(truth), total(transport), total(together)
    return Verdict(
        flows=len(truth),
        exact_without=sum(without.get(key) == flow for key, flow in truth.items()),
        exact_with=sum(together.get(key) == flow for key, flow in truth.items()),
        packets=(totals[0].packets, totals[1].packets, totals[2].packets),
        bytes=(totals[0].bytes, totals[1].bytes, totals[2].bytes),
        both_directions=len(both),
        two_way_flows=len(two_way),
        split=split,
        faults=faults,
    )


def as_dict(evidence: Evidence, verdict: Verdict) -> dict[str, Any]:
    """The verdict as JSON: for tests, and for whoever wants the figures."""
    names = ("endpoints", "without", "with")
    return {
        "live": evidence.live,
        "flows": verdict.flows,
        "flows_exact": {"without": verdict.exact_without, "with": verdict.exact_with},
        "packets": dict(zip(names, verdict.packets, strict=True)),
        "bytes": dict(zip(names, verdict.bytes, strict=True)),
        "two_way_flows": verdict.two_way_flows,
        "both_directions_on_one_server": verdict.both_directions,
        "split_flows": [str(key) for key in verdict.split],
        "retransmissions": dict(zip(names, evidence.retransmissions, strict=True)),
        "applications": {
            name: dict(Counter(seen.applications.values()).most_common())
            for name, seen in evidence.servers.items()
        },
        "faults": verdict.faults,
        "report": evidence.report,
    }


def number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def times(value: int | None, truth: int | None) -> str:
    """A value and how many times the truth it is."""
    if value is None or not truth:
        return number(value)
    factor = value / truth
    return f"{value:,}  ({factor:.0f}×)" if factor >= 10 else f"{value:,}  ({factor:.2f}×)"


def table(narrow: bool, title: str, *columns: str) -> Table:
    """A table; a narrow one, for 80 columns, has no frame, and its texts wrap, but never its numbers."""
    result = Table(
        title="\n" + title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=None if narrow else box.HEAVY_HEAD,
    )
    for i, column in enumerate(columns):
        wraps = narrow and (i == 0 or column.startswith("applications"))
        head = column if wraps or not narrow else column.replace(" ", "\n")
        result.add_column(head, justify="left" if i == 0 else "right", no_wrap=not wraps)
    return result


def show(console: Console, evidence: Evidence, verdict: Verdict) -> None:
    """The tables a person reads."""
    report, ledger = evidence.report, evidence.report["ledger"]
    received = ledger["received"]
    narrow = console.width < 116

    fates = table(
        narrow, "The ledger: what became of each frame of the mirror feed", "", "frames", "bytes", "share"
    )
    fates.add_row(
        "received", number(received["frames"]), number(received["bytes"]), "100 %", end_section=True
    )
    for fate in FATES:
        share = f"{100 * ledger[fate]['frames'] / max(1, received['frames']):.1f} %"
        fates.add_row(FATE_NAMES[fate], number(ledger[fate]["frames"]), number(ledger[fate]["bytes"]), share)
    adds_up = not ledger_faults(report)
    fates.caption = "it adds up, in frames and in bytes" if adds_up else "IT DOES NOT ADD UP"
    console.print(fates)

    kinds = table(
        narrow,
        "Duplicates by type: how far behind the frame they repeat",
        "type",
        "frames",
        "bytes",
        "distance p50",
        "p99",
        "max",
        "delay p50",
        "p99",
        "max",
    )
    for kind, row in report["duplicates"]["by_type"].items():
        if row["frames"]:
            distance, delay = row["distance"], row["delay_ns"]
            kinds.add_row(
                kind,
                number(row["frames"]),
                number(row["bytes"]),
                *(number(distance[name]) for name in ("p50", "p99", "max")),
                *(format_ns(delay[name]) for name in ("p50", "p99", "max")),
            )
    kinds.caption = "distance in frames"
    console.print(kinds)

    farm = table(
        narrow,
        "The DPI servers",
        "server",
        "frames",
        "bytes",
        "flows",
        "send errors",
        "applications nDPI found",
    )
    for name, row in report["servers"].items():
        seen = evidence.servers[name]
        found = Counter(seen.applications.values()).most_common(4)
        farm.add_row(
            name,
            number(row["frames"]),
            number(row["bytes"]),
            number(len(seen.flows)),
            number(row["send_errors"]),
            ", ".join(f"{app} {n}" for app, n in found),
        )
    farm.caption = "flows: as nDPI saw them, which counts ICMP too"
    console.print(farm)

    said = "endpoints" if evidence.live else "made"
    good = table(
        narrow,
        "What it was good for: the same traffic, judged without and with the appliance",
        "",
        said,
        "without",
        "with",
    )
    packets, octets = verdict.packets, verdict.bytes
    good.add_row(
        "TCP and UDP packets nDPI had to look at",
        number(packets[0]),
        times(packets[1], packets[0]),
        times(packets[2], packets[0]),
    )
    good.add_row(
        "IP bytes nDPI counted", number(octets[0]), times(octets[1], octets[0]), times(octets[2], octets[0])
    )
    good.add_row(
        "flows counted right, each way, to the packet and byte",
        number(verdict.flows),
        number(verdict.exact_without),
        number(verdict.exact_with),
    )
    kernel, raw, cleaned = evidence.retransmissions
    good.add_row(
        "TCP retransmissions, as tshark sees them", number(kernel), times(raw, kernel), times(cleaned, kernel)
    )
    good.add_row(
        "flows with both directions on one server",
        number(verdict.two_way_flows),
        "one server",
        number(verdict.both_directions),
    )
    console.print(good)

    some = table(
        narrow, "Some flows: packets / bytes", "flow, ports", "nDPI", said, "without", "with", "server"
    )
    for key in examples(evidence):
        home = next((name for name, seen in evidence.servers.items() if key in seen.flows), "–")
        seen = evidence.servers.get(home, evidence.without)
        some.add_row(
            key.short,
            seen.applications.get(key, "–"),
            *(
                pair(flow).replace(" / ", " /\n" if narrow else " / ")
                for flow in (evidence.truth[key], evidence.without.flows.get(key), seen.flows.get(key))
            ),
            home,
        )
    console.print(some)
    for fault in verdict.faults[:10]:
        console.print(f"[bold red]fault:[/] {escape(fault)}")
    if len(verdict.faults) > 10:
        console.print(f"[bold red]and {len(verdict.faults) - 10} faults more[/]")


def pair(flow: Flow | None) -> str:
    return "–" if flow is None else f"{flow.total.packets:,} / {flow.total.bytes:,}"


def examples(evidence: Evidence) -> list[FlowKey]:
    """The largest and the smallest flow of each application, no more than eight."""
    by_application: dict[str, list[FlowKey]] = {}
    for key in sorted(evidence.truth, key=lambda key: -evidence.truth[key].total.bytes):
        by_application.setdefault(evidence.without.applications.get(key, "–"), []).append(key)
    chosen: list[FlowKey] = []
    for keys in by_application.values():
        chosen += keys[:1] + keys[-1:] if len(keys) > 1 else keys
    return chosen[:8]
