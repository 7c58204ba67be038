# SPDX-License-Identifier: Apache-2.0
"""What a simulated u-blox receiver is set to: how its CFG messages change that, tell it and keep it.

Written from the interface descriptions, apart from configure.py: what that module does not send is not set
here. F9T: items by UBX-CFG-VALSET and -VALGET, in RAM, battery-backed RAM and flash (F9 TIM 2.20,
UBX-21048598, §5 and §6). M8T: UBX-CFG-TP5, -RATE, -NAV5, -TMODE2, -MSG, -PRT, -CFG (UBX-13003221, §32.10).
Commands come in at UART1. What would not be simulated (other rates, other items) is refused with ACK-NAK.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pyubx2.ubxhelpers import cfgkey2name, cfgname2key

from twinstamp_gps import messages as m
from twinstamp_gps.frame import ubx

if TYPE_CHECKING:
    from twinstamp_gps.configure import TimingSettings

Kind = tuple[int, int]

UBX_OUT = {
    m.NAV_PVT: "NAV_PVT", m.NAV_TIMEGPS: "NAV_TIMEGPS", m.NAV_TIMELS: "NAV_TIMELS", m.NAV_SAT: "NAV_SAT",
    m.NAV_SVIN: "NAV_SVIN", m.TIM_SVIN: "TIM_SVIN", m.TIM_TP: "TIM_TP",
}  # fmt: skip
# Identifiers in class F0, and the rates as delivered.
NMEA_IDS = {
    "DTM": 10, "GBS": 9, "GGA": 0, "GLL": 1, "GNS": 13, "GRS": 6, "GSA": 2, "GST": 7, "GSV": 3, "RMC": 4,
    "VLW": 15, "VTG": 5, "ZDA": 8,
}  # fmt: skip
_FACTORY_NMEA = {name: int(name in ("GGA", "GLL", "GSA", "GSV", "RMC", "VTG")) for name in NMEA_IDS}
_PORTS = ("UART1", "UART2", "USB")
_STATIONARY, _PORTABLE = 2, 0
_SURVEY, _FIXED = 1, 2


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What the settings mean for pulses and messages of UART1.

    ubx, nmea: rate per message. baud. hears: UBX is read there. pulse_us, unlocked_us: length of the pulse
    with GNSS time and without; 0: none. delay_ns: user delay less what is compensated for the antenna's
    cable. rising: edge at the second. aligned: to the second. utc_grid: of UTC, else of GPS.
    time_reference: of solutions, 0 UTC, 1 GPS. dynamic_model: 0 portable, 2 stationary. mode: 0 off,
    1 survey-in, 2 fixed; survey_s, survey_mm: both to be reached. position: (latitude,
    longitude in 10⁻⁷ degrees, height in mm) that is held in mode 2.
    """

    ubx: dict[Kind, int]
    nmea: dict[str, int]
    baud: int
    hears: bool
    pulse_us: int
    unlocked_us: int
    delay_ns: int
    rising: bool
    aligned: bool
    utc_grid: bool
    time_reference: int
    dynamic_model: int
    mode: int
    survey_s: int
    survey_mm: int
    position: tuple[int, int, int]


class ReceiverSettings(Protocol):
    """Settings of one model."""

    def answer(self, kind: Kind, payload: bytes) -> bool | bytes:
        """To a CFG message: False refused, True taken, or the frame that is sent before the ACK."""
        ...

    def effect(self) -> Effect: ...

    def settle(self, settings: TimingSettings) -> None:
        """As docs/receiver.md says that `twinstamp clock configure` leaves it."""
        ...

    def restart(self) -> None:
        """Power comes back: what was not kept is as delivered."""
        ...


def _sentences(nmea: bool) -> dict[str, int]:
    """Rates as `twinstamp clock configure` leaves them."""
    return {name: int(nmea and name in ("RMC", "ZDA", "GGA")) for name in NMEA_IDS}


