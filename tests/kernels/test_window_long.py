# SPDX-License-Identifier: Apache-2.0
"""What takes minutes: frame numbers that come round, and windows beside editcap at size. `make test-long`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from twinstamp.dedup import dedup_capture
from twinstamp_kernels.window import Window

from tests.bench.traffic import write_capture
from tests.kernels.test_window import LINKTYPES, definition_by_key

pytestmark = pytest.mark.long


def test_a_frame_of_two_to_the_32_frames_ago_is_no_duplicate():
    """Entries hold frame numbers modulo 2^32. A shard that gets few frames keeps them until the sweep."""
    n = 1 << 20
    data = np.arange(64, dtype=np.uint8)
    zeros = np.zeros(n, np.uint16)
    times = np.zeros(n, np.int64)
    ones = np.ones(n, np.uint32)
    window = Window(count=1000, workers=2)

    def feed(values: np.ndarray) -> np.ndarray:
        k = len(values)
        offset = values.astype(np.uint64)
        verdicts = window.process(data, offset, ones[:k], times[:k], zeros[:k], LINKTYPES, details=True)
        return np.asarray(verdicts.distance)

    rare = np.arange(1, 33)  # some of them in either shard; all other frames are one key
    assert not feed(rare).any()
    common = np.zeros(n, np.int64)
    left = (1 << 32) - len(rare) + 10
    while left:
        count = min(left, n)
        distance = feed(common[:count])
        assert (distance[1:] == 1).all()
        left -= count
    assert not feed(rare).any(), "modulo 2^32 they are ten frames away, and not in the window"
    assert feed(rare).all()


@pytest.mark.parametrize("kind", [64, "imix"])
@pytest.mark.parametrize("options", [("-D", "10000"), ("-w", "0.0005")], ids=["count", "time"])
def test_editcap_at_size(kind, options, editcap, tmp_path):
    source = tmp_path / "in.pcap"
    write_capture(source, kind, 300_000, seed=5)
    subprocess.run(
        [editcap, "-F", "pcap", *options, source, tmp_path / "e.pcap"], check=True, capture_output=True
    )
    ours = {"window": 10_000} if options[0] == "-D" else {"time_ns": 500_000}
    dedup_capture(source, tmp_path / "o.pcap", workers=2, **ours)
    assert Path(tmp_path / "o.pcap").read_bytes() == Path(tmp_path / "e.pcap").read_bytes()


@pytest.mark.parametrize("seed", range(40))
def test_long_streams_of_any_order(seed):
    rng = np.random.default_rng(seed)
    n = 200_000
    keys = rng.integers(0, int(rng.choice([50, 3000, 100_000])), n)
    times = np.cumsum(rng.integers(int(rng.choice([-9, -2, 0])), 12, n))
    options = [
        {"count": int(rng.integers(2, 50_000))},
        {"time_ns": int(rng.integers(0, 100_000))},
        {"time_ns": int(rng.integers(0, 100_000)), "count": int(rng.integers(2, 50_000))},
        {"time_ns": int(rng.integers(0, 10**7)), "limit": int(rng.integers(2, 50_000))},
    ][seed % 4]
    window = Window(workers=1 + seed % 3, **options)
    data = keys.astype("<u4").view(np.uint8)
    offset, caplen = np.arange(n, dtype=np.uint64) * 4, np.full(n, 4, np.uint32)
    got = []
    begin = 0
    while begin < n:
        part = slice(begin, begin + int(rng.integers(1, 60_000)))
        stamps = times[part]
        port = np.zeros(len(stamps), np.uint16)
        got += window.process(data, offset[part], caplen[part], stamps, port, LINKTYPES).distance.tolist()
        begin = part.stop
    assert got == definition_by_key(keys.tolist(), times.tolist(), **options)
