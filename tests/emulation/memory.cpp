// SPDX-License-Identifier: Apache-2.0
#include "memory.h"

#include <sys/mman.h>

#include <cstring>

namespace emulation {

namespace {

bool taken[ARENAS];

std::string hexadecimal(u64 value) {
    char text[32];
    std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
    return text;
}

u64 rounded(u64 size) {
    return (size + ALIGNMENT - 1) & ~(ALIGNMENT - 1);
}

}  // namespace

Memory::Memory(u64 seed) : random_(seed * 2 + 1) {
    for (u32 i = 0; i < ARENAS && base_ == 0; ++i) {
        if (taken[i]) continue;
        void* const wanted = reinterpret_cast<void*>(ARENA_BASE + i * ARENA_BYTES);
        void* const got = mmap(wanted, ARENA_BYTES, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        if (got != wanted) {
            if (got != MAP_FAILED) munmap(got, ARENA_BYTES);
            continue;
        }
        taken[i] = true;
        base_ = ARENA_BASE + i * ARENA_BYTES;
    }
    if (base_ == 0) throw std::runtime_error("no address space for another emulated device's memory");
    void* const got = mmap(nullptr, ARENA_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (got == MAP_FAILED) throw std::runtime_error("no address space for the shadow of emulated memory");
    shadow_ = static_cast<u8*>(got);
    used_ = ALIGNMENT;
}

Memory::~Memory() {
    munmap(shadow_, ARENA_BYTES);
    munmap(reinterpret_cast<void*>(base_), ARENA_BYTES);
    taken[(base_ - ARENA_BASE) / ARENA_BYTES] = false;
}

u64 Memory::allocate(u64 size) {
    const u64 room = rounded(size + READABLE_BEHIND) + ALIGNMENT;  // at least 256 red bytes up to the next
    if (size > ARENA_BYTES || used_ + room > ARENA_BYTES) {
        throw std::runtime_error("the emulated device's address space is used up (freed memory included)");
    }
    const u64 address = base_ + used_;
    used_ += room;
    random_ = random_ * 6364136223846793005ull + 1442695040888963407ull;
    std::memset(reinterpret_cast<void*>(address), static_cast<int>(random_ >> 56), size + READABLE_BEHIND);
    std::memset(shadow(address), ALLOCATED, size);
    std::memset(shadow(address) + size, BEHIND, READABLE_BEHIND);
    allocations_[address] = {size, true};
    ++living_;
    living_bytes_ += size;
    return address;
}

void Memory::free(u64 address) {
    const auto found = allocations_.find(address);
    if (found == allocations_.end())
        throw Offence("free of " + hexadecimal(address) + ", which nobody allocated");
    if (!found->second.living) throw Offence("second free of " + hexadecimal(address));
    const u64 size = found->second.size;
    found->second.living = false;
    --living_;
    living_bytes_ -= size;
    // Whole pages go back to the system.
    std::memset(shadow(address), 0, size + READABLE_BEHIND);
    const u64 first = (address + 4095) & ~4095ull, end = (address + size) & ~4095ull;
    if (end > first) {
        madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
        const u64 mirror = reinterpret_cast<u64>(shadow(first));
        const u64 from = (mirror + 4095) & ~4095ull, to = (mirror + (end - first)) & ~4095ull;
        if (to > from) madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
    }
}

std::string Memory::explain(u64 address, u64 size, bool write) const {
    std::string text = std::string(write ? "writes " : "reads ") + std::to_string(size) + " bytes at " +
                       hexadecimal(address) + ": ";
    auto next = allocations_.upper_bound(address);
    if (!holds(address) || next == allocations_.begin()) {
        return text + "no device memory, nor its own or its block's";
    }
    const auto& [start, of] = *--next;
    const u64 offset = address - start;
    const std::string where =
        "the allocation of " + std::to_string(of.size) + " bytes at " + hexadecimal(start);
    if (!of.living) return text + "offset " + std::to_string(offset) + " of " + where + ", freed before";
    if (offset >= of.size) {
        return text + std::to_string(offset - of.size) + " bytes behind the end of " + where;
    }
    if (offset + size > of.size) {
        return text + "offset " + std::to_string(offset) + ", across the end of " + where;
    }
    return text + "offset " + std::to_string(offset) + " of " + where + ", never written";
}

u8* Memory::reach(u64 address, u64 size, const char* what) {
    if (size == 0) return reinterpret_cast<u8*>(address);
    auto next = allocations_.upper_bound(address);
    const bool write = std::strcmp(what, "download") != 0;
    if (!holds(address) || next == allocations_.begin()) {
        throw Offence(std::string(what) + " " + explain(address, size, write));
    }
    const auto& [start, of] = *--next;
    if (!of.living || address - start > of.size || size > of.size - (address - start)) {
        throw Offence(std::string(what) + " " + explain(address, size, write));
    }
    return reinterpret_cast<u8*>(address);
}

void Memory::written(u64 address, u64 size) {
    std::memset(shadow(address), ALLOCATED | WRITTEN, size);
}

}  // namespace emulation
