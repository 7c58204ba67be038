# SPDX-License-Identifier: Apache-2.0
"""The driver as a researcher meets it: opening by name, typed errors, clock, statistics, calibration."""

from __future__ import annotations

import json
import stat

import numpy as np
import pytest
from twinstamp.card import open_card
from twinstamp.card.calibration import (
    PortConstant,
    calibration_path,
    load_calibration,
    measure,
    save_calibration,
)
from twinstamp.card.card import Card
from twinstamp.card.sim import SimulatedCard, frames
from twinstamp.dedup import Deduplicator
from twinstamp.errors import CardMapError, ConfigError, DeadCardError, DeviceError, WrongCardError
from twinstamp.frames import FrameBatch
from twinstamp.io import create_capture, open_capture
from twinstamp.leap import UtcOffset

from tests.card.narrow import Board
from tests.card.test_registers import Altered

CONSTANT = PortConstant(constant_q32=131, uncertainty_ns=0.25, cable_ns=100, frames=256, measured_ns=1)


@pytest.fixture(autouse=True)
def state(tmp_path, monkeypatch):
    """Whoever runs the tests keeps their own calibration."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.mark.parametrize(
    ("address", "value", "kind"),
    [
        (0, 0xDEADBEEF, WrongCardError),
        (4, 2 << 16, CardMapError),
        (4, 0, CardMapError),
        (0, 0xFFFFFFFF, DeadCardError),
    ],
)
def test_each_wrong_card_has_its_error(address, value, kind):
    with pytest.raises(kind) as caught:
        Card(Altered({address: value}))
    assert isinstance(caught.value, DeviceError)


def test_card_that_dies_while_receiving():
    transport = Altered({})
    with Card(transport) as card:
        card.start()
        transport._changes.update({0: 0xFFFFFFFF, 0x218: 0xFFFFFFFF})
        with pytest.raises(DeadCardError, match="stopped answering"):
            card.poll(1e-4)
        transport._changes.clear()


def test_library_that_is_not_built(monkeypatch, tmp_path):
    monkeypatch.setenv("TWINSTAMP_SIM", str(tmp_path / "nowhere.so"))
    with pytest.raises(DeviceError, match="run `make hdl`"):
        open_card()
    monkeypatch.delenv("TWINSTAMP_SIM")
    monkeypatch.setattr("twinstamp.card.sim._BUILD", tmp_path)
    monkeypatch.setattr("twinstamp.card.sim._PACKAGED", tmp_path / "none.so")
    with pytest.raises(DeviceError, match=r"run `make hdl` in /"):
        open_card()
    monkeypatch.setattr("twinstamp.card.sim._SOURCES", tmp_path)  # as in a plain virtual environment
    with pytest.raises(DeviceError, match=r"in a clone .* TWINSTAMP_SIM .* `make wheel`"):
        open_card()
    (tmp_path / "none.so").write_text("no library")
    with pytest.raises(DeviceError, match=r"none\.so cannot be loaded: .*build it for this machine"):
        open_card()


def test_unknown_card():
    with pytest.raises(ConfigError, match="known are sim"):
        open_card("eth0")


def test_batches_are_frame_batches_all_the_way(tmp_path):
    """Over the ring's own memory; a window judges them, a writer writes them."""
    with open_card("card:sim", utc=True) as card:
        simulated = card.transport
        assert isinstance(simulated, SimulatedCard)
        card.load_time_q32((1_800_000_037 << 32) + (1 << 31))
        card.set_utc_offset(UtcOffset(37, True))
        card.write("clock.bound", 250)
        card.start()
        simulated.send(3, frames([bytes([n]) * 60 for n in (1, 2, 1, 3)]))
        window = Deduplicator(window=10)
        keep: list[int] = []
        path = tmp_path / "out.pcapng"
        with create_capture(path) as writer:
            for batch in card.receive(2e-3):
                assert isinstance(batch, FrameBatch)
                assert batch.clock[:5] == ("utc", "card", False, 250 + 5, 1)  # its own, and of stamps
                assert np.shares_memory(batch.data, card._memory)
                assert {batch.ports[i].name for i in batch.port} == {"port3"}
                keep += window.judge(batch).keep
                writer.write(batch)
        assert keep == [1, 1, 0, 1]
        with open_capture(path) as reader:
            (read,) = list(reader)
            assert [read.frame(i)[0] for i in range(4)] == [1, 2, 1, 3]
            assert (read.timestamp_ns // 10**6 == 1_800_000_000_500).all()


def test_clock_and_statistics():
    with open_card() as card:
        simulated = card.transport
        card.set_rate_ppb(-12_345)
        clock = card.clock()
        assert clock.rate_ppb == pytest.approx(-12_345, abs=0.01)
        assert (clock.slewing, clock.locked, clock.bound_ns, clock.utc_offset_s, clock.epoch) == (
            False, False, -1, 37, 0,
        )  # fmt: skip
        card.slew_ns(-300, ppm=10)
        clock = card.clock()
        assert clock.slewing and -300 <= clock.slew_left_ns < -290
        card.start(ports=[1])
        simulated.send(1, frames([bytes(60)] * 5))
        simulated.run_wires(100_000)
        simulated.run(200)
        card.flush()
        received = sum(len(batch) for batch in card.receive(1e-4))
        statistics = card.statistics()
        assert received == statistics.frames == statistics.ports[1]["good"] == 5
        assert statistics.dropped == 0
        assert 0 < statistics.at_q32 < card.time_q32()


def test_calibration_is_kept_and_used():
    path = save_calibration("sim", {2: CONSTANT})
    assert path == calibration_path("sim")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    save_calibration("sim", {0: CONSTANT})
    assert load_calibration("sim") == {0: CONSTANT, 2: CONSTANT}
    with open_card() as card:
        exported = card.read("port[1].rx_constant")
        assert card.constants_q32 == (131, exported, 131, exported)
    with open_card(calibrated=False) as card:
        assert set(card.constants_q32) == {exported}
        with pytest.raises(ConfigError, match="3 constants"):
            card.use_constants([1, 2, 3])


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 2, "ports": {}}', '{"version": 1, "ports": {"0": {"constant_q32": -1}}}',
     json.dumps({"version": 1, "ports": {"0": {**CONSTANT.__dict__, "constant_q32": 1 << 40}}})],
)  # fmt: skip
def test_damaged_calibration_is_named(text):
    path = calibration_path("sim")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"card-sim\.json"):
        open_card()


