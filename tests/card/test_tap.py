# SPDX-License-Identifier: Apache-2.0
"""Two TAP interfaces in a namespace of their own, joined by a simulated cable between two ports."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time

import pytest
from twinstamp.card.tap import CardTap
from twinstamp.errors import ConfigError, DeviceError

from tests.io_live.conftest import ip, net, netns  # noqa: F401

ETH_P_ALL = 3


@pytest.fixture
def joined(net):  # noqa: F811
    """(make, sockets): CardTap of ports 0 and 1 with its run() in a thread, a packet socket for each end."""
    opened: list = []

    def make(**options):
        tap = CardTap((0, 1), name="tst%d", cables=[(0, 1, 100)], **options)
        opened.append(tap)
        ends = []
        for name in tap.names:
            ip("link", "set", "dev", name, "up")
            end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
            end.bind((name, 0))
            end.settimeout(10)
            opened.append(end)
            ends.append(end)
        thread = threading.Thread(target=tap.run)
        thread.start()
        opened.append(type("Stop", (), {"close": staticmethod(lambda: (tap.stop(), thread.join()))}))
        return tap, ends

    yield make
    for thing in reversed(opened):
        thing.close()


def receive(end: socket.socket, count: int) -> list[bytes]:
    """Frames that came in at that end, not those sent there."""
    got = []
    while len(got) < count:
        frame, address = end.recvfrom(16384)
        if address[2] != socket.PACKET_OUTGOING:
            got.append(frame)
    return got


def frame(number: int, size: int) -> bytes:
    return (
        bytes([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xB5]) + number.to_bytes(4, "big") + bytes(size - 18)
    )


@pytest.mark.root
def test_frames_cross_both_ways(joined):
    tap, (a, b) = joined()
    there = [frame(n, 60 + 7 * n) for n in range(20)]
    back = [frame(100 + n, 1514) for n in range(5)]
    for content in there:
        a.send(content)
    for content in back:
        b.send(content)
    assert receive(b, 20) == there
    assert receive(a, 5) == back
    tap.stop()
    time.sleep(0.2)
    statistics = tap.statistics()
    assert statistics["dropped"] == 0
    one = statistics["interfaces"]["tst1"]
    assert one["counters"]["good"] >= 20 and one["not_sent"] == 0 and one["to_host"] >= 20


@pytest.mark.root
def test_more_than_the_card_holds_waits_in_the_interface(joined):
    """Ten times the transmit ring, more frames than one look takes: all arrive, in order."""
    tap, (a, b) = joined()
    rng = random.Random(5)
    sent = [frame(n, rng.randint(60, 1514)) for n in range(800)]
    assert sum(map(len, sent)) > 9 * (1 << 16)
    for content in sent:
        a.send(content)
    assert receive(b, len(sent)) == sent
    tap.stop()
    time.sleep(0.2)
    ends = tap.statistics()["interfaces"]
    assert ends["tst0"]["from_host"] >= 800 and ends["tst0"]["not_sent"] == 0
    assert ends["tst1"]["to_host"] >= 800 and ends["tst1"]["refused_by_host"] == 0


@pytest.mark.root
def test_frames_that_no_card_takes_are_counted(joined):
    tap, (a, b) = joined()
    for name in tap.names:
        ip("link", "set", "dev", name, "mtu", "9100")
    a.send(frame(1, 9022))
    a.send(frame(2, 9023))
    a.send(frame(3, 60))
    # 9022 bytes are over the receiver's limit of 9018 with FCS, which tags alone raise.
    assert receive(b, 1) == [frame(3, 60)]
    tap.stop()
    time.sleep(0.2)
    ends = tap.statistics()["interfaces"]
    assert ends["tst0"]["not_sent"] == 1 and ends["tst1"]["counters"]["oversize"] == 1


@pytest.mark.root
def test_interface_that_is_taken_away_ends_it(net):  # noqa: F811
    with CardTap((0,), name="tst%d") as tap:
        ip("link", "set", "dev", "tst0", "up")
        ip("link", "delete", "dev", "tst0")
        with pytest.raises(DeviceError, match=r"tst0: .*bad state"):
            tap.run(5)


@pytest.mark.root
def test_trailer_carries_stamp_sequence_and_port(joined):
    _, (a, b) = joined(trailer=True)
    sent = [frame(n, 60) for n in range(4)]
    for content in sent:
        a.send(content)
    last = 0
    for number, got in enumerate(receive(b, 4)):
        assert got[:60] == sent[number]
        magic, stamp, sequence, port, rest = struct.unpack(">4sQIB3s", got[60:])
        assert (magic, sequence, port, rest) == (b"TWNS", number, 1, bytes(3))
        assert stamp > last
        last = stamp


@pytest.mark.parametrize(
    ("ports", "options", "message"),
    [
        ((), {}, "different ones"),
        ((0, 0), {}, "different ones"),
        ((0, 1), {"name": "tap"}, "need %d"),
        ((0,), {"name": "a/b"}, "cannot be called"),
        ((0,), {"name": "x" * 16}, "cannot be called"),
        ((0,), {"cables": [(0, 1, 50), (1, 2, 50)]}, "two cables"),
    ],
)
def test_bad_options(ports, options, message):
    with pytest.raises(ConfigError, match=message):
        CardTap(ports, **options)
