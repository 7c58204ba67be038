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

// What each lane of a mask gets once all of them are there. A shuffle's source must be one of them.
inline void warp_results(const Lane* lanes, Warp kind, u32 mask, u64 results[WARP]) {
    u32 set = 0;
    for (u32 left = mask; left != 0; left &= left - 1) {
        const u32 lane = static_cast<u32>(__builtin_ctz(left));
        set |= static_cast<u32>(lanes[lane].value != 0) << lane;
    }
    u32 matched = 0;
    for (u32 left = mask; left != 0; left &= left - 1) {
        const u32 lane = static_cast<u32>(__builtin_ctz(left));
        switch (kind) {
            case WARP_SYNC:
                results[lane] = 0;
                break;
            case WARP_BALLOT:
                results[lane] = set;
                break;
            case WARP_ANY:
                results[lane] = set != 0;
                break;
            case WARP_ALL:
                results[lane] = set == mask;
                break;
            case WARP_MATCH_ANY: {
                if (matched >> lane & 1) break;
                u32 equal = 0;
                for (u32 i = 0; i < WARP; ++i) {
                    equal |= (mask >> i & static_cast<u32>(lanes[i].value == lanes[lane].value)) << i;
                }
                for (u32 i = 0; i < WARP; ++i) {
                    if (equal >> i & 1) results[i] = equal;
                }
                matched |= equal;
                break;
            }
            default:
                results[lane] = lanes[shuffle_source(lanes[lane], lane)].value;
        }
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
