# SPDX-License-Identifier: Apache-2.0
"""Management, link state, PHY model and loopbacks."""

from __future__ import annotations

from .bench import ROOT, RTL, run

SOURCES = [
    *(RTL / "common" / f"{n}.sv" for n in ("twinstamp_pkg", "sync_2ff", "reset_sync", "async_fifo")),
    *(RTL / "phy" / f"{n}.sv" for n in ("mdio_master", "phy_link", "gmii_elastic", "gmii_loopback")),
    *(ROOT / "hdl" / "sim" / f"{n}.sv" for n in ("late_gen", "phy_model")),
]


def test_phy() -> None:
    run("phy_bench", SOURCES, "cocotb_phy")
