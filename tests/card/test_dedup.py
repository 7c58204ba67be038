# SPDX-License-Identifier: Apache-2.0
"""The card's duplicate window against the CPU executor, on the card's own records (docs/hdl-dedup.md)."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from twinstamp.card import COUNTERS, Card
from twinstamp.card.play import CapturePlayer
from twinstamp.card.sim import NO_ERROR, PORTS, WIRE_ADD_FCS, WIRE_ITEM, Frames, SimulatedCard, frames
from twinstamp.errors import ConfigError
from twinstamp.frames import FLAG_DUPLICATE, FrameBatch
from twinstamp.io import open_capture
from twinstamp_kernels.hashkey import expand
from twinstamp_kernels.window import PROFILES, Window

from tests.conftest import captures
from tests.kernels import traffic

SEED = bytes(range(7, 39))
SIZE = 8192
RUNT = 4
LINKTYPES = np.ones(PORTS, np.uint16)


@dataclass
class Records:
    """What came out of the ring, in its order."""

    contents: list[bytes] = field(default_factory=list)
    timestamp_ns: list[int] = field(default_factory=list)
    port: list[int] = field(default_factory=list)
    digest: list[int] = field(default_factory=list)
    record_flags: list[int] = field(default_factory=list)
    duplicate: list[bool] = field(default_factory=list)
    sequence: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.contents)

    def add(self, batch: Any) -> None:
        self.contents += [batch.frame(i) for i in range(len(batch))]
        self.timestamp_ns += batch.timestamp_ns.tolist()
        self.port += batch.port.tolist()
        self.digest += batch.digest.tolist()
        self.record_flags += batch.record_flags.tolist()
        self.duplicate += ((batch.flags & FLAG_DUPLICATE) != 0).tolist()
        self.sequence += batch.sequence.tolist()
        assert ((batch.flags & FLAG_DUPLICATE != 0) == (batch.record_flags & 0x80 != 0)).all()

    def columns(self) -> tuple[Any, ...]:
        caplen = np.array([len(content) for content in self.contents], np.uint32)
        offset = np.concatenate(([0], np.cumsum(caplen, dtype=np.uint64)))[:-1].astype(np.uint64)
        data = np.frombuffer(b"".join(self.contents), np.uint8)
        return data, offset, caplen, np.array(self.timestamp_ns, np.int64), np.array(self.port, np.uint16)


def prepare(card: Card, profile: str | None, window: int | None, time_ns: int | None, **options: Any) -> None:
    card.load_digest_key(expand(SEED))
    card.set_duplicates(profile, window=window, time_ns=time_ns, **options)


def receive(card: Card, simulated: SimulatedCard, timeout_s: float = 1e-3) -> Records:
    records = Records()
    while any(simulated.pending(port) for port in range(PORTS)):
        for batch in card.receive(1e-4):
            records.add(batch)
    for batch in card.receive(timeout_s):
        records.add(batch)
    return records


def check(records: Records, profile: str, window: int | None, time_ns: int | None) -> int:
    """Digests and verdicts are the CPU executor's, bit for bit; how many duplicates there were."""
    judged = [i for i, flags in enumerate(records.record_flags) if not flags & RUNT]
    assert all(not records.duplicate[i] for i in range(len(records)) if records.record_flags[i] & RUNT)
    whole = Records(**{name: [values[i] for i in judged] for name, values in vars(records).items()})
    if not judged:
        return 0
    data, offset, caplen, timestamp_ns, port = whole.columns()
    cpu = Window(profile=profile, count=window, time_ns=time_ns, limit=SIZE, seed=SEED)
    keys = np.asarray(cpu.digests(data, offset, caplen, port, LINKTYPES).key, np.uint64).reshape(-1, 2)
    wrong = np.flatnonzero(keys[:, 0] != np.array(whole.digest, np.uint64))
    assert not len(wrong), f"digest of {len(wrong)}/{len(whole)}: {whole.contents[wrong[0]].hex()}"
    verdicts = cpu.process(data, offset, caplen, timestamp_ns, port, LINKTYPES)
    expected = np.asarray(verdicts.keep) == 0
    wrong = np.flatnonzero(expected != np.array(whole.duplicate))
    assert not len(wrong), f"verdict of {len(wrong)}/{len(whole)}, first {wrong[0]} of {profile}"
    return int(expected.sum())


