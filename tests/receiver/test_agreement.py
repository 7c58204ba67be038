# SPDX-License-Identifier: Apache-2.0
"""The host's parser and the firmware's take and refuse the same, counted by the same reasons.

The two have nothing in common: one cuts a buffer and looks anew, the other follows running checksums (built
here with sanitizers). Streams are of the kinds that receivers send: all talkers, RTK receivers' long
sentences, PUBX and others' own, either line end, other UBX messages, RTCM3, other protocols' bytes, damage.
Sentences and checksums are made here; UBX messages by pyubx2.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynmeagps import NMEAReader
from pyubx2 import GET, UBXMessage
from twinstamp_gps import gpstime, naming
from twinstamp_gps import messages as m
from twinstamp_gps.stream import StreamSplitter

from tests.firmware.driver import Driver
from tests.receiver.both import READ, both
from tests.receiver.streams import crc24q, rtcm, sentence, shapes
from tests.receiver.test_hostile import hostile

# Streams


def ubx(kind: tuple[int, int], payload: bytes) -> bytes:
    body = bytes(kind) + len(payload).to_bytes(2, "little") + payload
    a = b = 0
    for c in body:
        a = (a + c) % 256
        b = (b + a) % 256
    return b"\xb5\x62" + body + bytes((a, b))


def timegps(**fields: int) -> bytes:
    usual = {"iTOW": 9000, "week": 2395, "towValid": 1, "weekValid": 1} | fields
    return bytes(UBXMessage("NAV", "NAV-TIMEGPS", GET, **usual).serialize())


def timels(source: int, valid: int, leap_s: int = 18) -> bytes:
    made = UBXMessage("NAV", "NAV-TIMELS", GET, srcOfCurrLs=source, currLs=leap_s, validCurrLs=valid)
    return bytes(made.serialize())


def tp(**fields: int | float) -> bytes:
    usual = {"towMS": 1000, "week": 2395, "utc": 1, "timeRefGnss": 0} | fields
    return bytes(UBXMessage("TIM", "TIM-TP", GET, **usual).serialize())


def tp_said(tow: int = 1, **other: int) -> str:
    told = {"gps": 1, "utc": 0, "qerr_valid": 1} | other
    return f"TP week 2395 tow {tow} qErr 0 " + " ".join(f"{k} {v}" for k, v in told.items())


TALKERS = ("GP", "GN", "GL", "GA", "GB", "BD", "QZ", "GI", "II", "HC", "P1", "PU")
BAD_TIMES = (
    "", "12003", "1200300", "246060", "120060", "235960", "120000.5x", "12:00:00", "-20000", "120000,",
)  # fmt: skip
BAD_DATES = ("", "310226", "290223", "000126", "011326", "1126", "0111260", "ab1126", "01112026")


@st.composite
def times(draw: st.DrawFn) -> str:
    """hhmmss with any fraction, or what is no time."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(BAD_TIMES))
    whole = f"{draw(st.integers(0, 23)):02d}{draw(st.integers(0, 59)):02d}{draw(st.integers(0, 59)):02d}"
    fractions = ("", ".", ".0", ".00", ".000", ".30", ".5", ".999999999", ".0000000001")
    return whole + draw(st.sampled_from(fractions))


@st.composite
def dates(draw: st.DrawFn) -> tuple[str, str, str, str]:
    """ddmmyy, day, month, year."""
    day, month, year = draw(st.integers(1, 28)), draw(st.integers(1, 12)), draw(st.integers(1980, 2079))
    short = f"{day:02d}{month:02d}{year % 100:02d}"
    if draw(st.integers(0, 9)) == 0:
        short = draw(st.sampled_from(BAD_DATES))
    texts = [f"{day:02d}", f"{month:02d}", f"{year:04d}"]
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, 2))
        texts[at] = draw(st.sampled_from(("", "0", "99", "1979", "2200", "2199", "x", "002026", texts[at])))
    return short, texts[0], texts[1], texts[2]


