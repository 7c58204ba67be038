# SPDX-License-Identifier: Apache-2.0
"""`twinstamp card …`, judged by tshark and capinfos where a capture comes out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from twinstamp.card import COUNTERS
from twinstamp.card.play import TestFrames
from twinstamp.cli import main
from twinstamp.io import open_capture

from tests.appliance.test_run_files import conversation, write_pcap


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(scope="session")
def tshark() -> str:
    path = shutil.which("tshark")
    if path is None:
        pytest.skip("tshark is not installed (Debian package tshark)")
    return path


def test_info(capsys):
    assert main(["card", "info", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["core_clock_hz"] == 125_000_000
    assert [port["name"] for port in report["ports"]] == ["port0", "port1", "port2", "port3"]
    assert report["clock"]["utc_offset_s"] == 37
    assert main(["card", "info"]) == 0
    out = capsys.readouterr().out
    assert "port3: 1000 Mbit/s full duplex, receive constant 27.94 ns (as the card says)" in out
    assert "rate +0.000 ppb" in out


def test_counters(capsys):
    assert main(["card", "counters", "--test-frames", "12", "--ports", "1,3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {name: port["good"] for name, port in report["ports"].items()} == {
        "port0": 0,
        "port1": 12,
        "port2": 0,
        "port3": 12,
    }
    assert main(["card", "counters"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in table[1:]] == list(COUNTERS)


def test_capture_of_test_frames(tmp_path, tshark, capsys):
    out = tmp_path / "out.pcapng"
    assert main(["card", "capture", "--to", str(out), "--test-frames", "40", "--ports", "0,2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["written"] == 80 and report["dropped"] == 0
    with open_capture(out) as reader:
        got: dict[str, list[bytes]] = {}
        for batch in reader:
            for i in range(len(batch)):
                got.setdefault(batch.ports[batch.port[i]].name, []).append(batch.frame(i))
        assert [port.name for port in reader.ports] == ["port0", "port1", "port2", "port3"]
    assert got == {f"port{p}": [TestFrames.content(p, n) for n in range(40)] for p in (0, 2)}
    fields = ["-T", "fields", "-e", "frame.interface_name", "-e", "frame.comment"]
    lines = subprocess.run(
        [tshark, "-r", out, *fields], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()
    assert lines[0].split("\t")[1] == "clock=card timescale=utc locked=no bound_ns=unknown epoch=1"
    assert all(not line.partition("\t")[2] for line in lines[1:])


def test_drops_stand_in_the_capture(tmp_path, tshark):
    """isb_ifrecv and isb_ifdrop of each port, as the format has them."""
    from twinstamp.card.capture import CardCapture
    from twinstamp.card.source import CardSource
    from twinstamp.io import create_capture

    out = tmp_path / "out.pcapng"
    source = CardSource(test_frames=1500, ports=(1,), block_log2=14, blocks_log2=1)
    held = []
    with create_capture(out) as writer:
        capture = CardCapture(writer, source.card)
        while (batch := source.poll(0.3)) is not None:
            held.append(batch)
        source.simulated.run_wires(10**7)
        for batch in held:
            capture.write(batch)
            batch.release()
        while not source.ended:
            batch = source.poll(0.1)
            if batch is not None:
                with batch:
                    capture.write(batch)
        capture.finish(source.card)
    result = source.statistics()
    source.close()
    assert result["dropped"] > 0
    raw = out.read_bytes()
    counts, at = {}, 0
    while at < len(raw):
        kind, size = (int.from_bytes(raw[at + i : at + i + 4], "little") for i in (0, 4))
        if kind == 5:
            interface = int.from_bytes(raw[at + 8 : at + 12], "little")
            option, values = at + 20, {}
            while (code := int.from_bytes(raw[option : option + 2], "little")) != 0:
                length = int.from_bytes(raw[option + 2 : option + 4], "little")
                values[code] = raw[option + 4 : option + 4 + length]
                option += 4 + (length + 3) // 4 * 4
            counts[interface] = tuple(int.from_bytes(values[code], "little") for code in (4, 5))
            assert values[1].startswith(b"fcs_errors=0 not_wanted=0 constant_q32=")
        at += size
    assert counts == {0: (0, 0), 1: (1500, result["dropped"]), 2: (0, 0), 3: (0, 0)}
    listed = subprocess.run(
        [tshark, "-r", out], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert len(listed.splitlines()) == 1500 - result["dropped"]


def test_capture_of_a_capture_and_its_count(tmp_path, capsys):
    records = conversation(2, 30)
    write_pcap(tmp_path / "in.pcap", [*records, (records[-1][0] + 1000, bytes(20))])
    out = tmp_path / "out.pcapng"
    assert (
        main(["card", "capture", "--to", str(out), "--play", str(tmp_path / "in.pcap"), "--ports", "3"]) == 0
    )
    assert capsys.readouterr().err == (
        f"{len(records)} frames written, 0 dropped by the card, 1 of the capture left out "
        "(not 60 to 9014 bytes of Ethernet)\n"
    )
    with open_capture(out) as reader:
        assert sum(len(batch) for batch in reader) == len(records)
    arguments = ["--play", str(tmp_path / "in.pcap"), "--count", "7", "--quiet"]
    assert main(["card", "capture", "--to", str(out), *arguments]) == 0
    with open_capture(out) as reader:
        assert sum(len(batch) for batch in reader) == 7


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["capture", "--to", "x.pcapng"], 2, "give --play CAPTURE or --test-frames N"),
        (["capture", "--to", "x.pcapng", "--play", "a", "--test-frames", "1"], 2, "not both"),
        (["capture", "--to", "x.pcapng", "--test-frames", "1", "--ports", "4"], 2, "ports 0 to 3"),
        (["capture", "--to", "x.pcapng", "--test-frames", "1", "--ports", "a"], 2, "numbers with commas"),
        (["capture", "--to", "x.pcapng", "--play", "nowhere.pcap"], 1, "cannot be opened"),
        (["capture", "--to", "x.pcapng", "--test-frames", "1", "--count", "0"], 2, "at least 1"),
        (["info", "--card", "pci0"], 2, "known are sim"),
        (["selftest", "--card", "pci0"], 2, "known are sim"),
        (["capture", "--to", "x.pcapng", "--card", "pci0", "--test-frames", "1"], 2, "known are sim"),
        (
            ["capture", "--to", "x.pcapng", "--card", "pynq:a.bit", "--test-frames", "1"],
            2,
            "--play and --test-frames are for the simulated card",
        ),
        (["calibrate", "--from", "1", "--to", "1", "--cable-ns", "50"], 2, "two different"),
        (["extcap", "--extcap-interface", "eth0", "--capture"], 2, "unknown interface"),
        (
            ["tap", "--cable", "0:1"],
            2 if os.geteuid() == 0 else 1,
            "PORT-PORT" if os.geteuid() == 0 else "root",
        ),
    ],
)
def test_bad_use(arguments, status, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["card", *arguments]) == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.pcapng"))


def test_calibrate_is_used_from_then_on(capsys):
    arguments = ["card", "calibrate", "--from", "2", "--to", "0", "--cable-ns", "80.5", "--frames", "64"]
    assert main([*arguments, "--dry-run"]) == 0
    assert "not kept" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert abs(report["constant_q32"] - report["exported_q32"]) <= 2
    assert main(["card", "info"]) == 0
    assert capsys.readouterr().out.count("(calibrated)") == 1
    assert Path(report["kept"]).is_file()


# Wireshark


def extcap(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [folder / "twinstamp-extcap", *arguments], capture_output=True, text=True, check=True, timeout=60
    )


def test_extcap_answers_as_the_protocol_says(tmp_path, capsys):
    assert main(["card", "extcap", "--install", str(tmp_path)]) == 0
    assert "twinstamp-sim" in capsys.readouterr().out
    listing = extcap(tmp_path, "--extcap-interfaces", "--extcap-version=4.0").stdout
    assert "interface {value=twinstamp-sim}" in listing
    one = ("--extcap-interface", "twinstamp-sim")
    assert extcap(tmp_path, "--extcap-dlts", *one).stdout.startswith("dlt {number=1}{name=EN10MB}")
    calls = [line for line in extcap(tmp_path, "--extcap-config", *one).stdout.splitlines() if line]
    assert [line.split("{call=")[1].split("}")[0] for line in calls] == [
        "--play", "--test-frames", "--ports", "--longest-gap",
    ]  # fmt: skip


def wireshark(command: list[str]) -> list[str]:
    """As root, Wireshark ignores WIRESHARK_EXTCAP_DIR: it is shown another user id."""
    if os.geteuid() != 0:
        return command
    shown = ["unshare", "--user", "--map-user=1000", "--map-group=1000", "--"]
    if subprocess.run([*shown, "true"], capture_output=True, check=False).returncode:
        pytest.skip("NO USER NAMESPACES: as root, Wireshark takes no extcap folder of our own")
    return [*shown, *command]


def test_wireshark_lists_the_card_and_captures_from_it(tmp_path, tshark, monkeypatch):
    assert main(["card", "extcap", "--install", str(tmp_path / "extcap")]) == 0
    monkeypatch.setenv("WIRESHARK_EXTCAP_DIR", str(tmp_path / "extcap"))
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*arguments: str) -> str:
        command = wireshark([tshark, *arguments])
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "twinstamp-sim (Twinstamp card, simulated)" in run("-D")
    out = tmp_path / "out.pcapng"
    run(
        "-i", "twinstamp-sim", "-o", "extcap.twinstamp_sim.testframes:25",
        "-o", "extcap.twinstamp_sim.ports:1,2", "-w", str(out),
    )  # fmt: skip
    with open_capture(out) as reader:
        got: dict[str, list[bytes]] = {}
        for batch in reader:
            for i in range(len(batch)):
                got.setdefault(batch.ports[batch.port[i]].name, []).append(batch.frame(i))
    assert got == {f"port{p}": [TestFrames.content(p, n) for n in range(25)] for p in (1, 2)}


def test_installed_starter_runs_this_interpreter(tmp_path):
    main(["card", "extcap", "--install", str(tmp_path)])
    assert sys.executable in (tmp_path / "twinstamp-extcap").read_text()


def script(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("listing", "status", "message"),
    [
        ("Extcap path: /not/there", 2, "one extcap folder, /not/there, which you cannot write"),
        ("Temp: /tmp", 2, "names no extcap folder"),
        ("Extcap path: {own}/shared", 0, "shared/twinstamp-extcap"),
        ("Personal Extcap path: {own}/mine\nExtcap path: /not/there", 0, "mine/twinstamp-extcap"),
    ],
)
def test_extcap_goes_where_wireshark_says(listing, status, message, tmp_path, monkeypatch, capsys):
    """Wireshark 4.0 names one folder for all users, later ones a user's own as well."""
    (tmp_path / "shared").mkdir()
    script(tmp_path, "tshark", f"printf '{listing.format(own=tmp_path)}\\n'")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("WIRESHARK_EXTCAP_DIR", raising=False)
    assert main(["card", "extcap", "--install"]) == status
    out = capsys.readouterr()
    assert message in (out.err if status else out.out)


