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


def hash_key(seed: bytes | None = None) -> _cpu.HashKey:
    """A HashKey from a secret 32-byte seed, or a fresh random one (the default: per run, never stored)."""
    return _cpu.HashKey(expand(os.urandom(SEED_BYTES) if seed is None else seed))
