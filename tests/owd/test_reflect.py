# SPDX-License-Identifier: Apache-2.0
"""The reflector against scapy's STAMP and hostile packets, and with the sender over namespaces."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.stamp import ErrorEstimate, STAMPTestTLV
from scapy.contrib.stamp import STAMPSessionReflectorTestUnauthenticated as Reflected
from scapy.contrib.stamp import STAMPSessionSenderTestUnauthenticated as Test
from twinstamp import stamp
from twinstamp.cli import main
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.owd import reflect
from twinstamp.owd.kernel import Datagram, StampedSocket, SystemClock
from twinstamp.owd.reflect import Reflector, Rules, networks
from twinstamp.owd.report import Options
from twinstamp.owd.session import Plan, measure

from tests.owd.world import T0_NS

Test.__test__ = False
NOW = T0_NS + 123_456_789


class FakeSocket:
    """No network: what a Reflector asks of its socket."""

    port = 862
    sent = 0


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.ns = 10**12

    def __call__(self) -> int:
        return self.ns


LOCKED = SystemClock(True, 5000)


def reflector(clock: SystemClock = LOCKED, ticks: Clock | None = None, **rules) -> Reflector:
    return Reflector(
        FakeSocket(), Rules(**rules), clock=lambda: clock, now_ns=lambda: NOW, monotonic_ns=ticks or Clock()
    )


def datagram(data: bytes, source=("10.0.0.9", 40_000), *, destination="10.0.0.2", local="10.0.0.2", ttl=61):
    return Datagram(data, source, NOW - 1000, True, ttl, destination, local, 3)


def request(sequence: int = 5, *tlvs: bytes, ssid: int = 7, z: int = 0) -> bytes:
    packet = Test(seq=sequence, ssid=ssid, err_estimate=ErrorEstimate(S=1, Z=z, scale=3, multiplier=9))
    raw = bytearray(bytes(packet))
    raw[4:12] = (0xEE00000112345678).to_bytes(8, "big")
    return bytes(raw) + b"".join(tlvs)


@pytest.mark.parametrize("ptp", [False, True])
def test_every_field_as_scapy_reads_it(ptp: bool):
    answer, _ = reflector(ptp=ptp, tai_utc_s=37).answer(datagram(request()))
    packet = Reflected(answer)
    assert (packet.seq, packet.ssid, packet.seq_sender, packet.ttl_sender) == (5, 7, 5, 61)
    own, sender = packet.err_estimate, packet.err_estimate_sender
    assert (1, ptp) == (own.S, own.Z)
    assert (sender.S, sender.Z, sender.scale, sender.multiplier) == (1, 0, 3, 9)
    # The clock's 5 µs, the millisecond assumed until departures were measured, a nanosecond of rounding.
    said = own.multiplier * 2**own.scale / 2**32 * 1e9
    assert 1_005_001 <= said <= 1_005_001 * 1.01
    assert packet.getfieldval("mbz1") == 0 and packet.getfieldval("mbz2") == 0

    def utc_ns(at: int) -> int:
        high, low = struct.unpack_from("!II", answer, at)
        if ptp:
            return (high - 37) * 10**9 + low
        return (high - 2_208_988_800) * 10**9 + round(low * 10**9 / 2**32)

    assert (utc_ns(4), utc_ns(16)) == (NOW, NOW - 1000)
    assert answer[28:36] == (0xEE00000112345678).to_bytes(8, "big")
    assert packet.tlv_objects == []


def test_stateless_and_stateful_numbers():
    for stateful, want in ((False, [9, 3, 3]), (True, [0, 1, 2])):
        one = reflector(stateful=stateful)
        got = [Reflected(one.answer(datagram(request(n)))[0]).seq for n in (9, 3, 3)]
        assert got == want
    # Sessions are told apart by addresses, port and identifier.
    one = reflector(stateful=True)
    others = [datagram(request(5)), datagram(request(5, ssid=8)), datagram(request(5), ("10.0.0.9", 40_001)),
              datagram(request(5), ("10.0.0.8", 40_000)), datagram(request(5))]  # fmt: skip
    assert [Reflected(one.answer(d)[0]).seq for d in others] == [0, 0, 0, 0, 1]


def test_an_unsynchronised_clock_is_said():
    answer, _ = reflector(SystemClock(False, -1)).answer(datagram(request()))
    assert int.from_bytes(answer[12:14], "big") == stamp.ERROR_UNKNOWN
    answer, _ = reflector(SystemClock(False, -1), bound_ns=10).answer(datagram(request()))
    assert answer[12] & 0x80


def test_tlvs():
    follow = struct.pack("!BBH16x", 0x80, 7, 16)
    one = reflector()
    data = request(5, follow, struct.pack("!BBH4s", 0x80, 1, 4, b"abcd"), struct.pack("!BBH2x", 0x80, 2, 2))
    answer, session = one.answer(datagram(data))
    tlvs = Reflected(answer).tlv_objects
    assert [(int(t.flags), t.type, t.len) for t in tlvs] == [(0, 7, 16), (0, 1, 4), (0x80, 2, 2)]  # U
    assert answer[44 + 4 : 64] == bytes(16) and b"abcd" in answer
    session.followed = (4, 0x1122334455667788)
    answer, _ = one.answer(datagram(data))
    assert answer[48:64] == struct.pack("!IQB3x", 4, 0x1122334455667788, 2)
    assert bytes(STAMPTestTLV(answer[44:])).startswith(answer[44:64])
    for bad in (struct.pack("!BBH", 0, 1, 9), struct.pack("!BBH8x", 0, 7, 8)):
        answer, _ = one.answer(datagram(request(5, bad)))
        assert (answer[44], len(answer)) == (stamp.TLV_MALFORMED, 44 + len(bad))
    for n in (1, 2, 3):
        assert one.answer(datagram(request(5, bytes(n))))[0][44:] == bytes(n)


def reflected() -> bytes:
    return reflector().answer(datagram(request()))[0]


@pytest.mark.parametrize("reason,made", [
    ("short", lambda: datagram(request()[:43])),
    ("short", lambda: datagram(b"")),
    ("reflected", lambda: datagram(reflected())),
    ("source_port", lambda: datagram(request(), ("10.0.0.9", 862))),
    ("source_port", lambda: datagram(request(), ("10.0.0.9", 0))),
    ("source_port", lambda: datagram(request(), ("10.0.0.9", 53))),
    ("source_address", lambda: datagram(request(), ("224.0.0.1", 4000))),
    ("source_address", lambda: datagram(request(), ("255.255.255.255", 4000))),
    ("source_address", lambda: datagram(request(), ("0.0.0.0", 4000))),
    ("source_address", lambda: datagram(request(), ("ff02::1", 4000, 0, 0))),
    ("not_unicast", lambda: datagram(request(), destination="10.0.0.255")),
    ("not_unicast", lambda: datagram(request(), destination="ff02::1", local="ff02::1")),
    ("not_allowed", lambda: datagram(request(), ("192.0.2.1", 4000))),
    ("not_allowed", lambda: datagram(request(), ("2001:db8::1", 4000, 0, 0))),
])  # fmt: skip
def test_not_answered(reason: str, made):
    one = reflector(allowed=networks(["10.0.0.0/8", "224.0.0.0/4", "0.0.0.0/8", "255.0.0.0/8", "ff00::/8"]))
    assert one.answer(made()) is None
    assert {name for name, n in one.counts.items() if n} == {reason}


def test_low_ports_when_asked_for():
    assert reflector(low_ports=True).answer(datagram(request(), ("10.0.0.9", 53))) is not None
    assert reflector(low_ports=True).answer(datagram(request(), ("10.0.0.9", 862))) is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=80))
def test_no_amplification_whatever_comes(raw: bytes, tail: bytes):
    one = reflector(stateful=True)
    for data in (raw, request(1) + tail, request(1, struct.pack("!BB", 0, 7)) + tail):
        answer = one.answer(datagram(data))
        assert answer is None or len(answer[0]) == len(data)


def test_rates_are_limited():
    ticks = Clock()
    one = reflector(ticks=ticks, rate=100, source_rate=50)
    answers = sum(one.answer(datagram(request(n))) is not None for n in range(200))
    assert answers == 10  # the bucket
    ticks.ns += 10**9
    assert sum(one.answer(datagram(request(n))) is not None for n in range(200)) == 10
    for host in range(200):
        one.answer(datagram(request(1), (f"10.0.1.{host}", 4000)))
    assert one.counts["rate"] > 0 and one.counts["source_rate"] == 380
    for _ in range(100):  # at a steady 40/s nothing is refused
        ticks.ns += 25_000_000
        assert one.answer(datagram(request(1))) is not None


def test_memory_is_bounded(monkeypatch):
    monkeypatch.setattr(reflect, "_MOST_SOURCES", 10)
    ticks = Clock()
    one = reflector(ticks=ticks, stateful=True, rate=10**6)
    for host in range(100):
        one.answer(datagram(request(1), (f"10.0.1.{host}", 4000)))
    assert (len(one._sessions), len(one._sources), one.counts["sessions"]) == (10, 10, 90)
    ticks.ns += 901 * 10**9  # REFWAIT is over
    assert one.answer(datagram(request(1), ("10.0.2.1", 4000))) is not None


@pytest.mark.parametrize("call", [
    lambda: Rules(rate=0), lambda: Rules(bound_ns=-1), lambda: networks(["10.0.0.1/8"]),
    lambda: Plan(count=0), lambda: Plan(gap_ns=10), lambda: Plan(law="x"), lambda: Plan(payload=63),
    lambda: Plan(session=0),
    lambda: Plan(payload=44), lambda: StampedSocket("x", 1), lambda: StampedSocket("127.0.0.1", 70_000),
])  # fmt: skip
def test_bad_options(call):
    with pytest.raises(ConfigError):
        call()


# Over sockets


class Serving:
    """A reflector in a thread on a loopback address."""

    def __init__(self, address: str, **rules) -> None:
        self.socket = StampedSocket(address, 0)
        self.reflector = Reflector(self.socket, Rules(bound_ns=1000, **rules))
        self._stop = False
        self._thread = threading.Thread(target=self.reflector.serve, args=(lambda: self._stop,))

    def __enter__(self) -> Serving:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop = True
        self._thread.join()
        self.socket.close()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("ptp,stateful,law", [(False, False, "poisson"), (True, True, "constant")])
def test_both_directions_over_loopback(address: str, ptp: bool, stateful: bool, law: str):
    with Serving(address, ptp=ptp, stateful=stateful) as serving:
        plan = Plan(count=60, gap_ns=1_000_000, law=law, ptp=ptp, payload=120)
        report = measure(address, plan, port=serving.socket.port, bound_ns=1000)
    assert serving.reflector.counts["answered"] == 60
    ways = {train.key.way: train for train in report.trains}
    for train in ways.values():
        assert (train.loss.sent, train.loss.lost, train.delay.n) == (60, 0, 60)
        # One clock on both ends: the truth is that delays are positive and below what a scheduler takes.
        assert train.delay.minimum > 0 and train.flagged["outside_bound"] == 0
        assert train.bound.undefined == 0
    assert ways["there"].loss.known
    assert report.experiment["departures_by_kernel"] == 60
    assert report.experiment["reflector_departures_followed_up"] >= 50
    assert ways["there"].hops == {0: 60} == ways["back"].hops
    assert report.pairs and report.json()["directions"]


def test_answers_to_nothing_we_sent_are_no_answers():
    """A reflector gone mad: other session, other time, other number, other length, beside the right one."""
    with Serving("127.0.0.1") as serving:
        send = serving.socket.send

        def forge(data: bytes, to, **where) -> bool:
            for at in (15, 24, 35):  # session, the sender's number, the sender's timestamp
                forged = bytearray(data)
                forged[at] ^= 0x55
                send(bytes(forged), to, **where)
            send(data + b"x", to, **where)
            return send(data, to, **where)

        serving.socket.send = forge
        plan = Plan(count=20, gap_ns=2_000_000, law="constant")
        report = measure("127.0.0.1", plan, port=serving.socket.port, bound_ns=1000)
    assert [train.duplication.arrived for train in report.trains] == [20, 20]
    assert [train.duplication.copies for train in report.trains] == [0, 0]
    assert report.experiment["strange_answers"] == 80


def test_lost_without_a_reflector(capsys):
    with StampedSocket("127.0.0.1", 0) as silent:
        arguments = ["owd", "stamp", "127.0.0.1", "--port", str(silent.port), "--count", "3", "--gap", "1ms",
                     "--bound", "1us", "--wait", "30ms", "--timeout", "5ms", "--json", "-"]  # fmt: skip
        assert main(arguments) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["trains"][0]["loss"]["lost"], said["trains"][0]["loss"]["sent"]) == (3, 3)


def test_a_host_without_a_reflector_refuses():
    """Its ICMP errors keep no packet from leaving."""
    with StampedSocket("127.0.0.1", 0) as closed:
        port = closed.port
    plan = Plan(count=6, gap_ns=1_000_000, law="constant")
    options = Options(timeout_ns=5_000_000)
    report = measure("127.0.0.1", plan, port=port, bound_ns=1, wait_ns=30_000_000, options=options)
    assert (report.trains[0].loss.sent, report.trains[0].loss.lost) == (6, 6)
    assert report.experiment["not_taken_by_kernel"] == 0


def test_refused_before_a_packet_leaves(capsys):
    with Serving("127.0.0.1") as serving:
        port = serving.socket.port
        with pytest.raises(ConfigError, match="does not follow a reference"):
            measure("127.0.0.1", Plan(count=1), port=port, clock=lambda: SystemClock(False, -1))
        with pytest.raises(ConfigError, match="no such host"):
            measure("no-such-host.invalid", Plan(count=1), bound_ns=1)
        assert sum(serving.reflector.counts.values()) == 0
        loose = Options(unsynchronised=True)
        plan = Plan(count=5, gap_ns=1_000_000)
        report = measure("127.0.0.1", plan, port=port, clock=lambda: SystemClock(False, -1), options=loose)
        assert report.unsynchronised == 10 and report.json()["options"]["allow_unsynchronised"]


def test_an_address_of_nobody():
    with pytest.raises(DeviceError):
        StampedSocket("192.0.2.1", 0)


@pytest.mark.root
def test_over_namespaces(two_hosts):
    """Two hosts over veth: the commands themselves, and the delay is that of one shared clock."""
    there, here = two_hosts
    prefix = ["ip", "netns", "exec"]
    command = [sys.executable, "-m", "twinstamp.cli"]
    serving = subprocess.Popen(
        [*prefix, there, *command, "reflect", "--bound", "1us", "--stateful", "--interface", "va"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert "862" in serving.stderr.readline()
        done = subprocess.run(
            [*prefix, here, *command, "owd", "stamp", "10.9.0.1", "--count", "300", "--gap", "1ms", "--bound",
             "1us", "--json", "-"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        too_large = subprocess.run(
            [*prefix, here, *command, "owd", "stamp", "10.9.0.1", "--payload", "1473", "--bound", "1us"],
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert (too_large.returncode, "MTU is 1500" in too_large.stderr) == (2, True), too_large.stderr
        # No reflection of what goes to the subnet's broadcast address.
        script = (
            "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
            "s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1);"
            "s.sendto(bytes(44), ('10.9.0.255', 862))"
        )
        subprocess.run([*prefix, here, sys.executable, "-c", script], check=True, timeout=20)
        time.sleep(0.2)
    finally:
        serving.send_signal(signal.SIGTERM)
        _, said = serving.communicate(timeout=20)
    report = json.loads(done.stdout)
    assert [train["train"]["way"] for train in report["trains"]] == ["back", "there"]
    for train in report["trains"]:
        assert (train["loss"]["sent"], train["loss"]["lost"], train["hops"]) == (300, 0, {"0": 300})
        assert train["delay_ns"]["min"] > 0 and train["flagged"]["outside_bound"] == 0
    assert "300 answered" in said and "'not_unicast': " in said


@pytest.fixture
def two_hosts():
    """Two namespaces, 10.9.0.1 on va and 10.9.0.2 on vb, made and removed here."""
    if os.geteuid() != 0:
        pytest.skip("not root: namespaces cannot be made")
    names = [f"tsowd-{os.getpid()}-{end}" for end in "ab"]
    steps = [
        *(f"ip netns add {name}" for name in names),
        f"ip -n {names[0]} link add va type veth peer name vb netns {names[1]}",
        f"ip -n {names[0]} addr add 10.9.0.1/24 brd + dev va",
        f"ip -n {names[1]} addr add 10.9.0.2/24 brd + dev vb",
        f"ip -n {names[0]} link set va up", f"ip -n {names[1]} link set vb up",
    ]  # fmt: skip
    try:
        try:
            for step in steps:
                subprocess.run(step.split(), check=True, capture_output=True, timeout=20)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no namespaces here: {error}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, timeout=20)


def test_networks():
    assert networks(["10.0.0.0/8"]) == (ipaddress.ip_network("10.0.0.0/8"),)
