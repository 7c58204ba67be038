# SPDX-License-Identifier: Apache-2.0
"""Counts of what is not understood against the model of the profiles, and what the commands say of it."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

import pytest
from twinstamp.cli import main
from twinstamp.frames import FrameBatch
from twinstamp.not_understood import NotUnderstood, describe

from tests.kernels import profile_model as model
from tests.kernels import traffic
from tests.kernels.test_encapsulations import CASES, write_pcap
from tests.kernels.test_profiles import read_capture

UNKNOWN = bytes(12) + b"\x89\x27" + bytes(50)


def count(frames: list[bytes], linktypes: list[int], layer: str, workers: int = 1) -> dict:
    counter = NotUnderstood(layer, workers=workers)
    for linktype in sorted(set(linktypes)):
        these = [frame for frame, of in zip(frames, linktypes, strict=True) if of == linktype]
        with FrameBatch.from_frames(these, linktype=linktype) as batch:
            counter.add(batch)
    return counter.as_dict()


def expected(frames: list[bytes], linktypes: list[int], layer: str) -> int:
    """By the model, which knows no soundness here: a step into each tunnel, sound or not."""
    missing = 0
    for frame, linktype in zip(frames, linktypes, strict=True):
        view = model.view_link(frame, linktype, layer)
        while view is not None and layer == "inner":
            tunnel, inside = model.step_into(view)
            if not tunnel:
                break
            view = inside
        missing += view is None
    return missing


@pytest.mark.parametrize("layer", ["outer", "inner"])
@pytest.mark.parametrize("workers", [1, 3])
def test_as_many_as_the_model_says(layer: str, workers: int) -> None:
    rng = random.Random(12)
    frames, linktypes = [], []
    while len(frames) < 3000:
        spec = traffic.make_spec(rng)
        if not traffic.usable(spec) or len(spec["payload"]) > 100:
            continue
        whole = traffic.build(spec)
        for _ in range(10):
            fuzzed = bytearray(whole[: rng.choice([len(whole), len(whole), rng.randrange(len(whole) + 1)])])
            if fuzzed and rng.random() < 0.5:
                fuzzed[rng.randrange(len(fuzzed))] = rng.randrange(256)
            frames.append(bytes(fuzzed))
            linktypes.append(traffic.LINKTYPES[spec["link"]])
    for linktype, made, _, _ in CASES.values():
        for version in (4, 6):
            whole = made(version, 1, 1)
            frames += [whole[:n] for n in range(0, len(whole), 5)]
            linktypes += [linktype] * len(range(0, len(whole), 5))
    times = 12  # so that several threads take part
    got = count(frames * times, linktypes * times, layer, workers)
    assert got["frames"] == times * expected(frames, linktypes, layer) > 1000
    assert got["frames"] == sum(got["link_types"].values()) + sum(got["ethertypes"].values()) + got["damaged"]


@pytest.mark.corpus
@pytest.mark.parametrize("layer", ["outer", "inner"])
def test_as_many_as_the_model_says_on_the_corpus(corpus: Path, layer: str) -> None:
    for path in sorted((corpus / "captures").glob("*.pcap*")):
        frames, linktypes = read_capture(path)
        assert count(frames, linktypes, layer)["frames"] == expected(frames, linktypes, layer), path


def test_the_numbers_are_told() -> None:
    lldp = bytes(12) + b"\x88\xcc" + bytes(46)
    mpls = bytes(12) + b"\x88\x47\0\0\x11\x40" + bytes(40)
    cut = bytes(12) + b"\x08\0\x45" + bytes(8)
    got = count([UNKNOWN] * 3 + [lldp] * 2 + [mpls, cut, b"x" * 40], [1] * 7 + [147], "outer")
    assert got == {
        "frames": 8,
        "link_types": {"147": 1},
        "ethertypes": {"0x8927": 3, "0x88cc": 2, "0x8847": 1},
        "damaged": 1,
    }
    line = describe(got)
    assert line is not None
    assert "8 frames (ethertype 0x8927 3, ethertype 0x88cc 2, " in line and "link type 147 1" in line
    assert describe(count([lldp[:12] + b"\x08\x06" + bytes(46)], [1], "outer")) is None
    assert count([mpls], [1], "inner")["ethertypes"] == {"0x8847": 1}


def test_every_command_tells_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, rules = tmp_path / "x.pcap", tmp_path / "r.toml"
    write_pcap(source, 1, [UNKNOWN, UNKNOWN])
    rules.write_text('default = "dpi"\n[group.dpi]\nservers = ["s0"]\n')
    report = tmp_path / "r.json"
    secret = ["--secret-file", str(tmp_path / "k")]
    for command in (
        ["dedup", str(source), str(tmp_path / "o.pcap"), "--profile", "routing", "--window", "5"],
        ["analyse", str(source)],
        ["balance", str(source), "--rules", str(rules), "--out-dir", str(tmp_path / "d"), *secret],
        ["rules", "match", str(source), "--rules", str(rules), "--out", str(tmp_path / "m.csv")],
    ):
        assert main([*command, "--json", str(report)]) == 0, command
        assert "2 frames (ethertype 0x8927 2)" in capsys.readouterr().err, command
        assert json.loads(report.read_text())["not_understood"]["ethertypes"] == {"0x8927": 2}
    assert main(["dedup", str(source), str(tmp_path / "o.pcap"), "--window", "5", "--json", str(report)]) == 0
    assert "0x8927" not in capsys.readouterr().err  # exact compares bytes


def test_stamps_beyond_their_second_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """suricata #7198: nanoseconds behind the magic number of microseconds."""
    source, report = tmp_path / "x.pcap", tmp_path / "r.json"
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1)
    stamps = [(1700000000, 83_793_664), (1700000000, 83_893_664), (1700000001, 1000)]
    source.write_bytes(head + b"".join(struct.pack("<IIII", *s, 64, 64) + UNKNOWN for s in stamps))
    for command in (
        ["dedup", str(source), str(tmp_path / "o.pcap"), "--time", "50ms"],
        ["analyse", str(source)],
    ):
        assert main([*command, "--json", str(report)]) == 0
        told = capsys.readouterr().err
        assert told.count("2 stamps have a fraction of a second or more") == 1
        assert json.loads(report.read_text())["fractions_beyond"] == 2


