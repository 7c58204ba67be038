// SPDX-License-Identifier: Apache-2.0
// The frames of a duplicate window, found by key (docs/duplicates.md, "How the window works").
//
// Entries lie in a ring in order of arrival. A bucket's chain holds each key once, by its latest entry,
// latest first: a look-up ends at the first entry that has left the window. For time windows each entry
// also points to the latest earlier entry of its key with a stamp not after its own: entries in between
// have later stamps than a more recent one and can never be the answer again. So a look-up costs a
// constant on average for any order of stamps.
#pragma once

#include <cstring>
#include <limits>
#include <vector>

#include "twinstamp/key.h"

namespace twinstamp {

struct Match {
    u32 distance = 0;  // frames back to the matched one, 0: none
    i64 delay_ns = 0;
    u8 equal_tags = 0;  // bit k: tag[k] of both frames is equal
    u8 guards = 0;      // Guard bits
};

// Tables of different workers change with every frame: none shares a cache line with another.
class alignas(128) KeyTable {
  public:
    // window: an entry is live while fewer than `window` frames follow it. expected: entries to make room
    // for at first; the table grows when live entries need it.
    KeyTable(u32 window, u32 expected, bool by_time, bool tagged)
        : window_(window), by_time_(by_time), tagged_(tagged) {
        u32 capacity = 256;
        while (capacity < expected) capacity *= 2;
        allocate(capacity);
    }

    u64 bytes() const {
        return entries_.size() * sizeof(Entry) + heads_.size() * 4 + key_previous_.size() * 4 +
               tags_.size() * 4;
    }

    void prefetch_bucket(const Digest& key) const { __builtin_prefetch(&heads_[bucket(key)], 1); }
    void prefetch_entry(const Digest& key) const {
        const u32 p = heads_[bucket(key)];
        if (position_ - p <= capacity()) __builtin_prefetch(&entries_[p & mask_], 1);
    }
    bool large() const { return entries_.size() > 8192; }

    // The frames of one call: n of them, in stream order. key[k] and tags + k * TAGS belong to frame
    // frame[k] of a batch whose frame 0 has number `base` in the stream; time_ns and reach are the batch's.
    // reach: frames back that the time window allows (1: none).
    struct Frames {
        const Digest* key;
        const u32* frame;
        const u32* tags;
        size_t count;
        u32 base;
        const i64* time_ns;
        const u32* reach;
    };

    // For each frame in turn: finds the most recent earlier frame with its key inside the window, and adds
    // the frame. Matched frames and their matches are listed; both lists have room for one more than can
    // be, because they are written without a branch: whether a frame is a duplicate is the one thing no
    // branch predictor can know. Returns how many matched.
    // by_time, tagged: as given to the constructor, here so that the compiler drops what is not needed.
    template <bool by_time, bool tagged>
    size_t find_and_add(const Frames& in, u32* matched, Match* match) {
        // Members would be read again after each store: the compiler cannot know that no store meets them.
        Hot hot = load();
        size_t matches = 0;
        for (size_t k = 0; k < in.count; ++k) {
            const u32 i = in.frame[k];
            const u32 number = in.base + i;
            if (hot.filled == hot.mask + 1) {
                if (number - hot.entries[hot.position & hot.mask].index < hot.window) {
                    store(hot);
                    grow(number);
                    hot = load();
                    ++hot.filled;
                }
            } else {
                ++hot.filled;
            }
            matched[matches] = i;
            matches += find_and_add_one<by_time, tagged>(
                hot, in.key[k], number, in.time_ns[i], by_time ? in.reach[i] : hot.window,
                tagged ? in.tags + k * TAGS : nullptr, match[matches]);
        }
        store(hot);
        return matches;
    }

    // Frame numbers are kept modulo 2^32: entries that left the window must be forgotten before the
    // numbers come round. To be called at least every 2^31 frames.
    void forget_expired(u64 index) {
        for (u32 age = 1; age <= filled_; ++age) {
            Entry& entry = entries_[(position_ - age) & mask_];
            if (static_cast<u32>(index) - entry.index >= window_) {
                entry.index = static_cast<u32>(index) - 0x80000000u;
            }
        }
    }

  private:
    static constexpr u32 NONE = 0;  // ages count from 1

    struct Entry {
        Digest key;
        i64 time_ns;
        u32 index;
        u32 bucket_previous;
    };

    // What a look-up touches, in registers.
    struct Hot {
        Entry* entries;
        u32* heads;
        u32* key_previous;
        u32* tags;
        u32 mask, bucket_mask, window, position, filled;
    };

    Hot load() {
        return {entries_.data(), heads_.data(), key_previous_.data(),
                tags_.data(),    mask_,         bucket_mask_,
                window_,         position_,     filled_};
    }
    void store(const Hot& hot) {
        position_ = hot.position;
        filled_ = hot.filled;
    }

    // Stamps of a count window may be further apart than i64 tells: the nearest that it does.
    static i64 difference(i64 a, i64 b) {
        i64 result;
        if (!__builtin_sub_overflow(a, b, &result)) return result;
        return a < b ? std::numeric_limits<i64>::min() : std::numeric_limits<i64>::max();
    }

