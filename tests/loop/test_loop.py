# SPDX-License-Identifier: Apache-2.0
"""Closed loops: RTL, firmware on the soft core, a receiver; and the soft core against the host build."""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp.card import Card
from twinstamp.card.firmware import OUTPUT_FIELDS, Firmware
from twinstamp.errors import ConfigError, DeviceError
from twinstamp_gps import _servo

from tests.loop.simulated_clock import FS, SimulatedClock
from tests.loop.world import FIRMWARE, START_TAI_S, World, nav_pvt, nmea_rmc

LOCKED = 2
IN_PULSE, IN_TAI = 1, 16


def assert_same_trace(world: World) -> None:
    """Every step of the soft core, and what the host's build of the same source says to the same input."""
    servo = _servo.Servo(world.firmware.settings())
    assert [entry.number for entry in world.log] == list(range(len(world.log)))
    for entry in world.log:
        said = servo.step(**entry.input)
        assert {name: said[name] for name in OUTPUT_FIELDS} == entry.output


def test_the_program_of_power_up_starts_once():
    card = SimulatedClock(seed=2)
    card.load(FIRMWARE.read_bytes())
    firmware = Firmware(Card(card))
    with pytest.raises(DeviceError, match="does not run"):
        firmware.settings()
    firmware.start()
    card.run(400_000)
    assert firmware.settings() == World(seed=2).firmware.settings()
    for _ in range(2):  # while it runs, and when it has been stopped
        with pytest.raises(DeviceError, match="has run since power-up"):
            firmware.start()
        firmware.stop()


def assert_within_bound(world: World, ns: float) -> None:
    """Truth at 10 Hz over the last seconds."""
    errors = np.abs(world.errors_ns[-50:])
    assert errors.max() < min(ns, world.card.read("clock.bound"))


def test_locks_and_agrees_with_the_host_build():
    world = World(seed=11)
    world.run(24)
    states = [entry.output["state"] for entry in world.log]
    assert states[0] == 0 and states[-1] == LOCKED
    assert len(world.log) == 24
    assert all(entry.input["flags"] & IN_PULSE for entry in world.log)
    assert_within_bound(world, 15)
    assert world.card.field("clock.control.locked") == 1
    assert world.card.field("clock.control.state") == LOCKED
    assert world.card.field("clock.control.disciplined") == 1
    assert world.card.field("clock.utc_offset.s") == 37 and world.card.field("clock.utc_offset.valid") == 1
    counts = world.firmware.counts()
    assert (counts.pulses, counts.ubx, counts.skipped, counts.late_outputs) == (24, 72, 0, 0)
    # An outage, and back.
    world.run(3, pulses=False)
    assert world.log[-1].output["state"] == 3
    assert not world.card.field("clock.control.locked")
    assert world.card.read("clock.bound") >= world.log[-4].output["bound_ns"]
    world.run(3)
    assert_within_bound(world, 100)
    # A step of 2 us is refused.
    world.run(3, shift_ns=2000)
    assert np.abs(world.errors_ns[-30:]).max() < 100
    assert_same_trace(world)


def test_nmea_alone_names_seconds_only_with_an_offset_that_is_known():
    world = World(seed=12, messages="nmea", ppb=-800)
    world.run(4)
    # The firmware's own leap table has expired by then: TAI is unknown until somebody tells.
    assert not any(entry.input["flags"] & IN_TAI for entry in world.log)
    assert world.log[-1].output["bound_ns"] == 0xFFFFFFFF
    world.firmware.tell_utc_offset(37, START_TAI_S + 10**6)
    world.run(8)
    first = next(entry.number for entry in world.log if entry.input["flags"] & IN_TAI)
    assert first >= 6  # three in a row
    assert abs(world.errors_ns[-1]) < 200
    assert_same_trace(world)


def test_commands():
    world = World(seed=13)
    world.run(1)
    firmware = world.firmware
    firmware.accept()
    for name, value in (("lock_pulses", 3), ("slew_limit_ppb", 0), ("white_ppt", 1 << 31)):
        with pytest.raises(ConfigError, match="refused"):
            firmware.set(name, value)
    firmware.set("lock_pulses", 5)
    assert firmware.settings()["lock_pulses"] == 5
    firmware.restart()
    firmware.tell_utc_offset(37, START_TAI_S)
    for word, argument, result in (
        (0x77770002, 99 << 32, 3),  # no such setting
        (0x77780003, 99 << 48 | 5, 3),  # an offset that cannot be
        (0x77790003, 0, 1),  # taken back
        (0x777A0099, 0, 2),
    ):
        world.card.write("cpu.argument", argument)
        world.card.write("cpu.command", word)
        world.card.run(400_000)
        assert world.card.read("cpu.answer") == (word & 0xFFFF0000 | result), hex(word)
    with pytest.raises(ConfigError, match="no setting"):
        firmware.set("colour", 1)
    with pytest.raises(ConfigError, match="30 to 60"):
        firmware.tell_utc_offset(99, START_TAI_S)


