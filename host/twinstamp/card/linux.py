# SPDX-License-Identifier: Apache-2.0
"""Ordinary interfaces as a card: the same calls, stamps of the NIC or the kernel (docs/linux-card.md)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinstamp import stamp
from twinstamp.card import nic
from twinstamp.card.system_clock import StepWatch, SystemClock, system_clock
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.frames import FLAG_KERNEL_STAMP, LINKTYPE_ETHERNET, ClockState, FrameBatch, Port
from twinstamp.io.live import LinkStatistics, LiveSource, check_interface, device_error
from twinstamp.io.merge import Merge
from twinstamp.leap import UtcOffset, leap_seconds
from twinstamp.phc.follow import PublishedClock

if TYPE_CHECKING:
    import numpy.typing as npt

    from twinstamp.card.linux_trains import LinuxPort
    from twinstamp.phc.record import ClockRecord

NOW = np.iinfo(np.int64).min  # a launch time: at once
_BLOCK_MS = 8  # a reader may pause for 4 s at low rates; frames come that much later
_SPIN_NS = 200_000  # a sleeping thread wakes up to this much late on an ordinary kernel
_SLICE_NS = 250_000_000  # of a schedule, handed to compiled code at once: ^C is seen between two
_PROBES = 64
_PROBE_TYPE = b"\x88\xb5"  # IEEE 802 local experimental
_CLOCK_EVERY_NS = 100_000_000
_TXTIME_CLOCKS = {"fq": time.CLOCK_MONOTONIC, "etf": 11}  # CLOCK_TAI

LINUX_DEPARTURE = np.dtype([
    ("port", "u2"), ("source", "u1"), ("number", "u8"), ("stamp_ns", "i8"),
])  # fmt: skip
KERNEL, NIC = 0, 1  # values of LINUX_DEPARTURE.source


class Sent(NamedTuple):
    """What became of frames handed over. first: number of the first one, counted per port; those behind it
    follow. before_ns: i64[n], CLOCK_REALTIME just before the kernel was called: a frame left no earlier
    (with SO_TXTIME: it was queued then). error: i32[n], errno of the call, 0 = the kernel took it.
    """

    first: int
    before_ns: npt.NDArray[np.int64]
    error: npt.NDArray[np.int32]


class SenderCalibration(NamedTuple):
    """From CLOCK_REALTIME just before the call to the kernel's departure stamp: median_ns, which timed
    frames are sent ahead by, p1_ns and p99_ns, over `frames` frames."""

    median_ns: int
    p1_ns: int
    p99_ns: int
    frames: int


class LinuxCard:
    """Ordinary interfaces through AF_PACKET and SO_TIMESTAMPING, as a card; use it in a ``with`` block.

    interfaces: names; each is a port. hardware: True: stamps of the NIC, DeviceError where it makes none;
    None: where it does (found out by sending a frame to the port's own address, not by what the driver
    says); False: the kernel's. utc_offset_s: TAI - UTC for launch times in TAI, None: what the kernel was
    told, else what the leap seconds known here make it. stamp_bound_ns: what a stamp may be wrong by against
    the wire, as measured by whoever gives it; None: unknown, and then no batch has a bound. Others: as in
    LiveSource.

    Batches are in UTC. Where `twinstamp clock discipline` keeps the NIC's clock (docs/nic-clock.md),
    ``batch.clock`` is what it publishes: source "nic", state, locked, epoch; bound_ns: its bound, plus the
    grid of the NIC's stamps, plus stamp_bound_ns where that is known: at the place where the NIC stamps. Else
    source is "nic" or "kernel"; state ""; locked: the kernel's clock is synchronised; bound_ns: the clock
    daemon's bound, plus stamp_bound_ns, plus the uncertainty of the comparison of the NIC's clock with it; -1
    where a term is unknown; epoch: +1 at each step of the clock, and when one takes over from the other.
    With stamps of the NIC, frames that it did not stamp have the kernel's and FLAG_KERNEL_STAMP; a batch with
    such frames has the worse of the two bounds.

    Errors: ConfigError for bad options; DeviceError for no such interface, no permission, interface down.
    """

    def __init__(
        self,
        interfaces: Sequence[str],
        *,
        hardware: bool | None = None,
        utc_offset_s: int | None = None,
        stamp_bound_ns: int | None = None,
        filter: str | None = None,
        promiscuous: bool = False,
        ring_mib: int = 64,
        snaplen: int | None = None,
    ) -> None:
        if not interfaces or len(set(interfaces)) != len(interfaces):
            raise ConfigError("a linux card needs interfaces, each once: 'linux:eth1,eth2'")
        if stamp_bound_ns is not None and stamp_bound_ns < 0:
            raise ConfigError(f"stamp_bound_ns is {stamp_bound_ns}: give 0 or more")
        for name in interfaces:
            if check_interface(name) != LINKTYPE_ETHERNET:
                raise ConfigError(f"interface {name} carries no Ethernet frames: it cannot be a card's port")
        self.interfaces = tuple(interfaces)
        self._open_source = partial(
            LiveSource,
            filter=filter,
            promiscuous=promiscuous,
            ring_mib=ring_mib,
            snaplen=snaplen,
            block_timeout_ms=_BLOCK_MS,
        )
        self._told_offset_s = utc_offset_s
        self._stamp_bound_ns = stamp_bound_ns
        self._steps = StepWatch()
        self._published: PublishedClock | None = None
        self._record: ClockRecord | None = None  # that the stamps go by now
        self._epoch, self._epoch_of = 0, (0, 0, 0)
        self._last_epoch = -1
        self._last_bound = -1  # of the record, at the last look
        self._offset = nic.PhcOffset(0, 0)
        self._clock_at = -_CLOCK_EVERY_NS
        self._clock = ClockState("utc", "kernel", False, -1, 0)
        self._calibrations: dict[int, SenderCalibration] = {}
        self._train_ports: dict[int, LinuxPort] = {}
        self._merge: Merge | None = None
        self._sources: list[LiveSource] = []
        self._stack = contextlib.ExitStack()
        self._senders: list[Any] = []
        self._phc: nic.Phc | None = None
        self.txtime: list[str] = []
        try:
            self.hardware = self._open(hardware)
        except BaseException:
            self.close()
            raise
        self.ports = tuple(
            Port(name, LINKTYPE_ETHERNET, snaplen or 0, 1_000_000_000, f"linux:{name}")
            for name in self.interfaces
        )

    def _open(self, hardware: bool | None) -> bool:
        from twinstamp import _native

        for name in self.interfaces:
            self.txtime.append(_txtime_discipline(name))
            try:
                sender = _native.StampedSender(
                    name,
                    hardware=hardware is not False,
                    txtime_clock=_TXTIME_CLOCKS.get(self.txtime[-1], -1),
                )
            except OSError as error:
                raise device_error(error, name, "send on") from error
            self._senders.append(sender)
            self._stack.callback(sender.close)
        if hardware is False:
            return False
        claims = [nic.stamping_info(name) for name in self.interfaces]
        clocks = {claim.phc for claim in claims}
        if not all(claim.hardware and claim.phc >= 0 for claim in claims) or len(clocks) != 1:
            if hardware:
                raise DeviceError(
                    f"{', '.join(self.interfaces)}: no common clock that stamps departures and all arrivals "
                    "(ethtool -T); open the card with hardware=False for the kernel's stamps"
                )
            return False
        try:
            number = clocks.pop()
            self._phc = nic.Phc(number)
            self._stack.callback(self._phc.close)
            self._published = PublishedClock(number, self._phc)
            self._stack.callback(self._published.close)
            for name in self.interfaces:
                self._stack.callback(nic.HardwareStamps(name).close)
            for port in range(len(self.interfaces)):
                self._probe(port, 1)
                if not (self._take_departures(port, 0.2)["source"] == NIC).any():
                    raise DeviceError(f"{self.interfaces[port]} promised a departure stamp and gave none")
        except DeviceError:
            if hardware:
                raise
            return False
        return True

    # Clock

    def system_clock(self) -> SystemClock:
        """The kernel's clock as its daemon has set it."""
        return system_clock()

    def clock(self) -> ClockState:
        """State of the clock behind the stamps; the kernel's is looked at ten times a second at most."""
        self._record = self._disciplined()
        if self._record is None:
            state = self._by_kernel()
            return state._replace(epoch=self._epoch_now(0, 0))
        record = self._record
        bound = record.bound_ns + record.grid_ns + (self._stamp_bound_ns or 0)
        epoch = self._epoch_now(record.pid, record.epoch)
        # Stamps of before this look had the bound of the last one; across a step, or from the kernel's clock
        # to this one, none holds for all.
        same = self._last_epoch in (-1, epoch)
        worst = max(bound, self._last_bound) if same else -1
        self._last_bound, self._last_epoch = bound, epoch
        offset = self._utc_offset_of(record)
        return ClockState(
            "utc",
            "nic",
            record.state_name == "locked",
            worst if offset.known else -1,
            epoch,
            record.state_name,
            *offset,
        )

    @property
    def disciplined(self) -> bool:
        """Whether `twinstamp clock discipline` keeps the clock of the stamps, as of the last ``clock()``."""
        return self._record is not None

    def _disciplined(self) -> ClockRecord | None:
        try:
            return None if self._published is None else self._published.look()
        except OSError:
            return None  # the device is gone: the kernel's clock is what is left

    def _epoch_now(self, pid: int, epoch: int) -> int:
        of = (self._steps.look() if not pid else 0, pid, epoch)
        if of != self._epoch_of:
            self._epoch += 1
            self._epoch_of = of
        return self._epoch

    def _utc_offset_of(self, record: ClockRecord) -> UtcOffset:
        """TAI - UTC for the PHC's time: as given to the card, else as published, else as known here."""
        if self._told_offset_s is not None or record.utc_source == 0:
            return self.utc_offset()
        return record.utc_offset()

    def _utc_of_nic(self, ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The NIC's stamps in UTC, by the clock that the last clock() found."""
        if self._record is None:
            return ns + self._offset.offset_ns
        utc: npt.NDArray[np.int64] = self._utc_offset_of(self._record).utc_ns(ns)
        return utc

    def _by_kernel(self) -> ClockState:
        now = time.monotonic_ns()
        if now - self._clock_at >= _CLOCK_EVERY_NS:
            self._clock_at = now
            kernel = system_clock()
            bound = -1
            if kernel.synchronised and self._stamp_bound_ns is not None:
                bound = kernel.max_error_ns + self._stamp_bound_ns
            if self.hardware and self._phc is not None:
                self._offset = self._phc.offset()
                bound = bound if bound < 0 else bound + self._offset.uncertainty_ns
            self._clock = ClockState(
                "utc",
                "nic" if self.hardware else "kernel",
                kernel.synchronised,
                bound,
                0,
                "",
                *self.utc_offset(kernel),
            )
        return self._clock

    def utc_offset(self, kernel: SystemClock | None = None) -> UtcOffset:
        """TAI - UTC: as given to the card, else as the kernel was told, else by the table of leap seconds."""
        if self._told_offset_s is not None:
            return UtcOffset(self._told_offset_s, True)
        told_s = (kernel or system_clock()).utc_offset_s
        offset = leap_seconds().offset(int(time.time()))
        if told_s in (0, offset.s):
            return offset._replace(known=offset.known or told_s != 0)
        return UtcOffset(told_s, True)  # the kernel's daemon knows a leap second that the table does not

    def time_q32(self) -> int:
        """Time now, TAI, 32.32 s."""
        return int(stamp.q32_from_ns(self.utc_offset().tai_ns(time.time_ns())))

    def to_utc_ns(self, tai_q32: int) -> int:
        """CLOCK_REALTIME in ns at TAI 32.32."""
        return int(self.utc_offset().utc_ns(int(stamp.ns_from_q32(tai_q32))))

    # Receiving

    def start(self) -> None:
        """Opens the receive rings of all ports."""
        if self._merge is not None:
            raise ConfigError("the card is already receiving: stop() it first")
        try:
            for name in self.interfaces:
                self._sources.append(self._open_source(name, hardware_stamps=self.hardware))
        except BaseException:
            self.stop()
            raise
        self._merge = Merge(self._sources, delay_ms=3 * _BLOCK_MS)

    def stop(self) -> None:
        """Ends receiving."""
        self._merge = None
        for source in self._sources:
            source.close()
        self._sources.clear()

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        """The next frames of all ports in the order of their stamps, or None after ``timeout_s``."""
        if self._merge is None:
            raise DeviceError("the card is not receiving: start() it first")
        batch = self._merge.poll(timeout_s)
        if batch is not None:
            batch.clock = self.clock()
            if self.hardware:
                stamped = (batch.flags & FLAG_KERNEL_STAMP) == 0
                batch.timestamp_ns[stamped] = self._utc_of_nic(batch.timestamp_ns[stamped])
                if self._record is not None and not stamped.all():
                    kernels = self._by_kernel().bound_ns
                    worse = (
                        -1 if min(kernels, batch.clock.bound_ns) < 0 else max(kernels, batch.clock.bound_ns)
                    )
                    batch.clock = batch.clock._replace(bound_ns=worse)
        return batch

    def receive(self, timeout_s: float = 1.0) -> Iterator[FrameBatch]:
        """Batches until none came for ``timeout_s``. Each is released when the next is asked for."""
        while True:
            batch = self.poll(timeout_s)
            if batch is None:
                return
            with batch:
                yield batch

    def statistics(self) -> tuple[LinkStatistics, ...]:
        """Per port, what came in and what the kernel dropped for want of room, since start()."""
        return tuple(source.statistics() for source in self._sources)

    def drops(self) -> tuple[int, ...]:
        """Frames per port that the kernel dropped for want of room, since start()."""
        return tuple(link.kernel_drops for link in self.statistics())

    # Sending

    def send(self, port: int, frame: bytes, *, launch_q32: int | None = None, stamp: bool = True) -> int:
        """Sends ``frame`` (from the destination address on, without FCS); returns its number.

        launch_q32: TAI, 32.32 s; the call returns when the frame is with the kernel. Its departure comes
        through ``departures()`` in any case (stamp is taken for the sake of Card's signature).
        DeviceError where the kernel refuses the frame.
        """
        launch = NOW if launch_q32 is None else self.to_utc_ns(launch_q32)
        sent = self.send_timed(
            port, np.frombuffer(frame, np.uint8), np.zeros(1, np.uint64), np.array([len(frame)], np.uint32),
            launch_ns=np.array([launch], np.int64),
        )  # fmt: skip
        if sent.error[0]:
            code = int(sent.error[0])
            raise device_error(OSError(code, os.strerror(code)), self.interfaces[port], "send on")
        return sent.first

    def send_timed(
        self,
        port: int,
        data: npt.NDArray[np.uint8],
        offset: npt.NDArray[np.uint64],
        caplen: npt.NDArray[np.uint32],
        *,
        launch_ns: npt.NDArray[np.int64] | None = None,
        stamp_at: npt.NDArray[np.uint32] | None = None,
        checksum_at: npt.NDArray[np.uint32] | None = None,
        ptp: bool = False,
        progress: Any = None,
    ) -> Sent:
        """Sends n frames in order, each at its time, and returns when the last is with the kernel.

        launch_ns: i64[n], CLOCK_REALTIME, not falling; NOW: at once. A frame whose time has passed goes at
        once: ``before_ns`` and its departure tell. stamp_at: u32[n], byte of each frame where 64 bits of
        time are written just before it goes (NTP's 32.32 UTC, RFC 5905; ptp: seconds and nanoseconds of
        TAI, as PTPv2 truncated), 0: none. checksum_at: u32[n], byte of a UDP checksum that was made with
        zeros there, 0: none. progress: called with the number of frames sent so far, a few times a second.

        Frames wait in the queueing discipline where it takes SO_TXTIME (``txtime[port]`` names it), else
        this call waits, looking at the clock for the last 200 us: it takes a core, and goes ahead of the
        launch time by what ``calibration()`` found.

        Errors: ConfigError for no such port or columns of different length; ValueError for a frame or stamp
        outside its data. What the kernel refuses stands in ``Sent.error``.
        """
        self._check_port(port)
        n = len(caplen)
        launches = (
            np.full(n, NOW, np.int64) if launch_ns is None else np.ascontiguousarray(launch_ns, np.int64)
        )
        none = np.zeros(n, np.uint32)
        at = none if stamp_at is None else np.ascontiguousarray(stamp_at, np.uint32)
        checksum = none if checksum_at is None else np.ascontiguousarray(checksum_at, np.uint32)
        if {len(offset), len(launches), len(at), len(checksum)} != {n}:
            raise ConfigError("the columns of the frames to send differ in length")
        if (np.diff(launches) < 0).any():
            raise ConfigError("launch times fall: give frames in the order of their times")
        timed = launch_ns is not None and n > 0 and int(launches[-1]) != NOW
        lead = self.calibration(port).median_ns if timed and not self.txtime[port] else 0
        before, error = np.zeros(n, np.int64), np.zeros(n, np.int32)
        data, offset = np.ascontiguousarray(data, np.uint8), np.ascontiguousarray(offset, np.uint64)
        caplen = np.ascontiguousarray(caplen, np.uint32)
        first = None
        done = 0
        while done < n:
            end = done + 16_384
            if timed and launches[done] != NOW:
                self._sleep_until(int(launches[done]) - _SLICE_NS)
                end = min(end, int(np.searchsorted(launches, launches[done] + _SLICE_NS, side="right")))
            part = slice(done, min(end, n))
            now_ns = time.time_ns()
            tai_utc_ns = self.utc_offset().tai_ns(now_ns) - now_ns if ptp else 0
            number = self._senders[port].send(
                data, offset[part], caplen[part], launches[part], at[part], checksum[part],
                ptp=ptp, stamp_offset_ns=tai_utc_ns, lead_ns=lead,
                spin_ns=_SPIN_NS, before_ns=before[part], error=error[part],
            )  # fmt: skip
            first = number if first is None else first
            done = part.stop
            if progress is not None:
                progress(done)
        return Sent(0 if first is None else first, before, error)

    @staticmethod
    def _sleep_until(ns: int) -> None:
        while (left := ns - time.time_ns()) > 0:
            time.sleep(min(left / 1e9, 0.1))

    def departures(self, timeout_s: float = 0.0) -> npt.NDArray[np.void]:
        """LINUX_DEPARTURE of frames that left: port, source (KERNEL or NIC), number, stamp_ns (UTC).

        A frame that the interface dropped, or whose stamp its driver lost, has none. Waits up to
        ``timeout_s`` for the first one of each port that has none.
        """
        parts = [self._take_departures(port, timeout_s) for port in range(len(self.interfaces))]
        return np.concatenate(parts)

    def port_departures(self, port: int, timeout_s: float = 0.0) -> npt.NDArray[np.void]:
        """``departures`` of one port."""
        self._check_port(port)
        return self._take_departures(port, timeout_s)

    def port(self, number: int) -> LinuxPort:
        """A port, which sends trains. ConfigError where there is none of this number."""
        from twinstamp.card.linux_trains import LinuxPort

        self._check_port(number)
        return self._train_ports.setdefault(number, LinuxPort(self, number))

    def flush(self) -> None:
        """As Card.flush; the kernel hands over a block by itself, after 8 ms."""

    def _take_departures(self, port: int, timeout_s: float) -> npt.NDArray[np.void]:
        number, software, hardware = self._senders[port].departures(timeout_s)
        out = np.zeros(len(number), LINUX_DEPARTURE)
        out["port"], out["number"], out["stamp_ns"] = port, number, software
        if hardware.any() and self._phc is not None:
            by_nic = hardware != 0
            out["source"][by_nic] = NIC
            self.clock()
            if self._record is None:
                self._offset = self._phc.offset()
            out["stamp_ns"][by_nic] = self._utc_of_nic(hardware[by_nic])
            # A frame with both stamps comes twice: the NIC's counts.
            order = np.lexsort((out["source"], out["number"]))
            out = out[order]
            last = np.append(out["number"][1:] != out["number"][:-1], True)
            out = out[last]
        return out

    def calibration(self, port: int) -> SenderCalibration:
        """How long a send takes on ``port``; measured at the first call, by 64 frames of 60 bytes that go to
        the port's own address (no switch forwards them)."""
        self._check_port(port)
        if port not in self._calibrations:
            kept = self._take_departures(port, 0.0)
            if len(kept):
                raise DeviceError(
                    f"{self.interfaces[port]}: {len(kept)} departures are waiting: take them before "
                    "the port is calibrated"
                )
            sent = self._probe(port, _PROBES)
            seen = np.concatenate([self._take_departures(port, 0.1) for _ in range(3)])
            taken = (seen["source"] == KERNEL) & (seen["number"] >= sent.first)
            index = (seen["number"][taken] - np.uint64(sent.first)).astype(np.int64)
            took = seen["stamp_ns"][taken] - sent.before_ns[index]
            if len(took) < _PROBES // 2:
                raise DeviceError(
                    f"{self.interfaces[port]}: {len(took)} of {_PROBES} test frames came back with a "
                    "departure stamp: its driver makes none, so sending cannot be timed"
                )
            low, median, high = np.percentile(took, (1, 50, 99)).round().astype(int).tolist()
            self._calibrations[port] = SenderCalibration(median, low, high, len(took))
        return self._calibrations[port]

    def _probe(self, port: int, frames: int) -> Sent:
        own = _hardware_address(self.interfaces[port])
        frame = own + own + _PROBE_TYPE + b"twinstamp: time to send".ljust(46, b"\0")
        data = np.frombuffer(frame, np.uint8)
        gap_ns = 1_000_000
        launch = time.time_ns() + gap_ns * (1 + np.arange(frames))
        before, error = np.zeros(frames, np.int64), np.zeros(frames, np.int32)
        none = np.zeros(frames, np.uint32)
        first = self._senders[port].send(
            data, np.zeros(frames, np.uint64), np.full(frames, len(frame), np.uint32), launch, none, none,
            ptp=False, stamp_offset_ns=0, lead_ns=0, spin_ns=_SPIN_NS, before_ns=before, error=error,
        )  # fmt: skip
        if error.any():
            code = int(error[error != 0][0])
            raise device_error(OSError(code, os.strerror(code)), self.interfaces[port], "send on")
        return Sent(first, before, error)

    def _check_port(self, port: int) -> None:
        if not 0 <= port < len(self.interfaces):
            raise ConfigError(f"no port {port}: this card has 0 to {len(self.interfaces) - 1}")

    def close(self) -> None:
        """Stops receiving and sending; the interfaces' stamping is as it was found."""
        self.stop()
        self._stack.close()

    def __enter__(self) -> LinuxCard:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _hardware_address(interface: str) -> bytes:
    import fcntl
    import socket
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, 0x8927, struct.pack("16s24x", interface.encode()))
        except OSError as error:
            raise device_error(error, interface, "use") from error
    return answer[18:24]


def _txtime_discipline(interface: str) -> str:
    """ "fq" or "etf" where every queue of the interface has it, else ""."""
    import socket

    from pyroute2 import IPRoute  # type: ignore[import-untyped]

    with IPRoute() as route:
        index = socket.if_nametoindex(interface)
        kinds = {
            qdisc.get_attr("TCA_KIND")
            for qdisc in route.get_qdiscs(index=index)
            if qdisc["parent"] != 0xFFFFFFF1  # clsact, ingress
        }
    kinds -= {"mq", "mqprio", "taprio", "clsact", "ingress"}
    return kinds.pop() if len(kinds) == 1 and kinds <= set(_TXTIME_CLOCKS) else ""
