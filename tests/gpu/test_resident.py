# SPDX-License-Identifier: Apache-2.0
"""Rules and balance on frames that lie on the emulated device already, beside the CPU's classifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from twinstamp.balance import Classifier
from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.classifier import DeviceClassifier, DeviceVerdicts
from twinstamp_kernels.gpu.device import DeviceFailure
from twinstamp_kernels.gpu.window import DeviceWindow
from twinstamp_kernels.hashkey import expand
from twinstamp_kernels.window import Window

from tests.emulation.device import EmulatedDevice
from tests.gpu.test_rules import (
    assert_same,
    assert_same_state,
    counts,
    die_and_return,
    mix,
    on_cpu,
    on_device,
    parts,
    thirds,
)

HELD = 4
SEED = bytes(range(32))


class Frames:
    """A batch's columns on the device, and room for a window's verdicts there."""

    def __init__(self, device: Any, batch: Any) -> None:
        self.device, self.count = device, len(batch)
        columns = {
            "data": batch.data, "offset": batch.offset, "caplen": batch.caplen,
            "timestamp_ns": batch.timestamp_ns, "port": batch.port,
            "linktypes": np.array([port.linktype for port in batch.ports], np.uint16),
        }  # fmt: skip
        self.kept = [np.array(np.asarray(values)) for values in columns.values()]
        self.stream = device.stream()
        self.at = {name: self.put(values) for name, values in zip(columns, self.kept, strict=True)}

    def put(self, values: Any) -> int:
        address = int(self.device.allocate(max(1, values.nbytes)))
        self.device.upload(address, values, self.stream)
        self.device.synchronize(self.device.record(self.stream))
        return address

    def judge(self, classifier: Any, stream: Any, keep: int = 0) -> DeviceVerdicts:
        at = {name: self.at[name] for name in ("data", "offset", "caplen", "port", "linktypes")}
        verdicts: DeviceVerdicts = classifier.enqueue_resident(
            **at, base=0, count=self.count, stream=stream, keep=keep
        )
        return verdicts


def fetch(device: Any, stream: Any, address: int, dtype: Any, n: int) -> Any:
    values = np.empty(n, dtype)
    if n:
        device.download(values, address, stream)
        device.synchronize(device.record(stream))
    return values


def assert_verdicts(
    device: Any, stream: Any, at: DeviceVerdicts, cpu: Classifier, batch: Any, keep: Any
) -> int:
    """All that is there equals what the CPU says, but for the frames listed. Gives how many those are."""
    n = len(batch)
    want = cpu.process(batch, keep)
    listed, copies = (int(x) for x in fetch(device, stream, at.totals, np.uint64, 2))
    numbers = fetch(device, stream, at.listed, np.uint32, listed)
    assert np.all(np.diff(numbers.astype(np.int64)) > 0)
    fate = fetch(device, stream, at.fate, np.uint8, n)
    assert np.array_equal(np.flatnonzero(fate == HELD), numbers)
    rest = fate != HELD
    rule, hash_ = (fetch(device, stream, a, t, n) for a, t in ((at.rule, np.int32), (at.hash, np.uint64)))
    wanted = [np.asarray(column) for column in want]
    assert_same([v[rest] for v in (rule, hash_, fate)], [v[rest] for v in wanted[:3]], want._fields[:3])
    mine = rest[wanted[3]]
    got = [
        fetch(device, stream, a, t, copies)
        for a, t in ((at.copy_frame, np.uint32), (at.copy_server, np.uint16))
    ]
    assert_same(got, [wanted[3][mine], wanted[4][mine]], want._fields[3:5])
    assert set(np.asarray(want.held)) <= set(numbers.tolist())
    words = fetch(device, stream, at.counts, np.uint64, _cpu.DEVICE_COUNTS + 2 * len(cpu.servers))
    assert words[:10].tolist() == tallies(fate, batch.caplen, 5)
    assert words[_cpu.DEVICE_COUNTS :].tolist() == tallies(got[1], batch.caplen[got[0]], len(cpu.servers))
    return listed


def tallies(kind: Any, size: Any, kinds: int) -> list[int]:
    """Packets and bytes of each kind, one behind the other."""
    return [
        int(n) for k in range(kinds) for n in (np.sum(kind == k), np.sum(size[kind == k], dtype=np.int64))
    ]


@pytest.mark.parametrize("options", [{}, {"hash": "ip"}, {"layer": "inner"}], ids=str)
def test_verdicts_are_the_cpus_but_for_listed_frames(options):
    device = EmulatedDevice(seed=3, interval=0)
    cpu, gpu = on_cpu(**options), on_cpu(**options)
    native = DeviceClassifier(device, gpu._native)
    streams = [device.stream(), device.stream()]
    before = counts(gpu)
    listed = []
    # Another stream, more frames than before, fewer; servers that die and come back.
    for number, n in enumerate((1, 300, 2049, 120)):
        batch = mix(number, n)
        for classifier in (cpu, gpu):
            die_and_return(number, classifier)
        frames = Frames(device, batch)
        mask = thirds(batch) if number % 2 else None
        stream = streams[number // 2]
        keep = 0 if mask is None else frames.put(np.frombuffer(mask, np.uint8))
        at = frames.judge(native, stream, keep)
        listed.append(assert_verdicts(device, stream, at, cpu, batch, mask))
    assert (sum(listed) == 0) == (options.get("hash") == "ip")
    assert max(listed) < 1000
    assert counts(gpu) == before, "the host knows nothing of these frames"
    assert native.bytes > 0
    native.close()


def test_a_window_and_the_rules_behind_it_without_the_host():
    """All batches are issued before the first result is looked at; the rules obey the window's verdicts."""
    device = EmulatedDevice(seed=5, interval=0)
    batch = mix(11, 400)
    twice = parts(batch, [150, 300])
    window = DeviceWindow(device, hash_key=expand(SEED), count=90, chunk=200)
    judge, cpu = Window(seed=SEED, count=90), on_cpu()
    native = DeviceClassifier(device, on_cpu()._native)
    for part in [*twice, *twice]:
        frames = Frames(device, part)
        n = len(part)
        keep, kind, distance = (device.allocate(size) for size in (n, n, 4 * n))
        window.enqueue_resident(**frames.at, base=0, count=n, keep=keep, type=kind, distance=distance)
        at = frames.judge(native, window.compute, keep)
        want = judge.process(*frames.kept)
        assert_verdicts(device, window.compute, at, cpu, part, bytes(want.keep))
    assert 0 < int(np.sum(want.keep)) < n
    native.close()
    window.close()


