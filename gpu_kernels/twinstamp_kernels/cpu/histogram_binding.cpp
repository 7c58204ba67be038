// SPDX-License-Identifier: Apache-2.0
#include "bindings.h"
#include "histogram.h"

namespace twinstamp {

void bind_histogram(nb::module_& m) {
    nb::class_<Histogram>(
        m, "Histogram",
        "Counts of values in log-linear bins, each at most 6.25 % wide; negative values count as 0.")
        .def(nb::init<>())
        .def(
            "add",
            [](Histogram& self, In<i64> values) {
                for (size_t i = 0; i < values.shape(0); ++i) {
                    self.add(static_cast<u64>(std::max<i64>(0, values.data()[i])));
                }
            },
            nb::arg("values"), "Adds i64[n].")
        .def("quantile", &Histogram::quantile, nb::arg("share"),
             "Upper end of the bin that holds this share of all values; 0 when empty.")
        .def_prop_ro("total", [](const Histogram& self) { return self.total; })
        .def_prop_ro("maximum", [](const Histogram& self) { return self.maximum; });
}

}  // namespace twinstamp
