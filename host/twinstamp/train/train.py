# SPDX-License-Identifier: Apache-2.0
"""A packet train: what it is, when each packet leaves, whether it fits the wire (docs/trains.md)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from twinstamp.errors import ConfigError
from twinstamp.train.fixed import (
    ONE,
    Time,
    exact_seconds,
    gap_seconds,
    sum_up,
    to_q64,
)
from twinstamp.train.laws import (
    LARGEST,
    Chirp,
    Choice,
    Constant,
    Fixed,
    GapLaw,
    GapList,
    Poisson,
    SizeLaw,
    SizeList,
    Uniform,
    check_int,
)

if TYPE_CHECKING:
    import numpy.typing as npt

MOST_PACKETS = (1 << 32) - 1  # of a train: STAMP's sequence number counts no further
MOST_LISTED = 1 << 27  # of schedule(): 128 M packets, 4 GB
PREAMBLE_AND_GAP = 20  # byte times of the wire beside the frame: preamble, SFD, inter-frame gap
LARGEST_TIME_S = 1 << 32
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True)
class Vlan:
    """A VLAN tag. id: 0 to 4094. priority: 0 to 7. tpid: 0x8100 (802.1Q) or 0x88A8 (802.1ad)."""

    id: int
    priority: int = 0
    tpid: int = 0x8100

    def __post_init__(self) -> None:
        check_int(self.id, 0, 4094, "VLAN id")
        check_int(self.priority, 0, 7, "VLAN priority")
        if self.tpid not in (0x8100, 0x88A8):
            raise ConfigError(f"VLAN tpid is {self.tpid!r}: give 0x8100 or 0x88A8")


@dataclass(frozen=True)
class Schedule:
    """When each packet is to leave: seconds u64[n], fraction u64[n] (2^-64 s), exact. size: bytes with FCS,
    u16[n]. place: number of the packet in its burst, u32[n].
    """

    seconds: npt.NDArray[np.uint64]
    fraction: npt.NDArray[np.uint64]
    size: npt.NDArray[np.uint16]
    place: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.seconds)

    def q64(self, i: int) -> int:
        """Time of packet i in 2^-64 s."""
        return int(self.seconds[i]) << 64 | int(self.fraction[i])

    def q32(self) -> npt.NDArray[np.uint64]:
        """Times as card stamps, 32.32 s, rounded down, u64[n]."""
        up = np.uint64(32)
        return self.seconds << up | self.fraction >> up

    def ns(self) -> npt.NDArray[np.int64]:
        """Times in ns, rounded to nearest (ties up), i64[n]."""
        up, ns = np.uint64(32), np.uint64(10**9)
        low = (self.fraction & np.uint64(0xFFFFFFFF)) * ns >> up
        whole = ((self.fraction >> up) * ns + low + np.uint64(1 << 31)) >> up
        return (self.seconds * ns + whole).astype(np.int64)


class TrainCheck(NamedTuple):
    """What ``Train.check`` found. packets, octets: of the whole train, octets with FCS. span: from its first
    start to its last, s. load: share of the line rate on average over the span. late: packets that would
    leave more than a byte time after theirs because the wire is still busy; worst_delay: of them, s.
    """

    packets: int
    octets: int
    span: Fraction
    load: float
    late: int
    worst_delay: Fraction


@dataclass(frozen=True, kw_only=True)
class Train:
    """bursts of packets, times exact: t0 + the sum of all gaps before (no error accumulates).

    packets: in each burst. gap: the law of gaps within a burst, from start to start. burst_gap: from the
    start of a burst's last packet to the start of the next burst. repeats, period: the whole train that
    often, its starts a period apart; it is the same each time, but its sequence numbers go on. seed: of all
    that is random, 64 bits. size: law of sizes, bytes with FCS and tags: 64 (IPv6: 82) to 9018, and 4 more
    for each tag.

    source, destination: IP addresses, both IPv4 or both IPv6. source_ports: packet n leaves from port
    source_port + n mod source_ports. vlans: outermost first, two at most. session: STAMP's session
    identifier, 1 to 32767. timestamp: "ntp" (UTC) or "ptp" (TAI). mtu: largest IP packet of the path.

    Errors: ConfigError, which names the field and the value.
    """

    packets: int
    gap: GapLaw
    size: SizeLaw
    source: str
    destination: str
    source_mac: str
    destination_mac: str
    bursts: int = 1
    burst_gap: Time = Fraction(0)
    repeats: int = 1
    period: Time | None = None
    seed: int = 0
    source_port: int = 50_000
    source_ports: int = 1
    destination_port: int = 862
    vlans: tuple[Vlan, ...] = ()
    dscp: int = 0
    ecn: int = 0
    ttl: int = 255
    flow_label: int = 0
    session: int = 1
    timestamp: str = "ptp"
    mtu: int = 9000
    name: str = "train"
    ip_version: int = field(init=False, repr=False, compare=False, default=4)

    def __post_init__(self) -> None:
        for name, least, most in (
            ("packets", 1, MOST_PACKETS), ("bursts", 1, MOST_PACKETS),
            ("repeats", 1, MOST_PACKETS), ("seed", 0, (1 << 64) - 1), ("source_port", 1, 65535),
            ("source_ports", 1, 65535), ("destination_port", 1, 65535), ("dscp", 0, 63), ("ecn", 0, 3),
            ("ttl", 1, 255), ("flow_label", 0, (1 << 20) - 1), ("session", 1, 32767), ("mtu", 46, 9000),
        ):  # fmt: skip
            check_int(getattr(self, name), least, most, name)
        if not isinstance(self.name, str) or not 1 <= len(self.name) <= 64 or not self.name.isprintable():
            raise ConfigError("name: give 1 to 64 printable characters")
        if not isinstance(self.gap, Constant | GapList | Poisson | Chirp):
            raise ConfigError("gap: give Constant, GapList, Poisson or Chirp")
        if not isinstance(self.size, Fixed | SizeList | Uniform | Choice):
            raise ConfigError("size: give Fixed, SizeList, Uniform or Choice")
        if self.packets * self.bursts * self.repeats > MOST_PACKETS:
            raise ConfigError(
                f"{self.packets * self.bursts * self.repeats:,} packets: a train has at most 2^32-1, as its "
                "sequence number goes no further"
            )
        if self.source_port + self.source_ports > 65536:
            raise ConfigError(
                f"source ports {self.source_port} and {self.source_ports - 1} more: beyond 65535"
            )
        if self.timestamp not in ("ntp", "ptp"):
            raise ConfigError(f"timestamp is {self.timestamp!r}: give ntp or ptp")
        between = gap_seconds(self.burst_gap, "burst_gap")
        self._set("burst_gap", between)
        if (self.bursts > 1) != (between > 0):
            raise ConfigError("burst_gap: needed with several bursts, and meaningless with one")
        if self.period is not None:
            self._set("period", gap_seconds(self.period, "period"))
        if (self.repeats > 1) != (self.period is not None):
            raise ConfigError("period: needed with several repeats, and meaningless with one")
        self._check_addresses()
        self._check_sizes()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_addresses(self) -> None:
        for name in ("source_mac", "destination_mac"):
            value = getattr(self, name)
            if not isinstance(value, str) or not _MAC.fullmatch(value.lower()):
                raise ConfigError(f"{name} is {value!r}: write six bytes, as 02:00:00:00:00:01")
            self._set(name, value.lower())
        if int(self.source_mac[:2], 16) & 1:
            raise ConfigError(f"source_mac {self.source_mac} is a group address")
        versions = set()
        for name in ("source", "destination"):
            value = getattr(self, name)
            try:
                if not isinstance(value, str):
                    raise ValueError
                address = ipaddress.ip_address(value)
            except ValueError:
                raise ConfigError(f"{name} is {value!r}: give an IPv4 or IPv6 address") from None
            if getattr(address, "scope_id", None):
                raise ConfigError(f"{name} {value}: without a zone")
            versions.add(address.version)
            self._set(name, str(address))
        if len(versions) > 1:
            raise ConfigError(f"source {self.source} and destination {self.destination}: IPv4 and IPv6 mixed")
        self._set("ip_version", versions.pop())
        if self.flow_label and self.ip_version == 4:
            raise ConfigError("flow_label: IPv4 has none")
        if not isinstance(self.vlans, tuple | list) or not all(isinstance(v, Vlan) for v in self.vlans):
            raise ConfigError("vlans: give a tuple of Vlan")
        self._set("vlans", tuple(self.vlans))
        if len(self.vlans) > 2:
            raise ConfigError(f"vlans: {len(self.vlans)} tags, at most 2")

    def _check_sizes(self) -> None:
        least, most = self.size.limits
        tags = 4 * len(self.vlans)
        smallest = (64 if self.ip_version == 4 else 82) + tags
        if not smallest <= least <= most <= LARGEST + tags:
            raise ConfigError(
                f"sizes from {least} to {most} bytes: with IPv{self.ip_version} and {len(self.vlans)} tags "
                f"give {smallest} to {LARGEST + tags} (with FCS and tags)"
            )
        packet = most - 18 - tags
        if packet > self.mtu:
            raise ConfigError(
                f"a frame of {most} bytes carries an IP packet of {packet}: the MTU is {self.mtu}"
            )

    # When

    @property
    def total(self) -> int:
        """Packets of the whole train."""
        return self.packets * self.bursts * self.repeats

    def schedule(self, start: Time = Fraction(0)) -> Schedule:
        """When each packet is to leave, in sequence; the first at ``start``: the card's times, bit for bit.

        ConfigError for more than 2^27 packets (4 GB) and where a time is beyond 2^32 s.
        """
        if self.total > MOST_LISTED:
            raise ConfigError(f"{self.total:,} packets are too many to list: {MOST_LISTED:,} at most")
        once = self.packets * self.bursts
        number = np.arange(once, dtype=np.uint64)
        place = number % np.uint64(self.packets)
        whole, fraction = np.zeros(once, np.uint64), np.zeros(once, np.uint64)
        first = place == 0
        if isinstance(self.gap, Poisson):
            drawn = self.gap.drawn(number[:-1], self.seed)
            whole[1:], fraction[1:] = drawn
        elif self.packets > 1:
            inner = self.gap.within_burst(self.packets - 1)
            for out, values in zip((whole, fraction), inner, strict=True):
                out.reshape(self.bursts, self.packets)[:, 1:] = values
        between = to_q64(Fraction(self.burst_gap))
        whole[first], fraction[first] = between >> 64, between & (ONE - 1)
        whole[0], fraction[0] = 0, 0
        size = self.size.drawn(number, place, self.seed)
        whole, fraction = sum_up(whole, fraction)
        period = to_q64(Fraction(self.period or 0))
        origin = to_q64(exact_seconds(start, "start"))
        starts = [origin + r * period for r in range(self.repeats)]
        if starts[-1] + (int(whole[-1]) << 64) + (ONE << 1) > LARGEST_TIME_S << 64:
            raise ConfigError("the train goes on beyond 2^32 s of card time")
        parts = [_shifted(whole, fraction, q64) for q64 in starts]
        return Schedule(
            np.concatenate([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
            np.tile(size, self.repeats),
            np.tile(place.astype(np.uint32), self.repeats),
        )

    # Whether

    def check(self, rate: int = 10**9) -> TrainCheck:
        """Whether it fits a wire of ``rate`` bit/s; ConfigError with the reason where not.

        Refused: a train that is longer than its period, and packets that would leave more than a byte time
        late because the wire is still busy with those before. Chance may bring packets of a Poisson law
        too close together: those are counted (``late``), and refused is only a load over 1.
        """
        check_int(rate, 10**6, 10**12, "rate (bit/s)")
        once = self if self.repeats == 1 else replace(self, repeats=1, period=None)
        schedule = once.schedule()
        n = len(schedule)
        # From the first start, in 2^-40 s (0.9 ps), or in 2^-28 s over more than 48 days.
        bits = 40 if int(schedule.seconds[-1]) < 1 << 22 else 28
        byte = Fraction(8 << bits, rate)
        up, down = np.uint64(bits), np.uint64(64 - bits)
        time = (schedule.seconds << up | schedule.fraction >> down).astype(np.int64)
        octets_before = np.zeros(n, np.int64)
        np.cumsum(schedule.size[:-1].astype(np.int64) + PREAMBLE_AND_GAP, out=octets_before[1:])
        whole, rest = np.divmod(octets_before, byte.denominator)
        before = whole * byte.numerator + rest * byte.numerator // byte.denominator
        delay = np.maximum.accumulate(time - before) - (time - before)
        late = np.flatnonzero(delay > byte)
        last = schedule.q64(n - 1)
        octets = int(schedule.size.sum(dtype=np.int64))

        def on_wire(i: int) -> Fraction:
            return Fraction((int(schedule.size[i]) + PREAMBLE_AND_GAP) * 8, rate)

        length = Fraction(last, ONE) + on_wire(n - 1)
        load = float(Fraction((octets + PREAMBLE_AND_GAP * n) * 8, rate) / length)
        result = TrainCheck(
            self.total,
            octets * self.repeats,
            Fraction(last + (self.repeats - 1) * to_q64(Fraction(self.period or 0)), ONE),
            load if self.repeats == 1 else load * float(length / Fraction(self.period or 1)),
            len(late) * self.repeats,
            Fraction(int(delay.max()), 1 << bits),
        )
        if self.period is not None and length > Fraction(self.period):
            raise ConfigError(
                f"{self.name}: the train takes {format_short(length)}, its period is "
                f"{format_short(Fraction(self.period))}: it would run into its next start"
            )
        if len(late) and (not isinstance(self.gap, Poisson) or load > 1):
            i = int(late[0])

            def short(units: int) -> str:
                return format_short(Fraction(units, 1 << bits))

            raise ConfigError(
                f"{self.name}: packet {i} would leave {short(int(delay[i]))} late, and {len(late) - 1:,} "
                f"more: the wire is busy with those before (packet {i - 1} of "
                f"{int(schedule.size[i - 1])} bytes takes {format_short(on_wire(i - 1))}, "
                f"the gap is {short(int(time[i] - time[i - 1]))}); lengthen the gap or shorten the packets"
            )
        return result


def format_short(seconds: Fraction) -> str:
    """A time for people: four digits and a unit."""
    value = float(seconds)
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.4g} {unit}"
    return f"{value / 1e-9:.4g} ns"


def _shifted(
    whole: npt.NDArray[np.uint64], fraction: npt.NDArray[np.uint64], q64: int
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    low = fraction + np.uint64(q64 & (ONE - 1))
    return whole + np.uint64(q64 >> 64) + (low < fraction), low
