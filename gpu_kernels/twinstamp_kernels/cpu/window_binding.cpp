// SPDX-License-Identifier: Apache-2.0
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <optional>

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

nb::dict statistics_dict(const WindowStatistics& sum, u64 memory_bytes) {
    nb::dict result, by_type, kept, guarded;
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
        if (sum.kept_frames[c]) kept[nb::int_(c)] = nb::make_tuple(sum.kept_frames[c], sum.kept_bytes[c]);
    }
    result["by_type"] = by_type;
    result["kept"] = kept;
    guarded["ttl"] = nb::make_tuple(sum.guarded_frames[0], sum.guarded_bytes[0]);
    guarded["tunnel"] = nb::make_tuple(sum.guarded_frames[1], sum.guarded_bytes[1]);
    result["guarded"] = guarded;
    result["limit_reached"] = sum.limit_reached;
    result["memory_bytes"] = memory_bytes;
    return result;
}

template <typename T>
const T* fitting(const In<T>& column, size_t n, const char* name, const char* beside = "offset") {
    if (column.shape(0) != n) {
        throw nb::value_error((std::string(name) + " has " + std::to_string(column.shape(0)) + " entries, " +
                               beside + " has " + std::to_string(n))
                                  .c_str());
    }
    return column.data();
}

// Of any number of dimensions: pairs may come as [n, 2] or one after the other.
template <typename T>
using Optional = std::optional<nb::ndarray<const T, nb::c_contig, nb::device::cpu>>;

// A column of `width` entries for each of n frames, or null for None.
template <typename T>
const T* optional(const Optional<T>& column, size_t n, size_t width, const char* name) {
    if (!column) return nullptr;
    if (column->size() != n * width || (column->ndim() > 1 && column->shape(0) != n)) {
        throw nb::value_error((std::string(name) + " has " + std::to_string(column->size()) +
                               " entries for " + std::to_string(n) + " frames, " + std::to_string(n * width) +
                               " are needed")
                                  .c_str());
    }
    // An empty array may lie nowhere, and is not None.
    static const T nothing{};
    return column->data() != nullptr ? column->data() : &nothing;
}

KeyColumns key_columns(const Optional<u64>& key, const Optional<u64>& second, const Optional<u8>& two,
                       const Optional<u32>& tags, const Optional<u8>& frame_class, size_t n) {
    return {optional(key, n, 2, "key"), optional(second, n, 2, "second"), optional(two, n, 1, "two"),
            optional(tags, n, TAGS, "tags"), optional(frame_class, n, 1, "frame_class")};
}

Histogram histogram_of(const u64* bins, u64 maximum) {
    Histogram histogram;
    for (u32 b = 0; b < Histogram::BINS; ++b) histogram.total += histogram.count[b] = bins[b];
    histogram.maximum = maximum;
    return histogram;
}

nb::tuple verdict_views(WindowVerdicts verdicts) {
    return nb::make_tuple(to_view(std::move(verdicts.keep)), to_view(std::move(verdicts.type)),
                          to_view(std::move(verdicts.distance)), to_view(std::move(verdicts.delay_ns)));
}

}  // namespace

