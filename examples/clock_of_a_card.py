# SPDX-License-Identifier: Apache-2.0
"""Shows a card and the state of its clock: clock_of_a_card.py [CARD]

CARD: sim (`make hdl` builds it), pynq:FILE.bit, or uart:DEVICE.
"""

import sys

import twinstamp

with twinstamp.open_card(sys.argv[1] if len(sys.argv) > 1 else "sim") as card:
    print(card.identity)
    clock = card.clock()
    print(f"time {clock.time_q32 / 2**32:.9f} s TAI, TAI-UTC {clock.utc_offset_s} s")
    print(f"state {clock.state or 'unknown'}, {'locked' if clock.locked else 'not locked'}")
    print(f"bound {clock.bound_ns} ns" if clock.bound_ns >= 0 else "bound unknown")
    card.load_time_q32(1_800_000_000 << 32)
    card.slew_ns(250.0)
    after = card.clock()
    print(f"after a new time: epoch {after.epoch} (was {clock.epoch}), {after.slew_left_ns:.1f} ns to slew")
