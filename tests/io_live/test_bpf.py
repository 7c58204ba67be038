# SPDX-License-Identifier: Apache-2.0
"""The filter compiler against tcpdump -ddd (the same libpcap, driven by its own program). No root."""

from __future__ import annotations

import ctypes
import shutil
import struct
import subprocess

import pytest
from twinstamp.errors import ConfigError, DeviceError
from twinstamp.io import bpf


def by_tcpdump(expression: str, link: str, snaplen: int) -> bytes:
    command = ["tcpdump", "-y", link, "-s", str(snaplen), "-ddd", expression]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout
    lines = [tuple(map(int, line.split())) for line in text.splitlines()[1:]]
    return b"".join(struct.pack("=HBBI", *line) for line in lines)


@pytest.mark.parametrize("link", [("EN10MB", 1), ("RAW", 101), ("LINUX_SLL", 113)])
@pytest.mark.parametrize(
    "expression", ["", "tcp port 80", "ip6 and udp", "host 10.0.0.1 or net 192.0.2.0/24"]
)
def test_same_code_as_tcpdump(expression: str, link: tuple[str, int]) -> None:
    if shutil.which("tcpdump") is None:
        pytest.skip("tcpdump is not installed")
    for snaplen in (96, bpf.MAX_SNAPLEN):
        ours = bpf.compile_filter(expression, linktype=link[1], snaplen=snaplen)
        assert ours == by_tcpdump(expression, link[0], snaplen)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("tcp port", "syntax error"),
        ("host no-such-host.invalid", "no-such-host.invalid"),
        ("portrange 1-99999", "99999"),
        ("(" * 400, "filter"),
        ("udp \u2192 tcp", "only ASCII"),
        ("udp\0tcp", "zero byte"),
    ],
)
def test_errors_carry_libpcaps_words(expression: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        bpf.compile_filter(expression)


def test_snaplen_is_checked() -> None:
    for snaplen in (0, -1, bpf.MAX_SNAPLEN + 1):
        with pytest.raises(ConfigError, match=f"snaplen is {snaplen} bytes"):
            bpf.compile_filter("tcp", snaplen=snaplen)
    assert struct.unpack("=HBBI", bpf.keep_bytes(64)) == (0x06, 0, 0, 64)


def test_without_libpcap(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(bpf, "_library", None)
    monkeypatch.setattr(ctypes, "CDLL", absent)
    with pytest.raises(DeviceError, match="libpcap is not installed"):
        bpf.compile_filter("tcp")
