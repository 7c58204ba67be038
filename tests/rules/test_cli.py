# SPDX-License-Identifier: Apache-2.0
"""`twinstamp rules` and `twinstamp balance` on whole files."""

from __future__ import annotations

import json
import random
import struct

import numpy as np
import pytest
from twinstamp.balance import Group, Server
from twinstamp.cli import main
from twinstamp.frames import FrameBatch
from twinstamp.io import create_capture, open_capture
from twinstamp.match import balance_capture
from twinstamp.rules import RuleSet

from tests.rules import model

TOML = """
default = "dpi"
[[rule]]
protocol = "tcp"
action = ["dpi", "archive"]
[[rule]]
vlan = 7
action = "drop"
[group.dpi]
servers = ["one", { name = "two", weight = 3 }]
[group.archive]
servers = ["tape"]
"""


def write(path, packets, stamps=None):
    with create_capture(str(path)) as out:
        out.write(FrameBatch.from_frames([model.build(p) for p in packets], timestamp_ns=stamps))


def frames(path):
    with open_capture(str(path)) as reader:
        return [batch.frame(i) for batch in reader for i in range(len(batch))]


def mixed(seed, count=3000):
    rng = random.Random(seed)
    return [model.random_packet(rng) for _ in range(count)]


@pytest.mark.parametrize("name", ["acl1_1k.rules", "fw1_1k.rules"])
def test_match_writes_the_csv(tmp_path, corpus, name):
    plain = model.parse_plain(corpus / "rules" / name)
    packets = model.derive(random.Random(1), plain, 4000)
    # Early fragments: held until their first comes, but rows stay in order.
    first = model.Packet(src=1, dst=2, ident=9, dport=80, fragment="first")
    later = model.replace(first, fragment="later")
    packets[100:100] = [model.replace(later, first=first), packets[0], first]
    write(tmp_path / "in.pcap", packets)
    options = [
        "--rules",
        str(corpus / "rules" / name),
        "--format",
        "classbench",
        "--out",
        str(tmp_path / "o.csv"),
    ]
    assert main(["rules", "match", str(tmp_path / "in.pcap"), *options]) == 0
    lines = (tmp_path / "o.csv").read_text().splitlines()
    assert lines[0] == "frame,rule"
    want = model.linear_search(plain, packets)
    assert lines[1:] == [f"{i},{rule}" for i, rule in enumerate(want, 1)]


def test_balance_writes_a_capture_per_server(tmp_path, capsys):
    packets = mixed(2)
    write(tmp_path / "in.pcap", packets)
    (tmp_path / "r.toml").write_text(TOML)
    key = tmp_path / "key"

    def run(out):
        report = tmp_path / f"{out}.json"
        args = ["balance", str(tmp_path / "in.pcap"), "--rules", str(tmp_path / "r.toml"), "--out-dir"]
        args += [str(tmp_path / out), "--secret-file", str(key), "--json", str(report)]
        assert main(args) == 0
        return json.loads(report.read_text())

    report = run("a")
    ledger = report["ledger"]
    sent = {server["name"]: frames(server["file"]) for server in report["servers"]}
    tcp = [p for p in packets if p.family and p.proto == 6]
    dropped = [p for p in packets if p.vlan == 7 and p not in tcp]
    assert ledger["received"]["frames"] == 3000 and ledger["rule_drops"]["frames"] == len(dropped)
    assert ledger["forwarded"]["frames"] == 3000 - len(dropped)
    assert sorted(sent["tape"]) == sorted(model.build(p) for p in tcp)
    assert len(sent["one"]) + len(sent["two"]) == 3000 - len(dropped)
    # Weight 3 to 1, in flows: two flows of non-IP frames hold a fifth of all frames, and 5 sigma of the rest.
    flows = {server["name"]: server["flows"] for server in report["servers"]}
    assert 2.3 < flows["two"] / flows["one"] < 4
    assert [len(sent[s["name"]]) for s in report["servers"]] == [s["frames"] for s in report["servers"]]
    assert run("b")["servers"][0]["frames"] == len(sent["one"]), "the secret lasts"
    assert frames(tmp_path / "b" / "one.pcap") == sent["one"]
    table = capsys.readouterr().err
    assert "one" in table and "3000 frames received" in table


def test_balance_with_numbered_servers(tmp_path, corpus):
    write(tmp_path / "in.pcap", mixed(3))
    rules = str(corpus / "rules" / "acl1_1k.rules")
    args = [
        "balance",
        str(tmp_path / "in.pcap"),
        "--rules",
        rules,
        "--out-dir",
        str(tmp_path / "o"),
        "--quiet",
    ]
    assert main([*args, "--servers", "64", "--hash", "ip", "--secret-file", str(tmp_path / "k")]) == 0
    assert sum(len(frames(p)) for p in (tmp_path / "o").iterdir()) == 3000
    assert len(list((tmp_path / "o").iterdir())) == 64


