# SPDX-License-Identifier: Apache-2.0
"""Live rates and delays on veth pairs in a namespace of its own, beside tcpdump (docs/live.md). Needs root.

    python tests/bench/live_rate.py [--tiny] [--seconds 1.5] [--json FILE]

One generator (LiveOutput over a prepared batch, paced) on one core; what is measured on another. For each
receiver the highest rate without a lost frame is found by bisection. The kernel's receive work for a veth
frame runs in the sender's context, that is, on the generator's core.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "host"), str(ROOT / "gpu_kernels")]

from twinstamp.frames import FrameBatch, Port  # noqa: E402
from twinstamp.io.live import LiveOutput, LiveSource  # noqa: E402
from twinstamp.io.merge import Merge  # noqa: E402

HEADER = bytes.fromhex("020000000002" "020000000001" "0800" "4500002e00004000401166bd0a0000010a000002" "03e80009001a0000")
STAMP_AT = len(HEADER)  # CLOCK_REALTIME ns, 8 bytes, then a sequence number, 8 bytes
SIZE = 60  # without FCS: a minimum frame
CHUNK = 64
PREFIX: list[str] = []  # nice -n N
RING_MIB = 8  # for tcpdump too: small enough that a run is a steady state and not one filling of a buffer


class Stop:
    """SIGTERM asks a role to finish."""

    def __init__(self, limit_s: float) -> None:
        self.limit = time.monotonic() + limit_s
        self.asked = False
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))

    def __bool__(self) -> bool:
        return self.asked or time.monotonic() > self.limit


def generate(interface: str, rate: float, seconds: float) -> dict[str, Any]:
    """Sends stamped frames at ``rate`` per second; 0 = as fast as it goes."""
    chunk = CHUNK if rate == 0 or rate > 20_000 else 1
    frame = HEADER + bytes(SIZE - len(HEADER))
    batch = FrameBatch.from_frames([frame] * chunk)
    data = np.frombuffer(bytearray(frame * chunk), np.uint8).copy()
    batch = FrameBatch((data, *batch.raw[1:]), ports=batch.ports)
    fields = data.reshape(chunk, SIZE)[:, STAMP_AT : STAMP_AT + 16]
    numbers = np.arange(chunk, dtype=np.int64)
    stamped = np.empty((chunk, 2), dtype=np.int64)
    sent = errors = n = 0
    with LiveOutput(interface, retry_ms=100) as output:
        start = time.perf_counter()
        end = start + seconds
        while (now := time.perf_counter()) < end:
            if rate:
                due = start + n * chunk / rate
                if due > now:
                    if due - now > 0.0003:
                        time.sleep(due - now - 0.0002)
                    continue
            stamped[:, 0] = time.time_ns()
            stamped[:, 1] = n * chunk + numbers
            fields[:] = stamped.view(np.uint8)
            result = output.send(batch)
            sent += result.sent
            errors += result.errors
            n += 1
        took = time.perf_counter() - start
    return {"sent": sent, "errors": errors, "rate": sent / took}


def receive(interface: str) -> dict[str, Any]:
    stop = Stop(60)
    n = 0
    with LiveSource(interface, ring_mib=RING_MIB) as source:
        print("ready", flush=True)
        while not stop:
            batch = source.poll(0.05)
            if batch is not None:
                n += len(batch)
                batch.release()
        while (batch := source.poll(0)) is not None:
            n += len(batch)
            batch.release()
        return {"received": n, "drops": source.statistics().kernel_drops, "cpu_s": time.process_time()}


def forward(inputs: list[str], out: str) -> dict[str, Any]:
    stop = Stop(60)
    n = errors = 0
    sources = [LiveSource(name, ring_mib=RING_MIB) for name in inputs]
    with Merge(sources) as merge, LiveOutput(out, retry_ms=20) as output:
        print("ready", flush=True)
        while not stop:
            batch = merge.poll(0.05)
            if batch is not None:
                with batch:
                    result = output.send(batch)
                n += result.sent
                errors += result.attempted - result.sent
        counts = merge.statistics()
        return {
            "received": n,
            "errors": errors,
            "drops": sum(source.statistics().kernel_drops for source in sources),
            "late": counts.late,
            "cpu_s": time.process_time(),
        }


def sink(interface: str) -> dict[str, Any]:
    """Delays from the stamp in the payload to the kernel's stamp at the far end of the output."""
    stop = Stop(60)
    delays = []
    with LiveSource(interface, ring_mib=128, batch_frames=100_000) as source:
        print("ready", flush=True)
        while not stop:
            batch = source.poll(0.05)
            if batch is None:
                continue
            with batch:
                at = batch.offset[:, None] + np.arange(STAMP_AT, STAMP_AT + 8, dtype=np.uint64)
                stamps = np.ascontiguousarray(batch.data[at]).view(np.int64)[:, 0]
                delays.append(batch.timestamp_ns - stamps)
        drops = source.statistics().kernel_drops
    all_of_them = np.concatenate(delays) if delays else np.zeros(1, np.int64)
    p50, p99, p999, most = np.percentile(all_of_them, [50, 99, 99.9, 100]) / 1e6
    return {"received": sum(map(len, delays)), "drops": drops, "p50_ms": p50, "p99_ms": p99, "p999_ms": p999, "max_ms": most}


