# SPDX-License-Identifier: Apache-2.0
"""`make demo`, short: on a network of namespaces where they can be made, and from a made feed everywhere.

The demo's own verdict compares nDPI, tshark and the kernel with the appliance's report; here the figures
are checked again, and that nothing is left behind, whatever way it ends.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from twinstamp.demo.world import BRIDGES, CABLES, NAMESPACES

pytest.importorskip("nfstream", reason="nfstream is not installed (extra dpi)")

DEMO = [sys.executable, "-m", "twinstamp.demo"]


def demo(tmp_path: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict]:
    result = subprocess.run(
        [*DEMO, "--quick", "--json", str(tmp_path / "out.json"), *options],
        capture_output=True,
        text=True,
        timeout=150,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result, json.loads((tmp_path / "out.json").read_text())


def check_verdict(out: dict):
    ledger = out["report"]["ledger"]
    assert ledger["received"]["frames"] > 0
    assert ledger["in_flight"]["frames"] == 0
    assert (
        ledger["forwarded"]["frames"] + ledger["duplicates_dropped"]["frames"] == ledger["received"]["frames"]
    )
    assert out["faults"] == []
    assert out["split_flows"] == []
    assert out["both_directions_on_one_server"] == out["two_way_flows"] > 100
    # Without the appliance nDPI sees most packets four times, and no flow as it was.
    assert out["packets"]["without"] > 3 * out["packets"]["endpoints"]
    assert out["flows_exact"]["without"] == 0
    kinds = out["report"]["duplicates"]["by_type"]
    assert kinds["exact"]["frames"] > 0
    assert kinds["routing"]["frames"] > 0
    found = {name for names in out["applications"].values() for name in names}
    assert {"HTTP", "DNS"} <= found
    assert all(server["frames"] > 0 for server in out["report"]["servers"].values())


def test_offline(tmp_path: Path):
    result, out = demo(tmp_path, "--offline")
    assert "Not shown" in result.stdout
    assert out["live"] is False
    check_verdict(out)
    # Made traffic: every figure is known to the frame.
    assert out["flows_exact"]["with"] == out["flows"]
    assert out["packets"]["with"] == out["packets"]["endpoints"]
    assert out["bytes"]["with"] == out["bytes"]["endpoints"]
    if out["retransmissions"]["with"] is not None:
        assert out["retransmissions"]["with"] == out["retransmissions"]["endpoints"] > 0
        assert out["retransmissions"]["without"] > 10 * out["retransmissions"]["endpoints"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.json"]


def test_offline_feed_is_the_same_every_time(tmp_path: Path):
    from twinstamp.demo.made import make

    first, second = tmp_path / "1.pcap", tmp_path / "2.pcap"
    assert make(first, quick=True) == make(second, quick=True)
    assert first.read_bytes() == second.read_bytes()


def test_made_packets_are_right_for_tshark(tmp_path: Path):
    """Every checksum that the generator computes, and no malformed packet, by Wireshark's dissectors."""
    from twinstamp.demo.made import make

    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    make(tmp_path / "feed.pcap", quick=True)
    command = ["tshark", "-n", "-r", str(tmp_path / "feed.pcap")]
    # Reassembly would call each copy an overlap.
    command += ["-otcp.desegment_tcp_streams:FALSE"]
    command += [f"-o{name}.check_checksum:TRUE" for name in ("ip", "tcp", "udp")]
    bad = "ip.checksum.status == 0 or tcp.checksum.status == 0 or udp.checksum.status == 0 or _ws.malformed"
    right = subprocess.run([*command, "-Y", f"not ({bad})"], capture_output=True, text=True, timeout=60)
    wrong = subprocess.run([*command, "-Y", bad], capture_output=True, text=True, timeout=60)
    assert wrong.stdout == ""
    assert right.stdout.count("\n") > 10_000


def namespaces_work() -> str | None:
    """None, or why the demo cannot make namespaces here."""
    from twinstamp.demo.__main__ import NEEDED, unshare

    absent = [name for name in NEEDED if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    result = subprocess.run(unshare("mount", "-t", "tmpfs", "tmpfs", "/run"), capture_output=True, text=True)
    return result.stderr.strip() or None if result.returncode else None


def ours() -> set[str]:
    """The demo's namespaces and interfaces, as far as the machine's own lists show any."""
    run = Path("/run/netns")
    shown = {path.name for path in run.iterdir()} if run.exists() else set()
    shown |= {path.name for path in Path("/sys/class/net").iterdir()}
    return shown & ({*NAMESPACES, *BRIDGES} | {interface for cable in CABLES for _, interface in cable})


def descendants_of_demo() -> list[str]:
    found = []
    for status in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = status.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "twinstamp.demo" in command:
            found.append(command)
    return found


@pytest.mark.root
def test_on_a_network_of_namespaces(tmp_path: Path):
    reason = namespaces_work()
    if reason is not None:
        pytest.skip(f"NO NAMESPACES: {reason}")
    before = ours()
    _, out = demo(tmp_path)
    assert out["live"] is True
    check_verdict(out)
    world = out["world"]
    assert world["missing"] == []
    assert out["report"]["ledger"]["received"]["frames"] <= world["mirrored_frames"]
    # Nobody but the kernels counts these.
    assert sum(world["received_frames"].values()) == out["report"]["ledger"]["forwarded"]["frames"]
    if world["capture_drops"] == 0:
        assert out["packets"]["with"] == pytest.approx(out["packets"]["endpoints"], rel=0.005)
        assert out["flows_exact"]["with"] >= 0.95 * out["flows"]
        assert out["retransmissions"]["with"] == pytest.approx(
            out["retransmissions"]["endpoints"], rel=0.1, abs=20
        )
        assert out["retransmissions"]["without"] > 5 * out["retransmissions"]["endpoints"]
    left = (ours(), sorted(path.name for path in tmp_path.iterdir()))
    assert left == (before, ["out.json"])


@pytest.mark.root
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_it_is_stopped(tmp_path: Path, how: signal.Signals):
    reason = namespaces_work()
    if reason is not None:
        pytest.skip(f"NO NAMESPACES: {reason}")
    before, others = ours(), len(descendants_of_demo())
    with subprocess.Popen(
        [*DEMO, "--quick"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("letting them talk"):
                break
        else:
            pytest.fail("the demo ended before the traffic began")
        process.send_signal(how)
        process.stdout.read()
        status = process.wait(20)
    assert status == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[how]
    deadline = time.monotonic() + 10
    while len(descendants_of_demo()) > others and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(descendants_of_demo()) <= others
    assert ours() == before
    if how != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []
