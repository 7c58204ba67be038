# SPDX-License-Identifier: Apache-2.0
"""Sets a u-blox timing receiver to what the clock needs: 1 Hz on GPS time, TIM-TP, a position that is held.

F9T: configuration items through UBX-CFG-VALSET (F9 TIM 2.20 interface description, UBX-21048598, §6).
M8T: CFG-TP5, -RATE, -NAV5, -TMODE2, -MSG, -PRT, -CFG (M8 protocol specification, UBX-13003221, §32.10).
u-blox advises a measurement rate and a pulse of 1 Hz for TIM-TP: then each pulse has one, the last that comes
before it (ZED-F9 integration manual, time pulse recommendations).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyubx2.ubxhelpers import cfgname2key

from twinstamp_gps import messages as m
from twinstamp_gps.errors import ReceiverError, SettingError
from twinstamp_gps.frame import ubx
from twinstamp_gps.port import BAUD_RATES, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

MODELS = ("f9t", "m8t")
PORTS = ("uart1", "uart2", "usb")
_PORT_ID = {"uart1": 1, "uart2": 2, "usb": 3}  # also the place among the six rates of CFG-MSG
_RAM, _RAM_BBR_FLASH = 1, 7
_MOST_ITEMS = 64  # of one VALSET or VALGET
_TRIES = 3
# Kept by CFG-CFG: port, messages, INF, navigation, RXM, and the timing parts of bits 8 to 12.
_SECTIONS = 0x1F1F
# Identifiers in class F0.
_NMEA = {
    "DTM": 10, "GBS": 9, "GGA": 0, "GLL": 1, "GNS": 13, "GRS": 6, "GSA": 2, "GST": 7, "GSV": 3, "RMC": 4,
    "VLW": 15, "VTG": 5, "ZDA": 8,
}  # fmt: skip
_STATIONARY, _PORTABLE = 2, 0  # dynamic models


@dataclass(frozen=True, kw_only=True)
class TimingSettings:
    """What a receiver is to do.

    mode: "survey" (find the position, then hold it), "fixed" (hold the one given) or "moving". survey_s and
    survey_accuracy_mm: both must be reached. latitude_e7, longitude_e7 (10⁻⁷ degrees, WGS 84), height_mm
    (above the ellipsoid), position_accuracy_mm: of the antenna, for "fixed". cable_delay_ns: of the antenna's
    cable; leave it 0 where the card's register has it. pulse_us: length. port: the receiver's own that leads
    here. baud: of that port, None to leave it. nmea: RMC, ZDA and GGA too. save: also for after power-off.

    Errors: SettingError for a value that the receiver does not take.
    """

    mode: str = "survey"
    survey_s: int = 3600
    survey_accuracy_mm: int = 2000
    latitude_e7: int = 0
    longitude_e7: int = 0
    height_mm: int = 0
    position_accuracy_mm: int = 100
    cable_delay_ns: int = 0
    pulse_us: int = 100_000
    port: str = "uart1"
    baud: int | None = 115_200
    nmea: bool = False
    save: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("survey", "fixed", "moving"):
            raise SettingError(f"mode {self.mode!r}: give survey, fixed or moving")
        if self.port not in PORTS:
            raise SettingError(f"port {self.port!r} of the receiver: give {', '.join(PORTS)}")
        if self.baud is not None and self.baud not in BAUD_RATES:
            raise SettingError(f"a rate of {self.baud} baud: give one of {', '.join(map(str, BAUD_RATES))}")
        for name, value, least, most in (
            ("survey_s (s)", self.survey_s, 1, 10_000_000),
            ("survey_accuracy_mm (mm)", self.survey_accuracy_mm, 1, 1_000_000),
            ("latitude_e7 (1e-7 degrees)", self.latitude_e7, -900_000_000, 900_000_000),
            ("longitude_e7 (1e-7 degrees)", self.longitude_e7, -1_800_000_000, 1_800_000_000),
            ("height_mm (mm)", self.height_mm, -1_000_000, 10_000_000),
            ("position_accuracy_mm (mm)", self.position_accuracy_mm, 1, 1_000_000),
            ("cable_delay_ns (ns)", self.cable_delay_ns, -32_767, 32_767),
            ("pulse_us (us)", self.pulse_us, 1, 900_000),
        ):
            if not least <= value <= most:
                raise SettingError(f"{name} is {value}: give {least} to {most}")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One message to the receiver. words: what it does, one line per setting. answered: by ACK or NAK.

    read_back: a message that asks for what was set, with what must come back; None where nothing can.
    """

    words: tuple[str, ...]
    frame: bytes
    answered: bool = True
    read_back: tuple[bytes, Callable[[m.Message], bool | None]] | None = None

    @property
    def kind(self) -> tuple[int, int]:
        """(class, id) of the message."""
        return self.frame[2], self.frame[3]


