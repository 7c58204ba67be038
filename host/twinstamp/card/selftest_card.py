# SPDX-License-Identifier: Apache-2.0
"""Checks that need nothing but a card: its registers, its ring, and what its ports send looped back inside.

They go through the transport alone, so they are a board's checks as well as the simulated card's.
"""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp.card.regmap import MAGIC, MEMORIES, REGISTERS
from twinstamp.card.selftest_figures import BLOCK_TIMEOUT_S
from twinstamp.errors import DeviceError
from twinstamp.frames import LINKTYPE_ETHERNET, FrameBatch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    from twinstamp.card.card import Card
    from twinstamp.card.selftest_figures import Figures, Settings

UNIT_NS = 1e9 / 2**32
CYCLE_NS = 8.0
_READY_S = 30e-6  # after which frames looped back have come through


def registers(figures: Figures, settings: Settings) -> None:
    """Identification, every bit of the data path, every address answers."""
    with settings.open() as card:
        figures.equal("magic", f"0x{card.read('id.magic'):08X}", f"0x{MAGIC:08X}")
        figures.note("map", ".".join(map(str, card.identity.map_version)))
        figures.note("build", f"0x{card.identity.build_id:08X}")
        patterns = (0, 0xFFFFFFFF, 0xAAAAAAAA, 0x55555555, 0x12345678, *(1 << bit for bit in range(32)))
        wrong = 0
        for pattern in patterns:
            card.write("id.scratch", pattern)
            wrong += card.read("id.scratch") != pattern
        figures.equal("scratch_wrong", wrong, 0)
        wrong = 0
        for pattern in (0x0123456789ABCDEF, (1 << 64) - 1, 0):
            card.write("clock.load_time", pattern)
            wrong += card.read("clock.load_time") != pattern
        figures.equal("64_bit_wrong", wrong, 0)
        for name in REGISTERS:
            card.read(name)
        for address, size in MEMORIES.values():
            for at in range(address, address + size, 4):
                card.transport.read32(at)
        figures.note("registers", len(REGISTERS))


def _wait(card: Card, seconds: float) -> float:
    """Returns how long it was, as the transport says."""
    waited = 0.0
    while waited < seconds:
        waited += card.transport.wait(seconds - waited)
    return waited


def _steps(card: Card) -> tuple[float, int]:
    """Card time over 200 us of readings, ns; how many were not after the one before."""
    first = last = card.time_q32()
    back = 0
    for _ in range(50):
        _wait(card, 4e-6)
        now = card.time_q32()
        back += now <= last
        last = now
    return (last - first) * UNIT_NS, back


def clock(figures: Figures, settings: Settings) -> None:
    """Rate, slew, a new time; against waiting, which with a board is as good as the host's clock."""
    with settings.open() as card:
        simulated = "simulated" in card.identity.features
        span_s, rates, limit_ns = (2e-3, (0, 50_000, -50_000), 100) if simulated else (
            0.2, (0, 20_000_000, -20_000_000), 400_000
        )  # fmt: skip
        worst = 0.0
        for ppb in rates:
            card.set_rate_ppb(ppb)
            # A reading takes time, too: as much as from one to the next.
            first, before = card.time_q32(), card.time_q32()
            waited = _wait(card, span_s)
            passed = card.time_q32() - before - (before - first)
            worst = max(worst, abs(passed / 2**32 - waited * (1 + ppb * 1e-9)) * 1e9)
        figures.at_most("rate_error_ns", round(worst, 1), limit_ns)
        figures.note("rate_measured_for_s", span_s)
        card.set_rate_ppb(0)
        plain_ns, _ = _steps(card)
        card.slew_ns(-500, ppm=5000)
        slewed_ns, back = _steps(card)
        figures.equal("backwards_while_slewing", back, 0)
        state = card.clock()
        figures.equal("slew_left_ns", state.slew_left_ns, 0)
        if simulated:  # the same readings take the same time
            figures.at_most("slew_error_ns", round(abs(slewed_ns - plain_ns + 500), 2), 2 * CYCLE_NS)
        card.load_time_q32(1_700_000_000 << 32)
        figures.equal("epochs_by_a_new_time", card.clock().epoch - state.epoch, 1)
        behind = (card.time_q32() - (1_700_000_000 << 32)) / 2**32
        figures.at_least("new_time_behind_s", round(behind, 6), 0)
        figures.at_most("new_time_ahead_s", round(behind, 6), 0.5)
        card.write_fields("clock.control", locked=1)
        try:
            card.load_time_q32(1)
        except DeviceError:
            refused = True
        else:
            refused = False
        card.write_fields("clock.control", locked=0)
        figures.equal("new_time_refused_when_locked", refused, True)


