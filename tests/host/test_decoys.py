# SPDX-License-Identifier: Apache-2.0
"""A decoy in front of the packet it is to hide, through the commands and the appliance.

What each profile is said to hide stands in docs/duplicates.md; tests/kernels/test_evasion.py has every row
of it.
tshark, an inspector that nobody here wrote, must still find the request.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from scapy.layers.inet import GRE, IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN
from scapy.utils import rdpcap, wrpcap
from twinstamp.analyse import analyse
from twinstamp.appliance import Appliance, load_appliance
from twinstamp.cli import main
from twinstamp.errors import ConfigError

REQUEST = b"GET /evil HTTP/1.1\r\nHost: evil.example\r\n\r\n"
needs_tshark = pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")


def packet(**fields: object) -> IP:
    ip = IP(src="10.0.0.1", dst="192.0.2.9", id=7, **fields)
    return ip / TCP(sport=40000, dport=80, seq=1, ack=1, flags="PA") / REQUEST


def ether(inside: IP) -> Ether:
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / inside


def tunnelled() -> Ether:
    return ether(
        IP(src="198.51.100.7", dst="203.0.113.1", ttl=1) / UDP(dport=8472) / VXLAN(flags=8) / ether(packet())
    )


def pcap(path: Path, frames: list[Ether], step_us: int = 1000) -> Path:
    for i, frame in enumerate(frames):
        frame.time = 1_700_000_000 + i * step_us / 1e6
    wrpcap(str(path), frames)
    return path


def requests(path: Path) -> int:
    done = subprocess.run(
        ["tshark", "-r", path, "-Y", "http.request", "-T", "fields", "-e", "frame.number"],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    return len(done.stdout.split())


VLAN = bytes(12) + b"\x81\0" + 29 * b"\0\7\x81\0" + b"\0\7\x08\0"
PPPOE = bytes(12) + b"\x88\x64\0\xa7\0\x63\0\1\0\x21"


@needs_tshark
@pytest.mark.parametrize(
    ("decoy", "options"),
    [
        (Ether(VLAN + bytes(packet())), ["--profile", "vlan"]),
        (Ether(PPPOE + bytes(packet())), ["--profile", "routing"]),
        (tunnelled(), ["--profile", "routing", "--layer", "inner"]),
        (ether(packet(ttl=1, chksum=1)), ["--profile", "routing"]),
    ],
    ids=["thirty tags", "PPPoE", "VXLAN", "checksum"],
)
def test_the_request_is_still_seen(decoy: Ether, options: list[str], tmp_path: Path) -> None:
    source = pcap(tmp_path / "in.pcap", [decoy, ether(packet())])
    out = tmp_path / "out.pcap"
    assert main(["dedup", str(source), str(out), "--time", "50ms", "--quiet", *options]) == 0
    # tshark sees into the tunnel as well; what the others of them hide from it, the real packet shows.
    assert requests(out) == requests(source) >= 1
    assert len(rdpcap(str(out))) == 2


def test_the_guard_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pcap(tmp_path / "in.pcap", [ether(packet(ttl=t)) for t in (1, 64, 63)])
    report = tmp_path / "r.json"
    arguments = ["dedup", str(source), str(tmp_path / "out.pcap"), "--time", "50ms", "--profile", "routing"]
    assert main([*arguments, "--json", str(report)]) == 0
    assert [f[IP].ttl for f in rdpcap(str(tmp_path / "out.pcap"))] == [1]
    assert json.loads(report.read_text())["duplicates"]["guarded"] == {}
    capsys.readouterr()
    assert main([*arguments, "--guard", "ttl", "--json", str(report)]) == 0
    assert [f[IP].ttl for f in rdpcap(str(tmp_path / "out.pcap"))] == [1, 64]
    found = json.loads(report.read_text())
    assert found["duplicates"]["guarded"] == {"ttl": {"frames": 1, "bytes": len(ether(packet()))}}
    assert found["options"]["guard"] == "ttl"
    assert found["ledger"]["duplicates_dropped"]["frames"] == 1
    assert "1 (their TTL or hop limit rises)" in capsys.readouterr().err


def test_tunnels_by_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pcap(tmp_path / "in.pcap", [tunnelled(), ether(packet()), tunnelled()])
    arguments = ["dedup", str(source), str(tmp_path / "out.pcap"), "--window", "9", "--profile", "routing"]
    arguments += ["--layer", "inner"]
    for tunnels, left in (
        ([], 2),  # the plain one goes on, the last tunnel is a copy of both
        (["198.51.100.7", "203.0.113.0/24"], 1),
        (["198.51.100.7"], 2),  # only one end: it is compared by its outer headers
        (["mpls"], 2),
    ):
        capsys.readouterr()
        assert main([*arguments, *(part for name in tunnels for part in ("--tunnel", name))]) == 0
        assert len(rdpcap(str(tmp_path / "out.pcap"))) == left, tunnels
        assert ("is in more tunnels" in capsys.readouterr().err) is (not tunnels)
    for name, words in (("10.0.0.300", "neither an address"), ("10.0.0.1/8", "host bits")):
        assert main([*arguments, "--tunnel", name]) == 2
        assert words in capsys.readouterr().err
    assert main([*arguments[:-2], "--tunnel", "10.0.0.1"]) == 2
    assert "inner only" in capsys.readouterr().err


APPLIANCE = """
[appliance]
report = "report.json"
[[source]]
file = "in.pcap"
[duplicates]
profile = "routing"
time = "50ms"
{lines}
[balance]
secret_file = "balance.key"
[[group]]
name = "dpi"
[[group.server]]
name = "s0"
file = "s0.pcap"
"""


def appliance(tmp_path: Path, lines: str) -> Path:
    path = tmp_path / "a.toml"
    path.write_text(APPLIANCE.format(lines=lines))
    return path


@pytest.mark.parametrize(
    ("lines", "ttls"), [("", [1, 64]), ('guard = "none"', [1]), ('guard = "ttl"', [1, 64])]
)
def test_the_appliance_guards_by_default(lines: str, ttls: list[int], tmp_path: Path) -> None:
    pcap(tmp_path / "in.pcap", [ether(packet(ttl=t)) for t in (1, 64, 63)])
    with Appliance(load_appliance(appliance(tmp_path, lines))) as running:
        report = running.run()
    assert [f[IP].ttl for f in rdpcap(str(tmp_path / "s0.pcap"))] == ttls
    assert report["duplicates"]["guarded"].get("ttl", {"frames": 0})["frames"] == len(ttls) - 1
    assert report["ledger"]["received"]["frames"] == 3
    assert report["ledger"]["duplicates_dropped"]["frames"] == 3 - len(ttls)


@pytest.mark.parametrize(("tunnels", "left"), [("", 2), ('tunnels = ["198.51.100.7", "203.0.113.1"]', 1)])
def test_the_appliance_opens_named_tunnels(tunnels: str, left: int, tmp_path: Path) -> None:
    pcap(tmp_path / "in.pcap", [tunnelled(), ether(packet(ttl=1))])
    with Appliance(load_appliance(appliance(tmp_path, f'layer = "inner"\n{tunnels}'))) as running:
        report = running.run()
    assert len(rdpcap(str(tmp_path / "s0.pcap"))) == left
    assert set(report["duplicates"]["guarded"]) == ({"tunnel"} if left == 2 else set())


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ('guard = "hops"', "duplicates.guard"),
        ('tunnels = ["192.0.2.1"]', 'layer = "inner" only'),
        ('layer = "inner"\ntunnels = ["192.0.2.1/24"]', "duplicates.tunnels"),
        ('layer = "inner"\ntunnels = [7]', "in quotes"),
        ('layer = "inner"\ntunnels = "192.0.2.1"', "duplicates.tunnels"),
    ],
)
def test_wrong_options_are_named(lines: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        load_appliance(appliance(tmp_path, lines))


def test_analyse_says_what_the_guard_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    obeys, breaks = [], []
    for i in range(50):
        first, second = (
            ether(IP(src="10.0.0.1", dst="192.0.2.9", id=i + 1, ttl=t) / GRE()) for t in (64, 63)
        )
        obeys += [first, second]
        breaks += [first, second] if i % 5 else [second.copy(), first.copy()]
    for name, frames, guarded in (("obeys", obeys, 0), ("breaks", breaks, 10)):
        source = pcap(tmp_path / f"{name}.pcap", frames, step_us=100)
        window = analyse(source, recall=1)["window"]
        assert window["caught"] == 50
        assert window["guarded"] == guarded
        capsys.readouterr()
        assert main(["analyse", str(source)]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert ("costs nothing here" in shown) is (guarded == 0)
        assert ("let go on 10 of these duplicates (20.00 %)" in shown) is (guarded == 10)
