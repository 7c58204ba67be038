// SPDX-License-Identifier: Apache-2.0
// Merge of several live sources by stamp, in a bounded reorder buffer.
//
// Frames are copied once, on arrival, into slabs of one arena: the sources get their buffers back at once,
// memory is bounded by the arena, and a merged batch is again offsets into one buffer. A slab is free again
// when no frame in it is pending and no batch that has frames in it is held.
//
// Order: by (key, source, arrival). The key is the stamp, or the host's time at arrival where the stamp lies
// in the future of that (counted): a wrong clock must not hold frames back for hours.
#include <errno.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
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

constexpr std::int64_t never = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t forever = std::numeric_limits<std::int64_t>::max();
struct Entry {
    std::int64_t key;
    std::int64_t stamp;
    std::uint64_t offset;
    std::uint32_t caplen, length;
    std::uint16_t port, flags;
};

struct Queue {
    std::vector<Entry> entries;
    std::size_t head = 0;
    std::int64_t newest = never;  // largest key seen
    bool sorted = true;
    bool ended = false;

    bool empty() const { return head == entries.size(); }
    void push(const Entry& e) {
        if (!empty() && e.key < entries.back().key) sorted = false;
        entries.push_back(e);
        newest = std::max(newest, e.key);
    }
    void settle() {
        if (!sorted) {
            std::stable_sort(entries.begin() + static_cast<std::ptrdiff_t>(head), entries.end(),
                             [](const Entry& a, const Entry& b) { return a.key < b.key; });
            sorted = true;
        }
    }
    void trim() {
        if (head == entries.size()) {
            entries.clear();
            head = 0;
        } else if (head > 4096 && head > entries.size() / 2) {
            entries.erase(entries.begin(), entries.begin() + static_cast<std::ptrdiff_t>(head));
            head = 0;
        }
    }
};

class Merger {
  public:
    Merger(std::size_t sources, std::int64_t delay_ns, std::size_t memory_bytes)
        : delay_ns_(delay_ns), queues_(sources) {
        if (sources == 0 || sources > 1024) throw std::invalid_argument("1 to 1024 sources can be merged");
        if (delay_ns < 0) throw std::invalid_argument("the delay is negative");
        if (memory_bytes < 4 * slab_bytes)
            throw std::invalid_argument("the reorder buffer needs at least 2 MiB");
        arena_ = std::make_shared<Arena>(memory_bytes / slab_bytes);
    }

    // Takes frames start.. of a batch of `source`; returns how many fitted. now_ns: host time, or None for
    // sources whose stamps are not of this moment (files).
    std::size_t add(std::size_t source, Column<std::uint8_t> data, Column<std::uint64_t> offset,
                    Column<std::uint32_t> caplen, Column<std::uint32_t> length, Column<std::int64_t> stamp,
                    Column<std::uint16_t> port, Column<std::uint16_t> flags, Column<std::uint16_t> port_map,
                    std::size_t start, std::optional<std::int64_t> now_ns) {
        if (source >= queues_.size()) throw std::invalid_argument("no such source");
        const std::size_t n = offset.size();
        if (caplen.size() != n || length.size() != n || stamp.size() != n || port.size() != n ||
            flags.size() != n || start > n)
            throw std::invalid_argument("columns of different lengths");
        for (std::size_t i = start; i < n; ++i) {
            if (offset.data()[i] > data.size() || caplen.data()[i] > data.size() - offset.data()[i])
                throw std::invalid_argument("frame " + std::to_string(i) + " lies outside its buffer");
            if (port.data()[i] >= port_map.size())
                throw std::invalid_argument("frame " + std::to_string(i) +
                                            " has a port outside the batch's table");
            if (caplen.data()[i] > slab_bytes)
                throw std::invalid_argument("frame " + std::to_string(i) + " has " +
                                            std::to_string(caplen.data()[i]) +
                                            " bytes, the reorder buffer takes " + std::to_string(slab_bytes));
        }
        nb::gil_scoped_release unlocked;
        std::lock_guard<std::mutex> guard(lock_);
        Queue& queue = queues_[source];
        const std::size_t frame_limit = arena_->bytes / frame_align;  // descriptors are memory as well
        std::size_t i = start;
        for (; i < n && held_frames_ < frame_limit; ++i) {
            const std::uint32_t bytes = caplen.data()[i];
            const std::size_t room = (bytes + frame_align - 1) / frame_align * frame_align;
            if (!open_ || fill_ + room > slab_bytes) {
                if (open_) arena_->drop(*open_, 1);
                open_ = arena_->take();
                fill_ = 0;
                if (!open_) break;
            }
            const std::uint64_t at = *open_ * slab_bytes + fill_;
            std::memcpy(arena_->base + at, data.data() + offset.data()[i], bytes);
            // A frame without bytes still belongs to a slab, so that leases can count it; fill_ may be the
            // end.
            arena_->users[*open_].fetch_add(1, std::memory_order_relaxed);
            const std::uint64_t where = std::min<std::uint64_t>(at, (*open_ + 1) * slab_bytes - 1);
            fill_ += room;
            std::int64_t key = stamp.data()[i];
            if (now_ns && key > *now_ns) {
                key = *now_ns;
                ++future_;
            }
            if (std::pair(key, source) < floor_) ++late_;
            queue.push({key, stamp.data()[i], where, bytes, length.data()[i], port_map.data()[port.data()[i]],
                        flags.data()[i]});
            ++held_frames_;
            held_bytes_ += bytes;
        }
        held_most_ = std::max(held_most_, held_bytes_);
        return i - start;
    }

