# SPDX-License-Identifier: Apache-2.0
"""Reports from captures: what was injected is counted, exports give the same back, pages stand alone."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from twinstamp.cli import main
from twinstamp.errors import ConfigError, InputError
from twinstamp.frames import ClockState
from twinstamp.io.files import open_capture
from twinstamp.leap import BUILT_IN
from twinstamp.owd import Options, bandwidth, exports, metrics, report_captures
from twinstamp.owd.page import page, warnings_of

from tests.owd.world import T0_NS, gaps, world, write

LAWS = ["constant", "list", "poisson", "chirp"]
STATISTICS = (
    "packets", "delay_ns", "delay_with_lost_ns", "bound_ns", "ipdv_ns", "pdv_ns", "loss", "duplicates",
    "reordering", "hops", "flagged", "capacity", "available", "series",
)  # fmt: skip


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A lossy, doubling, reordering train, its sender's capture, and what was done to it."""
    folder = tmp_path_factory.mktemp("owd")
    made = world("poisson", 2000, seed=3, loss=0.02, duplicates=0.08, reorder=0.1)
    clocks = [(0, ClockState("utc", "card", True, 20, 1)), (700, ClockState("utc", "card", False, -1, 1)),
              (900, ClockState("utc", "card", True, 33, 2))]  # fmt: skip
    rx = write(folder / "rx.pcapng", made.arrived, clocks=clocks)
    tx = write(folder / "tx.pcapng", [(n, t, t) for n, t in made.sent], clocks=[])
    return rx, tx, made


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("size", [18, 44])
def test_counted_exactly_as_injected(tmp_path, law: str, size: int):
    made = world(law, 1500, seed=11, loss=0.03, duplicates=0.03, reorder=0.04, first=2**32 - 700)
    rx = write(tmp_path / "rx.pcapng", made.arrived, size=size)
    tx = write(tmp_path / "tx.pcapng", [(n, t, t) for n, t in made.sent], size=size)
    # The capture goes on: one packet of another train, long after.
    end = write(tmp_path / "end.pcapng", [(0, T0_NS + 10**12, T0_NS + 10**12 + 5)], session=9)
    found = report_captures([rx, end], sent=[tx])
    train = found.trains[0]
    assert (train.loss.known, train.loss.sent, train.loss.lost, train.loss.undecided) == (
        True, 1500, len(made.lost), 0,
    )  # fmt: skip
    assert train.duplication.copies == made.copies
    greatest, reordered, seen = -1, 0, set()
    for number, _, _ in made.arrived:
        if number not in seen:
            seen.add(number)
            reordered += number < greatest
            greatest = max(greatest, number)
    assert train.reordering.reordered == reordered > 0
    assert train.hops == {5: 1500 - len(made.lost)}
    alone = report_captures([rx]).trains[0].loss
    assert not alone.known
    assert alone.sent == max(seen) - min(seen) + 1
    assert alone.lost == alone.sent - len(seen)


def test_bounds_follow_the_clock_comments(damaged):
    rx, _, made = damaged
    train = report_captures([rx]).trains[0]
    want = np.full(len(made.arrived), 35 + 20 + 1)
    want[700:900] = -1
    want[900:] = 35 + 33 + 1
    assert train.judged.bound_ns.tolist() == want.tolist()
    states = [(c.source, c.synchronised, c.bound_ns, c.epoch, c.packets) for c in train.clocks]
    rest = len(made.arrived) - 900
    assert sorted(states) == sorted(
        [("packet", True, 35, 0, len(made.arrived)), ("card", True, 20, 1, 700), ("card", False, -1, 1, 200),
         ("card", True, 33, 2, rest)]
    )  # fmt: skip
    assert (train.flagged["no_bound"], train.flagged["unsynchronised"]) == (200, 200)


def test_a_bound_given_by_the_user_shows(tmp_path):
    made = world("constant", 10)
    rx = write(tmp_path / "rx.pcapng", made.arrived, clocks=[])
    assert report_captures([rx]).trains[0].flagged["no_bound"] == 10
    train = report_captures([rx], receive_bound_ns=100).trains[0]
    assert train.bound.maximum == 136
    assert [c.given for c in train.clocks] == [False, True]
    assert train.flagged["unsynchronised"] == 0


