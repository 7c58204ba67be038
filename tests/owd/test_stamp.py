# SPDX-License-Identifier: Apache-2.0
"""The payload format: every field against scapy's STAMP, times and bounds in rational numbers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.contrib.stamp import ErrorEstimate
from scapy.contrib.stamp import STAMPSessionSenderTestUnauthenticated as Scapy
from twinstamp import stamp
from twinstamp.errors import ConfigError

Q32 = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize("ptp", [False, True])
@pytest.mark.parametrize("size", [44, 48, 49, 1472, 9000])
def test_scapy_reads_every_field(ptp: bool, size: int):
    error = stamp.error_estimate(34, synchronised=True, ptp=ptp)
    timestamp = 0x0123456789ABCDEF if not ptp else 5 << 32 | 999_999_999
    payload = stamp.payloads(
        sequence=[0xFFFFFFFF], timestamp=timestamp, error=error, session=0x7ABC, size=size
    )[0].tobytes()
    packet = Scapy(payload)
    assert packet.seq == 0xFFFFFFFF
    assert packet.ssid == 0x7ABC
    assert packet.err_estimate.S == 1
    assert ptp == packet.err_estimate.Z
    assert packet.err_estimate.scale == error >> 8 & 0x3F
    assert packet.err_estimate.multiplier == error & 0xFF
    assert packet.getfieldval("mbz") == 0
    if ptp:  # scapy's NTP field goes through float
        assert int(packet.ts) == timestamp
    if size > 44:
        (tlv,) = packet.tlv_objects
        assert (tlv.type, tlv.len, len(tlv.value), int(tlv.flags)) == (1, size - 48, size - 48, 0)
    else:
        assert not packet.tlv_objects
    assert bytes(packet) == payload or not ptp


def test_scapy_builds_the_same_bytes():
    error = stamp.error_estimate(1000, synchronised=False, ptp=True)
    estimate = ErrorEstimate(S=0, Z=1, scale=error >> 8 & 0x3F, multiplier=error & 0xFF)
    packet = Scapy(seq=7, ssid=99, err_estimate=estimate)
    packet.ts = 123456789  # last: its type follows Z
    ours = stamp.payloads(sequence=7, timestamp=123456789, error=error, session=99, size=44)
    assert ours.tobytes() == bytes(packet)


def test_short_form_is_the_first_16_bytes_with_the_mark():
    full = stamp.payloads(sequence=3, timestamp=1 << 40, error=0x8093, session=5, size=44)[0]
    for size in (16, 18, 43):
        short = stamp.payloads(sequence=3, timestamp=1 << 40, error=0x8093, session=5, size=size)[0]
        assert short[:14].tolist() == full[:14].tolist()
        assert short[14:16].tobytes() == b"\x80\x05"
        assert not short[16:].any()


@pytest.mark.parametrize("call", [
    lambda: stamp.payloads(sequence=0, timestamp=0, error=1, session=1, size=15),
    lambda: stamp.payloads(sequence=0, timestamp=0, error=1, session=0, size=44),
    lambda: stamp.payloads(sequence=0, timestamp=0, error=1, session=0x8000, size=44),
    lambda: stamp.payloads(sequence=0, timestamp=0, error=1, session=1, size=44 + 65540),
    lambda: stamp.error_estimate(-2, synchronised=True),
    lambda: stamp.smallest_frame(ip_version=5),
])  # fmt: skip
def test_refused(call):
    with pytest.raises(ConfigError):
        call()


def test_smallest_frames():
    assert [stamp.smallest_frame(ip_version=v, tags=t, short=s) for v in (4, 6) for s in (False, True)
            for t in (0, 1, 2)] == [90, 94, 98, 64, 68, 72, 110, 114, 118, 82, 86, 90]  # fmt: skip


@given(st.integers(0, 2**62 - 1), st.booleans(), st.booleans())
def test_error_estimates_are_truthful(bound: int, synchronised: bool, ptp: bool):
    field = stamp.error_estimate(bound, synchronised=synchronised, ptp=ptp)
    read = stamp.read_error_estimate(field)
    assert (read.synchronised, read.ptp) == (synchronised, ptp)
    said = Fraction(read.bound_q32, 2**32) * 10**9
    assert said >= bound
    # The next smaller value that the format has would be too small (or is 0, which is not allowed).
    multiplier, scale = field & 0xFF, field >> 8 & 0x3F
    assert multiplier > 0 and (multiplier >= 128 or scale == 0)
    assert multiplier == 1 or Fraction((multiplier - 1) << scale, 2**32) * 10**9 < bound
    ns = int(stamp.bound_ns(np.array([field], np.uint16))[0])
    assert said <= ns < said + 1


def test_unknown_bounds():
    assert stamp.error_estimate(-1, synchronised=True) == 0x3FFF
    assert stamp.error_estimate(-1, synchronised=True, ptp=True) == 0x7FFF
    fields = np.array([0x3FFF, 0x7FFF, 0x0500, 0x8001, 0x3FFE], np.uint16)
    assert stamp.bound_ns(fields).tolist() == [-1, -1, -1, 1, -1]
    assert [stamp.read_error_estimate(int(f)).bound_q32 for f in fields[:3]] == [-1, -1, -1]


@given(st.lists(Q32, min_size=1, max_size=20), st.sampled_from([10, 36, 37, 38]))
def test_card_time_in_both_formats(times: list[int], offset: int):
    q32 = np.array(times, np.uint64)
    ntp, ptp = stamp.ntp_from_tai_q32(q32, offset), stamp.ptp_from_tai_q32(q32)
    for i, time in enumerate(times):
        seconds, fraction = divmod(time, 2**32)
        assert int(ntp[i]) == (seconds - offset + 2_208_988_800) % 2**32 << 32 | fraction
        assert int(ntp[i]) == stamp.ntp_from_tai_q32(time, offset)
        assert int(ptp[i]) >> 32 == seconds
        assert int(ptp[i]) & 0xFFFFFFFF == int(Fraction(fraction, 2**32) * 10**9) < 10**9
        assert int(ptp[i]) == stamp.ptp_from_tai_q32(time)


@given(st.integers(-(2**60), 2**62), st.integers(-(2**30), 2**30))
def test_ntp_keeps_nanoseconds_in_every_era(utc_ns: int, away_s: int):
    ntp = stamp.ntp_from_utc_ns(utc_ns)
    assert int(stamp.ntp_from_utc_ns(np.array([utc_ns]))[0]) == ntp
    near = max(-(2**62), utc_ns + away_s * 10**9)
    assert stamp.utc_ns_from_ntp(np.array([ntp], np.uint64), near).tolist() == [utc_ns]


@given(st.integers(0, 2**62), st.integers(-(2**30), 2**30))
def test_ptp_keeps_nanoseconds_in_every_era(tai_ns: int, away_s: int):
    seconds, ns = divmod(tai_ns, 10**9)
    field = np.array([seconds % 2**32 << 32 | ns], np.uint64)
    assert stamp.tai_ns_from_ptp(field, tai_ns + away_s * 10**9).tolist() == [tai_ns]


def test_valid_timestamps():
    stamps = np.array([0, 1, 10**9, 10**9, 999_999_999], np.uint64)
    fields = np.array([1, 1, 1, 0x4001, 0x4001], np.uint16)
    assert stamp.valid_timestamps(stamps, fields).tolist() == [False, True, True, False, True]
