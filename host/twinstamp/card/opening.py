# SPDX-License-Identifier: Apache-2.0
"""Cards by name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from twinstamp.card.calibration import constants_q32, load_calibration
from twinstamp.card.card import Card
from twinstamp.card.firmware import tell_leap_seconds
from twinstamp.card.phys import read_settings
from twinstamp.errors import ConfigError

if TYPE_CHECKING:
    from twinstamp.card.linux import LinuxCard
    from twinstamp.card.transport import Transport

CARDS = ("sim", "pynq:FILE.bit", "uart:DEVICE", "linux:INTERFACE,…")


def known_card(name: str) -> tuple[str, str]:
    """Kind and what stands behind the colon: ("sim", ""), ("uart", "/dev/ttyUSB1"). A leading "card:" goes.

    ConfigError where no such kind is known, or one that needs more has it not.
    """
    kind, _, where = name.removeprefix("card:").partition(":")
    if kind not in ("sim", "pynq", "uart", "linux") or bool(where) == (kind == "sim"):
        raise ConfigError(f"no card {name!r}: known are {', '.join(CARDS)}")
    return kind, where


def must_be_simulated(name: str, what: str) -> None:
    """ConfigError where ``name`` is another card than the simulated one, or none."""
    if known_card(name)[0] != "sim":
        raise ConfigError(f"{what} works with the simulated card, sim, only; {name!r} is another one")


def open_card(
    name: str = "sim",
    *,
    seed: int = 1,
    block_log2: int | None = None,
    blocks_log2: int | None = None,
    timeout_s: float = 1e-3,
    utc: bool = False,
    calibrated: bool = True,
    calibration: Path | None = None,
) -> Card:
    """Opens a card, to be used in a ``with`` block.

    name: "sim", the simulated card; its world is ``card.transport`` (SimulatedCard), and seed that of what is
    random in it. "pynq:FILE.bit": the card in that overlay, on a PYNQ board; its PHYs are started where a
    FILE.phys.toml says how (twinstamp.card.phys). "uart:DEVICE": one on a serial
    line, or on any URL that pyserial knows. Firmware that runs on a card is told of leap seconds, by this
    machine's table (docs/clock.md). block_log2, blocks_log2: None: 64 blocks of 64 KiB, or what the
    card's own memory holds. calibrated: take the constants that `twinstamp card calibrate` measured, from
    ``calibration`` (default: the state folder). The others as in Card.

    Errors: ConfigError for an unknown name or a damaged calibration; DeviceError and its kinds as in Card.
    """
    kind, where = known_card(name)
    transport: Transport
    blocks = (16, 6)
    phys = None
    if kind == "sim":
        from twinstamp.card.sim import SimulatedCard

        transport = SimulatedCard(seed=seed)
    elif kind == "pynq":
        from twinstamp.card.pynq import PynqTransport

        beside = Path(where).with_suffix(".phys.toml")
        phys = read_settings(beside) if beside.exists() else None
        transport = PynqTransport(where)
    elif kind == "uart":
        from twinstamp.card.uart import UartTransport, open_line

        transport = UartTransport(open_line(where), f"uart:{where}")
        blocks = (14, 1)
    else:
        raise ConfigError(
            f"{name}: ordinary interfaces have no registers; give sim, pynq:… or uart:… "
            "(in Python: open_any_card)"
        )
    try:
        measured = load_calibration(transport.name, calibration) if calibrated else {}
        card = Card(
            transport,
            block_log2=blocks[0] if block_log2 is None else block_log2,
            blocks_log2=blocks[1] if blocks_log2 is None else blocks_log2,
            timeout_s=timeout_s,
            utc=utc,
        )
        if phys is not None:
            card.start_phys(phys, timeout_s=0.5)  # loading the overlay has reset them
        if measured:
            card.use_constants(
                constants_q32(card.constants_q32, measured),
                [
                    measured[port].uncertainty_ns if port in measured else None
                    for port in range(card.identity.ports)
                ],
            )
        remark = tell_leap_seconds(card)
    except BaseException:
        transport.close()
        raise
    if remark is not None:
        card.remarks.append(remark)
    return card


def open_any_card(name: str = "sim", *, utc: bool = True, seed: int = 1) -> Card | LinuxCard:
    """As open_card, and "linux:eth1,eth2" too: ordinary interfaces, whose batches are in UTC always."""
    kind, where = known_card(name)
    if kind != "linux":
        return open_card(name, utc=utc, seed=seed)
    from twinstamp.card.linux import LinuxCard

    return LinuxCard(where.split(","))
