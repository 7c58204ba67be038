# SPDX-License-Identifier: Apache-2.0
"""A simulated GPS receiver: pulses to the femtosecond and the bytes of its serial line, from one model.

What `SimulatedReceiver.second` gives for a second n, counted from the simulation's start: the edges of the
pulse that marks it, and what the receiver then sends, byte for byte, with the time of each message's first
bit. The order is that of a u-blox receiver: pulse n, NAV-PVT and the others for n some 60 to 150 ms later,
and last TIM-TP for pulse n + 1, whose edge will stand qErr *before* the instant it marks
(docs/decisions/0090-qerr-sign.md).

It takes the configuration messages of an F9T (CFG-VALSET, -VALGET) or an M8T (CFG-TP5, -MSG, -PRT and
others) and answers as they do; what it does not know it refuses with ACK-NAK (receiver_settings.py).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from twinstamp_gps import encode, gpstime
from twinstamp_gps import messages as m
from twinstamp_gps.configure import TimingSettings
from twinstamp_gps.errors import SettingError
from twinstamp_gps.models import RECEIVERS
from twinstamp_gps.receiver_settings import UBX_OUT, Effect, F9tSettings, M8tSettings
from twinstamp_gps.stream import StreamSplitter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from twinstamp_gps.faults import Fault
    from twinstamp_gps.models import ReceiverModel
    from twinstamp_gps.receiver_settings import ReceiverSettings

FS = 10**15
_FS_PER_PS = 1000
_FS_PER_NS = 10**6
_FS_PER_MS = 10**12


class PulseNoise(Protocol):
    """Where the pulses of a receiver stand; ModelNoise has the published models."""

    def pulse(self, second: int) -> tuple[int, int]:
        """(error_fs, qerr_ps) of a second's pulse; asked for once per second, in order, from 0.

        error_fs: what no message tells, wander and jitter. qerr_ps: of the pulse's quantisation: the edge
        stands error_fs − 1000·qerr_ps from the instant.
        """
        ...


class ModelNoise:
    """The published noise of a receiver's pulses (twinstamp_gps.models), from a seed."""

    def __init__(self, model: ReceiverModel, seed: int) -> None:
        from twinstamp_gps import _servo

        self._receiver = _servo.Receiver(model.settings(), seed)

    def pulse(self, second: int) -> tuple[int, int]:
        """As PulseNoise has it."""
        late_ns, qerr_ps, _ = self._receiver.next()
        return round(late_ns * _FS_PER_NS) + qerr_ps * _FS_PER_PS, qerr_ps


class Edge(NamedTuple):
    """A pulse on the wire: its rising and falling edge, fs since the simulation's start."""

    rise_fs: int
    fall_fs: int


class Transmission(NamedTuple):
    """at_fs: when the first start bit begins. baud: of the line; each byte takes 10 bits (8N1)."""

    at_fs: int
    baud: int
    data: bytes

    @property
    def end_fs(self) -> int:
        """When the last stop bit ends."""
        return self.at_fs + len(self.data) * 10 * FS // self.baud


@dataclass(frozen=True, kw_only=True)
class ReceiverSecond:
    """One second. tai_s: the second that its pulse marks. qerr_ps: of that pulse, the truth. fix: whether
    satellites were received. edges: none, one or more, in order. transmissions: in order, never overlapping.
    """

    second: int
    tai_s: int
    qerr_ps: int
    fix: bool
    edges: tuple[Edge, ...]
    transmissions: tuple[Transmission, ...]


# First navigation message after the pulse, ms: latest navigation solution of F9T and M8T at 1 Hz.
_SOLUTION_MS = {"f9t": 65, "m8t": 140, "nmea": 140}
_VERSIONS = {
    "f9t": (
        "EXT CORE 1.00 (3fda8e)", "00190000",
        ("ROM BASE 0x118B2060", "FWVER=TIM 2.20", "PROTVER=29.20", "MOD=ZED-F9T", "GPS;GLO;GAL;BDS"),
    ),
    "m8t": (
        "EXT CORE 3.01 (111141)", "00080000",
        ("ROM BASE 2.01 (75331)", "FWVER=TIM 1.10", "PROTVER=22.00", "MOD=NEO-M8T-0", "GPS;GLO;GAL;BDS"),
    ),
}  # fmt: skip
_STRAY_FS = FS // 7  # of a pulse that is not aligned to the second


