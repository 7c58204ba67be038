# SPDX-License-Identifier: Apache-2.0
"""TAI - UTC as the firmware publishes it: over leap seconds, outages, and the end of what is known."""

from __future__ import annotations

import pytest
from pyubx2 import GET, UBXMessage

from tests.firmware.test_receiver import SECOND, TAI, driver, program, sentence  # noqa: F401 fixtures
from tests.loop.world import START_TAI_S, gps, nav_pvt, nav_timels, tim_tp

NOBODY, SATELLITES, HOST, TABLE = range(4)
MIDNIGHT_UTC_S = 1_830_297_600  # 2028-01-01T00:00:00 UTC, counted without leap seconds
TABLE_UNTIL_S = 1_814_140_800  # leap-seconds.list of IERS Bulletin C 72: 28 June 2027, UTC


def timels(tai_s: int, now_s: int, change_s: int = 0, until_event_s: int = 0) -> bytes:
    """What a receiver says of TAI - UTC at a second, and of the leap second to come."""
    message = UBXMessage(
        "NAV", "NAV-TIMELS", GET, iTOW=gps(tai_s)[1] * 1000, srcOfCurrLs=2, currLs=now_s - 19,
        srcOfLsChange=2 if change_s else 0, lsChange=change_s, timeToLsEvent=until_event_s, validCurrLs=1,
        validTimeToLsEvent=int(change_s != 0),
    )  # fmt: skip
    return bytes(message.serialize())


def published(driver, tai_s: int = 0) -> tuple[int, ...]:  # noqa: F811
    """offset_s, leap_s, leap_tai_s, until_s, source"""
    return tuple(int(x) for x in driver.say(f"U {tai_s}")[0].split())


def second(driver, tai_s: int, data: bytes, *, pulse: bool = True) -> tuple[int, ...]:  # noqa: F811
    """A second of the receiver and of the card; flags and so on, TAI - UTC at that second."""
    if pulse:
        driver.pulse((tai_s - START_TAI_S + 10**9) * SECOND % 2**64)
    else:
        driver.say("M", 0)
    driver.take(data)
    return driver.name()


def ubx(tai_s: int, now_s: int, change_s: int = 0, until_event_s: int = 0) -> bytes:
    return tim_tp(tai_s + 1, 0) + timels(tai_s, now_s, change_s, until_event_s)


def offset(said: tuple[int, ...], tai_s: int) -> int:
    """TAI - UTC at a second of TAI of what is published."""
    return said[0] + (said[1] if said[1] and tai_s >= said[2] else 0)


def test_before_anybody_has_spoken_it_is_a_guess(driver):  # noqa: F811
    assert published(driver) == (37, 0, 0, 0, NOBODY)
    # The table counts as soon as card time is known, until it ends.
    assert published(driver, TABLE_UNTIL_S + 36)[4] == TABLE
    assert published(driver, TABLE_UNTIL_S + 37) == (37, 0, 0, TABLE_UNTIL_S + 37, NOBODY)


def test_kept_without_pulses_and_without_messages(driver):  # noqa: F811
    for k in range(4):
        second(driver, START_TAI_S + k, ubx(START_TAI_S + k, 37))
    assert published(driver)[::4] == (37, SATELLITES)
    for k in range(4, 400):
        driver.say("M", 0)
        assert published(driver, START_TAI_S + k)[::4] == (37, SATELLITES)
    # IERS announces a leap second eight weeks ahead: until then.
    assert published(driver, START_TAI_S + 3 + 56 * 86400 - 1)[4] == SATELLITES
    assert published(driver, START_TAI_S + 3 + 56 * 86400)[::4] == (37, NOBODY)


@pytest.mark.parametrize("counted_to", [0, -1], ids=["to midnight", "to 23:59:60"])
@pytest.mark.parametrize("change", [1, -1])
@pytest.mark.parametrize("pulses", [True, False])
def test_an_announced_leap_second(driver, change, counted_to, pulses):  # noqa: F811
    """At each second of TAI the offset that IERS gives, before and behind, whatever came when."""
    after = MIDNIGHT_UTC_S + 37 + change  # the first second with the new offset (leap-seconds.list)
    for k in range(-3600, -3595):
        second(driver, after + k, ubx(after + k, 37, change, -k + counted_to))
    for k in range(-30, 100):
        tai_s = after + k
        now = 37 + change * (k >= 0)
        data = ubx(tai_s, now, change, -k + counted_to) if k < 0 else ubx(tai_s, now)
        if k == 0:
            data = ubx(tai_s, 37, change, 0)  # a receiver that is a second late with it
        if pulses:
            flags, named, *_ = second(driver, tai_s, data)
            if k > -28:  # after the jump of the test's own
                assert flags & TAI and named == tai_s
        else:
            driver.say("M", 0)
            driver.take(data)
        said = published(driver, tai_s)
        assert said[4] == SATELLITES
        for other in range(-30, 100):
            assert offset(said, after + other) == 37 + change * (other >= 0), (k, other)
    # The next one takes its place, not before it is announced.
    again = MIDNIGHT_UTC_S + 182 * 86400 + 37 + change + 1
    second(driver, after + 86400, ubx(after + 86400, 37 + change, 1, again - after - 86400))
    said = published(driver, after + 86400)
    assert said[:3] == (37 + change, 1, again)


