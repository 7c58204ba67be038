// SPDX-License-Identifier: Apache-2.0
// The Verilated duplicate_window fed from arrays, a frame as soon as it takes one; for ctypes.
#include <algorithm>
#include <cstdint>
#include <memory>

#include "Vduplicate_window.h"
#include "verilated.h"

namespace {

struct Bench {
    VerilatedContext context;
    Vduplicate_window top{&context};
    void clock() {
        top.clk_i = 0;
        top.eval();
        top.clk_i = 1;
        top.eval();
    }
};

}  // namespace

extern "C" {

void* window_new() {
    auto bench = std::make_unique<Bench>();
    bench->top.rst_ni = 0;
    bench->top.valid_i = 0;
    bench->top.flush_i = 0;
    bench->clock();
    bench->top.rst_ni = 1;
    return bench.release();
}

void window_delete(void* handle) {
    delete static_cast<Bench*>(handle);
}

// Forgets all frames and takes a configuration: count and time_ns negative: none.
void window_start(void* handle, std::int64_t count, std::int64_t time_ns) {
    auto& bench = *static_cast<Bench*>(handle);
    auto& top = bench.top;
    while (!top.ready_o) bench.clock();
    top.flush_i = 1;
    top.by_count_i = count >= 0;
    top.count_i = static_cast<std::uint16_t>(std::max<std::int64_t>(count, 0));
    top.by_time_i = time_ns >= 0;
    bench.clock();
    bench.clock();
    top.flush_i = 0;
    top.eval();
    while (!top.ready_o) bench.clock();
}

// Judges n frames. cycles: of each, until the window took the next one; limited: how many pulses of limit_o.
// Returns how many frames it judged: n, or less where one took more than a million cycles.
std::uint64_t window_judge(void* handle, const std::uint64_t* digest, const std::int64_t* time_ns,
                           std::int64_t window_ns, std::uint64_t n, std::uint8_t* duplicate,
                           std::uint32_t* cycles, std::uint64_t* limited) {
    auto& bench = *static_cast<Bench*>(handle);
    auto& top = bench.top;
    *limited = 0;
    for (std::uint64_t i = 0; i < n; ++i) {
        top.valid_i = 1;
        top.digest_i = digest[i];
        top.time_i = static_cast<std::uint64_t>(time_ns[i]);
        top.low_i = static_cast<std::uint64_t>(std::max<std::int64_t>(time_ns[i] - window_ns, 0));
        bench.clock();
        top.valid_i = 0;
        std::uint32_t spent = 1, verdicts = 0;
        while (!top.ready_o) {
            bench.clock();
            ++spent;
            *limited += top.limit_o;
            if (top.done_o) {
                ++verdicts;
                duplicate[i] = top.duplicate_o;
            }
            if (spent > 1'000'000) return i;
        }
        if (verdicts != 1) return i;
        cycles[i] = spent;
    }
    return n;
}

std::uint32_t window_longest(void* handle) {
    auto& bench = *static_cast<Bench*>(handle);
    bench.clock();
    return bench.top.cycles_o;
}

}  // extern "C"
