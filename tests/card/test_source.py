# SPDX-License-Identifier: Apache-2.0
"""Captures on the simulated wires as the appliance's source, against an appliance that reads them itself."""

from __future__ import annotations

import json

import numpy as np
import pytest
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.card.source import CardSource
from twinstamp.errors import ConfigError, InputError, LedgerError
from twinstamp.io import create_capture, open_capture

from tests.appliance.test_run_files import conversation, read_all, write_pcap

SERVERS = """
[balance]
secret_file = "secret"
[duplicates]
window = 500
[[group]]
name = "dpi"
server = [{name = "a", file = "%s-a.pcapng"}, {name = "b", file = "%s-b.pcap"}]
"""


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def run(path):
    with Appliance(load_appliance(path)) as appliance:
        return appliance.run()


def drain(source: CardSource) -> list:
    got = []
    while not source.ended:
        batch = source.poll(0.1)
        if batch is not None:
            with batch:
                got += [batch.frame(i) for i in range(len(batch))]
    return got


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["ftp.pcap", "sip.pcap", "double-vision.pcap", "decode-sll2.pcap"])
def test_real_capture_through_the_card(corpus, tmp_path, name):
    capture = corpus / "captures" / name
    (tmp_path / "card.toml").write_text(
        f'source = "card:sim"\n[card]\nplay = "{capture}"\nports = [2]\nclocks_ppb = [0, 0, 40_000]\n'
        + SERVERS % ("card", "card")
    )
    fits = tmp_path / "fits.pcapng"
    fit = left = 0
    with open_capture(capture) as reader, create_capture(fits) as writer:
        for batch in reader:
            good = (
                (batch.linktypes[batch.port] == 1)
                & (batch.caplen == batch.length)
                & (batch.caplen >= 60)
                & (batch.caplen <= 9014)
            )
            fit += int(good.sum())
            left += int((~good).sum())
            writer.write(batch, good)
    report = run(tmp_path / "card.toml")
    source = report["sources"]["card:sim"]
    assert source["played"]["frames"] == fit == report["ledger"]["received"]["frames"]
    assert sum(source["played"]["left_out"].values()) == left
    assert len(source["played"]["listed"]) == min(left, 1000)
    assert report["ledger"]["dropped_before_received"] == source["dropped"] == 0
    assert source["ports"]["port2"]["good"] == fit
    if fit == 0:
        return
    (tmp_path / "file.toml").write_text('source = [{file = "fits.pcapng"}]\n' + SERVERS % ("file", "file"))
    expected = run(tmp_path / "file.toml")
    for fate in ("received", "forwarded", "duplicates_dropped"):
        assert report["ledger"][fate] == expected["ledger"][fate]
    for server in ("a.pcapng", "b.pcap"):
        got, wanted = read_all(tmp_path / f"card-{server}"), read_all(tmp_path / f"file-{server}")
        assert [frame for _, frame in got] == [frame for _, frame in wanted]
        assert [at for at, _ in got] == sorted(at for at, _ in got)


