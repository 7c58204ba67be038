# SPDX-License-Identifier: Apache-2.0
"""A STAMP reflector (RFC 8762 section 4.3, RFC 8972) on a UDP socket (docs/owd.md: Reflector)."""

from __future__ import annotations

import ipaddress
import select
import struct
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twinstamp import stamp
from twinstamp.errors import ConfigError
from twinstamp.leap import leap_seconds
from twinstamp.owd.kernel import Datagram, StampedSocket, SystemClock, system_clock

if TYPE_CHECKING:
    from collections.abc import Callable

_NS = 10**9
_MOST_SOURCES = 4096  # rate limits and sessions that are remembered
_SESSION_IDLE_NS = 900 * _NS  # REFWAIT of RFC 5357 section 4.2
_FIRST_LATENESS_NS = 1_000_000  # until departures were measured: a millisecond from stamp to driver
_CLOCK_AGE_NS = _NS // 4
_HEAD = struct.Struct("!IQHHQIQHHB3x")
_MBZ = bytes(28)

# Why a datagram is not answered
REFUSALS = (
    "short", "reflected", "source_port", "source_address", "not_unicast", "not_allowed", "rate",
    "source_rate", "sessions", "unsent",
)  # fmt: skip


@dataclass(frozen=True)
class Rules:
    """Whom a reflector answers, and how.

    stateful: own sequence numbers per session (RFC 8762 section 4.3.2). ptp: timestamps in PTP format, else
    NTP. bound_ns: bound of the host's clock, which then counts as synchronised; None: what the kernel says.
    rate, source_rate: answers a second, of all and to one address. allowed: networks that are answered, none
    = all. low_ports: answer source ports below 1024, too. tai_utc_s: TAI - UTC, None: the table.
    """

    stateful: bool = False
    ptp: bool = False
    bound_ns: int | None = None
    rate: int = 10_000
    source_rate: int = 2_000
    allowed: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    low_ports: bool = False
    tai_utc_s: int | None = None

    def __post_init__(self) -> None:
        if self.rate < 1 or self.source_rate < 1:
            raise ConfigError(f"rates of {self.rate} and {self.source_rate} packets/s: give 1 or more")
        if self.bound_ns is not None and self.bound_ns < 0:
            raise ConfigError(f"a clock bound of {self.bound_ns} ns: give 0 or more")


class _Bucket:
    """Tokens that come at a rate, a tenth of a second's worth at most (at least 10)."""

    __slots__ = ("_at_ns", "_most", "_rate", "_tokens")

    def __init__(self, rate: int, now_ns: int) -> None:
        self._rate = rate
        self._most = self._tokens = max(10.0, rate / 10)
        self._at_ns = now_ns

    def take(self, now_ns: int) -> bool:
        grown = self._tokens + (now_ns - self._at_ns) * self._rate / _NS
        self._at_ns = now_ns
        self._tokens = min(self._most, grown)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class _Session:
    """What is remembered of a sender's session: our next number, and the last departure that was measured."""

    __slots__ = ("followed", "next", "seen_ns")

    def __init__(self) -> None:
        self.next = 0
        self.seen_ns = 0
        self.followed = (0, 0)  # number, timestamp


