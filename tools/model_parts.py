# SPDX-License-Identifier: Apache-2.0
"""What hdl/sim has to know about the Verilated model beyond its ports: python tools/model_parts.py FOLDER.

Run by tools/verilate.sh. Two files, of what Verilator makes and does not hand out:

model_edges.h, for hdl/sim/edge.cpp: Verilator's eval() looks at all clocks, before and after. The harness
knows which clock has an edge; model_nba<TRIGGERED> is the model's own eval_nba with that as a constant. Parts
in which nothing can change are left out (SLEEPERS): their calls stand behind bits of `awake`, and
model_asleep() says for which of them the RTL's `asleep` is high.

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
    r"soon_q|soon_q64|soon_q64_i|before_q64|before_q64_i)$|u_train_time__DOT__before_q$"
)

# Modules that may be left out of an edge, and their bit; the counters have one for each port.
SLEEPERS = {"train_port": 0, "gmii_tx": 1, "gmii_loopback": 2, "phy_link": 3, "port_counters": 4}


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


def sleepers(folder: Path) -> dict[str, int]:
    """The bit of each instance that may sleep, by its member of the symbol table."""
    found = {}
    for name, bit in SLEEPERS.items():
        whose = [member for kind, member in instances(folder) if kind == f"{PREFIX}_{name}"]
        if not whose or "asleep" not in members(folder, f"{PREFIX}_{name}"):
            die(f"{name} has no `asleep`")
        found.update(
            {member: bit + (k if name == "port_counters" else 0) for k, member in enumerate(sorted(whose))}
        )
    return found


def behind_bits(code: str, bits: dict[str, int], kinds: tuple[str, ...]) -> str:
    """Calls of modules that may sleep, each behind its bit of `awake`."""
    names = "|".join(kinds)
    code, n = re.subn(
        rf"^( *)({PREFIX}_(?:{names})___\w+\(\(&vlSymsp->(\w+)\)\);)$",
        lambda m: f"{m[1]}if (awake & {1 << bits[m[3]]}u) {m[2]}",
        code,
        flags=re.M,
    )
    if n != len(re.findall(rf"\b{PREFIX}_(?:{names})___\w+\(", code)):
        die("a call of a module that may sleep looks new")
    return code


def edges(folder: Path) -> str:
    sources = sorted(folder.glob(f"{PREFIX}_*.cpp"))
    text = "\n".join(source.read_text() for source in sources)
    if f"void {ROOT}___eval_act(" in text:
        die("the model has an active region: hdl/sim/edge.cpp knows none")
    found = re.findall(r"region trigger index (\d+) is active: @\(([^\\]*)\)\\n", text)
    names = {what: int(index) for index, what in found}
    if max(names.values()) > 63:
        die("more than 64 triggers")
    bits = [names["posedge clk_i"], names["posedge clk_reg_i"], names["posedge aux_clk_i"]]
    for port in range(4):
        which = [i for what, i in names.items() if re.match(rf"posedge (?=.*rx_).*\[{port}\]", what)]
        if len(which) != 1:
            die(f"{len(which)} triggers for the receive clock of port {port}: name each once")
        bits += which
    nba = body(text, f"void {ROOT}___eval_nba({ROOT}* vlSelf)")
    nba = nba.replace("vlSelfRef.__VnbaTriggered[0U]", "TRIGGERED")
    if "__VnbaTriggered" in nba:
        die("eval_nba looks at its triggers in a new way")
    nba = nba.replace(
        f"void {ROOT}___eval_nba({ROOT}* vlSelf)",
        f"template <uint64_t TRIGGERED>\ninline void model_nba({ROOT}* vlSelf, const uint32_t awake)",
        1,
    )
    beds = sleepers(folder)
    nba = behind_bits(nba, beds, tuple(SLEEPERS))
    # From the pins to the receive MAC it goes through gmii_loopback.
    ico = body(text, f"void {ROOT}___eval_ico({ROOT}* vlSelf)")
    ico = ico.replace("vlSelfRef.__VicoTriggered[0U]", "1ULL")
    ico = ico.replace(
        f"void {ROOT}___eval_ico({ROOT}* vlSelf)",
        f"inline void model_ico({ROOT}* vlSelf, const uint32_t awake)",
        1,
    )
    ico = behind_bits(ico, beds, ("train_port", "gmii_tx", "phy_link", "port_counters"))
    events = [
        f"(syms->{member}.event_i | syms->{member}.flip_i ? {1 << bit}u : 0u)"
        for member, bit in beds.items()
        if bit >= SLEEPERS["port_counters"]
    ]
    asleep = [
        f"if (syms->{member}.asleep) bits |= {1 << bit}u;"
        if list(beds.values()).count(bit) == 1
        else f"if (!syms->{member}.asleep) bits &= ~{1 << bit}u;"
        for member, bit in beds.items()
    ]
    common = sum(1 << bit for bit in set(beds.values()) if list(beds.values()).count(bit) > 1)
    called = sorted(set(re.findall(rf"\b({PREFIX}_\w+?___\w+)\(", nba + ico)))
    lines = [f"void {name}({re.match(rf'({PREFIX}_.+?)___(?!024)', name)[1]}* vlSelf);" for name in called]  # type: ignore[index]
    lines += [
        f"void {ROOT}___eval_ico({ROOT}* vlSelf);",
        f"void {ROOT}___eval_stl({ROOT}* vlSelf);",
        f"void {ROOT}___eval_triggers_vec__act({ROOT}* vlSelf);",
        *(f"constexpr uint32_t {name.upper()}_BIT = {1 << bit}u;" for name, bit in SLEEPERS.items()),
        f"inline uint32_t model_asleep(const {PREFIX}__Syms* syms) {{",
        f"    uint32_t bits = {common}u;",
        *(f"    {line}" for line in asleep),
        "    return bits;",
        "}",
        "// Counters that something happens to.",
        f"inline uint32_t model_events(const {PREFIX}__Syms* syms) {{ return {' | '.join(events)}; }}",
        f"constexpr uint64_t CORE_EDGE = 1ull << {bits[0]}, REGISTER_EDGE = 1ull << {bits[1]};",
        f"constexpr uint64_t AUX_EDGE = 1ull << {bits[2]};",
        f"constexpr uint64_t RX_EDGE[4] = {{{', '.join(f'1ull << {bit}' for bit in bits[3:])}}};",
        nba,
        ico,
    ]
    return "\n".join(lines)


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
            elif plain.endswith("u_clock__DOT__now_q"):
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
        ("WARP_TIME", 1),
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
    (folder / "model_edges.h").write_text(head + "#pragma once\n" + edges(folder) + "\n")
    (folder / "model_parts.h").write_text(head + warp(folder) + "\n")


if __name__ == "__main__":
    main()
