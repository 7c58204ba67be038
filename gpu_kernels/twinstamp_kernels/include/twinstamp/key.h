// SPDX-License-Identifier: Apache-2.0
// A frame's duplicate key under a profile (docs/decisions/0030-profiles.md, docs/duplicates.md).
//
// Each profile maps a frame to a message, a byte string, and a domain, a number that says of which form
// the message is; two frames are copies under the profile when both are equal. The digest of the message
// in the domain is the key. Messages are hashed where they lie; only the first bytes, where something is
// left out or zeroed, are copied to a small buffer.
//
//   exact    the captured bytes, less the first `ignore_bytes` of longer frames (editcap -I)
//   vlan     link header before the tags, final ethertype, all from there to the end of layer 3
//   routing  layer 3 with TTL or hop limit, IPv4 checksum, DSCP and ECN zeroed; ARP and LLC as under vlan
//   nat      two messages: as routing, with one endpoint (address and port or ICMP query id) and the
//            layer-4 checksum zeroed; what is not fit for that as under routing
//   any but exact, where a header is cut short, not understood or such that no host takes it (sound.h): the
//            captured bytes, own domain
//
// A message of a wider profile is a function of that of each narrower one, so it never loses a copy that
// a narrower profile finds (among frames of one link type).
#pragma once

#include "twinstamp/message_hash.h"
#include "twinstamp/sound.h"

