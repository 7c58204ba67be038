# SPDX-License-Identifier: Apache-2.0
"""Messages of a GPS receiver as frozen records; UBX decoded by pyubx2.

UBX fields as in the u-blox F9 TIM 2.20 interface description (UBX-21048598) and, where the M8 differs, the
u-blox 8/M8 protocol specification (UBX-13003221); NMEA 0183 as there. What a message says is passed on as it
came, weeks and dates included: see twinstamp_gps.naming for what a clock makes of it. ``reason``, where a
record has it: why it names no second, one of twinstamp_gps.stream.REASONS, "" where it does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyubx2 import UBX_MSGIDS, UBXReader

from twinstamp_gps.frame import ubx
from twinstamp_gps.gpstime import WEEK_S, gps_to_tai_s, utc_to_unix_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from twinstamp_gps.stream import Frame

ACK_NAK, ACK_ACK = (0x05, 0x00), (0x05, 0x01)
CFG_PRT, CFG_MSG, CFG_RATE, CFG_CFG = (0x06, 0x00), (0x06, 0x01), (0x06, 0x08), (0x06, 0x09)
CFG_NAV5, CFG_TP5, CFG_TMODE2 = (0x06, 0x24), (0x06, 0x31), (0x06, 0x3D)
CFG_VALSET, CFG_VALGET = (0x06, 0x8A), (0x06, 0x8B)
MON_VER = (0x0A, 0x04)
NAV_PVT, NAV_TIMEGPS, NAV_TIMELS = (0x01, 0x07), (0x01, 0x20), (0x01, 0x26)
NAV_SAT, NAV_SVIN = (0x01, 0x35), (0x01, 0x3B)
TIM_TP, TIM_SVIN = (0x0D, 0x01), (0x0D, 0x04)

# Payload bytes of messages with one length. NAV-PVT has 84 from protocol 14, 92 from 15.01.
_LENGTHS = {
    ACK_NAK: (2,), ACK_ACK: (2,), NAV_PVT: (84, 92), NAV_TIMEGPS: (16,), NAV_TIMELS: (24,), NAV_SVIN: (40,),
    TIM_TP: (16,), TIM_SVIN: (28,),
}  # fmt: skip

MAX_READ = 256  # characters of an RMC, ZDA or GGA with its line end; the firmware has no more room
_MOST_TOW_MS = 1000 * WEEK_S - 1
_WHOLE_NS = 500_000  # a solution as near to a second is that second's

FIX_TYPES = ("none", "dead reckoning", "2D", "3D", "3D with dead reckoning", "time only")
GNSS = {0: "GPS", 1: "GLONASS", 2: "BeiDou", 3: "Galileo", 15: "unknown"}  # TIM-TP, timeRefGnss


@dataclass(frozen=True, kw_only=True)
class NavPvt:
    """UBX-NAV-PVT: the navigation solution; sent after the pulse of its second.

    tow_ms: GPS time of week. utc: (year, month, day, hour, minute, second), second 60 in a leap second.
    nano_ns: −10⁹ to 10⁹, to be added to utc. valid_date, valid_time, fully_resolved: of utc; confirmed_*:
    also by other means. Position in 10⁻⁷ degrees and mm. time_accuracy_ns and others: the receiver's own
    estimates.
    """

    tow_ms: int
    utc: tuple[int, int, int, int, int, int]
    nano_ns: int
    valid_date: bool
    valid_time: bool
    fully_resolved: bool
    confirmed_date: bool
    confirmed_time: bool
    time_accuracy_ns: int
    fix_type: int
    fix_ok: bool
    satellites: int
    longitude_e7: int
    latitude_e7: int
    height_mm: int
    height_msl_mm: int
    horizontal_accuracy_mm: int
    vertical_accuracy_mm: int

    @property
    def fixed(self) -> bool:
        """With a fix that has a time: neither none nor dead reckoning alone."""
        return self.fix_ok and 2 <= self.fix_type <= 5

    @property
    def reason(self) -> str:
        if not (self.valid_date and self.valid_time and self.fully_resolved and self.fixed):
            return "not_valid"
        return "fraction" if self.off_second else ""

    @property
    def off_second(self) -> bool:
        """Half a millisecond or more from a whole second."""
        return abs(self.nano_ns) >= _WHOLE_NS


@dataclass(frozen=True, kw_only=True)
class TimTp:
    """UBX-TIM-TP: what the *next* pulse marks; sent before it.

    tow_ms, tow_sub_ms_q32 (2⁻³² ms), week: time of that pulse, in GPS time or, where utc_base, in UTC.
    qerr_ps: to be added to the pulse's edge: the pulse comes qerr_ps before the instant it stands for
    (docs/decisions/0090-qerr-sign.md). gnss: which system's time, "" in the UTC base.
    """

    tow_ms: int
    tow_sub_ms_q32: int
    qerr_ps: int
    qerr_valid: bool
    week: int
    utc_base: bool
    utc_available: bool
    raim: int
    gnss: str
    utc_standard: int

    @property
    def second(self) -> tuple[int, int] | None:
        """(week, second of it) next to the pulse in its own time base; None where it is 1 ms off."""
        whole, rest = divmod(self.tow_ms, 1000)
        if rest == 999 and self.tow_sub_ms_q32:
            whole += 1
        elif rest:
            return None
        return self.week + whole // WEEK_S, whole % WEEK_S

    @property
    def gps_base(self) -> bool:
        """In GPS time, or in Galileo's, which is steered to it and comes with GPS's week."""
        return not self.utc_base and self.gnss in ("GPS", "Galileo")

    @property
    def tai_s(self) -> int | None:
        """TAI second that the pulse marks, by the week as it came; None in another time base than that of
        GPS, or off a second. What a clock makes of it: twinstamp_gps.naming.pulse_tai_s.
        """
        if not self.gps_base or self.tow_ms % 1000 or self.tow_sub_ms_q32:
            return None
        return gps_to_tai_s(self.week, self.tow_ms // 1000)

    @property
    def reason(self) -> str:
        if self.second is None:
            return "fraction"
        return "" if self.gps_base or (self.utc_base and self.utc_available) else "time_base"


@dataclass(frozen=True, kw_only=True)
class NavTimeGps:
    """UBX-NAV-TIMEGPS: GPS time of the solution. leap_s: GPS − UTC."""

    tow_ms: int
    week: int
    leap_s: int
    time_valid: bool
    leap_valid: bool

    @property
    def reason(self) -> str:
        return "" if self.leap_valid else "not_valid"


@dataclass(frozen=True, kw_only=True)
class NavTimeLs:
    """UBX-NAV-TIMELS: leap seconds. leap_s: GPS − UTC now (18 since 2017). change_s: at the next event, −1, 0
    or 1; time_to_event_s: until it, or since it where negative. week, day: of the event, day 1 is Sunday.
    """

    tow_ms: int
    leap_s: int
    leap_valid: bool
    source: int
    change_s: int
    time_to_event_s: int
    event_valid: bool
    event_week: int
    event_day: int

    @property
    def known(self) -> bool:
        """Whether leap_s came from satellites: source 0 is the firmware's own, 255 nothing."""
        return self.leap_valid and self.source not in (0, 255)

    @property
    def reason(self) -> str:
        return "" if self.known else "not_valid"


