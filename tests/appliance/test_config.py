# SPDX-License-Identifier: Apache-2.0
"""The appliance file: what it may say, and that each mistake is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twinstamp.appliance.config import load_appliance, parse_appliance
from twinstamp.errors import ConfigError

WHOLE = """
[appliance]
report = "report.json"
reorder_ms = 2
workers = 2
[[source]]
interface = "mon0"
filter = "ip"
[[source]]
interface = "mon1"
[duplicates]
profile = "routing"
layer = "inner"
window = 100000
time = "50ms"
action = "tag"
tag_vlan = 999
keep = ["arp"]
[balance]
hash = "ip"
default_group = "dpi"
fragment_hold = "5ms"
[[group]]
name = "dpi"
[[group.server]]
name = "dpi0"
weight = 2
interface = "out0"
mac = "02:00:00:00:00:01"
[[group.server]]
name = "dpi1"
vxlan = {local = "10.0.0.1", remote = "10.0.0.2", vni = 7}
[[group]]
name = "archive"
[[group.server]]
name = "store"
file = "store.pcapng"
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "appliance.toml"
    path.write_text(text)
    return path


def test_a_whole_file(tmp_path):
    config = load_appliance(write(tmp_path, WHOLE))
    assert [source.interface for source in config.sources] == ["mon0", "mon1"]
    assert config.sources[0].filter == "ip"
    assert config.duplicates.time_ns == 50_000_000
    assert config.duplicates.keep == ("arp",)
    assert config.fragments.hold_ns == 5_000_000
    assert config.default == ("dpi",)
    assert config.outputs["dpi0"].encap.mac_dst == "02:00:00:00:00:01"
    assert config.outputs["dpi1"].encap.tunnel.vni == 7
    assert config.outputs["store"].file == str(tmp_path / "store.pcapng")
    assert config.report == tmp_path / "report.json"


def test_classes_that_repeat_by_themselves_are_kept_by_default(tmp_path):
    config = load_appliance(write(tmp_path, WHOLE.replace('keep = ["arp"]\n', "")))
    assert {"arp", "nd", "llc"} <= set(config.duplicates.keep)


def test_nat_tags_unless_dropping_is_asked_for(tmp_path):
    nat = WHOLE.replace('profile = "routing"', 'profile = "nat"').replace('action = "tag"\n', "")
    assert load_appliance(write(tmp_path, nat)).duplicates.action == "tag"
    nat = nat.replace('profile = "nat"', 'profile = "nat"\naction = "drop"')
    assert load_appliance(write(tmp_path, nat)).duplicates.action == "drop"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("workers = 2", "workers = 0", "appliance.workers"),
        ("workers = 2", 'workers = "two"', "appliance.workers"),
        ("workers = 2", "workers = true", "appliance.workers"),
        ("workers = 2", "wrokers = 2", "appliance.wrokers"),
        ('interface = "mon1"', 'interface = "mon0"', "same interface"),
        ('interface = "mon1"', 'file = "x.pcap"', "all interfaces or all files"),
        ('interface = "mon1"', 'interface = "a"\nfile = "b"', "source[1]"),
        ('time = "50ms"', 'time = "50"', "duplicates.time"),
        ('time = "50ms"', 'time = "50 parsecs"', "duplicates.time"),
        ("window = 100000", "window = 1", "duplicates.window"),
        ("window = 100000", "window = 1000001", "duplicates.window"),
        ('window = 100000\ntime = "50ms"\n', "", "window = FRAMES"),
        ('profile = "routing"', 'profile = "routed"', "duplicates.profile"),
        ('keep = ["arp"]', 'keep = ["art"]', "duplicates.keep"),
        ("tag_vlan = 999\n", "", "duplicates.tag_vlan"),
        ('file = "store.pcapng"', 'file = "store.pcap"', "store"),
        ('default_group = "dpi"', 'default_group = "ids"', "balance.default_group"),
        ('hash = "ip"', 'hash = "crc"', "balance.hash"),
        ("weight = 2", "weight = -2", "weight"),
        ('name = "archive"', 'name = "dpi"', "same name"),
        ('file = "store.pcapng"', "", "server store"),
        ("vni = 7", "vnid = 7", "vxlan"),
        ("[duplicates]", "[duplicate]", "file.duplicate"),
        ("[appliance]", "[appliance", "TOML"),
    ],
)
def test_each_mistake_is_named(tmp_path, old, new, named):
    assert old in WHOLE
    with pytest.raises(ConfigError) as caught:
        load_appliance(write(tmp_path, WHOLE.replace(old, new, 1)))
    assert named in str(caught.value)
    assert "appliance.toml" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load_appliance(tmp_path / "none.toml")


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
KEYS = st.sampled_from(
    [
        "appliance",
        "source",
        "duplicates",
        "balance",
        "group",
        "name",
        "server",
        "file",
        "interface",
        "window",
        "vlan",
    ]
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        KEYS, st.one_of(VALUES, st.lists(st.dictionaries(KEYS, VALUES, max_size=4), max_size=3)), max_size=5
    )
)
def test_any_document_is_taken_or_refused_in_words(document):
    try:
        parse_appliance(document, Path("/nowhere"))
    except ConfigError as error:
        assert str(error)
