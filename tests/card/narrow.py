# SPDX-License-Identifier: Apache-2.0
"""A card as a board is: behind the transport and nothing else, in a world that others have set up."""

from __future__ import annotations

import numpy as np
from twinstamp.card.sim import SimulatedCard


class Board:
    """Registers, memory and waiting of a simulated card; asking for more is an AttributeError.

    Closing it leaves the card as it is, so that it can be opened again, as a board in its slot.
    """

    name = "board"
    __slots__ = ("__simulated",)

    def __init__(self, simulated: SimulatedCard) -> None:
        self.__simulated = simulated

    def read32(self, address: int) -> int:
        return self.__simulated.read32(address)

    def write32(self, address: int, value: int) -> None:
        self.__simulated.write32(address, value)

    def map_memory(self, size: int) -> tuple[np.ndarray, int]:
        return self.__simulated.map_memory(size)

    def wait(self, seconds: float) -> float:
        return self.__simulated.wait(seconds)

    def close(self) -> None:
        pass
