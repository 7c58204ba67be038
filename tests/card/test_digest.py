# SPDX-License-Identifier: Apache-2.0
"""The card's digest against the definition on Python's integers, under its own random key."""

from __future__ import annotations

import random

import pytest
from twinstamp.card.sim import PORTS, frames
from twinstamp.errors import CardMapError, ConfigError
from twinstamp_kernels import hashkey

from tests.kernels import digest_model


@pytest.mark.parametrize("seed", [1, 2])
def test_digest_of_every_kind_of_length(make_card, seed):
    simulated, card = make_card(seed=seed, block_log2=18)
    rng = random.Random(seed)
    key = hashkey.expand(rng.randbytes(32))
    card.load_digest_key(key)
    card.start()
    model = digest_model.unpack_key(key)
    sent = []
    for port in range(PORTS):
        sizes = [60, 61, 63, 64, 65, 1016, 1020, 1023, 1024, 1025, 1032, 2048, 2049, 1514]
        sizes += [rng.randint(60, 1600) for _ in range(30)]
        if port == 0:
            sizes += [9014, 60]
        rng.shuffle(sizes)
        sent.append([rng.randbytes(size) for size in sizes])
        simulated.send(port, frames(sent[port]))
    got: list[list[int]] = [[] for _ in range(PORTS)]
    for batch in card.receive(2e-3):
        for port in range(PORTS):
            got[port] += batch.digest[batch.port == port].tolist()
    for port in range(PORTS):
        assert got[port] == [digest_model.digest(model, 0, frame)[0] for frame in sent[port]]


def test_runts_have_no_digest_and_leave_nothing_behind(make_card):
    simulated, card = make_card()
    key = hashkey.expand(bytes(range(32)))
    card.load_digest_key(key)
    card.start(keep_runt=True)
    model = digest_model.unpack_key(key)
    rng = random.Random(9)
    contents = [rng.randbytes(rng.choice((20, 33, 59, 60, 80))) for _ in range(200)]
    simulated.send(3, frames(contents, gap=1, preamble=0))
    got: list[int] = []
    for batch in card.receive(2e-3):
        got += batch.digest.tolist()
    assert got == [digest_model.digest(model, 0, c)[0] if len(c) >= 60 else 0 for c in contents]


@pytest.mark.parametrize(
    ("name", "value"), [("HASH_STREAMS", 6), ("HASH_BLOCK_BYTES", 2048), ("HASH_KEY_BYTES", 17000)]
)
def test_another_layout_in_the_kernels_is_an_error(make_card, monkeypatch, name, value):
    """A change in hash.h that the card does not follow must not give other digests silently."""
    _, card = make_card()
    key = hashkey.expand(bytes(32))
    monkeypatch.setattr(hashkey._cpu, name, value)
    with pytest.raises((CardMapError, ConfigError), match=r"words|bytes"):
        card.load_digest_key(key)


def test_layout_is_the_kernels():
    """The words that a card gets are those of the model written from the decision."""
    key = bytearray(hashkey.expand(bytes(32)))
    nh, limbs = hashkey.half_key(bytes(key), 9022)
    model = digest_model.unpack_key(bytes(key))
    assert nh == b"".join(word.to_bytes(4, "little") for word in model[0])[: len(nh)]
    assert limbs == b"".join(limb.to_bytes(16, "little") for limb in model[1][0])[: len(limbs)]
