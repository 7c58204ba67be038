# SPDX-License-Identifier: Apache-2.0
"""Fragments follow their first one; ICMP errors follow the flow they quote; both directions agree."""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, fragment6
from scapy.layers.l2 import Ether
from twinstamp.balance import FATE_HELD, Classifier, FragmentLimits, Secret, numbered_servers, same_servers
from twinstamp.frames import FrameBatch
from twinstamp.rules import Rule, RuleSet

from tests.rules import model

MS = 1_000_000
# Given, or scapy would ask the network for them.
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
SECRET = Secret(bytes(range(32)))
# The rule tells which port the classifier believed; the last one takes what has none.
BY_PORT = RuleSet((*(Rule(destination_port=(p, p)) for p in range(1000, 1008)), Rule()))


def classifier(rules=BY_PORT, servers="16", **options) -> Classifier:
    return Classifier(
        rules, groups=same_servers(rules, numbered_servers(servers)), secret=SECRET, buckets=4096, **options
    )


def judge(c: Classifier, packets, stamps=None, cuts=()) -> tuple[dict[int, tuple], list[int]]:
    """frame → (rule, hash, servers), and the order in which frames came out."""
    out: dict[int, tuple] = {}
    order: list[int] = []
    frames = [p if isinstance(p, bytes) else model.build(p) for p in packets]
    stamps = stamps or [0] * len(frames)

    def note(numbers, v):
        servers: dict[int, list[int]] = {}
        for f, s in zip(v.copy_frame, v.copy_server, strict=True):
            servers.setdefault(f, []).append(s)
        for i, number in enumerate(numbers):
            if v.fate[i] == FATE_HELD:
                assert i in list(v.held) and i not in servers
                continue
            assert number not in out
            out[number] = (v.rule[i], v.hash[i], tuple(servers.get(i, ())))
            order.append(number)

    def released():
        while (r := c.take_released()) is not None:
            for i, number in enumerate(r.frame):
                assert r.batch.frame(i) == frames[number]
                assert r.batch.timestamp_ns[i] == stamps[number]
            note(list(r.frame), r.verdicts)

    edges = [0, *sorted(cuts), len(frames)]
    for low, high in itertools.pairwise(edges):
        batch = FrameBatch.from_frames(frames[low:high], timestamp_ns=stamps[low:high], first=low)
        note(range(low, high), c.process(batch))
        batch.release()
        released()
    c.flush()
    released()
    assert c.held_now == 0
    counts = c.counts()
    assert sum(counts[f][0] for f in ("forwarded", "dropped", "no_server")) == len(frames)
    return out, order


def datagram(family=4, dport=1000, ident=1, src=1, dst=2, later=2):
    first = model.Packet(family=family, src=src, dst=dst, sport=5, dport=dport, ident=ident, fragment="first")
    return [first] + [replace(first, fragment="later")] * later


@pytest.mark.parametrize("family", [4, 6])
def test_later_fragments_follow_the_first(family):
    whole = model.Packet(family=family, src=1, dst=2, sport=5, dport=1003)
    got, order = judge(classifier(), [whole, *datagram(family, 1003)])
    assert len(set(got.values())) == 1 and got[0][0] == 3
    assert order == [0, 1, 2, 3]


@pytest.mark.parametrize("family", [4, 6])
def test_early_fragments_wait_for_the_first(family):
    first, later, other = (*datagram(family, 1002, later=1), model.Packet(src=9, dport=1005))
    c = classifier()
    got, order = judge(c, [later, other, first], [0, MS, 10 * MS])
    assert got[0] == got[2] and got[0][0] == 2
    # What is not held keeps its order; the held one comes after its first.
    assert order == [1, 2, 0]
    assert c.counts()["fragments_held_followed"] == 1


@pytest.mark.parametrize("after,rule", [(10 * MS, 2), (10 * MS + 1, 8)])
def test_an_early_fragment_waits_ten_milliseconds(after, rule):
    first, later = datagram(4, 1002, later=1)
    c = classifier()
    got, _ = judge(c, [later, first], [0, after])
    assert got[0][0] == rule and got[1][0] == 2
    assert c.counts()["fragments_held_expired"] == (rule == 8)


def test_by_the_wall_clock_where_no_frame_comes():
    later = datagram()[1]
    c = classifier()
    c.process(FrameBatch.from_frames([model.build(later)], timestamp_ns=[5 * MS]))
    c.release_due(15 * MS)
    assert c.take_released() is None and c.held_now == 1
    c.release_due(15 * MS + 1)
    assert list(c.take_released().frame) == [0] and c.held_now == 0
    assert c.take_released() is None


