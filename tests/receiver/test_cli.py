# SPDX-License-Identifier: Apache-2.0
"""`twinstamp clock` status, receiver and configure, on simulated receivers."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from twinstamp.cli import main
from twinstamp_gps import encode, gpstime
from twinstamp_gps.faults import parse_fault
from twinstamp_gps.log import read_log
from twinstamp_gps.serve import PtyLine, Runner
from twinstamp_gps.simulated import SimulatedReceiver

from tests.receiver.streams import receiver


@contextmanager
def on_a_pty(simulated: SimulatedReceiver) -> Iterator[str]:
    line = PtyLine()
    with Runner(simulated, line):
        yield line.address


def test_status_once(capsys: pytest.CaptureFixture[str]) -> None:
    simulated = receiver("f9t")
    with on_a_pty(simulated) as port:
        assert main(["clock", "status", "--receiver", port, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["card"] is None and report["clock"] is None
    status = report["receiver"]
    assert (status["fix"], status["fix_ok"], status["satellites"], status["leap_s"]) == (
        "time only",
        True,
        28,
        18,
    )
    assert status["survey"] == "" and status["damaged"] == 0 and status["utc_sure"] is True
    assert status["pulse_tai_s"] - simulated.start_tai_s in (1, 2, 3)
    # The pulse after the second of the solution is the one told of, with its own qErr.
    date, clock = status["utc"].rstrip("Z").split("T")
    unix_s = gpstime.utc_to_unix_s(*map(int, date.split("-")), *map(int, clock.split(":")))
    assert status["pulse_tai_s"] == unix_s + 37 + 1
    n = status["pulse_tai_s"] - simulated.start_tai_s
    assert status["qerr_ps"] == (n * 3701) % 15_720 - 7860


def test_status_of_a_receiver_in_trouble(capsys: pytest.CaptureFixture[str]) -> None:
    simulated = receiver("f9t", faults=[parse_fault("outage@0+60"), parse_fault("leap@40")], utc_after_s=60)
    with on_a_pty(simulated) as port:
        assert main(["clock", "status", "--receiver", port, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)["receiver"]
    assert (status["fix"], status["fix_ok"], status["satellites"], status["qerr_ps"]) == (
        "none",
        False,
        0,
        None,
    )
    assert (status["utc_sure"], status["leap_s"]) == (False, None)


def test_status_of_a_simple_receiver(capsys: pytest.CaptureFixture[str]) -> None:
    with on_a_pty(receiver("nmea", configured=False)) as port:
        assert main(["clock", "status", "--receiver", port, "--json"]) == 0
    status = json.loads(capsys.readouterr().out)["receiver"]
    assert (status["fix"], status["satellites"], status["qerr_ps"], status["leap_s"]) == (
        "3D",
        12,
        None,
        None,
    )
    assert status["utc"].startswith("2026-11-20T12:00:0")


def sentences(*bodies: str, end: str = "\r\n") -> bytes:
    return b"".join(encode.nmea(body).removesuffix(b"\r\n") + end.encode() for body in bodies)


@pytest.fixture
def status_of(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[bytes], dict[str, Any]]:
    """The status that is shown of a line on which these bytes came."""
    monkeypatch.setattr("twinstamp.cli.clock_status._PATIENCE_S", 1.2)

    def status(data: bytes) -> dict[str, Any]:
        line = PtyLine()
        later = threading.Timer(0.5, line.write, [data])  # opening the port throws away what was there
        later.start()
        try:
            assert main(["clock", "status", "--receiver", line.address, "--json"]) == 0
        finally:
            later.join()
            line.close()
        found: dict[str, Any] = json.loads(capsys.readouterr().out)["receiver"]
        return found

    return status


RMC = "GPRMC,1200{},{},4717.1143,N,00833.9152,E,0.0,,{},,,{},V"


@pytest.mark.parametrize(
    ("data", "utc", "fix_ok", "refused"),
    [
        (sentences(*(RMC.format(f"3{k}.30", "A", "011225", "A") for k in range(8))),
         "2025-12-01T12:00:37.3Z", True, {"fraction": 8}),
        (b"$GPRMC,120030.00,A,4717.1143,N,00833.9152,E,0.0,,011225,,,A,V*0a\r\n",
         "2025-12-01T12:00:30Z", True, {}),
        (b"$GNRMC,120030.00,A,4717.11437182,N,00833.91522561,E,0.004,139.060,011225,11.5985,E,D*2A\r\n",
         "2025-12-01T12:00:30Z", True, {}),
        (sentences(RMC.format("30.00", "A", "011225", "A"), end="\n"), "2025-12-01T12:00:30Z", True, {}),
        (sentences("PUBX,03,20" + ",5,U,120,45,38,064" * 22), "", None, {}),
        (sentences(RMC.format("30.00", "V", "220899", "N")), "", False, {"not_valid": 1}),
        (sentences(RMC.format("30.00", "A", "011225", "E")), "", False, {"not_valid": 1}),
        (sentences(RMC.format("30.00", "A", "011225", "A"), RMC.format("31.00", "V", "011225", "N"),
                   "GPZDA,120031.00,01,12,2025,00,00"), "", False, {"not_valid": 2}),
        (sentences("GPZDA,120031.00,01,12,2025,00,00"), "2025-12-01T12:00:31Z", None, {}),
        (b"".join(2 * [encode.nav_timegps(week=2395, tow_ms=9000, leap_s=18, leap_valid=True),
                       bytes.fromhex("D300133ED7D30202980EDEEF34B4BD62AC0941986F33360B98")]), "", None, {}),
    ],
)  # fmt: skip
def test_status_of_lines_as_they_are(
    data: bytes,
    utc: str,
    fix_ok: bool | None,
    refused: dict[str, int],
    status_of: Callable[[bytes], dict[str, Any]],
) -> None:
    status = status_of(data)
    assert (status["utc"], status["fix_ok"], status["damaged"]) == (utc, fix_ok, 0)
    assert {reason: count for reason, count in status["refused"].items() if count} == refused
    assert status["skipped_bytes"] == 0


def test_status_knows_leap_seconds_of_timegps(status_of: Callable[[bytes], dict[str, Any]]) -> None:
    """Where no NAV-TIMELS comes; NAV-TIMELS, which says its source, is believed first."""
    week = encode.nav_timegps(week=2395, tow_ms=9000, leap_s=18, leap_valid=True)
    assert status_of(week)["leap_s"] == 18
    assert (
        status_of(encode.nav_timegps(week=2395, tow_ms=9000, leap_s=18, leap_valid=False))["leap_s"] is None
    )
    assert status_of(encode.nav_timels(tow_ms=9000, leap_s=18, leap_valid=False) + week)["leap_s"] is None
    # Source 0: what the receiver was delivered with, although it calls it valid.
    delivered = bytearray(encode.nav_timels(tow_ms=9000, leap_s=18)[6:-2])
    delivered[8] = 0
    assert status_of(encode.ubx((0x01, 0x26), bytes(delivered)))["leap_s"] is None


@pytest.mark.parametrize("model", ["f9t", "nmea"])
def test_status_of_a_receiver_that_is_1024_weeks_back(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Shown is the second that the card names; that the receiver says another is shown, too."""
    simulated = receiver(model, configured=model == "f9t", week_rollovers=1)
    with on_a_pty(simulated) as port:
        assert main(["clock", "status", "--receiver", port, "--json"]) == 0
        status = json.loads(capsys.readouterr().out)["receiver"]
        assert main(["clock", "status", "--receiver", port, "--seconds", "2"]) == 0
        assert "2026-11-20T12:00:0" in (text := capsys.readouterr().out) and "1024 weeks back" in text
        assert main(["clock", "receiver", port, "--seconds", "2", "--json"]) == 0
        said = [json.loads(line).get("utc") for line in capsys.readouterr().out.splitlines()]
    assert status["utc"].startswith("2026-11-20T12:00:0") and status["rollovers"] == 1
    assert [2007, 4, 6] in [utc[:3] for utc in said if utc]  # 7168 days before
    if model == "f9t":
        assert status["pulse_tai_s"] - simulated.start_tai_s in (1, 2, 3)