@pytest.mark.root
def test_wireshark_of_root(tmp_path, tshark):
    """The documented installation, into the machine's own extcap folder, in a mount namespace."""
    listing = subprocess.run([tshark, "-G", "folders"], capture_output=True, text=True, check=True).stdout
    folders = [line.split(":", 1)[1].strip() for line in listing.splitlines() if "Extcap path:" in line]
    if not Path(folders[0]).is_dir():
        pytest.skip(f"NO FOLDER: {folders[0]} is not there")
    out = tmp_path / "out.pcapng"
    (tmp_path / "extcap").mkdir()
    (tmp_path / "all.sh").write_text(
        f"set -e\nmount --bind {tmp_path}/extcap {folders[0]}\n"
        f"{sys.executable} -m twinstamp.cli card extcap --install\n{tshark} -D\n"
        f"{tshark} -i twinstamp-sim -c 5 -w {out}\n"
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", str(tmp_path / "all.sh")],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if "mount" in done.stderr and done.returncode == 32:
        pytest.skip("NO MOUNTS: this container allows none")
    assert done.returncode == 0, done.stderr
    assert "twinstamp-sim (Twinstamp card, simulated)" in done.stdout
    assert "Error by extcap" not in done.stderr  # that it has enough frames is no fault
    with open_capture(out) as reader:
        assert [batch.frame(i) for batch in reader for i in range(len(batch))] == [
            TestFrames.content(0, n) for n in range(5)
        ]
