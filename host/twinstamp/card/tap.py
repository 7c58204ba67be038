# SPDX-License-Identifier: Apache-2.0
"""A card's ports as TAP interfaces: what they receive comes in there, what is sent there leaves them."""

from __future__ import annotations

import fcntl
import os
import select
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp.card.card import LONGEST_FRAME, SHORTEST_SENT, Card
from twinstamp.card.sim import CYCLES_PER_S, SimulatedCard
from twinstamp.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x0002 | 0x1000
_NAME_BYTES = 15
_MOST_FRAMES = 256  # taken from one interface before the card gets its turn
_MOST_BYTES = 1 << 16  # as much as the card's transmit ring holds
_BUSY_STEPS = 50  # that frames may be under way after the last one was seen
_IDLE_MS = 50
_BLOCK_TIMEOUT_S = 8e-6
_STEP_S = 2048 / CYCLES_PER_S  # card time for each look at the interfaces


class _FromHost:
    """Frames read from one interface that the card has not taken yet."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.data = np.zeros(_MOST_BYTES + LONGEST_FRAME + 1, np.uint8)
        self.offset = np.zeros(_MOST_FRAMES, np.uint64)
        self.length = np.zeros(_MOST_FRAMES, np.uint32)
        self.frames = 0
        self.next = 0

    def read(self) -> int:
        """Takes what waits there once all before is with the card; returns how many were refused."""
        from twinstamp import _native

        if self.next < self.frames:
            return 0
        self.next = 0
        self.frames, refused = _native.tap_read(
            self.fd, self.data, self.offset, self.length, SHORTEST_SENT, LONGEST_FRAME
        )
        return refused

    def send(self, card: Card, port: int) -> int:
        """Hands over what the card has room for; returns how many."""
        before, n = self.next, self.frames
        if before < n:
            columns = self.data, self.offset[:n], self.length[:n]
            self.next = card.send_batch(port, columns, first=before, timeout_s=0)
        return self.next - before


class CardTap:
    """TAP interfaces for ports of the simulated card, and cables between its ports.

    ports: one interface each. name: of the interfaces, %d is the port. cables: (port, port, delay in ns),
    both ways. trailer: each frame is followed by its stamp (docs/card.md). The interfaces vanish with it.

    A TAP carries no stamps and no FCS. Simulated time runs while ``run`` does, hundreds of times slower than
    the clock on the wall; what the port cannot take yet waits in the interface's queue, and is dropped and
    counted there when that is full, as with any slow interface.

    Errors: DeviceError where an interface cannot be made (it needs CAP_NET_ADMIN and /dev/net/tun);
    ConfigError for bad ports, names or cables.
    """

    def __init__(
        self,
        ports: Sequence[int],
        *,
        name: str = "tws%d",
        cables: Sequence[tuple[int, int, float]] = (),
        trailer: bool = False,
        seed: int = 1,
    ) -> None:
        if not ports or len(set(ports)) != len(ports):
            raise ConfigError(f"ports are {list(ports)}: give different ones")
        if len(ports) > 1 and "%d" not in name:
            raise ConfigError(f"name {name!r}: several interfaces need %d in it, for the port")
        self._names = {port: name.replace("%d", str(port)) for port in ports}
        for text in self._names.values():
            if not 1 <= len(text.encode()) <= _NAME_BYTES or "/" in text or text.split() != [text]:
                raise ConfigError(f"an interface cannot be called {text!r}: 1 to 15 bytes, no space, no /")
        ends = [end for a, b, _ in cables for end in (a, b)]
        if len(set(ends)) != len(ends):
            raise ConfigError("a port has two cables, or one to itself")
        self._trailer = trailer
        self._stop = threading.Event()
        self._fds: dict[int, int] = {}
        self._from: dict[int, _FromHost] = {}
        self._counts = {
            port: {"to_host": 0, "refused_by_host": 0, "from_host": 0, "not_sent": 0} for port in ports
        }
        simulated = SimulatedCard(seed=seed)
        try:
            for a, b, delay_ns in cables:
                simulated.connect(a, simulated, b, delay_ns=delay_ns)
                simulated.connect(b, simulated, a, delay_ns=delay_ns)
            self.card = Card(simulated, timeout_s=_BLOCK_TIMEOUT_S, block_log2=14)
        except BaseException:
            simulated.close()
            raise
        try:
            for port, text in self._names.items():
                self._fds[port] = _make_tap(text)
                self._from[port] = _FromHost(self._fds[port])
            self.card.start(ports=list(ports))
        except BaseException:
            self.close()
            raise

    @property
    def names(self) -> list[str]:
        """The interfaces, in the order of the ports given."""
        return list(self._names.values())

    def run(self, seconds: float | None = None) -> None:
        """Carries frames until ``stop``, or for ``seconds``."""
        from twinstamp import _native

        end = None if seconds is None else time.monotonic() + seconds
        simulated = self.card.transport
        assert isinstance(simulated, SimulatedCard)
        waiting = select.poll()
        for fd in self._fds.values():
            waiting.register(fd, select.POLLIN)
        busy = 0
        while not self._stop.is_set() and (end is None or time.monotonic() < end):
            for port in self._fds:
                if self._send(port):
                    busy = _BUSY_STEPS
            batch = self.card.poll(_STEP_S)
            if batch is not None:
                busy = _BUSY_STEPS
                with batch:
                    data, offset, caplen, _, _, number, _ = batch.raw
                    for port, fd in self._fds.items():
                        try:
                            sent, refused = _native.tap_write(
                                fd, data, offset, caplen, number, port, self._trailer
                            )
                        except OSError as error:
                            raise DeviceError(f"{self._names[port]}: {error.strerror}") from error
                        self._counts[port]["to_host"] += sent
                        self._counts[port]["refused_by_host"] += refused
            for port in range(self.card.identity.ports):
                simulated.truth(port)  # it would pile up
            busy -= busy > 0
            if not busy:  # nothing under way: simulated time may wait too
                waiting.poll(_IDLE_MS)

    def _send(self, port: int) -> bool:
        """From the interface to the card; what the card has no room for waits. True while frames come."""
        source, counts = self._from[port], self._counts[port]
        try:
            counts["not_sent"] += source.read()
        except OSError as error:
            raise DeviceError(f"{self._names[port]}: {error.strerror}") from error
        sent = source.send(self.card, port)
        counts["from_host"] += sent
        return sent > 0 or source.next < source.frames

    def stop(self) -> None:
        """Makes ``run`` return; from a signal handler or another thread."""
        self._stop.set()

    def statistics(self) -> dict[str, Any]:
        """Per interface: frames to and from the host, those refused, and the port's counters."""
        counters = self.card.counters()
        return {
            "interfaces": {
                name: {"port": port, **self._counts[port], "counters": counters[port]}
                for port, name in self._names.items()
            },
            "dropped": sum(counters[port]["dropped"] for port in self._names),
        }

    def close(self) -> None:
        """Removes the interfaces. Further calls do nothing."""
        fds, self._fds = self._fds, {}
        for fd in fds.values():
            os.close(fd)
        self.card.close()

    def __enter__(self) -> CardTap:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _make_tap(name: str) -> int:
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise DeviceError(
            f"/dev/net/tun: cannot be opened: {error.strerror}; is the tun module loaded?"
        ) from error
    try:
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TAP_NO_PI))
    except OSError as error:
        os.close(fd)
        raise DeviceError(
            f"{name}: the TAP interface cannot be made: {error.strerror}; it needs CAP_NET_ADMIN (root)"
        ) from error
    return fd
