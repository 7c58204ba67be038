# SPDX-License-Identifier: Apache-2.0
"""One batch through duplicates, rules, balance and outputs, with every frame in the ledger."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from twinstamp_kernels._cpu import Histogram

from twinstamp import balance
from twinstamp.appliance.events import Events
from twinstamp.appliance.hub import Hub, Reader
from twinstamp.appliance.outputs import FileOutput, InterfaceOutput, QueuedOutput, RetryBudget, Sent
from twinstamp.balance import Classifier
from twinstamp.dedup import Deduplicator
from twinstamp.errors import TwinstampError
from twinstamp.frames import FrameBatch
from twinstamp.ledger import Account, Ledger

Output = InterfaceOutput | FileOutput | QueuedOutput

_FLOW_BITS = 20  # bits of the map that a server's flows are counted with

_FATES = {
    balance.FATE_FORWARDED: "forwarded",
    balance.FATE_DROPPED: "rule_drops",
    balance.FATE_NO_SERVER: "no_live_server",
}


class FlowCount:
    """Distinct flows by linear counting (Whang et al., 1990): within 1 % up to five million flows.

    By the hash's lowest bits: its highest choose the server, so one server's flows share them.
    """

    def __init__(self) -> None:
        self._seen = np.zeros(1 << _FLOW_BITS, np.bool_)
        self._marks = 0

    def add(self, hashes: npt.NDArray[np.uint64]) -> None:
        cells = (hashes & np.uint64((1 << _FLOW_BITS) - 1)).astype(np.int64)
        cells = cells[~self._seen[cells]]
        if len(cells):
            self._seen[cells] = True
            cells.sort()
            self._marks += 1 + int(np.count_nonzero(cells[1:] != cells[:-1]))

    @property
    def memory_bytes(self) -> int:
        return self._seen.nbytes

    def estimate(self) -> int:
        size = len(self._seen)
        free = size - self._marks
        return round(-size * math.log(max(free, 1) / size))


class ServerState:
    """A server's output and what went there."""

    def __init__(self, name: str, output: Output) -> None:
        self.name = name
        self.output = output
        self.frames = 0
        self.bytes = 0
        self.failed = 0
        self.failed_bytes = 0  # of a queued output
        self.flows = FlowCount()
        self.alive = True
        self.error: TwinstampError | None = None  # its output is broken for good
        self.trouble: str | None = None  # what was told of an output that is dead

    @property
    def memory_bytes(self) -> int:
        """Of the map that counts its flows, and of its output's buffer."""
        return self.flows.memory_bytes + self.output.memory_bytes


