# SPDX-License-Identifier: Apache-2.0
"""`twinstamp dedup` writes exactly the records that Wireshark's editcap writes."""

from __future__ import annotations

import random
import struct
import subprocess
from pathlib import Path

import pytest
from twinstamp.dedup import dedup_capture
from twinstamp.io import open_capture

from tests.conftest import captures


def records(path: Path) -> list[tuple[int, int, bytes]]:
    found = []
    with open_capture(path) as reader:
        for batch in reader:
            for i in range(len(batch)):
                found.append((int(batch.timestamp_ns[i]), int(batch.length[i]), batch.frame(i)))
    return found


def editcap_records(editcap: str, source: Path, out: Path, *options: str) -> list[tuple[int, int, bytes]]:
    subprocess.run(
        [editcap, "-F", "nsecpcap" if source.suffix == ".pcap" else "pcapng", *options, source, out],
        check=True,
        capture_output=True,
    )
    return records(out)


@pytest.mark.corpus
@pytest.mark.parametrize("capture", captures(), ids=lambda p: p.name)
def test_every_capture_and_window(capture, corpus, editcap, tmp_path):
    for options, ours in [
        *((("-D", str(n)), {"window": n}) for n in (2, 5, 600, 10_000)),
        *((("-w", seconds), {"time_ns": ns}) for seconds, ns in (("0.001", 10**6), ("0.05", 5 * 10**7))),
    ]:
        out = tmp_path / f"ours{capture.suffix}"
        dedup_capture(capture, out, **ours)
        expected = editcap_records(editcap, capture, tmp_path / f"editcap{capture.suffix}", *options)
        assert records(out) == expected, f"{capture.name} {options}"


def write_ns_pcap(path: Path, frames: list[tuple[int, bytes]]) -> None:
    with path.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1))
        for time_ns, frame in frames:
            file.write(struct.pack("<IIII", *divmod(time_ns, 10**9), len(frame), len(frame)))
            file.write(frame)


def backwards(seed: int) -> list[tuple[int, bytes]]:
    """A random capture whose stamps jump back and forth, with few different frames."""
    rng = random.Random(seed)
    distinct = rng.choice([2, 5, 20])
    now = 10**18 // 10**9 * 10**9 % 10**18 + 10**9
    frames = []
    for _ in range(rng.choice([10, 60, 150])):
        now += rng.choice(
            [0, 1, 10**5, 10**6, 10**7, -(10**6), -3 * 10**6, -(10**8) if rng.random() < 0.1 else 7]
        )
        key = rng.randrange(distinct)
        frames.append((now, bytes([key]) * rng.choice([60, 61])))
    return frames


@pytest.mark.parametrize("block", range(10))
def test_stamps_that_run_backwards(block, editcap, tmp_path):
    for seed in range(block * 30, block * 30 + 30):
        rng = random.Random(-seed)
        source = tmp_path / "in.pcap"
        write_ns_pcap(source, backwards(seed))
        if rng.random() < 0.7:
            seconds = rng.choice(["0.001", "0.000001", "0.01", "0.05", "0"])
            options, ours = ("-w", seconds), {"time_ns": round(float(seconds) * 10**9)}
        else:
            n = rng.choice([0, 1, 2, 5, 50])
            options, ours = ("-D", str(n)), {"window": n}
        dedup_capture(source, tmp_path / "ours.pcap", **ours)
        expected = editcap_records(editcap, source, tmp_path / "editcap.pcap", *options)
        assert records(tmp_path / "ours.pcap") == expected, f"seed {seed} {options}"


@pytest.mark.parametrize("ignored", [0, 1, 14, 59, 60, 61, 100])
def test_ignored_bytes(ignored, editcap, tmp_path):
    rng = random.Random(ignored)
    frames = []
    for i in range(300):
        body = bytearray(bytes([rng.randrange(3)]) * rng.choice([60, 61, 100]))
        body[rng.randrange(len(body))] ^= rng.randrange(2)
        frames.append((10**9 + i, bytes(body)))
    source = tmp_path / "in.pcap"
    write_ns_pcap(source, frames)
    dedup_capture(source, tmp_path / "ours.pcap", window=50, ignore_bytes=ignored)
    expected = editcap_records(editcap, source, tmp_path / "e.pcap", "-D", "50", "-I", str(ignored))
    assert records(tmp_path / "ours.pcap") == expected
