# SPDX-License-Identifier: Apache-2.0
"""The card as an IP for Vivado: python tools/package_ip.py FOLDER (`make ip`: build/ip).

Made from what the card is made of: sources from hdl/rtl/files.f, the board's part in hdl/boards/zcu104,
picorv32.v from its PyPI package, version and size of the register map from hdl/regs. FOLDER gets

  src/                    copies of all sources: FOLDER can be carried to the machine that has Vivado
  src/twinstamp_card_ip.v a Verilog shell (Vivado takes no SystemVerilog as the top of an IP, UG1118)
  constraints/            of the crossings, for the project that uses the IP (hdl/constraints/vivado)
  package.tcl             vivado -mode batch -source package.tcl makes core/ with component.xml from it

Each port of the top must belong to an interface of INTERFACES or be named in PLAIN, else this ends with an
error. No Vivado has run what comes out; tests/hdl/test_package_ip.py runs it in a stand-in for it.
"""

from __future__ import annotations

import re
import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

import regmap
import rtl_files

ROOT = Path(__file__).resolve().parent.parent
BOARD = ROOT / "hdl" / "boards" / "zcu104"
PART = "xczu7ev-ffvc1156-2-e"
TOP = "twinstamp_zcu104"
SHELL = "twinstamp_card_ip"
VENDOR, LIBRARY, NAME = "twinstamp.org", "twinstamp", "twinstamp_card"


@dataclass(frozen=True)
class Port:
    direction: str  # in, out
    width: int
    name: str


@dataclass(frozen=True)
class Parameter:
    name: str
    default: int
    least: int
    most: int
    text: str


@dataclass(frozen=True)
class Interface:
    """vlnv: of the bus; its abstraction has _rtl behind the name. ports: logical name by port of the top."""

    name: str
    vlnv: str
    mode: str
    ports: dict[str, str]
    parameters: dict[str, str] = field(default_factory=dict)


def signals(prefix: str, names: dict[str, str]) -> dict[str, str]:
    return {prefix + port: logical for port, logical in names.items()}


def channels(prefix: str, names: str) -> dict[str, str]:
    return {prefix + name: name.upper() for name in names.split()}


AXI_LITE = """awvalid awready awaddr awprot wvalid wready wdata wstrb bvalid bready bresp
arvalid arready araddr arprot rvalid rready rdata rresp"""
AXI = """awvalid awready awaddr awlen awsize awburst awcache awprot wvalid wready wdata wstrb wlast
bvalid bready bresp arvalid arready araddr arlen arsize arburst arcache arprot
rvalid rready rdata rresp rlast"""
RGMII = {"rxc": "RXC", "rd": "RD", "rx_ctl": "RX_CTL", "txc": "TXC", "td": "TD", "tx_ctl": "TX_CTL"}
MDIO = {"mdc": "MDC", "i": "MDIO_I", "o": "MDIO_O", "t": "MDIO_T"}
CLOCK, RESET = "xilinx.com:signal:clock:1.0", "xilinx.com:signal:reset:1.0"

INTERFACES = [
    Interface("s_axil", "xilinx.com:interface:aximm:1.0", "slave", channels("s_axil_", AXI_LITE)),
    Interface("m_axi", "xilinx.com:interface:aximm:1.0", "master", channels("m_axi_", AXI)),
    *(
        Interface(f"rgmii{p}", "xilinx.com:interface:rgmii:1.0", "master", signals(f"rgmii{p}_", RGMII))
        for p in range(4)
    ),
    *(
        Interface(f"mdio{p}", "xilinx.com:interface:mdio:1.0", "master", signals(f"mdio{p}_", MDIO))
        for p in range(4)
    ),
    Interface("uart", "xilinx.com:interface:uart:1.0", "master", {"uart_rxd": "RxD", "uart_txd": "TxD"}),
    Interface(
        "irq",
        "xilinx.com:signal:interrupt:1.0",
        "master",
        {"irq": "INTERRUPT"},
        {"SENSITIVITY": "LEVEL_HIGH"},
    ),
    Interface(
        "aclk",
        CLOCK,
        "slave",
        {"aclk": "CLK"},
        {"ASSOCIATED_BUSIF": "s_axil:m_axi", "ASSOCIATED_RESET": "aresetn", "FREQ_HZ": "125000000"},
    ),
    Interface("aresetn", RESET, "slave", {"aresetn": "RST"}, {"POLARITY": "ACTIVE_LOW"}),
    Interface("clk90", CLOCK, "slave", {"clk90": "CLK"}, {"FREQ_HZ": "125000000", "PHASE": "90.0"}),
    Interface("clk300", CLOCK, "slave", {"clk300": "CLK"}, {"FREQ_HZ": "300000000"}),
    Interface("clk500", CLOCK, "slave", {"clk500": "CLK"}, {"FREQ_HZ": "500000000"}),
]  # fmt: skip
PLAIN = {"phy_reset_n", "pps_in", "pps_out", "ref_clk_oe", "ref_clk_fsel"}

