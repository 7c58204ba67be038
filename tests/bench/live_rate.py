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

HEADER = bytes.fromhex(
    "020000000002 020000000001 0800 4500002e00004000401166bd0a0000010a000002 03e80009001a0000"
)
NUMBER_AT = len(HEADER)  # 8 bytes, in the machine's order
SIZE = 60  # without FCS: a minimum frame
CHUNK = 64
PREFIX: list[str] = []  # chrt -f 5, where asked for
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
    """Sends numbered frames at ``rate`` per second; 0 = as fast as it goes."""
    chunk = CHUNK if rate == 0 or rate > 20_000 else 1
    frame = HEADER + bytes(SIZE - len(HEADER))
    batch = FrameBatch.from_frames([frame] * chunk)
    data = np.frombuffer(bytearray(frame * chunk), np.uint8).copy()
    batch = FrameBatch((data, *batch.raw[1:]), ports=batch.ports)
    fields = data.reshape(chunk, SIZE)[:, NUMBER_AT : NUMBER_AT + 8]
    numbers = np.arange(chunk, dtype=np.int64)
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
            fields[:] = (n * chunk + numbers)[:, None].view(np.uint8)
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


def delays(tap_in: str, tap_out: str) -> dict[str, Any]:
    """Added delay: the kernel's stamp at the far end of the output less the one at the input, per frame.

    Two more rings take in everything and are read after the run, so that measuring costs the two cores as
    little as can be.
    """
    stop = Stop(60)
    options: dict[str, Any] = {"ring_mib": 192, "block_timeout_ms": 20, "batch_frames": 1 << 20}
    with LiveSource(tap_in, **options) as first, LiveSource(tap_out, **options) as last:
        print("ready", flush=True)
        while not stop:
            time.sleep(0.02)
        taps = [numbers_and_stamps(source) for source in (first, last)]
        drops = [source.statistics().kernel_drops for source in (first, last)]
    (numbers_in, stamps_in), (numbers_out, stamps_out) = taps
    order = np.argsort(numbers_in, kind="stable")
    place = np.searchsorted(numbers_in[order], numbers_out)
    added = stamps_out - stamps_in[order][place]
    values = np.percentile(added, [50, 99, 99.9, 100]) / 1e6
    named = dict(zip(("p50_ms", "p99_ms", "p999_ms", "max_ms"), values.tolist(), strict=True))
    return {"received": len(added), "tap_drops": drops, **named}


def numbers_and_stamps(source: LiveSource) -> tuple[Any, Any]:
    numbers, stamps = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    while (batch := source.poll(0.1)) is not None:
        with batch:
            at = batch.offset[:, None] + np.arange(NUMBER_AT, NUMBER_AT + 8, dtype=np.uint64)
            numbers.append(np.ascontiguousarray(batch.data[at]).view(np.int64)[:, 0])
            stamps.append(batch.timestamp_ns.copy())
    return np.concatenate(numbers), np.concatenate(stamps)


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
    return {**got, **compared(generated, got["received"])}


def compared(generated: dict[str, Any], received: int) -> dict[str, Any]:
    return {"sent": generated["sent"], "rate": generated["rate"], "lost": generated["sent"] - received}


def with_tcpdump(interface: str, *, rate: float, seconds: float) -> dict[str, Any]:
    ring = str(RING_MIB * 1024)
    command = ["tcpdump", "-i", interface, "-B", ring, "-Q", "in", "-n", "-w", "/dev/null", "-Z", "root"]
    with subprocess.Popen([*PREFIX, *command], stderr=subprocess.PIPE, text=True) as child:
        pin(child.pid, 1)
        assert child.stderr is not None
        while "listening" not in (line := child.stderr.readline()):
            if not line:
                raise SystemExit("tcpdump did not start")
        generated = run_generator("ga", rate, seconds)
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        _, text = child.communicate(timeout=30)
    # Not "captured": what stood in the last, unfinished block at the end is missing from that.
    seen, dropped = (
        int(re.search(rf"(\d+) packets? {what}", text)[1])  # type: ignore[index]
        for what in ("received by filter", "dropped by kernel")
    )
    return {"received": seen - dropped, **compared(generated, seen - dropped)}


