// SPDX-License-Identifier: Apache-2.0
#include "window.h"

#include <stdexcept>
#include <string>

#include "frame_bytes.h"

namespace twinstamp {

namespace {
constexpr size_t CHUNK = 512;             // frames whose keys stay in the first-level cache
constexpr size_t PARALLEL_CHUNK = 16384;  // frames whose keys stay in the second-level caches of all workers
}  // namespace

Window::Window(const WindowOptions& options, const HashKey& key)
    : options_(options), key_(key), workers_(std::max(1u, options.workers)), lanes_(workers_.count()) {
    options_.workers = workers_.count();
    options_.key.ends = &options_.ends;
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
        for (auto& shards : lane.shards) shards.resize(options_.workers);
    }
    reserve(options_.workers == 1 ? CHUNK : PARALLEL_CHUNK / options_.workers + 1);
}

void Window::reserve(size_t frames) {
    reserved_ = frames;
    for (Lane& lane : lanes_) {
        for (int t = 0; t < (second_ ? 2 : 1); ++t) {
            for (ShardList& list : lane.shards[t]) {
                // One more than can be needed: what is no match is written and not counted.
                list.key.resize(frames + 1);
                list.frame.resize(frames + 1);
                list.matched.resize(frames + 1);
                list.match.resize(frames + 1);
                if (tagged_) list.tags.resize((frames + 1) * TAGS);
            }
        }
    }
}

u16 Window::linktype(const FrameColumns& frames, size_t i) const {
    return frames.linktypes[frames.port[i]];
}

inline void Window::add_key(Lane& lane, int table, const Digest& key, size_t i, const u32* tags) {
    ShardList& list = lane.shards[table][shard_of(key)];
    const size_t k = list.count++;
    list.key[k] = key;
    list.frame[k] = static_cast<u32>(i);
    if (tagged_) std::copy_n(tags, TAGS, &list.tags[k * TAGS]);
}

void Window::copy_keys(const KeyColumns& keys, size_t begin, size_t end, Lane& lane) {
    for (auto& shards : lane.shards) {
        for (ShardList& list : shards) list.count = list.matches = 0;
    }
    for (size_t i = begin; i < end; ++i) {
        const u32* tags = tagged_ ? keys.tags + i * TAGS : nullptr;
        add_key(lane, 0, {{keys.key[2 * i], keys.key[2 * i + 1]}}, i, tags);
        if (second_ && keys.two[i]) add_key(lane, 1, {{keys.second[2 * i], keys.second[2 * i + 1]}}, i, tags);
        if (classes_ && keys.frame_class != nullptr) class_[i] = keys.frame_class[i];
    }
}

void Window::compute_keys(const FrameColumns& frames, size_t begin, size_t end, Lane& lane) {
    for (auto& shards : lane.shards) {
        for (ShardList& list : shards) list.count = list.matches = 0;
    }
    // The next frames' bytes come from memory: ask for them a little ahead.
    const auto prefetch = [&](size_t i) {
        if (i + 8 < end) __builtin_prefetch(frames.data + frames.offset[i + 8]);
    };
    if (options_.key.profile == Profile::exact && options_.key.ignore_bytes == 0) {
        HashStart start{};
        u32 length = MAX_CAPLEN + 1;  // of no frame
        ShardList* shards = lane.shards[0].data();
        for (size_t i = begin; i < end; ++i) {
            prefetch(i);
            const u8* frame = frames.data + frames.offset[i];
            const u32 caplen = frames.caplen[i];
            if (caplen != length) start = hash_start(key_, 0, length = caplen);
            const Digest key = caplen <= HASH_BLOCK_BYTES ? hash_block(key_, start, frame, caplen)
                                                          : hash_message(key_, 0, nullptr, 0, frame, caplen);
            ShardList& list = shards[shard_of(key)];
            list.key[list.count] = key;
            list.frame[list.count++] = static_cast<u32>(i);
        }
    } else {
        FrameKeys keys;
        for (size_t i = begin; i < end; ++i) {
            prefetch(i);
            frame_keys(key_, options_.key, frames.data + frames.offset[i], frames.caplen[i],
                       linktype(frames, i), keys);
            add_key(lane, 0, keys.key, i, keys.tag);
            if (keys.two) add_key(lane, 1, keys.second, i, keys.tag);
        }
    }
    if (classes_) {
        for (size_t i = begin; i < end; ++i) {
            class_[i] = frame_class(frames.data + frames.offset[i], frames.caplen[i], linktype(frames, i),
                                    options_.key.layer, &options_.ends);
        }
    }
}

