# SPDX-License-Identifier: Apache-2.0
"""What the checks of a self-test share: figures with their limits, and what a check may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from twinstamp.card.card import Card

BLOCK_TIMEOUT_S = 50e-6  # card time after which a block that is not full is handed over


class Figures:
    """What one check found, each figure with its limit: {name: {"value", one of "equal", "at_most",
    "at_least", "passed"}}; a figure that is told only has no limit."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}
        self.failures: list[str] = []

    def note(self, name: str, value: Any) -> None:
        """Told, not judged."""
        self.values[name] = {"value": value}

    def equal(self, name: str, value: Any, wanted: Any) -> None:
        self._judge(name, value, "equal", wanted, bool(value == wanted))

    def at_most(self, name: str, value: float, limit: float) -> None:
        self._judge(name, value, "at_most", limit, bool(value <= limit))

    def at_least(self, name: str, value: float, limit: float) -> None:
        self._judge(name, value, "at_least", limit, bool(value >= limit))

    def _judge(self, name: str, value: Any, kind: str, limit: Any, passed: bool) -> None:
        self.values[name] = {"value": value, kind: limit, "passed": passed}
        if not passed:
            how = {"equal": "", "at_most": "at most ", "at_least": "at least "}[kind]
            self.failures.append(f"{name} is {value}, must be {how}{limit}")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a check may use. open: a fresh card, with Card's options. quick: fewer frames. seed: of frames."""

    open: Callable[..., Card]
    quick: bool
    seed: int
