# SPDX-License-Identifier: Apache-2.0
"""`twinstamp card`: a card's identification, counters, frames, self-test and calibration."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

from twinstamp.cli.common import refuse_same, write_json
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.units import parse_time_ns

if TYPE_CHECKING:
    from collections.abc import Callable

    from twinstamp.card.card import Card, Link
    from twinstamp.card.source import CardSource


def register(commands: Any, text: str) -> None:
    parser = commands.add_parser(
        "card",
        help=text,
        description="Works with a card: the simulated one, which `make hdl` builds (docs/card.md), or "
        "ordinary interfaces (docs/linux-card.md).",
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_info(verbs)
    _add_counters(verbs)
    _add_capture(verbs)
    _add_selftest(verbs)
    _add_calibrate(verbs)
    _add_extcap(verbs)
    _add_tap(verbs)


def _verb(verbs: Any, name: str, text: str, function: Callable[[argparse.Namespace], int]) -> Any:
    parser = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.add_argument(
        "--card",
        default="sim",
        metavar="NAME",
        help="sim, pynq:FILE.bit, uart:DEVICE, or linux:eth1,eth2 where interfaces can do it (default: sim)",
    )
    parser.set_defaults(function=function)
    return parser


def _add_traffic(parser: Any) -> None:
    """What goes onto the simulated card's wires."""
    parser.add_argument("--play", metavar="CAPTURE", help="put its frames on the simulated card's wires")
    parser.add_argument(
        "--test-frames", type=int, default=0, metavar="N", help="put N numbered frames on each port's wire"
    )
    parser.add_argument(
        "--ports", default="0", metavar="LIST", help="ports that frames go into: 0,1,2,3 (default: 0)"
    )
    parser.add_argument(
        "--speed", type=float, default=1.0, metavar="X", help="divide the capture's gaps by X"
    )
    parser.add_argument(
        "--longest-gap", default="10us", metavar="T", help="shorten longer gaps to T (default: 10us)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is random in the simulation")


def _ports(text: str) -> tuple[int, ...]:
    try:
        ports = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"--ports {text}: give numbers with commas, as 0,2") from None
    if any(not 0 <= port <= 3 for port in ports):
        raise ConfigError(f"--ports {text}: a card has ports 0 to 3")
    return ports


def _open_traffic(options: argparse.Namespace) -> CardSource:
    from twinstamp.card.opening import must_be_simulated
    from twinstamp.card.source import CardSource

    must_be_simulated(options.card, "putting frames on wires")
    if options.play is None and not options.test_frames:
        raise ConfigError("nothing is on the simulated card's wires: give --play CAPTURE or --test-frames N")
    if options.play is not None and options.test_frames:
        raise ConfigError("give --play or --test-frames, not both")
    return CardSource(
        options.play,
        test_frames=options.test_frames,
        ports=_ports(options.ports),
        speed=options.speed,
        longest_gap_ns=parse_time_ns(options.longest_gap, "--longest-gap"),
        seed=options.seed,
    )


def _add_json(parser: Any) -> None:
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="REPORT", help="as JSON, here or on standard output"
    )


# info


def _add_info(verbs: Any) -> None:
    parser = _verb(verbs, "info", "show identification, ports and clock of a card", _info)
    _add_json(parser)