def test_a_core_that_says_nothing_is_an_error():
    world = World(seed=13)
    world.firmware.stop()
    with pytest.raises(DeviceError, match="does not run"):
        world.firmware.counts()
    world.firmware.load(program(JUMP_TO_ITSELF))
    with pytest.raises(DeviceError, match="says nothing"):
        world.firmware.counts()
    world.firmware.load(program(ILLEGAL))
    with pytest.raises(DeviceError, match="impossible"):
        world.firmware.steps()


def test_noise_on_the_line_names_nothing_and_hangs_nothing():
    world = World(seed=14)
    card = world.card
    noise = world.rng.randbytes(600)
    damaged = bytearray(nav_pvt(START_TAI_S + 5))
    damaged[11] ^= 1
    damaged_rmc = nmea_rmc(START_TAI_S).replace(b"*", b"1*")
    card.send(card.counts.now_fs + FS // 100, noise + bytes(damaged) + damaged_rmc, baud=world.baud)
    card.send(card.counts.now_fs, b"\0" * 5, baud=world.baud, stop=False)
    world.run(1, messages=False)
    counts = world.firmware.counts()
    assert counts.ubx == counts.nmea == 0 and counts.bad_checksum == 2
    assert counts.skipped > 600
    assert card.field("uart.errors.framing") > 0 and card.field("uart.errors.overflow") == 0
    assert not any(entry.input["flags"] & IN_TAI for entry in world.log)
    assert not card.field("cpu.status.failed")
    world.run(3)
    assert any(entry.input["flags"] & IN_TAI for entry in world.log)


def program(*words: int) -> bytes:
    return b"".join(word.to_bytes(4, "little") for word in words)


# Instructions of RV32I, from the specification's tables.
JUMP_TO_ITSELF = 0x0000006F  # jal x0, 0
ILLEGAL = 0x00000000


def started(image: bytes) -> SimulatedClock:
    card = SimulatedClock()
    card.load(image)
    card.write("cpu.watchdog", 5000)
    card.write("clock.control", 2)
    card.write("clock.bound", 100)
    card.write("cpu.control", 1)
    return card


def test_watchdog_ends_a_core_that_hangs():
    card = started(program(JUMP_TO_ITSELF))
    card.run(3000)
    assert card.field("cpu.status.running") and card.field("clock.control.locked")
    card.write("cpu.pet", 1)
    card.run(4000)
    assert card.field("cpu.status.running")
    card.run(3000)
    assert not card.field("cpu.status.running")
    assert card.field("cpu.status.failed") and not card.field("cpu.status.trapped")
    assert not card.field("clock.control.locked")
    card.write("clock.control", 2)  # not while it has failed
    assert not card.field("clock.control.locked")
    card.write("cpu.control", 0)
    assert not card.field("cpu.status.failed")
    card.write("cpu.control", 1)
    assert card.field("cpu.status.running")


@pytest.mark.parametrize(
    "image",
    [
        program(ILLEGAL),
        program(0x200000B7, 0x0000A003),  # lui x1, 0x20000; lw x0, 0(x1): nothing lives there
        program(0x00002083 | 1 << 20),  # lw x1, 1(x0): not aligned
    ],
)
def test_a_core_that_goes_wrong_is_stopped_at_once(image):
    card = started(image)
    card.run(100)
    assert card.field("cpu.status.failed") and card.field("cpu.status.trapped")
    assert not card.field("clock.control.locked")


def test_memory_is_written_in_reset_only():
    card = started(program(JUMP_TO_ITSELF))
    card.write32(0x10004, 1)
    assert card.field("cpu.status.write_refused")
    assert card.memory(0, 8) == program(JUMP_TO_ITSELF, 0xDEADBEEF)
    card.write("cpu.control", 0)
    card.write32(0x10004, 1)
    assert not card.field("cpu.status.write_refused")
    assert card.memory(0, 8) == program(JUMP_TO_ITSELF, 1)
    card.write32(0x1FFFC, 7)
    assert card.memory(0xFFFC, 4) == program(7)


def test_host_and_core_share_the_registers():
    """The core writes scratch as fast as it can while the host reads and writes: neither waits for ever."""
    # lui x1, 0x40000; addi x2, x2, 1; sw x2, 0x18(x1); lw x3, 0x18(x1); jal -12
    card = started(program(0x400000B7, 0x00110113, 0x0020AC23, 0x0180A183, 0xFF5FF06F))
    card.write("cpu.watchdog", 0xFFFFFFFF)
    card.write("cpu.pet", 1)
    last = 0
    for i in range(2000):
        value = card.read("id.scratch")
        assert value >= last
        last = value
        card.write("pps.filter", i)
        assert card.read("pps.filter") == i
    assert last > 1000  # a round of the core takes some 60 cycles, three accesses of the host 36
    assert not card.field("cpu.status.failed")


def test_unused_core_costs_nothing():
    card = SimulatedClock(leaping=False)
    card.load(FIRMWARE.read_bytes())
    awake = card.counts.awake
    card.run(10_000)
    assert card.counts.awake == awake
