# SPDX-License-Identifier: Apache-2.0
"""An ordinary interface as a sender of packet trains (docs/linux-card.md): as CardPort, by waiting."""

from __future__ import annotations

import socket
import struct
import threading
import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp import stamp
from twinstamp.card.trains import TRAIN_DEPARTURE, TrainReport, TrainStatus
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.train.fixed import ONE, Time, exact_seconds, to_q64
from twinstamp.train.frames import frames

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from twinstamp.card.linux import LinuxCard
    from twinstamp.frames import FrameBatch
    from twinstamp.train.train import Train

_SIOCGIFMTU, _SIOCGIFFLAGS = 0x8921, 0x8913
_IFF_RUNNING = 0x40
_SHORTEST_LEAD_NS = 1_000_000
_SLICE = 8192  # packets whose frames are made at once
_POLL_S = 0.01
_HEADER = 14
_FCS = 4


class LinuxPort:
    """Port ``number`` of a linux card; made by ``LinuxCard.port``."""

    def __init__(self, card: LinuxCard, number: int) -> None:
        self.card = card
        self.number = number
        self._run: LinuxTrainRun | None = None

    def send(
        self,
        train: Train,
        *,
        start: Time | None = None,
        after: Time = "100ms",
        report: bool = False,
        allow_unsynchronised: bool = False,
        allow_late: bool = False,
    ) -> LinuxTrainRun:
        """Sends ``train`` from a thread; its first packet is to leave at ``start`` (exact seconds since 1970
        TAI), or ``after`` from now. Returns at once. One train at a time leaves a port.

        The stamp in a packet is the kernel's clock just before the packet is handed over; its error estimate
        says S = 0 where that clock follows no reference. report: every departure comes back, not only late
        ones. A packet is late when it was handed over after its time; then it goes at once, and the schedule
        of the others stays. The others as in CardPort.send.

        Errors, before a packet leaves: ConfigError where the train does not fit (as Train.check, or the
        interface's MTU), the start is not at least 1 ms ahead, or a train is under way; DeviceError where the
        link is down, the clock is not synchronised, or the interface stamps no departures.
        """
        card, name = self.card, self.card.interfaces[self.number]
        if not allow_late:
            train.check()
        clock = card.clock()
        if not clock.locked and not allow_unsynchronised:
            raise DeviceError(
                f"{name}: this machine's clock follows no reference, so stamps and times would mean little; "
                "start chronyd or ptp4l, or allow it (allow_unsynchronised, --allow-unsynchronised)"
            )
        if self._run is not None and self._run.status().active:
            raise ConfigError(f"{name}: a train is under way: wait for it, or stop it")
        mtu, running = _mtu_and_link(name)
        tags = 4 * len(train.vlans)
        largest = max(train.size.limits) - _FCS - _HEADER - tags
        if largest > mtu:
            raise ConfigError(f"{name}: packets of {largest} bytes, but an MTU of {mtu}: give smaller ones")
        if not running:
            raise DeviceError(f"{name}: the link is down: nothing would leave")
        card.calibration(self.number)
        if start is None:
            first = to_q64(exact_seconds(after, "after")) + (card.time_q32() << 32)
        else:
            first = to_q64(exact_seconds(start, "start"))
        if first >> 96:
            raise ConfigError(f"start is {float(Fraction(first, ONE)):.3f} s: beyond 2^32 s")
        at = Fraction(first, ONE)
        ahead_ns = card.utc_offset().utc_ns(int(at * 10**9)) - time.time_ns()
        if ahead_ns < _SHORTEST_LEAD_NS:
            raise ConfigError(f"{name}: the start is {ahead_ns / 1e6:.3f} ms ahead: give at least 1 ms")
        self._run = LinuxTrainRun(self, train, at, clock.locked, clock.bound_ns, report)
        return self._run


