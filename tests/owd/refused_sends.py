# SPDX-License-Identifier: Apache-2.0
"""Sends that netfilter refuses: `python -m tests.owd.refused_sends WHAT` in a network namespace of its own.

Prints what it saw as JSON; `no netfilter` where the kernel has no nf_tables.
"""

from __future__ import annotations

import json
import struct
import sys
import time

from pyroute2 import IPRoute
from pyroute2.nftables.main import NFTables
from twinstamp import stamp
from twinstamp.owd.kernel import StampedSocket, SystemClock
from twinstamp.owd.reflect import Reflector, Rules

INET, DROP = 1, 0
PATTERN = "..x..xx.x" + "." * 40 + "x" + "." * 300 + "xxxx.."


class Refusing:
    """Makes netfilter refuse everything that goes out, while it is on: sendmsg fails with EPERM."""

    def __init__(self) -> None:
        self._tables = NFTables(nfgen_family=INET)
        self._on = False

    def __call__(self, on: bool) -> None:
        if on and not self._on:
            self._tables.table("add", name="refuse")
            self._tables.chain("add", table="refuse", name="out", hook="output", type="filter", policy=DROP)
        elif self._on and not on:
            self._tables.table("del", name="refuse")
        self._on = on


def stamps(refuse: Refusing, address: str) -> dict[str, object]:
    """Each datagram of PATTERN (x: refused): (before, after) of the call, and the stamps by number."""
    calls, found, taken = [], [], []
    with StampedSocket(address, 0) as sender, StampedSocket(address, 0) as receiver:
        where = (address, receiver.port)
        for i, what in enumerate(PATTERN):
            refuse(what == "x")
            before = time.time_ns()
            taken.append(sender.send(b"x" * 50, where))
            if taken[-1]:
                calls.append((before, time.time_ns()))
            if i % 7 == 0:  # most stamps wait in the queue for a while
                while (departed := sender.departed()) is not None:
                    found.append(tuple(departed))
        time.sleep(0.01)
        while (departed := sender.departed()) is not None:
            found.append(tuple(departed))
    return {"calls": calls, "found": found, "taken": taken}


def follow_up(refuse: Refusing) -> dict[str, object]:
    """A reflector some of whose answers are refused: (before, after) of each answer, by number, and what
    Follow-Up said of it in the next answer."""
    calls, told = {}, []
    follow = struct.pack("!BBH16x", 0x80, stamp.TLV_FOLLOW_UP, 16)
    with StampedSocket("127.0.0.1", 0) as socket, StampedSocket("127.0.0.1", 0) as sender:
        reflector = Reflector(
            socket, Rules(stateful=True, low_ports=True), clock=lambda: SystemClock(True, 1000)
        )
        for i, what in enumerate("...xx...x....."):
            refuse(False)
            head = struct.pack("!IQHH", i, int(stamp.ntp_from_utc_ns(time.time_ns())), 0x8093, 7)
            sender.send(head + bytes(28) + follow, ("127.0.0.1", socket.port))
            refuse(what == "x")
            before = time.time_ns()
            reflector.step()
            after = time.time_ns()
            time.sleep(0.005)
            reflector.follow()
            answer = sender.receive()
            if answer is None:
                continue
            (number,) = struct.unpack_from("!I", answer.data)
            calls[number] = (before, after)
            followed, departed, method = struct.unpack_from("!IQB", answer.data, stamp.TLV_AT + 4)
            if method:
                told.append((followed, int(stamp.utc_ns_from_ntp(departed, before))))
    return {"calls": calls, "told": told, "counts": reflector.counts}


def main() -> None:
    with IPRoute() as route:
        route.link("set", index=1, state="up")
    try:
        refuse = Refusing()
        refuse(True)
        refuse(False)
    except Exception as error:
        print(json.dumps({"no netfilter": str(error)}))
        return
    what = sys.argv[1]
    print(json.dumps(follow_up(refuse) if what == "follow-up" else stamps(refuse, what)))


if __name__ == "__main__":
    main()
