# SPDX-License-Identifier: Apache-2.0
"""A slow or stopped host, a damaged ring, a memory that refuses: counted, typed, never corrupt."""

from __future__ import annotations

import random
from collections import deque

import numpy as np
import pytest
from twinstamp.card.sim import PORTS, frames
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.frames import FrameBatch

from tests.card.sending import collect


def numbered(n: int) -> list[bytes]:
    return [i.to_bytes(4, "big") * 15 for i in range(n)]


class Load:
    """Numbered frames of random sizes, back to back on all four ports, and what the host gets of them.

    What was put on the wires is counted here, frame by frame, by nobody but this class.
    """

    def __init__(self, make_card, n: int, *, blocks_log2: int, seed: int = 1) -> None:
        self.simulated, self.card = make_card(
            seed=seed, block_log2=14, blocks_log2=blocks_log2, timeout_s=1e-4
        )
        for port, ppb in enumerate((100_000, -100_000, 30_000, -7_000)):
            self.simulated.set_clock(f"rx{port}", ppb=ppb)
        rng = random.Random(seed)
        self.sent = [
            [
                number.to_bytes(4, "big") + rng.randbytes(rng.choice((56, 60, 124, 600, 1510)))
                for number in range(n)
            ]
            for _ in range(PORTS)
        ]
        self.got: list[list[int]] = [[] for _ in range(PORTS)]  # numbers, in the ring's order
        self.held: list[tuple[FrameBatch, bytes]] = []
        self.card.start()
        for port in range(PORTS):
            self.simulated.send(port, frames(self.sent[port]))

    def take(self, timeout_s: float = 0.0) -> FrameBatch | None:
        """The next batch, every frame of it whole; it stays held."""
        batch = self.card.poll(timeout_s, max_frames=1)
        if batch is None:
            return None
        for i, (port, sequence) in enumerate(zip(batch.port.tolist(), batch.sequence.tolist(), strict=True)):
            content = batch.frame(i)
            number = int.from_bytes(content[:4], "big")
            assert content == self.sent[port][number] and sequence == number
            self.got[port].append(number)
        self.held.append((batch, self.bytes_of(batch)))
        return batch

    @staticmethod
    def bytes_of(batch: FrameBatch) -> bytes:
        """Headers and frames, as they lie in the ring."""
        return b"".join(
            batch.data[at - 32 : at + n].tobytes()
            for at, n in zip(batch.offset.tolist(), batch.caplen.tolist(), strict=True)
        )

    def release(self, index: int) -> None:
        batch, before = self.held.pop(index)
        assert self.bytes_of(batch) == before
        batch.release()

    def going(self) -> bool:
        return any(self.simulated.pending(port) for port in range(PORTS))

    def finish(self) -> list[dict[str, int]]:
        """Releases and takes all the rest; then everything must add up. Returns the counters."""
        while self.going():
            self.simulated.run(2000)
        while self.held:
            self.release(0)
        while self.take(5e-4) is not None:
            self.release(0)
        counters = self.card.counters()
        for port, counted in enumerate(counters):
            n, numbers = len(self.sent[port]), self.got[port]
            assert numbers == sorted(set(numbers))
            octets = sum(len(content) + 4 for content in self.sent[port])
            assert (counted["good"], counted["octets_good"]) == (n, octets)
            assert counted["stored"] == len(numbers)
            assert counted["dropped"] == n - len(numbers)
            assert counted["not_wanted"] == counted["discarded"] == 0
        # The block headers say so too, as of the last block; and afterwards all goes well again.
        for drops, counted in zip(self.card.drops(), counters, strict=True):
            assert drops <= counted["dropped"]
        for port in range(PORTS):
            self.sent[port].append(len(self.sent[port]).to_bytes(4, "big") + bytes(60))
            self.simulated.send(port, frames(self.sent[port][-1:]))
        while self.take(5e-4) is not None:
            self.release(0)
        assert [numbers[-1] for numbers in self.got] == [len(sent) - 1 for sent in self.sent]
        assert list(self.card.drops()) == [counted["dropped"] for counted in counters]
        return counters


def dropped(counters: list[dict[str, int]]) -> int:
    return sum(counted["dropped"] for counted in counters)


