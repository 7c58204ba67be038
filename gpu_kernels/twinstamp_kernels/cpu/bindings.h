// SPDX-License-Identifier: Apache-2.0
// What the bindings share: array types, and arrays handed to Python as memoryviews.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstring>
#include <memory>
#include <vector>

#include "twinstamp/parse.h"

namespace nb = nanobind;

namespace twinstamp {

template <typename T>
using In = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// Moves a vector into a memoryview: NumPy need not be loaded to pass it on to another compiled stage.
template <typename T>
nb::ndarray<nb::memview, T, nb::ndim<1>, nb::c_contig> to_view(std::vector<T> values) {
    auto* owned = new std::vector<T>(std::move(values));
    nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::ndarray<nb::memview, T, nb::ndim<1>, nb::c_contig>(owned->data(), {owned->size()}, owner);
}

void bind_balance(nb::module_& m);
void bind_frame_bytes(nb::module_& m);
void bind_hash_key(nb::module_& m);
void bind_rules(nb::module_& m);
void bind_window(nb::module_& m);
void bind_histogram(nb::module_& m);
void bind_keys(nb::module_& m);

// The bytes of a TunnelEnds (verdicts.tunnel_ends); of none: everybody's tunnels.
inline TunnelEnds tunnel_ends(const nb::bytes& bytes) {
    TunnelEnds ends{};
    if (bytes.size() == 0) return ends;
    if (bytes.size() != sizeof ends) throw nb::value_error("ends: not the bytes of a TunnelEnds");
    std::memcpy(&ends, bytes.data(), sizeof ends);
    if (ends.count > MOST_ENDS) throw nb::value_error("ends: too many networks");
    return ends;
}

}  // namespace twinstamp
