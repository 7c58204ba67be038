# SPDX-License-Identifier: Apache-2.0
"""Who else has a PHC: one program at a time may steer it."""

from __future__ import annotations

import fcntl
import os
import re
import socket
from pathlib import Path

from twinstamp.errors import ConfigError, DeviceError

# Programs that steer what they have opened, by their names in /proc/PID/comm.
STEERING = ("ptp4l", "phc2sys", "ts2phc", "ptpd", "ptpd2", "satpulsed", "phc_ctl", "testptp")


def phc_of(name: str) -> tuple[str, int]:
    """("/dev/ptpN", N) of a device or of an interface with a PHC. ConfigError for what is neither."""
    if found := re.fullmatch(r"/dev/ptp(\d+)", name):
        return name, int(found[1])
    if "/" in name:
        real = os.path.realpath(name)
        if real != name and re.fullmatch(r"/dev/ptp\d+", real):
            return phc_of(real)
        raise ConfigError(f"--phc {name}: give /dev/ptpN, or an interface that has a PHC")
    from twinstamp.card.nic import stamping_info

    if name not in {interface for _, interface in socket.if_nameindex()}:
        raise ConfigError(
            f"--phc {name}: there is no such interface (ip link), and no device without its path"
        )
    number = stamping_info(name).phc
    if number < 0:
        raise ConfigError(f"--phc {name}: the interface has no PHC (ethtool -T {name})")
    return f"/dev/ptp{number}", number


def holders(path: str) -> list[tuple[int, str]]:
    """(pid, name) of the other processes that have a file open, as far as this user may see."""
    found = []
    target = os.path.realpath(path)
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if any(str(one.readlink()) == target for one in (entry / "fd").iterdir()):
                found.append((int(entry.name), (entry / "comm").read_text(encoding="utf-8").strip()))
        except OSError:
            continue  # it has ended, or is another user's
    return sorted(found)


def named(found: list[tuple[int, str]]) -> str:
    """Processes in words; "" for none."""
    return ", ".join(f"{name}, pid {pid}" for pid, name in found)


def claim(path: str, fd: int) -> None:
    """Takes an open PHC for this process. DeviceError, with the name of whoever steers it, where another
    does.

    A lock (flock(2)) keeps a second Twinstamp out; programs that take none are known by their names.
    """
    others = holders(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise DeviceError(
            f"{path} is steered by another program already"
            f"{f' ({named(others)})' if others else ''}: end it first"
        ) from error
    if steering := [one for one in others if one[1] in STEERING]:
        raise DeviceError(f"{path} is open in {named(steering)}, which would steer it too: end it first")
