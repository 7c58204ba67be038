# SPDX-License-Identifier: Apache-2.0
"""gpsd and chronyd, which nobody here wrote, read the simulated receiver. Neither sets this machine's clock.

gpsd listens on a port of 127.0.0.1 that was free, and with chronyd in an IPC namespace of its own, so that
its shared memory meets no other gpsd's. For a pseudo-terminal it uses none: chronyd's test goes over TCP.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from twinstamp_gps import gpstime, naming
from twinstamp_gps import messages as m
from twinstamp_gps.faults import parse_fault
from twinstamp_gps.serve import PtyLine, Runner, TcpLine
from twinstamp_gps.simulated import SimulatedReceiver
from twinstamp_gps.stream import StreamSplitter

from tests.firmware.driver import Driver
from tests.receiver.both import both
from tests.receiver.streams import receiver, shapes


def tool(name: str, package: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} IS NOT INSTALLED (Debian package {package}): the receiver was not read by it")
    return path


@pytest.fixture
def gpsd() -> str:
    return tool("gpsd", "gpsd")


@pytest.fixture
def chronyd() -> str:
    return tool("chronyd", "chrony")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def program(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Ended in any case."""
    running = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(5)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()
        if running.stdout is not None:
            running.stdout.close()


def reports(port: int, wanted: dict[str, int], seconds: float) -> dict[str, list[dict[str, object]]]:
    """gpsd's JSON objects by class, until there are as many of each as wanted."""
    found: dict[str, list[dict[str, object]]] = {}
    end = time.monotonic() + seconds
    link = None
    while link is None:
        try:
            link = socket.create_connection(("127.0.0.1", port), timeout=1)
        except OSError:
            assert time.monotonic() < end, "gpsd does not listen"
            time.sleep(0.05)
    with link:
        link.sendall(b'?WATCH={"enable":true,"json":true,"pps":true}\n')
        link.settimeout(0.5)
        rest = b""
        while time.monotonic() < end:
            with contextlib.suppress(TimeoutError):
                rest += link.recv(65536)
            *lines, rest = rest.split(b"\n")
            for line in lines:
                one = json.loads(line)
                found.setdefault(one["class"], []).append(one)
            if all(len(found.get(name, [])) >= count for name, count in wanted.items()):
                return found
    pytest.fail(f"gpsd said only { {name: len(values) for name, values in found.items()} } in {seconds} s")


def unix_s(text: object) -> float:
    return datetime.datetime.fromisoformat(str(text).replace("Z", "+00:00")).timestamp()


def played(model: str, *, now: bool = False, **options: object) -> SimulatedReceiver:
    start = {"start_tai_s": Runner.start_unix_s() + 37} if now else {}
    return receiver(model, configured=model != "nmea", **start, **options)


@pytest.mark.parametrize(("model", "driver"), [("f9t", "u-blox"), ("nmea", "NMEA0183")])
def test_gpsd_reads_time_and_place(gpsd: str, model: str, driver: str) -> None:
    simulated = played(model, now=True)
    line = PtyLine()
    Path(line.name).chmod(0o666)  # gpsd gives up being root
    port = free_port()
    with Runner(simulated, line), program([gpsd, "-N", "-n", "-b", "-S", str(port), line.address]):
        wanted = {"TPV": 3, "TOFF": 1} | ({"SKY": 1} if model != "nmea" else {})
        got = reports(port, wanted, 15)
    assert driver in {
        one.get("driver") for one in got.get("DEVICE", []) + got["DEVICES"][0].get("devices", [])
    }  # type: ignore[operator, attr-defined]
    last = got["TPV"][-1]
    assert last["mode"] == 3
    assert last["lat"] == pytest.approx(47.123268, abs=1e-6)
    assert last["lon"] == pytest.approx(8.547912, abs=1e-6)
    times = sorted({unix_s(one["time"]) for one in got["TPV"]})
    start = simulated.start_tai_s - 37
    assert all(0 <= t - start < 30 and t == round(t) for t in times)
    # gpsd's clock against the receiver's: the message comes 65 or 140 ms, plus or minus 8, after the second.
    for one in got["TOFF"]:
        late = one["clock_sec"] - one["real_sec"] + (one["clock_nsec"] - one["real_nsec"]) * 1e-9  # type: ignore[operator]
        assert 0.03 < late < 0.9, one
    if model != "nmea":
        assert last["leapseconds"] == 18
        assert (last["status"], got["SKY"][-1]["nSat"]) == (7, 32)  # 7: time only, a fixed position
        assert got["SKY"][-1]["uSat"] == 28


