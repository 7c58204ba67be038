# SPDX-License-Identifier: Apache-2.0
"""UDP sockets with the kernel's stamps, and what the kernel knows of its clock (Linux)."""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections import deque
from typing import Any, NamedTuple

from twinstamp.errors import ConfigError, DeviceError
from twinstamp.owd.departures import UNKNOWN, DepartureNumbers

# include/uapi/asm-generic/socket.h, include/uapi/linux/net_tstamp.h, in.h, in6.h, errqueue.h
_SO_TIMESTAMPING = 37
_SOF_TX_SOFTWARE = 1 << 1
_SOF_RX_SOFTWARE = 1 << 3
_SOF_SOFTWARE = 1 << 4
_SOF_OPT_ID = 1 << 7
_SOF_OPT_TSONLY = 1 << 11
_STAMPS = _SOF_TX_SOFTWARE | _SOF_RX_SOFTWARE | _SOF_SOFTWARE | _SOF_OPT_TSONLY
_SO_BINDTODEVICE = 25
_IP_PKTINFO = 8
_IP_RECVERR = 11
_IP_RECVTTL = 12
_IPV6_RECVPKTINFO = 49
_IPV6_PKTINFO = 50
_IPV6_RECVERR = 25
_IPV6_RECVHOPLIMIT = 51
_IPV6_HOPLIMIT = 52
_MSG_ERRQUEUE = 0x2000
_ORIGIN_TIMESTAMPING = 4
_ANCILLARY = 512
_ICMP_ERRORS = (errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH)
LARGEST = 65_535


class SystemClock(NamedTuple):
    """What CLOCK_REALTIME is worth. bound_ns: its maximum error, -1 where it is not synchronised."""

    synchronised: bool
    bound_ns: int


def system_clock() -> SystemClock:
    """As adjtimex(2) has it: ``maxerror``, which whoever disciplines the clock keeps up."""
    from twinstamp.card.system_clock import system_clock as kernel_clock

    state = kernel_clock()
    return SystemClock(state.synchronised, state.max_error_ns if state.synchronised else -1)


class Datagram(NamedTuple):
    """A received datagram. received_ns: kernel's stamp, ns UTC; stamped: False where it had none and the
    time of reading stands in. ttl: -1 unknown. destination: where it was sent to, "" unknown; local: the
    address of this host that took it. interface: index, 0 unknown.
    """

    data: bytes
    source: Any
    received_ns: int
    stamped: bool
    ttl: int
    destination: str
    local: str
    interface: int


class Departed(NamedTuple):
    """The kernel's stamp of a departure: number of the datagram among those the socket took, ns UTC."""

    number: int
    sent_ns: int


def _next_step(error: OSError) -> str:
    """What to do about a socket that cannot be opened."""
    steps = {
        errno.EADDRINUSE: "end the other program, or give another port",
        errno.EADDRNOTAVAIL: "give an address of this machine",
        errno.ENODEV: "give an interface that `ip link` lists",
        errno.EACCES: "ports below 1024 need root: give a higher one",
        errno.EPERM: "this needs root",
    }
    return steps.get(error.errno or 0, "give another port, address or interface")


