# SPDX-License-Identifier: Apache-2.0
"""Which packets make a train: sessions, ports, reflected packets, several captures, live batches."""

from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from twinstamp import stamp
from twinstamp.cli import main
from twinstamp.errors import ConfigError
from twinstamp.frames import ClockState, FrameBatch
from twinstamp.owd import Collector, report_captures, report_of
from twinstamp.owd.arrivals import read_clock_comment
from twinstamp.owd.page import page
from twinstamp.train import Constant, Fixed, Train, to_toml

from tests.owd.world import T0_NS, ipv4, stamp_bytes, world, write


def batch(frames, times=None) -> FrameBatch:
    return FrameBatch.from_frames(
        frames, timestamp_ns=times or [T0_NS + 1000 * i for i in range(len(frames))]
    )


def packet(number: int, *, session: int = 7, ports=(5000, 862), ends=("10.0.0.1", "10.0.0.2")) -> bytes:
    body = stamp_bytes(number, T0_NS + 1000 * number - 500, 0x8093, session)
    return ipv4(*ends, 250, number, body, ports)


def keys(frames) -> list[tuple[str, int, int, int]]:
    collector = Collector()
    collector.add(batch(frames))
    found = [(t.key.source, t.key.source_port, t.key.session, len(t)) for t in collector.arrivals()]
    return sorted(found)


def test_a_session_may_sweep_its_source_ports():
    assert keys([packet(n, ports=(5000 + n, 862)) for n in range(5)]) == [("10.0.0.1", -1, 7, 5)]


