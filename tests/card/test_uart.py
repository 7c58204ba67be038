# SPDX-License-Identifier: Apache-2.0
"""The card over a serial line: every bit of it through the Verilated bridge, the simulated card behind it."""

from __future__ import annotations

import os
import random
import threading

import numpy as np
import pytest
from twinstamp.card import Card, open_card
from twinstamp.card.sim import SimulatedCard, frames
from twinstamp.card.uart import MEMORY_BYTES, UartTransport, crc16
from twinstamp.errors import ConfigError, DeadCardError, DeviceError

from tests.card.uart_line import BenchLine, uart_transport


def make(**options):
    simulated = SimulatedCard()
    transport = uart_transport(simulated, **options)
    return simulated, transport, Card(transport, block_log2=14, blocks_log2=1, timeout_s=1e-4)


def test_crc_is_the_catalogues():
    """CRC RevEng, CRC-16/IBM-3740: check value of "123456789"."""
    assert crc16(b"123456789") == 0x29B1


@pytest.mark.parametrize("skew", [1.0, 0.98, 1.02])
def test_registers(skew):
    simulated, transport, card = make(skew=skew)
    with card:
        assert card.identity.ports == 4
        rng = random.Random(5)
        for _ in range(20):
            value = rng.getrandbits(32)
            transport.write32(0x18, value)
            assert transport.read32(0x18) == value == simulated.read32(0x18)
        before = card.time_q32()
        assert card.time_q32() > before
        with pytest.raises(DeviceError, match="0x10001 refused"):
            transport.read32(0x10001)
        assert transport.repeated == 0 and transport._line.framing_errors == 0


def test_frames_in():
    """Both blocks of the ring, twice round, sizes at random: the same frames as without the line."""
    rng = random.Random(3)
    content = [[rng.randbytes(rng.choice((60, 61, 124, 600, 1514))) for _ in range(4)] for _ in range(4)]
    for direct in (True, False):
        simulated = SimulatedCard()
        transport = simulated if direct else uart_transport(simulated)
        with Card(transport, block_log2=14, blocks_log2=1, timeout_s=1e-4) as card:
            card.start()
            got = [[] for _ in range(4)]
            stamp = [[] for _ in range(4)]
            for turn in range(4):
                for port in range(4):
                    part = content[port][turn : turn + 1]
                    simulated.send(port, frames(part))
                for batch in card.receive(1e-3):
                    for i in range(len(batch)):
                        got[batch.port[i]].append(batch.frame(i))
                        stamp[batch.port[i]].append(int(batch.stamp_q32[i]))
            assert got == content
            assert all(sorted(each) == each for each in stamp)


def test_frames_out_and_departures():
    simulated, _, card = make()
    simulated.connect(1, simulated, 3, delay_ns=100)
    rng = random.Random(4)
    sent = [rng.randbytes(1514 if i % 2 else 60) for i in range(14)]  # more than the ring of 8 KiB
    with card:
        card.start()
        got, departures = [], []
        for i, frame in enumerate(sent):
            card.send(1, frame, stamp=True, cookie=i)
            for batch in card.receive(2e-4):
                got += [batch.frame(i) for i in range(len(batch))]
            departures += card.departures()["cookie"].tolist()
        for batch in card.receive(1e-3):
            got += [batch.frame(i) for i in range(len(batch))]
        departures += card.departures()["cookie"].tolist()
        assert got == sent and departures == list(range(14))
        with pytest.raises(ConfigError, match="give 14 to 8160"):
            card.send(1, bytes(9000))


def test_a_bad_line_costs_time_only():
    """One byte in 1,000 lost or with a bit turned: what comes out is right, and nothing is done twice."""
    simulated, transport, card = make(damage=0.001, seed=11)
    with card:
        card.start()
        content = [bytes([i]) * 100 for i in range(10)]
        for frame in content:
            simulated.send(0, frames([frame]))
        got = [batch.frame(i) for batch in card.receive(2e-3) for i in range(len(batch))]
        assert got == content
        simulated.connect(2, simulated, 3, delay_ns=100)
        for i in range(20):  # a write done twice would send a frame twice
            card.send(2, bytes([0x80 + i]) * 60)
        got = [batch.frame(i) for batch in card.receive(2e-3) for i in range(len(batch))]
        assert got == [bytes([0x80 + i]) * 60 for i in range(20)]
        assert transport.repeated > 2


