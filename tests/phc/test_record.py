# SPDX-License-Identifier: Apache-2.0
"""The published clock: whole records to readers of other processes, none that has run out."""

from __future__ import annotations

import dataclasses
import stat
import struct
import subprocess
import sys
import time

import pytest
from twinstamp.errors import DeviceError
from twinstamp.phc import record as published
from twinstamp.phc.record import BYTES, ClockRecord, Publisher, Reader, boot_id


@pytest.fixture(autouse=True)
def clocks(tmp_path, monkeypatch):
    monkeypatch.setenv("TWINSTAMP_CLOCKS", str(tmp_path / "clocks"))
    return tmp_path / "clocks"


def one(value: int = 0, **others) -> ClockRecord:
    values = {field.name: value for field in dataclasses.fields(ClockRecord)} | {"phc": 2} | others
    return ClockRecord(**values)


def test_what_is_written_is_read(clocks):
    publisher, reader = Publisher(2), Reader(2)
    assert reader.read() is None  # zeros
    publisher.write(one(-5, state=2, utc_source=1))
    assert reader.read() == one(-5, state=2, utc_source=1)
    mode = (clocks / "clock-ptp2").stat()
    assert stat.S_IMODE(mode.st_mode) == 0o644
    assert mode.st_size == BYTES
    # The layout of docs/nic-clock.md, by offsets.
    data = (clocks / "clock-ptp2").read_bytes()
    assert data[8:16] == b"TWCLOCK1"
    assert struct.unpack_from("=II", data, 16) == (1, 256)
    assert data[24:40] == boot_id()
    assert struct.unpack_from("=qqqq", data, 40) == (2, -5, 2, -5)
    # Another program takes the file over: who has it mapped reads on.
    publisher.close()
    second = Publisher(2)
    assert reader.read() == one(-5, state=2, utc_source=1)
    second.write(one(8))
    assert reader.read() == one(8)


def test_a_record_that_has_run_out_does_not_hold():
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    publisher, reader = Publisher(2), Reader(2)
    publisher.write(one(bound_ns=40, boot_ns=now, valid_until_ns=now + 60_000_000_000))
    assert reader.valid() is not None
    publisher.write(one(bound_ns=-1, boot_ns=now, valid_until_ns=now + 60_000_000_000))
    assert reader.valid() is None
    publisher.write(one(bound_ns=40, boot_ns=now - 10, valid_until_ns=now - 1))
    assert reader.valid() is None
    publisher.write(one(bound_ns=40, boot_ns=now + 10**12, valid_until_ns=now + 2 * 10**12))
    assert reader.valid() is None  # of a later boot, or a lie


@pytest.mark.parametrize(("at", "value"), [(8, b"X"), (16, b"\2"), (24, b"?"), (40, b"\7")])
def test_other_records_say_nothing(clocks, at, value):
    """Another program's, another version's, another boot's, another PHC's."""
    Publisher(2).write(one(9))
    with (clocks / "clock-ptp2").open("r+b") as file:
        file.seek(at)
        file.write(value)
    assert Reader(2).read() is None


def test_no_file_a_short_file_a_torn_record(clocks):
    reader = Reader(2)
    assert reader.read() is None
    clocks.mkdir()
    (clocks / "clock-ptp2").write_bytes(b"short")
    assert reader.read() is None
    publisher = Publisher(2)
    publisher.write(one(3))
    assert reader.read() == one(3)
    with (clocks / "clock-ptp2").open("r+b") as file:  # a writer that died in the middle
        file.write(struct.pack("=Q", 7))
    assert reader.read() is None
    publisher.write(one(4))
    assert reader.read() == one(4)


def test_readers_get_whole_records():
    """A writer as fast as it goes, in another process: each record's fields are one number."""
    code = (
        "import dataclasses, sys\n"
        "from twinstamp.phc.record import ClockRecord, Publisher\n"
        "names = [f.name for f in dataclasses.fields(ClockRecord)]\n"
        "publisher = Publisher(2)\n"
        "print('ready', flush=True)\n"
        "for k in range(200_000):\n"
        "    publisher.write(ClockRecord(**(dict.fromkeys(names, k) | {'phc': 2})))\n"
    )
    seen = set()
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        reader = Reader(2)
        end = time.monotonic() + 2
        while writer.poll() is None and time.monotonic() < end:
            found = reader.read()
            if found is not None:
                assert found == one(found.pid)
                seen.add(found.pid)
        writer.kill()
    assert len(seen) > 100


def test_a_folder_that_cannot_be(monkeypatch):
    monkeypatch.setenv("TWINSTAMP_CLOCKS", "/proc/nonesuch")
    with pytest.raises(DeviceError, match="cannot be published"):
        Publisher(2)


def test_a_link_in_its_place_is_not_followed(clocks, tmp_path):
    clocks.mkdir()
    (tmp_path / "precious").write_text("keep")
    (clocks / "clock-ptp2").symlink_to(tmp_path / "precious")
    with pytest.raises(DeviceError, match="cannot be published"):
        Publisher(2)
    assert (tmp_path / "precious").read_text() == "keep"


def test_moved():
    record = one(tai_ns=10**18, raw_ns=10**9)
    second = 10**9
    assert not record.moved(10**18 + second + 400_000, 2 * second, 2000)
    assert record.moved(10**18 + second + 700_000, 2 * second, 2000)
    assert record.moved(10**18 + 2 * second, 2 * second, 2000)
    assert published.STATES[record.state] == record.state_name == "cold"
