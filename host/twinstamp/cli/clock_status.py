# SPDX-License-Identifier: Apache-2.0
"""`twinstamp clock status`: how a card's clock and its receiver stand, live, once as JSON, into a log."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from twinstamp.cli.clock_common import add_json, stopped_by_signals, verb
from twinstamp.cli.common import refuse_same, write_json
from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from twinstamp_gps.port import Receiver
    from twinstamp_gps.status import ReceiverStatus, ReceiverWatch

    from twinstamp.card.card import Card
    from twinstamp.phc.record import Reader

_INTERVAL_S = 1.0
_TELL_S = 3600.0
_AHEAD_S = 45 * 86400.0  # a new table comes half a year before the last one ends
_PATIENCE_S = 2.5  # a receiver says everything within two seconds


def add_status(verbs: Any) -> None:
    """The verb `status`."""
    parser = verb(verbs, "status", "show how a card's clock and its receiver stand", _status)
    parser.add_argument("--card", metavar="NAME", help="which card; default: sim, and none with another")
    parser.add_argument(
        "--phc", metavar="PHC", help="what clock discipline says of /dev/ptpN, or an interface"
    )
    parser.add_argument("--receiver", metavar="PORT", help="a receiver on this machine's port, by itself")
    parser.add_argument("--baud", type=int, default=38400, metavar="N", help="of PORT (default: 38400)")
    parser.add_argument(
        "--seconds", type=int, metavar="S", help="stop after S seconds; default: when interrupted"
    )
    parser.add_argument("--log", metavar="FILE", help="write a sample a second, for clock report")
    add_json(parser, "once, as JSON, here or on standard output")


class _Sources:
    """What is asked each second."""

    def __init__(self, card: Card | None, receiver: Receiver | None, phc: Reader | None = None) -> None:
        from twinstamp_gps.status import ReceiverWatch

        self._phc = phc
        self._card = card
        self._receiver = receiver
        self._told_s = time.monotonic()  # open_card has
        self._watch: ReceiverWatch | None = None if receiver is None else ReceiverWatch(receiver)

    def wait(self, seconds: float, *, until_complete: bool = False, going: Callable[[], bool]) -> None:
        """Takes in messages for as long, or until there is a picture of the receiver."""
        end = time.monotonic() + seconds
        while going() and time.monotonic() < end:
            if self._receiver is None or self._watch is None:
                if until_complete:
                    return
                time.sleep(min(0.05, max(0.0, end - time.monotonic())))
                continue
            for arrival in self._receiver.poll():
                self._watch.take(arrival)
            if until_complete and self._watch.complete():
                return

    def clock(self) -> dict[str, Any] | None:
        """The card's clock; state is None where the card has no servo that says it."""
        if self._phc is not None:
            from twinstamp.phc.state import phc_state

            return phc_state(self._phc)
        if self._card is None:
            return None
        from twinstamp.card.clock_state import clock_state
        from twinstamp.card.firmware import tell_leap_seconds

        if time.monotonic() - self._told_s >= _TELL_S:  # the table may have been renewed
            self._told_s = time.monotonic()
            remark = tell_leap_seconds(self._card)
            self._card.remarks = [] if remark is None else [remark]
        return clock_state(self._card)

    def warnings(self) -> list[str]:
        """What stands in the way of UTC, now or soon."""
        from twinstamp.leap import expiry_warning, system_table_fault

        found = [] if self._card is None else list(self._card.remarks)
        soon = None if found else expiry_warning(time.time(), ahead_s=_AHEAD_S)
        return [text for text in (*found, soon, system_table_fault()) if text is not None]

    def receiver(self) -> ReceiverStatus | None:
        return None if self._watch is None else self._watch.status(time.monotonic_ns())


