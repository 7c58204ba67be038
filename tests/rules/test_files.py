# SPDX-License-Identifier: Apache-2.0
"""TOML and ClassBench rule files: what each key does, and what is refused, with its line."""

from __future__ import annotations

import random

import pytest
from twinstamp.balance import Classifier, FragmentLimits
from twinstamp.errors import ConfigError, TwinstampError
from twinstamp.frames import FrameBatch
from twinstamp.rules import (
    MAX_RULES,
    Prefix,
    Rule,
    RuleSet,
    format_classbench,
    parse_classbench,
    read_classbench,
    read_rules,
    read_toml,
)

from tests.rules import model

P = model.Packet
IP = 0x0A000001

# description, keys of the rule, packets that match, packets that do not
FEATURES = [
    (
        "source prefix",
        'source = "10.0.0.0/8"',
        [P(src=IP), P(src=0x0AFFFFFF)],
        [P(src=0x0B000000), P(dst=IP)],
    ),
    ("one address", 'source = "10.0.0.1"', [P(src=IP)], [P(src=IP + 1)]),
    ("IPv4 wildcard", 'source = "0.0.0.0/0"', [P()], [P(family=6), P(family=0)]),
    ("IPv6 wildcard", 'destination = "::/0"', [P(family=6)], [P(), P(family=0)]),
    (
        "IPv6 destination",
        'destination = "2001:db8::/33"',
        [P(family=6, dst=0x20010DB87FFF << 80)],
        [P(family=6, dst=0x20010DB88000 << 80), P(dst=0x20010DB8)],
    ),
    (
        "all 128 bits",
        'source = "::1"',
        [P(family=6, src=1)],
        [P(family=6, src=0), P(family=6, src=2), P(src=1)],
    ),
    (
        "port",
        "destination_port = 53",
        [P(dport=53), P(family=6, proto=6, dport=53)],
        [P(dport=54), P(sport=53)],
    ),
    (
        "port range",
        'source_port = "1024-65535"',
        [P(sport=1024), P(sport=65535), P(proto=132, sport=2000)],
        [P(sport=1023), P(proto=1), P(proto=47), P(family=0), P(fragment="later")],
    ),
    ("full range", 'source_port = "0-65535"', [P(), P(proto=1), P(family=0), P(fragment="later")], []),
    ("protocol name", 'protocol = "udp"', [P(), P(family=6), P(fragment="later")], [P(proto=6), P(family=0)]),
    ("protocol number", "protocol = 47", [P(proto=47)], [P(proto=50)]),
    ("hex as text", 'protocol = "0x2f"', [P(proto=47)], [P(proto=48)]),
    ("VLAN", "vlan = 100", [P(vlan=100), P(vlan=100, family=0)], [P(vlan=101), P()]),
    ("VLAN 0", "vlan = 0", [P(vlan=0)], [P()]),
    (
        "TCP flags",
        'tcp_flags = "0x02/0x12"',
        [P(proto=6, tcp=0x02), P(proto=6, tcp=0x6B | 2 & ~0x10), P(family=6, proto=6, tcp=2)],
        [P(proto=6, tcp=0x12), P(proto=6, tcp=0), P(proto=17, tcp=2), P(proto=6, tcp=2, fragment="later")],
    ),
    ("no mask: all flags", "tcp_flags = 2", [P(proto=6, tcp=2)], [P(proto=6, tcp=0x102), P(proto=6, tcp=3)]),
    ("AE, once NS", 'tcp_flags = "0x100/0x100"', [P(proto=6, tcp=0x102)], [P(proto=6, tcp=2)]),
    ("empty mask: any TCP", 'tcp_flags = "0/0"', [P(proto=6)], [P()]),
    ("ICMP type", 'icmp = "0x0300/0xff00"', [P(proto=1, icmp=0x0304)], [P(proto=1, icmp=0x0800), P(tcp=3)]),
    (
        "ICMPv6",
        'icmp = 0x8000\nprotocol = "icmpv6"',
        [P(family=6, proto=58, icmp=0x8000)],
        [P(proto=1, icmp=0x8000)],
    ),
    (
        "either direction",
        'source = "10.0.0.1"\ndestination_port = 80\neither_direction = true',
        [P(src=IP, dport=80), P(dst=IP, sport=80)],
        [P(src=IP, sport=80), P(dst=IP, dport=80)],
    ),
    ("one direction", 'source = "10.0.0.1"\neither_direction = false', [P(src=IP)], [P(dst=IP)]),
    ("nothing: everything", "", [P(), P(family=6), P(family=0), P(vlan=5), P(fragment="later")], []),
    (
        "all together",
        'source = "10.0.0.0/8"\ndestination = "10.0.0.2/31"\n'
        'protocol = "tcp"\ndestination_port = "80-81"\nvlan = 3',
        [P(src=IP, dst=0x0A000003, proto=6, dport=81, vlan=3)],
        [
            P(src=IP, dst=0x0A000003, proto=6, dport=81),
            P(src=IP, dst=0x0A000004, proto=6, dport=81, vlan=3),
            P(src=IP, dst=0x0A000003, proto=17, dport=81, vlan=3),
            P(src=IP, dst=0x0A000003, proto=6, dport=82, vlan=3),
        ],
    ),
]


