// SPDX-License-Identifier: Apache-2.0
// Reusable buffers of a capture reader, leased to frame batches.
//
// One read fills a Block of bytes; one or several batches point into it. Two counts are kept apart:
// who *uses* a block (batches not yet released; at zero it goes back to the pool and is filled anew)
// and who could still *see* it (arrays somebody kept after release(), against the contract): those
// keep the memory alive, so a late look reads stale bytes but never freed memory.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <new>
#include <vector>

#include "twinstamp/platform.h"

namespace twinstamp {

struct Block {
    explicit Block(u64 bytes) : size(bytes) {
        // Spare bytes behind the data let compiled stages load whole words at the end of a frame.
        constexpr u64 kSpare = 64, kAlign = 4096;
        const u64 whole = (bytes + kSpare + kAlign - 1) / kAlign * kAlign;
        data = static_cast<u8*>(std::aligned_alloc(kAlign, whole));
        if (!data) throw std::bad_alloc();
    }
    ~Block() { std::free(data); }
    Block(const Block&) = delete;
    Block& operator=(const Block&) = delete;
    u8* data;
    u64 size;
};

// The columns of one batch. Options' columns only where the source has options.
struct Columns {
    Columns(u64 n, bool with_options)
        : offset(new u64[n]),
          timestamp_ns(new i64[n]),
          caplen(new u32[n]),
          length(new u32[n]),
          port(new u16[n]),
          flags(new u16[n]) {
        if (with_options) {
            option_offset.reset(new u64[n]);
            option_length.reset(new u32[n]);
        }
    }
    std::unique_ptr<u64[]> offset;
    std::unique_ptr<i64[]> timestamp_ns;
    std::unique_ptr<u32[]> caplen, length;
    std::unique_ptr<u16[]> port, flags;
    std::unique_ptr<u64[]> option_offset;
    std::unique_ptr<u32[]> option_length;
};

template <class T>
class Pool : public std::enable_shared_from_this<Pool<T>> {
  public:
    // A free item that satisfies fits, the most recently returned first (it is the warmest), else made new.
    template <class Fits, class Make>
    std::shared_ptr<T> get(Fits fits, Make make) {
        {
            std::lock_guard lock(mutex_);
            for (std::size_t i = free_.size(); i-- > 0;) {
                if (fits(*free_[i])) {
                    std::shared_ptr<T> item = std::move(free_[i]);
                    free_.erase(free_.begin() + static_cast<std::ptrdiff_t>(i));
                    return item;
                }
            }
        }
        return make();
    }
    // A token: when its last copy goes, item returns to the pool.
    std::shared_ptr<void> use(std::shared_ptr<T> item) {
        auto pool = this->shared_from_this();
        return std::shared_ptr<void>(item.get(), [pool, item](void*) mutable { pool->put(std::move(item)); });
    }

  private:
    static constexpr std::size_t kKept = 8;
    void put(std::shared_ptr<T> item) {
        std::lock_guard lock(mutex_);
        if (free_.size() < kKept) free_.push_back(std::move(item));
    }
    std::mutex mutex_;
    std::vector<std::shared_ptr<T>> free_;
};

// What a batch holds. Owner of its arrays in Python; release() ends the use, not the memory.
class Lease {
  public:
    Lease(std::shared_ptr<Block> block, std::shared_ptr<void> block_use, std::shared_ptr<Columns> columns,
          std::shared_ptr<void> columns_use)
        : block_(std::move(block)),
          columns_(std::move(columns)),
          block_use_(std::move(block_use)),
          columns_use_(std::move(columns_use)) {}
    void release() {
        block_use_.reset();
        columns_use_.reset();
    }

  private:
    std::shared_ptr<Block> block_;
    std::shared_ptr<Columns> columns_;
    std::shared_ptr<void> block_use_, columns_use_;
};

}  // namespace twinstamp
