// SPDX-License-Identifier: Apache-2.0
// The Verilated train_schedule: arms trains and takes each head as a wire would, one in 84 cycles; ctypes.
#include <cstdint>

#include "Vtrain_schedule.h"
#include "verilated.h"

namespace {

struct Bench {
    VerilatedContext context;
    Vtrain_schedule top{&context};
    std::uint64_t cycles = 0;

    void clock() {
        top.clk_i = 0;
        top.eval();
        top.clk_i = 1;
        top.eval();
        ++cycles;
    }
};

}  // namespace

// Laid out as HEAD in tests/train/test_hdl_schedule.py.
struct Head {
    std::uint64_t q32;
    std::uint32_t low, sequence, sums, wait;  // wait: cycles after the one before was taken
    std::uint16_t size, port;
    std::uint8_t train, law, reserved[2];
};
static_assert(sizeof(Head) == 32);

extern "C" {

Bench* train_bench_new() {
    auto* bench = new Bench;
    auto& top = bench->top;
    top.rst_ni = 0;
    top.write_i = top.arm_i = top.stop_i = top.take_i = 0;
    for (int i = 0; i < 4; ++i) bench->clock();
    top.rst_ni = 1;
    bench->clock();
    return bench;
}

void train_bench_delete(Bench* bench) {
    delete bench;
}

void train_bench_write(Bench* bench, std::uint32_t word, std::uint32_t data) {
    auto& top = bench->top;
    top.write_i = 1;
    top.write_address_i = static_cast<std::uint16_t>(word);
    top.write_data_i = data;
    bench->clock();
    top.write_i = 0;
}

void train_bench_arm(Bench* bench, std::uint32_t trains) {
    bench->top.arm_i = static_cast<std::uint8_t>(trains);
    bench->clock();
    bench->top.arm_i = 0;
}

// active, done, refused: four bits each.
std::uint32_t train_bench_state(Bench* bench) {
    return bench->top.active_o | bench->top.done_o << 4 | bench->top.refused_o << 8;
}

// Takes heads, `spacing` cycles apart at least, until room is full or none comes for 1000 cycles.
std::uint64_t train_bench_take(Bench* bench, Head* out, std::uint64_t room, std::uint32_t spacing) {
    auto& top = bench->top;
    std::uint64_t n = 0;
    std::uint32_t since = spacing, idle = 0;
    while (n < room && idle < 1000) {
        ++since;
        ++idle;
        // What a register samples at the coming edge.
        const bool take = top.head_valid_o && top.quiet_o && since >= spacing;
        if (take) {
            out[n] = {top.head_q32_o,  top.head_low_o,  top.head_sequence_o, top.head_sums_o, since,
                      top.head_size_o, top.head_port_o, top.head_train_o,    top.head_law_o,  {}};
            ++n;
            since = idle = 0;
        }
        top.take_i = take;
        bench->clock();
    }
    top.take_i = 0;
    return n;
}
}
