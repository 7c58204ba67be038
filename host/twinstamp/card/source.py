# SPDX-License-Identifier: Apache-2.0
"""The simulated card as a source of frames: a capture goes in at the wires, stamped batches come out."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp.card.opening import open_card
from twinstamp.card.play import LONGEST_GAP_NS, CapturePlayer, TestFrames, set_time_of
from twinstamp.card.sim import CYCLES_PER_S, SimulatedCard
from twinstamp.errors import ConfigError, InputError, LedgerError
from twinstamp.frames import FrameBatch
from twinstamp.io.files import open_capture
from twinstamp.units import format_ns

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from twinstamp.frames import Port
    from twinstamp.io.files import CaptureReader

_STEP_S = 4096 / CYCLES_PER_S  # card time between two looks at the clock on the wall
_DRAIN_S = 20e-6  # the longest frame at 1 Gbit/s is 72 us; what is left then is in the packer
_BLOCK_TIMEOUT_S = 200e-6
_BATCH_FRAMES = 1024
_BATCH_BYTES = 1 << 18


class CardSource:
    """A capture (or numbered test frames) played into a simulated card: `source = "card:sim"`.

    Serves Merge as LiveSource and the capture's source do: ``poll``, ``ports``, ``ended``. Stamps are UTC
    and begin near the capture's own (with test frames: at the host's time). The options are CapturePlayer's
    and open_card's; clocks_ppb: offset of the oscillator behind each port, in the order of the card's ports.

    When the capture has ended, ``statistics`` adds up what was put on the wires with what came out; a
    difference raises LedgerError from ``poll``.

    Errors: as open_card, CapturePlayer and open_capture. Damage in the capture ends it, told by ``damage``.
    """

    name = "card:sim"

    def __init__(
        self,
        capture: str | Path | None = None,
        *,
        test_frames: int = 0,
        ports: Sequence[int] = (0,),
        speed: float = 1.0,
        longest_gap_ns: int = LONGEST_GAP_NS,
        clocks_ppb: Sequence[float] = (),
        seed: int = 1,
        block_log2: int = 16,
        blocks_log2: int = 6,
    ) -> None:
        self.ended = False
        self.damage: str | None = None
        self._time_set = False
        self._blocks_log2 = blocks_log2
        self._frames = 0
        self._bytes = 0
        self._finished: dict[str, Any] | None = None
        if (capture is None) == (test_frames == 0):
            raise ConfigError("the simulated card needs a capture to play, or a number of test frames")
        self.reader: CaptureReader | None = None
        if capture is not None:
            self.reader = open_capture(str(capture), batch_frames=_BATCH_FRAMES, batch_bytes=_BATCH_BYTES)
        try:
            self.card = open_card(
                "sim",
                seed=seed,
                utc=True,
                timeout_s=_BLOCK_TIMEOUT_S,
                block_log2=block_log2,
                blocks_log2=blocks_log2,
            )
        except BaseException:
            if self.reader is not None:
                self.reader.close()
            raise
        assert isinstance(self.card.transport, SimulatedCard)
        self.simulated = self.card.transport
        try:
            if len(clocks_ppb) > len(self.card.ports):
                raise ConfigError(f"{len(clocks_ppb)} clocks for {len(self.card.ports)} ports")
            for port, ppb in enumerate(clocks_ppb):
                self.simulated.set_clock(f"rx{port}", ppb=ppb)
            self.used = tuple(dict.fromkeys(ports))
            self.player: CapturePlayer | TestFrames
            if self.reader is None:
                self.player = TestFrames(self.simulated, test_frames, ports=ports)
            else:
                self.player = CapturePlayer(
                    self.simulated, self.reader, ports=ports, speed=speed, longest_gap_ns=longest_gap_ns
                )
            self.card.start(ports=list(self.used))
        except BaseException:
            self.close()
            raise

    @property
    def ports(self) -> Sequence[Port]:
        return self.card.ports

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        """The next batch, or None after ``timeout_s`` of the clock on the wall, or at the end."""
        if self.ended:
            return None
        limit = time.monotonic() + timeout_s
        while True:
            supplied = self._feed()
            batch: FrameBatch | None = self.card.poll(_STEP_S)
            if batch is None and not supplied and not self.player.pending():
                batch = self._drain()
                if batch is None and not self._ring_full():
                    self._finish()
                    return None
            if batch is not None:
                if len(batch):
                    self._frames += len(batch)
                    self._bytes += int(batch.caplen.sum(dtype=np.int64))
                    return batch
                batch.release()
            if time.monotonic() >= limit:
                return None

    def _feed(self) -> bool:
        if self.player.ended:
            return False
        try:
            supplied = self.player.feed()
        except InputError as error:
            self.damage = str(error)
            self.player.ended = True
            supplied = False
        if not self._time_set:
            self._time_set = True
            set_time_of(self.card, self.player.first_ns)
        for port in self.used:
            self.simulated.truth(port)  # it would pile up
        return supplied

    def _drain(self) -> FrameBatch | None:
        self.simulated.run(round(_DRAIN_S * CYCLES_PER_S))
        self.card.flush()
        return self.card.poll(_STEP_S)

    def _ring_full(self) -> bool:
        """All blocks are with whoever holds our batches: there may be more in the card."""
        used = self.card.read("ring.producer") - self.card.read("ring.consumer")
        return used & 0xFFFFFFFF == 1 << self._blocks_log2

    def _finish(self) -> None:
        self.ended = True
        result = self.statistics()
        self._finished = result
        dropped = result["dropped"] + result["duplicates_dropped"]
        if result["played"]["frames"] != self._frames + dropped + result["refused"]:
            raise LedgerError(
                f"{result['played']['frames']} frames were put on the simulated wires, {self._frames} came "
                f"out, {result['dropped']} were dropped for want of room, {result['refused']} refused"
            )

    def stop(self) -> None:
        """Reads no more of the capture; what is on the wires still comes."""
        self.player.ended = True
        if self.reader is not None:
            self.reader.cancel()

    @property
    def dropped(self) -> int:
        """Frames that the card dropped, as of the last batch."""
        return sum(self.card.drops()) if self._finished is None else int(self._finished["dropped"])

    def statistics(self) -> dict[str, Any]:
        """played (see Played), received frames and bytes, dropped, refused, counters per port, clock."""
        if self._finished is not None:
            return self._finished
        statistics = self.card.statistics()
        ports = {port: statistics.ports[port] for port in self.used}
        clock = self.card.clock()
        return {
            "capture": None if self.reader is None else self.reader.name,
            "played": asdict(self.player.played),
            "received": {"frames": self._frames, "bytes": self._bytes},
            "dropped": sum(counters["dropped"] for counters in ports.values()),
            "duplicates_dropped": sum(counters["duplicates_dropped"] for counters in ports.values()),
            "refused": sum(counters["not_wanted"] for counters in ports.values()),
            "ports": {self.ports[port].name: counters for port, counters in ports.items()},
            "clock": {
                "locked": clock.locked,
                "bound_ns": clock.bound_ns,
                "epoch": clock.epoch,
                "utc_offset_s": clock.utc_offset_s,
            },
        }

    def remarks(self) -> list[str]:
        """What a person should know of how the capture was played."""
        played = self.player.played
        out = []
        left_out = {reason: n for reason, n in played.left_out.items() if n}
        if left_out:
            listed = ", ".join(f"{n} {reason.replace('_', ' ')}" for reason, n in left_out.items())
            out.append(
                f"{sum(left_out.values())} of {played.read} frames were not played into the card: {listed}"
            )
        if played.gaps_compressed:
            out.append(
                f"{played.gaps_compressed} long gaps were shortened, "
                f"by {format_ns(played.compressed_ns)} in all"
            )
        return out

    def close(self) -> None:
        if self._finished is None and not self.ended:
            self.ended = True
        if self.reader is not None:
            self.reader.close()
        self.card.close()

    def split(self) -> list[Any]:
        """What Merge takes: this source, or with several ports one source for each.

        Records of several ports stand in the ring as their frames ended, so Merge has to put them in order.
        """
        if len(self.used) == 1:
            return [self]
        queues: dict[int, deque[FrameBatch]] = {port: deque() for port in self.used}
        return [_PortSource(self, port, queues) for port in self.used]


class _Shared:
    """Releases a batch when the last of its parts is released."""

    def __init__(self, batch: FrameBatch, parts: int) -> None:
        self._batch = batch
        self._parts = parts

    def __call__(self) -> None:
        self._parts -= 1
        if self._parts == 0:
            self._batch.release()


class _PortSource:
    """One port's frames of a CardSource."""

    def __init__(self, source: CardSource, port: int, queues: dict[int, deque[FrameBatch]]) -> None:
        self.ports = (source.ports[port],)
        self._source = source
        self._port = port
        self._queues = queues

    @property
    def ended(self) -> bool:
        return self._source.ended and not self._queues[self._port]

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        own = self._queues[self._port]
        # The card is read on only when every port has been read empty: it delivers all ports together.
        if not own and not any(self._queues.values()):
            batch = self._source.poll(timeout_s)
            if batch is not None:
                self._share_out(batch)
        return own.popleft() if own else None

    def _share_out(self, batch: FrameBatch) -> None:
        masks = {port: batch.port == port for port in self._queues}
        present = {port: mask for port, mask in masks.items() if mask.any()}
        lease = _Shared(batch, len(present))
        for port, mask in present.items():
            columns = list(batch.select(mask).raw)
            columns[5] = np.zeros(int(np.count_nonzero(mask)), np.uint16)
            self._queues[port].append(
                FrameBatch(
                    columns,
                    ports=(self._source.ports[port],),
                    clock=batch.clock,
                    first=batch.first,
                    lease=lease,
                )
            )
