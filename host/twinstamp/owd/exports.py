# SPDX-License-Identifier: Apache-2.0
"""Reports as files: CSV, Parquet, owping's raw lines, ETOMIC's columns, pcapng (docs/owd.md)."""

from __future__ import annotations

import itertools
import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from twinstamp import stamp
from twinstamp.errors import ConfigError, InputError
from twinstamp.frames import ClockState
from twinstamp.owd import metrics
from twinstamp.owd.arrivals import (
    BACK,
    COLUMNS,
    ONE_WAY,
    THERE,
    Arrivals,
    Collector,
    ReceiverClock,
    Sent,
    TrainKey,
    clock_comment,
)
from twinstamp.owd.parse import parse
from twinstamp.owd.report import Options, Report, report_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from twinstamp.frames import FrameBatch
    from twinstamp.io.files import CaptureWriter
    from twinstamp.owd.parse import TestPackets
    from twinstamp.owd.report import TrainReport

_ROWS = 20_000  # formatted at once
RAW_HEAD = "# twinstamp-owd raw 1 "
CSV_COLUMNS = (
    "train", "sequence", "sent_ns", "received_ns", "delay_ns", "bound_ns", "flags", "extent", "late_ns",
    "degree", "ttl", "ipid", "ip_bytes", "size", "send_bound_ns", "receive_bound_ns",
    "allow_unsynchronised",
)  # fmt: skip


@contextmanager
def _open(path: str) -> Iterator[IO[str]]:
    """A text file to write. ConfigError where it cannot be made, or not be written to its end (disk full)."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            yield file
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror or error}; give another place"
        ) from error


def _lines(row: str, columns: Sequence[npt.NDArray[Any]]) -> Iterator[str]:
    """Rows of integers by a % format, many at a time: formatting runs in C, not per packet."""
    n = len(columns[0])
    for start in range(0, n, _ROWS):
        part = [column[start : start + _ROWS] for column in columns]
        flat = [value for values in zip(*(p.tolist() for p in part), strict=True) for value in values]
        yield row * len(part[0]) % tuple(flat)


def write_csv(report: Report, path: str) -> None:
    """One line per packet, in the order of arrival; the train as its number in the report, from 0."""
    with _open(path) as file:
        file.write(",".join(CSV_COLUMNS) + "\n")
        for number, train in enumerate(report.trains):
            table = train.table()
            table["send_bound_ns"] = train.judged.arrivals.send_bound_ns()
            table["receive_bound_ns"] = _receive_bounds(train)
            table["allow_unsynchronised"] = np.full(len(train.judged), report.options.unsynchronised)
            columns = [table[name] for name in CSV_COLUMNS[1:]]
            file.writelines(_lines(f"{number}," + ",".join(["%d"] * len(columns)) + "\n", columns))


def _receive_bounds(train: TrainReport) -> npt.NDArray[np.int64]:
    arrivals = train.judged.arrivals
    return arrivals.receive_bound_ns() if len(arrivals) else np.empty(0, np.int64)


# Parquet


def _parquet() -> Any:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise ConfigError(
            "--parquet needs pyarrow, which is not installed: pip install 'twinstamp[parquet]'"
        ) from error
    return parquet


def check_parquet() -> None:
    """ConfigError where pyarrow is not installed: before minutes of reading, not after."""
    _parquet()


def write_parquet(report: Report, path: str) -> None:
    """Every packet as a row; trains, clocks, options and the sender's account as JSON in the schema's
    metadata under ``twinstamp``. ``read_parquet`` makes the same report of it.
    """
    parquet = _parquet()
    import pyarrow

    about = _about(report)
    about["trains"] = [
        {
            "key": train.key._asdict(),
            "clocks": [clock._asdict() for clock in train.judged.arrivals.clocks],
            "backwards": train.judged.arrivals.backwards,
            "sent": train.sent is not None,
        }
        for train in report.trains
    ]
    schema = None
    writer = None
    try:
        try:
            for number, train in enumerate(report.trains):
                for columns in _parquet_columns(number, train):
                    table = pyarrow.table(
                        {("sent_only" if k == "lost" else k): v for k, v in columns.items()}
                    )
                    if writer is None:
                        schema = table.schema.with_metadata({b"twinstamp": json.dumps(about).encode()})
                        writer = parquet.ParquetWriter(path, schema, compression="zstd")
                    writer.write_table(table.cast(schema))
        finally:
            if writer is not None:
                writer.close()
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written: {error.strerror or error}; give another place"
        ) from error


def _parquet_columns(number: int, train: TrainReport) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Columns of a train's packets, and of its sender's account: rows that are marked as no arrivals."""
    columns = {"train": np.full(len(train.judged), number, np.uint16), **train.table()}
    columns["lost"] = np.zeros(len(train.judged), np.bool_)
    yield columns
    if train.sent is not None:
        n = len(train.sent.sequence)
        account = {name: np.zeros(n, column.dtype) for name, column in columns.items()}
        account["train"][:] = number
        account["sequence"], account["sent_ns"] = train.sent.sequence, train.sent.sent_ns
        account["lost"] = np.ones(n, np.bool_)
        yield account


