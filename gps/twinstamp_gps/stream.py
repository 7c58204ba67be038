# SPDX-License-Identifier: Apache-2.0
"""Whole UBX frames and NMEA sentences out of a byte stream that may hold anything.

UBX: B5 62, class, id, length (u16, little-endian), payload, 8-bit Fletcher checksum over class to payload
(u-blox F9 interface description UBX-22008968, §3.2 and §3.4). NMEA 0183: `$`, printable ASCII, `*`, two hex
digits of the exclusive or, CR LF.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PAYLOAD = 4096  # bytes; a longer length is noise. NAV-SAT with all its satellites has 3068.
MAX_SENTENCE = 128  # characters with CR LF; NMEA allows 82, u-blox's extended mode more
_UBX_AROUND = 8
_SYNC = b"\xb5\x62"


class Frame(NamedTuple):
    """kind: "ubx" or "nmea". data: the whole of it, header to checksum, or `$` to CR LF."""

    kind: str
    data: bytes


@dataclass
class StreamCounts:
    """What went through: frames by kind, damaged ones (checksum, length, characters), bytes of neither."""

    ubx: int = 0
    nmea: int = 0
    damaged: int = 0
    skipped_bytes: int = 0


def fletcher8(data: bytes) -> bytes:
    """The two checksum bytes of UBX over ``data`` (class, id, length, payload)."""
    sums = np.cumsum(np.frombuffer(data, np.uint8), dtype=np.uint64)
    if not len(sums):
        return b"\0\0"
    return bytes((int(sums[-1]) & 0xFF, int(sums.sum()) & 0xFF))


def exclusive_or(data: bytes) -> int:
    """The checksum of NMEA over what stands between `$` and `*`."""
    return int(np.bitwise_xor.reduce(np.frombuffer(data, np.uint8))) if data else 0


class StreamSplitter:
    """Cuts a stream into frames; holds no more than one frame of the largest size.

    A frame with a wrong checksum costs only its first byte: what follows is looked at anew, so a header that
    noise has made cannot swallow the true frame behind it. ``give_up`` does the same for a frame that has
    not ended: call it when the line was silent for longer than any pause within a frame.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self.counts = StreamCounts()

    @property
    def pending(self) -> int:
        """Bytes held that are not yet a frame; at most MAX_PAYLOAD + 8."""
        return len(self._buffer)

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Yields the frames that ``data`` completes. Read it to its end before feeding more."""
        # In pieces, so that a large read does not make the buffer large.
        for start in range(0, len(data), 1024):
            self._buffer += data[start : start + 1024]
            yield from self._frames()

    def give_up(self) -> Iterator[Frame]:
        """Takes the unfinished frame for noise and yields the frames behind its first byte."""
        while self._buffer:
            self._drop(1, damaged=True)
            yield from self._frames()

    def _drop(self, count: int, *, damaged: bool = False) -> None:
        del self._buffer[:count]
        self.counts.skipped_bytes += count
        self.counts.damaged += damaged

    def _frames(self) -> Iterator[Frame]:
        buffer = self._buffer
        while buffer:
            start = self._start()
            if start:
                self._drop(start)
            if not buffer:
                return
            frame = self._nmea() if buffer[0] == 0x24 else self._ubx()
            if frame is None:
                return
            if frame.data:
                yield frame

    def _start(self) -> int:
        """Where the next frame may begin."""
        at = 0
        buffer = self._buffer
        while at < len(buffer):
            byte = buffer[at]
            if byte == 0x24 or (byte == 0xB5 and (at + 1 == len(buffer) or buffer[at + 1] == 0x62)):
                return at
            places = [
                place for place in (buffer.find(b"$", at + 1), buffer.find(b"\xb5", at + 1)) if place > 0
            ]
            if not places:
                return len(buffer)
            at = min(places)
        return at

    def _bad(self) -> Frame:
        self._drop(1, damaged=True)
        return Frame("", b"")

    def _ubx(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 6:
            return None
        length = int.from_bytes(buffer[4:6], "little")
        if length > MAX_PAYLOAD:
            return self._bad()
        whole = length + _UBX_AROUND
        if len(buffer) < whole:
            return None
        data = bytes(buffer[:whole])
        if fletcher8(data[2:-2]) != data[-2:]:
            return self._bad()
        del buffer[:whole]
        self.counts.ubx += 1
        return Frame("ubx", data)

    def _nmea(self) -> Frame | None:
        buffer = self._buffer
        end = buffer.find(b"\n", 0, MAX_SENTENCE)
        if end < 0:
            # A second start, or a byte that no sentence has, ends it before its line does.
            body = buffer[1:MAX_SENTENCE]
            if len(buffer) >= MAX_SENTENCE or any(not 0x20 <= c <= 0x7E and c != 0x0D for c in body):
                return self._bad()
            return None
        data = bytes(buffer[: end + 1])
        inside = data[1:-5]
        if (
            data[-2:] != b"\r\n"
            or data[-5:-4] != b"*"
            or any(not 0x20 <= c <= 0x7E or c == 0x24 for c in inside)
        ):
            return self._bad()
        try:
            expected = int(data[-4:-2], 16)
        except ValueError:
            return self._bad()
        if not data[-4:-2].isalnum() or exclusive_or(inside) != expected:
            return self._bad()
        del buffer[: end + 1]
        self.counts.nmea += 1
        return Frame("nmea", data)
