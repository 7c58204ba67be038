// SPDX-License-Identifier: Apache-2.0
// The Verilated clock_card (clock, PPS, serial line, soft core, registers) with an oscillator, a PPS line
// with femtosecond edges behind a sampler, a serial line and a register bus; for ctypes.
//
// Idle time is skipped: while the core sleeps, no bit is on the serial line and no edge is near, what a cycle
// changes is card time and a few counters; k cycles are then k additions to each. The same to the last bit
// (tests/loop compares).
#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "../pps_sampler.h"
#include "../serial_line.h"
#include "Vclock_card.h"
#include "Vclock_card___024root.h"
#include "verilated.h"

namespace {

using twinstamp::sim::PpsSampler;
using twinstamp::sim::SerialLine;
using u128 = unsigned __int128;
using Root = Vclock_card___024root;

constexpr int64_t NEVER = INT64_MAX;
constexpr uint64_t MARGIN = 32;  // cycles run one by one after a leap: they bring along what follows the time

u128 wide(const uint32_t* words) {
    return (u128{words[3]} << 96) | (u128{words[2]} << 64) | (u128{words[1]} << 32) | words[0];
}

struct Range {
    size_t begin, end;
    bool operator<(const Range& other) const { return begin < other.begin; }
};

// Counters that may run while all is idle, and card time.
#define SINCE clock_card__DOT__u_discipline__DOT__u_capture__DOT__since_q
#define DUE clock_card__DOT__u_discipline__DOT__u_capture__DOT__due_q
#define TICK clock_card__DOT__u_discipline__DOT__tick_q
#define WATCHDOG clock_card__DOT__u_discipline__DOT__u_core__DOT__left_q
#define SLEW clock_card__DOT__u_clock__DOT__left_q
#define NOW clock_card__DOT__u_clock__DOT__now_q
#define NEXT clock_card__DOT__u_clock__DOT__next_q

struct ClockSim {
    explicit ClockSim(uint64_t seed) : sampler(seed) {
        context.randReset(0);
        top = std::make_unique<Vclock_card>(&context);
        top->s_axil_bready = top->s_axil_rready = 1;
        top->uart_rx_i = 1;
        top->rst_ni = 0;
        top->eval();
        for (int i = 0; i < 8; ++i) edge();
        top->rst_ni = 1;
        for (int i = 0; i < 8; ++i) edge();
        before = free_members();
    }

    void edge() {
        auto* t = top.get();
        t->clk_i = t->reg_clk_i = t->cpu_clk_i = t->aux_clk_i = 0;
        t->eval();
        if (now_fs >= line.next()) t->uart_rx_i = line.level(now_fs);
        const bool everything = !gated;
        const bool registers = register_cycles != 0 || t->reg_active_o || everything;
        const bool cpu = t->cpu_active_o || everything;
        t->clk_i = 1;
        t->reg_clk_i = registers;
        t->cpu_clk_i = cpu;
        t->aux_clk_i = t->aux_active_o || registers;
        if (t->reg_active_o) register_cycles = 65;
        if (register_cycles) --register_cycles;
        before_fs = now_fs;
        const uint64_t fraction = uint64_t{now_fraction} + period_fraction;
        now_fraction = static_cast<uint32_t>(fraction);
        const int64_t period = period_fs + static_cast<int64_t>(fraction >> 32);
        now_fs += period;
        std::memcpy(before_time, t->now_q72_o.data(), sizeof before_time);
        t->eval();
        ++cycles;
        // Behind the edge, as out of the sampler's last register.
        t->pps_word_i = sampler.word(now_fs, period);
        if (cpu && t->cpu_active_o) {
            ++awake;
            ++stretch;
            longest = std::max(longest, stretch);
        } else {
            stretch = 0;
        }
        output();
    }

    // What leaves the serialiser in the cycle that begins now.
    void output() {
        const uint8_t word = top->pps_word_o;
        if (word == (out_level ? 0xFF : 0)) return;
        for (int i = 0; i < 8; ++i) {
            if ((word >> i & 1) == (out_level ? 1 : 0)) continue;
            out_level = !out_level;
            out_changes.push_back(now_fs + period_fs * i / 8);
        }
    }

