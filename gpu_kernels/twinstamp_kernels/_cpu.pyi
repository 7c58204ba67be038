# SPDX-License-Identifier: Apache-2.0
# Types of the CPU build of the kernels (gpu_kernels/twinstamp_kernels/cpu), for mypy and editors. Arrays are
# whatever has the buffer protocol or DLPack, with the dtype that the wrapper's docstring says.
from typing import Any

def __getattr__(name: str) -> Any: ...

HASH_KEY_BYTES: int
HASH_BLOCK_BYTES: int
HASH_STREAMS: int
HASH_LIMBS_AT: int
FLOW_KEY_BYTES: int
MAX_CAPLEN: int
DEVICE_COUNTS: int
HISTOGRAM_BINS: int
PROFILES: dict[str, int]
LAYERS: dict[str, int]
CLASSES: dict[str, int]

def frame_extent(
    data_bytes: int, offset: Any, caplen: Any, port: Any, ports: int, first: int | None = None
) -> tuple[int, int, int]: ...
def gather_frames(data: Any, offset: Any, caplen: Any, out_data: Any, out_offset: Any) -> int: ...

_Views = tuple[memoryview, memoryview, memoryview, memoryview, memoryview, memoryview]

class Classifier:
    def __init__(self, **options: Any) -> None: ...
    def process(
        self,
        data: Any,
        offset: Any,
        caplen: Any,
        length: Any,
        timestamp_ns: Any,
        port: Any,
        flags: Any,
        linktypes: Any,
        keep: Any,
        first: int,
    ) -> _Views: ...
    def finish(
        self,
        data: Any,
        offset: Any,
        caplen: Any,
        length: Any,
        timestamp_ns: Any,
        port: Any,
        flags: Any,
        linktypes: Any,
        first: int,
        listed: Any,
    ) -> tuple[memoryview, memoryview, memoryview, memoryview]: ...
    def share(self, caplen: Any, rule: Any, hash: Any, fate: Any) -> _Views: ...
    def add_counts(self, words: Any) -> None: ...
    def export_tables(self, base: int) -> tuple[memoryview, bytes]: ...
    def export_actions(self) -> dict[str, Any]: ...
    def flow_key_bytes(self) -> bytes: ...
    def take_released(self) -> tuple[tuple[Any, ...], memoryview, _Views] | None: ...
    def release_due(self, now_ns: int) -> None: ...
    def flush(self) -> None: ...
    def oldest_held(self) -> int: ...
    def held_now(self) -> int: ...
    def set_actions(self, action_of_rule: Any, action_first: Any, action_group: Any) -> None: ...
    def set_servers(self, tables: Any, bucket_bits: int, servers: int) -> None: ...
    def counts(self) -> dict[str, Any]: ...
    @property
    def generation(self) -> int: ...
    @property
    def inner(self) -> bool: ...
    @property
    def by_ip(self) -> bool: ...
    @property
    def follow_icmp(self) -> bool: ...
    @property
    def rules(self) -> int: ...
    @property
    def table_bytes(self) -> int: ...

class HashKey:
    def __init__(self, words: bytes) -> None: ...

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
        workers: int,
    ) -> None: ...
    def process(
        self,
        data: Any,
        offset: Any,
        caplen: Any,
        timestamp_ns: Any,
        port: Any,
        linktypes: Any,
        details: bool,
    ) -> tuple[memoryview, memoryview, memoryview, memoryview]: ...
    def process_keys(
        self,
        key: Any,
        second: Any,
        two: Any,
        tags: Any,
        frame_class: Any,
        timestamp_ns: Any,
        caplen: Any,
        details: bool,
    ) -> tuple[memoryview, memoryview, memoryview, memoryview]: ...
    def restore(self, index: int, key: Any, second: Any, two: Any, tags: Any, timestamp_ns: Any) -> None: ...
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
        type_frames: Any,
        type_bytes: Any,
        negative_delays: Any,
        distance_bins: Any,
        distance_max: Any,
        delay_bins: Any,
        delay_max: Any,
        kept_frames: Any,
        kept_bytes: Any,
    ) -> None: ...
    def as_dict(self, memory_bytes: int) -> dict[str, Any]: ...

class Histogram:
    def add(self, values: Any) -> None: ...
    def quantile(self, share: float) -> int: ...
    @property
    def total(self) -> int: ...
    @property
    def maximum(self) -> int: ...
