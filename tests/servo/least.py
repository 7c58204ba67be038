# SPDX-License-Identifier: Apache-2.0
"""The least error that any predictor can have in holdover, by the noise models of twinstamp_gps.

A Kalman filter that knows the whole model and all its figures (flicker as its 22 first-order processes, the
receiver's wander as another): its covariance needs no data, so the result is exact, and no predictor has a
smaller mean square (the processes are Gaussian). It does not know what is drawn: frequency and processes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twinstamp_gps.models import OscillatorModel, ReceiverModel

POLES, SHORTEST_S = 22, 0.0625  # of flicker, an octave apart: native/noise.h
ROOM_S = 1800.0
CAPTURE_NS2 = 1 / 12 + (1e9 / 2**32) ** 2 / 12  # a sample of 1 ns, 2^-32 s


def first_order(oscillator: OscillatorModel) -> list[tuple[float, float]]:
    """(sigma in ppb, time constant in s) of the frequency's first-order processes."""
    sigma = oscillator.flicker_ppb / 2**0.5
    poles = [(sigma, SHORTEST_S * 2**i) for i in range(POLES)] if sigma else []
    if oscillator.temperature_c:
        poles.append((oscillator.temperature_ppb_c * oscillator.temperature_c, ROOM_S))
    return poles


def least_ns(
    oscillator: OscillatorModel, receiver: ReceiverModel, ahead_s: Sequence[float], *, pulses: int = 3600
) -> list[float]:
    """Root of the least mean square error in ns, at each of ``ahead_s`` behind the last of so many pulses."""
    poles = first_order(oscillator)
    n = 3 + len(poles)  # phase ns, receiver's wander ns, frequency ppb (offset and walk), processes ppb
    p = np.diag([1e6, receiver.slow_rms_ns**2, 1e10, *(sigma**2 for sigma, _ in poles)])
    h = np.zeros(n)
    h[0] = 1.0
    h[1] = -1.0  # a late pulse looks like a fast clock
    noise = receiver.jitter_ns**2 + CAPTURE_NS2
    step = transition(oscillator, receiver, poles, 1.0)
    for _ in range(pulses):
        gain = p @ h / (h @ p @ h + noise)
        p = p - np.outer(gain, h @ p)
        p = (p + p.T) / 2
        last = p
        p = step[0] @ p @ step[0].T + step[1]
    found = []
    for ahead in ahead_s:
        f, q = transition(oscillator, receiver, poles, ahead)
        found.append(float((f @ last @ f.T + q)[0, 0] ** 0.5))
    return found


def transition(
    oscillator: OscillatorModel, receiver: ReceiverModel, poles: list[tuple[float, float]], t: float
) -> tuple[np.ndarray, np.ndarray]:
    """F and Q over t seconds, exact: ns of phase are ppb times s."""
    n = 3 + len(poles)
    f, q = np.eye(n), np.zeros((n, n))
    f[0, 2] = t
    q[0, 0] = oscillator.white_ppb**2 * t + oscillator.walk_ppb**2 * t**3 / 3
    q[0, 2] = q[2, 0] = oscillator.walk_ppb**2 * t**2 / 2
    q[2, 2] = oscillator.walk_ppb**2 * t
    kept = np.exp(-t / receiver.wander_s)
    f[1, 1] = kept
    q[1, 1] = receiver.slow_rms_ns**2 * (1 - kept**2)
    for i, (sigma, tau) in enumerate(poles, 3):
        kept = np.exp(-t / tau)
        f[i, i], f[0, i] = kept, tau * (1 - kept)
        q[i, i] = sigma**2 * (1 - kept**2)
        q[0, i] = q[i, 0] = sigma**2 * tau * (1 - kept) ** 2
        # Of the integral of a first-order process that begins at a known value.
        q[0, 0] += sigma**2 * tau * (2 * t - 3 * tau + 4 * tau * kept - tau * kept**2)
    return f, q