@st.composite
def sentences(draw: st.DrawFn) -> bytes:
    """RMC, ZDA, GGA and others, of receivers of all kinds."""
    talker, time, (short, day, month, year) = draw(st.sampled_from(TALKERS)), draw(times()), draw(dates())
    places = draw(st.sampled_from((4, 8, 60)))
    where = f"4717.{'1' * places},N,00833.{'9' * places},E"
    status = draw(st.sampled_from("AAAAADVX")) + draw(st.sampled_from(("", "", "", "", "A")))
    modes = ("", ",A", ",D", ",F", ",R", ",P", ",E", ",M", ",S", ",N", ",A,V", ",N,V", ",,V", ",AA")
    mode = draw(st.sampled_from(modes))
    body = draw(
        st.sampled_from(
            (
                f"{talker}RMC,{time},{status},{where},0.004,139.060,{short},11.5985,E{mode}",
                f"{talker}RMC,{time},{status},{where},0.0,,{short},,{mode}",
                f"{talker}RMC,{time},A,{where},0.0,,{short}",
                f"{talker}RMC,{time},{status}",
                f"{talker}ZDA,{time},{day},{month},{year},00,00",
                f"{talker}ZDA,{time},{day},{month},{year}",
                f"{talker}ZDA,,,,,,",
                *(f"{talker}GGA,{time},{where},{q},12,0.8,480.0,M,48.0,M,," for q in (*range(10), "", "10")),
                f"{talker}GLL,{where},{time},A,A",
                f"{talker}GSV,3,1,12,01,40,083,46,02,17,308,41,12,07,344,39,14,22,228,45",
                "PUBX,03,30" + ",5,U,120,45,38,064" * draw(st.integers(1, 70)),
                "PUBX,04,073731.00,091202,113851.00,1196,15D,1930035,-2660.664,43",
                "PARMC,120000.00,A,,,,,,,011226,,,A",
                f"{talker}TXT,01,01,02,a*b and c",
                f"{talker}RMC",
                f"{talker}ABRMC,{time},A,{where},0.0,,{short}",
                f"gprmc,{time},A,{where},0.0,,{short}",
            )
        )
    )
    end = draw(st.sampled_from(("\r\n", "\r\n", "\r\n", "\n", "\n", "\r\r\n", "\r", " \r\n", "")))
    line = sentence(body, end=end, lower=draw(st.booleans()))
    if draw(st.integers(0, 11)) == 0:
        line = f"${body}{end}".encode()  # without a checksum, as of old receivers
    return line


