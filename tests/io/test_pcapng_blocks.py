# SPDX-License-Identifier: Apache-2.0
"""pcapng blocks: simple ones have no time, so a time window leaves them alone (editcap -w); large ones."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from twinstamp.dedup import Deduplicator, dedup_capture
from twinstamp.io import open_capture


def block(kind: int, body: bytes) -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack("<II", kind, len(body) + 12) + body + struct.pack("<I", len(body) + 12)


def write(path: Path, packets: list[tuple[int | None, bytes]]) -> None:
    """Of each packet its time in us, None for a simple packet block."""
    out = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(
        1, struct.pack("<HHI", 1, 0, 0)
    )
    for time_us, frame in packets:
        if time_us is None:
            out += block(3, struct.pack("<I", len(frame)) + frame)
        else:
            head = struct.pack("<IIIII", 0, time_us >> 32, time_us & 0xFFFFFFFF, len(frame), len(frame))
            out += block(6, head + frame)
    path.write_bytes(out)


def frames_of(path: Path) -> list[bytes]:
    with open_capture(path) as reader:
        return [batch.frame(i) for batch in reader for i in range(len(batch))]


@pytest.mark.parametrize("seed", range(4))
def test_as_editcap_has_it(tmp_path, editcap, seed):
    rng = random.Random(seed)
    kinds = [bytes(12) + b"\x88\xb5" + bytes([k]) * 50 for k in range(4)]
    now, packets = 1_700_000_000_000_000, []
    for _ in range(300):
        now += rng.choice((1, 1000, 30_000))
        packets.append((rng.choice((None, now, now)), rng.choice(kinds)))
    write(tmp_path / "in.pcapng", packets)
    report = dedup_capture(str(tmp_path / "in.pcapng"), str(tmp_path / "ours.pcapng"), time_ns=50_000_000)
    subprocess.run(
        [editcap, "-w", "0.05", tmp_path / "in.pcapng", tmp_path / "theirs.pcapng"],
        check=True,
        capture_output=True,
    )
    assert frames_of(tmp_path / "ours.pcapng") == frames_of(tmp_path / "theirs.pcapng")
    without = sum(time is None for time, _ in packets)
    assert report["duplicates"]["without_stamp"]["frames"] == without > 50
    assert report["ledger"]["duplicates_dropped"]["frames"] > 50


def test_a_window_of_frames_judges_them(tmp_path, editcap):
    frame = bytes(12) + b"\x88\xb5" + bytes(50)
    write(tmp_path / "in.pcapng", [(None, frame), (None, frame[::-1]), (None, frame)])
    report = dedup_capture(str(tmp_path / "in.pcapng"), None, window=5, action="count")
    assert report["duplicates"]["by_type"]["exact"]["frames"] == 1
    assert report["duplicates"]["without_stamp"]["frames"] == 0


def test_details_of_the_others_stay_at_their_frames(tmp_path):
    frame = bytes(60)
    write(tmp_path / "in.pcapng", [(1000, frame), (None, frame), (None, frame), (1007, frame)])
    with open_capture(tmp_path / "in.pcapng") as reader, Deduplicator(time_ns=1_000_000) as deduplicator:
        (batch,) = reader
        with batch:
            verdicts = deduplicator.judge(batch, details=True)
            assert list(verdicts.keep) == [1, 1, 1, 0]
            assert list(verdicts.delay_ns) == [0, 0, 0, 7000] and list(verdicts.distance) == [0, 0, 0, 1]


@pytest.mark.parametrize("last", [1, 249])
def test_a_large_packet_is_judged_by_its_own_interface(tmp_path, last):
    """17 MiB over USB, on the first of two interfaces: what the last one may have does not matter."""
    size = 17 << 20
    head = struct.pack("<IIIII", 0, 0, 1, size, size)
    (tmp_path / "usb.pcapng").write_bytes(
        block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
        + block(1, struct.pack("<HHI", 249, 0, 0))
        + block(1, struct.pack("<HHI", last, 0, 0))
        + block(6, head + bytes(size))
    )
    with open_capture(tmp_path / "usb.pcapng") as reader:
        assert [int(size) for batch in reader for size in batch.caplen] == [size]
