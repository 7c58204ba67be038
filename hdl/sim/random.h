// SPDX-License-Identifier: Apache-2.0
// Random numbers by number: what is drawn for the n-th edge or frame does not depend on what was drawn
// before.
#pragma once

#include <cmath>
#include <cstdint>

namespace twinstamp::sim {

// splitmix64's finaliser over a counter (Steele, Lea, Flood 2014).
constexpr uint64_t draw(uint64_t seed, uint64_t stream, uint64_t number) {
    uint64_t z = seed + stream * 0xD1342543DE82EF95u;
    for (int round = 0; round < 2; ++round) {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
        z ^= z >> 31;
        if (round == 0) z += number * 0x9E3779B97F4A7C15u;
    }
    return z;
}

// In (0, 1).
inline double uniform(uint64_t seed, uint64_t stream, uint64_t number) {
    return (static_cast<double>(draw(seed, stream, number) >> 12) + 0.5) * 0x1p-52;
}

inline double gaussian(uint64_t seed, uint64_t stream, uint64_t number) {
    const double radius = std::sqrt(-2 * std::log(uniform(seed, stream, 2 * number)));
    return radius * std::cos(6.283185307179586 * uniform(seed, stream, 2 * number + 1));
}

}  // namespace twinstamp::sim
