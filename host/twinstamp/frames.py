# SPDX-License-Identifier: Apache-2.0
"""FrameBatch: many frames as plain arrays over one byte buffer (docs/frames.md).

Importing this module does not import NumPy: a command that only passes batches from one compiled
stage to the next starts in a quarter of the time. The arrays become NumPy arrays, without a copy,
when somebody reads them.
"""

from __future__ import annotations

from _thread import allocate_lock  # threading's, whose import costs a millisecond
from array import array
from collections import namedtuple

TYPE_CHECKING = False  # as typing's, without importing it: that costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any, NamedTuple

    import numpy as np
    import numpy.typing as npt

# Link types, as assigned at https://www.tcpdump.org/linktypes.html
LINKTYPE_ETHERNET = 1
LINKTYPE_PPP = 9
LINKTYPE_RAW = 101
LINKTYPE_LINUX_SLL = 113
LINKTYPE_LINUX_SLL2 = 276

# Bits of FrameBatch.flags
FLAG_OUTGOING = 0x0001  # sent by the capturing machine (PACKET_OUTGOING, pcapng direction bits)
FLAG_BAD_FCS = 0x0002  # the receiver found a wrong frame check sequence
FLAG_NO_TIMESTAMP = 0x0004  # the source carries no stamp (pcapng simple packet block); timestamp_ns is 0
FLAG_VLAN_RESTORED = 0x0008  # the tag was put back from the kernel's metadata
FLAG_CSUM_NOT_READY = 0x0010  # the L4 checksum was left to hardware (TP_STATUS_CSUMNOTREADY)
FLAG_DUPLICATE = 0x0020  # tagged as a duplicate by an earlier stage
FLAG_KERNEL_STAMP = 0x0040  # stamped by the kernel, in a batch that the NIC stamps

if TYPE_CHECKING:

    class Port(NamedTuple):
        name: str
        linktype: int
        snaplen: int = 0
        ticks_per_s: int = 1_000_000_000
        source: str = ""

    class ClockState(NamedTuple):
        timescale: str
        source: str
        locked: bool
        bound_ns: int
        epoch: int
        state: str = ""
        utc_offset_s: int = 37
        utc_known: bool = False
        leap_s: int = 0
        leap_tai_s: int = 0
else:
    Port = namedtuple("Port", "name linktype snaplen ticks_per_s source", defaults=(0, 1_000_000_000, ""))
    Port.__doc__ = """Where frames came from: an interface of a capture file, a NIC or a card's port.

    name: interface name or "". linktype: LINKTYPE_* number. snaplen: bytes kept per frame, 0 = no limit.
    ticks_per_s: resolution of the source's stamps. source: file name or device.
    """
    ClockState = namedtuple(
        "ClockState",
        "timescale source locked bound_ns epoch state utc_offset_s utc_known leap_s leap_tai_s",
        defaults=("", 37, False, 0, 0),
    )
    ClockState.__doc__ = """State of the clock behind a batch's stamps (DESIGN: Time).

    timescale: "utc" or "tai". source: "card", "nic", "kernel" or "file". locked: to a reference. bound_ns:
    error bound in ns, -1 where none is known. epoch: time-epoch, +1 at each load of a new time. state: of the
    servo behind it ("cold", "acquiring", "locked", "holdover", "disputed", "failed"), "" where none is known.
    utc_offset_s: TAI - UTC at the first frame; utc_known: from a receiver or a valid leap table, not assumed
    (then a batch in UTC has no bound). leap_s: what the leap second to come adds to it, 0 for none;
    leap_tai_s: the first second of TAI behind it (twinstamp.leap.UtcOffset makes UTC of TAI with them).
    """


class GrowingU16:
    """u16 numbers that are only appended to, lent as a view without a copy."""

    __slots__ = ("_count", "_room")

    def __init__(self) -> None:
        self._room = array("H", bytes(16))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, value: int) -> None:
        if self._count == len(self._room):
            # A new array, not a longer one: views of the old one may be in use.
            self._room = self._room + array("H", bytes(2 * self._count))
        self._room[self._count] = value
        self._count += 1

    @property
    def view(self) -> memoryview:
        """u16[len(self)]; stays as it is when more is appended."""
        return memoryview(self._room)[: self._count]


