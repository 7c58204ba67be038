# SPDX-License-Identifier: Apache-2.0
"""Weighted rendezvous: shares, deaths, returns; groups, copies, drops; the secret file."""

from __future__ import annotations

import math
import random
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.balance import (
    FATE_DROPPED,
    FATE_NO_SERVER,
    Classifier,
    Group,
    Secret,
    Server,
    groups_from_table,
    numbered_servers,
    same_servers,
    server_mask,
)
from twinstamp.errors import ConfigError
from twinstamp.frames import FrameBatch
from twinstamp.rules import Rule, RuleSet
from twinstamp_kernels import _cpu

from tests.rules import model

SECRET = Secret(bytes(range(32)))
ONE = RuleSet()


def table(servers, secret=SECRET, **options) -> np.ndarray:
    c = Classifier(ONE, groups=(Group("default", tuple(servers)),), secret=secret, **options)
    return np.array(c.table)


def test_logarithm_is_exact_enough_and_falls():
    rng = random.Random(1)
    values = sorted(
        [0, 1, 2, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1] + [rng.getrandbits(64) for _ in range(20000)]
    )
    scores = [_cpu.negative_log2(h) for h in values]
    assert scores == sorted(scores, reverse=True) and scores[0] == 64 << 40 and scores[-1] == 0
    for h, score in zip(values, scores, strict=True):
        # Compared in the complement near 1, where a float of h would lose its digits.
        u = (h + 1) / 2**64
        want = -math.log1p(-(2**64 - 1 - h) / 2**64) / math.log(2) if u > 0.5 else -math.log2(u)
        assert score / 2**40 == pytest.approx(want, rel=2e-4, abs=2**-38)


@pytest.mark.parametrize(
    "weights", [[1] * 3, [1] * 64, [1, 2, 3, 4], [1, 65535], [7, 0, 7], [100, 1, 50] * 20]
)
def test_shares_follow_weights(weights):
    servers = [Server(f"s{i}", w) for i, w in enumerate(weights)]
    share = np.bincount(table(servers), minlength=len(weights))
    n = share.sum()
    for got, weight in zip(share, weights, strict=True):
        p = weight / sum(weights)
        # Each bucket is an independent draw: 5 standard deviations, one chance in 1.7 million.
        assert abs(got - n * p) <= 5 * math.sqrt(n * p * (1 - p)) + 1e-9, (got, n * p)


def test_shares_follow_weights_over_many_secrets():
    servers = [Server("a", 1), Server("b", 2), Server("c", 5)]
    total = np.zeros(3)
    for number in range(50):
        total += np.bincount(table(servers, Secret(bytes([number]) * 32), buckets=4096), minlength=3)
    expected = total.sum() * np.array([1, 2, 5]) / 8
    assert ((total - expected) ** 2 / expected).sum() < 18.4  # chi square, 2 degrees, 1 in 10,000


def test_death_and_return_move_only_the_servers_own_buckets():
    rules = RuleSet((Rule(vlan=1, action=("x",)), Rule(vlan=2, action=("y", "x"))))
    servers = [Server(f"s{i}", 1 + i % 3) for i in range(64)]
    groups = (
        Group("default", tuple(servers)),
        Group("x", tuple(servers[:7])),
        Group("y", tuple(servers[5:40])),
    )
    c = Classifier(rules, groups=groups, secret=SECRET)
    before = np.array(c.table)
    rng = random.Random(2)
    for _ in range(5):
        dead = rng.sample(range(64), rng.randrange(1, 5))
        c.set_states({f"s{i}": False for i in dead})
        during = np.array(c.table)
        hit = np.isin(before, dead)
        assert hit.any() and np.array_equal(during[~hit], before[~hit])
        assert not np.isin(during, dead).any()
        c.set_states({f"s{i}": True for i in dead})
        assert np.array_equal(np.array(c.table), before)


def test_a_new_server_takes_only_for_itself():
    names = [Server(f"s{i}") for i in range(9)]
    old, new = table(names), table([*names, Server("s9")])
    assert set(new[old != new]) == {9}


def test_order_of_servers_and_of_groups_does_not_matter():
    names = [Server(f"s{i}", 1 + i) for i in range(9)]
    back = table(names[::-1])
    assert np.array_equal(table(names), 8 - back)


def test_secret_decides_and_lasts():
    names = [Server(f"s{i}") for i in range(8)]
    assert np.array_equal(table(names), table(names))
    assert (table(names) != table(names, Secret.random())).mean() > 0.8


def test_64_servers_65536_buckets_8_groups_are_built_fast():
    names = [f"g{i}" for i in range(7)]
    rules = RuleSet(tuple(Rule(vlan=i, action=(name,)) for i, name in enumerate(names)))
    c = Classifier(rules, groups=same_servers(rules, numbered_servers("64")))
    times = []
    for alive in (False, True) * 3:
        start = time.process_time()
        c.set_alive("server3", alive)
        times.append(time.process_time() - start)
    assert len(c.table) == 8 * 65536
    assert min(times) < 0.5, f"{min(times):.3f} s"


