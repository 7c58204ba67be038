# SPDX-License-Identifier: Apache-2.0
"""`make gpu-check`: what a device computes against the CPU executor, bit for bit.

    python -m tests.gpu.check [--device cuda|emulated] [--number N] [--quick] [--only SECTION…] [--json FILE]

A table on standard output; JSON in tests/bench/results/ (--device cuda without --quick) or where --json
says. Ends with 1 where anything differs, fails, was not run for want of time, or where there is no GPU.
`--device emulated --quick` runs the same code where there is no GPU, on few frames.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from twinstamp.balance import Classifier, Group, Secret, Server, numbered_servers, same_servers
from twinstamp.dedup import Deduplicator
from twinstamp.rules import Rule, RuleSet, read_classbench
from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.classifier import DeviceClassifier
from twinstamp_kernels.gpu.cuda import INCLUDE, SOURCES, CudaDevice
from twinstamp_kernels.gpu.device import DeviceFailure
from twinstamp_kernels.gpu.window import DeviceWindow
from twinstamp_kernels.hashkey import expand
from twinstamp_kernels.keys import frame_classes, frame_keys
from twinstamp_kernels.window import CLASSES, LAYERS, PROFILES, Window

from tests.bench import traffic
from tests.conftest import CORPUS, ROOT
from tests.gpu import streams
from tests.gpu.streams import Stream

TIME_LIMIT = 220.0  # seconds; what has not been started by then is not run
MOST_PRINTED = 5  # failures of a section; all are in the JSON
RESULTS = ROOT / "tests" / "bench" / "results"

TRAP = 'extern "C" __global__ void trap(unsigned long long value) { if (value) __trap(); }\n'


@dataclass
class Check:
    """Where the sections run and what they found."""

    open_device: Callable[..., Any]
    device: Any
    emulated: bool
    quick: bool
    number: int
    workers: int = field(default_factory=lambda: min(16, len(os.sched_getaffinity(0))))
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    _section: str = ""

    def size(self, whole: int, quick: int) -> int:
        return quick if self.quick else whole

    def section(self, name: str) -> None:
        self._section = name
        self.results[name] = {
            "cases": 0, "frames": 0, "failed": [], "not_run": 0, "skipped": [], "seconds": 0.0,
        }  # fmt: skip

    @property
    def current(self) -> dict[str, Any]:
        return self.results[self._section]

    def case(self, name: str, run: Callable[[], int | None]) -> None:
        """One comparison; run gives the number of frames compared."""
        if time.monotonic() - self.started > TIME_LIMIT:
            self.current["not_run"] += 1
            return
        self.current["cases"] += 1
        try:
            self.current["frames"] += run() or 0
        except Exception as error:
            words = str(error) or type(error).__name__
            if not isinstance(error, AssertionError):
                words = "".join(traceback.format_exception(error)[-3:]).strip()
            self.current["failed"].append(f"{name}: {words}"[:2000])
            if len(self.current["failed"]) <= MOST_PRINTED:
                print(f"  FAILED {self._section}: {name}: {words[:2000]}", flush=True)
            # After a failure nothing of the device is of use, and what a case left on it is in the way.
            self.device.close()
            self.device = self.open_device()

    def skip(self, why: str) -> None:
        self.current["skipped"].append(why)


def differs(name: str, have: Any, want: Any) -> str | None:
    """Where two columns differ, in words."""
    have, want = np.asarray(have), np.asarray(want)
    if have.shape != want.shape:
        return f"{name}: {have.shape} entries, not {want.shape}"
    wrong = np.flatnonzero(have != want)
    if not len(wrong):
        return None
    i = int(wrong[0])
    return f"{name} of {len(wrong)} of {len(want)} frames differs, first frame {i}: {have[i]}, not {want[i]}"


def cut(stream: Stream, sizes: Sequence[int]) -> list[Stream]:
    """Batches of these sizes, the last size again and again; one batch where there are no frames."""
    parts, low = [stream] if not len(stream) else [], 0
    for size in sizes:
        if low < len(stream):
            parts.append(stream.part(low, min(len(stream), low + size)))
            low += size
    while low < len(stream):
        parts.append(stream.part(low, min(len(stream), low + sizes[-1])))
        low += sizes[-1]
    return parts


def restored(state: Any, seed: bytes, **options: Any) -> Any:
    """A CPU window that goes on where a device's window stopped."""
    window = Window(seed=seed, **options)._window
    window.restore(
        state.index,
        state.key.reshape(-1),
        None if state.second is None else state.second.reshape(-1),
        state.two,
        None if state.tags is None else state.tags.reshape(-1),
        state.timestamp_ns,
    )
    return window