@st.composite
def read_ubx(draw: st.DrawFn) -> bytes:
    """NAV-PVT, TIM-TP, NAV-TIMELS, NAV-TIMEGPS: usual values, and any."""
    kind = draw(st.sampled_from(READ))
    if draw(st.integers(0, 4)) == 0:
        return ubx(kind, draw(st.binary(max_size=100)))
    flag = st.sampled_from((1, 1, 1, 1, 0))
    tow = draw(st.one_of(st.integers(0, 604_799).map(lambda s: 1000 * s), st.integers(0, 605_000_000)))
    if kind == m.NAV_PVT:
        fields = {
            "iTOW": tow, "year": draw(st.integers(1979, 2030)), "month": draw(st.integers(1, 12)),
            "day": draw(st.integers(1, 29)), "hour": draw(st.sampled_from((0, 12, 23, 24))),
            "min": draw(st.sampled_from((0, 59, 60))), "second": draw(st.sampled_from((0, 59, 60, 61))),
            "validDate": draw(flag), "validTime": draw(flag), "fullyResolved": draw(flag),
            "nano": draw(st.sampled_from((0, 17, -499_999, 500_000, -500_000, 200_000_000, 10**9 + 1))),
            "fixType": draw(st.integers(0, 6)), "gnssFixOk": draw(flag),
            "tAcc": draw(st.integers(0, 2**32 - 1)),
        }  # fmt: skip
        whole = bytes(UBXMessage("NAV", "NAV-PVT", GET, **fields).serialize())
        # Protocol 14 to 15: 84 bytes.
        return ubx(kind, whole[6 : 6 + 84]) if draw(st.booleans()) else whole
    if kind == m.TIM_TP:
        fields = {
            "towMS": tow + draw(st.sampled_from((0, 0, 999, 500))),
            "towSubMS": draw(st.sampled_from((0, 0.25, 0.75))), "qErr": draw(st.integers(-2**31, 2**31 - 1)),
            "week": draw(st.integers(0, 65_535)), "timeBase": draw(flag) ^ 1, "utc": draw(flag),
            "qErrInvalid": draw(flag) ^ 1, "timeRefGnss": draw(st.sampled_from((0, 0, 0, 1, 2, 3, 15))),
        }  # fmt: skip
        return bytes(UBXMessage("TIM", "TIM-TP", GET, **fields).serialize())
    leap = draw(st.sampled_from((18, 18, 18, 0, 17, -1, 100)))
    if kind == m.NAV_TIMELS:
        fields = {
            "srcOfCurrLs": draw(st.sampled_from((2, 2, 0, 1, 6, 7, 255))), "currLs": leap,
            "lsChange": draw(st.sampled_from((0, 0, 1, -1, 2))), "timeToLsEvent": draw(st.integers(-99, 99)),
            "validCurrLs": draw(flag), "validTimeToLsEvent": draw(flag),
        }  # fmt: skip
        return bytes(UBXMessage("NAV", "NAV-TIMELS", GET, **fields).serialize())
    return timegps(iTOW=tow, leapS=leap, leapSValid=draw(flag))


OTHER_KINDS = ((0x02, 0x15), (0x0A, 0x31), (0x01, 0x03), (0x13, 0x40), (0x27, 0x03), (0x7F, 0x62))
other_ubx = st.builds(ubx, st.sampled_from(OTHER_KINDS), st.one_of(
    st.binary(max_size=60), st.sampled_from((247, 248, 249, 300, 1500, 4095, 4096)).map(bytes)))  # fmt: skip
BETWEEN = (
    b"\x10\x8f\xab" + bytes(17) + b"\x10\x03",  # Trimble TSIP
    b"\xa0\xa2\x00\x04\x01\x24\xb5\x61\x01\x3c\xb0\xb3",  # SiRF
    b"\xa0\xa1\x00\x03\x83\x00$\x83\x0d\x0a",  # Skytraq
    b"$@\x12\x34\xfb\x0f\x10\x00$GN\xd3\x00\x04ab",  # Septentrio
    b"@@Ha\x00\r\n",  # Motorola Oncore
    b"\xaa\x44\x12\x1c\x2a\x00",  # NovAtel
    b"!AIVDM,1,1,,B,177KQJ5000G?tO`K>RA1wUbN0TKH,0*5C\r\n",
    b"# Date: 2020-03-18\n",
    b"\r\n",
)
STARTS = (
    b"\xb5", b"\xb5\x62", b"\xb5\x62\x01\x07\x5c\x00", b"\xb5\x62\x01\x35\xf8\x0b",
    b"\xb5\x62\x01\x07\xff\xff",
    b"$", b"$GNRMC,", b"$GNRMC,120000.00,A*", b"\xd3", b"\xd3\x00", b"\xd3\x00\x13\x3e\xd0", b"\xd3\x03\xff",
    b"\xd3\x01\x00\xfe\x80",
)  # fmt: skip


def nested(inside: bytes) -> st.SearchStrategy[bytes]:
    """A sound message with another inside, which is not to be read."""
    return st.sampled_from(
        (
            rtcm(b"\x3e\xd0" + inside[:1000]),
            ubx((0x02, 0x13), inside[:4000]),
            ubx((0x04, 0x02), bytes(300) + inside[:700]),
        )
    )


