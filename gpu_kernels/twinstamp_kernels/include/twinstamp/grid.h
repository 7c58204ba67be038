// SPDX-License-Identifier: Apache-2.0
// What the grid kernels in cuda/ share. The emulation (tests/emulation) gives its own TS_SHARED.
//
// Kernels are extern "C" __global__ functions whose parameters are all 8 bytes wide: pointers, u64, i64.
#pragma once

#include "twinstamp/platform.h"

// A block's shared array `name` of `count` elements; not initialised.
#if !defined(TS_EMULATION)
#define TS_SHARED(type, name, count) __shared__ type name[count]
#endif

namespace twinstamp {

constexpr u32 BLOCK = 256;  // threads of a block, for every kernel
constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xFFFFFFFFu;

TS_DEVICE_ONLY u64 thread_number() {
    return static_cast<u64>(blockIdx.x) * BLOCK + threadIdx.x;
}

// Exclusive sum of `value` over the block's threads; `total` of all. scratch: BLOCK / WARP + 1 words of
// shared memory, free again after the next barrier. Every thread of the block must call it.
TS_DEVICE_ONLY u32 block_exclusive_sum(u32 value, u32* scratch, u32& total) {
    const u32 lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    u32 sum = value;
    for (u32 step = 1; step < WARP; step *= 2) {
        const u32 other = __shfl_up_sync(ALL_LANES, sum, step);
        if (lane >= step) sum += other;
    }
    if (lane == WARP - 1) scratch[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        u32 part = lane < BLOCK / WARP ? scratch[lane] : 0;
        u32 inclusive = part;
        for (u32 step = 1; step < WARP; step *= 2) {
            const u32 other = __shfl_up_sync(ALL_LANES, inclusive, step);
            if (lane >= step) inclusive += other;
        }
        if (lane < BLOCK / WARP) scratch[lane] = inclusive - part;
        if (lane == BLOCK / WARP - 1) scratch[BLOCK / WARP] = inclusive;
    }
    __syncthreads();
    total = scratch[BLOCK / WARP];
    return scratch[warp] + sum - value;
}

}  // namespace twinstamp
