# SPDX-License-Identifier: Apache-2.0
"""Frames from the host to the wire: launch times, departures, and what a second card sees of them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from twinstamp.errors import ConfigError

from tests.card.sending import assert_within, collect, stamp_errors_ns

NS = 2**32 / 1e9


def test_loopback_brings_the_same_bytes_back(make_card):
    simulated, card = make_card()
    simulated.connect(1, simulated, 2, delay_ns=100)
    card.start()
    rng = random.Random(1)
    sent = [rng.randbytes(n) for n in (60, 61, 67, 68, 1514, 9014, 60, 64)]
    for i, frame in enumerate(sent):
        card.send(1, frame, stamp=True, cookie=1 << 40 | i)
    got = collect(card)
    assert got[2].frames == sent
    departures = card.departures()
    assert [d.cookie for d in departures] == [1 << 40 | i for i in range(len(sent))]
    assert {d.port for d in departures} == {1} and not any(d.late for d in departures)
    counters = card.counters()
    assert counters[2]["good"] == counters[1]["tx_frames"] == len(sent)
    assert counters[2]["octets_good"] == counters[1]["tx_octets"]
    # The departure is the SFD on the pins, the cable is 100 ns: arrival - departure is known.
    truth = simulated.truth(2)
    departed = np.array([d.stamp_q32 for d in departures])
    # Half a unit each way of rounding.
    flight = stamp_errors_ns(departed.tolist(), truth) + 100
    assert np.abs(flight).max() < 0.12
    # At 0 ppm the phase is fixed; the stamp is right all the same.
    constant = card.read("port[2].rx_constant") / NS
    assert_within(stamp_errors_ns(got[2].stamp_q32, truth) - constant)


def test_short_frames_are_padded_and_the_gap_is_kept(make_card):
    simulated, card = make_card()
    simulated.connect(0, simulated, 0, delay_ns=8)
    card.start()
    for _ in range(30):
        card.send(0, bytes(range(14)), stamp=True)
    got = collect(card)[0]
    assert got.frames == [bytes(range(14)) + bytes(46)] * 30
    steps = np.diff([d.stamp_q32 for d in card.departures()]) / NS
    # 8 + 64 + 12 bytes, when records wait in the card; fetching the first ones may take longer.
    assert steps.min() == pytest.approx(84 * 8, abs=0.3)
    assert sorted(steps)[len(steps) // 2] < 90 * 8


def test_launch_times(make_card):
    simulated, card = make_card()
    simulated.connect(3, simulated, 3)
    card.start()
    start = card.time_q32() + round(100_000 * NS)
    launches = [start + round(i * 1234.5 * NS) for i in range(20)]
    for i, launch in enumerate(launches):
        card.send(3, bytes(60), launch_q32=launch, stamp=True, cookie=i)
    collect(card)
    departures = card.departures()
    assert len(departures) == 20 and not any(d.late for d in departures)
    error = (np.array([d.stamp_q32 for d in departures]) - np.array(launches)) / NS
    assert error.min() > -0.3 and error.max() < 8.3


def test_missed_launch_is_reported(make_card):
    simulated, card = make_card()
    card.load_time_q32(100 << 32)
    simulated.connect(3, simulated, 3)
    card.start()
    at = card.time_q32() + round(50_000 * NS)
    card.send(3, bytes(1000), launch_q32=at, stamp=True, cookie=0)
    card.send(3, bytes(60), launch_q32=at + round(1000 * NS), stamp=True, cookie=1)  # still busy then
    card.send(3, bytes(60), launch_q32=at - round(10**6 * NS), stamp=True, cookie=2)
    collect(card)
    assert [d.late for d in card.departures()] == [False, True, True]
    assert card.counters()[3]["tx_late"] == 2


def test_sent_frames_are_counted_by_kind(make_card):
    """Against what the receiver at the other end of the cable counts, and against the frames themselves."""
    simulated, card = make_card()
    simulated.connect(2, simulated, 1)
    card.start()
    rng = random.Random(4)
    kinds = {
        "broadcast": b"\xff" * 6,
        "multicast": b"\x01\x80\xc2\x00\x00\x0e",
        "unicast": b"\x02" + bytes(5),
    }
    kinds["nearly"] = b"\xff" * 5 + b"\xfe"  # multicast, not broadcast
    sent = [rng.choice(list(kinds)) for _ in range(60)]
    for kind in sent:
        card.send(2, kinds[kind] + rng.randbytes(rng.choice((8, 54, 200, 1508))))
    collect(card)
    out, back = card.standard_counters()[2]["sent"], card.standard_counters()[1]["received"]
    assert out["etherStatsPkts"] == back["etherStatsPkts"] == 60
    assert out["etherStatsBroadcastPkts"] == back["etherStatsBroadcastPkts"] == sent.count("broadcast")
    multicast = sent.count("multicast") + sent.count("nearly")
    assert out["etherStatsMulticastPkts"] == back["etherStatsMulticastPkts"] == multicast
    assert out["ifHCOutUcastPkts"] == back["ifHCInUcastPkts"] == sent.count("unicast")
    assert out["etherStatsOctets"] == back["etherStatsOctets"]
    assert card.counters()[2]["tx_late"] == 0


def test_two_cards_with_clocks_apart(make_card):
    first, sender = make_card(seed=1)
    second, receiver = make_card(seed=2, block_log2=18)
    first.set_clock("core", ppb=80_000)
    second.set_clock("core", ppb=-20_000)
    first.connect(0, second, 3, delay_ns=500)
    receiver.start()
    sender.start()
    rng = random.Random(3)
    sent = [rng.randbytes(rng.randint(60, 300)) for _ in range(400)]
    got: list[bytes] = []
    stamps: list[int] = []
    for frame in sent:
        sender.send(0, frame)
        batch = receiver.poll(2e-6)
        if batch is not None:
            with batch:
                got += [batch.frame(i) for i in range(len(batch))]
                stamps += batch.stamp_q32.tolist()
    rest = collect(receiver)[3]
    assert got + rest.frames == sent
    errors = stamp_errors_ns(stamps + rest.stamp_q32, second.truth(3))
    constant = receiver.read("port[3].rx_constant") / NS
    assert_within(errors - constant, apart_ppm=100.0)
    assert abs(first.now_fs - second.now_fs) < 10**12


def test_bad_frames_are_refused(make_card):
    _, card = make_card()
    with pytest.raises(ConfigError, match="13 bytes"):
        card.send(0, bytes(13))
    with pytest.raises(ConfigError, match="no port 4"):
        card.send(4, bytes(60))
