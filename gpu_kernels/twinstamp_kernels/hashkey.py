# SPDX-License-Identifier: Apache-2.0
"""The secret key of the 128-bit frame digest (docs/decisions/0001-keyed-digest.md)."""

from __future__ import annotations

import os

from twinstamp_kernels import _cpu

SEED_BYTES = 32


def expand(seed: bytes) -> bytes:
    """Expands a 32-byte secret seed into the words of a HashKey with SHAKE-256 (FIPS 202).

    Raises ValueError where the seed is not 32 bytes.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a hash seed is {SEED_BYTES} bytes, {len(seed)} given")
    from hashlib import shake_256

    return shake_256(seed).digest(_cpu.HASH_KEY_BYTES)


def half_key(key: bytes, longest: int) -> tuple[bytes, bytes]:
    """What half 0 of the digest of at most ``longest`` bytes needs of ``expand``'s bytes, for a card.

    Returns (level 1's words, level 2's limbs of 16 bytes), as they lie in HashKey (hash.h).
    Raises ValueError where ``key`` has another size.
    """
    if len(key) != _cpu.HASH_KEY_BYTES:
        raise ValueError(f"a hash key is {_cpu.HASH_KEY_BYTES} bytes, {len(key)} given")
    streams = _cpu.HASH_STREAMS // 2  # of one half
    words = _cpu.HASH_BLOCK_BYTES // 4 + 2 * (streams - 1)
    limbs = 2 + streams * -(-longest // _cpu.HASH_BLOCK_BYTES)
    return key[: 4 * words], key[_cpu.HASH_LIMBS_AT : _cpu.HASH_LIMBS_AT + 16 * limbs]


def hash_key(seed: bytes | None = None) -> _cpu.HashKey:
    """A HashKey from a secret 32-byte seed, or a fresh random one (the default: per run, never stored)."""
    return _cpu.HashKey(expand(os.urandom(SEED_BYTES) if seed is None else seed))