def phy(figures: Figures, settings: Settings) -> None:
    """MDIO: each port's PHY answers, keeps what is written, and says of the link what the card says."""
    with settings.open() as card:
        if "phy" not in card.identity.features:
            figures.note("skipped", "this build has no PHY management")
            return
        ports = range(card.identity.ports)
        names = [f"port[{port}].phy.poll" for port in ports]
        before = [card.read(name) for name in names]
        for name in names:
            card.write(name, card.identity.core_clock_hz // 5000)  # 0.2 ms: a look takes 0.16
        _wait(card, 1e-3)
        agree = 0
        for port in ports:
            identity = card.mdio_read(port, 2) << 16 | card.mdio_read(port, 3)
            figures.note(f"port{port}_phy", f"0x{identity:08X}")
            figures.equal(f"port{port}_answers", identity not in (0, 0xFFFFFFFF), True)
            offered = card.mdio_read(port, 4)
            wrong = 0
            for value in (0x0DE1, 0x01E1):  # what may be offered: a PHY need not keep anything else
                card.mdio_write(port, 4, value)
                wrong += card.mdio_read(port, 4) != value
            card.mdio_write(port, 4, offered)
            figures.equal(f"port{port}_writes_wrong", wrong, 0)
            card.mdio_read(port, 1)  # its link bit is latched: the second look says how it is
            agree += bool(card.mdio_read(port, 1) & 4) == card.links()[port].up
        figures.equal("links_as_the_phys_say", agree, len(ports))
        figures.note("links_up", sum(link.up for link in card.links()))
        for name, value in zip(names, before, strict=True):
            card.write(name, value)


# Everything below is sent by the ports and looped back before the pins.


class _Looped:
    """What came back on each port: FrameBatch columns of all batches, copied."""

    def __init__(self, card: Card) -> None:
        self.card = card
        self.frames: list[list[bytes]] = [[] for _ in card.ports]
        self.columns: dict[str, list[list[int]]] = {
            name: [[] for _ in card.ports] for name in ("stamp_q32", "sequence", "digest", "flow_hash")
        }
        self._departures: list[npt.NDArray[np.void]] = []
        for port in range(len(card.ports)):
            card.set_loopback(port, "near")
        card.start(longest=9018)
        _wait(card, 2e-6)

    def take(self, timeout_s: float) -> None:
        """All that comes until it has been quiet for ``timeout_s``."""
        for batch in self.card.receive(timeout_s):
            for i, port in enumerate(batch.port.tolist()):
                self.frames[port].append(batch.frame(i))
            for name, ports in self.columns.items():
                values = getattr(batch, name)
                for port, column in enumerate(ports):
                    column += values[batch.port == port].tolist()
        self._departures.append(self.card.departures())

    def send(self, port: int, contents: Sequence[bytes], **options: Any) -> None:
        """All of them, taking what comes back meanwhile."""
        batch, first = FrameBatch.from_frames(contents), 0
        tries = 0
        while first < len(contents):
            taken = self.card.send_batch(port, batch, first=first, timeout_s=200e-6, **options)
            tries = 0 if taken > first else tries + 1
            if tries > 100:
                raise DeviceError(f"port{port} sends no frames: {first} of {len(contents)} were taken")
            first = taken
            self.take(0)

    def finish(self) -> None:
        """Takes the rest and leaves the ports as they were."""
        self.take(_READY_S + 4 * BLOCK_TIMEOUT_S)
        for port in range(len(self.card.ports)):
            self.card.set_loopback(port, "off")

    def departures(self) -> npt.NDArray[np.void]:
        return np.concatenate(self._departures)


def _looped(card: Card, figures: Figures) -> _Looped | None:
    if "loopback" not in card.identity.features:
        figures.note("skipped", "this build has no loopback")
        return None
    return _Looped(card)


def loopback(figures: Figures, settings: Settings) -> None:
    """Frames of 60 to 9014 bytes out and back on all ports at once: whole, in order, counted, stamped."""
    rng = random.Random(settings.seed)  # noqa: S311
    n = 40 if settings.quick else 300
    with settings.open(timeout_s=BLOCK_TIMEOUT_S) as card:
        looped = _looped(card, figures)
        if looped is None:
            return
        ports = range(card.identity.ports)
        sizes = [60, 61, 64, 67, 1514, 9014, *(rng.randint(60, 400) for _ in range(n - 6))]
        sent = [[rng.randbytes(size) for size in sizes] for _ in ports]
        for port in ports:
            looped.send(port, sent[port], stamp=True)
        looped.finish()
        counters, departures = card.counters(), looped.departures()
        octets = sum(sizes) + 4 * n
        figures.note("frames", n * len(ports))
        for port in ports:
            got, columns = looped.frames[port], looped.columns
            same = sum(a == b for a, b in zip(got, sent[port], strict=False))
            figures.equal(f"port{port}_unchanged_in_order", same, n)
            figures.equal(f"port{port}_received", len(got), n)
            figures.equal(f"port{port}_numbered_in_order", columns["sequence"][port] == list(range(n)), True)
            rising = (np.diff(np.array(columns["stamp_q32"][port], dtype=np.int64)) > 0).all()
            figures.equal(f"port{port}_stamps_rise", bool(rising), True)
            own = departures[departures["port"] == port]
            figures.equal(f"port{port}_departures_in_order", own["cookie"].tolist() == list(range(n)), True)
            for name, wanted in (
                ("good", n), ("stored", n), ("octets_good", octets), ("tx_frames", n), ("tx_octets", octets),
                ("fcs_errors", 0), ("dropped", 0),
            ):  # fmt: skip
                figures.equal(f"port{port}_{name}", counters[port][name], wanted)


def _ipv4(rng: random.Random, protocol: int, payload: bytes) -> bytes:
    options = bytes([1] * 4 * rng.choice((0, 0, 1, 5)))
    head = struct.pack(
        ">BBHHHBBH8s", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), rng.getrandbits(16),
        0x4000, 64, protocol, 0, rng.randbytes(8),
    )  # fmt: skip
    return head + options + payload


