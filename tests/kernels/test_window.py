# SPDX-License-Identifier: Apache-2.0
"""The window executor against the definition in DESIGN.md, computed by brute force."""

from __future__ import annotations

import bisect
import itertools
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp_kernels.window import Window

from tests.kernels.executors import EXECUTORS, each_executor

LINKTYPES = np.array([1], dtype=np.uint16)


@pytest.fixture(autouse=True, scope="module", params=EXECUTORS)
def executor(request):
    yield from each_executor(sys.modules[__name__], request.param)


def columns(payloads: list[bytes], times: list[int]) -> tuple[np.ndarray, ...]:
    caplen = np.array([len(p) for p in payloads], dtype=np.uint32)
    offset = (
        np.concatenate(([0], np.cumsum(caplen)[:-1])).astype(np.uint64)
        if payloads
        else np.zeros(0, np.uint64)
    )
    data = np.frombuffer(b"".join(payloads) or b"\0", dtype=np.uint8)
    return (
        data,
        offset,
        caplen,
        np.array(times, dtype=np.int64),
        np.zeros(len(payloads), np.uint16),
        LINKTYPES,
    )


def definition(
    payloads: list[bytes], times: list[int], count: int | None, time_ns: int | None, limit: int
) -> list[int]:
    """Distance to the most recent frame that makes frame i a duplicate, 0 for none (DESIGN: Duplicate)."""
    result = []
    for i, (payload, now) in enumerate(zip(payloads, times, strict=True)):
        stop = -1
        if time_ns is not None:
            stop = max((k for k in range(i) if now - times[k] > time_ns), default=-1)
            stop = max(stop, i - limit)
        candidates = [
            j
            for j in range(i)
            if payloads[j] == payload
            and (count is None or j > i - count)
            and (time_ns is None or (times[j] <= now and j > stop))
        ]
        result.append(i - max(candidates) if candidates else 0)
    return result


def judge(
    payloads: list[bytes], times: list[int], cuts: list[int], workers: int = 1, **options: int | None
) -> tuple[list[int], list[int], list[int]]:
    window = Window(workers=workers, **options)
    distances, keeps, delays = [], [], []
    edges = sorted({0, len(payloads), *(c for c in cuts if c < len(payloads))})
    for begin, end in itertools.pairwise(edges):
        verdicts = window.process(*columns(payloads[begin:end], times[begin:end]))
        distances += list(verdicts.distance)
        keeps += list(verdicts.keep)
        delays += list(verdicts.delay_ns)
    return distances, keeps, delays


streams = st.lists(st.tuples(st.integers(0, 6), st.integers(-5, 12)), min_size=0, max_size=120)


@settings(max_examples=300, deadline=None)
@given(
    stream=streams,
    monotone=st.booleans(),
    count=st.one_of(st.none(), st.integers(0, 40)),
    time_ns=st.one_of(st.none(), st.integers(0, 30)),
    limit=st.integers(2, 64),
    cuts=st.lists(st.integers(0, 120), max_size=5),
    workers=st.sampled_from([1, 2, 3]),
)
def test_verdicts_are_the_definition_for_any_order_cut_and_number_of_workers(
    stream, monotone, count, time_ns, limit, cuts, workers
):
    if count is None and time_ns is None:
        count = 5
    payloads = [bytes([key]) * (1 + key) for key, _ in stream]
    times, now = [], 0
    for _, step in stream:
        now += abs(step) if monotone else step
        times.append(now)
    expected = definition(payloads, times, count, time_ns, limit)
    distances, keeps, delays = judge(
        payloads, times, cuts, workers, count=count, time_ns=time_ns, limit=limit
    )
    assert distances == expected
    assert keeps == [int(d == 0) for d in expected]
    assert delays == [times[i] - times[i - d] if d else 0 for i, d in enumerate(expected)]


