# SPDX-License-Identifier: Apache-2.0
"""Captures in and out, against editcap, tshark and an independent plain writer."""

from __future__ import annotations

import io
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from capture_maker import Pcapng, blocks, pcap, read_pcap, ticks_to_ns
from twinstamp.errors import ConfigError, DeviceError, InputError
from twinstamp.frames import FLAG_BAD_FCS, FLAG_NO_TIMESTAMP, FLAG_OUTGOING, FrameBatch
from twinstamp.io import create_capture, open_capture

CORPUS = Path(os.environ.get("TWINSTAMP_CORPUS") or Path(__file__).parents[2].parent / "shared").resolve()
CAPTURES = sorted((CORPUS / "captures").glob("*.pcap*"))
S = 10**9


def frames_of(source, **options):
    """[(timestamp_ns, frame, length, port, flags)] and the reader."""
    out = []
    with open_capture(source, **options) as reader:
        for batch in reader:
            with batch:
                assert batch.first == len(out)
                out += [
                    (
                        int(batch.timestamp_ns[i]),
                        batch.frame(i),
                        int(batch.length[i]),
                        int(batch.port[i]),
                        int(batch.flags[i]),
                    )
                    for i in range(len(batch))
                ]
        assert reader.frames == len(out)
    return out, reader


def copy(source, target, **options):
    with open_capture(source) as reader, create_capture(target, like=reader, **options) as writer:
        for batch in reader:
            with batch:
                writer.write(batch)
    assert writer.frames == reader.frames
    assert writer.bytes_written == Path(target).stat().st_size
    return writer


@pytest.fixture(scope="session")
def tshark():
    path = shutil.which("tshark")
    if path is None:
        pytest.skip("tshark is not installed (Debian package tshark)")

    def fields(capture, *more):
        names = ("frame.time_epoch", "frame.cap_len", "frame.len", "frame.interface_id", *more)
        pcapng = Path(capture).read_bytes()[:4] == b"\x0a\x0d\x0d\x0a"
        command = [path, "-r", str(capture), "-T", "fields", "-E", "separator=|"]
        for name in names:
            command += ["-e", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows = []
        for line in done.stdout.splitlines():
            stamp, caplen, length, interface, *rest = line.split("|")
            if pcapng and not interface:
                continue  # tshark counts custom blocks as frames
            ns = None
            if stamp:
                seconds, fraction = stamp.split(".")
                ns = int(seconds) * S + int(fraction.ljust(9, "0"))
            rows.append((ns, int(caplen), int(length), *rest))
        return rows

    return fields


def run_editcap(editcap, *arguments):
    subprocess.run([editcap, *map(str, arguments)], check=True, capture_output=True)


@pytest.mark.corpus
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda p: p.name)
def test_reads_what_tshark_reads_and_tshark_reads_what_we_write(capture, corpus, tshark, tmp_path):
    expected = tshark(capture)
    frames, reader = frames_of(capture, batch_frames=100)
    assert [(t, len(d), n) for t, d, n, _, _ in frames] == expected
    assert reader.truncated is None and reader.bytes_read == capture.stat().st_size == reader.size
    for name, options in [("a.pcap", {}), ("b.pcapng", {}), ("c", {"format": "pcap-ns"})]:
        copy(capture, tmp_path / name, **options)
        assert frames_of(tmp_path / name)[0] == frames
    assert tshark(tmp_path / "b.pcapng") == expected
    assert tshark(tmp_path / "a.pcap") == expected


@pytest.mark.corpus
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda p: p.name)
def test_reads_what_editcap_writes(capture, corpus, editcap, tmp_path):
    frames, _ = frames_of(capture)
    for kind, form in (
        ("pcap", "pcap"),
        ("nsecpcap", "pcap-ns"),
        ("pcapng", "pcapng"),
        ("modpcap", "pcap-modified"),
    ):
        run_editcap(editcap, "-F", kind, capture, tmp_path / kind)
        theirs, reader = frames_of(tmp_path / kind)
        assert reader.format == form
        fine = kind in ("nsecpcap", "pcapng")  # the others cut to microseconds
        assert [f[1:3] for f in theirs] == [f[1:3] for f in frames]
        assert [f[0] for f in theirs] == [f[0] if fine else f[0] // 1000 * 1000 for f in frames]


@pytest.mark.corpus
@pytest.mark.parametrize("capture", CAPTURES, ids=lambda p: p.name)
def test_writes_byte_for_byte_what_editcap_writes(capture, corpus, editcap, tmp_path):
    for kind, form in (("pcap", "pcap"), ("nsecpcap", "pcap-ns")):
        run_editcap(editcap, "-F", kind, capture, tmp_path / "theirs")
        copy(capture, tmp_path / "ours", format=form)
        ours, theirs = (tmp_path / "ours").read_bytes(), (tmp_path / "theirs").read_bytes()
        assert ours[24:] == theirs[24:]
        assert ours[:16] == theirs[:16] and ours[20:24] == theirs[20:24]  # but for the snapshot length


RECORDS = [
    (1, 5, b"a" * 60, 60),
    (2, 999_999, b"b" * 61, 1500),
    (4_294_967_295, 1, b"", 0),
    (100, 7, bytes(range(256)) * 6, 1536),
    (3, 500_000, b"z", 64),
]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("magic", "name", "scale"),
    [(0xA1B2C3D4, "pcap", 1000), (0xA1B23C4D, "pcap-ns", 1), (0xA1B2CD34, "pcap-modified", 1000)],
)
def test_pcap_kinds(order, magic, name, scale, tmp_path, tshark):
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap(RECORDS, magic=magic, order=order, network=113))
    frames, reader = frames_of(path)
    assert reader.format == name
    assert reader.ports == [("", 113, 262144, 10**9 if scale == 1 else 10**6, str(path))]
    assert [f[:4] for f in frames] == [(s * S + f * scale, d, n, 0) for s, f, d, n in RECORDS]
    if name == "pcap-modified":
        assert [f[4] for f in frames] == [FLAG_OUTGOING if s % 2 else 0 for s, *_ in RECORDS]
    # b"" records make tshark's cap_len 0, which it reads well
    assert [(t, len(d), n) for t, d, n, _, _ in frames] == tshark(path)
    copy(path, tmp_path / "out.pcap")
    network, ns, records = read_pcap((tmp_path / "out.pcap").read_bytes())
    assert (network, ns) == (113, scale == 1)
    assert records == RECORDS


