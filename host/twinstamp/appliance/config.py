# SPDX-License-Identifier: Apache-2.0
"""The appliance file: TOML in, frozen records out, each mistake named with its key (docs/appliance.md)."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from twinstamp_kernels.window import BACKENDS, CLASSES, LAYERS, MAX_WINDOW, PROFILES

from twinstamp.balance import FragmentLimits, Group, Server
from twinstamp.dedup import ACTIONS, DEFAULT_KEEP
from twinstamp.errors import ConfigError
from twinstamp.io.live import Encap, Gre, Vlan, Vxlan
from twinstamp.units import parse_time_ns

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """One source: an interface, or a capture file ("-" = standard input)."""

    interface: str | None = None
    file: str | None = None
    filter: str | None = None
    ring_mib: int = 64
    promiscuous: bool = True


@dataclass(frozen=True, kw_only=True)
class CardConfig:
    """The simulated card in the sources' place, and what is played into it (docs/card.md)."""

    play: str
    ports: tuple[int, ...] = (0,)
    speed: float = 1.0
    longest_gap_ns: int = 10_000
    clocks_ppb: tuple[float, ...] = ()
    seed: int = 1
    block_log2: int = 16
    blocks_log2: int = 6


@dataclass(frozen=True, kw_only=True)
class DuplicatesConfig:
    profile: str = "exact"
    layer: str = "outer"
    window: int | None = None
    time_ns: int | None = None
    limit: int = MAX_WINDOW
    action: str = "drop"
    tag_vlan: int | None = None
    keep: tuple[str, ...] = DEFAULT_KEEP
    ignore_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where a server's frames go: an interface (with what is done to each frame), or a capture file."""

    interface: str | None = None
    file: str | None = None
    encap: Encap = field(default_factory=Encap)


@dataclass(frozen=True, kw_only=True)
class ApplianceConfig:
    """All of an appliance file. Paths are relative to the file's folder."""

    sources: tuple[SourceConfig, ...]  # empty with a card
    card: CardConfig | None
    duplicates: DuplicatesConfig | None
    groups: tuple[Group, ...]
    outputs: Mapping[str, OutputConfig]
    default: tuple[str, ...]
    rules_file: Path | None
    rules_format: str | None
    hash: str
    layer: str
    secret_file: Path | None
    fragments: FragmentLimits
    report: Path | None
    reorder_ms: float
    reorder_mib: int
    workers: int
    batch_frames: int
    user: str | None
    realtime: bool
    backend: str