@st.composite
def pieces(draw: st.DrawFn) -> bytes:
    sound = st.one_of(sentences(), sentences(), read_ubx(), read_ubx(), other_ubx,
                      st.binary(max_size=1023).map(rtcm))  # fmt: skip
    kind = draw(st.integers(0, 9))
    if kind < 5:
        return draw(sound)
    if kind == 5:
        return draw(nested(draw(sound)))
    if kind == 6:
        return draw(st.sampled_from(BETWEEN))
    if kind == 7:
        return draw(st.sampled_from(STARTS)) * draw(st.sampled_from((1, 1, 1, 2, 5)))
    raw = bytearray(draw(sound))
    if kind == 8:
        raw[draw(st.integers(0, len(raw) - 1))] ^= 1 << draw(st.integers(0, 7))
        return bytes(raw)
    return bytes(raw[: draw(st.integers(0, len(raw)))])


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces(), max_size=14), st.data())
def test_any_stream(driver: Driver, parts: list[bytes], data: st.DataObject) -> None:
    chunks: list[bytes | None] = []
    for part in parts:
        chunks.append(part)
        if data.draw(st.integers(0, 4)) == 0:
            chunks.append(None)
    both(driver, chunks)


@pytest.mark.parametrize("seed", range(4))
def test_hostile_bytes(driver: Driver, seed: int) -> None:
    """Frames flipped, cut and nested, headers of any length, noise; silence now and then."""
    draw = random.Random(seed)
    data = hostile(seed, 40_000)
    chunks: list[bytes | None] = []
    while data:
        size = draw.randrange(1, 1500)
        chunks += [data[:size], None]
        data = data[size:]
    said, counted = both(driver, chunks)
    assert len(said) > 20 and counted["bad_checksum"] > 20 and counted["cut_short"] > 20


# Times that a shape of streams.py gives to its second; of what else it is counted.
NAMED = {"NMEA, void": 0, "u-blox, no fix": 0, "u-blox, UBX and NMEA": 2}
REFUSED = {
    "NMEA, void": {"not_valid": 5}, "u-blox, no fix": {"not_valid": 5}, "NMEA, on 0.3 s": {"fraction": 5},
    "RTK": {"fraction": 45},
}  # fmt: skip


@pytest.mark.parametrize("shape", shapes())
def test_shapes(driver: Driver, shape: str) -> None:
    """Five seconds of what receivers send: each is named by both, nothing is damaged, nothing skipped."""
    start = datetime.datetime(2026, 11, 30, 23, 59, 58)
    seconds = [start + datetime.timedelta(seconds=k) for k in range(5)]
    chunks: list[bytes | None] = [shapes()[shape](at) for at in seconds]
    said, counted = both(driver, chunks)
    said_at = start - datetime.timedelta(weeks=1024) if "back" in shape else start
    labels = [(said_at + datetime.timedelta(seconds=k)).isoformat() for k in range(5)]
    fixes = [text.split()[1] for text in said if text.startswith("UTC") or "resolved 1 fixed 1" in text]
    times = 0 if shape == "NMEA, on 0.3 s" else NAMED.get(shape, 1)
    assert fixes == [label for label in labels for _ in range(times)]
    frames = {"ubx", "nmea", "rtcm"}
    assert {name: count for name, count in counted.items() if name not in frames} == REFUSED.get(shape, {})


RMC = "GPRMC,120030.00,A,4717.1143,N,00833.9152,E,0.0,,011225,,,A,V"
UTC = "UTC 2025-12-01T12:00:30"
PVT = bytes(
    UBXMessage(
        "NAV", "NAV-PVT", GET, iTOW=129_648_000, year=2025, month=12, day=1, hour=12, min=0, second=30,
        validDate=1, validTime=1, fullyResolved=1, fixType=3, gnssFixOk=1, tAcc=9,
    ).serialize()
)  # fmt: skip
PVT_SAID = "PVT 2025-12-01T12:00:30 tow 129648000 tAcc 9 resolved 1 fixed 1"
NMEA1 = {"nmea": 1}


