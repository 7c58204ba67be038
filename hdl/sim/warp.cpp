// SPDX-License-Identifier: Apache-2.0
// Idle time in one step. The model is idle when no edge of any clock changes anything in it but card time and
// what is computed from that; then k cycles are k additions to card time and k edges of each clock.
#include <algorithm>
#include <cstring>

#include "Vtwinstamp_card.h"
#include "Vtwinstamp_card___024root.h"
#include "card_sim.h"

namespace twinstamp::sim {
namespace {

using u128 = unsigned __int128;
using Root = Vtwinstamp_card___024root;

constexpr int64_t MARGIN =
    32;  // cycles run edge by edge after a step: they bring all that follows time along

struct Range {
    size_t begin, end;
    bool operator<(const Range& other) const { return begin < other.begin; }
};

template <class T>
Range range(const Root* root, const T& member) {
    const auto begin =
        static_cast<size_t>(reinterpret_cast<const char*>(&member) - reinterpret_cast<const char*>(root));
    return {begin, begin + sizeof member};
}

// What has to be the same, between what may change.
std::vector<Range> fixed(const Root* root) {
    std::vector<Range> free;
#define WARP_FREE(member) free.push_back(range(root, root->member));
#define WARP_TIME(member) free.push_back(range(root, root->member));
#define WARP_DUE(member) free.push_back(range(root, root->member));
#define WARP_TARGET(member)
#include "warp_members.h"
#undef WARP_FREE
#undef WARP_TIME
#undef WARP_DUE
#undef WARP_TARGET
    std::sort(free.begin(), free.end());
    std::vector<Range> out;
    size_t at = 0;
    for (const Range& gap : free) {
        if (gap.begin > at) out.push_back({at, gap.begin});
        at = gap.end;
    }
    out.push_back({at, sizeof *root});
    return out;
}

}  // namespace

// What the harness knows: nothing on its way, and no other card to keep up with.
bool CardSim::still() const {
    const auto* top = top_.get();
    if (stall_ || read_left_ || register_cycles_ || !responses_.empty() || !beats_.empty()) return false;
    if (!burst_address_.empty() || !pending_truths_.empty() || top->rx_dv_i || top->tx_en_o) return false;
    if (top->m_axi_awvalid || top->m_axi_wvalid || top->m_axi_arvalid || top->m_axi_rvalid) return false;
    if (top->s_axil_awvalid || top->s_axil_wvalid || top->s_axil_arvalid || trace_) return false;
    for (int p = 0; p < PORTS; ++p) {
        if (wires_[p].active || recording_[p]) return false;
        if (cables_[p] && (cables_[p]->from != this || !cables_[p]->symbols.empty())) return false;
        for (const auto& cloud : clouds_[p]) {
            if (cloud->from && cloud->from != this) return false;
        }
        for (const auto& collector : collectors_[p]) {
            if (collector.carrier) return false;
        }
    }
    return true;
}

// No wire starts anything before this time.
int64_t CardSim::next_activity() const {
    int64_t first = NEVER;
    for (int p = 0; p < PORTS; ++p) {
        const Wire& wire = wires_[p];
        if (!arrivals_[p].empty()) first = std::min(first, arrivals_[p].front().arrival.due_fs);
        if (wire.items.empty()) continue;
        const int64_t edges = int64_t{wire.items.front().gap} - int64_t{wire.idle};
        // No clock is faster than nominal by more than 1000 ppm and its wander.
        const int64_t gap = now_fs_ + std::max(edges, int64_t{0}) * 7'980'000;
        first = std::min(first, std::max(gap, wire.items.front().not_before_fs));
    }
    return first;
}

// Runs a few cycles and compares the whole model after every edge with what it was before.
bool CardSim::settled() {
    const Root* root = top_->rootp;
    const auto* bytes = reinterpret_cast<const uint8_t*>(root);
    static const std::vector<Range> same = fixed(root);
    snapshot_.assign(bytes, bytes + sizeof *root);
    const uint64_t start = cycles_;
    int edges[1 + PORTS] = {};
    while (*std::min_element(edges, edges + 1 + PORTS) < 2) {
        step();
        ++edges[last_event_];
        for (const Range& part : same) {
            if (std::memcmp(bytes + part.begin, snapshot_.data() + part.begin, part.end - part.begin))
                return false;
        }
        if (cycles_ - start > 16) return false;  // a clock that stands still
    }
    return still();
}

// One step, to at least MARGIN cycles before the end or the next activity; false: not worth it.
bool CardSim::leap(uint64_t end_cycles, int64_t end_fs) {
    const int64_t limit = std::min(end_fs, next_activity());
    if (end_cycles - cycles_ < 4 * MARGIN || limit - now_fs_ < 4 * MARGIN * 8'000'000) return false;
    if (!still()) return false;
    uint32_t time[2][4];
    std::memcpy(time[0], card_time(), sizeof time[0]);
    const uint64_t start = cycles_;
    if (!settled() || cycles_ == start) return false;
    std::memcpy(time[1], card_time(), sizeof time[1]);
    const auto wide = [](const uint32_t* words) {
        return (u128{words[3]} << 96) | (u128{words[2]} << 64) | (u128{words[1]} << 32) | words[0];
    };
    // Steady, as what is added is part of what has not changed.
    const u128 step = (wide(time[1]) - wide(time[0])) / (cycles_ - start);
    uint64_t k = std::min(end_cycles - cycles_, limit == NEVER ? UINT64_MAX : clocks_[0].edges_until(limit));
    Root* root = top_->rootp;
#define WARP_FREE(member)
#define WARP_TIME(member)
#define WARP_DUE(member)                                                                             \
    if (const auto due = static_cast<int64_t>(root->member); due < 0) {                              \
        k = std::min(k, (0 - static_cast<uint64_t>(due)) / (static_cast<uint64_t>(step >> 40) + 1)); \
    }
#define WARP_TARGET(member)                                                                  \
    if (const uint64_t at = static_cast<uint64_t>(wide(time[1]) >> 40); root->member > at) { \
        k = std::min(k, (root->member - at) / (static_cast<uint64_t>(step >> 40) + 1));      \
    }
#include "warp_members.h"
#undef WARP_TIME
#undef WARP_DUE
#undef WARP_TARGET
    if (k < 2 * MARGIN) return false;
    k -= MARGIN;
    u128 now = 0;
#define WARP_TIME(member) now = wide(root->member.data());
#define WARP_DUE(member)
#define WARP_TARGET(member)
#include "warp_members.h"
#undef WARP_TIME
    now += step * k;
    constexpr u128 MASK = (u128{1} << 104) - 1;
    now &= MASK;
#define WARP_TIME(member) \
    for (int i = 0; i < 4; ++i) root->member[static_cast<size_t>(i)] = static_cast<uint32_t>(now >> (32 * i));
#include "warp_members.h"
#undef WARP_FREE
#undef WARP_TIME
#undef WARP_TARGET
#undef WARP_DUE
    clocks_[0].skip(k);
    cycles_ += k;
    warped_ += k;
    now_fs_ = clocks_[0].last_fs;
    for (int p = 0; p < PORTS; ++p) {
        const uint64_t n = clocks_[1 + p].edges_until(now_fs_);
        clocks_[1 + p].skip(n);
        if (!cables_[p])
            wires_[p].idle = static_cast<uint32_t>(std::min<uint64_t>(wires_[p].idle + n, UINT32_MAX));
    }
    return true;
}

uint64_t CardSim::state(uint8_t* out, uint64_t room) const {
    // Without the pointers at both ends.
    const Root* root = top_->rootp;
    const uint64_t begin = range(root, root->clk_i).begin, size = range(root, root->vlSymsp).begin - begin;
    if (size <= room) std::memcpy(out, reinterpret_cast<const uint8_t*>(root) + begin, size);
    return size;
}

void CardSim::warp(uint64_t end_cycles, int64_t end_fs) {
    while (cycles_ < end_cycles) {
        leap(end_cycles, end_fs);
        for (int i = 0; i < 256 && cycles_ < end_cycles;) {
            int64_t next = clocks_[0].next_fs;
            for (const Clock& clock : clocks_) next = std::min(next, clock.next_fs);
            if (next > end_fs) return;
            step();
            i += last_event_ == 0;
        }
    }
}

}  // namespace twinstamp::sim
