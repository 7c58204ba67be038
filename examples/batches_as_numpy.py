# SPDX-License-Identifier: Apache-2.0
"""Iterates over a capture as NumPy arrays, without Python for each packet: batches_as_numpy.py [FEED]"""

import numpy as np
import twinstamp
from made import a_feed

sizes = np.zeros(65536, np.int64)
udp = 0
last_ns = None
longest_gap_ns = 0
with twinstamp.open_capture(a_feed()) as capture:
    for batch in capture:
        with batch:  # gives its memory back at the end
            sizes += np.bincount(np.minimum(batch.length, 65535), minlength=65536)
            # Byte 23 of an Ethernet frame is the protocol of an IPv4 packet, bytes 12 and 13 the type.
            whole = batch.offset[batch.caplen > 23].astype(np.int64)
            ipv4 = whole[(batch.data[whole + 12] == 8) & (batch.data[whole + 13] == 0)]
            udp += np.count_nonzero(batch.data[ipv4 + 23] == 17)
            times = batch.timestamp_ns if last_ns is None else np.append(last_ns, batch.timestamp_ns)
            longest_gap_ns = max(longest_gap_ns, int(np.diff(times).max(initial=0)))
            last_ns = int(times[-1])
    print(f"{capture.format}: {capture.frames:,} frames, {udp:,} of them UDP over IPv4")
for size in np.argsort(sizes)[::-1][:5]:
    print(f"{sizes[size]:8,} frames of {size} bytes")
print(f"longest gap {twinstamp.format_ns(longest_gap_ns)}")
