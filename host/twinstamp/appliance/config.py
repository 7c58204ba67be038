# SPDX-License-Identifier: Apache-2.0
"""The appliance file: TOML in, frozen records out, each mistake named with its key (docs/appliance.md)."""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from twinstamp_kernels.verdicts import tunnel_ends
from twinstamp_kernels.window import BACKENDS, CLASSES, GUARD_NAMES, LAYERS, MAX_WINDOW, PROFILES

from twinstamp.appliance.stages import load_stage
from twinstamp.balance import Classifier, FragmentLimits, Group, Secret, Server
from twinstamp.dedup import ACTIONS, DEFAULT_KEEP, Deduplicator
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.frames import LINKTYPE_ETHERNET
from twinstamp.io import bpf
from twinstamp.io.files import open_capture
from twinstamp.io.live import Encap, Gre, Vlan, Vxlan, check_interface, check_interface_name
from twinstamp.paths import refuse_same
from twinstamp.rules import DEFAULT_GROUP, RuleSet, check_name, read_rules
from twinstamp.toml_table import Table, between, one_of, read_toml


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
    guard: str = "ttl"
    tunnels: tuple[str, ...] = ()
    ignore_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class OutputConfig:
    """Where a server's frames go: an interface (with what is done to each frame), or a capture file."""

    interface: str | None = None
    file: str | None = None
    encap: Encap = field(default_factory=Encap)


@dataclass(frozen=True, kw_only=True)
class StageConfig:
    """A stage of the user's own (docs/stages.md): a class in a Python file, and what it is made with."""

    name: str
    file: Path
    attribute: str
    options: Mapping[str, Any]


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
    hub_mib: int | None = None  # None: by the number of readers
    stages: tuple[StageConfig, ...] = ()
    control: Path | None = None  # the control socket
    path: Path | None = None  # of the appliance file itself

    @property
    def written(self) -> dict[str, str | Path | None]:
        """Files that a run writes, by the key that names them."""
        files = {f"server {name}: file": output.file for name, output in self.outputs.items()}
        return {"appliance.report": self.report, "appliance.control": self.control, **files}

    @property
    def read(self) -> list[str | Path | None]:
        """Files that a run reads."""
        return [
            self.path,
            self.rules_file,
            self.secret_file or Secret.default_path(),
            *(stage.file for stage in self.stages),
            *self.captures,
        ]

    @property
    def captures(self) -> list[str]:
        """Captures that a run reads, "-" for standard input."""
        files = [source.file for source in self.sources if source.file is not None]
        return files if self.card is None else [self.card.play]


def load_appliance(path: str | Path) -> ApplianceConfig:
    """Reads an appliance file. Raises ConfigError naming file, table and key.

    Looks at the file alone and at the names in it: check_appliance() asks this machine.
    """
    place = Path(path)
    document = read_toml(place)
    try:
        config = replace(parse_appliance(document, place.parent), path=place)
        _check_files(config)
    except ConfigError as error:
        raise ConfigError(f"{place}: {error}") from error
    return config


def _check_files(config: ApplianceConfig) -> None:
    """Nothing that is written is read as well, or written twice."""
    written: list[str | Path | None] = []
    for what, path in config.written.items():
        refuse_same(path, *config.read, *written, what=what)
        written.append(path)


def check_machine(config: ApplianceConfig, *, secret_too: bool = True) -> None:
    """What the file names and this machine must have: the user, libpcap's word on the filters, the secret (if
    secret_too).

    Needs no rights and makes nothing. Raises ConfigError naming the key; DeviceError where libpcap is absent.
    """
    if config.user is not None:
        find_user(config.user)
    taken = {source.interface for source in config.sources if source.interface is not None}
    for name, output in config.outputs.items():
        if output.interface in taken and output.encap.tunnel is None:
            raise ConfigError(
                f"server {name}: interface {output.interface} is a source too: what goes out could come "
                "back in; give the server an interface of its own, or a tunnel"
            )
    for i, source in enumerate(config.sources):
        if source.filter is None or source.interface is None:
            continue
        linktype = LINKTYPE_ETHERNET
        with contextlib.suppress(DeviceError):  # the interface may come later
            linktype = check_interface(source.interface)
        try:
            bpf.compile_filter(source.filter, linktype=linktype)
        except ConfigError as error:
            raise ConfigError(f"source[{i}].filter: {error}") from None
    secret = config.secret_file or Secret.default_path()
    if secret_too and secret.exists():
        Secret.load(secret)


