# SPDX-License-Identifier: Apache-2.0
"""The published clock: what the program that disciplines a PHC says of it, in a file that others map.

/run/twinstamp/clock-ptpN (TWINSTAMP_CLOCKS names another folder), 256 bytes, world-readable, in the byte
order of the machine. A sequence lock: readers get a whole record or none. docs/nic-clock.md has the fields.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from twinstamp import _native
from twinstamp.errors import DeviceError
from twinstamp.leap import UtcOffset

MAGIC = 0x314B434F4C435754  # "TWCLOCK1"
VERSION = 1
BYTES = 256
STATES = ("cold", "acquiring", "locked", "holdover", "disputed", "failed", "stopped")
UTC_SOURCES = ("nobody", "satellites", "host", "table")
UNKNOWN_NS = -1
_HEAD = struct.Struct("=QII16s")  # magic, version, bytes, the kernel's boot id
_BODY = struct.Struct("=qqqqqqqqqqqqqqqqqqqqqq")
_ROOM = BYTES - 8 - _HEAD.size  # behind the sequence
_STEP_NS = 50_000  # beyond any rate, read by read: the clock was moved after the record was written
_RATE_PPM = 500  # of the monotonic clock's and the PHC's oscillators together


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockRecord:
    """One record. phc: N of /dev/ptpN. pid: of the program. state: its place in STATES.

    bound_ns: |PHC - TAI| is below it, 99.9 % of the time, until valid_until_ns (CLOCK_BOOTTIME); -1:
    unknown. epoch: goes up whenever the PHC was moved otherwise than by its rate. tai_ns, raw_ns, boot_ns:
    the PHC, CLOCK_MONOTONIC_RAW and CLOCK_BOOTTIME at the last step of the servo. offset_ps: PHC - TAI as
    estimated; frequency_ppt: the oscillator's, in 1e-12. holdover_s: since the last pulse that was believed.
    utc_offset_s: TAI - UTC before the leap second (leap_s, leap_tai_s) that is next to come or just past;
    utc_source: its place in UTC_SOURCES (0: assumed). steps, pulses, events: counts of the servo's steps and
    pulses, and the last step's events (firmware/servo/servo.h). capture_ps: quantum of the pulse's stamps.
    grid_ns: of the NIC's stamps.
    """

    phc: int
    pid: int
    state: int
    bound_ns: int
    epoch: int
    tai_ns: int
    raw_ns: int
    boot_ns: int
    valid_until_ns: int
    offset_ps: int
    frequency_ppt: int
    holdover_s: int
    utc_offset_s: int
    utc_source: int
    leap_s: int
    leap_tai_s: int
    utc_until_tai_s: int
    steps: int
    pulses: int
    events: int
    capture_ps: int
    grid_ns: int

    @property
    def state_name(self) -> str:
        """The state in words."""
        return STATES[self.state] if 0 <= self.state < len(STATES) else "unknown"

    def valid(self, boot_ns: int) -> bool:
        """Whether state and bound hold at a time of CLOCK_BOOTTIME."""
        return self.bound_ns >= 0 and self.boot_ns <= boot_ns <= self.valid_until_ns

    def utc_offset(self) -> UtcOffset:
        """TAI - UTC with its leap second; .known: somebody who knows has said so."""
        return UtcOffset(self.utc_offset_s, self.utc_source != 0, self.leap_s, self.leap_tai_s)

    def moved(self, phc_ns: int, raw_ns: int, window_ns: int) -> bool:
        """Whether the PHC was moved since the record: it read phc_ns when CLOCK_MONOTONIC_RAW read raw_ns,
        to window_ns. A move of less than 50 us is not seen."""
        passed = raw_ns - self.raw_ns
        return (
            abs(phc_ns - self.tai_ns - passed) > _STEP_NS + window_ns + abs(passed) * _RATE_PPM // 1_000_000
        )


_NAMES = tuple(field.name for field in fields(ClockRecord))


def folder() -> Path:
    """Where published clocks lie."""
    return Path(os.environ.get("TWINSTAMP_CLOCKS", "/run/twinstamp"))


def boot_id() -> bytes:
    """Of this run of the kernel, 16 bytes: a record of another one says nothing."""
    text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    return bytes.fromhex(text.strip().replace("-", ""))


class Publisher:
    """Writes the record of a PHC; for one process at a time. DeviceError where the file cannot be made."""

    def __init__(self, phc: int) -> None:
        self.path = folder() / f"clock-ptp{phc}"
        try:
            self.path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            # The same file again where there is one: readers have it mapped.
            number = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            raise DeviceError(
                f"{self.path}: the clock cannot be published: {error.strerror}; start as root, or name a "
                "folder in TWINSTAMP_CLOCKS"
            ) from error
        try:
            os.fchmod(number, 0o644)
            os.ftruncate(number, BYTES)
            self._map = mmap.mmap(number, BYTES)
        finally:
            os.close(number)
        self._words = np.frombuffer(self._map, np.uint64)
        self._boot_id = boot_id()

    def write(self, record: ClockRecord) -> None:
        """Publishes a record."""
        body = _BODY.pack(*(getattr(record, name) for name in _NAMES))
        head = _HEAD.pack(MAGIC, VERSION, BYTES, self._boot_id)
        _native.record_write(self._words, (head + body).ljust(BYTES - 8, b"\0"))

    def close(self) -> None:
        """Unmaps the file, which stays: whoever has it mapped would not see a new one."""
        del self._words
        self._map.close()


class Reader:
    """Reads a PHC's record. It may come later, or never: ``read`` then says None."""

    def __init__(self, phc: int) -> None:
        self.phc = phc
        self.path = folder() / f"clock-ptp{phc}"
        self._map: mmap.mmap | None = None
        self._words = np.zeros(0, np.uint64)
        self._boot_id = boot_id()

    def _open(self) -> bool:
        try:
            number = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if os.fstat(number).st_size != BYTES:
                return False
            self._map = mmap.mmap(number, BYTES, prot=mmap.PROT_READ)
        except (OSError, ValueError):
            return False
        finally:
            os.close(number)
        self._words = np.frombuffer(self._map, np.uint64)
        return True

    def read(self) -> ClockRecord | None:
        """The last record of this run of the kernel, whether valid or not; None where there is none, or it
        is of another version."""
        if self._map is None and not self._open():
            return None
        data = _native.record_read(self._words)
        if data is None:
            return None
        magic, version, size, boot = _HEAD.unpack_from(data, 0)
        if (magic, version, size, boot) != (MAGIC, VERSION, BYTES, self._boot_id):
            return None
        record = ClockRecord(**dict(zip(_NAMES, _BODY.unpack_from(data, _HEAD.size), strict=True)))
        return record if record.phc == self.phc else None

    def valid(self) -> ClockRecord | None:
        """The last record where its state and bound hold now."""
        record = self.read()
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return record if record is not None and record.valid(now) else None

    def close(self) -> None:
        """Unmaps the file."""
        self._words = np.zeros(0, np.uint64)
        if self._map is not None:
            self._map.close()
            self._map = None
