# SPDX-License-Identifier: Apache-2.0
"""Short streams of real frames with duplicates of every kind, in columns, with unruly stamps."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.kernels.traffic import LINKTYPES as LINKS
from tests.kernels.traffic import build, make_spec, mutate, usable

LINKTYPES = np.array([LINKS["eth"]], np.uint16)

# Windows of every shape: by count, by time, both, cut by the limit; every profile; class policy.
WINDOWS: list[dict[str, Any]] = [
    {"count": 40},
    {"count": 7, "profile": "vlan", "layer": "inner"},
    {"count": 60, "profile": "routing", "keep": (1, 5)},
    {"count": 50, "profile": "nat"},
    {"count": 55, "profile": "routing", "guard": "ttl"},
    {"time_ns": 400},
    {"time_ns": 700, "limit": 30, "profile": "nat", "layer": "inner", "keep": (1, 5)},
    {"time_ns": 900, "count": 25, "profile": "routing"},
    {"count": 1},
    {"count": 90, "ignore_bytes": 14},
]


@functools.cache
def frames(seed: int, count: int) -> tuple[bytes, ...]:
    """Frames of which most repeat an earlier one, changed or not."""
    rng = random.Random(seed)
    specs: list[dict[str, Any]] = []
    while len(specs) < count:
        kind = rng.random() if specs else 1.0
        if kind < 0.25:
            spec = rng.choice(specs[-30:])
        elif kind < 0.55:
            spec = mutate(rng.choice(specs[-30:]), rng)[0]
        else:
            spec = make_spec(rng)
        if spec["link"] == "eth" and usable(spec):
            specs.append(spec)
    return tuple(build(spec) for spec in specs)


def columns(payloads: Sequence[bytes], stamps: list[int]) -> tuple[Any, ...]:
    """(data, offset, caplen, timestamp_ns, port, linktypes) as Window.process() takes them."""
    caplen = np.array([len(p) for p in payloads], np.uint32)
    offset = np.array([0, *itertools.accumulate(len(p) for p in payloads)][: len(payloads)], np.uint64)
    data = np.frombuffer(b"".join(payloads) + b"\0", np.uint8)
    return (data, offset, caplen, np.array(stamps, np.int64), np.zeros(len(payloads), np.uint16), LINKTYPES)


def batches(seed: int, sizes: list[int]) -> list[tuple[Any, ...]]:
    """A stream cut into batches of these sizes; a tenth of the stamps run back."""
    payloads = frames(seed, sum(sizes))
    rng = random.Random(seed + 1)
    stamps = list(itertools.accumulate(rng.choice([-40, *range(5, 50, 5)]) for _ in payloads))
    edges = [0, *itertools.accumulate(sizes)]
    return [columns(payloads[a:b], stamps[a:b]) for a, b in itertools.pairwise(edges)]
