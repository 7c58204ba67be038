# SPDX-License-Identifier: Apache-2.0
"""Opens what an appliance file names, runs the pipeline to the input's end or a stop, reports."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from twinstamp.appliance.config import (
    ApplianceConfig,
    CardConfig,
    SourceConfig,
    check_machine,
    compile_rules,
    open_window,
)
from twinstamp.appliance.outputs import FileOutput, InterfaceOutput
from twinstamp.appliance.pipeline import Output, Pipeline
from twinstamp.appliance.tap import Tap
from twinstamp.balance import Secret
from twinstamp.errors import ConfigError, DeviceError, InputError
from twinstamp.frames import FrameBatch
from twinstamp.io.files import CaptureReader, open_capture, refuse_input
from twinstamp.io.live import check_interface
from twinstamp.io.merge import Merge
from twinstamp.paths import lock_file
from twinstamp.privileges import drop_privileges
from twinstamp.report_file import ReportFile

if TYPE_CHECKING:
    from twinstamp.card.source import CardSource

_FLUSH_S = 1.0  # what a power failure may cost of a server's file
_LINK_CHECK_S = 0.25
_POLL_S = 0.05  # without frames: how soon a stop, a due fragment or a dead link is seen


class FileSource:
    """A capture as a source for Merge. A damaged capture ends at the damage, which `damage` tells."""

    def __init__(self, config: SourceConfig) -> None:
        assert config.file is not None
        self.name = config.file
        self.reader: CaptureReader = open_capture(config.file)
        self.ended = False
        self.damage: str | None = None

    @property
    def ports(self) -> Any:
        return self.reader.ports

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        if self.ended:
            return None
        try:
            batch = self.reader.read()
        except InputError as error:
            self.damage = str(error)
            self.ended = True
            return None
        if batch is None:
            self.ended = True
        return batch

    def close(self) -> None:
        self.reader.close()


class Appliance:
    """An appliance with everything open; run() returns the report, stop() (from anywhere) ends it.

    Raises ConfigError, InputError or DeviceError where something cannot be opened; nothing stays open then.
    """

    def __init__(self, config: ApplianceConfig) -> None:
        self.config = config
        self._stop = False  # set by signal handlers: a lock of an Event could be held by the handler below
        self._stack = ExitStack()
        self.events: list[str] = []
        self._lost: DeviceError | None = None  # a source that broke
        self._started_s = time.monotonic()
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise

    def _open(self) -> None:
        config = self.config
        check_machine(config)
        self._lock()
        self.live = config.card is None and config.sources[0].file is None
        self._sources: list[Any] = []
        self._card: CardSource | None = None
        for source in config.sources:
            if source.file is None:
                check_interface(source.interface or "")  # before anything is made or written over
        device = self._open_device()
        window = config.duplicates
        deduplicator = None
        if window is not None:
            deduplicator = open_window(
                window,
                workers=config.workers,
                backend=config.backend,
                device=device,
                warn=self.events.append,
            )
            self._stack.callback(deduplicator.close)
        classifier = compile_rules(
            config,
            secret=Secret.load(config.secret_file),
            backend=config.backend,
            device=device,
            warn=self.events.append,
        )
        self._stack.callback(classifier.close)
        used = classifier.rules.groups
        unused = [group.name for group in config.groups if group.name not in used]
        if unused:
            self.events.append(f"no rule sends anything to group {', '.join(unused)}")
        tag_vlan = window.tag_vlan if window is not None and window.action == "tag" else None
        opened: dict[str, Output] = {}
        links = sum(output.file is None for output in config.outputs.values())
        for name, output in config.outputs.items():
            if output.file is None:
                # All of them together hold a batch up for 2 ms at most.
                opened[name] = InterfaceOutput(output, tag_vlan, retry_ms=2.0 / links)
                self._stack.callback(opened[name].close)
        # Frames wait in the rings from now until run(), and then while Python collects its garbage, which
        # a process of this size does for tens of milliseconds: all that takes time comes before.
        gc.collect()
        gc.freeze()
        self._stack.callback(gc.unfreeze)
        self._open_sources()
        # What comes out of a card has another clock and other ports than what went in.
        like = self.reader if self._card is None else None
        linktypes = {port.linktype for source in self._sources for port in source.ports}
        for name, output in config.outputs.items():
            if output.file is not None:
                if len(linktypes) > 1 and not output.file.endswith((".pcapng", ".ntar")):
                    raise ConfigError(
                        f"server {name}: the sources have several link types, which pcap cannot hold; "
                        f"name its file .pcapng instead of {output.file}"
                    )
                opened[name] = FileOutput(output, like, live=self.live)
                self._stack.callback(opened[name].close)
        outputs = {name: opened[name] for name in config.outputs}
        if config.report is not None:
            refuse_input(os.fspath(config.report), str(config.report))
        # Opened now: a mistake shows at the start, and later there may be no right to open it.
        self._report = self._stack.enter_context(ReportFile(config.report))
        self.pipeline = Pipeline(
            deduplicator=deduplicator,
            action="count" if window is None else window.action,
            classifier=classifier,
            outputs=outputs,
            clock_ns=time.time_ns if self.live else None,
            events=self.events,
        )
        if config.realtime:
            self._become_realtime()
        if config.user is not None:
            _drop_privileges(config.user)

    def _lock(self) -> None:
        """Refuses a second run of the file: it would send all twice and write over the first's captures."""
        if self.config.path is None:
            return
        try:
            descriptor = os.open(self.config.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"{self.config.path}: cannot be read: {error.strerror}") from error
        self._stack.callback(os.close, descriptor)
        lock_file(descriptor, str(self.config.path))

    def _open_device(self) -> Any:
        """The GPU that all stages share; None: there is none, and none must be."""
        if self.config.backend == "cpu":
            return None
        from twinstamp_kernels import backend

        try:
            device = backend.open_device()
        except backend.NoDevice as error:
            if self.config.backend == "gpu":
                raise ConfigError(f'appliance.backend: {error}; or write backend = "cpu"') from error
            return None  # each stage finds out the same, and says so
        self._stack.callback(device.close)
        return device

    def _become_realtime(self) -> None:
        """SCHED_FIFO for this thread and those that it starts, until the run is over."""
        before = os.sched_getscheduler(0), os.sched_getparam(0)
        try:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        except OSError as error:
            self.events.append(f"appliance.realtime: not possible ({error.strerror}); ordinary priority")
        else:
            self._stack.callback(os.sched_setscheduler, 0, *before)

    def _open_sources(self) -> None:
        config = self.config
        for source in config.sources:
            opened: Any = (
                Tap(
                    source.interface or "",
                    tell=self.events.append,
                    filter=source.filter,
                    ring_mib=source.ring_mib,
                    promiscuous=source.promiscuous,
                    batch_frames=config.batch_frames,
                )
                if self.live
                else FileSource(source)
            )
            self._stack.callback(opened.close)
            self._sources.append(opened)
        if config.card is not None:
            self._sources = self._open_card(config.card)
        self._merge = Merge(
            self._sources,
            delay_ms=config.reorder_ms,
            memory_mib=config.reorder_mib,
            batch_frames=config.batch_frames,
            clock=time.time_ns if self.live else None,
        )

    def _open_card(self, card: CardConfig) -> list[Any]:
        from twinstamp.card.source import CardSource

        self._card = CardSource(
            card.play,
            ports=card.ports,
            speed=card.speed,
            longest_gap_ns=card.longest_gap_ns,
            clocks_ppb=card.clocks_ppb,
            seed=card.seed,
            block_log2=card.block_log2,
            blocks_log2=card.blocks_log2,
        )
        self._stack.callback(self._card.close)
        return self._card.split()

    @property
    def reader(self) -> CaptureReader | None:
        """The only capture being read, for a progress bar."""
        if self._card is not None:
            return self._card.reader
        return self._sources[0].reader if not self.live and len(self._sources) == 1 else None

    def stop(self) -> None:
        """Asks run() to end: what the kernel holds for us is still taken, delivered and counted."""
        self._stop = True
        for source in self._sources:
            if isinstance(source, FileSource):
                source.reader.cancel()  # it may be waiting for a pipe
        if self._card is not None:
            self._card.stop()

    def run(self, *, progress: Callable[[], None] | None = None) -> dict[str, Any]:
        """Runs until the input ends or stop(). Returns the report and writes it where the file says.

        Raises InputError for damaged captures after everything before the damage was delivered.
        """
        failure: BaseException | None = None
        # Whatever ends it, what was taken is delivered, all is closed, and a report tells.
        steps: tuple[Callable[[], None], ...] = (
            partial(self._take_all, progress), self._take_rest, self.pipeline.finish, self.pipeline.close,
        )  # fmt: skip
        for step in steps:
            try:
                step()
            except BaseException as error:
                if failure is None:
                    failure = error
                    self.events.append(f"the run has ended early: {error}")
        if self._card is not None:
            self.events += self._card.remarks()
        report = self.report()
        unwritten: ConfigError | None = None
        try:
            self._report.write(report)
        except ConfigError as error:
            unwritten = error
        self._stack.close()
        if failure is not None:
            raise failure
        damaged = [source for source in (self._card, *self._sources) if getattr(source, "damage", None)]
        if damaged:
            raise InputError(f"{damaged[0].damage}; the frames before it were delivered")
        lost = self._lost or next(
            (s.trouble for s in self._sources if isinstance(s, Tap) and s.trouble), None
        )
        if lost is not None:
            raise lost
        broken = self.pipeline.broken
        if broken:
            name, cause = broken[0]
            raise DeviceError(
                f"server {name} got less than its share: {cause}; the report says what went where"
            )
        if unwritten is not None:
            raise unwritten
        return report

    def _take_all(self, progress: Callable[[], None] | None) -> None:
        """The loop: until the input ends or stop()."""
        next_check = next_flush = 0.0
        stop_ns: int | None = None
        if self.live:
            self._look_around()  # servers that are down from the start
        while True:
            if self._stop and stop_ns is None:
                stop_ns = time.time_ns()
            try:
                batch = self._merge.poll(_POLL_S if stop_ns is None else 0.01)
            except DeviceError as error:
                self.events.append(str(error))
                self._lost = error
                if len(self._sources) == 1:
                    return
                continue
            if batch is not None:
                with batch:
                    late = bool(
                        self.live and stop_ns is not None and len(batch) and batch.timestamp_ns[0] > stop_ns
                    )
                    self.pipeline.process(batch)
                # Files have no stop time: what is read is delivered, and no more is read. What is on a card's
                # wires still comes.
                if late or (stop_ns is not None and not self.live and self._card is None):
                    return
            elif self._merge.ended or (stop_ns is not None and self._card is None):
                return
            if self.live:
                self.pipeline.tick(time.time_ns())
                now = time.monotonic()
                if now >= next_check:
                    next_check = now + _LINK_CHECK_S
                    self._look_around()
                    if now >= next_flush:
                        next_flush = now + _FLUSH_S
                        self.pipeline.flush()
            if progress is not None:
                progress()

    def _look_around(self) -> None:
        """Four times a second: the servers' links, and the kernel's counters, which have 32 bits."""
        for name, alive in self.pipeline.check_servers():
            self.events.append(f"server {name} {'came back' if alive else 'went down'}")
        for source in self._sources:
            source.statistics()

    def _take_rest(self) -> None:
        """What the merge still holds."""
        while (batch := self._merge.flush()) is not None:
            with batch:
                self.pipeline.process(batch)

    def close(self) -> None:
        """Closes everything, for a run that never was."""
        self._stack.close()

    def __enter__(self) -> Appliance:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def snapshot(self) -> dict[str, Any]:
        """Counters of the moment, for the live view; keys as in the report."""
        pipeline = self.pipeline
        pipeline.ledger.dropped_before = sum(
            source.statistics().kernel_drops for source in self._sources if isinstance(source, Tap)
        )
        if self._card is not None:
            pipeline.ledger.dropped_before = self._card.dropped
        duplicates: dict[str, Any] = {"by_type": {}, "kept_by_class": {}, "guarded": {}, "limit_reached": 0}
        if pipeline.deduplicator is not None:
            statistics = pipeline.deduplicator.statistics()
            duplicates = {
                "by_type": statistics["by_type"],
                "kept_by_class": statistics["kept"],
                "guarded": statistics["guarded"],
                "limit_reached": statistics["limit_reached"],
                "memory_bytes": statistics["memory_bytes"],
            }
        delay = pipeline.added_delay
        seconds = max(time.monotonic() - self._started_s, 1e-9)  # the wall clock may be set meanwhile
        return {
            "seconds": round(seconds, 3),
            "ledger": pipeline.ledger.as_dict(),
            "duplicates": duplicates,
            "backend": {
                "duplicates": None if pipeline.deduplicator is None else pipeline.deduplicator.backend(),
                "rules": pipeline.classifier.backend(),
            },
            "servers": {
                server.name: {
                    "frames": server.frames,
                    "bytes": server.bytes,
                    "send_errors": server.failed,
                    "causes": dict(server.output.causes),
                    "flows": server.flows.estimate(),
                    "alive": server.alive,
                    "frames_per_s": round(server.frames / seconds, 1),
                    "bits_per_s": round(8 * server.bytes / seconds, 1),
                }
                for server in pipeline.servers
            },
            "added_delay_ns": {
                "p50": delay.quantile(0.5),
                "p90": delay.quantile(0.9),
                "p99": delay.quantile(0.99),
                "p999": delay.quantile(0.999),
                "max": delay.maximum,
            }
            if self.live
            else None,
        }

    def report(self) -> dict[str, Any]:
        """The whole report (docs/appliance.md lists its keys)."""
        config = self.config
        report = {"version": 1, **self.snapshot()}
        report["sources"] = {} if self._card is None else {self._card.name: self._card.statistics()}
        report["sources"] |= {
            source.interface: source.statistics()._asdict() if isinstance(source, Tap) else None
            for source in self._sources
            if isinstance(source, Tap)
        } or {
            source.name: {
                "frames": source.reader.frames,
                "truncated": source.reader.truncated,
                "damage": source.damage,
            }
            for source in self._sources
            if isinstance(source, FileSource)
        }
        report["reorder"] = self._merge.statistics()._asdict()
        hits = self.pipeline.rule_hits
        report["rules"] = {
            "count": len(hits) - 1,
            "no_match": int(hits[-1]),
            "hits": {str(number): int(count) for number, count in enumerate(hits[:-1]) if count},
        }
        counts = self.pipeline.classifier.counts()
        report["fragments"] = {key: value for key, value in counts.items() if key.startswith("fragments_")}
        report["icmp_followed"] = counts.get("icmp_followed", 0)
        report["memory_bytes"] = {
            "rings": self._ring_bytes(),
            "reorder": self._merge.statistics().memory_bytes,
            "window": report["duplicates"].get("memory_bytes", 0),
            "rules": self.pipeline.classifier.table_bytes,
            "servers": sum(server.memory_bytes for server in self.pipeline.servers),
            "fragments_at_most": config.fragments.hold_bytes,
        }
        report["events"] = list(self.events)
        return report

    def _ring_bytes(self) -> int:
        card = self.config.card
        if card is not None:
            return 1 << (card.block_log2 + card.blocks_log2)
        return sum(source.ring_mib << 20 for source in self.config.sources) if self.live else 0


def _drop_privileges(user: str) -> None:
    """Becomes `user` for good; sockets and files that are open stay open."""
    drop_privileges(user, "appliance.user")
