# SPDX-License-Identifier: Apache-2.0
"""The Verilated model as hdl/sim/edge.cpp runs it: python tools/model_edges.py FOLDER.

Run by tools/verilate.sh (docs/decisions/0104-parts-that-sleep.md). Verilator's eval() looks at all clocks,
before and after each edge, knows of a reset, and evaluates everything. Made from its text, in
model_edges.h and model_ports.cpp:

model_nba<TRIGGERED>(model, awake) is its eval_nba with the clock that has an edge as a constant, out of
reset (the constructor has seen it released, nothing can pull it again), and with what sleeps behind bits of
`awake`:

- the functions of modules that may sleep (SLEEPERS): nothing in them can change but what follows card time;
- assignments to inputs of such modules, and those whose right side has nothing but their signals;
- assignments to what the register block reads (REGISTERS_BIT): only its own clock takes it over.

model_asleep() says of which modules the RTL's `asleep` is high, model_events() which counters have something
to count: inputs of theirs, so model_refresh() computes what follows from those. What is not recognised is
evaluated always; what looks new stops the build.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from model_parts import PREFIX, ROOT, body, die, instances, members

# Modules that may be left out of an edge, and their bit; the counters have one for each port.
SLEEPERS = {
    "train_port": 0, "gmii_tx": 1, "gmii_loopback": 2, "phy_link": 3, "profile_words": 4, "frame_digest": 4,
    "record_judge": 5, "tx_fetch": 6, "port_counters": 7,
}  # fmt: skip
# Of these not all instances: the other engine has every frame.
ONLY = {"frame_digest": "u_normal"}
COUNTERS = SLEEPERS["port_counters"]
REGISTERS = 1 << 31
# What wakes the counters of a port, beside senders and registers.
COUNTED = ("event_i", "discard_i", "duplicate_i", "flip_i")
# From the pins to the receive MAC it goes through gmii_loopback, asleep or not: only these stand still.
TO_PINS = {"tx_en_o", "tx_er_o", "txd_o", "mac_tx_en_i", "mac_txd_i", "mac_tx_er_i"}
REGISTER_INPUTS = "twinstamp_card__DOT__hwif_in"

MEMBER = r"vlSymsp\s*->\s*(\w+)\s*\.(\w+)"
ASSIGNED = re.compile(rf"(?:vlSelfRef\.(\w+)|{MEMBER})((?:\s*\.\w+|\s*\[[^\]=]*\])*)\s*=(?!=)")


def sleepers(folder: Path) -> dict[str, int]:
    """The bit of each instance that may sleep, by its member of the symbol table."""
    found = {}
    for name, bit in SLEEPERS.items():
        whose = sorted(
            member
            for kind, member in instances(folder)
            if kind == f"{PREFIX}_{name}" and member.endswith(ONLY.get(name, ""))
        )
        if not whose or "asleep" not in members(folder, f"{PREFIX}_{name}"):
            die(f"{name} has no `asleep`")
        found.update({member: bit + (k if bit == COUNTERS else 0) for k, member in enumerate(whose)})
    return found


def statements(lines: list[str]) -> list[str]:
    """Whole statements, a block with all that is in it."""
    out: list[str] = []
    depth, have = 0, []
    for line in lines:
        have.append(line)
        depth += line.count("{") - line.count("}") + line.count("(") - line.count(")")
        if depth == 0 and line.rstrip().endswith((";", "}")):
            out.append("\n".join(have))
            have = []
    if have:
        die(f"half a statement: {have[0]}")
    return out


class Sleep:
    """Which statements of the root may be left out when what sleeps."""

    def __init__(self, beds: dict[str, int]) -> None:
        self.beds = beds
        self.always: set[tuple[str, str]] = set()  # variables that something assigns always

    def bit(self, instance: str, member: str) -> int:
        """The bit of a module behind which this member of it stands still, or 0."""
        number = self.beds.get(instance, COUNTERS)
        if number >= COUNTERS or (number == SLEEPERS["gmii_loopback"] and member not in TO_PINS):
            return 0
        return 1 << number

    def targets(self, statement: str) -> set[tuple[str, str]]:
        return {("", m[1]) if m[1] else (m[2], m[3]) for m in ASSIGNED.finditer(statement)}

    def plain(self, statement: str) -> int:
        """The bits of `awake` with which it must be run, by itself; 0: always."""
        called = re.fullmatch(rf"\s*{PREFIX}_\w+___\w+\(\(&vlSymsp->(\w+)\)\);\s*", statement)
        if called:
            number = self.beds.get(called[1], -1)
            ico = "___ico_" in statement and number == SLEEPERS["gmii_loopback"]
            return 0 if number < 0 or ico else 1 << number
        targets = self.targets(statement)
        rest = ASSIGNED.sub(" ", statement)
        if not targets or len(ASSIGNED.findall(statement)) != len(
            re.findall(r"(?<![=!<>])=(?!=)", statement)
        ):
            return 0
        if re.search(rf"\b{REGISTER_INPUTS}\b", rest):
            die(f"the register block's inputs are read: {statement}")
        if targets == {("", REGISTER_INPUTS)}:
            return REGISTERS
        bits = 0
        if all(self.bit(*target) for target in targets):
            for target in targets:
                bits |= self.bit(*target)
            return bits
        for instance, member in re.findall(MEMBER, rest):
            if not self.bit(instance, member):
                return 0
            bits |= self.bit(instance, member)
        if set(re.findall(r"vlSelfRef\.(\w+)", rest)) - {name for where, name in targets if not where}:
            return 0
        rest = re.sub(rf"(?:vlSelfRef\.\w+|{MEMBER})(?:\s*\.\w+)*|\b0x[0-9a-fA-F]+U?L*|\b\d+U?L*", " ", rest)
        if re.search(r"[A-Za-z_]\w*", re.sub(r"\b(?:[CSIQE]Data|if|else)\b", " ", rest)):
            return 0
        return bits

    def learn(self, lines: list[str]) -> None:
        for statement in statements(lines):
            if not self.plain(statement):
                self.always |= self.targets(statement)

    def guarded(self, lines: list[str]) -> str:
        """The lines, with runs of statements behind what wakes them."""
        out: list[str] = []
        last = 0
        for statement in statements(lines):
            bits = self.plain(statement)
            targets = self.targets(statement)
            inputs = bits == REGISTERS or all(self.bit(*target) for target in targets)
            if not inputs and targets & self.always:
                bits = 0
            if bits != last:
                out += ["}"] * bool(last) + [f"if (awake & {bits}u) {{"] * bool(bits)
                last = bits
            out.append(statement)
        return "\n".join(out + ["}"] * bool(last))


def renamed(code: str) -> str:
    code = re.sub(r"___(nba|ico|stl)_(sequent|comb)__", r"___run_\1_\2__", code)
    return re.sub(r"\b(?:vlSelfRef\.|vlSymsp->TOP\.)(?:rst_ni|rx_rst_ni|tx_rst_ni)\b(?!\s*=[^=])", "1U", code)


def blocks(code: str, of: str) -> list[tuple[int, list[str]]]:
    """(triggers, lines) of the blocks that eval_nba or eval_ico is."""
    out = []
    for part in statements(code.split("\n")):
        found = re.match(
            rf"\s*if \(\((0x[0-9a-f]+|\d+)ULL & {re.escape(of)}\)\) \{{\n(.*)\n\s*\}}\s*$", part, re.S
        )
        if found is None:
            sys.exit(f"tools/model_edges.py: {of}: {part[:200]}")
        out.append((int(found[1], 0), found[2].split("\n")))
    return out


def edges(folder: Path) -> tuple[str, str]:
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
    often = sum(1 << bit for bit in (bits[0], *bits[3:]))  # what has edges all the time
    ever = often | 1 << bits[1] | 1 << bits[2]

    beds = sleepers(folder)
    sleep = Sleep(beds)
    pattern = rf"^(?:VL_ATTR_COLD )?(void ({PREFIX}_\w+___(?:nba|ico|stl)_\w+)\(.*?^\}})$"
    functions: dict[str, str] = {name: code for code, name in re.findall(pattern, text, re.M | re.S)}

    def inside(name: str) -> list[str]:
        return functions[name].split("    // Body\n", 1)[1].rsplit("\n}", 1)[0].split("\n")

    nba = body(text, f"void {ROOT}___eval_nba({ROOT}* vlSelf)")
    head, rest = nba.split("    // Body\n", 1)
    parts = [
        (mask, lines)
        for mask, lines in blocks(rest.rsplit("\n}", 1)[0], "vlSelfRef.__VnbaTriggered[0U]")
        if mask & ever
    ]
    ico = (
        body(text, f"void {ROOT}___eval_ico({ROOT}* vlSelf)").split("    // Body\n", 1)[1].rsplit("\n}", 1)[0]
    )
    ((_, first),) = blocks(ico, "vlSelfRef.__VicoTriggered[0U]")

    # Copies of what often runs; what only the register block's clock runs stays Verilator's own.
    copied: list[str] = []
    own: list[str] = []
    for mask, lines in [*parts, (often, first)]:
        for name in re.findall(rf"\b({PREFIX}_\w+?___\w+)\(", "\n".join(lines)):
            (copied if mask & often else own).append(name)
    copied = list(dict.fromkeys(copied))
    own = [name for name in dict.fromkeys(own) if name not in copied]
    fresh = [name for name in functions if name.startswith(f"{PREFIX}_port_counters___stl_sequent__")]
    copied += fresh
    root = [name for name in copied if name.startswith(f"{ROOT}___")]
    for mask, lines in parts:
        if mask & often:
            sleep.learn(lines)
    sleep.learn(first)
    for name in root:
        sleep.learn(inside(name))

    def function(name: str) -> str:
        code = functions[name]
        if name not in root:
            return renamed(code)
        begin, _ = code.split("    // Body\n", 1)
        begin = begin.replace("(" + ROOT + "* vlSelf) {", "(" + ROOT + "* vlSelf, const uint32_t awake) {")
        return "static " + renamed(f"{begin}    // Body\n{sleep.guarded(inside(name))}\n}}")

    def run(lines: list[str]) -> str:
        code = renamed(sleep.guarded(lines))
        return re.sub(rf"\b({ROOT}___run_\w+)\(vlSelf\);", r"\1(vlSelf, awake);", code)

    def edge(mask: int, lines: list[str]) -> str:
        code = run(lines) if mask & often else "\n".join(lines)
        return f"if constexpr (({mask}ULL & TRIGGERED) != 0) {{\n{code}\n}}"

    kind = {name: re.match(rf"({PREFIX}_.+?)___(?!024)", name)[1] for name in [*copied, *own]}  # type: ignore[index]
    lines = [f"void {name}({kind[name]}* vlSelf);" for name in own]
    lines += [f"void {renamed(name)}({kind[name]}* vlSelf);" for name in copied if name not in root]
    common = sum(1 << bit for bit in set(beds.values()) if list(beds.values()).count(bit) > 1)
    lines += [
        f"void {ROOT}___eval_ico({ROOT}* vlSelf);",
        f"void {ROOT}___eval_stl({ROOT}* vlSelf);",
        f"void {ROOT}___eval_triggers_vec__act({ROOT}* vlSelf);",
        *(f"constexpr uint32_t {name.upper()}_BIT = {1 << bit}u;" for name, bit in SLEEPERS.items()),
        f"constexpr uint32_t REGISTERS_BIT = {REGISTERS}u;",
        f"inline uint32_t model_asleep(const {PREFIX}__Syms* syms) {{",
        f"    uint32_t bits = {common}u;",
    ]
    for member, bit in beds.items():
        if common >> bit & 1:
            lines.append(f"    if (!syms->{member}.asleep) bits &= ~{1 << bit}u;")
        else:
            lines.append(f"    if (syms->{member}.asleep) bits |= {1 << bit}u;")
    events = [
        f"({' | '.join(f'syms->{member}.{name}' for name in COUNTED)} ? {1 << bit}u : 0u)"
        for member, bit in beds.items()
        if bit >= COUNTERS
    ]
    resets = [
        f"syms->{member}.rx_rst_ni"
        for name, member in instances(folder)
        if "rx_rst_ni" in members(folder, name)
    ]
    lines += [
        "    return bits;",
        "}",
        f"inline uint32_t model_events(const {PREFIX}__Syms* syms) {{ return {' | '.join(events)}; }}",
        "// Counters that wake see what their inputs are.",
        f"inline void model_refresh({PREFIX}__Syms* syms, const uint32_t bits) {{",
        *(
            f"    if (bits & {1 << bit}u) {renamed(name)}(&syms->{member});"
            for member, bit in beds.items()
            for name in fresh
            if bit >= COUNTERS
        ),
        "}",
        f"inline bool model_runs(const {PREFIX}__Syms* syms) {{",
        f"    return syms->TOP.rst_ni & {' & '.join(resets)};",
        "}",
        f"constexpr uint64_t CORE_EDGE = 1ull << {bits[0]}, REGISTER_EDGE = 1ull << {bits[1]};",
        f"constexpr uint64_t AUX_EDGE = 1ull << {bits[2]};",
        f"constexpr uint64_t RX_EDGE[4] = {{{', '.join(f'1ull << {bit}' for bit in bits[3:])}}};",
        *(function(name) for name in root),
        head.replace(
            f"void {ROOT}___eval_nba({ROOT}* vlSelf)",
            f"template <uint64_t TRIGGERED>\ninline void model_nba({ROOT}* vlSelf, const uint32_t awake)",
            1,
        ),
        *(edge(mask, inner) for mask, inner in parts),
        "}",
        f"inline void model_ico({ROOT}* vlSelf, const uint32_t awake) {{",
        f"{PREFIX}__Syms* const __restrict vlSymsp VL_ATTR_UNUSED = vlSelf->vlSymsp;",
        "auto& vlSelfRef = std::ref(*vlSelf).get();",
        run(first),
        "}",
    ]
    ports = [f'#include "{PREFIX}__pch.h"', *(function(name) for name in copied if name not in root)]
    return "\n".join(lines), "\n".join(ports)


def main() -> None:
    folder = Path(sys.argv[1])
    head = "// Made by tools/model_edges.py.\n"
    header, ports = edges(folder)
    (folder / "model_edges.h").write_text(head + "#pragma once\n" + header + "\n")
    (folder / "model_ports.cpp").write_text(head + ports + "\n")


if __name__ == "__main__":
    main()
