# SPDX-License-Identifier: Apache-2.0
"""Capture files: pcap and pcapng in and out (docs/files.md).

Reading and writing are compiled (host/twinstamp/io/native); this module opens and closes, decides on
formats and says what went wrong. It imports neither NumPy nor the CLI.
"""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import time

from twinstamp import _native
from twinstamp.errors import ConfigError, DeviceError, InputError
from twinstamp.frames import FILE_CLOCK, FrameBatch, Port, PortTable
from twinstamp.paths import lock_file

TYPE_CHECKING = False  # as typing's, without importing it: that costs 5 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType
    from typing import Any, BinaryIO

    import numpy as np
    import numpy.typing as npt

    Source = str | os.PathLike[str] | BinaryIO | int
    Bytes = bytes | bytearray | memoryview | npt.NDArray[np.uint8] | npt.NDArray[np.bool_]

FORMATS = ("pcap", "pcap-ns", "pcapng")
_ENDINGS = {".pcap": "pcap", ".cap": "pcap", ".dmp": "pcap", ".pcapng": "pcapng", ".ntar": "pcapng"}
_MAX_SNAPLEN = 262144
_FIFO_OPEN_S = 5.0
_STALL_MS = 250

# (device, inode) of regular files being read: none of them may become an output.
_inputs: dict[tuple[int, int], list[str]] = {}


def _plain_file(stream: object) -> int | None:
    """Descriptor behind a Python file object whose bytes are the file's own, else None."""
    raw = getattr(stream, "raw", stream)
    return raw.fileno() if type(raw) is io.FileIO else None


class CaptureReader:
    """Iterates over the frames of a capture as FrameBatch.

    format: "pcap", "pcap-ns", "pcap-modified" or "pcapng". ports: interfaces found so far, one for each
    interface of each pcapng section; only ever appended to. frames: frames delivered. captured: their
    captured bytes. bytes_read: bytes of the capture walked. size: bytes of the file, None for pipes.
    truncated: None, or after the last batch what is missing of a capture that was cut short.
    fractions_beyond: frames of a pcap file whose fraction of a second is a second or more. It is carried
    over, as wiretap does; where a writer put nanoseconds behind the magic of microseconds, the times are
    wrong.

    Damage inside a capture raises InputError with the byte and the frame, after all frames before it
    have been delivered; a capture that just ends too early delivers what it has and sets ``truncated``.
    """

    def __init__(
        self,
        native: _native.CaptureReader,
        name: str,
        *,
        close: int | None = None,
        keep: object = None,
        inode: tuple[int, int] | None = None,
    ) -> None:
        self._native = native
        self._close = close
        self._keep = keep
        self._inode = inode
        self._closed = False
        if inode is not None:
            _inputs.setdefault(inode, []).append(name)
        self.name = name
        self.ports = PortTable()
        self._update_ports()

    def _update_ports(self) -> None:
        for raw_name, linktype, snaplen, binary, exponent in self._native.interfaces(len(self.ports)):
            ticks = 2**exponent if binary else 10**exponent
            name = raw_name.rstrip(b"\0").decode("utf-8", "replace")
            self.ports.append(Port(name, linktype, snaplen, ticks, self.name))

    @property
    def format(self) -> str:
        return self._native.format

    @property
    def frames(self) -> int:
        return self._native.frames

    @property
    def captured(self) -> int:
        return self._native.captured

    @property
    def bytes_read(self) -> int:
        return self._native.bytes_read

    @property
    def size(self) -> int | None:
        size: int = self._native.size
        return None if size < 0 else size

    @property
    def truncated(self) -> str | None:
        return self._native.truncated

    @property
    def fractions_beyond(self) -> int:
        return self._native.fractions_beyond

    def read(self) -> FrameBatch | None:
        """The next frames, or None at the end (or after ``cancel``).

        From a pipe it waits for the first frame and then delivers what has come within 2 ms. A batch may be
        empty where a pcapng capture has very many other blocks between two packets.

        Raises InputError where the capture is damaged, once all frames before the damage were delivered.
        """
        if self._closed:
            raise InputError(f"{self.name}: is closed")
        native = self._native
        got = native.read()
        if native.port_count != len(self.ports):
            self._update_ports()
        if got is None:
            return None
        raw, lease, first, options, big_endian = got
        return FrameBatch(
            raw,
            ports=self.ports,
            clock=FILE_CLOCK,
            first=first,
            lease=lease.release,
            options=options,
            options_big_endian=big_endian,
        )

    def cancel(self) -> None:
        """Makes a read() that waits on a pipe, here or in another thread, return None within 0.1 s."""
        self._native.cancel()

    def close(self) -> None:
        """Closes the file, if it was opened here. Batches still held stay valid."""
        if self._inode is not None:
            names = _inputs.get(self._inode, [])
            if self.name in names:
                names.remove(self.name)
            if not names:
                _inputs.pop(self._inode, None)
            self._inode = None
        self._closed = True
        fd, self._close = self._close, None
        if fd is not None:
            os.close(fd)

    def __iter__(self) -> Iterator[FrameBatch]:
        return self

    def __next__(self) -> FrameBatch:
        batch = self.read()
        if batch is None:
            raise StopIteration
        return batch

    def __enter__(self) -> CaptureReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_close", None) is not None or getattr(self, "_inode", None) is not None:
            self.close()


