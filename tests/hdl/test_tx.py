# SPDX-License-Identifier: Apache-2.0
"""The way out of a port: cocotbext-eth reads the frames off the pins."""

from __future__ import annotations

from .bench import ROOT, RTL, run

SOURCES = [
    *(RTL / "common" / f"{n}.sv" for n in ("twinstamp_pkg", "sync_2ff", "reset_sync", "async_fifo")),
    RTL / "clock" / "card_clock.sv",
    RTL / "rx" / "stamp_capture.sv",
    *(
        RTL / "tx" / f"{n}.sv"
        for n in ("twinstamp_tx_pkg", "tx_mac", "tx_store", "tx_launch", "tx_report", "tx_port")
    ),
    ROOT / "hdl" / "sim" / "late_gen.sv",
]


def test_tx() -> None:
    run("tx_bench", SOURCES, "cocotb_tx")
