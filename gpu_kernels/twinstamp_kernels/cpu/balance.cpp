// SPDX-License-Identifier: Apache-2.0
// Builds the server tables of all groups.
#include "twinstamp/balance.h"

#include <array>
#include <memory>
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

nb::ndarray<nb::memview, u16, nb::ndim<1>> build_tables(u64 key, In<u64> server_id, In<u8> alive,
                                                        In<u32> group_first, In<u16> member_server,
                                                        In<u32> member_weight, u32 bucket_bits) {
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
    auto out = std::make_unique<u16[]>(groups * buckets + 1);
    {
        nb::gil_scoped_release free;
        const u64* table = log2_table().data();
        for (std::size_t g = 0; g < groups; ++g) {
            const u32 first = group_first.data()[g], count = group_first.data()[g + 1] - first;
            for (u32 b = 0; b < buckets; ++b)
                out[g * buckets + b] =
                    choose_server(table, key, b, member_server.data() + first, id.data() + first,
                                  member_weight.data() + first, count, alive.data());
        }
    }
    u16* data = out.release();
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<u16*>(p); });
    return {data, {groups * buckets}, owner};
}

}  // namespace

void bind_balance(nb::module_& m) {
    m.def("build_tables", &build_tables, nb::arg("key"), nb::arg("server_id"), nb::arg("alive"),
          nb::arg("group_first"), nb::arg("member_server"), nb::arg("member_weight"), nb::arg("bucket_bits"));
    m.def("negative_log2", [](u64 h) { return negative_log2(log2_table().data(), h); }, nb::arg("h"));
    m.attr("LOG2_BITS") = LOG2_BITS;
    m.attr("NO_SERVER") = static_cast<u32>(NO_SERVER);
}

}  // namespace twinstamp
