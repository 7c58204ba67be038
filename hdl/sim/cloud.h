// SPDX-License-Identifier: Apache-2.0
// A network between a sender and one receiving port, frame by frame: it stores a frame, and forwards it after
// a delay, or loses it, or forwards it twice, or late. Times in fs. Frame n's fate comes from the seed and n
// alone.
#pragma once

#include <cstdint>
#include <vector>

namespace twinstamp::sim {

class CardSim;

// Layout shared with host/twinstamp/card/sim.py.
struct CloudModel {
    int64_t delay_fs;                 // from the frame's last byte in to its first byte out, at least
    int64_t jitter_fs;                // mean of an exponential delay on top
    int64_t reorder_fs;               // delay of a frame that lets others pass
    double loss, duplicate, reorder;  // probabilities
};
static_assert(sizeof(CloudModel) == 48);

struct CloudTruth {
    int64_t departure_fs;  // SFD on the sender's pins
    int64_t due_fs;        // when the cloud lets its first byte go; -1: lost
    int64_t arrival_fs;    // SFD on the receiver's pins; -1: lost
    uint64_t number;       // of the frame, both copies
    uint32_t length;       // bytes with FCS
    uint32_t fate;         // CLOUD_*
};
static_assert(sizeof(CloudTruth) == 40);
enum : uint32_t { CLOUD_LOST = 1, CLOUD_COPY = 2, CLOUD_LATE = 4 };

struct Arrival {
    int64_t due_fs;
    uint64_t index;              // of its truth
    std::vector<uint8_t> bytes;  // with FCS
};

class Cloud {
  public:
    Cloud(uint64_t seed, const CloudModel& model, CardSim& to, int port)
        : to(&to), port(port), seed_(seed), model_(model) {}
    // A frame whose SFD left at departure_fs and whose last byte time ended at end_fs.
    void frame(int64_t departure_fs, int64_t end_fs, const uint8_t* bytes, uint64_t size);
    void arrived(uint64_t index, int64_t fs) { truths_[index - base_].arrival_fs = fs; }
    // Takes the truths that are settled, in order of departure.
    uint64_t truth(CloudTruth* out, uint64_t room);
    int64_t delay_fs() const { return model_.delay_fs; }

    CardSim* from = nullptr;  // the sending card, where there is one
    CardSim* to;
    int port;
    int64_t source_fs = 0;  // when the host-side source's last frame ended

  private:
    void forward(int64_t departure_fs, int64_t end_fs, const uint8_t* bytes, uint64_t size, uint32_t copy);

    uint64_t seed_;
    CloudModel model_;
    uint64_t number_ = 0, base_ = 0;
    int64_t last_due_ = 0;
    std::vector<CloudTruth> truths_;
};

}  // namespace twinstamp::sim
