# SPDX-License-Identifier: Apache-2.0
# Made by tools/stubs.py from twinstamp_kernels._cpu; its RESULTS have the types of what comes back.
# An array may be anything with the buffer protocol. NumPy's stubs name that protocol for Python 3.12 only, so
# NumPy's own arrays stand beside it, with the element type that is asked for.
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

HASH_KEY_BYTES: int

HASH_BLOCK_BYTES: int

HASH_STREAMS: int

HASH_LIMBS_AT: int

class HashKey:
    def __init__(self, words: bytes) -> None: ...

def build_tables(
    key: int,
    server_id: _UInt64s,
    alive: _UInt8s,
    group_first: _UInt32s,
    member_server: _UInt16s,
    member_weight: _UInt32s,
    bucket_bits: int,
    before: _UInt16s | None = None,
    changed: _UInt8s | None = None,
) -> memoryview: ...
def negative_log2(h: int) -> int: ...

LOG2_BITS: int

NO_SERVER: int

def frame_extent(
    data_bytes: int, offset: _UInt64s, caplen: _UInt32s, port: _UInt16s, ports: int, first: int | None = None
) -> tuple[int, int, int]: ...
def gather_frames(
    data: _UInt8s, offset: _UInt64s, caplen: _UInt32s, out_data: _UInt8s, out_offset: _UInt64s
) -> int: ...

FLOW_KEY_BYTES: int

FATES: int

DEVICE_COUNTS: int

RULE_TABLES_BYTES: int

def covering_rules(rules: _UInt8s) -> memoryview: ...
def format_rules(rule: _Int32s, first: int) -> bytes: ...
def server_mask(copy_frame: _UInt32s, copy_server: _UInt16s, server: int, frames: int) -> bytes: ...

class Classifier:
    def __init__(
        self,
        rules: _UInt8s,
        memory_limit: int,
        flow_key: _UInt8s,
        inner: bool,
        by_ip: bool,
        follow_icmp: bool,
        workers: int,
        cache_entries: int,
        fragment_entries: int,
        hold_bytes: int,
        hold_ns: int,
        lifetime_ns: int,
    ) -> None: ...
    def process(
        self,
        data: _UInt8s,
        offset: _UInt64s,
        caplen: _UInt32s,
        length: _UInt32s,
        timestamp_ns: _Int64s,
        port: _UInt16s,
        flags: _UInt16s,
        linktypes: _UInt16s,
        keep: _UInt8s | None,
        first: int,
    ) -> tuple[memoryview, memoryview, memoryview, memoryview, memoryview, memoryview]: ...
    def finish(
        self,
        data: _UInt8s,
        offset: _UInt64s,
        caplen: _UInt32s,
        length: _UInt32s,
        timestamp_ns: _Int64s,
        port: _UInt16s,
        flags: _UInt16s,
        linktypes: _UInt16s,
        first: int,
        listed: _UInt32s,
    ) -> tuple[memoryview, memoryview, memoryview, memoryview]: ...
    def share(
        self, caplen: _UInt32s, rule: _Int32s, hash: _UInt64s, fate: _UInt8s
    ) -> tuple[memoryview, memoryview, memoryview, memoryview, memoryview, memoryview]: ...
    def add_counts(self, words: _UInt64s) -> None: ...
    def export_tables(self, base: int) -> tuple[memoryview, bytes]: ...
    def export_actions(self) -> dict[str, Any]: ...
    def flow_key_bytes(self) -> bytes: ...
    @property
    def generation(self) -> int: ...
    @property
    def inner(self) -> bool: ...
    @property
    def by_ip(self) -> bool: ...
    @property
    def follow_icmp(self) -> bool: ...
    def take_released(
        self,
    ) -> (
        tuple[
            tuple[memoryview, ...],
            memoryview,
            tuple[memoryview, memoryview, memoryview, memoryview, memoryview, memoryview],
        ]
        | None
    ): ...
    def release_due(self, now_ns: int) -> None: ...
    def flush(self) -> None: ...
    def oldest_held(self) -> int: ...
    def held_now(self) -> int: ...
    def set_actions(
        self, action_of_rule: _UInt32s, action_first: _UInt32s, action_group: _UInt16s
    ) -> None: ...
    def set_servers(self, tables: _UInt16s, bucket_bits: int, servers: int) -> None: ...
    def counts(self) -> dict[str, Any]: ...
    @property
    def rules(self) -> int: ...
    @property
    def table_bytes(self) -> int: ...

