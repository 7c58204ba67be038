# SPDX-License-Identifier: Apache-2.0
"""A card's batches in a pcapng capture, with the state of its clock and what it dropped."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from twinstamp.errors import ConfigError
from twinstamp.stamp import ns_from_q32

if TYPE_CHECKING:
    from twinstamp.card.card import Card
    from twinstamp.card.linux import LinuxCard
    from twinstamp.frames import ClockState, FrameBatch
    from twinstamp.io.files import CaptureWriter


def clock_comment(clock: ClockState) -> str:
    """clock=card timescale=utc locked=no bound_ns=unknown epoch=1 state=none utc_offset_s=37 utc_known=no

    and behind it, where a leap second is announced, leap_s=1 leap_tai_s=1830297638.
    """
    leap = f" leap_s={clock.leap_s} leap_tai_s={clock.leap_tai_s}" if clock.leap_s else ""
    bound = "unknown" if clock.bound_ns < 0 else str(clock.bound_ns)
    return (
        f"clock={clock.source} timescale={clock.timescale} locked={'yes' if clock.locked else 'no'} "
        f"bound_ns={bound} epoch={clock.epoch} state={clock.state or 'none'} "
        f"utc_offset_s={clock.utc_offset_s} utc_known={'yes' if clock.utc_known else 'no'}{leap}"
    )


class CardCapture:
    """Writes a card's batches: ports as interfaces, nanoseconds, UTC.

    The first frame, and each first one after a change of the clock's state, has that state as a comment.
    ``finish`` writes an interface statistics block for each port: isb_ifrecv counts the frames that the card
    wanted to hand over, isb_ifdrop those of them that it dropped for want of room.

    Errors: ConfigError where the writer is not of pcapng or the batches are not in UTC.
    """

    def __init__(self, writer: CaptureWriter, card: Card | LinuxCard) -> None:
        self._writer = writer
        self._clock: ClockState | None = None
        writer.describe(card.ports)

    def write(self, batch: FrameBatch, *, most: int | None = None) -> int:
        """Writes a batch, its first ``most`` frames; returns how many. Does not release it."""
        n = len(batch) if most is None else min(most, len(batch))
        if n == 0:
            return 0
        if batch.clock.timescale != "utc":
            raise ConfigError("a capture file is in UTC: open the card with utc=True")
        keep = None
        if n < len(batch):
            keep = np.zeros(len(batch), np.uint8)
            keep[:n] = 1
        comments = None
        if batch.clock != self._clock:
            self._clock = batch.clock
            which = np.zeros(len(batch), np.uint8)
            which[0] = 1
            comments = (which, ("", clock_comment(batch.clock)))
        return self._writer.write(batch, keep, comments)

    def finish(self, card: Card | LinuxCard) -> None:
        """Writes what each port received and dropped."""
        from twinstamp.card.linux import LinuxCard

        if isinstance(card, LinuxCard):
            for port, link in enumerate(card.statistics()):
                self._writer.statistics(
                    card.ports,
                    port,
                    timestamp_ns=time.time_ns(),
                    received=link.frames + link.kernel_drops,
                    dropped=link.kernel_drops,
                    comment="",
                )
            return
        statistics = card.statistics()
        offset = card.utc_offset()
        tai_ns = ns_from_q32(statistics.at_q32)
        for port, counters in enumerate(statistics.ports):
            self._writer.statistics(
                card.ports,
                port,
                timestamp_ns=max(0, offset.utc_ns(tai_ns)),
                received=counters["stored"] + counters["dropped"],
                dropped=counters["dropped"],
                comment=f"fcs_errors={counters['fcs_errors']} not_wanted={counters['not_wanted']} "
                f"constant_q32={card.constants_q32[port]}",
            )
