# SPDX-License-Identifier: Apache-2.0
"""Counters of one moment: taken by the loop, read by whoever wants (view, report, control socket)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from twinstamp.appliance.hub import Hub
from twinstamp.appliance.pipeline import Pipeline
from twinstamp.appliance.sources import Source, by_name


@dataclass(frozen=True, kw_only=True)
class ServerCounters:
    """What went to a server. Frames and bytes as received; flows: an estimate; rates since the start."""

    frames: int
    bytes: int
    send_errors: int
    causes: Mapping[str, int]
    flows: int
    alive: bool
    frames_per_s: float
    bits_per_s: float


@dataclass(frozen=True, kw_only=True)
class StageCounters:
    """What a stage of the user's own has seen. lost: frames that it did not get; error: why it stopped."""

    frames: int
    bytes: int
    lost: int
    error: str | None
    counters: Mapping[str, int | float | str]


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All counters of one moment; nobody changes it.

    taken_s: of time.monotonic(). seconds: since the start. ledger, duplicates, not_understood, backend,
    added_delay_ns, sources, hub: as in the report (docs/appliance.md). events: how many there were.
    """

    taken_s: float
    seconds: float
    ledger: Mapping[str, Any]
    duplicates: Mapping[str, Any]
    not_understood: Mapping[str, Any]
    backend: Mapping[str, Any]
    servers: Mapping[str, ServerCounters]
    added_delay_ns: Mapping[str, int] | None
    sources: Mapping[str, Mapping[str, Any]]
    hub: Mapping[str, Any] | None
    stages: Mapping[str, StageCounters]
    events: int

    def as_dict(self) -> dict[str, Any]:
        """The part that the report has too, under the report's keys."""
        names = (
            "seconds",
            "ledger",
            "duplicates",
            "not_understood",
            "backend",
            "added_delay_ns",
            "sources",
            "hub",
        )
        return {
            **{name: getattr(self, name) for name in names},
            "stages": {name: asdict(stage) for name, stage in self.stages.items()},
            "servers": {name: asdict(server) for name, server in self.servers.items()},
        }


def take_snapshot(pipeline: Pipeline, sources: Sequence[Source], *, started_s: float) -> Snapshot:
    """Counters of now, in the loop's thread. started_s: of time.monotonic()."""
    found = by_name(sources)
    pipeline.ledger.dropped_before = sum(source.dropped for source in found.values())
    now = time.monotonic()  # the wall clock may be set meanwhile
    seconds = max(now - started_s, 1e-9)
    delay = pipeline.added_delay
    return Snapshot(
        taken_s=now,
        seconds=round(seconds, 3),
        ledger=pipeline.ledger.as_dict(),
        duplicates=_duplicates(pipeline),
        not_understood=pipeline.classifier.not_understood.as_dict(),
        backend={
            "duplicates": None if pipeline.deduplicator is None else pipeline.deduplicator.backend(),
            "rules": pipeline.classifier.backend(),
        },
        servers={
            server.name: ServerCounters(
                frames=server.frames,
                bytes=server.bytes,
                send_errors=server.failed,
                causes=dict(server.output.causes),
                flows=server.flows.estimate(),
                alive=server.alive,
                frames_per_s=round(server.frames / seconds, 1),
                bits_per_s=round(8 * server.bytes / seconds, 1),
            )
            for server in (*pipeline.servers, *pipeline.retired)
        },
        added_delay_ns={
            "p50": delay.quantile(0.5),
            "p90": delay.quantile(0.9),
            "p99": delay.quantile(0.99),
            "p999": delay.quantile(0.999),
            "max": delay.maximum,
        }
        if any(source.live for source in sources)
        else None,
        sources={name: source.counters() for name, source in found.items()},
        hub=None if pipeline.hub is None else pipeline.hub.as_dict(),
        stages={} if pipeline.hub is None else _stages(pipeline.hub),
        events=len(pipeline.events) + pipeline.events.left_out,
    )


def _stages(hub: Hub) -> dict[str, StageCounters]:
    found = {}
    for reader in hub.readers:
        if reader.whole:
            counters, done, refused = hub.now(reader)
            found[reader.name.removeprefix("stage ")] = StageCounters(
                frames=done.frames,
                bytes=done.bytes,
                lost=refused.frames,
                error=None if reader.error is None else str(reader.error),
                counters=counters,
            )
    return found


def _duplicates(pipeline: Pipeline) -> dict[str, Any]:
    if pipeline.deduplicator is None:
        return {
            "by_type": {},
            "kept_by_class": {},
            "guarded": {},
            "limit_reached": 0,
            "not_understood": None,
            "refused": 0,
        }
    statistics = pipeline.deduplicator.statistics()
    return {
        "by_type": statistics["by_type"],
        "kept_by_class": statistics["kept"],
        "guarded": statistics["guarded"],
        "limit_reached": statistics["limit_reached"],
        "not_understood": statistics["not_understood"],
        "refused": statistics["refused"],
        "memory_bytes": statistics["memory_bytes"],
    }


def make_report(
    snapshot: Snapshot, pipeline: Pipeline, *, reorder: Mapping[str, int], memory_bytes: Mapping[str, int]
) -> dict[str, Any]:
    """The whole report (docs/appliance.md lists its keys); reorder: MergeStatistics as a dict."""
    report: dict[str, Any] = {"version": 1, **snapshot.as_dict()}
    report["reorder"] = dict(reorder)
    hits = pipeline.rule_hits
    report["rules"] = {
        "count": len(hits) - 1,
        "no_match": int(hits[-1]),
        "hits": {str(number): int(count) for number, count in enumerate(hits[:-1]) if count},
    }
    counts = pipeline.counts()
    report["fragments"] = {key: value for key, value in counts.items() if key.startswith("fragments_")}
    report["icmp_followed"] = counts.get("icmp_followed", 0)
    report["memory_bytes"] = {
        **memory_bytes,
        "window": report["duplicates"].get("memory_bytes", 0),
        "rules": pipeline.classifier.table_bytes,
        "servers": sum(server.memory_bytes for server in (*pipeline.servers, *pipeline.retired)),
    }
    report["events"] = pipeline.events.told()
    return report
