# SPDX-License-Identifier: Apache-2.0
"""The simulated card tests itself: registers, clock, ports in a loop, stamps against the truth, overload."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp.card.card import STAMP_BOUND_NS, Card
from twinstamp.card.regmap import MAGIC, MEMORIES, REGISTERS
from twinstamp.card.sim import NO_ERROR, PORTS, WIRE_ADD_FCS, WIRE_ITEM, Frames, SimulatedCard, frames
from twinstamp.errors import DeviceError, TwinstampError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

_UNIT_NS = 1e9 / 2**32
CYCLE_NS = 8.0
BEATS = 20
OFFSETS_PPM = (1.0, -2.0, 25.0, -100.0)  # multiples of the smallest: whole beats on every port
QUICK_OFFSETS_PPM = (40.0, -80.0, 40.0, -80.0)
LARGEST_NS = STAMP_BOUND_NS  # as docs/card.md states
STD_NS = 2.4
MEAN_NS = 0.1
_TIMEOUT_S = 50e-6


class _FailedError(Exception):
    pass


def _must(fine: bool, message: str) -> None:
    if not fine:
        raise _FailedError(message)


def selftest(
    *, quick: bool = False, seed: int = 1, progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Runs all checks, each on a fresh simulated card; never raises for a check that fails.

    quick: fewer frames, and clock offsets at which 20 beats take a fortieth of the time. Returns {version,
    card, seed, quick, passed, seconds, checks: [{name, passed, error, seconds, measured, limits}]}.
    Raises DeviceError when there is no simulated card to test.
    """
    start = time.monotonic()
    SimulatedCard(seed=seed).close()  # not built: not a failure of the card
    checks = []
    for name, check in (
        ("registers", _registers),
        ("clock", _clock),
        ("frames", _frames),
        ("stamps_0ppm", _stamps_loop),
        ("stamps", _stamps),
        ("bad_frames", _bad_frames),
        ("overload", _overload),
    ):
        begun = time.monotonic()
        result: dict[str, Any] = {"name": name, "passed": True, "error": None, "seconds": 0.0}
        result["measured"], result["limits"] = {}, {}
        try:
            check(result["measured"], result["limits"], quick, seed)
        except (_FailedError, TwinstampError) as error:
            result["passed"], result["error"] = False, str(error)
        result["seconds"] = round(time.monotonic() - begun, 2)
        checks.append(result)
        if progress is not None:
            progress(result)
    return {
        "version": 1,
        "card": "sim",
        "seed": seed,
        "quick": quick,
        "passed": all(check["passed"] for check in checks),
        "seconds": round(time.monotonic() - start, 2),
        "checks": checks,
    }


Values = dict[str, Any]


def _registers(measured: Values, limits: Values, quick: bool, seed: int) -> None:
    with Card(SimulatedCard(seed=seed)) as card:
        _must(card.read("id.magic") == MAGIC, "the magic number changed")
        for pattern in (0, 0xFFFFFFFF, 0xAAAAAAAA, 0x55555555, 0x12345678, *(1 << bit for bit in range(32))):
            card.write("id.scratch", pattern)
            got = card.read("id.scratch")
            _must(got == pattern, f"scratch holds 0x{got:08X} after 0x{pattern:08X}")
        for name in REGISTERS:
            card.read(name)
        for address, size in MEMORIES.values():
            for at in range(address, address + size, 4):
                card.transport.read32(at)
        measured["registers"] = len(REGISTERS)
        measured["map"] = ".".join(map(str, card.identity.map_version))


def _clock(measured: Values, limits: Values, quick: bool, seed: int) -> None:
    simulated = SimulatedCard(seed=seed)
    with Card(simulated) as card:
        worst = 0.0
        for ppb in (0, 50_000, -50_000):
            card.set_rate_ppb(ppb)
            before = simulated.cycles, card.time_q32()
            simulated.run(250_000)
            seconds = (card.time_q32() - before[1]) / 2**32
            expected = (simulated.cycles - before[0]) / card.identity.core_clock_hz * (1 + ppb * 1e-9)
            worst = max(worst, abs(seconds - expected) * 1e9)
        measured["rate_error_ns_in_2ms"] = round(worst, 3)
        limits["rate_error_ns_in_2ms"] = 100  # what reading the registers takes
        _must(worst <= 100, f"card time is {worst:.1f} ns off after 2 ms")
        card.set_rate_ppb(0)
        last = card.time_q32()
        card.slew_ns(-500, ppm=5000)
        for _ in range(50):
            simulated.run(1000)
            now = card.time_q32()
            _must(now > last, "card time went back while slewing")
            last = now
        epoch = card.clock().epoch
        card.load_time_q32(1_700_000_000 << 32)
        _must(card.clock().epoch == epoch + 1, "a new time made no new time-epoch")
        _must(card.time_q32() >> 32 == 1_700_000_000, "the new time is not there")
        card.write_fields("clock.control", locked=1)
        try:
            card.load_time_q32(1)
        except DeviceError:
            pass
        else:
            raise _FailedError("a locked clock took a new time")


