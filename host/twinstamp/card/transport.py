# SPDX-License-Identifier: Apache-2.0
"""What the card driver needs of whatever a card hangs on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Transport(Protocol):
    """Registers, memory that the card can write, and waiting. One user at a time.

    Errors: every method raises DeviceError when the card does not answer.
    """

    name: str

    def read32(self, address: int) -> int:
        """The register word at byte ``address``, a multiple of 4."""

    def write32(self, address: int, value: int) -> None:
        """Writes ``value`` (0..2^32-1) to the register word at byte ``address``."""

    def map_memory(self, size: int) -> tuple[npt.NDArray[np.uint8], int]:
        """``size`` bytes that the card can read and write: as an array, and as the card addresses them.

        Called once: the driver lays out its rings in it. The address is a multiple of 4096.
        """

    def wait(self, seconds: float) -> float:
        """Lets card time go on by ``seconds`` at most, less when there may be something new.

        Returns how long it was, in s.
        """

    def close(self) -> None:
        """Ends the use of the card. Further calls do nothing."""