@dataclass(frozen=True, kw_only=True)
class NavSat:
    """UBX-NAV-SAT in short: satellites in view, used, and signals of those used in dB·Hz, strongest first."""

    tow_ms: int
    in_view: int
    used: int
    cn0_dbhz: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Survey:
    """UBX-NAV-SVIN (F9T) and UBX-TIM-SVIN (M8T): the survey-in. accuracy_mm: of the mean position."""

    duration_s: int
    accuracy_mm: int
    observations: int
    valid: bool
    active: bool


@dataclass(frozen=True, kw_only=True)
class Version:
    """UBX-MON-VER. module: of the extension MOD=, "" without one. protocol: of PROTVER, "" without one."""

    software: str
    hardware: str
    extensions: tuple[str, ...]
    module: str
    protocol: str


@dataclass(frozen=True, kw_only=True)
class Ack:
    """UBX-ACK-ACK or -NAK: whether a CFG message was taken."""

    message: tuple[int, int]
    accepted: bool


@dataclass(frozen=True, kw_only=True)
class ConfigValues:
    """UBX-CFG-VALGET, the answer: value by key name (pyubx2's, e.g. CFG_TP_PERIOD_TP1)."""

    values: dict[str, int | float]


@dataclass(frozen=True, kw_only=True)
class Rmc:
    """NMEA RMC. utc: as in NavPvt, None where the receiver gives none; of two-digit years the ones from 1980
    to 2079. nano_ns: the fraction of its second, cut to ns. valid: status A or D, and a mode (NMEA 2.3) that
    is a fix.
    """

    talker: str
    utc: tuple[int, int, int, int, int, int] | None
    nano_ns: int = 0
    valid: bool

    @property
    def reason(self) -> str:
        return "not_valid" if not self.valid or self.utc is None else "fraction" if self.nano_ns else ""