@pytest.mark.parametrize("keys,yes,no", [f[1:] for f in FEATURES], ids=[f[0] for f in FEATURES])
def test_toml_features(tmp_path, keys, yes, no):
    path = tmp_path / "r.toml"
    path.write_text(f'[[rule]]\n{keys}\naction = "web"\n')
    rules = read_toml(path)
    classifier = Classifier(rules, fragments=FragmentLimits(hold_ns=0))
    got = classifier.process(FrameBatch.from_frames([model.build(p) for p in yes + no])).rule
    assert list(got) == [0] * len(yes) + [-1] * len(no)


def test_actions_and_defaults(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        'default = "rest"\n# [[rule]] in a comment\n[[rule]]\naction = "web"\n'
        '[[rule]]\naction = ["web", "archive"]\n'
        '[[ rule ]]\naction = "drop"\n[group.web]\nservers = ["a"]\n'
    )
    rules = read_toml(path)
    assert [r.action for r in rules.rules] == [("web",), ("web", "archive"), ()]
    assert rules.groups == ("rest", "web", "archive") and [r.line for r in rules.rules] == [3, 5, 7]
    path.write_text('default = "drop"\n')
    assert read_toml(path).default == ()
    path.write_text("")
    assert read_toml(path).default == ("default",)


@pytest.mark.parametrize(
    "line,message",
    [
        ('source = "10.0.0.1/8"', r"write 10.0.0.0/8"),
        ('source = "10.0.0.0/33"', "0 to 32"),
        ('source = "2001:db8::/129"', "0 to 128"),
        ('source = "fe80::1%eth0/64"', "zone"),
        ('source = "web.example"', "source"),
        ("source = 10", "must be a string"),
        ('source_port = "80-70"', "upwards"),
        ("source_port = 65536", "0 to 65535"),
        ("source_port = -1", "0 to 65535"),
        ('destination_port = "http"', "number"),
        ("destination_port = true", "number"),
        ("destination_port = 1.5", "number"),
        ('protocol = "tpc"', "one of icmp"),
        ("protocol = 256", "0 to 255"),
        ("vlan = 4096", "0 to 4095"),
        ('tcp_flags = "0x12/0x02"', "outside its mask"),
        ('tcp_flags = "0x1002/0x1002"', "0xfff"),
        ('either_direction = "yes"', "true or false"),
        ('colour = "red"', "unknown key 'colour'"),
    ],
)
def test_toml_errors_name_file_line_and_key(tmp_path, line, message):
    path = tmp_path / "r.toml"
    path.write_text(f'[[rule]]\naction = "a"\n\n[[rule]]\naction = "b"\n{line}\n')
    with pytest.raises(ConfigError, match=message) as error:
        read_toml(path)
    assert str(error.value).startswith(f"{path}:6: rule 1: ")


@pytest.mark.parametrize(
    "text,message",
    [
        ("[[rule]]\n", ":1: rule 0: no action"),
        ("[[rule]]\naction = []\n", ":2: rule 0: action"),
        ('[[rule]]\naction = ["a", "a"]\n', "twice"),
        ('[[rule]]\naction = ["a", "drop"]\n', "action 'drop'"),
        ('[[rule]]\naction = "a/b"\n', "letters"),
        ('[rule]\naction = "a"\n', r"\[\[rule\]\]"),
        ("rule = [3]\n", "rule 0"),
        ("rules = []\n", "unknown key 'rules'"),
        ('[[rule]]\naction = "a"\nsource = "10.0.0.0/8"\ndestination = "::/0"\n', "different families"),
        ('[[rule]]\naction = "a"\nprotocol = "icmp"\nsource_port = 5\n', "can never match"),
        ('[[rule]]\naction = "a"\nprotocol = "udp"\ntcp_flags = 2\n', "only TCP"),
        ("[[rule]\n", ":1: "),
        ("default = 3\n", "default"),
        ("x = " + "[" * 5000, "not TOML"),
        ("x = " + "9" * 5000, "TOML"),
    ],
)
def test_toml_files_that_are_wrong_as_a_whole(tmp_path, text, message):
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        read_toml(path)
    assert str(path) in str(error.value) and len(str(error.value)) < 600


