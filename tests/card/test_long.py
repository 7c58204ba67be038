# SPDX-License-Identifier: Apache-2.0
"""A million minimum frames back to back over four ports, one of them 1 ppm off for 21 beats."""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp.card.sim import NO_ERROR, PORTS, WIRE_ADD_FCS, WIRE_ITEM, Frames

from tests.card.sending import stamp_errors_ns

OFFSETS_PPB = (100_000, -100_000, 1_000, -37_000)


@pytest.mark.long
def test_a_million_frames(make_card):
    simulated, card = make_card(seed=3, block_log2=20)
    for port, ppb in enumerate(OFFSETS_PPB):
        simulated.set_clock(f"rx{port}", ppb=ppb)
    card.start()
    n = 250_000
    data = np.random.default_rng(1).integers(0, 256, (n, 60), dtype=np.uint8)
    items = np.zeros(n, dtype=WIRE_ITEM)
    items["length"] = 60
    items["offset"] = np.arange(n) * 60
    items["gap"] = 12
    items["preamble"] = 7
    items["flags"] = WIRE_ADD_FCS
    items["error_at"] = NO_ERROR
    for port in range(PORTS):
        simulated.send(port, Frames(items, data.reshape(-1)))
    got = [0] * PORTS
    stamps: list[list[np.ndarray]] = [[] for _ in range(PORTS)]
    for batch in card.receive(2e-3):
        for port in range(PORTS):
            here = np.flatnonzero(batch.port == port)
            at = batch.offset[here].astype(np.int64)[:, None] + np.arange(60)
            end = got[port] + len(here)
            np.testing.assert_array_equal(batch.data[at], data[got[port] : end])
            np.testing.assert_array_equal(batch.sequence[here], np.arange(got[port], end))
            stamps[port].append(batch.stamp_q32[here])
            got[port] = end
    assert got == [n] * PORTS and card.drops() == (0,) * PORTS
    for port in range(PORTS):
        stamp = np.concatenate(stamps[port])
        assert (np.diff(stamp.astype(np.int64)) > 0).all()
        errors = stamp_errors_ns(stamp.tolist(), simulated.truth(port))
        errors = errors - card.read(f"port[{port}].rx_constant") * 1e9 / 2**32
        assert abs(errors.mean()) < 0.1
        assert errors.std() <= 2.4
        assert np.abs(errors).max() < 4 + 0.05 + 0.24
