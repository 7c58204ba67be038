// SPDX-License-Identifier: Apache-2.0
// Turns an ordered rule list into the tables of twinstamp/rules.h.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "twinstamp/rules.h"

namespace twinstamp {

// One rule as written. Addresses as in FlowKey: two words, IPv4 in the upper half of word 0.
struct Rule {
    u8 family = 0;  // of its prefixes: 4, 6, or 0 where it names none
    u8 src_bits = 0, dst_bits = 0;
    u64 src[2] = {0, 0}, dst[2] = {0, 0};
    u16 sport_low = 0, sport_high = 65535, dport_low = 0, dport_high = 65535;
    i32 protocol = -1;  // any
    i32 vlan = -1;      // any
    u8 l4_kind = L4_NONE;
    u16 l4_value = 0, l4_mask = 0;
    bool either_direction = false;
};

struct CompiledSubset {
    RuleSubset view{};
    std::vector<u64> bitmaps;
    std::vector<i32> rule;
    struct Addresses {
        std::vector<u32> top, bitmap;
        std::vector<u64> high, low;
    } src, dst;
    std::vector<u32> sport, dport, protocol, vlan, l4;
};

// Owns the tables; `view` points into it, so it is never copied.
struct CompiledRules {
    CompiledRules() = default;
    CompiledRules(const CompiledRules&) = delete;
    CompiledRules& operator=(const CompiledRules&) = delete;

    RuleTables view{};
    std::array<CompiledSubset, 3> subsets;
    std::vector<u16> tcp_class, icmp_class;
    u64 bytes = 0;
    bool uses_vlan = false, uses_l4 = false;
};

// Throws std::length_error where the tables would exceed `memory_limit` bytes.
void compile_rules(const std::vector<Rule>& rules, u64 memory_limit, CompiledRules& out);

// For each rule the first earlier rule that accepts everything it accepts, or -1.
std::vector<i32> covering_rules(const std::vector<Rule>& rules);

}  // namespace twinstamp