@pytest.mark.parametrize(
    "options",
    [
        {"count": 600},
        {"count": 5000},
        {"time_ns": 3000},
        {"time_ns": 40_000},
        {"time_ns": 9000, "count": 700},
        {"time_ns": 10**9, "limit": 3000},
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
def test_tables_that_grow_and_wrap_stay_exact(executor, options, backwards):
    rng = np.random.default_rng(7)
    n = 30_000
    keys = rng.integers(0, 4000, n)
    times = np.cumsum(rng.integers(-8 if backwards else 0, 12, n))
    data = keys.astype("<u4").view(np.uint8)
    offset, caplen = np.arange(n, dtype=np.uint64) * 4, np.full(n, 4, np.uint32)
    port = np.zeros(n, np.uint16)
    expected = definition_by_key(keys.tolist(), times.tolist(), **options)
    for workers in (1, 2, 5) if executor == "cpu" else (1,):
        window = Window(workers=workers, **options)
        got = []
        for begin in range(0, n, 4099):
            part = slice(begin, begin + 4099)
            verdicts = window.process(data, offset[part], caplen[part], times[part], port[part], LINKTYPES)
            got += np.asarray(verdicts.distance).tolist()
        assert got == expected


def definition_by_key(
    keys: list[int],
    times: list[int],
    count: int | None = None,
    time_ns: int | None = None,
    limit: int = 10**6,
) -> list[int]:
    """`definition`, made fast enough for long streams by looking at earlier frames of the key only."""
    earlier: dict[int, list[int]] = {}
    # Suffix minima of the stamps: the last frame with a stamp below some bound is always one of them.
    low_index: list[int] = []
    low_time: list[int] = []
    result = []
    for i, (key, now) in enumerate(zip(keys, times, strict=True)):
        floor = -1 if count is None else i - count
        if time_ns is not None:
            below = bisect.bisect_left(low_time, now - time_ns)
            floor = max(floor, i - limit, low_index[below - 1] if below else -1)
            while low_time and low_time[-1] >= now:
                low_time.pop()
                low_index.pop()
            low_time.append(now)
            low_index.append(i)
        distance = 0
        for j in reversed(earlier.setdefault(key, [])):
            if j <= floor:
                break
            if time_ns is None or times[j] <= now:
                distance = i - j
                break
        earlier[key].append(i)
        result.append(distance)
    return result


def test_a_large_window_reaches_exactly_that_far(executor):
    # The emulation takes a minute for a million: tests/gpu has that among its long ones.
    size = 1_000_000 if executor == "cpu" else 20_000
    data = np.arange(size + 1, dtype=np.uint64)
    data[size] = data[0]  # `size` back: outside a window that counts the current frame
    again = np.array([1], dtype=np.uint64)  # `size` after frame 1 as well
    for tail, expected in ((again, 0), (np.array([2], dtype=np.uint64), size - 1)):
        window = Window(count=size)
        everything = np.concatenate([data, tail])
        total = len(everything)
        verdicts = window.process(
            everything.view(np.uint8),
            np.arange(total, dtype=np.uint64) * 8,
            np.full(total, 8, np.uint32),
            np.zeros(total, np.int64),
            np.zeros(total, np.uint16),
            LINKTYPES,
        )
        distance = np.asarray(verdicts.distance)
        assert distance[size] == 0
        assert distance[size + 1] == expected


def test_counting_a_time_window_that_its_limit_cuts():
    window = Window(time_ns=1000, limit=4)
    window.process(*columns([bytes([i]) for i in range(10)], list(range(10))))
    assert window.statistics()["limit_reached"] == 6
    both = Window(time_ns=1000, limit=8, count=4)
    both.process(*columns([bytes([i]) for i in range(10)], list(range(10))))
    assert both.statistics()["limit_reached"] == 0, "the count window was asked for"


@pytest.mark.parametrize(
    ("column", "value"), [(1, 2**40), (1, 2**64 - 1), (2, 2**31), (4, 7)], ids=["far", "wrap", "long", "port"]
)
def test_frames_outside_their_buffer_are_refused(column, value):
    arrays = [a.copy() for a in columns([b"abcd", b"efgh"], [0, 1])]
    arrays[column][1] = value
    with pytest.raises(ValueError, match="frame 1 of the batch"):
        Window(count=5).process(*arrays)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"count": -1},
        {"count": 1_000_001},
        {"time_ns": -1},
        {"count": 5, "profile": "nope"},
        {"count": 5, "layer": "middle"},
        {"count": 5, "limit": 1},
        {"count": 5, "workers": 0},
        {"count": 5, "profile": "nat", "ignore_bytes": 4},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match=r"\w"):
        Window(**options)


def test_a_key_differs_from_run_to_run_and_verdicts_do_not():
    payloads = [b"a", b"b", b"a", b"a"]
    results = {tuple(judge(payloads, [0, 1, 2, 3], [], count=5, seed=None)[0]) for _ in range(5)}
    assert results == {(0, 0, 2, 1)}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("workers", [1, 2])
def test_nat_tells_the_nearer_of_two_matches(order, workers):
    """One earlier frame shares the source endpoint, another the destination: the more recent one counts."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.l2 import Ether

    def frame(source: str, destination: str) -> bytes:
        packet = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(
            src=source, dst=destination, id=7
        )
        return bytes(packet / TCP(sport=1000, dport=80, seq=5) / (b"x" * 20))

    earlier = [frame("10.0.0.1", "10.9.9.9"), frame("10.8.8.8", "10.0.0.2")]
    payloads = [*(earlier[k] for k in order), frame("10.0.0.1", "10.0.0.2")]
    window = Window(count=10, profile="nat", workers=workers)
    verdicts = window.process(*columns(payloads, [100, 200, 1000]))
    assert list(verdicts.distance) == [0, 0, 1]
    assert list(verdicts.delay_ns) == [0, 0, 800]
    assert list(verdicts.type) == [0, 0, 4]
    assert window.statistics()["by_type"][4]["frames"] == 1, "counted once, though both tables matched"