def test_ptp_stamps_are_tai(tmp_path):
    made = world("constant", 10, jitter_ns=0)
    rx = write(tmp_path / "rx.pcapng", made.arrived)
    raw = bytearray(open(rx, "rb").read())  # noqa: SIM115
    # The same packets in PTP format: TAI is 37 s ahead.
    for number, left, _ in made.arrived:
        seconds, ns = divmod(left, 10**9)
        old = (seconds + 2_208_988_800) % 2**32 << 32 | round(ns * 2**32 / 10**9)
        at = raw.find(number.to_bytes(4, "big") + old.to_bytes(8, "big") + b"\x80\x93")
        assert at > 0
        raw[at + 4 : at + 14] = ((seconds + 37) << 32 | ns).to_bytes(8, "big") + b"\xc0\x93"
    (tmp_path / "ptp.pcapng").write_bytes(raw)
    old, new = (report_captures([str(p)]).trains[0] for p in (rx, tmp_path / "ptp.pcapng"))
    assert old.delay == new.delay
    assert (
        report_captures([str(tmp_path / "ptp.pcapng")], tai_utc_s=36).trains[0].delay.minimum
        == 500_000 - 10**9
    )


def test_exports_give_the_same_statistics_back(damaged, tmp_path):
    rx, tx, _ = damaged
    found = report_captures([rx], sent=[tx], options=Options(timeout_ns=520_000))
    assert found.trains[0].loss.late and found.trains[0].loss.missing
    want = found.json()
    exports.write_raw(found, str(tmp_path / "a.owp"))
    again = exports.read_raw(str(tmp_path / "a.owp")).json()
    for name in STATISTICS:
        assert again["trains"][0][name] == want["trains"][0][name], name
    exports.write_parquet(found, str(tmp_path / "a.parquet"))
    assert exports.read_parquet(str(tmp_path / "a.parquet")).json() == want


def test_raw_lines(tmp_path):
    made = world("constant", 3, jitter_ns=0)
    rx = write(tmp_path / "rx.pcapng", [made.arrived[0], made.arrived[2]])
    tx = write(tmp_path / "tx.pcapng", [(n, t, t) for n, t in made.sent])
    late = write(tmp_path / "end.pcapng", [(0, T0_NS + 10**12, T0_NS + 10**12 + 5)], session=9)
    exports.write_raw(report_captures([rx, late], sent=[tx]), str(tmp_path / "a.owp"))
    lines = [line.split() for line in open(tmp_path / "a.owp") if not line.startswith("#")]  # noqa: SIM115
    seconds = T0_NS // 10**9 + 1 + 2_208_988_800
    first = lines[0]
    assert [first[0], first[2], first[5], first[6], first[7]] == ["0", "1", "1", "0.000000020", "250"]
    assert int(first[1]) >> 32 == seconds and int(first[4]) - int(first[1]) == round(500_000 * 2**32 / 10**9)
    assert float(first[3]) == 147 / 2**32
    assert lines[2] == ["1", lines[2][1], "0", "inf", "0", "0", "0", "255"]
    assert int(lines[2][1]) >> 32 == seconds