    std::vector<Range> free_members() const {
        const Root* root = top->rootp;
        const auto range = [root](const auto& member) {
            const auto at = static_cast<size_t>(reinterpret_cast<const char*>(&member) -
                                                reinterpret_cast<const char*>(root));
            return Range{at, at + sizeof member};
        };
        std::vector<Range> gaps;
#define CLOCK_FREE(member) gaps.push_back(range(root->member));
#include "clock_card_members.h"
#undef CLOCK_FREE
        std::sort(gaps.begin(), gaps.end());
        std::vector<Range> out;
        size_t at = 0;
        for (const Range& gap : gaps) {
            if (gap.begin > at) out.push_back({at, gap.begin});
            at = std::max(at, gap.end);
        }
        out.push_back({at, sizeof *root});
        return out;
    }

    bool still() const {
        const auto* t = top.get();
        return register_cycles == 0 && !t->reg_active_o && !t->cpu_active_o && t->uart_rx_i && gated &&
               !t->s_axil_awvalid && !t->s_axil_arvalid && !t->s_axil_wvalid;
    }

    // One step over idle time, to at least MARGIN cycles before anything happens; false: not worth it.
    bool leap(int64_t end_fs) {
        if (!still()) return false;
        const int64_t limit = std::min({end_fs, sampler.next_change(), line.next()});
        const int64_t room = (limit == NEVER ? INT64_MAX / 2 : limit) - now_fs;
        if (room < static_cast<int64_t>(8 * MARGIN) * period_fs) return false;
        Root* root = top->rootp;
        const auto* bytes = reinterpret_cast<const char*>(root);
        snapshot.assign(bytes, bytes + sizeof *root);
        const uint32_t counters[4] = {root->SINCE, root->DUE, root->TICK, root->WATCHDOG};
        const uint64_t start = cycles;
        const u128 time = wide(top->now_q72_o.data());
        const auto slew = static_cast<int64_t>(root->SLEW);
        for (int i = 0; i < 2; ++i) edge();
        if (!still()) return false;
        for (const Range& part : before) {
            if (std::memcmp(bytes + part.begin, snapshot.data() + part.begin, part.end - part.begin) != 0)
                return false;
        }
        const auto ran = static_cast<uint32_t>(cycles - start);
        const uint32_t after[4] = {root->SINCE, root->DUE, root->TICK, root->WATCHDOG};
        uint32_t* members[4] = {&root->SINCE, &root->DUE, &root->TICK, &root->WATCHDOG};
        int32_t step[4];
        for (int i = 0; i < 4; ++i) {
            const auto moved = static_cast<int32_t>(after[i] - counters[i]);
            if (moved != 0 && moved != static_cast<int32_t>(ran) && moved != -static_cast<int32_t>(ran))
                return false;
            step[i] = moved / static_cast<int32_t>(ran);
        }
        // A slew under way takes the same from what is left in every cycle, up to the last few.
        const auto slew_left = static_cast<int64_t>(root->SLEW);
        const int64_t slew_step = (slew_left - slew) / static_cast<int64_t>(ran);
        if (slew_left - slew != slew_step * static_cast<int64_t>(ran)) return false;
        const u128 add = (wide(top->now_q72_o.data()) - time) / ran;
        // No clock is slower than nominal by more than its noise: the division errs by far less than MARGIN.
        uint64_t k = static_cast<uint64_t>((limit == NEVER ? INT64_MAX / 2 : limit) - now_fs) /
                     static_cast<uint64_t>(period_fs + 1);
        const auto* regs = &root->clock_card__DOT__hwif_out;
        if (step[0] > 0) k = std::min<uint64_t>(k, UINT32_MAX - after[0]);
        if (step[1] > 0) {
            const uint32_t due = regs->__PVT__pps.__PVT__period.__PVT__cycles.__PVT__value +
                                 regs->__PVT__pps.__PVT__tolerance.__PVT__cycles.__PVT__value;
            if (after[1] < due) k = std::min<uint64_t>(k, due - after[1]);
        }
        if (step[2] > 0) {
            const uint32_t tick =
                std::max(regs->__PVT__cpu.__PVT__tick.__PVT__cycles.__PVT__value, uint32_t{1024});
            if (after[2] < tick) k = std::min<uint64_t>(k, tick - after[2]);
        }
        if (slew_step != 0) {
            const uint64_t left =
                slew_left < 0 ? 0 - static_cast<uint64_t>(slew_left) : static_cast<uint64_t>(slew_left);
            const uint64_t each =
                slew_step < 0 ? 0 - static_cast<uint64_t>(slew_step) : static_cast<uint64_t>(slew_step);
            if (slew_left == 0 || (slew_left < 0) == (slew_step < 0)) return false;
            k = std::min<uint64_t>(k, left / each);
        }
        if (step[3] < 0) k = std::min<uint64_t>(k, after[3]);
        if (regs->__PVT__pps.__PVT__control.__PVT__output_enable.__PVT__value) {
            constexpr u128 SECOND = u128{1} << 72;
            const u128 left = SECOND - (wide(top->now_q72_o.data()) & (SECOND - 1));
            // The output looks up to 7.6 us and three cycles ahead.
            const auto until = static_cast<uint64_t>(left / add);
            k = std::min<uint64_t>(k, until > 1100 ? until - 1100 : 0);
        }
        if (k < 4 * MARGIN) return false;
        k -= 2 * MARGIN;
        for (int i = 0; i < 4; ++i) *members[i] += static_cast<uint32_t>(step[i]) * static_cast<uint32_t>(k);
        root->SLEW = static_cast<uint64_t>(slew_left + slew_step * static_cast<int64_t>(k));
        const u128 now = wide(top->now_q72_o.data()) + add * k, next = wide(root->NEXT.data()) + add * k;
        for (size_t i = 0; i < 4; ++i) {
            root->NOW[i] = static_cast<uint32_t>(now >> (32 * i));
            root->NEXT[i] = static_cast<uint32_t>(next >> (32 * i));
        }
        root->NOW[3] &= 0xFF;
        root->NEXT[3] &= 0xFF;
        const u128 time_fs =
            ((u128{static_cast<uint64_t>(period_fs)} << 32) | period_fraction) * k + now_fraction;
        now_fraction = static_cast<uint32_t>(time_fs);
        now_fs += static_cast<int64_t>(time_fs >> 32);
        cycles += k;
        leapt += k;
        for (uint64_t i = 0; i < MARGIN; ++i) edge();
        return true;
    }