def role(name: str, *arguments: object, core: int | None) -> subprocess.Popen[str]:
    command = [*PREFIX, sys.executable, __file__, "--role", name, *map(str, arguments)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pin(child.pid, core)
    return child


def pin(pid: int, core: int | None) -> None:
    if core is not None and (os.cpu_count() or 1) > core:
        os.sched_setaffinity(pid, {core})


def answer(child: subprocess.Popen[str], stop: bool = True) -> dict[str, Any]:
    if stop:
        child.terminate()
    out, _ = child.communicate(timeout=90)
    return dict(json.loads(out.strip().splitlines()[-1]))


def wait_ready(child: subprocess.Popen[str]) -> None:
    assert child.stdout is not None
    if child.stdout.readline().strip() != "ready":
        raise SystemExit(f"a role did not start: {child.args}")


def run_generator(interface: str, rate: float, seconds: float) -> dict[str, Any]:
    return answer(role("generate", interface, rate, seconds, core=0), stop=False)


def with_ours(name: str, *arguments: object, rate: float, seconds: float, into: str = "ga") -> dict[str, Any]:
    child = role(name, *arguments, core=1)
    wait_ready(child)
    generated = run_generator(into, rate, seconds)
    time.sleep(0.4)
    got = answer(child)
    return {**got, "sent": generated["sent"], "rate": generated["rate"], "lost": generated["sent"] - got["received"]}


def with_tcpdump(interface: str, *, rate: float, seconds: float) -> dict[str, Any]:
    command = [*PREFIX, "tcpdump", "-i", interface, "-B", str(RING_MIB * 1024), "-Q", "in", "-n", "-w", "/dev/null", "-Z", "root"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as child:
        pin(child.pid, 1)
        assert child.stderr is not None
        while "listening" not in (line := child.stderr.readline()):
            if not line:
                raise SystemExit("tcpdump did not start")
        generated = run_generator("ga", rate, seconds)
        time.sleep(0.6)
        child.send_signal(signal.SIGINT)
        _, text = child.communicate(timeout=30)
    captured = int(re.search(r"(\d+) packets? captured", text)[1])  # type: ignore[index]
    return {"received": captured, "sent": generated["sent"], "rate": generated["rate"], "lost": generated["sent"] - captured}


def highest_lossless(run: Any, ceiling: float, seconds: float, steps: int) -> dict[str, Any]:
    """Bisection of the asked rate; the answer is the rate that the generator really had."""
    best: dict[str, Any] = {"rate": 0.0}
    low, high = 0.0, ceiling * 1.1
    asked = high
    for _ in range(steps):
        got = run(rate=asked, seconds=seconds)
        if got["lost"] == 0:
            best = max(best, got, key=lambda g: g["rate"])
            low = asked
            if asked == high:
                break
        else:
            high = asked
        asked = (low + high) / 2
    return best


@contextlib.contextmanager
def namespace() -> Iterator[str]:
    from pyroute2 import netns

    def ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)

    name = f"tsbench-{os.getpid()}"
    ip("netns", "add", name)
    try:
        netns.pushns(name)
        try:
            Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
            Path("/proc/sys/net/ipv6/conf/default/disable_ipv6").write_text("1")
            for a, b in (("ga", "gb"), ("ha", "hb"), ("oa", "ob")):
                ip("link", "add", a, "type", "veth", "peer", "name", b)
                for end in (a, b):
                    off = ["tx", "off", "rx", "off", "tso", "off", "gso", "off", "gro", "off"]
                    subprocess.run(["ethtool", "-K", end, *off], check=True, capture_output=True, timeout=20)
                    ip("link", "set", "dev", end, "up")
            yield name
        finally:
            netns.popns()
    finally:
        ip("netns", "del", name)


def merge_in_memory(frames: int, repeats: int) -> dict[str, Any]:
    """Two sources in memory with alternating stamps: cost of the reorder buffer alone, one core."""

    class Memory:
        def __init__(self, first: int) -> None:
            n = 4096
            batch = FrameBatch.from_frames([bytes(SIZE)] * n)
            self.raw, self.ports, self.n, self.at = batch.raw, (Port("m", 1),), n, first
            self.left = frames // n

        def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
            if self.left == 0:
                return None
            self.left -= 1
            stamps = np.arange(self.at, self.at + 2 * self.n, 2, dtype=np.int64)
            self.at += 2 * self.n
            return FrameBatch((*self.raw[:4], stamps, *self.raw[5:]), ports=self.ports)

        @property
        def ended(self) -> bool:
            return self.left == 0

    rates = []
    for _ in range(repeats):
        merge = Merge([Memory(0), Memory(1)], clock=None)
        start = time.process_time()
        n = 0
        while (batch := merge.poll(0)) is not None:
            n += len(batch)
            batch.release()
        rates.append(n / (time.process_time() - start) / 1e6)
    return {"median_mpps": statistics.median(rates), "runs": rates}


def measure(seconds: float, steps: int, tiny: bool) -> dict[str, Any]:
    results: dict[str, Any] = {"machine": platform.platform(), "cores": os.cpu_count(), "load": os.getloadavg(), "nice": PREFIX[2:], "frame_bytes": SIZE}
    results["merge_in_memory"] = merge_in_memory(100_000 if tiny else 4_000_000, 1 if tiny else 5)
    with namespace():
        runs = [run_generator("ga", 0, seconds)["rate"] for _ in range(1 if tiny else 3)]
        results["send_only_pps"] = {"median": statistics.median(runs), "runs": runs}
        ceiling = max(runs)
        # Interleaved, so that a change in the machine's load meets all of them.
        rounds = []
        for _ in range(1 if tiny else 3):
            rounds.append(
                {
                    "tcpdump": highest_lossless(lambda **o: with_tcpdump("gb", **o), ceiling, seconds, steps),
                    "receive": highest_lossless(lambda **o: with_ours("receive", "gb", **o), ceiling, seconds, steps),
                    "forward": highest_lossless(lambda **o: with_ours("forward", "gb", "oa", **o), ceiling, seconds, steps),
                    "forward_merged": highest_lossless(
                        lambda **o: with_ours("forward", "gb,hb", "oa", **o), ceiling, seconds, steps
                    ),
                }
            )
        results["lossless_pps"] = {
            name: {"median": statistics.median(r[name]["rate"] for r in rounds), "runs": [r[name]["rate"] for r in rounds]}
            for name in rounds[0]
        }
        full = 0.9 * results["lossless_pps"]["forward"]["median"]
        for inputs in ("gb", "gb,hb"):
            for label, rate in (("1 kpps", 1000.0), ("full rate", full)):
                end = role("sink", "ob", core=None)
                wait_ready(end)
                moved = with_ours("forward", inputs, "oa", rate=rate, seconds=max(seconds, 0.5 if tiny else 2.0))
                key = f"delay, {inputs.count(',') + 1} input{'s' if ',' in inputs else ''}, {label}"
                results[key] = {**answer(end), "lost": moved["lost"], "rate": moved["rate"]}
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="seconds only, figures without meaning")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one run")
    parser.add_argument("--nice", type=int, default=0, help="niceness of all parts, tcpdump too: -10 on a shared machine")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        name, *arguments = options.role
        if name == "generate":
            out = generate(arguments[0], float(arguments[1]), float(arguments[2]))
        elif name == "forward":
            out = forward(arguments[0].split(","), arguments[1])
        else:
            out = {"receive": receive, "sink": sink}[name](arguments[0])
        print(json.dumps(out), flush=True)
        return
    if options.nice:
        PREFIX[:] = ["nice", "-n", str(options.nice)]
    results = measure(0.3 if options.tiny else options.seconds, 2 if options.tiny else 6, options.tiny)
    print(json.dumps(results, indent=1))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
