# SPDX-License-Identifier: Apache-2.0
"""The card that stamps frames at MAC ingress: one driver over several transports (docs/card.md)."""

from twinstamp.card.card import (
    COUNTERS,
    DEPARTURE,
    Card,
    CardBatch,
    CardStatistics,
    ClockStatus,
    Identity,
)
from twinstamp.card.opening import CARDS, open_any_card, open_card
from twinstamp.card.transport import Transport

__all__ = [
    "CARDS",
    "COUNTERS",
    "DEPARTURE",
    "Card",
    "CardBatch",
    "CardStatistics",
    "ClockStatus",
    "Identity",
    "Transport",
    "open_any_card",
    "open_card",
]
