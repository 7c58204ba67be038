# SPDX-License-Identifier: Apache-2.0
"""--backend through library, commands and appliance: same outputs, and what is said of the GPU."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.balance import Classifier, Group, Secret, Server, numbered_servers
from twinstamp.cli import main
from twinstamp.dedup import dedup_capture
from twinstamp.errors import ConfigError
from twinstamp.frames import FrameBatch
from twinstamp.match import balance_capture, match_capture
from twinstamp.rules import Rule, RuleSet
from twinstamp_kernels import backend

from tests.appliance.test_run_files import write_pcap
from tests.emulation.device import EmulatedDevice
from tests.gpu.fakes import FakeDevice, FakeDeviceWindow
from tests.gpu.short_streams import frames

SECRET = Secret(bytes(range(32)))
RULES = RuleSet(
    (
        Rule(destination_port=(1024, 2400), action=("web",)),
        Rule(protocol=17, action=()),
        Rule(protocol=6, action=("web", "rest")),
    ),
    default=("rest",),
)
GROUPS = (Group("web", numbered_servers("5")), Group("rest", (Server("one"), Server("two", 3))))
WHY = "no GPU: no NVIDIA device on this machine"


def payloads() -> list[bytes]:
    return random.Random(2).sample(frames(42, 150), 150)


@pytest.fixture
def capture(tmp_path: Path) -> str:
    path = tmp_path / "in.pcap"
    write_pcap(path, [(10**18 + 1000 * i, frame) for i, frame in enumerate(payloads())])
    return str(path)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    monkeypatch.setattr(backend, "_DEV", tmp_path / "dev")


@pytest.fixture
def fake_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "device_window", lambda device, options: FakeDeviceWindow(device, **options))


def emulated(fail_at: int | None = None) -> EmulatedDevice:
    return EmulatedDevice(fail_at or 0, interval=0, fail_at=fail_at, racecheck=False, initcheck=False)


# The rules stage


def classifier(**options: Any) -> Classifier:
    return Classifier(RULES, groups=GROUPS, secret=SECRET, buckets=256, cache_entries=0, **options)


def run(stage: Classifier, sizes: list[int]) -> list[Any]:
    """Verdicts on batches and on what was held; a server dies in between."""
    out: list[Any] = []
    everything, first = payloads(), 0

    def released() -> None:
        while (got := stage.take_released()) is not None:
            out.append([list(got.frame), *(np.array(c).tolist() for c in got.verdicts)])

    for number, size in enumerate(sizes):
        part = everything[first : first + size]
        batch = FrameBatch.from_frames(part, timestamp_ns=range(first, first + size), first=first)
        out.append([np.array(column).tolist() for column in stage.process(batch)])
        released()
        first += size
        if number == 1:
            stage.set_alive("server2", False)
    stage.flush()
    released()
    return out


SIZES = [25, 0, 20, 20]


def test_rules_go_on_with_the_cpu_wherever_the_device_fails():
    cpu = classifier()
    expected = run(cpu, SIZES)
    assert len({rule for rules, *_ in expected[:1] for rule in rules}) > 2
    device = emulated()
    gpu = classifier(backend="gpu", device=device)
    assert run(gpu, SIZES) == expected
    assert gpu.counts() == cpu.counts()
    assert gpu.backend() == {"name": "gpu", "reason": f"asked for; {device.name}", "events": []}
    operations = len(device.operations)
    gpu.close()
    device.close()
    told = set()
    for fail_at in range(0, operations, 3):
        device = emulated(fail_at)
        events: list[str] = []
        stage = classifier(backend="gpu", device=device, warn=events.append)
        assert run(stage, SIZES) == expected, fail_at
        assert stage.counts() == cpu.counts(), fail_at
        if fail_at < operations - 30:  # what fails behind the last batch's verdicts is not noticed
            assert stage.backend()["name"] == "cpu"
        assert stage.backend()["events"] == events
        assert len(events) <= 1
        told |= {event.partition("failed ")[2].partition(":")[0] for event in events}
        stage.close()
        device.close()
    assert {"before the first frame", "after 0 frames", "after 25 frames", "after 45 frames"} <= told


def test_rules_are_measured_on_classifiers_of_their_own(monkeypatch):
    cpu = classifier()
    expected = run(cpu, SIZES)
    for fail_at in (None, 0, 40, 110):
        device = emulated(fail_at)
        stage = classifier(backend="auto", device=device)
        assert stage.backend()["name"] == "auto"
        assert run(stage, SIZES) == expected
        assert stage.counts() == cpu.counts(), "measuring counts nothing"
        assert stage.backend()["name"] == "cpu", "an emulated device is slow"
        said = "measured on the first 25 frames: CPU" if fail_at is None else "failed while it was measured"
        assert said in stage.backend()["reason"]
        stage.close()
        device.close()


# Captures


@pytest.mark.parametrize("fail_at", [None, 1, 6])
def test_dedup_writes_the_same_capture(capture, tmp_path, fake_windows, fail_at):
    reports = []
    for name, options in {"cpu": {}, "gpu": {"backend": "gpu", "device": FakeDevice(fail_at)}}.items():
        target = str(tmp_path / f"{name}.pcap")
        reports.append(dedup_capture(capture, target, window=50, profile="routing", keep=["arp"], **options))
    assert (tmp_path / "cpu.pcap").read_bytes() == (tmp_path / "gpu.pcap").read_bytes()
    used = [report.pop("backend") for report in reports]
    for report in reports:
        del report["memory_bytes"]
    assert reports[0] == reports[1]
    assert reports[0]["ledger"]["duplicates_dropped"]["frames"] > 30
    assert used[0] == {"name": "cpu", "reason": "asked for", "events": []}
    assert used[1]["name"] == ("gpu" if fail_at is None else "cpu")
    assert len(used[1]["events"]) == (fail_at is not None)


@pytest.mark.parametrize("fail_at", [None, 30])
def test_match_and_balance_write_the_same_files(capture, tmp_path, fail_at):
    rows, shares = [], []
    for name in ("cpu", "gpu"):
        device = emulated(fail_at) if name == "gpu" else None
        folder = tmp_path / name
        options = {"backend": name, "device": device}
        report = match_capture(capture, RULES, str(tmp_path / f"{name}.csv"), **options)
        assert (report["backend"]["name"] == name) == (fail_at is None or name == "cpu")
        rows.append((tmp_path / f"{name}.csv").read_text())
        report = balance_capture(capture, RULES, folder, groups=GROUPS, secret=SECRET, **options)
        assert (report["backend"]["name"] == name) == (fail_at is None or name == "cpu")
        shares.append({path.name: path.read_bytes() for path in sorted(folder.iterdir())})
        if device is not None:
            device.close()
    assert rows[0] == rows[1]
    assert len(rows[0].splitlines()) == 151
    assert shares[0] == shares[1]
    assert len(shares[0]) == 7


# Commands


def commands(capture: str, tmp_path: Path) -> dict[str, list[str]]:
    rules = tmp_path / "r.toml"
    rules.write_text('default = "web"\n[[rule]]\nprotocol = "tcp"\naction = "web"\n')
    secret = ["--secret-file", str(tmp_path / "key")]
    return {
        "dedup": ["dedup", capture, str(tmp_path / "o.pcap"), "--window", "9"],
        "analyse": ["analyse", capture],
        "rules": ["rules", "match", capture, "--rules", str(rules), "--out", str(tmp_path / "o.csv")],
        "balance": ["balance", capture, "--rules", str(rules), "--out-dir", str(tmp_path / "o"), *secret],
    }


@pytest.mark.parametrize("name", ["dedup", "analyse", "rules", "balance"])
def test_commands_refuse_a_gpu_that_is_not_there_and_do_without_it(capture, tmp_path, capsys, no_gpu, name):
    arguments = commands(capture, tmp_path)[name]
    assert main([*arguments, "--backend", "gpu"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"twinstamp {name}: {WHY}")
    assert said.endswith("; or use the backend cpu\n")
    assert said.count("\n") == 1
    assert main([*arguments, "--backend", "auto"]) == 0
    assert f"judged on the CPU: {WHY}" in capsys.readouterr().err
    assert main(arguments) == 0
    assert "judged on" not in capsys.readouterr().err


def test_a_failure_is_said_at_once_and_even_quietly(capture, tmp_path, capsys, monkeypatch, fake_windows):
    monkeypatch.setattr(backend, "open_device", lambda: FakeDevice(fail_at=6))
    report = tmp_path / "report.json"
    arguments = commands(capture, tmp_path)["dedup"]
    assert main([*arguments, "--backend", "gpu", "--quiet", "--json", str(report)]) == 0
    event = (
        "duplicates: the GPU (a device of the tests) failed after 0 frames: the tests wanted it; "
        "the CPU goes on, with the same verdicts"
    )
    assert capsys.readouterr().err == f"twinstamp dedup: {event}\n"
    assert json.loads(report.read_text())["backend"]["events"] == [event]


def test_backends_are_listed(capsys, monkeypatch, no_gpu):
    assert main(["backends"]) == 0
    assert capsys.readouterr().out.startswith(f"cpu   always\ngpu   not here: {WHY[8:]} ")
    device = FakeDevice()
    monkeypatch.setattr(backend, "open_device", lambda: device)
    assert main(["backends"]) == 0
    assert capsys.readouterr().out == "cpu   always\ngpu   a device of the tests\n"
    assert device.closed == 1


# The appliance


def appliance(tmp_path: Path, name: str, capture: str) -> Path:
    path = tmp_path / f"{name}.toml"
    path.write_text(
        f'[appliance]\nbackend = "{name}"\nbatch_frames = 40\nreport = "{name}.json"\n'
        f'[[source]]\nfile = "{capture}"\n'
        '[duplicates]\nprofile = "routing"\nwindow = 30\n'
        '[balance]\nsecret_file = "key"\n[[group]]\nname = "dpi"\n'
        f'[[group.server]]\nname = "a"\nfile = "{name}-a.pcap"\n'
        f'[[group.server]]\nname = "b"\nfile = "{name}-b.pcap"\n'
    )
    return path


def test_an_appliance_whose_gpu_dies_delivers_the_same_frames(capture, tmp_path, monkeypatch, fake_windows):
    class Both(EmulatedDevice):
        """For the fake window and for the classifier."""

        def step(self) -> None:
            self._operation("launch")

    opened: list[EmulatedDevice] = []

    def open_device(fail_at: int | None) -> EmulatedDevice:
        opened.append(Both(interval=0, fail_at=fail_at, racecheck=False, initcheck=False))
        return opened[-1]

    with Appliance(load_appliance(appliance(tmp_path, "cpu", capture))) as one:
        expected = one.run()
    assert expected["backend"]["rules"] == {"name": "cpu", "reason": "asked for", "events": []}
    # 0: nothing can be made; 30: a stage each, or the window only, has failed before the batch; 45: in it.
    seen = set()
    for fail_at in (None, 0, 30, 45):
        monkeypatch.setattr(backend, "open_device", lambda fail_at=fail_at: open_device(fail_at))
        with Appliance(load_appliance(appliance(tmp_path, "gpu", capture))) as other:
            report = other.run()
        for server in "ab":
            cpu, gpu = (tmp_path / f"{name}-{server}.pcap" for name in ("cpu", "gpu"))
            assert cpu.read_bytes() == gpu.read_bytes(), fail_at
        assert report["ledger"] == expected["ledger"]
        assert report["duplicates"]["by_type"] == expected["duplicates"]["by_type"]
        assert json.loads((tmp_path / "gpu.json").read_text())["backend"] == report["backend"]
        assert opened[-1].closed, "given back at the end"
        on_cpu = {stage for stage, used in report["backend"].items() if used["name"] == "cpu"}
        told = {event.partition(":")[0].split()[0] for event in report["events"]}
        assert told == on_cpu
        seen.add((fail_at, *sorted(on_cpu)))
    assert {(None,), (0, "duplicates", "rules"), (45, "rules")} <= seen, seen


def test_an_appliance_without_a_gpu(capture, tmp_path, capsys, no_gpu):
    with pytest.raises(ConfigError, match=rf'appliance\.backend: {WHY}.*; or write backend = "cpu"'):
        Appliance(load_appliance(appliance(tmp_path, "gpu", capture)))
    assert main(["run", str(appliance(tmp_path, "auto", capture))]) == 0
    shown = capsys.readouterr().out
    assert "Judged on: duplicates CPU, rules CPU" in shown
    assert f"- duplicates on the CPU: {WHY}" in shown
    report = json.loads((tmp_path / "auto.json").read_text())
    assert report["backend"]["rules"]["reason"].startswith(WHY)
    path = appliance(tmp_path, "tpu", capture)
    with pytest.raises(ConfigError, match=r"appliance\.backend: 'tpu' is unknown: choose one of cpu, gpu"):
        load_appliance(path)
