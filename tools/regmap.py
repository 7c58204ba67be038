# SPDX-License-Identifier: Apache-2.0
"""Makes what `make regs` checks in from hdl/regs/twinstamp_card.rdl: python tools/regmap.py OUTPUT_FOLDER

PeakRDL makes the SystemVerilog block, the C header and the reference page; the Python access is a table
made here from the same elaborated model (docs/decisions/0050-registers.md says why not PeakRDL-python).
OUTPUT_FOLDER gets the same tree as the repository: comparing the two shows a stale or edited file.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from systemrdl import RDLCompiler
from systemrdl.node import AddrmapNode, FieldNode, MemNode, Node, RegNode

ROOT = Path(__file__).resolve().parent.parent
SOURCE = "hdl/regs/twinstamp_card.rdl"
SPDX = "SPDX-License-Identifier: Apache-2.0"
FILES = (
    "hdl/regs/generated/card_regs.sv",
    "hdl/regs/generated/card_regs_pkg.sv",
    "hdl/regs/generated/twinstamp_card_regs.h",
    "docs/registers.md",
    "host/twinstamp/card/regmap.py",
    "hdl/regs/generated/twinstamp_regs.h",
    "hdl/regs/generated/card_wide_pkg.sv",
)

# Properties of memories that the driver needs.
LAYOUTS = ("digest_nh_words", "digest_limbs_at", "digest_limb_words")

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


def elaborated() -> AddrmapNode:
    """The card's register map."""
    compiler = RDLCompiler()
    compiler.compile_file(str(ROOT / SOURCE))
    return compiler.elaborate().top


def table(output: Path) -> None:
    """Writes the Python table of all registers and memories."""
    top = elaborated()
    registers: list[str] = []
    memories: list[str] = []
    layouts: list[str] = []

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
                layouts.extend(
                    f"{layout.upper()} = {child.get_property(layout)}\n"
                    for layout in LAYOUTS
                    if child.get_property(layout) is not None
                )
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
    text += "".join(memories) + "}\n\n# Parts of a memory, in words.\n" + "".join(layouts)
    (output / FILES[4]).parent.mkdir(parents=True, exist_ok=True)
    (output / FILES[4]).write_text(text)


C_HEAD = f"""// {SPDX}
// Offsets and masks of the card's registers for the firmware, made by `make regs` from {SOURCE}: do not edit.
// Plain words: PeakRDL's own header has packed structures, which the core would read byte by byte.
#ifndef TWINSTAMP_REGS_H
#define TWINSTAMP_REGS_H

"""


def header(output: Path) -> None:
    """Writes the C header of offsets and masks; of the ports' registers, those of port 0."""
    top = elaborated()
    lines: list[str] = []

    def walk(node: Node, path: str) -> None:
        for child in node.children(unroll=False):
            name = f"{path}_{child.inst_name}".upper()
            offset = child.raw_absolute_address
            if isinstance(child, RegNode):
                lines.append(f"#define {name} 0x{offset:05X}u\n")
                for f in child.fields():
                    if f.width < child.get_property("regwidth") and f.high < 32:
                        mask = ((1 << f.width) - 1) << f.low
                        lines.append(f"#define {name}_{f.inst_name.upper()} 0x{mask:08X}u\n")
                        if f.width > 1 and f.low > 0:
                            lines.append(f"#define {name}_{f.inst_name.upper()}_SHIFT {f.low}u\n")
            elif not isinstance(child, FieldNode | MemNode):
                walk(child, name)

    walk(top, "CARD")
    (output / FILES[5]).write_text(C_HEAD + "".join(lines) + "\n#endif\n")