# Limits and texts of the top's parameters; their defaults stand in it.
PARAMETERS = {
    "StoreLog2": (14, 17, "Frame store per port, log2 of bytes"),
    "BuildId": (0, 2**31 - 1, "Build id, as id.build says"),
    "FlowHash": (0, 1, "Flow hash of each frame: 1 yes, 0 no"),
    "RxDelayPs0": (0, 1100, "Input delay of RGMII port 0 in ps"),
    "RxDelayPs1": (0, 1100, "Input delay of RGMII port 1 in ps"),
    "RxDelayPs2": (0, 1100, "Input delay of RGMII port 2 in ps"),
    "RxDelayPs3": (0, 1100, "Input delay of RGMII port 3 in ps"),
    "PhyResetLog2": (4, 24, "Reset of the PHYs, log2 of cycles"),
}


def die(what: str) -> None:
    sys.exit(f"tools/package_ip.py: {what}")


def read_top(text: str) -> tuple[list[Parameter], list[Port]]:
    """Parameters and ports of the top, which writes one a line (hdl/boards/zcu104/twinstamp_zcu104.sv)."""
    head = text[text.index(f"\nmodule {TOP} ") :]
    head = re.sub(r"//.*", "", head[: head.index("\n);")])
    parameters: list[Parameter] = []
    for name, value in re.findall(r"^\s*parameter int unsigned (\w+) = (\d+),?\s*$", head, re.M):
        if name not in PARAMETERS:
            die(f"{TOP}: no limits are known for parameter {name}")
        parameters.append(Parameter(name, int(value), *PARAMETERS[name]))
    ports: list[Port] = []
    line = r"^\s*(in|out)put\s+logic(?:\s+\[(\d+):0\])?\s+(\w+),?\s*$"
    for way, high, name in re.findall(line, head, re.M):
        ports.append(Port(way, int(high or 0) + 1, name))
    if len(parameters) != len(re.findall(r"\bparameter\b", head)):
        die(f"{TOP}: a parameter that it cannot read")
    if len(ports) != len(re.findall(r"\b(?:in|out)put\b", head)):
        die(f"{TOP}: a port that it cannot read")
    return parameters, ports


def register_map() -> tuple[str, int]:
    """Version of the register map, as "1.6", and its size in bytes."""
    top = regmap.elaborated()
    version = next(r for r in top.find_by_path("id").registers() if r.inst_name == "version")
    reset = {f.inst_name: f.get_property("reset") for f in version.fields()}
    return f"{reset['major']}.{reset['minor']}", 1 << (top.size - 1).bit_length()


def sources() -> list[Path]:
    """All sources, in the order in which they are to be read."""
    import pythondata_cpu_picorv32

    files = [ROOT / name for name in rtl_files.listed()]
    files.append(Path(pythondata_cpu_picorv32.data_location) / "picorv32.v")
    adapters = [ROOT / "hdl/rtl/phy/rgmii_rx.sv", ROOT / "hdl/rtl/phy/rgmii_tx.sv"]
    files += [f for f in adapters if f not in files]
    files += sorted(BOARD.glob("*.sv"))
    for file in files:
        if not file.is_file():
            die(f"no file {file}")
    if len({f.name for f in files}) != len(files):
        die("two sources have the same name")
    return files


def shell(parameters: list[Parameter], ports: list[Port]) -> str:
    """The top again, in Verilog."""
    lines = [
        "// SPDX-License-Identifier: Apache-2.0",
        f"// {TOP} for Vivado's IP packager, which takes no SystemVerilog on top.",
        "// Made by tools/package_ip.py.",
        f"module {SHELL} #(",
        ",\n".join(f"  parameter integer {p.name} = {p.default}" for p in parameters),
        ") (",
    ]

    def declared(port: Port) -> str:
        way = f"{port.direction}put".ljust(6)
        width = f"[{port.width - 1}:0]" if port.width > 1 else ""
        return f"  {way} wire {width:7} {port.name}"

    lines += [",\n".join(declared(p) for p in ports), ");", f"  {TOP} #("]
    lines.append(",\n".join(f"    .{p.name}({p.name})" for p in parameters))
    lines.append("  ) u_card (")
    lines.append(",\n".join(f"    .{p.name}({p.name})" for p in ports))
    return "\n".join([*lines, "  );", "endmodule", ""])


