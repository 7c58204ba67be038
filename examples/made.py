# SPDX-License-Identifier: Apache-2.0
"""What the other examples work on where you name no file of your own: captures made in a moment."""

from __future__ import annotations

import struct
import sys
import tempfile
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import twinstamp
from twinstamp import stamp
from twinstamp.demo.made import make

MADE = Path(tempfile.gettempdir()) / "twinstamp-examples"


def a_feed() -> Path:
    """The capture named on the command line, or a mirror feed: web, DNS, each packet up to four times."""
    if len(sys.argv) > 1:
        return Path(sys.argv[1])
    MADE.mkdir(exist_ok=True)
    feed = MADE / "feed.pcap"
    make(feed, quick=True)
    return feed


def two_captures() -> tuple[Path, Path]:
    """A capture taken at the sender and one at the receiver: 500 test packets, 5 of them lost on the way."""
    if len(sys.argv) > 2:
        return Path(sys.argv[1]), Path(sys.argv[2])
    MADE.mkdir(exist_ok=True)
    random = np.random.default_rng(7)
    n, start_ns = 500, 1_790_000_000_000_000_000
    left_ns = start_ns + np.cumsum(random.exponential(2e6, n)).astype(np.int64)
    arrived_ns = left_ns + 8_000_000 + random.exponential(150_000, n).astype(np.int64)
    bound = stamp.error_estimate(100, synchronised=True)  # both clocks are within 100 ns
    payloads = stamp.payloads(
        sequence=np.arange(n, dtype=np.uint64),
        timestamp=stamp.ntp_from_tai_q32(stamp.q32_from_ns(left_ns), 0),
        error=bound,
        session=1,
        size=44,
    )
    frames = [_udp("10.0.0.1", "10.0.0.2", payload.tobytes()) for payload in payloads]
    there = np.flatnonzero(np.arange(n) % 100 != 50)
    there = there[np.argsort(arrived_ns[there])]
    sent, received = MADE / "sent.pcapng", MADE / "received.pcapng"
    for path, which, at_ns in ((sent, np.arange(n), left_ns), (received, there, arrived_ns)):
        batch = twinstamp.FrameBatch.from_frames(
            [frames[i] for i in which], timestamp_ns=at_ns[which].tolist()
        )
        with twinstamp.create_capture(path) as writer:
            writer.write(batch)
    return sent, received


def _udp(source: str, destination: str, payload: bytes) -> bytes:
    """The payload to STAMP's port, in UDP, IPv4 and Ethernet."""
    udp = struct.pack(">HHHH", 50000, stamp.UDP_PORT, 8 + len(payload), 0) + payload
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0x4000, 250, 17, 0)
    ip = head + ip_address(source).packed + ip_address(destination).packed
    total = sum(struct.unpack(">10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + ip[12:]
    return bytes.fromhex("0200000000020200000000010800") + ip + udp
