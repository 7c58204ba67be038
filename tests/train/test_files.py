# SPDX-License-Identifier: Apache-2.0
"""Trains in TOML and JSON: there and back, and what is no train."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.errors import ConfigError
from twinstamp.train import load_train, to_json, to_toml, train_from_dict

from tests.train.made import trains

GOOD = """
packets = 3
source = "10.0.0.1"
destination = "10.0.0.2"
source_mac = "02:00:00:00:00:01"
destination_mac = "02:00:00:00:00:02"
[gap]
law = "poisson"
mean = "10us"
[size]
law = "uniform"
least = 90
most = 200
"""


@settings(max_examples=40, deadline=None)
@given(trains())
def test_there_and_back(tmp_path_factory, train):
    folder = tmp_path_factory.mktemp("train")
    for name, text in (("t.toml", to_toml(train)), ("t.json", to_json(train))):
        (folder / name).write_text(text, encoding="utf-8")
        assert load_train(folder / name) == train


def change(old: str, new: str) -> str:
    assert old in GOOD
    return GOOD.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("packets = ", "not TOML"),
        ("", "packets is missing"),
        ("x = 1\n" + GOOD, "no key 'x'; known are packets"),
        ("ip_version = 4\n" + GOOD, "no key 'ip_version'"),
        (change('law = "poisson"', 'law = "gauss"'), "law = one of constant, list, poisson, chirp"),
        (change('law = "poisson"', 'law = ["poisson"]'), "law = one of constant, list, poisson, chirp"),
        (change('law = "poisson"\nmean = "10us"', ""), "gap: give a table with law"),
        (change('mean = "10us"', ""), "gap: mean is missing"),
        (change('mean = "10us"', "mean = 1e-5"), "so that it is exact"),
        (change('mean = "10us"', 'mean = "10us"\nmeen = 1'), "gap: no key 'meen'"),
        (change("[gap]", "[[gap]]"), "gap: give a table"),
        (change("packets = 3", "packets = 3.0"), "packets is 3.0"),
        (change("packets = 3", 'packets = "3"'), "packets is '3'"),
        (change("packets = 3", "packets = 99999999999999999999999"), "packets: a whole number of 77 bits"),
        (change("packets = 3", "packets = 3\nvlans = 5"), "vlans: give a list of tables"),
        (change("packets = 3", "packets = 3\nvlans = [5]"), r"vlans\[0\]: give a table"),
        (change("packets = 3", "packets = 3\nvlans = [{}]"), r"vlans\[0\]: id is missing"),
        (change("least = 90", "least = [90]"), r"smallest size .* is \[90\]"),
        (change("packets = 3", "packets = 3\nname = 5"), "name: give"),
        (change("packets = 3", "packets = 3\nsource_port = false"), "source_port is False"),
        (change('source = "10.0.0.1"', "source = 2026-11-20"), "source is datetime"),
        (change("packets = 3", "packets = 3\nperiod = []\nrepeats = 2"), "period is"),
        ("a = " + "[" * 5000, "TOML"),
        ("\x00", "not TOML"),
    ],
)
def test_what_is_no_train_is_refused_with_its_key(tmp_path, text, message):
    path = tmp_path / "bad.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        load_train(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_train(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_train(tmp_path)
    (tmp_path / "big.toml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        load_train(tmp_path / "big.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_train(tmp_path / "bytes.toml")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="not JSON"):
        load_train(tmp_path / "deep.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match="give a table"):
        load_train(tmp_path / "list.json")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_anything_in_a_key_gives_a_config_error_or_a_train(data):
    """Nothing but ConfigError, whatever stands in the file."""
    import tomllib

    spec = json.loads(json.dumps(tomllib.loads(GOOD)))
    table = data.draw(st.sampled_from([spec, spec["gap"], spec["size"]]))
    known = [
        "packets",
        "source",
        "bursts",
        "vlans",
        "period",
        "repeats",
        "seed",
        "gap",
        "size",
        "law",
        "mean",
    ]
    table[data.draw(st.sampled_from(known + list(table)))] = data.draw(json_values)
    try:
        train_from_dict(spec)
    except ConfigError as error:
        assert "\n" not in str(error)
