# SPDX-License-Identifier: Apache-2.0
"""Frames on the simulated wires against what the driver hands out; stamps against the simulation's truth."""

from __future__ import annotations

import random

import numpy as np
import pytest
from twinstamp.card.sim import PORTS, frames
from twinstamp.io import open_capture

from tests.card.sending import assert_within, collect, fcs, send_one, stamp_errors_ns, stamp_limits_ns
from tests.conftest import captures

OFFSETS_PPB = (100_000, -100_000, 37_000, -3_000)


def test_one_frame_end_to_end(make_card):
    simulated, card = make_card()
    card.start()
    content = bytes(range(60))
    simulated.send(2, frames([content]))
    got = collect(card)
    assert [len(port.frames) for port in got] == [0, 0, 1, 0]
    assert got[2].frames == [content]
    assert got[2].length == [60]
    (error,) = stamp_errors_ns(got[2].stamp_q32, simulated.truth(2))
    constant = card.read("port[2].rx_constant") * 1e9 / 2**32
    assert_within(np.array([error - constant]))
    corrected = got[2].stamp_q32[0] - card.read("port[2].rx_constant")
    assert got[2].timestamp_ns == [(corrected * 10**9 + 2**31) >> 32]


@pytest.mark.parametrize("block_log2", [14, 20])
def test_line_rate_of_minimum_frames_loses_nothing(make_card, block_log2):
    """Four ports back to back, clocks up to 100 ppm off both ways."""
    simulated, card = make_card(block_log2=block_log2)
    for port, ppb in enumerate(OFFSETS_PPB):
        simulated.set_clock(f"rx{port}", ppb=ppb)
    card.start()
    n = 5000
    rng = np.random.default_rng(7)
    sent = [rng.integers(0, 256, (n, 60), dtype=np.uint8) for _ in range(PORTS)]
    for port in range(PORTS):
        simulated.send(port, frames([row.tobytes() for row in sent[port]]))
    got: list[list[np.ndarray]] = [[] for _ in range(PORTS)]
    stamps: list[list[np.ndarray]] = [[] for _ in range(PORTS)]
    sequence: list[list[np.ndarray]] = [[] for _ in range(PORTS)]
    for batch in card.receive(2e-3):
        for port in range(PORTS):
            here = np.flatnonzero(batch.port == port)
            at = batch.offset[here].astype(np.int64)[:, None] + np.arange(60)
            got[port].append(batch.data[at])
            stamps[port].append(batch.stamp_q32[here])
            sequence[port].append(batch.sequence[here])
    counters = card.counters()
    assert card.drops() == (0, 0, 0, 0)
    for port in range(PORTS):
        np.testing.assert_array_equal(np.concatenate(got[port]), sent[port])
        np.testing.assert_array_equal(np.concatenate(sequence[port]), np.arange(n))
        stamp = np.concatenate(stamps[port])
        assert (np.diff(stamp.astype(np.int64)) > 0).all()
        errors = stamp_errors_ns(stamp.tolist(), simulated.truth(port))
        constant = card.read(f"port[{port}].rx_constant") * 1e9 / 2**32
        assert_within(errors - constant)
        assert counters[port]["good"] == counters[port]["stored"] == counters[port]["size_64"] == n
        assert counters[port]["octets_good"] == 64 * n


def test_stamp_error_over_twenty_beats(make_card):
    """At 10 ppm a beat is 100,000 cycles: the error is uniform over 8 ns."""
    simulated, card = make_card(block_log2=20)
    simulated.set_clock("rx0", ppb=10_000)
    simulated.set_clock("rx1", ppb=-50_000)
    card.start()
    n = 23_900  # 2.0 M cycles: 20 beats at 10 ppm, 100 at 50
    content = [bytes(range(60))] * n
    simulated.send(0, frames(content))
    simulated.send(1, frames(content))
    stamps: list[list[int]] = [[], []]
    for batch in card.receive(2e-3):
        for port in (0, 1):
            stamps[port] += batch.stamp_q32[batch.port == port].tolist()
    for port in (0, 1):
        errors = stamp_errors_ns(stamps[port], simulated.truth(port))
        constant = card.read(f"port[{port}].rx_constant") * 1e9 / 2**32
        assert len(errors) == n
        assert abs(errors.mean() - constant) < 0.1
        assert 2.2 < errors.std() <= 2.4
        assert_within(errors - constant)
        # And no less: the bound is what it is said to be.
        least, most = stamp_limits_ns()
        assert errors.min() - constant < least + 0.1 and errors.max() - constant > most - 0.1


