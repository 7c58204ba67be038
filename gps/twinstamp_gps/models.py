# SPDX-License-Identifier: Apache-2.0
"""Oscillators and receivers by name: their noise, and what the servo is told about them.

Noise of tcxo, xo-cm4, xo-i225, f9t and m8t is that of satpulse's simulator (white FM, flicker FM, random walk
FM; jitter, sawtooth, wander), the sinusoids of m8t with random phase. Its figures have no temperature term: the
sensitivities here are what datasheets of the kind allow (TCXO 0.5 ppm over 125 degrees, AT-cut XO 25 ppm over the
same, OCXO 10 ppb over 65), and act only where a simulation is given a temperature that changes.
ocxo is Meinberg's OCXO HQ by its data sheet: 5e-12 over 1 s, 5e-10 of ageing a day; its flicker floor is set to
the same 5e-12, and its random walk to 1e-13 in 1 s, which makes about 2e-11 in a day.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class OscillatorModel:
    """Noise of an oscillator; Allan deviations and frequencies in ppb (1e-9).

    white_ppb: white FM, Allan deviation over 1 s. flicker_ppb: floor of the Allan deviation by flicker FM.
    walk_ppb: random walk FM, change of frequency in 1 s (one sigma). temperature_c: one sigma of the room's slow
    change (time constant 1800 s); temperature_daily_c: amplitude of its daily swing. offset_ppb: at the start.
    """

    white_ppb: float
    flicker_ppb: float
    walk_ppb: float
    temperature_ppb_c: float
    ageing_ppb_day: float = 0.0
    offset_ppb: float = 0.0
    temperature_c: float = 0.0
    temperature_daily_c: float = 0.0

    def settings(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverModel:
    """Noise of a receiver's pulses, in ns.

    jitter_ns: white, one sigma. sawtooth_ns: half the span of the quantisation that qErr tells. wander_ns,
    wander_s: first-order process, one sigma and time constant. daily_ns, half_daily_ns: amplitudes of sinusoids of
    24 h and 12 h.
    """

    jitter_ns: float
    sawtooth_ns: float
    wander_ns: float
    wander_s: float
    daily_ns: float = 0.0
    half_daily_ns: float = 0.0

    def settings(self) -> dict[str, float]:
        return asdict(self)

    @property
    def slow_rms_ns(self) -> float:
        """The wander and the sinusoids together, which no averaging takes away."""
        return float((self.wander_ns**2 + self.daily_ns**2 / 2 + self.half_daily_ns**2 / 2) ** 0.5)


OSCILLATORS = {
    "tcxo": OscillatorModel(
        white_ppb=2.5, flicker_ppb=0.6, walk_ppb=0.02, temperature_ppb_c=4.0, offset_ppb=800.0
    ),
    "xo-cm4": OscillatorModel(
        white_ppb=2.8, flicker_ppb=1.3, walk_ppb=0.8, temperature_ppb_c=200.0, offset_ppb=-9000.0
    ),
    "xo-i225": OscillatorModel(
        white_ppb=2.5, flicker_ppb=0.0, walk_ppb=2.9, temperature_ppb_c=200.0, offset_ppb=12000.0
    ),
    "ocxo": OscillatorModel(
        white_ppb=0.005,
        flicker_ppb=0.005,
        walk_ppb=0.0001,
        temperature_ppb_c=0.15,
        ageing_ppb_day=0.5,
        offset_ppb=50.0,
    ),
}

RECEIVERS = {
    "f9t": ReceiverModel(jitter_ns=0.2, sawtooth_ns=7.86, wander_ns=3.0, wander_s=3400.0),
    "m8t": ReceiverModel(
        jitter_ns=0.24, sawtooth_ns=21.0, wander_ns=4.7, wander_s=2200.0, daily_ns=7.5, half_daily_ns=2.5
    ),
}


def servo_settings(oscillator: OscillatorModel, receiver: ReceiverModel) -> dict[str, int]:
    """The servo's settings (`servo_config` in firmware/servo/servo.h) for a known receiver.

    Of the oscillator it is told where to begin learning, and to expect half a degree an hour in holdover.
    """
    return {
        "white_ppt": round(oscillator.white_ppb * 1000),
        "flicker_ppt": round(oscillator.flicker_ppb * 1000),
        "walk_ppt": round(oscillator.walk_ppb * 1000),
        "temperature_ppt": round(oscillator.temperature_ppb_c * 500),
        "wander_ps": round(receiver.slow_rms_ns * 1000),
        "jitter_ps": round(receiver.jitter_ns * 1000),
        "sawtooth_ps": round(receiver.sawtooth_ns * 1000),
    }
