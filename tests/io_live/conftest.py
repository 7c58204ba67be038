# SPDX-License-Identifier: Apache-2.0
"""Network namespaces of the tests' own: unique names, always removed."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_count = itertools.count()


def ip(*arguments: str, netns: str | None = None) -> str:
    """iproute2's ip, inside ``netns`` (default: where this thread is)."""
    command = ["ip", *(("-n", netns) if netns else ()), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


def _usable() -> str | None:
    if os.geteuid() != 0:
        return "not root"
    try:
        for line in ip("netns", "list").splitlines():  # left by a run that was killed
            match = re.match(r"tslive-(\d+)-", line)
            if match and not Path(f"/proc/{match[1]}").exists():
                ip("netns", "del", line.split()[0])
        name = f"tslive-{os.getpid()}-probe"
        ip("netns", "add", name)
        ip("netns", "del", name)
    except (OSError, subprocess.SubprocessError) as error:
        return str(error)
    return None


_reason: list[str | None] = []


class Net:
    """A namespace with a veth pair va - vb, quiet (no IPv6 chatter), offloads off."""

    def __init__(self, name: str) -> None:
        self.name = name

    def pair(self, a: str, b: str, *, offloads: bool = False) -> None:
        steps = [f"ip link add {a} type veth peer name {b}"]
        if not offloads:
            steps += [f"ethtool -K {end} tx off rx off tso off gso off gro off" for end in (a, b)]
        steps += [f"ip link set dev {end} up" for end in (a, b)]
        # Until the kernel's link watch has run, what is sent goes nowhere, without an error.
        steps += [f"until ip -o link show {end} | grep -q 'state UP'; do sleep 0.01; done" for end in (a, b)]
        script = " && ".join(steps)  # one process of ours, not seven
        subprocess.run(["sh", "-c", script], check=True, capture_output=True, timeout=20)


@pytest.fixture
def netns() -> Iterator[list[str]]:
    """A list: names of namespaces appended to it are made by ``make_netns`` and removed at the end."""
    names: list[str] = []
    yield names
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)


def make_netns(names: list[str]) -> str:
    name = f"tslive-{os.getpid()}-{next(_count)}"
    ip("netns", "add", name)
    names.append(name)
    return name


@pytest.fixture
def net(netns: list[str]) -> Iterator[Net]:
    """This thread inside a new namespace with the veth pair va - vb."""
    if not _reason:
        _reason.append(_usable())
    if _reason[0] is not None:
        pytest.skip(f"NO NAMESPACES: {_reason[0]} (live interfaces need root)")
    from pyroute2 import netns as namespaces

    name = make_netns(netns)
    namespaces.pushns(name)
    try:
        for scope in ("all", "default"):
            path = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
            if path.exists():
                path.write_text("1")
        ip("link", "set", "dev", "lo", "up")
        net = Net(name)
        net.pair("va", "vb")
        yield net
    finally:
        namespaces.popns()
