# SPDX-License-Identifier: Apache-2.0
"""Next hops of tunnels: asks the kernel to resolve one before the first frame needs it."""

from __future__ import annotations

import time

from twinstamp.errors import ConfigError

_NTF_USE = 0x01
_USABLE = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # REACHABLE STALE DELAY PROBE NOARP PERMANENT


def resolve(remote: str, interface: str | None, timeout_s: float) -> bool:
    """True once the neighbour towards ``remote`` (through ``interface``, None = as routed) is known.

    Sends no traffic of ours: RTM_NEWNEIGH with NTF_USE makes the kernel do its own ARP or neighbour
    discovery (linux/neighbour.h). Errors: ConfigError where there is no route.
    """
    import socket

    from pyroute2 import IPRoute  # type: ignore[import-untyped]
    from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

    family = socket.AF_INET6 if ":" in remote else socket.AF_INET
    with IPRoute() as netlink:
        query: dict[str, object] = {"dst": remote, "family": family}
        if interface is not None:
            query["oif"] = socket.if_nametoindex(interface)
        try:
            route = netlink.route("get", **query)[0]
        except NetlinkError as error:
            through = interface or "any interface"
            raise ConfigError(f"no route to tunnel end {remote} through {through}: {error}") from error
        hop = route.get_attr("RTA_GATEWAY") or remote
        oif = route.get_attr("RTA_OIF")
        limit = time.monotonic() + timeout_s
        while True:
            try:
                netlink.neigh("replace", dst=hop, ifindex=oif, family=family, flags=_NTF_USE, state=0)
            except NetlinkError:
                return True  # a device without neighbours (NOARP): nothing to find
            for entry in netlink.get_neighbours(family=family, ifindex=oif, dst=hop):
                if entry["state"] & _USABLE:
                    return True
            if time.monotonic() >= limit:
                return False
            time.sleep(0.01)
