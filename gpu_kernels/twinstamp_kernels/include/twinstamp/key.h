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
//   any but exact, where a header is cut short or not understood: the captured bytes, own domain
//
// A message of a wider profile is a function of that of each narrower one, so it never loses a copy that
// a narrower profile finds (among frames of one link type).
#pragma once

#include "twinstamp/hash.h"
#include "twinstamp/parse.h"

namespace twinstamp {

// The numbers are also the type codes in verdicts.
enum class Profile : u8 { exact = 1, vlan = 2, routing = 3, nat = 4 };

struct KeyOptions {
    Profile profile;
    Layer layer;
    u32 ignore_bytes;  // only with exact
};

// key: the digest under the profile. two: a nat frame, a copy of another when either key, which has no
// source endpoint, or second, which has no destination endpoint, is equal.
// tag[p - 1], for profiles p narrower than the configured one (others 0): given two frames with equal
// keys, their tags are equal when they are copies under p (always) and when they are not (2^-32).
struct FrameKeys {
    Digest key;
    Digest second;
    bool two;
    u32 tag[3];
};

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

constexpr u32 HEAD_BYTES = 64;       // what is copied of an ordinary message: one AVX-512 register
constexpr u32 MAX_NAT_HEADER = 512;  // longer headers in front of layer 4: nat as routing

TS_HD void copy_bytes(u8* to, const u8* from, u32 n) {
#if defined(__CUDA_ARCH__) || defined(__CUDACC_RTC__)
    for (u32 i = 0; i < n; ++i) to[i] = from[i];
#else
    std::memcpy(to, from, n);
#endif
}

TS_HD void zero_bytes(u8* to, u32 n) {
    for (u32 i = 0; i < n; ++i) to[i] = 0;
}

TS_HD u32 smaller(u32 a, u32 b) {
    return a < b ? a : b;
}

// The bytes that a message starts with, `first` of them in a buffer, and those that follow in place.
// Where the buffer holds all of the message there is no tail.
struct Message {
    const u8* head;
    u32 head_bytes;  // a multiple of 8 unless tail_bytes is 0
    const u8* tail;
    u32 tail_bytes;
};

template <bool portable>
TS_HD Digest digest(const HashKey& key, u32 domain, const Message& m) {
    if (m.tail_bytes == 0) return hash_message<portable>(key, domain, nullptr, 0, m.head, m.head_bytes);
    return hash_message<portable>(key, domain, m.head, m.head_bytes, m.tail, m.tail_bytes);
}

// Copies the first `want` bytes (a multiple of 8) of `n` at `p` to `buffer`, or all where there are fewer.
TS_HD Message take_head(u8* buffer, u32 want, const u8* p, u32 n) {
    if (n > want) {
        copy_bytes(buffer, p, want);
        return {buffer, want, p + want, n - want};
    }
    copy_bytes(buffer, p, n);
    return {buffer, n, p + n, 0};
}

TS_HD u32 link_form(const Layers& l) {
    if (l.link == NO_OFFSET) return FORM_NO_LINK;
    return l.link_length == 12 ? FORM_ETHERNET : l.link_length == 14 ? FORM_SLL : FORM_SLL2;
}

// Start of what a vlan message takes from behind the link header and its tags.
TS_HD u32 payload_start(const Layers& l) {
    return l.link == NO_OFFSET ? l.network : l.link_payload;
}

// The vlan message cut at `end`, an offset in the frame.
TS_HD Message vlan_message(u8* buffer, const u8* frame, const Layers& l, u32 end) {
    const u32 payload = payload_start(l);
    const u32 left = end - payload;
    if (l.link == NO_OFFSET) return {frame + payload, left, frame, 0};
    const u32 link = l.link_length;
    // Untagged, with the ethertype behind the addresses: the message lies in the frame as it is.
    if (payload == l.link + link + 2 && link != 18) return {frame + l.link, link + 2 + left, frame, 0};
    copy_bytes(buffer, frame + l.link, link);
    buffer[link] = static_cast<u8>(l.ethertype >> 8);
    buffer[link + 1] = static_cast<u8>(l.ethertype);
    Message m = take_head(buffer + link + 2, HEAD_BYTES - (link + 2), frame + payload, left);
    m.head = buffer;
    m.head_bytes += link + 2;
    return m;
}

// TTL, checksum and traffic class: what a router may change.
TS_HD void zero_routed(u8* ip, Network kind) {
    if (kind == Network::ipv4) {
        ip[1] = 0;
        ip[8] = 0;
        ip[10] = ip[11] = 0;
    } else {
        ip[0] &= 0xF0;
        ip[1] &= 0x0F;
        ip[7] = 0;
    }
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
            return left >= 20;
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
    return identified || left - header >= 16;
}

// First byte of the frame behind all that the profile zeroes in layers 3 and 4.
TS_HD u32 changed_end(const Layers& l, bool nat) {
    const u32 end = nat ? l.transport + 20 : l.network + (l.kind == Network::ipv4 ? 12 : 8);
    return smaller(end, l.network_end);
}

// Low 32 bits of hash_message(…).half[0], for a fraction of its work: the lower half of the sums will do.
template <bool portable>
TS_HD u32 short_digest(const HashKey& key, u32 domain, const Message& m) {
    return static_cast<u32>(digest<portable>(key, domain, m).half[0]);
}

// Tells frames with equal keys apart by all they have beside the messages those are made of:
// everything up to `end`, a multiple of 8, and what lies behind layer 3.
template <bool portable>
TS_HD u32 exact_tag(const HashKey& key, const u8* frame, u32 caplen, const Layers& l, bool nat) {
    const u32 changed = (changed_end(l, nat) + 7) & ~7u;
    const u32 end = changed < HEAD_BYTES ? HEAD_BYTES : changed;
    if (caplen <= end) return short_digest<portable>(key, DOMAIN_TAG, {frame, caplen, frame, 0});
    const u32 trailer = l.network_end < end ? end : l.network_end;
    return short_digest<portable>(key, DOMAIN_TAG, {frame, end, frame + trailer, caplen - trailer});
}

template <bool portable>
TS_HD u32 vlan_tag(const HashKey& key, const u8* frame, const Layers& l, bool nat) {
    u8 buffer[HEAD_BYTES];
    const Message m = vlan_message(buffer, frame, l, changed_end(l, nat));
    return short_digest<portable>(key, DOMAIN_TAG + 0x20 + link_form(l), m);
}

}  // namespace detail

