# SPDX-License-Identifier: Apache-2.0
"""The simulated card: the Verilated RTL in this process, with its clocks, wires and host memory.

The library is made by `make hdl`, the one that writes waveforms by `make hdl TRACE=1`; a wheel that
`make wheel` made has it inside. TWINSTAMP_SIM names another one.
"""

from __future__ import annotations

import ctypes
import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinstamp.errors import ConfigError, DeadCardError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

PORTS = 4
NOMINAL_PERIOD_FS = 8_000_000
CYCLES_PER_S = 10**15 // NOMINAL_PERIOD_FS
RING_ADDRESS = 0x1_0000_0000
_ABI = 6
_SOURCES = Path(__file__).resolve().parents[3]  # of a clone; elsewhere no folder of ours
_BUILD = _SOURCES / "build" / "hdl"
_PACKAGED = Path(__file__).resolve().parent / "libtwinstamp_sim.so"

# As WireItem and WireTruth in hdl/sim/card_sim.h.
WIRE_ITEM = np.dtype(
    [
        ("offset", "u8"),
        ("length", "u4"),
        ("gap", "u4"),
        ("not_before_fs", "i8"),
        ("preamble", "u2"),
        ("flags", "u1"),
        ("damage", "u1"),
        ("error_at", "u4"),
    ]
)
WIRE_TRUTH = np.dtype(
    [
        ("sfd_fs", "i8"),
        ("first_fs", "i8"),
        ("sfd_q32", "u8"),
        ("first_q32", "u8"),
        ("sfd_rest", "u4"),
        ("first_rest", "u4"),
    ]
)
# As CloudTruth in hdl/sim/cloud.h.
CLOUD_TRUTH = np.dtype(
    [
        ("departure_fs", "i8"),
        ("due_fs", "i8"),
        ("arrival_fs", "i8"),
        ("number", "u8"),
        ("length", "u4"),
        ("fate", "u4"),
    ]
)
CLOUD_LOST = 1
CLOUD_COPY = 2
CLOUD_LATE = 4
WIRE_ADD_FCS = 1
WIRE_NO_SFD = 2
WIRE_MARKS = 4
NO_ERROR = 0xFFFFFFFF
_WANDER_CYCLES = 1024  # Clock::INTERVAL


def _not_built(given: str | None, command: str, *, trace: bool) -> str:
    """What to do about a library that is missing, from where the user is."""
    what = "the simulated card with waveforms" if trace else "the simulated card"
    if given:
        return (
            f"{what} is not built: TWINSTAMP_SIM names {given}, which is missing; run `{command}` or unset it"
        )
    if (_SOURCES / "hdl" / "rtl").is_dir():
        return f"{what} is not built: run `{command}` in {_SOURCES}"
    return (
        f"{what} is not part of this installation: in a clone of the repository run `{command}` and set "
        "TWINSTAMP_SIM to its build/hdl/"
        + (
            "libtwinstamp_sim_trace.so"
            if trace
            else "libtwinstamp_sim.so, or install what `make wheel` makes"
        )
    )


