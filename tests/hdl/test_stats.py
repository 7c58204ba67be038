# SPDX-License-Identifier: Apache-2.0
"""Counters of both directions against the definitions of RFC 2819."""

from __future__ import annotations

from .bench import RTL, run

SOURCES = [
    RTL / "common" / "twinstamp_pkg.sv",
    RTL / "tx" / "twinstamp_tx_pkg.sv",
    *(RTL / "stats" / f"{n}.sv" for n in ("counter_memory", "tx_counters", "port_counters")),
]


def test_stats() -> None:
    run("stats_bench", SOURCES, "cocotb_stats")
