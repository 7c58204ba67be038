# SPDX-License-Identifier: Apache-2.0
"""Checks of the simulated card that need its world: cables, other clocks, damaged frames, and the truth."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

from twinstamp.card.card import STAMP_BOUND_NS, Card
from twinstamp.card.selftest_figures import BLOCK_TIMEOUT_S
from twinstamp.card.sim import NO_ERROR, PORTS, WIRE_ADD_FCS, WIRE_ITEM, Frames, SimulatedCard, frames
from twinstamp.frames import FrameBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from twinstamp.card.selftest_figures import Figures, Settings

_UNIT_NS = 1e9 / 2**32
CYCLE_NS = 8.0
BEATS = 20
OFFSETS_PPM = (1.0, -2.0, 25.0, -100.0)  # multiples of the smallest: whole beats on every port
QUICK_OFFSETS_PPM = (40.0, -80.0, 40.0, -80.0)
LARGEST_NS = STAMP_BOUND_NS  # as docs/card.md states
STD_NS = 2.4
MEAN_NS = 0.1


def opener(seed: int) -> Callable[..., Card]:
    """Makes simulated cards from ``seed``."""

    def make(**options: int | float) -> Card:
        return Card(SimulatedCard(seed=seed), **options)  # type: ignore[arg-type]

    return make


def _received(card: Card, timeout_s: float) -> list[list[bytes]]:
    got: list[list[bytes]] = [[] for _ in card.ports]
    for batch in card.receive(timeout_s):
        for i, port in enumerate(batch.port.tolist()):
            got[port].append(batch.frame(i))
    return got


def _loop(seed: int, cable_ns: float) -> tuple[SimulatedCard, Card]:
    """A card whose ports are joined in a ring."""
    simulated = SimulatedCard(seed=seed)
    for port in range(PORTS):
        simulated.connect(port, simulated, (port + 1) % PORTS, delay_ns=cable_ns)
    return simulated, Card(simulated, timeout_s=BLOCK_TIMEOUT_S)


def cables(figures: Figures, settings: Settings) -> None:
    """Frames over cables between the ports: from each port to the next."""
    rng = random.Random(settings.seed)  # noqa: S311
    _, card = _loop(settings.seed, 50)
    n = 40 if settings.quick else 200
    with card:
        card.start()
        sizes = [60, 61, 64, 67, 1514, *(rng.randint(60, 300) for _ in range(n - 5))]
        sent = [[rng.randbytes(size) for size in sizes] for _ in range(PORTS)]
        for port in range(PORTS):
            figures.equal(f"port{port}_taken", card.send_batch(port, FrameBatch.from_frames(sent[port])), n)
        got = _received(card, 4 * BLOCK_TIMEOUT_S + 200e-6)
        for port, counted in enumerate(card.counters()):
            same = sum(a == b for a, b in zip(got[port], sent[port - 1], strict=False))
            figures.equal(f"port{port}_unchanged_in_order", same, n)
            figures.equal(f"port{port}_good", counted["good"], n)


def far_loopback(figures: Figures, settings: Settings) -> None:
    """What comes into port 1 goes out of it again, from bit to bit, and arrives at the sender, port 0."""
    simulated = SimulatedCard(seed=settings.seed)
    simulated.connect(0, simulated, 1)
    simulated.connect(1, simulated, 0)
    n = 40 if settings.quick else 200
    with Card(simulated, timeout_s=BLOCK_TIMEOUT_S) as card:
        card.set_loopback(1, "far")
        card.start()
        rng = random.Random(settings.seed)  # noqa: S311
        sent = [rng.randbytes(rng.randint(60, 600)) for _ in range(n)]
        figures.equal("taken", card.send_batch(0, FrameBatch.from_frames(sent)), n)
        got = _received(card, 4 * BLOCK_TIMEOUT_S + 300e-6)
        for port in (0, 1):
            figures.equal(f"port{port}_unchanged_in_order", got[port] == sent, True)
        figures.equal("port1_sent_of_its_own", card.counters()[1]["tx_frames"], 0)


def link_flap(figures: Figures, settings: Settings) -> None:
    """A cable is pulled and put back: seen, counted as a new link epoch, and frames pass again."""
    simulated, card = _loop(settings.seed, 50)
    with card:
        card.start()
        for port in range(PORTS):
            card.write(f"port[{port}].phy.poll", 25_000)
        look = 3 * 25_000  # a look takes 160 us
        simulated.run(look)
        before = card.links()
        figures.equal("links_up_before", sum(link.up for link in before), PORTS)
        simulated.plug(2, False)
        simulated.run(look)
        figures.equal(
            "links_up_without_cable_2", [link.up for link in card.links()], [True, True, False, True]
        )
        simulated.plug(2, True)
        simulated.run(look)
        after = card.links()
        figures.equal("links_up_after", sum(link.up for link in after), PORTS)
        epochs = [b.epoch - a.epoch for a, b in zip(before, after, strict=True)]
        figures.equal("new_link_epochs", epochs, [0, 0, 1, 0])
        card.send_batch(1, FrameBatch.from_frames([bytes(60)] * 5))
        figures.equal("received_afterwards", len(_received(card, 4 * BLOCK_TIMEOUT_S)[2]), 5)


def bad_frames(figures: Figures, settings: Settings) -> None:
    """Each kind of damage is counted once, in its own counter, and kept from the host."""
    simulated = SimulatedCard(seed=settings.seed)
    kinds = (
        # content, damage to the FCS, byte with RX_ER, counter
        (bytes(60), 0, NO_ERROR, "good"),
        (bytes(60), 1, NO_ERROR, "fcs_errors"),
        (bytes(60), 0, 20, "fcs_errors"),
        (bytes(40), 0, NO_ERROR, "undersize"),
        (bytes(40), 1, NO_ERROR, "fragments"),
        (bytes(9100), 0, NO_ERROR, "oversize"),
        (bytes(9100), 1, NO_ERROR, "jabbers"),
    )
    with Card(simulated, timeout_s=BLOCK_TIMEOUT_S) as card:
        card.start()
        expected: dict[str, int] = {}
        for content, damage, error_at, counter in kinds * 3:
            item = np.zeros(1, dtype=WIRE_ITEM)
            item["length"], item["gap"], item["preamble"] = len(content), 12, 7
            item["flags"], item["damage"], item["error_at"] = WIRE_ADD_FCS, damage, error_at
            expected[counter] = expected.get(counter, 0) + 1
            for port in range(PORTS):
                simulated.send(port, Frames(item, np.frombuffer(content, dtype=np.uint8)))
        received = _received(card, 300e-6)
        for port, counted in enumerate(card.counters()):
            for name, value in expected.items():
                figures.equal(f"port{port}_{name}", counted[name], value)
            figures.equal(f"port{port}_received", len(received[port]), expected["good"])


def _errors(raw: Sequence[int], truth: npt.NDArray[np.void], constant_q32: int) -> npt.NDArray[np.float64]:
    """Stamp - truth - constant, ns."""
    whole = np.array(raw, dtype=np.uint64).astype(np.int64) - truth["sfd_q32"].astype(np.int64)
    errors: npt.NDArray[np.float64] = (whole - constant_q32 - truth["sfd_rest"] / 2**32) * _UNIT_NS
    return errors


def stamps_0ppm(figures: Figures, settings: Settings) -> None:
    """0 ppm and loopback: the phase is fixed, so only the largest error says something."""
    worst, seen, n = 0.0, 0, 20
    lengths = (50, 51.7) if settings.quick else (50, 51.1, 52.3, 53.9, 55.2, 57.4)
    for cable_ns in lengths:
        simulated, card = _loop(settings.seed, cable_ns)
        with card:
            card.start()
            for port in range(PORTS):
                card.send_batch(port, FrameBatch.from_frames([bytes(60)] * n))
            raw: list[list[int]] = [[] for _ in range(PORTS)]
            for batch in card.receive(4 * BLOCK_TIMEOUT_S):
                for port, stamp in zip(batch.port.tolist(), batch.stamp_q32.tolist(), strict=True):
                    raw[port].append(stamp)
            for port in range(PORTS):
                truth = simulated.truth(port)
                if len(truth) == len(raw[port]) == n:
                    seen += n
                    errors = _errors(raw[port], truth, card.constants_q32[port])
                    worst = max(worst, float(np.abs(errors).max()))
    figures.equal("frames", seen, n * PORTS * len(lengths))
    figures.at_most("largest_ns", round(worst, 3), round(LARGEST_NS, 3))


def stamps(figures: Figures, settings: Settings) -> None:
    """Against the truth, over whole beats between each port's clock and the card's."""
    offsets = QUICK_OFFSETS_PPM if settings.quick else OFFSETS_PPM
    duration_ns = BEATS * CYCLE_NS / (min(abs(ppm) for ppm in offsets) * 1e-6)
    n = 2000 if settings.quick else 8000
    rng = np.random.default_rng(settings.seed)
    simulated = SimulatedCard(seed=settings.seed)
    for port, ppm in enumerate(offsets):
        simulated.set_clock(f"rx{port}", ppb=ppm * 1000)
    with Card(simulated) as card:
        card.start()
        # Spread evenly over the beats, but not regularly: that could keep pace with them.
        starts = ((np.arange(n) + rng.random((PORTS, n))) * (duration_ns / n)).astype(np.int64) * 1_000_000
        for port in range(PORTS):
            what = frames([bytes(60)] * n)
            what.items["not_before_fs"] = starts[port] + simulated.now_fs
            simulated.send(port, what)
        raw: list[list[int]] = [[] for _ in range(PORTS)]
        # A batch may be long in coming, while frames wait for their time; but not longer than that.
        quiet, end_fs = False, simulated.now_fs + round((duration_ns + 20e6) * 1e6)
        while not quiet and simulated.now_fs < end_fs:
            batch = card.poll(3e-3)
            quiet = batch is None and not any(simulated.pending(port) for port in range(PORTS))
            if batch is not None:
                with batch:
                    for port in range(PORTS):
                        raw[port] += batch.stamp_q32[batch.port == port].tolist()
        figures.note("beats", BEATS)
        for port, ppm in enumerate(offsets):
            truth = simulated.truth(port)
            figures.note(f"port{port}_offset_ppm", ppm)
            figures.equal(f"port{port}_frames", len(raw[port]), n)
            if not len(truth) == len(raw[port]) == n:
                continue
            figures.equal(f"port{port}_stamps_rise", bool((np.diff(np.array(raw[port])) > 0).all()), True)
            errors = _errors(raw[port], truth, card.constants_q32[port])
            figures.at_most(
                f"port{port}_largest_ns", round(float(np.abs(errors).max()), 3), round(LARGEST_NS, 3)
            )
            figures.at_most(f"port{port}_std_ns", round(float(errors.std()), 4), STD_NS)
            figures.at_most(f"port{port}_abs_mean_ns", round(abs(float(errors.mean())), 4), MEAN_NS)


CHECKS: tuple[Callable[[Figures, Settings], None], ...] = (
    cables, far_loopback, link_flap, bad_frames, stamps_0ppm, stamps,
)  # fmt: skip
