# SPDX-License-Identifier: Apache-2.0
"""Frames in and out: capture files and network interfaces.

Live interfaces are imported when first named: work on files does not wait for them.
"""

from twinstamp.io.files import CaptureReader, CaptureWriter, create_capture, open_capture

TYPE_CHECKING = False  # as typing's, without importing it: that costs 5 ms
if TYPE_CHECKING:
    from twinstamp.io.live import Encap, Gre, LinkStatistics, LiveOutput, LiveSource, SendResult, Vlan, Vxlan
    from twinstamp.io.merge import Merge, MergeStatistics

__all__ = [
    "CaptureReader",
    "CaptureWriter",
    "Encap",
    "Gre",
    "LinkStatistics",
    "LiveOutput",
    "LiveSource",
    "Merge",
    "MergeStatistics",
    "SendResult",
    "Vlan",
    "Vxlan",
    "create_capture",
    "open_capture",
]

_LATER = {
    **dict.fromkeys(
        ("Encap", "Gre", "LinkStatistics", "LiveOutput", "LiveSource", "SendResult", "Vlan", "Vxlan"),
        "twinstamp.io.live",
    ),
    **dict.fromkeys(("Merge", "MergeStatistics"), "twinstamp.io.merge"),
}


def __getattr__(name: str) -> object:
    module = _LATER.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(module), name)