# Two blocks: the least ring there is.
@pytest.mark.parametrize("blocks_log2", [1, 3])
class TestOverload:
    def test_stopped_host(self, make_card, blocks_log2):
        """It does not look until all is over: ring and frame stores fill, the rest is dropped."""
        load = Load(make_card, 500, blocks_log2=blocks_log2)
        while load.going():
            load.simulated.run(2000)
        assert dropped(load.finish()) > 500

    def test_slow_host(self, make_card, blocks_log2):
        """It takes a block now and then, a third of what comes."""
        load = Load(make_card, 500, blocks_log2=blocks_log2)
        while load.going():
            load.simulated.run(12_000)  # 100 us, in which four ports bring 48 KB
            if load.take() is not None:
                load.release(0)
        assert all(len(numbers) > 50 for numbers in load.got)
        assert dropped(load.finish()) > 300

    def test_batches_never_released(self, make_card, blocks_log2):
        """The ring fills once, and nothing is overwritten however long they are held."""
        load = Load(make_card, 500, blocks_log2=blocks_log2)
        while load.going():
            load.simulated.run(2000)
            load.take()
        assert len(load.held) == 1 << blocks_log2
        for batch, before in load.held:
            assert load.bytes_of(batch) == before
        assert load.card.read("ring.consumer") == 0
        assert dropped(load.finish()) > 500

    def test_batches_released_out_of_order(self, make_card, blocks_log2):
        """A block is free once those before it are back too."""
        load = Load(make_card, 500, blocks_log2=blocks_log2, seed=2)
        rng = random.Random(3)
        back: deque[int] = deque()
        while load.going():
            load.simulated.run(2000)
            load.take()
            if load.held and rng.random() < 0.4:
                oldest = load.held[0][0]
                before = load.card.read("ring.consumer")
                chosen = rng.randrange(len(load.held))
                load.release(chosen)
                moved = load.card.read("ring.consumer") - before
                assert (moved > 0) == (not load.held or load.held[0][0] is not oldest)
                back.append(moved)
        assert max(back) > 1  # several at once, when the one that was missing came back
        assert dropped(load.finish()) > 0
        assert load.card.read("ring.consumer") == load.card.read("ring.producer")


def test_departures_are_lost_by_count_only(make_card):
    """A stopped host loses departure stamps too: told per port, and all frames still leave."""
    simulated, card = make_card(block_log2=14, blocks_log2=1)
    card.start(ports=[])
    n = 3000
    batch = FrameBatch.from_frames([bytes(60)] * n)
    for port in (0, 2):
        assert card.send_batch(port, batch, stamp=True, timeout_s=0.1) == n
    simulated.run(400_000)
    came = []
    while (more := card.poll(2e-3)) is not None:
        more.release()
        came.append(card.departures())
    departures = np.concatenate(came)
    for port in (0, 2):
        cookies = departures["cookie"][departures["port"] == port]
        lost = card.read(f"port[{port}].tx_lost")
        assert lost > 0 and len(cookies) + lost == n and (np.diff(cookies.astype(np.int64)) > 0).all()
        assert card.counters()[port]["tx_frames"] == n


def test_forgotten_batch_gives_its_blocks_back(make_card):
    simulated, card = make_card(block_log2=14, blocks_log2=1)
    card.start(ports=[0])
    for _ in range(6):
        simulated.send(0, frames(numbered(10)))
        batch = card.poll(3e-3)
        assert batch is not None and len(batch) == 10
        del batch


def test_memory_error_stops_the_card_and_it_can_start_again(make_card):
    simulated, card = make_card()
    card.start(ports=[0])
    simulated.set_memory_error(3)
    simulated.send(0, frames(numbered(100)))
    with pytest.raises(DeviceError, match="refused a write"):
        collect(card)
    simulated.set_memory_error(0)
    card.stop()
    simulated.run_wires(100_000)
    card.start(ports=[0])
    simulated.send(0, frames(numbered(5)))
    assert collect(card)[0].frames == numbered(5)


def test_stop_and_start_deliver_what_was_stored(make_card):
    simulated, card = make_card()
    for _ in range(3):
        card.start(ports=[1])
        simulated.send(1, frames(numbered(20)))
        simulated.run_wires(10**5)
        simulated.run(100)
        card.stop()
        assert collect(card)[1].frames == numbered(20)


def test_damaged_block_is_an_error(make_card):
    simulated, card = make_card()
    card.start(ports=[0])
    simulated.send(0, frames(numbered(5)))
    simulated.run(200_000)
    simulated._memory[64] ^= 0xFF  # the first record's captured length
    with pytest.raises(DeviceError, match="do not add up"):
        card.poll(1e-3)


@pytest.mark.parametrize(
    "options",
    [{"block_log2": 13}, {"block_log2": 23}, {"blocks_log2": 0}, {"timeout_s": 0}, {"timeout_s": 100}],
)
def test_bad_options(make_card, options):
    with pytest.raises(ConfigError):
        make_card(**options)
