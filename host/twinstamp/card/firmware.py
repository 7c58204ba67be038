# SPDX-License-Identifier: Apache-2.0
"""The soft core that disciplines the card's clock: loading its program, what it says, what it can be told.

Its mailbox is firmware/mailbox.h; its servo's input, output and settings are firmware/servo/servo.h, whose
names and units are used here as they are.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from twinstamp.card.regmap import MEMORIES
from twinstamp.errors import ConfigError, DeviceError, InputError, TwinstampError
from twinstamp.leap import LeapSeconds, UtcOffset, expiry_warning, leap_seconds

if TYPE_CHECKING:
    from twinstamp.card.card import Card

INPUT_FIELDS = (
    "now_q32", "pulse_q32", "slew_left_q64", "tai_s", "qerr_ps", "accuracy_ns", "flags", "other_q32",
    "moves",
)  # fmt: skip
OUTPUT_FIELDS = (
    "increment_q72", "load_delta_q32", "slew_amount_q64", "slew_step_q64", "bound_ns", "flags", "state",
    "events", "offset_ps", "innovation_ps", "frequency_ppt", "ageing_ppt_day", "sigma_ps",
    "frequency_sigma_ppt", "white_ppt", "flicker_ppt", "walk_ppt", "qerr_use", "holdover_s", "expected_q32",
)  # fmt: skip
SETTINGS = (
    "white_ppt", "flicker_ppt", "walk_ppt", "temperature_ppt", "learn", "wander_ps", "jitter_ps",
    "sawtooth_ps", "capture_ps", "slew_limit_ppb", "frequency_limit_ppb", "lock_pulses", "lock_bound_ns",
    "holdover_bound_ns",
)  # fmt: skip

# Of the receiver's messages: RECEIVER_* of firmware/drivers/receiver.h.
RECEIVER_COUNTS = (
    "ubx", "nmea", "rtcm", "skipped", "bad_checksum", "no_checksum", "cut_short", "too_long", "bad_length",
    "bad_value", "fraction", "time_base", "not_valid", "no_room",
)  # fmt: skip

_INPUT = struct.Struct("<QQqQiIIiI4x")
_OUTPUT = struct.Struct("<QqqQIIIIqqqqIIIIIiIi")
_HEAD = struct.Struct(f"<4I4I2i2Q5I{len(RECEIVER_COUNTS)}I4x")
_SETTINGS = struct.Struct("<14I")
_ENTRY_BYTES = 8 + _INPUT.size + _OUTPUT.size
_LOG_AT = _HEAD.size + _SETTINGS.size
_MAGIC = 0x584F424D
_VERSION = 2
_TRIES = 100
_RESULTS = {2: "the firmware does not know this command", 3: "the firmware refused it: out of its limits"}
_ACCEPT, _SET, _OFFSET, _RESTART, _LEAP = 1, 2, 3, 4, 5
UTC_SOURCES = ("nobody", "satellites", "host", "table")  # SECOND_* of firmware/drivers/second.h


class Counts(NamedTuple):
    """Since the firmware began. steps: of the servo, one a second. utc: what it has published of TAI - UTC,
    and utc_source who said so (UTC_SOURCES), good until utc_until_tai_s, a second of TAI. pulses,
    extra_pulses: accepted by the capture, and those of them beyond the first of a second. late_outputs: steps
    that took over 2 ms. slowest_q32: the slowest, 2^-32 s. stack_low: lowest address of the stack that was
    used. ubx, nmea, rtcm: whole messages of the receiver, of any kind. skipped: bytes of none. The rest: what
    was refused, by its reason (docs/receiver.md). no_room: starts of messages beyond those that the firmware
    follows at a time.
    """

    steps: int
    utc_source: str
    utc: UtcOffset
    utc_until_tai_s: int
    pulses: int
    extra_pulses: int
    late_outputs: int
    slowest_q32: int
    stack_low: int
    ubx: int
    nmea: int
    rtcm: int
    skipped: int
    bad_checksum: int
    no_checksum: int
    cut_short: int
    too_long: int
    bad_length: int
    bad_value: int
    fraction: int
    time_base: int
    not_valid: int
    no_room: int

    @property
    def refused(self) -> dict[str, int]:
        """What was refused of the receiver's messages, by reason."""
        return {name: getattr(self, name) for name in RECEIVER_COUNTS[4:]}


