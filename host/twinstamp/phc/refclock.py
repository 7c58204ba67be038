# SPDX-License-Identifier: Apache-2.0
"""A disciplined PHC handed to chronyd, ntpd and whoever reads gpsd's shared memory.

SOCK: chrony, refclock_sock.c, struct sock_sample. SHM: ntp, refclock_shm.c, struct shmTime, mode 1; as gpsd's
ntpshmwrite.c has it. The kernel's clock is compared with the PHC by the closest of ten looks.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from twinstamp.card.nic import closest_offset
from twinstamp.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twinstamp.phc.device import PhcCalls
    from twinstamp.phc.record import ClockRecord

_NS = 1_000_000_000
_DAY_S = 86_400
_SOCK_MAGIC = 0x534F434B
_SAMPLE = struct.Struct("@qqdiiii")
_SHM_KEY = 0x4E545030  # "NTP0"
_SHM_BYTES = 96
_IPC_CREAT = 0o1000
_LOCKED, _HOLDOVER = 2, 3


class Sample(NamedTuple):
    """system_ns: CLOCK_REALTIME. reference_ns: UTC by the PHC at that moment. leap: 0, 1 (a second is
    inserted at the end of this day), 2 (deleted). error_ns: the published bound and half the comparison's
    window."""

    system_ns: int
    reference_ns: int
    leap: int
    error_ns: int


def sample(phc: PhcCalls, record: ClockRecord, *, extended: bool = True) -> Sample | None:
    """A comparison now. None where the record says nothing that may be passed on: neither locked nor in
    holdover, no bound, TAI - UTC not known. OSError where the PHC cannot be compared."""
    if record.state not in (_LOCKED, _HOLDOVER) or record.bound_ns < 0 or record.utc_source == 0:
        return None
    looks = phc.offsets(extended=extended)
    found = closest_offset(looks)
    before, reading, after = min(looks, key=lambda look: look[2] - look[0])
    utc_ns = record.utc_offset().utc_ns(reading)
    utc_s = utc_ns // _NS
    to_leap_s = record.leap_tai_s - reading // _NS
    leap = 0
    if record.leap_s and 0 < to_leap_s <= _DAY_S - utc_s % _DAY_S + 1:
        leap = 1 if record.leap_s > 0 else 2
    return Sample((before + after) // 2, utc_ns, leap, record.bound_ns + found.uncertainty_ns)


class SockClock:
    """chrony's `refclock SOCK PATH`. chronyd makes the socket; while it is not there, nothing is sent."""

    def __init__(self, path: str) -> None:
        if len(os.fsencode(path)) > 107:
            raise ConfigError(f"--chrony-sock {path}: a socket's path has at most 107 bytes")
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, one: Sample) -> None:
        """Hands a sample over, or drops it."""
        seconds, nanoseconds = divmod(one.system_ns, _NS)
        offset_s = (one.reference_ns - one.system_ns) / _NS
        data = _SAMPLE.pack(seconds, nanoseconds // 1000, offset_s, 0, one.leap, 0, _SOCK_MAGIC)
        with contextlib.suppress(OSError):
            self._socket.sendto(data, self._path)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()


class ShmClock:
    """`refclock SHM unit` of chrony, `server 127.127.28.unit` of ntpd. Units 0 and 1 are root's, as
    gpsd's."""

    def __init__(self, unit: int) -> None:
        if not 0 <= unit <= 255:
            raise ConfigError(f"--shm {unit}: give 0 to 255")
        libc = ctypes.CDLL(None, use_errno=True)
        libc.shmat.restype = ctypes.c_void_p
        libc.shmat.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int)
        libc.shmdt.argtypes = (ctypes.c_void_p,)
        self._libc = libc
        mode = 0o600 if unit < 2 else 0o666
        segment = libc.shmget(_SHM_KEY + unit, ctypes.c_size_t(_SHM_BYTES), _IPC_CREAT | mode)
        self._at = libc.shmat(segment, None, 0) if segment >= 0 else None
        if self._at in (None, ctypes.c_void_p(-1).value):
            why = os.strerror(ctypes.get_errno())
            raise DeviceError(f"--shm {unit}: the shared memory cannot be had: {why}; another unit?")
        self._memory = (ctypes.c_char * _SHM_BYTES).from_address(int(self._at))
        self._count = 0

    def send(self, one: Sample) -> None:
        """Puts a sample there: count goes up before and after, valid is set last."""
        struct.pack_into("@i", self._memory, 48, 0)
        self._count = (self._count + 1) & 0x7FFFFFFF
        struct.pack_into("@ii", self._memory, 0, 1, self._count)
        reference_s, reference_ns = divmod(one.reference_ns, _NS)
        system_s, system_ns = divmod(one.system_ns, _NS)
        precision = max(-30, min(0, math.ceil(math.log2(max(1, one.error_ns) / _NS))))
        struct.pack_into("@qi", self._memory, 8, reference_s, reference_ns // 1000)
        struct.pack_into("@qiiii", self._memory, 24, system_s, system_ns // 1000, one.leap, precision, 3)
        struct.pack_into("@II", self._memory, 52, reference_ns, system_ns)
        self._count = (self._count + 1) & 0x7FFFFFFF
        struct.pack_into("@i", self._memory, 4, self._count)
        struct.pack_into("@i", self._memory, 48, 1)

    def close(self) -> None:
        """Says that nothing more comes, and lets the memory go; it stays for the next one."""
        struct.pack_into("@i", self._memory, 48, 0)
        del self._memory
        self._libc.shmdt(self._at)


class RefClocks:
    """Hands a sample to each clock after each step. PTP_SYS_OFFSET_EXTENDED where the driver has it."""

    def __init__(self, phc: PhcCalls, clocks: Sequence[SockClock | ShmClock]) -> None:
        self._phc, self._clocks = phc, clocks
        self._extended = True

    def step(self, record: ClockRecord) -> None:
        """To be called with each record that was just published."""
        if not self._clocks:
            return
        try:
            one = sample(self._phc, record, extended=self._extended)
        except OSError:
            self._extended = not self._extended  # the plain one next time
            return
        if one is not None:
            for clock in self._clocks:
                clock.send(one)
