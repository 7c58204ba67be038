# SPDX-License-Identifier: Apache-2.0
"""The simulated receiver: pulses, messages that agree with them, faults, calendar."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pyubx2 import UBXReader
from twinstamp_gps import gpstime
from twinstamp_gps import messages as m
from twinstamp_gps.configure import TimingSettings
from twinstamp_gps.errors import SettingError
from twinstamp_gps.faults import KINDS, parse_fault
from twinstamp_gps.simulated import FS, ReceiverSecond, SimulatedReceiver
from twinstamp_gps.stream import StreamSplitter

from tests.receiver.streams import KnownNoise, receiver

LEAP_2016 = gpstime.utc_to_unix_s(2017, 1, 1, 0, 0, 0) + 36  # TAI second of 2016-12-31 23:59:60


def decoded(seconds: list[ReceiverSecond]) -> list[tuple[ReceiverSecond, int, m.Message]]:
    """(second, time of the last bit in fs, message) of all that was sent."""
    splitter = StreamSplitter()
    return [
        (second, sent.end_fs, m.decode(frame))
        for second in seconds
        for sent in second.transmissions
        for frame in splitter.feed(sent.data)
    ]


@pytest.mark.parametrize("model", ["f9t", "m8t"])
def test_each_pulse_is_told_of_before_it_comes(model: str) -> None:
    """The edge stands qErr before the instant, TIM-TP is there first and names the pulse's second."""
    simulated = receiver(model)
    seconds = list(simulated.seconds(50))
    told = {
        message.tai_s: (end_fs, message)
        for _, end_fs, message in decoded(seconds)
        if isinstance(message, m.TimTp)
    }
    for second in seconds[1:]:
        end_fs, message = told[second.tai_s]
        (edge,) = second.edges
        assert end_fs < edge.rise_fs
        assert end_fs > seconds[second.second - 1].edges[0].rise_fs
        instant = second.second * FS + KnownNoise().pulse(second.second)[0]
        assert edge.rise_fs + message.qerr_ps * 1000 == instant
        assert message.qerr_ps == second.qerr_ps
        assert edge.fall_fs - edge.rise_fs == 100 * 10**12


