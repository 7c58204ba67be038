# SPDX-License-Identifier: Apache-2.0
"""The digest of every build against a model on Python's integers."""

from __future__ import annotations

import random

import numpy as np
import pytest
from twinstamp_kernels import _cpu
from twinstamp_kernels.hashkey import expand

from tests.kernels.digest_model import digest, unpack_key

SEED = bytes(range(32))
RAW = expand(SEED)
KEY, MODEL = _cpu.HashKey(RAW), unpack_key(RAW)


def array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)


def both(domain: int, head: bytes, tail: bytes) -> tuple[int, int]:
    simd = _cpu.digest(KEY, domain, array(head), array(tail), portable=False)
    assert simd == _cpu.digest(KEY, domain, array(head), array(tail), portable=True)
    return simd


def test_every_length_portable_equals_simd() -> None:
    data = random.Random(1).randbytes(2200)
    for n in range(2101):
        both(0, b"", data[n % 64 : n % 64 + n])


def test_model() -> None:
    rng = random.Random(2)
    lengths = [*range(140), *rng.sample(range(140, 2101), 60), 1023, 1024, 1025, 2048, 9000, 65535]
    for n in lengths:
        message = rng.randbytes(n)
        domain = rng.choice([0, 1, 0x33, 255])
        assert both(domain, b"", message) == digest(MODEL, domain, message), n


@pytest.mark.parametrize("n", [262143, 262144])
def test_model_at_the_limit(n: int) -> None:
    message = random.Random(n).randbytes(n)
    assert both(0, b"", message) == digest(MODEL, 0, message)
    assert both(7, message[:1024], message[1024:]) == digest(MODEL, 7, message)


def test_head_and_tail_are_one_message() -> None:
    rng = random.Random(3)
    for _ in range(400):
        message = rng.randbytes(rng.randrange(3000))
        cut = 8 * rng.randrange(min(len(message), 1024) // 8 + 1)
        domain = rng.randrange(256)
        assert both(domain, message[:cut], message[cut:]) == both(domain, b"", message)


def test_domains_lengths_and_trailing_zeros_differ() -> None:
    seen = {both(d, b"", bytes(n)) for d in (0, 1, 255) for n in range(130)}
    assert len(seen) == 3 * 130


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="domain"):
        _cpu.digest(KEY, 256, array(b""), array(b""))
    with pytest.raises(ValueError, match="head"):
        _cpu.digest(KEY, 0, array(b"x"), array(b""))
    with pytest.raises(ValueError, match="tail"):
        _cpu.digest(KEY, 0, array(b""), np.zeros(262145, np.uint8))
    with pytest.raises(ValueError, match="key bytes"):
        _cpu.HashKey(RAW[:-1])
