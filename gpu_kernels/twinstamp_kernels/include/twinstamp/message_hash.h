// SPDX-License-Identifier: Apache-2.0
// Digests of messages that lie in a frame but for their first bytes (used by key.h).
//
// A message is first ++ rest, its first 64 bytes masked. The digest is that of hash_message in hash.h
// over the same bytes; what this header adds is that they need not be assembled: a copy, written bytewise
// and read back as one vector, costs more than the hash.
#pragma once

#include "twinstamp/hash.h"

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define TS_INLINE TS_HD
#else
#define TS_INLINE inline __attribute__((always_inline))
#endif

namespace twinstamp {

constexpr u32 MASKED_BYTES = 64;  // one AVX-512 register

// Byte i < 64 of the message counts where bit i of `keep` is set, and then as AND with byte i of `pattern`.
struct Mask {
    const u64* pattern;  // 8 little-endian words
    u64 keep;
};

struct Message {
    const u8* first;
    u32 first_bytes;  // at most 64
    const u8* rest;
    u32 rest_bytes;
    TS_INLINE u32 bytes() const { return first_bytes + rest_bytes; }
    // Bytes of `rest` among the message's first 64.
    TS_INLINE u32 rest_masked() const {
        const u32 room = MASKED_BYTES - first_bytes;
        return rest_bytes < room ? rest_bytes : room;
    }
};

namespace detail {

TS_HD void copy_bytes(u8* to, const u8* from, u32 n) {
#if defined(TS_DEVICE) || defined(__CUDACC_RTC__)
    for (u32 i = 0; i < n; ++i) to[i] = from[i];
#else
    if (n > 0) std::memcpy(to, from, n);
#endif
}

// A byte of 0xFF for each bit set.
TS_HD u64 spread_bits(u32 bits) {
    const u64 hit = (bits * 0x0101010101010101ull) & 0x8040201008040201ull;
    return (((hit + 0x7F7F7F7F7F7F7F7Full) >> 7) & 0x0101010101010101ull) * 255;
}

// Bytes at..at+7 of a message whose first `n` bytes are all that counts, zeros behind them.
TS_HD u64 message_word(const Message& m, u32 at, u32 n) {
    if (at >= m.first_bytes) return read_bytes(m.rest + (at - m.first_bytes), n - at);
    const u32 front = m.first_bytes - at;
    if (front >= 8) return read_bytes(m.first + at, 8);
    return read_bytes(m.first + at, front) | read_bytes(m.rest, n - m.first_bytes) << (8 * front);
}

// NH of the message's first 64 bytes, as many of the four streams as asked for.
template <u32 streams>
TS_HD void nh_masked_portable(const u32* nh, const Message& m, const Mask& mask, u64* sum) {
    const u32 n = m.first_bytes + m.rest_masked();
    for (u32 s = 0; s < streams; ++s) sum[s] = 0;
    for (u32 word = 0; 8 * word < n; ++word) {
        const u64 w = message_word(m, 8 * word, n) & mask.pattern[word] &
                      spread_bits(static_cast<u32>(mask.keep >> (8 * word)) & 0xFF);
        for (u32 s = 0; s < streams; ++s) {
            const u32 a = static_cast<u32>(w) + nh[2 * (word + s)];
            const u32 b = static_cast<u32>(w >> 32) + nh[2 * (word + s) + 1];
            sum[s] += static_cast<u64>(a) * b;
        }
    }
}

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && !defined(TS_DEVICE)
#define TS_MASKED_SIMD 1
inline u64 low_bits(u32 n) {
    return n >= 64 ? ~0ull : (1ull << n) - 1;
}

template <u32 streams>
TS_INLINE void nh_masked_simd(const u32* nh, const Message& m, const Mask& mask, u64* sum) {
    const u32 n = m.first_bytes + m.rest_masked();
    const u64 front = low_bits(m.first_bytes);
    // A masked load touches only the bytes it keeps: `rest` may be read as if `first` lay before it.
    __m512i v = _mm512_maskz_loadu_epi8(
        low_bits(n) & ~front & mask.keep,
        reinterpret_cast<const u8*>(reinterpret_cast<std::uintptr_t>(m.rest) - m.first_bytes));
    if (m.first_bytes != 0) {
        v = _mm512_or_si512(v, _mm512_maskz_loadu_epi8(front & mask.keep, m.first));
    }
    v = _mm512_and_si512(v, _mm512_loadu_si512(mask.pattern));
    const __mmask8 words = static_cast<__mmask8>(low_bits((n + 7) / 8));
    __m512i total[streams];
    for (u32 s = 0; s < streams; ++s) {
        const __m512i a = _mm512_add_epi32(v, _mm512_maskz_loadu_epi64(words, nh + 2 * s));
        total[s] = _mm512_maskz_mul_epu32(0xFF, a, _mm512_maskz_srli_epi64(0xFF, a, 32));
    }
    for (u32 s = 0; s < streams; s += 2) {
        // GCC 12 takes the plain forms' undefined operand, which no lane uses, for an uninitialised variable.
        const __m512i t = _mm512_add_epi64(_mm512_maskz_unpacklo_epi64(0xFF, total[s], total[s + 1]),
                                           _mm512_maskz_unpackhi_epi64(0xFF, total[s], total[s + 1]));
        const __m256i h = _mm256_add_epi64(_mm512_maskz_extracti64x4_epi64(0xFF, t, 0),
                                           _mm512_maskz_extracti64x4_epi64(0xFF, t, 1));
        const __m128i q = _mm_add_epi64(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
        sum[s] = static_cast<u64>(_mm_cvtsi128_si64(q));
        sum[s + 1] = static_cast<u64>(_mm_extract_epi64(q, 1));
    }
}
#endif

template <bool portable, u32 streams>
TS_INLINE void nh_masked(const u32* nh, const Message& m, const Mask& mask, u64* sum) {
#if defined(TS_MASKED_SIMD)
    if constexpr (!portable) {
        nh_masked_simd<streams>(nh, m, mask, sum);
        return;
    }
#endif
    nh_masked_portable<streams>(nh, m, mask, sum);
}

TS_INLINE void add_block(const HashKey& key, u32 block, const u64* sum, Accumulator acc[2]) {
    for (u32 h = 0; h < 2; ++h) {
        const Limb* limb = &key.limbs[h][2 + 2 * block];
        acc[h].add(limb[0], sum[2 * h]);
        acc[h].add(limb[1], sum[2 * h + 1]);
    }
}

TS_INLINE void start(const HashKey& key, u32 domain, u32 bytes, Accumulator acc[2]) {
    for (u32 h = 0; h < 2; ++h) {
        acc[h] = {key.limbs[h][0].low, key.limbs[h][0].high};
        acc[h].add(key.limbs[h][1], (static_cast<u64>(domain) << 32) | bytes);
    }
}

// What follows the masked bytes: the rest of block 0 goes to `sum`, later blocks to `acc`.
template <bool portable>
TS_HD void add_rest(const HashKey& key, const u8* p, u32 left, u64 sum[HASH_STREAMS], Accumulator acc[2]) {
    constexpr u32 room = HASH_BLOCK_BYTES - MASKED_BYTES;
    const u32 now = left < room ? left : room;
    nh<portable>(key.nh, MASKED_BYTES / 8, p, now, sum);
    p += now;
    left -= now;
    for (u32 block = 1; left > 0; ++block) {
        u64 more[HASH_STREAMS] = {0, 0, 0, 0};
        const u32 n = left < HASH_BLOCK_BYTES ? left : HASH_BLOCK_BYTES;
        nh<portable>(key.nh, 0, p, n, more);
        add_block(key, block, more, acc);
        p += n;
        left -= n;
    }
}

}  // namespace detail

// hash_message of the masked message.
template <bool portable>
TS_HD Digest hash_masked(const HashKey& key, u32 domain, const Message& m, const Mask& mask) {
    using namespace detail;
    u64 sum[HASH_STREAMS];
    Accumulator acc[2];
    nh_masked<portable, HASH_STREAMS>(key.nh, m, mask, sum);
    start(key, domain, m.bytes(), acc);
    const u32 done = m.rest_masked();
    if (m.rest_bytes > done) add_rest<portable>(key, m.rest + done, m.rest_bytes - done, sum, acc);
    if (m.bytes() > 0) add_block(key, 0, sum, acc);
    return {{acc[0].result(), acc[1].result()}};
}

// hash_masked of one message under two masks and domains, going through what they share once.
template <bool portable>
TS_HD void hash_masked_pair(const HashKey& key, const Message& m, u32 domain_a, const Mask& mask_a,
                            u32 domain_b, const Mask& mask_b, Digest& a, Digest& b) {
    using namespace detail;
    u64 sum_a[HASH_STREAMS], sum_b[HASH_STREAMS];
    Accumulator acc_a[2], acc_b[2];
    nh_masked<portable, HASH_STREAMS>(key.nh, m, mask_a, sum_a);
    nh_masked<portable, HASH_STREAMS>(key.nh, m, mask_b, sum_b);
    start(key, domain_a, m.bytes(), acc_a);
    start(key, domain_b, m.bytes(), acc_b);
    const u32 done = m.rest_masked();
    if (m.rest_bytes > done) {
        u64 sum[HASH_STREAMS] = {0, 0, 0, 0};
        Accumulator shared[2] = {{0, 0}, {0, 0}};
        add_rest<portable>(key, m.rest + done, m.rest_bytes - done, sum, shared);
        for (u32 s = 0; s < HASH_STREAMS; ++s) {
            sum_a[s] += sum[s];
            sum_b[s] += sum[s];
        }
        for (u32 h = 0; h < 2; ++h) {
            acc_a[h].add(shared[h]);
            acc_b[h].add(shared[h]);
        }
    }
    add_block(key, 0, sum_a, acc_a);
    add_block(key, 0, sum_b, acc_b);
    a = {{acc_a[0].result(), acc_a[1].result()}};
    b = {{acc_b[0].result(), acc_b[1].result()}};
}

// A short hash, to tell apart the few frames whose digests are equal: 32 bits of the multilinear sum over
// two streams' halves, c_j 32 bits, m_j 64 bits (the lower halves of the digest's). Messages over 64 bytes:
// the low 32 bits of hash_masked.
template <bool portable>
TS_HD u32 short_hash_masked(const HashKey& key, u32 domain, const Message& m, const Mask& mask) {
    using namespace detail;
    const u32 bytes = m.bytes();
    if (bytes > MASKED_BYTES) return static_cast<u32>(hash_masked<portable>(key, domain, m, mask).half[0]);
    const Limb* limb = key.limbs[0];
    u64 low = limb[0].low + limb[1].low * ((domain << 8) | bytes);
    if (bytes > 0) {
        u64 sum[2];
        nh_masked<portable, 2>(key.nh, m, mask, sum);
        low += limb[2].low * static_cast<u32>(sum[0]) + limb[3].low * (sum[0] >> 32) +
               limb[4].low * static_cast<u32>(sum[1]) + limb[5].low * (sum[1] >> 32);
    }
    return static_cast<u32>(low >> 32);
}

}  // namespace twinstamp
