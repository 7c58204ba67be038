// SPDX-License-Identifier: Apache-2.0
// How many packets right before each one have a greater sequence number (RFC 4737 section 5: n-reordering).
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace nb = nanobind;

namespace twinstamp {
namespace {

using Sequence = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<std::uint32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void greater_before(Sequence sequence, Counts counts) {
    const std::size_t n = sequence.shape(0);
    if (counts.shape(0) != n) throw nb::value_error("greater_before: two arrays of one length are needed");
    const std::int64_t* in = sequence.data();
    std::uint32_t* out = counts.data();
    nb::gil_scoped_release release;
    // Positions of numbers, ascending from bottom to top: whoever is not below the next one never stops
    // the look back of a later one, so each is pushed and popped once.
    std::vector<std::size_t> lower;
    for (std::size_t i = 0; i < n; ++i) {
        while (!lower.empty() && in[lower.back()] > in[i]) lower.pop_back();
        const std::size_t before = lower.empty() ? i : i - lower.back() - 1;
        out[i] = before > UINT32_MAX ? UINT32_MAX : static_cast<std::uint32_t>(before);
        lower.push_back(i);
    }
}

}  // namespace

void bind_order(nb::module_& m) {
    m.def("greater_before", &greater_before, nb::arg("sequence"), nb::arg("counts"));
}

}  // namespace twinstamp