    void run_until(int64_t fs) {
        while (now_fs + period_fs <= fs) {
            if (leaping && leap(fs)) continue;
            for (int i = 0; i < 64 && now_fs + period_fs <= fs; ++i) edge();
        }
    }

    bool write(uint32_t address, uint32_t data) {
        auto* t = top.get();
        t->s_axil_awaddr = t->s_axil_araddr = address & 0x1FFFF;
        t->s_axil_wdata = data;
        t->s_axil_wstrb = 15;
        t->s_axil_awvalid = t->s_axil_wvalid = 1;
        t->eval();
        for (int i = 0; i < 1000; ++i) {
            register_cycles = 66;
            const bool taken = t->s_axil_awready && t->s_axil_wready, done = t->s_axil_bvalid;
            edge();
            if (taken) t->s_axil_awvalid = t->s_axil_wvalid = 0;
            t->eval();
            if (done) return true;
        }
        return false;
    }

    bool read(uint32_t address, uint32_t& data) {
        auto* t = top.get();
        t->s_axil_araddr = address & 0x1FFFF;
        t->s_axil_arvalid = 1;
        t->eval();
        for (int i = 0; i < 1000; ++i) {
            register_cycles = 66;
            const bool taken = t->s_axil_arready, done = t->s_axil_rvalid;
            data = t->s_axil_rdata;
            edge();
            if (taken) t->s_axil_arvalid = 0;
            t->eval();
            if (done) return true;
        }
        return false;
    }

