// SPDX-License-Identifier: Apache-2.0
#include "rule_compiler.h"

#include <algorithm>
#include <map>
#include <random>
#include <stdexcept>
#include <unordered_map>

namespace twinstamp {
namespace {

using u128 = unsigned __int128;

constexpr u32 MAX_L4_MASKS = 1024;
constexpr u32 MAX_L4_CLASSES = 4096;

struct Entry {
    u32 rule;
    bool reversed;
};

struct Range {
    u128 low, end;  // end: one past the last; 0 stands for 2^128
    u32 entry;
};

u128 wide(const u64 address[2]) {
    return (static_cast<u128>(address[0]) << 64) | address[1];
}

// A bitmap under construction. Its name is the exclusive-or of two random words per set bit, so that
// equal bitmaps are found without comparing them.
struct Bitmap {
    std::vector<u64> word;
    u64 name[2] = {0, 0};
};

class BitmapStore {
  public:
    BitmapStore(u32 entries, u64 memory_limit, u64 used, std::vector<u64>& out)
        : entries_(entries), limit_(memory_limit), used_(used), out_(out) {
        words = (entries + 63) / 64;
        aggregates = (words + 63) / 64;
        stride = (aggregates + words + 7) / 8 * 8;
        std::random_device device;
        std::mt19937_64 random((static_cast<u64>(device()) << 32) | device());
        names_.resize(2 * static_cast<std::size_t>(entries));
        for (auto& name : names_) name = random();
    }

    Bitmap empty() const { return {std::vector<u64>(words, 0), {0, 0}}; }

    void flip(Bitmap& map, u32 entry) const {
        map.word[entry / 64] ^= 1ull << (entry % 64);
        map.name[0] ^= names_[2 * static_cast<std::size_t>(entry)];
        map.name[1] ^= names_[2 * static_cast<std::size_t>(entry) + 1];
    }

    u32 store(const Bitmap& map) {
        const auto [at, fresh] = seen_.try_emplace({map.name[0], map.name[1]}, count_);
        if (!fresh) return at->second;
        const u64 bytes = (static_cast<u64>(count_) + 1) * stride * 8;
        if (used_ + bytes > limit_)
            throw std::length_error("the compiled rules need more than " + std::to_string(limit_) + " bytes");
        out_.resize(out_.size() + stride, 0);
        u64* at_word = out_.data() + static_cast<u64>(count_) * stride;
        for (u32 w = 0; w < words; ++w) {
            at_word[aggregates + w] = map.word[w];
            if (map.word[w] != 0) at_word[w / 64] |= 1ull << (w % 64);
        }
        return count_++;
    }

    u32 words, aggregates, stride;

  private:
    u32 entries_;
    u64 limit_, used_;
    std::vector<u64>& out_;
    std::vector<u64> names_;
    std::map<std::pair<u64, u64>, u32> seen_;
    u32 count_ = 0;
};

// Walks the values of one field upwards; calls emit(first value, bitmap number) for each stretch in
// which the same rules accept. `base` has the rules that accept every value.
template <typename Emit>
void sweep(BitmapStore& store, Bitmap map, const std::vector<Range>& ranges, Emit emit) {
    struct Event {
        u128 at;
        u32 entry;
    };
    std::vector<Event> events;
    events.reserve(2 * ranges.size());
    for (const auto& range : ranges) {
        events.push_back({range.low, range.entry});
        if (range.end != 0) events.push_back({range.end, range.entry});
    }
    std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) { return a.at < b.at; });
    if (events.empty() || events.front().at != 0) emit(u128{0}, store.store(map));
    for (std::size_t i = 0; i < events.size();) {
        const u128 at = events[i].at;
        // Each entry has one range, so flipping adds it at its start and removes it at its end.
        for (; i < events.size() && events[i].at == at; ++i) store.flip(map, events[i].entry);
        emit(at, store.store(map));
    }
}

