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
from twinstamp.frames import FrameBatch
from twinstamp.io.files import create_capture
from twinstamp.io.live import LiveOutput, SendResult, Vlan

_SIOCGIFFLAGS = 0x8913
_IFF_UP_RUNNING = 0x1 | 0x40


class Sent(NamedTuple):
    """Copies of one call: frames and bytes as received that went out, and that did not."""

    frames: int
    bytes: int
    failed_frames: int
    failed_bytes: int


def link_is_up(name: str) -> bool:
    """Whether an interface is up and has a carrier (IFF_UP and IFF_RUNNING, netdevice(7))."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, _SIOCGIFFLAGS, struct.pack("16s24x", name.encode()))
        except OSError:
            return False
    return int(struct.unpack_from("H", answer, 16)[0]) & _IFF_UP_RUNNING == _IFF_UP_RUNNING


class InterfaceOutput:
    """A server behind an interface; duplicates that are let through get the VLAN tag `tag_vlan`."""

    def __init__(self, config: OutputConfig, tag_vlan: int | None) -> None:
        self._output = LiveOutput(config.interface, encap=config.encap)
        self._tagging: LiveOutput | None = None
        if tag_vlan is not None:
            tagged = replace(config.encap, add_vlan=Vlan(vid=tag_vlan))
            self._tagging = LiveOutput(config.interface, encap=tagged)
        self._output.resolve()
        self.interface = config.interface
        self.causes = {"too_big": 0, "unsendable": 0, "errors": 0, "cut": 0}
        self.wire_bytes = 0

    def send(
        self, batch: FrameBatch, index: npt.NDArray[np.uint32], tags: npt.NDArray[np.uint8] | None
    ) -> Sent:
        """Sends the frames at index, in order; tags u8[n]: type of a duplicate to tag, 0 = none."""
        total = int(batch.caplen[index].sum(dtype=np.int64))
        frames = size = 0
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
        return self.interface is None or link_is_up(self.interface)

    def flush(self) -> None:
        """Nothing waits here: send() returns when the kernel has the frames."""

    def close(self) -> None:
        self._output.close()
        if self._tagging is not None:
            self._tagging.close()


class FileOutput:
    """A capture file in a server's place; duplicates that are let through get a comment."""

    def __init__(self, config: OutputConfig, like: Any) -> None:
        assert config.file is not None
        os.makedirs(os.path.dirname(config.file) or ".", exist_ok=True)  # noqa: PTH103, PTH120
        self._writer = create_capture(config.file, like=like)
        self.causes: dict[str, int] = {}
        self.wire_bytes = 0

    def send(
        self, batch: FrameBatch, index: npt.NDArray[np.uint32], tags: npt.NDArray[np.uint8] | None
    ) -> Sent:
        """Writes the frames at index (ascending); tags u8[n]: type of a duplicate to tag, 0 = none."""
        mask = np.zeros(len(batch), np.uint8)
        mask[index] = 1
        comments = None if tags is None or not tags.any() else (tags, TAG_COMMENTS)
        self._writer.write(batch, mask, comments=comments)
        size = int(batch.caplen[index].sum(dtype=np.int64))
        self.wire_bytes += size
        return Sent(len(index), size, 0, 0)

    def alive(self) -> bool:
        return True

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
