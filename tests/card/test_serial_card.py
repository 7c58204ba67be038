# SPDX-License-Identifier: Apache-2.0
"""The card of a board without host memory, all of it RTL, by the driver over each bit of its serial line."""

from __future__ import annotations

import random

import numpy as np
import pytest
from twinstamp.card import Card
from twinstamp.card.uart import UartTransport
from twinstamp.errors import DeviceError

from tests.card.serial_line import SerialCardLine


def make(**options):
    line = SerialCardLine(**options)
    transport = UartTransport(line, "uart:bench", sleep=line.run)
    return line, transport, Card(transport, block_log2=14, blocks_log2=1, timeout_s=1e-4)


@pytest.mark.parametrize("skew", [1.0, 0.98])
def test_what_this_card_is(skew):
    line, transport, card = make(skew=skew)
    with card:
        assert card.identity.ports == 2
        assert card.identity.features >= {"transmit", "phy", "loopback", "discipline"}
        assert not card.identity.features & {"trains", "flow_hash", "digest", "dedup"}
        for address in (0x1200, 0x1308, 0x2200, 0x2300):  # registers and counters of ports that it has not
            assert transport.read32(address) == 0
        before = card.time_q32()
        assert card.time_q32() > before
        with pytest.raises(DeviceError, match="refused"):
            transport.read32(0x10001)
        assert line.framing_errors == transport.repeated == 0


def test_frames_in():
    """Sizes at random at both ports, more than the ring holds: unchanged, in order, stamped as they came."""
    rng = random.Random(3)
    line, _, card = make()
    with card:
        card.start()
        want = [[], []]
        got = [[], []]
        stamps = [[], []]
        for _ in range(3):
            for port in range(2):
                for size in (60, 61, rng.randrange(62, 1515), 1514, 124):
                    frame = rng.randbytes(size)
                    want[port].append(frame)
                    line.wire(port, frame)
            line.run(2e-4)
            while sum(map(len, got)) < sum(map(len, want)):
                batch = card.poll(0.01)
                assert batch is not None
                with batch:
                    for i in range(len(batch)):
                        start = int(batch.offset[i])
                        got[batch.port[i]].append(batch.data[start : start + int(batch.caplen[i])].tobytes())
                        stamps[batch.port[i]].append(int(batch.stamp_q32[i]))
        assert got == want
        for port in range(2):
            distance_ns = np.diff(stamps[port][:5]) * 1e9 / 2**32
            # Preamble and SFD, frame, FCS, gap: 8 ns a byte; one clock for all, so exact but for rounding.
            assert np.allclose(distance_ns, [8 * (len(frame) + 24) for frame in want[port][:4]], atol=0.5)
        for port, counters in enumerate(card.counters()):
            assert counters["good"] == counters["stored"] == len(want[port])
            assert counters["octets_good"] == sum(len(frame) + 4 for frame in want[port])


def test_frames_out():
    rng = random.Random(4)
    line, _, card = make()
    with card:
        card.start()
        want = [[rng.randbytes(size) for size in (60, 200, 1514)] for _ in range(2)]
        for port in range(2):
            for k, frame in enumerate(want[port]):
                card.send(port, frame, stamp=True, cookie=100 * port + k)
        line.run(1e-4)
        for port in range(2):
            assert [line.sent(port) for _ in range(4)] == [*want[port], None]
        left = []
        for _ in range(20):
            card.poll(0.001)
            left += card.departures().tolist()
            if len(left) == 6:
                break
        assert sorted(row[card.departures().dtype.names.index("cookie")] for row in left) == [
            0,
            1,
            2,
            100,
            101,
            102,
        ]


def test_more_than_the_line_can_take():
    """The ring holds two blocks: what comes beyond is dropped as whole frames, and counted."""
    line, _, card = make()
    with card:
        card.start()
        frames = [bytes([k % 251]) * 600 for k in range(160)]
        for k, frame in enumerate(frames):
            line.wire(k % 2, frame)
        line.run(2e-3)
        got = []
        while (batch := card.poll(0.002)) is not None:
            with batch:
                for i in range(len(batch)):
                    start = int(batch.offset[i])
                    got.append(batch.data[start : start + int(batch.caplen[i])].tobytes())
        counters = card.counters()
        received, dropped = (sum(c[name] for c in counters) for name in ("good", "dropped"))
        assert received == len(frames) and len(got) + dropped == received and dropped > 0
        assert set(got) <= set(frames)


def test_card_time_is_whole_over_the_line():
    """The words of a read are two requests, hundreds of microseconds apart; the core reads card time all the
    while.
    """
    from tests.loop.test_whole_reads import NOW, READS_TIME

    _, transport, card = make()
    with card:
        for at in range(0, len(READS_TIME), 4):
            transport.write32(0x10000 + at, int.from_bytes(READS_TIME[at : at + 4], "little"))
        card.write("cpu.watchdog", 0xFFFFFFFF)
        card.write("cpu.control", 1)
        card.load_time_q32(1000 << 32)
        begin = transport.read32(NOW)
        took = transport.read32(NOW) - begin  # of one request, 2^-32 s
        for k in range(20):
            # The turn of a second anywhere in both requests.
            card.load_time_q32((1001 + k << 32) - took * (k + 1) // 10)
            low = transport.read32(NOW)
            value = transport.read32(NOW + 4) << 32 | low
            now = card.time_q32()
            assert 0 < now - value < 8 * took, k
        assert card.fields("cpu.status")["running"]
