# SPDX-License-Identifier: Apache-2.0
"""What a run may write and what not, two runs of one file, and mistakes told before a file is lost."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import subprocess
import sys
import time
from pathlib import Path

import pytest
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.balance import Secret
from twinstamp.cli import main
from twinstamp.errors import ConfigError
from twinstamp.io import create_capture
from twinstamp.report_file import ReportFile

from tests.appliance.test_run_files import conversation, write_pcap
from tests.host.test_cli import ENVIRONMENT

TOML = """
[appliance]
report = "report.json"
{more}
[[source]]
file = "feed.pcap"
[balance]
rules = "rules.toml"
secret_file = "balance.key"
[[group]]
name = "dpi"
[[group.server]]
name = "s0"
file = "s0.pcap"
"""
RULES = 'default = "dpi"\n'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_pcap(tmp_path / "feed.pcap", conversation(4, 4))
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "a.toml").write_text(TOML.format(more=""))
    Secret.load(tmp_path / "balance.key")
    return tmp_path


READ = ("feed.pcap", "rules.toml", "a.toml", "balance.key")


@pytest.mark.parametrize("way", ["plain", "dot", "symbolic link", "hard link"])
@pytest.mark.parametrize("victim", [*READ, "s0.pcap", "report.json"])
@pytest.mark.parametrize("key", ["report", "--json", "file"])
def test_nothing_that_is_read_or_written_is_overwritten(place, capsys, key, victim, way):
    if (key, victim) in (("report", "report.json"), ("file", "s0.pcap")):
        pytest.skip("that is its own name")
    name = victim
    (place / "s0.pcap").touch()
    (place / "report.json").touch()
    if way == "dot":
        name = f"./{victim}"
    elif way == "symbolic link":
        (place / "link").symlink_to(victim)
        name = "link"
    elif way == "hard link":
        os.link(place / victim, place / "link")
        name = "link"
    text = TOML.format(more="")
    if key == "report":
        text = text.replace('"report.json"', f'"{name}"')
    elif key == "file":
        text = text.replace('"s0.pcap"', f'"{name}"')
    (place / "a.toml").write_text(text)
    before = {file: (place / file).read_bytes() for file in READ}
    words = ["--json", str(place / name)] if key == "--json" else []
    for check in (["--check"], []):
        assert main(["run", str(place / "a.toml"), "--quiet", *words, *check]) == 2
        text = capsys.readouterr().err
        assert "same file" in text
        assert len(text.splitlines()) == 1
    assert {file: (place / file).read_bytes() for file in READ} == before


def test_the_default_secret_is_protected_too(place, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(place))
    text = TOML.format(more="").replace('secret_file = "balance.key"\n', "")
    (place / "a.toml").write_text(text.replace("report.json", "twinstamp/balance.key"))
    assert main(["run", str(place / "a.toml"), "--quiet"]) == 2
    assert "same file" in capsys.readouterr().err


@pytest.mark.parametrize("victim", ["k", "out/one.pcap", "rules.toml", "feed.pcap"])
def test_balance_keeps_its_secret_and_its_captures(place, capsys, victim):
    words = [
        "balance",
        str(place / "feed.pcap"),
        "--rules",
        str(place / "rules.toml"),
        "--servers",
        "one,two",
    ]
    words += ["--out-dir", str(place / "out"), "--secret-file", str(place / "k")]
    assert main([*words, "--quiet"]) == 0
    kept = {name: (place / name).read_bytes() for name in ("k", "out/one.pcap", "rules.toml", "feed.pcap")}
    assert main([*words, "--json", str(place / victim)]) == 2
    assert "same file" in capsys.readouterr().err
    assert {name: (place / name).read_bytes() for name in kept} == kept
    words[-1] = str(place / "out" / "one.pcap")
    (place / "out" / "one.pcap").unlink()
    assert main([*words, "--quiet"]) == 2, "a secret in a capture's place"
    assert "same file" in capsys.readouterr().err


def test_a_report_may_go_to_a_device_twice(place):
    text = TOML.format(more="").replace('"report.json"', '"/dev/null"')
    (place / "a.toml").write_text(text)
    assert main(["run", str(place / "a.toml"), "--quiet", "--json", "/dev/null"]) == 0


def test_a_second_run_of_a_file_is_refused_and_disturbs_nothing(place):
    """Both ran to exit status 0; interface servers got each frame twice, one run's captures were lost."""
    (place / "feed.pcap").unlink()
    os.mkfifo(place / "feed.pcap")
    command = [sys.executable, "-m", "twinstamp.cli", "run", str(place / "a.toml"), "--quiet"]
    (place / "report.json").write_text("the last run's")
    with subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.PIPE) as first:
        with (place / "feed.pcap").open("wb") as feed:
            write_pcap(place / "whole.pcap", conversation(4, 4))
            feed.write((place / "whole.pcap").read_bytes())
            feed.flush()
            limit = time.monotonic() + 20
            while not (place / "s0.pcap").exists():
                assert time.monotonic() < limit
                time.sleep(0.02)
            second = subprocess.run(command, env=ENVIRONMENT, capture_output=True, timeout=60)
            assert second.returncode == 2
            assert b"a.toml: another run is using it" in second.stderr
            assert len(second.stderr.splitlines()) == 1
        assert first.wait(timeout=30) == 0, first.stderr.read()
    assert json.loads((place / "report.json").read_text())["ledger"]["forwarded"]["frames"] == 16
    assert main(["run", str(place / "a.toml"), "--check"]) == 0


