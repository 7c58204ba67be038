// SPDX-License-Identifier: Apache-2.0
// The way of pcapng blocks that are not packets from a reader to the writers made like it.
//
// Each block goes out with the number of frames before it, so that a writer puts it between the same
// frames again. Writers may live in other threads than the reader.
#pragma once

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "capture_format.h"

namespace twinstamp {

struct Interface {
    u32 linktype = 1;
    u32 snaplen = 0;
    u32 local = 0;  // index within its section
    Resolution resolution;
    std::string name;
};

enum class BlockKind { section, interface, other };

struct LoggedBlock {
    BlockKind kind = BlockKind::other;
    bool big_endian = false;
    u32 type = 0;
    u32 port = 0;      // interface: its number over all sections
    u64 position = 0;  // frames read before it
    std::vector<u8> raw;
    Interface interface;
};

using LoggedBlockPtr = std::shared_ptr<const LoggedBlock>;

// One writer's queue.
struct BlockQueue {
    std::mutex mutex;
    std::deque<LoggedBlockPtr> blocks;
};

class BlockLog {
  public:
    // A queue that starts with the current section's header and interfaces.
    std::shared_ptr<BlockQueue> subscribe() {
        std::lock_guard lock(mutex_);
        auto queue = std::make_shared<BlockQueue>();
        queue->blocks.assign(section_.begin(), section_.end());
        queues_.push_back(queue);
        return queue;
    }
    void add(LoggedBlockPtr block) {
        std::lock_guard lock(mutex_);
        if (block->kind == BlockKind::section) {
            section_.clear();
            section_bytes_ = 0;
        }
        if (block->kind != BlockKind::other) {
            section_.push_back(block);
            section_bytes_ += block->raw.size();
        }
        std::erase_if(queues_, [](const auto& queue) { return queue.expired(); });
        for (auto& weak : queues_) {
            if (auto queue = weak.lock()) {
                std::lock_guard queue_lock(queue->mutex);
                queue->blocks.push_back(block);
            }
        }
    }
    bool wanted() {
        std::lock_guard lock(mutex_);
        return std::any_of(queues_.begin(), queues_.end(),
                           [](const auto& queue) { return !queue.expired(); });
    }
    u64 section_bytes() {
        std::lock_guard lock(mutex_);
        return section_bytes_;
    }

  private:
    std::mutex mutex_;
    std::vector<LoggedBlockPtr> section_;  // header and interfaces of the section being read
    u64 section_bytes_ = 0;
    std::vector<std::weak_ptr<BlockQueue>> queues_;
};

}  // namespace twinstamp