GOOD = "@10.0.0.0/8\t2.0.0.0/7\t0 : 65535\t53 : 53\t0x11/0xFF\t0x0000/0x0000\t\n"


@pytest.mark.parametrize(
    "line,message",
    [
        ("10.0.0.0/8 2.0.0.0/7 0 : 65535 53 : 53 0x11/0xFF 0x0000/0x0000", "form is @src"),
        ("@10.0.0.0/8 2.0.0.0/7 0 : 65535 53 : 53", "form is @src"),
        ("@10.0.0.256/8 2.0.0.0/7 0 : 65535 53 : 53 0x11/0xFF 0/0", "form is @src"),
        ("@10.0.0.256/8 2.0.0.0/7 0 : 65535 53 : 53 0x11/0xFF", "no IPv4 prefix"),
        ("@10.0.0.0/33 2.0.0.0/7 0 : 65535 53 : 53 0x11/0xFF", "no IPv4 prefix"),
        ("@10.0.0.0/8 2.0.0.0/7 9 : 8 53 : 53 0x11/0xFF", "upwards"),
        ("@10.0.0.0/8 2.0.0.0/7 0 : 65536 53 : 53 0x11/0xFF", "65535"),
        ("@10.0.0.0/8 2.0.0.0/7 0 : 65535 53 : 53 0x11/0x0F", "mask 0x00"),
        ("@10.0.0.0/8 2.0.0.0/7 0 : 65535 53 : 53 0x111/0xFF", "up to 0xff"),
        ("@10.0.0.0/8 2.0.0.0/7 0 : 65535 53 : 53 0x06/0xFF 0x0200/0x0100", "outside its mask"),
        ("@10.0.0.0/8 2.0.0.0/7 0 : 65535 53 : 53 0x06/0xFF 0x0010/0x0010", "no TCP flags"),
        ("@10.0.0.0/8 2.0.0.0/7 0 : 65535 53 : 53 0x06/0xFF 0x10000/0x10000", "16 bits"),
        ("@10.0.0.0/8 2.0.0.0/7 0 : 65535 53 : 53 0x11/0xFF 0x0200/0x0200", "only TCP and ICMP"),
        ("@10.0.0.0/8 ::/0 0 : 65535 53 : 53 0x11/0xFF", "different families"),
        ("@" + "1" * 5000, "5001 characters"),
    ],
)
def test_classbench_errors_name_the_line(tmp_path, line, message):
    path = tmp_path / "bad.rules"
    path.write_text(GOOD + "\n" + line + "\n")
    with pytest.raises(ConfigError, match=message) as error:
        read_classbench(path)
    assert str(error.value).startswith(f"{path}:3: ")


def test_classbench_survives_a_round_trip(corpus):
    for path in sorted((corpus / "rules").glob("*.rules")):
        rules = read_rules(path)
        again = parse_classbench(format_classbench(rules).splitlines())
        assert again.rules == rules.rules


@pytest.mark.parametrize("rule", [Rule(), Rule(vlan=1), Rule(source=Prefix(4, 0, 0), icmp=(0, 0xFF00))])
def test_classbench_cannot_say_everything(rule):
    with pytest.raises(ConfigError, match="rule 0"):
        format_classbench(RuleSet((rule,)))


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rules(tmp_path / "absent.rules")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_rules(tmp_path)
    path = tmp_path / "x.rules"
    path.write_bytes(GOOD.encode() + b"\xff\n")
    with pytest.raises(ConfigError, match=r"x\.rules:2: byte \d+ \(0xff\)"):
        read_rules(path)
    with pytest.raises(ConfigError, match="format"):
        read_rules(path, "yaml")


def test_too_many_rules_are_refused():
    with pytest.raises(ConfigError, match=r"rules:100001: more than 100,000 rules"):
        parse_classbench([GOOD] * (MAX_RULES + 1))
    with pytest.raises(ConfigError, match="at most 100,000"):
        RuleSet((Rule(),) * (MAX_RULES + 1))


def test_memory_of_compiled_rules_is_bounded():
    rng = random.Random(1)
    rules = RuleSet(
        tuple(Rule(source=Prefix(4, rng.getrandbits(32), 32), destination=Prefix(4, rng.getrandbits(32), 32))
              for _ in range(20000))
    )  # fmt: skip
    with pytest.raises(ConfigError, match="more than 10000000 bytes"):
        Classifier(rules, memory_limit=10_000_000)
    masks = tuple(Rule(tcp_flags=(rng.getrandbits(12) & (m := rng.getrandbits(12)), m)) for _ in range(3000))
    with pytest.raises(ConfigError, match="1024 different flag masks"):
        Classifier(RuleSet(masks))


