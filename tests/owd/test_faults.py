# SPDX-License-Identifier: Apache-2.0
"""Raw lines and heads that nobody wrote, disks without room, captures with trains without end."""

from __future__ import annotations

import json
import os
import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.cli import main
from twinstamp.errors import ConfigError, InputError
from twinstamp.owd import Options, exports, metrics, report_captures
from twinstamp.owd.page import MOST_PLOTTED, page, warnings_of

from tests.owd.world import T0_NS, world, write

NTP = (T0_NS // 10**9 + 2_208_988_800) << 32


def raw_line(serr: str = "0.001", rerr: str = "0.001", number: int = 0) -> str:
    return f"{number} {NTP} 1 {serr} {NTP + 4_000_000} 1 {rerr} 255\n"


def read(path, text: str):
    path.write_text(text)
    return exports.read_raw(str(path))


# Error estimates of raw lines: the bound is that of both lines or more, or none


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("text", [
    "0", "1e-300", "1e-12", "4.57764e-05", "0.1", "0.001", "1", "5.4", "86400", "1e9", "1.1e9", "1.2e9",
    "1e12", "5e11", "1e20", "1e308", "1e309", "inf", "1.0000000000000000001", "9" * 40, "0." + "3" * 60,
])  # fmt: skip
def test_a_bound_is_never_smaller_than_the_line_says(tmp_path, side: int, text: str):
    errors = ["0", "0"]
    errors[side] = text
    bound = read(tmp_path / "x", raw_line(*errors)).trains[0].judged.bound_ns[0]
    if text == "inf" or Fraction(text) > Fraction(2**60, 10**9):
        assert bound == -1
    else:
        want = Fraction(text) * 10**9
        assert bound >= want
        assert bound <= want * Fraction(129, 128) + 4  # 8 bits of Multiplier, 1 ns of rounding for each


@settings(max_examples=200, deadline=None)
@given(st.floats(min_value=0, allow_nan=False), st.floats(min_value=0, allow_nan=False))
def test_no_bound_is_too_small(tmp_path_factory, serr: float, rerr: float):
    path = tmp_path_factory.mktemp("raw") / "x"
    bound = int(read(path, raw_line(repr(serr), repr(rerr))).trains[0].judged.bound_ns[0])
    if bound != -1:
        assert bound >= (Fraction(serr) + Fraction(rerr)) * 10**9
    else:
        assert max(serr, rerr) * 1e9 > 2**60 / 1.01


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("text", ["-1", "-0.5", "-1e-9", "-inf", "nan", "x", "1/0", "1/2", "0x1", "--1"])
def test_errors_that_are_none_are_refused(tmp_path, side: int, text: str):
    errors = ["0", "0"]
    errors[side] = text
    with pytest.raises(InputError, match="raw line"):
        read(tmp_path / "x", raw_line(*errors))


def test_bounds_of_packets_and_users_beyond_what_is_counted(tmp_path):
    """Multiplier 200, Scale 54: 2^61.6 s in 2^-32 s, 26 years; Scale 56: 104 years, which is no bound."""
    for scale, known in ((54, True), (55, False), (56, False), (60, False)):
        rx = write(tmp_path / "rx.pcapng", world("constant", 3).arrived, error=0x8000 | scale << 8 | 200)
        bound = report_captures([rx]).trains[0].judged.bound_ns
        said = Fraction(200 << scale, 2**32) * 10**9
        assert (bound >= said).all() if known else (bound == -1).all()
    with pytest.raises(ConfigError, match="further bound"):
        report_captures([rx], options=Options(extra_bound_ns=(1 << 60) + 1))
    assert metrics.MOST_BOUND_NS == 1 << 60


@pytest.mark.parametrize("line", [
    "-1 1 1 0 1 1 0 255", "0 1 1 0 1 1 0 256", "0 1 1 0 1 1 0 00000255000", "0 -1 1 0 1 1 0 255",
    f"0 {2**64} 1 0 1 1 0 255", "0 1 1 0 1.5 1 0 255", f"{10**30} 1 1 0 1 1 0 255", "0 1 1 0 1 1 0",
    "0 1 1 0 1 1 0 255 9\n0 1 1 0 1 1 0",
])  # fmt: skip
def test_numbers_that_do_not_fit_are_refused(tmp_path, line: str):
    with pytest.raises(InputError, match="raw line"):
        read(tmp_path / "x", line + "\n")


def test_more_receiver_errors_than_can_be_told_apart(tmp_path):
    lines = [raw_line("0", f"0.{k:09d}", k) for k in range(65_536)]
    with pytest.raises(InputError, match="65535"):
        read(tmp_path / "x", "".join(lines))
    assert len(read(tmp_path / "x", "".join(lines[:65_535])).trains[0].judged) == 65_535
    # As many of the sender's: they share 16 bits.
    assert (
        len(read(tmp_path / "x", "".join(raw_line(f"0.{k:09d}", "0", k) for k in range(65_600))).trains) == 1
    )


# Heads that `write_raw` did not write


def head(**changes) -> str:
    """A good comment line with changes; ... removes a key."""
    said = {
        "options": {"timeout_ns": 10**10}, "until_ns": T0_NS, "frames": 1, "refused": {}, "truncated": [],
        "sources": ["a"], "sent_sources": [], "experiment": None,
        "key": {"source": "a", "destination": "b", "port": 862, "source_port": -1, "session": 1,
                "way": "one-way", "run": 0},
        "ip_bytes": 72, "size": 90, "ipid": None, "sent": False,
    }  # fmt: skip
    for name, value in changes.items():
        if value is ...:
            del said[name]
        else:
            said[name] = value
    return exports.RAW_HEAD + json.dumps(said) + "\n"


KEY = json.loads(head()[len(exports.RAW_HEAD) :])["key"]
BAD_HEADS = [
    exports.RAW_HEAD + text + "\n"
    for text in ("", "{}", "[]", "1", "null", '"x"', "{", "[" * 100_000, '{"key": ' * 50_000, "9" * 5000,
                 "NaN", "\xff")
] + [
    head(**{name: value})
    for name, values in {
        "key": (..., None, [], {}, {"source": 1}, {**KEY, "port": "x"}, {**KEY, "way": "up"},
                {**KEY, "way": []}, {**KEY, "session": 2**40}, {**KEY, "source": []},
                {**KEY, "extra": 1}, {**KEY, "run": None}),
        "ip_bytes": (..., "x", [], 2**40, -1, 1.5),
        "size": (..., "x", {}, 2**40, -1),
        "sent": (..., None, 1, "yes", []),
        "options": (None, [], 1, {"timeout_ns": 0}, {"timeout_ns": "x"}, {"timeout_ns": 2**70},
                    {"timeout_ns": None}, {"unknown": 1}, {"interval_ns": 0}, {"interval_ns": []},
                    {"ttl_sent": 1.5}, {"unsynchronised": "no"}, {"least_ns": -1}, {"extra_bound_ns": 2**61}),
        "until_ns": ("x", 2**70, [], 1e30, True),
        "frames": (None, "x", []),
        "refused": (None, [], {"a": "b"}),
        "truncated": (None, 1, [1], "text"),
        "sources": (None, 1, [[]], "text"),
        "sent_sources": (None, {}, [None]),
        "experiment": (1, [], "x"),
    }.items()
    for value in values
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_HEADS, ids=range(len(BAD_HEADS)))
def test_heads_that_cannot_be(tmp_path, capsys, text: str):
    (tmp_path / "x").write_text(text + raw_line(), encoding="latin-1")
    assert main(["owd", "report", str(tmp_path / "x"), "-q", "--html", str(tmp_path / "h")]) == 1
    said = capsys.readouterr().err
    assert str(tmp_path / "x") in said and "Traceback" not in said and len(said) < 400


def test_the_good_head_is_read(tmp_path):
    assert len(read(tmp_path / "x", head() + raw_line()).trains[0].judged) == 1
    # A train of which nothing came, and no line at all behind a head.
    assert read(tmp_path / "x", head(sent=True) + raw_line() + head(sent=True)).trains
    with pytest.raises(InputError):
        read(tmp_path / "x", head())


@settings(max_examples=300, deadline=None)
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["key", "sent", "size", "ip_bytes", "options", "until_ns", "timeout_ns", "source", "way"]),
        inner, max_size=6),
    max_leaves=12,
), st.sampled_from(["key", "sent", "size", "ip_bytes", "options", "until_ns", "frames", "refused",
                    "experiment", "truncated", "sources"]))  # fmt: skip
