# SPDX-License-Identifier: Apache-2.0
"""TOML for people: files read with a limit, tables taken key by key, each mistake named with file and key."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from twinstamp.errors import ConfigError
from twinstamp.units import parse_time_ns

MAX_FILE_BYTES = 32 << 20
_INTEGER_BITS = 64  # TOML 1.0 asks for signed ones; the largest unsigned one is let through as well
_KINDS: dict[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a table",
}


def read_text(path: str | Path, *, limit: int = MAX_FILE_BYTES) -> str:
    """A configuration file as text, at most `limit` bytes of UTF-8. Raises ConfigError naming the file."""
    try:
        with open(path, "rb") as file:
            raw = file.read(limit + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; give a file that exists") from None
    if len(raw) > limit:
        raise ConfigError(f"{path}: larger than {limit >> 20} MiB; split it, or take another file")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: byte {error.start} (0x{raw[error.start]:02x}) is not UTF-8 text: give TOML"
        ) from None


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """The document in `text`. Raises ConfigError naming file and line, or the key of an integer too large."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+), column (\d+)\)", str(error))
        line = found[1] if found else str(text.count("\n") + 1)
        message = re.sub(r"\s*\(at .*\)$", "", str(error))
        raise ConfigError(f"{name}:{line}: {message}: not TOML; mend that line") from None
    except RecursionError:
        raise ConfigError(f"{name}: not TOML that can be read: lists or tables nested too deeply") from None
    except ValueError:  # of int(): sys.set_int_max_str_digits
        raise ConfigError(f"{name}: not TOML that can be read: a number of thousands of digits") from None
    for key, value in _values(document):
        if isinstance(value, int) and value.bit_length() > _INTEGER_BITS:
            bits = value.bit_length()
            raise ConfigError(f"{name}: {key[:80]}: a whole number of {bits} bits; TOML has {_INTEGER_BITS}")
    return document


def read_toml(path: str | Path, *, limit: int = MAX_FILE_BYTES) -> dict[str, Any]:
    """The document in a file; as read_text() and parse_toml()."""
    return parse_toml(read_text(path, limit=limit), str(path))


def _values(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """(key, value) of all that is neither table nor list; key with the tables and lists that it is in."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(f"{where}.{key}" if where else key, inner) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(f"{where}[{i}]", inner) for i, inner in enumerate(value)]
        else:
            yield where, value


def shown(value: object) -> str:
    """A value for a message: its repr, cut to 60 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits, a list in a list in …
        return f"this {type(value).__name__}"
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_of(names: Sequence[str]) -> Callable[[str], str | None]:
    """A check for Table.take(): the text is one of these."""
    return lambda value: None if value in names else f"is unknown: choose one of {', '.join(names)}"


def between(low: float, high: float) -> Callable[[Any], str | None]:
    """A check for Table.take(): the number is within these, both included."""
    return lambda value: None if low <= value <= high else f"must be {low} to {high}"


class Table:
    """A table whose keys are taken one by one; end() refuses what nobody asked for.

    where: what messages call it, e.g. "group[0].server[1]". Raises ConfigError where `value` is no table.
    """

    def __init__(self, where: str, value: object) -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: must be a table")
        self.where = where
        self._left = dict(value)
        self._known: list[str] = []

    def take(
        self,
        key: str,
        kind: type,
        default: Any = None,
        check: Callable[[Any], str | None] | None = None,
    ) -> Any:
        """The value of a key, or the default where it is not there.

        kind: str, int, float (a whole number is taken too), bool, list or dict. check: says what is wrong
        with a value of this kind, or None. Raises ConfigError naming table and key.
        """
        self._known.append(key)
        if key not in self._left:
            return default
        value = self._left.pop(key)
        whole = isinstance(value, int) and not isinstance(value, bool)
        too_large = whole and value.bit_length() > _INTEGER_BITS
        if kind is float and whole and not too_large:
            value = float(value)
        if not isinstance(value, kind) or (kind is int and not whole) or too_large:
            raise ConfigError(f"{self.where}.{key}: {shown(value)} must be {_KINDS[kind]}")
        if isinstance(value, str) and "\0" in value:
            raise ConfigError(f"{self.where}.{key}: {shown(value)} holds a zero byte")
        if check is not None:
            wrong = check(value)
            if wrong is not None:
                raise ConfigError(f"{self.where}.{key}: {shown(value)} {wrong}")
        return value

    def need(self, key: str, kind: type, check: Callable[[Any], str | None] | None = None) -> Any:
        """As take(), for a key that must be there."""
        if key not in self._left:
            raise ConfigError(f"{self.where}.{key}: is missing")
        return self.take(key, kind, None, check)

    @overload
    def time_ns(self, key: str, default: str) -> int: ...
    @overload
    def time_ns(self, key: str) -> int | None: ...
    def time_ns(self, key: str, default: str | None = None) -> int | None:
        """A time such as "50ms" in ns; None where neither key nor default is there."""
        text = self.take(key, str, default)
        return None if text is None else parse_time_ns(text, f"{self.where}.{key}")

    def end(self) -> None:
        """Raises ConfigError for a key that was not taken."""
        if self._left:
            key = next(iter(self._left))
            raise ConfigError(
                f"{self.where}.{key[:60]}: unknown key; known are {', '.join(dict.fromkeys(self._known))}"
            )