# F9T. Items that change what is simulated, or that receivers share, as delivered.
_ITEMS = {
    "CFG_TP_PULSE_DEF": 0, "CFG_TP_PULSE_LENGTH_DEF": 1, "CFG_TP_PERIOD_TP1": 1_000_000,
    "CFG_TP_PERIOD_LOCK_TP1": 1_000_000, "CFG_TP_LEN_TP1": 0, "CFG_TP_LEN_LOCK_TP1": 100_000,
    "CFG_TP_SYNC_GNSS_TP1": 1, "CFG_TP_USE_LOCKED_TP1": 1, "CFG_TP_ALIGN_TO_TOW_TP1": 1, "CFG_TP_POL_TP1": 1,
    "CFG_TP_TIMEGRID_TP1": 0, "CFG_TP_ANT_CABLEDELAY": 50, "CFG_TP_USER_DELAY_TP1": 0, "CFG_TP_TP1_ENA": 1,
    "CFG_RATE_MEAS": 1000, "CFG_RATE_NAV": 1, "CFG_RATE_TIMEREF": 1, "CFG_NAVSPG_DYNMODEL": 2,
    "CFG_TMODE_MODE": 0, "CFG_TMODE_POS_TYPE": 0, "CFG_TMODE_LAT": 0, "CFG_TMODE_LAT_HP": 0,
    "CFG_TMODE_LON": 0, "CFG_TMODE_LON_HP": 0, "CFG_TMODE_HEIGHT": 0, "CFG_TMODE_HEIGHT_HP": 0,
    "CFG_TMODE_FIXED_POS_ACC": 0, "CFG_TMODE_SVIN_MIN_DUR": 0, "CFG_TMODE_SVIN_ACC_LIMIT": 0,
    "CFG_UART1_BAUDRATE": 38400, "CFG_UART2_BAUDRATE": 38400, "CFG_UART1INPROT_UBX": 1,
    **{f"CFG_{port}OUTPROT_{protocol}": 1 for port in _PORTS for protocol in ("UBX", "NMEA")},
    **{f"CFG_MSGOUT_UBX_{name}_{port}": 0 for name in UBX_OUT.values() for port in _PORTS},
    **{f"CFG_MSGOUT_NMEA_ID_{name}_{port}": r for name, r in _FACTORY_NMEA.items() for port in _PORTS},
}  # fmt: skip
_ONE_A_SECOND = {
    "CFG_TP_PULSE_DEF": 0, "CFG_TP_PULSE_LENGTH_DEF": 1, "CFG_TP_PERIOD_TP1": 1_000_000,
    "CFG_TP_PERIOD_LOCK_TP1": 1_000_000, "CFG_RATE_MEAS": 1000, "CFG_RATE_NAV": 1,
}  # fmt: skip
_ITEM_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}  # by bits 28 to 30 of the key


