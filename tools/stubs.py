# SPDX-License-Identifier: Apache-2.0
"""Types of the compiled modules, for mypy and editors: python tools/stubs.py [--check]

nanobind's stubgen knows names, arguments and their order, and the element type of each array; what comes back
as a tuple or an object of Python's stands in RESULTS below. --check: says what differs from the files.
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from nanobind.stubgen import StubGen

ROOT = Path(__file__).parent.parent
MODULES = {
    "twinstamp._native": ROOT / "host/twinstamp/_native.pyi",
    "twinstamp_kernels._cpu": ROOT / "gpu_kernels/twinstamp_kernels/_cpu.pyi",
}
HEAD = """# SPDX-License-Identifier: Apache-2.0
# Made by tools/stubs.py from {module}; its RESULTS have the types of what comes back.
# An array may be anything with the buffer protocol. NumPy's stubs name that protocol for Python 3.12 only, so
# NumPy's own arrays stand beside it, with the element type that is asked for.
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

"""
WIDTHS = ("uint8", "uint16", "uint32", "uint64", "int32", "int64")

_VIEWS = "tuple[{}]".format(", ".join(["memoryview"] * 6))
_COLUMNS = "tuple[memoryview, ...]"
_JUDGED = "tuple[memoryview, memoryview, memoryview, memoryview]"
# Name of a function, a method or a constant → type of its result, where stubgen says `object`, `tuple`, …
RESULTS = {
    "CardRing.read": f"tuple[{_COLUMNS}, CardLease, int, bool, int, int, int] | None",
    "CardRing.departures": "memoryview",
    "CardRing.drops": "tuple[int, int, int, int]",
    "StampedSender.departures": "tuple[Any, Any, Any]",
    "record_read": "bytes | None",
    "tap_write": "tuple[int, int]",
    "tap_read": "tuple[int, int]",
    "CaptureReader.read": f"tuple[{_COLUMNS}, Lease, int, tuple[memoryview, memoryview] | None, bool] | None",
    "CaptureReader.interfaces": "list[tuple[bytes, int, int, bool, int]]",
    "PacketRing.poll": f"tuple[{_COLUMNS}, BlockLease] | None",
    "PacketRing.statistics": "tuple[int, int, int]",
    "PacketOutput.send": "tuple[int, int, int, int, int, int, int, int, int, int]",
    "FrameStore.put": f"tuple[{_COLUMNS}, ArenaLease] | None",
    "Merger.take": f"tuple[{_COLUMNS}, ArenaLease] | None",
    "Merger.statistics": "tuple[int, int, int, int, int, int, int, int, int, int]",
    "frame_extent": "tuple[int, int, int]",
    "frame_keys": "tuple[memoryview, memoryview, memoryview]",
    "frame_digests": "tuple[memoryview | None, memoryview | None, memoryview | None, memoryview | None, "
    "memoryview | None]",
    "count_not_understood": "list[tuple[int, int]]",
    "digest": "tuple[int, int]",
    "Classifier.process": _VIEWS,
    "Classifier.finish": _JUDGED,
    "Classifier.share": _VIEWS,
    "Classifier.export_tables": "tuple[memoryview, bytes]",
    "Classifier.export_actions": "dict[str, Any]",
    "Classifier.take_released": f"tuple[{_COLUMNS}, memoryview, {_VIEWS}] | None",
    "Classifier.counts": "dict[str, Any]",
    "Window.process": _JUDGED,
    "Window.process_keys": _JUDGED,
    "Window.statistics": "dict[str, Any]",
    "WindowStatistics.as_dict": "dict[str, Any]",
    "PROFILES": "dict[str, int]",
    "LAYERS": "dict[str, int]",
    "CLASSES": "dict[str, int]",
    "GUARDS": "dict[str, int]",
}


def stub(module: str) -> str:
    """The stub of a compiled module."""
    generator = StubGen(import_module(module), include_docstrings=False)
    generator.put(generator.module)
    text = generator.get()
    text = text[text.index("\n\n\n") if "\n\n\n" in text else 0 :]
    # Element types stay; shape, order and device are checked when the function is called.
    text = re.sub(
        r"Annotated\[NDArray\[numpy\.(\w+)\], dict\([^()]*(?:\([^()]*\)[^()]*)*\)\]",
        lambda found: f"_{found[1].title().replace('Uint', 'UInt')}s",
        text,
    )
    text = re.sub(r"Annotated\[memoryview, dict\([^()]*(?:\([^()]*\)[^()]*)*\)\]", "memoryview", text)
    owner, out = "", []
    for line in text.splitlines():
        if found := re.match(r"class (\w+)", line):
            owner = found[1] + "."
        elif line and not line.startswith(" "):
            owner = ""
        if found := re.match(r"( *)def (\w+)\((.*)\) -> (.*?):( \.\.\.)?$", line):
            name = owner + found[2]
            result = found[4]
            if name in RESULTS:
                result = RESULTS[name]
            line = f"{found[1]}def {found[2]}({found[3]}) -> {result}:{found[5] or ''}"
        elif found := re.match(r"(\w+): (\w+) = .*", line):
            line = f"{found[1]}: {RESULTS.get(found[1], found[2])}"
        out.append(line)
    body = "\n".join(out)
    aliases = "".join(
        f"_{width.title().replace('Uint', 'UInt')}s = Buffer | npt.NDArray[np.{width}]\n"
        for width in WIDTHS
        if f"_{width.title().replace('Uint', 'UInt')}s" in body
    )
    whole = HEAD.format(module=module) + aliases + body
    command = [sys.executable, "-m", "ruff"]
    for arguments in (["check", "--fix-only", "-q", "--select", "F401,I"], ["format", "-q"]):
        where = ["--stdin-filename", str(MODULES[module]), "-"]
        done = subprocess.run(
            [*command, *arguments, *where], input=whole, capture_output=True, text=True, check=True, cwd=ROOT
        )
        whole = done.stdout
    return whole


def main() -> int:
    check = "--check" in sys.argv[1:]
    status = 0
    for module, path in MODULES.items():
        text = stub(module)
        if not check:
            path.write_text(text)
        elif path.read_text() != text:
            sys.stderr.write(
                f"{path.relative_to(ROOT)}: is not that of {module}: run python tools/stubs.py\n"
            )
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
