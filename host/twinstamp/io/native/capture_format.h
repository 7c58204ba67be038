// SPDX-License-Identifier: Apache-2.0
// What reader and writer of capture files share: magic numbers, byte order, tick arithmetic, errors.
// pcap: draft-ietf-opsawg-pcap-05; pcapng: draft-ietf-opsawg-pcapng-03.
#pragma once

#include <bit>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>

#include "twinstamp/platform.h"

namespace twinstamp {

using u128 = unsigned __int128;
using i128 = __int128;

constexpr u32 kPcapMagic = 0xA1B2C3D4;          // microseconds
constexpr u32 kPcapMagicNs = 0xA1B23C4D;        // nanoseconds
constexpr u32 kPcapMagicModified = 0xA1B2CD34;  // Kuznetzov's patch: 24-byte record headers
constexpr u32 kSectionHeader = 0x0A0D0D0A;
constexpr u32 kByteOrderMagic = 0x1A2B3C4D;
constexpr u32 kInterfaceDescription = 1;
constexpr u32 kObsoletePacket = 2;
constexpr u32 kSimplePacket = 3;
constexpr u32 kInterfaceStatistics = 5;
constexpr u32 kEnhancedPacket = 6;

constexpr u32 kPcapHeader = 24;
constexpr u32 kRecordHeader = 16;
constexpr u32 kRecordHeaderModified = 24;
constexpr u32 kPacketBlockHeader = 28;  // enhanced and obsolete packet blocks, up to the data
constexpr u32 kSimpleBlockHeader = 12;
constexpr u64 kMaxBlock = 16u << 20;  // wiretap's MAX_BLOCK_SIZE

// Flag bits of FrameBatch.flags (host/twinstamp/frames.py).
constexpr u16 kFlagOutgoing = 0x0001;
constexpr u16 kFlagBadFcs = 0x0002;
constexpr u16 kFlagNoTimestamp = 0x0004;

// Options of packet and interface blocks.
constexpr u16 kOptEnd = 0;
constexpr u16 kOptComment = 1;
constexpr u16 kOptFlags = 2;
constexpr u16 kOptIfName = 2;
constexpr u16 kOptIfTsresol = 9;
constexpr u16 kOptIfTsoffset = 14;
constexpr u16 kOptIsbIfrecv = 4;
constexpr u16 kOptIsbIfdrop = 5;
constexpr u32 kEpbOutbound = 2;         // bits 0-1 of epb_flags
constexpr u32 kEpbCrcError = 1u << 24;  // link-layer error bits: bit 24 is the CRC error

// Largest captured length believed, per link type: wiretap's wtap_max_snaplen_for_encap.
inline u32 max_caplen(u32 linktype) {
    switch (linktype) {
        case 231:
            return 128u << 20;  // D-Bus
        case 249:
            return 128u << 20;  // USBPcap
        case 279:
            return 8u << 20;  // Elektrobit high speed capture
        default:
            return 262144;
    }
}

inline u64 max_block(u32 linktype) {
    const u64 needed = static_cast<u64>(max_caplen(linktype)) + (64u << 10);
    return needed > kMaxBlock ? needed : kMaxBlock;
}

inline u16 swap16(u16 v) {
    return __builtin_bswap16(v);
}
inline u32 swap32(u32 v) {
    return __builtin_bswap32(v);
}
inline u64 swap64(u64 v) {
    return __builtin_bswap64(v);
}

// Loads and stores of a file whose byte order differs from this machine's when swap is set.
inline u16 load16(const u8* p, bool swap) {
    u16 v;
    std::memcpy(&v, p, 2);
    return swap ? swap16(v) : v;
}
inline u32 load32(const u8* p, bool swap) {
    u32 v;
    std::memcpy(&v, p, 4);
    return swap ? swap32(v) : v;
}
inline u64 load64(const u8* p, bool swap) {
    u64 v;
    std::memcpy(&v, p, 8);
    return swap ? swap64(v) : v;
}
inline void store16(u8* p, u16 v, bool swap) {
    if (swap) v = swap16(v);
    std::memcpy(p, &v, 2);
}
inline void store32(u8* p, u32 v, bool swap) {
    if (swap) v = swap32(v);
    std::memcpy(p, &v, 4);
}
inline void store64(u8* p, u64 v, bool swap) {
    if (swap) v = swap64(v);
    std::memcpy(p, &v, 8);
}

constexpr bool kBigEndianHost = std::endian::native == std::endian::big;
inline u64 padded(u64 n) {
    return (n + 3) & ~u64{3};
}

// Ticks of a capture's interface and nanoseconds, in integers. Ticks to nanoseconds truncates what is
// finer than a nanosecond, as wiretap does.
struct Resolution {
    bool binary = false;
    u8 exponent = 6;        // a tick is 10^-exponent or 2^-exponent s
    i64 offset_s = 0;       // if_tsoffset
    u64 multiplier = 1000;  // ns per tick, 0 where a tick is shorter than 1 ns
    u64 divisor = 0;        // ticks per ns, 0 where that exceeds 64 bits or the resolution is binary

