# SPDX-License-Identifier: Apache-2.0
"""What duplicates a feed has, which window removes them, and what that window costs (docs/duplicates.md).

The rule that tells a packet seen twice by the network from one that a host sent twice, in this order, for
each frame that repeats an earlier one under the profile:

1. ``class``: its frame class is not "other" (ARP, neighbour discovery, STP …): legitimate. Such protocols
   repeat themselves bit for bit.
2. ``late``: the stamps are more than LATE_NS apart: legitimate. That is the shortest time after which TCP
   stacks send anew, and no network holds a packet as long without losing others.
3. ``anonymous``: nothing in it tells two sendings apart (IP-ID 0 or none, and no TCP sequence numbers used
   up), and no *identified* frame of this feed repeats under the same type after as long a delay:
   legitimate. A network that copies packets does not choose the anonymous ones.
4. Else the network made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from twinstamp_kernels.keys import frame_classes, frames_identified
from twinstamp_kernels.window import CLASSES, MAX_WINDOW, PROFILES

from twinstamp.dedup import Deduplicator
from twinstamp.errors import ConfigError, DamagedCaptureError
from twinstamp.io.files import for_each_batch, open_capture

if TYPE_CHECKING:
    import numpy.typing as npt
    from twinstamp_kernels.gpu.device import Device

    from twinstamp.frames import FrameBatch
    from twinstamp.io.files import CaptureReader, Source

# Linux' TCP_RTO_MIN; RFC 6298 asks for a second.
LATE_NS = 200_000_000
NETWORK, BY_CLASS, LATE, ANONYMOUS = range(4)
REASONS = {BY_CLASS: "class", LATE: "late", ANONYMOUS: "anonymous"}


class Repeats:
    """Every frame of a feed that repeats an earlier one, as arrays of n entries.

    frame u64: number of the frame, from 0. type u8: PROFILES code. class_code u8: CLASSES code.
    identified bool: see ``is_identified`` in twinstamp/frame_class.h. guarded bool: a guard of the window
    would
    let it go on (its TTL or hop limit rises; or, inner, the copy before it is in more tunnels). distance
    i64: frames back to the
    nearest copy. delay_ns i64: since that copy, negative where stamps run backwards. fate u8: NETWORK,
    BY_CLASS, LATE or ANONYMOUS.
    """

    __slots__ = ("class_code", "delay_ns", "distance", "fate", "frame", "guarded", "identified", "type")

    def __init__(self, columns: list[list[npt.NDArray[Any]]]) -> None:
        def join(index: int, dtype: str) -> npt.NDArray[Any]:
            return np.concatenate([np.empty(0, dtype), *columns[index]]).astype(dtype)

        self.frame = join(0, "u8")
        self.type = join(1, "u1")
        self.class_code = join(2, "u1")
        self.identified = join(3, "?")
        self.distance = join(4, "i8")
        self.delay_ns = join(5, "i8")
        self.guarded = join(6, "?")
        self.fate = judge(self.type, self.class_code, self.identified, self.delay_ns)

    def __len__(self) -> int:
        return len(self.type)


def judge(
    kind: npt.NDArray[np.uint8],
    class_code: npt.NDArray[np.uint8],
    identified: npt.NDArray[np.bool_],
    delay_ns: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint8]:
    """The rule at the top of this module on n repeats; returns their fates, u8[n]."""
    fate = np.zeros(len(kind), np.uint8)
    apart = np.abs(delay_ns)
    of_class = class_code != CLASSES["other"]
    late = ~of_class & (apart > LATE_NS)
    judged = ~of_class & ~late
    fate[of_class] = BY_CLASS
    fate[late] = LATE
    for code in PROFILES.values():
        same = judged & (kind == code)
        sure = same & identified
        longest = int(apart[sure].max()) if sure.any() else -1
        fate[same & ~identified & (apart > longest)] = ANONYMOUS
    return fate


def read_repeats(
    source: Source,
    *,
    profile: str = "nat",
    layer: str = "outer",
    tunnels: Iterable[str] = (),
    reach: int = MAX_WINDOW,
    workers: int = 1,
    backend: str = "cpu",
    device: Device | None = None,
    warn: Callable[[str], None] | None = None,
    progress: Callable[[CaptureReader], None] | None = None,
) -> tuple[Repeats, dict[str, Any]]:
    """Reads a capture and finds its repeats.

    reach: frames to look back, at most 1,000,000. tunnels, backend, device, warn: see
    twinstamp.dedup.Deduplicator.
    Memory grows by 28 bytes per repeat found. Returns (Repeats, facts): facts has frames, bytes, backend,
    not_understood, refused, fractions_beyond, truncated (None, or where the capture was cut), damage (None,
    or the
    InputError that ended the capture).
    Raises InputError, ConfigError.
    """
    tunnels = tuple(tunnels)
    finder = Deduplicator(
        profile=profile,
        layer=layer,
        tunnels=tunnels,
        window=reach,
        guard="ttl",  # a guarded copy is kept and has its type all the same
        workers=workers,
        backend=backend,
        device=device,
        warn=warn,
    )
    columns: list[list[npt.NDArray[Any]]] = [[] for _ in range(7)]
    frames = size = 0
    with finder, open_capture(source) as reader:

        def take(batch: FrameBatch) -> None:
            nonlocal frames, size
            verdicts = finder.judge(batch, details=True)
            found = np.asarray(verdicts.type)
            index = np.flatnonzero(found)
            size += int(batch.length.sum(dtype=np.uint64))
            if len(index):
                part = batch.select(index)
                arrays = (part.data, part.offset, part.caplen, part.port, batch.linktypes)
                columns[0].append(index.astype(np.uint64) + np.uint64(frames))
                columns[1].append(found[index].copy())
                columns[2].append(frame_classes(*arrays, layer=layer, tunnels=tunnels))
                columns[3].append(frames_identified(*arrays, layer=layer, tunnels=tunnels))
                columns[4].append(np.asarray(verdicts.distance)[index].astype(np.int64))
                columns[5].append(np.asarray(verdicts.delay_ns)[index].copy())
                columns[6].append(np.asarray(verdicts.keep)[index] != 0)
            frames += len(batch)

        damage = for_each_batch(reader, take, progress)
        truncated, beyond = reader.truncated, reader.fractions_beyond
    facts = {
        "frames": frames,
        "bytes": size,
        "backend": finder.backend(),
        "not_understood": finder.statistics()["not_understood"],
        "refused": finder.statistics()["refused"],
        "fractions_beyond": beyond,
        "truncated": truncated,
        "damage": damage,
    }
    return Repeats(columns), facts


def round_up(value: int) -> int:
    """The next integer of two digits and zeros: 84,793,612 → 85,000,000."""
    step: int = 10 ** max(0, len(str(value)) - 2)
    return -(-value // step) * step


def recommend(repeats: Repeats, recall: float) -> dict[str, Any] | None:
    """The smallest window, in frames and in time, that catches `recall` (0..1] of the network's duplicates.

    The time comes first: the delay that the wanted share of duplicates keeps to; then the count that
    reaches as many of those as needed. Both are rounded up to two digits (at least 1 µs), and what the
    rounded window catches and costs is counted, and how many of its catch a guard would let go on. None
    where the network made no duplicates.
    """
    if not 0 < recall <= 1:
        raise ConfigError(
            f"a recall of {recall} is not possible: give a share above 0, at most 1, e.g. 0.999"
        )
    network = repeats.fate == NETWORK
    total = int(network.sum())
    if total == 0:
        return None
    apart = np.abs(repeats.delay_ns)
    # Exact in integers: the smallest number of duplicates whose share is at least the recall.
    needed = max(1, int(np.ceil(recall * total - 1e-9)))
    time_ns = int(np.sort(apart[network])[needed - 1])
    inside = network & (apart <= time_ns)
    count = int(np.sort(repeats.distance[inside])[needed - 1]) + 1
    rounded_time, rounded_count = max(1_000, round_up(time_ns)), min(MAX_WINDOW, round_up(count))
    caught = (repeats.distance < rounded_count) & (apart <= rounded_time)
    cost = caught & ~network
    classes = {name: int((cost & (repeats.class_code == c)).sum()) for name, c in CLASSES.items()}
    return {
        "recall_wanted": recall,
        "count": rounded_count,
        "time_ns": rounded_time,
        "smallest_count": count,
        "smallest_time_ns": time_ns,
        "caught": int((caught & network).sum()),
        "recall": int((caught & network).sum()) / total,
        "guarded": int((caught & network & repeats.guarded).sum()),
        "cost": {
            "frames": int(cost.sum()),
            "with_default_keep": int((cost & (repeats.fate != BY_CLASS)).sum()),
            "by_reason": {name: int((cost & (repeats.fate == f)).sum()) for f, name in REASONS.items()},
            "by_class": {name: n for name, n in classes.items() if n},
        },
        "count_only_cost": int(((repeats.distance < rounded_count) & ~network).sum()),
        "time_only_cost": int(((apart <= rounded_time) & ~network).sum()),
    }


def quantiles(values: npt.NDArray[np.int64]) -> dict[str, int] | None:
    """min, p50, p90, p99, p999 and max, each a value that occurs. None of no values."""
    if not len(values):
        return None
    ordered = np.sort(values)
    last = len(ordered) - 1
    shares = {"min": 0, "p50": 500, "p90": 900, "p99": 990, "p999": 999, "max": 1000}
    return {name: int(ordered[-(-last * share // 1000)]) for name, share in shares.items()}


DISTANCE_EDGES = np.array([m * 10**e for e in range(7) for m in (1, 2, 5)][:20], np.int64)
DELAY_EDGES = np.array([0, *(m * 10**e for e in range(13) for m in (1, 2, 5))], np.int64)


def histogram(
    repeats: Repeats, values: npt.NDArray[np.int64], edges: npt.NDArray[np.int64]
) -> dict[str, Any]:
    """Counts per bin from each edge up to the next (the last is open), per type name and for "legitimate"."""
    at = np.searchsorted(edges, values, side="right") - 1
    network = repeats.fate == NETWORK
    chosen = {name: network & (repeats.type == code) for name, code in PROFILES.items()}
    chosen["legitimate"] = ~network
    return {
        "from": edges.tolist(),
        **{name: np.bincount(at[mask], minlength=len(edges)).tolist() for name, mask in chosen.items()},
    }


def analyse(
    source: Source,
    *,
    profile: str = "nat",
    layer: str = "outer",
    tunnels: Iterable[str] = (),
    recall: float = 0.999,
    reach: int = MAX_WINDOW,
    workers: int = 1,
    backend: str = "cpu",
    device: Device | None = None,
    warn: Callable[[str], None] | None = None,
    progress: Callable[[CaptureReader], None] | None = None,
) -> dict[str, Any]:
    """Analyses a capture; the module's head has the rule.

    Returns a report that JSON can hold: options, backend, frames, bytes, network (by type: frames, distance
    and delay quantiles in frames and ns), legitimate (by reason and by class), histograms (distance in
    frames, delay in ns), window (see ``recommend``; None where nothing is to be removed),
    not_understood (see NotUnderstood.as_dict), refused (frames that no host takes), fractions_beyond (see
    CaptureReader), truncated, damage.
    Raises ConfigError, InputError; DamagedCaptureError, with the report, where the capture is damaged inside.
    """
    if not 0 < recall <= 1:
        raise ConfigError(
            f"a recall of {recall} is not possible: give a share above 0, at most 1, e.g. 0.999"
        )
    tunnels = tuple(tunnels)
    repeats, facts = read_repeats(
        source,
        profile=profile,
        layer=layer,
        tunnels=tunnels,
        reach=reach,
        workers=workers,
        backend=backend,
        device=device,
        warn=warn,
        progress=progress,
    )
    network = repeats.fate == NETWORK
    apart = np.abs(repeats.delay_ns)
    by_type = {}
    for name, code in PROFILES.items():
        chosen = network & (repeats.type == code)
        by_type[name] = {
            "frames": int(chosen.sum()),
            "distance": quantiles(repeats.distance[chosen]),
            "delay_ns": quantiles(repeats.delay_ns[chosen]),
        }
    counts = {name: int((~network & (repeats.class_code == code)).sum()) for name, code in CLASSES.items()}
    damage = facts["damage"]
    report = {
        "options": {
            "profile": profile,
            "layer": layer,
            "tunnels": list(tunnels),
            "recall": recall,
            "reach": reach,
            "late_ns": LATE_NS,
        },
        "backend": facts["backend"],
        "frames": facts["frames"],
        "bytes": facts["bytes"],
        "repeats": len(repeats),
        "network": {"frames": int(network.sum()), "by_type": by_type},
        "legitimate": {
            "frames": int((~network).sum()),
            "by_reason": {name: int((repeats.fate == fate).sum()) for fate, name in REASONS.items()},
            "by_class": {name: n for name, n in counts.items() if n},
        },
        "histograms": {
            "distance": histogram(repeats, repeats.distance, DISTANCE_EDGES),
            "delay_ns": histogram(repeats, apart, DELAY_EDGES),
        },
        "window": recommend(repeats, recall),
        "not_understood": facts["not_understood"],
        "refused": facts["refused"],
        "fractions_beyond": facts["fractions_beyond"],
        "truncated": facts["truncated"],
        "damage": None if damage is None else str(damage),
    }
    if damage is not None:
        message = f"{damage}; the {facts['frames']} frames before it are sound"
        raise DamagedCaptureError(message, report) from damage
    return report


def plot(report: dict[str, Any], path: str) -> None:
    """Draws the report's two histograms to a file (png, svg or pdf by its ending).

    Raises ConfigError where matplotlib is absent or the file's kind unknown, InputError where it cannot be
    written.
    """
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise ConfigError(
            "plots need matplotlib, which is not installed: "
            "pip install 'twinstamp[plots]', or leave --plot out"
        ) from error
    from twinstamp.units import format_ns

    figure, panels = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    window = report["window"]
    for panel, key, label, limit in (
        (panels[0], "distance", "distance (frames)", window and window["count"]),
        (panels[1], "delay_ns", "delay", window and window["time_ns"]),
    ):
        data = report["histograms"][key]
        edges = data["from"]
        shown = [name for name in (*PROFILES, "legitimate") if any(data[name])]
        used = [i for i in range(len(edges)) if any(data[name][i] for name in shown)]
        low, high = (used[0], used[-1]) if used else (0, 0)
        floor = np.zeros(high - low + 1)
        for name in shown:
            heights = np.array(data[name][low : high + 1])
            colour = "0.75" if name == "legitimate" else None
            panel.bar(range(low, high + 1), heights, bottom=floor, label=name, width=0.9, color=colour)
            floor += heights
        names = [str(e) if key == "distance" else format_ns(e) for e in edges]
        panel.set_xticks(range(low, high + 1), names[low : high + 1], rotation=60, ha="right", fontsize=7)
        if limit is not None:
            at = int(np.searchsorted(np.array(edges), limit, side="right")) - 1
            panel.axvline(at + 0.5, color="black", linestyle="--", linewidth=1, label="recommended window")
        panel.set_xlabel(f"{label}, from")
        panel.set_ylabel("frames")
        if shown:
            panel.set_yscale("symlog", linthresh=1)
            panel.set_ylim(0, 2 * floor.max())  # room above the highest bar
            panel.legend(fontsize=8)
    figure.suptitle(f"Repeats under {report['options']['profile']}, layer {report['options']['layer']}")
    try:
        figure.savefig(path)
    except ValueError as error:
        raise ConfigError(f"{path}: {error}; name it .png, .svg or .pdf") from error
    except OSError as error:
        raise ConfigError(
            f"{path}: the plot cannot be written: {error.strerror}; give another place"
        ) from error
    finally:
        pyplot.close(figure)
