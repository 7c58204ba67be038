# SPDX-License-Identifier: Apache-2.0
"""Frames that the window has copied to a device are judged there by the rules, without a second copy."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np
import pytest
from twinstamp.dedup import Deduplicator
from twinstamp.frames import FrameBatch
from twinstamp_kernels import backend
from twinstamp_kernels.gpu import window as gpu_window
from twinstamp_kernels.gpu.classifier import DeviceClassifier
from twinstamp_kernels.gpu.staging import ResidentFrames

from tests.emulation.device import EmulatedDevice
from tests.gpu.test_digests import without_memory
from tests.gpu.test_rules import assert_same, assert_same_state, die_and_return, mix, on_cpu, parts

SEED = bytes(range(32))
SIZES = [70, 140, 150]  # edges of batches: 70, 70, 10 and 90 frames


@pytest.fixture(autouse=True)
def chunks(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets the chunks of the window and of the rules, in frames."""

    def of(window: int, rules: int) -> None:
        monkeypatch.setattr(gpu_window, "LEAST_CHUNK", window)
        monkeypatch.setattr(gpu_window, "MOST_CHUNK", window)
        make = functools.partial(DeviceClassifier, chunk=rules)
        monkeypatch.setattr(backend, "device_classifier", lambda device, cpu: make(device, cpu))

    of(100, 30)
    return of


def emulated(fail_at: int | None = None, seed: int = 1) -> EmulatedDevice:
    return EmulatedDevice(seed, interval=0, fail_at=fail_at, racecheck=False, initcheck=False)


def scattered(batch: FrameBatch) -> FrameBatch:
    """The same frames far from each other: they are gathered before they are copied."""
    data = np.zeros(len(batch) * 4096, np.uint8)
    offset = np.arange(len(batch), dtype=np.uint64) * np.uint64(4096)
    for i, frame in enumerate(batch.offset):
        size = batch.caplen[i]
        data[offset[i] : offset[i] + size] = batch.data[frame : frame + size]
    columns = [np.asarray(batch.raw[i]) for i in range(2, 7)]
    return FrameBatch((data, offset, *columns), ports=batch.ports, first=batch.first)


@functools.cache
def stream() -> tuple[FrameBatch, ...]:
    """Frames of all kinds, many of them twice; the last batch is sparse."""
    batch = mix(21, 120)
    order = np.sort(np.random.default_rng(5).integers(0, 120, 240))
    columns = [batch.data, *(np.array(batch._column(i)[order]) for i in range(1, 7))]
    made = parts(FrameBatch(columns, ports=batch.ports), SIZES)
    return (*made[:3], scattered(made[3]))


class Stages:
    """Window and rules."""

    def __init__(self, *, profile: str = "exact", rules_device: Any = None, **options: Any) -> None:
        self.window = Deduplicator(window=60, profile=profile, seed=SEED, **options)
        if rules_device is not None:
            options["device"] = rules_device
        self.rules = on_cpu(**options)

    def judge(self, number: int, batch: FrameBatch) -> list[Any]:
        die_and_return(number, self.rules)
        verdicts = self.window.judge(batch, details=True)
        return [*verdicts, *self.rules.process(batch, verdicts.keep)]

    def count(self) -> list[int]:
        """Gets the frames of each chunk that the rules copy to their device from now on."""
        staging, copied = self.rules._native._gpu._staging, []  # type: ignore[attr-defined]
        upload = type(staging).upload

        def spy(chunk: Any, *arguments: Any) -> Any:
            copied.append(chunk.high - chunk.low)
            return upload(staging, chunk, *arguments)

        staging.upload = spy
        return copied

    def close(self) -> None:
        self.window.close()
        self.rules.close()


NAMES = ["keep", "type", "distance", "delay_ns", "rule", "hash", "fate", "copy_frame", "copy_server", "held"]


@pytest.mark.parametrize("profile", ["exact", "routing"])
@pytest.mark.parametrize(("window", "rules"), [(100, 30), (100, 200), (45, 100), (1000, 7), (70, 70)])
def test_frames_cross_once(chunks, window, rules, profile):
    chunks(window, rules)
    device = EmulatedDevice(seed=window + rules, interval=0)
    cpu, gpu = Stages(profile=profile), Stages(profile=profile, backend="gpu", device=device)
    copied = gpu.count()
    for number, batch in enumerate(stream()):
        assert_same(gpu.judge(number, batch), cpu.judge(number, batch), NAMES)
        assert_same_state(gpu.rules, cpu.rules)
    assert not copied
    assert without_memory(gpu.window.statistics()) == without_memory(cpu.window.statistics())
    gpu.close()
    assert device.living == 0


