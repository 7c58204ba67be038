# SPDX-License-Identifier: Apache-2.0
"""card_memory under cocotbext-axi's master, with pauses, while the other port works on it too."""

from __future__ import annotations

import itertools
import random

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from cocotbext.axi import AxiBus, AxiMaster, AxiResp

BASE = 0x1_0000_0000
SIZE = 8 << 10


async def start(dut: object) -> AxiMaster:
    cocotb.start_soon(Clock(dut.clk, 8, "ns").start())
    dut.rst.value = 1
    dut.write.value = dut.address.value = dut.data.value = 0
    master = AxiMaster(AxiBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst, max_burst_len=16)
    for _ in range(4):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    return master


def pauses(seed: int):
    rng = random.Random(seed)
    return iter(lambda: rng.random() < 0.4, None)


@cocotb.test()
async def bursts_both_ways(dut: object) -> None:
    master = await start(dut)
    for i, channel in enumerate(
        (master.write_if.aw_channel, master.write_if.w_channel, master.write_if.b_channel,
         master.read_if.ar_channel, master.read_if.r_channel)
    ):  # fmt: skip
        channel.set_pause_generator(pauses(i))
    rng = random.Random(1)
    model = bytearray(SIZE)
    await master.write(BASE, bytes(model))
    for _ in range(120):
        at = 8 * rng.randrange(SIZE // 8)
        size = 8 * rng.randrange(1, 33)
        size = min(size, SIZE - at)
        data = rng.randbytes(size)
        if rng.random() < 0.5:
            answer = await master.write(BASE + at, data)
            assert answer.resp == AxiResp.OKAY
            model[at : at + size] = data
        else:
            answer = await master.read(BASE + at, size)
            assert answer.resp == AxiResp.OKAY and answer.data == bytes(model[at : at + size])
    assert (await master.read(BASE, SIZE)).data == bytes(model)


@cocotb.test()
async def outside_is_an_error_and_changes_nothing(dut: object) -> None:
    master = await start(dut)
    content = bytes(itertools.islice(itertools.cycle(range(251)), SIZE))
    await master.write(BASE, content)
    for at in (BASE + SIZE, BASE - 8, 0, 1 << 40):
        assert (await master.write(at, bytes(8))).resp == AxiResp.SLVERR
        assert (await master.read(at, 8)).resp == AxiResp.SLVERR
    assert (await master.read(BASE, SIZE)).data == content


@cocotb.test()
async def both_ports_at_once(dut: object) -> None:
    """The bridge reads and writes one half while bursts go to the other."""
    master = await start(dut)
    rng = random.Random(2)
    half = SIZE // 2
    await master.write(BASE, bytes(SIZE))
    model = [0] * (half // 8)

    async def bridge() -> None:
        for _ in range(400):
            at = rng.randrange(half // 8)
            dut.address.value = half // 8 + at
            if rng.random() < 0.5:
                value = rng.getrandbits(64)
                dut.data.value = value
                dut.write.value = 1
                await RisingEdge(dut.clk)
                dut.write.value = 0
                model[at] = value
            else:
                await RisingEdge(dut.clk)
                await RisingEdge(dut.clk)
                assert dut.data_read.value.to_unsigned() == model[at]

    task = cocotb.start_soon(bridge())
    other = bytearray(half)
    while not task.done():
        at = 8 * rng.randrange(half // 8 - 16)
        data = rng.randbytes(128)
        await master.write(BASE + at, data)
        other[at : at + 128] = data
        assert (await master.read(BASE + at, 128)).data == data
    await task
    assert (await master.read(BASE, half)).data == bytes(other)
    assert (await master.read(BASE + half, half)).data == b"".join(v.to_bytes(8, "little") for v in model)
