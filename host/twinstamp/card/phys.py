# SPDX-License-Identifier: Apache-2.0
"""PHYs of a board: at which address each port's is, how its RGMII clocks are delayed, what it offers.

A board's bit file has a file FILE.phys.toml beside it, which `open_card` reads (docs/board-zcu104.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from twinstamp.errors import DeviceError
from twinstamp.toml_table import Table, read_toml

if TYPE_CHECKING:
    from pathlib import Path

    from twinstamp.card.card import Card

# IEEE 802.3, 22.2.4: registers of clause 22.
_CONTROL, _IDENTITY, _ABILITY, _GIGABIT = 0, 2, 4, 9
_RESET, _NEGOTIATE = 0x9140, 0x1340
_LONGEST_RESET_S = 0.5  # 22.2.4.1.1
_NO_10_NO_100 = 0x0001  # the selector of IEEE 802.3 alone
_GIGABIT_FULL_DUPLEX = 0x0200
_NOBODY = 0xFFFF
_LOOK_AGAIN_S = 0.02
# Marvell 88E1510, 88E1512, 88E1514, 88E1518: identity without the revision; page 2, register 21
# (Linux, drivers/net/phy/marvell.c: MARVELL_PHY_ID_88E1510, MII_88E1121_PHY_MSCR_REG).
_88E1510, _REVISION = 0x01410DD0, 0xF
_PAGE, _DELAYS = 22, 21
_DELAYS_PAGE, _RECEIVE_DELAY, _TRANSMIT_DELAY = 2, 1 << 5, 1 << 4


@dataclass(frozen=True)
class PhySettings:
    """receive_delay, transmit_delay: the PHY delays RX_CLK, TX_CLK by its 2 ns; what the FPGA does not do."""

    receive_delay: bool
    transmit_delay: bool


def read_settings(path: Path) -> PhySettings:
    """From a file with the keys receive_delay and transmit_delay. ConfigError where it is not so."""
    table = Table(str(path), read_toml(path))
    settings = PhySettings(table.need("receive_delay", bool), table.need("transmit_delay", bool))
    table.end()
    return settings


def find_phy(card: Card, port: int) -> int | None:
    """The address at which the port's PHY answers: as set, else the first from 0 on, which is set then.

    None where nobody answers, and nothing is changed.
    """
    control = f"port[{port}].phy.control"
    for address in (card.fields(control)["address"], *range(32)):
        try:
            answer = card.mdio_read(port, _IDENTITY, phy=address)
        except DeviceError:
            continue
        if answer not in (0, _NOBODY):
            card.write_fields(control, address=address)
            return int(address)
    return None


def start_phys(
    card: Card, settings: PhySettings | None = None, *, timeout_s: float = 0.0
) -> list[int | None]:
    """Finds each port's PHY, sets its delays, lets it offer 1000 Mb/s only, as the card can, and restarts it.

    settings: None: delays stay as they are. timeout_s: how long to look for PHYs that may be in reset.
    Returns the addresses, None for a port whose PHY does not answer. DeviceError where delays are to be set
    on a PHY that is not known, and where one does not come out of its reset.
    """
    ports = range(card.identity.ports)
    addresses = [find_phy(card, port) for port in ports]
    while None in addresses and timeout_s > 0:
        timeout_s -= card.transport.wait(min(timeout_s, _LOOK_AGAIN_S))
        addresses = [find_phy(card, port) if addresses[port] is None else addresses[port] for port in ports]
    for port, address in enumerate(addresses):
        if address is None:
            continue
        if settings is not None:
            _set_delays(card, port, settings)
        # The reset makes the delays take effect, and brings what is offered back to what the PHY likes.
        card.mdio_write(port, _CONTROL, _RESET)
        left_s = _LONGEST_RESET_S
        while card.mdio_read(port, _CONTROL) & 0x8000:
            if left_s <= 0:
                raise DeviceError(
                    f"card {card.transport.name}, port {port}: the PHY at address {address} is still "
                    f"in reset after {_LONGEST_RESET_S} s: look at its supply and clock"
                )
            left_s -= card.transport.wait(1e-3)
        card.mdio_write(port, _ABILITY, _NO_10_NO_100)
        card.mdio_write(port, _GIGABIT, _GIGABIT_FULL_DUPLEX)
        card.mdio_write(port, _CONTROL, _NEGOTIATE)
    return addresses


def _set_delays(card: Card, port: int, settings: PhySettings) -> None:
    identity = card.mdio_read(port, _IDENTITY) << 16 | card.mdio_read(port, _IDENTITY + 1)
    if identity & ~_REVISION != _88E1510:
        raise DeviceError(
            f"card {card.transport.name}, port {port}: how a PHY 0x{identity:08X} delays its RGMII clocks is "
            "not known; of 88E1510, 1512, 1514 and 1518 it is"
        )
    wanted = _RECEIVE_DELAY * settings.receive_delay | _TRANSMIT_DELAY * settings.transmit_delay
    card.mdio_write(port, _PAGE, _DELAYS_PAGE)
    before = card.mdio_read(port, _DELAYS)
    card.mdio_write(port, _DELAYS, before & ~(_RECEIVE_DELAY | _TRANSMIT_DELAY) | wanted)
    card.mdio_write(port, _PAGE, 0)