void bind_window(nb::module_& m) {
    nb::class_<Window>(m, "Window",
                       "CPU executor of the duplicate window; see twinstamp_kernels.window.Window.")
        .def(
            "__init__",
            [](Window* self, const HashKey& key, u8 profile, u8 layer, u32 ignore_bytes, u32 count,
               i64 time_ns, u32 limit, u64 keep, u8 guard, nb::bytes ends, unsigned workers) {
                WindowOptions options{};
                options.count = count;
                options.time_ns = time_ns;
                options.limit = limit;
                options.key = {static_cast<Profile>(profile), static_cast<Layer>(layer), ignore_bytes};
                options.keep = keep;
                options.guard = guard;
                options.ends = tunnel_ends(ends);
                options.workers = workers;
                new (self) Window(options, key);
            },
            nb::arg("key"), nb::arg("profile"), nb::arg("layer"), nb::arg("ignore_bytes"), nb::arg("count"),
            nb::arg("time_ns"), nb::arg("limit"), nb::arg("keep"), nb::arg("guard"), nb::arg("ends"),
            nb::arg("workers"))
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
                WindowVerdicts verdicts;
                {
                    nb::gil_scoped_release release;
                    verdicts = self.process(frames, details);
                }
                return verdict_views(std::move(verdicts));
            },
            nb::arg("data"), nb::arg("offset"), nb::arg("caplen"), nb::arg("timestamp_ns"), nb::arg("port"),
            nb::arg("linktypes"), nb::arg("details"))
        .def(
            "process_keys",
            [](Window& self, Optional<u64> key, Optional<u64> second, Optional<u8> two, Optional<u32> tags,
               Optional<u8> frame_class, In<i64> timestamp_ns, Optional<u32> caplen, bool details) {
                const size_t n = timestamp_ns.shape(0);
                const KeyColumns keys = key_columns(key, second, two, tags, frame_class, n);
                FrameColumns frames{};
                frames.timestamp_ns = timestamp_ns.data();
                frames.count = n;
                frames.caplen = optional(caplen, n, 1, "caplen");
                WindowVerdicts verdicts;
                {
                    nb::gil_scoped_release release;
                    std::vector<u32> none;
                    if (frames.caplen == nullptr) {
                        none.resize(n + 1);
                        frames.caplen = none.data();
                    }
                    verdicts = self.process_keys(keys, frames, details);
                }
                return verdict_views(std::move(verdicts));
            },
            nb::arg("key").none(), nb::arg("second").none(), nb::arg("two").none(), nb::arg("tags").none(),
            nb::arg("frame_class").none(), nb::arg("timestamp_ns"), nb::arg("caplen").none(),
            nb::arg("details"))
        .def(
            "restore",
            [](Window& self, u64 index, Optional<u64> key, Optional<u64> second, Optional<u8> two,
               Optional<u32> tags, In<i64> timestamp_ns) {
                const size_t n = timestamp_ns.shape(0);
                const KeyColumns keys = key_columns(key, second, two, tags, std::nullopt, n);
                nb::gil_scoped_release release;
                self.restore(index, keys, timestamp_ns.data(), n);
            },
            nb::arg("index"), nb::arg("key").none(), nb::arg("second").none(), nb::arg("two").none(),
            nb::arg("tags").none(), nb::arg("timestamp_ns"))
        .def("add_statistics", &Window::add_statistics, nb::arg("counts"))
        .def_prop_ro("index", &Window::index, "Frames judged so far.")
        .def_prop_ro("bytes", &Window::bytes)
        .def("statistics",
             [](const Window& self) { return statistics_dict(self.statistics(), self.bytes()); });

    nb::class_<WindowStatistics>(m, "WindowStatistics",
                                 "Counts of a window; see twinstamp_kernels.gpu.statistics.RawStatistics.")
        .def(
            "__init__",
            [](WindowStatistics* self, u64 frames, u64 bytes, u64 limit_reached, In<u64> type_frames,
               In<u64> type_bytes, In<u64> negative_delays, In<u64> distance_bins, In<u64> distance_max,
               In<u64> delay_bins, In<u64> delay_max, In<u64> kept_frames, In<u64> kept_bytes,
               In<u64> guarded_frames, In<u64> guarded_bytes) {
                WindowStatistics sum;
                const size_t types = sum.duplicates.size(), bins = Histogram::BINS;
                const auto by_type = [&](const In<u64>& column, const char* name, size_t each = 1) {
                    return fitting(column, types * each, name, "the CPU executor");
                };
                const auto by_class = [&](const In<u64>& column, const char* name) {
                    return fitting(column, sum.kept_frames.size(), name, "the CPU executor");
                };
                sum.frames = frames;
                sum.bytes = bytes;
                sum.limit_reached = limit_reached;
                const u64* of_frames = by_type(type_frames, "type_frames");
                const u64* of_bytes = by_type(type_bytes, "type_bytes");
                const u64* negative = by_type(negative_delays, "negative_delays");
                const u64* distances = by_type(distance_bins, "distance_bins", bins);
                const u64* furthest = by_type(distance_max, "distance_max");
                const u64* delays = by_type(delay_bins, "delay_bins", bins);
                const u64* longest = by_type(delay_max, "delay_max");
                for (size_t t = 0; t < types; ++t) {
                    TypeCount& count = sum.duplicates[t];
                    count.frames = of_frames[t];
                    count.bytes = of_bytes[t];
                    count.negative_delays = negative[t];
                    count.distance = histogram_of(distances + t * bins, furthest[t]);
                    count.delay_ns = histogram_of(delays + t * bins, longest[t]);
                }
                const u64* frames_kept = by_class(kept_frames, "kept_frames");
                const u64* bytes_kept = by_class(kept_bytes, "kept_bytes");
                std::copy_n(frames_kept, sum.kept_frames.size(), sum.kept_frames.begin());
                std::copy_n(bytes_kept, sum.kept_bytes.size(), sum.kept_bytes.begin());
                if (guarded_frames.shape(0) != GUARDS || guarded_bytes.shape(0) != GUARDS) {
                    throw nb::value_error("guarded_frames, guarded_bytes: one for each guard");
                }
                std::copy_n(guarded_frames.data(), GUARDS, sum.guarded_frames.begin());
                std::copy_n(guarded_bytes.data(), GUARDS, sum.guarded_bytes.begin());
                new (self) WindowStatistics(sum);
            },
            nb::arg("frames"), nb::arg("bytes"), nb::arg("limit_reached"), nb::arg("type_frames"),
            nb::arg("type_bytes"), nb::arg("negative_delays"), nb::arg("distance_bins"),
            nb::arg("distance_max"), nb::arg("delay_bins"), nb::arg("delay_max"), nb::arg("kept_frames"),
            nb::arg("kept_bytes"), nb::arg("guarded_frames"), nb::arg("guarded_bytes"))
        .def("as_dict", &statistics_dict, nb::arg("memory_bytes"));
    m.attr("HISTOGRAM_BINS") = static_cast<u32>(Histogram::BINS);
}

}  // namespace twinstamp
