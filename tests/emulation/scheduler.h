// SPDX-License-Identifier: Apache-2.0
// Runs a kernel's threads as fibers of one operating system thread, switching in a seeded order.
#pragma once

#include "memory.h"
#include "registry.h"

namespace emulation {

struct Options {
    u64 seed = 0;
    u32 interval = 64;        // memory accesses between two switches on average; 0: none at accesses
    u32 resident_blocks = 4;  // blocks that run at a time
    bool racecheck = true;    // two accesses of shared memory that nothing orders are an offence
    bool initcheck = true;    // reading what nobody wrote is an offence
    double time_limit_s = 120;
};

struct Statistics {
    u64 accesses = 0;
    u64 switches = 0;
};

// Runs to the end, or to the first Offence. One launch at a time in a process.
Statistics launch(Memory& memory, const Kernel& kernel, u32 blocks, const u64* arguments,
                  const Options& options);

}  // namespace emulation