def test_without_a_first_fragment_addresses_and_protocol_decide():
    later = datagram()[1]
    back = replace(later, src=later.dst, dst=later.src, ident=77)
    got, _ = judge(classifier(), [later, back, replace(later, proto=6)])
    assert got[0] == got[1] != got[2] and got[0][0] == 8


def test_over_the_byte_budget_fragments_go_at_once_and_are_counted():
    packets = [datagram(ident=i)[1] for i in range(10)]
    c = classifier(fragments=FragmentLimits(hold_bytes=3 * 330))
    v = c.process(FrameBatch.from_frames([model.build(p) for p in packets]))
    assert len(v.held) == 3
    counts = c.counts()
    assert counts["fragments_over_budget"] == 7 and counts["held_now_bytes"] <= 3 * 330
    # A first fragment frees the room it needs.
    c.process(FrameBatch.from_frames([model.build(datagram(ident=0)[0]), model.build(datagram(ident=50)[1])]))
    assert c.counts()["fragments_over_budget"] == 7


def test_a_full_table_forgets_the_oldest_and_counts():
    c = classifier(fragments=FragmentLimits(entries=4, hold_ns=0))
    packets = [datagram(dport=1001, ident=i)[0] for i in range(6)] + [
        datagram(dport=1001, ident=i)[1] for i in range(6)
    ]
    got, _ = judge(c, packets)
    assert [got[6 + i][0] for i in range(6)] == [8, 8, 1, 1, 1, 1]
    assert c.counts()["fragments_evicted"] == 2


def test_a_datagram_is_forgotten_after_its_lifetime():
    first, later = datagram(later=1)
    limits = FragmentLimits(hold_ns=0, lifetime_ns=50 * MS)
    got, _ = judge(classifier(fragments=limits), [first, later, later], [0, 50 * MS, 50 * MS + 1])
    assert [got[i][0] for i in range(3)] == [0, 0, 8]


def test_a_clock_that_falls_back_lets_go():
    c = classifier()
    first, later = datagram(later=1)
    got, _ = judge(c, [later, first, later], [2_000 * MS, 0, MS])
    assert [got[i][0] for i in range(3)] == [8, 0, 0]
    assert c.counts()["fragments_clock_back"] == 1


def test_extreme_stamps_do_no_harm():
    big = 2**63 - 1
    packets = datagram() + datagram(ident=2)[::-1] + datagram(ident=3)
    for stamps in ([-big] * 3 + [big] * 6, [big] * 3 + [-big - 1] * 6, [big, -big - 1, 0] * 3):
        assert len(judge(classifier(), packets, stamps)[0]) == 9


def test_stateless_hash_needs_no_table():
    c = classifier(hash="ip")
    first, later = datagram(later=1)
    got, order = judge(
        c, [later, first, replace(first, fragment="none", dport=1004), replace(first, proto=6)]
    )
    assert len({h for _, h, _ in got.values()}) == 1 and order == [0, 1, 2, 3]
    assert c.counts()["datagrams_now"] == 0


def oracle(packets, stamps, hold):
    """Which ports each frame is judged by: a plain reading of the rule, quadratic."""
    clock = np.maximum.accumulate(stamps)
    ports = []
    for i, p in enumerate(packets):
        known = None
        if p.fragment != "later":
            known = p.dport
        else:
            same = [
                j
                for j, q in enumerate(packets)
                if q.fragment == "first"
                and (q.src, q.dst, q.ident, q.family) == (p.src, p.dst, p.ident, p.family)
            ]
            before, after = [j for j in same if j < i], [j for j in same if j > i]
            if before:
                known = packets[before[0]].dport  # the first of them counts
            elif after and clock[after[0]] <= clock[i] + hold:
                known = packets[after[0]].dport
        ports.append(8 if known is None else known - 1000)
    return ports


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_verdicts_depend_neither_on_cuts_nor_workers(seed, data):
    rng = random.Random(seed)
    packets = []
    for _ in range(60):
        kind = rng.choice(["none", "first", "later", "later"])
        packets.append(
            model.Packet(
                family=rng.choice([4, 6]),
                src=rng.randrange(2),
                dst=rng.randrange(2) + 8,
                dport=1000 + rng.randrange(8),
                ident=rng.randrange(6),
                fragment=kind,
            )
        )
    stamps, now = [], 0
    for _ in packets:
        now += rng.choice([0, 0, MS, 4 * MS, 11 * MS])
        stamps.append(max(0, now - rng.choice([0, 0, 3 * MS])))
    cuts = data.draw(st.lists(st.integers(0, len(packets)), max_size=8))
    whole, _ = judge(classifier(), packets, stamps)
    parts, order = judge(classifier(workers=3), packets, stamps, cuts)
    assert parts == whole
    assert [whole[i][0] for i in range(len(packets))] == oracle(packets, stamps, 10 * MS)
    free = [n for n in order if packets[n].fragment != "later"]
    assert free == sorted(free)