@pytest.mark.parametrize("model", ["f9t", "m8t", "nmea"])
def test_line_carries_one_byte_at_a_time(model: str) -> None:
    simulated = receiver(model, configured=model != "nmea")
    sent = [one for second in simulated.seconds(20) for one in second.transmissions]
    for before, after in itertools.pairwise(sent):
        assert before.end_fs <= after.at_fs
    assert all(one.end_fs - one.at_fs == len(one.data) * 10 * FS // one.baud for one in sent)


def test_messages_after_the_pulse_are_of_its_second() -> None:
    for second, end_fs, message in decoded(list(receiver("f9t").seconds(10))):
        if isinstance(message, m.NavPvt):
            assert gpstime.utc_to_unix_s(*message.utc) == second.tai_s - 37
            assert message.tow_ms == gpstime.tai_to_gps(second.tai_s)[1] * 1000
            assert 0.04 < (end_fs - second.second * FS) / FS < 0.2


def test_same_seed_same_bytes_another_seed_others() -> None:
    faults = [
        parse_fault("message-corrupt@3+5"),
        parse_fault("outlier@4+20:1us"),
        parse_fault("missing@0+30:0.5"),
    ]
    first = list(SimulatedReceiver("f9t", seed=7, faults=faults).seconds(40))
    again = list(SimulatedReceiver("f9t", seed=7, faults=faults).seconds(40))
    other = list(SimulatedReceiver("f9t", seed=8, faults=faults).seconds(40))
    assert first == again
    assert first != other


def test_published_noise() -> None:
    """Sawtooth, jitter and wander of the f9t as in the model, from what the pulse and TIM-TP say."""
    seconds = list(SimulatedReceiver("f9t", seed=3).seconds(4000))
    place_ns = np.array([(s.edges[0].rise_fs - s.second * FS) / 1e6 for s in seconds])
    qerr_ns = np.array([s.qerr_ps / 1000 for s in seconds])
    assert np.abs(qerr_ns).max() <= 7.861
    assert np.std(qerr_ns) == pytest.approx(7.86 / 3**0.5, rel=0.1)
    corrected = place_ns + qerr_ns
    jitter = np.std(np.diff(corrected)) / 2**0.5
    assert jitter == pytest.approx(0.22, abs=0.05)  # 0.2 of jitter, and the wander's step of 0.07
    assert np.std(np.diff(place_ns - qerr_ns)) > 1.9 * np.std(np.diff(place_ns))  # the other sign doubles it


def edges_of(fault: str, second: int, **options: object) -> list[int]:
    """Where the rising edges of a second stand against its instant, ns, noise taken off."""
    simulated = receiver("f9t", faults=[parse_fault(fault)], **options)
    for one in simulated.seconds(second + 1):
        last = one
    noise_fs = KnownNoise().pulse(second)[0] - last.qerr_ps * 1000
    return [round((edge.rise_fs - second * FS - noise_fs) / 1e6) for edge in last.edges]


@pytest.mark.parametrize(
    ("fault", "second", "expected"),
    [
        ("outage@5+2", 4, [0]), ("outage@5+2", 5, []), ("outage@5+2", 6, []), ("outage@5+2", 7, [0]),
        ("missing@5", 5, []), ("missing@5", 6, [0]),
        ("step@5:2us", 4, [0]), ("step@5:2us", 5, [2000]), ("step@5:2us", 60, [2000]),
        ("step@5+2:-40", 6, [-40]),
        ("step@5+2:-40", 7, [0]),
        ("pull@5:3ns/s", 5, [0]), ("pull@5:3", 15, [30]),
        ("fix-lost@5+2", 5, [0]), ("accuracy@5+2:3", 5, [0]),
        ("double@5:10ms", 5, [0, 10_000_000]), ("early@5:1ms", 5, [-1_000_000, 0]), ("early@5", 6, [0]),
    ],
)  # fmt: skip
def test_faults_of_the_pulse(fault: str, second: int, expected: list[int]) -> None:
    assert edges_of(fault, second) == expected


def test_outliers_have_either_sign() -> None:
    assert {edges_of(f"outlier@{n}:700", n)[0] for n in range(12)} == {-700, 700}


def test_a_disturbance_leaves_the_pulse_its_width() -> None:
    for fault, widths in (("early@0:10us", [5_000, 100_000_000]), ("double@0:10us", [5_000, 100_000_000])):
        second = receiver("f9t", faults=[parse_fault(fault)]).second()
        assert [round((edge.fall_fs - edge.rise_fs) / 1e6) for edge in second.edges] == widths


def test_a_receiver_without_a_fix_goes_on_pulsing_and_says_so() -> None:
    faults = [parse_fault("accuracy@2+3:10"), parse_fault("fix-lost@5+2")]
    seconds = list(receiver("f9t", faults=faults).seconds(9))
    assert [one.fix for one in seconds] == [True] * 5 + [False] * 2 + [True] * 2
    assert all(len(one.edges) == 1 for one in seconds)
    said = [UBXReader.parse(one.transmissions[0].data) for one in seconds]
    assert [(pvt.gnssFixOk, pvt.tAcc) for pvt in said] == [
        (1, 5), (1, 5), (1, 15), (1, 25), (1, 35), (0, 1000), (0, 1000), (1, 5), (1, 5)
    ]  # fmt: skip
    last = [UBXReader.parse(one.transmissions[-1].data) for one in seconds]
    assert [tp.qErrInvalid for tp in last] == [0, 0, 0, 0, 1, 1, 0, 0, 0]  # each is of the pulse to come
    nmea = list(receiver("nmea", faults=[parse_fault("fix-lost@1+1")]).seconds(2))
    assert [b",A," in one.transmissions[0].data for one in nmea] == [True, False]


def test_edges_never_overlap() -> None:
    faults = [parse_fault("double@0+30:60ms"), parse_fault("early@0+30:30ms")]
    edges = [edge for second in receiver("f9t", faults=faults).seconds(20) for edge in second.edges]
    assert len(edges) == 60
    for before, after in itertools.pairwise(edges):
        assert before.rise_fs < before.fall_fs < after.rise_fs


def test_faults_of_messages() -> None:
    faults = [
        parse_fault(text)
        for text in ("qerr-sign@10+2", "qerr-late@20+2", "qerr-lost@30+2", "outage@40+2", "message-lost@50+1",
                     "message-late@60+1:950ms", "message-corrupt@70+3")
    ]  # fmt: skip
    seconds = list(receiver("f9t", faults=faults).seconds(80))
    got = decoded(seconds)
    truth = {s.tai_s: s.qerr_ps for s in seconds}
    start = seconds[0].tai_s
    told = {
        message.tai_s - start: message
        for _, _, message in got
        if isinstance(message, m.TimTp) and message.tai_s
    }
    for n in range(1, 79):
        if n in (51, 71, 72, 73):
            continue
        expected = {
            10: -truth[start + 10],
            11: -truth[start + 11],
            20: truth[start + 21],
            21: truth[start + 22],
        }
        assert told[n].qerr_ps == expected.get(n, truth[start + n]), n
        assert told[n].qerr_valid == (n not in (30, 31, 40, 41))
    fixes = {second.second: message.fix_ok for second, _, message in got if isinstance(message, m.NavPvt)}
    assert [n for n, ok in fixes.items() if not ok] == [40, 41]
    assert not seconds[50].transmissions
    assert seconds[60].transmissions[0].at_fs > 61 * FS
    assert sum(second.second in (70, 71, 72) for second, _, _ in got) < 15


def test_leap_second_of_2016() -> None:
    """As it was: 23:59:60, GPS − UTC from 17 to 18, day 7 of week 1929."""
    simulated = receiver(
        "f9t", start_tai_s=LEAP_2016 - 3, utc_offset_s=36, faults=[parse_fault("leap@3")],
        settings=TimingSettings(mode="fixed", nmea=True),
    )  # fmt: skip
    got = decoded(list(simulated.seconds(6)))
    labels = [message.utc for _, _, message in got if isinstance(message, m.NavPvt)]
    assert [label[3:] for label in labels] == [
        (23, 59, 57), (23, 59, 58), (23, 59, 59), (23, 59, 60), (0, 0, 0), (0, 0, 1)
    ]  # fmt: skip
    assert labels[3][:3] == (2016, 12, 31) and labels[4][:3] == (2017, 1, 1)
    assert [message.utc for _, _, message in got if isinstance(message, m.Rmc)] == labels
    leaps = [message for _, _, message in got if isinstance(message, m.NavTimeLs)]
    assert [leap.leap_s for leap in leaps] == [17, 17, 17, 17, 18, 18]
    assert [leap.time_to_event_s for leap in leaps] == [4, 3, 2, 1, 0, -1]
    assert {(leap.event_week, leap.event_day) for leap in leaps} == {(1929, 7)}
    pulses = [message.tai_s for _, _, message in got if isinstance(message, m.TimTp)]
    assert pulses == [LEAP_2016 - 2 + n for n in range(6)]  # GPS time knows no leap


def test_negative_leap_second() -> None:
    got = decoded(list(receiver("f9t", faults=[parse_fault("leap@3:-1")]).seconds(6)))
    labels = [message.utc[3:] for _, _, message in got if isinstance(message, m.NavPvt)]
    assert labels == [(23, 59, 56), (23, 59, 57), (23, 59, 58), (0, 0, 0), (0, 0, 1), (0, 0, 2)]
    leaps = [message for _, _, message in got if isinstance(message, m.NavTimeLs)]
    assert [(leap.leap_s, leap.time_to_event_s) for leap in leaps] == [
        (18, 3),
        (18, 2),
        (18, 1),
        (17, 0),
        (17, -1),
        (17, -2),
    ]


def test_week_rollover() -> None:
    """Week 2047 to 2048 of 2019-04-07, in full weeks; and a receiver whose date has fallen back by 1024."""
    start = gpstime.gps_to_tai_s(2048, 0) - 3
    pulses = [
        message for _, _, message in decoded(list(receiver("f9t", start_tai_s=start).seconds(5)))
        if isinstance(message, m.TimTp)
    ]  # fmt: skip
    assert [(p.week, p.tow_ms) for p in pulses] == [
        (2047, 604_798_000), (2047, 604_799_000), (2048, 0), (2048, 1000), (2048, 2000)
    ]  # fmt: skip
    back = decoded(list(receiver("f9t", start_tai_s=start, week_rollovers=1).seconds(5)))
    assert [message.week for _, _, message in back if isinstance(message, m.TimTp)] == [
        1023,
        1023,
        1024,
        1024,
        1024,
    ]
    assert next(message.utc[:3] for _, _, message in back if isinstance(message, m.NavPvt)) == (1999, 8, 21)
    assert gpstime.unroll_week(1023 % 1024, 2000) == 2047
    assert gpstime.unroll_week(0, 2000) == 2048


def test_utc_unknown_after_a_cold_start() -> None:
    got = decoded(list(receiver("f9t", utc_after_s=3).seconds(6)))
    assert [x.fully_resolved for _, _, x in got if isinstance(x, m.NavPvt)] == [False] * 3 + [True] * 3
    assert [x.leap_valid for _, _, x in got if isinstance(x, m.NavTimeLs)] == [False] * 3 + [True] * 3


def test_delays() -> None:
    """60 ns of antenna and cable, of which 45 are compensated by the receiver."""
    simulated = receiver("m8t", antenna_ns=60, settings=TimingSettings(mode="fixed", cable_delay_ns=45))
    second = simulated.second()
    assert second.edges[0].rise_fs == 15 * 10**6 - second.qerr_ps * 1000


def test_factory_settings() -> None:
    """NMEA at the factory's rate, pulses on UTC, TIM-TP none."""
    for model, baud in (("f9t", 38_400), ("m8t", 9600)):
        seconds = list(receiver(model, configured=False).seconds(3))
        names = {type(message).__name__ for _, _, message in decoded(seconds)}
        assert names == {"Rmc", "Gga", "Other"}
        assert {sent.baud for second in seconds for sent in second.transmissions} == {baud}


def test_survey_ends_in_a_fixed_position() -> None:
    simulated = receiver("f9t", settings=TimingSettings(survey_s=5, survey_accuracy_mm=2500))
    got = decoded(list(simulated.seconds(8)))
    surveys = [message for _, _, message in got if isinstance(message, m.Survey)]
    assert [(s.valid, s.active) for s in surveys] == [(False, True)] * 5 + [(True, False)] * 3
    assert [message.fix_type for _, _, message in got if isinstance(message, m.NavPvt)] == [3] * 5 + [5] * 3


@pytest.mark.parametrize("text", [
    "outage", "outage@", "outage@-1", "outage@5+0", "nothing@5", "step@5:1ms/s", "step@5:4s", "outage@1:5",
    "leap@5:2", "pull@5:3us", "missing@5:1.5", "missing@5:0", "early@5:1s", "early@5:-1", "step@1e3",
    "step@5:nan",
    "step@5 +3", "outage@٣",
])  # fmt: skip
def test_faults_that_are_none(text: str) -> None:
    with pytest.raises(SettingError):
        parse_fault(text)


def test_faults_as_text() -> None:
    for text in (
        "outage@3600+1000",
        "step@1000:2000ns",
        "pull@3+4:0.5ns/s",
        "missing@1+10:0.25",
        "leap@7+1:-1",
    ):
        assert parse_fault(str(parse_fault(text))) == parse_fault(text)
    assert parse_fault("outage@3600+1000").duration_s == 1000
    assert parse_fault("step@1000:2us").value == 2000
    assert parse_fault("step@1000").duration_s is None
    for kind in KINDS:
        assert parse_fault(f"{kind}@10").at(10)


def test_impossible_receivers() -> None:
    with pytest.raises(SettingError, match="known are"):
        receiver("f10")
    with pytest.raises(SettingError, match="of the card's host"):
        receiver("f9t", faults=[parse_fault("host-load@3:1us")])
    with pytest.raises(SettingError, match="more than one leap"):
        receiver("f9t", faults=[parse_fault("leap@3"), parse_fault("leap@9")])
