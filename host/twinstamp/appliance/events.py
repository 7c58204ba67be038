# SPDX-License-Identifier: Apache-2.0
"""What a person should know of a run, in bounded memory: a link may flap for a year."""

from __future__ import annotations

EACH = 1000  # of the first, and of the last


class Events(list[str]):
    """The first and the last thousand events. left_out: how many stood between them."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out = 0

    def append(self, event: str) -> None:
        super().append(event)
        if len(self) > 2 * EACH:
            del self[EACH]
            self.left_out += 1

    def told(self) -> list[str]:
        """All that are kept, with a line where some are missing."""
        if not self.left_out:
            return list(self)
        return [*self[:EACH], f"{self.left_out} events are left out here", *self[EACH:]]