def test_both_directions_of_every_kind_reach_one_server():
    rng = random.Random(5)
    for _ in range(300):
        p = model.random_packet(rng)
        if p.family == 0:
            continue
        back = replace(p, src=p.dst, dst=p.src, sport=p.dport, dport=p.sport, tcp=p.tcp ^ 0x12)
        got, _ = judge(classifier(RuleSet()), [p, back])
        assert got[0] == got[1], p
        if p.has_ports() and p.sport != p.dport:
            other, _ = judge(classifier(RuleSet()), [replace(p, sport=p.dport, dport=p.sport)])
            assert other[0][1] != got[0][1], "ports belong to their addresses"


def scapy_flows():
    from scapy.layers.inet import ICMP, IP, TCP, UDP
    from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, IPv6
    from scapy.layers.l2 import Ether

    for l4 in (UDP(sport=7, dport=53), TCP(sport=7, dport=80)):
        inner = IP(src="10.0.0.1", dst="10.9.9.9") / l4 / b"12345678"
        for error in (ICMP(type=3, code=4), ICMP(type=11), ICMP(type=5), ICMP(type=12), ICMP(type=4)):
            # A router in between sends it: its address is no part of the flow.
            quoted = bytes(inner)[:28]
            yield Ether(**MACS) / inner, Ether(**MACS) / IP(src="192.0.2.1", dst="10.0.0.1") / error / quoted
        inner6 = IPv6(src="2001:db8::1", dst="2001:db8:9::9") / l4 / b"12345678"
        for error6 in (ICMPv6DestUnreach(), ICMPv6PacketTooBig(), ICMPv6TimeExceeded()):
            router = IPv6(src="fe80::1", dst="2001:db8::1")
            yield Ether(**MACS) / inner6, Ether(**MACS) / router / error6 / bytes(inner6)


@pytest.mark.parametrize("mode", ["flow", "ip"])
def test_icmp_errors_follow_the_flow_they_quote(mode):
    for flow, error in scapy_flows():
        got, _ = judge(classifier(RuleSet(), hash=mode), [bytes(flow), bytes(error)])
        assert got[0][1:] == got[1][1:], error.summary()


def test_icmp_errors_go_to_the_group_of_their_flow_unless_a_rule_speaks_of_them():
    flow, error = next(iter(scapy_flows()))
    by_port = Rule(protocol=17, destination_port=(53, 53))
    got, _ = judge(classifier(RuleSet((by_port,))), [bytes(flow), bytes(error)])
    assert got[0] == got[1]
    got, _ = judge(classifier(RuleSet((by_port, Rule(protocol=1)))), [bytes(flow), bytes(error)])
    assert got[1][0] == 1 and got[0][1] == got[1][1]


def test_an_icmp_error_about_a_later_fragment_asks_the_table():
    from scapy.layers.inet import ICMP, IP, UDP
    from scapy.layers.l2 import Ether

    first = IP(src="10.0.0.1", dst="10.0.0.2", id=9, flags="MF") / UDP(sport=1, dport=1000) / bytes(8)
    later = IP(src="10.0.0.1", dst="10.0.0.2", id=9, frag=2, proto=17) / bytes(16)
    error = IP(src="10.0.0.3", dst="10.0.0.1") / ICMP(type=11, code=1) / bytes(later)
    got, _ = judge(classifier(RuleSet()), [bytes(Ether(**MACS) / p) for p in (first, later, error)])
    assert got[0] == got[1] == got[2]


def test_echo_goes_by_addresses_and_protocol():
    from scapy.layers.inet import ICMP, IP
    from scapy.layers.l2 import Ether

    ask = bytes(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=8, id=1) / bytes(40))
    answer = bytes(Ether(**MACS) / IP(src="10.0.0.2", dst="10.0.0.1") / ICMP(type=0, id=1) / bytes(40))
    got, _ = judge(classifier(RuleSet()), [ask, answer])
    assert got[0] == got[1]


