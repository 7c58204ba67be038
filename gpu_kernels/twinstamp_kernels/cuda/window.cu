// SPDX-License-Identifier: Apache-2.0
// The duplicate window on a device: exact, and parallel over a whole chunk of the stream.
//
// The last window - 1 frames of earlier chunks (the carry) and the chunk's frames have numbers 0 to
// total - 1, in stream order; the columns are rings, number p lies in slot (first + p) & mask. A stable
// radix sort of (hash, number) by the hash's low 8, 16, 24 or 32 bits puts frames of one bucket side by side
// in stream order. Each frame then looks backwards through its bucket: the first equal key is the most
// recent earlier one. The hash is keyed and secret, so whatever the traffic, a bucket holds four frames of
// other keys at most on average, and copies of the frame itself end the search at once.
//
// For counts and for stamps that never go back the most recent earlier copy decides. Where stamps do go
// back, the search looks for the most recent copy with a stamp not after the frame's own, over minima of
// the sorted stamps, and the stop rule is evaluated over minima of the stamps in stream order; which of
// the two paths runs is decided on the device (`disordered`).
#include "twinstamp/grid.h"
#include "twinstamp/hash.h"
#include "twinstamp/histogram_bins.h"
#include "twinstamp/key.h"

using namespace twinstamp;

namespace {

constexpr u32 DIGIT_BITS = 8;
constexpr u32 DIGITS = 1u << DIGIT_BITS;
static_assert(DIGITS == BLOCK, "sort_count and sort_scatter have a thread per digit");
constexpr u32 ITEMS = 8;  // per thread
constexpr u32 TILE = BLOCK * ITEMS;
constexpr u32 WARPS = BLOCK / WARP;

constexpr u64 FAN = 32;  // of the trees of minima
constexpr u32 NONE = 0xFFFFFFFFu;

// Slot numbers without a key in the table of second keys are spread over its buckets and match nothing.
TS_DEVICE_ONLY u64 element(const Digest* key, const u8* present, u64 first, u64 mask, u64 p) {
    const u64 slot = (first + p) & mask;
    const u32 hash = present == nullptr || present[slot] ? static_cast<u32>(key[slot].half[0])
                                                         : static_cast<u32>(p * 0x9E3779B9u);
    return static_cast<u64>(hash) << 32 | p;
}

TS_DEVICE_ONLY u32 digit_of(u64 element, u64 pass) {
    return static_cast<u32>(element >> (32 + DIGIT_BITS * pass)) & (DIGITS - 1);
}

// Time differences beyond i64 count as its ends.
TS_DEVICE_ONLY i64 difference(i64 a, i64 b) {
    const i64 result = static_cast<i64>(static_cast<u64>(a) - static_cast<u64>(b));
    if (((a ^ b) & (a ^ result)) >= 0) return result;
    return a < b ? static_cast<i64>(1ull << 63) : static_cast<i64>(~(1ull << 63));
}

TS_DEVICE_ONLY i64 earliest(i64 stamp_ns, i64 time_ns) {
    return difference(stamp_ns, time_ns);
}

// Of a warp's lanes with equal `address` (null: none), one adds for all.
TS_DEVICE_ONLY void add_one(u64* address) {
    const u32 peers = __match_any_sync(ALL_LANES, reinterpret_cast<u64>(address));
    if (address == nullptr) return;
    if (static_cast<u32>(__ffs(static_cast<int>(peers))) - 1 == threadIdx.x % WARP) {
        atomicAdd(address, static_cast<u64>(__popc(peers)));
    }
}

}  // namespace

// One pass of the sort, first step: counts[digit * tiles + tile] of each tile. The first pass makes the
// elements from the keys; later ones read them from `in`. present: null, or whether a slot has a key.
extern "C" __global__ void __launch_bounds__(256)
    sort_count(const u64* in, const Digest* key, const u8* present, u64 first, u64 mask, u64 total, u64 pass,
               u32* counts, u64 tiles) {
    TS_SHARED(u32, histogram, DIGITS);
    histogram[threadIdx.x] = 0;
    __syncthreads();
    const u64 begin = static_cast<u64>(blockIdx.x) * TILE;
    for (u32 k = 0; k < ITEMS; ++k) {
        const u64 p = begin + k * BLOCK + threadIdx.x;
        if (p >= total) break;
        const u64 e = pass == 0 ? element(key, present, first, mask, p) : in[p];
        atomicAdd(&histogram[digit_of(e, pass)], 1u);
    }
    __syncthreads();
    counts[threadIdx.x * tiles + blockIdx.x] = histogram[threadIdx.x];
}

