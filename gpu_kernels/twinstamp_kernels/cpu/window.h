// SPDX-License-Identifier: Apache-2.0
// The CPU executor of the duplicate window, exact on any number of cores.
//
// Frames pass three phases, each in parallel: keys of a slice of frames per worker, listed by the shard
// that a key belongs to; look-ups of one shard per worker, in stream order; verdicts of a slice per
// worker. No verdict depends on the number of workers or on the cut into batches. One worker does the
// same in small pieces, whose keys stay in the first-level cache.
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
    u8 guard;        // Guard bits: what lets a copy go on
    TunnelEnds ends;
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

// Keys of frames, computed elsewhere. What a profile does not have is null.
struct KeyColumns {
    const u64* key;         // two per frame
    const u64* second;      // two per frame; nat
    const u8* two;          // whether second counts; nat
    const u32* tags;        // TAGS per frame; all but exact
    const u8* frame_class;  // where classes are kept
};

struct WindowVerdicts {
    std::vector<u8> keep;       // 1: forward, 0: duplicate
    std::vector<u8> type;       // of the match: 0 none, else Profile
    std::vector<u32> distance;  // frames back to the matched frame, 0: none; empty: not wanted
    std::vector<i64> delay_ns;  // stamp minus the matched frame's; likewise
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
    std::array<u64, GUARDS> guarded_frames{};  // matches that a guard let go on
    std::array<u64, GUARDS> guarded_bytes{};
    u64 limit_reached = 0;

    void merge(const WindowStatistics& other);
};

class Window {
  public:
    Window(const WindowOptions& options, const HashKey& key);

    // Judges the next frames of the stream. details: distance and delay too.
    WindowVerdicts process(const FrameColumns& frames, bool details);

    // The same for frames of which only keys, stamps and captured bytes (of `frames`) are known.
    WindowVerdicts process_keys(const KeyColumns& keys, const FrameColumns& frames, bool details);

    // Goes on where another window of the same options and hash key stopped after `index` frames: takes its
    // last min(index, window - 1) frames or more, in stream order, as if they had been judged here, and
    // counts nothing. Only for a window that has judged nothing.
    void restore(u64 index, const KeyColumns& keys, const i64* timestamp_ns, size_t count);

    // Adds what another executor has counted.
    void add_statistics(const WindowStatistics& counts) { lanes_[0].statistics.merge(counts); }

    WindowStatistics statistics() const;
    u64 index() const { return index_; }
    u64 bytes() const;  // memory held

  private:
    // Frames of one slice whose keys belong to one shard, in stream order, and their matches.
    struct alignas(128) ShardList {
        size_t count = 0, matches = 0;
        std::vector<Digest> key;
        std::vector<u32> frame, tags;
        std::vector<u32> matched;  // frames
        std::vector<Match> match;
    };
    struct alignas(128) Lane {             // what one worker owns
        std::vector<ShardList> shards[2];  // [table][shard]
        WindowStatistics statistics;
    };

    void check(const FrameColumns& frames);
    void check_keys(const KeyColumns& keys, size_t count) const;
    void reserve(size_t frames);
    WindowVerdicts judge_all(const FrameColumns& frames, const KeyColumns* keys, bool details);
    template <typename Keys, typename Write>
    void pass(const FrameColumns& frames, Keys&& keys, Write&& write);
    void copy_keys(const KeyColumns& keys, size_t begin, size_t end, Lane& lane);
    void add_key(Lane& lane, int table, const Digest& key, size_t i, const u32* tags);
    void compute_keys(const FrameColumns& frames, size_t begin, size_t end, Lane& lane);
    template <bool by_time, bool tagged>
    void look_up(const FrameColumns& frames, unsigned shard);
    void write(const FrameColumns& frames, Lane& lane, WindowVerdicts& out);
    void judge(const FrameColumns& frames, size_t i, const Match& match, WindowVerdicts& out,
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
    size_t reserved_ = 0;  // frames that a lane's lists have room for
    std::vector<u32> reach_;
    std::vector<u8> class_;
    std::vector<Match> best_;  // nat: the nearer of both tables' matches
};

}  // namespace twinstamp
