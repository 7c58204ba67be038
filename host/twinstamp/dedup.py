# SPDX-License-Identifier: Apache-2.0
"""Duplicate removal on FrameBatches and on whole captures (docs/duplicates.md)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable

from twinstamp_kernels.window import CLASSES, PROFILES, Verdicts, Window

from twinstamp.errors import ConfigError, DamagedCaptureError, InputError, LedgerError, OverloadError
from twinstamp.frames import FLAG_NO_TIMESTAMP, FrameBatch, linktypes_of
from twinstamp.io.files import create_capture, for_each_batch, open_capture
from twinstamp.ledger import Ledger
from twinstamp.not_understood import NotUnderstood

TYPE_CHECKING = False  # typing takes 5 ms to import; type checkers take any name so spelled for true
if TYPE_CHECKING:
    from typing import Any

    from twinstamp_kernels.gpu.device import Device

    from twinstamp.io.files import CaptureReader, CaptureWriter, Source

ACTIONS = ("drop", "tag", "count")
# Traffic that repeats itself without being mirrored twice; the appliance leaves it alone by default.
DEFAULT_KEEP = tuple(name for name in CLASSES if name != "other")
TYPE_NAMES = {code: name for name, code in PROFILES.items()}
# For the low bytes of flags: 1 where the frame has no stamp.
_WITHOUT_STAMP = bytes(bool(value & FLAG_NO_TIMESTAMP) for value in range(256))
# Comments that tag a duplicate, by type code (0: none), as CaptureWriter.write takes them.
TAG_COMMENTS = ["", *(f"twinstamp: duplicate ({TYPE_NAMES[code]})" for code in sorted(TYPE_NAMES))]


class Deduplicator:
    """The duplicate window over FrameBatches: a Window that knows ports and class names.

    Options as for twinstamp_kernels.window.Window (backend, device and warn included), but keep takes class
    names (CLASSES). Raises ConfigError where they are wrong, or where there is no GPU for backend "gpu".
    """

    def __init__(
        self,
        *,
        profile: str = "exact",
        layer: str = "outer",
        window: int | None = None,
        time_ns: int | None = None,
        limit: int = 1_000_000,
        ignore_bytes: int = 0,
        keep: Iterable[str] = (),
        guard: str = "none",
        tunnels: Iterable[str] = (),
        workers: int = 1,
        seed: bytes | None = None,
        backend: str = "cpu",
        device: Device | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        tunnels = tuple(tunnels)
        self._by_time = time_ns is not None
        self._without_stamp = [0, 0]  # frames, bytes that no time window can judge
        keep = tuple(keep)
        unknown = [name for name in keep if name not in CLASSES]
        if unknown:
            raise ConfigError(f"unknown frame class {unknown[0]!r}: known are {', '.join(CLASSES)}")
        try:
            self._window = Window(
                profile=profile,
                layer=layer,
                count=window,
                time_ns=time_ns,
                limit=limit,
                ignore_bytes=ignore_bytes,
                keep=[CLASSES[name] for name in keep],
                guard=guard,
                tunnels=tunnels,
                workers=workers,
                seed=seed,
                backend=backend,
                device=device,
                warn=warn,
            )
            # Under exact nobody needs to understand anything.
            self._not_understood = NotUnderstood(layer, tunnels, workers, refused=True)
            self._parses = profile != "exact"
        except ValueError as error:
            raise ConfigError(str(error)) from error
        except (RuntimeError, MemoryError) as error:
            raise OverloadError(f"a window with {workers} workers: {error}; use fewer workers") from error

    def judge(self, batch: FrameBatch, *, details: bool = False) -> Verdicts:
        """Verdicts on the next frames of the stream, in their order; details: distance and delay_ns too.

        Frames without a stamp (FLAG_NO_TIMESTAMP) neither are judged by a window with a time nor stand in it,
        as editcap -w has it: nobody knows how far apart they are.

        Raises InputError for a frame of more captured bytes than keys cover (262,144).
        """
        data, offset, caplen, _, timestamp_ns, port, flags = batch.raw
        if self._by_time and _any_without_stamp(flags):
            verdicts = self._judge_stamped(batch, details)
        else:
            verdicts = self._process(batch, (data, offset, caplen, timestamp_ns, port), details)
            batch.on_device = self._window.frames
        if self._parses:
            self._not_understood.add(batch)
        return verdicts

    def _process(self, batch: FrameBatch, columns: tuple[Any, ...], details: bool) -> Verdicts:
        try:
            return self._window.process(
                columns[0],
                columns[1],
                columns[2],
                columns[3],
                columns[4],
                linktypes_of(batch.ports),
                details=details,
            )
        except ValueError as error:
            raise InputError(
                f"batch from frame {batch.first} (from 0): {error}; cut frames with editcap -s"
            ) from error

    def _judge_stamped(self, batch: FrameBatch, details: bool) -> Verdicts:
        """The verdicts of a batch in which some frames have no stamp: those are kept."""
        import numpy as np

        stamped = np.flatnonzero(batch.flags & FLAG_NO_TIMESTAMP == 0)
        data, offset, caplen, _, timestamp_ns, port, _ = batch.raw
        columns = tuple(np.asarray(column)[stamped] for column in (offset, caplen, timestamp_ns, port))
        self._without_stamp[0] += len(batch) - len(stamped)
        self._without_stamp[1] += int(batch.caplen.sum(dtype=np.int64) - columns[1].sum(dtype=np.int64))
        judged = self._process(batch, (data, *columns), details)

        def scattered(part: Any, value: int, dtype: type) -> Any:
            if part is None or len(part) != len(stamped):  # not asked for
                return part
            whole: Any = np.full(len(batch), value, dtype)
            whole[stamped] = np.asarray(part)
            return whole

        return Verdicts(
            scattered(judged.keep, 1, np.uint8),
            scattered(judged.type, 0, np.uint8),
            scattered(judged.distance, 0, np.uint32),
            scattered(judged.delay_ns, 0, np.int64),
        )

    def statistics(self) -> dict[str, Any]:
        """Frames, bytes, duplicates by type name with distance and delay quantiles, kept by class name;
        guarded: copies that a guard let go on, by guard ("ttl", "tunnel"); without_stamp: of the frames and
        bytes those that a window with a time lets pass; not_understood: see NotUnderstood.as_dict; refused:
        frames that are understood and that no host takes, compared whole as well (both none under exact).
        """
        raw = self._window.statistics()
        frames, size = self._without_stamp
        raw["without_stamp"] = {"frames": frames, "bytes": size}
        raw["frames"] += frames
        raw["bytes"] += size
        raw["not_understood"] = self._not_understood.as_dict()
        raw["refused"] = self._not_understood.refused
        names = {code: name for name, code in CLASSES.items()}
        raw["by_type"] = {TYPE_NAMES[code]: count for code, count in raw["by_type"].items()}
        raw["kept"] = {
            names[code]: {"frames": frames, "bytes": size} for code, (frames, size) in raw["kept"].items()
        }
        raw["guarded"] = {
            name: {"frames": frames, "bytes": size}
            for name, (frames, size) in raw["guarded"].items()
            if frames
        }
        return raw

    def backend(self) -> dict[str, Any]:
        """Where frames are judged: name ("cpu", "gpu"; "auto": no frame yet), reason, events."""
        window = self._window
        return {"name": window.backend, "reason": window.backend_reason, "events": window.events}

    def close(self) -> None:
        """Gives back what it holds of a GPU; statistics() still answers."""
        self._window.close()

    def __enter__(self) -> Deduplicator:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _any_without_stamp(flags: Any) -> bool:
    """flags: u16[n], any buffer. Without NumPy, which takes longer to import than many a file to judge."""
    low = bytes(memoryview(flags).cast("B"))[0 if sys.byteorder == "little" else 1 :: 2]
    return 1 in low.translate(_WITHOUT_STAMP)


def tag_comments(verdicts: Verdicts) -> tuple[Any, list[str]]:
    """Comments for the frames judged duplicates, as CaptureWriter.write takes them."""
    import numpy as np

    judged = np.where(np.asarray(verdicts.keep) == 0, np.asarray(verdicts.type), 0).astype(np.uint8)
    return judged, TAG_COMMENTS


def dedup_capture(
    source: Source,
    target: Source | None,
    *,
    window: int | None = None,
    time_ns: int | None = None,
    profile: str = "exact",
    layer: str = "outer",
    ignore_bytes: int = 0,
    keep: Iterable[str] = (),
    guard: str = "none",
    tunnels: Iterable[str] = (),
    limit: int = 1_000_000,
    action: str = "drop",
    format: str | None = None,
    workers: int = 1,
    backend: str = "cpu",
    device: Device | None = None,
    warn: Callable[[str], None] | None = None,
    progress: Callable[[CaptureReader], None] | None = None,
) -> dict[str, Any]:
    """Removes, tags or counts the duplicates of a capture.

    source, target: path, "-" or file object (target None with action count: nothing is written). window:
    frames, the current one included; time_ns: ns; at least one of them. action: "drop"; "tag" (all frames
    are written, duplicates with a comment: pcapng only); "count" (all frames are written unchanged). guard,
    tunnels: see twinstamp_kernels.window.Window.
    format: of the target, see create_capture. backend, device, warn: see Deduplicator. progress: called after
    each batch.

    Returns the report: options, backend, ledger, duplicates by type, frames written, not_understood (see
    NotUnderstood.as_dict), fractions_beyond (see CaptureReader), truncated (None, or
    where the capture was cut short), damage (None). Raises ConfigError, InputError, DeviceError;
    DamagedCaptureError, with the report, where the capture is damaged inside.
    """
    if action not in ACTIONS:
        raise ConfigError(f"unknown action {action!r}: choose one of {', '.join(ACTIONS)}")
    if target is None and action != "count":
        raise ConfigError(f"the action {action} needs an output; only count works without one")
    keep, tunnels = tuple(keep), tuple(tunnels)
    judge = Deduplicator(
        profile=profile,
        layer=layer,
        window=window,
        time_ns=time_ns,
        limit=limit,
        ignore_bytes=ignore_bytes,
        keep=keep,
        guard=guard,
        tunnels=tunnels,
        workers=workers,
        backend=backend,
        device=device,
        warn=warn,
    )
    with judge, open_capture(source) as reader:
        writer = None if target is None else create_capture(target, format=format, like=reader)
        if action == "tag" and writer is not None and writer.format != "pcapng":
            writer.close()
            raise ConfigError(
                "tagged duplicates need a pcapng output (a pcap file holds no comments): "
                "name it .pcapng, give --format pcapng, or ask for --action drop"
            )

        def take(batch: FrameBatch) -> None:
            verdicts = judge.judge(batch)
            if writer is None:
                return
            if action == "drop":
                writer.write(batch, verdicts.keep)
            else:
                writer.write(batch, comments=tag_comments(verdicts) if action == "tag" else None)

        try:
            damage = for_each_batch(reader, take, progress)
        finally:
            if writer is not None:
                writer.close()
        statistics = judge.statistics()
        ledger = _file_ledger(statistics, action, reader, writer)
        report = {
            "options": {
                "profile": profile,
                "layer": layer,
                "window": window,
                "time_ns": time_ns,
                "ignore_bytes": ignore_bytes,
                "keep": list(keep),
                "guard": guard,
                "tunnels": list(tunnels),
                "action": action,
                "workers": workers,
            },
            "backend": judge.backend(),
            "ledger": ledger.as_dict(),
            "duplicates": {
                "by_type": statistics["by_type"],
                "kept_by_class": statistics["kept"],
                "guarded": statistics["guarded"],
                "refused": statistics["refused"],
                "limit_reached": statistics["limit_reached"],
                "without_stamp": statistics["without_stamp"],
            },
            "frames_written": 0 if writer is None else writer.frames,
            "bytes_written": 0 if writer is None else writer.bytes_written,
            "memory_bytes": statistics["memory_bytes"],
            "not_understood": statistics["not_understood"],
            "fractions_beyond": reader.fractions_beyond,
            "truncated": reader.truncated,
            "damage": None if damage is None else str(damage),
        }
    if damage is not None:
        message = f"{damage}; the {reader.frames} frames before it were processed"
        raise DamagedCaptureError(message, report) from damage
    return report


def _file_ledger(
    statistics: dict[str, Any], action: str, reader: CaptureReader, writer: CaptureWriter | None
) -> Ledger:
    """The ledger of a file, checked: reader, window and writer count their frames each for themselves."""
    duplicates = list(statistics["by_type"].values())
    frames = sum(count["frames"] for count in duplicates)
    size = sum(count["bytes"] for count in duplicates)
    ledger = Ledger()
    ledger.receive(reader.frames, reader.captured)
    if action == "drop":
        ledger.settle("duplicates_dropped", frames, size)
    elif action == "tag":
        ledger.tagged.add(frames, size)
    if writer is None:
        ledger.settle("forwarded", statistics["frames"], statistics["bytes"])
    else:
        ledger.settle("forwarded", writer.frames, writer.captured)
    ledger.check(ended=True)
    if action == "tag" and writer is not None and writer.comments != frames:
        raise LedgerError(f"{frames} frames are duplicates, {writer.comments} were written with a tag")
    if (statistics["frames"], statistics["bytes"]) != (reader.frames, reader.captured):
        raise LedgerError(
            f"{reader.frames} frames of {reader.captured} bytes were read, "
            f"{statistics['frames']} of {statistics['bytes']} bytes judged"
        )
    return ledger
