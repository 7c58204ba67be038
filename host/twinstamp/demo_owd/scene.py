# SPDX-License-Identifier: Apache-2.0
"""What both demonstrations of one-way delay play: two sites, and a train each way (docs/demo-owd.md)."""

from __future__ import annotations

from typing import Any

SITES = ("Madrid", "Budapest")
ADDRESSES = ("10.34.0.1", "10.36.0.1")


def trains(packets: int) -> tuple[Any, Any]:
    """Burst of each direction: Poisson gaps; 90-byte STAMP packets there, short form and longer ones back."""
    from twinstamp.train import Choice, Fixed, Poisson, Train

    return tuple(
        Train(
            packets=packets,
            gap=Poisson(mean="4us", minimum="1us") if way == 0 else Poisson(mean="8us", minimum="5us"),
            size=Fixed(90) if way == 0 else Choice((64, 64, 90, 594)),
            source=ADDRESSES[way],
            destination=ADDRESSES[1 - way],
            source_mac=f"02:00:00:00:00:0{way + 1}",
            destination_mac=f"02:00:00:00:00:0{2 - way}",
            session=way + 1,
            timestamp=("ntp", "ptp")[way],
            seed=7 + way,
            name=f"{SITES[way]} to {SITES[1 - way]}",
        )
        for way in (0, 1)
    )  # type: ignore[return-value]
