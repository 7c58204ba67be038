# SPDX-License-Identifier: Apache-2.0
"""What frames are taken from: one protocol for captures, interfaces that may come and go, and cards."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Protocol

from twinstamp.appliance.config import ApplianceConfig, SourceConfig
from twinstamp.appliance.outputs import link_flags
from twinstamp.errors import InputError, TwinstampError
from twinstamp.frames import FrameBatch, Port
from twinstamp.io.files import CaptureReader, open_capture
from twinstamp.io.live import LinkStatistics, LiveSource, check_interface

_IFF_UP = 0x1
_RETRY_S = 0.25


class Source(Protocol):
    """Where frames come from. All calls but stop() belong to the thread that runs the loop.

    name: in the report; sources of one name share their counters (the ports of one card). ports: table of
    Port, only appended to. live: the stamps are of this moment, and what nobody takes in time is lost.
    ended: no more will come. damage: why a capture ended before its end. trouble: why nothing comes
    at present, of a source that may come back. dropped: frames lost before they could be received. capture:
    what is being read, for a progress bar. like: the capture whose interfaces and options the frames still
    have. memory_bytes: of its ring. remarks: what a person should know at the end.

    poll: the next frames, or None after timeout_s. stop: from any thread or a signal handler; poll gives what
    is under way, and a source that is not live ends then. counters: for the report.
    """

    @property
    def name(self) -> str: ...
    @property
    def ports(self) -> Sequence[Port]: ...
    @property
    def live(self) -> bool: ...
    @property
    def ended(self) -> bool: ...
    @property
    def damage(self) -> str | None: ...
    @property
    def trouble(self) -> TwinstampError | None: ...
    @property
    def dropped(self) -> int: ...
    @property
    def capture(self) -> CaptureReader | None: ...
    @property
    def like(self) -> CaptureReader | None: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def remarks(self) -> Sequence[str]: ...

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None: ...
    def stop(self) -> None: ...
    def counters(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


class FileSource:
    """A capture. A damaged one ends at the damage (`damage` tells), a stopped one with one more batch."""

    live = False
    trouble = None
    dropped = 0
    memory_bytes = 0
    remarks = ()

    def __init__(self, config: SourceConfig) -> None:
        assert config.file is not None
        self.name = config.file
        self.reader: CaptureReader = open_capture(config.file)
        self.capture = self.like = self.reader
        self.ended = False
        self.damage: str | None = None
        self._stopped = False

    @property
    def ports(self) -> Sequence[Port]:
        return self.reader.ports

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        if self.ended:
            return None
        last = self._stopped
        try:
            batch = self.reader.read()
        except InputError as error:
            self.damage = str(error)
            self.ended = True
            return None
        self.ended = last or batch is None
        return batch

    def stop(self) -> None:
        self._stopped = True
        self.reader.cancel()  # it may be waiting for a pipe

    def counters(self) -> dict[str, Any]:
        return {
            "frames": self.reader.frames,
            "fractions_beyond": self.reader.fractions_beyond,
            "truncated": self.reader.truncated,
            "damage": self.damage,
        }

    def close(self) -> None:
        self.reader.close()


class InterfaceSource:
    """An interface: a LiveSource that comes back.

    interface, options: LiveSource's. tell: takes what a person should know. After a down the kernel delivers
    again by itself; an interface that was made anew has another number, and is opened again. Counters go on.

    Errors: those of LiveSource when it is opened; poll raises none for an interface that is down or gone.
    """

    live = True
    ended = False
    damage = None
    capture = like = None
    remarks = ()

    def __init__(
        self, interface: str, *, tell: Callable[[str], Any], ring_mib: int = 64, **options: Any
    ) -> None:
        self.name = interface
        self.memory_bytes = ring_mib << 20
        self._options = {"ring_mib": ring_mib, **options}
        self._tell = tell
        self._before = LinkStatistics(*(0 for _ in LinkStatistics._fields))  # of sockets that are closed
        self._source: LiveSource | None = LiveSource(interface, **self._options)
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
            if not link_flags(self.name) & _IFF_UP:
                return None
        try:
            batch = self._current().poll(0.0 if self.trouble is not None else timeout_s)
        except (TwinstampError, OSError) as error:
            if self.trouble is None or str(error) != str(self.trouble):
                self._tell(f"source {self.name}: {error}")
            self.trouble = error if isinstance(error, TwinstampError) else TwinstampError(str(error))
            self._retry_at = time.monotonic() + _RETRY_S
            return None
        if self.trouble is not None:
            self.trouble = None
            self._tell(f"source {self.name} came back")
        return batch

    def _current(self) -> LiveSource:
        """The socket of the interface that has the name now."""
        index = socket.if_nametoindex(self.name) if self.trouble is not None else self._index
        if self._source is not None and index == self._index:
            return self._source
        self.close()
        self._source = LiveSource(self.name, **self._options)
        self._index = index
        return self._source

    @property
    def held(self) -> float:
        """Share of the ring that batches hold, 0.0 to 1.0."""
        return 0.0 if self._source is None else self._source.held_blocks / self._source.blocks

    def fileno(self) -> int:
        """The socket's descriptor; -1 while there is none to wait for."""
        return -1 if self._source is None or self.trouble is not None else self._source.fileno()

    def stop(self) -> None:
        """Nothing to do: poll never waits long."""

    @property
    def dropped(self) -> int:
        return self._statistics().kernel_drops

    def counters(self) -> dict[str, Any]:
        """Over all sockets so far."""
        return self._statistics()._asdict()

    def _statistics(self) -> LinkStatistics:
        if self._source is None:
            return self._before
        return LinkStatistics(*map(sum, zip(self._before, self._source.statistics(), strict=True)))

    def close(self) -> None:
        if self._source is not None:
            self._before = self._statistics()
            self._source.close()
            self._source = None


