# SPDX-License-Identifier: Apache-2.0
"""A million minimum frames back to back, and 100,000 of random sizes and gaps, over four ports.

Every byte is compared, and every stamp with the simulation's truth; one port is 1 ppm off, for 21 beats or
more.
"""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp.card.sim import NO_ERROR, PORTS, WIRE_ADD_FCS, WIRE_ITEM, Frames

from tests.card.sending import assert_within, stamp_errors_ns

OFFSETS_PPB = (100_000, -100_000, 1_000, -37_000)


def items_of(offset: np.ndarray, length: np.ndarray, gap: np.ndarray | int) -> np.ndarray:
    """Well-formed carrier events, WIRE_ITEM[n]."""
    items = np.zeros(len(offset), dtype=WIRE_ITEM)
    items["length"] = length
    items["offset"] = offset
    items["gap"] = gap
    items["preamble"] = 7
    items["flags"] = WIRE_ADD_FCS
    items["error_at"] = NO_ERROR
    return items


def pass_all(make_card, items: list[np.ndarray], data: np.ndarray, seed: int) -> None:
    """Puts ``items[port]`` on the wire into each port; all must come: in order, as sent, well stamped."""
    simulated, card = make_card(seed=seed, block_log2=20)
    for port, ppb in enumerate(OFFSETS_PPB):
        simulated.set_clock(f"rx{port}", ppb=ppb)
    card.start()
    for port in range(PORTS):
        simulated.send(port, Frames(items[port], data))
    got = [0] * PORTS
    stamps: list[list[np.ndarray]] = [[] for _ in range(PORTS)]
    for batch in card.receive(2e-3):
        for port in range(PORTS):
            here = np.flatnonzero(batch.port == port)
            end = got[port] + len(here)
            sent = items[port][got[port] : end]
            np.testing.assert_array_equal(batch.caplen[here], sent["length"])
            np.testing.assert_array_equal(batch.sequence[here], np.arange(got[port], end))
            for at, start, n in zip(
                batch.offset[here].tolist(), sent["offset"].tolist(), sent["length"].tolist(), strict=True
            ):
                assert batch.data[at : at + n].tobytes() == data[start : start + n].tobytes()
            stamps[port].append(batch.stamp_q32[here])
            got[port] = end
    assert got == [len(each) for each in items] and card.drops() == (0,) * PORTS
    for port, counters in enumerate(card.counters()):
        assert counters["good"] == counters["stored"] == len(items[port])
        assert counters["octets_good"] == int(items[port]["length"].sum()) + 4 * len(items[port])
        stamp = np.concatenate(stamps[port])
        assert (np.diff(stamp.astype(np.int64)) > 0).all()
        errors = stamp_errors_ns(stamp.tolist(), simulated.truth(port))
        errors = errors - card.read(f"port[{port}].rx_constant") * 1e9 / 2**32
        assert abs(errors.mean()) < 0.1
        assert errors.std() <= 2.4
        assert_within(errors)


@pytest.mark.long
def test_a_million_frames(make_card):
    n = 250_000
    data = np.random.default_rng(1).integers(0, 256, n * 60, dtype=np.uint8)
    items = items_of(np.arange(n) * 60, np.full(n, 60), 12)
    pass_all(make_card, [items] * PORTS, data, 3)


@pytest.mark.long
def test_frames_of_random_sizes_and_gaps(make_card):
    """100,000 of 64 to 9018 bytes with FCS; half of the gaps the shortest, the others up to 20,000 bytes."""
    rng = np.random.default_rng(4)
    n = 100_000 // PORTS
    data = rng.integers(0, 256, 1 << 24, dtype=np.uint8)
    items = []
    for _ in range(PORTS):
        length = rng.integers(60, 9015, n)
        length[:2] = 60, 9014
        gap = np.where(rng.random(n) < 0.5, 12, 12 + rng.exponential(300, n).astype(np.int64))
        gap[rng.integers(0, n, 20)] = 20_000
        items.append(items_of(rng.integers(0, len(data) - 9014, n), length, gap))
    pass_all(make_card, items, data, 4)
