# SPDX-License-Identifier: Apache-2.0
"""The card's driver: registers by name, clock, counters, frames as batches (docs/card.md)."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinstamp.card import rmon
from twinstamp.card.regmap import (
    DIGEST_LIMB_WORDS,
    DIGEST_LIMBS_AT,
    DIGEST_NH_WORDS,
    MAGIC,
    MAP_MAJOR,
    MAP_MINOR,
    MEMORIES,
    REGISTERS,
)
from twinstamp.errors import (
    CardMapError,
    ConfigError,
    DeadCardError,
    DeviceError,
    OverloadError,
    WrongCardError,
)
from twinstamp.frames import LINKTYPE_ETHERNET, ClockState, FrameBatch, Port
from twinstamp.leap import UtcOffset

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    import numpy.typing as npt
    from twinstamp_kernels.window import Digests

    from twinstamp.card.phys import PhySettings
    from twinstamp.card.trains import CardPort
    from twinstamp.card.transport import Transport

COUNTERS = (
    "octets_good", "octets_bad", "good", "broadcast", "multicast", "fcs_errors", "undersize", "fragments",
    "oversize", "jabbers", "no_sfd", "preamble_errors", "stored", "dropped", "discarded", "not_wanted",
    "size_64", "size_127", "size_255", "size_511", "size_1023", "size_1518", "size_larger", "tagged",
    "tx_frames", "tx_octets", "tx_broadcast", "tx_multicast", "tx_late", "pause", "symbol_errors",
    "duplicates_dropped",
)  # fmt: skip
_COUNTERS_APART = 32  # counters from one port's first to the next one's in the counter memory
_POLL_S = 1e-3
_NO_ANSWER = 0xFFFFFFFF  # what a bus reads where nobody drives it
_TX_WORDS_LOG2 = 13  # a transmit ring of 64 KiB per port
_TX_HEADER_BYTES = 32
# Largest error of a stamp around its constant (docs/card.md): half a core cycle, half of 2^-32 s, the first
# flip-flop's undecided window, and two sampling periods at 100 ppm off.
STAMP_BOUND_NS = 4 + 0.5e9 / 2**32 + 0.05 + 16e-4
_TX_LAUNCH = 1
_TX_STOPPED = {
    1: "host memory refused a read",
    2: "base or size of its ring is impossible",
    4: "a record in its ring says more bytes than a frame may have",
}
_TX_STAMP = 2
_PHY_RESET = 0x9140  # register 0 of clause 22: reset, negotiate, gigabit, full duplex
SHORTEST_SENT = 14  # bytes without FCS: an Ethernet header; the card pads to 60
LONGEST_FRAME = 9022  # 9018 bytes with FCS, and two tags

# Bits of CardBatch.record_flags
RECORD_BAD_FCS = 0x01
RECORD_RX_ER = 0x02
RECORD_RUNT = 0x04
RECORD_GIANT = 0x08
RECORD_CUT = 0x10
RECORD_FIRST_BYTE = 0x20
RECORD_TX = 0x40
RECORD_DUPLICATE = 0x80  # judged a duplicate by the card's window, which marks

# What set_duplicates takes, by the codes of dedup.control.profile, which are those of verdicts.
DUPLICATE_PROFILES = {"exact": 1, "vlan": 2, "routing": 3}
DUPLICATE_ACTIONS = ("mark", "drop")


# What clock.control.state says, with the bit above it that says whether it says anything.
SERVO_STATES = ("cold", "acquiring", "locked", "holdover", "disputed", "failed")


def servo_state(bits: int) -> str:
    """Name of the servo's state from three bits and ``disciplined`` above them; "": nothing disciplines."""
    if not bits & 8:
        return ""
    state = bits & 7
    return SERVO_STATES[state] if state < len(SERVO_STATES) else f"state {state}"


