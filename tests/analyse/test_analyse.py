# SPDX-License-Identifier: Apache-2.0
"""`twinstamp analyse`: what is a duplicate, what is legitimate, and which window the feed wants."""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from twinstamp import analyse as module
from twinstamp.analyse import ANONYMOUS, BY_CLASS, LATE, NETWORK, analyse, judge, read_repeats, recommend
from twinstamp.cli import main
from twinstamp.dedup import dedup_capture
from twinstamp.errors import ConfigError, InputError
from twinstamp.units import parse_time_ns
from twinstamp_kernels.keys import frames_identified
from twinstamp_kernels.window import CLASSES, PROFILES

from tests.kernels import profile_model as model

MS, S = 1_000_000, 1_000_000_000


def write_pcap(path: Path, frames: list[tuple[int, bytes]], linktype: int = 1) -> Path:
    """A nanosecond pcap written by hand, so that nothing of the project is trusted."""
    parts = [struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, linktype)]
    for t, data in frames:
        parts += [struct.pack("<IIII", t // S, t % S, len(data), len(data)), data]
    path.write_bytes(b"".join(parts))
    return path


def udp(serial: int, *, ident: int = 0, ttl: int = 64, mac: int = 1, size: int = 32) -> bytes:
    payload = serial.to_bytes(8, "big") * (size // 8)
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), ident, 0, ttl, 17, 0, b"\x0a\0\0\1", b"\x0a\0\0\2"
    )
    head = head[:10] + (model.ones_sum(head) ^ 0xFFFF).to_bytes(2, "big") + head[12:]
    return (
        bytes(5)
        + bytes([mac])
        + bytes(6)
        + b"\x08\0"
        + head
        + struct.pack(">HHHH", 9, 9, 8 + size, 0)
        + payload
    )


ARP = b"\xff" * 6 + bytes(6) + b"\x08\x06\0\1\x08\0\6\4\0\1" + bytes(20)

FACTS = [
    # capture, by type, legitimate by reason, by class
    ("nest_log_sink.pcap", {}, {"class": 224}, {"arp": 224}),
    ("double-vision.pcap", {"routing": 4}, {}, {}),
    ("ethereum.pcap", {}, {"anonymous": 273}, {"other": 273}),
    ("dnp3.pcap", {"exact": 362}, {}, {}),
    ("detect-bypass-udp.pcap", {"exact": 33}, {}, {}),
    ("s7comm-plus.pcap", {"exact": 27}, {}, {}),
    ("1kxun.pcap", {"exact": 124}, {"late": 24, "anonymous": 8}, {"other": 32}),
    ("various_gre.pcap", {}, {"class": 64}, {"llc": 60, "loop": 4}),
    ("sip.pcap", {}, {}, {}),
]


@pytest.mark.corpus
@pytest.mark.parametrize(("name", "by_type", "reasons", "classes"), FACTS)
def test_facts_of_the_corpus(corpus: Path, name: str, by_type: dict, reasons: dict, classes: dict) -> None:
    report = analyse(corpus / "captures" / name)
    network = report["network"]
    assert {t: found["frames"] for t, found in network["by_type"].items() if found["frames"]} == by_type
    assert {r: n for r, n in report["legitimate"]["by_reason"].items() if n} == reasons
    assert report["legitimate"]["by_class"] == classes
    assert network["frames"] + report["legitimate"]["frames"] == report["repeats"]
    assert (report["window"] is None) == (not by_type)
    for histogram in report["histograms"].values():
        bins = {key: sum(counts) for key, counts in histogram.items() if key != "from"}
        assert bins.pop("legitimate") == report["legitimate"]["frames"]
        assert {t: n for t, n in bins.items() if n} == by_type


@pytest.mark.corpus
def test_window_of_the_routed_capture(corpus: Path) -> None:
    window = analyse(corpus / "captures" / "double-vision.pcap")["window"]
    assert (window["count"], window["time_ns"]) == (2, 85 * MS)
    assert window["recall"] == 1.0
    assert window["cost"]["frames"] == 0


@pytest.mark.corpus
def test_recommended_window_does_what_it_says(corpus: Path) -> None:
    """dedup with the recommended window judges exactly the frames that analyse counted."""
    for name in ("1kxun.pcap", "dnp3.pcap", "double-vision.pcap", "s7comm-plus.pcap"):
        path = corpus / "captures" / name
        window = analyse(path)["window"]
        report = dedup_capture(
            path, None, window=window["count"], time_ns=window["time_ns"], profile="nat", action="count"
        )
        found = sum(t["frames"] for t in report["duplicates"]["by_type"].values())
        assert found == window["caught"] + window["cost"]["frames"], name


def brute(frames: list[bytes], linktypes: list[int], profile: int, layer: str, reach: int):
    """(frame, type, distance) by the model: the nearest copy under the profile, and how near a copy it is."""
    found, last = [], {}
    for i, frame in enumerate(frames):
        keys = model.keys_of(frame, linktypes[i], profile, layer)
        copies = [last[k] for k in keys if k in last and i - last[k] < reach]
        if copies:
            j = max(copies)
            found.append((i, model.narrowest(frame, frames[j], linktypes[i], layer), i - j))
        last.update(dict.fromkeys(keys, i))
    return found


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name", ["1kxun.pcap", "various_gre.pcap", "erspan-type-ii-3.pcap", "decode-sll2.pcap"]
)
def test_repeats_equal_the_model(corpus: Path, name: str) -> None:
    from tests.kernels.test_profiles import read_capture

    frames, linktypes = read_capture(corpus / "captures" / name)
    for profile, code in PROFILES.items():
        for layer in ("outer", "inner"):
            for reach in (5, 1_000_000):
                repeats, facts = read_repeats(
                    corpus / "captures" / name,
                    profile=profile,
                    layer=layer,
                    reach=reach,
                    workers=1 + code % 3,
                )
                assert facts["frames"] == len(frames)
                got = list(
                    zip(repeats.frame.tolist(), repeats.type.tolist(), repeats.distance.tolist(), strict=True)
                )
                assert got == brute(frames, linktypes, code, layer, reach), (profile, layer, reach)


