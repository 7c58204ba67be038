# SPDX-License-Identifier: Apache-2.0
"""Warp: the same run, plain and with idle time in one step, must be the same to the last bit."""

from __future__ import annotations

import random

import numpy as np
import pytest
from twinstamp.card import Card
from twinstamp.card.regmap import REGISTERS
from twinstamp.card.sim import PORTS, Cloud, SimulatedCard, frames

from tests.card.sending import collect

NS = 2**32 / 1e9
CLOCKS = ("core", "rx0", "rx1", "rx2", "rx3")


def registers(card: Card) -> dict[str, int]:
    readable = (name for name in REGISTERS if any(f.readable for f in REGISTERS[name].fields.values()))
    return {name: card.read(name) for name in readable}


def drain(card: Card, out: list[object]) -> None:
    batch = card.poll(0.0)
    while batch is not None:
        with batch:
            out.append((batch.data.tobytes(), batch.stamp_q32.tolist(), batch.sequence.tolist()))
        batch = card.poll(0.0)


def scenario(
    seed: int, warp: bool, *, cloud: bool = False, stall: bool = False, polls: str = "none"
) -> tuple[list[object], int]:
    """Bursts of frames in and out, launches, rate and register changes with idle gaps of up to 20 ms.

    polls: of the PHYs: "none", "same" (all ports, every 40,000 cycles) or "mixed", with links that go.
    """
    rng = random.Random(seed)
    simulated = SimulatedCard(seed=seed, warp=warp)
    card = Card(simulated, block_log2=14)
    for port in range(PORTS):
        cycles = {"none": 0, "same": 40_000, "mixed": (0, 33_333, 50_000, 4_000)[port]}[polls]
        card.write(f"port[{port}].phy.poll", cycles)
    out: list[object] = []
    for clock in CLOCKS:
        simulated.set_clock(clock, ppb=rng.randint(-100_000, 100_000))
        if rng.random() < 0.7:
            simulated.set_wander(clock, white_ppb=1, walk_ppb=3000, seed=rng.randrange(1 << 60))
    simulated.connect(3, simulated, 3)
    clouds = []
    if cloud:
        clouds = [Cloud(simulated, 0, delay_ns=50_000, jitter_ns=400_000, reorder=0.2, seed=seed)]
    card.start()
    card.load_time_q32(rng.randrange(1 << 63))
    for _ in range(8):
        simulated.run(rng.choice((1, 300, 5000, 200_000, 800_000, rng.randint(1, 200_000))))
        kind = rng.randrange(7)
        content = [rng.randbytes(rng.randint(60, 300)) for _ in range(rng.randint(1, 10))]
        if kind < 2:
            for port in range(3):
                simulated.send(port, frames(content, gap=[rng.choice((12, 4000, 90_000)) for _ in content]))
        elif kind == 2:
            late = frames(content)
            late.items["not_before_fs"] = [simulated.now_fs + rng.randint(0, 2 * 10**12) for _ in content]
            simulated.send(1, late)
        elif kind == 3:
            launch = card.time_q32() + round(rng.choice((20_000, 1_000_000)) * NS)
            for c in content:
                card.send(3, c, launch_q32=launch, stamp=True, cookie=len(c))
                launch += round(rng.choice((100, 300_000)) * NS)
        elif kind == 4:
            card.set_rate_ppb(rng.randint(-50_000, 50_000))
        elif kind == 5:
            card.slew_ns(rng.randint(-2000, 2000))
        elif clouds:
            clouds[0].send(frames(content, gap=rng.choice((12, 20_000))))
        if stall and rng.random() < 0.3:
            simulated.set_memory_stall(rng.choice((0.0, 0.1)), latency=(1, 40))
        if polls == "mixed":
            simulated.set_phy(2, (100, 900), negotiation_cycles=rng.randint(10, 60_000))
            simulated.plug(2, rng.random() < 0.7)
        out.append(simulated.run_wires(4_000_000))
        simulated.run_until(simulated.now_fs + rng.randint(0, 10**12))
        out.append((simulated.now_fs, simulated.cycles, simulated.bursts, card.time_q32()))
        out.append([card.links(), [simulated.phy(port) for port in range(PORTS)]])
        drain(card, out)
    simulated.run(400_000)
    drain(card, out)
    out.append(registers(card))
    out.append(card.counters())
    out.append(card.departures().tolist())
    out.append([simulated.truth(port).tobytes() for port in range(PORTS)])
    out.append([c.truth().tobytes() for c in clouds])
    out.append([simulated.clock_truth(clock) for clock in CLOCKS])
    out.append(card.time_q32())
    out.append(simulated.state())
    warped = simulated.warped
    card.close()
    return out, warped


