# SPDX-License-Identifier: Apache-2.0
"""Opens what an appliance file names, runs the pipeline to the input's end or a stop, reports."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack
from functools import partial
from queue import SimpleQueue
from typing import Any

from twinstamp.appliance.config import (
    ApplianceConfig,
    OutputConfig,
    check_machine,
    compile_rules,
    load_appliance,
    open_window,
)
from twinstamp.appliance.control import Control
from twinstamp.appliance.counters import Snapshot, make_report, take_snapshot
from twinstamp.appliance.events import Events
from twinstamp.appliance.hub import MIB_PER_READER, Hub, Reader
from twinstamp.appliance.outputs import FileOutput, FileSink, InterfaceOutput, QueuedOutput, RetryBudget
from twinstamp.appliance.pipeline import Output, Pipeline
from twinstamp.appliance.reload import check_reload
from twinstamp.appliance.sources import Source, by_name, check_sources, open_sources
from twinstamp.appliance.stages import StageSink
from twinstamp.balance import Classifier, Secret
from twinstamp.errors import (
    ConfigError,
    DeviceError,
    InputError,
    OverloadError,
    StageError,
    TwinstampError,
)
from twinstamp.io.files import CaptureReader, refuse_input
from twinstamp.io.merge import Merge
from twinstamp.paths import lock_file
from twinstamp.privileges import drop_privileges
from twinstamp.report_file import ReportFile

_FLUSH_S = 1.0  # what a power failure may cost of a server's file
_LOOK_S = 0.25  # from one look at links and counters to the next
_SWITCH_S = 0.0002
_REQUEST_S = 5.0  # how long another thread waits for the loop
_STATUS_EVENTS = 100
_POLL_S = 0.05  # without frames: how soon a stop, a due fragment or a dead link is seen


class Appliance:
    """An appliance with everything open; run() returns the report, stop() (from anywhere) ends it.

    snapshot: the counters, new four times a second while run() lasts; any thread may read it.

    Raises ConfigError, InputError or DeviceError where something cannot be opened; nothing stays open then.
    """

    def __init__(self, config: ApplianceConfig) -> None:
        self.config = config
        self._stop = False  # set by signal handlers: a lock of an Event could be held by the handler below
        self._stack = ExitStack()
        self.events = Events()
        self._lost: DeviceError | None = None  # a source that broke
        self._started_s = time.monotonic()
        self._requests: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._reloads = 0
        self._over = False  # nobody looks after requests any more
        self._locked = (0, 0)  # device and number of the file that is locked
        try:
            self._open()
        except BaseException:
            self._stack.close()
            raise

    def _open(self) -> None:
        config = self.config
        check_machine(config)
        self._lock()
        self._sources: list[Source] = []
        self._queued: list[QueuedOutput] = []
        self._stopped: set[str] = set()  # stages that were told of
        check_sources(config)  # before anything is made or written over
        self._control: Control | None = None
        if config.control is not None:
            self._control = Control(config.control, {"status": self._status, "reload": self._reload})
            self._stack.callback(self._control.close)
        self._stages = {
            stage.name: Reader(f"stage {stage.name}", StageSink(stage), whole=True) for stage in config.stages
        }
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
        self._secret = Secret.load(config.secret_file)
        classifier = compile_rules(
            config,
            secret=self._secret,
            backend=config.backend,
            device=device,
            warn=self.events.append,
        )
        self._stack.callback(classifier.close)
        self._tell_unused(config, classifier)
        opened: dict[str, Output] = {}
        self._budget = RetryBudget()
        for name, output in config.outputs.items():
            if output.file is None:
                opened[name] = self._open_interface(output)
                self._stack.callback(opened[name].close)
        # Frames wait in the rings from now until run(), and then while Python collects its garbage, which
        # a process of this size does for tens of milliseconds: all that takes time comes before.
        gc.collect()
        gc.freeze()
        self._stack.callback(gc.unfreeze)
        self._open_sources()
        like = self._sources[0].like if len(self._sources) == 1 else None
        linktypes = {port.linktype for source in self._sources for port in source.ports}
        for name, output in config.outputs.items():
            if output.file is not None:
                if len(linktypes) > 1 and not output.file.endswith((".pcapng", ".ntar")):
                    raise ConfigError(
                        f"server {name}: the sources have several link types, which pcap cannot hold; "
                        f"name its file .pcapng instead of {output.file}"
                    )
                opened[name] = self._open_file(name, output, like)
        self.hub = self._open_hub()
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
            hub=self.hub,
            budget=self._budget,
        )
        self.snapshot: Snapshot
        self._publish()
        if config.realtime:
            self._become_realtime()
        if config.user is not None:
            _drop_privileges(config.user)

    def _lock(self) -> None:
        """Refuses a second run of the file: it would send all twice and write over the first's captures.

        Again after a reload: an editor may have made another file of that name.
        """
        if self.config.path is None:
            return
        try:
            descriptor = os.open(self.config.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"{self.config.path}: cannot be read: {error.strerror}") from error
        status = os.fstat(descriptor)
        if self._locked == (status.st_dev, status.st_ino):
            os.close(descriptor)
            return
        self._stack.callback(os.close, descriptor)
        lock_file(descriptor, str(self.config.path))
        self._locked = status.st_dev, status.st_ino

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

    def _open_interface(self, output: OutputConfig) -> InterfaceOutput:
        window = self.config.duplicates
        tag_vlan = window.tag_vlan if window is not None and window.action == "tag" else None
        return InterfaceOutput(output, tag_vlan, budget=self._budget)

    def _tell_unused(self, config: ApplianceConfig, classifier: Classifier) -> None:
        unused = [group.name for group in config.groups if group.name not in classifier.rules.groups]
        if unused:
            self.events.append(f"no rule sends anything to group {', '.join(unused)}")

    def _open_file(self, name: str, config: OutputConfig, like: Any) -> Output:
        """A file server: written in step with captures, by a reader of the hub where frames do not wait."""
        file = FileOutput(config, like, live=self.live)
        if not self.live:
            self._stack.callback(file.close)
            return file
        tagging = self.config.duplicates is not None and self.config.duplicates.action == "tag"
        queued = QueuedOutput(file, Reader(f"server {name}", FileSink(file, tagging=tagging)))
        self._queued.append(queued)
        self._stack.callback(queued.close)
        return queued

    def _open_hub(self) -> Hub | None:
        """The hub, where there is anybody to read from it."""
        readers = [*(queued.reader for queued in self._queued), *self._stages.values()]
        if not readers:
            return None
        least = MIB_PER_READER * len(readers)
        memory_mib = self.config.hub_mib
        if memory_mib is not None and memory_mib < least:
            raise ConfigError(
                f"appliance.hub_mib: {memory_mib} MiB are too little for {len(readers)} file servers and "
                f"stages: give {least} or more"
            )
        hub = Hub(
            readers,
            memory_mib=max(64, 2 * least) if memory_mib is None else memory_mib,
            in_step=not self.live,
            held=lambda: self._merge.held,
        )
        for queued in self._queued:
            queued.hub = hub
        return hub

    def _open_sources(self) -> None:
        config = self.config
        self._sources = open_sources(config, tell=self.events.append)
        for source in self._sources:
            self._stack.callback(source.close)
        self.live = any(source.live for source in self._sources)
        self._merge = Merge(
            self._sources,
            delay_ms=config.reorder_ms,
            memory_mib=config.reorder_mib,
            batch_frames=config.batch_frames,
            clock=time.time_ns if self.live else None,
        )

    @property
    def reader(self) -> CaptureReader | None:
        """The only capture being read, for a progress bar."""
        readers = {id(source.capture): source.capture for source in self._sources}
        return readers.popitem()[1] if len(readers) == 1 else None

    def stop(self) -> None:
        """Asks run() to end: what the kernel holds for us is still taken, delivered and counted."""
        self._stop = True
        for source in self._sources:
            source.stop()

    def run(self, *, progress: Callable[[], None] | None = None) -> dict[str, Any]:
        """Runs until the input ends or stop(). Returns the report and writes it where the file says.

        Raises InputError for damaged captures after everything before the damage was delivered.
        """
        failure: BaseException | None = None
        if self.live and (self.hub is not None or self._control is not None):
            # A thread that runs Python keeps the others waiting for 5 ms by default.
            self._stack.callback(sys.setswitchinterval, sys.getswitchinterval())
            sys.setswitchinterval(_SWITCH_S)
        if self.hub is not None:
            self.hub.start()
        if self._control is not None:
            self._control.start()
        # Whatever ends it, what was taken is delivered, all is closed, and a report tells.
        steps: tuple[Callable[[], None], ...] = (
            partial(self._take_all, progress), self._refuse_requests, self._take_rest, self.pipeline.finish,
            self.pipeline.close,
        )  # fmt: skip
        for step in steps:
            try:
                step()
            except BaseException as error:
                if failure is None:
                    failure = error
                    self.events.append(f"the run has ended early: {error}")
        self._tell_of_stages()
        for source in by_name(self._sources).values():
            for remark in source.remarks:
                self.events.append(remark)
        report = self.report()
        unwritten: ConfigError | None = None
        try:
            self._report.write(report)
        except ConfigError as error:
            unwritten = error
        self._stack.close()
        if failure is not None:
            raise failure
        damage = next((source.damage for source in self._sources if source.damage), None)
        if damage:
            raise InputError(f"{damage}; the frames before it were delivered")
        lost = self._lost or next((source.trouble for source in self._sources if source.trouble), None)
        if lost is not None:
            raise lost
        broken = self.pipeline.broken
        if broken:
            name, cause = broken[0]
            raise DeviceError(
                f"server {name} got less than its share: {cause}; the report says what went where"
            )
        if self._stopped:
            name = min(self._stopped)
            raise StageError(f"stage {name} has stopped: {self._stages[name].error}")
        if unwritten is not None:
            raise unwritten
        return report

    def _take_all(self, progress: Callable[[], None] | None) -> None:
        """The loop: until the input ends or stop()."""
        next_look = next_flush = 0.0
        stop_ns: int | None = None
        if self.live:
            self._look_around()  # servers that are down from the start
        while True:
            self._do_requests()
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
                if late:
                    return
            elif self._merge.ended or (self.live and stop_ns is not None):
                return  # what is not live ends by itself once it is stopped
            if self.live:
                self.pipeline.tick(time.time_ns())
            now = time.monotonic()
            if now >= next_look:
                next_look = now + _LOOK_S
                self._look_around()
                if self.live and now >= next_flush:
                    next_flush = now + _FLUSH_S
                    self.pipeline.flush()
            if progress is not None:
                progress()

    def _do_requests(self) -> None:
        """What another thread wants done between two batches."""
        while not self._requests.empty():
            call, future = self._requests.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)

    def _refuse_requests(self) -> None:
        """The loop has ended: nobody waits for it any more."""
        self._over = True
        while not self._requests.empty():
            self._requests.get()[1].cancel()

    def _in_loop(self, call: Callable[[], Any]) -> Any:
        """Runs call() in the loop's thread, between two batches, and returns what it returns."""
        future: Future[Any] = Future()
        self._requests.put((call, future))
        if self._over:
            future.cancel()
        try:
            return future.result(_REQUEST_S)
        except CancelledError:
            raise OverloadError("the run has ended; nothing is changed") from None
        except TimeoutError:
            if future.cancel():
                raise OverloadError(
                    f"the appliance has not come to it within {_REQUEST_S:g} s; nothing is changed"
                ) from None
            return future.result()  # under way just now

    # Commands of the control socket, in its thread.

    def _status(self, request: Mapping[str, Any]) -> dict[str, Any]:
        snapshot = self.snapshot
        return {
            "version": 1,
            "file": None if self.config.path is None else str(self.config.path),
            "pid": os.getpid(),
            "age_s": round(time.monotonic() - snapshot.taken_s, 3),
            "reloads": self._reloads,
            **snapshot.as_dict(),
            "events": self.events[-_STATUS_EVENTS:],
        }

    def _reload(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Reads the file again and takes over its rules, groups and interfaces: all of it or nothing."""
        try:
            result = self._change()
        except TwinstampError as error:
            self.events.append(f"not reloaded: {error}")
            raise
        self.events.append(f"reloaded: {result['rules']} rules, {len(result['servers'])} servers")
        return result

    def _change(self) -> dict[str, Any]:
        old = self.config
        if old.path is None:
            raise ConfigError("this appliance was not started from a file: there is nothing to read again")
        new = load_appliance(old.path)
        check_reload(old, new)
        check_machine(new, secret_too=False)  # it is here, and after `user` it may not be read again
        self._lock()
        with ExitStack() as stack:
            classifier = compile_rules(new, secret=self._secret, backend="cpu", warn=self.events.append)
            stack.callback(classifier.close)
            outputs: dict[str, Output] = {}
            for name, output in new.outputs.items():
                # One that a reload took out before has been closed.
                if output.file is None and (output != old.outputs.get(name)):
                    outputs[name] = self._open_interface(output)
                    stack.callback(outputs[name].close)
            began = time.monotonic()
            replaced, unused, pause_ns = self._in_loop(lambda: self._swap(classifier, outputs))
            stack.pop_all()
        replaced.close()
        for closing in unused:
            closing.close()
        self.config = new
        self._reloads += 1
        self._tell_unused(new, classifier)
        return {
            "rules": len(classifier.rules),
            "groups": [group.name for group in new.groups],
            "servers": list(classifier.servers),
            "pause_ns": pause_ns,
            "waited_ns": round((time.monotonic() - began) * 1e9) - pause_ns,
        }

    def _swap(
        self, classifier: Classifier, outputs: Mapping[str, Output]
    ) -> tuple[Classifier, list[InterfaceOutput], int]:
        """In the loop's thread. The last is how long it took, ns."""
        began = time.monotonic_ns()
        old, unused = self.pipeline.swap(classifier, outputs)
        if self.live:
            self._check_servers()
        return old, unused, time.monotonic_ns() - began

    def reload_soon(self) -> None:
        """Asks for a reload; from a signal handler too. What comes of it is an event."""
        if self._control is not None:
            self._control.wake("reload")

    def _look_around(self) -> None:
        """Four times a second: the servers' links, and the counters (the kernel's have 32 bits)."""
        if self.live:
            self._check_servers()
        self._tell_of_stages()
        self._publish()

    def _check_servers(self) -> None:
        for name, alive in self.pipeline.check_servers():
            self.events.append(f"server {name} {'came back' if alive else 'went down'}")

    def _tell_of_stages(self) -> None:
        """Of each that has stopped, once."""
        for name, reader in self._stages.items():
            if reader.error is not None and name not in self._stopped:
                self._stopped.add(name)
                self.events.append(f"stage {name} has stopped: {reader.error}")

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

    def _publish(self) -> None:
        self.pipeline.settle()
        self.snapshot = take_snapshot(self.pipeline, self._sources, started_s=self._started_s)

    def report(self) -> dict[str, Any]:
        """The whole report (docs/appliance.md lists its keys)."""
        self._publish()
        reorder = self._merge.statistics()
        memory = {
            "rings": sum(source.memory_bytes for source in by_name(self._sources).values()),
            "reorder": reorder.memory_bytes,
            "fragments_at_most": self.config.fragments.hold_bytes,
            "hub": 0 if self.hub is None else self.hub.memory_bytes,
        }
        return make_report(self.snapshot, self.pipeline, reorder=reorder._asdict(), memory_bytes=memory)


def _drop_privileges(user: str) -> None:
    """Becomes `user` for good; sockets and files that are open stay open."""
    drop_privileges(user, "appliance.user")