def _loop(seed: int, cable_ns: float) -> tuple[SimulatedCard, Card]:
    """A card whose ports are joined in a ring."""
    simulated = SimulatedCard(seed=seed)
    for port in range(PORTS):
        simulated.connect(port, simulated, (port + 1) % PORTS, delay_ns=cable_ns)
    return simulated, Card(simulated, timeout_s=_TIMEOUT_S)


def _frames(measured: Values, limits: Values, quick: bool, seed: int) -> None:
    rng = random.Random(seed)  # noqa: S311
    _, card = _loop(seed, 50)
    with card:
        card.start()
        n = 40 if quick else 400
        sent: list[list[bytes]] = [[] for _ in range(PORTS)]
        got: list[list[bytes]] = [[] for _ in range(PORTS)]
        largest = (60, 61, 64, 67, 1514, 9014)

        def take(timeout_s: float) -> None:
            for batch in card.receive(timeout_s):
                for i, port in enumerate(batch.port.tolist()):
                    got[port].append(batch.frame(i))

        for number in range(n):
            size = largest[number] if number < len(largest) else rng.randint(60, 400)
            for port in range(PORTS):
                frame = rng.randbytes(size)
                sent[port].append(frame)
                card.send(port, frame, stamp=True, cookie=number)
            if number % 64 == 0:
                take(0)
        take(4 * _TIMEOUT_S)
        counters = card.counters()
        for port in range(PORTS):
            receiver = (port + 1) % PORTS
            _must(
                got[receiver] == sent[port],
                f"{len(got[receiver])} of {n} frames from port{port} came to port{receiver} unchanged",
            )
            _must(
                counters[receiver]["good"] == n, f"port{receiver} counts {counters[receiver]['good']} of {n}"
            )
            _must(counters[port]["tx_frames"] == n, f"port{port} counts {counters[port]['tx_frames']} sent")
        measured["frames"] = n * PORTS


def _errors(raw: list[int], truth: npt.NDArray[np.void], constant_q32: int) -> npt.NDArray[np.float64]:
    """Stamp - truth - constant, ns."""
    whole = np.array(raw, dtype=np.uint64).astype(np.int64) - truth["sfd_q32"].astype(np.int64)
    errors: npt.NDArray[np.float64] = (whole - constant_q32 - truth["sfd_rest"] / 2**32) * _UNIT_NS
    return errors


def _stamps_loop(measured: Values, limits: Values, quick: bool, seed: int) -> None:
    """0 ppm and loopback: the phase is fixed, so only the largest error says something."""
    limits["largest_ns"] = round(LARGEST_NS, 3)
    worst = 0.0
    for cable_ns in (50, 51.7) if quick else (50, 51.1, 52.3, 53.9, 55.2, 57.4):
        simulated, card = _loop(seed, cable_ns)
        with card:
            card.start()
            for number in range(20):
                for port in range(PORTS):
                    card.send(port, bytes(60), stamp=True, cookie=number)
            raw: list[list[int]] = [[] for _ in range(PORTS)]
            for batch in card.receive(4 * _TIMEOUT_S):
                for port, stamp in zip(batch.port.tolist(), batch.stamp_q32.tolist(), strict=True):
                    raw[port].append(stamp)
            for port in range(PORTS):
                errors = _errors(raw[port], simulated.truth(port), card.constants_q32[port])
                worst = max(worst, float(np.abs(errors).max()))
    measured["largest_ns"] = round(worst, 3)
    _must(worst <= LARGEST_NS, f"a stamp is {worst:.3f} ns off")


