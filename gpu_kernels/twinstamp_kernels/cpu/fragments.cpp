// SPDX-License-Identifier: Apache-2.0
#include "fragments.h"

#include <algorithm>
#include <random>

#include "twinstamp/balance.h"

namespace twinstamp {
namespace {

constexpr i64 CLOCK_BACK_NS = 1'000'000'000;

i64 add_saturating(i64 a, i64 b) {
    i64 sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

// Stamps come from a file: their difference may not fit.
bool before(i64 stamp, i64 now, i64 by) {
    i64 limit;
    if (__builtin_sub_overflow(now, by, &limit)) return false;
    return stamp < limit;
}

bool says_else(const FlowKey& a, const FlowKey& b) {
    return a.src[0] != b.src[0] || a.src[1] != b.src[1] || a.dst[0] != b.dst[0] || a.dst[1] != b.dst[1] ||
           a.ports_known != b.ports_known || a.sport != b.sport || a.dport != b.dport || a.l4 != b.l4 ||
           a.l4_kind != b.l4_kind || a.protocol != b.protocol;
}

u64 random_word() {
    std::random_device device;
    return (static_cast<u64>(device()) << 32) | device();
}

}  // namespace

FragmentKey fragment_key(const u8* frame, const Layers& layers, const FlowKey& key, FragmentSpan& span) {
    FragmentKey out{{key.src[0], key.src[1]}, {key.dst[0], key.dst[1]}, 0, 0, key.family};
    if (key.family == 4) {
        out.id = read_be16(frame + layers.network + 4);
        out.protocol = frame[layers.network + 9];
        const u32 header = (frame[layers.network] & 0x0Fu) * 4,
                  length = read_be16(frame + layers.network + 2);
        const u32 word = read_be16(frame + layers.network + 6);
        span = {(word & 0x1FFF) * 8, length > header ? length - header : 0, (word & 0x2000) == 0};
        return out;
    }
    // The parser walked this chain already, so each header is whole up to the fragment header.
    u8 next = frame[layers.network + 6];
    u32 at = layers.network + 40;
    while (next != IP_FRAGMENT && at + 8 <= layers.network_end) {
        const u32 length = next == IP_AH ? (frame[at + 1] + 2u) * 4 : (frame[at + 1] + 1u) * 8;
        next = frame[at];
        at += length;
    }
    if (at + 8 <= layers.network_end) {
        out.id = read_be32(frame + at + 4);
        const u32 end = layers.network + 40 + read_be16(frame + layers.network + 4);
        const u32 word = read_be16(frame + at + 2);
        span = {word & 0xFFF8, end > at + 8 ? end - at - 8 : 0, (word & 1) == 0};
    }
    return out;
}

std::size_t FragmentTable::Hash::operator()(const FragmentKey& key) const {
    u64 h = seed[0];
    for (const u64 word :
         {key.src[0], key.src[1], key.dst[0], key.dst[1],
          (static_cast<u64>(key.id) << 16) | (static_cast<u64>(key.protocol) << 8) | key.family})
        h = mix64(h ^ word) + seed[1];
    return h;
}

FragmentTable::FragmentTable(const FragmentLimits& limits)
    : limits_(limits), entries_(64, Hash{{random_word(), random_word()}}) {}

void FragmentTable::take(const Entry& entry, FlowKey& key) {
    if (entry.tunnel) {
        const Fragment fragment = key.fragment;
        key = entry.key;
        key.fragment = fragment;
        return;
    }
    key.ports_known = entry.key.ports_known;
    key.sport = entry.key.sport;
    key.dport = entry.key.dport;
    key.l4 = entry.key.l4;
    key.l4_kind = entry.key.l4_kind;
    // Behind a first fragment's extension headers stands the protocol that later ones do not show.
    key.protocol = entry.key.protocol;
}

bool FragmentTable::peek(const FragmentKey& datagram, FlowKey& key) const {
    const auto at = entries_.find(datagram);
    if (at == entries_.end() || !at->second.known || over(at->second)) return false;
    take(at->second, key);
    return true;
}

FragmentTable::Entry& FragmentTable::entry_for(const FragmentKey& datagram) {
    const auto [at, fresh] = entries_.try_emplace(datagram);
    Entry& entry = at->second;
    if (fresh) {
        ages_.push_back(datagram);
        entry.age = std::prev(ages_.end());
        if (entries_.size() > limits_.entries) {
            ++counters.evicted;
            const FragmentKey oldest = ages_.front();
            forget(oldest);
        }
    } else {
        ages_.splice(ages_.end(), ages_, entry.age);
    }
    entry.expires = add_saturating(now_, limits_.lifetime_ns);
    return entry;
}

// A datagram of more pieces is never known to be whole, and is remembered for its lifetime.
constexpr std::size_t MOST_PIECES = 64;

void FragmentTable::note(Entry& entry, const FragmentSpan& span) const {
    const u16 place = static_cast<u16>(span.offset / 8);
    if (entry.whole || entry.offsets.size() >= MOST_PIECES ||
        std::find(entry.offsets.begin(), entry.offsets.end(), place) != entry.offsets.end())
        return;
    entry.offsets.push_back(place);
    entry.have += span.bytes;
    if (span.last) entry.total = span.offset + span.bytes;
    if (entry.total == 0 || entry.have != entry.total) return;
    entry.whole = true;
    entry.whole_until = add_saturating(now_, limits_.hold_ns);  // copies of it may still come
}

void FragmentTable::restart(Entry& entry) {
    entry.known = entry.whole = false;
    entry.offsets.clear();
    entry.have = entry.total = 0;
}

void FragmentTable::hold(HeldFrame&& frame, const FragmentSpan& span, u64 bytes) {
    ++counters.held;
    held_bytes_ += bytes;
    frame.due = add_saturating(now_, limits_.hold_ns);
    held_.push_back(std::move(frame));
    const auto at = std::prev(held_.end());
    Entry& entry = entry_for(at->datagram);
    if (over(entry)) restart(entry);
    note(entry, span);
    entry.waiting.push_back(at);
}

void FragmentTable::release(std::list<HeldFrame>::iterator frame, const Entry* entry) {
    held_bytes_ -= frame->bytes.size() + HELD_OVERHEAD;
    if (entry != nullptr) {
        take(*entry, frame->key);
        ++counters.held_followed;
    } else {
        ++counters.held_expired;
    }
    released.splice(released.end(), held_, frame);
}

void FragmentTable::first(const FragmentKey& datagram, const FlowKey& key, const FragmentSpan& span,
                          bool tunnel) {
    ++counters.first;
    Entry& entry = entry_for(datagram);
    if (over(entry)) restart(entry);
    note(entry, span);
    if (entry.known) {
        counters.conflicting += entry.tunnel != tunnel || says_else(entry.key, key);
        return;
    }
    entry.known = true;
    entry.tunnel = tunnel;
    entry.key = key;
    for (const auto& frame : entry.waiting) release(frame, &entry);
    entry.waiting.clear();
}

void FragmentTable::forget(const FragmentKey& datagram) {
    const auto at = entries_.find(datagram);
    for (const auto& frame : at->second.waiting) release(frame, nullptr);
    ages_.erase(at->second.age);
    entries_.erase(at);
}

void FragmentTable::expire() {
    while (!held_.empty() && held_.front().due < now_) {
        // Those of a datagram wait in the order of all: the oldest of all is the oldest of its own.
        entries_.find(held_.front().datagram)->second.waiting.pop_front();
        release(held_.begin(), nullptr);
    }
    while (!ages_.empty()) {
        const auto oldest = entries_.find(ages_.front());
        if (oldest->second.expires >= now_) break;
        forget(FragmentKey(ages_.front()));
    }
}

void FragmentTable::tick(i64 stamp) {
    if (!started_) {
        started_ = true;
        now_ = stamp;
    } else if (stamp > now_) {
        now_ = stamp;
        expire();
    } else if (before(stamp, now_, CLOCK_BACK_NS)) {
        // A clock was set, or captures were joined: no due time of before means anything now.
        if (!entries_.empty()) ++counters.clock_back;
        flush();
        now_ = stamp;
    }
}

void FragmentTable::tick_range(const i64* stamps, u64 count) {
    if (count == 0) return;
    i64 low = stamps[0], high = stamps[0];
    for (u64 i = 1; i < count; ++i) {
        low = stamps[i] < low ? stamps[i] : low;
        high = stamps[i] > high ? stamps[i] : high;
    }
    if (!started_) tick(stamps[0]);
    if (before(low, high > now_ ? high : now_, CLOCK_BACK_NS)) {
        for (u64 i = 0; i < count; ++i) tick(stamps[i]);
    } else {
        tick(high);
    }
}

void FragmentTable::advance(i64 now) {
    if (started_ && now > now_) {
        now_ = now;
        expire();
    }
}

void FragmentTable::flush() {
    while (!ages_.empty()) forget(FragmentKey(ages_.front()));
}

}  // namespace twinstamp