def check_books(card: Card, records: Records, *, dropped: bool = False) -> list[int]:
    """stored = handed over + duplicates dropped + discarded, per port; the duplicates dropped."""
    counters = card.counters()
    for port, counted in enumerate(counters):
        handed = records.port.count(port)
        assert counted["stored"] == handed + counted["duplicates_dropped"] + counted["discarded"]
        assert dropped or counted["dropped"] == 0
    statistics = card.duplicates()
    assert statistics.judged == sum(not flags & RUNT for flags in records.record_flags) + sum(
        counted["duplicates_dropped"] for counted in counters
    )
    assert card.read("port[0].rx_status") == 0
    return [counted["duplicates_dropped"] for counted in counters]


# Captures of the corpus, played into the MAC.

WINDOWS = {
    "exact": [(SIZE, None), (2, None), (600, 10_000_000), (None, 50_000)],
    "vlan": [(600, 1_000_000), (SIZE, None), (None, 200_000)],
    "routing": [(None, 400_000), (1000, None), (3000, 20_000)],
}


def play(make_card, path: Path, profile: str, window: int | None, time_ns: int | None) -> tuple[int, int]:
    simulated, card = make_card(block_log2=18)
    prepare(card, profile, window, time_ns)
    records = Records()
    with open_capture(path) as reader:
        player = CapturePlayer(simulated, reader, longest_gap_ns=2000)
        card.start(ports=[0])
        while player.feed() or player.pending():
            for batch in card.receive(1e-4):
                records.add(batch)
        for batch in card.receive(1e-3):
            records.add(batch)
    assert len(records) == player.played.frames
    left_out = player.played.left_out
    print(f"{path.name}: {len(records)} of {player.played.read} frames, left out {left_out}")
    assert player.played.read == len(records) + sum(left_out.values())
    check_books(card, records)
    return len(records), check(records, profile, window, time_ns)


@pytest.mark.corpus
@pytest.mark.parametrize("profile", list(WINDOWS))
@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_corpus(make_card, path, profile):
    play(make_card, path, profile, *WINDOWS[profile][0])


@pytest.mark.long
@pytest.mark.corpus
@pytest.mark.parametrize(
    ("profile", "window", "time_ns"),
    [(profile, *window) for profile, windows in WINDOWS.items() for window in windows[1:]],
)
@pytest.mark.parametrize("path", captures(), ids=lambda path: path.name)
def test_corpus_more_windows(make_card, path, profile, window, time_ns):
    play(make_card, path, profile, window, time_ns)