class CardBatch(FrameBatch):
    """A FrameBatch over a card's ring, with what else a record says. Valid until ``release()``."""

    __slots__ = ()

    def _header(self, word: int) -> npt.NDArray[np.uint64]:
        # The record's header is the 32 bytes before the frame.
        words: npt.NDArray[np.uint64] = self.data.view("u8")
        at: npt.NDArray[np.int64] = (self.offset // 8).astype("i8") - 4 + word
        return words.take(at)

    @property
    def stamp_q32(self) -> npt.NDArray[np.uint64]:
        """Raw stamps, 32.32 s of card time, the receive constant not subtracted, u64[n]; a copy."""
        return self._header(1)

    @property
    def sequence(self) -> npt.NDArray[np.uint32]:
        """Per-port number of each frame, dropped ones counted too, u32[n]; a copy."""
        return self._header(2).astype("u4")

    @property
    def flow_hash(self) -> npt.NDArray[np.uint32]:
        """Upper 32 bits of the flow hash, u32[n]; 0 where the card has none; a copy."""
        return (self._header(2) >> 32).astype("u4")

    @property
    def digest(self) -> npt.NDArray[np.uint64]:
        """First half of the frame's keyed digest, u64[n]; 0 where the card has none; a copy.

        Under the profile of ``Card.set_duplicates``, exact where none was set.
        """
        return self._header(3)

    @property
    def record_flags(self) -> npt.NDArray[np.uint16]:
        """RECORD_* bits, u16[n]; a copy."""
        return (self._header(0) >> 48 & 0xFF).astype("u2")

    @property
    def link_epoch(self) -> npt.NDArray[np.uint8]:
        """Link epoch of each frame's port when the frame ended, modulo 256, u8[n]; a copy.

        As the card knew it from its last look at the PHY: a link that was down for less than a poll interval
        (and 160 us) is noticed behind the first frames that came over it.
        """
        return (self._header(0) >> 56).astype("u1")


# When a frame left. stamp_q32: card time of its SFD on the pins, 32.32 s. cookie: as sent. late: it missed
# its launch time. As Departure in native/card_ring.cpp.
DEPARTURE = np.dtype(
    {
        "names": ["stamp_q32", "cookie", "port", "late"],
        "formats": ["u8", "u8", "u1", "?"],
        "offsets": [0, 8, 16, 17],
        "itemsize": 24,
    }
)


class ClockStatus(NamedTuple):
    """The card's clock at one look. time_q32: card time, 32.32 s TAI. rate_ppb: set rate against the core
    clock's nominal one. slewing: a slew is under way, slew_left_ns of it to come. locked: to a reference.
    bound_ns: error bound, -1 where none is known. utc_offset_s: TAI - UTC now. epoch: +1 at each new time.
    state: as in ClockState. utc_known: the offset is not assumed. failed: the soft core has stopped; its lock
    and bound do not count any more. leap_s, leap_tai_s: the leap second to come, as in ClockState.
    """

    time_q32: int
    rate_ppb: float
    slewing: bool
    slew_left_ns: float
    locked: bool
    bound_ns: int
    utc_offset_s: int
    epoch: int
    state: str
    utc_known: bool
    failed: bool
    leap_s: int
    leap_tai_s: int


class CardStatistics(NamedTuple):
    """at_q32: card time of the counters. ports: per port, by the names in COUNTERS. frames: handed out by
    this driver since it was made. dropped: frames, all ports, that found no room since the card's reset.
    """

    at_q32: int
    ports: tuple[dict[str, int], ...]
    frames: int
    dropped: int


class DuplicateStatistics(NamedTuple):
    """Of the card's duplicate window since start(). judged: frames. duplicates: of these, marked or dropped.
    limited: frames whose time window was cut by the window's size. longest_cycles: core clock cycles that one
    frame took in the window at most (65535: or more).
    """

    judged: int
    duplicates: int
    limited: int
    longest_cycles: int


class Link(NamedTuple):
    """A port's link as last polled.

    speed: bit/s; frames pass at 10^9 only. epoch: how often the link came up; the PHY's latency may differ
    from one epoch to the next. answers: the PHY answered the last poll.
    """

    up: bool
    speed: int
    full_duplex: bool
    epoch: int
    answers: bool


@dataclass(frozen=True)
class Identity:
    """What a card says of itself. build_id: 0 where not set. store_bytes: frame store of a port."""

    map_version: tuple[int, int]
    build_id: int
    features: frozenset[str]
    ports: int
    store_bytes: int
    core_clock_hz: int


class Card:
    """One card, over a transport; use it in a ``with`` block.

    transport: from ``open_card`` or made by hand; the card closes it. block_log2, blocks_log2: size of a
    ring block (14 to 22) and number of blocks (1 to 15). timeout_s: card time after which a block that is
    not full is handed over. utc: batches in UTC in place of TAI. constants_q32: receive constant per port
    (2^-32 s) in place of the card's own.

    Errors: DeviceError for no card, a wrong one, one with another map, or one that stopped answering;
    ConfigError for a bad option.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        block_log2: int = 16,
        blocks_log2: int = 6,
        timeout_s: float = 1e-3,
        utc: bool = False,
        constants_q32: list[int] | None = None,
    ) -> None:
        if not 14 <= block_log2 <= 22:
            raise ConfigError(f"block_log2 is {block_log2}: give 14 (16 KiB) to 22 (4 MiB)")
        if not 1 <= blocks_log2 <= 15:
            raise ConfigError(f"blocks_log2 is {blocks_log2}: give 1 to 15")
        self.transport = transport
        self.remarks: list[str] = []  # what whoever opened it should know
        self.identity = self._identify()
        cycles = round(timeout_s * self.identity.core_clock_hz)
        if not 1 <= cycles < 1 << 32:
            raise ConfigError(f"timeout_s is {timeout_s} s: give 1 cycle to 34 s of card time")
        self._shape = (block_log2, blocks_log2, cycles)
        self._utc = utc
        self._running = False
        self._duplicates = ""  # profile of the card's window
        self._measured: list[float | None] = [None] * self.identity.ports
        self._phy_ns = [(0, 0)] * self.identity.ports
        self._phys: tuple[PhySettings | None] | None = None  # of start_phys, for reset
        self._constants = [0] * self.identity.ports
        for port in range(self.identity.ports):
            self._read_phy_latency(port)
        if constants_q32 is not None:
            self.use_constants(constants_q32)
        self.ports = tuple(
            Port(f"port{port}", LINKTYPE_ETHERNET, 0, 1_000_000_000, f"card:{transport.name}")
            for port in range(self.identity.ports)
        )
        self._ring: Any = None
        self._memory: Any = None
        self._address = 0
        self._longest_sent = LONGEST_FRAME
        self._tx_rings: list[Any] = []
        self._train_ports: dict[int, CardPort] = {}
        self._consumer = 0
        self._bound_ns = 0
        self._first = 0

    def _identify(self) -> Identity:
        magic = self.read("id.magic")
        if magic == _NO_ANSWER:
            raise DeadCardError(f"card {self.transport.name} does not answer: every bit reads 1; reset it")
        if magic != MAGIC:
            raise WrongCardError(
                f"not a Twinstamp card: identification 0x{magic:08X}, expected 0x{MAGIC:08X}"
            )
        version = self.fields("id.version")
        major, minor = version["major"], version["minor"]
        if major != MAP_MAJOR or minor < MAP_MINOR:
            raise CardMapError(
                f"the card has register map {major}.{minor}, this driver needs {MAP_MAJOR}.{MAP_MINOR}: "
                "load a matching build"
            )
        size = self.fields("id.size")
        features = frozenset(name for name, on in self.fields("id.features").items() if on)
        return Identity(
            (major, minor),
            self.read("id.build"),
            features,
            size["ports"],
            1 << size["store_log2"],
            self.read("id.core_clock"),
        )

    @property
    def constants_q32(self) -> tuple[int, ...]:
        """Receive constant per port that ``timestamp_ns`` has subtracted, 2^-32 s.

        The card's own, and the middle of the PHY's latency, where no other one was given.
        """
        return tuple(self._constants)

    def use_constants(
        self, constants_q32: Sequence[int], uncertainty_ns: Sequence[float | None] | None = None
    ) -> None:
        """Takes other receive constants, one per port, for batches from now on.

        uncertainty_ns: of each, as it was measured, the PHY's latency of that link-up in it; None: not
        measured but the card's own, with the middle of the PHY's latency. Default: all measured, exactly.
        """
        self._check_constants_free()
        known: list[float | None] = [0.0] * self.identity.ports
        if uncertainty_ns is not None:
            known = list(uncertainty_ns)
        if len(known) != self.identity.ports or any(value is not None and value < 0 for value in known):
            raise ConfigError(
                f"uncertainty_ns: give one of 0 or more for each of {self.identity.ports} ports"
            )
        if len(constants_q32) != self.identity.ports:
            raise ConfigError(f"{len(constants_q32)} constants for {self.identity.ports} ports")
        if any(not 0 <= constant < 1 << 32 for constant in constants_q32):
            raise ConfigError("a receive constant is 0 to 2^32-1, in units of 2^-32 s")
        self._constants = list(constants_q32)
        self._measured = known

    def _check_constants_free(self) -> None:
        if self._running and self._duplicates:
            raise ConfigError("the card's duplicate window compares times with these constants: stop() first")

    def _check_port(self, port: int) -> None:
        if not 0 <= port < self.identity.ports:
            raise ConfigError(f"no port {port}: this card has 0 to {self.identity.ports - 1}")

    # Registers by the names of docs/registers.md

    def read(self, name: str) -> int:
        """The whole register ``name``, unsigned; both words of a 64-bit one, lower first."""
        register = REGISTERS[name]
        value = self.transport.read32(register.offset)
        if register.width == 64:
            value |= self.transport.read32(register.offset + 4) << 32
        return value

    def write(self, name: str, value: int) -> None:
        """Writes the whole register ``name``; a negative value in two's complement."""
        register = REGISTERS[name]
        if not -(1 << (register.width - 1)) <= value < 1 << register.width:
            raise ConfigError(f"{name} has {register.width} bits: {value} does not fit")
        value &= (1 << register.width) - 1
        self.transport.write32(register.offset, value & 0xFFFFFFFF)
        if register.width == 64:
            self.transport.write32(register.offset + 4, value >> 32)

    def fields(self, name: str) -> dict[str, int]:
        """The register's fields by name."""
        value = self.read(name)
        return {
            field: (value >> place.low) & ((1 << place.width) - 1)
            for field, place in REGISTERS[name].fields.items()
        }

    def write_fields(self, name: str, **values: int) -> None:
        """Writes ``name`` with the given fields; readable fields not named keep their value."""
        places = REGISTERS[name].fields
        word = 0
        keeps = any(f.readable and f.writable and n not in values for n, f in places.items())
        if keeps:
            old = self.read(name)
            for field, place in places.items():
                if place.readable and place.writable and field not in values:
                    word |= old & (((1 << place.width) - 1) << place.low)
        for field, value in values.items():
            place = places[field]
            if not 0 <= value < 1 << place.width:
                raise ConfigError(f"{name}.{field} has {place.width} bits: {value} does not fit")
            word |= value << place.low
        self.write(name, word)

    # Clock

    def time_q32(self) -> int:
        """Card time now, 32.32 s."""
        return self.read("clock.now")

    def clock(self) -> ClockStatus:
        """Time, rate, slew and state of the card's clock."""
        status = self.fields("clock.status")
        left = self.read("clock.slew_left")
        now_q32 = self.time_q32()
        utc = self.utc_offset()
        leap = (utc.leap_s, utc.leap_tai_s) if now_q32 >> 32 < utc.leap_tai_s else (0, 0)
        control = self.fields("clock.control")
        failed = bool(self.fields("cpu.status")["failed"])
        bound = _NO_ANSWER if failed else self.read("clock.bound")
        nominal = Fraction(1 << 72, self.identity.core_clock_hz)
        return ClockStatus(
            now_q32,
            float((self.read("clock.increment") / nominal - 1) * 10**9),
            bool(status["slewing"]),
            (left - (1 << 64) if left >> 63 else left) * 1e9 / 2**64,
            bool(control["locked"]) and not failed,
            -1 if bound == _NO_ANSWER else bound,
            utc.at(now_q32 >> 32),
            self.read("clock.epoch"),
            "failed" if failed else servo_state(control["state"] | control["disciplined"] << 3),
            utc.known,
            failed,
            *leap,
        )

    def utc_offset(self) -> UtcOffset:
        """TAI - UTC as the card has it, with the leap second next to now."""
        leap_tai_s = self.read("clock.leap_second")
        while True:  # the firmware changes both seldom, one after the other
            utc = self.fields("clock.utc_offset")
            before, leap_tai_s = leap_tai_s, self.read("clock.leap_second")
            if leap_tai_s == before:
                break
        offset_s = utc["s"] - (1 << 16 if utc["s"] >> 15 else 0)
        leap_s = (0, 1, 0, -1)[utc["leap"]]
        return UtcOffset(offset_s, bool(utc["valid"]), leap_s, leap_tai_s if leap_s else 0)

    def set_utc_offset(self, offset: UtcOffset) -> None:
        """Tells a card that nothing disciplines what TAI - UTC is; firmware writes its own each second.

        ConfigError for values that the registers do not hold.
        """
        if not -(1 << 15) <= offset.s < 1 << 15 or not -1 <= offset.leap_s <= 1:
            raise ConfigError(f"TAI - UTC of {offset.s} s and {offset.leap_s} s: no card holds that")
        self.write_fields("clock.utc_offset", s=offset.s & 0xFFFF, valid=0, leap=0)
        self.write("clock.leap_second", offset.leap_tai_s)
        self.write_fields(
            "clock.utc_offset", s=offset.s & 0xFFFF, valid=int(offset.known), leap=offset.leap_s & 3
        )

    def load_time_q32(self, q32: int) -> None:
        """Sets card time; a new time-epoch. DeviceError when refused: locked, or a train is armed."""
        self.write("clock.load_time", q32)
        self.write_fields("clock.control", load=1)
        self.transport.wait(1e-6)
        if self.fields("clock.status")["load_refused"]:
            self.write("clock.status", 1)
            raise DeviceError("the card refused a new time: its clock is locked or a train is armed")

    def set_rate_ppb(self, ppb: float) -> None:
        """Makes card time run ``ppb`` faster than the core clock's nominal rate (negative: slower).

        Resolution 2^-48 of the rate. ConfigError beyond what the card takes, about -4% to +4.6%.
        """
        nominal = Fraction(1 << 72, self.identity.core_clock_hz)
        increment = round(nominal * (1 + Fraction(ppb) / 10**9))
        if not 0x21 << 40 <= increment < 0x24 << 40:
            raise ConfigError(f"a rate of {ppb} ppb is beyond what the card takes (-40,000 to 46,000 ppm)")
        self.write("clock.increment", increment)

    def slew_ns(self, amount_ns: float, *, ppm: float = 1.0) -> None:
        """Moves card time by ``amount_ns`` gradually, at ``ppm`` of its rate; replaces a slew under way.

        amount_ns: within +-0.5 s. ppm: 0.001 to 400,000.
        """
        step = round(Fraction(ppm) / 10**6 * (1 << 64) / self.identity.core_clock_hz)
        amount = round(Fraction(amount_ns) * (1 << 64) / 10**9)
        if not 0.001 <= ppm <= 400_000:
            raise ConfigError(f"a slew at {ppm} ppm: give 0.001 to 400,000")
        if not -(1 << 63) <= amount < 1 << 63:
            raise ConfigError(
                f"a slew of {amount_ns} ns: give at most half a second; load a new time instead"
            )
        self.write("clock.slew_step", step)
        self.write("clock.slew_amount", amount)
        self.transport.wait(1e-7)  # until it is under way

    # Links

    def links(self) -> tuple[Link, ...]:
        """Each port's link. The card looks every ``port[i].phy.poll`` cycles (1 ms where not changed)."""
        out = []
        for port in range(self.identity.ports):
            while True:
                epoch = self.read(f"port[{port}].phy.epochs")
                status = self.fields(f"port[{port}].phy.status")
                if self.read(f"port[{port}].phy.epochs") == epoch:
                    break
            up = bool(status["link"])
            speed = 10 ** (7 + status["speed"]) if up else 0
            out.append(Link(up, speed, up and bool(status["full_duplex"]), epoch, bool(status["answers"])))
        return tuple(out)

    def start_phys(self, settings: PhySettings | None = None, *, timeout_s: float = 0.0) -> list[int | None]:
        """Finds each port's PHY, sets its delays, lets it offer 1000 Mb/s only; ``reset`` does it again.

        As ``twinstamp.card.phys.start_phys``, whose errors it has.
        """
        from twinstamp.card.phys import start_phys

        self._phys = (settings,)
        return start_phys(self, settings, timeout_s=timeout_s)

    def set_phy_latency(self, port: int, least_ns: int, most_ns: int) -> None:
        """Tells the card what the PHY of ``port`` may take from the medium to the pins, over all link-ups.

        From its data sheet, each 0 to 65535 ns; both 0 after reset. A constant that was not measured gets the
        middle, and the bounds of batches half the range; a measured one may be off by all of it, as its
        link-up was another one.
        """
        self._check_port(port)
        self._check_constants_free()
        if not 0 <= least_ns <= most_ns < 1 << 16:
            raise ConfigError(
                f"a PHY's latency of {least_ns} to {most_ns} ns: give 0 to 65535, the lower one first"
            )
        self.write_fields(f"port[{port}].phy.rx_latency", least_ns=least_ns, most_ns=most_ns)
        self._read_phy_latency(port)

    def _read_phy_latency(self, port: int) -> None:
        latency = self.fields(f"port[{port}].phy.rx_latency")
        least, most = self._phy_ns[port] = (latency["least_ns"], latency["most_ns"])
        if self._measured[port] is None:
            middle = round(Fraction(least + most, 2) * (1 << 32) / 10**9)
            self._constants[port] = self.read(f"port[{port}].rx_constant") + middle

    def stamp_bound_ns(self, port: int) -> float:
        """What a stamp of ``port`` may be off against card time, in any link epoch, its constant subtracted.

        The crossing's and the stamp's unit, the PHY's latency, and the uncertainty of a measured constant. It
        is part of the bound of batches.
        """
        self._check_port(port)
        least, most = self._phy_ns[port]
        measured = self._measured[port]
        return STAMP_BOUND_NS + ((most - least) / 2 if measured is None else most - least + measured)

    def mdio_read(self, port: int, register: int, *, phy: int | None = None) -> int:
        """A register of the port's PHY (or of the one at address ``phy`` on its bus), clause 22.

        DeviceError when nobody answers.
        """
        return self._mdio(port, register, phy, 0, write=False)

    def mdio_write(self, port: int, register: int, value: int, *, phy: int | None = None) -> None:
        """Writes a PHY's register; nobody says whether it was taken."""
        self._mdio(port, register, phy, value, write=True)

    def _mdio(self, port: int, register: int, phy: int | None, value: int, *, write: bool) -> int:
        base = f"port[{port}].phy"
        self._check_port(port)
        address = self.fields(f"{base}.control")["address"] if phy is None else phy
        self._wait_for(f"{base}.answer", "busy", 0)
        self.write_fields(f"{base}.command", data=value, register=register, address=address, write=write)
        self.transport.wait(1e-6)
        self._wait_for(f"{base}.answer", "busy", 0)
        answer = self.fields(f"{base}.answer")
        if answer["error"] and not write:
            raise DeviceError(f"port {port}: no PHY answers at address {address}")
        return answer["data"]

    def set_loopback(self, port: int, where: str = "off") -> None:
        """For tests. near: what the port sends comes back; far: what it receives goes out, too; off."""
        if where not in ("off", "near", "far"):
            raise ConfigError(f"loopback {where!r}: give off, near or far")
        self._check_port(port)
        self.write_fields(f"port[{port}].loopback", near=where == "near", far=where == "far")
        self.transport.wait(1e-6)

    # Ports and ring

    def start(
        self,
        *,
        ports: list[int] | None = None,
        first_byte: bool = False,
        keep_bad: bool = False,
        keep_runt: bool = False,
        keep_giant: bool = False,
        longest: int = 9018,
    ) -> None:
        """Makes the ring and lets ports (default: all) receive.

        first_byte: stamps refer to the first byte in place of the SFD. keep_bad: frames with a wrong FCS
        or marked damaged. keep_runt: under 64 bytes. keep_giant: over ``longest`` bytes (with FCS, without
        tags).
        """
        from twinstamp import _native

        if self._running:
            raise ConfigError("the card is already receiving: stop() it first")
        if not 64 <= longest <= 9018:
            raise ConfigError(f"longest is {longest} bytes: give 64 to 9018")
        wanted = range(self.identity.ports) if ports is None else ports
        for port in wanted:
            self._check_port(port)
        size_log2, count_log2, cycles = self._shape
        self._wait_for("ring.status", "idle", 1)
        self._map()
        memory, address = self._memory[: 1 << (size_log2 + count_log2)], self._address
        self.write("ring.base", address)
        self.write_fields("ring.shape", size_log2=size_log2, count_log2=count_log2)
        self.write("ring.timeout", cycles)
        self.write("ring.consumer", 0)
        self._consumer = 0
        self._ring = _native.CardRing(memory, size_log2, count_log2)
        if self._duplicates:
            for port, constant in enumerate(self._constants):
                self.write(f"port[{port}].dedup_constant", constant)
            # Taken over while the ring is off; a frame's place a cycle, the window is emptied.
            left_s = (self.duplicate_window_size + 64) / self.identity.core_clock_hz
            while left_s > 0:
                left_s -= self.transport.wait(left_s)
        self.write_fields("ring.control", enable=1)
        self._running = True
        self._bound_ns = max((math.ceil(self.stamp_bound_ns(port)) for port in wanted), default=0)
        for port in wanted:
            self.write(f"port[{port}].rx_limit", longest)
            self.write_fields(
                f"port[{port}].rx_control",
                enable=1,
                stamp_first_byte=first_byte,
                keep_bad=keep_bad,
                keep_runt=keep_runt,
                keep_giant=keep_giant,
            )
        self.transport.wait(1e-6)  # the setting crosses into the receive clocks

    def load_digest_key(self, key: bytes) -> None:
        """Loads the key of ``CardBatch.digest``: the bytes of ``twinstamp_kernels.hashkey.expand(seed)``.

        The card computes the first half of the digest of profile ``exact``, or of that of ``set_duplicates``.
        Not while receiving.
        """
        if self._running:
            raise ConfigError("the digest's key cannot change while the card receives: stop() first")
        from twinstamp_kernels.hashkey import half_key

        try:
            parts = half_key(key, LONGEST_FRAME)
        except ValueError as error:
            raise ConfigError(f"{error}: give those of twinstamp_kernels.hashkey.expand") from error
        sizes = tuple(len(part) // 4 for part in parts)
        if sizes != (DIGEST_NH_WORDS, DIGEST_LIMB_WORDS):
            raise CardMapError(
                f"the kernels' digest has keys of {sizes[0]} and {sizes[1]} words, the register map's of "
                f"{DIGEST_NH_WORDS} and {DIGEST_LIMB_WORDS}: take card and host from the same release"
            )
        base = MEMORIES["digest_key"][0]
        for start, part in zip((0, DIGEST_LIMBS_AT), parts, strict=True):
            for i, word in enumerate(struct.unpack(f"<{len(part) // 4}I", part)):
                self.transport.write32(base + 4 * (start + i), word)

    def set_duplicates(
        self,
        profile: str | None = "exact",
        *,
        window: int | None = None,
        time_ns: int | None = None,
        action: str = "mark",
    ) -> None:
        """Has the card judge duplicates from the next ``start`` on (docs/hdl-dedup.md). Not while receiving.

        profile: "exact", "vlan" or "routing", layer outer; None: no window. Records then carry the digest of
        that profile, under the key of ``load_digest_key``, which must be loaded. window: frames, the current
        one included, 0 to the card's size (``duplicate_window_size``); time_ns: ns, 0 to 2^62 - 1; with both
        one earlier frame must meet both, and one must be given. A time window holds no more frames than the
        card's size; ``duplicates().limited`` counts where that cut it.
        action: "mark" sets FLAG_DUPLICATE in ``flags``; "drop" leaves duplicates out, counted per port in
        ``duplicates_dropped``.

        Windows start empty at each ``start``. Every frame of the ring is judged, in the ring's order, damaged
        ones that are kept too; runts have no digest and take no part, nor do departures.

        Errors: ConfigError for options out of range, while receiving, and where the build has no window.
        """
        if self._running:
            raise ConfigError("the duplicate window cannot change while the card receives: stop() first")
        size = self.duplicate_window_size
        if profile is None:
            if size:
                self.write("dedup.control", 0)
            self._duplicates = ""
            return
        if not size:
            raise ConfigError("this build of the card has no duplicate window")
        if profile not in DUPLICATE_PROFILES:
            raise ConfigError(
                f"the card knows no profile {profile!r}: choose one of {', '.join(DUPLICATE_PROFILES)}"
            )
        if action not in DUPLICATE_ACTIONS:
            raise ConfigError(f"unknown action {action!r}: choose one of {', '.join(DUPLICATE_ACTIONS)}")
        if window is None and time_ns is None:
            raise ConfigError("a duplicate window needs a count of frames, a time, or both")
        if window is not None and not 0 <= window <= size:
            raise ConfigError(f"a window of {window} frames: this card's holds 0 to {size}")
        if time_ns is not None and not 0 <= time_ns < 1 << 62:
            raise ConfigError(f"a time window of {time_ns} ns: must be 0 to 2^62 - 1")
        self.write("dedup.count", window or 0)
        self.write("dedup.window", time_ns or 0)
        self.write_fields(
            "dedup.control",
            profile=DUPLICATE_PROFILES[profile],
            drop=action == "drop",
            by_count=window is not None,
            by_time=time_ns is not None,
        )
        self._duplicates = profile

    @property
    def duplicate_window_size(self) -> int:
        """Frames that the card's duplicate window holds, the current one included; 0: it has none."""
        log2 = self.fields("dedup.status")["size_log2"]
        return 1 << log2 if log2 else 0

    def duplicates(self) -> DuplicateStatistics:
        """What the card's duplicate window has done since ``start``."""
        names = ("judged", "duplicates", "limited", "longest")
        return DuplicateStatistics(*(self.read(f"dedup.{name}") for name in names))

    def window_digests(self, batch: CardBatch) -> Digests:
        """The frames' keys for ``Window.process_digests``: a longer window at the host, without their bytes.

        For a Window of the profile of ``set_duplicates`` (exact where none was set), layer outer. Keys are
        of 64 bits, so they go together with those of other batches of this card under the same digest key
        only, not with ``Window.digests``. Two frames that differ have equal keys with a probability of at
        most 2^-63. A verdict's type is the profile: the card does not tell narrower ones, and a guard has
        nothing to compare. Kept runts, which
        have no digest, are nobody's copies.
        """
        from twinstamp_kernels.verdicts import TAGS, Digests

        n = len(batch)
        number = np.arange(batch.first, batch.first + n, dtype=np.uint64)
        key = np.repeat(batch.digest[:, None], 2, axis=1)
        runts = (batch.record_flags & RECORD_RUNT) != 0
        key[runts, 0], key[runts, 1] = number[runts], ~number[runts]
        if self._duplicates in ("", "exact"):
            return Digests(key)
        # Different in all frames, but for what a guard would compare, which the card does not tell.
        tags = np.repeat(number.astype(np.uint32)[:, None], TAGS, axis=1)
        tags[:, -1] = 0
        return Digests(key, tags=tags)

    def load_flow_key(self, key: bytes) -> None:
        """Loads the key of ``CardBatch.flow_hash``: the 96 bytes of FlowHashKey (twinstamp/flow.h).

        The card computes the flow hash of mode ``flow``, layer ``outer``. Not while receiving.
        """
        if self._running:
            raise ConfigError("the flow hash's key cannot change while the card receives: stop() first")
        if "flow_hash" not in self.identity.features:
            raise ConfigError("this build of the card has no flow hash")
        from twinstamp_kernels.rules import FLOW_KEY_BYTES

        if len(key) != FLOW_KEY_BYTES:
            raise ConfigError(f"a flow hash key of {len(key)} bytes: give {FLOW_KEY_BYTES}")
        base = MEMORIES["flow_key"][0]
        for i, word in enumerate(struct.unpack(f"<{FLOW_KEY_BYTES // 4}I", key)):
            self.transport.write32(base + 4 * i, word)

    def _map(self) -> None:
        """Memory: the record ring, then a transmit ring per port."""
        if self._tx_rings:
            return
        from twinstamp import _native

        size_log2, count_log2, _ = self._shape
        rings = 1 << (size_log2 + count_log2)
        words_log2 = _TX_WORDS_LOG2
        room = getattr(self.transport, "memory_bytes", None)  # of a card with memory of its own
        while room is not None and rings + self.identity.ports * (8 << words_log2) > room and words_log2 > 9:
            words_log2 -= 1
        self._longest_sent = min(LONGEST_FRAME, (8 << words_log2) - _TX_HEADER_BYTES)
        if self._memory is None:
            self._memory, self._address = self.transport.map_memory(
                rings + self.identity.ports * (8 << words_log2)
            )
        for port in range(self.identity.ports):
            start = rings + port * (8 << words_log2)
            self._tx_rings.append(_native.TransmitRing(self._memory[start : start + (8 << words_log2)]))
            self.write(f"port[{port}].tx_base", self._address + start)
            self.write(f"port[{port}].tx_producer", 0)
            self.write_fields(f"port[{port}].tx_control", enable=1, size_log2=words_log2)

    def send_batch(
        self,
        port: int,
        frames: FrameBatch | tuple[npt.ArrayLike, npt.ArrayLike, npt.ArrayLike],
        *,
        launch_q32: npt.ArrayLike | None = None,
        stamp: bool = False,
        cookies: npt.ArrayLike | None = None,
        first: int = 0,
        timeout_s: float = 1.0,
    ) -> int:
        """Hands frames to the card for ``port``, in order; returns how many of them the card has now.

        frames: a FrameBatch of whole Ethernet frames (where they came from does not matter), or arrays (data
        u8[], offset u64[n], length u32[n]); each of 14 to 9022 bytes from the destination address on, without
        FCS; the card pads to 60 bytes. They are copied: a batch may be released afterwards.
        launch_q32: u64[n], card time, 32.32 s, at which each SFD is to leave (at the first cycle not before;
        one that is missed goes at once and is marked late); frames of a port leave in the order they were
        sent. stamp: departures come back through ``departures()``, with ``cookies`` (u64[n], default: the
        index). first: begin with this frame.
        timeout_s: card time to wait for room. What found none is left: the number returned is ``first`` for
        the next call, and less than n. With 0 it takes what there is room for and never waits.

        Errors: ConfigError for a bad frame, column or port, and then nothing was sent; DeviceError when
        memory refused a read or the card died.
        """
        self._check_port(port)
        whole = None
        if isinstance(frames, FrameBatch):
            data, offset, length, whole = frames.raw[:4]
            if any(each.linktype != LINKTYPE_ETHERNET for each in frames.ports):
                other = np.flatnonzero(frames.linktypes[frames.port] != LINKTYPE_ETHERNET)
                if len(other):
                    raise ConfigError(f"frame {other[0]} is no Ethernet frame: leave it out")
        else:
            data, offset, length = (
                _column(column, dtype, name)
                for column, dtype, name in zip(
                    frames, ("u1", "u8", "u4"), ("data", "offset", "length"), strict=True
                )
            )
        n = len(length)
        launch = None if launch_q32 is None else _column(launch_q32, "u8", "launch_q32")
        cookie = np.arange(n, dtype="u8") if cookies is None else _column(cookies, "u8", "cookies")
        for name, column in (("offset", offset), ("launch_q32", launch), ("cookies", cookie)):
            if column is not None and len(column) != n:
                raise ConfigError(f"{name} has {len(column)} values for {n} frames")
        if not 0 <= first <= n:
            raise ConfigError(f"first is {first}: give 0 to {n}, the number of frames")
        return self._transmit(port, (data, offset, length), whole, launch, cookie, stamp, first, timeout_s)

    def _transmit(
        self,
        port: int,
        columns: tuple[Any, Any, Any],
        whole: Any,
        launch: npt.NDArray[np.uint64] | None,
        cookie: npt.NDArray[np.uint64],
        stamp: bool,
        first: int,
        timeout_s: float,
    ) -> int:
        from twinstamp import _native

        data, offset, length = columns
        n = len(length)
        if stamp and not self._running:
            raise ConfigError("departure stamps come through the ring of a card that receives: start() first")
        self._map()
        longest = self._longest_sent
        bad = _native.first_bad(len(data), offset, length, whole, first, SHORTEST_SENT, longest)
        if bad < n:
            raise ConfigError(_what_is_bad(bad, len(data), offset[bad], length[bad], whole, longest))
        flags = (0 if launch is None else _TX_LAUNCH) | (_TX_STAMP if stamp else 0)
        ring = self._tx_rings[port]
        while True:
            fetched, before = self.read(f"port[{port}].tx_consumer"), ring.producer
            try:
                first = ring.put(data, offset, length, launch, cookie, flags, first, fetched)
            except RuntimeError as error:
                raise DeadCardError(f"card {self.transport.name}: port {port}: {error}; reset it") from error
            if ring.producer != before:
                self.write(f"port[{port}].tx_producer", ring.producer)
            if status := self.read(f"port[{port}].tx_status"):
                why = next(text for bit, text in _TX_STOPPED.items() if status & bit)
                raise DeviceError(f"the card stopped sending on port {port}: {why}; reset() it")
            if first == n or timeout_s <= 0:
                return int(first)
            timeout_s -= self.transport.wait(min(timeout_s, _POLL_S))

    def send(
        self,
        port: int,
        frame: bytes,
        *,
        launch_q32: int | None = None,
        stamp: bool = False,
        cookie: int = 0,
        timeout_s: float = 1.0,
    ) -> None:
        """Hands one frame to the card for ``port``: ``send_batch`` for interactive use.

        frame: 14 to 9022 bytes from the destination address on, without FCS. Waits for room for ``timeout_s``
        of card time.

        Errors: as ``send_batch``; OverloadError when there was no room.
        """
        self._check_port(port)
        for name, value in (("launch_q32", launch_q32 or 0), ("cookie", cookie)):
            if not 0 <= value < 1 << 64:
                raise ConfigError(f"{name} is {value}: give 0 to 2^64-1")
        columns = np.frombuffer(frame, np.uint8), np.zeros(1, np.uint64), np.array([len(frame)], np.uint32)
        launch = None if launch_q32 is None else np.array([launch_q32], np.uint64)
        cookies = np.array([cookie], np.uint64)
        if not self._transmit(port, columns, None, launch, cookies, stamp, 0, timeout_s):
            raise OverloadError(f"port {port}: no room for {len(frame)} bytes within the time given")

    def departures(self) -> npt.NDArray[np.void]:
        """Departures that ``poll`` or ``receive`` came across since the last call, DEPARTURE[n].

        In the order of the ring: those of a port in the order its frames left. Needs ``start``. What the ring
        had no room for is counted per port in ``port[i].tx_lost``.
        """
        return np.frombuffer(b"" if self._ring is None else self._ring.departures(), dtype=DEPARTURE)

    def train_departures(self, port: int, slot: int) -> npt.NDArray[np.void]:
        """TRAIN_DEPARTURE[n] of a port's train that ``poll`` or ``receive`` met since the last call."""
        import numpy as np

        from twinstamp.card.trains import TRAIN_DEPARTURE

        raw = b"" if self._ring is None else self._ring.train_departures(port, slot)
        return np.frombuffer(raw, TRAIN_DEPARTURE)

    def port(self, number: int) -> CardPort:
        """Port ``number``, for sending packet trains (docs/trains.md)."""
        self._check_port(number)
        if number not in self._train_ports:
            from twinstamp.card.trains import CardPort

            self._train_ports[number] = CardPort(self, number)
        return self._train_ports[number]

    def stop(self) -> None:
        """Ends receiving; what is in the card still comes through ``poll`` while there are free blocks."""
        if not self._running:
            return
        self._running = False
        for port in range(self.identity.ports):
            self.write_fields(f"port[{port}].rx_control", enable=0)
        self.transport.wait(1e-6)
        self.write_fields("ring.control", enable=0)

    def reset(self) -> None:
        """Brings the card back to work, whatever was written to it: every register as after power-up.

        What is in the card is lost, a frame that has begun still goes out; counters, card time, its epoch and
        the link epochs go on. PHYs are reset: links go down and come up. What was handed out stays readable,
        but ``start`` uses the same memory again: release batches first.

        Errors: DeviceError when the card does not come to rest.
        """
        self._running = False
        self._duplicates = ""
        self._ring = None
        self._tx_rings.clear()
        ports = range(self.identity.ports)
        for port in ports:
            self.write(f"port[{port}].rx_control", 0)
            self.write(f"port[{port}].tx_control", 0)
        self.transport.wait(1e-6)
        self.write("ring.control", 0)
        for port in ports:
            self._wait_for(f"port[{port}].tx_consumer", "index", 0)
        self._wait_for("ring.status", "idle", 1)
        for name, register in REGISTERS.items():
            if any(field.writable for field in register.fields.values()) and not name.endswith("phy.command"):
                self.write(name, register.reset)
        self.write_fields("clock.status", load_refused=1, increment_refused=1)
        for port in ports:
            self.mdio_write(port, 0, _PHY_RESET)
            self._measured[port] = None
            self._read_phy_latency(port)
        if self._phys is not None:
            self.start_phys(self._phys[0])
        for port in ports:
            self._wait_for(f"port[{port}].tx_consumer", "index", 0)

    def poll(self, timeout_s: float = 0.0, *, max_frames: int = 65_536) -> CardBatch | None:
        """The next blocks as a batch (whole blocks; at least one), or None after ``timeout_s``.

        With the simulated card the time is card time: polling makes it go on.
        Errors: DeviceError when the card stopped because memory refused a write, when a block is damaged, or
        when a port lost something between its receive clock and the card's: it hears nothing until it is
        stopped, so ``stop``, take what is left with ``receive``, and ``start`` again.
        """
        if self._ring is None:
            raise DeviceError("the card is not receiving: start() it first")
        left_s = timeout_s
        while True:
            self._give_back()
            status = self.fields("ring.status")
            if status["receive_fault"]:
                ports = [p for p in range(self.identity.ports) if status["receive_fault"] >> p & 1]
                raise DeviceError(
                    f"port {', '.join(map(str, ports))}: frames were lost on the way in: the clock is "
                    "not what its link should give, or had edges that were none; the port is silent: stop(), "
                    "take what is left with receive(), and start() again"
                )
            producer = self.read("ring.producer")
            if producer != self._ring.next:
                break
            if status["error"]:
                raise DeviceError("the card stopped: host memory refused a write; stop() and start() again")
            if left_s <= 0:
                return None
            left_s -= self.transport.wait(min(left_s, _POLL_S))
        try:
            columns, lease, epoch, locked, bound, state, *utc = self._ring.read(
                producer, max_frames, self._utc, self._constants
            )
        except RuntimeError as error:
            if self.read("id.magic") != MAGIC:
                raise DeadCardError(f"card {self.transport.name} stopped answering: reset it") from error
            raise DeviceError(f"card {self.transport.name}: {error}") from error
        # Of card time, latched by the card, and of its stamps. In UTC nothing is known without the offset.
        utc_known = bool(state & 8)
        unbounded = bound == _NO_ANSWER or (self._utc and not utc_known)
        whole = -1 if unbounded else bound + self._bound_ns
        scale = "utc" if self._utc else "tai"
        servo = servo_state(state >> 8)
        clock = ClockState(scale, "card", locked, whole, epoch, servo, utc[0], utc_known, *utc[1:])
        batch = CardBatch(
            columns, ports=self.ports, clock=clock, first=self._first, lease=lambda: self._release(lease)
        )
        self._first += len(batch)
        return batch

    def receive(self, timeout_s: float = 1.0, *, max_frames: int = 65_536) -> Iterator[CardBatch]:
        """Batches until none came for ``timeout_s``. Each is released when the next is asked for."""
        while True:
            batch = self.poll(timeout_s, max_frames=max_frames)
            if batch is None:
                return
            with batch:
                yield batch

    def _release(self, lease: Any) -> None:
        lease.release()
        self._give_back()

    def _give_back(self) -> None:
        consumer = self._ring.consumer
        if consumer != self._consumer:
            self.write("ring.consumer", consumer)
            self._consumer = consumer

    def drops(self) -> tuple[int, ...]:
        """Frames per port that the card dropped for want of room, modulo 2^32, as of the last batch."""
        return () if self._ring is None else tuple(self._ring.drops)

    def counters(self) -> list[dict[str, int]]:
        """All counters of all ports at one instant, by the names in COUNTERS."""
        self.write_fields("counters.control", latch=1)
        self._wait_for("counters.status", "busy", 0)
        base = MEMORIES["counter_memory"][0]
        out = []
        for port in range(self.identity.ports):
            at = base + port * _COUNTERS_APART * 8
            words = [self.transport.read32(at + 4 * i) for i in range(2 * len(COUNTERS))]
            out.append({name: words[2 * i] | words[2 * i + 1] << 32 for i, name in enumerate(COUNTERS)})
        return out

    def statistics(self) -> CardStatistics:
        """All counters at one instant, and what this driver handed out."""
        ports = tuple(self.counters())
        return CardStatistics(
            self.read("counters.at"), ports, self._first, sum(port["dropped"] for port in ports)
        )

    def flush(self) -> None:
        """Makes the card hand over the block it is filling."""
        self.write_fields("ring.control", flush=1)

    def standard_counters(self) -> list[dict[str, dict[str, int]]]:
        """``counters()`` of each port as "received" and "sent", by the names of RFC 2819, 2863 and 3635."""
        return [{"received": rmon.received(raw), "sent": rmon.sent(raw)} for raw in self.counters()]

    def _wait_for(self, register: str, field: str, value: int) -> None:
        for _ in range(1000):
            if self.fields(register)[field] == value:
                return
            self.transport.wait(1e-6)
        raise DeviceError(f"the card's {register}.{field} does not become {value}: reset the card")

    def close(self) -> None:
        """Stops the card and lets go of it. Further calls do nothing."""
        transport = self.transport
        with suppress(DeviceError):  # it is gone: nothing left to stop
            self.stop()
        self._ring = None
        transport.close()

    def __enter__(self) -> Card:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _column(values: npt.ArrayLike, dtype: str, name: str) -> Any:
    """The same as an array in one piece. ConfigError where a value would change."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise ConfigError(f"{name} has {array.ndim} dimensions: give one")
    if array.dtype.kind not in "ui" and array.size:
        raise ConfigError(f"{name} is of {array.dtype}: give integers")
    limits = np.iinfo(dtype)
    # Only where values could be outside: looking costs as much as sending.
    if array.size and not np.can_cast(array.dtype, dtype):
        low, high = int(array.min()), int(array.max())
        if low < 0 or high > limits.max:
            raise ConfigError(f"{name} has {low if low < 0 else high}: give 0 to {limits.max}")
    return np.ascontiguousarray(array, dtype=dtype)


def _what_is_bad(i: int, data_bytes: int, offset: int, length: int, whole: Any, longest: int) -> str:
    if not SHORTEST_SENT <= length <= longest:
        return f"frame {i} has {length} bytes: give {SHORTEST_SENT} to {longest}, without FCS"
    if whole is not None and whole[i] != length:
        return f"frame {i}: only {length} of its {whole[i]} bytes were captured; leave it out"
    return f"frame {i}: {length} bytes from byte {offset} on, in {data_bytes} of data"
