# SPDX-License-Identifier: Apache-2.0
"""Random numbers: against published answers, and the logarithm against decimal arithmetic."""

from __future__ import annotations

import random
from decimal import Decimal, getcontext

import numpy as np
import pytest
from twinstamp.train.draws import exponential, philox


# Random123's kat_vectors (D. E. Shaw Research), philox2x32, 10 rounds.
@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0x00000000, 0x00000000), 0x00000000, (0xFF1DAE59, 0x6CD10DF2)),
        ((0xFFFFFFFF, 0xFFFFFFFF), 0xFFFFFFFF, (0x2C3F628B, 0xAB4FD7AD)),
        ((0x243F6A88, 0x85A308D3), 0x13198A2E, (0xDD7CE038, 0xF62A4C12)),
    ],
)
def test_philox_gives_the_published_answers(counter, key, words):
    got = philox([counter[0]], counter[1], key)
    assert (int(got[0][0]), int(got[1][0])) == words


def test_the_logarithm_is_at_most_three_units_too_long():
    rng = random.Random(1)
    words = [0, 1, 2, 3, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1]
    words += [rng.getrandbits(32) for _ in range(1000)] + [rng.getrandbits(32) >> i for i in range(32)]
    getcontext().prec = 40
    ln2 = Decimal(2).ln()
    for word, got in zip(words, exponential(np.array(words, np.uint64)).tolist(), strict=True):
        exact = (33 - Decimal(2 * word + 1).ln() / ln2) * 2**24
        assert -1e-9 < got - exact < 3, word


def test_the_gaps_are_exponential():
    words, _ = philox(np.arange(1_000_000), 0, 5)
    x = exponential(words) * (np.log(2) / 2**24)
    # Mean and variance of an exponential law are 1: five standard errors of a million.
    assert abs(x.mean() - 1) < 5e-3 and abs(x.var() - 1) < 5 * np.sqrt(8) * 1e-3
    # Kolmogorov and Smirnov: 1.95 / sqrt(n) is exceeded once in 1000.
    x.sort()
    steps = np.arange(1, len(x) + 1) / len(x)
    assert np.abs(1 - np.exp(-x) - steps).max() < 1.95e-3