def test_a_second_host_begins_with_the_same_tags():
    """Its first write is no repetition of the first host's last one: the driver reads before it writes."""
    simulated = SimulatedCard()
    line = BenchLine(simulated)
    for value in (1, 2):
        transport = UartTransport(line)
        assert transport.read32(0) == 0x54574E53
        transport.write32(0x18, value)
        assert simulated.read32(0x18) == value
    line.close()


def test_bytes_on_the_line():
    """What docs/uart.md makes its rates of: bytes from the card for each frame, many in a block."""
    for size, frames_sent, most in ((60, 160, 104), (1514, 9, 1640)):
        simulated, transport, card = make()
        with card:
            card.start()
            simulated.send(0, frames([bytes(size)] * frames_sent))
            simulated.run(200_000)
            line = transport._line
            before = line.bytes_in
            got = 0
            while got < frames_sent:
                batch = card.poll(0.01)
                assert batch is not None
                with batch:
                    got += len(batch)
            assert (line.bytes_in - before) / frames_sent <= most


def test_what_is_not_asked_is_answered_with_nothing():
    """Noise, half requests, wrong CRCs and operations: then a request is answered as ever."""
    simulated = SimulatedCard()
    line = BenchLine(simulated)
    transport = UartTransport(line)
    rng = random.Random(9)
    for _ in range(30):
        line.write(
            rng.choice(
                [rng.randbytes(rng.randrange(40)), b"\xa5" + rng.randbytes(rng.randrange(12)), b"\xa5" * 9]
            )
        )
        line.read(0)
        line.reset_input_buffer()
        assert transport.read32(0) == 0x54574E53
    for op in (0, 5, 255):
        with pytest.raises(DeviceError, match="no such request"):
            transport._ask(op, 0, 1)
    with pytest.raises(DeviceError, match="no such request"):
        transport._ask(3, MEMORY_BYTES - 8, 2)
    with pytest.raises(DeviceError, match="no such request"):
        transport._ask(3, 4, 1)
    transport.close()


def test_memory_word_by_word():
    simulated = SimulatedCard()
    transport = uart_transport(simulated)
    memory, _ = transport.map_memory(MEMORY_BYTES)
    there = transport._line._memory
    rng = np.random.default_rng(1)
    memory[:] = rng.integers(0, 256, MEMORY_BYTES, dtype=np.uint8)
    transport._write_memory(0, 4096)
    transport._write_memory(MEMORY_BYTES - 8, MEMORY_BYTES)
    np.testing.assert_array_equal(there[:4096], memory[:4096])
    np.testing.assert_array_equal(there[-8:], memory[-8:])
    there[8192:12288] = rng.integers(0, 256, 4096, dtype=np.uint8)
    transport._read_memory(8192, 12288)
    np.testing.assert_array_equal(memory[8192:12288], there[8192:12288])
    transport.close()


def test_nobody_there():
    class Silent:
        def write(self, data):
            return len(data)

        def read(self, size):
            return b""

        def reset_input_buffer(self):
            pass

        def close(self):
            pass

    with pytest.raises(DeadCardError, match="nobody answers, asked 6 times"):
        Card(UartTransport(Silent(), "uart:/dev/none"))
    with pytest.raises(DeviceError, match="cannot be opened"):
        open_card("uart:/dev/there-is-none")
    with pytest.raises(ConfigError, match="64 KiB of memory"):
        UartTransport(Silent()).map_memory(1 << 20)


def test_over_a_real_serial_line():
    """pyserial on a pseudo-terminal; at its other end the bridge."""
    simulated = SimulatedCard()
    line = BenchLine(simulated)
    ours, theirs = os.openpty()
    stop = threading.Event()

    def carry():
        while not stop.is_set():
            data = os.read(ours, 4096)
            if data == b"\xff" * 8:
                return
            line.write(data)
            os.write(ours, line.read(1 << 12))

    import tty

    tty.setraw(theirs)
    carrier = threading.Thread(target=carry)
    carrier.start()
    try:
        with open_card(f"uart:{os.ttyname(theirs)}") as card:
            assert card.identity.ports == 4
            card.write("id.scratch", 0x12345678)
            assert simulated.read32(0x18) == 0x12345678
    finally:
        os.write(theirs, b"\xff" * 8)
        carrier.join(30)
        os.close(ours)
        os.close(theirs)
        line.close()
