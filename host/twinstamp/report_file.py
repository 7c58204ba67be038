# SPDX-License-Identifier: Apache-2.0
"""Reports as JSON files, opened before the work and written behind it."""

from __future__ import annotations

import contextlib
import os
import stat
import sys

from twinstamp.errors import ConfigError
from twinstamp.paths import lock_file

TYPE_CHECKING = False  # as in twinstamp.dedup: typing costs start-up time
if TYPE_CHECKING:
    from typing import Any


class ReportFile:
    """A report to be written as JSON: to a file, or to standard output for "-"; None: to nowhere.

    A file is opened at once, so that a mistake shows before the work and not after it, and while there is
    still the right to open it; what it held before stays until write(). close() takes away a file that was
    made here and never written. Raises ConfigError where it cannot be opened, or another run is writing it.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = path = None if path is None else os.fspath(path)
        self._descriptor: int | None = None
        self._made = False
        if path is not None:
            # Now: the user that an appliance becomes may not be able to read the interpreter's modules.
            import json

            self._dumps = json.dumps
        # A FIFO is opened when there is something for it: that waits for its reader.
        if path is None or path == "-" or stat.S_ISFIFO(_mode(path)) or stat.S_ISCHR(_mode(path)):
            return
        try:
            self._made = _mode(path) == 0
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
            lock_file(self._descriptor, path)
        except OSError as error:
            raise _unwritten(path, error) from error
        except ConfigError:
            self._made = False
            self.close()
            raise

    def write(self, report: dict[str, Any]) -> None:
        """Writes the report, once. Raises ConfigError where that fails."""
        path = self._path
        if path is None:
            return
        text = self._dumps(report, indent=2, ensure_ascii=False) + "\n"
        if path == "-":
            sys.stdout.write(text)
            sys.stdout.flush()
            return
        try:
            descriptor, self._descriptor = self._descriptor, None
            if descriptor is not None:
                os.ftruncate(descriptor, 0)
            # A file name that is no UTF-8 stands in the report with \\udcXX for its other bytes.
            with open(
                path if descriptor is None else descriptor, "w", encoding="utf-8", errors="backslashreplace"
            ) as file:
                file.write(text)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise _unwritten(path, error) from error

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        os.close(descriptor)
        if self._made and self._path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._path)  # noqa: PTH108

    def __enter__(self) -> ReportFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _unwritten(path: str, error: OSError) -> ConfigError:
    return ConfigError(f"{path}: the report cannot be written: {error.strerror}; give another place")


def _mode(path: str) -> int:
    """st_mode, 0 where there is nothing."""
    try:
        return os.stat(path).st_mode  # noqa: PTH116
    except OSError:
        return 0
