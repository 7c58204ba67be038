# SPDX-License-Identifier: Apache-2.0
"""Registers of 64 bits, two words at a time, by the host and the core at once: each side has its own value,
whole.
"""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from twinstamp.card.regmap import REGISTERS

from tests.loop.simulated_clock import FS, SimulatedClock
from tests.loop.test_loop import program
from tests.loop.world import START_TAI_S, World

NOW = REGISTERS["clock.now"].offset
LOAD_TIME = REGISTERS["clock.load_time"].offset
SCRATCH = REGISTERS["id.scratch"].offset
FOUR_CYCLES = Fraction(4 << 32, 125_000_000)  # registers show what was four cycles ago at most


def r(funct3: int, rd: int, rs1: int, imm: int, opcode: int) -> int:
    """An instruction of RV32I with an immediate of 12 bits."""
    return (imm & 0xFFF) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode


def lw(rd: int, rs1: int, imm: int) -> int:
    return r(2, rd, rs1, imm, 0x03)


def addi(rd: int, rs1: int, imm: int) -> int:
    return r(0, rd, rs1, imm, 0x13)


def sw(rs2: int, rs1: int, imm: int) -> int:
    return (imm >> 5 & 0x7F) << 25 | rs2 << 20 | rs1 << 15 | 2 << 12 | (imm & 31) << 7 | 0x23


def branch(funct3: int, rs1: int, rs2: int, to: int) -> int:
    """beq 0, bne 1, bltu 6."""
    return (
        (to >> 12 & 1) << 31 | (to >> 5 & 63) << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12
        | (to >> 1 & 15) << 8 | (to >> 11 & 1) << 7 | 0x63
    )  # fmt: skip


def jump(to: int) -> int:
    return (
        (to >> 20 & 1) << 31 | (to >> 1 & 0x3FF) << 21 | (to >> 11 & 1) << 20 | (to >> 12 & 0xFF) << 12 | 0x6F
    )


LUI_REGISTERS = 0x400000B7  # lui x1, 0x40000
# Reads card time for ever, the lower word first; writes into scratch how often it ran back.
READS_TIME = program(
    LUI_REGISTERS,
    lw(2, 1, NOW),
    lw(3, 1, NOW + 4),
    branch(6, 3, 5, 16),  # the upper word fell: count
    branch(1, 3, 5, 20),  # it rose: as it should
    branch(6, 2, 4, 8),  # the same, and the lower one fell: count
    jump(12),
    addi(6, 6, 1),
    sw(6, 1, SCRATCH),
    addi(4, 2, 0),
    addi(5, 3, 0),
    jump(-40),
)
# Writes 0x1111111111111111 into clock.load_time for ever, some hundred cycles apart.
WRITES_TIME = program(
    LUI_REGISTERS,
    0x11111137,  # lui x2, 0x11111
    addi(2, 2, 0x111),
    sw(2, 1, LOAD_TIME),
    sw(2, 1, LOAD_TIME + 4),
    addi(3, 0, 9),
    addi(3, 3, -1),
    branch(1, 3, 0, -4),
    jump(-20),
)


def started(image: bytes) -> SimulatedClock:
    card = SimulatedClock()
    card.load(image)
    card.write("cpu.watchdog", 0xFFFFFFFF)
    card.write("cpu.control", 1)
    return card


def read(card: SimulatedClock, between: int = 0) -> int:
    """clock.now as two words, and as many cycles between them."""
    low = card.read32(NOW)
    if between:
        card.run(between)
    return card.read32(NOW + 4) << 32 | low


def set_time(card: SimulatedClock, q32: int) -> None:
    card.write("clock.load_time", q32)
    card.write("clock.control", 1)


@pytest.mark.parametrize("between", [0, 1, 17, 2500])
def test_card_time_over_the_turn_of_a_second(between):
    """The core reads as fast as it can; the truth is the simulation's own counter."""
    card, rng = started(READS_TIME), random.Random(between)
    for k in range(60):
        set_time(card, (START_TAI_S + k << 32) - rng.randrange(20_000 + 70 * between))
        for _ in range(20):
            before = card.card_time(card.counts.now_fs) * 2**32
            value = read(card, between)
            after = card.card_time(card.counts.now_fs) * 2**32
            assert before - FOUR_CYCLES <= value <= after, (k, float(value - before))
    # Loads set time back: each may be met once.
    assert card.read("id.scratch") <= 60
    card.write("id.scratch", 0)
    counted = card.read("id.scratch")
    for _ in range(3000):
        read(card)
    assert card.read("id.scratch") == counted == 0


def test_reads_while_the_firmware_works():
    """Its first act in each second is to read card time. Words lie 100 us before and behind the second."""
    world = World(seed=21)
    card = world.card
    world.run(6)
    wrong = 0
    for _ in range(5):
        at = world.fs(START_TAI_S + world.second)
        card.pulse(at)
        card.run_until(at - FS // 10_000)
        before = card.card_time(card.counts.now_fs) * 2**32
        low = card.read32(NOW)
        card.run_until(at + FS // 10_000)
        value = card.read32(NOW + 4) << 32 | low
        wrong += not before - 100 <= value <= before + 200
        left = card.read("clock.slew_left")
        assert left < 2**63 or left > 2**64 - 2**50  # whole: a small number, of either sign
        card.run_until(at + FS // 2)
        world.second += 1
    assert wrong == 0


@pytest.mark.parametrize("between", [0, 3, 40, 1000])
def test_writes_do_not_mix(between):
    """Host and core write the same register: what it holds is all of one side's."""
    card, rng = started(WRITES_TIME), random.Random(between)
    theirs, ours = 0x1111111111111111, 0x2222222222222222
    seen = set()
    for _ in range(200):
        card.write32(LOAD_TIME, ours & 0xFFFFFFFF)
        card.run(1 + between + rng.randrange(150))
        card.write32(LOAD_TIME + 4, ours >> 32)
        for _ in range(5):
            value = card.read("clock.load_time")
            assert value in (theirs, ours), hex(value)
        seen.add(value)
    assert seen == {theirs, ours}


def test_a_lower_word_waits_for_its_own_upper_word():
    """Two registers written in turn, word by word, the lower ones first: each gets its own."""
    card = SimulatedClock()
    increment = REGISTERS["clock.increment"].offset
    before = card.read("clock.increment")
    card.write32(LOAD_TIME, 0x89ABCDEF)
    assert card.read("clock.load_time") == 0  # nothing yet
    card.write32(increment, 0x17D04DAE)
    card.write32(LOAD_TIME + 4, 0x01234567)
    assert card.read("clock.load_time") == 0x0123456789ABCDEF and card.read("clock.increment") == before
    card.write32(increment + 4, 0x225C)
    assert card.read("clock.increment") == 0x225C17D04DAE
    # An upper word alone: the lower one stays.
    card.write32(LOAD_TIME + 4, 7)
    assert card.read("clock.load_time") == 0x789ABCDEF


@pytest.mark.long
def test_a_hundred_thousand_reads():
    card, rng = started(READS_TIME), random.Random(9)
    for k in range(10_000):
        if k % 20 == 0:
            set_time(card, (START_TAI_S + k << 32) - rng.randrange(40_000))
        before = card.card_time(card.counts.now_fs) * 2**32
        for _ in range(10):
            value = read(card, rng.choice((0, 0, 0, 5, 90)))
            assert before - 2 <= value
            before = value
        assert value <= card.card_time(card.counts.now_fs) * 2**32
    assert card.read("id.scratch") <= 500
