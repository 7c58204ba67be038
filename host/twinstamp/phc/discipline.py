# SPDX-License-Identifier: Apache-2.0
"""The program that disciplines a PHC: pulses and messages in, rate, slews and loads out, a record published.

Seconds are named by firmware/drivers/second.c and the clock is steered by firmware/servo, both compiled for
this machine (twinstamp_gps._servo.Course). What is new here is that the clock is reached by system calls:

- a rate is a dial of 2^-16 ppm (15 ps a second). What a setting leaves over is counted, and put into the
  next.
- a slew is a rate until shortly before the next pulse, then taken back. How long it truly lasted is read off
  the PHC, and the rest goes the same way.
- nothing latches the clock's state with a stamp: so the record says until when its bound holds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from twinstamp_gps import _servo
from twinstamp_gps.errors import SettingError

from twinstamp.errors import ConfigError, DeviceError
from twinstamp.phc.device import ENABLE, FALLING, PIN_EXTTS, RISING, STRICT
from twinstamp.phc.record import STATES, UNKNOWN_NS, ClockRecord

if TYPE_CHECKING:
    from collections.abc import Callable

    from twinstamp.phc.device import Event, PhcCalls, World

_NS = 1_000_000_000
_NOMINAL_Q72 = 0x225C17D04DAD
_UNKNOWN = 0xFFFFFFFF
_OUT_LOAD, _OUT_SLEW = 2, 4
_COLD, _LOCKED, _FAILED, _STOPPED = 0, 2, 5, 6
_DIAL_PER_ONE = 65536e6  # 2^-16 ppm in a rate of 1
_SLEW_END_NS = 850_000_000  # of a second: done before the next pulse
_LATE_NS = 100_000_000  # a slew that ended so much later was under way when the pulse came
_VALID_NS = 1_600_000_000  # from step to step at most, 1.5 s, and a wake-up
_VALID_IN_SLEW_NS = 250_000_000  # past its end: it goes on if this program does not
_SILENCE_NS = 100_000_000  # longer than any pause within a message
_TICK_S = 0.1
_STEP_NS, _RATE_PPM = 50_000, 500  # as in record.py
_WATCH_S = 1.2  # a program that steers does so once a second
_FALL_NS = (1_000_000, 500_000_000)  # from a pulse's rising edge to its falling one
_NEAR_NS = 50_000_000  # the pulse stands there, about a whole second
_TELL_STEPS = 3600


@dataclass(frozen=True, slots=True)
class Pulse:
    """A pulse at a time of the PHC, ps, what its stamp may be wrong by left out. tai_s: the second that it
    is, where its source knows; then accuracy_ns is one sigma of it, and source_bound_ns what the source
    itself may be wrong by (-1: unknown)."""

    at_ps: int
    tai_s: int | None = None
    accuracy_ns: int = 0
    source_bound_ns: int = 0


class PulseSource(Protocol):
    """Where pulses come from. quantum_ps: span of the stamps' quantisation, at the start."""

    quantum_ps: int

    def start(self) -> None: ...

    def take(self, cold: bool) -> list[Pulse]:
        """What has come; perhaps nothing."""
        ...

    def close(self) -> None: ...