def open_capture(source: Source, *, batch_frames: int = 65536, batch_bytes: int = 1 << 20) -> CaptureReader:
    """Opens a capture: pcap (µs, ns, modified; both byte orders) or pcapng, told apart by its first bytes.

    source: a path, "-" for standard input, a binary file object, or a file descriptor (not closed here).
    Files, pipes and FIFOs will do. batch_frames: most frames per batch. batch_bytes: bytes read
    at once (1 MiB keeps the bytes in a core's own cache from stage to stage: 1.7 times as fast as 8 MiB);
    a larger record enlarges it, up to 16 MiB (128 MiB for D-Bus and USB link types).

    Raises InputError where the source cannot be read or is no capture; the message names the file, the
    byte, what was found and the next step.
    """
    if not 1 <= batch_frames <= 1 << 24:
        raise ConfigError(f"batch_frames is {batch_frames}, give 1 to {1 << 24}")
    if not 1 <= batch_bytes <= 1 << 32:
        raise ConfigError(f"batch_bytes is {batch_bytes} bytes, give 1 to {1 << 32}")
    close: int | None = None
    readinto: Any = None
    keep: Any = None
    head = b""
    if isinstance(source, int):
        fd, name = source, f"file descriptor {source}"
    elif isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        if path == "-":
            keep = sys.stdin
            fd, name = 0, "standard input"
            if keep is not None and hasattr(keep, "buffer"):
                source = keep.buffer
        else:
            name = _printable(path)
            try:
                fd = close = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:
                message = f"{name}: cannot be opened: {error.strerror}; give an existing capture"
                raise InputError(message) from error
    if not isinstance(source, (str, int, os.PathLike)):
        keep = source
        name = _name_of(source)
        plain = _plain_file(source)
        if plain is None:
            if not hasattr(source, "readinto"):
                raise ConfigError(f"{name}: a binary file object with readinto() is needed")
            fd, readinto = -1, source.readinto
        else:
            fd = plain
            if source.seekable():
                os.lseek(fd, source.tell(), os.SEEK_SET)
            elif hasattr(source, "peek"):
                head = source.read(len(source.peek(1)))
    try:
        status = os.fstat(fd) if fd >= 0 else None
        if status is not None and stat.S_ISDIR(status.st_mode):
            raise InputError(f"{name}: is a directory; give a capture file")
        native = _native.CaptureReader(fd, readinto, name, head, batch_frames, batch_bytes)
    except BaseException as error:
        if close is not None:
            os.close(close)
        if isinstance(error, OSError):
            raise InputError(f"{name}: cannot be read: {error.strerror}") from error
        raise
    inode = (status.st_dev, status.st_ino) if status is not None and stat.S_ISREG(status.st_mode) else None
    return CaptureReader(native, name, close=close, keep=keep, inode=inode)


def for_each_batch(
    reader: CaptureReader,
    take: Callable[[FrameBatch], None],
    progress: Callable[[CaptureReader], None] | None = None,
) -> InputError | None:
    """Hands the batches of a capture to `take`, one after the other, and releases each behind it.

    progress: called after each batch. Returns None at the end of the capture, or the damage that ended it:
    all frames before it have been handed over then. What `take` raises is passed on.
    """
    while True:
        try:
            batch = reader.read()
        except InputError as damage:
            return damage
        if batch is None:
            return None
        with batch:
            take(batch)
        if progress is not None:
            progress(reader)


def _printable(path: str | bytes) -> str:
    """A path for messages and compiled code: bytes that are no UTF-8 as U+FFFD."""
    return os.fsencode(path).decode("utf-8", "replace")


