// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/string.h>

#include "bindings.h"
#include "window.h"

namespace twinstamp {

namespace {

nb::dict histogram_dict(const Histogram& histogram) {
    nb::dict d;
    d["p50"] = histogram.quantile(0.5);
    d["p90"] = histogram.quantile(0.9);
    d["p99"] = histogram.quantile(0.99);
    d["p999"] = histogram.quantile(0.999);
    d["max"] = histogram.maximum;
    return d;
}

template <typename T>
const T* fitting(const In<T>& column, size_t n, const char* name) {
    if (column.shape(0) != n) {
        throw nb::value_error((std::string(name) + " has " + std::to_string(column.shape(0)) +
                               " entries, offset has " + std::to_string(n))
                                  .c_str());
    }
    return column.data();
}

}  // namespace

void bind_window(nb::module_& m) {
    nb::class_<Window>(m, "Window",
                       "CPU executor of the duplicate window; see twinstamp_kernels.window.Window.")
        .def(
            "__init__",
            [](Window* self, const HashKey& key, u8 profile, u8 layer, u32 ignore_bytes, u32 count,
               i64 time_ns, u32 limit, u64 keep, unsigned workers) {
                WindowOptions options{};
                options.count = count;
                options.time_ns = time_ns;
                options.limit = limit;
                options.key = {static_cast<Profile>(profile), static_cast<Layer>(layer), ignore_bytes};
                options.keep = keep;
                options.workers = workers;
                new (self) Window(options, key);
            },
            nb::arg("key"), nb::arg("profile"), nb::arg("layer"), nb::arg("ignore_bytes"), nb::arg("count"),
            nb::arg("time_ns"), nb::arg("limit"), nb::arg("keep"), nb::arg("workers"))
        .def(
            "process",
            [](Window& self, In<u8> data, In<u64> offset, In<u32> caplen, In<i64> timestamp_ns, In<u16> port,
               In<u16> linktypes, bool details) {
                const size_t n = offset.shape(0);
                const FrameColumns frames{data.data(),
                                          data.shape(0),
                                          offset.data(),
                                          fitting(caplen, n, "caplen"),
                                          fitting(timestamp_ns, n, "timestamp_ns"),
                                          fitting(port, n, "port"),
                                          n,
                                          linktypes.data(),
                                          linktypes.shape(0)};
                Verdicts verdicts;
                {
                    nb::gil_scoped_release release;
                    verdicts = self.process(frames, details);
                }
                return nb::make_tuple(to_view(std::move(verdicts.keep)), to_view(std::move(verdicts.type)),
                                      to_view(std::move(verdicts.distance)),
                                      to_view(std::move(verdicts.delay_ns)));
            },
            nb::arg("data"), nb::arg("offset"), nb::arg("caplen"), nb::arg("timestamp_ns"), nb::arg("port"),
            nb::arg("linktypes"), nb::arg("details"))
        .def_prop_ro("bytes", &Window::bytes)
        .def("statistics", [](const Window& self) {
            const WindowStatistics sum = self.statistics();
            nb::dict result, by_type, kept;
            result["frames"] = sum.frames;
            result["bytes"] = sum.bytes;
            for (u8 type = 1; type < sum.duplicates.size(); ++type) {
                const TypeCount& count = sum.duplicates[type];
                nb::dict d;
                d["frames"] = count.frames;
                d["bytes"] = count.bytes;
                d["distance"] = histogram_dict(count.distance);
                d["delay_ns"] = histogram_dict(count.delay_ns);
                d["negative_delays"] = count.negative_delays;
                by_type[nb::int_(type)] = d;
            }
            for (size_t c = 0; c < sum.kept_frames.size(); ++c) {
                if (sum.kept_frames[c])
                    kept[nb::int_(c)] = nb::make_tuple(sum.kept_frames[c], sum.kept_bytes[c]);
            }
            result["by_type"] = by_type;
            result["kept"] = kept;
            result["limit_reached"] = self.limit_reached();
            result["memory_bytes"] = self.bytes();
            return result;
        });
}

}  // namespace twinstamp
