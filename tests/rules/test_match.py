# SPDX-License-Identifier: Apache-2.0
"""Compiled rules against a plain linear search."""

from __future__ import annotations

import random
from ipaddress import ip_address

import numpy as np
import pytest
from twinstamp.balance import Classifier, FragmentLimits, numbered_servers, same_servers
from twinstamp.frames import FrameBatch
from twinstamp.rules import Prefix, Rule, RuleSet, read_classbench

from tests.conftest import CORPUS
from tests.rules import model

SETS = sorted(p.name for p in (CORPUS / "rules").glob("*.rules")) or ["absent"]
ALONE = FragmentLimits(hold_ns=0)


def compiled(rules: RuleSet, packets, *, cut=65536, **options) -> np.ndarray:
    classifier = Classifier(rules, fragments=ALONE, **options)
    out = []
    for at in range(0, len(packets), cut):
        batch = FrameBatch.from_frames([model.build(p) for p in packets[at : at + cut]], first=at)
        out.append(np.array(classifier.process(batch).rule))
    return np.concatenate(out)


def agree(rules, plain, packets, **options):
    got, want = compiled(rules, packets, **options), model.linear_search(plain, packets)
    wrong = np.flatnonzero(got != want)
    assert not len(wrong), [(packets[i], got[i], want[i]) for i in wrong[:3]]
    return want


def to_rule(p: model.PlainRule) -> Rule:
    return Rule(
        source=None if p.family is None else Prefix(p.family, *p.src),
        destination=None if p.family is None else Prefix(p.family, *p.dst),
        source_port=p.sport,
        destination_port=p.dport,
        protocol=p.proto,
        vlan=p.vlan,
        tcp_flags=p.tcp,
        icmp=p.icmp,
        either_direction=p.either,
    )


@pytest.mark.corpus
@pytest.mark.parametrize("name", SETS)
def test_corpus_rules_equal_linear_search_on_100000_packets(corpus, name):
    path = corpus / "rules" / name
    plain = model.parse_plain(path)
    rules = read_classbench(path)
    assert len(rules) == len(plain)
    seed = 20 + SETS.index(name)
    packets = model.derive(random.Random(seed), plain, 100_000)
    want = agree(rules, plain, packets)
    # The test means something only where many rules are hit, and some packets hit none.
    assert len(np.unique(want)) > len(plain) / 3
    assert (want == -1).any()


def test_answers_do_not_depend_on_cache_threads_or_batches(corpus):
    path = corpus / "rules" / "fw1_1k.rules"
    plain = model.parse_plain(path)
    rules = read_classbench(path)
    packets = model.derive(random.Random(3), plain, 12_000)
    packets = packets + packets[::-1]  # cache hits
    packets = [p for p in packets if p.fragment == "none"]
    want = model.linear_search(plain, packets)
    for options in ({"workers": 3}, {"cache_entries": 0}, {"cache_entries": 4}, {"cut": 37}, {"hash": "ip"}):
        assert np.array_equal(compiled(rules, packets, **options), want), options


def random_rule(rng) -> model.PlainRule:
    family = rng.choice([None, 4, 6])
    width = 128 if family == 6 else 32

    def prefix():
        if family is None or rng.random() < 0.3:
            return (0, 0)
        bits = rng.randrange(0, width + 1)
        # Few different upper bits, so that prefixes nest and overlap.
        value = rng.randrange(0, 4) << (width - 2) | int.from_bytes(rng.randbytes(16), "big") % (
            1 << (width - 10)
        )
        return (value >> (width - bits) << (width - bits), bits)

    def ports():
        a, b = sorted(rng.sample([0, 1, 53, 80, 1023, 1024, 65534, 65535, 4000], 2))
        return (0, 65535) if rng.random() < 0.5 else (a, b)

    proto = rng.choice([None, 6, 17, 1, 58, 47])
    tcp = icmp = None
    if proto in (None, 6) and rng.random() < 0.3:
        mask = rng.choice([0x002, 0x012, 0x010, 0x017, 0x100, 0xE00, 0xFFF])
        tcp = (rng.randrange(0, 4096) & mask, mask)
    elif proto in (None, 1, 58) and rng.random() < 0.3:
        mask = rng.choice([0xFF00, 0xFFFF, 0x8000])
        icmp = (rng.randrange(0, 65536) & mask, mask)
    return model.PlainRule(
        family=family,
        src=prefix(),
        dst=prefix(),
        sport=ports() if proto in (None, 6, 17) and icmp is None else (0, 65535),
        dport=ports() if proto in (None, 6, 17) and icmp is None else (0, 65535),
        proto=proto,
        vlan=rng.choice([0, 1, 100, 4095]) if rng.random() < 0.2 else None,
        tcp=tcp,
        icmp=icmp,
        either=bool(rng.random() < 0.3),
    )


