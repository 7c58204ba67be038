# SPDX-License-Identifier: Apache-2.0
"""Registers, clock and identification over the simulated card's bus."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from twinstamp.card import Card
from twinstamp.card.regmap import MAGIC, MEMORIES, REGISTERS
from twinstamp.card.sim import RING_ADDRESS, SimulatedCard, frames
from twinstamp.errors import ConfigError, DeviceError

from tests.card.sending import collect, fcs


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


def works(card: Card, simulated: SimulatedCard) -> None:
    """Receives on each port, sends over the cable from 0 to 1 with departure stamps, counts."""
    card.start()
    simulated.run(20)
    before = card.counters()
    sent = bytes(range(100, 160))
    for port in (0, 2, 3):
        simulated.send(port, frames([sent + fcs(sent)] * 3, add_fcs=False))
    for cookie in (7, 8):
        card.send(0, sent, stamp=True, cookie=cookie)
    got = collect(card)
    assert [port.frames for port in got] == [[sent] * 3, [sent] * 2, [sent] * 3, [sent] * 3]
    assert card.departures()["cookie"].tolist() == [7, 8]
    after = card.counters()
    assert [a["good"] - b["good"] for a, b in zip(after, before, strict=True)] == [3, 2, 3, 3]
    assert after[0]["tx_frames"] - before[0]["tx_frames"] == 2


VALUES = (0, 0xFFFFFFFF, 1, 0x80000000, RING_ADDRESS & 0xFFFFFFFF, RING_ADDRESS >> 32)


@pytest.mark.parametrize("seed", range(4))
def test_writing_anything_anywhere_never_hangs_the_bus(make_card, seed):
    """All the map and beyond, any value, any bytes of a word, reads in between, frames coming and going."""
    simulated, card = make_card(seed=seed)
    simulated.connect(0, simulated, 1)
    card.start()
    card.send(0, bytes(60))
    rng = random.Random(seed)
    simulated.set_memory_stall(0.2, latency=(1, 50))
    offsets = [
        register.offset + part for register in REGISTERS.values() for part in (0, register.width // 8 - 4)
    ]
    for port in (0, 2, 3):
        simulated.send(port, frames([rng.randbytes(rng.randrange(20, 400)) for _ in range(200)]))
    for n in range(6000):
        address = rng.choice(
            (rng.choice(offsets), rng.choice(offsets), rng.randrange(1 << 14), rng.getrandbits(32))
        )
        value = rng.choice((*VALUES, rng.getrandbits(32), 1 << rng.randrange(32), rng.getrandbits(8)))
        if rng.random() < 0.6:
            simulated.write32(address, value, rng.choice((15, 15, rng.randrange(16))))
        else:
            simulated.read32(address)
        if n % 50 == 0:
            simulated.run(rng.randrange(3000))
    assert card.read("id.magic") == MAGIC
    simulated.set_memory_stall()
    simulated.run_wires(300_000)
    card.reset()
    for name, register in REGISTERS.items():
        both = all(field.writable and field.readable for field in register.fields.values())
        if both and not name.endswith("phy.command"):
            assert card.read(name) == register.reset, name
    simulated.run(5000)  # the PHYs negotiate
    simulated.run_wires(300_000)  # what waited for a link that some write took down
    works(card, simulated)


def test_reset_forgets_what_waits(make_card):
    """A launch in ten years, half a record, a ring that memory refused: none of it outlives a reset."""
    simulated, card = make_card()
    simulated.connect(0, simulated, 1)
    card.start()
    simulated.set_memory_error(1)
    simulated.send(2, frames([bytes(60)] * 3))
    card.send(0, bytes(60), launch_q32=10 * 365 * 86400 << 32)
    card.send(0, bytes(1500))
    simulated.run(400_000)
    card.write("port[0].tx_producer", card.read("port[0].tx_producer") + 3)  # not the end of a record
    simulated.run(1000)
    assert card.counters()[0]["tx_frames"] == 0 and card.fields("ring.status")["error"]
    simulated.set_memory_error(0)
    card.reset()
    simulated.run(5000)
    works(card, simulated)


def test_a_record_longer_than_a_frame_stops_its_port(make_card):
    """Where the next record begins is not known: nothing of its bytes may go out as one."""
    simulated, card = make_card(block_log2=14, blocks_log2=4)
    card.start()
    simulated.connect(0, simulated, 1)
    card.send(0, b"\x02" * 60)
    card._longest_sent = 9100  # a driver that does not look
    inside = (60).to_bytes(8, "little") + bytes(24) + b"\x06" * 44  # as a record
    card.send(0, b"\x04" * 9024 + inside)
    card.send(1, b"\x02" * 60)
    simulated.run(100_000)
    assert card.fields("port[0].tx_status") == {"error": 0, "bad_shape": 0, "bad_record": 1}
    assert [counted["tx_frames"] for counted in card.counters()] == [1, 1, 0, 0]
    with pytest.raises(DeviceError, match="port 0: a record in its ring says more bytes than a frame"):
        card.send(0, bytes(60))
    card.reset()
    assert card.fields("port[0].tx_status")["bad_record"] == 0
    simulated.run(5000)
    works(card, simulated)


def test_shape_is_taken_at_the_start(make_card):
    """Base and shape of a running ring can be written without harm; of transmit rings they are judged."""
    simulated, card = make_card(block_log2=14, blocks_log2=1)
    card.start(ports=[3])
    card.write("ring.base", 0x1000)
    card.write_fields("ring.shape", size_log2=31, count_log2=15)
    simulated.send(3, frames([bytes([n]) * 100 for n in range(200)]))
    got = collect(card)[3]
    assert got.frames == [bytes([n]) * 100 for n in range(200)]
    assert card.read("ring.status") == 0
    card.send(0, bytes(60))
    simulated.run(2000)
    assert card.counters()[0]["tx_frames"] == 1
    for changes in ({"tx_base": 0x1_0000_0008}, {"tx_control": 1 | 8 << 4}, {"tx_control": 1 | 21 << 4}):
        old = {name: card.read(f"port[0].{name}") for name in changes}
        for name, value in changes.items():
            card.write(f"port[0].{name}", value)
        simulated.run(10)
        assert card.fields("port[0].tx_status") == {"error": 0, "bad_shape": 1, "bad_record": 0}
        for name, value in old.items():
            card.write(f"port[0].{name}", value)
        simulated.run(10)
        assert card.fields("port[0].tx_status") == {"error": 0, "bad_shape": 0, "bad_record": 0}


def halves(card: Card, name: str, between) -> tuple[int, int]:
    """Both words of a 64-bit register, the lower first, with something done in between."""
    offset = REGISTERS[name].offset
    low = card.transport.read32(offset)
    between()
    return low, card.transport.read32(offset + 4)


@pytest.mark.parametrize("early_ns", range(0, 400, 8))
def test_time_is_read_in_one_piece(make_card, early_ns):
    """The lower word overflows before, within and behind the reading of the two words."""
    simulated, card = make_card()
    card.load_time_q32((5 << 32) - round(early_ns * 4.294967296))
    last = 0
    for _ in range(8):
        now = card.time_q32()
        assert last < now < (5 << 32) + 20_000
        last = now
    card.load_time_q32((5 << 32) - 5000)
    low, high = halves(card, "clock.now", lambda: simulated.run(1000))
    assert (high, low > 0xFFFF0000) == (4, True)
    assert card.time_q32() >> 32 == 5


def test_what_moves_is_read_in_one_piece(make_card):
    simulated, card = make_card()
    card.write("clock.slew_amount", (1 << 32) + 10_000_000)  # 68 cycles until the lower word runs out
    simulated.run(10)
    low, high = halves(card, "clock.slew_left", lambda: simulated.run(1000))
    assert (high, low < 10_000_000) == (1, True)
    assert card.read("clock.slew_left") >> 32 == 0
    card.load_time_q32((5 << 32) - 5000)
    card.write_fields("counters.control", latch=1)
    simulated.run(200)

    def again() -> None:
        simulated.run(1000)
        card.write_fields("counters.control", latch=1)
        simulated.run(200)

    low, high = halves(card, "counters.at", again)
    assert (high, low > 0xFFFF0000) == (4, True)
    assert card.read("counters.at") >> 32 == 5


def test_what_is_written_takes_effect_in_one_piece(make_card):
    """A lower word alone changes nothing."""
    simulated, card = make_card()
    for name, register in REGISTERS.items():
        if register.width == 64 and all(field.writable for field in register.fields.values()):
            card.transport.write32(register.offset, 0x12345678)
            simulated.run(10)
            assert card.read(name) == register.reset, name
            card.transport.write32(register.offset + 4, 0)
            simulated.run(10)
            assert card.read(name) & 0xFFFFF000 == 0x12345000, name


def test_latched_counters_stand_still(make_card):
    """Both words of each, under traffic, until the next latch; all ports of one instant."""
    simulated, card = make_card()
    card.start()
    for port in range(4):
        simulated.send(port, frames([bytes(60)] * 2000))
    simulated.run(5000)
    base, size = MEMORIES["counter_memory"]
    card.write_fields("counters.control", latch=1)
    simulated.run(500)
    first = [card.transport.read32(base + at) for at in range(0, size, 4)]
    simulated.run(20_000)
    assert [card.transport.read32(base + at) for at in range(0, size, 4)] == first
    good = [first[port * 64 + 4] for port in range(4)]
    assert max(good) - min(good) <= 1 and min(good) > 50
    assert card.counters()[0]["good"] > good[0] + 200


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
