# SPDX-License-Identifier: Apache-2.0
"""The Verilated clock_card from Python: its oscillator, its PPS line, its serial line, its registers."""

from __future__ import annotations

import ctypes
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from twinstamp.card.regmap import MEMORIES, REGISTERS

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "build" / "hdl" / "libclock_card.so"
FS = 10**15
PERIOD_FS = 8_000_000


class Counts(NamedTuple):
    """Of the simulation, in femtoseconds and core clock cycles."""

    now_fs: int
    before_fs: int
    cycles: int
    leapt: int
    awake: int
    longest: int


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    library.cs_new.restype = ctypes.c_void_p
    pointer, i64, u64, u32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64, ctypes.c_uint32
    for name, arguments in {
        "cs_new": [u64], "cs_delete": [pointer], "cs_options": [pointer, ctypes.c_int, ctypes.c_int],
        "cs_period": [pointer, i64, u32], "cs_noise": [pointer, i64, i64], "cs_change": [pointer, i64],
        "cs_send": [pointer, i64, i64, ctypes.c_char_p, u64, ctypes.c_int], "cs_run_until": [pointer, i64],
        "cs_write": [pointer, u32, u32], "cs_read": [pointer, u32, pointer], "cs_counts": [pointer, pointer],
        "cs_clear_longest": [pointer], "cs_time": [pointer, pointer, pointer],
        "cs_output": [pointer, pointer, u64], "cs_state": [pointer, pointer, u64],
    }.items():  # fmt: skip
        getattr(library, name).argtypes = arguments
    library.cs_output.restype = u64
    library.cs_state.restype = u64
    return library


class SimulatedClock:
    """One simulated clock_card; time moves in ``run_until`` and in register accesses only."""

    name = "clock"

    def __init__(self, *, seed: int = 1, leaping: bool = True, gated: bool = True) -> None:
        self._library = _load()
        self._sim = ctypes.c_void_p(self._library.cs_new(seed))
        self._library.cs_options(self._sim, leaping, gated)

    def close(self) -> None:
        if self._sim:
            self._library.cs_delete(self._sim)
            self._sim = ctypes.c_void_p()

    __del__ = close

    # The driver's transport

    def read32(self, address: int) -> int:
        value = ctypes.c_uint32()
        assert self._library.cs_read(self._sim, address, ctypes.byref(value)), f"no answer at 0x{address:X}"
        return value.value

    def write32(self, address: int, value: int) -> None:
        assert self._library.cs_write(self._sim, address, value), f"no answer at 0x{address:X}"

    def map_memory(self, size: int) -> tuple[np.ndarray, int]:
        raise NotImplementedError("clock_card has no ports and no rings")

    def wait(self, seconds: float) -> float:
        self.run(max(1, round(seconds * 125e6)))
        return seconds

    def read(self, name: str) -> int:
        register = REGISTERS[name]
        value = self.read32(register.offset)
        return value | self.read32(register.offset + 4) << 32 if register.width == 64 else value

    def write(self, name: str, value: int) -> None:
        register = REGISTERS[name]
        self.write32(register.offset, value & 0xFFFFFFFF)
        if register.width == 64:
            self.write32(register.offset + 4, value >> 32 & 0xFFFFFFFF)

    def field(self, name: str) -> int:
        register, _, field = name.rpartition(".")
        place = REGISTERS[register].fields[field]
        return self.read(register) >> place.low & (1 << place.width) - 1

    # The core's memory

    def load(self, image: bytes) -> None:
        """Fills the core's memory: the image, then 0xDEADBEEF."""
        base, size = MEMORIES["cpu_memory"]
        words = np.frombuffer(image.ljust(-(-len(image) // 4) * 4, b"\0"), dtype="<u4")
        for i in range(size // 4):
            self.write32(base + 4 * i, int(words[i]) if i < len(words) else 0xDEADBEEF)

    def memory(self, address: int, size: int) -> bytes:
        base, _ = MEMORIES["cpu_memory"]
        return b"".join(
            self.read32(base + a).to_bytes(4, "little") for a in range(address, address + size, 4)
        )

    # The world

    def set_period(self, ppb: float) -> None:
        """The oscillator's frequency from now on: ``ppb`` above 125 MHz."""
        period = round(Fraction(PERIOD_FS << 32) / (1 + Fraction(ppb) / 10**9))
        self._library.cs_period(self._sim, period >> 32, period & 0xFFFFFFFF)

    def set_sampler(self, *, jitter_fs: int, window_fs: int) -> None:
        self._library.cs_noise(self._sim, jitter_fs, window_fs)

    def change(self, fs: int) -> None:
        """The PPS line changes at ``fs``."""
        assert self._library.cs_change(self._sim, fs), f"the line cannot change at {fs} fs"

    def pulse(self, fs: int, width_fs: int = FS // 10) -> None:
        self.change(fs)
        self.change(fs + width_fs)

    def send(self, fs: int, data: bytes, *, baud: int = 115200, stop: bool = True) -> None:
        """Bytes into the card, from ``fs`` on."""
        self._library.cs_send(self._sim, fs, FS // baud, data, len(data), stop)

    def run_until(self, fs: int) -> None:
        """Runs all edges at or before ``fs``."""
        self._library.cs_run_until(self._sim, fs)

    def run(self, cycles: int) -> None:
        self.run_until(self.counts.now_fs + cycles * PERIOD_FS)

    @property
    def counts(self) -> Counts:
        out = np.zeros(6, dtype=np.int64)
        self._library.cs_counts(self._sim, out.ctypes.data)
        return Counts(*out.tolist())

    def clear_longest(self) -> None:
        self._library.cs_clear_longest(self._sim)

    def card_time(self, fs: int) -> Fraction:
        """The truth: card time at ``fs``, in s, on the line through the last two edges."""
        words = np.zeros(8, dtype=np.uint32)
        self._library.cs_time(self._sim, words.ctypes.data, words[4:].ctypes.data)
        now, before = (sum(int(w) << 32 * i for i, w in enumerate(part)) for part in (words[:4], words[4:]))
        counts = self.counts
        rate = Fraction(now - before, counts.now_fs - counts.before_fs)
        return (now + rate * (fs - counts.now_fs)) / 2**72

    def output(self) -> list[int]:
        """Changes of the PPS output since the last call, fs."""
        out = np.zeros(4096, dtype=np.int64)
        return out[: self._library.cs_output(self._sim, out.ctypes.data, len(out))].tolist()

    def state(self) -> bytes:
        """Every signal in the model."""
        out = np.zeros(int(self._library.cs_state(self._sim, None, 0)), dtype=np.uint8)
        self._library.cs_state(self._sim, out.ctypes.data, len(out))
        return out.tobytes()
