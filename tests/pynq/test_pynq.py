# SPDX-License-Identifier: Apache-2.0
"""The pynq transport with the real pynq library, on a device that is the simulated card (`make test-pynq`).

tests/card runs over it as well: its fixture takes this way to the card where TWINSTAMP_TRANSPORT=pynq.
"""

from __future__ import annotations

import os
import threading
import time
import tty
from contextlib import suppress

import numpy as np
import pynq
import pytest
from twinstamp.card import Card, open_card
from twinstamp.card.pynq import VLNV, PynqTransport, card_ip
from twinstamp.card.regmap import REGISTERS
from twinstamp.card.sim import SimulatedCard, frames
from twinstamp.errors import ConfigError, DeviceError

from tests.pynq.sim_device import SimDevice, bitfile, pynq_transport


def test_overlay_binds_the_driver(tmp_path):
    simulated = SimulatedCard()
    device = SimDevice(simulated)
    overlay = pynq.Overlay(bitfile(tmp_path), device=device)
    card_ip()
    overlay = pynq.Overlay(bitfile(tmp_path), device=device)
    assert type(overlay.card_0) is card_ip()
    assert overlay.card_0.read(REGISTERS["id.magic"].offset) == 0x54574E53
    simulated.close()


def test_frames_both_ways(tmp_path):
    """Out of port 0, through a cable, into port 1; the ring is pynq's buffer."""
    simulated = SimulatedCard()
    simulated.connect(0, simulated, 1, delay_ns=100)
    with Card(pynq_transport(simulated, tmp_path)) as card:
        assert card.transport.name == "pynq:card_0"
        card.start()
        content = [bytes([i]) * 100 for i in range(20)]
        for frame in content:
            card.send(0, frame, stamp=True)
        got = [batch.frame(i) for batch in card.receive(2e-3) for i in range(len(batch))]
        assert got == content
        assert len(card.departures()) == 20
        assert np.shares_memory(card._memory, card.transport._memory)


def test_which_card(tmp_path):
    simulated = SimulatedCard()
    with pytest.raises(ConfigError, match=f"has no {VLNV}"):
        pynq_transport(simulated, tmp_path, cards={"dma_0": "xilinx.com:ip:axi_dma:7.1"})
    two = {"a": VLNV, "b": VLNV}
    with pytest.raises(ConfigError, match="these: a, b"):
        pynq_transport(simulated, tmp_path, cards=two)
    with pytest.raises(ConfigError, match="no card 'c'; it has: a, b"):
        pynq_transport(simulated, tmp_path, cards=two, ip="c")
    transport = pynq_transport(simulated, tmp_path, cards=two, ip="b")
    assert transport.name == "pynq:b"
    transport.close()
    with pytest.raises(DeviceError, match="closed"):
        transport.read32(0)
    simulated.close()


def test_an_older_version_of_the_ip_is_found(tmp_path):
    """pynq takes a driver for other versions of its IP; the register map tells whether it fits."""
    simulated = SimulatedCard()
    transport = pynq_transport(simulated, tmp_path, cards={"card": VLNV.rpartition(":")[0] + ":1.7"})
    assert transport.name == "pynq:card"
    transport.close()
    simulated.close()


@pytest.mark.parametrize("coherent", [False, True])
def test_memory(tmp_path, coherent):
    simulated = SimulatedCard()
    device = SimDevice(simulated)
    transport = PynqTransport(bitfile(tmp_path), device=device, coherent=coherent)
    memory, address = transport.map_memory(1 << 20)
    assert len(memory) == 1 << 20 and memory.dtype == np.uint8 and address % 4096 == 0
    assert type(memory) is np.ndarray
    assert device.allocated == [{"cacheable": 1} if coherent else {}]
    transport.close()
    memory[:] = 7  # whoever holds it still may
    simulated.close()


def test_no_memory_and_no_file(tmp_path, monkeypatch):
    simulated = SimulatedCard()
    device = SimDevice(simulated)

    def refuse(*_, **__):
        raise RuntimeError("Failed to allocate memory buffer")

    monkeypatch.setattr(device, "allocate", refuse)
    transport = PynqTransport(bitfile(tmp_path), device=device)
    with pytest.raises(DeviceError, match="CMA"):
        transport.map_memory(1 << 20)
    transport.close()
    with pytest.raises(DeviceError, match="nothere"):
        PynqTransport(str(tmp_path / "nothere.bit"), device=device)
    with pytest.raises(DeviceError, match="uio9"):
        PynqTransport(bitfile(tmp_path), device=device, uio=str(tmp_path / "uio9"))
    simulated.close()


