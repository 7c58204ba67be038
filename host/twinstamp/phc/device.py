# SPDX-License-Identifier: Apache-2.0
"""A PHC's system calls and the receiver's line, one method each and no logic: what the stand-in replaces.

Kernel: include/uapi/linux/ptp_clock.h, Documentation/driver-api/ptp.rst; clock_adjtime(2).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from twinstamp.errors import DeviceError
from twinstamp.timex import Timex

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twinstamp_gps.port import Line

ENABLE, RISING, FALLING, STRICT = 1, 2, 4, 8  # flags of request()
PIN_EXTTS = 1

GETCAPS = 0x80503D01
EXTTS_REQUEST = 0x40103D02
EXTTS_REQUEST2 = 0x40103D0B
PIN_SETFUNC = 0x40603D07
SYS_OFFSET = 0x43403D05
SYS_OFFSET_PRECISE = 0xC0403D08
SYS_OFFSET_EXTENDED = 0xC4C03D09
PPS_FETCH = 0xC00870A4
PPS_FETCH_BYTES = 64

_ADJ_SETOFFSET, _ADJ_FREQUENCY, _ADJ_NANO = 0x0100, 0x0002, 0x2000
_EVENT_BYTES = 32
_SYS_OFFSET_BYTES = 4 * 4 + 51 * 16
_EXTENDED_BYTES = 4 * 4 + 25 * 3 * 16
SAMPLES = 10  # of a comparison with the system's clock; 25 at most
_SECOND_NS = 1_000_000_000


class Capabilities(NamedTuple):
    """max_adj_ppb: largest frequency adjustment. channels: of external time stamps. pins: whose function can
    be set. precise: PTP_SYS_OFFSET_PRECISE is there."""

    max_adj_ppb: int
    channels: int
    pins: int
    precise: bool


class Event(NamedTuple):
    """A pulse's time by the PHC, ns."""

    channel: int
    ns: int


class PhcCalls(Protocol):
    """The calls that the discipline makes; the errors of all are OSError."""

    @property
    def path(self) -> str:
        """The PHC, as messages name it."""
        ...

    def capabilities(self) -> Capabilities: ...

    def set_pin(self, pin: int, function: int, channel: int) -> None: ...

    def request(self, channel: int, flags: int) -> None:
        """PTP_EXTTS_REQUEST, the second version of it with STRICT among the flags."""
        ...

    def events(self) -> list[Event]:
        """What has come; perhaps nothing."""
        ...

    def time_ns(self) -> int: ...

    def frequency(self) -> int:
        """What was set last, by anybody, in 2^-16 ppm."""
        ...

    def set_frequency(self, value: int) -> None: ...

    def step(self, ns: int) -> None:
        """Adds ns to the clock."""
        ...

    def offsets(self, *, extended: bool) -> list[tuple[int, int, int]]:
        """(CLOCK_REALTIME, PHC, CLOCK_REALTIME) in ns, by PTP_SYS_OFFSET or its extended kind."""
        ...

    def precise(self) -> tuple[int, int]:
        """(CLOCK_REALTIME, PHC) at one instant, ns."""
        ...


class World(Protocol):
    """What is around the PHC: time, waiting, the receiver's bytes."""

    def wait(self, seconds: float) -> None:
        """Until an event or bytes are there, or for so long."""
        ...

    def bytes(self) -> bytes:
        """What the receiver has said; perhaps nothing."""
        ...

    def raw_ns(self) -> int:
        """CLOCK_MONOTONIC_RAW."""
        ...

    def boot_ns(self) -> int:
        """CLOCK_BOOTTIME."""
        ...


