// SPDX-License-Identifier: Apache-2.0
// Python binding of the rules and balance stage.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <charconv>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "bindings.h"
#include "classifier.h"
#include "frame_bytes.h"

namespace twinstamp {
namespace {

template <typename T>
using View = nb::ndarray<nb::memview, T, nb::ndim<1>>;

template <typename T>
View<T> view(T* data, u64 n, nb::handle owner) {
    static T nothing[1] = {};
    return View<T>(n == 0 ? nothing : data, {n}, owner);
}

template <typename T>
nb::capsule keep(std::shared_ptr<T> owner) {
    return nb::capsule(new std::shared_ptr<T>(std::move(owner)),
                       [](void* p) noexcept { delete static_cast<std::shared_ptr<T>*>(p); });
}

template <typename T>
std::vector<T> copied(const In<T>& in) {
    return std::vector<T>(in.data(), in.data() + in.size());
}

// Rules arrive as one packed table, 64 bytes each (see rules.py, RULE_DTYPE).
struct PackedRule {
    u64 src[2], dst[2];
    i32 protocol, vlan;
    u16 sport_low, sport_high, dport_low, dport_high;
    u16 l4_value, l4_mask;
    u8 l4_kind, family, src_bits, dst_bits;
    u8 either_direction, padding[7];
};
static_assert(sizeof(PackedRule) == 64);

std::vector<Rule> unpack(const In<u8>& packed) {
    if (packed.size() % sizeof(PackedRule) != 0) throw nb::value_error("the rule table is cut short");
    std::vector<Rule> rules(packed.size() / sizeof(PackedRule));
    for (std::size_t r = 0; r < rules.size(); ++r) {
        PackedRule in;
        std::memcpy(&in, packed.data() + r * sizeof(PackedRule), sizeof in);
        Rule& out = rules[r];
        if ((in.family != 0 && in.family != 4 && in.family != 6) || in.l4_kind > L4_ICMP ||
            in.src_bits > (in.family == 4 ? 32 : 128) || in.dst_bits > (in.family == 4 ? 32 : 128) ||
            in.protocol > 255 || in.vlan > 4095 || in.sport_low > in.sport_high ||
            in.dport_low > in.dport_high || (in.l4_value & ~in.l4_mask) != 0)
            throw nb::value_error(("rule " + std::to_string(r) + " has a field out of range").c_str());
        std::memcpy(out.src, in.src, 16);
        std::memcpy(out.dst, in.dst, 16);
        // Bits behind the prefix would shift the interval that the compiler makes of it.
        for (auto [address, bits] : {std::pair{out.src, in.src_bits}, std::pair{out.dst, in.dst_bits}}) {
            const u64 high = bits == 0 ? 0 : bits >= 64 ? ~0ull : ~0ull << (64 - bits);
            const u64 low = bits <= 64 ? 0 : bits == 128 ? ~0ull : ~0ull << (128 - bits);
            address[0] &= high;
            address[1] &= low;
        }
        out.family = in.family;
        out.src_bits = in.src_bits;
        out.dst_bits = in.dst_bits;
        out.sport_low = in.sport_low;
        out.sport_high = in.sport_high;
        out.dport_low = in.dport_low;
        out.dport_high = in.dport_high;
        out.protocol = in.protocol < 0 ? -1 : in.protocol;
        out.vlan = in.vlan < 0 ? -1 : in.vlan;
        out.l4_kind = in.l4_kind;
        out.l4_value = in.l4_value;
        out.l4_mask = in.l4_mask;
        out.either_direction = in.either_direction != 0;
    }
    return rules;
}

constexpr u32 FLOW_KEY_BYTES = sizeof(Limb) * (1 + FLOW_CHARACTERS);

struct Bound {
    std::unique_ptr<Classifier> classifier;
    // Outputs of earlier calls stay valid while Python holds a view on them.
    std::vector<std::shared_ptr<Verdicts>> pool;

