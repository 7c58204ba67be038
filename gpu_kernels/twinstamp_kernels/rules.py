# SPDX-License-Identifier: Apache-2.0
"""The compiled rules and balance stage on plain arrays (cpu/classifier.cpp; docs/rules.md, docs/balance.md).

Arrays are anything with the buffer protocol; results are memoryviews. NumPy is not loaded here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

from twinstamp_kernels import _cpu

if TYPE_CHECKING:
    from typing import Any, Protocol

    class _Classifier(Protocol):
        @property
        def table_bytes(self) -> int: ...
        @property
        def rules(self) -> int: ...
        def process(self, *columns: Any) -> tuple[memoryview, ...]: ...
        def take_released(self) -> tuple[tuple[Any, ...], memoryview, tuple[memoryview, ...]] | None: ...
        def release_due(self, now_ns: int) -> None: ...
        def flush(self) -> None: ...
        def oldest_held(self) -> int: ...
        def held_now(self) -> int: ...
        def set_actions(self, action_of_rule: Any, action_first: Any, action_group: Any) -> None: ...
        def set_servers(self, tables: Any, bucket_bits: int, servers: int) -> None: ...
        def counts(self) -> dict[str, Any]: ...


FLOW_KEY_BYTES: int = _cpu.FLOW_KEY_BYTES


def Classifier(**options: Any) -> _Classifier:  # noqa: N802
    """A compiled classifier. Raises ValueError for options out of range and for rules too large."""
    return _cpu.Classifier(**options)


def build_tables(**columns: Any) -> memoryview:
    """Server of each bucket, u16[groups * 2^bucket_bits], by weighted rendezvous (cpu/balance.cpp)."""
    return _cpu.build_tables(**columns)  # type: ignore[no-any-return]


def server_mask(copy_frame: Any, copy_server: Any, server: int, frames: int) -> bytes:
    """u8[frames], 1 where a copy of the frame goes to `server`."""
    return _cpu.server_mask(copy_frame, copy_server, server, frames)  # type: ignore[no-any-return]


def format_rules(rule: Any, first: int) -> bytes:
    """CSV lines "frame,rule" of i32[n] rules, the first frame being number `first`."""
    return _cpu.format_rules(rule, first)  # type: ignore[no-any-return]


def u16(values: Iterable[int]) -> array[int]:
    """16-bit unsigned array."""
    return array("H", values)


def u32(values: Iterable[int]) -> array[int]:
    """32-bit unsigned array."""
    return array("I", values)


def u64(values: Iterable[int]) -> array[int]:
    """64-bit unsigned array."""
    return array("Q", values)
