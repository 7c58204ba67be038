# SPDX-License-Identifier: Apache-2.0
"""Which messages vouch for a pulse, and which pulse a message belongs to: firmware/drivers/second.c."""

from __future__ import annotations

import pytest
from pyubx2 import GET, UBXMessage

from tests.firmware.test_receiver import QERR, SECOND, TAI, driver, program  # noqa: F401
from tests.loop.world import START_TAI_S, gps, nav_pvt, nav_timels, nmea_rmc, nmea_zda, tim_tp

YES, BEFORE, NO = 1, 2, 0


def no_qerr(tai_s: int) -> bytes:
    """TIM-TP of a receiver without a fix: it takes its qErr back (flag qErrInvalid)."""
    week, tow_s = gps(tai_s)
    message = UBXMessage("TIM", "TIM-TP", GET, towMS=tow_s * 1000, week=week, timeRefGnss=0, qErrInvalid=1)
    return bytes(message.serialize())


class Line:
    """The receiver's line: what is heard when, by second n of card time, which names START_TAI_S + n."""

    def __init__(self, driver) -> None:  # noqa: F811
        self.driver = driver

    def hear(self, second: float, data: bytes) -> None:
        self.driver.say(f"H {round(second * SECOND)}", 0)
        self.driver.take(data)

    def vouched(self, second: float) -> int:
        return int(self.driver.say(f"V {round(second * SECOND)}")[0])

    def name(self, second: float) -> tuple[int, ...]:
        self.driver.pulse(round(second * SECOND))
        return self.driver.name()


@pytest.fixture
def line(driver):  # noqa: F811
    driver.say(f"T 37 {START_TAI_S + 10**6}")
    return Line(driver)


@pytest.mark.parametrize("kind", [nav_pvt, nmea_rmc, nmea_zda], ids=["PVT", "RMC", "ZDA"])
def test_a_message_vouches_for_its_second_and_for_the_next(line, kind):
    assert line.vouched(10) == NO
    line.hear(10.1, kind(START_TAI_S + 10))
    assert line.vouched(10) == YES
    assert line.vouched(11) == BEFORE
    assert line.vouched(12) == NO
    # After the step of its second: then only the next one gains by it.
    line.hear(12.7, kind(START_TAI_S + 12))
    assert line.vouched(13) == BEFORE
    assert line.vouched(14) == NO


def test_timing_messages_alone_vouch_by_their_qerr(line):
    line.hear(9.1, tim_tp(START_TAI_S + 10, 100))
    assert (line.vouched(10), line.vouched(11)) == (YES, NO)
    line.name(10)
    line.hear(10.1, tim_tp(START_TAI_S + 11, 200))
    assert line.name(11)[:3] == (TAI | QERR | 8, START_TAI_S + 11, 200)
    line.hear(11.1, no_qerr(START_TAI_S + 12))
    assert line.vouched(12) == NO
    assert not line.name(12)[0] & (TAI | QERR)


def test_the_strongest_kind_decides(line):
    """A receiver that has lost its satellites goes on naming pulses; its PVT says so, or does not come."""
    line.hear(10.1, nav_pvt(START_TAI_S + 10) + tim_tp(START_TAI_S + 11, 5))
    line.hear(11.1, nav_pvt(START_TAI_S + 11, fixed=False) + nmea_rmc(START_TAI_S + 11))
    assert line.vouched(11) == BEFORE
    for second in (12, 13, 14):
        line.hear(second + 0.1, tim_tp(START_TAI_S + second + 1, 5) + nmea_zda(START_TAI_S + second))
        assert line.vouched(second) == NO
        assert not line.name(second)[0] & TAI
    # A clock that starts anew does not know what its receiver can say.
    line.driver.say("Z", 0)
    line.hear(15.1, nmea_zda(START_TAI_S + 15))
    assert line.vouched(15) == YES


def test_a_cold_start_asks_for_names_that_agree_again(line):
    for second in (10, 11, 12):
        line.hear(second + 0.1, nmea_rmc(START_TAI_S + second))
        name = line.name(second)
    assert name[0] & TAI
    line.driver.say("Z", 0)
    said = []
    for second in (13, 14, 15):
        line.hear(second + 0.1, nmea_rmc(START_TAI_S + second))
        said.append(line.name(second)[0] & TAI)
    assert said == [0, 0, TAI]


def test_seconds_without_a_pulse_and_edges_that_are_none_cost_no_name(line):
    """They did: the pulse behind a missing one had no name and no qErr."""
    for second in range(10, 20):
        line.hear(second + 0.1, nav_pvt(START_TAI_S + second) + nav_timels(START_TAI_S + second))
        line.hear(second + 0.2, tim_tp(START_TAI_S + second + 1, second + 1))
        if second in (13, 14, 17):
            line.driver.say("M", 0)
            continue
        flags, tai_s, qerr_ps, *_ = line.name(second)
        if second > 10:
            assert (flags & (TAI | QERR), tai_s, qerr_ps) == (TAI | QERR, START_TAI_S + second, second)