class StampedSocket:
    """A UDP socket with kernel stamps in both directions, TTL and addresses of each datagram.

    address, port: to bind; "" = any address, 0 = any port. interface: only through it (needs CAP_NET_RAW).
    ttl: of what is sent. Stamps are software ones, when the packet passes the driver: host time in the sense
    of RFC 7679 section 3.7.2, not wire time. ConfigError for a bad address, DeviceError where the socket
    cannot be made or bound.
    """

    def __init__(
        self, address: str, port: int, *, version: int = 4, interface: str | None = None, ttl: int = 255
    ) -> None:
        if address:
            try:
                version = ipaddress.ip_address(address.partition("%")[0]).version
            except ValueError:
                raise ConfigError(
                    f"{address!r} is no IP address: give one as 192.0.2.1 or 2001:db8::1"
                ) from None
        if not 0 <= port < 1 << 16:
            raise ConfigError(f"UDP port {port}: give 0 to 65535")
        self.version = version
        four = version == 4
        try:
            self._socket = socket.socket(socket.AF_INET if four else socket.AF_INET6, socket.SOCK_DGRAM)
        except OSError as error:
            raise DeviceError(f"no IPv{version} UDP socket: {error.strerror}") from error
        try:
            if interface is not None:
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, interface.encode() + b"\0")
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _STAMPS | _SOF_OPT_ID)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            if four:
                for option, value in ((_IP_PKTINFO, 1), (_IP_RECVTTL, 1), (socket.IP_TTL, ttl)):
                    self._socket.setsockopt(socket.IPPROTO_IP, option, value)
            else:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                for option, value in (
                    (_IPV6_RECVPKTINFO, 1), (_IPV6_RECVHOPLIMIT, 1), (socket.IPV6_UNICAST_HOPS, ttl)
                ):  # fmt: skip
                    self._socket.setsockopt(socket.IPPROTO_IPV6, option, value)
            where = socket.getaddrinfo(
                address or None, port, self._socket.family, socket.SOCK_DGRAM,
                flags=socket.AI_PASSIVE | socket.AI_NUMERICHOST,
            )  # fmt: skip
            self._socket.bind(where[0][4])
            self._socket.setblocking(False)
        except OSError as error:
            self._socket.close()
            through = f" through {interface}" if interface else ""
            raise DeviceError(
                f"UDP port {port} on {address or 'any address'}{through}: {error.strerror or error}; "
                f"{_next_step(error)}"
            ) from error
        self.sent = 0  # datagrams that the kernel took: their numbers in Departed
        self._numbers = DepartureNumbers()
        self._departed: deque[Departed] = deque()

    def __enter__(self) -> StampedSocket:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def fileno(self) -> int:
        """Descriptor, for select."""
        return self._socket.fileno()

    @property
    def port(self) -> int:
        """UDP port it is bound to."""
        return int(self._socket.getsockname()[1])

    def connect(self, address: Any) -> str:
        """Takes only datagrams from ``address``; says which local address reaches it. DeviceError where
        there is no route.
        """
        try:
            self._socket.connect(address)
        except OSError as error:
            raise DeviceError(f"{address[0]} cannot be reached: {error.strerror}") from error
        return str(self._socket.getsockname()[0])

    def send(self, data: bytes, to: Any = None, *, source: str = "", interface: int = 0) -> bool:
        """Sends a datagram, from ``source`` where given; False where the kernel did not take it."""
        ancillary = []
        if source:
            packed = ipaddress.ip_address(source.partition("%")[0]).packed
            if self.version == 4:
                info = struct.pack("=I4s4s", interface, packed, bytes(4))
                ancillary = [(socket.IPPROTO_IP, _IP_PKTINFO, info)]
            else:
                info = packed + struct.pack("=I", interface)
                ancillary = [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, info)]
        for attempt in range(2):
            try:
                if to is None:
                    self._socket.sendmsg([data], ancillary)
                else:
                    self._socket.sendmsg([data], ancillary, 0, to)
            except OSError as error:
                if error.errno in (errno.EBADF, errno.ENODEV):
                    raise DeviceError(f"the socket is gone: {error.strerror}") from error
                self._number_anew()
                # An ICMP error for an earlier datagram is told once, in place of sending this one.
                if error.errno in _ICMP_ERRORS and attempt == 0:
                    continue
                return False
            break
        self._numbers.sent(self.sent)
        self.sent += 1
        return True

    def _number_anew(self) -> None:
        """Behind a send that failed: it may have been counted. The kernel's count begins again."""
        while (stamp := self._stamp()) is not None:
            self._keep(*stamp)
        try:
            # From off to on sets the count to 0 (net/core/sock.c, sock_set_timestamping).
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _STAMPS)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPING, _STAMPS | _SOF_OPT_ID)
        except OSError as error:
            raise DeviceError(f"departures cannot be stamped any more: {error.strerror}") from error
        while (stamp := self._stamp()) is not None:
            if stamp[0] != 0:  # what left in between has key 0, whatever its number
                self._keep(*stamp)
        self._numbers.anew()

    def _keep(self, key: int, at_ns: int) -> None:
        number = self._numbers.number(key)
        if number != UNKNOWN:
            self._departed.append(Departed(number, at_ns))

    def receive(self) -> Datagram | None:
        """The next datagram, or None where there is none now."""
        import time

        try:
            data, ancillary, _, source = self._socket.recvmsg(LARGEST, _ANCILLARY)
        except BlockingIOError:
            return None
        except OSError as error:
            if error.errno in (*_ICMP_ERRORS, errno.EINTR):
                return None  # an ICMP error for a datagram that was sent: it will be missing
            raise DeviceError(f"the socket cannot be read: {error.strerror}") from error
        at_ns, ttl, destination, local, interface = 0, -1, "", "", 0
        for level, kind, value in ancillary:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING:
                at_ns = _timespec(value)
            elif level == socket.IPPROTO_IP and kind == socket.IP_TTL:
                ttl = struct.unpack_from("=i", value)[0]
            elif level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                interface, here, to = struct.unpack_from("=I4s4s", value)
                local, destination = socket.inet_ntoa(here), socket.inet_ntoa(to)
            elif level == socket.IPPROTO_IPV6 and kind == _IPV6_HOPLIMIT:
                ttl = struct.unpack_from("=i", value)[0]
            elif level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
                packed, interface = struct.unpack_from("=16sI", value)
                local = destination = socket.inet_ntop(socket.AF_INET6, packed)
        stamped = at_ns != 0
        return Datagram(data, source, at_ns or time.time_ns(), stamped, ttl, destination, local, interface)

    def departed(self) -> Departed | None:
        """The next stamp of a departure, or None where there is none now. A datagram whose stamp cannot be
        told from another's has none."""
        while not self._departed:
            stamp = self._stamp()
            if stamp is None:
                return None
            self._keep(*stamp)
        return self._departed.popleft()

    def _stamp(self) -> tuple[int, int] | None:
        """The next stamp on the error queue: the kernel's key, ns UTC."""
        while True:
            try:
                _, ancillary, _, _ = self._socket.recvmsg(LARGEST, _ANCILLARY, _MSG_ERRQUEUE)
            except OSError:
                return None
            at_ns, key = 0, -1
            for level, kind, value in ancillary:
                if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPING:
                    at_ns = _timespec(value)
                elif (level, kind) in (
                    (socket.IPPROTO_IP, _IP_RECVERR), (socket.IPPROTO_IPV6, _IPV6_RECVERR)
                ):  # fmt: skip
                    _, origin, _, _, _, _, data = struct.unpack_from("=IBBBBII", value)
                    if origin == _ORIGIN_TIMESTAMPING:
                        key = data
            if at_ns and key >= 0:
                return key, at_ns


def _timespec(value: bytes) -> int:
    """The software stamp of struct scm_timestamping, ns."""
    if len(value) < 16:
        return 0
    seconds, ns = struct.unpack_from("=qq", value)
    return int(seconds) * 10**9 + int(ns)


def resolve(host: str, port: int, version: int | None = None) -> Any:
    """The first address of a host as sockets take it. ConfigError where there is none."""
    family = {None: 0, 4: socket.AF_INET, 6: socket.AF_INET6}[version]
    try:
        return socket.getaddrinfo(host, port, family, socket.SOCK_DGRAM)[0][4]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{host}: no such host: {getattr(error, 'strerror', error)}") from error
