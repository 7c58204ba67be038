# SPDX-License-Identifier: Apache-2.0
"""A card tests itself: what the card alone can show (selftest_card.py), and for the simulated card what needs
its world, the truth about stamps above all (selftest_world.py)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from twinstamp.card.selftest_figures import Figures, Settings
from twinstamp.errors import TwinstampError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twinstamp.card.card import Card


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
