# SPDX-License-Identifier: Apache-2.0
"""What stands for a DPI server: an interface that frames are sent out of, or a capture file."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from twinstamp.appliance.config import OutputConfig
from twinstamp.appliance.hub import Hub, Reader
from twinstamp.appliance.stages import Clean
from twinstamp.dedup import TAG_COMMENTS
from twinstamp.errors import TwinstampError
from twinstamp.frames import FrameBatch
from twinstamp.io.files import create_capture
from twinstamp.io.live import LiveOutput, SendResult, Vlan, check_interface_name
from twinstamp.ledger import Account

_SIOCGIFFLAGS = 0x8913
_IFF_UP = 0x1
_IFF_UP_RUNNING = 0x1 | 0x40


class Sent(NamedTuple):
    """Copies of one call: frames and bytes as received that went out, and that did not."""

    frames: int
    bytes: int
    failed_frames: int
    failed_bytes: int


def link_flags(name: str) -> int:
    """IFF_* of an interface (netdevice(7)); 0 where there is none, or no descriptor left to ask with."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
    except OSError:
        return 0
    return int(struct.unpack_from("H", answer, 16)[0])


def link_is_up(name: str) -> bool:
    """Whether an interface is up and has a carrier (IFF_UP and IFF_RUNNING, netdevice(7))."""
    return link_flags(name) & _IFF_UP_RUNNING == _IFF_UP_RUNNING


class RetryBudget:
    """The time that the interfaces of one batch may wait for full queues, all of them together.

    Each takes half of what is left, the last one all of it: one that is always full leaves something to those
    behind it.
    """

    def __init__(self, total_ms: float = 2.0) -> None:
        self._total_ns = round(total_ms * 1e6)
        self._left_ns = self._total_ns
        self._turns = 1

    def refill(self) -> None:
        """For a new batch."""
        self._left_ns = self._total_ns

    def turns(self, outputs: int) -> None:
        """So many outputs will ask."""
        self._turns = outputs

    def take(self) -> int:
        """What the next one may wait, ns."""
        last, self._turns = self._turns <= 1, self._turns - 1
        return self._left_ns if last else self._left_ns // 2

    def spend(self, waited_ns: int) -> None:
        self._left_ns = max(self._left_ns - waited_ns, 0)


class InterfaceOutput:
    """A server behind an interface; duplicates that are let through get the VLAN tag `tag_vlan`.

    An interface that is missing or down at the start is a dead server. One that is made anew (a machine
    that restarts) has another number, to which no frame of the old socket goes: alive() then opens it again,
    and where that is not allowed any more (`user`) the server stays dead, and `trouble` says why.
    """

    memory_bytes = 0  # the kernel has the frames when send() returns

    def __init__(self, config: OutputConfig, tag_vlan: int | None, *, budget: RetryBudget) -> None:
        self._config = config
        self._tag_vlan = tag_vlan
        self._budget = budget
        self._output: LiveOutput | None = None
        self._tagging: LiveOutput | None = None
        self._index = 0
        self.trouble: str | None = None  # why it cannot be opened
        self.interface = config.interface
        self.causes = {"too_big": 0, "unsendable": 0, "errors": 0, "cut": 0}
        self.wire_bytes = 0
        if self.interface is not None:
            check_interface_name(self.interface)
            if not link_flags(self.interface) & _IFF_UP:
                return
        self._open()

    def _open(self) -> None:
        config = self._config
        index = 0 if self.interface is None else socket.if_nametoindex(self.interface)
        output = LiveOutput(self.interface, encap=config.encap)
        try:
            if self._tag_vlan is not None:
                tagged = replace(config.encap, add_vlan=Vlan(vid=self._tag_vlan))
                self._tagging = LiveOutput(self.interface, encap=tagged)
        except TwinstampError:
            output.close()
            raise
        self._output, self._index = output, index
        output.resolve()

    def send(
        self, batch: FrameBatch, index: npt.NDArray[np.uint32], tags: npt.NDArray[np.uint8] | None
    ) -> Sent:
        """Sends the frames at index, in order; tags u8[n]: type of a duplicate to tag, 0 = none."""
        total = int(batch.caplen[index].sum(dtype=np.int64))
        frames = size = 0
        if self._output is None:
            self.causes["errors"] += len(index)
            return Sent(0, 0, len(index), total)
        may_wait_ns = self._budget.take()
        for output, part in self._runs(index, tags):
            result = output.send(batch, part, retry_ns=may_wait_ns)
            may_wait_ns = max(may_wait_ns - result.waited_ns, 0)
            self._budget.spend(result.waited_ns)
            self._count(result)
            frames += result.sent
            size += result.bytes
        return Sent(frames, size, len(index) - frames, total - size)

    def _runs(
        self, index: npt.NDArray[np.uint32], tags: npt.NDArray[np.uint8] | None
    ) -> list[tuple[LiveOutput, npt.NDArray[np.uint32]]]:
        """Runs of frames with and without a tag: in turn, so that their order stays."""
        assert self._output is not None
        if tags is None or self._tagging is None:
            return [(self._output, index)]
        tagged = tags[index] != 0
        edges = np.flatnonzero(np.diff(tagged)) + 1
        return [
            (self._tagging if tagged[part[0]] else self._output, index[part])
            for part in np.split(np.arange(len(index)), edges)
            if len(part)
        ]

    def _count(self, result: SendResult) -> None:
        for cause in self.causes:
            self.causes[cause] += getattr(result, cause)
        self.wire_bytes += result.wire_bytes

    def alive(self) -> bool:
        if self.interface is None:
            return True
        if not link_is_up(self.interface):
            return False
        try:
            if self._output is None or socket.if_nametoindex(self.interface) != self._index:
                self.close()
                self._open()
        except (TwinstampError, OSError) as error:
            self._output = None
            self.trouble = f"interface {self.interface} is there again and cannot be opened: {error}"
            return False
        self.trouble = None
        return True

    def written(self) -> None:
        """Nothing to count again: send() knows what the kernel took."""

    def flush(self) -> None:
        """Nothing waits here: send() returns when the kernel has the frames."""

    def close(self) -> None:
        for output in (self._output, self._tagging):
            if output is not None:
                output.close()
        self._output = self._tagging = None


