# SPDX-License-Identifier: Apache-2.0
"""duplicate_window (hdl/rtl/dedup) against the definition, frame by frame, with stamps in any order."""

from __future__ import annotations

import ctypes
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT

LIBRARY = ROOT / "build/hdl/libduplicate_window.so"
SIZE = 8192


class Block:
    def __init__(self) -> None:
        assert LIBRARY.exists(), "run make hdl"
        self.library = ctypes.CDLL(str(LIBRARY))
        self.library.window_new.restype = ctypes.c_void_p
        self.library.window_judge.restype = ctypes.c_uint64
        self.handle = ctypes.c_void_p(self.library.window_new())

    def judge(
        self, digest: Any, time_ns: Any, count: int | None, window_ns: int | None
    ) -> tuple[Any, Any, int]:
        """(duplicate bool[n], cycles u32[n], limited) of a stream from an empty window on."""
        digest, time_ns = np.ascontiguousarray(digest, np.uint64), np.ascontiguousarray(time_ns, np.int64)
        n = len(digest)
        duplicate, cycles = np.zeros(n, np.uint8), np.zeros(n, np.uint32)
        limited = ctypes.c_uint64()
        self.library.window_start(
            self.handle,
            ctypes.c_int64(-1 if count is None else count),
            ctypes.c_int64(-1 if window_ns is None else window_ns),
        )
        judged = self.library.window_judge(
            self.handle,
            *(ctypes.c_void_p(a.ctypes.data) for a in (digest, time_ns)),
            ctypes.c_int64(window_ns or 0),
            ctypes.c_uint64(n),
            *(ctypes.c_void_p(a.ctypes.data) for a in (duplicate, cycles)),
            ctypes.byref(limited),
        )
        assert judged == n
        assert self.library.window_longest(self.handle) == min(int(cycles.max()), 65535)
        return duplicate.astype(bool), cycles, limited.value


@pytest.fixture(scope="module")
def block() -> Iterator[Block]:
    block = Block()
    yield block
    block.library.window_delete(block.handle)


def model(digest: Any, time_ns: Any, count: int | None, window_ns: int | None) -> tuple[Any, int]:
    """DESIGN's words, one frame at a time: (duplicate, how many time windows the size cut)."""
    digest, time_ns = np.asarray(digest, np.uint64), np.asarray(time_ns, np.int64)
    reach = SIZE if count is None else min(count, SIZE)
    places: dict[int, list[int]] = {}
    duplicate = np.zeros(len(digest), bool)
    limited = 0
    for i, (key, t) in enumerate(zip(digest.tolist(), time_ns.tolist(), strict=True)):
        first = max(0, i - reach + 1)  # j > i - N
        if window_ns is not None:
            old = np.flatnonzero(time_ns[first:i] < t - window_ns)
            if len(old):
                first += int(old[-1]) + 1  # j > s(i)
            elif count is None and i >= SIZE:
                limited += 1
        for j in reversed(places.setdefault(key, [])):
            if j < first:
                break
            if window_ns is None or time_ns[j] <= t:
                duplicate[i] = True
                break
        places[key].append(i)
    return duplicate, limited


def same(block: Block, digest: Any, time_ns: Any, count: int | None, window_ns: int | None) -> Any:
    got, cycles, limited = block.judge(digest, time_ns, count, window_ns)
    expected, cut = model(digest, time_ns, count, window_ns)
    wrong = np.flatnonzero(got != expected)
    assert not len(wrong), f"{len(wrong)} of {len(got)}, first frame {wrong[0]}: window {count}, {window_ns}"
    assert limited == cut
    return expected, cycles


def repeating(rng: np.random.Generator, n: int, *, within: int, share: float) -> Any:
    """n random digests, of which ``share`` repeat one of the ``within`` before."""
    digest = rng.integers(0, 1 << 64, n, np.uint64)
    back = rng.integers(1, within, n)
    for i in np.flatnonzero(rng.random(n) < share).tolist():
        if i >= back[i]:
            digest[i] = digest[i - back[i]]
    return digest


def rising(rng: np.random.Generator, n: int, mean: int = 200) -> Any:
    return 10**18 + np.cumsum(rng.integers(0, 2 * mean, n))