// Keys of a frame whose headers, at options.layer, are `l`. caplen at most MAX_CAPLEN.
template <bool portable = false>
TS_HD void frame_keys(const HashKey& key, const KeyOptions& options, const u8* frame, u32 caplen,
                      const Layers& l, FrameKeys& out) {
    using namespace detail;
    out.two = false;
    out.tag[0] = out.tag[1] = out.tag[2] = 0;
    const u32 profile = static_cast<u32>(options.profile) << 4;
    if (l.kind == Network::none) {
        out.key = hash_message<portable>(key, profile + FORM_WHOLE, nullptr, 0, frame, caplen);
        return;
    }
    const bool routed = l.kind == Network::ipv4 || l.kind == Network::ipv6;
    if (options.profile == Profile::vlan || !routed) {
        u8 buffer[HEAD_BYTES];
        const Message m = vlan_message(buffer, frame, l, l.network_end);
        out.key = digest<portable>(key, profile + link_form(l), m);
        out.tag[0] = exact_tag<portable>(key, frame, caplen, l, false);
        return;
    }
    const u8* packet = frame + l.network;
    const u32 length = l.network_end - l.network;
    const u32 form = l.kind == Network::ipv4 ? FORM_IPV4 : FORM_IPV6;
    NatFields fields;
    const bool nat = options.profile == Profile::nat && nat_fields(frame, l, fields);
    out.tag[0] = exact_tag<portable>(key, frame, caplen, l, nat);
    out.tag[1] = vlan_tag<portable>(key, frame, l, nat);
    if (!nat) {
        u8 buffer[HEAD_BYTES];
        const Message m = take_head(buffer, HEAD_BYTES, packet, length);
        zero_routed(buffer, l.kind);
        out.key = digest<portable>(key, profile + form, m);
        return;
    }
    u8 buffer[(MAX_NAT_HEADER + 20 + 7) & ~7u];
    const u32 changed = (changed_end(l, true) - l.network + 7) & ~7u;
    const Message m = take_head(buffer, changed < HEAD_BYTES ? HEAD_BYTES : changed, packet, length);
    zero_routed(buffer, l.kind);
    out.tag[2] = short_digest<portable>(key, DOMAIN_TAG + 0x30 + form,
                                        {buffer, smaller(changed, m.head_bytes), buffer, 0});
    u8* transport = buffer + (l.transport - l.network);
    zero_bytes(transport + fields.checksum, fields.checksum_bytes);
    const u32 address_bytes = l.kind == Network::ipv4 ? 4 : 16;
    u8* source = buffer + (l.kind == Network::ipv4 ? 12 : 8);
    u8* destination = source + address_bytes;
    u8 kept[16 + 2];
    copy_bytes(kept, source, address_bytes);
    zero_bytes(source, address_bytes);
    if (fields.source_port != NO_OFFSET) {
        copy_bytes(kept + 16, transport + fields.source_port, 2);
        zero_bytes(transport + fields.source_port, 2);
    }
    out.key = digest<portable>(key, profile + FORM_NO_SOURCE + form, m);
    copy_bytes(source, kept, address_bytes);
    zero_bytes(destination, address_bytes);
    if (fields.source_port != NO_OFFSET) copy_bytes(transport + fields.source_port, kept + 16, 2);
    if (fields.destination_port != NO_OFFSET) zero_bytes(transport + fields.destination_port, 2);
    out.second = digest<portable>(key, profile + FORM_NO_DESTINATION + form, m);
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
        out.tag[0] = out.tag[1] = out.tag[2] = 0;
        out.key = hash_message<portable>(
            key,
            whole ? detail::DOMAIN_EXACT + detail::FORM_WHOLE : detail::DOMAIN_EXACT + detail::FORM_IGNORING,
            nullptr, 0, frame + skip, caplen - skip);
        return;
    }
    Layers l;
    parse_frame(frame, caplen, linktype, options.layer, l);
    frame_keys<portable>(key, options, frame, caplen, l, out);
}

}  // namespace twinstamp
