# SPDX-License-Identifier: Apache-2.0
"""Experiments: what their files may say, and two simulated cards that run one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from twinstamp.cli import main
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.owd import report_captures
from twinstamp.owd.experiment import load_experiment, run

from tests.conftest import ROOT

TRAIN = """
packets = 40
gap = {{ law = "constant", gap = "5us" }}
size = {{ law = "constant", bytes = {size} }}
source = "{source}"
destination = "{destination}"
source_mac = "02:00:00:00:00:01"
destination_mac = "02:00:00:00:00:02"
session = {session}
"""
GOOD = """
title = "Two rooms"
duration = "1ms"
drain = "60us"
[sites.madrid]
address = "10.0.0.1"
clock = { ppb = 3000, bound = "12ns" }
[sites.budapest]
address = "10.0.0.2"
clock = { ppb = -2000, bound = "12ns" }
[[paths]]
from = "madrid"
to = "budapest"
delay = "30us"
loss = 0.2
seed = 6
[[paths]]
from = "budapest"
to = "madrid"
delay = "20us"
[[trains]]
from = "madrid"
to = "budapest"
file = "there.toml"
[[trains]]
from = "budapest"
to = "madrid"
file = "back.toml"
"""


def write(folder, text: str = GOOD, **change) -> str:
    values = {"size": 90, "session": 1, "source": "10.0.0.1", "destination": "10.0.0.2"} | change
    (folder / "there.toml").write_text(TRAIN.format(**values))
    back = {"size": 64, "session": 2, "source": "10.0.0.2", "destination": "10.0.0.1"}
    (folder / "back.toml").write_text(TRAIN.format(**back))
    (folder / "experiment.toml").write_text(text)
    return str(folder / "experiment.toml")


def test_read(tmp_path):
    found = load_experiment(write(tmp_path))
    assert (found.title, found.duration_ns, found.drain_ns) == ("Two rooms", 10**6, 60_000)
    assert [site.name for site in found.sites] == ["madrid", "budapest"]
    assert found.sites[0].clock.ppb == 3000 and found.sites[1].clock.bound_ns == 12
    assert found.path("madrid", "budapest").loss == 0.2
    assert [flight.train.session for flight in found.flights] == [1, 2]


@pytest.mark.parametrize("old,new,words", [
    ('title = "Two rooms"', "title = 5", "title"),
    ('title = "Two rooms"', 'start = "now"', "date and time"),
    ('title = "Two rooms"', "start = 2026-01-01T00:00:00", "offset"),
    ('title = "Two rooms"', "colour = 1", "colour: unknown key"),
    ('address = "10.0.0.1"', 'address = "madrid"', "no IP address"),
    ('address = "10.0.0.1"', 'address = "10.0.0.7"', "unreachable"),
    ('address = "10.0.0.1"', "", "address: is missing"),
    ("[sites.budapest]", "[cities.budapest]", "two or more"),
    ("ppb = 3000", "ppb = 3000000", "ppb"),
    ("ppb = 3000", "ppm = 3", "ppm: unknown key"),
    ("loss = 0.2", 'loss = "much"', "must be a number"),
    ("loss = 0.2", "mtu = 60", "MTU"),
    ('delay = "30us"', "", "delay: is missing"),
    ('[[paths]]\nfrom = "budapest"\nto = "madrid"\ndelay = "20us"\n', "", "no [[paths]] leads there"),
    ('from = "budapest"\nto = "madrid"\ndelay', 'from = "madrid"\nto = "budapest"\ndelay', "two lead"),
    ('from = "madrid"\nto = "budapest"\nfile', 'from = "madrid"\nto = "madrid"\nfile', "two sites"),
    ('from = "madrid"\nto = "budapest"\nfile', 'from = "paris"\nto = "budapest"\nfile', "no site 'paris'"),
    ('file = "there.toml"', 'file = "nowhere.toml"', "cannot be read"),
    ('file = "there.toml"', "", "one of them"),
    ('duration = "1ms"', 'duration = "100us"', "lengthen"),
    ('[sites.madrid]\n', '[sites.madrid]\ncard = "pynq:x.bit"\n', "simulated card's clock"),
    ('ppb = 3000, bound = "12ns"', 'bound = "12"', "bound"),
    ("title", "title = ]", "not TOML"),
])  # fmt: skip
def test_refused_before_a_card_is_opened(tmp_path, old: str, new: str, words: str):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError, match=r"experiment\.toml") as error:
        load_experiment(path)
    assert words in str(error.value)


@pytest.mark.parametrize("change,words", [
    ({"size": 9100}, "sizes"), ({"size": 63}, "sizes"), ({"destination": "10.9.9.9"}, "unreachable"),
    ({"source": "10.0.0.2", "destination": "10.0.0.1", "session": 2}, "unreachable"),
    ({"session": 0}, "session"),
])  # fmt: skip
def test_bad_trains(tmp_path, change, words: str):
    with pytest.raises(ConfigError) as error:
        load_experiment(write(tmp_path, **change))
    assert words in str(error.value)


def test_the_same_session_twice(tmp_path):
    text = GOOD + '[[trains]]\nfrom = "madrid"\nto = "budapest"\nfile = "there.toml"\n'
    with pytest.raises(ConfigError, match="session 1"):
        load_experiment(write(tmp_path, text))


def test_one_site_needs_a_start(tmp_path):
    with pytest.raises(ConfigError, match="common `start`"):
        run(load_experiment(write(tmp_path)), only="madrid")


def test_the_example_in_the_documentation(tmp_path):
    text = (ROOT / "docs" / "owd.md").read_text().split("```toml\n")[1].split("```")[0]
    found = load_experiment(write(tmp_path, text))
    assert (len(found.sites), len(found.paths), len(found.flights)) == (2, 2, 1)


def test_check_command(tmp_path, capsys):
    assert main(["owd", "run", write(tmp_path), "--check"]) == 0
    assert "2 trains, 80 packets" in capsys.readouterr().out
    assert main(["owd", "run", write(tmp_path, GOOD.replace("loss", "lost")), "--check"]) == 2


@pytest.fixture
def simulation():
    from twinstamp.card.sim import SimulatedCard

    try:
        SimulatedCard().close()
    except DeviceError as error:
        pytest.skip(str(error))


def test_an_unlocked_clock_is_refused(tmp_path, simulation):
    text = GOOD.replace('bound = "12ns"', 'locked = false, bound = "unknown"', 1)
    with pytest.raises(DeviceError, match=r"'madrid'.*allow-unsynchronised"):
        run(load_experiment(write(tmp_path, text)))


def test_two_simulated_cards(tmp_path, simulation, capsys):
    """Both directions at once over lossy paths of different delay: the delays are what the paths do."""
    out, page = str(tmp_path / "out.json"), str(tmp_path / "out.html")
    (tmp_path / "captures").mkdir()
    text = GOOD.replace("ppb = -2000, bound", "locked = false, ppb = 0, bound")
    arguments = ["owd", "run", write(tmp_path, text), "--captures", str(tmp_path / "captures"), "--json", out,
                 "--html", page, "--timeout", "50us"]  # fmt: skip
    assert main(arguments) == 1  # budapest is not locked
    assert main([*arguments, "--allow-unsynchronised"]) == 0
    assert "--allow-unsynchronised" in capsys.readouterr().out
    assert "--allow-unsynchronised" in (tmp_path / "out.html").read_text()
    report = json.load(open(out))  # noqa: SIM115
    assert report["options"]["allow_unsynchronised"] and report["unsynchronised_packets"] > 0
    there, back = report["trains"]
    assert there["train"]["source"] == "10.0.0.1"
    assert (there["loss"]["sent"], back["loss"]["sent"]) == (40, 40)
    assert there["loss"]["lost"] > 0 == back["loss"]["lost"] and there["loss"]["sent_known"]
    # A path's delay counts from the frame's last byte; then the preamble. 8 ns a byte.
    for train, delay_ns, size in ((there, 30_000, 90), (back, 20_000, 64)):
        flight = delay_ns + 8 * (size + 8)
        assert abs(train["delay_ns"]["min"] - flight) < 40 and abs(train["delay_ns"]["max"] - flight) < 40
        assert train["flagged"]["outside_bound"] == 0
    sent = {told["from"]: told for told in report["experiment"]["sent"]}
    assert (sent["madrid"]["late"], sent["madrid"]["departures_told"]) == (0, 40)
    assert (sent["madrid"]["synchronised"], sent["budapest"]["synchronised"]) == (True, False)
    assert (
        report["directions"][0]["asymmetry_minimum_ns"] == there["delay_ns"]["min"] - back["delay_ns"]["min"]
    )
    # The captures alone say the same, but for what was lost at the ends.
    again = report_captures(
        [str(tmp_path / "captures" / f"{site}.pcapng") for site in ("budapest", "madrid")]
    )
    for train, same in zip(again.trains, (there, back), strict=True):
        assert train.delay.percentiles == {name: same["delay_ns"][name] for name in train.delay.percentiles}
        assert train.bound.maximum == same["bound_ns"]["max"]
    # Departures are on the schedule, within a cycle.
    schedule = np.arange(40) * 5000
    found = report_captures(
        [str(tmp_path / "captures" / "madrid.pcapng")], schedules={("10.0.0.2", "10.0.0.1", 2): schedule}
    )
    departures = found.trains[0].judged.arrivals.sent_ns - found.trains[0].schedule_ns
    assert departures.min() >= 0 and departures.max() <= 9
