// SPDX-License-Identifier: Apache-2.0
// What warp intrinsics and atomics compute, for both runtimes.
#pragma once

#include <cstdint>
#include <type_traits>

#include "cuda.h"

namespace emulation {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

constexpr u32 BLOCK = 256;
constexpr u32 WARP = 32;

// What one lane brought to a warp intrinsic.
struct Lane {
    Warp kind;
    u32 mask;
    u32 bytes;
    u32 argument;
    u32 width;
    u64 value;
    Site site;
};

inline const char* name_of(Warp kind) {
    constexpr const char* names[] = {"__syncwarp",       "__shfl_sync",     "__shfl_up_sync",
                                     "__shfl_down_sync", "__shfl_xor_sync", "__ballot_sync",
                                     "__any_sync",       "__all_sync",      "__match_any_sync"};
    return names[kind];
}

// The lane that a shuffle of `lane` reads (CUDA C++ Programming Guide, Warp Shuffle Functions).
inline u32 shuffle_source(const Lane& of, u32 lane) {
    const u32 width = of.width, base = lane & ~(width - 1), place = lane & (width - 1);
    const u32 argument = of.argument % WARP;  // PTX ISA, shfl.sync: five bits
    switch (of.kind) {
        case WARP_SHUFFLE:
            return base + (argument & (width - 1));
        case WARP_SHUFFLE_UP:
            return argument > place ? lane : lane - argument;
        case WARP_SHUFFLE_DOWN:
            return argument >= width - place ? lane : lane + argument;
        case WARP_SHUFFLE_XOR: {
            // A lane may read of groups before its own, never of later ones.
            const u32 source = lane ^ argument;
            return source >= base + width ? lane : source;
        }
        default:
            return lane;
    }
}

// What `lane` gets once all lanes of its mask are there. A shuffle's source must be one of them.
inline u64 warp_result(const Lane* lanes, u32 lane) {
    const Lane& of = lanes[lane];
    u64 set = 0, equal = 0;
    for (u32 i = 0; i < WARP; ++i) {
        if (!(of.mask >> i & 1)) continue;
        set |= static_cast<u64>(lanes[i].value != 0) << i;
        equal |= static_cast<u64>(lanes[i].value == of.value) << i;
    }
    switch (of.kind) {
        case WARP_SYNC:
            return 0;
        case WARP_BALLOT:
            return set;
        case WARP_ANY:
            return set != 0;
        case WARP_ALL:
            return set == of.mask;
        case WARP_MATCH_ANY:
            return equal;
        default:
            return lanes[shuffle_source(of, lane)].value;
    }
}

// The value that an atomic leaves in memory.
template <typename T>
T atomic_result(Atomic kind, T old, T value, T compare) {
    using Signed = std::make_signed_t<T>;
    const Signed a = static_cast<Signed>(old), b = static_cast<Signed>(value);
    switch (kind) {
        case ATOMIC_ADD:
            return old + value;
        case ATOMIC_MAX:
            return old > value ? old : value;
        case ATOMIC_MIN:
            return old < value ? old : value;
        case ATOMIC_SIGNED_MAX:
            return a > b ? old : value;
        case ATOMIC_SIGNED_MIN:
            return a < b ? old : value;
        case ATOMIC_OR:
            return old | value;
        case ATOMIC_AND:
            return old & value;
        case ATOMIC_XOR:
            return old ^ value;
        case ATOMIC_EXCHANGE:
            return value;
        case ATOMIC_CAS:
            return old == compare ? value : old;
    }
    return old;
}

}  // namespace emulation
