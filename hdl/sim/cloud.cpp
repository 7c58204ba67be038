// SPDX-License-Identifier: Apache-2.0
#include "cloud.h"

#include <algorithm>
#include <cstring>

#include "card_sim.h"
#include "random.h"

namespace twinstamp::sim {

void Cloud::frame(int64_t departure_fs, int64_t end_fs, const uint8_t* bytes, uint64_t size) {
    if (uniform(seed_, 0, number_) < model_.loss) {
        truths_.push_back({departure_fs, -1, -1, number_, static_cast<uint32_t>(size), CLOUD_LOST});
    } else {
        forward(departure_fs, end_fs, bytes, size, 0);
        if (uniform(seed_, 1, number_) < model_.duplicate) forward(departure_fs, end_fs, bytes, size, 1);
    }
    ++number_;
}

void Cloud::forward(int64_t departure_fs, int64_t end_fs, const uint8_t* bytes, uint64_t size,
                    uint32_t copy) {
    uint32_t fate = copy * CLOUD_COPY;
    int64_t due = end_fs + model_.delay_fs;
    if (model_.jitter_fs > 0) {
        due += static_cast<int64_t>(-std::log(uniform(seed_, 2 + copy, number_)) *
                                    static_cast<double>(model_.jitter_fs));
    }
    if (uniform(seed_, 4 + copy, number_) < model_.reorder) {
        due += model_.reorder_fs;
        fate |= CLOUD_LATE;
    } else {
        // A queue: nothing but what is held back changes places.
        due = std::max(due, last_due_);
        last_due_ = due;
    }
    truths_.push_back({departure_fs, due, -1, number_, static_cast<uint32_t>(size), fate});
    if (to) to->arrive(port, this, {due, base_ + truths_.size() - 1, {bytes, bytes + size}});
}

uint64_t Cloud::truth(CloudTruth* out, uint64_t room) {
    uint64_t n = 0;
    while (n < truths_.size() && n < room && (truths_[n].arrival_fs >= 0 || truths_[n].fate & CLOUD_LOST))
        ++n;
    if (n) std::memcpy(out, truths_.data(), n * sizeof(CloudTruth));
    truths_.erase(truths_.begin(), truths_.begin() + static_cast<std::ptrdiff_t>(n));
    base_ += n;
    return n;
}

}  // namespace twinstamp::sim
