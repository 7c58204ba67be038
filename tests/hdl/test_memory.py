# SPDX-License-Identifier: Apache-2.0
"""On-chip memory of cards without a host's."""

from __future__ import annotations

from .bench import RTL, run


def test_memory() -> None:
    run("memory_bench", [RTL / "uart" / "card_memory.sv"], "cocotb_memory")
