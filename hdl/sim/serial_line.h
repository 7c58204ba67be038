// SPDX-License-Identifier: Apache-2.0
// A serial line into the card: bytes as levels at femtosecond times, 8 data bits, no parity, one stop bit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>

namespace twinstamp::sim {

class SerialLine {
  public:
    // Bytes one after another from start_fs on, or as soon as the line is free; stop: a stop bit follows
    // each.
    void send(int64_t start_fs, int64_t bit_fs, const uint8_t* bytes, uint64_t n, bool stop) {
        int64_t at = start_fs;
        if (!bytes_.empty()) at = std::max(at, bytes_.back().start_fs + 10 * bytes_.back().bit_fs);
        for (uint64_t i = 0; i < n; ++i) {
            bytes_.push_back({at, bit_fs, static_cast<uint16_t>((bytes[i] << 1) | (stop ? 0x200 : 0))});
            at += 10 * bit_fs;
        }
        if (!bytes_.empty()) next_fs_ = std::min(next_fs_, bytes_.front().start_fs);
    }
    // When level() may change next; INT64_MAX: never.
    int64_t next() const { return next_fs_; }

    // At now_fs, which never falls.
    bool level(int64_t now_fs) {
        if (now_fs < next_fs_) return level_;
        level_ = true;
        next_fs_ = INT64_MAX;
        while (!bytes_.empty()) {
            const Byte& byte = bytes_.front();
            if (now_fs < byte.start_fs) {
                next_fs_ = byte.start_fs;
                break;
            }
            const int64_t bit = (now_fs - byte.start_fs) / byte.bit_fs;
            if (bit < 10) {
                level_ = byte.bits >> bit & 1;
                next_fs_ = byte.start_fs + (bit + 1) * byte.bit_fs;
                break;
            }
            bytes_.pop_front();
        }
        return level_;
    }

  private:
    struct Byte {
        int64_t start_fs, bit_fs;
        uint16_t bits;  // start bit first
    };
    std::deque<Byte> bytes_;
    int64_t next_fs_ = INT64_MAX;
    bool level_ = true;
};

}  // namespace twinstamp::sim