def sound(frame: bytes, linktype: int, layer: str) -> bool:
    """By the model: understood, and taken by hosts."""
    return model.view_of(frame, linktype, layer) is not None


@pytest.mark.parametrize("layer", ["outer", "inner"])
def test_what_no_host_takes_is_counted_apart(layer: str) -> None:
    rng = random.Random(5)
    frames = []
    while len(frames) < 2000:
        spec = traffic.make_spec(rng)
        if not traffic.usable(spec) or spec["link"] != "eth" or len(spec["payload"]) > 100:
            continue
        frame = bytearray(traffic.build(spec))
        if rng.random() < 0.5:
            frame[rng.randrange(12, min(len(frame), 80))] = rng.randrange(256)
        frames.append(bytes(frame))
    counter = NotUnderstood(layer, refused=True)
    with FrameBatch.from_frames(frames, linktype=1) as batch:
        counter.add(batch)
    plain = count(frames, [1] * len(frames), layer)
    # What lies behind a header that no host takes is not looked at: it may be understood or not.
    unsound = sum(not sound(frame, 1, layer) for frame in frames)
    assert counter.as_dict() == plain
    assert counter.refused == unsound - expected(frames, [1] * len(frames), layer) > 200


def test_the_commands_tell_what_no_host_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, report = tmp_path / "x.pcap", tmp_path / "r.json"
    head = b"\x45\0\0\x1c\0\1\0\0\x40\x11\0\0\x0a\0\0\1\x0a\0\0\2"  # without its checksum
    frame = bytes(12) + b"\x08\0" + head + struct.pack(">HHHH", 5, 6, 8, 0) + bytes(18)
    write_pcap(source, 1, [frame, UNKNOWN])
    arguments = [str(source), str(tmp_path / "o.pcap"), "--window", "5", "--json", str(report)]
    assert main(["dedup", *arguments, "--profile", "routing"]) == 0
    assert (
        "no host takes them (wrong IPv4 header checksum, TTL 0 and such): 1 frames" in capsys.readouterr().err
    )
    assert json.loads(report.read_text())["duplicates"]["refused"] == 1
    assert main(["dedup", *arguments]) == 0  # exact
    assert "no host takes" not in capsys.readouterr().err
    assert main(["analyse", str(source), "--json", str(report)]) == 0
    assert json.loads(report.read_text())["refused"] == 1
