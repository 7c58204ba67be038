# SPDX-License-Identifier: Apache-2.0
"""The card that stamps frames at MAC ingress: one driver over several transports (docs/card.md)."""

from twinstamp.card.card import COUNTERS, Card, CardBatch, Departure, Identity
from twinstamp.card.transport import Transport

__all__ = ["COUNTERS", "Card", "CardBatch", "Departure", "Identity", "Transport"]