def same_window(
    check: Check,
    stream: Stream,
    *,
    sizes: Sequence[int] = (1 << 20,),
    chunk: int | None = None,
    details: bool = True,
    go_on: bool = False,
    **options: Any,
) -> int:
    """Verdicts and counts of a stream, cut into batches; go_on: then what is kept on the host, too."""
    seed = os.urandom(32)
    cpu = Window(seed=seed, workers=check.workers, **options)
    options["keep"] = tuple(options.get("keep", ()))
    gpu = DeviceWindow(check.device, hash_key=expand(seed), chunk=chunk, **options)
    for part in cut(stream, sizes):
        want = cpu.process(*part.columns, details=details)
        have = gpu.process(*part.columns, details=details)
        for name in ("keep", "type", "distance", "delay_ns"):
            wrong = differs(name, getattr(have, name), getattr(want, name))
            assert wrong is None, f"seed {seed.hex()}: {wrong}"
    counts = [cpu.statistics(), gpu.statistics().as_dict()]
    for one in counts:
        del one["memory_bytes"]
    assert counts[0] == counts[1], f"statistics {counts[1]}, not {counts[0]}"
    if go_on:
        part = stream.part(0, min(len(stream), 5000))
        want, have = cpu.process(*part.columns), restored(gpu.state(), seed, **options).process(
            *part.columns, True
        )  # fmt: skip
        for name, a, b in zip(want._fields, have, want, strict=True):
            wrong = differs(name, a, b)
            assert wrong is None, f"after the host went on: {wrong}"
    gpu.close()
    return len(stream)


def device_section(check: Check) -> None:
    """That there is one, and that every kernel compiles for it."""

    def compiles() -> None:
        start = time.perf_counter()
        check.device.compile()
        check.current["compile_s"] = round(time.perf_counter() - start, 3)
        check.current["kernels"] = len(check.device.kernels)
        assert check.device.kernels

    def copies() -> None:
        device, rng = check.device, np.random.default_rng(1)
        stream, other = device.stream(), device.stream()
        for size in (1, 255, 4096, check.size(64 << 20, 10_000)):
            source = rng.integers(0, 256, size, np.uint8)
            pinned = device.pinned(size)
            pinned[:] = source
            address = device.allocate(size)
            device.fill(address, 0xEE, size, stream)
            device.upload(address, pinned, stream)
            device.wait(other, device.record(stream))
            back = device.pinned(size)
            device.download(back, address, other)
            device.synchronize(device.record(other))
            assert np.array_equal(back, source), f"{size} bytes came back changed"
            device.free(address)

    if check.emulated:
        check.skip("kernels are not compiled for an emulated device")
    else:
        check.case("compile", compiles)
    check.case("copies", copies)