@pytest.mark.parametrize("cable_ns", [50, 123.4])
def test_calibration_finds_the_exported_constant(cable_ns):
    with open_card() as card:
        found = measure(card, 0, 3, cable_ns=cable_ns, frames=64)
        assert abs(found.constant_q32 - card.read("port[3].rx_constant")) * 1e9 / 2**32 < 0.5
        assert found.frames == 64


@pytest.mark.parametrize("latency_ns", [0, 213])
@pytest.mark.parametrize("timeout_s", [20e-6, 1e-3])  # as `twinstamp card calibrate` has it, and the default
def test_calibration_of_a_board(latency_ns, timeout_s):
    """Through the transport alone, over a real cable between two ports; a PHY's latency is found too.

    One link-up has one phase, so half a card cycle may hide: no better than what is reported.
    """
    found = []
    for number in range(6):
        simulated = SimulatedCard(seed=number + 1)
        cable_ns = 40 + 1.3 * number  # another phase each time
        simulated.connect(2, simulated, 1, delay_ns=cable_ns)
        simulated.set_phy(1, (latency_ns, latency_ns))
        simulated.plug(1)
        simulated.run(4000)
        with Card(Board(simulated), timeout_s=timeout_s) as card:
            exported = card.read("port[1].rx_constant")
            constant = measure(card, 2, 1, cable_ns=cable_ns, frames=100)
        assert constant.frames == 100 and constant.uncertainty_ns >= 4.0
        found.append((constant.constant_q32 - exported) * 1e9 / 2**32 - latency_ns)
    assert max(map(abs, found)) <= 4.0 + 0.05 + 0.24
    assert max(found) - min(found) > 3  # the phase is in it: no constant that was copied


@pytest.mark.parametrize(
    ("plugged", "message"), [(True, "is the cable between"), (False, "port1 has no link")]
)
def test_calibration_of_a_board_without_a_cable(plugged, message):
    simulated = SimulatedCard()
    simulated.plug(1, plugged)
    with Card(Board(simulated)) as card, pytest.raises(DeviceError, match=message):
        measure(card, 2, 1, cable_ns=40, frames=16)


def test_calibration_refuses_nonsense():
    with open_card() as card:
        for arguments, message in (
            ((0, 0, 50, 64), "two different"),
            ((0, 7, 50, 64), "two different"),
            ((0, 1, 1, 64), "cable"),
            ((0, 1, 50, 1), "frames"),
        ):
            with pytest.raises(ConfigError, match=message):
                measure(card, *arguments[:2], cable_ns=arguments[2], frames=arguments[3])
