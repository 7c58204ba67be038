# SPDX-License-Identifier: Apache-2.0
"""The live view: every number whole, and what matters on the screen, on small terminals too."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from twinstamp.appliance.view import screen
from twinstamp.ledger import FATES

QUANTILES = {"p50": 991_000, "p90": 4_800_000, "p99": 19_900_000, "p999": 20_500_000, "max": 339_000_000}


def snapshot(servers: int, reason: str = "asked for") -> dict:
    account = {"frames": 12_345_678, "bytes": 9_876_543_210}
    return {
        "seconds": 100.0,
        "ledger": {
            **dict.fromkeys(("received", *FATES, "tagged"), account),
            "dropped_before_received": 1_234_567,
        },
        "duplicates": {
            "by_type": {
                name: {**account, "distance": dict.fromkeys(QUANTILES, 123_456), "delay_ns": QUANTILES}
                for name in ("exact", "routing")
            },
            "kept_by_class": {},
        },
        "backend": {
            "duplicates": {"name": "gpu", "reason": reason, "events": []},
            "rules": {"name": "cpu", "reason": reason, "events": []},
        },
        "servers": {
            f"dpi{number}": {**account, "flows": 54_321, "send_errors": 8_765, "alive": number != servers - 1}
            for number in range(servers)
        },
        "added_delay_ns": QUANTILES,
    }


def lines(servers: int, width: int, height: int | None, reason: str = "asked for") -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(screen(snapshot(servers, reason), width=width, height=height))
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 50), (120, 24), (120, 40), (200, None)])
@pytest.mark.parametrize("servers", [1, 3, 64])
@pytest.mark.parametrize("reason", ["asked for", "measured"])
def test_the_screen_holds_whole_numbers_and_ends_in_time(servers, width, height, reason):
    got = lines(servers, width, height, reason)
    text = "\n".join(got)
    assert "…" not in text
    assert max(len(line.rstrip()) for line in got) <= width
    assert "12,345,678" in text and "9,876,543,210" in text and "54,321" in text
    assert "Added delay: p50 991 µs, p99 19.9 ms, max 339 ms" in text
    assert ("Judged on: duplicates GPU, rules CPU" in text) == (reason == "measured")
    if height is not None:
        assert len(got) <= height
    shown = text.count("dpi")
    assert shown >= 1
    if shown < servers:
        assert f"and {servers - shown} more servers, 1 of them down" in text
