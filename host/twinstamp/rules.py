# SPDX-License-Identifier: Apache-2.0
"""Ordered rules over packets: records, TOML and ClassBench files, checks (docs/rules.md).

The first rule that matches wins. Rules count from 0.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from twinstamp.errors import ConfigError
from twinstamp.toml_table import parse_toml, read_text

MAX_RULES = 100_000
MAX_LINE_BYTES = 4096
MAX_GROUPS = 1024
ANY_PORT = (0, 65535)
DEFAULT_GROUP = "default"
DROP = "drop"

# Names of https://www.iana.org/assignments/protocol-numbers that people write in rules.
PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "rsvp": 46, "gre": 47,
    "esp": 50, "ah": 51, "icmpv6": 58, "eigrp": 88, "ospf": 89, "pim": 103, "vrrp": 112, "l2tp": 115,
    "sctp": 132, "udplite": 136,
}  # fmt: skip
_PORT_PROTOCOLS = frozenset((6, 17, 33, 132, 136))
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

# The packed form that the compiled classifier reads (cpu/rules.cpp, PackedRule), 64 bytes.
_PACKED = struct.Struct("=4Q2i6H4BB7x")
_WORD = (1 << 64) - 1


class Prefix(NamedTuple):
    """An IPv4 or IPv6 prefix: family 4 or 6, address as an integer, number of bits."""

    family: int
    address: int
    bits: int

    @classmethod
    def parse(cls, text: str, *, strict: bool = True) -> Prefix:
        """Reads "10.0.0.0/8" or "2001:db8::/32"; without a length, one address.

        strict: refuse bits set behind the prefix; otherwise they are cleared, as ClassBench means them.
        Raises ValueError.
        """
        import ipaddress

        address, slash, length = text.strip().partition("/")
        ip = ipaddress.ip_address(address)
        if "%" in address:
            raise ValueError(f"'{text}' has a zone; a prefix has none")
        width = 32 if ip.version == 4 else 128
        bits = width
        if slash:
            if not (length.isascii() and length.isdigit()) or int(length[:6]) > width:
                raise ValueError(f"'{text}': prefix length must be 0 to {width}")
            bits = int(length)
        value = int(ip)
        masked = value >> (width - bits) << (width - bits)
        if strict and masked != value:
            network = type(ip)(masked)
            raise ValueError(f"'{text}' has bits set behind its prefix; write {network}/{bits}")
        return cls(ip.version, masked, bits)

    @property
    def words(self) -> tuple[int, int]:
        """The address as two 64-bit words; IPv4 in the upper half of the first."""
        if self.family == 4:
            return self.address << 32, 0
        return self.address >> 64, self.address & _WORD

    def __str__(self) -> str:
        import ipaddress

        kind = ipaddress.IPv4Address if self.family == 4 else ipaddress.IPv6Address
        return f"{kind(self.address)}/{self.bits}"


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. A field left at its default accepts every packet, also one without that field.

    source, destination: Prefix; any prefix, also 0.0.0.0/0, accepts its own family only.
    source_port, destination_port: inclusive; less than 0-65535 needs a packet whose ports are known.
    protocol: IP protocol number. vlan: outermost VLAN id. tcp_flags: (value, mask) over the lower
    12 bits of the TCP header's flags word (FIN 0x01, SYN 0x02, … CWR 0x80); needs a TCP header.
    icmp: (value, mask) over type << 8 | code; needs an ICMP or ICMPv6 header.
    either_direction: also matches with source and destination exchanged.
    action: groups that get a copy each; () drops; None is the default action of the rule set.
    line: where the rule stands in its file, 0: nowhere.
    """

    source: Prefix | None = None
    destination: Prefix | None = None
    source_port: tuple[int, int] = ANY_PORT
    destination_port: tuple[int, int] = ANY_PORT
    protocol: int | None = None
    vlan: int | None = None
    tcp_flags: tuple[int, int] | None = None
    icmp: tuple[int, int] | None = None
    either_direction: bool = False
    action: tuple[str, ...] | None = None
    line: int = field(default=0, compare=False)

    def __post_init__(self) -> None:
        for name in ("source_port", "destination_port"):
            low, high = getattr(self, name)
            if not 0 <= low <= high <= 65535:
                raise ConfigError(f"{name} {low}-{high}: a range goes upwards within 0 to 65535")
        if self.protocol is not None and not 0 <= self.protocol <= 255:
            raise ConfigError(f"protocol {self.protocol}: must be 0 to 255")
        if self.vlan is not None and not 0 <= self.vlan <= 4095:
            raise ConfigError(f"vlan {self.vlan}: must be 0 to 4095")
        if self.source and self.destination and self.source.family != self.destination.family:
            raise ConfigError(
                f"source {self.source} and destination {self.destination} are of different families: "
                "no packet matches; write two rules"
            )
        if self.tcp_flags and self.icmp:
            raise ConfigError("tcp_flags and icmp in one rule: no packet matches; write two rules")
        for name, limit in (("tcp_flags", 0xFFF), ("icmp", 0xFFFF)):
            pair = getattr(self, name)
            if pair is not None:
                value, mask = pair
                if not 0 <= mask <= limit or not 0 <= value <= limit:
                    raise ConfigError(f"{name} 0x{value:x}/0x{mask:x}: must be within 0 to 0x{limit:x}")
                if value & ~mask:
                    raise ConfigError(
                        f"{name} 0x{value:02x}/0x{mask:02x}: "
                        "value has bits outside its mask, no packet matches"
                    )
        if self.tcp_flags and self.protocol not in (None, 6):
            raise ConfigError(f"tcp_flags with protocol {self.protocol}: only TCP (6) has flags")
        if self.icmp and self.protocol not in (None, 1, 58):
            raise ConfigError(f"icmp with protocol {self.protocol}: only ICMP (1) and ICMPv6 (58) have types")

    def impossible(self) -> str | None:
        """Why no packet can match this rule, or None."""
        if (self.source_port, self.destination_port) != (ANY_PORT, ANY_PORT):
            if self.icmp:
                return "it wants ports and an ICMP type, and ICMP has no ports"
            if self.protocol is not None and self.protocol not in _PORT_PROTOCOLS:
                return f"it wants ports, and protocol {self.protocol} has none"
        return None

    def pack(self) -> bytes:
        """The rule as the compiled classifier reads it: 64 bytes."""
        source, destination = self.source, self.destination
        family = source.family if source else destination.family if destination else 0
        kind, value, mask = 0, 0, 0
        if self.tcp_flags is not None:
            # The classifier's word has the flags byte above the four bits that precede it.
            kind, value, mask = 1, *(((flags & 0xFF) << 8) | flags >> 8 for flags in self.tcp_flags)
        elif self.icmp is not None:
            kind, value, mask = 2, *self.icmp
        return _PACKED.pack(
            *(source.words if source else (0, 0)),
            *(destination.words if destination else (0, 0)),
            -1 if self.protocol is None else self.protocol,
            -1 if self.vlan is None else self.vlan,
            *self.source_port,
            *self.destination_port,
            value,
            mask,
            kind,
            family,
            source.bits if source else 0,
            destination.bits if destination else 0,
            self.either_direction,
        )


