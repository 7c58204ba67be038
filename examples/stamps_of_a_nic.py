# SPDX-License-Identifier: Apache-2.0
"""Receives from an ordinary interface with the NIC's or the kernel's stamps: stamps_of_a_nic.py [INTERFACE]

Needs root, or CAP_NET_RAW. Without a name it listens to lo and sends five packets there itself.
"""

import socket
import sys
import time

import twinstamp

interface = sys.argv[1] if len(sys.argv) > 1 else "lo"
seen = 0
with twinstamp.LinuxCard([interface], hardware=None if interface != "lo" else False) as card:
    card.start()
    end = time.monotonic() + 5
    if interface == "lo":
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(5):
                sender.sendto(b"%d" % number, ("127.0.0.1", 9))
    while seen < 5 and time.monotonic() < end:
        batch = card.poll(0.2)
        if batch is None:
            continue
        with batch:
            bound = batch.clock.bound_ns
            print(
                f"{len(batch)} frames stamped by the {batch.clock.source}, clock "
                f"{'synchronised' if batch.clock.locked else 'not synchronised'}, "
                f"bound {'unknown' if bound < 0 else f'{bound} ns'}"
            )
            for at_ns, length in zip(batch.timestamp_ns.tolist(), batch.length.tolist(), strict=True):
                print(f"  {at_ns} ns UTC: {length} bytes")
            seen += len(batch)