def four_ports(rng: np.random.Generator, n: int) -> Any:
    """Stamps of four ports in the order in which their frames ended: long frames come late."""
    frames = []
    for port in range(4):
        t = 10**18 + port
        lengths = rng.choice([84, 84, 300, 1538, 9038] if port else [84], n // 2 if port == 0 else n // 4)
        start = t + 8 * np.cumsum(lengths)
        frames.append(np.stack([start, start + 8 * lengths], 1))
    both = np.concatenate(frames)
    return both[np.argsort(both[:, 1], kind="stable")][:n, 0]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 600, 8191, 8192])
def test_count(block, count):
    rng = np.random.default_rng(count)
    n = 3 * SIZE
    digest = repeating(rng, n, within=max(2, min(2 * count, n)), share=0.6)
    expected, _ = same(block, digest, rising(rng, n), count, None)
    assert expected.any() == (count > 1)
    assert not expected.all()


@pytest.mark.parametrize("window_ns", [0, 1, 500, 50_000, 10**6, 2**61])
def test_time(block, window_ns):
    rng = np.random.default_rng(window_ns % 1000 + 5)
    n = 20_000
    within = SIZE + 100 if window_ns > 10**5 else 500 if window_ns > 500 else 5
    digest = repeating(rng, n, within=within, share=0.5)
    expected, _ = same(block, digest, rising(rng, n, 200 if window_ns > 500 else 1), None, window_ns)
    assert expected.any()


