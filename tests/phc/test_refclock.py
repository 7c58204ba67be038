# SPDX-License-Identifier: Apache-2.0
"""chronyd and gpsd's ntpshmmon, which nobody here wrote, read the disciplined clock. -x: no clock is set."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from twinstamp.errors import ConfigError
from twinstamp.phc.record import ClockRecord
from twinstamp.phc.refclock import ShmClock, SockClock, sample

PUBLISH = Path(__file__).with_name("publish_shm.py")
FIVE_S = 5_000_000_000


def _tool(name: str, package: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} IS NOT INSTALLED (Debian package {package}): it did not read the clock")
    return path


@pytest.fixture
def unshare() -> str:
    found = _tool("unshare", "util-linux")
    if os.geteuid() != 0 or subprocess.run([found, "-i", "true"], check=False).returncode:
        pytest.skip("NEEDS ROOT and IPC namespaces: nobody else read the clock")
    return found


@pytest.mark.parametrize("way", ["shm", "sock"])
def test_chronyd_reads_it(way: str, unshare: str, tmp_path: Path) -> None:
    chronyd, chronyc = _tool("chronyd", "chrony"), _tool("chronyc", "chrony")
    tmp_path.chmod(0o700)
    driver = "SHM 2" if way == "shm" else f"SOCK {tmp_path}/refclock"
    config = tmp_path / "chrony.conf"
    config.write_text(
        f"refclock {driver} refid PHC poll 2 dpoll 0 precision 1e-7\n"
        f"port 0\ncmdport 0\npidfile {tmp_path}/pid\nbindcmdaddress {tmp_path}/sock\n"
    )
    ask = f"{chronyc} -h {tmp_path}/sock -c sources"
    publish = "--shm 2" if way == "shm" else f"--sock {tmp_path}/refclock"
    script = (
        f"{sys.executable} {PUBLISH} {FIVE_S} 60 {publish} & p=$!\n"
        f"{chronyd} -x -d -u root -f {config} & c=$!\n"
        "trap 'kill $p $c; wait' EXIT\n"
        f"for i in $(seq 90); do sleep 0.3; {ask} | grep -q '^#,.,PHC,0,2,[1-7]' && break; done\n"
        f"echo SOURCES $({ask})\n"
    )
    result = subprocess.run(
        [unshare, "-i", "bash", "-c", script], capture_output=True, text=True, timeout=90, check=False
    )
    found = [row.split()[1].split(",") for row in result.stdout.splitlines() if row.startswith("SOURCES #")]
    assert found, result.stdout + result.stderr
    name, reach, offset_s, error_s = found[0][2], int(found[0][5], 8), float(found[0][8]), float(found[0][9])
    assert name == "PHC" and reach > 0, found
    # This machine's clock minus the PHC's UTC.
    assert offset_s == pytest.approx(-5, abs=0.001), found
    assert error_s < 0.01


def test_ntpshmmon_reads_it(unshare: str) -> None:
    ntpshmmon = _tool("ntpshmmon", "gpsd-clients")
    script = (
        f"{sys.executable} {PUBLISH} 250000000 20 --shm 2 & p=$!\n"
        "trap 'kill $p; wait' EXIT\n"
        "sleep 2\n"
        f"{ntpshmmon} -n 3 -t 10\n"
    )
    result = subprocess.run(
        [unshare, "-i", "bash", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("sample NTP2")]
    assert rows, result.stdout + result.stderr
    for _, _, _, system, reference, leap, precision in rows:
        assert float(reference) - float(system) == pytest.approx(0.25, abs=0.001)
        assert leap == "0"
        assert -24 <= int(precision) <= -20  # 44 ns and the comparison's window


class _Look:
    def __init__(self, tai_ns: int) -> None:
        self._tai_ns = tai_ns

    def offsets(self, *, extended: bool) -> list[tuple[int, int, int]]:
        return [(100, self._tai_ns, 300), (50, self._tai_ns - 9, 4000)]


def _record(**values: int) -> ClockRecord:
    all_of = dict.fromkeys((field.name for field in dataclasses.fields(ClockRecord)), 0)
    return ClockRecord(
        **(all_of | {"state": 2, "bound_ns": 44, "utc_offset_s": 37, "utc_source": 1} | values)
    )


def test_samples_and_leap_seconds() -> None:
    # 2016-12-31T23:59:60 was TAI second 1483228836; the first behind it is 1483228837.
    leap = {"utc_offset_s": 36, "leap_s": 1, "leap_tai_s": 1_483_228_837}
    day_before = 1_483_228_837 - 86_401 - 10
    look = _Look(1_483_228_830 * 10**9)
    found = sample(look, _record(**leap))  # type: ignore[arg-type]
    assert found is not None
    assert found == (200, (1_483_228_830 - 36) * 10**9, 1, 44 + 100)
    assert sample(_Look(day_before * 10**9), _record(**leap)).leap == 0  # type: ignore[arg-type, union-attr]
    behind = sample(_Look(1_483_228_837 * 10**9), _record(**leap))  # type: ignore[arg-type]
    assert behind is not None
    assert (behind.reference_ns, behind.leap) == ((1_483_228_837 - 37) * 10**9, 0)
    assert sample(look, _record(**(leap | {"leap_s": -1}))).leap == 2  # type: ignore[arg-type, union-attr]


@pytest.mark.parametrize(
    "nothing", [{"state": 1}, {"state": 4}, {"state": 0}, {"bound_ns": -1}, {"utc_source": 0}]
)
def test_what_is_not_known_is_not_passed_on(nothing: dict[str, int]) -> None:
    assert sample(_Look(10**18), _record(**nothing)) is None  # type: ignore[arg-type]


def test_options() -> None:
    with pytest.raises(ConfigError, match="at most 107 bytes"):
        SockClock("/" + "x" * 200)
    with pytest.raises(ConfigError, match="give 0 to 255"):
        ShmClock(-1)
