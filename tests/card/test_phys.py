# SPDX-License-Identifier: Apache-2.0
"""Starting a board's PHYs: on the simulated card, and on an 88E1510 that only remembers its registers."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
from twinstamp.card import open_card
from twinstamp.card.phys import PhySettings, find_phy, read_settings, start_phys
from twinstamp.errors import ConfigError, DeviceError


def test_the_phy_is_found_wherever_it_is():
    with open_card("sim") as card:
        card.write_fields("port[2].phy.control", address=9)
        with pytest.raises(DeviceError, match="no PHY answers at address 9"):
            card.mdio_read(2, 2)
        assert find_phy(card, 2) == 1
        assert card.fields("port[2].phy.control")["address"] == 1
        assert card.mdio_read(2, 2) == 0x0022


def test_phys_offer_a_gigabit_only_and_come_up_after_reset_too():
    with open_card("sim") as card:
        card.write("port[0].phy.poll", 20_000)
        assert card.start_phys() == [1, 1, 1, 1]
        for _ in range(2):
            card.transport.wait(1e-3)
            assert card.mdio_read(0, 9) & 0x0300 == 0x0200
            assert card.mdio_read(0, 4) & 0x01E0 == 0
            assert card.mdio_read(0, 0) & 0x1000
            card.write_fields("port[0].phy.control", address=3)
            card.reset()
            assert card.fields("port[0].phy.control")["address"] == 1


def test_delays_of_a_phy_that_is_not_known_are_an_error():
    with (
        open_card("sim") as card,
        pytest.raises(DeviceError, match=r"port 0: how a PHY 0x00221622 .* 88E1510, 1512"),
    ):
        card.start_phys(PhySettings(receive_delay=True, transmit_delay=False))


class Marvell:
    """A card with one port, an 88E1510 at address 0 with pages; it answers from the third look on."""

    def __init__(self) -> None:
        self.identity = SimpleNamespace(ports=1)
        self.transport = SimpleNamespace(name="stand-in", wait=self.wait)
        self.registers: dict[tuple[int, int], int] = defaultdict(int, {(0, 2): 0x0141, (0, 3): 0x0DD1})
        self.registers[2, 21] = 0x1046 | 0x0010
        self.address, self.page, self.waits = 1, 0, 0
        self.log: list[tuple[int, int, int]] = []

    def wait(self, seconds: float) -> float:
        self.waits += 1
        return seconds

    def fields(self, name: str) -> dict[str, int]:
        return {"address": self.address}

    def write_fields(self, name: str, *, address: int) -> None:
        self.address = address

    def mdio_read(self, port: int, register: int, *, phy: int | None = None) -> int:
        if (self.address if phy is None else phy) != 0 or self.waits < 2:
            raise DeviceError("nobody")
        if register == 0 and self.waits > 3:
            self.registers[0, 0] &= 0x7FFF
        return self.registers[self.page, register]

    def mdio_write(self, port: int, register: int, value: int) -> None:
        assert self.address == 0
        if register == 22:
            self.page = value
        else:
            self.registers[self.page, register] = value
            self.log.append((self.page, register, value))


@pytest.mark.parametrize(
    ("receive", "transmit", "value"), [(1, 0, 0x1066), (0, 1, 0x1056), (1, 1, 0x1076), (0, 0, 0x1046)]
)
def test_marvell_delays_are_set_on_page_two_and_then_it_is_restarted(receive, transmit, value):
    phy: Any = Marvell()
    assert start_phys(phy, PhySettings(bool(receive), bool(transmit)), timeout_s=0.5) == [0]
    assert phy.log == [(2, 21, value), (0, 0, 0x9140), (0, 4, 0x0001), (0, 9, 0x0200), (0, 0, 0x1340)]
    assert phy.waits == 4  # two looks for it, two while its reset was on
    assert phy.page == 0


def test_a_reset_that_does_not_end_is_an_error():
    phy: Any = Marvell()
    phy.wait = phy.transport.wait = lambda seconds: seconds
    phy.waits = 2  # it answers, and stays as it is
    with pytest.raises(DeviceError, match=r"port 0: the PHY at address 0 is still in reset after 0\.5 s"):
        start_phys(phy)
    assert phy.log == [(0, 0, 0x9140)]


def test_nobody_there_is_told_and_nothing_is_written():
    phy: Any = Marvell()
    assert start_phys(phy, PhySettings(True, False)) == [None]
    assert phy.log == [] and phy.address == 1


def test_settings_of_a_board(tmp_path):
    place = tmp_path / "twinstamp.phys.toml"
    place.write_text("receive_delay = true\ntransmit_delay = false\n")
    assert read_settings(place) == PhySettings(receive_delay=True, transmit_delay=False)
    for text in ("receive_delay = true", "receive_delay = 1\ntransmit_delay = 0", "="):
        place.write_text(text)
        with pytest.raises(ConfigError, match=r"phys\.toml"):
            read_settings(place)
