# SPDX-License-Identifier: Apache-2.0
"""A DPI server: nDPI, through nfstream, on an interface or a capture file.

python -m twinstamp.demo.dpi SOURCE OUT.json

On an interface it runs until SIGINT. nfstream gives a live flow out only once it has been idle, looks
for idle flows only when a packet comes in, and forgets the rest when it is stopped. So after the last
packet let IDLE_S pass and send a nudge: one packet, whose own flow is the one that is forgotten.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
from pathlib import Path
from typing import NamedTuple

from twinstamp.demo.flows import Count, End, Flow, FlowKey, Flows, add
from twinstamp.errors import InputError

IDLE_S = 3


class Seen(NamedTuple):
    """What nDPI saw: the flows, and the application it took each for."""

    flows: Flows
    applications: dict[FlowKey, str]


def watch(source: str, *, idle_s: int = IDLE_S) -> Seen:
    """Runs nDPI over an interface (until KeyboardInterrupt) or a capture file (to its end)."""
    from nfstream import NFStreamer

    streamer = NFStreamer(
        source=source,
        n_meters=1,
        statistical_analysis=True,
        accounting_mode=1,  # bytes from the IP header on: what both sides of a router agree on
        idle_timeout=idle_s,
        active_timeout=86400,
        socket_buffer_size=64 << 20,
    )
    flows: Flows = {}
    applications: dict[FlowKey, str] = {}
    try:
        for flow in streamer:
            source_end = End(flow.src_ip, flow.src_port)
            destination_end = End(flow.dst_ip, flow.dst_port)
            key = add(
                flows,
                source_end,
                destination_end,
                flow.protocol,
                flow.src2dst_packets,
                flow.src2dst_bytes,
            )
            add(
                flows,
                destination_end,
                source_end,
                flow.protocol,
                flow.dst2src_packets,
                flow.dst2src_bytes,
            )
            # A pause cuts a flow in two records; nDPI recognises the first, the rest often not.
            if applications.get(key, "Unknown") == "Unknown":
                applications[key] = flow.application_name
    except KeyboardInterrupt:
        pass
    return Seen(flows, applications)


def write(seen: Seen, path: Path) -> None:
    """Writes what nDPI saw as JSON; the file appears complete or not at all."""
    rows = [
        {
            "a": key.a,
            "b": key.b,
            "protocol": key.protocol,
            "a_sent": flow.a,
            "b_sent": flow.b,
            "application": seen.applications[key],
        }
        for key, flow in seen.flows.items()
    ]
    part = path.with_suffix(".part")
    part.write_text(json.dumps(rows, indent=1))
    part.rename(path)


def read(path: Path) -> Seen:
    """Reads what write wrote."""
    try:
        rows = json.loads(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: nDPI left no flows; look at its log beside it") from None
    seen = Seen({}, {})
    for row in rows:
        key = FlowKey(End(*row["a"]), End(*row["b"]), row["protocol"])
        seen.flows[key] = Flow(Count(*row["a_sent"]), Count(*row["b_sent"]))
        seen.applications[key] = row["application"]
    return seen


def nudge(interface: str) -> None:
    """Sends one UDP packet (to the discard port, between documentation addresses, RFC 5737)."""
    udp = struct.pack("!HHHH", 9, 9, 8, 0)
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 28, 0, 0, 1, 17, 0, b"\xc0\x00\x02\x01", b"\xc0\x00\x02\x02"
    )
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((interface, 0))
        sender.send(b"\xff" * 6 + b"\x02" + bytes(5) + b"\x08\x00" + header + udp)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m twinstamp.demo.dpi")
    parser.add_argument("source", help="interface or capture file")
    parser.add_argument("out", type=Path, nargs="?", help="JSON file for the flows")
    parser.add_argument("--nudge", action="store_true", help="only send the nudge into an interface")
    arguments = parser.parse_args()
    if arguments.nudge:
        nudge(arguments.source)
    elif arguments.out is None:
        parser.error("OUT is missing")
    else:
        # From a file a gap must not cut a flow; from an interface the cut is what gives the flow out.
        idle_s = 86400 if Path(arguments.source).is_file() else IDLE_S
        write(watch(arguments.source, idle_s=idle_s), arguments.out)


if __name__ == "__main__":
    main()