def _load(*, trace: bool) -> ctypes.CDLL:
    name, command = (
        ("libtwinstamp_sim_trace.so", "make hdl TRACE=1") if trace else ("libtwinstamp_sim.so", "make hdl")
    )
    given = os.environ.get("TWINSTAMP_SIM")
    packaged = given is None and not trace and _PACKAGED.is_file()
    path = Path(given) if given else _PACKAGED if packaged else _BUILD / name
    if not path.is_file():
        raise DeviceError(_not_built(given, command, trace=trace))
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise DeviceError(
            f"the simulated card {path} cannot be loaded: {error}; build it for this machine: `{command}`"
        ) from error
    if library.ts_abi() != _ABI:
        raise DeviceError(
            f"the simulated card {path} has interface {library.ts_abi()}, this driver needs {_ABI}: "
            f"run `{command}`"
        )
    pointer, u32, u64, i64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_int64
    for name, result, arguments in (
        ("ts_new", pointer, [u64]),
        ("ts_delete", None, [pointer]),
        ("ts_set_clock", None, [pointer, ctypes.c_int, i64, u32, i64]),
        ("ts_set_memory", None, [pointer, u64, pointer, u64]),
        ("ts_set_stall", None, [pointer, u32, u32, u32]),
        ("ts_set_error", None, [pointer, u32]),
        ("ts_set_window", None, [pointer, i64]),
        ("ts_send", None, [pointer, ctypes.c_int, pointer, u64, pointer, u64]),
        ("ts_pending", u64, [pointer, ctypes.c_int]),
        ("ts_truth", u64, [pointer, ctypes.c_int, pointer, u64]),
        ("ts_run", None, [pointer, u64]),
        ("ts_pulse", ctypes.c_int, [pointer, i64]),
        ("ts_serial", None, [pointer, i64, i64, ctypes.c_char_p, u64]),
        ("ts_sampler", None, [pointer, i64, i64]),
        ("ts_set_warp", None, [pointer, ctypes.c_int]),
        ("ts_state", u64, [pointer, pointer, u64]),
        ("ts_warped", u64, [pointer]),
        ("ts_run_wires", u64, [pointer, u64]),
        ("ts_write", ctypes.c_int, [pointer, u32, u32, u32]),
        ("ts_record", None, [pointer, ctypes.c_int, ctypes.c_int]),
        ("ts_recorded", u64, [pointer, ctypes.c_int, pointer, u64]),
        ("ts_read", ctypes.c_int, [pointer, u32, ctypes.POINTER(u32)]),
        ("ts_now_fs", i64, [pointer]),
        ("ts_cycles", u64, [pointer]),
        ("ts_bursts", u64, [pointer]),
        ("ts_connect", None, [pointer, ctypes.c_int, pointer, ctypes.c_int, i64]),
        ("ts_plug", None, [pointer, ctypes.c_int, ctypes.c_int, u32, u32]),
        ("ts_set_phy", None, [pointer, ctypes.c_int, i64, i64, u64]),
        ("ts_phy", ctypes.c_int, [pointer, ctypes.c_int, ctypes.POINTER(i64), ctypes.POINTER(i64)]),
        ("ts_run_until", None, [pointer, i64]),
        ("ts_wander", None, [pointer, ctypes.c_int, ctypes.c_double, ctypes.c_double, u64]),
        ("ts_clock", None, [pointer, ctypes.c_int, pointer]),
        ("ts_cloud", pointer, [pointer, ctypes.c_int, u64, pointer]),
        ("ts_cloud_delete", None, [pointer]),
        ("ts_cloud_from", ctypes.c_int, [pointer, pointer, ctypes.c_int]),
        ("ts_cloud_send", ctypes.c_int, [pointer, pointer, u64, pointer]),
        ("ts_cloud_truth", u64, [pointer, pointer, u64]),
        ("ts_set_plain", None, [pointer, ctypes.c_int]),
        ("ts_trace", ctypes.c_int, [pointer, ctypes.c_char_p]),
    ):
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


class Frames(NamedTuple):
    """What to put on a wire: ``items`` (WIRE_ITEM[n]) pointing into ``data`` (u8[])."""

    items: npt.NDArray[np.void]
    data: npt.NDArray[np.uint8]


def frames(
    contents: Sequence[bytes],
    *,
    gap: int | Sequence[int] = 12,
    preamble: int = 7,
    add_fcs: bool = True,
) -> Frames:
    """Well-formed frames for SimulatedCard.send.

    contents: bytes from the destination address on, without FCS (with it where not ``add_fcs``). gap: idle
    byte times before each frame. preamble: bytes 0x55 before the SFD.
    """
    lengths = np.array([len(content) for content in contents], dtype=np.uint32)
    items = np.zeros(len(contents), dtype=WIRE_ITEM)
    items["length"] = lengths
    items["offset"][1:] = np.cumsum(lengths[:-1], dtype=np.uint64)
    items["gap"] = gap
    items["preamble"] = preamble
    items["flags"] = WIRE_ADD_FCS if add_fcs else 0
    items["error_at"] = NO_ERROR
    return Frames(items, np.frombuffer(b"".join(contents), dtype=np.uint8))


def _check_port(port: int) -> None:
    if not 0 <= port < PORTS:
        raise ConfigError(f"no port {port}: this card has 0 to {PORTS - 1}")


