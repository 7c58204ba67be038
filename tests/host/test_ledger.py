# SPDX-License-Identifier: Apache-2.0
"""The ledger finds what does not add up."""

from __future__ import annotations

import pytest
from twinstamp.errors import ConfigError, LedgerError
from twinstamp.ledger import FATES, Ledger
from twinstamp.units import format_ns, parse_time_ns


def test_frames_in_flight_until_their_fate_is_known():
    ledger = Ledger()
    ledger.receive(10, 1000)
    ledger.check()
    with pytest.raises(LedgerError, match="in flight"):
        ledger.check(ended=True)
    ledger.settle("forwarded", 7, 700)
    ledger.settle("duplicates_dropped", 3, 300)
    ledger.check(ended=True)
    assert sum(ledger.as_dict()[fate]["frames"] for fate in FATES) == 10


def breach_count(ledger: Ledger) -> None:
    ledger.fates["forwarded"].add(1, 0)


def breach_bytes(ledger: Ledger) -> None:
    ledger.fates["forwarded"].add(0, 1)


def breach_twice(ledger: Ledger) -> None:
    ledger.settle("forwarded", 11, 1001)


def breach_tagged(ledger: Ledger) -> None:
    ledger.tagged.add(1, 1)


def breach_copies(ledger: Ledger) -> None:
    ledger.copies_attempted.add(2, 2)
    ledger.copies_sent.add(1, 2)


@pytest.mark.parametrize("breach", [breach_count, breach_bytes, breach_twice, breach_tagged, breach_copies])
def test_each_breach_is_an_error(breach):
    ledger = Ledger()
    ledger.receive(10, 1000)
    ledger.check()
    breach(ledger)
    with pytest.raises(LedgerError):
        ledger.check()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50ms", 50_000_000),
        ("1.5s", 1_500_000_000),
        ("600us", 600_000),
        ("600 µs", 600_000),
        ("0ns", 0),
        (".5us", 500),
    ],
)
def test_times(text, expected):
    assert parse_time_ns(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "ms", "-5ms", "1.5ns", "5 parsecs", "1e3s", "1.2.3s", "٣s", "9" * 30 + "s"]
)
def test_times_that_are_none(text):
    with pytest.raises(ConfigError):
        parse_time_ns(text)


def test_times_for_people():
    assert [format_ns(n) for n in (5, 53_000, -2_100_000_000, 1_250_000)] == [
        "5 ns",
        "53 µs",
        "-2.1 s",
        "1.25 ms",
    ]
