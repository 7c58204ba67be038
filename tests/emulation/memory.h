// SPDX-License-Identifier: Apache-2.0
// Device memory with a shadow: a byte for each, saying whether it may be read and whether it was written.
#pragma once

#include <map>
#include <stdexcept>
#include <string>

#include "operations.h"

namespace emulation {

// A kernel or a copy that did what no program may do.
struct Offence : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum Shadow : u8 { ALLOCATED = 1, WRITTEN = 2, BEHIND = 4 };  // BEHIND: may be read, holds nothing

constexpr u64 ALIGNMENT = 256;
constexpr u64 READABLE_BEHIND = 16;
constexpr u64 ARENA_BASE = 0x1000000000;  // where ThreadSanitizer lets a program have memory, too
constexpr u64 ARENA_BYTES = 16ull << 30;
constexpr u32 ARENAS = 24;

class Memory {
  public:
    explicit Memory(u64 seed);
    ~Memory();
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;

    // Never at an address that was given before.
    u64 allocate(u64 size);
    void free(u64 address);
    // Bytes for the host to copy from or to. Offence where they are not of one living allocation.
    u8* reach(u64 address, u64 size, const char* what);
    void written(u64 address, u64 size);

    bool holds(u64 address) const { return address - base_ < ARENA_BYTES; }
    u8* shadow(u64 address) const { return shadow_ + (address - base_); }
    // Why an access is wrong, for people.
    std::string explain(u64 address, u64 size, bool write) const;
    u64 living() const { return living_; }
    u64 living_bytes() const { return living_bytes_; }

  private:
    struct Allocation {
        u64 size;
        bool living;
    };
    u64 base_ = 0;
    u8* shadow_ = nullptr;
    u64 used_ = 0;
    u64 random_;
    u64 living_ = 0, living_bytes_ = 0;
    std::map<u64, Allocation> allocations_;
};

}  // namespace emulation
