# SPDX-License-Identifier: Apache-2.0
"""The clock's log: text, one line a sample, written by `clock simulate --log` and `clock status --log`.

The first line is `# twinstamp clock log 1`, the second `# ` and a JSON object about the run, the third the
columns' names with commas; then numbers with commas, `nan` where a value is not known:

t_s            seconds since the start, growing
state          0 cold, 1 acquiring, 2 locked, 3 holdover, 4 disputed, 5 failed (firmware/servo/servo.h)
offset_ns      card time − TAI as the clock estimates it
bound_ns       what it says that error is below, 99.9 % of the time
frequency_ppb  the oscillator against nominal, as estimated
true_error_ns  card time − TAI in truth; simulations know it
qerr_ps        of the last pulse
satellites     used

Others may follow; of these only t_s must be there, and offset_ns or true_error_ns for a report.
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from twinstamp_gps.errors import LogError, SettingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

FIRST_LINE = "# twinstamp clock log 1"
COLUMNS = ("t_s", "state", "offset_ns", "bound_ns", "frequency_ppb", "true_error_ns", "qerr_ps", "satellites")
STATES = ("cold", "acquiring", "locked", "holdover", "disputed", "failed")
_FORMATS = {"t_s": "%.6f", "state": "%d", "qerr_ps": "%d", "satellites": "%d"}


@dataclass(frozen=True, kw_only=True)
class ClockLog:
    """about: of the run, as it was written. columns: float64[n] by name; all of one length, t_s growing."""

    about: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, npt.NDArray[np.float64]]

    def __len__(self) -> int:
        return len(self.columns["t_s"])

    def get(self, name: str) -> npt.NDArray[np.float64]:
        """The column, or as many nan where there is none."""
        found = self.columns.get(name)
        return np.full(len(self), np.nan) if found is None else found


class LogWriter:
    """Writes a log line by line, to an open text file; what is written is flushed."""

    def __init__(self, file: IO[str], about: Mapping[str, Any], columns: Sequence[str] = COLUMNS) -> None:
        self._file = file
        self._columns = tuple(columns)
        file.write(f"{FIRST_LINE}\n# {json.dumps(dict(about))}\n{','.join(columns)}\n")
        file.flush()

    def write(self, **values: float | None) -> None:
        """A sample; columns that are not named are unknown."""
        unknown = set(values) - set(self._columns)
        if unknown:
            raise LogError(f"the log has no column {', '.join(sorted(unknown))}")
        self._file.write(",".join(_number(name, values.get(name)) for name in self._columns) + "\n")
        self._file.flush()


def _number(name: str, value: float | None) -> str:
    if value is None or value != value:
        return "nan"
    return _FORMATS.get(name, "%.4f") % value


def write_log(path: str, about: Mapping[str, Any], columns: Mapping[str, npt.ArrayLike]) -> None:
    """Writes a whole log from arrays of one length. SettingError where it cannot be written."""
    names = list(columns)
    table = np.column_stack([np.asarray(columns[name], np.float64) for name in names])
    # nan is no integer: such columns are written as the other numbers are.
    formats = [
        _FORMATS.get(name, "%.4f") if np.isfinite(table[:, i]).all() else "%.4f"
        for i, name in enumerate(names)
    ]
    try:
        with open(path, "w", encoding="utf-8") as file:
            LogWriter(file, about, names)
            np.savetxt(file, table, fmt=formats, delimiter=",")
    except OSError as error:
        raise SettingError(f"{path}: the log cannot be written: {error.strerror}") from error


def read_log(path: str) -> ClockLog:
    """Reads a log. LogError for a file that is none, is damaged, or has no sample."""
    try:
        with open(path, encoding="utf-8") as file:
            head = [file.readline().rstrip("\n") for _ in range(3)]
            if head[0] != FIRST_LINE:
                raise LogError(
                    f"{path}: is no clock log: its first line is not {FIRST_LINE!r}; give what --log wrote"
                )
            about = json.loads(head[1].removeprefix("# "))
            names = head[2].split(",")
            if not isinstance(about, dict) or "t_s" not in names or len(set(names)) != len(names):
                raise LogError(f"{path}: is no clock log: lines 2 and 3 are not its description and columns")
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # no data: said below
                table = np.loadtxt(file, delimiter=",", ndmin=2, dtype=np.float64)
    except OSError as error:
        raise LogError(f"{path}: cannot be read: {error.strerror}; give a log that exists") from error
    except ValueError as error:  # not UTF-8, not JSON, no number, or a line cut short
        raise LogError(f"{path}: is damaged: {error}") from error
    if not table.size:
        raise LogError(f"{path}: has no sample")
    if table.shape[1] != len(names):
        raise LogError(f"{path}: has {len(names)} columns by its head, {table.shape[1]} by its lines")
    columns = {name: np.ascontiguousarray(table[:, i]) for i, name in enumerate(names)}
    time = columns["t_s"]
    if not np.isfinite(time).all() or (np.diff(time) <= 0).any():
        raise LogError(f"{path}: t_s does not grow from line to line")
    return ClockLog(about=about, columns=columns)
