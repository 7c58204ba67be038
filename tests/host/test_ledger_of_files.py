# SPDX-License-Identifier: Apache-2.0
"""The ledgers of commands over captures: each stage counts for itself, so a stage that lies is found."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from twinstamp.balance import Group, Server
from twinstamp.cli import main
from twinstamp.dedup import Deduplicator, dedup_capture
from twinstamp.errors import DamagedCaptureError, LedgerError
from twinstamp.frames import FrameBatch
from twinstamp.io import create_capture, open_capture
from twinstamp.io.files import CaptureWriter
from twinstamp.match import balance_capture
from twinstamp.rules import RuleSet

from tests.host.test_cli import FRAMES, capture

ACTIONS = [("drop", "o.pcap"), ("count", "o.pcap"), ("tag", "o.pcapng"), ("drop", "o.pcapng")]


def lose_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that leaves one frame of each batch out and says nothing."""
    whole = CaptureWriter.write

    def write(self: Any, batch: FrameBatch, keep: Any = None, comments: Any = None) -> int:
        mask = np.ones(len(batch), np.uint8) if keep is None else np.frombuffer(keep, np.uint8).copy()
        mask[np.flatnonzero(mask)[:1]] = 0
        return whole(self, batch, mask, comments)

    monkeypatch.setattr(CaptureWriter, "write", write)


@pytest.mark.parametrize(("action", "name"), ACTIONS)
def test_a_frame_that_the_writer_loses_is_missed(tmp_path, monkeypatch, action, name):
    source = capture(tmp_path / "in.pcap", FRAMES)
    dedup_capture(str(source), str(tmp_path / name), window=5, action=action)
    lose_one(monkeypatch)
    with pytest.raises(LedgerError):
        dedup_capture(str(source), str(tmp_path / name), window=5, action=action)


@pytest.mark.parametrize(("action", "name"), ACTIONS)
def test_a_frame_that_is_never_judged_is_missed(tmp_path, monkeypatch, action, name):
    """And a window that counts one frame too few."""
    source = capture(tmp_path / "in.pcap", FRAMES)
    honest = Deduplicator.statistics

    def statistics(self: Deduplicator) -> dict[str, Any]:
        found = honest(self)
        return {**found, "frames": found["frames"] - 1}

    monkeypatch.setattr(Deduplicator, "statistics", statistics)
    with pytest.raises(LedgerError):
        dedup_capture(str(source), str(tmp_path / name), window=5, action=action)


def test_a_tag_that_is_not_written_is_missed(tmp_path, monkeypatch):
    source = capture(tmp_path / "in.pcap", FRAMES)
    monkeypatch.setattr("twinstamp.dedup.tag_comments", lambda verdicts: None)
    with pytest.raises(LedgerError, match="tag"):
        dedup_capture(str(source), str(tmp_path / "o.pcapng"), window=5, action="tag")


@pytest.mark.parametrize("ending", ["pcap", "pcapng"])
def test_reader_and_writer_count_captured_bytes_and_comments(tmp_path, ending):
    frames = [bytes(length) for length in (60, 61, 1514, 0, 9000)]
    batch = FrameBatch.from_frames(frames, length=[len(frame) + 7 for frame in frames])
    with create_capture(str(tmp_path / f"a.{ending}")) as writer:
        writer.write(batch)
        writer.write(batch, np.array([1, 0, 1, 0, 0], np.uint8))
        if ending == "pcapng":
            writer.write(batch, comments=(bytes([0, 1, 1, 0, 1]), ["", "a comment"]))
    more = sum(map(len, frames)) if ending == "pcapng" else 0
    assert writer.captured == sum(map(len, frames)) + 60 + 1514 + more
    assert writer.comments == (3 if more else 0)
    with open_capture(str(tmp_path / f"a.{ending}")) as reader:
        for read in reader:
            read.release()
    assert reader.captured == writer.captured
    assert reader.frames == writer.frames


GROUPS = (Group("dpi", (Server("one"), Server("two"))),)


def test_a_copy_that_a_servers_writer_loses_is_missed(tmp_path, monkeypatch):
    source = capture(tmp_path / "in.pcap", FRAMES)
    rules = RuleSet(default=("dpi",))
    balance_capture(str(source), rules, tmp_path / "out", groups=GROUPS)
    lose_one(monkeypatch)
    with pytest.raises(LedgerError):
        balance_capture(str(source), rules, tmp_path / "out", groups=GROUPS)


def test_damage_leaves_a_report_of_what_came_before_it(tmp_path, capsys):
    """Each command over a capture: the report is written, the damage stands in it, the exit status is 1."""
    source = capture(tmp_path / "in.pcap", FRAMES)
    with source.open("ab") as file:
        file.write(bytes.fromhex("0100000009000000000000703c000000") + bytes(64))
    (tmp_path / "rules.toml").write_text('default = "dpi"\n')
    rules, report = ["--rules", str(tmp_path / "rules.toml")], tmp_path / "r.json"
    for words, frames in (
        (["dedup", str(source), str(tmp_path / "o.pcap"), "--window", "5"], ("ledger", "received", "frames")),
        (["analyse", str(source)], ("frames",)),
        (["rules", "match", str(source), *rules, "--out", str(tmp_path / "m.csv")], ("frames",)),
        (
            ["balance", str(source), *rules, "--out-dir", str(tmp_path / "out"),
             "--secret-file", str(tmp_path / "k")],
            ("ledger", "received", "frames"),
        ),
    ):  # fmt: skip
        report.unlink(missing_ok=True)
        assert main([*words, "--json", str(report)]) == 1, words
        text = capsys.readouterr().err
        assert "5 frames before it" in text.splitlines()[-1]
        found = json.loads(report.read_text())
        assert "in.pcap" in found["damage"]
        for key in frames:
            found = found[key]
        assert found == 5
    assert (tmp_path / "m.csv").read_text().count("\n") == 6


def test_held_fragments_are_delivered_when_the_capture_is_damaged(tmp_path):
    """A later fragment waits for its first one; the damage comes before that, and the fragment was lost."""
    later = bytes(Ether() / IP(src="10.0.0.1", dst="192.0.2.9", id=7, proto=17, frag=1) / bytes(40))
    source = capture(tmp_path / "in.pcap", [FRAMES[0], later, FRAMES[1]])
    with source.open("ab") as file:
        file.write(bytes.fromhex("0100000009000000000000703c000000") + bytes(64))
    with pytest.raises(DamagedCaptureError) as caught:
        balance_capture(str(source), RuleSet(default=("dpi",)), tmp_path / "out", groups=GROUPS)
    report = caught.value.report
    assert report["fragments"]["held"] == 1, "the case that is meant"
    assert report["ledger"]["forwarded"]["frames"] == 3
    written = 0
    for name in ("one", "two"):
        with open_capture(str(tmp_path / "out" / f"{name}.pcap")) as reader:
            written += sum(len(batch) for batch in reader)
    assert written == 3
