// SPDX-License-Identifier: Apache-2.0
// Walks pcap and pcapng records into the columns of frame batches, without copying frames.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "block_log.h"
#include "buffer_pool.h"
#include "capture_format.h"

namespace twinstamp {

// Where the bytes come from: a file descriptor, or a Python object with readinto().
class ByteSource {
  public:
    ByteSource(int fd, nanobind::object readinto);
    // At least one byte, or 0 at the end. Waits, looking at Python's signals and at stop; -1 when stopped.
    // Called without the GIL.
    i64 read(u8* to, u64 size, const std::atomic<bool>& stop);
    // Would read() return within wait_ns?
    bool ready(i64 wait_ns) const;
    bool is_file() const { return regular_; }
    i64 file_size() const { return size_; }

  private:
    int fd_;
    nanobind::object readinto_;
    bool regular_ = false;
    i64 size_ = -1;
};

enum class CaptureFormat { pcap, pcap_ns, pcap_modified, pcapng };

class CaptureReader {
  public:
    CaptureReader(int fd, nanobind::object readinto, std::string name, nanobind::bytes head, u64 batch_frames,
                  u64 batch_bytes);

    // (columns, lease, first frame, options, big endian) or None at the end.
    nanobind::object read();
    void cancel() { stop_ = true; }
    // Descriptions of interfaces from the first-th on.
    nanobind::list interfaces(u32 first) const;
    std::shared_ptr<BlockLog> log() const { return log_; }

    const char* format_name() const;
    u64 frames() const { return frames_; }
    u64 captured() const { return captured_; }
    u64 bytes_read() const { return block_base_ + begin_; }
    std::optional<std::string> truncated() const { return truncated_; }
    // Frames of a pcap file whose fraction of a second is a second or more.
    u64 fractions_beyond() const { return fractions_beyond_; }
    i64 size() const { return source_.file_size(); }
    u32 port_count() const { return static_cast<u32>(ports_.size()); }
    u32 header_snaplen() const { return header_snaplen_; }
    u32 header_network() const { return header_network_; }

  private:
    enum class Walk { more, full, cut, bad };

    void detect();
    void start_pcap();
    bool fill();  // one read more behind end_, false at the end or when stopped
    void make_room(u64 need);
    Walk walk(Columns& columns, u64& n);
    template <bool Swap>
    Walk walk_pcap(Columns& columns, u64& n);
    Walk walk_pcapng(Columns& columns, u64& n);
    bool start_section(const u8* block, u32 total);
    bool start_interface(const u8* block, u32 total);
    bool packet_options(const u8* options, u64 size, u16& flags);
    Walk bad(std::string what);
    void log_block(BlockKind kind, u32 type, const u8* block, u32 total, u64 position);
    std::string where() const;
    std::string cut_message() const;

    ByteSource source_;
    std::string name_;
    std::vector<u8> head_;  // bytes read before this reader took over
    u64 batch_frames_, batch_bytes_;
    std::shared_ptr<Pool<Block>> blocks_ = std::make_shared<Pool<Block>>();
    std::shared_ptr<Pool<Columns>> columns_ = std::make_shared<Pool<Columns>>();
    std::shared_ptr<BlockLog> log_ = std::make_shared<BlockLog>();

    std::shared_ptr<Block> block_;
    std::shared_ptr<void> block_use_;
    u64 begin_ = 0, end_ = 0;  // bytes of block_ not walked yet
    u64 block_base_ = 0;       // offset in the source of block_'s first byte
    u64 need_ = 0;             // bytes the record at begin_ wants, as far as known
    bool eof_ = false;
    std::atomic<bool> stop_{false};

    CaptureFormat format_ = CaptureFormat::pcap;
    bool swap_ = false;
    u32 scale_ns_ = 1000;
    u32 header_snaplen_ = 0, header_network_ = 1;
    u32 max_caplen_ = 262144;
    enum class LengthOrder { normal, swapped, guess } length_order_ = LengthOrder::normal;

    std::deque<Interface> ports_;
    u32 section_base_ = 0;              // number of the section's first interface
    u64 largest_block_ = max_block(1);  // of any of its interfaces' link types
    bool in_section_ = false;
    u64 pending_log_bytes_ = 0;

    u64 frames_ = 0, captured_ = 0, fractions_beyond_ = 0;
    std::optional<std::string> error_;
    std::optional<std::string> truncated_;
};

}  // namespace twinstamp
