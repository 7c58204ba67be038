# SPDX-License-Identifier: Apache-2.0
"""Rules and balance on the emulated device: everything equals the CPU's classifier, bit for bit."""

from __future__ import annotations

import contextlib
import itertools
import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.balance import (
    Classifier,
    FragmentLimits,
    Group,
    Secret,
    Server,
    numbered_servers,
    same_servers,
)
from twinstamp.errors import InputError
from twinstamp.frames import FrameBatch, Port
from twinstamp.io.files import open_capture
from twinstamp.rules import Rule, RuleSet, read_classbench
from twinstamp_kernels import _cpu
from twinstamp_kernels.gpu.classifier import DeviceClassifier
from twinstamp_kernels.gpu.compact import TileSums
from twinstamp_kernels.gpu.device import DeviceFailure

from tests.conftest import captures
from tests.emulation.device import EmulatedDevice
from tests.gpu.test_window import mixed_frames
from tests.kernels.traffic import LINKTYPES
from tests.rules import model
from tests.rules.test_match import random_rule, to_rule

SECRET = Secret(bytes(range(32)))
MS = 1_000_000
LINK = bytes.fromhex("020000000002020000000001")

# Copies to several groups, drops, a group of its own for what no rule matches, conditions on every field.
RULES = RuleSet(
    (
        Rule(destination_port=(1000, 1001), action=("web", "archive")),
        Rule(destination_port=(1002, 1002), action=()),
        Rule(source_port=(1, 400), protocol=6, action=("archive",)),
        Rule(protocol=17, destination_port=(53, 1003), action=("web", "archive", "third")),
        Rule(vlan=5, action=("third",)),
        Rule(tcp_flags=(0x002, 0x002), action=("third", "web")),
        Rule(icmp=(0x0300, 0xFF00), action=("archive",)),
        Rule(protocol=1, icmp=(0x0800, 0xFF00), action=()),
    ),
    ("default",),
)
GROUPS = (
    Group("web", (Server("w1", 3), Server("w2"))),
    Group("archive", (Server("a"),)),
    Group("third", (Server("w2"), Server("t1"), Server("t2"))),
    Group("default", (Server("d1"), Server("d2"), Server("a", 2))),
)


def on_cpu(rules: RuleSet = RULES, groups: Any = GROUPS, **options: Any) -> Classifier:
    options = {"buckets": 256, "cache_entries": 1024, **options}
    return Classifier(rules, groups=groups, secret=SECRET, **options)


def on_device(
    device: Any, chunk: int, *arguments: Any, chunk_bytes: int = 1 << 20, **options: Any
) -> Classifier:
    classifier = on_cpu(*arguments, **options)
    classifier._native = DeviceClassifier(device, classifier._native, chunk=chunk, chunk_bytes=chunk_bytes)  # type: ignore[assignment]
    return classifier


def counts(classifier: Classifier) -> dict[str, Any]:
    """Without the cache's, of which a device has none."""
    return {name: n for name, n in classifier.counts().items() if not name.startswith("cache")}


