# SPDX-License-Identifier: Apache-2.0
"""Standard input, output and error as the caller left them: closed, full, or with nobody at the other end."""

from __future__ import annotations

import contextlib
import os
import sys


def guard() -> None:
    """Takes the three descriptors, where they are closed, so that no file that is opened later gets them.

    As gnulib's stdopen: what stands in is /dev/null opened the wrong way round, so that using it fails with
    EBADF and is told, instead of reading or writing something else. Standard error says nothing then: Python
    prints to standard output, maybe into a capture, where sys.stderr is None.
    """
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, mode)
            if opened != descriptor:  # a lower one is closed as well, and was taken before
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def say(text: str) -> None:
    """A line on standard error; nothing where even that cannot be written."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def finish() -> None:
    """Hands standard output to the system. Raises OSError where it does not take it."""
    sys.stdout.flush()


def stuck() -> bool:
    """Whether standard output still holds what the system does not take."""
    try:
        sys.stdout.flush()
    except OSError:
        return True
    return False


def forget() -> None:
    """Lets what standard output and error still hold go, or Python would try again when it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError, ValueError):  # no descriptor behind it
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, stream.fileno())
                os.close(null)
