# SPDX-License-Identifier: Apache-2.0
"""A STAMP session-sender (RFC 8762 section 4.2) that measures both directions through a reflector."""

from __future__ import annotations

import select
import struct
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp import stamp
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.leap import leap_seconds
from twinstamp.owd.arrivals import BACK, ONE_WAY, THERE, Arrivals, ReceiverClock, Sent, TrainKey
from twinstamp.owd.kernel import LARGEST, StampedSocket, SystemClock, resolve, system_clock
from twinstamp.owd.report import Options, Report, report_of

if TYPE_CHECKING:
    from collections.abc import Callable

_NS = 10**9
_FOLLOW_UP_TLV = struct.Struct("!BBHIQB3x")
_SPIN_NS = 60_000  # sleep no closer than this to a departure


@dataclass(frozen=True)
class Plan:
    """What to send. count: packets. gap_ns: mean gap. law: constant or poisson (RFC 2330 section 11.1), the
    latter from ``seed``. payload: bytes, 44 or more (64 with Follow-Up). session: 1 to 65535. ptp: timestamps
    in PTP format. follow_up: ask for the reflector's departure stamps (RFC 8972 section 4.7).
    """

    count: int = 100
    gap_ns: int = 20_000_000
    law: str = "poisson"
    seed: int = 1
    payload: int = 64
    session: int = 1
    ptp: bool = False
    follow_up: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 10_000_000:
            raise ConfigError(f"{self.count} packets: give 1 to 10,000,000")
        if not 1000 <= self.gap_ns <= 3600 * _NS:
            raise ConfigError(f"a gap of {self.gap_ns} ns: give 1 µs to an hour")
        if self.law not in ("constant", "poisson"):
            raise ConfigError(f"law {self.law!r}: give constant or poisson")
        least = stamp.FULL_BYTES + (_FOLLOW_UP_TLV.size if self.follow_up else 0)
        if not least <= self.payload <= LARGEST - 48:
            raise ConfigError(f"a payload of {self.payload} bytes: give {least} to {LARGEST - 48}")
        if not 1 <= self.session <= 0xFFFF:
            raise ConfigError(f"session {self.session}: give 1 to 65535")

    def schedule_ns(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Departures after the first, ns, i64[count]."""
        if self.law == "constant":
            return self.gap_ns * np.arange(self.count, dtype=np.int64)
        rng = np.random.Generator(np.random.PCG64(self.seed))
        drawn = np.rint(rng.exponential(self.gap_ns, self.count - 1)).astype(np.int64)
        return np.concatenate((np.zeros(1, np.int64), np.cumsum(drawn)))


def measure(
    host: str,
    plan: Plan | None = None,
    *,
    port: int = stamp.UDP_PORT,
    source: str = "",
    interface: str | None = None,
    version: int | None = None,
    bound_ns: int | None = None,
    wait_ns: int = _NS,
    options: Options | None = None,
    clock: Callable[[], SystemClock] = system_clock,
    progress: Callable[[int], None] | None = None,
) -> Report:
    """Sends a plan's packets to a reflector and reports both directions.

    bound_ns: bound of this host's clock, which then counts as synchronised; None: what the kernel says.
    wait_ns: how long to wait for the last answers. A packet without an answer is lost where the wait went on
    for the loss time-out of ``options`` after its departure, else undecided.

    Departures are the kernel's stamps where it gives them, for the reflector's where it answers Follow-Up.

    Errors, before a packet leaves: ConfigError for a clock that does not follow a reference (allowed by
    ``options.unsynchronised``) and for packets larger than the interface takes; DeviceError where there is no
    route.
    """
    plan = plan or Plan()
    options = options or Options()
    state = clock() if bound_ns is None else SystemClock(True, bound_ns)
    if not state.synchronised and not options.unsynchronised:
        raise ConfigError(
            "this host's clock does not follow a reference (adjtimex: unsynchronised), so no one-way delay "
            "can be trusted: synchronise it, give its bound with --bound, or allow it with "
            "--allow-unsynchronised"
        )
    address = resolve(host, port, version)
    with StampedSocket(source, 0, version=6 if ":" in address[0] else 4, interface=interface) as socket:
        local = socket.connect(address)
        _check_mtu(socket, plan, address, interface)
        run = _Run(socket, plan, state)
        run.go(wait_ns, progress)
    return run.report(local, address[0], port, options)


def _check_mtu(socket: StampedSocket, plan: Plan, address: Any, interface: str | None) -> None:
    """ConfigError where a packet is larger than the path's first link."""
    import socket as sockets

    try:
        level, option = (sockets.IPPROTO_IP, 14) if socket.version == 4 else (sockets.IPPROTO_IPV6, 24)
        mtu = socket._socket.getsockopt(level, option)  # IP_MTU, IPV6_MTU of a connected socket
    except OSError:
        return
    size = plan.payload + 8 + (20 if socket.version == 4 else 40)
    if size > mtu:
        raise ConfigError(
            f"packets of {size} bytes to {address[0]}: the MTU is {mtu}; give --payload "
            f"{mtu - size + plan.payload} at most"
        )


class _Run:
    """One run of a plan: sending by the clock, taking answers and departure stamps between."""

    def __init__(self, socket: StampedSocket, plan: Plan, state: SystemClock) -> None:
        self._socket = socket
        self._plan = plan
        self._state = state
        self._error = stamp.error_estimate(
            -1 if state.bound_ns < 0 else state.bound_ns + 1, synchronised=state.synchronised, ptp=plan.ptp
        )
        self._leaps = leap_seconds()
        n = plan.count
        self.left_ns = np.zeros(n, np.int64)  # written into the packet
        self.departed_ns = np.zeros(n, np.int64)  # by the kernel
        self._numbers: dict[int, int] = {}  # of the socket → of the session
        self._answers: list[tuple[int, ...]] = []
        self._answered: set[int] = set()
        self.until_ns = 0  # when listening ended
        self._followed: dict[int, int] = {}
        self.unsent = 0
        self.strange = 0
        rest = plan.payload - stamp.FULL_BYTES
        self._tail = b""
        if plan.follow_up:
            self._tail = _FOLLOW_UP_TLV.pack(stamp.TLV_UNRECOGNISED, stamp.TLV_FOLLOW_UP, 16, 0, 0, 0)
            rest -= len(self._tail)
        padding = bytearray(stamp.padding(rest))
        if rest >= 4:
            padding[0] = stamp.TLV_UNRECOGNISED  # until a reflector that knows it takes it away
        self._tail = bytes(28) + self._tail + bytes(padding)

    def _timestamp(self, utc_ns: int) -> int:
        if not self._plan.ptp:
            return int(stamp.ntp_from_utc_ns(utc_ns))
        seconds, ns = divmod(utc_ns + self._leaps.at_utc(utc_ns // _NS) * _NS, _NS)
        return (seconds & 0xFFFFFFFF) << 32 | ns

    def go(self, wait_ns: int, progress: Callable[[int], None] | None) -> None:
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        schedule = self._plan.schedule_ns().tolist()
        start = time.monotonic_ns() + 5_000_000
        for number, offset in enumerate(schedule):
            due = start + offset
            while (left := due - time.monotonic_ns()) > 0:
                if left > 2_000_000 and poll.poll((left - 1_000_000) // 1_000_000):
                    self._take()
                elif left <= 2_000_000:
                    self._take()
                    if left > _SPIN_NS:
                        time.sleep((left - _SPIN_NS) / _NS)
            now = time.time_ns()
            packet = struct.pack("!IQHH", number, self._timestamp(now), self._error, self._plan.session)
            at = self._socket.sent
            if self._socket.send(packet + self._tail):
                self._numbers[at] = number
                self.left_ns[number] = now
            else:
                self.unsent += 1
            if progress is not None and number % 1000 == 0:
                progress(number)
        end = time.monotonic_ns() + wait_ns
        expected = self._plan.count - self.unsent
        while (left := end - time.monotonic_ns()) > 0 and len(self._answered) < expected:
            if poll.poll(max(1, left // 1_000_000)):
                self._take()
        time.sleep(0.002)
        self.until_ns = time.time_ns()
        self._take()

    def _take(self) -> None:
        """All answers and departure stamps that are there."""
        while (datagram := self._socket.receive()) is not None:
            data = datagram.data
            # An answer is as long as its packet, and of our session.
            if len(data) != self._plan.payload:
                self.strange += 1
                continue
            number, at, error, ssid, received, sequence, left, _, _, ttl = struct.unpack_from(
                "!IQHHQIQHHB", data
            )
            known = sequence < self._plan.count and self.left_ns[sequence] != 0
            if (
                not known
                or ssid != self._plan.session
                or left != self._timestamp(int(self.left_ns[sequence]))
            ):
                self.strange += 1
                continue
            if self._plan.follow_up:
                flags, kind, length, followed, departed, method = struct.unpack_from(
                    "!BBHIQB", data, stamp.TLV_AT
                )
                usable = not flags & (stamp.TLV_UNRECOGNISED | stamp.TLV_MALFORMED) and method and departed
                if usable and (kind, length) == (stamp.TLV_FOLLOW_UP, 16):
                    self._followed[followed] = departed
            self._answered.add(sequence)
            self._answers.append(
                (number, at, error, received, sequence, ttl, datagram.received_ns, max(0, datagram.ttl))
            )
        while (departure := self._socket.departed()) is not None:
            sequence = self._numbers.pop(departure.number, -1)
            if sequence >= 0:
                self.departed_ns[sequence] = departure.sent_ns

    def report(self, local: str, remote: str, port: int, options: Options) -> Report:
        plan = self._plan
        out = self.left_ns != 0
        stamped = out & (self.departed_ns != 0)
        left = np.where(stamped, self.departed_ns, self.left_ns)
        if not out.any():
            raise DeviceError(f"no packet to {remote} left: the kernel took none of {plan.count}")
        there = TrainKey(local, remote, port, -1, plan.session, THERE)
        answers = np.array(self._answers, np.uint64).reshape(-1, 8)
        sequence = answers[:, 4].astype(np.int64)
        came = answers[:, 6].astype(np.int64)
        error = answers[:, 2].astype(np.uint16)
        ptp = (error & stamp.ERROR_PTP) != 0
        received = self._utc_ns(answers[:, 3], ptp, came)
        numbers = answers[:, 0].astype(np.uint32)
        followed = np.array([self._followed.get(int(n), 0) for n in numbers], np.uint64)
        _, which, times = np.unique(numbers, return_inverse=True, return_counts=True)
        followed[times[which] > 1] = 0  # copies of a packet, answered with one number: of which is not said
        at = self._utc_ns(np.where(followed != 0, followed, answers[:, 1]), ptp, came)
        n = len(answers)
        headers = 28 if ":" not in remote else 48
        sizes = np.full(n, plan.payload + headers)
        zeros = np.zeros(n, np.int64)
        states: dict[ReceiverClock, int] = {}
        clocks = np.zeros(n, np.int64)
        for value in np.unique(error).tolist():
            estimate = stamp.read_error_estimate(value)
            bound = int(stamp.bound_ns(np.array([value], np.uint16))[0])
            clock = ReceiverClock("stamp", estimate.synchronised, bound, 0)
            clocks[error == value] = states.setdefault(clock, len(states))

        def arrivals(key: TrainKey, known: tuple[ReceiverClock, ...], *columns: Any) -> Arrivals:
            order = np.argsort(columns[2], kind="stable")
            return Arrivals.of(key, known, (np.asarray(column)[order] for column in columns))

        ours = ReceiverClock("kernel", self._state.synchronised, self._state.bound_ns, 0)
        both = [
            arrivals(
                there, tuple(states), sequence, left[sequence], received, np.full(n, self._error), clocks,
                answers[:, 5], zeros, sizes, sizes + 18,
            ),
            arrivals(
                there._replace(source=remote, destination=local, way=BACK), (ours,), numbers, at, came, error,
                zeros, answers[:, 7], zeros, sizes, sizes + 18,
            ),
        ]  # fmt: skip
        indices = np.flatnonzero(out)
        account = Sent(there._replace(way=ONE_WAY), indices.astype(np.uint32), left[indices])
        accounts = [account]
        stateful = bool(n) and not (numbers == sequence).all()
        if n and not stateful:
            # The answers have our numbers: what never left, or may still come, is not lost on the way back.
            back = there._replace(source=remote, destination=local, way=BACK)
            accounts.append(replace(account, key=back))
        about = {
            "kind": "reflected",
            "title": f"{plan.count:,} packets to {remote} and back",
            "law": plan.law, "gap_ns": plan.gap_ns, "payload": plan.payload, "seed": plan.seed,
            "reflector_stateful": stateful,
            "departures_by_kernel": int(np.count_nonzero(stamped)),
            "reflector_departures_followed_up": int(np.count_nonzero(followed)),
            "not_taken_by_kernel": self.unsent,
            "strange_answers": self.strange,
        }  # fmt: skip
        schedule = None
        if out[0]:
            schedule = {(local, remote, plan.session): int(self.left_ns[0]) + plan.schedule_ns()}
        return report_of(
            [train for train in both if len(train)], sent=accounts, options=options, schedules=schedule,
            until_ns=self.until_ns, frames=n, experiment=about,
        )  # fmt: skip

    def _utc_ns(self, timestamps: Any, ptp: Any, near: Any) -> Any:
        ntp = stamp.utc_ns_from_ntp(timestamps, near)
        return np.where(ptp, self._leaps.utc_ns(stamp.tai_ns_from_ptp(timestamps, near)), ntp)