@dataclass(frozen=True, slots=True)
class RuleSet:
    """Rules in their order, and what becomes of a packet that none matches.

    default: groups that get a copy each; () drops. name: file or label, for messages.
    Raises ConfigError where there are more than 100,000 rules or 1,024 groups.
    """

    rules: tuple[Rule, ...] = ()
    default: tuple[str, ...] = (DEFAULT_GROUP,)
    name: str = ""

    def __post_init__(self) -> None:
        if len(self.rules) > MAX_RULES:
            raise ConfigError(f"{self.name or 'rules'}: {len(self.rules)} rules; at most {MAX_RULES:,}")
        if len(self.groups) > MAX_GROUPS:
            raise ConfigError(f"{self.name or 'rules'}: {len(self.groups)} groups; at most {MAX_GROUPS:,}")

    def __len__(self) -> int:
        return len(self.rules)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of all groups that an action mentions, in order of first mention, default first."""
        seen = dict.fromkeys(self.default)
        for rule in self.rules:
            for group in rule.action or ():
                seen.setdefault(group)
        return tuple(seen)

    def pack(self) -> bytes:
        """All rules as the compiled classifier reads them: 64 bytes each."""
        return b"".join([rule.pack() for rule in self.rules])

    def impossible(self) -> dict[int, str]:
        """Rules that no packet can match: {rule: why}."""
        found = ((index, rule.impossible()) for index, rule in enumerate(self.rules))
        return {index: why for index, why in found if why is not None}

    def covered(self) -> dict[int, int]:
        """Rules that can never match because one earlier rule accepts all they accept: {rule: by which}."""
        from twinstamp_kernels import _cpu

        return {later: by for later, by in enumerate(_cpu.covering_rules(self.pack())) if by >= 0}


def check_name(name: object, what: str) -> str:
    """A group's or server's name: letters, digits, '.', '_', '-', 64 at most; not "drop"."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == DROP:
        raise ConfigError(
            f"{what} {str(name)[:80]!r}: a name is 1 to 64 letters, digits, '.', '_' or '-', "
            f"starts with a letter or digit, and is not '{DROP}'"
        )
    return name