void build_addresses(BitmapStore& store, const Bitmap& base, const std::vector<Range>& ranges, bool wide_low,
                     CompiledSubset::Addresses& out, AddressTable& view) {
    if (ranges.empty()) return;
    sweep(store, base, ranges, [&](u128 at, u32 bitmap) {
        if (!out.bitmap.empty() && out.bitmap.back() == bitmap) return;
        out.high.push_back(static_cast<u64>(at >> 64));
        out.low.push_back(static_cast<u64>(at));
        out.bitmap.push_back(bitmap);
    });
    out.top.resize(65537);
    u32 interval = 0;
    const u32 last = static_cast<u32>(out.high.size()) - 1;
    for (u32 top = 0; top < 65536; ++top) {
        const u64 first = static_cast<u64>(top) << 48;
        while (interval < last && (out.high[interval + 1] < first ||
                                   (out.high[interval + 1] == first && out.low[interval + 1] == 0)))
            ++interval;
        out.top[top] = interval;
    }
    out.top[65536] = last;
    view = {out.top.data(), out.high.data(), wide_low ? out.low.data() : nullptr, out.bitmap.data()};
}

// A field of at most 65,536 values; one more slot holds what matches where the value is not there.
const u32* build_table(BitmapStore& store, const Bitmap& base, const std::vector<Range>& ranges, u32 values,
                       bool absent, std::vector<u32>& out) {
    if (ranges.empty()) return nullptr;
    out.resize(values + (absent ? 1 : 0));
    u32 filled = 0, current = 0;
    sweep(store, base, ranges, [&](u128 at, u32 bitmap) {
        const u32 to = at < values ? static_cast<u32>(at) : values;
        while (filled < to) out[filled++] = current;
        current = bitmap;
    });
    while (filled < values) out[filled++] = current;
    if (absent) out[values] = store.store(base);
    return out.data();
}

struct L4Class {
    u8 kind;
    u16 word;
};

// Splits the 65,536 words of one kind into classes that no rule of the list tells apart.
std::vector<u16> split_words(const std::vector<Rule>& rules, u8 kind, std::vector<L4Class>& classes) {
    std::map<u16, std::vector<u16>> values_by_mask;
    for (const auto& rule : rules)
        if (rule.l4_kind == kind && rule.l4_mask != 0) values_by_mask[rule.l4_mask].push_back(rule.l4_value);
    if (values_by_mask.size() > MAX_L4_MASKS)
        throw std::length_error("the rules use more than " + std::to_string(MAX_L4_MASKS) +
                                " different flag masks");
    std::vector<u32> word_class(65536, 0);
    std::vector<u32> value_number(65536);
    u32 count = 1;
    for (auto& [mask, values] : values_by_mask) {
        std::sort(values.begin(), values.end());
        values.erase(std::unique(values.begin(), values.end()), values.end());
        std::fill(value_number.begin(), value_number.end(), 0);
        u32 number = 0;
        for (const u16 value : values) value_number[value] = ++number;
        std::unordered_map<u64, u32> split;
        for (u32 word = 0; word < 65536; ++word) {
            const u64 name = (static_cast<u64>(word_class[word]) << 32) | value_number[word & mask];
            word_class[word] = split.try_emplace(name, static_cast<u32>(split.size())).first->second;
        }
        count = static_cast<u32>(split.size());
        if (classes.size() + count > MAX_L4_CLASSES)
            throw std::length_error("the rules split TCP flags or ICMP types into more than " +
                                    std::to_string(MAX_L4_CLASSES) + " classes");
    }
    const u32 first = static_cast<u32>(classes.size());
    classes.resize(first + count);
    std::vector<u16> out(65536);
    for (u32 word = 0; word < 65536; ++word) {
        const u32 number = first + word_class[word];
        out[word] = static_cast<u16>(number);
        classes[number] = {kind, static_cast<u16>(word)};
    }
    return out;
}

bool full_range(u16 low, u16 high) {
    return low == 0 && high == 65535;
}

bool needs_ip(const Rule& rule) {
    return rule.family != 0 || rule.protocol >= 0 || rule.l4_kind != L4_NONE ||
           !full_range(rule.sport_low, rule.sport_high) || !full_range(rule.dport_low, rule.dport_high);
}

