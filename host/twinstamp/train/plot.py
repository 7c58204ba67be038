# SPDX-License-Identifier: Apache-2.0
"""A picture of a train's schedule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    from twinstamp.train.train import Train

MOST_DRAWN = 100_000


def plot_train(train: Train, path: str | Path) -> None:
    """Gaps and sizes over the packets' times, of the first 100,000 packets; the format by the name's ending.

    ConfigError without matplotlib, for an unknown format and where the file cannot be written.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise ConfigError("a picture needs matplotlib: pip install 'twinstamp[plots]'") from error
    schedule = train.schedule()
    shown = min(len(schedule), MOST_DRAWN)
    first = int(schedule.seconds[0])
    time = (schedule.seconds[:shown] - np.uint64(first)).astype(np.float64) + schedule.fraction[
        :shown
    ] / 2.0**64
    unit, scale = next(
        (u, s) for u, s in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)) if time[-1] * s >= 1 or s == 1e6
    )
    figure, (gaps, sizes) = pyplot.subplots(2, 1, figsize=(10, 5.5), sharex=True, layout="constrained")
    style = {"marker": ".", "linestyle": "none", "markersize": 3}
    gaps.plot(time[1:] * scale, np.diff(time) * 1e6, **style)
    gaps.set_ylabel("gap before the packet, µs")
    if shown > 1 and np.diff(time).min() > 0:
        gaps.set_yscale("log")
    sizes.plot(time * scale, schedule.size[:shown], **style)
    sizes.set_ylabel("bytes with FCS")
    sizes.set_xlabel(f"time from the first packet, {unit}")
    left_out = f", the first {shown:,} of them" if shown < len(schedule) else ""
    figure.suptitle(f"{train.name}: {len(schedule):,} packets{left_out}")
    try:
        figure.savefig(Path(path), dpi=120)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: the picture cannot be written: {why}; give another name") from error
    finally:
        pyplot.close(figure)