    // The next frames in order, at most max_frames: those that every source has passed, and those older than
    // the delay; with everything = True all of them, with early = True likewise but counted. undrained:
    // sources that may have older frames still unread; nothing newer than their newest goes by age.
    nb::object take(std::optional<std::int64_t> now_ns, std::size_t max_frames, bool everything, bool early,
                    const std::vector<std::size_t>& undrained) {
        std::vector<std::pair<std::size_t, std::uint32_t>> used;
        std::optional<BatchColumns> columns;
        std::size_t n = 0;
        {
            nb::gil_scoped_release unlocked;
            std::lock_guard<std::mutex> guard(lock_);
            const Key limit = release_limit(now_ns, undrained);
            for (auto& queue : queues_) queue.settle();
            if (held_frames_ == 0) return none_locked();
            const bool all = everything || early || flush_;
            const std::size_t most = std::min(max_frames, all ? held_frames_ : count_until(limit));
            if (most == 0) return none_locked();
            columns.emplace(most);
            while (n < most) {
                std::size_t from = queues_.size();
                std::int64_t key = forever;
                for (std::size_t s = 0; s < queues_.size(); ++s) {
                    const Queue& q = queues_[s];
                    if (!q.empty() && (from == queues_.size() || q.entries[q.head].key < key)) {
                        from = s;
                        key = q.entries[q.head].key;
                    }
                }
                if (from == queues_.size()) break;
                const Entry& e = queues_[from].entries[queues_[from].head++];
                columns->offset[n] = e.offset;
                columns->caplen[n] = e.caplen;
                columns->length[n] = e.length;
                columns->timestamp_ns[n] = e.stamp;
                columns->port[n] = e.port;
                columns->flags[n] = e.flags;
                const std::size_t slab = e.offset / slab_bytes;
                if (used.empty() || used.back().first != slab) used.emplace_back(slab, 0);
                ++used.back().second;
                const Key at{e.key, from};
                if (early && at > limit) ++early_;
                if (!flush_) floor_ = std::max(floor_, at);
                held_bytes_ -= e.caplen;
                ++n;
            }
            held_frames_ -= n;
            frames_ += n;
            if (held_frames_ == 0) flush_ = false;
            for (auto& queue : queues_) queue.trim();
            if (used.size() > 64) compact(used);
        }
        nb::object lease = nb::cast(new ArenaLease(arena_, std::move(used)), nb::rv_policy::take_ownership);
        return nb::make_tuple(columns->hand_out(arena_->base, arena_->bytes, lease, n), lease);
    }

    // Host time at which the oldest held frame is due, or None.
    std::optional<std::int64_t> due_ns() {
        std::lock_guard<std::mutex> guard(lock_);
        std::int64_t oldest = forever;
        for (auto& queue : queues_) {
            queue.settle();
            if (!queue.empty()) oldest = std::min(oldest, queue.entries[queue.head].key);
        }
        if (oldest == forever) return std::nullopt;
        return oldest + delay_ns_ + 1;
    }

    // A source that will bring no more frames holds nobody back.
    void end(std::size_t source) {
        std::lock_guard<std::mutex> guard(lock_);
        queues_.at(source).ended = true;
    }

