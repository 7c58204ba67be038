# SPDX-License-Identifier: Apache-2.0
"""The card's raw counters by the names of RFC 2819 (RMON), 2863 (interfaces) and 3635 (Ether-like).

The card counts each frame once per group; the standard objects are sums of those. Left out rather than
given as 0: alignment errors, which do not exist on GMII, etherStatsCollisions, the half-duplex objects of
RFC 3635 and pause frames, which are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

_SIZES = {
    "etherStatsPkts64Octets": "size_64",
    "etherStatsPkts65to127Octets": "size_127",
    "etherStatsPkts128to255Octets": "size_255",
    "etherStatsPkts256to511Octets": "size_511",
    "etherStatsPkts512to1023Octets": "size_1023",
    "etherStatsPkts1024to1518Octets": "size_1518",
}


def received(raw: Mapping[str, int]) -> dict[str, int]:
    """Standard objects of a port's receive counters (COUNTERS of twinstamp.card.card)."""
    good = raw["good"] + raw["oversize"]
    unicast = raw["good"] - raw["broadcast"] - raw["multicast"]
    return {
        "etherStatsDropEvents": raw["dropped"],
        "etherStatsOctets": raw["octets_good"] + raw["octets_bad"],
        "etherStatsPkts": good
        + raw["fcs_errors"] + raw["undersize"] + raw["fragments"] + raw["jabbers"],
        "etherStatsBroadcastPkts": raw["broadcast"],
        "etherStatsMulticastPkts": raw["multicast"],
        "etherStatsCRCAlignErrors": raw["fcs_errors"],
        "etherStatsUndersizePkts": raw["undersize"],
        "etherStatsOversizePkts": raw["oversize"],
        "etherStatsFragments": raw["fragments"],
        "etherStatsJabbers": raw["jabbers"],
        **{name: raw[counter] for name, counter in _SIZES.items()},
        "ifHCInOctets": raw["octets_good"],
        "ifHCInUcastPkts": unicast,
        "ifHCInMulticastPkts": raw["multicast"],
        "ifHCInBroadcastPkts": raw["broadcast"],
        "dot3HCStatsFCSErrors": raw["fcs_errors"],
        "dot3HCStatsFrameTooLongs": raw["oversize"],
    }  # fmt: skip


def sent(raw: Mapping[str, int]) -> dict[str, int]:
    """Standard objects of what a port has sent; the card counts frames and octets only."""
    return {
        "etherStatsOctets": raw["tx_octets"],
        "etherStatsPkts": raw["tx_frames"],
        "ifHCOutOctets": raw["tx_octets"],
    }
