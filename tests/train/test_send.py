# SPDX-License-Identifier: Apache-2.0
"""Trains out of the simulated card: true departures on the wire, bytes, missed slots, refusals."""

from __future__ import annotations

import random
from fractions import Fraction

import numpy as np
import pytest
from scapy.contrib.stamp import STAMPSessionSenderTestUnauthenticated
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from twinstamp import stamp
from twinstamp.card import Card
from twinstamp.card.sim import SimulatedCard
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.leap import UtcOffset
from twinstamp.train import (
    Chirp,
    Choice,
    Constant,
    Fixed,
    GapList,
    Poisson,
    SizeList,
    Train,
    Uniform,
    Vlan,
)

from tests.train.made import ADDRESSES, ADDRESSES6, Q64, departures_q64, make, some_train

CABLE_NS = 100
CYCLE_Q64 = Fraction(8, 10**9) * Q64  # 8 ns
DUST = Q64 * 10**-12  # interpolation and the cable's rounding


@pytest.fixture
def world():
    """A card whose port p is joined to port (p + 1) mod 4, locked within 34 ns, receiving."""
    simulated = SimulatedCard()
    card = Card(simulated, block_log2=18)
    for port in range(4):
        simulated.connect(port, simulated, (port + 1) % 4, delay_ns=CABLE_NS)
    card.write("clock.bound", 34)
    card.set_utc_offset(UtcOffset(37, True))
    card.write_fields("clock.control", locked=1)
    card.start()
    world = World(simulated, card)
    yield world
    # A sender before those that it feeds.
    card.close()
    for other in world.others:
        other.close()


class World:
    def __init__(self, simulated: SimulatedCard, card: Card) -> None:
        self.simulated = simulated
        self.card = card
        self.others: list[Card] = []
        self.frames: list[list[bytes]] = [[] for _ in range(4)]  # by sending port
        self.stamps: list[list[int]] = [[] for _ in range(4)]

    def take(self, batch) -> None:
        for i, port in enumerate(batch.port.tolist()):
            self.frames[port - 1].append(batch.frame(i))
            self.stamps[port - 1].append(int(batch.stamp_q32[i]))

    def finish(self, *runs):
        reports = [run.wait(on_batch=self.take, timeout_s=0.1) for run in runs]
        self.card.transport.wait(5e-6)
        self.card.flush()
        for batch in self.card.receive(1e-4):
            self.take(batch)
        return [run.wait(timeout_s=0) for run in runs] if len(reports) > 1 else [runs[0].wait(timeout_s=0)]

    def departed(self, port: int) -> np.ndarray:
        return departures_q64(self.simulated, (port + 1) % 4, CABLE_NS)

    def start(self, after_us: int = 150) -> Fraction:
        """A start that is no multiple of the cycle."""
        return Fraction(self.card.time_q32(), 1 << 32) + Fraction(after_us, 10**6) + Fraction(1, 3 * 10**9)


def errors_cycles(departed: np.ndarray, train: Train, start: Fraction) -> np.ndarray:
    """True departures less schedule, in cycles, f8[n]."""
    schedule = train.schedule(start)
    assert len(departed) == len(schedule)
    wanted = schedule.seconds.astype(object) * Q64 + schedule.fraction.astype(object)
    return ((departed - wanted) / float(CYCLE_Q64)).astype(float)


def on_schedule(departed: np.ndarray, train: Train, start: Fraction) -> None:
    """Each SFD at the first cycle that is not before its time."""
    errors = errors_cycles(departed, train, start)
    assert errors.min() >= -1e-6 and errors.max() < 1 + 1e-6


LAWS = {
    "constant": Constant("1.4003us"),
    "list": GapList(("1.3us", "5us", "1/300 ms", "1400ns")),
    "poisson": Poisson("3us", "1.5us"),
    "chirp": Chirp("9us", "0.96"),
}
SIZES = {
    "fixed": Fixed(90),
    "list": SizeList((64, 90, 91, 130)),
    "uniform": Uniform(64, 140),
    "choice": Choice((64, 64, 64, 110, 140)),
}