def test_interrupt_ends_the_wait(tmp_path):
    """A pty stands in for /dev/uioN: what is written unmasks, four bytes to read are an interrupt."""
    simulated = SimulatedCard()
    kernel, ours = os.openpty()
    tty.setraw(ours)
    transport = PynqTransport(bitfile(tmp_path), device=SimDevice(simulated), uio=os.ttyname(ours))
    assert 0.05 <= transport.wait(0.05) < 2
    assert os.read(kernel, 16) == b"\1\0\0\0"
    timer = threading.Timer(0.05, os.write, (kernel, b"\1\0\0\0"))
    timer.start()
    started = time.monotonic()
    assert transport.wait(30) < 10
    assert time.monotonic() - started < 10
    timer.join()
    transport.close()
    os.close(kernel)
    os.close(ours)
    simulated.close()


def test_interrupt_is_up_while_a_block_was_not_seen(tmp_path):
    """The level, from the card's register; and wait with a stand-in for the kernel that looks at it."""
    simulated = SimulatedCard()
    kernel, ours = os.openpty()
    tty.setraw(ours)
    transport = PynqTransport(bitfile(tmp_path), device=SimDevice(simulated), uio=os.ttyname(ours))

    def pending():
        return simulated.read32(REGISTERS["ring.interrupt"].offset) >> 1

    def unmasked():
        assert os.read(kernel, 4) == b"\1\0\0\0"
        for _ in range(50):  # what the card does meanwhile
            if pending():
                os.write(kernel, b"\1\0\0\0")
                return
            simulated.run(10_000)

    def timed(seconds):
        thread = threading.Thread(target=unmasked)
        thread.start()
        waited = transport.wait(seconds)
        thread.join()
        return waited

    with Card(transport) as card:
        card.start()
        os.set_blocking(kernel, False)
        with suppress(BlockingIOError):  # of the driver's short waits
            os.read(kernel, 1000)
        os.set_blocking(kernel, True)
        card.write("ring.interrupt", 0)
        simulated.send(0, frames([bytes(60)]))
        simulated.run(200_000)  # the block's time-out, 1 ms, closes it
        assert card.read("ring.producer") == 1 and pending() == 0  # not enabled
        assert timed(0.2) >= 0.2 and pending() == 0  # seen
        simulated.send(0, frames([bytes(60)]))
        assert timed(60) < 30 and pending() == 1
        assert timed(60) < 30  # still not seen
        assert card.read("ring.producer") == 2
        assert timed(0.2) >= 0.2 and pending() == 0
        card.write("ring.interrupt", 0)
        simulated.send(0, frames([bytes(60)]))
        simulated.run(200_000)
        assert card.read("ring.producer") == 3 and pending() == 0  # disabled
    os.close(kernel)
    os.close(ours)
    simulated.close()


def test_by_name(tmp_path, monkeypatch):
    simulated = SimulatedCard()
    monkeypatch.setattr(pynq.Device, "_active_device", SimDevice(simulated), raising=False)
    with open_card(f"pynq:{bitfile(tmp_path)}") as card:
        assert card.identity.ports == 4
        card.start()
        simulated.send(3, frames([bytes(60)]))
        simulated.run(20_000)
        card.flush()
        simulated.run(2_000)
        batch = card.poll(0.1)
        assert batch is not None and batch.port.tolist() == [3]
        batch.release()
    simulated.close()


def test_phys_are_started_by_the_file_beside_the_bit_file(tmp_path, monkeypatch):
    """The simulated PHY is none whose delays could be set: that is how one sees that it was tried."""
    simulated = SimulatedCard()
    monkeypatch.setattr(pynq.Device, "_active_device", SimDevice(simulated), raising=False)
    place = tmp_path / "twinstamp.phys.toml"
    place.write_text("receive_delay = true\ntransmit_delay = false\n")
    with pytest.raises(DeviceError, match="0x00221622 delays its RGMII clocks"):
        open_card(f"pynq:{bitfile(tmp_path)}")
    place.write_text("receive_delay = 2\n")
    with pytest.raises(ConfigError, match=r"phys\.toml"):
        open_card(f"pynq:{bitfile(tmp_path)}")
    simulated.close()
