# SPDX-License-Identifier: Apache-2.0
"""Captures through the rules and balance stage: a CSV of rules, or a capture per server (docs/balance.md)."""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt
from twinstamp_kernels.rules import format_rules

from twinstamp.balance import (
    Classifier,
    FragmentLimits,
    Group,
    Secret,
    Server,
    Verdicts,
    same_servers,
    server_mask,
)
from twinstamp.errors import ConfigError, DamagedCaptureError, DeviceError, LedgerError
from twinstamp.frames import FrameBatch
from twinstamp.io import CaptureReader, CaptureWriter, create_capture, open_capture
from twinstamp.io.files import for_each_batch, refuse_input
from twinstamp.ledger import Ledger
from twinstamp.paths import refuse_same
from twinstamp.rules import RuleSet

if TYPE_CHECKING:
    from twinstamp_kernels.gpu.device import Device

    from twinstamp.errors import InputError

Progress = Callable[[CaptureReader], None]

# Rows wait for held fragments; beyond this many all held ones are let go.
MAX_WAITING_ROWS = 16 << 20
# Distinct flows counted exactly up to here, 8 bytes each.
MAX_FLOWS_COUNTED = 4 << 20
MIN_FLOWS_WAITING = 65536


def _close(file: BinaryIO, name: str) -> None:
    try:
        file.close()
    except OSError as error:
        raise DeviceError(f"{name}: cannot be written: {error.strerror}; the CSV is incomplete") from error


class _Rows:
    """Writes "frame,rule" in frame order although held fragments learn their rule later."""

    def __init__(self, out: BinaryIO, name: str) -> None:
        self._out = out
        self._name = name
        self._waiting: deque[tuple[int, array[int]]] = deque()
        self.matched = 0
        self.frames = 0
        self._write(b"frame,rule\n")

    def _write(self, text: bytes) -> None:
        try:
            self._out.write(text)
        except OSError as error:
            raise DeviceError(
                f"{self._name}: cannot be written: {error.strerror}; the CSV is incomplete"
            ) from error

    def add(self, first: int, verdicts: Verdicts) -> None:
        if len(verdicts.held) or self._waiting:
            rows = array("i")
            rows.frombytes(verdicts.rule.cast("B"))
            self._waiting.append((first, rows))
        else:
            self._emit(first, verdicts.rule)

    def _emit(self, first: int, rule: Any) -> None:
        self.frames += len(rule)
        self.matched += int(np.count_nonzero(np.frombuffer(rule, np.int32) >= 0)) if len(rule) else 0
        self._write(format_rules(rule, first + 1))

    def settle(self, classifier: Classifier) -> None:
        while (released := classifier.take_released()) is not None:
            rules = released.verdicts.rule
            for i, frame in enumerate(released.frame):  # held fragments only, few in any stream
                for first, rows in self._waiting:
                    if first <= frame < first + len(rows):
                        rows[frame - first] = rules[i]
                        break
        oldest = classifier.oldest_held
        while self._waiting:
            first, rows = self._waiting[0]
            if oldest is not None and first + len(rows) > oldest:
                break
            self._emit(first, rows)
            self._waiting.popleft()

    @property
    def waiting(self) -> int:
        return sum(len(rows) for _, rows in self._waiting)


