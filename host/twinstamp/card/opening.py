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


def known_card(name: str) -> tuple[str, str]:
    """("sim", "") or ("pynq", file) of a card's name, with "card:" before it or not.

    ConfigError where no such card is known.
    """
    kind, _, where = name.removeprefix("card:").partition(":")
    if (kind == "sim" and not where) or (kind == "pynq" and where):
        return kind, where
    raise ConfigError(f"no card {name!r}: known are {', '.join(CARDS)}")


def must_be_simulated(name: str, what: str) -> None:
    """ConfigError where ``name`` is another card than the simulated one, or none."""
    if known_card(name)[0] != "sim":
        raise ConfigError(f"{what} works with the simulated card, sim, only; {name!r} is a board")


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
    kind, where = known_card(name)
    transport: Transport
    if kind == "sim":
        from twinstamp.card.sim import SimulatedCard

        transport = SimulatedCard(seed=seed)
    else:
        from twinstamp.card.pynq import PynqTransport

        transport = PynqTransport(where)
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
