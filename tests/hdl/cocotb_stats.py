# SPDX-License-Identifier: Apache-2.0
"""Random frames as events; the objects of RFC 2819 computed here from the frames, at the very latch."""

from __future__ import annotations

import random
from collections import Counter

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge
from twinstamp.card.card import COUNTERS
from twinstamp.card.rmon import TX_COUNTERS, received, sent

LENGTHS = (64, 65, 100, 127, 128, 255, 256, 511, 512, 1023, 1024, 1518, 1519, 9022, 9026)
LIMIT = 9018
LATCHES = 30


def size(length: int) -> str:
    for low, high in ((64, 64), (65, 127), (128, 255), (256, 511), (512, 1023), (1024, 1518)):
        if low <= length <= high:
            return f"etherStatsPkts{low}Octets" if low == high else f"etherStatsPkts{low}to{high}Octets"
    return "other"


def rmon(total: Counter[str], length: int, good: bool, kind: str, limit: int) -> None:
    """RFC 2819, section 5, etherStatsEntry; `good`: FCS right and no code error."""
    total["etherStatsOctets"] += length
    total["etherStatsPkts"] += 1
    total[size(length)] += 1
    if length < 64:
        total["etherStatsUndersizePkts" if good else "etherStatsFragments"] += 1
    elif length > limit:
        total["etherStatsOversizePkts" if good else "etherStatsJabbers"] += 1
    elif not good:
        total["etherStatsCRCAlignErrors"] += 1
    elif kind != "unicast":
        total[f"etherStats{kind.capitalize()}Pkts"] += 1


