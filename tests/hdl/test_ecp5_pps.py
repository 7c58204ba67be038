# SPDX-License-Identifier: Apache-2.0
"""The ECP5's PPS sampler and serialiser with models of its cells: order of the samples, and their spacing."""

from __future__ import annotations

from .bench import run_timed

FILES = [
    "tests/hdl/ecp5_models.sv",
    "hdl/boards/ecp5/pps_sampler.sv",
    "hdl/boards/ecp5/pps_serialiser.sv",
]


def test_samples_in_order_a_nanosecond_apart(tmp_path):
    run_timed("ecp5_pps_bench", FILES, tmp_path)