def read_parquet(path: str) -> Report:
    """The report that ``write_parquet`` wrote, recomputed from its packets. InputError for anything else."""
    parquet = _parquet()
    try:
        table = parquet.read_table(path)
        about = json.loads((table.schema.metadata or {})[b"twinstamp"])
        number = table["train"].to_numpy()
        sent_only = table["sent_only"].to_numpy(zero_copy_only=False)
        columns = [table[name].to_numpy() for name in COLUMNS]
        arrivals, accounts = [], []
        for k, train in enumerate(about["trains"]):
            key = _key_of(train["key"])
            mine = (number == k) & ~sent_only
            clocks = tuple(ReceiverClock(**clock) for clock in train["clocks"])
            arrivals.append(
                Arrivals.of(key, clocks, [c[mine] for c in columns], backwards=train["backwards"])
            )
            if train["sent"]:
                mine = (number == k) & sent_only
                accounts.append(Sent(key, columns[0][mine], columns[1][mine]))
        about = _about_of(about)
    except Exception as error:
        raise InputError(f"{path}: is no Parquet file of twinstamp owd: {error}") from error
    return _again(path, [train for train in arrivals if len(train)], accounts, about)


def _about(report: Report) -> dict[str, Any]:
    from dataclasses import asdict

    return {"options": asdict(report.options), "until_ns": report.until_ns, "frames": report.frames,
            "refused": report.refused, "truncated": list(report.truncated), "sources": list(report.sources),
            "sent_sources": list(report.sent_sources), "experiment": report.experiment}  # fmt: skip


# What an export may say of a report besides its packets, and of which types.
_ABOUT: dict[str, tuple[type, ...]] = {
    "options": (dict,), "until_ns": (int, type(None)), "frames": (int,), "refused": (dict,),
    "truncated": (list,), "sources": (list,), "sent_sources": (list,), "experiment": (dict, type(None)),
}  # fmt: skip
_DAMAGE = (ArithmeticError, AttributeError, ConfigError, LookupError, RecursionError, TypeError, ValueError)


def _about_of(said: dict[str, Any]) -> dict[str, Any]:
    """Those of ``_ABOUT`` in ``said``. ValueError where one cannot be: it was not written by ``_about``."""
    about: dict[str, Any] = {}
    for name, kinds in _ABOUT.items():
        if name not in said:
            continue
        value = said[name]
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{name} is {_short(value)}")
        texts = value if isinstance(value, list) else ()
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{name} holds something else than texts")
        if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
            raise ValueError(f"{name} is {_short(value)}")
        about[name] = value
    for reason, n in about.get("refused", {}).items():
        if not isinstance(n, int):
            raise ValueError(f"refused {reason!r} is {_short(n)}")
    for name, value in about.get("options", {}).items():
        if name == "unsynchronised":
            if not isinstance(value, bool):
                raise ValueError(f"the option {name} is {_short(value)}")
        elif value is None and name in ("interval_ns", "pair_gap_ns"):
            continue
        elif not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 60:
            raise ValueError(f"the option {name!r} is {_short(value)}")
    return about


def _key_of(said: Any) -> TrainKey:
    """A train's key out of an export. ValueError for anything else."""
    if not isinstance(said, dict):
        raise ValueError(f"a train's key is {_short(said)}")
    key = TrainKey(**said)
    if not all(isinstance(text, str) for text in (key.source, key.destination)):
        raise ValueError("addresses are texts")
    if key.way not in (ONE_WAY, THERE, BACK):
        raise ValueError(f"the way {_short(key.way)}")
    for number in (key.port, key.source_port, key.session, key.run):
        if not isinstance(number, int) or not -1 <= number < 1 << 32:
            raise ValueError(f"a number of the train's key is {_short(number)}")
    return key


