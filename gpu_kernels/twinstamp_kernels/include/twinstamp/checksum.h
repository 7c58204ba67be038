// SPDX-License-Identifier: Apache-2.0
// Checksums of packets: the Internet's (RFC 1071) and SCTP's CRC-32C (RFC 9260 appendix A).
#pragma once

#include "twinstamp/platform.h"

namespace twinstamp {

// The sum of the 16-bit words of the n bytes at p, modulo 2^16 - 1, as a number that is not reduced. The
// words are little-endian: such a sum is that of big-endian words times 256, so it is 0 where theirs is.
TS_HD u64 word_sum(const u8* p, u32 n) {
    u64 sum = 0, carries = 0;  // 2^64 is 1 modulo 2^16 - 1
    u32 at = 0;
    for (; at + 8 <= n; at += 8) {
        const u64 word = read_word(p + at);
        sum += word;
        carries += sum < word;
    }
    if (at < n) {
        // Of eight bytes or more the last eight, without those that are summed already: one load.
        const u32 left = n - at;
        const u64 word = n >= 8 ? read_word(p + n - 8) >> (64 - 8 * left) : read_bytes(p + at, left);
        sum += word;
        carries += sum < word;
    }
    return (sum >> 32) + (sum & 0xFFFFFFFFu) + carries;
}

// A number of 16 bits, as word_sum has it.
TS_HD u64 word_of(u32 value) {
    return (value & 0xFF) << 8 | value >> 8;
}

// Whether words with this word_sum, their checksum among them, are right.
TS_HD bool sums_up(u64 sum) {
    return sum % 0xFFFF == 0 && sum != 0;
}

// CRC-32C as SCTP has it, with the four bytes at `hole` taken for zeros.
TS_HD u32 crc32c(const u8* p, u32 n, u32 hole) {
    static constexpr u32 table[16] = {0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3,
                                      0x61C69362, 0x7198540D, 0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9,
                                      0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75};
    u32 crc = ~0u;
    for (u32 i = 0; i < n; ++i) {
        crc ^= i - hole < 4 ? 0 : p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

}  // namespace twinstamp
