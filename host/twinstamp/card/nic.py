# SPDX-License-Identifier: Apache-2.0
"""An interface's own stamps: what its driver says it can, switching them on, and the clock behind them.

Kernel: Documentation/networking/timestamping.rst, include/uapi/linux/{net_tstamp,ethtool,ptp_clock}.h.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import time
from typing import NamedTuple

from twinstamp.errors import DeviceError

_SIOCETHTOOL, _SIOCSHWTSTAMP, _SIOCGHWTSTAMP = 0x8946, 0x89B0, 0x89B1
_ETHTOOL_GET_TS_INFO = 0x41
_TX_HARDWARE, _TX_SOFTWARE, _RX_HARDWARE, _RAW_HARDWARE = 1 << 0, 1 << 1, 1 << 2, 1 << 6
_TX_ON, _FILTER_ALL = 1, 1  # HWTSTAMP_TX_ON, HWTSTAMP_FILTER_ALL
_SAMPLES = 10  # of PTP_SYS_OFFSET_EXTENDED; 25 at most
_SYS_OFFSET_BYTES = 4 * 4 + 25 * 3 * 16
_PTP_SYS_OFFSET_EXTENDED = 3 << 30 | _SYS_OFFSET_BYTES << 16 | ord("=") << 8 | 9


class StampingInfo(NamedTuple):
    """What the driver claims (ethtool -T). hardware: departures and all arrivals. phc: number of
    /dev/ptpN, -1: none."""

    software_departures: bool
    hardware: bool
    phc: int


def stamping_info(interface: str) -> StampingInfo:
    """What ``interface`` claims; nothing is believed before a frame has shown it (LinuxCard)."""
    import array

    request = array.array("B", struct.pack("IIiI3II3I", _ETHTOOL_GET_TS_INFO, *[0] * 10))
    address, _ = request.buffer_info()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, _SIOCETHTOOL, struct.pack("16sP16x", interface.encode(), address))
        except OSError:  # a driver without ethtool: no claim
            return StampingInfo(False, False, -1)
    _, can, phc, tx_types, *_, rx_filters, _, _, _ = struct.unpack("IIiI3II3I", request.tobytes()[:44])
    hardware = (
        can & (_TX_HARDWARE | _RX_HARDWARE | _RAW_HARDWARE) == _TX_HARDWARE | _RX_HARDWARE | _RAW_HARDWARE
        and bool(tx_types >> _TX_ON & 1)
        and bool(rx_filters >> _FILTER_ALL & 1)
    )
    return StampingInfo(bool(can & _TX_SOFTWARE), hardware, phc)


class HardwareStamps:
    """The interface stamps departures and all arrivals while this is open; then it is as it was found."""

    def __init__(self, interface: str) -> None:
        self._interface = interface
        self._found = self._ioctl(_SIOCGHWTSTAMP, (0, 0, 0))
        self._ioctl(_SIOCSHWTSTAMP, (0, _TX_ON, _FILTER_ALL))

    def _ioctl(self, number: int, config: tuple[int, ...]) -> tuple[int, ...]:
        import array

        memory = array.array("i", config)
        address, _ = memory.buffer_info()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            try:
                fcntl.ioctl(any_socket, number, struct.pack("16sP16x", self._interface.encode(), address))
            except OSError as error:
                raise DeviceError(
                    f"interface {self._interface} makes no stamps of its own: {error.strerror}; "
                    "open the card with hardware=False for the kernel's"
                ) from error
        return tuple(memory)

    def close(self) -> None:
        with contextlib.suppress(DeviceError):
            self._ioctl(_SIOCSHWTSTAMP, self._found)


class PhcOffset(NamedTuple):
    """system_ns - phc_ns, and half the window in which the hardware was read: what it may be wrong by."""

    offset_ns: int
    uncertainty_ns: int


def closest_offset(samples: list[tuple[int, int, int]]) -> PhcOffset:
    """From (system, phc, system) in ns: the sample with the shortest window."""
    before, phc, after = min(samples, key=lambda sample: sample[2] - sample[0])
    return PhcOffset((before + after) // 2 - phc, (after - before + 1) // 2)


class Phc:
    """/dev/ptpN: the clock of an interface's stamps."""

    def __init__(self, number: int) -> None:
        self._path = f"/dev/ptp{number}"
        try:
            self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise DeviceError(f"{self._path} cannot be opened: {error.strerror}") from error

    def time_ns(self) -> int:
        """What it reads, ns: clock_gettime(2) of the device (Documentation/driver-api/ptp.rst)."""
        return time.clock_gettime_ns((~self._fd << 3) | 3)

    def offset(self) -> PhcOffset:
        """PTP_SYS_OFFSET_EXTENDED: CLOCK_REALTIME against the PHC, the closest of ten looks."""
        request = bytearray(struct.pack("4I", _SAMPLES, 0, 0, 0).ljust(_SYS_OFFSET_BYTES, b"\0"))
        try:
            fcntl.ioctl(self._fd, _PTP_SYS_OFFSET_EXTENDED, request)
        except OSError as error:
            raise DeviceError(
                f"{self._path} cannot be compared with the system's clock: {error.strerror}"
            ) from error
        samples = []
        for i in range(_SAMPLES):
            times = []
            for k in range(3):
                seconds, nanoseconds, _ = struct.unpack_from("qII", request, 16 + (3 * i + k) * 16)
                times.append(seconds * 10**9 + nanoseconds)
            samples.append((times[0], times[1], times[2]))
        return closest_offset(samples)

    def close(self) -> None:
        os.close(self._fd)