def assert_same(got: Sequence[Any], want: Sequence[Any], names: Sequence[str]) -> None:
    for name, one, other in zip(names, got, want, strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert one.dtype == other.dtype, name
        np.testing.assert_array_equal(one, other, err_msg=name)


def assert_same_state(device: Classifier, cpu: Classifier) -> None:
    """What was let go, what is held, what was counted."""
    assert device.oldest_held == cpu.oldest_held
    while True:
        got, want = device.take_released(), cpu.take_released()
        if want is None:
            assert got is None
            break
        assert got is not None
        assert_same(
            got.batch.raw, want.batch.raw, ("data", "offset", "caplen", "length", "stamps", "port", "flags")
        )
        assert_same(
            [got.frame, *got.verdicts], [want.frame, *want.verdicts], ("frame", *want.verdicts._fields)
        )
    assert counts(device) == counts(cpu)


def judge_both(device: Classifier, cpu: Classifier, batch: FrameBatch, keep: Any = None) -> None:
    got, want = device.process(batch, keep), cpu.process(batch, keep)
    assert_same(got, want, want._fields)
    assert_same_state(device, cpu)


def parts(batch: FrameBatch, edges: Sequence[int]) -> list[FrameBatch]:
    n = len(batch)
    edges = sorted({0, n, *(edge for edge in edges if edge < n)})
    return [
        FrameBatch(
            (batch.data, *(np.asarray(batch._column(i))[low:high] for i in range(1, 7))),
            ports=batch.ports,
            first=batch.first + low,
        )
        for low, high in itertools.pairwise(edges)
    ]


def assert_equal(
    batch: FrameBatch,
    edges: Sequence[int] = (),
    *arguments: Any,
    chunk: int = 500,
    chunk_bytes: int = 1 << 20,
    device: EmulatedDevice | None = None,
    mask: Callable[[FrameBatch], Any] = lambda part: None,
    between: Callable[[int, Classifier], None] = lambda number, classifier: None,
    **options: Any,
) -> EmulatedDevice:
    device = device or EmulatedDevice(interval=0)
    cpu, gpu = (
        on_cpu(*arguments, **options),
        on_device(device, chunk, *arguments, chunk_bytes=chunk_bytes, **options),
    )
    for number, part in enumerate(parts(batch, edges)):
        between(number, cpu), between(number, gpu)
        judge_both(gpu, cpu, part, mask(part))
    cpu.flush(), gpu.flush()
    assert_same_state(gpu, cpu)
    gpu._native.close()  # type: ignore[attr-defined]
    return device


def icmp_error(p: model.Packet, cut: int = 1000) -> bytes:
    """An ICMP error of a router about a packet without VLAN tag."""
    quoted = model.build(replace(p, vlan=None))[14:][:cut]
    if p.family == 4:
        body = struct.pack("!BBHI", 3 + p.ident % 3, 1, 0, 0) + quoted
        head = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(body), 1, 0, 64, 1, 0, 0xC0000201, p.src % 2**32)
        return LINK + b"\x08\x00" + head + body
    body = struct.pack("!BBHI", 1, 1, 0, 0) + quoted
    head = struct.pack("!IHBB", 0x60000000, len(body), 58, 64)
    return LINK + b"\x86\xdd" + head + bytes(16) + (p.src % 2**128).to_bytes(16, "big") + body


