# SPDX-License-Identifier: Apache-2.0
"""A small network in namespaces, real programs that talk through it, and the appliance at its mirror.

::

                       switch (two bridges, all four ports mirrored both ways)
      client ── to_client ┬ red  ┬ to_left ── left  router  right ── to_right ┬ blue ┬ to_server ── server
                          └──────┘                                            └──────┘
                                     tc mirred ─► span ── mon  appliance  out0..2 ── in0  dpi0..2

Each frame that crosses passes four port mirrors: in and out of a port of one bridge (two exact copies),
then, MACs, TTL and checksum changed by the router, in and out of the other (two routed copies).

This module runs as `python -m twinstamp.demo.world FOLDER [--quick]` inside namespaces of its own
(mount, network, process ids) that the caller made with unshare: the kernel takes everything in them away
with the last process, whatever happens.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from rich.console import Console

from twinstamp.demo.dpi import IDLE_S
from twinstamp.errors import DeviceError

DPI_SERVERS = ("dpi0", "dpi1", "dpi2")
ENDPOINTS = ("client", "server")
NAMESPACES = ("client", "switch", "router", "server", "appliance", *DPI_SERVERS)
# (namespace, interface), both ends of each cable
CABLES = (
    (("client", "eth0"), ("switch", "to_client")),
    (("router", "left"), ("switch", "to_left")),
    (("router", "right"), ("switch", "to_right")),
    (("server", "eth0"), ("switch", "to_server")),
    (("switch", "span"), ("appliance", "mon")),
    *((("appliance", f"out{i}"), (name, "in0")) for i, name in enumerate(DPI_SERVERS)),
)
BRIDGES = {"red": ("to_client", "to_left"), "blue": ("to_right", "to_server")}
ADDRESSES = (
    ("client", "eth0", "10.77.1.2/24", "fd77:1::2/64"),
    ("router", "left", "10.77.1.1/24", "fd77:1::1/64"),
    ("router", "right", "10.77.2.1/24", "fd77:2::1/64"),
    ("server", "eth0", "10.77.2.2/24", "fd77:2::2/64"),
)
SERVER, SERVER6 = "10.77.2.2", "fd77:2::2"
# Both router ports: a narrow pipe with a short queue, so that TCP meets real loss and really retransmits.
# The queue holds 19 ms: a routed copy must come within the 50 ms window to be known for one.
SHAPER = "tbf rate 40mbit burst 16kb limit 96kb"
HTTP_PORT, BULK_PORT = 80, 5201
PYTHON = shlex.quote(sys.executable)
HAS_DNS = shutil.which("dnsmasq") is not None and shutil.which("dig") is not None
HAS_BULK = shutil.which("iperf3") is not None
CANNOT_BUILD = 4  # exit status: this machine does not let us build the network

APPLIANCE = """\
[appliance]
report = "report.json"
realtime = true
reorder_ms = 2
workers = 1
[[source]]
interface = "mon"
[duplicates]
profile = "routing"
layer = "outer"
window = 100000
time = "50ms"
action = "drop"
[balance]
hash = "flow"
secret_file = "balance.key"
default_group = "dpi"
[[group]]
name = "dpi"
""" + "".join(
    f'[[group.server]]\nname = "{name}"\nweight = 1\ninterface = "out{i}"\n'
    for i, name in enumerate(DPI_SERVERS)
)


def run(command: str) -> str:
    """Runs a set-up command; what it says goes into the error where it fails."""
    result = subprocess.run(
        shlex.split(command), capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=30
    )
    if result.returncode:
        said = (result.stderr or result.stdout).strip() or f"exit status {result.returncode}"
        raise DeviceError(f"cannot build the demo's network: {command}: {said}")
    return result.stdout


def within(namespace: str, command: str) -> str:
    """Runs a command in a namespace."""
    return run(f"ip netns exec {namespace} {command}")


def setting(namespace: str, name: str) -> None:
    """Switches a setting of a namespace's network stack on."""
    within(namespace, f"sh -c 'echo 1 > /proc/sys/net/{name}'")


