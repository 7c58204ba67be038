# SPDX-License-Identifier: Apache-2.0
"""Finds the window that a feed needs and removes its duplicates: clean_a_capture.py [FEED]"""

import twinstamp
from made import MADE, a_feed

feed = a_feed()
found = twinstamp.analyse_capture(feed, profile="routing")
print(f"{found['network']['frames']:,} of {found['frames']:,} frames are duplicates by the network")
window = found["window"]
if window is None:
    raise SystemExit("nothing to remove")
print(f"removed by a window of {window['count']} frames and {twinstamp.format_ns(window['time_ns'])}")

MADE.mkdir(exist_ok=True)
report = twinstamp.dedup_capture(
    feed, MADE / "clean.pcapng", profile="routing", window=window["count"], time_ns=window["time_ns"]
)
for fate, count in report["ledger"].items():
    print(fate, count)
