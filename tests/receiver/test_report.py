# SPDX-License-Identifier: Apache-2.0
"""Logs and reports: statistics against calculations written here, and against allantools."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import allantools
import numpy as np
import pytest
from twinstamp.cli import main
from twinstamp_gps import analysis
from twinstamp_gps.errors import LogError
from twinstamp_gps.log import FIRST_LINE, ClockLog, read_log, write_log


def made(seconds: float = 200.0, *, rate: int = 10, seed: int = 5) -> dict[str, np.ndarray]:
    """A clock that is cold, acquires, locks, goes through an outage and comes back."""
    random = np.random.default_rng(seed)
    n = int(seconds * rate)
    t = np.arange(n) / rate
    state = np.select([t < 5, t < 20, t < 120, t < 150], [0, 1, 2, 3], 2)
    error = random.normal(size=n) * 2 + np.cumsum(random.normal(size=n)) * 0.05
    error[state == 0] = np.nan
    error[state == 3] += (t[state == 3] - 120) * 3
    bound = np.select([state == 0, state == 1, state == 2], [np.nan, 40.0, 5.0], 10 + (t - 120) * 3)
    return {"t_s": t, "state": state, "true_error_ns": error, "bound_ns": bound, "offset_ns": error * 0.5}


def log(tmp_path: Path, columns: dict[str, np.ndarray] | None = None, **about: object) -> Path:
    place = tmp_path / "clock.log"
    write_log(str(place), about, columns or made())
    return place


def test_log_comes_back_as_written(tmp_path: Path) -> None:
    columns = made()
    back = read_log(str(log(tmp_path, columns, seed=7, receiver="f9t")))
    assert back.about == {"seed": 7, "receiver": "f9t"}
    for name, values in columns.items():
        assert np.allclose(back.columns[name], values, atol=6e-5, equal_nan=True)
    assert np.isnan(back.get("qerr_ps")).all()


def test_statistics_by_state(tmp_path: Path) -> None:
    columns = made()
    report = analysis.summary(read_log(str(log(tmp_path, columns))))
    error, bound, state = columns["true_error_ns"], columns["bound_ns"], columns["state"]
    assert report["samples"] == 2000
    assert report["samples_left_out"] == 50
    assert set(report["errors"]) == {"all", "acquiring", "locked", "holdover"}
    for name, number in (("acquiring", 1), ("locked", 2), ("holdover", 3)):
        sizes = sorted(abs(e) for e, s in zip(error.tolist(), state.tolist(), strict=True) if s == number)
        inside = [
            abs(e) <= b
            for e, b, s in zip(error.tolist(), bound.tolist(), state.tolist(), strict=True)
            if s == number
        ]
        got = report["errors"][name]
        assert got["samples"] == len(sizes)
        assert got["rms_ns"] == pytest.approx((sum(e * e for e in sizes) / len(sizes)) ** 0.5, rel=1e-4)
        assert got["max_ns"] == pytest.approx(sizes[-1], abs=1e-4)
        place = 0.99 * (len(sizes) - 1)
        low = int(place)
        assert got["p99_ns"] == pytest.approx(
            sizes[low] + (place - low) * (sizes[low + 1] - sizes[low]), rel=1e-4
        )
        assert got["coverage"] == pytest.approx(sum(inside) / len(inside))
    assert report["errors"]["locked"]["median_bound_ns"] == 5.0
    assert 0.9 < report["errors"]["locked"]["coverage"] < 1


def plain_adev(x: list[float], n: int, tau0: float) -> float:
    """NIST SP 1065, equation 11: overlapping Allan deviation from phase."""
    terms = [x[i + 2 * n] - 2 * x[i + n] + x[i] for i in range(len(x) - 2 * n)]
    return float((sum(term * term for term in terms) / (2 * (n * tau0) ** 2 * len(terms))) ** 0.5)


def plain_mtie(x: list[float], n: int) -> float:
    """ITU-T G.810: the largest peak to peak in any window of n + 1 samples."""
    return max(max(x[i : i + n + 1]) - min(x[i : i + n + 1]) for i in range(len(x) - n))


def test_deviations_against_plain_formulas(tmp_path: Path) -> None:
    columns = made(60.0)
    columns["state"][:] = 2
    columns["true_error_ns"] = np.round(np.nan_to_num(columns["true_error_ns"]), 4)
    dev = analysis.deviations(read_log(str(log(tmp_path, columns))))
    x = columns["true_error_ns"].tolist()
    for tau, value in zip(dev.adev_s, dev.adev, strict=True):
        assert value == pytest.approx(plain_adev([e * 1e-9 for e in x], round(tau * 10), 0.1), rel=1e-9)
    for tau, value in zip(dev.mtie_s, dev.mtie_ns, strict=True):
        assert value == pytest.approx(plain_mtie(x, round(tau * 10)), rel=1e-9)
    assert len(dev.mtie_s) == 10 and dev.mtie_s[-1] == pytest.approx(51.2)


def test_mtie_is_that_of_allantools() -> None:
    x = np.cumsum(np.random.default_rng(2).normal(size=700))
    taus, values, _, _ = allantools.mtie(x, rate=1.0, data_type="phase", taus=[1, 2, 5, 17, 64, 333, 699])
    assert [analysis.mtie(x, int(tau)) for tau in taus] == pytest.approx(list(values))


def test_white_phase_noise_has_its_known_deviation() -> None:
    """1 ns of white phase noise: Allan deviation √3 · 1e-9 / τ (NIST SP 1065, table 3)."""
    n = 50_000
    columns = {"t_s": np.arange(n, dtype=float), "true_error_ns": np.random.default_rng(3).normal(size=n)}
    dev = analysis.deviations(ClockLog(columns=columns))
    for tau, value in zip(dev.adev_s[:8], dev.adev[:8], strict=True):
        assert value == pytest.approx(3**0.5 * 1e-9 / tau, rel=0.03)


def test_longest_piece_and_live_jitter() -> None:
    """A gap splits the log; samples a few ms early or late are put on a grid."""
    random = np.random.default_rng(4)
    t = np.concatenate([np.arange(0, 50.0), np.arange(80, 200.0)]) + random.uniform(-0.03, 0.03, 170)
    dev = analysis.deviations(ClockLog(columns={"t_s": t, "offset_ns": 7 * t}))
    assert dev.interval_s == pytest.approx(1, abs=0.01)
    assert dev.start_s == pytest.approx(80, abs=0.05)
    assert dev.seconds == pytest.approx(119, abs=1.5)
    assert dev.mtie_ns[3] == pytest.approx(7 * dev.mtie_s[3], rel=0.02)  # a constant drift of 7 ns/s


class Tags(HTMLParser):
    """Elements that are opened, and whether each non-empty one is closed in its turn."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(str(dict(attrs)["src"]))
        elif tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_report_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = log(tmp_path, note="</script><b>")
    page, numbers = tmp_path / "r.html", tmp_path / "r.json"
    assert main(["clock", "report", str(place), "--to", str(page), "--json", str(numbers)]) == 0
    text = page.read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert len(tags.images) == 4 and all(src.startswith("data:image/png;base64,iVBOR") for src in tags.images)
    assert "<b>" not in text
    report = json.loads(numbers.read_text())
    assert report == json.loads(re.findall(r"<script[^>]*>(.*)</script>", text)[0])
    assert report["error"] == "true_error_ns"
    shown = capsys.readouterr().out
    assert "time error (truth): 2000 samples over 199.9 s, 50 left out" in shown
    assert f"{report['errors']['locked']['rms_ns']:.2f}" in shown