# What goes in; what is said; what is counted. From the standards, gpsd's sources and receivers' logs.
CASES: list[tuple[str, bytes, list[str], dict[str, int]]] = [
    ("tenths", sentence(RMC.replace("30.00", "30.30")), [], NMEA1 | {"fraction": 1}),
    ("a fraction of zeros", sentence(RMC.replace("30.00", "30.0000000")), [UTC], NMEA1),
    ("no fraction", sentence(RMC.replace("30.00", "30")), [UTC], NMEA1),
    ("ZDA on tenths", sentence("GPZDA,120030.50,01,12,2025,00,00"), [], NMEA1 | {"fraction": 1}),
    ("lower-case checksum",
     b"$GPRMC,120030.00,A,4717.1143,N,00833.9152,E,0.0,,011225,,,A,V*0a\r\n", [UTC], NMEA1),
    ("LF alone", sentence(RMC, end="\n"), [UTC], NMEA1),
    ("CR CR LF", sentence(RMC, end="\r\r\n"), [UTC], NMEA1),
    ("RMC of 88 characters",
     b"$GNRMC,120030.00,A,4717.11437182,N,00833.91522561,E,0.004,139.060,011225,11.5985,E,D*2A\r\n",
     [UTC], NMEA1),
    ("RMC of 256 characters", sentence(RMC + "," + "0" * (256 - 6 - len(RMC) - 1)), [UTC], NMEA1),
    ("RMC of 257 characters",
     sentence(RMC + "," + "0" * (257 - 6 - len(RMC) - 1)), [], NMEA1 | {"too_long": 1}),
    ("PUBX,03 of 423 characters", sentence("PUBX,03,20" + ",5,U,120,45,38,064" * 22 + ",0123456"), [], NMEA1),
    ("4096 characters", sentence("GPTXT," + "x" * 4084), [], NMEA1),
    ("4097 characters", sentence("GPTXT," + "x" * 4085), [], {"too_long": 1, "skipped": 4097}),
    ("5000 characters", sentence("GPTXT," + "x" * 4988), [], {"too_long": 1, "skipped": 5000}),
    ("4100 characters without an end", b"$GPTXT," + b"x" * 4093 + b"\0", [],
     {"too_long": 1, "skipped": 4101}),
    ("no checksum", f"${RMC}\r\n".encode(), [], {"no_checksum": 1, "skipped": len(RMC) + 3}),
    ("wrong checksum",
     sentence(RMC).replace(b"*0A", b"*0B"), [], {"bad_checksum": 1, "skipped": len(RMC) + 6}),
    ("cut by another", b"$GPRMC,1200" + sentence(RMC), [UTC], NMEA1 | {"cut_short": 1, "skipped": 11}),
    ("cut by silence", b"$GPRMC,1200", [], {"cut_short": 1, "skipped": 11}),
    ("void", b"$GPRMC,000030.00,V,,,,,,,220899,,,N*76\r\n", [], NMEA1 | {"not_valid": 1}),
    ("void without a time", sentence("GPRMC,,V,,,,,,,,,,N"), [], NMEA1 | {"not_valid": 1}),
    ("status D", sentence(RMC.replace(",A,47", ",D,47").replace(",A,V", "")), [UTC], NMEA1),
    *((f"mode {c}", sentence(RMC.replace("A,V", f"{c},V")), [UTC], NMEA1) for c in "ADFRP"),
    *((f"mode {c}", sentence(RMC.replace("A,V", f"{c},V")), [], NMEA1 | {"not_valid": 1}) for c in "NEMS"),
    ("ZDA behind a void RMC",
     sentence("GPRMC,120030.00,V,,,,,,,011225,,,N") + sentence("GPZDA,120030.00,01,12,2025,,"),
     [], {"nmea": 2, "not_valid": 2}),
    ("ZDA behind GGA without a fix", sentence("GPGGA,120030.00,,,,,0,00,99.99,,,,,,")
     + sentence("GPZDA,120030.00,01,12,2025,,"), [], {"nmea": 2, "not_valid": 1}),
    ("ZDA alone", sentence("GPZDA,120030.00,01,12,2025,,"), [UTC], NMEA1),
    ("ZDA, fix again", sentence("GPRMC,120030.00,V,,,,,,,011225,,,N") + sentence(RMC)
     + sentence("GPZDA,120030.00,01,12,2025,,"), [UTC, UTC], {"nmea": 3, "not_valid": 1}),
    ("year 99", sentence(RMC.replace("011225", "220899")), ["UTC 1999-08-22T12:00:30"], NMEA1),
    ("year 80", sentence(RMC.replace("011225", "060180")), ["UTC 1980-01-06T12:00:30"], NMEA1),
    ("year 79", sentence(RMC.replace("011225", "311279")), ["UTC 2079-12-31T12:00:30"], NMEA1),
    ("a date that is none", sentence(RMC.replace("011225", "310226")), [], NMEA1 | {"bad_value": 1}),
    ("second 60 at noon", sentence(RMC.replace("120030", "120060")), [], NMEA1 | {"bad_value": 1}),
    ("leap second", sentence(RMC.replace("120030.00", "235960.00").replace("011225", "311226")),
     ["UTC 2026-12-31T23:59:60"], NMEA1),
    ("nobody's own RMC", sentence("PARMC" + RMC[5:]), [], NMEA1),
    ("RTCM3 of the standard's example",  # RTCM 10403.3 section 4: message 1005
     bytes.fromhex("D300133ED7D30202980EDEEF34B4BD62AC0941986F33360B98"), [], {"rtcm": 1}),
    *((f"RTCM3 with reserved bit {bit}", raw + crc24q(raw).to_bytes(3, "big"), [], {"skipped": 10})
      for bit in range(2, 8) for raw in (bytes((0xD3, 1 << bit, 4, 0x43, 0x50, 0, 0)),)),
    ("RTCM3 filler", bytes.fromhex("D3000047EA4B"), [], {"rtcm": 1}),
    ("RTCM3 with starts in it", PVT + rtcm(b"\x43\x50\xb5\x62\x01\x07\x5c\x00$GNRMC,\x00") + PVT,
     [PVT_SAID] * 2, {"ubx": 2, "rtcm": 1}),
    ("RTCM3 of 1029 bytes", PVT + rtcm(b"\x43\x50" + bytes(range(256)) * 3 + bytes(253)) + PVT,
     [PVT_SAID] * 2, {"ubx": 2, "rtcm": 1}),
    ("a message in an RTCM3 text", rtcm(b"\x40\x50" + PVT + sentence(RMC)), [], {"rtcm": 1}),
    ("a message in a UBX text", ubx((0x04, 0x02), bytes(400) + sentence(RMC) + PVT), [], {"ubx": 1}),
    ("damaged RTCM3", rtcm(b"\x43\x50" + bytes(30))[:-1] + b"\0" + PVT, [PVT_SAID],
     {"ubx": 1, "bad_checksum": 1, "skipped": 38}),
    ("messages behind a false RTCM3", b"\xd3\x03\xff\x43\x50" + PVT + sentence(RMC), [PVT_SAID, UTC],
     {"ubx": 1, "nmea": 1, "cut_short": 1, "skipped": 5}),
    ("messages behind a false UBX", b"\xb5\x62\x01\x35\xf8\x0b" + PVT + sentence(RMC), [PVT_SAID, UTC],
     {"ubx": 1, "nmea": 1, "cut_short": 1, "skipped": 6}),
    ("another UBX", ubx((0x01, 0x35), bytes(8)) + ubx((0x02, 0x15), bytes(3000)), [], {"ubx": 2}),
    ("UBX beyond the limit",
     b"\xb5\x62\x02\x15\x01\x10" + PVT, [PVT_SAID], {"ubx": 1, "too_long": 1, "skipped": 6}),
    ("damaged UBX", PVT[:20] + b"\xff" + PVT[21:], [], {"bad_checksum": 1, "skipped": 100}),
    ("NAV-PVT of 84 bytes", ubx(m.NAV_PVT, PVT[6:90]), [PVT_SAID], {"ubx": 1}),
    ("NAV-PVT of 91 bytes", ubx(m.NAV_PVT, PVT[6:97]), [], {"ubx": 1, "bad_length": 1}),
    ("dead reckoning",
     ubx(m.NAV_PVT, PVT[6:26] + b"\x01" + PVT[27:98]), [PVT_SAID.replace("fixed 1", "fixed 0")],
     {"ubx": 1, "not_valid": 1}),
    ("TIM-TP", tp(), [tp_said()], {"ubx": 1}),
    ("TIM-TP of Galileo's time", tp(timeRefGnss=3), [tp_said()], {"ubx": 1}),
    ("TIM-TP of BeiDou's time", tp(timeRefGnss=2), [tp_said(gps=0)], {"ubx": 1, "time_base": 1}),
    ("TIM-TP of an unknown UTC", tp(timeBase=1, utc=0), [tp_said(gps=0, utc=1)], {"ubx": 1, "time_base": 1}),
    ("TIM-TP just before its second", tp(towMS=1999, towSubMS=0.5), [tp_said(2)], {"ubx": 1}),
    ("TIM-TP on half a second", tp(towMS=1500), [], {"ubx": 1, "fraction": 1}),
    ("leap seconds of TIMEGPS",
     timegps(leapS=18, leapSValid=1), ["LEAP 18 change 0 in 0 known 1"], {"ubx": 1}),
    ("leap seconds not valid", timegps(leapS=18, leapSValid=0), [], {"ubx": 1, "not_valid": 1}),
    ("leap seconds as delivered",
     timels(0, 1), ["LEAP 18 change 0 in 0 known 0"], {"ubx": 1, "not_valid": 1}),
    ("TIMELS knows better", timels(0, 1) + timegps(leapS=18, leapSValid=1), ["LEAP 18 change 0 in 0 known 0"],
     {"ubx": 2, "not_valid": 1}),
    ("impossible leap seconds", timels(2, 1, 100), [], {"ubx": 1, "bad_value": 1}),
    *(("another protocol", data, [], {"skipped": len(data)}) for data in BETWEEN),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_cases(driver: Driver, case: tuple[str, bytes, list[str], dict[str, int]]) -> None:
    _, stream, said, counted = case
    assert both(driver, [stream]) == (said, counted)


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(TALKERS[:-2]),
    st.datetimes(datetime.datetime(1980, 1, 6), datetime.datetime(2068, 12, 31)),
    st.booleans(),
    st.sampled_from(("", ".0", ".00", ".25")),
)
def test_times_as_pynmeagps_reads_them(
    driver: Driver, talker: str, at: datetime.datetime, zda: bool, fraction: str
) -> None:
    time = f"{at:%H%M%S}{fraction}"
    body = f"{talker}ZDA,{time},{at:%d,%m}," + f"{at.year:04d},00,00" if zda else (
        f"{talker}RMC,{time},A,4717.1143,N,00833.9152,E,0.0,,{at:%d%m%y},,,A"
    )  # fmt: skip
    line = sentence(body)
    peer = NMEAReader.parse(line)
    date = datetime.date(peer.year, peer.month, peer.day) if zda else peer.date
    said, counted = both(driver, [line])
    whole = f"UTC {date.isoformat()}T{peer.time.replace(microsecond=0)}"
    assert said == ([] if fraction == ".25" else [whole])
    assert counted.get("fraction") == (1 if fraction == ".25" else None)


