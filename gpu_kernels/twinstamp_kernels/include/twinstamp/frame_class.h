// SPDX-License-Identifier: Apache-2.0
// Which kind of traffic a frame is, for policies such as "keep repeats of ARP" (docs/duplicates.md).
#pragma once

#include "twinstamp/parse.h"

namespace twinstamp {

// Traffic that repeats itself, bit for bit, without being mirrored twice.
enum FrameClass : u8 {
    CLASS_OTHER = 0,
    CLASS_ARP = 1,
    CLASS_ND = 2,   // ICMPv6 133-137, RFC 4861
    CLASS_MLD = 3,  // ICMPv6 130-132 and 143, RFC 2710 and 3810
    CLASS_IGMP = 4,
    CLASS_LLC = 5,  // 802.3 length field: STP, CDP, IS-IS
    CLASS_LLDP = 6,
    CLASS_SLOW = 7,  // slow protocols, IEEE 802.3 annex 57A: LACP, OAM
    CLASS_EAPOL = 8,
    CLASS_PAUSE = 9,  // MAC control
    CLASS_CFM = 10,   // continuity checks, IEEE 802.1ag
    CLASS_LOOP = 11,  // Ethernet configuration test, 0x9000
    CLASS_VRRP = 12,  // RFC 5798
    CLASS_COUNT = 13,
};

// Class of a frame whose headers are `l`. The network layer may be cut short.
TS_HD u8 frame_class(const u8* frame, const Layers& l) {
    if (l.kind == Network::llc) return CLASS_LLC;
    switch (l.ethertype) {
        case ETHER_ARP:
            return CLASS_ARP;
        case 0x88CC:
            return CLASS_LLDP;
        case 0x8809:
            return CLASS_SLOW;
        case 0x888E:
            return CLASS_EAPOL;
        case 0x8808:
            return CLASS_PAUSE;
        case 0x8902:
            return CLASS_CFM;
        case 0x9000:
            return CLASS_LOOP;
        default:
            break;
    }
    if (l.kind != Network::ipv4 && l.kind != Network::ipv6) return CLASS_OTHER;
    if (l.protocol == 2 && l.kind == Network::ipv4) return CLASS_IGMP;
    if (l.protocol == 112) return CLASS_VRRP;
    if (l.protocol == IP_ICMPV6 && l.kind == Network::ipv6 && l.transport < l.network_end) {
        const u8 type = frame[l.transport];
        if (type >= 133 && type <= 137) return CLASS_ND;
        if ((type >= 130 && type <= 132) || type == 143) return CLASS_MLD;
    }
    return CLASS_OTHER;
}

// Whether something in the packet tells two sendings of the same content apart: a non-zero IP-ID, or TCP
// sequence numbers used up (data, SYN or FIN). Without, a host that says the same thing twice sends the
// same bytes twice: resets, bare acknowledgements, datagrams with an IP-ID of 0 and all IPv6 ones.
TS_HD bool is_identified(const u8* frame, const Layers& l) {
    if (l.kind == Network::ipv4 && read_be16(frame + l.network + 4) != 0) return true;
    if ((l.kind != Network::ipv4 && l.kind != Network::ipv6) || l.protocol != IP_TCP ||
        l.transport == NO_OFFSET || l.network_end - l.transport < 14) {
        return false;
    }
    const u8* tcp = frame + l.transport;
    // By the length the packet claims: a capture may have cut its data off.
    const u32 claimed =
        l.kind == Network::ipv4 ? read_be16(frame + l.network + 2) : 40u + read_be16(frame + l.network + 4);
    const u32 headers = l.transport - l.network + (tcp[12] >> 4) * 4u;
    return (tcp[13] & 0x03) != 0 || claimed > headers;
}

// Class by the frame's outermost headers, or innermost ones: those that a layer = inner feed repeats.
TS_HD u8 frame_class(const u8* frame, u32 caplen, u16 linktype, Layer layer = Layer::outer,
                     const TunnelEnds* ends = nullptr) {
    Layers l;
    parse_frame(frame, caplen, linktype, layer, l, ends);
    return frame_class(frame, l);
}

}  // namespace twinstamp
