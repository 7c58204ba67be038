# SPDX-License-Identifier: Apache-2.0
"""Test packets out of frames (docs/stamp.md), a batch at a time, as arrays."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np

from twinstamp import stamp
from twinstamp.frames import (
    FLAG_BAD_FCS,
    FLAG_OUTGOING,
    LINKTYPE_ETHERNET,
    LINKTYPE_LINUX_SLL,
    LINKTYPE_LINUX_SLL2,
    LINKTYPE_RAW,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    import numpy.typing as npt

    from twinstamp.frames import FrameBatch

SHORT = 0
FULL = 1
REFLECTED = 2

# Why a frame is no test packet, in the order of the checks.
REASONS = (
    "bad_fcs",
    "outgoing",
    "link_type",
    "not_udp",
    "fragment",
    "other_port",
    "cut",
    "bad_length",
    "unmarked",
)

_TAGS = (0x8100, 0x88A8, 0x9100)
_EXTENSIONS = (0, 43, 60)  # hop-by-hop, routing, destination options (RFC 8200 section 4)
_MOST_EXTENSIONS = 8
_L3_AT = {LINKTYPE_RAW: 0, LINKTYPE_LINUX_SLL: 16, LINKTYPE_LINUX_SLL2: 20}


@dataclass(frozen=True)
class TestPackets:
    """m test packets of a batch, in its order.

    ============  ========  ==================================================================
    frame         i64[m]    index in the batch
    form          u8[m]     SHORT, FULL or REFLECTED
    sequence      u32[m]    sequence number
    timestamp     u64[m]    timestamp of departure, as it stands in the packet
    error         u16[m]    its error estimate
    session       u16[m]    session identifier, without the short form's mark; 0 = none, padding in its place
    version       u8[m]     4 or 6
    source        u64[m,2]  source address, 128 bits; an IPv4 one in the lower 32
    destination   u64[m,2]  destination address
    sport, dport  u16[m]    UDP ports
    ttl           u8[m]     TTL or hop limit as received
    ipid          u16[m]    IPv4 identification, 0 for IPv6
    ip_bytes      u32[m]    bytes of the IP packet
    size          u32[m]    bytes of the frame on the wire, FCS included
    body          i64[m]    where the payload starts in the batch's data
    payload       u32[m]    bytes of payload, by the UDP header
    ============  ========  ==================================================================
    """

    __test__ = False  # no test class for pytest

    frame: npt.NDArray[np.int64]
    form: npt.NDArray[np.uint8]
    sequence: npt.NDArray[np.uint32]
    timestamp: npt.NDArray[np.uint64]
    error: npt.NDArray[np.uint16]
    session: npt.NDArray[np.uint16]
    version: npt.NDArray[np.uint8]
    source: npt.NDArray[np.uint64]
    destination: npt.NDArray[np.uint64]
    sport: npt.NDArray[np.uint16]
    dport: npt.NDArray[np.uint16]
    ttl: npt.NDArray[np.uint8]
    ipid: npt.NDArray[np.uint16]
    ip_bytes: npt.NDArray[np.uint32]
    size: npt.NDArray[np.uint32]
    body: npt.NDArray[np.int64]
    payload: npt.NDArray[np.uint32]

    def __len__(self) -> int:
        return len(self.frame)

    def select(self, index: Any) -> TestPackets:
        """The packets at ``index`` (as NumPy indexing takes it)."""
        return TestPackets(**{field.name: getattr(self, field.name)[index] for field in fields(self)})


@dataclass(frozen=True)
class Reflection:
    """What reflected packets say of the way there (RFC 8972 section 3): arrays of m."""

    received: npt.NDArray[np.uint64]
    sequence: npt.NDArray[np.uint32]
    timestamp: npt.NDArray[np.uint64]
    error: npt.NDArray[np.uint16]
    ttl: npt.NDArray[np.uint8]


class _Bytes:
    """Big-endian numbers at any byte of a buffer."""

    def __init__(self, data: npt.NDArray[np.uint8]) -> None:
        self._data = np.ascontiguousarray(data)
        self._views: dict[str, npt.NDArray[Any]] = {}

    def __call__(self, at: npt.NDArray[np.int64], dtype: str) -> npt.NDArray[Any]:
        """Numbers of ``dtype`` (">u2", …) at the byte positions ``at``, in native order."""
        if dtype == "u1":
            return self._data[at]
        view = self._views.get(dtype)
        if view is None:
            size = np.dtype(dtype).itemsize
            view = np.ndarray((max(0, self._data.size - size + 1),), dtype, self._data, strides=(1,))
            self._views[dtype] = view
        return view[at].astype(dtype.replace(">", "="))


def parse(
    batch: FrameBatch,
    *,
    ports: Collection[int] | None = (stamp.UDP_PORT,),
    outgoing: bool | None = False,
    refused: dict[str, int] | None = None,
) -> TestPackets:
    """The test packets of a batch.

    Ethernet (any number of 802.1Q/ad tags), raw IP and Linux cooked captures; IPv4 with options, IPv6 with
    hop-by-hop, routing and destination headers; UDP, no fragments. ports: UDP ports of test packets, at
    the destination, or at the source for reflected ones; None: any. outgoing: take those that the capturing
    machine sent, and only those; None: both. refused: gets added, by ``REASONS``, how many
    frames are no test packets.

    Frames that were cut serve as long as the fields are there. UDP checksums are not looked at: a frame with
    a wrong FCS is refused, and the receiver of the packet would have dropped it. Safe on any bytes.
    """
    counts = dict.fromkeys(REASONS, 0) if refused is None else refused
    for reason in REASONS:
        counts.setdefault(reason, 0)
    get = _Bytes(batch.data)
    flags = batch.flags
    offset = batch.offset.astype(np.int64)
    caplen = batch.caplen.astype(np.int64)
    index = np.arange(len(batch))

    def keep(good: npt.NDArray[np.bool_], reason: str, *arrays: Any) -> list[Any]:
        lost = good.size - int(np.count_nonzero(good))
        if lost == 0:
            return list(arrays)
        counts[reason] += lost
        return [array[good] for array in arrays]

    (index,) = keep((flags & FLAG_BAD_FCS) == 0, "bad_fcs", index)
    if outgoing is not None:
        (index,) = keep(((flags[index] & FLAG_OUTGOING) != 0) == outgoing, "outgoing", index)
    # at: where the IP header starts in the buffer; end: behind the last captured byte
    at, end = offset[index], (offset + caplen)[index]
    overhead = np.zeros(len(index), np.int64)  # bytes of the frame before the IP header
    linktypes = batch.linktypes
    linktype = linktypes[batch.port[index]] if len(linktypes) > 1 else np.full(len(index), linktypes[:1])
    known = linktype == LINKTYPE_ETHERNET
    for number in _L3_AT:
        known |= linktype == number
    index, at, end, overhead, linktype = keep(known, "link_type", index, at, end, overhead, linktype)
    for number, length in _L3_AT.items():
        overhead[linktype == number] = length
    ethernet = np.flatnonzero(linktype == LINKTYPE_ETHERNET)
    overhead[ethernet] = 14
    more = ethernet[at[ethernet] + 14 <= end[ethernet]]
    while more.size:
        tag = get(at[more] + overhead[more] - 2, ">u2")
        more = more[np.isin(tag, _TAGS)]
        overhead[more] += 4
        more = more[at[more] + overhead[more] <= end[more]]
    at = at + overhead

    # IP; the version comes from its own first nibble, whatever the EtherType says
    fits = at + 20 <= end
    first = np.zeros(len(at), np.uint8)
    first[fits] = get(at[fits], "u1")
    version = first >> 4
    fits &= (version == 4) | ((version == 6) & (at + 40 <= end))
    index, at, end, overhead, version, first = keep(fits, "not_udp", index, at, end, overhead, version, first)
    four = version == 4
    v4, v6 = np.flatnonzero(four), np.flatnonzero(~four)
    header = np.full(len(at), 40, np.int64)
    header[v4] = (first[v4] & 15).astype(np.int64) * 4
    ip_bytes = np.zeros(len(at), np.int64)
    ip_bytes[v4] = get(at[v4] + 2, ">u2")
    ip_bytes[v6] = get(at[v6] + 4, ">u2").astype(np.int64) + 40
    protocol = np.zeros(len(at), np.uint8)
    protocol[v4] = get(at[v4] + 9, "u1")
    protocol[v6] = get(at[v6] + 6, "u1")
    fragment = np.zeros(len(at), np.bool_)
    fragment[v4] = (get(at[v4] + 6, ">u2") & 0x3FFF) != 0
    more = v6[np.isin(protocol[v6], _EXTENSIONS)]
    for _ in range(_MOST_EXTENSIONS):
        more = more[at[more] + header[more] + 8 <= end[more]]
        if not more.size:
            break
        place = at[more] + header[more]
        protocol[more] = get(place, "u1")
        header[more] += (get(place + 1, "u1").astype(np.int64) + 1) * 8
        more = more[np.isin(protocol[more], _EXTENSIONS)]
    fragment[v6] |= protocol[v6] == 44
    udp = (protocol == 17) & (header >= 20)
    columns: list[Any] = [index, at, end, overhead, version, header, ip_bytes]
    fragment, udp, *columns = keep(~fragment, "fragment", fragment, udp, *columns)
    index, at, end, overhead, version, header, ip_bytes = keep(udp, "not_udp", *columns)

    udp_at = at + header
    columns = [index, at, end, overhead, version, ip_bytes, udp_at]
    index, at, end, overhead, version, ip_bytes, udp_at = keep(udp_at + 8 <= end, "cut", *columns)
    sport, dport = get(udp_at, ">u2"), get(udp_at + 2, ">u2")
    columns = [index, at, end, overhead, version, ip_bytes, udp_at, sport, dport]
    if ports is not None:
        wanted = np.zeros(1 << 16, np.bool_)
        wanted[list(ports)] = True
        columns = keep(wanted[sport] | wanted[dport], "other_port", *columns)
        index, at, end, overhead, version, ip_bytes, udp_at, sport, dport = columns
    payload: npt.NDArray[Any] = get(udp_at + 4, ">u2").astype(np.int64) - 8
    body = udp_at + 8
    columns += [payload, body]
    # The datagram must fit its packet, and the packet the frame on the wire.
    length = batch.length[index].astype(np.int64)
    right = (
        (payload >= stamp.SHORT_BYTES) & (body + payload <= at + ip_bytes) & (overhead + ip_bytes <= length)
    )
    columns = keep(right, "bad_length", *columns)
    body, end = columns[-1], columns[2]
    columns = keep(body + stamp.SHORT_BYTES <= end, "cut", *columns)
    body, payload, end = columns[-1], columns[-2], columns[2]
    field = get(body + stamp.SESSION_AT, ">u2")
    short = payload < stamp.FULL_BYTES
    marked = (field & stamp.SHORT_MARK) != 0
    session = np.where(short, field & stamp.LARGEST_SESSION, field)
    # OWAMP and TWAMP-Light have padding from byte 14 on, random by default (RFC 4656 section 4.1.2): no
    # session there. STAMP has zeros from byte 16 to 43, the short form behind byte 16; in what was reflected
    # bytes 38 and 39 are 0.
    mbz_at = np.where(short, stamp.RECEIVE_TIMESTAMP_AT, stamp.REFLECTED_MBZ_AT)
    padded = (mbz_at + 2 <= payload) & (body + mbz_at + 2 <= end)
    padded[padded] = get((body + mbz_at)[padded], ">u2") != 0
    session[padded] = 0
    short &= ~padded
    columns += [short, session, padded]
    columns = keep(~short | (marked & (session != 0)), "unmarked", *columns)
    padded = columns.pop()
    index, at, end, overhead, version, ip_bytes, udp_at, sport, dport, payload, body, short, session = columns

    # A reflector's packets come from the port that a sender's go to, and carry a receive timestamp.
    form = np.where(short, SHORT, FULL).astype(np.uint8)
    whole = np.flatnonzero(~short & ~padded & (body + stamp.SENDER_TTL_AT < end))
    if ports is not None:
        whole = whole[wanted[sport[whole]]]
    whole = whole[get(body[whole] + stamp.RECEIVE_TIMESTAMP_AT, ">u8") != 0]
    form[whole] = REFLECTED

    four = version == 4
    v4, v6 = np.flatnonzero(four), np.flatnonzero(~four)
    source, destination = np.zeros((2, len(index), 2), np.uint64)
    source[v4, 1] = get(at[v4] + 12, ">u4")
    destination[v4, 1] = get(at[v4] + 16, ">u4")
    for k in range(2):
        source[v6, k] = get(at[v6] + 8 + 8 * k, ">u8")
        destination[v6, k] = get(at[v6] + 24 + 8 * k, ">u8")
    ipid = np.zeros(len(index), np.uint16)
    ipid[v4] = get(at[v4] + 4, ">u2")
    return TestPackets(
        frame=index,
        form=form,
        sequence=get(body + stamp.SEQUENCE_AT, ">u4"),
        timestamp=get(body + stamp.TIMESTAMP_AT, ">u8"),
        error=get(body + stamp.ERROR_ESTIMATE_AT, ">u2"),
        session=session.astype(np.uint16),
        version=version,
        source=source,
        destination=destination,
        sport=sport,
        dport=dport,
        ttl=get(at + np.where(four, 8, 7), "u1"),
        ipid=ipid,
        ip_bytes=ip_bytes.astype(np.uint32),
        size=batch.length[index] + np.uint32(4),
        body=body,
        payload=payload.astype(np.uint32),
    )


def reflection(batch: FrameBatch, packets: TestPackets) -> Reflection:
    """What the reflected ones among ``packets`` carry of the sender's; pass only those of form REFLECTED."""
    get = _Bytes(batch.data)
    body = packets.body
    return Reflection(
        received=get(body + stamp.RECEIVE_TIMESTAMP_AT, ">u8"),
        sequence=get(body + stamp.SENDER_SEQUENCE_AT, ">u4"),
        timestamp=get(body + stamp.SENDER_TIMESTAMP_AT, ">u8"),
        error=get(body + stamp.SENDER_ERROR_ESTIMATE_AT, ">u2"),
        ttl=get(body + stamp.SENDER_TTL_AT, "u1"),
    )