class _Table:
    """A TOML table whose keys are taken one by one, so that what is left is unknown."""

    def __init__(self, where: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise ConfigError(f"{where}: must be a table")
        self.where = where
        self._left = dict(value)

    def take(
        self,
        key: str,
        kind: type[T],
        default: T | None = None,
        check: Callable[[T], str | None] | None = None,
    ) -> Any:
        if key not in self._left:
            return default
        value = self._left.pop(key)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            names = {
                str: "text",
                int: "a whole number",
                float: "a number",
                bool: "true or false",
                list: "a list",
            }
            raise ConfigError(f"{self.where}.{key}: {value!r} must be {names.get(kind, 'a table')}")
        if kind is str and "\0" in str(value):
            raise ConfigError(f"{self.where}.{key}: {value!r} holds a zero byte")
        if check is not None:
            wrong = check(value)
            if wrong is not None:
                raise ConfigError(f"{self.where}.{key}: {value!r} {wrong}")
        return value

    def end(self, known: Sequence[str]) -> None:
        if self._left:
            key = next(iter(self._left))
            raise ConfigError(f"{self.where}.{key}: unknown key; known are {', '.join(known)}")


def _one_of(names: Sequence[str]) -> Callable[[str], str | None]:
    return lambda value: None if value in names else f"is unknown: choose one of {', '.join(names)}"


def _between(low: float, high: float) -> Callable[[Any], str | None]:
    return lambda value: None if low <= value <= high else f"must be {low} to {high}"


def load_appliance(path: str | Path) -> ApplianceConfig:
    """Reads an appliance file. Raises ConfigError naming file, table and key."""
    place = Path(path)
    try:
        with place.open("rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"{place}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{place}: is not valid TOML: {error}") from error
    try:
        return parse_appliance(document, place.parent)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error


def parse_appliance(document: Mapping[str, Any], folder: Path) -> ApplianceConfig:
    """An appliance from a parsed document; folder: what relative paths start from."""
    top = _Table("file", dict(document))
    main = _Table("appliance", top.take("appliance", dict, {}))
    report = main.take("report", str)
    reorder_ms = main.take("reorder_ms", float, 2.0, _between(0, 1000))
    reorder_mib = main.take("reorder_mib", int, 64, _between(2, 65536))
    workers = main.take("workers", int, 1, _between(1, 256))
    batch_frames = main.take("batch_frames", int, 1024, _between(1, 1 << 20))
    user = main.take("user", str)
    realtime = main.take("realtime", bool, False)
    backend = main.take("backend", str, "cpu", _one_of(BACKENDS))
    main.end(
        ("report", "reorder_ms", "reorder_mib", "workers", "batch_frames", "user", "realtime", "backend")
    )

    card: CardConfig | None = None
    sources: tuple[SourceConfig, ...] = ()
    if isinstance(document.get("source"), str):
        top.take("source", str, check=_one_of(("card:sim",)))
        card = _card(top.take("card", dict, {}), folder)
    else:
        entries = top.take("source", list, [])
        sources = tuple(_source(f"source[{i}]", table, folder) for i, table in enumerate(entries))
    if not sources and card is None:
        raise ConfigError('no [[source]]: add one with interface = "NAME" or file = "FEED.pcapng"')
    if len({source.file is None for source in sources}) > 1:
        raise ConfigError("sources are either all interfaces or all files: a file has no moment to wait for")
    for attribute in ("interface", "file"):
        names = [getattr(source, attribute) for source in sources if getattr(source, attribute) is not None]
        if len(set(names)) != len(names):
            raise ConfigError(f"two sources have the same {attribute}")

    duplicates = top.take("duplicates", dict)
    window = None if duplicates is None else _duplicates(duplicates)

    balance = _Table("balance", top.take("balance", dict, {}))
    rules, classbench = balance.take("rules", str), balance.take("classbench", str)
    if rules is not None and classbench is not None:
        raise ConfigError("balance: give rules or classbench, not both")
    hash_name = balance.take("hash", str, "flow", _one_of(("flow", "ip")))
    layer = balance.take("layer", str, "outer", _one_of(tuple(LAYERS)))
    secret_file = balance.take("secret_file", str)
    default_group = balance.take("default_group", str)
    defaults = FragmentLimits()
    fragments = FragmentLimits(
        entries=balance.take("fragment_entries", int, defaults.entries),
        hold_bytes=balance.take("fragment_hold_bytes", int, defaults.hold_bytes),
        hold_ns=parse_time_ns(balance.take("fragment_hold", str, "10ms"), "balance.fragment_hold"),
        lifetime_ns=parse_time_ns(balance.take("fragment_lifetime", str, "30s"), "balance.fragment_lifetime"),
    )
    fragment_keys = ("fragment_entries", "fragment_hold_bytes", "fragment_hold", "fragment_lifetime")
    balance.end(("rules", "classbench", "hash", "layer", "secret_file", "default_group", *fragment_keys))

    groups, outputs = _groups(top.take("group", list, []), folder)
    top.end(("appliance", "source", "duplicates", "balance", "group"))
    if default_group is None:
        default_group = groups[0].name
    elif default_group != "drop" and default_group not in {group.name for group in groups}:
        raise ConfigError(f"balance.default_group: {default_group!r} is not a [[group]]")
    if window is not None and window.action == "tag":
        _check_tags(window, outputs)
    rules_path = rules if rules is not None else classbench
    return ApplianceConfig(
        sources=sources,
        card=card,
        duplicates=window,
        groups=groups,
        outputs=outputs,
        default=() if default_group == "drop" else (default_group,),
        rules_file=None if rules_path is None else folder / rules_path,
        rules_format=None if rules_path is None else "classbench" if classbench is not None else "toml",
        hash=hash_name,
        layer=layer,
        secret_file=None if secret_file is None else folder / secret_file,
        fragments=fragments,
        report=None if report is None else folder / report,
        reorder_ms=reorder_ms,
        reorder_mib=reorder_mib,
        workers=workers,
        batch_frames=batch_frames,
        user=user,
        realtime=realtime,
        backend=backend,
    )


def _source(where: str, value: Any, folder: Path) -> SourceConfig:
    table = _Table(where, value)
    interface, file = table.take("interface", str), table.take("file", str)
    if (interface is None) == (file is None):
        raise ConfigError(f"{where}: give interface or file, one of the two")
    expression = table.take("filter", str)
    if file is not None and expression:
        raise ConfigError(
            f"{where}.filter: works on interfaces only; filter the file with tcpdump -r … -w - first"
        )
    source = SourceConfig(
        interface=interface,
        file=None if file is None else file if file == "-" else str(folder / file),
        filter=expression or None,
        ring_mib=table.take("ring_mib", int, 64, _between(1, 65536)),
        promiscuous=table.take("promiscuous", bool, True),
    )
    table.end(("interface", "file", "filter", "ring_mib", "promiscuous"))
    return source


def _card(value: Any, folder: Path) -> CardConfig:
    table = _Table("card", value)
    play = table.take("play", str)
    if play is None:
        raise ConfigError("card.play: is missing: name the capture that goes onto the simulated card's wires")

    def numbers(key: str, low: float, high: float, *kinds: type) -> list[Any]:
        found: list[Any] = table.take(key, list, [])
        for number in found:
            if type(number) not in kinds or not low <= number <= high:
                raise ConfigError(f"card.{key}: {number!r} must be {low} to {high}")
        if len(found) > 4:
            raise ConfigError(f"card.{key}: {len(found)} numbers for 4 ports")
        return found

    gap = table.take("longest_gap", str, "10us")
    config = CardConfig(
        play=play if play == "-" else str(folder / play),
        ports=tuple(numbers("ports", 0, 3, int)) or (0,),
        speed=table.take("speed", float, 1.0, _between(0.001, 1e6)),
        longest_gap_ns=parse_time_ns(gap, "card.longest_gap"),
        clocks_ppb=tuple(numbers("clocks_ppb", -1_000_000, 1_000_000, int, float)),
        seed=table.take("seed", int, 1, _between(0, (1 << 64) - 1)),
        block_log2=table.take("block_log2", int, 16, _between(14, 22)),
        blocks_log2=table.take("blocks_log2", int, 6, _between(1, 15)),
    )
    table.end(("play", "ports", "speed", "longest_gap", "clocks_ppb", "seed", "block_log2", "blocks_log2"))
    return config


def _duplicates(value: Any) -> DuplicatesConfig:
    table = _Table("duplicates", value)
    profile = table.take("profile", str, "exact", _one_of(tuple(PROFILES)))
    time_text = table.take("time", str)
    keep = table.take("keep", list, list(DEFAULT_KEEP))
    for name in keep:
        if not isinstance(name, str) or name not in CLASSES:
            raise ConfigError(f"duplicates.keep: {name!r} is no frame class; known are {', '.join(CLASSES)}")
    result = DuplicatesConfig(
        profile=profile,
        layer=table.take("layer", str, "outer", _one_of(tuple(LAYERS))),
        window=table.take("window", int, None, _between(2, MAX_WINDOW)),
        time_ns=None if time_text is None else parse_time_ns(time_text, "duplicates.time"),
        limit=table.take("limit", int, MAX_WINDOW, _between(2, 1 << 28)),
        # Dropping what NAT changed leaves half-flows and lets a decoy hide a packet: it must be asked for.
        action=table.take("action", str, "tag" if profile == "nat" else "drop", _one_of(ACTIONS)),
        tag_vlan=table.take("tag_vlan", int, None, _between(1, 4094)),
        keep=tuple(keep),
        ignore_bytes=table.take("ignore_bytes", int, 0, _between(0, 262144)),
    )
    table.end(("profile", "layer", "window", "time", "limit", "action", "tag_vlan", "keep", "ignore_bytes"))
    if result.window is None and result.time_ns is None:
        raise ConfigError('duplicates: give window = FRAMES, time = "50ms", or both')
    return result


def _groups(entries: list[Any], folder: Path) -> tuple[tuple[Group, ...], dict[str, OutputConfig]]:
    if not entries:
        raise ConfigError("no [[group]]: add one with [[group.server]] entries")
    outputs: dict[str, OutputConfig] = {}
    groups = []
    for i, entry in enumerate(entries):
        table = _Table(f"group[{i}]", entry)
        name = table.take("name", str)
        if name is None:
            raise ConfigError(f"group[{i}]: has no name")
        servers = []
        for k, value in enumerate(table.take("server", list, [])):
            where = f"group[{i}].server[{k}]"
            server = _Table(where, value)
            server_name = server.take("name", str)
            if server_name is None:
                raise ConfigError(f"{where}: has no name")
            servers.append(Server(server_name, server.take("weight", int, 1)))
            output = _output(where, server, folder)
            if output == OutputConfig() and server_name in outputs:
                continue  # a server of two groups is described once
            if outputs.setdefault(server_name, output) != output:
                raise ConfigError(f"{where}: server {server_name} is described twice, differently")
        table.end(("name", "server"))
        groups.append(Group(name, tuple(servers)))
    if len({group.name for group in groups}) != len(groups):
        raise ConfigError("two groups have the same name")
    for server_name, output in outputs.items():
        if output.file is None and output.interface is None and output.encap.tunnel is None:
            raise ConfigError(f"server {server_name}: give interface, file, vxlan or gre")
    files = [output.file for output in outputs.values() if output.file is not None]
    if len({os.path.realpath(file) for file in files}) != len(files):
        raise ConfigError("two servers write to the same file")
    return tuple(groups), outputs


def _output(where: str, table: _Table, folder: Path) -> OutputConfig:
    interface, file = table.take("interface", str), table.take("file", str)
    if interface is not None and file is not None:
        raise ConfigError(f"{where}: give interface or file, not both")
    mac, mac_source = table.take("mac", str), table.take("mac_source", str)
    vlan = _Table(f"{where}.vlan", table.take("vlan", dict, {}))
    pop, push = vlan.take("pop", bool, False), vlan.take("push", int, None, _between(0, 4094))
    priority = vlan.take("priority", int, 0, _between(0, 7))
    vlan.end(("push", "pop", "priority"))
    vxlan, gre = table.take("vxlan", dict), table.take("gre", dict)
    if vxlan is not None and gre is not None:
        raise ConfigError(f"{where}: give vxlan or gre, not both")
    tunnel: Vxlan | Gre | None = None
    if vxlan is not None:
        inner = _Table(f"{where}.vxlan", vxlan)
        tunnel = Vxlan(
            local=_needed(inner, "local", str),
            remote=_needed(inner, "remote", str),
            vni=_needed(inner, "vni", int),
            port=inner.take("port", int, 4789),
        )
        inner.end(("local", "remote", "vni", "port"))
    if gre is not None:
        inner = _Table(f"{where}.gre", gre)
        tunnel = Gre(
            local=_needed(inner, "local", str),
            remote=_needed(inner, "remote", str),
            key=inner.take("key", int),
        )
        inner.end(("local", "remote", "key"))
    table.end(("name", "weight", "interface", "file", "mac", "mac_source", "vlan", "vxlan", "gre"))
    encap = Encap(
        strip_vlan=pop,
        mac_dst=mac,
        mac_src=mac_source,
        add_vlan=None if push is None else Vlan(vid=push, pcp=priority),
        tunnel=tunnel,
    )
    if file is not None and encap != Encap():
        raise ConfigError(
            f"{where}: mac, vlan, vxlan and gre work on interfaces, a file keeps frames as they came"
        )
    return OutputConfig(interface=interface, file=None if file is None else str(folder / file), encap=encap)


def _needed(table: _Table, key: str, kind: type[Any]) -> Any:
    value = table.take(key, kind)
    if value is None:
        raise ConfigError(f"{table.where}.{key}: is missing")
    return value


def _check_tags(window: DuplicatesConfig, outputs: Mapping[str, OutputConfig]) -> None:
    for name, output in outputs.items():
        if output.file is not None and not output.file.endswith((".pcapng", ".ntar")):
            raise ConfigError(f"server {name}: tagged duplicates need a .pcapng file (a comment is the tag)")
        if output.file is None and window.tag_vlan is None:
            raise ConfigError(
                "duplicates.tag_vlan: is missing: on an interface a VLAN tag of its own tells a duplicate"
            )
        if output.file is None and output.encap.add_vlan is not None:
            raise ConfigError(f"server {name}: tag_vlan and vlan.push cannot be told apart; drop one")
