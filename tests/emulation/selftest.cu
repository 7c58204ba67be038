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
