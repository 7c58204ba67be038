# SPDX-License-Identifier: Apache-2.0
"""The experiment with ordinary interfaces: two namespaces, a linux card in each, a slow cloud between them.

::

    madrid: eth0 ── to_madrid  cloud  to_budapest ── eth0 :budapest

The cloud is a program in a namespace of its own that holds each frame for its direction's delay: kernels
without netem can do this, too. `python -m twinstamp.demo_owd.namespaces world|site|cloud …` runs within
namespaces that the caller made with unshare; the kernel takes everything away with the last process.
"""

from __future__ import annotations

import heapq
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp import stamp
from twinstamp.demo_owd.scene import SITES, trains
from twinstamp.errors import DeviceError, TwinstampError

if TYPE_CHECKING:
    from twinstamp.train import Train

PACKETS = 200
HOLD_NS = (3_000_000, 1_000_000)  # there, back
NEEDED = ("unshare", "mount", "ip")
_LEAD_NS = 6_000_000_000
_DRAIN_S = 1.0
_ETH_ALL = 0x0003
_OUTGOING = 4  # PACKET_OUTGOING


def demo(folder: Path) -> int:
    """Runs it, writes namespaces.html and namespaces.json; 0, or 1 where this machine does not allow it."""
    from rich.console import Console

    from twinstamp.demo.__main__ import unshare

    console = Console(highlight=False, soft_wrap=True)
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    environment = {**os.environ, "PATH": path}
    if absent := [name for name in NEEDED if shutil.which(name, path=path) is None]:
        raise DeviceError(f"not installed: {', '.join(absent)}; make setup says which packages have them")
    result = subprocess.run(
        unshare(sys.executable, "-m", "twinstamp.demo_owd.namespaces", "world", folder.resolve()),
        capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    if result.returncode:
        said = (result.stderr.strip().splitlines() or [f"exit status {result.returncode}"])[-1]
        raise DeviceError(f"it needs root, or a kernel that lets users make namespaces, and veth: {said}")
    return _judge(folder, console)


def _judge(folder: Path, console: Any) -> int:
    """Report of the two captures, departures as the kernel told them beside those in the packets."""
    from twinstamp.cli.owd import show
    from twinstamp.owd import Options, report_captures
    from twinstamp.owd.page import write_html

    captures = [str(folder / f"{site}.pcapng") for site in SITES]
    sent = [slow_train(way) for way in (0, 1)]
    schedules = {(t.source, t.destination, t.session): t.schedule().ns() for t in sent}
    report = report_captures(captures, options=Options(unsynchronised=True), schedules=schedules)
    notes = (
        "Two network namespaces of one machine, stamps by its kernel: both ends have the same clock, which "
        "adds no error whatever it follows. Its bound is not known, and none is made up.",
        f"The cloud is a program that holds frames for {HOLD_NS[0] / 1e6:g} ms there and "
        f"{HOLD_NS[1] / 1e6:g} ms back, and longer where the scheduler is late.",
    )
    for text in notes:
        console.print(text, markup=False)
    show(report)
    out: dict[str, Any] = {"directions": []}
    good = len(report.trains) == 2
    for train in report.trains:
        way = train.key.session - 1
        told = np.load(folder / f"{SITES[way]}.npy")
        table = train.table()
        number = table["sequence"].astype(np.int64)
        # The same clock at both ends: arrival less the kernel's departure is the truth as far as it knows.
        early = (told - _sent(train))[number]
        delay = table["delay_ns"]
        good = good and len(number) == PACKETS and bool((delay > HOLD_NS[way]).all() and (early > 0).all())
        figures = {
            "direction": f"{SITES[way]} to {SITES[1 - way]}",
            "packets": len(number),
            "sent": PACKETS,
            "delay_ns": {name: float(np.percentile(delay, p)) for name, p in _POINTS},
            "departure_behind_stamp_ns": {name: float(np.percentile(early, p)) for name, p in _POINTS},
        }
        out["directions"].append(figures)
        middle, high, most = np.percentile(early, (50, 99, 100))
        console.print(
            f"{figures['direction']}: {len(number)} of {PACKETS} arrived; the kernel's departure stamp is "
            f"{middle:,.0f} ns behind the packet's own (median; P99 {high:,.0f}, most {most:,.0f}): the "
            "delays are too long by that",
            markup=False,
        )
    out["passed"] = good
    (folder / "namespaces.json").write_text(json.dumps(out, indent=1), encoding="utf-8")
    write_html(report, str(folder / "namespaces.html"), notes=notes)
    console.print(f"Page: {folder}/namespaces.html", markup=False)
    return 0 if good else 1


_POINTS = (("min", 0), ("median", 50), ("p99", 99), ("max", 100))


def _sent(train: Any) -> Any:
    """Departures as in the packets, ns UTC, by number; 0 where one did not arrive."""
    arrivals = train.judged.arrivals
    out = np.zeros(PACKETS, np.int64)
    out[arrivals.sequence] = arrivals.sent_ns
    return out


def slow_train(way: int) -> Train:
    """The train of a direction as an ordinary sender can keep it: 90 bytes, 10 ms apart on average."""
    from twinstamp.train import Fixed, Poisson

    gap = Poisson(mean="10ms", minimum="1ms")
    train: Train = replace(trains(PACKETS)[way], size=Fixed(90), timestamp="ntp", gap=gap)
    return train


def _span_ns() -> int:
    return max(int(slow_train(way).schedule().ns()[-1]) for way in (0, 1))


# Within the namespaces


def world(folder: Path) -> None:
    """Builds the network, runs both sites and the cloud to their end. DeviceError where something fails."""
    from twinstamp.demo.world import run

    run("mount -t tmpfs tmpfs /run")
    for i, site in enumerate(SITES):
        name = site.lower()
        run(f"ip netns add {name}")
        run(f"ip link add to_{name} type veth peer name eth0 netns {name}")
        run(f"ip -n {name} link set eth0 address 02:00:00:00:00:0{i + 1}")
        run(f"ip -n {name} link set eth0 up")
        run(f"ip link set to_{name} up")
    start = time.time_ns() + _LEAD_NS
    me = [sys.executable, "-m", "twinstamp.demo_owd.namespaces"]
    commands = [[*me, "cloud", str(start)]]
    for i, site in enumerate(SITES):
        commands.append(["ip", "netns", "exec", site.lower(), *me, "site", str(i), str(start), str(folder)])
    processes = [subprocess.Popen(c, stderr=subprocess.PIPE, text=True) for c in commands]
    try:
        for process in processes:
            _, said = process.communicate(timeout=60)
            if process.returncode:
                raise DeviceError((said.strip().splitlines() or ["a part of the network failed"])[-1])
    finally:
        for process in processes:
            process.kill()
            process.wait()


def cloud(start_ns: int) -> None:
    """Forwards frames between both sites, each held for its direction's delay."""
    ends = []
    for site in SITES:
        # Protocol 0 until it is bound: nothing of other interfaces comes in before.
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        end.bind((f"to_{site.lower()}", _ETH_ALL))
        ends.append(end)
    waiting: list[tuple[int, int, int, bytes]] = []
    until = start_ns + _span_ns() + int((_DRAIN_S + 0.5) * 1e9)
    count = 0
    while (now := time.time_ns()) < until:
        while waiting and waiting[0][0] <= now:
            _, _, way, frame = heapq.heappop(waiting)
            ends[1 - way].send(frame)
        wait_s = min((waiting[0][0] - now) / 1e9, 0.05) if waiting else 0.05
        for ready in select.select(ends, [], [], wait_s)[0]:
            frame, address = ready.recvfrom(2048)
            if address[2] != _OUTGOING:
                way = ends.index(ready)
                count += 1
                heapq.heappush(waiting, (time.time_ns() + HOLD_NS[way], count, way, frame))


def site(number: int, start_ns: int, folder: Path) -> None:
    """Sends the site's train, captures what comes, keeps the kernel's departure stamps: NAME.npy, i64[n]."""
    import threading

    from twinstamp.card.capture import CardCapture
    from twinstamp.card.linux import LinuxCard
    from twinstamp.io.files import create_capture
    from twinstamp.train.frames import frames

    train = slow_train(number)
    end_ns = start_ns + _span_ns() + int(_DRAIN_S * 1e9)
    with LinuxCard(["eth0"]) as card, create_capture(
        str(folder / f"{SITES[number]}.pcapng"), format="pcapng"
    ) as writer:  # fmt: skip
        card.calibration(0)
        error = stamp.error_estimate(-1, synchronised=False)
        schedule = train.schedule()
        made = frames(train, schedule, 0, PACKETS, error)
        launch = start_ns + schedule.ns()
        capture = CardCapture(writer, card)
        card.start()
        outcome: list[Any] = []

        def send() -> None:
            outcome.append(
                card.send_timed(
                    0, made.data, made.offset, made.caplen, launch_ns=launch, stamp_at=made.stamp_at,
                    checksum_at=made.checksum_at,
                )
            )  # fmt: skip

        sender = threading.Thread(target=send)
        sender.start()
        while time.time_ns() < end_ns:
            batch = card.poll(0.2)
            if batch is not None:
                with batch:
                    capture.write(batch)
        sender.join()
        if not outcome or outcome[0].error.any():
            raise DeviceError(f"{SITES[number]}: the kernel refused frames")
        departures = card.departures(0.1)
        left = np.zeros(PACKETS, np.int64)
        mine = departures["number"] - np.uint64(outcome[0].first)
        left[mine[mine < PACKETS].astype(np.int64)] = departures["stamp_ns"][mine < PACKETS]
    np.save(folder / f"{SITES[number]}.npy", left)


def main() -> int:
    """world FOLDER | cloud START | site NUMBER START FOLDER"""
    role, *rest = sys.argv[1:]
    try:
        if role == "world":
            world(Path(rest[0]))
        elif role == "cloud":
            cloud(int(rest[0]))
        else:
            site(int(rest[0]), int(rest[1]), Path(rest[2]))
    except (TwinstampError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