void compile_subset(const std::vector<Rule>& rules, u8 family, const std::vector<L4Class>& classes, u64 limit,
                    u64 used, CompiledSubset& out) {
    std::vector<Entry> entries;
    for (u32 r = 0; r < rules.size(); ++r) {
        const Rule& rule = rules[r];
        if (family == 0 ? needs_ip(rule) : rule.family != 0 && rule.family != family) continue;
        entries.push_back({r, false});
        if (rule.either_direction) entries.push_back({r, true});
    }
    out.view.entries = static_cast<u32>(entries.size());
    if (entries.empty()) return;
    BitmapStore store(out.view.entries, limit, used, out.bitmaps);
    out.view.words = store.words;
    out.view.aggregates = store.aggregates;
    out.view.stride = store.stride;
    for (const auto& entry : entries) out.rule.push_back(static_cast<i32>(entry.rule));
    out.view.rule = out.rule.data();

    Bitmap none = store.empty();
    Bitmap src_base = none, dst_base = none, sport_base = none, dport_base = none, protocol_base = none,
           vlan_base = none, l4_base = none;
    std::vector<Range> src, dst, sport, dport, protocol, vlan;
    bool l4_used = false;
    for (u32 e = 0; e < entries.size(); ++e) {
        const Rule& rule = rules[entries[e].rule];
        const bool reversed = entries[e].reversed;
        const auto prefix = [&](const u64* address, u8 bits, Bitmap& base, std::vector<Range>& ranges) {
            // 0.0.0.0/0 is every address of its family, and the subset has no other.
            if (bits == 0) {
                store.flip(base, e);
            } else {
                const u128 low = wide(address);
                ranges.push_back({low, low + (u128{1} << (128 - bits)), e});
            }
        };
        prefix(reversed ? rule.dst : rule.src, reversed ? rule.dst_bits : rule.src_bits, src_base, src);
        prefix(reversed ? rule.src : rule.dst, reversed ? rule.src_bits : rule.dst_bits, dst_base, dst);
        const auto ports = [&](u16 low, u16 high, Bitmap& base, std::vector<Range>& ranges) {
            if (full_range(low, high))
                store.flip(base, e);
            else
                ranges.push_back({low, u128{high} + 1, e});
        };
        ports(reversed ? rule.dport_low : rule.sport_low, reversed ? rule.dport_high : rule.sport_high,
              sport_base, sport);
        ports(reversed ? rule.sport_low : rule.dport_low, reversed ? rule.sport_high : rule.dport_high,
              dport_base, dport);
        if (rule.protocol < 0)
            store.flip(protocol_base, e);
        else
            protocol.push_back({static_cast<u128>(rule.protocol), static_cast<u128>(rule.protocol) + 1, e});
        if (rule.vlan < 0)
            store.flip(vlan_base, e);
        else
            vlan.push_back({static_cast<u128>(rule.vlan), static_cast<u128>(rule.vlan) + 1, e});
        if (rule.l4_kind == L4_NONE)
            store.flip(l4_base, e);
        else
            l4_used = true;
    }
    build_addresses(store, src_base, src, family == 6, out.src, out.view.src);
    build_addresses(store, dst_base, dst, family == 6, out.dst, out.view.dst);
    out.view.sport = build_table(store, sport_base, sport, 65536, true, out.sport);
    out.view.dport = build_table(store, dport_base, dport, 65536, true, out.dport);
    out.view.protocol = build_table(store, protocol_base, protocol, 256, false, out.protocol);
    out.view.vlan = build_table(store, vlan_base, vlan, VLAN_UNTAGGED, true, out.vlan);
    if (l4_used) {
        out.l4.resize(classes.size());
        for (u32 c = 0; c < classes.size(); ++c) {
            Bitmap map = l4_base;
            for (u32 e = 0; e < entries.size(); ++e) {
                const Rule& rule = rules[entries[e].rule];
                if (rule.l4_kind != L4_NONE && rule.l4_kind == classes[c].kind &&
                    (classes[c].word & rule.l4_mask) == rule.l4_value)
                    store.flip(map, e);
            }
            out.l4[c] = store.store(map);
        }
        out.view.l4 = out.l4.data();
    }
    out.view.bitmaps = out.bitmaps.data();
}

bool covers_prefix(const u64* a, u8 a_bits, const u64* b, u8 b_bits) {
    if (a_bits > b_bits) return false;
    if (a_bits == 0) return true;
    return ((wide(a) ^ wide(b)) >> (128 - a_bits)) == 0;
}