    // value: the if_tsresol byte.
    static Resolution from_option(u8 value, i64 offset_s) {
        Resolution r;
        r.binary = (value & 0x80) != 0;
        r.exponent = value & 0x7F;
        r.offset_s = offset_s;
        r.multiplier = 0;
        r.divisor = 0;
        if (!r.binary) {
            if (r.exponent <= 9) {
                r.multiplier = power10(9 - r.exponent);
            } else if (r.exponent - 9 <= 19) {
                r.divisor = power10(r.exponent - 9);
            }
        }
        return r;
    }
    static u64 power10(int n) {
        u64 p = 1;
        for (int i = 0; i < n; ++i) p *= 10;
        return p;
    }

    // False where the instant does not fit int64 nanoseconds.
    bool to_ns(u64 ticks, i64& ns) const {
        u128 since;
        if (multiplier) {
            since = static_cast<u128>(ticks) * multiplier;
        } else if (binary) {
            since = (static_cast<u128>(ticks) * 1000000000u) >> exponent;
        } else {
            since = divisor ? ticks / divisor : 0;
        }
        const i128 total = static_cast<i128>(since) + static_cast<i128>(offset_s) * 1000000000;
        ns = static_cast<i64>(total);
        return static_cast<i128>(ns) == total;
    }

    // The ticks that read back as exactly ns; false where there are none.
    bool from_ns(i64 ns, u64& ticks) const {
        const i128 since = static_cast<i128>(ns) - static_cast<i128>(offset_s) * 1000000000;
        if (since < 0) return false;
        u128 wide;
        const u128 n = static_cast<u128>(since);
        if (multiplier) {
            if (n % multiplier) return false;
            wide = n / multiplier;
        } else if (binary) {
            if (exponent >= 94 || n >= ((u128{1} << 94) >> exponent)) {
                if (n) return false;
                wide = 0;
            } else {
                wide = ((n << exponent) + 999999999u) / 1000000000u;
            }
        } else {
            if (n && (!divisor || n > ~u128{0} / divisor)) return false;
            wide = n * divisor;
        }
        if (wide >> 64) return false;
        ticks = static_cast<u64>(wide);
        i64 back;
        return to_ns(ticks, back) && back == ns;
    }
};

// An error for the user, turned into the named class of twinstamp.errors.
struct CaptureError : std::runtime_error {
    const char* kind;
    int code;  // errno, or 0
    CaptureError(const char* kind_, const std::string& message, int code_ = 0)
        : std::runtime_error(message), kind(kind_), code(code_) {}
};

[[gnu::format(printf, 1, 2)]] inline std::string format(const char* text, ...) {
    va_list arguments;
    va_start(arguments, text);
    char line[1024];
    std::vsnprintf(line, sizeof line, text, arguments);
    va_end(arguments);
    return line;
}

}  // namespace twinstamp
