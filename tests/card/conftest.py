# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from twinstamp.card import Card
from twinstamp.card.sim import SimulatedCard
from twinstamp.card.transport import Transport


def _transport(simulated: SimulatedCard, folder: Path) -> Transport:
    """The simulated card itself, or in pynq's environment (`make test-pynq`) pynq's way to it."""
    if os.environ.get("TWINSTAMP_TRANSPORT") != "pynq":
        return simulated
    from tests.pynq.sim_device import pynq_transport

    return pynq_transport(simulated, folder)


@pytest.fixture
def make_card(tmp_path: Path) -> Iterator[Callable[..., tuple[SimulatedCard, Card]]]:
    """(simulated, driver), closed at the end."""
    cards: list[Card] = []

    def make(*, seed: int = 1, **options) -> tuple[SimulatedCard, Card]:
        simulated = SimulatedCard(seed=seed)
        card = Card(_transport(simulated, tmp_path), **options)
        cards.append(card)
        return simulated, card

    yield make
    for card in cards:
        card.close()
