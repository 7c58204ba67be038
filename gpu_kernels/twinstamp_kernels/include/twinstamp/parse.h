// SPDX-License-Identifier: Apache-2.0
// Finds a frame's headers: link layer, tags, tunnels, network and transport layer.
//
// Every read is checked against the captured length; each loop is bounded by it. Nothing is copied:
// the result is offsets into the frame. Formats: IEEE 802.3/802.1Q, RFC 791, 8200, 4302, 1661, 2516,
// 3032 (MPLS), 2784/2890 (GRE), 7348 (VXLAN), 8926 (Geneve), draft-foschiano-erspan-03, 3GPP TS 29.281
// (GTP-U); IEEE 802.1ah (PBB), VN-Tag, FabricPath and TZSP as Wireshark has them.
#pragma once

#include "twinstamp/checksum.h"

namespace twinstamp {

constexpr u32 NO_OFFSET = 0xFFFFFFFFu;
constexpr u16 NO_VLAN = 0xFFFFu;

// https://www.tcpdump.org/linktypes.html; DLT_RAW is 12 or 14 in files of some systems.
enum LinkType : u16 {
    LINK_NULL = 0,  // a BSD address family in the byte order of the machine that captured
    LINK_ETHERNET = 1,
    LINK_PPP = 9,
    LINK_RAW_BSD = 12,
    LINK_RAW_OPENBSD = 14,
    LINK_PPP_HDLC = 50,
    LINK_RAW = 101,
    LINK_C_HDLC = 104,
    LINK_LOOP = 108,  // as LINK_NULL, big-endian
    LINK_SLL = 113,
    LINK_IPV4 = 228,
    LINK_IPV6 = 229,
    LINK_NFLOG = 239,
    LINK_SLL2 = 276,
};

enum EtherType : u16 {
    ETHER_IPV4 = 0x0800,
    ETHER_ARP = 0x0806,
    ETHER_TEB = 0x6558,
    ETHER_VLAN = 0x8100,
    ETHER_QINQ_OLD = 0x9100,
    ETHER_IPV6 = 0x86DD,
    ETHER_MPLS = 0x8847,
    ETHER_MPLS_MULTICAST = 0x8848,
    ETHER_PPPOE = 0x8864,
    ETHER_QINQ = 0x88A8,
    ETHER_PBB = 0x88E7,
    ETHER_FABRICPATH = 0x8903,
    ETHER_VNTAG = 0x8926,
    ETHER_ERSPAN = 0x88BE,
    ETHER_ERSPAN_III = 0x22EB,
};

enum IpProtocol : u8 {
    IP_HOP_BY_HOP = 0,
    IP_ICMP = 1,
    IP_IN_IP = 4,
    IP_TCP = 6,
    IP_UDP = 17,
    IP_IPV6 = 41,
    IP_ROUTING = 43,
    IP_FRAGMENT = 44,
    IP_GRE = 47,
    IP_AH = 51,
    IP_ICMPV6 = 58,
    IP_NO_NEXT = 59,
    IP_DESTINATION = 60,
    IP_MOBILITY = 135,
    IP_HIP = 139,
    IP_SHIM6 = 140,
    IP_SCTP = 132,
    IP_UDPLITE = 136,
    IP_DCCP = 33,
};

enum class Network : u8 {
    none,  // not understood, or cut short before its header's end
    ipv4,
    ipv6,
    arp,
    llc,  // IEEE 802.3 length field: STP, CDP and the like
};

enum class Fragment : u8 { none, first, later };

enum class Layer : u8 { outer, inner };

// What is opened at the link layer, as bits: VN-Tags; label stacks (MPLS); MAC in MAC (PBB, FabricPath).
enum Opening : u32 { OPEN_NOTHING = 0, OPEN_TAGS = 1, OPEN_LABELS = 2, OPEN_MACS = 4, OPEN_ALL = 7 };

// Whose tunnels are opened at Layer::inner: those between two addresses of these networks. An IPv4 address is
// the IPv6 one that it maps to. Null or empty: everybody's.
constexpr u32 MOST_ENDS = 64;
struct TunnelEnds {
    u32 count;
    u32 open;  // Opening bits of what has no such addresses
    struct Prefix {
        u64 high, low, mask_high, mask_low;
    } prefix[MOST_ENDS];
};

struct Layers {
    u32 link;          // first byte of the link header whose bytes count as layer 2, NO_OFFSET: none
    u32 link_length;   // bytes of it before any tag (12 for Ethernet: both MAC addresses)
    u32 link_payload;  // first byte after the tags and the final ethertype
    u32 network;       // first byte of the layer-3 header
    u32 network_end;   // end of layer 3 by its own length field, at most the captured length
    u32 transport;     // first byte of the layer-4 header, NO_OFFSET: none or a later fragment
    u16 ethertype;     // final one; the length for 802.3
    u16 vlan;          // outermost VLAN id (12 bits), NO_VLAN: untagged
    u8 vlan_tags;      // tags passed
    u8 tunnels;        // tunnels passed
    bool odd;          // a link header on the way is one that no host takes (docs/duplicates.md)
    u8 protocol;       // IP protocol of the transport header (after extension headers)
    Network kind;
    Fragment fragment;
};

namespace detail {

TS_HD bool is_tag(u16 ethertype) {
    return ethertype == ETHER_VLAN || ethertype == ETHER_QINQ || ethertype == ETHER_QINQ_OLD;
}

TS_HD void start_link(Layers& out, u32 link, u32 link_length) {
    out.link = link;
    out.link_length = link_length;
    out.link_payload = NO_OFFSET;
    out.vlan = NO_VLAN;
    out.vlan_tags = 0;
    out.ethertype = 0;
}

TS_HD void start_network(Layers& out) {
    out.kind = Network::none;
    out.network = out.network_end = out.transport = NO_OFFSET;
    out.protocol = 0;
    out.fragment = Fragment::none;
}

// IPv4 header at `at`. False where cut short or malformed.
TS_HD bool parse_ipv4(const u8* frame, u32 caplen, u32 at, Layers& out) {
    if (caplen - at < 20 || (frame[at] >> 4) != 4) return false;
    const u32 header = (frame[at] & 15u) * 4;
    if (header < 20 || caplen - at < header) return false;
    u32 total = read_be16(frame + at + 2);
    // Segmentation offload leaves 0: the packet is what was captured.
    if (total == 0) total = caplen - at;
    if (total < header) return false;
    out.kind = Network::ipv4;
    out.network = at;
    out.network_end = total < caplen - at ? at + total : caplen;
    out.protocol = frame[at + 9];
    const u16 fragment = read_be16(frame + at + 6);
    out.fragment = (fragment & 0x1FFF)   ? Fragment::later
                   : (fragment & 0x2000) ? Fragment::first
                                         : Fragment::none;
    out.transport = out.fragment == Fragment::later ? NO_OFFSET : at + header;
    return true;
}

// IPv6 header at `at` with its extension headers. False where the fixed header is cut short.
TS_HD bool parse_ipv6(const u8* frame, u32 caplen, u32 at, Layers& out) {
    if (caplen - at < 40 || (frame[at] >> 4) != 6) return false;
    const u32 payload = read_be16(frame + at + 4);
    u8 next = frame[at + 6];
    out.kind = Network::ipv6;
    out.network = at;
    // 0 is a jumbogram (RFC 2675) or a segment left to hardware, unless nothing follows.
    if (payload == 0 && next != IP_NO_NEXT) {
        out.network_end = caplen;
    } else {
        out.network_end = payload < caplen - at - 40 ? at + 40 + payload : caplen;
    }
    u32 position = at + 40;
    while (true) {
        const u32 left = out.network_end - position;
        u32 length;
        switch (next) {
            case IP_HOP_BY_HOP:
            case IP_ROUTING:
            case IP_DESTINATION:
            case IP_MOBILITY:
            case IP_HIP:
            case IP_SHIM6:
                length = left >= 8 ? (frame[position + 1] + 1u) * 8 : 8;
                break;
            case IP_AH:
                length = left >= 8 ? (frame[position + 1] + 2u) * 4 : 8;
                break;
            case IP_FRAGMENT:
                length = 8;
                break;
            default:
                out.protocol = next;
                out.transport = next == IP_NO_NEXT ? NO_OFFSET : position;
                return true;
        }
        if (left < length) {  // the chain is cut: layer 3 is known, layer 4 is not
            out.protocol = next;
            out.transport = NO_OFFSET;
            return true;
        }
        if (next == IP_FRAGMENT) {
            const u16 fragment = read_be16(frame + position + 2);
            if (fragment & 0xFFF8) {
                out.fragment = Fragment::later;
                out.protocol = frame[position];
                out.transport = NO_OFFSET;
                return true;
            }
            // An atomic fragment (RFC 6946) is whole.
            if (fragment & 1) out.fragment = Fragment::first;
        }
        next = frame[position];
        position += length;
    }
}

TS_HD bool parse_ip(const u8* frame, u32 caplen, u32 at, Layers& out) {
    start_network(out);
    if (at >= caplen) return false;
    return (frame[at] >> 4) == 4 ? parse_ipv4(frame, caplen, at, out) : parse_ipv6(frame, caplen, at, out);
}

TS_HD bool parse_arp(const u8* frame, u32 caplen, u32 at, Layers& out) {
    if (caplen - at < 8) return false;
    const u32 length = 8 + 2 * (static_cast<u32>(frame[at + 4]) + frame[at + 5]);
    if (caplen - at < length) return false;
    out.kind = Network::arp;
    out.network = at;
    out.network_end = at + length;
    return true;
}

// More tags than any network stacks: what is behind them is nobody's.
constexpr u8 MOST_TAGS = 3;

// Bytes that the IP packet at out.network says it has, 0: it does not say (offload, jumbogram).
TS_HD u32 claimed_length(const u8* frame, const Layers& out) {
    if (out.kind == Network::ipv4) return read_be16(frame + out.network + 2);
    const u32 payload = read_be16(frame + out.network + 4);
    return payload == 0 && frame[out.network + 6] != IP_NO_NEXT ? 0 : 40 + payload;
}

// Whether a host takes the PPPoE session header at `at`, with the packet `out` behind it: version and type 1,
// code 0, a length that has room for the packet and that the frame has, as far as it was captured (RFC 2516).
TS_HD bool pppoe_fits(const u8* frame, u32 caplen, u32 at, const Layers& out) {
    if (frame[at] != 0x11 || frame[at + 1] != 0) return false;
    const u32 length = read_be16(frame + at + 4), left = caplen - at - 6;
    if (out.kind != Network::ipv4 && out.kind != Network::ipv6) return true;
    const u32 packet = 2 + claimed_length(frame, out);
    return length >= packet && (packet > left || length <= left);
}

// An IP packet behind a PPP protocol number (RFC 1332, RFC 5072).
TS_HD bool parse_ppp_ip(const u8* frame, u32 caplen, u32 at, u16 protocol, Layers& out) {
    start_network(out);
    if (at >= caplen) return false;
    if (protocol == 0x0021) return parse_ipv4(frame, caplen, at, out);
    return protocol == 0x0057 && parse_ipv6(frame, caplen, at, out);
}

// Whether IP stands behind an MPLS stack, which does not say what it carries: its first nibble may be that of
// a MAC address (RFC 4928). IPv4 by its header's checksum, IPv6 by its length, which
// must be that of what is there, but for an FCS or the padding of a shortest frame.
TS_HD bool surely_ip(const u8* frame, u32 caplen, u32 at) {
    if (caplen < at + 20) return false;
    if (frame[at] >> 4 == 4) {
        const u32 header = (frame[at] & 0x0Fu) * 4;
        if (header < 20 || caplen < at + header) return false;
        return sums_up(word_sum(frame + at, header));
    }
    if (frame[at] >> 4 != 6 || caplen < at + 40) return false;
    const u32 length = read_be16(frame + at + 4) + 40u, left = caplen - at;
    return length == left || length + 4 == left || (left <= 46 && length < left);
}

// What follows ethertype `type` at `at`: tags, PPPoE, what `open` (Opening bits) asks for, then the network
// layer.
TS_HD bool parse_ethertype(const u8* frame, u32 caplen, u32 at, u16 type, u32 open, Layers& out) {
    start_network(out);
    // Each turn moves forward in the frame.
    while (true) {
        if (is_tag(type)) {
            if (caplen < at + 4) return false;
            if (out.vlan == NO_VLAN) out.vlan = read_be16(frame + at) & 0x0FFF;
            if (out.vlan_tags < 255) ++out.vlan_tags;
            type = read_be16(frame + at + 2);
            at += 4;
        } else if (type == ETHER_VNTAG && (open & OPEN_TAGS) != 0) {
            if (caplen < at + 6) return false;
            if (out.vlan_tags < 255) ++out.vlan_tags;
            type = read_be16(frame + at + 4);
            at += 6;
        } else if ((type == ETHER_PBB || type == ETHER_FABRICPATH) && (open & OPEN_MACS) != 0) {
            out.odd |= out.vlan_tags > MOST_TAGS;
            at += type == ETHER_PBB ? 4 : 2;
            if (caplen < at + 14) return false;
            ++out.tunnels;
            start_link(out, at, 12);
            type = read_be16(frame + at + 12);
            at += 14;
        } else {
            break;
        }
    }
    out.ethertype = type;
    out.link_payload = at;
    out.odd |= out.vlan_tags > MOST_TAGS;
    if (type < 0x0600) {
        if (caplen - at < 3 || type < 3) return false;
        out.kind = Network::llc;
        out.network = at;
        out.network_end = type < caplen - at ? at + type : caplen;
        return true;
    }
    switch (type) {
        case ETHER_IPV4:
            return at < caplen && parse_ipv4(frame, caplen, at, out);
        case ETHER_IPV6:
            return at < caplen && parse_ipv6(frame, caplen, at, out);
        case ETHER_ARP:
            return at < caplen && parse_arp(frame, caplen, at, out);
        case ETHER_PPPOE:
            if (caplen < at + 8) return false;
            type = read_be16(frame + at + 6);
            if (!parse_ppp_ip(frame, caplen, at + 8, type, out)) return false;
            out.odd |= !pppoe_fits(frame, caplen, at, out);
            return true;
        case ETHER_MPLS:
        case ETHER_MPLS_MULTICAST:
            if ((open & OPEN_LABELS) == 0) return false;
            while (true) {
                if (caplen < at + 4) return false;
                const bool bottom = frame[at + 2] & 1;
                at += 4;
                if (bottom) break;
            }
            ++out.tunnels;
            start_link(out, NO_OFFSET, 0);
            if (!surely_ip(frame, caplen, at)) {
                out.ethertype = type;
                return false;
            }
            return parse_ip(frame, caplen, at, out);
        default:
            return false;
    }
}

TS_HD bool parse_ethernet(const u8* frame, u32 caplen, u32 at, u32 open, Layers& out) {
    start_link(out, at, 12);
    start_network(out);
    if (caplen < at + 14) return false;
    return parse_ethertype(frame, caplen, at + 14, read_be16(frame + at + 12), open, out);
}

// Where the packet in a GTP-U message begins (3GPP TS 29.281, section 5), `at` its header. 0: there is none.
// The message does not say what it carries, and an Ethernet frame may begin as IP does: IP has just the
// length that is left of the message, and IPv4 a right checksum.
TS_HD u32 gtp_payload(const u8* frame, u32 end, u32 at) {
    const u8 flags = frame[at];
    if ((flags & 0xF0) != 0x30 || frame[at + 1] != 0xFF) return 0;  // version 1, GTP; G-PDU
    const u32 stop = at + 8 + read_be16(frame + at + 2);
    at += 8;
    if ((flags & 7) != 0) {  // a sequence number, an N-PDU number and the type of an extension header
        at += 4;
        if (end < at) return 0;
        u8 next = (flags & 4) != 0 ? frame[at - 1] : u8{0};
        while (next != 0) {
            if (end <= at || frame[at] == 0 || end - at < frame[at] * 4u) return 0;
            at += frame[at] * 4u;
            next = frame[at - 1];
        }
    }
    if (end < at + 20) return 0;
    if (frame[at] >> 4 == 4)
        return at + read_be16(frame + at + 2) == stop && surely_ip(frame, end, at) ? at : 0;
    if (frame[at] >> 4 != 6 || end < at + 40) return 0;
    return at + 40 + read_be16(frame + at + 4) == stop ? at : 0;
}

// Where the Ethernet frame in a TZSP message begins, `at` its header. 0: there is none.
TS_HD u32 tzsp_payload(const u8* frame, u32 end, u32 at) {
    if (frame[at] != 1 || frame[at + 1] > 1 || read_be16(frame + at + 2) != 1) return 0;
    at += 4;
    while (at < end) {  // tagged fields: 0 is padding, 1 the end
        const u8 tag = frame[at++];
        if (tag == 1) return at;
        if (tag == 0) continue;
        if (at >= end) return 0;
        at += 1u + frame[at];
    }
    return 0;
}

// UDP ports of tunnels: GTP-U, VXLAN and Linux' older number of it, Geneve, TZSP.
TS_HD bool is_tunnel_port(u32 port) {
    return (port == 2152) | (port == 4789) | (port == 8472) | (port == 6081) | (port == 37008);
}

// Steps into the tunnel that `out` ends in. False: `out` is not a tunnel and unchanged.
// `understood` says whether what is inside could be parsed. in_fragments: into a first fragment too.
TS_HD bool enter_tunnel(const u8* frame, Layers& out, bool& understood, bool in_fragments = false) {
    if (out.transport == NO_OFFSET) return false;
    if (out.fragment != Fragment::none && !(in_fragments && out.fragment == Fragment::first)) return false;
    if (out.kind != Network::ipv4 && out.kind != Network::ipv6) return false;
    // What lies behind the outer packet's own end is padding, not payload.
    const u32 end = out.network_end;
    u32 at = out.transport;
    const u32 left = end - at;
    switch (out.protocol) {
        case IP_IN_IP:
        case IP_IPV6:
            ++out.tunnels;
            start_link(out, NO_OFFSET, 0);
            understood = parse_ip(frame, end, at, out);
            return true;
        case IP_GRE: {
            if (left < 4 || (frame[at] & 0x40) || (frame[at + 1] & 7)) return false;  // routing, version 1
            const u8 flags = frame[at];
            const u16 type = read_be16(frame + at + 2);
            const u32 header =
                4 + ((flags & 0x80) ? 4 : 0) + ((flags & 0x20) ? 4 : 0) + ((flags & 0x10) ? 4 : 0);
            if (left < header) return false;
            at += header;
            if (type == ETHER_TEB) {
            } else if (type == ETHER_ERSPAN) {
                if (flags & 0x10) at += 8;  // type II; type I has no header of its own
            } else if (type == ETHER_ERSPAN_III) {
                // Frame type 0 is Ethernet; what else there is has no type of its own here.
                if (end < at + 12 || (frame[at + 10] & 0x7C) != 0) return false;
                at += (frame[at + 11] & 1) ? 20 : 12;
            } else if (type == ETHER_IPV4 || type == ETHER_IPV6 || type == ETHER_MPLS ||
                       type == ETHER_MPLS_MULTICAST) {
                ++out.tunnels;
                start_link(out, NO_OFFSET, 0);
                understood = parse_ethertype(frame, end, at, type, OPEN_ALL, out);
                return true;
            } else {
                return false;
            }
            ++out.tunnels;
            understood = parse_ethernet(frame, end, at, OPEN_ALL, out);
            return true;
        }
        case IP_UDP: {
            if (left < 16) return false;
            const u16 port = read_be16(frame + at + 2);
            at += 8;
            if (port == 4789 || port == 8472) {  // VXLAN, and Linux' older number
                // The I flag; all else is reserved and ignored on receipt (RFC 7348, section 5).
                if ((frame[at] & 0x08) == 0) return false;
                ++out.tunnels;
                understood = parse_ethernet(frame, end, at + 8, OPEN_ALL, out);
                return true;
            }
            if (port == 2152) {  // GTP-U
                const u32 inside = gtp_payload(frame, end, at);
                if (inside == 0) return false;
                ++out.tunnels;
                start_link(out, NO_OFFSET, 0);
                understood = parse_ip(frame, end, inside, out);
                return true;
            }
            if (port == 37008) {  // TZSP
                const u32 inside = tzsp_payload(frame, end, at);
                if (inside == 0) return false;
                ++out.tunnels;
                understood = parse_ethernet(frame, end, inside, OPEN_ALL, out);
                return true;
            }
            if (port == 6081) {  // Geneve
                const u32 header = 8 + (frame[at] & 0x3Fu) * 4;
                const u16 type = read_be16(frame + at + 2);
                if ((frame[at] >> 6) != 0 || end - at < header) return false;
                if (type == ETHER_TEB) {
                    ++out.tunnels;
                    understood = parse_ethernet(frame, end, at + header, OPEN_ALL, out);
                    return true;
                }
                if (type == ETHER_IPV4 || type == ETHER_IPV6) {
                    ++out.tunnels;
                    start_link(out, NO_OFFSET, 0);
                    understood = parse_ethertype(frame, end, at + header, type, OPEN_ALL, out);
                    return true;
                }
            }
            return false;
        }
        default:
            return false;
    }
}

// What follows a Linux cooked header. Its protocol field is an ethertype, or one of the kernel's ETH_P_
// numbers below 0x0600, of which 4 is 802.2 without a length; for some ARPHRD_ types it is neither.
TS_HD bool parse_cooked(const u8* frame, u32 caplen, u32 at, u16 hardware, u16 type, u32 open, Layers& out) {
    constexpr u16 frad = 770, radiotap = 803, netlink = 824;
    out.ethertype = type;
    out.link_payload = at;
    if (hardware == frad || hardware == radiotap || hardware == netlink) return false;
    if (type >= 0x0600) return parse_ethertype(frame, caplen, at, type, open, out);
    if (type != 4 || caplen - at < 3) return false;
    out.kind = Network::llc;
    out.network = at;
    out.network_end = caplen;
    return true;
}

// The IP packet behind a BSD address family: 2 is IPv4; IPv6 is 24, 28 or 30, and 10 on Linux.
TS_HD bool parse_family(const u8* frame, u32 caplen, u32 at, u32 family, Layers& out) {
    out.link_payload = at;
    if (at >= caplen) return false;
    if (family == 2) return parse_ipv4(frame, caplen, at, out);
    const bool ipv6 = family == 24 || family == 28 || family == 30 || family == 10;
    return ipv6 && parse_ipv6(frame, caplen, at, out);
}

// What follows a Cisco HDLC header: address, control, ethertype.
TS_HD bool parse_cisco(const u8* frame, u32 caplen, u32 open, Layers& out) {
    if (caplen < 4) return false;
    const u16 type = read_be16(frame + 2);
    if (type < 0x0600) return false;
    return parse_ethertype(frame, caplen, 4, type, open, out);
}

// The packet in a message of Linux' nflog: attributes behind a header of 4 bytes, in the byte order of the
// machine that captured, which their types tell (there are a few dozen).
TS_HD bool parse_nflog(const u8* frame, u32 caplen, Layers& out) {
    if (caplen < 4 || frame[1] != 0) return false;
    u32 at = 4;
    while (caplen - at >= 4) {
        const bool little = frame[at + 3] == 0;
        const u32 type = little ? frame[at + 2] : frame[at + 3];
        const u32 length = little ? frame[at] | frame[at + 1] << 8 : read_be16(frame + at);
        if (length < 4 || length > caplen - at) {
            // The capture may have been cut within the packet, the last of them.
            if (type != 9 || length < 4) return false;
            return parse_family(frame, caplen, at + 4, frame[0], out);
        }
        if (type == 9) return parse_family(frame, at + length, at + 4, frame[0], out);
        at += (length + 3) & ~3u;
        if (at > caplen) return false;
    }
    return false;
}

TS_HD bool parse_link(const u8* frame, u32 caplen, u16 linktype, u32 open, Layers& out) {
    out.tunnels = 0;
    out.odd = false;
    start_link(out, NO_OFFSET, 0);
    start_network(out);
    switch (linktype) {
        case LINK_ETHERNET:
            return parse_ethernet(frame, caplen, 0, open, out);
        case LINK_SLL:
            if (caplen < 16) return false;
            start_link(out, 0, 14);
            return parse_cooked(frame, caplen, 16, read_be16(frame + 2), read_be16(frame + 14), open, out);
        case LINK_SLL2:
            if (caplen < 20) return false;
            start_link(out, 2, 18);
            return parse_cooked(frame, caplen, 20, read_be16(frame + 8), read_be16(frame), open, out);
        case LINK_RAW:
        case LINK_RAW_BSD:
        case LINK_RAW_OPENBSD:
        case LINK_IPV4:
        case LINK_IPV6:
            out.link_payload = 0;
            return parse_ip(frame, caplen, 0, out);
        case LINK_NULL:
        case LINK_LOOP: {
            if (caplen < 4) return false;
            const u32 family = read_be32(frame);
            const u32 other = frame[0] | frame[1] << 8 | frame[2] << 16 | static_cast<u32>(frame[3]) << 24;
            return parse_family(frame, caplen, 4, family < other ? family : other, out);
        }
        case LINK_NFLOG:
            return parse_nflog(frame, caplen, out);
        case LINK_C_HDLC:
            return parse_cisco(frame, caplen, open, out);
        case LINK_PPP:
        case LINK_PPP_HDLC: {
            if (linktype == LINK_PPP_HDLC && caplen >= 1 && (frame[0] == 0x0F || frame[0] == 0x8F))
                return parse_cisco(frame, caplen, open, out);
            u32 at = caplen >= 2 && frame[0] == 0xFF && frame[1] == 0x03 ? 2 : 0;
            if (caplen < at + 2) return false;
            const u16 protocol = read_be16(frame + at);
            at += 2;
            out.link_payload = at;
            if (protocol == 0x0281 || protocol == 0x0283)
                return parse_ethertype(frame, caplen, at,
                                       protocol == 0x0281 ? u16{ETHER_MPLS} : u16{ETHER_MPLS_MULTICAST}, open,
                                       out);
            return parse_ppp_ip(frame, caplen, at, protocol, out);
        }
        default:
            return false;
    }
}

TS_HD bool is_end(const TunnelEnds& ends, const u8* address, bool ipv4) {
    u64 high = 0, low = 0xFFFFull << 32;
    for (u32 i = 0; i < (ipv4 ? 0u : 8u); ++i) high = high << 8 | address[i];
    if (ipv4) {
        low |= read_be32(address);
    } else {
        low = static_cast<u64>(read_be32(address + 8)) << 32 | read_be32(address + 12);
    }
    for (u32 i = 0; i < ends.count; ++i) {
        const TunnelEnds::Prefix& p = ends.prefix[i];
        if (((high ^ p.high) & p.mask_high) == 0 && ((low ^ p.low) & p.mask_low) == 0) return true;
    }
    return false;
}

TS_HD bool are_named(const TunnelEnds* ends) {
    return ends != nullptr && (ends->count != 0 || ends->open != 0);
}

// Whether the packet that `out` ends in may be opened, should it be a tunnel.
TS_HD bool may_enter(const TunnelEnds* ends, const u8* frame, const Layers& out) {
    if (!are_named(ends)) return true;
    const bool ipv4 = out.kind == Network::ipv4;
    if (!ipv4 && out.kind != Network::ipv6) return false;
    const u8* addresses = frame + out.network + (ipv4 ? 12 : 8);
    return is_end(*ends, addresses, ipv4) && is_end(*ends, addresses + (ipv4 ? 4 : 16), ipv4);
}

// Opening bits of the link layer.
TS_HD u32 link_opening(const TunnelEnds* ends, Layer layer) {
    if (layer == Layer::outer) return OPEN_NOTHING;
    return are_named(ends) ? OPEN_TAGS | ends->open : u32{OPEN_ALL};
}

}  // namespace detail

// Fills `out` with the frame's outermost or innermost headers. False (kind == Network::none): a header
// is cut short or not understood, and what was found before it stands in `out`. in_fragments: goes into a
// tunnel's first fragment too, whose inner packet goes on in the others.
TS_HD bool parse_frame(const u8* frame, u32 caplen, u16 linktype, Layer layer, Layers& out,
                       const TunnelEnds* ends = nullptr, bool in_fragments = false) {
    bool understood = detail::parse_link(frame, caplen, linktype, detail::link_opening(ends, layer), out);
    if (layer == Layer::inner) {
        // Each step moves forward in the frame, so the loop ends.
        while (understood && detail::may_enter(ends, frame, out) &&
               detail::enter_tunnel(frame, out, understood, in_fragments)) {
        }
    }
    if (!understood) out.kind = Network::none;
    return understood;
}

}  // namespace twinstamp
