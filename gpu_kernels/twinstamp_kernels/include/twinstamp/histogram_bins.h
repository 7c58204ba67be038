// SPDX-License-Identifier: Apache-2.0
// Log-linear bins of non-negative values: 16 to an octave, so a bin is at most 6.25 % wide.
#pragma once

#include "twinstamp/platform.h"

namespace twinstamp {

constexpr u32 HISTOGRAM_SUB = 16;
constexpr u32 HISTOGRAM_BINS = 61 * HISTOGRAM_SUB;

TS_HD u32 histogram_bin(u64 value) {
    if (value < HISTOGRAM_SUB) return static_cast<u32>(value);
#if defined(TS_DEVICE)
    const u32 octave = 59 - static_cast<u32>(__clzll(static_cast<long long>(value)));
#else
    const u32 octave = 59 - static_cast<u32>(__builtin_clzll(value));
#endif
    return (octave + 1) * HISTOGRAM_SUB + static_cast<u32>((value >> octave) & (HISTOGRAM_SUB - 1));
}

// Largest value that falls into bin b.
TS_HD u64 histogram_upper(u32 b) {
    if (b < HISTOGRAM_SUB) return b;
    const u32 octave = b / HISTOGRAM_SUB - 1;
    return ((static_cast<u64>(HISTOGRAM_SUB) + b % HISTOGRAM_SUB + 1) << octave) - 1;
}

}  // namespace twinstamp
