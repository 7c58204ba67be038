# SPDX-License-Identifier: Apache-2.0
"""Which datagram a departure stamp belongs to, through sends that fail (docs/decisions/0141)."""

from __future__ import annotations

from collections import OrderedDict

MOST_WAITING = 1 << 16  # datagrams whose stamps are waited for; most that are lost never get one
UNKNOWN = -1


class DepartureNumbers:
    """From the kernel's keys of departure stamps (SOF_TIMESTAMPING_OPT_ID) to the numbers of datagrams.

    The kernel counts a socket's datagrams from key 0 on. Whether it counted one whose sending failed cannot
    be told (it does where netfilter refused it, and before Linux 6.9 in more cases), so it is made to begin
    with 0 again after each failure: ``anew``. Stamps of datagrams sent before may come afterwards, with keys
    that are used again. A key that may mean several datagrams is given to none: no stamp is better than a
    neighbour's.
    """

    def __init__(self) -> None:
        self._key = 0
        self._waiting: OrderedDict[int, int] = OrderedDict()  # key → number, since the last failure
        self._before: OrderedDict[int, list[int]] = OrderedDict()  # the same, from before it

    def sent(self, number: int) -> None:
        """Datagram ``number`` was sent: the kernel's next key is its."""
        self._waiting[self._key] = number
        self._key = self._key + 1 & 0xFFFFFFFF
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popitem(last=False)

    def anew(self) -> None:
        """The kernel begins with key 0 again."""
        for key, number in self._waiting.items():
            self._before.setdefault(key, []).append(number)
        while len(self._before) > MOST_WAITING:
            self._before.popitem(last=False)
        self._waiting.clear()
        self._key = 0

    def number(self, key: int) -> int:
        """The datagram of a stamp with this key; UNKNOWN where that cannot be told."""
        candidates = self._before.pop(key, [])
        new = self._waiting.pop(key, None)
        if new is not None:
            candidates.append(new)
        if len(candidates) <= 1:
            return candidates[0] if candidates else UNKNOWN
        # Stamps of the others may still come, and then belong to any of them.
        self._before[key] = [UNKNOWN] * (len(candidates) - 1)
        return UNKNOWN
