# SPDX-License-Identifier: Apache-2.0
"""The RTL of the card: what hdl/rtl/files.f lists."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def listed() -> list[str]:
    """Paths from the root, in the order in which they are to be read."""
    lines = (ROOT / "hdl/rtl/files.f").read_text().splitlines()
    return [name for name in (line.split("#")[0].strip() for line in lines) if name]