@dataclass(frozen=True, kw_only=True)
class Zda:
    """NMEA ZDA: UTC, None where the receiver gives none. It does not say whether there is a fix."""

    talker: str
    utc: tuple[int, int, int, int, int, int] | None
    nano_ns: int = 0

    @property
    def reason(self) -> str:
        return "not_valid" if self.utc is None else "fraction" if self.nano_ns else ""


@dataclass(frozen=True, kw_only=True)
class Gga:
    """NMEA GGA. quality: 0 is no fix. altitude_mm: above mean sea level. None: not given, or no number."""

    talker: str
    quality: int | None
    satellites: int | None
    altitude_mm: int | None

    @property
    def valid(self) -> bool | None:
        """Whether it is a fix: not estimated, set by hand or simulated. None: it does not say."""
        return None if self.quality is None else self.quality not in (0, 6, 7, 8)


@dataclass(frozen=True, kw_only=True)
class Other:
    """A whole message of another kind: name as pyubx2, NMEA or RTCM has it, and for UBX the message and
    payload, for others the whole.
    """

    name: str
    message: tuple[int, int]
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A frame with a right checksum whose contents are not what its kind must have. why: in words."""

    name: str
    why: str
    reason: str = "bad_value"


Message = (
    NavPvt | TimTp | NavTimeGps | NavTimeLs | NavSat | Survey | Version | Ack | ConfigValues | Rmc | Zda | Gga
    | Other | Damaged
)  # fmt: skip


def decode(frame: Frame) -> Message:
    """The message in a frame; Damaged where its contents make no sense. Never raises for any bytes."""
    if frame.kind == "rtcm":
        number = int.from_bytes(frame.data[3:5], "big") >> 4
        name = f"RTCM {number}" if len(frame.data) >= 8 else "RTCM"
        return Other(name=name, message=(0, 0), payload=frame.data)
    try:
        return _ubx(frame.data) if frame.kind == "ubx" else _nmea(frame.data)
    except Exception as error:  # pyubx2 raises what it meets: no common base
        name = frame.data[2:4].hex() if frame.kind == "ubx" else frame.data[1:6].decode("ascii", "replace")
        return Damaged(name=name, why=f"{type(error).__name__}: {error}"[:200])


def _text(value: bytes | str) -> str:
    raw = value if isinstance(value, bytes) else value.encode("latin-1", "replace")
    return "".join(chr(c) for c in raw.split(b"\0")[0] if 0x20 <= c <= 0x7E)


def _ubx(data: bytes) -> Message:
    kind = (data[2], data[3])
    payload = data[6:-2]
    expected = _LENGTHS.get(kind)
    if expected is not None and len(payload) not in expected:
        return _wrong_length(message_name(kind), payload)
    if kind == NAV_PVT and len(payload) == 84:
        # Protocol 14 has no magnetic declination; pyubx2 knows only the longer form.
        padded = payload + bytes(8)
        return _nav_pvt(UBXReader.parse(ubx(kind, padded)))
    if kind not in _DECODERS:
        return Other(name=message_name(kind), message=kind, payload=payload)
    return _DECODERS[kind](UBXReader.parse(data), payload)


def _wrong_length(name: str, payload: bytes) -> Damaged:
    return Damaged(name=name, why=f"{len(payload)} bytes of payload", reason="bad_length")


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} is {value}")


def message_name(kind: tuple[int, int]) -> str:
    """The name of a UBX message, e.g. TIM-TP, or its numbers in hex."""
    return str(UBX_MSGIDS.get(bytes(kind), f"{kind[0]:02X} {kind[1]:02X}"))


def decode_name(frame: bytes) -> str:
    """The name of a UBX frame's message, as UBX-TIM-TP."""
    return f"UBX-{message_name((frame[2], frame[3]))}"