namespace twinstamp {

// The numbers are also the type codes in verdicts.
enum class Profile : u8 { exact = 1, vlan = 2, routing = 3, nat = 4 };

struct KeyOptions {
    Profile profile;
    Layer layer;
    u32 ignore_bytes;  // only with exact
    const TunnelEnds* ends = nullptr;
};

// key: the digest under the profile. two: a nat frame, a copy of another when either key, which has no
// source endpoint, or second, which has no destination endpoint, is equal.
// tag[p - 1], for profiles p narrower than the configured one (others 0): given two frames with equal
// keys, their tags are equal when they are copies under p (always) and when they are not (2^-32).
// tag[GUARD_TAG]: TTL or hop limit (0 for what has none) in the low byte, tunnels around the packet above:
// what a guard compares of two copies.
constexpr u32 TAGS = 4;
constexpr u32 GUARD_TAG = 3;
struct FrameKeys {
    Digest key;
    Digest second;
    bool two;
    u32 tag[TAGS];
};

// Why a copy goes on all the same, as bits: it may be the packet of which the frame it repeats is a decoy.
enum Guard : u8 {
    GUARD_TTL = 1,     // its TTL or hop limit is greater: no router makes it so
    GUARD_TUNNEL = 2,  // it is in fewer tunnels: anybody can put a packet into one
};

constexpr u32 GUARDS = 2;

// tag, other: GUARD_TAG of a frame and of the earlier one that it is a copy of.
TS_HD u8 guards(u32 tag, u32 other) {
    const u32 ttl = (tag & 0xFF) > (other & 0xFF) ? GUARD_TTL : 0;
    return static_cast<u8>(ttl | (tag >> 8 < other >> 8 ? GUARD_TUNNEL : 0));
}

namespace detail {

// A message's form. A domain is profile << 4 | form, so that profiles are kept apart as well; exact's
// are the numbers below 16.
enum Form : u32 {
    FORM_WHOLE = 0,     // all captured bytes; with a wider profile: of a frame not understood
    FORM_IGNORING = 1,  // exact, less the first bytes
    FORM_NO_LINK = 1,   // vlan messages by their link header
    FORM_ETHERNET = 2,
    FORM_SLL = 3,
    FORM_SLL2 = 4,
    FORM_IPV4 = 5,
    FORM_IPV6 = 6,
    FORM_NO_SOURCE = 2,  // nat messages: FORM_IPV4 or FORM_IPV6 + one of these two
    FORM_NO_DESTINATION = 4,
};
constexpr u32 DOMAIN_EXACT = 0;
constexpr u32 DOMAIN_TAG = 0x80;  // tags: that of the narrower profile + 0x80

constexpr u32 MAX_NAT_HEADER = 512;  // longer headers in front of layer 4: nat as routing

TS_HD u32 smaller(u32 a, u32 b) {
    return a < b ? a : b;
}

// TTL, checksum and traffic class: what a router may change, as AND masks of the first 8 words.
struct Patterns {
    u64 all[8];
    u64 ipv4[8];
    u64 ipv6[8];
};
TS_HD const Patterns& patterns() {
    constexpr u64 ones = ~0ull;
    static constexpr Patterns table = {
        {ones, ones, ones, ones, ones, ones, ones, ones},
        {0xFFFFFFFFFFFF00FFull, 0xFFFFFFFF0000FF00ull, ones, ones, ones, ones, ones, ones},
        {0x00FFFFFFFFFF0FF0ull, ones, ones, ones, ones, ones, ones, ones},
    };
    return table;
}

TS_HD u32 link_form(const Layers& l) {
    if (l.link == NO_OFFSET) return FORM_NO_LINK;
    return l.link_length == 12 ? FORM_ETHERNET : l.link_length == 14 ? FORM_SLL : FORM_SLL2;
}

// The vlan message cut at `end`, an offset in the frame. `type` has room for the ethertype of SLL2, which
// stands in front of the addresses there and behind them in the message.
TS_INLINE Message vlan_message(const u8* frame, const Layers& l, u32 end, u8* buffer) {
    if (l.link == NO_OFFSET) return {frame, 0, frame + l.network, end - l.network};
    if (l.link_length != 18) {
        const u32 payload = l.link_payload - 2;
        return {frame + l.link, l.link_length, frame + payload, end - payload};
    }
    copy_bytes(buffer, frame + l.link, 18);
    buffer[18] = static_cast<u8>(l.ethertype >> 8);
    buffer[19] = static_cast<u8>(l.ethertype);
    return {buffer, 20, frame + l.link_payload, end - l.link_payload};
}

// Where a layer-4 header keeps what NAT changes, relative to its first byte.
struct NatFields {
    u32 source_port, destination_port;  // of two bytes each, NO_OFFSET: none
    u32 checksum, checksum_bytes;       // checksum_bytes 0: none
};

// Whether `l` is fit for nat keys. Looks at nothing but bytes between network and network_end.
TS_HD bool nat_fields(const u8* frame, const Layers& l, NatFields& out) {
    if (l.transport == NO_OFFSET || l.transport - l.network > MAX_NAT_HEADER) return false;
    const u32 left = l.network_end - l.transport;
    const u8* p = frame + l.transport;
    u32 header;
    out = {0, 2, 0, 2};
    switch (l.protocol) {
        case IP_TCP:
            out.checksum = 16;
            return left >= 20 && transport_sums_up(frame, l);
        case IP_UDP:
        case IP_UDPLITE:
            header = 8;
            out.checksum = 6;
            break;
        case IP_DCCP:
            header = 12;
            out.checksum = 6;
            break;
        case IP_SCTP:
            header = 12;
            out.checksum = 8;
            out.checksum_bytes = 4;
            break;
        case IP_ICMP:
        case IP_ICMPV6: {
            if (left < 8) return false;
            if ((l.kind == Network::ipv4) != (l.protocol == IP_ICMP)) return false;
            const u8 type = p[0];
            // Queries carry an identifier, which belongs to the side that asks (RFC 5508); all else
            // either quotes a packet or never crosses a router.
            const bool asks =
                l.kind == Network::ipv4 ? type == 8 || type == 13 || type == 15 || type == 17 : type == 128;
            const bool answers =
                l.kind == Network::ipv4 ? type == 0 || type == 14 || type == 16 || type == 18 : type == 129;
            if (!asks && !answers) return false;
            header = 8;
            out = {asks ? 4 : NO_OFFSET, answers ? 4 : NO_OFFSET, 2, 2};
            break;
        }
        default:
            header = 0;
            out = {NO_OFFSET, NO_OFFSET, 0, 0};
    }
    if (left < header) return false;
    const bool identified = l.kind == Network::ipv4 && read_be16(frame + l.network + 4) != 0;
    if (!identified && left - header < 16) return false;
    // NAT works the checksum out anew, so the key leaves it out: a packet whose own is wrong must not pass.
    return transport_sums_up(frame, l);
}

// Tells frames with equal keys apart by all they have beside the messages of those: everything up to the
// last byte that the profile zeroes, and what lies behind layer 3. Where layer 3 starts goes in with the
// domain, so that equal bytes cut at different places differ.
template <bool portable>
TS_HD u32 exact_tag(const HashKey& key, const u8* frame, u32 caplen, const Layers& l, u32 changed) {
    const u32 domain = DOMAIN_TAG | l.network << 8;
    if (changed <= MASKED_BYTES) {
        const u32 head = smaller(caplen, MASKED_BYTES);
        const u32 trailer = l.network_end < head ? head : l.network_end;
        const bool whole = caplen == head;
        const Message m = {frame, whole ? 0 : head, whole ? frame : frame + trailer,
                           whole ? head : caplen - trailer};
        return short_hash_masked<portable>(key, domain, m, {patterns().all, ~0ull});
    }
    changed = (changed + 7) & ~7u;
    // Headers too long for a head, or with little behind them, are hashed with all that follows.
    if (changed > MAX_HEAD_BYTES || changed >= l.network_end) {
        return static_cast<u32>(hash_message<portable>(key, domain, nullptr, 0, frame, caplen).half[0]);
    }
    const u8* trailer = frame + l.network_end;
    return static_cast<u32>(
        hash_message<portable>(key, domain, frame, changed, trailer, caplen - l.network_end).half[0]);
}

template <bool portable>
TS_HD u32 vlan_tag(const HashKey& key, const u8* frame, const Layers& l, u32 changed) {
    u8 buffer[20];
    const Message m = vlan_message(frame, l, changed, buffer);
    return short_hash_masked<portable>(key, DOMAIN_TAG + 0x20 + link_form(l), m, {patterns().all, ~0ull});
}

// The bits of `n` bytes from byte `at` of a message.
TS_HD u64 byte_bits(u32 at, u32 n) {
    return ((1ull << n) - 1) << at;
}

// nat keys of a packet whose headers, up to the last byte that NAT changes, are over 64 bytes long.
template <bool portable>
TS_HD void long_nat_keys(const HashKey& key, const u8* packet, u32 length, const Layers& l,
                         const NatFields& fields, u32 changed, u32 domain, FrameKeys& out) {
    u8 buffer[(MAX_NAT_HEADER + 20 + 7) & ~7u];
    changed = (changed + 7) & ~7u;
    const u32 head = smaller(changed, length);
    const u8* tail = packet + head;
    const u32 tail_bytes = length - head;
    const bool ipv4 = l.kind == Network::ipv4;
    const u32 transport = l.transport - l.network;
    const u32 address_bytes = ipv4 ? 4 : 16;
    const u32 source = ipv4 ? 12 : 8;
    for (u32 side = 0; side < 2; ++side) {
        copy_bytes(buffer, packet, head);
        const u64* pattern = ipv4 ? patterns().ipv4 : patterns().ipv6;
        for (u32 i = 0; i < 16; ++i) buffer[i] &= static_cast<u8>(pattern[i / 8] >> (8 * (i % 8)));
        if (side == 0) {
            out.tag[2] = static_cast<u32>(
                hash_message<portable>(key, DOMAIN_TAG + 0x30, nullptr, 0, buffer, head).half[0]);
        }
        for (u32 i = 0; i < fields.checksum_bytes; ++i) buffer[transport + fields.checksum + i] = 0;
        for (u32 i = 0; i < address_bytes; ++i) buffer[source + side * address_bytes + i] = 0;
        const u32 port = side == 0 ? fields.source_port : fields.destination_port;
        if (port != NO_OFFSET) buffer[transport + port] = buffer[transport + port + 1] = 0;
        // Where all of the packet is in the buffer, the head's length may be odd.
        const Digest digest =
            tail_bytes == 0
                ? hash_message<portable>(key, domain + FORM_NO_SOURCE + 2 * side, nullptr, 0, buffer, head)
                : hash_message<portable>(key, domain + FORM_NO_SOURCE + 2 * side, buffer, head, tail,
                                         tail_bytes);
        if (side == 0) {
            out.key = digest;
        } else {
            out.second = digest;
        }
    }
    out.two = true;
}

}  // namespace detail

// Keys of a frame whose headers, at options.layer, are `l`; not for exact. caplen at most MAX_CAPLEN.
template <bool portable = false>
TS_HD void frame_keys(const HashKey& key, const KeyOptions& options, const u8* frame, u32 caplen,
                      const Layers& l, FrameKeys& out) {
    using namespace detail;
    out.two = false;
    out.tag[0] = out.tag[1] = out.tag[2] = out.tag[GUARD_TAG] = 0;
    const u32 profile = static_cast<u32>(options.profile) << 4;
    if (l.kind == Network::none) {
        out.key = hash_message<portable>(key, profile + FORM_WHOLE, nullptr, 0, frame, caplen);
        return;
    }
    const bool ipv4 = l.kind == Network::ipv4;
    const u32 hops = ipv4 ? frame[l.network + 8] : l.kind == Network::ipv6 ? frame[l.network + 7] : 0;
    out.tag[GUARD_TAG] = hops | static_cast<u32>(l.tunnels) << 8;
    if (options.profile == Profile::vlan || (!ipv4 && l.kind != Network::ipv6)) {
        u8 buffer[20];
        const Message m = vlan_message(frame, l, l.network_end, buffer);
        out.key = hash_masked<portable>(key, profile + link_form(l), m, {patterns().all, ~0ull});
        out.tag[0] = exact_tag<portable>(key, frame, caplen, l, l.network);
        return;
    }
    NatFields fields;
    const bool nat = options.profile == Profile::nat && nat_fields(frame, l, fields);
    const u32 length = l.network_end - l.network;
    // First byte of the packet behind all that the profile zeroes.
    const u32 changed = nat ? smaller(l.transport - l.network + 20, length) : (ipv4 ? 12 : 8);
    out.tag[0] = exact_tag<portable>(key, frame, caplen, l, l.network + changed);
    out.tag[1] = vlan_tag<portable>(key, frame, l, l.network + changed);
    const u32 domain = profile + (ipv4 ? FORM_IPV4 : FORM_IPV6);
    const u8* packet = frame + l.network;
    if (nat && changed > MASKED_BYTES) {
        long_nat_keys<portable>(key, packet, length, l, fields, changed, domain, out);
        return;
    }
    const Message m = {packet, 0, packet, length};
    Mask mask = {ipv4 ? patterns().ipv4 : patterns().ipv6, ~0ull};
    if (!nat) {
        out.key = hash_masked<portable>(key, domain, m, mask);
        return;
    }
    out.tag[2] = short_hash_masked<portable>(key, DOMAIN_TAG + 0x31, {packet, 0, packet, changed}, mask);
    const u32 transport = l.transport - l.network;
    mask.keep = ~byte_bits(transport + fields.checksum, fields.checksum_bytes);
    Mask other = mask;
    mask.keep &= ~(ipv4 ? byte_bits(12, 4) : byte_bits(8, 16));
    other.keep &= ~(ipv4 ? byte_bits(16, 4) : byte_bits(24, 16));
    if (fields.source_port != NO_OFFSET) mask.keep &= ~byte_bits(transport + fields.source_port, 2);
    if (fields.destination_port != NO_OFFSET)
        other.keep &= ~byte_bits(transport + fields.destination_port, 2);
    hash_masked_pair<portable>(key, m, domain + FORM_NO_SOURCE, mask, domain + FORM_NO_DESTINATION, other,
                               out.key, out.second);
    out.two = true;
}

// Keys of a frame under options. caplen at most MAX_CAPLEN. Where two is false, second is not written.
template <bool portable = false>
TS_HD void frame_keys(const HashKey& key, const KeyOptions& options, const u8* frame, u32 caplen,
                      u16 linktype, FrameKeys& out) {
    if (options.profile == Profile::exact) {
        const bool whole = caplen <= options.ignore_bytes || options.ignore_bytes == 0;
        const u32 skip = whole ? 0 : options.ignore_bytes;
        out.two = false;
        for (u32 t = 0; t < TAGS; ++t) out.tag[t] = 0;
        out.key = hash_message<portable>(
            key,
            whole ? detail::DOMAIN_EXACT + detail::FORM_WHOLE : detail::DOMAIN_EXACT + detail::FORM_IGNORING,
            nullptr, 0, frame + skip, caplen - skip);
        return;
    }
    Layers l;
    parse_sound_frame(frame, caplen, linktype, options.layer, l, options.ends);
    frame_keys<portable>(key, options, frame, caplen, l, out);
}

}  // namespace twinstamp