def profiles_section(check: Check) -> None:
    """All profiles, layers and kinds of windows over headers of all kinds, some damaged."""
    n = check.size(60_000, 250)
    made = [streams.fuzzed(n, seed=os.getpid()), streams.described(check.size(6000, 120), seed=os.getpid())]
    if made[1] is None:
        check.skip("frames built by scapy: scapy is not installed")
    windows: list[dict[str, Any]] = [{"count": 2}, {"count": 600}, {"count": 10_000}, {"time_ns": 40_000}]
    windows.append({"time_ns": 90_000, "count": 60})
    keep = tuple(sorted(CLASSES.values())[1::2])
    if check.quick:
        windows = windows[1:2] + windows[4:]
    for stream in made:
        if stream is None:
            continue
        for profile in PROFILES:
            for layer in LAYERS if profile != "exact" else ("outer",):
                for window in windows:
                    options: dict[str, Any] = {"profile": profile, "layer": layer, **window}
                    check.case(
                        f"{stream.name}, {options}",
                        lambda s=stream, o=options: same_window(
                            check, s, sizes=(1000, 7, 20_000), chunk=8192, go_on=True, **o
                        ),
                    )
            options = {"profile": profile, "count": 600, "keep": keep}
            check.case(f"{stream.name}, {options}", lambda s=stream, o=options: same_window(check, s, **o))
        for ignored in (1, 14, 64, 3000):
            check.case(
                f"{stream.name}, ignoring {ignored} B",
                lambda s=stream, i=ignored: same_window(check, s, count=600, ignore_bytes=i),
            )


def counts_section(check: Check) -> None:
    """Count windows of all sizes, copies at their very edge."""
    for window in (2, 3, 600, 10_000) if not check.quick else (2, 3, 100):
        stream = streams.at_the_edge(max(check.size(400_000, 600), 4 * window), window)
        for profile in ("exact", "nat"):
            check.case(
                f"window {window}, {profile}",
                lambda s=stream, w=window, p=profile: same_window(check, s, count=w, profile=p, go_on=True),
            )
    for kind in (64, "imix", 1514):
        n = check.size(300_000 if kind == 64 else 60_000, 200)
        for share in (0.0, 0.5, 1.0):
            stream = streams.duplicated(kind, n, share)
            check.case(f"{stream.name}, window 600", lambda s=stream: same_window(check, s, count=600))
    if not check.quick:
        stream = streams.at_the_edge(3_500_000, 1_000_000)
        for details in (True, False):
            check.case(
                f"window 1,000,000, details {details}",
                lambda d=details: same_window(check, stream, count=1_000_000, details=d),
            )


