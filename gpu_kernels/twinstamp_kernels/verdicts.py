# SPDX-License-Identifier: Apache-2.0
"""What a duplicate window says of frames, on whatever device it runs (docs/duplicates.md)."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable

from twinstamp_kernels import _cpu

PROFILES: dict[str, int] = _cpu.PROFILES  # name → type code in verdicts
LAYERS: dict[str, int] = _cpu.LAYERS
CLASSES: dict[str, int] = _cpu.CLASSES  # frame classes, for ``keep``
GUARDS: dict[str, int] = _cpu.GUARDS  # why a copy goes on, as bits
TAGS: int = _cpu.TAGS  # columns of Digests.tags

# Among the tunnel ends: what has no addresses of its own (Opening in twinstamp/parse.h).
OPENINGS = {"mpls": 2, "mac-in-mac": 4}


def tunnel_ends(names: Iterable[str]) -> bytes:
    """The tunnels that the layer inner opens: the bytes of a TunnelEnds (twinstamp/parse.h).

    names: addresses or networks ("192.0.2.1", "2001:db8::/32"), between two of which a tunnel runs; "mpls"
    (label stacks) or "mac-in-mac" (PBB, FabricPath). None of them: b"", everybody's tunnels are opened.
    Raises ValueError for what is neither, and for more than 64 networks.
    """
    names = tuple(names)
    if not names:
        return b""
    import ipaddress
    import struct

    rows, opened = b"", 0
    for name in names:
        if name in OPENINGS:
            opened |= OPENINGS[name]
            continue
        try:
            network = ipaddress.ip_network(name)
        except ValueError as error:
            raise ValueError(
                f"tunnel {name!r}: neither an address nor a network nor {' nor '.join(OPENINGS)} ({error})"
            ) from error
        address, length = int(network.network_address), network.prefixlen
        if network.version == 4:  # as the IPv6 address that it maps to
            address, length = address | 0xFFFF << 32, length + 96
        mask = (1 << 128) - (1 << 128 - length)
        rows += struct.pack("=4Q", *(part for word in (address, mask) for part in divmod(word, 1 << 64)))
    most: int = _cpu.MOST_TUNNEL_ENDS
    if len(rows) > 32 * most:
        raise ValueError(f"{len(rows) // 32} tunnel networks: {most} at most")
    return struct.pack("=2I", len(rows) // 32, opened) + rows.ljust(32 * most, b"\0")


TYPE_CHECKING = False  # as in twinstamp.dedup: typing costs start-up time
if TYPE_CHECKING:
    from typing import Any, NamedTuple

    class Verdicts(NamedTuple):
        keep: Any
        type: Any
        distance: Any
        delay_ns: Any

    class Digests(NamedTuple):
        key: Any
        second: Any = None
        two: Any = None
        tags: Any = None
        frame_class: Any = None
else:
    Verdicts = namedtuple("Verdicts", "keep type distance delay_ns")
    Verdicts.__doc__ = """Per frame, as buffers that NumPy takes without a copy:

    keep u8[n]: 0 where the frame is a duplicate, else 1. type u8[n]: of the match (PROFILES), 0: none; a
    frame that a class policy keeps, or a guard lets go on, has a type and keep = 1. distance u32[n]: frames
    back to the matched
    frame. delay_ns i64[n]: its stamp's distance, negative where stamps run backwards.
    """
    Digests = namedtuple("Digests", "key second two tags frame_class", defaults=(None, None, None, None))
    Digests.__doc__ = """Keys of n frames, what a window needs of them. Contiguous arrays, [n, k] or [n * k].

    key u64[n, 2]: frames are copies where their keys are equal. second u64[n, 2], two u8[n] (profile nat
    only): a second key, which counts where two is set; frames are copies where either is equal.
    tags u32[n, 4] (all profiles but exact): of copies, tag p - 1 is equal where they are copies under the
    narrower profile p too, which tells a verdict's type; the last holds the TTL or hop limit in its low byte
    and the number of tunnels above, for the guards (0: none). frame_class u8[n] (windows with ``keep``):
    codes
    (CLASSES).

    None: a column that the profile does not have. All keys of one stream are computed under one secret.
    """
