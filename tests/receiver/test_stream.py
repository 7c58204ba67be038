# SPDX-License-Identifier: Apache-2.0
"""Bytes to messages, hostile bytes too; encoders against pyubx2, pynmeagps and gpsd's decoder."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynmeagps import NMEAReader
from pyubx2 import UBXMessage, UBXReader
from pyubx2.ubxhelpers import calc_checksum
from twinstamp_gps import encode
from twinstamp_gps import messages as m
from twinstamp_gps.stream import MAX_PAYLOAD, Frame, StreamSplitter, crc24q, fletcher8

from tests.receiver.streams import UTC, every_message

MESSAGES = every_message()
STREAM = b"".join(MESSAGES)


def split(*chunks: bytes, give_up: bool = False) -> tuple[list[bytes], StreamSplitter]:
    splitter = StreamSplitter()
    frames = [frame.data for chunk in chunks for frame in splitter.feed(chunk)]
    if give_up:
        frames += [frame.data for frame in splitter.give_up()]
    return frames, splitter


def test_frames_come_out_whole_however_the_stream_is_cut() -> None:
    for size in (1, 2, 3, 7, 64, len(STREAM)):
        frames, splitter = split(*(STREAM[at : at + size] for at in range(0, len(STREAM), size)))
        assert frames == MESSAGES
        assert splitter.pending == 0
        assert splitter.counts.damaged == splitter.counts.skipped_bytes == 0
        assert splitter.counts.ubx + splitter.counts.nmea == len(MESSAGES)


@given(st.binary(max_size=300))
def test_checksum_is_that_of_pyubx2(data: bytes) -> None:
    assert fletcher8(data) == calc_checksum(data)


@given(st.binary(max_size=1029))
def test_checksum_of_rtcm_by_long_division(data: bytes) -> None:
    """RTCM 10403.3 section 4: the rest of data * 2^24 by 1864CFB; and its own example ends with its own."""
    rest = int.from_bytes(data + bytes(3), "big")
    for place in range(8 * len(data) - 1, -1, -1):
        if rest >> (place + 24) & 1:
            rest ^= 0x1864CFB << place
    assert crc24q(data) == rest
    assert crc24q(bytes.fromhex("D300133ED7D30202980EDEEF34B4BD62AC0941986F33360B98")) == 0


@pytest.mark.parametrize(
    "noise",
    [b"\xb5\x62", b"\xb5\x62\x01\x07\xff\x0f", b"$", b"$GPRMC,1", b"\xb5", b"\xd3\x03\xff", b"\0\xff" * 40],
)
def test_noise_before_a_frame_never_swallows_it(noise: bytes) -> None:
    # A false header of up to 4 KiB waits for its bytes; the line's silence ends that.
    frames, _ = split(noise + STREAM, give_up=True)
    assert frames == MESSAGES


def test_false_header_of_any_length_behind_which_frames_come() -> None:
    for length in range(0, MAX_PAYLOAD + 300, 97):
        frames, _ = split(b"\xb5\x62\x01\x07" + length.to_bytes(2, "little") + STREAM, give_up=True)
        assert frames == MESSAGES


def test_buffer_is_bounded() -> None:
    splitter = StreamSplitter()
    for chunk in (
        b"\xb5\x62\x01\x07\x00\x10",
        b"$" * 5000,
        b"A" * 100_000,
        b"\xb5\x62\x01\x07\x00\x10" + b"x" * 9000,
        b"\xb5\x62\x01\x07\xff\xff" + b"x" * 30_000,
    ):
        list(splitter.feed(chunk))
        assert splitter.pending <= MAX_PAYLOAD + 8


@pytest.mark.parametrize(
    "kind", [m.ACK_ACK, m.ACK_NAK, m.NAV_PVT, m.NAV_TIMEGPS, m.NAV_TIMELS, m.NAV_SVIN, m.TIM_TP, m.TIM_SVIN]
)
def test_only_its_own_length(kind: tuple[int, int]) -> None:
    """A message that is a byte shorter or longer than it must be says nothing."""
    whole = next((frame for frame in MESSAGES if frame[2:4] == bytes(kind)), b"")
    whole = whole or encode.nav_timegps(week=2445, tow_ms=9000, leap_s=18, leap_valid=True)
    assert not isinstance(m.decode(Frame("ubx", whole)), m.Damaged)
    for payload in (whole[6:-3], whole[6:-2] + b"\0", b""):
        assert isinstance(m.decode(Frame("ubx", encode.ubx(kind, payload))), m.Damaged)


@pytest.mark.parametrize(
    "unit",
    [
        b"\xb5\x62\x01\x07\x00\x0f", b"$", b"\xb5", b"$GPRMC,\x00", b"\xb5\x62\x01\x07\x00\x00",
        b"\xd3\x03\xff", b"\xd3\x03\xff\x43\x50", b"\xd3\x00\x00", b"$GPTXT," + b"x" * 4000, b"$GPTXT\r",
    ],
)  # fmt: skip
def test_worst_case_keeps_up_with_the_fastest_line(unit: bytes) -> None:
    data = unit * (60_000 // len(unit))
    start = time.process_time()
    split(*(data[at : at + 64] for at in range(0, len(data), 64)))
    rate = len(data) / (time.process_time() - start)
    assert rate > 92_160, f"{rate:.0f} bytes/s, slower than a line of 921600 baud"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_real_stream_flipped_and_cut(data: st.DataObject) -> None:
    """Frames that nothing touched come out, in their order."""
    order = data.draw(st.lists(st.sampled_from(range(len(MESSAGES))), min_size=1, max_size=12))
    sent: list[tuple[bytes, bool]] = []
    for index in order:
        raw = bytearray(MESSAGES[index])
        what = data.draw(st.sampled_from(("whole", "whole", "flip", "cut", "junk")))
        if what == "flip":
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "cut":
            del raw[data.draw(st.integers(0, len(raw) - 1)) :]
        elif what == "junk":
            raw = bytearray(data.draw(st.binary(max_size=40)))
        sent.append((bytes(raw), what == "whole"))
    stream = b"".join(raw for raw, _ in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    edges = [0, *cuts, len(stream)]
    frames, splitter = split(*(stream[a:b] for a, b in itertools.pairwise(edges)), give_up=True)
    assert splitter.pending == 0
    assert sum(map(len, frames)) + splitter.counts.skipped_bytes == len(stream)
    whole = [raw for raw, intact in sent if intact]
    position = 0
    for frame in frames:
        if position < len(whole) and frame == whole[position]:
            position += 1
        m.decode(Frame("ubx" if frame[0] == 0xB5 else "nmea", frame))
    # Junk could by chance be the head of a frame that swallows others; 8-bit checksums allow 1 in 65,536.
    assert position == len(whole) or any(frame not in MESSAGES for frame in frames)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=600))
def test_any_bytes_raise_nothing(data: bytes) -> None:
    frames, _ = split(data, give_up=True)
    for frame in frames:
        m.decode(Frame("ubx" if frame[0] == 0xB5 else "nmea", frame))


KINDS = [m.ACK_ACK, m.ACK_NAK, m.CFG_VALGET, m.MON_VER, m.NAV_PVT, m.NAV_TIMELS, m.NAV_SAT, m.NAV_SVIN,
         m.TIM_TP, m.TIM_SVIN, m.NAV_TIMEGPS, m.CFG_TP5, (0x13, 0x40), (0xFF, 0xFF)]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.binary(max_size=200))
def test_any_payload_with_a_right_checksum_is_a_record(kind: tuple[int, int], payload: bytes) -> None:
    message = m.decode(Frame("ubx", encode.ubx(kind, payload)))
    assert type(message).__module__ == m.__name__


FIELD = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters="*$,"), max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(("GNRMC", "GPZDA", "GNGGA", "PUBX", "", "RMC", "GNGSV")), st.lists(FIELD, max_size=18))
def test_any_sentence_with_a_right_checksum_is_a_record(name: str, fields: list[str]) -> None:
    message = m.decode(Frame("nmea", encode.nmea(",".join([name, *fields]))))
    assert type(message).__module__ == m.__name__


DIGITS = st.text("0123456789.-", max_size=8)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(("GNRMC", "GPZDA", "GNGGA")), st.lists(DIGITS, min_size=8, max_size=14))
def test_times_that_are_none_give_no_date(name: str, fields: list[str]) -> None:
    message = m.decode(Frame("nmea", encode.nmea(",".join([name, *fields]))))
    utc = getattr(message, "utc", None)
    if utc is not None:
        assert 1 <= utc[1] <= 12 and 1 <= utc[2] <= 31 and utc[3] < 24 and utc[4] < 60 and utc[5] <= 60


# Encoders, read by others


def test_nav_pvt_as_pyubx2_reads_it() -> None:
    frame = encode.nav_pvt(
        tow_ms=501_956_000, utc=(2016, 12, 31, 23, 59, 60), nano_ns=-17, time_valid=True, utc_resolved=False,
        fix_type=3, fix_ok=True, satellites=17, time_accuracy_ns=23, longitude_e7=-85_659_012,
        latitude_e7=472_851_234, height_mm=-12_345,
    )  # fmt: skip
    read = UBXReader.parse(frame)
    assert (read.identity, read.iTOW, read.year, read.second, read.nano) == (
        "NAV-PVT",
        501_956_000,
        2016,
        60,
        -17,
    )
    assert (read.validDate, read.validTime, read.fullyResolved, read.confirmedAvai) == (1, 1, 0, 1)
    assert (read.fixType, read.gnssFixOk, read.numSV, read.tAcc) == (3, 1, 17, 23)
    assert (read.lon, read.lat, read.height) == (-8.5659012, 47.2851234, -12_345)
    ours = m.decode(Frame("ubx", frame))
    assert isinstance(ours, m.NavPvt)
    assert ours.utc == (2016, 12, 31, 23, 59, 60)
    assert not ours.fully_resolved
    assert (ours.longitude_e7, ours.latitude_e7, ours.height_mm) == (-85_659_012, 472_851_234, -12_345)


def test_tim_tp_from_pyubx2_is_read() -> None:
    made = UBXMessage(
        "TIM", "TIM-TP", 0, towMS=604_799_000, towSubMS=0, qErr=-7860, week=2048, timeBase=0, utc=1, raim=2,
        qErrInvalid=1, timeRefGnss=0,
    )  # fmt: skip
    ours = m.decode(Frame("ubx", made.serialize()))
    assert ours == m.TimTp(
        tow_ms=604_799_000, tow_sub_ms_q32=0, qerr_ps=-7860, qerr_valid=False, week=2048, utc_base=False,
        utc_available=True, raim=2, gnss="GPS", utc_standard=0,
    )  # fmt: skip
    assert encode.tim_tp(week=2048, tow_ms=604_799_000, qerr_ps=-7860, qerr_valid=False) == made.serialize()


def test_tai_of_a_pulse() -> None:
    """GPS week 2048 began on 2019-04-07, when TAI − UTC was 37 s: the second rollover of ten bits."""
    tp = m.decode(Frame("ubx", encode.tim_tp(week=2048, tow_ms=0, qerr_ps=0)))
    assert isinstance(tp, m.TimTp)
    assert tp.tai_s == 1_554_595_200 - 18 + 37  # Unix time of 2019-04-07 00:00:00 UTC, GPS is 18 s ahead
    for other in (
        encode.tim_tp(week=2048, tow_ms=0, qerr_ps=0, utc_base=True),
        encode.tim_tp(week=2048, tow_ms=500, qerr_ps=0),
        encode.tim_tp(week=2048, tow_ms=0, qerr_ps=0, tow_sub_ms_q32=1),
    ):
        read = m.decode(Frame("ubx", other))
        assert isinstance(read, m.TimTp)
        assert read.tai_s is None


def test_other_encoders_as_pyubx2_reads_them() -> None:
    leap = UBXReader.parse(
        encode.nav_timels(
            tow_ms=1,
            leap_s=18,
            change_s=-1,
            time_to_event_s=-5,
            event_week=2477,
            event_day=4,
            event_valid=True,
        )
    )
    assert (leap.currLs, leap.lsChange, leap.timeToLsEvent) == (18, -1, -5)
    assert (leap.dateOfLsGpsWn, leap.dateOfLsGpsDn, leap.validCurrLs, leap.validTimeToLsEvent) == (
        2477,
        4,
        1,
        1,
    )
    sky = UBXReader.parse(
        encode.nav_sat(tow_ms=1, satellites=[(0, 3, 44, -30, 350, True), (2, 9, 20, 5, 1, False)])
    )
    assert (sky.numSvs, sky.gnssId_02, sky.elev_01, sky.azim_01, sky.cno_01) == (2, 2, -30, 350, 44)
    assert (sky.svUsed_01, sky.svUsed_02) == (1, 0)
    survey = UBXReader.parse(
        encode.nav_svin(tow_ms=7, duration_s=20, accuracy_mm=1500, observations=19, valid=False, active=True)
    )
    assert (survey.iTOW, survey.dur, survey.meanAcc, survey.obs) == (7, 20, 15_000, 19)
    assert (survey.valid, survey.active) == (0, 1)
    old = UBXReader.parse(
        encode.tim_svin(duration_s=20, accuracy_mm=1500, observations=19, valid=True, active=False)
    )
    assert (old.dur, old.meanV, old.obs, old.valid, old.active) == (20, 2_250_000, 19, 1, 0)
    week = UBXReader.parse(encode.nav_timegps(week=2445, tow_ms=9000, leap_s=18, leap_valid=True))
    assert (week.week, week.iTOW, week.leapS, week.leapSValid, week.weekValid) == (2445, 9000, 18, 1, 1)


def test_sentences_as_pynmeagps_reads_them() -> None:
    read = NMEAReader.parse(encode.rmc(UTC, valid=True, latitude_e7=-472_851_234, longitude_e7=-85_659_012))
    assert abs(read.lat + 47.2851234) < 2e-7
    assert abs(read.lon + 8.5659012) < 2e-7
    assert (str(read.time), str(read.date), read.status) == ("12:34:56", "2026-11-20", "A")
    assert str(NMEAReader.parse(encode.zda(UTC)).time) == "12:34:56"
    almost = NMEAReader.parse(
        encode.rmc(UTC, valid=True, latitude_e7=99_999_999, longitude_e7=-1_799_999_999)
    )
    assert abs(almost.lat - 10) < 2e-7
    assert abs(almost.lon + 180) < 2e-7
    assert NMEAReader.parse(encode.gga(UTC, valid=True, satellites=9, height_mm=480_123)).alt == 480.1


def test_leap_second_in_nmea() -> None:
    """pynmeagps has no second 60 and gives an empty time for it."""
    message = m.decode(Frame("nmea", encode.rmc((2016, 12, 31, 23, 59, 60), valid=True)))
    assert isinstance(message, m.Rmc)
    assert message.utc == (2016, 12, 31, 23, 59, 60)


def test_pvt_of_84_bytes() -> None:
    """Receivers of protocol 14 have no magnetic declination."""
    long = MESSAGES[0]
    short = encode.ubx(m.NAV_PVT, long[6 : 6 + 84])
    assert m.decode(Frame("ubx", short)) == m.decode(Frame("ubx", long))