def build() -> None:
    """Makes namespaces, cables, bridges, addresses, routes, the narrow pipe and the mirror."""
    # Names of network namespaces live under /run: a /run of our own needs no rights to the real one.
    run("mount -t tmpfs tmpfs /run")
    for namespace in NAMESPACES:
        run(f"ip netns add {namespace}")
        run(f"ip -n {namespace} link set lo up")
        if namespace not in ("client", "router", "server"):
            # A mirror, an appliance and a DPI server's ear send nothing of their own.
            setting(namespace, "ipv6/conf/all/disable_ipv6")
            setting(namespace, "ipv6/conf/default/disable_ipv6")
    for (namespace_a, a), (namespace_b, b) in CABLES:
        run(f"ip -n {namespace_a} link add {a} type veth peer name {b} netns {namespace_b}")
        for namespace, interface in ((namespace_a, a), (namespace_b, b)):
            # With offloads on, mirrored veth frames reach 65 kB and carry checksums nobody filled in.
            within(namespace, f"ethtool -K {interface} tx off rx off sg off tso off gso off gro off")
    for bridge, ports in BRIDGES.items():
        run(f"ip -n switch link add {bridge} type bridge stp_state 0 mcast_snooping 0")
        for port in ports:
            run(f"ip -n switch link set {port} master {bridge}")
        run(f"ip -n switch link set {bridge} up")
    for cable in CABLES:
        for namespace, interface in cable:
            run(f"ip -n {namespace} link set {interface} up")
    for namespace, interface, address, address6 in ADDRESSES:
        run(f"ip -n {namespace} address add {address} dev {interface}")
        run(f"ip -n {namespace} address add {address6} dev {interface} nodad")
    setting("router", "ipv4/ip_forward")
    setting("router", "ipv6/conf/all/forwarding")
    # No default routes: a program that asks the machine's resolver hears "unreachable" at once.
    run("ip -n client route add 10.77.2.0/24 via 10.77.1.1")
    run("ip -n server route add 10.77.1.0/24 via 10.77.2.1")
    run("ip -n client -6 route add fd77:2::/64 via fd77:1::1")
    run("ip -n server -6 route add fd77:1::/64 via fd77:2::1")
    for interface in ("left", "right"):
        within("router", f"tc qdisc add dev {interface} root {SHAPER}")
    everything = "protocol all prio 1 u32 match u32 0 0"
    for port in (port for ports in BRIDGES.values() for port in ports):
        within("switch", f"tc qdisc add dev {port} clsact")
        for direction in ("ingress", "egress"):
            mirror = "action mirred egress mirror dev span"
            within("switch", f"tc filter add dev {port} {direction} {everything} {mirror}")