def two_interfaces(path, frames: int):
    """Every frame on both of two mirror ports, the second 5 us later."""
    records = conversation(8, frames // 8)
    first, second = path.with_suffix(".1.pcap"), path.with_suffix(".2.pcap")
    write_pcap(first, records)
    write_pcap(second, [(at + 5000, frame) for at, frame in records])
    with open_capture(first) as one, open_capture(second) as two, create_capture(path) as writer:
        from twinstamp.io.merge import Merge

        class Source:
            def __init__(self, reader):
                self.reader, self.ports, self.ended = reader, reader.ports, False

            def poll(self, timeout_s=0.0):
                batch = self.reader.read()
                self.ended = batch is None
                return batch

        merge = Merge([Source(one), Source(two)], clock=None)
        while not merge.ended:
            batch = merge.poll(0.1)
            if batch is not None:
                with batch:
                    writer.write(batch)
    return records


def test_two_mirror_ports_are_merged_by_stamp(tmp_path):
    """The same conversation on two ports: the window sees each copy right behind its original."""
    records = two_interfaces(tmp_path / "in.pcapng", 320)
    (tmp_path / "a.toml").write_text(
        'source = "card:sim"\n[card]\nplay = "in.pcapng"\nports = [0, 3]\n'
        + (SERVERS % ("o", "o")).replace("window = 500", "window = 4")
    )
    report = run(tmp_path / "a.toml")
    assert report["ledger"]["received"]["frames"] == 2 * len(records)
    assert report["ledger"]["duplicates_dropped"]["frames"] == len(records)
    assert report["reorder"]["late"] == 0
    ports = report["sources"]["card:sim"]["ports"]
    assert {name: port["good"] for name, port in ports.items()} == {"port0": 320, "port3": 320}


def test_gaps_are_kept_shortened_and_counted(tmp_path):
    frames = [bytes([n]) * 100 for n in range(6)]
    times = np.cumsum([10**15, 2000, 4000, 10**9, 3000, 10**6])
    write_pcap(tmp_path / "in.pcap", list(zip(times.tolist(), frames, strict=True)))
    source = CardSource(tmp_path / "in.pcap", longest_gap_ns=5000)
    stamps = []
    while not source.ended:
        batch = source.poll(0.1)
        if batch is not None:
            with batch:
                stamps += batch.timestamp_ns.tolist()
    source.close()
    assert np.diff(stamps) == pytest.approx([2000, 4000, 5000, 3000, 5000], abs=10)
    assert 0 <= stamps[0] - 10**15 < 20_000
    played = source.statistics()["played"]
    assert played["gaps_compressed"] == 2
    assert played["compressed_ns"] == 10**9 + 10**6 - 10_000


def test_frames_no_mac_could_carry_are_listed(tmp_path):
    sizes = (59, 60, 9014, 9015, 14, 61)
    write_pcap(tmp_path / "in.pcap", [(10**12 + i, bytes(n)) for i, n in enumerate(sizes)])
    source = CardSource(tmp_path / "in.pcap")
    got = drain(source)
    source.close()
    assert [len(frame) for frame in got] == [60, 9014, 61]
    played = source.statistics()["played"]
    assert played["left_out"] == {"not_ethernet": 0, "cut": 0, "short": 2, "long": 1}
    assert played["listed"] == [(1, 59, "short"), (4, 9015, "long"), (5, 14, "short")]
    assert source.remarks() == ["3 of 6 frames were not played into the card: 2 short, 1 long"]


def test_batches_that_are_held_cost_counted_frames(tmp_path):
    source = CardSource(test_frames=1500, block_log2=14, blocks_log2=1)
    held = []
    while (batch := source.poll(0.3)) is not None:
        held.append(batch)
    assert not source.ended  # the card still has frames, and no block to put them in
    source.simulated.run_wires(10**7)
    for batch in held:
        batch.release()
    drain(source)
    result = source.statistics()
    source.close()
    assert result["dropped"] > 0
    assert result["received"]["frames"] + result["dropped"] == result["played"]["frames"] == 1500


def test_a_frame_that_gets_lost_is_a_breach():
    source = CardSource(test_frames=50)
    source.player.played.frames += 1
    with pytest.raises(LedgerError, match="51 frames were put"):
        drain(source)
    source.close()


def test_damage_ends_the_capture(tmp_path):
    write_pcap(tmp_path / "in.pcap", conversation(2, 10))
    whole = (tmp_path / "in.pcap").read_bytes()
    (tmp_path / "in.pcap").write_bytes(whole + b"\xff" * 40)
    (tmp_path / "a.toml").write_text(
        'source = "card:sim"\ncard = {play = "in.pcap"}\n[appliance]\nreport = "r.json"\n'
        + SERVERS % ("o", "o")
    )
    with pytest.raises(InputError, match="the frames before it were delivered"):
        run(tmp_path / "a.toml")
    assert json.loads((tmp_path / "r.json").read_text())["ledger"]["received"]["frames"] == 20


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('source = "card:x"', "source: 'card:x' is unknown"),
        ('source = "card:sim"', "card.play: is missing"),
        ('source = "card:sim"\ncard = {play = "a", ports = [4]}', "card.ports: 4 must be 0 to 3"),
        ('source = "card:sim"\ncard = {play = "a", ports = [true]}', "card.ports: True"),
        ('source = "card:sim"\ncard = {play = "a", sped = 1}', "card.sped: unknown key"),
        ('source = [{file = "a"}]\ncard = {play = "a"}', "card: unknown key"),
        ('source = "card:sim"\ncard = {play = "a", longest_gap = "1"}', "longest_gap"),
    ],
)
def test_mistakes_are_named(tmp_path, text, message):
    (tmp_path / "a.toml").write_text(text + "\n" + SERVERS % ("o", "o"))
    with pytest.raises(ConfigError, match=message.replace(".", r"\.").replace("(", r"\(")):
        load_appliance(tmp_path / "a.toml")
