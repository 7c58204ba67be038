# SPDX-License-Identifier: Apache-2.0
"""Sends a train from the simulated card and plots when each packet left: send_a_train.py [PICTURE]

Needs the simulated card (`make hdl`) and matplotlib.
"""

import sys

import matplotlib

matplotlib.use("Agg")
import numpy as np
import twinstamp
from made import MADE
from matplotlib import pyplot

train = twinstamp.Train(
    packets=60,
    gap=twinstamp.Poisson("5us"),
    size=twinstamp.Fixed(128),
    source="10.0.0.1",
    destination="10.0.0.2",
    source_mac="02:00:00:00:00:01",
    destination_mac="02:00:00:00:00:02",
    seed=7,
)
print(train.check())
with twinstamp.open_card("sim") as card:
    card.start()  # departures come through its ring
    # The simulated card's clock follows nothing, hence allow_unsynchronised.
    run = card.port(0).send(train, after="1ms", report=True, allow_unsynchronised=True)
    report = run.wait(on_batch=lambda batch: None)
print(report.summary())
left_s = (report.departures["stamp_q32"] - report.departures["stamp_q32"][0]) / 2**32
late_s = left_s - train.schedule().ns() / 1e9
# A Poisson gap may be shorter than the packet before it takes on the wire: the packet then leaves late.
print(f"{len(left_s)} departures, the latest {late_s.max() * 1e9:.0f} ns after its time")

MADE.mkdir(exist_ok=True)
picture = sys.argv[1] if len(sys.argv) > 1 else MADE / "departures.png"
figure, axes = pyplot.subplots()
axes.step(left_s * 1e6, np.arange(1, len(left_s) + 1), where="post")
axes.set(xlabel="time since the first departure, µs", ylabel="packets that have left")
figure.savefig(picture)
print(f"{picture} written")