@pytest.mark.parametrize("seed,count", [(s, n) for s, n in enumerate((0, 1, 2, 63, 64, 65, 130, 700, 5000))])
def test_random_rules_of_all_families_equal_linear_search(seed, count):
    rng = random.Random(seed)
    plain = [random_rule(rng) for _ in range(count)]
    if count > 100:
        # Wide rules would hide the rest behind them.
        plain = [r for r in plain if r.family or r.proto or r.vlan is not None] or plain
    rules = RuleSet(tuple(to_rule(r) for r in plain))
    packets = model.derive(rng, plain or [model.PlainRule()], 3000)
    agree(rules, plain, packets)


def test_scapy_reads_the_same_fields_from_the_frames(corpus):
    """The generator's fields are what somebody else's parser finds in the frames that it wrote."""
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
    from scapy.layers.l2 import Dot1Q, Ether

    path = corpus / "rules" / "fw1_1k.rules"
    plain = model.parse_plain(path)
    packets = model.derive(random.Random(8), plain, 1500)
    seen = []
    for p in packets:
        s = Ether(model.build(p))
        q = model.Packet(family=0, vlan=s[Dot1Q].vlan if Dot1Q in s else None, proto=0)
        if IP in s or IPv6 in s:
            ip = s[IP] if IP in s else s[IPv6]
            header = s.getlayer(IPv6ExtHdrFragment)
            if IP in s:
                kind = "later" if ip.frag else "first" if ip.flags.MF else "none"
                proto = ip.proto
            else:
                kind = "none" if header is None else "later" if header.offset else "first"
                proto = header.nh if header is not None else ip.nh
            q = model.replace(
                q,
                family=4 if IP in s else 6,
                src=int(ip_address(ip.src)),
                dst=int(ip_address(ip.dst)),
                proto=proto,
                fragment=kind,
            )
            if kind != "later":
                l4 = s.getlayer(TCP) or s.getlayer(UDP)
                raw = bytes(ip.payload if header is None else header.payload)
                if l4 is not None:
                    q = model.replace(q, sport=l4.sport, dport=l4.dport)
                elif proto in model.PORT_PROTOCOLS:
                    q = model.replace(
                        q, sport=int.from_bytes(raw[:2], "big"), dport=int.from_bytes(raw[2:4], "big")
                    )
                if TCP in s:
                    q = model.replace(q, tcp=int(s[TCP].flags) | (s[TCP].reserved << 9))
                if ICMP in s:
                    q = model.replace(q, icmp=s[ICMP].type << 8 | s[ICMP].code)
                elif proto in (1, 58):  # too short for scapy to take it for its type
                    q = model.replace(q, icmp=int.from_bytes(raw[:2], "big"))
        if p.first is not None:
            q = model.replace(q, first=p.first)
        seen.append(q)
    got, want = compiled(read_classbench(path), packets), model.linear_search(plain, seen)
    wrong = np.flatnonzero(got != want)
    assert not len(wrong), [(packets[i], seen[i], got[i], want[i]) for i in wrong[:3]]


def test_cut_frames_match_only_what_their_bytes_show():
    rules = RuleSet(
        (
            Rule(destination_port=(80, 80), tcp_flags=(2, 2)),
            Rule(destination_port=(80, 80)),
            Rule(protocol=6),
            Rule(source=Prefix(4, 0, 0)),
            Rule(),
        )
    )
    frame = model.build(model.Packet(proto=6, dport=80, tcp=2))
    classifier = Classifier(rules)
    answers = [classifier.process(FrameBatch.from_frames([frame[:n]])).rule[0] for n in range(len(frame) + 1)]
    # 14 Ethernet, 20 IPv4; ports end at 38, flags at 48.
    assert answers == [4] * 34 + [2] * 4 + [1] * 10 + [0] * (len(frame) + 1 - 48)


def test_family_wildcards_stay_in_their_family():
    rules = RuleSet(
        (Rule(source=Prefix(4, 0, 0)), Rule(source=Prefix(6, 0, 0)), Rule(protocol=47), Rule(vlan=7), Rule())
    )
    packets = [
        model.Packet(family=4),
        model.Packet(family=6),
        model.Packet(family=0),
        model.Packet(family=0, vlan=7),
        model.Packet(family=0, vlan=8),
    ]
    assert compiled(rules, packets).tolist() == [0, 1, 4, 3, 4]


def test_frames_outside_the_buffer_are_refused():
    from twinstamp.errors import InputError

    batch = FrameBatch.from_frames([b"x" * 60])
    batch.raw = (*batch.raw[:1], np.array([2**63], np.uint64), *batch.raw[2:])
    with pytest.raises(InputError, match="frame 1 lies outside"):
        Classifier(RuleSet()).process(batch)
    batch = FrameBatch.from_frames([b"x" * 60])
    batch.raw = (*batch.raw[:5], np.array([3], np.uint16), *batch.raw[6:])
    with pytest.raises(InputError, match="port 3"):
        Classifier(RuleSet(), groups=same_servers(RuleSet(), numbered_servers("1"))).process(batch)
