# SPDX-License-Identifier: Apache-2.0
"""A card tests itself: what the card alone can show (selftest_card.py), and for the simulated card what needs
its world, the truth about stamps above all (selftest_world.py)."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twinstamp.errors import TwinstampError

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


def selftest(
    *,
    quick: bool = False,
    seed: int = 1,
    open_card: Callable[..., Card] | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Runs all checks, each on a card opened anew; never raises for a check that fails.

    quick: fewer frames, and clock offsets at which 20 beats take a fortieth of the time. seed: of frames and
    of what is random in the simulation. open_card: makes a Card of options like Card's, for the checks that
    need no more than a card, all by loopback inside it: whatever its ports are connected to is cut off
    meanwhile; default: the simulated card, with those that need its world as well.

    Returns {version, card, seed, quick, passed, seconds, checks: [{name, passed, errors, seconds, figures}]},
    figures as in Figures. Raises DeviceError when there is no card to test.
    """
    from twinstamp.card import selftest_card

    start = time.monotonic()
    checks = list(selftest_card.CHECKS)
    if open_card is None:
        from twinstamp.card import selftest_world

        checks += selftest_world.CHECKS
        open_card = selftest_world.opener(seed)
    with open_card() as card:  # not built, or a wrong one: not a failure of the card
        name = card.transport.name
    settings = Settings(open=open_card, quick=quick, seed=seed)
    results = []
    for check in checks:
        begun = time.monotonic()
        figures = Figures()
        errors = figures.failures
        try:
            check(figures, settings)
        except TwinstampError as error:
            errors.append(str(error))
        result = {
            "name": check.__name__,
            "passed": not errors,
            "errors": errors,
            "seconds": round(time.monotonic() - begun, 2),
            "figures": figures.values,
        }
        results.append(result)
        if progress is not None:
            progress(result)
    return {
        "version": 2,
        "card": name,
        "seed": seed,
        "quick": quick,
        "passed": all(result["passed"] for result in results),
        "seconds": round(time.monotonic() - start, 2),
        "checks": results,
    }