    VerilatedContext context;
    std::unique_ptr<Vclock_card> top;
    PpsSampler sampler;
    int64_t now_fs = 0, before_fs = 0;
    uint32_t now_fraction = 0;
    int64_t period_fs = 8'000'000;
    uint32_t period_fraction = 0;
    uint32_t before_time[4] = {};
    uint64_t cycles = 0, leapt = 0, awake = 0, stretch = 0, longest = 0;
    uint32_t register_cycles = 65;
    bool leaping = true, gated = true;
    SerialLine line;
    bool out_level = false;
    std::vector<int64_t> out_changes;
    std::vector<Range> before;
    std::vector<char> snapshot;
};

}  // namespace

#define API extern "C" __attribute__((visibility("default")))

API ClockSim* cs_new(uint64_t seed) {
    return new ClockSim(seed);
}
API void cs_delete(ClockSim* sim) {
    delete sim;
}
// leaping: skip idle time. gated: leave out the edges of clocks that nothing waits for.
API void cs_options(ClockSim* sim, int leaping, int gated) {
    sim->leaping = leaping != 0;
    sim->gated = gated != 0;
}
API void cs_period(ClockSim* sim, int64_t fs, uint32_t fraction) {
    sim->period_fs = fs;
    sim->period_fraction = fraction;
}
API void cs_noise(ClockSim* sim, int64_t jitter_fs, int64_t window_fs) {
    sim->sampler.set_noise(jitter_fs, window_fs);
}
// The PPS line changes at fs; false: not later than the last change, or over.
API int cs_change(ClockSim* sim, int64_t fs) {
    if (fs <= sim->sampler.last_change() || fs <= sim->now_fs + sim->period_fs) return 0;
    sim->sampler.change(fs);
    return 1;
}
API void cs_send(ClockSim* sim, int64_t start_fs, int64_t bit_fs, const uint8_t* bytes, uint64_t n,
                 int stop) {
    sim->line.send(std::max(start_fs, sim->now_fs), bit_fs, bytes, n, stop != 0);
}
API void cs_run_until(ClockSim* sim, int64_t fs) {
    sim->run_until(fs);
}
API int cs_write(ClockSim* sim, uint32_t address, uint32_t data) {
    return sim->write(address, data);
}
API int cs_read(ClockSim* sim, uint32_t address, uint32_t* data) {
    return sim->read(address, *data);
}
// now_fs, the edge before it; cycles, leapt, awake and longest awake stretch of the core in cycles
API void cs_counts(const ClockSim* sim, int64_t* out) {
    out[0] = sim->now_fs;
    out[1] = sim->before_fs;
    out[2] = static_cast<int64_t>(sim->cycles);
    out[3] = static_cast<int64_t>(sim->leapt);
    out[4] = static_cast<int64_t>(sim->awake);
    out[5] = static_cast<int64_t>(sim->longest);
}
API void cs_clear_longest(ClockSim* sim) {
    sim->longest = sim->stretch = 0;
}
// Card time (q72, four words) that edges now_fs and before_fs made.
API void cs_time(const ClockSim* sim, uint32_t* now, uint32_t* before) {
    std::memcpy(now, sim->top->now_q72_o.data(), 16);
    std::memcpy(before, sim->before_time, 16);
}
// Changes of the PPS output on the serialiser's pin since the last call, in fs.
API uint64_t cs_output(ClockSim* sim, int64_t* out, uint64_t room) {
    const uint64_t n = std::min<uint64_t>(room, sim->out_changes.size());
    std::copy_n(sim->out_changes.begin(), n, out);
    sim->out_changes.erase(sim->out_changes.begin(),
                           sim->out_changes.begin() + static_cast<std::ptrdiff_t>(n));
    return n;
}
API uint64_t cs_state(const ClockSim* sim, uint8_t* out, uint64_t room) {
    const Root* root = sim->top->rootp;
    const auto at = [root](const auto& member) {
        return static_cast<uint64_t>(reinterpret_cast<const char*>(&member) -
                                     reinterpret_cast<const char*>(root));
    };
    const uint64_t begin = at(root->clk_i), size = at(root->vlSymsp) - begin;
    if (size <= room) std::memcpy(out, reinterpret_cast<const char*>(root) + begin, size);
    return size;
}
