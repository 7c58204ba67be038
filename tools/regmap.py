# SPDX-License-Identifier: Apache-2.0
"""Makes what `make regs` checks in from hdl/regs/twinstamp_card.rdl: python tools/regmap.py OUTPUT_FOLDER

PeakRDL makes the SystemVerilog block, the C header and the reference page; the Python access is a table
made here from the same elaborated model (docs/decisions/0050-registers.md says why not PeakRDL-python).
OUTPUT_FOLDER gets the same tree as the repository: comparing the two shows a stale or edited file.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from systemrdl import RDLCompiler
from systemrdl.node import FieldNode, MemNode, Node, RegNode

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "hdl/regs/twinstamp_card.rdl"
SPDX = "SPDX-License-Identifier: Apache-2.0"
FILES = (
    "hdl/regs/generated/card_regs.sv",
    "hdl/regs/generated/card_regs_pkg.sv",
    "hdl/regs/generated/twinstamp_card_regs.h",
    "docs/registers.md",
    "host/twinstamp/card/regmap.py",
)

HEAD = f'''# {SPDX}
"""The card's registers, made by `make regs` from {SOURCE}: do not edit."""

from __future__ import annotations

from typing import NamedTuple


class Field(NamedTuple):
    """low: lowest bit. width: bits. readable, writable: by software."""

    low: int
    width: int
    readable: bool
    writable: bool


class Register(NamedTuple):
    """offset: byte address. width: 32 or 64 bits (lower word first). fields: by name. reset: what the fields
    that software writes hold after reset, 0 in the others.
    """

    offset: int
    width: int
    fields: dict[str, Field]
    reset: int


'''


def table(output: Path) -> None:
    """Writes the Python table of all registers and memories."""
    compiler = RDLCompiler()
    compiler.compile_file(str(ROOT / SOURCE))
    top = compiler.elaborate().top
    registers: list[str] = []
    memories: list[str] = []

    def field(node: FieldNode) -> str:
        access = f"{node.is_sw_readable}, {node.is_sw_writable}"
        return f'"{node.inst_name}": Field({node.low}, {node.width}, {access})'

    def walk(node: Node) -> None:
        for child in node.children(unroll=True):
            name = child.get_path()[len(top.get_path()) + 1 :]
            if isinstance(child, RegNode):
                inner = ", ".join(field(f) for f in child.fields())
                place = f"0x{child.absolute_address:04X}, {child.get_property('regwidth')}"
                reset = sum(
                    (f.get_property("reset") or 0) << f.low for f in child.fields() if f.is_sw_writable
                )
                registers.append(f'    "{name}": Register({place}, {{{inner}}}, 0x{reset:X}),\n')
            elif isinstance(child, MemNode):
                memories.append(f'    "{name}": (0x{child.absolute_address:04X}, {child.size}),\n')
            else:
                walk(child)

    walk(top)
    version = next(r for r in top.find_by_path("id").registers() if r.inst_name == "version")
    magic = next(r for r in top.find_by_path("id").registers() if r.inst_name == "magic")
    reset = {f.inst_name: f.get_property("reset") for f in version.fields()}
    text = HEAD
    magic_value = next(iter(magic.fields())).get_property("reset")
    text += f"MAGIC = 0x{magic_value:08X}\nMAP_MAJOR = {reset['major']}\nMAP_MINOR = {reset['minor']}\n\n"
    text += "# fmt: off\nREGISTERS: dict[str, Register] = {\n" + "".join(registers) + "}\n# fmt: on\n\n"
    text += "# Memories: byte address, bytes.\nMEMORIES: dict[str, tuple[int, int]] = {\n"
    text += "".join(memories) + "}\n"
    (output / FILES[4]).parent.mkdir(parents=True, exist_ok=True)
    (output / FILES[4]).write_text(text)


def peakrdl(*arguments: str) -> None:
    """Runs one exporter in the repository's root, so that no path of this machine gets into its output."""
    command = [sys.executable, "-m", "peakrdl", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def main(output: Path) -> None:
    """Makes all files under ``output``."""
    for name in FILES:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
    block = output / "hdl/regs/generated"
    peakrdl("regblock", SOURCE, "-o", str(block), "--cpuif", "axi4-lite-flat", "--module-name", "card_regs",
            "--package-name", "card_regs_pkg", "--default-reset", "arst_n")  # fmt: skip
    peakrdl("c-header", SOURCE, "-o", str(output / FILES[2]), "--bitfields", "ltoh", "-x")
    peakrdl("markdown", SOURCE, "-o", str(output / FILES[3]))
    for name in FILES[:3]:
        path = output / name
        path.write_text(f"// {SPDX}\n" + path.read_text())
    page = output / FILES[3]
    page.write_text(f"<!-- {SPDX} -->\n" + page.read_text())
    table(output)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
