# SPDX-License-Identifier: Apache-2.0
"""The window's launcher and kernels on the emulated device, against the CPU executor and the definition."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.io.files import open_capture
from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.window import DeviceWindow
from twinstamp_kernels.hashkey import expand
from twinstamp_kernels.keys import frame_keys
from twinstamp_kernels.window import CLASSES, Digests, Window

from tests.conftest import captures
from tests.emulation.device import EmulatedDevice
from tests.kernels.test_window import columns, definition
from tests.kernels.traffic import LINKTYPES, build, make_spec, usable

SEED = bytes(range(32))

Columns = tuple[np.ndarray, ...]  # data, offset, caplen, timestamp_ns, port, linktypes


def device_window(device: Any, **options: Any) -> DeviceWindow:
    return DeviceWindow(device, hash_key=expand(SEED), **options)


def cuts(frames: Columns, edges: list[int]) -> list[Columns]:
    n = len(frames[1])
    edges = sorted({0, n, *(edge for edge in edges if edge < n)})
    return [
        (frames[0], *(column[low:high] for column in frames[1:5]), frames[5])
        for low, high in itertools.pairwise(edges)
    ]


def assert_equal(
    frames: Columns,
    edges: list[int] = [],  # noqa: B006
    *,
    device: EmulatedDevice | None = None,
    chunk: int | None = None,
    other_edges: list[int] | None = None,
    **options: Any,
) -> None:
    """Verdicts, statistics and state of the device equal the CPU's, batch after batch."""
    cpu = Window(seed=SEED, **options)
    options["keep"] = tuple(options.get("keep", ()))
    device = device or EmulatedDevice(interval=0)
    gpu = device_window(device, chunk=chunk, **options)
    expected = [cpu.process(*part) for part in cuts(frames, edges if other_edges is None else other_edges)]
    got = [gpu.process(*part) for part in cuts(frames, edges)]
    for name in ("keep", "type", "distance", "delay_ns"):
        want = np.concatenate([np.asarray(getattr(verdicts, name)) for verdicts in expected] or [[]])
        have = np.concatenate([np.asarray(getattr(verdicts, name)) for verdicts in got] or [[]])
        np.testing.assert_array_equal(have, want, err_msg=name)
    want, have = cpu.statistics(), gpu.statistics().as_dict()
    del want["memory_bytes"], have["memory_bytes"]
    assert have == want
    # What the host keeps is enough to go on with.
    state = gpu.state()
    assert state.index == len(frames[1])
    restored = _cpu_from(state, **options)
    again = cuts(frames, [])[:1]
    for part in again:
        want_next, have_next = cpu.process(*part), restored.process(*part, True)
        for want_column, have_column in zip(want_next, have_next, strict=True):
            np.testing.assert_array_equal(np.asarray(have_column), np.asarray(want_column))
    gpu.close()
    device.close()


def _cpu_from(state: Any, **options: Any) -> Any:
    window = Window(seed=SEED, **options)._window
    window.restore(
        state.index,
        state.key.reshape(-1),
        None if state.second is None else state.second.reshape(-1),
        state.two,
        None if state.tags is None else state.tags.reshape(-1),
        state.timestamp_ns,
    )
    return window


def keyed(keys: Any, times: Any) -> Columns:
    """Frames of 9 to 40 bytes that are copies where the keys are equal."""
    keys = np.asarray(keys)
    return columns([int(key).to_bytes(8, "little") * (1 + int(key) % 4) + b"x" for key in keys], list(times))


streams = st.lists(st.tuples(st.integers(0, 6), st.integers(-5, 12)), min_size=0, max_size=120)


