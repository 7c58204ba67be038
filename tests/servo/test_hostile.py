# SPDX-License-Identifier: Apache-2.0
"""Inputs that no clock and no receiver would send: nothing hangs, overflows or locks wrongly."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp_gps import _servo

ROOT = Path(__file__).resolve().parents[2]
SECOND = 2**32
PULSE, EARLY, DOUBLE, GLITCH, TAI, QERR, ACCURACY, REFUSED, ACCEPT, FIX, FIX_BEFORE = (
    1 << bit for bit in range(11)
)
MOVED, DOUBLED, UNVOUCHED = 1 << 16, 1 << 15, 1 << 14  # events
OUT_LOCKED, OUT_LOAD, OUT_SLEW = 1, 2, 4
COLD, ACQUIRING, LOCKED, HOLDOVER, DISPUTED, FAILED = range(6)
UNKNOWN = 0xFFFFFFFF

u64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1])
i64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), -1, 0, 2**63 - 1])
anything = st.fixed_dictionaries(
    {
        "now_q32": u64,
        "pulse_q32": u64,
        "slew_left_q64": i64,
        "tai_s": u64,
        "qerr_ps": st.integers(-(2**31), 2**31 - 1),
        "accuracy_ns": st.integers(0, 2**32 - 1),
        "flags": st.integers(0, 2**32 - 1),
        "other_q32": st.integers(-(2**31), 2**31 - 1),
        "moves": st.integers(0, 2**32 - 1) | st.just(0),
    }
)


class Clock:
    """A perfect card and a perfect receiver, for those steps that are not hostile."""

    def __init__(self):
        self.servo = _servo.Servo({})
        self.now_q32 = 5 * SECOND + 12345
        self.tai_s = 1_800_000_000

    def step(self, **changes):
        self.now_q32 += SECOND
        self.tai_s += 1
        values = {
            "now_q32": (self.now_q32 + SECOND // 5) % 2**64,
            "pulse_q32": self.now_q32 % 2**64,
            "tai_s": self.tai_s,
            "flags": PULSE | TAI,
        }
        out = self.servo.step(**{**values, **changes})
        if out["flags"] & OUT_LOAD:
            self.now_q32 += out["load_delta_q32"]
        if out["flags"] & OUT_SLEW:
            self.now_q32 += round(out["slew_amount_q64"] / 2**32)
        check(out)
        return out


def check(out):
    assert 0x210000000000 <= out["increment_q72"] <= 0x23FFFFFFFFFF
    assert 0 <= out["state"] <= FAILED
    assert bool(out["flags"] & OUT_LOCKED) == (out["state"] == LOCKED)
    assert not out["flags"] & OUT_LOAD or out["state"] == ACQUIRING
    assert out["state"] not in (COLD, FAILED) or out["bound_ns"] == UNKNOWN
    assert out["state"] != LOCKED or out["bound_ns"] <= 400
    assert abs(out["slew_amount_q64"]) <= 5000e-9 * 0.35 * 2**64 + 1
    assert out["slew_step_q64"] <= 5000e-9 * 8e-9 * 2**64


def lock(clock):
    for _ in range(80):
        out = clock.step()
    assert out["state"] == LOCKED
    return out


@given(st.lists(anything, max_size=12))
@settings(max_examples=150, deadline=None)
def test_anything_cold(inputs):
    clock = Clock()
    for values in inputs:
        check(clock.servo.step(**values))


@given(st.lists(anything, min_size=1, max_size=12))
@settings(max_examples=80, deadline=None)
def test_anything_locked(inputs):
    """Time may jump under it, so it may have to start again: it never stays locked wrongly."""
    clock = Clock()
    lock(clock)
    for values in inputs:
        check(clock.servo.step(**values))
    for _ in range(120):
        out = clock.step()
        if out["state"] == LOCKED:
            error_ns = (clock.now_q32 - (clock.tai_s << 32)) % 2**64
            error_ns = min(error_ns, 2**64 - error_ns) / SECOND * 1e9
            assert error_ns <= out["bound_ns"] + 1


@given(
    st.lists(
        st.sampled_from(["tai_s", "pulse_q32", "qerr_ps", "accuracy_ns", "flags", "other_q32"]), min_size=1
    ),
    st.data(),
)
@settings(max_examples=80, deadline=None)
def test_a_hostile_receiver_cannot_move_a_locked_clock(fields, data):
    """A microsecond or more, or another second: refused, whatever else the receiver says."""
    clock = Clock()
    lock(clock)
    for field in fields:
        value = data.draw(anything)[field]
        if field == "pulse_q32":
            off = data.draw(st.integers(SECOND // 10**6, SECOND // 3)) * data.draw(st.sampled_from([-1, 1]))
            value = (clock.now_q32 + SECOND + off) % 2**64
        if field == "flags":
            value &= ~(REFUSED | ACCEPT)  # those are the clock's and the operator's
        out = clock.step(**{field: value})
        error_ns = (clock.now_q32 - (clock.tai_s << 32)) / SECOND * 1e9
        assert abs(error_ns) < 500
        if out["bound_ns"] != UNKNOWN:
            assert abs(error_ns) <= out["bound_ns"] + 1


@pytest.mark.parametrize("state", [COLD, ACQUIRING, LOCKED, HOLDOVER, DISPUTED, FAILED])
def test_a_clock_that_somebody_else_moved_is_cold(state):
    """In every state, at the next step, with the pulse of that step left alone."""
    clock = in_state(state)
    out = clock.step(moves=1)
    assert out["state"] == (FAILED if state == FAILED else COLD)
    assert out["events"] & MOVED and out["bound_ns"] == UNKNOWN
    if state != FAILED:
        for _ in range(2):
            assert clock.step(moves=1)["state"] == COLD
        out = clock.step(moves=1)  # three pulses of the new time
        assert out["flags"] & OUT_LOAD and not out["events"] & MOVED


def in_state(state):
    clock = Clock()
    if state == COLD:
        clock.step()
    elif state == ACQUIRING:
        for _ in range(5):
            clock.step()
    elif state == LOCKED:
        lock(clock)
    elif state == HOLDOVER:
        lock(clock)
        for _ in range(10):
            out = clock.step(flags=0)
    elif state == DISPUTED:
        lock(clock)
        for _ in range(20):
            out = clock.step(pulse_q32=clock.now_q32 + SECOND + SECOND // 1000)
    else:
        lock(clock)
        for _ in range(3):
            out = clock.step(slew_left_q64=2**40)
    if state >= HOLDOVER:
        assert out["state"] == state
    return clock


def test_a_message_with_a_fix_vouches_for_its_second_and_the_next():
    """A name vouches where nothing else is said; a fix without a name does too."""
    for flags in (TAI, FIX, FIX | TAI):
        clock = Clock()
        lock(clock)
        events = [clock.step(flags=PULSE | given)["events"] & UNVOUCHED for given in (flags, 0, 0, flags)]
        assert events == [0, 0, UNVOUCHED, 0], flags
    clock = Clock()
    lock(clock)
    # One that comes after the step of its second is for the second before.
    events = [clock.step(flags=PULSE | given)["events"] & UNVOUCHED for given in (FIX_BEFORE, 0, FIX_BEFORE)]
    assert events == [0, UNVOUCHED, 0]


@pytest.mark.parametrize("state", [COLD, ACQUIRING, HOLDOVER, DISPUTED])
def test_pulses_that_nobody_vouches_for_change_no_state_for_the_better(state):
    clock = in_state(state)
    for _ in range(40):
        out = clock.step(flags=PULSE)
    assert out["state"] == (COLD if state in (COLD, ACQUIRING) else state)


@pytest.mark.parametrize("accuracy_ns", [5, 50, 5000])
def test_holdover_does_not_end_with_a_receiver_that_is_worse(accuracy_ns):
    """By its own word, and worse than the clock's bound."""
    clock = Clock()
    for _ in range(120):
        clock.step(flags=PULSE | TAI | ACCURACY, accuracy_ns=5)
    for _ in range(20):
        bound_ns = clock.step(flags=0)["bound_ns"]
    assert 200 < bound_ns < 20_000
    for _ in range(5):
        out = clock.step(flags=PULSE | TAI | ACCURACY, accuracy_ns=accuracy_ns)
    assert (out["state"] == HOLDOVER) == (4 * (accuracy_ns - 5) > bound_ns)


