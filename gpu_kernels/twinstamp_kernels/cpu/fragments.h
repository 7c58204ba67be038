// SPDX-License-Identifier: Apache-2.0
// Fragments follow their first one: a bounded table of datagrams, and the frames that wait for theirs.
#pragma once

#include <deque>
#include <list>
#include <unordered_map>
#include <vector>

#include "twinstamp/flow.h"

namespace twinstamp {

struct FragmentKey {
    u64 src[2], dst[2];
    u32 id;
    u8 protocol;  // 0 for IPv6, where RFC 8200 4.5 leaves it out
    u8 family;
    bool operator==(const FragmentKey& o) const {
        return src[0] == o.src[0] && src[1] == o.src[1] && dst[0] == o.dst[0] && dst[1] == o.dst[1] &&
               id == o.id && protocol == o.protocol && family == o.family;
    }
};

// Which bytes of its datagram a fragment has, by its headers.
struct FragmentSpan {
    u32 offset = 0, bytes = 0;
    bool last = false;
};

// The datagram that a fragment belongs to, and its place there. `key` and `layers` are the frame's.
FragmentKey fragment_key(const u8* frame, const Layers& layers, const FlowKey& key, FragmentSpan& span);

struct FragmentLimits {
    u64 entries = 65536;
    u64 hold_bytes = 16 << 20;
    i64 hold_ns = 10'000'000;
    i64 lifetime_ns = 30'000'000'000;
};

struct FragmentCounters {
    u64 first = 0;        // first fragments seen
    u64 conflicting = 0;  // of those, others of their datagram that say something else: the first one counts
    u64 followed = 0;     // later fragments that took their first one's ports
    u64 held = 0;         // later fragments that came early and were held
    u64 held_followed = 0;  // of those, sent on when their first one came
    u64 held_expired = 0;   // of those, sent on by addresses and protocol
    u64 over_budget = 0;    // early, but the byte budget was spent: by addresses and protocol at once
    u64 evicted = 0;        // datagrams forgotten because the table was full
    u64 clock_back = 0;     // stamps fell back by over a second: everything held was let go
};

// A frame that waits, with its bytes: the caller's buffer may go.
struct HeldFrame {
    std::vector<u8> bytes;
    u32 length;
    i64 timestamp_ns;
    u16 port, flags;
    u64 frame;  // number among all frames of the stream, from 0
    FlowKey key;
    FragmentKey datagram;
    i64 due;
};

class FragmentTable {
  public:
    explicit FragmentTable(const FragmentLimits& limits);

    // Moves the table's clock to a frame's stamp, before that frame is judged.
    void tick(i64 stamp);
    // As tick() for many frames of which none is a fragment.
    void tick_range(const i64* stamps, u64 count);
    // A first fragment: later ones take ports and flags of `key`, or, where it is that of a packet in a
    // tunnel, all of it. One of a datagram that has one already changes nothing: a sender could move the rest
    // of a datagram to another rule or server with it.
    void first(const FragmentKey& datagram, const FlowKey& key, const FragmentSpan& span, bool tunnel);

    enum class Answer { followed, held, alone };
    // A later fragment: fills in ports and flags, or says that it is held or must go alone. `copy` makes
    // the frame to hold, and is called only then.
    template <typename Copy>
    Answer later(const FragmentKey& datagram, FlowKey& key, const FragmentSpan& span, u32 caplen, Copy copy) {
        const auto at = entries_.find(datagram);
        if (at != entries_.end() && at->second.known && !over(at->second)) {
            take(at->second, key);
            note(at->second, span);
            ++counters.followed;
            return Answer::followed;
        }
        const u64 bytes = caplen + HELD_OVERHEAD;
        if (limits_.hold_ns <= 0 || held_bytes_ + bytes > limits_.hold_bytes) {
            ++counters.over_budget;
            return Answer::alone;
        }
        HeldFrame frame = copy();
        frame.key = key;
        frame.datagram = datagram;
        hold(std::move(frame), span, bytes);
        return Answer::held;
    }
    // Ports and flags of the datagram's first fragment, where it is known. Counts nothing.
    bool peek(const FragmentKey& datagram, FlowKey& key) const;
    void advance(i64 now);  // wall clock, where no frame moves it
    void flush();           // lets everything held go

    u64 held_frames() const { return held_.size(); }
    u64 held_bytes() const { return held_bytes_; }
    u64 oldest_held() const { return held_.empty() ? ~0ull : held_.front().frame; }
    bool idle() const { return entries_.empty(); }
    u64 datagrams() const { return entries_.size(); }

    FragmentCounters counters;
    std::list<HeldFrame> released;  // in the order they were let go; the owner empties it

  private:
    static constexpr u64 HELD_OVERHEAD = 256;  // bookkeeping per held frame, counted in the budget

    struct Entry {
        bool known = false;   // the first fragment was seen
        bool tunnel = false;  // and what it says is of the packet inside it
        FlowKey key{};
        i64 expires = 0;
        // Offsets, in units of eight bytes, of the fragments seen so far, and the bytes they have together;
        // those of the whole datagram, once its last fragment was seen.
        std::vector<u16> offsets;
        u32 have = 0, total = 0;
        bool whole = false;
        i64 whole_until = 0;
        std::list<FragmentKey>::iterator age;
        std::deque<std::list<HeldFrame>::iterator> waiting;  // in the order in which they came
    };
    struct Hash {
        u64 seed[2];
        std::size_t operator()(const FragmentKey& key) const;
    };

    static void take(const Entry& entry, FlowKey& key);
    void hold(HeldFrame&& frame, const FragmentSpan& span, u64 bytes);
    void note(Entry& entry, const FragmentSpan& span) const;
    // Whole, and for so long that what comes now under its identification is another datagram's.
    bool over(const Entry& entry) const { return entry.whole && now_ > entry.whole_until; }
    static void restart(Entry& entry);
    Entry& entry_for(const FragmentKey& datagram);
    void release(std::list<HeldFrame>::iterator frame, const Entry* entry);
    void forget(const FragmentKey& datagram);
    void expire();

    FragmentLimits limits_;
    i64 now_ = 0;
    bool started_ = false;
    u64 held_bytes_ = 0;
    std::unordered_map<FragmentKey, Entry, Hash> entries_;
    std::list<FragmentKey> ages_;  // oldest datagram first
    std::list<HeldFrame> held_;    // earliest due first
};

}  // namespace twinstamp
