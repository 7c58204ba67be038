# SPDX-License-Identifier: Apache-2.0
"""`twinstamp card capture` of cards with real wires, and `info` of ordinary interfaces."""

from __future__ import annotations

import argparse
import signal
from typing import Any

from twinstamp.cli.common import write_json
from twinstamp.errors import ConfigError


def info(options: argparse.Namespace) -> int:
    from twinstamp.card import open_any_card
    from twinstamp.card.linux import LinuxCard
    from twinstamp.card.nic import stamping_info

    with open_any_card(options.card) as card:
        assert isinstance(card, LinuxCard)
        kernel, clock = card.system_clock(), card.clock()
        report = {
            "version": 1,
            "card": options.card,
            "stamps": "nic" if card.hardware else "kernel",
            "clock": {**clock._asdict(), **kernel._asdict(), "disciplined": card.disciplined},
            "ports": [
                {"name": name, "claims": stamping_info(name)._asdict(), "txtime": card.txtime[number] or None}
                for number, name in enumerate(card.interfaces)
            ],
        }
    if options.json is not None:
        write_json(options.json, report)
        return 0
    print(f"card {options.card}: stamps by the {'NIC' if card.hardware else 'kernel'}")
    bound = "unknown" if clock.bound_ns < 0 else f"{clock.bound_ns} ns"
    if card.disciplined:
        print(f"clock of the stamps: the NIC's, {clock.state}, bound {bound} (twinstamp clock discipline)")
    elif card.hardware:
        print("clock of the stamps: the kernel's, compared with the NIC's; nobody disciplines the NIC's")
    state = "synchronised" if kernel.synchronised else "not synchronised"
    own = "unknown" if card.disciplined else bound
    told = f"{kernel.utc_offset_s} s" if kernel.utc_offset_s else "not told to the kernel"
    print(f"clock: {state}, rate {kernel.rate_ppb:+.0f} ppb, bound {own}, TAI-UTC {told}")
    for port in report["ports"]:
        claims = port["claims"]
        stamped = "stamped" if claims["software_departures"] else "not stamped"
        print(
            f"{port['name']}: departures {stamped} by the kernel, "
            f"{'stamps of its own' if claims['hardware'] else 'no stamps of its own'}, "
            f"timed sending by {port['txtime'] or 'waiting'}"
        )
    return 0


def capture_to(options: argparse.Namespace, target: str) -> dict[str, Any]:
    """Captures until --count frames are there, or SIGINT or SIGTERM comes."""
    from twinstamp.card import Card, open_any_card
    from twinstamp.card.capture import CardCapture
    from twinstamp.io.files import create_capture

    if options.play is not None or options.test_frames:
        raise ConfigError(
            "--play and --test-frames are for the simulated card: frames come off the wire here"
        )
    stopped: list[int] = []
    before = {}
    written = 0
    with open_any_card(options.card) as card, create_capture(target, format="pcapng") as writer:
        capture = CardCapture(writer, card)
        writer.flush()
        card.start()
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda number, _: stopped.append(number))
            while not stopped and (options.count is None or written < options.count):
                batch = card.poll(0.2)
                if batch is None:
                    continue
                with batch:
                    left = None if options.count is None else options.count - written
                    written += capture.write(batch, most=left)
        finally:
            for changed, handler in before.items():
                signal.signal(changed, handler)
        capture.finish(card)
        dropped = card.statistics().dropped if isinstance(card, Card) else sum(card.drops())
    return {"version": 1, "written": written, "dropped": dropped, "played": {"left_out": {}}}
