// SPDX-License-Identifier: Apache-2.0
// Idle time in one step. The model is idle when no edge of any clock changes anything in it but card time and
// what is computed from that; then k cycles are k additions to card time and k edges of each clock.
//
// The PHYs' polls: a timer counts up to each. A step ends before it fires, and management frames run edge by
// edge. Once the model stands as it stood a round of polls ago, any number of such rounds is one step too.
#include <algorithm>
#include <cstring>

#include "Vtwinstamp_card.h"
#include "Vtwinstamp_card__Syms.h"
#include "card_sim.h"

namespace twinstamp::sim {
namespace {

using u128 = unsigned __int128;
using Model = Vtwinstamp_card__Syms;  // all instances, side by side

// Cycles run edge by edge after a step: they bring all that follows time along.
constexpr int64_t MARGIN = 32;

struct Range {
    size_t begin, end;
    bool operator<(const Range& other) const { return begin < other.begin; }
};

template <class T>
Range range(const Model* model, const T& member) {
    const auto begin =
        static_cast<size_t>(reinterpret_cast<const char*>(&member) - reinterpret_cast<const char*>(model));
    return {begin, begin + sizeof member};
}

// What an instance holds, without the pointers behind it.
template <class T>
Range held(const Model* model, const T& instance) {
    return {range(model, instance).begin, range(model, instance.vlSymsp).begin};
}

std::vector<Range> instances(const Model* model) {
    std::vector<Range> out;
#define MODEL_INSTANCE(member) out.push_back(held(model, model->member));
#include "model_parts.h"
#undef MODEL_INSTANCE
    // The pointers to the others stand in front.
    out[0].begin = range(model, model->TOP.clk_i).begin;
    return out;
}

// What has to be the same, between what may change.
std::vector<Range> fixed(const Model* model) {
    std::vector<Range> free;
#define WARP_FREE(member) free.push_back(range(model, model->member));
#define WARP_TIME(member) WARP_FREE(member)
#define WARP_DUE(member) WARP_FREE(member)
#define WARP_TARGET(member)
#define WARP_POLL(timer, poll) WARP_FREE(timer)
#include "model_parts.h"
#undef WARP_FREE
#undef WARP_TIME
#undef WARP_DUE
#undef WARP_TARGET
#undef WARP_POLL
    std::sort(free.begin(), free.end());
    std::vector<Range> out;
    for (const Range& whole : instances(model)) {
        size_t at = whole.begin;
        for (const Range& gap : free) {
            if (gap.begin < whole.begin || gap.begin >= whole.end) continue;
            if (gap.begin > at) out.push_back({at, gap.begin});
            at = gap.end;
        }
        if (at < whole.end) out.push_back({at, whole.end});
    }
    return out;
}

const uint8_t* bytes_of(const Model* model) {
    return reinterpret_cast<const uint8_t*>(model);
}

bool same(const Model* model, const uint8_t* before) {
    static const std::vector<Range> parts = fixed(model);
    return std::all_of(parts.begin(), parts.end(), [&](const Range& part) {
        return std::memcmp(bytes_of(model) + part.begin, before + part.begin, part.end - part.begin) == 0;
    });
}

u128 wide(const uint32_t* words) {
    return (u128{words[3]} << 96) | (u128{words[2]} << 64) | (u128{words[1]} << 32) | words[0];
}

#define WARP_FREE(member)
#define WARP_TIME(member)
#define WARP_DUE(member)
#define WARP_TARGET(member)

// Timers of polls, and their limits (0: no polls).
std::vector<std::pair<uint32_t, uint32_t>> polls(const Model* model) {
    std::vector<std::pair<uint32_t, uint32_t>> out;
#define WARP_POLL(timer, poll) out.emplace_back(model->timer, model->poll);
#include "model_parts.h"
#undef WARP_POLL
    return out;
}

void advance_polls(Model* model, uint32_t k) {
#define WARP_POLL(timer, poll) \
    if (model->poll) model->timer += k;
#include "model_parts.h"
#undef WARP_POLL
}

#define WARP_POLL(timer, poll)
#undef WARP_TIME
#undef WARP_DUE
#undef WARP_TARGET

// Card time, 32.32.
uint64_t card_q32(const Model* model) {
    u128 now = 0;
#define WARP_DUE(member)
#define WARP_TARGET(member)
// Of card time and what it will be a cycle later, the earlier one.
#define WARP_TIME(member) now = now ? std::min(now, wide(model->member.data())) : wide(model->member.data());
#include "model_parts.h"
#undef WARP_TIME
#undef WARP_DUE
#undef WARP_TARGET
    return static_cast<uint64_t>(now >> 40);
}

// How many cycles leave the outcome of every comparison with card time as it is.
uint64_t until_due(const Model* model, uint64_t step_q32) {
    uint64_t k = UINT64_MAX;
    const uint64_t now = card_q32(model);
#define WARP_TARGET(member) \
    if (model->member > now) k = std::min(k, (model->member - now) / (step_q32 + 1));
#define WARP_TIME(member)
#define WARP_DUE(member)                                               \
    if (const auto due = static_cast<int64_t>(model->member); due < 0) \
        k = std::min(k, (0 - static_cast<uint64_t>(due)) / (step_q32 + 1));
#include "model_parts.h"
#undef WARP_TIME
#undef WARP_DUE
#undef WARP_TARGET
    return k;
}

void add_time(Model* model, u128 q72) {
#define WARP_DUE(member)
#define WARP_TARGET(member)
#define WARP_TIME(member)                                                                   \
    {                                                                                       \
        const u128 now = (wide(model->member.data()) + q72) & ((u128{1} << 104) - 1);       \
        for (int i = 0; i < 4; ++i)                                                         \
            model->member[static_cast<size_t>(i)] = static_cast<uint32_t>(now >> (32 * i)); \
    }
#include "model_parts.h"
#undef WARP_TIME
#undef WARP_DUE
#undef WARP_TARGET
}
#undef WARP_FREE
#undef WARP_POLL

}  // namespace

// The timers of polls that were not counted on while the PHYs slept.
void CardSim::move_polls(uint64_t cycles) {
    advance_polls(top_->rootp->vlSymsp, static_cast<uint32_t>(cycles));
}

// Cycles before the next poll.
uint64_t CardSim::until_poll() const {
    uint64_t k = UINT64_MAX;
    for (const auto& [timer, poll] : polls(top_->rootp->vlSymsp)) {
        if (poll) k = std::min(k, timer < poll ? uint64_t{poll} - timer : 0);
    }
    return k;
}

// What the harness knows: nothing on its way, and no other card to keep up with.
bool CardSim::still() const {
    const auto* top = top_.get();
    if (top->aux_active_o || !top->uart_rx_i) return false;
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
    int64_t first = std::min(sampler_.next_change(), serial_.next());
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
    const Model* model = top_->rootp->vlSymsp;
    snapshot_.assign(bytes_of(model), bytes_of(model) + sizeof *model);
    const auto before = polls(model);
    const uint64_t start = cycles_;
    int edges[1 + PORTS] = {};
    while (*std::min_element(edges, edges + 1 + PORTS) < 2) {
        step();
        ++edges[last_event_];
        if (!same(model, snapshot_.data())) return false;
        if (cycles_ - start > 16) return false;  // a clock that stands still
    }
    const auto after = polls(model);
    for (size_t i = 0; i < after.size(); ++i) {
        const uint32_t count = after[i].second ? static_cast<uint32_t>(cycles_ - start) : 0;
        if (after[i].first - before[i].first != count) return false;  // it fired, or does not count
    }
    return still();
}

// Cycles of a round of polls: since the model stood as it does now, but for time and timers that have all
// moved by the same. 0: not known yet.
uint64_t CardSim::round_of_polls() {
    const Model* model = top_->rootp->vlSymsp;
    const auto now = polls(model);
    if (round_.bytes.size() == sizeof *model && same(model, round_.bytes.data()) &&
        std::equal(phys_, phys_ + PORTS, round_.phys)) {
        int64_t moved = 0;
        bool first = true, together = true;
        for (size_t i = 0; i < now.size(); ++i) {
            if (now[i].second == 0) continue;
            const int64_t here = int64_t{now[i].first} - int64_t{round_.timers[i].first};
            together = together && (first || here == moved) && now[i].second == round_.timers[i].second;
            moved = here;
            first = false;
        }
        const int64_t cycles = static_cast<int64_t>(cycles_ - round_.cycle) - moved;
        if (together && !first && cycles > 0) return static_cast<uint64_t>(cycles);
    }
    if (round_.bytes.size() == sizeof *model && same(model, round_.bytes.data()) &&
        cycles_ - round_.cycle < 100)
        return 0;
    round_.bytes.assign(bytes_of(model), bytes_of(model) + sizeof *model);
    round_.timers = now;
    std::copy(phys_, phys_ + PORTS, round_.phys);
    round_.cycle = cycles_;
    return 0;
}

// One step, to at least MARGIN cycles before the end or the next activity; false: not worth it.
bool CardSim::leap(uint64_t end_cycles, int64_t end_fs) {
    const int64_t limit = std::min(end_fs, next_activity());
    if (end_cycles - cycles_ < 4 * MARGIN || limit - now_fs_ < 4 * MARGIN * 8'000'000) return false;
    if (!still()) return false;
    settle();
    uint32_t time[2][4];
    std::memcpy(time[0], card_time(), sizeof time[0]);
    const uint64_t start = cycles_;
    if (!settled() || cycles_ == start) return false;
    std::memcpy(time[1], card_time(), sizeof time[1]);
    Model* model = top_->rootp->vlSymsp;
    // Steady, as what is added is part of what has not changed.
    const u128 step = (wide(time[1]) - wide(time[0])) / (cycles_ - start);
    uint64_t k = std::min(end_cycles - cycles_, limit == NEVER ? UINT64_MAX : clocks_[0].edges_until(limit));
    k = std::min(k, until_due(model, static_cast<uint64_t>(step >> 40)));
    if (link_due_ != Phy::NEVER_DUE) k = std::min(k, link_due_ > cycles_ ? link_due_ - cycles_ : 0);
    const uint64_t until = until_poll();
    bool rounds = false;
    if (until < k) {
        const uint64_t round = round_of_polls();
        rounds = round != 0 && k >= round + MARGIN;
        k = rounds ? (k - MARGIN) / round * round : until;
    }
    if (!rounds) {
        if (k < 2 * MARGIN) return false;
        k -= MARGIN;
        advance_polls(model, static_cast<uint32_t>(k));
    }
    add_time(model, step * k);
    clocks_[0].skip(k);
    cycles_ += k;
    warped_ += k;
    now_fs_ = clocks_[0].last_fs;
    if (rounds) round_.bytes.clear();
    for (int p = 0; p < PORTS; ++p) {
        const uint64_t n = clocks_[1 + p].edges_until(now_fs_);
        clocks_[1 + p].skip(n);
        if (!cables_[p])
            wires_[p].idle = static_cast<uint32_t>(std::min<uint64_t>(wires_[p].idle + n, UINT32_MAX));
    }
    return true;
}

uint64_t CardSim::state(uint8_t* out, uint64_t room) {
    settle();
    const Model* model = top_->rootp->vlSymsp;
    uint64_t size = 0;
    for (const Range& part : instances(model)) {
        const size_t n = part.end - part.begin;
        if (size + n <= room) std::memcpy(out + size, bytes_of(model) + part.begin, n);
        size += n;
    }
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