class PortTable(list[Port]):
    """The ports of a source, only ever appended to, and their link types beside them.

    A capture may have 65,536 ports, one more in each batch: what a stage needs of all of them must not be
    made anew for each batch.
    """

    __slots__ = ("_linktypes",)

    def __init__(self, ports: Iterable[Port] = ()) -> None:
        super().__init__()
        self._linktypes = GrowingU16()
        for port in ports:
            self.append(port)

    def append(self, port: Port) -> None:
        self._linktypes.append(min(port.linktype, 0xFFFF))
        super().append(port)

    @property
    def linktypes(self) -> memoryview:
        """Link type per port, u16[len(self)]; 0xFFFF stands for what does not fit. A view, not a copy."""
        return self._linktypes.view


def linktypes_of(ports: Sequence[Port]) -> memoryview:
    """Link type per port, u16[len(ports)], for compiled stages; 0xFFFF stands for what does not fit."""
    if isinstance(ports, PortTable):
        return ports.linktypes
    return memoryview(array("H", (min(port.linktype, 0xFFFF) for port in ports)))


FILE_CLOCK = ClockState("utc", "file", False, -1, 0)
KERNEL_CLOCK = ClockState("utc", "kernel", False, -1, 0)

# name, NumPy dtype
COLUMNS = (
    ("data", "u1"),
    ("offset", "u8"),
    ("caplen", "u4"),
    ("length", "u4"),
    ("timestamp_ns", "i8"),
    ("port", "u2"),
    ("flags", "u2"),
)


class _SharedLease:
    """A lease that several batches hold: the last one to release it gives the buffer back."""

    __slots__ = ("_lease", "_lock", "_users")

    def __init__(self, lease: Callable[[], None]) -> None:
        self._lease = lease
        self._lock = allocate_lock()
        self._users = 1

    def add(self) -> None:
        with self._lock:
            self._users += 1

    def __call__(self) -> None:
        with self._lock:
            self._users -= 1
            last = self._users == 0
        if last:
            self._lease()