class Bench:
    def __init__(self, dut: object) -> None:
        self.dut = dut
        self.tx: Counter[str] = Counter()
        self.rx: Counter[str] = Counter()
        self.raw: Counter[str] = Counter()
        self.tx_wait = self.rx_wait = self.rx_since_frame = 0

    @classmethod
    async def start(cls, dut: object) -> Bench:
        for name in (
            "rst_n",
            "latch",
            "tx_event",
            "tx_malformed",
            "rx_event",
            "rx_discard",
            "read",
            "address",
        ):
            getattr(dut, name).value = 0
        cocotb.start_soon(Clock(dut.clk, 8000, "ps").start())
        for _ in range(4):
            await FallingEdge(dut.clk)
        dut.rst_n.value = 1
        for _ in range(70):
            await FallingEdge(dut.clk)
        return cls(dut)

    def drive_tx(self, *, dense: bool) -> None:
        dut = self.dut
        dut.tx_event.value = 0
        malformed = random.random() < (0.3 if dense else 0.02)
        dut.tx_malformed.value = malformed
        self.raw["malformed"] += malformed
        if self.tx_wait > 0:
            self.tx_wait -= 1
            return
        dropped = random.random() < 0.3
        self.tx_wait = 2 if dropped else random.choice((71, 83)) if dense else random.randrange(84, 300)
        launch = random.random() < 0.5
        late = launch and random.random() < 0.5 and not dropped
        dut.tx_event.value = 1
        dut.tx_launch.value = launch
        dut.tx_late.value = late
        if dropped:
            dut.tx_end.value = 1 << 20
            self.raw["dropped"] += 1
            return
        underrun, bad = (random.random() < 0.1 for _ in range(2))
        bad = bad and not underrun
        length = random.choice(LENGTHS)
        kind = random.choice(("unicast", "multicast", "broadcast"))
        dut.tx_end.value = (
            underrun << 19 | bad << 18 | (kind != "unicast") << 17 | (kind == "broadcast") << 16 | length
        )
        self.raw["launches"] += launch
        self.raw["late"] += late
        self.tx["ifOutErrors"] += underrun
        rmon(self.tx, length, not (underrun or bad), kind, 1 << 30)

    def drive_rx(self, *, dense: bool) -> None:
        dut = self.dut
        dut.rx_event.value = 0
        discard = random.random() < (0.05 if dense else 0.02)
        dut.rx_discard.value = discard
        self.raw["discarded"] += discard
        # As gmii_rx spaces them: frames 12 cycles apart, anything else 2.
        self.rx_since_frame += 1
        if self.rx_wait > 0:
            self.rx_wait -= 1
            return
        self.rx_wait = 1 if dense else random.randrange(1, 60)
        noise = self.rx_since_frame < 12 or random.random() < 0.1
        if not noise:
            self.rx_since_frame = 0
        dut.rx_event.value = 1
        dut.rx_giant.value = dut.rx_stored.value = dut.rx_dropped.value = 0
        if noise:
            which = random.choice((29, 30))
            dut.rx_end.value = 1 << which
            self.raw["no_sfd" if which == 29 else "preamble_errors"] += 1
            return
        length = random.choice((*LENGTHS, 1, 5, 63, 20_000))
        fcs, er, tags = random.random() < 0.7, random.random() < 0.1, random.randrange(3)
        kind = random.choice(("unicast", "multicast", "broadcast"))
        fate = random.choice(("stored", "dropped", "not_wanted"))
        limit = LIMIT + 4 * tags
        dut.rx_giant.value = length > limit
        dut.rx_stored.value = fate == "stored"
        dut.rx_dropped.value = fate == "dropped"
        dut.rx_end.value = (
            (kind != "unicast") << 32
            | (kind == "broadcast") << 31
            | 1 << 28
            | er << 27
            | fcs << 26
            | tags << 24
            | length
        )
        self.raw[fate] += 1
        rmon(self.rx, length, fcs and not er, kind, limit)

    async def check(self) -> None:
        """Latches in the middle of the traffic: what came up to the latch is there, and no more."""
        dut = self.dut
        dut.latch.value = 1
        tx = rx = raw = None
        dense = random.random() < 0.5
        waited = 0
        while tx is None or dut.busy.value == 1 or dut.latch.value == 1:
            self.drive_tx(dense=dense)
            self.drive_rx(dense=dense)
            before = Counter(self.tx), Counter(self.rx), Counter(self.raw)
            # A latch waits for a moment without discards; then events of the flip's own cycle are in.
            await FallingEdge(dut.clk)
            dut.latch.value = 0
            if dut.flip.value == 1:
                self.quiet()
                tx, rx, raw = before
                # `flip` stands now and acts at the next edge, with what was driven before it.
                await FallingEdge(dut.clk)
            waited += 1
            assert waited < 4000
        self.quiet()
        rows = []
        for index in range(23):
            dut.read.value = 1
            dut.address.value = index
            await FallingEdge(dut.clk)
            rows.append((int(dut.tx_data.value), int(dut.rx_data.value)))
        dut.read.value = 0
        tx_raw = {n: rows[i][0] for i, n in enumerate(TX_COUNTERS) if n}
        rx_raw = {n: rows[i][1] for i, n in enumerate(COUNTERS[:23])}
        self.hold(sent(tx_raw), tx)
        self.hold(received(rx_raw), rx)
        for name in ("dropped", "malformed", "launches", "late"):
            assert tx_raw[name] + (rx_raw[name] if name == "dropped" else 0) == raw[name], name
        for name in ("stored", "not_wanted", "no_sfd", "preamble_errors", "discarded"):
            assert rx_raw[name] == raw[name], (name, rx_raw[name], raw[name])

    def quiet(self) -> None:
        for name in ("tx_event", "tx_malformed", "rx_event", "rx_discard"):
            getattr(self.dut, name).value = 0

    @staticmethod
    def hold(got: dict[str, int], want: Counter[str]) -> None:
        wrong = {
            n: (got[n], want[n])
            for n in got
            if n.startswith("etherStats") and n in want and got[n] != want[n]
        }
        assert not wrong, f"(got, want): {wrong}"


@cocotb.test()
@cocotb.parametrize(dense=[False, True])
async def objects_of_rfc_2819_at_the_latch(dut: object, dense: bool) -> None:
    bench = await Bench.start(dut)
    for _ in range(LATCHES):
        for _ in range(random.randrange(50, 1200)):
            bench.drive_tx(dense=dense)
            bench.drive_rx(dense=dense)
            await FallingEdge(dut.clk)
        await bench.check()
    assert dut.tx_overflow.value == 0 and dut.rx_overflow.value == 0
    print(
        f"dense {dense}: {bench.tx['etherStatsPkts']} sent, {bench.rx['etherStatsPkts']} received, "
        f"{LATCHES} latches"
    )
