# SPDX-License-Identifier: Apache-2.0
"""The RTL's schedule against Train.schedule, bit for bit: launch times, sizes, sequence, ports, order."""

from __future__ import annotations

import ctypes
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.train import Chirp, Choice, Constant, GapList, Poisson, SizeList, Uniform
from twinstamp.train.image import DESCRIPTORS_AT, LISTS_AT, descriptor, lists

from tests.train.made import make, trains

LIBRARY = Path(__file__).resolve().parents[2] / "build" / "hdl" / "libtrain_schedule.so"
HEAD = np.dtype(
    [
        ("q32", "u8"), ("low", "u4"), ("sequence", "u4"), ("sums", "u4"), ("wait", "u4"), ("size", "u2"),
        ("port", "u2"), ("train", "u1"), ("law", "u1"), ("reserved", "u2"),
    ]
)  # fmt: skip


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    path = Path(os.environ.get("TWINSTAMP_TRAIN_SIM") or LIBRARY)
    if not path.is_file():
        pytest.skip("the bench of train_schedule is not built: run `make hdl`")
    out = ctypes.CDLL(str(path))
    pointer, u32 = ctypes.c_void_p, ctypes.c_uint32
    out.train_bench_new.restype = pointer
    for name, arguments in (
        ("delete", []), ("write", [u32, u32]), ("arm", [u32]), ("state", []),
        ("take", [pointer, ctypes.c_uint64, u32]),
    ):  # fmt: skip
        getattr(out, f"train_bench_{name}").argtypes = [pointer, *arguments]
    out.train_bench_take.restype = ctypes.c_uint64
    return out


class Bench:
    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        self.handle = library.train_bench_new()
        self.free = LISTS_AT

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.library.train_bench_delete(self.handle)

    def write(self, word: int, values: list[int]) -> None:
        for i, value in enumerate(values):
            self.library.train_bench_write(self.handle, word + i, value)

    def load(self, slot: int, train, start: Fraction) -> None:
        words = descriptor(train, start_q64=round(start * 2**64), lists_at=self.free, report=False)
        self.write(DESCRIPTORS_AT + 32 * slot, words)
        self.write(self.free, lists(train))
        self.free += len(lists(train))

    def run(self, room: int, spacing: int = 84) -> np.ndarray:
        out = np.zeros(room, HEAD)
        n = self.library.train_bench_take(self.handle, out.ctypes.data, room, spacing)
        return out[:n]


def compare(heads: np.ndarray, train, start: Fraction) -> None:
    schedule = train.schedule(start)
    assert len(heads) == len(schedule)
    assert (heads["q32"] == schedule.q32()).all()
    assert (heads["low"] == (schedule.fraction & np.uint64(0xFFFFFFFF))).all()
    assert (heads["size"] == schedule.size).all()
    n = np.arange(len(schedule))
    assert (heads["sequence"] == n).all()
    assert (heads["port"] == train.source_port + n % train.source_ports).all()


@settings(max_examples=100, deadline=None)
@given(trains(), st.integers(1, 2**31), st.fractions(0, 1, max_denominator=10**18))
def test_any_train(library, train, second, fraction):
    start = second + fraction
    with Bench(library) as bench:
        bench.load(0, train, start)
        bench.library.train_bench_arm(bench.handle, 1)
        compare(bench.run(10_000), train, start)
        assert bench.library.train_bench_state(bench.handle) == 0x010  # done


@pytest.mark.parametrize(
    ("gap", "size"),
    [
        (Constant("1000.3ns"), Uniform(64, 9018)),
        (GapList(tuple(f"{n}.7us" for n in range(1, 301))), SizeList(tuple(range(64, 364)))),
        (Poisson("2us", "672ns"), Choice(tuple(range(64, 1000)))),
        (Poisson("1/3 s"), Uniform(64, 128)),
        (Chirp("1s", "0.999"), Choice((64,) * 7 + (594,) * 4 + (1518,))),
    ],
    ids=["constant", "list", "poisson", "slow poisson", "chirp"],
)
def test_long_trains_and_heads_in_time(library, gap, size):
    """50,000 packets of each law; the next head stands within the shortest frame, 84 cycles."""
    train = make(10_000, gap, size, bursts=5, burst_gap="1ms", seed=0x0123456789ABCDEF)
    start = Fraction(1_800_000_000) + Fraction(1, 7)
    with Bench(library) as bench:
        bench.load(3, train, start)
        bench.library.train_bench_arm(bench.handle, 8)
        heads = bench.run(60_000)
        compare(heads, train, start)
        assert heads["wait"][1:].max() == 84


@settings(max_examples=40, deadline=None)
@given(st.lists(trains(), min_size=4, max_size=4), st.lists(st.integers(0, 10**6), min_size=4, max_size=4))
def test_four_trains_come_in_order(library, four, offsets):
    """By time, the lower number first where two are equal; each by its own law."""
    four = [replace(train, repeats=1, period=None) for train in four]
    starts = [1000 + Fraction(ns, 10**9) for ns in offsets]
    with Bench(library) as bench:
        for slot, (train, start) in enumerate(zip(four, starts, strict=True)):
            bench.load(slot, train, start)
        bench.library.train_bench_arm(bench.handle, 15)
        heads = bench.run(100_000)
    order = []
    for slot, (train, start) in enumerate(zip(four, starts, strict=True)):
        compare(heads[heads["train"] == slot], train, start)
        schedule = train.schedule(start)
        order += [(schedule.q64(i), slot) for i in range(len(schedule))]
    # A law may let a train stand still for a while (gap 0): one train's own packets stay in sequence.
    assert [slot for _, slot in sorted(order)] == heads["train"].tolist()


def test_arming_while_active_is_ignored_and_a_stop_ends_it(library):
    train = make(1000, Constant("1us"))
    with Bench(library) as bench:
        bench.load(0, train, Fraction(5))
        bench.library.train_bench_arm(bench.handle, 1)
        first = bench.run(10)
        bench.library.train_bench_arm(bench.handle, 1)
        compare(np.concatenate([first, bench.run(2000)]), train, Fraction(5))
        bench.library.train_bench_arm(bench.handle, 1)
        compare(bench.run(2000), train, Fraction(5))
