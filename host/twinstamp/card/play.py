# SPDX-License-Identifier: Apache-2.0
"""A capture on the simulated card's wires, and what of it no MAC could carry."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from twinstamp.card.sim import NO_ERROR, PORTS, WIRE_ADD_FCS, WIRE_ITEM, Frames, frames
from twinstamp.errors import ConfigError
from twinstamp.frames import LINKTYPE_ETHERNET

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from twinstamp.card.card import Card
    from twinstamp.card.sim import SimulatedCard
    from twinstamp.frames import FrameBatch
    from twinstamp.io.files import CaptureReader

SHORTEST = 60  # bytes without FCS
LONGEST = 9014
LONGEST_GAP_NS = 10_000
_LISTED = 1000  # frames left out that are named one by one
_AHEAD = 256  # frames that wait on the wires before more are read
_LEAD_FS = 10_000_000_000  # between handing frames over and the first of them
_REASONS = ("not_ethernet", "cut", "short", "long")


@dataclass
class Played:
    """read: frames of the capture. frames, bytes: put on the wires. left_out: frames by reason
    (not_ethernet: another link type; cut: captured in part; short, long: not of 60 to 9014 bytes).
    listed: (number from 1, bytes on the wire, reason) of the first of them. gaps_compressed: gaps that
    were shortened to the longest allowed, compressed_ns: by how much in all.
    """

    read: int = 0
    frames: int = 0
    bytes: int = 0
    left_out: dict[str, int] = field(default_factory=lambda: dict.fromkeys(_REASONS, 0))
    listed: list[tuple[int, int, str]] = field(default_factory=list)
    gaps_compressed: int = 0
    compressed_ns: int = 0


class CapturePlayer:
    """Puts the frames of a capture on the wires into a simulated card, with their own spacing.

    ports: the capture's interface k goes into port ports[k mod their number]. speed: gaps are divided by it.
    longest_gap_ns: longer gaps between starts of frames are shortened to it: simulating an idle second
    takes minutes. Frames that would overlap follow one another.

    Errors: ConfigError for impossible options; InputError for a damaged capture.
    """

    def __init__(
        self,
        simulated: SimulatedCard,
        reader: CaptureReader,
        *,
        ports: Sequence[int] = (0,),
        speed: float = 1.0,
        longest_gap_ns: int = LONGEST_GAP_NS,
    ) -> None:
        if not ports or any(not 0 <= port < PORTS for port in ports):
            raise ConfigError(f"ports are {list(ports)}: give some of 0 to {PORTS - 1}")
        if not 0.001 <= speed <= 1e6:
            raise ConfigError(f"a speed of {speed}: give 0.001 to 1,000,000")
        if not 0 <= longest_gap_ns <= 10**9:
            raise ConfigError(f"a longest gap of {longest_gap_ns} ns: give at most a second")
        self.reader = reader
        self.played = Played()
        self.ended = False
        self.first_ns: int | None = None  # time of the first frame played
        self._simulated = simulated
        self._ports = np.array(ports, dtype=np.intp)
        self._speed = speed
        self._longest_gap_ns = longest_gap_ns
        self._last_ns: int | None = None
        self._at_fs = 0

    def feed(self) -> bool:
        """Keeps the wires supplied; False once the whole capture has been handed over.

        Reads on only while few frames wait, so that memory does not grow with the capture.
        """
        simulated = self._simulated
        while not self.ended and sum(simulated.pending(int(p)) for p in set(self._ports)) < _AHEAD:
            batch = self.reader.read()
            if batch is None:
                self.ended = True
                break
            with batch:
                self._put(batch)
        return not self.ended

    def pending(self) -> int:
        """Frames that are still to go on the wires."""
        return sum(self._simulated.pending(int(port)) for port in set(self._ports))

    def _put(self, batch: FrameBatch) -> None:
        n = len(batch)
        if n == 0:
            return
        played = self.played
        played.read += n
        caplen, length = batch.caplen.astype(np.int64), batch.length.astype(np.int64)
        reason = np.full(n, -1)
        for code, wrong in enumerate(
            (
                batch.linktypes[batch.port] != LINKTYPE_ETHERNET,
                caplen < length,
                caplen < SHORTEST,
                caplen > LONGEST,
            )
        ):
            reason[wrong & (reason < 0)] = code
        left_out = np.flatnonzero(reason >= 0)
        for code, count in enumerate(np.bincount(reason[left_out], minlength=len(_REASONS)).tolist()):
            played.left_out[_REASONS[code]] += count
        for i in left_out[: _LISTED - len(played.listed)].tolist():
            played.listed.append((batch.first + i + 1, int(length[i]), _REASONS[reason[i]]))
        good = np.flatnonzero(reason < 0)
        if not len(good):
            return
        at_fs = self._schedule(batch.timestamp_ns[good])
        items = np.zeros(len(good), dtype=WIRE_ITEM)
        items["offset"] = batch.offset[good]
        items["length"] = caplen[good]
        items["gap"] = 12
        items["not_before_fs"] = at_fs
        items["preamble"] = 7
        items["flags"] = WIRE_ADD_FCS
        items["error_at"] = NO_ERROR
        port = self._ports[batch.port[good] % len(self._ports)]
        for number in np.unique(port):
            self._simulated.send(int(number), Frames(items[port == number], batch.data))
        played.frames += len(good)
        played.bytes += int(caplen[good].sum())

    def _schedule(self, times_ns: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """When each frame may start, fs of simulated time."""
        if self._last_ns is None:
            self.first_ns = self._last_ns = int(times_ns[0])
        gaps = np.diff(times_ns, prepend=self._last_ns)
        self._last_ns = int(times_ns[-1])
        gaps = np.maximum((np.maximum(gaps, 0) / self._speed).astype(np.int64), 0)
        long = gaps > self._longest_gap_ns
        self.played.gaps_compressed += int(np.count_nonzero(long))
        self.played.compressed_ns += int((gaps[long] - self._longest_gap_ns).sum())
        gaps[long] = self._longest_gap_ns
        start = max(self._at_fs, self._simulated.now_fs + _LEAD_FS)
        at = start + np.cumsum(gaps) * 1_000_000
        self._at_fs = int(at[-1])
        return at


class TestFrames:
    """``count`` frames on the wires into each of ``ports``, numbered, of 60 to 1514 bytes, back to back.

    EtherType 0x88B5 (IEEE 802 local experimental); then the port (1 byte) and a number (8 bytes, big-endian).
    """

    __test__ = False  # not pytest's

    def __init__(self, simulated: SimulatedCard, count: int, *, ports: Sequence[int] = (0,)) -> None:
        if not 1 <= count <= 10_000_000:
            raise ConfigError(f"{count} test frames: give 1 to 10,000,000")
        self.played = Played()
        self.ended = False
        self.first_ns: int | None = None
        self._simulated = simulated
        self._ports = tuple(dict.fromkeys(ports))
        self._left = count
        self._number = 0

    def feed(self) -> bool:
        while not self.ended and self.pending() < _AHEAD:
            n = min(self._left, 512)
            numbers = range(self._number, self._number + n)
            for port in self._ports:
                contents = [self.content(port, number) for number in numbers]
                what = frames(contents)
                if self._number == 0:
                    what.items["not_before_fs"][0] = self._simulated.now_fs + _LEAD_FS
                self._simulated.send(port, what)
                self.played.frames += n
                self.played.bytes += sum(map(len, contents))
            self._number += n
            self._left -= n
            self.ended = self._left == 0
        self.played.read = self.played.frames
        return not self.ended

    def pending(self) -> int:
        return sum(self._simulated.pending(port) for port in self._ports)

    @staticmethod
    def content(port: int, number: int) -> bytes:
        """Frame ``number`` of ``port``, without FCS."""
        head = bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, port, 0x88, 0xB5, port]) + number.to_bytes(8, "big")
        size = (60, 124, 252, 508, 1020, 1514)[number % 6]
        return head + bytes(size - len(head))


def set_time_of(card: Card, first_ns: int | None) -> None:
    """Card time becomes ``first_ns`` (UTC; the host's time where None or before 1970), a new epoch."""
    utc_ns = first_ns if first_ns is not None and first_ns > 0 else time.time_ns()
    card.load_time_q32((card.utc_offset().tai_ns(utc_ns) << 32) // 10**9)
