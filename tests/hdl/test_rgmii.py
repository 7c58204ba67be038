# SPDX-License-Identifier: Apache-2.0
"""The RGMII adapters, between the boards' DDR registers and the card."""

from __future__ import annotations

from .bench import RTL, run


def test_rgmii() -> None:
    run("rgmii_bench", [RTL / "phy" / "rgmii_rx.sv", RTL / "phy" / "rgmii_tx.sv"], "cocotb_rgmii")
