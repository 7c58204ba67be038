# SPDX-License-Identifier: Apache-2.0
"""`make bench`: Twinstamp beside its peers in one run. A table on standard output, JSON in build/bench.json.

    python -m tests.bench [--tiny] [--only SECTION…] [--json FILE]

Medians with their spread (lowest – highest); correctness is checked before anything is timed. Parts run one
after the other; what is compared runs alternately, so that a noisy moment hits both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import traffic
from tests.conftest import CORPUS, ROOT

SECTIONS = ("startup", "dedup", "window", "cores", "pipeline", "card", "live", "linux", "owd", "hub")


def summary(values: list[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values), "runs": len(values)}


def say(text: str = "") -> None:
    print(text, flush=True)


def row(name: str, ours: dict[str, float], unit: str, peer: dict[str, float] | None = None) -> None:
    text = f"  {name:<58} {ours['median']:>9.2f} {unit}  ({ours['low']:.2f} – {ours['high']:.2f})"
    if peer is not None:
        text += f"   peer {peer['median']:.2f} ({peer['low']:.2f} – {peer['high']:.2f})"
    say(text)


def wall(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def twinstamp() -> list[str]:
    script = Path(sys.executable).with_name("twinstamp")
    return [str(script)] if script.exists() else [sys.executable, "-m", "twinstamp.cli"]


def one_core(command: list[str]) -> list[str]:
    """Both peers on one core, the same one."""
    return ["taskset", "-c", "0", *command] if shutil.which("taskset") else command


def startup(tiny: bool) -> dict[str, Any]:
    say("Start-up, seconds (goal: --help in 0.2)")
    times = [wall([*twinstamp(), "--help"]) for _ in range(3 if tiny else 11)]
    python = [wall([sys.executable, "-c", "pass"]) for _ in range(3 if tiny else 11)]
    row("twinstamp --help (peer: python -c pass)", summary(times), "s", summary(python))
    return {"help_s": summary(times), "python_s": summary(python)}


def hub(tiny: bool) -> dict[str, Any]:
    """Readers beside the forwarding (docs/appliance.md): batches of 1024 frames, all to each reader."""
    from tests.bench import hub as section

    say("The hub: the forwarding thread's CPU µs a batch; CPU ns a frame, all threads; Mpps")
    results = {}
    for name, figures in section.measure(tiny).items():
        results[name] = {unit: summary(values) for unit, values in figures.items()}
        for unit, found in results[name].items():
            row(f"{name}: {unit}", found, unit.rpartition("_")[2])
    return results


def dedup(tiny: bool) -> dict[str, Any]:
    """Whole processes, interpreter start included, output existing for both."""
    editcap = shutil.which("editcap")
    if editcap is None:
        say("dedup: SKIPPED, editcap is not installed")
        return {"skipped": "editcap is not installed"}
    say("twinstamp dedup beside editcap, whole process on one core, output existing: times faster (seconds)")
    million = 20_000 if tiny else 1_000_000
    cases = [
        ("64 B", 64, million, "600", 5),
        ("64 B", 64, 5 * million, "600", 3),
        ("IMIX", "imix", million, "600", 5),
        ("IMIX", "imix", 5 * million, "600", 1),
        ("64 B", 64, million, "10000", 1),
    ]
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        made: dict[tuple[Any, int], Path] = {}
        for label, kind, frames, window, peer_runs in cases:
            source = made.get((kind, frames))
            if source is None:
                for old in made.values():
                    if frames > million:
                        old.unlink(missing_ok=True)
                source = made[(kind, frames)] = Path(folder, f"{kind}-{frames}.pcap")
            if not source.exists():
                traffic.write_capture(source, kind, frames)
            ours, theirs = Path(folder, "ours.pcap"), Path(folder, "editcap.pcap")
            mine = one_core([*twinstamp(), "dedup", "--quiet", "--window", window, str(source), str(ours)])
            peer = one_core([editcap, "-F", "pcap", "-D", window, str(source), str(theirs)])
            wall(mine)
            wall(peer)
            if ours.read_bytes() != theirs.read_bytes():
                raise SystemExit(f"dedup of {source} differs from editcap's: not timing what is wrong")
            mine_s, peer_s = [], []
            runs = 3 if tiny else 5
            for k in range(runs):
                if k < peer_runs:
                    peer_s.append(wall(peer))
                mine_s.append(wall(mine))
            ratio = statistics.median(peer_s) / statistics.median(mine_s)
            name = f"{label}, {frames:,} frames, -D {window}"
            say(
                f"  {name:<34} {ratio:6.1f} ×   ours {statistics.median(mine_s):.3f} s "
                f"({min(mine_s):.3f} – {max(mine_s):.3f}), editcap {statistics.median(peer_s):.2f} s "
                f"({min(peer_s):.2f} – {max(peer_s):.2f})"
            )
            result[name] = {"ratio": ratio, "ours_s": summary(mine_s), "editcap_s": summary(peer_s)}
    return result


def rates(run: Callable[[], int], repeats: int) -> dict[str, float]:
    """Million frames per second of a run that says how many frames it took; one warm-up."""
    run()
    values = []
    for _ in range(repeats):
        start = time.perf_counter()
        frames = run()
        values.append(frames / (time.perf_counter() - start) / 1e6)
    return summary(values)


def judging(batches: list[Any], times: int, **options: Any) -> Callable[[], int]:
    from twinstamp.dedup import Deduplicator

    window = Deduplicator(**options)

    def run() -> int:
        for _ in range(times):
            for batch in batches:
                window.judge(batch)
        return times * sum(len(batch) for batch in batches)

    return run


def window(tiny: bool) -> dict[str, Any]:
    say("Duplicate window in memory, one core, million frames/s (goal: 30 at 64 B, window 600)")
    n, count, repeats = (2048, 4, 3) if tiny else (65_536, 16, 7)
    result = {}
    cases: list[tuple[str, Any, float, dict[str, Any]]] = [
        ("64 B, window 600, half duplicates", 64, 0.5, {"window": 600}),
        ("64 B, window 600, no duplicates", 64, 0.0, {"window": 600}),
        ("64 B, window 600, all duplicates", 64, 1.0, {"window": 600}),
        ("64 B, window 10,000", 64, 0.5, {"window": 10_000}),
        ("64 B, window 100,000", 64, 0.5, {"window": 100_000}),
        ("64 B, window 1,000,000", 64, 0.5, {"window": 1_000_000}),
        ("64 B, time 600 µs", 64, 0.5, {"time_ns": 600_000}),
        ("IMIX, window 600", "imix", 0.5, {"window": 600}),
        ("1514 B, window 600", 1514, 0.5, {"window": 600}),
    ]
    for name, kind, share, options in cases:
        frames = traffic.batches(kind, n if kind == 64 else n // 8, count, share)
        result[name] = rates(judging(frames, 4, **options), repeats)
        row(name, result[name], "Mpps")
    say("  other profiles, 60 B IPv4 frames in 20,000 flows, window 600:")
    rules = ruleset(tiny)
    if rules is not None:
        frames = list(traffic.flows_over_rules(rules, flows=20_000, n=n, count=count))
        for profile in ("exact", "vlan", "routing", "nat"):
            name = f"profile {profile}"
            result[name] = rates(judging(frames, 2, window=600, profile=profile), repeats)
            row(name, result[name], "Mpps")
    return result


def cores(tiny: bool) -> dict[str, Any]:
    say("Window on 1..n cores, million frames/s (goal: two cores at least 1.7 times one)")
    n, count, repeats = (2048, 4, 3) if tiny else (65_536, 16, 7)
    result: dict[str, Any] = {}
    available = len(os.sched_getaffinity(0))
    kinds: list[tuple[str, list[Any]]] = [
        ("no duplicates", traffic.batches(64, n, count, 0.0)),
        ("half duplicates", traffic.batches(64, n, count, 0.5)),
        ("all duplicates", traffic.batches(64, n, count, 1.0)),
    ]
    rules = ruleset(tiny)
    if rules is not None:
        kinds.append(("a single flow", list(traffic.flows_over_rules(rules, flows=1, n=n, count=count))))
    for name, frames in kinds:
        runs = {w: judging(frames, 2, window=600, workers=w) for w in range(1, available + 1)}
        values: dict[int, list[float]] = {w: [] for w in runs}
        for _ in range(repeats):
            for workers, run in runs.items():
                values[workers].append(rates(run, 1)["median"])
        result[name] = {str(w): summary(v) for w, v in values.items()}
        for workers, v in values.items():
            times = statistics.median(v) / statistics.median(values[1])
            row(f"{name}, {workers} core{'s' if workers > 1 else ''} ({times:.2f} ×)", summary(v), "Mpps")
    return result


def ruleset(tiny: bool) -> Any:
    from twinstamp.rules import read_classbench

    path = CORPUS / "rules" / ("acl1_1k.rules" if tiny else "acl1_10k.rules")
    return read_classbench(path) if path.exists() else None


def pipeline(tiny: bool) -> dict[str, Any]:
    from twinstamp.balance import Classifier, Secret, numbered_servers, same_servers
    from twinstamp.dedup import Deduplicator
    from twinstamp.rules import read_classbench

    say("Window 600 + rules + balance over 64 servers in memory, one core, million frames/s (goal: 14.88)")
    n, count, repeats = (2048, 4, 3) if tiny else (65_536, 16, 5)
    result: dict[str, Any] = {}
    names = ("acl1_1k",) if tiny else ("acl1_10k", "fw1_10k")
    for rules_name in names:
        path = CORPUS / "rules" / f"{rules_name}.rules"
        if not path.exists():
            say(f"  SKIPPED: {rules_name} is not there (set TWINSTAMP_CORPUS)")
            continue
        rules = read_classbench(path)
        for label, flows in (("20,000 skewed flows", 20_000), ("every packet a new flow", None)):
            frames = list(traffic.flows_over_rules(rules, flows=flows, n=n, count=count))
            for stage in ("all", "rules + balance alone"):
                judge = Deduplicator(window=600)
                classify = Classifier(
                    rules, groups=same_servers(rules, numbered_servers("64")), secret=Secret(bytes(range(32)))
                )

                def run(
                    stage: str = stage, judge: Any = judge, classify: Any = classify, frames: Any = frames
                ) -> int:
                    for batch in frames:
                        keep = judge.judge(batch).keep if stage == "all" else None
                        classify.process(batch, keep)
                    return sum(len(batch) for batch in frames)

                name = f"{rules_name}, {label}, {stage}"
                result[name] = rates(run, repeats)
                row(name, result[name], "Mpps")
    return result


class Taker:
    """Stands for a card that fetches at once what it is given: what is timed is the driver alone."""

    name = "taker"

    def __init__(self) -> None:
        from twinstamp.card.regmap import MAGIC, MAP_MAJOR, MAP_MINOR, REGISTERS

        place = {name: register.offset for name, register in REGISTERS.items()}
        self.consumer = {place[f"port[{p}].tx_consumer"]: place[f"port[{p}].tx_producer"] for p in range(4)}
        self.values = {
            place["id.magic"]: MAGIC,
            place["id.version"]: MAP_MAJOR << 16 | MAP_MINOR,
            place["id.size"]: 4,
            place["id.core_clock"]: 125_000_000,
        }

    def read32(self, address: int) -> int:
        return self.values.get(self.consumer.get(address, address), 0)

    def write32(self, address: int, value: int) -> None:
        self.values[address] = value

    def map_memory(self, size: int) -> tuple[Any, int]:
        import numpy as np

        return np.zeros(size, np.uint8), 0

    def wait(self, seconds: float) -> float:
        return seconds

    def close(self) -> None:
        pass


def sending_rate(size: int, n: int, repeats: int) -> dict[str, float]:
    """Card.send_batch, M frames/s."""
    import numpy as np
    from twinstamp.card import Card
    from twinstamp.frames import FrameBatch

    batch = FrameBatch.from_frames([bytes([i & 0xFF]) * size for i in range(n)])
    launch = np.arange(n, dtype=np.uint64) * 3000
    rates = []
    for _ in range(repeats + 1):
        with Card(Taker()) as one:
            begin = time.perf_counter()
            assert one.send_batch(1, batch, launch_q32=launch) == n
            rates.append(n / (time.perf_counter() - begin) / 1e6)
            assert one.read("port[1].tx_producer") == n * (4 + -(-size // 8))
    return summary(rates[1:])


def card(tiny: bool) -> dict[str, Any]:
    """The simulated card at line rate, five clocks none of which runs with another; then its full ring."""
    import numpy as np
    from twinstamp.card import Card
    from twinstamp.card.sim import PORTS, SimulatedCard, frames

    say("Simulated card, four ports at line rate with 64 B frames, all clocks asynchronous; one core")
    n, repeats = (500, 2) if tiny else (40_000, 5)
    cycles_per_s, records_per_s = [], []
    sent = frames([bytes(range(60))] * n)
    for _ in range(repeats):
        simulated = SimulatedCard()
        with Card(simulated, block_log2=16, blocks_log2=9) as one:
            for port, ppb in zip(range(PORTS), (100_000, -100_000, 37_000, -3_000), strict=True):
                simulated.set_clock(f"rx{port}", ppb=ppb)
            one.start()
            for port in range(PORTS):
                simulated.send(port, sent)
            begin, before = time.process_time(), simulated.cycles
            while any(simulated.pending(port) for port in range(PORTS)):
                simulated.run(10_000)
            cycles_per_s.append((simulated.cycles - before) / (time.process_time() - begin) / 1e6)
            one.flush()
            simulated.run(10_000)  # the last block gets to the ring
            # All records lie in memory: what is timed is the walk and the batches' columns.
            received, checksum = 0, np.uint64(0)
            begin = time.perf_counter()
            while (batch := one.poll(0.0)) is not None:
                with batch:
                    received += len(batch)
                    checksum += batch.timestamp_ns[-1].astype(np.uint64)
            records_per_s.append(received / (time.perf_counter() - begin) / 1e6)
            assert received == PORTS * n and one.drops() == (0,) * PORTS
    result = {"cycles": summary(cycles_per_s), "records": summary(records_per_s)}
    for size in (60, 1514):
        result[f"sent_{size}"] = sending_rate(size, n, repeats)
    row("core cycles simulated (goal: 1)", result["cycles"], "M/s of CPU time")
    row("ring to FrameBatch (goal: 6)", result["records"], "M records/s")
    for size in (60, 1514):
        name = f"FrameBatch to transmit ring, {size} B, launch times"
        row(name, result[f"sent_{size}"], "M frames/s")
    return result


def live(tiny: bool) -> dict[str, Any]:
    """In a process of its own: it makes namespaces, pins and ends its own children."""
    if os.geteuid() != 0 or shutil.which("tcpdump") is None:
        say("Live: SKIPPED, needs root and tcpdump")
        return {"skipped": "needs root and tcpdump"}
    say("Live on veth beside tcpdump")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "live.json")
        command = [sys.executable, str(ROOT / "tests" / "bench" / "live_rate.py"), "--json", str(out)]
        subprocess.run(command + (["--tiny"] if tiny else []), check=True)
        return json.loads(out.read_text())  # type: ignore[no-any-return]


def linux(tiny: bool) -> dict[str, Any]:
    """In a process of its own: it makes a namespace."""
    if os.geteuid() != 0:
        say("Linux card: SKIPPED, needs root")
        return {"skipped": "needs root"}
    say("Linux card on veth: departures against their times, arrivals against departures, one clock")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "linux.json")
        command = [sys.executable, str(ROOT / "tests" / "bench" / "linux_card.py"), "--json", str(out)]
        subprocess.run(command + (["--tiny"] if tiny else []), check=True)
        return json.loads(out.read_text())  # type: ignore[no-any-return]


def owd(tiny: bool) -> dict[str, Any]:
    """`twinstamp owd report` as a whole process: its wall time and the most memory it held."""
    from tests.bench.trains import write_train

    n = 20_000 if tiny else 10_000_000
    say(f"twinstamp owd report on {n:,} packets, whole process (goal: 10 million in 30 s and 2 GB)")
    result: dict[str, Any] = {"packets": n}
    with tempfile.TemporaryDirectory() as folder:
        for name, reorder in (("in order", 0.0), ("1 % reordered, 1 % lost", 0.01)):
            capture = str(Path(folder) / "rx.pcapng")
            lost = write_train(capture, n, reorder=reorder)
            report = str(Path(folder) / "out.json")
            command = [*twinstamp(), "owd", "report", capture, "--json", report, "--quiet"]
            seconds, processor, memory = [], [], []
            for _ in range(1 if tiny else 3):
                start = time.perf_counter()
                process = subprocess.Popen(command)
                _, status, usage = os.wait4(process.pid, 0)
                assert status == 0
                seconds.append(time.perf_counter() - start)
                processor.append(usage.ru_utime + usage.ru_stime)
                memory.append(usage.ru_maxrss / 1e6)
            found = json.loads(Path(report).read_text())["trains"][0]
            assert (found["loss"]["lost"], found["packets"]) == (lost, n - lost)
            row(name, summary(seconds), "s")
            row(f"{name}, processor time", summary(processor), "s")
            row(f"{name}, most memory", summary(memory), "GB")
            result[name] = {
                "s": summary(seconds), "processor_s": summary(processor), "memory_gb": summary(memory),
            }  # fmt: skip
    return result


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--tiny", action="store_true", help="seconds only, to keep it alive; figures mean nothing"
    )
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    report: dict[str, Any] = {
        "commit": commit,
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "cpus": len(os.sched_getaffinity(0)),
            "kernel": platform.release(),
            "python": platform.python_version(),
        },
        "load_at_start": os.getloadavg(),
        "tiny": options.tiny,
    }
    for section in options.only:
        report[section] = globals()[section](options.tiny)
        say()
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(report, indent=2) + "\n")
    say(f"written to {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