def _status(options: argparse.Namespace) -> int:
    if options.seconds is not None and options.seconds < 1:
        raise ConfigError(f"--seconds {options.seconds}: give at least 1")
    refuse_same(options.json, options.log)
    if options.phc is not None and options.card is not None:
        raise ConfigError("--card and --phc are two clocks: give one")
    alone = options.card is None and (options.receiver is not None or options.phc is not None)
    name = None if alone else options.card or "sim"
    with ExitStack() as stack:
        card = receiver = None
        if options.receiver is not None:
            from twinstamp_gps.port import Receiver

            receiver = stack.enter_context(Receiver(options.receiver, baud=options.baud))
        if name is not None:
            from twinstamp.card import open_card

            card = stack.enter_context(open_card(name))
        phc = None
        if options.phc is not None:
            from twinstamp.phc.holders import phc_of
            from twinstamp.phc.record import Reader

            phc = Reader(phc_of(options.phc)[1])
            stack.callback(phc.close)
        sources = _Sources(card, receiver, phc)
        running = [True]
        stack.enter_context(stopped_by_signals(running.clear))
        if options.json is not None and options.log is None and options.seconds is None:
            sources.wait(_PATIENCE_S, until_complete=True, going=lambda: bool(running))
            write_json(options.json, _report(sources, name))
            return 0
        _live(options, sources, name, stack, running)
        if options.json is not None:
            write_json(options.json, _report(sources, name))
    return 0


def _report(sources: _Sources, card: str | None) -> dict[str, Any]:
    from twinstamp.leap import leap_seconds

    receiver, table = sources.receiver(), leap_seconds()
    return {
        "version": 1,
        "card": card,
        "clock": sources.clock(),
        "receiver": None if receiver is None else asdict(receiver),
        "leap_table": {"source": table.source, "expires_utc_s": table.expires_utc_s},
        "warnings": sources.warnings(),
    }


def _live(
    options: argparse.Namespace, sources: _Sources, card: str | None, stack: ExitStack, running: list[bool]
) -> None:
    writer = None
    if options.log is not None:
        from twinstamp_gps.log import LogWriter

        try:
            file = stack.enter_context(open(options.log, "w", encoding="utf-8"))  # noqa: SIM115
        except OSError as error:
            raise ConfigError(f"--log {options.log}: cannot be written: {error.strerror}") from error
        about = {"source": "status", "card": card, "receiver": options.receiver, "unix_s": int(time.time())}
        writer = LogWriter(file, about)
    shown = options.json != "-"
    show = _table(stack) if shown and sys.stdout.isatty() else _line if shown else _nothing
    start = time.monotonic()
    taken = 0
    warned: list[str] = []
    while running and (options.seconds is None or taken < options.seconds):
        taken += 1
        sources.wait(start + taken * _INTERVAL_S - time.monotonic(), going=lambda: bool(running))
        if not running:
            break
        clock, receiver = sources.clock(), sources.receiver()
        warned = _warn(sources.warnings(), warned)
        show(clock, receiver)
        qerr_ps = (
            receiver.qerr_ps if receiver is not None else clock["qerr_ps"] if clock is not None else None
        )
        if writer is not None:
            writer.write(
                t_s=time.monotonic() - start,
                state=None if clock is None else clock["state_number"],
                offset_ns=None if clock is None else clock["offset_ns"],
                bound_ns=None if clock is None else clock["bound_ns"],
                frequency_ppb=None if clock is None else clock["frequency_ppb"],
                qerr_ps=qerr_ps,
                satellites=None if receiver is None else receiver.satellites,
            )


def _warn(now: list[str], before: list[str]) -> list[str]:
    """Says what is new; returns ``now``."""
    for text in now:
        if text not in before:
            print(f"twinstamp clock: {text}", file=sys.stderr, flush=True)
    return now