class Phc:
    """/dev/ptpN by the kernel's calls. DeviceError where it cannot be opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise DeviceError(
                f"{path} cannot be opened: {error.strerror}; a PHC is /dev/ptpN, and root may steer it"
            ) from error
        self._clock = (~self.fd << 3) | 3
        self._libc = ctypes.CDLL(None, use_errno=True)

    def capabilities(self) -> Capabilities:
        """PTP_CLOCK_GETCAPS."""
        answer = bytearray(80)
        fcntl.ioctl(self.fd, GETCAPS, answer)
        values = struct.unpack("20i", answer)
        return Capabilities(values[0], values[2], values[5], bool(values[6]))

    def set_pin(self, pin: int, function: int, channel: int) -> None:
        """PTP_PIN_SETFUNC."""
        fcntl.ioctl(self.fd, PIN_SETFUNC, struct.pack("64x3I20x", pin, function, channel))

    def request(self, channel: int, flags: int) -> None:
        """As PhcCalls has it."""
        number = EXTTS_REQUEST2 if flags & STRICT else EXTTS_REQUEST
        fcntl.ioctl(self.fd, number, struct.pack("2I8x", channel, flags))

    def events(self) -> list[Event]:
        """As PhcCalls has it."""
        found = []
        while select.select([self.fd], [], [], 0)[0]:
            data = os.read(self.fd, 30 * _EVENT_BYTES)
            for at in range(0, len(data), _EVENT_BYTES):
                seconds, nanoseconds, channel = struct.unpack_from("qI4xI", data, at)
                found.append(Event(channel, seconds * _SECOND_NS + nanoseconds))
        return found

    def time_ns(self) -> int:
        """clock_gettime(2)."""
        return time.clock_gettime_ns(self._clock)

    def _adjust(self, timex: Timex) -> None:
        if self._libc.clock_adjtime(ctypes.c_int(self._clock), ctypes.byref(timex)) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def frequency(self) -> int:
        """clock_adjtime(2) with no mode: what was dialed last."""
        timex = Timex()
        self._adjust(timex)
        return int(timex.freq)

    def set_frequency(self, value: int) -> None:
        """ADJ_FREQUENCY."""
        self._adjust(Timex(modes=_ADJ_FREQUENCY, freq=value))

    def step(self, ns: int) -> None:
        """ADJ_SETOFFSET."""
        seconds, nanoseconds = divmod(ns, _SECOND_NS)
        self._adjust(Timex(modes=_ADJ_SETOFFSET | _ADJ_NANO, tv_sec=seconds, tv_usec=nanoseconds))

    def offsets(self, *, extended: bool) -> list[tuple[int, int, int]]:
        """PTP_SYS_OFFSET, or PTP_SYS_OFFSET_EXTENDED."""
        size = _EXTENDED_BYTES if extended else _SYS_OFFSET_BYTES
        request = bytearray(struct.pack("I", SAMPLES).ljust(size, b"\0"))
        fcntl.ioctl(self.fd, SYS_OFFSET_EXTENDED if extended else SYS_OFFSET, request)
        step = 3 if extended else 2
        times = [_time(request, 16 + 16 * i) for i in range(step * SAMPLES + (not extended))]
        return [(times[i], times[i + 1], times[i + 2]) for i in range(0, step * SAMPLES, step)]

    def precise(self) -> tuple[int, int]:
        """PTP_SYS_OFFSET_PRECISE."""
        request = bytearray(64)
        fcntl.ioctl(self.fd, SYS_OFFSET_PRECISE, request)
        return _time(request, 16), _time(request, 0)

    def close(self) -> None:
        """Closes it."""
        os.close(self.fd)


class PpsCalls(Protocol):
    """The call that is made of a pulse of the kernel's; its errors are OSError."""

    def fetch(self) -> tuple[int, int]:
        """(number of the last rising edge, CLOCK_REALTIME in ns when the kernel saw it)."""
        ...


class Pps:
    """/dev/ppsN, RFC 2783 in the kernel's form (linux/pps.h). DeviceError where it cannot be opened."""

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(f"{path} cannot be opened: {error.strerror}; a pulse is /dev/ppsN") from error

    def fetch(self) -> tuple[int, int]:
        """PPS_FETCH, without waiting."""
        request = bytearray(PPS_FETCH_BYTES)
        fcntl.ioctl(self.fd, PPS_FETCH, request)
        number, seconds, nanoseconds = struct.unpack_from("I4xqi", request)
        return int(number), int(seconds) * _SECOND_NS + int(nanoseconds)

    def close(self) -> None:
        """Closes it."""
        os.close(self.fd)


def _time(data: bytearray, at: int) -> int:
    seconds, nanoseconds = struct.unpack_from("qI", data, at)
    return int(seconds) * _SECOND_NS + int(nanoseconds)


class RealWorld:
    """The machine: files to wait for, the receiver's port (pyserial), the kernel's clocks.

    address: as twinstamp_gps.port.Receiver takes it, errors of the first opening as there; None: no receiver.
    say: called with a line when the receiver goes, and when it is there again; it is tried once a second, and
    the clock runs on meanwhile.
    """

    def __init__(
        self,
        files: Sequence[int],
        address: str | None,
        baud: int = 38400,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._files = list(files)
        self._address, self._baud, self._say = address, baud, say
        self._line: Line | None = None
        self._tried_s = 0.0
        if address is not None:
            from twinstamp_gps.port import Line

            self._line = Line(address, baud=baud)

    def wait(self, seconds: float) -> None:
        """select(2); a line that has no file is looked at 100 times a second."""
        files = [*self._files]
        if self._line is not None:
            number = self._line.fileno()
            if number is None:
                seconds = min(seconds, 0.01)
            else:
                files.append(number)
        select.select(files, [], [], max(0.0, seconds))

    def bytes(self) -> bytes:
        """As World has it."""
        from twinstamp_gps.errors import ReceiverError
        from twinstamp_gps.port import Line

        try:
            if self._line is not None:
                return self._line.read()
            if self._address is not None and time.monotonic() - self._tried_s >= 1:
                self._tried_s = time.monotonic()
                self._line = Line(self._address, baud=self._baud)
                self._say(f"receiver {self._address}: here again")
        except ReceiverError as error:
            if self._line is not None:
                self._say(f"{error}; it is tried again each second")
                self._line.close()
            self._line = None
        return b""

    def raw_ns(self) -> int:
        """As World has it."""
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)

    def boot_ns(self) -> int:
        """As World has it."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def close(self) -> None:
        """Closes the receiver's port."""
        if self._line is not None:
            self._line.close()