def test_without_a_session_the_ports_tell():
    frames = [packet(n // 2, session=0, ports=(5000 + n % 2, 862)) for n in range(6)]
    assert keys(frames) == [("10.0.0.1", 5000, 0, 3), ("10.0.0.1", 5001, 0, 3)]


def test_many_trains_in_one_batch():
    frames = [packet(n // 12, session=1 + n % 3, ends=(f"10.0.{n % 4}.1", "10.9.9.9")) for n in range(120)]
    assert keys(frames) == [(f"10.0.{a}.1", -1, s, 10) for a in range(4) for s in range(1, 4)]


def reflected(number: int, sequence: int, t1: int, t2: int, t3: int, *, error=0x8093) -> bytes:
    ntp = [int(stamp.ntp_from_utc_ns(t)) for t in (t3, t2, t1)]
    body = struct.pack("!IQHHQIQHHB3x", number, ntp[0], error, 7, ntp[1], sequence, ntp[2], 0x8005, 0, 249)
    return ipv4("10.0.0.2", "10.0.0.1", 251, number, body, (862, 5000))


def test_reflected_packets_tell_both_ways():
    """Stateful: packets 3 and 4 were lost on the way there, answers 5 and 9 on the way back."""
    frames, times, own = [], [], 0
    for n in range(20):
        if n in (3, 4):
            continue
        t1 = T0_NS + n * 1_000_000
        if own not in (5, 9):
            frames.append(reflected(own, n, t1, t1 + 300 + n, t1 + 5000))
            times.append(t1 + 5000 + 900 - n)
        own += 1
    collector = Collector()
    collector.add(batch(frames, times))
    report = report_of(collector.arrivals())
    ways = {train.key.way: train for train in report.trains}
    there, back = ways["there"], ways["back"]
    assert (there.key.source, there.key.destination) == ("10.0.0.1", "10.0.0.2")
    assert (back.key.source, back.key.destination) == ("10.0.0.2", "10.0.0.1")
    assert there.judged.delay_ns.tolist() == [300 + n for n in range(20) if n not in (3, 4, 7, 11)]
    assert back.judged.delay_ns.tolist() == [900 - n for n in range(20) if n not in (3, 4, 7, 11)]
    # The way there is seen through answers: round trip. The reflector's own numbers tell the way back.
    assert (there.loss.lost, back.loss.lost) == (4, 2)
    assert there.summary()["loss"]["round_trip"] and not back.summary()["loss"]["round_trip"]
    assert (there.hops, back.hops) == ({6: 16}, {4: 16})
    # Way there: the sender's 2 ns and the reflector's 35; back: the reflector's and a capture of no bound.
    assert (there.bound.maximum, back.bound.maximum, back.flagged["no_bound"]) == (2 + 35 + 1, None, 16)
    (pair,) = report.pairs
    assert report.trains[pair.forward] is there


def test_reflected_packets_with_bad_stamps():
    good = reflected(0, 0, T0_NS, T0_NS + 1, T0_NS + 2)
    no_departure = bytearray(good)
    no_departure[42 + 28 : 42 + 36] = bytes(8)
    collector = Collector()
    collector.add(batch([good, bytes(no_departure)]))
    assert (collector.refused["bad_timestamp"], [len(t) for t in collector.arrivals()]) == (1, [1, 1])


def test_a_train_goes_on_in_the_next_capture(tmp_path):
    made = world("constant", 100)
    names = [
        write(tmp_path / "1.pcapng", made.arrived[:60]), write(tmp_path / "2.pcapng", made.arrived[60:])
    ]  # fmt: skip
    (train,) = report_captures(names).trains
    assert (train.loss.sent, train.loss.lost, train.judged.arrivals.backwards) == (100, 0, 0)
    (train,) = report_captures(names[::-1]).trains
    assert (train.loss.lost, train.reordering.reordered, train.judged.arrivals.backwards) == (0, 0, 1)


def test_the_next_capture_begins_without_a_clock(tmp_path):
    made = world("constant", 20)
    first = write(tmp_path / "1.pcapng", made.arrived[:10])
    second = write(tmp_path / "2.pcapng", made.arrived[10:], clocks=[])
    assert report_captures([first, second]).trains[0].flagged["no_bound"] == 10


def test_live_batches_bring_their_clock():
    live = batch([packet(0)])
    live.clock = ClockState("tai", "card", True, 9, 3)
    live._columns.clear()
    collector = Collector()
    collector.add(live)
    (train,) = collector.arrivals()
    # TAI stamps are 37 s ahead of the packets' UTC.
    assert (train.received_ns - train.sent_ns).tolist() == [500 - 37 * 10**9]
    assert train.clocks[train.clock[0]] == ("card", True, 9, 3, False)


@pytest.mark.parametrize("text,want", [
    ("clock=card timescale=utc locked=yes bound_ns=34 epoch=2", ClockState("utc", "card", True, 34, 2)),
    ("x clock=nic timescale=utc locked=no bound_ns=unknown epoch=0 y",
     ClockState("utc", "nic", False, -1, 0)),
    ("clock=card timescale=utc locked=maybe bound_ns=34 epoch=2", None),
    ("clock=card timescale=utc locked=yes bound_ns=-5 epoch=2", None),
    ("clock=card", None),
])  # fmt: skip
def test_clock_comments(text: str, want):
    assert read_clock_comment(text) == want


def test_a_trains_file_gives_the_schedule(tmp_path):
    train = Train(
        packets=50, gap=Constant("1us"), size=Fixed(90), source="10.0.0.1", destination="10.0.0.2",
        source_mac="02:00:00:00:00:01", destination_mac="02:00:00:00:00:02", session=7,
    )  # fmt: skip
    late = [0, 3, 8, 5, 1] * 10
    arrived = [
        (n, T0_NS + 1000 * n + late[n], T0_NS + 1000 * n + 900_000) for n in range(50) if n not in (0, 10)
    ]
    schedule = {("10.0.0.1", "10.0.0.2", 7): train.schedule().ns()}
    found = report_captures([write(tmp_path / "rx.pcapng", arrived)], schedules=schedule)
    (one,) = found.trains
    off = one.judged.arrivals.sent_ns - one.schedule_ns[one.judged.arrivals.sequence]
    assert off.tolist() == [late[n] for n, _, _ in arrived]
    assert "Schedule against departure" in page(found)
    # The file says how many were sent: 0 is missing, too, and the capture went on long enough.
    end = write(tmp_path / "end.pcapng", [(0, T0_NS + 10**12, T0_NS + 10**12 + 5)], session=9)
    one = report_captures([str(tmp_path / "rx.pcapng"), end], schedules=schedule).trains[0]
    assert (one.loss.known, one.loss.sent, one.loss.lost, one.loss.ranges.tolist()) == (
        True, 50, 2, [[0, 0], [10, 10]],
    )  # fmt: skip
    (tmp_path / "train.toml").write_text(to_toml(train))
    arguments = ["owd", "report", str(tmp_path / "rx.pcapng"), end, "--train", str(tmp_path / "train.toml"),
                 "--json", str(tmp_path / "out.json"), "-q"]  # fmt: skip
    assert main(arguments) == 0
    assert json.loads((tmp_path / "out.json").read_text())["trains"][0]["loss"]["lost"] == 2


@pytest.mark.parametrize("options", [{"ports": (0,)}, {"ports": (70_000,)}, {"receive_bound_ns": -2}])
def test_bad_options(options):
    with pytest.raises(ConfigError):
        Collector(**options)


def test_garbage_is_counted_and_makes_no_train():
    rng = np.random.default_rng(3)
    collector = Collector(ports=None)
    collector.add(batch([rng.bytes(int(n)) for n in rng.integers(0, 200, 500)]))
    assert (collector.arrivals(), sum(collector.refused.values())) == ([], 500)
