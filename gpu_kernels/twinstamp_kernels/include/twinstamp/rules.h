// SPDX-License-Identifier: Apache-2.0
// First-match look-up on compiled rule tables: aggregated bit vectors (Baboescu & Varghese, SIGCOMM 2001).
//
// Each field of a packet picks one bitmap, with a bit per rule that the field's value satisfies. The
// lowest bit set in all bitmaps is the first rule that matches. A second, 64 times shorter bitmap says
// which words are not zero, so most words are never read. Equal bitmaps are stored once. The cost is
// bounded: a few table reads per field, then at most the words of one bitmap, whatever the traffic.
// Layout of one bitmap: `aggregates` words, then `words` words, padded to `stride`.
#pragma once

#include "twinstamp/flow.h"

namespace twinstamp {

constexpr u32 RULE_FIELDS = 7;
constexpr i32 NO_RULE = -1;
constexpr u32 VLAN_UNTAGGED = 4096;

// Addresses in value order: interval i reaches from bound i up to bound i + 1, and has one bitmap.
struct AddressTable {
    const u32* top;     // [65537] interval that holds the first address with these upper 16 bits
    const u64* high;    // [intervals] upper 64 bits of each bound
    const u64* low;     // [intervals] lower 64 bits; null where all are zero (IPv4)
    const u32* bitmap;  // [intervals]
};

// The rules that one family (IPv4, IPv6, not IP) can match at all, in their order.
struct RuleSubset {
    u32 entries;  // 0: nothing can match
    u32 words, aggregates, stride;
    const u64* bitmaps;
    const i32* rule;  // [entries]: a rule that holds in either direction has two
    // A null table: every rule of the subset accepts every value of that field.
    AddressTable src, dst;
    const u32* sport;  // [65537], the last for "not known"
    const u32* dport;
    const u32* protocol;  // [256]
    const u32* vlan;      // [4097], VLAN_UNTAGGED the last
    const u32* l4;        // [classes]
};

struct RuleTables {
    RuleSubset subsets[3];  // IPv4, IPv6, not IP
    const u16* tcp_class;   // [65536] class of each TCP flags word, null: no rule looks at flags
    const u16* icmp_class;  // [65536] of each ICMP type and code
};

TS_HD u32 l4_class(const RuleTables& tables, const FlowKey& key) {
    if (tables.tcp_class == nullptr || key.l4_kind == L4_NONE) return 0;
    return key.l4_kind == L4_TCP ? tables.tcp_class[key.l4] : tables.icmp_class[key.l4];
}

TS_HD u32 find_address(const AddressTable& table, const u64 address[2]) {
    const u32 top = static_cast<u32>(address[0] >> 48);
    u32 first = table.top[top];
    u32 count = table.top[top + 1] - first + 1;
    while (count > 1) {
        const u32 half = count / 2;
        const u32 middle = first + half;
        const bool above =
            table.high[middle] < address[0] ||
            (table.high[middle] == address[0] && (table.low == nullptr || table.low[middle] <= address[1]));
        first = above ? middle : first;
        count -= half;
    }
    return table.bitmap[first];
}

// The bitmaps of a packet in its subset; `count` of them, 0: every rule accepts it. On a device each field
// has its place, null where it has no bitmap: places known at compile time stay in registers.
struct RuleQuery {
    const u64* bitmap[RULE_FIELDS];
    u32 count;
    const RuleSubset* subset;

    TS_HD void put(u32 field, const u64* map) {
#if defined(TS_DEVICE)
        bitmap[field] = map;
#else
        static_cast<void>(field);
        bitmap[count] = map;
#endif
        ++count;
    }

    // Word `at` of all bitmaps together.
    TS_HD u64 word(u32 at) const {
#if defined(TS_DEVICE)
        u64 all = ~0ull;
        for (u32 f = 0; f < RULE_FIELDS; ++f)
            if (bitmap[f] != nullptr) all &= bitmap[f][at];
#else
        u64 all = bitmap[0][at];
        for (u32 f = 1; f < count; ++f) all &= bitmap[f][at];
#endif
        return all;
    }
};

TS_HD void find_bitmaps(const RuleTables& tables, const FlowKey& key, RuleQuery& query) {
    const RuleSubset& set = tables.subsets[key.family == 4 ? 0 : key.family == 6 ? 1 : 2];
    query.subset = &set;
    query.count = 0;
#if defined(TS_DEVICE)
    for (u32 f = 0; f < RULE_FIELDS; ++f) query.bitmap[f] = nullptr;
#endif
    if (set.entries == 0) return;
    const u64 stride = set.stride;
    if (set.src.top != nullptr) query.put(0, set.bitmaps + find_address(set.src, key.src) * stride);
    if (set.dst.top != nullptr) query.put(1, set.bitmaps + find_address(set.dst, key.dst) * stride);
    if (set.dport != nullptr)
        query.put(2, set.bitmaps + set.dport[key.ports_known ? key.dport : 65536u] * stride);
    if (set.sport != nullptr)
        query.put(3, set.bitmaps + set.sport[key.ports_known ? key.sport : 65536u] * stride);
    if (set.protocol != nullptr) query.put(4, set.bitmaps + set.protocol[key.protocol] * stride);
    if (set.l4 != nullptr) query.put(5, set.bitmaps + set.l4[l4_class(tables, key)] * stride);
    if (set.vlan != nullptr)
        query.put(6,
                  set.bitmaps + set.vlan[key.vlan == NO_VLAN ? VLAN_UNTAGGED : key.vlan & 0xFFFu] * stride);
}

TS_HD u32 lowest_bit(u64 word) {
#if defined(TS_DEVICE)
    return static_cast<u32>(__ffsll(static_cast<long long>(word)) - 1);
#else
    return static_cast<u32>(__builtin_ctzll(word));
#endif
}

TS_HD i32 first_match(const RuleQuery& query) {
    const RuleSubset& set = *query.subset;
    if (set.entries == 0) return NO_RULE;
    if (query.count == 0) return set.rule[0];
    for (u32 a = 0; a < set.aggregates; ++a) {
        u64 candidates = query.word(a);
        for (; candidates != 0; candidates &= candidates - 1) {
            const u32 word = a * 64 + lowest_bit(candidates);
            const u64 match = query.word(set.aggregates + word);
            if (match != 0) return set.rule[word * 64 + lowest_bit(match)];
        }
    }
    return NO_RULE;
}

// The first rule that matches, counted from 0, or NO_RULE.
TS_HD i32 match_rules(const RuleTables& tables, const FlowKey& key) {
    RuleQuery query;
    find_bitmaps(tables, key, query);
    return first_match(query);
}

}  // namespace twinstamp
