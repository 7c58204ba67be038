// SPDX-License-Identifier: Apache-2.0
// Builds the server tables of all groups.
#include "twinstamp/balance.h"

#include <nanobind/stl/optional.h>

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "bindings.h"

namespace twinstamp {
namespace {

// log2(1 + i / 2^13) with LOG2_BITS fraction bits, bit by bit: squaring doubles a logarithm. Integers
// only, so that every machine builds the same tables.
std::array<u64, LOG2_TABLE> make_log2_table() {
    std::array<u64, LOG2_TABLE> table{};
    for (u32 i = 0; i + 1 < LOG2_TABLE; ++i) {
        u64 x = (1ull << 63) + (static_cast<u64>(i) << (63 - LOG2_TABLE_BITS));  // 1.63 fixed point
        u64 log = 0;
        for (u32 bit = 0; bit < LOG2_BITS; ++bit) {
            const u64 square = multiply_high(x, x);  // 2.62
            log <<= 1;
            if (square >> 63) {
                log |= 1;
                x = square;
            } else {
                x = square << 1;
            }
        }
        table[i] = log;
    }
    table[LOG2_TABLE - 1] = 1ull << LOG2_BITS;
    return table;
}

const std::array<u64, LOG2_TABLE>& log2_table() {
    static const auto table = make_log2_table();
    return table;
}

// before, changed: the tables as they are, and which servers' states are others now: where the best one of a
// bucket is still there, only those that came back are held against it.
nb::ndarray<nb::memview, u16, nb::ndim<1>> build_tables(u64 key, In<u64> server_id, In<u8> alive,
                                                        In<u32> group_first, In<u16> member_server,
                                                        In<u32> member_weight, u32 bucket_bits,
                                                        std::optional<In<u16>> before,
                                                        std::optional<In<u8>> changed) {
    if (bucket_bits > 20) throw nb::value_error("at most 2^20 buckets");
    if (alive.size() != server_id.size()) throw nb::value_error("servers and their states differ in number");
    if (member_server.size() != member_weight.size())
        throw nb::value_error("members and weights differ in number");
    if (group_first.size() < 1 || group_first.data()[group_first.size() - 1] != member_server.size())
        throw nb::value_error("groups do not fit their members");
    std::vector<u64> id;
    for (std::size_t m = 0; m < member_server.size(); ++m) {
        if (member_server.data()[m] >= server_id.size())
            throw nb::value_error("a group names an unknown server");
        if (member_weight.data()[m] > MAX_WEIGHT) throw nb::value_error("a weight is above 65535");
        id.push_back(server_id.data()[member_server.data()[m]]);
    }
    const std::size_t groups = group_first.size() - 1;
    for (std::size_t g = 0; g < groups; ++g)
        if (group_first.data()[g] > group_first.data()[g + 1])
            throw nb::value_error("groups are out of order");
    const u32 buckets = 1u << bucket_bits;
    if (before.has_value() != changed.has_value() ||
        (before && (before->size() != groups * buckets || changed->size() != server_id.size())))
        throw nb::value_error("the tables of before are not those of these groups");
    auto out = std::make_unique<u16[]>(groups * buckets + 1);
    {
        nb::gil_scoped_release free;
        const u64* table = log2_table().data();
        for (std::size_t g = 0; g < groups; ++g) {
            const u32 first = group_first.data()[g], count = group_first.data()[g + 1] - first;
            const u16* server = member_server.data() + first;
            const u64* ids = id.data() + first;
            const u32* weight = member_weight.data() + first;
            const auto whole = [&](u32 b) {
                return choose_server(table, key, b, server, ids, weight, count, alive.data());
            };
            u16* to = out.get() + g * buckets;
            if (!before) {
                for (u32 b = 0; b < buckets; ++b) to[b] = whole(b);
                continue;
            }
            // Place 0 is the best one of before.
            std::vector<u16> some_server(1);
            std::vector<u64> some_id(1);
            std::vector<u32> some_weight(1), place(server_id.size());
            for (u32 i = 0; i < count; ++i) {
                place[server[i]] = i;
                if (!changed->data()[server[i]] || !alive.data()[server[i]]) continue;
                some_server.push_back(server[i]);
                some_id.push_back(ids[i]);
                some_weight.push_back(weight[i]);
            }
            const u16* from = before->data() + g * buckets;
            for (u32 b = 0; b < buckets; ++b) {
                const u16 best = from[b];
                if (best == NO_SERVER || best >= server_id.size() || changed->data()[best]) {
                    to[b] = whole(b);
                } else if (some_server.size() == 1) {
                    to[b] = best;
                } else {
                    some_server[0] = best;
                    some_id[0] = ids[place[best]];
                    some_weight[0] = weight[place[best]];
                    to[b] =
                        choose_server(table, key, b, some_server.data(), some_id.data(), some_weight.data(),
                                      static_cast<u32>(some_server.size()), alive.data());
                }
            }
        }
    }
    u16* data = out.release();
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<u16*>(p); });
    return {data, {groups * buckets}, owner};
}

}  // namespace

void bind_balance(nb::module_& m) {
    m.def("build_tables", &build_tables, nb::arg("key"), nb::arg("server_id"), nb::arg("alive"),
          nb::arg("group_first"), nb::arg("member_server"), nb::arg("member_weight"), nb::arg("bucket_bits"),
          nb::arg("before").none() = nb::none(), nb::arg("changed").none() = nb::none());
    m.def("negative_log2", [](u64 h) { return negative_log2(log2_table().data(), h); }, nb::arg("h"));
    m.attr("LOG2_BITS") = LOG2_BITS;
    m.attr("NO_SERVER") = static_cast<u32>(NO_SERVER);
}

}  // namespace twinstamp
