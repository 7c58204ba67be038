# SPDX-License-Identifier: Apache-2.0
"""What was measured beside what the simulation knows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from twinstamp.demo_owd.pair import Epoch, Truth
    from twinstamp.owd.report import TrainReport

STAMP_RMS_NS = 8 / 12**0.5  # of a receive stamp: uniform over a cycle (docs/card.md: Stamps)


@dataclass(frozen=True)
class Errors:
    """One direction's delays against the truth, packet by packet.

    measured_ns: i64[n], true_ns: f64[n], error_ns: measured − true, f64[n]; bound_ns: the report's, i64[n]
    (-1 unknown); at_s: departures since the experiment's start, f64[n]. lost: as reported; truly_lost: as
    the cloud did. rest_ns: of the error, what the two clocks' errors at the burst do not make, f64[n].
    """

    error_ns: npt.NDArray[np.float64]
    bound_ns: npt.NDArray[np.int64]
    at_s: npt.NDArray[np.float64]
    true_ns: npt.NDArray[np.float64]
    measured_ns: npt.NDArray[np.int64]
    rest_ns: npt.NDArray[np.float64]
    lost: int
    truly_lost: int


@dataclass(frozen=True)
class Figures:
    """Of one direction, all its experiments pooled.

    clock_rms_ns: of both clocks' errors at the bursts, the first site's first; rss_ns: root sum of squares
    of both and 2.31 ns. clocks_rms_ns: of the difference of both, that is, theirs together in just these
    bursts; rest_rms_ns: of what the error has besides, by the stamps. covered: share of the delays whose
    error is not beyond their bound; those without a bound count as not covered.
    """

    epochs: int
    packets: int
    rms_ns: float
    mean_ns: float
    p99_ns: float
    max_ns: float
    covered: float
    median_bound_ns: float
    clock_rms_ns: tuple[float, float]
    rss_ns: float
    clocks_rms_ns: float
    rest_rms_ns: float
    lost: int
    truly_lost: int

    def json(self) -> dict[str, Any]:
        return asdict(self)


def errors_of(train: TrainReport, truth: Truth, epochs: Sequence[Epoch], way: int) -> Errors:
    """Of a train that was joined of bursts, its numbers those of the truth.

    way: 0 from the first site, 1 back.
    """
    table = train.table()
    number = table["sequence"].astype(np.int64)
    true_fs = truth.delay_fs[number]
    measured = table["delay_ns"].astype(np.int64)
    # The whole ns first: a float has no room for hours in fs.
    error = (measured * 10**6 - true_fs) / 1e6
    set_ns = np.array([epoch.realised_ns for epoch in epochs])
    clocks = set_ns[:, 1 - way] - set_ns[:, way]
    packets = len(truth.delay_fs) // len(epochs)
    return Errors(
        error,
        table["bound_ns"].astype(np.int64),
        truth.departure_ns[number] / 1e9,
        true_fs / 1e6,
        measured,
        error - clocks[number // packets],
        train.loss.lost,
        int(np.count_nonzero(truth.delay_fs < 0)),
    )


def figures(errors: Sequence[Errors], epochs: Sequence[Epoch]) -> Figures:
    """Of all these errors pooled; epochs: those of their bursts."""
    error = np.concatenate([e.error_ns for e in errors])
    bound = np.concatenate([e.bound_ns for e in errors])
    set_ns = np.array([epoch.wanted_ns for epoch in epochs])
    clocks = np.sqrt(np.mean(set_ns**2, axis=0))
    return Figures(
        epochs=len(set_ns),
        packets=len(error),
        rms_ns=_rms(error),
        mean_ns=float(error.mean()),
        p99_ns=float(np.percentile(np.abs(error), 99)),
        max_ns=float(np.abs(error).max()),
        covered=float(np.mean((bound >= 0) & (np.abs(error) <= bound))),
        median_bound_ns=float(np.median(bound)),
        clock_rms_ns=(float(clocks[0]), float(clocks[1])),
        rss_ns=float(np.sqrt((clocks**2).sum() + STAMP_RMS_NS**2)),
        clocks_rms_ns=_rms(set_ns[:, 1] - set_ns[:, 0]),
        rest_rms_ns=_rms(np.concatenate([e.rest_ns for e in errors])),
        lost=sum(e.lost for e in errors),
        truly_lost=sum(e.truly_lost for e in errors),
    )


def _rms(values: npt.NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(values**2)))
