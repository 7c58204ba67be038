// SPDX-License-Identifier: Apache-2.0
#include "frame_bytes.h"

#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "bindings.h"
#include "twinstamp/hash.h"

namespace twinstamp {

FrameExtent frame_extent(const FramePlaces& frames) {
    FrameExtent out;
    u64 low = ~0ull, high = 0, bytes = 0, outside = 0;
    const u64* offset = frames.offset;
    const u32* caplen = frames.caplen;
    const u64 data_bytes = frames.data_bytes;
    // Loops without branches, each over columns of one width: compilers turn these into vector code.
    u16 port = 0;
    for (std::size_t i = 0; i < frames.count; ++i) port = std::max(port, frames.port[i]);
    u32 size = 0;
    for (std::size_t i = 0; i < frames.count; ++i) size = std::max(size, caplen[i]);
    for (std::size_t i = 0; i < frames.count; ++i) {
        const u64 from = offset[i], bytes_here = caplen[i];
        const u64 none = static_cast<u64>(bytes_here == 0) * ~0ull;
        low = std::min(low, from | none);
        high = std::max(high, (from + bytes_here) & ~none);
        // The start too: the end of a frame that starts near 2^64 comes round to a small number.
        outside = std::max(outside, std::max(from, from + bytes_here));
        bytes += bytes_here;
    }
    const bool any =
        frames.count != 0 && (port >= frames.ports || size > frames.most || outside > data_bytes);
    out.bad = frames.count;
    for (std::size_t i = 0; any && out.bad == frames.count; ++i)
        if (frame_lies_outside(frames, i)) out.bad = i;
    if (bytes != 0) {
        out.low = low;
        out.high = high;
    }
    out.bytes = bytes;
    return out;
}

std::string window_refusal(const FramePlaces& frames, std::size_t i) {
    return "frame " + std::to_string(i) + " of the batch: offset " + std::to_string(frames.offset[i]) +
           ", caplen " + std::to_string(frames.caplen[i]) + ", port " + std::to_string(frames.port[i]) +
           " do not fit data of " + std::to_string(frames.data_bytes) + " bytes, " +
           std::to_string(frames.ports) + " ports and the limit of " + std::to_string(frames.most) +
           " captured bytes";
}

std::string classifier_refusal(const FramePlaces& frames, std::size_t i, u64 first) {
    const std::string name = "frame " + std::to_string(first + i + 1);
    if (frames.port[i] >= frames.ports)
        return name + " names port " + std::to_string(frames.port[i]) + ", the batch has " +
               std::to_string(frames.ports);
    return name + " lies outside its batch: offset " + std::to_string(frames.offset[i]) + ", " +
           std::to_string(frames.caplen[i]) + " bytes, of " + std::to_string(frames.data_bytes);
}

namespace {

template <typename T>
using Out = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// `first`: as the classifier checks and says it; else as the window does.
nb::tuple checked_extent(u64 data_bytes, In<u64> offset, In<u32> caplen, In<u16> port, u64 ports,
                         std::optional<u64> first) {
    const std::size_t n = offset.size();
    for (const auto& [name, size] : {std::pair{"caplen", caplen.size()}, std::pair{"port", port.size()}})
        if (size != n)
            throw nb::value_error(first ? "the columns of a batch differ in length"
                                        : (std::string(name) + " has " + std::to_string(size) +
                                           " entries, offset has " + std::to_string(n))
                                              .c_str());
    const FramePlaces frames{data_bytes, offset.data(), caplen.data(),           port.data(),
                             n,          ports,         first ? ~0u : MAX_CAPLEN};
    FrameExtent extent;
    {
        nb::gil_scoped_release free;
        extent = frame_extent(frames);
    }
    if (extent.bad != n)
        throw nb::value_error(
            (first ? classifier_refusal(frames, extent.bad, *first) : window_refusal(frames, extent.bad))
                .c_str());
    return nb::make_tuple(extent.low, extent.high, extent.bytes);
}

u64 gather_frames(In<u8> data, In<u64> offset, In<u32> caplen, Out<u8> out_data, Out<u64> out_offset) {
    const std::size_t n = offset.size();
    if (caplen.size() != n || out_offset.size() != n)
        throw nb::value_error("gather_frames: the columns differ in length");
    const u64 room = out_data.size();
    u64 at = 0;
    bool fits = true;
    {
        nb::gil_scoped_release free;
        const u64* from = offset.data();
        const u32* size = caplen.data();
        for (std::size_t i = 0; i < n && fits; ++i) {
            fits = from[i] <= data.size() && size[i] <= data.size() - from[i] && at <= room &&
                   size[i] <= room - at;
            if (!fits) break;
            std::memcpy(out_data.data() + at, data.data() + from[i], size[i]);
            out_offset.data()[i] = at;
            at += (size[i] + 7ull) / 8 * 8;
        }
    }
    if (!fits) throw nb::value_error("gather_frames: a frame lies outside its data, or behind the room");
    return std::min(at, room);
}

}  // namespace

void bind_frame_bytes(nb::module_& m) {
    m.def("frame_extent", &checked_extent, nb::arg("data_bytes"), nb::arg("offset"), nb::arg("caplen"),
          nb::arg("port"), nb::arg("ports"), nb::arg("first") = nb::none());
    m.def("gather_frames", &gather_frames, nb::arg("data"), nb::arg("offset"), nb::arg("caplen"),
          nb::arg("out_data"), nb::arg("out_offset"));
}

}  // namespace twinstamp