def _info(options: argparse.Namespace) -> int:
    from twinstamp.card.opening import known_card

    if known_card(options.card)[0] == "linux":
        from twinstamp.cli import card_live

        return card_live.info(options)
    from twinstamp.card import open_card
    from twinstamp.card.calibration import calibration_path, load_calibration

    with open_card(options.card) as card:
        identity, links, clock = card.identity, _first_look(card), card.clock()
        measured = load_calibration(card.transport.name)
        report = {
            "version": 1,
            "card": card.transport.name,
            "map_version": list(identity.map_version),
            "build_id": identity.build_id,
            "features": sorted(identity.features),
            "core_clock_hz": identity.core_clock_hz,
            "store_bytes": identity.store_bytes,
            "clock": clock._asdict(),
            "ports": [
                {
                    "name": port.name,
                    "link": links[number]._asdict(),
                    "receive_constant_ns": card.constants_q32[number] * 1e9 / 2**32,
                    "calibrated": number in measured,
                }
                for number, port in enumerate(card.ports)
            ],
            "calibration": str(calibration_path(card.transport.name)) if measured else None,
        }
    if options.json is not None:
        write_json(options.json, report)
        return 0
    major, minor = identity.map_version
    print(f"card {report['card']}: register map {major}.{minor}, build {identity.build_id:#010x}")
    print(f"features: {', '.join(sorted(identity.features)) or 'none'}")
    print(
        f"core clock {identity.core_clock_hz / 1e6:g} MHz, "
        f"frame store {identity.store_bytes // 1024} KiB a port"
    )
    bound = "unknown" if clock.bound_ns < 0 else f"{clock.bound_ns} ns"
    print(
        f"clock: {clock.time_q32 / 2**32:.9f} s TAI, rate {round(clock.rate_ppb, 3) or 0.0:+.3f} ppb, "
        f"{'locked' if clock.locked else 'not locked'}, bound {bound}, TAI-UTC {clock.utc_offset_s} s, "
        f"epoch {clock.epoch}"
    )
    for number, port in enumerate(card.ports):
        how = "calibrated" if number in measured else "as the card says"
        print(
            f"{port.name}: {_link_text(links[number])}, "
            f"receive constant {card.constants_q32[number] * 1e9 / 2**32:.2f} ns ({how})"
        )
    return 0


def _first_look(card: Card) -> tuple[Link, ...]:
    """The links once the card has looked at its PHYs: a millisecond after reset, and then 160 us more."""
    waited = 0.0
    while not all(link.up for link in card.links()) and waited < 1.5e-3:
        waited += card.transport.wait(1e-4)
    return card.links()


def _link_text(link: Link) -> str:
    if not link.up:
        return "no link" if link.answers else "no link, no PHY answers"
    return f"{link.speed // 10**6} Mbit/s {'full' if link.full_duplex else 'half'} duplex"


# counters


def _add_counters(verbs: Any) -> None:
    parser = _verb(verbs, "counters", "show a card's counters, 64 bits, all of one instant", _counters)
    _add_traffic(parser)
    _add_json(parser)


def _counters(options: argparse.Namespace) -> int:
    from twinstamp.card import open_card

    if options.play is not None or options.test_frames:
        source = _open_traffic(options)
        try:
            while not source.ended:
                batch = source.poll(0.5)
                if batch is not None:
                    batch.release()
            statistics = source.card.statistics()
        finally:
            source.close()
        ports = source.ports
    else:
        with open_card(options.card) as card:
            statistics, ports = card.statistics(), card.ports
    if options.json is not None:
        report = {
            "version": 1,
            "card": options.card,
            "at_q32": statistics.at_q32,
            "ports": {port.name: counters for port, counters in zip(ports, statistics.ports, strict=True)},
        }
        write_json(options.json, report)
        return 0
    print(f"{'':18}" + "".join(f"{port.name:>16}" for port in ports))
    for name in statistics.ports[0]:
        print(f"{name:18}" + "".join(f"{counters[name]:>16,}" for counters in statistics.ports))
    return 0


# capture


def _add_capture(verbs: Any) -> None:
    parser = _verb(verbs, "capture", "write what a card receives to a pcapng capture", _capture)
    parser.add_argument("--to", required=True, metavar="OUT.pcapng", help='"-" = standard output')
    parser.add_argument("--count", type=int, metavar="N", help="stop after N frames")
    _add_traffic(parser)
    _add_json(parser)
    parser.add_argument("--quiet", action="store_true", help="no summary on standard error")


