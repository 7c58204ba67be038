# SPDX-License-Identifier: Apache-2.0
"""The flow hash in the card's records against the CPU's classifier, under the same key."""

from __future__ import annotations

import ctypes
import random
from pathlib import Path

import numpy as np
import pytest
from twinstamp.card.sim import PORTS, frames
from twinstamp.errors import ConfigError
from twinstamp.io import open_capture
from twinstamp_kernels import rules

from tests.conftest import ROOT, captures
from tests.kernels import traffic

KEY = random.Random(20).randbytes(rules.FLOW_KEY_BYTES)


def on_cpu(contents: list[bytes]) -> list[int]:
    """Upper 32 bits of the flow hash of each frame for itself, by the kernels' flow.h."""
    library = ctypes.CDLL(str(ROOT / "build/hdl/libflow_stream.so"))
    library.reference_flow.restype = ctypes.c_uint64
    return [library.reference_flow(KEY, content, len(content)) >> 32 for content in contents]


def by_classifier(contents: list[bytes]) -> list[int]:
    """The same by the CPU's classifier, which follows ICMP errors; an hour apart: fragments are strangers."""
    classifier = rules.Classifier(
        rules=b"", memory_limit=1 << 24, flow_key=KEY, inner=False, by_ip=False, follow_icmp=False, workers=1,
        cache_entries=0, fragment_entries=16, hold_bytes=0, hold_ns=0, lifetime_ns=10**9,
    )  # fmt: skip
    n = len(contents)
    caplen = np.array([len(content) for content in contents], np.uint32)
    offset = np.concatenate(([0], np.cumsum(caplen, dtype=np.uint64)[:-1])).astype(np.uint64)
    data = np.frombuffer(b"".join(contents), np.uint8)
    stamp = np.arange(n, dtype=np.int64) * 3600 * 10**9
    zero = np.zeros(n, np.uint16)
    views = classifier.process(
        data, offset, caplen, caplen, stamp, zero, zero, np.array([1], np.uint16), None, 0
    )
    return [int(value) >> 32 for value in np.asarray(views[1])]


def on_card(make_card, sent: list[list[bytes]], **options) -> list[list[int]]:
    simulated, card = make_card(block_log2=18)
    for port, ppb in enumerate((0, 100_000, -100_000, 7)):
        simulated.set_clock(f"rx{port}", ppb=ppb)
    assert "flow_hash" in card.identity.features
    card.load_flow_key(KEY)
    card.start(**options)
    for port in range(PORTS):
        simulated.send(port, frames(sent[port]))
    got: list[list[int]] = [[] for _ in range(PORTS)]
    for batch in card.receive(2e-3):
        for port in range(PORTS):
            got[port] += batch.flow_hash[batch.port == port].tolist()
    return got


def same(make_card, contents: list[bytes]) -> None:
    sent = [contents[port::PORTS] for port in range(PORTS)]
    got = on_card(make_card, sent)
    for port in range(PORTS):
        expected = on_cpu(sent[port]) if sent[port] else []
        assert len(got[port]) == len(expected)
        wrong = [i for i, (a, b) in enumerate(zip(got[port], expected, strict=True)) if a != b]
        assert not wrong, f"{len(wrong)}/{len(expected)} on port {port}: {sent[port][wrong[0]].hex()}"


@pytest.mark.corpus
@pytest.mark.parametrize("path", captures()[:30], ids=lambda path: path.name)
def test_real_captures(make_card, path: Path):
    contents = []
    with open_capture(path) as reader:
        for batch in reader:
            with batch:
                ethernet = [batch.ports[p].linktype == 1 for p in batch.port.tolist()]
                contents += [
                    batch.frame(i) for i in range(len(batch)) if ethernet[i] and 60 <= batch.caplen[i] <= 9014
                ]
            if len(contents) > 300:
                break
    if contents:
        same(make_card, contents[:300])


def test_generated_frames(make_card):
    rng = random.Random(3)
    contents: list[bytes] = []
    while len(contents) < 600:
        spec = traffic.make_spec(rng)
        if spec["link"] == "eth" and traffic.usable(spec):
            frame = traffic.build(spec)
            if len(frame) <= 9014:
                contents.append(frame + bytes(max(0, 60 - len(frame))))
    same(make_card, contents)
    apart = sum(a != b for a, b in zip(on_cpu(contents), by_classifier(contents), strict=True))
    assert apart <= 60  # ICMP errors


def test_runts_keep_their_turn(make_card):
    """Behind frames that are too short a frame may have no hash (0), never another one's."""
    rng = random.Random(5)
    sent = [[rng.randbytes(rng.choice((1, 5, 14, 20, 40, 60, 80))) for _ in range(300)] for _ in range(PORTS)]
    got = on_card(make_card, sent, keep_runt=True)
    for port in range(PORTS):
        assert len(got[port]) == 300
        expected = on_cpu(sent[port])
        assert all(a in (b, 0) for a, b in zip(got[port], expected, strict=True))
        assert sum(a == b for a, b in zip(got[port], expected, strict=True)) > 200


def test_key_of_another_size_is_refused(make_card):
    _, card = make_card()
    with pytest.raises(ConfigError, match="flow hash key of 95 bytes"):
        card.load_flow_key(KEY[:95])
