# SPDX-License-Identifier: Apache-2.0
"""The firmware's parser and its naming of seconds, compiled with sanitizers, a line at a time."""

from __future__ import annotations

import subprocess
from pathlib import Path

from twinstamp.card.firmware import RECEIVER_COUNTS

ROOT = Path(__file__).resolve().parents[2]


class Driver:
    """The compiled tests/firmware/receiver_driver.c. counters: after the last ``take`` or ``silence``."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.counters: dict[str, int] = {}
        self.deepest = 0

    def say(self, line: str, answers: int | None = 1) -> list[str]:
        """Answers of one line; None: all until the counters that are asked for next."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(line + "\n")
        if answers is None:
            self._process.stdin.write("C\n")
        self._process.stdin.flush()
        lines: list[str] = []
        while answers is None or len(lines) < answers:
            got = self._process.stdout.readline()
            assert got, self._process.stderr.read() if self._process.stderr else "no answer"
            if answers is None and got.split()[0].isdigit():
                *counts, self.deepest = (int(x) for x in got.split())
                self.counters = dict(zip(RECEIVER_COUNTS, counts, strict=True))
                return lines
            lines.append(got.rstrip("\n"))
        return lines

    def take(self, data: bytes) -> list[str]:
        """What the parser says to bytes."""
        out = []
        for at in range(0, max(len(data), 1), 16_000):
            out += self.say(f"B {data[at : at + 16_000].hex()}", None)
        return out

    def silence(self) -> list[str]:
        """What it says when the line is silent."""
        return self.say("S", None)

    def restart(self) -> None:
        """Parser, names and counters as at the start."""
        self.say("R", 0)

    @property
    def counted(self) -> dict[str, int]:
        """The counters that are not 0."""
        return {name: count for name, count in self.counters.items() if count}

    def pulse(self, q32: int) -> None:
        self.say(f"P {q32}", 0)

    def name(self) -> tuple[int, ...]:
        """flags, tai_s, qerr_ps, accuracy_ns, utc_offset_s, utc_known"""
        return tuple(int(x) for x in self.say("N")[0].split())

    def close(self) -> None:
        assert self._process.stdin and self._process.stderr
        self._process.stdin.close()
        errors = self._process.stderr.read()
        assert self._process.wait() == 0 and not errors, errors


def compiled(folder: Path) -> Path:
    """The driver's program, built in ``folder``."""
    out = folder / "receiver"
    sources = ["tests/firmware/receiver_driver.c", "firmware/drivers/receiver.c", "firmware/drivers/second.c"]
    subprocess.run(
        ["gcc", "-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined",
         "-fno-sanitize-recover=all", "-Ifirmware/drivers", *sources, "-o", str(out)],
        check=True, cwd=ROOT,
    )  # fmt: skip
    return out
