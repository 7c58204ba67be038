// SPDX-License-Identifier: Apache-2.0
// Rules and balance on a device (docs/rules.md, docs/balance.md). classify_frames judges a chunk; what
// needs the fragment table it marks for the host, whose verdicts put_verdicts brings back; count_copies,
// scan_sums (compact.cu) and write_copies then share the whole batch among the servers.
#include "twinstamp/balance.h"
#include "twinstamp/judge.h"
#include "twinstamp/tiles.h"

using namespace twinstamp;

namespace {

struct NoTable {
    TS_HD bool operator()(const Layers&, FlowKey&) const { return false; }
};

// Actions and server tables; `tables` null: no group has servers.
struct Shares {
    const u32* action_of_rule;
    const u32* action_first;
    const u16* action_group;
    const u16* tables;
    u64 bits;
};

struct Bucket {
    u32 begin, end;  // groups of the frame's action
    u64 number;
};

TS_DEVICE_ONLY Bucket find_bucket(const Shares& shares, i32 rule, u64 hash) {
    const u32 action = shares.action_of_rule[static_cast<u32>(rule + 1)];
    return {shares.action_first[action], shares.action_first[action + 1],
            shares.bits == 0 ? 0 : hash >> (64 - shares.bits)};
}

TS_DEVICE_ONLY u32 server_of(const Shares& shares, const Bucket& bucket, u32 group) {
    if (shares.tables == nullptr) return NO_SERVER;
    return shares.tables[(static_cast<u64>(shares.action_group[group]) << shares.bits) + bucket.number];
}

TS_DEVICE_ONLY bool is_forwarded(u8 fate) {
    return fate == static_cast<u8>(Fate::forwarded);
}

TS_DEVICE_ONLY u32 copies_of(const Shares& shares, const Bucket& bucket) {
    u32 copies = 0;
    for (u32 g = bucket.begin; g < bucket.end; ++g) copies += server_of(shares, bucket, g) != NO_SERVER;
    return copies;
}

// A tally in a block's shared memory: packets, and the bytes in two words that cannot overflow within a
// tile. 32-bit additions to shared memory are one instruction, so one hot server costs a cycle a copy.
constexpr u32 TALLY_WORDS = 3;
constexpr u32 SHARED_TALLIES = 1024;

TS_DEVICE_ONLY void add_tally(u32* tally, u32 captured) {
    atomicAdd(tally, 1u);
    atomicAdd(tally + 1, captured & 0xFFFFu);
    if (captured >> 16) atomicAdd(tally + 2, captured >> 16);
}

TS_DEVICE_ONLY void add_words(u64* counts, u64 packets, u64 bytes) {
    if (packets == 0) return;
    atomicAdd(counts, packets);
    atomicAdd(counts + 1, bytes);
}

}  // namespace

// Options of classify_frames, as bits.
constexpr u64 OPTION_INNER = 1, OPTION_BY_IP = 2, OPTION_FOLLOW_ICMP = 4;

// A thread judges a frame. data: the bytes of offset `base` on. keep: null, or zero for frames not to be
// judged. mark: set where the fragment table must be asked first; such a frame is held until then: its rule
// and hash are not valid yet. captured: a copy of caplen that stays when the chunk goes. counts:
// DEVICE_COUNTS words.
//
// Why a thread and not a warp per frame: a look-up reads 7 table entries and, per field, one 32-byte sector
// of the aggregate and one per candidate word, mostly 1 to 3: 14 to 28 sectors. A warp reading 32 words of
// each bitmap at once would move 8 sectors per field, 56, and take its 32 frames one after the other, each
// with its own chain of dependent reads. It would win only where more than 7 words are tried.
extern "C" __global__ void __launch_bounds__(256)
    classify_frames(const u8* data, u64 base, const u64* offset, const u32* caplen, const u16* port,
                    const u16* linktypes, const u8* keep, u64 count, const RuleTables* tables,
                    const FlowHashKey* key, u64 options, i32* rule, u64* hash, u8* fate, u8* mark,
                    u32* captured, u64* counts) {
    const u64 i = thread_number();
    bool followed = false;
    if (i < count) {
        const u32 length = caplen[i];
        Judged judged{NO_RULE, 0, false};
        const bool judges = keep == nullptr || keep[i] != 0;
        bool known = true;
        if (judges) {
            const u8* frame = data + (offset[i] - base);
            const HashMode mode = options & OPTION_BY_IP ? HashMode::ip : HashMode::flow;
            Layers layers;
            FlowKey fields;
            parse_frame(frame, length, linktypes[port[i]],
                        options & OPTION_INNER ? Layer::inner : Layer::outer, layers);
            flow_key(frame, length, layers, fields);
            known = (fields.fragment == Fragment::none || mode == HashMode::ip) &&
                    judge(*tables, *key, {mode, (options & OPTION_FOLLOW_ICMP) != 0}, frame, layers, fields,
                          judged, NoTable());
            followed = known && judged.followed;
        }
        rule[i] = judged.rule;
        hash[i] = judged.hash;
        fate[i] = static_cast<u8>(!judges ? Fate::skipped : known ? Fate::forwarded : Fate::held);
        mark[i] = !known;
        captured[i] = length;
    }
    const u32 many = static_cast<u32>(__popc(__ballot_sync(ALL_LANES, followed)));
    if (many != 0 && threadIdx.x % WARP == 0) atomicAdd(counts + COUNT_ICMP_FOLLOWED, static_cast<u64>(many));
}