def _rows(clock: dict[str, Any] | None, receiver: ReceiverStatus | None) -> list[tuple[str, str]]:
    """(what, value with its unit) of all that is known."""
    rows: list[tuple[str, str]] = []
    if clock is not None:
        rows += [
            ("state", str(clock["state"])),
            ("offset", _unit(clock["offset_ns"], "ns", "+.2f")),
            ("frequency", _unit(clock["frequency_ppb"], "ppb", "+.3f")),
            ("bound", _unit(clock["bound_ns"], "ns", ".0f")),
            ("TAI − UTC", _offset(clock)),
            ("time-epoch", str(clock["epoch"])),
        ]
        if clock.get("age_s") is not None:
            rows += [
                ("last step", f"{clock['age_s']:.1f} s ago by process {clock['pid']}"),
                ("holdover", f"{clock['holdover_s']} s"),
                ("pulses", str(clock["pulses"])),
            ]
        if (got := clock["messages"]) is not None:
            came = {name: count for name, count in got.items() if name != "refused"}
            rows += [("card received", _counts(came)), ("card refused", _counts(got["refused"]))]
    if receiver is not None:
        sure = {True: "", False: " (leap seconds not known)", None: ""}[receiver.utc_sure]
        leap = _unit(receiver.leap_s, "s", "d")
        if receiver.leap_change_s is not None and receiver.leap_in_s is not None:
            leap += f", {receiver.leap_change_s:+d} s in {receiver.leap_in_s} s"
        weeks = 1024 * receiver.rollovers
        back = f" (the receiver's date is {weeks} weeks back)" if weeks else ""
        sats = _unit(receiver.satellites, "", "d") + (
            f" of {receiver.in_view}" if receiver.in_view is not None else ""
        )
        rows += [
            ("receiver", receiver.address),
            ("last message", "none" if receiver.age_s is None else f"{receiver.age_s:.1f} s ago"),
            ("UTC", (receiver.utc or "unknown") + sure + back),
            ("fix", (receiver.fix or "unknown") + {True: "", False: " (not ok)", None: ""}[receiver.fix_ok]),
            ("satellites", sats),
            ("accuracy", _unit(receiver.time_accuracy_ns, "ns", "d")),
            ("GPS − UTC", leap),
            ("qErr", _unit(None if receiver.qerr_ps is None else receiver.qerr_ps / 1000, "ns", "+.3f")),
            ("survey-in", receiver.survey or "unknown"),
            ("messages", f"{receiver.messages}, {receiver.damaged} damaged"),
            ("refused", _counts(receiver.refused)),
        ]
    return rows


_SAID_BY = {
    "satellites": "by satellites", "host": "told by this machine", "table": "by the firmware's own table"
}  # fmt: skip


def _offset(clock: dict[str, Any]) -> str:
    if not clock["utc_known"]:
        return f"{clock['utc_offset_s']} s (assumed)"
    said = f"{clock['utc_offset_s']} s"
    if clock["utc_source"] in _SAID_BY:
        end = _day(clock["utc_until_tai_s"] - clock["utc_offset_s"])
        said += f", {_SAID_BY[clock['utc_source']]}, good until {end}"
    if clock["leap_s"]:
        said += f", {clock['leap_s']:+d} s at the end of {_day(clock['leap_tai_s'] - 86400)}"
    return said


def _day(utc_s: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(utc_s))


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items() if count) or "none"


def _unit(value: float | None, unit: str, form: str) -> str:
    return "unknown" if value is None else f"{value:{form}} {unit}".rstrip()


def _line(clock: dict[str, Any] | None, receiver: ReceiverStatus | None) -> None:
    print("; ".join(f"{what} {value}" for what, value in _rows(clock, receiver)), flush=True)


def _nothing(clock: dict[str, Any] | None, receiver: ReceiverStatus | None) -> None:
    return


def _table(stack: ExitStack) -> Callable[[dict[str, Any] | None, ReceiverStatus | None], None]:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    live = stack.enter_context(Live(console=Console(file=sys.stdout), auto_refresh=False))

    def show(clock: dict[str, Any] | None, receiver: ReceiverStatus | None) -> None:
        table = Table(show_header=False)
        for what, value in _rows(clock, receiver):
            table.add_row(what, value)
        live.update(table, refresh=True)

    return show