def test_inner_layer_balances_what_the_tunnel_carries():
    from scapy.layers.inet import IP, UDP
    from scapy.layers.l2 import GRE, Ether
    from scapy.layers.vxlan import VXLAN

    def inner(a, b, x, y):
        return IP(src=a, dst=b) / UDP(sport=x, dport=y) / b"data"

    there, back = inner("10.0.0.1", "10.0.0.2", 5, 53), inner("10.0.0.2", "10.0.0.1", 53, 5)
    frames = [
        bytes(Ether(**MACS) / there),
        bytes(
            Ether(**MACS)
            / IP(src="1.1.1.1", dst="2.2.2.2")
            / UDP(sport=99, dport=4789)
            / VXLAN(vni=5, flags=8, NextProtocol=0)
            / Ether(**MACS)
            / back
        ),
        bytes(Ether(**MACS) / IP(src="3.3.3.3", dst="4.4.4.4") / GRE() / there),
    ]
    got, _ = judge(classifier(RuleSet(), layer="inner"), frames)
    assert got[0] == got[1] == got[2]
    got, _ = judge(classifier(RuleSet(), layer="outer"), frames)
    assert len({h for _, h, _ in got.values()}) == 3


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("held", [False, True])
def test_a_second_first_fragment_moves_nothing(family, held):
    """A sender adds one with other ports: the rest follow the first that came; the conflict is counted."""
    first, later, _ = datagram(family)
    (fake, *_) = datagram(family, dport=1003)
    c = classifier()
    packets = [later, first, fake, later] if held else [first, fake, later, later]
    out, _ = judge(c, packets)
    real = packets.index(first)
    for number, packet in enumerate(packets):
        if packet is not fake:
            assert out[number] == out[real] and out[number][0] == 0
    assert out[packets.index(fake)][0] == 3
    assert c.counts()["fragments_conflicting"] == 1
    again = classifier()
    judge(again, [first, first, later])  # a copy of it is none
    assert again.counts()["fragments_conflicting"] == 0


def test_a_flood_of_later_fragments_of_one_datagram_takes_time_in_proportion():
    """Each that expires is the oldest: found without a search."""
    later = model.build(datagram()[1])

    def seconds(n: int) -> float:
        c = classifier(fragments=FragmentLimits(hold_bytes=1 << 30, hold_ns=1_000_000))
        batch = FrameBatch.from_frames([later] * n, timestamp_ns=[0] * n)
        c.process(batch)
        assert c.held_now == n
        begin = time.process_time()
        c.process(FrameBatch.from_frames([model.build(model.Packet())], timestamp_ns=[10 * MS]))
        return time.process_time() - begin

    small = min(seconds(20_000) for _ in range(3))
    assert min(seconds(160_000) for _ in range(3)) < 8 * 3 * small + 0.05


@pytest.mark.parametrize("workers", [2, 4])
def test_small_batches_use_the_threads_and_give_the_same(workers):
    """Behind a merge batches have a thousand frames."""
    frames = [model.build(model.Packet(dport=1000 + k % 9, src=k % 50)) for k in range(1000)]
    alone, together = classifier(), classifier(workers=workers)
    assert judge(alone, frames) == judge(together, frames)
    one, other = ({k: v for k, v in c.counts().items() if "cache" not in k} for c in (alone, together))
    assert one == other
    # Each thread has a cache of its own: it was more than one that met these flows.
    assert together.counts()["cache_misses"] != alone.counts()["cache_misses"]


def pieces(ident: int, sport: int, dport: int, *, family: int, size: int = 1400) -> list[bytes]:
    """A UDP datagram in two fragments, by scapy."""
    if family == 4:
        whole = Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2", id=ident) / UDP(sport=sport, dport=dport)
        return [bytes(part) for part in fragment(whole / bytes(size), fragsize=800)]
    packet = IPv6(src="fd00::1", dst="fd00::2") / IPv6ExtHdrFragment(id=ident)
    return [
        bytes(Ether(**MACS) / part)
        for part in fragment6(packet / UDP(sport=sport, dport=dport) / bytes(size), 900)
    ]


@pytest.mark.parametrize("family", [4, 6])
def test_an_identification_that_is_used_again(family):
    """The old datagram is whole: 5 s later its number is another's, whose later fragment comes first."""
    (a1, a2), (b1, b2) = pieces(7, 1000, 1001, family=family), pieces(7, 1002, 1003, family=family)
    c = classifier()
    out, _ = judge(c, [a1, a2, b2, b1], [0, MS, 5000 * MS, 5001 * MS])
    assert out[0] == out[1] and out[0][0] == 1
    assert out[2] == out[3] and out[2][0] == 3
    assert c.counts()["fragments_conflicting"] == 0


@pytest.mark.parametrize("family", [4, 6])
def test_copies_of_a_whole_datagram_follow_it(family):
    """As a second mirror brings them: within the time that an early fragment is held."""
    a1, a2 = pieces(7, 1000, 1001, family=family)
    out, _ = judge(classifier(), [a1, a1, a2, a2, a1, a2], [0, 0, MS, 2 * MS, 3 * MS, 4 * MS])
    assert len({out[i] for i in range(6)}) == 1 and out[0][0] == 1
