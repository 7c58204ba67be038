# SPDX-License-Identifier: Apache-2.0
"""A stage of the user's own: what it sees, how it is named, and that it can do no harm (docs/stages.md)."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.appliance.config import check_appliance
from twinstamp.cli import main
from twinstamp.errors import ConfigError, StageError

from tests.appliance.test_run_files import appliance, conversation, read_all, run, write_pcap
from tests.appliance.test_run_live import Running, document, send, until
from tests.conftest import ROOT
from tests.io_live.conftest import net, netns

__all__ = ["net", "netns"]

RECORDER = '''
import json, time
import numpy as np
from twinstamp.appliance import Clean, Stage

class Recorder(Stage):
    """Writes down what it was given; sleeps and raises where it is told to."""

    def __init__(self, *, out: str, sleep_s: float = 0.0, break_at: int = -1, where: str = "take") -> None:
        self.out, self.sleep_s, self.break_at, self.where = out, sleep_s, break_at, where
        self.seen, self.calls, self.log, self.ticks = 0, 0, [], 0

    def take(self, clean: Clean) -> None:
        assert clean.keep is None
        batch = clean.batch
        time.sleep(self.sleep_s)
        if self.where == "take" and self.break_at in range(clean.number, clean.number + len(batch)):
            raise KeyError("the frame that breaks it")
        kind = np.zeros(len(batch), np.uint8) if clean.kind is None else clean.kind
        for i in range(len(batch)):
            stamp = int(batch.timestamp_ns[i])
            self.log.append([clean.number + i, stamp, batch.frame(i).hex(), int(kind[i])])
        self.seen += len(batch)

    def tick(self, now_ns: int) -> None:
        self.ticks += 1

    def counters(self):
        if self.where == "counters" and self.seen > self.break_at:
            return {"bad": [1]}
        return {"seen": np.int64(self.seen), "mean": self.seen / 2, "text": "ok"}

    def finish(self) -> None:
        if self.where == "finish":
            raise ValueError("at the end")
        open(self.out, "w").write(json.dumps(self.log))
'''


def stage_of(tmp_path: Path, **options: object) -> str:
    (tmp_path / "mine.py").write_text(RECORDER)
    listed = ", ".join(
        f"{key} = {json.dumps(value)}"
        for key, value in {"out": str(tmp_path / "log.json"), **options}.items()
    )
    return f'[[stage]]\nmodule = "mine.py:Recorder"\noptions = {{ {listed} }}\n'


def with_stage(tmp_path: Path, stage: str, **options: object) -> Path:
    return appliance(tmp_path, files=["feed.pcap"], extra=stage, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("action", ["drop", "count", "tag"])
def test_a_stage_sees_every_clean_frame_once_and_in_order(tmp_path, action):
    original = conversation(20, 20)
    feed = [record for i, record in enumerate(original) for _ in range(1 + i % 2)]
    write_pcap(tmp_path / "feed.pcap", feed)
    report = run(with_stage(tmp_path, stage_of(tmp_path), action=action, servers=1))
    log = json.loads((tmp_path / "log.json").read_text())
    want = original if action == "drop" else feed
    assert [(stamp, bytes.fromhex(data)) for _, stamp, data, _ in log] == want
    assert [number for number, *_ in log] == list(range(len(want)))
    second = [0 if k == 0 or feed[k] != feed[k - 1] else 1 for k in range(len(feed))]
    assert [int(kind > 0) for *_, kind in log] == ([0] * len(want) if action == "drop" else second)
    assert read_all(tmp_path / "s0.pcapng") == want, "with a stage as without one"
    stage = report["stages"]["Recorder"]
    assert (stage["frames"], stage["lost"], stage["error"]) == (len(want), 0, None)
    assert stage["bytes"] == sum(len(frame) for _, frame in want)
    assert stage["counters"] == {"seen": len(want), "mean": len(want) / 2, "text": "ok"}


def test_the_example_of_the_documentation_runs(tmp_path):
    text = (ROOT / "docs/stages.md").read_text()
    toml = re.search(r"```toml\n(.*?)```", text, re.S)
    python = re.search(r"```python\n(.*?)```", text, re.S)
    assert toml and python
    (tmp_path / "sizes.py").write_text(python[1])
    records = [(10**18 + k, bytes(14 + 400 * (k % 3))) for k in range(30)]
    write_pcap(tmp_path / "feed.pcap", records)
    path = with_stage(tmp_path, toml[1], action="count")
    report = run(path)
    assert report["stages"]["sizes"]["counters"] == {"from_0": 20, "from_512": 10}


@pytest.mark.parametrize(
    ("where", "break_at", "told"),
    [
        ("take", 0, r"KeyError: 'the frame that breaks it' \(.*mine\.py:18\)"),
        ("counters", 0, "TypeError: a counter is a list"),
        ("finish", 0, r"ValueError: at the end \(.*mine\.py:\d+\)"),
    ],
)
def test_a_stage_that_raises_stops_alone(tmp_path, where, break_at, told):
    original = conversation(10, 10)
    write_pcap(tmp_path / "feed.pcap", original)
    with pytest.raises(StageError, match=told):
        run(with_stage(tmp_path, stage_of(tmp_path, where=where, break_at=break_at), servers=1))
    report = json.loads((tmp_path / "report.json").read_text())
    assert len(read_all(tmp_path / "s0.pcapng")) == report["ledger"]["forwarded"]["frames"] == len(original)
    stage = report["stages"]["Recorder"]
    assert stage["frames"] + stage["lost"] == len(original)
    assert re.search(told, stage["error"])
    assert [event for event in report["events"] if event.startswith("stage Recorder has stopped")]
    assert main(["run", "--quiet", str(tmp_path / "appliance.toml")]) == 1


@pytest.mark.parametrize(
    ("text", "stage", "message"),
    [
        (
            "class A: pass",
            'module = "mine.py:A"',
            r"stage A: class A has no take, tick, finish, counters\(\)",
        ),
        (
            "from twinstamp.appliance import Stage\nclass A(Stage): pass",
            'module = "mine.py:A"',
            r"class A has no take\(\)",
        ),
        ("x = 1", 'module = "mine.py:A"', "has no class A"),
        ("A = 1", 'module = "mine.py:A"', "has no class A"),
        ("x = (", 'module = "mine.py:A"', "SyntaxError"),
        ("1 / 0", 'module = "mine.py:A"', r"ZeroDivisionError: division by zero \(.*mine\.py:1\)"),
        ("", 'module = "other.py:A"', r"no Python file .*other\.py"),
        ("", 'module = "mine.py"', r'must be "FILE\.py:CLASS"'),
        ("", 'module = "mine.py:1"', r'must be "FILE\.py:CLASS"'),
        ("", 'name = "x"', r"stage\[0\]\.module: is missing"),
        ("", 'module = "mine.py:A"\nname = "a b"', r"stage\[0\]\.name: .*a name is"),
        ("", 'module = "mine.py:A"\nmodul = 1', r"stage\[0\]\.modul: unknown key"),
    ],
)
def test_mistakes_are_named(tmp_path, text, stage, message):
    write_pcap(tmp_path / "feed.pcap", conversation(1, 1))
    path = with_stage(tmp_path, f"[[stage]]\n{stage}\n")
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(ConfigError, match=message):
        check_appliance(load_appliance(path))
    with pytest.raises(ConfigError, match=message):
        Appliance(load_appliance(path))


def test_wrong_options_and_names_are_named(tmp_path):
    write_pcap(tmp_path / "feed.pcap", conversation(1, 1))
    with pytest.raises(ConfigError, match=r"stage Recorder\.options: Recorder: .*'colour'"):
        check_appliance(load_appliance(with_stage(tmp_path, stage_of(tmp_path, colour="red"))))
    with pytest.raises(ConfigError, match="two stages have the same name"):
        load_appliance(with_stage(tmp_path, 2 * stage_of(tmp_path)))
    path = with_stage(tmp_path, stage_of(tmp_path))
    path.write_text(path.read_text().replace("report.json", "mine.py"))
    with pytest.raises(ConfigError, match=r"mine\.py"):
        load_appliance(path)


@pytest.mark.root
def test_a_slow_stage_holds_nobody_up_and_its_loss_is_counted(net, tmp_path):
    """20 ms a block, 4 MiB of memory: forwarding loses nothing, the stage knows which frames it lacks."""
    frames = [frame + bytes(1400 - len(frame)) for _, frame in conversation(50, 20)]
    (tmp_path / "mine.py").write_text(RECORDER)
    out = {"out": str(tmp_path / "log.json")}
    stages = [
        {"module": "mine.py:Recorder", "name": "slow", "options": {**out, "sleep_s": 0.05}},
        {"module": "mine.py:Recorder", "name": "quick", "options": {"out": str(tmp_path / "quick.json")}},
    ]
    running = Running(
        {
            **document({"store": {"file": "store.pcapng"}}, window=2),
            "appliance": {"hub_mib": 6},
            "stage": stages,
        },
        tmp_path,
    )
    for _ in range(12):
        send("va", frames, 0.004)
    ledger = running.appliance.pipeline.ledger
    until(lambda: ledger.received.frames == 12 * len(frames))
    behind = running.appliance.hub.as_dict()["readers"]["stage slow"]
    assert behind["done"]["frames"] < 12 * len(frames) == ledger.fates["forwarded"].frames
    began = time.monotonic()
    report = running.stop()
    assert time.monotonic() - began < 25, "the end waits for 20 s at most"
    assert report["ledger"]["dropped_before_received"] == report["hub"]["missed"]["frames"] == 0
    assert (
        len(read_all(tmp_path / "store.pcapng")) == 12 * len(frames) == report["servers"]["store"]["frames"]
    )
    slow, quick = report["stages"]["slow"], report["stages"]["quick"]
    assert (quick["frames"], quick["lost"]) == (12 * len(frames), 0)
    assert slow["lost"] > 0 and slow["frames"] + slow["lost"] == 12 * len(frames)
    every = json.loads((tmp_path / "quick.json").read_text())
    assert [bytes.fromhex(data) for _, _, data, _ in every] == 12 * frames
    some = json.loads((tmp_path / "log.json").read_text())
    assert len(some) == slow["frames"]
    numbers = np.array([number for number, *_ in some])
    assert (np.diff(numbers) > 0).all()
    assert [data for _, _, data, _ in some] == [every[number][2] for number in numbers]


@pytest.mark.root
def test_a_stage_that_raises_in_service_costs_nothing_else(net, tmp_path):
    frames = [frame for _, frame in conversation(50, 4)]
    (tmp_path / "mine.py").write_text(RECORDER)
    options = {"out": str(tmp_path / "log.json"), "break_at": 100}
    path = {
        **document({"store": {"file": "store.pcapng"}}, window=2),
        "stage": [{"module": "mine.py:Recorder", "options": options}],
    }
    running = Running(path, tmp_path, fails=StageError)
    for _ in range(5):
        send("va", frames, 0.002)
    until(lambda: running.appliance.pipeline.ledger.received.frames == 1000)
    until(lambda: any("KeyError" in event for event in running.appliance.events))
    running.stop()
    assert len(read_all(tmp_path / "store.pcapng")) == 1000
    stage = running.appliance.snapshot.stages["Recorder"]
    assert stage.frames <= 100 and stage.frames + stage.lost == 1000
