# SPDX-License-Identifier: Apache-2.0
"""A reflector's sessions: bounded in all and per address (docs/decisions/0143)."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

IDLE_NS = 900 * 1_000_000_000  # REFWAIT of RFC 5357 section 4.2


class SessionKey(NamedTuple):
    """What tells sessions apart (RFC 8972 section 3). ssid: 0 for senders that have none."""

    address: str
    port: int
    local: str
    ssid: int


class Session:
    """What is remembered of a sender's session: our next number, and the last departure that was measured.

    followed: number and timestamp.
    """

    __slots__ = ("followed", "next", "seen_ns")

    def __init__(self) -> None:
        self.next = 0
        self.seen_ns = 0
        self.followed = (0, 0)


class Sessions:
    """Sessions by key: ``most`` in all, ``of_address`` of one address.

    busy_stay: a session that was seen within IDLE_NS is not given up for another one of its address, nor for
    one of another address that has more than ``fair`` (stateful reflectors: its numbers would begin anew).
    Where all are taken, the address with most gives up the one it has not used for longest.
    """

    def __init__(self, most: int, *, of_address: int, fair: int, busy_stay: bool) -> None:
        self._most = most
        self._of_address = of_address
        self._fair = fair
        self._busy_stay = busy_stay
        self._count = 0
        self._addresses: dict[str, OrderedDict[SessionKey, Session]] = {}
        # Addresses by how many sessions they have; the one that came to that number first stands first.
        self._by_size: list[OrderedDict[str, None]] = [OrderedDict() for _ in range(of_address + 1)]

    def __len__(self) -> int:
        return self._count

    def find(self, key: SessionKey, now_ns: int) -> Session | None:
        """The session, a new one where it is not known, or None where there is no room for it."""
        mine = self._addresses.get(key.address)
        session = None if mine is None else mine.get(key)
        if mine is None or session is None:
            if not self._room(key.address, mine, now_ns):
                return None
            session = Session()
            mine = self._addresses.setdefault(key.address, OrderedDict())
            mine[key] = session
            self._resized(key.address, len(mine) - 1)
        else:
            mine.move_to_end(key)
            if now_ns - session.seen_ns > IDLE_NS:
                session.next = 0
        session.seen_ns = now_ns
        return session

    def _room(self, address: str, mine: OrderedDict[SessionKey, Session] | None, now_ns: int) -> bool:
        if mine is not None and len(mine) >= self._of_address:
            return self._give_up(address, now_ns, busy_too=not self._busy_stay)
        if self._count < self._most:
            return True
        size, greatest = next(
            (size, next(iter(found)))
            for size, found in reversed(list(enumerate(self._by_size)))
            if found
        )  # fmt: skip
        if size > self._fair or not self._busy_stay:
            return self._give_up(greatest, now_ns, busy_too=True)
        # Nobody has more than a fair share: whoever was idle for long makes room.
        idle = min(self._addresses, key=lambda other: next(iter(self._addresses[other].values())).seen_ns)
        return self._give_up(idle, now_ns, busy_too=False)

    def _give_up(self, address: str, now_ns: int, *, busy_too: bool) -> bool:
        """Forgets the session of ``address`` that was not used for longest."""
        mine = self._addresses[address]
        key, oldest = next(iter(mine.items()))
        if not busy_too and now_ns - oldest.seen_ns < IDLE_NS:
            return False
        del mine[key]
        self._resized(address, len(mine) + 1)
        return True

    def _resized(self, address: str, before: int) -> None:
        size = len(self._addresses[address])
        self._count += size - before
        self._by_size[before].pop(address, None)
        if size:
            self._by_size[size][address] = None
        else:
            del self._addresses[address]