@pytest.mark.parametrize("away_s", [1e-6, -1e-6, 0.1, -0.4])
def test_of_two_edges_in_holdover_one_must_be_out_of_the_question(away_s):
    clock = in_state(HOLDOVER)
    for _ in range(300):
        bound_ns = clock.step(flags=0)["bound_ns"]
    for _ in range(5):
        out = clock.step(flags=PULSE | TAI | DOUBLE, other_q32=round(away_s * SECOND))
    assert out["events"] & DOUBLED
    assert (out["state"] == HOLDOVER) == (abs(away_s) * 1e9 < bound_ns)


def test_messages_alone_do_not_lock():
    clock = Clock()
    for second in range(200):
        out = clock.step(tai_s=(clock.tai_s * 2654435761 + second) % 2**33)
        assert out["state"] == COLD


def test_a_clock_that_does_not_obey_has_failed():
    clock = Clock()
    lock(clock)
    for _ in range(3):
        out = clock.step(slew_left_q64=2**40)
    assert out["state"] == FAILED
    assert all(clock.step()["state"] == FAILED for _ in range(30))
    clock.step(flags=PULSE | TAI | ACCEPT)
    lock(clock)


def test_a_refused_load_is_tried_again():
    clock = Clock()
    for _ in range(3):
        out = clock.step()
    assert out["flags"] & OUT_LOAD
    clock.now_q32 -= out["load_delta_q32"]  # a train is armed: nothing was loaded
    assert clock.step(flags=PULSE | TAI | REFUSED)["state"] == COLD
    lock(clock)


def test_a_stopped_caller_is_seen():
    clock = Clock()
    before = lock(clock)["bound_ns"]
    clock.now_q32 += 100 * SECOND
    clock.tai_s += 100
    out = clock.step(flags=0)
    assert out["events"] >> 7 & 1
    assert out["bound_ns"] > 2 * before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("slew_limit_ppb", 0),
        ("slew_limit_ppb", 100_001),
        ("lock_pulses", 3),
        ("learn", 2),
        ("white_ppt", 2**31),
    ],
)
def test_settings_outside_their_limits_are_refused(name, value):
    with pytest.raises(ValueError, match="outside its limits"):
        _servo.Servo({name: value})


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory):
    compiler = shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path_factory.mktemp("fuzz") / "fuzz"
    sources = [ROOT / "tests/servo/fuzz.c", *sorted((ROOT / "firmware/servo").glob("*.c"))]
    words = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fno-sanitize-recover=all"]
    subprocess.run(
        [
            compiler,
            *words,
            "-fsanitize=undefined,address",
            f"-I{ROOT}/firmware/servo",
            *sources,
            "-o",
            program,
        ],
        check=True,
    )
    return program


@pytest.mark.parametrize("seed", range(24))
def test_no_undefined_behaviour(fuzzer, seed):
    done = subprocess.run([fuzzer, str(seed), "10000"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
