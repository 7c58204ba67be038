# SPDX-License-Identifier: Apache-2.0
"""`make gpu-bench`: rates and delays of the kernels on a GPU, beside the CPU of the same machine in one run.

    python -m tests.bench.gpu [--device cuda|emulated] [--number N] [--quick] [--only SECTION…] [--json FILE]

Tables on standard output, JSON and a plot in tests/bench/results/ (--json: there). Medians with their spread
(lowest – highest) after warm-up; what is timed is compared with the CPU first. Rates are million frames/s.
`--device emulated --quick` keeps the program alive where there is no GPU: its times mean nothing.
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from twinstamp.balance import Classifier, Secret, numbered_servers, same_servers
from twinstamp.rules import RuleSet, read_classbench
from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.classifier import DeviceClassifier
from twinstamp_kernels.gpu.cuda import CudaDevice
from twinstamp_kernels.gpu.device import DeviceFailure
from twinstamp_kernels.gpu.window import DeviceWindow
from twinstamp_kernels.hashkey import expand
from twinstamp_kernels.keys import frame_keys
from twinstamp_kernels.window import Window

from tests.bench import traffic
from tests.bench.__main__ import say, summary
from tests.conftest import ROOT
from tests.gpu import check, streams
from tests.gpu.streams import Stream

TIME_LIMIT = 280.0  # seconds; what has not been started by then is left out
SEED = bytes(range(32))
RESULTS = ROOT / "tests" / "bench" / "results"
WINDOWS = (600, 1_000_000)
OFFERED = (1.0, 14.88, 100.0)  # Mpps

Numbers = dict[str, float]


class WrongVerdictsError(Exception):
    """What was to be timed differs from the CPU: not worth timing."""


@dataclass
class Bench:
    """Where the sections run, how much they do, what they found."""

    device: Any
    emulated: bool
    quick: bool
    number: int
    cores: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    results: dict[str, Any] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    copies: dict[str, float] = field(default_factory=dict)  # GB/s, median

    def size(self, whole: int, quick: int) -> int:
        return quick if self.quick else whole

    def pick(self, values: Sequence[Any], quick: int = 1) -> Sequence[Any]:
        """All of them, or the last few."""
        return values[-quick:] if self.quick else values

    @property
    def late(self) -> bool:
        return time.monotonic() - self.started > TIME_LIMIT

    @property
    def repeats(self) -> int:
        return self.size(7, 1)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the garbage collector's pauses."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def measure(run: Callable[[], Any], amount: float, repeats: int, *, least: float = 0.05) -> Numbers:
    """`amount` per second of a run, in millions, after a warm-up; short runs are repeated for `least` s."""
    run()
    times = 1
    if repeats > 1:
        start = time.perf_counter()
        run()
        times = max(1, min(1000, int(least / max(1e-9, time.perf_counter() - start))))
    values = []
    with quiet():
        for _ in range(repeats):
            start = time.perf_counter()
            for _ in range(times):
                run()
            values.append(times * amount / (time.perf_counter() - start) / 1e6)
    return summary(values)


def line(name: str, value: Numbers, unit: str = "Mpps", more: str = "") -> None:
    say(f"  {name:<68} {value['median']:>10.2f} {unit}  ({value['low']:.2f} – {value['high']:.2f}){more}")


def goal(value: Numbers, wanted: float | None) -> str:
    if wanted is None:
        return ""
    value["goal"] = wanted
    value["met"] = value["median"] >= wanted
    return f"  goal {wanted:,.0f}: {'met' if value['met'] else 'NOT met'}"


@functools.cache
def made(kind: int | str, n: int, count: int, share: float = 0.5) -> tuple[Stream, ...]:
    """`count` consecutive parts of a stream, n frames each, 1 µs apart."""
    parts = []
    for k in range(count):
        part = streams.duplicated(kind, n, share, seed=k + 1)
        parts.append(replace(part, timestamp_ns=part.timestamp_ns + k * n * 1000))
    return tuple(parts)


class OnDevice:
    """A stream's columns on the device, and room for its verdicts there."""

    def __init__(self, device: Any, stream: Stream) -> None:
        self._device = device
        self.stream = stream
        queue = device.stream()
        self.address: dict[str, int] = {}
        for name in ("data", "offset", "caplen", "timestamp_ns", "port", "linktypes"):
            values = getattr(stream, name)
            self.address[name] = device.allocate(max(1, values.nbytes))
            device.upload(self.address[name], values, queue)
        n = len(stream)
        for name, size in (("keep", n), ("type", n), ("distance", 4 * n)):
            self.address[name] = device.allocate(size)
        device.synchronize(device.record(queue))

    def enqueue(self, window: DeviceWindow) -> None:
        at = self.address
        window.enqueue_resident(
            data=at["data"], base=0, offset=at["offset"], caplen=at["caplen"],
            timestamp_ns=at["timestamp_ns"], port=at["port"], linktypes=at["linktypes"],
            count=len(self.stream), keep=at["keep"], type=at["type"], distance=at["distance"],
        )  # fmt: skip

    def verdicts(self) -> tuple[Any, Any]:
        queue, n = self._device.stream(), len(self.stream)
        keep, distance = np.empty(n, np.uint8), np.empty(n, np.uint32)
        self._device.download(keep, self.address["keep"], queue)
        self._device.download(distance, self.address["distance"], queue)
        self._device.synchronize(self._device.record(queue))
        return keep, distance

    def free(self) -> None:
        for address in self.address.values():
            self._device.free(address)


