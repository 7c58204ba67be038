// SPDX-License-Identifier: Apache-2.0
// Counts of non-negative values in log-linear bins (twinstamp/histogram_bins.h).
#pragma once

#include <algorithm>
#include <array>

#include "twinstamp/histogram_bins.h"

namespace twinstamp {

struct Histogram {
    static constexpr u32 BINS = HISTOGRAM_BINS;

    std::array<u64, BINS> count{};
    u64 total = 0;
    u64 maximum = 0;

    void add(u64 value) {
        ++count[histogram_bin(value)];
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
            if (seen > 0 && static_cast<double>(seen) >= wanted) return std::min(histogram_upper(b), maximum);
        }
        return maximum;
    }
};

}  // namespace twinstamp
