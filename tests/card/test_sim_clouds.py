# SPDX-License-Identifier: Apache-2.0
"""Clouds: what they lose, double, delay and reorder, against their truth and the card's records."""

from __future__ import annotations

import numpy as np
import pytest
from twinstamp.card.sim import CLOUD_COPY, CLOUD_LATE, CLOUD_LOST, Cloud, frames
from twinstamp.errors import ConfigError

from tests.card.sending import collect, stamp_errors_ns


def contents(n: int) -> list[bytes]:
    """Frames that carry their number."""
    rng = np.random.default_rng(3)
    return [i.to_bytes(4, "big") + rng.bytes(56 + int(rng.integers(0, 40))) for i in range(n)]


def binomial(n: int, p: float, seen: int) -> bool:
    return abs(seen - n * p) <= 5 * (n * p * (1 - p)) ** 0.5


def test_plain_cloud_is_a_known_delay(make_card):
    simulated, card = make_card()
    simulated.set_clock("rx1", ppb=25_000)
    cloud = Cloud(simulated, 1, delay_ns=12_345)
    card.start()
    sent = contents(200)
    cloud.send(frames(sent, gap=60))  # a short frame does not catch up with a long one
    got = collect(card)[1]
    assert got.frames == sent
    truth = cloud.truth()
    assert truth["number"].tolist() == list(range(200)) and not truth["fate"].any()
    octets = np.array([len(frame) + 4 for frame in sent])
    assert truth["length"].tolist() == octets.tolist()
    # SFD, the bytes, the delay; then the receiver's own clock.
    assert (truth["due_fs"] - truth["departure_fs"] == (octets + 1) * 8_000_000 + 12_345_000_000).all()
    wait = truth["arrival_fs"] - truth["due_fs"] - 7 * 8_000_000
    assert wait.min() > -2000 and wait.max() <= 8_000_000
    assert (truth["arrival_fs"] == simulated.truth(1)["sfd_fs"]).all()


def test_loss_duplication_and_reordering_as_asked(make_card):
    n = 6000
    sent = contents(n)

    def once(seed: int):
        simulated, card = make_card(block_log2=20)
        cloud = Cloud(
            simulated, 0, delay_ns=5000, jitter_ns=300, loss=0.05, duplicate=0.03, reorder=0.04,
            reorder_delay_ns=4000, seed=seed,
        )  # fmt: skip
        card.start()
        cloud.send(frames(sent, gap=100))
        got = collect(card)[0]
        truth, pins = cloud.truth(), simulated.truth(0)
        constant = card.read("port[0].rx_constant") * 1e9 / 2**32
        card.close()
        return got, truth, pins, constant

    got, truth, pins, constant = once(7)
    lost = (truth["fate"] & CLOUD_LOST) != 0
    copies = (truth["fate"] & CLOUD_COPY) != 0
    late = (truth["fate"] & CLOUD_LATE) != 0
    assert np.unique(truth["number"]).tolist() == list(range(n))
    assert binomial(n, 0.05, int(lost.sum()))
    assert binomial(int(n - lost.sum()), 0.03, int(copies.sum()))
    assert binomial(int((~lost).sum()), 0.04, int(late.sum()))
    # What was not lost comes out, byte for byte, in the order of the true arrivals.
    here = truth[~lost]
    here = here[np.argsort(here["arrival_fs"])]
    assert got.frames == [sent[number] for number in here["number"]]
    assert (here["arrival_fs"] == pins["sfd_fs"]).all()
    assert np.abs(stamp_errors_ns(got.stamp_q32, pins) - constant).max() < 4.4
    # Only what was held back changes places.
    kept = here[(here["fate"] & CLOUD_LATE) == 0]
    assert (np.diff(kept["number"].astype(np.int64)) >= 0).all()
    assert (np.diff(here["number"].astype(np.int64)) < 0).any()
    extra = (kept["due_fs"] - kept["departure_fs"]) / 1e6 - 8 * (kept["length"] + 1) - 5000
    assert extra.min() > -1e-6
    assert 300 < extra.mean() < 500  # the mean of the jitter, and waiting behind others

    again, same, _, _ = once(7)
    assert same.tobytes() == truth.tobytes()
    assert again == got
    _, other, _, _ = once(8)
    assert other.tobytes() != truth.tobytes()


def test_between_two_cards(make_card):
    """Departure stamps of one card, arrival stamps of the other, and the cloud's truth between them."""
    left, sender = make_card(seed=1)
    right, receiver = make_card(seed=2)
    left.set_clock("core", ppb=40_000)
    right.set_clock("rx2", ppb=-60_000)
    cloud = Cloud(right, 2, delay_ns=3000, jitter_ns=500, loss=0.2, seed=4)
    cloud.connect(left, 3)
    with pytest.raises(ConfigError, match="a sender already"):
        cloud.connect(left, 0)
    receiver.start()
    sender.start()
    sent = contents(60)
    for frame in sent:
        sender.send(3, frame)
    got = collect(receiver)[2]
    truth = cloud.truth()
    kept = truth[(truth["fate"] & CLOUD_LOST) == 0]
    assert len(truth) == 60 and 5 <= 60 - len(kept) <= 25
    assert got.frames == [sent[number] for number in kept["number"]]
    assert (np.diff(truth["departure_fs"]) >= 84 * 7_999_000).all()
    pins = right.truth(2)
    assert (pins["sfd_fs"] == kept["arrival_fs"]).all()
    constant = receiver.read("port[2].rx_constant") * 1e9 / 2**32
    assert np.abs(stamp_errors_ns(got.stamp_q32, pins) - constant).max() < 4.4


def test_impossible_clouds_are_refused(make_card):
    simulated, _ = make_card()
    with pytest.raises(ConfigError, match="no port 4"):
        Cloud(simulated, 4)
    with pytest.raises(ConfigError, match="loss"):
        Cloud(simulated, 0, loss=1.5)
    with pytest.raises(ConfigError, match="a cloud of 1 ns"):
        Cloud(simulated, 0, delay_ns=1)
    simulated.connect(0, simulated, 1)
    with pytest.raises(ConfigError, match="has a cable"):
        Cloud(simulated, 1)
