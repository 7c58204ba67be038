# SPDX-License-Identifier: Apache-2.0
"""Frames from the host to the wire: launch times, departures, and what a second card sees of them."""

from __future__ import annotations

import random

import numpy as np
import pytest
from twinstamp.card import Card
from twinstamp.card.sim import frames
from twinstamp.errors import ConfigError, DeadCardError, DeviceError, OverloadError
from twinstamp.frames import FrameBatch

from tests.card.sending import assert_within, collect, stamp_errors_ns
from tests.card.test_registers import Altered

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
    assert departures["cookie"].tolist() == [1 << 40 | i for i in range(len(sent))]
    assert set(departures["port"].tolist()) == {1} and not departures["late"].any()
    counters = card.counters()
    assert counters[2]["good"] == counters[1]["tx_frames"] == len(sent)
    assert counters[2]["octets_good"] == counters[1]["tx_octets"]
    # The departure is the SFD on the pins, the cable is 100 ns: arrival - departure is known.
    truth = simulated.truth(2)
    departed = departures["stamp_q32"].astype(np.int64)
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
    steps = np.diff(card.departures()["stamp_q32"]) / NS
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
    assert len(departures) == 20 and not departures["late"].any()
    error = (departures["stamp_q32"].astype(np.int64) - np.array(launches)) / NS
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
    assert card.departures()["late"].tolist() == [False, True, True]
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


# Batches


def looped(make_card, port: int = 0, **options):
    """A card whose ``port`` hears itself."""
    simulated, card = make_card(block_log2=18, **options)
    simulated.connect(port, simulated, port)
    card.start()
    return simulated, card


def test_batch_goes_whole_and_in_order(make_card):
    """More than the ring holds: the call waits for room."""
    _, card = looped(make_card, 2)
    rng = random.Random(11)
    sent = [rng.randbytes(rng.choice((60, 61, 127, 1514, 9014))) for _ in range(120)]
    assert sum(map(len, sent)) > 3 * (8 << 13)
    cookies = np.array([rng.randrange(1 << 64) for _ in sent], dtype=np.uint64)
    assert card.send_batch(2, FrameBatch.from_frames(sent), stamp=True, cookies=cookies) == len(sent)
    got = collect(card)[2]
    assert got.frames == sent
    departures = card.departures()
    assert departures["cookie"].tolist() == cookies.tolist() and set(departures["port"]) == {2}
    assert (np.diff(departures["stamp_q32"].astype(np.int64)) > 0).all() and not departures["late"].any()
    assert len(card.departures()) == 0
    assert card.counters()[2]["tx_octets"] == sum(map(len, sent)) + 4 * len(sent)


def test_received_batch_can_be_sent_as_it_is(make_card):
    """Straight from the ring of one card into another's, without a detour through files or bytes."""
    first, card = make_card(seed=1)
    second, other = make_card(seed=2)
    second.connect(1, second, 1)
    other.start()
    card.start()
    sent = [bytes([n]) * (60 + n) for n in range(50)]
    first.send(3, frames(sent))
    passed = 0
    for batch in card.receive(2e-3):
        passed += other.send_batch(1, batch)
        for at, n in zip(batch.offset.tolist(), batch.caplen.tolist(), strict=True):
            card._memory[at : at + n] = 0xEE  # it was copied
    assert passed == 50 and collect(other)[1].frames == sent


def test_launch_times_of_a_batch(make_card):
    _, card = looped(make_card, 3)
    n = 200
    start = card.time_q32() + round(200_000 * NS)
    launch = start + (np.arange(n) * round(1234.5 * NS)).astype(np.uint64)
    launch[50:53] = launch[50]  # a slot that is taken: the second and third cannot be met
    launch[100] = 1  # long past
    data = np.tile(np.arange(60, dtype=np.uint8), n)
    arrays = data, np.arange(n) * 60, np.full(n, 60)
    assert card.send_batch(3, arrays, launch_q32=launch, stamp=True, timeout_s=0.01) == n
    collect(card)
    departures = card.departures()
    assert departures["cookie"].tolist() == list(range(n))
    assert np.flatnonzero(departures["late"]).tolist() == [51, 52, 100]
    error = (departures["stamp_q32"].astype(np.int64) - launch.astype(np.int64)) / NS
    on_time = ~departures["late"]
    assert error[on_time].min() > -0.3 and error[on_time].max() < 8.3
    assert error[51] == pytest.approx(84 * 8, abs=9) and error[52] == pytest.approx(2 * 84 * 8, abs=9)


