// SPDX-License-Identifier: Apache-2.0
// How far back a time window reaches: editcap's stop rule for stamps in any order (DESIGN: Duplicate).
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "twinstamp/platform.h"

namespace twinstamp {

// Keeps the frames that can still be the last one with a stamp below some limit: a frame is dropped
// when a later one has a stamp not after its own, so stamps rise from the oldest to the newest kept.
class TimeStops {
  public:
    // limit: frames a window holds at most, the current one included.
    TimeStops(i64 time_ns, u32 limit) : time_ns_(time_ns), limit_(limit) {}

    // Adds frame `index`. Returns how many frames back may match, plus one (a match is j with
    // index - j < reach): s(i) is the last earlier frame more than time_ns before this one.
    u32 reach_and_add(u64 index, i64 stamp_ns) {
        const i64 lowest = std::numeric_limits<i64>::min();
        const i64 limit_ns = stamp_ns < lowest + time_ns_ ? lowest : stamp_ns - time_ns_;
        while (begin_ < kept_.size() && index - kept_[begin_].index >= limit_) ++begin_;
        seek(limit_ns);
        u64 reach = hint_ > begin_ ? index - kept_[hint_ - 1].index : limit_;
        if (reach >= limit_) {
            reach = limit_;
            if (index >= limit_) ++limit_reached_;
        }
        while (kept_.size() > begin_ && kept_.back().stamp_ns >= stamp_ns) kept_.pop_back();
        if (begin_ > 4096 && begin_ > kept_.size() / 2) {
            kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(begin_));
            hint_ -= std::min(hint_, begin_);
            begin_ = 0;
        }
        kept_.push_back({index, stamp_ns});
        return static_cast<u32>(reach);
    }

    // Frames whose time window was cut by the limit.
    u64 limit_reached() const { return limit_reached_; }
    void forget_counts() { limit_reached_ = 0; }
    u64 bytes() const { return kept_.capacity() * sizeof(Kept); }

  private:
    struct Kept {
        u64 index;
        i64 stamp_ns;
    };

    // hint_: first kept frame whose stamp is not below limit_ns. A few steps from where it was, else a
    // binary search, so that stamps jumping to and fro cost no more than that.
    void seek(i64 limit_ns) {
        hint_ = std::clamp(hint_, begin_, kept_.size());
        for (int step = 0; step < 8; ++step) {
            if (hint_ < kept_.size() && kept_[hint_].stamp_ns < limit_ns) {
                ++hint_;
            } else if (hint_ > begin_ && kept_[hint_ - 1].stamp_ns >= limit_ns) {
                --hint_;
            } else {
                return;
            }
        }
        const auto first = kept_.begin() + static_cast<std::ptrdiff_t>(begin_);
        const auto found = std::partition_point(first, kept_.end(),
                                                [&](const Kept& kept) { return kept.stamp_ns < limit_ns; });
        hint_ = static_cast<size_t>(found - kept_.begin());
    }

    const i64 time_ns_;
    const u32 limit_;
    std::vector<Kept> kept_;
    size_t begin_ = 0, hint_ = 0;
    u64 limit_reached_ = 0;
};

}  // namespace twinstamp
