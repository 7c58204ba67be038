# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from twinstamp.card import Card
from twinstamp.card.sim import SimulatedCard


@pytest.fixture
def make_card() -> Iterator[Callable[..., tuple[SimulatedCard, Card]]]:
    """(simulated, driver), closed at the end."""
    cards: list[Card] = []

    def make(*, seed: int = 1, **options) -> tuple[SimulatedCard, Card]:
        simulated = SimulatedCard(seed=seed)
        card = Card(simulated, **options)
        cards.append(card)
        return simulated, card

    yield make
    for card in cards:
        card.close()
