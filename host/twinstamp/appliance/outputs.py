# SPDX-License-Identifier: Apache-2.0
"""What stands for a DPI server: an interface that frames are sent out of, or a capture file."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from twinstamp.appliance.config import OutputConfig
from twinstamp.dedup import TAG_COMMENTS
from twinstamp.errors import TwinstampError
from twinstamp.frames import FrameBatch
from twinstamp.io.files import create_capture
from twinstamp.io.live import LiveOutput, SendResult, Vlan, check_interface_name

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


class InterfaceOutput:
    """A server behind an interface; duplicates that are let through get the VLAN tag `tag_vlan`.

    An interface that is missing or down at the start is a dead server. One that is made anew (a machine
    that restarts) has another number, to which no frame of the old socket goes: alive() then opens it again,
    and where that is not allowed any more (`user`) the server stays dead, and `trouble` says why.
    """

    memory_bytes = 0  # the kernel has the frames when send() returns

    def __init__(self, config: OutputConfig, tag_vlan: int | None, *, retry_ms: float = 2.0) -> None:
        self._config = config
        self._tag_vlan = tag_vlan
        self._retry_ms = retry_ms
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
        output = LiveOutput(self.interface, encap=config.encap, retry_ms=self._retry_ms)
        try:
            if self._tag_vlan is not None:
                tagged = replace(config.encap, add_vlan=Vlan(vid=self._tag_vlan))
                self._tagging = LiveOutput(self.interface, encap=tagged, retry_ms=self._retry_ms)
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
        for output, part in self._runs(index, tags):
            result = output.send(batch, part)
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
