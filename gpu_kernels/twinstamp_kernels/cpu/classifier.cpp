// SPDX-License-Identifier: Apache-2.0
#include "classifier.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>

#include "frame_bytes.h"

namespace twinstamp {
namespace {

constexpr u32 BLOCK = 32;          // frames between a prefetch and its use
constexpr u32 AHEAD = 12;          // frames whose bytes are asked for before they are read
constexpr u64 CHUNK = 4096;        // frames judged, then shared among servers while still in the cache
constexpr u64 SLICE_FRAMES = 256;  // fewer are not worth waking a thread

// Fields of one flow that rules tell apart, and its verdict. The key is compared whole: a hit is exact.
struct Slot4 {
    u64 addresses;
    u64 fields;  // ports, VLAN, class of flags
    u64 hash;
    u32 tail;  // protocol, ports known; bit 31: used
    i32 rule;
};
struct alignas(64) Set4 {
    Slot4 way[2];  // the newer one first
};
struct alignas(64) Slot6 {
    u64 address[4];
    u64 fields;
    u64 hash;
    u32 tail;
    i32 rule;
};
constexpr u32 USED = 0x80000000u;

u64 load_be64(const u8* p) {
    u64 x;
    std::memcpy(&x, p, 8);
    return __builtin_bswap64(x);
}

// The IPv4 fields that most frames have, read without the general parser.
struct Plain {
    u64 addresses;
    u32 ports;
    u16 l4;
    L4Kind l4_kind;
    u8 protocol;
};

// Ethernet, IPv4 without options, not a fragment, TCP or UDP with its whole fixed header, no tunnel:
// what flow_key() would find, in a fifth of the time. False: ask the parser.
bool read_plain(const u8* frame, u32 caplen, Layer layer, Plain& out) {
    if (caplen < 48 || read_be16(frame + 12) != ETHER_IPV4 || frame[14] != 0x45 ||
        (read_be16(frame + 20) & 0x3FFF) != 0)
        return false;
    const u32 total = read_be16(frame + 16);
    const u32 left = total < caplen - 14 ? total : caplen - 14;  // of layer 3; 0, left to hardware: parser
    out.protocol = frame[23];
    out.addresses = load_be64(frame + 26);
    out.ports = read_be32(frame + 34);
    // TCP and UDP alternate at random in real traffic: a branch on them would be guessed wrong.
    const bool tcp = out.protocol == IP_TCP;
    out.l4_kind = tcp ? L4_TCP : L4_NONE;
    out.l4 = static_cast<u16>(tcp ? (frame[47] << 8) | (frame[46] & 0x0F) : 0);
    const u32 port = out.ports & 0xFFFF;
    const bool tunnel = detail::is_tunnel_port(port);
    return (left >= 34) & (tcp | ((out.protocol == IP_UDP) & !((layer == Layer::inner) & tunnel)));
}

void plain_key(const Plain& plain, FlowKey& key) {
    key.src[0] = plain.addresses & 0xFFFFFFFF00000000ull;
    key.dst[0] = plain.addresses << 32;
    key.src[1] = key.dst[1] = 0;
    key.sport = static_cast<u16>(plain.ports >> 16);
    key.dport = static_cast<u16>(plain.ports);
    key.l4 = plain.l4;
    key.vlan = NO_VLAN;
    key.ethertype = ETHER_IPV4;
    key.family = 4;
    key.protocol = plain.protocol;
    key.l4_kind = plain.l4_kind;
    key.ports_known = 1;
    key.fragment = Fragment::none;
}

void prefetch(const void* p) {
    __builtin_prefetch(p);
}

}  // namespace

struct Classifier::Worker {
    std::vector<Set4> cache4;
    std::vector<Slot6> cache6;
    std::vector<u32> serial;  // frames that need the fragment table
    Counts counts;
    u64 chosen = 0;  // frames of this slice before this one have their servers
    u64 copies = 0;  // and this many copies
    // One block at work.
    FlowKey keys[BLOCK];
    Plain plain[BLOCK];
    u64 addresses[BLOCK], fields[BLOCK];
    u32 tail[BLOCK], slot[BLOCK], index[BLOCK], miss[BLOCK];
    bool is_plain[BLOCK], is_ipv4[BLOCK];
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
        workers_.back()->cache4.resize(options.cache_entries / 2);
        workers_.back()->cache6.resize(options.cache_entries / 4);
    }
    pool_ = std::make_unique<Workers>(options.workers);
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
    ++generation_;
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
    ++generation_;
    for (auto& worker : workers_)
        if (worker->counts.server.size() < servers) worker->counts.server.resize(servers);
}

