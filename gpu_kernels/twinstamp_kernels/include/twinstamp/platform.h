// SPDX-License-Identifier: Apache-2.0
// What lets one source build as CUDA C++ (NVRTC has no standard headers) and as plain C++.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define TS_HD __host__ __device__ __forceinline__
#define TS_HD_APART TS_HD
#define TS_DEVICE_ONLY __device__ __forceinline__
#else
#define TS_HD inline
// One function with all that it calls in it: what is in line everywhere makes the compiler leave other things
// out.
#define TS_HD_APART [[gnu::noinline, gnu::flatten]] inline
#define TS_DEVICE_ONLY inline
#endif

// Device code: on a GPU, or under the CPU emulation of one (tests/emulation), which brings the intrinsics.
#if defined(__CUDA_ARCH__) || defined(TS_EMULATION)
#define TS_DEVICE 1
#endif

#if !defined(__CUDACC_RTC__)
#include <cstdint>
#endif

namespace twinstamp {

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
using u8 = unsigned char;
using u16 = unsigned short;
using u32 = unsigned int;
using u64 = unsigned long long;
using i32 = int;
using i64 = long long;
#else
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i32 = std::int32_t;
using i64 = std::int64_t;
#endif

// Upper 64 bits of a 64 x 64 bit product.
TS_HD u64 multiply_high(u64 a, u64 b) {
#if defined(TS_DEVICE)
    return __umul64hi(a, b);
#else
    return static_cast<u64>((static_cast<unsigned __int128>(a) * b) >> 64);
#endif
}

// Network (big-endian) and little-endian reads of unaligned bytes.
TS_HD u16 read_be16(const u8* p) {
    return static_cast<u16>((p[0] << 8) | p[1]);
}
TS_HD u32 read_be32(const u8* p) {
    return (static_cast<u32>(p[0]) << 24) | (static_cast<u32>(p[1]) << 16) | (static_cast<u32>(p[2]) << 8) |
           p[3];
}
TS_HD u64 read_le64(const u8* p) {
    u64 value = 0;
    for (int i = 7; i >= 0; --i) value = (value << 8) | p[i];
    return value;
}

// The n bytes at p, 8 at most count, as a little-endian word with zeros behind them.
TS_HD u64 read_bytes(const u8* p, u32 n) {
#if defined(TS_DEVICE)
    // In aligned words: a warp's byte loads cost as much each. They may touch neighbours of the bytes in
    // the same word, which every allocation has room for.
    const u32 skip = static_cast<u32>(reinterpret_cast<u64>(p) & 3);
    const u32* words = reinterpret_cast<const u32*>(p - skip);
    const u32 end = skip + (n < 8 ? n : 8);
    const u32 a = n > 0 ? words[0] : 0, b = end > 4 ? words[1] : 0, c = end > 8 ? words[2] : 0;
    const u64 value =
        static_cast<u64>(__funnelshift_r(b, c, 8 * skip)) << 32 | __funnelshift_r(a, b, 8 * skip);
    return n >= 8 ? value : value & ((1ull << (8 * n)) - 1);
#else
    u64 value = 0;
    for (u32 i = 0; i < n && i < 8; ++i) value |= static_cast<u64>(p[i]) << (8 * i);
    return value;
#endif
}

// The eight bytes at p as a little-endian word.
TS_HD u64 read_word(const u8* p) {
#if defined(TS_DEVICE) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    return read_bytes(p, 8);
#else
    u64 value;
    __builtin_memcpy(&value, p, 8);
    return value;
#endif
}

}  // namespace twinstamp
