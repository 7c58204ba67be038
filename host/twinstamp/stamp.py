# SPDX-License-Identifier: Apache-2.0
"""The payload of test packets: STAMP and its short form (docs/stamp.md).

RFC 8762 (STAMP), RFC 8972 (session identifier, TLVs), RFC 4656 section 4.1.2 (error estimate), RFC 8186
section 2.3 (Z bit), RFC 8877 section 4 (timestamp formats). Everything here works on Python integers and on
NumPy arrays; nothing runs per packet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from twinstamp.errors import ConfigError
from twinstamp.leap import NTP_UNIX_S

if TYPE_CHECKING:
    import numpy.typing as npt

UDP_PORT = 862  # STAMP's (and TWAMP-Control's), RFC 8762 section 4.1
TWAMP_BYTES = 14  # of a TWAMP (and OWAMP) test packet without padding, RFC 5357 section 4.1.2
SHORT_BYTES = 16
FULL_BYTES = 44
SHORT_MARK = 0x8000  # in the session id field of a short payload
LARGEST_SESSION = 0x7FFF

# Byte offsets in the payload
SEQUENCE_AT = 0
TIMESTAMP_AT = 4
ERROR_ESTIMATE_AT = 12
SESSION_AT = 14
# in what a reflector sends (RFC 8972 section 3)
RECEIVE_TIMESTAMP_AT = 16
SENDER_SEQUENCE_AT = 24
SENDER_TIMESTAMP_AT = 28
SENDER_ERROR_ESTIMATE_AT = 36
REFLECTED_MBZ_AT = 38  # two bytes of 0
SENDER_TTL_AT = 40
TLV_AT = 44

# TLV types, RFC 8972 section 5.1
TLV_EXTRA_PADDING = 1
TLV_FOLLOW_UP = 7
TLV_UNRECOGNISED = 0x80  # flag U
TLV_MALFORMED = 0x40  # flag M
TLV_INTEGRITY = 0x20  # flag I

# Timestamping methods of the Follow-Up Telemetry TLV, RFC 8972 section 4.7 (table 11)
METHOD_NONE = 0
METHOD_HARDWARE = 1
METHOD_SOFTWARE_LOCAL = 2
METHOD_CONTROL_PLANE = 3

ERROR_SYNCHRONISED = 0x8000  # S
ERROR_PTP = 0x4000  # Z
ERROR_UNKNOWN = 0x3FFF  # Scale 63, Multiplier 255: no bound is known

_NS = 1_000_000_000


class ErrorEstimate(NamedTuple):
    """An error estimate taken apart (RFC 4656 section 4.1.2, RFC 8186 section 2.3).

    synchronised: S, the clock follows an external source. ptp: Z, the timestamp is truncated PTP, else NTP.
    bound_q32: Multiplier * 2^Scale, in 2^-32 s; -1 where no bound is known or the field is not valid
    (Multiplier 0).
    """

    synchronised: bool
    ptp: bool
    bound_q32: int


def smallest_frame(*, ip_version: int, tags: int = 0, short: bool = False) -> int:
    """Bytes with FCS of the smallest Ethernet frame for the full payload, or for the short one.

    90 (IPv4) or 110 (IPv6), short 64 or 82, and 4 for each VLAN tag. ConfigError for another IP version.
    """
    if ip_version not in (4, 6):
        raise ConfigError(f"IP version {ip_version}: give 4 or 6")
    payload = SHORT_BYTES if short else FULL_BYTES
    return max(64, 14 + (20 if ip_version == 4 else 40) + 8 + payload + 4) + 4 * tags


def session_field(session: int, *, short: bool) -> int:
    """The session id field for session 1 to 32767. ConfigError for another number."""
    if not 1 <= session <= LARGEST_SESSION:
        raise ConfigError(f"session {session}: give 1 to {LARGEST_SESSION}")
    return session | (SHORT_MARK if short else 0)


# Error estimate


def error_estimate(bound_ns: int, *, synchronised: bool, ptp: bool = False) -> int:
    """The 16-bit error estimate for a bound in ns, rounded up: never less than the bound.

    bound_ns: 0 or more; -1 for an unknown one, which gives Scale 63 and Multiplier 255 without S. The result
    is the smallest value that holds ceil(bound_ns * 2^32 / 10^9), Multiplier at least 1 (0 is not allowed,
    RFC 4656 section 4.1.2). ConfigError for a bound out of range (2^62 ns).
    """
    z = ERROR_PTP if ptp else 0
    if bound_ns == -1:
        return ERROR_UNKNOWN | z
    if not 0 <= bound_ns < 1 << 62:
        raise ConfigError(f"an error bound of {bound_ns} ns: give 0 to 2^62-1, or -1 where it is unknown")
    bound_q32 = -(-(bound_ns << 32) // _NS)
    scale = max(0, bound_q32.bit_length() - 8)
    multiplier = -(-bound_q32 >> scale)
    if multiplier == 256:
        scale, multiplier = scale + 1, 128
    return (ERROR_SYNCHRONISED if synchronised else 0) | z | scale << 8 | max(1, multiplier)


def read_error_estimate(field: int) -> ErrorEstimate:
    """Takes one 16-bit error estimate apart."""
    bound = bound_ns(np.array([field], np.uint16))
    known = int(bound[0]) >= 0
    return ErrorEstimate(
        bool(field & ERROR_SYNCHRONISED),
        bool(field & ERROR_PTP),
        (field & 0xFF) << (field >> 8 & 0x3F) if known else -1,
    )


def bound_ns(field: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
    """Bounds in ns of error estimates u16[n], rounded up, i64[n].

    -1 where none is known (``ERROR_UNKNOWN``), where Multiplier is 0 (RFC 4656: not valid) or where the bound
    does not fit 63 bits of ns.
    """
    if _BOUNDS.size == 0:
        table = [-1] * (1 << 14)
        for value in range(1 << 14):
            bound = -(-(((value & 0xFF) << (value >> 8)) * _NS) >> 32)
            if value != ERROR_UNKNOWN and 0 < bound < 1 << 63:
                table[value] = bound
        _BOUNDS.resize(1 << 14, refcheck=False)
        _BOUNDS[:] = table
    bounds: npt.NDArray[np.int64] = _BOUNDS[np.asarray(field, np.uint16) & 0x3FFF]
    return bounds


_BOUNDS = np.empty(0, np.int64)


# Timestamps


def ns_from_q32(q32: Any) -> Any:
    """Unsigned 32.32 s as whole ns, rounded to nearest. int in, int out; u64[n] in, i64[n] out."""
    if isinstance(q32, int):
        return (q32 * _NS + (1 << 31)) >> 32
    values = np.asarray(q32, np.uint64)
    low = ((values & np.uint64(0xFFFFFFFF)) * np.uint64(_NS) + np.uint64(1 << 31)) >> np.uint64(32)
    return (values >> np.uint64(32)).astype(np.int64) * _NS + low.astype(np.int64)


def q32_from_ns(ns: Any) -> Any:
    """ns, 0 or more, as 32.32 s, rounded to nearest; ``ns_from_q32`` gives them back. int in, int out; i64[n]
    in, u64[n] out."""
    if isinstance(ns, int):
        return ((ns << 32) + _NS // 2) // _NS
    whole, left = np.divmod(np.asarray(ns, np.int64), _NS)
    fraction = ((left.astype(np.uint64) << np.uint64(32)) + np.uint64(_NS // 2)) // np.uint64(_NS)
    return (whole.astype(np.uint64) << np.uint64(32)) + fraction


def ntp_from_tai_q32(tai_q32: Any, tai_utc_s: int) -> Any:
    """Card time (TAI, unsigned 32.32 s since 1970) as an NTP timestamp (UTC since 1900, modulo 2^32 s).

    int or u64[n] in, the same out. The fraction stays as it is.
    """
    shift = (NTP_UNIX_S - tai_utc_s) << 32
    if isinstance(tai_q32, int):
        return (tai_q32 + shift) & 0xFFFFFFFF_FFFFFFFF
    return np.asarray(tai_q32, np.uint64) + np.uint64(shift)


def ptp_from_tai_q32(tai_q32: Any) -> Any:
    """Card time as a truncated PTP timestamp: TAI seconds since 1970 and whole ns, the rest cut off.

    int or u64[n] in, the same out. What is cut off is less than 1 ns: the error estimate must hold it.
    """
    if isinstance(tai_q32, int):
        return (tai_q32 >> 32) << 32 | ((tai_q32 & 0xFFFFFFFF) * _NS) >> 32
    q32 = np.asarray(tai_q32, np.uint64)
    high = np.uint64(32)
    return (q32 >> high) << high | ((q32 & np.uint64(0xFFFFFFFF)) * np.uint64(_NS)) >> high


def ntp_from_utc_ns(utc_ns: Any) -> Any:
    """int64 ns since 1970 UTC as an NTP timestamp, rounded to nearest; ``utc_ns_from_ntp`` gives it back."""
    if isinstance(utc_ns, int):
        return (q32_from_ns(utc_ns) + (NTP_UNIX_S << 32)) & 0xFFFFFFFF_FFFFFFFF
    return q32_from_ns(utc_ns) + np.uint64(NTP_UNIX_S << 32)


def utc_ns_from_ntp(
    ntp: npt.NDArray[np.uint64], near_utc_ns: int | npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """NTP timestamps u64[n] in ns since 1970 UTC, rounded to nearest, i64[n].

    near_utc_ns: a time within 68 years, one or i64[n]; it decides the era (RFC 5905 section 6), so 2036 is
    no edge.
    """
    ntp = np.asarray(ntp, np.uint64)
    seconds = (ntp >> np.uint64(32)).astype(np.int64) - NTP_UNIX_S
    rest_ns: npt.NDArray[np.int64] = ns_from_q32(ntp & np.uint64(0xFFFFFFFF))
    return _unwrapped(seconds, near_utc_ns) * _NS + rest_ns


def tai_ns_from_ptp(
    ptp: npt.NDArray[np.uint64], near_tai_ns: int | npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Truncated PTP timestamps u64[n] in ns since 1970 TAI, i64[n]; ``near_tai_ns`` as in utc_ns_from_ntp.

    Where the nanoseconds field is 10^9 or more the stamp is not valid; the result then runs over into the
    next seconds (``valid_timestamps`` tells).
    """
    ptp = np.asarray(ptp, np.uint64)
    seconds = (ptp >> np.uint64(32)).astype(np.int64)
    return _unwrapped(seconds, near_tai_ns) * _NS + (ptp & np.uint64(0xFFFFFFFF)).astype(np.int64)


