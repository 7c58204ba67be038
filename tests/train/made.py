# SPDX-License-Identifier: Apache-2.0
"""What the tests of trains share: trains, a plain model of their schedule, the truth of departures."""

from __future__ import annotations

import random
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from twinstamp.train import (
    Chirp,
    Choice,
    Constant,
    Fixed,
    GapList,
    Poisson,
    SizeList,
    Train,
    Uniform,
    Vlan,
)

ADDRESSES: dict[str, Any] = {
    "source": "10.0.0.1",
    "destination": "10.0.0.2",
    "source_mac": "02:00:00:00:00:01",
    "destination_mac": "02:00:00:00:00:02",
}
ADDRESSES6 = ADDRESSES | {"source": "2001:db8::1", "destination": "2001:db8:1::2"}
Q64 = 1 << 64


def make(packets: int = 10, gap: Any = None, size: Any = 90, **values: Any) -> Train:
    """A train with defaults; size: bytes or a law."""
    law = Fixed(size) if isinstance(size, int) else size
    return Train(packets=packets, gap=gap or Constant("10us"), size=law, **(ADDRESSES | values))


def philox(counter: int, high: int, key: int) -> tuple[int, int]:
    """One block of Philox2x32-10, in plain integers."""
    left, right = counter, high
    for i in range(10):
        product = 0xD256D193 * left
        left, right = (product >> 32) ^ ((key + i * 0x9E3779B9) % 2**32) ^ right, product % 2**32
    return left, right


def log_gap(word: int, scale: int) -> int:
    """The exponential part of a Poisson gap: digits of the logarithm one by one, in plain integers."""
    odd = 2 * word + 1
    zeros = 33 - odd.bit_length()
    y = Fraction((odd << zeros) // 2, 1 << 31)
    digits = 0
    for _ in range(24):
        y *= y
        digit = y >= 2
        y = y / 2 if digit else y
        y = Fraction(int(y * 2**31), 2**31)
        digits = 2 * digits + digit
    return ((zeros + 1 << 24) - digits) * scale >> 24


def model(train: Train, start: Fraction = Fraction(0)) -> list[tuple[int, int]]:
    """(time in 2^-64 s, size) of each packet, by the words of docs/trains.md, one at a time."""
    out = []
    for repeat in range(train.repeats):
        time = round(start * Q64) + repeat * round(Fraction(train.period or 0) * Q64)
        number = 0
        for burst in range(train.bursts):
            if burst:
                time += round(Fraction(train.burst_gap) * Q64)
            chirp = round(Fraction(train.gap.first) * Q64) if isinstance(train.gap, Chirp) else 0
            for place in range(train.packets):
                word0, word1 = philox(number, train.seed >> 32, train.seed % 2**32)
                match train.size:
                    case Fixed(size):
                        pass
                    case SizeList(sizes):
                        size = sizes[place % len(sizes)]
                    case Uniform(least, most):
                        size = least + (word1 * (most - least + 1) >> 32)
                    case Choice(sizes):
                        size = sizes[word1 * len(sizes) >> 32]
                out.append((time, size))
                if place < train.packets - 1:
                    match train.gap:
                        case Constant(gap):
                            time += round(gap * Q64)
                        case GapList(gaps):
                            time += round(gaps[place % len(gaps)] * Q64)
                        case Poisson():
                            time += round(train.gap.minimum * Q64) + log_gap(word0, train.gap.scale_q64)
                        case Chirp():
                            time += chirp
                            chirp = chirp * round(train.gap.ratio * 2**31) >> 31
                number += 1
    return out


times = st.fractions(0, Fraction(1, 1000), max_denominator=10**12)
gaps = st.one_of(
    st.builds(Constant, times),
    st.lists(times, min_size=1, max_size=9).map(tuple).map(GapList),
    st.tuples(times, times).map(lambda t: Poisson(t[0] + t[1] + Fraction(1, 10**9), t[1])),
    st.builds(Chirp, times, st.fractions("1/10", "11/10", max_denominator=1000)),
)
bytes_ = st.integers(90, 9000)
sizes = st.one_of(
    st.builds(Fixed, bytes_),
    st.lists(bytes_, min_size=1, max_size=9).map(tuple).map(SizeList),
    st.tuples(bytes_, bytes_).map(lambda b: Uniform(min(b), max(b))),
    st.lists(bytes_, min_size=1, max_size=9).map(tuple).map(Choice),
)


@st.composite
def trains(draw: st.DrawFn) -> Train:
    bursts, repeats = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    version = draw(st.sampled_from((ADDRESSES, ADDRESSES6)))
    tags = st.builds(Vlan, st.integers(0, 4094), st.integers(0, 7), st.sampled_from((0x8100, 0x88A8)))
    size = draw(sizes)
    vlans = tuple(draw(st.lists(tags, max_size=2)))
    least = (90 if version is ADDRESSES else 110) + 4 * len(vlans)
    if size.limits[0] < least:
        size = Fixed(least)
    port = draw(st.integers(1, 65535))
    return Train(
        packets=draw(st.integers(1, 30)),
        gap=draw(gaps),
        size=size,
        bursts=bursts,
        burst_gap=draw(times) + Fraction(1, 10**6) if bursts > 1 else Fraction(0),
        repeats=repeats,
        period=Fraction(draw(st.integers(1, 10**6)), 10**7) if repeats > 1 else None,
        seed=draw(st.integers(0, 2**64 - 1)),
        source_port=port,
        source_ports=draw(st.integers(1, min(1000, 65536 - port))),
        vlans=vlans,
        name=draw(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=20)),
        **version,
    )


def some_train(rng: random.Random, **values: Any) -> Train:
    """A train that fits a wire, of random laws."""
    gap = rng.choice(
        [
            Constant("1.7us"),
            GapList(("1.3us", "5us", "1/30 ms")),
            Poisson("4us", "1.4us"),
            Chirp("20us", "0.9"),
        ]
    )
    size = rng.choice([Fixed(90), SizeList((64, 90, 120)), Uniform(64, 130), Choice((64, 64, 100))])
    return make(20, gap, size, seed=rng.getrandbits(64), **values)


def departures_q64(simulated: Any, port: int, cable_ns: int) -> np.ndarray:
    """True card time of each SFD on the pins of whoever sends to ``port`` over a cable, 2^-64 s, object[n].

    Sender and receiver are one card at its nominal rate, whose time goes on 2^72 / 125,000,000 a cycle.
    """
    truth = simulated.truth(port)
    q64 = truth["sfd_q32"].astype(object) * 2**32 + truth["sfd_rest"].astype(object)
    return q64 - round(Fraction(cable_ns, 10**9) * Q64)