def frames(count, seed=1):
    rng = random.Random(seed)
    return [model.Packet(src=rng.getrandbits(32), dst=rng.getrandbits(32), sport=i) for i in range(count)]


def process(c, packets, keep=None):
    return c.process(FrameBatch.from_frames([model.build(p) for p in packets]), keep)


def test_consecutive_addresses_and_ports_spread():
    for packets in (
        [model.Packet(src=0x0A000001 + i, dst=0x0A010001) for i in range(20000)],
        [model.Packet(src=0x0A000001, dst=0x0A010001, sport=i) for i in range(20000)],
        [model.Packet(family=6, src=i << 64, dst=1) for i in range(20000)],
    ):
        c = Classifier(ONE, groups=same_servers(ONE, numbered_servers("16")), secret=SECRET)
        share = np.bincount(process(c, packets).copy_server, minlength=16)
        assert ((share - 1250) ** 2 / 1250).sum() < 60  # chi square, 15 degrees: 1 in 4 million


def test_copies_drops_and_dead_groups():
    rules = RuleSet(
        (
            Rule(destination_port=(1, 1), action=("web", "archive")),
            Rule(destination_port=(2, 2), action=()),
            Rule(destination_port=(3, 3), action=("archive",)),
        ),
        ("web",),
    )
    groups = (Group("web", (Server("w1"), Server("w2"))), Group("archive", (Server("a"),)))
    c = Classifier(rules, groups=groups, secret=SECRET)
    packets = [model.Packet(dport=port, src=i) for i in range(50) for port in (1, 2, 3, 4)]
    v = process(c, packets)
    a = c.servers.index("a")
    for i, p in enumerate(packets):
        mine = [s for f, s in zip(v.copy_frame, v.copy_server, strict=True) if f == i]
        if p.dport == 1:
            assert len(mine) == 2 and mine[0] != a and mine[1] == a
        elif p.dport == 2:
            assert mine == [] and v.fate[i] == FATE_DROPPED
        elif p.dport == 3:
            assert mine == [a]
        else:
            assert len(mine) == 1 and mine[0] != a
    assert list(v.copy_frame) == sorted(v.copy_frame)
    c.set_alive("a", False)
    v = process(c, packets)
    assert [v.fate[i] for i, p in enumerate(packets) if p.dport == 3] == [FATE_NO_SERVER] * 50
    counts = c.counts()
    assert counts["copies_without_server"] == 100 and counts["no_server"][0] == 50
    assert sum(n for n, _ in counts["servers"]) == 200 + 100
    masks = [np.frombuffer(server_mask(v, s), np.uint8) for s in range(3)]
    assert sum(int(m.sum()) for m in masks) == len(v.copy_frame)


def test_frames_not_kept_are_not_judged():
    c = Classifier(ONE, groups=same_servers(ONE, numbered_servers("4")), secret=SECRET)
    packets = frames(1000)
    keep = np.arange(1000) % 3 != 0
    v = process(c, packets, keep)
    assert np.array_equal(np.array(v.copy_frame), np.flatnonzero(keep))
    assert (np.array(v.fate)[~keep] == 0).all() and c.counts()["skipped"][0] == 334
    assert sum(n for n, _ in c.counts()["servers"]) == 666


@pytest.mark.parametrize("copies", [1, 3])
def test_workers_and_batches_agree(copies):
    names = tuple(f"g{i}" for i in range(copies))
    rules = RuleSet((Rule(protocol=6, action=()),), names)
    packets = frames(9000)
    packets += [model.replace(p, proto=6) for p in packets[:500]] + [
        model.replace(p, fragment=kind) for p in packets[:300] for kind in ("first", "later")
    ]
    random.Random(4).shuffle(packets)
    results = []
    for workers, cut in ((1, 20000), (4, 20000), (2, 5001), (1, 7)):
        c = Classifier(
            rules, groups=same_servers(rules, numbered_servers("8")), secret=SECRET, workers=workers
        )
        out = []
        for at in range(0, len(packets), cut):
            batch = FrameBatch.from_frames([model.build(p) for p in packets[at : at + cut]], first=at)
            v = c.process(batch)
            out += [(at + f, s) for f, s in zip(v.copy_frame, v.copy_server, strict=True)]
            while (r := c.take_released()) is not None:
                out += [
                    (r.frame[f], s)
                    for f, s in zip(r.verdicts.copy_frame, r.verdicts.copy_server, strict=True)
                ]
        results.append(sorted(out))
    assert all(result == results[0] for result in results) and len(results[0])


def test_a_refused_batch_counts_nothing():
    from twinstamp.errors import InputError

    c = Classifier(ONE, groups=same_servers(ONE, numbered_servers("4")))
    batch = FrameBatch.from_frames([model.build(p) for p in frames(6000)])
    caplen = batch.caplen.copy()
    caplen[5999] = 2**31
    batch.raw = (*batch.raw[:2], caplen, *batch.raw[3:])
    with pytest.raises(InputError, match="frame 6000 lies outside"):
        c.process(batch)
    assert c.counts()["forwarded"] == (0, 0) and sum(n for n, _ in c.counts()["servers"]) == 0


