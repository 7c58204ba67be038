// SPDX-License-Identifier: Apache-2.0
// Ordered output of a grid: each block counts what its tile of frames writes, one block turns these sums
// into where each tile starts (scan_sums, cuda/compact.cu), and each block writes from there on. Three
// launches, nothing waits for another block, and the order is that of the frames whatever runs first.
#pragma once

#include "twinstamp/grid.h"

namespace twinstamp {

constexpr u32 TILE_ITEMS = 8;  // frames per thread
constexpr u32 TILE = BLOCK * TILE_ITEMS;

// Frame `item` of this thread: neighbouring threads have neighbouring frames.
TS_DEVICE_ONLY u64 tile_frame(u32 item) {
    return static_cast<u64>(blockIdx.x) * TILE + item * BLOCK + threadIdx.x;
}

}  // namespace twinstamp
