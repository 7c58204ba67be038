# SPDX-License-Identifier: Apache-2.0
"""Captures joined by `cat`: thousands of pcapng sections, each with an interface, and the time they take."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.cli import main
from twinstamp.frames import FrameBatch, Port, PortTable, linktypes_of
from twinstamp.io import open_capture

from tests.io.capture_maker import Pcapng

FEW, MANY = 3_000, 12_000


def joined(path: Path, sections: int) -> Path:
    made = Pcapng()
    for number in range(sections):
        frame = bytes(12) + b"\x08\0" + number.to_bytes(4, "big") + bytes(42)
        made.section().interface().enhanced(frame, number)
    path.write_bytes(made.bytes())
    return path


APPLIANCE = """
[appliance]
report = "report.json"
[[source]]
file = "{source}"
[duplicates]
window = 5
[balance]
secret_file = "balance.key"
[[group]]
name = "dpi"
[[group.server]]
name = "one"
file = "one.{ending}"
"""


@pytest.mark.parametrize("ending", ["pcap", "pcapng"])
@pytest.mark.parametrize("command", ["dedup", "run", "balance", "match", "analyse"])
def test_the_time_grows_with_the_sections_not_with_their_square(tmp_path, command, ending, capsys):
    """Four times the sections: four times the time, where it was sixteen times."""
    (tmp_path / "rules.toml").write_text('default = "dpi"\n')
    rules = ["--rules", str(tmp_path / "rules.toml")]
    words = {
        "dedup": ["IN", str(tmp_path / f"o.{ending}"), "--window", "5"],
        "balance": ["IN", *rules, "--out-dir", str(tmp_path), "--secret-file", str(tmp_path / "k")],
        "match": ["match", "IN", *rules, "--out", str(tmp_path / "m.csv")],
        "analyse": ["IN"],
    }
    seconds = {}
    for sections in (FEW, MANY):
        source = joined(tmp_path / f"{sections}.pcapng", sections)
        times = []
        for _ in range(2):
            start = time.process_time()
            if command == "run":
                path = tmp_path / "a.toml"
                path.write_text(APPLIANCE.format(source=source.name, ending=ending))
                with Appliance(load_appliance(path)) as appliance:
                    report = appliance.run()
                assert report["ledger"]["forwarded"]["frames"] == sections
            else:
                name = "rules" if command == "match" else command
                assert main([name, *(str(source) if w == "IN" else w for w in words[command])]) == 0
            times.append(time.process_time() - start)
        seconds[sections] = min(times)
    assert seconds[MANY] < 8 * seconds[FEW] + 0.1, seconds


def test_a_table_of_ports_lends_its_link_types(tmp_path):
    table = PortTable()
    views = []
    for number in range(1000):
        table.append(Port(str(number), number * 70))
        views.append(table.linktypes)
    want = [min(number * 70, 0xFFFF) for number in range(1000)]
    assert [len(view) for view in views] == list(range(1, 1001))
    assert all(view.tolist() == want[: len(view)] for view in views), "a view stays what it was"
    assert linktypes_of(tuple(table)).tolist() == want
    assert table == [Port(str(number), number * 70) for number in range(1000)]
    with open_capture(joined(tmp_path / "three.pcapng", 3)) as reader:
        seen = []
        for batch in reader:
            seen.append(batch.linktypes.tolist())
            batch.release()
    assert seen == [[1], [1, 1], [1, 1, 1]]
    assert FrameBatch.from_frames([b""], linktype=101).linktypes.dtype == np.uint16
