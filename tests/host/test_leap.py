# SPDX-License-Identifier: Apache-2.0
"""TAI - UTC: the table of the IERS as the system has it, and times through leap seconds.

What a second of TAI is called in UTC is said by a clock that counts civil seconds one by one, with 23:59:60
or without 23:59:59; nothing of twinstamp.leap is in it.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from twinstamp import leap
from twinstamp.errors import InputError
from twinstamp.leap import LeapSeconds, UtcOffset, leap_seconds, read_leap_seconds

SYSTEM = Path("/usr/share/zoneinfo/leap-seconds.list")
ZONE = Path("/usr/share/zoneinfo/right/UTC")
MIDNIGHT = 1_830_297_600  # 2028-01-01T00:00:00 UTC
NS = 10**9


def table(change: int) -> LeapSeconds:
    """Built in, and a leap second more, made up, at the end of 2027."""
    starts = (*leap.BUILT_IN.starts, (MIDNIGHT, 37 + change))
    return LeapSeconds("test", starts, MIDNIGHT + 10**7)


def civil(change: int, around: int = 5) -> list[tuple[int, int]]:
    """(second of TAI, number of UTC) around that midnight, counted one by one."""
    out = []
    day, second = MIDNIGHT - 86400, 86400 - around
    tai = day + second + 37
    while day < MIDNIGHT or second < around:
        out.append((tai, day + second))
        tai += 1
        second += 1
        length = 86400 + (change if day < MIDNIGHT else 0)
        if second == length:
            day, second = day + 86400, 0
    return out


def written(lines: list[str], *, expires: int = 4_000_000_000, hashed: bool = True, shift: int = 0) -> str:
    """A leap-seconds.list with its hash, as its own head says it is made."""
    digits = f"3900000000{expires}" + "".join("".join(line.split("#")[0].split()) for line in lines)
    words = hashlib.sha1(digits.encode()).hexdigest()
    said = " ".join(f"{int(words[i : i + 8], 16) + shift:x}" for i in range(0, 40, 8))
    return "\n".join(["#\tcomment", "#$\t3900000000", f"#@\t{expires}", *lines, f"#h\t{said}" * hashed, ""])


LINES = ["2272060800\t10\t# 1 Jan 1972", "2287785600\t11\t# 1 Jul 1972"]


@pytest.mark.skipif(not SYSTEM.exists(), reason="the system has no leap-seconds.list")
def test_the_system_s_table_says_what_is_built_in():
    """Its SHA-1 included; a newer one may know more."""
    system = read_leap_seconds(SYSTEM)
    n = min(len(system.starts), len(leap.BUILT_IN.starts))
    assert system.starts[:n] == leap.BUILT_IN.starts[:n]
    assert leap.system_table_fault() is None


@pytest.mark.skipif(not ZONE.exists(), reason="the system has no right/ zones")
def test_the_c_library_counts_the_same():
    """glibc's right/UTC: its time counts leap seconds, so it is TAI - 10 s. A process of its own reads it."""
    counted = []
    for start, _ in leap.BUILT_IN.starts[1:]:
        for utc_s in (start - 86400, start - 1, start, start + 1):
            counted.append((utc_s + leap.BUILT_IN.at_utc(utc_s) - 10, time.gmtime(utc_s)[:6]))
        counted.append((start + leap.BUILT_IN.at_utc(start) - 11, (*time.gmtime(start - 1)[:5], 60)))
    program = "import sys, time; print([time.localtime(int(t))[:6] for t in sys.argv[1:]])"
    said = subprocess.run(
        [sys.executable, "-c", program, *(str(t) for t, _ in counted)], check=True, capture_output=True,
        text=True, env={"TZ": "right/UTC"},
    ).stdout  # fmt: skip
    assert said == f"{[tuple(at) for _, at in counted]}\n"


def test_a_table_is_read(tmp_path):
    path = tmp_path / "leap"
    path.write_text(written(LINES))
    read = read_leap_seconds(path)
    assert read.starts == ((63_072_000, 10), (78_796_800, 11))
    assert read.expires_utc_s == 4_000_000_000 - 2_208_988_800
    path.write_text(written(LINES, hashed=False))
    assert read_leap_seconds(path).starts == read.starts


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (written(LINES, shift=1), "SHA-1 is another"),
        (written(LINES).replace("\t11\t", "\t12\t"), "by one second"),
        (written([LINES[0], "2287785601 11"]), "no leap second ends there"),
        (written([LINES[0], "2272060800 11"]), "by one second"),
        (written([*LINES, "soon 12"]), "wants NTP seconds"),
        (written([*LINES, "2303683200 12 13"]), "wants NTP seconds"),
        (written(LINES).replace("#@\t4000000000", "#@ never"), "one number of seconds"),
        (written(LINES).replace("#@\t4000000000", "# "), "no expiry"),
        (written([]), "no leap second"),
        ("", "no leap second"),
        ("\0" * 50, "wants NTP seconds"),
        ("#\n" * 10**6, "over 1048576 bytes"),
    ],
)
def test_damage_is_told(tmp_path, monkeypatch, text, why):
    path = tmp_path / "leap"
    path.write_text(text)
    with pytest.raises(InputError, match=why):
        read_leap_seconds(path)
    monkeypatch.setenv("TWINSTAMP_LEAP_SECONDS", str(path))
    with pytest.raises(InputError, match=why):
        leap_seconds()
    # The system's own, damaged: the built-in one counts, and somebody can be told.
    monkeypatch.delenv("TWINSTAMP_LEAP_SECONDS")
    monkeypatch.setattr(leap, "SYSTEM_TABLES", (str(path),))
    assert leap_seconds() is leap.BUILT_IN
    fault = leap.system_table_fault()
    assert fault is not None and str(path) in fault


