// SPDX-License-Identifier: Apache-2.0
// The CPU executor of the duplicate window, exact on any number of cores.
//
// A batch passes three phases, each in parallel: keys of a slice of frames per worker; look-ups of one
// shard of the keys per worker, in stream order; verdicts back to their frames, again by slices. A key
// belongs to one shard, so no verdict depends on the number of workers or on the cut into batches.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "histogram.h"
#include "key_table.h"
#include "time_stops.h"
#include "twinstamp/frame_class.h"
#include "twinstamp/key.h"
#include "workers.h"

namespace twinstamp {

struct WindowOptions {
    u32 count;       // N of the count window, 0: none
    i64 time_ns;     // T of the time window, -1: none
    u32 limit;       // frames a time window holds at most
    KeyOptions key;  // what makes two frames the same
    u64 keep;        // bit c: frames of class c are never judged duplicates
    unsigned workers;
};

struct FrameColumns {
    const u8* data;
    u64 data_bytes;
    const u64* offset;
    const u32* caplen;
    const i64* timestamp_ns;
    const u16* port;
    size_t count;
    const u16* linktypes;  // per port
    size_t ports;
};

struct Verdicts {
    std::vector<u8> keep;       // 1: forward, 0: duplicate
    std::vector<u8> type;       // of the match: 0 none, else Profile
    std::vector<u32> distance;  // frames back to the matched frame, 0: none
    std::vector<i64> delay_ns;  // stamp minus the matched frame's
};

struct TypeCount {
    u64 frames = 0, bytes = 0;
    Histogram distance, delay_ns;
    u64 negative_delays = 0;
};

struct WindowStatistics {
    u64 frames = 0, bytes = 0;
    std::array<TypeCount, 5> duplicates;         // by Profile
    std::array<u64, CLASS_COUNT> kept_frames{};  // matches kept by class policy
    std::array<u64, CLASS_COUNT> kept_bytes{};
};

class Window {
  public:
    Window(const WindowOptions& options, const HashKey& key);

    // Judges the next frames of the stream.
    Verdicts process(const FrameColumns& frames);

    WindowStatistics statistics() const;
    u64 limit_reached() const { return stops_ ? stops_->limit_reached() : 0; }
    u64 bytes() const;  // memory held

  private:
    struct Lane {                                   // what one worker owns
        std::vector<std::vector<u32>> to_shard[2];  // [table][shard] frames of this slice
        std::vector<std::vector<Match>> found[2];   // answers in the same order
        WindowStatistics statistics;
    };

    void compute_keys(const FrameColumns& frames, size_t begin, size_t end, size_t base, Lane* lane);
    template <bool by_time, bool tagged>
    void look_up_range(const FrameColumns& frames, size_t begin, size_t end, Verdicts& out);
    template <bool by_time, bool tagged>
    void look_up_shard(const FrameColumns& frames, unsigned shard);
    void write_slice(const FrameColumns& frames, unsigned worker, Verdicts& out);
    void judge(const FrameColumns& frames, size_t i, const Match& match, Verdicts& out,
               WindowStatistics& statistics);
    unsigned shard_of(const Digest& key) const {
        return static_cast<unsigned>((key.half[1] >> 32) * options_.workers >> 32);
    }
    u16 linktype(const FrameColumns& frames, size_t i) const;

    WindowOptions options_;
    HashKey key_;
    u32 window_;
    bool by_time_, tagged_, second_, classes_;
    u64 index_ = 0;
    u64 swept_ = 0;
    std::unique_ptr<TimeStops> stops_;
    std::vector<std::unique_ptr<KeyTable>> tables_[2];
    Workers workers_;
    std::vector<Lane> lanes_;
    // Keys of frames base.. of a batch: of one chunk on a single worker, else of all of it.
    std::vector<Digest> key_of_, second_of_;
    std::vector<u8> two_of_;
    std::vector<u32> tags_of_;
    std::vector<u32> reach_;
    std::vector<u8> class_;
};

}  // namespace twinstamp