@pytest.mark.parametrize("window_ns", [0.0, 0.5])
def test_undecided_window_is_all_the_jitter(make_card, window_ns):
    """The edge's jitter is the first flip-flop's window and nothing else, whatever it is."""
    simulated, card = make_card(block_log2=20)
    simulated.set_undecided_window(round(window_ns * 1e6))
    simulated.set_clock("rx2", ppb=-40_000)
    card.start()
    n = 6000  # 20 beats
    simulated.send(2, frames([bytes(60)] * n))
    stamps: list[int] = []
    for batch in card.receive(2e-3):
        stamps += batch.stamp_q32.tolist()
    errors = stamp_errors_ns(stamps, simulated.truth(2)) - card.read("port[2].rx_constant") * 1e9 / 2**32
    assert len(errors) == n
    assert_within(errors, window_ns=window_ns)
    least, most = stamp_limits_ns(window_ns)
    assert errors.min() < least + 0.1 and errors.max() > most - 0.1
    # Half of what comes within the window is a cycle late.
    assert abs(errors.mean() - window_ns / 2) < 0.05


@pytest.mark.parametrize("first_byte", [False, True])
def test_reference_point(make_card, first_byte):
    simulated, card = make_card()
    card.start(first_byte=first_byte)
    simulated.send(0, frames([bytes(60)] * 50, gap=100))
    got = collect(card)[0]
    errors = stamp_errors_ns(got.stamp_q32, simulated.truth(0), "first" if first_byte else "sfd")
    constant = card.read("port[0].rx_constant") * 1e9 / 2**32
    assert len(errors) == 50
    assert_within(errors - constant)
    assert {bool(flags & 0x20) for flags in got.record_flags} == {first_byte}


def test_random_sizes_and_gaps(make_card):
    simulated, card = make_card(seed=5)
    simulated.set_memory_stall(0.2, latency=(1, 60))
    for port, ppb in enumerate(OFFSETS_PPB):
        simulated.set_clock(f"rx{port}", ppb=ppb)
    card.start()
    rng = random.Random(5)
    sent = []
    for port in range(PORTS):
        sizes = [
            rng.choice((60, 61, 62, 63, 64, 65, 71, 72, 73, 1514, rng.randint(60, 2000))) for _ in range(300)
        ]
        sizes.insert(150, 9014)
        sent.append([rng.randbytes(size) for size in sizes])
        simulated.send(port, frames(sent[port], gap=[rng.choice((1, 8, 12, 12, 50, 3000)) for _ in sizes]))
    got = collect(card)
    for port in range(PORTS):
        assert got[port].frames == sent[port]
        assert got[port].sequence == list(range(301))


@pytest.mark.corpus
@pytest.mark.parametrize("path", captures()[:18], ids=lambda path: path.name)
def test_real_captures_come_out_byte_for_byte(make_card, path):
    """Ethernet frames of 60 to 9014 bytes, at most 150 a capture, gaps closed up; FCS by zlib."""
    contents = []
    with open_capture(path) as reader:
        for batch in reader:
            with batch:
                for i in range(len(batch)):
                    ethernet = batch.ports[int(batch.port[i])].linktype == 1
                    if ethernet and 60 <= batch.caplen[i] <= 9014 and batch.caplen[i] == batch.length[i]:
                        contents.append(batch.frame(i))
    contents = contents[:150]
    if not contents:
        return  # another link type only: nothing that a MAC could send
    simulated, card = make_card(block_log2=17)
    card.start()
    for port in range(PORTS):
        simulated.send(port, frames([c + fcs(c) for c in contents[port::PORTS]], add_fcs=False))
    got = collect(card)
    counters = card.counters()
    for port in range(PORTS):
        assert got[port].frames == contents[port::PORTS]
        assert counters[port]["good"] == len(contents[port::PORTS])
        assert counters[port]["octets_good"] == sum(len(c) + 4 for c in contents[port::PORTS])