// Second step, a warp per digit: exclusive sums over the digit's tiles in place, their total to totals.
extern "C" __global__ void __launch_bounds__(256) sort_offsets(u32* counts, u32* totals, u64 tiles) {
    constexpr u32 AHEAD = 8;  // loads in flight per lane
    const u32 lane = threadIdx.x % WARP;
    const u32 digit = blockIdx.x * WARPS + threadIdx.x / WARP;
    u32* const row = counts + digit * tiles;
    u32 before = 0;
    for (u64 begin = 0; begin < tiles; begin += AHEAD * WARP) {
        u32 count[AHEAD];
        for (u32 k = 0; k < AHEAD; ++k) {
            const u64 tile = begin + k * WARP + lane;
            count[k] = tile < tiles ? row[tile] : 0;
        }
        for (u32 k = 0; k < AHEAD && begin + k * WARP < tiles; ++k) {
            const u64 tile = begin + k * WARP + lane;
            u32 sum = count[k];
            for (u32 step = 1; step < WARP; step *= 2) {
                const u32 other = __shfl_up_sync(ALL_LANES, sum, step);
                if (lane >= step) sum += other;
            }
            if (tile < tiles) row[tile] = before + sum - count[k];
            before += __shfl_sync(ALL_LANES, sum, WARP - 1);
        }
    }
    if (lane == 0) totals[digit] = before;
}

// Third step: each element to its place. Elements of one digit keep their order.
extern "C" __global__ void __launch_bounds__(256)
    sort_scatter(const u64* in, const Digest* key, const u8* present, u64 first, u64 mask, u64 total,
                 u64 pass, const u32* offsets, const u32* totals, u64 tiles, u64* out) {
    TS_SHARED(u32, place, (WARPS * DIGITS));  // [warp][digit]
    TS_SHARED(u32, scratch, WARPS + 1);
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (u32 w = 0; w < WARPS; ++w) place[w * DIGITS + threadIdx.x] = 0;
    __syncthreads();
    // A warp has ITEMS rows of 32 consecutive elements.
    const u64 begin = static_cast<u64>(blockIdx.x) * TILE + warp * (WARP * ITEMS) + lane;
    u64 e[ITEMS];
    u32 rank[ITEMS];
    for (u32 k = 0; k < ITEMS; ++k) {
        const u64 p = begin + k * WARP;
        const bool valid = p < total;
        e[k] = !valid ? 0 : pass == 0 ? element(key, present, first, mask, p) : in[p];
        const u32 digit = valid ? digit_of(e[k], pass) : DIGITS;
        const u32 peers = __match_any_sync(ALL_LANES, digit);
        const u32 before = valid ? place[warp * DIGITS + digit] : 0;
        rank[k] = before + static_cast<u32>(__popc(peers & ((1u << lane) - 1)));
        __syncwarp();
        if (valid && (peers >> lane) == 1) {  // the last of them
            place[warp * DIGITS + digit] = rank[k] + 1;
        }
        __syncwarp();
    }
    __syncthreads();
    u32 sum;
    u32 at =
        block_exclusive_sum(totals[threadIdx.x], scratch, sum) + offsets[threadIdx.x * tiles + blockIdx.x];
    for (u32 w = 0; w < WARPS; ++w) {
        const u32 n = place[w * DIGITS + threadIdx.x];
        place[w * DIGITS + threadIdx.x] = at;
        at += n;
    }
    __syncthreads();
    for (u32 k = 0; k < ITEMS; ++k) {
        if (begin + k * WARP < total) out[place[warp * DIGITS + digit_of(e[k], pass)] + rank[k]] = e[k];
    }
}

// Whether stamps go back anywhere among all numbers: *disordered, zero before, becomes 1. Of the chunk's
// frames, those from frame number `window` of the stream on whose time window the limit cuts are added to
// limited[0]; disordered stamps have their own count. index: frames of the stream before the chunk.
extern "C" __global__ void __launch_bounds__(256)
    check_order(const i64* time, u64 first, u64 mask, u64 carry, u64 total, u64 window, i64 time_ns,
                u64 index, u32* disordered, u64* limited) {
    const u64 p = thread_number();
    bool back = false, cut = false;
    if (p < total) {
        const i64 t = time[(first + p) & mask];
        back = p > 0 && t < time[(first + p - 1) & mask];
        // A carry cut short by the launcher holds all that the time reaches.
        cut = p >= carry && index + (p - carry) >= window && p + 1 >= window &&
              time[(first + p + 1 - window) & mask] >= earliest(t, time_ns);
    }
    if (__any_sync(ALL_LANES, back) && threadIdx.x % WARP == 0) atomicOr(disordered, 1u);
    add_one(cut ? limited : nullptr);
}