def tell_leap_seconds(card: Card) -> str | None:
    """Tells the firmware that runs on ``card`` what this machine's table of leap seconds says, for receivers
    that do not know it. None where it did, or where no firmware runs; else one line that says why not.
    """
    if "discipline" not in card.identity.features or not card.fields("cpu.status")["running"]:
        return None
    now_s = int(time.time())
    try:
        Firmware(card).tell_leap_seconds(leap_seconds(), now_s)
    except TwinstampError as error:
        return f"the firmware was not told of leap seconds: {expiry_warning(now_s) or error}"
    return None


class Step(NamedTuple):
    """One step of the servo: its number, what it got and what it said, by the names of servo.h."""

    number: int
    input: dict[str, int]
    output: dict[str, int]


class Firmware:
    """The soft core of an open card.

    Errors: DeviceError for a card without one, a core that does not run or does not answer, or a program that
    this driver does not know; ConfigError for a setting that does not exist or is refused.
    """

    def __init__(self, card: Card) -> None:
        if "discipline" not in card.identity.features:
            raise DeviceError(f"card {card.transport.name} has no soft core")
        self._card = card
        self._commands = 0
        self._memory, self._bytes = MEMORIES["cpu_memory"]

    def load(self, image: Path | bytes) -> None:
        """Holds the core in reset, writes its program (``make firmware``: build/firmware/twinstamp.bin),
        checks it and lets it run. The clock keeps its time and rate; the servo starts cold.

        InputError for an image that does not fit or cannot be read.
        """
        if isinstance(image, bytes):
            data = image
        else:
            try:
                data = image.read_bytes()
            except OSError as error:
                raise InputError(f"firmware {image}: {error.strerror}; `make firmware` makes one") from error
        if not 0 < len(data) <= self._bytes:
            raise InputError(f"a firmware of {len(data)} bytes: the core's memory has {self._bytes}")
        transport = self._card.transport
        self._card.write("cpu.control", 0)
        self._card.write_fields("clock.control", locked=0, state=0, disciplined=0)
        self._card.write("clock.bound", 0xFFFFFFFF)
        self._card.write("cpu.mailbox", 0)
        padded = data + bytes(-len(data) % 4)
        words = struct.unpack(f"<{len(padded) // 4}I", padded)
        for i in range(self._bytes // 4):
            # What is not the program's is filled: the firmware measures its stack by it.
            transport.write32(self._memory + 4 * i, words[i] if i < len(words) else 0xDEADBEEF)
        for i, word in enumerate(words):
            found = transport.read32(self._memory + 4 * i)
            if found != word:
                raise DeviceError(f"the core's memory at 0x{4 * i:04X} reads 0x{found:08X}, not 0x{word:08X}")
        self._card.write("cpu.control", 1)

    def start(self) -> None:
        """Lets the core run what its memory holds since power-up: a board's bitstream brings its program.

        DeviceError where a program has run already: its data are not what they were; ``load`` it.
        """
        if self._card.fields("cpu.status")["running"] or self._card.read("cpu.mailbox"):
            raise DeviceError("the soft core has run since power-up: load its program")
        self._card.write("cpu.control", 1)

    def stop(self) -> None:
        """Holds the core in reset. What it wrote stays, but for lock and bound."""
        self._card.write("cpu.control", 0)
        self._card.write_fields("clock.control", locked=0, state=0, disciplined=0)
        self._card.write("clock.bound", 0xFFFFFFFF)

    def _check_running(self) -> None:
        status = self._card.fields("cpu.status")
        if status["failed"]:
            why = "it did something impossible" if status["trapped"] else "its watchdog was not served"
            raise DeviceError(f"the soft core has stopped: {why}; load it again")
        if not status["running"]:
            raise DeviceError("the soft core does not run: load its program first")

    def _mailbox(self) -> int:
        self._check_running()
        for _ in range(_TRIES):
            address = self._card.read("cpu.mailbox")
            if address:
                break
            self._card.transport.wait(1e-4)
            self._check_running()
        else:
            raise DeviceError("the soft core's program says nothing: it is not Twinstamp's firmware")
        if address % 8 or not 0 < address <= self._bytes - _LOG_AT:
            raise DeviceError(f"the soft core names its mailbox at 0x{address:X}: not within its memory")
        magic, version = struct.unpack("<2I", self._read(address, 8))
        if magic != _MAGIC or version != _VERSION:
            raise DeviceError(f"the firmware's mailbox is of version {version}, this driver knows {_VERSION}")
        return address

    def _read(self, address: int, size: int) -> bytes:
        read = self._card.transport.read32
        return b"".join(
            read(self._memory + at).to_bytes(4, "little") for at in range(address, address + size, 4)
        )

    def _head(self, mailbox: int) -> tuple[int, ...]:
        """The head, whole: the firmware was not writing while it was read."""
        for _ in range(_TRIES):
            head = _HEAD.unpack(self._read(mailbox, _HEAD.size))
            changes, again = head[4], self._read(mailbox + 16, 4)
            if changes % 2 == 0 and again == changes.to_bytes(4, "little"):
                return head
            self._card.transport.wait(1e-5)
        raise DeviceError("the firmware's mailbox does not come to rest")

    def counts(self) -> Counts:
        """What it has counted so far."""
        head = self._head(self._mailbox())
        source = UTC_SOURCES[head[6]] if head[6] < len(UTC_SOURCES) else f"source {head[6]}"
        offset_s, leap_s, leap_tai_s, until_s = head[8:12]
        utc = UtcOffset(offset_s, source != UTC_SOURCES[0], leap_s, leap_tai_s)
        return Counts(head[5], source, utc, until_s, *head[12:])

    def settings(self) -> dict[str, int]:
        """The servo's settings, by the names of servo_config."""
        mailbox = self._mailbox()
        values = _SETTINGS.unpack(self._read(mailbox + _HEAD.size, _SETTINGS.size))
        return dict(zip(SETTINGS, values, strict=True))

    def steps(self, since: int = 0) -> list[Step]:
        """Steps of the servo from number ``since`` on, oldest first, as far back as the log reaches."""
        mailbox = self._mailbox()
        head = self._head(mailbox)
        entries, steps = head[3], head[5]
        found = []
        for number in range(max(since, steps - entries, 0), steps):
            data = self._read(mailbox + _LOG_AT + number % entries * _ENTRY_BYTES, _ENTRY_BYTES)
            if int.from_bytes(data[:4], "little") != number:
                continue  # overwritten meanwhile
            said = dict(zip(INPUT_FIELDS, _INPUT.unpack(data[8 : 8 + _INPUT.size]), strict=True))
            out = dict(zip(OUTPUT_FIELDS, _OUTPUT.unpack(data[8 + _INPUT.size :]), strict=True))
            found.append(Step(number, said, out))
        # One that was written while it was read is not whole.
        last = self._head(mailbox)[5]
        return [step for step in found if step.number > last - entries]

    def _command(self, code: int, argument: int = 0) -> None:
        self._mailbox()
        self._commands = self._commands % 0xFFFF + 1
        self._card.write("cpu.argument", argument)
        self._card.write("cpu.command", self._commands << 16 | code)
        for _ in range(_TRIES):
            answer = self._card.read("cpu.answer")
            if answer >> 16 == self._commands:
                break
            self._card.transport.wait(1e-3)
        else:
            raise DeviceError("the soft core does not answer a command")
        if answer & 0xFFFF in _RESULTS:
            raise ConfigError(_RESULTS[answer & 0xFFFF])

    def accept(self) -> None:
        """Believe what the receiver says, also where the clock is disputed, from the next step on."""
        self._command(_ACCEPT)

    def restart(self) -> None:
        """The servo starts cold."""
        self._command(_RESTART)

    def set(self, name: str, value: int) -> None:
        """One setting of the servo, which starts cold with it."""
        if name not in SETTINGS:
            raise ConfigError(f"no setting is called {name!r}: {', '.join(SETTINGS)}")
        if not 0 <= value < 1 << 32:
            raise ConfigError(f"{name}: {value} is not a number of 32 bits")
        self._command(_SET, SETTINGS.index(name) << 32 | value)

    def tell_utc_offset(self, offset_s: int, until_tai_s: int) -> None:
        """TAI - UTC for receivers that do not know it, good until a second of TAI; 30 to 60 s.

        No leap second is to come until then.
        """
        if not 30 <= offset_s <= 60 or not 0 < until_tai_s < 1 << 40:
            raise ConfigError(
                f"TAI - UTC of {offset_s} s until {until_tai_s}: give 30 to 60 s and a time to come"
            )
        self._command(_OFFSET, offset_s << 48 | until_tai_s)

    def tell_leap_seconds(self, table: LeapSeconds, now_utc_s: int) -> None:
        """TAI - UTC from ``now_utc_s`` on, with the leap second to come, until ``table`` expires.

        ConfigError where it has expired already.
        """
        if table.expired(now_utc_s):
            raise ConfigError(f"the table of leap seconds ({table.source}) has expired: name a newer one")
        offset_s = table.at_utc(now_utc_s)
        self.tell_utc_offset(offset_s, table.expires_utc_s + offset_s)
        leap = table.next(now_utc_s + offset_s)
        if leap is not None and not table.expired(leap.tai_s - offset_s):
            self._command(_LEAP, (leap.change_s & 0xFFFF) << 48 | leap.tai_s)