def _short(value: Any) -> str:
    """A value for an error message."""
    text = f"{value:.3g}" if isinstance(value, float) else str(value) if _is_small(value) else "out of range"
    return repr(value[:40]) if isinstance(value, str) else text[:40]


def _is_small(value: Any) -> bool:
    return not isinstance(value, int) or value.bit_length() < 80


def _again(
    path: str, arrivals: Sequence[Arrivals], accounts: Sequence[Sent], about: dict[str, Any]
) -> Report:
    rest = {k: v for k, v in about.items() if k not in ("options", "until_ns")}
    try:
        return report_of(
            arrivals, sent=accounts, options=Options(**about["options"]), until_ns=about["until_ns"], **rest
        )
    except _DAMAGE as error:
        raise InputError(f"{path}: what it says of its options or trains cannot be: {error}") from error


# owping's raw lines


def write_raw(report: Report, path: str) -> None:
    """``SEQNO SENDTIME SSYNC SERR RECVTIME RSYNC RERR TTL`` per packet, as ``owping -R`` prints them.

    Times are NTP timestamps (64 bits, unsigned decimal), errors seconds (``inf``: unknown). A packet that was
    sent and did not arrive (known only with the sender's account) has RECVTIME 0, RSYNC 0, RERR 0 and TTL
    255. A comment line before each train says in JSON what the columns do not.
    """
    with _open(path) as file:
        for train in report.trains:
            arrivals = train.judged.arrivals
            sizes, frames = np.unique(arrivals.ip_bytes), np.unique(arrivals.size)
            about = {
                **_about(report),
                "key": train.key._asdict(),
                "ip_bytes": int(sizes[0]) if len(sizes) == 1 else None,
                "size": int(frames[0]) if len(frames) == 1 else None,
                "ipid": None,
                "sent": train.sent is not None,
            }
            file.write(RAW_HEAD + json.dumps(about) + "\n")
            file.writelines(_raw_lines(train))


def _seconds(bound_ns: int) -> str:
    """Exact; ``inf`` for -1."""
    return "inf" if bound_ns < 0 else f"{bound_ns // 10**9}.{bound_ns % 10**9:09d}"


def _raw_lines(train: TrainReport) -> Iterator[str]:
    arrivals = train.judged.arrivals
    if len(arrivals):
        # Few clock states, so few texts: one per pair of them, and integers between them.
        states = arrivals.error.astype(np.int64) << 16 | arrivals.clock
        changes = np.flatnonzero(np.diff(states)) + 1
        edges = [0, *changes.tolist(), len(arrivals)]
        ntp_sent, ntp_received = (
            stamp.ntp_from_utc_ns(arrivals.sent_ns), stamp.ntp_from_utc_ns(arrivals.received_ns),
        )  # fmt: skip
        for start, end in itertools.pairwise(edges):
            error, clock = int(arrivals.error[start]), arrivals.clocks[arrivals.clock[start]]
            estimate = stamp.read_error_estimate(error)
            serr = "inf" if estimate.bound_q32 < 0 else repr(estimate.bound_q32 / 2**32)
            row = (
                f"%d %d {int(estimate.synchronised)} {serr} %d {int(clock.locked)} "
                f"{_seconds(clock.bound_ns)} %d\n"
            )
            part = slice(start, end)
            columns = (arrivals.sequence[part], ntp_sent[part], ntp_received[part], arrivals.ttl[part])
            yield from _lines(row, columns)
    if train.sent is not None:
        missing = ~np.isin(train.sent.sequence, arrivals.sequence)
        never = (train.sent.sequence[missing], stamp.ntp_from_utc_ns(train.sent.sent_ns[missing]))
        yield from _lines("%d %d 0 inf 0 0 0 255\n", never)