// Stamps as the lowest level of a tree: in stream order (sorted null), or in the order of `sorted`.
extern "C" __global__ void __launch_bounds__(256)
    gather_stamps(const i64* time, u64 first, u64 mask, u64 total, const u64* sorted, const u32* disordered,
                  i64* out) {
    const u64 p = thread_number();
    if (p >= total || *disordered == 0) return;
    const u64 number = sorted == nullptr ? p : static_cast<u32>(sorted[p]);
    out[p] = time[(first + number) & mask];
}

// The next level: out[b] is the least of in[32 b] to in[32 b + 31].
extern "C" __global__ void __launch_bounds__(256)
    reduce_minima(const i64* in, u64 count, const u32* disordered, i64* out) {
    const u64 b = thread_number();
    if (b * FAN >= count || *disordered == 0) return;
    i64 least = in[b * FAN];
    for (u64 k = b * FAN + 1; k < count && k < (b + 1) * FAN; ++k) least = in[k] < least ? in[k] : least;
    out[b] = least;
}

namespace {

// The last position before `end` whose value is at most `limit`, or NONE. tree: levels one after the
// other, each a FANth of the one below, rounded up; the lowest has `count` values.
TS_DEVICE_ONLY u32 last_not_above(const i64* tree, u64 count, u64 end, i64 limit) {
    const i64* level[8];
    u32 height = 0;
    level[0] = tree;
    u64 position = end, k = 0;
    for (u64 n = count;;) {
        bool found = false;
        for (k = position; k > (position & ~(FAN - 1));) {
            if (level[height][--k] <= limit) {
                found = true;
                break;
            }
        }
        if (found) break;
        position /= FAN;
        if (position == 0) return NONE;
        level[height + 1] = level[height] + n;
        n = (n + FAN - 1) / FAN;
        ++height;
    }
    while (height > 0) {
        --height;
        // All of k's children lie before `end`, so they are complete.
        for (k = k * FAN + FAN - 1; level[height][k] > limit;) --k;
    }
    return static_cast<u32>(k);
}

}  // namespace

// For stamps that go back: how many frames back each of the chunk's frames may match, plus one.
extern "C" __global__ void __launch_bounds__(256)
    time_reach(const i64* tree, u64 carry, u64 total, u64 window, i64 time_ns, u64 index,
               const u32* disordered, u32* reach, u64* limited) {
    const u64 p = carry + thread_number();
    if (*disordered == 0) return;
    bool cut = false;
    if (p < total) {
        const i64 least = static_cast<i64>(1ull << 63);
        const i64 limit = earliest(tree[p], time_ns);
        // The last earlier frame with a stamp below the limit.
        const u32 stop = limit == least ? NONE : last_not_above(tree, total, p, limit - 1);
        const u64 back = stop == NONE || p - stop >= window ? window : p - stop;
        cut = back >= window && index + (p - carry) >= window;
        reach[p - carry] = static_cast<u32>(back);
    }
    add_one(cut ? limited : nullptr);
}

