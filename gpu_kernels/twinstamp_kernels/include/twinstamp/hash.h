// SPDX-License-Identifier: Apache-2.0
// The keyed 128-bit almost-universal hash behind every key (docs/decisions/0001-keyed-digest.md).
//
// A message is a head (a multiple of 8 bytes) followed by a tail, zero-padded to whole 8-byte
// little-endian words w_0, w_1, …, cut into blocks of 128 words.
//   Level 1, NH (Black et al., UMAC, CRYPTO 1999), four Toeplitz streams s = 0..3 per block:
//     N_s = sum over i of ((lo32(w_i) + k[2i+2s]) mod 2^32) * ((hi32(w_i) + k[2i+2s+1]) mod 2^32) mod 2^64
//   Level 2, multilinear (Lemire & Kaser 2014), per 64-bit half h, with 128-bit keys:
//     H_h = (m_0 + sum of m_j * c_j mod 2^128) >> 64,
//     c = (domain << 32 | message bytes), then of each block N_2h and N_2h+1.
// Two different messages collide with probability <= 2^-126 over the key; either half alone, as the
// card carries it, with <= 2^-63.
#pragma once

#include "twinstamp/platform.h"

#if !defined(__CUDACC_RTC__) && !defined(__CUDA_ARCH__)
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#endif