    u32 capacity() const { return mask_ + 1; }
    u32 bucket(const Digest& key) const { return static_cast<u32>(key.half[0]) & bucket_mask_; }

    template <bool by_time, bool tagged>
    __attribute__((always_inline)) static bool find_and_add_one(Hot& hot, const Digest& key, u32 number,
                                                                i64 time_ns, u32 reach, const u32* tags,
                                                                Match& match) {
        u32* head = hot.heads + (static_cast<u32>(key.half[0]) & hot.bucket_mask);
        u32* link = head;
        u32 age = find(hot, key, number, link);
        u32 previous = hot.position - hot.mask - 2;  // no entry
        bool found = false;
        if (age != NONE) {
            *link = hot.entries[(hot.position - age) & hot.mask].bucket_previous;
            if constexpr (by_time) age = walk_back(hot, key, number, time_ns, age);
            if (!by_time || age != NONE) {
                previous = hot.position - age;
                const u32 hit = previous & hot.mask;
                const u32 distance = number - hot.entries[hit].index;
                if (distance < reach) {
                    found = true;
                    match.distance = distance;
                    match.delay_ns = difference(time_ns, hot.entries[hit].time_ns);
                    match.equal_tags = match.guards = 0;
                    if constexpr (tagged) {
                        match.guards = guards(tags[GUARD_TAG], hot.tags[hit * TAGS + GUARD_TAG]);
                        for (u32 t = 0; t < TAGS; ++t) {
                            match.equal_tags |= static_cast<u8>((hot.tags[hit * TAGS + t] == tags[t]) << t);
                        }
                    }
                }
            }
        }
        const u32 slot = hot.position & hot.mask;
        hot.entries[slot] = {key, time_ns, number, *head};
        if constexpr (by_time) hot.key_previous[slot] = previous;
        if constexpr (tagged) std::memcpy(hot.tags + slot * TAGS, tags, TAGS * sizeof(u32));
        *head = hot.position++;
        return found;
    }

    // Age of the latest entry with `key`, or NONE; `link` is left on what points to it.
    __attribute__((always_inline)) static u32 find(const Hot& hot, const Digest& key, u32 number,
                                                   u32*& link) {
        u32 last_age = 0;
        while (true) {
            const u32 age = hot.position - *link;
            // A pointer into what has been overwritten, or none at all.
            if (age <= last_age || age > hot.mask + 1) return NONE;
            Entry& entry = hot.entries[*link & hot.mask];
            if (number - entry.index >= hot.window) return NONE;
            if (entry.key == key) return age;
            last_age = age;
            link = &entry.bucket_previous;
        }
    }

    // From the entry of age `age`: the latest of its key whose stamp is not after time_ns.
    static u32 walk_back(const Hot& hot, const Digest& key, u32 number, i64 time_ns, u32 age) {
        while (true) {
            const u32 at = (hot.position - age) & hot.mask;
            const Entry& entry = hot.entries[at];
            if (number - entry.index >= hot.window || !(entry.key == key)) return NONE;
            if (entry.time_ns <= time_ns) return age;
            const u32 next = hot.position - hot.key_previous[at];
            if (next <= age || next > hot.mask + 1) return NONE;
            age = next;
        }
    }

    void allocate(u32 capacity) {
        entries_.assign(capacity, Entry{});
        mask_ = capacity - 1;
        heads_.assign(2 * static_cast<size_t>(capacity), 0);
        bucket_mask_ = 2 * capacity - 1;
        if (by_time_) key_previous_.assign(capacity, 0);
        if (tagged_) tags_.assign(static_cast<size_t>(capacity) * TAGS, 0);
    }

    __attribute__((noinline, cold)) void grow(u32 number) {
        const u32 old_mask = mask_;
        const auto old_entries = std::move(entries_);
        const auto old_previous = std::move(key_previous_);
        const auto old_tags = std::move(tags_);
        const u32 end = position_;
        allocate(2 * (old_mask + 1));
        for (u32 at = end - (old_mask + 1); at != end; ++at) {
            const Entry& entry = old_entries[at & old_mask];
            position_ = at;
            if (number - entry.index >= window_) continue;
            Hot hot = load();
            const u32 b = bucket(entry.key);
            u32* link = hot.heads + b;
            if (find(hot, entry.key, number, link) != NONE) *link = entries_[*link & mask_].bucket_previous;
            entries_[at & mask_] = {entry.key, entry.time_ns, entry.index, heads_[b]};
            if (by_time_) key_previous_[at & mask_] = old_previous[at & old_mask];
            if (tagged_)
                std::memcpy(&tags_[(at & mask_) * TAGS], &old_tags[(at & old_mask) * TAGS],
                            TAGS * sizeof(u32));
            heads_[b] = at;
        }
        position_ = end;
    }

    const u32 window_;
    const bool by_time_, tagged_;
    u32 mask_ = 0, bucket_mask_ = 0;
    u32 position_ = 0x40000000u;  // next position; empty heads name 0, which is out of reach
    u32 filled_ = 0;              // entries in use, at most the capacity
    std::vector<Entry> entries_;
    std::vector<u32> heads_;         // latest position per bucket
    std::vector<u32> key_previous_;  // by_time_: position of the earlier entry of the key
    std::vector<u32> tags_;
};

}  // namespace twinstamp
