# SPDX-License-Identifier: Apache-2.0
"""Parts that sleep (decision 0104): the same as with everything evaluated always."""

from __future__ import annotations

import random

import numpy as np
import pytest
from twinstamp.card import Card
from twinstamp.card.sim import PORTS, SimulatedCard, frames
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.train import Constant, Poisson

from tests.card.test_sim_warp import CLOCKS, drain, registers
from tests.train.made import make


def day(seed: int, plain: bool) -> list[object]:
    """Everything that wakes something, in turn, with pauses in which all of it falls asleep."""
    rng = random.Random(seed)
    simulated = SimulatedCard(seed=seed)
    simulated.set_plain(plain)
    card = Card(simulated, block_log2=14, timeout_s=2e-5)
    out: list[object] = []
    for clock in CLOCKS:
        simulated.set_clock(clock, ppb=rng.randint(-100_000, 100_000))
    simulated.connect(3, simulated, 3, delay_ns=30)
    polls = rng.choice(((0, 0, 0, 0), (4000, 4000, 4000, 4000), (0, 5000, 7001, 33), (500, 501, 502, 503)))
    for port in range(PORTS):
        card.write(f"port[{port}].phy.poll", polls[port])
    card.start()
    content: list[bytes] = []
    for _ in range(16):
        kind = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 8, 8))
        port = rng.randrange(PORTS)
        if rng.random() < 0.7:  # else the same frames again
            content = [rng.randbytes(rng.randint(14, 200)) for _ in range(6)]
        content = content or [bytes(60)]
        if kind < 3:
            if rng.random() < 0.5:
                simulated.run(1000)  # no register is read before the frames come
            simulated.send(
                rng.randrange(3), frames(content, gap=[rng.choice((12, 90, 400)) for _ in content])
            )
        elif kind == 3:
            card.send(
                port, content[0], stamp=True, cookie=kind, launch_q32=card.time_q32() + rng.randrange(50_000)
            )
        elif kind == 4:
            gap = rng.choice((Constant("3us"), Poisson("4us")))
            train = make(4, gap, 90, seed=seed)
            try:
                card.port(port).send(train, after="40us", allow_unsynchronised=True, allow_late=True)
            except (ConfigError, DeviceError) as error:  # the link is down, all slots are in use
                out.append(str(error))
        elif kind == 5:
            card.set_loopback(port, rng.choice(("near", "far", "off")))
        elif kind == 6:
            out.append(card.counters())
        elif kind == 7:
            simulated.plug(port, rng.random() < 0.7)
        else:
            card.stop()
            simulated.run(rng.choice((1, 500)))
            drain(card, out)
            profile = rng.choice((None, "exact", "vlan", "routing"))
            card.set_duplicates(profile, window=20, action=rng.choice(("mark", "drop")))
            card.start()
        simulated.run(rng.choice((1, 70, 100, 130, 500, 3000, rng.randint(1, 6000))))
        if rng.random() < 0.5:
            out.append((simulated.now_fs, np.frombuffer(simulated.state(), np.uint8).size))
        drain(card, out)
    simulated.run(9000)
    out.append(registers(card))
    drain(card, out)
    out += [simulated.truth(p).tobytes() for p in range(PORTS)]
    return out


@pytest.mark.parametrize("seed", range(8))
def test_what_sleeps_is_not_missed(seed: int):
    plain, fast = day(seed, True), day(seed, False)
    assert len(plain) > 8
    assert plain == fast


def standing(cycles: int, profile: int, plain: bool) -> list[object]:
    """Port 0's receive clock stands while the duplicate profile is on its way there, as a frame begins."""
    simulated = SimulatedCard(seed=3)
    simulated.set_plain(plain)
    card = Card(simulated, block_log2=14, timeout_s=2e-5)
    card.start()
    out: list[object] = []
    simulated.send(0, frames([bytes(60)]))
    simulated.run(5000)
    drain(card, out)
    card.write_fields("dedup.control", profile=profile)
    simulated.run(40)
    simulated.send(0, frames([bytes(60)]))
    simulated.run(cycles)
    simulated.set_clock("rx0", phase_fs=3_000_000_000)
    card.write("dedup.control", 0)
    simulated.run(1200)
    simulated.send(0, frames([bytes(61)] * 2))
    simulated.run(5000)
    drain(card, out)
    assert not simulated.pending(0)
    out.append(registers(card))
    return out


@pytest.mark.parametrize("profile", [2, 3])
def test_nothing_sleeps_behind_a_clock_that_stands(profile: int):
    for cycles in range(4, 14):
        plain, fast = standing(cycles, profile, True), standing(cycles, profile, False)
        assert plain == fast
        assert len(plain) > 1


def waiting(plain: bool) -> list[object]:
    """More to send than the transmit FIFO holds, behind a launch time; no register is touched meanwhile."""
    simulated = SimulatedCard(seed=4)
    simulated.set_plain(plain)
    card = Card(simulated, block_log2=14, timeout_s=2e-5)
    simulated.connect(1, simulated, 2, delay_ns=30)
    card.start()
    launch = card.time_q32() + int(40e-6 * 2**32)
    card.send(1, bytes(60), stamp=True, launch_q32=launch)
    for _ in range(3):
        card.send(1, bytes(9000), stamp=True)
    simulated.run(40_000)
    out: list[object] = []
    drain(card, out)
    out.append(card.departures().tobytes())
    out.append(registers(card))
    return out


def test_a_full_transmit_fifo_is_filled_again():
    plain, fast = waiting(True), waiting(False)
    assert plain == fast
    assert plain[-1]["port[1].tx_consumer"] == plain[-1]["port[1].tx_producer"] > 0