namespace twinstamp {

constexpr u32 HASH_BLOCK_BYTES = 1024;
constexpr u32 HASH_STREAMS = 4;
constexpr u32 MAX_CAPLEN = 262144;    // wiretap's limit for ordinary link types
constexpr u32 MAX_HEAD_BYTES = 1024;  // room for a normalised head before the tail
constexpr u32 HASH_MAX_BLOCKS = (MAX_CAPLEN + MAX_HEAD_BYTES) / HASH_BLOCK_BYTES;
constexpr u32 HASH_LIMBS = 2 + 2 * HASH_MAX_BLOCKS;  // m_0, length, then two per block

struct Limb {
    u64 low;
    u64 high;
};

// Random per run: whoever knew it could make frames collide and hide them (DESIGN: Duplicate).
struct HashKey {
    u32 nh[HASH_BLOCK_BYTES / 4 + 2 * (HASH_STREAMS - 1) + 2];
    Limb limbs[2][HASH_LIMBS];
};

struct Digest {
    u64 half[2];
    TS_HD bool operator==(const Digest& other) const {
        return half[0] == other.half[0] && half[1] == other.half[1];
    }
};

namespace detail {

// Sum modulo 2^128.
struct Accumulator {
    u64 low, high;
    TS_HD void add(const Limb& key, u64 value) {
#if defined(__SIZEOF_INT128__) && !defined(__CUDACC__) && !defined(__CUDACC_RTC__)
        // One multiplication for both halves of the product.
        const unsigned __int128 product = static_cast<unsigned __int128>(key.low) * value;
        const unsigned __int128 sum = ((static_cast<unsigned __int128>(high) << 64) | low) + product;
        low = static_cast<u64>(sum);
        high = static_cast<u64>(sum >> 64) + key.high * value;
#else
        const u64 product = key.low * value;
        high += multiply_high(key.low, value) + key.high * value;
        low += product;
        high += low < product;
#endif
    }
    TS_HD void add(const Accumulator& other) {
        low += other.low;
        high += other.high + (low < other.low);
    }
    TS_HD u64 result() const { return high; }
};

// NH over n bytes from word `word` of a block; only a message's last bytes may be fewer than 8.
TS_HD void nh_portable(const u32* nh, u32 word, const u8* p, u32 n, u64 sum[HASH_STREAMS]) {
    for (u32 at = 0; at < n; at += 8, ++word) {
        const u64 w = read_bytes(p + at, n - at);
        for (u32 s = 0; s < HASH_STREAMS; ++s) {
            const u32 a = static_cast<u32>(w) + nh[2 * (word + s)];
            const u32 b = static_cast<u32>(w >> 32) + nh[2 * (word + s) + 1];
            sum[s] += static_cast<u64>(a) * b;
        }
    }
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && !defined(TS_DEVICE)
#define TS_HASH_SIMD 1
inline void nh_simd(const u32* nh, u32 word, const u8* p, u32 n, u64 sum[HASH_STREAMS]) {
    const u32* key = nh + 2 * word;
    __m512i total[HASH_STREAMS];
    for (auto& t : total) t = _mm512_setzero_si512();
    for (u32 at = 0; at < n; at += 64, key += 16) {
        const u32 left = n - at;
        // A masked load touches only the bytes it keeps; a key word masked to 0 makes its product 0.
        const __mmask64 bytes = left >= 64 ? ~0ull : (1ull << left) - 1;
        const __mmask8 words = static_cast<__mmask8>(left >= 64 ? 0xFF : (1u << ((left + 7) / 8)) - 1);
        const __m512i m = _mm512_maskz_loadu_epi8(bytes, p + at);
        for (u32 s = 0; s < HASH_STREAMS; ++s) {
            const __m512i a = _mm512_add_epi32(m, _mm512_maskz_loadu_epi64(words, key + 2 * s));
            total[s] = _mm512_add_epi64(total[s], _mm512_mul_epu32(a, _mm512_srli_epi64(a, 32)));
        }
    }
    // Four horizontal sums at once: pairs of streams side by side, then halves onto halves.
    const __m512i t01 = _mm512_add_epi64(_mm512_unpacklo_epi64(total[0], total[1]),
                                         _mm512_unpackhi_epi64(total[0], total[1]));
    const __m512i t23 = _mm512_add_epi64(_mm512_unpacklo_epi64(total[2], total[3]),
                                         _mm512_unpackhi_epi64(total[2], total[3]));
    const __m256i h01 = _mm256_add_epi64(_mm512_castsi512_si256(t01), _mm512_extracti64x4_epi64(t01, 1));
    const __m256i h23 = _mm256_add_epi64(_mm512_castsi512_si256(t23), _mm512_extracti64x4_epi64(t23, 1));
    const __m128i q01 = _mm_add_epi64(_mm256_castsi256_si128(h01), _mm256_extracti128_si256(h01, 1));
    const __m128i q23 = _mm_add_epi64(_mm256_castsi256_si128(h23), _mm256_extracti128_si256(h23, 1));
    sum[0] += static_cast<u64>(_mm_cvtsi128_si64(q01));
    sum[1] += static_cast<u64>(_mm_extract_epi64(q01, 1));
    sum[2] += static_cast<u64>(_mm_cvtsi128_si64(q23));
    sum[3] += static_cast<u64>(_mm_extract_epi64(q23, 1));
}
#elif defined(__AVX2__) && !defined(TS_DEVICE)
#define TS_HASH_SIMD 1
inline void nh_simd(const u32* nh, u32 word, const u8* p, u32 n, u64 sum[HASH_STREAMS]) {
    __m256i total[HASH_STREAMS];
    for (auto& t : total) t = _mm256_setzero_si256();
    const u32 whole = n & ~31u;
    const u32* key = nh + 2 * word;
    for (u32 at = 0; at < whole; at += 32, key += 8) {
        const __m256i m = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + at));
        for (u32 s = 0; s < HASH_STREAMS; ++s) {
            const __m256i k = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(key + 2 * s));
            const __m256i a = _mm256_add_epi32(m, k);
            total[s] = _mm256_add_epi64(total[s], _mm256_mul_epu32(a, _mm256_srli_epi64(a, 32)));
        }
    }
    for (u32 s = 0; s < HASH_STREAMS; ++s) {
        const __m128i half =
            _mm_add_epi64(_mm256_castsi256_si128(total[s]), _mm256_extracti128_si256(total[s], 1));
        sum[s] += static_cast<u64>(_mm_extract_epi64(half, 0)) + static_cast<u64>(_mm_extract_epi64(half, 1));
    }
    for (u32 at = whole; at < n; at += 8, key += 2) {
        u64 w = 0;
        std::memcpy(&w, p + at, n - at < 8 ? n - at : 8);
        for (u32 s = 0; s < HASH_STREAMS; ++s)
            sum[s] += static_cast<u64>(static_cast<u32>(w) + key[2 * s]) *
                      (static_cast<u32>(w >> 32) + key[2 * s + 1]);
    }
}
#endif