namespace {

[[noreturn, gnu::cold, gnu::noinline]] void refuse_frame(const Frames& frames, u64 i) {
    throw std::invalid_argument(classifier_refusal(
        {frames.data_bytes, frames.offset, frames.caplen, frames.port, frames.count, frames.ports, ~0u}, i,
        frames.first));
}

}  // namespace

// Verdict of a frame that the cache does not serve. False: the fragment table must be asked first.
bool Classifier::judge_plain(Worker& worker, const u8* frame, const Layers& layers, const FlowKey& key,
                             Judged& out, const FragmentTable* table) const {
    const auto peek = [&](const Layers& inner, FlowKey& quoted) {
        if (table == nullptr) return false;
        FragmentSpan unused;
        table->peek(fragment_key(frame, inner, quoted, unused), quoted);
        return true;
    };
    if (!judge(rules_.view, key_, judge_options(), frame, layers, key, out, peek)) return false;
    worker.counts.icmp_followed += out.followed;
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

void Classifier::judge_slice(Worker& worker, const Frames& batch, u64 low, u64 high, Verdicts& out) const {
    // A copy of its own: no write through a byte pointer can change it, so it stays in registers.
    const Frames frames = batch;
    i32* rule = out.rule.data.get();
    u64* hash = out.hash.data.get();
    u8* fate = out.fate.data.get();
    const bool use_table = options_.mode == HashMode::flow;
    const u32 mask4 = options_.cache_entries / 2 - 1, mask6 = options_.cache_entries / 4 - 1;
    const u16* tcp_classes = rules_.view.tcp_class;
    const Layer layer = options_.layer;
    const bool cached = options_.cache_entries != 0;
    const u64 vlan_mask = rules_.uses_vlan ? 0xFFFF0000ull : 0;
    Layers layers;
    for (u64 block = low; block < high; block += BLOCK) {
        const u64 end = std::min<u64>(block + BLOCK, high);
        u32 used = 0;
        const auto look_ahead4 = [&](u64 addresses, u64 fields, u32 protocol, u64 i) {
            const u64 mixed = (addresses * cache_multiplier_[0]) ^
                              ((fields ^ (static_cast<u64>(protocol) << 16)) * cache_multiplier_[1]);
            worker.addresses[used] = addresses;
            worker.fields[used] = fields;
            worker.slot[used] = static_cast<u32>((mixed * cache_multiplier_[2]) >> 40) & mask4;
            prefetch(&worker.cache4[worker.slot[used]]);
            worker.is_ipv4[used] = true;
            worker.index[used++] = static_cast<u32>(i);
        };
        for (u64 i = block; i < end; ++i) {
            if (i + AHEAD < high) prefetch(frames.data + frames.offset[i + AHEAD]);
            const u64 offset = frames.offset[i];
            const u32 caplen = frames.caplen[i];
            const u16 port = frames.port[i];
            if (offset > frames.data_bytes || caplen > frames.data_bytes - offset || port >= frames.ports)
                [[unlikely]]
                refuse_frame(batch, i);
            if (frames.keep != nullptr && frames.keep[i] == 0) {
                rule[i] = NO_RULE;
                hash[i] = 0;
                fate[i] = static_cast<u8>(Fate::skipped);
                continue;
            }
            fate[i] = static_cast<u8>(Fate::forwarded);
            const u8* frame = frames.data + offset;
            const u16 linktype = frames.linktypes[port];
            Plain& plain = worker.plain[used];
            if (cached && linktype == LINK_ETHERNET && read_plain(frame, caplen, layer, plain)) {
                worker.is_plain[used] = true;
                worker.tail[used] = USED | (1u << 8) | plain.protocol;
                const u32 tcp_class = tcp_classes != nullptr ? tcp_classes[plain.l4] : 0u;
                const u32 l4 = plain.l4_kind == L4_TCP ? tcp_class : 0u;
                look_ahead4(plain.addresses,
                            (static_cast<u64>(plain.ports) << 32) |
                                (static_cast<u64>(NO_VLAN) << 16 & vlan_mask) | l4,
                            plain.protocol, i);
                continue;
            }
            FlowKey& key = worker.keys[used];
            parse_frame(frame, caplen, linktype, layer, layers);
            flow_key(frame, caplen, layers, key);
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
            worker.is_plain[used] = false;
            worker.tail[used] = USED | (static_cast<u32>(key.ports_known) << 8) | key.protocol;
            const u64 fields = (static_cast<u64>(key.sport) << 48) | (static_cast<u64>(key.dport) << 32) |
                               (static_cast<u64>(key.vlan) << 16 & vlan_mask) | l4_class(rules_.view, key);
            if (key.family == 4) {
                look_ahead4(key.src[0] | (key.dst[0] >> 32), fields, key.protocol, i);
                continue;
            }
            const u64 mixed = mix64(mix64(mix64(mix64(key.src[0] * cache_multiplier_[0] ^ key.src[1]) ^
                                                key.dst[0] * cache_multiplier_[1]) ^
                                          key.dst[1]) ^
                                    (fields * cache_multiplier_[2] + key.protocol));
            worker.fields[used] = fields;
            worker.slot[used] = static_cast<u32>(mixed >> 40) & mask6;
            prefetch(&worker.cache6[worker.slot[used]]);
            worker.is_ipv4[used] = false;
            worker.index[used++] = static_cast<u32>(i);
        }
        u32 misses = 0;
        for (u32 k = 0; k < used; ++k) {
            const u32 i = worker.index[k];
            if (worker.is_ipv4[k]) {
                const Set4& set = worker.cache4[worker.slot[k]];
                const auto differs = [&](const Slot4& slot) {
                    return (slot.addresses ^ worker.addresses[k]) | (slot.fields ^ worker.fields[k]) |
                           (slot.tail ^ worker.tail[k]);
                };
                const u64 first = differs(set.way[0]), second = differs(set.way[1]);
                if ((first == 0) | (second == 0)) {
                    const Slot4& slot = set.way[first == 0 ? 0 : 1];
                    rule[i] = slot.rule;
                    hash[i] = slot.hash;
                    continue;
                }
                if (worker.is_plain[k]) plain_key(worker.plain[k], worker.keys[k]);
            } else {
                const FlowKey& key = worker.keys[k];
                const Slot6& slot = worker.cache6[worker.slot[k]];
                if (slot.address[0] == key.src[0] && slot.address[1] == key.src[1] &&
                    slot.address[2] == key.dst[0] && slot.address[3] == key.dst[1] &&
                    slot.fields == worker.fields[k] && slot.tail == worker.tail[k]) {
                    rule[i] = slot.rule;
                    hash[i] = slot.hash;
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
            if (worker.is_ipv4[k]) {
                Set4& set = worker.cache4[worker.slot[k]];
                set.way[1] = set.way[0];
                set.way[0] = {worker.addresses[k], worker.fields[k], worker.hash[k], worker.tail[k],
                              worker.rule[k]};
            } else {
                worker.cache6[worker.slot[k]] = {{key.src[0], key.src[1], key.dst[0], key.dst[1]},
                                                 worker.fields[k],
                                                 worker.hash[k],
                                                 worker.tail[k],
                                                 worker.rule[k]};
            }
        }
    }
}

// A fragment within a tunnel's first fragment: it is a datagram of its own, of which nothing is held.
void Classifier::follow_inside(const u8* frame, const Layers& layers, FlowKey& key) {
    FragmentSpan span;
    const FragmentKey datagram = fragment_key(frame, layers, key, span);
    if (key.fragment == Fragment::first) {
        table_.first(datagram, key, span, false);
    } else {
        table_.peek(datagram, key);
    }
}

// In stream order and alone: what a fragment learns depends on those before it. False: frame i is held.
bool Classifier::judge_listed(const Frames& frames, u64 i, Judged& out) {
    Worker& worker = *workers_[0];
    Layers layers;
    FlowKey key;
    const u8* frame = frames.data + frames.offset[i];
    const u32 caplen = frames.caplen[i];
    parse_frame(frame, caplen, frames.linktypes[frames.port[i]], options_.layer, layers);
    flow_key(frame, caplen, layers, key);
    if (key.fragment != Fragment::none) {
        FragmentSpan span;
        const FragmentKey datagram = fragment_key(frame, layers, key, span);
        if (key.fragment == Fragment::first) {
            // A tunnel's first fragment shows the headers inside: the others follow those.
            bool tunnel = false;
            if (options_.layer == Layer::inner) {
                Layers inside;
                parse_frame(frame, caplen, frames.linktypes[frames.port[i]], options_.layer, inside, nullptr,
                            true);
                tunnel = inside.kind != Network::none && inside.network != layers.network;
                if (tunnel) {
                    layers = inside;
                    flow_key(frame, caplen, layers, key);
                }
            }
            if (tunnel && key.fragment != Fragment::none) follow_inside(frame, layers, key);
            table_.first(datagram, key, span, tunnel);
        } else {
            const auto answer = table_.later(datagram, key, span, caplen, [&] {
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
                out = {NO_RULE, 0, false};
                return false;
            }
        }
    }
    judge_plain(worker, frame, layers, key, out, &table_);
    return true;
}

void Classifier::judge_fragments(const Frames& frames, Verdicts& out) {
    u64 ticked = 0;
    Judged judged;
    for (const auto& from : workers_) {
        for (const u32 i : from->serial) {
            table_.tick_range(frames.timestamp_ns + ticked, i + 1 - ticked);
            ticked = i + 1ull;
            if (!judge_listed(frames, i, judged)) {
                out.held.push_back(i);
                out.fate.data[i] = static_cast<u8>(Fate::held);
            }
            out.rule.data[i] = judged.rule;
            out.hash.data[i] = judged.hash;
        }
        from->serial.clear();
    }
    table_.tick_range(frames.timestamp_ns + ticked, frames.count - ticked);
}

void Classifier::finish(const Frames& frames, const u32* listed, u64 count, Listed& out) {
    for (u64 k = 0; k < count; ++k)
        if (listed[k] >= frames.count || (k > 0 && listed[k] <= listed[k - 1]))
            throw std::invalid_argument("the list of frames does not ascend within the batch");
    if (options_.mode != HashMode::flow) {
        if (count != 0)
            throw std::invalid_argument("no frame needs the fragment table when hashed by address");
        return;
    }
    out.rule.resize(count);
    out.hash.resize(count);
    out.fate.resize(count);
    u64 ticked = 0;
    Judged judged;
    for (u64 k = 0; k < count; ++k) {
        const u32 i = listed[k];
        table_.tick_range(frames.timestamp_ns + ticked, i + 1 - ticked);
        ticked = i + 1ull;
        const bool held = !judge_listed(frames, i, judged);
        if (held) out.held.push_back(i);
        out.rule[k] = judged.rule;
        out.hash[k] = judged.hash;
        out.fate[k] = static_cast<u8>(held ? Fate::held : Fate::forwarded);
    }
    table_.tick_range(frames.timestamp_ns + ticked, frames.count - ticked);
}

// Servers of frames low..high. Copies are written from `at_frame` and `at_server` on; says how many.
u64 Classifier::choose_servers(Counts& counts, const u32* caplen, u64 low, u64 high, Verdicts& out,
                               u32* at_frame, u16* at_server) const {
    const i32* rule = out.rule.data.get();
    const u64* hash = out.hash.data.get();
    u8* fate = out.fate.data.get();
    // In locals: writes through the byte pointer `fate` could change members, for all the compiler knows.
    const u32* action_of_rule = action_of_rule_.data();
    const u32* action_first = action_first_.data();
    const u16* action_group = action_group_.data();
    const u16* tables = tables_.empty() ? nullptr : tables_.data();
    Tally* servers = counts.server.data();
    const u32 bits = bucket_bits_;
    u64 n = 0;
    const u32 shift = 64 - bits;
    Tally forwarded;
    for (u64 i = low; i < high; ++i) {
        if (fate[i] != static_cast<u8>(Fate::forwarded)) {
            counts.fate[fate[i]].add(caplen[i]);
            continue;
        }
        const u32 action = action_of_rule[static_cast<u32>(rule[i] + 1)];
        const u32 begin = action_first[action], end = action_first[action + 1];
        const u64 before = n;
        const u64 bucket = bits == 0 ? 0 : hash[i] >> shift;
        for (u32 g = begin; g < end; ++g) {
            const u64 at = (static_cast<u64>(action_group[g]) << bits) + bucket;
            const u16 server = tables == nullptr ? NO_SERVER : tables[at];
            if (server == NO_SERVER) {
                ++counts.copies_without_server;
                continue;
            }
            at_frame[n] = static_cast<u32>(i);
            at_server[n] = server;
            servers[server].add(caplen[i]);
            ++n;
        }
        if (n == before) {
            const Fate why = begin == end ? Fate::dropped : Fate::no_server;
            fate[i] = static_cast<u8>(why);
            counts.fate[static_cast<u32>(why)].add(caplen[i]);
        } else {
            forwarded.add(caplen[i]);
        }
    }
    counts.fate[static_cast<u32>(Fate::forwarded)].packets += forwarded.packets;
    counts.fate[static_cast<u32>(Fate::forwarded)].bytes += forwarded.bytes;
    return n;
}

// Goes on from where the slice's servers are chosen. Each slice writes where its own frames' copies can
// never reach the next slice's.
void Classifier::choose_slice(Worker& worker, const u32* caplen, u64 low, u64 high, Verdicts& out) const {
    const u64 at = low * most_copies_ + worker.copies;
    worker.copies += choose_servers(worker.counts, caplen, worker.chosen, high, out,
                                    out.copy_frame.data.get() + at, out.copy_server.data.get() + at);
    worker.chosen = high;
}

void Classifier::each_slice(u64 count, const auto& task) {
    const u64 wanted = std::max<u64>(1, std::min<u64>(options_.workers, count / SLICE_FRAMES));
    const u64 size = (count + wanted - 1) / wanted;
    const auto slice = [&](u64 s) { task(*workers_[s], s * size, std::min(count, (s + 1) * size)); };
    if (wanted == 1) {
        slice(0);
    } else {
        pool_->run([&](unsigned s) {
            if (s < wanted) slice(s);
        });
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
    std::vector<Counts> before;
    for (auto& worker : workers_) {
        before.push_back(worker->counts);
        worker->copies = 0;
        worker->chosen = ~0ull;
    }
    try {
        each_slice(n, [&](Worker& worker, u64 low, u64 high) {
            worker.chosen = low;
            for (u64 at = low; at < high; at += CHUNK) {
                const u64 end = std::min(high, at + CHUNK);
                judge_slice(worker, frames, at, end, out);
                // A frame that waits for the fragment table keeps those behind it waiting: order stays.
                if (worker.serial.empty()) choose_slice(worker, frames.caplen, low, end, out);
            }
        });
    } catch (...) {
        // The batch is refused whole: nothing of it was counted.
        for (std::size_t w = 0; w < workers_.size(); ++w) {
            workers_[w]->counts = before[w];
            workers_[w]->serial.clear();
        }
        throw;
    }
    bool waiting = false;
    for (auto& worker : workers_) waiting |= !worker->serial.empty();
    if (options_.mode == HashMode::flow) judge_fragments(frames, out);
    if (waiting)
        each_slice(n, [&](Worker& worker, u64 low, u64 high) {
            choose_slice(worker, frames.caplen, low, high, out);
        });
    const u64 wanted = std::max<u64>(1, std::min<u64>(options_.workers, n / SLICE_FRAMES));
    const u64 size = (n + wanted - 1) / wanted;
    u64 total = workers_[0]->copies;
    for (u64 s = 1; s < wanted; ++s) {
        const u64 from = s * size * most_copies_, copies = workers_[s]->copies;
        std::memmove(out.copy_frame.data.get() + total, out.copy_frame.data.get() + from, copies * 4);
        std::memmove(out.copy_server.data.get() + total, out.copy_server.data.get() + from, copies * 2);
        total += copies;
    }
    out.copies = total;
}

void Classifier::share(const u32* caplen, u64 count, const i32* rule, const u64* hash, const u8* fate,
                       Verdicts& out) {
    for (u64 i = 0; i < count; ++i) {
        if (fate[i] >= FATES || rule[i] < NO_RULE || rule[i] >= static_cast<i64>(rule_count_))
            throw std::invalid_argument("a verdict of frame " + std::to_string(i) + " is out of range");
    }
    out.rule.ensure(count);
    out.hash.ensure(count);
    out.fate.ensure(count);
    out.copy_frame.ensure(count * most_copies_);
    out.copy_server.ensure(count * most_copies_);
    out.held.clear();
    out.count = count;
    std::copy(rule, rule + count, out.rule.data.get());
    std::copy(hash, hash + count, out.hash.data.get());
    std::copy(fate, fate + count, out.fate.data.get());
    for (u64 i = 0; i < count; ++i)
        if (fate[i] == static_cast<u8>(Fate::held)) out.held.push_back(static_cast<u32>(i));
    out.copies = choose_servers(workers_[0]->counts, caplen, 0, count, out, out.copy_frame.data.get(),
                                out.copy_server.data.get());
}

void Classifier::add_counts(const u64* words, u64 count) {
    Counts& counts = workers_[0]->counts;
    if (count < DEVICE_COUNTS || (count - DEVICE_COUNTS) % 2 != 0 ||
        (count - DEVICE_COUNTS) / 2 > counts.server.size())
        throw std::invalid_argument("the counts of a device do not fit the servers");
    for (u32 f = 0; f < FATES; ++f) {
        counts.fate[f].packets += words[COUNT_FATES + 2 * f];
        counts.fate[f].bytes += words[COUNT_FATES + 2 * f + 1];
    }
    counts.copies_without_server += words[COUNT_WITHOUT_SERVER];
    counts.icmp_followed += words[COUNT_ICMP_FOLLOWED];
    for (u64 s = 0; s < (count - DEVICE_COUNTS) / 2; ++s) {
        counts.server[s].packets += words[DEVICE_COUNTS + 2 * s];
        counts.server[s].bytes += words[DEVICE_COUNTS + 2 * s + 1];
    }
}

RuleTables Classifier::export_tables(u64 base, std::vector<u8>& blob) const {
    const auto place = [&]<typename T>(const std::vector<T>& values, const T*& pointer) {
        if (pointer == nullptr) return;
        const u64 at = (blob.size() + 255) / 256 * 256;
        blob.resize(at + values.size() * sizeof(T));
        std::memcpy(blob.data() + at, values.data(), values.size() * sizeof(T));
        pointer = reinterpret_cast<const T*>(base + at);
    };
    RuleTables out = rules_.view;
    for (u32 s = 0; s < 3; ++s) {
        const CompiledSubset& from = rules_.subsets[s];
        RuleSubset& set = out.subsets[s];
        place(from.bitmaps, set.bitmaps);
        place(from.rule, set.rule);
        for (auto [values, table] : {std::pair{&from.src, &set.src}, std::pair{&from.dst, &set.dst}}) {
            place(values->top, table->top);
            place(values->high, table->high);
            place(values->low, table->low);
            place(values->bitmap, table->bitmap);
        }
        place(from.sport, set.sport);
        place(from.dport, set.dport);
        place(from.protocol, set.protocol);
        place(from.vlan, set.vlan);
        place(from.l4, set.l4);
    }
    place(rules_.tcp_class, out.tcp_class);
    place(rules_.icmp_class, out.icmp_class);
    return out;
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
    v.copies = choose_servers(workers_[0]->counts, out.caplen.data(), 0, n, v, v.copy_frame.data.get(),
                              v.copy_server.data.get());
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
