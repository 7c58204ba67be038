# SPDX-License-Identifier: Apache-2.0
"""Receive constants of a card's ports as measured with a known cable, kept under the state folder."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VERSION = 1
_MOST_Q32 = 1 << 17  # 30 us: no port takes that long


@dataclass(frozen=True, kw_only=True)
class PortConstant:
    """constant_q32: 2^-32 s from the reference byte on the medium to the raw stamp. uncertainty_ns: half
    of what an unknown phase may hide. cable_ns: of the cable it was measured with. frames: how many.
    measured_ns: when, Unix time in ns.
    """

    constant_q32: int
    uncertainty_ns: float
    cable_ns: float
    frames: int
    measured_ns: int


def calibration_path(card: str) -> Path:
    """$XDG_STATE_HOME/twinstamp/card-NAME.json, by default under ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
    return base / "twinstamp" / f"card-{re.sub(r'[^A-Za-z0-9_.-]', '_', card)}.json"


def load_calibration(card: str, path: Path | None = None) -> dict[int, PortConstant]:
    """Constants by port; empty where the card was never calibrated. ConfigError for a damaged file."""
    place = calibration_path(card) if path is None else path
    try:
        document = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{place}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{place}: is no calibration: {error}; remove it, or calibrate again") from error
    try:
        if document["version"] != VERSION:
            raise ConfigError(f"{place}: version {document['version']}, this driver knows {VERSION}")
        out = {int(port): PortConstant(**values) for port, values in document["ports"].items()}
        if any(not 0 <= constant.constant_q32 < _MOST_Q32 for constant in out.values()):
            raise ValueError("a constant beyond 30 us")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{place}: is no calibration ({error}); remove it, or calibrate again") from error
    return out


def save_calibration(card: str, constants: Mapping[int, PortConstant], path: Path | None = None) -> Path:
    """Puts ``constants`` beside those of other ports; returns where. The file holds nothing secret: 0644."""
    place = calibration_path(card) if path is None else path
    merged = {**load_calibration(card, place), **constants}
    document = {
        "version": VERSION,
        "card": card,
        "ports": {str(port): asdict(merged[port]) for port in sorted(merged)},
    }
    temporary = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        temporary.chmod(0o644)
        temporary.replace(place)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ConfigError(f"{place}: cannot be written: {error.strerror}") from error
    return place


def constants_q32(exported: Sequence[int], measured: Mapping[int, PortConstant]) -> list[int]:
    """A constant per port: measured where it was, else what the card exports."""
    return [
        measured[port].constant_q32 if port in measured else value for port, value in enumerate(exported)
    ]
