// SPDX-License-Identifier: Apache-2.0
// One edge of one clock through the model. Verilator's eval() compares all clocks with what they were,
// evaluates, and compares again; with five clocks in turn that is a third of the work, and known beforehand.
// Here the model's own functions are called with the trigger as a constant. The constructor checks the
// triggers against Verilator's.
//
// Parts sleep: where nothing can change but what follows card time, their functions are not called, from 64
// cycles after the RTL's `asleep` rose, with all receive clocks running, until something may wake them, at
// least one whole edge before it counts. What follows card time is old in them meanwhile: no register takes
// it over, and settle() brings it along.
#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "Vtwinstamp_card.h"
#include "Vtwinstamp_card__Syms.h"
#include "card_sim.h"
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#pragma GCC diagnostic ignored "-Wconversion"
#include "model_edges.h"
#pragma GCC diagnostic pop

namespace twinstamp::sim {
namespace {

void inputs(Vtwinstamp_card___024root* root) {
    root->__VicoTriggered[0] = 1;
    Vtwinstamp_card___024root___eval_ico(root);
}

constexpr uint32_t SENDERS = TRAIN_PORT_BIT | GMII_TX_BIT;
constexpr uint32_t SLOW =
    SENDERS | GMII_LOOPBACK_BIT | PHY_LINK_BIT | PROFILE_WORDS_BIT | RECORD_JUDGE_BIT | TX_FETCH_BIT;
constexpr int64_t STANDING_FS = 32'000'000;  // four nominal periods without an edge
constexpr uint32_t COUNTERS = ((1u << PORTS) - 1) * PORT_COUNTERS_BIT;

}  // namespace

// Whoever sends needs the way to the pins, and is counted.
void CardSim::wake(uint32_t bits) {
    if (bits & SENDERS) bits |= GMII_LOOPBACK_BIT | COUNTERS;
    if (bits & PHY_LINK_BIT && !(awake_ & PHY_LINK_BIT)) move_polls(slept_);
    slept_ = 0;
    awake_ |= bits;
    calm_ = {};
}

// Before a core edge: what may change at the next one.
inline void CardSim::rouse() {
    const auto* top = top_.get();
    if (register_edge_) {
        // What the register block reads was left alone while its clock stood.
        if (!(awake_ & REGISTERS_BIT)) settle();
        wake(~0u);
        return;
    }
    awake_ &= ~REGISTERS_BIT;
    auto* syms = top->rootp->vlSymsp;
    if (const uint32_t rise = model_events(syms) & ~awake_) {
        model_refresh(syms, rise);
        awake_ |= rise;
    }
    if (top->m_axi_arvalid || read_left_) wake(GMII_TX_BIT);
    if (!(awake_ & PHY_LINK_BIT)) {
        if (slept_ == sleep_) {
            wake(PHY_LINK_BIT);
        } else {
            ++slept_;
        }
    }
}

// Behind a core edge: what may sleep from now on.
inline void CardSim::doze() {
    const auto* root = top_->rootp;
    // That all are ready for it is looked at while a latch waits.
    const bool counting = (awake_ & SENDERS) || root->twinstamp_card__DOT__latch_q;
    if (awake_ & COUNTERS && !counting) awake_ &= ~(model_asleep(root->vlSymsp) & COUNTERS);
    if (cycles_ % 16 || !(awake_ & SLOW)) return;
    uint32_t now = register_edge_ ? 0 : model_asleep(root->vlSymsp) & SLOW;
    if (top_->m_axi_arvalid || read_left_) now &= ~GMII_TX_BIT;
    // In a receive clock that stands, what was written may still be on its way.
    const auto stands = [this](const Clock& clock) { return clock.next_fs - now_fs_ > STANDING_FS; };
    if (std::any_of(clocks_ + 1, clocks_ + 1 + PORTS, stands))
        now &= ~(PROFILE_WORDS_BIT | GMII_LOOPBACK_BIT);
    uint32_t sleeps = now;
    for (uint32_t before : calm_) sleeps &= before;
    std::copy_backward(calm_.begin(), calm_.end() - 1, calm_.end());
    calm_[0] = now;
    if ((awake_ & ~sleeps) & SENDERS) sleeps &= ~GMII_LOOPBACK_BIT;
    if (sleeps & awake_ & PHY_LINK_BIT) {
        const uint64_t left = until_poll();
        if (left < 32) sleeps &= ~PHY_LINK_BIT;
        slept_ = 0;
        sleep_ = left - 8;
    }
    awake_ &= ~sleeps;
}

// All that follows from registers and inputs, as it is now.
void CardSim::settle() {
    auto* root = top_->rootp;
    wake(~0u);
    root->__VstlTriggered[0] = 1;
    Vtwinstamp_card___024root___eval_stl(root);
    stale_ = 0;
}

// What the model's inputs drive without a register between is computed before the edge that may sample it: at
// each core edge, and at a receive edge when its inputs changed since.
void CardSim::edge(int event) {
    auto* top = top_.get();
    if (plain_) {
        top->clk_i = event == 0;
        top->clk_reg_i = event == 0 && register_edge_;
        top->aux_clk_i = event == 0 && aux_edge_;
        top->rx_clk_i = static_cast<uint8_t>(event ? 1u << (event - 1) : 0);
        top->eval();
        return;
    }
    auto* root = top->rootp;
    if (event == 0) {
        rouse();
        model_ico(root, awake_);
        stale_ = 0;
        if (register_edge_) {
            model_nba<CORE_EDGE | REGISTER_EDGE | AUX_EDGE>(root, awake_);
        } else if (aux_edge_) {
            model_nba<CORE_EDGE | AUX_EDGE>(root, awake_);
        } else {
            model_nba<CORE_EDGE>(root, awake_);
        }
        doze();
        return;
    }
    if (stale_ >> (event - 1) & 1) {
        model_ico(root, awake_);
        stale_ = 0;
    }
    if (event == 1) model_nba<RX_EDGE[0]>(root, awake_);
    if (event == 2) model_nba<RX_EDGE[1]>(root, awake_);
    if (event == 3) model_nba<RX_EDGE[2]>(root, awake_);
    if (event == 4) model_nba<RX_EDGE[3]>(root, awake_);
}

// All clocks low, and known to be.
void CardSim::rest() {
    auto* top = top_.get();
    top->clk_i = top->clk_reg_i = top->aux_clk_i = top->rx_clk_i = 0;
    top->eval();
}

void CardSim::set_plain(bool on) {
    settle();
    rest();
    last_event_ = -1;
    plain_ = on;
}

void CardSim::check_edges() {
    auto* top = top_.get();
    auto* root = top->rootp;
    static_assert(sizeof root->__VactTriggered == sizeof(uint64_t));
    rest();
    if (!model_runs(root->vlSymsp)) {
        std::fprintf(stderr, "simulated card: still in reset\n");
        std::abort();
    }
    for (int event = 0; event <= PORTS; ++event) {
        top->clk_i = top->clk_reg_i = top->aux_clk_i = event == 0;
        top->rx_clk_i = static_cast<uint8_t>(event ? 1u << (event - 1) : 0);
        inputs(root);
        Vtwinstamp_card___024root___eval_triggers_vec__act(root);
        const uint64_t found = root->__VactTriggered[0];
        if (found != (event ? RX_EDGE[event - 1] : CORE_EDGE | REGISTER_EDGE | AUX_EDGE)) {
            std::fprintf(stderr,
                         "simulated card: edge of clock %d has triggers %llx: see tools/model_edges.py\n",
                         event, static_cast<unsigned long long>(found));
            std::abort();
        }
        top->clk_i = top->clk_reg_i = top->aux_clk_i = top->rx_clk_i = 0;
        inputs(root);
        Vtwinstamp_card___024root___eval_triggers_vec__act(root);
    }
}

}  // namespace twinstamp::sim
