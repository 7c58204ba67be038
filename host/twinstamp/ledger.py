# SPDX-License-Identifier: Apache-2.0
"""The ledger: each frame received has exactly one fate (DESIGN: Ledger)."""

from __future__ import annotations

from twinstamp.errors import LedgerError

TYPE_CHECKING = False  # as in twinstamp.dedup: typing costs start-up time
if TYPE_CHECKING:
    from typing import Any

# Every fate of a frame, in the order in which reports show them.
FATES = (
    "forwarded",
    "duplicates_dropped",
    "rule_drops",
    "no_live_server",
    "overload",
    "errors",
    "in_flight",
)


class Account:
    """Frames and bytes (as received)."""

    __slots__ = ("bytes", "frames")

    def __init__(self, frames: int = 0, bytes: int = 0) -> None:
        self.frames = frames
        self.bytes = bytes

    def add(self, frames: int, bytes: int) -> None:
        self.frames += frames
        self.bytes += bytes

    def as_dict(self) -> dict[str, int]:
        return {"frames": self.frames, "bytes": self.bytes}


class Ledger:
    """Accounts of a pipeline. Every stage adds to it; ``check()`` proves that it adds up.

    received: what entered. One account per fate in FATES. tagged: a part of forwarded. copies_attempted,
    copies_sent, copies_failed: per copy to a server, a frame may have several; copies_waiting: on their way
    to a server that takes them in its own time. dropped_before: what the
    kernel or card dropped before it was received; it stands beside the ledger.
    """

    def __init__(self) -> None:
        self.received = Account()
        self.fates = {fate: Account() for fate in FATES}
        self.tagged = Account()
        self.copies_attempted = Account()
        self.copies_sent = Account()
        self.copies_failed = Account()
        self.copies_waiting = Account()
        self.dropped_before = 0

    def receive(self, frames: int, bytes: int) -> None:
        """Frames enter: they are in flight until another fate is known."""
        self.received.add(frames, bytes)
        self.fates["in_flight"].add(frames, bytes)

    def settle(self, fate: str, frames: int, bytes: int) -> None:
        """Frames in flight meet their fate."""
        self.fates[fate].add(frames, bytes)
        self.fates["in_flight"].add(-frames, -bytes)

    def check(self, *, ended: bool = False) -> None:
        """Raises LedgerError where the accounts do not add up; ended: nothing may be in flight any more."""
        for unit in ("frames", "bytes"):
            received = getattr(self.received, unit)
            accounted = sum(getattr(account, unit) for account in self.fates.values())
            parts = ", ".join(f"{fate} {getattr(self.fates[fate], unit)}" for fate in FATES)
            if received != accounted:
                raise LedgerError(f"received {received} {unit}, accounted for {accounted} ({parts})")
            if any(getattr(account, unit) < 0 for account in self.fates.values()):
                raise LedgerError(f"a fate has fewer than 0 {unit} ({parts})")
            if ended and getattr(self.fates["in_flight"], unit) != 0:
                raise LedgerError(f"the run has ended with {unit} in flight ({parts})")
            if getattr(self.tagged, unit) > getattr(self.fates["forwarded"], unit):
                raise LedgerError(f"more {unit} tagged than forwarded")
            attempted = getattr(self.copies_attempted, unit)
            sent, failed = getattr(self.copies_sent, unit), getattr(self.copies_failed, unit)
            waiting = getattr(self.copies_waiting, unit)
            if attempted != sent + failed + waiting or waiting < 0 or (ended and waiting):
                raise LedgerError(
                    f"{attempted} {unit} of copies attempted, {sent} sent + {failed} failed "
                    f"+ {waiting} waiting"
                )

    def as_dict(self) -> dict[str, Any]:
        result: dict[str, Any] = {"received": self.received.as_dict()}
        for fate in FATES:
            result[fate] = self.fates[fate].as_dict()
        result["tagged"] = self.tagged.as_dict()
        result["copies"] = {
            "attempted": self.copies_attempted.as_dict(),
            "sent": self.copies_sent.as_dict(),
            "send_errors": self.copies_failed.as_dict(),
            "waiting": self.copies_waiting.as_dict(),
        }
        result["dropped_before_received"] = self.dropped_before
        return result
