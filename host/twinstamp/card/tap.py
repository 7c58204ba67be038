# SPDX-License-Identifier: Apache-2.0
"""A card's ports as TAP interfaces: what they receive comes in there, what is sent there leaves them."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import threading
import time
from typing import TYPE_CHECKING, Any

from twinstamp.card.card import Card
from twinstamp.card.sim import CYCLES_PER_S, SimulatedCard
from twinstamp.errors import ConfigError, DeviceError, OverloadError

if TYPE_CHECKING:
    from collections.abc import Sequence

_TUNSETIFF = 0x400454CA
_IFF_TAP_NO_PI = 0x0002 | 0x1000
_NAME_BYTES = 15
_MOST_FRAMES = 64  # taken from one interface before the card gets its turn
_BLOCK_TIMEOUT_S = 8e-6
_STEP_S = 2048 / CYCLES_PER_S  # card time for each look at the interfaces


class CardTap:
    """TAP interfaces for ports of the simulated card, and cables between its ports.

    ports: one interface each. name: of the interfaces, %d is the port. cables: (port, port, delay in ns),
    both ways. trailer: each frame is followed by its stamp (docs/card.md). The interfaces vanish with it.

    A TAP carries no stamps and no FCS. Simulated time runs while ``run`` does, hundreds of times slower than
    the clock on the wall.

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
        busy = 0
        while not self._stop.is_set() and (end is None or time.monotonic() < end):
            for port, fd in self._fds.items():
                busy = max(busy, self._from_host(port, fd))
            batch = self.card.poll(_STEP_S)
            if batch is not None:
                busy = 50
                with batch:
                    data, offset, caplen, _, _, number, _ = batch.raw
                    for port, fd in self._fds.items():
                        try:
                            sent, refused = _native.tap_write(
                                fd, data, offset, caplen, number, port, self._trailer
                            )
                        except OSError as error:
                            raise DeviceError(f"{self._names[port]}: {error}") from error
                        self._counts[port]["to_host"] += sent
                        self._counts[port]["refused_by_host"] += refused
            for port in range(self.card.identity.ports):
                simulated.truth(port)  # it would pile up
            busy -= busy > 0
            if not busy:
                time.sleep(0.005)  # nothing under way: simulated time may wait too

    def _from_host(self, port: int, fd: int) -> int:
        """Sends what waits in the interface; returns for how many steps frames may be under way."""
        counts = self._counts[port]
        for number in range(_MOST_FRAMES):
            try:
                frame = os.read(fd, 65536)
            except BlockingIOError:
                return 50 if number else 0
            except OSError as error:  # EIO while the interface is down
                if error.errno == errno.EIO:
                    return 50 if number else 0
                raise DeviceError(f"{self._names[port]}: cannot be read: {error.strerror}") from error
            try:
                self.card.send(port, frame, timeout_s=1e-3)
            except (ConfigError, OverloadError):  # too long, or the port is behind: as a full queue
                counts["not_sent"] += 1
            else:
                counts["from_host"] += 1
        return 50

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