def test_rules_that_never_match_are_found():
    a8, a16 = Prefix(4, 10 << 24, 8), Prefix(4, 10 << 24, 16)
    rules = RuleSet(
        (
            Rule(source=a8, protocol=6),
            Rule(source=a16, protocol=6, destination_port=(80, 80)),  # by 0
            Rule(source=a16),
            Rule(destination=a16, protocol=6),
            Rule(source=a8, destination_port=(1, 9), either_direction=True, protocol=17),
            Rule(destination=a16, source_port=(2, 3), protocol=17),  # by 4, backwards
            Rule(tcp_flags=(2, 2), source=a16),  # by 0: flags mean TCP
            Rule(vlan=5),
            Rule(vlan=5, protocol=17),  # by 7
            Rule(protocol=17, icmp=None, vlan=6),
            Rule(source=Prefix(4, 0, 0)),
            Rule(source=Prefix(6, 0, 0)),
            Rule(source=a8, destination=a8),  # by 10
            Rule(),
            Rule(),  # by 13
        )
    )
    covered = rules.covered()
    assert covered == {1: 0, 5: 4, 6: 0, 8: 7, 12: 10, 14: 13}
    # A covered rule never is an answer, whatever comes.
    rng = random.Random(3)
    packets = [model.random_packet(rng) for _ in range(3000)]
    packets = [model.replace(p, src=IP + i % 9, vlan=rng.choice([None, 5, 6])) if p.family == 4 else p
               for i, p in enumerate(packets)]  # fmt: skip
    got = Classifier(rules).process(FrameBatch.from_frames([model.build(p) for p in packets])).rule
    assert not set(got) & set(covered)


def mutate(rng, text: bytes) -> bytes:
    out = bytearray(text)
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del out[at : at + rng.randrange(8)]
            case 2:
                out[at:at] = rng.choice(
                    [b"[", b'"', b"\n", b"99999999999999999999", b"-", b"/", b"0x", b"\0", b"[[rule]]"]
                )
            case 3:
                out[at:at] = out[max(0, at - 30) : at]
    return bytes(out)


@pytest.mark.parametrize("kind", ["toml", "classbench"])
def test_damaged_rule_files_give_a_clear_error_or_rules(tmp_path, kind):
    rng = random.Random(11)
    toml = b"".join(b'[[rule]]\n%s\naction = ["web", "x"]\n' % keys.encode() for _, keys, _, _ in FEATURES)
    source = (
        toml if kind == "toml" else GOOD.encode() * 6 + b"@::1/128 ::/0 1 : 2 3 : 4 0x06/0xFF 0x0200/0x1200\n"
    )
    path = tmp_path / ("r." + kind)
    refused = 0
    for _ in range(400):
        path.write_bytes(mutate(rng, source))
        try:
            rules = read_rules(path, kind)
            Classifier(rules)
        except TwinstampError as error:
            refused += 1
            assert str(path) in str(error) and len(str(error)) < 1000
    assert 50 < refused < 400


def test_any_bytes_pass_unharmed():
    rng = random.Random(12)
    rules = RuleSet(
        (Rule(destination_port=(1, 1000)), Rule(tcp_flags=(2, 2)), Rule(vlan=1), Rule(protocol=6))
    )
    heads = [
        b"",
        bytes(12) + b"\x08\x00",
        bytes(12) + b"\x86\xdd",
        bytes(12) + b"\x81\x00",
        bytes(12) + b"\x88\x47",
    ]
    frames = []
    for _ in range(4000):
        base = (
            model.build(model.random_packet(rng))
            if rng.random() < 0.5
            else rng.choice(heads) + rng.randbytes(90)
        )
        frames.append(mutate(rng, base)[: rng.randrange(120)])
    for linktype in (1, 9, 50, 101, 113, 228, 229, 276, 147, 65535):
        for layer in ("outer", "inner"):
            for mode in ("flow", "ip"):
                c = Classifier(rules, layer=layer, hash=mode, buckets=16)
                c.process(FrameBatch.from_frames(frames, linktype=linktype))
                c.flush()
                released = c.take_released()
                counts = c.counts()
                assert counts["no_server"][0] == len(frames)  # no groups were given
                assert (0 if released is None else len(released.batch)) == counts["held"][0]