@settings(max_examples=150, deadline=None)
@given(
    stream=streams,
    monotone=st.booleans(),
    count=st.one_of(st.none(), st.integers(0, 40)),
    time_ns=st.one_of(st.none(), st.integers(0, 30)),
    limit=st.integers(2, 64),
    edges=st.lists(st.integers(0, 120), max_size=5),
    chunk=st.sampled_from([1, 7, 64, 200]),
    seed=st.integers(0, 1 << 30),
    interval=st.sampled_from([1, 5, 40]),
)
def test_the_definition_whatever_the_order_the_cut_and_the_schedule(
    stream, monotone, count, time_ns, limit, edges, chunk, seed, interval
):
    if count is None and time_ns is None:
        count = 5
    times, now = [], 0
    for _, step in stream:
        now += abs(step) if monotone else step
        times.append(now)
    payloads = [bytes([key]) * (1 + key) for key, _ in stream]
    device = EmulatedDevice(seed=seed, interval=interval)
    try:
        gpu = device_window(device, count=count, time_ns=time_ns, limit=limit, chunk=chunk)
        parts = cuts(columns(payloads, times), edges)
        distances = [d for part in parts for d in gpu.process(*part).distance]
    finally:
        device.close()
    assert distances == definition(payloads, times, count, time_ns, limit)


@pytest.mark.parametrize(
    "options",
    [
        {"count": 2},
        {"count": 600},
        {"count": 5000},
        {"time_ns": 3000},
        {"time_ns": 40_000},
        {"time_ns": 9000, "count": 700},
        {"time_ns": 10**9, "limit": 3000},
        {"time_ns": 2**62 - 1, "limit": 500},
    ],
)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("kinds", [1, 40, 4000])
def test_equals_the_cpu(options, backwards, kinds):
    rng = np.random.default_rng(7)
    n = 20_000
    frames = keyed(rng.integers(0, kinds, n), np.cumsum(rng.integers(-8 if backwards else 0, 12, n)))
    assert_equal(frames, [1, 2, 700, 9000, 9001], chunk=4096, other_edges=[5000], **options)
    assert_equal(frames, [], chunk=1 << 15, **options)


@pytest.mark.parametrize("extreme", ["down", "zigzag", "ends"])
def test_stamps_at_their_worst(extreme):
    """Equal keys with stamps that fall all the time, and stamps at the ends of their range."""
    n = 6000
    rng = np.random.default_rng(3)
    stamps = {
        "down": np.arange(n, 0, -1) * 1000,
        "zigzag": np.where(np.arange(n) % 2, np.arange(n), -np.arange(n)) * 977,
        "ends": rng.choice(np.array([-(2**63), 2**63 - 1, 0, 5, -5]), n),
    }[extreme].astype(np.int64)
    for keys in (np.zeros(n, int), rng.integers(0, 50, n)):
        frames = keyed(keys, stamps)
        assert_equal(frames, [100, 3000], chunk=1000, time_ns=50_000, limit=2000)
        assert_equal(frames, [100, 3000], chunk=1000, time_ns=50_000, limit=2000, count=300)
        assert_equal(frames, [100, 3000], chunk=1000, count=300)


def test_schedules_of_the_device_do_not_matter():
    rng = np.random.default_rng(11)
    n = 3000
    frames = keyed(rng.integers(0, 300, n), np.cumsum(rng.integers(-3, 12, n)))
    for seed in range(6):
        for interval in (3, 30):
            device = EmulatedDevice(seed=seed, interval=interval)
            assert_equal(frames, [1000], device=device, chunk=900, time_ns=900, limit=700)