class LinuxTrainRun:
    """A train that is being sent; made by ``LinuxPort.send``. As TrainRun; departures are stamps of the
    kernel or the NIC, TAI, and "late" is judged by when the kernel was given the packet."""

    def __init__(
        self, port: LinuxPort, train: Train, start: Fraction, synchronised: bool, bound_ns: int, report: bool
    ) -> None:
        self.port = port
        self.train = train
        self.slot = 0
        self.start = start
        self.synchronised = synchronised
        self._report = report
        self._error = stamp.error_estimate(bound_ns, synchronised=synchronised, ptp=train.timestamp == "ptp")
        self._stopped = threading.Event()
        self._failure: Exception | None = None
        self._lock = threading.Lock()
        self._sent = self._late = self._refused = 0
        self._worst_ns = 0
        self._schedule = train.schedule()
        self._first = -1
        self._launch = np.empty(0, np.int64)
        self._is_late = np.zeros(train.total, bool)
        self._parts: list[npt.NDArray[np.void]] = []
        self._taken: list[npt.NDArray[np.int64]] = []
        self._thread = threading.Thread(target=self._run, name="twinstamp-train", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._send_all()
        except Exception as error:
            self._failure = error

    def _send_all(self) -> None:
        card, number, train = self.port.card, self.port.number, self.train
        start_ns = card.utc_offset().utc_ns(int(self.start * 10**9 + Fraction(1, 2)))
        self._launch = start_ns + self._schedule.ns()
        done = 0
        while done < train.total and not self._stopped.is_set():
            # Not further ahead than a quarter of a second, so that stop() is heard.
            while (left_ns := int(self._launch[done]) - time.time_ns() - 250_000_000) > 0:
                if self._stopped.wait(min(left_ns / 1e9, 0.1)):
                    return
            near = int(np.searchsorted(self._launch, self._launch[done] + 250_000_000, side="right"))
            end = min(train.total, done + _SLICE, max(near, done + 1))
            made = frames(train, self._schedule, done, end, self._error)
            launch = self._launch[done:end]
            sent = card.send_timed(
                number, made.data, made.offset, made.caplen, launch_ns=launch, stamp_at=made.stamp_at,
                checksum_at=made.checksum_at, ptp=train.timestamp == "ptp",
            )  # fmt: skip
            behind = np.where(sent.error == 0, sent.before_ns - launch, 0)
            with self._lock:
                if self._first < 0:
                    self._first = sent.first
                self._is_late[done:end] = behind > 0
                self._taken.append(done + np.flatnonzero(sent.error == 0))
                self._sent += int((sent.error == 0).sum())
                self._refused += int((sent.error != 0).sum())
                self._late += int((behind > 0).sum())
                self._worst_ns = max(self._worst_ns, int(behind.max(initial=0)))
            done = end

    def status(self) -> TrainStatus:
        """How far it is. unreported: packets that the kernel refused."""
        active = self._thread.is_alive()
        if self._failure is not None:
            raise DeviceError(
                f"{self.port.card.interfaces[self.port.number]}: {self._failure}"
            ) from self._failure
        with self._lock:
            complete = not active and self._sent + self._refused == self.train.total
            return TrainStatus(
                active,
                complete,
                False,
                self._sent,
                self._late,
                Fraction(self._worst_ns, 10**9),
                self._refused,
            )

    def taken(self) -> npt.NDArray[np.int64]:
        """Sequence numbers of the packets that the kernel took so far, i64[n], ascending."""
        with self._lock:
            return np.concatenate([np.empty(0, np.int64), *self._taken])

    def stop(self) -> None:
        """Sends no more of it; what was handed over within the last quarter of a second still goes."""
        self._stopped.set()
        self._thread.join()

    def wait(
        self,
        *,
        timeout_s: float | None = None,
        progress: Callable[[TrainStatus], None] | None = None,
        on_batch: Callable[[FrameBatch], None] | None = None,
    ) -> TrainReport:
        """Waits until it has left, at most ``timeout_s``, and tells what became of it; as TrainRun.wait."""
        limit = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            status = self.status()
            if progress is not None:
                progress(status)
            if not status.active or (limit is not None and time.monotonic() > limit):
                break
            if on_batch is None:
                time.sleep(_POLL_S)
                continue
            batch = self.port.card.poll(_POLL_S)
            if batch is not None:
                with batch:
                    on_batch(batch)
        return TrainReport(
            self.train, self.port.number, 0, self.start, self.synchronised, self.status(), self.departures()
        )

    def departures(self) -> npt.NDArray[np.void]:
        """TRAIN_DEPARTURE so far, of late packets or of all, in the order of leaving; stamps in TAI."""
        card = self.port.card
        told = card.port_departures(self.port.number, 0.05 if not self._thread.is_alive() else 0.0)
        with self._lock:
            if self._first >= 0 and len(told):
                mine = (told["number"] >= self._first) & (told["number"] < self._first + self.train.total)
                told = told[mine]
                out = np.zeros(len(told), TRAIN_DEPARTURE)
                sequence = (told["number"] - np.uint64(self._first)).astype(np.int64)
                now_ns = time.time_ns()
                offset_ns = card.utc_offset().tai_ns(now_ns) - now_ns
                out["stamp_q32"] = stamp.q32_from_ns(told["stamp_ns"] + offset_ns)
                out["sequence"], out["port"] = sequence, self.port.number
                late = self._is_late[sequence]
                behind = np.maximum(told["stamp_ns"] - self._launch[sequence], 0)
                out["late"] = late
                out["delay_q32"] = np.where(late, stamp.q32_from_ns(behind), 0)
                self._parts.append(out if self._report else out[late])
        if not self._parts:
            return np.zeros(0, TRAIN_DEPARTURE)
        self._parts = [np.concatenate(self._parts)]
        return self._parts[0]


def _mtu_and_link(interface: str) -> tuple[int, bool]:
    import fcntl

    def ask(any_socket: Any, number: int) -> bytes:
        return fcntl.ioctl(any_socket, number, struct.pack("16s24x", interface.encode()))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        mtu = struct.unpack_from("i", ask(any_socket, _SIOCGIFMTU), 16)[0]
        flags = struct.unpack_from("H", ask(any_socket, _SIOCGIFFLAGS), 16)[0]
    return mtu, bool(flags & _IFF_RUNNING)