@pytest.mark.parametrize("size", SIZES)
def test_every_law_leaves_on_schedule(world, size):
    """Four ports at once, one for each law of gaps; bursts and repeats."""
    start = world.start(300)
    values = {"bursts": 3, "burst_gap": "4.321us", "repeats": 2, "period": "350.07us", "source_ports": 5}
    trains = [make(15, law, SIZES[size], seed=2**63 + 77, **values) for law in LAWS.values()]
    runs = [world.card.port(port).send(train, start=start, report=True) for port, train in enumerate(trains)]
    for port, (train, report) in enumerate(zip(trains, world.finish(*runs), strict=True)):
        status = report.status
        assert (status.active, status.done, status.sent, status.late) == (False, True, 90, 0)
        on_schedule(world.departed(port), train, start)
        # What the card says of each departure, and what the packets say.
        assert report.departures["sequence"].tolist() == list(range(90))
        assert [len(frame) + 4 for frame in world.frames[port]] == train.schedule().size.tolist()
        reported = report.departures["stamp_q32"].tolist()
        for n, frame in enumerate(world.frames[port]):
            packet = Ether(frame)
            payload = bytes(packet[UDP].payload)
            assert int.from_bytes(payload[:4], "big") == n
            assert int.from_bytes(payload[4:12], "big") == stamp.ptp_from_tai_q32(reported[n])
            assert packet[UDP].sport == 50_000 + n % 5
            assert checksums_are_right(frame)


def checksums_are_right(frame: bytes) -> bool:
    """Whether scapy, building the packet anew, makes the same lengths and checksums."""
    packet = Ether(frame)
    for layer in (IP, UDP):
        if layer in packet:
            for name in ("len", "chksum"):
                packet[layer].delfieldval(name)
    if IPv6 in packet:
        packet[IPv6].delfieldval("plen")
    return bytes(packet) == frame


@pytest.mark.parametrize("timestamp", ["ptp", "ntp"])
@pytest.mark.parametrize("version", [4, 6])
def test_packets_say_what_the_train_says(world, version, timestamp):
    """Every field, on four ports with no, one and two tags and the shortest frames, against scapy."""
    start = world.start(300)
    cases = []
    for port, tags in enumerate(((), (Vlan(5, 3),), (Vlan(100, 7, 0x88A8), Vlan(4094)), ())):
        values = {
            "vlans": tags, "dscp": 46, "ecn": 1, "ttl": 64, "session": 0x1234 + port, "timestamp": timestamp,
            "destination_port": 5000 + port, "source_port": 1234, "source_ports": 3,
        }  # fmt: skip
        least = stamp.smallest_frame(ip_version=version, tags=len(tags), short=True)
        full = stamp.smallest_frame(ip_version=version, tags=len(tags))
        sizes = (least, least + 1, full - 1, full, full + 1, full + 3, full + 4, full + 5, full + 300)
        addresses = ADDRESSES if version == 4 else ADDRESSES6 | {"flow_label": 0xABCDE}
        cases.append(Train(packets=9, gap=Constant("5us"), size=SizeList(sizes), **(addresses | values)))
    runs = [world.card.port(p).send(train, start=start, report=True) for p, train in enumerate(cases)]
    reports = world.finish(*runs)
    for port, (train, report) in enumerate(zip(cases, reports, strict=True)):
        on_schedule(world.departed(port), train, start)
        assert len(world.frames[port]) == 9
        for n, frame in enumerate(world.frames[port]):
            assert len(frame) + 4 == train.size.sizes[n]
            assert checksums_are_right(frame)
            packet = Ether(frame)
            assert (packet.src, packet.dst) == (train.source_mac, train.destination_mac)
            tags = [packet.getlayer(i + 1) for i in range(len(train.vlans))]
            for tag, vlan in zip(tags, train.vlans, strict=True):
                assert (tag.vlan, tag.prio) == (vlan.id, vlan.priority)
            if train.vlans:
                assert packet.type == train.vlans[0].tpid
            if version == 4:
                ip = packet[IP]
                assert (ip.src, ip.dst, ip.tos, ip.ttl) == ("10.0.0.1", "10.0.0.2", 46 << 2 | 1, 64)
                assert (str(ip.flags), ip.frag, ip.id) == ("DF", 0, 0)
            else:
                ip = packet[IPv6]
                assert (ip.src, ip.dst, ip.hlim) == ("2001:db8::1", "2001:db8:1::2", 64)
                assert (ip.tc, ip.fl) == (46 << 2 | 1, 0xABCDE)
            assert (packet[UDP].dport, packet[UDP].sport) == (5000 + port, 1234 + n % 3)
            # The payload is what the Python builder makes, byte for byte, with the departure reported.
            q32 = int(report.departures["stamp_q32"][n])
            written = stamp.ptp_from_tai_q32(q32) if timestamp == "ptp" else stamp.ntp_from_tai_q32(q32, 37)
            payload = bytes(packet[UDP].payload)
            error = stamp.error_estimate(
                35 if timestamp == "ptp" else 34, synchronised=True, ptp=timestamp == "ptp"
            )
            made = stamp.payloads(
                sequence=n, timestamp=written, error=error, session=train.session, size=len(payload)
            )
            assert payload == made[0].tobytes()
            if len(payload) >= 44:
                stamped = STAMPSessionSenderTestUnauthenticated(payload[:44])
                assert (stamped.seq, stamped.ssid) == (n, train.session)
        # The stamp is the true departure, to its resolution.
        truth = report.departures["stamp_q32"].tolist()
        assert len(truth) == 9


