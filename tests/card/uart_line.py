# SPDX-License-Identifier: Apache-2.0
"""A serial line, bit by bit, into the Verilated uart_bridge, with the simulated card behind it."""

from __future__ import annotations

import ctypes
import random
from pathlib import Path
from typing import Any

import numpy as np
from twinstamp.card.sim import SimulatedCard
from twinstamp.card.uart import MEMORY_BYTES, UartTransport
from twinstamp.errors import DeviceError

LIBRARY = Path(__file__).resolve().parents[2] / "build" / "hdl" / "libuart_bridge.so"
_READ = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32, ctypes.POINTER(ctypes.c_uint32))
_WRITE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint32, ctypes.c_uint32)
_SLVERR = 2
_QUIET = 40_000  # cycles without a bit before the host gives up


class BenchLine:
    """As pyserial's Serial. divider: of the bridge; skew: how much longer the host's bits are.

    damage: chance that a byte of either direction has a bit turned, or is lost. Only the bridge and the line
    are run by the bit; the card goes on by as many cycles, 2,000 at most for each exchange.
    """

    def __init__(
        self,
        simulated: SimulatedCard,
        *,
        divider: int = 16,
        skew: float = 1.0,
        damage: float = 0.0,
        seed: int = 1,
    ) -> None:
        self.simulated = simulated
        memory, address = simulated.map_memory(MEMORY_BYTES)
        assert address == 0x1_0000_0000
        self._memory = memory
        self._damage = damage
        self._random = random.Random(seed)
        self._read, self._write = _READ(self._on_read), _WRITE(self._on_write)
        self._library: Any = ctypes.CDLL(str(LIBRARY))
        self._library.ub_new.restype = ctypes.c_void_p
        for name in ("ub_exchange", "ub_cycles", "ub_framing_errors"):
            getattr(self._library, name).restype = ctypes.c_uint64
        self._bench = ctypes.c_void_p(
            self._library.ub_new(
                divider, ctypes.c_double(divider * skew), self._read, self._write,
                ctypes.c_void_p(memory.ctypes.data), ctypes.c_uint64(MEMORY_BYTES),
            )
        )  # fmt: skip
        self._out = b""
        self.bytes_out = self.bytes_in = 0

    def _on_read(self, address: int, value: Any) -> int:
        try:
            value[0] = self.simulated.read32(address)
        except DeviceError:
            return _SLVERR
        return 0

    def _on_write(self, address: int, value: int) -> int:
        try:
            self.simulated.write32(address, value)
        except DeviceError:
            return _SLVERR
        return 0

    def _damaged(self, data: bytes) -> bytes:
        if not self._damage:
            return data
        out = bytearray()
        for byte in data:
            dice = self._random.random()
            if dice < self._damage / 2:
                continue
            out.append(byte ^ (1 << self._random.randrange(8)) if dice < self._damage else byte)
        return bytes(out)

    def write(self, data: bytes, /) -> int:
        self._out += self._damaged(data)
        self.bytes_out += len(data)
        return len(data)

    def read(self, size: int, /) -> bytes:
        back = np.zeros(max(1, size), np.uint8)
        out = np.frombuffer(self._out or b"\0", np.uint8)
        before = self._library.ub_cycles(self._bench)
        got = self._library.ub_exchange(
            self._bench, ctypes.c_void_p(out.ctypes.data), ctypes.c_uint64(len(self._out)),
            ctypes.c_void_p(back.ctypes.data), ctypes.c_uint64(size), ctypes.c_uint64(_QUIET),
        )  # fmt: skip
        self._out = b""
        cycles = self._library.ub_cycles(self._bench) - before
        self.simulated.run(min(2_000, cycles))
        self.bytes_in += got
        return self._damaged(back[:got].tobytes())

    def reset_input_buffer(self) -> None:
        """The host waits before it asks again: time in which the bridge forgets half a request."""
        self._out = b""
        room = np.zeros(1 << 16, np.uint8)
        self._library.ub_exchange(
            self._bench, ctypes.c_void_p(room.ctypes.data), ctypes.c_uint64(0),
            ctypes.c_void_p(room.ctypes.data), ctypes.c_uint64(len(room)), ctypes.c_uint64(2 << 17),
        )  # fmt: skip

    @property
    def cycles(self) -> int:
        return int(self._library.ub_cycles(self._bench))

    @property
    def framing_errors(self) -> int:
        return int(self._library.ub_framing_errors(self._bench))

    def close(self) -> None:
        if self._bench:
            self._library.ub_delete(self._bench)
            self._bench = ctypes.c_void_p(None)
            self.simulated.close()


def uart_transport(simulated: SimulatedCard, **options: Any) -> UartTransport:
    def sleep(seconds: float) -> None:
        while seconds > 0:
            seconds -= simulated.wait(seconds)

    return UartTransport(BenchLine(simulated, **options), "uart:bench", sleep=sleep)
