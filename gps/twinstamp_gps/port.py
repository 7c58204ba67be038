# SPDX-License-Identifier: Apache-2.0
"""A receiver behind anything that pyserial opens: a device, a pseudo-terminal, socket://, rfc2217://."""

from __future__ import annotations

import termios
import time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import serial

from twinstamp_gps.errors import ReceiverError, SettingError
from twinstamp_gps.messages import Message, decode
from twinstamp_gps.naming import Judge
from twinstamp_gps.stream import DAMAGE, StreamCounts, StreamSplitter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

T = TypeVar("T")

BAUD_RATES = (9600, 19200, 38400, 57600, 115200, 230400, 460800, 921600)  # what u-blox receivers know
_READ_S = 0.05  # a read gathers bytes for as long; so exact is Arrival.monotonic_ns
_SILENCE_NS = 300_000_000  # longer than any pause within a frame, USB converters and networks included
_FAILURES = (serial.SerialException, OSError, termios.error, ValueError, TypeError, AttributeError)


class Arrival(NamedTuple):
    """monotonic_ns: time.monotonic_ns() when it was read, to 50 ms. frame: the bytes as they came.
    reason: why it names no second (twinstamp_gps.stream.REASONS), "" for none.
    """

    monotonic_ns: int
    message: Message
    frame: bytes
    reason: str = ""


def _opened(address: str, baud: int, timeout_s: float) -> Any:
    if baud not in BAUD_RATES:
        raise SettingError(f"a rate of {baud} baud: give one of {', '.join(map(str, BAUD_RATES))}")
    try:
        # Two readers would each get half of the bytes: a device is opened for this process alone.
        exclusive = {} if "://" in address else {"exclusive": True}
        return serial.serial_for_url(
            address, baudrate=baud, timeout=timeout_s, write_timeout=2.0, **exclusive
        )
    except (ValueError, *_FAILURES) as error:
        raise ReceiverError(
            f"receiver {address}: cannot be opened: {_why(error)}; plug it in, or give another port"
        ) from error


class Line:
    """A receiver's bytes as they come; arguments and errors as of Receiver."""

    def __init__(self, address: str, *, baud: int = 38400) -> None:
        self.address = address
        self._port: Any = _opened(address, baud, 0.0)

    def fileno(self) -> int | None:
        """To wait for bytes by select(2); None where the port has no file."""
        try:
            return int(self._port.fileno())
        except (AttributeError, OSError, ValueError):
            return None

    def read(self) -> bytes:
        """What has come; perhaps nothing. ReceiverError when the port closes."""
        try:
            return bytes(self._port.read(4096))
        except _FAILURES as error:
            raise ReceiverError(f"receiver {self.address}: gone: {_why(error)}") from error

    def close(self) -> None:
        """Closes the port."""
        try:
            self._port.close()
        except _FAILURES:
            return  # gone already


class Receiver:
    """A receiver on an open port; use it in a ``with`` block.

    address: /dev/ttyACM0, the path of a pseudo-terminal, socket://HOST:PORT, rfc2217://HOST:PORT, or another
    URL that pyserial knows. baud: of a serial line; the others ignore it.

    Errors: SettingError for an address or a rate that cannot be; ReceiverError when the port cannot be
    opened, or when it closes. Bytes, whatever they are, raise nothing: see ``counts``.
    """

    def __init__(self, address: str, *, baud: int = 38400) -> None:
        self.address = address
        self._splitter = StreamSplitter()
        self._last_ns = time.monotonic_ns()
        self._judge = Judge()
        self._port: Any = _opened(address, baud, _READ_S)

    @property
    def counts(self) -> StreamCounts:
        """Frames, and bytes of none, since the port was opened."""
        return self._splitter.counts

    @property
    def refused(self) -> dict[str, int]:
        """Frames and messages that were refused since then, by reason (twinstamp_gps.stream.REASONS)."""
        frames = self._splitter.counts.refused
        return {reason: count + frames[reason] for reason, count in self._judge.refused.items()}

    @property
    def damaged(self) -> int:
        """Those of them that cannot be what was sent."""
        refused = self.refused
        return sum(refused[reason] for reason in DAMAGE)

    @property
    def baud(self) -> int:
        """The rate of the line, baud."""
        return int(self._port.baudrate)

    def set_baud(self, baud: int) -> None:
        """Changes the line's rate on this side."""
        try:
            self._port.flush()
            self._port.baudrate = baud
        except _FAILURES as error:
            raise ReceiverError(f"receiver {self.address}: no {baud} baud: {_why(error)}") from error

    def send(self, data: bytes) -> None:
        """Writes all of ``data``."""
        try:
            self._port.write(data)
            self._port.flush()
        except _FAILURES as error:
            raise ReceiverError(f"receiver {self.address}: cannot be written to: {_why(error)}") from error

    def poll(self) -> list[Arrival]:
        """What came within the next 50 ms; perhaps nothing."""
        try:
            data = self._port.read(4096)
        except _FAILURES as error:
            raise ReceiverError(f"receiver {self.address}: gone: {_why(error)}") from error
        now = time.monotonic_ns()
        if data:
            self._last_ns = now
            frames = list(self._splitter.feed(data))
        elif self._splitter.pending and now - self._last_ns > _SILENCE_NS:
            frames = list(self._splitter.give_up())
        else:
            return []
        messages = [(decode(frame), frame.data) for frame in frames]
        return [Arrival(now, message, data, self._judge.judge(message)) for message, data in messages]

    def messages(self, seconds: float | None = None) -> Iterator[Arrival]:
        """Messages as they come, for ``seconds``, or without end."""
        end = None if seconds is None else time.monotonic() + seconds
        while end is None or time.monotonic() < end:
            yield from self.poll()

    def ask(self, data: bytes, answer: Callable[[Message], T | None], *, timeout_s: float = 1.0) -> T | None:
        """Sends ``data`` and returns the first answer that is not None; None when none came in time."""
        self.send(data)
        for arrival in self.messages(timeout_s):
            found = answer(arrival.message)
            if found is not None:
                return found
        return None

    def close(self) -> None:
        """Closes the port."""
        try:
            self._port.close()
        except _FAILURES:
            return  # gone already

    def __enter__(self) -> Receiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _why(error: BaseException) -> str:
    """One line of an error, without the number and path that pyserial puts before it."""
    text = str(getattr(error, "strerror", None) or error).strip() or type(error).__name__
    return " ".join(text.split())[:200]
