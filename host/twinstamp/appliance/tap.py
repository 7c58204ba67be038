# SPDX-License-Identifier: Apache-2.0
"""An interface that frames are taken from: it may go down, away, and come back."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from twinstamp.appliance.outputs import link_flags
from twinstamp.errors import TwinstampError
from twinstamp.frames import FrameBatch, Port
from twinstamp.io.live import LinkStatistics, LiveSource

_IFF_UP = 0x1
_RETRY_S = 0.25


class Tap:
    """A LiveSource that comes back.

    interface, options: LiveSource's. tell: takes what a person should know. After a down the kernel delivers
    again by itself; an interface that was made anew has another number, and is opened again. Counters go on.

    Errors: those of LiveSource when it is opened; poll raises none for an interface that is down or gone.
    """

    def __init__(self, interface: str, *, tell: Callable[[str], Any], **options: Any) -> None:
        self.interface = interface
        self._options = options
        self._tell = tell
        self._before = LinkStatistics(*(0 for _ in LinkStatistics._fields))  # of sockets that are closed
        self._source: LiveSource | None = LiveSource(interface, **options)
        self._index = socket.if_nametoindex(interface)
        self.ports: Sequence[Port] = self._source.ports
        self.trouble: TwinstampError | None = None  # since it is down: what was told
        self._retry_at = 0.0

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        """As LiveSource.poll; None while the interface is down."""
        if self.trouble is not None:
            wait_s = min(timeout_s, self._retry_at - time.monotonic())
            if wait_s > 0:
                time.sleep(wait_s)
            if time.monotonic() < self._retry_at:
                return None
            self._retry_at = time.monotonic() + _RETRY_S
            if not link_flags(self.interface) & _IFF_UP:
                return None
        try:
            batch = self._current().poll(0.0 if self.trouble is not None else timeout_s)
        except (TwinstampError, OSError) as error:
            if self.trouble is None or str(error) != str(self.trouble):
                self._tell(f"source {self.interface}: {error}")
            self.trouble = error if isinstance(error, TwinstampError) else TwinstampError(str(error))
            self._retry_at = time.monotonic() + _RETRY_S
            return None
        if self.trouble is not None:
            self.trouble = None
            self._tell(f"source {self.interface} came back")
        return batch

    def _current(self) -> LiveSource:
        """The socket of the interface that has the name now."""
        index = socket.if_nametoindex(self.interface) if self.trouble is not None else self._index
        if self._source is not None and index == self._index:
            return self._source
        self.close()
        self._source = LiveSource(self.interface, **self._options)
        self._index = index
        return self._source

    def fileno(self) -> int:
        """The socket's descriptor; -1 while there is none to wait for."""
        return -1 if self._source is None or self.trouble is not None else self._source.fileno()

    def statistics(self) -> LinkStatistics:
        """Over all sockets so far."""
        if self._source is None:
            return self._before
        return LinkStatistics(*map(sum, zip(self._before, self._source.statistics(), strict=True)))

    def close(self) -> None:
        if self._source is not None:
            self._before = self.statistics()
            self._source.close()
            self._source = None