def mix(seed: int, n: int, plain: Sequence[model.PlainRule] = (model.PlainRule(),)) -> FrameBatch:
    """Packets at the edges of the rules, few flows and many fragments in any order, ICMP errors about them,
    frames with flipped bits and frames cut short; stamps that now and then go back."""
    rng = random.Random(seed)
    frames: list[bytes] = []
    packets = model.derive(rng, list(plain), n)
    for p in packets:
        if rng.random() < 0.4:
            p = model.Packet(
                family=rng.choice([4, 6]),
                src=rng.randrange(3),
                dst=rng.randrange(3) + 8,
                proto=rng.choice([6, 17]),
                sport=rng.choice([7, 300, 5000]),
                dport=1000 + rng.randrange(6),
                ident=rng.randrange(8),
                vlan=rng.choice([None, None, 5]),
                fragment=rng.choice(["none", "first", "later", "later"]),
            )
        frame = model.build(p)
        if p.family and rng.random() < 0.15:
            frame = icmp_error(p, rng.choice([1000, 1000, 28, 27, 8]))
        if rng.random() < 0.1:
            broken = bytearray(frame)
            for _ in range(rng.choice([1, 4])):
                broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
            frame = bytes(broken)
        if rng.random() < 0.05:
            frame = frame[: rng.randrange(len(frame) + 1)]
        frames.append(frame)
    steps = [rng.choice([0, 0, MS // 20, MS, -MS // 2]) for _ in frames]
    if n > 500:
        steps[n // 2] = -5_000 * MS  # a clock was set
    return FrameBatch.from_frames(frames, timestamp_ns=np.cumsum(steps), first=1000)


def thirds(part: FrameBatch) -> Any:
    return (np.arange(part.first, part.first + len(part)) % 3 != 0).view(np.uint8)


def die_and_return(number: int, classifier: Classifier) -> None:
    if number == 1:
        classifier.set_states({"a": False, "w2": False})
    elif number == 2:
        classifier.set_states({"d1": False, "d2": False})
    elif number == 3:
        classifier.set_states({"a": True, "d1": True})


@pytest.mark.parametrize("hash_mode", ["flow", "ip"])
@pytest.mark.parametrize("layer", ["outer", "inner"])
def test_mixed_traffic(hash_mode, layer):
    batch = mix(1, 3000)
    options = {"layer": layer, "hash": hash_mode}
    assert_equal(batch, **options)
    assert_equal(batch, [1, 2, 700, 2500], chunk=64, between=die_and_return, mask=thirds, **options)
    assert_equal(batch, range(0, 3000, 101), chunk=3000, between=die_and_return, **options)


def test_every_outcome_is_met():
    """The mix means something only where everything that can happen to a frame does."""
    cpu = on_cpu()
    for number, part in enumerate(parts(mix(1, 3000), [1000, 2000])):
        die_and_return(number, cpu)
        cpu.process(part, thirds(part))
        while cpu.take_released():
            pass
    seen = counts(cpu)
    for name in ("skipped", "forwarded", "dropped", "no_server", "held"):
        assert seen[name][0] > 20, name
    for name in ("icmp_followed", "copies_without_server", "fragments_followed", "fragments_held_followed",
                 "fragments_held_expired", "fragments_clock_back"):  # fmt: skip
        assert seen[name], name
    assert all(packets > 20 for packets, _ in seen["servers"])


@pytest.mark.corpus
@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_corpus_captures(path):
    frames = 0
    for batch in open_capture(path):
        few = parts(batch, [min(len(batch), max(0, 3000 - frames))])[0]
        frames += len(few)
        layer, mode = [("outer", "flow"), ("inner", "flow"), ("inner", "ip")][len(path.name) % 3]
        assert_equal(few, [len(few) // 3], chunk=900, layer=layer, hash=mode)
        assert_equal(few, chunk=9000, layer="inner", mask=thirds)
        batch.release()
        if frames >= 3000:
            break


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["acl1_1k", "acl1_10k", "fw1_1k", "fw1_10k", "ipc1_1k"])
def test_corpus_rules(corpus, name):
    path = corpus / "rules" / f"{name}.rules"
    plain, rules = model.parse_plain(path), read_classbench(path)
    batch = mix(5, 2500, plain)
    hit = np.unique(on_cpu(rules, same_servers(rules, numbered_servers("4"))).process(batch).rule)
    assert len(hit) > 300 and hit[0] == -1
    assert_equal(batch, [100], rules, same_servers(rules, numbered_servers("4")), chunk=2000)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    count=st.sampled_from([0, 1, 2, 63, 64, 65, 130, 700]),
    n=st.sampled_from([0, 1, 31, 257, 600]),
    edges=st.lists(st.integers(0, 600), max_size=4),
    chunk=st.sampled_from([1, 7, 256, 600]),
    interval=st.sampled_from([0, 5, 60]),
    hash_mode=st.sampled_from(["flow", "flow", "ip"]),
    follow=st.booleans(),
    hold_ns=st.sampled_from([0, 10 * MS]),
    entries=st.sampled_from([3, 65536]),
)
def test_random_rules_cuts_and_schedules(
    seed, count, n, edges, chunk, interval, hash_mode, follow, hold_ns, entries
):
    rng = random.Random(seed)
    plain = [random_rule(rng) for _ in range(count)]
    if count > 100:
        plain = [r for r in plain if r.family or r.proto or r.vlan is not None] or plain
    actions = (None, ("web",), ("web", "archive"), ())
    rules = RuleSet(tuple(replace(to_rule(r), action=actions[i % 4]) for i, r in enumerate(plain)))
    batch = mix(seed, n, plain or [model.PlainRule()])
    assert_equal(
        batch, edges, rules, same_servers(rules, numbered_servers("3")), chunk=max(chunk, n // 20),
        device=EmulatedDevice(seed=seed, interval=interval), hash=hash_mode, follow_icmp=follow,
        fragments=FragmentLimits(hold_ns=hold_ns, entries=entries),
    )  # fmt: skip


def test_headers_of_all_kinds_of_links():
    data, offset, caplen, stamps, port, linktypes = mixed_frames(3, 1000)
    n = len(offset)
    batch = FrameBatch(
        (data, offset, caplen, caplen, stamps, port, np.zeros(n, np.uint16)),
        ports=[Port(str(number), int(linktype)) for number, linktype in enumerate(linktypes)],
    )
    assert set(linktypes) >= set(LINKTYPES.values())
    for layer in ("outer", "inner"):
        assert_equal(batch, [1, 500], layer=layer)


def test_frames_strewn_over_a_large_buffer():
    """Their bytes are gathered, and no frame depends on what lies around it."""
    tight = mix(2, 400)
    rng = np.random.default_rng(2)
    places = (rng.permutation(400) * 5000 + 77).astype(np.uint64)
    data = rng.integers(0, 256, 400 * 5000 + 5000, dtype=np.uint8)
    for i, place in enumerate(places):
        data[int(place) : int(place) + int(tight.caplen[i])] = np.frombuffer(tight.frame(i), np.uint8)
    device = EmulatedDevice(interval=0)
    gpu, cpu = on_device(device, 150), on_cpu()
    strewn = FrameBatch((data, places, *tight.raw[2:]), ports=tight.ports, first=tight.first)
    judge_both(gpu, cpu, strewn)
    assert gpu._native._staging.uploaded_bytes < 200_000  # type: ignore[attr-defined]
    dense, got = on_cpu().process(tight), on_cpu().process(strewn)
    assert_same(got, dense, dense._fields)


def test_large_frames_many_servers_many_groups():
    """Bytes beyond 16 bits, servers beyond those tallied in shared memory, actions of many groups."""
    big = [model.build(model.Packet(dport=1000)) + bytes(size) for size in (70_000, 65_536, 200_000)] * 5
    assert_equal(FrameBatch.from_frames(big), chunk=4)
    servers = tuple(Server(f"s{i}") for i in range(1500))
    batch = mix(4, 2500)
    assert_equal(batch, [], RuleSet(), (Group("default", servers),), chunk=2500, buckets=4096)
    names = tuple(f"g{i}" for i in range(40))
    rules = RuleSet((Rule(protocol=17, action=names),), names[:1])
    groups = tuple(Group(name, servers[i : i + 3]) for i, name in enumerate(names))
    assert_equal(batch, [5], rules, groups, chunk=2500)
    assert_equal(batch, [5], RuleSet(), (), chunk=2500)  # no servers at all


def test_bytes_of_one_server_beyond_32_bits_within_a_tile():
    names = tuple(f"g{i}" for i in range(40))
    groups = tuple(Group(name, (Server("only"),)) for name in names)
    frame = model.build(model.Packet()) + bytes(60_000)
    n = 2048
    # The same bytes for all of them.
    sizes, zeros = np.full(n, len(frame), np.uint32), np.zeros(n, np.int64)
    batch = FrameBatch(
        (np.frombuffer(frame, np.uint8), zeros.view(np.uint64), sizes, sizes, zeros,
         np.zeros(n, np.uint16), np.zeros(n, np.uint16)),
        ports=[Port("", 1)],
    )  # fmt: skip
    assert 40 * n * len(frame) > 1 << 32
    assert_equal(batch, [], RuleSet((), names), groups, chunk=n, chunk_bytes=1 << 30)


def test_frames_without_bytes_and_batches_without_frames():
    assert_equal(FrameBatch.from_frames([b""] * 300), [7], chunk=100)
    assert_equal(FrameBatch.from_frames([]))


def test_a_bad_batch_is_refused_whole_in_the_words_of_the_cpu():
    batch = mix(6, 300)
    device = EmulatedDevice(interval=0)
    cpu, gpu = on_cpu(), on_device(device, 100)
    judge_both(gpu, cpu, batch)
    before = counts(gpu)

    def with_column(number: int, values: Any) -> FrameBatch:
        raw = [*batch.raw]
        raw[number] = values
        return FrameBatch(raw, ports=batch.ports, first=batch.first)

    def changed(number: int, value: int) -> FrameBatch:
        values = np.array(batch.raw[number])
        values[290] = value
        return with_column(number, values)

    for bad in (
        changed(1, len(batch.data)),
        changed(1, 2**64 - 1),
        changed(2, 2**31),
        changed(5, 1),
        *(with_column(number, batch.raw[number][1:]) for number in (1, 2, 3, 4, 5, 6)),
    ):
        with pytest.raises(InputError) as want:
            cpu.process(bad)
        operations = len(device.operations)
        with pytest.raises(InputError) as got:
            gpu.process(bad)
        assert str(got.value) == str(want.value)
        assert counts(gpu) == before and len(device.operations) == operations
    with pytest.raises(InputError, match="differ in length"):
        gpu.process(batch, bytes(299))
    judge_both(gpu, cpu, batch)


def test_results_outlive_later_batches_and_their_memory_is_used_again():
    device = EmulatedDevice(interval=0)
    gpu, cpu = on_device(device, 500), on_cpu()
    batches = [mix(seed, 200 + 10 * seed) for seed in range(9)]
    got = [gpu.process(batch) for batch in batches]
    for batch, verdicts in zip(batches, got, strict=True):
        want = cpu.process(batch)
        assert_same(verdicts, want, want._fields)
    del got, verdicts
    for batch in batches:
        gpu.process(batch)
    pinned = device.operations.count("pinned")
    for batch in batches:
        gpu.process(batch)
    assert device.operations.count("pinned") == pinned
    rule = gpu.process(batches[0]).rule
    gpu._native.close()  # type: ignore[attr-defined]
    device.close()
    assert len(bytes(rule)) == 4 * len(batches[0])


def run_with_failure(fail_at: int | None, seed: int) -> tuple[int, int, int]:
    """Three batches, the device failing at one operation; where it does, the CPU goes on alone. Says how many
    operations there were, and how many batches the device and the CPU judged."""
    device = EmulatedDevice(seed=seed, interval=0, fail_at=fail_at)
    cpu, gpu = on_cpu(), on_cpu()
    host = gpu._native
    judged = [0, 0]
    with contextlib.suppress(DeviceFailure):
        gpu._native = DeviceClassifier(device, host, chunk=50)  # type: ignore[assignment]
    for number, part in enumerate(parts(mix(7, 240), [80, 160])):
        for classifier in (cpu, gpu):
            die_and_return(number, classifier)
        want = cpu.process(part, thirds(part))
        before = counts(gpu)
        try:
            got = gpu.process(part, thirds(part))
            judged[0] += gpu._native is not host
        except DeviceFailure:
            assert counts(gpu) == before
            gpu._native.close()  # type: ignore[attr-defined]
            gpu._native = host
            got = gpu.process(part, thirds(part))
        judged[1] += gpu._native is host
        assert_same(got, want, want._fields)
        assert_same_state(gpu, cpu)
    cpu.flush(), gpu.flush()
    assert_same_state(gpu, cpu)
    if gpu._native is not host:
        gpu._native.close()  # type: ignore[attr-defined]
        assert device.living == 0 or device.failed
    return len(device.operations), *judged


def test_a_device_may_fail_at_every_operation():
    operations, on_the_device, _ = run_with_failure(None, 0)
    assert on_the_device == 3 and operations > 100
    outcomes = {run_with_failure(fail_at, fail_at)[1:] for fail_at in range(operations)}
    # At each stage; the last kind failed where nothing asks the device any more.
    assert outcomes == {(0, 3), (1, 2), (2, 1), (3, 0)}


def test_a_device_without_room_is_left_as_it_was():
    """At any allocation: the CPU goes on, nothing stays behind, and nothing that was started uses it."""
    batch = mix(7, 400)
    for no_room_at in itertools.count():
        device = EmulatedDevice(seed=no_room_at, interval=0, no_room_at=no_room_at)
        cpu = on_cpu()
        gpu = on_cpu(backend="gpu", device=device)
        for part in parts(batch, [30, 150]):
            judge_both(gpu, cpu, part, thirds(part))
        gpu.close()
        device.drain()
        assert device.living == 0, no_room_at
        device.close()
        if not gpu.backend()["events"]:
            break
    with pytest.raises(RuntimeError, match="closed"):
        gpu.process(batch)
    assert no_room_at > 10


def test_after_a_late_failure_the_batch_is_completed_and_the_next_one_refused():
    device = EmulatedDevice(interval=0)
    cpu, gpu = on_cpu(), on_device(device, 100)
    ends = []
    for _ in range(2):
        judge_both(gpu, cpu, mix(8, 250))
        ends.append(len(device.operations))
    # The third batch takes the same operations as the second; its last launch is write_copies.
    second = device.operations[ends[0] :]
    device.fail_at = ends[1] + len(second) - 1 - second[::-1].index("launch")
    judge_both(gpu, cpu, mix(8, 250))
    assert device.failed
    with pytest.raises(DeviceFailure):
        gpu.process(mix(10, 250))
    assert_same_state(gpu, cpu)


@pytest.mark.parametrize("n", [1, 255, 2048, 2049, 7000])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_marked_frames_are_listed_in_order(n, share):
    """count_marked, scan_sums and write_marked: also what picks the survivors of a mask."""
    rng = np.random.default_rng(n)
    marks = np.where(rng.random(n) < share, rng.integers(1, 256, n), 0).astype(np.uint8)
    device = EmulatedDevice(seed=n)
    stream, tiles = device.stream(), TileSums(device)
    mark, numbers = device.allocate(n), device.allocate(4 * n)
    device.upload(mark, marks, stream)
    listed = np.empty(tiles.list_marked(mark, n, numbers, stream), np.uint32)
    device.download(listed, numbers, stream)
    device.synchronize(device.record(stream))
    np.testing.assert_array_equal(listed, np.flatnonzero(marks))
    tiles.close()
    assert device.living == 2


def test_sums_of_more_tiles_than_a_block_has_threads():
    device = EmulatedDevice(seed=1)
    stream = device.stream()
    values = np.random.default_rng(1).integers(0, 1 << 23, 1000).astype(np.uint64)
    sums, total = device.allocate(8000), device.allocate(8)
    device.upload(sums, values, stream)
    device.launch("scan_sums", 1, (sums, 1000, total), stream)
    got, all_of_it = np.empty(1000, np.uint64), np.empty(1, np.uint64)
    device.download(got, sums, stream)
    device.download(all_of_it, total, stream)
    device.synchronize(device.record(stream))
    np.testing.assert_array_equal(got, np.cumsum(values) - values)
    assert all_of_it[0] == values.sum()


def test_the_host_refuses_lists_and_verdicts_that_do_not_fit():
    cpu = on_cpu()._native
    batch = mix(1, 10)
    columns = (*batch.raw, np.ones(1, np.uint16), 0)
    for listed in ([10], [3, 3], [5, 4]):
        with pytest.raises(ValueError, match="ascend"):
            cpu.finish(*columns, np.array(listed, np.uint32))
    rule, hashes, fate = np.zeros(10, np.int32), np.zeros(10, np.uint64), np.ones(10, np.uint8)
    for bad in ((rule + 8, hashes, fate), (rule - 2, hashes, fate), (rule, hashes, fate + 4)):
        with pytest.raises(ValueError, match="out of range"):
            cpu.share(batch.caplen, *bad)
    with pytest.raises(ValueError, match="differ in length"):
        cpu.share(batch.caplen, rule[1:], hashes, fate)
    with pytest.raises(ValueError, match="do not fit"):
        cpu.add_counts(np.zeros(_cpu.DEVICE_COUNTS - 1, np.uint64))
    assert _cpu.DEVICE_COUNTS == 12