class Reflector:
    """Answers STAMP test packets that come to ``socket``.

    Safe against hostile packets: an answer is exactly as long as its packet; nothing is answered that is no
    STAMP packet, that is itself a reflected one (its 28 zero bytes are not zero: two reflectors would answer
    each other for ever), that comes from this port or one below 1024, from an address that is no host's, or
    that was sent to a broadcast or multicast address; rates are limited, and so is all memory.

    counts: answered and refused, by ``REFUSALS``. lateness_ns: greatest time from stamp to driver among the
    last departures, part of the error estimate.
    """

    def __init__(
        self,
        socket: StampedSocket,
        rules: Rules | None = None,
        *,
        clock: Callable[[], SystemClock] = system_clock,
        now_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._socket = socket
        self.rules = rules or Rules()
        self._clock = clock
        self._now_ns = now_ns
        self._monotonic_ns = monotonic_ns
        start = monotonic_ns()
        self._bucket = _Bucket(self.rules.rate, start)
        self._sources: OrderedDict[str, _Bucket] = OrderedDict()
        self._sessions: OrderedDict[tuple[str, int, str, int], _Session] = OrderedDict()
        self.counts = dict.fromkeys(("answered", *REFUSALS), 0)
        self.lateness_ns = _FIRST_LATENESS_NS
        self._measured: list[int] = []
        self._waiting: OrderedDict[int, tuple[_Session, int, int]] = OrderedDict()
        self._state = SystemClock(False, -1)
        self._state_at_ns = -_CLOCK_AGE_NS - 1

    # The packet

    def answer(self, datagram: Datagram) -> tuple[bytes, _Session] | None:
        """The reflected packet for a datagram, or None; says why in ``counts``."""
        reason = self._refusal(datagram)
        if reason is not None:
            self.counts[reason] += 1
            return None
        data = datagram.data
        sequence, timestamp, error, ssid = struct.unpack_from("!IQHH", data)
        now = self._monotonic_ns()
        session = self._session(datagram, ssid, now)
        if session is None:
            self.counts["sessions"] += 1
            return None
        number = session.next if self.rules.stateful else sequence
        estimate = self.estimate()
        received = self._timestamp(datagram.received_ns)
        tlvs = self._tlvs(data, session)
        ttl = datagram.ttl if datagram.ttl >= 0 else 0
        # The stamp of departure last: everything else is done.
        left_ns = self._now_ns()
        head = _HEAD.pack(
            number, self._timestamp(left_ns), estimate, ssid, received, sequence, timestamp, error, 0, ttl
        )
        session.next = (session.next + 1) & 0xFFFFFFFF
        session.seen_ns = now
        self._left_ns = left_ns
        self._number = number
        return head + tlvs, session

    def _refusal(self, datagram: Datagram) -> str | None:
        data, (address, port, *_) = datagram.data, datagram.source
        if len(data) < stamp.FULL_BYTES:
            return "short"
        if data[stamp.RECEIVE_TIMESTAMP_AT : stamp.TLV_AT] != _MBZ:
            return "reflected"
        if port == self._socket.port or port == 0 or (port < 1024 and not self.rules.low_ports):
            return "source_port"
        source = ipaddress.ip_address(address.partition("%")[0])
        reserved = source.version == 4 and source.is_reserved  # 240.0.0.0/4, the broadcast address too
        if source.is_multicast or source.is_unspecified or reserved:
            return "source_address"
        if datagram.destination != datagram.local or (
            datagram.destination and ipaddress.ip_address(datagram.destination).is_multicast
        ):
            return "not_unicast"
        if self.rules.allowed and not any(
            source.version == network.version and source in network for network in self.rules.allowed
        ):
            return "not_allowed"
        now = self._monotonic_ns()
        if not self._source_bucket(address, now).take(now):
            return "source_rate"
        return None if self._bucket.take(now) else "rate"

    def _source_bucket(self, address: str, now: int) -> _Bucket:
        bucket = self._sources.get(address)
        if bucket is None:
            bucket = self._sources[address] = _Bucket(self.rules.source_rate, now)
            if len(self._sources) > _MOST_SOURCES:
                self._sources.popitem(last=False)
        else:
            self._sources.move_to_end(address)
        return bucket

    def _session(self, datagram: Datagram, ssid: int, now: int) -> _Session | None:
        """The sender's session (RFC 8972 section 3: addresses, ports and identifier). None where there are
        too many and, stateful, the oldest is still in use.
        """
        key = (datagram.source[0], datagram.source[1], datagram.local, ssid)
        session = self._sessions.get(key)
        if session is None:
            if len(self._sessions) >= _MOST_SOURCES:
                oldest = next(iter(self._sessions.values()))
                if self.rules.stateful and now - oldest.seen_ns < _SESSION_IDLE_NS:
                    return None
                self._sessions.popitem(last=False)
            session = self._sessions[key] = _Session()
        else:
            self._sessions.move_to_end(key)
            if now - session.seen_ns > _SESSION_IDLE_NS:
                session.next = 0
        return session

    def _timestamp(self, utc_ns: int) -> int:
        if not self.rules.ptp:
            return int(stamp.ntp_from_utc_ns(utc_ns))
        offset = self.rules.tai_utc_s
        if offset is None:
            offset = leap_seconds().at_utc(utc_ns // _NS)
        seconds, ns = divmod(utc_ns + offset * _NS, _NS)
        return (seconds & 0xFFFFFFFF) << 32 | ns

    def estimate(self) -> int:
        """Our error estimate: the clock's bound, and from our stamp to the driver."""
        now = self._monotonic_ns()
        if now - self._state_at_ns > _CLOCK_AGE_NS:
            given = self.rules.bound_ns
            self._state = self._clock() if given is None else SystemClock(True, given)
            self._state_at_ns = now
        bound = self._state.bound_ns
        total = -1 if bound < 0 else bound + self.lateness_ns + 1
        return stamp.error_estimate(total, synchronised=self._state.synchronised, ptp=self.rules.ptp)

    def _tlvs(self, data: bytes, session: _Session) -> bytes:
        """The TLVs as they go back (RFC 8972 section 4): U for what is not known, M for what is malformed."""
        out = bytearray(data[stamp.TLV_AT :])
        at = 0
        while at + 4 <= len(out):
            kind, length = out[at + 1], out[at + 2] << 8 | out[at + 3]
            flags = 0
            if at + 4 + length > len(out):
                out[at] = stamp.TLV_MALFORMED
                break
            if kind == stamp.TLV_FOLLOW_UP:
                if length != 16:
                    out[at] = stamp.TLV_MALFORMED
                    break
                number, timestamp = session.followed
                method = stamp.METHOD_SOFTWARE_LOCAL if timestamp else stamp.METHOD_NONE
                out[at + 4 : at + 20] = struct.pack("!IQB3x", number, timestamp, method)
            elif kind != stamp.TLV_EXTRA_PADDING:
                flags = stamp.TLV_UNRECOGNISED
            out[at] = flags
            at += 4 + length
        return bytes(out)

    # The socket

    def step(self) -> bool:
        """Answers one datagram; False where there is none."""
        datagram = self._socket.receive()
        if datagram is None:
            return False
        answer = self.answer(datagram)
        if answer is not None:
            data, session = answer
            number = self._socket.sent
            if self._socket.send(data, datagram.source, source=datagram.local, interface=datagram.interface):
                self.counts["answered"] += 1
                self._waiting[number] = (session, self._number, self._left_ns)
                if len(self._waiting) > _MOST_SOURCES:
                    self._waiting.popitem(last=False)
            else:
                self.counts["unsent"] += 1
                session.next = session.next - 1 & 0xFFFFFFFF  # a number that nobody sees would look lost
        self.follow()
        return True

    def follow(self) -> None:
        """Takes the kernel's stamps of departures: for Follow-Up, and for how late our own stamps are."""
        while (departed := self._socket.departed()) is not None:
            waiting = self._waiting.pop(departed.number, None)
            if waiting is None:
                continue
            session, number, left_ns = waiting
            session.followed = (number, self._timestamp(departed.sent_ns))
            self._measured.append(departed.sent_ns - left_ns)
            if len(self._measured) >= 1000:
                del self._measured[:500]
            if len(self._measured) >= 10:
                self.lateness_ns = max(0, *self._measured)

    def serve(self, stop: Callable[[], bool] = lambda: False, *, count: int | None = None) -> None:
        """Answers until ``stop()`` says so (asked at least 10 times a second), or ``count`` are answered."""
        poll = select.poll()
        poll.register(self._socket.fileno(), select.POLLIN)
        while not stop() and (count is None or self.counts["answered"] < count):
            if poll.poll(100):
                for _ in range(256):
                    if count is not None and self.counts["answered"] >= count:
                        break
                    if not self.step():
                        break
                self.follow()


def networks(texts: list[str]) -> tuple[Any, ...]:
    """Networks as typed, e.g. 192.0.2.0/24. ConfigError for anything else."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise ConfigError(f"--allow: {error}; give networks as 192.0.2.0/24 or 2001:db8::/32") from error
