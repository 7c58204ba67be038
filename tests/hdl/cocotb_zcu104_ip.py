# SPDX-License-Identifier: Apache-2.0
"""The packaged card on its buses: registers, memory, cables between ports, interrupt, serial line, PPS."""

from __future__ import annotations

import random
import struct

import cocotb
from cocotb.triggers import ClockCycles, Timer
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam
from twinstamp.card.regmap import MAGIC, REGISTERS

RING, SENDING = 0x10_0000, 0x20_0000
NS_Q32 = 2**32 / 1e9


class Card:
    def __init__(self, dut: object) -> None:
        self.dut = dut
        self.bus = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk)
        self.memory = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, size=0x40_0000)

    async def write(self, name: str, value: int) -> None:
        register = REGISTERS[name]
        for at in range(0, register.width // 8, 4):
            await self.bus.write_dword(register.offset + at, value >> 8 * at & 0xFFFFFFFF)

    async def read(self, name: str) -> int:
        register = REGISTERS[name]
        words = [await self.bus.read_dword(register.offset + at) for at in range(0, register.width // 8, 4)]
        return sum(word << 32 * i for i, word in enumerate(words))

    async def until(self, name: str, value: int, cycles: int) -> None:
        for _ in range(cycles // 50):
            if await self.read(name) == value:
                return
            await ClockCycles(self.dut.clk, 50)
        raise AssertionError(f"{name} does not become {value}")


async def start(dut: object) -> Card:
    dut.resetn.value = 0
    await Timer(100, "ns")
    card = Card(dut)
    await Timer(100, "ns")
    dut.resetn.value = 1
    await ClockCycles(dut.clk, 20)
    return card


@cocotb.test()
async def registers_and_resets(dut: object) -> None:
    card = await start(dut)
    assert int(dut.phy_reset_n.value) == 0
    assert await card.read("id.magic") == MAGIC
    assert await card.read("id.features") & 8 == 0  # not simulated, for all it knows
    await card.write("id.scratch", 0xA5C3_5A3C)
    assert await card.read("id.scratch") == 0xA5C3_5A3C
    await ClockCycles(dut.clk, 100)
    assert int(dut.phy_reset_n.value) == 15
    # A command of one port moves its MDIO bus, and nobody answers.
    await card.write("port[2].phy.command", 1 << 21 | 2 << 16)
    seen = set()
    for _ in range(200):
        seen.add(int(dut.mdio.value))
        await ClockCycles(dut.clk, 20)
    assert {bits | 4 for bits in seen} == {15} and 11 in seen, seen
    assert await card.read("port[2].phy.answer") >> 31 == 1


@cocotb.test()
async def frames_over_the_cables_and_an_interrupt(dut: object) -> None:
    card = await start(dut)
    await card.write("ring.base", RING)
    await card.write("ring.shape", 14 | 1 << 5)
    await card.write("ring.timeout", 2000)
    await card.write("ring.interrupt", 1)
    await card.write("ring.control", 1)
    for port in range(4):
        await card.write(f"port[{port}].rx_control", 1)
    frames = {port: random.randbytes(60 + 37 * port) for port in range(4)}
    assert int(dut.irq.value) == 0
    for port, frame in frames.items():
        record = struct.pack("<HHHHQQQ", len(frame), 0, 0, 0, 0, 0, 0) + frame
        record += bytes(-len(record) % 8)
        base = SENDING + 0x1000 * port
        card.memory.write(base, record)
        await card.write(f"port[{port}].tx_base", base)
        await card.write(f"port[{port}].tx_control", 1 | 9 << 4)
        await card.write(f"port[{port}].tx_producer", len(record) // 8)
    await card.until("ring.producer", 1, 20_000)
    assert int(dut.irq.value) == 1
    await card.write("ring.seen", 1)
    await ClockCycles(dut.clk, 5)
    assert int(dut.irq.value) == 0
    block = card.memory.read(RING, 1 << 14)
    assert block[:4] == b"TSB1"
    used, records = struct.unpack_from("<II", block, 16)
    at, got = 64, {}
    for _ in range(records):
        caplen, length, port = struct.unpack_from("<HHB", block, at)
        assert length == caplen
        got[port] = bytes(block[at + 32 : at + 32 + caplen])
        at += 32 + (caplen + 7 & ~7)
    assert at == used
    assert got == {peer: frames[peer ^ 1] for peer in range(4)}


@cocotb.test()
async def a_byte_over_the_serial_line(dut: object) -> None:
    card = await start(dut)
    await card.write("uart.divider", 16)
    for byte in (0x00, 0x5A, 0xFF):
        await card.write("uart.transmit", byte)
        await ClockCycles(dut.clk, 300)
        assert await card.read("uart.receive") == 0x100 | byte


@cocotb.test()
async def a_pulse_from_the_output_is_captured(dut: object) -> None:
    """With all delays 0: what is captured is the whole second, and the ways through output and sampler."""
    card = await start(dut)
    second = 1_800_000_000
    await card.write("pps.filter", 20)
    await card.write("pps.output_width", 100)
    await card.write("clock.load_time", (second << 32) - int(20_000 * NS_Q32))
    await card.write("clock.control", 1)
    await card.write("pps.control", 0b101)
    await card.until("pps.edges", 1, 10_000)
    late_ns = (await card.read("pps.edge_time") - (second << 32)) / NS_Q32
    dut._log.warning(f"captured {late_ns:.2f} ns after the second")
    assert 15 <= late_ns <= 60
