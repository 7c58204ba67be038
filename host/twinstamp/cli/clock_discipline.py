# SPDX-License-Identifier: Apache-2.0
"""`twinstamp clock discipline`: a NIC's clock (PHC) follows a receiver's pulses."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from twinstamp.cli.clock_common import add_json, stopped_by_signals, verb
from twinstamp.cli.common import refuse_same, write_json
from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from twinstamp.phc.device import Phc
    from twinstamp.phc.discipline import PulseSource, Step


def add_discipline(verbs: Any) -> None:
    """The verb `discipline`."""
    parser = verb(verbs, "discipline", "make a NIC's clock (PHC) follow a receiver's pulses", _discipline)
    parser.add_argument("--phc", metavar="PHC", help="/dev/ptpN, or an interface that has one")
    parser.add_argument(
        "--pin", type=int, metavar="N", help="pin that the pulse is wired to; default: as it is"
    )
    parser.add_argument("--channel", type=int, default=0, metavar="N", help="of time stamps (default: 0)")
    parser.add_argument("--receiver", metavar="PORT", help="as for twinstamp clock receiver")
    parser.add_argument(
        "--pps", metavar="DEVICE", help="a pulse that the kernel stamps, /dev/ppsN, not a pin"
    )
    parser.add_argument(
        "--pps-latency", type=float, default=20_000, metavar="NS", help="of its interrupt (default: 20000)"
    )
    parser.add_argument(
        "--follow", metavar="CLOCK", help="without a pulse: realtime, or another PHC, by comparing the two"
    )
    parser.add_argument("--baud", type=int, default=38400, metavar="N", help="of PORT (default: 38400)")
    parser.add_argument(
        "--grid", type=float, default=8.0, metavar="NS", help="of the NIC's stamps (default: 8 ns)"
    )
    parser.add_argument("--cable", type=float, default=0.0, metavar="NS", help="antenna and cable, in ns")
    parser.add_argument(
        "--oscillator",
        metavar="NAME",
        help="where learning begins: tcxo, xo-cm4, xo-i225, ocxo; default: unknown",
    )
    parser.add_argument("--model", metavar="NAME", help="of the receiver: f9t or m8t; default: unknown")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the servo (docs/clock.md)",
    )
    parser.add_argument("--seconds", type=int, metavar="S", help="stop after S seconds; default: when ended")
    parser.add_argument("--log", metavar="FILE", help="write a sample a second, for clock report")
    parser.add_argument(
        "--chrony-sock", action="append", default=[], metavar="PATH", help="refclock SOCK of chronyd"
    )
    parser.add_argument(
        "--shm", action="append", type=int, default=[], metavar="UNIT", help="refclock SHM of chronyd, ntpd"
    )
    group = parser.add_argument_group("against a stand-in, hours in seconds; no PHC is touched")
    group.add_argument("--simulate", metavar="NIC,OSCILLATOR,RECEIVER", help="as i226,tcxo,f9t")
    group.add_argument("--runs", type=int, default=1, metavar="N", help="pooled")
    group.add_argument("--seed", type=int, default=1, metavar="N", help="of the first run")
    group.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="F",
        help="KIND@START[+DURATION][:VALUE], of the receiver",
    )
    add_json(parser, "figures of --simulate as JSON, here or on standard output")


def _whole(words: list[str]) -> dict[str, int]:
    from twinstamp_gps import _servo

    known = _servo.default_config()
    values = {}
    for word in words:
        name, _, value = word.partition("=")
        if name not in known:
            raise ConfigError(f"--set {word}: settings of the servo are {', '.join(known)}")
        if not value.isdigit() or int(value) >= 2**32:
            raise ConfigError(f"--set {word}: write NAME=VALUE with a whole number from 0 on")
        values[name] = int(value)
    return values


def _told(options: argparse.Namespace) -> dict[str, int]:
    """What the servo is told of oscillator and receiver."""
    from twinstamp_gps.models import OSCILLATORS, RECEIVERS, servo_settings

    for option, name, known in (
        ("--oscillator", options.oscillator, OSCILLATORS),
        ("--model", options.model, RECEIVERS),
    ):
        if name is not None and name not in known:
            raise ConfigError(f"{option} {name}: known are {', '.join(known)}")
    settings = servo_settings(OSCILLATORS[options.oscillator or "tcxo"], RECEIVERS[options.model or "m8t"])
    of_receiver = ("wander_ps", "jitter_ps", "sawtooth_ps")
    return {
        name: value
        for name, value in settings.items()
        if (options.model if name in of_receiver else options.oscillator) is not None
    }


def _discipline(options: argparse.Namespace) -> int:
    if options.seconds is not None and options.seconds < 1:
        raise ConfigError(f"--seconds {options.seconds}: give at least 1")
    settings = _told(options) | _whole(options.set)
    if options.simulate is not None:
        return _simulate(options, settings)
    if options.json is not None or options.fault:
        raise ConfigError("--json and --fault belong to --simulate")
    if options.phc is None:
        raise ConfigError("give --phc /dev/ptpN or --phc eth1, or --simulate i226,tcxo,f9t")
    if options.follow is not None and (options.receiver, options.pin, options.pps) != (None, None, None):
        raise ConfigError("--follow needs no pulse: not with --receiver, --pin or --pps")
    if options.pps is not None and options.pin is not None:
        raise ConfigError("--pps and --pin are two pulses: give one")
    if options.receiver is None and options.follow is None:
        raise ConfigError("give --receiver PORT: its messages say which second a pulse is")
    from twinstamp.phc.device import Phc, RealWorld
    from twinstamp.phc.discipline import Discipline
    from twinstamp.phc.holders import claim, holders, named, phc_of
    from twinstamp.phc.notify import notify
    from twinstamp.phc.record import Publisher
    from twinstamp.phc.refclock import RefClocks, ShmClock, SockClock

    path, number = phc_of(options.phc)
    with ExitStack() as stack:
        phc = Phc(path)
        stack.callback(phc.close)
        claim(path, phc.fd)
        world = RealWorld([phc.fd], options.receiver, options.baud, say=_say)
        stack.callback(world.close)
        publisher = Publisher(number)
        stack.callback(publisher.close)
        log = _log(options, stack)
        clocks: list[SockClock | ShmClock] = []
        for path_of_socket in options.chrony_sock:
            clocks.append(SockClock(path_of_socket))
        for unit in options.shm:
            clocks.append(ShmClock(unit))
        for one in clocks:
            stack.callback(one.close)
        reference = RefClocks(phc, clocks)

        def handed_on(step: Step) -> None:
            reference.step(step.record)
            log(step)

        discipline = Discipline(
            phc,
            world,
            _pulses(options, phc, path, stack),
            number=number,
            settings=settings,
            grid_ns=round(options.grid),
            pid=os.getpid(),
            told=_leap_table,
            publish=publisher.write,
            on_step=_Events(handed_on).step,
            holders=lambda: named(holders(path)),
        )
        stack.enter_context(stopped_by_signals(discipline.stop))
        notify("READY=1")
        try:
            discipline.run(options.seconds)
        finally:
            notify("STOPPING=1")
    return 0


def _pulses(options: argparse.Namespace, phc: Phc, path: str, stack: ExitStack) -> PulseSource:
    """Where pulses come from: the pin, or a clock that is followed."""
    from twinstamp.phc.discipline import PinPulses

    if options.pps is not None:
        from twinstamp.phc.device import Pps
        from twinstamp.phc.follow_clock import PpsPulses

        pps = Pps(options.pps)
        stack.callback(pps.close)
        return PpsPulses(phc, pps, latency_ns=options.pps_latency, cable_ns=options.cable)
    if options.follow is None:
        return PinPulses(
            phc, channel=options.channel, pin=options.pin, grid_ns=options.grid, cable_ns=options.cable
        )
    from twinstamp.phc.follow_clock import FollowPulses, PhcReference, Reference, SystemReference

    reference: Reference
    if options.follow == "realtime":
        from twinstamp.card.system_clock import system_clock
        from twinstamp.leap import leap_seconds

        def state() -> tuple[bool, int]:
            kernel = system_clock()
            return kernel.synchronised, kernel.max_error_ns

        reference = SystemReference(lambda: leap_seconds().offset(int(time.time())), state)
    else:
        from twinstamp.phc.device import Phc
        from twinstamp.phc.follow import PublishedClock
        from twinstamp.phc.holders import phc_of

        other_path, number = phc_of(options.follow)
        if other_path == path:
            raise ConfigError(f"--follow {options.follow}: that is the clock that would follow")
        other = Phc(other_path)
        stack.callback(other.close)
        published = PublishedClock(number, other)
        stack.callback(published.close)
        reference = PhcReference(other, published)
    return FollowPulses(phc, reference)


def _leap_table() -> tuple[int, int, int, int] | None:
    """As Discipline's ``told``: this machine's table of leap seconds; None where it has expired."""
    from twinstamp.leap import leap_seconds

    table, now_s = leap_seconds(), int(time.time())
    if table.expired(now_s):
        return None
    offset_s = table.at_utc(now_s)
    leap = table.next(now_s + offset_s)
    if leap is None or table.expired(leap.tai_s - offset_s):
        return offset_s, table.expires_utc_s + offset_s, 0, 0
    return offset_s, table.expires_utc_s + offset_s, leap.change_s, leap.tai_s


def _log(options: argparse.Namespace, stack: ExitStack) -> Callable[[Step], None]:
    if options.log is None:
        return lambda step: None
    from twinstamp_gps.log import LogWriter

    try:
        file = stack.enter_context(open(options.log, "w", encoding="utf-8"))  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"--log {options.log}: cannot be written: {error.strerror}") from error
    writer = LogWriter(
        file,
        {
            "source": "discipline",
            "phc": options.phc,
            "receiver": options.receiver,
            "unix_s": int(time.time()),
        },
    )
    start = time.monotonic()

    def write(step: Step) -> None:
        record = step.record
        writer.write(
            t_s=time.monotonic() - start,
            state=record.state,
            offset_ns=record.offset_ps / 1000,
            bound_ns=None if record.bound_ns < 0 else record.bound_ns,
            frequency_ppb=record.frequency_ppt / 1000,
            qerr_ps=step.servo["qerr_ps"],
            satellites=None,
        )

    return write


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Events:
    """Says on standard error (the journal, under systemd) what changes, once."""

    def __init__(self, log: Callable[[Step], None]) -> None:
        self._log = log
        self._state = self._epoch = -1
        self._events = 0

    def step(self, step: Step) -> None:
        from twinstamp_gps.simulation import EVENTS

        from twinstamp.phc.discipline import describe
        from twinstamp.phc.notify import notify

        record = step.record
        new = record.events & ~self._events
        self._events = record.events
        names = ", ".join(name for bit, name in enumerate(EVENTS) if new >> bit & 1)
        if (record.state, record.epoch) != (self._state, self._epoch) or names:
            self._state, self._epoch = record.state, record.epoch
            _say(f"ptp{record.phc}: {describe(record)}{f'; events: {names}' if names else ''}")
        notify(f"WATCHDOG=1\nSTATUS={describe(record)}")
        self._log(step)


def _simulate(options: argparse.Namespace, settings: dict[str, int]) -> int:
    from twinstamp_gps.faults import parse_fault

    from twinstamp.phc.figures import Scene, figures, parts

    if options.phc is not None or options.receiver is not None or options.log is not None:
        raise ConfigError("--simulate stands for --phc and --receiver, and writes no --log")
    refuse_same(options.json)
    if not 1 <= options.runs <= 10_000:
        raise ConfigError(f"--runs {options.runs}: give 1 to 10000")
    if not 0 <= options.seed < 2**60:
        raise ConfigError(f"--seed {options.seed}: give 0 to 2^60")
    nic, oscillator, receiver = parts(options.simulate)
    scene = Scene(
        nic=nic,
        oscillator=oscillator,
        receiver=receiver,
        seconds=3600 if options.seconds is None else options.seconds,
        faults=[parse_fault(text) for text in options.fault],
        settings=settings,
    )
    found = figures(scene, range(options.seed, options.seed + options.runs))
    if options.json is not None:
        write_json(options.json, found)
        if options.json == "-":
            return 0
    _show(found)
    return 0


def _show(found: dict[str, Any]) -> None:
    """The figures as a table of text."""

    def ns(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    def share(value: float | None) -> str:
        return "-" if value is None else f"{value:.5f}"

    print(
        f"{'state':10} {'samples':>8} {'rms ns':>10} {'P99.9 ns':>10} {'bound ns':>10} {'coverage':>9} "
        f"{'known':>7}"
    )
    for name, row in found["by_state"].items():
        print(
            f"{name:10} {row['samples']:8} {ns(row['rms_ns']):>10} {ns(row['p99_9_ns']):>10} "
            f"{ns(row['median_bound_ns']):>10} {share(row['coverage']):>9} {row['known']:7.3f}"
        )
    for row in found["holdover"]:
        print(
            f"holdover {row['after_s']} s: rms {ns(row['rms_ns'])} ns, "
            f"bound {ns(row['median_bound_ns'])} ns, coverage {share(row['coverage'])}"
        )
    print(f"locked from 600 s on: rms {ns(found['rms_ns'])} ns, P99.9 {ns(found['p99_9_ns'])} ns")