def valid_timestamps(
    timestamp: npt.NDArray[np.uint64], field: npt.NDArray[np.uint16]
) -> npt.NDArray[np.bool_]:
    """Which timestamps can be: not 0 (none), and below 10^9 ns where the error estimate says PTP; bool[n]."""
    ptp = (np.asarray(field, np.uint16) & ERROR_PTP) != 0
    low = np.asarray(timestamp, np.uint64) & np.uint64(0xFFFFFFFF)
    good: npt.NDArray[np.bool_] = (np.asarray(timestamp) != 0) & ~(ptp & (low >= _NS))
    return good


def _unwrapped(seconds: npt.NDArray[np.int64], near_ns: int | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Seconds modulo 2^32 as those nearest to ``near_ns``."""
    near = np.asarray(near_ns, np.int64) // _NS
    away = (seconds - near + (1 << 31)) & 0xFFFFFFFF
    unwrapped: npt.NDArray[np.int64] = near + away - (1 << 31)
    return unwrapped


# Building


def payloads(
    *,
    sequence: npt.ArrayLike,
    timestamp: npt.ArrayLike,
    error: npt.ArrayLike,
    session: int,
    size: int,
) -> npt.NDArray[np.uint8]:
    """Payloads of test packets, u8[n, size].

    sequence: u32[n]. timestamp: u64[n], NTP or PTP as ``error`` says. error: 16-bit error estimate, one or
    u16[n]. session: 1 to 32767. size: bytes of UDP payload, 16 or more: below 44 the short form, from 48 on
    with an Extra Padding TLV (RFC 8972 section 4.1); 45 to 47 end with zeros.
    """
    if size < SHORT_BYTES:
        raise ConfigError(f"a payload of {size} bytes is too small: the short form needs {SHORT_BYTES}")
    numbers = np.atleast_1d(np.asarray(sequence, np.uint32))
    out = np.zeros((numbers.size, size), np.uint8)
    out[:, 0:4] = _big_endian(numbers, ">u4")
    out[:, 4:12] = _big_endian(np.broadcast_to(np.asarray(timestamp, np.uint64), numbers.shape), ">u8")
    out[:, 12:14] = _big_endian(np.broadcast_to(np.asarray(error, np.uint16), numbers.shape), ">u2")
    field = session_field(session, short=size < FULL_BYTES)
    out[:, 14:16] = (field >> 8, field & 0xFF)
    out[:, FULL_BYTES:] = np.frombuffer(padding(max(0, size - FULL_BYTES)), np.uint8)
    return out


def padding(size: int) -> bytes:
    """What follows the first 44 bytes in a full payload: an Extra Padding TLV of zeros, ``size`` in all.

    Below 4 bytes no TLV fits: zeros. ConfigError beyond what a TLV's length can say.
    """
    if size < 4:
        return bytes(size)
    if size - 4 > 0xFFFF:
        raise ConfigError(f"{size} bytes of padding do not fit one TLV: give at most {0xFFFF + 4}")
    return bytes((0, TLV_EXTRA_PADDING, *(size - 4).to_bytes(2, "big"))) + bytes(size - 4)


def _big_endian(values: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(values, dtype).view(np.uint8).reshape(values.size, -1)
