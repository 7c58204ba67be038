# SPDX-License-Identifier: Apache-2.0
"""What a stage behind the duplicate window sees, and what it has to be able to do (docs/stages.md)."""

from __future__ import annotations

import importlib.util
import inspect
import itertools
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, Protocol, cast

import numpy as np
import numpy.typing as npt

from twinstamp.errors import ConfigError, StageError
from twinstamp.frames import FrameBatch

if TYPE_CHECKING:
    from twinstamp.appliance.config import StageConfig

_COUNTERS_S = 0.25  # from one look at a stage's counters to the next
_numbers = itertools.count()  # of loaded files: each is a module of its own

U8 = npt.NDArray[np.uint8]
U32 = npt.NDArray[np.uint32]


class Clean(NamedTuple):
    """Frames behind the duplicate window. Lent: nothing of it may be used after take() has returned.

    batch: n frames. keep: u8[n], 0 = dropped as a duplicate, not to be looked at; None: all n are clean,
    which a stage of the appliance file may rely on. kind: u8[n], type of a duplicate that was let through
    (tagged or counted): a key of twinstamp.dedup.TYPE_NAMES, 0 = none; None: no frame is one. number: of
    the batch's first frame among all clean frames of the run, from 0; where it jumps, this stage lost some.
    """

    batch: FrameBatch
    keep: U8 | None
    kind: U8 | None
    number: int


class Stage(Protocol):
    """Something that looks at all clean frames. Derive from it for what you do not need yourself.

    An exception out of any of these stops the stage, and nothing else; the report says so.
    """

    def take(self, clean: Clean) -> None:
        """Takes frames, in the order of the stream."""
        raise NotImplementedError

    def tick(self, now_ns: int) -> None:
        """Called at least once a second, also without frames. now_ns: UTC, ns since 1970."""

    def finish(self) -> None:
        """The stream has ended: the last call."""

    def counters(self) -> Mapping[str, int | float | str]:
        """What the report and the control socket show. Called in the same thread as take()."""
        return {}


def load_stage(config: StageConfig) -> type[Stage]:
    """The class that an appliance file names, from its Python file, which is run for it.

    Raises ConfigError where the file cannot be run, has no such class, the class lacks a method of Stage, or
    cannot be made with the options.
    """
    where = f"stage {config.name}"
    name = f"twinstamp_stage_{next(_numbers)}"
    spec = importlib.util.spec_from_file_location(name, config.file)
    if spec is None or spec.loader is None or not config.file.is_file():
        raise ConfigError(f"{where}: there is no Python file {config.file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look for it there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ConfigError(f"{where}: {_told(error, config.file)}") from error
    made: Any = getattr(module, config.attribute, None)
    if not isinstance(made, type):
        raise ConfigError(f"{where}: {config.file} has no class {config.attribute}")
    missing = [
        name for name in ("take", "tick", "finish", "counters") if not callable(getattr(made, name, None))
    ]
    if missing or getattr(made, "take", None) is Stage.take:
        lacks = ", ".join(missing or ["take"])
        raise ConfigError(
            f"{where}: class {config.attribute} has no {lacks}(); "
            "derive it from twinstamp.appliance.Stage and write take()"
        )
    try:
        inspect.signature(made).bind(**config.options)
    except TypeError as error:
        raise ConfigError(f"{where}.options: {config.attribute}: {error}") from None
    return cast("type[Stage]", made)


def _told(error: BaseException, file: Path) -> str:
    """An exception in one line, with the line of the stage's file that it came through last."""
    text = str(error)
    line = next(
        (
            frame.lineno
            for frame in reversed(traceback.extract_tb(error.__traceback__))
            if frame.filename == str(file)
        ),
        None,
    )
    place = "" if line is None else f" ({file}:{line})"
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


class StageSink:
    """A stage of the user's own, as a reader of the hub calls it.

    Raises ConfigError where it cannot be made, StageError out of all calls for what its methods raise; after
    that it is not called again.
    """

    def __init__(self, config: StageConfig) -> None:
        made = load_stage(config)
        self._file = config.file
        self._stopped: StageError | None = None
        self._counters: dict[str, int | float | str] = {}
        self._looked_s = 0.0
        try:
            self._stage = made(**config.options)
        except Exception as error:
            raise ConfigError(f"stage {config.name}: {_told(error, config.file)}") from error

    def _stop(self, error: BaseException) -> NoReturn:
        if self._stopped is None:
            self._stopped = StageError(_told(error, self._file))
        raise self._stopped from error

    def take(self, clean: Clean, index: U32 | None) -> None:
        if self._stopped is not None:
            raise self._stopped
        try:
            self._stage.take(clean)
        except (Exception, SystemExit) as error:
            self._stop(error)

    def tick(self, now_ns: int) -> None:
        if self._stopped is not None:
            raise self._stopped
        try:
            self._stage.tick(now_ns)
        except (Exception, SystemExit) as error:
            self._stop(error)

    def finish(self) -> None:
        self._looked_s = 0.0
        if self._stopped is None:
            try:
                self._stage.finish()
            except (Exception, SystemExit) as error:
                self._stop(error)

    def counters(self) -> Mapping[str, int | float | str]:
        """The stage's, looked at four times a second at most, and as they were when it stopped."""
        now = time.monotonic()
        if self._stopped is None and now >= self._looked_s + _COUNTERS_S:
            self._looked_s = now
            try:
                self._counters = {str(key): _plain(value) for key, value in self._stage.counters().items()}
            except (Exception, SystemExit) as error:
                self._stop(error)
        return self._counters


def _plain(value: object) -> int | float | str:
    """A counter as JSON has it: NumPy's numbers become Python's."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (int, float, str)):
        return value
    raise TypeError(f"a counter is a {type(value).__name__}, not a number or text")