def wide(folder: Path) -> None:
    """Writes card_wide_pkg.sv: the addresses of all registers of 64 bits, for bus_arbiter."""
    addresses = [
        node.absolute_address
        for node in elaborated().descendants(unroll=True)
        if isinstance(node, RegNode) and node.get_property("regwidth") == 64
    ]
    if any(address % 8 for address in addresses):
        sys.exit(f"{SOURCE}: a register of 64 bits begins at a multiple of 8")
    listed = ", ".join(f"17'h{address:05X}" for address in addresses)
    (folder / "card_wide_pkg.sv").write_text(
        f"""// {SPDX}
// Byte addresses of the registers of 64 bits, made by `make regs` from {SOURCE}: do not edit.
package card_wide_pkg;
  localparam int unsigned Count = {len(addresses)};
  localparam logic [Count-1:0][16:0] Addresses = {{{listed}}};
endpackage
"""
    )


def peakrdl(*arguments: str) -> None:
    """Runs one exporter in the repository's root, so that no path of this machine gets into its output."""
    command = [sys.executable, "-m", "peakrdl", *arguments]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def block(folder: Path, ports: int) -> None:
    """Writes card_regs.sv, card_regs_pkg.sv and card_wide_pkg.sv of a card with ``ports`` ports into
    ``folder``.

    A register between PeakRDL's address decoder and everything behind it, which it has no option for: both
    together are too long a way for 125 MHz on an ECP5. bus_arbiter makes one access at a time, so nothing can
    come between a request and its delayed decoding.
    """
    folder.mkdir(parents=True, exist_ok=True)
    peakrdl("regblock", SOURCE, "-D", f"CARD_PORTS={ports}", "-o", str(folder), "--cpuif", "axi4-lite-flat",
            "--module-name", "card_regs", "--package-name", "card_regs_pkg", "--default-reset", "arst_n",
            "--rt-read-fanin", "--rt-read-response")  # fmt: skip
    wide(folder)
    path = folder / "card_regs.sv"
    text = path.read_text()

    def change(pattern: str, new: str, least: int = 1) -> None:
        nonlocal text
        text, n = re.subn(pattern, new, text, flags=re.M)
        if n < least:
            sys.exit(f"tools/regmap.py: {path.name} of this PeakRDL has no {pattern!r}")

    change(r"^(\s+decoded_reg_strb_t decoded_reg_strb);", r"\1, decode_reg_strb;")
    change(r"^(\s+logic decoded_req_is_external);", r"\1, decode_is_external;")
    change(r"^(\s+)decoded_reg_strb\.(\S+) = cpuif", r"\1decode_reg_strb.\2 = cpuif", 100)
    change(r"^(\s+)decoded_req_is_external = is_external;", r"\1decode_is_external = is_external;")
    change(
        r"^    // Pass down signals to next stage\n(?:    assign decoded_\w+ = \w+;\n){5}",
        """    // Pass down signals to next stage, a cycle later. No reset: no request comes in reset.
    always_ff @(posedge clk) begin
        decoded_reg_strb <= decode_reg_strb;
        decoded_req_is_external <= decode_is_external;
        if (cpuif_req_masked) decoded_addr <= cpuif_addr;
        decoded_req <= cpuif_req_masked;
        decoded_req_is_wr <= cpuif_req_is_wr;
        decoded_wr_data <= cpuif_wr_data;
        decoded_wr_biten <= cpuif_wr_biten;
    end
""",
    )
    # It stands until the next request: no need to choose between it and a copy.
    change(
        r"assign rd_mux_addr = decoded_req \? decoded_addr : pending_rd_addr;",
        "assign rd_mux_addr = decoded_addr;",
    )
    change(
        r"^    logic \[16:0\] pending_rd_addr;\n(?:.*\n)*?(?=    assign rd_mux_addr)",
        "    // Stands still throughout any external access.\n",
    )
    path.write_text(text)


def main(output: Path) -> None:
    """Makes all files under ``output``."""
    for name in FILES:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
    block(output / "hdl/regs/generated", 4)
    peakrdl("c-header", SOURCE, "-o", str(output / FILES[2]), "--bitfields", "ltoh", "-x")
    peakrdl("markdown", SOURCE, "-o", str(output / FILES[3]))
    for name in FILES[:3]:
        path = output / name
        path.write_text(f"// {SPDX}\n" + path.read_text())
    page = output / FILES[3]
    page.write_text(f"<!-- {SPDX} -->\n" + page.read_text())
    table(output)
    header(output)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