def test_status_of_a_pulse_in_utc(status_of: Callable[[bytes], dict[str, Any]]) -> None:
    """TIM-TP in UTC names the second where the leap seconds are known."""
    tp = encode.tim_tp(week=2395, tow_ms=129_630_000, qerr_ps=5, utc_base=True)
    assert status_of(tp)["pulse_tai_s"] is None
    known = status_of(encode.nav_timels(tow_ms=9000, leap_s=18) + tp)
    assert known["pulse_tai_s"] == gpstime.utc_to_unix_s(2025, 12, 1, 12, 0, 30) + 37


def test_status_of_silence(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("twinstamp.cli.clock_status._PATIENCE_S", 0.3)
    line = PtyLine()
    try:
        assert main(["clock", "status", "--receiver", line.address, "--json"]) == 0
    finally:
        line.close()
    status = json.loads(capsys.readouterr().out)["receiver"]
    assert status["age_s"] is None and status["utc"] == "" and status["messages"] == 0


def test_live_lines_and_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "live.log"
    with on_a_pty(receiver("m8t")) as port:
        assert main(["clock", "status", "--receiver", port, "--seconds", "3", "--log", str(log)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert "fix time only; satellites 18" in lines[-1] and "qErr " in lines[-1]
    read = read_log(str(log))
    assert len(read) == 3 and read.about["source"] == "status"
    assert read.columns["satellites"][-1] == 18  # the first second may end before it has spoken


def test_status_of_the_simulated_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (Path(__file__).parents[2] / "build/hdl/libtwinstamp_sim.so").exists():
        pytest.skip("the simulated card is not built: make hdl")
    assert main(["clock", "status", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["card"] == "sim" and report["receiver"] is None
    assert report["clock"]["bound_ns"] is None and report["clock"]["state"] != "locked"
    assert abs(report["clock"]["frequency_ppb"]) < 1e-3
    log = tmp_path / "card.log"
    assert main(["clock", "status", "--seconds", "1", "--log", str(log), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["clock"] is not None
    assert len(read_log(str(log))) == 1


def test_configure_and_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(["clock", "configure", "--dry-run", "--model", "m8t", "--fixed", "47.1,-8.5,480", "--save"]) == 0
    )
    text = capsys.readouterr().out
    assert "fixed position" in text and "B5 62 06 3D" in text and "UBX-CFG-PRT" in text
    simulated = receiver("f9t", configured=False)
    with on_a_pty(simulated) as port:
        before = simulated._effect()
        assert main(["clock", "configure", port, "--dry-run"]) == 0
        assert "CFG-TP-TIMEGRID_TP1 = 1 (GPS time)" in capsys.readouterr().out
        assert simulated._effect() == before
        assert (
            main(["clock", "configure", port, "--survey", "60,2.5", "--cable-ns", "25", "--new-baud", "keep"])
            == 0
        )
        assert "set and read back at 38400 baud, until power-off" in capsys.readouterr().out
    after = simulated._effect()
    assert (after.mode, after.survey_s, after.survey_mm, after.delay_ns, after.baud) == (
        1,
        60,
        2500,
        -25,
        38_400,
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["configure"], ["configure", "--dry-run"], ["configure", "--model", "f9t"],
        ["configure", "--dry-run", "--model", "f9t", "--fixed", "91,0,0"],
        ["configure", "--dry-run", "--model", "f9t", "--fixed", "1,2"],
        ["configure", "--dry-run", "--model", "f9t", "--fixed", "1,2,nan"],
        ["configure", "--dry-run", "--model", "f9t", "--survey", "0,1"],
        ["configure", "--dry-run", "--model", "f9t", "--new-baud", "fast"],
        ["configure", "--dry-run", "--model", "f9t", "--fixed", "1,2,3", "--moving"],
        ["receiver"], ["receiver", "--simulate", "f9t"], ["receiver", "x", "--simulate", "f9t", "--pty", "y"],
        ["receiver", "--simulate", "f9t", "--tcp", "nowhere"],
        ["receiver", "--simulate", "f9t", "--pty", "/no/such/x"],
        ["receiver", "--simulate", "f9t", "--tcp", ":0", "--fault", "fire@3"],
        ["receiver", "--simulate", "f9t", "--tcp", ":0", "--utc", "yesterday"],
        ["receiver", "--simulate", "nmea", "--tcp", ":0", "--survey", "5"],
        ["receiver", "--simulate", "f9t", "--tcp", ":0", "--pulses", "/no/such/file"],
        ["status", "--receiver", "x", "--baud", "300"], ["status", "--seconds", "0"],
    ],
)  # fmt: skip
def test_bad_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clock", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("twinstamp clock: ") and error.count("\n") == 1


@pytest.mark.parametrize("verb", ["receiver", "configure"])
def test_missing_receiver(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clock", verb, "/dev/no-such-receiver"]) == 1
    assert "cannot be opened" in capsys.readouterr().err


def test_messages_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    with on_a_pty(receiver("f9t")) as port:
        assert main(["clock", "receiver", port, "--seconds", "2", "--json"]) == 0
    kinds = {json.loads(line)["kind"] for line in capsys.readouterr().out.splitlines()}
    assert {"NavPvt", "TimTp", "NavTimeLs"} <= kinds


def test_simulated_receiver_as_a_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Started, read by status in another process, ended by SIGTERM; nothing stays behind."""
    link, pulses = tmp_path / "gps", tmp_path / "pulses"
    arguments = ["--simulate", "f9t", "--pty", str(link), "--pulses", str(pulses), "--utc",
         "2016-12-31T23:59:58",
                 "--utc-offset", "36", "--fault", "leap@2"]  # fmt: skip
    program = subprocess.Popen(
        [sys.executable, "-m", "twinstamp.cli", "clock", "receiver", *arguments],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert program.stderr is not None
        assert program.stderr.readline() == f"f9t on {link}\n"
        assert main(["clock", "receiver", str(link), "--seconds", "5", "--json"]) == 0
    finally:
        program.send_signal(signal.SIGTERM)
        code = program.wait(5)
        program.stderr.close()
    assert code == 0
    assert not os.path.lexists(link)
    seen = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    labels = [one["utc"] for one in seen if one["kind"] == "NavPvt"]
    assert [2016, 12, 31, 23, 59, 60] in labels
    told = {
        one["tai_s"] if "tai_s" in one else one["tow_ms"]: one["qerr_ps"]
        for one in seen
        if one["kind"] == "TimTp"
    }
    rows = [line.split() for line in pulses.read_text().splitlines()]
    assert len(rows) >= 4
    assert {int(row[3]) for row in rows[2:4]} <= set(told.values())


def test_real_time() -> None:
    """Messages come when the simulation says, within 50 ms of a machine that does other things too."""
    came: list[float] = []
    line = PtyLine()
    simulated = receiver("f9t")
    second_starts: list[float] = []
    with Runner(simulated, line, on_second=lambda second: second_starts.append(time.monotonic())):
        from twinstamp_gps.port import Receiver

        with Receiver(line.address) as port:
            for arrival in port.messages(2.4):
                if type(arrival.message).__name__ == "NavPvt":
                    came.append(arrival.monotonic_ns / 1e9)
    assert len(came) >= 2
    for before, after in itertools.pairwise(came):
        assert after - before == pytest.approx(1, abs=0.25)
    assert second_starts[1] - second_starts[0] == pytest.approx(1, abs=0.25)