    std::shared_ptr<Verdicts> outputs() {
        for (auto& out : pool)
            if (out.use_count() == 1) return out;
        auto fresh = std::make_shared<Verdicts>();
        if (pool.size() < 4) pool.push_back(fresh);
        return fresh;
    }
};

nb::tuple verdict_views(const std::shared_ptr<Verdicts>& out) {
    const nb::capsule owner = keep(out);
    return nb::make_tuple(
        view(out->rule.data.get(), out->count, owner), view(out->hash.data.get(), out->count, owner),
        view(out->fate.data.get(), out->count, owner), view(out->copy_frame.data.get(), out->copies, owner),
        view(out->copy_server.data.get(), out->copies, owner),
        view(out->held.data(), out->held.size(), owner));
}

void construct(Bound* self, In<u8> rules, u64 memory_limit, In<u8> flow_key, bool inner, bool by_ip,
               bool follow_icmp, u32 workers, u32 cache_entries, u64 fragment_entries, u64 hold_bytes,
               i64 hold_ns, i64 lifetime_ns) {
    if (flow_key.size() != FLOW_KEY_BYTES) throw nb::value_error("the flow hash key has the wrong size");
    if (workers < 1 || workers > 256) throw nb::value_error("workers must be 1 to 256");
    if (cache_entries != 0 &&
        (cache_entries < 4 || cache_entries > (1u << 24) || (cache_entries & (cache_entries - 1))))
        throw nb::value_error("cache_entries must be 0 or a power of two from 4 to 16777216");
    if (fragment_entries < 1 || lifetime_ns < 0 || hold_ns > lifetime_ns)
        throw nb::value_error(
            "the fragment table needs an entry, and a lifetime no shorter than the hold time");
    FlowHashKey key;
    for (u32 i = 0; i <= FLOW_CHARACTERS; ++i) {
        std::memcpy(&key.limbs[i].low, flow_key.data() + 16 * i, 8);
        std::memcpy(&key.limbs[i].high, flow_key.data() + 16 * i + 8, 8);
    }
    ClassifierOptions options;
    options.layer = inner ? Layer::inner : Layer::outer;
    options.mode = by_ip ? HashMode::ip : HashMode::flow;
    options.follow_icmp = follow_icmp;
    options.workers = workers;
    options.cache_entries = cache_entries;
    options.fragments = {fragment_entries, hold_bytes, hold_ns, lifetime_ns};
    const std::vector<Rule> list = unpack(rules);
    new (self) Bound();
    nb::gil_scoped_release free;
    self->classifier = std::make_unique<Classifier>(list, memory_limit, key, options);
}

Frames frames_of(const In<u8>& data, const In<u64>& offset, const In<u32>& caplen, const In<u32>& length,
                 const In<i64>& timestamp_ns, const In<u16>& port, const In<u16>& flags,
                 const In<u16>& linktypes, const std::optional<In<u8>>& keep_mask, u64 first) {
    const u64 n = caplen.size();
    if (offset.size() != n || length.size() != n || timestamp_ns.size() != n || port.size() != n ||
        flags.size() != n || (keep_mask && keep_mask->size() != n))
        throw nb::value_error("the columns of a batch differ in length");
    return {data.data(),
            data.size(),
            offset.data(),
            caplen.data(),
            length.data(),
            timestamp_ns.data(),
            port.data(),
            flags.data(),
            linktypes.data(),
            linktypes.size(),
            keep_mask ? keep_mask->data() : nullptr,
            n,
            first};
}

nb::tuple process(Bound& self, In<u8> data, In<u64> offset, In<u32> caplen, In<u32> length,
                  In<i64> timestamp_ns, In<u16> port, In<u16> flags, In<u16> linktypes,
                  std::optional<In<u8>> keep_mask, u64 first) {
    const Frames frames =
        frames_of(data, offset, caplen, length, timestamp_ns, port, flags, linktypes, keep_mask, first);
    auto out = self.outputs();
    {
        nb::gil_scoped_release free;
        self.classifier->process(frames, *out);
    }
    return verdict_views(out);
}

nb::tuple finish(Bound& self, In<u8> data, In<u64> offset, In<u32> caplen, In<u32> length,
                 In<i64> timestamp_ns, In<u16> port, In<u16> flags, In<u16> linktypes, u64 first,
                 In<u32> listed) {
    const Frames frames =
        frames_of(data, offset, caplen, length, timestamp_ns, port, flags, linktypes, std::nullopt, first);
    const FramePlaces places{
        data.size(), offset.data(), caplen.data(), port.data(), caplen.size(), linktypes.size(), ~0u};
    Listed out;
    {
        nb::gil_scoped_release free;
        for (u64 k = 0; k < listed.size(); ++k) {
            const u32 i = listed.data()[k];
            // The caller checked the batch; a list that names what is not there must not crash.
            if (i < places.count && frame_lies_outside(places, i))
                throw std::invalid_argument(classifier_refusal(places, i, first));
        }
        self.classifier->finish(frames, listed.data(), listed.size(), out);
    }
    return nb::make_tuple(to_view(std::move(out.rule)), to_view(std::move(out.hash)),
                          to_view(std::move(out.fate)), to_view(std::move(out.held)));
}

nb::tuple share(Bound& self, In<u32> caplen, In<i32> rule, In<u64> hash, In<u8> fate) {
    const u64 n = caplen.size();
    if (rule.size() != n || hash.size() != n || fate.size() != n)
        throw nb::value_error("the columns of a batch differ in length");
    auto out = self.outputs();
    {
        nb::gil_scoped_release free;
        self.classifier->share(caplen.data(), n, rule.data(), hash.data(), fate.data(), *out);
    }
    return verdict_views(out);
}

nb::tuple export_tables(const Bound& self, u64 base) {
    std::vector<u8> blob;
    RuleTables tables;
    {
        nb::gil_scoped_release free;
        tables = self.classifier->export_tables(base, blob);
    }
    return nb::make_tuple(to_view(std::move(blob)),
                          nb::bytes(reinterpret_cast<const char*>(&tables), sizeof tables));
}

// What a device needs to share frames among servers.
nb::dict export_actions(const Bound& self) {
    const Classifier& c = *self.classifier;
    nb::dict out;
    out["action_of_rule"] = to_view(std::vector<u32>(c.action_of_rule()));
    out["action_first"] = to_view(std::vector<u32>(c.action_first()));
    out["action_group"] = to_view(std::vector<u16>(c.action_group()));
    out["tables"] = to_view(std::vector<u16>(c.server_tables()));
    out["bucket_bits"] = c.bucket_bits();
    out["servers"] = c.servers();
    return out;
}

nb::bytes flow_key_bytes(const Bound& self) {
    const FlowHashKey& key = self.classifier->flow_hash_key();
    return nb::bytes(reinterpret_cast<const char*>(&key), sizeof key);
}

nb::object take_released(Bound& self) {
    if (!self.classifier->has_released()) return nb::none();
    auto out = std::make_shared<Released>();
    self.classifier->take_released(*out);
    const nb::capsule owner = keep(out);
    const u64 n = out->offset.size();
    const std::shared_ptr<Verdicts> verdicts(out, &out->verdicts);
    const nb::tuple columns =
        nb::make_tuple(view(out->data.data(), out->data.size(), owner), view(out->offset.data(), n, owner),
                       view(out->caplen.data(), n, owner), view(out->length.data(), n, owner),
                       view(out->timestamp_ns.data(), n, owner), view(out->port.data(), n, owner),
                       view(out->flags.data(), n, owner));
    return nb::make_tuple(columns, view(out->frame.data(), n, owner), verdict_views(verdicts));
}

nb::dict counts(const Bound& self) {
    const Counts c = self.classifier->counts();
    const FragmentTable& table = self.classifier->fragments();
    const FragmentCounters& f = table.counters;
    nb::dict out;
    const char* const fates[FATES] = {"skipped", "forwarded", "dropped", "no_server", "held"};
    for (u32 i = 0; i < FATES; ++i) out[fates[i]] = nb::make_tuple(c.fate[i].packets, c.fate[i].bytes);
    nb::list servers;
    for (const auto& server : c.server) servers.append(nb::make_tuple(server.packets, server.bytes));
    out["servers"] = servers;
    out["copies_without_server"] = c.copies_without_server;
    out["icmp_followed"] = c.icmp_followed;
    out["cache_hits"] = c.cache_hits;
    out["cache_misses"] = c.cache_misses;
    out["held_now"] = table.held_frames();
    out["held_now_bytes"] = table.held_bytes();
    out["datagrams_now"] = table.datagrams();
    out["fragments_first"] = f.first;
    out["fragments_followed"] = f.followed;
    out["fragments_held"] = f.held;
    out["fragments_held_followed"] = f.held_followed;
    out["fragments_held_expired"] = f.held_expired;
    out["fragments_conflicting"] = f.conflicting;
    out["fragments_over_budget"] = f.over_budget;
    out["fragments_evicted"] = f.evicted;
    out["fragments_clock_back"] = f.clock_back;
    return out;
}

nb::bytes format_rules(In<i32> rule, u64 first) {
    std::string out;
    out.reserve(rule.size() * 12);
    char line[48];
    for (std::size_t i = 0; i < rule.size(); ++i) {
        char* at = std::to_chars(line, line + 24, first + i).ptr;
        *at++ = ',';
        at = std::to_chars(at, line + 47, rule.data()[i]).ptr;
        *at++ = '\n';
        out.append(line, at);
    }
    return nb::bytes(out.data(), out.size());
}

// Which frames go to one server: a byte per frame, as writers take it.
nb::bytes server_mask(In<u32> copy_frame, In<u16> copy_server, u32 server, u64 frames) {
    std::string out(frames, '\0');
    if (copy_frame.size() != copy_server.size()) throw nb::value_error("the copy columns differ in length");
    for (std::size_t c = 0; c < copy_frame.size(); ++c) {
        if (copy_server.data()[c] != server) continue;
        if (copy_frame.data()[c] >= frames) throw nb::value_error("a copy names a frame outside its batch");
        out[copy_frame.data()[c]] = 1;
    }
    return nb::bytes(out.data(), out.size());
}

View<i32> covering(In<u8> packed) {
    auto out = std::make_shared<std::vector<i32>>();
    const std::vector<Rule> rules = unpack(packed);
    {
        nb::gil_scoped_release free;
        *out = covering_rules(rules);
    }
    return view(out->data(), out->size(), keep(out));
}

}  // namespace

void bind_rules(nb::module_& m) {
    m.attr("FLOW_KEY_BYTES") = FLOW_KEY_BYTES;
    m.attr("FATES") = FATES;
    m.attr("DEVICE_COUNTS") = DEVICE_COUNTS;
    m.attr("RULE_TABLES_BYTES") = sizeof(RuleTables);
    m.def("covering_rules", &covering, nb::arg("rules"));
    m.def("format_rules", &format_rules, nb::arg("rule"), nb::arg("first"));
    m.def("server_mask", &server_mask, nb::arg("copy_frame"), nb::arg("copy_server"), nb::arg("server"),
          nb::arg("frames"));
    nb::class_<Bound>(m, "Classifier")
        .def("__init__", &construct, nb::arg("rules"), nb::arg("memory_limit"), nb::arg("flow_key"),
             nb::arg("inner"), nb::arg("by_ip"), nb::arg("follow_icmp"), nb::arg("workers"),
             nb::arg("cache_entries"), nb::arg("fragment_entries"), nb::arg("hold_bytes"), nb::arg("hold_ns"),
             nb::arg("lifetime_ns"))
        .def("process", &process, nb::arg("data"), nb::arg("offset"), nb::arg("caplen"), nb::arg("length"),
             nb::arg("timestamp_ns"), nb::arg("port"), nb::arg("flags"), nb::arg("linktypes"),
             nb::arg("keep").none(), nb::arg("first"))
        .def("finish", &finish, nb::arg("data"), nb::arg("offset"), nb::arg("caplen"), nb::arg("length"),
             nb::arg("timestamp_ns"), nb::arg("port"), nb::arg("flags"), nb::arg("linktypes"),
             nb::arg("first"), nb::arg("listed"))
        .def("share", &share, nb::arg("caplen"), nb::arg("rule"), nb::arg("hash"), nb::arg("fate"))
        .def(
            "add_counts",
            [](Bound& self, In<u64> words) { self.classifier->add_counts(words.data(), words.size()); },
            nb::arg("words"))
        .def("export_tables", &export_tables, nb::arg("base"))
        .def("export_actions", &export_actions)
        .def("flow_key_bytes", &flow_key_bytes)
        .def_prop_ro("generation", [](const Bound& self) { return self.classifier->generation(); })
        .def_prop_ro("inner",
                     [](const Bound& self) { return self.classifier->options().layer == Layer::inner; })
        .def_prop_ro("by_ip",
                     [](const Bound& self) { return self.classifier->options().mode == HashMode::ip; })
        .def_prop_ro("follow_icmp", [](const Bound& self) { return self.classifier->options().follow_icmp; })
        .def("take_released", &take_released)
        .def(
            "release_due", [](Bound& self, i64 now_ns) { self.classifier->release_due(now_ns); },
            nb::arg("now_ns"))
        .def("flush", [](Bound& self) { self.classifier->flush(); })
        .def("oldest_held", [](const Bound& self) { return self.classifier->fragments().oldest_held(); })
        .def("held_now", [](const Bound& self) { return self.classifier->fragments().held_frames(); })
        .def(
            "set_actions",
            [](Bound& self, In<u32> of_rule, In<u32> first, In<u16> group) {
                self.classifier->set_actions(copied(of_rule), copied(first), copied(group));
            },
            nb::arg("action_of_rule"), nb::arg("action_first"), nb::arg("action_group"))
        .def(
            "set_servers",
            [](Bound& self, In<u16> tables, u32 bits, u32 servers) {
                self.classifier->set_servers(copied(tables), bits, servers);
            },
            nb::arg("tables"), nb::arg("bucket_bits"), nb::arg("servers"))
        .def("counts", &counts)
        .def_prop_ro("rules", [](const Bound& self) { return self.classifier->rule_count(); })
        .def_prop_ro("table_bytes", [](const Bound& self) { return self.classifier->rules().bytes; });
}

}  // namespace twinstamp