def _capture(options: argparse.Namespace) -> int:
    if options.count is not None and options.count < 1:
        raise ConfigError(f"--count {options.count}: give at least 1")
    if options.to == "-" and options.json == "-":
        raise ConfigError("capture and report cannot both go to standard output")
    refuse_same(options.json, options.play, options.to)
    from twinstamp.card.opening import known_card
    from twinstamp.cli import card_live

    simulated = known_card(options.card)[0] == "sim"
    report = (capture_to if simulated else card_live.capture_to)(options, options.to)
    if options.json is not None:
        write_json(options.json, report)
    if not options.quiet:
        left_out = sum(report["played"]["left_out"].values())
        print(
            f"{report['written']} frames written, {report['dropped']} dropped by the card"
            + (
                f", {left_out} of the capture left out (not 60 to 9014 bytes of Ethernet)" if left_out else ""
            ),
            file=sys.stderr,
        )
    return 0


def capture_to(options: argparse.Namespace, target: str) -> dict[str, Any]:
    """Captures until the traffic ends, --count is reached, or SIGINT or SIGTERM comes."""
    from twinstamp.card.capture import CardCapture
    from twinstamp.io.files import create_capture

    source = _open_traffic(options)
    before: dict[int, Any] = {}
    try:
        with create_capture(target, format="pcapng") as writer:
            capture = CardCapture(writer, source.card)
            writer.flush()
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda *_: source.stop())
            written = 0
            while not source.ended and (options.count is None or written < options.count):
                batch = source.poll(0.2)
                if batch is not None:
                    with batch:
                        left = None if options.count is None else options.count - written
                        written += capture.write(batch, most=left)
            capture.finish(source.card)
            report = {"version": 1, "written": written, **source.statistics()}
    finally:
        for changed, handler in before.items():
            signal.signal(changed, handler)
        source.close()
    if source.damage is not None:
        from twinstamp.errors import InputError

        raise InputError(f"{source.damage}; the frames before it were captured")
    return report


# selftest


def _add_selftest(verbs: Any) -> None:
    parser = _verb(
        verbs, "selftest", "test registers, clock, PHYs, ports, hashes, stamps and overload", _selftest
    )
    parser.add_argument("--quick", action="store_true", help="fewer frames, larger clock offsets")
    parser.add_argument("--seed", type=int, default=1, help="of what is random in the simulation")
    _add_json(parser)


