// SPDX-License-Identifier: Apache-2.0
// The Verilated serial_card, as a board without host memory has it: bits on the line to the host, GMII at its
// ports. All clocks are one here; a port's wire is a list of bytes, what it sends is kept. For
// tests/card/serial_line.py.
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "../host_line.h"
#include "Vserial_card.h"
#include "verilated.h"

namespace {

constexpr int PORTS = 2;

struct Bench {
    VerilatedContext context;
    Vserial_card top{&context};
    HostLine line;
    std::deque<std::uint16_t> wire[PORTS];  // bytes to receive; 256: none
    std::vector<std::uint8_t> sent[PORTS];  // frames as sent, preamble and FCS included, one after the other
    std::vector<std::uint32_t> lengths[PORTS];
    bool sending[PORTS] = {};

    Bench(unsigned divider, double bit) {
        line.bit_cycles = bit;
        top.divider_i = static_cast<std::uint16_t>(divider);
        top.rst_ni = 0;
        top.host_rx_i = top.uart_rx_i = 1;
        top.mdio_i = 3;
        for (int i = 0; i < 8; ++i) clock(true);
        top.rst_ni = 1;
    }

    bool clock(bool level) {
        const bool answer = top.host_tx_o != 0;
        top.host_rx_i = level;
        for (int p = 0; p < PORTS; ++p) {
            std::uint16_t symbol = 256;
            if (!wire[p].empty()) {
                symbol = wire[p].front();
                wire[p].pop_front();
            }
            const auto bit = static_cast<std::uint8_t>(1 << p);
            top.rxd_i[p] = static_cast<std::uint8_t>(symbol & 0xFF);
            top.rx_dv_i = static_cast<std::uint8_t>((top.rx_dv_i & ~bit) | (symbol < 256 ? bit : 0));
            if ((top.tx_en_o & bit) != 0) {
                if (!sending[p]) lengths[p].push_back(0);
                ++lengths[p].back();
                sent[p].push_back(top.txd_o[p]);
            }
            sending[p] = (top.tx_en_o & bit) != 0;
        }
        top.clk_i = 0;
        top.rx_clk_i = 0;
        top.eval();
        top.clk_i = 1;
        top.rx_clk_i = (1 << PORTS) - 1;
        top.eval();
        return answer;
    }
};

}  // namespace

extern "C" {
Bench* sc_new(unsigned divider, double bit_cycles) {
    return new Bench(divider, bit_cycles);
}
void sc_delete(Bench* bench) {
    delete bench;
}
// As HostLine::exchange.
std::uint64_t sc_exchange(Bench* bench, const std::uint8_t* bytes, std::uint64_t n, std::uint8_t* back,
                          std::uint64_t want, std::uint64_t quiet) {
    return bench->line.exchange(bytes, n, back, want, quiet,
                                [bench](bool level) { return bench->clock(level); });
}
void sc_run(Bench* bench, std::uint64_t cycles) {
    for (std::uint64_t i = 0; i < cycles; ++i) {
        bench->clock(true);
        ++bench->line.cycles;
    }
}
// Puts what a frame is on the wire: preamble, SFD, bytes (FCS included), `gap` bytes of nothing.
void sc_wire(Bench* bench, unsigned port, const std::uint8_t* frame, std::uint64_t n, std::uint64_t gap) {
    auto& wire = bench->wire[port];
    for (int i = 0; i < 7; ++i) wire.push_back(0x55);
    wire.push_back(0xD5);
    for (std::uint64_t i = 0; i < n; ++i) wire.push_back(frame[i]);
    for (std::uint64_t i = 0; i < gap; ++i) wire.push_back(256);
}
// The oldest frame that a port sent, preamble and FCS included: its length, 0 for none; takes it away.
std::uint64_t sc_sent(Bench* bench, unsigned port, std::uint8_t* out) {
    auto& lengths = bench->lengths[port];
    if (lengths.empty() || (lengths.size() == 1 && bench->sending[port])) return 0;
    const std::uint32_t n = lengths.front();
    auto& sent = bench->sent[port];
    std::memcpy(out, sent.data(), n);
    sent.erase(sent.begin(), sent.begin() + n);
    lengths.erase(lengths.begin());
    return n;
}
std::uint64_t sc_cycles(Bench* bench) {
    return bench->line.cycles;
}
std::uint64_t sc_framing_errors(Bench* bench) {
    return bench->line.framing_errors;
}
}
