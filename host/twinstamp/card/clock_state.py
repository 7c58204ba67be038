# SPDX-License-Identifier: Apache-2.0
"""A card's clock in one record, for status, JSON and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinstamp.card.card import Card


def clock_state(card: Card) -> dict[str, Any]:
    """What the card says of its clock, None where it says nothing.

    state: as in the servo's log, with state_number beside it; without a servo "locked" or "unlocked".
    offset_ns: card time − TAI as the servo estimates it. bound_ns: of that error. frequency_ppb: the rate
    that the clock is set to. time_q32: card time, 32.32 s TAI. utc_offset_s: TAI − UTC. epoch: time-epoch.
    """
    clock = card.clock()
    return {
        "state": "locked" if clock.locked else "unlocked",
        "state_number": None,
        "offset_ns": None,
        "bound_ns": None if clock.bound_ns < 0 else clock.bound_ns,
        "frequency_ppb": clock.rate_ppb,
        "time_q32": clock.time_q32,
        "slewing": clock.slewing,
        "utc_offset_s": clock.utc_offset_s,
        "epoch": clock.epoch,
    }