def _integer(value: object, what: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and re.fullmatch(r"\s*(0[xX][0-9a-fA-F]{1,8}|[0-9]{1,9})\s*", value):
        return int(value, 16 if "x" in value.lower() else 10)
    raise ConfigError(f"{what} {str(value)[:80]!r}: must be a number")


def _ports(value: object, what: str) -> tuple[int, int]:
    if isinstance(value, str) and "-" in value:
        low, _, high = value.partition("-")
        return _integer(low, what), _integer(high, what)
    port = _integer(value, what)
    return port, port


def _value_mask(value: object, what: str, full: int) -> tuple[int, int]:
    if isinstance(value, str) and "/" in value:
        left, _, right = value.partition("/")
        return _integer(left, what), _integer(right, what)
    return _integer(value, what), full


def _action(value: object) -> tuple[str, ...]:
    if value == DROP:
        return ()
    names = value if isinstance(value, list) else [value]
    if not names:
        raise ConfigError(f"action []: name a group, several, or '{DROP}'")
    groups = tuple(check_name(name, "action") for name in names)
    if len(set(groups)) != len(groups):
        raise ConfigError(f"action {list(groups)}: a group stands there twice")
    return groups


def _prefix(value: object, what: str) -> Prefix:
    if not isinstance(value, str):
        raise ConfigError(f'{what} {str(value)[:80]!r}: must be a string such as "10.0.0.0/8"')
    try:
        return Prefix.parse(value)
    except ValueError as error:
        raise ConfigError(f"{what} {value[:80]!r}: {error}") from None


def _protocol(value: object) -> int:
    if isinstance(value, str) and value.lower() in PROTOCOLS:
        return PROTOCOLS[value.lower()]
    try:
        return _integer(value, "protocol")
    except ConfigError:
        raise ConfigError(
            f"protocol {str(value)[:80]!r}: must be 0 to 255 or one of {', '.join(PROTOCOLS)}"
        ) from None


def _boolean(value: object, what: str) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{what} {str(value)[:80]!r}: must be true or false")
    return value


_KEYS: dict[str, Callable[[Any, str], Any]] = {
    "source": _prefix,
    "destination": _prefix,
    "source_port": _ports,
    "destination_port": _ports,
    "protocol": lambda value, _: _protocol(value),
    "vlan": _integer,
    "tcp_flags": lambda value, what: _value_mask(value, what, 0xFFF),
    "icmp": lambda value, what: _value_mask(value, what, 0xFFFF),
    "either_direction": _boolean,
    "action": lambda value, _: _action(value),
}


def rule_from_table(table: Mapping[str, Any], *, line: int = 0) -> Rule:
    """A rule from one TOML table. Raises ConfigError naming the key, without file and line."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{str(table)[:80]!r}: a rule is a table of keys")
    for key in table:
        if key not in _KEYS:
            raise ConfigError(f"unknown key {key[:80]!r}: a rule has {', '.join(_KEYS)}")
    if "action" not in table:
        raise ConfigError(f"no action: name a group, several, or '{DROP}'")
    rule = Rule(**{key: _KEYS[key](value, key) for key, value in table.items()}, line=line)
    if why := rule.impossible():
        raise ConfigError(f"can never match: {why}")
    return rule


class _Lines:
    """Finds the line of a rule or key: the TOML parser of Python tells values only."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.starts = [
            number
            for number, line in enumerate(self.lines, 1)
            if re.match(r"\s*\[\[\s*[\"']?rule[\"']?\s*\]\]", line)
        ]

    def rule(self, index: int, count: int) -> int:
        return self.starts[index] if len(self.starts) == count else 0

    def key(self, start: int, message: str) -> int:
        """Line of the key that a message of this module begins with."""
        name = re.match(r"(?:unknown key ')?([A-Za-z_0-9-]+)", message)
        if start and name:
            for number in range(start, len(self.lines)):
                line = self.lines[number].strip()
                if line.startswith("["):
                    break
                if re.match(rf"[\"']?{re.escape(name[1])}[\"']?\s*=", line):
                    return number + 1
        return start


