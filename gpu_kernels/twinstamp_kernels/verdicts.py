# SPDX-License-Identifier: Apache-2.0
"""What a duplicate window says of frames, on whatever device it runs (docs/duplicates.md)."""

from __future__ import annotations

from collections import namedtuple

from twinstamp_kernels import _cpu

PROFILES: dict[str, int] = _cpu.PROFILES  # name → type code in verdicts
LAYERS: dict[str, int] = _cpu.LAYERS
CLASSES: dict[str, int] = _cpu.CLASSES  # frame classes, for ``keep``

TYPE_CHECKING = False  # as in twinstamp.dedup: typing costs start-up time
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    class Verdicts(NamedTuple):
        keep: Any
        type: Any
        distance: Any
        delay_ns: Any

    class Digests(NamedTuple):
        key: Any
        second: Any = None
        two: Any = None
        tags: Any = None
        frame_class: Any = None
else:
    Verdicts = namedtuple("Verdicts", "keep type distance delay_ns")
    Verdicts.__doc__ = """Per frame, as buffers that NumPy takes without a copy:

    keep u8[n]: 0 where the frame is a duplicate, else 1. type u8[n]: of the match (PROFILES), 0: none; a
    frame that a class policy keeps has a type and keep = 1. distance u32[n]: frames back to the matched
    frame. delay_ns i64[n]: its stamp's distance, negative where stamps run backwards.
    """
    Digests = namedtuple("Digests", "key second two tags frame_class", defaults=(None, None, None, None))
    Digests.__doc__ = """Keys of n frames, what a window needs of them. Contiguous arrays, [n, k] or [n * k].

    key u64[n, 2]: frames are copies where their keys are equal. second u64[n, 2], two u8[n] (profile nat
    only): a second key, which counts where two is set; frames are copies where either is equal.
    tags u32[n, 3] (all profiles but exact): of copies, tag p - 1 is equal where they are copies under the
    narrower profile p too, which tells a verdict's type. frame_class u8[n] (windows with ``keep``): codes
    (CLASSES).

    None: a column that the profile does not have. All keys of one stream are computed under one secret.
    """
