# SPDX-License-Identifier: Apache-2.0
"""What the simulated card does most, for the compiler's profile: python tools/train_card.py LIBRARY.

Run by tools/verilate.sh with a library that counts: four ports at line rate on clocks of their own, short and
long frames, a few bad ones, and frames sent. What it leaves out is compiled as without a profile.
"""

import os
import sys

import numpy as np


def main() -> None:
    os.environ["TWINSTAMP_SIM"] = sys.argv[1]
    from twinstamp.card import Card
    from twinstamp.card.sim import PORTS, SimulatedCard, frames

    rng = np.random.default_rng(1)
    for step, (least, most, n) in enumerate(((60, 61, 400), (60, 400, 100))):
        simulated = SimulatedCard()
        with Card(simulated, block_log2=16) as card:
            for port, ppb in zip(range(PORTS), (100_000, -100_000, 37_000, -3_000), strict=True):
                simulated.set_clock(f"rx{port}", ppb=ppb)
            card.start()
            for port in range(PORTS):
                what = frames([rng.bytes(rng.integers(least, most)) for _ in range(n)])
                what.items["damage"][::50] = step
                simulated.send(port, what)
            for k in range(8 * step):
                card.send(k % PORTS, rng.bytes(200), stamp=True, cookie=k)
            for batch in card.receive(1e-4):
                batch.timestamp_ns.sum()


if __name__ == "__main__":
    main()