def test_stamps_are_the_true_departures(world):
    train = make(50, Poisson("5us", "1us"), seed=3)
    start = world.start()
    report = world.finish(world.card.port(2).send(train, start=start, report=True))[0]
    departed = world.departed(2)
    error = (report.departures["stamp_q32"].astype(object) * 2**32 - departed) / 2**32
    assert np.abs(error.astype(float)).max() <= 0.5 + 0.01  # units of 2^-32 s: rounded to nearest


def test_the_error_estimate_is_the_builder_s(world):
    """Scale and multiplier of many bounds, both formats, locked or not; unknown ones."""
    card, rng = world.card, random.Random(4)
    bounds = [0, 1, 59, 60, 255, 256, 1000, 10**9, 2**32 - 2, 0xFFFFFFFF]
    bounds += [rng.getrandbits(rng.randint(1, 32)) for _ in range(14)]
    for i, bound in enumerate(bounds):
        locked, kind = i % 3 != 0, ("ntp", "ptp")[i % 2]
        card.write("clock.bound", bound)
        card.write_fields("clock.control", locked=locked)
        world.simulated.run(300)
        run = card.port(0).send(make(1, timestamp=kind), after="30us", allow_unsynchronised=True)
        report = world.finish(run)[0]
        assert report.synchronised == locked
        field = int.from_bytes(bytes(Ether(world.frames[0][-1])[UDP].payload)[12:14], "big")
        known = -1 if bound == 0xFFFFFFFF else bound + (kind == "ptp")
        assert field == stamp.error_estimate(known, synchronised=locked, ptp=kind == "ptp"), (bound, kind)


def test_without_the_offset_of_utc_nothing_is_known_of_an_ntp_stamp(world):
    """NTP's format is UTC; PTP's is TAI, and goes on. With the offset the bound is known again."""
    for known in (True, False, True):
        world.card.set_utc_offset(UtcOffset(37, known))
        for kind in ("ntp", "ptp"):
            run = world.card.port(0).send(make(1, timestamp=kind), after="30us", allow_unsynchronised=True)
            world.finish(run)
            field = int.from_bytes(bytes(Ether(world.frames[0][-1])[UDP].payload)[12:14], "big")
            ptp = kind == "ptp"
            wanted = stamp.error_estimate(34 + ptp, synchronised=True, ptp=ptp)
            assert field == (wanted if known or ptp else stamp.ERROR_UNKNOWN), (known, kind)


def test_a_core_that_failed_takes_the_bound_from_stamps(world):
    """What a stopped servo wrote last does not count, in packets as in blocks."""
    card = world.card
    world.simulated.write32(0x10000, 0x0000006F)  # jal x0, 0: for ever
    card.write("cpu.watchdog", 5000)
    card.write("cpu.control", 1)
    world.simulated.run(8000)
    assert card.clock().failed
    for kind in ("ntp", "ptp"):
        run = card.port(0).send(make(1, timestamp=kind), after="30us", allow_unsynchronised=True)
        world.finish(run)
        field = int.from_bytes(bytes(Ether(world.frames[0][-1])[UDP].payload)[12:14], "big")
        assert field == stamp.ERROR_UNKNOWN | (stamp.ERROR_PTP if kind == "ptp" else 0)


