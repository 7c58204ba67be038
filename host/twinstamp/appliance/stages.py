# SPDX-License-Identifier: Apache-2.0
"""What a stage behind the duplicate window sees, and what it has to be able to do (docs/stages.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from twinstamp.frames import FrameBatch

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
