# SPDX-License-Identifier: Apache-2.0
"""Links as the driver sees them, PHY registers, latencies that change with the link, loopbacks."""

from __future__ import annotations

import random

import numpy as np
import pytest
from twinstamp.card.sim import PORTS, frames
from twinstamp.errors import ConfigError, DeviceError

from tests.card.sending import collect

NS = 2**32 / 1e9
POLL = 25_000  # cycles: a poll that finds a link come up takes 160 us


def looking(make_card, **options):
    """A card that looks often; its links are up at the start."""
    simulated, card = make_card(**options)
    for port in range(PORTS):
        card.write(f"port[{port}].phy.poll", POLL)
    simulated.run(3 * POLL)
    return simulated, card


def test_links_come_and_go(make_card):
    simulated, card = looking(make_card)
    assert {"phy", "loopback"} <= card.identity.features
    assert [tuple(link) for link in card.links()] == [(True, 10**9, True, 1, True)] * PORTS
    simulated.plug(2, False)
    simulated.run(3 * POLL)
    assert [link.up for link in card.links()] == [True, True, False, True]
    assert card.links()[2].speed == 0 and card.links()[2].answers
    simulated.plug(2, True)
    simulated.run(3 * POLL)
    assert tuple(card.links()[2]) == (True, 10**9, True, 2, True)
    # Down and up again between two looks: the latched bit tells.
    simulated.plug(2, True)
    simulated.run(4 * POLL)
    assert tuple(card.links()[2]) == (True, 10**9, True, 3, True)
    simulated.plug(0, True, gigabit=False)
    simulated.plug(1, True, partner=0x0021, gigabit=False)
    simulated.run(4 * POLL)
    assert [(link.speed, link.full_duplex) for link in card.links()[:2]] == [(10**8, True), (10**7, False)]


def test_management(make_card):
    simulated, card = make_card()
    assert card.mdio_read(0, 2) << 16 | card.mdio_read(0, 3) == 0x00221622
    card.mdio_write(3, 4, 0xA5C3)
    assert (card.mdio_read(3, 4), card.mdio_read(2, 4)) == (0xA5C3, 0x01E1)
    with pytest.raises(DeviceError, match="no PHY answers at address 9"):
        card.mdio_read(1, 2, phy=9)
    card.mdio_write(1, 0, 0x1340)  # negotiate anew
    assert not card.mdio_read(1, 1) & 4
    simulated.run(4000)
    assert card.mdio_read(1, 1) & 0x24 == 0x24
    with pytest.raises(ConfigError, match="no port 4"):
        card.mdio_read(4, 0)


def test_latency_is_drawn_at_each_link_up(make_card):
    """What a cable takes from pins to pins changes with every link-up, within the bounds given."""
    simulated, card = make_card(block_log2=14, timeout_s=1e-5)
    simulated.connect(0, simulated, 1, delay_ns=50)
    simulated.set_phy(1, (100, 180))
    card.start()
    constant = card.read("port[1].rx_constant") / NS
    seen = []
    for _ in range(6):
        simulated.plug(1, False)
        card.send(0, bytes(60))  # lost: the link is down
        simulated.run(300)
        simulated.plug(1, True)
        simulated.run(2500)
        link, _, latency = simulated.phy(1)
        assert link and 100 <= latency <= 180
        for cookie in range(20):
            card.send(0, bytes(100), stamp=True, cookie=cookie)
        got = collect(card, 1e-4)[1]
        departed = card.departures()["stamp_q32"].astype(np.int64)
        assert len(got.frames) == len(departed) == 20
        flight = (np.array(got.stamp_q32, dtype=np.int64) - departed) / NS - constant
        assert np.abs(flight - 50 - latency).max() < 4.4
        seen.append(latency)
    assert len(set(seen)) == 6


def test_frames_wait_for_the_link(make_card):
    simulated, card = make_card()
    card.start()
    simulated.plug(0, False)
    simulated.send(0, frames([bytes(60)] * 5))
    simulated.send(1, frames([bytes(60)] * 5))
    simulated.run(5000)
    assert (simulated.pending(0), simulated.pending(1)) == (5, 0)
    simulated.plug(0, True)
    got = collect(card)
    assert [len(port.frames) for port in got] == [5, 5, 0, 0]


@pytest.mark.parametrize("ppb", [100_000, -100_000])
def test_near_loopback(make_card, ppb):
    """Between two clocks 100 ppm apart; the pins see nothing, what is on the wire does not get in."""
    simulated, card = make_card()
    simulated.set_clock("rx1", ppb=ppb)
    simulated.connect(1, simulated, 2)
    card.start()
    card.set_loopback(1, "near")
    simulated.send(1, frames([b"\xaa" * 60] * 3))
    rng = random.Random(1)
    sent = [rng.randbytes(n) for n in (60, 61, 1514, 9014, 60)]
    for frame in sent:
        card.send(1, frame)
    got = collect(card)
    assert got[1].frames == sent and got[2].frames == []
    card.set_loopback(1, "off")
    card.send(1, sent[0])
    got = collect(card)
    assert got[1].frames == [] and got[2].frames == sent[:1]


def test_far_loopback(make_card):
    simulated, card = make_card()
    simulated.set_clock("rx3", ppb=50_000)
    simulated.connect(3, simulated, 0)
    card.start()
    card.set_loopback(3, "far")
    rng = random.Random(2)
    sent = [rng.randbytes(n) for n in (60, 400, 1514, 60)]
    simulated.send(3, frames(sent))
    card.send(3, bytes(80))  # goes nowhere
    got = collect(card)
    assert got[3].frames == sent and got[0].frames == sent
    with pytest.raises(ConfigError, match="loopback 'up'"):
        card.set_loopback(3, "up")


def test_statistics_by_their_names(make_card):
    simulated, card = make_card()
    simulated.connect(0, simulated, 1)
    card.start()
    for frame in (bytes(60), b"\xff" * 6 + bytes(194)):
        card.send(0, frame)
    simulated.run(2000)
    received, sent = card.standard_counters()[1]["received"], card.standard_counters()[0]["sent"]
    assert received["etherStatsPkts"] == sent["etherStatsPkts"] == 2
    assert received["etherStatsOctets"] == sent["etherStatsOctets"] == 64 + 204
    assert received["etherStatsBroadcastPkts"] == received["ifHCInUcastPkts"] == 1
    assert received["etherStatsPkts64Octets"] == received["etherStatsPkts128to255Octets"] == 1