def read_raw(path: str) -> Report:
    """A report recomputed from raw lines; of ``write_raw``'s, its delays, loss, duplicates and reordering
    are the same bit for bit.

    Without ``write_raw``'s comments (owping's own output) all lines are one train of unknown addresses, with
    the sender's account. Sizes that differ within a train are not in the lines: no capacity then. InputError
    for a line that is not understood, with its number.
    """
    trains: list[tuple[_Head, list[bytes]]] = []
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                if line.startswith(RAW_HEAD.encode()):
                    trains.append((_head(f"{path}: line {number}", line[len(RAW_HEAD) :]), []))
                elif line.strip() and not line.startswith(b"#"):
                    if not trains:
                        trains.append((_Head(), []))
                    trains[-1][1].append(line)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not trains:
        raise InputError(f"{path}: holds no raw line")
    arrivals, accounts = [], []
    for head, lines in trains:
        train, account = _from_lines(path, head, lines)
        if len(train):
            arrivals.append(train)
        if head.sent:
            accounts.append(account)
    said = trains[0][0].about
    about = {"options": {}, "until_ns": None, "frames": sum(map(len, arrivals)), "refused": {}} | said
    if not said.get("options"):
        # owping waits for its time-out before it says that a packet is lost: nothing is undecided.
        ends = [int(account.sent_ns.max()) for account in accounts if len(account.sent_ns)]
        about["until_ns"] = max(ends, default=0) + Options().timeout_ns
    return _again(path, arrivals, accounts, about)


_NEAR_NS = 1_800_000_000 * 10**9  # within 68 years of 2027


@dataclass(frozen=True)
class _Head:
    """What a comment line of ``write_raw`` says of the lines behind it; without one: owping's own lines.

    ip_bytes, size: of every packet, 0 where they differ. about: of the report (``_ABOUT``).
    """

    key: TrainKey = TrainKey("0.0.0.0", "0.0.0.0", stamp.UDP_PORT, -1, 0, ONE_WAY)  # noqa: S104, RUF009
    ip_bytes: int = 0
    size: int = 0
    sent: bool = True
    about: dict[str, Any] = field(default_factory=dict)


def _head(where: str, text: bytes) -> _Head:
    """A comment line taken apart. InputError, with ``where``, for one that ``write_raw`` did not write."""
    try:
        said = json.loads(text, parse_constant=_no_number)
        if not isinstance(said, dict):
            raise ValueError("no JSON object")
        ip_bytes, size = (0 if said[name] is None else said[name] for name in ("ip_bytes", "size"))
        if not all(isinstance(n, int) and 0 <= n < 1 << 32 for n in (ip_bytes, size)):
            raise ValueError("a packet's size is no number of 32 bits")
        if not isinstance(said["sent"], bool):
            raise ValueError("`sent` is neither true nor false")
        return _Head(_key_of(said["key"]), ip_bytes, size, said["sent"], _about_of(said))
    except KeyError as error:
        raise InputError(f"{where}: the comment line is not understood: it lacks {error}") from error
    except _DAMAGE as error:
        raise InputError(f"{where}: the comment line is not understood: {error}") from error


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _from_lines(path: str, head: _Head, lines: Sequence[bytes]) -> tuple[Arrivals, Sent]:
    n = len(lines)
    words = b" ".join(line.strip() for line in lines).split()
    if len(words) != 8 * n or any(len(line.split()) != 8 for line in lines):
        at = next(i for i, line in enumerate(lines) if len(line.split()) != 8)
        raise InputError(f"{path}: a raw line has 8 columns, this one not: {lines[at][:80]!r}")
    try:
        sequence, sent_ntp, received_ntp, ttl = (
            np.array([int(word) for word in words[k::8]], np.uint64) for k in (0, 1, 4, 7)
        )
        for column, bits in ((sequence, 32), (ttl, 8)):
            if n and int(column.max()) >> bits:
                raise ValueError(f"{int(column.max())} does not fit {bits} bits")
        states = [b" ".join(words[8 * i + k] for k in (2, 3, 5, 6)) for i in range(n)]
        known: dict[bytes, tuple[int, ReceiverClock]] = {}
        for state in set(states):
            ssync, serr, rsync, rerr = state.decode().split()
            known[state] = (
                _error_field(serr, ssync == "1"), ReceiverClock("raw", rsync == "1", _nanoseconds(rerr), 0)
            )  # fmt: skip
    except (ValueError, OverflowError) as error:
        raise InputError(f"{path}: a raw line is not understood: {error}") from error
    clocks: dict[ReceiverClock, int] = {}
    pairs = {s: (error, clocks.setdefault(clock, len(clocks))) for s, (error, clock) in known.items()}
    if len(clocks) > 0xFFFF:
        raise InputError(
            f"{path}: a train has {len(clocks)} receiver's errors: at most {0xFFFF} are possible"
        )
    both = np.array([pairs[state] for state in states], np.uint16).reshape(n, 2)
    sent_ns = stamp.utc_ns_from_ntp(sent_ntp, _NEAR_NS)
    here = received_ntp != 0
    zeros = np.zeros(n, np.uint32)
    columns: tuple[npt.NDArray[Any], ...] = (
        sequence, sent_ns, stamp.utc_ns_from_ntp(received_ntp, _NEAR_NS), both[:, 0], both[:, 1], ttl, zeros,
        np.full(n, head.ip_bytes, np.uint32), np.full(n, head.size, np.uint32),
    )  # fmt: skip
    arrivals = Arrivals.of(head.key, list(clocks), (column[here] for column in columns))
    order = np.argsort(sent_ns, kind="stable")
    numbers, first = np.unique(sequence[order], return_index=True)
    account = Sent(head.key, numbers.astype(np.uint32), sent_ns[order][first])
    if not head.about.get("options"):  # owping's own: in the order of what it prints
        by_time = np.argsort(arrivals.received_ns, kind="stable")
        arrivals = arrivals.select(by_time)
    return arrivals, account


