# SPDX-License-Identifier: Apache-2.0
"""The compiled rules and balance stage on plain arrays (cpu/classifier.cpp; docs/rules.md, docs/balance.md).

Arrays are anything with the buffer protocol; results are memoryviews. NumPy is not loaded here.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from twinstamp_kernels._cpu import FLOW_KEY_BYTES, Classifier, build_tables, format_rules, server_mask

__all__ = [
    "FLOW_KEY_BYTES", "Classifier", "build_tables", "format_rules", "server_mask", "u16", "u32", "u64"
]  # fmt: skip


def u16(values: Iterable[int]) -> array[int]:
    """16-bit unsigned array."""
    return array("H", values)


def u32(values: Iterable[int]) -> array[int]:
    """32-bit unsigned array."""
    return array("I", values)


def u64(values: Iterable[int]) -> array[int]:
    """64-bit unsigned array."""
    return array("Q", values)