def model_of(version: m.Version) -> str | None:
    """The model that a receiver's MON-VER means, None for one that this module cannot set."""
    if "F9T" in version.module or any("TIM 2." in text for text in version.extensions):
        return "f9t"
    if "M8T" in version.module or any("TIM 1." in text for text in version.extensions):
        return "m8t"
    return None


def plan(model: str, settings: TimingSettings) -> list[Step]:
    """The messages that set a receiver of ``model``, in their order; a new rate of the line comes last."""
    if model not in MODELS:
        raise SettingError(f"receiver {model!r}: this sets {' and '.join(MODELS)}")
    return _plan_f9t(settings) if model == "f9t" else _plan_m8t(settings)


def describe(steps: Sequence[Step]) -> Iterator[str]:
    """Each step in words and as hex, for a dry run."""
    for number, step in enumerate(steps, 1):
        yield f"{number}. {m.decode_name(step.frame)}"
        for line in step.words:
            yield f"   {line}"
        yield f"   {step.frame.hex(' ').upper()}"


def find(address: str, bauds: Sequence[int] | None = None) -> tuple[Receiver, m.Version]:
    """Opens ``address`` at the first rate at which a receiver answers MON-VER; 1.2 s per rate.

    ReceiverError where none answers.
    """
    rates = tuple(bauds or (38400, 9600, 115200, 460800, 230400, 57600, 19200, 921600))
    receiver = Receiver(address, baud=rates[0])
    try:
        for rate in rates:
            receiver.set_baud(rate)
            version = receiver.ask(
                ubx(m.MON_VER), lambda got: got if isinstance(got, m.Version) else None, timeout_s=1.2
            )
            if version is not None:
                return receiver, version
    except BaseException:
        receiver.close()
        raise
    receiver.close()
    raise ReceiverError(
        f"receiver {address}: no answer to UBX-MON-VER at {', '.join(map(str, rates))} baud: is it u-blox, "
        "is its input wired, and does its port take UBX?"
    )


def apply(
    receiver: Receiver,
    steps: Sequence[Step],
    *,
    baud: int | None,
    timeout_s: float = 1.5,
    progress: Callable[[Step], None] = lambda step: None,
) -> None:
    """Sends the steps, waits for each ACK, reads back what was set. baud: what the line has afterwards.

    Errors: ReceiverError naming the step: refused (NAK), no answer after three tries, or another value read
    back than was set.
    """
    for step in steps:
        progress(step)
        what = f"{m.decode_name(step.frame)} ({step.words[0]})"
        if step.answered:
            _acknowledged(receiver, step, what, timeout_s)
        else:
            _change_baud(receiver, step, baud, timeout_s)
        if step.read_back is not None:
            _confirmed(receiver, step, what, timeout_s)


