// SPDX-License-Identifier: Apache-2.0
// CUDA C++ for a plain compiler: what cuda/*.cu may use of the language and its intrinsics.
//
// The work is done in a runtime that must not be instrumented: fibers in scheduler.cpp, or operating system
// threads in threads.cpp. No standard header is included here, as there is none on a GPU.
#pragma once

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)

namespace emulation {

struct Site {
    const char* file;
    int line;
};

struct Index {
    unsigned int x;
};

enum Barrier : unsigned { BARRIER_PLAIN, BARRIER_OR, BARRIER_AND, BARRIER_COUNT };
enum Warp : unsigned {
    WARP_SYNC,
    WARP_SHUFFLE,
    WARP_SHUFFLE_UP,
    WARP_SHUFFLE_DOWN,
    WARP_SHUFFLE_XOR,
    WARP_BALLOT,
    WARP_ANY,
    WARP_ALL,
    WARP_MATCH_ANY
};
enum Atomic : unsigned {
    ATOMIC_ADD,
    ATOMIC_MAX,
    ATOMIC_MIN,
    ATOMIC_SIGNED_MAX,
    ATOMIC_SIGNED_MIN,
    ATOMIC_OR,
    ATOMIC_AND,
    ATOMIC_XOR,
    ATOMIC_EXCHANGE,
    ATOMIC_CAS
};

// A thread's own place never changes under it, hence const.
[[gnu::const]] Index thread_index();
[[gnu::const]] Index block_index();
[[gnu::const]] Index grid_size();

void* shared(const void* site, unsigned long bytes, const char* name);
int barrier(Barrier kind, int value, Site site);
unsigned long warp(Warp kind, unsigned mask, unsigned long value, unsigned bytes, unsigned argument,
                   unsigned width, Site site);
unsigned int atomic(Atomic kind, unsigned int* address, unsigned int value, unsigned int compare, Site site);
unsigned long atomic(Atomic kind, unsigned long* address, unsigned long value, unsigned long compare,
                     Site site);
void fence();

// Any 4 or 8 byte value as bits and back.
template <typename T>
unsigned long to_bits(T value) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "4 or 8 bytes");
    if constexpr (sizeof(T) == 4) {
        return __builtin_bit_cast(unsigned int, value);
    } else {
        return __builtin_bit_cast(unsigned long, value);
    }
}
template <typename T>
T from_bits(unsigned long bits) {
    if constexpr (sizeof(T) == 4) {
        return __builtin_bit_cast(T, static_cast<unsigned int>(bits));
    } else {
        return __builtin_bit_cast(T, bits);
    }
}

}  // namespace emulation

#define threadIdx (::emulation::thread_index())
#define blockIdx (::emulation::block_index())
#define gridDim (::emulation::grid_size())
#define blockDim (::emulation::Index{256})

