// SPDX-License-Identifier: Apache-2.0
#include "window.h"

#include <stdexcept>
#include <string>

namespace twinstamp {

namespace {
constexpr size_t CHUNK = 512;  // frames whose keys stay in the first-level cache
}

Window::Window(const WindowOptions& options, const HashKey& key)
    : options_(options), key_(key), workers_(std::max(1u, options.workers)), lanes_(workers_.count()) {
    options_.workers = workers_.count();
    by_time_ = options.time_ns >= 0;
    window_ = by_time_ ? options.limit : options.count;
    if (by_time_ && options.count > 0) window_ = std::min(window_, options.count);
    tagged_ = options.key.profile != Profile::exact;
    second_ = options.key.profile == Profile::nat;
    classes_ = options.keep != 0;
    if (by_time_) stops_ = std::make_unique<TimeStops>(options.time_ns, window_);
    // A time window may hold far fewer frames than its limit: start small and grow.
    const u32 expected =
        by_time_ ? std::min(window_, 4096u) : window_ / options_.workers + window_ % options_.workers;
    for (int t = 0; t < (second_ ? 2 : 1); ++t) {
        for (unsigned w = 0; w < options_.workers; ++w) {
            tables_[t].push_back(std::make_unique<KeyTable>(window_, expected, by_time_, tagged_));
        }
    }
    for (Lane& lane : lanes_) {
        for (int t = 0; t < 2; ++t) {
            lane.to_shard[t].resize(options_.workers);
            lane.found[t].resize(options_.workers);
        }
    }
}

u16 Window::linktype(const FrameColumns& frames, size_t i) const {
    return frames.linktypes[frames.port[i]];
}

void Window::compute_keys(const FrameColumns& frames, size_t begin, size_t end, size_t base, Lane* lane) {
    const bool exact = options_.key.profile == Profile::exact && options_.key.ignore_bytes == 0;
    FrameKeys keys;
    for (size_t i = begin; i < end; ++i) {
        const u8* frame = frames.data + frames.offset[i];
        const u32 caplen = frames.caplen[i];
        // The next frames' bytes come from memory: ask for them a little ahead.
        if (i + 8 < end) __builtin_prefetch(frames.data + frames.offset[i + 8]);
        const size_t k = i - base;
        if (exact) {
            key_of_[k] = hash_message(key_, 0, nullptr, 0, frame, caplen);
        } else {
            frame_keys(key_, options_.key, frame, caplen, linktype(frames, i), keys);
            key_of_[k] = keys.key;
            if (second_) {
                second_of_[k] = keys.second;
                two_of_[k] = keys.two;
            }
            if (tagged_) std::copy_n(keys.tag, TAGS, &tags_of_[k * TAGS]);
        }
        if (classes_) class_[i] = frame_class(frame, caplen, linktype(frames, i), options_.key.layer);
        if (lane) {
            lane->to_shard[0][shard_of(key_of_[k])].push_back(static_cast<u32>(i));
            if (second_ && two_of_[k])
                lane->to_shard[1][shard_of(second_of_[k])].push_back(static_cast<u32>(i));
        }
    }
}

void Window::judge(const FrameColumns& frames, size_t i, const Match& match, Verdicts& out,
                   WindowStatistics& statistics) {
    u8 type = static_cast<u8>(options_.key.profile);
    if (tagged_) {
        for (u8 narrower = 1; narrower < type; ++narrower) {
            if (match.equal_tags & (1u << (narrower - 1))) {
                type = narrower;
                break;
            }
        }
    }
    out.type[i] = type;
    out.distance[i] = match.distance;
    out.delay_ns[i] = match.delay_ns;
    if (classes_ && ((options_.keep >> class_[i]) & 1)) {
        ++statistics.kept_frames[class_[i]];
        statistics.kept_bytes[class_[i]] += frames.caplen[i];
        return;
    }
    out.keep[i] = 0;
    TypeCount& count = statistics.duplicates[type];
    ++count.frames;
    count.bytes += frames.caplen[i];
    count.distance.add(match.distance);
    if (match.delay_ns < 0) {
        ++count.negative_delays;
    } else {
        count.delay_ns.add(static_cast<u64>(match.delay_ns));
    }
}

namespace {
// Of two matches the more recent one; it is the one whose type and delay are told.
Match nearer(const Match& a, const Match& b) {
    if (a.distance == 0) return b;
    if (b.distance == 0) return a;
    return b.distance < a.distance ? b : a;
}
}  // namespace

template <bool by_time, bool tagged>
void Window::look_up_range(const FrameColumns& frames, size_t begin, size_t end, Verdicts& out) {
    KeyTable& first = *tables_[0][0];
    KeyTable* second = second_ ? tables_[1][0].get() : nullptr;
    if (first.large()) {
        for (size_t k = 0; k < end - begin; ++k) {
            first.prefetch_bucket(key_of_[k]);
            if (second && two_of_[k]) second->prefetch_bucket(second_of_[k]);
        }
        for (size_t k = 0; k < end - begin; ++k) {
            first.prefetch_entry(key_of_[k]);
            if (second && two_of_[k]) second->prefetch_entry(second_of_[k]);
        }
    }
    // Matches are listed without a branch and judged apart: whether a frame is a duplicate is the one
    // thing no branch predictor can know.
    std::array<u32, CHUNK + 1> matched;
    std::array<Match, CHUNK + 1> matches;
    size_t count = 0;
    for (size_t i = begin; i < end; ++i) {
        const u32 reach = by_time ? reach_[i] : window_;
        const size_t k = i - begin;
        const u32* tags = tagged ? &tags_of_[k * TAGS] : nullptr;
        const i64 stamp = frames.timestamp_ns[i];
        bool found =
            first.find_and_add<by_time, tagged>(key_of_[k], index_ + i, stamp, reach, tags, matches[count]);
        if (tagged && second && two_of_[k]) {
            Match other;
            if (second->find_and_add<by_time, tagged>(second_of_[k], index_ + i, stamp, reach, tags, other)) {
                matches[count] = found ? nearer(matches[count], other) : other;
                found = true;
            }
        }
        matched[count] = static_cast<u32>(i);
        count += found;
    }
    for (size_t k = 0; k < count; ++k) judge(frames, matched[k], matches[k], out, lanes_[0].statistics);
}

template <bool by_time, bool tagged>
void Window::look_up_shard(const FrameColumns& frames, unsigned shard) {
    for (int t = 0; t < (second_ ? 2 : 1); ++t) {
        KeyTable& table = *tables_[t][shard];
        const std::vector<Digest>& keys = t == 0 ? key_of_ : second_of_;
        for (Lane& lane : lanes_) {
            const auto& list = lane.to_shard[t][shard];
            auto& found = lane.found[t][shard];
            found.assign(list.size(), Match{});
            for (size_t begin = 0; begin < list.size(); begin += CHUNK) {
                const size_t end = std::min(list.size(), begin + CHUNK);
                if (table.large()) {
                    for (size_t k = begin; k < end; ++k) table.prefetch_bucket(keys[list[k]]);
                    for (size_t k = begin; k < end; ++k) table.prefetch_entry(keys[list[k]]);
                }
                for (size_t k = begin; k < end; ++k) {
                    const u32 i = list[k];
                    const u32 reach = by_time ? reach_[i] : window_;
                    const u32* tags = tagged ? &tags_of_[i * TAGS] : nullptr;
                    table.find_and_add<by_time, tagged>(keys[i], index_ + i, frames.timestamp_ns[i], reach,
                                                        tags, found[k]);
                }
            }
        }
    }
}

void Window::write_slice(const FrameColumns& frames, unsigned worker, Verdicts& out) {
    Lane& lane = lanes_[worker];
    std::vector<size_t> next[2];
    for (auto& cursor : next) cursor.assign(options_.workers, 0);
    const size_t begin = frames.count * worker / options_.workers;
    const size_t end = frames.count * (worker + 1) / options_.workers;
    for (size_t i = begin; i < end; ++i) {
        const unsigned shard = shard_of(key_of_[i]);
        Match match = lane.found[0][shard][next[0][shard]++];
        if (second_ && two_of_[i]) {
            const unsigned other = shard_of(second_of_[i]);
            match = nearer(match, lane.found[1][other][next[1][other]++]);
        }
        if (match.distance != 0) judge(frames, i, match, out, lane.statistics);
    }
}

Verdicts Window::process(const FrameColumns& frames) {
    const size_t n = frames.count;
    for (size_t i = 0; i < n; ++i) {
        if (frames.offset[i] > frames.data_bytes || frames.data_bytes - frames.offset[i] < frames.caplen[i] ||
            frames.port[i] >= frames.ports || frames.caplen[i] > MAX_CAPLEN) {
            throw std::invalid_argument(
                "frame " + std::to_string(i) + " of the batch: offset " + std::to_string(frames.offset[i]) +
                ", caplen " + std::to_string(frames.caplen[i]) + ", port " + std::to_string(frames.port[i]) +
                " do not fit data of " + std::to_string(frames.data_bytes) + " bytes, " +
                std::to_string(frames.ports) + " ports and the limit of " + std::to_string(MAX_CAPLEN) +
                " captured bytes");
        }
    }
    Verdicts out{std::vector<u8>(n, 1), std::vector<u8>(n), std::vector<u32>(n), std::vector<i64>(n)};
    const size_t keyed = options_.workers == 1 ? CHUNK : n;
    if (key_of_.size() < keyed) {
        key_of_.resize(keyed);
        if (second_) second_of_.resize(keyed), two_of_.resize(keyed);
        if (tagged_) tags_of_.resize(keyed * TAGS);
    }
    if (classes_ && class_.size() < n) class_.resize(n);
    if (by_time_) {
        reach_.resize(std::max(reach_.size(), n));
        for (size_t i = 0; i < n; ++i) reach_[i] = stops_->reach_and_add(index_ + i, frames.timestamp_ns[i]);
    }
    const auto choose = [&](auto&& run) {
        if (by_time_) {
            tagged_ ? run.template operator()<true, true>() : run.template operator()<true, false>();
        } else {
            tagged_ ? run.template operator()<false, true>() : run.template operator()<false, false>();
        }
    };
    if (options_.workers == 1) {
        for (size_t begin = 0; begin < n; begin += CHUNK) {
            const size_t end = std::min(n, begin + CHUNK);
            compute_keys(frames, begin, end, begin, nullptr);
            choose([&]<bool by_time, bool tagged>() {
                look_up_range<by_time, tagged>(frames, begin, end, out);
            });
        }
    } else {
        workers_.run([&](unsigned worker) {
            Lane& lane = lanes_[worker];
            for (auto& lists : lane.to_shard) {
                for (auto& list : lists) list.clear();
            }
            compute_keys(frames, n * worker / options_.workers, n * (worker + 1) / options_.workers, 0,
                         &lane);
        });
        workers_.run([&](unsigned worker) {
            choose([&]<bool by_time, bool tagged>() { look_up_shard<by_time, tagged>(frames, worker); });
        });
        workers_.run([&](unsigned worker) { write_slice(frames, worker, out); });
    }
    index_ += n;
    lanes_[0].statistics.frames += n;
    for (size_t i = 0; i < n; ++i) lanes_[0].statistics.bytes += frames.caplen[i];
    if (index_ - swept_ >= 0x40000000u) {
        for (auto& tables : tables_) {
            for (auto& table : tables) table->forget_expired(index_);
        }
        swept_ = index_;
    }
    return out;
}

WindowStatistics Window::statistics() const {
    WindowStatistics sum;
    for (const Lane& lane : lanes_) {
        const WindowStatistics& one = lane.statistics;
        sum.frames += one.frames;
        sum.bytes += one.bytes;
        for (size_t t = 0; t < sum.duplicates.size(); ++t) {
            sum.duplicates[t].frames += one.duplicates[t].frames;
            sum.duplicates[t].bytes += one.duplicates[t].bytes;
            sum.duplicates[t].negative_delays += one.duplicates[t].negative_delays;
            sum.duplicates[t].distance.merge(one.duplicates[t].distance);
            sum.duplicates[t].delay_ns.merge(one.duplicates[t].delay_ns);
        }
        for (size_t c = 0; c < sum.kept_frames.size(); ++c) {
            sum.kept_frames[c] += one.kept_frames[c];
            sum.kept_bytes[c] += one.kept_bytes[c];
        }
    }
    return sum;
}

u64 Window::bytes() const {
    u64 sum = key_of_.capacity() * sizeof(Digest) + second_of_.capacity() * sizeof(Digest) +
              two_of_.capacity() + tags_of_.capacity() * 4 + reach_.capacity() * 4 +
              (stops_ ? stops_->bytes() : 0);
    for (const auto& tables : tables_) {
        for (const auto& table : tables) sum += table->bytes();
    }
    return sum;
}

}  // namespace twinstamp