def _nav_pvt(m: Any, _: bytes = b"") -> NavPvt:
    _within("iTOW", m.iTOW, 0, _MOST_TOW_MS)
    _within("nano", m.nano, -(10**9), 10**9)
    if m.validDate and m.validTime:
        _possible(m.year, m.month, m.day, m.hour, m.min, m.second)
    return NavPvt(
        tow_ms=m.iTOW,
        utc=(m.year, m.month, m.day, m.hour, m.min, m.second),
        nano_ns=m.nano,
        valid_date=bool(m.validDate),
        valid_time=bool(m.validTime),
        fully_resolved=bool(m.fullyResolved),
        confirmed_date=bool(m.confirmedDate),
        confirmed_time=bool(m.confirmedTime),
        time_accuracy_ns=m.tAcc,
        fix_type=m.fixType,
        fix_ok=bool(m.gnssFixOk),
        satellites=m.numSV,
        longitude_e7=round(m.lon * 1e7),
        latitude_e7=round(m.lat * 1e7),
        height_mm=m.height,
        height_msl_mm=m.hMSL,
        horizontal_accuracy_mm=m.hAcc,
        vertical_accuracy_mm=m.vAcc,
    )


def _tim_tp(m: Any, payload: bytes) -> TimTp:
    _within("towMS", m.towMS, 0, _MOST_TOW_MS)
    return TimTp(
        tow_ms=m.towMS,
        tow_sub_ms_q32=int.from_bytes(payload[4:8], "little"),  # pyubx2 makes a rounded float of it
        qerr_ps=m.qErr,
        qerr_valid=not m.qErrInvalid,
        week=m.week,
        utc_base=bool(m.timeBase),
        utc_available=bool(m.utc),
        raim=m.raim,
        gnss="" if m.timeBase else GNSS.get(m.timeRefGnss, "unknown"),
        utc_standard=m.utcStandard,
    )


def _nav_timegps(m: Any, _: bytes) -> NavTimeGps:
    _within("iTOW", m.iTOW, 0, _MOST_TOW_MS)
    _within("leapS", m.leapS, 0, 99)
    return NavTimeGps(
        tow_ms=m.iTOW,
        week=m.week,
        leap_s=m.leapS,
        time_valid=bool(m.towValid and m.weekValid),
        leap_valid=bool(m.leapSValid),
    )


def _nav_timels(m: Any, _: bytes) -> NavTimeLs:
    _within("currLs", m.currLs, 0, 99)
    _within("lsChange", m.lsChange, -1, 1)
    return NavTimeLs(
        tow_ms=m.iTOW,
        leap_s=m.currLs,
        leap_valid=bool(m.validCurrLs),
        source=m.srcOfCurrLs,
        change_s=m.lsChange,
        time_to_event_s=m.timeToLsEvent,
        event_valid=bool(m.validTimeToLsEvent),
        event_week=m.dateOfLsGpsWn,
        event_day=m.dateOfLsGpsDn,
    )


def _nav_sat(m: Any, payload: bytes) -> Message:
    if len(payload) != 8 + 12 * m.numSvs:
        why = f"{m.numSvs} satellites in {len(payload)} bytes of payload"
        return Damaged(name="NAV-SAT", why=why, reason="bad_length")
    used = [i for i in range(1, m.numSvs + 1) if getattr(m, f"svUsed_{i:02d}")]
    cn0 = sorted((getattr(m, f"cno_{i:02d}") for i in used), reverse=True)
    return NavSat(tow_ms=m.iTOW, in_view=m.numSvs, used=len(used), cn0_dbhz=tuple(cn0))


def _nav_svin(m: Any, _: bytes) -> Survey:
    return Survey(
        duration_s=m.dur,
        accuracy_mm=m.meanAcc // 10,  # in 0.1 mm
        observations=m.obs,
        valid=bool(m.valid),
        active=bool(m.active),
    )


def _tim_svin(m: Any, _: bytes) -> Survey:
    return Survey(
        duration_s=m.dur,
        accuracy_mm=round(m.meanV**0.5),  # a variance, mm²
        observations=m.obs,
        valid=bool(m.valid),
        active=bool(m.active),
    )


def _mon_ver(m: Any, payload: bytes) -> Message:
    if len(payload) < 40 or (len(payload) - 40) % 30:
        return _wrong_length("MON-VER", payload)
    count = (len(payload) - 40) // 30
    extensions = tuple(_text(payload[40 + 30 * i : 70 + 30 * i]) for i in range(count))
    tags = dict(text.replace(" ", "=", 1).split("=", 1) for text in extensions if "=" in text or " " in text)
    return Version(
        software=_text(m.swVersion),
        hardware=_text(m.hwVersion),
        extensions=extensions,
        module=tags.get("MOD", ""),
        protocol=tags.get("PROTVER", ""),
    )


def _ack(m: Any, _: bytes) -> Ack:
    return Ack(message=(m.clsID, m.msgID), accepted=m.identity == "ACK-ACK")


