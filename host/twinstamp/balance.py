# SPDX-License-Identifier: Apache-2.0
"""Frames to servers: groups, the lasting secret, the compiled stage (docs/balance.md)."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twinstamp_kernels import rules as kernels
from twinstamp_kernels.window import BACKENDS

from twinstamp.errors import ConfigError, InputError, OverloadError
from twinstamp.frames import FrameBatch, Port, linktypes_of
from twinstamp.not_understood import NotUnderstood
from twinstamp.rules import RuleSet, check_name

if TYPE_CHECKING:
    from twinstamp_kernels.gpu.device import Device

SECRET_BYTES = 32
MAX_SERVERS = 4096
MAX_WEIGHT = 65535
DEFAULT_BUCKETS = 65536
NO_SERVER = 0xFFFF

# Values of Verdicts.fate
FATE_SKIPPED = 0  # not judged: its keep was zero
FATE_FORWARDED = 1  # at least one copy
FATE_DROPPED = 2  # its rule says drop
FATE_NO_SERVER = 3  # no group of its rule has a living server
FATE_HELD = 4  # waits for its first fragment; comes back from take_released()


@dataclass(frozen=True, slots=True)
class Server:
    """A server and its share. weight: 0 to 65,535, relative within its group; 0 gets nothing."""

    name: str
    weight: int = 1

    def __post_init__(self) -> None:
        check_name(self.name, "server")
        if (
            not isinstance(self.weight, int)
            or isinstance(self.weight, bool)
            or not 0 <= self.weight <= MAX_WEIGHT
        ):
            raise ConfigError(
                f"server {self.name}: weight {self.weight!r}: must be a number from 0 to {MAX_WEIGHT}"
            )


@dataclass(frozen=True, slots=True)
class Group:
    """Servers that share the flows a rule sends to this name."""

    name: str
    servers: tuple[Server, ...]

    def __post_init__(self) -> None:
        check_name(self.name, "group")
        names = [server.name for server in self.servers]
        if not names:
            raise ConfigError(f"group {self.name}: has no server")
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"group {self.name}: server {twice} stands there twice; use its weight")
        if not any(server.weight for server in self.servers):
            raise ConfigError(f"group {self.name}: no server has a weight above 0, so none gets a frame")


def groups_from_table(table: Mapping[str, Any], *, name: str = "") -> tuple[Group, ...]:
    """Groups from the `group` table of a TOML document: [group.NAME] with servers = [name or {name, weight}].

    Raises ConfigError naming file, group and key.
    """
    where = f"{name}: " if name else ""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}'group' must be a table: write [group.NAME]")
    groups = []
    for group, entry in table.items():
        here = f"{where}group {group[:80]}"
        if (
            not isinstance(entry, Mapping)
            or set(entry) != {"servers"}
            or not isinstance(entry["servers"], list)
        ):
            raise ConfigError(f'{here}: has one key, servers = ["NAME", {{name = "NAME", weight = 2}}]')
        servers = []
        for server in entry["servers"]:
            try:
                if isinstance(server, Mapping):
                    if not {"name"} <= set(server) <= {"name", "weight"}:
                        raise ConfigError("a server has a name and may have a weight")
                    servers.append(Server(server["name"], server.get("weight", 1)))
                else:
                    servers.append(Server(server))
            except ConfigError as error:
                raise ConfigError(f"{here}: {error}") from None
        try:
            groups.append(Group(group, tuple(servers)))
        except ConfigError as error:
            raise ConfigError(f"{where}{error}") from None
    return tuple(groups)


class Secret:
    """The lasting random key of the balance: who knows it can aim flows at one server.

    It must outlive restarts, or each start would move most flows to other servers.
    """

    __slots__ = ("_raw", "path")

    def __init__(self, raw: bytes, path: Path | None = None) -> None:
        if len(raw) != SECRET_BYTES:
            raise ConfigError(f"{path or 'secret'}: {len(raw)} bytes; a balance secret has {SECRET_BYTES}")
        self._raw = raw
        self.path = path

    def __repr__(self) -> str:
        return f"Secret({str(self.path)!r})"

    @classmethod
    def random(cls) -> Secret:
        """A secret for this process only."""
        return cls(os.urandom(SECRET_BYTES))

    @classmethod
    def default_path(cls) -> Path:
        """$XDG_STATE_HOME/twinstamp/balance.key, by default under ~/.local/state."""
        state = os.environ.get("XDG_STATE_HOME", "")
        base = Path(state) if state.startswith("/") else Path.home() / ".local" / "state"
        return base / "twinstamp" / "balance.key"

    @classmethod
    def load(cls, path: str | Path | None = None) -> Secret:
        """Reads the secret, or makes one (32 random bytes, mode 0600) where there is none.

        Raises ConfigError where the file has another size, belongs to somebody else, is not a plain
        file, or others may read or write it.
        """
        place = cls.default_path() if path is None else Path(path)
        try:
            if not place.exists():
                cls._create(place)
            # Non-blocking: a FIFO in its place must not stop the program.
            handle = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                status = os.fstat(handle)
                if not stat.S_ISREG(status.st_mode):
                    raise ConfigError(f"{place}: is not a plain file; give another --secret-file")
                if status.st_uid not in (os.geteuid(), 0):
                    raise ConfigError(
                        f"{place}: belongs to user {status.st_uid}; a secret must be your own or root's"
                    )
                if status.st_mode & 0o077:
                    raise ConfigError(
                        f"{place}: mode {stat.S_IMODE(status.st_mode):04o} lets others at the secret; "
                        "chmod 600 it, or remove it to get a new one (flows will move)"
                    )
                if status.st_size != SECRET_BYTES:
                    raise ConfigError(
                        f"{place}: {status.st_size} bytes; a balance secret has {SECRET_BYTES}. "
                        "Restore it, or remove it to get a new one (flows will move)"
                    )
                raw = os.read(handle, SECRET_BYTES)
            finally:
                os.close(handle)
        except OSError as error:
            raise ConfigError(
                f"{place}: cannot be read or made: {error.strerror}; give --secret-file"
            ) from None
        return cls(raw, place)

    @staticmethod
    def _create(place: Path) -> None:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = place.with_name(f".{place.name}.{os.getpid()}.{os.urandom(4).hex()}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(os.urandom(SECRET_BYTES))
                file.flush()
                os.fsync(file.fileno())
            # A link appears whole or not at all, and leaves another process' secret alone.
            with contextlib.suppress(FileExistsError):
                os.link(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)

    def derive(self, purpose: str, size: int) -> bytes:
        """`size` bytes for one purpose, by SHAKE-256 (FIPS 202)."""
        return hashlib.shake_256(b"twinstamp balance 1\0" + self._raw + purpose.encode()).digest(size)


class Verdicts(NamedTuple):
    """What the stage says of a batch of n frames and its m copies. Views; valid while they are held.

    rule: i32[n], -1 none. hash: u64[n], the flow hash, 0 where not judged yet. fate: u8[n], FATE_*.
    copy_frame: u32[m] index into the batch, ascending. copy_server: u16[m] index into
    Classifier.servers. held: u32[] frames that wait for their first fragment; the stage has a copy.
    """

    rule: memoryview
    hash: memoryview
    fate: memoryview
    copy_frame: memoryview
    copy_server: memoryview
    held: memoryview


class Released(NamedTuple):
    """Held fragments let go. frame: u64[n], numbers of the frames in the stream, from 0."""

    batch: FrameBatch
    frame: memoryview
    verdicts: Verdicts


@dataclass(frozen=True, slots=True, kw_only=True)
class FragmentLimits:
    """Bounds of the fragment table. entries: datagrams. hold_bytes: of frames held, each with 256 bytes
    of bookkeeping. hold_ns: how long a fragment waits for the first one, 0: not at all. lifetime_ns: how
    long a datagram is remembered."""

    entries: int = 65536
    hold_bytes: int = 16 << 20
    hold_ns: int = 10_000_000
    lifetime_ns: int = 30_000_000_000

    def __post_init__(self) -> None:
        for name, low, high in (
            ("entries", 1, 1 << 24),
            ("hold_bytes", 0, 1 << 40),
            ("hold_ns", 0, 10_000_000_000),
            ("lifetime_ns", 0, 1 << 60),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"fragments: {name} {value}: must be {low} to {high}")
        if self.lifetime_ns < self.hold_ns:
            raise ConfigError(
                f"fragments: lifetime_ns {self.lifetime_ns} is shorter than hold_ns {self.hold_ns}"
            )


class Classifier:
    """Rules and balance over FrameBatches, compiled, on `workers` threads.

    servers: names, in the order that Verdicts.copy_server counts them. Output order is stream order, but
    for held fragments, which come back through take_released(). Verdicts depend neither on how the
    stream is cut into batches nor on workers.

    layer: "outer" or "inner" headers. hash: "flow" (endpoints and protocol, fragments follow the first)
    or "ip" (addresses only, no state). follow_icmp: an ICMP error that no rule matches
    takes the rule of the packet it quotes. memory_limit: bytes that compiled rules may take.
    cache_entries: flows remembered per worker, a power of two, 0: none. buckets: power of two.
    backend, device, warn: as for twinstamp_kernels.window.Window.

    Raises ConfigError for a group that is not given, for limits out of range, and for backend "gpu" where
    there is none.
    """

    def __init__(
        self,
        rules: RuleSet,
        *,
        groups: Sequence[Group] = (),
        secret: Secret | None = None,
        layer: str = "outer",
        hash: str = "flow",
        follow_icmp: bool = True,
        workers: int = 1,
        fragments: FragmentLimits | None = None,
        memory_limit: int = 512 << 20,
        cache_entries: int = 65536,
        buckets: int = DEFAULT_BUCKETS,
        backend: str = "cpu",
        device: Device | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        if layer not in ("outer", "inner"):
            raise ConfigError(f"layer {layer!r}: must be 'outer' or 'inner'")
        if hash not in ("flow", "ip"):
            raise ConfigError(f"hash {hash!r}: must be 'flow' or 'ip'")
        if not 1 <= workers <= 256:
            raise ConfigError(f"workers {workers}: must be 1 to 256")
        if buckets < 1 or buckets > 1 << 20 or buckets & (buckets - 1):
            raise ConfigError(f"buckets {buckets}: must be a power of two, at most 1048576")
        if cache_entries and (not 4 <= cache_entries <= 1 << 24 or cache_entries & (cache_entries - 1)):
            raise ConfigError(
                f"cache_entries {cache_entries}: must be 0 or a power of two from 4 to 16777216"
            )
        if backend not in BACKENDS:
            raise ConfigError(f"unknown backend {backend!r}: choose one of {', '.join(BACKENDS)}")
        limits = fragments or FragmentLimits()
        self.rules = rules
        self._secret = secret or Secret.random()
        self._bits = buckets.bit_length() - 1
        flow_key = self._secret.derive("flow", kernels.FLOW_KEY_BYTES)

        def compiled() -> Any:
            return kernels.Classifier(
                rules=rules.pack(),
                memory_limit=memory_limit,
                flow_key=flow_key,
                inner=layer == "inner",
                by_ip=hash == "ip",
                follow_icmp=follow_icmp,
                workers=workers,
                cache_entries=cache_entries,
                fragment_entries=limits.entries,
                hold_bytes=limits.hold_bytes,
                hold_ns=limits.hold_ns,
                lifetime_ns=limits.lifetime_ns,
            )

        try:
            self._native = compiled()
        except ValueError as error:
            raise ConfigError(
                f"{rules.name or 'rules'}: {error}; "
                "use fewer rules, or rules with fewer different prefixes and ports"
            ) from None
        except (RuntimeError, MemoryError) as error:
            raise OverloadError(f"rules with {workers} workers: {error}; use fewer workers") from error
        self._switch: Any = None
        if backend != "cpu":
            from twinstamp_kernels.backend import NoDevice, SwitchingClassifier

            try:
                self._switch = SwitchingClassifier(backend, device, self._native, compiled, warn)
            except NoDevice as error:
                raise ConfigError(str(error)) from error
            self._native = self._switch
        self._ports: Sequence[Port] = ()
        self.not_understood = NotUnderstood(layer, (), workers)
        self._set_groups(groups)

    def _set_groups(self, groups: Sequence[Group]) -> None:
        known = {group.name: group for group in groups}
        if len(known) != len(groups):
            raise ConfigError("two groups have the same name")
        wanted = self.rules.groups
        if groups:
            for name in wanted:
                if name not in known:
                    raise ConfigError(
                        f"{self.rules.name or 'rules'}: group {name} has no servers: add [group.{name}]"
                    )
            self._groups = tuple(known[name] for name in wanted)
        else:
            self._groups = ()
        names = dict.fromkeys(server.name for group in groups for server in group.servers)
        if len(names) > MAX_SERVERS:
            raise ConfigError(f"{len(names)} servers; at most {MAX_SERVERS}")
        self.servers: tuple[str, ...] = tuple(names)
        self._alive = dict.fromkeys(self.servers, True)
        self._table: memoryview = memoryview(b"")  # made by _build()

        number = {name: index for index, name in enumerate(wanted)}
        actions: dict[tuple[str, ...], int] = {}
        of_rule = [actions.setdefault(self.rules.default, 0)]
        for rule in self.rules.rules:
            action = self.rules.default if rule.action is None else rule.action
            of_rule.append(actions.setdefault(action, len(actions)))
        first, members = [0], []
        for action in actions:
            members += [number[group] for group in action]
            first.append(len(members))
        self._native.set_actions(kernels.u32(of_rule), kernels.u32(first), kernels.u16(members))
        self._build()

    def _build(self, changed: Iterable[str] = ()) -> None:
        """Tables of all groups; changed: the only servers whose states the tables there are do not have."""
        if not self._groups:
            return
        number = {name: index for index, name in enumerate(self.servers)}
        ids = [int.from_bytes(self._secret.derive(f"server {name}", 8), "little") for name in self.servers]
        first, members, weights = [0], [], []
        for group in self._groups:
            members += [number[server.name] for server in group.servers]
            weights += [server.weight for server in group.servers]
            first.append(len(members))
        self._table = kernels.build_tables(
            key=int.from_bytes(self._secret.derive("buckets", 8), "little"),
            server_id=kernels.u64(ids),
            alive=bytes(self._alive[name] for name in self.servers),
            group_first=kernels.u32(first),
            member_server=kernels.u16(members),
            member_weight=kernels.u32(weights),
            bucket_bits=self._bits,
            before=self._table if changed else None,
            changed=bytes(name in changed for name in self.servers) if changed else None,
        )
        self._native.set_servers(self._table, self._bits, len(self.servers))

    @property
    def table(self) -> memoryview:
        """Server of each bucket, u16[groups * buckets], groups as in rules.groups; 0xFFFF: none alive."""
        return self._table

    def set_alive(self, name: str, alive: bool) -> None:
        """Takes a server out of all its groups, or back in, from the next batch on: only its flows move."""
        self.set_states({name: alive})

    def set_states(self, states: Mapping[str, bool]) -> None:
        """As set_alive() for several servers at once."""
        for name in states:
            if name not in self._alive:
                raise ConfigError(f"server {name}: unknown; known are {', '.join(self.servers)}")
        changed = [name for name, alive in states.items() if self._alive[name] != bool(alive)]
        self._alive.update(states)
        if changed:
            self._build(changed)

    @property
    def alive(self) -> Mapping[str, bool]:
        return dict(self._alive)

    def process(self, batch: FrameBatch, keep: Any = None, *, first: int | None = None) -> Verdicts:
        """Judges the frames of a batch in stream order.

        keep: u8[n] or bool[n], nonzero = judge; None = all. first: number of the batch's first frame in
        the stream, from 0; default batch.first. The batch may be released afterwards.

        Raises InputError where a frame lies outside the batch's buffer.
        """
        self._ports = batch.ports
        if keep is not None:
            keep = memoryview(keep)
            if keep.format != "B":
                keep = keep.cast("B")
        lent = {} if self._switch is None else {"frames": batch.on_device}
        try:
            out = self._native.process(
                *batch.raw,
                linktypes_of(batch.ports),
                keep,
                batch.first if first is None else first,
                **lent,
            )
            self.not_understood.add(batch, keep)
        except ValueError as error:
            raise InputError(str(error)) from None
        return Verdicts(*out)

    def take_released(self) -> Released | None:
        """Held fragments that were let go since the last call, or None. To be called after process(),
        release_due() and flush(), until it returns None."""
        got = self._native.take_released()
        if got is None:
            return None
        columns, frame, verdicts = got
        return Released(FrameBatch(columns, ports=self._ports), frame, Verdicts(*verdicts))

    def release_due(self, now_ns: int) -> None:
        """Lets go of fragments held for longer than allowed at now_ns, on the clock of the frames' stamps.

        For live input, where no frame may come that moves the clock. take_released() has them.
        """
        self._native.release_due(now_ns)

    def flush(self) -> None:
        """Lets all held fragments go, at the end of the stream. take_released() has them."""
        self._native.flush()

    @property
    def held_now(self) -> int:
        """Frames held at the moment."""
        return int(self._native.held_now())

    @property
    def oldest_held(self) -> int | None:
        """Number in the stream of the frame held longest, None: none is held."""
        return self._native.oldest_held() if self._native.held_now() else None

    @property
    def table_bytes(self) -> int:
        """Bytes of the compiled rules."""
        return int(self._native.table_bytes)

    def counts(self) -> dict[str, Any]:
        """Counters since the start.

        "skipped", "forwarded", "dropped", "no_server", "held": (frames, captured bytes); a held frame
        counts again under its later fate. "servers": [(copies, bytes)] in the order of `servers`.
        "copies_without_server": copies of groups without a living server. "held_now", "held_now_bytes":
        at the moment. "fragments_*", "icmp_followed", "cache_hits", "cache_misses": see docs/balance.md.
        "not_understood": see NotUnderstood.as_dict.
        """
        counts: dict[str, Any] = self._native.counts()
        counts["not_understood"] = self.not_understood.as_dict()
        return counts

    def backend(self) -> dict[str, Any]:
        """Where frames are judged: name ("cpu", "gpu"; "auto": no frame yet), reason, events."""
        if self._switch is None:
            return {"name": "cpu", "reason": "asked for", "events": []}
        return {
            "name": self._switch.name,
            "reason": self._switch.reason,
            "events": list(self._switch.events),
        }

    def close(self) -> None:
        """Gives back what it holds of a GPU; counts() still answers."""
        if self._switch is not None:
            self._switch.close()


def server_mask(verdicts: Verdicts, server: int) -> bytes:
    """u8[n]: the frames of a batch that go to one server, as CaptureWriter.write takes it."""
    return kernels.server_mask(verdicts.copy_frame, verdicts.copy_server, server, len(verdicts.rule))


def numbered_servers(names: str) -> tuple[Server, ...]:
    """Servers from "4" (server1 to server4) or "a,b:3,c" (names, with weights). Raises ConfigError."""
    if names.isascii() and names.isdigit():
        count = int(names) if len(names) < 20 else 0
        if not 1 <= count <= MAX_SERVERS:
            raise ConfigError(f"--servers {names}: must be 1 to {MAX_SERVERS}, or names")
        return tuple(Server(f"server{number}") for number in range(1, count + 1))
    servers = []
    for part in names.split(","):
        name, colon, weight = part.strip().partition(":")
        if colon and not (weight.isascii() and weight.isdigit()):
            raise ConfigError(f"--servers: {part.strip()!r}: the weight behind ':' must be a number")
        servers.append(Server(name, int(weight[:9]) if colon else 1))
    return tuple(servers)


def same_servers(rules: RuleSet, servers: Iterable[Server]) -> tuple[Group, ...]:
    """One group with these servers for each group name that the rules mention."""
    members = tuple(servers)
    return tuple(Group(name, members) for name in rules.groups)
