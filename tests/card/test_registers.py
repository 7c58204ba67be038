# SPDX-License-Identifier: Apache-2.0
"""Registers, clock and identification over the simulated card's bus."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from twinstamp.card import Card
from twinstamp.card.regmap import MAGIC, MEMORIES, REGISTERS
from twinstamp.card.sim import SimulatedCard
from twinstamp.errors import ConfigError, DeviceError

from tests.card.sending import collect


class Altered:
    """A transport that changes what some addresses read."""

    name = "altered"

    def __init__(self, changes: dict[int, int]) -> None:
        self._inner = SimulatedCard()
        self._changes = changes

    def read32(self, address: int) -> int:
        return self._changes.get(address, self._inner.read32(address))

    def __getattr__(self, name: str):
        return getattr(self._inner, name)


def test_identification(make_card):
    _, card = make_card()
    assert card.read("id.magic") == MAGIC
    assert card.identity.ports == 4
    assert card.identity.core_clock_hz == 125_000_000
    assert "simulated" in card.identity.features


@pytest.mark.parametrize(
    ("address", "value", "message"),
    [(0, 0xDEADBEEF, "not a Twinstamp card"), (4, 2 << 16, "register map 2.0")],
)
def test_wrong_card_is_refused(address, value, message):
    with pytest.raises(DeviceError, match=message):
        Card(Altered({address: value}))


def test_closed_card_is_an_error(make_card):
    _, card = make_card()
    card.close()
    card.close()
    with pytest.raises(DeviceError, match="closed"):
        card.read("id.magic")


def test_time_runs_at_the_nominal_rate_and_reads_in_one_piece(make_card):
    simulated, card = make_card()
    before_cycles, before = simulated.cycles, card.time_q32()
    simulated.run(1_000_000)
    seconds = (card.time_q32() - before) / 2**32
    assert seconds == pytest.approx((simulated.cycles - before_cycles) * 8e-9, abs=2e-7)
    # The lower word about to overflow: both words must belong together.
    card.load_time_q32((5 << 32) - 100)
    readings = [card.time_q32() for _ in range(50)]
    assert readings == sorted(readings)
    assert readings[0] >> 32 in (4, 5) and readings[-1] >> 32 == 5
    assert card.read("clock.epoch") == 1


def test_load_is_refused_while_locked(make_card):
    _, card = make_card()
    card.write_fields("clock.control", locked=1)
    with pytest.raises(DeviceError, match="refused"):
        card.load_time_q32(1 << 40)
    assert card.read("clock.epoch") == 0
    card.write_fields("clock.control", locked=0)
    card.load_time_q32(1 << 40)
    assert card.read("clock.epoch") == 1 and card.time_q32() >> 32 == 256


def test_rate_and_slew(make_card):
    simulated, card = make_card()
    card.set_rate_ppb(100_000)
    before_cycles, before = simulated.cycles, card.time_q32()
    simulated.run(1_000_000)
    gained = (card.time_q32() - before) / 2**32 - (simulated.cycles - before_cycles) * 8e-9
    assert gained == pytest.approx(8e-3 * 1e-4, abs=2e-7)
    card.set_rate_ppb(0)

    for amount_ns in (1000, -1000):
        before_cycles, before = simulated.cycles, card.time_q32()
        card.slew_ns(amount_ns, ppm=1000)
        simulated.run(100)
        assert card.fields("clock.status")["slewing"] == 1
        last = card.time_q32()
        for _ in range(20):
            simulated.run(10_000)
            now = card.time_q32()
            assert now > last
            last = now
        simulated.run(200_000)
        assert card.fields("clock.status")["slewing"] == 0 and card.read("clock.slew_left") == 0
        moved = (card.time_q32() - before) / 2**32 - (simulated.cycles - before_cycles) * 8e-9
        assert moved * 1e9 == pytest.approx(amount_ns, abs=200)


def test_absurd_increment_is_refused(make_card):
    _, card = make_card()
    card.write("clock.increment", 0)
    card.transport.wait(1e-6)
    assert card.fields("clock.status")["increment_refused"] == 1
    first = card.time_q32()
    assert card.time_q32() > first


def test_new_epoch_splits_batches(make_card):
    from twinstamp.card.sim import frames

    simulated, card = make_card()
    card.start()
    simulated.send(0, frames([bytes(60)] * 3))
    simulated.run_wires(10_000)
    simulated.run(50)
    card.load_time_q32(1_700_000_000 << 32)
    simulated.send(0, frames([bytes(60)] * 2))
    got = collect(card)[0]
    assert got.epoch == [0, 0, 0, 1, 1]
    assert got.timestamp_ns[2] < 10**9 < 1_700_000_000 * 10**9 < got.timestamp_ns[3]


def test_writing_anything_anywhere_never_hangs_the_bus(make_card):
    _, card = make_card()
    rng = random.Random(3)
    for address in range(0, 0x4000, 4):
        card.transport.write32(address, rng.getrandbits(32))
    for address in range(0, 0x4000, 4):
        card.transport.read32(address)
    card.write("id.scratch", 0x12345678)
    assert card.read("id.scratch") == 0x12345678


def test_values_that_do_not_fit_are_refused(make_card):
    _, card = make_card()
    with pytest.raises(ConfigError, match="does not fit"):
        card.write("id.scratch", 1 << 32)
    with pytest.raises(ConfigError, match="does not fit"):
        card.write_fields("ring.shape", size_log2=32)


def test_map_has_no_overlaps():
    ends = sorted((r.offset, r.offset + r.width // 8) for r in REGISTERS.values())
    ends += sorted((at, at + size) for at, size in MEMORIES.values())
    assert all(a[1] <= b[0] for a, b in pairwise(ends))