def check_appliance(config: ApplianceConfig) -> None:
    """All that a run would refuse and that can be told without rights and without touching a file's content:
    check_machine(), the rules with their groups, the window's options, the captures to be read, the classes
    of stages (whose files are run for that).

    Raises ConfigError, DeviceError, InputError.
    """
    check_machine(config)
    compile_rules(config, secret=Secret.random()).close()
    if config.duplicates is not None:
        open_window(replace(config.duplicates, limit=2, window=2), workers=1).close()
    for stage in config.stages:
        load_stage(stage)
    for path in config.captures:
        if path != "-" and not Path(path).is_fifo():
            open_capture(path).close()


def find_user(name: str) -> pwd.struct_passwd:
    """The user that an appliance becomes. Raises ConfigError where there is none of this name."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"appliance.user: there is no user {name!r}") from None


def open_window(window: DuplicatesConfig, **options: Any) -> Deduplicator:
    """The duplicate window that the file describes; options: workers, backend, device, warn."""
    return Deduplicator(
        profile=window.profile,
        layer=window.layer,
        window=window.window,
        time_ns=window.time_ns,
        limit=window.limit,
        ignore_bytes=window.ignore_bytes,
        keep=window.keep,
        guard=window.guard,
        tunnels=window.tunnels,
        **options,
    )


def compile_rules(config: ApplianceConfig, *, secret: Secret, **options: Any) -> Classifier:
    """The rules with their groups, compiled; options: backend, device, warn."""
    rules = RuleSet() if config.rules_file is None else read_rules(config.rules_file, config.rules_format)
    if rules.default == (DEFAULT_GROUP,) and DEFAULT_GROUP not in {group.name for group in config.groups}:
        rules = replace(rules, default=config.default)
    return Classifier(
        rules,
        groups=config.groups,
        secret=secret,
        layer=config.layer,
        hash=config.hash,
        workers=config.workers,
        fragments=config.fragments,
        **options,
    )


def parse_appliance(document: Mapping[str, Any], folder: Path) -> ApplianceConfig:
    """An appliance from a parsed document; folder: what relative paths start from."""
    top = Table("file", dict(document))
    main = Table("appliance", top.take("appliance", dict, {}))
    report = main.take("report", str)
    reorder_ms = main.take("reorder_ms", float, 2.0, between(0, 1000))
    reorder_mib = main.take("reorder_mib", int, 64, between(2, 65536))
    workers = main.take("workers", int, 1, between(1, 256))
    batch_frames = main.take("batch_frames", int, 1024, between(1, 1 << 20))
    user = main.take("user", str)
    realtime = main.take("realtime", bool, False)
    control = main.take("control", str)
    hub_mib = main.take("hub_mib", int, None, between(2, 65536))
    backend = main.take("backend", str, "cpu", one_of(BACKENDS))
    main.end()

    card: CardConfig | None = None
    sources: tuple[SourceConfig, ...] = ()
    if isinstance(document.get("source"), str):
        top.take("source", str, check=one_of(("card:sim",)))
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

    balance = Table("balance", top.take("balance", dict, {}))
    rules, classbench = balance.take("rules", str), balance.take("classbench", str)
    if rules is not None and classbench is not None:
        raise ConfigError("balance: give rules or classbench, not both")
    hash_name = balance.take("hash", str, "flow", one_of(("flow", "ip")))
    layer = balance.take("layer", str, "outer", one_of(tuple(LAYERS)))
    secret_file = balance.take("secret_file", str)
    default_group = balance.take("default_group", str)
    defaults = FragmentLimits()
    fragments = FragmentLimits(
        entries=balance.take("fragment_entries", int, defaults.entries),
        hold_bytes=balance.take("fragment_hold_bytes", int, defaults.hold_bytes),
        hold_ns=balance.time_ns("fragment_hold", "10ms"),
        lifetime_ns=balance.time_ns("fragment_lifetime", "30s"),
    )
    balance.end()

    groups, outputs = _groups(top.take("group", list, []), folder)
    stages = tuple(
        _stage(f"stage[{i}]", table, folder) for i, table in enumerate(top.take("stage", list, []))
    )
    if len({stage.name for stage in stages}) != len(stages):
        raise ConfigError("two stages have the same name: give them names of their own")
    top.end()
    if default_group is None:
        default_group = groups[0].name
    elif default_group != "drop" and default_group not in {group.name for group in groups}:
        raise ConfigError(
            f"balance.default_group: {default_group!r} is not a [[group]]: add it, or name another one"
        )
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
        hub_mib=hub_mib,
        stages=stages,
        control=None if control is None else folder / control,
    )


def _source(where: str, value: Any, folder: Path) -> SourceConfig:
    table = Table(where, value)
    interface, file = table.take("interface", str), table.take("file", str)
    if (interface is None) == (file is None):
        raise ConfigError(f"{where}: give interface or file, one of the two")
    if interface is not None:
        _check_name(where, interface)
    expression = table.take("filter", str)
    if file is not None and expression:
        raise ConfigError(
            f"{where}.filter: works on interfaces only; filter the file with tcpdump -r … -w - first"
        )
    source = SourceConfig(
        interface=interface,
        file=None if file is None else file if file == "-" else str(folder / file),
        filter=expression or None,
        ring_mib=table.take("ring_mib", int, 64, between(1, 65536)),
        promiscuous=table.take("promiscuous", bool, True),
    )
    table.end()
    return source


def _stage(where: str, value: Any, folder: Path) -> StageConfig:
    table = Table(where, value)
    module = table.need("module", str)
    file, _, attribute = module.rpartition(":")
    if not file or not attribute.isidentifier():
        raise ConfigError(f'{where}.module: {module!r} must be "FILE.py:CLASS"')
    try:
        name = check_name(table.take("name", str, attribute), "stage")
    except ConfigError as error:
        raise ConfigError(f"{where}.name: {error}") from None
    options = table.take("options", dict, {})
    table.end()
    return StageConfig(name=name, file=folder / file, attribute=attribute, options=options)


def _check_name(where: str, interface: str) -> None:
    try:
        check_interface_name(interface)
    except ConfigError as error:
        raise ConfigError(f"{where}.interface: {error}") from None


def _card(value: Any, folder: Path) -> CardConfig:
    table = Table("card", value)
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

    config = CardConfig(
        play=play if play == "-" else str(folder / play),
        ports=tuple(numbers("ports", 0, 3, int)) or (0,),
        speed=table.take("speed", float, 1.0, between(0.001, 1e6)),
        longest_gap_ns=table.time_ns("longest_gap", "10us"),
        clocks_ppb=tuple(numbers("clocks_ppb", -1_000_000, 1_000_000, int, float)),
        seed=table.take("seed", int, 1, between(0, (1 << 64) - 1)),
        block_log2=table.take("block_log2", int, 16, between(14, 22)),
        blocks_log2=table.take("blocks_log2", int, 6, between(1, 15)),
    )
    table.end()
    return config


def _duplicates(value: Any) -> DuplicatesConfig:
    table = Table("duplicates", value)
    profile = table.take("profile", str, "exact", one_of(tuple(PROFILES)))
    keep = table.take("keep", list, list(DEFAULT_KEEP))
    for name in keep:
        if not isinstance(name, str) or name not in CLASSES:
            raise ConfigError(f"duplicates.keep: {name!r} is no frame class; known are {', '.join(CLASSES)}")
    tunnels = table.take("tunnels", list, [])
    if not all(isinstance(name, str) for name in tunnels):
        raise ConfigError('duplicates.tunnels: give addresses, networks or "mpls", each in quotes')
    try:
        tunnel_ends(tunnels)
    except ValueError as error:
        raise ConfigError(f"duplicates.tunnels: {error}") from None
    result = DuplicatesConfig(
        profile=profile,
        layer=table.take("layer", str, "outer", one_of(tuple(LAYERS))),
        window=table.take("window", int, None, between(2, MAX_WINDOW)),
        time_ns=table.time_ns("time"),
        limit=table.take("limit", int, MAX_WINDOW, between(2, 1 << 28)),
        # Dropping what NAT changed leaves half-flows and lets a decoy hide a packet: it must be asked for.
        action=table.take("action", str, "tag" if profile == "nat" else "drop", one_of(ACTIONS)),
        tag_vlan=table.take("tag_vlan", int, None, between(1, 4094)),
        keep=tuple(keep),
        # A decoy with a small TTL before the packet it is to hide: the packet's own is larger.
        guard=table.take("guard", str, "ttl", one_of(GUARD_NAMES)),
        tunnels=tuple(tunnels),
        ignore_bytes=table.take("ignore_bytes", int, 0, between(0, 262144)),
    )
    table.end()
    if result.tunnels and result.layer != "inner":
        raise ConfigError('duplicates.tunnels: tunnels are opened with layer = "inner" only')
    if result.window is None and result.time_ns is None:
        raise ConfigError('duplicates: give window = FRAMES, time = "50ms", or both')
    return result


def _groups(entries: list[Any], folder: Path) -> tuple[tuple[Group, ...], dict[str, OutputConfig]]:
    if not entries:
        raise ConfigError("no [[group]]: add one with [[group.server]] entries")
    outputs: dict[str, OutputConfig] = {}
    groups = []
    for i, entry in enumerate(entries):
        table = Table(f"group[{i}]", entry)
        name = table.take("name", str)
        if name is None:
            raise ConfigError(f"group[{i}]: has no name")
        servers = []
        for k, value in enumerate(table.take("server", list, [])):
            where = f"group[{i}].server[{k}]"
            server = Table(where, value)
            server_name = server.take("name", str)
            if server_name is None:
                raise ConfigError(f"{where}: has no name")
            servers.append(Server(server_name, server.take("weight", int, 1)))
            output = _output(where, server, folder)
            if output == OutputConfig() and server_name in outputs:
                continue  # a server of two groups is described once
            if outputs.setdefault(server_name, output) != output:
                raise ConfigError(f"{where}: server {server_name} is described twice, differently")
        table.end()
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


def _output(where: str, table: Table, folder: Path) -> OutputConfig:
    interface, file = table.take("interface", str), table.take("file", str)
    if interface is not None and file is not None:
        raise ConfigError(f"{where}: give interface or file, not both")
    if interface is not None:
        _check_name(where, interface)
    if file == "-":
        raise ConfigError(f"{where}.file: a server cannot write to standard output: name a file, or a FIFO")
    mac, mac_source = table.take("mac", str), table.take("mac_source", str)
    vlan = Table(f"{where}.vlan", table.take("vlan", dict, {}))
    pop, push = vlan.take("pop", bool, False), vlan.take("push", int, None, between(0, 4094))
    priority = vlan.take("priority", int, 0, between(0, 7))
    vlan.end()
    vxlan, gre = table.take("vxlan", dict), table.take("gre", dict)
    if vxlan is not None and gre is not None:
        raise ConfigError(f"{where}: give vxlan or gre, not both")
    tunnel: Vxlan | Gre | None = None
    if vxlan is not None:
        inner = Table(f"{where}.vxlan", vxlan)
        tunnel = Vxlan(
            local=inner.need("local", str),
            remote=inner.need("remote", str),
            vni=inner.need("vni", int),
            port=inner.take("port", int, 4789),
        )
        inner.end()
    if gre is not None:
        inner = Table(f"{where}.gre", gre)
        tunnel = Gre(
            local=inner.need("local", str),
            remote=inner.need("remote", str),
            key=inner.take("key", int),
        )
        inner.end()
    table.end()
    encap = Encap(
        strip_vlan=pop,
        mac_dst=mac,
        mac_src=mac_source,
        add_vlan=None if push is None else Vlan(vid=push, pcp=priority),
        tunnel=tunnel,
    )
    try:
        encap.check()
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if file is not None and encap != Encap():
        raise ConfigError(
            f"{where}: mac, vlan, vxlan and gre work on interfaces, a file keeps frames as they came"
        )
    return OutputConfig(interface=interface, file=None if file is None else str(folder / file), encap=encap)


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