def test_pcap_header_bits_and_old_versions(tmp_path, tshark):
    path = tmp_path / "fcs.pcap"
    path.write_bytes(pcap(RECORDS, network=1 | 0x24000000))  # F bit, FCS of 2 words
    _, reader = frames_of(path)
    assert reader.ports[0].linktype == 1
    copy(path, tmp_path / "out.pcap")
    assert (tmp_path / "out.pcap").read_bytes() == path.read_bytes()
    # libpcap before 2.3 wrote the two lengths the other way round; 2.3 either way.
    for minor in (2, 3):
        swapped = bytearray(pcap([(1, 2, b"q" * 60, 60)], version=(2, minor)))
        struct.pack_into("<II", swapped, 32, 90, 60)
        path.write_bytes(swapped)
        assert frames_of(path)[0] == [(S + 2000, b"q" * 60, 90, 0, 0)]
        assert [r[1:] for r in tshark(path)] == [(60, 90)]


@pytest.mark.parametrize("fraction", [1_000_000, 1_500_000, 2_000_001])
def test_fraction_of_more_than_a_second_is_carried(fraction, tmp_path, editcap, tshark):
    path = tmp_path / "x.pcap"
    path.write_bytes(pcap([(100, fraction, b"a" * 60, 60)]))
    assert frames_of(path)[0][0][0] == 100 * S + fraction * 1000
    copy(path, tmp_path / "o.pcapng")
    run_editcap(editcap, "-F", "pcapng", path, tmp_path / "e.pcapng")
    assert tshark(tmp_path / "o.pcapng") == tshark(tmp_path / "e.pcapng")
    copy(path, tmp_path / "o.pcap")  # pcap to pcap: the record as it stands, as editcap does
    run_editcap(editcap, "-F", "pcap", path, tmp_path / "e.pcap")
    assert (tmp_path / "o.pcap").read_bytes() == (tmp_path / "e.pcap").read_bytes()


