# SPDX-License-Identifier: Apache-2.0
"""`clock verify` and `clock status --phc`: a second receiver's pulses, and what is shown."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
from twinstamp.cli import main
from twinstamp.cli.clock_verify import own_queues
from twinstamp.phc.device import Event
from twinstamp.phc.discipline import Discipline, PinPulses
from twinstamp.phc.record import ClockRecord, Publisher
from twinstamp.phc.standin import StandIn
from twinstamp.phc.verify import Verifier
from twinstamp_gps.models import OSCILLATORS
from twinstamp_gps.simulated import SimulatedReceiver


def _verified(late_ns: int, seed: int, seconds: int = 900) -> Verifier:
    """A second receiver, of another seed, on channel 1 of the same PHC; its pulses late_ns too late."""
    standin = StandIn(OSCILLATORS["tcxo"], SimulatedReceiver("f9t", seed=seed), seed=seed)
    second = SimulatedReceiver("f9t", seed=seed + 500)
    standin.request(1, 1)
    for one in second.seconds(seconds):
        for edge in one.edges:
            standin.at_fs(max(standin.now_fs, edge.rise_fs + late_ns * 10**6), lambda: standin.pulse(1))
    verifier = Verifier(reference_ns=20)
    last: list[ClockRecord] = []

    def other(event: Event) -> None:
        record = last[0] if last and last[0].valid(standin.boot_ns()) else None
        verifier.take(event, record)

    pulses = PinPulses(standin, other=other)
    discipline = Discipline(
        standin, standin, pulses, number=0, publish=lambda record: last.__setitem__(slice(0, 1), [record])
    )
    discipline.run(seconds - 5)
    return verifier


def test_a_bound_that_holds() -> None:
    report = _verified(0, 1020).report()
    assert report["pulses"] > 850
    assert report["with_bound"] > 800
    assert report["covered"] == 1
    assert report["median_bound_ns"] < 100


def test_a_pulse_that_is_late_falsifies_it() -> None:
    report = _verified(300, 1021).report()
    assert report["covered"] < 0.1
    assert report["mean_ns"] == pytest.approx(300, abs=800)  # the seconds before the first load count too


def test_no_pulse_and_falling_edges() -> None:
    verifier = Verifier()
    assert verifier.report()["covered"] is None
    verifier.take(Event(1, 10**18 + 100_000_000), None)
    verifier.take(Event(1, 10**18 - 40), None)
    report = verifier.report()
    assert (report["far"], report["pulses"], report["with_bound"]) == (1, 1, 0)
    assert report["mean_ns"] == -35.5


def test_kernels() -> None:
    assert own_queues("6.7.0") and own_queues("6.18.44-x") and own_queues("7.0")
    assert not own_queues("6.6.9") and not own_queues("5.15.0-generic") and not own_queues("?")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--phc", "/dev/ptp4711"], 1, "/dev/ptp4711 cannot be opened"),
        (["--phc", "lo"], 2, "has no PHC"),
        (["--phc", "/dev/ptp4711", "--seconds", "0"], 2, "at least 1"),
        (["--phc", "/dev/ptp4711", "--reference", "-1"], 2, "0 or more"),
    ],
)
def test_mistakes(words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clock", "verify", *words]) == status
    assert message in capsys.readouterr().err


def test_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TWINSTAMP_CLOCKS", str(tmp_path))
    command = ["clock", "status", "--phc", "/dev/ptp5"]
    assert main([*command, "--json"]) == 0
    clock = json.loads(capsys.readouterr().out)["clock"]
    assert (clock["state"], clock["bound_ns"], clock["valid"]) == ("not published", None, False)
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    values = dict.fromkeys((field.name for field in dataclasses.fields(ClockRecord)), 0) | {
        "phc": 5, "pid": 77, "state": 3, "bound_ns": 812, "epoch": 2, "tai_ns": 1_800_000_000 * 10**9,
        "boot_ns": now, "valid_until_ns": now + 60 * 10**9, "offset_ps": -1500, "holdover_s": 40,
        "utc_offset_s": 37, "utc_source": 1, "utc_until_tai_s": 1_900_000_000,
    }  # fmt: skip
    publisher = Publisher(5)
    publisher.write(ClockRecord(**values))
    assert main([*command, "--json"]) == 0
    clock = json.loads(capsys.readouterr().out)["clock"]
    assert (clock["state"], clock["bound_ns"], clock["valid"], clock["holdover_s"]) == (
        "holdover",
        812,
        True,
        40,
    )
    assert main([*command, "--seconds", "1"]) == 0
    text = capsys.readouterr().out
    assert "state holdover; offset -1.50 ns" in text and "bound 812 ns" in text and "by satellites" in text
    publisher.write(ClockRecord(**(values | {"valid_until_ns": now + 1})))
    assert main([*command, "--json"]) == 0
    clock = json.loads(capsys.readouterr().out)["clock"]
    assert (clock["state"], clock["bound_ns"], clock["valid"]) == ("holdover, run out", None, False)
    assert main([*command, "--card", "sim"]) == 2
    assert "give one" in capsys.readouterr().err