@pytest.mark.corpus
def test_corpus_has_routed_copies(make_card, corpus):
    """A mirror of both sides of a router: none is the same byte for byte."""
    path = corpus / "captures" / "double-vision.pcap"
    n, exact = play(make_card, path, "exact", SIZE, None)
    assert (exact, play(make_card, path, "routing", SIZE, None)[1]) == (0, n // 2)


# Generated mixes at line rate.


def checksum(header: bytes) -> bytes:
    total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, len(header), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def packet(rng: random.Random, size: int) -> bytes:
    """An Ethernet frame with an IPv4 or IPv6 packet; of 60 bytes perhaps padded."""
    macs = bytes([2, *rng.randbytes(5), 2, *rng.randbytes(5)])
    if rng.random() < 0.7:
        length = max(20, min(size - 14, rng.choice([28, 40, 46, size - 14])))
        head = bytearray(b"\x45\x00" + length.to_bytes(2, "big") + rng.randbytes(2) + b"\0\0")
        head += bytes([rng.randrange(3, 250), 17, 0, 0]) + rng.randbytes(8)
        head[10:12] = checksum(bytes(head))
        body = b"\x08\x00" + bytes(head) + rng.randbytes(length - 20)
    else:
        length = max(0, size - 54)
        body = b"\x86\xdd\x60\0\0\0" + length.to_bytes(2, "big") + bytes([17, rng.randrange(3, 250)])
        body += rng.randbytes(32 + length)
    frame = macs + body
    return frame + bytes(max(0, 60 - len(frame)))


def retagged(rng: random.Random, frame: bytes) -> bytes:
    tags = b"".join(
        rng.choice([b"\x81\0", b"\x88\xa8", b"\x91\0"]) + rng.randbytes(2) for _ in range(rng.randint(1, 3))
    )
    return frame[:12] + tags + frame[12:]


def routed(rng: random.Random, frame: bytes) -> bytes:
    out = bytearray(bytes([2, *rng.randbytes(5), 2, *rng.randbytes(5)]) + frame[12:])
    if frame[12:14] == b"\x08\x00":
        out[22] -= 1
        out[15] = rng.randrange(256)
        out[24:26] = b"\0\0"
        out[24:26] = checksum(bytes(out[14:34]))
    else:
        out[21] -= 1
        out[14:16] = bytes([0x60 | rng.randrange(16), rng.randrange(16) << 4 | out[15] & 15])
    return retagged(rng, bytes(out)) if rng.random() < 0.3 else bytes(out)


def mix(rng: random.Random, n: int, sizes: list[int], *, spread: int = 200) -> list[list[bytes]]:
    """n frames for each port; half are copies: exact, with other tags, routed, on any port, in any order."""
    out: list[tuple[float, bytes]] = []
    while len(out) < PORTS * n:
        frame = packet(rng, rng.choice(sizes))
        at = rng.random() * PORTS * n
        out.append((at, frame))
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            kind = rng.choice([lambda _, f: f, retagged, routed])
            out.append((at + rng.random() * spread, kind(rng, frame)))
    ordered = [frame for _, frame in sorted(out)][: PORTS * n]
    return [ordered[port::PORTS] for port in range(PORTS)]


def line_rate(make_card, sent, profile, window, time_ns, **options) -> tuple[Records, Card]:
    """Back to back, four ports with clocks of their own; nothing may be dropped."""
    simulated, card = make_card(block_log2=18, **options)
    for port, ppb in enumerate((100_000, -100_000, 30_000, 0)):
        simulated.set_clock(f"rx{port}", ppb=ppb)
    prepare(card, profile, window, time_ns)
    card.start()
    for port in range(PORTS):
        simulated.send(port, frames(sent[port]))
    records = receive(card, simulated)
    assert len(records) == sum(map(len, sent))
    check_books(card, records)
    return records, card


@pytest.mark.parametrize(
    ("profile", "window", "time_ns"),
    [("exact", 100, None), ("vlan", SIZE, 300_000), ("routing", None, 30_000), ("routing", SIZE, None)],
)
def test_line_rate_of_shortest_frames(make_card, profile, window, time_ns):
    """1.488 million frames a second on each of four ports: one in 21 cycles."""
    rng = random.Random(profile)
    n = 3000
    sent = mix(rng, n, [60])
    for port in range(PORTS):  # of one size: as many frames as there can be
        sent[port] = [f if len(f) == 60 else f[:12] + f[12:60] for f in sent[port]]
    records, card = line_rate(make_card, sent, profile, window, time_ns)
    found = check(records, profile, window, time_ns)
    assert len(records) / 20 < found < len(records)
    statistics = card.duplicates()
    assert statistics.duplicates == found and statistics.longest_cycles < 2000
    first, last = min(records.timestamp_ns), max(records.timestamp_ns)
    assert (last - first) / (n - 1) < 672 * 1.001  # ns between frames of a port: it was line rate


def test_line_rate_of_all_sizes(make_card):
    rng = random.Random(5)
    sent = mix(rng, 300, [60, 61, 64, 90, 128, 590, 1023, 1024, 1025, 1038, 1514])
    for port in range(PORTS):
        sent[port][rng.randrange(100)] = packet(rng, 9000)
    for profile, time_ns in (("vlan", 200_000), ("routing", 200_000)):
        records, _ = line_rate(make_card, sent, profile, None, time_ns)
        assert check(records, profile, None, time_ns) > 100


def test_stamps_run_backwards(make_card):
    """Long frames on one port, shortest ones on the others: stamps that are hundreds of records old."""
    rng = random.Random(6)
    few = [packet(rng, 60) for _ in range(40)]
    sent = [[packet(rng, 9000) for _ in range(20)]] + [
        [rng.choice(few) for _ in range(2000)] for _ in range(3)
    ]
    sent[0][3::2] = sent[0][2:-1:2]
    # Padding of thousands of bytes, which only exact sees.
    sent[0][:] = [f if i % 3 else rng.choice(few) + rng.randbytes(8000) for i, f in enumerate(sent[0])]
    for time_ns in (0, 2000, 70_000, 10**6):
        records, _ = line_rate(make_card, sent, "routing", None, time_ns)
        backwards = np.diff(records.timestamp_ns)
        assert backwards.min() < -50_000
        check(records, "routing", None, time_ns)


# Frames that somebody made to confuse a parser.


def hostile(rng: random.Random, n: int) -> list[bytes]:
    out: list[bytes] = []
    tags = [b"\x81\0", b"\x88\xa8", b"\x91\0"]
    while len(out) < n:
        spec = traffic.make_spec(rng)
        if spec["link"] != "eth" or not traffic.usable(spec):
            continue
        frame = bytearray(traffic.build(spec))
        kind = rng.randrange(8)
        if kind == 0 and len(frame) > 70:  # cut in its headers: bytes, not padding
            frame = frame[: rng.randint(60, min(len(frame), 140))]
        elif kind == 1:  # any byte of the headers another one
            for _ in range(rng.randint(1, 3)):
                frame[rng.randrange(12, min(len(frame), 64))] = rng.choice([0, 1, 255, rng.randrange(256)])
        elif kind == 2:  # tags up to its end, or nearly
            frame[12:12] = b"".join(rng.choice(tags) + rng.randbytes(2) for _ in range(rng.randint(1, 20)))
            frame = frame[: rng.randint(60, 90)]
        elif kind == 3:  # noise
            frame[12:] = rng.choice(
                [b"\x08\0", b"\x86\xdd", b"\x08\x06", b"\x88\x64", b"\x88\x47", b"\x05\xff", rng.randbytes(2)]
            ) + rng.randbytes(rng.randint(46, 200))
        elif kind == 4:  # ARP with long addresses, cut
            frame[12:] = b"\x08\x06\0\1\x08\0" + rng.randbytes(2) + rng.randbytes(rng.randint(40, 1200))
        elif kind == 5:  # 802.3 lengths about the frame's own
            frame[12:] = rng.randint(0, 0x0600).to_bytes(2, "big") + rng.randbytes(rng.randint(46, 300))
        elif kind == 6:  # PPPoE, and what it may carry
            body = rng.choice([b"\0\x21\x45", b"\0\x57\x60", b"\xc0\x21\1", b"\0\x21\x46", b"\0\x57\x45"])
            frame[12:] = b"\x88\x64\x11\0\0\1\0\x40" + body + rng.randbytes(rng.randint(40, 120))
        if len(frame) > 9014:
            continue
        out.append(bytes(frame) + bytes(max(0, 60 - len(frame))))
        if rng.random() < 0.3:
            out.append(rng.choice([lambda _, f: f, retagged])(rng, rng.choice(out[-20:])))
    return out[:n]


@pytest.mark.parametrize("profile", ["exact", "vlan", "routing"])
def test_hostile_frames(make_card, profile):
    contents = hostile(random.Random(11), 2400)
    records, _ = line_rate(make_card, [contents[port::PORTS] for port in range(PORTS)], profile, 500, None)
    assert check(records, profile, 500, None) > 200


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("profile", ["exact", "vlan", "routing"])
def test_more_hostile_frames(make_card, profile, seed):
    contents = hostile(random.Random(100 + seed), 20_000)
    records, _ = line_rate(make_card, [contents[port::PORTS] for port in range(PORTS)], profile, None, 40_000)
    check(records, profile, None, 40_000)


@pytest.mark.parametrize("profile", ["vlan", "routing"])
def test_cut_at_every_length(make_card, profile):
    """Headers that end with the frame, anywhere in them: behind so many tags that 60 bytes are there."""
    rng = random.Random(12)
    tags = b"".join(b"\x81\0" + rng.randbytes(2) for _ in range(12))
    bodies = [
        b"\x08\0\x4f" + rng.randbytes(1) + b"\0\x50" + rng.randbytes(80),
        b"\x08\0\x45\0\0\0" + rng.randbytes(60),
        b"\x86\xdd\x60\0\0\0\0\0\x3b" + rng.randbytes(60),
        b"\x86\xdd\x60\0\0\0\0\0\x11" + rng.randbytes(60),
        b"\x86\xdd\x60\0\0\0\0\x14\x2c" + rng.randbytes(60),
        b"\x08\x06\0\1\x08\0\6\4" + rng.randbytes(40),
        b"\x88\x64\x11\0\0\1\0\x30\0\x21\x45\0\0\x30" + rng.randbytes(60),
        b"\0\x20" + rng.randbytes(50),
    ]
    macs = rng.randbytes(12)
    contents = [macs + tags + body[:n] for body in bodies for n in range(2, len(body) + 1)]
    contents = [content for content in contents if len(content) >= 60]
    contents += [macs + body + rng.randbytes(60) for body in bodies]
    records, _ = line_rate(make_card, [contents[port::PORTS] for port in range(PORTS)], profile, SIZE, None)
    check(records, profile, SIZE, None)


def test_damaged_and_giant_frames_take_part(make_card):
    """What is kept is judged by its captured bytes; runts are not, and leave the others' order alone."""
    rng = random.Random(13)
    simulated, card = make_card(block_log2=18)
    prepare(card, "vlan", SIZE, None)
    card.start(keep_bad=True, keep_runt=True, keep_giant=True, longest=1518)
    for port in range(PORTS):
        base = [packet(rng, rng.choice([60, 200, 1514, 2000])) for _ in range(30)]
        contents = [rng.choice(base) for _ in range(150)]
        contents[20] = base[0] + rng.randbytes(12_000)  # cut by the card
        contents[21] = contents[20][:9100] + rng.randbytes(2000)  # the same captured bytes
        contents[22::9] = [rng.choice(base)[: rng.choice([5, 14, 40, 59])] for _ in contents[22::9]]
        items = np.zeros(len(contents), dtype=WIRE_ITEM)
        lengths = np.array([len(content) for content in contents])
        items["length"] = lengths
        items["offset"][1:] = np.cumsum(lengths)[:-1]
        items["gap"] = 12
        items["preamble"] = 7
        items["flags"] = WIRE_ADD_FCS
        items["damage"] = [rng.choice([0, 0, 0, 1]) for _ in contents]
        items["error_at"] = [rng.choice([NO_ERROR] * 9 + [30]) for _ in contents]
        simulated.send(port, Frames(items, np.frombuffer(b"".join(contents), np.uint8)))
    records = receive(card, simulated)
    check_books(card, records)
    found = [
        flags for flags, duplicate in zip(records.record_flags, records.duplicate, strict=True) if duplicate
    ]
    assert any(flags & 1 for flags in found) and any(flags & 16 for flags in found)
    assert any(flags & RUNT for flags in records.record_flags)
    assert check(records, "vlan", SIZE, None) == len(found)


# Action, books, order.


def test_dropped_duplicates_are_counted(make_card):
    rng = random.Random(14)
    sent = mix(rng, 800, [60, 90, 300])
    whole = [frame for each in sent for frame in each]
    data = Records(contents=whole, timestamp_ns=[0] * len(whole), port=[0] * len(whole)).columns()
    keys = Window(profile="routing", count=2, seed=SEED).digests(*data[:3], data[4], LINKTYPES).key
    distinct = set(np.asarray(keys, np.uint64)[::2].tolist())
    simulated, card = make_card(block_log2=18)
    prepare(card, "routing", SIZE, None, action="drop")
    card.start()
    for port in range(PORTS):
        simulated.send(port, frames(sent[port]))
    records = receive(card, simulated)
    # One of each, whichever came first.
    assert sorted(records.digest) == sorted(distinct) and len(records) < 0.8 * len(whole)
    assert not any(records.duplicate)
    dropped = check_books(card, records)
    assert card.duplicates().duplicates == sum(dropped) == len(whole) - len(records) and min(dropped) > 0
    for port in range(PORTS):
        numbers = [s for s, p in zip(records.sequence, records.port, strict=True) if p == port]
        assert numbers == sorted(set(numbers)) and numbers[-1] < len(sent[port])


@pytest.mark.parametrize("action", ["mark", "drop"])
def test_slow_host(make_card, action):
    """Stores overflow and whole frames are lost: what is in the ring is judged as if they had never come."""
    rng = random.Random(15)
    simulated, card = make_card(block_log2=14, blocks_log2=1, timeout_s=1e-4)
    prepare(card, "routing", 1000, 50_000_000, action=action)
    card.start()
    sent = mix(rng, 700, [60, 300, 1514])
    for port in range(PORTS):
        simulated.send(port, frames(sent[port]))
    records = Records()
    while any(simulated.pending(port) for port in range(PORTS)):
        simulated.run(25_000)
        if (batch := card.poll(0.0)) is not None:
            with batch:
                records.add(batch)
    for batch in card.receive(1e-3):
        records.add(batch)
    dropped = check_books(card, records, dropped=True)
    lost = sum(counted["dropped"] for counted in card.counters())
    assert lost > 200 and len(records) + sum(dropped) + lost == PORTS * 700
    found = check(records, "routing", 1000, 50_000_000)
    assert (sum(dropped) if action == "drop" else found) > 50
    assert action == "mark" or found == 0


def test_memory_that_stalls(make_card):
    rng = random.Random(16)
    simulated, card = make_card(block_log2=14, blocks_log2=4)
    simulated.set_memory_stall(0.3, latency=(1, 200))
    prepare(card, "vlan", 700, None)
    card.start()
    for port, sent in enumerate(mix(rng, 400, [60, 300])):
        simulated.send(port, frames(sent, gap=40))
    records = receive(card, simulated)
    check_books(card, records, dropped=True)
    assert check(records, "vlan", 700, None) > 200


def test_window_starts_empty(make_card):
    """Each start() forgets; what was in the card at stop() is delivered, judged."""
    rng = random.Random(17)
    sent = [packet(rng, 60) for _ in range(30)]
    simulated, card = make_card()
    for profile, window in (("exact", 100), ("routing", SIZE), ("exact", 31), ("exact", 30)):
        prepare(card, profile, window, None)
        card.start(ports=[1, 2])
        simulated.send(1, frames(sent))
        simulated.run_wires(10**5)
        simulated.send(2, frames(sent))
        simulated.run_wires(10**5)
        simulated.run(60)
        card.stop()
        records = receive(card, simulated)
        assert len(records) == 60
        assert check(records, profile, window, None) == (0 if window == 30 else 30)
        assert card.duplicates().judged == 60
    card.set_duplicates(None)
    card.start(ports=[1])
    simulated.send(1, frames(sent + sent))
    assert not any(receive(card, simulated).duplicate)
    assert card.read("dedup.status") >> 8 == 0


@pytest.mark.parametrize("utc", [False, True])
def test_times_are_the_batch_s(make_card, utc):
    """Receive constants as the driver has them, the time window's very edge, and a jump of card time.

    A rate that lets stamps pass through all fractions of a nanosecond, so that rounding counts.
    """
    rng = random.Random(18)
    constants = [0, 1, 5000, (1 << 32) - 1]  # of a second nearly
    few = [packet(rng, 60) for _ in range(200)]
    sent = [[rng.choice(few) for _ in range(300)] for _ in range(PORTS)]
    gaps: list[int] = []
    for time_ns in (0, 672 * 5 - 1, 672 * 5, 672 * 5 + 1, 998_000_000, 1_000_100_000):
        simulated, card = make_card(block_log2=18, utc=utc, constants_q32=constants)
        prepare(card, "exact", None, time_ns)
        card.load_time_q32(1_700_000_000 << 32 | 0xFFF00000)
        card.set_rate_ppb(70_000)
        card.start()
        for port in range(PORTS):
            simulated.send(port, frames(sent[port]))
        simulated.run(15_000)
        card.load_time_q32(1_700_000_000 << 32 | rng.choice([0, 0xFFF80000]))
        records = receive(card, simulated)
        gaps.append(check(records, "exact", None, time_ns))
        with pytest.raises(ConfigError, match="compares times with these constants"):
            card.use_constants([0] * PORTS)
        with pytest.raises(ConfigError, match="compares times with these constants"):
            card.set_phy_latency(0, 10, 20)
        card.close()
    assert gaps == sorted(gaps) and gaps[0] < gaps[-1]


def test_departures_pass(make_card):
    rng = random.Random(19)
    simulated, card = make_card(block_log2=18)
    prepare(card, "exact", 50, None, action="drop")
    card.start()
    n = 200
    for port in range(PORTS):
        simulated.send(port, frames([packet(rng, 60)] * n, gap=100))
        card.send_batch(port, FrameBatch.from_frames([bytes(60)] * n), stamp=True, timeout_s=0)
    records = receive(card, simulated)
    left = card.departures()
    assert len(left) == PORTS * n and len(records) == PORTS
    for port in range(PORTS):
        assert left["cookie"][left["port"] == port].tolist() == list(range(n))
    assert check_books(card, records) == [n - 1] * PORTS


def test_card_that_is_full_again_and_again(make_card):
    """More frames than numbers of frames there are; frames back by the window's size, less, and more."""
    n = 3 * SIZE
    back = [SIZE - 2, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE - 1, 2 * SIZE, 2 * SIZE + 1]
    contents = [number.to_bytes(4, "big") * 15 for number in range(n)]
    for k in range(140):
        contents[n - 1 - 3 * k] = contents[n - 1 - 3 * k - back[k % len(back)]]
    simulated, card = make_card(block_log2=20)
    prepare(card, "exact", None, 10**9)
    card.start(ports=[0])
    simulated.send(0, frames(contents, gap=4, preamble=0))
    records = receive(card, simulated)
    assert records.contents == contents
    assert check(records, "exact", None, 10**9) >= 40
    assert card.duplicates().limited == n - SIZE


def test_profile_changes_under_traffic(make_card):
    """No port falls silent between stop() and start(): each frame has the profile of its start."""
    rng = random.Random(23)
    simulated, card = make_card(block_log2=16)
    for port, ppb in enumerate((90_000, -100_000, 0, 40_000)):
        simulated.set_clock(f"rx{port}", ppb=ppb)
    card.load_digest_key(expand(SEED))
    sent = mix(rng, 2600, [60, 61, 100, 400], spread=60)
    for port in range(PORTS):
        simulated.send(port, frames(sent[port]))
    found = stored = 0
    for profile in ("routing", None, "vlan", "exact", "routing", "exact", None, "vlan", "routing"):
        card.set_duplicates(profile, window=SIZE)
        card.start(keep_runt=True)
        simulated.run(rng.randint(4000, 9000))
        card.stop()
        records = Records()
        for batch in card.receive(2e-5):  # the judge may be microseconds behind
            records.add(batch)
        assert len(records) > 100 and set(records.port) == set(range(PORTS))
        stored += len(records)
        assert sum(counted["stored"] - counted["discarded"] for counted in card.counters()) == stored
        if profile is not None:
            found += check(records, profile, SIZE, None)
            continue
        assert not any(records.duplicate)
        digests = Window(profile="exact", count=2, seed=SEED).digests(
            *(records.columns()[i] for i in (0, 1, 2, 4)), LINKTYPES
        )
        assert np.asarray(digests.key, np.uint64).reshape(-1, 2)[:, 0].tolist() == records.digest
    assert found > 100
    assert all(simulated.pending(port) for port in range(PORTS))
    assert card.read("port[0].rx_status") == 0


@pytest.mark.parametrize("seed", range(3))
def test_profile_register_written_under_traffic(make_card, seed):
    """Which the driver does not allow: no port hangs, no frame is lost, and later ones are right."""
    rng = random.Random(seed)
    simulated, card = make_card(block_log2=16)
    for port in range(PORTS):
        simulated.set_clock(f"rx{port}", ppb=rng.uniform(-1e5, 1e5))
    prepare(card, "vlan", SIZE, None)
    card.start(keep_runt=True)
    sent = mix(rng, 700, [60, 61, 90, 400], spread=60)
    for port in range(PORTS):
        for _ in range(80):
            sent[port].insert(rng.randrange(len(sent[port])), rng.randbytes(rng.choice([1, 14, 59, 60, 200])))
        simulated.send(port, frames(sent[port]))
    records = Records()
    while any(simulated.pending(port) for port in range(PORTS)):
        card.write_fields("dedup.control", profile=rng.randrange(4))
        simulated.run(rng.randint(1, 900))
        batch = card.poll(0.0)
        if batch is not None:
            with batch:
                records.add(batch)
    card.write_fields("dedup.control", profile=2)
    for batch in card.receive(1e-3):
        records.add(batch)
    for port in range(PORTS):
        assert [c for c, at in zip(records.contents, records.port, strict=True) if at == port] == sent[port]
    card.stop()
    card.set_duplicates("routing", window=SIZE)
    card.start()
    for port in range(PORTS):
        simulated.send(port, frames(sent[port][:200]))
    assert check(receive(card, simulated), "routing", SIZE, None) > 50
    assert all(card.read(f"port[{port}].rx_status") == 0 for port in range(PORTS))


def test_digests_for_a_longer_window(make_card):
    """At the host, without the frames' bytes: further back than the card's window reaches."""
    rng = random.Random(20)
    sent = mix(rng, 400, [60], spread=1500)
    for profile in ("exact", "vlan", "routing"):
        simulated, card = make_card(block_log2=16)
        prepare(card, profile, 10, None)
        card.start(keep_runt=True)
        host = Window(profile=profile, count=1000, seed=SEED, workers=2)
        by_bytes = Window(profile=profile, count=1000, seed=SEED)
        for port in range(PORTS):
            simulated.send(port, frames(sent[port]))
        found = 0
        for batch in card.receive(1e-3):
            verdicts = host.process_digests(card.window_digests(batch), batch.timestamp_ns, batch.caplen)
            columns = (
                batch.data,
                batch.offset,
                batch.caplen,
                batch.timestamp_ns,
                batch.port,
                batch.linktypes,
            )
            expected = by_bytes.process(*columns)
            assert bytes(verdicts.keep) == bytes(expected.keep)
            types = np.asarray(verdicts.type)[np.asarray(verdicts.keep) == 0]
            assert set(types.tolist()) <= {PROFILES[profile]}
            found += len(types)
        assert found > 100
        simulated.send(0, frames([bytes(20)] * 5))
        for batch in card.receive(1e-3):
            verdicts = host.process_digests(card.window_digests(batch), batch.timestamp_ns)
            assert len(batch) == 5 and bytes(verdicts.keep) == bytes([1] * 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"profile": "nat", "window": 5}, "no profile 'nat'"),
        ({"profile": "exact"}, "a count of frames, a time, or both"),
        ({"window": SIZE + 1}, "holds 0 to 8192"),
        ({"window": -1}, "holds 0 to 8192"),
        ({"time_ns": 1 << 62}, "2\\^62 - 1"),
        ({"window": 2, "action": "tag"}, "unknown action 'tag'"),
    ],
)
def test_bad_options(make_card, options, message):
    _, card = make_card()
    with pytest.raises(ConfigError, match=message):
        card.set_duplicates(**options)