def highest_lossless(run: Any, ceiling: float, seconds: float, steps: int) -> dict[str, Any]:
    """Bisection of the asked rate; the answer is the rate that the generator really had."""
    best: dict[str, Any] = {"rate": 0.0}
    low, high = 0.0, ceiling * 1.1
    asked = high
    for _ in range(steps):
        got = run(rate=asked, seconds=seconds)
        if got["lost"] == 0 and got["rate"]:
            best = max(best, got, key=lambda g: g["rate"])
            low = asked
            if asked == high:
                break
        else:
            high = asked
        asked = (low + high) / 2
    return best


def added_delay(inputs: str, rate: float, seconds: float) -> dict[str, Any]:
    taps = role("delays", "gb", "ob", core=None)
    wait_ready(taps)
    moved = with_ours("forward", inputs, "oa", rate=rate, seconds=seconds)
    return {**answer(taps), "lost": moved["lost"], "rate": moved["rate"], "load": os.getloadavg()[0]}


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


def measure(seconds: float, steps: int, rounds: int, tiny: bool) -> dict[str, Any]:
    results: dict[str, Any] = {
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
        "priority": " ".join(PREFIX),
        "frame_bytes": SIZE,
    }
    results["merge_in_memory"] = merge_in_memory(100_000 if tiny else 4_000_000, 1 if tiny else 5)
    with namespace():
        alone = [run_generator("ga", 0, seconds)["rate"] for _ in range(1 if tiny else 3)]
        results["send_only_pps"] = {"median": statistics.median(alone), "runs": alone}
        ceiling = max(alone)
        # Interleaved, so that a change in the machine's load meets all of them.
        peers: dict[str, Any] = {
            "tcpdump": lambda **o: with_tcpdump("gb", **o),
            "receive": lambda **o: with_ours("receive", "gb", **o),
            "forward": lambda **o: with_ours("forward", "gb", "oa", **o),
            "forward_merged": lambda **o: with_ours("forward", "gb,hb", "oa", **o),
        }
        if tiny:
            peers = {name: peers[name] for name in ("tcpdump", "forward")}
        rates: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(rounds):
            for name, run in peers.items():
                rates[name].append(highest_lossless(run, ceiling, seconds, steps)["rate"])
        results["lossless_pps"] = {
            name: {"median": statistics.median(runs), "runs": runs} for name, runs in rates.items()
        }
        for name, inputs in (("forward", "gb"), ("forward_merged", "gb,hb"))[: len(peers) // 2]:
            full = 0.9 * results["lossless_pps"][name]["median"]
            for label, rate in (("1 kpps", 1000.0), ("full rate", full)):
                runs = [added_delay(inputs, rate, min(seconds, 1.5)) for _ in range(rounds)]
                medians = {
                    key: statistics.median(r[key] for r in runs) for key in ("rate", "p50_ms", "p99_ms")
                }
                results[f"delay, {name}, {label}"] = {
                    **medians,
                    "lost": sum(r["lost"] for r in runs),
                    "runs": runs,
                }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="seconds only, figures without meaning")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of one run")
    parser.add_argument("--rounds", type=int, default=3, help="bisections per receiver")
    parser.add_argument(
        "--realtime",
        action="store_true",
        help="all parts, tcpdump too, under SCHED_FIFO (a machine with other load)",
    )
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
            out = receive(arguments[0]) if name == "receive" else delays(*arguments)
        print(json.dumps(out), flush=True)
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # through the clean-up
    if options.realtime:
        PREFIX[:] = ["chrt", "-f", "5"]
    size = (0.2, 1, 1, True) if options.tiny else (options.seconds, 6, options.rounds, False)
    results = measure(*size)
    print(json.dumps(results, indent=1))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