class FileOutput:
    """A capture file in a server's place; duplicates that are let through get a comment."""

    memory_bytes = 1 << 20  # the writer's buffer
    trouble = None

    def __init__(self, config: OutputConfig, like: Any, *, live: bool = False) -> None:
        assert config.file is not None
        os.makedirs(os.path.dirname(config.file) or ".", exist_ok=True)  # noqa: PTH103, PTH120
        self._writer = create_capture(config.file, like=like, live=live)
        self.causes: dict[str, int] = {}
        self.wire_bytes = 0

    def send(
        self, batch: FrameBatch, index: npt.NDArray[np.uint32], tags: npt.NDArray[np.uint8] | None
    ) -> Sent:
        """Writes the frames at index (ascending); tags u8[n]: type of a duplicate to tag, 0 = none."""
        comments = None if tags is None or not tags.any() else (tags, TAG_COMMENTS)
        before = self._writer.frames, self._writer.captured
        # A frame that two groups send here stands there twice: a run ends in front of its second copy.
        for part in np.split(index, np.flatnonzero(index[1:] <= index[:-1]) + 1):
            mask = np.zeros(len(batch), np.uint8)
            mask[part] = 1
            self._writer.write(batch, mask, comments=comments)
        frames, size = self._writer.frames - before[0], self._writer.captured - before[1]
        self.wire_bytes += size
        return Sent(frames, size, 0, 0)

    def written(self) -> tuple[int, int]:
        """Frames and captured bytes that the writer has taken; of a broken one those that are in the file."""
        return self._writer.frames, self._writer.captured

    def alive(self) -> bool:
        return True

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class FileSink:
    """What a reader of the hub does for a file server; tagging: duplicates get a comment."""

    def __init__(self, output: FileOutput, *, tagging: bool) -> None:
        self._output = output
        self._tagging = tagging

    def take(self, clean: Clean, index: npt.NDArray[np.uint32] | None) -> None:
        assert index is not None
        self._output.send(clean.batch, index, clean.kind if self._tagging else None)

    def tick(self, now_ns: int) -> None:
        self._output.flush()

    def finish(self) -> None:
        self._output.close()

    def counters(self) -> Mapping[str, int]:
        frames, size = self._output.written()
        return {"frames": frames, "bytes": size}


class QueuedOutput:
    """A file server of a live run: a reader of the hub, so that a slow disk harms this server alone."""

    trouble = None

    def __init__(self, output: FileOutput, reader: Reader) -> None:
        self._output = output
        self.reader = reader
        self.hub: Hub | None = None
        self.memory_bytes = output.memory_bytes

    @property
    def causes(self) -> dict[str, int]:
        """Of frames that are not in the file: missed and lost as in Reader; errors: the file's own."""
        _, failed = self.counts()
        refused = self.reader.missed.frames + self.reader.lost.frames
        return {
            "missed": self.reader.missed.frames,
            "lost": self.reader.lost.frames,
            "errors": max(failed.frames - refused, 0),
        }

    def counts(self) -> tuple[Account, Account]:
        """Sent and not sent, frames and bytes, since the start."""
        assert self.hub is not None
        counters, done, failed = self.hub.now(self.reader)
        sent = Account(int(counters.get("frames", 0)), int(counters.get("bytes", 0)))
        failed.add(done.frames - sent.frames, done.bytes - sent.bytes)
        return sent, failed

    def alive(self) -> bool:
        return True

    def written(self) -> None:
        """counts() has it."""

    def flush(self) -> None:
        """The reader does it each second."""

    def close(self) -> None:
        """Closes the file, but not that of a reader that is still at it and was left behind."""
        if self.reader.thread is None or not self.reader.thread.is_alive():
            self._output.close()
