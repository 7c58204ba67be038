# SPDX-License-Identifier: Apache-2.0
"""The card over a serial line: boards without host memory (docs/uart.md).

The card writes its rings into on-chip memory; this transport keeps a copy of it here, fetched when the
driver asks how far the card is, and written back before the card is told of something new.
"""

from __future__ import annotations

import binascii
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from twinstamp.card.regmap import REGISTERS
from twinstamp.errors import ConfigError, DeadCardError, DeviceError

if TYPE_CHECKING:
    import numpy.typing as npt

BAUD = 3_000_000
MEMORY_BYTES = 1 << 16
MEMORY_ADDRESS = 0x1_0000_0000  # of the on-chip memory, as the card sees it
_READ_REGISTERS, _WRITE_REGISTERS, _READ_MEMORY, _WRITE_MEMORY = 1, 2, 3, 4
_MOST_WORDS = 32  # 256 bytes of memory: what is damaged is sent again whole
_TRIES = 6
_LONGEST_SLEEP_S = 1e-3
_SILENCE_S = 2e-3  # the bridge forgets a request that stops for 1 ms
_STATUS = {1: "it saw a wrong CRC", 2: "no such request or address", 3: "the bus answered with an error"}
_USED_AT = 16  # in a block's header: bytes used, u32 (docs/card.md)
_BLOCK_HEADER = 64


class Line(Protocol):
    """What this needs of pyserial's Serial. read returns fewer bytes where none came for the time-out."""

    def write(self, data: bytes, /) -> Any: ...
    def read(self, size: int, /) -> bytes: ...
    def reset_input_buffer(self) -> Any: ...
    def close(self) -> Any: ...


def crc16(data: bytes) -> int:
    """CRC-16/IBM-3740: polynomial 0x1021, start 0xFFFF."""
    return binascii.crc_hqx(data, 0xFFFF)


def open_line(url: str, baud: int = BAUD, timeout_s: float = 0.2) -> Line:
    """A serial device or any URL that pyserial knows. DeviceError where it cannot be opened."""
    try:
        import serial
    except ImportError as error:
        raise ConfigError("the uart card needs pyserial: install twinstamp with it") from error
    try:
        line: Line = serial.serial_for_url(url, baudrate=baud, timeout=timeout_s, exclusive=True)
    except (OSError, ValueError) as error:
        raise DeviceError(
            f"{url} cannot be opened at {baud} baud: {error}; plug it in, or give another device"
        ) from error
    return line


