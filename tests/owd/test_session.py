# SPDX-License-Identifier: Apache-2.0
"""The sender of `owd stamp`: departures through refused sends, answers that come late, copies."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.owd import exports, session
from twinstamp.owd.departures import UNKNOWN, DepartureNumbers
from twinstamp.owd.kernel import StampedSocket
from twinstamp.owd.page import warnings_of
from twinstamp.owd.reflect import Reflector, Rules
from twinstamp.owd.report import Options
from twinstamp.owd.session import Plan, measure

from tests.owd.refused_sends import PATTERN

MS = 1_000_000


def in_a_namespace(what: str) -> dict:
    """What tests/owd/refused_sends.py prints, in a network namespace that ends with it."""
    if os.geteuid() != 0:
        pytest.skip("not root: namespaces cannot be made")
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "tests.owd.refused_sends", what],
        capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    if "unshare failed" in done.stderr:
        pytest.skip(f"no namespaces here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    if "no netfilter" in said:
        pytest.skip(f"nothing can refuse a send here: {said}")
    return said


@pytest.mark.root
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_each_stamp_is_its_own_datagrams_when_sends_are_refused(address: str):
    """On loopback the stamp is made inside the call: it lies between the times before and after it."""
    said = in_a_namespace(address)
    assert said["taken"] == [what == "." for what in PATTERN]
    assert [number for number, _ in said["found"]] == list(range(PATTERN.count(".")))
    for number, at_ns in said["found"]:
        before, after = said["calls"][number]
        assert before <= at_ns <= after, number


@pytest.mark.root
def test_follow_up_tells_of_its_own_answer_when_sends_are_refused():
    said = in_a_namespace("follow-up")
    assert (said["counts"]["answered"], said["counts"]["unsent"]) == (11, 3)
    # Numbers of a stateful reflector are of what it sent: a refused answer is no loss on the way back.
    assert sorted(map(int, said["calls"])) == list(range(11))
    assert [number for number, _ in said["told"]] == list(range(10))
    for number, at_ns in said["told"]:
        before, after = said["calls"][str(number)]
        assert before <= at_ns <= after, number


class Kernel:
    """A model: a counter that a failed send may move or not, stamps that come in any order or never."""

    def __init__(self) -> None:
        self.key = 0
        self.flying: list[tuple[int, int]] = []  # key, true number


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["send", "send", "send", "fail", "stamp", "lose"]),
                          st.integers(0, 1000)), max_size=60))  # fmt: skip
def test_no_stamp_goes_to_a_neighbour(steps):
    kernel, numbers, sent = Kernel(), DepartureNumbers(), 0
    for what, choice in steps:
        if what == "send":
            kernel.flying.append((kernel.key, sent))
            kernel.key += 1
            numbers.sent(sent)
            sent += 1
        elif what == "fail":
            kernel.key = 0
            numbers.anew()
        elif kernel.flying:
            key, true = kernel.flying.pop(choice % len(kernel.flying))
            if what == "stamp":
                assert numbers.number(key) in (true, UNKNOWN)


def test_stamps_from_before_a_failure_are_known_where_keys_tell():
    numbers = DepartureNumbers()
    for number in range(4):
        numbers.sent(number)
    assert [numbers.number(0), numbers.number(1)] == [0, 1]
    numbers.anew()
    numbers.sent(4)  # key 0, which nothing else can be
    assert [numbers.number(2), numbers.number(0), numbers.number(3)] == [2, 4, 3]
    assert numbers.number(3) == UNKNOWN


# Answers that come late, or not


def test_what_may_still_be_under_way_is_undecided():
    """A second of listening says nothing of packets whose time-out is ten."""
    with StampedSocket("127.0.0.1", 0) as silent:
        plan = Plan(count=5, gap_ns=MS, law="constant")
        for wait_ns, timeout_ns, want in ((20 * MS, 10_000 * MS, (0, 0, 5)), (40 * MS, 10 * MS, (5, 5, 0))):
            options = Options(timeout_ns=timeout_ns)
            report = measure(
                "127.0.0.1", plan, port=silent.port, bound_ns=1, wait_ns=wait_ns, options=options
            )
            loss = report.trains[0].loss
            assert (loss.sent, loss.lost, loss.undecided) == want
            told = [text for text in warnings_of(report) if "undecided" in text]
            assert bool(told) == bool(want[2]) and all("--wait" in text for text in told)


class Late:
    """A reflector that begins to answer after a while."""

    def __init__(self, after_s: float, **rules) -> None:
        self.socket = StampedSocket("127.0.0.1", 0)
        self.reflector = Reflector(self.socket, Rules(bound_ns=1000, **rules))
        self._after_s = after_s
        self._stop = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        time.sleep(self._after_s)
        self.reflector.serve(lambda: self._stop)

    def __enter__(self) -> Late:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop = True
        self._thread.join()
        self.socket.close()


@pytest.mark.parametrize("stateful", [False, True])
def test_late_answers_are_waited_for(stateful: bool):
    plan = Plan(count=10, gap_ns=MS, law="constant")
    with Late(0.2, stateful=stateful) as late:
        report = measure("127.0.0.1", plan, port=late.socket.port, bound_ns=1, wait_ns=3000 * MS)
    assert {(t.loss.sent, t.loss.lost, t.loss.undecided) for t in report.trains} == {(10, 0, 0)}
    assert time.time_ns() - report.until_ns < 2000 * MS  # nothing more is waited for


def test_the_end_of_the_wait_survives_an_export(tmp_path):
    plan = Plan(count=5, gap_ns=MS, law="constant")
    with StampedSocket("127.0.0.1", 0) as silent:
        report = measure("127.0.0.1", plan, port=silent.port, bound_ns=1, wait_ns=20 * MS)
    exports.write_raw(report, str(tmp_path / "a"))
    loss = exports.read_raw(str(tmp_path / "a")).trains[0].loss
    assert (loss.sent, loss.lost, loss.undecided) == (0, 0, 5)


class Picky(StampedSocket):
    """Refuses every fifth datagram, or sends each one twice."""

    twice = False
    calls = 0

    def send(self, data: bytes, to=None, **where) -> bool:
        self.calls += 1
        if self.twice:
            assert super().send(data, to, **where)
        elif self.calls % 5 == 0:
            return False
        return super().send(data, to, **where)


@pytest.mark.parametrize("stateful", [False, True])
def test_what_never_left_is_not_lost_on_either_way(monkeypatch, stateful: bool):
    monkeypatch.setattr(session, "StampedSocket", Picky)
    with Late(0, stateful=stateful) as late:
        plan = Plan(count=22, gap_ns=MS, law="constant")
        report = measure("127.0.0.1", plan, port=late.socket.port, bound_ns=1)
    assert report.experiment["not_taken_by_kernel"] == 4
    assert {(t.key.way, t.loss.sent, t.loss.lost) for t in report.trains} == {
        ("there", 18, 0),
        ("back", 18, 0),
    }


def test_an_answers_copy_has_its_own_departure(monkeypatch):
    """The network doubles our packets, and a stateless reflector answers both with one number: Follow-Up does
    not say which of them it tells of."""
    monkeypatch.setattr(session, "StampedSocket", Picky)
    monkeypatch.setattr(Picky, "twice", True)
    with Late(0) as late:
        plan = Plan(count=10, gap_ns=2 * MS, law="constant")
        report = measure("127.0.0.1", plan, port=late.socket.port, bound_ns=1, wait_ns=200 * MS)
    (back,) = [train.judged.arrivals for train in report.trains if train.key.way == "back"]
    assert len(back) == 20 and len(np.unique(back.sequence)) == 10
    assert len(np.unique(back.sent_ns)) == 20


def test_an_interface_that_refused_packets_did_not_send_them():
    """Experiments on ordinary interfaces: the account has the numbers that left, not the first so many."""
    from twinstamp.card.linux_trains import LinuxTrainRun
    from twinstamp.card.trains import TRAIN_DEPARTURE
    from twinstamp.owd.experiment import _account
    from twinstamp.train import Constant, Fixed, Train

    class Run(LinuxTrainRun):
        """Four packets, of which the second was refused."""

        def __init__(self) -> None:
            self.synchronised = True

        def taken(self):
            return np.array([0, 2, 3])

        def departures(self):
            return np.zeros(0, TRAIN_DEPARTURE)

        def status(self):
            return SimpleNamespace(sent=3, late=0, worst_delay=0)

    class Card:
        def utc_offset(self):
            return SimpleNamespace(utc_ns=lambda ns: ns)

    train = Train(
        packets=4, gap=Constant("1us"), size=Fixed(90), source="10.0.0.1", destination="10.0.0.2",
        source_mac="02:00:00:00:00:01", destination_mac="02:00:00:00:00:02",
    )  # fmt: skip
    flight = SimpleNamespace(train=train, source="a", destination="b")
    account, told = _account(flight, Run(), SimpleNamespace(card=Card()), 1_000_000)
    assert (account.sequence.tolist(), told["sent"]) == ([0, 2, 3], 3)
    assert account.sent_ns.tolist() == (1_000_000 + train.schedule().ns()[[0, 2, 3]]).tolist()
