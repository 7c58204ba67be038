# SPDX-License-Identifier: Apache-2.0
"""`twinstamp clock receiver` (a receiver's messages, or a simulated one) and `twinstamp clock configure`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from twinstamp.cli.clock_common import stopped_by_signals, verb
from twinstamp.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    import argparse


def add_port(parser: Any, *, required: bool) -> None:
    """PORT and --baud."""
    parser.add_argument(
        "port",
        metavar="PORT",
        nargs=None if required else "?",
        help="device, pseudo-terminal, socket://HOST:PORT or rfc2217://HOST:PORT",
    )
    parser.add_argument(
        "--baud", type=int, metavar="N", help="of the line; default: tried out where that can be"
    )


def add_receiver(verbs: Any) -> None:
    """The verb `receiver`."""
    parser = verb(verbs, "receiver", "show a receiver's messages, or simulate a receiver", _receiver)
    add_port(parser, required=False)
    parser.add_argument("--seconds", type=int, metavar="S", help="stop after S seconds")
    parser.add_argument("--json", action="store_true", help="messages as JSON, one a line")
    group = parser.add_argument_group("simulated receiver")
    group.add_argument("--simulate", metavar="MODEL", choices=("f9t", "m8t", "nmea"), help="f9t, m8t or nmea")
    group.add_argument("--pty", metavar="LINK", help="on a pseudo-terminal, LINK leads to it")
    group.add_argument("--tcp", metavar="HOST:PORT", help="on a TCP port, for one client at a time")
    group.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="F",
        help="KIND@START[+DURATION][:VALUE], as outage@60+30",
    )
    group.add_argument("--seed", type=int, default=1, metavar="N", help="of the noise (default: 1)")
    group.add_argument("--factory", action="store_true", help="with the settings as delivered")
    group.add_argument("--survey", type=int, metavar="S", help="begin with a survey-in of S seconds")
    group.add_argument("--nmea", action="store_true", help="RMC, ZDA and GGA too")
    group.add_argument(
        "--utc", metavar="TIME", help="its first second, as 2016-12-31T23:59:30; default: the machine's time"
    )
    group.add_argument(
        "--utc-offset", type=int, default=37, metavar="S", help="TAI − UTC at the start (default: 37)"
    )
    group.add_argument(
        "--rollovers", type=int, default=0, metavar="N", help="its date is N × 1024 weeks back"
    )
    group.add_argument("--pulses", metavar="FILE", help="write the edges: second, rise, fall (fs), qErr (ps)")


def _receiver(options: argparse.Namespace) -> int:
    if options.seconds is not None and options.seconds < 1:
        raise ConfigError(f"--seconds {options.seconds}: give at least 1")
    if options.simulate is not None:
        if options.port is not None:
            raise ConfigError("give a PORT to read, or --simulate with --pty or --tcp, not both")
        return _simulate(options)
    if options.port is None:
        raise ConfigError("give a PORT to read, or --simulate MODEL with --pty LINK or --tcp HOST:PORT")
    return _show(options)


def _show(options: argparse.Namespace) -> int:
    from twinstamp_gps.port import Receiver

    with Receiver(options.port, baud=options.baud or 38400) as receiver:
        end = None if options.seconds is None else time.monotonic() + options.seconds
        going = [True]
        with stopped_by_signals(going.clear):
            while going and (end is None or time.monotonic() < end):
                for arrival in receiver.poll():
                    message = arrival.message
                    if options.json:
                        values = {
                            k: v.hex() if isinstance(v, bytes) else v for k, v in asdict(message).items()
                        }
                        line = json.dumps({"kind": type(message).__name__, **values})
                    else:
                        line = str(message)
                    print(line, flush=True)
        counts = receiver.counts
        frames = counts.ubx + counts.nmea + counts.rtcm
        refused = ", ".join(f"{count} {reason}" for reason, count in receiver.refused.items() if count)
    print(
        f"{counts.ubx} UBX, {counts.nmea} NMEA and {counts.rtcm} RTCM3 messages, "
        f"{counts.skipped_bytes} bytes of none; refused: {refused or 'none'}",
        file=sys.stderr,
    )
    if not frames:
        raise DeviceError(f"receiver {options.port}: no message came; is --baud right?")
    return 0


def _start_tai_s(text: str, utc_offset_s: int) -> int:
    from twinstamp_gps.gpstime import utc_to_unix_s

    try:
        date, _, clock = text.removesuffix("Z").partition("T")
        year, month, day = (int(part) for part in date.split("-"))
        hour, minute, second = (int(part) for part in clock.split(":"))
        return utc_to_unix_s(year, month, day, hour, minute, second) + utc_offset_s
    except ValueError:
        raise ConfigError(f"--utc {text}: give a date and a time, as 2016-12-31T23:59:30") from None


def _simulate(options: argparse.Namespace) -> int:
    from twinstamp_gps.configure import TimingSettings
    from twinstamp_gps.faults import parse_fault
    from twinstamp_gps.serve import PtyLine, Runner, TcpLine
    from twinstamp_gps.simulated import ReceiverSecond, SimulatedReceiver

    if (options.pty is None) == (options.tcp is None):
        raise ConfigError("a simulated receiver needs a line: give --pty LINK or --tcp HOST:PORT")
    faults = [parse_fault(text) for text in options.fault]
    settings = None
    if options.survey is not None or options.nmea:
        if options.factory or options.simulate == "nmea":
            raise ConfigError("--survey and --nmea set a u-blox receiver: not with --factory or nmea")
        settings = TimingSettings(
            mode="fixed" if options.survey is None else "survey",
            survey_s=options.survey or 1,
            nmea=options.nmea,
        )
    if options.pty is not None:
        line: PtyLine | TcpLine = PtyLine(options.pty)
    else:
        host, _, number = options.tcp.rpartition(":")
        if not number.isdigit():
            raise ConfigError(f"--tcp {options.tcp}: give HOST:PORT, port 0 for a free one")
        line = TcpLine(host or "127.0.0.1", int(number))
    try:
        if options.utc is not None:
            start = _start_tai_s(options.utc, options.utc_offset)
        elif any(fault.kind == "leap" for fault in faults):
            start = None  # so that the leap second falls where the fault says
        else:
            start = Runner.start_unix_s() + options.utc_offset
        receiver = SimulatedReceiver(
            options.simulate,
            start_tai_s=start,
            utc_offset_s=options.utc_offset,
            faults=faults,
            configured=not options.factory,
            settings=settings,
            week_rollovers=options.rollovers,
            seed=options.seed,
        )
        pulses = None if options.pulses is None else open(options.pulses, "w", encoding="ascii")  # noqa: SIM115
    except BaseException as error:
        line.close()
        if isinstance(error, OSError):
            raise ConfigError(f"--pulses {options.pulses}: cannot be written: {error.strerror}") from error
        raise

    def note(second: ReceiverSecond) -> None:
        if pulses is not None:
            for edge in second.edges:
                print(second.second, edge.rise_fs, edge.fall_fs, second.qerr_ps, file=pulses, flush=True)

    runner = Runner(receiver, line, on_second=note)
    print(f"{options.simulate} on {line.address}", file=sys.stderr, flush=True)
    try:
        with stopped_by_signals(runner.stop):
            runner.run(options.seconds)
    finally:
        line.close()
        if pulses is not None:
            pulses.close()
    return 0


def add_configure(verbs: Any) -> None:
    """The verb `configure`."""
    parser = verb(verbs, "configure", "set a u-blox timing receiver up for the clock", _configure)
    add_port(parser, required=False)
    parser.add_argument("--model", choices=("f9t", "m8t"), help="default: as the receiver says")
    parser.add_argument(
        "--dry-run", action="store_true", help="show each message in words and hex, send none"
    )
    parser.add_argument(
        "--survey",
        default="3600,2",
        metavar="S,M",
        help="survey-in: S seconds, to M metres (default: 3600,2)",
    )
    parser.add_argument(
        "--fixed", metavar="LAT,LON,H", help="hold this position: degrees, metres (ellipsoid)"
    )
    parser.add_argument(
        "--accuracy", type=float, default=0.1, metavar="M", help="of --fixed (default: 0.1 m)"
    )
    parser.add_argument("--moving", action="store_true", help="no time mode: the antenna moves")
    parser.add_argument(
        "--cable-ns",
        type=int,
        default=0,
        metavar="NS",
        help="antenna cable, where the card does not subtract it",
    )
    parser.add_argument(
        "--port-of-receiver",
        choices=("uart1", "uart2", "usb"),
        default="uart1",
        metavar="P",
        help="its own port that leads here: uart1 (default), uart2 or usb",
    )
    parser.add_argument(
        "--new-baud", default="115200", metavar="N", help="rate from then on, or keep (default: 115200)"
    )
    parser.add_argument("--nmea", action="store_true", help="RMC, ZDA and GGA too")
    parser.add_argument("--save", action="store_true", help="also for after power-off")


def _numbers(option: str, text: str, count: int) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(abs(value) < 1e9 for value in values):
        raise ConfigError(f"{option} {text}: give {count} numbers with commas between them")
    return values


def _settings(options: argparse.Namespace) -> Any:
    from twinstamp_gps.configure import TimingSettings

    if options.fixed is not None and options.moving:
        raise ConfigError("--fixed and --moving contradict each other")
    seconds, metres = _numbers("--survey", options.survey, 2)
    place = _numbers("--fixed", options.fixed, 3) if options.fixed is not None else [0.0, 0.0, 0.0]
    if options.new_baud != "keep" and not options.new_baud.isdigit():
        raise ConfigError(f"--new-baud {options.new_baud}: give a number, or keep")
    return TimingSettings(
        mode="fixed" if options.fixed is not None else "moving" if options.moving else "survey",
        survey_s=round(seconds),
        survey_accuracy_mm=round(metres * 1000),
        latitude_e7=round(place[0] * 1e7),
        longitude_e7=round(place[1] * 1e7),
        height_mm=round(place[2] * 1000),
        position_accuracy_mm=round(options.accuracy * 1000),
        cable_delay_ns=options.cable_ns,
        port=options.port_of_receiver,
        baud=None if options.new_baud == "keep" else int(options.new_baud),
        nmea=options.nmea,
        save=options.save,
    )


def _configure(options: argparse.Namespace) -> int:
    from twinstamp_gps import configure

    settings = _settings(options)
    if options.port is None and not (options.dry_run and options.model):
        raise ConfigError("give a PORT; without one, --dry-run with --model shows what would be sent")
    if options.port is None:
        print("\n".join(configure.describe(configure.plan(options.model, settings))))
        return 0
    receiver, version = configure.find(options.port, None if options.baud is None else [options.baud])
    with receiver:
        model = options.model or configure.model_of(version)
        found = f"{version.module or version.hardware} ({', '.join(version.extensions) or version.software})"
        if model is None:
            raise DeviceError(
                f"receiver {options.port}: {found}: this sets f9t and m8t; say --model if it is like one"
            )
        steps = configure.plan(model, settings)
        print(f"{options.port}: {found} at {receiver.baud} baud", file=sys.stderr)
        if options.dry_run:
            print("\n".join(configure.describe(steps)))
            return 0
        configure.apply(
            receiver, steps, baud=settings.baud, progress=lambda step: print(f"  {step.words[0]}")
        )
        print(
            f"set and read back at {receiver.baud} baud"
            + (", kept" if settings.save else ", until power-off")
        )
    return 0