def test_rule() -> None:
    other, arp = CLASSES["other"], CLASSES["arp"]
    exact, routing = PROFILES["exact"], PROFILES["routing"]
    table = [
        # type, class, identified, delay in ns, fate, why
        (exact, arp, True, 0, BY_CLASS, "a class decides, however near"),
        (exact, arp, False, 9 * S, BY_CLASS, "a class comes before late"),
        (exact, other, True, 50_000, NETWORK, "identified and near"),
        (exact, other, True, 200 * MS, NETWORK, "the bound itself is not late"),
        (exact, other, True, 200 * MS + 1, LATE, "one nanosecond past it is"),
        (exact, other, True, -5_000, NETWORK, "stamps may run backwards"),
        (exact, other, True, -3 * S, LATE, "but not that far"),
        (exact, other, False, 200 * MS, NETWORK, "anonymous, within the identified ones' delay"),
        (exact, other, False, 3 * S, LATE, "late comes before anonymous"),
        (routing, other, False, 10, ANONYMOUS, "no identified frame repeats under this type"),
    ]
    columns = list(zip(*table, strict=True))
    got = judge(
        np.array(columns[0], np.uint8),
        np.array(columns[1], np.uint8),
        np.array(columns[2], bool),
        np.array(columns[3], np.int64),
    )
    for row, fate in zip(table, got.tolist(), strict=True):
        assert fate == row[4], row[5]


def test_anonymous_frames_follow_the_identified_of_their_type() -> None:
    kind = np.array([1, 1, 1, 3], np.uint8)
    none = np.zeros(4, np.uint8)
    got = judge(kind, none, np.array([True, False, False, False]), np.array([100, 100, 101, 1], np.int64))
    assert got.tolist() == [NETWORK, NETWORK, ANONYMOUS, ANONYMOUS]


