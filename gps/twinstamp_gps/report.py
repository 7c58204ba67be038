# SPDX-License-Identifier: Apache-2.0
"""A clock log as a report: text, plots (matplotlib, extra `plots`), one HTML page or a folder."""

from __future__ import annotations

import base64
import html
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp_gps import analysis
from twinstamp_gps.errors import LogError, SettingError
from twinstamp_gps.log import STATES, ClockLog

if TYPE_CHECKING:
    from collections.abc import Callable

_ERROR_NAMES = {"true_error_ns": "time error (truth)", "offset_ns": "time error (the clock's own estimate)"}
_SHADES = {1: "#fff2cc", 3: "#f8cecc", 4: "#e1d5e7", 5: "#999999"}


def _shown(value: float | None, digits: int = 2) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def table(report: dict[str, Any]) -> list[list[str]]:
    """Errors by state as rows of text, a head first."""
    rows = [
        [
            "state",
            "samples",
            "rms ns",
            "mean ns",
            "P50 ns",
            "P99 ns",
            "P99.9 ns",
            "max ns",
            "covered %",
            "median bound ns",
        ]
    ]
    for state, e in report["errors"].items():
        covered = None if e["coverage"] is None else 100 * e["coverage"]
        numbers = [e[key] for key in ("rms_ns", "mean_ns", "p50_ns", "p99_ns", "p99_9_ns", "max_ns")]
        rows.append(
            [
                state,
                str(e["samples"]),
                *map(_shown, numbers),
                _shown(covered, 3),
                _shown(e["median_bound_ns"], 1),
            ]
        )
    return rows


def text(report: dict[str, Any]) -> str:
    """The summary as plain lines."""
    rows = table(report)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        f"{_ERROR_NAMES[report['error']]}: {report['samples']} samples over {report['seconds']:.1f} s"
        + (
            f", {report['samples_left_out']} left out (cold, or not known)"
            if report["samples_left_out"]
            else ""
        ),
        *("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows),
        "Allan deviation: "
        + ", ".join(f"{v:.2e} at {t:g} s" for t, v in _decades(report["allan_deviation"])),
        "MTIE: " + ", ".join(f"{v:.1f} ns in {t:g} s" for t, v in _decades(report["mtie_ns"])),
    ]
    return "\n".join(lines) + "\n"


def _decades(pairs: list[list[float]]) -> list[list[float]]:
    """The pairs nearest to 1, 10, 100 … s."""
    found = []
    for exponent in range(-3, 7):
        near = min(pairs, key=lambda pair: abs(np.log10(pair[0]) - exponent))
        if abs(np.log10(near[0]) - exponent) < 0.2 and near not in found:
            found.append(near)
    return found


def plots(log: ClockLog, report: dict[str, Any]) -> dict[str, bytes]:
    """PNG files by name: time_error, histogram, allan_deviation, mtie. LogError without matplotlib."""
    try:
        import matplotlib
    except ImportError as error:
        raise LogError("plots need matplotlib: pip install 'twinstamp[plots]'") from error
    matplotlib.use("Agg")
    name, error_ns = analysis.error_of(log)
    use = analysis.known(log)
    t, e, bound, state = (
        log.columns["t_s"][use],
        error_ns[use],
        log.get("bound_ns")[use],
        log.get("state")[use],
    )
    drawn: dict[str, Callable[[Any], None]] = {
        "time_error": lambda axes: _time_error(axes, t, e, bound, state, _ERROR_NAMES[name]),
        "histogram": lambda axes: _histogram(axes, e),
        "allan_deviation": lambda axes: _log_log(
            axes, report["allan_deviation"], "Allan deviation (overlapping)", ""
        ),
        "mtie": lambda axes: _log_log(axes, report["mtie_ns"], "MTIE", "ns"),
    }
    return {key: _png(draw) for key, draw in drawn.items()}


def _png(draw: Callable[[Any], None]) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    draw(figure.add_subplot())
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()


def _time_error(axes: Any, t: Any, e: Any, bound: Any, state: Any, title: str) -> None:
    axes.plot(t, e, linewidth=0.6, label=title, rasterized=True)
    if np.isfinite(bound).any():
        for sign in (1, -1):
            axes.plot(t, sign * bound, color="tab:red", linewidth=0.6, label="bound" if sign > 0 else None)
    for number, colour in _SHADES.items():
        here = np.concatenate(([False], state == number, [False]))
        edges = np.flatnonzero(np.diff(here))
        for index, (first, last) in enumerate(zip(edges[::2], edges[1::2], strict=True)):
            axes.axvspan(
                t[first], t[last - 1], color=colour, linewidth=0, label=STATES[number] if index == 0 else None
            )
    axes.set(xlabel="time, s", ylabel="ns")
    axes.legend(loc="upper right", fontsize="small")
    axes.grid(alpha=0.3)


def _histogram(axes: Any, e: Any) -> None:
    low, high = np.percentile(e, [0.05, 99.95])
    inside = e[(e >= low) & (e <= high)]
    axes.hist(inside, bins=min(200, max(10, int(len(inside) ** 0.5))))
    axes.set(
        xlabel=f"time error, ns ({len(e) - len(inside)} of {len(e)} samples lie outside the plot)",
        ylabel="samples",
    )
    axes.grid(alpha=0.3)


def _log_log(axes: Any, pairs: list[list[float]], title: str, unit: str) -> None:
    axes.loglog([pair[0] for pair in pairs], [pair[1] for pair in pairs], "o-", markersize=3)
    axes.set(
        xlabel="averaging time, s" if not unit else "observation interval, s",
        ylabel=f"{title}{', ' + unit if unit else ''}",
    )
    axes.grid(which="both", alpha=0.3)


def page(report: dict[str, Any], images: dict[str, bytes], title: str) -> str:
    """One HTML page that needs no other file."""
    head, *rows = table(report)
    cells = "".join(f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>" for row in rows)
    pictures = "".join(
        f"<h2>{html.escape(name.replace('_', ' '))}</h2>"
        f'<img alt="{name}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for name, png in images.items()
    )
    about = "".join(
        f"<li>{html.escape(str(key))}: {html.escape(json.dumps(value))}</li>"
        for key, value in report["about"].items()
    )
    data = json.dumps(report).replace("<", r"\u003c")  # no </script> in a name can end it
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title>"
        "<style>body{font-family:sans-serif;max-width:62em;margin:2em auto}"
        "td,th{padding:.2em .7em;text-align:right;border-bottom:1px solid #ddd}img{max-width:100%}</style>"
        f"<h1>{html.escape(title)}</h1><ul>{about}</ul>"
        f"<p>{html.escape(text(report).splitlines()[0])}</p>"
        f"<table><tr>{''.join(f'<th>{html.escape(c)}</th>' for c in head)}</tr>{cells}</table>{pictures}"
        f'<script type="application/json">{data}</script></html>\n'
    )


def write(log: ClockLog, target: str, title: str) -> dict[str, Any]:
    """Writes TARGET.html, or a folder with PNG files, report.txt and report.json; returns the summary.

    SettingError where it cannot be written, LogError where there is nothing to analyse.
    """
    report = analysis.summary(log)
    images = plots(log, report)
    place = Path(target)
    try:
        if place.suffix in (".html", ".htm"):
            place.write_text(page(report, images, title), encoding="utf-8")
        else:
            place.mkdir(parents=True, exist_ok=True)
            for name, data in images.items():
                (place / f"{name}.png").write_bytes(data)
            (place / "report.txt").write_text(text(report), encoding="utf-8")
            (place / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise SettingError(f"{target}: the report cannot be written: {error.strerror}") from error
    return report
