// SPDX-License-Identifier: Apache-2.0
// The Verilated uart_bridge at the two ends it has: bits on a serial line, and a card's registers and memory
// that ctypes hands in. For host/twinstamp/card/uart_sim.py.
#include <cstdint>
#include <cstring>

#include "../host_line.h"
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
    HostLine line;

    explicit Bench(double bit) {
        line.bit_cycles = bit;
        top.rst_ni = 0;
        top.rx_i = 1;
        for (int i = 0; i < 8; ++i) clock();
        top.rst_ni = 1;
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
// As HostLine::exchange.
std::uint64_t ub_exchange(Bench* bench, const std::uint8_t* bytes, std::uint64_t n, std::uint8_t* back,
                          std::uint64_t want, std::uint64_t quiet) {
    return bench->line.exchange(bytes, n, back, want, quiet, [bench](bool level) {
        bench->top.rx_i = level;
        const bool answer = bench->top.tx_o != 0;
        bench->clock();
        return answer;
    });
}
std::uint64_t ub_cycles(Bench* bench) {
    return bench->line.cycles;
}
std::uint64_t ub_framing_errors(Bench* bench) {
    return bench->line.framing_errors;
}
}