class CardPort:
    """A port of the simulated card (docs/card.md). What comes out has the card's clock and ports."""

    live = False
    trouble = None
    like = None

    def __init__(self, card: Any, port: Any, memory_bytes: int) -> None:
        self._card = card  # a CardSource
        self._port = port  # one of what its split() gives
        self.name: str = card.name
        self.memory_bytes = memory_bytes
        self.capture: CaptureReader | None = card.reader

    @property
    def ports(self) -> Sequence[Port]:
        return self._port.ports  # type: ignore[no-any-return]

    @property
    def ended(self) -> bool:
        return bool(self._port.ended)

    @property
    def damage(self) -> str | None:
        return self._card.damage  # type: ignore[no-any-return]

    @property
    def dropped(self) -> int:
        return int(self._card.dropped)

    @property
    def remarks(self) -> Sequence[str]:
        return self._card.remarks()  # type: ignore[no-any-return]

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        return self._port.poll(timeout_s)  # type: ignore[no-any-return]

    def stop(self) -> None:
        """Reads no more of the capture; what is on the wires still comes."""
        self._card.stop()

    def counters(self) -> dict[str, Any]:
        return self._card.statistics()  # type: ignore[no-any-return]

    def close(self) -> None:
        self._card.close()


def check_sources(config: ApplianceConfig) -> None:
    """Raises DeviceError or ConfigError where an interface is not there, before anything is made."""
    for source in config.sources:
        if source.file is None:
            check_interface(source.interface or "")


def open_sources(config: ApplianceConfig, *, tell: Callable[[str], Any]) -> list[Source]:
    """The sources that the file names, open. tell: takes what a person should know while they run.

    Raises ConfigError, InputError or DeviceError where one cannot be opened; none stays open then.
    """
    if config.card is not None:
        return _open_card(config)
    sources: list[Source] = []
    with ExitStack() as stack:
        for source in config.sources:
            opened: Source = (
                FileSource(source)
                if source.interface is None
                else InterfaceSource(
                    source.interface,
                    tell=tell,
                    filter=source.filter,
                    ring_mib=source.ring_mib,
                    promiscuous=source.promiscuous,
                    batch_frames=config.batch_frames,
                )
            )
            stack.callback(opened.close)
            sources.append(opened)
        stack.pop_all()
    return sources


def _open_card(config: ApplianceConfig) -> list[Source]:
    from twinstamp.card.source import CardSource

    card = config.card
    assert card is not None
    source = CardSource(
        card.play,
        ports=card.ports,
        speed=card.speed,
        longest_gap_ns=card.longest_gap_ns,
        clocks_ppb=card.clocks_ppb,
        seed=card.seed,
        block_log2=card.block_log2,
        blocks_log2=card.blocks_log2,
    )
    return [CardPort(source, port, 1 << (card.block_log2 + card.blocks_log2)) for port in source.split()]


def by_name(sources: Sequence[Source]) -> dict[str, Source]:
    """One source of each name: of those that share their counters only the last."""
    return {source.name: source for source in sources}
