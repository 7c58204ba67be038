# SPDX-License-Identifier: Apache-2.0
"""The one reader of TOML tables, and every file that goes through it: each mistake in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from twinstamp.appliance import load_appliance
from twinstamp.card.phys import read_settings
from twinstamp.errors import ConfigError
from twinstamp.owd.experiment import load_experiment
from twinstamp.rules import read_rules
from twinstamp.toml_table import Table, between, one_of, parse_toml, read_text, shown
from twinstamp.train.files import load_train

READERS = {
    "appliance": load_appliance,
    "experiment": load_experiment,
    "phys": read_settings,
    "rules": read_rules,
    "train": load_train,
}
DOCUMENTS = {
    "an integer of 5,000 digits": "a = " + "9" * 5000,
    "an integer of 20,000 bits": "a = 0x" + "f" * 5000,
    "an integer of 65 bits": "[a]\nb = [{c = 0x1ffffffffffffffff}]",
    "lists in lists": "a = " + "[" * 5000 + "]" * 5000,
    "tables in tables": "a = " + "{b = " * 5000 + "1" + "}" * 5000,
    "no UTF-8": b"a = \xff",
    "no TOML": "a = ",
}


@pytest.mark.parametrize("document", DOCUMENTS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_sound_toml_is_refused_in_words(tmp_path, reader, document):
    text = DOCUMENTS[document]
    path = tmp_path / "file.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as caught:
        READERS[reader](path)
    assert "file.toml" in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_not_there(tmp_path, reader):
    with pytest.raises(ConfigError, match="No such file"):
        READERS[reader](tmp_path / "none.toml")


def test_line_and_byte_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"^f\.toml:2: .*not TOML; mend that line$"):
        parse_toml("a = 1\nb = \n", "f.toml")
    (tmp_path / "f.toml").write_bytes(b"a = 1\nb = '\xff'")
    with pytest.raises(ConfigError, match=r"f\.toml:2: byte 11 \(0xff\)"):
        read_text(tmp_path / "f.toml")
    with pytest.raises(ConfigError, match="larger than 0 MiB"):
        read_text(tmp_path / "f.toml", limit=3)
    with pytest.raises(ConfigError, match=r"a\.b\[0\]\.c: a whole number of 65 bits"):
        parse_toml("[a]\nb = [{c = 0x1ffffffffffffffff}]", "f.toml")
    assert parse_toml("a = 0xffffffffffffffff", "f.toml") == {"a": (1 << 64) - 1}


@pytest.mark.parametrize(
    ("kind", "value", "wrong"),
    [
        (int, True, "a whole number"),
        (int, 1.0, "a whole number"),
        (int, "1", "a whole number"),
        (int, 1 << 64, "a whole number"),
        (float, 10**400, "a number"),
        (float, True, "a number"),
        (float, "1", "a number"),
        (bool, 1, "true or false"),
        (str, 1, "text"),
        (str, "a\0b", "zero byte"),
        (list, {}, "a list"),
        (dict, [], "a table"),
    ],
)
def test_a_value_of_another_kind(kind: type, value: Any, wrong: str):
    with pytest.raises(ConfigError, match=rf"^t\.k: .*{wrong}"):
        Table("t", {"k": value}).take("k", kind)


def test_a_table_gives_its_keys_one_by_one():
    table = Table("t", {"a": 1, "b": 2, "time": "1.5ms", "c": 3})
    assert table.take("a", float) == 1.0
    assert isinstance(table.take("missing", int, 7), int)
    assert table.need("b", int, between(2, 2)) == 2
    assert table.time_ns("time") == 1_500_000
    assert table.time_ns("no_time") is None
    assert table.time_ns("other_time", "2us") == 2000
    with pytest.raises(ConfigError, match=r"^t\.c: unknown key; known are a, missing, b, time, no_time"):
        table.end()
    with pytest.raises(ConfigError, match=r"^t\.d: is missing$"):
        table.need("d", int)
    with pytest.raises(ConfigError, match=r"^t\.c: 3 must be 4 to 5$"):
        table.take("c", int, None, between(4, 5))
    with pytest.raises(ConfigError, match=r"^t\.e: 'x' is unknown: choose one of y, z$"):
        Table("t", {"e": "x"}).take("e", str, None, one_of(("y", "z")))
    with pytest.raises(ConfigError, match=r"^t: must be a table$"):
        Table("t", [])


def test_values_in_messages_are_short():
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert len(shown("x" * 1000)) <= 60
    assert shown(10**5000) == "this int"
    assert shown(deep) == "this list"
    assert shown([1, "a"]) == "[1, 'a']"


def test_no_other_module_reads_toml():
    """One reader: limits and messages are the same everywhere."""
    root = Path(load_appliance.__code__.co_filename).parents[1]
    users = [path.name for path in root.rglob("*.py") if "tomllib" in path.read_text()]
    assert users == ["toml_table.py"]
