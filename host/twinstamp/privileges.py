# SPDX-License-Identifier: Apache-2.0
"""Giving up root's rights for good (prctl(2), capabilities(7))."""

from __future__ import annotations

import ctypes
import os
import pwd

from twinstamp.errors import ConfigError

# include/uapi/linux/prctl.h
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 23, 24, 38
_MOST_CAPABILITIES = 64


def drop_privileges(user: str, what: str) -> None:
    """Becomes ``user`` for good; sockets and files that are open stay open.

    No program that this process starts gets more rights than it: no_new_privs is set, and the bounding set is
    emptied where that is allowed (CAP_SETPCAP). Both hold for this thread and those it starts from here on;
    the user and its groups for all threads. what: names the option in errors.

    ConfigError where there is no such user, or the process may not become it.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise ConfigError(f"{what}: there is no user {user!r}; give one that `getent passwd` lists") from None
    try:
        if os.geteuid() != entry.pw_uid:
            _empty_bounding_set()  # while it may
            os.setgroups([])
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
        if _prctl(_PR_SET_NO_NEW_PRIVS, 1) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except OSError as error:
        raise ConfigError(f"{what}: cannot become {user}: {error.strerror}; start as root") from error


def _empty_bounding_set() -> None:
    for capability in range(_MOST_CAPABILITIES):
        if _prctl(_PR_CAPBSET_READ, capability) < 0:
            return  # the kernel knows no more
        _prctl(_PR_CAPBSET_DROP, capability)


def _prctl(option: int, value: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    return int(libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))
