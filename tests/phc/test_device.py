# SPDX-License-Identifier: Apache-2.0
"""The calls' numbers and sizes beside the kernel's own headers, compiled."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.phc import device
from twinstamp.phc.holders import claim, holders, named, phc_of

PROGRAM = r"""
#include <linux/ptp_clock.h>
#include <linux/pps.h>
#include <linux/timex.h>
#include <stddef.h>
#include <stdio.h>
#define SHOW(x) printf("%s %llu\n", #x, (unsigned long long)(x))
int main(void) {
    SHOW(PTP_CLOCK_GETCAPS); SHOW(PTP_EXTTS_REQUEST); SHOW(PTP_EXTTS_REQUEST2); SHOW(PTP_PIN_SETFUNC);
    SHOW(PTP_SYS_OFFSET); SHOW(PTP_SYS_OFFSET_PRECISE); SHOW(PTP_SYS_OFFSET_EXTENDED);
    SHOW(PTP_ENABLE_FEATURE); SHOW(PTP_RISING_EDGE); SHOW(PTP_FALLING_EDGE); SHOW(PTP_STRICT_FLAGS);
    SHOW(PTP_PF_EXTTS); SHOW(sizeof(struct ptp_extts_event)); SHOW(offsetof(struct ptp_extts_event, index));
    SHOW(sizeof(struct ptp_clock_caps)); SHOW(offsetof(struct ptp_clock_caps, n_pins));
    SHOW(sizeof(struct ptp_sys_offset)); SHOW(sizeof(struct ptp_sys_offset_extended));
    SHOW(sizeof(struct ptp_extts_request)); SHOW(offsetof(struct ptp_pin_desc, index));
    SHOW(sizeof(struct ptp_pin_desc));
    SHOW(sizeof(struct timex)); SHOW(offsetof(struct timex, freq)); SHOW(offsetof(struct timex, time));
    SHOW(PPS_FETCH); SHOW(sizeof(struct pps_fdata)); SHOW(offsetof(struct pps_fdata, info.assert_tu.sec));
    SHOW(offsetof(struct pps_fdata, info.assert_tu.nsec));
    SHOW(ADJ_FREQUENCY); SHOW(ADJ_SETOFFSET); SHOW(ADJ_NANO);
}
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory) -> dict[str, int]:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None or not Path("/usr/include/linux/ptp_clock.h").exists():
        pytest.skip("NO COMPILER OR NO KERNEL HEADERS: the calls' numbers were not compared with them")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "show.c").write_text(PROGRAM)
    subprocess.run([compiler, "-o", folder / "show", folder / "show.c"], check=True)
    lines = subprocess.run([folder / "show"], check=True, capture_output=True, text=True).stdout.splitlines()
    return {name: int(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_numbers(kernel):
    assert kernel["PTP_CLOCK_GETCAPS"] == device.GETCAPS
    assert kernel["PTP_EXTTS_REQUEST"] == device.EXTTS_REQUEST
    assert kernel["PTP_EXTTS_REQUEST2"] == device.EXTTS_REQUEST2
    assert kernel["PTP_PIN_SETFUNC"] == device.PIN_SETFUNC
    assert kernel["PTP_SYS_OFFSET"] == device.SYS_OFFSET
    assert kernel["PTP_SYS_OFFSET_PRECISE"] == device.SYS_OFFSET_PRECISE
    assert kernel["PTP_SYS_OFFSET_EXTENDED"] == device.SYS_OFFSET_EXTENDED
    flags = ("PTP_ENABLE_FEATURE", "PTP_RISING_EDGE", "PTP_FALLING_EDGE", "PTP_STRICT_FLAGS")
    assert [kernel[name] for name in flags] == [device.ENABLE, device.RISING, device.FALLING, device.STRICT]
    assert kernel["PTP_PF_EXTTS"] == device.PIN_EXTTS
    assert (kernel["ADJ_FREQUENCY"], kernel["ADJ_SETOFFSET"], kernel["ADJ_NANO"]) == (
        device._ADJ_FREQUENCY, device._ADJ_SETOFFSET, device._ADJ_NANO,
    )  # fmt: skip


def test_pulses_of_the_kernel(kernel):
    assert kernel["PPS_FETCH"] == device.PPS_FETCH
    assert kernel["sizeof(struct pps_fdata)"] == device.PPS_FETCH_BYTES
    assert kernel["offsetof(struct pps_fdata, info.assert_tu.sec)"] == 8
    assert kernel["offsetof(struct pps_fdata, info.assert_tu.nsec)"] == 16
    with pytest.raises(DeviceError, match="/dev/pps4711 cannot be opened"):
        device.Pps("/dev/pps4711")


def test_sizes(kernel):
    assert kernel["sizeof(struct ptp_extts_event)"] == device._EVENT_BYTES
    assert kernel["offsetof(struct ptp_extts_event, index)"] == 16
    assert kernel["sizeof(struct ptp_clock_caps)"] == 80
    assert kernel["offsetof(struct ptp_clock_caps, n_pins)"] == 5 * 4
    assert kernel["sizeof(struct ptp_sys_offset)"] == device._SYS_OFFSET_BYTES
    assert kernel["sizeof(struct ptp_sys_offset_extended)"] == device._EXTENDED_BYTES
    assert kernel["sizeof(struct ptp_extts_request)"] == 16
    assert kernel["offsetof(struct ptp_pin_desc, index)"] == 64
    assert kernel["sizeof(struct ptp_pin_desc)"] == 96
    assert kernel["sizeof(struct timex)"] == ctypes.sizeof(device.Timex)
    assert kernel["offsetof(struct timex, freq)"] == device.Timex.freq.offset
    assert kernel["offsetof(struct timex, time)"] == device.Timex.tv_sec.offset


def test_a_machine_without_it():
    with pytest.raises(DeviceError, match="/dev/ptp4711 cannot be opened: No such file"):
        device.Phc("/dev/ptp4711")
    with pytest.raises(ConfigError, match="lo: the interface has no PHC"):
        phc_of("lo")
    with pytest.raises(ConfigError, match="there is no such interface"):
        phc_of("nonesuch0")
    with pytest.raises(ConfigError, match="give /dev/ptpN"):
        phc_of("/dev/null")
    assert phc_of("/dev/ptp12") == ("/dev/ptp12", 12)


def test_a_second_program_is_refused_by_the_others_name(tmp_path):
    path = tmp_path / "ptp0"
    path.touch()
    code = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        "print('mine', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        found = holders(str(path))
        assert [pid for pid, _ in found] == [other.pid]
        fd = os.open(path, os.O_RDWR)
        with pytest.raises(DeviceError, match=rf"steered by another program already \(.*pid {other.pid}\)"):
            claim(str(path), fd)
        other.communicate("")
    claim(str(path), fd)
    fcntl.flock(fd, fcntl.LOCK_UN)
    os.close(fd)
    assert named([]) == ""


def test_ptp4l_is_known_by_its_name(tmp_path):
    path = tmp_path / "ptp0"
    path.touch()
    program = tmp_path / "ptp4l"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with path.open() as held, subprocess.Popen([program, "60"], stdin=held) as other:
        try:
            fd = os.open(path, os.O_RDWR)
            with pytest.raises(DeviceError, match=rf"open in ptp4l, pid {other.pid}, which would steer it"):
                claim(str(path), fd)
            os.close(fd)
        finally:
            other.terminate()
