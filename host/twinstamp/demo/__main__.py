# SPDX-License-Identifier: Apache-2.0
"""python -m twinstamp.demo: the appliance on real traffic, or on a capture of the demo's own making."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from twinstamp.demo import dpi, made, world
from twinstamp.demo.flows import Flows, sent_flows
from twinstamp.demo.verdict import Evidence, as_dict, judge, show
from twinstamp.errors import ConfigError, DeviceError, TwinstampError
from twinstamp.units import format_ns

# What tshark calls a retransmission whose lost segment it saw: by the timing it may say "out of order".
RETRANSMITTED = "tcp.analysis.retransmission or tcp.analysis.out_of_order"
NEEDED = ("unshare", "mount", "ip", "tc", "ethtool", "dumpcap", "curl")


def unshare(*command: str | Path) -> list[str]:
    """The command in mount, network, process-id and, for a user, user namespaces of its own."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return [
        "unshare",
        *user,
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        *map(str, command),
    ]


def run_world(folder: Path, *, quick: bool) -> str | None:
    """Runs the demo's network to its end; None, or why this machine does not let us build it."""
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    if absent := [name for name in NEEDED if shutil.which(name, path=path) is None]:
        return f"not installed: {', '.join(absent)}"
    environment = {**os.environ, "PATH": path}
    trial = subprocess.run(unshare("true"), capture_output=True, text=True, env=environment, timeout=30)
    if trial.returncode:
        return trial.stderr.strip() or f"unshare ended with status {trial.returncode}"
    # Its standard input is its lifeline (world.main); a group of its own, so that Ctrl-C reaches only us.
    with subprocess.Popen(
        unshare(sys.executable, "-m", "twinstamp.demo.world", folder, *(["--quick"] if quick else [])),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=environment,
    ) as process:
        try:
            assert process.stderr is not None
            said = process.stderr.read().strip()
            status = process.wait()
        finally:
            process.kill()
    if status == world.CANNOT_BUILD:
        return said
    if status:
        raise DeviceError(said or f"the demo's network ended with status {status}")
    return None


def together(commands: Sequence[Sequence[str]]) -> list[str]:
    """Standard output of commands run side by side; none is left running."""
    processes = [
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for command in commands
    ]
    try:
        results = []
        for process, command in zip(processes, commands, strict=True):
            out, err = process.communicate(timeout=300)
            if process.returncode:
                said = (err.strip().splitlines() or ["nothing"])[-1]
                raise DeviceError(f"{' '.join(command[:4])}… ended with status {process.returncode}: {said}")
            results.append(out)
        return results
    finally:
        for process in processes:
            process.kill()
            process.wait()


def ndpi(capture: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "twinstamp.demo.dpi", str(capture), str(out)]


def tshark(capture: Path) -> list[str]:
    return ["tshark", "-n", "-r", str(capture), "-Y", RETRANSMITTED, "-T", "fields", "-e", "frame.number"]