def test_check_names_rules_that_never_match(tmp_path, capsys):
    path = tmp_path / "r.toml"
    path.write_text('[[rule]]\naction = "a"\n[[rule]]\nvlan = 1\naction = "b"\n')
    assert main(["rules", "check", str(path)]) == 0
    out = capsys.readouterr()
    assert f"{path}:3: rule 1 never matches: rule 0 (line 1)" in out.out and "2 rules" in out.err
    path.write_text('[[rule]]\naction = "a"\nvlan = 9999\n')
    assert main(["rules", "check", str(path)]) == 2
    assert f"{path}:3: rule 0: vlan 9999" in capsys.readouterr().err
    path.write_text('[[rule]]\naction = "a"\n[group.a]\nservers = ["x", "x"]\n')
    assert main(["rules", "check", str(path)]) == 2


def test_damaged_input_ends_with_an_error_and_what_came_before(tmp_path, corpus):
    write(tmp_path / "in.pcap", mixed(4, 100))
    whole = (tmp_path / "in.pcap").read_bytes()
    (tmp_path / "cut.pcap").write_bytes(whole[:-5])
    rules = str(corpus / "rules" / "acl1_1k.rules")
    args = ["rules", "match", str(tmp_path / "cut.pcap"), "--rules", rules, "--out", str(tmp_path / "o.csv")]
    assert main(args) == 0
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 100


def test_match_shows_an_icmp_errors_own_rule(tmp_path):
    from scapy.layers.inet import ICMP, IP, UDP
    from scapy.layers.l2 import Ether

    inner = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=53) / bytes(8)
    error = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / IP(src="10.0.0.3", dst="10.0.0.1")
    with create_capture(str(tmp_path / "in.pcap")) as out:
        out.write(FrameBatch.from_frames([bytes(error / ICMP(type=3, code=3) / inner)]))
    (tmp_path / "r.toml").write_text('[[rule]]\nprotocol = "udp"\naction = "a"\n')
    args = ["rules", "match", str(tmp_path / "in.pcap"), "--rules", str(tmp_path / "r.toml")]
    assert main([*args, "--out", str(tmp_path / "o.csv")]) == 0
    assert (tmp_path / "o.csv").read_text() == "frame,rule\n1,-1\n"


def test_the_ledger_counts_captured_bytes(tmp_path):
    """As `dedup` and `run` do, also where a capture was cut by a snapshot length."""
    frame = model.build(mixed(1)[0])
    record = struct.pack("<IIII", 1, 0, len(frame), 1500) + frame
    header = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    (tmp_path / "in.pcap").write_bytes(header + record * 3)
    (tmp_path / "r.toml").write_text(TOML)
    args = [
        "balance",
        str(tmp_path / "in.pcap"),
        "--rules",
        str(tmp_path / "r.toml"),
        "--quiet",
        "--servers",
        "1",
    ]
    args += [
        "--out-dir",
        str(tmp_path),
        "--secret-file",
        str(tmp_path / "key"),
        "--json",
        str(tmp_path / "r.json"),
    ]
    assert main(args) == 0
    ledger = json.loads((tmp_path / "r.json").read_text())["ledger"]
    assert ledger["received"] == {"frames": 3, "bytes": 3 * len(frame)}


def test_a_server_in_two_groups_of_a_rule_gets_both_copies(tmp_path):
    """The ledger did not add up: one of the two was written."""
    packets = mixed(4)
    write(tmp_path / "in.pcap", packets)
    rules = RuleSet(default=("a", "b"))
    groups = (Group("a", (Server("one"),)), Group("b", (Server("one"), Server("two"))))
    report = balance_capture(str(tmp_path / "in.pcap"), rules, tmp_path / "out", groups=groups)
    one, two = (frames(server["file"]) for server in report["servers"])
    assert sorted(one + two) == sorted(2 * [model.build(p) for p in packets])
    assert report["ledger"]["copies"]["sent"]["frames"] == 2 * len(packets)
    assert len(two) > 100


def test_flows_are_counted_exactly_without_sorting_them_anew_for_each_batch(monkeypatch):
    """All flows of a server were sorted with each batch: quadratic in flows."""
    from twinstamp import match

    sorted_in_all = 0
    unique = np.unique

    def counted(values):
        nonlocal sorted_in_all
        sorted_in_all += len(values)
        return unique(values)

    monkeypatch.setattr(match, "MIN_FLOWS_WAITING", 16)
    monkeypatch.setattr(match.np, "unique", counted)
    rng = np.random.default_rng(1)
    flows, batches, each = match._Flows(2), 2000, 50
    seen = [set(), set()]
    for number in range(batches):
        hashes = rng.integers(0, 1 << 20, each, np.uint64)
        flows.add(number % 2, hashes)
        seen[number % 2] |= set(hashes.tolist())
    assert flows.counts() == [len(seen[0]), len(seen[1])]
    assert sorted_in_all < 6 * batches * each, "a few times each"


def test_more_flows_than_are_counted_are_not_guessed(monkeypatch):
    from twinstamp import match

    monkeypatch.setattr(match, "MAX_FLOWS_COUNTED", 1000)
    for flows_in_all, want in ((1000, [500, 500]), (1001, [None, None])):
        flows = match._Flows(2)
        hashes = np.arange(flows_in_all, dtype=np.uint64)
        flows.add(0, hashes[:500])
        for _ in range(3):
            flows.add(1, hashes[500:])
        assert flows.counts() == want
