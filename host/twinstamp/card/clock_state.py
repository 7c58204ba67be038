# SPDX-License-Identifier: Apache-2.0
"""A card's clock in one record, for status, JSON and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twinstamp.card.card import SERVO_STATES
from twinstamp.card.firmware import Firmware

if TYPE_CHECKING:
    from twinstamp.card.card import Card


def clock_state(card: Card) -> dict[str, Any]:
    """What the card says of its clock, None where it says nothing.

    state: of the servo, state_number its number in servo.h and in logs; "locked" or "unlocked" where none
    disciplines the clock. offset_ns: card time − TAI as the servo estimated it at its last step. bound_ns: of
    that error. frequency_ppb: the oscillator against nominal as the servo estimates it, else the rate that
    the clock is set to. qerr_ps: of the last step's pulse. time_q32: card time, 32.32 s TAI. utc_offset_s:
    TAI − UTC now, utc_known: whether somebody who knows has said so; leap_s, leap_tai_s: the leap second to
    come. utc_source: who said so ("satellites", "host", "table", "nobody"), utc_until_tai_s: until when it is
    good; both None where no firmware runs. epoch: time-epoch. messages: what the firmware got from the
    receiver: ubx, nmea, rtcm (whole messages), skipped (bytes of none), refused (by reason:
    docs/receiver.md).
    """
    clock = card.clock()
    output = inputs = counts = messages = None
    if clock.state and not clock.failed:
        firmware = Firmware(card)
        counts = firmware.counts()
        messages = {name: getattr(counts, name) for name in ("ubx", "nmea", "rtcm", "skipped")}
        messages["refused"] = counts.refused
        steps = firmware.steps(max(0, counts.steps - 1))
        output, inputs = (steps[-1].output, steps[-1].input) if steps else (None, None)
    return {
        "state": clock.state or ("locked" if clock.locked else "unlocked"),
        "state_number": SERVO_STATES.index(clock.state) if clock.state in SERVO_STATES else None,
        "offset_ns": None if output is None else output["offset_ps"] / 1000,
        "bound_ns": None if clock.bound_ns < 0 else clock.bound_ns,
        "frequency_ppb": clock.rate_ppb if output is None else output["frequency_ppt"] / 1000,
        "qerr_ps": None if inputs is None else inputs["qerr_ps"],
        "time_q32": clock.time_q32,
        "slewing": clock.slewing,
        "utc_offset_s": clock.utc_offset_s,
        "utc_known": clock.utc_known,
        "utc_source": None if counts is None else counts.utc_source,
        "utc_until_tai_s": None if counts is None else counts.utc_until_tai_s,
        "leap_s": clock.leap_s,
        "leap_tai_s": clock.leap_tai_s,
        "epoch": clock.epoch,
        "messages": messages,
    }