class Program:
    """A program in one of the namespaces, its output in a log beside the results."""

    def __init__(self, folder: Path, name: str, namespace: str, command: str) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["ip", "netns", "exec", namespace, *shlex.split(command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )

    def fail(self, what: str) -> DeviceError:
        last = self.log.read_text(errors="replace").strip().splitlines()[-5:]
        return DeviceError(f"the demo's {self.name} {what}; it said: {' | '.join(last) or 'nothing'}")

    def wait_until(self, condition: str, ready: object, timeout_s: float = 20) -> None:
        """Waits until ready() is true; fails when the program ends first."""
        assert callable(ready)
        deadline = time.monotonic() + timeout_s
        while not ready():
            if self.process.poll() is not None:
                raise self.fail(f"ended with status {self.process.returncode}")
            if time.monotonic() > deadline:
                raise self.fail(f"was not {condition} after {timeout_s:.0f} s")
            time.sleep(0.05)

    def table(self, name: str) -> list[list[str]]:
        """Rows of a table of the program's network namespace: /proc/PID/net/NAME."""
        try:
            lines = Path(f"/proc/{self.process.pid}/net/{name}").read_text().splitlines()
        except OSError:
            return []
        return [line.split() for line in lines[1:]]

    def wait_listening(self, *, sockets: int) -> None:
        """Waits until so many packet sockets are open in the program's namespace."""
        self.wait_until("listening", lambda: len(self.table("packet")) >= sockets)

    def wait_serving(self, port: int, *tables: str) -> None:
        """Waits until somebody in the program's namespace holds a port."""
        suffix = f":{port:04X}"
        self.wait_until(
            f"serving port {port}",
            lambda: any(row[1].endswith(suffix) for table in tables for row in self.table(table)),
        )

    def finish(self, timeout_s: float) -> None:
        """Waits for the program to end well by itself."""
        try:
            status = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise self.fail(f"was still at it after {timeout_s:.0f} s") from None
        if status:
            raise self.fail(f"ended with status {status}")

    def stop(self, timeout_s: float = 20) -> None:
        """Asks the program to stop, and waits for it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.finish(timeout_s)


def capture(folder: Path, name: str, namespace: str, interface: str, options: str = "") -> Program:
    """dumpcap on an interface into NAME.pcap.

    Not tcpdump: it insists on becoming another user, for which a user namespace has no rights.
    """
    command = f"dumpcap -q -P -i {interface} -B 64 {options} -w {name}.pcap"  # -B: MiB
    return Program(folder, f"dumpcap-{name}", namespace, command)


def start_servers(folder: Path) -> tuple[list[Program], list[str]]:
    """Starts the servers; (programs, what is missing here and so is left out of the traffic)."""
    missing = []
    www = folder / "www"
    www.mkdir()
    content = random.Random(77)  # noqa: S311 - reproducible filler
    for i in range(4):
        (www / f"file{i}.bin").write_bytes(content.randbytes(1_500_000))
    (www / "hello.html").write_text("<html><body>" + "hello, mirror " * 40 + "</body></html>\n")
    command = f"{PYTHON} -I -m http.server --bind :: --directory www {HTTP_PORT}"
    web = Program(folder, "http.server", "server", command)
    programs = [web]
    if HAS_DNS:
        command = "dnsmasq --no-daemon --conf-file=/dev/null --no-resolv --no-hosts --pid-file="
        command += f" --bind-interfaces --listen-address={SERVER} --address=/demo.test/{SERVER}"
        names = Program(folder, "dnsmasq", "server", command)
        names.wait_serving(53, "udp", "udp6")
        programs.append(names)
    else:
        missing.append("DNS look-ups (packages dnsmasq-base and bind9-dnsutils)")
    if HAS_BULK:
        bulk = Program(folder, "iperf3-server", "server", f"iperf3 -s -p {BULK_PORT}")
        bulk.wait_serving(BULK_PORT, "tcp", "tcp6")
        programs.append(bulk)
    else:
        missing.append("the bulk transfer (package iperf3)")
    web.wait_serving(HTTP_PORT, "tcp", "tcp6")
    return programs, missing


def traffic(folder: Path, *, quick: bool) -> None:
    """Lets the clients talk, all at once, and waits until each has got what it asked for."""
    rounds = 1 if quick else 3
    downloads = [f"http://{SERVER}/file{i}.bin" for i in range(4)] * rounds
    downloads += [f"http://[{SERVER6}]/file{i}.bin" for i in range(2)] * rounds
    short, short6 = 100 * rounds, ",".join(map(str, range(25 * rounds)))
    curl = "curl -sSf --max-time 80 -o /dev/null"
    commands = {
        "curl-downloads": f"{curl} -g {' -o /dev/null '.join(downloads)}",
        "curl-short": f"{curl} http://{SERVER}/hello.html?[1-{short}]",
        "curl-short6": f"{curl} 'http://[{SERVER6}]/hello.html?{{{short6}}}'",
    }
    if HAS_DNS:
        (folder / "names").write_text("".join(f"host{i}.demo.test\n" for i in range(60 * rounds)))
        commands["dig"] = f"dig @{SERVER} +short -f names"
    if HAS_BULK:
        commands["iperf3"] = f"iperf3 -c {SERVER} -p {BULK_PORT} -n {4 * rounds}M -R"
    clients = [Program(folder, name, "client", command) for name, command in commands.items()]
    deadline = time.monotonic() + 90
    for client in clients:
        client.finish(max(1, deadline - time.monotonic()))


def snmp(program: Program) -> dict[str, int]:
    """TCP counters of the kernel in a program's namespace (/proc/PID/net/snmp, RFC 4022 names)."""
    rows = [row for row in program.table("snmp") if row[0] == "Tcp:"]
    return dict(zip(rows[0][1:], map(int, rows[1][1:]), strict=True))


def counter(namespace: str, interface: str, name: str) -> int:
    """A counter of the kernel for one interface."""
    links = json.loads(run(f"ip -n {namespace} -j -s link show dev {interface}"))
    direction, what = name.split("_")
    return int(links[0]["stats64"][direction][what])


def demonstrate(folder: Path, console: Console, *, quick: bool) -> None:
    """Servers, ears, appliance and traffic, on the network that build made.

    Leaves captures, nDPI's flows, the appliance's report and world.json in the folder.
    """
    servers, missing = start_servers(folder)
    for what in missing:
        console.print(f"[yellow]left out:[/] {what}")
    (folder / "appliance.toml").write_text(APPLIANCE)

    console.print("starting nDPI on three DPI servers, captures, and [bold]twinstamp run appliance.toml[/]")
    ends = [capture(folder, f"sent-{name}", name, "eth0", "-f outbound -s 96") for name in ENDPOINTS]
    feed = capture(folder, "feed", "appliance", "mon")
    engines = [
        Program(folder, name, name, f"{PYTHON} -m twinstamp.demo.dpi in0 {name}.json") for name in DPI_SERVERS
    ]
    cleaned = [capture(folder, name, name, "in0") for name in DPI_SERVERS]
    for program in ends:
        program.wait_listening(sockets=1)
    before = {name: counter(name, "eth0", "tx_packets") for name in ENDPOINTS}
    feed.wait_listening(sockets=1)
    appliance = Program(folder, "twinstamp", "appliance", f"{PYTHON} -m twinstamp.cli run appliance.toml")
    appliance.wait_listening(sockets=2)
    for program in (*engines, *cleaned):
        program.wait_listening(sockets=2)
    time.sleep(0.5)

    console.print("letting them talk: downloads, DNS look-ups, a bulk transfer, many short connections")
    began = time.monotonic()
    traffic(folder, quick=quick)
    took = time.monotonic() - began
    quiet_at = time.monotonic()
    retransmitted = {name: snmp(ends[i])["RetransSegs"] for i, name in enumerate(ENDPOINTS)}
    time.sleep(1)
    sent = {name: counter(name, "eth0", "tx_packets") - first for name, first in before.items()}
    mirrored = counter("switch", "span", "tx_packets")

    console.print("stopping the appliance; waiting for nDPI to give out its last flows")
    appliance.stop()
    received = {name: counter(name, "in0", "rx_packets") for name in DPI_SERVERS}
    for program in (*cleaned, feed, *ends):
        program.stop()
    time.sleep(max(0.0, quiet_at + IDLE_S + 1 - time.monotonic()))
    for i, _ in enumerate(DPI_SERVERS):
        within("appliance", f"{PYTHON} -m twinstamp.demo.dpi --nudge out{i}")
    time.sleep(1.5)
    for program in engines:
        program.stop()
    for program in servers:
        program.process.kill()
    lost = 0
    for program in (*cleaned, feed, *ends):
        # Packets received/dropped on interface 'mon': 70876/0 (…)
        said = re.findall(r"received/dropped on interface \S+ \d+/(\d+)", program.log.read_text())
        if not said:
            raise program.fail("did not say what it lost")
        lost += sum(map(int, said))
    (folder / "world.json").write_text(
        json.dumps(
            {
                "traffic_s": took,
                "sent_frames": sent,
                "mirrored_frames": mirrored,
                "received_frames": received,
                "kernel_retransmissions": retransmitted,
                "capture_drops": lost,
                "missing": missing,
            },
            indent=1,
        )
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m twinstamp.demo.world")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)

    def follow_the_caller() -> None:
        # Standard input is a pipe that only the caller holds open: its end is the caller's end. We are
        # process 1 of our namespace, so the kernel kills all others with us.
        while os.read(0, 4096):
            pass
        os._exit(3)

    threading.Thread(target=follow_the_caller, daemon=True).start()
    console.print("building the network: " + ", ".join(NAMESPACES))
    try:
        build()
    except DeviceError as error:
        sys.stderr.write(f"{error}\n")
        return CANNOT_BUILD
    try:
        demonstrate(arguments.folder, console, quick=arguments.quick)
    except DeviceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