class Pipeline:
    """judge → classify → send. Bytes are captured bytes, everywhere in the ledger.

    action: what becomes of duplicates ("drop", "tag" or "count"); clock_ns: () → now, in the timescale of
    the stamps, or None where added delay means nothing (files). events: what a person should know is
    appended here. hub: where the clean frames go beside the servers, and those of queued outputs. budget: of
    the interfaces' waits.

    An output that breaks takes its server out of the balance for good: what it was handed counts as send
    errors, its flows move, the other servers go on.
    """

    def __init__(
        self,
        *,
        deduplicator: Deduplicator | None,
        action: str,
        classifier: Classifier,
        outputs: Mapping[str, Output],
        clock_ns: Any = None,
        events: Events | None = None,
        hub: Hub | None = None,
        budget: RetryBudget | None = None,
    ) -> None:
        self.hub = hub
        self._budget = RetryBudget() if budget is None else budget
        self.ledger = Ledger()
        self.deduplicator = deduplicator
        self.classifier = classifier
        self.servers = [ServerState(name, outputs[name]) for name in classifier.servers]
        self.added_delay = Histogram()
        self._action = action
        self._clock_ns = clock_ns
        self.events = Events() if events is None else events
        self._frames = 0
        self._held_tags: dict[int, int] = {}
        self.rule_hits = np.zeros(len(classifier.rules) + 1, np.int64)  # [-1]: no rule matched
        self.retired: list[ServerState] = []  # that a reload took out
        self._counts_before: dict[str, int] = {}  # of classifiers that a reload took out

    def process(self, batch: FrameBatch) -> None:
        """Takes a batch through all stages; it may be released afterwards."""
        n = len(batch)
        if n == 0:
            return
        caplen = batch.caplen
        self.ledger.receive(n, int(caplen.sum(dtype=np.int64)))
        self._budget.refill()
        keep: npt.NDArray[np.uint8] | None = None
        tags: npt.NDArray[np.uint8] | None = None
        kind: npt.NDArray[np.uint8] | None = None
        if self.deduplicator is not None:
            verdicts = self.deduplicator.judge(batch)
            judged = np.frombuffer(verdicts.keep, np.uint8)
            if self._action == "drop":
                keep = judged
                dropped = int(n - np.count_nonzero(judged))
                if dropped:
                    size = int(caplen[judged == 0].sum(dtype=np.int64))
                    self.ledger.settle("duplicates_dropped", dropped, size)
            elif self._action == "tag" or (self.hub is not None and self.hub.wants_all):
                kind = np.where(judged == 0, np.frombuffer(verdicts.type, np.uint8), np.uint8(0))
                tags = kind if self._action == "tag" else None
        out = self.classifier.process(batch, keep, first=self._frames)
        if tags is not None and len(out.held):
            for i in out.held:
                if tags[i]:
                    self._held_tags[self._frames + i] = int(tags[i])
        self._frames += n
        picks = self._deliver(batch, out, tags)
        if self.hub is not None:
            rows = None
            if keep is not None and self.hub.wants_all:
                rows = np.flatnonzero(keep).astype(np.uint32)
            self.hub.push(batch, rows, kind=kind, picks=picks)
        self._take_released()
        self.ledger.check()

    def tick(self, now_ns: int) -> None:
        """Between batches: fragments that have waited long enough go on."""
        if self.classifier.held_now:
            self._budget.refill()
            self.classifier.release_due(now_ns)
            self._take_released()

    def swap(
        self, classifier: Classifier, outputs: Mapping[str, Output]
    ) -> tuple[Classifier, list[InterfaceOutput]]:
        """Takes another classifier from here on. What the old one holds is delivered.

        outputs: of servers that are new or have another output; the others keep theirs, with all counters. A
        server that is taken out keeps its counters in the report. Gives back the old classifier and the
        interfaces that nothing is sent to any more, for another thread to close: the kernel takes 20 ms and
        more to close a packet socket.
        """
        old = self.classifier
        self._budget.refill()
        old.flush()
        self._take_released()
        known = {server.name: server for server in (*self.servers, *self.retired)}
        servers, unused = [], []
        for name in classifier.servers:
            server = known.pop(name, None)
            if server is None:
                server = ServerState(name, outputs[name])
            elif name in outputs:
                outputs[name].causes.update(server.output.causes)
                if isinstance(server.output, InterfaceOutput):
                    unused.append(server.output)
                server.output = outputs[name]
                server.alive, server.trouble, server.error = True, None, None
            servers.append(server)
        for server in known.values():
            server.alive = False
            if isinstance(server.output, InterfaceOutput):
                unused.append(server.output)
        self.servers, self.retired = servers, list(known.values())
        classifier.not_understood = old.not_understood  # its counts go on
        for key, count in old.counts().items():
            if isinstance(count, int):
                self._counts_before[key] = self._counts_before.get(key, 0) + count
        self.rule_hits = np.zeros(len(classifier.rules) + 1, np.int64)
        self.classifier = classifier
        self.classifier.set_states({server.name: False for server in servers if not server.alive})
        return old, unused

    def counts(self) -> dict[str, int]:
        """The classifier's counts, with those before a reload."""
        now = {key: count for key, count in self.classifier.counts().items() if isinstance(count, int)}
        return {key: count + self._counts_before.get(key, 0) for key, count in now.items()}

    def check_servers(self) -> list[tuple[str, bool]]:
        """Looks after the servers' links; gives (name, alive) for each that changed. Only its flows move."""
        self.settle()
        changed = [(server, server.error is None and server.output.alive()) for server in self.servers]
        changed = [(server, alive) for server, alive in changed if alive != server.alive]
        if changed:
            self.classifier.set_states({server.name: alive for server, alive in changed})
            for server, alive in changed:
                server.alive = alive
        for server in self.servers:
            if server.output.trouble not in (None, server.trouble):
                self.events.append(f"server {server.name}: {server.output.trouble}")
            server.trouble = server.output.trouble
        return [(server.name, alive) for server, alive in changed]

    def finish(self) -> None:
        """The stream has ended: everything held is delivered, and nothing may be left in flight."""
        self.classifier.flush()
        self._take_released()
        self.flush()
        if self.hub is not None:
            self.hub.finish()
            self.settle()
            self.hub.check(ended=True)
        self.ledger.check(ended=True)

    def settle(self) -> None:
        """Takes over what the readers of the hub have done for the servers behind it."""
        for server in (*self.servers, *self.retired):
            if isinstance(server.output, QueuedOutput):
                sent, failed = server.output.counts()
                more = Account(sent.frames - server.frames, sent.bytes - server.bytes)
                worse = Account(failed.frames - server.failed, failed.bytes - server.failed_bytes)
                server.frames, server.bytes = sent.frames, sent.bytes
                server.failed, server.failed_bytes = failed.frames, failed.bytes
                self.ledger.copies_sent.add(more.frames, more.bytes)
                self.ledger.copies_failed.add(worse.frames, worse.bytes)
                waited = more.frames + worse.frames, more.bytes + worse.bytes
                self.ledger.copies_waiting.add(-waited[0], -waited[1])
                if server.error is None and server.output.reader.error is not None:
                    self._break(server, server.output.reader.error)

    def flush(self) -> None:
        """What stands in the outputs' buffers goes to their files."""
        for server in self.servers:
            if server.error is None:
                try:
                    server.output.flush()
                except TwinstampError as error:
                    self._break(server, error)

    def close(self) -> None:
        """Closes all outputs, whatever becomes of one of them."""
        if self.hub is not None:
            self.hub.finish()  # where finish() did not come so far
            self.settle()
        for server in (*self.servers, *self.retired):
            try:
                server.output.close()
            except TwinstampError as error:
                self._break(server, error)

    @property
    def broken(self) -> list[tuple[str, TwinstampError]]:
        """(name, error) of servers whose output broke."""
        return [(server.name, server.error) for server in (*self.servers, *self.retired) if server.error]

    def _break(self, server: ServerState, error: TwinstampError) -> None:
        if server.error is None:
            server.error = error
            self.events.append(f"server {server.name} is out of the balance: {error}")
        if server.alive:  # a retired one is not
            server.alive = False
            self.classifier.set_alive(server.name, False)
        # What was taken for sent, and is not there: it stood in a buffer.
        if isinstance(server.output, FileOutput):
            written = server.output.written()
            self._settle_copies(server, written[0] - server.frames, written[1] - server.bytes)

    def _settle_copies(self, server: ServerState, frames: int, size: int) -> None:
        """Of copies that counted as failed, or back to those where negative: so many were sent."""
        server.frames += frames
        server.bytes += size
        server.failed -= frames
        self.ledger.copies_sent.add(frames, size)
        self.ledger.copies_failed.add(-frames, -size)

    def _take_released(self) -> None:
        while (released := self.classifier.take_released()) is not None:
            tags = None
            if self._held_tags:
                tags = np.array([self._held_tags.pop(int(i), 0) for i in released.frame], np.uint8)
            picks = self._deliver(released.batch, released.verdicts, tags)
            if self.hub is not None:
                self.hub.push(released.batch, None, kind=tags, picks=picks, whole=False)

    def _deliver(
        self, batch: FrameBatch, out: balance.Verdicts, tags: npt.NDArray[np.uint8] | None
    ) -> list[tuple[Reader, npt.NDArray[np.uint32]]]:
        """Settles the frames and sends their copies; gives those for queued outputs, by reader."""
        fate = np.frombuffer(out.fate, np.uint8)
        caplen = batch.caplen
        for code, name in _FATES.items():
            chosen = fate == code
            count = int(np.count_nonzero(chosen))
            if count:
                self.ledger.settle(name, count, int(caplen[chosen].sum(dtype=np.int64)))
        rules = np.frombuffer(out.rule, np.int32) if len(out.rule) else np.empty(0, np.int32)
        judged = rules[(fate != balance.FATE_SKIPPED) & (fate != balance.FATE_HELD)]
        np.add.at(self.rule_hits, judged, 1)
        if tags is not None:
            tagged = (tags != 0) & (fate == balance.FATE_FORWARDED)
            count = int(np.count_nonzero(tagged))
            if count:
                self.ledger.tagged.add(count, int(caplen[tagged].sum(dtype=np.int64)))
        picks: list[tuple[Reader, npt.NDArray[np.uint32]]] = []
        if not len(out.copy_frame):
            return picks
        frames = np.frombuffer(out.copy_frame, np.uint32)
        numbers = np.frombuffer(out.copy_server, np.uint16)
        hashes = np.frombuffer(out.hash, np.uint64)
        # What the rules ask for; what went out is counted where it goes out.
        self.ledger.copies_attempted.add(len(frames), int(caplen[frames].sum(dtype=np.int64)))
        # Copies sorted by server, frames of one server in their order.
        order = np.argsort(numbers, kind="stable")
        edges = np.flatnonzero(np.diff(numbers[order])) + 1
        inline: list[tuple[ServerState, npt.NDArray[np.uint32]]] = []
        for part in np.split(order, edges):
            server = self.servers[int(numbers[part[0]])]
            index = frames[part]
            server.flows.add(hashes[index])
            if isinstance(server.output, QueuedOutput):
                self.ledger.copies_waiting.add(len(index), int(caplen[index].sum(dtype=np.int64)))
                picks.append((server.output.reader, index))
            else:
                inline.append((server, index))
        self._budget.turns(len(inline))
        for server, index in inline:
            self._send(server, batch, index, tags)
        if self._clock_ns is not None:
            self.added_delay.add(self._clock_ns() - batch.timestamp_ns[frames])
        return picks

    def _send(
        self,
        server: ServerState,
        batch: FrameBatch,
        index: npt.NDArray[np.uint32],
        tags: npt.NDArray[np.uint8] | None,
    ) -> None:
        broken = server.error  # earlier in this batch
        sent = Sent(0, 0, len(index), int(batch.caplen[index].sum(dtype=np.int64)))
        if broken is None:
            try:
                assert not isinstance(server.output, QueuedOutput)
                sent = server.output.send(batch, index, tags)
            except TwinstampError as error:
                broken = error
        server.frames += sent.frames
        server.bytes += sent.bytes
        server.failed += sent.failed_frames
        self.ledger.copies_sent.add(sent.frames, sent.bytes)
        self.ledger.copies_failed.add(sent.failed_frames, sent.failed_bytes)
        if broken is not None:
            self._break(server, broken)