# gpsd also takes NAV-TIMEGPS without a fix.
@pytest.mark.parametrize("shape", [name for name in shapes() if name != "u-blox, no fix"])
def test_gpsd_names_the_same_seconds(gpsd: str, driver: Driver, shape: str) -> None:
    """What receivers of each kind send, read by gpsd, by the host and by the firmware: the same times."""
    start = datetime.datetime(2026, 11, 30, 23, 59, 57)
    sent = [shapes()[shape](start + datetime.timedelta(seconds=k)) for k in range(60)]
    line = PtyLine()
    Path(line.name).chmod(0o666)  # gpsd gives up being root
    port = free_port()
    done = threading.Event()

    def play() -> None:
        for data in sent:
            line.write(data)
            if done.wait(0.2):
                return

    player = threading.Thread(target=play)
    try:
        with program([gpsd, "-N", "-n", "-b", "-S", str(port), line.address]):
            player.start()
            got = reports(port, {"TPV": 8}, 15)
    finally:
        done.set()
        player.join()
        line.close()
    theirs = {unix_s(one["time"]) for one in got["TPV"] if "time" in one}
    splitter, judge = StreamSplitter(), naming.Judge()
    ours = set()
    for frame in splitter.feed(b"".join(sent)):
        message = m.decode(frame)
        if isinstance(message, m.Rmc | m.Zda | m.NavPvt) and judge.judge(message) in ("", "fraction"):
            assert message.utc is not None
            second = gpstime.utc_to_unix_s(*naming.unroll_utc(message.utc)[0])
            ours.add(second + round(message.nano_ns / 1e9, 3))
    assert splitter.counts.damaged == splitter.counts.skipped_bytes == 0
    assert theirs <= ours
    assert len(theirs) >= (0 if "void" in shape else 3)
    assert bool(theirs) == bool(ours)
    if shape.startswith("u-blox, ") and "PUBX" not in shape:
        assert {one["leapseconds"] for one in got["TPV"] if "leapseconds" in one} == {18}
    # The firmware names the whole ones among them.
    said, _ = both(driver, [*sent])
    labels = {text.split()[1] for text in said if text.startswith("UTC") or "resolved 1 fixed 1" in text}
    named = {
        gpstime.utc_to_unix_s(*datetime.datetime.fromisoformat(label).timetuple()[:6]) for label in labels
    }
    back = 1024 * gpstime.WEEK_S if "back" in shape else 0  # as said; second.c moves it on
    assert {second + back for second in named} == {second for second in ours if second == int(second)}


@pytest.mark.long
def test_gpsd_knows_the_leap_second(gpsd: str) -> None:
    """The seconds of 2016-12-31 23:59:58 to 2017-01-01 00:00:01, as gpsd's C library can label them."""
    tai = gpstime.utc_to_unix_s(2017, 1, 1, 0, 0, 0) + 36
    simulated = receiver("f9t", start_tai_s=tai - 5, utc_offset_s=36, faults=[parse_fault("leap@5")])
    line = PtyLine()
    Path(line.name).chmod(0o666)
    port = free_port()
    with Runner(simulated, line), program([gpsd, "-N", "-n", "-b", "-S", str(port), line.address]):
        got = reports(port, {"TPV": 6}, 15)
    labels = [str(one["time"])[:19] for one in got["TPV"] if "time" in one]
    assert "2016-12-31T23:59:59" in labels
    assert {one["leapseconds"] for one in got["TPV"] if "leapseconds" in one} <= {17, 18}


def test_gpsd_that_configures(gpsd: str) -> None:
    """Without -b gpsd sends its own settings: all of them are answered, and the fix goes on."""
    simulated = played("m8t", now=True)
    answers: list[bytes] = []
    command = simulated.command
    simulated.command = lambda data: answers.append(command(data)) or answers[-1]  # type: ignore[func-returns-value, method-assign]
    line = PtyLine()
    Path(line.name).chmod(0o666)
    port = free_port()
    with Runner(simulated, line), program([gpsd, "-N", "-n", "-S", str(port), line.address]):
        got = reports(port, {"TPV": 3}, 20)
        described = str(reports(port, {"DEVICES": 1}, 5)["DEVICES"])
    assert got["TPV"][-1]["mode"] == 3
    assert "NEO-M8T" in described and "TIM 1.10" in described  # of MON-VER
    assert any(b"\xb5\x62\x05\x01" in answer for answer in answers)


@pytest.mark.root
def test_chronyd_takes_its_time_from_gpsd(gpsd: str, chronyd: str, tmp_path: Path) -> None:
    """Through gpsd's shared memory; with the receiver 5 s ahead. -x: no clock is set."""
    unshare = tool("unshare", "util-linux")
    if os.geteuid() != 0 or subprocess.run([unshare, "-i", "true"], check=False).returncode:
        pytest.skip("NEEDS ROOT and IPC namespaces: chronyd did not read the receiver")
    chronyc = tool("chronyc", "chrony")
    tmp_path.chmod(0o700)
    simulated = receiver("f9t", start_tai_s=Runner.start_unix_s() + 37 + 5)
    line = TcpLine()
    config = tmp_path / "chrony.conf"
    config.write_text(
        "refclock SHM 0 refid GPS poll 2 dpoll 0 delay 0.2 offset 0\n"
        f"port 0\ncmdport 0\npidfile {tmp_path}/pid\nbindcmdaddress {tmp_path}/sock\n"
    )
    ask = f"{chronyc} -h {tmp_path}/sock -c sources"
    script = (
        f"{gpsd} -N -n -b -S {free_port()} {line.address.replace('socket:', 'tcp:')} & g=$!\n"
        f"{chronyd} -x -d -u root -f {config} & c=$!\n"
        "trap 'kill $g $c; wait' EXIT\n"
        f"for i in $(seq 60); do sleep 0.3; {ask} | grep -q '^#,.,GPS,0,2,[1-7]' && break; done\n"
        f"echo SOURCES $({ask})\n"
    )
    with Runner(simulated, line):
        result = subprocess.run(
            [unshare, "-i", "bash", "-c", script], capture_output=True, text=True, timeout=60, check=False
        )
    found = [row.split()[1].split(",") for row in result.stdout.splitlines() if row.startswith("SOURCES #")]
    assert found, result.stdout + result.stderr
    name, reach, offset_s = found[0][2], int(found[0][5], 8), float(found[0][8])
    assert name == "GPS" and reach > 0, found
    # This machine's clock minus the source's, which comes 65 ms late by its message.
    assert -5 < offset_s < -4.2, found