def _acknowledged(receiver: Receiver, step: Step, what: str, timeout_s: float) -> None:
    def answer(got: m.Message) -> bool | None:
        return got.accepted if isinstance(got, m.Ack) and got.message == step.kind else None

    for _ in range(_TRIES):
        accepted = receiver.ask(step.frame, answer, timeout_s=timeout_s)
        if accepted:
            return
        if accepted is False:
            raise ReceiverError(f"receiver {receiver.address}: refused {what}; is the model right?")
    raise ReceiverError(
        f"receiver {receiver.address}: no answer to {what} within {timeout_s} s, {_TRIES} times"
    )


def _confirmed(receiver: Receiver, step: Step, what: str, timeout_s: float) -> None:
    assert step.read_back is not None
    question, check = step.read_back
    for _ in range(_TRIES):
        same = receiver.ask(question, check, timeout_s=timeout_s)
        if same:
            return
        if same is False:
            raise ReceiverError(f"receiver {receiver.address}: took {what} but reads back another value")
    raise ReceiverError(f"receiver {receiver.address}: {what}: cannot be read back")


def _change_baud(receiver: Receiver, step: Step, baud: int | None, timeout_s: float) -> None:
    """The ACK may come at the old rate, at the new one, or torn: what counts is an answer afterwards."""
    receiver.send(step.frame)
    list(receiver.messages(0.3))
    if baud is not None:
        receiver.set_baud(baud)
    for _ in range(_TRIES):
        if receiver.ask(ubx(m.MON_VER), lambda got: isinstance(got, m.Version) or None, timeout_s=timeout_s):
            return
    raise ReceiverError(f"receiver {receiver.address}: silent after it was told to use {baud} baud")


def _dynamic_model(s: TimingSettings) -> int:
    return _PORTABLE if s.mode == "moving" else _STATIONARY


# F9T


def item_bytes(name: str, value: int) -> bytes:
    """Key and value of a configuration item as VALSET has them. SettingError where it does not fit."""
    key, kind = cfgname2key(name)
    size = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8}[key >> 28 & 7]
    try:
        return int(key).to_bytes(4, "little") + value.to_bytes(size, "little", signed=kind.startswith("I"))
    except OverflowError:
        raise SettingError(f"{name}: {value} does not fit in {size} bytes") from None


def valset(items: Sequence[tuple[str, int]], *, layers: int) -> bytes:
    """UBX-CFG-VALSET without a transaction. layers: 1 RAM, 2 battery-backed RAM, 4 flash, added up."""
    return ubx(m.CFG_VALSET, bytes((0, layers, 0, 0)) + b"".join(item_bytes(*item) for item in items))


def valget(names: Sequence[str]) -> bytes:
    """UBX-CFG-VALGET of items in RAM."""
    return ubx(m.CFG_VALGET, bytes(4) + b"".join(int(cfgname2key(n)[0]).to_bytes(4, "little") for n in names))


def _items_step(title: str, items: list[tuple[str, int, str]], *, layers: int, answered: bool = True) -> Step:
    assert len(items) <= _MOST_ITEMS
    wanted = {name: value for name, value, _ in items}

    def check(got: m.Message) -> bool | None:
        if not isinstance(got, m.ConfigValues) or set(got.values) != set(wanted):
            return None
        return got.values == wanted

    words = [title + (", kept" if layers != _RAM else "")]
    words += [f"{name.replace('_', '-', 2)} = {value} {unit}".rstrip() for name, value, unit in items]
    return Step(
        words=tuple(words),
        frame=valset([(name, value) for name, value, _ in items], layers=layers),
        answered=answered,
        read_back=(valget(list(wanted)), check),
    )


def _split_hp(value: int, scale: int) -> tuple[int, int]:
    """A value in a coarse unit and the rest, −99 to 99, of the fine one."""
    coarse = int(value / scale)
    return coarse, value - coarse * scale


