# SPDX-License-Identifier: Apache-2.0
"""flow_stream (hdl/rtl/hash) against the kernels' flow.h."""

from __future__ import annotations

import ctypes
import random
import struct
from typing import Any, NamedTuple

import numpy as np
import pytest
from twinstamp import io

from tests.conftest import ROOT, captures
from tests.kernels import traffic

LIBRARY = ROOT / "build/hdl/libflow_stream.so"
FLOW_KEY = random.Random(20).randbytes(96)
WHOLE, LATE_LAST, ABORTED, RESTARTED, ABORTED_LAST = range(5)
# Between a frame's last byte (its FCS is not given to the block) and the next one's first: FCS, gap,
# preamble and SFD are 24.
GAP = 20
LATENCY = 72


class Result(NamedTuple):
    flow: Any
    ok: Any
    latency: int


@pytest.fixture(scope="module")
def bench() -> ctypes.CDLL:
    assert LIBRARY.exists(), "run make hdl"
    library = ctypes.CDLL(str(LIBRARY))
    library.hash_frames.restype = ctypes.c_int64
    library.reference_flow.restype = ctypes.c_uint64
    assert library.flow_key_bytes() == len(FLOW_KEY)
    return library


def arrays(frames: list[bytes]) -> tuple[Any, Any, Any]:
    caplen = np.array([len(f) for f in frames], np.uint32)
    offset = np.concatenate(([0], np.cumsum(caplen, dtype=np.uint64)[:-1])).astype(np.uint64)
    return np.frombuffer(b"".join(frames), np.uint8), offset, caplen


def simulate(
    bench: ctypes.CDLL,
    frames: list[bytes],
    *,
    gap: Any = GAP,
    holes: int = 0,
    action: Any = WHOLE,
    seed: int = 1,
) -> Result:
    """Results of the frames that end, in order; as many as those."""
    n = len(frames)
    data, offset, caplen = arrays(frames)
    gaps = np.broadcast_to(np.asarray(gap, np.uint32), n).copy()
    actions = np.broadcast_to(np.asarray(action, np.uint8), n).copy()
    result = Result(*(np.zeros(n, t) for t in (np.uint64, np.uint8)), 0)
    latency = ctypes.c_uint32()

    def pointer(a: Any) -> ctypes.c_void_p:
        return ctypes.c_void_p(a.ctypes.data)

    flow_key = np.frombuffer(FLOW_KEY, np.uint32)
    done = bench.hash_frames(
        *map(pointer, (flow_key, data, offset, caplen, actions, gaps)),
        *(n, holes, ctypes.c_uint64(seed), n),
        *map(pointer, result[:2]),
        ctypes.byref(latency),
    )
    ended = int(np.isin(actions, (WHOLE, LATE_LAST)).sum())
    assert done == ended
    return Result(*(r[:ended] for r in result[:2]), latency.value)


def flows(bench: ctypes.CDLL, frames: list[bytes]) -> Any:
    return np.array([bench.reference_flow(FLOW_KEY, f, len(f)) for f in frames], np.uint64)


def check(bench: ctypes.CDLL, frames: list[bytes], got: Result, *, all_ok: bool = True) -> None:
    wrong = np.flatnonzero((got.flow != flows(bench, frames)) & (got.ok == 1))
    assert not len(wrong), f"flow of {len(wrong)}/{len(frames)} frames, first {frames[wrong[0]].hex()}"
    if all_ok:
        assert got.ok.all()
        assert got.latency <= LATENCY


def capture_frames(path: Any) -> list[bytes]:
    frames = []
    with io.open_capture(path) as capture:
        for batch in capture:
            data = bytes(np.asarray(batch.data))
            for at, n, port in zip(batch.offset, batch.caplen, batch.port, strict=True):
                if batch.ports[port].linktype == 1 and 0 < n <= 9026:
                    frames.append(data[at : at + n])
    return frames


@pytest.mark.corpus
@pytest.mark.parametrize("path", captures(), ids=lambda p: p.name)
def test_corpus(bench: ctypes.CDLL, path: Any) -> None:
    frames = capture_frames(path)
    if not frames:
        return  # another link type
    rng = np.random.default_rng(len(frames))
    check(bench, frames, simulate(bench, frames, gap=rng.integers(GAP, 60, len(frames)), holes=20))
    check(bench, frames, simulate(bench, frames))