def mixed_frames(seed: int, n: int) -> Columns:
    """Frames of all kinds of headers with copies of each kind behind them, some cut short, some of noise."""
    rng = random.Random(seed)
    frames, linktypes = [], []
    types = sorted(set(LINKTYPES.values()))
    while len(frames) < n:
        spec = make_spec(rng)
        if not usable(spec):
            continue
        frame = build(spec)
        for _ in range(rng.choice([1, 2, 3])):
            copy = bytearray(frame)
            for _ in range(rng.choice([0, 0, 0, 1, 3])):
                copy[rng.randrange(len(copy))] ^= 1 << rng.randrange(8)
            frames.append(bytes(copy[: rng.choice([len(copy)] * 5 + [rng.randrange(len(copy) + 1)])]))
            linktypes.append(types.index(LINKTYPES[spec["link"]]))
        if rng.random() < 0.05:
            frames.append(rng.randbytes(rng.randrange(200)))
            linktypes.append(rng.randrange(len(types)))
    caplen = np.array([len(frame) for frame in frames], np.uint32)
    offset = np.concatenate(([0], np.cumsum(caplen)[:-1])).astype(np.uint64)
    return (
        np.frombuffer(b"".join(frames), np.uint8),
        offset,
        caplen,
        np.cumsum(np.array([rng.randrange(2000) for _ in frames])).astype(np.int64),
        np.array(linktypes, np.uint16),
        np.array(types, np.uint16),
    )


@pytest.mark.parametrize("layer", ["outer", "inner"])
@pytest.mark.parametrize("profile", ["exact", "vlan", "routing", "nat"])
def test_profiles_on_frames_of_all_kinds(profile, layer):
    frames = mixed_frames(5, 2500)
    keep = (CLASSES["arp"], CLASSES["llc"], CLASSES["nd"])
    device = EmulatedDevice(seed=1, interval=200)
    assert_equal(frames, [900], device=device, chunk=1000, profile=profile, layer=layer, count=600)
    assert_equal(frames, [1], chunk=800, profile=profile, layer=layer, time_ns=100_000, count=90, keep=keep)


def test_ignored_bytes():
    frames = mixed_frames(6, 600)
    for ignore in (1, 14, 60):
        assert_equal(frames, [], ignore_bytes=ignore, count=100)


def capture_columns(path: Path) -> list[Columns]:
    with open_capture(path) as reader:
        parts = []
        while (batch := reader.read()) is not None:
            with batch:
                linktypes = np.array([min(port.linktype, 0xFFFF) for port in batch.ports], np.uint16)
                parts.append(
                    (
                        batch.data.copy(),
                        batch.offset.copy(),
                        batch.caplen.copy(),
                        batch.timestamp_ns.copy(),
                        batch.port.copy(),
                        linktypes,
                    )
                )
        return parts


@pytest.mark.corpus
@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_captures(corpus, path):
    parts = [part for part in capture_columns(path) if len(part[1])]
    for number, profile in enumerate(("exact", "vlan", "routing", "nat")):
        layer = ("outer", "inner")[number % 2]
        for options in ({"count": 600}, {"time_ns": 50_000_000, "count": 10_000}, {"time_ns": 1_000_000}):
            cpu = Window(seed=SEED, profile=profile, layer=layer, **options)
            device = EmulatedDevice(interval=0)
            gpu = device_window(device, profile=profile, layer=layer, **options)
            for part in parts:
                for have, want in zip(gpu.process(*part), cpu.process(*part), strict=True):
                    np.testing.assert_array_equal(np.asarray(have), np.asarray(want))
            want_all, have_all = cpu.statistics(), gpu.statistics().as_dict()
            del want_all["memory_bytes"], have_all["memory_bytes"]
            assert have_all == want_all
            device.close()


@pytest.mark.parametrize("profile", ["exact", "routing", "nat"])
def test_keys_alone(profile):
    frames = mixed_frames(9, 1500)
    data, offset, caplen, stamps, port, linktypes = frames
    hash_key = _cpu.HashKey(expand(SEED))
    digests, two, tags = frame_keys(hash_key, data, offset, caplen, port, linktypes, profile=profile)
    cpu = Window(seed=SEED, profile=profile, count=300)
    gpu = device_window(EmulatedDevice(interval=50), profile=profile, count=300, chunk=400)
    for low, high in itertools.pairwise((0, 1, 700, len(caplen))):
        rows = slice(low, high)
        got = gpu.process_keys(
            digests[rows, :2], digests[rows, 2:], two[rows], tags[rows], None, stamps[rows], caplen[rows]
        )
        want = cpu.process(data, offset[rows], caplen[rows], stamps[rows], port[rows], linktypes)
        for have_column, want_column in zip(got, want, strict=True):
            np.testing.assert_array_equal(np.asarray(have_column), np.asarray(want_column))
    assert gpu.statistics().as_dict()["by_type"] == cpu.statistics()["by_type"]