@pytest.mark.parametrize("magic, second", [(0xA1B2C3D4, 1_000_000), (0xA1B23C4D, 1_000_000_000)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_fractions_of_a_second_or_more_are_counted(magic, second, order, tmp_path):
    path = tmp_path / "x.pcap"
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 262144, 1)
    fractions = [0, second - 1, second, second + 1, 4_294_967_295]
    path.write_bytes(head + b"".join(struct.pack(order + "IIII", 1, f, 4, 4) + b"abcd" for f in fractions))
    with open_capture(path) as reader:
        assert sum(len(batch) for batch in reader) == 5
        assert reader.fractions_beyond == 3


RESOLUTIONS = [
    0,
    1,
    3,
    6,
    7,
    9,
    10,
    12,
    18,
    19,
    27,
    0x80,
    0x81,
    0x80 | 10,
    0x80 | 20,
    0x80 | 30,
    0x80 | 32,
    0x80 | 60,
    0xFF,
]


@pytest.mark.parametrize("tsresol", RESOLUTIONS)
@pytest.mark.parametrize("tsoffset", [0, 86400, -7])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_resolutions(tsresol, tsoffset, order, tmp_path):
    rng = random.Random(tsresol)
    file = Pcapng().section(order).interface(tsresol=tsresol, tsoffset=tsoffset)
    expected, ticks = [], []
    while len(expected) < 40:
        t = rng.getrandbits(rng.randrange(65))
        ns = ticks_to_ns(t, tsresol, tsoffset)
        if abs(ns) >= 1 << 63:
            continue
        expected.append(ns)
        ticks.append(t)
    for t in ticks:
        file.enhanced(b"x" * 60, t)
    path = tmp_path / "x.pcapng"
    path.write_bytes(file.bytes())
    frames, reader = frames_of(path)
    assert [f[0] for f in frames] == expected
    assert reader.ports[0].ticks_per_s == (2 if tsresol & 0x80 else 10) ** (tsresol & 0x7F)
    copy(path, tmp_path / "y.pcapng")  # every digit is kept, finer than ns or not
    assert (tmp_path / "y.pcapng").read_bytes() == path.read_bytes()


# Beyond 1.8e10 ticks per second wiretap 4.0's product of fraction and 10^9 overflows 64 bits; ours does not
# (test_pcapng_resolutions).
@pytest.mark.parametrize("tsresol", [0, 3, 6, 7, 9, 10, 0x80 | 10, 0x80 | 20, 0x80 | 30, 0x80 | 34])
def test_resolutions_as_tshark_reads_them(tsresol, tmp_path, tshark):
    unit = 2 ** (tsresol & 0x7F) if tsresol & 0x80 else 10**tsresol
    file = Pcapng().section().interface(tsresol=tsresol)
    rng = random.Random(tsresol)
    for _ in range(20):
        file.enhanced(
            b"x" * 60, (1_700_000_000 if unit <= 1 << 30 else 200_000_000) * unit + rng.randrange(unit)
        )
    path = tmp_path / "x.pcapng"
    path.write_bytes(file.bytes())
    assert [f[0] for f in frames_of(path)[0]] == [row[0] for row in tshark(path)]


def mixed(*, extra=True) -> tuple[bytes, list]:
    """Two sections of different byte orders, several interfaces, every packet block; the frames in it."""
    file, frames = Pcapng(), []
    file.section("<", (2, b"a card"), (1, b"first section"))
    file.interface(1, 100, (3, b"descr"), tsresol=9, name="eth0")
    if extra:
        file.block(4, struct.pack("<HH", 1, 10) + b"\x0a\0\0\1host\0\0" + bytes(4))  # name resolution
        file.block(0x0BAD, struct.pack("<I", 32473) + b"custom one")
    file.enhanced(b"A" * 60, 5 * S + 1, (1, b"a comment"), (2, struct.pack("<I", 2)))
    frames.append((5 * S + 1, b"A" * 60, 60, 0, FLAG_OUTGOING))
    file.interface(101, 0, name="tun0")
    file.enhanced(b"B" * 33, 7_000_001, (2, struct.pack("<I", 1 | 1 << 24)), interface=1, length=400)
    frames.append((7_000_001_000, b"B" * 33, 400, 1, FLAG_BAD_FCS))
    file.simple(b"C" * 100, length=1400)
    frames.append((0, b"C" * 100, 1400, 0, FLAG_NO_TIMESTAMP))
    file.obsolete(b"D" * 61, 8_000_000, (2, struct.pack("<I", 2)), interface=1, drops=3)
    frames.append((8 * S, b"D" * 61, 61, 1, FLAG_OUTGOING))
    if extra:
        file.block(5, struct.pack("<III", 0, 1, 2) + file.options((4, struct.pack("<Q", 9))))  # statistics
    file.section(">", (4, b"other machine"))
    if extra:
        file.block(10, struct.pack(">II", 0x544C534B, 4) + b"keys")  # decryption secrets
        file.block(0x80000001, b"nobody knows me")
    file.interface(113, 65535, tsresol=6, tsoffset=3600, name="any")
    file.enhanced(b"E" * 64, 9_500_000, (1, "Grüße".encode()), (2, struct.pack(">I", 2)))
    frames.append((3600 * S + 9_500_000_000, b"E" * 64, 64, 2, FLAG_OUTGOING))
    file.simple(b"F" * 13)
    frames.append((0, b"F" * 13, 13, 2, FLAG_NO_TIMESTAMP))
    file.section("<")
    file.interface(9, 0, tsresol=0x80 | 32)
    file.enhanced(b"G" * 20, (77 << 32) | 1 << 31)
    frames.append((77 * S + S // 2, b"G" * 20, 20, 3, 0))
    if extra:
        file.block(5, struct.pack("<III", 0, 1, 2))
    return file.bytes(), frames


@pytest.mark.parametrize("batch", [{}, {"batch_frames": 1}, {"batch_frames": 2, "batch_bytes": 100}])
def test_pcapng_sections_interfaces_blocks(batch, tmp_path, tshark):
    data, expected = mixed()
    path = tmp_path / "mixed.pcapng"
    path.write_bytes(data)
    frames, reader = frames_of(path, **batch)
    assert frames == expected
    assert [tuple(p) for p in reader.ports] == [
        ("eth0", 1, 100, S, str(path)),
        ("tun0", 101, 0, 10**6, str(path)),
        ("any", 113, 65535, 10**6, str(path)),
        ("", 9, 0, 2**32, str(path)),
    ]
    theirs = tshark(path)
    assert [(len(d), n) for _, d, n, _, _ in frames] == [row[1:3] for row in theirs]
    for ours, row in zip(frames, theirs, strict=True):
        if not ours[4] & FLAG_NO_TIMESTAMP:
            assert ours[0] == row[0]


def test_pcapng_passes_through_byte_for_byte(tmp_path):
    data, _ = mixed()
    path = tmp_path / "mixed.pcapng"
    path.write_bytes(data)
    for frames, size in ((65536, 1 << 20), (1, 100), (3, 200)):
        with (
            open_capture(path, batch_frames=frames, batch_bytes=size) as reader,
            create_capture(tmp_path / "out.pcapng", like=reader) as writer,
        ):
            for batch in reader:
                with batch:
                    writer.write(batch)
        assert (tmp_path / "out.pcapng").read_bytes() == data


def test_pcapng_options_column(tmp_path):
    data, expected = mixed()
    (path := tmp_path / "m.pcapng").write_bytes(data)
    seen = []
    with open_capture(path) as reader:
        for batch in reader:
            offsets, lengths = (np.frombuffer(c, t) for c, t in zip(batch.options, ("u8", "u4"), strict=True))
            raw = batch.data.tobytes()
            seen += [
                (batch.options_big_endian, raw[o : o + n]) for o, n in zip(offsets, lengths, strict=True)
            ]
    assert len(seen) == len(expected)
    assert [big for big, _ in seen] == [False] * 4 + [True] * 2 + [False]
    assert seen[0][1][:13] == struct.pack("<HH", 1, 9) + b"a comment"
    assert seen[2][1] == seen[5][1] == b""


def test_dropping_frames_keeps_the_other_blocks_in_place(tmp_path, tshark):
    data, expected = mixed()
    (path := tmp_path / "m.pcapng").write_bytes(data)
    keep = [1, 0, 0, 1, 0, 1, 1]
    with open_capture(path) as reader, create_capture(tmp_path / "o.pcapng", like=reader) as writer:
        for batch in reader:
            with batch:
                mask = bytes(keep[batch.first : batch.first + len(batch)])
                assert writer.write(batch, mask) == sum(mask)
    # Everything but the packets is there, in its order and between the same packets.
    packets, dropped = (2, 3, 6), iter(keep)
    wanted = [raw for kind, raw in blocks(data) if kind not in packets or next(dropped)]
    assert [raw for _, raw in blocks((tmp_path / "o.pcapng").read_bytes())] == wanted
    assert frames_of(tmp_path / "o.pcapng")[0] == [f for f, k in zip(expected, keep, strict=True) if k]
    assert len(tshark(tmp_path / "o.pcapng")) == sum(keep)


@pytest.mark.parametrize("extra", [False, True])
def test_mixed_to_other_formats(extra, tmp_path, tshark):
    data, expected = mixed(extra=extra)
    (path := tmp_path / "m.pcapng").write_bytes(data)
    with pytest.raises(InputError, match=r"frame 2 comes from an interface of another link type.*pcapng"):
        copy(path, tmp_path / "o.pcap")
    assert frames_of(tmp_path / "o.pcap")[0] == [(*expected[0][:4], 0)]
    # A writer that was not made like the reader describes the interfaces anew, in nanoseconds.
    with open_capture(path) as reader, create_capture(tmp_path / "n.pcapng") as writer:
        for batch in reader:
            with batch:
                writer.write(batch)
    frames, reader = frames_of(tmp_path / "n.pcapng")
    # Flags too, from the options, their byte order turned where needed. But for one: a simple packet block
    # can only name the first interface, so that frame became an enhanced one, stamped 0.
    assert frames == [*expected[:5], (*expected[5][:4], 0), expected[6]]
    assert [(p.name, p.linktype, p.snaplen) for p in reader.ports] == [
        ("eth0", 1, 100), ("tun0", 101, 0), ("any", 113, 65535), ("", 9, 0),
    ]  # fmt: skip
    rows = tshark(tmp_path / "n.pcapng", "frame.interface_name", "frame.comment")
    assert [(r[1], r[2]) for r in rows] == [(len(f[1]), f[2]) for f in expected]
    assert rows[0][4] == "a comment" and rows[4][4] == "Grüße" and rows[1][3] == "tun0"


def test_writers_made_late_and_several_at_once(tmp_path):
    data, expected = mixed()
    (path := tmp_path / "m.pcapng").write_bytes(data)
    with open_capture(path, batch_frames=2) as reader:
        first = reader.read()
        with (
            create_capture(tmp_path / "a.pcapng", like=reader) as a,
            create_capture(tmp_path / "b.pcapng", like=reader) as b,
        ):
            a.write(first)
            for batch in reader:
                a.write(batch)
                b.write(batch)
    assert frames_of(tmp_path / "a.pcapng")[0] == expected
    assert [f[1] for f in frames_of(tmp_path / "b.pcapng")[0]] == [f[1] for f in expected[2:]]


def test_batches_of_several_sources_in_one_pcapng(tmp_path, tshark):
    data, expected = mixed()
    (path := tmp_path / "m.pcapng").write_bytes(data)
    with open_capture(path) as reader, create_capture(tmp_path / "o.pcapng", like=reader) as writer:
        batches = list(reader)
        # Frames of elsewhere first (each generated batch with an equal table of its own), then the reader's,
        # the last section's first: interfaces are described again where they are needed.
        for i in range(3):
            writer.write(FrameBatch.from_frames([b"x" * 60], timestamp_ns=[i]))
        for batch in reversed(batches):
            writer.write(batch)
    frames, again = frames_of(tmp_path / "o.pcapng")
    wanted = [*expected[6:], *expected[4:6], *expected[:4]]
    assert [f[:3] for f in frames[:3]] == [(i, b"x" * 60, 60) for i in range(3)]
    assert [f[1:3] for f in frames[3:]] == [f[1:3] for f in wanted]
    stamped = [i for i, f in enumerate(wanted) if not f[4] & FLAG_NO_TIMESTAMP]
    assert [frames[3 + i][0] for i in stamped] == [wanted[i][0] for i in stamped]
    assert [again.ports[f[3]].name for f in frames[3:]] == [reader.ports[f[3]].name for f in wanted]
    assert [(r[1], r[2]) for r in tshark(tmp_path / "o.pcapng")] == [(len(f[1]), f[2]) for f in frames]
    with create_capture(tmp_path / "g.pcapng") as writer:
        for i in range(100):
            writer.write(FrameBatch.from_frames([b"x" * 60], timestamp_ns=[i]))
    assert len(frames_of(tmp_path / "g.pcapng")[1].ports) == 1


def test_altered_stamps_and_selections(tmp_path):
    data, expected = mixed()
    (path := tmp_path / "m.pcapng").write_bytes(data)
    with open_capture(path) as reader, create_capture(tmp_path / "o.pcapng", like=reader) as writer:
        batch = reader.read()
        chosen = batch.select(np.array([0, 3]))
        chosen.timestamp_ns[:] += 2_000_000
        writer.write(chosen)
    out = frames_of(tmp_path / "o.pcapng")[0]
    assert [f[:3] for f in out] == [(expected[i][0] + 2_000_000, *expected[i][1:3]) for i in (0, 3)]
    with open_capture(path) as reader, create_capture(tmp_path / "o.pcapng", like=reader) as writer:
        chosen = reader.read().select(np.array([3]))
        chosen.timestamp_ns[:] += 1
        with pytest.raises(InputError, match="cannot be told in the ticks of its interface"):
            writer.write(chosen)


def test_comments(tmp_path, tshark):
    (path := tmp_path / "x.pcap").write_bytes(pcap(RECORDS))
    which, texts = np.array([0, 1, 2, 1, 0], np.uint8), ["", "duplicate: exact", "ü"]
    with open_capture(path) as reader, create_capture(tmp_path / "o.pcapng", like=reader) as writer:
        for batch in reader:
            writer.write(batch, comments=(which, texts))
    assert [row[3] for row in tshark(tmp_path / "o.pcapng", "frame.comment")] == [texts[i] for i in which]
    with open_capture(path) as reader, create_capture(tmp_path / "o.pcap", like=reader) as writer:
        batch = reader.read()
        with pytest.raises(ConfigError, match="holds no comments"):
            writer.write(batch, comments=(which, texts))
    data, expected = mixed()
    (path := tmp_path / "m.pcapng").write_bytes(data)
    with open_capture(path) as reader, create_capture(tmp_path / "o.pcapng", like=reader) as writer:
        for batch in reader:
            writer.write(batch, comments=(bytes(len(batch)), ["seen before"]))
    rows = tshark(tmp_path / "o.pcapng", "frame.comment")
    assert rows[0][3] == "a comment,seen before" and rows[2][3] == "seen before"
    out = frames_of(tmp_path / "o.pcapng")[0]
    # A simple packet block has no options: with a comment it becomes an enhanced one, stamped 0.
    assert [f[1:4] for f in out] == [f[1:4] for f in expected]


def test_formats_chosen(tmp_path):
    us, ns = tmp_path / "us.pcap", tmp_path / "ns.pcap"
    us.write_bytes(pcap(RECORDS))
    ns.write_bytes(pcap([(1, 123_456_789, b"a" * 60, 60)], magic=0xA1B23C4D))
    assert copy(us, tmp_path / "o.pcap").format == "pcap"
    assert copy(ns, tmp_path / "o.pcap").format == "pcap-ns"
    assert copy(ns, tmp_path / "o.unknown").format == "pcap-ns"
    assert copy(us, tmp_path / "o.NTAR").format == "pcapng"
    assert copy(ns, tmp_path / "o.pcap", format="pcap").format == "pcap"  # asked for: microseconds
    assert read_pcap((tmp_path / "o.pcap").read_bytes())[2] == [(1, 123_456, b"a" * 60, 60)]
    with pytest.raises(ConfigError, match="unknown capture format 'erf'"):
        create_capture(tmp_path / "o", format="erf")
    # A batch without source, named .pcap: ns ports make a ns file.
    batch = FrameBatch.from_frames([b"x" * 60], timestamp_ns=[1_000_000_001])
    with create_capture(tmp_path / "p.pcap") as writer:
        writer.write(batch)
    assert frames_of(tmp_path / "p.pcap")[0][0][0] == 1_000_000_001
    for stamp in (-1, (1 << 32) * S):
        with (
            create_capture(tmp_path / "p.pcap") as writer,
            pytest.raises(InputError, match="does not fit a pcap record"),
        ):
            writer.write(FrameBatch.from_frames([b"x" * 60], timestamp_ns=[stamp]))
    with create_capture(tmp_path / "empty.pcap"):
        pass
    assert frames_of(tmp_path / "empty.pcap")[0] == []
    with create_capture(tmp_path / "empty.pcapng"):
        pass
    assert frames_of(tmp_path / "empty.pcapng")[0] == []


def test_finer_stamps_after_a_microsecond_file_began(tmp_path):
    file = Pcapng().section().interface(tsresol=6).enhanced(b"a" * 60, 1_000_000)
    file.section().interface(tsresol=9).enhanced(b"b" * 60, 2 * S).enhanced(b"c" * 60, 2 * S + 1)
    (path := tmp_path / "x.pcapng").write_bytes(file.bytes())
    with pytest.raises(InputError, match="frame 3 has a time finer than a microsecond"):
        copy(path, tmp_path / "o.pcap")
    assert [f[1][:1] for f in frames_of(tmp_path / "o.pcap")[0]] == [b"a", b"b"]


def random_capture(n, rng, *, small=False):
    return [
        (
            1000 + i // 7,
            rng.randrange(1_000_000),
            rng.randbytes(rng.choice([0, 1, 14, 60, 64, 200] + ([] if small else [1514, 9000]))),
            9000,
        )
        for i in range(n)
    ]


@pytest.mark.parametrize("kind", ["pcap", "pcap-be", "pcapng"])
def test_cut_into_any_batches_the_frames_are_the_same(kind, tmp_path):
    rng = random.Random(7)
    records = random_capture(500, rng)
    (path := tmp_path / "x").write_bytes(pcap(records, order=">" if kind == "pcap-be" else "<"))
    if kind == "pcapng":
        copy(path, tmp_path / "y", format="pcapng")
        path = tmp_path / "y"
    expected = [(s * S + f * 1000, d, n, 0, 0) for s, f, d, n in records]
    for _ in range(30):
        sizes = {
            "batch_frames": rng.choice([1, 2, 7, 100, 499, 500, 501]),
            "batch_bytes": rng.choice([1, 64, 1000, 9017, 30_000, 1 << 20]),
        }
        assert frames_of(path, **sizes)[0] == expected, sizes
        with open_capture(path, **sizes) as reader, create_capture(tmp_path / "o", like=reader) as writer:
            held = []
            for batch in reader:  # batches held back: their bytes must not change under them
                held.append(batch)
                if len(held) > 5:
                    with held.pop(0) as old:
                        writer.write(old)
            for old in held:
                writer.write(old)
        assert frames_of(tmp_path / "o")[0] == expected, sizes


@pytest.mark.parametrize("keeping", [0.0, 0.03, 0.5, 0.97, 1.0])
@pytest.mark.parametrize("fmt", ["pcap", "pcap-ns", "pcapng"])
def test_keep(keeping, fmt, tmp_path):
    rng = random.Random(11)
    records = random_capture(3000, rng)
    (path := tmp_path / "x.pcap").write_bytes(pcap(records))
    mask = [rng.random() < keeping for _ in records]
    with (
        open_capture(path, batch_frames=777) as reader,
        create_capture(tmp_path / "o", like=reader, format=fmt) as writer,
    ):
        for batch in reader:
            with batch:
                keep = np.array(mask[batch.first : batch.first + len(batch)])
                assert (
                    writer.write(batch, rng.choice([keep, keep.astype(np.uint8), keep.tobytes()]))
                    == keep.sum()
                )
    out = frames_of(tmp_path / "o")[0]
    assert [f[:3] for f in out] == [
        (s * S + f * 1000, d, n) for (s, f, d, n), k in zip(records, mask, strict=True) if k
    ]


def test_gaps_and_disorder_within_a_batch_are_encoded(tmp_path):
    (path := tmp_path / "x.pcap").write_bytes(pcap(random_capture(200, random.Random(3))))
    expected = frames_of(path)[0]
    order = np.random.default_rng(5).permutation(200)
    with open_capture(path) as reader, create_capture(tmp_path / "o.pcap", like=reader) as writer:
        writer.write(reader.read().select(order))
    assert frames_of(tmp_path / "o.pcap")[0] == [expected[i] for i in order]


def test_columns_are_checked(tmp_path):
    (path := tmp_path / "x.pcap").write_bytes(pcap(RECORDS))
    for column, value in ((1, 10**9), (1, 2**64 - 1), (2, 2**32 - 1)):
        batch = FrameBatch.from_frames([b"a" * 60, b"b" * 60])
        batch.raw[column][1] = value
        for name in ("o.pcap", "o.pcapng"):
            with (
                create_capture(tmp_path / name) as writer,
                pytest.raises(IndexError, match="lies outside its data"),
            ):
                writer.write(batch)
            assert [f[1] for f in frames_of(tmp_path / name)[0]] == [b"a" * 60]
    with (
        open_capture(path) as reader,
        create_capture(tmp_path / "o.pcap") as writer,
        pytest.raises(IndexError),
    ):
        writer.write(reader.read(), b"\1\1")


# --- cut short, damaged, hostile -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_cut_at_every_byte(kind, tmp_path):
    if kind == "pcap":
        records = [(s, f, d[:150], n) for s, f, d, n in RECORDS]
        data, ends = pcap(records), [24]
        for r in records:
            ends.append(ends[-1] + 16 + len(r[2]))
        first = 24
        expected = [(s * S + f * 1000, d, n, 0, 0) for s, f, d, n in records]
        count = {e: i for i, e in enumerate(ends)}
    else:
        data, expected = mixed()
        at, seen, count = 0, 0, {0: 0}
        for t, raw in blocks(data):
            at += len(raw)
            seen += t in (2, 3, 6)
            count[at] = seen
        first = 1
    for cut in range(len(data)):
        (path := tmp_path / "cut").write_bytes(data[:cut])
        if cut < 4 or (kind == "pcap" and cut < first):
            with pytest.raises(InputError, match=r"cut: (is empty|ends after \d+ bytes)"):
                open_capture(path)
            continue
        frames, reader = frames_of(path)
        whole = max(e for e in count if e <= cut)
        assert frames == expected[: count[whole]]
        if cut in count:
            assert reader.truncated is None
        else:
            assert f"cut short at byte {cut}: the record after frame {count[whole]} wants" in reader.truncated


DAMAGE = {
    "caplen": (
        lambda: pcap([*RECORDS[:2]]) + struct.pack("<IIII", 1, 2, 262145, 60) + bytes(300_000),
        2,
        24 + 76 + 77,
        "frame 3: damaged: it claims 262145",
    ),
    "multiple": (
        lambda: Pcapng().section().interface().enhanced(b"a", 1).block(6, bytes(20), length=34).bytes(),
        1,
        28 + 20 + 36,
        "claims 34 bytes",
    ),
    "short": (
        lambda: Pcapng().section().interface().block(6, bytes(8)).bytes(),
        0,
        48,
        "packet block of 20 bytes, at least 32",
    ),
    "tiny": (lambda: Pcapng().section().interface().block(6, b"", length=8).bytes(), 0, 48, "claims 8 bytes"),
    "trailer": (
        lambda: Pcapng().section().interface().enhanced(b"a", 1).block(6, bytes(20), trailer=36).bytes(),
        1,
        84,
        "32 bytes at its start and 36 at its end",
    ),
    "interface": (
        lambda: Pcapng().section().interface().enhanced(b"a", 1, interface=1).bytes(),
        0,
        48,
        "frame 1 names interface 1, 1 are described",
    ),
    "no interface": (
        lambda: Pcapng().section().simple(b"abcd").bytes(),
        0,
        28,
        "before the section's first interface",
    ),
    "option": (
        lambda: Pcapng().section().interface().block(6, bytes(20) + struct.pack("<HHI", 1, 5, 0)).bytes(),
        0,
        48,
        "option 1 of this packet block claims 5 bytes and overruns",
    ),
    "if option": (
        lambda: Pcapng().section().block(1, struct.pack("<HHIHHI", 1, 0, 0, 2, 99, 0)).bytes(),
        0,
        28,
        "option 2 of this interface description claims 99",
    ),
    "tsresol": (
        lambda: Pcapng().section().interface(1, 0, (9, b"ab")).bytes(),
        0,
        28,
        "if_tsresol has 2 bytes, 1 are right",
    ),
    "huge": (
        lambda: Pcapng().section().block(0x77, b"", length=0xFFFFFFF0).bytes(),
        0,
        28,
        "more than the 16777216 accepted",
    ),
    "epb caplen": (
        lambda: (
            Pcapng()
            .section()
            .interface()
            .block(6, struct.pack("<IIIII", 0, 0, 0, 100, 100) + bytes(96))
            .bytes()
        ),
        0,
        48,
        "claims 100 captured bytes in a block of 128",
    ),
    "spb": (
        lambda: Pcapng().section().interface().simple(b"abcd", 9).bytes(),
        0,
        48,
        "frame 1 has 9 captured bytes",
    ),
    "time": (
        lambda: Pcapng().section().interface(tsresol=0).enhanced(b"a", 1 << 63).bytes(),
        0,
        60,
        "lies outside the years 1678 to 2262",
    ),
    "version": (
        lambda: Pcapng().block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 2, 0, -1)).bytes(),
        0,
        0,
        "pcapng version 2.0",
    ),
    "order": (
        lambda: Pcapng().block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4E, 1, 0, -1)).bytes(),
        0,
        0,
        "byte-order magic",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named_after_the_frames_before_it(what, tmp_path):
    make, good, byte, message = DAMAGE[what]
    (path := tmp_path / "bad").write_bytes(make())
    with open_capture(path) as reader:
        seen = 0
        with pytest.raises(InputError) as caught:
            for batch in reader:
                seen += len(batch)
        assert seen == good
        assert str(caught.value).startswith(f"{path}: byte {byte}: ")
        assert message in str(caught.value)
        with pytest.raises(InputError):
            reader.read()


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\x1f\x8b\x08\0", "gzip.*gzip -dc"),
        (b"\x28\xb5\x2f\xfd", "zstd.*zstd -dc"),
        (b"\xfd7zXZ\0", "xz -dc"),
        (b"BZh9", "bzip2 -dc"),
        (b"GIF89a", "byte 0: this is no capture: it begins with 47 49 46 38"),
        (bytes(8), "killed while it overwrote"),
        (struct.pack("<IHHIIII", 0xA1B2C3D4, 3, 0, 0, 0, 0, 1), "byte 4: pcap version 3.0"),
    ],
)
def test_no_captures(head, message, tmp_path):
    (path := tmp_path / "x").write_bytes(head + bytes(8))
    with pytest.raises(InputError, match=message):
        open_capture(path)


