# SPDX-License-Identifier: Apache-2.0
"""Links as the driver sees them, PHY registers, latencies that change with the link, loopbacks."""

from __future__ import annotations

import random

import numpy as np
import pytest
from twinstamp.card.sim import PORTS, frames
from twinstamp.errors import ConfigError, DeviceError

from tests.card.sending import assert_within, collect, stamp_errors_ns

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
        assert_within(flight - 50 - latency - 0.12, window_ns=0.05 + 0.24)  # the departure is rounded, too
        seen.append(latency)
    assert len(set(seen)) == 6


def test_records_carry_the_link_epoch(make_card):
    """The card's count of link-ups, per port, as it stood when the frame ended."""
    simulated, card = looking(make_card)
    card.start()
    seen: list[list[int]] = [[], []]
    for up in range(4):
        if up:
            simulated.plug(0, True)  # down and up again
            simulated.run(4 * POLL)
        for port in (0, 1):
            simulated.send(port, frames([bytes(60)] * 3))
        for batch in card.receive(2e-3):  # a block is handed over after 1 ms
            for port in (0, 1):
                seen[port] += batch.link_epoch[batch.port == port].tolist()
            assert set(batch.record_flags.tolist()) == {0}
    assert seen == [[1] * 3 + [2] * 3 + [3] * 3 + [4] * 3, [1] * 12]
    assert [card.links()[port].epoch for port in (0, 1)] == [4, 1]


def test_bound_holds_over_link_ups(make_card):
    """Stamps less their constant are within the bound of the SFD on the medium, whatever was drawn."""
    simulated, card = make_card(timeout_s=1e-5)
    simulated.set_phy(2, (100, 181))
    card.set_phy_latency(2, 100, 181)
    card.write("clock.bound", 30)
    assert card.constants_q32[2] - card.constants_q32[1] == round(140.5 * NS)
    card.start(ports=[2])
    worst = 0.0
    for _ in range(12):
        simulated.plug(2, True)
        simulated.run(2500)
        latency = simulated.phy(2)[2]
        simulated.truth(2)
        simulated.send(2, frames([bytes(60)] * 10))
        got = card.poll(1e-3)
        assert got is not None and len(got) == 10
        assert got.clock.bound_ns == 30 + 45  # 4.17 and half of 81, rounded up
        with got:
            # On the pins, as the truth has it, is a latency after the medium.
            error = (
                stamp_errors_ns(got.stamp_q32.tolist(), simulated.truth(2))
                - card.constants_q32[2] / NS
                + latency
            )
        worst = max(worst, np.abs(error).max())
        assert np.abs(error).max() <= card.stamp_bound_ns(2) <= 45
    assert worst > 25  # what is drawn does matter
    # A measured constant has one link-up's latency in it: all of the range may come on top.
    card.use_constants(card.constants_q32, [None, None, 0.5, None])
    assert card.stamp_bound_ns(2) == pytest.approx(4.17 + 81 + 0.5, abs=0.01)
    assert card.stamp_bound_ns(1) == pytest.approx(4.17, abs=0.01)
    with pytest.raises(ConfigError, match="lower one first"):
        card.set_phy_latency(2, 5, 4)


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
    assert sent["etherStatsBroadcastPkts"] == sent["ifHCOutUcastPkts"] == 1
    assert received["etherStatsPkts64Octets"] == received["etherStatsPkts128to255Octets"] == 1