def rules_from_table(
    table: Mapping[str, Any], *, name: str = "", text: str = "", default: tuple[str, ...] | None = None
) -> RuleSet:
    """A rule set from a parsed TOML document: its `rule` tables and its `default` action.

    text: the document itself, to name lines in errors. default: used where the document has none.
    Raises ConfigError naming file, line (or the rule's number) and key.
    """
    where = name or "rules"
    listed = table.get("rule", [])
    if not isinstance(listed, list):
        raise ConfigError(f"{where}: 'rule' must be a list of tables: write [[rule]]")
    if len(listed) > MAX_RULES:
        raise ConfigError(f"{where}: {len(listed)} rules; at most {MAX_RULES:,}")
    lines = _Lines(text)
    rules = []
    for index, entry in enumerate(listed):
        start = lines.rule(index, len(listed))
        try:
            rules.append(rule_from_table(entry, line=start))
        except ConfigError as error:
            line = lines.key(start, str(error))
            place = f"{where}:{line}: rule {index}" if line else f"{where}: rule {index}"
            raise ConfigError(f"{place}: {error}") from None
    if "default" in table:
        try:
            default = _action(table["default"])
        except ConfigError as error:
            raise ConfigError(f"{where}: default: {error}") from None
    return RuleSet(tuple(rules), (DEFAULT_GROUP,) if default is None else default, name)


def read_toml(path: str | Path) -> RuleSet:
    """Reads a TOML rules file (form: docs/rules.md). Raises ConfigError naming file and line."""
    text = read_text(path)
    table = parse_toml(text, str(path))
    for key in table:
        if key not in ("rule", "default", "group"):
            raise ConfigError(
                f"{path}: unknown key {key[:80]!r}: a rules file has [[rule]], [group.NAME] and default"
            )
    return rules_from_table(table, name=str(path), text=text)


_IPV4 = r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})/(\d{1,2})"
_HEX = r"0[xX]([0-9a-fA-F]{1,8})"
_CLASSBENCH = re.compile(
    rf"@(?:{_IPV4}|([0-9a-fA-F:.]+/\d{{1,3}}))\s+(?:{_IPV4}|([0-9a-fA-F:.]+/\d{{1,3}}))\s+"
    rf"(\d{{1,5}})\s*:\s*(\d{{1,5}})\s+(\d{{1,5}})\s*:\s*(\d{{1,5}})\s+{_HEX}/{_HEX}(?:\s+{_HEX}/{_HEX})?\s*"
)
CLASSBENCH_FORM = "@src/len dst/len sport : sport dport : dport proto/mask flags/mask"


def _classbench_prefix(octets: Sequence[str | None], other: str | None) -> Prefix:
    if other is not None:
        return Prefix.parse(other, strict=False)
    a, b, c, d, bits = (int(octet or 0) for octet in octets)
    if max(a, b, c, d) > 255 or bits > 32:
        raise ValueError(f"{a}.{b}.{c}.{d}/{bits} is no IPv4 prefix")
    return Prefix(4, ((a << 24 | b << 16 | c << 8 | d) >> (32 - bits)) << (32 - bits), bits)


