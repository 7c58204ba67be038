# SPDX-License-Identifier: Apache-2.0
"""What can be read out of the firmware's ELF file: sections, symbols, the deepest stack of a call chain."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ELF = ROOT / "build" / "firmware" / "twinstamp.elf"
# The parser picks one of these by a pointer.
POINTED_AT = ("take_pvt", "take_tp", "take_leap")


@dataclass
class Function:
    """frame: bytes it takes from the stack. calls: names, tail calls too. indirect: it calls by a pointer."""

    frame: int = 0
    calls: set[str] = field(default_factory=set)
    indirect: bool = False


def tool(name: str, *arguments: str) -> str:
    command = [f"riscv64-unknown-elf-{name}", *arguments, str(ELF)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def sections() -> dict[str, int]:
    """Bytes by section."""
    found = re.findall(r"^\s*\d+\s+(\.\w+)\s+([0-9a-f]{8})", tool("objdump", "-h"), re.M)
    return {name: int(size, 16) for name, size in found}


def symbols() -> dict[str, int]:
    """Addresses by name."""
    return {line.split()[2]: int(line.split()[0], 16) for line in tool("nm").splitlines()}


def functions() -> dict[str, Function]:
    """Frames and calls as the instructions say."""
    out: dict[str, Function] = {}
    function = Function()
    for line in tool("objdump", "-d", "--no-show-raw-insn").splitlines():
        if start := re.match(r"[0-9a-f]+ <([\w.]+)>:", line):
            function = out.setdefault(start[1], Function())
        elif grow := re.search(r"\taddi?\tsp,sp,-(\d+)", line):
            function.frame += int(grow[1])
        elif call := re.search(r"\t(?:jal|j|call|tail|jalr)\t.*<([\w.]+)>", line):
            function.calls.add(call[1])
        elif re.search(r"\tjalr\t(?!zero)", line) and "#" not in line:
            function.indirect = True
        elif re.search(r"\taddi?\tsp,sp,t|\tsub\tsp", line):
            raise AssertionError(f"a stack frame that no constant says: {line}")
    return out


def deepest(
    name: str, known: dict[str, Function], chain: tuple[str, ...] = ()
) -> tuple[int, tuple[str, ...]]:
    """Bytes of the deepest chain of calls from ``name``, and the chain. AssertionError for recursion."""
    assert name not in chain, f"recursion: {chain} {name}"
    function = known[name]
    calls = {call for call in function.calls if call in known and call != name}
    if function.indirect:
        calls |= {pointed for pointed in POINTED_AT if pointed in known}
    below = [deepest(call, known, (*chain, name)) for call in sorted(calls)]
    bytes_below, path = max(below, default=(0, ()))
    return function.frame + bytes_below, (name, *path)
