# SPDX-License-Identifier: Apache-2.0
"""The control socket: one JSON object a line in, one a line out, in a thread of its own (docs/control.md)."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import socket
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twinstamp.appliance.hub import become_ordinary
from twinstamp.errors import ConfigError, DeviceError, TwinstampError

_MOST_CLIENTS = 64
_LONGEST_LINE = 65_536
_LONGEST_PATH = 107  # sun_path of unix(7), with its zero

Command = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class _Client:
    """A connection: what has come of its lines, what has not gone of its answer."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.come = bytearray()
        self.going = bytearray()
        self.ended = False  # no more comes


class Control:
    """Listens on a UNIX socket and answers commands.

    path: of the socket, made with mode 0600. commands: name → what answers it; called in this object's thread
    with the request; what it returns is the answer's "result", a TwinstampError its "error". start() starts
    the thread; wake(name) runs a command from a signal handler, and its answer goes to nobody.

    Raises ConfigError where the path is taken by something else, another appliance answers there, or it
    cannot be made.
    """

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        self.path = path
        self._commands = commands
        self._clients: dict[socket.socket, _Client] = {}
        self._thread: threading.Thread | None = None
        self._closing = False
        self._woken: list[str] = []
        _clear(path)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        before = os.umask(0o177)
        try:
            self._listener.bind(os.fspath(path))
        except OSError as error:
            self._listener.close()
            raise ConfigError(f"{path}: the control socket cannot be made: {error.strerror}") from error
        finally:
            os.umask(before)
        status = path.stat()
        self._made = status.st_dev, status.st_ino
        self._listener.listen(16)
        self._hear, self._call = socket.socketpair()
        for end in (self._hear, self._call):
            end.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._hear, selectors.EVENT_READ)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="control", daemon=True)
        self._thread.start()

    def wake(self, command: str) -> None:
        """Runs a command soon. From a signal handler too: takes no lock."""
        self._woken.append(command)
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is ringing already
            self._call.send(b"!")

    def close(self) -> None:
        """Ends the thread and takes the socket away. Further calls do nothing."""
        if self._closing:
            return
        self._closing = True
        self._ring()
        if self._thread is not None:
            self._thread.join(5)  # a command may be under way
        for connection in [*self._clients]:
            self._drop(connection)
        for end in (self._listener, self._hear, self._call):
            end.close()
        self._selector.close()
        with contextlib.suppress(OSError):
            status = self.path.stat()
            if (status.st_dev, status.st_ino) == self._made:  # not somebody else's by now
                self.path.unlink()

    def _loop(self) -> None:
        become_ordinary()
        while not self._closing:
            for key, events in self._selector.select():
                found = key.fileobj
                if found is self._hear:
                    self._be_woken()
                elif found is self._listener:
                    self._accept()
                else:
                    assert isinstance(found, socket.socket)
                    self._serve(found, events)

    def _be_woken(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._hear.recv(64)
        while self._woken and not self._closing:
            self._answer({"command": self._woken.pop(0)})

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # it has gone again, or no descriptor is left
            return
        if len(self._clients) >= _MOST_CLIENTS:
            connection.close()
            return
        connection.setblocking(False)
        self._clients[connection] = _Client(connection)
        self._selector.register(connection, selectors.EVENT_READ)

    def _serve(self, connection: socket.socket, events: int) -> None:
        """One answer a turn, and one at a time: nobody waits for a client of many requests, or a lazy one."""
        client = self._clients[connection]
        try:
            if events & selectors.EVENT_READ:
                part = connection.recv(65_536)
                client.come += part
                client.ended = client.ended or not part
            if not client.going:
                self._next_answer(client)
            if client.going:
                del client.going[: connection.send(client.going)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(connection)
            return
        more = bool(client.going) or b"\n" in client.come
        if client.ended and not more:
            self._drop(connection)
            return
        self._selector.modify(connection, selectors.EVENT_WRITE if more else selectors.EVENT_READ)

    def _next_answer(self, client: _Client) -> None:
        end = client.come.find(b"\n")
        if end < 0 and len(client.come) <= _LONGEST_LINE:
            return
        line = bytes(client.come if end < 0 else client.come[:end])
        del client.come[: len(line) + 1]
        client.ended = client.ended or end < 0
        if line.strip():
            client.going += json.dumps(self._answer_line(line)).encode() + b"\n"

    def _answer_line(self, line: bytes) -> Mapping[str, Any]:
        if len(line) > _LONGEST_LINE:
            return {"ok": False, "error": f"a line of over {_LONGEST_LINE} bytes"}
        try:
            request = json.loads(line)
        except (ValueError, RecursionError):
            return {"ok": False, "error": "not one JSON object in a line of UTF-8"}
        if not isinstance(request, dict):
            return {"ok": False, "error": 'not a JSON object: write {"command": "status"}'}
        return self._answer(request)

    def _answer(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        name = request.get("command")
        if not isinstance(name, str) or name not in self._commands:
            known = ", ".join(self._commands)
            return {"ok": False, "error": f"unknown command {str(name)[:60]!r}; known are {known}"}
        try:
            return {"ok": True, "result": self._commands[name](request)}
        except (TwinstampError, OSError, MemoryError) as error:
            return {"ok": False, "error": str(error) or type(error).__name__}

    def _drop(self, connection: socket.socket) -> None:
        self._clients.pop(connection, None)
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(connection)
        connection.close()


def _clear(path: Path) -> None:
    """Takes away a socket that nobody listens on any more: its appliance was killed."""
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise ConfigError(
            f"{path}: the name of a socket has {_LONGEST_PATH} bytes at most; choose a shorter one"
        )
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"{path}: the control socket cannot be made: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise ConfigError(f"{path}: is there and no socket; choose another name for the control socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            pass
        except OSError as error:
            raise ConfigError(f"{path}: cannot be asked who listens there: {error.strerror}") from error
        else:
            raise ConfigError(f"{path}: another appliance listens there; stop it, or choose another name")
    try:
        path.unlink()
    except OSError as error:
        raise ConfigError(f"{path}: an old socket cannot be taken away: {error.strerror}") from error


def ask(path: str | os.PathLike[str], command: str, *, timeout_s: float = 30.0) -> dict[str, Any]:
    """Sends one command to an appliance and returns its result.

    Raises DeviceError where nobody answers, ConfigError where there may be no asking, TwinstampError with the
    appliance's words where it refuses.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(os.fspath(path))
            connection.sendall(json.dumps({"command": command}).encode() + b"\n")
            answer = bytearray()
            while not answer.endswith(b"\n"):
                part = connection.recv(1 << 20)
                if not part:
                    break
                answer += part
        except TimeoutError:
            raise DeviceError(f"{path}: the appliance has not answered within {timeout_s:g} s") from None
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                raise ConfigError(
                    f"{path}: {error.strerror}; ask as the user that runs the appliance"
                ) from None
            raise DeviceError(
                f"{path}: no appliance answers there: {error.strerror}; is it running?"
            ) from None
    try:
        reply = json.loads(answer)
        if reply["ok"] is True:
            return dict(reply["result"])
        error_text = str(reply["error"])
    except (ValueError, KeyError, TypeError):
        raise DeviceError(f"{path}: what answers there is no appliance of this version") from None
    raise TwinstampError(error_text)
