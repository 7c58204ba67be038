# SPDX-License-Identifier: Apache-2.0
"""The firmware's parser and its naming of seconds, compiled for the host with sanitizers.

Messages are made by pyubx2 and, where a sentence is quoted, by the documents named beside it.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from pyubx2 import GET, UBXMessage

from tests.firmware.driver import Driver, compiled
from tests.loop.world import LEAP_S, START_TAI_S, gps, nav_pvt, nav_timels, nmea_rmc, nmea_zda, tim_tp

SECOND = 1 << 32
TAI, QERR, ACCURACY, MESSAGE = 1, 2, 4, 8


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    return compiled(tmp_path_factory.mktemp("firmware"))


@pytest.fixture
def driver(program):
    driver = Driver(program)
    yield driver
    driver.close()


def test_messages_as_pyubx2_makes_them(driver):
    said = driver.take(nav_pvt(START_TAI_S) + nav_timels(START_TAI_S) + tim_tp(START_TAI_S + 1, -4321))
    week, tow = gps(START_TAI_S)
    assert said == [
        f"PVT {utc(START_TAI_S)} tow {tow * 1000} tAcc 5 resolved 1 fixed 1",
        "LEAP 18 change 0 in 0 known 1",
        f"TP week {week} tow {tow + 1} qErr -4321 gps 1 utc 0 qerr_valid 1",
    ]
    assert driver.counted == {"ubx": 3}


def utc(tai_s: int) -> str:
    import datetime

    return (datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=tai_s - LEAP_S)).isoformat()


def test_sentences(driver):
    assert driver.take(nmea_rmc(START_TAI_S) + nmea_zda(START_TAI_S)) == [f"UTC {utc(START_TAI_S)}"] * 2
    # Examples of the u-blox F9 interface description, sections 2.7.16 (RMC) and 2.7.20 (ZDA).
    assert (
        driver.take(b"$GPRMC,083559.00,A,4717.11437,N,00833.91522,E,0.004,77.52,091202,,,A,V*57\r\n")
        == ["UTC 2002-12-09T08:35:59"]
        or driver.counted
    )
    assert driver.take(b"$GPZDA,082710.00,16,09,2002,00,00*64\r\n") == ["UTC 2002-09-16T08:27:10"]
    # Not valid, a fraction of a second, impossible dates, other sentences.
    for body in (
        "GNRMC,120000.00,V,,,,,,,010126,,,N,V",
        "GNRMC,120000.50,A,,,,,,,010126,,,A,V",
        "GNRMC,126000.00,A,,,,,,,010126,,,A,V",
        "GNRMC,120000.00,A,,,,,,,290226,,,A,V",
        "GNRMC,120060.00,A,,,,,,,010126,,,A,V",
        "GNZDA,120000.00,00,01,2026,00,00",
        "GNZDA,,,,,00,00",
        "GNRMC",
        "GNRMC,",
        "GNRMC,120000.00,A",
        "GNGGA,120000.00,4717.1,N,00833.9,E,1,12,1,500,M,48,M,,",
    ):
        assert driver.take(sentence(body)) == [], body
    assert driver.take(sentence("GNRMC,235960.00,A,,,,,,,311226,,,A,V")) == ["UTC 2026-12-31T23:59:60"]


def sentence(body: str) -> bytes:
    total = 0
    for c in body.encode():
        total ^= c
    return f"${body}*{total:02X}\r\n".encode()


def test_a_false_start_swallows_nothing(driver):
    good = nav_pvt(START_TAI_S)
    for front in (
        b"\xb5",
        b"\xb5\x62",
        b"\xb5\x62\x01\x07\x5c\x00",
        good[:50],
        b"$GNRMC,",
        b"$",
        b"$" * 200,
        b"\xb5" * 200,
        b"\xd3\x00\x60" * 20,
        b"\xd3\x03\xff\x43\x50",
        b"\xb5\x62\x01\x07\x5c\x00" * 15,
        b"\xb5\x62\x02\x15\x00\x10$GNTXT,\xd3\x01\xff",
    ):
        # What is still missing from a false start is awaited; it ends with the silence behind a second's
        # messages, or with whatever follows.
        for end in (driver.silence, lambda: driver.take(bytes(4200))):
            driver.restart()
            said = driver.take(front + good)
            assert len(said + end()) == 1, front
            assert "no_room" not in driver.counted


def test_starts_beyond_those_that_are_followed(driver):
    """24 at a time. Behind one more nothing is begun for 4104 bytes: a message in a message that is not
    followed must not be read."""
    good = nav_pvt(START_TAI_S)
    starts = b"".join(b"\xb5\x62\x02\x15" + (4000 - 6 * k).to_bytes(2, "little") for k in range(24))
    assert driver.take(starts) == [] and driver.deepest == 24
    assert driver.take(b"\xb5\x62\x04\x02\x00\x01" + good) == []
    assert driver.counted == {"no_room": 1}
    assert driver.silence() == []
    assert len(driver.take(good)) == 1
    driver.restart()
    driver.take(starts + b"\xb5\x62")
    assert driver.take(bytes(4100)) == [] and len(driver.take(bytes(4) + good)) == 1


def test_messages_that_wait(driver):
    """Eight wait for the end of a false start, the last ones; at a pulse they name nothing any more."""
    false = b"\xb5\x62\x02\x15\x00\x10"
    sent = [tim_tp(START_TAI_S + k, k) for k in range(9)]
    assert driver.take(false + b"".join(sent)) == []
    assert driver.silence() == driver.take(b"".join(sent[1:]))
    assert driver.counted["no_room"] == 1
    driver.restart()
    assert driver.take(false + nav_timels(START_TAI_S) + nav_pvt(START_TAI_S) + sent[0]) == []
    driver.pulse(5 * SECOND)
    assert driver.take(sent[1]) == []
    assert driver.silence() == [*driver.take(nav_timels(START_TAI_S)), *driver.take(sent[1])]
    assert driver.counted["no_room"] == 2


def test_a_message_of_another_length_or_kind_is_left_out(driver):
    message = UBXMessage("NAV", "NAV-CLOCK", GET, iTOW=1, clkB=2, clkD=3, tAcc=4, fAcc=5).serialize()
    assert driver.take(message + nav_timels(START_TAI_S)) == ["LEAP 18 change 0 in 0 known 1"]


@pytest.mark.parametrize("kind", ["pvt", "tp", "leap", "rmc"])
def test_each_bit_of_a_message_counts(driver, kind):
    """A flipped bit anywhere gives no message."""
    seconds = range(START_TAI_S, START_TAI_S + 99)
    good = {
        "pvt": nav_pvt(START_TAI_S), "tp": tim_tp(START_TAI_S, 100), "leap": nav_timels(START_TAI_S),
        "rmc": next(m for m in map(nmea_rmc, seconds) if m[-4:-2].lower() != m[-4:-2]),
    }[kind]  # fmt: skip
    # The sentence has a letter in its checksum.
    for bit in range(8 * len(good)):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        # A hexadecimal digit in lower case is the same digit.
        same = kind == "rmc" and bit // 8 >= len(good) - 4 and bytes(data).lower() == good.lower()
        assert len(driver.take(bytes(data)) + driver.silence()) == same, bit
    assert len(driver.take(good)) == 1


def seconds(driver, n, *, first=START_TAI_S, start=5 * SECOND, ubx=True, **kinds):
    """n seconds as a receiver would tell them; yields the names."""
    for k in range(n):
        tai_s = first + k
        driver.pulse(start + k * SECOND)
        data = b""
        if ubx:
            data = nav_pvt(tai_s, **kinds) + nav_timels(tai_s) + tim_tp(tai_s + 1, 10 * k)
        else:
            data = nmea_rmc(tai_s)
        driver.take(data)
        yield driver.name()


def test_names_by_gps_time(driver):
    names = list(seconds(driver, 4))
    assert names[0][0] == ACCURACY | MESSAGE or names[0][0] & TAI == 0
    for k, name in enumerate(names[1:], 1):
        assert name == (TAI | QERR | ACCURACY | MESSAGE, START_TAI_S + k, 10 * (k - 1), 5, 37, 1)


def test_names_by_utc_need_an_offset(driver):
    names = list(seconds(driver, 4, ubx=False))
    assert [name[0] & TAI for name in names] == [0] * 4  # the table has expired by then
    assert driver.say(f"T 37 {START_TAI_S + 100}") == ["1"]
    names = list(seconds(driver, 4, ubx=False, first=START_TAI_S + 4, start=9 * SECOND))
    assert [name[0] & TAI for name in names] == [0, 0, 1, 1]
    assert names[3][1] == START_TAI_S + 7
    # The host's offset expires, too.
    names = list(seconds(driver, 4, ubx=False, first=START_TAI_S + 98, start=200 * SECOND))
    assert names[-1][0] & TAI == 0


def test_the_table_holds_until_it_expires(driver):
    first = 1_814_140_837 - 5  # leap-seconds.list of IERS Bulletin C 72: 28 June 2027
    names = list(seconds(driver, 9, ubx=False, first=first))
    assert [name[0] & TAI for name in names] == [0, 0, 1, 1, 1, 0, 0, 0, 0]


def test_a_jump_in_the_names_is_not_believed_at_once(driver):
    list(seconds(driver, 3))
    jumped = list(seconds(driver, 3, first=START_TAI_S + 1000, start=8 * SECOND))
    assert [name[0] & TAI for name in jumped][1] == 0
    # The TIM-TP before the jump still named the first pulse, so the jump shows in the second one.
    assert jumped[0][1] == START_TAI_S + 3


def test_no_fix_no_name(driver):
    assert not any(name[0] & (TAI | QERR | ACCURACY) for name in seconds(driver, 4, fixed=False))


def test_week_rollover(driver):
    """A receiver that says a week of ten bits, and the roll from 604799 s to the next week."""
    week = 2348 + 100
    for sent in (week % 1024, week - 1024, week):
        for k, tow in enumerate((604_798, 604_799, 0, 1)):
            fields = {
                "towMS": tow * 1000,
                "week": sent + (tow < 2),
                "timeBase": 0,
                "utc": 1,
                "timeRefGnss": 0,
            }
            driver.take(bytes(UBXMessage("TIM", "TIM-TP", GET, **fields).serialize()))
            driver.pulse((1000 + k) * SECOND)
            name = driver.name()
            if k > 1:  # two in a row
                assert name[:2] == (TAI | QERR | MESSAGE, 315_964_819 + week * 604_800 + 604_798 + k)
        driver.say("M", 0)


def test_leap_second_in_utc(driver):
    """23:59:60 of a day: TAI goes on second by second, with the offset from the satellites."""
    day = "311227"
    midnight_tai = 1_830_297_600 + 37  # 2028-01-01T00:00:00 UTC, were there no leap second
    driver.take(nav_timels(midnight_tai - 3))
    said = []
    times = ["235957", "235958", "235959", "235960", "000000", "000001"]
    for k, at in enumerate(times):
        driver.pulse((50 + k) * SECOND)
        if at == "000000":
            day = "010128"
            driver.take(
                bytes(
                    UBXMessage(
                        "NAV",
                        "NAV-TIMELS",
                        GET,
                        iTOW=gps(midnight_tai + 1)[1] * 1000,
                        srcOfCurrLs=2,
                        currLs=19,
                        validCurrLs=1,
                    ).serialize()
                )
            )
        driver.take(sentence(f"GNRMC,{at}.00,A,,,,,,,{day},,,A,V"))
        said.append(driver.name())
    assert [name[1] for name in said[2:]] == [midnight_tai - 1 + k for k in range(4)]
    assert [name[4] for name in said[2:]] == [37, 37, 38, 38]


def test_damage_names_no_wrong_second(driver):
    """Every second damaged at random: what is named is right, or nothing is."""
    rng = random.Random(5)
    wrong = named = 0
    for ubx in (True, False):
        driver.say(f"T 37 {START_TAI_S + 10**7}")
        for k in range(1500):
            tai_s = START_TAI_S + k
            driver.pulse((10**6 * ubx + k + 10) * SECOND)
            data = bytearray(
                nav_pvt(tai_s) + nav_timels(tai_s) + tim_tp(tai_s + 1, 0)
                if ubx
                else nmea_rmc(tai_s) + nmea_zda(tai_s)
            )
            for _ in range(rng.choice((0, 0, 1, 2, 5))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            driver.take(bytes(data))
            flags, named_s, *_ = driver.name()
            if flags & TAI:
                named += 1
                wrong += named_s != tai_s
    assert wrong == 0
    assert named > 800


@pytest.mark.parametrize("seed", range(3))
def test_fuzz(driver, seed):
    """Damaged streams of all kinds under AddressSanitizer and UndefinedBehaviorSanitizer."""
    for k in range(8):
        driver.take(
            nav_pvt(START_TAI_S + k)
            + nmea_rmc(START_TAI_S)
            + tim_tp(START_TAI_S, k)
            + nav_timels(START_TAI_S)
        )
    taken = [int(x) for x in driver.say(f"F {seed} 20000")[0].split()]
    assert taken[0] > 1000 and taken[1] > 100


@pytest.mark.long
def test_fuzz_for_long(driver):
    for k in range(8):
        driver.take(
            nav_pvt(START_TAI_S + k)
            + nmea_rmc(START_TAI_S)
            + tim_tp(START_TAI_S, k)
            + nav_timels(START_TAI_S)
        )
    driver.say("F 99 1000000")
