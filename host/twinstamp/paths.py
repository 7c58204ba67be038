# SPDX-License-Identifier: Apache-2.0
"""Files that are written: never one that is read, never one that another run is writing."""

from __future__ import annotations

import errno
import os
import stat

from twinstamp.errors import ConfigError

TYPE_CHECKING = False  # as in twinstamp.dedup: typing costs start-up time
if TYPE_CHECKING:
    Path = str | os.PathLike[str]


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to the same file, also where it is still to be made. Devices such as /dev/null
    are nobody's file."""
    try:
        first = os.stat(one)  # noqa: PTH116
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)
    if stat.S_ISCHR(first.st_mode):
        return False
    try:
        return os.path.samestat(first, os.stat(other))  # noqa: PTH116
    except OSError:
        return False


def refuse_same(path: Path | None, *others: Path | None, what: str = "--json") -> None:
    """Raises ConfigError where a file to be written is one that is read, or written for something else.

    path, others: None and "-" stand for no file. what: the option or key that names the path.
    """
    if path is None or path == "-":
        return
    for other in others:
        if other is not None and other != "-" and same_file(path, other):
            raise ConfigError(f"{what} {path}: is the same file as {other}; choose another name")


def lock_file(descriptor: int, name: str) -> None:
    """Locks a file until its descriptor is closed; ConfigError where another run holds it (flock(2)).

    Where the file system knows no locks, nothing is locked.
    """
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno == errno.EWOULDBLOCK:
            raise ConfigError(
                f"{name}: another run is using it; wait for it to end, or choose another name"
            ) from None
