// SPDX-License-Identifier: Apache-2.0
// Kernels that test the emulation itself, right ones and wrong ones. They build for a GPU as well.
#include "twinstamp/grid.h"

using namespace twinstamp;

// Adds `values` u32[n] up to *total.
extern "C" __global__ void __launch_bounds__(256) selftest_sum(const u32* values, u64 n, u64* total) {
    TS_SHARED(u32, scratch, BLOCK / WARP + 1);
    const u64 i = thread_number();
    u32 all = 0;
    block_exclusive_sum(i < n ? values[i] : 0, scratch, all);
    if (threadIdx.x == 0) atomicAdd(total, static_cast<u64>(all));
}

// Each warp intrinsic on value[i], of one block; out u64[16][256]. mask holds every lane that calls.
extern "C" __global__ void __launch_bounds__(256)
    selftest_warp(const u64* value, u64 mask64, u64 argument, u64* out) {
    const u32 i = threadIdx.x, mask = static_cast<u32>(mask64);
    if (!(mask >> (i % WARP) & 1)) return;
    const u64 wide = value[i];
    const u32 v = static_cast<u32>(wide);
    const int n = static_cast<int>(argument);
    out[0 * BLOCK + i] = __ballot_sync(mask, v & 1);
    out[1 * BLOCK + i] = static_cast<u64>(__any_sync(mask, v & 2) != 0);
    out[2 * BLOCK + i] = static_cast<u64>(__all_sync(mask, v & 4) != 0);
    out[3 * BLOCK + i] = __match_any_sync(mask, v % 5);
    out[4 * BLOCK + i] = __match_any_sync(mask, wide);
    if (mask == ALL_LANES) {
        out[5 * BLOCK + i] = __shfl_sync(mask, v, static_cast<int>(v % WARP));
        out[6 * BLOCK + i] = __shfl_sync(mask, wide, n);
        out[7 * BLOCK + i] = __shfl_up_sync(mask, wide, static_cast<u32>(n));
        out[8 * BLOCK + i] = __shfl_down_sync(mask, v, static_cast<u32>(n));
        out[9 * BLOCK + i] = __shfl_xor_sync(mask, v, n);
        out[10 * BLOCK + i] = __shfl_sync(mask, v, n, 8);
        out[11 * BLOCK + i] = __shfl_up_sync(mask, v, static_cast<u32>(n), 8);
        out[12 * BLOCK + i] = __shfl_down_sync(mask, v, static_cast<u32>(n), 8);
        out[13 * BLOCK + i] = __shfl_xor_sync(mask, v, n, 8);
    }
    __syncwarp(mask);
}

// Barriers with a value, by the predicate value[i] != 0: out u64[3][256 * blocks].
extern "C" __global__ void __launch_bounds__(256) selftest_barriers(const u32* value, u64* out) {
    const u64 i = thread_number(), n = static_cast<u64>(gridDim.x) * BLOCK;
    const int predicate = value[i] != 0;
    out[i] = static_cast<u64>(__syncthreads_or(predicate) != 0);
    out[n + i] = static_cast<u64>(__syncthreads_count(predicate));
    out[2 * n + i] = static_cast<u64>(__syncthreads_and(predicate) != 0);
}

// Bit operations of value[i]: out u64[9][n].
extern "C" __global__ void __launch_bounds__(256) selftest_bits(const u64* value, u64 n, u64* out) {
    const u64 i = thread_number();
    if (i >= n) return;
    const u64 v = value[i];
    const u32 low = static_cast<u32>(v), high = static_cast<u32>(v >> 32);
    out[i] = static_cast<u64>(__popc(low));
    out[n + i] = static_cast<u64>(__popcll(v));
    out[2 * n + i] = static_cast<u64>(__ffs(static_cast<int>(low)));
    out[3 * n + i] = static_cast<u64>(__ffsll(static_cast<long long>(v)));
    out[4 * n + i] = static_cast<u64>(__clz(static_cast<int>(low)));
    out[5 * n + i] = static_cast<u64>(__clzll(static_cast<long long>(v)));
    out[6 * n + i] = __umul64hi(v, v ^ 0x9E3779B97F4A7C15ull);
    out[7 * n + i] = __funnelshift_r(low, high, static_cast<u32>(i));
    out[8 * n + i] = __ldg(value + i);
}

// Atomics of all threads on one word each: u32[6] for add, max, min, or, exchange, compare-and-swap (a
// count made of it), and the same as u64[6].
extern "C" __global__ void __launch_bounds__(256) selftest_atomics(const u32* value, u32* narrow, u64* wide) {
    const u32 v = value[thread_number()];
    atomicAdd(narrow, v);
    atomicMax(narrow + 1, v);
    atomicMin(narrow + 2, v);
    atomicOr(narrow + 3, 1u << (v % 32));
    atomicExch(narrow + 4, v);
    for (u32 seen = 0;;) {
        const u32 found = atomicCAS(narrow + 5, seen, seen + 1);
        if (found == seen) break;
        seen = found;
    }
    atomicAdd(wide, static_cast<u64>(v) << 20);
    atomicMax(wide + 1, static_cast<u64>(v) << 20);
    atomicMin(wide + 2, static_cast<u64>(v) << 20);
    atomicOr(wide + 3, 1ull << (v % 64));
    atomicExch(wide + 4, static_cast<u64>(v));
    for (u64 seen = 0;;) {
        const u64 found = atomicCAS(wide + 5, seen, seen + 1);
        if (found == seen) break;
        seen = found;
    }
}