class UartTransport:
    """A card behind `line`, which the transport closes; ``open_card("uart:/dev/ttyUSB1")``.

    memory_bytes: of the board's on-chip memory; the driver lays out its rings in it. sleep: how time is
    passed, in s.

    Whatever was not answered, or answered with a wrong CRC, is asked again, six times in all; the card does
    a write once however often it is asked.

    Errors: DeadCardError where nobody answers; DeviceError where the card refuses.
    """

    def __init__(
        self,
        line: Line,
        name: str = "uart",
        *,
        memory_bytes: int = MEMORY_BYTES,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.name = name
        self.memory_bytes = memory_bytes
        self.repeated = 0
        self._line = line
        self._sleep = sleep
        self._tag = 0
        self._memory = np.zeros(memory_bytes, np.uint8)
        self._ring_base = self._block_log2 = self._count_log2 = 0
        self._fetched = 0
        self._tx_base: dict[int, int] = {}
        self._tx_words: dict[int, int] = {}
        self._tx_sent: dict[int, int] = {}
        self._written: dict[int, int] = {}  # registers as they were last written
        ports = range(sum(name.endswith(".tx_base") for name in REGISTERS))
        self._tx = {REGISTERS[f"port[{port}].tx_producer"].offset: port for port in ports}
        self._tx_control = {REGISTERS[f"port[{port}].tx_control"].offset: port for port in ports}
        self._tx_bases = {REGISTERS[f"port[{port}].tx_base"].offset: port for port in ports}

    # The protocol

    def _ask(self, op: int, address: int, words: int, payload: bytes = b"") -> bytes:
        """One request; the bytes that it asks for."""
        self._tag = (self._tag + 1) & 0xFF
        request = struct.pack("<BBBBI", 0xA5, op, self._tag, words - 1, address) + payload
        request += struct.pack("<H", crc16(request))
        size = (
            0
            if payload or op in (_WRITE_REGISTERS, _WRITE_MEMORY)
            else words * (8 if op == _READ_MEMORY else 4)
        )
        wrong = "nobody answers"
        for attempt in range(_TRIES):
            if attempt:
                self.repeated += 1
                time.sleep(_SILENCE_S)
                self._line.reset_input_buffer()
            try:
                self._line.write(request)
                head = self._line.read(5)
                if len(head) < 5:
                    continue
                answer, echo, tag, status, last = head
                if (answer, echo, tag, last) != (0x5A, op, self._tag, words - 1):
                    wrong = f"an answer to nothing that was asked ({head.hex()})"
                    continue
                rest = self._line.read((size if status == 0 else 0) + 2)
            except OSError as error:
                raise DeadCardError(f"card {self.name}: the serial line failed: {error}") from error
            if len(rest) < (size if status == 0 else 0) + 2:
                wrong = "the answer breaks off"
                continue
            if crc16(head + rest[:-2]) != int.from_bytes(rest[-2:], "little"):
                wrong = "answers arrive damaged"
                continue
            if status == 0:
                return rest[:-2]
            wrong = _STATUS.get(status, f"status {status}")
            if status != 1:
                raise DeviceError(f"card {self.name}: address 0x{address:X} refused: {wrong}")
        raise DeadCardError(
            f"card {self.name}: {wrong}, asked {_TRIES} times; check line and baud rate, reset the card"
        )

    def _read_memory(self, start: int, end: int) -> None:
        """Bytes start to end (widened to whole words) of the card's memory into ours."""
        at = start & ~7
        while at < end:
            words = min(_MOST_WORDS, (end - at + 7) // 8)
            data = self._ask(_READ_MEMORY, at, words)
            self._memory[at : at + 8 * words] = np.frombuffer(data, np.uint8)
            at += 8 * words

    def _write_memory(self, start: int, end: int) -> None:
        at = start
        while at < end:
            words = min(_MOST_WORDS, (end - at) // 8)
            self._ask(_WRITE_MEMORY, at, words, self._memory[at : at + 8 * words].tobytes())
            at += 8 * words

    # Transport

    def read32(self, address: int) -> int:
        value = int.from_bytes(self._ask(_READ_REGISTERS, address, 1), "little")
        if address == REGISTERS["ring.producer"].offset:
            self._fetch_blocks(value)
        return value

    def write32(self, address: int, value: int) -> None:
        port = self._tx.get(address)
        if port is not None:
            self._send_records(port, value)
        self._ask(_WRITE_REGISTERS, address, 1, struct.pack("<I", value))
        self._written[address] = value
        self._note(address, value)

    def _note(self, address: int, value: int) -> None:
        """Where the rings are."""
        shape = REGISTERS["ring.shape"]
        if address == shape.offset:
            fields = shape.fields
            self._block_log2 = value >> fields["size_log2"].low & (1 << fields["size_log2"].width) - 1
            self._count_log2 = value >> fields["count_log2"].low & (1 << fields["count_log2"].width) - 1
        elif address == REGISTERS["ring.base"].offset:
            self._ring_base = value - MEMORY_ADDRESS & 0xFFFFFFFF
        elif address == REGISTERS["ring.control"].offset and value & 1:
            self._fetched = 0
        elif address in self._tx_bases:
            self._tx_base[self._tx_bases[address]] = value - MEMORY_ADDRESS & 0xFFFFFFFF
        elif address in self._tx_control:
            place = REGISTERS["port[0].tx_control"].fields["size_log2"]
            port = self._tx_control[address]
            self._tx_words[port] = 1 << (value >> place.low & (1 << place.width) - 1)
            self._tx_sent[port] = 0

    def _fetch_blocks(self, producer: int) -> None:
        """What the card handed over since the last look: of each block its header, then what it says."""
        while self._fetched != producer:
            at = self._ring_base + ((self._fetched & (1 << self._count_log2) - 1) << self._block_log2)
            if at + (1 << self._block_log2) > self.memory_bytes:
                raise DeviceError(f"card {self.name}: its ring lies outside its memory")
            self._read_memory(at, at + _BLOCK_HEADER)
            used = int(self._memory[at + _USED_AT : at + _USED_AT + 4].view("<u4")[0])
            self._read_memory(at + _BLOCK_HEADER, at + min(used, 1 << self._block_log2))
            self._fetched = self._fetched + 1 & 0xFFFFFFFF

    def _send_records(self, port: int, producer: int) -> None:
        """Words of the port's transmit ring that the card has not seen."""
        words, base = self._tx_words.get(port, 0), self._tx_base.get(port, 0)
        sent = self._tx_sent.get(port, 0)
        while words and sent != producer:
            first = sent % words
            count = min(producer - sent & 0xFFFFFFFF, words - first)
            self._write_memory(base + 8 * first, base + 8 * (first + count))
            sent = sent + count & 0xFFFFFFFF
        self._tx_sent[port] = producer

    def map_memory(self, size: int) -> tuple[npt.NDArray[np.uint8], int]:
        if size > self.memory_bytes:
            raise ConfigError(
                f"card {self.name} has {self.memory_bytes >> 10} KiB of memory, its rings would take "
                f"{size >> 10} KiB: use fewer or smaller blocks (block_log2=14, blocks_log2=1)"
            )
        return self._memory[:size], MEMORY_ADDRESS

    def wait(self, seconds: float) -> float:
        slept = min(seconds, _LONGEST_SLEEP_S)
        self._sleep(slept)
        return slept

    def close(self) -> None:
        self._line.close()
