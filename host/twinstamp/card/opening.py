# SPDX-License-Identifier: Apache-2.0
"""Cards by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twinstamp.card.calibration import constants_q32, load_calibration
from twinstamp.card.card import Card
from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

CARDS = ("sim",)


def open_card(
    name: str = "sim",
    *,
    seed: int = 1,
    block_log2: int = 16,
    blocks_log2: int = 6,
    timeout_s: float = 1e-3,
    utc: bool = False,
    calibrated: bool = True,
    calibration: Path | None = None,
) -> Card:
    """Opens a card, to be used in a ``with`` block.

    name: "sim", the simulated card; its world is ``card.transport`` (SimulatedCard). seed: of what is random
    in it. calibrated: take the constants that `twinstamp card calibrate` measured, from ``calibration``
    (default: the state folder). The others as in Card.

    Errors: ConfigError for an unknown name or a damaged calibration; DeviceError and its kinds as in Card.
    """
    if name.removeprefix("card:") not in CARDS:
        raise ConfigError(f"no card {name!r}: known are {', '.join(CARDS)}")
    name = name.removeprefix("card:")
    from twinstamp.card.sim import SimulatedCard

    measured = load_calibration(name, calibration) if calibrated else {}
    transport = SimulatedCard(seed=seed)
    try:
        card = Card(transport, block_log2=block_log2, blocks_log2=blocks_log2, timeout_s=timeout_s, utc=utc)
        if measured:
            card.use_constants(
                constants_q32(card.constants_q32, measured),
                [
                    measured[port].uncertainty_ns if port in measured else None
                    for port in range(card.identity.ports)
                ],
            )
    except BaseException:
        transport.close()
        raise
    return card
