# SPDX-License-Identifier: Apache-2.0
"""The servo as the soft core gets it: size, stack, no floating point, no heap, no globals."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SERVO = Path(__file__).resolve().parents[2] / "firmware" / "servo"
TOOLS = "riscv64-unknown-elf-"
# Of libgcc, integers of 64 bits only.
ALLOWED = {"__divdi3", "__udivdi3", "__moddi3", "__umoddi3", "__muldi3", "__ashldi3", "__lshrdi3", "__ashrdi3",
           "__clzsi2", "memcpy", "memmove", "memset"}  # fmt: skip


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    if shutil.which(TOOLS + "gcc") is None:
        pytest.skip("NO RISC-V COMPILER: Debian package gcc-riscv64-unknown-elf (and picolibc-riscv64-unknown-elf)")
    folder = tmp_path_factory.mktemp("servo32")
    for source in sorted(SERVO.glob("*.c")):
        subprocess.run(
            [TOOLS + "gcc", "--specs=picolibc.specs", "-std=c11", "-march=rv32im", "-mabi=ilp32", "-Os",
             "-fstack-usage", "-Wall", "-Wextra", "-Werror", "-c", source, "-o", folder / f"{source.stem}.o"],
            check=True, cwd=folder,
        )  # fmt: skip
    return folder


def run(*words):
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def test_size(objects):
    text = data = bss = 0
    for line in run(TOOLS + "size", *objects.glob("*.o")).splitlines()[1:]:
        sizes = [int(word) for word in line.split()[:3]]
        text, data, bss = text + sizes[0], data + sizes[1], bss + sizes[2]
    print(f"text {text}")
    assert text < 24_000
    assert data == bss == 0  # no globals


def test_nothing_from_outside_but_integer_arithmetic(objects):
    undefined, defined = set(), set()
    for line in run(TOOLS + "nm", *objects.glob("*.o")).splitlines():
        words = line.split()
        if len(words) >= 2:
            (undefined if words[-2] == "U" else defined).add(words[-1])
    assert undefined - defined <= ALLOWED


def test_stack(objects):
    """Sum over the deepest chain of calls cannot exceed the sum of all frames of one file, each taken once."""
    frames = {}
    for file in objects.glob("*.su"):
        for line in file.read_text().splitlines():
            place, size, kind = line.split("\t")
            assert kind == "static"
            frames[place.rsplit(":", 1)[1]] = int(size)
    deepest = depth_of(objects, frames)
    print(f"stack {deepest} bytes, largest frame {max(frames.items(), key=lambda item: item[1])}")
    assert deepest < 2048


def depth_of(objects, frames):
    """Deepest stack from servo_step, by the calls in the machine code; a cycle would be recursion."""
    calls: dict[str, set[str]] = {}
    for file in objects.glob("*.o"):
        name = ""
        for line in run(TOOLS + "objdump", "-dr", file).splitlines():
            if found := re.match(r"[0-9a-f]+ <(.+)>:", line):
                name = found[1]
                calls.setdefault(name, set())
            elif found := re.search(r"R_RISCV_(?:CALL\w*|JAL)\s+([\w.]+)", line):
                calls[name].add(found[1])

    def depth(name, above):
        assert name not in above, f"recursion through {name}"
        below = [depth(other, (*above, name)) for other in calls.get(name, ()) if other != name]
        return frames.get(name.split(".")[0], frames.get(name, 64 if name in ALLOWED else 0)) + max(below, default=0)

    return depth("servo_step", ())


def test_source_has_no_floating_point_and_no_heap():
    for source in (*SERVO.glob("*.c"), *SERVO.glob("*.h")):
        text = re.sub(r"//.*", "", source.read_text())
        assert not re.search(r"\b(float|double|malloc|calloc|free|__int128)\b", text), source
