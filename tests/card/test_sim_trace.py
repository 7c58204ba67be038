# SPDX-License-Identifier: Apache-2.0
"""Waveforms, read by a reader nobody here wrote, against the simulation's truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from twinstamp.card import Card
from twinstamp.card.sim import SimulatedCard, frames
from twinstamp.errors import ConfigError, DeviceError

BUILD = Path(__file__).parents[2] / "build" / "hdl"
TRACED = BUILD / "libtwinstamp_sim_trace.so"


def test_a_library_without_waveforms_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("TWINSTAMP_SIM", str(BUILD / "libtwinstamp_sim.so"))
    with pytest.raises(ConfigError, match="built without TRACE=1"):
        SimulatedCard(trace=tmp_path / "card.fst")
    assert not (tmp_path / "card.fst").exists()
    monkeypatch.setattr("twinstamp.card.sim._BUILD", tmp_path)
    monkeypatch.delenv("TWINSTAMP_SIM")
    with pytest.raises(DeviceError, match="run `make hdl TRACE=1`"):
        SimulatedCard(trace=tmp_path / "card.fst")


@pytest.mark.long
def test_waveforms_tell_the_truth(tmp_path):
    if not TRACED.exists():
        pytest.skip("no library with waveforms: make hdl TRACE=1")
    pywellen = pytest.importorskip("pywellen")
    path = tmp_path / "card.fst"
    simulated = SimulatedCard(trace=path)
    card = Card(simulated)
    simulated.set_clock("rx0", ppb=50_000)
    card.start()
    simulated.send(0, frames([bytes([7]) * 60, bytes([9]) * 100]))
    simulated.run(1000)
    truth = simulated.truth(0)
    end = simulated.now_fs
    card.close()

    waveform = pywellen.Waveform(str(path))
    assert (waveform.timescale.factor, repr(waveform.timescale.unit)) == (1, "TimescaleUnit.fs")
    variables = {v.full_name: v for v in waveform.all_vars()}
    assert len(variables) > 1000
    (name,) = (n for n in variables if n.endswith("u_rx.u_mac.crc_q") and "gen_port[0]" in n)
    data, valid = variables["TOP.rxd_i.[0]"], variables["TOP.rx_dv_i"]
    for row in truth:
        # The SFD is on the pins from this very femtosecond on; the byte before it was preamble.
        at = int(row["sfd_fs"])
        assert data.signal.value_at(at) == 0xD5
        assert data.signal.value_at(at - 1) == 0x55
        assert int(valid.signal.value_at(at)) & 1
    crc = variables[name].signal
    assert crc.value_at(int(truth["sfd_fs"][0])) != crc.value_at(int(truth["sfd_fs"][0]) + 100 * 10**6)
    assert not int(valid.signal.value_at(end)) & 1
    with pytest.raises(ConfigError, match="folder is missing"):
        SimulatedCard(trace=tmp_path / "no" / "card.fst")