def mirrored(tmp_path: Path, seed: int) -> tuple[Path, set[int], set[int]]:
    """A feed made up of copies by a mirror (20 to 400 µs later), by a router (1 to 30 ms later, TTL and MAC
    changed) and of legitimate repeats; returns it with the indices of both kinds of repeat."""
    rng = random.Random(seed)
    events: list[tuple[int, bytes, str]] = []
    t = 0
    for serial in range(1500):
        t += rng.randrange(50_000, 300_000)
        ident = rng.randrange(1, 65536) if serial % 3 else 0
        events.append((t, udp(serial, ident=ident), "first"))
        if serial % 2 == 0:
            events.append((t + rng.randrange(20_000, 400_000), udp(serial, ident=ident), "copy"))
        elif serial % 5 == 0 and ident:
            routed = udp(serial, ident=ident, ttl=63, mac=2)
            events.append((t + rng.randrange(MS, 30 * MS), routed, "copy"))
        if serial % 50 == 0:
            events.append((t + 7, ARP, "arp"))
        if serial % 60 == 3:  # an application repeating itself, nothing identifies its datagrams
            events.append((t + 11, udp(10**6 + serial), "first"))
            events.append((t + rng.randrange(40 * MS, 150 * MS), udp(10**6 + serial), "again"))
            events.append((t + 100, udp(10**7 + serial, ident=5), "first"))
            events.append((t + rng.randrange(201 * MS, S), udp(10**7 + serial, ident=5), "again"))
    events.sort(key=lambda e: e[0])
    seen_arp = False
    copies, legitimate = set(), set()
    for i, (_, _, what) in enumerate(events):
        if what == "copy":
            copies.add(i)
        elif what == "again" or (what == "arp" and seen_arp):
            legitimate.add(i)
        seen_arp |= what == "arp"
    return write_pcap(tmp_path / "feed.pcap", [(t, f) for t, f, _ in events]), copies, legitimate


@pytest.mark.parametrize("seed", range(3))
def test_generated_feed(tmp_path: Path, seed: int) -> None:
    path, copies, legitimate = mirrored(tmp_path, seed)
    repeats, _ = read_repeats(path)
    assert set(repeats.frame[repeats.fate == NETWORK].tolist()) == copies
    assert set(repeats.frame[repeats.fate != NETWORK].tolist()) == legitimate
    full = recommend(repeats, 1.0)
    assert full is not None
    assert full["caught"] == len(copies)
    for recall in (0.5, 0.9, 0.99, 0.999, 1.0):
        window = recommend(repeats, recall)
        assert window is not None
        assert window["recall"] >= recall
        network = repeats.fate == NETWORK
        n, t = window["smallest_count"], window["smallest_time_ns"]

        def caught(count: int, time_ns: int, network=network) -> int:
            return int((network & (repeats.distance < count) & (repeats.delay_ns <= time_ns)).sum())

        # The smallest window does it, and neither a frame nor a nanosecond less would.
        assert caught(n, t) >= recall * len(copies) > min(caught(n - 1, t), caught(n, t - 1))
        assert caught(n - 1, t) < recall * len(copies)
        assert caught(n, t - 1) < recall * len(copies)


def test_cost_is_counted(tmp_path: Path) -> None:
    """Legitimate repeats inside the recommended window are its cost; a class policy saves some of them."""
    frames = []
    for i in range(100):
        t = i * S
        frames += [(t, udp(i, ident=7)), (t + 5 * MS, udp(i, ident=7))]
        frames += [(t + 6 * MS, ARP), (t + 7 * MS, ARP)]
        frames += [(t + 8 * MS, udp(10**6 + i)), (t + 12 * MS, udp(10**6 + i))]
    report = analyse(write_pcap(tmp_path / "cost.pcap", frames), recall=1)
    assert report["network"]["frames"] == 200  # the anonymous ones repeat within 5 ms, as identified ones do
    window = report["window"]
    assert (window["count"], window["time_ns"]) == (2, 5 * MS)
    assert window["cost"]["frames"] == 100
    assert window["cost"]["by_class"] == {"arp": 100}
    assert window["cost"]["with_default_keep"] == 0
    assert window["time_only_cost"] == 100
    assert window["count_only_cost"] == 100


