# SPDX-License-Identifier: Apache-2.0
"""Frames from and to network interfaces (docs/live.md): AF_PACKET in, batched send out.

Needs Linux and CAP_NET_RAW (root). Without it the same pipeline runs from and to capture files.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

from twinstamp.errors import ConfigError, DeviceError
from twinstamp.frames import (
    KERNEL_CLOCK,
    LINKTYPE_ETHERNET,
    LINKTYPE_RAW,
    FrameBatch,
    Port,
    linktypes_of,
)
from twinstamp.io import bpf

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LARGEST_FRAME = 65_536 + 256  # with its ring header: a block must hold one (else the kernel cuts it)
_FANOUT_MODES = {"hash": 0, "lb": 1, "cpu": 2, "rollover": 3, "random": 4, "queue": 5}
# hash keeps a datagram's fragments together only with PACKET_FANOUT_FLAG_DEFRAG, which would put them
# together to one packet: the window must see what was on the wire, so it is not set.


class LinkStatistics(NamedTuple):
    """Counters of a LiveSource since it was opened.

    frames: put into the ring (after the filter). kernel_drops: lost for want of a free block. freezes:
    times the ring stood still because every block was full or held.
    """

    frames: int
    kernel_drops: int
    freezes: int


class LiveSource:
    """Frames of one interface, from an AF_PACKET TPACKET_V3 ring, without a copy.

    interface: name. filter: libpcap expression or None. ring_mib: memory of the ring, MiB; it bounds what
    the kernel holds for us. block_kib: unit in which frames are handed over, KiB. block_timeout_ms: a
    block that is not full is handed over after this time (Linux 6.18 by a high-resolution timer; kernels
    before that round it up to the next jiffy, 4 ms at HZ=250). At low rates a block closes each time with
    little in it, so a reader may pause for number of blocks x block_timeout_ms (512 ms by default) before
    drops. promiscuous: by membership, which the kernel takes back when the socket closes, so the mode is
    left as it was found. ignore_outgoing: leave out what this machine sends there (a tap must; otherwise
    such frames carry FLAG_OUTGOING). snaplen: bytes kept per frame, None = all. batch_frames: a batch
    takes further closed blocks up to this many frames. fanout_group: several sources on one interface with
    the same group (0..65535) share its frames by fanout_mode: hash, lb, cpu, rollover, random or queue
    (PACKET_FANOUT in packet(7)). hardware_stamps: the NIC's own where a frame has one, raw, by the NIC's
    clock; the others have the kernel's and FLAG_KERNEL_STAMP (twinstamp.card.linux makes use of it).

    Stamps are the kernel's, CLOCK_REALTIME ns (``KERNEL_CLOCK``). VLAN tags that the kernel had taken out
    are back in the frame (FLAG_VLAN_RESTORED); ``caplen`` and ``length`` include them.

    Errors: ConfigError for a bad option or filter; DeviceError for no such interface, no permission,
    interface down or gone.
    """

    def __init__(
        self,
        interface: str,
        *,
        filter: str | None = None,
        ring_mib: int = 64,
        block_kib: int = 128,
        block_timeout_ms: int = 1,
        promiscuous: bool = True,
        ignore_outgoing: bool = True,
        snaplen: int | None = None,
        batch_frames: int = 16_384,
        fanout_group: int | None = None,
        fanout_mode: str = "hash",
        hardware_stamps: bool = False,
    ) -> None:
        from twinstamp import _native

        block_bytes = block_kib * 1024
        if block_bytes % _PAGE or block_bytes < _LARGEST_FRAME or block_kib > 65_536:
            raise ConfigError(
                f"block_kib is {block_kib} KiB: give a multiple of {_PAGE // 1024} from 68 to 65536 "
                "(a block holds at least one frame of 64 KiB)"
            )
        blocks = ring_mib * 1024 // block_kib
        if blocks < 2 or ring_mib > 65_536:
            raise ConfigError(f"ring_mib is {ring_mib} MiB: give two blocks of {block_kib} KiB to 65536 MiB")
        if not 1 <= block_timeout_ms <= 10_000:
            raise ConfigError(f"block_timeout_ms is {block_timeout_ms} ms: give 1 to 10000")
        if batch_frames < 1:
            raise ConfigError(f"batch_frames is {batch_frames}: give at least 1")
        if fanout_mode not in _FANOUT_MODES:
            raise ConfigError(f"fanout_mode is {fanout_mode!r}: give one of {', '.join(_FANOUT_MODES)}")
        if fanout_group is not None and not 0 <= fanout_group <= 0xFFFF:
            raise ConfigError(f"fanout_group is {fanout_group}: give 0 to 65535")
        linktype = check_interface(interface)
        program = b""
        if filter is not None:
            program = bpf.compile_filter(
                filter, linktype=linktype, snaplen=snaplen or bpf.MAX_SNAPLEN, interface=interface
            )
        elif snaplen is not None:
            program = bpf.keep_bytes(snaplen)
        self.interface = interface
        self.filter = filter
        try:
            self._ring = _native.PacketRing(
                interface,
                block_bytes=block_bytes,
                blocks=blocks,
                block_timeout_ms=block_timeout_ms,
                promiscuous=promiscuous,
                ignore_outgoing=ignore_outgoing,
                filter=program,
                fanout_group=-1 if fanout_group is None else fanout_group,
                fanout_mode=_FANOUT_MODES[fanout_mode],
                hardware_stamps=hardware_stamps,
            )
        except OSError as error:
            raise device_error(error, interface, "receive on") from error
        except ValueError as error:
            raise ConfigError(f"interface {interface}: {error}") from error
        self.blocks = blocks
        self.ports = (Port(interface, self._ring.linktype, snaplen or 0, 1_000_000_000, interface),)
        self._batch_frames = batch_frames
        self._first = 0
        self._closed = False

    def poll(self, timeout_s: float = 0.0) -> FrameBatch | None:
        """The next closed blocks as a batch, or None after ``timeout_s`` seconds (or on a signal).

        The batch leases its blocks: ``release()`` it soon. While blocks are held too long the kernel finds
        none free and drops, and counts, whole frames; a held block is never overwritten. A batch that is
        forgotten gives its blocks back when its last array goes.

        Errors: DeviceError when the interface went down or away, after everything received before that.
        """
        if self._closed:
            raise DeviceError(f"interface {self.interface}: this source is closed")
        try:
            got = self._ring.poll(timeout_s, self._batch_frames)
        except OSError as error:
            raise device_error(error, self.interface, "receive on") from error
        if got is None:
            return None
        columns, lease = got
        batch = FrameBatch(
            columns, ports=self.ports, clock=KERNEL_CLOCK, first=self._first, lease=lease.release
        )
        self._first += len(batch)
        return batch

    def fileno(self) -> int:
        """For select and poll: readable when a block has closed.

        While the newest closed block is held by a batch it stays readable without anything new (the
        kernel's rule), so wait on it only with all batches released.
        """
        return int(self._ring.fileno())

    def statistics(self) -> LinkStatistics:
        """Counters since the source was opened (the kernel's own reset at each read; these don't)."""
        return LinkStatistics(*self._ring.statistics())

    @property
    def held_blocks(self) -> int:
        """Blocks in batches that are not released yet."""
        return int(self._ring.held_blocks)

    def close(self) -> None:
        """Stops receiving and gives promiscuous mode back. Held batches stay readable."""
        if not self._closed:
            self._closed = True
            self._ring.close()

    def __enter__(self) -> LiveSource:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class SendResult(NamedTuple):
    """Fates of the frames of one send: attempted = sent + too_big + unsendable + errors.

    sent: taken by the kernel. bytes: their captured bytes, as they came in. wire_bytes: their length as
    sent, with encapsulation (tunnels: the outer IP packet). cut: sent, but shorter than on the wire they
    came from (captured with a snaplen). too_big: over the output's MTU; never sent in pieces. unsendable: no
    Ethernet frame, or shorter than its headers (raw IP packets become one where Encap gives both MAC
    addresses). errors: refused by the kernel, after the bounded retries where its queue was full. retries:
    waits for a full queue, waited_ns in all. error: errno of the last refusal, 0 = none.
    """

    sent: int
    bytes: int
    wire_bytes: int
    cut: int
    too_big: int
    unsendable: int
    errors: int
    error: int
    retries: int
    waited_ns: int

    @property
    def attempted(self) -> int:
        return self.sent + self.too_big + self.unsendable + self.errors

    @property
    def down(self) -> bool:
        """The interface is down or gone: nothing will go out until somebody mends it."""
        return self.error in (errno.ENETDOWN, errno.ENODEV, errno.ENXIO)


@dataclass(frozen=True, kw_only=True)
class Vlan:
    """An 802.1Q tag (IEEE 802.1Q clause 9): vid 0..4094, pcp 0..7, dei, tpid (0x8100 or 0x88A8)."""

    vid: int
    pcp: int = 0
    dei: bool = False
    tpid: int = 0x8100

    def pack(self) -> bytes:
        if not 0 <= self.vid <= 4094:
            raise ConfigError(f"VLAN id is {self.vid}: give 0 to 4094")
        if not 0 <= self.pcp <= 7:
            raise ConfigError(f"VLAN priority is {self.pcp}: give 0 to 7")
        if self.tpid not in (0x8100, 0x88A8, 0x9100):
            raise ConfigError(f"VLAN TPID is {self.tpid:#06x}: give 0x8100, 0x88a8 or 0x9100")
        return struct.pack("!HH", self.tpid, self.pcp << 13 | int(self.dei) << 12 | self.vid)


@dataclass(frozen=True, kw_only=True)
class Vxlan:
    """VXLAN (RFC 7348): outer IPv4 or IPv6, UDP, VXLAN header, then the frame.

    local, remote: outer addresses of one family. vni: 0..2^24-1. port: UDP destination. ttl, dscp: of the
    outer header. udp_checksum: None = as RFC 7348 section 5 has it, zero over IPv4, filled over IPv6 (where
    a receiver must be told to take zero). The source port is 49152 + 14 bits of the inner flow's hash, the
    same for both directions.
    """

    local: str
    remote: str
    vni: int
    port: int = 4789
    ttl: int = 64
    dscp: int = 0
    udp_checksum: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Gre:
    """GRE with the frame in it (RFC 2784, protocol type 0x6558 transparent Ethernet bridging).

    local, remote: outer addresses of one family. key: RFC 2890 key, 0..2^32-1, or None for no key field.
    """

    local: str
    remote: str
    key: int | None = None
    ttl: int = 64
    dscp: int = 0


@dataclass(frozen=True, kw_only=True)
class Encap:
    """What an output does to each frame, in this order: strip the outermost VLAN tag, rewrite MAC
    addresses, add a VLAN tag, put all of it into a tunnel. With both MAC addresses given, raw IP packets
    (from a tun device, say) get an Ethernet header of them."""

    strip_vlan: bool = False
    mac_dst: str | None = None
    mac_src: str | None = None
    add_vlan: Vlan | None = None
    tunnel: Vxlan | Gre | None = None

    def check(self) -> None:
        """Raises ConfigError for an address or a number that no frame can carry; asks no machine."""
        _mac(self.mac_dst)
        _mac(self.mac_src)
        if self.add_vlan is not None:
            self.add_vlan.pack()
        _outer_header(self.tunnel)


class LiveOutput:
    """Batched send of frames on one interface.

    interface: name; for tunnels the device the outer packets must leave by, None = as routed. encap: see
    Encap. retry_ms: the longest that one ``send`` waits for full queues; then frames count as errors.
    send_buffer_kib: socket send buffer. qdisc_bypass: skip the interface's queueing discipline
    (PACKET_QDISC_BYPASS; not for tunnels).

    A tunnel's outer packets go through a raw IP socket: the kernel routes them and finds the next hop's
    MAC, so routes, neighbours and their changes are its business (docs/decisions/0012). ``resolve`` asks it
    to find the next hop before the first frame.

    Errors: ConfigError for a bad option; DeviceError for no such interface, no permission, interface down.
    """

    def __init__(
        self,
        interface: str | None,
        *,
        encap: Encap | None = None,
        retry_ms: float = 2.0,
        send_buffer_kib: int = 4096,
        qdisc_bypass: bool = True,
    ) -> None:
        from twinstamp import _native

        encap = encap or Encap()
        if interface is None and encap.tunnel is None:
            raise ConfigError("an output without a tunnel needs an interface")
        if not 0 <= retry_ms <= 10_000:
            raise ConfigError(f"retry_ms is {retry_ms} ms: give 0 to 10000")
        if not 4 <= send_buffer_kib <= 1_048_576:
            raise ConfigError(f"send_buffer_kib is {send_buffer_kib} KiB: give 4 to 1048576")
        if interface is not None:
            check_interface(interface)
        outer, kind, checksum = _outer_header(encap.tunnel)
        self.interface = interface
        self.encap = encap
        try:
            self._socket = _native.PacketOutput(
                interface or "",
                mac_dst=_mac(encap.mac_dst),
                mac_src=_mac(encap.mac_src),
                add_tag=encap.add_vlan.pack() if encap.add_vlan else b"",
                strip_tag=encap.strip_vlan,
                outer=outer,
                tunnel=kind,
                udp_checksum=checksum,
                qdisc_bypass=qdisc_bypass,
                retry_ms=retry_ms,
                send_buffer=send_buffer_kib * 1024,
            )
        except OSError as error:
            raise device_error(error, interface or "(routed)", "send on") from error
        except ValueError as error:
            raise ConfigError(f"interface {interface}: {error}") from error
        self._closed = False

    def send(self, batch: FrameBatch, index: Any = None, *, retry_ns: int | None = None) -> SendResult:
        """Sends the frames at ``index`` (u32[k], any buffer; None = all) in order.

        Returns when every frame has its fate, at the latest ``retry_ms`` (or ``retry_ns`` where given) after
        the kernel's queue was found full. Raises nothing for frames that cannot be sent: they are counted.
        ValueError where an index lies outside the batch (nothing is sent then).
        """
        if self._closed:
            raise DeviceError(f"interface {self.interface}: this output is closed")
        raw = batch.raw
        if len(raw[2]) == 0:
            return SendResult(*[0] * 10)
        types = linktypes_of(batch.ports)
        return SendResult(*self._socket.send(raw[0], raw[1], raw[2], raw[3], raw[5], types, index, retry_ns))

    @property
    def mtu(self) -> int:
        """MTU found at the last send, bytes."""
        return int(self._socket.mtu)

    def resolve(self, timeout_s: float = 1.0) -> bool:
        """Lets the kernel find the tunnel's next hop now; True once it has (or none is needed).

        Until then the kernel queues a few frames and drops the rest, which no send can see.
        """
        tunnel = self.encap.tunnel
        if tunnel is None:
            return True
        from twinstamp.io.neighbour import resolve

        return resolve(tunnel.remote, self.interface, timeout_s)

    def close(self) -> None:
        self._closed = True
        self._socket.close()

    def __enter__(self) -> LiveOutput:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def check_interface_name(name: str) -> None:
    """Raises ConfigError for a name that no interface can have (Linux, net/core/dev.c: dev_valid_name)."""
    wrong = any(letter in "/:" or letter.isspace() or not letter.isprintable() for letter in name)
    if not name or len(name.encode()) > 15 or name in (".", "..") or wrong:
        raise ConfigError(f"interface name {name!r}: give 1 to 15 bytes, without '/', ':' and spaces")


def check_interface(interface: str) -> int:
    """LINKTYPE_* of the interface's frames; opening it checks for good.

    Errors: ConfigError for an impossible name, DeviceError where there is none of this name.
    """
    check_interface_name(interface)
    import fcntl
    import socket

    siocgifhwaddr = 0x8927  # not from /sys, which may show another namespace's interfaces
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            answer = fcntl.ioctl(any_socket, siocgifhwaddr, struct.pack("16s24x", interface.encode()))
        except OSError:
            known = ", ".join(sorted(name for _, name in socket.if_nameindex())) or "none"
            raise DeviceError(f"no interface {interface!r} here; there are: {known}") from None
    arphrd = struct.unpack_from("H", answer, 16)[0]
    return LINKTYPE_ETHERNET if arphrd in (1, 772) else LINKTYPE_RAW  # Ethernet, loopback


def device_error(error: OSError, interface: str, doing: str) -> DeviceError:
    code = error.errno or 0
    if code in (errno.EPERM, errno.EACCES):
        return DeviceError(
            f"no permission to {doing} interface {interface}: it needs CAP_NET_RAW (run as root, or "
            "'setcap cap_net_raw+ep' on the interpreter); without it use capture files for input and output"
        )
    if code in (errno.ENODEV, errno.ENXIO):
        return DeviceError(f"interface {interface} is gone ({error.strerror}): bring it back and start again")
    if code == errno.ENETDOWN:
        import socket

        try:
            socket.if_nametoindex(interface)
        except OSError:
            return DeviceError(f"interface {interface} is gone: bring it back and start again")
        return DeviceError(f"interface {interface} is down: 'ip link set {interface} up'")
    if code == errno.ENOMEM:
        return DeviceError(f"interface {interface}: no memory for the packet ring; lower ring_mib")
    return DeviceError(f"cannot {doing} interface {interface}: {error.strerror} (errno {code})")


def _mac(text: str | None) -> bytes:
    if text is None:
        return b""
    parts = text.replace("-", ":").split(":")
    try:
        if len(parts) != 6 or any(not 1 <= len(part) <= 2 for part in parts):
            raise ValueError
        return bytes(int(part, 16) for part in parts)
    except ValueError:
        raise ConfigError(f"MAC address {text!r}: give six bytes like 02:00:00:00:00:01") from None


def _outer_header(tunnel: Vxlan | Gre | None) -> tuple[bytes, int, bool]:
    """(IP header with what lies between it and the frame, tunnel number of PacketOutput, UDP checksum)."""
    if tunnel is None:
        return b"", 0, False
    try:
        local = ipaddress.ip_address(tunnel.local)
        remote = ipaddress.ip_address(tunnel.remote)
    except ValueError as error:
        raise ConfigError(f"tunnel: {error}") from None
    if local.version != remote.version:
        raise ConfigError(f"tunnel: local {local} and remote {remote} are of different families")
    if not 1 <= tunnel.ttl <= 255:
        raise ConfigError(f"tunnel: ttl is {tunnel.ttl}: give 1 to 255")
    if not 0 <= tunnel.dscp <= 63:
        raise ConfigError(f"tunnel: dscp is {tunnel.dscp}: give 0 to 63")
    checksum = False
    if isinstance(tunnel, Vxlan):
        if not 0 <= tunnel.vni < 1 << 24:
            raise ConfigError(f"tunnel: vni is {tunnel.vni}: give 0 to {(1 << 24) - 1}")
        if not 1 <= tunnel.port <= 65_535:
            raise ConfigError(f"tunnel: port is {tunnel.port}: give 1 to 65535")
        checksum = local.version == 6 if tunnel.udp_checksum is None else tunnel.udp_checksum
        protocol, kind = 17, 1
        inside = struct.pack("!HHHH", 0, tunnel.port, 0, 0) + struct.pack("!II", 0x0800_0000, tunnel.vni << 8)
    else:
        if tunnel.key is not None and not 0 <= tunnel.key < 1 << 32:
            raise ConfigError(f"tunnel: key is {tunnel.key}: give 0 to {(1 << 32) - 1}")
        protocol, kind = 47, 2
        inside = struct.pack("!HH", 0x2000 if tunnel.key is not None else 0, 0x6558)
        if tunnel.key is not None:
            inside += struct.pack("!I", tunnel.key)
    if local.version == 4:
        dont_fragment = 0x4000
        ip = struct.pack("!BBHHHBBH", 0x45, tunnel.dscp << 2, 0, 0, dont_fragment, tunnel.ttl, protocol, 0)
    else:
        ip = struct.pack("!IHBB", 6 << 28 | tunnel.dscp << 22, 0, protocol, tunnel.ttl)
    return ip + local.packed + remote.packed + inside, kind, checksum
