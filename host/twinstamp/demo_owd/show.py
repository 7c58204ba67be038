# SPDX-License-Identifier: Apache-2.0
"""Measured beside truth: a table for the terminal, a section and plots for the page."""

from __future__ import annotations

import base64
import html
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from twinstamp.demo_owd.compare import Errors, Figures
    from twinstamp.owd.report import Report

GOAL_NS = 7.5  # rms, two sites with tcxo + f9t each
COVERED = 0.999
_GOAL_CLOCK = ("tcxo", "f9t")


def rows(
    errors: Sequence[Sequence[Errors]], found: Sequence[Figures], sites: tuple[str, str]
) -> list[list[str]]:
    """Head and lines of the comparison: one column of text for each direction."""
    out = [["measured / truth", *(f"{sites[i]} to {sites[1 - i]}" for i in (0, 1))]]
    measured = [np.concatenate([e.measured_ns for e in way]) for way in errors]
    true = [np.concatenate([e.true_ns for e in way]) for way in errors]
    for name, percentile in (("minimum", 0), ("median", 50), ("p99", 99), ("maximum", 100)):
        out.append(
            [f"delay, {name}, ns"]
            + [
                f"{np.percentile(m, percentile):,.1f} / {np.percentile(t, percentile):,.1f}"
                for m, t in zip(measured, true, strict=True)
            ]
        )
    out.append(["lost"] + [f"{f.lost:,} / {f.truly_lost:,}" for f in found])
    out.append(["bursts, packets that arrived"] + [f"{f.epochs:,}, {f.packets:,}" for f in found])
    out.append(["error, rms, ns"] + [f"{f.rms_ns:.2f}" for f in found])
    out.append(["error, mean, ns"] + [f"{f.mean_ns:+.2f}" for f in found])
    out.append(["|error|, p99 and greatest, ns"] + [f"{f.p99_ns:.2f}, {f.max_ns:.2f}" for f in found])
    out.append(["bound, median, ns"] + [f"{f.median_bound_ns:.0f}" for f in found])
    out.append(["within the bound"] + [f"{100 * f.covered:.3f} %" for f in found])
    out.append(
        ["both clocks' rms, ns"]
        + [f"{f.clock_rms_ns[i]:.2f}, {f.clock_rms_ns[1 - i]:.2f}" for i, f in enumerate(found)]
    )
    out.append(["their root sum of squares with 2.31, ns"] + [f"{f.rss_ns:.2f}" for f in found])
    out.append(["difference of the clocks, rms, ns"] + [f"{f.clocks_rms_ns:.2f}" for f in found])
    out.append(["error without it (stamps), rms, ns"] + [f"{f.rest_rms_ns:.2f}" for f in found])
    gap = [np.min(measured[0]) - np.min(measured[1]), np.min(true[0]) - np.min(true[1])]
    out.append(["asymmetry of the minima, ns", f"{gap[0]:,.1f} / {gap[1]:,.1f}", ""])
    return out


def table(
    console: Console, errors: Sequence[Sequence[Errors]], found: Sequence[Figures], sites: tuple[str, str]
) -> None:
    """The comparison on a terminal."""
    from rich.table import Table

    head, *lines = rows(errors, found, sites)
    drawn = Table(*head)
    for column in drawn.columns[1:]:
        column.justify = "right"
    for line in lines:
        drawn.add_row(*line)
    console.print(drawn)


def verdict(clocks: Sequence[tuple[str, str]], found: Sequence[Figures]) -> tuple[bool, list[str]]:
    """Whether all promises hold, and a sentence for each."""
    said, good = [], True
    exact = all(f.lost == f.truly_lost for f in found)
    said.append("loss: as the cloud lost them" if exact else "loss: MISCOUNTED")
    covered = min(f.covered for f in found)
    said.append(
        f"bounds: {'hold' if covered >= COVERED else 'DO NOT HOLD'} for {100 * covered:.3f} % of the delays "
        f"(at least {100 * COVERED:g} % promised)"
    )
    good = exact and covered >= COVERED
    worst = max(f.rms_ns for f in found)
    if all(tuple(clock) == _GOAL_CLOCK for clock in clocks):
        good = good and worst <= GOAL_NS
        said.append(f"error: {worst:.2f} ns rms, at most {GOAL_NS} promised for this pair")
    else:
        rss = max(f.rss_ns for f in found)
        said.append(f"error: {worst:.2f} ns rms, both clocks and the stamp make {rss:.2f}")
    return good, said


def page(
    report: Report,
    notes: tuple[str, ...],
    errors: Sequence[Errors],
    found: Sequence[Figures],
    sites: tuple[str, str],
) -> str:
    """The page of `twinstamp owd report`, the comparison and its plots before the trains' own sections."""
    from twinstamp.owd.page import page as report_page

    head, *lines = rows([[e] for e in errors], found, sites)
    cells = "".join(f"<th>{html.escape(c)}</th>" for c in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in line) + "</tr>" for line in lines)
    pictures = "".join(
        f'<img alt="{html.escape(title)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
        for title, data in plots(errors, sites).items()
    )
    truth = "Truth: femtoseconds from the SFD on the sender's pins to the SFD on the receiver's."
    section = (
        f"<h2>Against the simulation's truth</h2><p>{truth}</p><table><tr>{cells}</tr>{body}</table>"
        f'<div class="plots">{pictures}</div>'
    )
    whole = report_page(report, notes=notes)
    before, mark, after = whole.partition("<h2>")
    return before + section + mark + after


def plots(errors: Sequence[Errors], sites: tuple[str, str]) -> dict[str, bytes]:
    """PNG images by title: errors over time within the bound, and their histogram, for each direction."""
    from twinstamp.owd.page import png

    out = {}
    for i, found in enumerate(errors):
        order = np.argsort(found.at_s)
        at, bound = found.at_s[order] / 3600, found.bound_ns[order].astype(float)
        bound[bound < 0] = np.nan

        def over_time(
            axes: Any, at: Any = at, bound: Any = bound, error: Any = found.error_ns[order]
        ) -> None:
            axes.fill_between(at, -bound, bound, alpha=0.2, label="± bound")
            axes.plot(at, error, ".", markersize=2, label="measured − true")
            axes.set_xlabel("hours of experiment time")
            axes.set_ylabel("ns")
            axes.legend(fontsize=7)

        def histogram(axes: Any, error: Any = found.error_ns) -> None:
            axes.hist(error, bins=60)
            axes.set_xlabel("measured − true, ns")
            axes.set_ylabel("packets")

        name = f"{sites[i]} to {sites[1 - i]}"
        for title, draw in ((f"{name}: error over time", over_time), (f"{name}: errors", histogram)):
            out[title] = png(title, draw)
    return out