void Window::judge(const FrameColumns& frames, size_t i, const Match& match, WindowVerdicts& out,
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
    if (!out.distance.empty()) {
        out.distance[i] = match.distance;
        out.delay_ns[i] = match.delay_ns;
    }
    if (classes_ && ((options_.keep >> class_[i]) & 1)) {
        ++statistics.kept_frames[class_[i]];
        statistics.kept_bytes[class_[i]] += frames.caplen[i];
        return;
    }
    if (const u8 guarded = match.guards & options_.guard) {
        const size_t which = guarded & GUARD_TUNNEL ? 1 : 0;
        ++statistics.guarded_frames[which];
        statistics.guarded_bytes[which] += frames.caplen[i];
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

template <bool by_time, bool tagged>
void Window::look_up(const FrameColumns& frames, unsigned shard) {
    for (int t = 0; t < (second_ ? 2 : 1); ++t) {
        KeyTable& table = *tables_[t][shard];
        for (Lane& lane : lanes_) {
            ShardList& list = lane.shards[t][shard];
            size_t matches = 0;
            for (size_t begin = 0; begin < list.count; begin += CHUNK) {
                const size_t end = std::min(list.count, begin + CHUNK);
                if (table.large()) {
                    for (size_t k = begin; k < end; ++k) table.prefetch_bucket(list.key[k]);
                    for (size_t k = begin; k < end; ++k) table.prefetch_entry(list.key[k]);
                }
                const KeyTable::Frames part{list.key.data() + begin,
                                            list.frame.data() + begin,
                                            tagged ? list.tags.data() + begin * TAGS : nullptr,
                                            end - begin,
                                            static_cast<u32>(index_),
                                            frames.timestamp_ns,
                                            reach_.data()};
                matches += table.find_and_add<by_time, tagged>(part, list.matched.data() + matches,
                                                               list.match.data() + matches);
            }
            list.matches = matches;
        }
    }
}

void Window::write(const FrameColumns& frames, Lane& lane, WindowVerdicts& out) {
    const auto each = [&](int t, auto&& take) {
        for (const ShardList& list : lane.shards[t]) {
            for (size_t k = 0; k < list.matches; ++k) take(list.matched[k], list.match[k]);
        }
    };
    if (!second_) {
        each(0, [&](u32 i, const Match& match) { judge(frames, i, match, out, lane.statistics); });
        return;
    }
    // Of two matches the more recent one is told; it is the one whose type and delay count.
    const auto nearer = [&](u32 i, const Match& match) {
        if (best_[i].distance == 0 || match.distance < best_[i].distance) best_[i] = match;
    };
    const auto settle = [&](u32 i, const Match&) {
        if (best_[i].distance == 0) return;  // told already
        judge(frames, i, best_[i], out, lane.statistics);
        best_[i].distance = 0;
    };
    each(0, nearer);
    each(1, nearer);
    each(0, settle);
    each(1, settle);
}

// Nothing of a batch is judged unless all of it can be.
void Window::check(const FrameColumns& frames) {
    const auto bad = [&](size_t i) {
        return (frames.offset[i] > frames.data_bytes) |
               (frames.data_bytes - frames.offset[i] < frames.caplen[i]) | (frames.port[i] >= frames.ports) |
               (frames.caplen[i] > MAX_CAPLEN);
    };
    // Without a branch per frame this is a few cycles per vector of frames.
    bool any = false;
    u64 bytes = 0;
    for (size_t i = 0; i < frames.count; ++i) {
        any |= bad(i);
        bytes += frames.caplen[i];
    }
    for (size_t i = 0; any && i < frames.count; ++i) {
        if (!bad(i)) continue;
        throw std::invalid_argument(window_refusal({frames.data_bytes, frames.offset, frames.caplen,
                                                    frames.port, frames.count, frames.ports, MAX_CAPLEN},
                                                   i));
    }
    lanes_[0].statistics.frames += frames.count;
    lanes_[0].statistics.bytes += bytes;
}

// All keys need have arrived, whatever then becomes of the frames.
void Window::check_keys(const KeyColumns& keys, size_t count) const {
    const auto needed = [](bool wanted, const void* column, const char* name) {
        if (wanted && column == nullptr) {
            throw std::invalid_argument(std::string(name) + " is missing: this window needs it");
        }
        if (!wanted && column != nullptr) {
            throw std::invalid_argument(std::string(name) + " is given: keys of this window have none");
        }
    };
    needed(true, keys.key, "key");
    needed(second_, keys.second, "second");
    needed(second_, keys.two, "two");
    needed(tagged_, keys.tags, "tags");
    for (size_t i = 0; classes_ && keys.frame_class != nullptr && i < count; ++i) {
        if (keys.frame_class[i] >= CLASS_COUNT) {
            throw std::invalid_argument("frame " + std::to_string(i) + " of the batch: there is no class " +
                                        std::to_string(keys.frame_class[i]));
        }
    }
}

WindowVerdicts Window::process(const FrameColumns& frames, bool details) {
    check(frames);
    return judge_all(frames, nullptr, details);
}

WindowVerdicts Window::process_keys(const KeyColumns& keys, const FrameColumns& frames, bool details) {
    check_keys(keys, frames.count);
    if (classes_ && keys.frame_class == nullptr) {
        throw std::invalid_argument("frame_class is missing: this window keeps classes of frames");
    }
    u64 bytes = 0;
    for (size_t i = 0; i < frames.count; ++i) bytes += frames.caplen[i];
    lanes_[0].statistics.frames += frames.count;
    lanes_[0].statistics.bytes += bytes;
    return judge_all(frames, &keys, details);
}

WindowVerdicts Window::judge_all(const FrameColumns& frames, const KeyColumns* keys, bool details) {
    const size_t n = frames.count;
    WindowVerdicts out{std::vector<u8>(n, 1), std::vector<u8>(n), std::vector<u32>(details ? n : 0),
                       std::vector<i64>(details ? n : 0)};
    const auto write_out = [&](Lane& lane) { write(frames, lane, out); };
    if (keys == nullptr) {
        pass(
            frames, [&](size_t begin, size_t end, Lane& lane) { compute_keys(frames, begin, end, lane); },
            write_out);
    } else {
        pass(
            frames, [&](size_t begin, size_t end, Lane& lane) { copy_keys(*keys, begin, end, lane); },
            write_out);
    }
    return out;
}

void Window::restore(u64 index, const KeyColumns& keys, const i64* timestamp_ns, size_t count) {
    if (index_ != 0) throw std::invalid_argument("restore: this window has judged frames already");
    if (count > index || count < std::min<u64>(index, window_ - 1)) {
        throw std::invalid_argument("restore: " + std::to_string(count) + " frames given, the last " +
                                    std::to_string(std::min<u64>(index, window_ - 1)) + " of " +
                                    std::to_string(index) + " are needed");
    }
    check_keys(keys, count);
    index_ = swept_ = index - count;
    FrameColumns frames{};
    frames.timestamp_ns = timestamp_ns;
    frames.count = count;
    pass(
        frames, [&](size_t begin, size_t end, Lane& lane) { copy_keys(keys, begin, end, lane); },
        [](Lane&) {});
    if (stops_) stops_->forget_counts();
}

// Takes frames through the tables. keys(begin, end, lane) lists the keys of a slice, write(lane) does what is
// to be done about the matches of the slice before.
template <typename Keys, typename Write>
void Window::pass(const FrameColumns& frames, Keys&& keys, Write&& write) {
    const size_t n = frames.count;
    if (classes_ && class_.size() < n) class_.resize(n);
    if (second_ && best_.size() < n) best_.resize(n);
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
            keys(begin, std::min(n, begin + CHUNK), lanes_[0]);
            choose([&]<bool by_time, bool tagged>() { look_up<by_time, tagged>(frames, 0); });
            write(lanes_[0]);
        }
    } else {
        // The verdicts of one chunk and the keys of the next are one phase: a lane owns both.
        for (size_t begin = 0;; begin += PARALLEL_CHUNK) {
            const size_t count = begin < n ? std::min(n - begin, PARALLEL_CHUNK) : 0;
            workers_.run([&](unsigned worker) {
                Lane& lane = lanes_[worker];
                write(lane);
                keys(begin + count * worker / options_.workers,
                     begin + count * (worker + 1) / options_.workers, lane);
            });
            if (count == 0) break;
            workers_.run([&](unsigned worker) {
                choose([&]<bool by_time, bool tagged>() { look_up<by_time, tagged>(frames, worker); });
            });
        }
    }
    index_ += n;
    if (index_ - swept_ >= 0x40000000u) {
        for (auto& tables : tables_) {
            for (auto& table : tables) table->forget_expired(index_);
        }
        swept_ = index_;
    }
}