def test_results_outlive_later_batches():
    c = Classifier(ONE, groups=same_servers(ONE, numbered_servers("4")), secret=SECRET)
    packets = frames(3000)
    first = process(c, packets)
    hashes = bytes(first.hash)
    for seed in range(6):
        process(c, frames(4000, seed + 9))
    assert bytes(first.hash) == hashes


def test_secret_file_is_made_once_and_private(tmp_path):
    path = tmp_path / "state" / "balance.key"
    secret = Secret.load(path)
    assert path.stat().st_mode & 0o777 == 0o600 and path.stat().st_size == 32
    assert Secret.load(path).derive("x", 8) == secret.derive("x", 8)
    assert [p.name for p in path.parent.iterdir()] == ["balance.key"]
    assert str(secret.derive("flow", 4)) not in repr(secret)


def test_bad_secret_files_are_refused(tmp_path):
    path = tmp_path / "key"
    for mode in (0o644, 0o640, 0o602):
        path.write_bytes(bytes(32))
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            Secret.load(path)
    path.chmod(0o600)
    path.write_bytes(bytes(31))
    with pytest.raises(ConfigError, match="31 bytes"):
        Secret.load(path)
    with pytest.raises(ConfigError, match="plain file"):
        Secret.load(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read or made"):
        Secret.load(path / "below")


def test_default_secret_lies_in_the_users_state_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Secret.load().path == tmp_path / "twinstamp" / "balance.key"


@pytest.mark.parametrize(
    "text,message",
    [
        ("0", "1 to 4096"),
        ("99999999", "1 to 4096"),
        ("a,a", "twice"),
        ("a,", "name"),
        ("a:x", "weight"),
        ("a:99999", "weight"),
        ("../etc", "name"),
        ("drop", "name"),
    ],
)
def test_bad_server_lists(text, message):
    with pytest.raises(ConfigError, match=message):
        same_servers(ONE, numbered_servers(text))


def test_server_lists():
    assert numbered_servers("2") == (Server("server1"), Server("server2"))
    assert numbered_servers("a, b:3") == (Server("a"), Server("b", 3))
    assert groups_from_table({"g": {"servers": ["a", {"name": "b", "weight": 2}]}}) == (
        Group("g", (Server("a"), Server("b", 2))),
    )


@pytest.mark.parametrize(
    "entry",
    [
        3,
        [],
        {"g": {}},
        {"g": {"servers": "a"}},
        {"g": {"servers": [{"weight": 1}]}},
        {"g": {"servers": []}},
        {"g": {"servers": ["a"], "x": 1}},
        {"g": {"servers": [{"name": "a", "weight": True}]}},
    ],
)
def test_bad_groups(entry):
    with pytest.raises(ConfigError):
        groups_from_table(entry)


def test_a_rule_with_an_unknown_group_is_refused():
    rules = RuleSet((Rule(action=("web",)),))
    with pytest.raises(ConfigError, match=r"group web has no servers"):
        Classifier(rules, groups=(Group("default", (Server("a"),)),))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_states_that_change_one_after_the_other_give_the_same_tables(data):
    """Only what changed is worked out anew, and it is what a fresh start would have."""
    count = data.draw(st.integers(1, 9))
    weights = data.draw(st.lists(st.integers(0, 5), min_size=count, max_size=count).filter(any))
    servers = tuple(Server(f"s{k}", weight) for k, weight in enumerate(weights))
    rules = RuleSet((Rule(action=("some",)), Rule(action=("all", "some"))), default=("all",))
    some = servers[: max(1, count // 2)]
    if not any(server.weight for server in some):
        some = servers
    groups = (Group("all", servers), Group("some", some))

    def made() -> Classifier:
        return Classifier(rules, groups=groups, secret=SECRET, buckets=256)

    running = made()
    states = dict.fromkeys((server.name for server in servers), True)
    for _ in range(6):
        change = data.draw(st.dictionaries(st.sampled_from(sorted(states)), st.booleans(), max_size=count))
        states |= change
        running.set_states(change)
        fresh = made()
        fresh.set_states(states)
        alone = made()
        for name, alive in states.items():
            alone.set_alive(name, alive)
        assert bytes(running.table) == bytes(fresh.table) == bytes(alone.table)


def test_a_link_that_flaps_does_not_work_out_all_tables():
    """256 servers in ten groups: a change costs a part of what a start does."""
    servers = tuple(Server(f"s{k}", 1) for k in range(256))
    names = [f"g{k}" for k in range(10)]
    rules = RuleSet(tuple(Rule(action=(name,)) for name in names), default=(names[0],))
    begin = time.process_time()
    running = Classifier(rules, groups=tuple(Group(name, servers) for name in names), secret=SECRET)
    start = time.process_time() - begin
    times = []
    for k in range(20):
        begin = time.process_time()
        running.set_alive(f"s{k // 2}", k % 2 == 1)
        times.append(time.process_time() - begin)
    assert sorted(times)[10] < start / 10