// The match of each frame of the chunk: distance[i] to the most recent earlier copy in the window, 0 where
// there is none. time_ns < 0: no time window. add: keep a nearer match that is there already (the table
// of second keys). Runs where *disordered is 0.
extern "C" __global__ void __launch_bounds__(256)
    find_copies(const u64* sorted, const Digest* key, const u8* present, const i64* time, u64 first, u64 mask,
                u64 carry, u64 total, u64 bucket_bits, u64 window, i64 time_ns, u64 add,
                const u32* disordered, u32* distance) {
    const u64 p = thread_number();
    if (p >= total || *disordered != 0) return;
    const u64 e = sorted[p];
    const u32 number = static_cast<u32>(e);
    if (number < carry) return;
    const u64 slot = (first + number) & mask;
    u32 found = 0;
    if (present == nullptr || present[slot]) {
        const Digest own = key[slot];
        const u32 hash = static_cast<u32>(e >> 32);
        const u32 bucket = static_cast<u32>((1ull << bucket_bits) - 1);
        for (u64 at = p; at > 0;) {
            const u64 other = sorted[--at];
            const u32 other_hash = static_cast<u32>(other >> 32);
            const u32 back = number - static_cast<u32>(other);
            if (((other_hash ^ hash) & bucket) != 0 || back >= window) break;
            if (other_hash != hash) continue;
            const u64 other_slot = (first + static_cast<u32>(other)) & mask;
            if ((present != nullptr && !present[other_slot]) || !(key[other_slot] == own)) continue;
            if (time_ns < 0 || time[other_slot] >= earliest(time[slot], time_ns)) found = back;
            break;
        }
    }
    u32* out = distance + (number - carry);
    if (!add) {
        *out = found;
    } else if (found != 0 && (*out == 0 || found < *out)) {
        *out = found;
    }
}

// The same for time windows where stamps go back. tree: minima of the sorted stamps.
extern "C" __global__ void __launch_bounds__(256)
    find_copies_disordered(const u64* sorted, const i64* tree, const Digest* key, const u8* present,
                           u64 first, u64 mask, u64 carry, u64 total, u64 bucket_bits, u64 window,
                           const u32* reach, u64 add, const u32* disordered, u32* distance) {
    const u64 p = thread_number();
    if (p >= total || *disordered == 0) return;
    const u64 e = sorted[p];
    const u32 number = static_cast<u32>(e);
    if (number < carry) return;
    const u64 slot = (first + number) & mask;
    u32 found = 0;
    if (present == nullptr || present[slot]) {
        const Digest own = key[slot];
        const u32 hash = static_cast<u32>(e >> 32);
        const u32 bucket = static_cast<u32>((1ull << bucket_bits) - 1);
        for (u64 end = p;;) {
            const u32 at = last_not_above(tree, total, end, tree[p]);
            if (at == NONE) break;
            const u64 other = sorted[at];
            const u32 other_hash = static_cast<u32>(other >> 32);
            const u32 back = number - static_cast<u32>(other);
            if (((other_hash ^ hash) & bucket) != 0 || back >= window) break;
            const u64 other_slot = (first + static_cast<u32>(other)) & mask;
            if (other_hash == hash && (present == nullptr || present[other_slot]) && key[other_slot] == own) {
                if (back < reach[number - carry]) found = back;
                break;
            }
            end = at;
        }
    }
    u32* out = distance + (number - carry);
    if (!add) {
        *out = found;
    } else if (found != 0 && (*out == 0 || found < *out)) {
        *out = found;
    }
}

namespace {

// Statistics on the device, all u64: gpu/window.py reads them at these places.
constexpr u32 TYPES = 4;
constexpr u32 CLASSES = 16;
constexpr u32 TALLY_WORDS = 4;
enum Counter : u32 {
    COUNT_FRAMES = 0,
    COUNT_BYTES = 1,
    COUNT_NEGATIVE = 2,
    COUNT_DISTANCE_MAX = 3,
    COUNT_DELAY_MAX = 4,
    COUNT_DISTANCE = 5,
    COUNT_DELAY = COUNT_DISTANCE + HISTOGRAM_BINS,
    COUNTERS_PER_TYPE = COUNT_DELAY + HISTOGRAM_BINS,
    COUNT_KEPT = TYPES * COUNTERS_PER_TYPE,    // [class][frames, bytes]
    COUNT_LIMITED = COUNT_KEPT + 2 * CLASSES,  // the two counts of limit_reached
    COUNT_GUARDED = COUNT_LIMITED + 2,         // [guard][frames, bytes]
    COUNTERS = COUNT_GUARDED + 2 * GUARDS,
};

}  // namespace

