# SPDX-License-Identifier: Apache-2.0
"""The programs in examples/ run as written and say what is true; and the front door they use."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import twinstamp

from tests.conftest import ROOT

EXAMPLES = ROOT / "examples"
SIM = ROOT / "build" / "hdl" / "libtwinstamp_sim.so"
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "made")
needs_card = pytest.mark.skipif(not SIM.is_file(), reason="the simulated card is not built: make hdl")


def run(name: str, folder: Path, *arguments: str | Path) -> str:
    """What the example prints; its temporary folder is ``folder``."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *arguments],
        env={**os.environ, "TMPDIR": str(folder), "MPLCONFIGDIR": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def numbers(pattern: str, text: str) -> list[int]:
    """The numbers of the pattern's only match."""
    found = re.search(pattern, text)
    assert found is not None, text
    return [int(number.replace(",", "")) for number in found.groups()]


def frames_by_capinfos(path: Path) -> int:
    """Frames of a capture, as Wireshark's capinfos counts them."""
    if shutil.which("capinfos") is None:
        pytest.skip("capinfos is not installed (Debian package wireshark-common)")
    told = subprocess.run(["capinfos", "-rcMT", path], capture_output=True, text=True, check=True).stdout
    return int(told.split()[-1])


def test_every_example_is_tested() -> None:
    text = Path(__file__).read_text()
    assert len(PROGRAMS) == 10
    assert [name for name in PROGRAMS if f'run("{name}"' not in text] == []


def test_every_example_stands_in_the_page() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    assert [name for name in PROGRAMS if f"examples/{name}.py" not in page] == []


def test_clean_a_capture(tmp_path: Path) -> None:
    told = run("clean_a_capture", tmp_path)
    [received, forwarded, dropped] = [
        numbers(rf"{fate} {{'frames': (\d+)", told)[0]
        for fate in ("received", "forwarded", "duplicates_dropped")
    ]
    assert received == forwarded + dropped
    assert forwarded < received / 3  # most packets were there four times
    assert frames_by_capinfos(tmp_path / "twinstamp-examples" / "feed.pcap") == received
    assert frames_by_capinfos(tmp_path / "twinstamp-examples" / "clean.pcapng") == forwarded


def test_batches_as_numpy(tmp_path: Path) -> None:
    told = run("batches_as_numpy", tmp_path)
    frames, udp = numbers(r"([\d,]+) frames, ([\d,]+) of them UDP", told)
    feed = tmp_path / "twinstamp-examples" / "feed.pcap"
    assert frames == frames_by_capinfos(feed)
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed: the UDP frames were not counted")
    tshark = ["tshark", "-r", feed, "-Y", "ip && udp", "-T", "fields", "-e", "frame.number"]
    seen = subprocess.run(tshark, capture_output=True, text=True, check=True).stdout
    assert udp == len(seen.splitlines())


def test_rules_in_python(tmp_path: Path) -> None:
    told = run("rules_in_python", tmp_path)
    by_rule = [numbers(rf"rule {number}: ([\d,]+) frames", told)[0] for number in (1, 2, 3)]
    [rest] = numbers(r"no rule: ([\d,]+) frames", told)
    servers = [numbers(rf"server {name}: ([\d,]+) frames", told)[0] for name in ("dns0", "web0", "web1")]
    assert sum(by_rule) + rest == frames_by_capinfos(tmp_path / "twinstamp-examples" / "feed.pcap")
    assert servers[0] == by_rule[0] > 0
    assert servers[1] + servers[2] == by_rule[1] + rest  # the third rule drops
    assert min(servers[1:]) > 0


def test_drive_the_appliance(tmp_path: Path) -> None:
    told = run("drive_the_appliance", tmp_path)
    [forwarded] = numbers(r"forwarded {'frames': (\d+)", told)
    made = tmp_path / "twinstamp-examples"
    assert sum(frames_by_capinfos(made / f"dpi{number}.pcapng") for number in (0, 1)) == forwarded > 0


def test_an_own_stage(tmp_path: Path) -> None:
    told = run("an_own_stage", tmp_path)
    [frames] = numbers(r"'Talkers': {'frames': (\d+)", told)
    counters = re.findall(r"'02:77:00:00:00:0[ab]': (\d+)", told)
    assert "'error': None" in told
    assert (
        sum(map(int, counters))
        == frames
        == frames_by_capinfos(tmp_path / "twinstamp-examples" / "dpi0.pcapng")
    )


def test_one_way_delay(tmp_path: Path) -> None:
    told = run("one_way_delay", tmp_path)
    assert "500 sent, 5 lost" in told
    lowest = float(re.search(r"  0 %: ([\d.]+) ms", told)[1])  # type: ignore[index]
    assert 8.0 <= lowest < 8.05  # the wire's 8 ms and the smallest of 495 exponential queues of 150 us
    bound = int(re.search(r"bound of a delay: (\d+) ns", told)[1])  # type: ignore[index]
    assert 200 <= bound <= 204  # 100 ns and 100 ns, rounded up to what the field can say


def test_batch_on_a_gpu(tmp_path: Path) -> None:
    told = run("batch_on_a_gpu", tmp_path)
    frames, duplicates = numbers(r"judged on the [CG]PU: ([\d,]+) frames, ([\d,]+) duplicates", told)
    assert frames / 2 < duplicates < frames


@pytest.mark.root
def test_stamps_of_a_nic(tmp_path: Path) -> None:
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
    except PermissionError:
        pytest.skip("needs CAP_NET_RAW")
    told = run("stamps_of_a_nic", tmp_path)
    assert "stamped by the kernel" in told
    assert told.count(": 43 bytes") >= 5  # 14 Ethernet, 20 IP, 8 UDP, 1


@needs_card
def test_send_a_train(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    told = run("send_a_train", tmp_path)
    assert "60 departures" in told
    assert (tmp_path / "twinstamp-examples" / "departures.png").read_bytes().startswith(b"\x89PNG")


@needs_card
def test_clock_of_a_card(tmp_path: Path) -> None:
    told = run("clock_of_a_card", tmp_path)
    assert "after a new time: epoch 1 (was 0), 250.0 ns to slew" in told


def test_an_example_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"absent\.pcap: cannot be opened"):
        run("clean_a_capture", tmp_path, "absent.pcap")


# The front door


def test_each_name_is_the_object_of_its_module() -> None:
    for name in twinstamp.__all__:
        value = getattr(twinstamp, name)
        own = "analyse" if name == "analyse_capture" else name
        assert getattr(importlib.import_module(value.__module__), own) is value
        assert value.__module__.startswith("twinstamp")
    assert set(twinstamp.__all__) <= set(dir(twinstamp))
    with pytest.raises(AttributeError, match="no attribute 'open_captures'"):
        _ = twinstamp.open_captures  # type: ignore[attr-defined]


def test_what_type_checkers_see_is_what_is_there() -> None:
    text = (ROOT / "host" / "twinstamp" / "__init__.py").read_text()
    block = text.split("if TYPE_CHECKING:")[1].split("__all__")[0]
    seen = set()
    for line in block.strip().splitlines():
        names = line.split(" import ")[1].split(", ")
        seen |= {name.split(" as ")[-1].strip() for name in names}
    assert seen == set(twinstamp.__all__)


def test_importing_the_front_door_imports_nothing_behind_it() -> None:
    code = (
        "import sys; before = set(sys.modules); import twinstamp; "
        "print(sorted(set(sys.modules) - before)); "
        "from twinstamp import open_capture; print('numpy' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.splitlines() == ["['twinstamp']", "False"]