def test_sources_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="cannot be opened: No such file"):
        open_capture(tmp_path / "absent")
    with pytest.raises(InputError, match="is a directory"):
        open_capture(tmp_path)
    with pytest.raises(InputError, match="Bad file descriptor"):
        open_capture(99_999)
    (path := tmp_path / "x.pcap").write_bytes(pcap(RECORDS))
    reader = open_capture(path)
    reader.close()
    with pytest.raises(InputError, match="is closed"):
        reader.read()


def test_too_many_interfaces(tmp_path):
    file = Pcapng().section()
    one = Pcapng().interface(1, 0).bytes()
    (path := tmp_path / "x").write_bytes(file.bytes() + one * 65537)
    with pytest.raises(InputError, match="more than 65536 interfaces"):
        frames_of(path)


def drain(data: bytes, **options) -> int:
    """Reads hostile bytes to the end or to an InputError, writing on what comes."""
    n = 0
    try:
        with (
            open_capture(io.BytesIO(data), **options) as reader,
            create_capture(os.devnull, like=reader, format="pcapng") as writer,
        ):
            for batch in reader:
                with batch:
                    ends = batch.offset + batch.caplen
                    assert (ends <= len(batch.raw[0])).all() and (
                        batch.port < max(1, len(reader.ports))
                    ).all()
                    n += len(batch)
                    writer.write(batch)
            assert writer.frames == n
    except InputError as error:
        assert "BytesIO: " in str(error) or "/dev/null" in str(error)
    return n


