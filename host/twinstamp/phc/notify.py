# SPDX-License-Identifier: Apache-2.0
"""Words to systemd: ready, watchdog, status (sd_notify(3))."""

from __future__ import annotations

import os
import socket


def notify(text: str) -> bool:
    """Sends lines of sd_notify's; False where no service manager waits for them, or it takes none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
            to.sendto(text.encode(), address)
    except OSError:
        return False
    return True
