# SPDX-License-Identifier: Apache-2.0
"""Ordered output of a grid (twinstamp/tiles.h, cuda/compact.cu)."""

from __future__ import annotations

from typing import Any

import numpy as np

from twinstamp_kernels.gpu.device import Device
from twinstamp_kernels.gpu.staging import DeviceBuffer

TILE = 2048  # frames of a block in ordered output: TILE in twinstamp/tiles.h


class TileSums:
    """What each tile of frames puts out, and from scan() on, where each begins.

    Every method raises DeviceFailure where the device does.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._sums, self._total = DeviceBuffer(device), DeviceBuffer(device)
        self._host = device.pinned(8).view(np.uint64)
        self._total.ensure(8)

    def start(self, frames: int) -> int:
        """Address of u64[tiles] for what the tiles of `frames` frames put out."""
        self._tiles = -(-frames // TILE)
        return self._sums.ensure(8 * self._tiles)

    def launch(self, kernel: str, arguments: tuple[int, ...], stream: Any) -> None:
        """Runs a kernel with a block per tile."""
        self._device.launch(kernel, self._tiles, arguments, stream)

    def enqueue_scan(self, total: int, stream: Any) -> None:
        """Makes each tile's sum the sum of those before it, and that of all the u64 at `total`."""
        self._device.launch("scan_sums", 1, (self._sums.address, self._tiles, total), stream)

    def scan(self, stream: Any) -> int:
        """As enqueue_scan(); waits for that, and gives the sum of all."""
        self.enqueue_scan(self._total.address, stream)
        return self._read_total(stream)

    def list_marked(self, mark: int, frames: int, numbers: int, stream: Any) -> int:
        """Writes the numbers of frames whose u8 mark is not zero, u32, ascending, to `numbers`; waits until
        it is known how many there are, and gives that."""
        self.enqueue_marked(mark, frames, numbers, self._total.address, stream)
        return self._read_total(stream)

    def enqueue_marked(self, mark: int, frames: int, numbers: int, total: int, stream: Any) -> None:
        """As list_marked(), without waiting; how many there are goes to the u64 at `total`."""
        sums = self.start(frames)
        self.launch("count_marked", (mark, frames, sums), stream)
        self.enqueue_scan(total, stream)
        self.launch("write_marked", (mark, frames, sums, numbers), stream)

    def _read_total(self, stream: Any) -> int:
        self._device.download(self._host, self._total.address, stream)
        self._device.synchronize(self._device.record(stream))
        return int(self._host[0])

    @property
    def bytes(self) -> int:
        """Memory held on the device."""
        return self._sums.size + self._total.size

    def close(self) -> None:
        """Gives the memory back; nothing may be using it."""
        self._sums.free()
        self._total.free()
