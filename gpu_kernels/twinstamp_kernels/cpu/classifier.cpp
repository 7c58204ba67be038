// SPDX-License-Identifier: Apache-2.0
#include "classifier.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>

namespace twinstamp {
namespace {

constexpr u32 BLOCK = 32;           // frames between a prefetch and its use
constexpr u64 SLICE_FRAMES = 2048;  // fewer are not worth a thread

// Fields of one flow that rules tell apart, and its verdict. The key is compared whole: a hit is exact.
struct Slot4 {
    u64 addresses;
    u64 fields;  // ports, VLAN, class of flags
    u64 hash;
    u32 tail;  // protocol, ports known; bit 31: used
    i32 rule;
};
struct alignas(64) Slot6 {
    u64 address[4];
    u64 fields;
    u64 hash;
    u32 tail;
    i32 rule;
};
constexpr u32 USED = 0x80000000u;

void prefetch(const void* p) {
    __builtin_prefetch(p);
}

}  // namespace

struct Classifier::Worker {
    std::vector<Slot4> cache4;
    std::vector<Slot6> cache6;
    std::vector<u32> serial;  // frames that need the fragment table
    Counts counts;
    u64 copies = 0;
    std::exception_ptr error;
    // One block at work.
    FlowKey keys[BLOCK];
    u64 fields[BLOCK];
    u32 tail[BLOCK], slot[BLOCK], index[BLOCK], miss[BLOCK];
    RuleQuery query[BLOCK];
    i32 rule[BLOCK];
    u64 hash[BLOCK];
};

Classifier::Classifier(const std::vector<Rule>& rules, u64 memory_limit, const FlowHashKey& key,
                       const ClassifierOptions& options)
    : rule_count_(static_cast<u32>(rules.size())), key_(key), options_(options), table_(options.fragments) {
    compile_rules(rules, memory_limit, rules_);
    std::random_device device;
    for (auto& m : cache_multiplier_) m = ((static_cast<u64>(device()) << 32) | device()) | 1;
    for (u32 w = 0; w < options.workers; ++w) {
        workers_.push_back(std::make_unique<Worker>());
        workers_.back()->cache4.resize(options.cache_entries, Slot4{});
        workers_.back()->cache6.resize(options.cache_entries / 4, Slot6{});
    }
    set_actions(std::vector<u32>(rule_count_ + 1, 0), {0, 1}, {0});
}

Classifier::~Classifier() = default;

void Classifier::set_actions(std::vector<u32> action_of_rule, std::vector<u32> action_first,
                             std::vector<u16> action_group) {
    if (action_of_rule.size() != rule_count_ + 1ull || action_first.empty() ||
        action_first.back() != action_group.size())
        throw std::invalid_argument("actions do not fit the rules");
    most_copies_ = 1;
    for (std::size_t a = 0; a + 1 < action_first.size(); ++a) {
        if (action_first[a + 1] < action_first[a]) throw std::invalid_argument("actions are out of order");
        most_copies_ = std::max(most_copies_, action_first[a + 1] - action_first[a]);
    }
    for (const u32 action : action_of_rule)
        if (action + 1 >= action_first.size()) throw std::invalid_argument("a rule has an unknown action");
    action_of_rule_ = std::move(action_of_rule);
    action_first_ = std::move(action_first);
    action_group_ = std::move(action_group);
}

void Classifier::set_servers(std::vector<u16> tables, u32 bucket_bits, u32 servers) {
    const u64 buckets = 1ull << bucket_bits;
    if (bucket_bits > 20 || tables.size() % buckets != 0)
        throw std::invalid_argument("server tables do not fit the number of buckets");
    const u64 groups = tables.size() / buckets;
    for (const u16 group : action_group_)
        if (group >= groups) throw std::invalid_argument("an action names a group without a server table");
    for (const u16 server : tables)
        if (server != NO_SERVER && server >= servers)
            throw std::invalid_argument("a server table names an unknown server");
    tables_ = std::move(tables);
    bucket_bits_ = bucket_bits;
    servers_ = servers;
    for (auto& worker : workers_)
        if (worker->counts.server.size() < servers) worker->counts.server.resize(servers);
}

void Classifier::check_frame(const Frames& frames, u64 i) {
    const u64 offset = frames.offset[i];
    if (offset > frames.data_bytes || frames.caplen[i] > frames.data_bytes - offset)
        throw std::invalid_argument("frame " + std::to_string(frames.first + i + 1) +
                                    " lies outside its batch: offset " + std::to_string(offset) + ", " +
                                    std::to_string(frames.caplen[i]) + " bytes, of " +
                                    std::to_string(frames.data_bytes));
    if (frames.port[i] >= frames.ports)
        throw std::invalid_argument("frame " + std::to_string(frames.first + i + 1) + " names port " +
                                    std::to_string(frames.port[i]) + ", the batch has " +
                                    std::to_string(frames.ports));
}

// Verdict of a frame that the cache does not serve. False: the fragment table must be asked first.
bool Classifier::judge_plain(Worker& worker, const u8* frame, const Layers& layers, const FlowKey& key,
                             Judged& out, const FragmentTable* table) const {
    FlowKey quoted;
    if (is_icmp_error(key) && layers.transport != NO_OFFSET && quoted_key(frame, layers, quoted)) {
        if (quoted.fragment == Fragment::later && options_.mode == HashMode::flow) {
            if (table == nullptr) return false;
            Layers inner = layers;
            detail::parse_ip(frame, layers.network_end, layers.transport + 8, inner);
            table->peek(fragment_key(frame, inner, quoted), quoted);
        }
        ++worker.counts.icmp_followed;
        out.rule = match_rules(rules_.view, key);
        // An error that no rule speaks of goes to the group of the flow it is about.
        if (out.rule == NO_RULE) out.rule = match_rules(rules_.view, quoted);
        out.hash = flow_hash(key_, quoted, options_.mode);
        return true;
    }
    out.rule = match_rules(rules_.view, key);
    out.hash = flow_hash(key_, key, options_.mode);
    return true;
}

// Looks up the block's misses together, so that their memory reads overlap.
void Classifier::judge_misses(Worker& worker, u32 count) const {
    const RuleTables& tables = rules_.view;
    for (u32 m = 0; m < count; ++m) {
        const FlowKey& key = worker.keys[worker.miss[m]];
        const RuleSubset& set = tables.subsets[key.family == 4 ? 0 : 1];
        if (set.src.top != nullptr) prefetch(set.src.top + (key.src[0] >> 48));
        if (set.dst.top != nullptr) prefetch(set.dst.top + (key.dst[0] >> 48));
        if (set.dport != nullptr) prefetch(set.dport + key.dport);
        if (set.sport != nullptr) prefetch(set.sport + key.sport);
    }
    for (u32 m = 0; m < count; ++m) {
        const FlowKey& key = worker.keys[worker.miss[m]];
        const RuleSubset& set = tables.subsets[key.family == 4 ? 0 : 1];
        if (set.src.top != nullptr) prefetch(set.src.high + set.src.top[key.src[0] >> 48]);
        if (set.dst.top != nullptr) prefetch(set.dst.high + set.dst.top[key.dst[0] >> 48]);
    }
    for (u32 m = 0; m < count; ++m) {
        RuleQuery& query = worker.query[m];
        find_bitmaps(tables, worker.keys[worker.miss[m]], query);
        for (u32 f = 0; f < query.count; ++f) prefetch(query.bitmap[f]);
    }
    for (u32 m = 0; m < count; ++m) {
        const u32 i = worker.miss[m];
        worker.rule[i] = first_match(worker.query[m]);
        worker.hash[i] = flow_hash(key_, worker.keys[i], options_.mode);
    }
}

void Classifier::judge_slice(Worker& worker, const Frames& frames, u64 low, u64 high, Verdicts& out) const {
    i32* rule = out.rule.data.get();
    u64* hash = out.hash.data.get();
    u8* fate = out.fate.data.get();
    const bool use_table = options_.mode == HashMode::flow;
    const u32 mask4 = options_.cache_entries - 1, mask6 = options_.cache_entries / 4 - 1;
    const bool cached = options_.cache_entries != 0;
    Layers layers;
    for (u64 block = low; block < high; block += BLOCK) {
        const u64 end = std::min<u64>(block + BLOCK, high);
        u32 used = 0;
        for (u64 i = block; i < end; ++i) {
            check_frame(frames, i);
            if (frames.keep != nullptr && frames.keep[i] == 0) {
                rule[i] = NO_RULE;
                hash[i] = 0;
                fate[i] = static_cast<u8>(Fate::skipped);
                continue;
            }
            fate[i] = static_cast<u8>(Fate::forwarded);
            const u8* frame = frames.data + frames.offset[i];
            FlowKey& key = worker.keys[used];
            parse_frame(frame, frames.caplen[i], frames.linktypes[frames.port[i]], options_.layer, layers);
            flow_key(frame, frames.caplen[i], layers, key);
            if (key.fragment != Fragment::none && use_table) {
                worker.serial.push_back(static_cast<u32>(i));
                continue;
            }
            if (!cached || key.family == 0 || key.l4_kind == L4_ICMP || key.fragment != Fragment::none) {
                Judged judged;
                if (judge_plain(worker, frame, layers, key, judged, nullptr)) {
                    rule[i] = judged.rule;
                    hash[i] = judged.hash;
                } else {
                    worker.serial.push_back(static_cast<u32>(i));
                }
                continue;
            }
            worker.fields[used] = (static_cast<u64>(key.sport) << 48) | (static_cast<u64>(key.dport) << 32) |
                                  (rules_.uses_vlan ? static_cast<u64>(key.vlan) << 16 : 0) |
                                  l4_class(rules_.view, key);
            worker.tail[used] = USED | (static_cast<u32>(key.ports_known) << 8) | key.protocol;
            if (key.family == 4) {
                const u64 mixed =
                    ((key.src[0] | (key.dst[0] >> 32)) * cache_multiplier_[0]) ^
                    ((worker.fields[used] ^ (static_cast<u64>(key.protocol) << 16)) * cache_multiplier_[1]);
                worker.slot[used] = static_cast<u32>((mixed * cache_multiplier_[2]) >> 40) & mask4;
                prefetch(&worker.cache4[worker.slot[used]]);
            } else {
                const u64 mixed = mix64(mix64(mix64(mix64(key.src[0] * cache_multiplier_[0] ^ key.src[1]) ^
                                                    key.dst[0] * cache_multiplier_[1]) ^
                                              key.dst[1]) ^
                                        (worker.fields[used] * cache_multiplier_[2] + key.protocol));
                worker.slot[used] = static_cast<u32>(mixed >> 40) & mask6;
                prefetch(&worker.cache6[worker.slot[used]]);
            }
            worker.index[used++] = static_cast<u32>(i);
        }
        u32 misses = 0;
        for (u32 k = 0; k < used; ++k) {
            const FlowKey& key = worker.keys[k];
            if (key.family == 4) {
                const Slot4& slot = worker.cache4[worker.slot[k]];
                if (slot.addresses == (key.src[0] | (key.dst[0] >> 32)) && slot.fields == worker.fields[k] &&
                    slot.tail == worker.tail[k]) {
                    rule[worker.index[k]] = slot.rule;
                    hash[worker.index[k]] = slot.hash;
                    continue;
                }
            } else {
                const Slot6& slot = worker.cache6[worker.slot[k]];
                if (slot.address[0] == key.src[0] && slot.address[1] == key.src[1] &&
                    slot.address[2] == key.dst[0] && slot.address[3] == key.dst[1] &&
                    slot.fields == worker.fields[k] && slot.tail == worker.tail[k]) {
                    rule[worker.index[k]] = slot.rule;
                    hash[worker.index[k]] = slot.hash;
                    continue;
                }
            }
            worker.miss[misses++] = k;
        }
        worker.counts.cache_hits += used - misses;
        worker.counts.cache_misses += misses;
        if (misses == 0) continue;
        judge_misses(worker, misses);
        for (u32 m = 0; m < misses; ++m) {
            const u32 k = worker.miss[m];
            const FlowKey& key = worker.keys[k];
            rule[worker.index[k]] = worker.rule[k];
            hash[worker.index[k]] = worker.hash[k];
            if (key.family == 4)
                worker.cache4[worker.slot[k]] = {key.src[0] | (key.dst[0] >> 32), worker.fields[k],
                                                 worker.hash[k], worker.tail[k], worker.rule[k]};
            else
                worker.cache6[worker.slot[k]] = {{key.src[0], key.src[1], key.dst[0], key.dst[1]},
                                                 worker.fields[k],
                                                 worker.hash[k],
                                                 worker.tail[k],
                                                 worker.rule[k]};
        }
    }
}

// In stream order and alone: what a fragment learns depends on those before it.
void Classifier::judge_fragments(const Frames& frames, Verdicts& out) {
    Worker& worker = *workers_[0];
    u64 ticked = 0;
    Layers layers;
    FlowKey key;
    Judged judged;
    for (const auto& from : workers_) {
        for (const u32 i : from->serial) {
            table_.tick_range(frames.timestamp_ns + ticked, i + 1 - ticked);
            ticked = i + 1ull;
            const u8* frame = frames.data + frames.offset[i];
            const u32 caplen = frames.caplen[i];
            parse_frame(frame, caplen, frames.linktypes[frames.port[i]], options_.layer, layers);
            flow_key(frame, caplen, layers, key);
            if (key.fragment == Fragment::none) {
                judge_plain(worker, frame, layers, key, judged, &table_);
            } else {
                const FragmentKey datagram = fragment_key(frame, layers, key);
                if (key.fragment == Fragment::first) {
                    table_.first(datagram, key);
                } else {
                    const auto answer = table_.later(datagram, key, caplen, [&] {
                        HeldFrame held;
                        held.bytes.assign(frame, frame + caplen);
                        held.length = frames.length[i];
                        held.timestamp_ns = frames.timestamp_ns[i];
                        held.port = frames.port[i];
                        held.flags = frames.flags[i];
                        held.frame = frames.first + i;
                        return held;
                    });
                    if (answer == FragmentTable::Answer::held) {
                        out.held.push_back(i);
                        out.fate.data[i] = static_cast<u8>(Fate::held);
                        out.rule.data[i] = NO_RULE;
                        out.hash.data[i] = 0;
                        continue;
                    }
                }
                judge_plain(worker, frame, layers, key, judged, &table_);
            }
            out.rule.data[i] = judged.rule;
            out.hash.data[i] = judged.hash;
        }
        from->serial.clear();
    }
    table_.tick_range(frames.timestamp_ns + ticked, frames.count - ticked);
}

void Classifier::choose_slice(Worker& worker, const u32* length, u64 low, u64 high, Verdicts& out,
                              u64& copies) const {
    const i32* rule = out.rule.data.get();
    const u64* hash = out.hash.data.get();
    u8* fate = out.fate.data.get();
    // Each slice writes where its own frames' copies can never reach the next slice's.
    u32* copy_frame = out.copy_frame.data.get() + low * most_copies_;
    u16* copy_server = out.copy_server.data.get() + low * most_copies_;
    u64 n = 0;
    const u32 shift = 64 - bucket_bits_;
    Counts& counts = worker.counts;
    for (u64 i = low; i < high; ++i) {
        Tally* tally = &counts.fate[fate[i]];
        if (fate[i] == static_cast<u8>(Fate::forwarded)) {
            const u32 action = action_of_rule_[static_cast<u32>(rule[i] + 1)];
            const u32 begin = action_first_[action], end = action_first_[action + 1];
            const u64 before = n;
            const u64 bucket = bucket_bits_ == 0 ? 0 : hash[i] >> shift;
            for (u32 g = begin; g < end; ++g) {
                const u64 at = (static_cast<u64>(action_group_[g]) << bucket_bits_) + bucket;
                const u16 server = tables_.empty() ? NO_SERVER : tables_[at];
                if (server == NO_SERVER) {
                    ++counts.copies_without_server;
                    continue;
                }
                copy_frame[n] = static_cast<u32>(i);
                copy_server[n] = server;
                counts.server[server].add(length[i]);
                ++n;
            }
            if (n == before) {
                const Fate why = begin == end ? Fate::dropped : Fate::no_server;
                fate[i] = static_cast<u8>(why);
                tally = &counts.fate[static_cast<u32>(why)];
            }
        }
        tally->add(length[i]);
    }
    copies = n;
}

void Classifier::each_slice(u64 count, const auto& task) {
    const u64 wanted = std::max<u64>(1, std::min<u64>(options_.workers, count / SLICE_FRAMES));
    const u64 size = (count + wanted - 1) / wanted;
    std::vector<std::thread> threads;
    const auto guarded = [&](u64 s) {
        try {
            task(*workers_[s], s, s * size, std::min(count, (s + 1) * size));
        } catch (...) {
            workers_[s]->error = std::current_exception();
        }
    };
    for (u64 s = 1; s < wanted; ++s) threads.emplace_back(guarded, s);
    guarded(0);
    for (auto& thread : threads) thread.join();
    for (auto& worker : workers_) {
        if (worker->error) {
            const std::exception_ptr error = worker->error;
            for (auto& w : workers_) {
                w->error = nullptr;
                w->serial.clear();
            }
            std::rethrow_exception(error);
        }
    }
}

void Classifier::process(const Frames& frames, Verdicts& out) {
    const u64 n = frames.count;
    if (n >= 0xFFFFFFFFull) throw std::invalid_argument("a batch holds fewer than 2^32 - 1 frames");
    out.rule.ensure(n);
    out.hash.ensure(n);
    out.fate.ensure(n);
    out.copy_frame.ensure(n * most_copies_);
    out.copy_server.ensure(n * most_copies_);
    out.held.clear();
    out.count = n;
    each_slice(n,
               [&](Worker& worker, u64, u64 low, u64 high) { judge_slice(worker, frames, low, high, out); });
    if (options_.mode == HashMode::flow) judge_fragments(frames, out);
    std::vector<u64> copies(options_.workers, 0), starts(options_.workers, 0);
    each_slice(n, [&](Worker& worker, u64 s, u64 low, u64 high) {
        starts[s] = low * most_copies_;
        choose_slice(worker, frames.length, low, high, out, copies[s]);
    });
    u64 total = copies[0];
    for (u32 s = 1; s < options_.workers; ++s) {
        std::memmove(out.copy_frame.data.get() + total, out.copy_frame.data.get() + starts[s], copies[s] * 4);
        std::memmove(out.copy_server.data.get() + total, out.copy_server.data.get() + starts[s],
                     copies[s] * 2);
        total += copies[s];
    }
    out.copies = total;
}

void Classifier::take_released(Released& out) {
    const u64 n = table_.released.size();
    Verdicts& v = out.verdicts;
    v.rule.ensure(n);
    v.hash.ensure(n);
    v.fate.ensure(n);
    v.copy_frame.ensure(n * most_copies_);
    v.copy_server.ensure(n * most_copies_);
    v.held.clear();
    v.count = n;
    u64 i = 0;
    for (const HeldFrame& held : table_.released) {
        out.offset.push_back(out.data.size());
        out.data.insert(out.data.end(), held.bytes.begin(), held.bytes.end());
        out.caplen.push_back(static_cast<u32>(held.bytes.size()));
        out.length.push_back(held.length);
        out.timestamp_ns.push_back(held.timestamp_ns);
        out.port.push_back(held.port);
        out.flags.push_back(held.flags);
        out.frame.push_back(held.frame);
        v.rule.data[i] = match_rules(rules_.view, held.key);
        v.hash.data[i] = flow_hash(key_, held.key, options_.mode);
        v.fate.data[i] = static_cast<u8>(Fate::forwarded);
        ++i;
    }
    table_.released.clear();
    choose_slice(*workers_[0], out.length.data(), 0, n, v, v.copies);
}

Counts Classifier::counts() const {
    Counts out;
    for (const auto& worker : workers_) {
        const Counts& c = worker->counts;
        for (u32 f = 0; f < FATES; ++f) {
            out.fate[f].packets += c.fate[f].packets;
            out.fate[f].bytes += c.fate[f].bytes;
        }
        out.copies_without_server += c.copies_without_server;
        out.icmp_followed += c.icmp_followed;
        out.cache_hits += c.cache_hits;
        out.cache_misses += c.cache_misses;
        if (out.server.size() < c.server.size()) out.server.resize(c.server.size());
        for (std::size_t s = 0; s < c.server.size(); ++s) {
            out.server[s].packets += c.server[s].packets;
            out.server[s].bytes += c.server[s].bytes;
        }
    }
    return out;
}

}  // namespace twinstamp
