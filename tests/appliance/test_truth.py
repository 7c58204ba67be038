# SPDX-License-Identifier: Apache-2.0
"""What the report says is what happened: flows, copies, files on a full disk, ends that nobody planned."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.appliance.outputs import FileOutput, Sent
from twinstamp.appliance.pipeline import FlowCount
from twinstamp.errors import ConfigError, InputError, LedgerError

from tests.appliance.test_run_files import appliance, conversation, read_all, run, write_pcap
from tests.conftest import ROOT


@pytest.mark.parametrize(("servers", "flows"), [(1, 1_000_000), (8, 100_000), (8, 1_000_000), (64, 100_000)])
def test_flows_of_a_server_that_gets_a_share_of_the_buckets(servers, flows):
    """The bucket is the hash's highest bits, so one server's flows have some of those in common."""
    rng = np.random.default_rng(servers + flows)
    width = 64 - (servers - 1).bit_length()
    count = FlowCount()
    mine = rng.integers(0, 1 << 63, flows, np.uint64) >> np.uint64(64 - width if width < 64 else 0)
    count.add(mine | np.uint64(((servers - 1) << width) & ((1 << 64) - 1)))
    assert abs(count.estimate() / len(np.unique(mine)) - 1) < 0.01


def test_a_server_in_two_groups_gets_its_copies_twice(tmp_path):
    """As on an interface: what the report calls sent stands in the file."""
    original = conversation(6, 5)
    write_pcap(tmp_path / "feed.pcap", original)
    (tmp_path / "rules.toml").write_text('[[rule]]\nprotocol = "udp"\naction = ["dpi", "ids"]\n')
    group = '[[group]]\nname = "{}"\n[[group.server]]\nname = "store"\nfile = "store.pcapng"\n'
    (tmp_path / "a.toml").write_text(
        '[appliance]\nreport = "report.json"\n[[source]]\nfile = "feed.pcap"\n'
        '[balance]\nsecret_file = "b.key"\nrules = "rules.toml"\n' + group.format("dpi") + group.format("ids")
    )
    report = run(tmp_path / "a.toml")
    udp = sum(frame[23] == 17 for _, frame in original)
    assert udp > 0
    expected = []
    for time_ns, frame in original:
        expected += [(time_ns, frame)] * (2 if frame[23] == 17 else 1)
    assert read_all(tmp_path / "store.pcapng") == expected
    assert report["ledger"]["copies"]["sent"]["frames"] == len(expected)
    assert report["servers"]["store"]["frames"] == len(expected)


def test_a_full_disk_is_not_called_sent(tmp_path):
    """The limit of file sizes in its place: each server's count is that of the frames in its file."""
    original = conversation(40, 500)
    write_pcap(tmp_path / "feed.pcap", original)
    path = appliance(tmp_path, files=["feed.pcap"], servers=2, ending="pcap")
    path.write_text(path.read_text().replace("workers = 1", "workers = 1\nbatch_frames = 1024"))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'host'}:{ROOT / 'gpu_kernels'}"}
    done = subprocess.run(
        [sys.executable, "-m", "twinstamp.cli", "run", "--quiet", str(path)], env=environment, timeout=60,
        capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (300 << 10, 300 << 10)),
    )  # fmt: skip
    assert done.returncode == 1 and "got less than its share" in done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    copies = report["ledger"]["copies"]
    for k in range(2):
        there = len(read_all(tmp_path / f"s{k}.pcap")) if (tmp_path / f"s{k}.pcap").stat().st_size else 0
        assert report["servers"][f"s{k}"]["frames"] == there
    assert copies["sent"]["frames"] == sum(server["frames"] for server in report["servers"].values())
    assert copies["send_errors"]["frames"] == sum(s["send_errors"] for s in report["servers"].values()) > 0
    assert copies["sent"]["frames"] + copies["send_errors"]["frames"] == copies["attempted"]["frames"]
    assert copies["attempted"]["frames"] == report["ledger"]["forwarded"]["frames"]


def test_copies_that_an_output_forgets_break_the_ledger(tmp_path, monkeypatch):
    """What was asked for is counted from the rules, what was sent by the output: they can differ."""
    write_pcap(tmp_path / "feed.pcap", conversation(10, 10))
    send = FileOutput.send

    def forgets(self, batch, index, tags):
        sent = send(self, batch, index, tags)
        return Sent(sent.frames - 1, sent.bytes, sent.failed_frames, sent.failed_bytes)

    monkeypatch.setattr(FileOutput, "send", forgets)
    with pytest.raises(LedgerError, match="copies attempted"):
        run(appliance(tmp_path, files=["feed.pcap"]))


def test_whatever_ends_a_run_there_is_a_report(tmp_path, monkeypatch):
    for name in ("a", "b"):  # of one file there are batches as large as it
        write_pcap(tmp_path / f"{name}.pcap", conversation(10, 100))
    path = appliance(tmp_path, files=["a.pcap", "b.pcap"], action="count")
    path.write_text(path.read_text().replace("workers = 1", "workers = 1\nbatch_frames = 256"))
    with Appliance(load_appliance(path)) as running:
        process, seen = running.pipeline.process, []

        def breaks(batch):
            seen.append(len(batch))
            if len(seen) == 2:
                raise InputError("frame 300: cannot be held")
            process(batch)

        monkeypatch.setattr(running.pipeline, "process", breaks)
        with pytest.raises(InputError, match="cannot be held"):
            running.run()
    report = json.loads((tmp_path / "report.json").read_text())
    # The batch that broke it is in no account; the rest was delivered.
    assert report["ledger"]["received"]["frames"] == sum(seen) - seen[1] > 0
    assert any("frame 300: cannot be held" in event for event in report["events"])
    assert sum(len(read_all(tmp_path / f"s{k}.pcapng")) for k in range(3)) == sum(seen) - seen[1]


def test_a_clock_that_is_set_back_does_not_touch_the_rates(tmp_path, monkeypatch):
    write_pcap(tmp_path / "feed.pcap", conversation(10, 10))
    real = time.time_ns
    with Appliance(load_appliance(appliance(tmp_path, files=["feed.pcap"]))) as running:
        monkeypatch.setattr(time, "time_ns", lambda: real() - 3_600_000_000_000)
        report = running.run()
    assert 0 < report["seconds"] < 60
    assert all(server["frames_per_s"] >= 0 for server in report["servers"].values())


def test_the_servers_memory_is_told(tmp_path):
    write_pcap(tmp_path / "feed.pcap", conversation(4, 4))
    report = run(appliance(tmp_path, files=["feed.pcap"], servers=5))
    # Each has a map of 2^20 flows and a buffer of 1 MiB.
    assert report["memory_bytes"]["servers"] == 5 * 2 << 20
    assert Path(tmp_path / "s4.pcapng").exists()


def test_an_interface_is_not_source_and_server(tmp_path):
    """Mirrored frames would go back into the mirror port."""
    path = tmp_path / "a.toml"
    path.write_text(
        '[[source]]\ninterface = "lo"\n[balance]\nsecret_file = "b.key"\n'
        '[[group]]\nname = "dpi"\n[[group.server]]\nname = "s0"\ninterface = "lo"\n'
    )
    with pytest.raises(ConfigError, match="server s0: interface lo is a source too"):
        Appliance(load_appliance(path))
