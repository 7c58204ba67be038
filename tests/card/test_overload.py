# SPDX-License-Identifier: Apache-2.0
"""A slow or stopped host, a damaged ring, a memory that refuses: counted, typed, never corrupt."""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp.card.sim import frames
from twinstamp.errors import ConfigError, DeviceError

from tests.card.sending import collect


def numbered(n: int) -> list[bytes]:
    return [i.to_bytes(4, "big") * 15 for i in range(n)]


def test_stopped_host_costs_whole_frames_all_counted(make_card):
    simulated, card = make_card(block_log2=14, blocks_log2=1)
    card.start(ports=[0])
    n = 2000
    simulated.send(0, frames(numbered(n)))
    simulated.run_wires(10**6)  # the host does not look: two blocks and the frame store fill
    got = collect(card)[0]
    counters = card.counters()[0]
    assert counters["good"] == n
    assert counters["stored"] + counters["dropped"] == n and counters["dropped"] > 0
    assert len(got.frames) == counters["stored"]
    assert [int.from_bytes(frame[:4], "big") for frame in got.frames] == got.sequence
    sent = frames(numbered(1))
    simulated.send(0, sent)  # afterwards it goes on, and the sequence shows the gap
    (last,) = collect(card)[0].sequence
    assert last == n
    assert card.drops()[0] == counters["dropped"]


def test_held_batches_are_never_overwritten(make_card):
    simulated, card = make_card(block_log2=14, blocks_log2=2)
    card.start(ports=[0])
    simulated.send(0, frames(numbered(3000)))
    held = []
    for _ in range(50):
        batch = card.poll(1e-4)
        if batch is not None:
            start = int(batch.offset[0])
            held.append((batch, start, batch.data[start : start + 60].copy()))
    assert sum(len(batch) for batch, _, _ in held) > 500
    for batch, start, before in held:
        np.testing.assert_array_equal(batch.data[start : start + 60], before)
    held[1][0].release()  # out of order: nothing can be reused before the first
    assert card.read("ring.consumer") == 0
    for batch, _, _ in held:
        batch.release()
    assert card.read("ring.consumer") == card.read("ring.producer")
    rest = collect(card)[0]
    counters = card.counters()[0]
    assert sum(len(frame) == 60 for frame in rest.frames) == len(rest.frames)
    assert counters["stored"] + counters["dropped"] == 3000


def test_forgotten_batch_gives_its_blocks_back(make_card):
    simulated, card = make_card(block_log2=14, blocks_log2=1)
    card.start(ports=[0])
    for _ in range(6):
        simulated.send(0, frames(numbered(10)))
        batch = card.poll(3e-3)
        assert batch is not None and len(batch) == 10
        del batch


def test_memory_error_stops_the_card_and_it_can_start_again(make_card):
    simulated, card = make_card()
    card.start(ports=[0])
    simulated.set_memory_error(3)
    simulated.send(0, frames(numbered(100)))
    with pytest.raises(DeviceError, match="refused a write"):
        collect(card)
    simulated.set_memory_error(0)
    card.stop()
    simulated.run_wires(100_000)
    card.start(ports=[0])
    simulated.send(0, frames(numbered(5)))
    assert collect(card)[0].frames == numbered(5)


def test_stop_and_start_deliver_what_was_stored(make_card):
    simulated, card = make_card()
    for _ in range(3):
        card.start(ports=[1])
        simulated.send(1, frames(numbered(20)))
        simulated.run_wires(10**5)
        simulated.run(100)
        card.stop()
        assert collect(card)[1].frames == numbered(20)


def test_damaged_block_is_an_error(make_card):
    simulated, card = make_card()
    card.start(ports=[0])
    simulated.send(0, frames(numbered(5)))
    simulated.run(200_000)
    simulated._memory[64] ^= 0xFF  # the first record's captured length
    with pytest.raises(DeviceError, match="do not add up"):
        card.poll(1e-3)


@pytest.mark.parametrize(
    "options",
    [{"block_log2": 13}, {"block_log2": 23}, {"blocks_log2": 0}, {"timeout_s": 0}, {"timeout_s": 100}],
)
def test_bad_options(make_card, options):
    with pytest.raises(ConfigError):
        make_card(**options)