class FrameBatch:
    """n frames as a struct of arrays over one byte buffer.

    Columns (NumPy arrays, or CuPy arrays where the batch lives on a GPU; read-only by convention):

    ============  =====  =====================================================================
    data          u8[]   bytes of all frames, in the source's own layout
    offset        u64[n] first byte of frame i in ``data``
    caplen        u32[n] captured bytes of frame i
    length        u32[n] bytes of frame i on the wire
    timestamp_ns  i64[n] ns since 1970-01-01 in ``clock.timescale``
    port          u16[n] index into ``ports``
    flags         u16[n] FLAG_* bits
    ============  =====  =====================================================================

    ports: table of Port (link type and name per port), only ever appended to by one source (a PortTable
    where it grows).
    clock: ClockState of the whole batch. first: index of frame 0 among all frames of the source.
    options: for pcapng sources, (offset u64[n], length u32[n]) of each block's raw options in ``data``
    (byte order of ``options_big_endian``), else None.

    A batch leases its buffer: ``release()`` (or leaving a ``with`` block) gives it back to the source,
    after which its arrays must not be read. Any object with the buffer protocol or DLPack serves as
    a column; ``raw`` hands out the columns as they came, for compiled code. ``on_device``: where one stage
    has copied the frames to a GPU, for the next one (a ResidentFrames of twinstamp_kernels), else None.
    """

    __slots__ = (
        "_columns", "_lease", "clock", "first", "on_device", "options", "options_big_endian", "ports", "raw"
    )  # fmt: skip

    def __init__(
        self,
        raw: Sequence[Any],
        *,
        ports: Sequence[Port],
        clock: ClockState = FILE_CLOCK,
        first: int = 0,
        lease: Callable[[], None] | None = None,
        options: tuple[Any, Any] | None = None,
        options_big_endian: bool = False,
    ) -> None:
        if len(raw) != len(COLUMNS):
            raise TypeError(f"a FrameBatch has {len(COLUMNS)} columns, {len(raw)} given")
        self.raw = tuple(raw)
        self.ports = ports
        self.clock = clock
        self.first = first
        self.options = options
        self.options_big_endian = options_big_endian
        self._lease = lease
        self._columns: dict[str, Any] = {}
        self.on_device: Any = None

    def __len__(self) -> int:
        return len(self.raw[2])

    def __enter__(self) -> FrameBatch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def release(self) -> None:
        """Gives the buffer back to its source. Further calls do nothing."""
        lease, self._lease = self._lease, None
        self._columns.clear()
        self.on_device = None
        if lease is not None:
            self.raw = (b"",) * len(COLUMNS)
            self.options = None
            lease()

    def share(self) -> FrameBatch:
        """The same frames once more, without a copy: the buffer goes back when both have been released.

        Either may be released from any thread, and shared again.
        """
        if self._lease is not None and not isinstance(self._lease, _SharedLease):
            self._lease = _SharedLease(self._lease)
        if isinstance(self._lease, _SharedLease):
            self._lease.add()
        return FrameBatch(
            self.raw,
            ports=self.ports,
            clock=self.clock,
            first=self.first,
            lease=self._lease,
            options=self.options,
            options_big_endian=self.options_big_endian,
        )

    def _column(self, index: int) -> Any:
        name, dtype = COLUMNS[index]
        column = self._columns.get(name)
        if column is None:
            column = self.raw[index]
            if not hasattr(column, "dtype"):
                import numpy as np

                column = np.frombuffer(column, dtype=dtype) if len(column) else np.empty(0, dtype=dtype)
            self._columns[name] = column
        return column

    @property
    def data(self) -> npt.NDArray[np.uint8]:
        return self._column(0)  # type: ignore[no-any-return]

    @property
    def offset(self) -> npt.NDArray[np.uint64]:
        return self._column(1)  # type: ignore[no-any-return]

    @property
    def caplen(self) -> npt.NDArray[np.uint32]:
        return self._column(2)  # type: ignore[no-any-return]

    @property
    def length(self) -> npt.NDArray[np.uint32]:
        return self._column(3)  # type: ignore[no-any-return]

    @property
    def timestamp_ns(self) -> npt.NDArray[np.int64]:
        return self._column(4)  # type: ignore[no-any-return]

    @property
    def port(self) -> npt.NDArray[np.uint16]:
        return self._column(5)  # type: ignore[no-any-return]

    @property
    def flags(self) -> npt.NDArray[np.uint16]:
        return self._column(6)  # type: ignore[no-any-return]

    @property
    def linktypes(self) -> npt.NDArray[np.uint16]:
        """Link type per port, u16[len(ports)]."""
        import numpy as np

        types = linktypes_of(self.ports)
        return np.frombuffer(types, dtype=np.uint16) if len(types) else np.empty(0, np.uint16)

    def frame(self, i: int) -> bytes:
        """The captured bytes of frame i, copied: for a look at one frame, not for the data path."""
        start = int(self.offset[i])
        return self.data[start : start + int(self.caplen[i])].tobytes()

    def select(self, index: Any) -> FrameBatch:
        """The frames at ``index`` (integers or a boolean mask, as NumPy indexing takes them).

        Shares ``data``: valid as long as this batch is. The selection has no lease of its own.
        """
        columns = [self.data] + [self._column(i)[index] for i in range(1, len(COLUMNS))]
        options = None
        if self.options is not None:
            import numpy as np

            options = (
                np.frombuffer(self.options[0], dtype="u8")[index],
                np.frombuffer(self.options[1], dtype="u4")[index],
            )
        return FrameBatch(
            columns,
            ports=self.ports,
            clock=self.clock,
            first=self.first,
            options=options,
            options_big_endian=self.options_big_endian,
        )

    @classmethod
    def from_frames(
        cls,
        frames: Sequence[bytes],
        *,
        timestamp_ns: Sequence[int] | None = None,
        length: Sequence[int] | None = None,
        linktype: int = LINKTYPE_ETHERNET,
        first: int = 0,
    ) -> FrameBatch:
        """A batch from a list of byte strings, for tests, generators and interactive use."""
        import numpy as np

        caplen = np.array([len(frame) for frame in frames], dtype=np.uint32)
        offset = np.zeros(len(frames), dtype=np.uint64)
        if len(frames) > 1:
            offset[1:] = np.cumsum(caplen[:-1], dtype=np.uint64)
        n = len(frames)
        return cls(
            (
                np.frombuffer(b"".join(frames), dtype=np.uint8),
                offset,
                caplen,
                caplen.copy() if length is None else np.asarray(length, dtype=np.uint32),
                np.zeros(n, np.int64) if timestamp_ns is None else np.asarray(timestamp_ns, dtype=np.int64),
                np.zeros(n, np.uint16),
                np.zeros(n, np.uint16),
            ),
            ports=(Port("", linktype),),
            first=first,
        )
