# SPDX-License-Identifier: Apache-2.0
"""Frames of UBX messages and NMEA sentences: header and checksum around what encode.py makes."""

from __future__ import annotations

from twinstamp_gps.stream import exclusive_or, fletcher8


def ubx(kind: tuple[int, int], payload: bytes = b"") -> bytes:
    """The frame of a UBX message: header, payload, checksum. kind: (class, id)."""
    body = bytes(kind) + len(payload).to_bytes(2, "little") + payload
    return b"\xb5\x62" + body + fletcher8(body)


def nmea(body: str) -> bytes:
    """The sentence of what stands between `$` and `*`."""
    raw = body.encode("ascii")
    return b"$" + raw + b"*%02X\r\n" % exclusive_or(raw)
