# SPDX-License-Identifier: Apache-2.0
"""A pynq Device whose registers and memory are a simulated card's: real pynq, no board."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pynq.buffer import PynqBuffer
from pynq.pl_server.device import Device
from twinstamp.card.pynq import VLNV, PynqTransport
from twinstamp.card.sim import SimulatedCard

BASE = 0xA000_0000
RANGE = 0x1_0000


class _Parser:
    """What pynq reads from an overlay's HWH file."""

    def __init__(self, cards: dict[str, str]) -> None:
        self.ip_dict: dict[str, Any] = {
            name: {
                "fullpath": name,
                "type": vlnv,
                "phys_addr": BASE + i * RANGE,
                "addr_range": RANGE,
                "registers": {},
                "interrupts": {},
                "gpio": {},
                "parameters": {},
                "state": None,
                "mem_id": None,
            }
            for i, (name, vlnv) in enumerate(cards.items())
        }
        self.gpio_dict: dict[str, Any] = {}
        self.interrupt_pins: dict[str, Any] = {}
        self.interrupt_controllers: dict[str, Any] = {}
        self.hierarchy_dict: dict[str, Any] = {}
        self.mem_dict: dict[str, Any] = {}
        self.clock_dict: dict[str, Any] = {}
        self.systemgraph = None


class SimDevice(Device):
    """cards: VLNV by name; all of them are the same simulated card."""

    _probe_priority_ = 7319
    _probe_ = classmethod(lambda cls: [])

    def __init__(self, simulated: SimulatedCard, cards: dict[str, str] | None = None) -> None:
        super().__init__(f"simulated{id(simulated)}")
        self.name = "twinstamp-simulated"
        self.capabilities = {"REGISTER_RW": True}
        self.simulated = simulated
        self.cards = {"card_0": VLNV} if cards is None else cards
        self.flushed = self.invalidated = 0
        self.allocated: list[dict[str, Any]] = []

    def get_bitfile_metadata(self, bitfile_name: str) -> _Parser:
        return _Parser(self.cards)

    def download(self, bitstream: Any, parser: Any) -> None:
        self.post_download(bitstream, parser)

    def read_registers(self, address: int, length: int) -> bytes:
        at = (address - BASE) % RANGE
        words = [self.simulated.read32(at + i) for i in range(0, length, 4)]
        return b"".join(word.to_bytes(4, "little") for word in words)

    def write_registers(self, address: int, data: bytes) -> None:
        at = (address - BASE) % RANGE
        for i in range(0, len(data), 4):
            self.simulated.write32(at + i, int.from_bytes(data[i : i + 4], "little"))

    def allocate(self, shape: Any, dtype: Any, **kwargs: Any) -> PynqBuffer:
        self.allocated.append(kwargs)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        memory, address = self.simulated.map_memory(size)
        return PynqBuffer(shape, dtype, buffer=memory, device=self, device_address=address, coherent=False)

    def flush(self, *_: Any) -> None:
        self.flushed += 1

    def invalidate(self, *_: Any) -> None:
        self.invalidated += 1


def bitfile(folder: Path) -> str:
    """pynq looks that there is one; the simulated device does not read it."""
    place = folder / "twinstamp.bit"
    place.write_bytes(b"\0" * 64)
    return str(place)


def pynq_transport(simulated: SimulatedCard, folder: Path, **options: Any) -> PynqTransport:
    """Through pynq to the simulated card, which goes on while the driver waits."""

    def sleep(seconds: float) -> None:
        while seconds > 0:
            seconds -= simulated.wait(seconds)

    device = SimDevice(simulated, options.pop("cards", None))
    return PynqTransport(bitfile(folder), device=device, sleep=sleep, **options)