// Everything that `b`, read forwards, accepts is accepted by `a`, read in one direction.
bool covers_one_way(const Rule& a, bool a_reversed, const Rule& b) {
    const u64* a_src = a_reversed ? a.dst : a.src;
    const u64* a_dst = a_reversed ? a.src : a.dst;
    if (!covers_prefix(a_src, a_reversed ? a.dst_bits : a.src_bits, b.src, b.src_bits)) return false;
    if (!covers_prefix(a_dst, a_reversed ? a.src_bits : a.dst_bits, b.dst, b.dst_bits)) return false;
    if ((a_reversed ? a.dport_low : a.sport_low) > b.sport_low) return false;
    if ((a_reversed ? a.dport_high : a.sport_high) < b.sport_high) return false;
    if ((a_reversed ? a.sport_low : a.dport_low) > b.dport_low) return false;
    if ((a_reversed ? a.sport_high : a.dport_high) < b.dport_high) return false;
    return true;
}

bool covers(const Rule& a, const Rule& b) {
    if (a.family != 0 && a.family != b.family) return false;
    if (a.protocol >= 0 && a.protocol != b.protocol) {
        // A flags or ICMP condition implies its protocol; only for TCP is that one number.
        if (!(a.protocol == IP_TCP && b.l4_kind == L4_TCP)) return false;
    }
    if (a.vlan >= 0 && a.vlan != b.vlan) return false;
    if (needs_ip(a) && !needs_ip(b)) return false;
    if (a.l4_kind != L4_NONE) {
        if (a.l4_kind != b.l4_kind || (a.l4_mask & ~b.l4_mask) != 0) return false;
        if ((b.l4_value & a.l4_mask) != a.l4_value) return false;
    }
    const auto accepted = [&](const Rule& one) {
        return covers_one_way(a, false, one) || (a.either_direction && covers_one_way(a, true, one));
    };
    if (!accepted(b)) return false;
    if (!b.either_direction) return true;
    Rule back = b;
    std::swap(back.src[0], back.dst[0]);
    std::swap(back.src[1], back.dst[1]);
    std::swap(back.src_bits, back.dst_bits);
    std::swap(back.sport_low, back.dport_low);
    std::swap(back.sport_high, back.dport_high);
    return accepted(back);
}

template <typename T>
u64 bytes_of(const std::vector<T>& v) {
    return v.size() * sizeof(T);
}

}  // namespace

void compile_rules(const std::vector<Rule>& rules, u64 memory_limit, CompiledRules& out) {
    std::vector<L4Class> classes{{L4_NONE, 0}};
    for (const auto& rule : rules) {
        out.uses_vlan |= rule.vlan >= 0;
        out.uses_l4 |= rule.l4_kind != L4_NONE;
    }
    if (out.uses_l4) {
        out.tcp_class = split_words(rules, L4_TCP, classes);
        out.icmp_class = split_words(rules, L4_ICMP, classes);
        out.view.tcp_class = out.tcp_class.data();
        out.view.icmp_class = out.icmp_class.data();
    }
    const u8 families[3] = {4, 6, 0};
    for (u32 s = 0; s < 3; ++s) {
        CompiledSubset& set = out.subsets[s];
        compile_subset(rules, families[s], classes, memory_limit, out.bytes, set);
        out.bytes += bytes_of(set.bitmaps) + bytes_of(set.rule) + bytes_of(set.sport) + bytes_of(set.dport) +
                     bytes_of(set.protocol) + bytes_of(set.vlan) + bytes_of(set.l4);
        for (const auto* table : {&set.src, &set.dst})
            out.bytes +=
                bytes_of(table->top) + bytes_of(table->bitmap) + bytes_of(table->high) + bytes_of(table->low);
        out.view.subsets[s] = set.view;
    }
    out.bytes += bytes_of(out.tcp_class) + bytes_of(out.icmp_class);
}

std::vector<i32> covering_rules(const std::vector<Rule>& rules) {
    std::vector<i32> out(rules.size(), -1);
    for (std::size_t later = 0; later < rules.size(); ++later) {
        for (std::size_t earlier = 0; earlier < later; ++earlier) {
            if (covers(rules[earlier], rules[later])) {
                out[later] = static_cast<i32>(earlier);
                break;
            }
        }
    }
    return out;
}

}  // namespace twinstamp