def run_offline(folder: Path, console: Console, *, quick: bool) -> tuple[Flows, int, int]:
    """The same pipeline from a feed that we make: (truth, its frames, its retransmissions)."""
    console.print("making a mirror feed, and running [bold]twinstamp run appliance.toml[/] on it")
    truth, frames, retransmissions = made.make(folder / "feed.pcap", quick=quick)
    appliance = world.APPLIANCE.replace('interface = "mon"', 'file = "feed.pcap"')
    for i, name in enumerate(world.DPI_SERVERS):
        appliance = appliance.replace(f'interface = "out{i}"', f'file = "{name}.pcap"')
    (folder / "appliance.toml").write_text(appliance)
    result = subprocess.run(
        [sys.executable, "-m", "twinstamp.cli", "run", "appliance.toml"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if result.returncode:
        raise DeviceError(f"twinstamp run ended with status {result.returncode}: {result.stderr.strip()}")
    return truth, frames, retransmissions


def demonstrate(folder: Path, console: Console, options: argparse.Namespace) -> int:
    """The demo, its files in a folder. Exit status: 0, or 1 for a fault."""
    reason = "--offline was asked for" if options.offline else run_world(folder, quick=options.quick)
    live = reason is None
    truth: Flows
    if reason is None:
        facts = json.loads((folder / "world.json").read_text())
        truth, frames = sent_flows(folder / "sent-client.pcap", folder / "sent-server.pcap")
        retransmissions = sum(facts["kernel_retransmissions"].values())
    else:
        console.print(
            f"[bold yellow]No network of namespaces here:[/] {escape(reason)}\n"
            "So the demo makes a mirror feed itself and writes a file for each DPI server. Not shown then:\n"
            "real programs, a real SPAN and router, a kernel's own counters, live speed and added delay."
        )
        truth, frames, retransmissions = run_offline(folder, console, quick=options.quick)

    console.print("judging: nDPI and tshark on the raw feed and on what the DPI servers got")
    names = world.DPI_SERVERS
    commands = [ndpi(folder / "feed.pcap", folder / "feed.json")]
    if not live:
        commands += [ndpi(folder / f"{name}.pcap", folder / f"{name}.json") for name in names]
    has_tshark = shutil.which("tshark") is not None
    if has_tshark:
        commands += [tshark(folder / f"{name}.pcap") for name in ("feed", *names)]
    outputs = together(commands)
    raw = cleaned = None
    if has_tshark:
        raw, *per_server = (out.count("\n") for out in outputs[-1 - len(names) :])
        cleaned = sum(per_server)
    else:
        console.print("[yellow]left out:[/] tshark's view (package tshark)")
    evidence = Evidence(
        truth=truth,
        truth_frames=frames,
        without=dpi.read(folder / "feed.json"),
        servers={name: dpi.read(folder / f"{name}.json") for name in names},
        report=json.loads((folder / "report.json").read_text()),
        retransmissions=(retransmissions, raw, cleaned),
        live=live,
    )
    verdict = judge(evidence)
    console.print()
    show(console, evidence, verdict)
    result = as_dict(evidence, verdict)
    if live:
        result["world"] = facts
        added, before = (
            evidence.report["added_delay_ns"],
            evidence.report["ledger"]["dropped_before_received"],
        )
        console.print(
            f"Delay the appliance added: p50 {format_ns(added['p50'])}, p99 {format_ns(added['p99'])}, max "
            f"{format_ns(added['max'])}. Frames its kernel dropped before it received them: {before:,}."
        )
        sent = sum(facts["sent_frames"].values())
        console.print(
            f"The endpoints' kernels sent {sent:,} frames (their captures hold {frames:,}); the mirror made "
            f"{facts['mirrored_frames']:,} of them.\n"
            f"The DPI servers' kernels received {sum(facts['received_frames'].values()):,}; "
            f"captures lost {facts['capture_drops']:,}; the traffic took {facts['traffic_s']:.1f} s."
        )
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    return 1 if verdict.faults else 0


def _ended(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m twinstamp.demo", description="The appliance at work on real traffic (docs/demo.md)."
    )
    parser.add_argument("--quick", action="store_true", help="a third of the traffic")
    parser.add_argument(
        "--offline", action="store_true", help="no network: a capture of the demo's own making"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON as well")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="keep captures, logs and report in an empty DIR"
    )
    options = parser.parse_args(argv)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, _ended)
    began = time.monotonic()
    try:
        if find_spec("nfstream") is None:
            raise ConfigError("nfstream is not installed: `make setup`, or pip install 'twinstamp[dpi]'")
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            if any(options.keep.iterdir()):
                raise ConfigError(f"--keep {options.keep}: the folder is not empty; name another")
            status = demonstrate(options.keep.resolve(), console, options)
        else:
            with tempfile.TemporaryDirectory(prefix="twinstamp-demo-") as folder:
                status = demonstrate(Path(folder), console, options)
    except TwinstampError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(f"demo: {error}", markup=False)
        return 2 if isinstance(error, ConfigError) else 1
    except KeyboardInterrupt:
        Console(stderr=True).print("demo: interrupted; everything it made is gone")
        return 130
    console.print(
        f"Done in {time.monotonic() - began:.0f} s; namespaces, processes and files of the demo are gone."
    )
    return status


if __name__ == "__main__":
    sys.exit(main())
