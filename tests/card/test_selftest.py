# SPDX-License-Identifier: Apache-2.0
"""The self-test: it passes on a good card, through a board's transport too, and sees what is broken."""

from __future__ import annotations

import json

import pytest
from twinstamp.card.card import Card
from twinstamp.card.selftest import selftest
from twinstamp.card.selftest_card import CHECKS, clock, hashes, launch, loopback, overload, phy, registers
from twinstamp.card.selftest_figures import Figures, Settings
from twinstamp.card.selftest_world import bad_frames, link_flap, opener, stamps, stamps_0ppm
from twinstamp.card.sim import SimulatedCard
from twinstamp.cli import main

from tests.card.narrow import Board
from tests.card.test_registers import Altered

ALONE = ["registers", "clock", "phy", "loopback", "hashes", "counters", "launch", "overload"]
WORLD = ["cables", "far_loopback", "link_flap", "bad_frames", "stamps_0ppm", "stamps"]


def judge(check, **options) -> Figures:
    figures = Figures()
    check(figures, Settings(**{"open": opener(1), "quick": True, "seed": 1, **options}))
    return figures


def test_each_check_tells_its_figures_and_limits(capsys):
    assert main(["card", "selftest", "--quick", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["quick"] and report["version"] == 2 and report["seconds"] < 120
    assert [check["name"] for check in report["checks"]] == ALONE + WORLD
    for check in report["checks"]:
        judged = [figure for figure in check["figures"].values() if "passed" in figure]
        assert judged and all(figure["passed"] for figure in judged)
        assert all({"equal", "at_most", "at_least"} & figure.keys() for figure in judged)
    figures = report["checks"][-1]["figures"]
    for port in range(4):
        assert figures[f"port{port}_std_ns"]["at_most"] == 2.4
        assert figures[f"port{port}_std_ns"]["value"] > 2.2  # 8/sqrt(12), not a constant


@pytest.mark.long
def test_whole_selftest_in_under_four_minutes(capsys):
    assert main(["card", "selftest", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passed"] and report["seconds"] < 240
    assert report["checks"][-1]["figures"]["port0_offset_ppm"]["value"] == 1.0


def test_a_board_tests_itself_through_its_transport(monkeypatch):
    """Nothing but registers, memory and waiting; a card that is opened again is as good as new."""

    def board(**options):
        return Card(Board(SimulatedCard()), **options)

    report = selftest(quick=True, open_card=board)
    assert report["passed"], [check["errors"] for check in report["checks"]]
    assert [check["name"] for check in report["checks"]] == ALONE == [check.__name__ for check in CHECKS]
    assert report["card"] == "board"


def test_failed_check_ends_with_1(monkeypatch, capsys):
    monkeypatch.setattr("twinstamp.card.selftest_card.CHECKS", (hashes,))
    monkeypatch.setattr("twinstamp.card.selftest_world.CHECKS", ())
    load = Card.load_digest_key
    monkeypatch.setattr(Card, "load_digest_key", lambda card, key: load(card, bytes(len(key))))
    assert main(["card", "selftest", "--quick"]) == 1
    out = capsys.readouterr().out
    assert "FAIL hashes" in out and "digest_wrong is 200, must be 0" in out and "FAILED" in out


def test_wrong_flow_hash_is_seen(monkeypatch):
    load = Card.load_flow_key
    monkeypatch.setattr(Card, "load_flow_key", lambda card, key: load(card, key[:-1] + bytes([key[-1] ^ 1])))
    assert any("flow_hash_wrong" in failure for failure in judge(hashes).failures)


def broken(changes: dict[int, int]):
    return lambda **options: Card(Altered(changes), **options)


def test_stuck_register_is_seen():
    assert any("scratch_wrong" in failure for failure in judge(registers, open=broken({0x18: 0})).failures)


def test_phy_that_does_not_answer_is_seen():
    """Port 2's answers read as from an open bus."""
    failures = judge(phy, open=broken({0x1254: 0x0000FFFF})).failures
    assert "port2_answers is False, must be True" in failures
    assert any(failure.startswith("port2_writes_wrong") for failure in failures)


def test_clock_off_by_a_hundredth_of_a_percent_is_seen(monkeypatch):
    def off(**options):
        simulated = SimulatedCard()
        simulated.set_clock("core", ppb=0)
        card = Card(simulated, **options)
        rate = card.set_rate_ppb
        monkeypatch.setattr(card, "set_rate_ppb", lambda ppb: rate(ppb + 100_000))
        return card

    assert [failure.split()[0] for failure in judge(clock, open=off).failures] == ["rate_error_ns"]


class Forgetful(SimulatedCard):
    """Every 50th word that the host writes for the card is lost on the way."""

    def wait(self, seconds: float) -> float:
        if self._memory is not None:
            self._memory[-(8 << 13) : -(8 << 13) + 4096] ^= 1  # port 3's transmit ring
        return super().wait(seconds)


def test_damaged_frames_are_seen():
    failures = judge(loopback, open=lambda **options: Card(Forgetful(), **options)).failures
    assert any(failure.startswith("port3_unchanged_in_order") for failure in failures)
    assert not any(failure.startswith("port0") for failure in failures)


def test_drops_that_are_not_counted_are_seen(monkeypatch):
    counters = Card.counters
    monkeypatch.setattr(
        Card, "counters", lambda card: [{**c, "dropped": max(0, c["dropped"] - 1)} for c in counters(card)]
    )
    assert any("received_and_dropped" in failure for failure in judge(overload).failures)


def test_late_departures_are_seen(monkeypatch):
    departures = Card.departures

    def later(card):
        out = departures(card).copy()
        out["stamp_q32"] += 40  # 9.3 ns
        return out

    monkeypatch.setattr(Card, "departures", later)
    assert any(failure.startswith("latest_ns") for failure in judge(launch).failures)


def test_link_that_stays_down_is_seen(monkeypatch):
    plug = SimulatedCard.plug
    monkeypatch.setattr(SimulatedCard, "plug", lambda card, port, cable=True: plug(card, port, False))
    failures = [failure.split()[0] for failure in judge(link_flap).failures]
    assert {"links_up_after", "received_afterwards"} <= set(failures)


def test_miscounted_damage_is_seen(monkeypatch):
    counters = Card.counters
    monkeypatch.setattr(
        Card,
        "counters",
        lambda card: [
            {**c, "fcs_errors": c["fragments"], "fragments": c["fcs_errors"]} for c in counters(card)
        ],
    )
    assert len(judge(bad_frames).failures) == 8


@pytest.mark.parametrize(("check", "units"), [(stamps, 3), (stamps_0ppm, 40)])
def test_stamps_that_are_off_are_seen(monkeypatch, check, units):
    """A constant that is wrong by 0.7 ns, or by more than a cycle."""
    monkeypatch.setattr(
        Card, "constants_q32", property(lambda card: tuple(c + units for c in card._constants))
    )
    assert all("ns" in failure for failure in judge(check).failures) and judge(check).failures