template <bool portable>
TS_HD void nh(const u32* key, u32 word, const u8* p, u32 n, u64 sum[HASH_STREAMS]) {
#if defined(TS_HASH_SIMD)
    if constexpr (!portable) {
        nh_simd(key, word, p, n, sum);
        return;
    }
#endif
    nh_portable(key, word, p, n, sum);
}

}  // namespace detail

// What a digest starts from: depends on the domain and the message's length alone, so a loop over frames
// of one length needs it once.
struct HashStart {
    detail::Accumulator half[2];
};

TS_HD HashStart hash_start(const HashKey& key, u32 domain, u32 bytes) {
    HashStart start;
    for (u32 h = 0; h < 2; ++h) {
        start.half[h] = {key.limbs[h][0].low, key.limbs[h][0].high};
        start.half[h].add(key.limbs[h][1], (static_cast<u64>(domain) << 32) | bytes);
    }
    return start;
}

// Digest of a message without a head, of at most one block.
template <bool portable = false>
TS_HD Digest hash_block(const HashKey& key, HashStart start, const u8* message, u32 bytes) {
    if (bytes > 0) {
        u64 sum[HASH_STREAMS] = {0, 0, 0, 0};
        detail::nh<portable>(key.nh, 0, message, bytes, sum);
        for (u32 h = 0; h < 2; ++h) {
            start.half[h].add(key.limbs[h][2], sum[2 * h]);
            start.half[h].add(key.limbs[h][3], sum[2 * h + 1]);
        }
    }
    return {{start.half[0].result(), start.half[1].result()}};
}

// Digest of head ++ tail in `domain` (0..255). head_bytes: a multiple of 8, at most MAX_HEAD_BYTES;
// head_bytes + tail_bytes at most HASH_MAX_BLOCKS * HASH_BLOCK_BYTES.
template <bool portable = false>
TS_HD Digest hash_message(const HashKey& key, u32 domain, const u8* head, u32 head_bytes, const u8* tail,
                          u32 tail_bytes) {
    HashStart start = hash_start(key, domain, head_bytes + tail_bytes);
    if (head_bytes == 0 && tail_bytes <= HASH_BLOCK_BYTES) {
        return hash_block<portable>(key, start, tail, tail_bytes);
    }
    detail::Accumulator* acc = start.half;
    const u8* piece = head;
    u32 piece_left = head_bytes;
    u32 left = head_bytes + tail_bytes;
    for (u32 limb = 2; left > 0; limb += 2) {
        u64 sum[HASH_STREAMS] = {0, 0, 0, 0};
        u32 filled = 0;
        while (filled < HASH_BLOCK_BYTES && left > 0) {
            if (piece_left == 0) {
                piece = tail;
                piece_left = left;
            }
            const u32 room = HASH_BLOCK_BYTES - filled;
            const u32 n = piece_left < room ? piece_left : room;
            detail::nh<portable>(key.nh, filled / 8, piece, n, sum);
            piece += n;
            piece_left -= n;
            left -= n;
            filled += n;
        }
        for (u32 h = 0; h < 2; ++h) {
            acc[h].add(key.limbs[h][limb], sum[2 * h]);
            acc[h].add(key.limbs[h][limb + 1], sum[2 * h + 1]);
        }
    }
    return {{acc[0].result(), acc[1].result()}};
}

}  // namespace twinstamp
