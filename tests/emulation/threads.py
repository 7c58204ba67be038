# SPDX-License-Identifier: Apache-2.0
"""What an EmulatedDevice ran, run again under ThreadSanitizer with a thread for each CUDA thread."""

from __future__ import annotations

import functools
import os
import platform
import re
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
PROGRAM = ROOT / "build" / "emulation_threads"
ARENA_BYTES = 16 << 30  # of a device, as in memory.h
WRITE, FILL, READ, LAUNCH = 1, 2, 3, 4


class ReplayError(RuntimeError):
    """The program could not be built or could not replay the log."""


@dataclass(frozen=True, slots=True)
class Replay:
    """races: ThreadSanitizer's reports. differing: numbers, from 0, of downloads with other contents."""

    races: list[str]
    differing: list[int]


def replay(
    log: list[tuple[Any, ...]], *, seed: int = 0, resident_blocks: int = 2, timeout_s: float = 600.0
) -> Replay:
    """Runs a log again, blocks in another order. Raises ReplayError where that cannot be done.

    log: of an EmulatedDevice, whose attribute of that name was set to [] before the work. resident_blocks:
    blocks that run at a time, 256 threads each; races are seen between those.
    """
    build()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        with path.open("wb") as file:
            for piece in _words(log):
                file.write(piece)
        # Where the kernel spreads addresses too widely for ThreadSanitizer it must not.
        command = [
            "nice",
            "setarch",
            platform.machine(),
            "-R",
            str(PROGRAM),
            str(path),
            str(seed),
            str(resident_blocks),
        ]
        options = "halt_on_error=0:exitcode=66:report_thread_leaks=0:history_size=3"
        environment = {**os.environ, "TSAN_OPTIONS": options}
        try:
            done = subprocess.run(
                command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise ReplayError(f"no end after {timeout_s} s: {error.stderr}") from error
    if done.returncode not in (0, 3, 66) or "reads: " not in done.stdout:
        raise ReplayError(f"exit status {done.returncode}: {done.stdout[-2000:]}{done.stderr[-4000:]}")
    reports = [part for part in done.stderr.split("==================") if "WARNING: ThreadSanitizer" in part]
    differing = [int(number) for number in re.findall(r"differs: read (\d+),", done.stdout)]
    if done.returncode == 66 and not reports:
        raise ReplayError(done.stderr[-4000:])
    return Replay(reports, differing)


@functools.cache
def build() -> None:
    """Builds the program, once per process. Raises ReplayError with the compiler's output."""
    done = subprocess.run(
        ["cmake", "--build", str(PROGRAM.parent), "--target", PROGRAM.name],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ReplayError(done.stdout[-8000:] + done.stderr[-2000:])


def _words(log: list[tuple[Any, ...]]) -> Iterator[bytes]:
    addresses = [entry[1] for entry in log if entry[0] == "allocate"]
    if not addresses:
        raise ReplayError("an empty log: was the device's attribute set to [] before the first allocation?")
    yield struct.pack("<Q", addresses[0] // ARENA_BYTES * ARENA_BYTES)
    for entry in log:
        kind, *rest = entry
        if kind == "allocate":
            # Contents are undefined: others than on the device before.
            yield struct.pack("<4Q", FILL, rest[0], 0xDB, rest[1])
        elif kind == "fill":
            yield struct.pack("<4Q", FILL, rest[0], rest[1] & 0xFF, rest[2])
        elif kind in ("write", "read"):
            yield struct.pack("<3Q", WRITE if kind == "write" else READ, rest[0], len(rest[1]))
            yield _padded(rest[1])
        elif kind == "launch":
            name, blocks, arguments = rest
            yield struct.pack("<4Q", LAUNCH, blocks, len(arguments), len(name)) + _padded(name.encode())
            yield struct.pack(f"<{len(arguments)}Q", *arguments)


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % 8)