def test_no_change_while_receiving_and_reset(make_card):
    simulated, card = make_card()
    assert "dedup" in card.identity.features and card.duplicate_window_size == SIZE
    assert COUNTERS[-1] == "duplicates_dropped"
    prepare(card, "routing", 5, 10**6, action="drop")
    card.start()
    with pytest.raises(ConfigError, match="stop"):
        card.set_duplicates("exact", window=5)
    simulated.send(0, frames([bytes(60)] * 3))
    assert len(receive(card, simulated)) == 1
    card.stop()
    card.reset()
    card.load_digest_key(expand(SEED))
    card.start()
    simulated.send(0, frames([bytes(60)] * 3))
    assert receive(card, simulated).duplicate == [False] * 3


@pytest.mark.long
def test_minutes_of_a_mix(make_card):
    """Whatever the seed: windows, clocks, sizes, a host that looks away."""
    seed = time.time_ns() % 2**32
    print("seed", seed)
    rng = random.Random(seed)
    for _ in range(12):
        profile = rng.choice(["exact", "vlan", "routing"])
        window = rng.choice([None, rng.randint(0, SIZE)])
        time_ns = int(10 ** (rng.random() * 7)) if window is None or rng.random() < 0.5 else None
        simulated, card = make_card(block_log2=rng.choice([14, 18]), blocks_log2=rng.choice([1, 6]))
        for port in range(PORTS):
            simulated.set_clock(f"rx{port}", ppb=rng.uniform(-1e5, 1e5))
        prepare(card, profile, window, time_ns)
        card.start()
        sent = mix(rng, 4000, rng.choice([[60], [60, 90], [60, 300, 1514], [60, 60, 9000]]), spread=3000)
        for port in range(PORTS):
            simulated.send(port, frames(sent[port][: 4000 if len(sent[port][0]) < 500 else 500]))
        records = receive(card, simulated)
        check_books(card, records, dropped=True)
        check(records, profile, window, time_ns)
        card.close()
