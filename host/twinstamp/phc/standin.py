# SPDX-License-Identifier: Apache-2.0
"""A PHC that is not there: an oscillator by its model, a driver's dial and grid, a simulated receiver on it.

It stands where the kernel's calls do (twinstamp.phc.device: PhcCalls and World), and time passes only as the
program waits and calls: hours in seconds, and the truth is known. Oscillators and receivers are those of
twinstamp_gps (models.py, simulated.py), not of this package.
"""

from __future__ import annotations

import errno
import heapq
import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from twinstamp_gps import _servo

from twinstamp.phc.device import ENABLE, FALLING, SAMPLES, STRICT, Capabilities, Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from twinstamp_gps.models import OscillatorModel
    from twinstamp_gps.simulated import SimulatedReceiver

_FS = 10**15
_FS_PER_NS = 10**6
_NS = 10**9
_AHEAD_FS = _FS  # an edge may stand before its second


@dataclass(frozen=True, slots=True, kw_only=True)
class NicModel:
    """What a NIC does beside its oscillator. grid_ns: of its stamps, which are cut off to it. rate_grid:
    what its driver cuts a rate off to. both_edges: it stamps both edges of a pulse and refuses to be strict
    about one. max_adj_ppb: of its dial. load_ns: what a load may be off by. precise: PTP_SYS_OFFSET_PRECISE
    is there; extended: PTP_SYS_OFFSET_EXTENDED."""

    grid_ns: float = 8
    rate_grid: float = 2.0**-35
    both_edges: bool = False
    max_adj_ppb: int = 62_499_999
    load_ns: float = 2000
    precise: bool = False
    extended: bool = True


# igb_ptp.c and igc_ptp.c: ISGN_MASK and INCVALUE, 2^-32 ns a cycle of 8 ns; igb refuses strict single edges.
NICS = {
    "i210": NicModel(both_edges=True),
    "i210-40": NicModel(both_edges=True, grid_ns=40),
    "i226": NicModel(precise=True),
}


