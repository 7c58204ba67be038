# SPDX-License-Identifier: Apache-2.0
"""`twinstamp clock discipline` from the command line."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from twinstamp.cli import main
from twinstamp.phc.notify import notify

ROOT = Path(__file__).resolve().parents[2]


def test_figures_as_json(capsys):
    command = ["clock", "discipline", "--simulate", "i226,tcxo,f9t", "--seconds", "900", "--seed", "1010"]
    assert main([*command, "--fault", "outage@700+60", "--set", "lock_pulses=32", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["nic"], found["oscillator"], found["receiver"]) == ("i226", "tcxo", "f9t")
    assert found["servo"] == {"lock_pulses": 32}
    assert found["locked_at_s"][0] > 32
    assert [row["after_s"] for row in found["holdover"]] == [10, 30, 60]
    assert all(share is None or share >= 0.999 for share in found["coverage"].values())
    assert main([*command]) == 0
    text = capsys.readouterr().out
    assert "locked" in text and "coverage" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --phc /dev/ptpN"),
        (["--phc", "/dev/ptp4711"], "give --receiver PORT"),
        (["--phc", "/dev/ptp4711", "--receiver", "/dev/null", "--json"], "belong to --simulate"),
        (["--phc", "lo", "--receiver", "x"], "the interface has no PHC"),
        (["--phc", "/dev/ptp4711", "--receiver", "x", "--follow", "realtime"], "needs no pulse"),
        (["--simulate", "i226,tcxo"], "give NIC,OSCILLATOR,RECEIVER"),
        (["--simulate", "i226,tcxo,f9t", "--phc", "/dev/ptp0"], "--simulate stands for --phc"),
        (["--simulate", "i226,tcxo,f9t", "--set", "nothing=1"], "settings of the servo are"),
        (["--simulate", "i226,tcxo,f9t", "--set", "lock_pulses=x"], "a whole number"),
        (["--simulate", "i226,tcxo,f9t", "--set", "lock_pulses=1"], "outside its limits"),
        (["--simulate", "i226,tcxo,f9t", "--fault", "nonsense"], "not understood"),
        (["--simulate", "i226,tcxo,f9t", "--seconds", "0"], "at least 1"),
        (["--simulate", "i226,tcxo,f9t", "--oscillator", "atom"], "--oscillator atom: known are"),
    ],
)
def test_mistakes(words, message, capsys):
    assert main(["clock", "discipline", *words]) == 2
    assert message in capsys.readouterr().err


def test_no_such_phc(capsys):
    assert main(["clock", "discipline", "--phc", "/dev/ptp4711", "--receiver", "/dev/null"]) == 1
    assert "/dev/ptp4711 cannot be opened" in capsys.readouterr().err


def test_words_to_systemd(tmp_path, monkeypatch):
    assert not notify("READY=1") or os.environ.get("NOTIFY_SOCKET")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify("WATCHDOG=1\nSTATUS=locked")
        assert manager.recv(100) == b"WATCHDOG=1\nSTATUS=locked"


def test_the_unit_is_one(tmp_path):
    """systemd's own word on it, with a program that is there."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze IS NOT INSTALLED: the unit was not checked")
    text = (ROOT / "host/systemd/twinstamp-clock.service").read_text()
    unit = tmp_path / "twinstamp-clock.service"
    unit.write_text(text.replace("/usr/local/bin/twinstamp", "/bin/true"))
    result = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Type=notify" in text and "WatchdogSec=" in text
