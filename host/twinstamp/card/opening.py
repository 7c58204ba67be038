# SPDX-License-Identifier: Apache-2.0
"""Cards by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twinstamp.card.calibration import constants_q32, load_calibration
from twinstamp.card.card import Card
from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from twinstamp.card.transport import Transport

CARDS = ("sim", "pynq:FILE.bit")


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

    name: "sim", the simulated card; its world is ``card.transport`` (SimulatedCard), and seed that of what is
    random in it. "pynq:FILE.bit": the card in that overlay, on a PYNQ board. calibrated: take the constants
    that `twinstamp card calibrate` measured, from ``calibration`` (default: the state folder). The others as
    in Card.

    Errors: ConfigError for an unknown name or a damaged calibration; DeviceError and its kinds as in Card.
    """
    kind, _, where = name.removeprefix("card:").partition(":")
    transport: Transport
    if kind == "sim" and not where:
        from twinstamp.card.sim import SimulatedCard

        transport = SimulatedCard(seed=seed)
    elif kind == "pynq" and where:
        from twinstamp.card.pynq import PynqTransport

        transport = PynqTransport(where)
    else:
        raise ConfigError(f"no card {name!r}: known are {', '.join(CARDS)}")
    try:
        measured = load_calibration(transport.name, calibration) if calibrated else {}
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