def times_section(check: Check) -> None:
    """Time windows over stamps of all orders."""
    n = check.size(200_000, 120)
    base = streams.duplicated(64, n, 0.5, reach=n // 4)
    for order in ("steady", "equal", "jumps", "random", "ends"):
        stream = base.at(streams.stamps(order, n), order)
        windows: list[dict[str, Any]] = [
            {"time_ns": n * 250},
            {"time_ns": 2**62 - 1, "limit": max(2, n // 10)},
            {"time_ns": 0},
            {"time_ns": 100_000},
            {"time_ns": n * 250, "count": n // 20},
        ]
        for options in windows[:2] if check.quick else windows:
            check.case(
                f"{order}, {options}",
                lambda s=stream, o=options: same_window(check, s, sizes=(n // 3, 1000), chunk=n // 4, **o),
            )


def cuts_section(check: Check) -> None:
    """Batch and chunk sizes from one frame to a million."""
    small = streams.fuzzed(check.size(3000, 40), seed=3)
    n = check.size(1_300_000, 300)
    large = streams.duplicated(64, n, 0.5)
    for size in (1, 2, 31, 257) if not check.quick else (1, 31):
        for chunk in (1, 33, 256) if not check.quick else (256,):
            if size * chunk < 100 and size != chunk:
                continue
            check.case(
                f"batches of {size}, chunks of {chunk}",
                lambda s=size, c=chunk: same_window(
                    check, small, sizes=(s,), chunk=c, count=50, profile="nat"
                ),
            )
    sizes = (2047, 2048, 2049, 65_536, 1_000_000) if not check.quick else (255, 257)
    for size in sizes:
        part = large.part(0, min(n, 30 * size))
        for chunk in (4097, 1 << 17, 1 << 20) if not check.quick else (257,):
            check.case(
                f"batches of {size}, chunks of {chunk}",
                lambda s=size, c=chunk, p=part: same_window(check, p, sizes=(s,), chunk=c, count=600),
            )
    check.case("no frames", lambda: same_window(check, large.part(0, 0), count=600))


def digests_section(check: Check) -> None:
    """Keys computed elsewhere, in place of frames."""
    stream = streams.fuzzed(check.size(50_000, 250), seed=5)
    linktypes = stream.linktypes

    def compare(profile: str, window: dict[str, Any]) -> int:
        seed = os.urandom(32)
        keep = (1, 3) if profile != "vlan" else ()
        cpu = Window(seed=seed, profile=profile, keep=keep, **window)
        gpu = DeviceWindow(
            check.device, hash_key=expand(seed), profile=profile, keep=keep, chunk=4096, **window
        )
        key = _cpu.HashKey(expand(seed))
        for part in cut(stream, (100, 9000)):
            where = (part.data, part.offset, part.caplen, part.port, linktypes)
            digests, two, tags = frame_keys(key, *where, profile=profile)
            nat = profile == "nat"
            have = gpu.process_keys(
                np.ascontiguousarray(digests[:, :2]).reshape(-1),
                np.ascontiguousarray(digests[:, 2:]).reshape(-1) if nat else None,
                two.view(np.uint8) if nat else None,
                tags.reshape(-1) if profile != "exact" else None,
                frame_classes(*where) if keep else None,
                part.timestamp_ns,
                part.caplen,
            )
            want = cpu.process(*part.columns)
            for name in want._fields:
                wrong = differs(name, getattr(have, name), getattr(want, name))
                assert wrong is None, wrong
        gpu.close()
        return len(stream)

    for profile in PROFILES:
        for window in ({"count": 600}, {"time_ns": 300_000}):
            check.case(f"{profile}, {window}", lambda p=profile, w=window: compare(p, w))


def corpus_folder() -> Path | None:
    """The corpus: TWINSTAMP_CORPUS, beside the repository, or in it."""
    return next((place for place in (CORPUS, ROOT / "shared") if (place / "captures").is_dir()), None)


def captures_section(check: Check) -> None:
    """Captures of the corpus, where it is."""
    folder = corpus_folder()
    if folder is None:
        check.skip("no corpus (TWINSTAMP_CORPUS)")
        return
    for stream in streams.captures(folder / "captures", check.size(300_000, 60)):
        for profile in PROFILES if not check.quick else ("nat",):
            for options in ({"count": 600}, {"time_ns": 10_000_000}):
                check.case(
                    f"{stream.name}, {profile}, {options}",
                    lambda s=stream, p=profile, o=options: same_window(
                        check, s, profile=p, sizes=(997,), **o
                    ),
                )


def same_rules(check: Check, rules: Any, groups: Any, stream: Stream, chunk: int, **options: Any) -> int:
    """Rules, servers, held frames and counts of a stream, and a server that dies meanwhile."""
    groups = groups or same_servers(rules, numbered_servers("64"))
    secret = Secret(os.urandom(32))
    cpu, gpu = (
        Classifier(rules, groups=groups, secret=secret, buckets=check.size(65_536, 256), **options)
        for _ in range(2)
    )
    judge = DeviceClassifier(check.device, gpu._native, chunk=chunk)
    gpu._native = judge
    keep = np.random.default_rng(1).random(len(stream)) < 0.7
    first = 0
    for number, part in enumerate(cut(stream, (len(stream) // 3, 1000))):
        mask = keep[first : first + len(part)].view(np.uint8) if number % 2 else None
        want, have = (one.process(part.batch(first), mask) for one in (cpu, gpu))
        first += len(part)
        for name, a, b in zip(want._fields, have, want, strict=True):
            wrong = differs(name, a, b)
            assert wrong is None, wrong
        if number == 0:
            for one in (cpu, gpu):
                one.set_alive(one.servers[0], False)
        while True:
            want_held, have_held = cpu.take_released(), gpu.take_released()
            assert (want_held is None) == (have_held is None), "held frames differ"
            if want_held is None:
                break
            for name, a, b in zip(
                want_held.verdicts._fields, have_held.verdicts, want_held.verdicts, strict=True
            ):
                wrong = differs(f"held frames' {name}", a, b)
                assert wrong is None, wrong
    counts = [
        {name: value for name, value in one.counts().items() if not name.startswith("cache")}
        for one in (cpu, gpu)
    ]
    assert counts[0] == counts[1], f"counts {counts[1]}, not {counts[0]}"
    judge.close()
    return len(stream)


def rules_section(check: Check) -> None:
    """Rules and balance: which rule, which server, and what the fragment table makes of the rest."""
    made = [(streams.classbench_rules(n), None) for n in ((30,) if check.quick else (100, 1000, 10_000))]
    folder = corpus_folder()
    if folder is None or not (folder / "rules").is_dir():
        check.skip("rule sets of the corpus (TWINSTAMP_CORPUS)")
    elif not check.quick:
        made += [(read_classbench(path), None) for path in sorted((folder / "rules").glob("*.rules"))]
    made.append((mixed_rules(), mixed_groups()))
    n = check.size(200_000, 250)

    fuzzed = streams.fuzzed(n // 4, seed=11)
    for rules, groups in made:
        traffic_ = [fuzzed]
        if groups is None:  # frames that these rules match
            batch = next(iter(traffic.flows_over_rules(rules, flows=None, n=n, count=1)))
            traffic_.append(
                Stream(
                    "flows over the rules", batch.data, batch.offset, batch.caplen, batch.timestamp_ns,
                    batch.port, batch.linktypes,
                )
            )  # fmt: skip
        for stream in traffic_:
            variants: list[dict[str, Any]] = [{}, {"hash": "ip"}, {"layer": "inner"}]
            for options in variants if stream is fuzzed else variants[:1]:
                check.case(
                    f"{rules.name or 'mixed rules'}, {stream.name}, {options}",
                    lambda r=rules, g=groups, s=stream, o=options: same_rules(
                        check, r, g, s, 1 << 16 if not check.quick else 200, **o
                    ),
                )


def mixed_rules() -> RuleSet:
    """Copies to several groups, drops, conditions on every field."""
    return RuleSet(
        (
            Rule(destination_port=(0, 99), action=("web", "archive")),
            Rule(destination_port=(443, 443), action=()),
            Rule(source_port=(1, 400), protocol=6, action=("archive",)),
            Rule(protocol=17, destination_port=(53, 1003), action=("web", "archive", "third")),
            Rule(tcp_flags=(0x002, 0x002), action=("third", "web")),
            Rule(icmp=(0x0300, 0xFF00), action=("archive",)),
            Rule(protocol=1, icmp=(0x0800, 0xFF00), action=()),
        ),
        ("default",),
    )


def mixed_groups() -> tuple[Group, ...]:
    return (
        Group("web", (Server("w1", 3), Server("w2"))),
        Group("archive", (Server("a"),)),
        Group("third", (Server("w2"), Server("t1"), Server("t2"))),
        Group("default", (Server("d1"), Server("d2"), Server("a", 2))),
    )


def judge_with_failure(device: Any, fail: Callable[[], None]) -> str:
    """A batch on the device, the device's death, the batch again on the CPU: "" or what is wrong."""
    stream, seed = streams.duplicated(64, 6000, 0.5), bytes(range(32))
    whole = Window(seed=seed, count=600)
    gpu = DeviceWindow(device, hash_key=expand(seed), count=600, chunk=1500)
    parts = cut(stream, (3000,))
    for a, b in zip(gpu.process(*parts[0].columns), whole.process(*parts[0].columns), strict=True):
        if not np.array_equal(a, b):
            return "wrong before the failure"
    fail()
    try:
        gpu.process(*parts[1].columns)
    except DeviceFailure as error:
        print(f"the device said: {error}")
    else:
        return "no DeviceFailure"
    cpu = restored(gpu.state(), seed, count=600)
    expected = whole.process(*parts[1].columns)
    for a, b in zip(cpu.process(*parts[1].columns, True), expected, strict=True):
        if not np.array_equal(a, b):
            return "wrong after the failure"
    gpu.close()
    device.close()
    gpu.close()
    return ""


def stages_with_failure(device: Any, fail: Callable[[], None]) -> str:
    """Window, rules and balance as the commands use them, through a device's death: "" or what is wrong."""
    rules, secret, seed = mixed_rules(), Secret(bytes(range(32))), bytes(range(32))
    stages = [
        (
            Deduplicator(window=600, seed=seed, **options),
            Classifier(rules, groups=mixed_groups(), secret=secret, buckets=256, **options),
        )
        for options in ({}, {"backend": "gpu", "device": device, "warn": print})
    ]
    first = 0
    for number, part in enumerate(cut(streams.fuzzed(2000, seed=13), (500,))):
        if number == 2:
            fail()
        batch = part.batch(first)
        first += len(part)
        want, have = ((judge.judge(batch), sort) for judge, sort in stages)
        if not np.array_equal(have[0].keep, want[0].keep):
            return f"duplicates differ in batch {number}"
        want_, have_ = (sort.process(batch, verdicts.keep) for verdicts, sort in (want, have))
        for name, a, b in zip(want_._fields, have_, want_, strict=True):
            if not np.array_equal(a, b):
                return f"{name} differs in batch {number}"
    judge, sort = stages[1]
    names = judge.backend()["name"], sort.backend()["name"]
    return "" if names == ("cpu", "cpu") else f"went on with {names}"


def die(what: str, number: int) -> int:
    """In a process of its own: a kernel traps, and the context with it."""
    with tempfile.TemporaryDirectory() as folder:
        for path in SOURCES.glob("*.cu"):
            shutil.copy(path, folder)
        Path(folder, "trap.cu").write_text(TRAP)
        device = CudaDevice(number, sources=Path(folder), include=INCLUDE)
    run = judge_with_failure if what == "window" else stages_with_failure
    wrong = run(device, lambda: device.launch("trap", 1, (1,), device.stream()))
    print(wrong or "went on without the device")
    return 1 if wrong else 0


def failover_section(check: Check) -> None:
    """A device that dies, and the CPU that goes on."""

    class Dying:
        """A device that fails from launch number `left` on."""

        def __init__(self, device: Any, left: int) -> None:
            self._device, self._left = device, left

        def __getattr__(self, name: str) -> Any:
            return getattr(self._device, name)

        def launch(self, *arguments: Any) -> None:
            self._left -= 1
            if self._left < 0:
                raise DeviceFailure("made to fail")
            self._device.launch(*arguments)

        def free(self, address: int) -> None:
            """As CudaDevice after a failure: what is there may still be in use."""

        def close(self) -> None:
            """The device lives on: the other cases need it."""

    def dies_at(step: int) -> int:
        device = Dying(check.device, 1 << 30)
        wrong = judge_with_failure(device, lambda: setattr(device, "_left", step))
        assert not wrong, wrong
        return 6000

    def stages_die_at(step: int) -> int:
        device = Dying(check.device, 1 << 30)
        wrong = stages_with_failure(device, lambda: setattr(device, "_left", step))
        assert not wrong, wrong
        return 2000

    for step in (0, 1, 5) if check.quick else range(12):
        check.case(f"launch {step} fails", lambda s=step: dies_at(s))
    for step in (0, 2) if check.quick else range(12):
        check.case(f"launch {step} of the stages fails", lambda s=step: stages_die_at(s))

    def really(what: str) -> int:
        done = subprocess.run(
            [sys.executable, "-m", "tests.gpu.check", "--die", what, "--number", str(check.number)],
            cwd=ROOT, capture_output=True, text=True, timeout=90,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
        check.current.setdefault("said", []).extend(done.stdout.strip().splitlines())
        return 6000

    if check.emulated:
        check.skip("a kernel that traps: an emulated device is not killed")
    else:
        for what in ("window", "stages"):
            check.case(f"a kernel traps under the {what}", lambda w=what: really(w))


def sanitize_section(check: Check) -> None:
    """compute-sanitizer over few frames."""
    if check.emulated or shutil.which("compute-sanitizer") is None:
        check.skip("compute-sanitizer: " + ("emulated device" if check.emulated else "not installed"))
        return
    for tool in ("memcheck", "racecheck"):

        def run(tool: str = tool) -> None:
            command = ["compute-sanitizer", "--tool", tool, "--error-exitcode", "99"]
            if tool == "memcheck":  # asking whether an event has come to pass is an error to it
                command += ["--report-api-errors", "no"]
            command += [sys.executable]
            command += ["-m", "tests.gpu.check", "--sanitized", "--number", str(check.number)]
            try:
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
            except subprocess.TimeoutExpired:
                check.skip(f"{tool}: not done after 60 s")
                return
            if "not supported" in done.stdout + done.stderr:
                check.skip(f"{tool}: {(done.stdout + done.stderr).strip().splitlines()[0][:200]}")
                return
            assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]

        check.case(tool, run)


def sanitized(check: Check) -> None:
    """What runs under compute-sanitizer."""
    check.section("sanitized")
    stream = streams.fuzzed(1500, seed=9)
    for profile, options in (
        ("exact", {"count": 600}),
        ("nat", {"count": 300, "keep": (1, 2)}),
        ("routing", {"time_ns": 200_000}),
    ):
        for order in ("steady", "jumps"):
            part = stream.at(streams.stamps(order, len(stream)), order)
            check.case(
                f"{profile}, {order}",
                lambda s=part, p=profile, o=options: same_window(
                    check, s, profile=p, chunk=700, sizes=(900,), **o
                ),
            )

    check.case("rules", lambda: same_rules(check, mixed_rules(), mixed_groups(), stream, 700))


SECTIONS: dict[str, Callable[[Check], None]] = {
    "device": device_section,
    "profiles": profiles_section,
    "counts": counts_section,
    "times": times_section,
    "cuts": cuts_section,
    "digests": digests_section,
    "rules": rules_section,
    "captures": captures_section,
    "failover": failover_section,
    "sanitize": sanitize_section,
}


def emulated_device() -> Any:
    from tests.emulation.device import EmulatedDevice

    return EmulatedDevice(seed=os.getpid(), interval=0, racecheck=False, initcheck=False)


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=40"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make gpu-check", description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "emulated"), default="cuda")
    parser.add_argument("--number", type=int, default=0, help="which GPU, from 0")
    parser.add_argument("--quick", action="store_true", help="few frames")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="SECTION")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--die", choices=("window", "stages"), help=argparse.SUPPRESS)
    parser.add_argument("--sanitized", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.die:
        return die(options.die, options.number)

    def open_device() -> Any:
        return emulated_device() if options.device == "emulated" else CudaDevice(options.number)

    try:
        device = open_device()
    except DeviceFailure as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1
    check = Check(open_device, device, options.device == "emulated", options.quick, options.number)
    if options.sanitized:
        check.workers = 1
        sanitized(check)
        return 1 if check.current["failed"] else 0
    about = {"name": device.name} if check.emulated else device.describe()
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    for name in options.only:
        check.section(name)
        start = time.monotonic()
        try:
            SECTIONS[name](check)
        except Exception as error:  # of what makes the frames: the other sections still tell something
            check.current["failed"].append("".join(traceback.format_exception(error)[-3:])[:2000])
            print(f"  FAILED {name}: {error!r}")
        found = check.current
        found["seconds"] = round(time.monotonic() - start, 2)
        verdict = "FAILED" if found["failed"] else "NOT RUN" if found["not_run"] else "equal"
        if not found["cases"] and verdict == "equal":
            verdict = "skipped"
        print(
            f"  {name:<10} {verdict:<8} {found['cases']:>4} cases {found['frames']:>12,} frames "
            f"{found['seconds']:>7.1f} s" + "".join(f"\n{'':13}skipped: {why}" for why in found["skipped"]),
            flush=True,
        )
    bad = [name for name, found in check.results.items() if found["failed"] or found["not_run"]]
    report = {
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "device": about,
        "quick": options.quick,
        "passed": not bad,
        "sections": check.results,
    }
    target = options.json
    if target is None and not check.emulated and not options.quick:
        target = RESULTS / f"{report['date']}-gpu-check.json"
    if target is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(report, indent=2) + "\n")
        print(f"written to {target}")
    check.device.close()
    print(f"gpu-check: {'FAILED: ' + ', '.join(bad) if bad else 'all equal'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
