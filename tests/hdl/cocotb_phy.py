# SPDX-License-Identifier: Apache-2.0
"""MDIO by the letter of clause 22, link epochs, latency changing with the link, loopbacks. Times in ps."""

from __future__ import annotations

import random
from dataclasses import dataclass

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, Edge, FallingEdge, First, RisingEdge, Timer
from cocotb.utils import get_sim_time
from cocotbext.eth import GmiiFrame, GmiiSink, GmiiSource

CORE_PS = 8000


@dataclass(frozen=True)
class Management:
    read: bool
    phy: int
    register: int
    turnaround: int
    data: int


class Bus:
    """Reads the wire as clause 22 says, and holds the times against 22.2.2.13 and 22.3.4."""

    def __init__(self, dut: object) -> None:
        self.dut = dut
        self.frames: list[Management] = []
        self.changed_ps = 0
        cocotb.start_soon(self._bits())
        cocotb.start_soon(self._changes())

    async def _changes(self) -> None:
        while True:
            await Edge(self.dut.mdio)
            now = int(get_sim_time("ps"))
            if self.dut.master_drives.value == 1:
                assert now - self.rise_ps >= 10_000, "hold"
            self.changed_ps = now

    async def _bits(self) -> None:
        self.rise_ps = -1_000_000
        ones = 0
        bits: list[int] = []
        while True:
            await RisingEdge(self.dut.mdc)
            now = int(get_sim_time("ps"))
            assert now - self.rise_ps >= 400_000, "MDC faster than 2.5 MHz"
            assert now - self.changed_ps >= 10_000, "setup"
            self.rise_ps = now
            bit = int(self.dut.mdio.value)
            if not bits and bit:
                ones += 1
                continue
            if not bits:
                assert ones >= 32, f"preamble of {ones} bits"
            bits.append(bit)
            if len(bits) == 32:
                value = int("".join(map(str, bits)), 2)
                assert value >> 30 == 0b01
                assert value >> 28 & 3 in (0b01, 0b10)
                self.frames.append(
                    Management(
                        value >> 28 & 3 == 0b10,
                        value >> 23 & 31,
                        value >> 18 & 31,
                        value >> 16 & 3,
                        value & 0xFFFF,
                    )
                )
                bits, ones = [], 0


