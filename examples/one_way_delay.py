# SPDX-License-Identifier: Apache-2.0
"""One-way delay from a capture at the sender and one at the receiver: one_way_delay.py [SENT RECEIVED]"""

import numpy as np
import twinstamp
from made import two_captures
from twinstamp.owd import Options

sent, received = two_captures()
# What is missing less than the time-out before the capture's end is undecided: it might still arrive.
report = twinstamp.report_captures(
    [str(received)], sent=[str(sent)], receive_bound_ns=100, options=Options(timeout_ns=50_000_000)
)
for train in report.trains:
    packets = train.table()
    delay_ns = packets["delay_ns"]
    print(f"{train.key.name}: {train.loss.sent} sent, {train.loss.lost} lost")
    for quantile in (0, 50, 99, 100):
        print(f"  {quantile:3} %: {np.percentile(delay_ns, quantile) / 1e6:.3f} ms")
    print(f"  bound of a delay: {packets['bound_ns'].max()} ns")