def test_the_table_that_lasts_longer_counts_and_a_new_one_is_seen(tmp_path, monkeypatch):
    monkeypatch.delenv("TWINSTAMP_LEAP_SECONDS", raising=False)
    path = tmp_path / "leap"
    monkeypatch.setattr(leap, "SYSTEM_TABLES", (str(path), str(tmp_path / "none")))
    assert leap_seconds() is leap.BUILT_IN  # none there
    path.write_text(written(LINES, expires=3_900_000_001))
    assert leap_seconds() is leap.BUILT_IN  # expires earlier
    path.write_text(written(LINES, expires=4_100_000_000))
    os.utime(path, ns=(1, 1))
    assert leap_seconds().source == str(path)
    monkeypatch.setenv("TWINSTAMP_LEAP_SECONDS", str(tmp_path / "missing"))
    with pytest.raises(InputError, match="No such file"):
        leap_seconds()


def test_expiry_is_told():
    before, at = leap.BUILT_IN.expires_utc_s - 1, leap.BUILT_IN.expires_utc_s
    if leap_seconds() is not leap.BUILT_IN:
        before, at = leap_seconds().expires_utc_s - 1, leap_seconds().expires_utc_s
    assert leap.expiry_warning(before) is None
    assert "expired on" in (leap.expiry_warning(at) or "")
    assert "expires on" in (leap.expiry_warning(at - 86400, ahead_s=2 * 86400) or "")


@pytest.mark.parametrize("change", [1, -1])
def test_times_through_a_leap_second(change):
    """From TAI every second has its own number; back, the one that was inserted counts as the next."""
    seconds = table(change)
    offset = seconds.offset(MIDNIGHT - 100)
    assert offset == UtcOffset(37, True, change, MIDNIGHT + 37 + change)
    assert seconds.offset(MIDNIGHT + 100) == UtcOffset(37 + change, True)
    assert seconds.next(MIDNIGHT + 37 + change - 1) == (change, MIDNIGHT + 37 + change)
    assert seconds.next(MIDNIGHT + 37 + change) is None
    counted = civil(change)
    assert len(counted) == 10 + change
    for tai_s, utc_s in counted:
        for rest in (0, 1, NS // 2, NS - 1):
            tai, utc = tai_s * NS + rest, utc_s * NS + rest
            assert offset.utc_ns(tai) == utc == int(seconds.utc_ns(np.array([tai]))[0])
            in_leap = change == 1 and (tai_s, utc_s) != max(pair for pair in counted if pair[1] == utc_s)
            assert offset.tai_ns(utc) == tai + in_leap * NS == int(seconds.tai_ns(np.array([utc]))[0])
    many = np.array([tai * NS for tai, _ in counted])
    assert offset.utc_ns(many).tolist() == seconds.utc_ns(many).tolist() == [utc * NS for _, utc in counted]


def test_an_offset_without_a_leap_second():
    offset = UtcOffset(37, True)
    assert offset.at(0) == offset.at(2**40) == 37
    assert offset.utc_ns(37 * NS) == 0 and offset.tai_ns(0) == 37 * NS


@pytest.mark.parametrize("change", [1, -1])
@pytest.mark.parametrize("linux", [False, True])
@pytest.mark.parametrize("delay_ms", [0.001, 10, 400])
def test_delays_through_a_leap_second(change, linux, delay_ms):
    """100 packets a second, by both countings of 23:59:60: delays and gaps are as on a clock of TAI."""
    start = (MIDNIGHT + 37 - 3) * NS
    sent_tai = start + np.arange(600) * 10_000_000
    delay = np.int64(delay_ms * 1e6) + np.arange(600) % 7
    received_tai = sent_tai + delay

    def utc(tai: np.ndarray) -> np.ndarray:
        after = (MIDNIGHT + 37 + change - (linux and change == 1)) * NS
        return tai - np.where(tai >= after, 37 + change, 37) * NS

    received, sent = table(change).continuous(utc(received_tai), utc(sent_tai))
    assert (received - sent).tolist() == delay.tolist()
    assert (received - received_tai).tolist() == [-37 * NS] * 600
    assert np.diff(sent).tolist() == [10_000_000] * 599
    assert table(change).arrivals(utc(received_tai)).tolist() == received.tolist()


def test_times_far_from_a_leap_second_stay_as_they_are():
    received, sent = np.array([MIDNIGHT * NS + 10**12, 5]), np.array([MIDNIGHT * NS + 10**12])
    assert table(1).continuous(received[:1], sent) == (received[:1], sent)
    assert table(1).arrivals(received[:0]).size == 0
    # Over years, both ends on one side each: the difference counts what was inserted.
    both = table(1).arrivals(np.array([MIDNIGHT - 10**6, MIDNIGHT + 10**6]) * NS)
    assert np.diff(both).tolist() == [(2 * 10**6 + 1) * NS]