def _valget(m: Any, _: bytes) -> ConfigValues:
    values = {name: value for name, value in vars(m).items() if name.startswith("CFG_")}
    return ConfigValues(values=values)


_DECODERS: dict[tuple[int, int], Callable[[Any, bytes], Message]] = {
    NAV_PVT: _nav_pvt, TIM_TP: _tim_tp, NAV_TIMEGPS: _nav_timegps, NAV_TIMELS: _nav_timels, NAV_SAT: _nav_sat,
    NAV_SVIN: _nav_svin, TIM_SVIN: _tim_svin, MON_VER: _mon_ver, ACK_ACK: _ack, ACK_NAK: _ack,
    CFG_VALGET: _valget,
}  # fmt: skip


_SENTENCE = re.compile(r"\$([A-OQ-Z0-9][A-Z0-9])(RMC|ZDA|GGA),(.*)\*..\r*\n", re.DOTALL)


def _nmea(data: bytes) -> Message:
    text = data.decode("ascii")
    # Any talker, but nobody's own sentences ($P...).
    found = _SENTENCE.fullmatch(text)
    if found is None:
        return Other(name=re.split("[,*]", text[1:])[0], message=(0, 0), payload=data)
    talker, name, body = found.groups()
    if len(data) > MAX_READ:
        return Damaged(name=talker + name, why=f"{len(data)} characters", reason="too_long")
    fields = body.split(",")
    fields += [""] * (12 - len(fields))
    if name == "RMC":
        return _rmc(talker, fields)
    if name == "ZDA":
        time, *date = fields[:4]
        utc, nano_ns = (
            _utc(time, _digits(date[2], 4), _digits(date[1], 2), _digits(date[0], 2))
            if time and all(date)
            else (None, 0)
        )
        return Zda(talker=talker, utc=utc, nano_ns=nano_ns)
    quality, satellites, altitude = fields[5], fields[6], fields[8]
    return Gga(
        talker=talker,
        quality=int(quality) if re.fullmatch("[0-9]", quality) else None,
        satellites=int(satellites) if re.fullmatch("[0-9]{1,3}", satellites) else None,
        altitude_mm=round(float(altitude) * 1000)
        if re.fullmatch(r"-?[0-9]{1,9}(\.[0-9]*)?", altitude)
        else None,
    )


def _rmc(talker: str, fields: list[str]) -> Rmc:
    time, status, date, mode = fields[0], fields[1], fields[8], fields[11]
    valid = status in ("A", "D") and mode not in ("N", "E", "M", "S")
    if not time or not date:
        return Rmc(talker=talker, utc=None, valid=valid)
    try:
        year = _digits(date[4:], 2)
        year += 1900 if year >= 80 else 2000
        utc, nano_ns = _utc(time, year, _digits(date[2:4], 2), _digits(date[:2], 2))
    except ValueError:
        if valid:
            raise
        return Rmc(talker=talker, utc=None, valid=False)  # as it says itself
    return Rmc(talker=talker, utc=utc, nano_ns=nano_ns, valid=valid)


def _digits(text: str, count: int) -> int:
    if not (len(text) == count and text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r}: not {count} digits")
    return int(text)


def _possible(year: int, month: int, day: int, hour: int, minute: int, second: int) -> None:
    """ValueError for what is no second of UTC from 1980 to 2199; a leap second is the last of its day."""
    _within("year", year, 1980, 2199)
    if second == 60 and (hour, minute) != (23, 59):
        raise ValueError(f"second 60 at {hour:02d}:{minute:02d}")
    utc_to_unix_s(year, month, day, hour, minute, second)


def _utc(time: str, year: int, month: int, day: int) -> tuple[tuple[int, int, int, int, int, int], int]:
    """(UTC, fraction in ns, cut) of hhmmss or hhmmss.f…; ValueError for what is no time."""
    whole, _, fraction = time.partition(".")
    if not re.fullmatch("[0-9]*", fraction):
        raise ValueError(f"time {time!r}: not hhmmss with a fraction")
    hour, minute, second = _digits(whole[:2], 2), _digits(whole[2:4], 2), _digits(whole[4:], 2)
    _possible(year, month, day, hour, minute, second)
    # Less than 1 ns is a fraction, too.
    nano_ns = int(fraction[:9].ljust(9, "0")) or int(bool(fraction.strip("0")))
    return (year, month, day, hour, minute, second), nano_ns
