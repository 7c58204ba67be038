# SPDX-License-Identifier: Apache-2.0
"""Noise models against theory, with allantools as the judge."""

from __future__ import annotations

import allantools
import numpy as np
import pytest

from twinstamp_gps import _servo
from twinstamp_gps.models import OSCILLATORS, RECEIVERS, ReceiverModel

TAUS = (1, 4, 16, 64, 256, 1024)


def deviations(model, *, runs, taus=TAUS, seconds=16384):
    """Mean overlapping Allan variance over runs, as a deviation in ppb."""
    squares = []
    for seed in range(runs):
        phase = np.concatenate(([0.0], _servo.Oscillator(model, seed).phase_ns(0.1, seconds * 10)[9::10]))
        _, adev, _, _ = allantools.oadev(phase * 1e-9, rate=1, data_type="phase", taus=list(taus))
        squares.append(np.square(adev * 1e9))
    return np.sqrt(np.mean(squares, axis=0))


def test_white_fm():
    found = deviations({"white_ppb": 2.5}, runs=8, taus=TAUS[:5])
    np.testing.assert_allclose(found, 2.5 / np.sqrt(TAUS[:5]), rtol=0.06)


def test_flicker_fm_has_its_floor_at_every_time():
    found = deviations({"flicker_ppb": 0.6}, runs=32)
    np.testing.assert_allclose(found, 0.6, rtol=0.08)


def test_random_walk_fm():
    found = deviations({"walk_ppb": 2.9}, runs=32, taus=TAUS[:5])
    np.testing.assert_allclose(found, 2.9 * np.sqrt(np.array(TAUS[:5]) / 3), rtol=0.1)


@pytest.mark.parametrize("name", OSCILLATORS)
def test_oscillators_are_the_sum_of_their_noise(name):
    model = OSCILLATORS[name]
    found = deviations(model.settings(), runs=16, taus=(1, 8, 64))
    tau = np.array((1, 8, 64))
    drift = model.ageing_ppb_day / 86400 * tau / np.sqrt(2)
    theory = np.sqrt(
        model.white_ppb**2 / tau + model.flicker_ppb**2 + model.walk_ppb**2 * tau / 3 + np.square(drift)
    )
    np.testing.assert_allclose(found, theory, rtol=0.1)


def test_steps_of_any_length_make_the_same_noise():
    fine = [_servo.Oscillator({"white_ppb": 2.0}, seed).phase_ns(0.01, 100)[-1] for seed in range(2000)]
    coarse = [_servo.Oscillator({"white_ppb": 2.0}, seed).phase_ns(1.0, 1)[-1] for seed in range(2000)]
    assert np.std(fine) == pytest.approx(2.0, rel=0.06)
    assert np.std(coarse) == pytest.approx(2.0, rel=0.06)


def pulses(model, seed, n):
    receiver = _servo.Receiver(model, seed)
    return np.array([receiver.next() for _ in range(n)])


@pytest.mark.parametrize("name", RECEIVERS)
def test_what_qerr_leaves_of_a_pulse_is_jitter(name):
    model = RECEIVERS[name]
    late, qerr, slow = pulses(model.settings(), 5, 20_000).T
    assert np.std(late + qerr * 1e-3 - slow) == pytest.approx(model.jitter_ns, rel=0.03)
    assert np.abs(qerr).max() <= model.sawtooth_ns * 1000
    # Uniform over its span, so far as a drift through it makes it so.
    assert np.std(qerr * 1e-3) == pytest.approx(model.sawtooth_ns / np.sqrt(3), rel=0.1)


def test_wander_has_its_size_and_time():
    model = ReceiverModel(jitter_ns=0, sawtooth_ns=0, wander_ns=3.0, wander_s=300.0)
    slow = np.array([pulses(model.settings(), seed, 20_000)[:, 2] for seed in range(20)])
    assert np.std(slow) == pytest.approx(3.0, rel=0.06)
    assert np.mean(slow[:, :-300] * slow[:, 300:]) / 9 == pytest.approx(np.exp(-1), abs=0.08)


def test_sinusoids_have_random_phases():
    model = ReceiverModel(jitter_ns=0, sawtooth_ns=0, wander_ns=0, wander_s=1, daily_ns=7.5, half_daily_ns=2.5)
    first = np.array([pulses(model.settings(), seed, 1)[0, 2] for seed in range(2000)])
    assert np.std(first) == pytest.approx(np.hypot(7.5, 2.5) / np.sqrt(2), rel=0.06)
    assert model.slow_rms_ns == pytest.approx(np.hypot(7.5, 2.5) / np.sqrt(2))


def test_the_seed_is_all():
    model = OSCILLATORS["tcxo"].settings()
    one, same, other = (_servo.Oscillator(model, seed).phase_ns(0.1, 500) for seed in (3, 3, 4))
    assert (one == same).all()
    assert (one != other).any()


def test_unknown_figures_are_refused():
    with pytest.raises(ValueError, match="no setting is called"):
        _servo.Oscillator({"pink_ppb": 1.0}, 0)
    with pytest.raises(ValueError, match="no setting is called"):
        _servo.Receiver({"hum_ns": 1.0}, 0)
