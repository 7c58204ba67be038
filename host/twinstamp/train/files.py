# SPDX-License-Identifier: Apache-2.0
"""Trains in TOML and JSON, each mistake named with its key (docs/trains.md)."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

from twinstamp.errors import ConfigError
from twinstamp.toml_table import parse_toml, read_text
from twinstamp.train.fixed import format_exact
from twinstamp.train.laws import Chirp, Choice, Constant, Fixed, GapList, Poisson, SizeList, Uniform
from twinstamp.train.train import Train, Vlan

MOST_BYTES = 1 << 20  # of a train's file
_GAPS: dict[str, Any] = {"constant": Constant, "list": GapList, "poisson": Poisson, "chirp": Chirp}
_SIZES: dict[str, Any] = {"constant": Fixed, "list": SizeList, "uniform": Uniform, "choice": Choice}
_TABLES: dict[str, dict[str, Any]] = {"gap": _GAPS, "size": _SIZES}


def load_train(path: str | Path) -> Train:
    """The train in a TOML file (or a JSON one, by the name's ending). ConfigError names file and key."""
    path = Path(path)
    text = read_text(path, limit=MOST_BYTES)
    if path.suffix == ".json":
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: not JSON: {error or 'nested too deeply'}") from error
    else:
        data = parse_toml(text, str(path))
    try:
        return train_from_dict(data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def train_from_dict(data: object) -> Train:
    """A train from what TOML or JSON holds. ConfigError names the key."""
    values = dict(_keys(data, "the train", Train, leave_out=("ip_version",)))
    for key, laws in _TABLES.items():
        values[key] = _law(values[key], key, laws)
    vlans = values.get("vlans", [])
    if not isinstance(vlans, list):
        raise ConfigError("vlans: give a list of tables")
    values["vlans"] = tuple(Vlan(**_keys(vlan, f"vlans[{i}]", Vlan)) for i, vlan in enumerate(vlans))
    return Train(**values)


def _law(data: object, key: str, laws: dict[str, Any]) -> Any:
    if not isinstance(data, dict) or data.get("law") not in tuple(laws):
        raise ConfigError(f"{key}: give a table with law = one of {', '.join(laws)}")
    kind = laws[data["law"]]
    return kind(**_keys({k: v for k, v in data.items() if k != "law"}, key, kind))


def _keys(data: object, what: str, kind: Any, leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """``data`` where it is a table with the fields of the record ``kind``."""
    if not isinstance(data, dict):
        raise ConfigError(f"{what}: give a table")
    known = {f.name: f for f in fields(kind) if f.name not in leave_out}
    for key in data:
        if key not in known:
            raise ConfigError(f"{what}: no key {str(key)[:60]!r}; known are {', '.join(known)}")
    for name, f in known.items():
        if f.default is MISSING and name not in data:
            raise ConfigError(f"{what}: {name} is missing")
    return data


def to_dict(train: Train) -> dict[str, Any]:
    """What train_from_dict reads: plain types, times as exact text; what stands at its default left out."""
    out: dict[str, Any] = {}
    tables: dict[str, Any] = {}
    for f in fields(Train):
        value = getattr(train, f.name)
        if f.name == "ip_version" or value == f.default:
            continue
        if f.name in _TABLES:
            name = next(name for name, kind in _TABLES[f.name].items() if type(value) is kind)
            law = {g.name: _plain(getattr(value, g.name), g.name) for g in fields(value)}
            tables[f.name] = {"law": name} | law
        elif f.name == "vlans":
            tables["vlans"] = [{g.name: getattr(vlan, g.name) for g in fields(vlan)} for vlan in value]
        else:
            out[f.name] = _plain(value, f.name)
    return out | tables


def _plain(value: object, name: str) -> object:
    if isinstance(value, tuple):
        return [_plain(v, name) for v in value]
    if isinstance(value, Fraction):
        return str(value) if name == "ratio" else format_exact(value)
    return value


def to_json(train: Train) -> str:
    """JSON of a train."""
    return json.dumps(to_dict(train), indent=2, ensure_ascii=False) + "\n"


def to_toml(train: Train) -> str:
    """TOML of a train."""
    lines, tail = [], []
    for key, value in to_dict(train).items():
        if isinstance(value, dict):
            tail += ["", f"[{key}]", *(f"{k} = {_toml(v)}" for k, v in value.items())]
        elif key == "vlans":
            for vlan in value:
                tail += ["", "[[vlans]]", *(f"{k} = {_toml(v)}" for k, v in vlan.items())]
        else:
            lines.append(f"{key} = {_toml(value)}")
    return "\n".join(lines + tail) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml(v) for v in value)}]"
    # JSON's strings are TOML's basic strings (TOML 1.0, "String"), its integers are TOML's.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