@pytest.mark.parametrize("seed", range(6))
def test_batches_from_the_host_may_come_in_between(seed):
    """What is under way is judged with the servers of its time, although nobody waits for it."""
    device = EmulatedDevice(seed=seed, interval=0)
    cpu, gpu, other = on_cpu(), on_device(device, 100), on_cpu()
    stream = device.stream()
    for number, part in enumerate(parts(mix(12, 360), [120, 240])):
        at = Frames(device, part).judge(gpu._native, stream)
        for classifier in (cpu, gpu):
            die_and_return(number + 1, classifier)
        got, want = gpu.process(part), cpu.process(part)
        assert_same(got, want, want._fields)
        assert_same_state(gpu, cpu)
        assert_verdicts(device, stream, at, other, part, None)
        die_and_return(number + 1, other)


@pytest.mark.parametrize("seed", range(6))
def test_memory_grows_although_a_batch_is_under_way(seed):
    device = EmulatedDevice(seed=seed, interval=0)
    gpu, stream = on_cpu(), device.stream()
    native = DeviceClassifier(device, gpu._native)
    for n in (20, 200, 2100):
        batch = mix(n, n)
        at = Frames(device, batch).judge(native, stream)
    assert_verdicts(device, stream, at, on_cpu(), batch, None)
    native.close()


def test_one_behind_the_other_on_two_streams():
    """The second call uses the first one's memory: it waits for it, whatever the device prefers to do."""
    for seed in range(10):
        device = EmulatedDevice(seed=seed, interval=0, racecheck=False)
        batch = mix(13, 200)
        frames, native = Frames(device, batch), DeviceClassifier(device, on_cpu()._native)
        first, second = device.stream(), device.stream()
        frames.judge(native, first, frames.put(np.zeros(200, np.uint8)))
        at = frames.judge(native, second)
        assert_verdicts(device, second, at, on_cpu(), batch, None)


def test_a_count_out_of_range_is_refused():
    native = DeviceClassifier(EmulatedDevice(), on_cpu()._native)
    for count in (0, 0xFFFFFFFF):
        with pytest.raises(ValueError, match=f"{count} frames: a batch has 1 to 4294967294"):
            native.enqueue_resident(
                data=0, base=0, offset=0, caplen=0, port=0, linktypes=0, count=count, stream=None
            )


def resident_with_failure(fail_at: int | None) -> tuple[int, int]:
    """Two batches on the device, a server dying in between; how many operations it took, and how many batches
    were judged before it failed."""
    device = EmulatedDevice(seed=fail_at or 0, interval=0, fail_at=fail_at)
    gpu, cpu = on_cpu(), on_cpu()
    host, judged = gpu._native, 0
    native = None
    try:
        native = DeviceClassifier(device, host)
        stream = device.stream()
        for number, part in enumerate(parts(mix(14, 150), [60])):
            die_and_return(number, gpu)
            frames = Frames(device, part)
            at = frames.judge(native, stream)
            fetch(device, stream, at.fate, np.uint8, len(part))
            judged += 1
    except DeviceFailure:
        assert device.failed
    if native is not None:
        native.close()
        native.close()
    # The host is where it was: it can judge the stream from its start.
    gpu.set_states(dict.fromkeys(gpu.servers, True))
    for number, part in enumerate(parts(mix(14, 150), [60])):
        for classifier in (cpu, gpu):
            die_and_return(number, classifier)
        got, want = gpu.process(part), cpu.process(part)
        assert_same(got, want, want._fields)
        assert_same_state(gpu, cpu)
    return len(device.operations), judged


def test_a_device_may_fail_at_every_operation():
    operations, judged = resident_with_failure(None)
    assert judged == 2
    outcomes = {resident_with_failure(fail_at)[1] for fail_at in range(operations)}
    assert outcomes == {0, 1, 2}