class SimulatedReceiver:
    """A receiver of ``model`` "f9t", "m8t" or "nmea" (one that sends RMC, ZDA and GGA and takes no command).

    noise: where the pulses stand, by default the model's (that of m8t for "nmea"). start_tai_s: the
    second that pulse 0 marks; with a fault `leap` it may be left out, and the leap second then falls where
    the fault says. utc_offset_s: TAI − UTC at the start.
    faults: see docs/receiver.md. configured: as `twinstamp clock configure` leaves it (fixed position), in
    place of the factory's settings. settings: others than those. utc_after_s: how long UTC stays unknown
    after the start (as after a cold start; the leap seconds come every 12.5 min). week_rollovers: how often
    its date has fallen back by 1024 weeks. antenna_ns: delay of antenna and cable. seed: of latencies and
    damage. position: (latitude, longitude in 10⁻⁷ degrees, height in mm).

    Same arguments and same commands give the same seconds, to the bit.
    """

    def __init__(
        self,
        model: str,
        noise: PulseNoise | None = None,
        *,
        start_tai_s: int | None = None,
        utc_offset_s: int = 37,
        faults: Iterable[Fault] = (),
        configured: bool = True,
        settings: TimingSettings | None = None,
        utc_after_s: int = 0,
        week_rollovers: int = 0,
        antenna_ns: int = 0,
        seed: int = 1,
        position: tuple[int, int, int] = (471_232_680, 85_479_120, 480_000),
    ) -> None:
        if model not in _SOLUTION_MS:
            raise SettingError(f"receiver {model!r}: known are {', '.join(_SOLUTION_MS)}")
        self.model = model
        self._noise = noise or ModelNoise(RECEIVERS["m8t" if model == "nmea" else model], seed)
        self._faults = tuple(faults)
        if any(fault.kind == "host-load" for fault in self._faults):
            raise SettingError("host-load is a fault of the card's host: `twinstamp clock simulate` knows it")
        leaps = [fault for fault in self._faults if fault.kind == "leap"]
        if len(leaps) > 1:
            raise SettingError("more than one leap second in a simulation")
        self._leap_change = 0
        self._leap_tai_s = 0
        if leaps:
            self._leap_change = round(leaps[0].value) or 1
            if self._leap_change not in (1, -1):
                raise SettingError(f"a leap second of {leaps[0].value} s: give 1 or -1")
            # The end of 30 June 2027 UTC, unless the start is given.
            midnight = gpstime.utc_to_unix_s(2027, 7, 1, 0, 0, 0) + utc_offset_s
            if start_tai_s is None:
                start_tai_s = midnight - leaps[0].start_s + min(0, self._leap_change)
            self._leap_tai_s = start_tai_s + leaps[0].start_s
        self.start_tai_s = (
            gpstime.utc_to_unix_s(2026, 11, 20, 12, 0, 0) + utc_offset_s
            if start_tai_s is None
            else start_tai_s
        )
        self._utc_offset_s = utc_offset_s
        self._utc_after_s = utc_after_s
        self._back_weeks = week_rollovers * gpstime.WEEKS_OF_TEN_BITS
        self._antenna_ns = antenna_ns
        self._position = position
        self._random = np.random.default_rng([seed, 0x67707321])
        self._splitter = StreamSplitter()
        self._settings: ReceiverSettings | None = None
        if model != "nmea":
            self._settings = F9tSettings() if model == "f9t" else M8tSettings()
        self._survey_from: int | None = None
        self._line_free_fs = 0
        self._second = 0
        self._pulses: dict[int, tuple[int, int]] = {}
        self._drawn = 0
        if configured and self._settings is not None:
            latitude, longitude, height = position
            self._settings.settle(
                settings
                or TimingSettings(
                    mode="fixed", latitude_e7=latitude, longitude_e7=longitude, height_mm=height, baud=115_200
                )
            )
        elif settings is not None:
            raise SettingError(f"a receiver {model!r} with settings must be configured and u-blox")
        self._mode_set()

    def power_cycle(self) -> None:
        """Off and on between two seconds: settings that were not kept are as delivered."""
        if self._settings is not None:
            self._settings.restart()
            self._mode_set()

    def _effect(self) -> Effect:
        if self._settings is not None:
            return self._settings.effect()
        return Effect(
            ubx={}, nmea={"RMC": 1, "ZDA": 1, "GGA": 1}, baud=9600, hears=False, pulse_us=100_000,
            unlocked_us=0, delay_ns=0, rising=True, aligned=True, utc_grid=True, time_reference=0,
            dynamic_model=0, mode=0, survey_s=0, survey_mm=0, position=(0, 0, 0),
        )  # fmt: skip

    def _mode_set(self) -> None:
        self._survey_from = self._second if self._effect().mode == 1 else None

    # Commands

    def command(self, data: bytes) -> bytes:
        """What the receiver answers, at once, to bytes that it gets; nothing for what is no UBX frame."""
        answers = b""
        for frame in self._splitter.feed(data):
            if frame.kind == "ubx" and self._effect().hears:
                answers += self._answer((frame.data[2], frame.data[3]), frame.data[6:-2])
        return answers

    def _answer(self, kind: tuple[int, int], payload: bytes) -> bytes:
        if self._settings is None:
            return b""
        if kind == m.MON_VER and not payload:
            return encode.mon_ver(*_VERSIONS[self.model])
        if not payload and kind in UBX_OUT and kind not in self._not_here():
            return self._message(kind, max(0, self._second - 1))
        if kind[0] != 0x06:
            return b""  # as receivers do: only the class CFG is acknowledged
        before = self._effect()
        result = self._settings.answer(kind, payload)
        after = self._effect()
        if (before.mode, before.survey_s, before.survey_mm) != (after.mode, after.survey_s, after.survey_mm):
            self._mode_set()
        if isinstance(result, bytes):
            return result + encode.ack(kind, accepted=True)
        return encode.ack(kind, accepted=result)

    def _not_here(self) -> tuple[tuple[int, int], ...]:
        return (m.TIM_SVIN,) if self.model == "f9t" else (m.NAV_SVIN,)

    # Time

    def _leap_s(self, tai_s: int) -> int:
        """GPS − UTC at a TAI second, a leap second under way not yet counted."""
        after = bool(self._leap_change) and tai_s >= self._leap_tai_s + max(0, self._leap_change)
        return self._utc_offset_s - gpstime.TAI_MINUS_GPS_S + (self._leap_change if after else 0)

    def utc(self, tai_s: int) -> tuple[int, int, int, int, int, int]:
        """The UTC label of a TAI second, second 60 in a leap second, as the receiver believes it."""
        unix_s = tai_s - gpstime.TAI_MINUS_GPS_S - self._leap_s(tai_s) - self._back_weeks * gpstime.WEEK_S
        if self._leap_change == 1 and tai_s == self._leap_tai_s:
            label = gpstime.unix_to_utc(unix_s - 1)
            return (*label[:5], 60)
        return gpstime.unix_to_utc(unix_s)

    def _gps(self, tai_s: int) -> tuple[int, int]:
        week, second = gpstime.tai_to_gps(tai_s)
        return week - self._back_weeks, second * 1000

    def _has(self, kind: str, second: int) -> Fault | None:
        return next((f for f in self._faults if f.kind == kind and f.at(second)), None)

    def _fix(self, second: int) -> bool:
        return self._has("outage", second) is None and self._has("fix-lost", second) is None

    def _accuracy_ns(self, second: int) -> int:
        """tAcc: what the receiver says of itself."""
        if not self._fix(second):
            return 1000
        fault = self._has("accuracy", second)
        return 5 + (round(fault.value * (second - fault.start_s + 1)) if fault else 0)

    # One second

    def _ahead(self, second: int) -> tuple[int, int]:
        """(place of the pulse against its instant, fs; qErr, ps), drawn in order as far as asked for."""
        while self._drawn <= second:
            error_fs, qerr_ps = self._noise.pulse(self._drawn)
            self._pulses[self._drawn] = error_fs - qerr_ps * _FS_PER_PS, qerr_ps
            self._drawn += 1
        return self._pulses[second]

    def second(self) -> ReceiverSecond:
        """The next second."""
        n = self._second
        here = self._ahead(n)
        self._pulses.pop(n - 1, None)
        effect = self._effect()
        tai_s = self.start_tai_s + n
        fix = self._fix(n)
        edges = self._edges(n, here[0], effect)
        self._second = n + 1
        sent = self._transmissions(n, effect)
        return ReceiverSecond(
            second=n, tai_s=tai_s, qerr_ps=here[1], fix=fix, edges=edges, transmissions=sent
        )

    def seconds(self, count: int) -> Iterator[ReceiverSecond]:
        """The next ``count`` seconds."""
        for _ in range(count):
            yield self.second()

    def _edges(self, n: int, place_fs: int, effect: Effect) -> tuple[Edge, ...]:
        chance, sign = self._random.random(), 1 - 2 * int(self._random.integers(2))
        # Without satellites, what it is set to do then; a receiver that has lost its fix goes on pulsing.
        pulse_us = effect.unlocked_us if self._has("outage", n) else effect.pulse_us
        if not pulse_us:
            return ()
        if (fault := self._has("missing", n)) and chance < fault.value:
            return ()
        rise = n * FS + place_fs + (effect.delay_ns + self._antenna_ns) * _FS_PER_NS
        if not effect.aligned:
            rise += _STRAY_FS
        if fault := self._has("outlier", n):
            rise += sign * round(fault.value * _FS_PER_NS)
        if fault := self._has("step", n):
            rise += round(fault.value * _FS_PER_NS)
        if fault := self._has("pull", n):
            rise += round(fault.value * (n - fault.start_s) * _FS_PER_NS)
        width = pulse_us * 10**9
        if not effect.rising:  # the falling edge stands at the second: the line rises width before the next
            rise, width = rise - (FS - width), FS - width
        rises = [rise]
        if fault := self._has("early", n):
            rises.insert(0, rise - round(fault.value * _FS_PER_NS))
        if fault := self._has("double", n):
            rises.append(rise + round(fault.value * _FS_PER_NS))
        ends = [min(at + width, (at + after) // 2) for at, after in itertools.pairwise(rises)]
        return tuple(Edge(*edge) for edge in zip(rises, [*ends, rises[-1] + width], strict=True))

    def _transmissions(self, n: int, effect: Effect) -> tuple[Transmission, ...]:
        start = n * FS + round((_SOLUTION_MS[self.model] + self._random.uniform(-8, 8)) * _FS_PER_MS)
        if fault := self._has("message-late", n):
            start += round(fault.value * _FS_PER_NS)
        parts = [self._message(kind, n) for kind, rate in effect.ubx.items() if rate and n % rate == 0]
        for name, rate in effect.nmea.items():
            if rate and n % rate == 0:
                parts.append(self._sentence(name, n))
        if self._has("message-lost", n):
            parts = []
        sent = []
        for data in parts:
            damaged = self._damage(data) if self._has("message-corrupt", n) else data
            start = max(start, self._line_free_fs)
            sent.append(Transmission(start, effect.baud, damaged))
            self._line_free_fs = sent[-1].end_fs
        return tuple(sent)

    def _damage(self, data: bytes) -> bytes:
        """One to four flipped bits, and one time in four the rest of the message lost."""
        raw = bytearray(data)
        for _ in range(int(self._random.integers(1, 5))):
            raw[int(self._random.integers(len(raw)))] ^= 1 << int(self._random.integers(8))
        if self._random.random() < 0.25:
            del raw[int(self._random.integers(1, len(raw))) :]
        return bytes(raw)

    # Messages

    def _satellites(self, n: int) -> int:
        return (28 if self.model == "f9t" else 18) + n // 97 % 3 if self._fix(n) else 0

    def _place(self, effect: Effect) -> tuple[int, int, int]:
        """Where it says that it is: at the position that it was told to hold, else at its own."""
        return effect.position if effect.mode == 2 else self._position

    def _utc_known(self, n: int) -> bool:
        return n >= self._utc_after_s

    def _survey(self, n: int, effect: Effect) -> tuple[int, int, bool, bool]:
        """(duration s, accuracy mm, valid, active): the mean of one position a second, 5 m each."""
        if self._survey_from is None:
            return 0, 0, effect.mode == 2, False
        duration = max(0, n - self._survey_from)
        accuracy = round(5000 / max(1, duration) ** 0.5)
        done = duration >= effect.survey_s and accuracy <= effect.survey_mm
        return duration, accuracy, done, not done

    def _message(self, kind: tuple[int, int], n: int) -> bytes:
        tai_s = self.start_tai_s + n
        _, tow_ms = self._gps(tai_s)
        effect = self._effect()
        latitude, longitude, height = self._place(effect)
        if kind == m.NAV_PVT:
            fix = self._fix(n)
            _, _, held, _ = self._survey(n, effect)
            return encode.nav_pvt(
                tow_ms=tow_ms,
                utc=self.utc(tai_s),
                time_valid=True,
                utc_resolved=self._utc_known(n),
                fix_type=0 if not fix else 5 if held else 3,
                fix_ok=fix,
                satellites=self._satellites(n),
                time_accuracy_ns=self._accuracy_ns(n),
                longitude_e7=longitude,
                latitude_e7=latitude,
                height_mm=height,
            )
        if kind == m.NAV_TIMEGPS:
            return encode.nav_timegps(
                week=self._gps(tai_s)[0],
                tow_ms=tow_ms,
                leap_s=self._leap_s(tai_s),
                leap_valid=self._utc_known(n),
            )
        if kind == m.NAV_TIMELS:
            return self._timels(n, tai_s, tow_ms)
        if kind == m.NAV_SAT:
            used = self._satellites(n)
            return encode.nav_sat(
                tow_ms=tow_ms,
                satellites=[
                    (0, i + 1, 30 + i * 7 % 20, 10 + i * 13 % 75, i * 47 % 360, i < used) for i in range(32)
                ],
            )
        if kind in (m.NAV_SVIN, m.TIM_SVIN):
            duration, accuracy, valid, active = self._survey(n, effect)
            if kind == m.NAV_SVIN:
                return encode.nav_svin(
                    tow_ms=tow_ms, duration_s=duration, accuracy_mm=accuracy, observations=duration,
                    valid=valid, active=active,
                )  # fmt: skip
            return encode.tim_svin(
                duration_s=duration, accuracy_mm=accuracy, observations=duration, valid=valid, active=active
            )
        return self._tim_tp(n + 1, effect)

    def _tim_tp(self, n: int, effect: Effect) -> bytes:
        """TIM-TP for pulse n."""
        qerr_ps = self._ahead(n)[1]
        if self._has("qerr-late", n):
            qerr_ps = self._ahead(n + 1)[1]
        if self._has("qerr-sign", n):
            qerr_ps = -qerr_ps
        tai_s = self.start_tai_s + n
        week, tow_ms = self._gps(tai_s)
        if effect.utc_grid:
            leap = self._leap_s(tai_s)
            week, tow_ms = self._gps(tai_s - leap)
        return encode.tim_tp(
            week=week,
            tow_ms=tow_ms,
            qerr_ps=qerr_ps,
            qerr_valid=self._fix(n) and self._has("qerr-lost", n) is None,
            utc_base=effect.utc_grid,
            utc_available=self._utc_known(n),
        )

    def _timels(self, n: int, tai_s: int, tow_ms: int) -> bytes:
        known = self._utc_known(n)
        if not self._leap_change or not known:
            return encode.nav_timels(tow_ms=tow_ms, leap_s=self._leap_s(tai_s), leap_valid=known)
        after = self._leap_tai_s + max(0, self._leap_change)  # the first second with the new offset
        # The day at whose end it happens, as GPS broadcasts it: day 1 is Sunday (IS-GPS-200, 20.3.3.5.2.4).
        new_offset_s = self._utc_offset_s + self._leap_change
        week, second = gpstime.tai_to_gps(after - new_offset_s + gpstime.TAI_MINUS_GPS_S - 1)
        return encode.nav_timels(
            tow_ms=tow_ms,
            leap_s=self._leap_s(tai_s),
            change_s=self._leap_change,
            time_to_event_s=after - tai_s,
            event_week=week - self._back_weeks,
            event_day=second // 86_400 + 1,
            event_valid=True,
        )

    def _sentence(self, name: str, n: int) -> bytes:
        fix, tai_s = self._fix(n), self.start_tai_s + n
        utc = self.utc(tai_s)
        latitude, longitude, height = self._place(self._effect())
        if name == "RMC":
            return encode.rmc(utc, valid=fix, latitude_e7=latitude, longitude_e7=longitude)
        if name == "ZDA":
            return encode.zda(utc)
        if name == "GGA":
            return encode.gga(
                utc, valid=fix, satellites=min(12, self._satellites(n)), latitude_e7=latitude,
                longitude_e7=longitude, height_mm=height,
            )  # fmt: skip
        return encode.nmea(_REST[name])


# What the clock does not read, without values.
_REST = {
    "DTM": "GNDTM,W84,,0.0,N,0.0,E,0.0,W84",
    "GBS": "GNGBS,,,,,,,,,,",
    "GNS": "GNGNS,,,,,,NNNN,00,99.99,,,,,V",
    "GRS": "GNGRS,,1,,,,,,,,,,,,,1,1",
    "GST": "GNGST,,,,,,,,",
    "VLW": "GNVLW,,N,,N,0.000,N,0.000,N",
    "GLL": "GNGLL,,,,,,V,N",
    "GSA": "GNGSA,A,1,,,,,,,,,,,,,99.99,99.99,99.99,1",
    "GSV": "GPGSV,1,1,00,1",
    "VTG": "GNVTG,,,,,,,,,N",
}
