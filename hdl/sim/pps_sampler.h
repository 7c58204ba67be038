// SPDX-License-Identifier: Apache-2.0
// Model of a board's PPS sampler: N samples of a line per core clock cycle, taken from the line's femtosecond
// edges.
//
// Each sample is taken at its nominal place within the cycle, plus a Gaussian aperture jitter; one that falls
// within the undecided window of an edge is a coin. What it returns is what the RTL gets, and all it gets.
#pragma once

#include <cstdint>
#include <deque>

#include "random.h"

namespace twinstamp::sim {

class PpsSampler {
  public:
    static constexpr int N = 8;

    explicit PpsSampler(uint64_t seed) : seed_(seed) {}

    // Aperture jitter (standard deviation) and the half width of the undecided window, in fs.
    void set_noise(int64_t jitter_fs, int64_t window_fs) {
        jitter_fs_ = jitter_fs;
        window_fs_ = window_fs;
    }
    // The line changes at fs, which is later than every change before it.
    void change(int64_t fs) { changes_.push_back(fs); }
    int64_t last_change() const { return changes_.empty() ? last_ : changes_.back(); }
    bool level() const { return level_; }  // behind all changes that are over
    // Of the next change that no sample has seen; INT64_MAX: none.
    int64_t next_change() const { return changes_.empty() ? INT64_MAX : changes_.front(); }

    // The word of the cycle that ends at end_fs. Called for every cycle, or for none until next_change().
    uint8_t word(int64_t end_fs, int64_t period_fs) {
        const int64_t reach = 8 * jitter_fs_ + window_fs_ + 1;
        if (changes_.empty() || changes_.front() > end_fs + reach) return level_ ? 0xFF : 0;
        uint8_t out = 0;
        for (int i = 0; i < N; ++i) {
            int64_t at = end_fs - period_fs * (N - 1 - i) / N;
            if (jitter_fs_ != 0) {
                at += static_cast<int64_t>(
                    std::llround(gaussian(seed_, 0, samples_) * static_cast<double>(jitter_fs_)));
            }
            bool level = level_, undecided = false;
            for (const int64_t change : changes_) {
                if (change > at + window_fs_) break;
                if (change > at - window_fs_) undecided = true;
                if (change <= at) level = !level;
            }
            if (undecided && window_fs_ != 0) level = draw(seed_, 1, samples_) & 1;
            out |= static_cast<uint8_t>(level << i);
            ++samples_;
        }
        while (!changes_.empty() && changes_.front() <= end_fs - period_fs - reach) {
            level_ = !level_;
            last_ = changes_.front();
            changes_.pop_front();
        }
        return out;
    }

  private:
    uint64_t seed_, samples_ = 0;
    int64_t jitter_fs_ = 0, window_fs_ = 0, last_ = INT64_MIN;
    bool level_ = false;
    std::deque<int64_t> changes_;
};

}  // namespace twinstamp::sim