def _ipv6(rng: random.Random, protocol: int, payload: bytes) -> bytes:
    if rng.random() < 0.3:  # hop-by-hop options, padded
        payload = struct.pack(">BB6s", protocol, 0, bytes([1, 4, 0, 0, 0, 0])) + payload
        protocol = 0
    head = struct.pack(">IHBB32s", 6 << 28, len(payload), protocol, 64, rng.randbytes(32))
    return head + payload


def packets(rng: random.Random, n: int) -> list[bytes]:
    """n frames of at least 60 bytes: TCP, UDP, SCTP, GRE over IPv4 and IPv6, tagged or not, or no IP."""
    out = []
    for _ in range(n):
        ethertype, body = 0x88B5, rng.randbytes(rng.randint(46, 1100))
        if rng.random() < 0.9:
            payload = rng.randbytes(4) + rng.randbytes(rng.randint(16, 1400))  # ports first
            protocol = rng.choice((6, 17, 132, 47))
            ethertype, network = rng.choice(((0x0800, _ipv4), (0x86DD, _ipv6)))
            body = network(rng, protocol, payload)
        tags = b"".join(
            struct.pack(">HH", kind, rng.randint(1, 4094))
            for kind in (0x88A8, 0x8100)[2 - rng.choice((0, 0, 1, 2)) :]
        )
        frame = rng.randbytes(12) + tags + ethertype.to_bytes(2, "big") + body
        out.append(frame + bytes(max(0, 60 - len(frame))))
    return out