def test_a_batch_larger_than_two_chunks_is_copied_again(chunks):
    chunks(30, 100)
    device = emulated()
    cpu, gpu = Stages(), Stages(backend="gpu", device=device)
    copied = gpu.count()
    for number, batch in enumerate(stream()):
        got = gpu.judge(number, batch)
        large = len(batch) > 60
        assert copied == ([len(batch)] if large else [])
        assert (batch.on_device is None) == large
        copied.clear()
        assert_same(got, cpu.judge(number, batch), NAMES)


@pytest.mark.parametrize("between", ["batch", "keys", "mistake", "nothing", "close"])
def test_frames_that_are_gone_are_copied_again(between):
    """The window went on before the rules judged: its buffers hold something else by then."""
    device = emulated()
    gpu, cpu = Stages(backend="gpu", device=device), Stages()
    first, other, third = stream()[:3]
    copied = gpu.count()
    keep = gpu.window.judge(first).keep
    assert first.on_device is not None
    window = gpu.window._window
    if between == "batch":
        gpu.window.judge(other)
        gpu.window.judge(third)
    elif between == "keys":
        digests = window.digests(*other.raw[:3], other.port, np.array([1], np.uint16))
        window.process_digests(digests, other.timestamp_ns)
    elif between == "mistake":
        with pytest.raises(ValueError, match="entries"):
            window.process(*other.raw[:2], other.caplen[1:], other.timestamp_ns, other.port, other.port)
    elif between == "nothing":
        gpu.window.judge(FrameBatch.from_frames([]))
    else:
        gpu.window.close()
    assert window.frames is None or between == "batch"
    assert first.on_device is not None, "it was lent, and has been ended since"
    got = gpu.rules.process(first, keep)
    assert_same(got, cpu.judge(0, first)[4:], NAMES[4:])
    assert sum(copied) == len(first)


def test_only_one_and_the_same_device_shares():
    first, second = emulated(), emulated(seed=2)
    cpu, gpu = Stages(), Stages(backend="gpu", device=first, rules_device=second)
    batch, copied = stream()[0], gpu.count()
    got = gpu.judge(0, batch)
    assert batch.on_device is not None
    assert_same(got, cpu.judge(0, batch), NAMES)
    assert sum(copied) == len(batch)
    # And rules on the CPU look at nothing but the batch.
    device = emulated()
    window, rules = Deduplicator(window=60, seed=SEED, backend="gpu", device=device), on_cpu()
    keep = window.judge(batch).keep
    assert_same(rules.process(batch, keep), Stages().judge(0, batch)[4:], NAMES[4:])


def test_a_batch_given_back_lends_nothing():
    given = []
    batch = stream()[0]
    leased = FrameBatch(batch.raw, ports=batch.ports, lease=lambda: given.append(1))
    Deduplicator(window=60, seed=SEED, backend="gpu", device=emulated()).judge(leased)
    assert leased.on_device is not None
    leased.release()
    assert leased.on_device is None and given == [1]


def test_the_owner_waits_for_who_has_borrowed():
    device: Any = emulated()
    lent = ResidentFrames(device, [("chunk", "staged")])  # type: ignore[list-item]
    ended = threading.Event()

    def end() -> None:
        lent.end()
        ended.set()

    with lent.borrow(device) as chunks_:
        assert len(chunks_) == 1
        owner = threading.Thread(target=end)
        owner.start()
        assert not ended.wait(0.05)
    assert ended.wait(10)
    owner.join()
    with lent.borrow(device) as chunks_:
        assert not chunks_


def with_failure(fail_at: int | None) -> tuple[int, str]:
    """The stream through a device that fails at one operation: how many there were, and after how many frames
    each stage went to the CPU."""
    device = emulated(fail_at, seed=fail_at or 0)
    cpu, gpu = Stages(), Stages(backend="gpu", device=device)
    for number, batch in enumerate(stream()):
        assert_same(gpu.judge(number, batch), cpu.judge(number, batch), NAMES)
        assert_same_state(gpu.rules, cpu.rules)
    assert without_memory(gpu.window.statistics()) == without_memory(cpu.window.statistics())
    told = [
        ""
        if not stage.backend()["events"]
        else stage.backend()["events"][0].partition(" failed ")[2].partition(":")[0]
        for stage in (gpu.window, gpu.rules)
    ]
    gpu.close()
    return len(device.operations), ", ".join(told)


def failures(stride: int) -> set[str]:
    operations, told = with_failure(None)
    assert told == ", "
    return {with_failure(fail_at)[1] for fail_at in range(0, operations, stride)}


def test_each_stage_falls_back_by_itself_wherever_the_device_fails():
    told = failures(5)
    # The window ahead of the rules, or the rules within a batch that the window has judged on the device.
    assert {"after 70 frames, after 70 frames", "after 140 frames, after 70 frames"} <= told, told
    assert {"before the first frame, before the first frame", "after 0 frames, after 0 frames"} <= told, told


@pytest.mark.long
def test_at_every_single_operation():
    failures(1)