class Pinned:
    """A stream's columns in page-locked memory."""

    def __init__(self, device: Any, stream: Stream) -> None:
        self.stream = replace(
            stream,
            **{name: self.copy(device, getattr(stream, name)) for name in (
                "data", "offset", "caplen", "timestamp_ns", "port", "linktypes",
            )},
        )  # fmt: skip

    @staticmethod
    def copy(device: Any, values: Any) -> Any:
        memory = device.pinned(max(1, values.nbytes))[: values.nbytes].view(values.dtype)
        memory[:] = values.reshape(-1)
        return memory


def device_window(bench: Bench, chunk: int, **options: Any) -> DeviceWindow:
    return DeviceWindow(bench.device, hash_key=expand(SEED), chunk=chunk, **options)


def finish(device: Any, stream: Any) -> None:
    device.synchronize(device.record(stream))


# Sections


def copies(bench: Bench) -> dict[str, Any]:
    """What the memory and the link give: copies in steps of their own, nothing else running."""
    device = bench.device
    size = bench.size(256 << 20, 4096)
    say("Copies, GB/s (within the device: bytes read and written)")
    up, down = device.stream(), device.stream()
    first, second = device.allocate(size), device.allocate(size)
    host, back = device.pinned(size), device.pinned(size)
    host[:] = 1
    device.fill(first, 1, size, up)
    device.fill(second, 1, size, up)
    finish(device, up)
    cases: dict[str, tuple[float, Callable[[], None]]] = {}

    def within() -> None:
        for _ in range(8):
            device.copy(second, first, size, up)
        finish(device, up)

    def to_device() -> None:
        device.upload(first, host, up)
        finish(device, up)

    def to_host() -> None:
        device.download(back, second, down)
        finish(device, down)

    def both() -> None:
        device.upload(first, host, up)
        device.download(back, second, down)
        finish(device, up)
        finish(device, down)

    if hasattr(device, "copy"):
        cases["within the device"] = (16 * size, within)
    cases |= {
        "to the device, pinned": (size, to_device),
        "to the host, pinned": (size, to_host),
        "both at once, sum": (2 * size, both),
    }
    result = {}
    for name, (amount, run) in cases.items():
        value = measure(run, amount / 1e3, bench.repeats)
        result[name] = value
        bench.copies[name] = value["median"]
        line(name, value, "GB/s")
    for address in (first, second):
        device.free(address)
    return result


