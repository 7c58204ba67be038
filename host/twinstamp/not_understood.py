# SPDX-License-Identifier: Apache-2.0
"""Frames that the parser does not understand, counted by link type or ethertype (docs/duplicates.md)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from twinstamp_kernels import _cpu
from twinstamp_kernels.verdicts import LAYERS, tunnel_ends

from twinstamp.frames import FrameBatch, linktypes_of

TYPE_CHECKING = False  # as in twinstamp.dedup: typing costs start-up time
if TYPE_CHECKING:
    from typing import Any

LINKTYPE, ETHERTYPE, DAMAGED, REFUSED = range(4)  # twinstamp/not_understood.h, from bit 16 on
MOST_TOLD = 6


class NotUnderstood:
    """Counts frames whose headers at `layer` are not understood: such a frame is compared whole, matches
    rules without addresses only, and is balanced by its MAC addresses.

    tunnels: the ends of the tunnels that are opened, as for twinstamp_kernels.window.Window. refused: also
    counts, apart, those that are understood and that no host takes (twinstamp/sound.h).
    """

    def __init__(
        self,
        layer: str = "outer",
        tunnels: Iterable[str] = (),
        workers: int = 1,
        *,
        refused: bool = False,
    ) -> None:
        self._layer, self._ends, self._workers = LAYERS[layer], tunnel_ends(tunnels), workers
        self._refused = refused
        self._counts: dict[int, int] = {}

    def add(self, batch: FrameBatch, keep: Any = None) -> None:
        """Counts a batch's frames; keep: u8[n], zero: not counted. Raises ValueError as a window does."""
        data, offset, caplen, _, _, port, _ = batch.raw
        for reason, frames in _cpu.count_not_understood(
            data,
            offset,
            caplen,
            port,
            linktypes_of(batch.ports),
            keep,
            self._layer,
            self._ends,
            self._refused,
            self._workers,
        ):
            self._counts[reason] = self._counts.get(reason, 0) + frames

    @property
    def refused(self) -> int:
        """Frames that are understood and that no host takes; 0 where they are not counted."""
        return self._counts.get(REFUSED << 16, 0)

    def as_dict(self) -> dict[str, Any]:
        """frames: all of them. link_types: by number. ethertypes: by number, as "0x88cc". damaged: a known
        header is cut short or damaged. The more frequent ones first."""
        ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
        return {
            "frames": sum(self._counts.values()) - self.refused,
            "link_types": {str(code & 0xFFFF): n for code, n in ordered if code >> 16 == LINKTYPE},
            "ethertypes": {f"0x{code & 0xFFFF:04x}": n for code, n in ordered if code >> 16 == ETHERTYPE},
            "damaged": sum(n for code, n in ordered if code >> 16 == DAMAGED),
        }


def describe_refused(frames: int) -> str | None:
    """One line about NotUnderstood.refused; None where there are none."""
    if not frames:
        return None
    return (
        f"compared whole, since no host takes them (wrong IPv4 header checksum, TTL 0 and such): {frames} "
        "frames; "
        "a feed with many was captured on the machine that sent it"
    )


def describe(counts: Mapping[str, Any]) -> str | None:
    """One line about what NotUnderstood.as_dict() gives; None where all frames are understood."""
    if not counts["frames"]:
        return None
    parts = [(n, f"link type {name}") for name, n in counts["link_types"].items()]
    parts += [(n, f"ethertype {name}") for name, n in counts["ethertypes"].items()]
    if counts["damaged"]:
        parts.append((counts["damaged"], "headers cut short or damaged"))
    parts.sort(key=lambda part: -part[0])
    told = ", ".join(f"{name} {n}" for n, name in parts[:MOST_TOLD])
    more = f", {len(parts) - MOST_TOLD} kinds more" if len(parts) > MOST_TOLD else ""
    return f"not understood, taken as they are: {counts['frames']} frames ({told}{more})"
