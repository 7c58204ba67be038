// SPDX-License-Identifier: Apache-2.0
// Memory for copied frames: slabs of one mapping, each free again when nobody uses a frame in it.
#pragma once
#include <errno.h>
#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "os_error.h"

namespace twinstamp {

constexpr std::size_t slab_bytes = 512 * 1024;
constexpr std::size_t frame_align = 64;  // a cache line per frame start, and a bound on frames per byte

struct Arena {
    explicit Arena(std::size_t slabs_) : slabs(slabs_), bytes(slabs_ * slab_bytes), users(slabs_) {
        void* p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                         -1, 0);
        if (p == MAP_FAILED) throw OsError("reserving the reorder buffer", errno);
        base = static_cast<std::uint8_t*>(p);
        for (std::size_t i = slabs; i-- != 0;) free.push_back(i);
        for (auto& u : users) u.store(0, std::memory_order_relaxed);
    }
    Arena(const Arena&) = delete;
    Arena& operator=(const Arena&) = delete;
    ~Arena() { ::munmap(base, bytes); }

    std::optional<std::size_t> take() {
        std::lock_guard<std::mutex> guard(lock);
        if (free.empty()) return std::nullopt;
        std::size_t slab = free.back();  // last in, first out: the slab most likely still in the cache
        free.pop_back();
        users[slab].store(1, std::memory_order_relaxed);
        return slab;
    }
    void drop(std::size_t slab, std::uint32_t n) {
        if (users[slab].fetch_sub(n, std::memory_order_acq_rel) != n) return;
        std::lock_guard<std::mutex> guard(lock);
        free.push_back(slab);
    }
    std::size_t in_use() {
        std::lock_guard<std::mutex> guard(lock);
        return slabs - free.size();
    }

    std::size_t slabs, bytes;
    std::uint8_t* base = nullptr;
    std::vector<std::atomic<std::uint32_t>> users;  // frames in the slab, +1 while it is being filled
    std::mutex lock;
    std::vector<std::size_t> free;
};

class ArenaLease {
  public:
    ArenaLease(std::shared_ptr<Arena> arena, std::vector<std::pair<std::size_t, std::uint32_t>> used)
        : arena_(std::move(arena)), used_(std::move(used)) {}
    ArenaLease(const ArenaLease&) = delete;
    ArenaLease& operator=(const ArenaLease&) = delete;
    ~ArenaLease() { release(); }
    void release() {
        if (done_.exchange(true)) return;
        for (auto [slab, n] : used_) arena_->drop(slab, n);
    }

  private:
    std::shared_ptr<Arena> arena_;
    std::vector<std::pair<std::size_t, std::uint32_t>> used_;
    std::atomic<bool> done_{false};
};

}  // namespace twinstamp
