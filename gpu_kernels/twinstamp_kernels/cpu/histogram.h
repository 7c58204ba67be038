// SPDX-License-Identifier: Apache-2.0
// Counts of non-negative values in log-linear bins (16 to an octave, so a bin is at most 6.25 % wide).
#pragma once

#include <algorithm>
#include <array>
#include <bit>

#include "twinstamp/platform.h"

namespace twinstamp {

struct Histogram {
    static constexpr u32 SUB = 16;
    static constexpr u32 BINS = 61 * SUB;

    std::array<u64, BINS> count{};
    u64 total = 0;
    u64 maximum = 0;

    static u32 bin(u64 value) {
        if (value < SUB) return static_cast<u32>(value);
        const u32 octave = static_cast<u32>(std::bit_width(value)) - 5;
        return (octave + 1) * SUB + static_cast<u32>((value >> octave) & (SUB - 1));
    }
    // Largest value that falls into bin b.
    static u64 upper(u32 b) {
        if (b < SUB) return b;
        const u32 octave = b / SUB - 1;
        return ((static_cast<u64>(SUB) + b % SUB + 1) << octave) - 1;
    }

    void add(u64 value) {
        ++count[bin(value)];
        ++total;
        maximum = std::max(maximum, value);
    }
    void merge(const Histogram& other) {
        for (u32 b = 0; b < BINS; ++b) count[b] += other.count[b];
        total += other.total;
        maximum = std::max(maximum, other.maximum);
    }
    // Upper end of the bin that holds the given share of all values, at most the maximum; 0 when empty.
    u64 quantile(double share) const {
        if (total == 0) return 0;
        const double wanted = share * static_cast<double>(total);
        u64 seen = 0;
        for (u32 b = 0; b < BINS; ++b) {
            seen += count[b];
            if (seen > 0 && static_cast<double>(seen) >= wanted) return std::min(upper(b), maximum);
        }
        return maximum;
    }
};

}  // namespace twinstamp