class F9tSettings:
    """Items of a ZED-F9T."""

    def __init__(self) -> None:
        self.ram = dict(_ITEMS)
        self._kept: tuple[dict[str, int], dict[str, int]] = {}, {}  # battery-backed RAM, flash

    def answer(self, kind: Kind, payload: bytes) -> bool | bytes:
        if kind == m.CFG_VALGET:
            return self._get(payload)
        return kind == m.CFG_VALSET and self._set(payload)

    def _get(self, payload: bytes) -> bool | bytes:
        if len(payload) < 8 or len(payload) % 4 or len(payload) > 4 + 4 * 64:
            return False
        layer = {0: self.ram, 1: self._kept[0], 2: self._kept[1], 7: _ITEMS}.get(payload[1], {})
        values = b""
        for at in range(4, len(payload), 4):
            key = int.from_bytes(payload[at : at + 4], "little")
            value = layer.get(_name(key))
            if value is None:
                return False
            size = _ITEM_BYTES[key >> 28 & 7]
            values += payload[at : at + 4] + (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        return ubx(m.CFG_VALGET, b"\1" + payload[1:4] + values)

    def _set(self, payload: bytes) -> bool:
        if len(payload) <= 4 or payload[0] != 0 or not payload[1] & 7:  # version, layers
            return False
        items: dict[str, int] = {}
        at = 4
        while at < len(payload):
            key = int.from_bytes(payload[at : at + 4], "little")
            name, size = _name(key), _ITEM_BYTES.get(key >> 28 & 7, 0)
            if not name or at + 4 + size > len(payload):
                return False
            signed = str(cfgname2key(name)[1]).startswith("I")
            items[name] = int.from_bytes(payload[at + 4 : at + 4 + size], "little", signed=signed)
            at += 4 + size
        if len(items) > 64 or any(items.get(name, value) != value for name, value in _ONE_A_SECOND.items()):
            return False
        for bit, layer in enumerate((self.ram, *self._kept)):
            if payload[1] >> bit & 1:
                layer.update(items)
        return True

    def restart(self) -> None:
        self.ram = _ITEMS | self._kept[1] | self._kept[0]

    def effect(self) -> Effect:
        i = self.ram
        ubx_on, nmea_on = i["CFG_UART1OUTPROT_UBX"], i["CFG_UART1OUTPROT_NMEA"]
        locked_us = i["CFG_TP_LEN_LOCK_TP1"] if i["CFG_TP_USE_LOCKED_TP1"] else i["CFG_TP_LEN_TP1"]
        unlocked_us = i["CFG_TP_LEN_TP1"] * i["CFG_TP_TP1_ENA"]
        return Effect(
            ubx={kind: ubx_on * i[f"CFG_MSGOUT_UBX_{name}_UART1"] for kind, name in UBX_OUT.items()},
            nmea={name: nmea_on * i[f"CFG_MSGOUT_NMEA_ID_{name}_UART1"] for name in NMEA_IDS},
            baud=i["CFG_UART1_BAUDRATE"],
            hears=bool(i["CFG_UART1INPROT_UBX"]),
            pulse_us=locked_us * i["CFG_TP_TP1_ENA"] if i["CFG_TP_SYNC_GNSS_TP1"] else unlocked_us,
            unlocked_us=unlocked_us,
            delay_ns=i["CFG_TP_USER_DELAY_TP1"] - i["CFG_TP_ANT_CABLEDELAY"],
            rising=bool(i["CFG_TP_POL_TP1"]),
            aligned=bool(i["CFG_TP_ALIGN_TO_TOW_TP1"]),
            utc_grid=i["CFG_TP_TIMEGRID_TP1"] == 0,
            time_reference=i["CFG_RATE_TIMEREF"],
            dynamic_model=i["CFG_NAVSPG_DYNMODEL"],
            mode=i["CFG_TMODE_MODE"],
            survey_s=i["CFG_TMODE_SVIN_MIN_DUR"],
            survey_mm=i["CFG_TMODE_SVIN_ACC_LIMIT"] // 10,
            position=(
                i["CFG_TMODE_LAT"],
                i["CFG_TMODE_LON"],
                10 * i["CFG_TMODE_HEIGHT"] + round(i["CFG_TMODE_HEIGHT_HP"] / 10),
            ),
        )

    def settle(self, settings: TimingSettings) -> None:
        s = settings
        port = s.port.upper()
        rates = {"TIM_TP": 1, "NAV_PVT": 1, "NAV_TIMELS": 1, "NAV_TIMEGPS": 1, "NAV_SAT": 5}
        rates["NAV_SVIN"] = int(s.mode == "survey")
        items = {
            "CFG_TP_SYNC_GNSS_TP1": 1, "CFG_TP_USE_LOCKED_TP1": 1, "CFG_TP_ALIGN_TO_TOW_TP1": 1,
            "CFG_TP_POL_TP1": 1, "CFG_TP_TP1_ENA": 1, "CFG_RATE_TIMEREF": 1, f"CFG_{port}OUTPROT_UBX": 1,
            "CFG_TP_LEN_TP1": 0, "CFG_TP_LEN_LOCK_TP1": s.pulse_us, "CFG_TP_TIMEGRID_TP1": 1,
            "CFG_TP_ANT_CABLEDELAY": s.cable_delay_ns, "CFG_TP_USER_DELAY_TP1": 0,
            "CFG_NAVSPG_DYNMODEL": _PORTABLE if s.mode == "moving" else _STATIONARY,
            "CFG_TMODE_MODE": {"moving": 0, "survey": _SURVEY, "fixed": _FIXED}[s.mode],
            f"CFG_{port}OUTPROT_NMEA": int(s.nmea),
            **{f"CFG_MSGOUT_UBX_{name}_{port}": rate for name, rate in rates.items()},
            **{f"CFG_MSGOUT_NMEA_ID_{name}_{port}": rate for name, rate in _sentences(s.nmea).items()},
        }  # fmt: skip
        if s.mode == "survey":
            items["CFG_TMODE_SVIN_MIN_DUR"] = s.survey_s
            items["CFG_TMODE_SVIN_ACC_LIMIT"] = 10 * s.survey_accuracy_mm
        if s.mode == "fixed":
            height_cm = int(s.height_mm / 10)  # towards 0: the rest has the same sign
            items |= {
                "CFG_TMODE_POS_TYPE": 1, "CFG_TMODE_LAT": s.latitude_e7, "CFG_TMODE_LON": s.longitude_e7,
                "CFG_TMODE_LAT_HP": 0, "CFG_TMODE_LON_HP": 0,
                "CFG_TMODE_HEIGHT": height_cm, "CFG_TMODE_HEIGHT_HP": 10 * (s.height_mm - 10 * height_cm),
                "CFG_TMODE_FIXED_POS_ACC": 10 * s.position_accuracy_mm,
            }  # fmt: skip
        if s.baud is not None and s.port != "usb":
            items[f"CFG_{port}_BAUDRATE"] = s.baud
        for layer in (self.ram, *self._kept) if s.save else (self.ram,):
            layer.update(items)


def _name(key: int) -> str:
    """Of an item that is simulated; "" for another."""
    try:
        name = str(cfgkey2name(key)[0])
    except Exception:  # pyubx2 raises what it meets for a key that is none
        return ""
    return name if name in _ITEMS else ""


# M8T. Layouts of UBX-13003221 §32.10.26 (TP5), .24 (RATE), .16 (NAV5), .30 (TMODE2), .22 (PRT).
_TP5, _TMODE2, _PRT = (
    struct.Struct("<BB2xhhIIIIiI"),
    struct.Struct("<BxHiiiIII"),
    struct.Struct("<BxHIIHHH2x"),
)
_RATE = struct.Struct("<HHH")
_8N1 = 0x08D0
# Fields of NAV5, (first byte, size), by the bit of its mask that lets them in.
_NAV5_PARTS = {
    0: ((2, 1),), 1: ((12, 1),), 2: ((3, 1), (4, 4), (8, 4)), 3: ((13, 1),), 4: ((14, 2), (18, 2)),
    5: ((16, 2), (20, 2)), 6: ((22, 1), (28, 2)), 7: ((23, 1),), 8: ((24, 2),), 10: ((30, 1),),
}  # fmt: skip
_ACTIVE, _LOCK_GNSS, _LOCKED_OTHER, _FREQUENCY, _LENGTH, _ALIGN, _RISING = (1 << bit for bit in range(7))
_GRID_GPS = 1 << 7
# Sections of CFG-CFG by bit (§32.10.3 and "Organization of the configuration sections").
_SECTION = {m.CFG_PRT: 0, m.CFG_MSG: 1, m.CFG_RATE: 3, m.CFG_NAV5: 3, m.CFG_TMODE2: 3, m.CFG_TP5: 4}
_UART1, _RATES = 1, 6  # place of the port among the six rates of CFG-MSG


def _m8t_factory() -> dict[tuple[Kind, Kind], bytes]:
    """By message, and message or port that it is about: 50 ns of antenna cable, UTC grid, portable."""
    none = (0, 0)
    flags = _ACTIVE | _LOCK_GNSS | _LOCKED_OTHER | _LENGTH | _ALIGN | _RISING
    nav5 = struct.pack("<HBBiIbBHHHHBBBBxxHBxxxxx", 0xFFFF, _PORTABLE, 3, 0, 10_000, 5, 0, 250, 250, 100, 350,
                       0, 60, 0, 0, 0, 0)  # fmt: skip
    rates = {(0xF0, NMEA_IDS[name]): rate for name, rate in _FACTORY_NMEA.items()}
    return {
        (m.CFG_TP5, none): _TP5.pack(0, 1, 50, 0, 1_000_000, 1_000_000, 0, 100_000, 0, flags),
        (m.CFG_RATE, none): _RATE.pack(1000, 1, 1),
        (m.CFG_NAV5, none): nav5,
        (m.CFG_TMODE2, none): bytes(28),
        **{(m.CFG_PRT, (port, 0)): _PRT.pack(port, 0, _8N1, 9600, 7, 3, 0) for port in (1, 2)},
        (m.CFG_PRT, (3, 0)): _PRT.pack(3, 0, 0, 0, 7, 3, 0),
        **{(m.CFG_MSG, kind): bytes([rate] * 5 + [0]) for kind, rate in rates.items()},
        **{(m.CFG_MSG, kind): bytes(_RATES) for kind in UBX_OUT if kind != m.NAV_SVIN},
    }


class M8tSettings:
    """Messages of a LEA-M8T or NEO-M8T, each as it is told when it is polled."""

    def __init__(self) -> None:
        self._now = _m8t_factory()
        self._kept: dict[tuple[Kind, Kind], bytes] = {}

    def answer(self, kind: Kind, payload: bytes) -> bool | bytes:
        if kind == m.CFG_MSG:
            return self._rate(payload)
        if kind == m.CFG_PRT:
            return self._port(payload)
        if kind == m.CFG_CFG:
            return self._keep(payload)
        place = (kind, (0, 0))
        old = self._now.get(place)
        if old is None:
            return False
        if not payload or (kind == m.CFG_TP5 and payload == b"\0"):
            return ubx(kind, old)
        if len(payload) != len(old):
            return False
        if kind == m.CFG_NAV5:
            new, mask = bytearray(old), int.from_bytes(payload[:2], "little")
            for bit, parts in _NAV5_PARTS.items():
                for at, size in parts if mask >> bit & 1 else ():
                    new[at : at + size] = payload[at : at + size]
            payload = bytes(new)
        if kind == m.CFG_TP5:
            index, _, _, _, period, period_locked, _, _, _, flags = _TP5.unpack(payload)
            if index or (period, period_locked) != (1_000_000, 1_000_000) or flags & _FREQUENCY:
                return False
            if not flags & _LENGTH:
                return False
            payload = payload[:1] + b"\1" + payload[2:]
        if kind == m.CFG_RATE and _RATE.unpack(payload)[:2] != (1000, 1):
            return False
        self._now[place] = payload
        return True

    def _rate(self, payload: bytes) -> bool | bytes:
        place = (m.CFG_MSG, (payload[0], payload[1]) if len(payload) >= 2 else (0, 0))
        rates = self._now.get(place)
        if rates is None:
            return False
        if len(payload) == 2:
            return ubx(m.CFG_MSG, payload + rates)
        if len(payload) == 8:
            self._now[place] = payload[2:]
        elif len(payload) == 3:  # of the port that it comes in at
            self._now[place] = rates[:_UART1] + payload[2:] + rates[_UART1 + 1 :]
        return len(payload) in (3, 8)

    def _port(self, payload: bytes) -> bool | bytes:
        place = (m.CFG_PRT, (payload[0] if payload else _UART1, 0))
        if place not in self._now:
            return False
        if len(payload) <= 1:
            return ubx(m.CFG_PRT, self._now[place])
        if len(payload) != _PRT.size or (payload[0] != 3 and _PRT.unpack(payload)[2] != _8N1):
            return False
        self._now[place] = payload
        return True

    def _keep(self, payload: bytes) -> bool:
        if len(payload) not in (12, 13):
            return False
        clear, save, load = struct.unpack_from("<III", payload)
        for place, value in _m8t_factory().items():
            section = 1 << _SECTION[place[0]]
            if clear & section:
                self._kept.pop(place, None)
            if save & section:
                self._kept[place] = self._now[place]
            if load & section:
                self._now[place] = self._kept.get(place, value)
        return True

    def restart(self) -> None:
        self._now = _m8t_factory() | self._kept

    def _of(self, kind: Kind) -> bytes:
        return self._now[kind, (0, 0)]

    def effect(self) -> Effect:
        _, _, cable, _, _, _, unlocked, locked, user, flags = _TP5.unpack(self._of(m.CFG_TP5))
        mode, _, latitude, longitude, height_cm, _, survey_s, survey_mm = _TMODE2.unpack(
            self._of(m.CFG_TMODE2)
        )
        _, _, _, baud, hears, out, _ = _PRT.unpack(self._now[m.CFG_PRT, (_UART1, 0)])
        rates = {place[1]: value[_UART1] for place, value in self._now.items() if place[0] == m.CFG_MSG}
        active = flags & _ACTIVE
        with_gnss = locked if flags & _LOCKED_OTHER and flags & _LOCK_GNSS else unlocked
        return Effect(
            ubx={kind: (out & 1) * rates.get(kind, 0) for kind in UBX_OUT},
            nmea={name: (out >> 1 & 1) * rates[0xF0, number] for name, number in NMEA_IDS.items()},
            baud=baud,
            hears=bool(hears & 1),
            pulse_us=with_gnss * active,
            unlocked_us=unlocked * active,
            delay_ns=user - cable,
            rising=bool(flags & _RISING),
            aligned=bool(flags & _ALIGN),
            utc_grid=flags >> 7 & 15 == 0,
            time_reference=_RATE.unpack(self._of(m.CFG_RATE))[2],
            dynamic_model=self._of(m.CFG_NAV5)[2],
            mode=mode,
            survey_s=survey_s,
            survey_mm=survey_mm,
            position=(latitude, longitude, 10 * height_cm),
        )

    def settle(self, settings: TimingSettings) -> None:
        s = settings
        flags = _ACTIVE | _LOCK_GNSS | _LOCKED_OTHER | _LENGTH | _ALIGN | _RISING | _GRID_GPS
        tp5 = _TP5.pack(0, 1, s.cable_delay_ns, 0, 1_000_000, 1_000_000, 0, s.pulse_us, 0, flags)
        nav5 = bytearray(self._of(m.CFG_NAV5))
        nav5[2] = _PORTABLE if s.mode == "moving" else _STATIONARY
        tmode2 = {
            "moving": bytes(28),
            "survey": _TMODE2.pack(_SURVEY, 0, 0, 0, 0, 0, s.survey_s, s.survey_accuracy_mm),
            "fixed": _TMODE2.pack(_FIXED, 1, s.latitude_e7, s.longitude_e7, round(s.height_mm / 10),
                                  s.position_accuracy_mm, 0, 0),
        }[s.mode]  # fmt: skip
        none = (0, 0)
        now = {
            (m.CFG_TP5, none): tp5, (m.CFG_NAV5, none): bytes(nav5), (m.CFG_TMODE2, none): tmode2,
            (m.CFG_RATE, none): _RATE.pack(1000, 1, 1),
        }  # fmt: skip
        rates = {m.TIM_TP: 1, m.NAV_PVT: 1, m.NAV_TIMELS: 1, m.NAV_TIMEGPS: 1, m.NAV_SAT: 5}
        rates[m.TIM_SVIN] = int(s.mode == "survey")
        rates |= {(0xF0, NMEA_IDS[name]): rate for name, rate in _sentences(s.nmea).items()}
        port = {"uart1": 1, "uart2": 2, "usb": 3}[s.port]
        for kind, rate in rates.items():
            old = self._now[m.CFG_MSG, kind]
            now[m.CFG_MSG, kind] = old[:port] + bytes((rate,)) + old[port + 1 :]
        out = 3 if s.nmea else 1
        if s.port == "usb":
            now[m.CFG_PRT, (port, 0)] = _PRT.pack(port, 0, 0, 0, 3, out, 0)
        elif s.baud is not None:
            now[m.CFG_PRT, (port, 0)] = _PRT.pack(port, 0, _8N1, s.baud, 3, out, 0)
        self._now |= now
        if s.save:
            self._kept |= self._now
