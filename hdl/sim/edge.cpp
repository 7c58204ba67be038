// SPDX-License-Identifier: Apache-2.0
// One edge of one clock through the model. Verilator's eval() compares all clocks with what they were,
// evaluates, and compares again; with five clocks in turn that is a third of the work, and known beforehand.
// Here the model's own functions are called with the trigger as a constant. The constructor checks the
// triggers against Verilator's.
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

}  // namespace

// What the model's inputs drive without a register between is computed before the edge that may sample it: at
// each core edge, and at a receive edge when its inputs changed since.
void CardSim::edge(int event) {
    auto* top = top_.get();
    if (plain_) {
        top->clk_i = event == 0;
        top->clk_reg_i = event == 0 && register_edge_;
        top->rx_clk_i = static_cast<uint8_t>(event ? 1u << (event - 1) : 0);
        top->eval();
        return;
    }
    auto* root = top->rootp;
    if (event == 0) {
        inputs(root);
        stale_ = 0;
        if (register_edge_) {
            model_nba<CORE_EDGE | REGISTER_EDGE>(root);
        } else {
            model_nba<CORE_EDGE>(root);
        }
        return;
    }
    if (stale_ >> (event - 1) & 1) {
        inputs(root);
        stale_ = 0;
    }
    if (event == 1) model_nba<RX_EDGE[0]>(root);
    if (event == 2) model_nba<RX_EDGE[1]>(root);
    if (event == 3) model_nba<RX_EDGE[2]>(root);
    if (event == 4) model_nba<RX_EDGE[3]>(root);
}

// All clocks low, and known to be.
void CardSim::rest() {
    auto* top = top_.get();
    top->clk_i = top->clk_reg_i = top->rx_clk_i = 0;
    top->eval();
}

void CardSim::set_plain(bool on) {
    rest();
    last_event_ = -1;
    plain_ = on;
}

void CardSim::check_edges() {
    auto* top = top_.get();
    auto* root = top->rootp;
    static_assert(sizeof root->__VactTriggered == sizeof(uint64_t));
    rest();
    for (int event = 0; event <= PORTS; ++event) {
        top->clk_i = top->clk_reg_i = event == 0;
        top->rx_clk_i = static_cast<uint8_t>(event ? 1u << (event - 1) : 0);
        inputs(root);
        Vtwinstamp_card___024root___eval_triggers_vec__act(root);
        const uint64_t found = root->__VactTriggered[0];
        if (found != (event ? RX_EDGE[event - 1] : CORE_EDGE | REGISTER_EDGE)) {
            std::fprintf(stderr,
                         "simulated card: edge of clock %d has triggers %llx: see tools/model_parts.py\n",
                         event, static_cast<unsigned long long>(found));
            std::abort();
        }
        top->clk_i = top->clk_reg_i = top->rx_clk_i = 0;
        inputs(root);
        Vtwinstamp_card___024root___eval_triggers_vec__act(root);
    }
}

}  // namespace twinstamp::sim