def test_a_bad_batch_is_refused_whole():
    gpu = device_window(EmulatedDevice(interval=0), count=10)
    frames = keyed([1, 2, 1], [1, 2, 3])
    bad = frames[2].copy()
    bad[1] = 10_000
    with pytest.raises(ValueError, match="frame 1 of the batch"):
        gpu.process(frames[0], frames[1], bad, *frames[3:])
    assert list(gpu.process(*frames).distance) == [0, 0, 2]


def test_frames_scattered_in_a_large_buffer():
    """Selected frames of a big batch, in no order: their bytes are gathered."""
    rng = np.random.default_rng(2)
    data = rng.integers(0, 3, 1 << 20, dtype=np.uint8)
    offset = rng.permutation(1 << 14).astype(np.uint64)[:300] * 64
    frames = (
        data,
        offset,
        rng.integers(1, 6, 300).astype(np.uint32),
        np.arange(300, dtype=np.int64),
        np.zeros(300, np.uint16),
        np.array([1], np.uint16),
    )
    assert_equal(frames, [100], count=200)


@pytest.mark.long
@pytest.mark.parametrize("count", [2, 600, 1_000_000])
def test_a_million_frames_at_once(count):
    rng = np.random.default_rng(4)
    n = 1_200_000
    keys = rng.integers(0, 400_000, n)
    data = keys.astype("<u8").view(np.uint8)
    frames = (
        data,
        np.arange(n, dtype=np.uint64) * 8,
        np.full(n, 8, np.uint32),
        np.cumsum(rng.integers(0, 9, n)),
        np.zeros(n, np.uint16),
        np.array([1], np.uint16),
    )
    assert_equal(frames, [], count=count)
    assert_equal(frames, [100_000], chunk=1 << 20, time_ns=2_000_000, count=count)


def test_frame_numbers_beyond_32_bits():
    """The rings go on where they are; only the number of frames is 2^32 and 2^40 larger."""
    rng = np.random.default_rng(12)
    n, step = 400, 100
    frames = keyed(rng.integers(0, 60, n), np.cumsum(rng.integers(-3, 12, n)))
    for options in ({"count": 90}, {"time_ns": 200, "limit": 50, "profile": "nat"}):
        cpu = Window(seed=SEED, **options)
        gpu = device_window(EmulatedDevice(interval=0), chunk=70, **options)
        for number, part in enumerate(cuts(frames, [*range(0, n, step)])):
            for have, want in zip(gpu.process(*part), cpu.process(*part), strict=True):
                np.testing.assert_array_equal(np.asarray(have), np.asarray(want))
            gpu._index += (1 << 32, 1 << 40, 0, 0)[number]
        assert gpu._index > 1 << 40
        assert gpu.statistics().limit_reached == cpu.statistics()["limit_reached"]


def test_lengths_of_keys_have_all_32_bits():
    """300 lengths of 4 GiB in one block, and stamps that do not lie side by side."""
    keys, lengths = np.zeros((300, 2), np.uint64), np.full(300, 2**32 - 1, np.uint32)
    stamps = np.arange(600)[::-2]
    cpu = Window(seed=SEED, count=400)
    gpu = device_window(EmulatedDevice(interval=0), count=400)
    want = cpu.process_digests(Digests(key=keys), stamps, lengths)
    have = gpu.process_keys(keys, None, None, None, None, stamps, lengths)
    np.testing.assert_array_equal(have.delay_ns, np.asarray(want.delay_ns))
    assert gpu.statistics().as_dict()["by_type"] == cpu.statistics()["by_type"]
    assert cpu.statistics()["by_type"][1]["bytes"] == 299 * (2**32 - 1)


