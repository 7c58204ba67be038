# SPDX-License-Identifier: Apache-2.0
"""RGMII by the tables of its specification (Reduced Gigabit Media Independent Interface 2.0, 2002)."""

from __future__ import annotations

import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge

# Table 4: RX_CTL at the rising and at the falling edge, RX_DV, RX_ER.
CONTROL = [(0, 0, 0, 0), (0, 1, 0, 1), (1, 1, 1, 0), (1, 0, 1, 1)]


async def start(dut: object) -> None:
    for name in ("txd", "tx_en", "tx_er", "rx_rise", "rx_fall"):
        getattr(dut, name).value = 0
    cocotb.start_soon(Clock(dut.clk, 8000, "ps").start())
    dut.rst_n.value = 0
    await ClockCycles(dut.clk, 3)
    await FallingEdge(dut.clk)
    assert (int(dut.rx_dv.value), int(dut.rx_er.value)) == (0, 0)
    assert (int(dut.tx_rise.value), int(dut.tx_fall.value)) == (0, 0)
    dut.rst_n.value = 1


@cocotb.test()
async def received_bytes_and_controls_follow_table_4(dut: object) -> None:
    await start(dut)
    for rise, fall, dv, er in CONTROL:
        for byte in range(256):
            # Bits 3:0 come first, with the rising edge (table 1).
            dut.rx_rise.value = rise << 4 | byte & 15
            dut.rx_fall.value = fall << 4 | byte >> 4
            await FallingEdge(dut.clk)
            got = int(dut.rxd.value), int(dut.rx_dv.value), int(dut.rx_er.value)
            assert got == (byte, dv, er), (rise, fall, byte)
            assert int(dut.status_valid.value) == (not dv and not er)


@cocotb.test()
async def link_status_is_read_between_frames(dut: object) -> None:
    await start(dut)
    for nibble in range(16):
        # Table 4: RXD<0> link, RXD<2:1> clock of 2.5, 25, 125 MHz, RXD<3> duplex; both edges say the same.
        dut.rx_rise.value = dut.rx_fall.value = nibble
        await FallingEdge(dut.clk)
        got = (
            int(dut.status_valid.value),
            int(dut.link.value),
            int(dut.speed.value),
            int(dut.full_duplex.value),
        )
        assert got == (1, nibble & 1, nibble >> 1 & 3, nibble >> 3)


@cocotb.test()
async def sent_bytes_and_controls_follow_table_3(dut: object) -> None:
    await start(dut)
    for rise, fall, en, er in CONTROL:
        for byte in range(256):
            dut.txd.value, dut.tx_en.value, dut.tx_er.value = byte, en, er
            await FallingEdge(dut.clk)
            got = int(dut.tx_rise.value), int(dut.tx_fall.value)
            assert got == (rise << 4 | byte & 15, fall << 4 | byte >> 4)


@cocotb.test()
async def a_random_stream_comes_back_two_edges_later(dut: object) -> None:
    await start(dut)
    sent: list[tuple[int, int, int]] = []
    for _ in range(2000):
        sent.append((random.randrange(256), random.randrange(2), random.randrange(2)))
        dut.txd.value, dut.tx_en.value, dut.tx_er.value = sent[-1]
        await FallingEdge(dut.clk)
        if len(sent) > 1:
            assert (int(dut.rxd.value), int(dut.rx_dv.value), int(dut.rx_er.value)) == sent[-2]
        dut.rx_rise.value = int(dut.tx_rise.value)
        dut.rx_fall.value = int(dut.tx_fall.value)