def _name_of(stream: object) -> str:
    """What to call a file object in messages."""
    name = getattr(stream, "name", None)
    if name in ("<stdin>", 0):
        return "standard input"
    if isinstance(name, int):
        return f"file descriptor {name}"
    return str(name) if name else type(stream).__name__


class CaptureWriter:
    """Writes FrameBatches to a capture.

    format: "pcap", "pcap-ns", "pcapng", or None until the first batch decides. frames: frames written, as
    counted where they are encoded. captured: their captured bytes. comments: how many of them got a comment.
    bytes_written: bytes of the capture so far.

    Leaving the ``with`` block closes the capture, with or without an exception: it then holds the whole
    records written so far and is valid.
    """

    def __init__(
        self,
        native: _native.CaptureWriter,
        name: str,
        *,
        close: int | None,
        keep: object,
        format: str | None,
        exact: bool,
        like: CaptureReader | None,
        linktype: int | None,
        snaplen: int | None,
        stream: bool,
    ) -> None:
        self._whole = False
        self._native: _native.CaptureWriter | _Closed = native
        self.name = name
        self._close = close
        self._keep = keep
        self.format = format
        self._exact = exact
        self._like = like
        self._linktype = linktype
        self._snaplen = snaplen
        self._started = False
        self._tables: list[Any] = [like.ports if like is not None else None]
        self._described: list[int] = [0]
        self._pcap_linktype = -1
        self._port_ok: tuple[Any, bytearray, bool] = (None, bytearray(), True)
        if format == "pcapng":
            native.start_pcapng(like._native if like is not None and like.format == "pcapng" else None)
            if like is not None and like.format != "pcapng":
                self._tables[0] = None
            self._started = True
        elif stream and like is not None and like.ports and like.format != "pcapng" and format is not None:
            self._start_pcap(native, like.ports)
        self._whole = True

    @property
    def frames(self) -> int:
        return self._native.frames

    @property
    def captured(self) -> int:
        return self._native.captured

    @property
    def comments(self) -> int:
        return self._native.comments

    @property
    def bytes_written(self) -> int:
        return self._native.bytes

    def _start_pcap(self, native: _native.CaptureWriter, ports: Sequence[Port], used: int = 0) -> None:
        if self.format is None:
            # Named .pcap: microseconds, unless that would lose digits of the source's stamps.
            fine = any(port.ticks_per_s > 1_000_000 for port in ports)
            self.format = "pcap-ns" if fine else "pcap"
        linktype = self._linktype
        if linktype is None:
            linktype = ports[used].linktype if ports else 1
        network = linktype
        snaplen = self._snaplen
        like = self._like
        if like is not None and like.format != "pcapng":
            if snaplen is None:
                snaplen = like._native.header_snaplen
            if linktype == like.ports[0].linktype:
                network = like._native.header_network  # with its FCS bits
        elif snaplen is None and ports:
            snaplen = max(port.snaplen for port in ports) if all(port.snaplen for port in ports) else 0
        self._pcap_linktype = linktype
        native.start_pcap(self.format == "pcap-ns", self._exact, snaplen or _MAX_SNAPLEN, network)
        self._started = True

    def _table(self, native: _native.CaptureWriter, ports: Sequence[Port]) -> int:
        """Number of a table of ports among those this writer has seen, its new ports described."""
        same = (
            # Equal tuples are one table: generated batches often bring a new one each.
            i
            for i, table in enumerate(self._tables)
            if table is ports or (type(ports) is tuple and table == ports)
        )
        number = next(same, len(self._tables))
        if number == len(self._tables):
            self._tables.append(ports)
            self._described.append(0)
        if number:
            for index in range(self._described[number], len(ports)):
                port = ports[index]
                if port.linktype > 0xFFFF:
                    raise InputError(f"{self.name}: link type {port.linktype} does not fit a pcapng capture")
                native.add_port(number, index, port.name, port.linktype, port.snaplen)
            self._described[number] = len(ports)
        return number

    def _ports_allowed(self, ports: Sequence[Port]) -> bytearray | None:
        """For pcap: which ports have the file's link type, as u8[len(ports)]; None where all have."""
        table, flags, all_allowed = self._port_ok
        if table is not ports:
            flags, all_allowed = bytearray(), True
        for number in range(len(flags), len(ports)):
            flags.append(ports[number].linktype == self._pcap_linktype)
            all_allowed = all_allowed and flags[-1] == 1
        self._port_ok = (ports, flags, all_allowed)
        return None if all_allowed else flags

    def write(
        self,
        batch: FrameBatch,
        keep: Bytes | None = None,
        comments: tuple[Bytes, Sequence[str]] | None = None,
    ) -> int:
        """Writes frames of a batch and says how many.

        keep: u8[n] or bool[n], nonzero = write; None = all. comments: (which u8[n], texts): frame i gets the
        comment texts[which[i]], an empty text is none; pcapng only.

        Raises InputError where the format cannot hold a frame (another link type in pcap, a time out of
        range), ConfigError for comments in pcap, DeviceError where writing fails (disk full, pipe closed).
        What was written before is kept and valid.
        """
        native = self._native
        if isinstance(native, _Closed):
            raise ConfigError(f"{self.name}: is closed")
        if not self._started:
            used = int(memoryview(batch.raw[5])[0]) if len(batch) else 0
            self._start_pcap(native, batch.ports, used if used < len(batch.ports) else 0)
        pcap = self.format != "pcapng"
        which: memoryview | None = None
        texts: list[str] = []
        if comments is not None:
            if pcap:
                raise ConfigError(f"{self.name}: a pcap file holds no comments; write --format pcapng")
            which = _bytes_view(comments[0])
            texts = list(comments[1])
            if any(len(text.encode()) > 65535 for text in texts):
                raise ConfigError(f"{self.name}: a comment holds at most 65535 bytes")
        data, offset, caplen, length, timestamp_ns, port, flags = batch.raw
        option_offset, option_length = batch.options or (None, None)
        return native.write(
            data,
            offset,
            caplen,
            length,
            timestamp_ns,
            port,
            flags,
            None if keep is None else _bytes_view(keep),
            batch.first,
            self._ports_allowed(batch.ports) if pcap else None,
            option_offset,
            option_length,
            batch.options_big_endian,
            0 if pcap else self._table(native, batch.ports),
            which,
            texts,
        )

    def describe(self, ports: Sequence[Port]) -> None:
        """Puts ``ports`` into the file now, before any frame names them; pcapng only."""
        native = self._pcapng()
        table = self._table(native, ports)
        for port in range(len(ports)):
            native.describe(table, port)

    def statistics(
        self,
        ports: Sequence[Port],
        port: int,
        *,
        timestamp_ns: int,
        received: int,
        dropped: int,
        comment: str = "",
    ) -> None:
        """Writes an interface statistics block: what ``ports[port]`` received and dropped up to then.

        Becomes isb_ifrecv and isb_ifdrop of the pcapng format. Raises ConfigError in pcap.
        """
        native = self._pcapng()
        native.statistics(self._table(native, ports), port, timestamp_ns, received, dropped, comment)

    def _pcapng(self) -> _native.CaptureWriter:
        native = self._native
        if isinstance(native, _Closed):
            raise ConfigError(f"{self.name}: is closed")
        if self.format != "pcapng":
            raise ConfigError(f"{self.name}: only pcapng holds interfaces and their counts")
        return native

    def flush(self) -> None:
        """Hands all records encoded so far to the system."""
        if not isinstance(self._native, _Closed):
            self._native.flush()

    def close(self) -> None:
        """Writes what is left and closes. A capture without frames gets its header all the same."""
        native = self._native
        if isinstance(native, _Closed):
            return
        try:
            try:
                if not self._started:
                    self._start_pcap(native, self._like.ports if self._like is not None else ())
            finally:
                native.finish()
        finally:
            self._native = _Closed(native)
            fd, self._close = self._close, None
            if fd is not None:
                try:
                    os.close(fd)
                except OSError as error:
                    message = f"{self.name}: cannot be closed: {error.strerror}; data may be lost"
                    raise DeviceError(message) from error

    def __enter__(self) -> CaptureWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Not one that was never whole: create_capture() has closed its descriptor.
        if self._whole and not isinstance(self._native, _Closed):
            self.close()


