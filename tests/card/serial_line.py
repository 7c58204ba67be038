# SPDX-License-Identifier: Apache-2.0
"""The Verilated serial_card with a serial line to the host, bit by bit, and wires at its ports."""

from __future__ import annotations

import ctypes
import zlib
from pathlib import Path
from typing import Any

import numpy as np

LIBRARY = Path(__file__).resolve().parents[2] / "build" / "hdl" / "libserial_card.so"
CYCLE_S = 8e-9
_QUIET = 40_000  # cycles without a bit before the host gives up


class SerialCardLine:
    """As pyserial's Serial. divider: cycles per bit, 16 at least; skew: how much longer the host's are."""

    def __init__(self, *, divider: int = 16, skew: float = 1.0) -> None:
        self._library: Any = ctypes.CDLL(str(LIBRARY))
        self._library.sc_new.restype = ctypes.c_void_p
        for name in ("sc_exchange", "sc_cycles", "sc_framing_errors", "sc_sent"):
            getattr(self._library, name).restype = ctypes.c_uint64
        self._bench = ctypes.c_void_p(self._library.sc_new(divider, ctypes.c_double(divider * skew)))
        self._out = b""

    def write(self, data: bytes, /) -> int:
        self._out += data
        return len(data)

    def _exchange(self, out: bytes, size: int, quiet: int) -> bytes:
        back = np.zeros(max(1, size), np.uint8)
        data = np.frombuffer(out or b"\0", np.uint8)
        got = self._library.sc_exchange(
            self._bench, ctypes.c_void_p(data.ctypes.data), ctypes.c_uint64(len(out)),
            ctypes.c_void_p(back.ctypes.data), ctypes.c_uint64(size), ctypes.c_uint64(quiet),
        )  # fmt: skip
        return back[:got].tobytes()

    def read(self, size: int, /) -> bytes:
        out, self._out = self._out, b""
        return self._exchange(out, size, _QUIET)

    def reset_input_buffer(self) -> None:
        self._out = b""
        self._exchange(b"", 1 << 16, 2 << 17)

    def run(self, seconds: float) -> None:
        self._library.sc_run(self._bench, ctypes.c_uint64(int(seconds / CYCLE_S)))

    def wire(self, port: int, frame: bytes, *, gap: int = 12) -> None:
        """Puts a frame, its FCS added, on the wire into ``port``, with ``gap`` byte times after it."""
        data = np.frombuffer(frame + zlib.crc32(frame).to_bytes(4, "little"), np.uint8)
        self._library.sc_wire(
            self._bench,
            port,
            ctypes.c_void_p(data.ctypes.data),
            ctypes.c_uint64(len(data)),
            ctypes.c_uint64(gap),
        )

    def sent(self, port: int) -> bytes | None:
        """The oldest frame that left ``port``: checked preamble and FCS taken off."""
        room = np.zeros(1 << 14, np.uint8)
        n = self._library.sc_sent(self._bench, port, ctypes.c_void_p(room.ctypes.data))
        if not n:
            return None
        symbols = room[:n].tobytes()
        assert symbols[:8] == b"\x55" * 7 + b"\xd5"
        frame, fcs = symbols[8:-4], symbols[-4:]
        assert zlib.crc32(frame).to_bytes(4, "little") == fcs
        return frame

    @property
    def framing_errors(self) -> int:
        return int(self._library.sc_framing_errors(self._bench))

    def close(self) -> None:
        if self._bench:
            self._library.sc_delete(self._bench)
            self._bench = ctypes.c_void_p(None)
