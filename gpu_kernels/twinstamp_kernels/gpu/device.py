# SPDX-License-Identifier: Apache-2.0
"""What the launcher needs of a device: memory, copies, launches, order. CUDA's is in cuda.py."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

BLOCK = 256  # threads of a block, as in twinstamp/grid.h

Bytes = npt.NDArray[np.uint8]


class DeviceFailure(RuntimeError):  # noqa: N818
    """The device, its driver or its memory failed: nothing on it can be trusted any more."""


class Device(Protocol):
    """A device with its own memory. Addresses are plain integers, streams and events opaque.

    Copies and launches are asynchronous: in order within one stream, in no order between streams but
    what events give. Host arrays given to copies must be contiguous, stay alive and (uploads) unchanged
    until the stream got there; those that pinned() gave are copied without a detour.

    Every method raises DeviceFailure where the device does not do its part.
    """

    name: str

    def allocate(self, size: int) -> int:
        """Address of `size` bytes, aligned to 256, with at least 16 readable bytes behind them.
        Contents are undefined."""

    def free(self, address: int) -> None:
        """Gives an allocation back; nothing may be using it. None of a failed device raises here."""

    def pinned(self, size: int) -> Bytes:
        """Page-locked host memory; it lives as long as the array."""

    def is_pinned(self, array: npt.NDArray[Any]) -> bool:
        """Whether all of a contiguous array lies in one piece of memory that pinned() gave."""

    def stream(self) -> Any:
        """A new stream."""

    def upload(self, address: int, source: npt.NDArray[Any], stream: Any) -> None:
        """Copies a host array to the device."""

    def download(self, target: npt.NDArray[Any], address: int, stream: Any) -> None:
        """Copies from the device into a host array."""

    def fill(self, address: int, value: int, size: int, stream: Any) -> None:
        """Sets `size` bytes to a byte's value."""

    def launch(self, kernel: str, blocks: int, arguments: Sequence[int], stream: Any) -> None:
        """Runs a kernel on `blocks` blocks of BLOCK threads. arguments: addresses and integers from -2^63
        to 2^64 - 1, as many as the kernel has parameters, 8 bytes each. 0 blocks: does nothing."""

    def record(self, stream: Any) -> Any:
        """An event that comes to pass when the stream has done all it was given so far."""

    def wait(self, stream: Any, event: Any) -> None:
        """Lets what the stream is given from now on wait for an event."""

    def synchronize(self, event: Any) -> None:
        """Waits, on the host, for an event. Raises DeviceFailure also where it does not come in time."""

    def close(self) -> None:
        """Gives everything back. Further calls do nothing; never raises."""


class PinnedRanges:
    """Which addresses are page-locked: for Device.is_pinned()."""

    def __init__(self) -> None:
        self._ranges: dict[int, int] = {}

    def add(self, owner: Any, address: int, size: int) -> None:
        """Adds `size` bytes from `address` on, for as long as `owner` lives."""
        self._ranges[address] = size
        weakref.finalize(owner, self._ranges.pop, address, None)

    def contain(self, array: npt.NDArray[Any]) -> bool:
        begin = array.ctypes.data
        return any(
            start <= begin and begin + array.nbytes <= start + size
            for start, size in list(self._ranges.items())
        )