def test_any_head_is_read_or_refused(tmp_path_factory, value, name: str):
    path = tmp_path_factory.mktemp("raw") / "x"
    try:
        found = read(path, head(**{name: value}) + raw_line())
    except InputError:
        return
    json.dumps(found.json())


def test_parquet_that_says_what_cannot_be(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    rx = write(tmp_path / "rx.pcapng", world("constant", 3).arrived)
    exports.write_parquet(report_captures([rx]), str(tmp_path / "a.parquet"))
    table = parquet.read_table(tmp_path / "a.parquet")
    said = json.loads(table.schema.metadata[b"twinstamp"])
    for change in ({"options": {"timeout_ns": 0}}, {"options": []}, {"until_ns": "x"}, {"refused": 1},
                   {"trains": [{**said["trains"][0], "key": {}}]}, {"trains": 3}):  # fmt: skip
        text = json.dumps({**said, **change}).encode()
        parquet.write_table(table.replace_schema_metadata({b"twinstamp": text}), tmp_path / "b.parquet")
        with pytest.raises(InputError, match=r"b\.parquet"):
            exports.read_parquet(str(tmp_path / "b.parquet"))


# A disk without room


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
@pytest.mark.parametrize("kind", ["csv", "raw", "etomic", "json", "html", "parquet", "pcapng"])
@pytest.mark.parametrize("n", [3, 30_000])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, capsys, kind: str, n: int):
    """3 packets fail when the file is closed, 30,000 in the middle."""
    rx = write(tmp_path / "rx.pcapng", world("constant", n).arrived)
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    assert main(["owd", "report", rx, "-q", f"--{kind}", str(full)]) in (1, 2)
    said = capsys.readouterr().err
    assert str(full) in said and "No space left" in said and "Traceback" not in said


