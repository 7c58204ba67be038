# SPDX-License-Identifier: Apache-2.0
"""A simulated receiver in real time, on a pseudo-terminal or a TCP port, for programs that read receivers."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import termios
import threading
import time
import tty
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from twinstamp_gps.errors import ReceiverError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from twinstamp_gps.simulated import ReceiverSecond, SimulatedReceiver

_NS = 10**9
_FS_PER_NS = 10**6


class Line(Protocol):
    """The far end of a serial line."""

    address: str

    def write(self, data: bytes) -> None: ...
    def read(self, timeout_s: float) -> bytes: ...
    def close(self) -> None: ...


class PtyLine:
    """A pseudo-terminal; ``link``, a symbolic link to it, is made and taken away again.

    Bytes that nobody reads are lost, as on a real line, once 4 KiB of them wait.
    """

    def __init__(self, link: str | None = None) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self.name = os.ttyname(self._slave)
        self._link: Path | None = None
        if link is not None:
            place = Path(link)
            try:
                if place.is_symlink() and not place.exists():
                    place.unlink()  # of a run that was killed
                place.symlink_to(self.name)
            except OSError as error:
                self.close()
                raise SettingError(
                    f"{link}: no link to the terminal can be made: {error.strerror}"
                ) from error
            self._link = place
        self.address = self.name if link is None else link

    def write(self, data: bytes) -> None:
        """Sends; what finds no room is lost, with all that waits: it would come out hours old."""
        try:
            if os.write(self._master, data) == len(data):
                return
        except BlockingIOError:
            pass
        except OSError as error:
            raise ReceiverError(f"{self.address}: {error.strerror}") from error
        termios.tcflush(self._slave, termios.TCIFLUSH)

    def read(self, timeout_s: float) -> bytes:
        """What came within ``timeout_s``."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, timeout_s))
        if not ready:
            return b""
        try:
            return os.read(self._master, 4096)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EIO):
                return b""
            raise ReceiverError(f"{self.address}: {error.strerror}") from error

    def close(self) -> None:
        """Hangs up."""
        if self._link is not None:
            self._link.unlink(missing_ok=True)
            self._link = None
        for descriptor in (self._master, self._slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)


class TcpLine:
    """A TCP port that serves one client after the other: socket://HOST:PORT for pyserial, tcp:// for gpsd."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self._client: socket.socket | None = None
        try:
            self._server = socket.create_server((host, port))
        except (OSError, OverflowError) as error:
            raise SettingError(f"{host}:{port}: cannot listen there: {error}") from error
        self._server.setblocking(False)
        name, number = self._server.getsockname()[:2]
        self.address = f"socket://{name}:{number}"

    def write(self, data: bytes) -> None:
        """Sends to the client, if there is one."""
        if self._client is None:
            return
        try:
            if self._client.send(data) == len(data):
                return
        except OSError:
            pass
        self._hang_up()  # it left, or it does not read

    def read(self, timeout_s: float) -> bytes:
        """What came within ``timeout_s``; takes a client that waits."""
        ends = [self._server] if self._client is None else [self._client]
        ready, _, _ = select.select(ends, [], [], max(0.0, timeout_s))
        if not ready:
            return b""
        try:
            if self._client is None:
                self._client = self._server.accept()[0]
                self._client.setblocking(False)
                return b""
            data = self._client.recv(4096)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._hang_up()
        return data

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def close(self) -> None:
        """Hangs up and stops listening."""
        self._hang_up()
        self._server.close()


class Runner:
    """Plays a simulated receiver in real time on a line; in a ``with`` block, in a thread of its own.

    clock_ns: the machine's clock, Unix ns; pulse 0 stands at its next whole second. Messages are written when
    their first bit would begin. on_second: called with each second when it begins.
    """

    def __init__(
        self,
        receiver: SimulatedReceiver,
        line: Line,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        on_second: Callable[[ReceiverSecond], None] = lambda second: None,
    ) -> None:
        self._receiver = receiver
        self._line = line
        self._on_second = on_second
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.error: BaseException | None = None
        # The start by the monotonic clock: the machine's may be set meanwhile.
        now, steady = clock_ns(), time.monotonic_ns()
        self._origin_ns = steady + (-now) % _NS

    @staticmethod
    def start_unix_s(clock_ns: Callable[[], int] = time.time_ns) -> int:
        """The Unix second at which a Runner made now begins, for SimulatedReceiver's start."""
        return -(-clock_ns() // _NS)

    def run(self, seconds: int | None = None) -> None:
        """Plays ``seconds`` seconds, or until ``stop``."""
        played = 0
        while not self._stop.is_set() and (seconds is None or played < seconds):
            if not self._wait(self._origin_ns + played * _NS):
                return
            second = self._receiver.second()
            self._on_second(second)
            for sent in second.transmissions:
                if not self._wait(self._origin_ns + sent.at_fs // _FS_PER_NS):
                    return
                self._line.write(sent.data)
            played += 1

    def _wait(self, until_ns: int) -> bool:
        """Answers commands until then; False when stopped."""
        while not self._stop.is_set():
            left = until_ns - time.monotonic_ns()
            if left <= 0:
                return True
            data = self._line.read(min(left / _NS, 0.05))
            if data:
                answer = self._receiver.command(data)
                if answer:
                    self._line.write(answer)
        return False

    def stop(self) -> None:
        """Ends ``run`` within 50 ms, from any thread or signal handler."""
        self._stop.set()

    def _play(self) -> None:
        try:
            self.run()
        except BaseException as error:  # shown by whoever leaves the with block
            self.error = error

    def __enter__(self) -> Runner:
        self._thread = threading.Thread(target=self._play, name="simulated receiver", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._thread is not None:
            self._thread.join(5)
        self._line.close()
        if self.error is not None and kind is None:
            raise self.error
