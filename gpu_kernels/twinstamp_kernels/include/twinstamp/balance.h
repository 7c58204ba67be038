// SPDX-License-Identifier: Apache-2.0
// Weighted rendezvous hashing per bucket, in integers (Thaler & Ravishankar 1998; weights by -log(u)/w).
//
// A bucket belongs to the living server with the least -log2(u) / weight, u in (0, 1] being a keyed hash
// of bucket and server. Other servers' scores do not enter a server's own, so a death moves only the
// dead server's buckets and a return takes back exactly those.
#pragma once

#include "twinstamp/flow.h"

namespace twinstamp {

// What became of a frame in the rules and balance stage.
enum class Fate : u8 { skipped, forwarded, dropped, no_server, held };
constexpr u32 FATES = 5;

// Words that a device counts in: packets and bytes of each fate, two counters, then packets and bytes of
// each server.
constexpr u32 COUNT_FATES = 0;
constexpr u32 COUNT_WITHOUT_SERVER = 2 * FATES;
constexpr u32 COUNT_ICMP_FOLLOWED = 2 * FATES + 1;
constexpr u32 DEVICE_COUNTS = 2 * FATES + 2;

constexpr u16 NO_SERVER = 0xFFFF;
constexpr u32 MAX_WEIGHT = 65535;
constexpr u32 LOG2_BITS = 40;  // fraction bits of a score
constexpr u32 LOG2_TABLE_BITS = 13;
constexpr u32 LOG2_TABLE = (1u << LOG2_TABLE_BITS) + 1;  // log2(1 + i / 2^13) with 40 fraction bits

// -log2((h + 1) / 2^64) with LOG2_BITS fraction bits, at most 64 << 40.
TS_HD u64 negative_log2(const u64* table, u64 h) {
    if (h == ~0ull) return 0;
    const u64 x = h + 1;
#if defined(TS_DEVICE)
    const u32 zeros = static_cast<u32>(__clzll(static_cast<long long>(x)));
#else
    const u32 zeros = static_cast<u32>(__builtin_clzll(x));
#endif
    const u64 fraction = zeros == 63 ? 0 : x << (zeros + 1);
    const u32 index = static_cast<u32>(fraction >> (64 - LOG2_TABLE_BITS));
    const u64 rest = (fraction << LOG2_TABLE_BITS) >> 32;  // 32 bits between two table entries
    const u64 log = table[index] + (((table[index + 1] - table[index]) * rest) >> 32);
    return (static_cast<u64>(zeros + 1) << LOG2_BITS) - log;
}

// Server of one bucket: `count` members (server, 64-bit id, weight), alive[server] nonzero.
TS_HD u16 choose_server(const u64* log2_table, u64 key, u32 bucket, const u16* server, const u64* id,
                        const u32* weight, u32 count, const u8* alive) {
    const u64 mixed = mix64(key + 0x9E3779B97F4A7C15ull * (bucket + 1ull));
    u16 best = NO_SERVER;
    u64 best_hash = 0, best_score = 0, best_id = 0;
    u32 best_weight = 0;
    for (u32 i = 0; i < count; ++i) {
        if (!alive[server[i]] || weight[i] == 0) continue;
        const u64 hash = mix64(mixed ^ id[i]);
        // Neither luckier nor heavier: no logarithm needed to know that it loses.
        if (hash < best_hash && weight[i] <= best_weight) continue;
        const u64 score = negative_log2(log2_table, hash);
        // score / weight as fractions: 47 + 16 bits, so the products are exact. Ties go by hash, then id:
        // never by place in the list.
        const u64 left = score * best_weight, right = best_score * weight[i];
        const bool wins =
            left != right ? left < right : (hash != best_hash ? hash > best_hash : id[i] < best_id);
        if (best == NO_SERVER || wins) {
            best = server[i];
            best_hash = hash;
            best_score = score;
            best_weight = weight[i];
            best_id = id[i];
        }
    }
    return best;
}

}  // namespace twinstamp