@pytest.mark.parametrize("kind", ["capture", "report"])
def test_one_file_is_written_by_one_run(tmp_path, kind):
    path = tmp_path / "o.pcap"

    def write() -> object:
        return create_capture(str(path)) if kind == "capture" else ReportFile(path)

    first = write()
    with pytest.raises(ConfigError, match="another run"):
        write()
    first.close()  # type: ignore[attr-defined]
    write().close()  # type: ignore[attr-defined]


def test_a_report_stays_until_there_is_a_new_one(tmp_path):
    path = tmp_path / "r.json"
    with ReportFile(path):
        assert path.exists()
    assert not path.exists(), "made and never written"
    path.write_text("the last one" * 100)
    with ReportFile(path):
        pass
    assert path.read_text() == "the last one" * 100
    with ReportFile(path) as report:
        report.write({"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with pytest.raises(ConfigError, match="cannot be written"):
        ReportFile(tmp_path / "nowhere" / "r.json")
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        ReportFile(tmp_path)


def test_a_report_that_cannot_be_made_shows_before_the_work(place, capsys):
    words = ["dedup", str(place / "feed.pcap"), str(place / "o.pcap"), "--window", "5"]
    assert main([*words, "--json", str(place / "nowhere" / "r.json")]) == 2
    assert "r.json: the report cannot be written" in capsys.readouterr().err
    assert not (place / "o.pcap").exists()


@pytest.mark.root
def test_the_json_report_is_opened_before_the_rights_go(place):
    """It was refused after the whole run, and the report was lost."""
    (place / "a.toml").write_text(TOML.format(more='user = "nobody"'))
    nobody = pwd.getpwnam("nobody")
    for name in READ:
        (place / name).chmod(0o600)
    place.chmod(0o700)
    command = [sys.executable, "-m", "twinstamp.cli", "run", str(place / "a.toml"), "--quiet"]
    done = subprocess.run(
        [*command, "--json", str(place / "j.json")], env=ENVIRONMENT, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads((place / "j.json").read_text()) == json.loads((place / "report.json").read_text())
    assert nobody.pw_uid != (place / "j.json").stat().st_uid


MISTAKES = [
    ('report = "report.json"', 'user = "nobody-of-this-name"', "appliance.user"),
    ('file = "s0.pcap"', 'interface = "eth0"\nmac = "zz"', "MAC address 'zz'"),
    ('file = "s0.pcap"', 'interface = "eth0"\nmac_source = "1:2:3:4:5"', "MAC address"),
    ('file = "s0.pcap"', 'vxlan = {local = "x", remote = "192.0.2.1", vni = 1}', "'x'"),
    ('file = "s0.pcap"', 'vxlan = {local = "192.0.2.2", remote = "::1", vni = 1}', "different families"),
    ('file = "s0.pcap"', 'vxlan = {local = "192.0.2.2", remote = "192.0.2.1", vni = 16777216}', "vni"),
    ('file = "s0.pcap"', 'vxlan = {local = "192.0.2.2", remote = "192.0.2.1", vni = 1, port = 0}', "port"),
    ('file = "s0.pcap"', 'gre = {local = "192.0.2.2", remote = "192.0.2.1", key = 4294967296}', "key"),
    ('file = "feed.pcap"', 'interface = "eth0"\nfilter = "foo bar ("', "source[0].filter"),
    ('file = "feed.pcap"', 'interface = "../x"', "source[0].interface"),
    ('file = "s0.pcap"', 'interface = "../x"', "group[0].server[0].interface"),
    ('file = "s0.pcap"', 'interface = "a b"', "group[0].server[0].interface"),
    ('file = "s0.pcap"', 'interface = "sixteen-letters-"', "group[0].server[0].interface"),
    ('file = "s0.pcap"', 'file = "s0.pcap"\nweight = 0', "no server has a weight above 0"),
    ('file = "s0.pcap"', 'file = "-"', "standard output"),
    ('file = "feed.pcap"', 'file = "none.pcap"', "none.pcap"),
    ('secret_file = "balance.key"', 'secret_file = "rules.toml"', "a balance secret has"),
    ('rules = "rules.toml"', 'rules = "other.toml"', "other.toml"),
    (
        "[balance]",
        '[duplicates]\nwindow = 5\nprofile = "nat"\naction = "count"\nignore_bytes = 4\n[balance]',
        "exact",
    ),
]


@pytest.mark.parametrize(("old", "new", "words"), MISTAKES)
def test_check_finds_what_a_run_would_refuse(place, capsys, old, new, words):
    assert old in TOML
    (place / "rules.toml").chmod(0o600)
    (place / "other.toml").write_text('default = "ids"\n[[rule]]\nprotocol = "tcp"\n')
    (place / "a.toml").write_text(TOML.format(more="").replace(old, new, 1))
    (place / "s0.pcap").write_bytes(b"kept")
    assert main(["run", str(place / "a.toml"), "--check"]) in (1, 2)
    said = capsys.readouterr()
    assert words in said.err
    assert len(said.err.splitlines()) == 1
    assert "no mistakes" not in said.out
    assert main(["run", str(place / "a.toml"), "--quiet"]) in (1, 2)
    assert words in capsys.readouterr().err
    assert (place / "s0.pcap").read_bytes() == b"kept", "nothing is written over for a mistake"


def test_check_passes_what_runs_and_makes_nothing(place, capsys):
    (place / "balance.key").unlink()
    before = sorted(place.iterdir())
    assert main(["run", str(place / "a.toml"), "--check"]) == 0
    assert "no mistakes found" in capsys.readouterr().out
    assert sorted(place.iterdir()) == before
    with Appliance(load_appliance(place / "a.toml")) as appliance:
        assert appliance.run()["ledger"]["forwarded"]["frames"] == 16