def _plan_f9t(s: TimingSettings) -> list[Step]:
    layers = _RAM_BBR_FLASH if s.save else _RAM
    port = s.port.upper()
    pulse = [
        ("CFG_TP_PULSE_DEF", 0, "(as a period)"),
        ("CFG_TP_PULSE_LENGTH_DEF", 1, "(as a length)"),
        ("CFG_TP_PERIOD_TP1", 1_000_000, "us"),
        ("CFG_TP_PERIOD_LOCK_TP1", 1_000_000, "us"),
        ("CFG_TP_LEN_TP1", 0, "us (no pulse without GNSS time)"),
        ("CFG_TP_LEN_LOCK_TP1", s.pulse_us, "us"),
        ("CFG_TP_SYNC_GNSS_TP1", 1, ""),
        ("CFG_TP_USE_LOCKED_TP1", 1, ""),
        ("CFG_TP_ALIGN_TO_TOW_TP1", 1, ""),
        ("CFG_TP_POL_TP1", 1, "(rising edge at the second)"),
        ("CFG_TP_TIMEGRID_TP1", 1, "(GPS time)"),
        ("CFG_TP_ANT_CABLEDELAY", s.cable_delay_ns, "ns"),
        ("CFG_TP_USER_DELAY_TP1", 0, "ns"),
        ("CFG_TP_TP1_ENA", 1, ""),
    ]
    rate = [
        ("CFG_RATE_MEAS", 1000, "ms"),
        ("CFG_RATE_NAV", 1, "measurements"),
        ("CFG_RATE_TIMEREF", 1, "(GPS time)"),
        ("CFG_NAVSPG_DYNMODEL", _dynamic_model(s), "(2: stationary, 0: portable)"),
    ]
    if s.mode == "fixed":
        latitude, longitude = s.latitude_e7, s.longitude_e7
        height_cm, height_rest = _split_hp(s.height_mm * 10, 100)
        position = [
            ("CFG_TMODE_POS_TYPE", 1, "(latitude, longitude, height)"),
            ("CFG_TMODE_LAT", latitude, "1e-7 degrees"),
            ("CFG_TMODE_LAT_HP", 0, "1e-9 degrees"),
            ("CFG_TMODE_LON", longitude, "1e-7 degrees"),
            ("CFG_TMODE_LON_HP", 0, "1e-9 degrees"),
            ("CFG_TMODE_HEIGHT", height_cm, "cm"),
            ("CFG_TMODE_HEIGHT_HP", height_rest, "0.1 mm"),
            ("CFG_TMODE_FIXED_POS_ACC", s.position_accuracy_mm * 10, "0.1 mm"),
            ("CFG_TMODE_MODE", 2, "(fixed position)"),
        ]
    elif s.mode == "survey":
        position = [
            ("CFG_TMODE_SVIN_MIN_DUR", s.survey_s, "s"),
            ("CFG_TMODE_SVIN_ACC_LIMIT", s.survey_accuracy_mm * 10, "0.1 mm"),
            ("CFG_TMODE_MODE", 1, "(survey-in)"),
        ]
    else:
        position = [("CFG_TMODE_MODE", 0, "(off)")]
    each = "per solution"
    rates = [
        (f"CFG_MSGOUT_UBX_TIM_TP_{port}", 1, each),
        (f"CFG_MSGOUT_UBX_NAV_PVT_{port}", 1, each),
        (f"CFG_MSGOUT_UBX_NAV_TIMELS_{port}", 1, each),
        (f"CFG_MSGOUT_UBX_NAV_TIMEGPS_{port}", 1, f"{each} (gpsd takes the week from it)"),
        (f"CFG_MSGOUT_UBX_NAV_SAT_{port}", 5, "(every fifth solution)"),
        (f"CFG_MSGOUT_UBX_NAV_SVIN_{port}", int(s.mode == "survey"), each),
    ]
    for name in _NMEA:
        rates.append(
            (f"CFG_MSGOUT_NMEA_ID_{name}_{port}", int(s.nmea and name in ("RMC", "ZDA", "GGA")), each)
        )
    protocols = [(f"CFG_{port}OUTPROT_UBX", 1, ""), (f"CFG_{port}OUTPROT_NMEA", int(s.nmea), "")]
    steps = [
        _items_step("pulse of 1 Hz on GPS time", pulse, layers=layers),
        _items_step("one solution a second", rate, layers=layers),
        _items_step({"survey": "survey-in", "fixed": "fixed position", "moving": "no time mode"}[s.mode],
                    position, layers=layers),
        _items_step(f"messages on {s.port}", rates + protocols, layers=layers),
    ]  # fmt: skip
    if s.baud is not None and s.port != "usb":
        steps.append(
            _items_step(
                f"rate of {s.port}", [(f"CFG_{port}_BAUDRATE", s.baud, "baud")], layers=layers, answered=False
            )
        )
    return steps


