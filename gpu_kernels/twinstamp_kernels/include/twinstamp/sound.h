// SPDX-License-Identifier: Apache-2.0
// Whether hosts take a packet, by what its headers say of themselves. One that no host takes must never stand
// for one that is taken: under profiles that leave those fields out it would hide it (docs/duplicates.md).
//
// Formats: RFC 1071 (sum), 791, 8200, 9293, 768, 3828 (UDP-Lite), 4340 (DCCP), 9260 (SCTP), 792, 4443.
#pragma once

#include "twinstamp/checksum.h"
#include "twinstamp/parse.h"

namespace twinstamp {

// Of the headers that `l` ends in: a TTL or hop limit of 0, a wrong IPv4 header checksum, a link header as no
// host takes it. What is no IP packet has none of these.
TS_HD bool is_sound(const u8* frame, const Layers& l) {
    if (l.odd) return false;
    const u8* packet = frame + l.network;
    if (l.kind == Network::ipv6) return packet[7] != 0;
    if (l.kind != Network::ipv4) return true;
    return packet[8] != 0 && sums_up(word_sum(packet, (packet[0] & 0x0Fu) * 4));
}

// As parse_frame, but nothing is understood (kind == Network::none) that lies behind a header no host takes.
TS_HD_APART bool parse_sound_frame(const u8* frame, u32 caplen, u16 linktype, Layer layer, Layers& out,
                                   const TunnelEnds* ends = nullptr) {
    bool understood = detail::parse_link(frame, caplen, linktype, detail::link_opening(ends, layer), out);
    understood = understood && is_sound(frame, out);
    if (layer == Layer::inner) {
        while (understood && detail::may_enter(ends, frame, out) &&
               detail::enter_tunnel(frame, out, understood)) {
            understood = understood && is_sound(frame, out);
        }
    }
    if (!understood) out.kind = Network::none;
    return understood;
}

// Whether the checksum of the layer-4 header at l.transport is right, as far as it can be told: it is taken
// for right where the packet is cut by the capture, does not say how long it is, or has none (UDP over IPv4).
// Looks at nothing but bytes between network and network_end. A first fragment's cannot be told: false.
TS_HD_APART bool transport_sums_up(const u8* frame, const Layers& l) {
    if (l.fragment != Fragment::none) return false;
    const u8* p = frame + l.transport;
    const u32 left = l.network_end - l.transport;
    const u32 claimed = detail::claimed_length(frame, l);
    if (claimed == 0 || claimed > l.network_end - l.network) return true;
    u32 length = left, covered = left;
    switch (l.protocol) {
        case IP_TCP:
        case IP_ICMPV6:
            break;
        case IP_ICMP:
            return sums_up(word_sum(p, left));
        case IP_UDP:
            if (left < 8) return false;
            length = covered = read_be16(p + 4);
            if (length < 8 || length > left) return false;
            if (read_be16(p + 6) == 0) return l.kind == Network::ipv4;
            break;
        case IP_UDPLITE:
            if (left < 8) return false;
            covered = read_be16(p + 4);
            if (covered == 0) covered = left;
            if (covered < 8 || covered > left) return false;
            break;
        case IP_DCCP: {
            if (left < 12) return false;
            const u32 coverage = p[5] & 0x0F;
            covered = coverage == 0 ? left : p[4] * 4u + (coverage - 1) * 4;
            if (covered < 12 || covered > left) return false;
            break;
        }
        case IP_SCTP: {
            if (left < 12) return false;
            const u32 sum = static_cast<u32>(read_le64(p + 4) >> 32);
            return crc32c(p, left, 8) == sum;
        }
        default:
            return true;
    }
    const bool ipv4 = l.kind == Network::ipv4;
    const u8* addresses = frame + l.network + (ipv4 ? 12 : 8);
    const u64 pseudo = word_of(length & 0xFFFF) + word_of(length >> 16) + word_of(l.protocol);
    return sums_up(word_sum(addresses, ipv4 ? 8 : 32) + word_sum(p, covered) + pseudo);
}

}  // namespace twinstamp