class Window:
    def __init__(
        self,
        key: HashKey,
        profile: int,
        layer: int,
        ignore_bytes: int,
        count: int,
        time_ns: int,
        limit: int,
        keep: int,
        guard: int,
        ends: bytes,
        workers: int,
    ) -> None: ...
    def process(
        self,
        data: _UInt8s,
        offset: _UInt64s,
        caplen: _UInt32s,
        timestamp_ns: _Int64s,
        port: _UInt16s,
        linktypes: _UInt16s,
        details: bool,
    ) -> tuple[memoryview, memoryview, memoryview, memoryview]: ...
    def process_keys(
        self,
        key: _UInt64s | None,
        second: _UInt64s | None,
        two: _UInt8s | None,
        tags: _UInt32s | None,
        frame_class: _UInt8s | None,
        timestamp_ns: _Int64s,
        caplen: _UInt32s | None,
        details: bool,
    ) -> tuple[memoryview, memoryview, memoryview, memoryview]: ...
    def restore(
        self,
        index: int,
        key: _UInt64s | None,
        second: _UInt64s | None,
        two: _UInt8s | None,
        tags: _UInt32s | None,
        timestamp_ns: _Int64s,
    ) -> None: ...
    def add_statistics(self, counts: WindowStatistics) -> None: ...
    @property
    def index(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    def statistics(self) -> dict[str, Any]: ...

class WindowStatistics:
    def __init__(
        self,
        frames: int,
        bytes: int,
        limit_reached: int,
        type_frames: _UInt64s,
        type_bytes: _UInt64s,
        negative_delays: _UInt64s,
        distance_bins: _UInt64s,
        distance_max: _UInt64s,
        delay_bins: _UInt64s,
        delay_max: _UInt64s,
        kept_frames: _UInt64s,
        kept_bytes: _UInt64s,
        guarded_frames: _UInt64s,
        guarded_bytes: _UInt64s,
    ) -> None: ...
    def as_dict(self, memory_bytes: int) -> dict[str, Any]: ...

HISTOGRAM_BINS: int

class Histogram:
    def __init__(self) -> None: ...
    def add(self, values: _Int64s) -> None: ...
    def quantile(self, share: float) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def maximum(self) -> int: ...

PROFILES: dict[str, int]

LAYERS: dict[str, int]

CLASSES: dict[str, int]

GUARDS: dict[str, int]

TAGS: int

MOST_TUNNEL_ENDS: int

MAX_CAPLEN: int

def frame_keys(
    hash_key: HashKey,
    data: _UInt8s,
    offset: _UInt64s,
    caplen: _UInt32s,
    port: _UInt16s,
    linktypes: _UInt16s,
    profile: int,
    layer: int,
    ignore_bytes: int = 0,
    portable: bool = False,
    ends: bytes = ...,
) -> tuple[memoryview, memoryview, memoryview]: ...
def frame_digests(
    hash_key: HashKey,
    data: _UInt8s,
    offset: _UInt64s,
    caplen: _UInt32s,
    port: _UInt16s,
    linktypes: _UInt16s,
    profile: int,
    layer: int,
    ignore_bytes: int,
    classes: bool,
    workers: int,
    ends: bytes = ...,
) -> tuple[memoryview | None, memoryview | None, memoryview | None, memoryview | None, memoryview | None]: ...
def frame_classes(
    data: _UInt8s,
    offset: _UInt64s,
    caplen: _UInt32s,
    port: _UInt16s,
    linktypes: _UInt16s,
    layer: int = 0,
    ends: bytes = ...,
) -> memoryview: ...
def frames_identified(
    data: _UInt8s,
    offset: _UInt64s,
    caplen: _UInt32s,
    port: _UInt16s,
    linktypes: _UInt16s,
    layer: int = 0,
    ends: bytes = ...,
) -> memoryview: ...
def count_not_understood(
    data: _UInt8s,
    offset: _UInt64s,
    caplen: _UInt32s,
    port: _UInt16s,
    linktypes: _UInt16s,
    keep: _UInt8s | None,
    layer: int,
    ends: bytes,
    refused: bool,
    workers: int,
) -> list[tuple[int, int]]: ...
def digest(
    hash_key: HashKey, domain: int, head: _UInt8s, tail: _UInt8s, portable: bool = False
) -> tuple[int, int]: ...
