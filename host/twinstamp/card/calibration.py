# SPDX-License-Identifier: Apache-2.0
"""Receive constants of a card's ports as measured with a known cable, kept under the state folder."""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from twinstamp.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from twinstamp.card.card import Card

VERSION = 1
_LINKS = 16
_TIMEOUT_S = 20e-6
_QUIET_S = 5e-3  # a host that waits for a board is not woken to the microsecond
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
    return [measured[port].constant_q32 if port in measured else value for port, value in enumerate(exported)]


def measure(card: Card, sender: int, receiver: int, *, cable_ns: float, frames: int = 256) -> PortConstant:
    """The receive constant of a port from frames that come over a cable of known delay.

    Constant = raw stamp - departure stamp - cable. Sender and receiver share the card's oscillator, so the
    phase at which the receiver samples stays what it was at link-up, and one link-up can be off by half a
    card cycle. The simulated card's link is made 16 times, each time with a delay known to be half a
    nanosecond longer, which covers all phases; a board's once.

    card: not yet started; a simulated one is not used beyond its name. Errors: ConfigError for bad ports or
    numbers; DeviceError when frames or departure stamps are missing.
    """
    from twinstamp.card.sim import SimulatedCard

    count = card.identity.ports
    if not (0 <= sender < count and 0 <= receiver < count) or sender == receiver:
        raise ConfigError(f"ports {sender} and {receiver}: give two different ones of 0 to {count - 1}")
    if not 8 <= cable_ns <= 1e6:
        raise ConfigError(f"a cable of {cable_ns} ns: give 8 to 1,000,000")
    if not 16 <= frames <= 100_000:
        raise ConfigError(f"{frames} frames: give 16 to 100,000")
    now = time.time_ns()
    if not isinstance(card.transport, SimulatedCard):
        raw = _constants(card, sender, receiver, cable_ns, frames)
        return PortConstant(
            constant_q32=round(sum(raw) / len(raw)),
            uncertainty_ns=4.0,
            cable_ns=cable_ns,
            frames=len(raw),
            measured_ns=now,
        )
    from twinstamp.card.card import Card

    raw = []
    for link in range(_LINKS):
        simulated = SimulatedCard(seed=link + 1)
        delay_ns = cable_ns + link * 8 / _LINKS
        simulated.connect(sender, simulated, receiver, delay_ns=delay_ns)
        with Card(simulated, timeout_s=_TIMEOUT_S) as fresh:
            raw += _constants(fresh, sender, receiver, delay_ns, -(-frames // _LINKS))
    return PortConstant(
        constant_q32=round(sum(raw) / len(raw)),
        uncertainty_ns=4.0 / _LINKS,
        cable_ns=cable_ns,
        frames=len(raw),
        measured_ns=now,
    )


def _constants(card: Card, sender: int, receiver: int, cable_ns: float, frames: int) -> list[float]:
    """Raw stamp - departure - cable of each frame, 2^-32 s."""
    import numpy as np

    from twinstamp.frames import FrameBatch

    # Others may be on the wire: ours say so, and in which measurement. EtherType 0x88B5 (IEEE 802 local).
    head = bytes.fromhex("020000000001 020000000002 88b5") + b"TWNSCAL" + os.urandom(8)
    batch = FrameBatch.from_frames([head + n.to_bytes(4, "big") + bytes(27) for n in range(frames)])
    card.start(ports=[receiver])
    try:
        sent = card.send_batch(sender, batch, stamp=True)
        arrived: dict[int, int] = {}
        departed: dict[int, int] = {}
        quiet_s = _QUIET_S + 4 * card.read("ring.timeout") / card.identity.core_clock_hz
        for received in card.receive(quiet_s):
            data, stamps = received.data, received.stamp_q32.tolist()
            for at, stamp in zip(received.offset.tolist(), stamps, strict=True):
                if data[at : at + len(head)].tobytes() == head:
                    number = int.from_bytes(data[at + len(head) : at + len(head) + 4].tobytes(), "big")
                    arrived[number] = stamp
            left: npt.NDArray[np.void] = card.departures()
            departed.update(zip(left["cookie"].tolist(), left["stamp_q32"].tolist(), strict=True))
            if len(arrived) >= frames and len(departed) >= frames:
                break
        both = arrived.keys() & departed.keys()
        if len(both) < frames:
            links = card.links()
            down = [f"port{port} has no link" for port in (sender, receiver) if not links[port].up]
            raise DeviceError(
                f"{len(arrived)} of {frames} frames arrived at port{receiver}, {len(departed)} departure "
                f"stamps came from port{sender}, which took {sent}: "
                + ("; ".join(down) or "is the cable between them?")
            )
    finally:
        card.stop()
    return [arrived[n] - departed[n] - cable_ns * 2**32 / 1e9 for n in both]