def test_bad_frames_are_counted_and_kept_only_when_asked(make_card):
    expected = {
        "good": 4, "fcs_errors": 2, "undersize": 1, "fragments": 2, "oversize": 1, "jabbers": 1, "no_sfd": 1,
        "preamble_errors": 1, "broadcast": 1, "multicast": 2, "tagged": 1, "pause": 1, "symbol_errors": 1,
    }  # fmt: skip

    def put(simulated):
        body = bytes.fromhex("02000000000102000000000208004500") + bytes(44)
        send_one(simulated, 0, body)
        send_one(simulated, 0, b"\xff" * 6 + body[6:])
        send_one(simulated, 0, b"\x01" + body[1:12] + bytes.fromhex("810000050800") + bytes(1500))  # + tag
        send_one(simulated, 0, bytes.fromhex("0180c2000001020000000002880800010005") + bytes(42))  # PAUSE
        send_one(simulated, 0, body, damage=1)
        send_one(simulated, 0, body, error_at=20)
        send_one(simulated, 0, body[:40])
        send_one(simulated, 0, body[:40], damage=0x80)
        send_one(simulated, 0, b"", flags=0)  # an SFD and nothing behind it
        send_one(simulated, 0, bytes(1519))
        send_one(simulated, 0, bytes(1600), damage=4)
        send_one(simulated, 0, b"", flags=2)  # a preamble only
        send_one(simulated, 0, b"\x12\x34\x55\xd5" + bytes(70), flags=2)  # no preamble: noise

    simulated, card = make_card()
    card.start(longest=1518)
    put(simulated)
    got = collect(card)[0]
    assert len(got.frames) == 4 and got.record_flags == [0, 0, 0, 0]
    counters = card.counters()[0]
    assert {name: counters[name] for name in expected} == expected
    assert counters["stored"] == 4 and counters["dropped"] == 0 and counters["not_wanted"] == 7
    assert counters["octets_bad"] == 64 + 64 + 44 + 44 + 0 + 1523 + 1604
    card.close()

    simulated, card = make_card()
    card.start(longest=1518, keep_bad=True, keep_runt=True, keep_giant=True)
    put(simulated)
    got = collect(card)[0]
    assert got.record_flags == [0, 0, 0, 0, 1, 2, 4, 5, 5, 8, 9]
    assert [len(frame) for frame in got.frames] == [60, 60, 1518, 60, 60, 60, 40, 40, 0, 1519, 1600]


def test_vlan_tags_let_longer_frames_pass(make_card):
    simulated, card = make_card()
    card.start(longest=1518)
    macs = bytes(12)
    tags = bytes.fromhex("88a80001"), bytes.fromhex("81000002")
    plain = macs + b"\x08\x00" + bytes(1500)
    single = macs + tags[1] + b"\x08\x00" + bytes(1500)
    double = macs + tags[0] + tags[1] + b"\x08\x00" + bytes(1500)
    for content in (plain, single, double):
        send_one(simulated, 1, content)
        send_one(simulated, 1, content + b"\0")  # one byte too long
    got = collect(card)[1]
    assert got.frames == [plain, single, double]
    assert card.counters()[1]["oversize"] == 3


def test_frames_cut_short_and_back_to_back_carriers(make_card):
    """Each carrier event is counted once, whatever a fuzzer puts on the wire."""
    simulated, card = make_card(seed=11)
    card.start(keep_bad=True, keep_runt=True)
    rng = random.Random(11)
    n = 2000
    for _ in range(n):
        kind = rng.randrange(4)
        content = rng.randbytes(rng.choice((0, 1, 2, 3, 4, 5, 11, 60, 100)))
        flags = (1, 0, 2, 3)[kind]
        preamble = rng.choice((0, 1, 7)) if kind < 2 or content else 2
        send_one(simulated, 3, content, flags=flags, gap=rng.choice((1, 2, 12)), preamble=preamble,
                 damage=rng.choice((0, 0, 255)))  # fmt: skip
    got = collect(card)[3]
    counters = card.counters()[3]
    carriers = sum(
        counters[name]
        for name in ("good", "fcs_errors", "undersize", "fragments", "oversize", "jabbers", "no_sfd",
                     "preamble_errors")
    )  # fmt: skip
    assert carriers == n
    assert counters["stored"] == len(got.frames) == sum(
        counters[name] for name in ("good", "fcs_errors", "undersize", "fragments")
    )  # fmt: skip
    assert got.sequence == list(range(len(got.frames)))
    assert card.fields("port[3].rx_status")["overflow"] == 0
    assert (np.diff(got.stamp_q32) > 0).all()