@pytest.mark.parametrize("change", [1, -1])
def test_ntp_stamps_through_a_leap_second(world, change):
    """Each has the offset of its own second, before and behind it; scapy reads them."""
    card = world.card
    leap_tai_s = 1_830_297_600 + 37 + change  # 2028-01-01T00:00:00 UTC
    card.write_fields("clock.control", locked=0)
    card.set_utc_offset(UtcOffset(37, True, change, leap_tai_s))
    card.load_time_q32((leap_tai_s << 32) - 100 * (2**32 // 10**6))
    card.write_fields("clock.control", locked=1)
    train = make(40, Constant("5us"), timestamp="ntp", size=Fixed(90))
    report = world.finish(card.port(0).send(train, after="40us", report=True))[0]
    tai = report.departures["stamp_q32"].tolist()
    assert 5 < sum(q32 >> 32 < leap_tai_s for q32 in tai) < 35
    for frame, q32 in zip(world.frames[0], tai, strict=True):
        stamped = STAMPSessionSenderTestUnauthenticated(bytes(Ether(frame)[UDP].payload)[:44])
        utc_s = (q32 >> 32) - 37 - change * (q32 >> 32 >= leap_tai_s)
        written = int.from_bytes(bytes(Ether(frame)[UDP].payload)[4:12], "big")
        assert written == ((utc_s + 2_208_988_800) << 32 | q32 & 0xFFFFFFFF)
        assert int(stamped.ts) == utc_s + 2_208_988_800


def test_a_udp_checksum_of_zero_is_sent_as_ones(world):
    """The clock's edges are known from one departure: so is the next stamp, and a source port that makes the
    sum come out as zero.
    """
    card = world.card
    world.finish(card.port(0).send(make(1), start=world.start()))
    edge = int(world.departed(0)[0])
    step = Fraction(card.read("clock.increment"), 1 << 8)  # 2^-64 s
    at = edge + step * 200_000
    stamp_q32 = round(at / 2**32)
    payload = stamp.payloads(
        sequence=0, timestamp=stamp.ptp_from_tai_q32(stamp_q32), error=stamp.error_estimate(
            35, synchronised=True, ptp=True
        ), session=1, size=44,
    )[0].tobytes()  # fmt: skip
    without = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=862) / payload
    port = int.from_bytes(bytes(without)[26:28], "big") + 1  # what is left up to 0xFFFF
    packet = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=port, dport=862) / payload
    assert bytes(packet)[26:28] == b"\xff\xff"  # scapy follows RFC 768, too
    train = make(1, source_port=port)
    world.finish(card.port(0).send(train, start=(at - step / 2) / Q64))
    sent = Ether(world.frames[0][-1])
    assert bytes(sent[UDP].payload)[:44] == payload and sent[UDP].sport == port
    assert sent[UDP].chksum == 0xFFFF


def test_line_rate_on_four_ports_at_once(world):
    """1,488,095 packets/s of 64 bytes on two ports, 1,136,363 of 90 bytes on the other two."""
    start = world.start(300)
    cases = [make(700, Constant("672ns"), 64), make(700, Constant("880ns"), 90)] * 2
    runs = [world.card.port(port).send(train, start=start) for port, train in enumerate(cases)]
    for port, (train, report) in enumerate(zip(cases, world.finish(*runs), strict=True)):
        assert (report.status.sent, report.status.late) == (700, 0)
        departed = world.departed(port)
        on_schedule(departed, train, start)
        rate = 699 / (float(departed[-1] - departed[0]) / Q64)
        assert rate == pytest.approx(1_488_095 if port % 2 == 0 else 1_136_363, abs=1)
        assert len(world.frames[port]) == 700
    counters = world.card.counters()
    assert [c["good"] for c in counters] == [c["tx_frames"] for c in counters] == [700] * 4
    assert [c["dropped"] for c in counters] == [0] * 4