// `rounds` reads of 8 bytes and one write per thread: for measuring the emulation.
extern "C" __global__ void __launch_bounds__(256)
    selftest_reads(const u64* values, u64 n, u64 rounds, u64* out) {
    const u64 i = thread_number();
    u64 sum = 0;
    for (u64 k = 0; k < rounds; ++k) sum += values[(i + k) % n];
    out[i] = sum;
}

// The last block to come adds up what all blocks left: right only with both fences.
extern "C" __global__ void __launch_bounds__(256)
    selftest_last_block(const u32* values, u32* partial, u32* count, u64* total) {
    TS_SHARED(u32, scratch, BLOCK / WARP + 1);
    TS_SHARED(u32, last, 1);
    u32 all = 0;
    block_exclusive_sum(values[thread_number()], scratch, all);
    if (threadIdx.x == 0) {
        partial[blockIdx.x] = all;
        __threadfence();
        last[0] = atomicAdd(count, 1u) == gridDim.x - 1;
        __threadfence();
    }
    __syncthreads();
    if (last[0] && threadIdx.x == 0) {
        u64 sum = 0;
        for (u32 b = 0; b < gridDim.x; ++b) sum += partial[b];
        *total = sum;
    }
}

// Wrong: every thread adds to *total without an atomic.
extern "C" __global__ void __launch_bounds__(256) selftest_racing_blocks(u64* total) {
    *total = *total + 1;
}

// Wrong: each thread's word is written by the thread of the same number in every block.
extern "C" __global__ void __launch_bounds__(256) selftest_block_numbers(u32* out) {
    out[threadIdx.x] = blockIdx.x;
}

// Wrong where broken: the block's values backwards by way of shared memory, with no barrier between.
extern "C" __global__ void __launch_bounds__(256) selftest_reverse(const u32* values, u64 broken, u32* out) {
    TS_SHARED(u32, room, BLOCK);
    room[threadIdx.x] = values[thread_number()];
    if (broken == 0) __syncthreads();
    out[thread_number()] = room[BLOCK - 1 - threadIdx.x];
}

// The same within each warp. broken: 0 no, 1 no __syncwarp, 2 an intrinsic that orders nothing instead.
extern "C" __global__ void __launch_bounds__(256)
    selftest_reverse_warp(const u32* values, u64 broken, u32* out) {
    TS_SHARED(u32, room, BLOCK);
    room[threadIdx.x] = values[thread_number()];
    if (broken == 0) __syncwarp();
    if (broken == 2) __ballot_sync(ALL_LANES, 1);
    out[thread_number()] = room[threadIdx.x ^ 31];
}

// Wrong for most arguments. what: 0 reads, 1 writes, 2 adds to the u32 at bytes + offset, 3 reads one byte.
extern "C" __global__ void __launch_bounds__(256) selftest_access(u8* bytes, i64 offset, u64 what, u64* out) {
    if (thread_number() != 77) return;
    u32* const word = reinterpret_cast<u32*>(bytes + offset);
    if (what == 0) *out = *word;
    if (what == 1) *word = 1;
    if (what == 2) atomicAdd(word, 1u);
    if (what == 3) *out = bytes[offset];
}

// Wrong: shared memory. what: 0 reads what nobody wrote, 1 writes behind the end.
extern "C" __global__ void __launch_bounds__(256) selftest_shared(u64 what, u64 index, u32* out) {
    TS_SHARED(u32, room, 8);
    if (threadIdx.x != 0) return;
    if (what == 0) *out = room[index];
    if (what == 1) room[index] = 1;
}

// Wrong for `what` of 1 and more: barriers and intrinsics that not all come to.
extern "C" __global__ void __launch_bounds__(256) selftest_divergence(u64 what, u32* out) {
    const u32 i = threadIdx.x, lane = i % WARP;
    u32 v = i;
    if (what == 0) __syncthreads();
    if (what == 1 && i < 100) __syncthreads();
    if (what == 2) {
        if (i < 128) {
            __syncthreads();
        } else {
            __syncthreads();
        }
    }
    if (what == 3 && lane < 16) v = __shfl_sync(ALL_LANES, v, 0);
    if (what == 4) v = __shfl_sync(lane < 16 ? ALL_LANES : 0xFFFF0000u, v, 0);
    if (what == 5) v = lane < 16 ? __ballot_sync(ALL_LANES, 1) : __match_any_sync(ALL_LANES, v);
    if (what == 6 && lane < 16) v = __shfl_sync(0x0000FFFFu, v, 16);
    if (what == 7 && lane < 16) v = __shfl_sync(0xFFFF0000u, v, 16);
    if (what == 8) {
        if (lane == 0) {
            __syncwarp();
        } else {
            __syncthreads();
        }
    }
    out[i] = v;
}

// Waits until the block before has come by: right only where that block runs, too.
extern "C" __global__ void __launch_bounds__(256) selftest_chain(u32* done) {
    if (threadIdx.x == 0) {
        while (atomicOr(done, 0u) != blockIdx.x) {
        }
        atomicExch(done, blockIdx.x + 1);
    }
}