void WindowStatistics::merge(const WindowStatistics& other) {
    frames += other.frames;
    bytes += other.bytes;
    limit_reached += other.limit_reached;
    for (size_t t = 0; t < duplicates.size(); ++t) {
        duplicates[t].frames += other.duplicates[t].frames;
        duplicates[t].bytes += other.duplicates[t].bytes;
        duplicates[t].negative_delays += other.duplicates[t].negative_delays;
        duplicates[t].distance.merge(other.duplicates[t].distance);
        duplicates[t].delay_ns.merge(other.duplicates[t].delay_ns);
    }
    for (size_t c = 0; c < kept_frames.size(); ++c) {
        kept_frames[c] += other.kept_frames[c];
        kept_bytes[c] += other.kept_bytes[c];
    }
    for (size_t g = 0; g < GUARDS; ++g) {
        guarded_frames[g] += other.guarded_frames[g];
        guarded_bytes[g] += other.guarded_bytes[g];
    }
}

WindowStatistics Window::statistics() const {
    WindowStatistics sum;
    for (const Lane& lane : lanes_) sum.merge(lane.statistics);
    // Where the count is the shorter bound, what cuts the time window is no limit reached.
    if (stops_ && window_ == options_.limit && options_.count != window_) {
        sum.limit_reached += stops_->limit_reached();
    }
    return sum;
}

u64 Window::bytes() const {
    u64 sum = reach_.capacity() * 4 + best_.capacity() * sizeof(Match) + (stops_ ? stops_->bytes() : 0);
    // Keys, frame numbers, matches and tags that the lists have room for.
    const u64 row = sizeof(Digest) + 4 + 4 + sizeof(Match) + (tagged_ ? 4 * TAGS : 0);
    sum += row * (reserved_ + 1) * lanes_.size() * options_.workers * (second_ ? 2 : 1);
    for (const auto& tables : tables_) {
        for (const auto& table : tables) sum += table->bytes();
    }
    return sum;
}

}  // namespace twinstamp