# Names


SECOND = 1 << 32
WEEK_S = 604_800
NOW_TAI_S = 1_795_000_000  # 2026-11-18
FIRST_TAI_S = 315_964_819 + 2348 * WEEK_S  # of the first week that can be, 2025-01-04T23:59:42 UTC


def civil(tai_s: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(seconds=tai_s - 37)


def in_gps(tai_s: int) -> tuple[int, int]:
    return divmod(tai_s - 315_964_819, WEEK_S)


def tp_of(tai_s: int, weeks: int) -> bytes:
    week, second = in_gps(tai_s)
    return tp(week=week + weeks, towMS=1000 * second)


def pvt_of(tai_s: int, weeks: int) -> bytes:
    at = civil(tai_s + weeks * WEEK_S)
    made = UBXMessage(
        "NAV", "NAV-PVT", GET, iTOW=1000 * in_gps(tai_s)[1], year=at.year, month=at.month, day=at.day,
        hour=at.hour, min=at.minute, second=at.second, validDate=1, validTime=1, fullyResolved=1, fixType=3,
        gnssFixOk=1, tAcc=9,
    )  # fmt: skip
    return bytes(made.serialize())


def rmc_of(tai_s: int, weeks: int) -> bytes:
    at = civil(tai_s + weeks * WEEK_S)
    return sentence(f"GNRMC,{at:%H%M%S}.00,A,4717.1,N,00833.9,E,0.0,,{at:%d%m%y},,,A,V")


def zda_of(tai_s: int, weeks: int) -> bytes:
    at = civil(tai_s + weeks * WEEK_S)
    return sentence(f"GNZDA,{at:%H%M%S}.00,{at.day:02d},{at.month:02d},{at.year:04d},00,00")


def host_names(message: m.Message) -> int | None:
    """TAI second that the host makes of a message, GPS - UTC being 18 s."""
    if isinstance(message, m.TimTp):
        found = naming.pulse_tai_s(message, 18)
        return None if found is None else found[0]
    assert isinstance(message, m.NavPvt | m.Rmc | m.Zda) and message.utc is not None
    return gpstime.utc_to_unix_s(*naming.unroll_utc(message.utc)[0]) + 37


TEN_BITS = "ten bits"


@pytest.mark.parametrize(
    ("make", "weeks"),
    [(tp_of, TEN_BITS), *((make, k) for make in (tp_of, pvt_of, rmc_of, zda_of) for k in (0, -1024, -2048))],
)
@pytest.mark.parametrize("start", [NOW_TAI_S, FIRST_TAI_S, FIRST_TAI_S + 20, FIRST_TAI_S + 1024 * WEEK_S - 4])
def test_rollovers_name_the_same_second(
    driver: Driver, make: Callable[[int, int], bytes], weeks: int | str, start: int
) -> None:
    """A receiver whose weeks or dates are back by 1024 or more is moved on, by host and firmware alike."""
    if isinstance(weeks, str):
        weeks = -(in_gps(start)[0] // 1024 * 1024)
    driver.restart()
    driver.take(timels(2, 1))
    for k in range(4):
        data = make(start + k, weeks)
        splitter = StreamSplitter()
        (frame,) = splitter.feed(data)
        assert host_names(m.decode(frame)) == start + k
        if make is tp_of:
            driver.take(data)
            driver.pulse((9 + k) * SECOND)
        else:
            driver.pulse((9 + k) * SECOND)
            driver.take(data)
        flags, tai_s, *_ = driver.name()
    assert (flags & 1, tai_s) == (1, start + 3)


def test_years_beyond_the_next_rollover_stay() -> None:
    """2044-08-21 is the first week that ten bits cannot tell from FIRST_WEEK: full weeks stay as they are."""
    for week in (2348, 3371, 3372, 4000, 65_535):
        assert gpstime.unroll_week(week) == week
    assert [gpstime.unroll_week(week) for week in (0, 299, 300, 1023, 1024, 2347)] == [
        3072, 3371, 2348, 3071, 3072, 3371,
    ]  # fmt: skip
    assert naming.unroll_utc((2045, 1, 1, 0, 0, 0)) == ((2045, 1, 1, 0, 0, 0), 0)
    # 2016-12-31T23:59:60 and 1024 weeks: the label stays one of a leap second.
    assert naming.unroll_utc((2016, 12, 31, 23, 59, 60)) == ((2036, 8, 16, 23, 59, 60), 1)  # 7168 days