def test_a_leap_second_that_is_taken_back(driver):  # noqa: F811
    after = MIDNIGHT_UTC_S + 38
    for k in range(-100, -90):
        second(driver, after + k, ubx(after + k, 37, 1, -k))
    assert published(driver, after - 90)[:3] == (37, 1, after)
    second(driver, after - 89, ubx(after - 89, 37))
    assert published(driver, after - 89)[:3] == (37, 1, after)  # it says nothing of changes
    event = UBXMessage(
        "NAV", "NAV-TIMELS", GET, iTOW=gps(after - 88)[1] * 1000, srcOfCurrLs=2, currLs=18, validCurrLs=1,
        srcOfLsChange=2, lsChange=0, validTimeToLsEvent=1,
    ).serialize()  # fmt: skip
    second(driver, after - 88, tim_tp(after - 87, 0) + bytes(event))
    assert published(driver, after - 88)[:3] == (37, 0, 0)


def test_an_event_that_ends_no_day_is_not_believed(driver):  # noqa: F811
    for k in range(4):
        second(driver, START_TAI_S + k, ubx(START_TAI_S + k, 37, 1, 5000 - k))
    assert published(driver, START_TAI_S + 3)[:2] == (37, 0)


def test_both_names_of_a_pulse_without_timels(driver):  # noqa: F811
    """TIM-TP in GPS time and NAV-PVT in UTC; a leap second that nobody announces."""
    for k in range(4):
        second(driver, START_TAI_S + k, tim_tp(START_TAI_S + k + 1, 0) + nav_pvt(START_TAI_S + k))
    assert published(driver, START_TAI_S + 3)[::4] == (37, SATELLITES)


def civil(utc_s: int, *, leap: bool = False) -> bytes:
    """RMC of a second of UTC; leap: that second is the 23:59:60 in front of it."""
    import datetime

    at = datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=utc_s - leap)
    clock = "235960" if leap else f"{at:%H%M%S}"
    return sentence(f"GNRMC,{clock}.00,A,,,,,,,{at:%d%m%y},,,A,V")


@pytest.mark.parametrize("change", [1, -1])
def test_nmea_with_a_leap_second_by_the_host(driver, change):  # noqa: F811
    """Labels of UTC go through 23:59:60, or leave 23:59:59 out; seconds of TAI count on."""
    after = MIDNIGHT_UTC_S + 37 + change
    assert driver.say(f"T 37 {after + 10**6}") == ["1"]
    assert driver.say(f"L {change} {after + 1}") == ["0"]  # ends no day
    assert driver.say(f"L {change} {after}") == ["1"]
    for k in range(-10, 10):
        tai_s = after + k
        if k >= 0:
            data = civil(tai_s - 37 - change)
        elif change == 1 and k == -1:
            data = civil(MIDNIGHT_UTC_S, leap=True)
        else:
            data = civil(tai_s - 37)
        flags, named, *_, utc_s, known = second(driver, tai_s, data)
        if k >= -8:
            assert flags & TAI and named == tai_s, k
            assert (utc_s, known) == (37 + change * (k >= 0), 1)
    assert published(driver, tai_s)[::4] == (37, HOST)
    # Satellites know better.
    second(driver, tai_s + 1, ubx(tai_s + 1, 37 + change))
    assert published(driver, tai_s + 1)[::4] == (37 + change, SATELLITES)


def test_told_anew_forgets_the_leap_second(driver):  # noqa: F811
    driver.say(f"T 37 {MIDNIGHT_UTC_S}")
    driver.say(f"L 1 {MIDNIGHT_UTC_S + 38}")
    assert published(driver, START_TAI_S)[:3] == (37, 1, MIDNIGHT_UTC_S + 38)
    driver.say(f"T 37 {MIDNIGHT_UTC_S}")
    assert published(driver, START_TAI_S)[:3] == (37, 0, 0)


def test_timels_in_every_second_costs_no_name(driver):  # noqa: F811
    for k in range(20):
        data = nav_pvt(START_TAI_S + k) + nav_timels(START_TAI_S + k) + tim_tp(START_TAI_S + k + 1, 0)
        flags, *_ = second(driver, START_TAI_S + k, data)
        assert k < 2 or flags & TAI
