# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML file that needs nothing else: tables and plots (docs/owd.md)."""

from __future__ import annotations

import base64
import html
import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp.errors import ConfigError
from twinstamp.leap import expiry_warning, leap_seconds
from twinstamp.owd import metrics
from twinstamp.units import format_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from twinstamp.owd.report import Report, TrainReport

    Int64 = npt.NDArray[np.int64]

MOST_PLOTTED = 20  # trains with plots and tables of their own: each takes a quarter of a second, and 88 kB
_MOST_LINES = 20  # warnings of one kind, pairs of directions
_POINTS = 2000  # of a line or a cloud; more cannot be seen
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 1080px; padding: 0 1em }
table { border-collapse: collapse; margin: .6em 0 }
td, th { padding: .2em .8em; border-bottom: 1px solid #ddd }
td { text-align: right; font-variant-numeric: tabular-nums }
td:first-child, th:first-child { text-align: left }
.plots { display: grid; grid-template-columns: 1fr 1fr; gap: .5em } .plots img { width: 100% }
.warn { background: #fff3cd; border-left: 4px solid #c80; padding: .5em 1em; margin: .6em 0 }
h2 { margin-top: 2em; border-top: 2px solid #ccc; padding-top: .6em }
"""


def check_matplotlib() -> None:
    """ConfigError where matplotlib is not installed: before minutes of reading, not after."""
    import importlib.util

    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("--html needs matplotlib, which is not installed: pip install 'twinstamp[plots]'")


def write_html(report: Report, path: str, *, notes: tuple[str, ...] = ()) -> None:
    """Writes the page. notes: sentences shown at its top, e.g. that idle time was warped."""
    text = page(report, notes=notes)
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(
            f"{path}: the page cannot be written: {error.strerror}; give another place"
        ) from error


def page(report: Report, *, notes: tuple[str, ...] = ()) -> str:
    """The page as text. Nothing in it refers to anything outside it. The MOST_PLOTTED trains with most
    packets have a section with plots each; the others are rows of the main table.
    """
    check_matplotlib()
    parts = ["<h1>One-way delay</h1>"]
    warnings = [*notes, *report.truncated, *warnings_of(report)]
    parts += [f'<p class="warn">{html.escape(text)}</p>' for text in warnings]
    if report.experiment is not None:
        parts.append(f"<p>{html.escape(str(report.experiment.get('title', '')))}</p>")
    parts.append(_overview(report))
    for pair in report.pairs[:_MOST_LINES]:
        there, back = report.trains[pair.forward], report.trains[pair.backward]
        found = pair.asymmetry
        bound = "unknown" if found.bound_ns is None else f"± {format_ns(found.bound_ns)}"
        parts.append(
            f"<p>Asymmetry, {html.escape(there.key.name)} less {html.escape(back.key.name)}: minima "
            f"{_ns(found.minimum_ns)}, medians {_ns(found.median_ns)} (bound {bound}); sum of the minima "
            f"{_ns(found.round_trip_ns)}.</p>"
        )
    more = len(report.pairs) - _MOST_LINES
    if more > 0:
        parts.append(f"<p>… and {more:,} further pairs of directions (JSON).</p>")
    plotted = plotted_trains(report)
    if len(plotted) < len(report.trains):
        parts.append(
            f"<p>Below: the {len(plotted)} trains with most packets. The other "
            f"{len(report.trains) - len(plotted):,} stand in the table above and in the JSON.</p>"
        )
    parts += [_section(train) for train in plotted]
    small = {**report.json(), "trains": len(report.trains)}
    told = html.escape(json.dumps(small, indent=1, ensure_ascii=False))
    parts.append(f"<h2>Options and captures</h2><pre>{told}</pre>")
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>One-way delay</title>'
        f"<style>{_STYLE}</style></head><body>" + "\n".join(parts) + "</body></html>\n"
    )


def plotted_trains(report: Report) -> list[TrainReport]:
    """The MOST_PLOTTED trains with most packets (arrived or sent), in the report's order."""
    sizes = np.array([max(len(train.judged), train.loss.sent) for train in report.trains], np.int64)
    greatest = np.sort(np.argsort(-sizes, kind="stable")[:MOST_PLOTTED])
    return [report.trains[i] for i in greatest]


def warnings_of(report: Report) -> list[str]:
    """What a reader must know before the figures: one sentence each."""
    out = []
    if report.options.unsynchronised:
        out.append("Clocks that do not follow a reference were allowed (--allow-unsynchronised).")
    if report.unsynchronised:
        out.append(
            f"{report.unsynchronised:,} packets rest on a clock that does not follow a reference: their "
            "delays are differences of two clocks, not delays."
        )
    for flag, text in (
        ("no_bound", "have no error bound, because a clock's is unknown"),
        ("negative", "have a negative delay"),
        ("outside_bound", "have a delay that is impossible within its bound: the bound is wrong"),
    ):
        n = sum(train.flagged[flag] for train in report.trains)
        if n:
            out.append(f"{n:,} packets {text}.")
    probe = (report.experiment or {}).get("kind") == "reflected"
    longer = "wait longer (--wait)" if probe else "capture longer"
    undecided = [
        f"{train.key.name}: {train.loss.undecided:,} packets that did not arrive are undecided, as nobody "
        f"watched until their time-out; {longer}, or give a shorter --timeout."
        for train in report.trains
        if train.loss.undecided
    ]
    backwards = [
        f"{train.key.name}: arrival stamps ran back {train.judged.arrivals.backwards:,} times in the "
        "capture; packets were sorted by them."
        for train in report.trains
        if train.judged.arrivals.backwards
    ]
    for lines, what in ((undecided, "undecided packets"), (backwards, "arrival stamps that ran back")):
        out += lines[:_MOST_LINES]
        if len(lines) > _MOST_LINES:
            out.append(f"… and {len(lines) - _MOST_LINES:,} further trains with {what}.")
    return out + _leap_warnings(report)


def _leap_warnings(report: Report) -> list[str]:
    edges = [edge for train in report.trains for edge in train.edges_ns()]
    if not edges:
        return []
    table, out = leap_seconds(), []
    leap = table.next(table.at_utc(min(edges) // 10**9) + min(edges) // 10**9)
    if leap is not None and table.utc_ns(np.array([leap.tai_s * 10**9]))[0] <= max(edges):
        if leap.change_s > 0:
            out.append(
                "A leap second was inserted in between: delays and gaps take it into account. Two seconds "
                "have one number: a departure in them is taken for the one with the smaller delay."
            )
        else:
            out.append("A second of UTC was left out in between: delays and gaps take it into account.")
    expired = expiry_warning(max(edges) / 1e9)
    return [*out, f"{expired[0].upper()}{expired[1:]}."] if expired else out


def _ns(value: float | None) -> str:
    return "–" if value is None else f"{value:,} ns"


def _table(head: list[str], rows: list[list[str]]) -> str:
    def line(cells: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(head, "th") + "".join(line(row, "td") for row in rows) + "</table>"


def overview_rows(report: Report) -> tuple[list[str], list[list[str]]]:
    """The main table: head and rows of text, for the page and the terminal."""
    head = ["train", "packets", "lost", "dup", "reord", "min", "median", "p99", "p99.99", "max", "bound ±"]
    rows = []
    for train in report.trains:
        delay, loss = train.delay, train.loss
        bound = train.bound.maximum
        rows.append(
            [train.key.name, f"{len(train.judged):,}",
             f"{loss.lost:,}" + ("" if loss.ratio is None else f" ({100 * loss.ratio:.3g} %)"),
             f"{train.duplication.copies:,}", f"{train.reordering.reordered:,}",
             *(_short(v) for v in (delay.minimum, delay.median, delay.percentiles["p99"],
                                   delay.percentiles["p99.99"], delay.maximum)),
             "unknown" if bound is None or train.bound.undefined else _short(bound)]
        )  # fmt: skip
    return head, rows


def _short(value: float | None) -> str:
    """ns with all digits below 1 ms, else µs."""
    if value is None:
        return "–"
    return f"{value:,} ns" if abs(value) < 1_000_000 else f"{value / 1000:,.3f} µs"


def _overview(report: Report) -> str:
    return _table(*overview_rows(report))


def _section(train: TrainReport) -> str:
    loss, dup, reordering = train.loss, train.duplication, train.reordering
    known = "told by the sender" if loss.known else "between the first and the last seen"
    rows = [
        ["sent", f"{loss.sent:,}", known],
        ["lost", f"{loss.lost:,}",
         f"{loss.missing:,} missing, {loss.late:,} after {format_ns(loss.timeout_ns)}"],
        ["duplicates", f"{dup.copies:,}", f"of {dup.replicated:,} packets"],
        ["reordered", f"{reordering.reordered:,}",
         f"extent at most {reordering.extent.maximum or 0}, {reordering.greatest_degree}-reordered at most"],
    ]  # fmt: skip
    out = [f"<h2>{html.escape(train.key.name)}</h2>", _table(["", "packets", ""], rows)]
    names = ("min", "p50", "p90", "p95", "p99", "p99.9", "p99.99", "max")
    spread = []
    for name, found in (
        ("delay", train.delay), ("delay, lost = ∞", train.delay_with_lost), ("PDV", train.pdv),
        ("IPDV", train.ipdv),
    ):  # fmt: skip
        values = {"min": found.minimum, "max": found.maximum, **found.percentiles}
        if name.endswith("∞") and loss.lost:
            values["max"] = None
        spread.append([name, *("–" if values[n] is None else f"{values[n]:,}" for n in names)])
    out.append(_table(["ns", *names], spread))
    hops = ", ".join(f"{h} ({n:,})" for h, n in train.hops.items())
    flags = ", ".join(f"{name.replace('_', ' ')} {n:,}" for name, n in train.flagged.items() if n)
    out.append(f"<p>Hops: {hops or '–'}. Flagged: {flags or 'none'}.</p>")
    out.append(
        _table(
            ["clock", "state", "bound", "epoch", "packets"],
            [[f"{c.side} ({c.source})", "synchronised" if c.synchronised else "NOT synchronised",
              ("unknown" if c.bound_ns < 0 else f"± {c.bound_ns:,} ns") + (" (given)" if c.given else ""),
              str(c.epoch), f"{c.packets:,}"] for c in train.clocks[:20]],
        )
    )  # fmt: skip
    if len(train.clocks) > 20:
        out.append(f"<p>… and {len(train.clocks) - 20} further clock states (JSON).</p>")
    if train.pairs is not None and train.pairs.mode_bps is not None:
        limit = ", limited by the sender" if train.pairs.limited_by_sender else ""
        out.append(f"<p>Capacity by packet pairs: {train.pairs.mode_bps / 1e6:,.3f} Mb/s{limit}.</p>")
    if train.chirps is not None and train.chirps.available_bps.median is not None:
        out.append(
            f"<p>Available, by chirps: {train.chirps.available_bps.median / 1e6:,.3f} Mb/s (median).</p>"
        )
    images = plots(train)
    pictures = "".join(
        f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        for title, data in images.items()
    )
    out.append(f'<div class="plots">{pictures}</div>')
    return "\n".join(out)


def png(title: str, draw: Callable[[Any], None]) -> bytes:
    """A plot of its own: ``draw`` is given its axes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.set_title(title, fontsize=10)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def plots(train: TrainReport) -> dict[str, bytes]:
    """PNG images by title: delay over time, CDF, histogram, IPDV, departures. Empty without packets."""
    judged = train.judged
    counted = judged.counted
    if not counted.any():
        return {}
    out = {}

    def picture(title: str, draw: Callable[[Any], None]) -> None:
        out[title] = png(title, draw)

    delays = np.sort(judged.delay_ns[counted])
    scale, unit = _unit(int(np.abs(delays[[0, -1]]).max()))
    picture("Delay over time, with its bound as a band", lambda axes: _over_time(axes, train, scale, unit))
    picture("Cumulative distribution of the delay", lambda axes: _cdf(axes, delays, scale, unit))
    picture("Histogram of the delay", lambda axes: _histogram(axes, delays, scale, unit, "delay"))
    variation = metrics.ipdv(judged)
    if len(variation):
        small, small_unit = _unit(int(np.abs(variation).max()))
        picture(
            "Delay variation of consecutive packets (IPDV)",
            lambda axes: _histogram(axes, np.sort(variation), small, small_unit, "IPDV"),
        )
    picture(_departure_title(train), lambda axes: _departures(axes, train))
    return out


def _unit(largest: int) -> tuple[float, str]:
    for limit, unit in ((10**9, "s"), (10**6, "ms"), (10**3, "µs")):
        if largest >= 10 * limit:
            return float(limit), unit
    return 1.0, "ns"


def _over_time(axes: Any, train: TrainReport, scale: float, unit: str) -> None:
    judged = train.judged
    received = judged.received_ns
    start = int(received[0])
    counted = np.flatnonzero(judged.counted)
    if len(counted) <= _POINTS:
        at = (received[counted] - start) / 1e9
        delay, bound = judged.delay_ns[counted] / scale, judged.bound_ns[counted] / scale
        known = judged.bound_ns[counted] >= 0
        band = np.where(known, bound, np.nan)
        axes.fill_between(at, delay - band, delay + band, alpha=0.3, label="± bound", step=None)
        axes.plot(at, delay, ".", markersize=2, label="delay")
    else:
        series = train.series
        used = series.minimum_ns != metrics.NONE_NS
        at = (series.from_ns[used] + series.width_ns // 2 - start) / 1e9
        low, high = series.minimum_ns[used] / scale, series.maximum_ns[used] / scale
        bound = np.where(series.bound_ns[used] >= 0, series.bound_ns[used] / scale, np.nan)
        middle = series.median_ns[used] / scale
        axes.fill_between(at, low, high, alpha=0.2, label="minimum to maximum")
        axes.fill_between(at, middle - bound, middle + bound, alpha=0.5, label="median ± bound")
        axes.plot(at, middle, linewidth=0.8, label="median")
    odd = np.flatnonzero(judged.flags & (metrics.NEGATIVE | metrics.OUTSIDE))[:_POINTS]
    if odd.size:
        axes.plot((received[odd] - start) / 1e9, judged.delay_ns[odd] / scale, "rx", label="flagged")
    axes.set_xlabel("s since the first arrival")
    axes.set_ylabel(f"delay, {unit}")
    axes.legend(fontsize=7)


def _cdf(axes: Any, delays: Int64, scale: float, unit: str) -> None:
    n = len(delays)
    # Dense where the curve ends: a linear choice of points would miss the tail.
    ranks = np.unique(
        np.concatenate(
            (np.linspace(1, n, _POINTS), n + 1 - np.geomspace(1, n, _POINTS), np.geomspace(1, n, _POINTS))
        ).astype(np.int64)
    )
    axes.plot(delays[ranks - 1] / scale, ranks / n, drawstyle="steps-post")
    axes.set_xlabel(f"delay, {unit}")
    axes.set_ylabel("share of the packets")


def _histogram(axes: Any, ordered: Int64, scale: float, unit: str, what: str) -> None:
    low, high = int(ordered[0]), int(ordered[-1])
    # Edges between whole ns: bins that hold unequal numbers of values would draw a comb.
    width = max(1, -(-(high - low + 1) // 120))
    edges = np.arange(low, high + width + 1, width)
    places = np.searchsorted(ordered, edges)
    axes.stairs(np.diff(places), (edges - 0.5) / scale, fill=True)
    axes.set_yscale("log")
    axes.set_xlabel(f"{what}, {unit}")
    axes.set_ylabel("packets")


def _departure_title(train: TrainReport) -> str:
    return "Schedule against departure" if train.schedule_ns is not None else "Gaps between departures"


def _departures(axes: Any, train: TrainReport) -> None:
    judged = train.judged
    order = metrics.counted_by_number(judged)
    if train.sent is not None:
        number = train.sent.sequence.astype(np.int64)
        sent = leap_seconds().arrivals(train.sent.sent_ns)
    else:
        number, sent = judged.arrivals.sequence[order].astype(np.int64), judged.sent_ns[order]
    if train.schedule_ns is not None:
        inside = number < len(train.schedule_ns)
        number, sent = number[inside], sent[inside]
        values = sent - train.schedule_ns[number]
        label = "departure less schedule"
    else:
        values, number = np.diff(sent), number[1:]
        label = "gap"
    if not len(values):
        return
    scale, unit = _unit(int(np.abs(values).max()))
    step = -(-len(values) // _POINTS)
    if step > 1:
        # The least and the greatest of every step, so that no outlier is left out.
        n = len(values) // step * step
        blocks = values[:n].reshape(-1, step)
        at = number[:n:step]
        axes.fill_between(at, blocks.min(axis=1) / scale, blocks.max(axis=1) / scale, alpha=0.7)
    else:
        axes.plot(number, values / scale, ".", markersize=2)
    axes.set_xlabel("sequence number")
    axes.set_ylabel(f"{label}, {unit}")
