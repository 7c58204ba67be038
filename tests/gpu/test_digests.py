# SPDX-License-Identifier: Apache-2.0
"""Keys computed elsewhere give the verdicts that frames give; a window goes on where another stopped."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.statistics import BINS, CLASSES, TYPES, RawStatistics
from twinstamp_kernels.hashkey import hash_key
from twinstamp_kernels.keys import frame_classes, frame_digests, frame_keys
from twinstamp_kernels.window import Digests, Window

from tests.gpu.fakes import FakeDevice, FakeDeviceWindow, bin_of
from tests.gpu.short_streams import WINDOWS, batches

SEED = bytes(range(32))
SIZES = [50, 1, 0, 130, 19]


def name(options: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in options.items())


def same(left: Any, right: Any) -> bool:
    return all(np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(left, right, strict=True))


def without_memory(statistics: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in statistics.items() if key != "memory_bytes"}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("options", WINDOWS, ids=name)
def test_digests_give_the_verdicts_of_frames(options, workers):
    by_frames = Window(**options, seed=SEED)
    by_digests = Window(**options, seed=SEED, workers=workers)
    mixed = Window(**options, seed=SEED, workers=workers)
    found = 0
    for number, batch in enumerate(batches(3, SIZES)):
        data, offset, caplen, stamps, port, linktypes = batch
        expected = by_frames.process(*batch)
        digests = by_digests.digests(data, offset, caplen, port, linktypes)
        assert same(by_digests.process_digests(digests, stamps, caplen), expected)
        if number % 2:
            assert same(mixed.process(*batch), expected)
        else:
            assert same(mixed.process_digests(digests, stamps, caplen), expected)
        found += int(np.count_nonzero(np.asarray(expected.type)))
    assert found > 20 or options.get("count") == 1, "nothing to compare"
    for window in (by_digests, mixed):
        assert without_memory(window.statistics()) == without_memory(by_frames.statistics())


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("profile", ["exact", "vlan", "routing", "nat"])
def test_digests_are_the_keys_of_frames_on_any_number_of_threads(profile, workers):
    key = hash_key(SEED)
    batch = batches(5, [300])[0]
    part = (*batch[:3], *batch[4:])
    # More frames than one thread gets.
    many = [np.tile(column, 20) if i in (1, 2, 3) else column for i, column in enumerate(part)]
    digests = frame_digests(key, *many, profile=profile, classes=True, workers=workers)
    keys, two, tags = frame_keys(key, *many, profile=profile)
    assert np.array_equal(np.asarray(digests.key).reshape(-1, 2), keys[:, :2])
    assert np.array_equal(np.asarray(digests.frame_class), frame_classes(*many))
    if profile == "exact":
        assert digests.tags is None
    else:
        assert np.array_equal(np.asarray(digests.tags).reshape(-1, 4), tags)
    if profile == "nat":
        assert np.array_equal(np.asarray(digests.second).reshape(-1, 2), keys[:, 2:])
        assert np.array_equal(np.asarray(digests.two), two)
        assert 0 < np.count_nonzero(two) < len(two)
    else:
        assert digests.second is None
        assert digests.two is None


def test_digests_without_lengths_count_no_bytes_and_without_details_tell_none():
    window = Window(count=10, seed=SEED)
    digests = Digests(key=np.array([[1, 2], [3, 4], [1, 2]], np.uint64))
    verdicts = window.process_digests(digests, np.arange(3), details=False)
    assert list(verdicts.keep) == [1, 1, 0]
    assert len(verdicts.distance) == 0
    statistics = window.statistics()
    assert (statistics["frames"], statistics["bytes"], statistics["by_type"][1]["frames"]) == (3, 0, 1)


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({}, {"key": None}, "key is missing"),
        ({}, {"key": np.zeros(5, np.uint64)}, "key has 5 entries for 3 frames, 6 are needed"),
        ({}, {"key": np.zeros((2, 3), np.uint64)}, "key has 6 entries"),
        ({}, {"tags": np.zeros((3, 4), np.uint32)}, "tags is given"),
        ({"profile": "vlan"}, {}, "tags is missing"),
        ({"profile": "nat"}, {"tags": np.zeros((3, 4), np.uint32)}, "second is missing"),
        ({"keep": (1,)}, {}, "frame_class is missing"),
        ({"keep": (1,)}, {"frame_class": np.array([0, 1, 77], np.uint8)}, "frame 2 .* no class 77"),
    ],
)
@pytest.mark.parametrize("backend", ["cpu", "gpu"])
def test_digests_that_do_not_fit_are_refused_and_nothing_is_judged(
    monkeypatch, backend, options, change, message
):
    monkeypatch.setattr("twinstamp_kernels.backend.device_window", lambda d, o: FakeDeviceWindow(d, **o))
    window = Window(count=10, seed=SEED, backend=backend, device=FakeDevice(), **options)
    digests = Digests(key=np.zeros((3, 2), np.uint64))._replace(**change)
    with pytest.raises(ValueError, match=message):
        window.process_digests(digests, np.arange(3))
    assert window.statistics()["frames"] == 0


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("options", WINDOWS, ids=name)
def test_a_restored_window_goes_on_as_if_it_had_judged_all(options, workers):
    """Cut anywhere: before the window is full, once it is, in mid-stream."""
    stream = batches(8, [3, 17, 50, 61, 40, 60])
    for cut in range(len(stream) + 1):
        whole = Window(**options, seed=SEED)
        before = FakeDeviceWindow(FakeDevice(), **device_options(options))
        for batch in stream[:cut]:
            whole.process(*batch)
            before.process(*batch, details=True)
        state = before.state()
        after = Window(**options, seed=SEED, workers=workers)
        after._window.restore(state.index, state.key, state.second, state.two, state.tags, state.timestamp_ns)
        assert without_memory(after.statistics()) == without_memory(Window(**options).statistics())
        after._window.add_statistics(before.statistics().counts())
        for batch in stream[cut:]:
            assert same(after.process(*batch), whole.process(*batch)), cut
        assert without_memory(after.statistics()) == without_memory(whole.statistics()), cut
        assert after._window.index == whole._window.index


def device_options(options: dict[str, Any]) -> dict[str, Any]:
    """Of a DeviceWindow, as Window gives them."""
    from twinstamp_kernels.hashkey import expand

    return {
        "profile": options.get("profile", "exact"),
        "layer": options.get("layer", "outer"),
        "count": options.get("count"),
        "time_ns": options.get("time_ns"),
        "limit": options.get("limit", 1_000_000),
        "ignore_bytes": options.get("ignore_bytes", 0),
        "keep": options.get("keep", ()),
        "guard": int(options.get("guard") == "ttl") | 2 * int(options.get("layer") == "inner"),
        "ends": b"",
        "hash_key": expand(SEED),
    }


def test_frame_numbers_may_have_come_round_before_a_restore():
    """The frame at 2^32 - 2 is found again at 2^32 + 1, three back, and not one that left the window."""
    index = (1 << 32) - 1
    keys = np.arange(2 * 5, dtype=np.uint64).reshape(5, 2)  # of the frames up to index - 1
    window = Window(count=6, seed=SEED)
    window._window.restore(index, keys, None, None, None, np.arange(5))
    new = np.array([[90, 91], [92, 93], keys[4], keys[0]], np.uint64)
    assert list(window.process_digests(Digests(key=new), np.arange(4)).distance) == [0, 0, 3, 0]


@pytest.mark.parametrize(
    ("index", "count", "message"),
    [(20, 3, "3 frames given, the last 9 of 20"), (2, 3, "3 frames given"), (4, 3, "the last 4 of 4")],
)
def test_a_state_that_is_too_short_or_too_long_is_refused(index, count, message):
    window = Window(count=10, seed=SEED)
    with pytest.raises(ValueError, match=message):
        window._window.restore(index, np.zeros(2 * count, np.uint64), None, None, None, np.arange(count))


def test_only_a_fresh_window_takes_a_state():
    window = Window(count=2, seed=SEED)
    window.process_digests(Digests(key=np.zeros(2, np.uint64)), np.arange(1))
    with pytest.raises(ValueError, match="judged frames already"):
        window._window.restore(1, np.zeros(2, np.uint64), None, None, None, np.arange(1))


def test_raw_statistics_are_those_of_the_cpu_executor():
    """Counted from verdicts in Python, bins included."""
    for options in WINDOWS:
        cpu = Window(**options, seed=SEED)
        raw = FakeDeviceWindow(FakeDevice(), **device_options(options))
        for batch in batches(11, SIZES):
            cpu.process(*batch)
            raw.process(*batch, details=True)
        assert without_memory(raw.statistics().as_dict()) == without_memory(cpu.statistics())


def test_bins_cover_all_of_u64_and_shapes_are_checked():
    assert bin_of(2**64 - 1) == BINS - 1
    counts = RawStatistics.empty()
    assert counts.distance_bins.shape == (TYPES, BINS) == (5, 976)
    assert counts.kept_frames.shape == (CLASSES,)
    counts.delay_max = np.zeros(4, np.uint64)
    with pytest.raises(ValueError, match="delay_max has 4 entries"):
        counts.counts()
    assert _cpu.HISTOGRAM_BINS == BINS