def generated(rng: random.Random, n: int) -> list[bytes]:
    frames: list[bytes] = []
    while len(frames) < n:
        spec = traffic.make_spec(rng)
        if spec["link"] == "eth" and traffic.usable(spec):
            frames.append(traffic.build(spec))
    return frames


def test_generated(bench: ctypes.CDLL) -> None:
    frames = generated(random.Random(3), 1200)
    check(bench, frames, simulate(bench, frames))


def test_cut_short(bench: ctypes.CDLL) -> None:
    """Cut anywhere in their headers: what is missing decides which fields there are."""
    rng = random.Random(4)
    frames = [f[:n] for f in generated(rng, 60) for n in range(1, min(len(f), 150))]
    rng.shuffle(frames)
    check(bench, frames, simulate(bench, frames, gap=60))


def extension_chain(rng: random.Random) -> bytes:
    """An IPv6 packet with extension headers, payload length sometimes short."""
    kinds = [rng.choice([0, 43, 44, 51, 60, 135, 139, 140]) for _ in range(rng.randrange(1, 6))]
    last = rng.choice([6, 17, 33, 58, 59, 132, 136, 47])
    body = b""
    for kind, following in zip(kinds, [*kinds[1:], last], strict=True):
        size = rng.choice([0, 0, 1, 2, 9])
        if kind == 44:
            body += bytes([following, 0]) + rng.choice([b"\0\0", b"\0\1", b"\0\7", b"\1\0"]) + bytes(4)
        elif kind == 51:
            body += bytes([following, size]) + rng.randbytes(4 * (size + 2) - 2)
        else:
            body += bytes([following, size]) + rng.randbytes(8 * (size + 1) - 2)
    body += rng.randbytes(rng.choice([0, 2, 3, 4, 20]))
    payload = rng.choice([0, len(body), len(body), len(body), rng.randrange(len(body) + 4)])
    addresses = rng.choice([rng.randbytes(32), bytes(32), bytes(31) + b"\1", bytes(15) + b"\1" + bytes(16)])
    head = struct.pack(">IHBB", 6 << 28, payload, kinds[0], 9) + addresses
    return rng.randbytes(12) + b"\x86\xdd" + head + body + bytes(rng.choice([0, 0, 9]))


def test_extension_headers(bench: ctypes.CDLL) -> None:
    rng = random.Random(5)
    frames = [extension_chain(rng) for _ in range(3000)]
    check(bench, frames, simulate(bench, frames, gap=40))


def test_bytes_changed(bench: ctypes.CDLL) -> None:
    """Frames with header bytes changed: lengths, versions, types that say something else."""
    rng = random.Random(6)
    frames = []
    for frame in generated(rng, 1500):
        data = bytearray(frame[: rng.choice([80, 200, 400])])
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(min(12, len(data) - 1), min(len(data), 90))
            data[at] = rng.choice([0, 1, 5, 6, 0x11, 0x45, 0x81, 0x86, 0xFF, rng.randrange(256)])
        frames.append(bytes(data))
    check(bench, frames, simulate(bench, frames, gap=40))


def pattern(rng: random.Random) -> bytes:
    """Link headers of every kind, small numbers around the limits of each length."""
    types = [0x8100, 0x88A8, 0x9100]
    chain = [rng.choice(types) for _ in range(rng.choice([0, 0, 1, 2, 7]))]
    chain.append(rng.choice([0x0800, 0x0800, 0x86DD, 0x0806, 0x8864, 0x8847, 0, 2, 3, 40, 0x5FF, 0x600]))
    macs = rng.choice([rng.randbytes(12), bytes(12), bytes(11) + b"\1", bytes(5) + b"\1" + bytes(6)])
    data = macs + b"".join(t.to_bytes(2, "big") + rng.randbytes(2) for t in chain)[:-2]
    if chain[-1] == 0x8864:
        data += rng.randbytes(6) + rng.choice([b"\0\x21", b"\0\x57", b"\xc0\x21"])
    version = rng.choice([0x45, 0x45, 0x46, 0x4F, 0x44, 0x55, 0x60])
    header = 4 * (version & 15)
    total = rng.choice([0, header - 1, header, header + 3, header + 4, 1500, rng.randrange(65536)]) % 65536
    fragment = rng.choice([0, 0x4000, 0x2000, 0x2001, 1, 0x1FFF])
    addresses = rng.choice([rng.randbytes(8), b"\1\2\3\4" * 2, b"\1\2\3\4\1\2\3\5", b"\2\2\3\4\1\2\3\4"])
    data += struct.pack(
        ">BBHHHBBH", version, 0, total, 1, fragment, 9, rng.choice([6, 17, 33, 132, 136, 1, 4, 50]), 0
    )
    data += addresses + rng.randbytes(max(header - 20, 0))
    data += rng.choice([rng.randbytes(4), b"\0\1\0\2", b"\0\2\0\1", b"\0\1\0\1"]) + rng.randbytes(30)
    return data[: rng.choice([len(data)] * 3 + [rng.randrange(1, len(data))])]


