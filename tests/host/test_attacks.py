# SPDX-License-Identifier: Apache-2.0
"""Faults found by attacking command line and appliance file, each test named after one."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import pytest
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.errors import ConfigError
from twinstamp.units import parse_time_ns


def capture(path, frames=30):
    data = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)
    for number in range(frames):
        data += struct.pack("<IIII", number, 0, 60, 60) + bytes([number]) * 60
    with open(path, "wb") as file:
        file.write(data)
    return data


def command(*words):
    return subprocess.run([sys.executable, "-m", "twinstamp.cli", *words], capture_output=True, check=False)


def test_a_time_of_thousands_of_digits():
    with pytest.raises(ConfigError, match="characters"):
        parse_time_ns("1" * 5000 + "ms")


def test_file_names_that_are_no_utf8(tmp_path):
    path = os.fsencode(tmp_path) + b"/b\xff.pcap"
    capture(path)
    report = tmp_path / "r.json"
    (tmp_path / "none.rules").write_text("")
    done = command("dedup", path, os.fsencode(tmp_path) + b"/o\xff.pcap", "--window", "5")
    assert done.returncode == 0, done.stderr
    done = command("rules", "match", path, "--rules", tmp_path / "none.rules", "--out", tmp_path / "m.csv",
                   "--json", report)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(report.read_text())["frames"] == 30


def test_rules_match_does_not_overwrite_its_input(tmp_path):
    data = capture(tmp_path / "a.pcap")
    (tmp_path / "none.rules").write_text("")
    done = command("rules", "match", tmp_path / "a.pcap", "--rules", tmp_path / "none.rules",
                   "--out", tmp_path / "a.pcap")  # fmt: skip
    assert done.returncode == 2
    assert (tmp_path / "a.pcap").read_bytes() == data


@pytest.mark.parametrize("words", [("rules", "match"), ("dedup",), ("report",)])
def test_a_full_disk_is_one_line(tmp_path, words):
    capture(tmp_path / "a.pcap")
    (tmp_path / "none.rules").write_text("")
    source = str(tmp_path / "a.pcap")
    rest = {
        "rules": ["rules", "match", source, "--rules", str(tmp_path / "none.rules"), "--out", "/dev/full"],
        "dedup": ["dedup", source, "/dev/full", "--window", "5"],
        "report": ["dedup", source, "--action", "count", "--window", "5", "--json", "/dev/full", "--quiet"],
    }[words[0]]
    done = command(*rest)
    assert done.returncode in (1, 2)
    assert len(done.stderr.splitlines()) == 1, done.stderr


def appliance(tmp_path, *, report="r.json", files=("x.pcap",), more=""):
    servers = "".join(f'[[group.server]]\nname = "s{i}"\nfile = "{f}"\n' for i, f in enumerate(files))
    path = tmp_path / "a.toml"
    path.write_text(
        f'[appliance]\nreport = "{report}"\n[[source]]\nfile = "a.pcap"\n{more}'
        f'[balance]\nsecret_file = "k"\n[[group]]\nname = "g"\n{servers}'
    )
    return path


def test_a_report_does_not_overwrite_the_source(tmp_path):
    data = capture(tmp_path / "a.pcap")
    with pytest.raises(ConfigError, match="same file"):
        Appliance(load_appliance(appliance(tmp_path, report="a.pcap")))
    assert (tmp_path / "a.pcap").read_bytes() == data


def test_two_servers_with_two_names_of_one_file(tmp_path):
    (tmp_path / "d").mkdir()
    with pytest.raises(ConfigError, match="same file"):
        load_appliance(appliance(tmp_path, files=("x.pcap", "d/../x.pcap")))


@pytest.mark.parametrize(
    "change",
    [{"more": '[duplicates]\nwindow = 5\nkeep = [["arp"]]\n'}, {"files": ("x\\u0000y.pcap",)}],
)
def test_odd_values_in_the_appliance_file(tmp_path, change):
    with pytest.raises(ConfigError):
        load_appliance(appliance(tmp_path, **change))


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user: needs root")
def test_nothing_is_imported_once_the_user_has_changed(tmp_path):
    capture(tmp_path / "a.pcap")
    path = appliance(tmp_path)
    path.write_text(path.read_text().replace("[appliance]", '[appliance]\nuser = "nobody"', 1))
    code = (
        "import sys\n"
        "from twinstamp.appliance import run as module\n"
        "from twinstamp.cli import main\n"
        "become = module._drop_privileges\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        raise ModuleNotFoundError(name)\n"
        "def drop(user):\n    become(user)\n    sys.meta_path.insert(0, Refuse())\n"
        "module._drop_privileges = drop\n"
        f"sys.exit(main(['run', {str(path)!r}]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["ledger"]["forwarded"]["frames"] == 30