def test_a_poisson_law_at_line_rate_is_met(world):
    """The slowest law to compute, with random sizes, at nearly the shortest gaps a wire takes."""
    train = make(300, Poisson("673ns", "672ns"), Choice((64, 64)), seed=1)
    start = world.start()
    report = world.finish(world.card.port(0).send(train, start=start))[0]
    assert (report.status.sent, report.status.late) == (300, 0)
    on_schedule(world.departed(0), train, start)


def test_the_mean_gap_is_right(world):
    """A mean gap of 1000.3 ns to 1e-6 over 10,000 gaps."""
    train = make(10_001, Constant("1000.3ns"))
    start = world.start()
    report = world.finish(world.card.port(0).send(train, start=start))[0]
    assert (report.status.sent, report.status.late) == (10_001, 0)
    departed = world.departed(0)
    on_schedule(departed, train, start)
    mean_ns = float(departed[-1] - departed[0]) / Q64 * 1e9 / 10_000
    assert mean_ns == pytest.approx(1000.3, rel=1e-6)


def test_trains_of_a_port_interleave(world):
    """Four trains on one port, in turn and on schedule; each has its own template, sequence and counts."""
    start = world.start(300)
    cases = [
        make(40, Constant("10us"), 64, session=1, name="a"),
        make(20, Constant("20us"), 200, session=2, name="b"),
        Train(packets=10, gap=Constant("40us"), size=Fixed(120), session=3, vlans=(Vlan(7),), **ADDRESSES6),
        make(13, Constant("30us"), Uniform(64, 100), session=4, seed=8),
    ]
    offsets = [Fraction(n, 10**7) for n in (0, 25, 51, 77)]
    runs = [
        world.card.port(1).send(train, start=start + offset, report=True)
        for train, offset in zip(cases, offsets, strict=True)
    ]
    assert [run.slot for run in runs] == [0, 1, 2, 3]
    with pytest.raises(ConfigError, match="all 4 slots are taken"):
        world.card.port(1).send(cases[0], start=start)
    reports = world.finish(*runs)
    departed = world.departed(1)
    whole = []
    for train, offset, report in zip(cases, offsets, reports, strict=True):
        assert (report.status.sent, report.status.late, report.status.done) == (train.total, 0, True)
        schedule = train.schedule(start + offset)
        whole += [(schedule.q64(i), train.session, i, int(schedule.size[i])) for i in range(len(schedule))]
    whole.sort()
    errors = (departed - np.array([w[0] for w in whole], object)) / float(CYCLE_Q64)
    assert errors.min() >= -1e-6 and errors.max() < 1 + 1e-6
    for frame, (_, session, n, size) in zip(world.frames[1], whole, strict=True):
        payload = bytes(Ether(frame)[UDP].payload)
        assert int.from_bytes(payload[14:16], "big") & 0x7FFF == session
        assert int.from_bytes(payload[:4], "big") == n and len(frame) + 4 == size
        assert checksums_are_right(frame)


def test_missed_slots_are_reported_and_the_rest_stays_on_schedule(world):
    """Two trains meet every 100 us: the second one's packet waits until the first one's has left."""
    start = world.start()
    long = make(10, Constant("100us"), 1000)
    short = make(100, Constant("10us"), 64)
    # 1000 bytes take 8.16 us; the short ones' slots come 2 us after, every tenth one is missed.
    runs = [
        world.card.port(0).send(long, start=start),
        world.card.port(0).send(short, start=start + Fraction(2, 10**6)),
    ]
    reports = world.finish(*runs)
    assert (reports[0].status.late, reports[1].status.late) == (0, 10)
    missed = reports[1].departures
    assert missed["sequence"].tolist() == list(range(0, 100, 10)) and missed["late"].all()
    delay_ns = missed["delay_q32"] * 1e9 / 2**32
    assert np.abs(delay_ns - 6160).max() < 8.1
    assert float(reports[1].status.worst_delay) * 1e9 == pytest.approx(delay_ns.max(), abs=0.3)
    # Of the exact departure the stamp is rounded to nearest, and the delay cut off.
    schedule = short.schedule(start + Fraction(2, 10**6))
    for at_q32, delay, n in zip(missed["stamp_q32"], missed["delay_q32"], range(0, 100, 10), strict=True):
        left = (int(at_q32) - int(delay)) * 2**32 - schedule.q64(n)
        assert -(2**31) <= left < 3 * 2**31
    departed = world.departed(0)
    times = sorted(
        [(long.schedule(start).q64(i), 0) for i in range(10)]
        + [(short.schedule(start + Fraction(2, 10**6)).q64(i), i + 1) for i in range(100)]
    )
    for left, (time, which) in zip(departed.tolist(), times, strict=True):
        cycles = float(left - time) / float(CYCLE_Q64)
        if which and (which - 1) % 10 == 0:
            assert 769 <= cycles < 772
        else:
            assert -1e-6 <= cycles < 1 + 1e-6
    summary = reports[1].summary()
    assert summary["late"] == 10 and summary["missed_slots"][1]["sequence"] == 10


