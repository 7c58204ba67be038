// SPDX-License-Identifier: Apache-2.0
// The six columns of a FrameBatch in one allocation, handed to Python as memoryviews.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace twinstamp {

template <typename T>
using Column = nanobind::ndarray<const T, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;

// Widest type first, so that every column is aligned whatever n is. Room for `capacity` frames.
struct BatchColumns {
    explicit BatchColumns(std::size_t capacity)
        : block(static_cast<std::byte*>(std::malloc(capacity ? capacity * bytes_per_frame : 1)), &std::free) {
        if (!block) throw std::bad_alloc();
        std::byte* at = block.get();
        offset = reinterpret_cast<std::uint64_t*>(at);
        timestamp_ns = reinterpret_cast<std::int64_t*>(at += capacity * 8);
        caplen = reinterpret_cast<std::uint32_t*>(at += capacity * 8);
        length = reinterpret_cast<std::uint32_t*>(at += capacity * 4);
        port = reinterpret_cast<std::uint16_t*>(at += capacity * 4);
        flags = reinterpret_cast<std::uint16_t*>(at += capacity * 2);
    }

    static constexpr std::size_t bytes_per_frame = 8 + 8 + 4 + 4 + 2 + 2;
    std::unique_ptr<std::byte, decltype(&std::free)> block;
    std::uint64_t* offset;
    std::int64_t* timestamp_ns;
    std::uint32_t* caplen;
    std::uint32_t* length;
    std::uint16_t* port;
    std::uint16_t* flags;

    // (data, offset, caplen, length, timestamp_ns, port, flags): the order of FrameBatch.raw. `data` lives
    // as long as `data_owner`; the columns live as long as any view of them. Needs the GIL.
    nanobind::tuple hand_out(const std::uint8_t* data, std::size_t data_bytes, nanobind::handle data_owner,
                             std::size_t n) {
        namespace nb = nanobind;
        nb::capsule owner(block.get(), [](void* p) noexcept { std::free(p); });
        block.release();
        auto view = [&owner, n](const auto* p) {
            using T = std::remove_cv_t<std::remove_pointer_t<decltype(p)>>;
            return nb::ndarray<nb::memview, const T, nb::ndim<1>, nb::c_contig>(p, {n}, owner).cast();
        };
        nb::ndarray<nb::memview, const std::uint8_t, nb::ndim<1>, nb::c_contig> bytes(data, {data_bytes},
                                                                                      data_owner);
        return nb::make_tuple(bytes.cast(), view(offset), view(caplen), view(length), view(timestamp_ns),
                              view(port), view(flags));
    }
};

}  // namespace twinstamp
