# SPDX-License-Identifier: Apache-2.0
"""Transmit: frames, gaps, launch times, departure stamps, overflow, underrun. Times in ps or 2^-32 s."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, FallingEdge, ReadOnly, RisingEdge, Timer
from cocotb.utils import get_sim_time
from cocotbext.axi import AxiStreamBus, AxiStreamFrame, AxiStreamSource
from cocotbext.eth import GmiiSink

CORE_PS = 8000
WINDOW_PS = 200
LAUNCH, LATE, UNDERRUN, DROPPED, BAD_FCS, FIRST_BYTE = (1 << i for i in range(6))


@dataclass(frozen=True)
class Report:
    epoch: int
    flags: int
    tag: int
    stamp_q32: int


@dataclass(frozen=True)
class End:
    dropped: int
    underrun: int
    bad_fcs: int
    multicast: int
    broadcast: int
    length: int

    @classmethod
    def of(cls, value: int) -> End:
        return cls(*((value >> b) & 1 for b in (20, 19, 18, 17, 16)), value & 0xFFFF)


def words(
    data: bytes,
    *,
    tag: int,
    launch_q32: int | None = None,
    bad_fcs: bool = False,
    length: int | None = None,
) -> bytes:
    head = (
        (len(data) if length is None else length) | (launch_q32 is not None) << 16 | bad_fcs << 17 | tag << 32
    )
    return head.to_bytes(8, "little") + (launch_q32 or 0).to_bytes(8, "little") + data


class Port:
    def __init__(self, bench: Bench, name: str, period_ps: int, clock: object) -> None:
        dut = bench.dut
        self.bench, self.name, self.period_ps = bench, name, period_ps
        self.source = AxiStreamSource(AxiStreamBus.from_prefix(dut, f"{name}_axis"), dut.clk)
        self.sink = GmiiSink(self.signal("txd"), self.signal("tx_er"), self.signal("tx_en"), clock)
        self.reports: list[Report] = []
        self.events: list[End] = []
        self.malformed = 0
        self.signal("report_ready").value = 1
        cocotb.start_soon(self._watch())

    def signal(self, name: str) -> object:
        return getattr(self.bench.dut, f"{self.name}_{name}")

    async def _watch(self) -> None:
        valid, ready, value = (self.signal(n) for n in ("report_valid", "report_ready", "report"))
        event, end, malformed = (self.signal(n) for n in ("event", "event_end", "malformed"))
        while True:
            await FallingEdge(self.bench.dut.clk)
            if valid.value == 1 and ready.value == 1:
                bits = int(value.value)
                self.reports.append(
                    Report(bits >> 104, bits >> 96 & 0xFF, bits >> 64 & 0xFFFFFFFF, bits & (1 << 64) - 1)
                )
            if event.value == 1:
                self.events.append(End.of(int(end.value)))
            self.malformed += int(malformed.value)

    async def send(self, data: bytes, **options: object) -> None:
        await self.source.send(AxiStreamFrame(words(data, **options)))

    async def frame(self) -> tuple[bytes, int]:
        """The next frame without its FCS, which is checked, and when its SFD came onto the pins, in ps."""
        frame = await self.sink.recv()
        # The sink keeps no data of the first byte; its time and that of the byte behind the SFD tell.
        assert frame.data[:7] == b"\x55" * 6 + b"\xd5"
        assert frame.sim_time_sfd - frame.sim_time_start == 8 * self.period_ps
        assert frame.error is None
        assert frame.check_fcs()
        return bytes(frame.get_payload()), self.sfd(frame)

    def sfd(self, frame: object) -> int:
        # The sink samples a byte one period after it came onto the pins.
        return frame.sim_time_start + 6 * self.period_ps

    async def idle(self, *, cycles: int = 30000) -> None:
        await self.source.wait()
        for _ in range(cycles):
            await RisingEdge(self.bench.dut.clk)
            await ReadOnly()
            if self.signal("idle").value == 1:
                break
        else:
            raise AssertionError("the port does not come to rest")
        await ClockCycles(self.bench.dut.clk, 30)
        assert self.signal("fault").value == 0


class Bench:
    def __init__(self, dut: object) -> None:
        self.dut = dut

    @classmethod
    async def start(cls, dut: object, *, tx_ps: int = 8001, first_byte: bool = False, gap: int = 12) -> Bench:
        self = cls(dut)
        for name in ("enable", "flush", "m_frame_valid", "m_byte_valid", "m_byte", "m_byte_last", "rst_n"):
            getattr(dut, name).value = 0
        dut.first_byte.value = first_byte
        dut.gap.value = gap
        cocotb.start_soon(Clock(dut.clk, CORE_PS, "ps").start())
        await Timer(random.randrange(1, 8000), "ps")
        cocotb.start_soon(Clock(dut.tx_clk, tx_ps, "ps", period_high=tx_ps // 2).start())
        self.tx_ps = tx_ps
        self.a = Port(self, "a", tx_ps, dut.tx_clk)
        self.s = Port(self, "s", CORE_PS, dut.clk)
        await ClockCycles(dut.clk, 5)
        dut.rst_n.value = 1
        dut.enable.value = 1
        await ClockCycles(dut.clk, 20)
        await ReadOnly()
        # Card time becomes now_q32 at this very edge.
        self.base_ps, self.base_q32 = int(get_sim_time("ps")), int(dut.now_q32.value)
        await RisingEdge(dut.clk)
        return self

    def card_ps(self, q32: int) -> Fraction:
        """Simulation time of a card time, in ps."""
        return self.base_ps + Fraction((q32 - self.base_q32) * 10**12, 2**32)

    def q32_in(self, ps: int) -> int:
        """Card time `ps` from now."""
        return self.base_q32 + ((int(get_sim_time("ps")) + ps - self.base_ps) * 2**32) // 10**12


def noise(length: int) -> bytes:
    return random.randbytes(length)


@cocotb.test()
async def frames_come_out_as_they_went_in(dut: object) -> None:
    bench = await Bench.start(dut)
    lengths = [14, 15, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 1514, 9022, 100, 9022, 60]
    for port in (bench.a, bench.s):
        sent = [noise(n) for n in lengths]
        sent[4] = b"\xff" * 6 + sent[4][6:]
        for tag, data in enumerate(sent):
            await port.send(data, tag=tag | 0xABCD0000)
        for data in sent:
            got, _ = await port.frame()
            assert got == data.ljust(60, b"\0")
        await port.idle()
        assert [r.tag for r in port.reports] == [t | 0xABCD0000 for t in range(len(lengths))]
        assert {(r.epoch, r.flags) for r in port.reports} == {(3, 0)}
        assert [e.length for e in port.events] == [max(n, 60) + 4 for n in lengths]
        assert [e.broadcast for e in port.events] == [int(i == 4) for i in range(len(lengths))]
        assert [e.multicast for e in port.events] == [s[0] & 1 for s in sent]
        assert port.sink.empty()


@cocotb.test()
@cocotb.parametrize((("gap", "want"), [(12, 12), (3, 12), (96, 96)]))
async def back_to_back_frames_keep_the_gap_and_no_more(dut: object, gap: int, want: int) -> None:
    bench = await Bench.start(dut, gap=gap)
    for port in (bench.a, bench.s):
        for tag in range(12):
            await port.send(noise(60 + tag), tag=tag)
        times = [(await port.frame()) for _ in range(12)]
        gaps = [(t1 - t0) // port.period_ps - 8 - len(d) - 4 for (d, t0), (_, t1) in pairwise(times[2:])]
        assert set(gaps) == {want}, gaps


async def launches(port: Port, count: int, spacing_ps: int) -> tuple[list[float], list[float]]:
    """Errors in ns of `count` launches against the time asked for, and of their stamps against the truth."""
    bench = port.bench
    asked = []
    for tag in range(count):
        at = (
            bench.q32_in(3_000_000 + random.randrange(8000))
            if not asked
            else asked[-1] + ((spacing_ps + random.randrange(-9000, 9000)) * 2**32 // 10**12)
        )
        asked.append(at)
        cocotb.start_soon(port.send(noise(60), tag=tag, launch_q32=at))
        await RisingEdge(bench.dut.clk)
    truth = [(await port.frame())[1] for _ in range(count)]
    await port.idle()
    assert [r.tag for r in port.reports[-count:]] == list(range(count))
    constant = int(port.signal("constant").value)
    moved = 1 if bench.dut.first_byte.value == 1 else 0
    truth = [t + moved * port.period_ps for t in truth]
    launch = [float(t - bench.card_ps(q)) / 1000 for t, q in zip(truth, asked, strict=True)]
    stamp = [
        float(bench.card_ps(r.stamp_q32 - constant) - t) / 1000
        for t, r in zip(truth, port.reports[-count:], strict=True)
    ]
    wrong = [
        (tag, r.flags, a, b)
        for tag, (r, a, b) in enumerate(zip(port.reports[-count:], launch, stamp, strict=True))
        if r.flags != LAUNCH | (FIRST_BYTE if moved else 0)
    ]
    assert not wrong, wrong
    return launch, stamp


def figures(name: str, errors: list[float]) -> None:
    print(
        f"{name}: n {len(errors)} mean {statistics.mean(errors):+.2f} std {statistics.pstdev(errors):.2f} "
        f"min {min(errors):+.2f} max {max(errors):+.2f} ns"
    )


@cocotb.test()
@cocotb.parametrize((("tx_ps", "first_byte"), [(8003, False), (7997, True)]))
async def launch_within_a_clock_and_stamps_within_half_of_one(
    dut: object, tx_ps: int, first_byte: bool
) -> None:
    window = WINDOW_PS / 1000
    # Every phase between the clocks is met within the run.
    bench = await Bench.start(dut, tx_ps=tx_ps, first_byte=first_byte)
    launch, stamp = await launches(bench.a, 220, 1_100_000)
    figures(f"own clock {tx_ps} ps, launch", launch)
    figures(f"own clock {tx_ps} ps, stamp ", stamp)
    # The lead is for the nominal clock; its periods are this much longer.
    drift = 10 * (tx_ps - 8000) / 1000
    assert max(abs(e - drift) for e in launch) <= 8 + window
    assert abs(statistics.mean(launch) - drift) < 0.7
    assert max(abs(e) for e in stamp) <= 4 + window + 0.25  # 2^-32 s
    assert abs(statistics.mean(stamp)) < 0.4
    assert statistics.pstdev(stamp) <= 2.4


@cocotb.test()
@cocotb.parametrize(first_byte=[False, True])
async def on_the_core_clock_launch_is_within_half_a_clock_and_stamps_are_exact(
    dut: object, first_byte: bool
) -> None:
    bench = await Bench.start(dut, first_byte=first_byte)
    launch, stamp = await launches(bench.s, 60, 1_000_000)
    figures("core clock, launch", launch)
    figures("core clock, stamp ", stamp)
    assert max(abs(e) for e in launch) <= 4 + 0.25
    assert max(abs(e) for e in stamp) <= 0.25  # 2^-32 s


@cocotb.test()
async def a_late_frame_is_reported_and_moves_no_other(dut: object) -> None:
    bench = await Bench.start(dut)
    for port in (bench.a, bench.s):
        await Timer(10, "us")
        start = bench.q32_in(20_000_000)
        step = 2**32 // 10**6  # 1 us
        plan = [
            ("past", 60, bench.q32_in(-5_000_000)),
            ("on time", 1500, start),  # 12.3 us on the wire
            ("behind the long one", 60, start + 5 * step),
            ("on time", 60, start + 40 * step),
            ("0", 60, 0),  # long over
            ("on time", 60, start + 50 * step),
        ]
        for tag, (_, length, at) in enumerate(plan):
            await port.send(noise(length), tag=tag, launch_q32=at)
        await RisingEdge(dut.clk)
        await ClockCycles(dut.clk, 400)
        assert port.signal("holding").value == 1
        truth = [(await port.frame())[1] for _ in plan]
        await port.idle()
        assert port.signal("holding").value == 0
        for (what, _, at), at_ps, report in zip(plan, truth, port.reports, strict=True):
            late_ns = float(at_ps - bench.card_ps(at)) / 1000
            if what == "on time":
                assert report.flags == LAUNCH and abs(late_ns) < 9, (what, late_ns)
            else:
                assert report.flags == LAUNCH | LATE and late_ns > 16, (what, late_ns)
        # Sent at once: the short one a gap behind the long one.
        assert truth[2] - truth[1] == (8 + 1504 + 12) * port.period_ps


@cocotb.test()
async def flushed_frames_are_reported_and_nothing_else_is_lost(dut: object) -> None:
    bench = await Bench.start(dut)
    port = bench.a
    await port.send(noise(300), tag=1)
    for tag in range(2, 9):
        await port.send(noise(61 + 100 * tag), tag=tag, launch_q32=2**63)
    await port.frame()
    await ClockCycles(dut.clk, 500)
    assert port.sink.empty()
    dut.flush.value = 1
    await port.idle()
    dut.flush.value = 0
    data = noise(99)
    await port.send(data, tag=9)
    await port.send(data, tag=10, bad_fcs=True)
    assert (await port.frame())[0] == data
    broken = await port.sink.recv()
    assert bytes(broken.get_payload()) == data
    assert bytes(broken.get_fcs()) == bytes(b ^ 0xFF for b in broken_fcs(data))
    await port.idle()
    assert [(r.tag, r.flags) for r in port.reports] == [
        (1, 0),
        *((t, LAUNCH | DROPPED) for t in range(2, 9)),
        (9, 0),
        (10, BAD_FCS),
    ]
    assert all(r.stamp_q32 == 0 for r in port.reports[1:8])


def broken_fcs(data: bytes) -> bytes:
    import zlib

    return zlib.crc32(data.ljust(60, b"\0")).to_bytes(4, "little")


@cocotb.test()
async def what_is_not_a_frame_is_counted_and_the_next_one_is_whole(dut: object) -> None:
    bench = await Bench.start(dut)
    port = bench.a
    bad = [
        words(noise(13), tag=0),
        words(noise(60), tag=0, length=9023),
        words(noise(60), tag=0, length=52),  # too many words
        words(noise(60), tag=0, length=61),  # tkeep
        words(noise(60), tag=0, length=70),  # too few words
        words(noise(60), tag=0)[:8],
        words(noise(60), tag=0)[:16],
        words(noise(60), tag=0)[:12],
        words(noise(64), tag=0, length=64 | 1 << 14),
        words(noise(9100), tag=0, length=60),
    ]
    good = [noise(60 + 7 * i) for i in range(len(bad))]
    for tag, (wrong, right) in enumerate(zip(bad, good, strict=True)):
        await port.source.send(AxiStreamFrame(wrong))
        await port.send(right, tag=tag)
    for right in good:
        assert (await port.frame())[0] == right
    await port.idle()
    assert port.malformed == len(bad)
    assert [r.tag for r in port.reports] == list(range(len(bad)))


@cocotb.test()
async def a_full_report_queue_is_counted_and_holds_nothing_up(dut: object) -> None:
    bench = await Bench.start(dut)
    port = bench.a
    port.signal("report_ready").value = 0
    for tag in range(40):
        await port.send(noise(60), tag=tag)
    times = [(await port.frame())[1] for _ in range(40)]
    assert {b - a for a, b in pairwise(times[3:])} == {84 * port.period_ps}
    await port.idle()
    assert port.signal("lost").value == 8
    port.signal("report_ready").value = 1
    await ClockCycles(dut.clk, 50)
    assert [r.tag for r in port.reports] == list(range(32))


@cocotb.test()
async def an_underrun_ends_in_error_codes_and_a_wrong_fcs(dut: object) -> None:
    bench = await Bench.start(dut)
    sink = GmiiSink(dut.m_txd, dut.m_tx_er, dut.m_tx_en, dut.tx_clk)
    ends = []

    async def watch() -> None:
        while True:
            await FallingEdge(dut.tx_clk)
            if dut.m_end_valid.value == 1:
                ends.append(End.of(int(dut.m_end.value)))

    cocotb.start_soon(watch())
    # (length, byte at which the feeder stops for a while)
    plan = [(80, None), (80, 0), (80, 1), (200, 70), (80, 79), (100, None)]
    sent = []
    for length, stop in plan:
        data = noise(length)
        sent.append(data)
        await FallingEdge(dut.tx_clk)
        dut.m_frame_valid.value = 1
        while dut.m_frame_ready.value == 0:
            await FallingEdge(dut.tx_clk)
        await FallingEdge(dut.tx_clk)
        dut.m_frame_valid.value = 0
        place = 0
        pause = 0
        while place < length:
            if place == stop and pause < (20 if stop else 24):
                dut.m_byte_valid.value = 0
                pause += 1
                await FallingEdge(dut.tx_clk)
                continue
            dut.m_byte_valid.value = 1
            dut.m_byte.value = data[place]
            dut.m_byte_last.value = place == length - 1
            taken = dut.m_byte_ready.value == 1
            await FallingEdge(dut.tx_clk)
            place += int(taken)
        dut.m_byte_valid.value = 0
        dut.m_byte_last.value = 0
    await ClockCycles(dut.tx_clk, 60)
    for (length, stop), data, end in zip(plan, sent, ends, strict=True):
        frame = await sink.recv()
        if stop is None:
            assert frame.check_fcs() and bytes(frame.get_payload()) == data and frame.error is None
            assert end.underrun == 0 and end.length == length + 4
        else:
            assert not frame.check_fcs()
            assert frame.error[-5:] == [1] * 5 and not any(frame.error[:-5])
            assert bytes(frame.get_payload())[:-1] == data[:stop]
            assert end.underrun == 1 and end.length == stop + 5
    assert sink.empty()
    await Timer(1, "ns")
    assert bench.a.sink.empty()
