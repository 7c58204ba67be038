// SPDX-License-Identifier: Apache-2.0
// The Verilated uart_bridge at the two ends it has: bits on a serial line, and a card's registers and memory
// that ctypes hands in. For host/twinstamp/card/uart_sim.py.
#include <cstdint>
#include <cstring>
#include <vector>

#include "Vuart_bridge.h"
#include "verilated.h"

namespace {

using Read = int (*)(std::uint32_t address, std::uint32_t* value);
using Write = int (*)(std::uint32_t address, std::uint32_t value);

struct Bench {
    VerilatedContext context;
    Vuart_bridge top{&context};
    Read read = nullptr;
    Write write = nullptr;
    std::uint8_t* memory = nullptr;
    std::uint64_t memory_bytes = 0;
    double bit_cycles = 0;  // of the host's UART: need not be whole
    std::uint64_t cycles = 0;

    // The host's transmitter: ten bits a byte.
    std::vector<std::uint8_t> out;
    std::size_t out_byte = 0;
    double out_start = 0;
    // The host's receiver.
    std::vector<std::uint8_t> in;
    bool in_frame = false;
    double in_start = 0;
    unsigned in_bit = 0;
    std::uint32_t in_shift = 0;
    std::uint64_t framing_errors = 0;
    std::uint64_t last_activity = 0;

    explicit Bench(double bit) : bit_cycles(bit) {
        top.rst_ni = 0;
        top.rx_i = 1;
        for (int i = 0; i < 8; ++i) clock();
        top.rst_ni = 1;
    }

    bool line_out() {
        if (out_byte >= out.size()) return true;
        const auto bit = static_cast<int>((static_cast<double>(cycles) - out_start) / bit_cycles);
        if (bit >= 10) {
            ++out_byte;
            out_start += 10 * bit_cycles;
            last_activity = cycles;
            if (out_byte >= out.size()) return true;
            return line_out();
        }
        if (bit == 0) return false;
        if (bit == 9) return true;
        return (out[out_byte] >> (bit - 1) & 1) != 0;
    }
    void line_in(bool level) {
        const double now = static_cast<double>(cycles);
        if (!in_frame) {
            if (level) return;
            in_frame = true;
            in_start = now;
            in_bit = 0;
            in_shift = 0;
        }
        // In the middle of each bit.
        if (now < in_start + (in_bit + 0.5) * bit_cycles) return;
        in_shift |= static_cast<std::uint32_t>(level) << in_bit;
        if (++in_bit < 10) return;
        if ((in_shift & 1) != 0 || (in_shift >> 9 & 1) == 0) ++framing_errors;
        in.push_back(static_cast<std::uint8_t>(in_shift >> 1));
        in_frame = false;
        last_activity = cycles;
    }
    void clock() {
        top.clk_i = 0;
        top.eval();
        top.clk_i = 1;
        // What happens at the edge is what both sides showed before it.
        const bool write_taken = top.m_axil_awvalid && top.m_axil_awready;
        const bool read_taken = top.m_axil_arvalid && top.m_axil_arready;
        const bool b_taken = top.m_axil_bvalid && top.m_axil_bready;
        const bool r_taken = top.m_axil_rvalid && top.m_axil_rready;
        const std::uint32_t awaddr = top.m_axil_awaddr, wdata = top.m_axil_wdata, araddr = top.m_axil_araddr;
        const bool memory_write = top.memory_write_o;
        const std::uint64_t at = std::uint64_t{top.memory_address_o} * 8;
        const std::uint64_t memory_data = top.memory_data_o;
        top.eval();
        if (b_taken) top.m_axil_bvalid = 0;
        if (r_taken) top.m_axil_rvalid = 0;
        if (write_taken) {
            top.m_axil_bresp = static_cast<std::uint8_t>(write(awaddr, wdata));
            top.m_axil_bvalid = 1;
        }
        if (read_taken) {
            std::uint32_t value = 0;
            top.m_axil_rresp = static_cast<std::uint8_t>(read(araddr, &value));
            top.m_axil_rdata = value;
            top.m_axil_rvalid = 1;
        }
        top.m_axil_awready = top.m_axil_wready =
            top.m_axil_awvalid && top.m_axil_wvalid && !top.m_axil_bvalid;
        top.m_axil_arready = top.m_axil_arvalid && !top.m_axil_rvalid;
        if (memory != nullptr && at + 8 <= memory_bytes) {
            if (memory_write) std::memcpy(memory + at, &memory_data, 8);
            std::uint64_t value;
            std::memcpy(&value, memory + at, 8);
            top.memory_data_i = value;
        }
        ++cycles;
    }
};

}  // namespace

extern "C" {
Bench* ub_new(unsigned divider, double bit_cycles, Read read, Write write, std::uint8_t* memory,
              std::uint64_t bytes) {
    auto* bench = new Bench(bit_cycles);
    bench->top.divider_i = static_cast<std::uint16_t>(divider);
    bench->read = read;
    bench->write = write;
    bench->memory = memory;
    bench->memory_bytes = bytes;
    return bench;
}
void ub_delete(Bench* bench) {
    delete bench;
}
// Sends bytes over the line, then runs until `want` bytes are back or the line was quiet for `quiet` cycles.
// Returns how many bytes came; what came beyond is there at the next call.
std::uint64_t ub_exchange(Bench* bench, const std::uint8_t* bytes, std::uint64_t n, std::uint8_t* back,
                          std::uint64_t want, std::uint64_t quiet) {
    bench->out.assign(bytes, bytes + n);
    bench->out_byte = 0;
    bench->out_start = static_cast<double>(bench->cycles);
    bench->last_activity = bench->cycles;
    while (bench->out_byte < bench->out.size() ||
           (bench->in.size() < want && bench->cycles - bench->last_activity < quiet)) {
        bench->top.rx_i = bench->line_out();
        bench->line_in(bench->top.tx_o != 0);
        bench->clock();
    }
    const std::uint64_t got = bench->in.size() < want ? bench->in.size() : want;
    std::memcpy(back, bench->in.data(), got);
    bench->in.erase(bench->in.begin(), bench->in.begin() + static_cast<std::ptrdiff_t>(got));
    return got;
}
std::uint64_t ub_cycles(Bench* bench) {
    return bench->cycles;
}
std::uint64_t ub_framing_errors(Bench* bench) {
    return bench->framing_errors;
}
}