def test_frames_of_the_host_give_way(world):
    """Host frames in between fill the gaps and delay no packet; all of them leave."""
    start = world.start()
    train = make(60, Constant("20us"))
    run = world.card.port(0).send(train, start=start)
    rng = random.Random(2)
    sent = []
    while run.status().active:
        frame = b"\x02" * 12 + b"\x88\xb5" + rng.randbytes(rng.randint(46, 1500))
        world.card.send(0, frame)
        sent.append(frame)
        world.simulated.run(rng.randint(10, 2000))
    for batch in world.card.receive(1e-3):
        world.take(batch)
    report = world.finish(run)[0]
    assert (report.status.sent, report.status.late) == (60, 0)
    hosts = [frame for frame in world.frames[0] if frame[12:14] == b"\x88\xb5"]
    assert len(hosts) > 50 and hosts == sent
    trains = [i for i, frame in enumerate(world.frames[0]) if frame[12:14] == b"\x08\x00"]
    departed = world.departed(0)
    keeps_the_gap(departed, world.frames[0])
    on_schedule(departed[trains], train, start)


def keeps_the_gap(departed: np.ndarray, frames: list[bytes]) -> float:
    """Start to start at least preamble, frame, FCS, twelve byte times; returns the least excess in cycles."""
    lengths = np.array([len(frame) + 4 + 20 for frame in frames[:-1]])
    spare = (np.diff(departed) / float(CYCLE_Q64)).astype(float) - lengths
    assert spare.min() > -1e-6
    return float(spare.min())


def test_late_packets_leave_back_to_back(world):
    """More than the wire takes: a packet as soon as the one before is gone, each late and reported."""
    train = make(60, Constant("100ns"), Uniform(64, 90), seed=5)
    run = world.card.port(0).send(train, start=world.start(), allow_late=True)
    report = world.finish(run)[0]
    departed = world.departed(0)
    assert (report.status.sent, report.status.late, report.status.unreported) == (60, 59, 0)
    assert keeps_the_gap(departed, world.frames[0]) < 1e-6
    steps = (np.diff(departed) / float(CYCLE_Q64)).astype(float)
    assert np.abs(steps - [len(frame) + 24 for frame in world.frames[0][:-1]]).max() < 1e-6
    first = train.schedule(run.start)
    delay = (departed[1:] - np.array([first.q64(i) for i in range(1, 60)], object)) / 2**32
    assert np.abs(report.departures["delay_q32"] - delay.astype(float)).max() <= 1


def test_departures_follow_card_time(world):
    """Rate and slew change while a train runs: it keeps to card time, which is where the schedule is."""
    start = world.start()
    train = make(300, Constant("5us"))
    run = world.card.port(0).send(train, start=start, report=True)
    world.simulated.run(30_000)
    world.card.set_rate_ppb(50_000)
    world.simulated.run(20_000)
    world.card.slew_ns(300, ppm=100)
    world.simulated.run(40_000)
    world.card.set_rate_ppb(-90_000)
    report = world.finish(run)[0]
    assert (report.status.sent, report.status.late) == (300, 0)
    stamps = report.departures["stamp_q32"].astype(np.int64)
    error_ns = (stamps - train.schedule(start).q32().astype(np.int64)) * 1e9 / 2**32
    assert error_ns.min() > -0.5 and error_ns.max() < 8.5
    # The world's time went another way.
    truth = world.simulated.truth(1)["sfd_fs"]
    assert abs((truth[-1] - truth[0]) * 1e-15 - 299 * 5e-6) > 1e-8


