# SPDX-License-Identifier: Apache-2.0
"""The card on a PYNQ board: Overlay, a driver bound to the card's IP, memory from allocate (docs/pynq.md).

Needs pynq 4.0, which has an environment of its own (extra ``pynq``: it pins NumPy 1.26).
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp.card.regmap import MAP_MAJOR, MAP_MINOR, REGISTERS
from twinstamp.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    import numpy.typing as npt

VLNV = f"twinstamp.org:twinstamp:twinstamp_card:{MAP_MAJOR}.{MAP_MINOR}"  # what tools/package_ip.py packages
_ALIGNMENT = 4096
_LONGEST_SLEEP_S = 1e-3  # a poll of the card's producer index costs microseconds
_PRODUCER = REGISTERS["ring.producer"].offset
_SEEN = REGISTERS["ring.seen"].offset
_INTERRUPT = REGISTERS["ring.interrupt"]


def card_ip() -> type[Any]:
    """The pynq driver class that Overlay binds to the card by its VLNV; importing pynq takes seconds."""
    from pynq import DefaultIP

    global _CardIP
    if _CardIP is None:

        class TwinstampCardIP(DefaultIP):  # type: ignore[misc]
            """Registers of the card: ``read`` and ``write`` by byte offset, 32 bits (docs/registers.md)."""

            bindto = (VLNV,)

        _CardIP = TwinstampCardIP
    return _CardIP


_CardIP: type[Any] | None = None


class PynqTransport:
    """A card in an overlay, for ``Card(PynqTransport("twinstamp.bit"))``; or ``open_card("pynq:FILE")``.

    bitfile: of the overlay, its HWH file beside it. ip: name of the card in the block design; None: the
    only one. device: pynq Device, None: the active one. download: False where the overlay is loaded already.
    coherent: the block design has the card on a coherent port (S_AXI_HPC): memory may then be cached; else
    allocate() gives uncached memory, so that what the card wrote is what is read. uio: /dev/uioN of the
    card's interrupt, on which ``wait`` sleeps until the ring's producer index is another one than was last
    read; None: it sleeps for at most 1 ms at a time. sleep: how, in s.

    Errors: ConfigError for no such file or IP, or an overlay without the card; DeviceError where pynq cannot
    load it, or has no memory.
    """

    def __init__(
        self,
        bitfile: str,
        *,
        ip: str | None = None,
        device: Any = None,
        download: bool = True,
        coherent: bool = False,
        uio: str | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        try:
            from pynq import Overlay
        except ImportError as error:
            raise ConfigError(
                f"the pynq card needs the package pynq ({error}): install twinstamp[pynq] in an environment "
                "of its own"
            ) from error
        driver = card_ip()
        try:
            # Of which version the IP is matters less than its register map, which the driver checks.
            self._overlay = Overlay(bitfile, download=download, device=device, ignore_version=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise DeviceError(f"overlay {bitfile}: {error}") from error
        cards = sorted(
            name for name, description in self._overlay.ip_dict.items() if description.get("driver") is driver
        )
        if ip is None and len(cards) != 1:
            found = f"these: {', '.join(cards)}; name one" if cards else f"no {VLNV}"
            raise ConfigError(f"overlay {bitfile} has {found}")
        if ip is not None and ip not in cards:
            raise ConfigError(f"overlay {bitfile} has no card {ip!r}; it has: {', '.join(cards) or 'none'}")
        self.name = f"pynq:{ip or cards[0]}"
        self._ip = self._overlay
        for part in (ip or cards[0]).split("/"):
            self._ip = getattr(self._ip, part)
        self._device = device
        self._sleep = sleep
        self._coherent = coherent
        self._memory: Any = None
        self._closed = False
        self._seen = 0  # the producer index, as last read
        self._uio = -1
        if uio is not None:
            try:
                self._uio = os.open(uio, os.O_RDWR | os.O_CLOEXEC)
            except OSError as error:
                raise DeviceError(f"card {self.name}: {uio} cannot be opened: {error.strerror}") from error

    def read32(self, address: int) -> int:
        self._check()
        value = int(self._ip.read(address))
        if address == _PRODUCER:
            self._seen = value
        return value

    def write32(self, address: int, value: int) -> None:
        self._check()
        self._ip.write(address, int(value))

    def map_memory(self, size: int) -> tuple[npt.NDArray[np.uint8], int]:
        from pynq import allocate

        self._check()
        how = {"cacheable": 1} if self._coherent else {}
        try:
            memory = allocate((size + _ALIGNMENT,), dtype="u1", target=self._device, **how)
        except (OSError, RuntimeError, MemoryError) as error:
            raise DeviceError(
                f"card {self.name}: no {size >> 20} MiB of contiguous memory ({error}); use smaller or fewer "
                "blocks, or a larger CMA pool"
            ) from error
        self._memory = memory  # it goes when nobody holds it
        skip = -int(memory.device_address) % _ALIGNMENT
        return np.asarray(memory)[skip : skip + size], int(memory.device_address) + skip

    def wait(self, seconds: float) -> float:
        self._check()
        if self._uio < 0:
            slept = min(seconds, _LONGEST_SLEEP_S)
            self._sleep(slept)
            return slept
        start = time.monotonic()
        # A level: what came since the index was read has raised it already when it is unmasked.
        self.write32(_SEEN, self._seen)
        self.write32(_INTERRUPT.offset, 1 << _INTERRUPT.fields["enable"].low)
        os.write(self._uio, (1).to_bytes(4, "little"))  # unmask: Linux, uio_pdrv_genirq
        if select.select([self._uio], [], [], seconds)[0]:
            os.read(self._uio, 4)
        return time.monotonic() - start

    def _check(self) -> None:
        if self._closed:
            raise DeviceError(f"card {self.name} is closed")

    def close(self) -> None:
        """The overlay stays loaded. Memory goes when the last array over it does."""
        if self._uio >= 0 and not self._closed:
            os.close(self._uio)
        self._closed = True
        self._memory = None