class _Closed:
    """Stands for the native writer after close(): the counters stay readable."""

    def __init__(self, native: _native.CaptureWriter) -> None:
        self.frames = native.frames
        self.captured = native.captured
        self.comments = native.comments
        self.bytes = native.bytes


def _bytes_view(values: Bytes) -> memoryview:
    view = memoryview(values)  # type: ignore[arg-type]  # NumPy's stubs name no buffer protocol before 3.12
    return view if view.format == "B" else view.cast("B")


def create_capture(
    target: Source,
    *,
    format: str | None = None,
    like: CaptureReader | None = None,
    linktype: int | None = None,
    snaplen: int | None = None,
    live: bool = False,
) -> CaptureWriter:
    """Creates a capture.

    target: a path, "-" for standard output, a binary file object or a file descriptor. format: "pcap"
    (µs), "pcap-ns" or "pcapng"; None: by the ending (.pcap .cap .dmp → pcap, with nanoseconds where the
    source has them; .pcapng .ntar → pcapng), else the format of ``like``, else pcap. like: the reader
    whose frames will be written: link type, limits, FCS bits and, from pcapng to pcapng, sections,
    interfaces with their resolution, options and other blocks are carried over. linktype, snaplen: for
    pcap, where they shall differ from the source's.

    An existing file is written over in place (its old pages are reused, twice as fast as new ones)
    and cut to its new length at the end; until close() it begins with four zero bytes, so that no reader
    takes it for a capture. live: the frames come from an interface, so nothing may hold them up and the file
    may be all that a power failure leaves: an old file is emptied first, and a FIFO must have its reader
    within 5 s and is an error (DeviceError) once that reader takes nothing for 250 ms. Raises ConfigError
    where the target is one of the files being read, is being written by another run (flock(2)), or cannot be
    created.
    """
    exact = False
    path = os.fspath(target) if isinstance(target, (str, os.PathLike)) else None
    if format is None:
        format = _ENDINGS.get(os.path.splitext(path)[1].lower()) if path is not None else None  # noqa: PTH122
        if format is None:
            format = like.format if like is not None else "pcap"
        if format == "pcap-modified":
            format = "pcap"
        if format == "pcap":
            format, exact = None, True
    elif format not in FORMATS:
        raise ConfigError(f"unknown capture format {format!r}; known are {', '.join(FORMATS)}")
    close: int | None = None
    keep: Any = None
    if isinstance(target, int):
        fd, name = target, f"file descriptor {target}"
    elif path == "-":
        keep = sys.stdout
        if keep is not None:
            keep.flush()
        fd, name = 1, "standard output"
    elif path is not None:
        name = _printable(path)
        refuse_input(path, name)
        try:
            if live and _is_fifo(path):
                fd = close = _open_fifo(path)
            else:
                fd = close = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            message = f"{name}: cannot be created: {error.strerror}; choose another output"
            if error.errno == errno.ENXIO:
                message = f"{name}: nobody reads this FIFO; start its reader first"
            raise ConfigError(message) from error
    else:
        assert not isinstance(target, (str, os.PathLike))
        keep = target
        name = _name_of(target)
        if not hasattr(target, "fileno"):
            raise ConfigError(f"{name}: a file object with a descriptor is needed; give a path")
        target.flush()
        fd = target.fileno()
    try:
        status = os.fstat(fd)
        refuse_input(fd, name)
        regular = stat.S_ISREG(status.st_mode)
        if close is not None and regular:
            lock_file(close, name)
        if live and close is not None and regular:
            os.ftruncate(fd, 0)
        overwrite = close is not None and regular and not live and status.st_size > 0
        stall_ms = _STALL_MS if live and stat.S_ISFIFO(status.st_mode) else -1
        native = _native.CaptureWriter(fd, name, overwrite, not regular, stall_ms)
        return CaptureWriter(
            native,
            name,
            close=close,
            keep=keep,
            format=format,
            exact=exact,
            like=like,
            linktype=linktype,
            snaplen=snaplen,
            stream=not regular,
        )
    except BaseException as error:
        if close is not None:
            os.close(close)
        if isinstance(error, OSError):
            raise ConfigError(f"{name}: cannot be written: {error.strerror}") from error
        raise


def _is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return False


def _open_fifo(path: str) -> int:
    """A descriptor of a FIFO that does not block. OSError (ENXIO) where nobody opens its other end."""
    limit = time.monotonic() + _FIFO_OPEN_S
    while True:
        try:
            return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO or time.monotonic() > limit:
                raise
        time.sleep(0.05)


def refuse_input(target: str | int, name: str) -> None:
    """Raises ConfigError where `target` is a capture that is being read."""
    try:
        status = os.stat(target)  # noqa: PTH116
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) in _inputs:
        source = _inputs[status.st_dev, status.st_ino][0]
        raise ConfigError(f"{name}: is the same file as the input {source}; choose another output")