def test_full_ring_takes_a_part_and_says_how_many(make_card):
    _, card = looped(make_card)
    n = 2000
    sent = [i.to_bytes(4, "big") * 16 for i in range(n)]
    batch = FrameBatch.from_frames(sent)
    taken = card.send_batch(0, batch, timeout_s=0)
    assert taken == (8 << 13) // (32 + 64)  # what the ring holds, to the last frame
    more = card.send_batch(0, batch, first=taken, timeout_s=100e-6)
    # 88 byte times a frame; the card itself has room for some more.
    assert 100_000 / (88 * 8) < more - taken < 100_000 / (88 * 8) + 300
    assert card.send_batch(0, batch, first=more) == n
    assert collect(card)[0].frames == sent


def test_one_frame_too_many(make_card):
    _, card = make_card()
    far = card.time_q32() + (10 << 32)
    with pytest.raises(OverloadError, match="port 1: no room for 9000 bytes"):
        for _ in range(20):
            card.send(1, bytes(9000), launch_q32=far, timeout_s=1e-5)


def test_refused_read_is_an_error(make_card):
    _, card = looped(make_card)
    card.write_fields("port[0].tx_control", enable=0)
    card.write("port[0].tx_base", 0x1000)  # nobody's memory
    card.write_fields("port[0].tx_control", enable=1)
    with pytest.raises(DeviceError, match="refused a read"):
        for _ in range(20):
            card.send_batch(0, FrameBatch.from_frames([bytes(1000)] * 100))


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ((bytes(200), [0, 100], [60, 13]), "frame 1 has 13 bytes: give 14 to 9022"),
        ((bytes(20000), [0, 100], [60, 9023]), "frame 1 has 9023 bytes"),
        ((bytes(200), [0, 141], [60, 60]), "frame 1: 60 bytes from byte 141 on, in 200 of data"),
        ((bytes(200), [0, -1], [60, 60]), "offset has -1: give 0 to"),
        ((bytes(200), [0, 2.5], [60, 60]), "offset is of float64: give integers"),
        ((bytes(200), [0], [60, 60]), "offset has 1 values for 2 frames"),
        ((bytes(200), [[0, 0]], [60, 60]), "offset has 2 dimensions"),
        (FrameBatch.from_frames([bytes(60)] * 2, length=[60, 61]), "only 60 of its 61 bytes"),
        (FrameBatch.from_frames([bytes(60)] * 2, linktype=101), "frame 0 is no Ethernet"),
    ],
)
def test_bad_batches_are_refused_whole(make_card, what, message):
    if isinstance(what, tuple):
        what = (np.frombuffer(what[0], np.uint8), *what[1:])
    _, card = looped(make_card)
    with pytest.raises(ConfigError, match=message):
        card.send_batch(0, what)
    assert collect(card)[0].frames == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"launch_q32": [1, 2, 3]}, "launch_q32 has 3 values for 2 frames"),
        ({"launch_q32": [-1, 2]}, "launch_q32 has -1"),
        ({"launch_q32": [0.5, 2]}, "launch_q32 is of float64"),
        ({"cookies": [1]}, "cookies has 1 values"),
        ({"first": 3}, "first is 3: give 0 to 2"),
    ],
)
def test_bad_columns_are_refused(make_card, options, message):
    _, card = looped(make_card)
    with pytest.raises(ConfigError, match=message):
        card.send_batch(0, FrameBatch.from_frames([bytes(60)] * 2), **options)


def test_departures_need_a_card_that_receives(make_card):
    _, card = make_card()
    assert card.send_batch(0, FrameBatch.from_frames([])) == 0
    assert len(card.departures()) == 0
    with pytest.raises(ConfigError, match=r"start\(\) first"):
        card.send(0, bytes(60), stamp=True)


def test_card_that_dies_while_sending(make_card):
    transport = Altered({})
    with Card(transport) as card:
        card.send(0, bytes(60))
        transport._changes[0x1020] = 0xFFFFFFFF  # port 0's consumer index
        with pytest.raises(DeadCardError, match="port 0: the card's consumer index is 4294967295"):
            card.send(0, bytes(60))