# M8T


_PRT = struct.Struct("<BxHIIHHH2x")
_8N1 = 0x08D0
_MODE_BITS = 0x3EC0  # of character length, parity and stop bits; the rest is reserved


def _legacy(words: Sequence[str], kind: tuple[int, int], payload: bytes, ask: bytes = b"") -> Step:
    """A message that comes back as it was set when it is polled with ``ask`` (default: without payload)."""

    def check(got: m.Message) -> bool | None:
        if not isinstance(got, m.Other) or got.message != kind or len(got.payload) != len(payload):
            return None
        return got.payload == payload

    return Step(words=tuple(words), frame=ubx(kind, payload), read_back=(ubx(kind, ask), check))


def _port_step(words: tuple[str, ...], payload: bytes, *, answered: bool = True) -> Step:
    """CFG-PRT; compared are rate, character and protocols, as far as they were set."""

    def parts(payload: bytes) -> tuple[int, ...]:
        port, _, mode, baud, hears, out, _ = _PRT.unpack(payload)
        return (
            (port, hears & 3, out)
            if port == _PORT_ID["usb"]
            else (port, mode & _MODE_BITS, baud, hears & 3, out)
        )

    def check(got: m.Message) -> bool | None:
        if not isinstance(got, m.Other) or got.message != m.CFG_PRT or len(got.payload) != _PRT.size:
            return None
        return parts(got.payload) == parts(payload) if got.payload[0] == payload[0] else None

    return Step(
        words=words,
        frame=ubx(m.CFG_PRT, payload),
        answered=answered,
        read_back=(ubx(m.CFG_PRT, payload[:1]), check),
    )


def _dynamic_model_step(model: int) -> Step:
    """CFG-NAV5 with the dynamic model alone in its mask, which is all that is set and compared."""

    def check(got: m.Message) -> bool | None:
        if not isinstance(got, m.Other) or got.message != m.CFG_NAV5 or len(got.payload) != 36:
            return None
        return got.payload[2] == model

    name = {_STATIONARY: "stationary", _PORTABLE: "portable"}[model]
    return Step(
        words=(f"dynamic model: {name}",),
        frame=ubx(m.CFG_NAV5, struct.pack("<HB33x", 1, model)),
        read_back=(ubx(m.CFG_NAV5), check),
    )


