# SPDX-License-Identifier: Apache-2.0
"""A PHC's published clock in one record for status, by the names of twinstamp.card.clock_state."""

from __future__ import annotations

import time
from typing import Any

from twinstamp.phc.record import UTC_SOURCES, Reader


def phc_state(reader: Reader, boot_ns: int | None = None) -> dict[str, Any]:
    """As clock_state has it, and: valid: state and bound hold now; age_s: since the servo's last step;
    holdover_s; pulses; pid. Where nothing was published: state "not published", the others None or 0.
    bound_ns is None when it does not hold any more. boot_ns: CLOCK_BOOTTIME now."""
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME) if boot_ns is None else boot_ns
    record = reader.read()
    if record is None:
        return dict.fromkeys(_NAMES) | {
            "state": "not published", "valid": False, "utc_offset_s": 0, "utc_known": False, "leap_s": 0,
            "leap_tai_s": 0, "epoch": 0, "slewing": False, "pulses": 0,
        }  # fmt: skip
    valid = record.valid(now)
    offset = record.utc_offset()
    stale = now > record.valid_until_ns
    source = record.utc_source if 0 <= record.utc_source < len(UTC_SOURCES) else 0
    return {
        "state": f"{record.state_name}, run out"
        if stale and record.state_name != "stopped"
        else record.state_name,
        "state_number": record.state if record.state < 6 else None,
        "offset_ns": record.offset_ps / 1000,
        "bound_ns": record.bound_ns if valid else None,
        "frequency_ppb": record.frequency_ppt / 1000,
        "qerr_ps": None,
        "time_q32": (record.tai_ns << 32) // 1_000_000_000,
        "slewing": False,
        "utc_offset_s": offset.at(record.tai_ns // 1_000_000_000),
        "utc_known": offset.known,
        "utc_source": UTC_SOURCES[source],
        "utc_until_tai_s": record.utc_until_tai_s,
        "leap_s": record.leap_s,
        "leap_tai_s": record.leap_tai_s,
        "epoch": record.epoch,
        "messages": None,
        "valid": valid,
        "age_s": (now - record.boot_ns) / 1e9,
        "holdover_s": record.holdover_s,
        "pulses": record.pulses,
        "pid": record.pid,
    }


_NAMES = (
    "state", "state_number", "offset_ns", "bound_ns", "frequency_ppb", "qerr_ps", "time_q32", "utc_source",
    "utc_until_tai_s", "messages", "age_s", "holdover_s", "pid",
)  # fmt: skip
