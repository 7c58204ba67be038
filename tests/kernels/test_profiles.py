# SPDX-License-Identifier: Apache-2.0
"""The four profiles against copies of known kind, and against an independent model on the corpus."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from twinstamp_kernels import _cpu
from twinstamp_kernels.hashkey import hash_key

from tests.kernels import profile_model as model
from tests.kernels import traffic

KEY = hash_key(b"\x5a" * 32)
LAYERS = ("outer", "inner")
PROFILES = {"exact": 1, "vlan": 2, "routing": 3, "nat": 4}


def columns(frames: Sequence[bytes], linktypes: Sequence[int]) -> tuple[np.ndarray, ...]:
    caplen = np.array([len(f) for f in frames], np.uint32)
    offset = np.zeros(len(frames), np.uint64)
    offset[1:] = np.cumsum(caplen[:-1])
    table = sorted(set(linktypes))
    port = np.array([table.index(t) for t in linktypes], np.uint16)
    data = np.frombuffer(b"".join(frames) or b"\0", np.uint8)
    return data, offset, caplen, port, np.array(table, np.uint16)


def keys(frames, linktypes, profile: int, layer: str, **options):
    """Per frame: ({(which, digest)}, tags)."""
    if isinstance(linktypes, int):
        linktypes = [linktypes] * len(frames)
    raw = _cpu.frame_keys(KEY, *columns(frames, linktypes), profile, LAYERS.index(layer), **options)
    digests, two, tags = (np.asarray(column) for column in raw)
    digests = digests.reshape(-1, 4).tolist()
    found = [
        (frozenset([(d[0], d[1]), (d[2], d[3])][: 1 + t]), tuple(g))
        for d, t, g in zip(digests, two.tolist(), tags.reshape(-1, 4)[:, :3].tolist(), strict=True)
    ]
    assert all(not t or p == 4 for t, p in zip(two, [profile] * len(frames), strict=True))
    return found


def kind(a, b, profile: int) -> int:
    """As the window finds it: the narrowest profile whose tags agree, the configured one, or 5: no copy."""
    if not a[0] & b[0]:
        return 5
    return next((p for p in range(1, profile) if a[1][p - 1] == b[1][p - 1]), profile)


def names() -> dict[str, int]:
    return dict(_cpu.PROFILES)


def test_tables() -> None:
    assert names() == PROFILES
    assert dict(_cpu.LAYERS) == {"outer": 0, "inner": 1}
    assert {"other", "arp", "nd", "mld", "llc", "lldp", "slow", "eapol", "igmp", "pause"} <= set(_cpu.CLASSES)
    assert _cpu.CLASSES["other"] == 0


@pytest.mark.parametrize("seed", range(4))
def test_pairs_of_known_kind(seed: int) -> None:
    """Equal exactly where the mutation says so, for every profile and layer, with the right type."""
    rng = random.Random(seed)
    pairs, seen = [], Counter()
    while len(pairs) < 350:
        spec = traffic.make_spec(rng)
        if not traffic.usable(spec):
            continue
        copy, name, outer, inner = traffic.mutate(spec, rng)
        pairs.append((spec, copy, name, {"outer": outer, "inner": inner}))
        seen[name] += 1
    assert len(seen) == 15, seen
    frames = [traffic.build(s) for spec, copy, *_ in pairs for s in (spec, copy)]
    linktypes = [traffic.LINKTYPES[spec["link"]] for spec, *_ in pairs for _ in range(2)]
    for layer in LAYERS:
        for profile in PROFILES.values():
            found = keys(frames, linktypes, profile, layer)
            for i, (spec, _, name, narrowest) in enumerate(pairs):
                got = kind(found[2 * i], found[2 * i + 1], profile)
                want = narrowest[layer] if narrowest[layer] <= profile else 5
                assert got == want, (layer, profile, name, spec, frames[2 * i].hex(), frames[2 * i + 1].hex())
                said = model.narrowest(frames[2 * i], frames[2 * i + 1], linktypes[2 * i], layer)
                assert said == narrowest[layer], ("the model", layer, name, spec)


def assert_same_classes(frames: Sequence[bytes], linktypes: Sequence[int]) -> int:
    """Frames are copies by the kernels exactly where they are by the model; returns how many are."""
    matched = 0
    for layer in LAYERS:
        for profile in PROFILES.values():
            found = keys(frames, linktypes, profile, layer)
            assert found == keys(frames, linktypes, profile, layer, portable=True)
            digest_of: dict[object, tuple[int, int]] = {}
            message_of: dict[tuple[int, int], object] = {}
            first: dict[object, int] = {}
            for i, frame in enumerate(frames):
                said = model.keys_of(frame, linktypes[i], profile, layer)
                assert len(said) == len(found[i][0]), (layer, profile, frame.hex())
                # A frame's keys are matched to its messages by elimination: both sets are small.
                known = {digest_of[m] for m in said if m in digest_of}
                assert known == {d for d in found[i][0] if d in message_of}, (layer, profile, i, frame.hex())
                fresh = [m for m in sorted(said, key=repr) if m not in digest_of]
                new = [d for d in found[i][0] if d not in message_of]
                if len(fresh) == 2:  # the order within frame_keys: the one without a source first
                    raw = _cpu.frame_keys(
                        KEY, *columns([frame], [linktypes[i]]), profile, LAYERS.index(layer)
                    )
                    d = np.asarray(raw[0]).tolist()
                    new = [(d[0], d[1]), (d[2], d[3])]
                for m, d in zip(fresh, new, strict=True):
                    digest_of[m], message_of[d] = d, m
                for m in said:
                    if m in first:
                        j = first[m]
                        matched += 1
                        want = model.narrowest(frame, frames[j], linktypes[i], layer)
                        if linktypes[i] == linktypes[j]:
                            assert kind(found[i], found[j], profile) == want, (layer, profile, i, j)
                    first.setdefault(m, i)
    return matched


def read_capture(path: Path) -> tuple[list[bytes], list[int]]:
    """Frames and link types of a capture, by scapy's reader (none of the project's)."""
    from scapy.utils import RawPcapNgReader, RawPcapReader

    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"\x0a\x0d\x0d\x0a":
        with RawPcapNgReader(str(path)) as reader:
            packets = [(bytes(data), meta.linktype) for data, meta in reader]
        return [data for data, _ in packets], [t for _, t in packets]
    with RawPcapReader(str(path)) as reader:
        return (frames := [bytes(data) for data, _ in reader]), [reader.linktype] * len(frames)


@pytest.mark.corpus
def test_corpus(corpus: Path) -> None:
    copies = {}
    for path in sorted((corpus / "captures").glob("*.pcap*")):
        frames, linktypes = read_capture(path)
        assert frames, path
        copies[path.name] = assert_same_classes(frames, linktypes)
        names = {code: name for name, code in _cpu.CLASSES.items()}
        got = [names[c] for c in np.asarray(_cpu.frame_classes(*columns(frames, linktypes))).tolist()]
        assert got == [model.class_of(f, t) for f, t in zip(frames, linktypes, strict=True)], path
    assert sum(copies.values()) > 1000, copies


@pytest.mark.corpus
def test_double_vision_is_routed(corpus: Path) -> None:
    frames, linktypes = read_capture(corpus / "captures" / "double-vision.pcap")
    for profile, pairs in ((1, 0), (2, 0), (3, 4), (4, 4)):
        found = keys(frames, linktypes, profile, "outer")
        copies = [
            kind(found[i], found[j], profile) for i in range(8) for j in range(i) if found[i][0] & found[j][0]
        ]
        assert copies == [3] * pairs


def base_frames() -> list[tuple[bytes, int]]:
    rng = random.Random(77)
    out = []
    while len(out) < 60:
        spec = traffic.make_spec(rng)
        if traffic.usable(spec) and len(spec["payload"]) < 100:
            out.append((traffic.build(spec), traffic.LINKTYPES[spec["link"]]))
    return out


def test_truncated_at_every_length() -> None:
    """A cut header falls back to exact on both sides alike: the model agrees at every length."""
    for frame, linktype in base_frames()[:24]:
        cuts = [frame[:n] for n in range(len(frame) + 1)]
        assert_same_classes(cuts + cuts[::3], [linktype] * (len(cuts) + len(cuts[::3])))


def test_flipped_bytes_and_noise() -> None:
    rng = random.Random(5)
    frames, linktypes = [], []
    for frame, linktype in base_frames():
        for _ in range(12):
            fuzzed = bytearray(frame)
            for _ in range(rng.choice([1, 1, 2, 8])):
                if fuzzed:
                    fuzzed[rng.randrange(min(len(fuzzed), 120))] = rng.choice(
                        [0, 1, 0xFF, rng.randrange(256)]
                    )
            frames.append(bytes(fuzzed))
            linktypes.append(linktype)
    for _ in range(300):
        frames.append(rng.randbytes(rng.randrange(200)))
        linktypes.append(rng.choice([0, 1, 9, 12, 50, 101, 104, 108, 113, 147, 228, 239, 276, 65535]))
    assert_same_classes(frames, linktypes)


def test_wider_finds_what_narrower_finds() -> None:
    rng = random.Random(6)
    frames, linktypes = [], []
    for frame, linktype in base_frames():
        cut = rng.randrange(len(frame)) if rng.random() < 0.5 else len(frame)
        a = frame[:cut]
        b = bytearray(a)
        if b and rng.random() < 0.7:
            b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)
        frames += [a, bytes(b)]
        linktypes += [linktype] * 2
    for layer in LAYERS:
        found = {p: keys(frames, linktypes, p, layer) for p in PROFILES.values()}
        for i in range(0, len(frames), 2):
            equal = [bool(found[p][i][0] & found[p][i + 1][0]) for p in (1, 2, 3, 4)]
            assert equal == sorted(equal), (layer, frames[i].hex(), frames[i + 1].hex())


def test_ignored_bytes() -> None:
    """editcap -I: the first n bytes are skipped unless caplen <= n, and caplen must match."""
    a, b = b"AAAA" + b"same", b"BBBB" + b"same"
    cases = [
        (a, b, 4, True),
        (a, b, 3, False),
        (a, b, 8, False),
        (a, b, 9, False),
        (a, b[:-1], 4, False),
        (b"XXXXsame", b"same", 4, False),  # a longer frame's rest is not a short frame
        (b"same", b"same", 4, True),
        (b"", b"", 4, True),
        (a, a, 0, True),
    ]
    for x, y, n, equal in cases:
        found = keys([x, y], 1, 1, "outer", ignore_bytes=n)
        assert (found[0][0] == found[1][0]) is equal, (x, y, n)
    with pytest.raises(ValueError, match="exact"):
        keys([a], 1, 2, "outer", ignore_bytes=1)


def summed(header: bytes) -> bytes:
    """An IPv4 header with its checksum."""
    header = header[:10] + b"\0\0" + header[12:]
    return header[:10] + (model.ones_sum(header) ^ 0xFFFF).to_bytes(2, "big") + header[12:]


def udp(
    payload: bytes, *, ident: int = 0, ttl: int = 64, src: bytes = b"\x0a\0\0\1", sport: int = 1000
) -> bytes:
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(payload), ident, 0, ttl, 17, 0, src, b"\x0a\0\0\2")
    return (
        bytes(12)
        + b"\x08\0"
        + summed(head)
        + struct.pack(">HHHH", sport, 2000, 8 + len(payload), 0)
        + payload
    )


def test_nat_wants_something_that_separates() -> None:
    """Neither TCP nor an IP-ID nor 16 bytes of payload: such frames are compared as under routing."""
    for payload, ident, copies in (
        (b"x" * 15, 0, False),
        (b"x" * 16, 0, True),
        (b"", 1, True),
        (b"", 0, False),
    ):
        a = udp(payload, ident=ident)
        b = udp(payload, ident=ident, src=b"\x0a\0\0\x09", sport=1001)
        found = keys([a, b, udp(payload, ident=ident, ttl=63)], 1, 4, "outer")
        assert bool(found[0][0] & found[1][0]) is copies
        assert kind(found[0], found[2], 4) == 3


def test_nat_does_not_join_the_two_directions() -> None:
    def frame(src: bytes, dst: bytes) -> bytes:
        head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 60, 7, 0, 64, 17, 0, src, dst)
        return bytes(12) + b"\x08\0" + summed(head) + struct.pack(">HHHH", 5, 5, 40, 0) + b"y" * 32

    a, b = frame(b"\x0a\0\0\1", b"\x0a\0\0\2"), frame(b"\x0a\0\0\2", b"\x0a\0\0\3")
    found = keys([a, b], 1, 4, "outer")
    assert not found[0][0] & found[1][0]


def test_offload_length_zero() -> None:
    """Segmentation offload leaves a total length of 0: the packet ends with the capture."""
    a = bytearray(udp(b"z" * 40))
    a[16:18] = b"\0\0"
    b = bytearray(a)
    b[22] -= 1
    for frame in (a, b):
        frame[14:34] = summed(bytes(frame[14:34]))
    c = bytearray(b)
    c[-1] ^= 1
    found = keys([bytes(a), bytes(b), bytes(c)], 1, 3, "outer")
    assert kind(found[0], found[1], 3) == 3
    assert kind(found[0], found[2], 3) == 5


def test_cooked_802_2_keeps_its_bytes() -> None:
    """In cooked captures 4 stands for 802.2 and is no length: two different frames stay different."""
    head = b"\0\0\0\x01\0\x06abcdef\0\0\0\x04"
    found = keys([head + b"\x42\x42\x03one", head + b"\x42\x42\x03two"], 113, 3, "outer")
    assert not found[0][0] & found[1][0]


def test_same_message_of_another_form_differs() -> None:
    """Where two forms leave the very same bytes, their domains keep the keys apart."""
    ether = udp(b"x" * 30)
    packet = ether[14:]
    message = bytearray(packet)  # what routing leaves of it, and nat where it has no endpoint
    message[8] = message[1] = message[10] = message[11] = 0
    for profile in (2, 3, 4):
        # A raw IP packet; what is hashed of it, of a link type nobody knows, and as an Ethernet frame.
        left = packet if profile == 2 else bytes(message)
        found = keys([packet, left, left], [101, 147, 1], profile, "outer")
        assert not found[0][0] & found[1][0]
        assert found[1][0] == found[2][0]
        found = keys([ether, ether], [1, 147], profile, "outer")
        assert not found[0][0] & found[1][0]


def test_links_are_left_out_by_routing() -> None:
    """A routed copy may come in by another kind of link."""
    ether = udp(b"x" * 30)
    cooked = b"\0\0\0\x01\0\x06abcdef\0\0\x08\0" + ether[14:]
    ppp = b"\xff\x03\0\x21" + ether[14:]
    for profile in (3, 4):
        frames = [(ether, 1), (cooked, 113), (ppp, 9), (ether[14:], 101)]
        found = keys([f for f, _ in frames], [t for _, t in frames], profile, "outer")
        assert len({f[0] for f in found}) == 1
        assert [kind(found[0], f, profile) for f in found[1:]] == [3, 3, 3]


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        ("arp", bytes(12) + b"\x08\x06" + bytes(28)),
        ("arp", bytes(12) + b"\x81\0\0\x05\x08\x06"),
        ("llc", bytes(12) + b"\0\x26\x42\x42\x03" + bytes(35)),
        ("lldp", bytes(12) + b"\x88\xcc" + bytes(20)),
        ("slow", bytes(12) + b"\x88\x09\x01" + bytes(50)),
        ("eapol", bytes(12) + b"\x88\x8e" + bytes(4)),
        ("pause", bytes(12) + b"\x88\x08\0\x01" + bytes(44)),
        ("cfm", bytes(12) + b"\x89\x02" + bytes(44)),
        ("loop", bytes(12) + b"\x90\0" + bytes(44)),
        ("nd", bytes(12) + b"\x86\xdd\x60\0\0\0\0\x08\x3a\xff" + bytes(32) + b"\x87" + bytes(7)),
        (
            "mld",
            bytes(12)
            + b"\x86\xdd\x60\0\0\0\0\x10\0\x01"
            + bytes(32)
            + b"\x3a\0\x05\x02\0\0\0\0\x8f"
            + bytes(7),
        ),
        ("igmp", bytes(12) + b"\x08\0" + b"\x45\0\0\x1c\0\0\0\0\x01\x02" + bytes(10) + b"\x16" + bytes(7)),
        ("vrrp", bytes(12) + b"\x08\0" + b"\x45\0\0\x1c\0\0\0\0\xff\x70" + bytes(10) + bytes(8)),
        ("other", bytes(12) + b"\x86\xdd\x60\0\0\0\0\x08\x3a\xff" + bytes(32) + b"\x80" + bytes(7)),
        ("other", udp(b"")),
        ("other", b""),
        ("other", bytes(13)),
        ("other", bytes(12) + b"\x08\0"),
        ("other", bytes(12) + b"\x88\xb5" + bytes(9)),
    ],
)
def test_classes(name: str, frame: bytes) -> None:
    code = np.asarray(_cpu.frame_classes(*columns([frame], [1]))).tolist()
    assert code == [_cpu.CLASSES[name]]
    assert model.class_of(frame, 1) == name


@pytest.mark.parametrize(
    ("name", "linktype", "frame"),
    [
        ("llc", 113, b"\0\0\0\x01\0\x06abcdef\0\0\0\x04\x42\x42\x03"),
        ("other", 113, b"\0\0\0\x01\0\x06abcdef\0\0\0\x03\x42\x42\x03"),  # no length, and not 802.2 either
        ("other", 113, b"\0\0\x03\x38\0\x06abcdef\0\0\0\x04\x42\x42\x03"),  # netlink family 4
        ("arp", 113, b"\0\0\0\x01\0\x06abcdef\0\0\x08\x06"),
        ("arp", 276, b"\x08\x06\0\0\0\0\0\x02\0\x01\0\x06abcdef\0\0"),
        ("llc", 276, b"\0\x04\0\0\0\0\0\x02\0\x01\0\x06abcdef\0\0\x42\x42\x03"),
        ("igmp", 101, b"\x45\0\0\x1c\0\0\0\0\x01\x02" + bytes(10) + b"\x16" + bytes(7)),
        ("other", 147, bytes(12) + b"\x08\x06" + bytes(28)),
    ],
)
def test_classes_of_other_links(name: str, linktype: int, frame: bytes) -> None:
    code = np.asarray(_cpu.frame_classes(*columns([frame], [linktype]))).tolist()
    assert code == [_cpu.CLASSES[name]]
    assert model.class_of(frame, linktype) == name


def test_class_of_the_inner_frame() -> None:
    arp = bytes(12) + b"\x08\x06" + b"\0\1\x08\0\6\4\0\1" + bytes(20)
    inside = b"\x08\0\0\0\0\0\x05\0" + arp
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 28 + len(inside), 7, 0, 64, 17, 0, b"abcd", b"efgh")
    frame = bytes(12) + b"\x08\0" + head + struct.pack(">HHHH", 5, 4789, 8 + len(inside), 0) + inside
    assert np.asarray(_cpu.frame_classes(*columns([frame], [1]), layer=0)).tolist() == [_cpu.CLASSES["other"]]
    assert np.asarray(_cpu.frame_classes(*columns([frame], [1]), layer=1)).tolist() == [_cpu.CLASSES["arp"]]


def test_columns_are_checked() -> None:
    data, one = np.zeros(64, np.uint8), np.ones(1, np.uint64)
    port, table = np.zeros(1, np.uint16), np.array([1], np.uint16)
    size = np.array([60], np.uint32)
    with pytest.raises(ValueError, match="outside"):
        _cpu.frame_keys(KEY, data, one * 5, size, port, table, 1, 0)
    with pytest.raises(ValueError, match="outside"):
        _cpu.frame_keys(KEY, data, one * (2**64 - 8), size, port, table, 1, 0)
    with pytest.raises(ValueError, match="limit"):
        _cpu.frame_keys(KEY, data, one, np.array([262145], np.uint32), port, table, 1, 0)
    with pytest.raises(ValueError, match="link type"):
        _cpu.frame_keys(KEY, data, one, size, port + 1, table, 1, 0)
    with pytest.raises(ValueError, match="length"):
        _cpu.frame_keys(KEY, data, np.zeros(2, np.uint64), size, port, table, 1, 0)
    with pytest.raises(ValueError, match="profile"):
        _cpu.frame_keys(KEY, data, one, size, port, table, 5, 0)
    with pytest.raises(ValueError, match="layer"):
        _cpu.frame_classes(data, one, size, port, table, 2)