# Trains without end


def many_trains(folder, n: int, packets=lambda k: 1) -> list[str]:
    arrived = [
        (i, T0_NS + k * 1000 + i, T0_NS + k * 1000 + i + 500) for k in range(n) for i in range(packets(k))
    ]
    names = []
    for k in range(n):
        mine = [a for a in arrived if (a[1] - T0_NS) // 1000 == k]
        names.append(write(folder / f"{k}.pcapng", mine, ends=("10.0.0.1", f"10.0.1.{k}"), session=7))
    return names


def test_a_page_has_plots_for_the_greatest_trains(tmp_path):
    """The 20 with most packets; every train is a row of the main table."""
    names = many_trains(tmp_path, 30, lambda k: 40 - k)
    report = report_captures(names)
    text = page(report)
    assert text.count("<h2>10.0.0.1") == MOST_PLOTTED == 20
    assert text.count("<img") == 5 * 20
    shown = re.findall(r"<h2>10\.0\.0\.1 &gt; 10\.0\.1\.(\d+) #7</h2>", text)
    assert sorted(map(int, shown)) == list(range(20))
    table = text[: text.index("<h2>")]
    assert all(f"<td>10.0.0.1 &gt; 10.0.1.{k} #7</td>" in table for k in range(30))
    assert "The other 10" in text
    few = report_captures(names[:3])
    assert page(few).count("<h2>10.0.0.1") == 3 and "The other" not in page(few)


def test_warnings_of_many_trains_end(tmp_path):
    rx = many_trains(tmp_path, 30, lambda k: 2)
    tx = tmp_path / "tx"
    tx.mkdir()
    found = report_captures(rx, sent=many_trains(tx, 30, lambda k: 3))
    assert sum(train.loss.undecided for train in found.trains) == 30
    told = [text for text in warnings_of(found) if "undecided" in text]
    assert len(told) == 21 and "10 further trains" in told[-1]


# Exports keep when watching ended


def test_exports_keep_when_watching_ended(tmp_path):
    """What is missing at the end is undecided in the report, and in the one made again of its export."""
    rx = write(tmp_path / "rx.pcapng", [(0, T0_NS, T0_NS + 5)])
    tx = write(tmp_path / "tx.pcapng", [(n, T0_NS + n, T0_NS + n) for n in range(3)])
    late = write(tmp_path / "end.pcapng", [(0, T0_NS + 10**12, T0_NS + 10**12 + 5)], session=9)
    for names, want in (([rx], (0, 2)), ([rx, late], (2, 0))):
        found = report_captures(names, sent=[tx])
        # Only this train's lines, as if the other's were not there: the end is said, not seen.
        exports.write_raw(found, str(tmp_path / "a.owp"))
        exports.write_parquet(found, str(tmp_path / "a.parquet"))
        for again in (found, exports.read_raw(str(tmp_path / "a.owp")),
                      exports.read_parquet(str(tmp_path / "a.parquet"))):  # fmt: skip
            loss = again.trains[0].loss
            assert (loss.missing, loss.undecided) == want
            assert again.until_ns == found.until_ns


# What reordering counts


def test_reordering_counts_packets_after_the_time_out(tmp_path):
    """As docs/owd.md defines it (RFC 4737 section 3.3 leaves it to us): 0 comes last, and too late."""
    arrived = [(n, T0_NS + n, T0_NS + n + 100) for n in (1, 2)] + [(0, T0_NS, T0_NS + 5000)]
    rx = write(tmp_path / "rx.pcapng", arrived)
    train = report_captures([rx], options=Options(timeout_ns=1000)).trains[0]
    assert (train.loss.late, train.loss.lost, train.delay.n) == (1, 1, 2)
    assert (train.reordering.reordered, train.reordering.ratio) == (1, 1 / 3)
    both = metrics.LATE | metrics.REORDERED
    assert [int(flags) & both for flags in train.judged.flags] == [0, 0, both]