def test_owpings_own_lines(tmp_path):
    """As `owping -R` prints them: no comments, lost packets with RECVTIME 0."""
    base = (T0_NS // 10**9 + 2_208_988_800) << 32
    lines = [
        f"{i} {base + (i << 20)} 1 4.57764e-05 {base + (i << 20) + 4096 * (i + 1)} 1 1.2e-05 254"
        for i in range(5)
    ]
    lines[3] = f"3 {base + (3 << 20)} 1 4.57764e-05 0 0 0 255"
    (tmp_path / "x").write_text("\n".join(lines) + "\n")
    train = exports.read_raw(str(tmp_path / "x")).trains[0]
    assert (train.loss.sent, train.loss.lost, train.delay.n) == (5, 1, 4)
    assert train.delay.minimum == round(4096 / 2**32 * 10**9)
    assert train.hops == {1: 4}
    assert train.bound.minimum >= 45_776 + 12_000


@pytest.mark.parametrize("text", ["1 2 3\n", "x 1 1 1 1 1 1 1\n", "", "# twinstamp-owd raw 1 {\n",
                                  "4294967296 1 1 1 1 1 1 1\n", "1 1 1 x 1 1 1 1\n"])  # fmt: skip
def test_raw_lines_that_are_none(tmp_path, text: str):
    (tmp_path / "x").write_text(text)
    with pytest.raises(InputError):
        exports.read_raw(str(tmp_path / "x"))


def test_csv_and_etomic(damaged, tmp_path):
    rx, _, made = damaged
    found = report_captures([rx])
    exports.write_csv(found, str(tmp_path / "a.csv"))
    rows = list(csv.DictReader(open(tmp_path / "a.csv")))  # noqa: SIM115
    assert [(int(r["sequence"]), int(r["sent_ns"]), int(r["received_ns"])) for r in rows] == made.arrived
    assert all(int(r["delay_ns"]) == int(r["received_ns"]) - int(r["sent_ns"]) for r in rows)
    assert found.trains[0].frame().shape == (len(made.arrived), 15)
    exports.write_etomic(found, str(tmp_path / "a.txt"))
    lines = [line.split() for line in open(tmp_path / "a.txt") if line[0] != "#"]  # noqa: SIM115
    judged = found.trains[0].judged
    first = np.flatnonzero(judged.counted)
    assert len(lines) == len(first)
    for line, i in zip(lines, first.tolist(), strict=True):
        number, left, came = made.arrived[i]
        del number
        assert line[:2] == ["10.0.0.1", "10.0.0.2"]
        assert int(line[2].replace(".", "")) == left
        assert int(line[3].replace(".", "")) == came - left
        assert line[4:] == ["5", str(i), "90", str(found.trains[0].loss.sent)]


def test_etomic_negative_delays(tmp_path):
    rx = write(tmp_path / "rx.pcapng", [(0, T0_NS, T0_NS - 7), (1, T0_NS + 100, T0_NS + 99 + 10**9)])
    exports.write_etomic(report_captures([rx]), str(tmp_path / "a.txt"))
    assert [line.split()[3] for line in open(tmp_path / "a.txt") if line[0] != "#"] == [  # noqa: SIM115
        "-0.000000007", "0.999999999",
    ]  # fmt: skip


def test_pcapng_of_the_test_packets(damaged, tmp_path):
    rx, _, made = damaged
    found = report_captures([rx])
    assert exports.write_pcapng([rx], found, str(tmp_path / "a.pcapng")) == len(made.arrived)
    again = report_captures([str(tmp_path / "a.pcapng")])
    ours, theirs = found.json()["trains"], again.json()["trains"]
    assert ours == theirs  # clock states and all
    comments = b""
    with open_capture(str(tmp_path / "a.pcapng")) as reader:
        for batch in reader:
            comments += bytes(batch.data)
    serious = metrics.DUPLICATE | metrics.REORDERED | metrics.LATE | metrics.NEGATIVE | metrics.OUTSIDE
    flagged = int(np.count_nonzero(found.trains[0].judged.flags & serious))
    assert flagged > 255  # more than the writer takes in one call
    assert comments.count(b"owd delay_ns=") == flagged


def test_two_directions(tmp_path):
    there, back = world("constant", 300, base_ns=900_000), world("poisson", 300, base_ns=200_000)
    rx = [write(tmp_path / "b.pcapng", there.arrived, session=1),
          write(tmp_path / "a.pcapng", back.arrived, session=2, ends=("10.0.0.2", "10.0.0.1"))]  # fmt: skip
    found = report_captures(rx)
    (pair,) = found.pairs
    low = [min(c - t for _, t, c in made.arrived) for made in (there, back)]
    assert pair.asymmetry.minimum_ns == low[0] - low[1]
    assert pair.asymmetry.round_trip_ns == sum(low)
    assert found.json()["directions"][0]["asymmetry_bound_ns"] == 112


@pytest.mark.parametrize("rate", [100_000_000, 300_000_000])
def test_capacity_and_available_bandwidth(tmp_path, rate: int):
    """A queue of one server, no other traffic: capacity = available = its rate."""
    departures = T0_NS + np.concatenate(([0], np.cumsum(gaps("chirp", 1000, 1))))
    free, arrived = 0, []
    bits = 8 * 1000
    for number, left in enumerate(departures.tolist()):
        free = max(free, left) + bits * 10**9 // rate
        arrived.append((number, left, free + 2_000_000))
    train = report_captures([write(tmp_path / "rx.pcapng", arrived, size=1000 - 28)]).trains[0]
    assert train.pairs is not None and abs(train.pairs.mode_bps / rate - 1) < 1e-4
    assert not train.pairs.limited_by_sender
    assert train.chirps is not None and (train.chirps.chirps, train.chirps.packets) == (50, 20)
    # A chirp's rates grow by 1.2 from packet to packet: no estimate is finer.
    assert rate / 1.2 <= train.chirps.available_bps.median <= rate * 1.21


def test_random_gaps_are_no_chirps(tmp_path):
    made = world("poisson", 3000)
    train = report_captures([write(tmp_path / "rx.pcapng", made.arrived)]).trains[0]
    assert train.chirps is None
    assert bandwidth.half_sample_mode(np.array([1, 5, 6, 6, 6, 20, 40])) == 6


def test_the_page_stands_alone(damaged):
    rx, tx, _ = damaged
    found = report_captures([rx], sent=[tx], options=Options(unsynchronised=True))
    text = page(found, notes=("Idle time is warped.",))
    assert not re.search(r"""(?:src|href|url|action)\s*[=(]\s*["']?(?!data:)[\w/.#]""", text)
    assert "http" not in text.replace("data:", "")
    assert text.count("<img") == 5
    assert "Idle time is warped." in text and "--allow-unsynchronised" in text


def test_names_from_captures_are_escaped(damaged):
    rx, _, _ = damaged
    found = replace(report_captures([rx]), sources=("<script>alert(1)</script>",))
    assert "<script" not in page(found)


def test_command(damaged, tmp_path, capsys):
    rx, tx, made = damaged
    kinds = ("json", "csv", "parquet", "raw", "etomic", "html", "pcapng")
    names = {kind: str(tmp_path / f"out.{kind}") for kind in kinds}
    arguments = [word for kind, path in names.items() for word in (f"--{kind}", path)]
    assert main(["owd", "report", rx, "--sent", tx, *arguments, "--allow-unsynchronised"]) == 0
    shown = capsys.readouterr().out
    assert "#7" in shown and "--allow-unsynchronised" in shown and "told by the sender" in shown
    said = json.load(open(names["json"]))  # noqa: SIM115
    assert (said["format"], said["version"], said["options"]["allow_unsynchronised"]) == (
        "twinstamp-owd",
        1,
        True,
    )
    loss = said["trains"][0]["loss"]
    # The capture ended within the time-out: nothing that is missing is lost yet, and that is said.
    assert (loss["sent"] + loss["undecided"], loss["undecided"]) == (len(made.sent), len(made.lost))
    assert "undecided" in shown
    # Every output says that such clocks were allowed.
    for kind, words in (("html", "--allow-unsynchronised"), ("etomic", "--allow-unsynchronised"),
                        ("raw", '"unsynchronised": true'), ("parquet", '\\"unsynchronised\\": true'),
                        ("pcapng", "allow_unsynchronised=yes"), ("csv", ",1\n")):  # fmt: skip
        raw = open(names[kind], "rb").read()  # noqa: SIM115
        assert words.encode() in raw or words.replace("\\", "").encode() in raw, kind
    for kind in ("raw", "parquet"):
        assert main(["owd", "report", names[kind], "--json", str(tmp_path / "again.json"), "-q"]) == 0
        again = json.load(open(tmp_path / "again.json"))  # noqa: SIM115
        assert again["trains"][0]["delay_ns"] == said["trains"][0]["delay_ns"]


@pytest.mark.parametrize("arguments,status,words", [
    (["{rx}", "--json", "{rx}"], 2, "same file"),
    (["{rx}", "--json", "x", "--csv", "x"], 2, "two outputs"),
    (["{rx}", "--port", "0"], 2, "1 to 65535"),
    (["{rx}", "--timeout", "0s"], 2, "time-out"),
    (["{rx}", "--ttl", "256"], 2, "0 to 255"),
    (["{rx}", "--port", "5"], 1, "no test packet"),
    (["/nowhere.pcap"], 1, "cannot be opened"),
    (["{rx}", "--csv", "/nowhere/x"], 2, "cannot be written"),
])  # fmt: skip
def test_bad_use(damaged, tmp_path, capsys, monkeypatch, arguments, status: int, words: str):
    monkeypatch.chdir(tmp_path)
    assert main(["owd", "report", *(a.format(rx=damaged[0]) for a in arguments)]) == status
    assert words in capsys.readouterr().err


def test_too_many_trains_are_counted(tmp_path, monkeypatch):
    from twinstamp.owd import arrivals

    monkeypatch.setattr(arrivals, "MOST_TRAINS", 3)
    names = [
        write(tmp_path / f"{k}.pcapng", world("constant", 4, seed=k).arrived, session=k) for k in range(1, 6)
    ]
    found = report_captures(names)
    assert (len(found.trains), found.refused["too_many_trains"]) == (3, 8)


def test_invalid_stamps_and_estimates_are_refused(tmp_path):
    made = world("constant", 5)
    assert write(tmp_path / "a.pcapng", made.arrived, error=0x0500)
    good = write(tmp_path / "b.pcapng", made.arrived)
    found = report_captures([str(tmp_path / "a.pcapng"), good])
    assert (found.refused["no_error_estimate"], len(found.trains[0].judged)) == (5, 5)


def test_bad_clock_comment(tmp_path):
    tai = write(
        tmp_path / "a.pcapng",
        world("constant", 5).arrived,
        clocks=[(0, ClockState("tai", "card", True, 1, 1))],
    )
    with pytest.raises(InputError, match="UTC"):
        report_captures([tai])
    with pytest.raises(ConfigError):
        report_captures([tai], receive_bound_ns=-5)


@pytest.mark.parametrize("change", [1, -1])
def test_a_report_over_a_leap_second(tmp_path, monkeypatch, change):
    """4000 packets in 4 s over it, NTP and PTP stamps, exports and their way back: delays and gaps as on a
    clock of TAI. The table is made up, with the hash that the IERS's own would have.
    """
    import hashlib

    midnight = 1_830_297_600  # 2028-01-01T00:00:00 UTC
    lines = [f"{start + 2_208_988_800} {s}" for start, s in (*BUILT_IN.starts, (midnight, 37 + change))]
    expires = midnight + 10**7 + 2_208_988_800
    digest = hashlib.sha1(f"{expires}{''.join(lines).replace(' ', '')}".encode()).hexdigest()
    words = " ".join(digest[i : i + 8] for i in range(0, 40, 8))
    (tmp_path / "leap").write_text("\n".join([f"#@ {expires}", *lines, f"#h {words}"]))
    monkeypatch.setenv("TWINSTAMP_LEAP_SECONDS", str(tmp_path / "leap"))
    after = (midnight + 37 + change) * 10**9
    start = after - 2 * 10**9
    tai = [(n, start + n * 10**6, start + n * 10**6 + 250_000 + n % 11) for n in range(4000)]

    def utc(ns: int) -> int:
        return ns - (37 + change * (ns >= after)) * 10**9

    made = [(n, utc(left), utc(came)) for n, left, came in tai]
    rx = write(tmp_path / "rx.pcapng", made)
    raw = bytearray(open(rx, "rb").read())  # noqa: SIM115
    for (number, left, _), (_, left_tai, _) in zip(made, tai, strict=True):
        seconds, ns = divmod(left, 10**9)
        old = (seconds + 2_208_988_800) % 2**32 << 32 | round(ns * 2**32 / 10**9)
        at = raw.find(number.to_bytes(4, "big") + old.to_bytes(8, "big") + b"\x80\x93")
        assert at > 0
        seconds, ns = divmod(left_tai, 10**9)
        raw[at + 4 : at + 14] = (seconds << 32 | ns).to_bytes(8, "big") + b"\xc0\x93"
    (tmp_path / "ptp.pcapng").write_bytes(raw)
    for path in (rx, str(tmp_path / "ptp.pcapng")):
        report = report_captures([path])
        (train,) = report.trains
        assert train.judged.delay_ns.tolist() == [came - left for _, left, came in tai]
        assert np.diff(train.judged.sent_ns).tolist() == [10**6] * 3999
        assert train.judged.arrivals.backwards == 0 and not train.reordering.reordered
        assert train.flagged["negative"] == train.flagged["late"] == 0
        assert (train.series.from_ns[-1] - train.series.from_ns[0]) // 10**9 in (3, 4)
        (warning,) = [text for text in warnings_of(report) if "delays and gaps" in text]
        assert ("inserted" in warning) == (change == 1)
        exports.write_raw(report, str(tmp_path / "a.owp"))
        exports.write_parquet(report, str(tmp_path / "a.parquet"))
        for again in (
            exports.read_raw(str(tmp_path / "a.owp")),
            exports.read_parquet(str(tmp_path / "a.parquet")),
        ):
            assert again.trains[0].judged.delay_ns.tolist() == train.judged.delay_ns.tolist()
    sent = report_captures(
        [rx], sent=[write(tmp_path / "tx.pcapng", [(n, left, left) for n, left, _ in made])]
    )
    assert sent.trains[0].loss.missing == 0 and sent.trains[0].loss.known


def test_a_report_beyond_the_table_says_so(tmp_path, monkeypatch):
    made = world("constant", 10)
    rx = write(tmp_path / "rx.pcapng", made.arrived)
    (tmp_path / "leap").write_text("#@ 3900000000\n2272060800 10\n")
    monkeypatch.setenv("TWINSTAMP_LEAP_SECONDS", str(tmp_path / "leap"))
    assert any("expired on 2023-08-02" in text for text in warnings_of(report_captures([rx])))