// Verdicts of the chunk's frames from their distances. tags: null with exact. frame_class: null, or each
// frame's class, of which bit c of keep_classes says that class c is never judged. guard: Guard bits.
// delay_out: null where not wanted. counters: see Counter.
extern "C" __global__ void __launch_bounds__(256)
    judge_frames(const u32* distance, const u32* tags, const i64* time, const u32* caplen,
                 const u8* frame_class, u64 keep_classes, u64 guard, u64 profile, u64 first, u64 mask,
                 u64 carry, u64 count, u8* keep_out, u8* type_out, i64* delay_out, u64* counters) {
    // Frames, negative delays, and the bytes in two words: lengths that come with keys have all 32 bits.
    TS_SHARED(u32, tally, (TYPES * TALLY_WORDS));
    TS_SHARED(u32, distance_max, TYPES);
    TS_SHARED(u64, delay_max, TYPES);
    if (threadIdx.x < TYPES * TALLY_WORDS) tally[threadIdx.x] = 0;
    if (threadIdx.x < TYPES) {
        distance_max[threadIdx.x] = 0;
        delay_max[threadIdx.x] = 0;
    }
    __syncthreads();
    const u64 i = thread_number();
    u32 back = 0, type = 0;
    bool kept = false;
    u32 guarded = 0;
    i64 delay = 0;
    if (i < count) {
        back = distance[i];
        if (back != 0) {
            const u64 slot = (first + carry + i) & mask, other = (first + carry + i - back) & mask;
            delay = difference(time[slot], time[other]);
            type = static_cast<u32>(profile);
            for (u32 t = 0; t + 1 < profile; ++t) {
                if (tags[TAGS * slot + t] == tags[TAGS * other + t]) {
                    type = t + 1;
                    break;
                }
            }
            kept = frame_class != nullptr && ((keep_classes >> frame_class[i]) & 1);
            if (!kept && guard != 0) {
                guarded = guards(tags[TAGS * slot + GUARD_TAG], tags[TAGS * other + GUARD_TAG]) &
                          static_cast<u32>(guard);
            }
        }
        keep_out[i] = back == 0 || kept || guarded != 0;
        type_out[i] = static_cast<u8>(type);
        if (delay_out != nullptr) delay_out[i] = delay;
    }
    const bool counted = back != 0 && !kept && guarded == 0;
    u64* const of_type = counters + (type - 1ull) * COUNTERS_PER_TYPE;
    if (counted) {
        u32* const mine = tally + TALLY_WORDS * (type - 1);
        const u32 length = caplen[i];
        atomicAdd(&mine[0], 1u);
        if (delay < 0) atomicAdd(&mine[1], 1u);
        atomicAdd(&mine[2], length & 0xFFFFu);
        if (length >> 16) atomicAdd(&mine[3], length >> 16);
        atomicMax(&distance_max[type - 1], back);
        if (delay > 0) atomicMax(&delay_max[type - 1], static_cast<u64>(delay));
    }
    add_one(counted ? of_type + COUNT_DISTANCE + histogram_bin(back) : nullptr);
    add_one(counted && delay >= 0 ? of_type + COUNT_DELAY + histogram_bin(static_cast<u64>(delay)) : nullptr);
    if (guarded != 0) {
        u64* const of_guard = counters + COUNT_GUARDED + (guarded & GUARD_TUNNEL ? 2 : 0);
        atomicAdd(&of_guard[0], 1ull);
        atomicAdd(&of_guard[1], static_cast<u64>(caplen[i]));
    }
    if (kept) {
        atomicAdd(&counters[COUNT_KEPT + 2 * frame_class[i]], 1ull);
        atomicAdd(&counters[COUNT_KEPT + 2 * frame_class[i] + 1], static_cast<u64>(caplen[i]));
    }
    __syncthreads();
    const u32* const of_block = tally + TALLY_WORDS * threadIdx.x;
    if (threadIdx.x < TYPES && of_block[0] != 0) {
        u64* const to = counters + threadIdx.x * static_cast<u64>(COUNTERS_PER_TYPE);
        atomicAdd(&to[COUNT_FRAMES], static_cast<u64>(of_block[0]));
        atomicAdd(&to[COUNT_BYTES], of_block[2] + (static_cast<u64>(of_block[3]) << 16));
        atomicAdd(&to[COUNT_NEGATIVE], static_cast<u64>(of_block[1]));
        atomicMax(&to[COUNT_DISTANCE_MAX], static_cast<u64>(distance_max[threadIdx.x]));
        atomicMax(&to[COUNT_DELAY_MAX], delay_max[threadIdx.x]);
    }
}

// limited[0] counts for ordered stamps, limited[1] for others: the one that holds is added to the sum.
extern "C" __global__ void __launch_bounds__(256)
    settle_limited(const u64* limited, const u32* disordered, u64* counters) {
    if (thread_number() == 0) counters[COUNT_LIMITED] += limited[*disordered != 0 ? 1 : 0];
}