def test_report_folder_and_estimate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns = made()
    del columns["true_error_ns"]
    target = tmp_path / "out"
    assert main(["clock", "report", str(log(tmp_path, columns)), "--to", str(target)]) == 0
    assert {p.name for p in target.iterdir()} == {
        "time_error.png", "histogram.png", "allan_deviation.png", "mtie.png", "report.txt", "report.json"
    }  # fmt: skip
    assert "the clock's own estimate" in (target / "report.txt").read_text()
    assert capsys.readouterr().out == (target / "report.txt").read_text()
    assert main(["clock", "report", str(tmp_path / "clock.log"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((target / "report.json").read_text())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no clock log"),
        ("t_s,state\n1,2\n", "is no clock log"),
        (f"{FIRST_LINE}\n# {{\n", "is damaged"),
        (f"{FIRST_LINE}\n# {{}}\nstate\n1\n", "is no clock log"),
        (f"{FIRST_LINE}\n# {{}}\nt_s,offset_ns\n", "has no sample"),
        (f"{FIRST_LINE}\n# {{}}\nt_s,offset_ns\n1,2\n2\n", "is damaged"),
        (f"{FIRST_LINE}\n# {{}}\nt_s,offset_ns\n1,x\n", "is damaged"),
        (f"{FIRST_LINE}\n# {{}}\nt_s,offset_ns\n1,2,3\n", "has 2 columns by its head, 3"),
        (f"{FIRST_LINE}\n# {{}}\nt_s,offset_ns\n2,2\n1,2\n", "does not grow"),
        (f"{FIRST_LINE}\n# {{}}\nt_s,offset_ns\nnan,2\n1,2\n", "does not grow"),
        (f"{FIRST_LINE}\n# {{}}\nt_s,qerr_ps\n1,2\n2,2\n", "no time error"),
        (f"{FIRST_LINE}\n# {{}}\nt_s,offset_ns\n1,2\n2,2\n", "no 8 samples"),
    ],
)
def test_logs_that_are_none(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "x.log"
    place.write_text(text)
    assert main(["clock", "report", str(place)]) == 1
    assert message in capsys.readouterr().err


def test_places_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(LogError, match="cannot be read"):
        read_log(str(tmp_path / "none"))
    place = str(log(tmp_path))
    assert main(["clock", "report", place, "--to", str(tmp_path / "no" / "such" / "r.html")]) == 2
    assert main(["clock", "report", place, "--to", place]) == 2
