// SPDX-License-Identifier: Apache-2.0
// Where the bytes of a batch's frames lie, and whether they lie there at all.
#pragma once

#include <cstddef>
#include <string>

#include "twinstamp/platform.h"

namespace twinstamp {

// Frames as columns, of which only the places are looked at.
struct FramePlaces {
    u64 data_bytes;
    const u64* offset;
    const u32* caplen;
    const u16* port;
    std::size_t count;
    u64 ports;
    u32 most;  // captured bytes that a frame may have
};

struct FrameExtent {
    u64 low = 0, high = 0;  // all captured bytes lie in low..high of the data; both 0 where there are none
    u64 bytes = 0;          // captured
    std::size_t bad;        // the first frame outside its data or ports, `count` where there is none
};

FrameExtent frame_extent(const FramePlaces& frames);

inline bool frame_lies_outside(const FramePlaces& frames, std::size_t i) {
    return (frames.offset[i] > frames.data_bytes) |
           (frames.data_bytes - frames.offset[i] < frames.caplen[i]) | (frames.port[i] >= frames.ports) |
           (frames.caplen[i] > frames.most);
}

// What the duplicate window says of frame `i`, and what the classifier says of it (`first`: the number of
// frame 0 in the stream).
std::string window_refusal(const FramePlaces& frames, std::size_t i);
std::string classifier_refusal(const FramePlaces& frames, std::size_t i, u64 first);

}  // namespace twinstamp
