# SPDX-License-Identifier: Apache-2.0
"""Duplicate keys and frame classes on plain arrays (docs/duplicates.md)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from twinstamp_kernels import _cpu
from twinstamp_kernels.verdicts import LAYERS, PROFILES, TAGS, Digests, tunnel_ends

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def frame_keys(
    hash_key: Any,
    data: Any,
    offset: Any,
    caplen: Any,
    port: Any,
    linktypes: Any,
    *,
    profile: str = "exact",
    layer: str = "outer",
    ignore_bytes: int = 0,
    tunnels: Iterable[str] = (),
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.bool_], npt.NDArray[np.uint32]]:
    """Keys of n frames: (digests u64[n, 4], two bool[n], tags u32[n, 4]).

    hash_key: from twinstamp_kernels.hashkey. data u8, offset u64[n], caplen u32[n], port u16[n] as in
    FrameBatch; linktypes u16 per port. Two frames are copies when a 128-bit key of one, columns 0 and 1 or,
    where ``two`` is set, columns 2 and 3, equals the key in the same columns of the other. Of copies,
    column p − 1 of the tags is equal exactly where they are copies under the narrower profile p as well; the
    last column is for guards (verdicts.Digests). tunnels: as for window.Window.

    Raises ValueError for options out of range and for frames outside ``data``.
    """
    import numpy as np

    digests, two, tags = _cpu.frame_keys(
        hash_key,
        data,
        offset,
        caplen,
        port,
        linktypes,
        PROFILES[profile],
        LAYERS[layer],
        ignore_bytes,
        ends=tunnel_ends(tunnels),
    )
    return (
        np.asarray(digests, np.uint64).reshape(-1, 4),
        np.asarray(two, np.bool_),
        np.asarray(tags, np.uint32).reshape(-1, TAGS),
    )


def frame_digests(
    hash_key: Any,
    data: Any,
    offset: Any,
    caplen: Any,
    port: Any,
    linktypes: Any,
    *,
    profile: str = "exact",
    layer: str = "outer",
    ignore_bytes: int = 0,
    tunnels: Iterable[str] = (),
    classes: bool = False,
    workers: int = 1,
) -> Digests:
    """Keys of n frames as a window takes them (Window.process_digests), on `workers` threads.

    Columns as for frame_keys; classes: frame_class too. A window that is to judge frames as well must have
    the same secret: give it `seed`, and this function hashkey.hash_key(seed); or use Window.digests().

    Raises ValueError for options out of range and for frames outside ``data``.
    """
    return Digests(
        *_cpu.frame_digests(
            hash_key,
            data,
            offset,
            caplen,
            port,
            linktypes,
            PROFILES[profile],
            LAYERS[layer],
            ignore_bytes,
            classes,
            workers,
            tunnel_ends(tunnels),
        )
    )


def frame_classes(
    data: Any,
    offset: Any,
    caplen: Any,
    port: Any,
    linktypes: Any,
    *,
    layer: str = "outer",
    tunnels: Iterable[str] = (),
) -> npt.NDArray[np.uint8]:
    """Class codes (``window.CLASSES``) of n frames, u8[n], by their outermost or innermost headers."""
    import numpy as np

    return np.asarray(
        _cpu.frame_classes(data, offset, caplen, port, linktypes, LAYERS[layer], tunnel_ends(tunnels)),
        np.uint8,
    )


def frames_identified(
    data: Any,
    offset: Any,
    caplen: Any,
    port: Any,
    linktypes: Any,
    *,
    layer: str = "outer",
    tunnels: Iterable[str] = (),
) -> npt.NDArray[np.bool_]:
    """bool[n]: whether something in the packet tells two sendings of the same content apart.

    That is a non-zero IP-ID, or TCP sequence numbers used up by data, SYN or FIN.
    """
    import numpy as np

    return np.asarray(
        _cpu.frames_identified(data, offset, caplen, port, linktypes, LAYERS[layer], tunnel_ends(tunnels)),
        np.bool_,
    )
