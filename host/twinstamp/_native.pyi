# SPDX-License-Identifier: Apache-2.0
# Made by tools/stubs.py from twinstamp._native; its RESULTS have the types of what comes back.
# An array may be anything with the buffer protocol. NumPy's stubs name that protocol for Python 3.12 only, so
# NumPy's own arrays stand beside it, with the element type that is asked for.
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

_UInt8s = Buffer | npt.NDArray[np.uint8]
_UInt16s = Buffer | npt.NDArray[np.uint16]
_UInt32s = Buffer | npt.NDArray[np.uint32]
_UInt64s = Buffer | npt.NDArray[np.uint64]
_Int32s = Buffer | npt.NDArray[np.int32]
_Int64s = Buffer | npt.NDArray[np.int64]

class CardLease:
    def release(self) -> None: ...

class CardRing:
    def __init__(self, memory: _UInt8s, size_log2: int, count_log2: int) -> None: ...
    def read(
        self, producer: int, max_frames: int, utc: bool, constants: Sequence[int]
    ) -> tuple[tuple[memoryview, ...], CardLease, int, bool, int, int, int] | None: ...
    def departures(self) -> memoryview: ...
    def train_departures(self, port: int, slot: int) -> bytes: ...
    @property
    def consumer(self) -> int: ...
    @property
    def next(self) -> int: ...
    @property
    def drops(self) -> tuple[int, int, int, int]: ...

def record_write(memory: _UInt64s, data: bytes) -> None: ...
def record_read(memory: _UInt64s) -> bytes | None: ...

class StampedSender:
    def __init__(self, interface: str, *, hardware: bool, txtime_clock: int) -> None: ...
    def send(
        self,
        data: _UInt8s,
        offset: _UInt64s,
        caplen: _UInt32s,
        launch_ns: _Int64s,
        stamp_at: _UInt32s,
        checksum_at: _UInt32s,
        *,
        ptp: bool,
        stamp_offset_ns: int,
        lead_ns: int,
        spin_ns: int,
        before_ns: _Int64s,
        error: _Int32s,
    ) -> int: ...
    def departures(self, timeout_s: float) -> tuple[Any, Any, Any]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...

def tap_write(
    fd: int, data: _UInt8s, offset: _UInt64s, caplen: _UInt32s, port: _UInt16s, which_port: int, trailer: bool
) -> tuple[int, int]: ...
def tap_read(
    fd: int, data: _UInt8s, offset: _UInt64s, length: _UInt32s, shortest: int, longest: int
) -> tuple[int, int]: ...
def first_bad(
    data_bytes: int,
    offset: _UInt64s,
    length: _UInt32s,
    whole: _UInt32s | None,
    first: int,
    shortest: int,
    longest: int,
) -> int: ...

class TransmitRing:
    def __init__(self, memory: _UInt8s) -> None: ...
    def put(
        self,
        data: _UInt8s,
        offset: _UInt64s,
        length: _UInt32s,
        launch_q32: _UInt64s | None,
        cookie: _UInt64s | None,
        flags: int,
        first: int,
        consumer: int,
    ) -> int: ...
    @property
    def producer(self) -> int: ...

class Lease:
    def release(self) -> None: ...

