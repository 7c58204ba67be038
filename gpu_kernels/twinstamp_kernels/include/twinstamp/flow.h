// SPDX-License-Identifier: Apache-2.0
// The fields of a frame that rules look at, and the flow hash that balancing uses (docs/balance.md).
//
// The flow hash is multilinear over 64-bit characters with 128-bit keys (Lemire & Kaser 2014): strongly
// universal, so two flows share a hash with probability 2^-64 whoever chose them. A bijection at the end
// takes away its linearity, or a run of addresses would become a run of equal steps. It sees the
// endpoints in sorted order and is the same in both directions. A Toeplitz hash with a periodic key would
// be symmetric too, but has rank 16: an attacker, or a plain address plan, can aim flows at one server.
#pragma once

#include "twinstamp/hash.h"
#include "twinstamp/parse.h"

namespace twinstamp {

// What FlowKey::l4 holds. TCP: flags byte << 8 | low four bits of the byte before it (AE and the three
// reserved bits). ICMP and ICMPv6: type << 8 | code. Both as ClassBench writes its last column.
enum L4Kind : u8 { L4_NONE = 0, L4_TCP = 1, L4_ICMP = 2 };

enum class HashMode : u8 { flow, ip };

struct FlowKey {
    u64 src[2], dst[2];  // big-endian value of the address; IPv4 in the upper half of word 0
    u16 sport, dport;    // 0 where unknown
    u16 l4;
    u16 vlan;        // NO_VLAN: untagged
    u16 ethertype;   // of a frame that is not IP
    u8 family;       // 4, 6, or 0: not IP, or its IP header was not understood
    u8 protocol;     // 0 where family is 0
    L4Kind l4_kind;  // L4_NONE: neither TCP nor ICMP, or the header is not in this frame
    u8 ports_known;
    Fragment fragment;
};

constexpr u32 FLOW_CHARACTERS = 5;  // kind and ports, two addresses of two

TS_HD u64 mix64(u64 x) {  // the finalizer of splitmix64 (Steele, Lea & Flood 2014)
    x ^= x >> 30;
    x *= 0xBF58476D1CE4E5B9ull;
    x ^= x >> 27;
    x *= 0x94D049BB133111EBull;
    return x ^ (x >> 31);
}

struct FlowHashKey {
    Limb limbs[1 + FLOW_CHARACTERS];
};

TS_HD bool has_ports(u8 protocol) {
    return protocol == IP_TCP || protocol == IP_UDP || protocol == IP_SCTP || protocol == IP_UDPLITE ||
           protocol == IP_DCCP;
}

TS_HD u64 read_be64(const u8* p) {
    return (static_cast<u64>(read_be32(p)) << 32) | read_be32(p + 4);
}

// Fields of the frame whose headers are at `layers`.
TS_HD void flow_key(const u8* frame, u32 caplen, const Layers& layers, FlowKey& key) {
    key.vlan = layers.vlan;
    key.ethertype = layers.ethertype;
    key.sport = key.dport = key.l4 = 0;
    key.protocol = 0;
    key.family = 0;
    key.l4_kind = L4_NONE;
    key.ports_known = 0;
    key.fragment = Fragment::none;
    key.src[0] = key.src[1] = key.dst[0] = key.dst[1] = 0;
    const u8* header = frame + layers.network;
    if (layers.kind == Network::ipv4) {
        key.family = 4;
        key.src[0] = static_cast<u64>(read_be32(header + 12)) << 32;
        key.dst[0] = static_cast<u64>(read_be32(header + 16)) << 32;
    } else if (layers.kind == Network::ipv6) {
        key.family = 6;
        key.src[0] = read_be64(header + 8);
        key.src[1] = read_be64(header + 16);
        key.dst[0] = read_be64(header + 24);
        key.dst[1] = read_be64(header + 32);
    } else {
        // Without IP the MAC pair stands in for the endpoints; other link headers name one side only.
        if (layers.link != NO_OFFSET && layers.link_length == 12 && caplen - layers.link >= 12 &&
            caplen >= layers.link) {
            const u8* mac = frame + layers.link;
            key.dst[0] =
                (static_cast<u64>(read_be32(mac)) << 32) | (static_cast<u64>(read_be16(mac + 4)) << 16);
            key.src[0] =
                (static_cast<u64>(read_be32(mac + 6)) << 32) | (static_cast<u64>(read_be16(mac + 10)) << 16);
        }
        // 802.3 carries its length here, which says nothing about who talks.
        if (layers.kind == Network::llc) key.ethertype = 0;
        return;
    }
    key.protocol = layers.protocol;
    key.fragment = layers.fragment;
    if (layers.transport == NO_OFFSET) return;
    const u8* l4 = frame + layers.transport;
    const u32 left = layers.network_end - layers.transport;
    if (has_ports(key.protocol)) {
        if (left < 4) return;
        key.sport = read_be16(l4);
        key.dport = read_be16(l4 + 2);
        key.ports_known = 1;
        if (key.protocol == IP_TCP && left >= 14) {
            key.l4 = static_cast<u16>((l4[13] << 8) | (l4[12] & 0x0F));
            key.l4_kind = L4_TCP;
        }
    } else if ((key.protocol == IP_ICMP || key.protocol == IP_ICMPV6) && left >= 2) {
        key.l4 = read_be16(l4);
        key.l4_kind = L4_ICMP;
    }
}

TS_HD bool is_icmp_error(const FlowKey& key) {
    if (key.l4_kind != L4_ICMP) return false;
    const u32 type = key.l4 >> 8;
    if (key.protocol == IP_ICMPV6) return type >= 1 && type < 128;           // RFC 4443, 2.1
    return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;  // RFC 792
}

// Headers and fields of the packet that an ICMP error quotes. False: cut too short to say.
TS_HD bool quoted_key(const u8* frame, const Layers& layers, Layers& inner, FlowKey& key) {
    if (layers.transport == NO_OFFSET || layers.network_end - layers.transport < 8 + 20) return false;
    inner = layers;
    if (!detail::parse_ip(frame, layers.network_end, layers.transport + 8, inner)) return false;
    flow_key(frame, layers.network_end, inner, key);
    return true;
}

namespace detail {

TS_HD u64 hash_characters(const FlowHashKey& secret, u64 meta, u64 a0, u64 a1, u64 b0, u64 b1, bool wide) {
    Accumulator sum{secret.limbs[0].low, secret.limbs[0].high};
    sum.add(secret.limbs[1], meta);
    if (wide) {
        sum.add(secret.limbs[2], a0);
        sum.add(secret.limbs[3], b0);
        sum.add(secret.limbs[4], a1);
        sum.add(secret.limbs[5], b1);
    } else {
        sum.add(secret.limbs[2], a0 | (b0 >> 32));
    }
    return mix64(sum.result());
}

}  // namespace detail

// The flow hash of `key`'s own endpoints. HashMode::ip leaves ports and protocol out, so that fragments
// and every connection of two hosts agree without any state.
TS_HD u64 flow_hash(const FlowHashKey& secret, const FlowKey& key, HashMode mode) {
    const bool reversed = key.src[0] != key.dst[0]
                              ? key.src[0] > key.dst[0]
                              : (key.src[1] != key.dst[1] ? key.src[1] > key.dst[1] : key.sport > key.dport);
    // Values, not pointers to them: a device keeps what has no address in registers.
    const u64 a0 = reversed ? key.dst[0] : key.src[0], a1 = reversed ? key.dst[1] : key.src[1];
    const u64 b0 = reversed ? key.src[0] : key.dst[0], b1 = reversed ? key.src[1] : key.dst[1];
    const u32 low = reversed ? key.dport : key.sport;
    const u32 high = reversed ? key.sport : key.dport;
    const bool flow = mode == HashMode::flow;
    // A frame that is not IP is told apart by its ethertype, an IP packet by its protocol.
    const u32 kind = key.family == 0 ? key.ethertype : (flow ? key.protocol : 0u);
    const u64 meta = (static_cast<u64>(key.family) << 48) | (static_cast<u64>(kind) << 32) |
                     (flow ? (low << 16) | high : 0u);
    return detail::hash_characters(secret, meta, a0, a1, b0, b1, key.family != 4);
}

}  // namespace twinstamp