// A block's own storage, told apart by where it is declared.
#define TS_SHARED(type, name, count)       \
    static const char name##_site = 0;     \
    type* const name = static_cast<type*>( \
        ::emulation::shared(&name##_site, sizeof(type) * static_cast<unsigned long>(count), #name))

// The caller's place in the source: taken where the default arguments are.
#define TS_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define TS_HERE         \
    ::emulation::Site { \
        file, line      \
    }

inline void __syncthreads(TS_SITE) {
    ::emulation::barrier(::emulation::BARRIER_PLAIN, 0, TS_HERE);
}
inline int __syncthreads_or(int predicate, TS_SITE) {
    return ::emulation::barrier(::emulation::BARRIER_OR, predicate, TS_HERE);
}
inline int __syncthreads_and(int predicate, TS_SITE) {
    return ::emulation::barrier(::emulation::BARRIER_AND, predicate, TS_HERE);
}
inline int __syncthreads_count(int predicate, TS_SITE) {
    return ::emulation::barrier(::emulation::BARRIER_COUNT, predicate, TS_HERE);
}
inline void __threadfence() {
    ::emulation::fence();
}
inline void __threadfence_block() {
    ::emulation::fence();
}

inline void __syncwarp(unsigned mask = 0xFFFFFFFFu, TS_SITE) {
    ::emulation::warp(::emulation::WARP_SYNC, mask, 0, 0, 0, 32, TS_HERE);
}

#define TS_SHUFFLE(name, kind, argument_type)                                                           \
    template <typename T>                                                                               \
    inline T name(unsigned mask, T value, argument_type argument, int width = 32, TS_SITE) {            \
        return ::emulation::from_bits<T>(                                                               \
            ::emulation::warp(::emulation::kind, mask, ::emulation::to_bits(value), sizeof(T),          \
                              static_cast<unsigned>(argument), static_cast<unsigned>(width), TS_HERE)); \
    }
TS_SHUFFLE(__shfl_sync, WARP_SHUFFLE, int)
TS_SHUFFLE(__shfl_up_sync, WARP_SHUFFLE_UP, unsigned)
TS_SHUFFLE(__shfl_down_sync, WARP_SHUFFLE_DOWN, unsigned)
TS_SHUFFLE(__shfl_xor_sync, WARP_SHUFFLE_XOR, int)
#undef TS_SHUFFLE

inline unsigned __ballot_sync(unsigned mask, int predicate, TS_SITE) {
    return static_cast<unsigned>(
        ::emulation::warp(::emulation::WARP_BALLOT, mask, predicate != 0, 4, 0, 32, TS_HERE));
}
inline int __any_sync(unsigned mask, int predicate, TS_SITE) {
    return static_cast<int>(
        ::emulation::warp(::emulation::WARP_ANY, mask, predicate != 0, 4, 0, 32, TS_HERE));
}
inline int __all_sync(unsigned mask, int predicate, TS_SITE) {
    return static_cast<int>(
        ::emulation::warp(::emulation::WARP_ALL, mask, predicate != 0, 4, 0, 32, TS_HERE));
}
template <typename T>
inline unsigned __match_any_sync(unsigned mask, T value, TS_SITE) {
    return static_cast<unsigned>(::emulation::warp(::emulation::WARP_MATCH_ANY, mask,
                                                   ::emulation::to_bits(value), sizeof(T), 0, 32, TS_HERE));
}

// One overload for each type that CUDA has, as calls rely on conversions to it. u64 is unsigned long here.
#define TS_ATOMIC(name, kind, type, bits)                                                                 \
    inline type name(type* address, type value, TS_SITE) {                                                \
        return static_cast<type>(::emulation::atomic(::emulation::kind, reinterpret_cast<bits*>(address), \
                                                     static_cast<bits>(value), static_cast<bits>(0),      \
                                                     TS_HERE));                                           \
    }
#define TS_ATOMIC_UNSIGNED(name, kind)                  \
    TS_ATOMIC(name, kind, unsigned int, unsigned int)   \
    TS_ATOMIC(name, kind, unsigned long, unsigned long) \
    TS_ATOMIC(name, kind, unsigned long long, unsigned long)
TS_ATOMIC_UNSIGNED(atomicAdd, ATOMIC_ADD)
TS_ATOMIC_UNSIGNED(atomicMax, ATOMIC_MAX)
TS_ATOMIC_UNSIGNED(atomicMin, ATOMIC_MIN)
TS_ATOMIC_UNSIGNED(atomicOr, ATOMIC_OR)
TS_ATOMIC_UNSIGNED(atomicAnd, ATOMIC_AND)
TS_ATOMIC_UNSIGNED(atomicXor, ATOMIC_XOR)
TS_ATOMIC_UNSIGNED(atomicExch, ATOMIC_EXCHANGE)
TS_ATOMIC(atomicAdd, ATOMIC_ADD, int, unsigned int)
TS_ATOMIC(atomicMax, ATOMIC_SIGNED_MAX, int, unsigned int)
TS_ATOMIC(atomicMin, ATOMIC_SIGNED_MIN, int, unsigned int)
TS_ATOMIC(atomicMax, ATOMIC_SIGNED_MAX, long, unsigned long)
TS_ATOMIC(atomicMin, ATOMIC_SIGNED_MIN, long, unsigned long)
TS_ATOMIC(atomicMax, ATOMIC_SIGNED_MAX, long long, unsigned long)
TS_ATOMIC(atomicMin, ATOMIC_SIGNED_MIN, long long, unsigned long)
TS_ATOMIC(atomicExch, ATOMIC_EXCHANGE, int, unsigned int)
#undef TS_ATOMIC_UNSIGNED
#undef TS_ATOMIC
#define TS_ATOMIC_CAS(type, bits)                                                                \
    inline type atomicCAS(type* address, type compare, type value, TS_SITE) {                    \
        return static_cast<type>(                                                                \
            ::emulation::atomic(::emulation::ATOMIC_CAS, reinterpret_cast<bits*>(address),       \
                                static_cast<bits>(value), static_cast<bits>(compare), TS_HERE)); \
    }
TS_ATOMIC_CAS(int, unsigned int)
TS_ATOMIC_CAS(unsigned int, unsigned int)
TS_ATOMIC_CAS(unsigned long, unsigned long)
TS_ATOMIC_CAS(unsigned long long, unsigned long)
#undef TS_ATOMIC_CAS

template <typename T>
inline T __ldg(const T* address) {
    return *address;
}

inline int __popc(unsigned int value) {
    return __builtin_popcount(value);
}
inline int __popcll(unsigned long long value) {
    return __builtin_popcountll(value);
}
inline int __ffs(int value) {
    return __builtin_ffs(value);
}
inline int __ffsll(long long value) {
    return __builtin_ffsll(value);
}
inline int __clz(int value) {
    return value == 0 ? 32 : __builtin_clz(static_cast<unsigned int>(value));
}
inline int __clzll(long long value) {
    return value == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(value));
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return static_cast<unsigned long long>((static_cast<unsigned __int128>(a) * b) >> 64);
}
inline unsigned int __funnelshift_r(unsigned int low, unsigned int high, unsigned int shift) {
    return static_cast<unsigned int>(((static_cast<unsigned long>(high) << 32) | low) >> (shift & 31));
}
inline unsigned int __funnelshift_l(unsigned int low, unsigned int high, unsigned int shift) {
    return static_cast<unsigned int>((((static_cast<unsigned long>(high) << 32) | low) << (shift & 31)) >>
                                     32);
}
inline unsigned int __byte_perm(unsigned int x, unsigned int y, unsigned int selector) {
    const unsigned long bytes = (static_cast<unsigned long>(y) << 32) | x;
    unsigned int result = 0;
    for (unsigned int i = 0; i < 4; ++i) {
        const unsigned int nibble = (selector >> (4 * i)) & 15;
        unsigned int byte = static_cast<unsigned int>(bytes >> (8 * (nibble & 7))) & 0xFF;
        if (nibble & 8) byte = byte & 0x80 ? 0xFF : 0;
        result |= byte << (8 * i);
    }
    return result;
}

struct alignas(8) uint2 {
    unsigned int x, y;
};
struct alignas(16) uint4 {
    unsigned int x, y, z, w;
};
struct alignas(16) ulonglong2 {
    unsigned long long x, y;
};
inline uint2 make_uint2(unsigned int x, unsigned int y) {
    return {x, y};
}
inline uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) {
    return {x, y, z, w};
}
inline ulonglong2 make_ulonglong2(unsigned long long x, unsigned long long y) {
    return {x, y};
}