def _selftest(options: argparse.Namespace) -> int:
    from twinstamp.card.opening import known_card, open_card
    from twinstamp.card.selftest import selftest

    opener = None
    if known_card(options.card)[0] != "sim":

        def opener(**card_options: Any) -> Card:
            return open_card(options.card, calibrated=False, **card_options)

    shown = options.json != "-"

    def brief(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    def show(check: dict[str, Any]) -> None:
        if shown:
            print(
                f"{'ok  ' if check['passed'] else 'FAIL'} {check['name']:14} {check['seconds']:6.1f} s",
                end="",
            )
            figures = check["figures"]
            told = [
                f"{name} {brief(figure['value'])}"
                for name, figure in figures.items()
                if "passed" not in figure
            ]
            told += [
                f"{name} {brief(figure['value'])} (at most {brief(figure['at_most'])})"
                for name, figure in figures.items()
                if "at_most" in figure
            ]
            exact = sum("equal" in figure and figure["passed"] for figure in figures.values())
            print(f"  {'; '.join([f'{exact} exact', *told])}", flush=True)
            for error in check["errors"]:
                print(f"     {error}")

    report = selftest(quick=options.quick, seed=options.seed, open_card=opener, progress=show)
    if options.json is not None:
        write_json(options.json, report)
    if shown:
        print(f"{'passed' if report['passed'] else 'FAILED'} in {report['seconds']} s")
    return 0 if report["passed"] else 1


# calibrate


def _add_calibrate(verbs: Any) -> None:
    parser = _verb(
        verbs, "calibrate", "measure a port's receive constant with a known cable and keep it", _calibrate
    )
    parser.add_argument("--from", dest="sender", type=int, required=True, metavar="PORT", help="sending port")
    parser.add_argument("--to", type=int, required=True, metavar="PORT", help="port to calibrate")
    parser.add_argument("--cable-ns", type=float, required=True, metavar="NS", help="delay of the cable")
    parser.add_argument("--frames", type=int, default=256, metavar="N", help="frames to send (default: 256)")
    parser.add_argument("--file", metavar="FILE", help="where constants are kept; default: the state folder")
    parser.add_argument("--dry-run", action="store_true", help="measure only, keep nothing")
    _add_json(parser)


def _calibrate(options: argparse.Namespace) -> int:
    from dataclasses import asdict
    from pathlib import Path

    from twinstamp.card import open_card
    from twinstamp.card.calibration import measure, save_calibration

    with open_card(options.card, calibrated=False, timeout_s=20e-6) as card:
        constant = measure(card, options.sender, options.to, cable_ns=options.cable_ns, frames=options.frames)
        exported = card.constants_q32[options.to]
        name = card.transport.name
    place = None
    if not options.dry_run:
        place = save_calibration(
            name, {options.to: constant}, None if options.file is None else Path(options.file)
        )
    if options.json is not None:
        report = {
            "version": 1,
            "card": name,
            "port": options.to,
            **asdict(constant),
            "kept": None if place is None else str(place),
        }
        write_json(options.json, {**report, "exported_q32": exported})
        return 0
    unit = 1e9 / 2**32
    print(
        f"port{options.to}: receive constant {constant.constant_q32 * unit:.2f} ns "
        f"(the card says {exported * unit:.2f}), within {constant.uncertainty_ns:.2f} ns; "
        + ("not kept" if place is None else f"kept in {place}")
    )
    return 0


# extcap


def _add_extcap(verbs: Any) -> None:
    parser = _verb(verbs, "extcap", "serve Wireshark: the card as an interface there", _extcap)
    parser.add_argument(
        "--install", nargs="?", const="", metavar="DIR", help="put a starter into Wireshark's extcap folder"
    )
    for name in ("interfaces", "dlts", "config"):
        parser.add_argument(f"--extcap-{name}", action="store_true", help=argparse.SUPPRESS)
    for name in ("interface", "version", "capture-filter", "reload-option"):
        parser.add_argument(f"--extcap-{name}", help=argparse.SUPPRESS)
    parser.add_argument("--capture", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--fifo", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    _add_traffic(parser)


def _extcap(options: argparse.Namespace) -> int:
    from twinstamp.cli import extcap

    return extcap.run(options, capture_to)


# tap


def _add_tap(verbs: Any) -> None:
    parser = _verb(verbs, "tap", "make TAP interfaces of a card's ports (needs root)", _tap)
    parser.add_argument("--ports", default="0", metavar="LIST", help="ports, one interface each (default: 0)")
    parser.add_argument(
        "--name", default="tws%d", metavar="NAME", help="of the interfaces; %%d is the port (default: tws%%d)"
    )
    parser.add_argument(
        "--cable",
        action="append",
        default=[],
        metavar="A-B[:NS]",
        help="join two ports of the simulated card, both ways, by a cable of NS nanoseconds (default: 50)",
    )
    parser.add_argument(
        "--trailer", action="store_true", help="put stamp, sequence and port behind each frame (20 bytes)"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="stop after S seconds")
    _add_json(parser)


def _tap(options: argparse.Namespace) -> int:
    from twinstamp.card.opening import must_be_simulated
    from twinstamp.card.tap import CardTap

    if os.geteuid() != 0:
        raise DeviceError(
            "a TAP interface needs root (CAP_NET_ADMIN); without it, use `twinstamp card capture`"
        )
    must_be_simulated(options.card, "tap")
    cables = []
    for text in options.cable:
        try:
            ends, _, delay = text.partition(":")
            first, second = ends.split("-")
            cables.append((int(first), int(second), float(delay or 50)))
        except ValueError:
            raise ConfigError(f"--cable {text}: give PORT-PORT or PORT-PORT:NS, as 0-1:50") from None
    with CardTap(_ports(options.ports), name=options.name, cables=cables, trailer=options.trailer) as tap:
        before = {
            number: signal.signal(number, lambda *_: tap.stop()) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            print(f"interfaces: {', '.join(tap.names)}", file=sys.stderr, flush=True)
            tap.run(options.seconds)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        report = {"version": 1, **tap.statistics()}
    if options.json is not None:
        write_json(options.json, report)
    return 0
