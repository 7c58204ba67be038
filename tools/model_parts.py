# SPDX-License-Identifier: Apache-2.0
"""What hdl/sim has to know about the Verilated model beyond its ports: python tools/model_parts.py FOLDER.

Run by tools/verilate.sh; of what Verilator makes and does not hand out.

model_parts.h, for hdl/sim/warp.cpp: which members may change while the card is idle. Clocks, late inputs and
Verilator's own; card time (WARP_TIME) and what follows it; timers of polls (WARP_POLL). Whatever else changes
keeps the simulation from warping. A comparison with card time must be named here, as the signed difference
(WARP_DUE: a warp ends before its sign changes) or as the time that card time, 32.32, is compared with
(WARP_TARGET: a warp ends before card time reaches it).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

PREFIX = "Vtwinstamp_card"
ROOT = f"{PREFIX}___024root"
FREE = (
    r"^__V(trigprevexpr|act|nba|ico|stl)|"
    r"(^|__)(clk_i|clk_reg_i|aux_clk_i|rx_clk_i|tx_clk_i|late_i|wlate_i|rlate_i|now_q72_o|now_q32|now_q32_i|now_half_i|now_fraction|now_fraction_i|"
    r"next_q32|next_q32_o|lead_q32_q|lead_q32_i|next_q64|next_q64_i|soon_q|soon_q64|soon_q64_i|before_q64|before_q64_i)$|"
    r"u_train_time__DOT__(next|before)_q$|u_mac__DOT__left_q$|u_clock__DOT__adding_q$"
)


def die(what: str) -> None:
    sys.exit(f"tools/model_parts.py: {what}")


def body(text: str, signature: str) -> str:
    start = text.find(f"{signature} {{")
    if start < 0:
        die(f"no {signature}")
    return text[start : text.index("\n}\n", start) + 3]


def instances(folder: Path) -> list[tuple[str, str]]:
    """(class, member of the symbol table) of everything that holds state."""
    text = (folder / f"{PREFIX}__Syms.h").read_text()
    state = text[text.index("// MODULE INSTANCE STATE") :]
    state = state[: state.index("\n\n")]
    return re.findall(rf"^\s*({PREFIX}_\w+)\s+(\w+);", state, re.M)


def members(folder: Path, name: str) -> set[str]:
    text = (folder / f"{name}.h").read_text()
    if "// DESIGN SPECIFIC STATE" not in text:
        return set()  # functions of picorv32 at file level, and of the language: no state
    text = text[text.index("// DESIGN SPECIFIC STATE") : text.index("// INTERNAL VARIABLES")]
    ports = re.findall(r"VL_(?:IN|OUT|INOUT)\w*\(\(?&?(\w+)", text)
    return set(re.findall(r"(\w+)(?:\[\d+\])*;", text)) | set(ports)


def warp(folder: Path) -> str:
    lines = []
    counts = dict.fromkeys(("WARP_FREE", "WARP_TIME", "WARP_DUE", "WARP_TARGET", "WARP_POLL"), 0)

    def put(kind: str, *names: str) -> None:
        counts[kind] += 1
        lines.append(f"{kind}({', '.join(names)})")

    lines.append("#ifdef MODEL_INSTANCE")
    where = instances(folder)
    lines += [f"MODEL_INSTANCE({name})" for _, name in where]
    lines.append("#endif")
    lines.append("#ifdef WARP_FREE")
    for kind, name in where:
        have = members(folder, kind)
        for member in sorted(have):
            plain = member.removeprefix("__PVT__")
            full = f"{name}.{member}"
            if re.search(FREE, plain):
                put("WARP_FREE", full)
            elif re.search(r"u_clock__DOT__(now|next)_q$", plain):
                put("WARP_TIME", full)
            elif re.search(r"(^|u_tx__DOT__)due$", plain):
                put("WARP_DUE", full)
            elif re.search(r"(^|__)head_q32(_[io])?$", plain):
                put("WARP_TARGET", full)
            elif re.search(r"(^|u_link__DOT__)timer_q$", plain):
                put("WARP_POLL", full, f"{name}.poll_i")
            elif plain.endswith("hwif_in"):
                put("WARP_FREE", f"{full}.__PVT__clock.__PVT__now")
    lines.append("#endif")
    for kind, least in (
        ("WARP_FREE", 20),
        ("WARP_TIME", 2),
        ("WARP_DUE", 4),
        ("WARP_TARGET", 4),
        ("WARP_POLL", 4),
    ):
        if counts[kind] < least:
            die(f"{counts[kind]} members for {kind}, not {least}: say what warp has to know about the model")
    return "\n".join(lines)


def main() -> None:
    folder = Path(sys.argv[1])
    head = "// Made by tools/model_parts.py.\n"
    (folder / "model_parts.h").write_text(head + warp(folder) + "\n")


if __name__ == "__main__":
    main()