@pytest.mark.corpus
def test_identified_by_scapy(corpus: Path) -> None:
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    from tests.kernels.test_profiles import columns, read_capture

    seen = set()
    for name in ("1kxun.pcap", "ethereum.pcap", "ftp.pcap", "nest_log_sink.pcap"):
        frames, linktypes = read_capture(corpus / "captures" / name)
        got = frames_identified(*columns(frames, linktypes))
        for i, frame in enumerate(frames):
            packet = Ether(frame)
            want = False
            if IP in packet:
                want = packet[IP].id != 0
                if TCP in packet and packet[IP].frag == 0:
                    tcp = packet[TCP]
                    data = packet[IP].len - 4 * packet[IP].ihl - 4 * tcp.dataofs
                    want = want or data > 0 or "S" in tcp.flags or "F" in tcp.flags
            elif packet.type == 0x86DD and packet.payload.nh == 6:
                continue
            assert got[i] == want, (name, i)
            seen.add((want, TCP in packet, IP in packet and packet[IP].id != 0))
    assert len(seen) >= 5


@pytest.mark.parametrize("recall", [0, -1, 1.5, float("nan")])
def test_impossible_recall(tmp_path: Path, recall: float) -> None:
    path = write_pcap(tmp_path / "a.pcap", [(0, ARP)])
    with pytest.raises(ConfigError, match="recall"):
        analyse(path, recall=recall)


def test_round_up() -> None:
    assert [module.round_up(n) for n in (0, 1, 99, 100, 101, 84_793_612)] == [0, 1, 99, 100, 110, 85_000_000]


def test_quantiles_occur() -> None:
    assert module.quantiles(np.empty(0, np.int64)) is None
    found = module.quantiles(np.array([5, 1, 9], np.int64))
    assert found == {"min": 1, "p50": 5, "p90": 9, "p99": 9, "p999": 9, "max": 9}


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, copies, _ = mirrored(tmp_path, 1)
    report = tmp_path / "report.json"
    assert main(["analyse", str(path), "--json", str(report), "--plot", str(tmp_path / "plot.png")]) == 0
    shown = capsys.readouterr().out
    found = json.loads(report.read_text())
    assert found["network"]["frames"] == len(copies)
    assert f"--window {found['window']['count']} --time " in shown
    typed = shown.split("--time ")[1].split()[0]
    assert parse_time_ns(typed) == found["window"]["time_ns"]
    assert "legitimate" in shown
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert main(["analyse", str(path), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_command_without_matplotlib(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_pcap(tmp_path / "a.pcap", [(0, ARP)])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["analyse", str(path), "--plot", str(tmp_path / "plot.png")]) == 2
    assert "twinstamp[plots]" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="plots"):
        module.plot(analyse(path), str(tmp_path / "plot.png"))


def test_command_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_pcap(tmp_path / "a.pcap", [(0, ARP), (1, ARP)])
    assert main(["analyse", str(path), "--recall", "2"]) == 2
    assert "recall" in capsys.readouterr().err
    assert main(["analyse", str(path), "--plot", str(tmp_path / "plot.nonsense")]) == 2
    assert ".png" in capsys.readouterr().err
    assert main(["analyse", str(path), "--plot", str(tmp_path / "absent" / "plot.png")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["analyse", str(path), "--reach", "1000001"]) == 2
    assert "1000000" in capsys.readouterr().err
    assert main(["analyse", str(tmp_path / "none.pcap")]) == 1


def test_nothing_and_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = write_pcap(tmp_path / "empty.pcap", [])
    report = analyse(empty)
    assert (report["frames"], report["repeats"], report["window"]) == (0, 0, None)
    assert main(["analyse", str(empty)]) == 0
    cut = write_pcap(tmp_path / "cut.pcap", [(i, udp(1, ident=5)) for i in range(5)])
    cut.write_bytes(cut.read_bytes()[:-7])
    capsys.readouterr()
    assert main(["analyse", str(cut)]) == 0
    captured = capsys.readouterr()
    assert "4 frames" in captured.out
    assert "cut" in captured.err
    damaged = tmp_path / "damaged.pcap"
    damaged.write_bytes(b"not a capture at all")
    with pytest.raises(InputError):
        analyse(damaged)