TCL_HEAD = """# SPDX-License-Identifier: Apache-2.0
# Packages the card as an IP for Vivado: vivado -mode batch -source package.tcl
# Makes the folder core beside this file, to be named in ip_repo_paths. Made by tools/package_ip.py;
# no Vivado has run it so far.
set here [file dirname [file normalize [info script]]]
set sources {{
{sources}
}}
set files {{}}
foreach source $sources {{
  lappend files [file join $here src $source]
}}

create_project -force -part {part} package_ip [file join $here project]
add_files -norecurse $files
set_property top {shell} [current_fileset]
update_compile_order -fileset sources_1
ipx::package_project -root_dir [file join $here core] -vendor {vendor} -library {library} \\
  -taxonomy /Twinstamp -import_files -set_current true -force
set core [ipx::current_core]
set_property name {name} $core
set_property version {version} $core
set_property core_revision 1 $core
set_property display_name {{Twinstamp card}} $core
set_property description {{Stamps frames at MAC ingress, keeps GPS time, plays packet trains.}} $core
set_property vendor_display_name Twinstamp $core
set_property supported_families {{zynquplus Beta}} $core

# What the packager made of the ports' names goes: each interface is said in full below.
ipx::remove_all_bus_interface $core
ipx::remove_all_memory_map $core
ipx::remove_all_address_space $core

# name, mode, bus and what its ports are called there, then parameters.
proc describe {{name mode bus ports parameters}} {{
  global core
  set interface [ipx::add_bus_interface $name $core]
  set parts [split $bus :]
  set_property bus_type_vlnv $bus $interface
  set_property abstraction_type_vlnv [join [lreplace $parts 2 2 [lindex $parts 2]_rtl] :] $interface
  set_property interface_mode $mode $interface
  foreach {{logical physical}} $ports {{
    set map [ipx::add_port_map $logical $interface]
    set_property physical_name $physical $map
  }}
  foreach {{parameter value}} $parameters {{
    set_property value $value [ipx::add_bus_parameter $parameter $interface]
  }}
  return $interface
}}
"""

TCL_TAIL = """
# Registers: one block of the size of the slave's address; memory: all that the master can address.
set map [ipx::add_memory_map s_axil $core]
set block [ipx::add_address_block registers $map]
set_property usage register $block
set_property base_address 0 $block
set_property range {size} $block
set_property width 32 $block
set_property slave_memory_map_ref s_axil [ipx::get_bus_interfaces s_axil -of_objects $core]
set space [ipx::add_address_space m_axi $core]
set_property range 18446744073709551616 $space
set_property width 64 $space
set_property master_address_space_ref m_axi [ipx::get_bus_interfaces m_axi -of_objects $core]

# name, least, most, text
proc limit {{name least most text}} {{
  global core
  set parameter [ipx::get_user_parameters $name -of_objects $core]
  set_property display_name $text $parameter
  set_property value_validation_type range_long $parameter
  set_property value_validation_range_minimum $least $parameter
  set_property value_validation_range_maximum $most $parameter
}}
{parameters}

ipx::create_xgui_files $core
ipx::update_checksums $core
ipx::check_integrity $core
ipx::save_core $core
close_project
"""


def tcl(files: list[str], parameters: list[Parameter], version: str, size: int) -> str:
    def words(pairs: dict[str, str]) -> str:
        return " ".join(f"{a} {b}" for a, b in pairs.items())

    text = TCL_HEAD.format(
        sources="\n".join(f"  {f}" for f in files), part=PART, shell=SHELL, vendor=VENDOR, library=LIBRARY,
        name=NAME, version=version,
    )  # fmt: skip
    for bus in INTERFACES:
        ports = {logical: physical for physical, logical in bus.ports.items()}
        text += f"describe {bus.name} {bus.mode} {bus.vlnv} {{{words(ports)}}} {{{words(bus.parameters)}}}\n"
    lines = "\n".join(f"limit {p.name} {p.least} {p.most} {{{p.text}}}" for p in parameters)
    return text + TCL_TAIL.format(size=size, parameters=lines)


def main(output: Path) -> None:
    """Makes everything under ``output``; what was there of an earlier run goes."""
    parameters, ports = read_top((BOARD / f"{TOP}.sv").read_text())
    claimed = [port for bus in INTERFACES for port in bus.ports] + sorted(PLAIN)
    if sorted(claimed) != sorted(p.name for p in ports):
        odd = sorted(set(claimed) ^ {p.name for p in ports})
        die(f"ports that {TOP} or INTERFACES and PLAIN have alone, or twice: {', '.join(odd)}")
    version, size = register_map()
    address = next(p.width for p in ports if p.name == "s_axil_awaddr")
    if size != 1 << address:
        die(f"the register map has {size} bytes, the slave's address reaches {1 << address}")
    files = sources()
    for folder in ("src", "constraints"):
        shutil.rmtree(output / folder, ignore_errors=True)
        (output / folder).mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, output / "src" / file.name)
    for file in sorted((ROOT / "hdl/constraints/vivado").glob("*.tcl")):
        shutil.copyfile(file, output / "constraints" / file.name)
    names = [file.name for file in files] + [f"{SHELL}.v"]
    (output / "src" / names[-1]).write_text(shell(parameters, ports))
    (output / "package.tcl").write_text(tcl(names, parameters, version, size))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        die("usage: python tools/package_ip.py FOLDER")
    main(Path(sys.argv[1]))