class CaptureReader:
    def __init__(
        self, fd: int, readinto: object | None, name: str, head: bytes, batch_frames: int, batch_bytes: int
    ) -> None: ...
    def read(
        self,
    ) -> tuple[tuple[memoryview, ...], Lease, int, tuple[memoryview, memoryview] | None, bool] | None: ...
    def cancel(self) -> None: ...
    def interfaces(self, arg: int, /) -> list[tuple[bytes, int, int, bool, int]]: ...
    @property
    def format(self) -> str: ...
    @property
    def frames(self) -> int: ...
    @property
    def captured(self) -> int: ...
    @property
    def bytes_read(self) -> int: ...
    @property
    def truncated(self) -> str | None: ...
    @property
    def fractions_beyond(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def port_count(self) -> int: ...
    @property
    def header_snaplen(self) -> int: ...
    @property
    def header_network(self) -> int: ...

class CaptureWriter:
    def __init__(
        self, fd: int, name: str, overwrite: bool, flush_always: bool, stall_ms: int = -1
    ) -> None: ...
    def start_pcap(self, ns: bool, exact: bool, snaplen: int, network: int) -> None: ...
    def start_pcapng(self, like: CaptureReader | None) -> None: ...
    def add_port(self, arg0: int, arg1: int, arg2: str, arg3: int, arg4: int, /) -> None: ...
    def describe(self, arg0: int, arg1: int, /) -> None: ...
    def statistics(self, arg0: int, arg1: int, arg2: int, arg3: int, arg4: int, arg5: str, /) -> None: ...
    def write(
        self,
        data: _UInt8s,
        offset: _UInt64s,
        caplen: _UInt32s,
        length: _UInt32s,
        timestamp_ns: _Int64s,
        port: _UInt16s,
        flags: _UInt16s,
        keep: _UInt8s | None,
        first: int,
        port_ok: _UInt8s | None,
        option_offset: _UInt64s | None,
        option_length: _UInt32s | None,
        options_big_endian: bool,
        table: int,
        which_comment: _UInt8s | None,
        comments: Sequence[str],
    ) -> int: ...
    def flush(self) -> None: ...
    def finish(self) -> None: ...
    @property
    def frames(self) -> int: ...
    @property
    def captured(self) -> int: ...
    @property
    def comments(self) -> int: ...
    @property
    def bytes(self) -> int: ...

class BlockLease:
    def release(self) -> None: ...

class PacketRing:
    def __init__(
        self,
        interface: str,
        *,
        block_bytes: int,
        blocks: int,
        block_timeout_ms: int,
        promiscuous: bool,
        ignore_outgoing: bool,
        filter: bytes,
        fanout_group: int = -1,
        fanout_mode: int = 0,
        hardware_stamps: bool = False,
    ) -> None: ...
    def poll(self, timeout_s: float, max_frames: int) -> tuple[tuple[memoryview, ...], BlockLease] | None: ...
    def fileno(self) -> int: ...
    def statistics(self) -> tuple[int, int, int]: ...
    def close(self) -> None: ...
    @property
    def linktype(self) -> int: ...
    @property
    def ifindex(self) -> int: ...
    @property
    def held_blocks(self) -> int: ...

class PacketOutput:
    def __init__(
        self,
        interface: str,
        *,
        mac_dst: bytes,
        mac_src: bytes,
        add_tag: bytes,
        strip_tag: bool,
        outer: bytes,
        tunnel: int,
        udp_checksum: bool,
        qdisc_bypass: bool,
        retry_ms: float,
        send_buffer: int,
    ) -> None: ...
    def send(
        self,
        data: _UInt8s,
        offset: _UInt64s,
        caplen: _UInt32s,
        length: _UInt32s,
        port: _UInt16s,
        linktypes: _UInt16s,
        index: _UInt32s | None,
        retry_ns: int | None = None,
    ) -> tuple[int, int, int, int, int, int, int, int, int, int]: ...
    def fileno(self) -> int: ...
    def close(self) -> None: ...
    @property
    def mtu(self) -> int: ...

class FrameStore:
    def __init__(self, memory_bytes: int) -> None: ...
    def put(
        self,
        data: _UInt8s,
        offset: _UInt64s,
        caplen: _UInt32s,
        length: _UInt32s,
        timestamp_ns: _Int64s,
        port: _UInt16s,
        flags: _UInt16s,
        rows: _UInt32s | None,
        start: int,
        limit_bytes: int,
    ) -> tuple[tuple[memoryview, ...], ArenaLease] | None: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def used_bytes(self) -> int: ...

class ArenaLease:
    def release(self) -> None: ...

class Merger:
    def __init__(self, sources: int, *, delay_ns: int, memory_bytes: int) -> None: ...
    def add(
        self,
        source: int,
        data: _UInt8s,
        offset: _UInt64s,
        caplen: _UInt32s,
        length: _UInt32s,
        timestamp_ns: _Int64s,
        port: _UInt16s,
        flags: _UInt16s,
        port_map: _UInt16s,
        start: int,
        now_ns: int | None,
    ) -> int: ...
    def take(
        self, now_ns: int | None, max_frames: int, everything: bool, early: bool, undrained: Sequence[int]
    ) -> tuple[tuple[memoryview, ...], ArenaLease] | None: ...
    def due_ns(self) -> int | None: ...
    def end(self, source: int) -> None: ...
    def statistics(self) -> tuple[int, int, int, int, int, int, int, int, int, int]: ...

def greater_before(sequence: _Int64s, counts: _UInt32s) -> None: ...