def _classbench_rule(line: str, number: int) -> Rule:
    match = _CLASSBENCH.fullmatch(line)
    if match is None:
        raise ConfigError(f"not a ClassBench rule; the form is {CLASSBENCH_FORM}")
    group = match.groups()
    try:
        source = _classbench_prefix(group[0:5], group[5])
        destination = _classbench_prefix(group[6:11], group[11])
    except ValueError as error:
        raise ConfigError(str(error)) from None
    protocol, protocol_mask = int(group[16], 16), int(group[17], 16)
    if protocol > 0xFF or protocol_mask not in (0, 0xFF):
        raise ConfigError(
            f"protocol 0x{protocol:02x}/0x{protocol_mask:02x}: "
            "up to 0xff, with mask 0x00 (any) or 0xff (this one)"
        )
    number_of = protocol if protocol_mask else None
    tcp_flags = icmp = None
    if group[18] is not None:
        value, mask = int(group[18], 16), int(group[19], 16)
        if value > 0xFFFF or mask > 0xFFFF:
            raise ConfigError(f"flags 0x{value:x}/0x{mask:x}: 16 bits at most")
        if value & ~mask:
            raise ConfigError(
                f"flags 0x{value:04x}/0x{mask:04x}: value has bits outside its mask, no packet matches"
            )
        if mask:
            # ClassBench's last column is the flags byte of TCP, or the type and code of ICMP, from the
            # upper byte down (Taylor & Turner 2007; docs/decisions/0020).
            if number_of in (None, 6):
                if mask & 0xF0:
                    raise ConfigError(f"flags mask 0x{mask:04x}: bits 0x00f0 are no TCP flags")
                tcp_flags = ((value & 0xFF) << 8 | value >> 8, (mask & 0xFF) << 8 | mask >> 8)
            elif number_of in (1, 58):
                icmp = (value, mask)
            else:
                raise ConfigError(
                    f"flags mask 0x{mask:04x} with protocol {number_of}: only TCP and ICMP have such"
                )
    return Rule(
        source=source,
        destination=destination,
        source_port=(int(group[12]), int(group[13])),
        destination_port=(int(group[14]), int(group[15])),
        protocol=number_of,
        tcp_flags=tcp_flags,
        icmp=icmp,
        line=number,
    )


def parse_classbench(lines: Iterable[str], *, name: str = "") -> RuleSet:
    """Rules from ClassBench lines; the first is rule 0, empty lines do not count.

    Raises ConfigError naming file and line.
    """
    rules: list[Rule] = []
    for number, line in enumerate(lines, 1):
        try:
            if len(line) > MAX_LINE_BYTES:
                raise ConfigError(f"a line of {len(line)} characters; at most {MAX_LINE_BYTES}")
            text = line.strip()
            if not text:
                continue
            if len(rules) == MAX_RULES:
                raise ConfigError(f"more than {MAX_RULES:,} rules")
            rules.append(_classbench_rule(text, number))
        except ConfigError as error:
            raise ConfigError(f"{name or 'rules'}:{number}: {error}") from None
    return RuleSet(tuple(rules), name=name)


def read_classbench(path: str | Path) -> RuleSet:
    """Reads a ClassBench file. Its rules carry no action: all go to the default group."""
    return parse_classbench(read_text(path).split("\n"), name=str(path))


def format_classbench(rules: RuleSet) -> str:
    """The rules as ClassBench lines. Raises ConfigError for a rule that ClassBench cannot say."""
    lines = []
    for index, rule in enumerate(rules.rules):
        if rule.source is None or rule.destination is None:
            raise ConfigError(f"rule {index}: ClassBench needs a source and a destination prefix")
        if rule.vlan is not None or rule.either_direction:
            raise ConfigError(f"rule {index}: ClassBench has neither VLAN nor either_direction")
        value, mask = 0, 0
        if rule.tcp_flags is not None:
            if rule.protocol is not None and rule.protocol != 6:
                raise ConfigError(f"rule {index}: flags need protocol 6")
            value, mask = (((flags & 0xFF) << 8) | flags >> 8 for flags in rule.tcp_flags)
        elif rule.icmp is not None:
            if rule.protocol is None:
                raise ConfigError(f"rule {index}: ClassBench reads type and code only with a protocol")
            value, mask = rule.icmp
        protocol = "0x00/0x00" if rule.protocol is None else f"0x{rule.protocol:02x}/0xFF"
        lines.append(
            f"@{rule.source}\t{rule.destination}\t{rule.source_port[0]} : {rule.source_port[1]}\t"
            f"{rule.destination_port[0]} : {rule.destination_port[1]}\t{protocol}\t"
            f"0x{value:04x}/0x{mask:04x}\n"
        )
    return "".join(lines)


def read_rules(path: str | Path, format: str | None = None) -> RuleSet:
    """Reads a rules file. format: "toml" or "classbench"; None: TOML where the name ends in .toml.

    Raises ConfigError naming file and line.
    """
    if format is None:
        format = "toml" if str(path).endswith(".toml") else "classbench"
    if format not in ("toml", "classbench"):
        raise ConfigError(f"rules format {format!r}: must be 'toml' or 'classbench'")
    return read_toml(path) if format == "toml" else read_classbench(path)