def _stamps(measured: Values, limits: Values, quick: bool, seed: int) -> None:
    offsets = QUICK_OFFSETS_PPM if quick else OFFSETS_PPM
    duration_ns = BEATS * CYCLE_NS / (min(abs(ppm) for ppm in offsets) * 1e-6)
    n = 2000 if quick else 8000
    limits.update(largest_ns=round(LARGEST_NS, 3), std_ns=STD_NS, mean_ns=MEAN_NS, beats=BEATS)
    rng = np.random.default_rng(seed)
    simulated = SimulatedCard(seed=seed)
    for port, ppm in enumerate(offsets):
        simulated.set_clock(f"rx{port}", ppb=ppm * 1000)
    with Card(simulated) as card:
        card.start()
        # Spread evenly over the beats, but not regularly: that could keep pace with them.
        starts = ((np.arange(n) + rng.random((PORTS, n))) * (duration_ns / n)).astype(np.int64) * 1_000_000
        for port in range(PORTS):
            what = frames([bytes(60)] * n)
            what.items["not_before_fs"] = starts[port] + simulated.now_fs
            simulated.send(port, what)
        raw: list[list[int]] = [[] for _ in range(PORTS)]
        while any(len(stamps) < n for stamps in raw):
            batch = card.poll(3e-3)
            if batch is None:
                _must(all(simulated.pending(port) for port in range(PORTS)), "frames are missing")
                continue
            with batch:
                for port in range(PORTS):
                    raw[port] += batch.stamp_q32[batch.port == port].tolist()
        for port, ppm in enumerate(offsets):
            truth = simulated.truth(port)
            _must(len(truth) == len(raw[port]) == n, f"port{port}: {len(raw[port])} of {n} frames")
            _must(bool((np.diff(np.array(raw[port])) > 0).all()), f"port{port}: stamps run backwards")
            errors = _errors(raw[port], truth, card.constants_q32[port])
            mean, std, largest = float(errors.mean()), float(errors.std()), float(np.abs(errors).max())
            measured[f"port{port}"] = {
                "offset_ppm": ppm,
                "mean_ns": round(mean, 4),
                "std_ns": round(std, 4),
                "largest_ns": round(largest, 3),
            }
            _must(largest <= LARGEST_NS, f"port{port}: a stamp is {largest:.3f} ns off")
            _must(std <= STD_NS, f"port{port}: standard deviation {std:.3f} ns")
            _must(abs(mean) <= MEAN_NS, f"port{port}: mean {mean:.3f} ns")
        measured["frames"] = n * PORTS


def _bad_frames(measured: Values, limits: Values, quick: bool, seed: int) -> None:
    """Each kind of damage is counted once, in its own counter, and kept from the host."""
    simulated = SimulatedCard(seed=seed)
    kinds = (
        # content, damage to the FCS, byte with RX_ER, counter
        (bytes(60), 0, NO_ERROR, "good"),
        (bytes(60), 1, NO_ERROR, "fcs_errors"),
        (bytes(60), 0, 20, "fcs_errors"),
        (bytes(40), 0, NO_ERROR, "undersize"),
        (bytes(40), 1, NO_ERROR, "fragments"),
        (bytes(9100), 0, NO_ERROR, "oversize"),
        (bytes(9100), 1, NO_ERROR, "jabbers"),
    )
    with Card(simulated, timeout_s=_TIMEOUT_S) as card:
        card.start()
        expected: dict[str, int] = {}
        for content, damage, error_at, counter in kinds * 3:
            item = np.zeros(1, dtype=WIRE_ITEM)
            item["length"], item["gap"], item["preamble"] = len(content), 12, 7
            item["flags"], item["damage"], item["error_at"] = WIRE_ADD_FCS, damage, error_at
            expected[counter] = expected.get(counter, 0) + 1
            for port in range(PORTS):
                simulated.send(port, Frames(item, np.frombuffer(content, dtype=np.uint8)))
        received = sum(len(batch) for batch in card.receive(300e-6))
        counters = card.counters()
        for port in range(PORTS):
            got = {name: counters[port][name] for name in expected}
            _must(got == expected, f"port{port} counts {got}, expected {expected}")
        _must(received == expected["good"] * PORTS, f"{received} frames came to the host")
        measured["carriers"] = len(kinds) * 3 * PORTS


def _overload(measured: Values, limits: Values, quick: bool, seed: int) -> None:
    """A host that does not look: whole frames are dropped, and every one is counted."""
    simulated = SimulatedCard(seed=seed)
    n = 600
    with Card(simulated, block_log2=14, blocks_log2=1, timeout_s=_TIMEOUT_S) as card:
        card.start()
        for port in range(PORTS):
            simulated.send(port, frames([number.to_bytes(4, "big") * 30 for number in range(n)]))
        simulated.run_wires(10**6)
        numbers: list[list[int]] = [[] for _ in range(PORTS)]
        for batch in card.receive(500e-6):
            for i, port in enumerate(batch.port.tolist()):
                frame = batch.frame(i)
                _must(frame == frame[:4] * 30, "a frame came out damaged")
                numbers[port].append(int.from_bytes(frame[:4], "big"))
        dropped = 0
        for port, counters in enumerate(card.counters()):
            _must(counters["good"] == n, f"port{port} saw {counters['good']} of {n} frames")
            _must(
                counters["stored"] + counters["dropped"] == n and counters["stored"] == len(numbers[port]),
                f"port{port}: {counters['stored']} stored + {counters['dropped']} dropped of {n}, "
                f"{len(numbers[port])} received",
            )
            _must(numbers[port] == sorted(set(numbers[port])), f"port{port}: out of order or repeated")
            dropped += counters["dropped"]
        _must(dropped > 0, "nothing was dropped: no overload was made")
        measured.update(frames=n * PORTS, dropped=dropped)
