// SPDX-License-Identifier: Apache-2.0
// Numbers of the marked frames, in order: the survivors of a mask, the frames that the host must judge.
// count_marked, scan_sums, write_marked; grids of one block per TILE frames, scan_sums of one block.
#include "twinstamp/tiles.h"

using namespace twinstamp;

// sums[tile]: frames of the tile with a mark that is not zero.
extern "C" __global__ void __launch_bounds__(256) count_marked(const u8* mark, u64 count, u64* sums) {
    TS_SHARED(u32, scratch, BLOCK / WARP + 1);
    u32 mine = 0;
    for (u32 item = 0; item < TILE_ITEMS; ++item) {
        const u64 i = tile_frame(item);
        mine += i < count && mark[i] != 0;
    }
    u32 total;
    block_exclusive_sum(mine, scratch, total);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// Each of `count` sums, at most 2^23, becomes the sum of those before it; total: of all.
extern "C" __global__ void __launch_bounds__(256) scan_sums(u64* sums, u64 count, u64* total) {
    TS_SHARED(u32, scratch, BLOCK / WARP + 1);
    u64 before = 0;
    for (u64 from = 0; from < count; from += BLOCK) {
        const u64 i = from + threadIdx.x;
        u32 all;
        const u32 sum = block_exclusive_sum(i < count ? static_cast<u32>(sums[i]) : 0, scratch, all);
        if (i < count) sums[i] = before + sum;
        before += all;
        __syncthreads();
    }
    if (threadIdx.x == 0) *total = before;
}

// numbers: of the marked frames, ascending; sums: from scan_sums.
extern "C" __global__ void __launch_bounds__(256)
    write_marked(const u8* mark, u64 count, const u64* sums, u32* numbers) {
    TS_SHARED(u32, scratch, BLOCK / WARP + 1);
    u64 at = sums[blockIdx.x];
    for (u32 item = 0; item < TILE_ITEMS; ++item) {
        const u64 i = tile_frame(item);
        const bool marked = i < count && mark[i] != 0;
        u32 total;
        const u32 before = block_exclusive_sum(marked, scratch, total);
        if (marked) numbers[at + before] = static_cast<u32>(i);
        at += total;
        __syncthreads();
    }
}