// The host's verdicts of `count` frames, `number` each.
extern "C" __global__ void __launch_bounds__(256)
    put_verdicts(const u32* number, const i32* from_rule, const u64* from_hash, const u8* from_fate,
                 u64 count, i32* rule, u64* hash, u8* fate) {
    const u64 k = thread_number();
    if (k >= count) return;
    const u32 i = number[k];
    rule[i] = from_rule[k];
    hash[i] = from_hash[k];
    fate[i] = from_fate[k];
}

// sums[tile]: copies of the tile's frames. At most 4,096 groups an action.
extern "C" __global__ void __launch_bounds__(256)
    count_copies(const i32* rule, const u64* hash, const u8* fate, u64 count, const u32* action_of_rule,
                 const u32* action_first, const u16* action_group, const u16* server_tables, u64 bits,
                 u64* sums) {
    TS_SHARED(u32, scratch, BLOCK / WARP + 1);
    const Shares shares{action_of_rule, action_first, action_group, server_tables, bits};
    u32 mine = 0;
    for (u32 item = 0; item < TILE_ITEMS; ++item) {
        const u64 i = tile_frame(item);
        if (i < count && is_forwarded(fate[i]))
            mine += copies_of(shares, find_bucket(shares, rule[i], hash[i]));
    }
    u32 total;
    block_exclusive_sum(mine, scratch, total);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// Copies in ascending order of frames, and within a frame in that of its action's groups; sums: from
// scan_sums. Says in `fate` what became of frames without a copy, and counts. `shared_servers`: servers, at
// most 1,024, tallied in shared memory; 0 where an action has more than 32 groups.
extern "C" __global__ void __launch_bounds__(256)
    write_copies(const i32* rule, const u64* hash, u8* fate, const u32* captured, u64 count,
                 const u32* action_of_rule, const u32* action_first, const u16* action_group,
                 const u16* server_tables, u64 bits, const u64* sums, u64 shared_servers, u32* copy_frame,
                 u16* copy_server, u64* counts) {
    TS_SHARED(u32, scratch, BLOCK / WARP + 1);
    TS_SHARED(u32, fate_tally, FATES * TALLY_WORDS);
    TS_SHARED(u32, server_tally, SHARED_TALLIES * TALLY_WORDS);
    const Shares shares{action_of_rule, action_first, action_group, server_tables, bits};
    const u32 server_words = static_cast<u32>(shared_servers) * TALLY_WORDS;
    for (u32 w = threadIdx.x; w < server_words; w += BLOCK) server_tally[w] = 0;
    if (threadIdx.x < FATES * TALLY_WORDS) fate_tally[threadIdx.x] = 0;
    __syncthreads();
    u64 at = sums[blockIdx.x];
    u32 without = 0;
    for (u32 item = 0; item < TILE_ITEMS; ++item) {
        const u64 i = tile_frame(item);
        u8 outcome = i < count ? fate[i] : static_cast<u8>(Fate::skipped);
        const bool chooses = i < count && is_forwarded(outcome);
        Bucket bucket{0, 0, 0};
        u32 copies = 0;
        if (chooses) {
            bucket = find_bucket(shares, rule[i], hash[i]);
            copies = copies_of(shares, bucket);
        }
        u32 total;
        u64 place = at + block_exclusive_sum(copies, scratch, total);
        if (chooses) {
            for (u32 g = bucket.begin; g < bucket.end; ++g) {
                const u32 server = server_of(shares, bucket, g);
                if (server == NO_SERVER) continue;
                copy_frame[place] = static_cast<u32>(i);
                copy_server[place] = static_cast<u16>(server);
                ++place;
                if (server < shared_servers)
                    add_tally(server_tally + server * TALLY_WORDS, captured[i]);
                else
                    add_words(counts + DEVICE_COUNTS + 2 * server, 1, captured[i]);
            }
            without += bucket.end - bucket.begin - copies;
            if (copies == 0) {
                outcome = static_cast<u8>(bucket.begin == bucket.end ? Fate::dropped : Fate::no_server);
                fate[i] = outcome;
            }
        }
        if (i < count) add_tally(fate_tally + outcome * TALLY_WORDS, captured[i]);
        at += total;
        __syncthreads();
    }
    if (without != 0) atomicAdd(counts + COUNT_WITHOUT_SERVER, static_cast<u64>(without));
    for (u32 s = threadIdx.x; s < shared_servers; s += BLOCK) {
        const u32* tally = server_tally + s * TALLY_WORDS;
        add_words(counts + DEVICE_COUNTS + 2 * s, tally[0], tally[1] + (static_cast<u64>(tally[2]) << 16));
    }
    if (threadIdx.x < FATES) {
        const u32* tally = fate_tally + threadIdx.x * TALLY_WORDS;
        add_words(counts + COUNT_FATES + 2 * threadIdx.x, tally[0],
                  tally[1] + (static_cast<u64>(tally[2]) << 16));
    }
}
