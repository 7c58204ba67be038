# SPDX-License-Identifier: Apache-2.0
"""TAI - UTC in the registers, by the shipped firmware on the RTL: through outages and leap seconds."""

from __future__ import annotations

import time

import pytest
from twinstamp.card import Card
from twinstamp.card.clock_state import clock_state
from twinstamp.card.firmware import tell_leap_seconds
from twinstamp.cli.clock_status import _offset as shown_offset
from twinstamp.leap import BUILT_IN, LeapSeconds, UtcOffset, leap_seconds

from tests.firmware.test_utc import civil, timels
from tests.loop.world import START_TAI_S, World, nav_pvt, nmea_rmc, tim_tp

NS = 10**9


def offset(world: World) -> UtcOffset:
    return Card(world.card).utc_offset()


def second(world: World, data: bytes, *, pulse: bool = True) -> int:
    """A second with these messages behind its pulse, up to 0.9 s after it; returns it."""
    tai_s = START_TAI_S + world.second
    at = world.fs(tai_s)
    if pulse:
        world.card.pulse(at)
    if data:
        world.card.send(at + NS * 10**6 // 20, data, baud=world.baud)
    world.card.run_until(at + NS * 10**6 * 9 // 10)
    world.second += 1
    world.fetch()
    return tai_s


def test_kept_through_missing_pulses_and_an_outage():
    """Found in a trial: a second without a pulse wrote 0, not valid, and stamps of UTC jumped by 37 s."""
    world = World(seed=31)
    assert offset(world) == UtcOffset(37, False)  # after reset
    second(world, b"", pulse=False)
    second(world, b"", pulse=False)
    assert offset(world) == UtcOffset(37, False)  # nobody has spoken: a guess still
    world.run(6)
    assert offset(world) == UtcOffset(37, True)
    assert world.firmware.counts().utc_source == "satellites"
    for pulses, messages in ((False, True), (True, True), (False, False), (True, False)):
        for _ in range(3):
            world.run(1, pulses=pulses, messages=messages)
            assert offset(world) == UtcOffset(37, True), (pulses, messages)
    for _ in range(30):
        second(world, b"", pulse=False)
        assert offset(world) == UtcOffset(37, True)


@pytest.mark.long
def test_kept_through_a_long_outage():
    world = World(seed=32)
    world.run(20)
    for _ in range(300):
        world.run(1, pulses=False, messages=False)
        assert offset(world) == UtcOffset(37, True)


@pytest.mark.parametrize("change", [1, -1])
def test_a_leap_second_by_satellites(change):
    """At any moment the registers give each second of TAI around it the offset that counts then."""
    world = World(seed=33)
    # The world begins some seconds before a midnight of UTC at which a leap second ends.
    after = START_TAI_S + 9
    midnight = after - 37 - change
    midnight -= midnight % 86400
    shift = midnight + 37 + change - after  # the receiver's seconds are these later than the world's

    def data(tai_s: int) -> bytes:
        k = tai_s - after
        now = 37 + change * (k >= 0)
        said = timels(tai_s + shift, now, change, -k) if k < 0 else timels(tai_s + shift, now)
        return said + tim_tp(tai_s + shift + 1, 0)

    leap_tai_s = after + shift
    seen = set()
    for k in range(16):
        tai_s = second(world, data(START_TAI_S + k)) + shift
        found = offset(world)
        seen.add(found)
        if k < 5:
            continue
        assert found.known
        for other in range(-3, 4):
            at = tai_s + other
            assert found.at(at) == 37 + change * (at >= leap_tai_s), (k, other)
    assert UtcOffset(37, True, change, leap_tai_s) in seen
    assert world.log[-1].output["state"] in (1, 2)


def test_a_leap_second_by_the_host_s_table():
    """A receiver of NMEA does not know it; TAI goes on from label to label."""
    world = World(seed=34)
    after = START_TAI_S + 12
    midnight = after - 38
    midnight -= midnight % 86400
    shift = midnight + 38 - after
    table = LeapSeconds("test", (*BUILT_IN.starts, (midnight, 38)), midnight + 10**6)
    world.firmware.tell_leap_seconds(table, midnight - 100)
    for k in range(18):
        tai_s = START_TAI_S + k + shift
        label = civil(midnight, leap=True) if k == 11 else civil(tai_s - 37 - (k >= 12))
        second(world, label)
        if k >= 4:
            assert world.log[-1].input["tai_s"] == tai_s, k
            found = offset(world)
            assert found == UtcOffset(37, True, 1, midnight + 38)
    counts = world.firmware.counts()
    assert (counts.utc_source, counts.utc_until_tai_s) == ("host", midnight + 10**6 + 37)
    assert counts.utc == UtcOffset(37, True, 1, midnight + 38)


def test_what_the_host_told_ends():
    world = World(seed=35, messages="nmea")
    world.firmware.tell_utc_offset(37, START_TAI_S + 8)
    world.run(12)
    assert offset(world) == UtcOffset(37, False)  # the number stays, but is a guess
    assert world.firmware.counts().utc_source == "nobody"


def test_both_names_of_a_pulse_tell_it():
    world = World(seed=36)
    for k in range(5):
        second(world, nav_pvt(START_TAI_S + k) + tim_tp(START_TAI_S + k + 1, 0))
    assert offset(world) == UtcOffset(37, True)
    second(world, nmea_rmc(START_TAI_S + 5), pulse=False)
    assert offset(world) == UtcOffset(37, True)


def test_the_host_tells_its_table_by_itself(monkeypatch, tmp_path):
    """What open_card and `clock status` do; then what they show."""
    world = World(seed=37)
    card = Card(world.card)
    assert tell_leap_seconds(card) is None
    world.run(2, messages=False)
    counts = world.firmware.counts()
    table = leap_seconds()
    assert (counts.utc_source, counts.utc.s) == ("host", table.at_utc(int(time.time())))
    assert counts.utc_until_tai_s == table.expires_utc_s + counts.utc.s
    state = clock_state(card)
    assert (state["utc_source"], state["utc_known"]) == ("host", True)
    day = time.strftime("%Y-%m-%d", time.gmtime(table.expires_utc_s))
    assert shown_offset(state) == f"{counts.utc.s} s, told by this machine, good until {day}"
    # A table that has expired is not told, and that is said.
    (tmp_path / "leap").write_text("#@ 3900000000\n2272060800 10\n")
    monkeypatch.setenv("TWINSTAMP_LEAP_SECONDS", str(tmp_path / "leap"))
    remark = tell_leap_seconds(card)
    assert remark is not None and "expired on 2023-08-02" in remark
    # Nor where no firmware runs.
    world.firmware.stop()
    assert tell_leap_seconds(card) is None