@pytest.mark.parametrize(("seed", "polls"), [(1, "none"), (3, "same"), (6, "mixed")])
def test_warped_run_is_the_plain_run(seed, polls):
    plain, none = scenario(seed, False, cloud=seed % 2 == 1, stall=seed == 3, polls=polls)
    warped, some = scenario(seed, True, cloud=seed % 2 == 1, stall=seed == 3, polls=polls)
    assert none == 0 and some > 100_000
    for a, b in zip(plain, warped, strict=True):
        assert a == b
    assert any(isinstance(entry, tuple) and isinstance(entry[0], bytes) for entry in plain)


def test_a_second_passes_at_once():
    """125 M cycles with a thousand polls of each PHY; the stamp after it is right."""
    simulated = SimulatedCard(warp=True)
    card = Card(simulated)
    simulated.set_clock("core", ppb=50_000)
    simulated.set_wander("rx2", white_ppb=1, walk_ppb=100)
    card.start()
    before = card.time_q32()
    simulated.run(125_000_000)
    assert simulated.cycles > 125_000_000 and simulated.warped > 124_000_000
    assert all(link.up for link in card.links())
    assert abs((card.time_q32() - before) / 2**32 - 1) < 1e-4
    simulated.send(2, frames([bytes(60)]))
    stamps = collect(card)[2].stamp_q32
    truth = simulated.truth(2)
    constant = card.read("port[2].rx_constant")
    assert np.abs(stamps[0] - int(truth["sfd_q32"][0]) - constant) / NS < 4.4
    card.close()


def test_rounds_of_polls_pass_at_once():
    """Plain and warped over eleven rounds, most of them in one step; then a link that went meanwhile."""
    runs = []
    for warp in (False, True):
        simulated = SimulatedCard(warp=warp)
        card = Card(simulated)
        for port in range(PORTS):
            card.write(f"port[{port}].phy.poll", 20_000 + 10 * port % 20)
        card.start()
        card.load_time_q32(5 << 32)
        simulated.run(260_000)
        out = [simulated.warped, card.links(), card.time_q32(), simulated.state()]
        simulated.plug(1, False)
        simulated.run(100_000)
        out += [card.links(), card.time_q32(), simulated.state()]
        card.close()
        runs.append(out)
    plain, warped = runs
    assert plain[0] == 0 and warped[0] > 200_000
    assert plain[1:] == warped[1:]
    assert warped[1][1].up and not warped[4][1].up


def test_edges_are_those_of_verilator():
    """The harness's way through the model, and Verilator's eval(): the same records, registers, truths."""

    def run(plain: bool) -> list[object]:
        rng = random.Random(8)
        simulated = SimulatedCard(seed=8)
        simulated.set_plain(plain)
        card = Card(simulated, block_log2=14)
        out: list[object] = []
        for clock in CLOCKS:
            simulated.set_clock(clock, ppb=rng.randint(-100_000, 100_000))
        simulated.connect(3, simulated, 3)
        card.start()
        for _ in range(6):
            for port in range(3):
                content = [rng.randbytes(rng.randint(60, 200)) for _ in range(8)]
                simulated.send(port, frames(content, gap=[rng.choice((12, 400)) for _ in content]))
            card.send(3, rng.randbytes(90), stamp=True, cookie=1)
            card.set_loopback(rng.randrange(4), rng.choice(("near", "far", "off")))
            simulated.run_wires(20_000)
            simulated.run(3000)
            drain(card, out)
        card.flush()
        simulated.run(4000)
        drain(card, out)
        out += [registers(card), card.counters(), card.departures().tolist()]
        out += [simulated.truth(port).tobytes() for port in range(PORTS)]
        card.close()
        return out

    assert run(False) == run(True)
