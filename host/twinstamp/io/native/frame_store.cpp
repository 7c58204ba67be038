// SPDX-License-Identifier: Apache-2.0
// Copies of frames that outlive their batch, in a bounded arena (see twinstamp.appliance.hub).
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "arena.h"
#include "batch_columns.h"

namespace nb = nanobind;

namespace twinstamp {
namespace {

class FrameStore {
  public:
    explicit FrameStore(std::size_t memory_bytes) {
        if (memory_bytes < 4 * slab_bytes) throw std::invalid_argument("a frame store needs at least 2 MiB");
        arena_ = std::make_shared<Arena>(memory_bytes / slab_bytes);
    }

    // Copies frames rows[start..] (all where rows is None) until limit_bytes are copied or there is no room.
    // Returns (columns, lease): as many frames as fitted; None where not even one did.
    nb::object put(Column<std::uint8_t> data, Column<std::uint64_t> offset, Column<std::uint32_t> caplen,
                   Column<std::uint32_t> length, Column<std::int64_t> stamp, Column<std::uint16_t> port,
                   Column<std::uint16_t> flags, std::optional<Column<std::uint32_t>> rows, std::size_t start,
                   std::size_t limit_bytes) {
        const std::size_t n = offset.size();
        if (caplen.size() != n || length.size() != n || stamp.size() != n || port.size() != n ||
            flags.size() != n)
            throw std::invalid_argument("columns of different lengths");
        const std::size_t k = rows ? rows->size() : n;
        if (start >= k) return nb::none();
        std::vector<std::pair<std::size_t, std::uint32_t>> used;
        BatchColumns columns(k - start);
        std::size_t taken = 0;
        {
            nb::gil_scoped_release unlocked;
            std::lock_guard<std::mutex> guard(lock_);
            for (std::size_t j = start; j < k; ++j) {
                const std::size_t i = rows ? rows->data()[j] : j;
                if (i >= n || offset.data()[i] > data.size() ||
                    caplen.data()[i] > data.size() - offset.data()[i]) {
                    drop(used);
                    throw std::invalid_argument("frame " + std::to_string(i) + " lies outside its batch");
                }
            }
            std::size_t copied = 0;
            for (std::size_t j = start; j < k && copied < limit_bytes; ++j, ++taken) {
                const std::size_t i = rows ? rows->data()[j] : j;
                const std::uint32_t bytes = caplen.data()[i];
                // At least a cache line each: descriptors are memory as well, and bounded by that.
                const std::size_t room =
                    std::max<std::size_t>(1, (bytes + frame_align - 1) / frame_align) * frame_align;
                if (room > slab_bytes) {
                    drop(used);
                    throw std::invalid_argument("frame " + std::to_string(i) + " has " +
                                                std::to_string(bytes) + " bytes, at most " +
                                                std::to_string(slab_bytes) + " can be kept");
                }
                if (!open_ || fill_ + room > slab_bytes) {
                    if (open_) arena_->drop(*open_, 1);
                    open_ = arena_->take();
                    fill_ = 0;
                    if (!open_) break;
                }
                const std::uint64_t at = *open_ * slab_bytes + fill_;
                if (bytes) std::memcpy(arena_->base + at, data.data() + offset.data()[i], bytes);
                fill_ += room;
                copied += room;
                arena_->users[*open_].fetch_add(1, std::memory_order_relaxed);
                if (used.empty() || used.back().first != *open_) used.emplace_back(*open_, 0);
                ++used.back().second;
                columns.offset[taken] = at;
                columns.caplen[taken] = bytes;
                columns.length[taken] = length.data()[i];
                columns.timestamp_ns[taken] = stamp.data()[i];
                columns.port[taken] = port.data()[i];
                columns.flags[taken] = flags.data()[i];
            }
        }
        if (taken == 0) return nb::none();
        nb::object lease = nb::cast(new ArenaLease(arena_, std::move(used)), nb::rv_policy::take_ownership);
        return nb::make_tuple(columns.hand_out(arena_->base, arena_->bytes, lease, taken), lease);
    }

    std::size_t memory_bytes() const { return arena_->bytes; }
    std::size_t used_bytes() { return arena_->in_use() * slab_bytes; }

  private:
    void drop(const std::vector<std::pair<std::size_t, std::uint32_t>>& used) {
        for (auto [slab, frames] : used) arena_->drop(slab, frames);
    }

    std::shared_ptr<Arena> arena_;
    std::mutex lock_;
    std::optional<std::size_t> open_;
    std::size_t fill_ = 0;
};

}  // namespace

void bind_frame_store(nb::module_& m) {
    nb::class_<FrameStore>(m, "FrameStore",
                           "Copies of frames in bounded memory; see twinstamp.appliance.hub.")
        .def(nb::init<std::size_t>(), nb::arg("memory_bytes"))
        .def("put", &FrameStore::put, nb::arg("data"), nb::arg("offset"), nb::arg("caplen"),
             nb::arg("length"), nb::arg("timestamp_ns"), nb::arg("port"), nb::arg("flags"),
             nb::arg("rows").none(), nb::arg("start"), nb::arg("limit_bytes"))
        .def_prop_ro("memory_bytes", &FrameStore::memory_bytes)
        .def_prop_ro("used_bytes", &FrameStore::used_bytes);
}

}  // namespace twinstamp
