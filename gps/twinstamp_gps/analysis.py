# SPDX-License-Identifier: Apache-2.0
"""Statistics of a clock's log: errors, coverage (NumPy), Allan deviation (allantools), MTIE (SciPy)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp_gps.errors import LogError
from twinstamp_gps.log import STATES, ClockLog

if TYPE_CHECKING:
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

_COLD = 0


@dataclass(frozen=True, kw_only=True)
class ErrorStatistics:
    """Of the time error, ns. p*_ns: percentiles of its absolute value, interpolated. coverage: share of
    samples with a bound whose error is not above it; median_bound_ns: of those. None where there is
    nothing to say.
    """

    samples: int
    rms_ns: float | None
    mean_ns: float | None
    p50_ns: float | None
    p99_ns: float | None
    p99_9_ns: float | None
    max_ns: float | None
    coverage: float | None
    median_bound_ns: float | None


@dataclass(frozen=True, kw_only=True)
class Deviations:
    """Overlapping Allan deviation and maximum time interval error of the longest piece without a gap.

    start_s, seconds, interval_s: of that piece. adev: dimensionless, by adev_s; mtie_ns by mtie_s.
    """

    start_s: float
    seconds: float
    interval_s: float
    adev_s: Array
    adev: Array
    mtie_s: Array
    mtie_ns: Array


def error_of(log: ClockLog) -> tuple[str, Array]:
    """("true_error_ns" or "offset_ns", the column): the truth where the log knows it, else the estimate.

    LogError where it has neither, as a log of a receiver alone.
    """
    for name in ("true_error_ns", "offset_ns"):
        column = log.get(name)
        if np.isfinite(column).any():
            return name, column
    raise LogError(
        "the log has no time error: neither true_error_ns nor offset_ns; it is of a receiver alone, "
        "or the clock was never set"
    )


def known(log: ClockLog) -> npt.NDArray[np.bool_]:
    """Samples whose error means something: finite, and the clock not cold (its time is then unknown)."""
    _, error = error_of(log)
    use: npt.NDArray[np.bool_] = np.isfinite(error) & (log.get("state") != _COLD)
    return use


def statistics(error_ns: Array, bound_ns: Array) -> ErrorStatistics:
    """Of samples given; bound_ns is nan where unknown."""
    if not len(error_ns):
        return ErrorStatistics(
            samples=0, rms_ns=None, mean_ns=None, p50_ns=None, p99_ns=None, p99_9_ns=None, max_ns=None,
            coverage=None, median_bound_ns=None,
        )  # fmt: skip
    size = np.abs(error_ns)
    p50, p99, p99_9 = (float(value) for value in np.percentile(size, [50, 99, 99.9]))
    bounded = np.isfinite(bound_ns)
    return ErrorStatistics(
        samples=len(error_ns),
        rms_ns=float(np.sqrt(np.mean(error_ns**2))),
        mean_ns=float(np.mean(error_ns)),
        p50_ns=p50,
        p99_ns=p99,
        p99_9_ns=p99_9,
        max_ns=float(size.max()),
        coverage=float(np.mean(size[bounded] <= bound_ns[bounded])) if bounded.any() else None,
        median_bound_ns=float(np.median(bound_ns[bounded])) if bounded.any() else None,
    )


def by_state(log: ClockLog) -> dict[str, ErrorStatistics]:
    """Statistics of all samples that mean something ("all"), and of each state that occurs."""
    _, error = error_of(log)
    bound, state, use = log.get("bound_ns"), log.get("state"), known(log)
    found = {"all": statistics(error[use], bound[use])}
    for number, name in enumerate(STATES):
        here = use & (state == number)
        if here.any():
            found[name] = statistics(error[here], bound[here])
    return found


def _longest_piece(time_s: Array, use: npt.NDArray[np.bool_]) -> tuple[int, int, float]:
    """(first, one past the last, usual interval) of the longest run of samples in use without a gap."""
    interval = float(np.median(np.diff(time_s))) if len(time_s) > 1 else 1.0
    joined = use[1:] & use[:-1] & (np.diff(time_s) < 1.5 * interval)
    ends = np.flatnonzero(np.diff(np.concatenate(([False], joined, [False]))))
    starts, stops = ends[::2], ends[1::2]
    if not len(starts):
        return 0, 0, interval
    best = int(np.argmax(stops - starts))
    return int(starts[best]), int(stops[best]) + 1, interval


def mtie(phase: Array, samples: int) -> float:
    """Maximum time interval error (ITU-T G.810): largest peak to peak within any ``samples`` + 1 samples."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d

    size, half = samples + 1, (samples + 1) // 2
    span = maximum_filter1d(phase, size) - minimum_filter1d(phase, size)
    # The filter is centred; at the ends it would see past the data.
    return float(span[half : len(phase) - (size - 1 - half)].max())


def deviations(log: ClockLog) -> Deviations:
    """LogError where no piece has 8 samples, or allantools (extra `plots`) is missing."""
    try:
        import allantools
    except ImportError as error:
        raise LogError("Allan deviation needs allantools: pip install 'twinstamp[plots]'") from error
    _, error_ns = error_of(log)
    time_s = log.columns["t_s"]
    first, last, interval = _longest_piece(time_s, known(log))
    if last - first < 8:
        raise LogError(
            f"the log has no 8 samples without a gap (interval {interval:g} s): nothing to analyse"
        )
    t, x = time_s[first:last], error_ns[first:last]
    grid = t[0] + interval * np.arange(int((t[-1] - t[0]) / interval + 1e-6) + 1)
    if len(grid) != len(t) or np.abs(grid - t).max() > 0.01 * interval:
        x = np.interp(grid, t, x)  # live samples come a little early or late
    adev_s, adev, _, _ = allantools.oadev(x * 1e-9, rate=1 / interval, data_type="phase", taus="octave")
    lengths = 2 ** np.arange(int(np.log2(len(x) - 1)) + 1)
    return Deviations(
        start_s=float(t[0]),
        seconds=float(grid[-1] - grid[0]),
        interval_s=interval,
        adev_s=np.asarray(adev_s, np.float64),
        adev=np.asarray(adev, np.float64),
        mtie_s=np.asarray(lengths * interval, np.float64),
        mtie_ns=np.array([mtie(x, int(length)) for length in lengths]),
    )


def summary(log: ClockLog) -> dict[str, Any]:
    """All of it as one report: plain numbers, lists and text."""
    name, _ = error_of(log)
    use = known(log)
    dev = deviations(log)
    time_s = log.columns["t_s"]
    return {
        "version": 1,
        "about": log.about,
        "error": name,
        "samples": len(log),
        "seconds": float(time_s[-1] - time_s[0]),
        "samples_left_out": int((~use).sum()),
        "errors": {state: asdict(values) for state, values in by_state(log).items()},
        "allan_deviation": [[float(t), float(v)] for t, v in zip(dev.adev_s, dev.adev, strict=True)],
        "mtie_ns": [[float(t), float(v)] for t, v in zip(dev.mtie_s, dev.mtie_ns, strict=True)],
        "piece": {"start_s": dev.start_s, "seconds": dev.seconds, "interval_s": dev.interval_s},
    }
