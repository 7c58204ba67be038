# SPDX-License-Identifier: Apache-2.0
"""The card's raw counters by the names of RFC 2819 (RMON), 2863 (interfaces) and 3635 (Ether-like).

The card counts each frame once per group; the standard objects are sums of those. Left out rather than
given as 0: alignment errors, which do not exist on GMII, etherStatsCollisions and the half-duplex objects of
RFC 3635 (the card is full duplex only). Sent frames are never damaged, so they have no error counters; pause
frames are counted and obeyed by nobody.
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
        "ifInDiscards": raw["dropped"] + raw["discarded"] + raw["duplicates_dropped"],
        "dot3HCStatsFrameTooLongs": raw["oversize"],
        "dot3HCStatsSymbolErrors": raw["symbol_errors"],
        "dot3HCInPauseFrames": raw["pause"],
    }  # fmt: skip


def sent(raw: Mapping[str, int]) -> dict[str, int]:
    """Standard objects of what a port has sent. What missed its launch time is in raw["tx_late"] only."""
    return {
        "etherStatsOctets": raw["tx_octets"],
        "etherStatsPkts": raw["tx_frames"],
        "etherStatsBroadcastPkts": raw["tx_broadcast"],
        "etherStatsMulticastPkts": raw["tx_multicast"],
        "ifHCOutOctets": raw["tx_octets"],
        "ifHCOutUcastPkts": raw["tx_frames"] - raw["tx_broadcast"] - raw["tx_multicast"],
        "ifHCOutMulticastPkts": raw["tx_multicast"],
        "ifHCOutBroadcastPkts": raw["tx_broadcast"],
    }