class PinPulses:
    """Pulses on a pin of the PHC itself (PTP_EXTTS_REQUEST), of the rising edge where the driver can tell.

    pin: whose function is set to channel, None: it has none to set. grid_ns: span of the stamps' grid, which
    are cut off to it. cable_ns: how late the pulse comes by antenna and cable. other: called with events of
    other channels. DeviceError where the driver refuses.
    """

    def __init__(
        self,
        phc: PhcCalls,
        *,
        channel: int = 0,
        pin: int | None = None,
        grid_ns: float = 8,
        cable_ns: float = 0,
        other: Callable[[Event], None] = lambda event: None,
    ) -> None:
        if not 0 <= grid_ns <= 100_000:
            raise ConfigError(f"a grid of {grid_ns} ns: give 0 to 100000")
        self._phc, self._channel, self._pin, self._other = phc, channel, pin, other
        self.quantum_ps = round(grid_ns * 1000)
        # Cut off to the grid, and then to the ns that the kernel's structures hold.
        self._shift_ps = round((grid_ns / 2 + 0.5 - cable_ns) * 1000)
        self.both_edges = False
        self._before_ns = -_NS

    def start(self) -> None:
        """Sets the pin up; what has come before is dropped."""
        phc = self._phc
        can = phc.capabilities()
        if not 0 <= self._channel < can.channels:
            has = f"channels 0 to {can.channels - 1}" if can.channels else "no input for pulses"
            raise DeviceError(f"{phc.path} has no channel {self._channel} for pulses: it has {has}")
        try:
            if self._pin is not None:
                phc.set_pin(self._pin, PIN_EXTTS, self._channel)
            try:
                phc.request(self._channel, ENABLE | RISING | STRICT)
            except OSError:  # drivers that stamp both edges refuse to be strict about one (igb)
                self.both_edges = True
                phc.request(self._channel, ENABLE | RISING | FALLING)
        except OSError as error:
            where = f"channel {self._channel}" + (f" on pin {self._pin}" if self._pin is not None else "")
            raise DeviceError(
                f"{phc.path}: {where} takes no pulses: {error.strerror}; another --pin or --channel? "
                "(docs/nic-clock.md)"
            ) from error
        phc.events()

    def take(self, cold: bool) -> list[Pulse]:
        """As PulseSource has it."""
        found = []
        for event in self._phc.events():
            if event.channel != self._channel:
                self._other(event)
            elif not self.both_edges or self._rising(event.ns, cold):
                found.append(Pulse(event.ns * 1000 + self._shift_ps))
        return found

    def _rising(self, ns: int, cold: bool) -> bool:
        """Of both edges: the one at the second, once there are seconds; else the one that begins a pulse
        shorter than the pause behind it."""
        gap_ns, self._before_ns = ns - self._before_ns, ns
        if cold:
            return not _FALL_NS[0] <= gap_ns <= _FALL_NS[1]
        return abs((ns + _NS // 2) % _NS - _NS // 2) <= _NEAR_NS

    def close(self) -> None:
        """Turns the stamps off."""
        try:
            self._phc.request(self._channel, 0)
        except OSError:
            return  # the device is gone


@dataclass(frozen=True, slots=True)
class Step:
    """What on_step gets: the record as published, and what the servo got and said (servo.h)."""

    record: ClockRecord
    servo: dict[str, int]


def servo_config(settings: dict[str, int], max_adj_ppb: int, quantum_ps: int) -> dict[str, int]:
    """The servo's settings for a PHC: limits by what its driver takes, quantisation by its grid, and what is
    a lock by the quantisation.

    settings: over those. ConfigError for a driver that takes too little to steer by.
    """
    config = _servo.default_config() | {"capture_ps": quantum_ps} | settings
    room = max_adj_ppb - 2 * config["slew_limit_ppb"]
    if room < 1000:
        raise ConfigError(
            f"the driver takes adjustments of at most {max_adj_ppb} ppb: too few for slews of "
            f"{config['slew_limit_ppb']} ppb; set slew_limit_ppb lower"
        )
    if "frequency_limit_ppb" not in settings:
        config["frequency_limit_ppb"] = min(config["frequency_limit_ppb"], room)
    if "lock_bound_ns" not in settings:  # a second that stands somewhere within 1 us is no lock to 200 ns
        config["lock_bound_ns"] = max(config["lock_bound_ns"], 2 * quantum_ps // 1000)
    return config


class Discipline:
    """Disciplines a PHC until stopped.

    phc, world: the system's calls, or the stand-in's. pulses: their source. number: N of /dev/ptpN.
    settings: of the servo, by the names of servo_config in firmware/servo/servo.h. publish: called with each
    record. on_step: called after each step of the servo. grid_ns: of the NIC's stamps, for the record. told:
    what this machine knows of TAI - UTC: (offset_s, until which second of TAI, leap_s, leap_tai_s), as
    second.h has them, None: nothing. holders: names who else has the PHC open.

    Errors: ConfigError for settings that the servo refuses; DeviceError where the PHC or the receiver fails,
    or somebody else steers it.
    """

    def __init__(
        self,
        phc: PhcCalls,
        world: World,
        pulses: PulseSource,
        *,
        number: int,
        settings: dict[str, int] | None = None,
        grid_ns: int = 8,
        pid: int = 0,
        told: Callable[[], tuple[int, int, int, int] | None] = lambda: None,
        publish: Callable[[ClockRecord], None] = lambda record: None,
        on_step: Callable[[Step], None] = lambda step: None,
        holders: Callable[[], str] = lambda: "",
    ) -> None:
        self._phc, self._world, self._pulses = phc, world, pulses
        self._number, self._pid, self._grid_ns, self._told = number, pid, grid_ns, told
        self._publish, self._on_step, self._holders = publish, on_step, holders
        try:
            can = phc.capabilities()
        except OSError as error:
            raise DeviceError(f"{phc.path} is no PHC: {error.strerror}; give /dev/ptpN") from error
        self.config = servo_config(settings or {}, can.max_adj_ppb, pulses.quantum_ps)
        try:
            self._course = _servo.Course(self.config)
        except ValueError as error:
            raise SettingError(str(error)) from error
        self._max_dial = can.max_adj_ppb * 65.536
        self._going = True
        self.epoch = 0
        self._steps = 0
        self._source_bound_ns = 0
        self._out: dict[str, int] = {}
        self._record: ClockRecord | None = None
        self._seen: tuple[int, int] | None = None  # PHC and CLOCK_MONOTONIC_RAW, when last looked at
        self._heard_ns = self._stepped_ns = 0
        self._start_rate()

    @property
    def record(self) -> ClockRecord | None:
        """The last one that was published."""
        return self._record

    def stop(self) -> None:
        """Ends ``run`` soon."""
        self._going = False

    def accept(self) -> None:
        """The operator accepts what the receiver says from the next step on."""
        self._course.accept()

    # The PHC's rate. Phases in ps, dials in 2^-16 ppm.

    def _start_rate(self) -> None:
        self._dialed = self._phc.frequency()
        self._base = float(self._dialed)
        self._slew_ps = self._debt_ps = self._unsure_ps = 0.0
        self._slew_end_ns: int | None = None
        self._late = False
        self._set_ns = self._phc.time_ns()

    def _dial(self, base: float, slew_ps: float, span_ns: float) -> None:
        """Settles what was moved since the last dial, then moves by base, and by slew_ps within span_ns."""
        self._refuse_others()
        before_ns = self._phc.time_ns()
        self._settle(before_ns)
        wanted = base + (slew_ps + self._debt_ps) / span_ns * (_DIAL_PER_ONE / 1000)
        value = round(max(-self._max_dial, min(self._max_dial, wanted)))
        self._phc.set_frequency(value)
        after_ns = self._phc.time_ns()
        self._settle((before_ns + after_ns) // 2)
        self._unsure_ps += abs(value - self._dialed) / _DIAL_PER_ONE * max(0, after_ns - before_ns) * 500
        self._dialed, self._base, self._slew_ps = value, base, slew_ps

    def _settle(self, at_ns: int) -> None:
        """What was ordered since the last dial, less what was done."""
        passed_ns = at_ns - self._set_ns
        self._debt_ps += self._slew_ps + (self._base - self._dialed) / _DIAL_PER_ONE * passed_ns * 1000
        self._slew_ps = 0.0
        self._set_ns = at_ns

    def _end_slew(self, now_ns: int) -> None:
        self._late = self._slew_end_ns is not None and now_ns - self._slew_end_ns > _LATE_NS
        self._slew_end_ns = None
        self._dial(self._base, 0.0, max(100_000_000, _NS - now_ns % _NS + 100_000_000))
        self._write(self._stepped_ns + _VALID_NS - self._world.boot_ns())

    # Whoever else moves the PHC

    def _look(self) -> tuple[int, int]:
        """(PHC, CLOCK_MONOTONIC_RAW) now; a step that was not ours is seen by the two."""
        before = self._world.raw_ns()
        phc = self._phc.time_ns()
        after = self._world.raw_ns()
        raw, window = (before + after) // 2, after - before
        if self._seen is not None:
            passed = raw - self._seen[1]
            off = abs(phc - self._seen[0] - passed)
            if off > _STEP_NS + window + abs(passed) * _RATE_PPM // 1_000_000:
                self._moved(phc)
        self._seen = (phc, raw)
        return phc, raw

    def _moved(self, now_ns: int) -> None:
        """The PHC was stepped by somebody: nobody knows what time it is."""
        self.epoch += 1
        self._course.moved(_q32(now_ns * 1000))
        self._slew_end_ns = None
        self._set_ns, self._debt_ps, self._slew_ps = now_ns, 0.0, 0.0
        self._out = {}
        self._seen = (now_ns, self._world.raw_ns())
        self._write(0)

    def _refuse_others(self) -> None:
        """DeviceError where the dial is not where this program left it."""
        if (found := self._phc.frequency()) == self._dialed:
            return
        self._out = {}
        self._write(0, state=_FAILED)
        who = self._holders()
        raise DeviceError(
            f"{self._phc.path} is steered by another program{f' ({who})' if who else ''}: it set "
            f"{found / 65.536:+.3f} ppb where {self._dialed / 65.536:+.3f} ppb was set here; end it first"
        )

    def _watch(self) -> None:
        """DeviceError where somebody steers the PHC already."""
        end_ns = self._world.raw_ns() + round(_WATCH_S * _NS)
        while self._going and self._world.raw_ns() < end_ns:
            self._world.wait(_TICK_S)
            self._refuse_others()

    # The loop

    def run(self, seconds: float | None = None) -> None:
        """Disciplines the PHC until ``stop``, or for so long."""
        try:
            self._watch()
            self._pulses.start()
            self._world.bytes()
            self._seen = None
            now_ns, raw_ns = self._look()
            self._course.start(_q32(now_ns * 1000))
            self._tell()
            end_ns = None if seconds is None else raw_ns + round(seconds * _NS)
            self._heard_ns = raw_ns
            while self._going and (end_ns is None or raw_ns < end_ns):
                now_ns, raw_ns = self._turn()
        except OSError as error:
            raise DeviceError(f"{self._phc.path} fails: {error.strerror}") from error
        finally:
            self._finish()

    def _turn(self) -> tuple[int, int]:
        now_ns, _ = self._look()
        wait_s = min(_TICK_S, self._course.until_step_q32(_q32(now_ns * 1000)) / 2**32)
        if self._slew_end_ns is not None:
            wait_s = min(wait_s, (self._slew_end_ns - now_ns) / _NS)
        if wait_s > 0:
            self._world.wait(wait_s)
        now_ns, raw_ns = self._look()
        for pulse in self._pulses.take(self._course.cold):
            self._course.edge(_q32(pulse.at_ps))
            if pulse.tai_s is not None:
                self._course.name(pulse.tai_s, pulse.accuracy_ns)
            self._source_bound_ns = pulse.source_bound_ns
        if data := self._world.bytes():
            self._heard_ns = raw_ns
            self._course.bytes(data, _q32(now_ns * 1000))
        elif raw_ns - self._heard_ns >= _SILENCE_NS:
            self._heard_ns = raw_ns
            self._course.silence(_q32(now_ns * 1000))
        if self._slew_end_ns is not None and now_ns >= self._slew_end_ns:
            self._end_slew(now_ns)
        if self._course.until_step_q32(_q32(now_ns * 1000)) <= 0:
            self._step()
        return now_ns, raw_ns

    def _tell(self) -> None:
        """What this machine's table says of TAI - UTC, for receivers that do not know it."""
        if (told := self._told()) is None:
            return
        offset_s, until_s, leap_s, leap_tai_s = told
        if self._course.tell(offset_s, until_s):
            self._course.tell_leap(leap_s, leap_tai_s)

    def _step(self) -> None:
        self._refuse_others()
        now_ns, _ = self._look()
        left_q64 = 0
        if self._slew_end_ns is not None or self._late:
            # It ended too late, or not at all: the servo gets what it left, and the pulse does not count.
            self._slew_end_ns, self._late = None, False
            self._settle(now_ns)
            left_q64 = round(self._debt_ps * 2**64 / 1e12) or 1
            self._debt_ps = 0.0
        out = self._out = self._course.step(_q32(now_ns * 1000), left_q64)
        self._steps += 1
        if out["flags"] & _OUT_LOAD:
            self._load(out["load_delta_q32"])
            now_ns = self._phc.time_ns()
        base = (out["increment_q72"] - _NOMINAL_Q72) / _NOMINAL_Q72 * _DIAL_PER_ONE
        slew_ps = out["slew_amount_q64"] * 1e12 / 2**64 if out["flags"] & _OUT_SLEW else 0.0
        into_ns = now_ns % _NS
        span_ns = max(_SLEW_END_NS - into_ns, 50_000_000)
        self._dial(base, slew_ps, span_ns)
        self._slew_end_ns = now_ns + span_ns
        if out["state"] in (_LOCKED, 1):
            self._unsure_ps *= 0.75
        if self._steps % _TELL_STEPS == 0:
            self._tell()
        self._stepped_ns = self._world.boot_ns()
        self._write(min(span_ns + _VALID_IN_SLEW_NS, _VALID_NS))
        if self._record is not None:
            self._on_step(Step(self._record, out))

    def _load(self, delta_q32: int) -> None:
        delta_ns = delta_q32 * _NS >> 32
        before_ns = self._phc.time_ns()
        self._phc.step(delta_ns)
        self.epoch += 1
        self._course.loaded((delta_ns << 32) // _NS)
        self._seen = None
        self._settle(before_ns)
        now_ns, _ = self._look()
        self._set_ns = now_ns
        self._debt_ps = 0.0

    def _write(self, valid_ns: int, *, state: int | None = None) -> None:
        """Publishes what the last step said. valid_ns: for how long from now; 0: not at all."""
        out = self._out
        now_ns, raw_ns = self._seen or (self._phc.time_ns(), self._world.raw_ns())
        boot_ns = self._world.boot_ns()
        bound_ns = out.get("bound_ns", _UNKNOWN)
        known = bound_ns != _UNKNOWN and self._source_bound_ns >= 0 and valid_ns > 0
        own_ns = math.ceil((abs(self._debt_ps) + self._unsure_ps) / 1000)
        record = ClockRecord(
            phc=self._number,
            pid=self._pid,
            state=out.get("state", _COLD) if state is None else state,
            bound_ns=bound_ns + self._source_bound_ns + own_ns if known else UNKNOWN_NS,
            epoch=self.epoch,
            tai_ns=now_ns,
            raw_ns=raw_ns,
            boot_ns=boot_ns,
            valid_until_ns=boot_ns + valid_ns,
            offset_ps=out.get("offset_ps", 0),
            frequency_ppt=out.get("frequency_ppt", 0),
            holdover_s=out.get("holdover_s", 0),
            utc_offset_s=out.get("utc_offset_s", 37),
            utc_source=out.get("utc_source", 0),
            leap_s=out.get("leap_s", 0),
            leap_tai_s=out.get("leap_tai_s", 0),
            utc_until_tai_s=out.get("utc_until_tai_s", 0),
            steps=self._steps,
            pulses=self._course.pulses,
            events=out.get("events", 0),
            capture_ps=self._pulses.quantum_ps,
            grid_ns=self._grid_ns,
        )
        self._record = record
        self._publish(record)

    def counts(self) -> dict[str, int]:
        """The receiver's messages, whole and refused, by reason."""
        return self._course.counts()

    def _finish(self) -> None:
        """Leaves the PHC at its rate, without a slew, and the record without a bound."""
        failed = self._record is not None and self._record.state == _FAILED
        self._out = {}
        try:
            if self._slew_end_ns is not None and not failed:
                self._slew_end_ns = None
                self._dial(self._base, 0.0, _NS)
            self._write(0, state=_STOPPED)
            self._pulses.close()
        except OSError:
            return  # the device is gone


def describe(record: ClockRecord) -> str:
    """A record in one line."""
    bound = "unknown" if record.bound_ns < 0 else f"{record.bound_ns} ns"
    return (
        f"{STATES[record.state]}; bound {bound}; offset {record.offset_ps / 1000:+.2f} ns; "
        f"frequency {record.frequency_ppt / 1000:+.3f} ppb; epoch {record.epoch}"
    )


def _q32(ps: int) -> int:
    """ps since 1970 in 32.32 s, modulo 2^64 where the clock is before it."""
    return ((ps << 32) // 10**12) & 0xFFFFFFFFFFFFFFFF


__all__ = ["Discipline", "PinPulses", "Pulse", "PulseSource", "Step", "describe", "servo_config"]
