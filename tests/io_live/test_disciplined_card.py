# SPDX-License-Identifier: Apache-2.0
"""The linux card by a published clock. There is no NIC here: the PHC is a clock of the test's, frames of a
veth get stamps by it, and the record comes from the real publisher."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from typing import Any

import numpy as np
import pytest
from scapy.all import Ether, Raw
from twinstamp.card.linux import LinuxCard
from twinstamp.card.nic import PhcOffset
from twinstamp.frames import FLAG_KERNEL_STAMP
from twinstamp.phc.follow import PublishedClock
from twinstamp.phc.record import ClockRecord, Publisher

from tests.io_live.conftest import Net

PHC_AHEAD_NS = 37_000_000_000 + 1_234_567  # the PHC is TAI, this machine's clock 1.2 ms behind
LOCKED, HOLDOVER = 2, 3


class _Phc:
    """CLOCK_MONOTONIC_RAW with another beginning; CLOCK_REALTIME is compared with it as in nic.Phc."""

    def __init__(self) -> None:
        real, raw = time.time_ns(), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        self.moved_ns = real - raw + PHC_AHEAD_NS

    def time_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW) + self.moved_ns

    def offset(self) -> PhcOffset:
        return PhcOffset(time.time_ns() - self.time_ns(), 700)


class _Stamped:
    """A merge whose frames have stamps of the PHC, but for those with a kernel's stamp."""

    def __init__(self, merge: Any, phc: _Phc) -> None:
        self._merge, self._phc, self.kernels = merge, phc, 0

    def poll(self, timeout_s: float) -> Any:
        came = self._merge.poll(timeout_s)
        if came is None:
            return None
        with came:
            self.real_ns = came.timestamp_ns.copy()
            batch = _Batch(came.timestamp_ns.copy(), np.zeros(len(came), np.uint8))
        batch.flags[: self.kernels] = FLAG_KERNEL_STAMP
        batch.timestamp_ns[batch.flags == 0] += self._phc.time_ns() - time.time_ns()
        return batch


class _Batch(contextlib.nullcontext[None]):
    """What the card touches of a batch."""

    clock: Any

    def __init__(self, timestamp_ns: Any, flags: Any) -> None:
        super().__init__()
        self.timestamp_ns, self.flags = timestamp_ns, flags


class _Bench:
    def __init__(self, card: LinuxCard, sender: LinuxCard) -> None:
        self.card, self._sender, self.phc = card, sender, _Phc()
        self.publisher = Publisher(7)
        card.hardware = True
        card._phc = self.phc  # type: ignore[assignment]
        card._published = PublishedClock(7, self.phc)
        card.start()
        self.merge = _Stamped(card._merge, self.phc)
        card._merge = self.merge  # type: ignore[assignment]

    def publish(self, **others: int) -> None:
        boot = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        values = dict.fromkeys((field.name for field in dataclasses.fields(ClockRecord)), 0)
        values |= {
            "phc": 7, "pid": 99, "state": LOCKED, "bound_ns": 44, "epoch": 3, "tai_ns": self.phc.time_ns(),
            "raw_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW), "boot_ns": boot,
            "valid_until_ns": boot + 1_600_000_000, "utc_offset_s": 37, "utc_source": 1, "grid_ns": 8,
        }  # fmt: skip
        self.publisher.write(ClockRecord(**(values | others)))

    def batch(self) -> tuple[Any, int]:
        """A batch's clock, and how far its stamps are from the kernel's, ns (the largest)."""
        self._sender.send(0, bytes(Ether(dst="02:00:00:00:00:02", type=0x1234) / Raw(bytes(60))))
        for batch in self.card.receive(1.0):
            with batch:
                return batch.clock, int(np.abs(batch.timestamp_ns - self.merge.real_ns).max())
        raise AssertionError("no frame came")


@pytest.fixture
def bench(net: Net, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TWINSTAMP_CLOCKS", str(tmp_path))
    with LinuxCard(["va"], hardware=False) as sender, LinuxCard(["vb"], hardware=False) as card:
        yield _Bench(card, sender)


def test_the_published_clock_is_the_batches(bench: _Bench) -> None:
    bench.publish()
    clock, off_ns = bench.batch()
    assert (clock.source, clock.state, clock.locked, clock.bound_ns) == ("nic", "locked", True, 44 + 8)
    assert (clock.utc_offset_s, clock.utc_known) == (37, True)
    # By the PHC, not by this machine's clock, which is 1.2 ms behind it.
    assert abs(off_ns - 1_234_567) < 300_000
    # Holdover, with its bound; and back: stamps of before the new record had the old one's.
    bench.publish(state=HOLDOVER, bound_ns=900)
    holdover, _ = bench.batch()
    assert (holdover.state, holdover.locked, holdover.bound_ns) == ("holdover", False, 908)
    bench.publish()
    assert bench.batch()[0].bound_ns == 908
    assert bench.batch()[0].bound_ns == 52
    assert bench.card.disciplined


def test_a_record_that_has_run_out_is_not_used(bench: _Bench) -> None:
    bench.publish(valid_until_ns=time.clock_gettime_ns(time.CLOCK_BOOTTIME) + 200_000_000)
    assert bench.batch()[0].state == "locked"
    time.sleep(0.3)
    clock, off_ns = bench.batch()
    # As without it: the kernel's clock, and no bound, since nobody said what a stamp may be wrong by.
    assert (clock.source, clock.state, clock.bound_ns) == ("nic", "", -1)
    assert off_ns < 300_000
    assert not bench.card.disciplined


def test_a_change_of_clocks_is_an_epoch_and_has_no_bound_across_it(bench: _Bench) -> None:
    clock, _ = bench.batch()
    first = clock.epoch
    bench.publish()
    assert bench.batch()[0].bound_ns == 52
    bench.publish(epoch=4)
    across, _ = bench.batch()
    assert across.bound_ns == -1
    assert across.epoch == first + 2
    assert bench.batch()[0].bound_ns == 52


def test_a_phc_that_was_stepped_after_its_record(bench: _Bench) -> None:
    bench.publish()
    bench.phc.moved_ns += 1_000_000
    assert bench.batch()[0].state == ""


def test_frames_with_the_kernels_stamps_have_the_worse_bound(bench: _Bench) -> None:
    bench.publish()
    bench.merge.kernels = 1
    assert bench.batch()[0].bound_ns == -1


def test_an_unknown_utc_offset_has_no_bound(bench: _Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    from twinstamp.leap import UtcOffset

    monkeypatch.setattr(bench.card, "utc_offset", lambda kernel=None: UtcOffset(37, False))
    bench.publish(utc_source=0)
    assert bench.batch()[0].bound_ns == -1