def match_capture(
    source: str,
    rules: RuleSet,
    out: str,
    *,
    layer: str = "outer",
    workers: int = 1,
    fragments: FragmentLimits | None = None,
    backend: str = "cpu",
    device: Device | None = None,
    warn: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Writes for each frame of a capture the first rule that matches it, as CSV.

    The header is "frame,rule"; frames count from 1, rules from 0, -1: none. out: a path or "-". backend,
    device, warn: see twinstamp.balance.Classifier.
    Returns the report. Raises ConfigError for an output that cannot be made, DeviceError where writing
    fails; DamagedCaptureError, with the report, for a capture damaged inside (the rows of the frames before
    are written).
    """
    classifier = Classifier(
        rules,
        layer=layer,
        follow_icmp=False,
        workers=workers,
        fragments=fragments,
        backend=backend,
        device=device,
        warn=warn,
    )
    with ExitStack() as stack:
        stack.callback(classifier.close)
        reader = stack.enter_context(open_capture(source))
        if out == "-":
            file: BinaryIO = sys.stdout.buffer
        else:
            try:
                refuse_input(out, out)
                file = open(out, "wb")  # noqa: SIM115
            except OSError as error:
                raise ConfigError(
                    f"{out}: cannot be created: {error.strerror}; choose another --out"
                ) from error
            stack.callback(_close, file, out)
        rows = _Rows(file, "standard output" if out == "-" else out)

        def take(batch: FrameBatch) -> None:
            rows.add(batch.first, classifier.process(batch))
            rows.settle(classifier)
            if rows.waiting > MAX_WAITING_ROWS:
                classifier.flush()
                rows.settle(classifier)

        try:
            damage = for_each_batch(reader, take, progress)
        finally:
            classifier.flush()
            rows.settle(classifier)
            if out == "-":
                file.flush()
        truncated, beyond = reader.truncated, reader.fractions_beyond
        backend_used = classifier.backend()
    if rows.frames != reader.frames:
        raise LedgerError(f"{reader.frames} frames were read, {rows.frames} rows written")
    report = {
        "input": source,
        "rules": {"file": rules.name, "count": len(rules), "bytes": classifier.table_bytes},
        "backend": backend_used,
        "frames": rows.frames,
        "matched": rows.matched,
        "fragments": fragment_report(counts := classifier.counts()),
        "not_understood": counts["not_understood"],
        "fractions_beyond": beyond,
        "truncated": truncated,
    }
    return _undamaged(report, damage)


def _undamaged(report: dict[str, Any], damage: InputError | None) -> dict[str, Any]:
    """The report, returned or, of a damaged capture, raised."""
    report["damage"] = None if damage is None else str(damage)
    if damage is not None:
        frames = report["frames"] if "frames" in report else report["ledger"]["received"]["frames"]
        raise DamagedCaptureError(
            f"{damage}; the {frames} frames before it were processed", report
        ) from damage
    return report


def fragment_report(counts: dict[str, Any]) -> dict[str, int]:
    """The fragment counters of Classifier.counts()."""
    return {
        key.removeprefix("fragments_"): value for key, value in counts.items() if key.startswith("fragments_")
    }


class _Flows:
    """Distinct flow hashes per server, exact up to a limit for all of them together.

    New hashes wait until they are as many as those known, so that each is sorted a few times only.
    """

    def __init__(self, servers: int) -> None:
        self._seen: list[npt.NDArray[np.uint64]] = [np.empty(0, np.uint64) for _ in range(servers)]
        self._waiting: list[list[npt.NDArray[np.uint64]]] = [[] for _ in range(servers)]
        self._waiting_count = [0] * servers
        self._total = 0
        self.overflow = False

    def add(self, server: int, hashes: npt.NDArray[np.uint64]) -> None:
        if self.overflow:
            return
        new = np.unique(hashes)
        self._waiting[server].append(new)
        self._waiting_count[server] += len(new)
        if self._waiting_count[server] > max(len(self._seen[server]), MIN_FLOWS_WAITING):
            self._merge(server)

    def _merge(self, server: int) -> None:
        before = len(self._seen[server])
        self._seen[server] = np.unique(np.concatenate([self._seen[server], *self._waiting[server]]))
        self._waiting[server].clear()
        self._waiting_count[server] = 0
        self._total += len(self._seen[server]) - before
        if self._total > MAX_FLOWS_COUNTED:
            self.overflow = True
            self._seen.clear()
            self._waiting.clear()

    def counts(self) -> list[int | None]:
        """Distinct flows of each server; None for all where there were too many to count."""
        servers = len(self._waiting_count)
        for server in range(servers):
            if not self.overflow and self._waiting_count[server]:
                self._merge(server)
        return [None] * servers if self.overflow else [len(seen) for seen in self._seen]


class _Outputs:
    """A capture per server."""

    def __init__(self, writers: Sequence[CaptureWriter]) -> None:
        self._writers = writers
        self.flows = _Flows(len(writers))

    def write(self, batch: FrameBatch, verdicts: Verdicts, ledger: Ledger) -> None:
        if not len(verdicts.copy_frame):
            return
        frame = np.frombuffer(verdicts.copy_frame, np.uint32)
        server = np.frombuffer(verdicts.copy_server, np.uint16)
        hashes = np.frombuffer(verdicts.hash, np.uint64)
        for number in np.unique(server).tolist():
            mine = frame[server == number]
            size = int(batch.caplen[mine].sum(dtype=np.uint64))
            ledger.copies_attempted.add(len(mine), size)
            writer = self._writers[number]
            before = writer.captured
            if len(mine) > 1 and (mine[1:] == mine[:-1]).any():
                # Two groups of one rule share this server: it gets such a frame twice, as sent live.
                written = writer.write(batch.select(mine))
            else:
                written = writer.write(batch, server_mask(verdicts, number))
            ledger.copies_sent.add(written, writer.captured - before)
            self.flows.add(number, hashes[mine])


def balance_capture(
    source: str,
    rules: RuleSet,
    out_dir: str | Path,
    *,
    groups: Sequence[Group] = (),
    servers: Sequence[Server] = (),
    secret: Secret | None = None,
    layer: str = "outer",
    hash: str = "flow",
    workers: int = 1,
    fragments: FragmentLimits | None = None,
    backend: str = "cpu",
    device: Device | None = None,
    warn: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Shares the frames of a capture among servers: one capture per server in out_dir.

    groups: servers per group name. servers: where no groups are given, all groups share these. Frames
    keep their order, but for fragments that came before their first one. backend, device, warn: see
    twinstamp.balance.Classifier. Returns the report with ledger and servers. Raises InputError, ConfigError,
    DeviceError; DamagedCaptureError, with the report, for a capture damaged inside (what came before is
    delivered).
    """
    chosen = tuple(groups) or same_servers(rules, servers)
    classifier = Classifier(
        rules,
        groups=chosen,
        secret=secret,
        layer=layer,
        hash=hash,
        workers=workers,
        fragments=fragments,
        backend=backend,
        device=device,
        warn=warn,
    )
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: cannot be made: {error.strerror}; give another --out-dir") from error
    ledger = Ledger()
    with ExitStack() as stack:
        stack.callback(classifier.close)
        reader = stack.enter_context(open_capture(source))
        ending = ".pcapng" if reader.format == "pcapng" else ".pcap"
        paths = [folder / f"{name}{ending}" for name in classifier.servers]
        for path in paths:
            refuse_same(path, rules.name, None if secret is None else secret.path, what="server's capture")
        writers = [stack.enter_context(create_capture(str(path), like=reader)) for path in paths]
        outputs = _Outputs(writers)

        def settle() -> None:
            while (released := classifier.take_released()) is not None:
                outputs.write(released.batch, released.verdicts, ledger)

        def take(batch: FrameBatch) -> None:
            outputs.write(batch, classifier.process(batch), ledger)
            settle()

        damage = for_each_batch(reader, take, progress)
        classifier.flush()
        settle()
        truncated, beyond = reader.truncated, reader.fractions_beyond
        backend_used = classifier.backend()
    counts = classifier.counts()
    ledger.receive(reader.frames, reader.captured)
    for fate, name in (
        ("forwarded", "forwarded"),
        ("rule_drops", "dropped"),
        ("no_live_server", "no_server"),
    ):
        ledger.settle(fate, *counts[name])
    ledger.check(ended=True)
    for name, writer, judged in zip(classifier.servers, writers, counts["servers"], strict=True):
        if (writer.frames, writer.captured) != tuple(judged):
            raise LedgerError(
                f"server {name}: {judged[0]} copies of {judged[1]} bytes were due, "
                f"{writer.frames} of {writer.captured} bytes are written"
            )
    table = [
        {
            "name": name,
            "file": str(path),
            "frames": writer.frames,
            "bytes": writer.captured,
            "flows": flows,
        }
        for name, path, writer, flows in zip(
            classifier.servers, paths, writers, outputs.flows.counts(), strict=True
        )
    ]
    report = {
        "input": source,
        "rules": {"file": rules.name, "count": len(rules), "bytes": classifier.table_bytes},
        "backend": backend_used,
        "servers": table,
        "ledger": ledger.as_dict(),
        "fragments": fragment_report(counts),
        "icmp_errors_followed": counts["icmp_followed"],
        "not_understood": counts["not_understood"],
        "fractions_beyond": beyond,
        "truncated": truncated,
    }
    return _undamaged(report, damage)
