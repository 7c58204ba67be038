# SPDX-License-Identifier: Apache-2.0
"""Capture filters in libpcap's language, compiled by libpcap itself (pcap-filter(7)), through ctypes.

A received frame's outermost VLAN tag is not in the packet when a socket filter sees it: the kernel keeps
it beside the packet. ``vlan`` in a filter must therefore be compiled against an opened interface, where
libpcap emits loads of that metadata; this module does so whenever it is given an interface. Without one
(pcap_open_dead) the code looks for tags inside the frame, which is right for capture files only.
"""

from __future__ import annotations

import ctypes
import threading

from twinstamp.errors import ConfigError, DeviceError

MAX_SNAPLEN = 262_144  # libpcap's MAXIMUM_SNAPLEN: the whole of any frame
_PCAP_ERRBUF_SIZE = 256
_NETMASK_UNKNOWN = 0xFFFFFFFF
_DLT_RAW = 12  # libpcap's number on Linux for LINKTYPE_RAW (101)
_lock = threading.Lock()  # pcap_compile is reentrant only since libpcap 1.8
_library: ctypes.CDLL | None = None


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


def _libpcap() -> ctypes.CDLL:
    global _library
    if _library is None:
        for name in ("libpcap.so.1", "libpcap.so.0.8", "libpcap.so"):  # Debian's soname is 0.8
            try:
                library = ctypes.CDLL(name)
                break
            except OSError:
                continue
        else:
            raise DeviceError(
                "libpcap is not installed, and capture filters are compiled by it: install "
                "Debian's libpcap0.8 (Ubuntu 24.04: libpcap0.8t64) or leave the filter out"
            )
        pointer = ctypes.c_void_p
        library.pcap_open_dead.restype = pointer
        library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        library.pcap_create.restype = pointer
        library.pcap_create.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
        library.pcap_set_snaplen.argtypes = (pointer, ctypes.c_int)
        library.pcap_set_buffer_size.argtypes = (pointer, ctypes.c_int)
        library.pcap_activate.argtypes = (pointer,)
        library.pcap_datalink.argtypes = (pointer,)
        library.pcap_compile.argtypes = (
            pointer,
            ctypes.POINTER(_Program),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint,
        )
        library.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
        library.pcap_freecode.restype = None
        library.pcap_geterr.argtypes = (pointer,)
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_close.argtypes = (pointer,)
        library.pcap_close.restype = None
        _library = library
    return _library


def compile_filter(
    expression: str, *, linktype: int = 1, snaplen: int = MAX_SNAPLEN, interface: str | None = None
) -> bytes:
    """Classic BPF code for ``expression``: 8 bytes per instruction, struct sock_filter of <linux/filter.h>.

    linktype: LINKTYPE_* of the frames. snaplen: bytes that a matching frame keeps, 1..262144.
    interface: compile against this interface (needs CAP_NET_RAW; opened for some milliseconds), so that
    ``vlan`` sees tags that the kernel has taken out.

    Errors: ConfigError with libpcap's own message where the expression is wrong; DeviceError where libpcap
    is absent. Source: pcap_compile(3PCAP).
    """
    if not 1 <= snaplen <= MAX_SNAPLEN:
        raise ConfigError(f"snaplen is {snaplen} bytes: give 1 to {MAX_SNAPLEN}")
    try:
        text = expression.encode("ascii")
    except UnicodeEncodeError:
        raise ConfigError(f"filter {expression!r}: only ASCII is allowed in a capture filter") from None
    if b"\0" in text:
        raise ConfigError(f"filter {expression!r} holds a zero byte")
    library = _libpcap()
    datalink = _DLT_RAW if linktype == 101 else linktype
    with _lock:
        handle = _live_handle(library, interface, datalink, snaplen) if interface is not None else None
        if handle is None:
            handle = library.pcap_open_dead(datalink, snaplen)
        if not handle:
            raise DeviceError("libpcap ran out of memory")
        program = _Program()
        try:
            if library.pcap_compile(handle, ctypes.byref(program), text, 1, _NETMASK_UNKNOWN) != 0:
                message = (library.pcap_geterr(handle) or b"").decode(errors="replace")
                raise ConfigError(f"filter {expression!r}: {message} (from libpcap; see pcap-filter(7))")
            try:
                return ctypes.string_at(program.instructions, program.length * 8)
            finally:
                library.pcap_freecode(ctypes.byref(program))
        finally:
            library.pcap_close(handle)


def _live_handle(library: ctypes.CDLL, interface: str, datalink: int, snaplen: int) -> int | None:
    """A handle whose code generator knows the kernel's VLAN metadata, or None where none can be had.

    libpcap opens some link types in cooked mode, whose offsets are not those of our socket: None then.
    """
    error = ctypes.create_string_buffer(_PCAP_ERRBUF_SIZE)
    handle: int | None = library.pcap_create(interface.encode(), error)
    if not handle:
        return None
    library.pcap_set_snaplen(handle, snaplen)
    library.pcap_set_buffer_size(handle, 2 * MAX_SNAPLEN)  # nothing is read from it
    if library.pcap_activate(handle) < 0 or library.pcap_datalink(handle) != datalink:
        library.pcap_close(handle)
        return None
    return handle


def keep_bytes(snaplen: int) -> bytes:
    """The filter that keeps ``snaplen`` bytes of every frame."""
    if not 1 <= snaplen <= MAX_SNAPLEN:
        raise ConfigError(f"snaplen is {snaplen} bytes: give 1 to {MAX_SNAPLEN}")
    ret_k = 0x06
    return ret_k.to_bytes(2, "little") + b"\0\0" + snaplen.to_bytes(4, "little")