def test_fuzz(tmp_path):
    seed = int.from_bytes(os.urandom(4), "big")
    print("seed", seed)
    rng = random.Random(seed)
    small = random_capture(20, rng, small=True)
    seeds = [
        mixed()[0],
        pcap(small),
        pcap(small, order=">"),
        pcap(small, magic=0xA1B2CD34),
        pcap(small, magic=0xA1B23C4D),
    ]
    end = time.monotonic() + float(os.environ.get("TWINSTAMP_FUZZ_SECONDS", "4"))
    runs = 0
    while time.monotonic() < end:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice([1, 1, 2, 8])):
            at = rng.randrange(len(data)) if rng.random() < 0.5 else rng.randrange(min(len(data), 200))
            action = rng.randrange(5)
            if action == 0:
                data[at] ^= 1 << rng.randrange(8)
            elif action == 1:
                data[at : at + 4] = struct.pack(
                    "<I",
                    rng.choice(
                        [
                            0,
                            1,
                            4,
                            12,
                            0x7FFFFFFF,
                            0x80000000,
                            0xFFFFFFFF,
                            0xFFFFFFFC,
                            262144,
                            rng.getrandbits(32),
                        ]
                    ),
                )
            elif action == 2:
                del data[at : at + rng.randrange(1, 40)]
            elif action == 3:
                data[at:at] = rng.randbytes(rng.randrange(1, 40))
            else:
                other = rng.choice(seeds)
                data[at:at] = other[rng.randrange(len(other)) :][:300]
        drain(bytes(data), batch_frames=rng.choice([1, 3, 100]), batch_bytes=rng.choice([64, 500, 1 << 16]))
        runs += 1
    print(runs, "runs")
    assert runs > 200