class StandIn:
    """A PHC and the world around it.

    receiver: whose first edge stands at the start's whole second, its start_tai_s in true TAI; None: no
    pulses. channel: its pulse is on. wake_us: a wait ends late by up to so much; one in a thousand by 20
    times that. system_ns: CLOCK_REALTIME - true UTC. The first reading is phc_ns past 1970.
    """

    def __init__(
        self,
        oscillator: OscillatorModel,
        receiver: SimulatedReceiver | None,
        *,
        nic: NicModel = NICS["i226"],
        seed: int = 1,
        channel: int = 0,
        phc_ns: int = 86_400 * _NS,
        start_tai_s: int = 1_800_000_000,
        utc_offset_s: int = 37,
        wake_us: float = 200,
        system_ns: int = 0,
    ) -> None:
        self.path = "stand-in"
        self.nic = nic
        self._oscillator = _servo.Oscillator(oscillator.settings(), seed * 4 + 1)
        self._random = np.random.default_rng([seed, 0x504843])
        self._draws: list[float] = []
        self._receiver = receiver
        self.start_tai_s = receiver.start_tai_s if receiver is not None else start_tai_s
        self._utc_offset_s, self._system_ns = utc_offset_s, system_ns
        self._wake_us = wake_us
        self._channels = {channel: 0}
        self._channel = channel
        self._events: list[Event] = []
        self._bytes = bytearray()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._queued = 0
        self._seconds = 0
        self.pins: dict[int, tuple[int, int]] = {}
        self.now_fs = _FS // 2  # since the start
        self._moved_ns = phc_ns - self.start_tai_s * _NS  # whole ns that loads moved it by
        self._error_ns = 0.0  # PHC - TAI, loads left out
        self._phase_ns = 0.0  # the oscillator's own gain
        self._dial = 0
        self._rate = 0.0
        self.loads = 0

    # Truth

    def error_ns(self) -> float:
        """PHC - TAI now."""
        return self._moved_ns + self._error_ns

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Calls action when so many seconds have passed since the start."""
        self._queued += 1
        heapq.heappush(self._queue, (round(seconds * _FS), self._queued, action))

    def every(self, seconds: float, action: Callable[[], None], *, start_s: float = 1.0) -> None:
        """Calls action again and again."""

        def again(k: int) -> None:
            action()
            self.at(start_s + (k + 1) * seconds, lambda: again(k + 1))

        self.at(start_s, lambda: again(0))

    def _uniform(self) -> float:
        if not self._draws:
            self._draws = self._random.random(1024).tolist()
        return self._draws.pop()

    # Time

    def _advance(self, to_fs: int) -> None:
        if (passed_fs := to_fs - self.now_fs) <= 0:
            return
        passed_ns = passed_fs / _FS_PER_NS
        gained_ns = self._oscillator.advance(passed_fs / _FS)
        self._phase_ns += gained_ns
        self._error_ns += gained_ns + self._rate * (passed_ns + gained_ns)
        self.now_fs = to_fs

    def _until(self, to_fs: int, *, stop: bool = False) -> None:
        """Lets true time pass; stop: not beyond what wakes a waiting program."""
        while True:
            self._prepare()
            if not self._queue or self._queue[0][0] > to_fs:
                break
            due_fs, _, action = heapq.heappop(self._queue)
            self._advance(due_fs)
            action()
            if stop and (self._events or self._bytes):
                return
        self._advance(to_fs)

    def _prepare(self) -> None:
        """The receiver's seconds, one ahead of now."""
        while self._receiver is not None and self._seconds * _FS <= self.now_fs + 2 * _AHEAD_FS:
            second = self._receiver.second()
            self._seconds += 1
            for edge in second.edges:
                for fs, flag in ((edge.rise_fs, 0), (edge.fall_fs, FALLING)):
                    if fs >= self.now_fs and (not flag or self.nic.both_edges):
                        self.at_fs(fs, lambda: self.pulse(self._channel))
            for sent in second.transmissions:
                if sent.end_fs >= self.now_fs:
                    self.at_fs(sent.end_fs, lambda data=sent.data: self._bytes.extend(data))  # type: ignore[misc]

    def at_fs(self, fs: int, action: Callable[[], None]) -> None:
        """Calls action at a true time since the start."""
        self._queued += 1
        heapq.heappush(self._queue, (fs, self._queued, action))

    def _phc(self) -> float:
        """The PHC now, ns past the start's second of TAI and whole loads."""
        return self.now_fs / _FS_PER_NS + self._error_ns

    def pulse(self, channel: int) -> None:
        """An edge on a channel now, stamped where that is asked for."""
        if not self._channels.get(channel, 0) & ENABLE:
            return
        ticks_ns = self.now_fs / _FS_PER_NS + self._phase_ns
        past_ns = ticks_ns - math.floor(ticks_ns / self.nic.grid_ns) * self.nic.grid_ns
        ns = math.floor(self._phc() - past_ns * (1 + self._rate))
        if len(self._events) < 128:
            self._events.append(Event(channel, self.start_tai_s * _NS + self._moved_ns + ns))

    def _call(self) -> None:
        """A system call takes 1 to 3 us."""
        self._until(self.now_fs + round((1 + 2 * self._uniform()) * 1000) * _FS_PER_NS)

    # World

    def wait(self, seconds: float) -> None:
        """As World has it."""
        if not self._events and not self._bytes:
            self._until(self.now_fs + round(max(0.0, seconds) * _FS), stop=True)
        late_us = self._wake_us * self._uniform() * (20 if self._uniform() < 0.001 else 1)
        self._until(self.now_fs + round(late_us * 1000) * _FS_PER_NS)

    def bytes(self) -> bytes:
        """As World has it."""
        data = bytes(self._bytes)
        self._bytes.clear()
        return data

    def raw_ns(self) -> int:
        """As World has it: an oscillator without noise, 20 ppm fast."""
        return self.now_fs // _FS_PER_NS * 1_000_020 // 1_000_000

    def boot_ns(self) -> int:
        """As World has it."""
        return self.now_fs // _FS_PER_NS

    def real_ns(self) -> int:
        """CLOCK_REALTIME."""
        return (self.start_tai_s - self._utc_offset_s) * _NS + self.now_fs // _FS_PER_NS + self._system_ns

    # PhcCalls

    def capabilities(self) -> Capabilities:
        """As PhcCalls has it."""
        return Capabilities(self.nic.max_adj_ppb, max(self._channels) + 2, 4, self.nic.precise)

    def set_pin(self, pin: int, function: int, channel: int) -> None:
        """As PhcCalls has it."""
        if not 0 <= pin < 4:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        self.pins[pin] = (function, channel)

    def request(self, channel: int, flags: int) -> None:
        """As PhcCalls has it."""
        if flags & STRICT and self.nic.both_edges:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._channels[channel] = flags

    def events(self) -> list[Event]:
        """As PhcCalls has it."""
        found, self._events = self._events, []
        return found

    def time_ns(self) -> int:
        """As PhcCalls has it."""
        self._call()
        return self.start_tai_s * _NS + self._moved_ns + math.floor(self._phc())

    def frequency(self) -> int:
        """As PhcCalls has it."""
        return self._dial

    def set_frequency(self, value: int) -> None:
        """As PhcCalls has it; the driver cuts off towards 0."""
        if abs(value) > self.nic.max_adj_ppb * 65.536 + 1:
            raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
        self._call()
        self._dial = value
        self._rate = math.trunc(value / 65536e6 / self.nic.rate_grid) * self.nic.rate_grid

    def step(self, ns: int) -> None:
        """As PhcCalls has it; the driver reads the clock and writes it back."""
        self._call()
        self._moved_ns += ns
        self._error_ns += self.nic.load_ns * (2 * self._uniform() - 1)
        self.loads += 1

    def offsets(self, *, extended: bool) -> list[tuple[int, int, int]]:
        """As PhcCalls has it. Extended: windows of 0.3 to 3 us; plain: system calls between."""
        if extended and not self.nic.extended:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        found = []
        for _ in range(SAMPLES):
            before = self.real_ns()
            width_ns = (300 if extended else 1000) * (1 + 9 * self._uniform() ** 3)
            share = 0.3 + 0.4 * self._uniform()
            self._until(self.now_fs + round(width_ns * share) * _FS_PER_NS)
            phc = self.start_tai_s * _NS + self._moved_ns + math.floor(self._phc())
            self._until(self.now_fs + round(width_ns * (1 - share)) * _FS_PER_NS)
            found.append((before, phc, self.real_ns()))
        return found

    def precise(self) -> tuple[int, int]:
        """As PhcCalls has it."""
        if not self.nic.precise:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        self._call()
        return self.real_ns(), self.start_tai_s * _NS + self._moved_ns + math.floor(self._phc())