def test_the_clock_takes_no_new_time_while_a_train_is_armed(world):
    card = world.card
    card.write_fields("clock.control", locked=0)
    run = card.port(0).send(make(2), start=world.start(), allow_unsynchronised=True)
    with pytest.raises(DeviceError, match="train is armed"):
        card.load_time_q32(5 << 32)
    assert world.finish(run)[0].status.done
    card.load_time_q32(5 << 32)


def test_a_stopped_train_sends_no_more(world):
    start = world.start()
    run = world.card.port(0).send(make(1000, Constant("2us")), start=start)
    other = world.card.port(0).send(make(100, Constant("4us")), start=start + Fraction(1, 10**6))
    while run.status().sent < 10:
        world.simulated.run(100)
    run.stop()
    reports = world.finish(run, other)
    assert not reports[0].status.done and 10 <= reports[0].status.sent <= 12
    assert reports[1].status.done and reports[1].status.late == 0
    again = make(5)
    later = world.start()
    report = world.finish(world.card.port(0).send(again, start=later, slot=0))[0]
    assert (report.status.done, report.status.sent) == (True, 5)


def test_a_far_card_receives_and_stamps(world):
    """Another card with a clock of its own: what it stamps less what the payload says is the cable."""
    far_sim = SimulatedCard(seed=9)
    far = Card(far_sim, block_log2=18)
    world.others.append(far)
    world.simulated.connect(3, far_sim, 0, delay_ns=500)
    far.start()
    far.load_time_q32(world.card.time_q32())
    offset = far.time_q32() - world.card.time_q32()
    train = make(30, Poisson("3us", "1us"), seed=5, timestamp="ntp")
    run = world.card.port(3).send(train, start=world.start(), report=True)
    got: list[tuple[int, bytes]] = []
    while run.status().active or len(got) < 30:
        for batch in far.receive(1e-4):
            got += [(int(batch.stamp_q32[i]), batch.frame(i)) for i in range(len(batch))]
    assert len(got) == 30
    constant = far.read("port[0].rx_constant")
    unix = (stamp.NTP_UNIX_S - 37) << 32
    delays = [
        at - constant - (int.from_bytes(bytes(Ether(frame)[UDP].payload)[4:12], "big") - unix)
        for at, frame in got
    ]
    spread = (max(delays) - min(delays)) * 1e9 / 2**32
    assert spread < 8.5
    assert abs(np.mean(delays) - offset) * 1e9 / 2**32 < 3000  # two reads over the bus


def test_refusals_before_a_packet_leaves(world):
    card, port = world.card, world.card.port(0)
    with pytest.raises(ConfigError, match="no port 4"):
        card.port(4)
    with pytest.raises(ConfigError, match=r"would leave .* late"):
        port.send(make(10, Constant("100ns")))
    with pytest.raises(ConfigError, match="its period is"):
        port.send(make(10, repeats=2, period="50us"))
    with pytest.raises(ConfigError, match=r"the start is .* ago"):
        port.send(make(10), start=0)
    with pytest.raises(ConfigError, match="the start is in"):
        port.send(make(10), after="20us")
    with pytest.raises(ConfigError, match="beyond 2\\^32 s"):
        port.send(make(10), start=2**32)
    with pytest.raises(ConfigError, match="slot 4"):
        port.send(make(10), slot=4)
    with pytest.raises(ConfigError, match="its lists need 2391 words"):
        port.send(make(10, GapList(("1ms",) * 597), SizeList((90,) * 600)))
    run = port.send(make(10, GapList(("1ms",) * 300), SizeList((90,) * 800)), after="5ms", slot=2)
    with pytest.raises(ConfigError, match="its lists need 100 words, 92 are left"):
        port.send(make(10, size=SizeList((90,) * 100)))
    with pytest.raises(ConfigError, match="slot 2 is taken"):
        port.send(make(10), slot=2)
    run.stop()
    card.write_fields("clock.control", locked=0)
    with pytest.raises(DeviceError, match="follows no reference"):
        port.send(make(10))
    world.simulated.run(1000)
    assert card.counters()[0]["tx_frames"] == 0
    assert [port.send(make(2), allow_unsynchronised=True).wait().synchronised] == [False]
    over = port.send(make(50, Constant("100ns")), allow_unsynchronised=True, allow_late=True).wait()
    assert over.status.done and over.status.late > 40