    // (frames out, late, early, future, clock steps, held frames, held bytes, most bytes held, memory, bytes
    // of slabs in use)
    nb::tuple statistics() {
        std::lock_guard<std::mutex> guard(lock_);
        return nb::make_tuple(frames_, late_, early_, future_, steps_, held_frames_, held_bytes_, held_most_,
                              arena_->bytes, arena_->in_use() * slab_bytes);
    }

  private:
    using Key = std::pair<std::int64_t, std::size_t>;

    static nb::object none_locked() {
        nb::gil_scoped_acquire locked;
        return nb::none();
    }

    // Everything up to and including this (key, source) may go.
    Key release_limit(std::optional<std::int64_t> now_ns, const std::vector<std::size_t>& undrained) {
        if (now_ns) {
            if (*now_ns < last_now_) {
                // The clock was set back: what is held would wait for the old time to come again.
                ++steps_;
                flush_ = held_frames_ != 0;
                floor_ = {never, 0};
                for (auto& queue : queues_) queue.newest = never;
            }
            last_now_ = *now_ns;
        }
        // A source's next frame has a key of at least (newest, source).
        Key passed{forever, queues_.size()};
        std::int64_t newest = never;
        for (std::size_t s = 0; s < queues_.size(); ++s) {
            newest = std::max(newest, queues_[s].newest);
            if (!queues_[s].ended) passed = std::min(passed, Key{queues_[s].newest, s});
        }
        // Strictly older than the delay: a frame that arrives exactly `delay` after its stamp is in time.
        const std::int64_t clock = now_ns ? *now_ns : newest;
        Key old{clock < never + delay_ns_ + 1 ? never : clock - delay_ns_ - 1, queues_.size()};
        for (std::size_t s : undrained)
            if (!queues_.at(s).ended) old = std::min(old, Key{queues_[s].newest, s});
        return std::max({passed, old, floor_});
    }

    std::size_t count_until(Key limit) const {
        std::size_t n = 0;
        for (std::size_t s = 0; s < queues_.size(); ++s) {
            const auto& q = queues_[s];
            const auto begin = q.entries.begin() + static_cast<std::ptrdiff_t>(q.head);
            const auto end = std::partition_point(begin, q.entries.end(),
                                                  [&](const Entry& e) { return Key{e.key, s} <= limit; });
            n += static_cast<std::size_t>(end - begin);
        }
        return n;
    }

    static void compact(std::vector<std::pair<std::size_t, std::uint32_t>>& used) {
        std::sort(used.begin(), used.end());
        std::size_t out = 0;
        for (std::size_t i = 0; i < used.size(); ++i) {
            if (out != 0 && used[out - 1].first == used[i].first)
                used[out - 1].second += used[i].second;
            else
                used[out++] = used[i];
        }
        used.resize(out);
    }

    const std::int64_t delay_ns_;
    std::shared_ptr<Arena> arena_;
    std::mutex lock_;
    std::vector<Queue> queues_;
    std::optional<std::size_t> open_;
    std::size_t fill_ = 0;
    Key floor_{never, 0};  // the newest (key, source) that went out
    std::int64_t last_now_ = never;
    bool flush_ = false;
    std::size_t held_frames_ = 0;
    std::uint64_t held_bytes_ = 0, held_most_ = 0, frames_ = 0, late_ = 0, early_ = 0, future_ = 0,
                  steps_ = 0;
};

}  // namespace

void bind_merge(nb::module_& m) {
    nb::class_<ArenaLease>(m, "ArenaLease").def("release", &ArenaLease::release);
    nb::class_<Merger>(m, "Merger", "Reorder buffer of several sources; see twinstamp.io.merge.Merge.")
        .def(nb::init<std::size_t, std::int64_t, std::size_t>(), nb::arg("sources"), nb::kw_only(),
             nb::arg("delay_ns"), nb::arg("memory_bytes"))
        .def("add", &Merger::add, nb::arg("source"), nb::arg("data"), nb::arg("offset"), nb::arg("caplen"),
             nb::arg("length"), nb::arg("timestamp_ns"), nb::arg("port"), nb::arg("flags"),
             nb::arg("port_map"), nb::arg("start"), nb::arg("now_ns").none())
        .def("take", &Merger::take, nb::arg("now_ns").none(), nb::arg("max_frames"), nb::arg("everything"),
             nb::arg("early"), nb::arg("undrained"))
        .def("due_ns", &Merger::due_ns)
        .def("end", &Merger::end, nb::arg("source"))
        .def("statistics", &Merger::statistics);
}

}  // namespace twinstamp