def test_a_bad_frame_in_a_later_chunk_is_named_before_the_first_is_judged():
    device = EmulatedDevice(interval=0)
    gpu = device_window(device, count=10, chunk=2)
    frames = keyed([1, 2, 1, 3, 1], range(5))
    for column, value in ((1, 2**64 - 1), (2, _cpu.MAX_CAPLEN + 1), (4, 1)):
        bad = [np.array(values) for values in frames]
        bad[column][3] = value
        operations = len(device.operations)
        with pytest.raises(ValueError, match="frame 3 of the batch"):
            gpu.process(*bad)
        assert len(device.operations) == operations
    assert list(gpu.process(*frames).distance) == [0, 0, 2, 0, 2]


def test_frames_judged_on_the_device_are_matched_by_those_that_follow():
    """A time window bounds what is carried over by the stamps that the host has seen: not of these."""
    device = EmulatedDevice(interval=0)
    gpu = device_window(device, time_ns=1000, limit=50, chunk=20)
    data, offset, caplen, stamps, port, linktypes = keyed(range(20), range(20))
    stream, at = device.stream(), {}
    for name, values in zip(("data", "offset", "caplen", "timestamp_ns", "port", "linktypes"),
                            (data, offset, caplen, stamps, port, linktypes), strict=True):  # fmt: skip
        at[name] = device.allocate(values.nbytes)
        device.upload(at[name], values, stream)
    device.synchronize(device.record(stream))
    out = {name: device.allocate(4 * 20) for name in ("keep", "type", "distance")}
    gpu.enqueue_resident(**at, base=0, count=20, **out)
    assert list(gpu.process(*keyed(range(20), range(20, 40))).distance) == [20] * 20
    with pytest.raises(ValueError, match="not known to the host"):
        gpu.state()


@pytest.mark.parametrize("seed", range(12))
def test_small_streams_of_every_kind(seed):
    """Options, cuts, stamps and frames by chance, each where something changes: stamps that fall at the
    chunks' borders or lie at the ends of their range, windows of one frame, of no time, cut by the limit."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    n, chunk = rng.choice([60, 130]), rng.choice([13, 16, 64])
    ends = np.iinfo(np.int64)
    steps = np.cumsum(numbers.integers(0, 5, n))
    stamps = [
        steps,
        steps - (np.arange(n) // chunk) * rng.choice([1, 5, 40]),
        numbers.choice([ends.min, ends.min + 1, ends.max - 1, ends.max, 0, -3, 5], n),
        np.full(n, rng.choice([ends.min, 0, ends.max])),
        np.arange(n) % 17 * 10,
    ][seed % 5]
    profile = ("exact", "vlan", "routing", "nat")[seed % 4]
    options: dict[str, Any] = {"profile": profile, "layer": rng.choice(["outer", "inner"])}
    if seed % 3:
        options |= {"time_ns": rng.choice([0, 1, 20, 10**9, 2**62 - 1]), "limit": rng.choice([2, 5, 40, 99])}
    if seed % 3 != 1:
        options["count"] = rng.choice([0, 2, 9, 100, options.get("limit", 30)])
    if rng.random() < 0.3:
        options["keep"] = tuple(rng.sample(sorted(CLASSES.values()), 3))
    data, offset, caplen, _, port, linktypes = mixed_frames(seed % 2, 60)
    chosen = numbers.integers(0, rng.choice([7, 60]), n)
    caplen = np.where(numbers.random(n) < 0.05, 0, caplen[chosen]).astype(np.uint32)
    frames = (data, offset[chosen], caplen, stamps.astype(np.int64), port[chosen], linktypes)
    assert_equal(frames, rng.sample(range(n), 3), chunk=chunk, **options)