def test_a_link_that_is_down_is_refused():
    simulated = SimulatedCard()
    with Card(simulated) as card:
        card.write_fields("clock.control", locked=1)
        card.write("port[0].phy.poll", 10_000)
        simulated.plug(0, False)
        simulated.run(60_000)
        with pytest.raises(DeviceError, match="link is down"):
            card.port(0).send(make(1))


def test_random_trains(world):
    """Four ports, two trains each, of random laws, times after times."""
    rng = random.Random(11)
    for _ in range(2):
        start = world.start(300)
        for frames in world.frames:
            frames.clear()
        cases = [(port, some_train(rng, session=1 + s)) for port in range(4) for s in range(2)]
        runs = [
            world.card.port(port).send(train, start=start + Fraction(train.session - 1, 2000))
            for port, train in cases
        ]
        reports = world.finish(*runs)
        departed = [world.departed(port).tolist() for port in range(4)]
        for (port, train), report in zip(cases, reports, strict=True):
            assert (report.status.sent, report.status.late) == (20, 0), train
            first = 20 * (train.session - 1)
            part = np.array(departed[port][first : first + 20], object)
            on_schedule(part, train, start + Fraction(train.session - 1, 2000))


@pytest.mark.long
def test_a_million_packets_on_schedule(world):
    """At most one cycle off over 1,000,000 packets, drift 0: the true departures, one by one."""
    world.simulated.step_cycles = 65_536
    train = make(1_000_000, Constant("700.3ns"), 64)
    start = world.start()
    run = world.card.port(0).send(train, start=start)
    schedule = train.schedule(start)
    done = 0
    worst = [0.0, 1.0]
    while run.status().active or done < len(schedule):
        for batch in world.card.receive(1e-3):
            del batch
        departed = world.departed(0)
        wanted = [schedule.q64(i) for i in range(done, done + len(departed))]
        errors = ((departed - np.array(wanted, object)) / float(CYCLE_Q64)).astype(float)
        if len(errors):
            worst = [max(worst[0], errors.max()), min(worst[1], errors.min())]
        done += len(departed)
    assert (run.status().sent, run.status().late, done) == (1_000_000, 0, 1_000_000)
    assert worst[1] >= -1e-6 and worst[0] < 1 + 1e-6
    print(f"departure less schedule: {worst[1] * 8:.3f} to {worst[0] * 8:.3f} ns")


def test_waiting_trains_are_warped():
    """Idle time between packets passes in one step, and nothing comes out differently."""
    stamps = {}
    train = make(4, Constant("400us"), Choice((64, 90)), bursts=2, burst_gap="1ms", seed=6)
    for warp in (True, False):
        simulated = SimulatedCard(warp=warp)
        with Card(simulated, timeout_s=1e-5) as card:
            simulated.connect(0, simulated, 1, delay_ns=CABLE_NS)
            for port in range(4):
                card.write(f"port[{port}].phy.poll", 0)
            card.write_fields("clock.control", locked=1)
            card.start()
            start = Fraction(1, 1000) + Fraction(1, 3 * 10**9)
            run = card.port(0).send(train, start=start)
            simulated.run(650_000)
            assert run.status().done
            truth = simulated.truth(1)
            stamps[warp] = truth["sfd_q32"].tolist(), truth["sfd_rest"].tolist(), simulated.state()
            on_schedule(_departures(truth), train, start)
            if warp:
                assert simulated.warped > 550_000
    assert stamps[True] == stamps[False]


def _departures(truth: np.ndarray) -> np.ndarray:
    q64 = truth["sfd_q32"].astype(object) * 2**32 + truth["sfd_rest"].astype(object)
    return q64 - round(Fraction(CABLE_NS, 10**9) * Q64)