def counted_bytes(n: int, limit: int, size: float, share: float) -> float:
    """Bytes per frame that the kernels of profile exact and a count window must read and write, each array
    once per kernel (cuda/keys.cu, cuda/window.cu); neighbours that a search finds in the cache are free."""
    total = n + min(limit - 1, 1 << 30)
    passes = max(1, -(-(total.bit_length() - 2) // 8))
    keys = 8 + 4 + size + 16  # offset, caplen, bytes; key
    stamps = 8 + 8
    sort = 16 + (16 + 8) + (passes - 1) * (8 + 8 + 8)  # count and scatter of each pass; the first reads keys
    find = 8 + (16 + 4) * n / total + share * 16 * n / total  # elements; own key and distance; the copy's key
    judge = 4 + 1 + 1 + share * (4 + 8 + 8)  # distance; keep, type; of duplicates caplen and stamps
    return keys + stamps + (sort + find) * total / n + judge


def same_as_cpu(bench: Bench, made_: Sequence[OnDevice], window: DeviceWindow, **options: Any) -> None:
    """What is to be timed, once, against the CPU. Raises WrongVerdictsError."""
    cpu = Window(seed=SEED, workers=bench.cores, **options)
    for part in made_:
        part.enqueue(window)
    finish(bench.device, window.compute)
    for part in made_:
        want = cpu.process(*part.stream.columns)
        keep, distance = part.verdicts()
        if not (np.array_equal(keep, want.keep) and np.array_equal(distance, want.distance)):
            raise WrongVerdictsError(f"verdicts on the device differ from the CPU's ({options}): not timed")


def resident_rate(
    bench: Bench, parts: Sequence[OnDevice], *, verify: bool = True, **options: Any
) -> tuple[Numbers, DeviceWindow]:
    n = len(parts[0].stream)
    window = device_window(bench, n, **options)
    if verify:
        same_as_cpu(bench, parts, window, **options)

    def run() -> None:
        for part in parts:
            part.enqueue(window)
        finish(bench.device, window.compute)

    return measure(run, n * len(parts), bench.repeats), window


def resident(bench: Bench) -> dict[str, Any]:
    """Frames that lie in the device's memory already, and verdicts that stay there."""
    say("Frames on the device, 64 B, half duplicates, profile exact, Mpps")
    result: dict[str, Any] = {}
    wanted = {600: 2000.0, 1_000_000: 595.0}
    for n in (bench.size(1 << 20, 600), bench.size(1 << 22, 300)):
        parts = [
            OnDevice(bench.device, part) for part in made(64, n, bench.size(4 if n <= 1 << 20 else 2, 1))
        ]
        for count in WINDOWS:
            count = count if not bench.quick else min(count, 1000)
            value, window = resident_rate(bench, parts, count=count)
            per_frame = counted_bytes(n, count, 64, 0.5)
            value["bytes_per_frame"] = per_frame
            value["GB_per_s"] = per_frame * value["median"] / 1e3
            text = f", {per_frame:.0f} B/frame, {value['GB_per_s']:.0f} GB/s"
            if "within the device" in bench.copies:
                value["share_of_copy"] = value["GB_per_s"] / bench.copies["within the device"]
                text += f" = {value['share_of_copy']:.0%} of a copy's"
            name = f"window {count:,}, batches of {n:,}"
            text += goal(value, wanted.get(count))
            line(name, value, more=text)
            result[name] = value
            window.close()
        for part in parts:
            part.free()
    return result


@functools.cache
def rule_set(n: int) -> RuleSet:
    """n rules: the corpus's acl1_10k where it is there and that many are wanted, generated ones else."""
    folder = check.corpus_folder()
    path = None if folder is None else folder / "rules" / "acl1_10k.rules"
    if n == 10_000 and path is not None and path.exists():
        return read_classbench(path)
    return streams.classbench_rules(n)


def classifier_of(rules: RuleSet, workers: int = 1) -> Classifier:
    return Classifier(
        rules, groups=same_servers(rules, numbered_servers("64")), secret=Secret(SEED), workers=workers
    )


@functools.cache
def flows(rules: RuleSet, n: int, count: int, some: int | None = 20_000) -> tuple[Stream, ...]:
    """`count` batches of n frames of 64 B in flows over the rules, half of them copies."""
    return tuple(
        Stream(
            "flows", batch.data, batch.offset, batch.caplen, batch.timestamp_ns, batch.port, batch.linktypes
        )
        for batch in traffic.flows_over_rules(rules, flows=some, n=n, count=count)
    )


class ResidentRules:
    """Rules and balance over frames on the device, verdicts staying there."""

    def __init__(self, bench: Bench, rules: RuleSet, n: int) -> None:
        self.device = bench.device
        self.classifier = classifier_of(rules)
        self.judge = DeviceClassifier(bench.device, self.classifier._native)
        self.n = n

    def enqueue(self, part: OnDevice, stream: Any, keep: bool = True) -> None:
        at = part.address
        self.at = self.judge.enqueue_resident(
            data=at["data"], base=0, offset=at["offset"], caplen=at["caplen"], port=at["port"],
            linktypes=at["linktypes"], count=self.n, stream=stream, keep=at["keep"] if keep else 0,
        )  # fmt: skip

    def verify(self, part: OnDevice, stream: Any) -> None:
        """Against the CPU, with the keep that lies on the device. Raises WrongVerdictsError."""
        finish(self.device, stream)
        keep, _ = part.verdicts()
        want = self.classifier.process(part.stream.batch(), keep)
        have = {
            name: np.empty(self.n, dtype)
            for name, dtype in (("rule", np.int32), ("hash", np.uint64), ("fate", np.uint8))
        }
        totals, servers = np.empty(2, np.uint64), np.empty(len(want.copy_server), np.uint16)
        for name, values in (*have.items(), ("totals", totals), ("copy_server", servers)):
            self.device.download(values, getattr(self.at, name), stream)
        finish(self.device, stream)
        same = all(np.array_equal(values, getattr(want, name)) for name, values in have.items())
        # Nothing in this traffic needs the host's fragment table.
        if not same or totals.tolist() != [0, len(servers)] or not np.array_equal(servers, want.copy_server):
            raise WrongVerdictsError("rules on the device differ from the CPU's: not timed")

    def close(self) -> None:
        self.judge.close()


def rules(bench: Bench) -> dict[str, Any]:
    say("Frames on the device, 64 B: window 600, then rules and balance over 64 servers, Mpps")
    result: dict[str, Any] = {}
    n = bench.size(1 << 20, 500)
    for count in (10_000, 1000) if not bench.quick else (20,):
        rules_ = rule_set(count)
        for label, some in bench.pick((("every packet a new flow", None), ("20,000 skewed flows", 20_000))):
            if bench.late:
                break
            parts = [OnDevice(bench.device, part) for part in flows(rules_, n, bench.size(4, 2), some)]
            window = device_window(bench, n, count=600)
            stage = ResidentRules(bench, rules_, n)
            same_as_cpu(bench, parts, window, count=600)
            for part in parts:
                stage.enqueue(part, window.compute)
                stage.verify(part, window.compute)

            def both(parts: Any = parts, window: Any = window, stage: Any = stage) -> None:
                for part in parts:
                    part.enqueue(window)
                    stage.enqueue(part, window.compute)
                finish(bench.device, window.compute)

            def alone(parts: Any = parts, window: Any = window, stage: Any = stage) -> None:
                for part in parts:
                    stage.enqueue(part, window.compute, keep=False)
                finish(bench.device, window.compute)

            name = f"{len(rules_):,} rules ({rules_.name}), {label}"
            value = measure(both, n * len(parts), bench.repeats)
            text = goal(value, 297.0) + ", aim 595" if count == 10_000 else ""
            line(f"{name}, window and rules", value, more=text)
            result[f"{name}, window and rules"] = value
            value = measure(alone, n * len(parts), bench.repeats)
            line(f"{name}, rules alone", value)
            result[f"{name}, rules alone"] = value
            stage.close()
            window.close()
            for part in parts:
                part.free()
    return result


def host(bench: Bench) -> dict[str, Any]:
    """Frames in host memory, verdicts back there."""
    say("Frames in host memory, 64 B, window 600, verdicts back in host memory, Mpps")
    result: dict[str, Any] = {}
    n = bench.size(1 << 20, 600)
    per_frame = 64 + 8 + 4 + 8
    link = bench.copies.get("to the device, pinned")
    link_rate = None if link is None else 0.8 * link * 1e3 / per_frame
    pinned = [Pinned(bench.device, part).stream for part in made(64, n, 2)]
    ordinary = made(64, n, 2)
    for label, parts, details in (  # as they come, nothing to gather
        ("pinned, keep and type", pinned, False),
        ("pinned, with distance and delay", pinned, True),
        ("ordinary memory, keep and type", ordinary, False),
    ):
        window = device_window(bench, bench.size(1 << 18, 256), count=600)
        cpu = Window(seed=SEED, workers=bench.cores, count=600)
        for part in parts:
            have, want = window.process(*part.columns), cpu.process(*part.columns)
            if not np.array_equal(have.keep, want.keep):
                raise WrongVerdictsError("verdicts through the device differ from the CPU's: not timed")

        def run(parts: Any = parts, window: Any = window, details: bool = details) -> None:
            for part in parts:
                window.process(*part.columns, details=details)

        value = measure(run, n * len(parts), bench.repeats)
        value["bytes_per_frame_up"] = per_frame
        text = f", {per_frame * value['median'] / 1e3:.1f} GB/s up"
        if link_rate is not None and parts is pinned:
            text += goal(value, min(297.0, link_rate))
        line(label, value, more=text)
        result[label] = value
        window.close()
    return result


def digests(bench: Bench) -> dict[str, Any]:
    """Keys computed elsewhere (a card's): 16 B of key, 8 of stamp, 4 of length per frame."""
    say("Digests in page-locked host memory in place of frames, window 600, Mpps")
    n = bench.size(1 << 20, 600)
    key = _cpu.HashKey(expand(SEED))
    sets = []
    for part in made(64, n, 2):
        found, _, _ = frame_keys(key, part.data, part.offset, part.caplen, part.port, part.linktypes)
        columns = (np.ascontiguousarray(found[:, :2]).reshape(-1), part.timestamp_ns, part.caplen)
        sets.append((part, tuple(Pinned.copy(bench.device, values) for values in columns)))
    result: dict[str, Any] = {}
    for details in (False, True):
        window = device_window(bench, bench.size(1 << 18, 256), count=600)
        cpu = Window(seed=SEED, workers=bench.cores, count=600)

        def judge(columns: Any, details: bool = details, window: Any = window) -> Any:
            keys, stamps, caplen = columns
            return window.process_keys(keys, None, None, None, None, stamps, caplen, details=details)

        for part, columns in sets:
            if not np.array_equal(judge(columns).keep, cpu.process(*part.columns).keep):
                raise WrongVerdictsError("verdicts from digests differ from the CPU's: not timed")

        def run(judge: Any = judge) -> None:
            for _, columns in sets:
                judge(columns)

        value = measure(run, n * len(sets), bench.repeats)
        name = "with distance and delay" if details else "keep and type"
        line(name, value, more=goal(value, 595.0))
        result[name] = value
        window.close()
    return result


class Timed:
    """A device that times each launch: by its own events, or by the host's clock where it has none."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self._events = hasattr(device, "elapsed")
        self._spans: list[tuple[str, Any, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._device, name)

    def launch(self, kernel: str, blocks: int, arguments: Sequence[int], stream: Any) -> None:
        start = self._device.record(stream)
        if not self._events:
            self._device.synchronize(start)
            begin = time.perf_counter()
        self._device.launch(kernel, blocks, arguments, stream)
        end = self._device.record(stream)
        if self._events:
            self._spans.append((kernel, start, end))
        else:
            self._device.synchronize(end)
            self._spans.append((kernel, begin, time.perf_counter()))

    def take(self) -> dict[str, list[float]]:
        """Seconds of each launch since the last call, by kernel. All of them must be done."""
        times: dict[str, list[float]] = {}
        for kernel, start, end in self._spans:
            span = self._device.elapsed(start, end) if self._events else end - start
            times.setdefault(kernel, []).append(span)
        self._spans = []
        return times


def kernels(bench: Bench) -> dict[str, Any]:
    """Time of each kernel, in a run of its own: events around the launches keep them from overlapping."""
    say("Kernels, µs per batch of 64 B frames on the device (median; share of all)")
    device = Timed(bench.device if bench.emulated else CudaDevice(bench.number, timing=True))
    mine = replace(bench, device=device)
    result: dict[str, Any] = {}
    n = bench.size(1 << 20, 500)
    rules_ = rule_set(10_000 if not bench.quick else 20)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("exact, window 600", {"count": 600}),
        ("exact, window 1,000,000", {"count": bench.size(1_000_000, 900)}),
        ("exact, time 600 µs", {"time_ns": 600_000, "limit": bench.size(1_000_000, 900)}),
        ("routing, window 600", {"count": 600, "profile": "routing"}),
        ("nat, window 600", {"count": 600, "profile": "nat"}),
    ]
    parts = [OnDevice(device, part) for part in flows(rules_, n, 2)]
    for name, options in cases if not bench.quick else (cases[0], cases[2]):
        window = device_window(mine, n, **options)
        stage = ResidentRules(mine, rules_, n) if name == "exact, window 600" else None
        batches = []
        for step in range(bench.size(8, 2)):
            for part in parts:
                part.enqueue(window)
                if stage is not None:
                    stage.enqueue(part, window.compute)
                finish(device, window.compute)
                times = device.take()
                if step:
                    batches.append(times)
        sums = {
            kernel: statistics.median(sum(batch.get(kernel, [])) for batch in batches) * 1e6
            for kernel in batches[0]
        }
        whole = sum(sums.values())
        say(f"  {name}: {whole:.0f} µs per {n:,} frames ({n / whole:.0f} Mpps)")
        for kernel, microseconds in sorted(sums.items(), key=lambda item: -item[1]):
            calls = len(batches[0][kernel])
            say(f"    {kernel:<24} {microseconds:>10.1f}  {microseconds / whole:>5.1%}  {calls} launches")
        result[name] = {"frames": n, "us": sums}
        window.close()
        if stage is not None:
            stage.close()
    for part in parts:
        part.free()
    if not bench.emulated:
        device.close()
    return result


def delays(service: Any, size: int, rate_mpps: float) -> dict[str, Any]:
    """Added delay in µs where frame i comes at i / rate, a batch starts when its last frame is there and the
    device is free, and batch k takes service[k] s. Open loop: frames come whatever the device does."""
    gap = 1e-6 / rate_mpps
    sample = np.unique(np.linspace(0, size - 1, min(size, 64)).astype(np.int64))
    finished, values = 0.0, []
    for k, seconds in enumerate(service):
        arrivals = (k * size + sample) * gap
        finished = max(finished, ((k + 1) * size - 1) * gap) + seconds
        values.append(finished - arrivals)
    all_ = np.concatenate(values) * 1e6
    return {
        "p50_us": float(np.percentile(all_, 50)),
        "p99_us": float(np.percentile(all_, 99)),
        "max_us": float(all_.max()),
        "keeps_up": bool(np.mean(service) < size * gap),
    }


def latency(bench: Bench) -> dict[str, Any]:
    """Added delay by batch size and offered rate, from measured times of batches (see delays)."""
    say("Added delay from page-locked host memory and back, window 600, 64 B (simulated arrivals, measured")
    say("batches), µs p50 / p99 at 1, 14.88 and 100 Mpps (goal: p99 at most 1000 at 14.88)")
    result: dict[str, Any] = {}
    sizes = (64, 256, 1024, 4096, 16_384, 65_536) if not bench.quick else (16, 64)
    best = float("inf")
    for size in sizes:
        if bench.late:
            break
        warm = bench.size(20, 1)
        count = bench.size(max(300, min(2000, (1 << 20) // size)), 3)
        stream = Pinned(bench.device, streams.duplicated(64, 16 * size, 0.5)).stream
        parts = [stream.part(k * size, (k + 1) * size) for k in range(16)]
        window = device_window(bench, max(size, 256), count=600)
        cpu = Window(seed=SEED, count=600)
        service: dict[str, list[float]] = {"device": [], "cpu, one core": []}
        with quiet():
            for name, judge in (("device", window), ("cpu, one core", cpu)):
                for k in range(count + warm):
                    start = time.perf_counter()
                    judge.process(*parts[k % 16].columns, details=False)
                    if k >= warm:
                        service[name].append(time.perf_counter() - start)
        for name, seconds in service.items():
            found = {str(rate): delays(seconds, size, rate) for rate in OFFERED}
            spread = {key: value * 1e6 for key, value in summary(seconds).items() if key != "runs"}
            result[f"{name}, batches of {size}"] = {"service_us": spread, "offered": found}
            text = "   ".join(
                f"{v['p50_us']:>8.0f} / {v['p99_us']:>8.0f}{' ' if v['keeps_up'] else '!'}"
                for v in found.values()
            )
            say(f"  {name + f', batches of {size:,}':<34} one {spread['median']:>8.1f} µs   {text}")
            if name == "device" and found["14.88"]["keeps_up"]:
                best = min(best, found["14.88"]["p99_us"])
        window.close()
    verdict = "met" if best <= 1000 else "NOT met"
    say(f"  (!: falls behind)  p99 at 14.88 Mpps at best {best:.0f} µs: goal {verdict}")
    result["goal"] = {"p99_us_at_14.88": best if best < float("inf") else None, "met": best <= 1000}
    return result


def scaling(bench: Bench) -> dict[str, Any]:
    """One thing varied at a time, frames on the device."""
    say("Scaling, frames on the device, Mpps")
    result: dict[str, Any] = {}

    def add(group: str, name: str, value: Numbers) -> None:
        result.setdefault(group, {})[name] = value
        line(f"{group}: {name}", value)

    def rate(parts: Sequence[Stream], **options: Any) -> Numbers:
        on_device = [OnDevice(bench.device, part) for part in parts]
        value, window = resident_rate(bench, on_device, verify=False, **options)
        window.close()
        for part in on_device:
            part.free()
        return value

    big = bench.size(1 << 20, 400)
    base = made(64, big, bench.size(2, 1))
    batch_sizes = [1 << k for k in range(10, 21, 2)] if not bench.quick else [128]
    for size in batch_sizes:
        if bench.late:
            return result
        parts = [base[0].part(k * size, (k + 1) * size) for k in range(min(bench.size(16, 2), big // size))]
        add("batch size", f"{size:,}", rate(parts, count=600))
    for count in (2, 600, 10_000, 100_000, 1_000_000) if not bench.quick else (300,):
        if bench.late:
            return result
        add("window", f"{count:,}", rate(base, count=count))
    limit = bench.size(1_000_000, 300)
    for time_ns in (600_000, 100_000_000) if not bench.quick else (10_000,):
        if bench.late:
            return result
        add("time window", f"{time_ns / 1e6:g} ms", rate(base, time_ns=time_ns, limit=limit))
        back = [part.at(streams.stamps("jumps", big) + int(part.timestamp_ns[0]), "jumps") for part in base]
        add("time window", f"{time_ns / 1e6:g} ms, stamps go back", rate(back, time_ns=time_ns, limit=limit))
    for share in bench.pick((0.0, 1.0)):
        if bench.late:
            return result
        add("duplicates", f"{share:.0%}", rate(made(64, big, 2, share), count=600))
    for kind, n in bench.pick(
        ((64, big), (1514, bench.size(1 << 17, 100)), ("imix", bench.size(1 << 18, 100)))
    ):
        if bench.late:
            return result
        parts = made(kind, n, 2)
        value = rate(parts, count=600)
        captured = statistics.mean(float(part.caplen.mean()) for part in parts)
        value["Gbit_per_s"] = value["median"] * captured * 8 / 1e3
        add("frame size", str(kind), value)
    for profile in bench.pick(("exact", "vlan", "routing", "nat")):
        if bench.late:
            return result
        parts = flows(rule_set(bench.size(1000, 10)), big, 2)
        add("profile", profile, rate(parts, count=600, profile=profile))
    for n in (100, 1000, 10_000) if not bench.quick else (10,):
        if bench.late:
            return result
        rules_ = rule_set(n)
        parts_ = [OnDevice(bench.device, part) for part in flows(rules_, big, 2)]
        stage, stream = ResidentRules(bench, rules_, big), bench.device.stream()

        def run(parts: Any = parts_, stage: Any = stage, stream: Any = stream) -> None:
            for part in parts:
                stage.enqueue(part, stream, keep=False)
            finish(bench.device, stream)

        add("rules alone", f"{n:,}", measure(run, big * 2, bench.repeats))
        stage.close()
        for part in parts_:
            part.free()
    return result


def cpu(bench: Bench) -> dict[str, Any]:
    """The same machine's CPU in the same run, and from where on it is the better choice."""
    say(f"The CPU, one core and {bench.cores}, and the device from host memory, Mpps")
    result: dict[str, Any] = {}
    wins: list[str] = []
    n = bench.size(1 << 18, 400)
    workers = sorted({1, bench.cores})

    def compare(name: str, parts: Sequence[Stream], **options: Any) -> None:
        if bench.late:
            return
        total = sum(len(part) for part in parts)
        pinned = [Pinned(bench.device, part).stream for part in parts]
        judges: dict[str, Any] = {
            f"{w} core{'s' if w > 1 else ''}": Window(seed=SEED, workers=w, **options) for w in workers
        }
        judges["device"] = device_window(bench, max(256, min(1 << 18, len(parts[0]))), **options)
        found: dict[str, Numbers] = {}
        for who, judge in judges.items():

            def run(judge: Any = judge) -> None:
                for part in pinned:
                    judge.process(*part.columns, details=False)

            found[who] = measure(run, total, bench.size(5, 1), least=0.03)
        judges["device"].close()
        result[name] = found
        text = "   ".join(f"{who} {v['median']:8.1f}" for who, v in found.items())
        best = max(found, key=lambda who: found[who]["median"])
        say(f"  {name:<44} {text}   best: {best}")
        if best != "device":
            wins.append(f"{name} ({best})")

    base = made(64, n, bench.size(4, 1))
    for size in (16, 256, 1024, 4096, 16_384, 65_536, 1 << 18) if not bench.quick else (64,):
        parts = [base[0].part(k * size, (k + 1) * size) for k in range(min(bench.size(16, 2), n // size))]
        compare(f"64 B, window 600, batches of {size:,}", parts, count=600)
    for count in (10_000, 1_000_000) if not bench.quick else (100,):
        compare(f"64 B, window {count:,}", base, count=count)
    for kind in bench.pick(("imix", 1514)):
        compare(f"{kind}, window 600", made(kind, n // 4, bench.size(4, 1)), count=600)
    rules_ = rule_set(bench.size(1000, 10))
    for profile in bench.pick(("routing", "nat")):
        compare(
            f"64 B, profile {profile}, window 600",
            flows(rules_, n, bench.size(4, 1)),
            count=600,
            profile=profile,
        )
    if not bench.late:
        rules_ = rule_set(10_000 if not bench.quick else 20)
        found = {}
        parts = flows(rules_, n, 2)
        batches = [Pinned(bench.device, part).stream.batch() for part in parts]
        for who in [*workers, "device"]:
            classifier = classifier_of(rules_, workers=1 if who == "device" else int(who))
            judge = None
            if who == "device":
                judge = DeviceClassifier(bench.device, classifier._native)
                classifier._native = judge

            def run_rules(classifier: Any = classifier) -> None:
                for batch in batches:
                    classifier.process(batch)

            label = "device" if who == "device" else f"{who} core{'s' if who != 1 else ''}"
            found[label] = measure(run_rules, n * 2, bench.size(5, 1), least=0.03)
            if judge is not None:
                judge.close()
        name = f"rules and balance alone, {len(rules_):,} rules"
        result[name] = found
        best = max(found, key=lambda who: found[who]["median"])
        text = "   ".join(f"{who} {v['median']:8.1f}" for who, v in found.items())
        say(f"  {name:<44} {text}   best: {best}")
        if best != "device":
            wins.append(f"{name} ({best})")
    say("  the CPU wins: " + ("; ".join(wins) if wins else "nowhere here"))
    result["cpu_wins"] = wins
    return result


SECTIONS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "copies": copies,
    "resident": resident,
    "rules": rules,
    "host": host,
    "digests": digests,
    "kernels": kernels,
    "latency": latency,
    "cpu": cpu,
    "scaling": scaling,
}


def plot(report: dict[str, Any], target: Path) -> None:
    """Four panels: batch sizes and windows on the device, delay by batch size, the CPU beside the device."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        say("no plot: matplotlib is not installed")
        return
    figure, axes = pyplot.subplots(2, 2, figsize=(12, 9))
    (one, two), (three, four) = axes

    def series(axis: Any, values: dict[str, Numbers], label: str) -> None:
        at = [float(name.split(" of ")[-1].replace(",", "")) for name in values]
        middle = [value["median"] for value in values.values()]
        low = [value["median"] - value["low"] for value in values.values()]
        high = [value["high"] - value["median"] for value in values.values()]
        axis.errorbar(at, middle, yerr=[low, high], marker="o", capsize=3, label=label)

    found = report.get("scaling", {})
    if "batch size" in found:
        series(one, found["batch size"], "on the device")
    beside: dict[str, dict[str, Numbers]] = {}
    for name, values in report.get("cpu", {}).items():
        if "batches of" in name:
            for who, value in values.items():
                beside.setdefault(who, {})[name] = value
    for who, batch_sizes in beside.items():
        series(one, batch_sizes, f"{who}, host memory" if who == "device" else who)
    one.set(xlabel="frames per batch", ylabel="Mpps", title="64 B, window 600")
    if "window" in found:
        series(two, found["window"], "on the device")
    two.set(xlabel="frames in the window", ylabel="Mpps", title="64 B")
    for rate in OFFERED:
        points = {
            int(name.split(" of ")[-1]): value["offered"][str(rate)]["p99_us"]
            for name, value in report.get("latency", {}).items()
            if name.startswith("device") and value["offered"][str(rate)]["keeps_up"]
        }
        if points:
            three.plot(list(points), list(points.values()), marker="o", label=f"{rate:g} Mpps")
    three.axhline(1000, color="grey", linestyle=":")
    three.set(xlabel="frames per batch", ylabel="µs", title="added delay, p99")
    for axis in (one, two, three):
        if len(axis.lines) > (axis is three):
            axis.set(xscale="log", yscale="log")
        if axis.get_legend_handles_labels()[0]:
            axis.legend()
    timed = report.get("kernels", {}).get("exact, window 600", {}).get("us", {})
    names = sorted(timed, key=timed.get)
    four.barh(names, [timed[name] for name in names])
    four.set(xlabel="µs per batch", title="kernels: window 600, rules, balance")
    note = "EMULATED: times mean nothing. " if report["emulated"] else ""
    figure.suptitle(f"{note}{report['device']['name']}, {report['date']}, {report['commit'][:12]}")
    figure.tight_layout()
    figure.savefig(target, dpi=110)
    say(f"plotted to {target}")


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (x.partition(":")[2].strip() for x in lines if x.startswith("model name")), platform.machine()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make gpu-bench", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "emulated"), default="cuda")
    parser.add_argument("--number", type=int, default=0, help="which GPU, from 0")
    parser.add_argument("--quick", action="store_true", help="few frames; figures mean nothing")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--json", type=Path, help="where results go; the plot beside it")
    options = parser.parse_args(arguments)
    emulated = options.device == "emulated"
    try:
        device = check.emulated_device() if emulated else CudaDevice(options.number)
    except DeviceFailure as error:
        print(f"gpu-bench: {error}", file=sys.stderr)
        return 1
    about = {"name": device.name} if emulated else device.describe()
    report: dict[str, Any] = {
        "commit": check.commit(),
        "date": time.strftime("%Y-%m-%d"),
        "emulated": emulated,
        "quick": options.quick,
        "device": about,
        "machine": {
            "processor": processor(),
            "cpus": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "python": platform.python_version(),
            "numpy": np.__version__,
        },
        "load_at_start": os.getloadavg(),
        "left_out": [],
    }
    say(", ".join(f"{name} {value}" for name, value in about.items()))
    if emulated:
        report["note"] = "emulated: times mean nothing"
        say("EMULATED: times mean nothing")
    bench = Bench(device, emulated, options.quick, options.number)
    failed: list[str] = []
    target = options.json
    if target is None:
        # Results are those of a whole run on a real device; anything else goes where builds go.
        whole = not emulated and not options.quick and set(options.only) == set(SECTIONS)
        target = (RESULTS if whole else ROOT / "build") / f"{report['date']}-gpu.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        if bench.late:
            report["left_out"].append(name)
            say(f"{name}: LEFT OUT, {TIME_LIMIT:.0f} s are over")
            continue
        try:
            report[name] = SECTIONS[name](bench)
        except Exception as error:  # the other sections still tell something
            failed.append(name)
            report[name] = {}
            report.setdefault("failed", {})[name] = "".join(traceback.format_exception(error)[-4:])
            print(f"gpu-bench: {name}: {type(error).__name__}: {error}", file=sys.stderr)
            if isinstance(error, DeviceFailure):
                break
        say()
        report["seconds"] = round(time.monotonic() - bench.started, 1)
        # After each section: what is killed later has not run in vain.
        target.write_text(json.dumps(report, indent=2) + "\n")
    target.write_text(json.dumps(report, indent=2) + "\n")
    say(f"written to {target}")
    try:
        plot(report, target.with_suffix(".png"))
    except Exception as error:  # the figures are what counts
        say(f"no plot: {error!r}")
    device.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
