# SPDX-License-Identifier: Apache-2.0
"""The card's raw counters by the names of RFC 2819 (RMON), 2863 (interfaces) and 3635 (Ether-like).

The card counts each frame once per group; the standard objects are sums of those. Left out rather than
given as 0: alignment errors, which do not exist on GMII, etherStatsCollisions, the half-duplex objects of
RFC 3635 and pause frames, which are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping

# By their place in the counter memory (tx_counter_e of hdl/rtl/tx/twinstamp_tx_pkg.sv); None: not used.
TX_COUNTERS = (
    "octets_good", "octets_bad", "good", "broadcast", "multicast", "bad_fcs", "underruns", "dropped",
    "malformed", "launches", "late", None, None, None, None, None,
    "size_64", "size_127", "size_255", "size_511", "size_1023", "size_1518", "size_larger",
)  # fmt: skip

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
    """Standard objects of a port's transmit counters (TX_COUNTERS)."""
    return {
        "etherStatsOctets": raw["octets_good"] + raw["octets_bad"],
        "etherStatsPkts": raw["good"] + raw["bad_fcs"] + raw["underruns"],
        "etherStatsBroadcastPkts": raw["broadcast"],
        "etherStatsMulticastPkts": raw["multicast"],
        **{name: raw[counter] for name, counter in _SIZES.items()},
        "ifHCOutOctets": raw["octets_good"],
        "ifHCOutUcastPkts": raw["good"] - raw["broadcast"] - raw["multicast"],
        "ifHCOutMulticastPkts": raw["multicast"],
        "ifHCOutBroadcastPkts": raw["broadcast"],
        "ifOutDiscards": raw["dropped"],
        "ifOutErrors": raw["underruns"],
        "dot3HCStatsInternalMacTransmitErrors": raw["underruns"],
    }