def _plan_m8t(s: TimingSettings) -> list[Step]:
    # active, lockGnssFreq, lockedOtherSet, isLength, alignToTow, polarity; gridUtcGnss = 1, GPS
    flags = 1 | 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7
    pulse = struct.pack(
        "<BB2xhhIIIIiI", 0, 1, s.cable_delay_ns, 0, 1_000_000, 1_000_000, 0, s.pulse_us, 0, flags
    )
    steps = [
        _legacy(
            (
                "pulse of 1 Hz on GPS time",
                f"time pulse 0: period 1000000 us, length 0 us without GNSS time, {s.pulse_us} us with it",
                f"rising edge at the second, antenna cable {s.cable_delay_ns} ns, user delay 0 ns",
            ),
            m.CFG_TP5,
            pulse,
            b"\0",
        ),
        _legacy(
            ("one solution a second", "every 1000 ms, aligned to GPS time"),
            m.CFG_RATE,
            struct.pack("<HHH", 1000, 1, 1),
        ),
        _dynamic_model_step(_dynamic_model(s)),
    ]
    if s.mode == "fixed":
        mode = struct.pack(
            "<BxHiiiIII",
            2,
            1,
            s.latitude_e7,
            s.longitude_e7,
            round(s.height_mm / 10),
            s.position_accuracy_mm,
            0,
            0,
        )
        words = [
            "fixed position",
            f"latitude {s.latitude_e7} and longitude {s.longitude_e7} (1e-7 degrees), height "
            f"{round(s.height_mm / 10)} cm, accuracy {s.position_accuracy_mm} mm",
        ]
    elif s.mode == "survey":
        mode = struct.pack("<BxHiiiIII", 1, 0, 0, 0, 0, 0, s.survey_s, s.survey_accuracy_mm)
        words = ["survey-in", f"at least {s.survey_s} s, to {s.survey_accuracy_mm} mm"]
    else:
        mode = struct.pack("<BxHiiiIII", 0, 0, 0, 0, 0, 0, 0, 0)
        words = ["no time mode"]
    steps.append(_legacy(words, m.CFG_TMODE2, mode))
    rates = [
        (m.TIM_TP, 1),
        (m.NAV_PVT, 1),
        (m.NAV_TIMELS, 1),
        (m.NAV_TIMEGPS, 1),
        (m.NAV_SAT, 5),
        (m.TIM_SVIN, int(s.mode == "survey")),
    ]
    rates += [
        ((0xF0, number), int(s.nmea and name in ("RMC", "ZDA", "GGA"))) for name, number in _NMEA.items()
    ]
    steps += [_rate_step(kind, rate, _PORT_ID[s.port]) for kind, rate in rates]
    out = 3 if s.nmea else 1
    protocols = f"in UBX and NMEA, out UBX{' and NMEA' * s.nmea}"
    if s.port == "usb":
        steps.append(
            _port_step(("protocols of usb", protocols), _PRT.pack(_PORT_ID[s.port], 0, 0, 0, 3, out, 0))
        )
    if s.save:
        steps.append(
            Step(
                words=("keep all this", "in battery-backed RAM, flash and EEPROM, whichever there is"),
                frame=ubx(m.CFG_CFG, struct.pack("<IIIB", 0, _SECTIONS, 0, 7)),
            )
        )
    if s.baud is not None and s.port != "usb":
        rate = (f"rate of {s.port}", f"{s.baud} baud, 8N1, {protocols}")
        port = _PRT.pack(_PORT_ID[s.port], 0, _8N1, s.baud, 3, out, 0)
        steps.append(_port_step(rate, port, answered=False))
        if s.save:
            steps.append(
                Step(
                    words=("keep the rate too",),
                    frame=ubx(m.CFG_CFG, struct.pack("<IIIB", 0, 1, 0, 7)),
                )
            )
    return steps


def _rate_step(kind: tuple[int, int], rate: int, port: int) -> Step:
    """CFG-MSG for the port that the message comes in at; read back among the rates of all six."""

    def check(got: m.Message) -> bool | None:
        if not isinstance(got, m.Other) or got.message != m.CFG_MSG or got.payload[:2] != bytes(kind):
            return None
        return len(got.payload) == 8 and got.payload[2 + port] == rate

    name = m.message_name(kind)
    return Step(
        words=(f"{name}: " + {0: "off", 1: "with each solution"}.get(rate, f"every {rate} solutions"),),
        frame=ubx(m.CFG_MSG, bytes(kind) + bytes((rate,))),
        read_back=(ubx(m.CFG_MSG, bytes(kind)), check),
    )
