# SPDX-License-Identifier: Apache-2.0
"""Messages of a GPS receiver as frozen records, decoded by pyubx2 and pynmeagps.

UBX fields as in the u-blox F9 TIM 2.20 interface description (UBX-21048598) and, where the M8 differs, the
u-blox 8/M8 protocol specification (UBX-13003221); NMEA 0183 as there. What a message says is passed on as it
came; whether to believe it is the clock's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pynmeagps import NMEAReader
from pyubx2 import UBX_MSGIDS, UBXReader

from twinstamp_gps.gpstime import gps_to_tai_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from twinstamp_gps.stream import Frame

ACK_NAK, ACK_ACK = (0x05, 0x00), (0x05, 0x01)
CFG_PRT, CFG_MSG, CFG_RATE, CFG_CFG = (0x06, 0x00), (0x06, 0x01), (0x06, 0x08), (0x06, 0x09)
CFG_TP5, CFG_TMODE2 = (0x06, 0x31), (0x06, 0x3D)
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
    def tai_s(self) -> int | None:
        """TAI second that the pulse marks; None in another time base than that of GPS, or off a second."""
        if self.utc_base or self.gnss not in ("GPS", "") or self.tow_ms % 1000 or self.tow_sub_ms_q32:
            return None
        return gps_to_tai_s(self.week, self.tow_ms // 1000)


@dataclass(frozen=True, kw_only=True)
class NavTimeGps:
    """UBX-NAV-TIMEGPS: GPS time of the solution. leap_s: GPS − UTC."""

    tow_ms: int
    week: int
    leap_s: int
    time_valid: bool
    leap_valid: bool


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
    """NMEA RMC. utc: as in NavPvt, None where the receiver knows none. valid: status A."""

    talker: str
    utc: tuple[int, int, int, int, int, int] | None
    valid: bool


@dataclass(frozen=True, kw_only=True)
class Zda:
    """NMEA ZDA: UTC, None where the receiver knows none."""

    talker: str
    utc: tuple[int, int, int, int, int, int] | None


@dataclass(frozen=True, kw_only=True)
class Gga:
    """NMEA GGA. quality: 0 is no fix. altitude_mm: above mean sea level, None without a fix."""

    talker: str
    quality: int
    satellites: int
    altitude_mm: int | None


@dataclass(frozen=True, kw_only=True)
class Other:
    """A whole message of another kind: name as pyubx2 or NMEA has it, and for UBX the message and payload."""

    name: str
    message: tuple[int, int]
    payload: bytes


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A frame with a right checksum whose contents are not what its kind must have. why: in words."""

    name: str
    why: str


Message = (
    NavPvt | TimTp | NavTimeGps | NavTimeLs | NavSat | Survey | Version | Ack | ConfigValues | Rmc | Zda | Gga
    | Other | Damaged
)  # fmt: skip


def decode(frame: Frame) -> Message:
    """The message in a frame; Damaged where its contents make no sense. Never raises for any bytes."""
    try:
        return _ubx(frame.data) if frame.kind == "ubx" else _nmea(frame.data)
    except Exception as error:  # pyubx2 and pynmeagps raise what they meet: no common base
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
        return Damaged(name=message_name(kind), why=f"{len(payload)} bytes of payload")
    if kind == NAV_PVT and len(payload) == 84:
        # Protocol 14 has no magnetic declination; pyubx2 knows only the longer form.
        padded = payload + bytes(8)
        return _nav_pvt(UBXReader.parse(_frame(kind, padded)))
    if kind not in _DECODERS:
        return Other(name=message_name(kind), message=kind, payload=payload)
    return _DECODERS[kind](UBXReader.parse(data), payload)


def _frame(kind: tuple[int, int], payload: bytes) -> bytes:
    from twinstamp_gps.encode import ubx

    return ubx(kind, payload)


def message_name(kind: tuple[int, int]) -> str:
    """The name of a UBX message, e.g. TIM-TP, or its numbers in hex."""
    return str(UBX_MSGIDS.get(bytes(kind), f"{kind[0]:02X} {kind[1]:02X}"))


def decode_name(frame: bytes) -> str:
    """The name of a UBX frame's message, as UBX-TIM-TP."""
    return f"UBX-{message_name((frame[2], frame[3]))}"


def _nav_pvt(m: Any, _: bytes = b"") -> NavPvt:
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
    return NavTimeGps(
        tow_ms=m.iTOW,
        week=m.week,
        leap_s=m.leapS,
        time_valid=bool(m.towValid and m.weekValid),
        leap_valid=bool(m.leapSValid),
    )


def _nav_timels(m: Any, _: bytes) -> NavTimeLs:
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
        return Damaged(name="NAV-SAT", why=f"{m.numSvs} satellites in {len(payload)} bytes of payload")
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
        return Damaged(name="MON-VER", why=f"{len(payload)} bytes of payload")
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


def _nmea(data: bytes) -> Message:
    head = data[1:].split(b",")[0].decode("ascii")
    name = head[-3:]
    if name not in ("RMC", "ZDA", "GGA") or head.startswith("P"):
        return Other(name=head, message=(0, 0), payload=data)
    m = NMEAReader.parse(data)
    fields = list(m.payload)
    # pynmeagps has no second 60, so times come from the fields as they were sent.
    if name == "RMC":
        date = fields[8]
        day = (_number(date[:2]), _number(date[2:4]), 2000 + _number(date[4:6])) if len(date) == 6 else None
        return Rmc(talker=m.talker, utc=_utc(fields[0], day), valid=fields[1] == "A")
    if name == "ZDA":
        day = (_number(fields[1]), _number(fields[2]), _number(fields[3])) if fields[3] else None
        return Zda(talker=m.talker, utc=_utc(fields[0], day))
    altitude = fields[8]
    return Gga(
        talker=m.talker,
        quality=_number(fields[5] or "0"),
        satellites=_number(fields[6] or "0"),
        altitude_mm=round(float(altitude) * 1000) if altitude else None,
    )


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is no number")
    return int(text)


def _utc(time: str, date: tuple[int, int, int] | None) -> tuple[int, int, int, int, int, int] | None:
    """date: (day, month, year). None where either is missing; ValueError for what is no time."""
    from twinstamp_gps.gpstime import utc_to_unix_s

    if not time or date is None:
        return None
    whole, _, fraction = time.partition(".")
    if len(whole) != 6 or (fraction and _number(fraction)):
        raise ValueError(f"time {time!r}: not hhmmss of a whole second")
    hour, minute, second = _number(whole[:2]), _number(whole[2:4]), _number(whole[4:])
    day, month, year = date
    utc_to_unix_s(year, month, day, hour, minute, second)
    return year, month, day, hour, minute, second