def test_claimed_lengths_cost_no_memory(tmp_path):
    # 200 interfaces of D-Bus let a block claim 128 MiB; a short file must not make us touch it.
    file = Pcapng().section().interface(231).block(6, bytes(24), length=100 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (path := tmp_path / "x").write_bytes(file.bytes())
    frames, reader = frames_of(path)
    assert frames == [] and "cut short" in reader.truncated
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10


# --- pipes, standard streams, file objects ---------------------------------------------------------


def test_file_objects_and_descriptors(tmp_path):
    data = pcap(RECORDS)
    (path := tmp_path / "x.pcap").write_bytes(data)
    expected = frames_of(path)[0]
    assert frames_of(io.BytesIO(data))[0] == expected
    with open(path, "rb") as file:
        assert frames_of(file)[0] == expected
    path.write_bytes(b"skip" + data)
    with open(path, "rb") as file:
        file.read(4)  # a buffered reader is further on in the file than it says
        assert frames_of(file)[0] == expected
    fd = os.open(path, os.O_RDONLY)
    os.lseek(fd, 4, os.SEEK_SET)
    assert frames_of(fd)[0] == expected
    os.close(fd)
    with pytest.raises(ConfigError, match="readinto"):
        open_capture(io.StringIO("x"))


@pytest.mark.parametrize("kind", ["fifo", "pipe"])
def test_a_live_pipe_is_delivered_as_it_comes(kind, tmp_path):
    if kind == "fifo":
        os.mkfifo(tmp_path / "f")
        opened = []
        thread = threading.Thread(target=lambda: opened.append(os.open(tmp_path / "f", os.O_RDONLY)))
        thread.start()
        out = os.open(tmp_path / "f", os.O_WRONLY)
        thread.join()
        source = opened[0]
    else:
        source, out = os.pipe()
    data = pcap([])
    os.write(out, data[:10])
    threading.Timer(0.05, lambda: os.write(out, data[10:])).start()
    with open_capture(source) as reader:
        assert reader.size is None
        waits = []
        for i in range(20):
            record = pcap([(i, i, bytes([i]) * 60, 60)])[24:]
            os.write(out, record[:30])
            timer = threading.Timer(0.01, os.write, (out, record[30:]))
            timer.start()
            batch = reader.read()
            waits.append(time.monotonic())
            assert len(batch) == 1 and batch.frame(0) == bytes([i]) * 60
            timer.join()
            waits[-1] = time.monotonic() - waits[-1]
            batch.release()
        os.write(out, record[:20])
        os.close(out)
        assert reader.read() is None
        assert "cut short" in reader.truncated
    os.close(source)


def test_batches_of_a_pipe_gather_what_is_there(tmp_path):
    source, out = os.pipe()
    os.write(out, pcap([(i, 0, b"x" * 60, 60) for i in range(500)]))
    with open_capture(source) as reader:
        start = time.monotonic()
        assert len(reader.read()) == 500
        assert time.monotonic() - start < 0.5
        os.close(out)
        assert reader.read() is None and reader.truncated is None
    os.close(source)


def test_cancel_and_signals_end_a_waiting_read():
    source, out = os.pipe()
    os.write(out, pcap([]))
    with open_capture(source) as reader:
        threading.Timer(0.1, reader.cancel).start()
        assert reader.read() is None
    os.write(out, pcap([]))
    with open_capture(source) as reader:

        def alarm(*_):
            raise TimeoutError

        old = signal.signal(signal.SIGALRM, alarm)
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        try:
            with pytest.raises(TimeoutError):
                reader.read()
        finally:
            signal.signal(signal.SIGALRM, old)
    os.close(source)
    os.close(out)


COPY = """
import sys
from twinstamp.io import open_capture, create_capture
assert "numpy" not in sys.modules and "dataclasses" not in sys.modules, "slow start"
with open_capture(sys.argv[1]) as r, create_capture(sys.argv[2], like=r) as w:
    for batch in r:
        with batch:
            w.write(batch)
"""


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_standard_streams(kind, tmp_path):
    data = pcap(RECORDS) if kind == "pcap" else mixed()[0]
    done = subprocess.run([sys.executable, "-c", COPY, "-", "-"], input=data, capture_output=True, check=True)
    assert done.stdout == data
    (path := tmp_path / "x").write_bytes(data)
    with open(path, "rb") as file, open(tmp_path / "out", "wb") as out:
        subprocess.run([sys.executable, "-c", COPY, "-", "-"], stdin=file, stdout=out, check=True)
    assert (tmp_path / "out").read_bytes() == data


def test_tcpdump_takes_our_pipe(tmp_path):
    tcpdump = shutil.which("tcpdump")
    if tcpdump is None:
        pytest.skip("tcpdump is not installed")
    records = [(i, 0, b"x" * 60, 60) for i in range(1000)]
    (path := tmp_path / "x.pcap").write_bytes(pcap(records))
    ours = subprocess.Popen([sys.executable, "-c", COPY, str(path), "-"], stdout=subprocess.PIPE)
    theirs = subprocess.run(
        [tcpdump, "-r", "-", "-w", str(tmp_path / "y.pcap")],
        stdin=ours.stdout,
        capture_output=True,
        check=True,
    )
    ours.stdout.close()
    assert ours.wait() == 0 and theirs.returncode == 0
    assert read_pcap((tmp_path / "y.pcap").read_bytes())[2] == records
    # and the other way round: tcpdump's pipe into us
    theirs = subprocess.Popen(
        [tcpdump, "-r", str(path), "-w", "-"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    subprocess.run(
        [sys.executable, "-c", COPY, "-", str(tmp_path / "z.pcap")], stdin=theirs.stdout, check=True
    )
    theirs.stdout.close()
    theirs.wait()
    assert read_pcap((tmp_path / "z.pcap").read_bytes())[2] == records


# --- outputs ---------------------------------------------------------------------------------------


def test_an_old_file_is_overwritten_in_place_and_no_capture_until_closed(tmp_path):
    (path := tmp_path / "x.pcap").write_bytes(pcap(RECORDS))
    target = tmp_path / "o.pcap"
    target.write_bytes(pcap([(9, 9, bytes(1500), 1500)] * 5000))
    inode = target.stat().st_ino
    with open_capture(path) as reader, create_capture(target, like=reader) as writer:
        assert target.read_bytes()[:4] == bytes(4)
        writer.write(reader.read())
        writer.flush()
        with pytest.raises(InputError, match="killed"):
            open_capture(target)
    assert target.stat().st_ino == inode
    assert target.read_bytes() == path.read_bytes()
    # pcapng likewise
    target.write_bytes(bytes(10_000_000))
    data, _ = mixed()
    path.write_bytes(data)
    copy(path, target, format="pcapng")
    assert target.read_bytes() == data


def test_an_exception_leaves_a_valid_file(tmp_path):
    (path := tmp_path / "x.pcap").write_bytes(pcap(RECORDS * 1000))
    target = tmp_path / "o.pcap"
    target.write_bytes(bytes(50_000_000))
    with (
        pytest.raises(RuntimeError),
        open_capture(path, batch_frames=100) as reader,
        create_capture(target, like=reader) as writer,
    ):
        for batch in reader:
            writer.write(batch)
            if reader.frames == 700:
                raise RuntimeError
    assert len(frames_of(target)[0]) == 700


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("kept", [1, 2])
@pytest.mark.parametrize("ending", ["pcap", "pcapng"])
def test_a_file_that_may_not_grow_is_cut_after_whole_records(old, kept, ending, tmp_path):
    source = tmp_path / "x.pcap"
    source.write_bytes(pcap([(i, 0, bytes([i % 251]) * 1000, 1000) for i in range(8000)]))
    target = tmp_path / f"o.{ending}"
    if old:
        target.write_bytes(bytes(2_000_000))
    code = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
from twinstamp.errors import DeviceError
from twinstamp.io import open_capture, create_capture
try:
    with open_capture({str(source)!r}) as r, create_capture({str(target)!r}, like=r) as w:
        for b in r:
            w.write(b, bytes([1, {kept % 2}]) * (len(b) // 2) + bytes([1]) * (len(b) % 2))
except DeviceError as e:
    print(w.frames, w.bytes_written, e)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    frames, size, message = done.stdout.split(" ", 2)
    assert "cannot write: File too large" in message and "ulimit" in message
    assert target.stat().st_size == int(size) <= 3_000_000
    out, reader = frames_of(target)
    assert reader.truncated is None
    assert len(out) == int(frames) > 1000


def test_a_writer_forgotten_still_ends_well(tmp_path):
    (path := tmp_path / "x.pcap").write_bytes(pcap(RECORDS))
    (target := tmp_path / "o.pcap").write_bytes(bytes(10_000))
    reader = open_capture(path)
    writer = create_capture(target, like=reader)
    writer.write(reader.read())
    del writer, reader
    assert target.read_bytes() == path.read_bytes()
    create_capture(path).close()  # and the input is no input any more


def test_disk_full_and_reader_gone(tmp_path):
    (path := tmp_path / "x.pcap").write_bytes(pcap(RECORDS))
    with (
        open_capture(path) as reader,
        pytest.raises(DeviceError, match=r"No space left on device.*free space"),
        create_capture("/dev/full", like=reader) as writer,
    ):
        writer.write(reader.read())
    source, out = os.pipe()
    os.close(source)
    with (
        open_capture(path) as reader,
        pytest.raises(DeviceError, match=r"Broken pipe.*has gone"),
        create_capture(out, like=reader) as writer,
    ):
        writer.write(reader.read())
    os.close(out)
    with pytest.raises(ConfigError, match="cannot be created: No such file"):
        create_capture(tmp_path / "no" / "where.pcap")


def test_output_must_not_be_the_input(tmp_path):
    (path := tmp_path / "x.pcap").write_bytes(pcap(RECORDS))
    os.link(path, tmp_path / "hard.pcap")
    (tmp_path / "soft.pcap").symlink_to(path)
    with open_capture(path) as reader:
        for name in ("x.pcap", "hard.pcap", "soft.pcap"):
            with pytest.raises(ConfigError, match="is the same file as the input"):
                create_capture(tmp_path / name, like=reader)
    assert path.read_bytes() == pcap(RECORDS)
    create_capture(path).close()


def test_buffers_go_round(tmp_path):
    (path := tmp_path / "x.pcap").write_bytes(pcap([(i, 0, bytes(1000), 1000) for i in range(5000)]))
    addresses = set()
    with open_capture(path, batch_bytes=100_000) as reader:
        for batch in reader:
            with batch:
                addresses.add(batch.data.__array_interface__["data"][0])
    assert len(addresses) == 1
    # Held batches keep their bytes, and a batch outlives its reader.
    with open_capture(path, batch_bytes=100_000) as reader:
        held = list(reader)
    del reader
    assert sum(len(b) for b in held) == 5000
    assert all(b.frame(0) == bytes(1000) for b in held)
