# SPDX-License-Identifier: Apache-2.0
"""The ZCU104's PPS sampler, PPS output and RGMII pins, with models of its cells."""

from __future__ import annotations

from .bench import run_timed

FILES = [
    "tests/hdl/ultrascale_models.sv",
    "hdl/rtl/common/reset_sync.sv",
    "hdl/rtl/phy/rgmii_rx.sv",
    "hdl/rtl/phy/rgmii_tx.sv",
    "hdl/boards/zcu104/rgmii_pins.sv",
    "hdl/boards/zcu104/pps_fabric_sampler.sv",
    "hdl/boards/zcu104/pps_fabric_output.sv",
]


def test_pulses_a_nanosecond_apart_and_bytes_through_the_pins(tmp_path):
    print(run_timed("zcu104_bench", FILES, tmp_path))