async def start(dut: object, *, rx_ps: int = 8000, tx_ps: int = 8000) -> Bus:
    for name in (
        "poll",
        "command",
        "command_write",
        "command_phy",
        "command_register",
        "command_data",
        "cable",
        "near",
        "far",
    ):
        getattr(dut, name).value = 0
    dut.partner.value = 0x01E1
    dut.partner_gigabit.value = 0b10
    for clock, period in ((dut.clk, CORE_PS), (dut.rx_clk, rx_ps), (dut.tx_clk, tx_ps)):
        cocotb.start_soon(Clock(clock, period, "ps", period_high=period // 2).start())
    bus = Bus(dut)
    # MDC does not run in reset: the PHY needs the edge.
    dut.rst_n.value = 1
    await ClockCycles(dut.clk, 5)
    dut.rst_n.value = 0
    await ClockCycles(dut.clk, 5)
    dut.rst_n.value = 1
    await ClockCycles(dut.clk, 10)
    return bus


async def command(dut: object, register: int, *, phy: int = 1, data: int | None = None) -> tuple[int, int]:
    await FallingEdge(dut.clk)
    dut.command.value = 1
    dut.command_write.value = data is not None
    dut.command_phy.value = phy
    dut.command_register.value = register
    dut.command_data.value = data or 0
    await FallingEdge(dut.clk)
    dut.command.value = 0
    assert dut.busy.value == 1
    await FallingEdge(dut.busy)
    await FallingEdge(dut.clk)
    return int(dut.data.value), int(dut.error.value)


async def until(dut: object, signal: object, value: int, cycles: int) -> None:
    for _ in range(cycles):
        await RisingEdge(dut.clk)
        if signal.value == value:
            return
    raise AssertionError(f"{signal._name} does not become {value} in {cycles} periods")


@cocotb.test()
async def management_frames_are_clause_22(dut: object) -> None:
    bus = await start(dut)
    assert await command(dut, 2) == (0x0022, 0)
    assert await command(dut, 3) == (0x1622, 0)
    assert await command(dut, 0) == (0x1140, 0)
    await command(dut, 4, data=0xA5C3)
    assert await command(dut, 4) == (0xA5C3, 0)
    await command(dut, 4, phy=2, data=0x1111)  # another PHY's
    assert await command(dut, 4) == (0xA5C3, 0)
    assert (await command(dut, 2, phy=30)) == (0xFFFF, 1)
    assert [(f.read, f.phy, f.register) for f in bus.frames] == [
        (True, 1, 2),
        (True, 1, 3),
        (True, 1, 0),
        (False, 1, 4),
        (True, 1, 4),
        (False, 2, 4),
        (True, 1, 4),
        (True, 30, 2),
    ]
    assert (bus.frames[3].turnaround, bus.frames[3].data) == (0b10, 0xA5C3)
    assert bus.frames[4].turnaround & 1 == 0 and bus.frames[-1].turnaround & 1 == 1
    # Reset, and back to defaults.
    await command(dut, 0, data=0x8000)
    assert await command(dut, 4) == (0x01E1, 0)


@cocotb.test()
async def each_link_up_is_counted_and_has_its_own_latency(dut: object) -> None:
    await start(dut)
    dut.poll.value = 1000
    medium = GmiiSource(dut.medium_in, dut.medium_in_er, dut.medium_in_en, dut.clk)
    sink = GmiiSink(dut.p_rxd, dut.p_rx_er, dut.p_rx_dv, dut.clk)
    mac = GmiiSource(dut.p_txd, dut.p_tx_er, dut.p_tx_en, dut.clk)
    out = GmiiSink(dut.medium_out, dut.medium_out_er, dut.medium_out_en, dut.clk)
    await ClockCycles(dut.clk, 10_000)
    assert dut.link.value == 0 and dut.answers.value == 1 and dut.ups.value == 0
    latencies = set()
    for up in range(1, 7):
        dut.cable.value = 1
        await until(dut, dut.link, 1, 40_000)
        assert (int(dut.ups.value), int(dut.speed.value), int(dut.full_duplex.value)) == (up, 2, 1)
        frame = GmiiFrame.from_payload(random.randbytes(100))
        for source, wire, truth in ((medium, sink, dut.rx_latency), (mac, out, dut.tx_latency)):
            sent = GmiiFrame(frame)
            done: list[GmiiFrame] = []
            sent.tx_complete = done.append
            await source.send(sent)
            got = await wire.recv()
            assert got.check_fcs() and got.get_payload() == frame.get_payload()
            latency = (got.sim_time_start - done[0].sim_time_start) // CORE_PS - 1
            assert latency == truth.value and 3 <= latency <= 10
        latencies.add((int(dut.rx_latency.value), int(dut.tx_latency.value)))
        # Down for less than a poll: the latched bit tells.
        dut.cable.value = 0
        await ClockCycles(dut.clk, 5)
        dut.cable.value = up % 2
        await until(dut, dut.link, 0, 40_000)
    assert len(latencies) >= 4, latencies


@cocotb.test()
async def speed_is_what_both_offer_and_the_host_gets_in_between(dut: object) -> None:
    await start(dut)
    dut.poll.value = 300
    dut.cable.value = 1
    plan = [
        (0x01E1, 0b10, 2, 1),
        (0x01E1, 0b01, 2, 0),
        (0x0181, 0, 1, 1),
        (0x0081, 0, 1, 0),
        (0x0041, 0, 0, 1),
        (0x0021, 0, 0, 0),
    ]
    for partner, gigabit, speed, duplex in plan:
        dut.partner.value = partner
        dut.partner_gigabit.value = gigabit
        await command(dut, 0, data=0x1340)  # restart
        await until(dut, dut.link, 0, 40_000)
        await until(dut, dut.link, 1, 60_000)
        assert (int(dut.speed.value), int(dut.full_duplex.value)) == (speed, duplex)
        data, error = await command(dut, 5)
        assert (data & 0x3FFF, error) == (partner, 0)
    # Forced 100 Mb/s full duplex.
    await command(dut, 0, data=0x2100)
    dut.cable.value = 0
    await until(dut, dut.link, 0, 40_000)
    dut.cable.value = 1
    await until(dut, dut.link, 1, 60_000)
    assert (int(dut.speed.value), int(dut.full_duplex.value)) == (1, 1)


@cocotb.test()
async def the_phy_loops_back_on_request(dut: object) -> None:
    await start(dut)
    mac = GmiiSource(dut.p_txd, dut.p_tx_er, dut.p_tx_en, dut.clk)
    back = GmiiSink(dut.p_rxd, dut.p_rx_er, dut.p_rx_dv, dut.clk)
    await command(dut, 0, data=0x4140)
    for length in (60, 300):
        frame = GmiiFrame.from_payload(random.randbytes(length))
        await mac.send(frame)
        got = await back.recv()
        assert got.check_fcs() and got.get_payload() == frame.get_payload()
    assert dut.medium_out_en.value == 0


@cocotb.test()
@cocotb.parametrize((("rx_ps", "tx_ps"), [(8001, 7999), (7999, 8001), (8000, 8000)]))
async def loopbacks_keep_every_frame_between_two_clocks(dut: object, rx_ps: int, tx_ps: int) -> None:
    await start(dut, rx_ps=rx_ps, tx_ps=tx_ps)
    mac = GmiiSource(dut.mac_txd, dut.mac_tx_er, dut.mac_tx_en, dut.tx_clk)
    pins = GmiiSource(dut.pin_rxd, dut.pin_rx_er, dut.pin_rx_dv, dut.rx_clk)
    mac_sink = GmiiSink(dut.mac_rxd, dut.mac_rx_er, dut.mac_rx_dv, dut.rx_clk)
    pin_sink = GmiiSink(dut.pin_txd, dut.pin_tx_er, dut.pin_tx_en, dut.tx_clk)
    frames = [GmiiFrame.from_payload(random.randbytes(n)) for n in (60, 60, 61, 2000, 60, 9022, 60)]

    async def expect(sink: GmiiSink) -> None:
        for frame in frames:
            got = await sink.recv()
            assert got.error is None and got.check_fcs() and got.get_payload() == frame.get_payload()
            assert got.sim_time_sfd - got.sim_time_start == 8 * (rx_ps if sink is mac_sink else tx_ps)

    async def send(source: GmiiSource) -> None:
        for frame in frames:
            await source.send(frame)

    await send(mac)
    await send(pins)
    await expect(pin_sink)
    await expect(mac_sink)
    dut.near.value = 1
    await Timer(200, "ns")
    await send(mac)
    await expect(mac_sink)
    assert pin_sink.empty()
    dut.near.value = 0
    dut.far.value = 1
    await Timer(200, "ns")
    await send(pins)
    await expect(pin_sink)
    await expect(mac_sink)  # the receive MAC sees them too
    await mac.send(frames[0])
    await mac.wait()
    await Timer(2, "us")
    assert pin_sink.empty() and mac_sink.empty()
    await First(Timer(1, "ns"))
