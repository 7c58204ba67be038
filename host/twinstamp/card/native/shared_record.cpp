// SPDX-License-Identifier: Apache-2.0
// A record in shared memory that one process writes and others read whole: a sequence lock (Boehm, "Can
// seqlocks get along with programming language memory models?", MSPC 2012, figures 4 and 6).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <stdexcept>

namespace nb = nanobind;

namespace twinstamp {
namespace {

template <class T>
using Words = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
constexpr std::size_t kMost = 128;  // words
constexpr int kTries = 1000;

// Words of 64 bits; the first is the sequence, odd while the others are being written.
template <class T>
std::size_t words_of(const Words<T>& memory) {
    const std::size_t words = memory.shape(0);
    if (words < 2 || words > kMost) throw std::invalid_argument("a record has 2 to 128 words");
    return words;
}

void record_write(Words<std::uint64_t> memory, const nb::bytes& data) {
    const std::size_t words = words_of(memory);
    if (data.size() != (words - 1) * 8) throw std::invalid_argument("the record has another size");
    std::atomic_ref<std::uint64_t> sequence(memory.data()[0]);
    // One that was left odd by a writer that died is taken on from there.
    const std::uint64_t odd = sequence.load(std::memory_order_relaxed) | 1;
    sequence.store(odd, std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_release);
    for (std::size_t i = 1; i < words; i++) {
        std::uint64_t word;
        std::memcpy(&word, data.c_str() + (i - 1) * 8, 8);
        std::atomic_ref<std::uint64_t>(memory.data()[i]).store(word, std::memory_order_relaxed);
    }
    sequence.store(odd + 1, std::memory_order_release);
}

// None: it was being written all the time, or its writer died in the middle.
nb::object record_read(Words<const std::uint64_t> memory) {
    const std::size_t words = words_of(memory);
    std::uint64_t copy[kMost];
    // An atomic_ref takes no const; what is lock-free is loaded from memory that cannot be written, too.
    static_assert(std::atomic_ref<std::uint64_t>::is_always_lock_free);
    auto* from = const_cast<std::uint64_t*>(memory.data());
    std::atomic_ref<std::uint64_t> sequence(from[0]);
    for (int left = kTries; left > 0; left--) {
        const std::uint64_t before = sequence.load(std::memory_order_acquire);
        if (before & 1) continue;
        for (std::size_t i = 1; i < words; i++)
            copy[i] = std::atomic_ref<std::uint64_t>(from[i]).load(std::memory_order_relaxed);
        std::atomic_thread_fence(std::memory_order_acquire);
        if (sequence.load(std::memory_order_relaxed) == before)
            return nb::bytes(reinterpret_cast<const char*>(copy + 1), (words - 1) * 8);
    }
    return nb::none();
}

}  // namespace

void bind_shared_record(nb::module_& m) {
    using namespace nb::literals;
    m.def("record_write", &record_write, "memory"_a, "data"_a);
    m.def("record_read", &record_read, "memory"_a);
}

}  // namespace twinstamp
