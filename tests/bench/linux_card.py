# SPDX-License-Identifier: Apache-2.0
"""The linux card on a veth pair in a namespace of its own: how far departures are from their times, and
arrivals from departures, both by the one clock that the two ends share. Needs root.

    python tests/bench/linux_card.py [--tiny] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "host"), str(ROOT / "gpu_kernels")]

from twinstamp.card.linux import LinuxCard  # noqa: E402

FRAME = bytes.fromhex("02000000000202000000000188b5") + bytes(46)
PERCENTILES = (0, 1, 50, 99, 99.9, 100)
CASES = ((10_000, 300), (1_000, 1_000), (100, 10_000), (10, 20_000))  # gap in us, frames


def spread(values: Any) -> dict[str, float]:
    return dict(zip(map(str, PERCENTILES), np.percentile(values, PERCENTILES).tolist(), strict=True))


def measure(gap_us: int, n: int) -> dict[str, Any]:
    arrivals: list[Any] = []
    with LinuxCard(["va"]) as sender, LinuxCard(["vb"]) as receiver:
        lead = sender.calibration(0)
        receiver.start()

        def read() -> None:
            for batch in receiver.receive(0.5):
                arrivals.append(batch.timestamp_ns.copy())

        reader = threading.Thread(target=read)
        reader.start()
        launch = time.time_ns() + 20_000_000 + gap_us * 1000 * np.arange(n)
        sent = sender.send_timed(
            0, np.frombuffer(FRAME, np.uint8), np.zeros(n, np.uint64), np.full(n, len(FRAME), np.uint32),
            launch_ns=launch,
        )  # fmt: skip
        departures = sender.departures(0.5)
        reader.join()
        drops = receiver.drops()[0]
    arrived = np.concatenate(arrivals)[-n:]
    if sent.error.any() or len(departures) != n or len(arrived) != n or drops:
        raise SystemExit(
            f"lost: {len(departures)} departures and {len(arrived)} arrivals of {n}, {drops} drops"
        )
    if (departures["stamp_ns"] < sent.before_ns).any() or (arrived < departures["stamp_ns"]).any():
        raise SystemExit("stamps out of order: before the call, departure, arrival")
    return {
        "frames": n,
        "lead_ns": lead.median_ns,
        "departure_minus_launch_ns": spread(departures["stamp_ns"] - launch),
        "call_to_departure_ns": spread(departures["stamp_ns"] - sent.before_ns),
        "departure_to_arrival_ns": spread(arrived - departures["stamp_ns"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    from pyroute2 import netns

    name = f"tslinux-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
    try:
        netns.pushns(name)
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
        script = "ip link add va type veth peer name vb && ip link set va up && ip link set vb up"
        subprocess.run(["sh", "-c", script], check=True, timeout=20)
        report = {}
        print(f"  ns, percentiles {PERCENTILES}")
        for gap_us, n in CASES[1:3] if options.tiny else CASES:
            result = report[f"gap {gap_us} us"] = measure(gap_us, n // 10 if options.tiny else n)
            print(f"  gap {gap_us} us, {result['frames']} frames")
            for key in ("departure_minus_launch_ns", "call_to_departure_ns", "departure_to_arrival_ns"):
                values = "".join(f"{value:>11.0f}" for value in result[key].values())
                print(f"    {key:28}{values}", flush=True)
    finally:
        netns.popns()
        subprocess.run(["ip", "netns", "del", name], check=False, timeout=20)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