def _checked(what: Frames) -> Frames:
    """The same in one piece each. Raises ConfigError where an item lies outside the data."""
    items, data = np.ascontiguousarray(what.items), np.ascontiguousarray(what.data)
    needed = items["length"].astype(np.int64) << ((items["flags"] & WIRE_MARKS) != 0)
    outside = (items["offset"] > len(data)) | (needed > len(data) - items["offset"].astype(np.int64))
    if outside.any():
        i = int(np.flatnonzero(outside)[0])
        raise ConfigError(
            f"item {i}: {items['length'][i]} bytes from byte {items['offset'][i]} on, in {len(data)} of data"
        )
    return Frames(items, data)


def _take_all(dtype: np.dtype[Any], take: Callable[[int, int], int]) -> npt.NDArray[Any]:
    """All rows that ``take`` (address, rows) → rows written has to give."""
    room = np.empty(4096, dtype=dtype)
    parts = []
    while True:
        n = take(room.ctypes.data, len(room))
        parts.append(room[:n].copy())
        if n < len(room):
            return np.concatenate(parts)


class ClockTruth(NamedTuple):
    """edges so far, time of the last one, and the period in force, fs."""

    edges: int
    last_fs: int
    period_fs: Fraction


class SimulatedCard:
    """One Verilated card and the world around it. Serves as the driver's transport.

    seed: of memory stalls and of what flip-flops at clock crossings catch. step_cycles: core clock cycles
    that ``wait`` runs before the driver looks again. warp: idle time passes in one step, the same to the last
    bit (not while memory stalls or another card feeds this one: then it runs edge by edge as always). trace:
    waveforms of every signal go there (FST, in fs), until the card is closed; they need the slower library of
    ``make hdl TRACE=1``, and nothing warps.

    Simulated time moves only within calls. Not for use from several threads at once.
    Errors: DeviceError when the library is missing or the bus hangs; ConfigError for impossible values, and
    for a trace that cannot be written.
    """

    name = "sim"

    def __init__(
        self, *, seed: int = 1, step_cycles: int = 4096, warp: bool = False, trace: Path | None = None
    ) -> None:
        self._card: int | None = None  # __del__ looks at it where the library is missing
        self._library = _load(trace=trace is not None)
        if trace is not None and not os.access(Path(trace).parent, os.W_OK):
            raise ConfigError(f"no waveforms into {trace}: its folder is missing or cannot be written to")
        self._card = self._library.ts_new(seed)
        if trace is not None and not self._library.ts_trace(self._card, os.fsencode(trace)):
            self.close()
            raise ConfigError(f"no waveforms into {trace}: TWINSTAMP_SIM is a library built without TRACE=1")
        self._library.ts_set_warp(self._card, warp)
        self._memory: npt.NDArray[np.uint8] | None = None
        self.step_cycles = step_cycles
        self._feeds: list[SimulatedCard] = []  # kept alive: this one's edges run them

    def read32(self, address: int) -> int:
        value = ctypes.c_uint32()
        if not self._library.ts_read(self._handle(), address, ctypes.byref(value)):
            raise DeadCardError(f"the card's bus does not answer a read at 0x{address:04X}")
        return value.value

    def write32(self, address: int, value: int, strobe: int = 15) -> None:
        """strobe: which of the four bytes are written, a bit for each, the lowest first."""
        if not self._library.ts_write(self._handle(), address, value, strobe):
            raise DeadCardError(f"the card's bus does not answer a write at 0x{address:04X}")

    def map_memory(self, size: int) -> tuple[npt.NDArray[np.uint8], int]:
        self._memory = np.zeros(size, dtype=np.uint8)
        self._library.ts_set_memory(self._handle(), RING_ADDRESS, self._memory.ctypes.data, size)
        return self._memory, RING_ADDRESS

    def wait(self, seconds: float) -> float:
        cycles = min(self.step_cycles, max(1, round(seconds * CYCLES_PER_S)))
        self._library.ts_run(self._handle(), cycles)
        return cycles / CYCLES_PER_S

    def close(self) -> None:
        if self._card is not None:
            self._library.ts_delete(self._card)
            self._card = None

    def _handle(self) -> int:
        if self._card is None:
            raise DeviceError("this simulated card is closed")
        return int(self._card)

    def __del__(self) -> None:
        self.close()

    # The world

    def set_clock(self, clock: str, *, ppb: float = 0.0, phase_fs: int | None = None) -> None:
        """Offset of "core" or "rx0".."rx3" from 125 MHz in ppb; phase_fs: its next edge from now."""
        which = self._clock(clock)
        if not -1_000_000 <= ppb <= 1_000_000:
            raise ConfigError(f"clock {clock}: an offset of {ppb} ppb is beyond 1000 ppm")
        period = round(Fraction(NOMINAL_PERIOD_FS << 32) / (1 + Fraction(ppb) / 10**9))
        phase = -1 if phase_fs is None else phase_fs
        self._library.ts_set_clock(self._handle(), which, period >> 32, period & 0xFFFFFFFF, phase)

    def set_wander(self, clock: str, *, white_ppb: float = 0.0, walk_ppb: float = 0.0, seed: int = 1) -> None:
        """Noise on an oscillator's frequency, on top of its offset, from now on; zeros: none.

        white_ppb: white frequency noise, as its Allan deviation over 1 s (over t seconds 1/sqrt(t) of that).
        walk_ppb: standard deviation of the random walk's change in 1 s. The period is set anew every 1024
        edges. A sender's clock on a cable takes its wander along. A new offset (set_clock) ends the wander's
        effect until the next 1024 edges.
        """
        which = self._clock(clock)
        if not (0 <= white_ppb <= 100 and 0 <= walk_ppb <= 10_000):
            raise ConfigError(f"wander of {white_ppb} and {walk_ppb} ppb: give 0 to 100 and 0 to 10,000")
        root = (_WANDER_CYCLES * NOMINAL_PERIOD_FS * 1e-15) ** 0.5
        self._library.ts_wander(self._handle(), which, white_ppb * 1e-9 / root, walk_ppb * 1e-9 * root, seed)

    def clock_truth(self, clock: str) -> ClockTruth:
        """Where an oscillator is."""
        out = np.zeros(4, dtype=np.int64)
        self._library.ts_clock(self._handle(), self._clock(clock), out.ctypes.data)
        edges, last, period, fraction = out.tolist()
        return ClockTruth(edges, last, Fraction((period << 32) + fraction, 1 << 32))

    def _clock(self, name: str) -> int:
        names = ["core"] + [f"rx{port}" for port in range(PORTS)]
        if name not in names:
            raise ConfigError(f"no clock {name!r}: give one of {', '.join(names)}")
        return names.index(name)

    def set_memory_stall(self, probability: float = 0.0, *, latency: tuple[int, int] = (8, 8)) -> None:
        """Chance of a low ready in a cycle, and cycles (least, most) until a write's response."""
        self._library.ts_set_stall(self._handle(), round(probability * 65536), *latency)

    def set_memory_error(self, after_bursts: int) -> None:
        """Memory answers with an error from that many bursts on; 0: never."""
        self._library.ts_set_error(self._handle(), after_bursts)

    def set_undecided_window(self, window_fs: int) -> None:
        """How long after a change a first flip-flop may still catch the old value, in fs."""
        self._library.ts_set_window(self._handle(), window_fs)

    def send(self, port: int, what: Frames) -> None:
        """Queues carrier events on the wire into ``port``; they go when simulated time moves."""
        _check_port(port)
        items, data = _checked(what)
        self._library.ts_send(
            self._handle(), port, items.ctypes.data, len(items), data.ctypes.data, len(data)
        )

    def connect(self, port: int, to: SimulatedCard, to_port: int, *, delay_ns: float = 50.0) -> None:
        """A cable from this card's transmitter to a receiver (this card's too), one direction.

        The receiver's clock follows this card's core clock from now on. When one of joined cards moves on,
        the ones that feed it are brought along. delay_ns: 8 to 10^9. A connection lasts as long as the cards.
        """
        _check_port(port)
        _check_port(to_port)
        if not 8 <= delay_ns <= 1e9:
            raise ConfigError(f"a cable of {delay_ns} ns: give 8 to 10^9")
        self._library.ts_connect(self._handle(), port, to._handle(), to_port, round(delay_ns * 10**6))
        to._feeds.append(self)

    def plug(self, port: int, cable: bool = True, *, partner: int = 0x01E1, gigabit: bool = True) -> None:
        """Pulls or plugs the cable of ``port``: its link goes down, and comes up after negotiation.

        partner: what the other end offers (clause 22, register 5); gigabit: 1000BASE-T full duplex, too.
        Without it the link may come up, but carries no frames. What waits on a wire into the port waits on.
        """
        _check_port(port)
        self._library.ts_plug(self._handle(), port, cable, partner & 0xFFFF, 2 if gigabit else 0)

    def set_phy(
        self, port: int, latency_ns: tuple[float, float] = (0.0, 0.0), *, negotiation_cycles: int = 2000
    ) -> None:
        """Latency of the port's PHY: drawn within ``latency_ns`` for each direction at each link-up.

        It adds to the delay of cables into and out of the port (which is 0 in a PHY that was never set). Each
        bound 0 to 10^6. negotiation_cycles: from the plug to the link, in core clock cycles.
        """
        _check_port(port)
        least, most = latency_ns
        if not 0 <= least <= most <= 1e6:
            raise ConfigError(f"a latency of {least} to {most} ns: give 0 to 10^6, the lower one first")
        self._library.ts_set_phy(
            self._handle(), port, round(least * 1e6), round(most * 1e6), negotiation_cycles
        )

    def phy(self, port: int) -> tuple[bool, float, float]:
        """Truth about the port's PHY: link, latency of sending and of receiving in ns."""
        _check_port(port)
        tx, rx = ctypes.c_int64(), ctypes.c_int64()
        link = self._library.ts_phy(self._handle(), port, ctypes.byref(tx), ctypes.byref(rx))
        return bool(link), tx.value / 1e6, rx.value / 1e6

    def pulse(self, rise_fs: int, fall_fs: int) -> None:
        """A pulse of the GPS receiver on the card's PPS pin, by simulated time.

        ConfigError for a pulse in the past or before the end of the last one.
        """
        for fs in (rise_fs, fall_fs):
            if not self._library.ts_pulse(self._handle(), fs):
                raise ConfigError(
                    f"a pulse from {rise_fs} to {fall_fs} fs: it is {self.now_fs} fs now, "
                    "and pulses come one after another"
                )

    def serial(self, data: bytes, *, start_fs: int = 0, baud: int = 38_400) -> None:
        """Bytes of the GPS receiver on the card's serial line, from ``start_fs`` on, or when it is free."""
        if not 1000 <= baud <= 5_000_000:
            raise ConfigError(f"{baud} baud: give 1000 to 5,000,000")
        self._library.ts_serial(self._handle(), start_fs, 10**15 // baud, data, len(data))

    def set_sampler(self, *, jitter_fs: int = 0, window_fs: int = 0) -> None:
        """Aperture jitter of the PPS sampler (standard deviation), and half its undecided window, fs."""
        self._library.ts_sampler(self._handle(), jitter_fs, window_fs)

    def run_until(self, fs: int) -> None:
        """Runs all edges at or before simulated time ``fs``."""
        self._library.ts_run_until(self._handle(), fs)

    def pending(self, port: int) -> int:
        """Carrier events still to go on that wire."""
        return int(self._library.ts_pending(self._handle(), port))

    def truth(self, port: int) -> npt.NDArray[np.void]:
        """WIRE_TRUTH of the events finished since the last call: when on the pins, and card time then."""

        def take(address: int, room: int) -> int:
            return int(self._library.ts_truth(self._handle(), port, address, room))

        return _take_all(WIRE_TRUTH, take)

    def record_pins(self, port: int, on: bool = True) -> None:
        """Keeps what the receive pins of ``port`` say at each edge of its clock, for ``pins``."""
        _check_port(port)
        self._library.ts_record(self._handle(), port, on)

    def pins(self, port: int) -> npt.NDArray[np.uint16]:
        """What was kept since the last call, u16[edges]: data, 0x100 RX_DV, 0x200 RX_ER."""
        _check_port(port)

        def take(address: int, room: int) -> int:
            return int(self._library.ts_recorded(self._handle(), port, address, room))

        kept: npt.NDArray[np.uint16] = _take_all(np.dtype(np.uint16), take)
        return kept

    def run(self, cycles: int) -> None:
        """Runs ``cycles`` of the core clock."""
        self._library.ts_run(self._handle(), cycles)

    def run_wires(self, cycles: int) -> int:
        """Runs until all wires are quiet, at most ``cycles``; returns the cycles run."""
        return int(self._library.ts_run_wires(self._handle(), cycles))

    @property
    def now_fs(self) -> int:
        """Simulated time, fs."""
        return int(self._library.ts_now_fs(self._handle()))

    @property
    def cycles(self) -> int:
        """Core clock cycles so far."""
        return int(self._library.ts_cycles(self._handle()))

    @property
    def warped(self) -> int:
        """Core clock cycles of those that passed in steps."""
        return int(self._library.ts_warped(self._handle()))

    def state(self) -> bytes:
        """Every signal in the model, for comparing two runs."""
        out = np.zeros(int(self._library.ts_state(self._handle(), None, 0)), dtype=np.uint8)
        self._library.ts_state(self._handle(), out.ctypes.data, len(out))
        return out.tobytes()

    @property
    def bursts(self) -> int:
        """Write bursts that host memory has seen."""
        return int(self._library.ts_bursts(self._handle()))

    def set_plain(self, on: bool) -> None:
        """Each edge through Verilator's own eval(): the same, slower. For comparing."""
        self._library.ts_set_plain(self._handle(), on)


class Cloud:
    """A network that ends at a card's receiver, frame by frame, with known truth.

    It stores each frame and forwards it ``delay_ns`` after its last byte (at least 8 ns), plus an exponential
    delay of mean ``jitter_ns``, in order, at the receiver's own clock, no closer than 12 byte times. Each
    frame is lost, doubled or held back by ``reorder_delay_ns`` (so that others pass) with the probabilities
    given. What happens to a frame depends on ``seed`` and its number only. Frames come from a card's
    transmitter (``connect``) or from the host (``send``). What has no SFD or is marked RX_ER goes no further.

    Errors: ConfigError for impossible values or a port that has a cable; DeviceError for a closed card.
    """

    def __init__(
        self,
        to: SimulatedCard,
        port: int,
        *,
        delay_ns: float = 10_000.0,
        jitter_ns: float = 0.0,
        loss: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        reorder_delay_ns: float = 10_000.0,
        seed: int = 1,
    ) -> None:
        _check_port(port)
        if not (8 <= delay_ns <= 1e10 and 0 <= jitter_ns <= 1e9 and 0 <= reorder_delay_ns <= 1e10):
            raise ConfigError(
                f"a cloud of {delay_ns} ns, jitter {jitter_ns} ns, reordering {reorder_delay_ns} ns: "
                "give 8 to 10^10, 0 to 10^9, 0 to 10^10"
            )
        for name, value in (("loss", loss), ("duplicate", duplicate), ("reorder", reorder)):
            if not 0 <= value <= 1:
                raise ConfigError(f"{name}: a probability of {value}")
        model = np.zeros(6, dtype=np.float64)
        model[:3].view(np.int64)[:] = [round(x * 10**6) for x in (delay_ns, jitter_ns, reorder_delay_ns)]
        model[3:] = loss, duplicate, reorder
        self._library = to._library
        self._cloud = self._library.ts_cloud(to._handle(), port, seed, model.ctypes.data)
        if self._cloud is None:
            raise ConfigError(f"port {port} has a cable: a cloud needs a port of its own")
        self._to = to

    def __del__(self) -> None:
        if getattr(self, "_cloud", None) is not None:
            self._library.ts_cloud_delete(self._cloud)
            self._cloud = None

    def connect(self, card: SimulatedCard, port: int) -> None:
        """All that this card's transmitter sends goes into the cloud; one sender per cloud."""
        _check_port(port)
        if not self._library.ts_cloud_from(self._cloud, card._handle(), port):
            raise ConfigError("this cloud has a sender already")
        if card is not self._to:
            self._to._feeds.append(card)

    def send(self, what: Frames) -> None:
        """Frames from an ideal gigabit source at the host, the first one not before now; 8 ns a byte."""
        items, data = _checked(what)
        if not self._library.ts_cloud_send(self._cloud, items.ctypes.data, len(items), data.ctypes.data):
            raise DeviceError("the card behind this cloud is closed")

    def truth(self) -> npt.NDArray[np.void]:
        """CLOUD_TRUTH in order of departure, up to the first frame still under way, since the last call.

        departure_fs, arrival_fs: the SFD on the sender's and on the receiver's pins. due_fs: when the cloud
        let the preamble go. Lost: due_fs and arrival_fs are -1, fate has CLOUD_LOST.
        """

        def take(address: int, room: int) -> int:
            return int(self._library.ts_cloud_truth(self._cloud, address, room))

        return _take_all(CLOUD_TRUTH, take)