def _error_s(text: str) -> Fraction | None:
    """An error in s as raw lines have it, exactly; None: unknown (``inf``, or more than
    ``metrics.MOST_BOUND_NS``).

    ValueError for what is no error: it is below 0, or no number.
    """
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"an error of {text[:40]!r} s") from None
    if value.is_nan() or value < 0:
        raise ValueError(f"an error of {text[:40]} s: 0 or more, or inf, can be")
    if value * 10**9 > metrics.MOST_BOUND_NS:
        return None
    if value < Decimal("1e-30"):  # no need of a thousand digits
        return Fraction(0) if value == 0 else Fraction(1, 10**30)
    return Fraction(value)


def _error_field(text: str, synchronised: bool) -> int:
    """The error estimate that has this bound in s; the next greater one where none has."""
    seconds = _error_s(text)
    if seconds is None:
        return stamp.ERROR_UNKNOWN | (stamp.ERROR_SYNCHRONISED if synchronised else 0)
    if repr(float(text)) == text:
        seconds = Fraction(float(text))  # ``write_raw`` prints the estimate's value as the shortest float
    q32 = seconds * 2**32
    whole = -(-q32.numerator // q32.denominator)
    scale = max(0, whole.bit_length() - 8)
    multiplier = -(-whole >> scale)
    if multiplier == 256:
        scale, multiplier = scale + 1, 128
    return (stamp.ERROR_SYNCHRONISED if synchronised else 0) | scale << 8 | max(1, multiplier)


def _nanoseconds(text: str) -> int:
    """Seconds as text in ns, rounded up; -1 for an unknown error."""
    seconds = _error_s(text)
    if seconds is None:
        return -1
    value = seconds * 10**9
    return -(-value.numerator // value.denominator)


# ETOMIC


def write_etomic(report: Report, path: str) -> None:
    """``src dst timestamp delay hops ipid packet_size packets_sent`` per packet that arrived in time.

    timestamp: departure, s UTC with 9 digits. delay: s with 9 digits. packet_size: bytes of the frame, FCS
    included. packets_sent: of the whole train.
    """
    with _open(path) as file:
        file.write("# src dst timestamp delay hops ipid packet_size packets_sent\n")
        if report.options.unsynchronised:
            file.write("# clocks that follow no reference were allowed (--allow-unsynchronised)\n")
        for train in report.trains:
            judged = train.judged
            counted = judged.counted
            arrivals, delay = judged.arrivals, judged.delay_ns[counted]
            # The sign apart: % on negative numbers would borrow from the seconds.
            minus = delay < 0
            size = np.abs(delay)
            sent = arrivals.sent_ns[counted]
            columns = (
                sent // 10**9, sent % 10**9, size // 10**9, size % 10**9,
                report.options.ttl_sent - arrivals.ttl[counted].astype(np.int64), arrivals.ipid[counted],
                arrivals.size[counted],
            )  # fmt: skip
            edges = [0, *(np.flatnonzero(np.diff(minus)) + 1).tolist(), len(delay)]
            for start, end in itertools.pairwise(edges):
                if start == end:
                    continue
                sign = "-" if minus[start] else ""
                row = (
                    f"{train.key.source} {train.key.destination} %d.%09d {sign}%d.%09d %d %d %d "
                    f"{train.loss.sent}\n"
                )
                file.writelines(_lines(row, [column[start:end] for column in columns]))


# pcapng


def write_pcapng(
    captures: Sequence[str], report: Report, path: str, *, ports: Any = (stamp.UDP_PORT,)
) -> int:
    """The test packets of ``captures``, alone, as pcapng; says how many.

    The first packet and each first one after a change of the receiving clock's state has that state as a
    comment, as the card's own captures have; a packet that is negative, outside its bound, late, a copy or
    reordered has ``owd delay_ns=-12 bound_ns=56 flags=negative``, the first 100,000 of them.
    """
    from twinstamp.io.files import create_capture, open_capture

    collector = Collector(ports=ports)
    flagged = _flagged(report)
    last: ReceiverClock | None = None
    count = 0
    with create_capture(path, format="pcapng") as writer:
        for name in captures:
            collector.new_source()
            with open_capture(name) as reader:
                for batch in reader:
                    with batch:
                        packets = parse(batch, ports=ports)
                        comments, last = _comments(batch, packets, flagged, collector, last)
                        if report.options.unsynchronised and count == 0 and len(packets):
                            first = int(packets.frame[0])
                            text = f"{comments.get(first, '')} owd allow_unsynchronised=yes"
                            comments[first] = text.strip()
                        count += _write_commented(writer, batch, packets.frame, comments)
    return count


def _flagged(report: Report) -> dict[tuple[int, int, int], str]:
    """(arrival ns, number, session) → comment, of the flagged packets; the first 100,000."""
    out: dict[tuple[int, int, int], str] = {}
    serious = metrics.NEGATIVE | metrics.OUTSIDE | metrics.LATE | metrics.DUPLICATE | metrics.REORDERED
    for train in report.trains:
        judged, arrivals = train.judged, train.judged.arrivals
        for i in np.flatnonzero(judged.flags & serious)[: 100_000 - len(out)].tolist():
            flags = ",".join(name for name, bit in metrics.FLAGS.items() if judged.flags[i] & bit)
            bound = "unknown" if judged.bound_ns[i] < 0 else str(judged.bound_ns[i])
            key = (int(arrivals.received_ns[i]), int(arrivals.sequence[i]), train.key.session)
            out[key] = f"owd delay_ns={judged.delay_ns[i]} bound_ns={bound} flags={flags}"
    return out


def _comments(
    batch: FrameBatch,
    packets: TestPackets,
    flagged: dict[tuple[int, int, int], str],
    collector: Collector,
    last: ReceiverClock | None,
) -> tuple[dict[int, str], ReceiverClock | None]:
    """Comments by frame of the batch, and the clock's state at its end."""
    out: dict[int, str] = {}
    state, changes = collector.clock_states(batch)
    if len(packets):
        states = np.full(len(packets), state)
        if changes is not None:
            states = changes[1][np.searchsorted(changes[0], packets.frame, side="right") - 1]
        for k in [0, *(np.flatnonzero(np.diff(states.astype(np.int64))) + 1).tolist()]:
            clock = collector.clocks[states[k]]
            if clock != last and clock.source != "file":
                known = ClockState("utc", clock.source, clock.locked, clock.bound_ns, clock.epoch)
                out[int(packets.frame[k])] = clock_comment(known)
            last = clock
    if flagged and len(packets):
        times = batch.timestamp_ns[packets.frame]
        numbers = np.fromiter((key[0] for key in flagged), np.int64, len(flagged))
        for k in np.flatnonzero(np.isin(times, numbers)).tolist():
            text = flagged.get((int(times[k]), int(packets.sequence[k]), int(packets.session[k])))
            if text is not None:
                frame = int(packets.frame[k])
                out[frame] = f"{out[frame]} {text}" if frame in out else text
    return out, last


def _write_commented(
    writer: CaptureWriter, batch: FrameBatch, frames: npt.NDArray[np.int64], comments: dict[int, str]
) -> int:
    """Writes some frames of a batch; a call of the writer takes 255 texts, so it is called as often."""
    keep = np.zeros(len(batch), np.bool_)
    keep[frames] = True
    places = sorted(comments)
    count = start = 0
    for first in range(0, max(1, len(places)), 255):
        part = places[first : first + 255]
        rest = first + 255 >= len(places)
        end = len(batch) if rest else part[-1] + 1
        chosen = keep.copy()
        chosen[:start] = chosen[end:] = False
        which = np.zeros(len(batch), np.uint8)
        which[part] = np.arange(1, len(part) + 1)
        count += writer.write(batch, chosen, (which, ["", *(comments[i] for i in part)]) if part else None)
        start = end
    return count
