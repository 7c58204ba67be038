# SPDX-License-Identifier: Apache-2.0
"""FrameBatch: columns without a copy, selection, leases."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from twinstamp.frames import FILE_CLOCK, FrameBatch, Port


def test_columns_are_views_of_any_buffer():
    backing = bytearray(b"abcdef")
    batch = FrameBatch(
        (
            backing,
            memoryview(np.array([0, 4], "u8")),
            memoryview(np.array([4, 2], "u4")),
            memoryview(np.array([60, 2], "u4")),
            memoryview(np.array([5, 6], "i8")),
            memoryview(np.zeros(2, "u2")),
            memoryview(np.zeros(2, "u2")),
        ),
        ports=(Port("p", 1),),
    )
    assert len(batch) == 2
    assert batch.frame(1) == b"ef"
    backing[5] = ord("X")
    assert batch.frame(1) == b"eX", "a view, not a copy"
    assert batch.length.tolist() == [60, 2]
    assert batch.clock is FILE_CLOCK
    assert batch.linktypes.tolist() == [1]


def test_selection_shares_bytes_and_takes_masks_and_indexes():
    batch = FrameBatch.from_frames([b"a", b"bb", b"ccc"], timestamp_ns=[1, 2, 3])
    chosen = batch.select(np.array([True, False, True]))
    assert [chosen.frame(i) for i in range(len(chosen))] == [b"a", b"ccc"]
    assert chosen.data.base is batch.data or np.shares_memory(chosen.data, batch.data)
    assert batch.select([2, 0]).timestamp_ns.tolist() == [3, 1]


def test_a_lease_is_given_back_once_and_the_columns_are_gone():
    given = []
    base = FrameBatch.from_frames([b"a"])
    batch = FrameBatch(base.raw, ports=base.ports, lease=lambda: given.append(1))
    with batch:
        assert batch.frame(0) == b"a"
    batch.release()
    assert given == [1]
    assert len(batch) == 0


def test_an_empty_batch():
    batch = FrameBatch.from_frames([])
    assert len(batch) == 0
    assert batch.timestamp_ns.tolist() == []


def test_a_wrong_number_of_columns_is_refused():
    with pytest.raises(TypeError, match="7 columns, 2 given"):
        FrameBatch((b"", b""), ports=())


def test_passing_batches_on_needs_no_numpy(tmp_path):
    """`twinstamp dedup` starts four times as fast without it."""
    code = (
        "import sys; from twinstamp.cli import main; "
        "code = main(['dedup', '--quiet', '--window', '5', sys.argv[1], sys.argv[2]]); "
        "assert code == 0; "
        "assert not {'numpy', 'rich', 'dataclasses'} & set(sys.modules), 'imported'"
    )
    source = tmp_path / "in.pcap"
    source.write_bytes(bytes.fromhex("d4c3b2a1020004000000000000000000ffff000001000000") + bytes(16))
    subprocess.run([sys.executable, "-c", code, source, tmp_path / "out.pcap"], check=True)