def test_patterns(bench: ctypes.CDLL) -> None:
    rng = random.Random(7)
    frames = [pattern(rng) for _ in range(6000)]
    check(bench, frames, simulate(bench, frames, gap=60))


def test_lengths(bench: ctypes.CDLL) -> None:
    """All short lengths, those around blocks, and the longest."""
    rng = random.Random(8)
    lengths = [*range(40, 300), *(1024 * b + d for b in range(1, 9) for d in range(-9, 10)), 9018, 9026]
    lengths += range(9200, 9217)
    rng.shuffle(lengths)
    frames = [rng.randbytes(n) for n in lengths]
    check(bench, frames, simulate(bench, frames))


def test_back_to_back(bench: ctypes.CDLL) -> None:
    """Smallest frames at full rate, IPv6 with ports among them, which take longest."""
    rng = random.Random(9)
    frames = []
    for i in range(4000):
        kind, header = rng.choice([(b"\x08\0", b"\x45"), (b"\x86\xdd", b"\x60"), (b"\x08\x06", b"\0")])
        body = header + b"\0" + b"\0\x2e\0\6\x11\x40\x40\x11" + rng.randbytes(36)
        frames.append((rng.randbytes(12) + kind + body)[: 60 + i % 2])
    check(bench, frames, simulate(bench, frames))


def test_forgotten_frames(bench: ctypes.CDLL) -> None:
    """Frames that are aborted or never end leave no trace; the end may come behind the last byte."""
    rng = random.Random(10)
    frames = [rng.randbytes(rng.choice([1, 8, 60, 64, 700, 1024, 1500, 2500])) for _ in range(1500)]
    frames = [f if len(f) < 60 else f[:12] + b"\x08\0\x45\0\0\x30" + f[18:] for f in frames]
    action = np.array([rng.choice([0, 0, 1, 2, 3, 4]) for _ in frames], np.uint8)
    ended = [f for f, a in zip(frames, action, strict=True) if a in (WHOLE, LATE_LAST)]
    for gap in (5, 40):
        got = simulate(bench, frames, gap=gap, holes=9, action=action)
        check(bench, ended, got, all_ok=gap == 40)
        assert got.ok.mean() > 0.95


def test_runts_at_full_rate(bench: ctypes.CDLL) -> None:
    """Nothing under 64 bytes may be on a wire, but what is there must not shift the results."""
    rng = random.Random(11)
    frames = [rng.randbytes(rng.choice([1, 1, 1, 2, 9, 14, 20])) for _ in range(3000)]
    for i in range(200, 3000, 200):
        frames[i] = rng.randbytes(100)
    for gap in (24, 5):  # with FCS, gap and preamble; as close as noise may come
        got = simulate(bench, frames, gap=gap)
        check(bench, frames, got, all_ok=False)
        assert 0.1 < got.ok.mean() < 1


def test_directions_agree(bench: ctypes.CDLL) -> None:
    rng = random.Random(12)
    there, back = [], []
    for _ in range(200):
        source, destination, ports = rng.randbytes(4), rng.randbytes(4), rng.randbytes(4)
        if rng.random() < 0.3:
            destination = source
        head = rng.randbytes(12) + b"\x08\0" + struct.pack(">BBHHHBBH", 0x45, 0, 40, 1, 0, 9, 6, 0)
        there.append(head + source + destination + ports + bytes(16))
        back.append(head + destination + source + ports[2:] + ports[:2] + bytes(16))
    one, other = simulate(bench, there), simulate(bench, back)
    assert (one.flow == other.flow).all()
    assert len(set(one.flow.tolist())) == 200
