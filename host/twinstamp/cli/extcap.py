# SPDX-License-Identifier: Apache-2.0
"""Wireshark's extcap protocol (Wireshark Developer's Guide, "Extcap"): the card as an interface."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twinstamp import __version__
from twinstamp.errors import ConfigError, DeviceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

_INTERFACE = "twinstamp-sim"
_DEFAULT_TEST_FRAMES = 1000  # without a capture to play, something is to be seen


def run(options: argparse.Namespace, capture_to: Callable[[argparse.Namespace, str], dict[str, Any]]) -> int:
    if options.install is not None:
        return _install(options.install)
    if options.extcap_interfaces:
        print(f"extcap {{version={__version__}}}{{display=Twinstamp cards}}")
        print(f"interface {{value={_INTERFACE}}}{{display=Twinstamp card, simulated}}")
        return 0
    if options.extcap_interface != _INTERFACE:
        raise ConfigError(
            f"extcap: unknown interface {options.extcap_interface!r}; this command is for Wireshark, "
            "see --install"
        )
    if options.extcap_dlts:
        print("dlt {number=1}{name=EN10MB}{display=Ethernet}")
        return 0
    if options.extcap_config:
        _print_config()
        return 0
    if not options.capture or options.fifo is None:
        raise ConfigError("extcap: --capture needs --fifo")
    if options.extcap_capture_filter:
        raise ConfigError("extcap: the card has no capture filter; use a display filter")
    options.play = options.play or None
    if options.play is not None:
        options.test_frames = 0
    elif not options.test_frames:
        options.test_frames = _DEFAULT_TEST_FRAMES
    try:
        capture_to(options, options.fifo)
    except DeviceError as error:
        if error.errno != errno.EPIPE:
            raise
        # Wireshark has what it wanted (tshark -c) and closed the pipe: no fault.
    return 0


def _print_config() -> None:
    arguments = (
        ("play", "Capture to play", "fileselect", "put onto the simulated card's wires", "{mustexist=true}"),
        (
            "test-frames",
            "Test frames",
            "integer",
            "numbered frames, where there is no capture",
            f"{{range=1,10000000}}{{default={_DEFAULT_TEST_FRAMES}}}",
        ),
        ("ports", "Ports", "string", "that frames go into, as 0,1", "{default=0}"),
        ("longest-gap", "Longest gap", "string", "longer ones are shortened", "{default=10us}"),
    )
    for number, (name, display, kind, tip, more) in enumerate(arguments):
        print(
            f"arg {{number={number}}}{{call=--{name}}}{{display={display}}}"
            f"{{type={kind}}}{{tooltip={tip}}}{more}"
        )


def _install(folder: str) -> int:
    """A starter that runs this very installation."""
    place = Path(folder) if folder else _extcap_folder()
    starter = place / "twinstamp-extcap"
    try:
        place.mkdir(parents=True, exist_ok=True)
        starter.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m twinstamp.cli card extcap "$@"\n', "utf-8")
        starter.chmod(0o755)
    except OSError as error:
        raise ConfigError(f"{starter}: cannot be written: {error.strerror}; give --install DIR") from error
    print(f"{starter}: Wireshark shows the card as {_INTERFACE} from its next start on")
    return 0


def _extcap_folder() -> Path:
    """Where this Wireshark looks: its place has moved between versions, and 4.0 has one for all users."""
    named = os.environ.get("WIRESHARK_EXTCAP_DIR")
    if named and os.geteuid() != 0:  # as root, Wireshark ignores it
        return Path(named)
    tshark = shutil.which("tshark")
    if tshark is None:
        raise ConfigError(
            "tshark, which says where Wireshark's extcap folder is, is not here: give --install DIR"
        )
    listing = subprocess.run(
        [tshark, "-G", "folders"], capture_output=True, text=True, timeout=30, check=False
    ).stdout
    folders = {
        name: Path(place.strip()) for name, _, place in (line.partition(":") for line in listing.splitlines())
    }
    own, shared = folders.get("Personal Extcap path"), folders.get("Extcap path")
    if own is not None:
        return own
    if shared is None:
        raise ConfigError("tshark -G folders names no extcap folder: give --install DIR")
    if not os.access(shared, os.W_OK):
        raise ConfigError(
            f"this Wireshark has one extcap folder, {shared}, which you cannot write: install as root, or "
            "give --install DIR and start Wireshark with WIRESHARK_EXTCAP_DIR=DIR"
        )
    return shared
