# SPDX-License-Identifier: Apache-2.0
"""Whole UBX frames, NMEA sentences and RTCM3 messages out of a byte stream that may hold anything.

UBX: B5 62, class, id, length (u16, little-endian), payload, 8-bit Fletcher checksum over class to payload
(u-blox F9 interface description UBX-22008968, §3.2 and §3.4). NMEA 0183: `$`, printable ASCII, `*`, two hex
digits of the exclusive or, line end: LF with or without CR. RTCM3: D3, six bits 0, length (10 bits), payload,
CRC-24Q over all before it (RTCM 10403.3, §4).

The firmware's parser (firmware/drivers/receiver.c) takes and refuses the same, byte by byte and without the
buffer; tests/receiver/test_agreement.py drives both with the same streams.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

MAX_PAYLOAD = 4096  # bytes of UBX; a longer length is noise. NAV-SAT with all its satellites has 3068.
MAX_SENTENCE = 4096  # characters with line end: NMEA allows 82, RTK receivers send 90, u-blox's PUBX,03 2000
_UBX_AROUND = 8
_RTCM_AROUND = 6

# Why something was refused; in words in docs/receiver.md. The last five come from what a message says.
REASONS = (
    "bad_checksum", "no_checksum", "cut_short", "too_long", "bad_length", "bad_value", "fraction",
    "time_base", "not_valid",
)  # fmt: skip
DAMAGE = ("bad_checksum", "cut_short", "bad_length", "bad_value")  # the others came as they were sent

_START = re.compile(rb"\$|\xb5(?:\x62|\Z)|\xd3(?:[\x00-\x03]|\Z)")
_ENDS_BODY = re.compile(rb"[^ -#%-~]")  # what is not printable, or `$`
_CHECKSUM = re.compile(rb"\*([0-9A-Fa-f]{2})\Z")
_ADDRESS = re.compile(rb"\$[A-Z0-9]{3,},")


class Frame(NamedTuple):
    """kind: "ubx", "nmea" or "rtcm". data: the whole of it, header to checksum, or `$` to LF."""

    kind: str
    data: bytes


@dataclass
class StreamCounts:
    """What went through: frames by kind, what was refused by its reason (REASONS), bytes of no frame."""

    ubx: int = 0
    nmea: int = 0
    rtcm: int = 0
    skipped_bytes: int = 0
    refused: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))

    @property
    def damaged(self) -> int:
        """Refused because it cannot be what was sent."""
        return sum(self.refused[reason] for reason in DAMAGE)


def fletcher8(data: bytes) -> bytes:
    """The two checksum bytes of UBX over ``data`` (class, id, length, payload)."""
    sums = np.cumsum(np.frombuffer(data, np.uint8), dtype=np.uint64)
    if not len(sums):
        return b"\0\0"
    return bytes((int(sums[-1]) & 0xFF, int(sums.sum()) & 0xFF))


def exclusive_or(data: bytes) -> int:
    """The checksum of NMEA over what stands between `$` and `*`."""
    return int(np.bitwise_xor.reduce(np.frombuffer(data, np.uint8))) if data else 0


@cache
def _crc24q_parts() -> npt.NDArray[np.uint32]:
    """[n, b]: what byte b adds to the CRC when n bytes follow it. A CRC is linear."""
    step = np.arange(256, dtype=np.uint32) << 16
    for _ in range(8):
        step = np.where(step & 0x800000, step << 1 ^ 0x1864CFB, step << 1)
    parts = np.empty((1023 + _RTCM_AROUND, 256), np.uint32)
    parts[0] = step
    for n in range(1, len(parts)):
        parts[n] = parts[n - 1] << 8 & 0xFFFFFF ^ step[parts[n - 1] >> 16]
    return parts


def crc24q(data: bytes) -> int:
    """CRC-24Q (RTCM 10403.3; polynomial 1864CFB) over up to 1029 bytes; 0 where it ends with its own."""
    parts = _crc24q_parts()
    raw = np.frombuffer(data, np.uint8)
    return int(np.bitwise_xor.reduce(parts[np.arange(len(raw) - 1, -1, -1), raw])) if data else 0


class StreamSplitter:
    """Cuts a stream into frames; holds no more than one frame of the largest size.

    A frame with a wrong checksum costs only its first byte: what follows is looked at anew, so a header that
    noise has made cannot swallow the true frame behind it; and what stands inside a sound frame is not looked
    at. ``give_up`` does the same for a frame that has not ended: call it when the line was silent for longer
    than any pause within a frame.

    A start counts as refused only when more than its first bytes look like a message: class and length of
    UBX, an address with its comma, a message number of RTCM. Other protocols' bytes are skipped bytes.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._looked = 1  # characters of the sentence in front that belong to its body
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
            self._refuse("cut_short" if self._likely() else None)
            yield from self._frames()

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._looked = 1
        self.counts.skipped_bytes += count

    def _refuse(self, reason: str | None) -> Frame:
        self._drop(1)
        if reason is not None:
            self.counts.refused[reason] += 1
        return Frame("", b"")

    def _take(self, kind: str, size: int) -> Frame:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._looked = 1
        return Frame(kind, data)

    def _frames(self) -> Iterator[Frame]:
        buffer = self._buffer
        parsers = {0x24: self._nmea, 0xB5: self._ubx, 0xD3: self._rtcm}
        while buffer:
            found = _START.search(buffer)
            start = len(buffer) if found is None else found.start()
            if start:
                self._drop(start)
            if not buffer:
                return
            frame = parsers[buffer[0]]()
            if frame is None:
                return
            if frame.data:
                yield frame

    def _likely(self) -> bool:
        """Whether what stands in front looks like a message."""
        buffer = self._buffer
        if buffer[0] == 0x24:
            return _ADDRESS.match(buffer) is not None
        if buffer[0] == 0xB5:
            return len(buffer) >= 3
        if len(buffer) < 5 or (buffer[1] << 8 | buffer[2]) < 2:
            return False
        number = buffer[3] << 4 | buffer[4] >> 4
        return 1000 < number < 1305 or number > 4000

    def _ubx(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) >= 3 and buffer[2] >= 0x80:
            return self._refuse(None)  # no such class; of B5 62 B5 62 the second is the start
        if len(buffer) < 6:
            return None
        length = int.from_bytes(buffer[4:6], "little")
        if length > MAX_PAYLOAD:
            return self._refuse("too_long")
        whole = length + _UBX_AROUND
        if len(buffer) < whole:
            return None
        if fletcher8(bytes(buffer[2 : whole - 2])) != buffer[whole - 2 : whole]:
            return self._refuse("bad_checksum")
        self.counts.ubx += 1
        return self._take("ubx", whole)

    def _rtcm(self) -> Frame | None:
        buffer = self._buffer
        if len(buffer) < 3:
            return None
        whole = (buffer[1] << 8 | buffer[2]) + _RTCM_AROUND
        if len(buffer) < whole:
            return None
        if crc24q(bytes(buffer[:whole])):
            return self._refuse("bad_checksum" if self._likely() else None)
        self.counts.rtcm += 1
        return self._take("rtcm", whole)

    def _nmea(self) -> Frame | None:
        buffer = self._buffer
        found = _ENDS_BODY.search(buffer, self._looked)
        end = len(buffer) if found is None else found.start()
        self._looked = end
        body = bytes(buffer[1:end]) if end < len(buffer) and buffer[end] in b"\r\n" else None
        # Some receivers send CR twice.
        while end < len(buffer) and buffer[end] == 0x0D:
            end += 1
        if end >= MAX_SENTENCE:
            return self._refuse("too_long" if self._likely() else None)
        if end == len(buffer):
            return None
        if body is None or buffer[end] != 0x0A:
            return self._refuse("cut_short" if self._likely() else None)
        checksum = _CHECKSUM.search(body)
        if checksum is None:
            return self._refuse("no_checksum" if self._likely() else None)
        if exclusive_or(body[:-3]) != int(checksum[1], 16):
            return self._refuse("bad_checksum")
        self.counts.nmea += 1
        return self._take("nmea", end + 1)
