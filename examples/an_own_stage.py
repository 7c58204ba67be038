# SPDX-License-Identifier: Apache-2.0
"""A stage of your own in the appliance sees all clean frames as NumPy arrays: an_own_stage.py [FEED]"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import twinstamp


class Talkers(twinstamp.Stage):
    """Counts frames by their source MAC address. most: addresses to show."""

    def __init__(self, *, most: int = 3) -> None:
        self._most = most
        self._frames: dict[str, int] = {}

    def take(self, clean: twinstamp.Clean) -> None:
        batch = clean.batch
        start = batch.offset[batch.caplen >= 14].astype(np.int64)
        addresses = batch.data[start[:, None] + np.arange(6, 12)]
        found, counts = np.unique(addresses, axis=0, return_counts=True)
        for address, count in zip(found, counts.tolist(), strict=True):
            name = address.tobytes().hex(":")
            self._frames[name] = self._frames.get(name, 0) + count

    def counters(self) -> Mapping[str, int | float | str]:
        return dict(sorted(self._frames.items(), key=lambda item: -item[1])[: self._most])


def main() -> None:
    from made import MADE, a_feed

    config = twinstamp.parse_appliance(
        {
            "source": [{"file": str(a_feed().absolute())}],
            "duplicates": {"profile": "routing", "window": 100_000, "time": "50ms"},
            "stage": [{"module": f"{Path(__file__).absolute()}:Talkers", "options": {"most": 4}}],
            "balance": {"default_group": "dpi", "secret_file": "balance.key"},
            "group": [{"name": "dpi", "server": [{"name": "dpi0", "file": "dpi0.pcapng"}]}],
        },
        MADE,
    )
    MADE.mkdir(exist_ok=True)
    with twinstamp.Appliance(config) as appliance:
        report = appliance.run()
    print(report["stages"])


if __name__ == "__main__":
    main()