@pytest.mark.parametrize(
    ("count", "window_ns"), [(None, 10_000), (None, 300_000), (600, 20_000), (8192, 10**6)]
)
@pytest.mark.parametrize("order", ["ports", "wild", "back", "steps"])
def test_stamps_that_run_backwards(block, count, window_ns, order):
    rng = np.random.default_rng(7)
    n = 20_000
    if order == "ports":
        time_ns = four_ports(rng, n)
    elif order == "wild":
        time_ns = 10**12 + rng.integers(0, 2 * window_ns, n) + np.arange(n) * 20
    elif order == "back":  # of one port's load, a new epoch: hours back, and then again forward
        time_ns = rising(rng, n)
        time_ns[n // 3 : n // 2] -= 10**13
    else:
        time_ns = 10**12 + np.repeat(rng.integers(0, 4 * window_ns, n // 50), 50) // 100 * 100
    n = len(time_ns)
    digest = repeating(rng, n, within=2000, share=0.5)
    expected, _ = same(block, digest, time_ns, count, window_ns)
    assert expected.any()
    assert not expected.all()


def test_few_digests(block):
    """Floods of a handful of frames: chains of one digest's frames as long as the window."""
    rng = np.random.default_rng(3)
    n = 20_000
    for kinds in (1, 2, 5):
        digest = rng.integers(0, 1 << 64, kinds, np.uint64)[rng.integers(0, kinds, n)]
        for time_ns in (rising(rng, n), four_ports(rng, n)):
            same(block, digest[: len(time_ns)], time_ns, None, 30_000)
            same(block, digest[: len(time_ns)], time_ns, 40, 30_000)
        same(block, digest, rising(rng, n), 2, None)


def test_digests_of_one_bucket(block):
    """Equal in the bits that choose the bucket, whichever they are of the lowest or the highest 13."""
    rng = np.random.default_rng(4)
    n = 3000
    for mask in (0xFFFFFFFFFFFFE000, 0x0007FFFFFFFFFFFF, 0x1FFF, 0xFFF8000000000000):
        digest = repeating(rng, n, within=300, share=0.5) & np.uint64(mask)
        same(block, digest, rising(rng, n), 200, None)


@pytest.mark.parametrize("mask", [2**64 - 1, SIZE - 1], ids=["random", "equal but for the bucket"])
def test_numbers_come_round(block, mask):
    """Buckets quiet for about the window's size or its multiples: what they point at is never new."""
    rng = np.random.default_rng(5)
    n = 12 * SIZE
    quiet = np.uint64(1 << 12)
    digest = rng.integers(0, 1 << 64, n, np.uint64) & ~quiet  # half of the buckets are busy
    for k in range(600):
        first = int(rng.integers(0, n - 5 * SIZE))
        near, far = int(rng.integers(-2, 3)), int(rng.integers(1, SIZE // 2))
        again = first + (SIZE + near, 2 * SIZE + near, 2 * SIZE + far, 4 * SIZE + near)[k % 4]
        digest[first] = digest[again] = rng.integers(0, 1 << 64, dtype=np.uint64) | quiet
        digest[again + 3] = digest[again]
        digest[again + 5] ^= digest[again + 5] & np.uint64(SIZE - 1) ^ digest[again] & np.uint64(SIZE - 1)
    digest &= np.uint64(mask)
    same(block, digest, rising(rng, n), 8192, None)
    same(block, digest, rising(rng, n), None, 10**6)


def test_time_window_that_ends_with_the_ring(block):
    """The oldest frame of the ring just within the window, or just outside: cut or not."""
    n = 2 * SIZE
    time_ns = 10**12 + 100 * np.arange(n)
    digest = repeating(np.random.default_rng(9), n, within=SIZE, share=0.5)
    for window_ns, cut in ((100 * (SIZE - 1) - 1, 0), (100 * (SIZE - 1), SIZE), (100 * SIZE, SIZE)):
        assert block.judge(digest, time_ns, None, window_ns)[2] == cut
        same(block, digest, time_ns, None, window_ns)


def test_a_chain_has_each_digest_once(block):
    """Two digests of a bucket by turns, thousands of times: a third one there does not meet them all."""
    n = 6000
    digest = np.full(n, 5, np.uint64) | (np.arange(n, dtype=np.uint64) % np.uint64(2) << np.uint64(20))
    digest[-100:] = np.uint64(5) | (np.arange(7, 107, dtype=np.uint64) << np.uint64(20))
    expected, cycles = same(block, digest, 10**12 + np.arange(n), 8192, None)
    assert expected.sum() == n - 102
    assert cycles[n - 100] < 30 and cycles.max() < 5 + 3 * 103 + 10


def test_random_small(block):
    """Many short streams in which everything is near: stamps, digests, windows."""
    rng = np.random.default_rng(6)
    for _ in range(300):
        n = int(rng.integers(1, 60))
        digest = rng.integers(1, 6, n, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        time_ns = np.maximum(0, np.cumsum(rng.integers(-6, 8, n)))
        count = None if rng.random() < 0.5 else int(rng.integers(0, 30))
        window_ns = int(rng.integers(0, 12)) if count is None or rng.random() < 0.6 else None
        same(block, digest, time_ns, count, window_ns)


def test_cycles(block):
    """At line rate four ports bring a frame every 21 cycles; on average the window must be faster."""
    rng = np.random.default_rng(8)
    n = 6 * SIZE
    for share in (0.0, 0.5, 1.0):
        digest = repeating(rng, n, within=SIZE, share=share)
        for count, window_ns, time_ns in (
            (8192, None, rising(rng, n)),
            (None, 10**9, rising(rng, n, 168)),
            (None, 10**5, four_ports(rng, n)),
        ):
            _, cycles, _ = block.judge(digest[: len(time_ns)], time_ns, count, window_ns)
            full = cycles[SIZE:]
            print(share, count, window_ns, full.mean(), full.max())
            assert full.mean() <= 18
            # What a store of 32 KiB takes in meanwhile: 340 frames of 84 cycles.
            backlog = np.maximum.accumulate(np.cumsum(full.astype(np.int64) - 21)[::-1])[::-1]
            assert (backlog - np.cumsum(full.astype(np.int64) - 21)).max() < 10_000


@pytest.mark.long
def test_random_long(block):
    rng = np.random.default_rng(random.Random().randrange(1 << 30))
    for _ in range(40):
        n = int(rng.integers(SIZE, 5 * SIZE))
        digest = repeating(rng, n, within=int(rng.integers(2, 2 * SIZE)), share=rng.random())
        time_ns = four_ports(rng, n) if rng.random() < 0.5 else rising(rng, n) + rng.integers(0, 10**5, n)
        count = None if rng.random() < 0.5 else int(rng.integers(0, SIZE + 1))
        window_ns = int(10 ** (rng.random() * 7)) if count is None or rng.random() < 0.6 else None
        same(block, digest[: len(time_ns)], time_ns, count, window_ns)
