# SPDX-License-Identifier: Apache-2.0
"""A train's packets as whole frames, for senders that have no train engine (docs/trains.md)."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from twinstamp import stamp
from twinstamp.train.image import template

if TYPE_CHECKING:
    import numpy.typing as npt

    from twinstamp.train.train import Schedule, Train

_UDP = 17
_UDP_HEADER = 8
_FCS = 4
_STAMP_AT = 4  # of the UDP payload


class TrainFrames(NamedTuple):
    """Frames without FCS: data u8[], offset u64[n], caplen u32[n]. The stamps are zeros, at byte stamp_at[i]
    (u32[n]) of frame i, and the UDP checksums, at checksum_at[i] (u32[n]), are made with them."""

    data: npt.NDArray[np.uint8]
    offset: npt.NDArray[np.uint64]
    caplen: npt.NDArray[np.uint32]
    stamp_at: npt.NDArray[np.uint32]
    checksum_at: npt.NDArray[np.uint32]


def frames(train: Train, schedule: Schedule, first: int, end: int, error: int) -> TrainFrames:
    """Packets ``first`` to ``end`` of the train's ``schedule``. error: 16-bit error estimate of all."""
    made = template(train)
    sizes = schedule.size[first:end].astype(np.int64) - _FCS
    offset = np.zeros(len(sizes), np.uint64)
    offset[1:] = np.cumsum(sizes[:-1]).astype(np.uint64)
    data = np.zeros(int(sizes.sum()), np.uint8)
    number = np.arange(first, end, dtype=np.uint64)
    udp_at = made.ip_at + (20 if train.ip_version == 4 else 40)
    for size in np.unique(sizes).tolist():
        which = np.flatnonzero(sizes == size)
        rows = _of_one_size(train, made.headers, made.ip_at, udp_at, size, number[which], error)
        at = offset[which].astype(np.int64)[:, None] + np.arange(size)
        data[at] = rows
    n = len(sizes)
    return TrainFrames(
        data,
        offset,
        sizes.astype(np.uint32),
        np.full(n, udp_at + _UDP_HEADER + _STAMP_AT, np.uint32),
        np.full(n, udp_at + 6, np.uint32),
    )


def _of_one_size(
    train: Train,
    headers: bytes,
    ip_at: int,
    udp_at: int,
    size: int,
    number: npt.NDArray[np.uint64],
    error: int,
) -> npt.NDArray[np.uint8]:
    """u8[n, size]: frames of ``size`` bytes without FCS."""
    n, udp_bytes = len(number), size - udp_at
    rows = np.zeros((n, size), np.uint8)
    head = bytearray(headers[: udp_at + 4])
    if train.ip_version == 4:
        head[ip_at + 2 : ip_at + 4] = (size - ip_at).to_bytes(2, "big")
        ip = np.frombuffer(bytes(head[ip_at:udp_at]), np.uint8)[None]
        head[ip_at + 10 : ip_at + 12] = _checksum(ip).tobytes()
    else:
        head[ip_at + 4 : ip_at + 6] = udp_bytes.to_bytes(2, "big")
    rows[:, : len(head)] = np.frombuffer(bytes(head), np.uint8)
    port = train.source_port + (number % np.uint64(train.source_ports)).astype(np.int64)
    rows[:, udp_at : udp_at + 2] = port.astype(">u2").view(np.uint8).reshape(n, 2)
    rows[:, udp_at + 4 : udp_at + 6] = (udp_bytes >> 8, udp_bytes & 0xFF)
    rows[:, udp_at + _UDP_HEADER :] = stamp.payloads(
        sequence=number, timestamp=0, error=error, session=train.session, size=udp_bytes - _UDP_HEADER
    )
    addresses = b"".join(ipaddress.ip_address(a).packed for a in (train.source, train.destination))
    pseudo = addresses + _UDP.to_bytes(2, "big") + udp_bytes.to_bytes(2, "big")
    summed = np.zeros((n, len(pseudo) + udp_bytes + udp_bytes % 2), np.uint8)
    summed[:, : len(pseudo)] = np.frombuffer(pseudo, np.uint8)
    summed[:, len(pseudo) : len(pseudo) + udp_bytes] = rows[:, udp_at:]
    total = _checksum(summed)
    total[total == 0] = 0xFFFF  # RFC 768
    rows[:, udp_at + 6 : udp_at + 8] = total.view(np.uint8).reshape(n, 2)
    return rows


def _checksum(rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """Internet checksum (RFC 1071) of each row of u8[n, even], big-endian u16[n]."""
    total = np.ascontiguousarray(rows).view(">u2").astype(np.uint64).sum(axis=1)
    for _ in range(3):
        total = (total & np.uint64(0xFFFF)) + (total >> np.uint64(16))
    folded: npt.NDArray[np.uint16] = (~total & np.uint64(0xFFFF)).astype(">u2")
    return folded