def hashes(figures: Figures, settings: Settings) -> None:
    """Flow hash and digest in the records, under fresh keys, equal the kernels', bit for bit."""
    from twinstamp_kernels import hashkey
    from twinstamp_kernels.keys import frame_keys
    from twinstamp_kernels.rules import FLOW_KEY_BYTES, Classifier

    rng = random.Random(settings.seed)  # noqa: S311
    n = 50 if settings.quick else 250
    with settings.open(timeout_s=BLOCK_TIMEOUT_S) as card:
        seed, flow_key = rng.randbytes(hashkey.SEED_BYTES), rng.randbytes(FLOW_KEY_BYTES)
        has_digest, has_flow = ("digest" in card.identity.features, "flow_hash" in card.identity.features)
        if has_digest:
            card.load_digest_key(hashkey.expand(seed))
        if has_flow:
            card.load_flow_key(flow_key)
        looped = _looped(card, figures)
        if looped is None:
            return
        ports = range(card.identity.ports)
        sent = [packets(rng, n) for _ in ports]
        for port in ports:
            looped.send(port, sent[port])
        looped.finish()
        frames = FrameBatch.from_frames([frame for each in sent for frame in each])
        types = np.array([LINKTYPE_ETHERNET], np.uint16)
        digests = frame_keys(
            hashkey.hash_key(seed), frames.data, frames.offset, frames.caplen, frames.port, types
        )[0][:, 0]
        classifier = Classifier(
            rules=b"", memory_limit=1 << 24, flow_key=flow_key, inner=False, by_ip=False, follow_icmp=False,
            workers=1, cache_entries=0, fragment_entries=16, hold_bytes=0, hold_ns=0, lifetime_ns=10**9,
        )  # fmt: skip
        flows = np.asarray(
            classifier.process(
                frames.data, frames.offset, frames.caplen, frames.length, frames.timestamp_ns, frames.port,
                frames.flags, types, None, 0,
            )[1]
        )  # fmt: skip
        figures.equal("frames", sum(map(len, looped.frames)), n * len(ports))
        for name, has, wanted in (
            ("digest", has_digest, digests), ("flow_hash", has_flow, flows >> np.uint64(32)),
        ):  # fmt: skip
            if not has:
                figures.note(f"{name}_skipped", f"this build has no {name}")
                continue
            got = np.array([value for each in looped.columns[name] for value in each], dtype=np.uint64)
            wrong = int((got != wanted).sum()) if len(got) == len(wanted) else len(wanted)
            figures.equal(f"{name}_wrong", wrong, 0)
            figures.at_least(f"{name}_different_values", len(set(got.tolist())), n)


def counters(figures: Figures, settings: Settings) -> None:
    """Each kind of good frame in its own counter, on the port that got it and on no other."""
    sizes = {"size_64": 60, "size_127": 123, "size_255": 124, "size_511": 507, "size_1023": 1019,
             "size_1518": 1514, "size_larger": 2000}  # fmt: skip
    kinds = {"broadcast": b"\xff" * 6, "multicast": b"\x01\x00\x5e\x00\x00\x01"}
    body = bytes(6) + b"\x88\xb5" + bytes(46)
    with settings.open(timeout_s=BLOCK_TIMEOUT_S) as card:
        looped = _looped(card, figures)
        if looped is None:
            return
        ports = range(card.identity.ports)
        for port in ports:
            contents = [b"\x02" + bytes(size - 1) for size in sizes.values() for _ in range(port + 1)]
            contents += [kind + body for kind in kinds.values() for _ in range(2 * port + 1)]
            contents += [b"\x02" + bytes(11) + b"\x81\x00\x00\x05" + body] * 3
            looped.send(port, contents)
        looped.finish()
        for port, counted in enumerate(card.counters()):
            wanted = dict.fromkeys(sizes, port + 1) | dict.fromkeys(kinds, 2 * port + 1) | {"tagged": 3}
            wanted["size_64"] += 2 * (2 * port + 1)
            wanted["size_127"] += 3
            wanted["good"] = 7 * (port + 1) + 2 * (2 * port + 1) + 3
            for name, value in wanted.items():
                figures.equal(f"port{port}_{name}", counted[name], value)


