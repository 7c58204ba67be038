// SPDX-License-Identifier: Apache-2.0
// The host's end of a serial line, by the bit: ten bits a byte, a bit need not be a whole number of cycles.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

struct HostLine {
    double bit_cycles = 0;
    std::uint64_t cycles = 0;  // of the card, counted by whoever runs it

    // The host's transmitter.
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

    // Sends bytes, then has `clock(level)`, which runs a cycle and returns the card's line, run until `want`
    // bytes are back or the line was quiet for `quiet` cycles. Returns how many came; what came beyond is
    // there at the next call.
    template <typename Clock>
    std::uint64_t exchange(const std::uint8_t* bytes, std::uint64_t n, std::uint8_t* back, std::uint64_t want,
                           std::uint64_t quiet, Clock clock) {
        out.assign(bytes, bytes + n);
        out_byte = 0;
        out_start = static_cast<double>(cycles);
        last_activity = cycles;
        while (out_byte < out.size() || (in.size() < want && cycles - last_activity < quiet)) {
            const bool level = line_out();
            line_in(clock(level));
            ++cycles;
        }
        const std::uint64_t got = in.size() < want ? in.size() : want;
        std::memcpy(back, in.data(), got);
        in.erase(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(got));
        return got;
    }
};
