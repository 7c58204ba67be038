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
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.frames import FrameBatch
from twinstamp.io import CaptureReader, CaptureWriter, create_capture, open_capture
from twinstamp.io.files import refuse_input
from twinstamp.ledger import Ledger
from twinstamp.rules import RuleSet

if TYPE_CHECKING:
    from twinstamp_kernels.gpu.device import Device

Progress = Callable[[CaptureReader], None]

# Rows wait for held fragments; beyond this many all held ones are let go.
MAX_WAITING_ROWS = 16 << 20
# Distinct flows counted exactly up to here, 8 bytes each.
MAX_FLOWS_COUNTED = 4 << 20


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
    Returns the report. Raises InputError for a damaged capture (rows of the frames before are written),
    ConfigError for an output that cannot be made, DeviceError where writing fails.
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
        try:
            for batch in reader:
                with batch:
                    verdicts = classifier.process(batch)
                    rows.add(batch.first, verdicts)
                    del verdicts
                rows.settle(classifier)
                if rows.waiting > MAX_WAITING_ROWS:
                    classifier.flush()
                    rows.settle(classifier)
                if progress is not None:
                    progress(reader)
        finally:
            classifier.flush()
            rows.settle(classifier)
            if out == "-":
                file.flush()
        truncated = reader.truncated
        backend_used = classifier.backend()
    return {
        "input": source,
        "rules": {"file": rules.name, "count": len(rules), "bytes": classifier.table_bytes},
        "backend": backend_used,
        "frames": rows.frames,
        "matched": rows.matched,
        "fragments": fragment_report(classifier.counts()),
        "truncated": truncated,
    }


def fragment_report(counts: dict[str, Any]) -> dict[str, int]:
    """The fragment counters of Classifier.counts()."""
    return {
        key.removeprefix("fragments_"): value for key, value in counts.items() if key.startswith("fragments_")
    }


class _Flows:
    """Distinct flow hashes per server, exact up to a limit."""

    def __init__(self, servers: int) -> None:
        self._seen: list[Any] = [np.empty(0, np.uint64) for _ in range(servers)]
        self._total = 0
        self.overflow = False

    def add(self, server: int, hashes: Any) -> None:
        if self.overflow:
            return
        before = len(self._seen[server])
        self._seen[server] = np.union1d(self._seen[server], hashes)
        self._total += len(self._seen[server]) - before
        if self._total > MAX_FLOWS_COUNTED:
            self.overflow = True
            self._seen.clear()

    def count(self, server: int) -> int | None:
        return None if self.overflow else len(self._seen[server])


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
            if len(mine) > 1 and (mine[1:] == mine[:-1]).any():
                # Two groups of one rule share this server: it gets such a frame twice, as sent live.
                written = self._writers[number].write(batch.select(mine))
            else:
                written = self._writers[number].write(batch, server_mask(verdicts, number))
            ledger.copies_sent.add(written, size)
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
    DeviceError.
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
        outputs = _Outputs([stack.enter_context(create_capture(str(path), like=reader)) for path in paths])

        def settle() -> None:
            while (released := classifier.take_released()) is not None:
                outputs.write(released.batch, released.verdicts, ledger)

        for batch in reader:
            with batch:
                ledger.receive(len(batch), int(batch.caplen.sum(dtype=np.uint64)) if len(batch) else 0)
                verdicts = classifier.process(batch)
                outputs.write(batch, verdicts, ledger)
                del verdicts
            settle()
            if progress is not None:
                progress(reader)
        classifier.flush()
        settle()
        truncated = reader.truncated
        backend_used = classifier.backend()
    counts = classifier.counts()
    for fate, name in (
        ("forwarded", "forwarded"),
        ("rule_drops", "dropped"),
        ("no_live_server", "no_server"),
    ):
        ledger.settle(fate, *counts[name])
    ledger.check(ended=True)
    table = [
        {
            "name": name,
            "file": str(path),
            "frames": copies,
            "bytes": size,
            "flows": outputs.flows.count(number),
        }
        for number, (name, path, (copies, size)) in enumerate(
            zip(classifier.servers, paths, counts["servers"], strict=True)
        )
    ]
    return {
        "input": source,
        "rules": {"file": rules.name, "count": len(rules), "bytes": classifier.table_bytes},
        "backend": backend_used,
        "servers": table,
        "ledger": ledger.as_dict(),
        "fragments": fragment_report(counts),
        "icmp_errors_followed": counts["icmp_followed"],
        "truncated": truncated,
    }