def launch(figures: Figures, settings: Settings) -> None:
    """Frames leave at the first cycle not before their launch time; one that cannot is told late."""
    n = 20 if settings.quick else 100
    with settings.open(timeout_s=BLOCK_TIMEOUT_S) as card:
        if "transmit" not in card.identity.features:
            figures.note("skipped", "this build does not send")
            return
        looped = _looped(card, figures)
        if looped is None:
            return
        ports = range(card.identity.ports)
        start = card.time_q32() + round(0.3e-3 * n / 100 * 2**32)
        if "simulated" not in card.identity.features:
            start = card.time_q32() + (1 << 31)  # a host may be kept from handing them over for a while
        times = start + (np.arange(n) * (1234.5 / UNIT_NS)).astype(np.uint64)
        launches = np.append(times, np.uint64(1))  # long past: at once, behind the others
        for port in ports:
            card.send_batch(
                port, FrameBatch.from_frames([bytes(60)] * (n + 1)), launch_q32=launches, stamp=True
            )
        _wait(card, (int(times[-1]) - card.time_q32()) / 2**32 + 1e-5)
        looped.finish()
        departures = looped.departures()
        figures.equal("departures", len(departures), (n + 1) * len(ports))
        timed = departures[departures["cookie"] < n]
        error = (timed["stamp_q32"].astype(np.int64) - launches[timed["cookie"]].astype(np.int64)) * UNIT_NS
        figures.at_least("earliest_ns", round(float(error.min(initial=np.inf)), 3), -UNIT_NS)
        figures.at_most("latest_ns", round(float(error.max(initial=-np.inf)), 3), CYCLE_NS + UNIT_NS)
        figures.equal("late", int(timed["late"].sum()), 0)
        figures.equal("missed_and_told", int(departures["late"].sum()), len(ports))


def overload(figures: Figures, settings: Settings) -> None:
    """A host that does not look at a ring of two blocks: whole frames are dropped, each is counted."""
    n = 600
    with settings.open(block_log2=14, blocks_log2=1, timeout_s=BLOCK_TIMEOUT_S) as card:
        looped = _looped(card, figures)
        if looped is None:
            return
        ports = range(card.identity.ports)
        batch = FrameBatch.from_frames([number.to_bytes(4, "big") * 30 for number in range(n)])
        for port in ports:
            taken = card.send_batch(port, batch, timeout_s=0.05)
            figures.equal(f"port{port}_taken", taken, n)
        _wait(card, 1.2e-3)  # a transmit ring full takes half of it
        looped.finish()
        dropped = 0
        for port, counted in enumerate(card.counters()):
            numbers = [int.from_bytes(frame[:4], "big") for frame in looped.frames[port]]
            cut = sum(frame != frame[:4] * 30 for frame in looped.frames[port])
            figures.equal(f"port{port}_damaged", cut, 0)
            figures.equal(f"port{port}_in_order", numbers == sorted(set(numbers)), True)
            figures.equal(f"port{port}_sent", counted["tx_frames"], n)
            figures.equal(f"port{port}_good", counted["good"], n)
            figures.equal(f"port{port}_received_and_dropped", len(numbers) + counted["dropped"], n)
            dropped += counted["dropped"]
        figures.at_least("dropped", dropped, 1)


CHECKS: tuple[Callable[[Figures, Settings], None], ...] = (
    registers, clock, phy, loopback, hashes, counters, launch, overload,
)  # fmt: skip
